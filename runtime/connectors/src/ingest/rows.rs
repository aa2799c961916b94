use std::sync::Arc;

use wasmill_model::{Batch, ColumnBuilder};

/// What an event is known by, so that it counts once: the first half of the BLAKE3 of its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EventId(pub(crate) [u8; 16]);

impl EventId {
    /// Of names in order. No two lists of names make the same bytes.
    pub(crate) fn of(names: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for name in names {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name);
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

/// Rows that came in together: all of them are taken, or none.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    times: Vec<i64>,
    keys: ColumnBuilder,
    values: ColumnBuilder,
    /// One a row, or none at all.
    ids: Vec<EventId>,
}

impl Rows {
    pub(crate) fn push(&mut self, time: i64, key: &[u8], value: &[u8], id: Option<EventId>) {
        self.times.push(time);
        self.keys.push(key);
        self.values.push(value);
        self.ids.extend(id);
    }

    pub(crate) fn len(&self) -> usize {
        self.times.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// The rows, without lineage, and what they are known by where they are known by anything.
    pub(crate) fn finish(self, arrived_nanos: u64) -> (Batch, Option<Vec<EventId>>) {
        let ids = (!self.ids.is_empty() && self.ids.len() == self.times.len()).then_some(self.ids);
        let (keys, values) = (Arc::new(self.keys.finish()), Arc::new(self.values.finish()));
        (Batch::new(Arc::new(self.times), keys, values, arrived_nanos), ids)
    }
}
