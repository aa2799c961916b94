//! Guests that trap: the error says where, and only their instance ends.

use wasmill_contract::OperatorError;
use wasmill_model::{Clock, Column, Firings, PaneBatch, Timestamp};

use crate::support::{Guest, Host, batch, context};

fn trapping(world: &str, export: &str) -> Guest {
    Guest::doing(world, export, "(call $breaks) (unreachable)").and("(func $breaks (unreachable))")
}

#[track_caller]
fn assert_trap<T: std::fmt::Debug>(outcome: Result<T, OperatorError>, name: &str) {
    match outcome {
        Err(error @ OperatorError::Trap { .. }) => {
            let error = error.to_string();
            assert!(error.starts_with(&format!("{name} trapped: ")), "{error}");
            assert!(error.contains("unreachable"), "{error}");
            assert!(error.contains(" in breaks < does"), "{error}");
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn in_describe() {
    assert_trap(Host::shared().factory(&trapping("stateless", "describe")).await.map(|_| ()), "describe");
    Host::shared().works().await;
}

#[tokio::test]
async fn in_open() {
    assert_trap(Host::shared().open(&trapping("stateless", "open")).await.map(|_| ()), "open");
    Host::shared().works().await;
}

#[tokio::test]
async fn in_process() {
    assert_trap(Host::shared().process(&trapping("stateless", "process")).await, "process");
}

#[tokio::test]
async fn in_flush() {
    let mut operator = Host::shared().open(&trapping("stateless", "flush")).await.expect("opens");
    assert_trap(operator.flush().await, "flush");
    Host::shared().works().await;
}

#[tokio::test]
async fn in_timers_and_watermarks() {
    let mut operator = Host::shared().open(&trapping("stateful", "on-timers")).await.expect("opens");
    let fired = Firings { times: vec![1], keys: Column::empty_rows(1), tags: Column::empty_rows(1) };
    assert_trap(operator.on_timers(Clock::Processing, &fired).await, "on-timers");
    let mut operator = Host::shared().open(&trapping("stateful", "on-watermark")).await.expect("opens");
    assert_trap(operator.on_watermark(Timestamp(1)).await, "on-watermark");
    Host::shared().works().await;
}

#[tokio::test]
async fn in_every_function_of_an_aggregate() {
    let host = Host::shared();
    let one = Column::empty_rows(1);
    let mut aggregate = host.open_aggregate(&trapping("windowed", "fold")).await;
    assert_trap(aggregate.fold(&one, &[0], &batch(&["x"])).await, "fold");
    let mut aggregate = host.open_aggregate(&trapping("windowed", "merge")).await;
    assert_trap(aggregate.merge(&one, &[0], 1).await, "merge");
    let mut aggregate = host.open_aggregate(&trapping("windowed", "finish")).await;
    let panes = PaneBatch { starts: vec![0], ends: vec![1], keys: one.clone() };
    assert_trap(aggregate.finish(&panes, &one).await, "finish");
    host.works().await;
}

#[tokio::test]
async fn in_the_start_function() {
    let guest = Guest::named("unchanged").and("(func $breaks (unreachable)) (start $breaks)");
    match Host::shared().factory(&guest).await.err() {
        Some(OperatorError::Trap { call: "describe", stack, .. }) => assert_eq!(stack, ["breaks"]),
        other => panic!("{other:?}"),
    }
    Host::shared().works().await;
}

#[tokio::test]
async fn a_trap_says_what_the_guest_logged_before_it() {
    let guest =
        Guest::doing("stateless", "process", "(call $log (i32.const 3) (i32.const 4096) (i32.const 8)) (unreachable)")
            .and(r#"(data (i32.const 4096) "panic\1b!!")"#);
    match Host::shared().process(&guest).await {
        Err(OperatorError::Trap { call: "process", reason, .. }) => {
            assert!(reason.ends_with("; it logged: panic\\u{1b}!!"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_a_runtime_says_in_pieces_is_kept_together() {
    let say = "(call $log (i32.const 3) (i32.const 4096) (i32.const 6))";
    let body = format!("{say} (call $log (i32.const 1) (i32.const 4102) (i32.const 2)) {say} (unreachable)");
    let guest = Guest::doing("stateless", "process", &body).and(r#"(data (i32.const 4096) "fatal:no")"#);
    match Host::shared().process(&guest).await {
        Err(OperatorError::Trap { reason, .. }) => {
            assert!(reason.contains("it logged: fatal:") && reason.matches("fatal:").count() == 2, "{reason}");
            assert!(!reason.contains("no"), "only errors explain a trap: {reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_instance_whose_memory_grows_says_so_before_the_limit() {
    let guest = Guest::doing("stateless", "process", "(drop (memory.grow (i32.const 64))) (i32.const 1200)");
    let mut operator = Host::shared().open(&guest).await.expect("opens");
    // The limit is 16 MiB; each call takes four more.
    let mut calls = 0;
    while !operator.is_overgrown() {
        operator.process(0, &batch(&["v"])).await.expect("within the limit");
        calls += 1;
        assert!(calls < 4, "it has to say so");
    }
    assert_eq!(calls, 2);
}

#[tokio::test]
async fn infinite_recursion() {
    let guest = Guest::doing("stateless", "process", "(call $deeper (i32.const 0))")
        .and("(func $deeper (param i32) (result i32) (i32.add (i32.const 1) (call $deeper (local.get 0))))");
    match Host::shared().process(&guest).await {
        Err(OperatorError::Trap { call: "process", reason, stack }) => {
            assert!(
                reason.contains("call stack exhausted") && stack[..2] == ["deeper", "deeper"],
                "{reason}: {stack:?}"
            );
            assert!(stack.len() <= 32, "{}", stack.len());
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn memory_of_an_ended_instance_is_not_seen_by_the_next() {
    let host = Host::new();
    let factory = host.factory(&Guest::named("canary")).await.expect("describes itself");
    for round in 0..300 {
        let opened = factory.open(context(&[])).await;
        assert!(opened.is_ok(), "round {round}: {:?}", opened.err());
    }
}
