//! Another job file for a job that runs: what it changes, and what that takes. Pure.
//!
//! Where nothing but plugins and configurations of stages differ, these stages are swapped, one after the
//! other, and nothing else stops for a moment. Where nodes come, go, get other inputs or another number of tasks,
//! the tasks that this touches are exchanged at an epoch, and the others go on. Anything else ends the job at an
//! epoch, and it goes on from there with the new file: nodes keep what they have by name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wasmill_model::NodeName;
use wasmill_spec::{JobDifference, NodeDifference};

use crate::compatibility::{Difference, Verdict};

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// Nothing.
    Kept,
    /// It goes on with another plugin, or the same one configured otherwise.
    Swapped,
    /// It has another number of tasks.
    Rescaled,
    /// It has other inputs.
    Rewired,
    /// Something else about it changes.
    Changed,
    /// It is new.
    Added,
    /// It goes.
    Removed,
}

/// What becomes of a node, and of what the job holds for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// `source`, `stage` or `sink`.
    pub section: &'static str,
    /// The node.
    pub name: NodeName,
    /// What becomes of it. One that is rescaled may get other inputs, too.
    pub act: Act,
    /// The keys of its table that differ.
    pub keys: BTreeSet<String>,
    /// What becomes of its state, its position or its rows, in words.
    pub state: &'static str,
    /// How its plugin differs, where it has another.
    pub differences: Vec<Difference>,
}

/// How a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// There is nothing to do.
    Nothing,
    /// Stages are swapped while everything runs.
    InPlace,
    /// Stages are swapped, then tasks that the change touches are exchanged at an epoch; others go on.
    Exchange,
    /// The job ends at an epoch, and goes on from it.
    Restart,
    /// The job does not run: it is started with the new file, from its last epoch.
    Start,
}

/// What another job file changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApplyPlan {
    /// How.
    pub how: How,
    /// Keys of the job itself that differ.
    pub job: BTreeSet<String>,
    /// Every node.
    pub nodes: Vec<Line>,
    /// Why the job has to end for it; empty where it has not.
    pub because: Vec<String>,
    /// Why it cannot be made; empty where it can.
    pub refused: Vec<String>,
}

/// What another plugin means for a stage.
#[derive(Debug, Clone, Default)]
pub struct PluginChange {
    /// Whether its bytes are others.
    pub other: bool,
    /// How it differs.
    pub differences: Vec<Difference>,
    /// Whether it declares state.
    pub stateful: bool,
}

impl ApplyPlan {
    /// The same for a job that does not run.
    #[must_use]
    pub fn at_rest(self) -> Self {
        Self { how: How::Start, because: Vec::new(), ..self }
    }

    /// The stages that go on with another plugin or configuration, whatever else becomes of them.
    pub fn swapped(&self) -> impl Iterator<Item = &NodeName> {
        let stays = |line: &&Line| !matches!(line.act, Act::Added | Act::Removed);
        let swapped = |line: &&Line| line.keys.contains("plugin") || line.keys.contains("config");
        self.nodes.iter().filter(stays).filter(swapped).map(|line| &line.name)
    }
}

/// What to do about nodes that are gone.
pub const ALLOW_DROPPED: &str = "--allow-dropped forgets what the job holds for it";

/// Keys of a node that may differ while the job runs.
const IN_PLACE: [&str; 5] = ["plugin", "config", "input", "inputs", "parallelism"];

/// Decides what a job file changes. `plugins` has the stages that both files have. `drop` allows that nodes go
/// whose state or position the job has. `graph` says why the graph of the new file cannot take the place of the
/// other while the job runs; nothing where it can.
#[must_use]
pub fn decide(
    difference: &JobDifference,
    plugins: &BTreeMap<NodeName, PluginChange>,
    graph: &[String],
    drop: bool,
) -> ApplyPlan {
    let mut because = Vec::new();
    let mut how = How::Nothing;
    let mut refused = Vec::new();
    let mut nodes = Vec::with_capacity(difference.nodes.len());
    for (section, name, what) in &difference.nodes {
        let plugin = plugins.get(name).filter(|_| *section == "stage").cloned().unwrap_or_default();
        let mut keys = if let NodeDifference::Changed(keys) = what { keys.clone() } else { BTreeSet::new() };
        // Another file under the same name, or the same under another.
        if !plugin.other {
            keys.remove("plugin");
        } else if matches!(what, NodeDifference::Same | NodeDifference::Changed(_)) {
            keys.insert("plugin".to_owned());
        }
        let act = match what {
            NodeDifference::Added => Act::Added,
            NodeDifference::Removed => Act::Removed,
            NodeDifference::Same | NodeDifference::Changed(_) => act(&keys),
        };
        let verdict = plugin.differences.iter().map(|found| found.verdict).max().unwrap_or(Verdict::Swap);
        if verdict == Verdict::Refuse {
            let worst = plugin.differences.iter().filter(|found| found.verdict == Verdict::Refuse);
            refused.extend(worst.map(|found| format!("{section} `{name}`: {}: {}", found.what, found.reason)));
        }
        if act == Act::Removed && !drop {
            refused.push(format!("{section} `{name}` is gone, and what the job holds for it would be forgotten"));
        }
        how = how.max(match act {
            Act::Kept => How::Nothing,
            Act::Swapped => How::InPlace,
            _ => How::Exchange,
        });
        let others = keys.iter().filter(|key| !IN_PLACE.contains(&key.as_str())).map(String::as_str);
        let others: Vec<&str> = others.filter(|_| !matches!(act, Act::Added | Act::Removed)).collect();
        if !others.is_empty() {
            because.push(format!("{section} `{name}` has another {}", others.join(", ")));
        }
        if verdict == Verdict::Restart {
            because.push(format!("the state of {section} `{name}` needs it"));
        }
        let state = state(section, act, verdict, plugin.stateful);
        nodes.push(Line { section, name: name.clone(), act, keys, state, differences: plugin.differences });
    }
    if !difference.job.is_empty() {
        let keys: Vec<&str> = difference.job.iter().map(String::as_str).collect();
        because.push(format!("the job has another {}", keys.join(", ")));
    }
    if how == How::Exchange {
        because.extend(graph.iter().cloned());
    }
    if !because.is_empty() {
        how = How::Restart;
    }
    if difference.job.contains("name") {
        refused.push("the file is one of another job: its `name` differs".to_owned());
    }
    ApplyPlan { how, job: difference.job.clone(), nodes, because, refused }
}

fn act(keys: &BTreeSet<String>) -> Act {
    let only = |known: &[&str]| keys.iter().all(|key| known.contains(&key.as_str()));
    match keys {
        keys if keys.is_empty() => Act::Kept,
        _ if only(&["plugin", "config"]) => Act::Swapped,
        keys if keys.contains("input") || keys.contains("inputs") => Act::Rewired,
        _ if only(&["plugin", "config", "parallelism"]) => Act::Rescaled,
        _ => Act::Changed,
    }
}

fn state(section: &str, act: Act, verdict: Verdict, stateful: bool) -> &'static str {
    match (section, act) {
        ("source", Act::Added) => "reads from its beginning",
        ("source", Act::Removed) => "its position is forgotten",
        ("source", _) => "goes on from its position",
        ("sink", Act::Added) => "gets rows from here on",
        ("sink", Act::Removed) => "what it has shown stays",
        ("sink", _) => "what it has shown stays",
        (_, Act::Added) => "starts empty",
        (_, Act::Removed) => "its state is forgotten",
        (_, Act::Swapped) if verdict == Verdict::Migrate => "its state is migrated",
        _ if !stateful => "has no state",
        (_, Act::Rescaled) => "keeps its state, dealt over its tasks",
        _ => "keeps its state",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).expect("a name")
    }

    fn changed(keys: &[&str]) -> NodeDifference {
        NodeDifference::Changed(keys.iter().map(|key| (*key).to_owned()).collect())
    }

    fn plan(node: (&'static str, NodeDifference), plugin: PluginChange, job: &[&str], drop: bool) -> ApplyPlan {
        let nodes = vec![("source", name("in"), NodeDifference::Same), (node.0, name("it"), node.1)];
        let job = job.iter().map(|key| (*key).to_owned()).collect();
        decide(&JobDifference { job, nodes }, &[(name("it"), plugin)].into(), &[], drop)
    }

    fn found(verdict: Verdict) -> PluginChange {
        let differences = vec![Difference { what: "space", reason: "so".into(), verdict }];
        PluginChange { other: true, differences, stateful: true }
    }

    #[test]
    fn what_differs_decides_how_the_change_is_made() {
        let same = PluginChange { other: false, differences: vec![], stateful: true };
        let other = PluginChange { other: true, ..same.clone() };
        let cases = [
            (NodeDifference::Same, &same, Act::Kept, How::Nothing),
            // The file of the plugin was built anew.
            (NodeDifference::Same, &other, Act::Swapped, How::InPlace),
            // The same bytes under another name.
            (changed(&["plugin"]), &same, Act::Kept, How::Nothing),
            (changed(&["plugin"]), &other, Act::Swapped, How::InPlace),
            (changed(&["config"]), &same, Act::Swapped, How::InPlace),
            (changed(&["parallelism"]), &same, Act::Rescaled, How::Exchange),
            (changed(&["config", "parallelism"]), &other, Act::Rescaled, How::Exchange),
            (changed(&["input", "parallelism"]), &same, Act::Rewired, How::Exchange),
            (changed(&["input", "limits"]), &same, Act::Rewired, How::Restart),
            (changed(&["window"]), &same, Act::Changed, How::Restart),
            (NodeDifference::Added, &same, Act::Added, How::Exchange),
        ];
        for (what, plugin, act, how) in cases {
            let plan = plan(("stage", what.clone()), plugin.clone(), &[], false);
            assert_eq!((plan.nodes[1].act, plan.how), (act, how), "{what:?}");
            assert!(plan.refused.is_empty() && plan.nodes[0].act == Act::Kept);
            assert_eq!(plan.because.is_empty(), how != How::Restart, "{plan:?}");
            assert_eq!(
                plan.swapped().count() == 1,
                plan.nodes[1].keys.iter().any(|key| ["plugin", "config"].contains(&key.as_str()))
            );
        }
        let why = ["it has lanes".to_owned()];
        let difference = JobDifference { job: [].into(), nodes: vec![("sink", name("it"), NodeDifference::Added)] };
        let plan_of = |why: &[String]| decide(&difference, &BTreeMap::new(), why, false);
        assert_eq!(
            (plan_of(&[]).how, plan_of(&why).how, plan_of(&why).because),
            (How::Exchange, How::Restart, why.to_vec())
        );
        assert_eq!(plan(("sink", changed(&["path"])), same.clone(), &[], false).how, How::Restart);
        assert_eq!(plan(("stage", NodeDifference::Same), same.clone(), &["epoch"], false).how, How::Restart);
        let renamed = plan(("stage", NodeDifference::Same), same, &["name"], false);
        assert!(renamed.refused[0].contains("another job"), "{renamed:?}");
    }

    #[test]
    fn a_plugin_that_cannot_take_over_is_refused_and_one_that_needs_it_restarts_the_job() {
        let of = |verdict| plan(("stage", changed(&["plugin"])), found(verdict), &[], false);
        assert_eq!(
            (of(Verdict::Migrate).how, of(Verdict::Migrate).nodes[1].state),
            (How::InPlace, "its state is migrated")
        );
        assert_eq!(of(Verdict::Restart).how, How::Restart);
        assert_eq!(of(Verdict::Refuse).refused, ["stage `it`: space: so"]);
    }

    #[test]
    fn what_goes_must_be_allowed_to() {
        let gone = |drop| plan(("stage", NodeDifference::Removed), PluginChange::default(), &[], drop);
        assert!(gone(false).refused[0].contains("is gone") && gone(true).refused.is_empty());
        assert_eq!(gone(true).nodes[1].state, "its state is forgotten");
    }
}
