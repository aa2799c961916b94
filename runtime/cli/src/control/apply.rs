//! Another job file for the job that runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use wasmill_contract::OperatorFactory;
use wasmill_control::apply::{ALLOW_DROPPED, ApplyPlan, How, PluginChange, decide};
use wasmill_control::compatibility;
use wasmill_control::local::{Answer, Refusal};
use wasmill_model::NodeName;
use wasmill_spec::{PluginRef, StateSpec};

use super::swap::{self, Candidate};
use super::{Control, Current, locked};
use crate::assemble::{self, Assembled, Place};
use crate::failure::Failure;
use crate::overrides::Override;
use crate::{kept_plugins, plugins};

/// What somebody wants.
pub(super) struct Asked {
    pub(super) file: PathBuf,
    pub(super) set: Vec<String>,
    pub(super) allow_dropped: bool,
    pub(super) only_plan: bool,
}

/// A job that is to take the place of the one that runs, once that has ended at an epoch.
pub(crate) struct Replacement {
    pub(crate) assembled: Arc<Assembled>,
    pub(crate) allow_dropped: bool,
    pub(crate) revision: u64,
}

/// What became of the last job file that ended the job before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    /// Counts them, since the process was started.
    pub(crate) revision: u64,
    /// Why the job goes on as it was.
    pub(crate) refused: Option<String>,
}

/// How a job is to go on with another file.
pub(crate) struct Wish {
    /// What the job holds for nodes that are gone may be forgotten.
    pub(crate) allow_dropped: bool,
    /// Only say what it changes.
    pub(crate) only_plan: bool,
    /// The number of the file, which the first epoch of another graph says.
    pub(crate) number: Option<u64>,
}

pub(super) async fn apply(control: &Control, current: &Current, asked: Asked) -> Answer {
    let Some(topics) = &control.topics else {
        return Err(Refusal::new("a job of a service gets another file by being deployed again"));
    };
    let sets = asked.set.iter().map(|set| set.parse::<Override>()).collect::<Result<Vec<_>, _>>();
    let sets = sets.map_err(|why| Refusal::new(format!("--set: {why}")))?;
    // As the job was started: paths are written the same way.
    let here = std::env::current_dir().unwrap_or_default();
    let file = asked.file.strip_prefix(&here).unwrap_or(&asked.file);
    let spec = assemble::read(file, &sets).map_err(refusal)?;
    let place =
        Place { base_dir: None, state_dir: Some(&control.dir), topics, plugins: control.store.as_deref(), fence: None };
    let new = Arc::new(assemble::assemble(spec, &control.plugins, &place).await.map_err(refusal)?);
    let Asked { allow_dropped, only_plan, .. } = asked;
    let (how, mut answer) = change(control, current, &new, &Wish { allow_dropped, only_plan, number: None }).await?;
    if how == How::Restart && !only_plan {
        let revision = control.applied.revision + 1;
        answer["revision"] = json!(revision);
        let replacement = Replacement { assembled: new, allow_dropped, revision };
        if locked(&control.replacement).replace(replacement).is_some() {
            return Err(Refusal::new("another job file is being applied"));
        }
        control.stopping.store(true, Ordering::Relaxed);
        current.remote.stop();
    }
    Ok(answer)
}

/// Has the job go on with another file, where it need not end for it. Says what that changes, and how; nothing was
/// done where that is a restart.
pub(super) async fn change(
    control: &Control,
    current: &Current,
    new: &Arc<Assembled>,
    wish: &Wish,
) -> Result<(How, Value), Refusal> {
    let old = control.assembled();
    let mut stages = BTreeMap::new();
    for (name, now) in new.spec.stages.keys().filter_map(|name| Some((name, new.factory(name)?))) {
        if let Some(runs) = control.factory(name).filter(|_| old.spec.stages.contains_key(name)) {
            stages.insert(
                name.clone(),
                compared(&runs, now).await.map_err(|why| Refusal::new(format!("stage `{name}`: {why}")))?,
            );
        }
    }
    let mut graph = match wasmill_plan::exchange(&old.planned.plan, &new.planned.plan) {
        Ok(exchange) => exchange.opened.iter().filter_map(|node| keeps_on_disk(new, node)).collect(),
        Err(why) => why,
    };
    if locked(&control.trials).any() {
        graph.push("a plugin runs beside that of a stage".to_owned());
    }
    let plan = decide(&old.spec.difference(&new.spec), &stages, &graph, wish.allow_dropped);
    let mut answer = said(&plan);
    if wish.only_plan {
        return Ok((plan.how, answer));
    }
    if !plan.refused.is_empty() {
        let refusal = Refusal::new(format!("the job goes on as it is: {}", plan.refused.join("; ")));
        let gone = plan.refused.iter().any(|why| why.contains("is gone"));
        return Err(if gone { refusal.hint(ALLOW_DROPPED) } else { refusal });
    }
    match plan.how {
        How::Nothing => control.set_assembled(Arc::clone(new)),
        How::InPlace => {
            answer["swaps"] = in_place(control, current, &plan, new).await?;
            control.set_assembled(Arc::clone(new));
        }
        How::Exchange => answer["swaps"] = exchange(control, current, &plan, new, &mut answer, wish).await?,
        How::Restart | How::Start => {}
    }
    Ok((plan.how, answer))
}

/// Why a stage cannot be opened while the job runs: its files of state belong to the start of a job.
fn keeps_on_disk(new: &Assembled, stage: &NodeName) -> Option<String> {
    let on_disk = matches!(new.spec.state, StateSpec::Disk { .. });
    let keeps = new.factory(stage).is_some_and(|factory| !factory.descriptor().spaces.is_empty());
    (on_disk && keeps).then(|| format!("stage `{stage}` keeps its state on disk"))
}

fn said(plan: &ApplyPlan) -> Value {
    serde_json::to_value(plan).unwrap_or_default()
}

async fn compared(runs: &Arc<dyn OperatorFactory>, now: &Arc<dyn OperatorFactory>) -> Result<PluginChange, String> {
    let unknown = compatibility::ask(runs.descriptor(), &**now).await.map_err(|error| error.to_string())?;
    Ok(PluginChange {
        other: runs.digest() != now.digest(),
        differences: compatibility::compare(runs.descriptor(), now.descriptor(), &unknown),
        stateful: !now.descriptor().spaces.is_empty() || now.descriptor().aggregate,
    })
}

/// Swaps stage after stage. Where one cannot be, those before go back to what they were.
async fn in_place(control: &Control, current: &Current, plan: &ApplyPlan, new: &Assembled) -> Result<Value, Refusal> {
    let mut done: Vec<(NodeName, Arc<dyn OperatorFactory>)> = Vec::new();
    let mut answers = Vec::new();
    for stage in plan.swapped() {
        let Some(before) = control.factory(stage) else { continue };
        match in_stage(control, current, plan, new, stage).await {
            Ok(answer) => {
                answers.push(answer);
                done.push((stage.clone(), before));
            }
            Err(refusal) => {
                for (stage, before) in done.iter().rev() {
                    let named = PluginRef::Digest(before.digest());
                    let candidate = Candidate::of(named, Arc::clone(before), Vec::new());
                    if let Err(why) = swap::take_over(control, current, stage, &candidate).await {
                        tracing::warn!(stage = stage.as_str(), "it cannot go back: {}", why.message);
                    }
                }
                return Err(refusal);
            }
        }
    }
    Ok(Value::Array(answers))
}

/// Swaps what has another plugin, then goes on with the other graph.
async fn exchange(
    control: &Control,
    current: &Current,
    plan: &ApplyPlan,
    new: &Arc<Assembled>,
    answer: &mut Value,
    wish: &Wish,
) -> Result<Value, Refusal> {
    let (old, graph) = (control.assembled(), new.planned.plan.clone());
    let nodes = new.parts(|sink| sink);
    for stage in new.spec.stages.keys().filter(|stage| !old.spec.stages.contains_key(*stage)) {
        let Some(factory) = new.factory(stage) else { continue };
        swap::warm(stage, &**factory).await.map_err(|error| {
            Refusal::new(format!("the job goes on as it is: stage `{stage}` cannot be opened: {error}"))
        })?;
    }
    let swaps = in_place(control, current, plan, new).await?;
    let made = Arc::new(AtomicBool::new(false));
    let behind = {
        let (graphs, assembled, made) = (current.graphs.clone(), Arc::clone(&control.assembled), Arc::clone(&made));
        let (graph, nodes, new, number) = (graph.clone(), nodes.clone(), Arc::clone(new), wish.number);
        Box::new(move |epoch| {
            made.store(true, Ordering::Release);
            graphs.go_on(epoch, &old.planned.plan, &graph, &nodes, number);
            *locked(&assembled) = new;
        })
    };
    // An attempt that is made again may find an epoch of the old graph.
    control.allows_dropped.fetch_or(wish.allow_dropped, Ordering::Relaxed);
    match current.remote.exchange(graph, nodes, behind).await {
        Ok(exchanged) => {
            control.set_assembled(Arc::clone(new));
            answer["epoch"] = json!(exchanged.epoch);
            answer["pause_micros"] = json!(u64::try_from(exchanged.pause.as_micros()).unwrap_or(u64::MAX));
            Ok(swaps)
        }
        Err(error) => {
            let swapped = if plan.swapped().next().is_some() { ", but for the plugins that were swapped" } else { "" };
            let refusal = Refusal::new(format!("the job goes on as it is{swapped}: {error}"));
            // Whether an epoch of the new graph has become durable is not known then.
            Err(Refusal { undecided: made.load(Ordering::Acquire), ..refusal })
        }
    }
}

async fn in_stage(control: &Control, current: &Current, plan: &ApplyPlan, new: &Assembled, stage: &NodeName) -> Answer {
    let (spec, Some(factory)) = (&new.spec.stages[stage], new.factory(stage)) else {
        return Err(Refusal::new(format!("stage `{stage}` has no plugin")));
    };
    let path = match &spec.plugin {
        PluginRef::Path(path) => new.spec.resolve(path),
        PluginRef::Standard(_) | PluginRef::Digest(_) => PathBuf::new(),
    };
    let bytes = plugins::bytes_of(&spec.plugin, Path::new(&path), control.store.as_deref());
    let bytes = bytes.map_err(|unusable| refusal(unusable.into()))?;
    swap::warm(stage, &**factory).await.map_err(|error| Refusal::new(format!("{}: {error}", spec.plugin)))?;
    kept_plugins::keep(&control.dir, &factory.digest().to_string(), &bytes)
        .map_err(|error| Refusal::new(format!("cannot keep the plugin in {}: {error}", control.dir.display())))?;
    let line = plan.nodes.iter().find(|line| line.name == *stage);
    let differences = line.map(|line| line.differences.clone()).unwrap_or_default();
    let candidate = Candidate::of(spec.plugin.clone(), Arc::clone(factory), differences);
    swap::take_over(control, current, stage, &candidate).await
}

fn refusal(failure: Failure) -> Refusal {
    let refusal = Refusal::new(failure.message());
    match failure {
        Failure::Said { hints, .. } => hints.into_iter().fold(refusal, Refusal::hint),
        _ => refusal,
    }
}
