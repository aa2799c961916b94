//! A shadow in a slot: [`crate::shadow`] has what it finds.
//!
//! # Bounds
//! A call of it has the limits of a call of the stage. After one that fails it rests until the next cut,
//! where it begins anew on the state of the old one; after [`FAILURES_MAX`] in a row it ends. Its view holds
//! [`VIEW_BYTES_MAX`] at most, else it begins anew, too.

use std::sync::Arc;

use wasmill_contract::{Operator, OperatorContext, OperatorError, OperatorFactory, Share};
use wasmill_model::{Clock, KeyGroup, NodeName, Outcome, Timestamp};
use wasmill_order::{TimerEntry, Timers};
use wasmill_store::{Fork, Viewed};
use wasmill_tenancy::Account;

use super::beside::rows_of;
use super::{FIRINGS_MAX, Moment, OperatorSlot, Produced, apply_timers, call_operator, now};
use crate::history::Call;
use crate::migration::migrate;
use crate::outcome;
use crate::shadow::{
    Difference, DifferenceKind, FAILURES_MAX, Given, ShadowReport, VIEW_BYTES_MAX, Way, compare, text,
};

/// How many times it may fire timers at one moment without the old one firing any.
const ROUNDS_MAX: u32 = 64;

/// A plugin on a view of the state of another.
pub(super) struct Shadow {
    factory: Arc<dyn OperatorFactory>,
    report: Arc<ShadowReport>,
    fork: Fork,
    /// `None`: it rests until the next cut.
    operator: Option<Box<dyn Operator>>,
    timers: Timers,
    stage: NodeName,
    share: Share,
    migrations: Vec<wasmill_model::SpaceMigration>,
    /// Whose CPU time it takes.
    account: Option<Arc<Account>>,
    /// Epochs in a row at whose cut it rested.
    failures: u32,
    /// Times that it fired timers alone since something else came.
    rounds: u32,
}

/// What a shadow has of a group of keys, on its way to the one of another lane.
#[derive(Debug)]
pub(super) struct Moved {
    viewed: Viewed,
    timers: Vec<TimerEntry>,
}

impl Shadow {
    /// Opens it on a view of the state of a slot, which from here on has its state in a fork.
    pub(super) async fn open(
        factory: Arc<dyn OperatorFactory>,
        report: Arc<ShadowReport>,
        slot: &mut OperatorSlot,
    ) -> Result<Self, OperatorError> {
        let migrations = factory.descriptor().migrations_from(&slot.plugin.factory().descriptor().spaces);
        let own = slot.instance.context();
        let taken = own.take();
        let (stage, share, account) = (taken.stage.clone(), taken.share, taken.account.clone());
        let fork = Fork::new(taken.state, &factory.descriptor().spaces);
        own.state = fork.base();
        (own.watermark, own.wall) = (taken.watermark, taken.wall);
        let timers = slot.timers.clone();
        let mut shadow = Self {
            factory,
            report,
            fork,
            operator: None,
            timers,
            stage,
            share,
            migrations,
            account,
            failures: 0,
            rounds: 0,
        };
        match shadow.begin().await {
            Ok(()) => Ok(shadow),
            Err(cause) => {
                slot.instance.context().state = shadow.close();
                Err(cause)
            }
        }
    }

    /// Ends it. The state without the view.
    pub(super) fn close(mut self) -> Box<dyn wasmill_store::StateBackend> {
        self.operator = None;
        self.fork.close()
    }

    /// Whether it is of no use any more.
    pub(super) fn gave_up(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    /// A fresh instance on a fresh view.
    async fn begin(&mut self) -> Result<(), OperatorError> {
        self.fork.again();
        let mut context = OperatorContext::new(self.stage.clone(), self.share, self.fork.view());
        context.account.clone_from(&self.account);
        let mut operator = self.factory.open(context).await.map_err(|failed| failed.cause)?;
        migrate(&mut *operator, &self.migrations, VIEW_BYTES_MAX).await?;
        operator.context().forget_call();
        self.operator = Some(operator);
        Ok(())
    }

    /// Behind a cut, and behind the old one: takes out what it has of a group of keys. The instance may remember what
    /// is gone, so a fresh one takes its place. `None` where it rests.
    pub(super) async fn give(&mut self, group: KeyGroup) -> Option<Moved> {
        let operator = self.operator.take()?;
        let moved = Moved { viewed: self.fork.give(group), timers: self.timers.give(group) };
        match self.factory.open(operator.close()).await {
            Ok(mut operator) => {
                operator.context().forget_call();
                self.operator = Some(operator);
            }
            Err(failed) => {
                let at = Moment { watermark: Timestamp::MIN, wall: Timestamp::MIN, monotonic_nanos: 0 };
                self.fail(&failed.cause, None, at);
            }
        }
        Some(moved)
    }

    /// Puts in what the shadow of another lane gave. Where that one rested nothing is known of these keys, and this
    /// one rests as well.
    pub(super) fn take(&mut self, moved: Option<Moved>) {
        match moved {
            None => self.rest(),
            Some(Moved { viewed, timers }) if self.operator.is_some() => {
                self.fork.adopt(viewed);
                self.timers.load(timers);
            }
            Some(_) => {}
        }
    }

    /// A call fails: it counts as a difference.
    fn fail(&mut self, cause: &OperatorError, call: Option<&Call>, at: Moment) {
        let key = call.and_then(|call| rows_of(call, at).keys().iter().next().map(text)).unwrap_or_default();
        self.report.add(DifferenceKind::Failed, || Difference {
            kind: DifferenceKind::Failed,
            way: None,
            key,
            old: None,
            new: None,
            reason: Some(cause.to_string()),
        });
        self.rest();
    }

    fn rest(&mut self) {
        self.operator = None;
        self.fork.rest();
    }

    /// The same call as the old one was given, which produced this.
    pub(super) async fn call(&mut self, call: &Call, at: Moment, produced: &Produced) {
        self.rounds = 0;
        self.follow(call, at, produced).await;
    }

    async fn follow(&mut self, call: &Call, at: Moment, produced: &Produced) {
        let Some(operator) = &mut self.operator else { return };
        operator.context().begin_call(at.watermark, at.wall);
        let result = call_operator(&mut **operator, call, at).await;
        match result {
            Err(cause) => self.fail(&cause, Some(call), at),
            Ok(Outcome { emissions, rejected }) => {
                apply_timers(operator.context(), &mut self.timers);
                operator.context().forget_call();
                let letters = match call {
                    Call::Rows(_, rows) => outcome::rejected_rows(rows, &rejected).map(|(rows, _)| rows),
                    Call::Fired(..) | Call::Watermark { .. } => None,
                };
                let outputs = outcome::batches(emissions, &rejected, call.origin(at), at.monotonic_nanos);
                let mut new = Given::default();
                new.push(outputs.into_iter().map(|(port, batch)| (Way::Port(port), batch)));
                new.push(letters.map(|rows| (Way::Rejected, rows)));
                compare(&Given::of(produced), &new, &self.report);
                if self.fork.bytes() > VIEW_BYTES_MAX {
                    self.rest();
                }
            }
        }
    }

    /// Whether timers of the clock are due in it.
    pub(super) fn is_due(&self, clock: Clock, at: Moment) -> bool {
        self.operator.is_some() && self.timers.next_due(clock).is_some_and(|deadline| deadline <= now(clock, at))
    }

    /// When its next processing-time timer is due.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.operator.as_ref().and_then(|_| self.timers.next_due(Clock::Processing))
    }

    /// Fires its own timers, at a moment at which the old one fired its, if it had any.
    pub(super) async fn fire(&mut self, clock: Clock, at: Moment, produced: Option<&Produced>) {
        self.rounds = if produced.is_some() { 0 } else { self.rounds + 1 };
        if self.rounds > ROUNDS_MAX {
            let reason = "it sets timers that are due at once, again and again".to_owned();
            return self.fail(&OperatorError::Fatal { call: "on-timers", reason }, None, at);
        }
        let nothing = Produced::default();
        let produced = produced.unwrap_or(&nothing);
        let fired = self.timers.due(clock, now(clock, at), FIRINGS_MAX);
        if !fired.times.is_empty() {
            return self.follow(&Call::Fired(clock, Arc::new(fired)), at, produced).await;
        }
        if self.operator.is_some() {
            compare(&Given::of(produced), &Given::default(), &self.report);
        }
    }

    /// Behind a cut of the old one: flushes, and begins anew where it rests.
    pub(super) async fn cut(&mut self, own: &Timers, at: Moment) {
        if let Some(operator) = &mut self.operator {
            operator.context().begin_call(at.watermark, at.wall);
            let flushed = operator.flush().await;
            operator.context().forget_call();
            if let Err(cause) = flushed {
                self.fail(&cause, None, at);
            } else {
                self.failures = 0;
            }
            // No epoch has them.
            let _changes = self.timers.take_changes();
        }
        if self.operator.is_none() {
            self.failures += 1;
            self.report.restarted();
            self.timers = own.clone();
            if self.failures < FAILURES_MAX
                && let Err(cause) = self.begin().await
            {
                self.fail(&cause, None, at);
            }
            if self.gave_up() {
                self.report.gave_up();
            }
        }
    }
}
