//! Jobs that die and go on: the committed output is that of a job that never died.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::graph::{Graph, counter, rows, tumbling_model};
use crate::support::{KeepSink, Row};
use proptest::prelude::*;
use wasmill_contract::{BoxFuture, CommitError, Committer, Cut, Recovered};
use wasmill_engine::JobSettings;
use wasmill_env::RealClock;
use wasmill_model::{Epoch, ErrorKind, WindowShape};
use wasmill_order::WindowProgress;
use wasmill_plan::Routing;

/// Where a run dies: at its n-th commit, before that is durable or right after.
#[derive(Debug, Clone, Copy)]
struct Death {
    commits: u64,
    durable: bool,
}

/// Keeps in memory what a durable committer would keep, and dies when told to.
struct Folding {
    durable: Arc<Mutex<Recovered>>,
    death: Option<Death>,
    commits: u64,
}

impl Committer for Folding {
    fn commit(&mut self, epoch: Epoch, cuts: Vec<Cut>) -> BoxFuture<'_, Result<(), CommitError>> {
        self.commits += 1;
        let dies = self.death.filter(|death| death.commits == self.commits);
        let died = CommitError { epoch, kind: ErrorKind::Unavailable, reason: "killed".into() };
        if dies.is_some_and(|death| !death.durable) {
            return Box::pin(async { Err(died) });
        }
        fold(&mut self.durable.lock().expect("no panic holds it"), epoch, cuts);
        Box::pin(async move { if dies.is_some() { Err(died) } else { Ok(()) } })
    }
}

fn fold(durable: &mut Recovered, epoch: Epoch, cuts: Vec<Cut>) {
    assert_eq!(epoch, durable.epoch.next(), "epochs commit in order");
    durable.epoch = epoch;
    for cut in cuts {
        for source in cut.sources {
            durable.sources.entry(source.node).or_default().extend(source.positions);
        }
        for sink in cut.sinks {
            durable.sinks.entry(sink.node).or_default().insert(sink.share, sink.handle);
        }
        for stage in cut.stages {
            let image = durable.stages.entry(stage.node).or_default();
            let mut state: BTreeMap<_, _> = image
                .state
                .drain(..)
                .chain(stage.state.entries)
                .map(|change| ((change.space, change.key.clone(), change.subkey.clone()), change))
                .collect();
            state.retain(|_, change| change.value.is_some());
            image.state = state.into_values().collect();
            let mut timers: BTreeMap<_, _> = image
                .timers
                .drain(..)
                .chain(stage.timers)
                .map(|timer| ((timer.clock, timer.key.clone(), timer.tag.clone()), timer))
                .collect();
            timers.retain(|_, timer| timer.set.is_some());
            image.timers = timers.into_values().collect();
            if let Some(windows) = stage.windows {
                image.panes.retain(|pane| {
                    let replaced = windows.entries.iter().any(|new| new.slice == pane.slice && new.key == pane.key);
                    !replaced && !windows.dropped.contains(&pane.slice)
                });
                image.panes.extend(windows.entries);
                let progress = image.progress.get_or_insert(windows.progress);
                *progress = later(*progress, windows.progress);
            }
        }
    }
}

fn later(a: WindowProgress, b: WindowProgress) -> WindowProgress {
    if (a.next_window, a.panes) >= (b.next_window, b.panes) { a } else { b }
}

/// Runs a job again and again until it ends, dying as told.
fn survive(deaths: &[Death], mut graph: impl FnMut(usize) -> Graph) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let durable = Arc::new(Mutex::new(Recovered::default()));
        for run in 0..=deaths.len() {
            let recovered = durable.lock().expect("no panic holds it").clone();
            let committer = Folding { durable: Arc::clone(&durable), death: deaths.get(run).copied(), commits: 0 };
            let settings = JobSettings { epoch_interval: Duration::from_micros(200), ..JobSettings::default() };
            let clock = Arc::new(RealClock::default());
            let mut job = graph(run).resume(settings, recovered, Box::new(committer), clock).await;
            if job.wait().await.is_ok() {
                return;
            }
        }
        panic!("the last run does not die");
    });
}

fn deaths() -> impl Strategy<Value = Vec<Death>> {
    let death = (1u64..6, any::<bool>()).prop_map(|(commits, durable)| Death { commits, durable });
    prop::collection::vec(death, 0..5)
}

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
}
