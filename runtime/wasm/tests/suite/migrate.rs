//! Guests that turn entries of an older schema version into others.

use wasmill_contract::OperatorError;
use wasmill_model::{Column, Entries, Migrated};

use crate::support::{Guest, Host};

async fn migrating(body: &str, entries: usize) -> Result<Migrated, OperatorError> {
    let mut operator = Host::shared().open(&Guest::doing("stateful", "migrate", body)).await.expect("the guest opens");
    let rows: Column = (0..entries).map(|_| b"k").collect();
    let entries = Entries { keys: rows.clone(), subkeys: Column::empty_rows(entries), values: rows };
    operator.migrate(0, 1, &entries).await
}

#[track_caller]
fn assert_contract(migrated: Result<Migrated, OperatorError>, says: &str) {
    match migrated {
        Err(OperatorError::Contract { call: "migrate", reason }) => assert!(reason.contains(says), "{reason}"),
        other => panic!("{other:?}"),
    }
}

/// One value without bytes at 8192, one row that goes at 8196.
const ONE_VALUE: &str = "(i32.store (i32.const 4100) (i32.const 8192)) (i32.store (i32.const 4104) (i32.const 1))
    (i32.store (i32.const 4116) (i32.const 8196)) (i32.store (i32.const 4120) (i32.const 1))";

#[tokio::test]
async fn every_entry_has_a_value_or_goes() {
    assert_eq!(migrating("(i32.const 4096)", 0).await, Ok(Migrated::default()));
    let one = Migrated { values: Column::empty_rows(1), dropped: vec![0] };
    assert_eq!(migrating(&format!("{ONE_VALUE} (i32.const 4096)"), 1).await, Ok(one));
    assert_contract(migrating("(i32.const 4096)", 1).await, "0 values for 1 entries");
    let second = format!("{ONE_VALUE} (i32.store (i32.const 8196) (i32.const 1)) (i32.const 4096)");
    assert_contract(migrating(&second, 1).await, "entry 1 of 1 goes");
}

#[tokio::test]
async fn state_is_not_there() {
    let zeros = "(i32.const 0) ".repeat(9);
    let body = format!("(call $get_many {zeros} (i32.const 8192)) (i32.const 4096)");
    assert_contract(migrating(&body, 0).await, "state.get-many is not there during migrate");
}

#[tokio::test]
async fn a_plugin_without_it_says_so() {
    let operator = Host::shared().open(&Guest::doing("stateless", "flush", "(i32.const 1232)")).await;
    let migrated = operator.expect("the guest opens").migrate(0, 1, &Entries::default()).await;
    assert_contract(migrated, "does not export `migration`");
}
