//! A shadow of an aggregate: [`crate::shadow`] has what it finds.
//!
//! It has windows of its own, which are those of the slot as they stood behind a cut, and folds into them what the
//! slot folds. Nothing of them is part of an epoch. Both fire at the same moments.
//!
//! # Comparing
//! One firing may take several calls, and where both have other panes these are dealt to other calls. So what
//! differs waits, with what comes behind it, until the firing is over, and is compared as a whole. More than
//! [`PENDING_ROWS_MAX`] do not wait: then differences are counted, but rows that are only later count as well.
//!
//! # Bounds
//! As those of the shadow of an operator. Its windows take [`VIEW_BYTES_MAX`] at most in one task, and hold no
//! more accumulators than those of the slot may.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmill_contract::{Aggregate, OperatorContext, OperatorError, OperatorFactory};
use wasmill_model::{Batch, Timestamp};
use wasmill_order::Windows;

use super::beside::open_beside;
use super::folding::{Added, Folding};
use super::{PANES_MAX, RESULTS, finish, pane_batch};
use crate::operator_slot::{Moment, Produced};
use crate::shadow::{
    Difference, DifferenceKind, FAILURES_MAX, Given, ShadowReport, VIEW_BYTES_MAX, Way, compare_panes, text,
};

/// Rows of one firing that wait to be compared.
const PENDING_ROWS_MAX: usize = 65_536;

/// An aggregate on a view of the windows of another.
pub(super) struct Shadow {
    factory: Arc<dyn OperatorFactory>,
    report: Arc<ShadowReport>,
    /// `None`: it rests until the next cut.
    aggregate: Option<Box<dyn Aggregate>>,
    windows: Windows,
    accumulators_max: u64,
    /// What both have given in this firing, where that differs.
    pending: [Given; 2],
    /// Epochs in a row at whose cut it rested.
    failures: u32,
}

/// A call of it fails, or it cannot go on: at a key, for a reason.
struct Failure {
    key: String,
    cause: OperatorError,
}

impl Shadow {
    /// Opens it on the windows of a slot, of which an epoch has just ended.
    pub(super) async fn open(
        factory: Arc<dyn OperatorFactory>,
        report: Arc<ShadowReport>,
        context: OperatorContext,
        windows: &Windows,
        accumulators_max: u64,
    ) -> Result<Self, OperatorError> {
        let (aggregate, windows) = begin(&*factory, context, windows).await?;
        let aggregate = Some(aggregate);
        Ok(Self { factory, report, aggregate, windows, accumulators_max, pending: Default::default(), failures: 0 })
    }

    /// Whether it is of no use any more.
    pub(super) fn gave_up(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// The same rows as the old one was given, which produced this.
    pub(super) async fn process(&mut self, input: &Batch, at: Moment, produced: &Produced) {
        if self.aggregate.is_none() {
            return;
        }
        let mut new = Given::default();
        match self.fold_all(input, at, &mut new).await {
            Ok(()) => self.compare(&Given::of(produced), &new),
            Err(failure) => self.fail(failure),
        }
    }

    /// What is due fires, as what the old one has fired just now; `None` once nothing is due there.
    pub(super) async fn fire(&mut self, at: Moment, produced: Option<&Produced>) {
        let last = produced.is_none();
        let [mut old, mut new] = std::mem::take(&mut self.pending);
        if let Some(produced) = produced {
            old.push(Given::of(produced).outputs);
        }
        while self.aggregate.is_some() {
            match self.fire_up_to((at.watermark, at.wall), at, &mut new).await {
                Ok(true) if last => {}
                Ok(_) => break,
                Err(failure) => self.fail(failure),
            }
        }
        if self.aggregate.is_none() {
            return;
        }
        if last || old.is_same(&new) || old.rows().max(new.rows()) > PENDING_ROWS_MAX {
            self.compare(&old, &new);
        } else {
            self.pending = [old, new];
        }
    }

    /// When the wall clock makes a window of it fire next.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.aggregate.as_ref().and_then(|_| self.windows.next_deadline())
    }

    /// Behind a cut of the old one, which has these windows: begins anew where it rests.
    pub(super) async fn cut(&mut self, context: OperatorContext, own: &Windows) {
        if self.aggregate.is_some() {
            self.failures = 0;
            // No epoch has them.
            let _changes = self.windows.take_changes();
            if self.windows.bytes() > VIEW_BYTES_MAX {
                self.rest();
            }
        }
        if self.aggregate.is_none() {
            self.failures += 1;
            self.report.restarted();
            if self.failures < FAILURES_MAX {
                match begin(&*self.factory, context, own).await {
                    Ok((aggregate, windows)) => (self.aggregate, self.windows) = (Some(aggregate), windows),
                    Err(cause) => self.fail(Failure { key: String::new(), cause }),
                }
            }
            if self.gave_up() {
                self.report.gave_up();
            }
        }
    }

    fn rest(&mut self) {
        self.aggregate = None;
        self.pending = Default::default();
    }

    /// It counts as a difference.
    fn fail(&mut self, failure: Failure) {
        let Failure { key, cause } = failure;
        let reason = Some(cause.to_string());
        let kind = DifferenceKind::Failed;
        self.report.add(kind, || Difference { kind, way: None, key, old: None, new: None, reason });
        self.rest();
    }

    /// Until a window has fired there is nothing to compare.
    fn compare(&self, old: &Given, new: &Given) {
        if old.rows() + new.rows() > 0 {
            compare_panes(old, new, &self.report);
        }
    }

    async fn fold_all(&mut self, input: &Batch, at: Moment, given: &mut Given) -> Result<(), Failure> {
        let key = |rows: &Batch| rows.keys().iter().next().map(text).unwrap_or_default();
        let mut open = VecDeque::from([input.clone()]);
        while let Some(rows) = open.pop_front() {
            let Some(aggregate) = &mut self.aggregate else { return Ok(()) };
            let failed = |cause| Failure { key: key(&rows), cause };
            let folding = Folding::assign(&mut self.windows, &rows, at.wall).map_err(host).map_err(failed)?;
            let folded = match folding.call() {
                None => None,
                Some((accumulators, groups, rows)) => {
                    aggregate.context().begin_call(at.watermark, at.wall);
                    let folded = aggregate.fold(accumulators, groups, rows).await;
                    aggregate.context().forget_call();
                    Some(folded.map_err(failed)?)
                }
            };
            let added = folding.store(&mut self.windows, folded.as_ref()).map_err(host).map_err(failed)?;
            let Added { rejected, rest, .. } = added;
            given.push(rejected.map(|(rows, _)| (Way::Rejected, rows)));
            open.extend(rest);
            while self.fire_up_to((Timestamp::MIN, Timestamp::MIN), at, given).await? {}
        }
        let (held, max) = (self.windows.held() as u64, self.accumulators_max);
        if held > max {
            let limit = format!("its windows hold {held} accumulators, and may hold {max}");
            return Err(Failure { key: key(input), cause: OperatorError::Limit { call: "fold", limit } });
        }
        Ok(())
    }

    /// Fires what is due, at most one call's worth of panes. Whether something was.
    async fn fire_up_to(
        &mut self,
        due: (Timestamp, Timestamp),
        at: Moment,
        given: &mut Given,
    ) -> Result<bool, Failure> {
        let Some(fired) = self.windows.fire(due.0, due.1, PANES_MAX) else { return Ok(false) };
        let Some(aggregate) = &mut self.aggregate else { return Ok(false) };
        let results = finish(&mut **aggregate, &fired, at).await;
        aggregate.context().forget_call();
        let key = || fired.panes.keys.iter().next().map(text).unwrap_or_default();
        let results = results.map_err(|cause| Failure { key: key(), cause })?;
        given.push(pane_batch(&mut self.windows, &fired, results, at).map(|batch| (Way::Port(RESULTS), batch)));
        Ok(true)
    }
}

/// A fresh instance, and windows as these are.
async fn begin(
    factory: &dyn OperatorFactory,
    context: OperatorContext,
    windows: &Windows,
) -> Result<(Box<dyn Aggregate>, Windows), OperatorError> {
    let bytes = windows.bytes();
    if bytes > VIEW_BYTES_MAX {
        let limit = format!("the windows of a task take {bytes} bytes, and those of a shadow at most {VIEW_BYTES_MAX}");
        return Err(OperatorError::Limit { call: "open", limit });
    }
    Ok((open_beside(factory, context).await?, windows.clone()))
}

fn host(error: wasmill_order::OrderError) -> OperatorError {
    OperatorError::Host { call: "fold", reason: error.to_string() }
}
