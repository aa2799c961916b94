use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashTable};
use wasmill_model::{Clock, ColumnBuilder, Firings, KeyGroup, Timestamp, key_group};

/// The timers of one share of a stage, one for each (clock, key, tag).
///
/// # Ordering
/// Timers fire in the order of their times, and at equal times in the order in which they were
/// last set. That order is part of [`TimerEntry`], so it is the same after a recovery.
///
/// # Invariants
/// - No order that anybody sees depends on hashes.
/// - A timer that came and went between two [`Timers::take_changes`] leaves no change.
#[derive(Debug, Clone, Default)]
pub struct Timers {
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
    records: Vec<Record>,
    free: Vec<u32>,
    /// By clock: the slots of what is set, by time and order. Orders may be equal after a load of
    /// what several shares stored; the slot tells those apart.
    due: [BTreeSet<(i64, u64, u32)>; 2],
    changed: Vec<u32>,
    next_order: u64,
    /// As of the last set of changes.
    next_order_taken: u64,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct Record {
    hash: u64,
    clock: Clock,
    /// Key and tag, one behind the other.
    name: Box<[u8]>,
    key_len: u32,
    /// Time and order, `None` where the timer is gone but its change has not been taken.
    set: Option<(i64, u64)>,
    changed: bool,
    /// What the last set of changes left: time and order, `None` where it was not set.
    taken: Option<(i64, u64)>,
}

/// A timer as it is stored, or that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerEntry {
    /// The clock it counts in.
    pub clock: Clock,
    /// The event key.
    pub key: Box<[u8]>,
    /// The tag.
    pub tag: Box<[u8]>,
    /// When it is due and its place among timers of equal time; `None` where it has fired or was
    /// deleted.
    pub set: Option<(Timestamp, u64)>,
}

impl Timers {
    /// Sets a timer, or moves it.
    pub fn set(&mut self, clock: Clock, key: &[u8], tag: &[u8], time: Timestamp) {
        let order = self.next_order;
        self.next_order += 1;
        let slot = self.find_or_insert(clock, key, tag);
        self.put(slot, Some((time.0, order)));
        self.note_change(slot);
    }

    /// Deletes a timer. One that is not set is no error.
    pub fn delete(&mut self, clock: Clock, key: &[u8], tag: &[u8]) {
        if let Some(slot) = self.find(self.hash(clock, key, tag), clock, key, tag)
            && self.records[slot as usize].set.is_some()
        {
            self.put(slot, None);
            self.note_change(slot);
        }
    }

    /// Takes up to `limit` timers whose time is at most `now`, in order. They are gone: who fails
    /// to deliver them keeps them and tries again. A timer set meanwhile for a time that has
    /// passed is due at the next call.
    pub fn due(&mut self, clock: Clock, now: Timestamp, limit: usize) -> Firings {
        let mut times = Vec::new();
        let (mut keys, mut tags) = (ColumnBuilder::default(), ColumnBuilder::default());
        while times.len() < limit
            && let Some(&(time, _, slot)) = self.due[clock as usize].first()
            && time <= now.0
        {
            let record = &self.records[slot as usize];
            let (key, tag) = record.parts();
            // A column holds less than 4 GiB; what does not fit is due at the next call.
            if keys.byte_len().max(tags.byte_len()) + record.name.len() > FIRING_BYTES_MAX && !times.is_empty() {
                break;
            }
            times.push(time);
            keys.push(key);
            tags.push(tag);
            self.put(slot, None);
            self.note_change(slot);
        }
        Firings { times, keys: keys.finish(), tags: tags.finish() }
    }

    /// The time of the timer of this clock that is due first.
    #[must_use]
    pub fn next_due(&self, clock: Clock) -> Option<Timestamp> {
        self.due[clock as usize].first().map(|&(time, ..)| Timestamp(time))
    }

    /// Timers that are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.iter().map(BTreeSet::len).sum()
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys and tags of the timers that are set.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What changed since this was last called, each timer once, sorted by clock, key and tag.
    pub fn take_changes(&mut self) -> Vec<TimerEntry> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.retain(|&slot| {
            let record = &self.records[slot as usize];
            let came_and_went = record.set.is_none() && record.taken.is_none();
            if came_and_went {
                self.release(slot);
            }
            !came_and_went
        });
        let records = &self.records;
        changed.sort_unstable_by(|&a, &b| {
            let name = |slot: u32| (records[slot as usize].clock, records[slot as usize].parts());
            name(a).cmp(&name(b))
        });
        let mut entries = Vec::with_capacity(changed.len());
        for slot in changed {
            let record = &mut self.records[slot as usize];
            record.changed = false;
            record.taken = record.set;
            let (key, tag) = record.parts();
            let set = record.set.map(|(time, order)| (Timestamp(time), order));
            entries.push(TimerEntry { clock: record.clock, key: key.into(), tag: tag.into(), set });
            if record.set.is_none() {
                self.release(slot);
            }
        }
        self.next_order_taken = self.next_order;
        entries
    }

    /// Takes back everything since [`Timers::take_changes`]: the same calls may be made again.
    pub fn revert(&mut self) {
        for slot in std::mem::take(&mut self.changed) {
            let record = &mut self.records[slot as usize];
            record.changed = false;
            let taken = record.taken;
            self.put(slot, taken);
            if taken.is_none() {
                self.release(slot);
            }
        }
        self.next_order = self.next_order_taken;
    }

    /// Takes the timers of a group of keys out, for another share: no change says so. Nothing has
    /// changed since [`Timers::take_changes`].
    pub fn give(&mut self, group: KeyGroup) -> Vec<TimerEntry> {
        let mut given = Vec::new();
        for slot in 0..self.records.len() as u32 {
            let record = &self.records[slot as usize];
            let Some((time, order)) = record.set else { continue };
            let (key, tag) = record.parts();
            if key_group(key) != group {
                continue;
            }
            let (key, tag) = (key.into(), tag.into());
            given.push(TimerEntry { clock: record.clock, key, tag, set: Some((Timestamp(time), order)) });
            self.put(slot, None);
            self.records[slot as usize].taken = None;
            self.release(slot);
        }
        given
    }

    /// Puts in what was stored, in order of writing, with nothing changed since.
    pub fn load(&mut self, entries: impl IntoIterator<Item = TimerEntry>) {
        for TimerEntry { clock, key, tag, set } in entries {
            let slot = self.find_or_insert(clock, &key, &tag);
            self.put(slot, set.map(|(time, order)| (time.0, order)));
            self.records[slot as usize].taken = self.records[slot as usize].set;
            match set {
                Some((_, order)) => self.next_order = self.next_order.max(order.saturating_add(1)),
                None if self.records[slot as usize].changed => {}
                None => self.release(slot),
            }
        }
        self.next_order_taken = self.next_order;
    }

    fn hash(&self, clock: Clock, key: &[u8], tag: &[u8]) -> u64 {
        let mut state = self.hasher.build_hasher();
        state.write_u64((key.len() as u64) << 1 | clock as u64);
        state.write(key);
        state.write(tag);
        state.finish()
    }

    fn find(&self, hash: u64, clock: Clock, key: &[u8], tag: &[u8]) -> Option<u32> {
        let same = |&slot: &u32| {
            let record = &self.records[slot as usize];
            record.hash == hash && record.clock == clock && record.parts() == (key, tag)
        };
        self.table.find(hash, same).copied()
    }

    fn find_or_insert(&mut self, clock: Clock, key: &[u8], tag: &[u8]) -> u32 {
        let hash = self.hash(clock, key, tag);
        if let Some(slot) = self.find(hash, clock, key, tag) {
            return slot;
        }
        let key_len = u32::try_from(key.len()).expect("a key is a row of a column, shorter than 4 GiB");
        let name = [key, tag].concat().into_boxed_slice();
        let record = Record { hash, clock, name, key_len, set: None, changed: false, taken: None };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.records[slot as usize] = record;
                slot
            }
            None => {
                self.records.push(record);
                u32::try_from(self.records.len() - 1).expect("fewer than 4 billion timers fit into memory")
            }
        };
        let records = &self.records;
        self.table.insert_unique(hash, slot, |&slot| records[slot as usize].hash);
        slot
    }

    fn put(&mut self, slot: u32, set: Option<(i64, u64)>) {
        let record = &mut self.records[slot as usize];
        let due = &mut self.due[record.clock as usize];
        if let Some((time, order)) = record.set.take() {
            due.remove(&(time, order, slot));
            self.bytes -= record.name.len() as u64;
        }
        if let Some((time, order)) = set {
            due.insert((time, order, slot));
            self.bytes += record.name.len() as u64;
        }
        record.set = set;
    }

    fn note_change(&mut self, slot: u32) {
        let record = &mut self.records[slot as usize];
        if record.set.is_none() && record.taken.is_none() && !record.changed {
            self.release(slot);
        } else if !record.changed {
            record.changed = true;
            self.changed.push(slot);
        }
    }

    fn release(&mut self, slot: u32) {
        let record = &mut self.records[slot as usize];
        record.name = Box::default();
        if let Ok(place) = self.table.find_entry(record.hash, |&other| other == slot) {
            place.remove();
        }
        self.free.push(slot);
    }
}

/// Bytes of keys or tags of one [`Firings`], passed only by a single timer that is larger.
const FIRING_BYTES_MAX: usize = 16 << 20;

impl Record {
    fn parts(&self) -> (&[u8], &[u8]) {
        self.name.split_at(self.key_len as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn fired(timers: &mut Timers, now: i64, limit: usize) -> Vec<(i64, String, String)> {
        let Firings { times, keys, tags } = timers.due(Clock::Event, Timestamp(now), limit);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("test names are text");
        times.into_iter().enumerate().map(|(i, time)| (time, text(keys.row(i)), text(tags.row(i)))).collect()
    }

    fn firing(time: i64, key: &str, tag: &str) -> (i64, String, String) {
        (time, key.into(), tag.into())
    }

    #[test]
    fn timers_fire_by_time_and_then_in_the_order_they_were_set() {
        let mut timers = Timers::default();
        for (key, tag, time) in [("b", "", 5), ("a", "", 5), ("c", "x", 3), ("b", "", 5), ("d", "", 9), ("e", "", 4)] {
            timers.set(Clock::Event, key.as_bytes(), tag.as_bytes(), Timestamp(time));
        }
        timers.set(Clock::Processing, b"p", b"", Timestamp(1));
        timers.delete(Clock::Event, b"e", b"");
        timers.delete(Clock::Event, b"never set", b"");
        assert_eq!((timers.len(), timers.next_due(Clock::Event)), (5, Some(Timestamp(3))));
        assert_eq!(fired(&mut timers, 5, 2), [firing(3, "c", "x"), firing(5, "a", "")]);
        assert_eq!(fired(&mut timers, 5, 2), [firing(5, "b", "")]);
        assert_eq!(fired(&mut timers, 8, 2), []);
        assert_eq!((timers.len(), timers.bytes()), (2, 2));
    }

    #[test]
    fn key_and_tag_are_told_apart() {
        let mut timers = Timers::default();
        timers.set(Clock::Event, b"ab", b"c", Timestamp(1));
        timers.set(Clock::Event, b"a", b"bc", Timestamp(2));
        assert_eq!(fired(&mut timers, 9, 9), [firing(1, "ab", "c"), firing(2, "a", "bc")]);
    }

    #[test]
    fn a_flood_at_one_instant_fires_in_bounded_chunks() {
        let mut timers = Timers::default();
        for key in 0..10_000_u32 {
            timers.set(Clock::Event, &key.to_le_bytes(), b"", Timestamp(i64::MAX));
        }
        for _ in 0..10 {
            assert_eq!(timers.due(Clock::Event, Timestamp::MAX, 1_000).times.len(), 1_000);
        }
        assert!(timers.is_empty() && timers.take_changes().is_empty());
        assert_eq!((timers.table.len(), timers.bytes()), (0, 0));
    }

    #[test]
    fn shares_that_stored_equal_orders_load_into_one() {
        let mut timers = Timers::default();
        for key in [b"a", b"b"] {
            let set = Some((Timestamp(1), 0));
            let entry = TimerEntry { clock: Clock::Event, key: key.as_slice().into(), tag: Box::default(), set };
            timers.load([entry]);
        }
        assert_eq!(timers.take_changes(), []);
        assert_eq!(fired(&mut timers, 1, 9), [firing(1, "a", ""), firing(1, "b", "")]);
        assert_eq!(timers.take_changes().len(), 2);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(Clock, u8, u8, i64),
        Delete(Clock, u8, u8),
        Due(Clock, i64, usize),
        Take,
        Revert,
        Recover,
    }

    fn step() -> impl Strategy<Value = Step> {
        let clock = || prop_oneof![Just(Clock::Event), Just(Clock::Processing)];
        prop_oneof![
            5 => (clock(), 0..4_u8, 0..3_u8, 0..20_i64).prop_map(|(c, k, t, time)| Step::Set(c, k, t, time)),
            2 => (clock(), 0..4_u8, 0..3_u8).prop_map(|(c, k, t)| Step::Delete(c, k, t)),
            2 => (clock(), 0..20_i64, 0..4_usize).prop_map(|(c, now, limit)| Step::Due(c, now, limit)),
            1 => Just(Step::Take),
            1 => Just(Step::Revert),
            1 => Just(Step::Recover),
        ]
    }

    proptest! {
        /// Against a plain list, with recoveries from the changes taken so far in between.
        #[test]
        fn any_history_fires_as_a_sorted_list_does(steps in prop::collection::vec(step(), 1..80)) {
            let mut timers = Timers::default();
            let mut model: Vec<(Clock, u8, u8, i64)> = Vec::new();
            let mut stored = BTreeMap::new();
            let mut taken = model.clone();
            for step in steps {
                match step {
                    Step::Set(clock, key, tag, time) => {
                        timers.set(clock, &[key], &[tag], Timestamp(time));
                        model.retain(|timer| (timer.0, timer.1, timer.2) != (clock, key, tag));
                        model.push((clock, key, tag, time));
                    }
                    Step::Delete(clock, key, tag) => {
                        timers.delete(clock, &[key], &[tag]);
                        model.retain(|timer| (timer.0, timer.1, timer.2) != (clock, key, tag));
                    }
                    Step::Due(clock, now, limit) => {
                        let mut due: Vec<_> = model.iter().filter(|t| t.0 == clock && t.3 <= now).copied().collect();
                        due.sort_by_key(|timer| timer.3);
                        due.truncate(limit);
                        model.retain(|timer| !due.contains(timer));
                        let Firings { times, keys, tags } = timers.due(clock, Timestamp(now), limit);
                        let got = times.iter().enumerate().map(|(i, &time)| (clock, keys.row(i)[0], tags.row(i)[0], time));
                        prop_assert_eq!(got.collect::<Vec<_>>(), due);
                    }
                    Step::Revert => {
                        timers.revert();
                        model = taken.clone();
                    }
                    Step::Take | Step::Recover => {
                        taken = model.clone();
                        let changes = timers.take_changes();
                        for TimerEntry { clock, key, tag, set } in changes {
                            let gone = stored.remove(&(clock, key.clone(), tag.clone()));
                            match set {
                                Some(_) => drop(stored.insert((clock, key, tag), set)),
                                None => prop_assert!(gone.is_some(), "a deletion of what was never stored"),
                            }
                        }
                        let want: Vec<_> = model.iter().map(|t| (t.0, vec![t.1], vec![t.2], t.3)).collect();
                        prop_assert_eq!(stored.len(), want.len());
                        if matches!(step, Step::Recover) {
                            timers = Timers::default();
                            timers.load(stored.iter().map(|((clock, key, tag), &set)| TimerEntry {
                                clock: *clock, key: key.clone(), tag: tag.clone(), set,
                            }));
                            prop_assert_eq!(timers.take_changes(), []);
                        }
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.bytes(), 2 * model.len() as u64);
                for clock in [Clock::Event, Clock::Processing] {
                    let first = model.iter().filter(|timer| timer.0 == clock).map(|timer| Timestamp(timer.3)).min();
                    prop_assert_eq!(timers.next_due(clock), first);
                }
            }
        }
    }
}
