;; What every guest has: memory, a bump allocator, and results at fixed places.
;;
;;   1024  result<descriptor, failure>   ok: one input, one output, every column
;;   1100  strings
;;   1200  result<outcome, failure>      ok: one emission, the one at 2048
;;   1232  result<_, failure>            ok
;;   2048  emission                      port 0, unchanged
;;   4096  free for the guest
;;  65536  heap, from here on
(memory (export "memory") 2)
(global $heap (mut i32) (i32.const 65536))

(data (i32.const 1024)
  "\00\00\00\00"
  "\4c\04\00\00\05\00\00\00"  ;; name "guest"
  "\51\04\00\00\01\00\00\00"  ;; version "1"
  "\58\04\00\00\01\00\00\00"  ;; inputs
  "\60\04\00\00\01\00\00\00"  ;; outputs
  "\00\00\00\00\00\00\00\00"  ;; spaces
  "\07\00\00\00")             ;; columns, watermarks
(data (i32.const 1100) "guest1")
(data (i32.const 1112) "\68\04\00\00\02\00\00\00")
(data (i32.const 1120) "\6a\04\00\00\03\00\00\00")
(data (i32.const 1128) "inout")
(data (i32.const 1200) "\00\00\00\00" "\00\08\00\00\01\00\00\00" "\00\00\00\00\00\00\00\00")

(func $alloc (param $bytes i32) (result i32)
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

(func $reset (global.set $heap (i32.const 65536)))

;; The address of an outcome with the emission at 2048.
(func $one_emission (result i32) (call $reset) (i32.const 1200))

;; Makes the emission at 2048 hold a list at $at of $length items as case $case.
(func $emit_list (param $case i32) (param $at i32) (param $length i32)
  (i32.store8 (i32.const 2052) (local.get $case))
  (i32.store (i32.const 2056) (local.get $at))
  (i32.store (i32.const 2060) (local.get $length)))
