//! Another graph for tasks that run: which of them it touches. Pure.
//!
//! A task that the change does not touch goes on as though nothing happened. Others stop behind a barrier, and
//! tasks of the new graph are made of what they hold: nodes that both graphs have keep their instance, their
//! state, their files and connections, whichever task they are in.
//!
//! A chain *goes on* where both graphs have it with the same nodes, the same inputs and the same outputs, and
//! where no chain that it sends to gets another queue. A chain whose inputs are the same keeps its queue, with
//! what waits in it, though it is made anew. So all who send to a new queue are made anew as well, and nothing is
//! under way to a queue that goes.

use std::collections::{BTreeMap, BTreeSet};

use wasmill_model::NodeName;
use wasmill_spec::NewKey;

use crate::{NodeKind, Plan, Routing};

/// What becomes of the chains of a graph that takes the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Chains of the old graph that go on, by their place there.
    pub go_on: BTreeSet<usize>,
    /// Chains of the new graph whose tasks are made, by place: with the place of the old chain whose queue they
    /// keep, where they keep one.
    pub made: BTreeMap<usize, Option<usize>>,
    /// Nodes that are opened: new ones, and those that have another number of tasks.
    pub opened: BTreeSet<NodeName>,
    /// Nodes of both graphs that have another number of tasks.
    pub rescaled: BTreeSet<NodeName>,
    /// Nodes that go.
    pub gone: BTreeSet<NodeName>,
}

/// An edge, as both graphs know it.
#[derive(PartialEq)]
struct Way<'a> {
    from: &'a NodeName,
    output: u16,
    to: &'a NodeName,
    input: u16,
    key: Option<&'a NewKey>,
    routing: Routing,
    /// Tasks on both sides.
    tasks: (u16, u16),
}

impl Plan {
    /// The place of a node.
    #[must_use]
    pub fn place(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    fn tasks(&self, place: usize) -> u16 {
        self.chains[self.nodes[place].chain].parallelism
    }

    fn way(&self, edge: usize) -> Way<'_> {
        let edge = &self.edges[edge];
        Way {
            from: &self.nodes[edge.from].name,
            output: edge.output,
            to: &self.nodes[edge.to].name,
            input: edge.input,
            key: edge.key.as_ref(),
            routing: edge.routing,
            tasks: (self.tasks(edge.from), self.tasks(edge.to)),
        }
    }

    fn head(&self, chain: usize) -> usize {
        self.chains[chain].nodes[0]
    }

    /// The ways into the first node of a chain.
    fn ways_in(&self, chain: usize) -> Vec<Way<'_>> {
        self.inputs(self.head(chain)).map(|(edge, _)| self.way(edge)).collect()
    }

    /// The ways out of the nodes of a chain, and between them.
    fn ways_out(&self, chain: usize) -> Vec<Way<'_>> {
        let nodes = self.chains[chain].nodes.iter();
        nodes.flat_map(|&node| self.outputs(node)).map(|(edge, _)| self.way(edge)).collect()
    }

    fn names(&self, chain: usize) -> Vec<&NodeName> {
        self.chains[chain].nodes.iter().map(|&node| &self.nodes[node].name).collect()
    }

    fn waits_for_sources(&self, place: usize) -> bool {
        let NodeKind::Source { watermarks, .. } = &self.nodes[place].kind else { return false };
        let name = &self.nodes[place].name;
        let named = |node: &crate::Node| matches!(&node.kind, NodeKind::Source { watermarks, .. } if watermarks.from.as_ref() == Some(name));
        watermarks.align.is_some() || watermarks.from.is_some() || self.nodes.iter().any(named)
    }
}

/// Whether edge `new` of one graph is edge `old` of another.
#[must_use]
pub fn is_same_edge((old_plan, old): (&Plan, usize), (new_plan, new): (&Plan, usize)) -> bool {
    old_plan.way(old) == new_plan.way(new)
}

/// Decides what becomes of the tasks of `old` where `new` takes its place. Nodes of one name are the same, but for
/// their inputs and how many tasks they have.
///
/// # Errors
/// Why that cannot be while the job runs.
pub fn exchange(old: &Plan, new: &Plan) -> Result<Exchange, Vec<String>> {
    let mut gone = BTreeSet::new();
    let (mut opened, mut rescaled) = (BTreeSet::new(), BTreeSet::new());
    let mut why = Vec::new();
    for (place, node) in old.nodes.iter().enumerate() {
        if new.place(&node.name).is_none() {
            gone.insert(node.name.clone());
            if old.waits_for_sources(place) {
                why.push(format!("source `{}` shares watermarks with other sources", node.name));
            }
        }
    }
    for (place, node) in new.nodes.iter().enumerate() {
        let before = old.place(&node.name);
        if before.is_none_or(|before| old.tasks(before) != new.tasks(place)) {
            opened.insert(node.name.clone());
            if new.waits_for_sources(place) {
                why.push(format!("source `{}` shares watermarks with other sources", node.name));
            }
        }
        let Some(before) = before else { continue };
        let buffers = |plan: &Plan, place| {
            let buffers = plan.orders.range((place, 0)..=(place, u16::MAX));
            buffers.map(|((_, port), order)| (*port, order.clone())).collect::<Vec<_>>()
        };
        if buffers(old, before) != buffers(new, place) {
            why.push(format!("stage `{}` gets another ordering buffer", node.name));
        }
        if old.tasks(before) == new.tasks(place) {
            continue;
        }
        rescaled.insert(node.name.clone());
        match &node.kind {
            NodeKind::Stage { window: Some(_), .. } => {
                why.push(format!("stage `{}` has windows, and another number of tasks", node.name));
            }
            NodeKind::Stage { window: None, .. } if !buffers(new, place).is_empty() => {
                why.push(format!("stage `{}` has an ordering buffer, and another number of tasks", node.name));
            }
            NodeKind::Stage { .. } => {}
            NodeKind::Source { .. } | NodeKind::Sink => {
                why.push(format!("{} `{}` has another number of tasks", node.kind.name(), node.name));
            }
        }
    }
    let queue_of = |chain: usize| {
        let head = new.head(chain);
        let before = old.place(&new.nodes[head].name).filter(|_| !opened.contains(&new.nodes[head].name))?;
        let before_chain = old.nodes[before].chain;
        let inputs = new.ways_in(chain);
        (old.head(before_chain) == before && !inputs.is_empty() && old.ways_in(before_chain) == inputs)
            .then_some(before_chain)
    };
    let queues: Vec<Option<usize>> = (0..new.chains.len()).map(queue_of).collect();
    let (mut go_on, mut made) = (BTreeSet::new(), BTreeMap::new());
    for (chain, planned) in new.chains.iter().enumerate() {
        let head = new.head(chain);
        let before = old.place(&new.nodes[head].name).map(|before| old.nodes[before].chain);
        let has_inputs = new.inputs(head).next().is_some();
        let same = |before: &usize| {
            old.names(*before) == new.names(chain)
                && !new.names(chain).iter().any(|name| opened.contains(*name))
                && old.chains[*before].convoy == planned.convoy
                && (!has_inputs || queues[chain] == Some(*before))
                && old.ways_in(*before) == new.ways_in(chain)
                && old.ways_out(*before) == new.ways_out(chain)
        };
        let nodes = planned.nodes.iter();
        let mut targets = nodes.flat_map(|&node| new.outputs(node)).map(|(_, edge)| new.nodes[edge.to].chain);
        let keeps_targets = targets.all(|target| target == chain || queues[target].is_some());
        match before.filter(same).filter(|_| keeps_targets) {
            Some(before) => drop(go_on.insert(before)),
            None => drop(made.insert(chain, queues[chain])),
        }
        if made.contains_key(&chain) {
            let name = &new.nodes[head].name;
            if planned.convoy.is_some() {
                why.push(format!("stage `{name}` has lanes (`ordered`)"));
            }
            if queues[chain].is_none() && !opened.contains(name) && new.orders.keys().any(|(stage, _)| *stage == head) {
                why.push(format!("stage `{name}` has an ordering buffer, and other inputs"));
            }
        }
    }
    for (chain, before) in old.chains.iter().enumerate().filter(|(chain, _)| !go_on.contains(chain)) {
        let name = &old.nodes[old.head(chain)].name;
        if before.convoy.is_some() {
            why.push(format!("stage `{name}` has lanes (`ordered`)"));
        }
        if gone.contains(name)
            && old.orders.iter().any(|((stage, _), order)| *stage == old.head(chain) && order.spill.is_some())
        {
            why.push(format!("rows of stage `{name}` may wait on disk (`spill`)"));
        }
    }
    why.sort();
    why.dedup();
    if why.is_empty() { Ok(Exchange { go_on, made, opened, rescaled, gone }) } else { Err(why) }
}
