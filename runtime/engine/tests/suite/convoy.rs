//! Convoys: copies side by side give what one copy gives, in its order.

use std::collections::BTreeMap;

use proptest::prelude::*;
use wasmill_model::{Bitmap, Emission, Outcome, Output, Rows, key_group, share_of};
use wasmill_plan::Routing;

use crate::support::graph::{Graph, counter, delayed, rows};
use crate::support::mortal::{deaths, survive};
use crate::support::{Call, Got, KeepSink, NativeOperator, Row};

const KEYS: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];

/// Takes longer for some batches than for others.
fn dawdle(seed: &[u8]) {
    let spins = seed.iter().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add((*byte).into())) % 1_000;
    (0..spins).for_each(|_| std::hint::spin_loop());
}

/// Keeps rows whose number ends with an odd digit.
fn odd() -> NativeOperator {
    NativeOperator::new(|_, call| {
        let Call::Process(_, batch) = call else { return Ok(Outcome::default()) };
        dawdle(batch.values().data());
        let mut kept = Bitmap::filled(batch.len(), false);
        for (row, value) in batch.values().iter().enumerate() {
            kept.set(row, value.last().is_some_and(|digit| digit % 2 == 1));
        }
        Ok(Outcome { emissions: vec![Emission { port: 0, output: Output::Keep(kept) }], rejected: vec![] })
    })
}

/// As many rows of each as its last digit says, modulo 4.
fn several() -> NativeOperator {
    NativeOperator::new(|_, call| {
        let Call::Process(_, batch) = call else { return Ok(Outcome::default()) };
        dawdle(batch.values().data());
        let (mut values, mut origins) = (Vec::new(), Vec::new());
        for (row, value) in batch.values().iter().enumerate() {
            for result in 0..value.last().map_or(0, |digit| digit % 4) {
                values.push(format!("{}-{result}", String::from_utf8_lossy(value)));
                origins.push(row as u32);
            }
        }
        let output =
            Output::Rows(Rows { times: vec![], keys: Default::default(), values: values.iter().collect(), origins });
        Ok(Outcome { emissions: vec![Emission { port: 0, output }], rejected: vec![] })
    })
}

/// What a job of one source, one stage and one sink gives.
async fn through(operator: NativeOperator, lanes: u16, by_key: bool) -> Vec<Got> {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(2_000, &KEYS)], true, 1);
    if lanes == 1 {
        let stage = graph.stage(operator, 1);
        let out = graph.sink(&sink);
        graph.edge((source, 0), (stage, 0), Routing::Local);
        graph.edge((stage, 0), (out, 0), Routing::Local);
    } else {
        let stage = graph.convoy(operator, lanes, by_key);
        let out = graph.sink(&sink);
        graph.edge((source, 0), (stage, 0), Routing::Split);
        graph.edge((stage, 0), (out, 0), Routing::Merged);
    }
    graph.run().await;
    sink.committed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_copies_give_the_order_of_one() {
    assert_eq!(through(odd(), 8, false).await, through(odd(), 1, false).await);
    assert_eq!(through(several(), 8, false).await, through(several(), 1, false).await);
    assert_eq!(through(counter(), 8, true).await, through(counter(), 1, true).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_class_is_split_while_the_job_runs_and_keeps_its_order() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(2_000, &["hot"])], true, 1);
    let stage = graph.convoy(odd(), 4, false);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (stage, 0), Routing::Split);
    graph.edge((stage, 0), (out, 0), Routing::Merged);
    let (job, _) = graph.run().await;
    assert!(job.metrics().nodes()[1].splits > 0);
    let got: Vec<i64> = sink.committed().into_iter().map(|(time, ..)| time).collect();
    assert_eq!(got, (0..2_000).filter(|number| number % 2 == 1).collect::<Vec<_>>());
}

/// Keys that all start in the first of 4 lanes.
pub(crate) fn crowded() -> Vec<&'static str> {
    let keys = (0..400).map(|number| format!("key-{number}"));
    let keys = keys.filter(|key| share_of(key_group(key.as_bytes()), 4) == 0).take(12);
    keys.map(|key| &*Box::leak(key.into_boxed_str())).collect()
}

#[test]
fn keys_of_a_hot_lane_move_with_their_state_and_timers() {
    let sink = KeepSink::default();
    let timers = KeepSink::default();
    let left = survive(&[], |_| {
        let mut graph = Graph::new();
        let source = graph.source(vec![rows(20_000, &crowded())], true, 1);
        let count = graph.convoy(counter(), 4, true);
        let late = graph.convoy(delayed(wasmill_model::Clock::Event), 4, true);
        let (out, fired) = (graph.sink(&sink), graph.sink(&timers));
        graph.edge((source, 0), (count, 0), Routing::Split);
        graph.edge((source, 0), (late, 0), Routing::Split);
        graph.edge((count, 0), (out, 0), Routing::Merged);
        graph.edge((late, 0), (fired, 0), Routing::Merged);
        graph
    });
    let nodes = left.job.metrics().nodes();
    assert!(nodes[1].splits > 0 && nodes[2].splits > 0, "{} and {}", nodes[1].splits, nodes[2].splits);
    assert_eq!(sink.committed(), counted(rows(20_000, &crowded())));
    let mut fired: Vec<i64> = timers.committed().into_iter().map(|(time, ..)| time).collect();
    fired.sort_unstable();
    assert_eq!(fired, (10..20_010).collect::<Vec<_>>());
}

/// The rows of [`counter`].
fn counted(rows: Vec<Row>) -> Vec<Got> {
    let mut counts = BTreeMap::new();
    let count = |(time, key, _): Row| {
        let count = counts.entry(key).or_insert(0);
        *count += 1;
        (time, key.to_owned(), count.to_string())
    };
    rows.into_iter().map(count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_feeds_parallel_tasks_and_the_next_convoy() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(3_000, &KEYS)], true, 1);
    let first = graph.convoy(odd(), 3, false);
    // Lanes hand on to lanes.
    let second = graph.convoy(several(), 3, false);
    let count = graph.stage(counter(), 2);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (first, 0), Routing::Split);
    graph.edge((first, 0), (second, 0), Routing::Local);
    graph.edge((second, 0), (count, 0), Routing::Merged);
    graph.edge((count, 0), (out, 0), Routing::Keyed);
    graph.run().await;
    let got = sink.committed();
    // One row of "…1", "…5", "…9", three of "…3" and "…7".
    assert_eq!(got.len(), 300 * (1 + 3 + 1 + 3 + 1));
    for key in KEYS {
        let times: Vec<i64> = got.iter().filter(|(_, of, _)| of == key).map(|(time, ..)| *time).collect();
        assert!(times.is_sorted() && !times.is_empty(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_of_lanes_fire_before_the_watermark_leaves() {
    let mut got = through(delayed(wasmill_model::Clock::Event), 4, true).await;
    let mut want = through(delayed(wasmill_model::Clock::Event), 1, true).await;
    got.sort();
    want.sort();
    assert_eq!(got, want);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_convoy_survives_deaths(deaths in deaths(), lanes in prop::collection::vec(2u16..6, 5)) {
        let sink = KeepSink::default();
        survive(&deaths, |run| {
            let mut graph = Graph::new();
            let source = graph.source(vec![rows(1_000, &KEYS)], true, 1);
            let kept = graph.convoy(odd(), lanes[run], false);
            let back = graph.stage(crate::support::graph::identity(), 1);
            let count = graph.convoy(counter(), lanes[run], true);
            let out = graph.sink(&sink);
            graph.edge((source, 0), (kept, 0), Routing::Split);
            graph.edge((kept, 0), (back, 0), Routing::Merged);
            graph.edge((back, 0), (count, 0), Routing::Split);
            graph.edge((count, 0), (out, 0), Routing::Merged);
            graph
        });
        let kept = rows(1_000, &KEYS).into_iter().filter(|(time, ..)| time % 2 == 1);
        prop_assert_eq!(sink.committed(), counted(kept.collect()));
    }
}
