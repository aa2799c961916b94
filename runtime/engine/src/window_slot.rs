//! An aggregate in a task, with its windows.
//!
//! # Faults
//! An aggregate is a function of what it is given: the host keeps the accumulators. So after a call
//! that fails a fresh instance gets the same rows or panes in halves, until the single ones that fail
//! are found. Those go to the dead letters, and the accumulators are as if they had never come.

mod beside;
mod folding;
mod shadow;

use std::sync::Arc;

use wasmill_contract::{
    Aggregate, DeadLetter, OpenError, OperatorContext, OperatorError, OperatorFactory, Share, StageCut, StagePlugin,
};
use wasmill_env::planted;
use wasmill_model::{Batch, Column, Epoch, Folded, LetterKind, LetterSubject, Results, Timestamp};
use wasmill_order::{Fired, OrderError, PaneRows, Windows};
use wasmill_store::ChangeSet;
use wasmill_tenancy::Held;

use crate::error::JobError;
use crate::facts::{LateRows, NAMED_MAX, WindowFacts};
use crate::faults::{Attempts, Fault, Plugin, settle};
use crate::operator_slot::{Moment, Produced};
use beside::Beside;
use folding::{Added, halves, part};

/// Panes that one call of an aggregate is given.
const PANES_MAX: usize = 4_096;
/// What a key of a window takes beside its accumulator, at least, bytes.
const KEY_OVERHEAD_BYTES: usize = 64;
/// The port that results leave by.
const RESULTS: u16 = 0;
/// The port that rows come in by.
const INPUT: LetterSubject = LetterSubject::Row { port: 0 };

/// What became of rows.
enum Folding {
    /// The first of them are in their windows, but for those that were rejected; `rest` are not.
    Done { letter: Option<DeadLetter>, rest: Option<Batch> },
    /// The call with the first of them, `rows`, failed.
    Failed { rows: Batch, rest: Option<Batch>, fault: Fault },
}

/// An aggregate in a task, with its windows.
pub(crate) struct WindowSlot {
    plugin: Plugin,
    /// `None` only while another is opened in its place.
    aggregate: Option<Box<dyn Aggregate>>,
    windows: Windows,
    accumulators_max: u64,
    /// A new plugin's instance, while it is not decided whether it takes over.
    candidate: Option<Box<dyn Aggregate>>,
    /// The plugin that the next cut has to name.
    changed: Option<Arc<StagePlugin>>,
    last_late: LateRows,
    /// What runs beside the plugin.
    beside: Option<Box<Beside>>,
    /// What is about to.
    prepared: Option<Box<Beside>>,
    /// What its windows take of the state that its tenant may have.
    held: Option<Held>,
}

impl WindowSlot {
    pub(crate) fn new(
        plugin: Plugin,
        mut aggregate: Box<dyn Aggregate>,
        windows: Windows,
        accumulators_max: u64,
    ) -> Self {
        let held = aggregate.context().account.as_ref().map(|account| account.state.held());
        let mut slot = Self {
            plugin,
            aggregate: Some(aggregate),
            windows,
            accumulators_max,
            candidate: None,
            changed: None,
            last_late: LateRows::default(),
            beside: None,
            prepared: None,
            held,
        };
        slot.count_held();
        slot
    }

    /// Behind a call: what is held now.
    fn count_held(&mut self) {
        if let Some(held) = &mut self.held {
            held.set(self.windows.bytes() as u64);
        }
    }

    fn aggregate(&mut self) -> &mut dyn Aggregate {
        instance(&mut self.aggregate)
    }

    /// The instance that has a call: its own, or that of the plugin that has a share of the keys.
    fn instance(&mut self, beside: bool) -> &mut dyn Aggregate {
        let Self { aggregate, beside: other, .. } = self;
        match other.as_deref_mut() {
            Some(Beside::Canary(canary)) if beside => canary.aggregate(),
            _ => instance(aggregate),
        }
    }

    /// How much memory its instance has.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.aggregate.as_ref().map_or(0, |aggregate| aggregate.memory_bytes())
    }

    fn begin_call(&mut self, beside: bool, at: Moment) -> &mut dyn Aggregate {
        let aggregate = self.instance(beside);
        aggregate.context().begin_call(at.watermark, at.wall);
        aggregate
    }

    fn settle<T>(&mut self, beside: bool, result: Result<T, OperatorError>) -> Result<T, Fault> {
        let Self { plugin, aggregate, beside: other, .. } = self;
        let aggregate = match other.as_deref_mut() {
            Some(Beside::Canary(canary)) if beside => canary.aggregate(),
            _ => instance(aggregate),
        };
        settle(aggregate.context(), plugin.metrics(), result, false).map_err(|fault| Fault { beside, ..fault })
    }

    /// A fresh instance for the same windows.
    pub(crate) async fn restart(&mut self) -> Result<(), JobError> {
        if let Some(aggregate) = self.aggregate.take() {
            let mut aggregate = self.plugin.open_aggregate(aggregate.close()).await?;
            // The first instance has said that already.
            aggregate.context().forget_call();
            self.aggregate = Some(aggregate);
        }
        self.restart_canary().await
    }

    /// Behind a cut: opens a new plugin. Where it fails everything is as before.
    async fn prepare_swap(&mut self, factory: &dyn OperatorFactory) -> Result<(), OperatorError> {
        let context = self.aggregate().context().take();
        match factory.open_aggregate(context).await {
            Ok(new) => {
                self.candidate = Some(new);
                Ok(())
            }
            Err(failed) => {
                let OpenError { cause, context } = *failed;
                *self.aggregate().context() = context;
                Err(cause)
            }
        }
    }

    /// Goes on with the new plugin, or with the old one.
    fn settle_swap(&mut self, factory: &Arc<dyn OperatorFactory>, take: bool, trial: Option<Epoch>) {
        let Some(mut candidate) = self.candidate.take() else { return };
        if !take {
            *self.aggregate().context() = candidate.close();
            return;
        }
        candidate.context().forget_call();
        self.aggregate = Some(candidate);
        self.plugin.replace(Arc::clone(factory), trial);
        self.changed = Some(Arc::new(StagePlugin::of(&**factory)));
    }

    /// An epoch is durable.
    pub(crate) fn committed(&mut self, epoch: Epoch) {
        self.plugin.committed(epoch);
    }

    fn order(&self, cause: OrderError) -> JobError {
        JobError::Order { node: self.plugin.name().clone(), cause }
    }

    pub(crate) async fn process(&mut self, input: &Batch, at: Moment) -> Result<Produced, JobError> {
        let produced = self.fold_all(input, at).await?;
        if let Some(shadow) = self.shadow() {
            shadow.process(input, at, &produced).await;
        }
        Ok(produced)
    }

    async fn fold_all(&mut self, input: &Batch, at: Moment) -> Result<Produced, JobError> {
        let mut produced = Produced::default();
        let mut attempts = Attempts::default();
        let mut open = self.split_rows(input);
        while let Some(rows) = open.pop_front() {
            let (rows, fault) = match self.fold(&rows, at).await? {
                Folding::Done { letter, rest } => {
                    self.plugin.succeeded();
                    produced.letters.extend(letter);
                    if let Some(rest) = rest {
                        open.push_front(rest);
                    }
                    // Panes that the rows have filled fire before others go in. What the watermark makes
                    // due waits for its turn: more rows may come ahead of it.
                    while let Some(fired) = self.fire_up_to(Timestamp::MIN, Timestamp::MIN, at).await? {
                        produced.outputs.extend(fired.outputs);
                        produced.letters.extend(fired.letters);
                    }
                    continue;
                }
                Folding::Failed { rows, rest, fault } => {
                    if let Some(rest) = rest {
                        open.push_front(rest);
                    }
                    (rows, fault)
                }
            };
            self.plugin.blame(&fault)?;
            let again = self.plugin.waits_for_another_attempt(&fault.cause, &mut attempts).await;
            if !again {
                self.plugin.condemn(&fault)?;
            }
            if again {
                open.push_front(rows);
            } else if let Some([first, second]) = halves(rows.len()) {
                open.push_front(rows.gather(&second));
                open.push_front(rows.gather(&first));
            } else {
                produced.letters.push(self.verdict(fault, INPUT, rows)?);
            }
            self.restart().await?;
        }
        let (held, max) = (self.windows.held() as u64, self.accumulators_max);
        if held > max {
            return Err(self.order(OrderError::TooManyAccumulators { held, max }));
        }
        Ok(produced)
    }

    /// Adds rows of one plugin to their windows, the first of them at least, or none.
    async fn fold(&mut self, input: &Batch, at: Moment) -> Result<Folding, JobError> {
        let beside = self.is_beside(input.keys());
        let folding = folding::Folding::assign(&mut self.windows, input, at.wall).map_err(|cause| self.order(cause))?;
        let folded = match folding.call() {
            None => None,
            Some((accumulators, groups, rows)) => {
                let aggregate = self.begin_call(beside, at);
                let result = aggregate.fold(accumulators, groups, rows).await;
                let result = result.and_then(|folded| has_room(aggregate.context(), accumulators, folded));
                match self.settle(beside, result) {
                    Ok(folded) => Some(folded),
                    Err(fault) => {
                        let (rows, rest) = folding.abandon(&mut self.windows);
                        return Ok(Folding::Failed { rows, rest, fault });
                    }
                }
            }
        };
        let added = folding.store(&mut self.windows, folded.as_ref()).map_err(|cause| self.order(cause))?;
        self.count_held();
        let Added { rejected, late, rest } = added;
        let letter = rejected.map(|(rows, reasons)| DeadLetter {
            node: self.plugin.name().clone(),
            digest: Some(self.maker(beside)),
            kind: LetterKind::Rejected,
            subject: INPUT,
            rows,
            reasons,
            stack: Vec::new(),
        });
        if !late.is_empty() {
            self.plugin.metrics().late(late.len());
            self.last_late.note(input, &late, at.watermark, at.wall, |_| None);
        }
        Ok(Folding::Done { letter, rest })
    }

    fn verdict(&mut self, fault: Fault, subject: LetterSubject, rows: Batch) -> Result<DeadLetter, JobError> {
        let Self { plugin, aggregate, .. } = self;
        plugin.verdict(fault, instance(aggregate).context(), subject, rows)
    }

    /// Fires windows that are due, at most one call's worth of panes. `None` once none is.
    pub(crate) async fn fire(&mut self, at: Moment) -> Result<Option<Produced>, JobError> {
        let produced = self.fire_up_to(at.watermark, at.wall, at).await?;
        if let Some(shadow) = self.shadow() {
            shadow.fire(at, produced.as_ref()).await;
        }
        Ok(produced)
    }

    async fn fire_up_to(
        &mut self,
        watermark: Timestamp,
        wall: Timestamp,
        at: Moment,
    ) -> Result<Option<Produced>, JobError> {
        let Some(fired) = self.windows.fire(watermark, wall, PANES_MAX) else { return Ok(None) };
        let mut produced = Produced::default();
        let mut attempts = Attempts::default();
        let mut open = self.split_panes(fired);
        while let Some(fired) = open.pop_front() {
            let beside = self.is_beside(&fired.panes.keys);
            let results = finish(self.instance(beside), &fired, at).await;
            let fault = match self.settle(beside, results) {
                Ok(results) => {
                    self.plugin.succeeded();
                    let maker = Some(self.maker(beside));
                    let batch = pane_batch(&mut self.windows, &fired, results, at);
                    produced.outputs.extend(batch.map(|batch| (RESULTS, batch.with_maker(maker))));
                    continue;
                }
                Err(fault) => fault,
            };
            self.plugin.blame(&fault)?;
            let again = self.plugin.waits_for_another_attempt(&fault.cause, &mut attempts).await;
            if !again {
                self.plugin.condemn(&fault)?;
            }
            if again {
                open.push_front(fired);
            } else if let Some([first, second]) = halves(fired.panes.starts.len()) {
                open.push_front(part(&fired, &second));
                open.push_front(part(&fired, &first));
            } else {
                let rows = pane_rows(fired, at.monotonic_nanos);
                produced.letters.push(self.verdict(fault, LetterSubject::Pane, rows)?);
            }
            self.restart().await?;
        }
        self.count_held();
        Ok(Some(produced))
    }

    /// Which windows are open, and what came late for them.
    pub(crate) fn facts(&self) -> WindowFacts {
        WindowFacts {
            node: self.plugin.name().clone(),
            held: self.windows.held() as u64,
            open: self.windows.open(NAMED_MAX),
            late: self.last_late.told(),
        }
    }

    /// When the wall clock makes a window fire next.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let shadow = match self.beside.as_deref() {
            Some(Beside::Shadow(shadow)) => shadow.next_deadline(),
            Some(Beside::Canary(_)) | None => None,
        };
        self.windows.next_deadline().into_iter().chain(shadow).min()
    }

    pub(crate) async fn cut(&mut self, share: Share) -> StageCut {
        let mut windows = self.windows.take_changes();
        if planted("panes-not-in-cut") {
            windows.entries.clear();
        }
        self.cut_shadow().await;
        let windows = Some(windows);
        let node = self.plugin.name().clone();
        let plugin = self.changed.take();
        StageCut { node, share, state: ChangeSet::default(), timers: Vec::new(), windows, plugin }
    }
}

/// The instance, which is there but while another is opened in its place.
fn instance(aggregate: &mut Option<Box<dyn Aggregate>>) -> &mut dyn Aggregate {
    &mut **aggregate.as_mut().expect("an aggregate is there but while another is opened in its place")
}

/// What was folded, where the tenant has room for it.
fn has_room(context: &OperatorContext, before: &Column, folded: Folded) -> Result<Folded, OperatorError> {
    let Some(account) = &context.account else { return Ok(folded) };
    let new = before.iter().filter(|accumulator| accumulator.is_empty()).count() * KEY_OVERHEAD_BYTES;
    let grown = (folded.accumulators.byte_len() + new).saturating_sub(before.byte_len());
    if grown > 0 {
        account.state.room_for(grown as u64).map_err(|limit| OperatorError::Limit { call: "fold", limit })?;
    }
    Ok(folded)
}

/// The results of panes, which are merged first where they have several accumulators each.
async fn finish(aggregate: &mut dyn Aggregate, fired: &Fired, at: Moment) -> Result<Results, OperatorError> {
    let Fired { panes, accumulators, merge, .. } = fired;
    let merged;
    let accumulators = match merge {
        Some(groups) => {
            aggregate.context().begin_call(at.watermark, at.wall);
            merged = aggregate.merge(accumulators, groups, panes.starts.len() as u32).await?;
            &merged
        }
        None => accumulators,
    };
    aggregate.context().begin_call(at.watermark, at.wall);
    aggregate.finish(panes, accumulators).await
}

/// The rows that results of panes make, where they make any.
fn pane_batch(windows: &mut Windows, fired: &Fired, results: Results, at: Moment) -> Option<Batch> {
    let PaneRows { times, keys, values, kinds } = windows.rows(fired, results);
    let batch = Batch::new(Arc::new(times), Arc::new(keys), Arc::new(values), at.monotonic_nanos);
    (!batch.is_empty()).then(|| batch.with_kinds(kinds.map(Arc::new)))
}

/// A pane for the dead letters: each of its accumulators as a row.
fn pane_rows(fired: Fired, now_nanos: u64) -> Batch {
    let Fired { panes, accumulators, merge, .. } = fired;
    let groups = merge.unwrap_or_else(|| (0..accumulators.len() as u32).collect());
    let times = groups.iter().map(|&pane| panes.ends[pane as usize].saturating_sub(1)).collect();
    Batch::new(Arc::new(times), Arc::new(panes.keys.gather(&groups)), Arc::new(accumulators), now_nanos)
}

#[cfg(test)]
mod tests;
