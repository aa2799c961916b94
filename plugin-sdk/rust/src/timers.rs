//! Timer changes of one call, sent together.

use crate::bindings::wasmill::operator::types::{Clock, Column};
use crate::host::Host;

/// Changes in the order in which they were made.
#[derive(Default)]
pub(crate) struct TimerCalls {
    changes: Vec<Change>,
    /// Keys and tags.
    bytes: Vec<u8>,
    /// Changes up to here count; those behind are of this row.
    settled: usize,
    row: u64,
}

struct Change {
    clock: Clock,
    /// `None` deletes.
    at: Option<i64>,
    key: usize,
    tag: usize,
    end: usize,
}

impl TimerCalls {
    pub(crate) fn add(&mut self, row: u64, clock: Clock, key: &[u8], tag: &[u8], at: Option<i64>) {
        if self.row != row {
            self.row = row;
            self.settled = self.changes.len();
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(tag);
        self.changes.push(Change { clock, at, key: start, tag: start + key.len(), end: self.bytes.len() });
    }

    pub(crate) fn undo(&mut self, row: u64) {
        if self.row != row {
            return;
        }
        self.changes.truncate(self.settled);
        self.bytes.truncate(self.changes.last().map_or(0, |change| change.end));
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Sends each run of changes of one kind as one call.
    pub(crate) fn send(&mut self, host: &dyn Host) {
        if self.changes.is_empty() {
            return;
        }
        for run in self.changes.chunk_by(|a, b| a.clock == b.clock && a.at.is_some() == b.at.is_some()) {
            let (mut keys, mut tags) = (Column::EMPTY, Column::EMPTY);
            let mut times = Vec::new();
            for change in run {
                keys.push(&self.bytes[change.key..change.tag]);
                tags.push(&self.bytes[change.tag..change.end]);
                times.extend(change.at);
            }
            let Some(first) = run.first() else { continue };
            if first.at.is_some() {
                host.set_timers(first.clock, &keys, &tags, &times);
            } else {
                host.delete_timers(first.clock, &keys, &tags);
            }
        }
        self.clear();
    }
}
