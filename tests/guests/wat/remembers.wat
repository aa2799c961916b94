;; world: stateful
;; Answers with what it remembers of each key, then remembers the value; asks to be woken at time
;; 7 under the tag "w".

;; One space, "seen", of schema 1, without a lifetime.
(data (i32.const 1060) "\40\10\00\00\01\00\00\00")
(data (i32.const 4160) "\80\10\00\00\04\00\00\00" "\01\00\00\00" "\00\00\00\00" "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
(data (i32.const 4224) "seen" "w\00\00\00")
;; The ends of a tag of one byte, and the time 7.
(data (i32.const 4240) "\01\00\00\00\00\00\00\00" "\07\00\00\00\00\00\00\00")

(func (export "wasmill:operator/operator@0.1.0#process")
  (param $port i32) (param $times i32) (param $times_len i32)
  (param $key_ends i32) (param $keys i32) (param $key_data i32) (param $key_bytes i32)
  (param $ends i32) (param $rows i32) (param $data i32) (param $bytes i32) (result i32)
  ;; The result of get-many: a bitmap at 4112, the values' ends at 4120, their data at 4128.
  (call $get_many (i32.const 0)
    (local.get $key_ends) (local.get $keys) (local.get $key_data) (local.get $key_bytes)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 4112))
  (call $put_many (i32.const 0)
    (local.get $key_ends) (local.get $keys) (local.get $key_data) (local.get $key_bytes)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
    (local.get $ends) (local.get $rows) (local.get $data) (local.get $bytes))
  (call $set_timers (i32.const 0)
    (local.get $key_ends) (i32.const 1) (local.get $key_data) (i32.load (local.get $key_ends))
    (i32.const 4240) (i32.const 1) (i32.const 4228) (i32.const 1)
    (i32.const 4248) (i32.const 1))
  (call $emit_list (i32.const 2) (i32.load (i32.const 4120)) (i32.load (i32.const 4124)))
  (i32.store (i32.const 2064) (i32.load (i32.const 4128)))
  (i32.store (i32.const 2068) (i32.load (i32.const 4132)))
  (call $one_emission))
