;; world: windowed
;; An aggregate: an accumulator is the number of rows as a little-endian u64.

;; Adds accumulator $from of a column to counter $to of $sums.
(func $tally (param $ends i32) (param $data i32) (param $from i32) (param $sums i32) (param $to i32)
  (local $start i32) (local $at i32)
  (if (local.get $from)
    (then (local.set $start
      (i32.load (i32.add (local.get $ends) (i32.shl (i32.sub (local.get $from) (i32.const 1)) (i32.const 2)))))))
  (if (i32.eq (local.get $start)
        (i32.load (i32.add (local.get $ends) (i32.shl (local.get $from) (i32.const 2)))))
    (then (return)))
  (local.set $at (i32.add (local.get $sums) (i32.shl (local.get $to) (i32.const 3))))
  (i64.store (local.get $at)
    (i64.add (i64.load (local.get $at)) (i64.load (i32.add (local.get $data) (local.get $start))))))

;; A column of $count counters in the result at 4096, all 0; returns where they are.
(func $counters (param $count i32) (result i32)
  (local $ends i32) (local $sums i32) (local $row i32)
  (local.set $ends (call $alloc (i32.shl (local.get $count) (i32.const 2))))
  (local.set $sums (call $alloc (i32.shl (local.get $count) (i32.const 3))))
  (memory.fill (local.get $sums) (i32.const 0) (i32.shl (local.get $count) (i32.const 3)))
  (block $done
    (loop $next
      (br_if $done (i32.eq (local.get $row) (local.get $count)))
      (i32.store (i32.add (local.get $ends) (i32.shl (local.get $row) (i32.const 2)))
        (i32.shl (i32.add (local.get $row) (i32.const 1)) (i32.const 3)))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
  (i32.store (i32.const 4100) (local.get $ends))
  (i32.store (i32.const 4104) (local.get $count))
  (i32.store (i32.const 4108) (local.get $sums))
  (i32.store (i32.const 4112) (i32.shl (local.get $count) (i32.const 3)))
  (local.get $sums))

(func (export "wasmill:operator/aggregate@0.1.0#fold")
  (param $ends i32) (param $count i32) (param $data i32) (param $bytes i32)
  (param $groups i32) (param $rows i32)
  (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
  (local $sums i32) (local $row i32) (local $at i32)
  (local.set $sums (call $counters (local.get $count)))
  (block $done
    (loop $next
      (br_if $done (i32.eq (local.get $row) (local.get $count)))
      (call $tally (local.get $ends) (local.get $data) (local.get $row) (local.get $sums) (local.get $row))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
  (local.set $row (i32.const 0))
  (block $done
    (loop $next
      (br_if $done (i32.eq (local.get $row) (local.get $rows)))
      (local.set $at (i32.add (local.get $sums)
        (i32.shl (i32.load (i32.add (local.get $groups) (i32.shl (local.get $row) (i32.const 2)))) (i32.const 3))))
      (i64.store (local.get $at) (i64.add (i64.load (local.get $at)) (i64.const 1)))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
  (call $reset)
  (i32.const 4096))

(func (export "wasmill:operator/aggregate@0.1.0#merge")
  (param $ends i32) (param $count i32) (param $data i32) (param $bytes i32)
  (param $groups i32) (param $groups_len i32) (param $wanted i32) (result i32)
  (local $sums i32) (local $row i32)
  (local.set $sums (call $counters (local.get $wanted)))
  (block $done
    (loop $next
      (br_if $done (i32.eq (local.get $row) (local.get $count)))
      (call $tally (local.get $ends) (local.get $data) (local.get $row) (local.get $sums)
        (i32.load (i32.add (local.get $groups) (i32.shl (local.get $row) (i32.const 2)))))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br $next)))
  (call $reset)
  (i32.const 4096))

(func (export "wasmill:operator/aggregate@0.1.0#finish")
  (param i32 i32 i32 i32 i32 i32 i32 i32)
  (param $ends i32) (param $count i32) (param $data i32) (param $bytes i32) (result i32)
  (i32.store (i32.const 4100) (local.get $ends))
  (i32.store (i32.const 4104) (local.get $count))
  (i32.store (i32.const 4108) (local.get $data))
  (i32.store (i32.const 4112) (local.get $bytes))
  (call $reset)
  (i32.const 4096))
