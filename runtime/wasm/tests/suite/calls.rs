//! Guests that behave.

use wasmill_contract::OperatorError;
use wasmill_model::{Bitmap, Clock, Column, Emission, Firings, Outcome, Output, PaneBatch, Timestamp};

use crate::support::{Guest, Host, batch, call};

/// The outcome of a filter on port 0.
pub(crate) fn kept(rows: &[usize], of: usize) -> Outcome {
    let mut bits = Bitmap::filled(of, false);
    rows.iter().for_each(|&row| bits.set(row, true));
    Outcome { emissions: vec![Emission { port: 0, output: Output::Keep(bits) }], rejected: Vec::new() }
}

fn column(rows: &[&str]) -> Column {
    rows.iter().collect()
}

#[tokio::test]
async fn a_filter_returns_the_rows_it_keeps() {
    let mut operator = Host::shared().open(&Guest::named("keeps_marked")).await.expect("opens");
    for _ in 0..3 {
        let outcome = call(&mut *operator, &batch(&["k1", "x", "", "k2"])).await;
        assert_eq!(outcome, Ok(kept(&[0, 3], 4)));
    }
    let many: Vec<String> = (0..1_000).map(|row| format!("{}{row}", if row % 3 == 0 { "k" } else { "d" })).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let thirds: Vec<usize> = (0..1_000).step_by(3).collect();
    assert_eq!(call(&mut *operator, &batch(&many)).await, Ok(kept(&thirds, 1_000)));
    assert_eq!(call(&mut *operator, &batch(&[])).await, Ok(kept(&[], 0)));
}

#[tokio::test]
async fn a_guest_may_pass_a_batch_on_as_it_is() {
    let outcome = Host::shared().process(&Guest::named("unchanged")).await.expect("runs");
    assert_eq!(outcome.emissions, [Emission { port: 0, output: Output::Unchanged }]);
}

#[tokio::test]
async fn state_and_timers_reach_the_context_and_can_be_undone() {
    let mut operator = Host::shared().open(&Guest::named("remembers")).await.expect("opens");
    let values = |outcome: Result<Outcome, OperatorError>| {
        let mut outcome = outcome.expect("runs");
        match outcome.emissions.pop().map(|emission| emission.output) {
            Some(Output::Values(values)) => values,
            other => panic!("not values: {other:?}"),
        }
    };
    assert_eq!(values(call(&mut *operator, &batch(&["first"])).await), column(&[""]));
    let timers = std::mem::take(&mut operator.context().timers);
    assert_eq!(timers.len(), 1);
    assert_eq!((timers[0].clock, timers[0].times.as_deref()), (Clock::Event, Some(&[7][..])));
    assert_eq!((&*timers[0].keys, &*timers[0].tags), (&column(&["key"]), &column(&["w"])));

    assert_eq!(values(call(&mut *operator, &batch(&["second"])).await), column(&["first"]));
    operator.context().undo_call();
    assert_eq!(values(call(&mut *operator, &batch(&["third"])).await), column(&["first"]));

    operator.flush().await.expect("flushes");
    let mut context = operator.close();
    assert_eq!(context.state.take_changes().len(), 1);
}

#[tokio::test]
async fn timers_and_watermarks_reach_the_guest() {
    let mut operator = Host::shared().open(&Guest::named("remembers")).await.expect("opens");
    let fired = Firings { times: vec![7], keys: column(&["key"]), tags: column(&["w"]) };
    let outcome = operator.on_timers(Clock::Event, &fired).await.expect("runs");
    assert_eq!(outcome.emissions.len(), 1);
    let outcome = operator.on_watermark(Timestamp(9)).await.expect("runs");
    assert_eq!(outcome.emissions.len(), 1);

    let mut untimed = Host::shared().open(&Guest::named("unchanged")).await.expect("opens");
    let refused = untimed.on_watermark(Timestamp(9)).await;
    assert!(matches!(refused, Err(OperatorError::Contract { call: "on-watermark", .. })), "{refused:?}");
}

#[tokio::test]
async fn an_aggregate_folds_merges_and_finishes() {
    let host = Host::shared();
    let counts = |numbers: &[u64]| numbers.iter().map(|number| number.to_le_bytes()).collect::<Column>();
    let mut aggregate = host.open_aggregate(&Guest::named("counts")).await;
    let folded = aggregate.fold(&Column::empty_rows(2), &[0, 1, 0], &batch(&["a", "b", "c"])).await.expect("folds");
    assert_eq!(folded.accumulators, counts(&[2, 1]));
    let folded = aggregate.fold(&folded.accumulators, &[1], &batch(&["d"])).await.expect("folds");
    assert_eq!(folded.accumulators, counts(&[2, 2]));
    let merged = aggregate.merge(&counts(&[2, 2, 5]), &[0, 1, 0], 2).await.expect("merges");
    assert_eq!(merged, counts(&[7, 2]));
    let panes = PaneBatch { starts: vec![0, 0], ends: vec![9, 9], keys: column(&["a", "b"]) };
    let results = aggregate.finish(&panes, &merged).await.expect("finishes");
    assert_eq!((results.values, results.panes), (counts(&[7, 2]), vec![]));
}

#[tokio::test]
async fn an_operator_is_no_aggregate_and_the_other_way_round() {
    let host = Host::shared();
    let operator = host.factory(&Guest::named("unchanged")).await.expect("describes itself");
    let refused = operator.open_aggregate(crate::support::context(&[])).await.err();
    assert!(matches!(refused.expect("refused").cause, OperatorError::Instance(_)));
    let aggregate = host.factory(&Guest::named("counts")).await.expect("describes itself");
    assert!(aggregate.descriptor().aggregate);
    let refused = aggregate.open(crate::support::context(&[])).await.err();
    assert!(matches!(refused.expect("refused").cause, OperatorError::Instance(_)));
}

#[tokio::test]
async fn a_failure_of_the_guests_own_leaves_the_instance_alive() {
    // A failure at 4096: its case, then a string.
    let failing = |case: u8| {
        Guest::doing(
            "stateless",
            "process",
            &format!(
                "(i32.store8 (i32.const 4096) (i32.const 1)) (i32.store8 (i32.const 4100) (i32.const {case}))
                 (i32.store (i32.const 4104) (i32.const 1100)) (i32.store (i32.const 4108) (i32.const 5))
                 (call $reset) (i32.const 4096)"
            ),
        )
    };
    for _ in 0..2 {
        let retry = Host::shared().process(&failing(0)).await;
        assert_eq!(retry, Err(OperatorError::Retry { call: "process", reason: "guest".into() }));
    }
    let fatal = Host::shared().process(&failing(1)).await;
    assert_eq!(fatal, Err(OperatorError::Fatal { call: "process", reason: "guest".into() }));
}

#[tokio::test]
async fn a_call_that_is_dropped_ends_its_instance() {
    let spin = Guest::doing("stateless", "process", "(loop $again (br $again)) (unreachable)");
    let mut operator = Host::shared().open(&spin).await.expect("opens");
    let input = batch(&["x"]);
    tokio::select! {
        biased;
        outcome = operator.process(0, &input) => panic!("an endless loop ended: {outcome:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert!(matches!(operator.flush().await, Err(OperatorError::Instance(_))));
    Host::shared().works().await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_long_call_gives_others_a_turn() {
    let spin = Guest::doing("stateless", "process", "(loop $again (br $again)) (unreachable)");
    let mut operator = Host::shared().open(&spin).await.expect("opens");
    let others = tokio::spawn(async {
        let mut turns = 0u32;
        loop {
            tokio::task::yield_now().await;
            turns += 1;
            if turns == 10 {
                return turns;
            }
        }
    });
    let input = batch(&["x"]);
    let outcome = operator.process(0, &input).await;
    assert_eq!(outcome, Err(OperatorError::Deadline { call: "process", limit_ms: 100 }));
    assert!(others.is_finished(), "one thread, and the loop held it to its deadline");
}
