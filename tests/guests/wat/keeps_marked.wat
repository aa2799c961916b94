;; A filter: keeps the rows whose value begins with "k".
(func (export "wasmill:operator/operator@0.1.0#process")
  (param $port i32) (param $times i32) (param $times_len i32)
  (param $key_ends i32) (param $keys_len i32) (param $key_data i32) (param $key_bytes i32)
  (param $ends i32) (param $rows i32) (param $data i32) (param $bytes i32) (result i32)
  (local $row i32) (local $start i32) (local $end i32) (local $words i32) (local $bits i32)
  (local.set $words (i32.shr_u (i32.add (local.get $rows) (i32.const 63)) (i32.const 6)))
  (local.set $bits (call $alloc (i32.shl (local.get $words) (i32.const 3))))
  (memory.fill (local.get $bits) (i32.const 0) (i32.shl (local.get $words) (i32.const 3)))
  (block $done
    (loop $next
      (br_if $done (i32.eq (local.get $row) (local.get $rows)))
      (local.set $end (i32.load (i32.add (local.get $ends) (i32.shl (local.get $row) (i32.const 2)))))
      (if (i32.and
            (i32.lt_u (local.get $start) (local.get $end))
            (i32.eq (i32.const 107) (i32.load8_u (i32.add (local.get $data) (local.get $start)))))
        (then
          (i32.store8 (i32.add (local.get $bits) (i32.shr_u (local.get $row) (i32.const 3)))
            (i32.or
              (i32.load8_u (i32.add (local.get $bits) (i32.shr_u (local.get $row) (i32.const 3))))
              (i32.shl (i32.const 1) (i32.and (local.get $row) (i32.const 7)))))))
      (local.set $start (local.get $end))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
  (call $emit_list (i32.const 1) (local.get $bits) (local.get $words))
  (call $one_emission))
