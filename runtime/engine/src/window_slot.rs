//! An aggregate in a task, with its windows.
//!
//! # Faults
//! An aggregate is a function of what it is given: the host keeps the accumulators. So after a call
//! that fails a fresh instance gets the same rows or panes in halves, until the single ones that fail
//! are found. Those go to the dead letters, and the accumulators are as if they had never come.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmill_contract::{
    Aggregate, DeadLetter, OpenError, OperatorContext, OperatorError, OperatorFactory, Share, StageCut, StagePlugin,
};
use wasmill_env::planted;
use wasmill_model::{Batch, Epoch, LetterKind, LetterSubject, PaneBatch, PluginDigest, Rejected, Results, Timestamp};
use wasmill_order::{Assignment, Fired, OrderError, PaneRows, Stored, Windows};
use wasmill_store::ChangeSet;

use crate::error::JobError;
use crate::facts::{LateRows, NAMED_MAX, WindowFacts};
use crate::faults::{Attempts, Fault, Plugin, settle};
use crate::operator_slot::{Moment, Produced};
use crate::outcome;

/// Panes that one call of an aggregate is given.
const PANES_MAX: usize = 4_096;
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
}

impl WindowSlot {
    pub(crate) fn new(plugin: Plugin, aggregate: Box<dyn Aggregate>, windows: Windows, accumulators_max: u64) -> Self {
        let (aggregate, last_late) = (Some(aggregate), LateRows::default());
        Self { plugin, aggregate, windows, accumulators_max, candidate: None, changed: None, last_late }
    }

    fn aggregate(&mut self) -> &mut dyn Aggregate {
        &mut **self.aggregate.as_mut().expect("an aggregate is there but while another is opened in its place")
    }

    /// How much memory its instance has.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.aggregate.as_ref().map_or(0, |aggregate| aggregate.memory_bytes())
    }

    fn begin_call(&mut self, at: Moment) -> &mut dyn Aggregate {
        let aggregate = self.aggregate();
        aggregate.context().begin_call(at.watermark, at.wall);
        aggregate
    }

    fn settle<T>(&mut self, result: Result<T, wasmill_contract::OperatorError>) -> Result<T, Fault> {
        let Self { plugin, aggregate, .. } = self;
        let context: &mut OperatorContext =
            aggregate.as_mut().expect("an aggregate is there but while another is opened in its place").context();
        settle(context, plugin.metrics(), result, false)
    }

    /// A fresh instance for the same windows.
    pub(crate) async fn restart(&mut self) -> Result<(), JobError> {
        if let Some(aggregate) = self.aggregate.take() {
            let mut aggregate = self.plugin.open_aggregate(aggregate.close()).await?;
            // The first instance has said that already.
            aggregate.context().forget_call();
            self.aggregate = Some(aggregate);
        }
        Ok(())
    }

    /// Behind a cut: opens a new plugin. Where it fails everything is as before.
    pub(crate) async fn prepare_swap(&mut self, factory: &dyn OperatorFactory) -> Result<(), OperatorError> {
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
    pub(crate) fn settle_swap(&mut self, factory: &Arc<dyn OperatorFactory>, take: bool, trial: Option<Epoch>) {
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

    /// The plugin that runs.
    pub(crate) fn digest(&self) -> PluginDigest {
        self.plugin.factory().digest()
    }

    /// An epoch is durable.
    pub(crate) fn committed(&mut self, epoch: Epoch) {
        self.plugin.committed(epoch);
    }

    fn order(&self, cause: OrderError) -> JobError {
        JobError::Order { node: self.plugin.name().clone(), cause }
    }

    pub(crate) async fn process(&mut self, input: &Batch, at: Moment) -> Result<Produced, JobError> {
        let mut produced = Produced::default();
        let mut attempts = Attempts::default();
        let mut open = VecDeque::from([input.clone()]);
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
            if self.plugin.waits_for_another_attempt(&fault.cause, &mut attempts).await {
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

    /// Adds rows to their windows, the first of them at least, or none.
    async fn fold(&mut self, input: &Batch, at: Moment) -> Result<Folding, JobError> {
        let assignment = self.windows.assign(input, at.wall).map_err(|cause| self.order(cause))?;
        let taken = assignment.taken;
        let rest = (taken < input.len()).then(|| input.slice(taken..input.len()));
        let rows = match &assignment.rows {
            Some(rows) => input.gather(rows),
            None => input.clone(),
        };
        let mut letter = None;
        if !rows.is_empty() {
            let aggregate = self.begin_call(at);
            let result = aggregate.fold(&assignment.accumulators, &assignment.groups, &rows).await;
            let folded = match self.settle(result) {
                Ok(folded) => folded,
                Err(fault) => {
                    self.windows.abandon();
                    return Ok(Folding::Failed { rows: input.slice(0..taken), rest, fault });
                }
            };
            let stored = self.windows.store(&assignment, &folded).map_err(|cause| self.order(cause))?;
            let rejected = rejected_once(&assignment, &folded.rejected);
            letter = outcome::rejected_rows(input, &rejected).map(|(rows, reasons)| DeadLetter {
                node: self.plugin.name().clone(),
                digest: Some(self.plugin.factory().digest()),
                kind: LetterKind::Rejected,
                subject: INPUT,
                rows,
                reasons,
                stack: Vec::new(),
            });
            if stored == Stored::FoldOthersAgain {
                let is_rejected = |row: &u32| rejected.binary_search_by_key(row, |rejected| rejected.row).is_ok();
                let others: Vec<u32> = (0..input.len() as u32).filter(|row| !is_rejected(row)).collect();
                let rest = (!others.is_empty()).then(|| input.gather(&others));
                return Ok(Folding::Done { letter, rest });
            }
        }
        if !assignment.late.is_empty() {
            self.plugin.metrics().late(assignment.late.len());
            self.last_late.note(input, &assignment.late, at.watermark, at.wall, |_| None);
        }
        Ok(Folding::Done { letter, rest })
    }

    fn verdict(&mut self, fault: Fault, subject: LetterSubject, rows: Batch) -> Result<DeadLetter, JobError> {
        let Self { plugin, aggregate, .. } = self;
        let aggregate = aggregate.as_mut().expect("an aggregate is there but while another is opened in its place");
        plugin.verdict(fault, aggregate.context(), subject, rows)
    }

    /// Fires windows that are due, at most one call's worth of panes. `None` once none is.
    pub(crate) async fn fire(&mut self, at: Moment) -> Result<Option<Produced>, JobError> {
        self.fire_up_to(at.watermark, at.wall, at).await
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
        let mut open = VecDeque::from([fired]);
        while let Some(fired) = open.pop_front() {
            let fault = match self.finish(&fired, at).await {
                Ok(results) => {
                    self.plugin.succeeded();
                    let PaneRows { times, keys, values, kinds } = self.windows.rows(&fired, results);
                    let batch = Batch::new(Arc::new(times), Arc::new(keys), Arc::new(values), at.monotonic_nanos);
                    let batch = batch.with_kinds(kinds.map(Arc::new));
                    if !batch.is_empty() {
                        produced.outputs.push((RESULTS, batch));
                    }
                    continue;
                }
                Err(fault) => fault,
            };
            self.plugin.blame(&fault)?;
            if self.plugin.waits_for_another_attempt(&fault.cause, &mut attempts).await {
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
        Ok(Some(produced))
    }

    /// The results of panes.
    async fn finish(&mut self, fired: &Fired, at: Moment) -> Result<Results, Fault> {
        let Fired { panes, accumulators, merge, .. } = fired;
        let merged;
        let accumulators = match merge {
            Some(groups) => {
                let result = self.begin_call(at).merge(accumulators, groups, panes.starts.len() as u32).await;
                merged = self.settle(result)?;
                &merged
            }
            None => accumulators,
        };
        let result = self.begin_call(at).finish(panes, accumulators).await;
        self.settle(result)
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
        self.windows.next_deadline()
    }

    pub(crate) fn cut(&mut self, share: Share) -> StageCut {
        let mut windows = self.windows.take_changes();
        if planted("panes-not-in-cut") {
            windows.entries.clear();
        }
        let windows = Some(windows);
        let node = self.plugin.name().clone();
        let plugin = self.changed.take();
        StageCut { node, share, state: ChangeSet::default(), timers: Vec::new(), windows, plugin }
    }
}

/// Rejected rows by their places in the input: a row of several windows may be rejected in each.
fn rejected_once(assignment: &Assignment, rejected: &[Rejected]) -> Vec<Rejected> {
    let place = |row: u32| assignment.rows.as_ref().map_or(row, |rows| rows[row as usize]);
    let mut rejected: Vec<Rejected> =
        rejected.iter().map(|Rejected { row, reason }| Rejected { row: place(*row), reason: reason.clone() }).collect();
    rejected.dedup_by_key(|rejected| rejected.row);
    rejected
}

/// The rows of both halves, where there are two.
fn halves(rows: usize) -> Option<[Vec<u32>; 2]> {
    let (rows, half) = (rows as u32, rows as u32 / 2);
    (half > 0).then(|| [(0..half).collect(), (half..rows).collect()])
}

/// Some of the panes, in a row, with their accumulators.
fn part(fired: &Fired, some: &[u32]) -> Fired {
    let Fired { panes, accumulators, merge, facts } = fired;
    let facts = match facts.is_empty() {
        true => Vec::new(),
        false => some.iter().map(|&pane| facts[pane as usize].clone()).collect(),
    };
    let pick = |bounds: &[i64]| some.iter().map(|&pane| bounds[pane as usize]).collect();
    let panes = PaneBatch { starts: pick(&panes.starts), ends: pick(&panes.ends), keys: panes.keys.gather(some) };
    let Some(groups) = merge else {
        return Fired { panes, accumulators: accumulators.gather(some), merge: None, facts };
    };
    let first = some.first().copied().unwrap_or(0);
    let is_mine = |group: u32| group.checked_sub(first).is_some_and(|group| (group as usize) < some.len());
    let mine: Vec<u32> = (0..groups.len() as u32).filter(|&member| is_mine(groups[member as usize])).collect();
    let groups = mine.iter().map(|&member| groups[member as usize] - first).collect();
    Fired { panes, accumulators: accumulators.gather(&mine), merge: Some(groups), facts }
}

/// A pane for the dead letters: each of its accumulators as a row.
fn pane_rows(fired: Fired, now_nanos: u64) -> Batch {
    let Fired { panes, accumulators, merge, .. } = fired;
    let groups = merge.unwrap_or_else(|| (0..accumulators.len() as u32).collect());
    let times = groups.iter().map(|&pane| panes.ends[pane as usize].saturating_sub(1)).collect();
    Batch::new(Arc::new(times), Arc::new(panes.keys.gather(&groups)), Arc::new(accumulators), now_nanos)
}
