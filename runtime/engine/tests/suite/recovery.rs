//! Jobs that die and go on: the committed output is that of a job that never died.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::support::graph::{CutLog, Graph, counter, delayed, rows, tumbling_model};
use crate::support::mortal::{Death, Mortal, deaths, survive, survive_as};
use crate::support::{DirectSink, Got, KeepSink, Row, name};
use proptest::prelude::*;
use tokio::runtime::Handle;
use wasmill_contract::{BoxFuture, CommitError, Committer, Cut};
use wasmill_engine::{JobSettings, NodePart, start};
use wasmill_env::{Disk, RealClock, SimulatedDisk};
use wasmill_model::{Clock, Epoch, Firing, PaneMode, Trigger, WindowShape, WindowSpec};
use wasmill_plan::{NodeKind, Routing};
use wasmill_spec::Delivery;
use wasmill_store::{Recovered, SinkRecord};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn counts_survive_deaths_and_another_parallelism(deaths in deaths(), tasks in prop::collection::vec(1u16..5, 5)) {
        let keys = ["a", "b", "c", "d", "e"];
        let sink = KeepSink::default();
        survive(&deaths, |run| {
            let mut graph = Graph::new();
            let source = graph.source(vec![rows(2_000, &keys), rows(500, &keys)], true, 2);
            let stage = graph.stage(counter(), tasks[run]);
            let out = graph.sink(&sink);
            graph.edge((source, 0), (stage, 0), Routing::Keyed);
            graph.edge((stage, 0), (out, 0), Routing::Keyed);
            graph
        });
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (_, key, count) in sink.committed() {
            seen.entry(key).or_default().push(count.parse().expect("a number"));
        }
        for key in keys {
            prop_assert_eq!(seen.remove(key), Some((1..=500).collect::<Vec<_>>()), "{}", key);
        }
    }

    #[test]
    fn timers_survive_deaths(deaths in deaths(), tasks in prop::collection::vec(1u16..5, 5)) {
        let sink = KeepSink::default();
        survive(&deaths, |run| {
            let mut graph = Graph::new();
            let source = graph.source(vec![rows(2_000, &["a", "b", "c"])], true, 1);
            let stage = graph.stage(delayed(Clock::Event), tasks[run]);
            let out = graph.sink(&sink);
            graph.edge((source, 0), (stage, 0), Routing::Keyed);
            graph.edge((stage, 0), (out, 0), Routing::Keyed);
            graph
        });
        let times: Vec<i64> = sink.sorted().into_iter().map(|(time, ..)| time).collect();
        prop_assert_eq!(times, (10..2_010).collect::<Vec<i64>>());
    }

    #[test]
    fn windows_survive_deaths(deaths in deaths(), size in 1i64..400) {
        let partitions: Vec<Vec<Row>> = vec![rows(1_500, &["a", "b", "c"]), rows(700, &["c", "d"])];
        let sink = KeepSink::default();
        survive(&deaths, |_| {
            let mut graph = Graph::new();
            let source = graph.source(partitions.clone(), true, 1);
            let window = graph.window(WindowShape::Tumbling { size_micros: size }, 1);
            let out = graph.sink(&sink);
            graph.edge((source, 0), (window, 0), Routing::Keyed);
            graph.edge((window, 0), (out, 0), Routing::Keyed);
            graph
        });
        prop_assert_eq!(sink.sorted(), tumbling_model(&partitions, size));
    }

    /// Windows by key, that fire early, at their end and late: what comes out, and what it is, is that of
    /// a job that never died, at any width.
    #[test]
    fn corrections_survive_deaths_and_another_parallelism(
        deaths in deaths(), tasks in prop::collection::vec(1u16..5, 5), number in 0..5_usize,
    ) {
        let spec = windows_that_correct()[number];
        let expected = corrected(&[], &[1; 5], spec);
        for kind in ["on-time", "early", "correction", "retraction"] {
            let is_given = expected.iter().any(|row| row.2.ends_with(kind));
            let is_wanted = match (spec.shape, kind) {
                (WindowShape::Count { .. }, _) => false,
                // Few sessions get so many rows before their end.
                (WindowShape::Session { .. }, "early") => is_given,
                (WindowShape::Global, "correction") | (WindowShape::Sliding { .. }, "retraction") => false,
                _ => true,
            };
            prop_assert_eq!(is_given, is_wanted, "{} of {:?}", kind, spec);
        }
        prop_assert_eq!(corrected(&deaths, &tasks, spec), expected);
    }

    #[test]
    fn at_least_once_loses_nothing(deaths in deaths()) {
        let seen = through(Delivery::AtLeastOnce, &deaths);
        let mut distinct = seen.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct, (0..2_000).collect::<Vec<i64>>());
        // Each run goes on from where the one before had committed: it never goes back further than
        // an earlier one did.
        let mut back = 0;
        for pair in seen.windows(2).filter(|pair| pair[1] <= pair[0]) {
            prop_assert!(pair[1] >= back, "{} after {}", pair[1], back);
            back = pair[1];
        }
    }

    #[test]
    fn at_most_once_doubles_nothing(deaths in deaths()) {
        let seen = through(Delivery::AtMostOnce, &deaths);
        prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "rows come once, and in order");
        if deaths.is_empty() {
            prop_assert_eq!(seen.len(), 2_000);
        }
    }
}

fn windows_that_correct() -> [WindowSpec; 5] {
    let early = Some(Trigger { rows: Some(4), ..Trigger::default() });
    let firing = Firing { early, lateness_micros: 60, late: None, panes: PaneMode::Retract };
    let tumbling = WindowShape::Tumbling { size_micros: 50 };
    let sliding = WindowShape::Sliding { size_micros: 50, slide_micros: 20 };
    [
        WindowSpec { shape: tumbling, firing },
        WindowSpec { shape: sliding, firing: Firing { panes: PaneMode::Accumulate, ..firing } },
        WindowSpec { shape: WindowShape::Session { gap_micros: 12 }, firing },
        WindowShape::Count { rows: 7, every: 3 }.into(),
        WindowSpec { shape: WindowShape::Global, firing: Firing { lateness_micros: 0, ..firing } },
    ]
}

/// What windows over rows out of order give, sorted, by a job that dies as told.
fn corrected(deaths: &[Death], tasks: &[u16], spec: WindowSpec) -> Vec<Got> {
    let keys = ["a", "b", "c"];
    let out_of_order = |i: i64| i + (i * 7_919) % 83 - 41;
    let list: Vec<Row> = (0..905).map(|i| (out_of_order(i), keys[i as usize % 3], format!("{i}"))).collect();
    let sink = KeepSink::default();
    survive(deaths, |run| {
        let mut graph = Graph::new();
        let source = graph.source(vec![list.clone()], true, 1);
        let window = graph.window(spec, tasks[run]);
        let out = graph.sink(&sink);
        graph.edge((source, 0), (window, 0), Routing::Keyed);
        graph.edge((window, 0), (out, 0), Routing::Keyed);
        graph
    });
    sink.sorted()
}

/// Times of the rows that a sink which shows rows at once got.
fn through(delivery: Delivery, deaths: &[Death]) -> Vec<i64> {
    let sink = DirectSink::default();
    survive_as(delivery, deaths, |_| {
        let mut graph = Graph::new();
        let source = graph.source(vec![rows(2_000, &["a"])], true, 1);
        let out = graph.node(NodeKind::Sink, NodePart::Sink(Arc::new(sink.clone())), 1);
        graph.edge((source, 0), (out, 0), Routing::Local);
        graph
    });
    sink.seen()
}

#[test]
fn rows_leave_before_their_epoch_or_behind_it_as_the_job_asks() {
    let seen = |delivery, durable| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let sink = DirectSink::default();
        runtime.block_on(async {
            let mut graph = Graph::new();
            let source = graph.source(vec![rows(100, &["a"])], true, 1);
            let out = graph.node(NodeKind::Sink, NodePart::Sink(Arc::new(sink.clone())), 1);
            graph.edge((source, 0), (out, 0), Routing::Local);
            let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::default());
            let (committer, recovered) = Mortal::open(&disk, Some(Death { commits: 1, durable }));
            // Only the end of the input ends the epoch.
            let settings = JobSettings { epoch_interval: Duration::from_secs(600), delivery, ..JobSettings::default() };
            let mut job = graph.resume(settings, recovered, Box::new(committer), Arc::new(RealClock::default())).await;
            job.wait().await.expect_err("it dies in its only commit");
        });
        sink.seen().len()
    };
    assert_eq!(seen(Delivery::AtLeastOnce, false), 100, "rows leave before anything is committed");
    assert_eq!(seen(Delivery::AtMostOnce, false), 0, "rows wait for their epoch");
    assert_eq!(seen(Delivery::AtMostOnce, true), 0, "a job that dies right behind the commit loses them");
}

#[test]
fn a_sink_with_another_number_of_writers_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut graph = Graph::new();
        let source = graph.source(vec![rows(10, &["a"])], true, 1);
        let out = graph.sink(&KeepSink::default());
        graph.edge((source, 0), (out, 0), Routing::Keyed);
        let sink = SinkRecord { node: name(&format!("n{out}")), share: 1, shares: 2, handle: Vec::new() };
        let recovered = Recovered { sinks: vec![sink], ..Recovered::default() };
        let parts =
            graph.parts(JobSettings::default(), recovered, Box::new(CutLog::default()), Arc::new(RealClock::default()));
        let error = start(parts, &Handle::current()).await.err().expect("refused");
        assert_eq!(
            error.to_string(),
            "sink \"n1\" cannot go on with 1 writers: its last epoch was written by 2; run the job with the \
             parallelism it had, or start anew"
        );
    });
}

/// Commits nothing until it is let.
struct Slow {
    gate: Arc<tokio::sync::Semaphore>,
}

impl Committer for Slow {
    fn commit(&mut self, _: Epoch, _: Vec<Cut>) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async {
            self.gate.acquire().await.expect("never closed").forget();
            Ok(())
        })
    }
}

#[test]
fn a_slow_disk_stops_the_sources() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let mut graph = Graph::new();
        let sink = KeepSink::default();
        let source = graph.source(vec![rows(50_000, &["a"])], true, 1);
        let out = graph.sink(&sink);
        graph.edge((source, 0), (out, 0), Routing::Local);
        let settings = JobSettings { epoch_bytes: 1_000, ..JobSettings::default() };
        let committer = Box::new(Slow { gate: Arc::clone(&gate) });
        let mut job = graph.resume(settings, Recovered::default(), committer, Arc::new(RealClock::default())).await;
        let rows_in = |job: &wasmill_engine::JobHandle| job.metrics().nodes()[0].rows_in;
        // Long enough to read everything, were nothing in the way.
        for _ in 0..100_000 {
            tokio::task::yield_now().await;
        }
        let stopped_at = rows_in(&job);
        assert!(stopped_at > 0 && stopped_at < 1_000, "{stopped_at} rows, though nothing is committed");
        assert!(job.metrics().committing_since().is_some());
        gate.add_permits(1 << 20);
        job.wait().await.expect("it ends well");
        assert_eq!(sink.committed().len(), 50_000);
    });
}
