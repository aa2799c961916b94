//! Another graph for a job that runs.
//!
//! # Protocol
//! What is new is opened first, while the old graph works: what fails there changes nothing. Before barrier *n* the
//! coordinator tells the tasks that the change touches to park: behind their cut of *n* they stop, and hand
//! themselves over as they are. Once *n* is durable, and its rows are shown, tasks of the new graph are made of
//! them: nodes of both graphs are moved as they stand, others are dropped. Tasks that are not touched know
//! nothing of it, and no barrier is injected meanwhile. What they send to a task that is parked waits in its
//! queue, which goes along.
//!
//! ```text
//! coordinator  ── Park ──▶ tasks that are touched     ── barrier n ──▶ sources ──▶ … ──▶ tasks
//! tasks        ── cut n, then Parked ──▶ coordinator: n durable, sinks show it; new tasks are made, and go on
//! ```
//!
//! # Crash consistency
//! Epoch *n* is the last one of the old graph, and *n+1* the first of the new one: it says which stages there are,
//! and forgets what is kept for nodes that are gone. A crash in between finds the old graph.
//!
//! # Ordering
//! A queue that is made anew is empty: all who send to it have parked behind *n*, and all that came before was
//! worked off before its task had cut *n*. How far each sender is it says first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use wasmill_contract::Share;
use wasmill_model::{Epoch, NodeName, Timestamp, share_of};
use wasmill_plan::{self as plan, Plan, is_same_edge};
use wasmill_tenancy::Account;

use crate::chain::{Chain, ChainParts, Orders, Output, Slot, SlotKind, Target};
use crate::coordinator::TaskLink;
use crate::error::JobError;
use crate::job::{NodePart, in_turn};
use crate::metrics::JobMetrics;
use crate::source_head::SourceHead;
use crate::swap::{SwapError, Swapped};
use crate::task::{Head, Inputs, Report, Task};
use crate::wiring::{self, Dealt, Graph};

/// What a node of a task is known by.
type Part = (NodeName, u16);

/// What runs now, for whoever opens what is to come.
pub(crate) struct Site {
    graph: Mutex<Graph>,
    metrics: Arc<JobMetrics>,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site").finish_non_exhaustive()
    }
}

impl Site {
    pub(crate) fn new(graph: Graph, metrics: Arc<JobMetrics>) -> Self {
        Self { graph: Mutex::new(graph), metrics }
    }

    fn graph(&self) -> Graph {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whose work the job is.
    pub(crate) fn account(&self) -> Option<Arc<Account>> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner).account.clone()
    }

    fn set(&self, graph: Graph) {
        self.metrics.arrange(graph.plan.nodes.iter().map(|node| node.name.clone()));
        *self.graph.lock().unwrap_or_else(PoisonError::into_inner) = graph;
    }
}

/// A graph whose new nodes are open.
pub(crate) struct Opened {
    old: Arc<Plan>,
    graph: Graph,
    exchange: plan::Exchange,
    nodes: HashMap<Part, SlotKind>,
    sources: HashMap<Part, SourceHead>,
    orders: HashMap<Part, Orders>,
}

/// Opens what another graph has and the one that runs has not. Says why where it cannot be.
pub(crate) async fn open(site: &Site, plan: Plan, nodes: Vec<NodePart>) -> Result<Opened, String> {
    let now = site.graph();
    let exchange = plan::exchange(&now.plan, &plan).map_err(|why| why.join("; "))?;
    let graph = Graph { plan: Arc::new(plan), nodes, ..now.clone() };
    let keeps = |part: &NodePart| matches!(part, NodePart::Stage(factory) if !factory.descriptor().spaces.is_empty());
    let mut opens = graph.plan.nodes.iter().zip(&graph.nodes).filter(|(node, _)| exchange.opened.contains(&node.name));
    if graph.states.files.is_some()
        && let Some((node, _)) = opens.find(|(_, part)| keeps(part))
    {
        return Err(format!("stage `{}` keeps its state on disk", node.name));
    }
    site.metrics.forget_opened();
    let opened = Opened {
        old: now.plan,
        graph,
        exchange,
        nodes: HashMap::new(),
        sources: HashMap::new(),
        orders: HashMap::new(),
    };
    in_turn(now.account, opened.open(&site.metrics)).await.map_err(|error| {
        site.metrics.forget_opened();
        let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        let said = error.to_string();
        if said.ends_with(cause.trim_start_matches(": ")) { said } else { format!("{said}{cause}") }
    })
}

impl Opened {
    async fn open(mut self, metrics: &JobMetrics) -> Result<Self, JobError> {
        let Self { graph, exchange, nodes, sources, orders, .. } = &mut self;
        let (mut dealt, mut locations) = (Dealt::default(), Vec::new());
        for (place, node) in
            graph.plan.nodes.iter().enumerate().filter(|(_, node)| exchange.opened.contains(&node.name))
        {
            let chain = &graph.plan.chains[node.chain];
            let partitions = match &graph.nodes[place] {
                NodePart::Source(source) => {
                    let listed = source.partitions().await;
                    listed.map_err(|cause| JobError::Source { node: node.name.clone(), cause })?
                }
                NodePart::Stage(_) | NodePart::Sink(_) => Vec::new(),
            };
            for index in 0..chain.parallelism {
                let (part, share) = ((node.name.clone(), index), Share { index, of: chain.parallelism });
                let epoch = Epoch::default();
                let kind = wiring::open_node(graph, epoch, &mut dealt, place, share, metrics, &mut locations).await?;
                if matches!(kind, SlotKind::Source) {
                    let mine = partitions.iter().skip(usize::from(index)).step_by(usize::from(chain.parallelism));
                    let mine = mine.cloned().collect();
                    let source = wiring::open_source(graph, &mut dealt, place, mine, metrics, &mut locations).await?;
                    sources.insert(part.clone(), source);
                }
                orders.insert(part.clone(), wiring::open_orders(graph, &mut dealt, place, share)?);
                nodes.insert(part, kind);
            }
        }
        for (node, location) in locations {
            tracing::info!(node = node.as_str(), "opened at {location}");
        }
        Ok(self)
    }
}

/// A graph that is to take the place of the one that runs, and who waits to hear what came of it.
pub(crate) struct ExchangeWish {
    pub(crate) opened: Opened,
    pub(crate) behind: Box<dyn FnOnce(Epoch) + Send>,
    pub(crate) done: oneshot::Sender<Result<Swapped, SwapError>>,
}

impl std::fmt::Debug for ExchangeWish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExchangeWish").field("exchange", &self.opened.exchange).finish_non_exhaustive()
    }
}

/// The exchange that is under way.
pub(crate) struct Exchanging {
    /// Until it is made.
    wish: Option<Box<ExchangeWish>>,
    done: Option<oneshot::Sender<Result<Swapped, SwapError>>>,
    phase: Phase,
}

enum Phase {
    /// Until the next barrier.
    Wanted,
    /// Tasks that have not parked yet, those that have, and since when one waits.
    Parking { epoch: Epoch, waiting: BTreeSet<usize>, parked: Vec<Task>, since: Option<u64>, durable: bool },
    /// Until an epoch of the new graph is durable.
    Made(Swapped),
}

/// Tasks of the new graph, and what became of those of the old one.
pub(crate) struct Made {
    /// Tasks that are no more.
    pub(crate) gone: BTreeSet<usize>,
    pub(crate) tasks: Vec<(Task, TaskLink)>,
    /// New tasks whose source has nothing left to read.
    pub(crate) exhausted: BTreeSet<usize>,
}

impl Exchanging {
    pub(crate) fn new(wish: Box<ExchangeWish>) -> Self {
        Self { wish: Some(wish), done: None, phase: Phase::Wanted }
    }

    /// Barrier `epoch` is about to be injected: which of the tasks, by the node that they begin with, are to park.
    pub(crate) fn begin<'a>(
        &mut self,
        epoch: Epoch,
        links: impl Iterator<Item = (usize, &'a NodeName)>,
    ) -> Option<BTreeSet<usize>> {
        let (Phase::Wanted, Some(wish)) = (&self.phase, &self.wish) else { return None };
        let Opened { old, exchange, .. } = &wish.opened;
        let goes_on = |head: &NodeName| {
            let place = old.place(head);
            place.is_some_and(|place| exchange.go_on.contains(&old.nodes[place].chain))
        };
        let parking: BTreeSet<usize> = links.filter(|(_, head)| !goes_on(head)).map(|(task, _)| task).collect();
        self.phase =
            Phase::Parking { epoch, waiting: parking.clone(), parked: Vec::new(), since: None, durable: false };
        Some(parking)
    }

    /// Whether tasks stand just now: no barrier may come in between.
    pub(crate) fn holds_barriers(&self) -> bool {
        matches!(self.phase, Phase::Parking { .. })
    }

    /// A task stands behind the barrier.
    pub(crate) fn park(&mut self, task: Task, now_nanos: u64) {
        if let Phase::Parking { waiting, parked, since, .. } = &mut self.phase {
            waiting.remove(&task.id);
            since.get_or_insert(now_nanos);
            parked.push(task);
        }
    }

    /// An epoch is durable. `true` where that ends the exchange.
    pub(crate) fn committed(&mut self, durable: Epoch) -> bool {
        match &mut self.phase {
            Phase::Wanted => false,
            Phase::Parking { epoch, durable: is_durable, .. } => {
                *is_durable |= durable == *epoch;
                false
            }
            Phase::Made(swapped) => durable > swapped.epoch,
        }
    }

    /// Makes the tasks of the new graph, once every task has parked and their epoch is durable.
    pub(crate) async fn make(
        &mut self,
        site: &Site,
        reports: &mpsc::WeakSender<Report>,
        next_id: usize,
        now_nanos: impl Fn() -> u64,
    ) -> Result<Option<Made>, JobError> {
        let Phase::Parking { epoch, waiting, parked, since, durable: true } = &mut self.phase else { return Ok(None) };
        let (true, Some(reports)) = (waiting.is_empty(), reports.upgrade()) else { return Ok(None) };
        let (epoch, since, mut parked) = (*epoch, *since, std::mem::take(parked));
        let Some(wish) = self.wish.take() else { return Ok(None) };
        let ExchangeWish { opened, behind, done } = *wish;
        for task in &mut parked {
            task.settle(epoch, &opened.exchange.gone).await?;
        }
        let gone = parked.iter().map(|task| task.id).collect();
        let graph = opened.graph.clone();
        let tasks = make(opened, parked, epoch, next_id, &site.metrics, &reports);
        site.set(graph);
        behind(epoch);
        let ended = |(task, _): &&(Task, TaskLink)| matches!(&task.head, Head::Source(source) if source.has_ended());
        let exhausted = tasks.iter().filter(ended).map(|(task, _)| task.id).collect();
        let now = now_nanos();
        let pause = Duration::from_nanos(now.saturating_sub(since.unwrap_or(now)));
        self.done = Some(done);
        self.phase = Phase::Made(Swapped { epoch, pause });
        Ok(Some(Made { gone, tasks, exhausted }))
    }

    /// Tells who waits. Nobody may.
    pub(crate) fn end(self, durable: Epoch, failed: Option<&JobError>) {
        let outcome = match (&self.phase, failed) {
            (Phase::Made(swapped), _) if durable > swapped.epoch => Ok(*swapped),
            (_, Some(error)) => Err(SwapError::Refused { reason: format!("the job failed meanwhile: {error}") }),
            _ => Err(SwapError::Ending),
        };
        if let Some(done) = self.done.or_else(|| self.wish.map(|wish| wish.done)) {
            let _unheard = done.send(outcome);
        }
    }

    /// It cannot be.
    pub(crate) fn refuse(self, error: SwapError) {
        if let Some(wish) = self.wish {
            let _unheard = wish.done.send(Err(error));
        }
    }

    /// Whether a graph is the one that this began with.
    pub(crate) fn fits(&self, site: &Site) -> bool {
        self.wish.as_ref().is_some_and(|wish| Arc::ptr_eq(&wish.opened.old, &site.graph().plan))
    }
}

/// What parked tasks hold, by node and share.
#[derive(Default)]
struct Held {
    slots: HashMap<Part, (Slot, Vec<Output>)>,
    sources: HashMap<Part, Box<SourceHead>>,
    inputs: HashMap<Part, Inputs>,
    orders: HashMap<Part, Orders>,
    watermarks: HashMap<Part, Timestamp>,
}

impl Held {
    fn new(parked: Vec<Task>) -> Self {
        let mut held = Self::default();
        for Task { chain, head, .. } in parked {
            let share = chain.share().index;
            let ChainParts { nodes, orders, watermark } = chain.into_parts();
            let first = (nodes[0].0.name.clone(), share);
            match head {
                Head::Source(source) => drop(held.sources.insert(first.clone(), source)),
                Head::Inputs(inputs) => drop(held.inputs.insert(first.clone(), inputs)),
            }
            held.orders.insert(first, orders);
            for (slot, outputs) in nodes {
                let part = (slot.name.clone(), share);
                held.watermarks.insert(part.clone(), watermark);
                held.slots.insert(part, (slot, outputs));
            }
        }
        held
    }

    /// Deals what the tasks of a stage keep to those that are opened in their place.
    fn rescale(&mut self, stage: &NodeName, shares: u16, opened: &mut HashMap<Part, SlotKind>) {
        let mut all: Vec<_> = self.slots.extract_if(|(node, _), _| node == stage).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (_, (slot, _)) in all {
            let SlotKind::Operator(mut operator) = slot.kind else { continue };
            for (group, given) in operator.give_all().unwrap_or_default() {
                let target = opened.get_mut(&(stage.clone(), share_of(group, shares)));
                if let Some(SlotKind::Operator(target)) = target
                    && !given.is_empty()
                {
                    target.take(given);
                }
            }
        }
    }
}

/// Makes tasks of what is open and of what parked tasks hold.
fn make(
    opened: Opened,
    parked: Vec<Task>,
    epoch: Epoch,
    next_id: usize,
    metrics: &Arc<JobMetrics>,
    reports: &mpsc::Sender<Report>,
) -> Vec<(Task, TaskLink)> {
    let Opened { old, graph, exchange, mut nodes, mut sources, mut orders } = opened;
    let mut held = Held::new(parked);
    for stage in &exchange.rescaled {
        let place = graph.plan.place(stage);
        let shares = place.map_or(1, |place| graph.plan.chains[graph.plan.nodes[place].chain].parallelism);
        held.rescale(stage, shares, &mut nodes);
    }
    let is_new = |chain| exchange.made.get(&chain) == Some(&None);
    let (mut senders, mut receivers) = wiring::queues(&graph.plan, is_new);
    let mut tasks = Vec::new();
    for &place in exchange.made.keys() {
        let chain = &graph.plan.chains[place];
        for index in 0..chain.parallelism {
            let first: Part = (graph.plan.nodes[chain.nodes[0]].name.clone(), index);
            let (mut slots, mut watermark) = (Vec::new(), None);
            for &node in &chain.nodes {
                let part: Part = (graph.plan.nodes[node].name.clone(), index);
                let before = old.place(&part.0);
                let (slot, mut kept) = match held.slots.remove(&part) {
                    Some((slot, outputs)) => (slot, outputs.into_iter().map(Some).collect()),
                    None => {
                        let kind = nodes.remove(&part).expect("what both graphs have not is open");
                        (Slot { metrics: metrics.node(&part.0), name: part.0.clone(), kind }, Vec::new())
                    }
                };
                watermark = watermark.max(held.watermarks.get(&part).copied());
                // Behind the edges of the plan are the ways to sources that have the watermarks of this one.
                let edges: Vec<usize> =
                    before.map(|before| old.outputs(before).map(|(edge, _)| edge).collect()).unwrap_or_default();
                let mut outputs = Vec::new();
                for (edge, planned) in graph.plan.outputs(node) {
                    let target = graph.plan.nodes[planned.to].chain;
                    if target == place || is_new(target) {
                        let senders = senders.remove(&(edge, index));
                        outputs.push(wiring::output(&graph, planned, senders, metrics));
                        continue;
                    }
                    let same = |old_edge: &usize| is_same_edge((&old, *old_edge), (&graph.plan, edge));
                    let found = edges.iter().zip(&mut kept).find(|(edge, output)| same(edge) && output.is_some());
                    let kept = found.and_then(|(_, output)| output.take());
                    outputs.push(kept.expect("a queue is kept where its edges are"));
                }
                let marks = kept.into_iter().skip(edges.len()).flatten();
                outputs.extend(marks.filter(|output| matches!(output.target, Target::Marks(_))));
                slots.push((slot, outputs));
            }
            let head = match receivers.remove(&(place, index)) {
                Some((queue, feeds)) => Head::Inputs(wiring::inputs_of(queue, feeds, epoch)),
                None => match (held.inputs.remove(&first), held.sources.remove(&first)) {
                    (Some(inputs), _) => Head::Inputs(inputs),
                    (None, Some(source)) => Head::Source(source),
                    (None, None) => Head::Source(Box::new(sources.remove(&first).expect("a source is open"))),
                },
            };
            let buffers = held.orders.remove(&first).or_else(|| orders.remove(&first)).unwrap_or_default();
            let share = Share { index, of: chain.parallelism };
            let chain = Chain::new(slots, share, Arc::clone(&graph.clock), Arc::clone(metrics));
            let chain = chain.with_orders(buffers).with_watermark(watermark.unwrap_or(Timestamp::MIN));
            let id = next_id + tasks.len();
            let (mut task, link) = wiring::join(&graph, id, place, chain, head, reports);
            task.resumed = true;
            tasks.push((task, link));
        }
    }
    tasks
}
