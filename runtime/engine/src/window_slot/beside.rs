//! A plugin beside the aggregate of a slot: a shadow, or one that has a share of the keys.
//!
//! # Calls
//! The host keeps the accumulators. Where a plugin has a share of the keys, both instances work on the same
//! windows: rows are split by key group before they are folded, and panes before they are finished, the share of
//! the slot's own plugin first. A pane belongs to its key, so both never touch the same accumulator, and
//! windows fire as they would with one plugin. Nothing has to be brought back where the other one goes: what it
//! has folded is in the windows, and those of the epoch that is restored have what was committed.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmill_contract::{Aggregate, OperatorContext, OperatorError, OperatorFactory};
use wasmill_model::{Batch, Column, Epoch, PluginDigest, key_group};
use wasmill_order::Fired;
use wasmill_store::MemoryState;

use super::folding::part;
use super::shadow::Shadow;
use super::{WindowSlot, instance};
use crate::error::JobError;
use crate::swap::{Beside as Kind, Change, KeyShare};

/// A plugin beside the one of the slot.
#[expect(clippy::large_enum_variant, reason = "it is always in a box of its own")]
pub(super) enum Beside {
    Shadow(Shadow),
    Canary(Canary),
}

/// A plugin that has a share of the keys.
pub(super) struct Canary {
    factory: Arc<dyn OperatorFactory>,
    share: KeyShare,
    /// `None` only while another is opened in its place.
    aggregate: Option<Box<dyn Aggregate>>,
}

impl Canary {
    pub(super) fn digest(&self) -> PluginDigest {
        self.factory.digest()
    }

    pub(super) fn aggregate(&mut self) -> &mut dyn Aggregate {
        instance(&mut self.aggregate)
    }

    async fn restart(&mut self) -> Result<(), OperatorError> {
        if let Some(aggregate) = self.aggregate.take() {
            let mut aggregate = self.factory.open_aggregate(aggregate.close()).await.map_err(|failed| failed.cause)?;
            aggregate.context().forget_call();
            self.aggregate = Some(aggregate);
        }
        Ok(())
    }
}

/// A context as of another instance of the same stage, which has times and log lines of its own.
fn context_like(context: &OperatorContext) -> OperatorContext {
    let mut like = OperatorContext::new(context.stage.clone(), context.share, Box::new(MemoryState::default()));
    like.account.clone_from(&context.account);
    like
}

/// An instance that has said nothing yet.
pub(super) async fn open_beside(
    factory: &dyn OperatorFactory,
    context: OperatorContext,
) -> Result<Box<dyn Aggregate>, OperatorError> {
    let mut aggregate = factory.open_aggregate(context).await.map_err(|failed| failed.cause)?;
    aggregate.context().forget_call();
    Ok(aggregate)
}

impl WindowSlot {
    /// Behind a cut: prepares a change. Where it fails everything is as before.
    pub(crate) async fn prepare_change(&mut self, change: &Change) -> Result<(), OperatorError> {
        match change {
            Change::Swap { factory, .. } => self.prepare_swap(&**factory).await,
            Change::Beside { .. } if self.beside.is_some() => {
                let reason = "another plugin runs beside that of the stage already".to_owned();
                Err(OperatorError::Fatal { call: "open", reason })
            }
            Change::Beside { factory, beside } => {
                let context = context_like(self.aggregate().context());
                let prepared = match beside {
                    Kind::Shadow(report) => {
                        let (factory, report) = (Arc::clone(factory), Arc::clone(report));
                        let max = self.accumulators_max;
                        Beside::Shadow(Shadow::open(factory, report, context, &self.windows, max).await?)
                    }
                    Kind::Canary(share) => {
                        let aggregate = Some(open_beside(&**factory, context).await?);
                        Beside::Canary(Canary { factory: Arc::clone(factory), share: *share, aggregate })
                    }
                };
                self.prepared = Some(Box::new(prepared));
                Ok(())
            }
            Change::Alone => Ok(()),
        }
    }

    /// Makes a change that was prepared, or does without.
    pub(crate) fn settle_change(&mut self, change: &Change, take: bool, epoch: Epoch) {
        match change {
            Change::Swap { factory, trial } => {
                self.settle_swap(factory, take, trial.then_some(epoch));
                if take {
                    self.beside = None;
                }
            }
            Change::Beside { .. } => self.beside = self.prepared.take().filter(|_| take).or_else(|| self.beside.take()),
            Change::Alone if take => self.beside = None,
            Change::Alone => {}
        }
    }

    /// The plugin that has a share of the keys, where one has.
    pub(super) fn canary(&mut self) -> Option<&mut Canary> {
        match self.beside.as_deref_mut() {
            Some(Beside::Canary(canary)) => Some(canary),
            _ => None,
        }
    }

    /// The shadow, where one runs.
    pub(super) fn shadow(&mut self) -> Option<&mut Shadow> {
        match self.beside.as_deref_mut() {
            Some(Beside::Shadow(shadow)) => Some(shadow),
            _ => None,
        }
    }

    /// Whether keys, which have one owner, are those of the plugin that has a share of them.
    pub(super) fn is_beside(&self, keys: &Column) -> bool {
        let Some(Beside::Canary(canary)) = self.beside.as_deref() else { return false };
        keys.iter().next().is_some_and(|key| canary.share.has(key_group(key)))
    }

    /// The plugin that makes what a call gives.
    pub(super) fn maker(&self, beside: bool) -> PluginDigest {
        match self.beside.as_deref() {
            Some(Beside::Canary(canary)) if beside => canary.digest(),
            _ => self.plugin.factory().digest(),
        }
    }

    /// Rows as those of each plugin, that of the slot first.
    pub(super) fn split_rows(&self, rows: &Batch) -> VecDeque<Batch> {
        match self.parts(rows.keys()) {
            Some(parts) => parts.iter().map(|part| rows.gather(part)).collect(),
            None => VecDeque::from([rows.clone()]),
        }
    }

    /// Panes as those of each plugin, that of the slot first.
    pub(super) fn split_panes(&self, fired: Fired) -> VecDeque<Fired> {
        match self.parts(&fired.panes.keys) {
            Some(parts) => parts.iter().map(|some| part(&fired, some)).collect(),
            None => VecDeque::from([fired]),
        }
    }

    /// The places of the keys of each; `None` where nothing is split.
    fn parts(&self, keys: &Column) -> Option<Vec<Vec<u32>>> {
        let Some(Beside::Canary(canary)) = self.beside.as_deref() else { return None };
        let parts = canary.share.parts(keys.iter());
        (parts.len() > 1).then_some(parts)
    }

    /// Behind a cut: the shadow begins anew where it rests.
    pub(super) async fn cut_shadow(&mut self) {
        let Self { beside, windows, aggregate, .. } = self;
        let Some(Beside::Shadow(shadow)) = beside.as_deref_mut() else { return };
        shadow.cut(context_like(instance(aggregate).context()), windows).await;
        if shadow.gave_up() {
            self.beside = None;
        }
    }

    /// A fresh instance of the plugin that has a share of the keys.
    pub(super) async fn restart_canary(&mut self) -> Result<(), JobError> {
        let Some(canary) = self.canary() else { return Ok(()) };
        let restarted = canary.restart().await;
        restarted.map_err(|cause| self.plugin.trial_failed(&cause))
    }
}
