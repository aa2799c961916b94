//! From a plan to tasks with queues between them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::mpsc;
use wasmill_contract::{OperatorContext, Share, SinkHandle, SourcePartition, pane_entry, timer_entry, window_progress};
use wasmill_model::{Epoch, NodeName, PartitionId, Position};
use wasmill_order::{Alignment, InputWatermarks, OrderError, Timers, Windows};
use wasmill_plan::{Edge, NodeKind, Plan, Routing, Watermarks};
use wasmill_store::{HeldRecord, PositionRecord, Recovered, RecoveredStage, SinkRecord};

use crate::batching::AdaptiveBatch;
use crate::chain::{Chain, Orders, Output, Slot, SlotKind, Target};
use crate::convoy::{LaneMerge, LaneOutput, Splitter};
use crate::coordinator::TaskLink;
use crate::error::JobError;
use crate::faults::Plugin;
use crate::job::{JobParts, NodePart};
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

/// Tasks, ready to run, and their links to the coordinator.
pub(crate) struct Wired {
    pub(crate) tasks: Vec<Task>,
    pub(crate) links: Vec<TaskLink>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) locations: Vec<(NodeName, String)>,
}

/// The sending ends of an edge, by (edge, sending task).
type Senders = HashMap<(usize, u16), Vec<QueueSender>>;
/// The receiving end of each task with its inputs, by (chain, task).
type Receivers = HashMap<(usize, u16), (QueueReceiver, Feeds)>;

/// The senders of watermarks to other sources, by source.
type MarkSenders = BTreeMap<usize, Vec<QueueSender>>;
/// Where those come in, by source and task.
type MarkReceivers = BTreeMap<(usize, u16), Marks>;

/// Who feeds the inputs of a task.
#[derive(Default)]
struct Feeds {
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
struct Dealt {
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
pub(crate) async fn wire(parts: &mut JobParts, metrics: &Arc<JobMetrics>) -> Result<Wired, JobError> {
    let epoch = parts.recovered.epoch;
    let mut dealt = Dealt::new(std::mem::take(&mut parts.recovered), &parts.plan)?;
    let parts = &*parts;
    let (mut senders, mut receivers) = queues(&parts.plan);
    let mut pacers = pace::pacers(&parts.plan);
    let (mut mark_senders, mut marks) = marks(&parts.plan);
    let (report, reports) = mpsc::channel(REPORTS_MAX);
    let mut wired = Wired { tasks: Vec::new(), links: Vec::new(), reports, locations: Vec::new() };
    for (place, chain) in parts.plan.chains.iter().enumerate() {
        let partitions = match &parts.nodes[chain.nodes[0]] {
            NodePart::Source(source) => {
                let node = &parts.plan.nodes[chain.nodes[0]].name;
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
                replays.extend(replays_of(parts, &mut dealt, node, share, slot));
                slots.push(
                    open_slot(
                        parts,
                        epoch,
                        &mut dealt,
                        node,
                        share,
                        &chain.nodes,
                        &mut senders,
                        metrics,
                        &mut wired.locations,
                    )
                    .await?,
                );
            }
            let buffers = open_orders(parts, &mut dealt, chain.nodes[0], share)?;
            let head = match receivers.remove(&(place, index)) {
                Some((queue, Feeds { of_sender, inputs })) => Head::Inputs(Inputs {
                    alignment: Alignment::new(inputs.len(), epoch),
                    watermarks: InputWatermarks::new(inputs.len()),
                    aside: inputs.iter().map(|_| Default::default()).collect(),
                    queue,
                    feeds: of_sender,
                    merges: inputs.iter().map(|feed| feed.lanes.map(LaneMerge::new)).collect(),
                    ports: inputs.iter().map(|feed| feed.port).collect(),
                    from: inputs.into_iter().map(|feed| feed.from).collect(),
                }),
                None => {
                    let mine = partitions.iter().skip(usize::from(index)).step_by(usize::from(chain.parallelism));
                    let mine: Vec<_> = mine.cloned().collect();
                    let (place, locations) = (chain.nodes[0], &mut wired.locations);
                    let source = open_source(parts, &mut dealt, place, mine, metrics, locations).await?;
                    let (pace, marks) = (pacers.remove(&(place, index)), marks.remove(&(place, index)));
                    if let Some((_, outputs)) = slots.first_mut() {
                        let readers = mark_senders.remove(&place).map(Target::Marks);
                        outputs.extend(readers.map(|target| Output { port: NO_ROWS, key: None, target }));
                    }
                    Head::Source(Box::new(source.with_pace(pace).with_marks(marks)))
                }
            };
            let (orders, receive_orders) = mpsc::channel::<Order>(ORDERS_MAX);
            let name = parts.plan.nodes[chain.nodes[0]].name.clone();
            let nodes = chain.nodes.iter().map(|&node| parts.plan.nodes[node].name.clone()).collect();
            let is_source = matches!(head, Head::Source(_));
            wired.links.push(TaskLink { head: name, nodes, share: index, orders, is_source });
            wired.tasks.push(Task {
                id: wired.tasks.len(),
                chain: Chain::new(slots, share, Arc::clone(&parts.clock), Arc::clone(metrics))
                    .with_orders(buffers)
                    .with_account(parts.account.clone()),
                head,
                orders: receive_orders,
                reports: report.clone(),
                clock: Arc::clone(&parts.clock),
                epoch_wanted: false,
                replays,
                offer: None,
                ended: false,
            });
        }
    }
    Ok(wired)
}

/// The ordering buffers in front of a node, with what they held.
fn open_orders(parts: &JobParts, dealt: &mut Dealt, node: usize, share: Share) -> Result<Orders, JobError> {
    let name = &parts.plan.nodes[node].name;
    let mut held = dealt.held.remove(&(name.clone(), share.index)).unwrap_or_default();
    let stored = |reason| JobError::Order { node: name.clone(), cause: OrderError::Stored { reason } };
    let no_spill = |cause| JobError::Spill { node: name.clone(), cause };
    let mut orders = Orders::default();
    let (wall, now) = (parts.clock.wall(), parts.clock.monotonic_nanos());
    for (&(_, port), spec) in parts.plan.orders.range((node, 0)..=(node, u16::MAX)) {
        let mut spill = None;
        if let Some(bytes_max) = spec.spill {
            let Some((disk, dir)) = &parts.states.spill else { return Err(JobError::NoSpill { node: name.clone() }) };
            let files = format!("{name}.{port}.{}", share.index);
            spill = Some(Spill::open(Arc::clone(disk), dir, files, bytes_max.bytes()).map_err(no_spill)?);
        }
        let mut order = OrderSlot::new(name.clone(), port, spec, spill);
        let (mine, others) = held.into_iter().partition(|record| record.port == port);
        held = others;
        order.restore(mine, share, wall, now).map_err(|error| match error {
            NotRestored::Damaged(reason) => stored(reason),
            NotRestored::Spill(cause) => no_spill(cause),
        })?;
        orders.slots.push(order);
    }
    orders.partly =
        parts.plan.inputs(node).any(|(_, edge)| orders.slots.iter().all(|order| order.port() != edge.input));
    if held.iter().any(|record| record.name.first() == Some(&ordering::ROW)) {
        return Err(stored("its ordering buffer holds rows, and the job file has no such buffer any more"));
    }
    Ok(orders)
}

/// Dead letters of one share of a node that are to be processed again. What a source could not make
/// into events it may be able to now: the job file may say something else.
fn replays_of(parts: &JobParts, dealt: &mut Dealt, node: usize, share: Share, slot: usize) -> Vec<Replay> {
    let planned = &parts.plan.nodes[node];
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

fn queues(plan: &Plan) -> (Senders, Receivers) {
    let (mut all_senders, mut receivers) = (Senders::new(), Receivers::new());
    for (place, chain) in plan.chains.iter().enumerate() {
        let edges = incoming(plan, place);
        if edges.is_empty() {
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

#[expect(clippy::too_many_arguments, reason = "everything that a node is joined with")]
async fn open_slot(
    parts: &JobParts,
    epoch: Epoch,
    dealt: &mut Dealt,
    node: usize,
    share: Share,
    chain: &[usize],
    senders: &mut Senders,
    metrics: &JobMetrics,
    locations: &mut Vec<(NodeName, String)>,
) -> Result<(Slot, Vec<Output>), JobError> {
    let planned = &parts.plan.nodes[node];
    let name = planned.name.clone();
    let kind = match (&parts.nodes[node], &planned.kind) {
        (NodePart::Source(_), _) => SlotKind::Source,
        (NodePart::Stage(factory), NodeKind::Stage { window, faults }) => {
            let held = dealt.stages.remove(&(name.clone(), share.index)).unwrap_or_default();
            let spaces = &factory.descriptor().spaces;
            let state = parts.states.open(&name, (share.index, share.of), epoch, spaces, held.state);
            let mut context = OperatorContext::new(name.clone(), share, state);
            context.account.clone_from(&parts.account);
            let (clock, metrics) = (Arc::clone(&parts.clock), metrics.node(node));
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
                    let accumulators_max = parts.settings.accumulators_max;
                    SlotKind::Window(WindowSlot::new(plugin, aggregate, windows, accumulators_max))
                }
                None => {
                    let operator = plugin.open(context).await?;
                    let mut timers = Timers::default();
                    timers.load(held.timers.into_iter().map(timer_entry));
                    let mut slot = OperatorSlot::new(plugin, operator, timers);
                    let migrations = parts.states.migrations.get(&name).map(Vec::as_slice);
                    slot.migrate(migrations.unwrap_or_default()).await?;
                    SlotKind::Operator(slot)
                }
            }
        }
        (NodePart::Sink(factory), _) => {
            let handle = dealt.sinks.remove(&(name.clone(), share.index));
            let slot = SinkSlot::open(name.clone(), &**factory, parts.settings.delivery, share, handle, &parts.clock);
            let slot = slot.await?;
            locations.extend(slot.location().map(|location| (name.clone(), location)));
            SlotKind::Sink(slot)
        }
        (NodePart::Stage(_), _) => panic!("node {name} of the plan is no stage"),
    };
    let outputs = parts.plan.outputs(node).map(|(place, edge)| {
        let target = match chain.iter().position(|&other| other == edge.to) {
            Some(slot) if matches!(edge.routing, Routing::Local) => Target::Local { slot, port: edge.input },
            _ => {
                let tasks = senders.remove(&(place, share.index)).unwrap_or_default();
                let convoy_of = |node: usize| parts.plan.chains[parts.plan.nodes[node].chain].convoy.as_ref();
                match (edge.routing, convoy_of(edge.to)) {
                    (Routing::Split, Some(convoy)) => {
                        let moves = parts.states.files.is_none();
                        Target::Lanes(Box::new(Splitter::new(tasks, convoy, moves, metrics.node(edge.to))))
                    }
                    _ if edge.routing == Routing::Merged => Target::FromLane(LaneOutput::new(tasks)),
                    _ => Target::Tasks(tasks),
                }
            }
        };
        Output { port: edge.output, key: edge.key.clone(), target }
    });
    let outputs = outputs.collect();
    Ok((Slot { name: planned.name.clone(), kind, metrics: metrics.node(node) }, outputs))
}

async fn open_source(
    parts: &JobParts,
    dealt: &mut Dealt,
    node: usize,
    partitions: Vec<SourcePartition>,
    metrics: &JobMetrics,
    locations: &mut Vec<(NodeName, String)>,
) -> Result<SourceHead, JobError> {
    let planned = &parts.plan.nodes[node];
    let (NodePart::Source(factory), NodeKind::Source { extraction, watermarks }) = (&parts.nodes[node], &planned.kind)
    else {
        panic!("node {} of the plan is no source", planned.name)
    };
    let mut position = |id| dealt.positions.remove(&(planned.name.clone(), id));
    let assigned = partitions.iter().map(|partition| (partition.id, position(partition.id))).collect();
    let opened = factory.open(assigned, Arc::clone(&parts.clock)).await;
    let source = opened.map_err(|cause| JobError::Source { node: planned.name.clone(), cause })?;
    locations.extend(source.location().map(|location| (planned.name.clone(), location)));
    let node_metrics = metrics.node(node);
    node_metrics.to_read(partitions.iter().filter_map(|partition| partition.size).sum());
    let goal = u64::try_from(parts.settings.latency_goal.as_nanos()).unwrap_or(u64::MAX);
    Ok(SourceHead::new(
        planned.name.clone(),
        source,
        extraction.clone(),
        watermarks.clone(),
        partitions.into_iter().map(|partition| (partition.id, partition.name)).collect(),
        AdaptiveBatch::new(goal),
        parts.settings.epoch_bytes,
        Arc::clone(&parts.clock),
        node_metrics,
    ))
}
