//! Guests that behave.

use wasmill_model::{Bitmap, Emission, Outcome, Output};

use crate::support::{Host, batch, call};

/// The outcome of a filter on port 0.
pub(crate) fn kept(rows: &[usize], of: usize) -> Outcome {
    let mut bits = Bitmap::filled(of, false);
    rows.iter().for_each(|&row| bits.set(row, true));
    Outcome { emissions: vec![Emission { port: 0, output: Output::Keep(bits) }], rejected: Vec::new() }
}

#[tokio::test]
async fn a_filter_returns_the_rows_it_keeps() {
    let mut operator = Host::shared().open("keeps_marked").await.expect("opens");
    for _ in 0..3 {
        let outcome = call(&mut *operator, &batch(&["k1", "x", "", "k2"])).await;
        assert_eq!(outcome, Ok(kept(&[0, 3], 4)));
    }
    let many: Vec<String> = (0..1_000).map(|row| format!("{}{row}", if row % 3 == 0 { "k" } else { "d" })).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let thirds: Vec<usize> = (0..1_000).step_by(3).collect();
    assert_eq!(call(&mut *operator, &batch(&many)).await, Ok(kept(&thirds, 1_000)));
}

#[tokio::test]
async fn a_guest_may_pass_a_batch_on_as_it_is() {
    let outcome = Host::shared().process("unchanged", &batch(&["a", "b"])).await.expect("runs");
    assert_eq!(outcome.emissions, [Emission { port: 0, output: Output::Unchanged }]);
}
