;; Traps in `open` where its memory is not as new, then leaves a mark in it.
(func (export "wasmill:operator/plugin@0.1.0#open") (param i32 i32) (result i32)
  (local $at i32)
  (drop (memory.grow (i32.const 14)))
  (local.set $at (i32.const 65536))
  (loop $next
    (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (unreachable)))
    (i64.store (local.get $at) (i64.const -1))
    (local.set $at (i32.add (local.get $at) (i32.const 4096)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 1048576))))
  (i32.const 1232))
