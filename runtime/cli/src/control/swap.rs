//! Another plugin in a stage of the job that runs.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use wasmill_contract::{OpenError, OperatorContext, OperatorError, OperatorFactory, Share};
use wasmill_control::compatibility::{self, Verdict};
use wasmill_control::local::{Answer, Refusal};
use wasmill_engine::SwapError;
use wasmill_model::NodeName;
use wasmill_spec::{PluginRef, did_you_mean, listed};
use wasmill_store::{MemoryState, StateBackend};

use super::{Control, Current};
use crate::plugins::{self, Unusable};
use crate::{assemble, kept_plugins};

pub(super) async fn swap(control: &Control, current: &Current, stage: NodeName, plugin: String) -> Answer {
    let Some(spec) = control.assembled.spec.stages.get(&stage) else {
        let known: Vec<&str> = control.assembled.spec.stages.keys().map(NodeName::as_str).collect();
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
    let Some(old) = control.factory(&stage) else { return Err(Refusal::new("the stage has no plugin")) };
    let (from, to) = (old.digest().to_string(), factory.digest().to_string());
    if from == to {
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
            Verdict::Restart => refusal.hint("name it in the job file, stop the job, and run it again"),
            _ => refusal.hint("`wasmill diff OLD NEW` shows every difference"),
        });
    }
    warm(&stage, &*factory).await.map_err(|error| Refusal::new(format!("{named}: {error}")))?;
    kept_plugins::keep(&control.dir, &to, &bytes)
        .map_err(|error| Refusal::new(format!("cannot keep the plugin in {}: {error}", control.dir.display())))?;
    let trial = control.assembled.can_be_read_again();
    let swapped = current.remote.swap(&stage, Arc::clone(&factory), trial).await.map_err(|error| match error {
        SwapError::Refused { reason } => Refusal::new(format!("{named}: {reason}; the plugin before goes on")),
        error => Refusal::new(error.to_string()),
    })?;
    control.set_factory(&stage, factory);
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

fn unusable(unusable: Unusable) -> Refusal {
    let refusal = Refusal::new(unusable.message);
    match unusable.hint {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}

/// Opens an instance that nothing is given to: what fails there need not stop the job for a moment.
async fn warm(stage: &NodeName, factory: &dyn OperatorFactory) -> Result<(), OperatorError> {
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
