//! Windows that are kept key by key: sessions, counts, the global window, and windows of time that
//! fire more than once.
//!
//! # Life of a batch
//! As in [`super::SlicedWindows`], but that [`KeyedWindows::assign`] may take only the first rows of a
//! batch: it stops before a row that would go into a pane which is to fire first. So a pane that fires
//! after every hundred events holds a hundred however the rows were cut into batches.
//!
//! # Ordering
//! Panes whose count is full fire in the order of the events that filled them; all others in the order
//! of the times at which they are due, and among equals by key and window. No order depends on hashes
//! or on how keys are dealt to tasks.
//!
//! # Invariants
//! - What an assignment changes is kept beside what was before, and taken back if it is abandoned.
//! - `due` and `wall_due` have one entry for each pane of each key that no open assignment touches.
//! - A pane exists from its first event until the watermark passes its end and the lateness.
//! - A result that was given stands until it is retracted, replaced, or its pane is gone.

mod codec;
mod fire;
mod frame;
mod open;
mod state;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use wasmill_model::{Batch, ColumnBuilder, Firing, Folded, PaneMode, Timestamp, Trigger, WindowSpec};

use super::{ASSIGNED_BYTES_MAX, Assignment, PaneEntry, Stored, WindowChanges, WindowProgress, hash};
use crate::OrderError;
use frame::{Frame, Place, earlier};
pub(super) use state::Given;
use state::{Cell, KeyState, Pane};

/// The windows of one share of a stage, key by key, with their accumulators.
#[derive(Debug, Clone)]
pub struct KeyedWindows {
    frame: Frame,
    firing: Firing,
    /// Whether a window may fire more than once: rows then say what they are.
    corrects: bool,
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    keys: Vec<Key>,
    free: Vec<u32>,
    /// Everything up to here has fired.
    watermark: i64,
    /// Panes by when they are due: time, key, pane.
    due: BTreeSet<Due>,
    wall_due: BTreeSet<Due>,
    /// Panes that are to fire before anything else, by key and pane.
    ready: VecDeque<(u32, i64)>,
    open: Open,
    /// Numbers assignments from 1.
    assignment: u64,
    /// Keys written since the last cut.
    changed: Vec<u32>,
    /// Keys that are gone since the last cut, and that a cut holds.
    gone: Vec<Arc<[u8]>>,
    /// The sum of [`Key::bytes`], but for what the open assignment has changed.
    bytes: usize,
}

type Due = (i64, Arc<[u8]>, i64);

#[derive(Debug, Clone)]
struct Key {
    key: Arc<[u8]>,
    hash: u64,
    state: KeyState,
    /// Assignment that last touched it, and what it had before.
    assignment: u64,
    before: KeyState,
    changed: bool,
    /// Whether a cut holds it.
    taken: bool,
}

impl Key {
    fn bytes(&self) -> usize {
        self.state.bytes(self.key.len())
    }
}

/// The open assignment.
#[derive(Debug, Clone, Default)]
struct Open {
    /// Keys that it touches, in order.
    keys: Vec<u32>,
    /// Key and cell of every group.
    groups: Vec<(u32, i64)>,
    /// Panes that are full.
    ready: Vec<(u32, i64)>,
}

impl KeyedWindows {
    /// Windows that have seen nothing.
    ///
    /// # Errors
    /// Where there can be no such windows.
    pub fn new(spec: WindowSpec) -> Result<Self, OrderError> {
        Ok(Self {
            frame: Frame::new(spec)?,
            firing: spec.firing,
            corrects: spec.corrects(),
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            keys: Vec::new(),
            free: Vec::new(),
            watermark: i64::MIN,
            due: BTreeSet::new(),
            wall_due: BTreeSet::new(),
            ready: VecDeque::new(),
            open: Open::default(),
            assignment: 0,
            changed: Vec::new(),
            gone: Vec::new(),
            bytes: 0,
        })
    }

    /// Names the accumulators of the first rows of a batch, at least one of them. Fire what is ready
    /// and due before.
    ///
    /// # Errors
    /// Where the accumulators it touches pass [`ASSIGNED_BYTES_MAX`].
    pub fn assign(&mut self, batch: &Batch, wall: Timestamp) -> Result<Assignment, OrderError> {
        self.abandon();
        self.assignment += 1;
        let mut accumulators = ColumnBuilder::default();
        let (mut groups, mut rows, mut late) = (Vec::with_capacity(batch.len()), Vec::new(), Vec::new());
        let mut taken = 0;
        for (row, (&time, key)) in batch.times().iter().zip(batch.keys().iter()).enumerate() {
            let place = self.touch(key);
            let Self { frame, keys, firing, watermark, open, .. } = &mut *self;
            let state = &mut keys[place as usize].state;
            let placed = match frame.place(state, time, *watermark, firing) {
                Place::In(placed) => placed,
                Place::Late => {
                    late.push(row as u32);
                    taken = row + 1;
                    continue;
                }
                Place::AfterFiring => break,
            };
            let rows_of_key = state.rows;
            for pane in &mut state.panes[placed.panes] {
                pane.rows = pane.rows.saturating_add(1);
                let trigger = if pane.passed { late_trigger(firing) } else { firing.early.unwrap_or_default() };
                let next = watermark.saturating_add(1);
                let from = if pane.passed { next } else { time.max(next) };
                let due = trigger.every_micros.and_then(|every| before_multiple(from, every));
                pane.due = earlier(pane.due, due.filter(|&due| pane.passed || due < pane.last()));
                let wall = trigger.wall_micros.and_then(|every| next_multiple(wall.0, every));
                pane.wall_due = earlier(pane.wall_due, wall);
                let is_due = trigger.rows.is_some_and(|rows| pane.rows >= rows);
                if !pane.ready && (is_due || frame.is_full(pane, rows_of_key)) {
                    pane.ready = true;
                    open.ready.push((place, pane.id));
                }
            }
            for cell in placed.cells {
                let group = self.group(place, cell, time, &mut accumulators)?;
                groups.push(group);
                rows.push(row as u32);
            }
            taken = row + 1;
        }
        let all =
            rows.len() == batch.len() && late.is_empty() && rows.iter().zip(0..).all(|(&row, place)| row == place);
        let rows = (!all).then_some(rows);
        Ok(Assignment { groups, accumulators: accumulators.finish(), rows, late, taken, number: self.assignment })
    }

    /// The key, with what it has now kept beside what it will have.
    fn touch(&mut self, key: &[u8]) -> u32 {
        let hash = hash(&self.hasher, key);
        let Self { index, keys, .. } = &*self;
        let found = index.find(hash, |&place| keys[place as usize].hash == hash && *keys[place as usize].key == *key);
        let place = match found.copied() {
            Some(place) => place,
            None => self.insert(hash, key.into(), KeyState::default()),
        };
        let entry = &mut self.keys[place as usize];
        if entry.assignment != self.assignment {
            entry.assignment = self.assignment;
            entry.before = entry.state.clone();
            self.open.keys.push(place);
        }
        place
    }

    fn insert(&mut self, hash: u64, key: Arc<[u8]>, state: KeyState) -> u32 {
        let before = KeyState::default();
        let entry = Key { key, hash, state, assignment: 0, before, changed: false, taken: false };
        let place = match self.free.pop() {
            Some(place) => {
                self.keys[place as usize] = entry;
                place
            }
            None => {
                self.keys.push(entry);
                u32::try_from(self.keys.len() - 1).expect("fewer than 4 billion keys fit into memory")
            }
        };
        let keys = &self.keys;
        self.index.insert_unique(hash, place, |&place| keys[place as usize].hash);
        place
    }

    fn remove(&mut self, place: u32) {
        let hash = self.keys[place as usize].hash;
        if let Ok(found) = self.index.find_entry(hash, |&other| other == place) {
            found.remove();
        }
        let entry = &mut self.keys[place as usize];
        self.bytes -= entry.bytes();
        if entry.taken {
            self.gone.push(Arc::clone(&entry.key));
        }
        (entry.state, entry.before, entry.taken) = (KeyState::default(), KeyState::default(), false);
        // A key that was changed stays on the list of those until the next cut, and so does its place.
        if !entry.changed {
            self.free.push(place);
        }
    }

    /// The group of a cell in the open assignment.
    fn group(&mut self, place: u32, cell: i64, time: i64, accumulators: &mut ColumnBuilder) -> Result<u32, OrderError> {
        let Self { open, keys, .. } = &mut *self;
        let cells = &mut keys[place as usize].state.cells;
        let at = match cells.binary_search_by_key(&cell, |cell| cell.id) {
            Ok(at) => at,
            Err(at) => {
                let empty = Cell { id: cell, times: (time, time), accumulator: Arc::from([]), group: None };
                cells.insert(at, empty);
                at
            }
        };
        let cell = &mut cells[at];
        cell.times = (cell.times.0.min(time), cell.times.1.max(time));
        if let Some(group) = cell.group {
            return Ok(group);
        }
        let group = open.groups.len() as u32;
        cell.group = Some(group);
        open.groups.push((place, cell.id));
        let too_large = accumulators.byte_len() + cell.accumulator.len() > ASSIGNED_BYTES_MAX;
        if too_large {
            self.abandon();
            return Err(OrderError::AssignedTooLarge { limit: ASSIGNED_BYTES_MAX });
        }
        accumulators.push(&cell.accumulator);
        Ok(group)
    }

    /// Writes back what the fold of an assignment returned. If the guest rejected rows nothing is
    /// written: the others are to be assigned and folded anew, as if those had never come.
    ///
    /// # Errors
    /// Where the number of accumulators is not that of the groups, or the assignment is not the
    /// last one. The assignment is abandoned.
    pub fn store(&mut self, assignment: &Assignment, folded: &Folded) -> Result<Stored, OrderError> {
        if assignment.number != self.assignment {
            return Err(OrderError::StaleAssignment { got: assignment.number, want: self.assignment });
        }
        let (got, want) = (folded.accumulators.len(), self.open.groups.len());
        if got != want {
            self.abandon();
            return Err(OrderError::Accumulators { got, want });
        }
        if !folded.rejected.is_empty() {
            self.abandon();
            return Ok(Stored::FoldOthersAgain);
        }
        let open = std::mem::take(&mut self.open);
        for (accumulator, &(place, cell)) in folded.accumulators.iter().zip(&open.groups) {
            let cells = &mut self.keys[place as usize].state.cells;
            let at = cells.binary_search_by_key(&cell, |cell| cell.id).expect("the cell was made for the group");
            cells[at].accumulator = accumulator.into();
            cells[at].group = None;
        }
        for &place in &open.keys {
            let entry = &mut self.keys[place as usize];
            let before = std::mem::take(&mut entry.before);
            self.bytes = self.bytes - before.bytes(entry.key.len()) + entry.bytes();
            self.reschedule(place, &before);
            self.note_changed(place);
            if self.keys[place as usize].state.is_fresh(self.frame.slide()) {
                self.remove(place);
            }
        }
        self.ready.extend(open.ready);
        self.assignment += 1;
        Ok(Stored::Kept)
    }

    /// Forgets the open assignment, if there is one: its fold failed.
    pub fn abandon(&mut self) {
        let open = std::mem::take(&mut self.open);
        for &place in open.keys.iter().rev() {
            let entry = &mut self.keys[place as usize];
            entry.state = std::mem::take(&mut entry.before);
            entry.assignment = 0;
            if entry.state == KeyState::default() {
                self.remove(place);
            }
        }
    }

    /// The next cut is to hold the key.
    fn note_changed(&mut self, place: u32) {
        let entry = &mut self.keys[place as usize];
        if !entry.changed {
            entry.changed = true;
            self.changed.push(place);
        }
    }

    fn schedule_pane(&mut self, place: u32, pane: &Pane) {
        let key = &self.keys[place as usize].key;
        self.due.insert((pane.next(&self.firing), Arc::clone(key), pane.id));
        self.wall_due.extend(pane.wall_due.map(|due| (due, Arc::clone(key), pane.id)));
    }

    fn unschedule_pane(&mut self, place: u32, pane: &Pane) {
        let key = &self.keys[place as usize].key;
        self.due.remove(&(pane.next(&self.firing), Arc::clone(key), pane.id));
        if let Some(due) = pane.wall_due {
            self.wall_due.remove(&(due, Arc::clone(key), pane.id));
        }
    }

    /// Every pane of a key that is not as before is due at other times.
    fn reschedule(&mut self, place: u32, before: &KeyState) {
        let when = |pane: &Pane, firing: &Firing| (pane.id, pane.next(firing), pane.wall_due);
        let after = self.keys[place as usize].state.panes.clone();
        let firing = self.firing;
        let differs = |pane: &Pane, others: &[Pane]| {
            let other = others.binary_search_by_key(&pane.id, |other| other.id);
            other.map_or(true, |other| when(&others[other], &firing) != when(pane, &firing))
        };
        before.panes.iter().filter(|pane| differs(pane, &after)).for_each(|pane| self.unschedule_pane(place, pane));
        after.iter().filter(|pane| differs(pane, &before.panes)).for_each(|pane| self.schedule_pane(place, pane));
    }

    /// When the wall clock makes a pane fire next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.wall_due.first().map(|due| Timestamp(due.0))
    }

    /// What changed since this was last called.
    pub fn take_changes(&mut self) -> WindowChanges {
        self.abandon();
        let mut entries = Vec::new();
        for place in std::mem::take(&mut self.changed) {
            let entry = &mut self.keys[place as usize];
            entry.changed = false;
            if entry.state == KeyState::default() {
                self.free.push(place);
                continue;
            }
            entry.taken = true;
            let accumulator = codec::encode(&entry.state).into();
            entries.push(PaneEntry { slice: 0, key: (*entry.key).into(), order: 0, accumulator });
        }
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        // A key that came again after it had gone is there.
        let mut gone: Vec<Box<[u8]>> = std::mem::take(&mut self.gone).iter().map(|key| (**key).into()).collect();
        gone.sort_unstable();
        gone.dedup();
        gone.retain(|key| entries.binary_search_by(|entry| entry.key.cmp(key)).is_err());
        let progress = WindowProgress { next_window: self.watermark.into(), panes: 0 };
        WindowChanges { progress, dropped: Vec::new(), gone, entries }
    }

    /// Puts in what was stored, in any order, into windows that have seen nothing.
    ///
    /// # Errors
    /// Where an entry cannot be read, or a key occurs twice.
    pub fn load(&mut self, progress: WindowProgress, entries: Vec<PaneEntry>) -> Result<(), OrderError> {
        for PaneEntry { slice, key, order, accumulator } in entries {
            if (slice, order) != (0, 0) {
                return Err(OrderError::Stored { reason: "an entry is not that of a key" });
            }
            let state = codec::decode(&accumulator).ok_or(OrderError::Stored { reason: "a key cannot be read" })?;
            let hash = hash(&self.hasher, &key);
            if self.index.find(hash, |&place| *self.keys[place as usize].key == *key).is_some() {
                return Err(OrderError::Stored { reason: "a key occurs twice" });
            }
            let place = self.insert(hash, key.into(), state);
            let entry = &mut self.keys[place as usize];
            entry.taken = true;
            self.bytes += entry.bytes();
            self.reschedule(place, &KeyState::default());
        }
        self.watermark = progress.next_window.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Ok(())
    }

    /// Accumulators that exist.
    #[must_use]
    pub fn accumulators(&self) -> usize {
        self.keys.iter().map(|key| key.state.cells.len()).sum()
    }

    /// Bytes of memory that keys, windows and accumulators take, without what finds them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn retracts(&self) -> bool {
        self.firing.panes == PaneMode::Retract
    }
}

/// Each late event fires its panes where nothing else is said.
fn late_trigger(firing: &Firing) -> Trigger {
    firing.late.unwrap_or(Trigger { rows: Some(1), ..Trigger::default() })
}

/// The last microsecond before the next multiple of `every` behind `time`: a watermark there has seen
/// everything before the multiple.
fn before_multiple(time: i64, every: i64) -> Option<i64> {
    next_multiple(time, every).map(|multiple| multiple - 1)
}

fn next_multiple(time: i64, every: i64) -> Option<i64> {
    time.div_euclid(every.max(1)).checked_add(1)?.checked_mul(every.max(1))
}

#[cfg(test)]
mod tests;
