//! What guests ask of the host: bounded, escaped, refused.

use wasmill_contract::{MetricUpdate, OperatorError};

use crate::support::{Guest, Host, batch, call};

/// A loop that runs `body` `times` times.
fn repeat(times: u32, body: &str) -> String {
    format!(
        "(global.set $left (i32.const {times}))
         (loop $again {body}
           (global.set $left (i32.sub (global.get $left) (i32.const 1)))
           (br_if $again (global.get $left)))
         (call $one_emission)"
    )
}

const LEFT: &str = "(global $left (mut i32) (i32.const 0))";

#[tokio::test]
async fn a_flood_of_log_lines_is_cut_and_counted() {
    let flood = repeat(500, "(call $log (i32.const 1) (i32.const 4096) (i32.const 9))");
    let guest =
        Guest::doing("stateless", "process", &flood).and(LEFT).and(r#"(data (i32.const 4096) "\1b[2Jx\0aERR")"#);
    let mut operator = Host::shared().open(&guest).await.expect("opens");
    for _ in 0..2 {
        call(&mut *operator, &batch(&["x"])).await.expect("runs");
        let log = std::mem::take(&mut operator.context().log);
        assert_eq!(log.len(), 101);
        assert_eq!(log[0].message, "\\u{1b}[2Jx\\nERR");
        assert_eq!(log[100].message, "400 more lines dropped: a call may log 100");
    }
}

#[tokio::test]
async fn a_log_line_of_a_mebibyte_is_cut() {
    let body = "(drop (memory.grow (i32.const 20))) (memory.fill (i32.const 65536) (i32.const 97) (i32.const 1048576))
        (call $log (i32.const 1) (i32.const 65536) (i32.const 1048576)) (call $one_emission)";
    let mut operator = Host::shared().open(&Guest::doing("stateless", "process", body)).await.expect("opens");
    call(&mut *operator, &batch(&["x"])).await.expect("runs");
    assert_eq!(operator.context().log[0].message.chars().count(), 8_193);
}

#[tokio::test]
async fn counters_of_one_call_become_one_update() {
    let add = repeat(50, "(call $add (i32.const 1100) (i32.const 5) (i64.const 2))");
    let mut operator = Host::shared().open(&Guest::doing("stateless", "process", &add).and(LEFT)).await.expect("opens");
    for _ in 0..2 {
        call(&mut *operator, &batch(&["x"])).await.expect("runs");
        let metrics = std::mem::take(&mut operator.context().metrics);
        assert_eq!(metrics, [MetricUpdate::Add("guest".into(), 100)]);
    }
}

#[tokio::test]
async fn an_instance_may_name_only_so_many_metrics() {
    // The name is the number of calls left, written as three digits.
    let digit = |at: u32, divisor: u32| {
        format!(
            "(i32.store8 (i32.const {at}) (i32.add (i32.const 48)
               (i32.rem_u (i32.div_u (global.get $left) (i32.const {divisor})) (i32.const 10))))"
        )
    };
    let body = format!(
        "{} {} {} (call $add (i32.const 4096) (i32.const 3) (i64.const 1))",
        digit(4096, 100),
        digit(4097, 10),
        digit(4098, 1)
    );
    let guest = Guest::doing("stateless", "process", &repeat(250, &body)).and(LEFT);
    let mut operator = Host::shared().open(&guest).await.expect("opens");
    call(&mut *operator, &batch(&["x"])).await.expect("runs");
    assert_eq!(operator.context().metrics.len(), 200);
    let log = &operator.context().log;
    assert!(log[0].message.contains("an instance may name 200"), "{:?}", log[0]);
}

#[tokio::test]
async fn a_metric_name_out_of_its_alphabet_is_dropped_and_said() {
    let body = "(call $add (i32.const 4096) (i32.const 3) (i64.const 1)) (call $one_emission)";
    let guest = Guest::doing("stateless", "process", body).and(r#"(data (i32.const 4096) "a{b")"#);
    let mut operator = Host::shared().open(&guest).await.expect("opens");
    call(&mut *operator, &batch(&["x"])).await.expect("runs");
    assert!(operator.context().metrics.is_empty());
    assert!(operator.context().log[0].message.contains(r#""a{b""#), "{:?}", operator.context().log);
}

/// A call that puts one entry with a key of `key` and a value of `value` bytes.
fn put(space: u32, key: u32, value: u32) -> Guest {
    let body = format!(
        "(drop (memory.grow (i32.const 40)))
         (i32.store (i32.const 4096) (i32.const {key})) (i32.store (i32.const 4100) (i32.const {value}))
         (call $put_many (i32.const {space})
           (i32.const 4096) (i32.const 1) (i32.const 65536) (i32.const {key})
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
           (i32.const 4100) (i32.const 1) (i32.const 65536) (i32.const {value}))
         (call $one_emission)"
    );
    // One space of an empty name would be refused: it is "seen".
    Guest::doing("stateful", "process", &body)
        .and(r#"(data (i32.const 1060) "\40\10\00\00\01\00\00\00") (data (i32.const 4160) "\80\10\00\00\04\00\00\00")"#)
        .and(r#"(data (i32.const 4224) "seen")"#)
}

#[tokio::test]
async fn keys_and_values_have_bounds() {
    let host = Host::shared();
    host.process(&put(0, 4_096, 1 << 20)).await.expect("as large as may be");
    let limit = |limit: &str| Err(OperatorError::Limit { call: "process", limit: limit.into() });
    assert_eq!(host.process(&put(0, 4_097, 1)).await, limit("4096 bytes in a key of state.put-many, not 4097"));
    assert_eq!(
        host.process(&put(0, 1, (1 << 20) + 1)).await,
        limit("1048576 bytes in a value of state.put-many, not 1048577")
    );
}

#[tokio::test]
async fn a_space_that_is_not_declared() {
    match Host::shared().process(&put(1, 1, 1)).await {
        Err(OperatorError::Contract { call: "process", reason }) => assert!(reason.contains("space 1"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_scan_without_end() {
    let body = "(call $scan (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const -1) (i32.const 4096)) (call $one_emission)";
    match Host::shared().process(&Guest::doing("stateful", "process", body)).await {
        Err(OperatorError::Limit { call: "process", limit }) => assert!(limit.contains("16384 entries"), "{limit}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn more_timers_than_a_call_may_set() {
    // 30,000 timers with empty keys: every end and every time is 0.
    let body = repeat(
        4,
        "(call $set_timers (i32.const 0)
           (i32.const 262144) (i32.const 30000) (i32.const 0) (i32.const 0)
           (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
           (i32.const 262144) (i32.const 30000))",
    );
    let body = format!("(drop (memory.grow (i32.const 8))) {body}");
    match Host::shared().process(&Guest::doing("stateful", "process", &body).and(LEFT)).await {
        Err(OperatorError::Limit { call: "process", limit }) => assert!(limit.contains("100000 timers"), "{limit}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn effects_of_a_call_that_fails_are_undone() {
    let body = "(call $set_timers (i32.const 0)
        (i32.const 4096) (i32.const 1) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4096) (i32.const 1)) (unreachable)";
    let mut operator = Host::shared().open(&Guest::doing("stateful", "process", body)).await.expect("opens");
    let outcome = call(&mut *operator, &batch(&["x"])).await;
    assert!(matches!(outcome, Err(OperatorError::Trap { .. })), "{outcome:?}");
    assert!(operator.close().timers.is_empty());
}
