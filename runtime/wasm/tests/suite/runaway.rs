//! Guests that take too much: time, memory, host calls, rows, bytes.

use std::sync::Arc;

use wasmill_contract::OperatorError;
use wasmill_env::RealClock;
use wasmill_model::ErrorKind;
use wasmill_tenancy::{Account, Allowance, Processor};

use crate::support::{Guest, Host, batch, call, context};

fn deadline(call: &'static str) -> OperatorError {
    OperatorError::Deadline { call, limit_ms: 100 }
}

#[track_caller]
fn assert_limit<T: std::fmt::Debug>(outcome: Result<T, OperatorError>, says: &str) {
    match outcome {
        Err(OperatorError::Limit { limit, .. }) => assert!(limit.contains(says), "{limit}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_endless_loop_in_process() {
    let guest = Guest::doing("stateless", "process", "(loop $again (br $again)) (unreachable)");
    assert_eq!(Host::shared().process(&guest).await, Err(deadline("process")));
}

#[tokio::test]
async fn an_endless_loop_in_the_start_function() {
    let guest = Guest::named("unchanged").and("(func $spins (loop $again (br $again))) (start $spins)");
    assert_eq!(Host::shared().factory(&guest).await.err(), Some(deadline("describe")));
    Host::shared().works().await;
}

#[tokio::test]
async fn an_endless_loop_in_cabi_realloc() {
    let guest = Guest::doing(
        "stateless",
        "cabi_realloc",
        "(if (local.get 3) (then (loop $again (br $again)))) (i32.const 65536)",
    );
    assert_eq!(Host::shared().process(&guest).await, Err(deadline("process")));
}

#[tokio::test]
async fn long_memory_operations_count_by_their_time() {
    let fill = "(drop (memory.grow (i32.const 200)))
        (loop $again (memory.fill (i32.const 0) (i32.const 1) (i32.const 13000000)) (br $again)) (unreachable)";
    let guest = Guest::doing("stateless", "process", fill);
    assert_eq!(Host::shared().process(&guest).await, Err(deadline("process")));
}

#[tokio::test]
async fn memory_grown_until_it_is_refused() {
    let grow = "(loop $again (br_if $again (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) (unreachable)";
    let outcome = Host::shared().process(&Guest::doing("stateless", "process", grow)).await;
    assert_limit(outcome, "16777216 bytes of memory");
}

#[tokio::test]
async fn tables_grown_until_they_are_refused() {
    let grow = "(loop $again (br_if $again (i32.ne (i32.const -1)
        (table.grow $t (ref.null func) (i32.const 1000))))) (unreachable)";
    let guest = Guest::doing("stateless", "process", grow).and("(table $t 1 funcref)");
    assert_limit(Host::shared().process(&guest).await, "10000 table elements");
}

#[tokio::test]
async fn host_calls_without_end() {
    let ask = "(loop $again (drop (call $now (i32.const 0))) (br $again)) (unreachable)";
    let outcome = Host::shared().process(&Guest::doing("stateful", "process", ask)).await;
    assert_limit(outcome, "1000 host calls in one call");
}

#[tokio::test]
async fn a_list_longer_than_memory() {
    let claim = "(i32.store (i32.const 1208) (i32.const -1)) (i32.const 1200)";
    match Host::shared().process(&Guest::doing("stateless", "process", claim)).await {
        Err(OperatorError::Contract { call: "process", reason }) => assert!(reason.contains("bounds"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn more_bytes_than_a_call_may_return() {
    let claim = "(drop (memory.grow (i32.const 100)))
        (call $emit_list (i32.const 1) (i32.const 65536) (i32.const 700000)) (i32.const 1200)";
    let outcome = Host::shared().process(&Guest::doing("stateless", "process", claim)).await;
    assert_limit(outcome, "4194304 bytes between guest and host");
}

#[tokio::test]
async fn more_rows_than_a_call_may_emit() {
    // 4,000 emissions of `unchanged` for three rows each: all bytes of the list are 0.
    let claim = "(drop (memory.grow (i32.const 8)))
        (i32.store (i32.const 1204) (i32.const 65536)) (i32.store (i32.const 1208) (i32.const 4000))
        (memory.fill (i32.const 65536) (i32.const 0) (i32.const 224000)) (i32.const 1200)";
    let outcome = Host::shared().process(&Guest::doing("stateless", "process", claim)).await;
    assert_limit(outcome, "10000 rows");
}

#[tokio::test]
async fn more_instances_than_the_pool_holds() {
    let cache = tempfile::tempdir().expect("a directory");
    let settings =
        wasmill_wasm::HostSettings { instances_max: 2, ..wasmill_wasm::HostSettings::in_process(cache.path()) };
    let host = wasmill_wasm::WasmHost::new(settings).expect("a host");
    let plugin = host.load(Guest::named("unchanged").module(), crate::support::limits(), wasmill_wasm::Grants::ALL);
    let factory = plugin.await.expect("loads").configure(Vec::new()).await.expect("describes itself");
    let first = factory.open(context(&[])).await.expect("room for one");
    let mut second = factory.open(context(&[])).await.expect("room for two");
    let third = factory.open(context(&[])).await.err();
    let cause = third.expect("no room").cause;
    assert_eq!(cause.kind(), ErrorKind::Unavailable, "{cause}");
    assert!(cause.to_string().contains("no instance is free"), "{cause}");
    drop(first);
    factory.open(context(&[])).await.expect("room again");
    call(&mut *second, &batch(&["x"])).await.expect("the second still runs");
}

/// An account of a tenant that is not alone, and may have so many bytes of memory.
fn account(memory_bytes: u64) -> [Arc<Account>; 2] {
    let processor = Processor::new(1, Arc::new(RealClock::default()));
    let allowance = Allowance { memory_bytes, ..Allowance::UNLIMITED };
    [(); 2].map(|()| Account::new(&processor, &allowance))
}

#[tokio::test]
async fn more_memory_than_the_tenant_has_left() {
    let grow = "(loop $again (br_if $again (i32.ne (i32.const -1) (memory.grow (i32.const 16))))) (unreachable)";
    let guest = Guest::doing("stateless", "process", grow);
    let factory = Host::shared().factory(&guest).await.expect("loads");
    let [account, _other] = account(8 << 20);
    let open = || {
        let mut context = context(&[]);
        context.account = Some(Arc::clone(&account));
        factory.open(context)
    };
    let (first, mut second) = (open().await.expect("opens"), open().await.expect("opens"));
    assert_limit(call(&mut *second, &batch(&["x"])).await, "over-budget: ");
    assert!(account.memory.used() <= 8 << 20 && account.memory.refused() > 0);
    drop((first, second));
    assert_eq!(account.memory.used(), 0, "it is given back");
}

#[tokio::test]
async fn time_in_guests_counts_whatever_becomes_of_a_call() {
    let guest = Guest::doing("stateless", "process", "(loop $again (br $again)) (unreachable)");
    let mut operator = Host::shared().open(&guest).await.expect("opens");
    let opened = operator.context().cpu_nanos;
    assert!(opened > 0, "opening takes time");
    assert_eq!(call(&mut *operator, &batch(&["x"])).await, Err(deadline("process")));
    let counted = operator.context().cpu_nanos - opened;
    assert!(counted >= 100_000_000, "{counted} ns of 100 ms");
}
