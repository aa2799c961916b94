//! The join of two tables that change: each row is the newest version of its entry.

use wasmill_sdk::json::Pointer;
use wasmill_sdk::prelude::*;

use crate::pair::{Pairs, sides, value};

pub(crate) struct Table {
    /// Where the id of an entry is; without it a key has one entry.
    pub(crate) ids: [Option<Pointer>; 2],
    /// Entries by id.
    pub(crate) entries: [Map<Vec<u8>, Vec<u8>>; 2],
    /// Whether pairs say if they come or go.
    pub(crate) changes: bool,
    pub(crate) pairs: Pairs,
}

impl Table {
    pub(crate) fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let side = usize::from(event.port().min(1));
        let id = match &self.ids[side] {
            None => Vec::new(),
            Some(pointer) => match event.json().pointer(pointer)? {
                Some(id) => id.bytes().to_vec(),
                None => wasmill_sdk::reject!("there is no id at `{pointer}`"),
            },
        };
        let gone = event.value().trim_ascii();
        let new = if gone.is_empty() || gone == b"null" { None } else { Some(value(&event)?) };
        let old = match &new {
            Some(new) => self.entries[side].insert(&id, new.clone()),
            None => self.entries[side].remove(&id),
        };
        if old == new {
            return Ok(());
        }
        let others = self.entries[1 - side].entries();
        let old = old.filter(|_| self.changes);
        for (change, own) in [("\"op\":\"delete\",", old), ("\"op\":\"insert\",", new)] {
            let Some(own) = own else { continue };
            let change = if self.changes { change } else { "" };
            for (_, other) in &others {
                ctx.emit_with(|out| self.pairs.write_change(out, change, sides(side, Some(&own), Some(other))));
            }
        }
        Ok(())
    }
}
