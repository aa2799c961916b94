//! Another plugin in a stage of the job that runs.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use wasmill_contract::{OpenError, OperatorContext, OperatorError, OperatorFactory, Share};
use wasmill_control::compatibility::{self, Difference, Verdict};
use wasmill_control::local::{Answer, Refusal};
use wasmill_engine::SwapError;
use wasmill_model::NodeName;
use wasmill_spec::{PluginRef, did_you_mean, listed};
use wasmill_store::{MemoryState, StateBackend};

use super::{Control, Current};
use crate::plugins::{self, Unusable};
use crate::{assemble, kept_plugins};

/// A plugin that may take the place of the one of a stage.
pub(super) struct Candidate {
    /// As it was asked for.
    pub(super) named: PluginRef,
    pub(super) factory: Arc<dyn OperatorFactory>,
    pub(super) verdict: Verdict,
    differences: Vec<Difference>,
}

impl Candidate {
    /// One that was held against the one of the stage.
    pub(super) fn of(named: PluginRef, factory: Arc<dyn OperatorFactory>, differences: Vec<Difference>) -> Self {
        let verdict = compatibility::verdict(&differences);
        Self { named, factory, verdict, differences }
    }
}

/// Another plugin in a stage.
pub(super) async fn swap(control: &Control, current: &Current, stage: NodeName, plugin: String) -> Answer {
    let candidate = candidate(control, &stage, plugin).await?;
    take_over(control, current, &stage, &candidate).await
}

/// Loads a plugin, holds it against the one of a stage, opens it once, and keeps its bytes.
pub(super) async fn candidate(control: &Control, stage: &NodeName, plugin: String) -> Result<Candidate, Refusal> {
    let assembled = control.assembled();
    let Some(spec) = assembled.spec.stages.get(stage) else {
        let known: Vec<&str> = assembled.spec.stages.keys().map(NodeName::as_str).collect();
        let refusal = Refusal::new(format!("the job has no stage {stage:?}", stage = stage.as_str()));
        return Err(match did_you_mean(stage.as_str(), known.iter().copied()) {
            Some(meant) => refusal.hint(format!("did you mean `{meant}`?")),
            None if known.is_empty() => refusal,
            None => refusal.hint(format!("its stages are {}", listed(known))),
        });
    };
    let named = plugins::named(&plugin);
    let path = match &named {
        PluginRef::Path(path) => PathBuf::from(path),
        PluginRef::Standard(_) | PluginRef::Digest(_) => PathBuf::new(),
    };
    let bytes = plugins::bytes_of(&named, &path, control.store.as_deref()).map_err(unusable)?;
    let loaded = control.plugins.load_bytes(&named, Arc::clone(&bytes), plugins::limits(&spec.limits)).await;
    let factory = loaded.map_err(unusable)?.configure(assemble::config(spec)).await.map_err(|error| match error {
        OperatorError::Fatal { reason, .. } => {
            Refusal::new(format!("{named} refuses the configuration of stage `{stage}`: {reason}"))
        }
        error => Refusal::new(format!("{named}: {error}")),
    })?;
    let candidate = compared(control, stage, named, factory).await?;
    let named = &candidate.named;
    warm(stage, &*candidate.factory).await.map_err(|error| Refusal::new(format!("{named}: {error}")))?;
    kept_plugins::keep(&control.dir, &candidate.factory.digest().to_string(), &bytes)
        .map_err(|error| Refusal::new(format!("cannot keep the plugin in {}: {error}", control.dir.display())))?;
    Ok(candidate)
}

/// Holds a plugin against the one of a stage.
async fn compared(
    control: &Control,
    stage: &NodeName,
    named: PluginRef,
    factory: Arc<dyn OperatorFactory>,
) -> Result<Candidate, Refusal> {
    let Some(old) = control.factory(stage) else { return Err(Refusal::new("the stage has no plugin")) };
    let to = factory.digest();
    if old.digest() == to {
        return Err(Refusal::new(format!("stage `{stage}` runs with that plugin already: {to}")));
    }
    let asked = compatibility::ask(old.descriptor(), &*factory).await;
    let unknown = asked.map_err(|error| Refusal::new(format!("{named}: {error}")))?;
    let differences = compatibility::compare(old.descriptor(), factory.descriptor(), &unknown);
    let verdict = compatibility::verdict(&differences);
    if verdict > Verdict::Migrate {
        let why = differences.iter().filter(|difference| difference.verdict > Verdict::Migrate);
        let why: Vec<String> = why.map(|found| format!("{}: {}", found.what, found.reason)).collect();
        let refusal = Refusal::new(format!("{named} cannot take over stage `{stage}`: {}", why.join("; ")));
        return Err(match verdict {
            Verdict::Restart => {
                Refusal { by_restart: true, ..refusal.hint("name it in the job file, stop the job, and run it again") }
            }
            _ => refusal.hint("`wasmill diff OLD NEW` shows every difference"),
        });
    }
    Ok(Candidate { named, factory, verdict, differences })
}

/// The stage goes on with a plugin that may take over.
pub(super) async fn take_over(control: &Control, current: &Current, stage: &NodeName, candidate: &Candidate) -> Answer {
    let Candidate { named, factory, differences, .. } = candidate;
    let Some(old) = control.factory(stage) else { return Err(Refusal::new("the stage has no plugin")) };
    let trial = control.assembled().can_be_read_again();
    let swapped = current.remote.swap(stage, Arc::clone(factory), trial).await;
    let swapped = swapped.map_err(|error| refused(named, error))?;
    let (from, to) = (old.digest().to_string(), factory.digest().to_string());
    control.set_factory(stage, Arc::clone(factory), old);
    super::beside::swapped(control, stage);
    let pause_micros = u64::try_from(swapped.pause.as_micros()).unwrap_or(u64::MAX);
    Ok(json!({
        "stage": stage,
        "from": from,
        "to": to,
        "epoch": swapped.epoch,
        "pause_micros": pause_micros,
        "differences": differences,
    }))
}

/// The stage goes on with the plugin that it had before, on the state as it is now.
pub(super) async fn back(control: &Control, current: &Current, stage: &NodeName) -> Answer {
    let Some(before) = control.factory_before(stage) else {
        let refusal = Refusal::new(format!("stage `{stage}` has had no other plugin since the job was started"));
        return Err(refusal.hint(format!("to go on with another one: wasmill swap JOB {stage} PLUGIN")));
    };
    let named = PluginRef::Digest(before.digest());
    let candidate = compared(control, stage, named, before).await?;
    let swapped = take_over(control, current, stage, &candidate).await?;
    control.forget_before(stage);
    Ok(swapped)
}

/// Why the old plugin goes on.
pub(super) fn refused(named: &PluginRef, error: SwapError) -> Refusal {
    match error {
        SwapError::Refused { reason } => Refusal::new(format!("{named}: {reason}; the plugin before goes on")),
        error => Refusal::new(error.to_string()),
    }
}

fn unusable(unusable: Unusable) -> Refusal {
    let refusal = Refusal::new(unusable.message);
    match unusable.hint {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}

/// Opens an instance that nothing is given to: what fails there need not stop the job for a moment.
pub(super) async fn warm(stage: &NodeName, factory: &dyn OperatorFactory) -> Result<(), OperatorError> {
    let mut state = MemoryState::default();
    state.declare(&factory.descriptor().spaces);
    let context = OperatorContext::new(stage.clone(), Share::WHOLE, Box::new(state));
    let cause = |failed: Box<OpenError>| failed.cause;
    if factory.descriptor().aggregate {
        factory.open_aggregate(context).await.map(drop).map_err(cause)
    } else {
        factory.open(context).await.map(drop).map_err(cause)
    }
}
