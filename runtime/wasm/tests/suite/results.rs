//! Guests whose results break the contract.

use wasmill_contract::OperatorError;
use wasmill_model::{Column, PaneBatch, Timestamp};

use crate::support::{Guest, Host, batch};

#[track_caller]
fn assert_contract<T: std::fmt::Debug>(outcome: Result<T, OperatorError>, says: &str) {
    match outcome {
        Err(OperatorError::Contract { reason, .. }) => assert!(reason.contains(says), "{reason}"),
        other => panic!("{other:?}"),
    }
}

async fn returning(body: &str) -> Result<wasmill_model::Outcome, OperatorError> {
    Host::shared().process(&Guest::doing("stateless", "process", &format!("{body} (call $one_emission)"))).await
}

#[tokio::test]
async fn an_undeclared_port() {
    assert_contract(returning("(i32.store16 (i32.const 2048) (i32.const 7))").await, "port 7 where 1 are declared");
}

#[tokio::test]
async fn a_bitmap_of_another_length() {
    assert_contract(
        returning("(call $emit_list (i32.const 1) (i32.const 4096) (i32.const 5))").await,
        "a bitmap of 5 words where 3 rows take 1",
    );
}

#[tokio::test]
async fn a_column_whose_ends_fall() {
    let body = "(i32.store (i32.const 4096) (i32.const 2)) (i32.store (i32.const 4100) (i32.const 1))
        (call $emit_list (i32.const 2) (i32.const 4096) (i32.const 3))
        (i32.store (i32.const 2064) (i32.const 8192)) (i32.store (i32.const 2068) (i32.const 2))";
    assert_contract(returning(body).await, "ends fall at row 1");
}

#[tokio::test]
async fn a_column_that_is_longer_than_its_rows() {
    let body = "(call $emit_list (i32.const 2) (i32.const 4096) (i32.const 3))
        (i32.store (i32.const 2064) (i32.const 8192)) (i32.store (i32.const 2068) (i32.const 2))";
    assert_contract(returning(body).await, "ends at byte 0 but holds 2 bytes");
}

#[tokio::test]
async fn too_few_values() {
    assert_contract(
        returning("(call $emit_list (i32.const 2) (i32.const 4096) (i32.const 2))").await,
        "2 values for 3 rows",
    );
}

#[tokio::test]
async fn rows_without_origins_or_from_rows_that_do_not_exist() {
    // Rows begin at 2056: times, ends and data of keys, ends and data of values, origins.
    let rows = "(i32.store8 (i32.const 2052) (i32.const 3))
        (i32.store (i32.const 2080) (i32.const 4096)) (i32.store (i32.const 2084) (i32.const 1))";
    assert_contract(returning(rows).await, "0 origins for 1 rows");
    let from = format!(
        "{rows} (i32.store (i32.const 4200) (i32.const 3))
         (i32.store (i32.const 2096) (i32.const 4200)) (i32.store (i32.const 2100) (i32.const 1))"
    );
    assert_contract(returning(&from).await, "from input row 3 of 3");
}

#[tokio::test]
async fn a_kind_of_output_that_does_not_exist() {
    assert_contract(returning("(i32.store8 (i32.const 2052) (i32.const 9))").await, "discriminant");
}

#[tokio::test]
async fn a_reason_that_is_not_utf_8() {
    let body = r"(i32.store8 (i32.const 8192) (i32.const 255))
        (i32.store (i32.const 4100) (i32.const 8192)) (i32.store (i32.const 4104) (i32.const 1))
        (i32.store (i32.const 1212) (i32.const 4096)) (i32.store (i32.const 1216) (i32.const 1))";
    assert_contract(returning(body).await, "utf-8");
}

#[tokio::test]
async fn a_rejected_row_that_does_not_exist() {
    let body = "(i32.store (i32.const 4096) (i32.const 3))
        (i32.store (i32.const 1212) (i32.const 4096)) (i32.store (i32.const 1216) (i32.const 1))";
    assert_contract(returning(body).await, "row 3 rejected of 3");
}

#[tokio::test]
async fn rejections_are_put_in_order_and_their_reasons_cut() {
    let outcome = Host::shared().process(&Guest::named("flags_two")).await.expect("runs");
    let rows: Vec<u32> = outcome.rejected.iter().map(|rejected| rejected.row).collect();
    assert_eq!(rows, [0, 2]);
    assert_eq!(outcome.rejected[0].reason, "xx");
    assert_eq!(outcome.rejected[1].reason, format!("{}…", "x".repeat(1_024)));
}

#[tokio::test]
async fn origins_of_a_watermark() {
    let body = "(i32.store8 (i32.const 2052) (i32.const 3))
        (i32.store (i32.const 2096) (i32.const 4200)) (i32.store (i32.const 2100) (i32.const 1)) (call $one_emission)";
    let mut operator = Host::shared().open(&Guest::doing("stateful", "on-watermark", body)).await.expect("opens");
    assert_contract(operator.on_watermark(Timestamp(1)).await, "1 origins where rows have none");
    Host::shared().works().await;
}

#[tokio::test]
async fn accumulators_and_results_of_the_wrong_number() {
    let host = Host::shared();
    let one = Column::empty_rows(1);
    // All zeros: no accumulator, no result.
    let mut aggregate = host.open_aggregate(&Guest::doing("windowed", "fold", "(i32.const 4096)")).await;
    assert_contract(aggregate.fold(&one, &[0], &batch(&["x"])).await, "0 accumulators instead of 1");
    let mut aggregate = host.open_aggregate(&Guest::doing("windowed", "merge", "(i32.const 4096)")).await;
    assert_contract(aggregate.merge(&one, &[0], 2).await, "0 accumulators instead of 2");
    let mut aggregate = host.open_aggregate(&Guest::doing("windowed", "finish", "(i32.const 4096)")).await;
    let panes = PaneBatch { starts: vec![0], ends: vec![1], keys: one.clone() };
    assert_contract(aggregate.finish(&panes, &one).await, "0 results for 1 panes");
    host.works().await;
}
