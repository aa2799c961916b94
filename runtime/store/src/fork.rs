//! A view of state as it stands at one moment, that may be written to, beside the state itself.
//!
//! # Invariants
//! - Neither side sees a write of the other that comes behind the fork.
//! - Nothing that the view is given gets into a [`ChangeSet`], and so into an epoch.
//! - The view holds what differs: entries that it has written, and those that the state has written
//!   since, as they were before. Nothing is copied at the fork.
//!
//! An entry with a lifetime that the state has written counts its lifetime, in the view, from that write.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmill_model::{
    Bitmap, Clock, Column, ColumnBuilder, Entries, KeyGroup, Migrated, SpaceDescriptor, Timestamp, Ttl, key_group,
};

use crate::backend::Walk;
use crate::memory::{check_read, given, row};
use crate::{ChangeSet, EntryChange, MemoryState, StateBackend, StateError};

/// Bytes that an entry of the view takes besides its own.
const ENTRY_BYTES: usize = 96;

/// State with a view beside it. Both sides belong to one task: they never wait for each other.
pub struct Fork(Arc<Mutex<Forked>>);

struct Forked {
    base: Box<dyn StateBackend>,
    /// Whether anybody looks at the view: else nothing is kept for it.
    viewed: bool,
    spaces: Vec<Space>,
    bytes: usize,
}

/// What the view has of a space that the state has not, by key and sub-key.
#[derive(Default)]
struct Space {
    ttl: Option<Ttl>,
    now: i64,
    known: BTreeMap<Box<[u8]>, BySubkey>,
}

type BySubkey = BTreeMap<Box<[u8]>, Known>;

/// An entry of the view.
#[derive(Debug)]
struct Known {
    /// `None`: there is none.
    value: Option<Box<[u8]>>,
    written: i64,
}

impl Fork {
    /// Forks state behind a cut, with spaces that are declared.
    #[must_use]
    pub fn new(base: Box<dyn StateBackend>, spaces: &[SpaceDescriptor]) -> Self {
        let space = |space: &SpaceDescriptor| Space { ttl: space.ttl, now: i64::MIN, known: BTreeMap::new() };
        let spaces = spaces.iter().map(space).collect();
        Self(Arc::new(Mutex::new(Forked { base, viewed: true, spaces, bytes: 0 })))
    }

    fn forked(&self) -> MutexGuard<'_, Forked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state itself.
    #[must_use]
    pub fn base(&self) -> Box<dyn StateBackend> {
        Box::new(Base(Self(Arc::clone(&self.0))))
    }

    /// The view. There may be one at a time.
    #[must_use]
    pub fn view(&self) -> Box<dyn StateBackend> {
        Box::new(View(Self(Arc::clone(&self.0))))
    }

    /// The view is from here on as the state now is.
    pub fn again(&self) {
        self.rest();
        self.forked().viewed = true;
    }

    /// Nobody looks at the view until it begins [`Fork::again`].
    pub fn rest(&self) {
        let mut forked = self.forked();
        forked.viewed = false;
        forked.bytes = 0;
        forked.spaces.iter_mut().for_each(|space| space.known.clear());
    }

    /// Takes out what the view has of a group of keys, once the state has given its part of it away.
    #[must_use]
    pub fn give(&self, group: KeyGroup) -> Viewed {
        let mut forked = self.forked();
        let of = |space: &mut Space| -> BTreeMap<Box<[u8]>, BySubkey> {
            space.known.extract_if(.., |key, _| key_group(key) == group).collect()
        };
        let spaces: Vec<_> = forked.spaces.iter_mut().map(of).collect();
        let viewed = Viewed { spaces };
        forked.bytes = forked.bytes.saturating_sub(viewed.bytes());
        viewed
    }

    /// Puts in what another view of the same stage gave. The state has taken its part of it over.
    pub fn adopt(&self, viewed: Viewed) {
        let mut forked = self.forked();
        forked.bytes = forked.bytes.saturating_add(viewed.bytes());
        for (space, known) in forked.spaces.iter_mut().zip(viewed.spaces) {
            space.known.extend(known);
        }
    }

    /// Bytes that the view holds by itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.forked().bytes
    }

    /// The state without the view. Both sides are empty from here on.
    #[must_use]
    pub fn close(self) -> Box<dyn StateBackend> {
        let mut forked = self.forked();
        forked.spaces.clear();
        std::mem::replace(&mut forked.base, Box::new(MemoryState::default()))
    }
}

/// What a view has of a group of keys, on its way to a view in another task.
#[derive(Debug, Default)]
pub struct Viewed {
    spaces: Vec<BTreeMap<Box<[u8]>, BySubkey>>,
}

impl Viewed {
    fn bytes(&self) -> usize {
        let mut bytes = 0;
        for (key, subkeys) in self.spaces.iter().flatten() {
            for (subkey, known) in subkeys {
                let value = known.value.as_ref().map_or(0, |value| value.len());
                bytes += key.len() + subkey.len() + value + ENTRY_BYTES;
            }
        }
        bytes
    }
}

impl Space {
    fn known(&self, key: &[u8], subkey: &[u8]) -> Option<Option<&[u8]>> {
        let known = self.known.get(key)?.get(subkey)?;
        Some(known.value.as_deref().filter(|_| self.is_seen(known)))
    }

    fn is_seen(&self, known: &Known) -> bool {
        let Some(ttl) = self.ttl else { return true };
        let micros = i64::try_from(ttl.micros).unwrap_or(i64::MAX);
        known.written == i64::MIN || known.written.saturating_add(micros) > self.now
    }

    /// Returns by how many bytes the view has grown.
    fn put(&mut self, key: &[u8], subkey: &[u8], value: Option<&[u8]>) -> isize {
        let len = |known: &Known| known.value.as_ref().map_or(0, |value| value.len()) as isize;
        let known = Known { value: value.map(Into::into), written: self.now };
        let (grown, names) = (len(&known), (key.len() + subkey.len() + ENTRY_BYTES) as isize);
        let subkeys = match self.known.get_mut(key) {
            Some(subkeys) => subkeys,
            None => self.known.entry(key.into()).or_default(),
        };
        match subkeys.insert(subkey.into(), known) {
            Some(before) => grown - len(&before),
            None => grown + names,
        }
    }
}

impl Forked {
    fn put(&mut self, space: u16, key: &[u8], subkey: &[u8], value: Option<&[u8]>) {
        let grown = self.spaces[usize::from(space)].put(key, subkey, value);
        self.bytes = self.bytes.saturating_add_signed(grown);
    }

    /// The rows of which the view knows nothing.
    fn unknown(&self, space: u16, keys: &Column, subkeys: Option<&Column>) -> Vec<u32> {
        let Some(space) = self.spaces.get(usize::from(space)) else { return Vec::new() };
        let rows = keys.iter().enumerate();
        let rows = rows.filter(|(place, key)| space.known(key, row(subkeys, *place)).is_none());
        rows.map(|(place, _)| place as u32).collect()
    }

    /// The state is about to write these entries: the view keeps them as they are.
    fn keep(&mut self, space: u16, keys: &Column, subkeys: &Column) -> Result<(), StateError> {
        let subkeys = given(subkeys);
        // Where columns do not fit, the state itself says so.
        if !self.viewed || subkeys.is_some_and(|subkeys| subkeys.len() != keys.len()) {
            return Ok(());
        }
        let rows = self.unknown(space, keys, subkeys);
        if rows.is_empty() {
            return Ok(());
        }
        let keys = keys.gather(&rows);
        let subkeys = subkeys.map(|subkeys| subkeys.gather(&rows)).unwrap_or_default();
        let mut values = ColumnBuilder::default();
        let found = self.base.get_many(space, &keys, &subkeys, &mut values)?;
        let (values, subkeys) = (values.finish(), given(&subkeys));
        for (place, key) in keys.iter().enumerate() {
            let value = found.get(place).then(|| values.row(place));
            self.put(space, key, row(subkeys, place), value);
        }
        Ok(())
    }

    fn declared(&self, space: u16) -> Result<(), StateError> {
        let declared = self.spaces.len();
        if usize::from(space) < declared { Ok(()) } else { Err(StateError::UnknownSpace { space, declared }) }
    }

    fn check(&self, space: u16, keys: &Column, others: [(&'static str, Option<&Column>); 2]) -> Result<(), StateError> {
        self.declared(space)?;
        for (what, column) in others {
            if let Some(column) = column.filter(|column| column.len() != keys.len()) {
                return Err(StateError::RowCount { what, got: column.len(), want: keys.len() });
            }
        }
        Ok(())
    }
}

/// The state itself, beside a view.
struct Base(Fork);

impl StateBackend for Base {
    fn declare(&mut self, spaces: &[SpaceDescriptor]) {
        self.0.forked().base.declare(spaces);
    }

    fn advance(&mut self, watermark: Timestamp, wall: Timestamp) {
        self.0.forked().base.advance(watermark, wall);
    }

    fn get_many(
        &mut self,
        space: u16,
        keys: &Column,
        subkeys: &Column,
        values: &mut ColumnBuilder,
    ) -> Result<Bitmap, StateError> {
        self.0.forked().base.get_many(space, keys, subkeys, values)
    }

    fn put_many(&mut self, space: u16, keys: &Column, subkeys: &Column, values: &Column) -> Result<(), StateError> {
        let mut forked = self.0.forked();
        forked.keep(space, keys, subkeys)?;
        forked.base.put_many(space, keys, subkeys, values)
    }

    fn delete_many(&mut self, space: u16, keys: &Column, subkeys: &Column) -> Result<(), StateError> {
        let mut forked = self.0.forked();
        forked.keep(space, keys, subkeys)?;
        forked.base.delete_many(space, keys, subkeys)
    }

    fn scan(&mut self, space: u16, key: &[u8], start: &[u8], limit: u32) -> Result<(Column, Column), StateError> {
        self.0.forked().base.scan(space, key, start, limit)
    }

    fn walk(&mut self, space: u16, walk: &mut Walk) -> Result<Entries, StateError> {
        self.0.forked().base.walk(space, walk)
    }

    fn rewrite(&mut self, space: u16, entries: &Entries, migrated: &Migrated) -> Result<(), StateError> {
        let mut forked = self.0.forked();
        forked.keep(space, &entries.keys, &entries.subkeys)?;
        forked.base.rewrite(space, entries, migrated)
    }

    fn mark(&mut self) {
        self.0.forked().base.mark();
    }

    fn undo(&mut self) {
        self.0.forked().base.undo();
    }

    fn revert(&mut self) {
        self.0.forked().base.revert();
    }

    fn checkpoint(&mut self) -> ChangeSet {
        self.0.forked().base.checkpoint()
    }

    fn take_changes(&mut self) -> ChangeSet {
        self.0.forked().base.take_changes()
    }

    fn give(&mut self, group: KeyGroup) -> Option<Vec<EntryChange>> {
        self.0.forked().base.give(group)
    }

    fn adopt(&mut self, entries: Vec<EntryChange>) {
        self.0.forked().base.adopt(entries);
    }

    fn entries(&self) -> u64 {
        self.0.forked().base.entries()
    }

    fn bytes(&self) -> u64 {
        self.0.forked().base.bytes()
    }
}

/// The view. Nothing of it can be taken back: whoever has a call on it fail begins it [`Fork::again`].
struct View(Fork);

impl StateBackend for View {
    fn declare(&mut self, _: &[SpaceDescriptor]) {}

    fn advance(&mut self, watermark: Timestamp, wall: Timestamp) {
        for space in &mut self.0.forked().spaces {
            let clock = space.ttl.map(|ttl| if ttl.clock == Clock::Event { watermark } else { wall });
            if let Some(now) = clock.filter(|now| *now != Timestamp::MAX) {
                space.now = space.now.max(now.0);
            }
        }
    }

    fn get_many(
        &mut self,
        space: u16,
        keys: &Column,
        subkeys: &Column,
        values: &mut ColumnBuilder,
    ) -> Result<Bitmap, StateError> {
        let subkeys = given(subkeys);
        let mut forked = self.0.forked();
        forked.check(space, keys, [("subkeys", subkeys), ("subkeys", None)])?;
        let rows = forked.unknown(space, keys, subkeys);
        let some = subkeys.map(|subkeys| subkeys.gather(&rows)).unwrap_or_default();
        let mut read = ColumnBuilder::default();
        let read_found = match rows.is_empty() {
            true => Bitmap::default(),
            false => forked.base.get_many(space, &keys.gather(&rows), &some, &mut read)?,
        };
        let read = read.finish();
        let space = &forked.spaces[usize::from(space)];
        let mut found = vec![0_u64; keys.len().div_ceil(64)];
        let mut next = 0;
        for (place, key) in keys.iter().enumerate() {
            let value = match space.known(key, row(subkeys, place)) {
                Some(known) => known,
                None => {
                    next += 1;
                    read_found.get(next - 1).then(|| read.row(next - 1))
                }
            };
            match value {
                Some(value) => {
                    check_read(values.byte_len() + value.len())?;
                    found[place / 64] |= 1 << (place % 64);
                    values.push(value);
                }
                None => values.end_row(),
            }
        }
        Ok(Bitmap::from_words(found, keys.len()).unwrap_or_default())
    }

    fn put_many(&mut self, space: u16, keys: &Column, subkeys: &Column, values: &Column) -> Result<(), StateError> {
        let subkeys = given(subkeys);
        let mut forked = self.0.forked();
        forked.check(space, keys, [("subkeys", subkeys), ("values", Some(values))])?;
        for (place, (key, value)) in keys.iter().zip(values.iter()).enumerate() {
            forked.put(space, key, row(subkeys, place), Some(value));
        }
        Ok(())
    }

    fn delete_many(&mut self, space: u16, keys: &Column, subkeys: &Column) -> Result<(), StateError> {
        let subkeys = given(subkeys);
        let mut forked = self.0.forked();
        forked.check(space, keys, [("subkeys", subkeys), ("subkeys", None)])?;
        for (place, key) in keys.iter().enumerate() {
            forked.put(space, key, row(subkeys, place), None);
        }
        Ok(())
    }

    fn scan(&mut self, space: u16, key: &[u8], start: &[u8], limit: u32) -> Result<(Column, Column), StateError> {
        let mut forked = self.0.forked();
        forked.declared(space)?;
        let from = (Bound::Included(start), Bound::Unbounded);
        let known = forked.spaces[usize::from(space)].known.get(key);
        let masked = known.map_or(0, |known| known.range::<[u8], _>(from).count());
        // So many of the state's may be others in the view, and enough are left.
        let read = limit.saturating_add(u32::try_from(masked).unwrap_or(u32::MAX));
        let (read_subkeys, read_values) = forked.base.scan(space, key, start, read)?;
        let space = &forked.spaces[usize::from(space)];
        let mut all: BTreeMap<&[u8], Option<&[u8]>> = read_subkeys.iter().zip(read_values.iter().map(Some)).collect();
        for (subkey, known) in space.known.get(key).iter().flat_map(|known| known.range::<[u8], _>(from)) {
            all.insert(subkey, known.value.as_deref().filter(|_| space.is_seen(known)));
        }
        let (mut subkeys, mut values) = (ColumnBuilder::default(), ColumnBuilder::default());
        let seen = all.into_iter().filter_map(|(subkey, value)| Some((subkey, value?)));
        for (subkey, value) in seen.take(limit as usize) {
            check_read(subkeys.byte_len() + values.byte_len() + subkey.len() + value.len())?;
            subkeys.push(subkey);
            values.push(value);
        }
        Ok((subkeys.finish(), values.finish()))
    }

    fn walk(&mut self, space: u16, walk: &mut Walk) -> Result<Entries, StateError> {
        let mut forked = self.0.forked();
        let entries = forked.base.walk(space, walk)?;
        let rows = forked.unknown(space, &entries.keys, given(&entries.subkeys));
        let Entries { keys, subkeys, values } = entries;
        Ok(Entries { keys: keys.gather(&rows), subkeys: subkeys.gather(&rows), values: values.gather(&rows) })
    }

    fn rewrite(&mut self, space: u16, entries: &Entries, migrated: &Migrated) -> Result<(), StateError> {
        let mut forked = self.0.forked();
        let Entries { keys, subkeys, .. } = entries;
        let (subkeys, values) = (given(subkeys), &migrated.values);
        forked.check(space, keys, [("subkeys", subkeys), ("values", Some(values))])?;
        let mut dropped = migrated.dropped.iter().peekable();
        for (place, (key, value)) in keys.iter().zip(values.iter()).enumerate() {
            let goes = dropped.next_if(|goes| **goes as usize == place).is_some();
            forked.put(space, key, row(subkeys, place), (!goes).then_some(value));
        }
        Ok(())
    }

    fn mark(&mut self) {}

    fn undo(&mut self) {}

    fn revert(&mut self) {}

    fn checkpoint(&mut self) -> ChangeSet {
        ChangeSet::default()
    }

    fn take_changes(&mut self) -> ChangeSet {
        ChangeSet::default()
    }

    fn entries(&self) -> u64 {
        self.0.forked().base.entries()
    }

    fn bytes(&self) -> u64 {
        self.0.bytes() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

    /// One step on either side.
    #[derive(Debug, Clone)]
    enum Step {
        Put(bool, u8, u8, u8),
        Delete(bool, u8, u8),
        /// The state's call fails, and what it wrote is taken back.
        Failed(u8, u8, u8),
        Scan(bool, u8, u8, u32),
        Again,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (any::<bool>(), 0..3_u8, 0..4_u8, any::<u8>()).prop_map(|(side, k, s, v)| Step::Put(side, k, s, v)),
            2 => (any::<bool>(), 0..3_u8, 0..4_u8).prop_map(|(side, k, s)| Step::Delete(side, k, s)),
            2 => (0..3_u8, 0..4_u8, any::<u8>()).prop_map(|(k, s, v)| Step::Failed(k, s, v)),
            2 => (any::<bool>(), 0..3_u8, 0..4_u8, 0..4_u32).prop_map(|(side, k, s, l)| Step::Scan(side, k, s, l)),
            1 => Just(Step::Again),
        ];
        prop::collection::vec(step, 0..60)
    }

    fn one(byte: u8) -> Column {
        [[byte]].iter().collect()
    }

    /// What a side has of every entry.
    fn seen(state: &mut dyn StateBackend) -> Model {
        let all: Vec<(u8, u8)> = (0..3).flat_map(|key| (0..4).map(move |subkey| (key, subkey))).collect();
        let keys: Column = all.iter().map(|(key, _)| [*key]).collect();
        let subkeys: Column = all.iter().map(|(_, subkey)| [*subkey]).collect();
        let mut values = ColumnBuilder::default();
        let found = state.get_many(0, &keys, &subkeys, &mut values).expect("it is read");
        let values = values.finish();
        let there = all.iter().enumerate().filter(|(place, _)| found.get(*place));
        there.map(|(place, (key, subkey))| ((vec![*key], vec![*subkey]), values.row(place).to_vec())).collect()
    }

    proptest! {
        #[test]
        fn each_side_is_as_if_the_other_were_not_there(steps in steps()) {
            let mut state: Box<dyn StateBackend> = Box::new(MemoryState::default());
            let spaces = [SpaceDescriptor { name: "s".into(), schema_version: 1, ttl: None }];
            state.declare(&spaces);
            state.put_many(0, &one(1), &one(1), &one(7)).expect("written");
            let _cut = state.take_changes();
            let fork = Fork::new(state, &spaces);
            let mut sides = [fork.base(), fork.view()];
            let first = Model::from([((vec![1], vec![1]), vec![7])]);
            let mut models = [first.clone(), first];
            for step in steps {
                match step {
                    Step::Put(side, key, subkey, value) => {
                        let side = usize::from(side);
                        sides[side].put_many(0, &one(key), &one(subkey), &one(value)).expect("written");
                        models[side].insert((vec![key], vec![subkey]), vec![value]);
                    }
                    Step::Delete(side, key, subkey) => {
                        let side = usize::from(side);
                        sides[side].delete_many(0, &one(key), &one(subkey)).expect("written");
                        models[side].remove(&(vec![key], vec![subkey]));
                    }
                    Step::Failed(key, subkey, value) => {
                        sides[0].mark();
                        sides[0].put_many(0, &one(key), &one(subkey), &one(value)).expect("written");
                        sides[0].undo();
                    }
                    Step::Scan(side, key, start, limit) => {
                        let side = usize::from(side);
                        let (subkeys, values) = sides[side].scan(0, &[key], &[start], limit).expect("it is read");
                        let got: Vec<_> = subkeys.iter().zip(values.iter()).map(|(s, v)| (s.to_vec(), v.to_vec())).collect();
                        let all = models[side].iter().filter(|((k, s), _)| *k == [key] && s[0] >= start);
                        let want: Vec<_> = all.take(limit as usize).map(|((_, s), v)| (s.clone(), v.clone())).collect();
                        prop_assert_eq!(got, want);
                    }
                    Step::Again => {
                        fork.again();
                        models[1] = models[0].clone();
                    }
                }
                prop_assert_eq!(seen(&mut *sides[0]), models[0].clone());
                prop_assert_eq!(seen(&mut *sides[1]), models[1].clone());
            }
            drop(sides);
            let mut state = fork.close();
            prop_assert_eq!(seen(&mut *state), models[0].clone());
        }
    }

    #[test]
    fn a_group_of_keys_moves_from_one_view_to_another() {
        let spaces = [SpaceDescriptor { name: "s".into(), schema_version: 1, ttl: None }];
        let state = |keys: &[u8]| {
            let mut state: Box<dyn StateBackend> = Box::new(MemoryState::default());
            state.declare(&spaces);
            keys.iter().for_each(|&key| state.put_many(0, &one(key), &one(1), &one(7)).expect("written"));
            let _cut = state.take_changes();
            Fork::new(state, &spaces)
        };
        let (from, to) = (state(&[1, 2]), state(&[0]));
        let ([mut old, mut new], [mut old_view, mut new_view]) = ([from.base(), to.base()], [from.view(), to.view()]);
        old_view.put_many(0, &one(1), &one(1), &one(8)).expect("written");
        old_view.delete_many(0, &one(1), &one(2)).expect("written");
        old_view.put_many(0, &one(2), &one(1), &one(5)).expect("written");
        // Written by the state alone: the view keeps what was before.
        old.put_many(0, &one(1), &one(3), &one(6)).expect("written");
        let group = key_group(&[1]);
        assert!(![0, 2].iter().any(|key| key_group(&[*key]) == group));
        let bytes = from.bytes();
        new.adopt(old.give(group).expect("in memory"));
        let viewed = from.give(group);
        assert_eq!(from.bytes() + viewed.bytes(), bytes);
        let moved = viewed.bytes();
        to.adopt(viewed);
        assert_eq!(to.bytes(), moved);
        let entry = |key: u8, value: u8| ((vec![key], vec![1]), vec![value]);
        assert_eq!(seen(&mut *old_view), Model::from([entry(2, 5)]));
        assert_eq!(seen(&mut *new_view), Model::from([entry(0, 7), entry(1, 8)]));
        assert_eq!(seen(&mut *new)[&(vec![1], vec![3])], [6]);
    }

    #[test]
    fn entries_of_the_view_end_with_their_lifetime_and_their_bytes_are_counted() {
        let ttl = Some(Ttl { clock: Clock::Event, micros: 10 });
        let spaces = [SpaceDescriptor { name: "s".into(), schema_version: 1, ttl }];
        let mut state: Box<dyn StateBackend> = Box::new(MemoryState::default());
        state.declare(&spaces);
        let fork = Fork::new(state, &spaces);
        let mut view = fork.view();
        view.advance(Timestamp(100), Timestamp(0));
        view.put_many(0, &one(1), &one(1), &one(5)).expect("written");
        let is_there = |view: &mut Box<dyn StateBackend>| !seen(&mut **view).is_empty();
        assert!(is_there(&mut view) && fork.bytes() > 0);
        view.advance(Timestamp(109), Timestamp(0));
        assert!(is_there(&mut view));
        view.advance(Timestamp(110), Timestamp(0));
        assert!(!is_there(&mut view));
        fork.again();
        assert_eq!(fork.bytes(), 0);
        assert!(matches!(view.delete_many(3, &one(1), &one(1)), Err(StateError::UnknownSpace { .. })));
    }
}
