//! An operator in a task, with its timers, and what happens when one of its calls fails.
//!
//! # Faults
//! An operator may keep state in the memory of its instance until it is flushed. So the slot keeps
//! what the operator was given since its state was last complete: since the last cut, or the last
//! time it was flushed in between. After a call that fails it takes state and timers back to that
//! point, opens a fresh instance, makes the same calls again with their outputs dropped, and flushes:
//! the state is that of just before the call. Then it makes the call again in halves, each half the
//! same way, until it has the single rows or timers that fail. Those go to the dead letters; to the
//! operator they never came.
//!
//! # Ordering
//! Halves are worked off from the left: rows go on in the order they came in.

mod beside;
mod shadow;
mod swap;

use std::collections::VecDeque;
use std::sync::Arc;

use wasmill_contract::{DeadLetter, Operator, OperatorContext, OperatorError, Share, StageCut};
use wasmill_env::planted;
use wasmill_model::{
    Batch, Clock, Entries, Epoch, Firings, KEY_GROUPS, KeyGroup, LetterKind, LetterSubject, Outcome, SpaceMigration,
    Timestamp,
};
use wasmill_order::{TimerEntry, Timers};
use wasmill_store::EntryChange;
use wasmill_tenancy::Held;

use crate::error::JobError;
use crate::faults::{Attempts, Fault, Plugin, log_lines, settle};
use crate::history::{Call, History, Pending, Step};
use crate::metrics::NodeMetrics;
use crate::migration;
use crate::outcome;
use beside::Beside;
use shadow::Moved;

/// Timers that one call of an operator is given.
const FIRINGS_MAX: usize = 1_024;
/// How many times in a row timers may set timers that are due at once.
const TIMER_ROUNDS_MAX: u32 = 10_000;
/// Rows and timers after which an operator is flushed when its task is idle. A task that gets more
/// than that between two pauses is busy: there it costs less to write a key once an epoch.
const TIDY_ROWS: std::ops::RangeInclusive<usize> = 128..=1_024;
/// How often a fresh instance may fail in calls that succeeded before.
const REPLAYS_MAX: u32 = 3;

/// The times a call is made at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) watermark: Timestamp,
    pub(crate) wall: Timestamp,
    pub(crate) monotonic_nanos: u64,
}

/// What a call produced: batches by output port, and what goes to the dead-letter queue.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) outputs: Vec<(u16, Batch)>,
    pub(crate) letters: Vec<DeadLetter>,
}

/// What an operator keeps of a group of keys, on its way to another task.
#[derive(Debug, Default)]
pub(crate) struct Given {
    state: Vec<EntryChange>,
    timers: Vec<TimerEntry>,
    /// What a shadow has of it, where one runs.
    shadow: Option<Moved>,
}

impl Given {
    pub(crate) fn is_empty(&self) -> bool {
        self.state.is_empty() && self.timers.is_empty()
    }
}

/// An operator in a task, with its timers.
pub(crate) struct OperatorSlot {
    plugin: Plugin,
    instance: Instance,
    timers: Timers,
    watermarks: bool,
    /// `None` for an operator that declares no state: nothing outlives its calls.
    history: Option<History>,
    /// Rows and timers that the operator was given since it was last flushed.
    unflushed: usize,
    pending: Pending,
    swap: swap::Swap,
    /// What it holds of what its tenant may: state and timers.
    held: Option<[Held; 2]>,
    /// What runs beside the plugin.
    beside: Option<Box<Beside>>,
    /// What is about to.
    prepared: Option<Box<Beside>>,
}

/// The instance, or what is left of one that could not be replaced.
struct Instance(Option<Box<dyn Operator>>);

impl Instance {
    fn get(&mut self) -> &mut dyn Operator {
        &mut **self.0.as_mut().expect("an operator is there but while another is opened in its place")
    }

    fn context(&mut self) -> &mut OperatorContext {
        self.get().context()
    }
}

impl OperatorSlot {
    pub(crate) fn new(plugin: Plugin, mut operator: Box<dyn Operator>, timers: Timers) -> Self {
        let account = operator.context().account.as_ref();
        let held = account.map(|account| [account.state.held(), account.timers.held()]);
        let descriptor = plugin.factory().descriptor();
        let (watermarks, stateful) = (descriptor.watermarks, !descriptor.spaces.is_empty());
        let history = stateful.then(History::default);
        Self {
            plugin,
            instance: Instance(Some(operator)),
            timers,
            watermarks,
            history,
            unflushed: 0,
            pending: Pending::default(),
            swap: swap::Swap::default(),
            held,
            beside: None,
            prepared: None,
        }
    }

    /// Takes over entries of other schema versions, as part of the next cut. Nothing has happened yet.
    pub(crate) async fn migrate(&mut self, spaces: &[SpaceMigration]) -> Result<(), JobError> {
        if spaces.is_empty() {
            return Ok(());
        }
        let entries = match migration::migrate(self.instance.get(), spaces, migration::MIGRATED_BYTES_MAX).await {
            Ok(entries) => entries,
            Err(cause) => {
                let context = self.instance.context();
                let log = std::mem::take(&mut context.log);
                log_lines(context, log);
                return Err(self.plugin.failed(cause));
            }
        };
        tracing::info!(stage = %self.plugin.name(), entries, "state of an older schema version was migrated");
        self.complete();
        Ok(())
    }

    /// Puts in entries that another schema version has left, as a fresh instance takes them over.
    pub(crate) async fn migrate_entries(&mut self, of: SpaceMigration, entries: &Entries) -> Result<(), JobError> {
        let migrated = self.instance.get().migrate(of.space, of.from_version, entries).await;
        let migrated = migrated.map_err(|cause| self.plugin.failed(cause))?;
        let state = &mut self.instance.context().state;
        let put = state.put_many(of.space, &entries.keys, &entries.subkeys, &entries.values);
        let put = put.and_then(|()| state.rewrite(of.space, entries, &migrated));
        put.map_err(|error| {
            let reason = error.to_string();
            self.plugin.failed(OperatorError::Host { call: "migrate", reason })
        })?;
        self.complete();
        Ok(())
    }

    /// A fresh instance on the same state, with the same timers.
    pub(crate) async fn restart(&mut self) -> Result<(), JobError> {
        if planted("store-reused-after-trap") {
            return Ok(());
        }
        if let Some(operator) = self.instance.0.take() {
            let mut operator = self.plugin.open(operator.close()).await?;
            // The first instance has said and done that already.
            operator.context().forget_call();
            self.instance.0 = Some(operator);
        }
        self.restart_canary().await
    }

    /// Takes out what it keeps of a group of keys. An epoch has just ended: there is no history. The
    /// instance may remember what is gone, so a fresh one takes its place.
    pub(crate) async fn give(&mut self, group: KeyGroup) -> Result<Given, JobError> {
        let state = self.instance.context().state.give(group).unwrap_or_default();
        let timers = self.timers.give(group);
        let shadow = match self.shadow() {
            Some(shadow) => shadow.give(group).await,
            None => None,
        };
        self.restart().await?;
        if planted("moved-keys-forgotten") {
            return Ok(Given::default());
        }
        Ok(Given { state, timers, shadow })
    }

    /// Takes out all that it keeps, by group of keys. An epoch has just ended, and no call follows. `None` where
    /// its state cannot be moved.
    pub(crate) fn give_all(&mut self) -> Option<Vec<(KeyGroup, Given)>> {
        let groups = (0..KEY_GROUPS).map(KeyGroup);
        let Self { instance, timers, .. } = self;
        let given = groups.map(|group| {
            let state = instance.context().state.give(group)?;
            Some((group, Given { state, timers: timers.give(group), shadow: None }))
        });
        given.collect()
    }

    /// Puts in what another task gave. The instance knows nothing of these keys: it has never seen
    /// them, or was replaced when it gave them away.
    pub(crate) fn take(&mut self, given: Given) {
        self.instance.context().state.adopt(given.state);
        self.timers.load(given.timers);
        if let Some(shadow) = self.shadow() {
            shadow.take(given.shadow);
        }
    }

    /// One call, with all of its effects or none.
    async fn attempt(&mut self, call: &Call, at: Moment, quiet: bool) -> Result<Outcome, Fault> {
        let Self { plugin, instance, timers, beside, .. } = self;
        let outcome = match beside.as_deref_mut() {
            Some(Beside::Canary(canary)) if canary.takes(call) => {
                let operator = canary.exchange(instance.context());
                let result = attempt(operator, timers, plugin.metrics(), call, at, quiet).await;
                canary.exchange(instance.context());
                result.map_err(|fault| Fault { beside: true, ..fault })
            }
            _ => attempt(instance.get(), timers, plugin.metrics(), call, at, quiet).await,
        };
        self.count_held();
        outcome
    }

    /// Behind a call: what is held now.
    fn count_held(&mut self) {
        if let Some([state, timers]) = &mut self.held {
            state.set(self.instance.context().state.bytes());
            timers.set(self.timers.len() as u64);
        }
    }

    async fn flush(&mut self, at: Moment, quiet: bool) -> Result<(), Fault> {
        self.unflushed = 0;
        let Self { plugin, instance, beside, .. } = self;
        let mut flushed = flush(instance.get(), plugin.metrics(), at, quiet).await;
        if let (Ok(()), Some(Beside::Canary(canary))) = (&flushed, beside.as_deref_mut()) {
            flushed = canary.flush(instance.context(), plugin.metrics(), at, quiet).await;
        }
        self.count_held();
        flushed
    }

    /// A call succeeded for the first time: what came of it goes on, and it is remembered.
    fn accept(&mut self, call: Call, outcome: Outcome, at: Moment, produced: &mut Produced) {
        let Outcome { emissions, rejected } = outcome;
        let maker = self.maker(&call);
        if let Call::Rows(port, rows) = &call
            && let Some((rows, reasons)) = outcome::rejected_rows(rows, &rejected)
        {
            produced.letters.push(DeadLetter {
                node: self.plugin.name().clone(),
                digest: Some(maker),
                kind: LetterKind::Rejected,
                subject: LetterSubject::Row { port: *port },
                rows,
                reasons,
                stack: Vec::new(),
            });
        }
        let batches = outcome::batches(emissions, &rejected, call.origin(at), at.monotonic_nanos);
        produced.outputs.extend(batches.into_iter().map(|(port, batch)| (port, batch.with_maker(Some(maker)))));
        if !matches!(call, Call::Watermark { .. }) {
            self.plugin.succeeded();
        }
        self.keep_last(&call, at);
        self.remember(at, Step::Called(call));
    }

    fn remember(&mut self, at: Moment, step: Step) {
        if let Some(history) = &mut self.history {
            if let Step::Called(call) = &step {
                self.unflushed += call.len();
            }
            history.push(at, step);
        }
    }

    /// Makes a call, whatever it takes.
    async fn call(&mut self, call: Call, at: Moment) -> Result<Produced, JobError> {
        let mut produced = Produced::default();
        match self.beside.as_deref() {
            None => self.make(call, at, &mut produced).await?,
            Some(Beside::Canary(canary)) => {
                for part in canary.split(call) {
                    self.make(part, at, &mut produced).await?;
                }
            }
            Some(Beside::Shadow(_)) => {
                self.make(call.clone(), at, &mut produced).await?;
                // Timers are its own: it fires them itself.
                if let Some(shadow) = self.shadow().filter(|_| !matches!(call, Call::Fired(..))) {
                    shadow.call(&call, at, &produced).await;
                }
            }
        }
        if self.history.as_ref().is_some_and(History::is_full) {
            produced.letters.extend(self.checkpoint(at).await?);
        }
        Ok(produced)
    }

    /// Makes a call that one plugin has all of.
    async fn make(&mut self, call: Call, at: Moment, produced: &mut Produced) -> Result<(), JobError> {
        match self.attempt(&call, at, false).await {
            Ok(outcome) => self.accept(call, outcome, at, produced),
            Err(fault) => self.isolate(call, fault, at, produced).await?,
        }
        Ok(())
    }

    /// Finds what a failed call fails on.
    async fn isolate(&mut self, call: Call, fault: Fault, at: Moment, produced: &mut Produced) -> Result<(), JobError> {
        let mut attempts = Attempts::default();
        let mut known = Some(fault);
        let mut open = VecDeque::from([call]);
        while let Some(call) = open.pop_front() {
            let result = match known.take() {
                Some(fault) => Err(fault),
                None => self.attempt(&call, at, false).await,
            };
            let fault = match result {
                Ok(outcome) => {
                    self.accept(call, outcome, at, produced);
                    continue;
                }
                Err(fault) => fault,
            };
            self.plugin.blame(&fault)?;
            let again = self.plugin.waits_for_another_attempt(&fault.cause, &mut attempts).await;
            if !again {
                self.plugin.condemn(&fault)?;
            }
            let halves = if again { None } else { call.halves() };
            if again {
                open.push_front(call);
            } else if halves.is_none() {
                produced.letters.push(self.verdict(call, fault, at)?);
            }
            for half in halves.into_iter().flatten().rev() {
                open.push_front(half);
            }
            produced.letters.extend(self.recover(at).await?);
        }
        Ok(())
    }

    fn verdict(&mut self, call: Call, fault: Fault, at: Moment) -> Result<DeadLetter, JobError> {
        let (subject, rows) = call.into_letter(at);
        let Self { plugin, instance, .. } = self;
        plugin.verdict(fault, instance.context(), subject, rows)
    }

    /// A fresh instance where the one before stood after its last call that succeeded.
    async fn recover(&mut self, at: Moment) -> Result<Vec<DeadLetter>, JobError> {
        if self.history.is_none() {
            self.restart().await?;
            return Ok(Vec::new());
        }
        self.replay().await?;
        // So that the same calls need not be made again after the next failure.
        self.checkpoint(at).await
    }

    /// Takes everything back to where the history begins.
    async fn rewind(&mut self) -> Result<(), JobError> {
        self.instance.context().state.revert();
        self.timers.revert();
        self.count_held();
        self.restart().await
    }

    /// Takes everything back to where the history begins, and makes its calls again.
    async fn replay(&mut self) -> Result<(), JobError> {
        let history = self.history.take().unwrap_or_default();
        let mut replays = 0;
        let result = 'replay: loop {
            if let Err(error) = self.rewind().await {
                break Err(error);
            }
            for (at, step) in history.steps() {
                let cause = match step {
                    Step::Taken(clock, fired) => {
                        self.take_timers(*clock, fired);
                        continue;
                    }
                    Step::Called(call) => match self.attempt(call, *at, true).await {
                        Ok(_) => continue,
                        Err(fault) => fault.cause,
                    },
                };
                replays += 1;
                if replays == REPLAYS_MAX {
                    break 'replay Err(JobError::Replay { node: self.plugin.name().clone(), cause });
                }
                continue 'replay;
            }
            break Ok(());
        };
        self.history = Some(history);
        result
    }

    fn take_timers(&mut self, clock: Clock, fired: &Firings) {
        for (key, tag) in fired.keys.iter().zip(fired.tags.iter()) {
            self.timers.delete(clock, key, tag);
        }
    }

    /// Completes the state and forgets the history.
    async fn checkpoint(&mut self, at: Moment) -> Result<Vec<DeadLetter>, JobError> {
        let letters = self.write_back(at).await?;
        self.complete();
        Ok(letters)
    }

    /// Flushes the operator, whatever it takes.
    pub(crate) async fn write_back(&mut self, at: Moment) -> Result<Vec<DeadLetter>, JobError> {
        let mut attempts = Attempts::default();
        while let Err(fault) = self.flush(at, false).await {
            self.plugin.blame(&fault)?;
            if self.plugin.waits_for_another_attempt(&fault.cause, &mut attempts).await {
                self.replay().await?;
            } else {
                self.plugin.condemn(&fault)?;
                return self.isolate_flush(fault).await;
            }
        }
        Ok(Vec::new())
    }

    /// Whether a task with nothing else to do should let the operator [`OperatorSlot::tidy`] up.
    pub(crate) fn is_untidy(&self) -> bool {
        TIDY_ROWS.contains(&self.unflushed)
    }

    /// The state is complete: its changes are taken.
    fn complete(&mut self) {
        let state = self.instance.context().state.checkpoint();
        self.pending.add(state, self.timers.take_changes());
        if let Some(history) = &mut self.history {
            history.clear();
        }
    }

    /// Finds after which calls a flush fails, and leaves those out. What they produced has left.
    async fn isolate_flush(&mut self, fault: Fault) -> Result<Vec<DeadLetter>, JobError> {
        let steps = self.history.as_mut().map(History::take).unwrap_or_default();
        if !steps.iter().any(|(_, step)| matches!(step, Step::Called(_))) {
            log_lines(self.instance.context(), fault.log);
            return Err(self.plugin.failed(fault.cause));
        }
        self.rewind().await?;
        let mut letters = Vec::new();
        for (at, step) in steps {
            let mut open = match step {
                Step::Taken(clock, fired) => {
                    self.take_timers(clock, &fired);
                    self.complete();
                    continue;
                }
                Step::Called(call) => VecDeque::from([call]),
            };
            while let Some(call) = open.pop_front() {
                let result = match self.attempt(&call, at, true).await {
                    Ok(_) => self.flush(at, true).await,
                    Err(fault) => Err(fault),
                };
                let Err(fault) = result else {
                    self.complete();
                    continue;
                };
                self.plugin.blame(&fault)?;
                self.plugin.condemn(&fault)?;
                match call.halves() {
                    Some(halves) => halves.into_iter().rev().for_each(|half| open.push_front(half)),
                    None => letters.push(self.verdict(call, fault, at)?),
                }
                self.rewind().await?;
            }
        }
        Ok(letters)
    }

    pub(crate) async fn process(&mut self, port: u16, input: &Batch, at: Moment) -> Result<Produced, JobError> {
        self.call(Call::Rows(port, input.clone()), at).await
    }

    /// Fires timers of one clock that are due, at most one call's worth. `None` once none is due.
    pub(crate) async fn fire(&mut self, clock: Clock, at: Moment) -> Result<Option<Produced>, JobError> {
        let fired = self.timers.due(clock, now(clock, at), FIRINGS_MAX);
        let produced = if fired.times.is_empty() {
            None
        } else {
            let fired = Arc::new(fired);
            self.remember(at, Step::Taken(clock, Arc::clone(&fired)));
            Some(self.call(Call::Fired(clock, fired), at).await?)
        };
        let Some(shadow) = self.shadow() else { return Ok(produced) };
        if produced.is_none() && !shadow.is_due(clock, at) {
            return Ok(None);
        }
        shadow.fire(clock, at, produced.as_ref()).await;
        Ok(Some(produced.unwrap_or_default()))
    }

    /// The error of timers that never cease, once `rounds` is too many.
    pub(crate) fn storm(&self, rounds: u32) -> Result<(), JobError> {
        if rounds < TIMER_ROUNDS_MAX {
            return Ok(());
        }
        Err(JobError::TimerStorm { node: self.plugin.name().clone(), rounds })
    }

    pub(crate) async fn on_watermark(&mut self, at: Moment) -> Result<Produced, JobError> {
        if !self.watermarks {
            return Ok(Produced::default());
        }
        self.call(Call::Watermark { beside: false }, at).await
    }

    /// Whether timers of the clock are due.
    pub(crate) fn is_due(&self, clock: Clock, at: Moment) -> bool {
        self.timers.next_due(clock).is_some_and(|deadline| deadline <= now(clock, at))
            || matches!(self.beside.as_deref(), Some(Beside::Shadow(shadow)) if shadow.is_due(clock, at))
    }

    /// How much memory its instance has.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.instance.0.as_ref().map_or(0, |instance| instance.memory_bytes())
    }

    /// When the next processing-time timer is due.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let own = self.timers.next_due(Clock::Processing);
        match self.beside.as_deref() {
            Some(Beside::Shadow(shadow)) => own.into_iter().chain(shadow.next_deadline()).min(),
            _ => own,
        }
    }

    /// Whether it holds so much that an epoch should come early.
    pub(crate) fn wants_epoch(&self) -> bool {
        !self.pending.is_empty() || self.history.as_ref().is_some_and(History::wants_epoch)
    }

    pub(crate) async fn cut(&mut self, share: Share, at: Moment) -> Result<(StageCut, Vec<DeadLetter>), JobError> {
        let letters = self.checkpoint(at).await?;
        // Nothing has changed since: this ends the epoch.
        let rest = self.instance.context().state.take_changes();
        let (state, mut timers) = self.pending.take();
        let mut state = state.and_then(rest);
        if planted("state-not-in-cut") {
            state = Default::default();
        }
        if planted("timers-not-in-cut") {
            timers.clear();
        }
        let overgrown = matches!(self.beside.as_deref(), Some(Beside::Canary(canary)) if canary.is_overgrown());
        if overgrown || self.instance.get().is_overgrown() {
            // Its state is complete: a fresh one goes on with it.
            tracing::debug!(stage = %self.plugin.name(), "an instance has grown too large; replacing it");
            self.restart().await?;
        }
        self.cut_shadow(at).await;
        let (node, plugin) = (self.plugin.name().clone(), self.swap.changed.take());
        Ok((StageCut { node, share, state, timers, windows: None, plugin }, letters))
    }

    /// An epoch is durable.
    pub(crate) fn committed(&mut self, epoch: Epoch) {
        self.plugin.committed(epoch);
    }
}

fn now(clock: Clock, at: Moment) -> Timestamp {
    match clock {
        Clock::Event => at.watermark,
        Clock::Processing => at.wall,
    }
}

/// Makes a call, with its times set.
async fn call_operator(operator: &mut dyn Operator, call: &Call, at: Moment) -> Result<Outcome, OperatorError> {
    match call {
        Call::Rows(port, rows) => operator.process(*port, rows).await,
        Call::Fired(clock, fired) => operator.on_timers(*clock, fired).await,
        Call::Watermark { .. } => operator.on_watermark(at.watermark).await,
    }
}

/// A call of an instance that has the state, with all of its effects or none.
async fn attempt(
    operator: &mut dyn Operator,
    timers: &mut Timers,
    metrics: &NodeMetrics,
    call: &Call,
    at: Moment,
    quiet: bool,
) -> Result<Outcome, Fault> {
    operator.context().begin_call(at.watermark, at.wall);
    operator.context().repeats = quiet;
    let result = call_operator(operator, call, at).await;
    let context = operator.context();
    let outcome = settle(context, metrics, result, quiet)?;
    apply_timers(context, timers);
    Ok(outcome)
}

async fn flush(operator: &mut dyn Operator, metrics: &NodeMetrics, at: Moment, quiet: bool) -> Result<(), Fault> {
    operator.context().begin_call(at.watermark, at.wall);
    // Also behind calls that were repeated: it may write more than they did.
    operator.context().repeats = false;
    let result = operator.flush().await;
    settle(operator.context(), metrics, result, quiet)
}

/// Sets and deletes what a call has asked for.
fn apply_timers(context: &mut OperatorContext, timers: &mut Timers) {
    for change in context.timers.drain(..) {
        for (row, (key, tag)) in change.keys.iter().zip(change.tags.iter()).enumerate() {
            match &change.times {
                Some(times) => timers.set(change.clock, key, tag, Timestamp(times[row])),
                None => timers.delete(change.clock, key, tag),
            }
        }
    }
}
