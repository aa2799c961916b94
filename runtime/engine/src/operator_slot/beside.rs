//! A plugin beside the one of a slot: a shadow, or one that has a share of the keys.
//!
//! # Calls
//! Where a plugin has a share of the keys, every call of the slot belongs to one of both: what comes in is
//! split by key group, the share of the slot's own plugin first. Both instances work on the same state, which
//! goes from one to the other with the call, and never touch the same keys. So there is one history, and
//! after a fault both are brought back to where they stood.

use std::sync::Arc;

use wasmill_contract::{Operator, OperatorContext, OperatorError, OperatorFactory};
use wasmill_model::{Batch, Epoch, Firings, PluginDigest, key_group};

use super::shadow::Shadow;
use super::{Fault, Moment, OperatorSlot, flush};
use crate::error::JobError;
use crate::history::Call;
use crate::metrics::NodeMetrics;
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
    watermarks: bool,
    /// Has the state only while it is called.
    operator: Option<Box<dyn Operator>>,
}

impl Canary {
    fn operator(&mut self) -> &mut dyn Operator {
        &mut **self.operator.as_mut().expect("a canary is there but while it is opened again")
    }

    pub(super) fn digest(&self) -> PluginDigest {
        self.factory.digest()
    }

    /// Whether a call of the slot is one of this plugin. All that it is given has one owner.
    pub(super) fn takes(&self, call: &Call) -> bool {
        let first = match call {
            Call::Watermark { beside } => return *beside,
            Call::Rows(_, rows) => rows.keys().iter().next(),
            Call::Fired(_, fired) => fired.keys.iter().next(),
        };
        first.is_some_and(|key| self.share.has(key_group(key)))
    }

    /// A call as one of each plugin that has a part in it, that of the slot first.
    pub(super) fn split(&self, call: Call) -> Vec<Call> {
        match call {
            Call::Watermark { .. } => {
                let beside = self.watermarks.then_some(Call::Watermark { beside: true });
                std::iter::once(Call::Watermark { beside: false }).chain(beside).collect()
            }
            Call::Rows(port, rows) => {
                let parts = self.share.parts(rows.keys().iter());
                if parts.len() == 1 {
                    return vec![Call::Rows(port, rows)];
                }
                parts.iter().map(|part| Call::Rows(port, rows.gather(part))).collect()
            }
            Call::Fired(clock, fired) => {
                let parts = self.share.parts(fired.keys.iter());
                if parts.len() == 1 {
                    return vec![Call::Fired(clock, fired)];
                }
                let part = |rows: &Vec<u32>| Firings {
                    times: rows.iter().map(|&row| fired.times[row as usize]).collect(),
                    keys: fired.keys.gather(rows),
                    tags: fired.tags.gather(rows),
                };
                parts.iter().map(|rows| Call::Fired(clock, Arc::new(part(rows)))).collect()
            }
        }
    }

    /// Lends it the state of the slot, or takes that back.
    pub(super) fn exchange(&mut self, context: &mut OperatorContext) -> &mut dyn Operator {
        let operator = self.operator();
        std::mem::swap(&mut context.state, &mut operator.context().state);
        operator
    }

    pub(super) async fn flush(
        &mut self,
        context: &mut OperatorContext,
        metrics: &NodeMetrics,
        at: Moment,
        quiet: bool,
    ) -> Result<(), Fault> {
        let flushed = flush(self.exchange(context), metrics, at, quiet).await;
        self.exchange(context);
        flushed.map_err(|fault| Fault { beside: true, ..fault })
    }

    /// A fresh instance on the same state.
    pub(super) async fn restart(&mut self, context: &mut OperatorContext) -> Result<(), OperatorError> {
        self.exchange(context);
        if let Some(operator) = self.operator.take() {
            let mut operator = self.factory.open(operator.close()).await.map_err(|failed| failed.cause)?;
            operator.context().forget_call();
            self.operator = Some(operator);
        }
        self.exchange(context);
        Ok(())
    }

    pub(super) fn is_overgrown(&self) -> bool {
        self.operator.as_ref().is_some_and(|operator| operator.is_overgrown())
    }
}

impl OperatorSlot {
    /// Behind a cut: prepares a change. Where it fails everything is as before.
    pub(crate) async fn prepare_change(&mut self, change: &Change) -> Result<(), OperatorError> {
        match change {
            Change::Swap { factory, .. } => self.prepare_swap(&**factory).await,
            Change::Beside { .. } if self.beside.is_some() => {
                let reason = "another plugin runs beside that of the stage already".to_owned();
                Err(OperatorError::Fatal { call: "open", reason })
            }
            Change::Beside { factory, beside } => {
                let prepared = match beside {
                    Kind::Shadow(report) => {
                        let report = Arc::clone(report);
                        Beside::Shadow(Shadow::open(Arc::clone(factory), report, self).await?)
                    }
                    Kind::Canary(share) => Beside::Canary(self.open_canary(factory, *share).await?),
                };
                self.prepared = Some(Box::new(prepared));
                Ok(())
            }
            // It may remember what the other has written since.
            Change::Alone if matches!(self.beside.as_deref(), Some(Beside::Canary(_))) => {
                self.restart().await.map_err(|error| OperatorError::Instance(error.to_string()))
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
                    self.end_beside();
                }
            }
            Change::Beside { .. } => match self.prepared.take().map(|prepared| *prepared) {
                Some(Beside::Shadow(shadow)) if !take => self.instance.context().state = shadow.close(),
                Some(prepared) if take => self.beside = Some(Box::new(prepared)),
                _ => {}
            },
            Change::Alone if take => self.end_beside(),
            Change::Alone => {}
        }
    }

    /// Nothing runs beside the plugin any more.
    pub(super) fn end_beside(&mut self) {
        if let Some(Beside::Shadow(shadow)) = self.beside.take().map(|beside| *beside) {
            self.instance.context().state = shadow.close();
        }
    }

    async fn open_canary(
        &mut self,
        factory: &Arc<dyn OperatorFactory>,
        share: KeyShare,
    ) -> Result<Canary, OperatorError> {
        let own = self.instance.context();
        // As another instance of the stage it has a span and times of its own.
        let mut context = own.take();
        std::mem::swap(&mut context.span, &mut own.span);
        match factory.open(context).await {
            Ok(mut operator) => {
                std::mem::swap(&mut own.state, &mut operator.context().state);
                operator.context().forget_call();
                let (factory, watermarks) = (Arc::clone(factory), factory.descriptor().watermarks);
                Ok(Canary { factory, share, watermarks, operator: Some(operator) })
            }
            Err(mut failed) => {
                std::mem::swap(&mut own.state, &mut failed.context.state);
                Err(failed.cause)
            }
        }
    }

    /// The plugin that makes what a call gives.
    pub(super) fn maker(&self, call: &Call) -> PluginDigest {
        match self.beside.as_deref() {
            Some(Beside::Canary(canary)) if canary.takes(call) => canary.digest(),
            _ => self.plugin.factory().digest(),
        }
    }

    /// The shadow, where one runs.
    pub(super) fn shadow(&mut self) -> Option<&mut Shadow> {
        match self.beside.as_deref_mut() {
            Some(Beside::Shadow(shadow)) => Some(shadow),
            _ => None,
        }
    }

    /// Behind a cut: the shadow flushes, or begins anew.
    pub(super) async fn cut_shadow(&mut self, at: Moment) {
        let Self { beside, timers, .. } = self;
        let Some(Beside::Shadow(shadow)) = beside.as_deref_mut() else { return };
        shadow.cut(timers, at).await;
        if shadow.gave_up() {
            self.end_beside();
        }
    }

    /// A fresh instance of the plugin that has a share of the keys.
    pub(super) async fn restart_canary(&mut self) -> Result<(), JobError> {
        let Self { beside, instance, plugin, .. } = self;
        let Some(Beside::Canary(canary)) = beside.as_deref_mut() else { return Ok(()) };
        canary.restart(instance.context()).await.map_err(|cause| plugin.trial_failed(&cause))
    }
}

/// What both sides of a shadow have given for the dead letters.
pub(super) fn rows_of(call: &Call, at: Moment) -> Batch {
    call.clone().into_letter(at).1
}

#[cfg(test)]
mod tests {
    use wasmill_model::{BatchBuilder, Timestamp};

    use super::*;

    /// Splits by key group and nothing else: no row is lost, none comes twice, each keeps its order.
    #[test]
    fn a_batch_is_split_by_key_group_in_order() {
        let canary = |percent| Canary {
            factory: Arc::new(crate::swap::tests::Unopened),
            share: KeyShare::percent(percent),
            watermarks: true,
            operator: None,
        };
        let mut batch = BatchBuilder::default();
        (0..1_000_u32).for_each(|row| batch.push(Timestamp(row.into()), &(row % 37).to_le_bytes(), b""));
        let batch = batch.finish(0);
        for percent in [1, 10, 50, 100] {
            let canary = canary(percent);
            let calls = canary.split(Call::Rows(3, batch.clone()));
            let mut times = Vec::new();
            for (place, call) in calls.iter().enumerate() {
                let Call::Rows(3, rows) = call else { panic!("rows stay rows of their port") };
                let beside = canary.takes(call);
                assert!(calls.len() == 1 || beside == (place == 1), "the slot's own part is first");
                assert!(rows.times().is_sorted());
                assert!(rows.keys().iter().all(|key| canary.share.has(key_group(key)) == beside));
                times.extend(rows.times().iter().copied());
            }
            times.sort_unstable();
            assert!(times == **batch.times(), "{percent} %");
        }
        let watermarks = canary(10).split(Call::Watermark { beside: false });
        assert!(matches!(watermarks[..], [Call::Watermark { beside: false }, Call::Watermark { beside: true }]));
    }
}
