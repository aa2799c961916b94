use wasmill_model::{Batch, Folded, Results, Timestamp, WindowShape, WindowSpec};

use super::fire::plain_rows;
use super::{
    Assignment, Fired, KeyedWindows, PaneEntry, PaneRows, SlicedWindows, Stored, WindowChanges, WindowProgress,
};
use crate::OrderError;

/// The windows of one share of a stage, kept in the way that suits them.
///
/// A clone has accumulators of its own: windows that were given the same have fired equally far.
#[derive(Debug, Clone)]
pub enum Windows {
    /// Of a fixed length, firing once.
    Sliced(SlicedWindows),
    /// All others.
    Keyed(KeyedWindows),
}

impl Windows {
    /// Windows that have seen nothing.
    ///
    /// # Errors
    /// Where there can be no such windows.
    pub fn new(spec: impl Into<WindowSpec>) -> Result<Self, OrderError> {
        let spec = spec.into();
        let is_fixed = matches!(spec.shape, WindowShape::Tumbling { .. } | WindowShape::Sliding { .. });
        Ok(match is_fixed && !spec.corrects() {
            true => Self::Sliced(SlicedWindows::new(spec.shape)?),
            false => Self::Keyed(KeyedWindows::new(spec)?),
        })
    }

    /// Names the accumulators of the first rows of a batch: see [`Assignment::taken`]. Fire what is
    /// due before.
    ///
    /// # Errors
    /// Where the accumulators it touches pass [`super::ASSIGNED_BYTES_MAX`].
    pub fn assign(&mut self, batch: &Batch, wall: Timestamp) -> Result<Assignment, OrderError> {
        match self {
            Self::Sliced(windows) => windows.assign(batch),
            Self::Keyed(windows) => windows.assign(batch, wall),
        }
    }

    /// Writes back what the fold of an assignment returned.
    ///
    /// # Errors
    /// Where the number of accumulators is not that of the groups, or the assignment is not the
    /// last one. The assignment is abandoned.
    pub fn store(&mut self, assignment: &Assignment, folded: &Folded) -> Result<Stored, OrderError> {
        match self {
            Self::Sliced(windows) => windows.store(assignment, folded),
            Self::Keyed(windows) => windows.store(assignment, folded),
        }
    }

    /// Forgets the open assignment, if there is one: its fold failed.
    pub fn abandon(&mut self) {
        match self {
            Self::Sliced(windows) => windows.abandon(),
            Self::Keyed(windows) => windows.abandon(),
        }
    }

    /// Up to `limit` panes, at least one, that fire at `watermark`, at `wall`, or because they are
    /// full. Call again until there is none.
    pub fn fire(&mut self, watermark: Timestamp, wall: Timestamp, limit: usize) -> Option<Fired> {
        match self {
            Self::Sliced(windows) => windows.fire(watermark, limit),
            Self::Keyed(windows) => windows.fire(watermark, wall, limit),
        }
    }

    /// The rows that the results of fired panes make.
    pub fn rows(&mut self, fired: &Fired, results: Results) -> PaneRows {
        match self {
            Self::Sliced(_) => plain_rows(fired, results),
            Self::Keyed(windows) => windows.rows(fired, &results),
        }
    }

    /// Bytes of memory that keys and accumulators take, without what finds them. Looks at every slice.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Sliced(windows) => windows.bytes(),
            Self::Keyed(windows) => windows.bytes(),
        }
    }

    /// When the wall clock makes a pane fire next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Sliced(_) => None,
            Self::Keyed(windows) => windows.next_deadline(),
        }
    }

    /// What changed since this was last called.
    pub fn take_changes(&mut self) -> WindowChanges {
        match self {
            Self::Sliced(windows) => windows.take_changes(),
            Self::Keyed(windows) => windows.take_changes(),
        }
    }

    /// Puts in what was stored, each entry as it was last, in any order, into windows that have seen
    /// nothing.
    ///
    /// # Errors
    /// Where these windows cannot have written it.
    pub fn load(&mut self, progress: WindowProgress, entries: Vec<PaneEntry>) -> Result<(), OrderError> {
        match self {
            Self::Sliced(windows) => windows.load(progress, entries),
            Self::Keyed(windows) => windows.load(progress, entries),
        }
    }
}
