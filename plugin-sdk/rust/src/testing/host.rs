//! A host in memory, with the rules of the interface.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::bindings::wasmill::operator::types::{Clock, Column};
use crate::column::Rows;
use crate::host::Host;

type Entry = (u16, Vec<u8>, Vec<u8>);

#[derive(Debug, Default)]
pub(super) struct Memory {
    /// By space, key and sub-key: value and when it was written, by both clocks.
    pub(super) state: BTreeMap<Entry, (Vec<u8>, [i64; 2])>,
    /// How long entries of a space live.
    pub(super) ttls: Vec<Option<(Clock, u64)>>,
    /// By clock, key and tag.
    pub(super) timers: BTreeMap<(u8, Vec<u8>, Vec<u8>), i64>,
    /// Watermark and wall clock.
    pub(super) now: [i64; 2],
    pub(super) counters: BTreeMap<String, u64>,
    pub(super) gauges: BTreeMap<String, f64>,
    pub(super) observations: BTreeMap<String, Vec<f64>>,
    /// Calls of state functions, for tests of how state moves.
    pub(super) calls: Vec<&'static str>,
}

pub(super) fn number(clock: Clock) -> u8 {
    match clock {
        Clock::Event => 0,
        Clock::Processing => 1,
    }
}

#[derive(Clone)]
pub(super) struct MemoryHost(pub(super) Rc<RefCell<Memory>>);

impl Memory {
    fn lives(&self, space: u16, written: [i64; 2]) -> bool {
        match self.ttls.get(usize::from(space)) {
            Some(Some((clock, micros))) => {
                let at = usize::from(number(*clock));
                self.now[at].saturating_sub(written[at]) < i64::try_from(*micros).unwrap_or(i64::MAX)
            }
            _ => true,
        }
    }

    fn get(&self, entry: &Entry) -> Option<&[u8]> {
        self.state.get(entry).filter(|(_, written)| self.lives(entry.0, *written)).map(|(value, _)| &value[..])
    }
}

fn entries(space: u16, keys: &Column, subkeys: &Column) -> Vec<Entry> {
    assert_eq!(keys.ends.len(), subkeys.ends.len(), "keys and sub-keys of one call");
    Rows::of(keys).iter().zip(Rows::of(subkeys).iter()).map(|(key, sub)| (space, key.to_vec(), sub.to_vec())).collect()
}

impl Host for MemoryHost {
    fn stateful(&self) -> bool {
        true
    }

    fn get_many(&self, space: u16, keys: &Column, subkeys: &Column) -> (Vec<u64>, Column) {
        let mut memory = self.0.borrow_mut();
        memory.calls.push("get-many");
        let entries = entries(space, keys, subkeys);
        let mut found = vec![0; entries.len().div_ceil(64)];
        let mut values = Column::EMPTY;
        for (row, entry) in entries.iter().enumerate() {
            let value = memory.get(entry);
            if value.is_some() {
                found[row / 64] |= 1 << (row % 64);
            }
            values.push(value.unwrap_or_default());
        }
        (found, values)
    }

    fn put_many(&self, space: u16, keys: &Column, subkeys: &Column, values: &Column) {
        let mut memory = self.0.borrow_mut();
        memory.calls.push("put-many");
        let now = memory.now;
        for (entry, value) in entries(space, keys, subkeys).into_iter().zip(Rows::of(values).iter()) {
            memory.state.insert(entry, (value.to_vec(), now));
        }
    }

    fn delete_many(&self, space: u16, keys: &Column, subkeys: &Column) {
        let mut memory = self.0.borrow_mut();
        memory.calls.push("delete-many");
        for entry in entries(space, keys, subkeys) {
            memory.state.remove(&entry);
        }
    }

    fn scan(&self, space: u16, key: &[u8], start: &[u8], limit: u32) -> (Column, Column) {
        let mut memory = self.0.borrow_mut();
        memory.calls.push("scan");
        let from = (space, key.to_vec(), start.to_vec());
        let (mut keys, mut values) = (Column::EMPTY, Column::EMPTY);
        let of_key = memory.state.range(from..).take_while(|((s, k, _), _)| *s == space && k == key);
        for ((_, _, subkey), (value, written)) in of_key {
            if memory.lives(space, *written) && keys.ends.len() < limit as usize {
                keys.push(subkey);
                values.push(value);
            }
        }
        (keys, values)
    }

    fn now(&self, clock: Clock) -> i64 {
        self.0.borrow().now[usize::from(number(clock))]
    }

    fn set_timers(&self, clock: Clock, keys: &Column, tags: &Column, times: &[i64]) {
        let mut memory = self.0.borrow_mut();
        for ((key, tag), at) in Rows::of(keys).iter().zip(Rows::of(tags).iter()).zip(times) {
            memory.timers.insert((number(clock), key.to_vec(), tag.to_vec()), *at);
        }
    }

    fn delete_timers(&self, clock: Clock, keys: &Column, tags: &Column) {
        let mut memory = self.0.borrow_mut();
        for (key, tag) in Rows::of(keys).iter().zip(Rows::of(tags).iter()) {
            memory.timers.remove(&(number(clock), key.to_vec(), tag.to_vec()));
        }
    }

    fn count(&self, name: &str, delta: u64) {
        *self.0.borrow_mut().counters.entry(name.to_owned()).or_default() += delta;
    }

    fn gauge(&self, name: &str, value: f64) {
        self.0.borrow_mut().gauges.insert(name.to_owned(), value);
    }

    fn observe(&self, name: &str, value: f64) {
        self.0.borrow_mut().observations.entry(name.to_owned()).or_default().push(value);
    }
}
