//! Sources whose watermarks are those of another source.

use std::sync::Arc;

use proptest::prelude::*;
use wasmill_engine::NodePart;
use wasmill_env::RealClock;
use wasmill_model::{Timestamp, WindowShape};
use wasmill_plan::LATE;
use wasmill_plan::{Extraction, LatePolicy, NodeKind, OrderBy, OrderSpec, Routing, TimeBound, TimeOrder, Watermarks};
use wasmill_spec::{ByteSize, Period};

use crate::support::graph::{CutLog, Graph, identity, rows};
use crate::support::mortal::{deaths, survive};
use crate::support::{KeepSink, ListSource, Row, name};

const MARKS: usize = 0;
const DATA: usize = 1;
const STAGE: usize = 2;

fn marks(times: impl IntoIterator<Item = i64>) -> Vec<Row> {
    times.into_iter().map(|time| (time, "", String::new())).collect()
}

/// A source of marks that nobody reads, and one whose watermarks they are, in so many tasks.
fn marked(graph: &mut Graph, marks: Vec<Row>, data: Vec<Vec<Row>>, bounded: bool, tasks: u16) {
    assert_eq!(graph.list(ListSource { partitions: vec![marks], bounded, batch: 1 }, 1), MARKS);
    let watermarks = Watermarks { from: Some(name("n0")), ..Watermarks::default() };
    let kind = NodeKind::Source { extraction: Extraction::default(), watermarks };
    let list = ListSource { partitions: data, bounded, batch: 7 };
    assert_eq!(graph.node(kind, NodePart::Source(Arc::new(list)), tasks), DATA);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_fire_by_the_marks_of_another_source() {
    let sink = KeepSink::default();
    let mut graph = Graph::new();
    // The rows are far beyond what the marks say is complete.
    let data = vec![rows(100, &["a"]), vec![(5_000, "b", "last".to_owned())]];
    marked(&mut graph, marks([1]), data.clone(), false, 2);
    let window = graph.window(WindowShape::Tumbling { size_micros: 10 }, 1);
    assert_eq!(window, STAGE);
    let out = graph.sink(&sink);
    graph.edge((DATA, 0), (window, 0), Routing::Keyed);
    graph.edge((window, 0), (out, 0), Routing::Keyed);
    let mut job = graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
    while job.metrics().nodes()[STAGE].rows_in < 101 || job.metrics().nodes()[STAGE].watermark == Timestamp::MIN {
        tokio::task::yield_now().await;
    }
    assert_eq!(job.metrics().nodes()[STAGE].watermark, Timestamp(0), "that of the mark, not of the rows");
    assert_eq!(sink.written(), 0);
    job.stop();
    job.wait().await.expect("it stops");

    // With a mark up to which some windows are complete, those fire and no others.
    let sink = KeepSink::default();
    let mut graph = Graph::new();
    marked(&mut graph, marks([31]), data, false, 1);
    let buffer = graph.stage(identity(), 1);
    let out = graph.sink(&sink);
    graph.edge((DATA, 0), (buffer, 0), Routing::Keyed);
    graph.edge((buffer, 0), (out, 0), Routing::Keyed);
    graph.orders.insert((buffer, 0), by_watermark(LatePolicy::Forward));
    let mut job = graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
    while job.metrics().nodes()[STAGE].rows_in < 31 || job.metrics().nodes()[STAGE].ordering.is_none_or(|o| o.held < 70)
    {
        tokio::task::yield_now().await;
    }
    job.stop();
    job.wait().await.expect("it stops");
    assert_eq!(sink.sorted().iter().map(|row| row.0).collect::<Vec<_>>(), (0..31).collect::<Vec<_>>());
}

fn by_watermark(late: LatePolicy) -> OrderSpec {
    let by = OrderBy::Time(TimeOrder { bound: TimeBound::Watermark, most: Period::from_micros(i64::MAX as u64) });
    OrderSpec { by, late, rows_max: 1_000_000, spill: None, bytes_max: ByteSize::from_bytes(1 << 30) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However marks and rows meet, and whatever dies when: every row leaves once, in order or as late.
    #[test]
    fn every_row_leaves_once_whatever_dies(deaths in deaths(), tasks in prop::collection::vec(1u16..3, 5)) {
        let (sink, side) = (KeepSink::default(), KeepSink::default());
        survive(&deaths, |run| {
            let mut graph = Graph::new();
            let data = vec![rows(900, &["a", "b"]), rows(700, &["c"])];
            marked(&mut graph, marks((0..90).map(|i| i * 10)), data, true, tasks[run]);
            let stage = graph.stage(identity(), 1);
            let [out, late] = [&sink, &side].map(|sink| graph.sink(sink));
            graph.edge((DATA, 0), (stage, 0), Routing::Keyed);
            graph.edge((stage, 0), (out, 0), Routing::Keyed);
            graph.edge((stage, LATE), (late, 0), Routing::Keyed);
            graph.orders.insert((stage, 0), by_watermark(LatePolicy::Side));
            graph
        });
        let in_order: Vec<i64> = sink.committed().iter().map(|row| row.0).collect();
        prop_assert!(in_order.is_sorted());
        let mut all: Vec<i64> = in_order.into_iter().chain(side.committed().iter().map(|row| row.0)).collect();
        all.sort_unstable();
        let mut expected: Vec<i64> = (0..900).chain(0..700).collect();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
    }
}
