;; An operator as a component, written by hand: no SDK, no generator, no compiler. It keeps the events
;; whose value is longer than 16 bytes.
(component
  (core module $Operator
    (memory (export "memory") 2)
    (global $heap (mut i32) (i32.const 65536))

    ;; result<descriptor, failure>, ok
    (data (i32.const 1024)
      "\00\00\00\00"
      "\4c\04\00\00\04\00\00\00"  ;; name "long"
      "\51\04\00\00\05\00\00\00"  ;; version "1.0.0"
      "\58\04\00\00\01\00\00\00"  ;; inputs
      "\60\04\00\00\01\00\00\00"  ;; outputs
      "\00\00\00\00\00\00\00\00"  ;; spaces
      "\04\00\00\00")             ;; columns: values; no watermarks
    (data (i32.const 1100) "long ")
    (data (i32.const 1105) "1.0.0")
    (data (i32.const 1112) "\68\04\00\00\02\00\00\00")
    (data (i32.const 1120) "\6a\04\00\00\03\00\00\00")
    (data (i32.const 1128) "inout")
    ;; result<outcome, failure>, ok: the emission at 2048, none rejected
    (data (i32.const 1200) "\00\00\00\00" "\00\08\00\00\01\00\00\00" "\00\00\00\00\00\00\00\00")
    ;; The emission: port 0, `keep`, and the bitmap, which is set by each call.
    (data (i32.const 2048) "\00\00\00\00" "\01\00\00\00" "\00\00\00\00" "\00\00\00\00")
    ;; result<_, failure>, ok, at 1232

    ;; Lends memory from the top of the heap until the call ends.
    (func $alloc (export "realloc") (param i32 i32 i32) (param $bytes i32) (result i32)
      (local $at i32) (local $end i32)
      (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
      (local.set $end (i32.add (local.get $at) (local.get $bytes)))
      (if (i32.gt_u (local.get $end) (i32.mul (memory.size) (i32.const 65536)))
        (then
          (if (i32.eq (i32.const -1)
                (memory.grow (i32.add (i32.const 1) (i32.shr_u (local.get $bytes) (i32.const 16)))))
            (then (unreachable)))))
      (global.set $heap (local.get $end))
      (local.get $at))

    (func (export "describe") (param i32 i32) (result i32) (i32.const 1024))
    (func (export "open") (param i32 i32) (result i32) (i32.const 1232))
    (func (export "flush") (result i32) (i32.const 1232))

    (func (export "process")
      (param $port i32)
      (param $times i32) (param $times_len i32)
      (param $key_ends i32) (param $key_ends_len i32) (param $key_data i32) (param $key_data_len i32)
      (param $ends i32) (param $rows i32) (param $data i32) (param $data_len i32)
      (result i32)
      (local $bits i32) (local $words i32) (local $row i32) (local $start i32) (local $end i32) (local $word i32)
      (local.set $words (i32.shr_u (i32.add (local.get $rows) (i32.const 63)) (i32.const 6)))
      (local.set $bits
        (call $alloc (i32.const 0) (i32.const 0) (i32.const 8) (i32.shl (local.get $words) (i32.const 3))))
      (memory.fill (local.get $bits) (i32.const 0) (i32.shl (local.get $words) (i32.const 3)))
      (block $done
        (loop $next
          (br_if $done (i32.eq (local.get $row) (local.get $rows)))
          (local.set $end (i32.load (i32.add (local.get $ends) (i32.shl (local.get $row) (i32.const 2)))))
          (if (i32.gt_u (i32.sub (local.get $end) (local.get $start)) (i32.const 16))
            (then
              (local.set $word
                (i32.add (local.get $bits) (i32.shl (i32.shr_u (local.get $row) (i32.const 6)) (i32.const 3))))
              (i64.store (local.get $word)
                (i64.or (i64.load (local.get $word))
                  (i64.shl (i64.const 1) (i64.extend_i32_u (i32.and (local.get $row) (i32.const 63))))))))
          (local.set $start (local.get $end))
          (local.set $row (i32.add (local.get $row) (i32.const 1)))
          (br $next)))
      (i32.store (i32.const 2056) (local.get $bits))
      (i32.store (i32.const 2060) (local.get $words))
      (global.set $heap (i32.const 65536))
      (i32.const 1200))
  )
  (core instance $operator (instantiate $Operator))
  (alias core export $operator "memory" (core memory $memory))
  (alias core export $operator "realloc" (core func $realloc))

  ;; The shapes of wit/operator.wit.
  (type $column (record (field "ends" (list u32)) (field "data" (list u8))))
  (type $batch (record (field "times" (list s64)) (field "keys" $column) (field "values" $column)))
  (type $rows (record (field "batch" $batch) (field "origins" (list u32))))
  (type $output
    (variant (case "unchanged") (case "keep" (list u64)) (case "values" $column) (case "rows" $rows)))
  (type $emission (record (field "port" u16) (field "output" $output)))
  (type $rejected (record (field "row" u32) (field "reason" string)))
  (type $outcome (record (field "emissions" (list $emission)) (field "rejected" (list $rejected))))
  (type $failure (variant (case "retry" string) (case "fatal" string)))
  (type $clock (enum "event" "processing"))
  (type $columns (flags "times" "keys" "values"))
  (type $ttl (record (field "clock" $clock) (field "micros" u64)))
  (type $space (record (field "name" string) (field "schema-version" u32) (field "ttl" (option $ttl))))
  (type $descriptor
    (record
      (field "name" string) (field "version" string)
      (field "inputs" (list string)) (field "outputs" (list string))
      (field "spaces" (list $space)) (field "columns" $columns) (field "watermarks" bool)))

  (func $describe (param "config" (list u8)) (result (result $descriptor (error $failure)))
    (canon lift (core func $operator "describe") (memory $memory) (realloc (func $realloc))))
  (func $open (param "config" (list u8)) (result (result (error $failure)))
    (canon lift (core func $operator "open") (memory $memory) (realloc (func $realloc))))
  (func $process (param "port" u16) (param "input" $batch) (result (result $outcome (error $failure)))
    (canon lift (core func $operator "process") (memory $memory) (realloc (func $realloc))))
  (func $flush (result (result (error $failure)))
    (canon lift (core func $operator "flush") (memory $memory)))

  (instance $plugin
    (export "failure" (type $failure))
    (export "clock" (type $clock))
    (export "columns" (type $columns))
    (export "ttl" (type $ttl))
    (export "space" (type $space))
    (export "descriptor" (type $descriptor))
    (export "describe" (func $describe))
    (export "open" (func $open)))
  (export "wasmill:operator/plugin@0.1.0" (instance $plugin))
  (instance $rows-in
    (export "column" (type $column))
    (export "batch" (type $batch))
    (export "rows" (type $rows))
    (export "output" (type $output))
    (export "emission" (type $emission))
    (export "rejected" (type $rejected))
    (export "outcome" (type $outcome))
    (export "failure" (type $failure))
    (export "process" (func $process))
    (export "flush" (func $flush)))
  (export "wasmill:operator/operator@0.1.0" (instance $rows-in))
)
