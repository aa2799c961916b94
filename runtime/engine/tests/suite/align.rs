//! Sources that keep pace with each other.

use std::sync::Arc;
use std::time::Duration;

use wasmill_engine::{HeadFacts, JobHandle, Reading};
use wasmill_env::{Clock, RealClock};
use wasmill_model::Timestamp;
use wasmill_plan::{
    Align, Extraction, LatePolicy, NodeKind, OrderBy, OrderSpec, Routing, TimeBound, TimeOrder, Watermarks,
};
use wasmill_spec::{ByteSize, Period};

use crate::support::graph::{CutLog, Graph, identity, rows};
use crate::support::{KeepSink, ListSource, Row};
use wasmill_engine::NodePart;

const FAST: usize = 0;
const STAGE: usize = 2;
/// Rows of one read.
const BATCH: usize = 7;

/// A source that keeps pace within so many microseconds, where it does.
fn source(graph: &mut Graph, rows: Vec<Row>, bounded: bool, within: Option<u64>) -> usize {
    let align = within.map(|within_micros| Align { within_micros, group: String::new() });
    let kind = NodeKind::Source {
        extraction: Extraction::default(),
        watermarks: Watermarks { align, ..Watermarks::default() },
    };
    let list = ListSource { partitions: vec![rows], bounded, batch: BATCH };
    graph.node(kind, NodePart::Source(Arc::new(list)), 1)
}

/// Two sources into one ordering buffer that waits for the watermark of both.
fn merged(fast: Vec<Row>, slow: Vec<Row>, bounded: bool, within: Option<u64>, sink: &KeepSink) -> Graph {
    let mut graph = Graph::new();
    let fast = source(&mut graph, fast, bounded, within);
    let slow = source(&mut graph, slow, bounded, within);
    let stage = graph.stage(identity(), 1);
    assert_eq!((fast, stage), (FAST, STAGE));
    let out = graph.sink(sink);
    graph.edge((fast, 0), (stage, 0), Routing::Keyed);
    graph.edge((slow, 0), (stage, 0), Routing::Keyed);
    graph.edge((stage, 0), (out, 0), Routing::Keyed);
    let by = OrderBy::Time(TimeOrder { bound: TimeBound::Watermark, most: Period::from_micros(i64::MAX as u64) });
    let bytes_max = ByteSize::from_bytes(1 << 30);
    graph
        .orders
        .insert((STAGE, 0), OrderSpec { by, late: LatePolicy::Drop, rows_max: 1_000_000, spill: None, bytes_max });
    graph
}

fn held(job: &JobHandle) -> u64 {
    job.metrics().nodes()[STAGE].ordering.map_or(0, |ordering| ordering.held)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_slow_source_is_bounded() {
    let clock = Arc::new(RealClock::default());
    // The slow one says ten things and falls silent: its watermark stays at 8.
    let start = |within, sink| {
        let graph = merged(rows(20_000, &["a"]), rows(10, &["b"]), false, within, sink);
        let clock = Arc::<RealClock>::clone(&clock);
        async move { graph.start(Box::new(CutLog::default()), clock).await }
    };
    let sink = KeepSink::default();
    let job = start(None, &sink).await;
    while held(&job) < 19_000 {
        tokio::task::yield_now().await;
    }
    drop(job);

    let sink = KeepSink::default();
    let job = start(Some(100), &sink).await;
    let patience = Duration::from_secs(60);
    // The slow one may say its ten things in more than one read, and the fast one wait in between.
    loop {
        let facts = job.remote().facts(&*clock, patience).await.expect("it runs");
        assert_eq!(facts.silent, []);
        let fast = facts.tasks.iter().find(|task| task.nodes[0].as_str() == "n0").expect("the source");
        let HeadFacts::Source(source) = &fast.head else { panic!("a source") };
        match source.reading {
            Reading::WaitsForOthers(Timestamp(8)) => break,
            Reading::Reads => {}
            Reading::WaitsForOthers(behind) => assert!(behind < Timestamp(8), "{behind:?}"),
            other => panic!("{other:?}"),
        }
    }
    // Its watermark may be 100 ahead of 8, and one read more.
    while held(&job) < 100 {
        tokio::task::yield_now().await;
    }
    let read = job.metrics().nodes()[FAST].rows_in;
    assert!(read <= 8 + 100 + 2 + BATCH as u64, "{read} rows were read");
    assert!(held(&job) <= read + 10);
    let before = clock.monotonic_nanos();
    assert!(job.remote().facts(&*clock, patience).await.is_some_and(|facts| facts.now_nanos >= before));
    assert_eq!(job.metrics().nodes()[FAST].rows_in, read, "it waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_keep_pace_give_the_same_rows_to_their_end() {
    let every_tenth = || (0..500).map(|i| (i * 10, "b", format!("{i}"))).collect::<Vec<Row>>();
    let mut results = Vec::new();
    for within in [None, Some(0), Some(37)] {
        let sink = KeepSink::default();
        merged(rows(3_000, &["a"]), every_tenth(), true, within, &sink).run().await;
        results.push(sink.sorted());
    }
    assert_eq!(results[0].len(), 3_500);
    assert!(results[1] == results[0] && results[2] == results[0]);
}
