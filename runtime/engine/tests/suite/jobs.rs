//! Whole jobs with native operators: what goes in comes out, in order, once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use wasmill_contract::TimerChange;
use wasmill_engine::{JobSettings, NodePart};
use wasmill_env::{RealClock, SimulatedClock};
use wasmill_model::{
    Bitmap, Clock, Column, Emission, Epoch, ErrorKind, Outcome, Output, Rejected, Rows, Timestamp, WindowShape,
};
use wasmill_plan::{Extraction, NodeKind, Routing, TimeExtraction, TimeUnit, Watermarks};

use crate::support::graph::{CutLog, Graph, counter, delayed, identity, rows, tumbling_model};
use crate::support::{Call, Got, KeepSink, ListSource, NativeOperator, Row, StuckSink};

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_hands_every_row_through_once_in_order() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(10_000, &["a"])], true, 1);
    let stage = graph.stage(identity(), 1);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (stage, 0), Routing::Local);
    graph.edge((stage, 0), (out, 0), Routing::Local);
    let (job, _) = graph.run().await;
    let values: Vec<usize> = sink.committed().iter().map(|(_, _, value)| value.parse().expect("a number")).collect();
    assert_eq!(values, (0..10_000).collect::<Vec<_>>());
    assert!(sink.epochs().last().is_some_and(|&(_, last)| last));
    let nodes = job.metrics().nodes();
    assert_eq!(nodes.iter().map(|n| n.rows_in).collect::<Vec<_>>(), [10_000; 3]);
    assert_eq!(job.metrics().latency().rows, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_exchange_counts_each_key_once_and_keeps_its_order() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let keys = ["a", "b", "c", "d", "e", "f", "g"];
    let source = graph.source(vec![rows(7_000, &keys), rows(7_000, &keys)], true, 2);
    let stage = graph.stage(counter(), 3);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (stage, 0), Routing::Keyed);
    graph.edge((stage, 0), (out, 0), Routing::Keyed);
    graph.run().await;
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (_, key, count) in sink.committed() {
        seen.entry(key).or_default().push(count.parse().expect("a number"));
    }
    assert_eq!(seen.len(), keys.len());
    for (key, counts) in seen {
        assert_eq!(counts, (1..=2_000).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_ends_early_once_enough_was_read() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(20_000, &["a"])], true, 1);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (out, 0), Routing::Local);
    let settings =
        JobSettings { epoch_interval: Duration::from_secs(3_600), epoch_bytes: 10_000, ..JobSettings::default() };
    let clock = Arc::new(RealClock::default());
    let mut job = graph.start_with(settings, Box::new(CutLog::default()), clock).await;
    job.wait().await.expect("it ends well");
    assert!(job.metrics().epochs() > 1, "{} epochs of 10,000 bytes over 20,000 rows", job.metrics().epochs());
    assert_eq!(sink.committed().len(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_enter_and_leave_by_their_ports() {
    let mut graph = Graph::new();
    let (main, side) = (KeepSink::default(), KeepSink::default());
    let left = graph.source(vec![rows(100, &["l"])], true, 1);
    let right = graph.source(vec![rows(100, &["r"])], true, 1);
    // What comes in by one port leaves by the other.
    let stage = graph.stage(
        NativeOperator::new(|_, call| {
            let Call::Process(port, _) = call else { return Ok(Outcome::default()) };
            Ok(Outcome { emissions: vec![Emission { port: 1 - port, output: Output::Unchanged }], rejected: vec![] })
        }),
        1,
    );
    let (main_out, side_out) = (graph.sink(&main), graph.sink(&side));
    graph.edge((left, 0), (stage, 0), Routing::Keyed);
    graph.edge((right, 0), (stage, 1), Routing::Forward);
    graph.edge((stage, 0), (main_out, 0), Routing::Local);
    graph.edge((stage, 1), (side_out, 0), Routing::Local);
    graph.run().await;
    let keys = |sink: &KeepSink| sink.committed().into_iter().map(|(_, key, _)| key).collect::<Vec<_>>();
    assert_eq!((keys(&main), keys(&side)), (vec!["r".to_owned(); 100], vec!["l".to_owned(); 100]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_is_consistent_over_two_inputs() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let left = graph.source(vec![rows(20_000, &["a", "b", "c"])], true, 1);
    let right = graph.source(vec![rows(5_000, &["a", "b", "c"]), rows(100, &["b"])], true, 2);
    let stage = graph.stage(counter(), 2);
    let out = graph.sink(&sink);
    graph.edge((left, 0), (stage, 0), Routing::Keyed);
    graph.edge((right, 0), (stage, 1), Routing::Keyed);
    graph.edge((stage, 0), (out, 0), Routing::Keyed);
    let (_, cuts) = graph.run().await;
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (place, (epoch, cuts)) in cuts.iter().enumerate() {
        assert_eq!(*epoch, Epoch(place as u64 + 1));
        let mut read = 0;
        for cut in cuts {
            for (_, position) in cut.sources.iter().flat_map(|source| &source.positions) {
                read += u64::from_le_bytes(position.0[..].try_into().expect("8 bytes"));
            }
            for change in cut.stages.iter().flat_map(|stage| stage.state.iter()) {
                let value = change.value.expect("never deleted");
                counts.insert(change.key.to_vec(), u64::from_le_bytes(value.try_into().expect("8 bytes")));
            }
        }
        assert_eq!(counts.values().sum::<u64>(), read, "epoch {epoch}: rows counted are rows read");
    }
    assert_eq!(counts.values().sum::<u64>(), 25_100);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_over_an_exchange_wait_for_the_slowest_partition() {
    let partitions = vec![rows(3_000, &["a", "b"]), rows(50, &["b"]), rows(1_234, &["c", "a"])];
    let expected = tumbling_model(&partitions, 100);
    for (readers, tasks) in [(1, 1), (3, 1), (3, 2), (2, 4)] {
        let mut graph = Graph::new();
        let sink = KeepSink::default();
        let source = graph.source(partitions.clone(), true, readers);
        let window = graph.window(WindowShape::Tumbling { size_micros: 100 }, tasks);
        let out = graph.sink(&sink);
        graph.edge((source, 0), (window, 0), Routing::Keyed);
        graph.edge((window, 0), (out, 0), Routing::Keyed);
        let (job, _) = graph.run().await;
        assert_eq!(sink.sorted(), expected, "{readers} readers, {tasks} tasks");
        assert_eq!(job.metrics().nodes()[1].late, 0);
    }
}

/// At bound 0 a row is late if one before it, in its batch or an earlier one, ended its window.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_late_does_not_depend_on_the_size_of_batches() {
    let times = (0..2_000_i64).map(|i| i * 10 - (i * 7_919 % 41) * 9);
    let disordered: Vec<Row> = times.map(|time| (time, "a", String::new())).collect();
    let (mut panes, mut late, mut latest) = (BTreeMap::<i64, u64>::new(), 0, i64::MIN);
    for &(time, ..) in &disordered {
        let last = time.div_euclid(100) * 100 + 99;
        if last < latest {
            late += 1;
        } else {
            *panes.entry(last).or_default() += 1;
        }
        latest = latest.max(time);
    }
    assert!(late > 100, "the test needs rows that are late");
    let pane = |(last, count): (&i64, &u64)| (*last, "a".to_owned(), format!("{}..{}={count}", last - 99, last + 1));
    let expected: Vec<Got> = panes.iter().map(pane).collect();
    for batch in [1, 7, 100, 2_048] {
        let mut graph = Graph::new();
        let sink = KeepSink::default();
        let source = graph.list(ListSource { partitions: vec![disordered.clone()], bounded: true, batch }, 1);
        let window = graph.window(WindowShape::Tumbling { size_micros: 100 }, 1);
        let out = graph.sink(&sink);
        graph.edge((source, 0), (window, 0), Routing::Local);
        graph.edge((window, 0), (out, 0), Routing::Local);
        let (job, _) = graph.run().await;
        assert_eq!((sink.committed(), job.metrics().nodes()[1].late), (expected.clone(), late), "batches of {batch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_open_windows_hold_too_much_fails_and_says_what_to_change() {
    for (keys, is_too_many) in [(&["a", "b", "c"][..], false), (&["a", "b", "c", "d"], true)] {
        let (mut graph, sink) = (Graph::new(), KeepSink::default());
        let source = graph.source(vec![rows(100, keys)], true, 1);
        // A session of each key is open until the end.
        let window = graph.window(WindowShape::Session { gap_micros: 1_000 }, 1);
        let out = graph.sink(&sink);
        graph.edge((source, 0), (window, 0), Routing::Local);
        graph.edge((window, 0), (out, 0), Routing::Local);
        let settings = JobSettings { accumulators_max: 3, ..JobSettings::default() };
        let mut job = graph.start_with(settings, Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
        let said = job.wait().await.map_err(|error| (error.kind(), error.to_string()));
        match said {
            Ok(()) => assert!(!is_too_many),
            Err((kind, text)) => {
                assert!(is_too_many && kind == ErrorKind::Config, "{text}");
                assert!(text.contains("4 accumulators of open windows are held in one task, 3 may be"), "{text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sliding_windows_count_every_row_in_each_of_its_windows() {
    let partitions = vec![rows(1_000, &["a"])];
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(partitions, true, 1);
    let window = graph.window(WindowShape::Sliding { size_micros: 100, slide_micros: 20 }, 1);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (window, 0), Routing::Local);
    graph.edge((window, 0), (out, 0), Routing::Local);
    graph.run().await;
    let mut expected = Vec::new();
    for start in (-80..1_000).step_by(20) {
        let count = (start.max(0)..(start + 100).min(1_000)).count();
        expected.push((start + 99, "a".to_owned(), format!("{start}..{}={count}", start + 100)));
    }
    assert_eq!(sink.committed(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn event_timers_fire_in_order_of_their_times() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(5_000, &["a", "b"])], true, 1);
    let stage = graph.stage(delayed(Clock::Event), 1);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (stage, 0), Routing::Local);
    graph.edge((stage, 0), (out, 0), Routing::Local);
    graph.run().await;
    let expected: Vec<Got> =
        (0..5_000).map(|i| (i + 10, ["a", "b"][i as usize % 2].to_owned(), i.to_string())).collect();
    assert_eq!(sink.committed(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn processing_timers_fire_when_the_wall_clock_passes_them() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![vec![(1_000, "a", "later".into()), (0, "a", "sooner".into())]], false, 1);
    let stage = graph.stage(delayed(Clock::Processing), 1);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (stage, 0), Routing::Local);
    graph.edge((stage, 0), (out, 0), Routing::Local);
    let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
    let mut job = graph.start(Box::new(CutLog::default()), Arc::<SimulatedClock>::clone(&clock)).await;
    while job.metrics().nodes()[1].rows_in < 2 || clock.sleepers() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sink.written(), 0);
    clock.advance(Duration::from_micros(10));
    while sink.written() < 1 {
        tokio::task::yield_now().await;
    }
    job.stop();
    job.wait().await.expect("it stops");
    assert_eq!(sink.committed(), [(10, "a".to_owned(), "sooner".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_that_never_cease_fail_the_job() {
    let mut graph = Graph::new();
    let source = graph.source(vec![rows(1, &["a"])], true, 1);
    let stage = graph.stage(
        NativeOperator::new(|context, call| {
            if !matches!(call, Call::Flush) {
                let one: Arc<Column> = Arc::new(["x"].iter().collect());
                context.timers.push(TimerChange {
                    clock: Clock::Event,
                    keys: Arc::clone(&one),
                    tags: one,
                    times: Some(vec![-5]),
                });
            }
            Ok(Outcome::default())
        }),
        1,
    );
    graph.edge((source, 0), (stage, 0), Routing::Local);
    let mut job = graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
    let error = job.wait().await.expect_err("it fails").to_string();
    assert!(error.contains("due at once 10000 times in a row"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_rows_are_in_the_cut_and_nowhere_else() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(1_000, &["a"])], true, 1);
    let stage = graph.stage(
        NativeOperator::new(|_, call| {
            let Call::Process(_, batch) = call else { return Ok(Outcome::default()) };
            let bad = |row: &u32| batch.times()[*row as usize] % 10 == 0;
            let rejected =
                (0..batch.len() as u32).filter(bad).map(|row| Rejected { row, reason: format!("ten {row}") });
            let output = Output::Keep(Bitmap::filled(batch.len(), true));
            Ok(Outcome { rejected: rejected.collect(), emissions: vec![Emission { port: 0, output }] })
        }),
        1,
    );
    let out = graph.sink(&sink);
    graph.edge((source, 0), (stage, 0), Routing::Local);
    graph.edge((stage, 0), (out, 0), Routing::Local);
    let (job, cuts) = graph.run().await;
    let dead: BTreeSet<i64> = cuts
        .iter()
        .flat_map(|(_, cuts)| cuts)
        .flat_map(|cut| &cut.dead_letters)
        .flat_map(|letter| {
            assert_eq!((letter.node.as_str(), letter.reasons.len()), ("n1", letter.rows.len()));
            assert!(letter.rows.lineage().is_some(), "a dead letter knows where its row came from");
            letter.rows.times().to_vec()
        })
        .collect();
    assert_eq!(dead, (0..1_000).step_by(10).collect());
    assert_eq!(sink.committed().len(), 900);
    assert_eq!(job.metrics().nodes()[1].rejected, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_job_commits_what_it_has_read() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(500, &["a"])], false, 1);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (out, 0), Routing::Keyed);
    let mut job = graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
    while job.metrics().nodes()[1].rows_in < 500 {
        tokio::task::yield_now().await;
    }
    job.stop();
    job.wait().await.expect("it stops");
    assert_eq!(sink.committed().len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_stuck_stops_the_source() {
    let mut graph = Graph::new();
    let source = graph.source(vec![rows(200_000, &["a", "b"])], true, 1);
    let stage = graph.stage(identity(), 2);
    let out = graph.node(NodeKind::Sink, NodePart::Sink(Arc::new(StuckSink)), 1);
    graph.edge((source, 0), (stage, 0), Routing::Keyed);
    graph.edge((stage, 0), (out, 0), Routing::Keyed);
    let job = graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
    let read = || job.metrics().nodes()[0].rows_in;
    // Still once it has stood for as long as it took to get there.
    let (mut turns, mut since, mut last) = (0_u64, 0_u64, 0);
    while last == 0 || since < 1_000 + 10 * turns {
        tokio::task::yield_now().await;
        if read() == last {
            since += 1;
        } else {
            (turns, since, last) = (turns + since + 1, 0, read());
        }
    }
    // One budget of rows between each pair of tasks, and what each task has in its hands.
    assert!(last < 5 * 16 * 1_024, "{last} rows were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn watermarks_reach_operators_that_ask_for_them() {
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let source = graph.source(vec![rows(20, &["a"])], true, 1);
    let stage = graph.stage(
        NativeOperator::new(|_, call| {
            let Call::Watermark(time) = call else { return Ok(Outcome::default()) };
            let values: Column = [if time == Timestamp::MAX { "end" } else { "more" }].iter().collect();
            let rows = Rows { times: vec![], keys: Column::default(), values, origins: vec![] };
            Ok(Outcome { emissions: vec![Emission { port: 0, output: Output::Rows(rows) }], rejected: vec![] })
        })
        .with_watermarks(),
        1,
    );
    let out = graph.sink(&sink);
    graph.edge((source, 0), (stage, 0), Routing::Local);
    graph.edge((stage, 0), (out, 0), Routing::Local);
    graph.run().await;
    let got = sink.committed();
    assert_eq!(got.iter().map(|(time, ..)| *time).collect::<Vec<_>>(), [5, 12, 18, i64::MAX], "max - bound - 1");
    assert_eq!(got.last().map(|(.., value)| value.as_str()), Some("end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_an_event_time_become_dead_letters() {
    let values = [r#"{"at":5}"#, r#"{"at":"x"}"#, "nonsense"];
    let partition = values.iter().map(|value| (0, "", (*value).to_owned())).collect();
    let mut graph = Graph::new();
    let sink = KeepSink::default();
    let extraction = Extraction {
        key: None,
        time: Some(TimeExtraction { field: "/at".parse().expect("a pointer"), unit: TimeUnit::Millis }),
    };
    let watermarks = Watermarks::default();
    let list = ListSource { partitions: vec![partition], bounded: true, batch: 7 };
    let source = graph.node(NodeKind::Source { extraction, watermarks }, NodePart::Source(Arc::new(list)), 1);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (out, 0), Routing::Local);
    let (job, cuts) = graph.run().await;
    assert_eq!(sink.committed(), [(5_000, String::new(), values[0].to_owned())]);
    let dead: usize =
        cuts.iter().flat_map(|(_, cuts)| cuts).flat_map(|cut| &cut.dead_letters).map(|letter| letter.rows.len()).sum();
    assert_eq!((dead, job.metrics().nodes()[0].rejected), (2, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_graph_width_gives_the_windows_of_the_model(
        partitions in prop::collection::vec(prop::collection::vec((0i64..40, 0usize..5), 0..120), 1..4),
        readers in 1u16..4,
        tasks in 1u16..5,
        size in 1i64..50,
    ) {
        let keys = ["a", "b", "c", "d", "e"];
        // Times rise within a partition: nothing is late at bound 0.
        let partitions: Vec<Vec<Row>> = partitions
            .into_iter()
            .map(|steps| {
                let mut time = 0;
                steps.into_iter().map(|(step, key)| { time += step; (time, keys[key], String::new()) }).collect()
            })
            .collect();
        let expected = tumbling_model(&partitions, size);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let got = runtime.block_on(async {
            let mut graph = Graph::new();
            let sink = KeepSink::default();
            let source = graph.source(partitions, true, readers);
            let window = graph.window(WindowShape::Tumbling { size_micros: size }, tasks);
            let out = graph.sink(&sink);
            graph.edge((source, 0), (window, 0), Routing::Keyed);
            graph.edge((window, 0), (out, 0), Routing::Keyed);
            graph.run().await;
            sink.sorted()
        });
        prop_assert_eq!(got, expected);
    }
}
