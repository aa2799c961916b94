//! Graphs that take each other's place while rows come in: none is lost, none comes twice, windows fire once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmill_engine::{JobHandle, JobParts, JobSettings, SwapError, start};
use wasmill_env::RealClock;
use wasmill_model::{Epoch, WindowShape};
use wasmill_plan::Routing;
use wasmill_store::Recovered;

use crate::support::KeepSink;
use crate::support::graph::{CutLog, Graph, identity, rows, tumbling_model};
use crate::support::{Got, Row};

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Windows over a source. `through`: by way of a stage that has `tasks`; without, that stage gets the rows and
/// gives them to nobody. `branch`: a stage and a sink of their own read the source.
fn graph(partitions: &[Vec<Row>], through: Option<u16>, branch: bool, [out, raw]: [&KeepSink; 2]) -> Graph {
    let mut graph = Graph::new();
    let source = graph.source(partitions.to_vec(), true, 2);
    let stage = graph.stage(identity(), through.unwrap_or(2));
    let window = graph.window(WindowShape::Tumbling { size_micros: 100 }, 2);
    let out = graph.sink(out);
    graph.edge((source, 0), (stage, 0), Routing::Keyed);
    graph.edge((if through.is_some() { stage } else { source }, 0), (window, 0), Routing::Keyed);
    graph.edge((window, 0), (out, 0), Routing::Keyed);
    if branch {
        let more = graph.stage(identity(), 1);
        let raw = graph.sink(raw);
        graph.edge((source, 0), (more, 0), Routing::Keyed);
        graph.edge((more, 0), (raw, 0), Routing::Local);
    }
    graph
}

fn parts(graph: Graph) -> JobParts {
    let settings = JobSettings { epoch_interval: Duration::from_millis(2), ..JobSettings::default() };
    graph.parts(settings, Recovered::default(), Box::new(CutLog::default()), Arc::new(RealClock::default()))
}

async fn exchange(job: &JobHandle, graph: Graph, behind: &Arc<AtomicU64>) -> Result<u64, SwapError> {
    let JobParts { plan, nodes, .. } = parts(graph);
    let behind = Arc::clone(behind);
    let told = Box::new(move |epoch: Epoch| behind.store(epoch.0, Ordering::Relaxed));
    job.remote().exchange(plan, nodes, told).await.map(|exchanged| exchanged.epoch.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_count_every_row_once_while_the_graph_before_them_changes() {
    let partitions: Vec<Vec<Row>> = (0..4).map(|_| rows(30_000, &KEYS)).collect();
    let sinks = [KeepSink::default(), KeepSink::default()];
    let sinks = [&sinks[0], &sinks[1]];
    let mut job = start(parts(graph(&partitions, None, false, sinks)), &tokio::runtime::Handle::current())
        .await
        .expect("it starts");
    let (behind, mut made) = (Arc::new(AtomicU64::new(0)), 0);
    let shapes = [(Some(2), false), (Some(3), true), (Some(1), true), (None, false)];
    for (through, branch) in shapes.into_iter().cycle() {
        match exchange(&job, graph(&partitions, through, branch, sinks), &behind).await {
            Ok(epoch) => assert_eq!(epoch, behind.load(Ordering::Relaxed)),
            Err(SwapError::Ending) => break,
            Err(error) => panic!("{error}"),
        }
        made += 1;
        let nodes = job.remote().metrics().nodes();
        assert_eq!(nodes.len(), if branch { 6 } else { 4 });
        assert_eq!([0, 2, 3].map(|node| nodes[node].opened), [2, 2, 1], "nothing but the stage is opened again");
    }
    job.wait().await.expect("it ends");
    assert!(made >= 2, "{made} exchanges");
    assert_eq!(job.metrics().nodes()[2].late, 0);
    assert_eq!(sinks[0].sorted(), tumbling_model(&partitions, 100));
    // The branch has no row more often than there are partitions with it.
    let raw: Vec<Got> = sinks[1].sorted();
    assert!(raw.windows(5).all(|rows| rows[0] != rows[4]), "a row came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_exchanged_changes_nothing() {
    let partitions = vec![rows(30_000, &KEYS), rows(30_000, &KEYS)];
    let sinks = [KeepSink::default(), KeepSink::default()];
    let sinks = [&sinks[0], &sinks[1]];
    let mut job = start(parts(graph(&partitions, None, false, sinks)), &tokio::runtime::Handle::current())
        .await
        .expect("it starts");
    let mut other = graph(&partitions, None, true, sinks);
    other.nodes[2].2 = 3;
    let refused = exchange(&job, other, &Arc::default()).await;
    assert!(matches!(refused, Err(SwapError::Refused { reason }) if reason.contains("has windows")));
    assert_eq!(job.metrics().nodes().len(), 4);
    job.wait().await.expect("it ends");
    assert_eq!(sinks[0].sorted(), tumbling_model(&partitions, 100));
}
