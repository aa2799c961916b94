//! From a plan to tasks with queues between them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::mpsc;
use wasmill_contract::{OperatorContext, Share, SinkHandle, SourcePartition, pane_entry, timer_entry, window_progress};
use wasmill_env::Clock;
use wasmill_model::{Epoch, NodeName, PartitionId, Position};
use wasmill_order::{Alignment, InputWatermarks, OrderError, Timers, Windows};
use wasmill_plan::{Edge, NodeKind, Plan, Routing, Watermarks};
use wasmill_store::{HeldRecord, PositionRecord, Recovered, RecoveredStage, SinkRecord, StageStates};
use wasmill_tenancy::Account;

use crate::batching::AdaptiveBatch;
use crate::chain::{Chain, Orders, Output, Slot, SlotKind, Target};
use crate::convoy::{LaneMerge, LaneOutput, Splitter};
use crate::coordinator::TaskLink;
use crate::error::JobError;
use crate::faults::Plugin;
use crate::job::{JobSettings, NodePart};
use crate::marks::Marks;
use crate::metrics::JobMetrics;
use crate::operator_slot::OperatorSlot;
use crate::ordering::{self, NotRestored, OrderSlot};
use crate::pace;
use crate::queue::{QueueReceiver, QueueSender, queue};
use crate::replay::{Replay, Replays};
use crate::sink_slot::SinkSlot;
use crate::source_head::SourceHead;
use crate::spill::Spill;
use crate::task::{Head, Inputs, Order, Report, Task};
use crate::window_slot::WindowSlot;

/// Orders that wait for a task. At most one barrier and one commit are ever on their way.
const ORDERS_MAX: usize = 8;
/// An output port by which nothing leaves but watermarks and barriers.
const NO_ROWS: u16 = u16::MAX;
/// Reports that wait for the coordinator.
const REPORTS_MAX: usize = 256;

/// What runs, and with what.
#[derive(Clone)]
pub(crate) struct Graph {
    pub(crate) plan: Arc<Plan>,
    /// One part for each node of the plan, of its kind.
    pub(crate) nodes: Vec<NodePart>,
    pub(crate) states: StageStates,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: JobSettings,
    pub(crate) account: Option<Arc<Account>>,
}

/// Tasks, ready to run, and their links to the coordinator.
pub(crate) struct Wired {
    pub(crate) tasks: Vec<Task>,
    pub(crate) links: Vec<TaskLink>,
    pub(crate) reports: mpsc::Receiver<Report>,
    /// For tasks to come. The tasks that run keep the channel open.
    pub(crate) report: mpsc::WeakSender<Report>,
    pub(crate) locations: Vec<(NodeName, String)>,
}

/// The sending ends of an edge, by (edge, sending task).
pub(crate) type Senders = HashMap<(usize, u16), Vec<QueueSender>>;
/// The receiving end of each task with its inputs, by (chain, task).
pub(crate) type Receivers = HashMap<(usize, u16), (QueueReceiver, Feeds)>;

/// The senders of watermarks to other sources, by source.
type MarkSenders = BTreeMap<usize, Vec<QueueSender>>;
/// Where those come in, by source and task.
type MarkReceivers = BTreeMap<(usize, u16), Marks>;

/// Who feeds the inputs of a task.
#[derive(Default)]
pub(crate) struct Feeds {
    /// By sender: its input, and where that is a convoy, its lane.
    of_sender: Vec<(usize, Option<usize>)>,
    inputs: Vec<Feed>,
}

/// Who feeds an input.
struct Feed {
    /// The input port of the first node that it leads to.
    port: u16,
    /// Where it is a convoy, how many lanes that has.
    lanes: Option<usize>,
    /// The node, and which of its tasks; all of a convoy are one.
    from: (NodeName, Option<u16>),
}

/// What a job goes on from, dealt to its tasks.
#[derive(Default)]
pub(crate) struct Dealt {
    positions: BTreeMap<(NodeName, PartitionId), Position>,
    /// By stage and share.
    stages: HashMap<(NodeName, u16), RecoveredStage>,
    /// What ordering buffers held, by stage and share.
    held: HashMap<(NodeName, u16), Vec<HeldRecord>>,
    /// By sink and share.
    sinks: HashMap<(NodeName, u16), SinkHandle>,
    replays: Replays,
}

impl Dealt {
    fn new(recovered: Recovered, plan: &Plan) -> Result<Self, JobError> {
        let parallelism = |name: &NodeName| {
            let node = plan.nodes.iter().find(|node| node.name == *name)?;
            Some(plan.chains[node.chain].parallelism)
        };
        let mut dealt = Self::default();
        for PositionRecord { node, partition, position } in recovered.positions {
            dealt.positions.insert((node, partition), position);
        }
        dealt.replays = Replays::new(recovered.replays, parallelism);
        for (node, stage) in recovered.stages {
            let Some(shares) = parallelism(&node) else { continue };
            let split = stage.split(&node, shares).map_err(|cause| JobError::Deal { node: node.clone(), cause })?;
            for (share, mut part) in (0..shares).zip(split) {
                dealt.held.insert((node.clone(), share), std::mem::take(&mut part.held));
                dealt.stages.insert((node.clone(), share), part);
            }
        }
        for SinkRecord { node, share, shares: stored, handle } in recovered.sinks {
            let Some(shares) = parallelism(&node) else { continue };
            if shares != stored {
                return Err(JobError::SinkShares { node, shares, stored });
            }
            dealt.sinks.insert((node, share), SinkHandle(handle));
        }
        Ok(dealt)
    }
}

/// Opens everything and joins it.
pub(crate) async fn wire(graph: &Graph, recovered: Recovered, metrics: &Arc<JobMetrics>) -> Result<Wired, JobError> {
    let epoch = recovered.epoch;
    let mut dealt = Dealt::new(recovered, &graph.plan)?;
    let (mut senders, mut receivers) = queues(&graph.plan, |_| true);
    let mut pacers = pace::pacers(&graph.plan);
    let (mut mark_senders, mut marks) = marks(&graph.plan);
    let (report, reports) = mpsc::channel(REPORTS_MAX);
    let weak = report.downgrade();
    let mut wired = Wired { tasks: Vec::new(), links: Vec::new(), reports, report: weak, locations: Vec::new() };
    for (place, chain) in graph.plan.chains.iter().enumerate() {
        let partitions = match &graph.nodes[chain.nodes[0]] {
            NodePart::Source(source) => {
                let node = &graph.plan.nodes[chain.nodes[0]].name;
                let listed = source.partitions().await;
                listed.map_err(|cause| JobError::Source { node: node.clone(), cause })?
            }
            NodePart::Stage(_) | NodePart::Sink(_) => Vec::new(),
        };
        for index in 0..chain.parallelism {
            let share = Share { index, of: chain.parallelism };
            let mut slots = Vec::with_capacity(chain.nodes.len());
            let mut replays = Vec::new();
            for (slot, &node) in chain.nodes.iter().enumerate() {
                replays.extend(replays_of(graph, &mut dealt, node, share, slot));
                let kind = open_node(graph, epoch, &mut dealt, node, share, metrics, &mut wired.locations).await?;
                let outputs = graph.plan.outputs(node);
                let outputs =
                    outputs.map(|(place, edge)| output(graph, edge, senders.remove(&(place, index)), metrics));
                let outputs: Vec<_> = outputs.collect();
                let name = graph.plan.nodes[node].name.clone();
                slots.push((Slot { metrics: metrics.node(&name), name, kind }, outputs));
            }
            let buffers = open_orders(graph, &mut dealt, chain.nodes[0], share)?;
            let head = match receivers.remove(&(place, index)) {
                Some((queue, feeds)) => Head::Inputs(inputs_of(queue, feeds, epoch)),
                None => {
                    let mine = partitions.iter().skip(usize::from(index)).step_by(usize::from(chain.parallelism));
                    let mine: Vec<_> = mine.cloned().collect();
                    let (place, locations) = (chain.nodes[0], &mut wired.locations);
                    let source = open_source(graph, &mut dealt, place, mine, metrics, locations).await?;
                    let (pace, marks) = (pacers.remove(&(place, index)), marks.remove(&(place, index)));
                    if let Some((_, outputs)) = slots.first_mut() {
                        let readers = mark_senders.remove(&place).map(Target::Marks);
                        outputs.extend(readers.map(|target| Output { port: NO_ROWS, key: None, target }));
                    }
                    Head::Source(Box::new(source.with_pace(pace).with_marks(marks)))
                }
            };
            let chain = Chain::new(slots, share, Arc::clone(&graph.clock), Arc::clone(metrics)).with_orders(buffers);
            let (mut task, link) = join(graph, wired.tasks.len(), place, chain, head, &report);
            task.replays = replays;
            wired.links.push(link);
            wired.tasks.push(task);
        }
    }
    Ok(wired)
}

/// A task of a chain, and its link to the coordinator.
pub(crate) fn join(
    graph: &Graph,
    id: usize,
    place: usize,
    chain: Chain,
    head: Head,
    reports: &mpsc::Sender<Report>,
) -> (Task, TaskLink) {
    let (orders, receive_orders) = mpsc::channel::<Order>(ORDERS_MAX);
    let nodes = &graph.plan.chains[place].nodes;
    let nodes: Vec<NodeName> = nodes.iter().map(|&node| graph.plan.nodes[node].name.clone()).collect();
    let is_source = matches!(head, Head::Source(_));
    let link = TaskLink { head: nodes[0].clone(), nodes, share: chain.share().index, orders, is_source };
    let task = Task {
        id,
        chain: chain.with_account(graph.account.clone()),
        head,
        orders: receive_orders,
        reports: reports.clone(),
        clock: Arc::clone(&graph.clock),
        epoch_wanted: false,
        replays: Vec::new(),
        offer: None,
        parks: false,
        resumed: false,
        ended: false,
    };
    (task, link)
}

/// Inputs of which nothing is known yet.
pub(crate) fn inputs_of(queue: QueueReceiver, Feeds { of_sender, inputs }: Feeds, epoch: Epoch) -> Inputs {
    Inputs {
        alignment: Alignment::new(inputs.len(), epoch),
        watermarks: InputWatermarks::new(inputs.len()),
        aside: inputs.iter().map(|_| Default::default()).collect(),
        queue,
        feeds: of_sender,
        merges: inputs.iter().map(|feed| feed.lanes.map(LaneMerge::new)).collect(),
        ports: inputs.iter().map(|feed| feed.port).collect(),
        from: inputs.into_iter().map(|feed| feed.from).collect(),
    }
}

/// The ordering buffers in front of a node, with what they held.
pub(crate) fn open_orders(graph: &Graph, dealt: &mut Dealt, node: usize, share: Share) -> Result<Orders, JobError> {
    let name = &graph.plan.nodes[node].name;
    let mut held = dealt.held.remove(&(name.clone(), share.index)).unwrap_or_default();
    let stored = |reason| JobError::Order { node: name.clone(), cause: OrderError::Stored { reason } };
    let no_spill = |cause| JobError::Spill { node: name.clone(), cause };
    let mut orders = Orders::default();
    let (wall, now) = (graph.clock.wall(), graph.clock.monotonic_nanos());
    for (&(_, port), spec) in graph.plan.orders.range((node, 0)..=(node, u16::MAX)) {
        let mut spill = None;
        if let Some(bytes_max) = spec.spill {
            let Some((disk, dir)) = &graph.states.spill else { return Err(JobError::NoSpill { node: name.clone() }) };
            let files = format!("{name}.{port}.{}", share.index);
            spill = Some(Spill::open(Arc::clone(disk), dir, files, bytes_max.bytes()).map_err(no_spill)?);
        }
        let mut order = OrderSlot::new(name.clone(), port, spec, spill, graph.account.as_deref());
        let (mine, others) = held.into_iter().partition(|record| record.port == port);
        held = others;
        order.restore(mine, share, wall, now).map_err(|error| match error {
            NotRestored::Damaged(reason) => stored(reason),
            NotRestored::Spill(cause) => no_spill(cause),
        })?;
        orders.slots.push(order);
    }
    orders.partly =
        graph.plan.inputs(node).any(|(_, edge)| orders.slots.iter().all(|order| order.port() != edge.input));
    if held.iter().any(|record| record.name.first() == Some(&ordering::ROW)) {
        return Err(stored("its ordering buffer holds rows, and the job file has no such buffer any more"));
    }
    Ok(orders)
}

/// Dead letters of one share of a node that are to be processed again. What a source could not make
/// into events it may be able to now: the job file may say something else.
fn replays_of(graph: &Graph, dealt: &mut Dealt, node: usize, share: Share, slot: usize) -> Vec<Replay> {
    let planned = &graph.plan.nodes[node];
    let mut replays = dealt.replays.take(&planned.name, share.index, slot);
    if let NodeKind::Source { extraction, .. } = &planned.kind {
        for replay in &mut replays {
            replay.extract(extraction);
        }
    }
    replays
}

/// Edges into the first node of a chain: the inputs of its tasks.
fn incoming(plan: &Plan, chain: usize) -> Vec<(usize, &Edge)> {
    plan.inputs(plan.chains[chain].nodes[0]).collect()
}

/// The queues of the chains that `wanted` says.
pub(crate) fn queues(plan: &Plan, wanted: impl Fn(usize) -> bool) -> (Senders, Receivers) {
    let (mut all_senders, mut receivers) = (Senders::new(), Receivers::new());
    for (place, chain) in plan.chains.iter().enumerate() {
        let edges = incoming(plan, place);
        if edges.is_empty() || !wanted(place) {
            continue;
        }
        for task in 0..chain.parallelism {
            let (mut inputs, mut feeds) = (Vec::new(), Feeds::default());
            for (edge_place, edge) in &edges {
                let upstream = plan.chains[plan.nodes[edge.from].chain].parallelism;
                let from = match edge.routing {
                    Routing::Forward => task..task + 1,
                    Routing::Keyed | Routing::Local | Routing::Split | Routing::Merged => 0..upstream,
                };
                let merged = edge.routing == Routing::Merged;
                for from in from {
                    let lane = merged.then_some(usize::from(from));
                    if lane.is_none_or(|lane| lane == 0) {
                        let sender = plan.nodes[edge.from].name.clone();
                        feeds.inputs.push(Feed {
                            port: edge.input,
                            lanes: merged.then_some(usize::from(upstream)),
                            from: (sender, (!merged).then_some(from)),
                        });
                    }
                    feeds.of_sender.push((feeds.inputs.len() - 1, lane));
                    inputs.push((*edge_place, from));
                }
            }
            let (senders, receiver) = queue(inputs.len());
            for ((edge, from), sender) in inputs.into_iter().zip(senders) {
                all_senders.entry((edge, from)).or_default().push(sender);
            }
            receivers.insert((place, task), (receiver, feeds));
        }
    }
    (all_senders, receivers)
}

/// The ways of watermarks from sources to those that have them: the senders by source, which has one
/// task, and what comes in by source and task.
fn marks(plan: &Plan) -> (MarkSenders, MarkReceivers) {
    let (mut all_senders, mut marks) = (BTreeMap::<usize, Vec<_>>::new(), BTreeMap::new());
    for (place, node) in plan.nodes.iter().enumerate() {
        let NodeKind::Source { watermarks: Watermarks { from: Some(from), .. }, .. } = &node.kind else { continue };
        let Some(other) = plan.nodes.iter().position(|node| node.name == *from) else { continue };
        for task in 0..plan.chains[node.chain].parallelism {
            let (senders, receiver) = queue(1);
            all_senders.entry(other).or_default().extend(senders);
            marks.insert((place, task), Marks::new(from.clone(), receiver));
        }
    }
    (all_senders, marks)
}

/// Opens what runs at a node.
pub(crate) async fn open_node(
    graph: &Graph,
    epoch: Epoch,
    dealt: &mut Dealt,
    node: usize,
    share: Share,
    metrics: &JobMetrics,
    locations: &mut Vec<(NodeName, String)>,
) -> Result<SlotKind, JobError> {
    let planned = &graph.plan.nodes[node];
    let name = planned.name.clone();
    Ok(match (&graph.nodes[node], &planned.kind) {
        (NodePart::Source(_), _) => SlotKind::Source,
        (NodePart::Stage(factory), NodeKind::Stage { window, faults }) => {
            let held = dealt.stages.remove(&(name.clone(), share.index)).unwrap_or_default();
            let spaces = &factory.descriptor().spaces;
            let state = graph.states.open(&name, (share.index, share.of), epoch, spaces, held.state);
            let mut context = OperatorContext::new(name.clone(), share, state);
            context.account.clone_from(&graph.account);
            let (clock, metrics) = (Arc::clone(&graph.clock), metrics.node(&planned.name));
            let plugin = Plugin::new(name.clone(), Arc::clone(factory), *faults, clock, metrics);
            match window {
                Some(spec) => {
                    let aggregate = plugin.open_aggregate(context).await?;
                    let windows = Windows::new(*spec);
                    let order = |cause| JobError::Order { node: name.clone(), cause };
                    let mut windows = windows.map_err(order)?;
                    if let Some(&(.., progress)) = held.progress.first() {
                        let panes = held.panes.into_iter().map(pane_entry);
                        windows.load(window_progress(progress), panes.collect()).map_err(order)?;
                    }
                    let accumulators_max = graph.settings.accumulators_max;
                    SlotKind::Window(WindowSlot::new(plugin, aggregate, windows, accumulators_max))
                }
                None => {
                    let operator = plugin.open(context).await?;
                    let mut timers = Timers::default();
                    timers.load(held.timers.into_iter().map(timer_entry));
                    let mut slot = OperatorSlot::new(plugin, operator, timers);
                    let migrations = graph.states.migrations.get(&name).map(Vec::as_slice);
                    slot.migrate(migrations.unwrap_or_default()).await?;
                    SlotKind::Operator(slot)
                }
            }
        }
        (NodePart::Sink(factory), _) => {
            let handle = dealt.sinks.remove(&(name.clone(), share.index));
            let slot = SinkSlot::open(name.clone(), &**factory, graph.settings.delivery, share, handle, &graph.clock);
            let slot = slot.await?;
            metrics.node(&name).opened();
            locations.extend(slot.location().map(|location| (name.clone(), location)));
            SlotKind::Sink(slot)
        }
        (NodePart::Stage(_), _) => panic!("node {name} of the plan is no stage"),
    })
}

/// An edge that leaves a node. `senders` are the queues that it leads to, where it leaves the task.
pub(crate) fn output(graph: &Graph, edge: &Edge, senders: Option<Vec<QueueSender>>, metrics: &JobMetrics) -> Output {
    let plan = &*graph.plan;
    let chain_of = |node: usize| &plan.chains[plan.nodes[node].chain];
    let target = match chain_of(edge.from).nodes.iter().position(|&other| other == edge.to) {
        Some(slot) if matches!(edge.routing, Routing::Local) => Target::Local { slot, port: edge.input },
        _ => {
            let tasks = senders.unwrap_or_default();
            match (edge.routing, &chain_of(edge.to).convoy) {
                (Routing::Split, Some(convoy)) => {
                    let moves = graph.states.files.is_none();
                    let metrics = metrics.node(&plan.nodes[edge.to].name);
                    Target::Lanes(Box::new(Splitter::new(tasks, convoy, moves, metrics)))
                }
                _ if edge.routing == Routing::Merged => Target::FromLane(LaneOutput::new(tasks)),
                _ => Target::Tasks(tasks),
            }
        }
    };
    Output { port: edge.output, key: edge.key.clone(), target }
}

pub(crate) async fn open_source(
    graph: &Graph,
    dealt: &mut Dealt,
    node: usize,
    partitions: Vec<SourcePartition>,
    metrics: &JobMetrics,
    locations: &mut Vec<(NodeName, String)>,
) -> Result<SourceHead, JobError> {
    let planned = &graph.plan.nodes[node];
    let (NodePart::Source(factory), NodeKind::Source { extraction, watermarks }) = (&graph.nodes[node], &planned.kind)
    else {
        panic!("node {} of the plan is no source", planned.name)
    };
    let mut position = |id| dealt.positions.remove(&(planned.name.clone(), id));
    let assigned = partitions.iter().map(|partition| (partition.id, position(partition.id))).collect();
    let opened = factory.open(assigned, Arc::clone(&graph.clock)).await;
    let source = opened.map_err(|cause| JobError::Source { node: planned.name.clone(), cause })?;
    locations.extend(source.location().map(|location| (planned.name.clone(), location)));
    let node_metrics = metrics.node(&planned.name);
    node_metrics.opened();
    node_metrics.to_read(partitions.iter().filter_map(|partition| partition.size).sum());
    let goal = u64::try_from(graph.settings.latency_goal.as_nanos()).unwrap_or(u64::MAX);
    Ok(SourceHead::new(
        planned.name.clone(),
        source,
        extraction.clone(),
        watermarks.clone(),
        partitions.into_iter().map(|partition| (partition.id, partition.name)).collect(),
        AdaptiveBatch::new(goal),
        graph.settings.epoch_bytes,
        Arc::clone(&graph.clock),
        node_metrics,
    ))
}
