//! What guests say about themselves.

use wasmill_contract::OperatorError;
use wasmill_model::ColumnSet;

use crate::support::{Guest, Host};

#[track_caller]
fn assert_contract<T>(outcome: Result<T, OperatorError>, says: &str) {
    match outcome.err() {
        Some(OperatorError::Contract { call: "describe", reason }) => assert!(reason.contains(says), "{reason}"),
        other => panic!("{other:?}"),
    }
}

async fn described(data: &str) -> Result<(), OperatorError> {
    Host::shared().factory(&Guest::named("unchanged").and(data)).await.map(drop)
}

#[tokio::test]
async fn a_descriptor_comes_out_as_it_was_said() {
    let plugin = Host::shared().load(Guest::named("remembers").module()).await.expect("loads");
    let descriptor = plugin.describe().await.expect("describes itself");
    assert_eq!((descriptor.name.as_str(), descriptor.version.as_str()), ("guest", "1"));
    assert_eq!(
        (descriptor.inputs.as_slice(), descriptor.outputs.as_slice()),
        (&["in".into()][..], &["out".into()][..])
    );
    assert_eq!((descriptor.spaces[0].name.as_str(), descriptor.spaces[0].schema_version), ("seen", 1));
    assert_eq!(descriptor.columns, ColumnSet::ALL);
    assert!(descriptor.timed && !descriptor.aggregate && !descriptor.watermarks);
}

#[tokio::test]
async fn a_column_not_asked_for_does_not_cross() {
    // Only values: a guest that loads the first key finds none.
    let body = "(if (local.get 2) (then (unreachable))) (if (local.get 4) (then (unreachable)))
        (if (i32.ne (local.get 8) (i32.const 3)) (then (unreachable))) (call $one_emission)";
    let guest = Guest::doing("stateless", "process", body).and(r#"(data (i32.const 1068) "\04")"#);
    Host::shared().process(&guest).await.expect("runs");
}

#[tokio::test]
async fn descriptors_that_break_the_contract() {
    assert_contract(described(r#"(data (i32.const 1048) "\00")"#).await, "no input port");
    assert_contract(described(r#"(data (i32.const 1044) "\00\00\01\00\ff")"#).await, "255 input ports, 64 are allowed");
    assert_contract(described(r#"(data (i32.const 1032) "\00")"#).await, "name \"\"");
    assert_contract(described(r#"(data (i32.const 1100) "\1b[2J")"#).await, "\\u{1b}[2J");
    assert_contract(described(r#"(data (i32.const 1069) "\01")"#).await, "does not export `timed`");
    assert_contract(described(r#"(data (i32.const 1028) "\ff\ff\ff\7f")"#).await, "bounds");
    Host::shared().works().await;
}

#[tokio::test]
async fn capabilities_are_not_there_during_describe() {
    let guest = Guest::doing("stateful", "describe", "(drop (call $now (i32.const 0))) (i32.const 1024)");
    assert_contract(Host::shared().factory(&guest).await, "timers.now is not there during describe");
    Host::shared().works().await;
}

#[tokio::test]
async fn a_configuration_that_the_plugin_refuses() {
    // The failure quotes the configuration it was given.
    let body = "(i32.store8 (i32.const 4096) (i32.const 1)) (i32.store8 (i32.const 4100) (i32.const 1))
        (i32.store (i32.const 4104) (local.get 0)) (i32.store (i32.const 4108) (local.get 1)) (i32.const 4096)";
    let plugin = Host::shared().load(Guest::doing("stateless", "describe", body).module()).await.expect("loads");
    let refused = plugin.configure(br#"{"rate": "fast"}"#.to_vec()).await.err();
    assert_eq!(refused, Some(OperatorError::Fatal { call: "describe", reason: r#"{"rate": "fast"}"#.into() }));
}

#[tokio::test]
async fn what_a_plugin_says_of_a_configuration_is_asked_once() {
    let host = Host::new();
    let plugin = host.load(Guest::named("remembers").module()).await.expect("loads");
    let first = plugin.configure(b"{}".to_vec()).await.expect("describes itself");
    let again = plugin.configure(b"{}".to_vec()).await.expect("described itself");
    assert!(std::ptr::eq(first.descriptor(), again.descriptor()), "it was asked again");
    let other = plugin.configure(br#"{"a":1}"#.to_vec()).await.expect("describes itself");
    assert!(!std::ptr::eq(first.descriptor(), other.descriptor()));
}
