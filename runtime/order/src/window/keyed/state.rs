//! What one key has.

use std::ops::Range;
use std::sync::Arc;

use wasmill_model::{Column, Firing};

/// The windows of one key, with their accumulators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyState {
    /// Events of the key so far, where windows count them.
    pub(super) rows: u64,
    /// In rising order of [`Pane::id`].
    pub(super) panes: Vec<Pane>,
    /// In rising order of [`Cell::id`]. Each belongs to a pane.
    pub(super) cells: Vec<Cell>,
}

/// An accumulator that one or more windows share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    /// Its place: see [`super::frame::Frame`].
    pub(super) id: i64,
    /// The earliest and the latest event time in it.
    pub(super) times: (i64, i64),
    pub(super) accumulator: Arc<[u8]>,
    /// Its group in the open assignment. Never stored.
    pub(super) group: Option<u32>,
}

/// What one window holds for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pane {
    /// Names the window among those of the key.
    pub(super) id: i64,
    /// `[start, end)` in microseconds; all of time where the window has no bounds in time.
    pub(super) start: i64,
    pub(super) end: i64,
    /// Cells with these ids are its own: from the first to the last.
    pub(super) cells: (i64, i64),
    /// Events since it last fired.
    pub(super) rows: u32,
    /// Whether the watermark has passed its end.
    pub(super) passed: bool,
    /// Whether it has fired at its end.
    pub(super) was_on_time: bool,
    /// When it fires next, apart from its end, by the watermark and by the wall clock.
    pub(super) due: Option<i64>,
    pub(super) wall_due: Option<i64>,
    /// Whether it is to fire before any other event goes in. Never stored.
    pub(super) ready: bool,
    /// The results that stand, where later ones are to retract them.
    pub(super) given: Vec<Given>,
}

/// Results of a pane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::window) struct Given {
    /// Event time of the rows.
    pub(super) time: i64,
    pub(super) rows: Column,
}

impl Given {
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.rows.byte_len()
    }
}

impl KeyState {
    pub(super) fn pane(&self, id: i64) -> Option<usize> {
        self.panes.binary_search_by_key(&id, |pane| pane.id).ok()
    }

    /// The cells of a pane, by place.
    pub(super) fn cells_of(&self, pane: &Pane) -> Range<usize> {
        let (first, last) = pane.cells;
        self.cells.partition_point(|cell| cell.id < first)..self.cells.partition_point(|cell| cell.id <= last)
    }

    /// Drops a pane, and the accumulators that it alone has. Cells of panes rise as their ids do, so
    /// its neighbours say which.
    pub(super) fn remove_pane(&mut self, at: usize) {
        let pane = self.panes.remove(at);
        let before = at.checked_sub(1).map(|at| self.panes[at].cells.1);
        let behind = self.panes.get(at).map(|pane| pane.cells.0);
        let is_shared = |id: i64| before.is_some_and(|last| id <= last) || behind.is_some_and(|first| id >= first);
        self.cells.retain(|cell| !pane.has(cell.id) || is_shared(cell.id));
    }

    /// Bytes of memory with a key of `key_bytes`; none where it holds nothing.
    pub(super) fn bytes(&self, key_bytes: usize) -> usize {
        if *self == Self::default() {
            return 0;
        }
        let given = self.panes.iter().flat_map(|pane| &pane.given).map(Given::bytes).sum::<usize>();
        let accumulators = self.cells.iter().map(|cell| cell.accumulator.len()).sum::<usize>();
        key_bytes + given + accumulators + size_of_val(&self.panes[..]) + size_of_val(&self.cells[..])
    }

    /// Whether a key that has never been seen is the same.
    pub(super) fn is_fresh(&self, slide: u64) -> bool {
        self.panes.is_empty() && self.cells.is_empty() && self.rows.is_multiple_of(slide.max(1))
    }
}

impl Pane {
    pub(super) fn has(&self, cell: i64) -> bool {
        (self.cells.0..=self.cells.1).contains(&cell)
    }

    /// The watermark at which it fires for its end: a window without one waits for the end of time.
    pub(super) fn last(&self) -> i64 {
        last_before(self.end)
    }

    /// The watermark at which nothing goes into it any more.
    pub(super) fn expires(&self, firing: &Firing) -> i64 {
        self.last().saturating_add(firing.lateness_micros)
    }

    /// The watermark at which something is to be done.
    pub(super) fn next(&self, firing: &Firing) -> i64 {
        let end = if self.passed { self.expires(firing) } else { self.last() };
        self.due.map_or(end, |due| due.min(end))
    }
}

/// The last microsecond before an end. The end of time is its own.
pub(super) fn last_before(end: i64) -> i64 {
    if end == i64::MAX { end } else { end.saturating_sub(1) }
}
