//! Windows: what the host keeps for an aggregate.
//!
//! [`Windows`] are kept in one of two ways. [`KeyedWindows`] know for every key which windows it has.
//! [`SlicedWindows`], for windows of a fixed length that fire once, know that for all keys together.
//! There events are folded into slices (see [`Slicing`]), each event into one; a window that fires
//! merges its slices. Tumbling windows have one slice each and merge nothing.
//!
//! # Life of a batch
//! [`SlicedWindows::assign`] names the accumulator of every row, the guest folds, and
//! [`SlicedWindows::store`] writes back what the guest returns. An assignment that is not stored counts
//! for nothing: the next call of any kind abandons it.
//!
//! # Ordering
//! Windows fire in the order of their ends; within a window, keys in the order of slices, and
//! within a slice in the order in which they came. No order depends on hashes.
//!
//! # Invariants
//! - A slice exists while it holds a key and one of its windows has not fired.
//! - A window fires at most once, when the watermark is at its last microsecond, with every event
//!   that came before that. An event is dropped from those of its windows that have fired and
//!   stays in the others; it is late when none is left.

mod either;
mod fire;
mod keyed;
mod open;
mod slice;
mod slicing;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use hashbrown::DefaultHashBuilder;
use wasmill_model::{Batch, Column, ColumnBuilder, Folded, WindowShape};

pub use either::Windows;
pub use fire::{Fired, PaneFact, PaneRows};
pub use keyed::KeyedWindows;
pub use open::OpenWindow;

use crate::OrderError;
use fire::Merging;
use slice::Slice;
use slicing::{SliceBounds, Slicing};

/// Bytes of accumulators that one batch may touch.
pub const ASSIGNED_BYTES_MAX: usize = 256 << 20;

/// The windows of one share of a stage, with their accumulators.
#[derive(Debug, Clone)]
pub struct SlicedWindows {
    slicing: Slicing,
    hasher: DefaultHashBuilder,
    slices: Vec<Slice>,
    free: Vec<u32>,
    by_start: BTreeMap<i64, u32>,
    progress: WindowProgress,
    /// Numbers assignments from 1.
    assignment: u64,
    /// Slice and slot of every group of the open assignment.
    open: Vec<(u32, u32)>,
    merging: Merging,
    /// Slices dropped since the last cut that a cut holds.
    dropped: Vec<i64>,
}

/// How far windows have fired. Part of the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowProgress {
    /// The first window that has not fired completely. Window `k` begins at `k` times the slide.
    pub next_window: i128,
    /// Panes of that window that have fired.
    pub panes: u64,
}

/// Where the rows of a batch are folded.
#[derive(Debug)]
pub struct Assignment {
    /// For every row that is to be folded, in order, its group.
    pub groups: Vec<u32>,
    /// The accumulator of every group; an empty one is new.
    pub accumulators: Column,
    /// The rows that are to be folded, in order, a row of several windows more than once. `None`:
    /// all of the batch.
    pub rows: Option<Vec<u32>>,
    /// Rows that are late for every window they belong to.
    pub late: Vec<u32>,
    /// So many rows of the batch were looked at. Store, fire what is due, and assign the others.
    pub taken: usize,
    number: u64,
}

/// What became of a fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is in the windows.
    Kept,
    /// Rows were rejected, and where the others belong may depend on them: assign and fold the others
    /// as if those had never come.
    FoldOthersAgain,
}

/// An accumulator as it is stored; of windows that are kept by key, all that a key has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaneEntry {
    /// Where its slice begins, microseconds since the Unix epoch.
    pub slice: i64,
    /// The event key.
    pub key: Box<[u8]>,
    /// The place of the key among those of the slice.
    pub order: u32,
    /// The accumulator.
    pub accumulator: Box<[u8]>,
}

/// What changed in windows during an epoch. Part of the cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowChanges {
    /// How far windows have fired.
    pub progress: WindowProgress,
    /// Starts of slices that are gone, with all of their entries.
    pub dropped: Vec<i64>,
    /// Keys that are gone, in rising order, where windows are kept by key.
    pub gone: Vec<Box<[u8]>>,
    /// New and changed accumulators, each once, by slice and place.
    pub entries: Vec<PaneEntry>,
}

impl SlicedWindows {
    /// Windows that have seen nothing.
    ///
    /// # Errors
    /// Where there can be no such windows.
    pub fn new(shape: WindowShape) -> Result<Self, OrderError> {
        Ok(Self {
            slicing: Slicing::new(shape)?,
            hasher: DefaultHashBuilder::default(),
            slices: Vec::new(),
            free: Vec::new(),
            by_start: BTreeMap::new(),
            progress: WindowProgress { next_window: i128::MIN, panes: 0 },
            assignment: 0,
            open: Vec::new(),
            merging: Merging::default(),
            dropped: Vec::new(),
        })
    }

    /// Names the accumulator of every row of a batch. Rows are judged by what has fired: call
    /// [`Self::fire`] to its end first if the watermark has risen.
    ///
    /// # Errors
    /// Where the accumulators it touches pass [`ASSIGNED_BYTES_MAX`].
    pub fn assign(&mut self, batch: &Batch) -> Result<Assignment, OrderError> {
        self.abandon();
        self.assignment += 1;
        let number = self.assignment;
        let mut groups = Vec::with_capacity(batch.len());
        let mut accumulators = ColumnBuilder::default();
        let mut late = Vec::new();
        // The slice of the row before, and its key and group.
        let (mut start, mut end, mut place) = (i64::MAX, i64::MIN, 0);
        let mut before: Option<(&[u8], u32)> = None;
        for (row, (&time, key)) in batch.times().iter().zip(batch.keys().iter()).enumerate() {
            if time < start || time >= end {
                let bounds = self.slicing.slice_of(time);
                if bounds.last < self.progress.next_window {
                    late.push(row as u32);
                    continue;
                }
                place = self.slice_at(bounds);
                (start, end) = (bounds.start, bounds.end);
                before = None;
            }
            // Without the test for an empty key, comparing nothing is a call of its own.
            if let Some((key_before, group)) = before
                && key_before.len() == key.len()
                && (key.is_empty() || key_before == key)
            {
                groups.push(group);
                continue;
            }
            let hash = hash(&self.hasher, key);
            let slice = &mut self.slices[place as usize];
            let at = slice.find(hash, key).unwrap_or_else(|| slice.insert(hash, key));
            let slot = slice.slot(at);
            if slot.assignment != number {
                slot.assignment = number;
                slot.group = self.open.len() as u32;
                self.open.push((place, at));
                let accumulator = slice.accumulator(at);
                if accumulators.byte_len() + accumulator.len() > ASSIGNED_BYTES_MAX {
                    self.abandon();
                    return Err(OrderError::AssignedTooLarge { limit: ASSIGNED_BYTES_MAX });
                }
                accumulators.push(accumulator);
            }
            let group = slice.slot(at).group;
            groups.push(group);
            before = Some((key, group));
        }
        let rows = (!late.is_empty()).then(|| others(batch.len(), &late));
        Ok(Assignment { groups, accumulators: accumulators.finish(), rows, late, taken: batch.len(), number })
    }

    /// Writes back what the fold of an assignment returned. Rows that the guest rejected count for
    /// nothing: a key that has no others gets no pane.
    ///
    /// # Errors
    /// Where the number of accumulators is not that of the groups, or the assignment is not the
    /// last one. The assignment is abandoned.
    pub fn store(&mut self, assignment: &Assignment, folded: &Folded) -> Result<Stored, OrderError> {
        if assignment.number != self.assignment {
            return Err(OrderError::StaleAssignment { got: assignment.number, want: self.assignment });
        }
        let (got, want) = (folded.accumulators.len(), self.open.len());
        if got != want {
            self.abandon();
            return Err(OrderError::Accumulators { got, want });
        }
        if folded.rejected.is_empty() {
            for (accumulator, &(place, slot)) in folded.accumulators.iter().zip(&self.open) {
                self.slices[place as usize].write(slot, accumulator);
            }
        } else {
            self.store_accepted(assignment, folded);
        }
        for &(place, _) in &self.open {
            self.slices[place as usize].keep();
        }
        self.abandon();
        Ok(Stored::Kept)
    }

    fn store_accepted(&mut self, assignment: &Assignment, folded: &Folded) {
        let mut accepted = vec![false; self.open.len()];
        let mut rejected = folded.rejected.iter().map(|rejected| rejected.row as usize).peekable();
        for (row, &group) in assignment.groups.iter().enumerate() {
            if rejected.next_if_eq(&row).is_none() {
                accepted[group as usize] = true;
            }
        }
        let mut added = Vec::new();
        for (group, &(place, slot)) in self.open.iter().enumerate().filter(|&(group, _)| accepted[group]) {
            let slice = &mut self.slices[place as usize];
            if slice.is_new(slot) {
                added.push((group, place, slice.slots()[slot as usize].hash, slice.key(slot).to_vec()));
            } else {
                slice.write(slot, folded.accumulators.row(group));
            }
        }
        // New keys without an accepted row leave no trace, so the others move up.
        for &(place, _) in &self.open {
            self.slices[place as usize].drop_new();
        }
        for (group, place, hash, key) in added {
            let slice = &mut self.slices[place as usize];
            let slot = slice.insert(hash, &key);
            slice.write(slot, folded.accumulators.row(group));
        }
    }

    /// Forgets the open assignment, if there is one: its fold failed.
    pub fn abandon(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        for (place, _) in open.drain(..) {
            let slice = &mut self.slices[place as usize];
            slice.drop_new();
            if slice.len() == 0 {
                let start = slice.bounds.start;
                self.drop_slice(start);
            }
        }
        self.open = open;
    }

    /// What changed since this was last called.
    pub fn take_changes(&mut self) -> WindowChanges {
        self.abandon();
        let mut entries = Vec::new();
        for (&start, &place) in &self.by_start {
            let slice = &mut self.slices[place as usize];
            for slot in slice.take_changed() {
                entries.push(PaneEntry {
                    slice: start,
                    key: slice.key(slot).into(),
                    order: slice.slots()[slot as usize].order,
                    accumulator: slice.accumulator(slot).into(),
                });
                slice.taken = true;
            }
        }
        WindowChanges { progress: self.progress, dropped: std::mem::take(&mut self.dropped), gone: Vec::new(), entries }
    }

    /// Puts in what was stored, each entry with its latest accumulator, in any order, into windows
    /// that have seen nothing.
    ///
    /// # Errors
    /// Where an entry belongs to no slice of these windows, or occurs twice.
    pub fn load(&mut self, progress: WindowProgress, mut entries: Vec<PaneEntry>) -> Result<(), OrderError> {
        entries.sort_unstable_by(|a, b| (a.slice, a.order, &a.key).cmp(&(b.slice, b.order, &b.key)));
        for PaneEntry { slice, key, order, accumulator } in entries {
            let bounds = self.slicing.slice_of(slice);
            if bounds.start != slice {
                return Err(OrderError::Stored { reason: "a slice begins where no window begins or ends" });
            }
            if bounds.last < progress.next_window {
                return Err(OrderError::Stored { reason: "a slice is left of which every window has fired" });
            }
            let place = self.slice_at(bounds);
            let slice = &mut self.slices[place as usize];
            let hash = hash(&self.hasher, &key);
            if slice.find(hash, &key).is_some() {
                return Err(OrderError::Stored { reason: "a key occurs twice in a slice" });
            }
            let slot = slice.insert_stored(hash, &key, order);
            slice.write(slot, &accumulator);
            slice.keep();
        }
        for slice in &mut self.slices {
            slice.take_changed();
            slice.taken = true;
        }
        self.progress = progress;
        Ok(())
    }

    /// Accumulators that exist: one for each key of each slice.
    #[must_use]
    pub fn accumulators(&self) -> usize {
        self.slices.iter().map(Slice::len).sum()
    }

    /// Bytes of memory that keys and accumulators take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slices.iter().map(Slice::bytes).sum()
    }

    fn slice_at(&mut self, bounds: SliceBounds) -> u32 {
        if let Some(&place) = self.by_start.get(&bounds.start) {
            return place;
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.slices[place as usize] = Slice::new(bounds);
                place
            }
            None => {
                self.slices.push(Slice::new(bounds));
                u32::try_from(self.slices.len() - 1).expect("fewer than 4 billion slices fit into memory")
            }
        };
        self.by_start.insert(bounds.start, place);
        place
    }

    fn drop_slice(&mut self, start: i64) {
        let Some(place) = self.by_start.remove(&start) else { return };
        let slice = &mut self.slices[place as usize];
        if slice.taken {
            self.dropped.push(start);
        }
        *slice = Slice::new(slice.bounds);
        self.free.push(place);
    }
}

/// The rows of a batch that are not in a rising list.
fn others(len: usize, without: &[u32]) -> Vec<u32> {
    let mut without = without.iter().copied().peekable();
    (0..len as u32).filter(|row| without.next_if_eq(row).is_none()).collect()
}

#[inline]
fn hash(hasher: &DefaultHashBuilder, key: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(key);
    state.finish()
}

#[cfg(test)]
mod tests;
