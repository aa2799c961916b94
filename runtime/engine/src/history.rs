//! What an operator was given since its state was last complete, so that a fresh instance can be
//! brought to where the one before it stood.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmill_model::{Batch, Clock, Column, Firings, LetterSubject};
use wasmill_order::TimerEntry;
use wasmill_store::ChangeSet;

use crate::operator_slot::Moment;
use crate::outcome::Origin;

/// Bytes after which an epoch should end early, so that they may be forgotten.
const ASK_BYTES: usize = 16 << 20;
/// Bytes and calls after which the operator is flushed, so that they may be forgotten now.
const BYTES_MAX: usize = 32 << 20;
const CALLS_MAX: usize = 64 << 10;
/// What a call takes by itself.
const CALL_BYTES: usize = 256;
/// Forgotten steps that are freed with every new one. Steps come one by one; freed all at once, those
/// of an epoch would stop the task for a microsecond each.
const FREED_PER_STEP: usize = 2;

/// A call of an operator. Cheap to clone: what it was given is shared.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// Rows that came in by a port.
    Rows(u16, Batch),
    /// Timers that were due.
    Fired(Clock, Arc<Firings>),
    /// The watermark rose; in which of two plugins that run beside each other.
    Watermark { beside: bool },
}

impl Call {
    /// Rows or timers.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Rows(_, rows) => rows.len(),
            Self::Fired(_, fired) => fired.times.len(),
            Self::Watermark { .. } => 1,
        }
    }

    /// What its rows come from.
    pub(crate) fn origin(&self, at: Moment) -> Origin<'_> {
        match self {
            Self::Rows(_, rows) => Origin::Batch(rows),
            Self::Fired(_, fired) => Origin::Firings(fired),
            Self::Watermark { .. } => Origin::Watermark(at.watermark),
        }
    }

    fn byte_len(&self) -> usize {
        CALL_BYTES
            + match self {
                Self::Rows(_, rows) => rows.byte_len(),
                Self::Fired(_, fired) => fired.keys.byte_len() + fired.tags.byte_len() + 8 * fired.times.len(),
                Self::Watermark { .. } => 0,
            }
    }

    /// The call in two, where it can be.
    pub(crate) fn halves(&self) -> Option<[Self; 2]> {
        let (len, half) = (self.len() as u32, self.len() as u32 / 2);
        if half == 0 {
            return None;
        }
        let part = |rows: std::ops::Range<u32>| {
            let rows: Vec<u32> = rows.collect();
            match self {
                Self::Rows(port, batch) => Self::Rows(*port, batch.gather(&rows)),
                Self::Fired(clock, fired) => Self::Fired(
                    *clock,
                    Arc::new(Firings {
                        times: rows.iter().map(|&row| fired.times[row as usize]).collect(),
                        keys: fired.keys.gather(&rows),
                        tags: fired.tags.gather(&rows),
                    }),
                ),
                Self::Watermark { beside } => Self::Watermark { beside: *beside },
            }
        };
        Some([part(0..half), part(half..len)])
    }

    /// What a dead letter of the call holds.
    pub(crate) fn into_letter(self, at: Moment) -> (LetterSubject, Batch) {
        let batch = |times, keys, values| Batch::new(Arc::new(times), keys, values, at.monotonic_nanos);
        match self {
            Self::Rows(port, rows) => (LetterSubject::Row { port }, rows),
            Self::Fired(clock, fired) => {
                let Firings { times, keys, tags } = Arc::unwrap_or_clone(fired);
                (LetterSubject::Timer(clock), batch(times, Arc::new(keys), Arc::new(tags)))
            }
            Self::Watermark { .. } => {
                let empty = Arc::new(Column::empty_rows(1));
                (LetterSubject::Watermark, batch(vec![at.watermark.0], Arc::clone(&empty), empty))
            }
        }
    }
}

/// One step since the operator's state was last complete.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A call that succeeded.
    Called(Call),
    /// Timers were taken out in order to be fired.
    Taken(Clock, Arc<Firings>),
}

/// Every step since the operator's state was last complete, with its time.
#[derive(Debug, Default)]
pub(crate) struct History {
    steps: Vec<(Moment, Step)>,
    bytes: usize,
    /// Forgotten, and not freed yet: no more than one history's worth.
    spent: Vec<(Moment, Step)>,
}

impl History {
    pub(crate) fn push(&mut self, at: Moment, step: Step) {
        // What timers hold is counted when they are fired.
        self.bytes += if let Step::Called(call) = &step { call.byte_len() } else { CALL_BYTES };
        self.steps.push((at, step));
        self.spent.truncate(self.spent.len().saturating_sub(FREED_PER_STEP));
    }

    pub(crate) fn steps(&self) -> &[(Moment, Step)] {
        &self.steps
    }

    pub(crate) fn take(&mut self) -> Vec<(Moment, Step)> {
        self.bytes = 0;
        std::mem::take(&mut self.steps)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes = 0;
        // Empty by now, but where this history is shorter than half of the one before.
        self.spent.clear();
        std::mem::swap(&mut self.steps, &mut self.spent);
    }

    /// Whether an epoch should end early.
    pub(crate) fn wants_epoch(&self) -> bool {
        self.bytes > ASK_BYTES
    }

    /// Whether it must be forgotten now.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes > BYTES_MAX || self.steps.len() > CALLS_MAX
    }
}

/// Changes that were taken before the end of their epoch.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    state: ChangeSet,
    timers: Vec<TimerEntry>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.state.is_empty() && self.timers.is_empty()
    }

    /// Later changes of the same epoch: of two of one entry or timer the later one counts.
    pub(crate) fn add(&mut self, state: ChangeSet, timers: Vec<TimerEntry>) {
        if self.is_empty() {
            *self = Self { state, timers };
            return;
        }
        self.state = std::mem::take(&mut self.state).and_then(state);
        if !timers.is_empty() {
            let all = self.timers.drain(..).chain(timers);
            let latest: BTreeMap<_, _> = all.map(|timer| ((timer.clock, timer.key, timer.tag), timer.set)).collect();
            let timer = |((clock, key, tag), set)| TimerEntry { clock, key, tag, set };
            self.timers = latest.into_iter().map(timer).collect();
        }
    }

    pub(crate) fn take(&mut self) -> (ChangeSet, Vec<TimerEntry>) {
        let Self { state, timers } = std::mem::take(self);
        (state, timers)
    }
}
