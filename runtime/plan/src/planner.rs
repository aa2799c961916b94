use std::collections::{BTreeMap, HashMap};

use wasmill_model::{Descriptor, NodeName};
use wasmill_spec::{
    Delivery, Diagnostic, InputSpec, JobSpec, LATE_PORT, LatePolicy, NodeSpec, OrderSpec, PortRef, Severity,
};

use crate::changes;
use crate::convoy;
use crate::ports::{self, Side};
use crate::{
    Align, Chain, Edge, Extraction, Facts, Guarantee, LATE, Node, NodeKind, PathDelivery, PathFacts, Plan, Recovery,
    Routing, TimeExtraction, Watermarks, WeakestLink,
};

/// A plan with what it promises.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What the engine runs.
    pub plan: Plan,
    /// What every path from a source to a sink gives.
    pub paths: Vec<PathDelivery>,
    /// When rows leave.
    pub delivery: Delivery,
    /// What the author should know although the job can run: those of the job file and more.
    pub warnings: Vec<Diagnostic>,
}

impl Planned {
    /// What all paths together give.
    #[must_use]
    pub fn gives(&self) -> Guarantee {
        self.paths.iter().fold(Guarantee::ExactlyOnce, |all, path| all.and(path.verdict.gives))
    }
}

/// Plans a job.
///
/// # Errors
/// Everything that keeps the job from running, in the order of the file, with the warnings among
/// it: ports that do not exist, a window without an aggregate, an aggregate without a window,
/// corrections that a stage or a sink cannot take, and a delivery that a path cannot give.
pub fn plan(job: &JobSpec, facts: &Facts) -> Result<Planned, Vec<Diagnostic>> {
    let mut diagnostics = job.warnings.clone();
    let order = topological(job);
    let edges = edges(job, facts, &order, &mut diagnostics);
    let orders = orders(job, facts, &order);
    stages(job, facts, &order, &edges, &mut diagnostics);
    convoy::check(job, facts, &order, &edges, &mut diagnostics);
    changes::check(job, facts, &order, &edges, &mut diagnostics);
    let plan = chained(job, facts, &order, edges, orders);
    let mode = mode(job.delivery, facts.recovery);
    let paths = paths(job, facts, &plan);
    delivery(job, &plan, &paths, &mut diagnostics);
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
    if diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
        return Err(diagnostics);
    }
    Ok(Planned { plan, paths, delivery: mode, warnings: diagnostics })
}

/// When rows leave: as late as the job asks for. Where nothing is left after a crash, nothing is won
/// by rows that wait for positions, and a run that ends can replace what one before has shown.
fn mode(asked: Option<Delivery>, recovery: Recovery) -> Delivery {
    match (asked.unwrap_or(Delivery::ExactlyOnce), recovery) {
        (Delivery::AtMostOnce, Recovery::Nothing) => Delivery::ExactlyOnce,
        (asked, _) => asked,
    }
}

pub(crate) type Named<'a> = (&'a NodeName, NodeSpec<'a>);

/// Nodes so that inputs come first, otherwise in the order of the file. The job has no circles.
fn topological(job: &JobSpec) -> Vec<Named<'_>> {
    let nodes: Vec<Named<'_>> = job.nodes().collect();
    let places: HashMap<&NodeName, usize> = nodes.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let mut waiting: Vec<usize> = nodes.iter().map(|(_, node)| node.inputs().len()).collect();
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, (_, node)) in nodes.iter().enumerate() {
        for input in node.inputs() {
            if let Some(from) = places.get(&input.from) {
                readers[*from].push(at);
            }
        }
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..nodes.len()).filter(|at| waiting[*at] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(at) = ready.pop_first() {
        order.push(nodes[at]);
        for reader in &readers[at] {
            waiting[*reader] -= 1;
            if waiting[*reader] == 0 {
                ready.insert(*reader);
            }
        }
    }
    order
}

/// Every input as an edge, still without a way to travel.
fn edges(job: &JobSpec, facts: &Facts, order: &[Named<'_>], diagnostics: &mut Vec<Diagnostic>) -> Vec<Edge> {
    let places: HashMap<&NodeName, usize> = order.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let mut edges = Vec::new();
    for (to, (name, node)) in order.iter().enumerate() {
        for input in node.inputs() {
            let Some(from) = places.get(&input.from).copied() else { continue };
            match port_numbers(job, facts, name, input) {
                Ok((output, port)) => {
                    let key = input.key.clone();
                    edges.push(Edge { from, output, to, input: port, key, routing: Routing::Keyed });
                }
                Err(wrong) => diagnostics.extend(wrong),
            }
        }
    }
    edges
}

/// The ordering buffers, by stage and input port.
fn orders(job: &JobSpec, facts: &Facts, order: &[Named<'_>]) -> BTreeMap<(usize, u16), OrderSpec> {
    let mut orders = BTreeMap::new();
    for (place, (name, node)) in order.iter().enumerate() {
        for input in node.inputs() {
            // A port that does not exist has a diagnostic already.
            if let (Some(order), Ok((_, port))) = (&input.order, port_numbers(job, facts, name, input)) {
                orders.insert((place, port), order.clone());
            }
        }
    }
    orders
}

fn port_numbers(job: &JobSpec, facts: &Facts, to: &NodeName, input: &InputSpec) -> Result<(u16, u16), Vec<Diagnostic>> {
    let output = match facts.stages.get(&input.from) {
        Some(_) if is_late(job, input) => Ok(LATE),
        Some(plugin) => ports::number(job, &input.from, Side::Output, &plugin.outputs, &input.output, &input.span),
        None => Ok(0),
    };
    let port = match facts.stages.get(to) {
        Some(plugin) => ports::number(job, to, Side::Input, &plugin.inputs, &input.port, &input.span),
        None => Ok(0),
    };
    match (output, port) {
        (Ok(output), Ok(port)) => Ok((output, port)),
        (output, port) => Err(output.err().into_iter().chain(port.err()).collect()),
    }
}

/// Whether the input is what came too late for an ordering buffer of another stage.
fn is_late(job: &JobSpec, input: &InputSpec) -> bool {
    let side = |input: &InputSpec| input.order.as_ref().is_some_and(|order| order.late == LatePolicy::Side);
    matches!(&input.output, PortRef::Name(name) if name == LATE_PORT)
        && job.stages.get(&input.from).is_some_and(|stage| stage.inputs.iter().any(side))
}

/// Whether a plugin keeps anything by key.
pub(crate) fn keeps_by_key(plugin: &Descriptor) -> bool {
    plugin.aggregate || plugin.timed || !plugin.spaces.is_empty()
}

fn stages(job: &JobSpec, facts: &Facts, order: &[Named<'_>], edges: &[Edge], diagnostics: &mut Vec<Diagnostic>) {
    // An input that leads to no port leaves ports empty that are not meant to be.
    let ports_exist = diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Warning);
    let mut keyed = vec![false; order.len()];
    for (at, (name, node)) in order.iter().enumerate() {
        let inputs = || edges.iter().filter(move |edge| edge.to == at);
        keyed[at] = match node {
            NodeSpec::Source(source) => source.key.is_some(),
            _ => inputs().any(|edge| edge.key.is_some() || keyed[edge.from]),
        };
        let NodeSpec::Stage(stage) = node else { continue };
        let key = |key| ["stage", name.as_str(), key];
        let Some(plugin) = facts.stages.get(*name) else {
            let message = format!("nothing is known about the plugin of stage `{name}`");
            diagnostics
                .push(job.error(&key("plugin"), message).hint("`wasmill inspect PLUGIN` says what is wrong with it"));
            continue;
        };
        match (plugin.aggregate, stage.window.is_some()) {
            (true, false) => {
                let message = format!("`{}` is an aggregate, and stage `{name}` has no window", plugin.name);
                diagnostics.push(job.error(&key("plugin"), message).hint("add window = { tumbling = \"1m\" }"));
            }
            (false, true) => {
                let message = format!("`{}` is no aggregate, and only an aggregate has a window", plugin.name);
                let hint = "delete `window`, or use an aggregate such as std:aggregate";
                diagnostics.push(job.error(&key("window"), message).hint(hint));
            }
            _ => {}
        }
        for (port, port_name) in plugin.inputs.iter().enumerate().filter(|_| ports_exist) {
            if !inputs().any(|edge| usize::from(edge.input) == port) {
                let message = format!("nothing comes into port `{port_name}` of stage `{name}`");
                let hint = format!("write input = {{ {port_name} = \"NODE\", ... }}");
                diagnostics.push(job.warning(&key("input"), message).hint(hint));
            }
        }
        if stage.parallelism > 1 && keeps_by_key(plugin) && !keyed[at] {
            let message = format!("no row that comes into stage `{name}` gets a key from the job file");
            let hint =
                "rows without a key all go to one of its tasks: write input = { from = \"NODE\", key = \"/id\" }";
            diagnostics.push(job.warning(&key("parallelism"), message).hint(hint));
        }
    }
}

/// Cuts the graph into chains and says how rows travel.
///
/// A node joins the chain of its only input if the row is in the right task already: both have
/// one task, or as many as each other and nothing by key is at stake, or the same keys.
fn chained(
    job: &JobSpec,
    facts: &Facts,
    order: &[Named<'_>],
    mut edges: Vec<Edge>,
    orders: BTreeMap<(usize, u16), OrderSpec>,
) -> Plan {
    let mut nodes: Vec<Node> = Vec::with_capacity(order.len());
    let mut chains: Vec<Chain> = Vec::new();
    // Whether every row is in the task that owns its key.
    let mut at_owner: Vec<bool> = Vec::with_capacity(order.len());
    for (place, (name, node)) in order.iter().enumerate() {
        let parallelism = node.parallelism();
        let needs_owner = facts.stages.get(*name).is_some_and(keeps_by_key);
        let mut inputs: Vec<&mut Edge> = edges.iter_mut().filter(|edge| edge.to == place).collect();
        let convoy = convoy::of(*node, needs_owner);
        let stays = |edge: &Edge| {
            let from = chains[nodes[edge.from].chain].convoy.as_ref();
            let same_tasks = order[edge.from].1.parallelism() == parallelism;
            if from.is_some() || convoy.is_some() {
                return same_tasks && convoy::joins(from, convoy.as_ref(), edge);
            }
            same_tasks && (parallelism == 1 || (edge.key.is_none() && (at_owner[edge.from] || !needs_owner)))
        };
        let (mut chain, mut owned) = (None, true);
        match inputs.as_mut_slice() {
            [] => owned = parallelism == 1,
            // A buffer stands in front of a task, where the rows of all inputs come together.
            [only] if stays(only) && !orders.contains_key(&(place, only.input)) => {
                only.routing = Routing::Local;
                chain = Some(nodes[only.from].chain);
                owned = at_owner[only.from];
            }
            several => {
                for edge in several {
                    if convoy.is_some() {
                        edge.routing = Routing::Split;
                    } else if chains[nodes[edge.from].chain].convoy.is_some() {
                        edge.routing = Routing::Merged;
                    } else if edge.key.is_none() && stays(edge) {
                        edge.routing = Routing::Forward;
                        owned &= at_owner[edge.from];
                    }
                }
            }
        }
        // A parallel operator may give its rows keys that other tasks own; panes keep theirs.
        let may_rekey = facts.stages.get(*name).is_some_and(|plugin| !plugin.aggregate) && parallelism > 1;
        at_owner.push(owned && !may_rekey);
        let chain = chain.unwrap_or_else(|| {
            chains.push(Chain { nodes: Vec::new(), parallelism, convoy: convoy.clone() });
            chains.len() - 1
        });
        chains[chain].nodes.push(place);
        nodes.push(Node { name: (*name).clone(), kind: kind(*node), chain });
    }
    Plan { job: job.name.clone(), nodes, edges, chains, orders }
}

fn kind(node: NodeSpec<'_>) -> NodeKind {
    match node {
        NodeSpec::Source(source) => NodeKind::Source {
            extraction: Extraction {
                key: source.key.clone(),
                time: (source.time.as_ref()).map(|time| TimeExtraction { field: time.field.clone(), unit: time.unit }),
            },
            watermarks: Watermarks {
                bound_micros: source.watermark.bound.micros(),
                idle_micros: source.watermark.idle.map(|idle| idle.micros()),
                skew_micros: source.watermark.skew.map(|skew| skew.micros()),
                punctuated: source.watermark.punctuated.clone(),
                from: source.watermark.from.clone(),
                align: source.watermark.align.as_ref().map(|align| Align {
                    within_micros: align.within.micros().unsigned_abs(),
                    group: align.group.clone().unwrap_or_default(),
                }),
            },
        },
        NodeSpec::Stage(stage) => NodeKind::Stage { window: stage.window, faults: stage.faults },
        NodeSpec::Sink(_) => NodeKind::Sink,
    }
}

/// What is known about the ways from a source to a node.
#[derive(Clone, Copy, Default)]
struct Reached {
    at_all: bool,
    through_memory: bool,
}

fn paths(job: &JobSpec, facts: &Facts, plan: &Plan) -> Vec<PathDelivery> {
    let keeps: Vec<bool> =
        plan.nodes.iter().map(|node| facts.stages.get(&node.name).is_some_and(keeps_by_key)).collect();
    let bounded = facts.sources.values().all(|source| source.bounded);
    let mut paths = Vec::new();
    for (source, node) in plan.nodes.iter().enumerate() {
        let Some(source_facts) = facts.sources.get(&node.name) else { continue };
        let mut reached = vec![Reached::default(); plan.nodes.len()];
        reached[source].at_all = true;
        // Edges are in the order of their receivers: one pass is enough.
        for edge in &plan.edges {
            let from = reached[edge.from];
            let to = &mut reached[edge.to];
            to.at_all |= from.at_all;
            to.through_memory |= from.at_all && (from.through_memory || keeps[edge.to]);
        }
        for (sink, node) in plan.nodes.iter().enumerate().filter(|(place, _)| reached[*place].at_all) {
            let Some(sink_facts) = facts.sinks.get(&node.name) else { continue };
            let path_facts = PathFacts {
                bounded,
                replayable: source_facts.replayable,
                remembers: reached[sink].through_memory,
                visibility: sink_facts.visibility,
                direct: sink_facts.direct,
                recovery: facts.recovery,
                asked: job.delivery.unwrap_or(Delivery::ExactlyOnce),
            };
            paths.push(PathDelivery { source, sink, verdict: path_facts.derive() });
        }
    }
    paths
}

/// Refuses what a path cannot give, once for each weakest link.
fn delivery(job: &JobSpec, plan: &Plan, paths: &[PathDelivery], diagnostics: &mut Vec<Diagnostic>) {
    let Some(asked) = job.delivery else { return };
    let mut named: Vec<Option<&NodeName>> = Vec::new();
    for path in paths.iter().filter(|path| !path.verdict.gives.satisfies(asked)) {
        let (source, sink) = (&plan.nodes[path.source].name, &plan.nodes[path.sink].name);
        let (link, node) = match path.verdict.weakest {
            Some(WeakestLink::Source) => (format!("source `{source}`"), Some(source)),
            Some(WeakestLink::Sink) => (format!("sink `{sink}`"), Some(sink)),
            Some(WeakestLink::Asked) => ("the job itself".to_owned(), None),
            Some(WeakestLink::Recovery) | None => ("recovery".to_owned(), None),
        };
        if named.contains(&node) {
            continue;
        }
        named.push(node);
        let gives = path.verdict.gives;
        let message = format!("`delivery` asks for {asked}, and the path from `{source}` to `{sink}` gives {gives}");
        let advice = match path.verdict.weakest {
            Some(WeakestLink::Sink) => "use a sink that commits with the epoch, such as `file`",
            Some(WeakestLink::Source) => "use a source that can be read again, such as `file`",
            Some(WeakestLink::Recovery) => "keep positions and state with `--state DIR`",
            Some(WeakestLink::Asked) | None => "leave out `delivery` to take what the paths give",
        };
        let hint = format!("the weakest link is {link}: {}; {advice}", path.verdict.reason);
        diagnostics.push(job.error(&["delivery"], message).hint(hint));
    }
}
