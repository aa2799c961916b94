//! Graphs of native parts, and what they should give.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use wasmill_contract::{BoxFuture, CommitError, Committer, Cut, OperatorFactory, TimerChange};
use wasmill_engine::{JobHandle, JobParts, JobSettings, NodePart, start};
use wasmill_env::{Clock as HostClock, Disk, RealClock, SimulatedDisk};
use wasmill_model::{Clock, Column, Emission, Epoch, JobName, Outcome, Output, Rows, WindowSpec};
use wasmill_plan::FaultPolicy;
use wasmill_plan::{Chain, Convoy, Edge, Extraction, Node, NodeKind, OrderSpec, Plan, Routing, Watermarks};
use wasmill_spec::Ordered;
use wasmill_store::{Recovered, StageStates};

use super::{Call, CountAggregate, Got, KeepSink, ListSource, NativeOperator, Row, name};

/// A graph in the making: nodes in topological order.
pub(crate) struct Graph {
    pub(crate) nodes: Vec<(NodeKind, NodePart, u16)>,
    pub(crate) edges: Vec<Edge>,
    /// Nodes that are convoys.
    pub(crate) convoys: BTreeMap<usize, Convoy>,
    /// Ordering buffers by stage and port.
    pub(crate) orders: BTreeMap<(usize, u16), OrderSpec>,
    /// Where their rows may wait.
    pub(crate) disk: SimulatedDisk,
}

impl Graph {
    pub(crate) fn new() -> Self {
        let (convoys, orders, disk) = (BTreeMap::new(), BTreeMap::new(), SimulatedDisk::default());
        Self { nodes: Vec::new(), edges: Vec::new(), convoys, orders, disk }
    }

    pub(crate) fn node(&mut self, kind: NodeKind, part: NodePart, parallelism: u16) -> usize {
        self.nodes.push((kind, part, parallelism));
        self.nodes.len() - 1
    }

    pub(crate) fn source(&mut self, partitions: Vec<Vec<Row>>, bounded: bool, parallelism: u16) -> usize {
        self.list(ListSource { partitions, bounded, batch: 7 }, parallelism)
    }

    pub(crate) fn list(&mut self, list: ListSource, parallelism: u16) -> usize {
        let kind = NodeKind::Source { extraction: Extraction::default(), watermarks: Watermarks::default() };
        self.node(kind, NodePart::Source(Arc::new(list)), parallelism)
    }

    /// Another list in the place of a source's.
    pub(crate) fn replace_list(&mut self, source: usize, list: ListSource) {
        self.nodes[source].1 = NodePart::Source(Arc::new(list));
    }

    pub(crate) fn stage(&mut self, operator: NativeOperator, parallelism: u16) -> usize {
        self.node(
            NodeKind::Stage { window: None, faults: FaultPolicy::default() },
            NodePart::Stage(Arc::new(operator)),
            parallelism,
        )
    }

    pub(crate) fn window(&mut self, windows: impl Into<WindowSpec>, parallelism: u16) -> usize {
        let part = NodePart::Stage(Arc::new(CountAggregate::default()));
        self.node(NodeKind::Stage { window: Some(windows.into()), faults: FaultPolicy::default() }, part, parallelism)
    }

    /// A stage of lanes; rows of a key go to one where it keeps something by key.
    pub(crate) fn convoy(&mut self, operator: NativeOperator, lanes: u16, by_key: bool) -> usize {
        let stage = self.stage(operator, lanes);
        self.convoys.insert(stage, Convoy { ordered: Ordered::default(), by_key });
        stage
    }

    /// A stage of any plugin.
    pub(crate) fn plugin(
        &mut self,
        plugin: impl OperatorFactory + 'static,
        window: Option<WindowSpec>,
        faults: FaultPolicy,
    ) -> usize {
        self.node(NodeKind::Stage { window, faults }, NodePart::Stage(Arc::new(plugin)), 1)
    }

    pub(crate) fn sink(&mut self, sink: &KeepSink) -> usize {
        self.node(NodeKind::Sink, NodePart::Sink(Arc::new(sink.clone())), 1)
    }

    pub(crate) fn edge(&mut self, from: (usize, u16), to: (usize, u16), routing: Routing) {
        self.edges.push(Edge { from: from.0, output: from.1, to: to.0, input: to.1, key: None, routing });
    }

    pub(crate) async fn start(self, committer: Box<dyn Committer>, clock: Arc<dyn HostClock>) -> JobHandle {
        let settings = JobSettings { epoch_interval: Duration::from_millis(2), ..JobSettings::default() };
        self.start_with(settings, committer, clock).await
    }

    pub(crate) async fn start_with(
        self,
        settings: JobSettings,
        committer: Box<dyn Committer>,
        clock: Arc<dyn HostClock>,
    ) -> JobHandle {
        self.resume(settings, Recovered::default(), committer, clock).await
    }

    /// Starts where an earlier run left off.
    pub(crate) async fn resume(
        self,
        settings: JobSettings,
        recovered: Recovered,
        committer: Box<dyn Committer>,
        clock: Arc<dyn HostClock>,
    ) -> JobHandle {
        let parts = self.parts(settings, recovered, committer, clock);
        start(parts, &Handle::current()).await.expect("it starts")
    }

    pub(crate) fn parts(
        self,
        settings: JobSettings,
        recovered: Recovered,
        committer: Box<dyn Committer>,
        clock: Arc<dyn HostClock>,
    ) -> JobParts {
        let mut chain_of: Vec<usize> = Vec::new();
        let mut chains: Vec<Chain> = Vec::new();
        for (place, (_, _, parallelism)) in self.nodes.iter().enumerate() {
            let local = self.edges.iter().find(|edge| edge.to == place && matches!(edge.routing, Routing::Local));
            let chain = local.map_or(chains.len(), |edge| chain_of[edge.from]);
            if chain == chains.len() {
                chains.push(Chain {
                    nodes: Vec::new(),
                    parallelism: *parallelism,
                    convoy: self.convoys.get(&place).cloned(),
                });
            }
            chains[chain].nodes.push(place);
            chain_of.push(chain);
        }
        let (mut nodes, mut parts) = (Vec::new(), Vec::new());
        for (place, (kind, part, _)) in self.nodes.into_iter().enumerate() {
            nodes.push(Node { name: name(&format!("n{place}")), kind, chain: chain_of[place] });
            parts.push(part);
        }
        let plan =
            Plan { job: JobName::new("job").expect("a name"), nodes, edges: self.edges, chains, orders: self.orders };
        let spill: (Arc<dyn Disk>, _) = (Arc::new(self.disk), "/spill".into());
        let states = StageStates { spill: Some(spill), ..StageStates::default() };
        JobParts { plan, nodes: parts, recovered, states, committer, clock, settings, account: None }
    }

    pub(crate) async fn run(self) -> (JobHandle, Vec<Committed>) {
        let log = CutLog::default();
        let mut job = self.start(Box::new(log.clone()), Arc::new(RealClock::default())).await;
        job.wait().await.expect("it ends well");
        (job, log.take())
    }
}

/// Keeps every cut.
#[derive(Clone, Default)]
pub(crate) struct CutLog(Arc<Mutex<Vec<Committed>>>);

/// An epoch and the cuts of all tasks.
pub(crate) type Committed = (Epoch, Vec<Cut>);

impl CutLog {
    pub(crate) fn take(&self) -> Vec<Committed> {
        std::mem::take(&mut self.0.lock().expect("no panic holds it"))
    }
}

impl Committer for CutLog {
    fn commit(&mut self, epoch: Epoch, cuts: Vec<Cut>) -> BoxFuture<'_, Result<(), CommitError>> {
        self.0.lock().expect("no panic holds it").push((epoch, cuts));
        Box::pin(async { Ok(()) })
    }
}

pub(crate) fn identity() -> NativeOperator {
    NativeOperator::new(|_, call| {
        Ok(match call {
            Call::Process(..) => {
                Outcome { emissions: vec![Emission { port: 0, output: Output::Unchanged }], rejected: vec![] }
            }
            _ => Outcome::default(),
        })
    })
}

/// Emits for every row its key's count so far, held in state.
pub(crate) fn counter() -> NativeOperator {
    NativeOperator::new(|context, call| {
        let Call::Process(_, batch) = call else { return Ok(Outcome::default()) };
        let mut values = Vec::new();
        for key in batch.keys().iter() {
            let (keys, none) = ([key].iter().collect::<Column>(), Column::default());
            let mut old = Default::default();
            let found = context.state.get_many(0, &keys, &none, &mut old).expect("declared");
            let before =
                if found.get(0) { u64::from_le_bytes(old.finish().row(0).try_into().expect("8 bytes")) } else { 0 };
            let now: Column = [(before + 1).to_le_bytes()].iter().collect();
            context.state.put_many(0, &keys, &none, &now).expect("declared");
            values.push((before + 1).to_string());
        }
        let output = Output::Values(values.iter().collect());
        Ok(Outcome { emissions: vec![Emission { port: 0, output }], rejected: vec![] })
    })
    .with_spaces(&["count"])
}

pub(crate) fn rows(count: usize, keys: &[&'static str]) -> Vec<Row> {
    (0..count).map(|i| (i as i64, keys[i % keys.len()], format!("{i}"))).collect()
}

pub(crate) fn tumbling_model(partitions: &[Vec<Row>], size: i64) -> Vec<Got> {
    let mut counts: BTreeMap<(i64, &str), u64> = BTreeMap::new();
    for (time, key, _) in partitions.iter().flatten() {
        *counts.entry((time.div_euclid(size) * size, *key)).or_default() += 1;
    }
    let mut model: Vec<Got> = counts
        .into_iter()
        .map(|((start, key), count)| (start + size - 1, key.to_owned(), format!("{start}..{}={count}", start + size)))
        .collect();
    model.sort();
    model
}

/// Sets a timer 10 microseconds after each row; a timer that fires gives a row.
pub(crate) fn delayed(clock: Clock) -> NativeOperator {
    NativeOperator::new(move |context, call| match call {
        Call::Process(_, batch) => {
            let now = if clock == Clock::Event { 0 } else { context.wall.0 };
            context.timers.push(TimerChange {
                clock,
                keys: Arc::clone(batch.keys()),
                tags: Arc::clone(batch.values()),
                times: Some(batch.times().iter().map(|time| now + time + 10).collect()),
            });
            Ok(Outcome::default())
        }
        Call::Timers(of, fired) => {
            assert_eq!(of, clock);
            let rows = Rows {
                times: vec![],
                keys: Column::default(),
                values: fired.tags.clone(),
                origins: (0..fired.times.len() as u32).collect(),
            };
            Ok(Outcome { emissions: vec![Emission { port: 0, output: Output::Rows(rows) }], rejected: vec![] })
        }
        _ => Ok(Outcome::default()),
    })
}
