//! What a job is, as its state remembers it, and whether it may go on from there.
//!
//! Facts stand in the store beside the rows, under `job`, `stage.NAME`, `graph`, `finished`. They are
//! written with the first epoch of every run in which they differ from what is stored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wasmill_contract::StagePlugin;
use wasmill_engine::NodePart;
use wasmill_model::{Descriptor, Firing, NodeName, SpaceMigration, WindowShape, WindowSpec};
use wasmill_plan::{NodeKind, Plan, window_text};
use wasmill_store::Recovered;

use crate::ControlError;

const JOB: &str = "job";
const STAGE: &str = "stage.";
const FINISHED: &str = "finished";
/// Which job file exchanged the graph last, where somebody counts them.
const GRAPH: &str = "graph";
/// The space by which an aggregate says which version its accumulators have; 1 where it says nothing.
const ACCUMULATOR: &str = "accumulator";

/// Facts that an epoch adds, changes (`Some`) or removes (`None`).
pub type Facts = BTreeMap<String, Option<Vec<u8>>>;

/// What is remembered of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StageFact {
    plugin: String,
    /// The plugin that the job file named when that one was swapped in; none where it named that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    declared: Option<String>,
    /// The spaces by the number that the store has them under, each with its name and the version of
    /// its schema. A number whose space was dropped is not used again.
    spaces: Vec<Option<(String, u32)>>,
    window: Option<WindowShape>,
    /// Nothing where its windows fire once, at their end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    firing: Option<Firing>,
}

impl StageFact {
    /// Its windows, for people.
    fn windows(&self) -> String {
        let spec = self.window.map(|shape| WindowSpec { shape, firing: self.firing.unwrap_or_default() });
        spec.map_or_else(|| "no windows".to_owned(), |spec| format!("windows \"{}\"", window_text(spec)))
    }
}

/// What becomes of what a state holds and the job has no place for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The job is refused.
    Refuse,
    /// It is forgotten with the first epoch.
    Forget,
}

/// How a job goes on from its state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resumption {
    /// What the next epoch says about the job.
    pub facts: Facts,
    /// What is then remembered of its stages.
    pub(crate) stages: BTreeMap<NodeName, StageFact>,
    /// The numbers under which the store has the spaces of each stage, by place.
    pub numbers: BTreeMap<NodeName, Vec<u16>>,
    /// The spaces of each stage whose entries another schema version has written.
    pub migrations: BTreeMap<NodeName, Vec<SpaceMigration>>,
    /// Nodes that the next epoch removes.
    pub removed: Vec<NodeName>,
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

/// What a state remembers of its job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The name of the job.
    pub job: Option<String>,
    /// Its stages.
    pub stages: BTreeMap<NodeName, RememberedStage>,
    /// Whether it has nothing left to do.
    pub finished: bool,
}

/// What a state remembers of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RememberedStage {
    /// The digest of its plugin.
    pub plugin: String,
    /// Its spaces by number, each with its name and the version of its schema.
    pub spaces: Vec<Option<(String, u32)>>,
}

/// Reads what a state remembers of its job.
///
/// # Errors
/// Where a fact cannot be read.
pub fn remembered(meta: &BTreeMap<String, Vec<u8>>) -> Result<Remembered, ControlError> {
    let mut remembered = Remembered {
        job: meta.get(JOB).map(|job| String::from_utf8_lossy(job).into_owned()),
        finished: meta.contains_key(FINISHED),
        ..Remembered::default()
    };
    for (key, stored) in meta {
        let Some((stage, fact)) = stage_fact(key, stored)? else { continue };
        remembered.stages.insert(stage, RememberedStage { plugin: fact.plugin, spaces: fact.spaces });
    }
    Ok(remembered)
}

/// What a fact says about a stage; `None` where it is about something else.
fn stage_fact(key: &str, stored: &[u8]) -> Result<Option<(NodeName, StageFact)>, ControlError> {
    let Some(name) = key.strip_prefix(STAGE) else { return Ok(None) };
    let malformed = |reason: String| ControlError::Malformed { key: key.to_owned(), reason };
    let fact = serde_json::from_slice(stored).map_err(|error| malformed(error.to_string()))?;
    let stage = NodeName::new(name).map_err(|error| malformed(error.to_string()))?;
    Ok(Some((stage, fact)))
}

/// Decides whether a job may go on from what was recovered, and how. Stages are matched by name,
/// and their spaces by name and version; what is new starts empty.
///
/// # Errors
/// Where it may not.
pub fn decide_resume(
    plan: &Plan,
    parts: &[NodePart],
    declared: &BTreeMap<NodeName, String>,
    recovered: &Recovered,
    dropped: Dropped,
) -> Result<Resumption, ControlError> {
    let (job, mut stages) = facts(plan, parts);
    for (stage, declared) in declared {
        if let Some(fact) = stages.get_mut(stage) {
            fact.declared = Some(declared.clone()).filter(|declared| *declared != fact.plugin);
        }
    }
    if let Some(stored) = recovered.meta.get(JOB).filter(|stored| **stored != job) {
        let (stored, name) = (String::from_utf8_lossy(stored).into_owned(), plan.job.to_string());
        return Err(ControlError::OtherJob { stored, name });
    }
    let mut resumption = Resumption::default();
    for (key, stored) in &recovered.meta {
        let Some((stage, fact)) = stage_fact(key, stored)? else { continue };
        let Some(now) = stages.get_mut(&stage) else {
            if dropped == Dropped::Refuse {
                return Err(ControlError::NodeGone { kind: "stage", node: stage });
            }
            resumption.facts.insert(key.clone(), None);
            resumption.removed.push(stage);
            continue;
        };
        if (fact.window, fact.firing) != (now.window, now.firing) {
            let (stored, now) = (fact.windows(), now.windows());
            return Err(ControlError::WindowChanged { stage, stored, now });
        }
        let stored = with_accumulator(fact.spaces.clone(), fact.window.is_some());
        let migrates = descriptor(plan, parts, &stage).is_some_and(|plugin| plugin.migrates);
        let decided = decide_spaces(&stored, &now.spaces, dropped, migrates);
        let Some(TakenOver { spaces, numbers, migrations }) = decided else {
            let (stored, now) = (spaces(&stored), spaces(&now.spaces));
            return Err(ControlError::SpacesChanged { stage, stored, now, plugin: fact.plugin });
        };
        now.spaces = spaces;
        if !migrations.is_empty() {
            resumption.migrations.insert(stage.clone(), migrations);
        }
        resumption.numbers.insert(stage, numbers);
    }
    let gone = |wanted: &NodeName, kind: fn(&NodeKind) -> bool| {
        !plan.nodes.iter().any(|node| node.name == *wanted && kind(&node.kind))
    };
    let sources = recovered.positions.iter().map(|position| ("source", &position.node));
    let sources = sources.filter(|(_, node)| gone(node, |kind| matches!(kind, NodeKind::Source { .. })));
    let sinks = recovered.sinks.iter().map(|sink| ("sink", &sink.node));
    let sinks = sinks.filter(|(_, node)| gone(node, |kind| matches!(kind, NodeKind::Sink)));
    for (kind, node) in sources.chain(sinks) {
        if dropped == Dropped::Refuse {
            return Err(ControlError::NodeGone { kind, node: node.clone() });
        }
        if !resumption.removed.contains(node) {
            resumption.removed.push(node.clone());
        }
    }
    let all = stages.iter().map(|(name, fact)| written(name, fact));
    let all = all.chain([(JOB.to_owned(), job)]);
    let changed = all.filter(|(key, fact)| recovered.meta.get(key) != Some(fact));
    resumption.facts.extend(changed.map(|(key, fact)| (key, Some(fact))));
    resumption.stages = stages;
    Ok(resumption)
}

/// What changes in what a state remembers where a running job goes on with another graph.
#[derive(Debug, Clone, Default)]
pub(crate) struct Regraphed {
    /// What the next epoch says about the job.
    pub(crate) facts: Facts,
    /// What is then remembered of stages that are new.
    pub(crate) added: BTreeMap<NodeName, StageFact>,
    /// Nodes that the next epoch removes.
    pub(crate) removed: Vec<NodeName>,
    /// The source of each node that has one only.
    pub(crate) sources: BTreeMap<NodeName, NodeName>,
}

/// The number of the job file whose graph took the place of another while the job ran, last. `None` where none
/// did.
#[must_use]
pub fn graph_number(meta: &BTreeMap<String, Vec<u8>>) -> Option<u64> {
    std::str::from_utf8(meta.get(GRAPH)?).ok()?.parse().ok()
}

/// Decides what the first epoch of another graph says. Nodes of one name are the same; swaps have been said.
/// `number` is the one of its job file, where somebody counts them.
pub(crate) fn decide_regraph(old: &Plan, new: &Plan, parts: &[NodePart], number: Option<u64>) -> Regraphed {
    let mut regraphed = Regraphed { sources: sources(new), ..Regraphed::default() };
    if let Some(number) = number {
        regraphed.facts.insert(GRAPH.to_owned(), Some(number.to_string().into_bytes()));
    }
    for node in old.nodes.iter().filter(|node| new.place(&node.name).is_none()) {
        if matches!(node.kind, NodeKind::Stage { .. }) {
            regraphed.facts.insert(format!("{STAGE}{}", node.name), None);
        }
        regraphed.removed.push(node.name.clone());
    }
    let (_, stages) = facts(new, parts);
    for (stage, fact) in stages.into_iter().filter(|(stage, _)| old.place(stage).is_none()) {
        let (key, stored) = written(&stage, &fact);
        regraphed.facts.insert(key, Some(stored));
        regraphed.added.insert(stage, fact);
    }
    regraphed
}

fn written(stage: &NodeName, fact: &StageFact) -> (String, Vec<u8>) {
    (format!("{STAGE}{stage}"), serde_json::to_vec(fact).expect("plain data is written to memory without fail"))
}

impl StageFact {
    /// Whether it is this plugin already: every share of a stage says so.
    pub(crate) fn is(&self, plugin: &StagePlugin) -> bool {
        self.plugin == plugin.digest.to_string()
    }

    /// The stage goes on with another plugin, whose spaces are the same but for the schema that their
    /// entries now have. Returns what an epoch of it says.
    pub(crate) fn swap(&mut self, stage: &NodeName, plugin: &StagePlugin) -> (String, Option<Vec<u8>>) {
        for (name, version) in self.spaces.iter_mut().flatten() {
            if let Some((_, now)) = plugin.spaces.iter().find(|(space, _)| space == name) {
                *version = *now;
            }
        }
        let before = std::mem::replace(&mut self.plugin, plugin.digest.to_string());
        let declared = self.declared.take().unwrap_or(before);
        self.declared = Some(declared).filter(|declared| *declared != self.plugin);
        let (key, fact) = written(stage, self);
        (key, Some(fact))
    }
}

/// See [`crate::Taken::swapped`].
pub(crate) fn swapped(
    plan: &Plan,
    parts: &[NodePart],
    recovered: &Recovered,
) -> Result<BTreeMap<NodeName, String>, ControlError> {
    let (_, stages) = facts(plan, parts);
    let mut swapped = BTreeMap::new();
    for (key, stored) in &recovered.meta {
        let Some((stage, fact)) = stage_fact(key, stored)? else { continue };
        let named = stages.get(&stage).map(|now| &now.plugin);
        if fact.declared.is_some() && fact.declared.as_ref() == named {
            swapped.insert(stage, fact.plugin);
        }
    }
    Ok(swapped)
}

/// Spaces by number, by name and version.
type Spaces = Vec<Option<(String, u32)>>;

/// An aggregate that says nothing of its accumulators has their first version.
fn with_accumulator(mut spaces: Spaces, is_aggregate: bool) -> Spaces {
    if is_aggregate && spaces.iter().flatten().all(|(name, _)| name != ACCUMULATOR) {
        spaces.push(Some((ACCUMULATOR.to_owned(), 1)));
    }
    spaces
}

/// How a stage goes on with spaces that are stored.
struct TakenOver {
    /// The spaces that it then has, by number.
    spaces: Spaces,
    /// The number of each of its plugin's.
    numbers: Vec<u16>,
    /// Those of its plugin's whose entries have another schema.
    migrations: Vec<SpaceMigration>,
}

/// `None` where a space has another version and the plugin cannot migrate, or is gone and must not be.
fn decide_spaces(stored: &Spaces, now: &Spaces, dropped: Dropped, migrates: bool) -> Option<TakenOver> {
    let (mut spaces, mut migrations) = (stored.clone(), Vec::new());
    for stored in &mut spaces {
        let Some((name, from_version)) = stored.clone() else { continue };
        let same = |space: &Option<(String, u32)>| space.as_ref().is_some_and(|(now, _)| *now == name);
        match now.iter().position(same) {
            Some(place) if now[place] != *stored => {
                if !migrates {
                    return None;
                }
                migrations.push(SpaceMigration { space: u16::try_from(place).ok()?, from_version });
                stored.clone_from(&now[place]);
            }
            Some(_) => {}
            None if dropped == Dropped::Refuse => return None,
            None => *stored = None,
        }
    }
    let mut numbers = Vec::with_capacity(now.len());
    for space in now {
        let known = spaces.iter().position(|known| known == space);
        let number = known.unwrap_or_else(|| {
            spaces.push(space.clone());
            spaces.len() - 1
        });
        numbers.push(u16::try_from(number).ok()?);
    }
    Some(TakenOver { spaces, numbers, migrations })
}

/// What the plugin of a stage says about itself.
fn descriptor<'a>(plan: &Plan, parts: &'a [NodePart], stage: &NodeName) -> Option<&'a Descriptor> {
    let named = plan.nodes.iter().zip(parts).find(|(node, _)| node.name == *stage);
    match named {
        Some((_, NodePart::Stage(factory))) => Some(factory.descriptor()),
        _ => None,
    }
}

fn facts(plan: &Plan, parts: &[NodePart]) -> (Vec<u8>, BTreeMap<NodeName, StageFact>) {
    let mut stages = BTreeMap::new();
    for (node, part) in plan.nodes.iter().zip(parts) {
        if let (NodeKind::Stage { window, .. }, NodePart::Stage(factory)) = (&node.kind, part) {
            let StagePlugin { digest, spaces } = StagePlugin::of(&**factory);
            let spaces = with_accumulator(spaces.into_iter().map(Some).collect(), factory.descriptor().aggregate);
            let firing = window.map(|window| window.firing).filter(|firing| *firing != Firing::default());
            let (plugin, window) = (digest.to_string(), window.map(|window| window.shape));
            stages.insert(node.name.clone(), StageFact { plugin, declared: None, spaces, window, firing });
        }
    }
    (plan.job.to_string().into_bytes(), stages)
}

fn spaces(spaces: &Spaces) -> String {
    if spaces.iter().flatten().next().is_none() {
        return "no spaces".to_owned();
    }
    let list: Vec<String> =
        spaces.iter().flatten().map(|(name, schema)| format!("{name:?} (schema {schema})")).collect();
    list.join(", ")
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
