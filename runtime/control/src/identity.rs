//! What a job is, as its state remembers it, and whether it may go on from there.
//!
//! Facts stand in the store beside the rows, under `job`, `stage.NAME`, `finished`. They are
//! written with the first epoch of every run in which they differ from what is stored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wasmill_engine::NodePart;
use wasmill_model::{NodeName, WindowShape};
use wasmill_plan::{NodeKind, Plan};
use wasmill_store::Recovered;

use crate::ControlError;

const JOB: &str = "job";
const STAGE: &str = "stage.";
const FINISHED: &str = "finished";

/// Facts that an epoch adds, changes (`Some`) or removes (`None`).
pub type Facts = BTreeMap<String, Option<Vec<u8>>>;

/// What is remembered of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StageFact {
    plugin: String,
    /// Parts of the state by place, each with the version of its schema.
    spaces: Vec<(String, u32)>,
    window: Option<WindowShape>,
}

/// The fact that the job has read all of its input and committed it.
#[must_use]
pub fn finished() -> Facts {
    Facts::from([(FINISHED.to_owned(), Some(Vec::new()))])
}

/// Whether a job has nothing left to do.
#[must_use]
pub fn is_finished(recovered: &Recovered) -> bool {
    recovered.meta.contains_key(FINISHED)
}

/// Decides whether a job may go on from what was recovered; the facts that its next epoch has to
/// hold.
///
/// # Errors
/// Where it may not.
pub fn decide_resume(plan: &Plan, parts: &[NodePart], recovered: &Recovered) -> Result<Facts, ControlError> {
    let now = facts(plan, parts);
    let (job, stages) = &now;
    if let Some(stored) = recovered.meta.get(JOB).filter(|stored| *stored != job) {
        let (stored, name) = (String::from_utf8_lossy(stored).into_owned(), plan.job.to_string());
        return Err(ControlError::OtherJob { stored, name });
    }
    for (key, stored) in &recovered.meta {
        let Some(name) = key.strip_prefix(STAGE) else { continue };
        let malformed = |reason: String| ControlError::Malformed { key: key.clone(), reason };
        let fact: StageFact = serde_json::from_slice(stored).map_err(|error| malformed(error.to_string()))?;
        let stage = NodeName::new(name).map_err(|error| malformed(error.to_string()))?;
        let Some(now) = stages.get(&stage) else {
            return Err(ControlError::NodeGone { kind: "stage", node: stage });
        };
        if fact.spaces != now.spaces {
            let (stored, now) = (spaces(&fact.spaces), spaces(&now.spaces));
            return Err(ControlError::SpacesChanged { stage, stored, now, plugin: fact.plugin });
        }
        if fact.window != now.window {
            let (stored, now) = (window(fact.window), window(now.window));
            return Err(ControlError::WindowChanged { stage, stored, now });
        }
    }
    let has = |wanted: &NodeName, kind: fn(&NodeKind) -> bool| {
        plan.nodes.iter().any(|node| node.name == *wanted && kind(&node.kind))
    };
    let source = |node: &&NodeName| !has(node, |kind| matches!(kind, NodeKind::Source { .. }));
    if let Some(gone) = recovered.positions.iter().map(|position| &position.node).find(source) {
        return Err(ControlError::NodeGone { kind: "source", node: gone.clone() });
    }
    let sink = |node: &&NodeName| !has(node, |kind| matches!(kind, NodeKind::Sink));
    if let Some(gone) = recovered.sinks.iter().map(|sink| &sink.node).find(sink) {
        return Err(ControlError::NodeGone { kind: "sink", node: gone.clone() });
    }
    let stages = stages.iter().map(|(name, fact)| {
        (format!("{STAGE}{name}"), serde_json::to_vec(fact).expect("plain data is written to memory without fail"))
    });
    let all = stages.chain([(JOB.to_owned(), job.clone())]);
    Ok(all.filter(|(key, fact)| recovered.meta.get(key) != Some(fact)).map(|(key, fact)| (key, Some(fact))).collect())
}

fn facts(plan: &Plan, parts: &[NodePart]) -> (Vec<u8>, BTreeMap<NodeName, StageFact>) {
    let mut stages = BTreeMap::new();
    for (node, part) in plan.nodes.iter().zip(parts) {
        if let (NodeKind::Stage { window }, NodePart::Stage(factory)) = (&node.kind, part) {
            let spaces = factory.descriptor().spaces.iter().map(|space| (space.name.clone(), space.schema_version));
            let (plugin, spaces) = (factory.digest().to_string(), spaces.collect());
            stages.insert(node.name.clone(), StageFact { plugin, spaces, window: *window });
        }
    }
    (plan.job.to_string().into_bytes(), stages)
}

fn spaces(spaces: &[(String, u32)]) -> String {
    if spaces.is_empty() {
        return "no spaces".to_owned();
    }
    let list: Vec<String> = spaces.iter().map(|(name, schema)| format!("{name:?} (schema {schema})")).collect();
    list.join(", ")
}

fn window(shape: Option<WindowShape>) -> String {
    match shape {
        None => "no windows".to_owned(),
        Some(WindowShape::Tumbling { size_micros }) => format!("windows of {size_micros} us"),
        Some(WindowShape::Sliding { size_micros, slide_micros }) => {
            format!("windows of {size_micros} us every {slide_micros} us")
        }
    }
}

/// For each node that gets rows of exactly one source, that source.
#[must_use]
pub fn sources(plan: &Plan) -> BTreeMap<NodeName, NodeName> {
    let mut reached: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); plan.nodes.len()];
    for (place, node) in plan.nodes.iter().enumerate() {
        if !matches!(node.kind, NodeKind::Source { .. }) {
            continue;
        }
        let mut open = vec![place];
        while let Some(at) = open.pop() {
            if reached[at].insert(place) {
                open.extend(plan.outputs(at).map(|(_, edge)| edge.to));
            }
        }
    }
    let only = |sources: BTreeSet<usize>| match sources.len() {
        1 => sources.first().map(|&source| plan.nodes[source].name.clone()),
        _ => None,
    };
    let named = plan.nodes.iter().zip(reached);
    named.filter_map(|(node, sources)| Some((node.name.clone(), only(sources)?))).collect()
}
