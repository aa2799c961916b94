//! State in hash tables.
//!
//! # Layout
//! A space is a slab of records and a table from event key to slot. The slot of a key holds the
//! entry with the empty sub-key, if there is one; other sub-keys have slots of their own, listed
//! in byte order in a tree at the key. A slot keeps its number while its record is used, so that
//! the undo log, the list of changes and the expiry queue name an entry in four bytes.
//!
//! # Invariants
//! - A record is used while its entry exists, its change has not been taken, or sub-keys hang on it.
//! - The undo log holds a record at most once per mark, the list of changes at most once per
//!   [`StateBackend::take_changes`], the expiry queue at most once.
//! - What an entry was before its first change stands beside the list of changes, and in the undo
//!   log what it was before later ones: so an entry that changes once costs one copy of its value.
//! - No order that anybody sees depends on hashes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;

use hashbrown::{DefaultHashBuilder, HashTable};
use wasmill_env::planted;
use wasmill_model::{
    Bitmap, Clock, Column, ColumnBuilder, Entries, KeyGroup, Migrated, SpaceDescriptor, Timestamp, Ttl, key_group,
};

use crate::backend::{Step, Walk, WalkPlace};
use crate::compact::Compact;
use crate::{Change, ChangeSet, EntryChange, READ_BYTES_MAX, StateBackend, StateError};

/// Expired entries that one [`StateBackend::advance`] looks at, besides two for every write since
/// the one before: so that removal keeps up with any rate of writing.
pub(crate) const EXPIRE_PER_ADVANCE: usize = 1_024;

/// Bytes of a record and its places in tables and lists.
const RECORD_BYTES: usize = size_of::<Record>() + 24;

/// State of one share of a stage, all of it in memory.
///
/// # Lifetimes
/// An entry written before its clock was first told ([`Timestamp::MIN`]) counts from the first
/// time told. [`Timestamp::MAX`], the end of the input, is not a time: entries live on, so that
/// what still fires at the end sees them. A clock that falls is held. Expired entries count in
/// [`StateBackend::entries`] until they are removed.
///
/// # Undo
/// Before the first mark nothing can be undone. [`StateBackend::take_changes`] is a mark, too.
#[derive(Debug, Default)]
pub struct MemoryState {
    /// Grows only: a plugin that declares fewer spaces than the one before leaves theirs alone.
    pub(crate) spaces: Vec<Space>,
    declared: usize,
    pub(crate) hasher: DefaultHashBuilder,
    /// Counts marks; 0 before the first.
    pub(crate) mark: u64,
    /// Whether records stay until somebody evicts them: what is in memory is only a part.
    keep: bool,
}

#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) ttl: Option<Ttl>,
    /// The time of its clock, and the first that was told; [`i64::MIN`] before that.
    pub(crate) now: i64,
    start: i64,
    table: HashTable<u32>,
    pub(crate) records: Vec<Record>,
    free: Vec<u32>,
    pub(crate) changed: Vec<u32>,
    /// How much of `changed` stood at the mark.
    changed_at_mark: usize,
    /// What the entries of `changed` were before.
    at_cut: Log,
    /// The times as of the last [`ChangeSet`].
    clock_at_cut: (i64, i64),
    log: Log,
    /// Slots by the time to look at them. Writing an entry again leaves its place, which is then
    /// too early: whoever looks puts it back.
    expiry: BinaryHeap<Reverse<(i64, u32)>>,
    writes: usize,
    /// Wrap below 0 where entries go that were there before this space was.
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// Bytes of names and values in memory.
    resident: usize,
    keep: bool,
}

#[derive(Debug)]
pub(crate) struct Record {
    hash: u64,
    /// The key, or the sub-key where `head` is another slot.
    pub(crate) name: Compact,
    pub(crate) value: Compact,
    pub(crate) written: i64,
    /// The mark since which the undo log holds this record.
    marked: u64,
    #[expect(clippy::box_collection, reason = "most keys have no sub-keys, and every record has this field")]
    pub(crate) subkeys: Option<Box<BTreeMap<Compact, u32>>>,
    /// The slot of the key.
    pub(crate) head: u32,
    pub(crate) used: bool,
    pub(crate) exists: bool,
    pub(crate) changed: bool,
    /// Whether the expiry queue holds this slot, whatever record is in it.
    queued: bool,
}

/// Entries as they were, the latest last.
#[derive(Debug, Default)]
struct Log {
    entries: Vec<Before>,
    /// Their values, one behind the other.
    values: Vec<u8>,
}

impl Log {
    #[inline]
    fn push(&mut self, slot: u32, record: &Record) {
        let (value_len, written) = (record.value.len() as u32, record.written);
        self.entries.push(Before { slot, value_len, written, exists: record.exists });
        self.values.extend_from_slice(record.value.as_slice());
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.values.clear();
    }
}

/// An entry before a write.
#[derive(Debug, Clone, Copy)]
struct Before {
    slot: u32,
    value_len: u32,
    written: i64,
    exists: bool,
}

impl MemoryState {
    /// One that holds a part of the state, and gives no record up by itself.
    pub(crate) fn partial() -> Self {
        Self { keep: true, ..Self::default() }
    }

    /// Puts in what was committed, in order: nothing has changed since.
    /// Spaces need not be declared yet. What was written before cannot be undone any more.
    pub fn load(&mut self, entries: impl Iterator<Item = EntryChange>) {
        self.mark();
        for EntryChange { space, key, subkey, value, written } in entries {
            let hash = hash(&self.hasher, &key);
            self.reach(usize::from(space) + 1);
            let space = &mut self.spaces[usize::from(space)];
            match value {
                Some(value) => {
                    let slot = space.find_or_insert(hash, &key, &subkey);
                    space.restore(slot, Some(&value), written);
                }
                None => {
                    if let Some(slot) = space.find(hash, &key, &subkey) {
                        space.write(slot, None, 0, false);
                        space.release(slot);
                    }
                }
            }
        }
    }

    fn reach(&mut self, spaces: usize) {
        while self.spaces.len() < spaces {
            self.spaces.push(Space::new(self.keep));
        }
    }

    pub(crate) fn space(
        &mut self,
        space: u16,
        keys: &Column,
        others: [(&'static str, Option<&Column>); 2],
    ) -> Result<(&mut Space, &DefaultHashBuilder), StateError> {
        for (what, column) in others {
            if let Some(column) = column
                && column.len() != keys.len()
            {
                return Err(StateError::RowCount { what, got: column.len(), want: keys.len() });
            }
        }
        let declared = self.declared;
        match self.spaces[..declared].get_mut(usize::from(space)) {
            Some(found) => Ok((found, &self.hasher)),
            None => Err(StateError::UnknownSpace { space, declared }),
        }
    }
}

#[inline]
pub(crate) fn hash(hasher: &DefaultHashBuilder, key: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(key);
    state.finish()
}

#[inline]
pub(crate) fn check_read(bytes: usize) -> Result<(), StateError> {
    if bytes > READ_BYTES_MAX { Err(StateError::ReadTooLarge { limit: READ_BYTES_MAX }) } else { Ok(()) }
}

/// No sub-keys at all stand for empty ones.
pub(crate) fn given(subkeys: &Column) -> Option<&Column> {
    (!subkeys.is_empty()).then_some(subkeys)
}

#[inline]
pub(crate) fn row(subkeys: Option<&Column>, row: usize) -> &[u8] {
    subkeys.map_or(&[], |subkeys| subkeys.row(row))
}

impl StateBackend for MemoryState {
    fn declare(&mut self, spaces: &[SpaceDescriptor]) {
        self.reach(spaces.len());
        self.declared = spaces.len();
        for (space, descriptor) in self.spaces.iter_mut().zip(spaces) {
            if space.ttl != descriptor.ttl {
                space.set_ttl(descriptor.ttl);
            }
        }
    }

    fn advance(&mut self, watermark: Timestamp, wall: Timestamp) {
        for space in &mut self.spaces {
            if let Some(ttl) = space.ttl {
                space.advance(if ttl.clock == Clock::Event { watermark } else { wall }, self.mark);
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
        let (space, hasher) = self.space(space, keys, [("subkeys", subkeys), ("subkeys", None)])?;
        let mut found = vec![0_u64; keys.len().div_ceil(64)];
        for (place, key) in keys.iter().enumerate() {
            match space.find(hash(hasher, key), key, row(subkeys, place)) {
                Some(slot) if space.is_seen(slot) => {
                    let value = space.records[slot as usize].value.as_slice();
                    check_read(values.byte_len() + value.len())?;
                    found[place / 64] |= 1 << (place % 64);
                    values.push(value);
                }
                _ => values.end_row(),
            }
        }
        Ok(Bitmap::from_words(found, keys.len()).unwrap_or_default())
    }

    fn put_many(&mut self, space: u16, keys: &Column, subkeys: &Column, values: &Column) -> Result<(), StateError> {
        let (subkeys, mark) = (given(subkeys), self.mark);
        let (space, hasher) = self.space(space, keys, [("subkeys", subkeys), ("values", Some(values))])?;
        for (place, (key, value)) in keys.iter().zip(values.iter()).enumerate() {
            let slot = space.find_or_insert(hash(hasher, key), key, row(subkeys, place));
            space.write(slot, Some(value), mark, true);
        }
        Ok(())
    }

    fn delete_many(&mut self, space: u16, keys: &Column, subkeys: &Column) -> Result<(), StateError> {
        let (subkeys, mark) = (given(subkeys), self.mark);
        let (space, hasher) = self.space(space, keys, [("subkeys", subkeys), ("subkeys", None)])?;
        for (place, key) in keys.iter().enumerate() {
            if let Some(slot) = space.find(hash(hasher, key), key, row(subkeys, place)) {
                space.write(slot, None, mark, true);
            }
        }
        Ok(())
    }

    fn scan(&mut self, space: u16, key: &[u8], start: &[u8], limit: u32) -> Result<(Column, Column), StateError> {
        let (space, hasher) = self.space(space, &Column::default(), [("subkeys", None), ("subkeys", None)])?;
        let (mut subkeys, mut values) = (ColumnBuilder::default(), ColumnBuilder::default());
        let Some(head) = space.find_head(hash(hasher, key), key) else {
            return Ok((subkeys.finish(), values.finish()));
        };
        let first = start.is_empty().then_some((&[] as &[u8], head));
        let tree = space.records[head as usize].subkeys.as_deref();
        let rest = tree.map(|tree| tree.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)));
        let rest = rest.into_iter().flatten().map(|(subkey, &slot)| (subkey.as_slice(), slot));
        let seen = first.into_iter().chain(rest).filter(|&(_, slot)| space.is_seen(slot));
        for (subkey, slot) in seen.take(limit as usize) {
            let value = space.records[slot as usize].value.as_slice();
            check_read(subkeys.byte_len() + values.byte_len() + subkey.len() + value.len())?;
            subkeys.push(subkey);
            values.push(value);
        }
        Ok((subkeys.finish(), values.finish()))
    }

    fn walk(&mut self, space: u16, walk: &mut Walk) -> Result<Entries, StateError> {
        let (space, _) = self.space(space, &Column::default(), [("subkeys", None), ("subkeys", None)])?;
        let mut step = Step::default();
        if let WalkPlace::Memory(slot) = &mut walk.0
            && !space.walk(slot, &mut step)
        {
            walk.0 = WalkPlace::End;
        }
        Ok(step.finish())
    }

    fn rewrite(&mut self, space: u16, entries: &Entries, migrated: &Migrated) -> Result<(), StateError> {
        let (subkeys, mark) = (given(&entries.subkeys), self.mark);
        let values = &migrated.values;
        let (space, hasher) = self.space(space, &entries.keys, [("subkeys", subkeys), ("values", Some(values))])?;
        let mut dropped = migrated.dropped.iter().peekable();
        for (place, (key, value)) in entries.keys.iter().zip(values.iter()).enumerate() {
            let goes = dropped.next_if(|goes| **goes as usize == place).is_some();
            if let Some(slot) = space.find(hash(hasher, key), key, row(subkeys, place)) {
                let written = space.records[slot as usize].written;
                space.write_at(slot, (!goes).then_some(value), written, mark, true);
            }
        }
        Ok(())
    }

    fn mark(&mut self) {
        self.mark += 1;
        for space in &mut self.spaces {
            space.forget_log();
        }
    }

    fn undo(&mut self) {
        if self.mark > 0 && !planted("undo-skipped") {
            self.spaces.iter_mut().for_each(Space::undo);
            // Records that were written count as logged; the log is empty now.
            self.mark += 1;
        }
    }

    fn revert(&mut self) {
        self.spaces.iter_mut().for_each(Space::revert);
        self.mark += u64::from(self.mark > 0);
    }

    fn checkpoint(&mut self) -> ChangeSet {
        self.take_changes()
    }

    fn take_changes(&mut self) -> ChangeSet {
        let mut changes = ChangeSet::with_capacity(self.spaces.iter().map(|space| space.changed.len()).sum());
        for (place, space) in self.spaces.iter_mut().enumerate() {
            space.take_changes(place as u16, &mut changes);
        }
        self.mark += u64::from(self.mark > 0);
        changes
    }

    fn give(&mut self, group: KeyGroup) -> Option<Vec<EntryChange>> {
        self.mark();
        let mut given = Vec::new();
        for (place, space) in self.spaces.iter_mut().enumerate() {
            space.give(place as u16, group, &mut given);
        }
        Some(given)
    }

    fn adopt(&mut self, entries: Vec<EntryChange>) {
        self.load(entries.into_iter());
    }

    fn entries(&self) -> u64 {
        self.spaces.iter().map(|space| space.entries).sum()
    }

    fn bytes(&self) -> u64 {
        self.spaces.iter().map(|space| space.bytes).sum()
    }
}

impl Space {
    fn new(keep: bool) -> Self {
        Self {
            ttl: None,
            now: i64::MIN,
            start: i64::MIN,
            table: HashTable::new(),
            records: Vec::new(),
            free: Vec::new(),
            changed: Vec::new(),
            changed_at_mark: 0,
            at_cut: Log::default(),
            clock_at_cut: (i64::MIN, i64::MIN),
            log: Log::default(),
            expiry: BinaryHeap::new(),
            writes: 0,
            entries: 0,
            bytes: 0,
            resident: 0,
            keep,
        }
    }

    /// Bytes of memory that records take, about.
    pub(crate) fn resident_bytes(&self) -> usize {
        (self.records.len() - self.free.len()) * RECORD_BYTES + self.resident
    }

    /// Gives up a record that nothing needs: the entry stays what it is, where it came from.
    pub(crate) fn evict(&mut self, slot: u32) {
        let record = &mut self.records[slot as usize];
        record.exists = false;
        self.release_now(slot);
    }

    #[inline]
    pub(crate) fn find_head(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let same = |&slot: &u32| {
            let record = &self.records[slot as usize];
            record.hash == hash && record.name.as_slice() == key
        };
        self.table.find(hash, same).copied()
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8], subkey: &[u8]) -> Option<u32> {
        let head = self.find_head(hash, key)?;
        if subkey.is_empty() {
            return Some(head);
        }
        self.records[head as usize].subkeys.as_deref()?.get(subkey).copied()
    }

    #[inline]
    pub(crate) fn find_or_insert(&mut self, hash: u64, key: &[u8], subkey: &[u8]) -> u32 {
        let head = match self.find_head(hash, key) {
            Some(head) => head,
            None => {
                let head = self.occupy(hash, key, None);
                let records = &self.records;
                self.table.insert_unique(hash, head, |&slot| records[slot as usize].hash);
                head
            }
        };
        if subkey.is_empty() {
            return head;
        }
        if let Some(&slot) = self.records[head as usize].subkeys.as_deref().and_then(|tree| tree.get(subkey)) {
            return slot;
        }
        let slot = self.occupy(hash, subkey, Some(head));
        self.records[head as usize].subkeys.get_or_insert_default().insert(Compact::new(subkey), slot);
        slot
    }

    fn occupy(&mut self, hash: u64, name: &[u8], head: Option<u32>) -> u32 {
        let reused = self.free.pop();
        let slot = reused
            .unwrap_or_else(|| u32::try_from(self.records.len()).expect("a space holds fewer than 4 billion entries"));
        let record = Record {
            hash,
            name: Compact::new(name),
            value: Compact::EMPTY,
            written: i64::MIN,
            marked: 0,
            subkeys: None,
            head: head.unwrap_or(slot),
            used: true,
            exists: false,
            changed: false,
            queued: reused.is_some_and(|slot| self.records[slot as usize].queued),
        };
        match self.records.get_mut(slot as usize) {
            Some(place) => *place = record,
            None => self.records.push(record),
        }
        self.resident += name.len();
        slot
    }

    /// Gives the record back unless something still needs it.
    fn release(&mut self, slot: u32) {
        if !self.keep {
            self.release_now(slot);
        }
    }

    fn release_now(&mut self, slot: u32) {
        let record = &mut self.records[slot as usize];
        if !record.used || record.exists || record.changed || record.subkeys.is_some() {
            return;
        }
        record.used = false;
        let value = std::mem::replace(&mut record.value, Compact::EMPTY);
        let (hash, head) = (record.hash, record.head);
        let name = std::mem::replace(&mut record.name, Compact::EMPTY);
        self.resident -= name.len() + value.len();
        self.free.push(slot);
        if head == slot {
            if let Ok(place) = self.table.find_entry(hash, |&other| other == slot) {
                place.remove();
            }
            return;
        }
        let subkeys = &mut self.records[head as usize].subkeys;
        if let Some(tree) = subkeys {
            tree.remove(&name);
            if tree.is_empty() {
                *subkeys = None;
            }
        }
        self.release(head);
    }

    /// Bytes of key and sub-key.
    #[inline]
    fn name_bytes(&self, slot: u32) -> u64 {
        let record = &self.records[slot as usize];
        let key = if record.head == slot { 0 } else { self.records[record.head as usize].name.len() };
        (record.name.len() + key) as u64
    }

    /// Adds entries that are seen, from a slot on. Whether there are more.
    pub(crate) fn walk(&self, from: &mut usize, step: &mut Step) -> bool {
        while *from < self.records.len() {
            if step.is_full() {
                return true;
            }
            let (slot, record) = (*from as u32, &self.records[*from]);
            *from += 1;
            if record.used && self.is_seen(slot) {
                let key = self.records[record.head as usize].name.as_slice();
                let subkey: &[u8] = if record.head == slot { &[] } else { record.name.as_slice() };
                step.push(key, subkey, record.value.as_slice());
            }
        }
        false
    }

    /// Writes or deletes an entry: `mark` 0 keeps no log, `change` says whether the next
    /// [`ChangeSet`] has it.
    #[inline]
    pub(crate) fn write(&mut self, slot: u32, value: Option<&[u8]>, mark: u64, change: bool) {
        self.write_at(slot, value, self.now, mark, change);
    }

    /// The same, with the time from which its lifetime counts.
    #[inline]
    fn write_at(&mut self, slot: u32, value: Option<&[u8]>, written: i64, mark: u64, change: bool) {
        let record = &self.records[slot as usize];
        if value.is_none() && !record.exists {
            return;
        }
        self.writes += 1;
        let first_change = change && !record.changed;
        if first_change {
            self.at_cut.push(slot, record);
            self.changed.push(slot);
        } else if mark != record.marked && mark != 0 {
            self.log.push(slot, record);
        }
        self.set(slot, value, written);
        let record = &mut self.records[slot as usize];
        record.marked = mark;
        record.changed |= first_change;
        if self.ttl.is_some() {
            self.queue(slot);
        }
    }

    /// An entry as it was committed, without a log or a change.
    pub(crate) fn restore(&mut self, slot: u32, value: Option<&[u8]>, written: i64) {
        self.set(slot, value, written);
        if self.ttl.is_some() {
            self.queue(slot);
        }
    }

    /// The entry's bytes and counts, and nothing else.
    #[inline]
    fn set(&mut self, slot: u32, value: Option<&[u8]>, written: i64) {
        let record = &mut self.records[slot as usize];
        let (before, after) = (record.value.len() as u64, value.map_or(0, <[u8]>::len) as u64);
        let (existed, exists) = (record.exists, value.is_some());
        record.value.set(value.unwrap_or_default());
        record.exists = exists;
        record.written = written;
        self.resident = self.resident - before as usize + after as usize;
        self.bytes = self.bytes.wrapping_sub(before).wrapping_add(after);
        if existed != exists {
            let name_bytes = self.name_bytes(slot);
            if exists {
                self.entries = self.entries.wrapping_add(1);
                self.bytes = self.bytes.wrapping_add(name_bytes);
            } else {
                self.entries = self.entries.wrapping_sub(1);
                self.bytes = self.bytes.wrapping_sub(name_bytes);
            }
        }
    }

    fn forget_log(&mut self) {
        self.log.clear();
        self.changed_at_mark = self.changed.len();
    }

    fn undo(&mut self) {
        let mut log = std::mem::take(&mut self.log);
        self.roll_back(&mut log, 0);
        self.log = log;
        self.drop_changes(self.changed_at_mark);
    }

    /// Takes back everything since the last [`ChangeSet`].
    fn revert(&mut self) {
        self.log.clear();
        self.drop_changes(0);
        (self.now, self.start) = self.clock_at_cut;
    }

    /// Takes back changes from that place in the list on.
    fn drop_changes(&mut self, from: usize) {
        let mut at_cut = std::mem::take(&mut self.at_cut);
        for &slot in &self.changed[from..] {
            self.records[slot as usize].changed = false;
        }
        self.changed.truncate(from);
        self.roll_back(&mut at_cut, from);
        self.at_cut = at_cut;
        self.forget_log();
    }

    /// Puts entries back as a log has them, and takes them out of it.
    fn roll_back(&mut self, log: &mut Log, from: usize) {
        for place in (from..log.entries.len()).rev() {
            let before = log.entries[place];
            let start = log.values.len() - before.value_len as usize;
            self.set(before.slot, before.exists.then_some(&log.values[start..]), before.written);
            log.values.truncate(start);
            if self.ttl.is_some() {
                self.queue(before.slot);
            }
        }
        for before in log.entries.drain(from..) {
            self.release(before.slot);
        }
    }

    /// Takes the entries of a group out, in the order of their slots.
    fn give(&mut self, space: u16, group: KeyGroup, given: &mut Vec<EntryChange>) {
        for slot in 0..self.records.len() as u32 {
            let record = &self.records[slot as usize];
            if !record.used || !record.exists {
                continue;
            }
            let key = self.records[record.head as usize].name.as_slice();
            if key_group(key) != group {
                continue;
            }
            let subkey: &[u8] = if record.head == slot { &[] } else { record.name.as_slice() };
            let (value, written) = (Some(record.value.as_slice().into()), record.written);
            given.push(EntryChange { space, key: key.into(), subkey: subkey.into(), value, written });
            self.set(slot, None, written);
            self.release(slot);
        }
    }

    fn take_changes(&mut self, space: u16, into: &mut ChangeSet) {
        let mut changed = std::mem::take(&mut self.changed);
        for &slot in &changed {
            self.records[slot as usize].changed = false;
            let record = &self.records[slot as usize];
            let head = &self.records[record.head as usize];
            let value = record.exists.then(|| record.value.as_slice());
            let subkey = if record.head == slot { &[] } else { record.name.as_slice() };
            let written = if record.exists { record.written } else { i64::MIN };
            into.push(Change { space, key: head.name.as_slice(), subkey, value, written });
            if !record.exists {
                self.release(slot);
            }
        }
        changed.clear();
        self.changed = changed;
        self.at_cut.clear();
        self.clock_at_cut = (self.now, self.start);
        self.forget_log();
    }

    /// When the entry expires, `None` for never or not known yet.
    #[inline]
    fn deadline(&self, record: &Record) -> Option<i64> {
        self.deadline_of(record.written)
    }

    /// When an entry expires that was written at this time.
    #[inline]
    pub(crate) fn deadline_of(&self, written: i64) -> Option<i64> {
        let from = if written == i64::MIN { self.start } else { written };
        if from == i64::MIN {
            return None;
        }
        from.checked_add(i64::try_from(self.ttl?.micros).ok()?)
    }

    #[inline]
    pub(crate) fn is_seen(&self, slot: u32) -> bool {
        let record = &self.records[slot as usize];
        record.exists && (self.ttl.is_none() || self.deadline(record).is_none_or(|deadline| deadline > self.now))
    }

    fn queue(&mut self, slot: u32) {
        let record = &self.records[slot as usize];
        if record.queued || !record.exists {
            return;
        }
        let deadline = self.deadline(record);
        // Before the clock is told: looked at again as soon as it is.
        let Some(look) = deadline.or((record.written == i64::MIN && self.start == i64::MIN).then_some(i64::MIN)) else {
            return;
        };
        self.records[slot as usize].queued = true;
        self.expiry.push(Reverse((look, slot)));
    }

    fn set_ttl(&mut self, ttl: Option<Ttl>) {
        if ttl.map(|ttl| ttl.clock) != self.ttl.map(|ttl| ttl.clock) {
            // Times of another clock mean nothing: entries count from its first time on.
            (self.now, self.start) = (i64::MIN, i64::MIN);
            self.clock_at_cut = (i64::MIN, i64::MIN);
            self.records.iter_mut().for_each(|record| record.written = i64::MIN);
        }
        self.ttl = ttl;
        self.expiry.clear();
        for slot in 0..self.records.len() as u32 {
            self.records[slot as usize].queued = false;
            if ttl.is_some() {
                self.queue(slot);
            }
        }
    }

    fn advance(&mut self, now: Timestamp, mark: u64) {
        if now != Timestamp::MAX {
            self.now = self.now.max(now.0);
        }
        if self.now == i64::MIN {
            return;
        }
        if self.start == i64::MIN {
            self.start = self.now;
        }
        let looks = EXPIRE_PER_ADVANCE + 2 * std::mem::take(&mut self.writes);
        for _ in 0..looks {
            let Some(&Reverse((look, slot))) = self.expiry.peek() else { return };
            if look > self.now {
                return;
            }
            self.expiry.pop();
            self.records[slot as usize].queued = false;
            if self.records[slot as usize].exists && !self.is_seen(slot) {
                self.write(slot, None, mark, true);
            } else {
                self.queue(slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::state_backend_suite!(MemoryState::default());

    fn column(rows: &[&[u8]]) -> Column {
        rows.iter().collect()
    }

    #[test]
    fn loaded_state_is_seen_and_has_not_changed() {
        let mut state = MemoryState::default();
        let entry = |subkey: &[u8], value: Option<&[u8]>| EntryChange {
            space: 0,
            key: b"k".as_slice().into(),
            subkey: subkey.into(),
            value: value.map(Into::into),
            written: i64::MIN,
        };
        let loaded = [entry(b"", Some(b"1")), entry(b"s", Some(b"2")), entry(b"t", Some(b"3")), entry(b"t", None)];
        state.load(loaded.into_iter());
        state.declare(&[SpaceDescriptor { name: "s".into(), schema_version: 1, ttl: None }]);
        assert_eq!(state.take_changes(), ChangeSet::default());
        assert_eq!((state.entries(), state.bytes()), (2, 5));
        let scanned = state.scan(0, b"k", b"", 9).expect("the space is declared");
        assert_eq!(scanned, (column(&[b"", b"s"]), column(&[b"1", b"2"])));
    }

    #[test]
    fn nothing_stays_behind_of_entries_that_came_and_went() {
        let mut state = MemoryState::default();
        state.declare(&[SpaceDescriptor { name: "s".into(), schema_version: 1, ttl: None }]);
        for round in 0..100_u32 {
            let (keys, subkeys) = (column(&[&round.to_le_bytes(), b"a"]), column(&[b"", &round.to_le_bytes()]));
            state.put_many(0, &keys, &subkeys, &column(&[b"x", b"y"])).expect("the space is declared");
            state.delete_many(0, &keys, &subkeys).expect("the space is declared");
            assert_eq!(state.take_changes().len(), 2);
        }
        let space = &state.spaces[0];
        assert_eq!((space.table.len(), space.records.len(), space.entries, space.bytes), (0, 3, 0, 0));
    }

    #[test]
    fn one_advance_removes_a_bounded_number_of_entries() {
        let mut state = MemoryState::default();
        let ttl = Some(Ttl { clock: Clock::Processing, micros: 10 });
        state.declare(&[SpaceDescriptor { name: "s".into(), schema_version: 1, ttl }]);
        state.advance(Timestamp::MIN, Timestamp(0));
        let keys: Column = (0..5_000_u32).map(u32::to_le_bytes).collect();
        state.put_many(0, &keys, &Column::default(), &Column::empty_rows(5_000)).expect("the space is declared");
        state.advance(Timestamp::MIN, Timestamp(9));
        assert_eq!(state.entries(), 5_000);
        state.advance(Timestamp::MIN, Timestamp(10));
        assert_eq!(state.entries(), 5_000 - EXPIRE_PER_ADVANCE as u64);
        let found = state.get_many(0, &keys, &Column::default(), &mut ColumnBuilder::default());
        assert_eq!(found.expect("the space is declared").count(), 0);
    }

    #[test]
    fn a_clock_that_starts_late_takes_no_entry_with_it() {
        let mut state = MemoryState::default();
        let ttl = Some(Ttl { clock: Clock::Event, micros: 10 });
        state.declare(&[SpaceDescriptor { name: "s".into(), schema_version: 1, ttl }]);
        let key = column(&[b"k"]);
        state.put_many(0, &key, &Column::default(), &column(&[b"v"])).expect("the space is declared");
        for (watermark, seen) in [(1_000, 1), (1_009, 1), (i64::MAX, 1), (1_010, 0)] {
            state.advance(Timestamp(watermark), Timestamp(0));
            let found = state.get_many(0, &key, &Column::default(), &mut ColumnBuilder::default());
            assert_eq!(found.expect("the space is declared").count(), seen, "at {watermark}");
        }
    }
}
