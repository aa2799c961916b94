use std::collections::BTreeMap;

use wasmill_model::{JobName, NodeName, WindowSpec};
use wasmill_scan::Pointer;
use wasmill_spec::{FaultPolicy, NewKey, OrderSpec, Ordered, TimeUnit};

/// A job, ready to run.
///
/// # Invariants
/// - `nodes` are in topological order: an edge leads from a smaller place to a larger one.
/// - Every node is in exactly one chain, chains hold their nodes in topological order, and the
///   nodes of a chain have the chain's parallelism.
/// - An edge is [`Routing::Local`] exactly where both its nodes are in one chain. A node with a
///   local input has no other input.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The job.
    pub job: JobName,
    /// Sources, stages and sinks.
    pub nodes: Vec<Node>,
    /// How rows go from node to node.
    pub edges: Vec<Edge>,
    /// What runs in one task.
    pub chains: Vec<Chain>,
    /// The ordering buffers in front of stages, by stage and input port. Such a stage is the first
    /// of its chain.
    pub orders: BTreeMap<(usize, u16), OrderSpec>,
}

/// The output port by which rows that are late for an ordering buffer leave a stage. No plugin has
/// so many.
pub const LATE: u16 = u16::MAX;

/// A source, a stage or a sink.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name in the job file.
    pub name: NodeName,
    /// What it is.
    pub kind: NodeKind,
    /// Its place in [`Plan::chains`].
    pub chain: usize,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// Rows come in.
    Source {
        /// What the job file says about keys and times.
        extraction: Extraction,
        /// How its watermark follows its events.
        watermarks: Watermarks,
    },
    /// An operator, or an aggregate over windows.
    Stage {
        /// The windows of an aggregate.
        window: Option<WindowSpec>,
        /// How far failures of its plugin may go.
        faults: FaultPolicy,
    },
    /// Rows go out.
    Sink,
}

impl NodeKind {
    /// `source`, `stage` or `sink`: what a job file calls it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Source { .. } => "source",
            Self::Stage { .. } => "stage",
            Self::Sink => "sink",
        }
    }
}

/// Where keys and event times of a source's rows come from.
#[derive(Debug, Clone, Default)]
pub struct Extraction {
    /// A place in the JSON value; without it the connector's key stands.
    pub key: Option<Pointer>,
    /// A place in the JSON value; without it the connector's time stands.
    pub time: Option<TimeExtraction>,
}

/// Where an event time is, and how to read it.
#[derive(Debug, Clone)]
pub struct TimeExtraction {
    /// A place in the JSON value.
    pub field: Pointer,
    /// How to read what is there.
    pub unit: TimeUnit,
}

/// How a source's watermark follows its events. Microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// How far an event may lie behind the latest one of its partition and still be on time.
    pub bound_micros: i64,
    /// A partition that is silent for this long holds the watermark back no more.
    pub idle_micros: Option<i64>,
    /// Event times further ahead of the wall clock than this do not move the watermark.
    pub skew_micros: Option<i64>,
    /// A place in the JSON value: rows with `true` there alone move the watermark.
    pub punctuated: Option<Pointer>,
    /// The sources that it keeps pace with.
    pub align: Option<Align>,
    /// The source whose watermarks it has in place of its own. That one has one task.
    pub from: Option<NodeName>,
}

/// Sources that wait for each other: all of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Align {
    /// How far a task of the source may be ahead of the slowest of the group, microseconds.
    pub within_micros: u64,
    /// The group; an empty name: all that name none.
    pub group: String,
}

/// How rows go from one node to another.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Place of the sending node.
    pub from: usize,
    /// Output port of the sending node.
    pub output: u16,
    /// Place of the receiving node.
    pub to: usize,
    /// Input port of the receiving node.
    pub input: u16,
    /// A new key for every row.
    pub key: Option<NewKey>,
    /// How rows find their task.
    pub routing: Routing,
}

/// How rows find the task of the receiving node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// It is the task they are in.
    Local,
    /// By the group of their key.
    Keyed,
    /// Task *i* sends to task *i*: both sides have one parallelism and keep their keys.
    Forward,
    /// Into a convoy: one task deals each of its batches to the lanes.
    Split,
    /// Out of a convoy: by the group of their key, put back into the order they had before it.
    Merged,
}

/// Nodes that run in one task.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Places of its nodes.
    pub nodes: Vec<usize>,
    /// How many tasks run it, each for its share of the keys.
    pub parallelism: u16,
    /// The chain is a convoy: its tasks are lanes.
    pub convoy: Option<Convoy>,
}

/// Tasks that share the rows of one task, and hand on what they make of them in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convoy {
    /// What the job file says about it.
    pub ordered: Ordered,
    /// Whether a lane keeps something by key, so that all rows of a key have to go to it.
    pub by_key: bool,
}

impl Plan {
    /// The edges that leave a node, in the order of the job file.
    pub fn outputs(&self, node: usize) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.from == node)
    }

    /// The edges that enter a node.
    pub fn inputs(&self, node: usize) -> impl Iterator<Item = (usize, &Edge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.to == node)
    }

    /// The nodes on the ways from one node to another, without the two, in topological order.
    #[must_use]
    pub fn between(&self, from: usize, to: usize) -> Vec<usize> {
        let mut edges: Vec<(usize, usize)> = self.edges.iter().map(|edge| (edge.from, edge.to)).collect();
        edges.sort_unstable_by_key(|(_, to)| *to);
        let (mut behind, mut before) = (vec![false; self.nodes.len()], vec![false; self.nodes.len()]);
        (behind[from], before[to]) = (true, true);
        for (from, to) in &edges {
            behind[*to] |= behind[*from];
        }
        for (from, to) in edges.iter().rev() {
            before[*from] |= before[*to];
        }
        (0..self.nodes.len()).filter(|at| behind[*at] && before[*at] && *at != from && *at != to).collect()
    }
}
