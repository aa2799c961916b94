//! Plugins that are swapped while rows are held or in lanes: none is lost, none comes twice, and the
//! order is kept.

use std::sync::Arc;

use wasmill_env::RealClock;
use wasmill_model::{Emission, Outcome, Output};
use wasmill_plan::{LATE, LatePolicy, OrderBy, OrderSpec, Routing, TimeBound, TimeOrder};
use wasmill_spec::{ByteSize, Period};

use crate::support::graph::{CutLog, Graph, identity, rows};
use crate::support::{Call, KeepSink, ListSource, NativeOperator, Row, name};

const ROWS: usize = 60_000;

/// Hands rows on with another value: that and a mark.
fn marking() -> NativeOperator {
    NativeOperator::new(|_, call| {
        let Call::Process(_, batch) = call else { return Ok(Outcome::default()) };
        let marked = batch.values().iter().map(|value| [value, b" new"].concat());
        let output = Output::Values(marked.collect());
        Ok(Outcome { emissions: vec![Emission { port: 0, output }], rejected: vec![] })
    })
}

/// Runs a graph whose second node is swapped once rows have come out of it. Rows of the old plugin, and
/// of the new one.
async fn swapped(graph: Graph, sink: &KeepSink) -> (Vec<i64>, Vec<i64>) {
    let mut job = graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
    while sink.written() < 500 {
        tokio::task::yield_now().await;
    }
    job.remote().swap(&name("n1"), Arc::new(marking()), false).await.expect("it is swapped");
    job.wait().await.expect("it ends");
    let rows = sink.committed();
    let first_new = rows.iter().position(|row| row.2.ends_with(" new")).expect("some are of the new one");
    let (old, new) = rows.split_at(first_new);
    assert!(!old.is_empty() && new.iter().all(|row| row.2.ends_with(" new")), "one moment for all rows");
    let times = |rows: &[crate::support::Got]| rows.iter().map(|row| row.0).collect();
    (times(old), times(new))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_behind_an_ordering_buffer_is_swapped_and_held_rows_stay() {
    // Every tenth row is 90 behind.
    let disordered: Vec<Row> =
        (0..ROWS as i64).map(|i| (if i % 10 == 9 { i * 10 - 85 } else { i * 10 }, "a", String::new())).collect();
    let (sink, side) = (KeepSink::default(), KeepSink::default());
    let mut graph = Graph::new();
    let source = graph.list(ListSource { partitions: vec![disordered.clone()], bounded: true, batch: 7 }, 1);
    let stage = graph.stage(identity(), 1);
    let [out, late] = [&sink, &side].map(|sink| graph.sink(sink));
    graph.edge((source, 0), (stage, 0), Routing::Keyed);
    graph.edge((stage, 0), (out, 0), Routing::Keyed);
    graph.edge((stage, LATE), (late, 0), Routing::Keyed);
    let bound = TimeBound::Fixed(Period::from_micros(2_000));
    let by = OrderBy::Time(TimeOrder { bound, most: Period::from_micros(i64::MAX as u64) });
    let bytes_max = ByteSize::from_bytes(1 << 30);
    graph
        .orders
        .insert((stage, 0), OrderSpec { by, late: LatePolicy::Side, rows_max: 1_000_000, spill: None, bytes_max });
    let (old, new) = swapped(graph, &sink).await;
    let mut expected: Vec<i64> = disordered.iter().map(|row| row.0).collect();
    expected.sort_unstable();
    assert!([old, new].concat() == expected && side.committed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lanes_of_a_convoy_are_swapped_at_one_row() {
    let sink = KeepSink::default();
    let mut graph = Graph::new();
    let source = graph.source(vec![rows(ROWS, &["a", "b", "c", "d", "e"])], true, 1);
    let convoy = graph.convoy(identity(), 4, false);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (convoy, 0), Routing::Split);
    graph.edge((convoy, 0), (out, 0), Routing::Merged);
    let (old, new) = swapped(graph, &sink).await;
    assert!([old, new].concat() == (0..ROWS as i64).collect::<Vec<_>>());
}
