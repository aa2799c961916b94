//! Another plugin for the operator of a slot, behind a cut: the protocol stands in [`crate::swap`].

use std::sync::Arc;

use wasmill_contract::{OpenError, Operator, OperatorContext, OperatorError, OperatorFactory, StagePlugin};
use wasmill_env::planted;
use wasmill_model::{Epoch, SpaceMigration};

use super::{History, Moment, OperatorSlot};
use crate::history::Call;
use crate::migration::{MIGRATED_BYTES_MAX, migrate};

/// What a slot has of a plugin that is to replace its own.
#[derive(Default)]
pub(super) struct Swap {
    /// What the operator was last given, to see whether the new one can do it.
    last: Option<(Moment, Call)>,
    /// The new one, with the state. The old one has none meanwhile.
    candidate: Option<Box<dyn Operator>>,
    /// Whether the state of the candidate is another than the cut has.
    migrated: bool,
    /// The plugin that the next cut has to name.
    pub(super) changed: Option<Arc<StagePlugin>>,
}

impl OperatorSlot {
    /// Keeps the last call that succeeded: its rows are shared.
    pub(super) fn keep_last(&mut self, call: &Call, at: Moment) {
        if matches!(call, Call::Rows(..)) {
            self.swap.last = Some((at, call.clone()));
        }
    }

    /// Behind a cut: opens the new plugin on the state, and tries it. Where it fails everything is as
    /// before.
    pub(super) async fn prepare_swap(&mut self, factory: &dyn OperatorFactory) -> Result<(), OperatorError> {
        let last = self.swap.last.clone();
        let migrations = factory.descriptor().migrations_from(&self.plugin.factory().descriptor().spaces);
        let context = self.instance.context().take();
        match try_out(factory, context, last, &migrations).await {
            Ok(new) => {
                self.swap.migrated = !migrations.is_empty();
                self.swap.candidate = Some(new);
                Ok(())
            }
            Err(OpenError { cause, context }) => {
                *self.instance.context() = context;
                Err(cause)
            }
        }
    }

    /// Goes on with the new plugin, or with the old one.
    pub(super) fn settle_swap(&mut self, factory: &Arc<dyn OperatorFactory>, take: bool, trial: Option<Epoch>) {
        let Some(mut candidate) = self.swap.candidate.take() else { return };
        if !take {
            *self.instance.context() = undone(candidate.close());
            return;
        }
        // Another instance said and did that already, when the plugin was tried.
        candidate.context().forget_call();
        self.instance.0 = Some(candidate);
        self.plugin.replace(Arc::clone(factory), trial);
        let descriptor = factory.descriptor();
        self.watermarks = descriptor.watermarks;
        self.history = (!descriptor.spaces.is_empty()).then(History::default);
        self.swap.changed = Some(Arc::new(StagePlugin::of(&**factory)));
        if std::mem::take(&mut self.swap.migrated) {
            // Part of the next cut, and what a call that fails goes back to.
            self.complete();
        }
    }
}

/// An instance on the state, that has shown that the plugin can do what the one before was last given.
async fn try_out(
    factory: &dyn OperatorFactory,
    context: OperatorContext,
    last: Option<(Moment, Call)>,
    migrations: &[SpaceMigration],
) -> Result<Box<dyn Operator>, OpenError> {
    let open = async |context| factory.open(context).await.map_err(|failed| *failed);
    let failed = |OpenError { cause, context }| OpenError { cause, context: undone(context) };
    let mut operator = open(context).await.map_err(failed)?;
    if let Err(cause) = migrate(&mut *operator, migrations, MIGRATED_BYTES_MAX).await {
        return Err(OpenError { cause, context: undone(operator.close()) });
    }
    let Some((at, Call::Rows(port, rows))) = last else { return Ok(operator) };
    operator.context().begin_call(at.watermark, at.wall);
    let processed = operator.process(port, &rows).await;
    let flushed = match processed {
        Ok(_) => operator.flush().await,
        Err(cause) => Err(cause),
    };
    let mut context = operator.close();
    match flushed {
        // The instance remembers what it was given: another takes its place. Both calls have one mark.
        Ok(()) => {
            if !planted("swap-trial-counts") {
                context.state.undo();
            }
            context.forget_call();
            open(context).await.map_err(failed)
        }
        Err(cause) => Err(OpenError { cause, context: undone(context) }),
    }
}

/// The context as of the cut.
fn undone(mut context: OperatorContext) -> OperatorContext {
    if !planted("swap-trial-counts") {
        context.state.revert();
    }
    context.forget_call();
    context
}
