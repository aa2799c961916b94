//! State on disk, with what is in use in memory.
//!
//! # Layout
//! A [`MemoryState`] holds the part in use: entries that were read or written lately, and names known
//! to have no entry. Everything else is read from the store's sorted files when a call names it, the
//! names of a call sorted, so that neighbours share a block. Writes go to memory alone; they leave
//! in the change set of their epoch, and come to the sorted files when the store folds its log.
//!
//! # Invariants
//! - What is in memory is newer than what the files hold, or the same.
//! - An entry stays in memory from its change until the files hold the epoch of that change.
//! - A slot with no pin was made for its sub-keys only: nothing is known about the entry itself.
//!
//! # Lifetimes
//! Entries in memory expire as in [`MemoryState`]. Those on disk are not seen once their lifetime has
//! passed, and are removed by a pass over the space, a bounded number of entries at every
//! [`StateBackend::advance`]. Passes begin an eighth of the lifetime apart, and not before the oldest
//! entry that the last one saw has expired.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use wasmill_model::{
    Bitmap, Column, ColumnBuilder, Entries, Epoch, Migrated, NodeName, SpaceDescriptor, Timestamp, key_group, share_of,
};

use crate::backend::{Step, WALK_ENTRIES_MAX, Walk, WalkPlace};
use crate::durable::{StateFiles, StoreError, Version, Wanted};
use crate::memory::{EXPIRE_PER_ADVANCE, MemoryState, Space, check_read, given, hash, row};
use crate::{ChangeSet, StateBackend, StateError};

/// Entries of files that one step of a walk looks at: those of other shares stand among them.
const LOOKS_PER_STEP: usize = 16 * WALK_ENTRIES_MAX;

/// State of one share of a stage, of which memory holds what is in use.
///
/// # Epochs
/// Each [`StateBackend::take_changes`] is the cut of the epoch after the one before, the first of
/// that after the one the job goes on from.
#[derive(Debug)]
pub struct DiskState {
    memory: MemoryState,
    files: Arc<StateFiles>,
    node: NodeName,
    share: u16,
    shares: u16,
    /// The last epoch that was cut.
    epoch: Epoch,
    /// Bytes that entries in memory take.
    bytes_max: usize,
    /// The number under which the store has each space, by place.
    numbers: Vec<u16>,
    parts: Vec<Part>,
    /// The version of the files at which eviction found nothing more to give up.
    stuck_at: Option<Epoch>,
    misses: Vec<u32>,
}

/// What there is about one space besides what is in memory.
#[derive(Debug, Default)]
struct Part {
    /// By slot.
    pins: Vec<Pin>,
    /// Where eviction goes on.
    hand: usize,
    pass: Pass,
}

/// Until when a slot stays, and whether it was used since eviction last came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pin(u64);

impl Pin {
    /// Nothing is known about the entry.
    const NONE: Self = Self(u64::MAX);

    /// Stays until files hold this epoch.
    fn until(epoch: Epoch) -> Self {
        Self(epoch.0 << 1 | 1)
    }

    fn epoch(self) -> Epoch {
        Epoch(self.0 >> 1)
    }

    fn is_touched(self) -> bool {
        self.0 & 1 == 1
    }

    fn untouched(self) -> Self {
        Self(self.0 & !1)
    }
}

/// A pass over a space on disk that looks for expired entries.
#[derive(Debug)]
struct Pass {
    /// When the next one may begin.
    next: i64,
    began: i64,
    /// Where the one under way goes on.
    from: Option<(Vec<u8>, Vec<u8>)>,
    /// The oldest entry that it saw and left.
    oldest: i64,
}

impl Default for Pass {
    fn default() -> Self {
        Self { next: i64::MIN, began: i64::MIN, from: None, oldest: i64::MAX }
    }
}

impl DiskState {
    /// The state of one share of a stage, as of the epoch that the job goes on from, with so many
    /// bytes of memory for entries.
    #[must_use]
    pub fn new(
        files: Arc<StateFiles>,
        node: NodeName,
        (share, shares): (u16, u16),
        epoch: Epoch,
        bytes_max: usize,
    ) -> Self {
        Self {
            memory: MemoryState::partial(),
            files,
            node,
            share,
            shares,
            epoch,
            bytes_max,
            numbers: Vec::new(),
            parts: Vec::new(),
            stuck_at: None,
            misses: Vec::new(),
        }
    }

    /// Says under which number the store has each space, by place. Without it a space has its place.
    #[must_use]
    pub fn with_numbers(mut self, numbers: Vec<u16>) -> Self {
        self.numbers = numbers;
        self
    }

    fn number(&self, space: u16) -> u64 {
        self.numbers.get(usize::from(space)).copied().unwrap_or(space).into()
    }

    /// Brings the entries that a call names into memory.
    fn fetch(&mut self, space: u16, keys: &Column, subkeys: Option<&Column>) -> Result<(), StateError> {
        let number = self.number(space);
        let place = usize::from(space);
        let part = &mut self.parts[place];
        let held = &self.memory.spaces[place];
        self.misses.clear();
        for (at, key) in keys.iter().enumerate() {
            let slot = held.find(hash(&self.memory.hasher, key), key, row(subkeys, at));
            match slot.and_then(|slot| part.pins.get_mut(slot as usize)).filter(|pin| **pin != Pin::NONE) {
                Some(pin) => pin.0 |= 1,
                None => self.misses.push(at as u32),
            }
        }
        if self.misses.is_empty() {
            return Ok(());
        }
        let name = |at: &u32| (keys.row(*at as usize), row(subkeys, *at as usize));
        self.misses.sort_unstable_by(|a, b| name(a).cmp(&name(b)));
        self.misses.dedup_by(|a, b| name(a) == name(b));
        let wanted = self.misses.iter().map(|at| {
            let (key, subkey) = name(at);
            Wanted { key, subkey }
        });
        let version = self.files.version();
        let (memory, misses) = (&mut self.memory, &self.misses);
        let (held, hasher) = (&mut memory.spaces[place], &memory.hasher);
        let looked = self.files.get_sorted(&version, self.node.as_str(), number, wanted, |at, found| {
            let (key, subkey) = name(&misses[at]);
            part.bring(held, hash(hasher, key), key, subkey, found);
        });
        looked.map_err(unreadable)
    }

    /// Gives up entries that are not in use, until what is left fits.
    fn evict(&mut self) {
        let resident = |memory: &MemoryState| memory.spaces.iter().map(Space::resident_bytes).sum::<usize>();
        let held = resident(&self.memory);
        if held <= self.bytes_max {
            return;
        }
        let folded = self.files.version().epoch;
        if self.stuck_at == Some(folded) {
            return;
        }
        let mut over = held - self.bytes_max;
        for (space, part) in self.memory.spaces.iter_mut().zip(&mut self.parts) {
            let before = space.resident_bytes();
            part.evict(space, folded, over);
            over = over.saturating_sub(before - space.resident_bytes());
            if over == 0 {
                return;
            }
        }
        self.stuck_at = Some(folded);
    }

    /// Goes on with the pass over a space.
    fn pass(&mut self, place: usize) -> Result<(), StoreError> {
        let number = self.number(place as u16);
        let (part, space) = (&mut self.parts[place], &mut self.memory.spaces[place]);
        let (Some(ttl), now) = (space.ttl, space.now) else { return Ok(()) };
        if now == i64::MIN || (part.pass.from.is_none() && now < part.pass.next) {
            return Ok(());
        }
        if part.pass.from.is_none() {
            part.pass = Pass { next: i64::MIN, began: now, from: Some((Vec::new(), Vec::new())), oldest: i64::MAX };
        }
        let Some((key, subkey)) = part.pass.from.take() else { return Ok(()) };
        let version = self.files.version();
        let (mut looks, mut expired) = (0, Vec::new());
        let hasher = &self.memory.hasher;
        self.files.scan(&version, self.node.as_str(), number, (&key, &subkey), |key, subkey, value, written| {
            looks += 1;
            if looks > EXPIRE_PER_ADVANCE {
                part.pass.from = Some((key.to_vec(), subkey.to_vec()));
                return ControlFlow::Break(());
            }
            if share_of(key_group(key), self.shares) == self.share && !part.knows(space, hasher, key, subkey) {
                if space.deadline_of(written).is_some_and(|deadline| deadline <= now) {
                    expired.push((key.to_vec(), subkey.to_vec(), value.to_vec(), written));
                } else {
                    part.pass.oldest = part.pass.oldest.min(written);
                }
            }
            ControlFlow::Continue(())
        })?;
        for (key, subkey, value, written) in expired {
            let slot = part.bring(space, hash(hasher, &key), &key, &subkey, Some((&value, written)));
            space.write(slot, None, self.memory.mark, true);
        }
        if part.pass.from.is_none() {
            let lifetime = i64::try_from(ttl.micros).unwrap_or(i64::MAX);
            let oldest = if part.pass.oldest == i64::MIN { part.pass.began } else { part.pass.oldest };
            part.pass.next = oldest
                .saturating_add(lifetime)
                .min(now.saturating_add(lifetime))
                .max(part.pass.began.saturating_add(lifetime / 8));
        }
        Ok(())
    }

    fn check(&mut self, space: u16, keys: &Column, subkeys: Option<&Column>) -> Result<(), StateError> {
        self.memory.space(space, keys, [("subkeys", subkeys), ("subkeys", None)]).map(|_declared| ())
    }
}

impl Part {
    /// Puts an entry, or that there is none, into memory as the files have it.
    fn bring(&mut self, space: &mut Space, hash: u64, key: &[u8], subkey: &[u8], found: Option<(&[u8], i64)>) -> u32 {
        let slot = space.find_or_insert(hash, key, subkey);
        if let Some((value, written)) = found {
            let counted = (space.entries, space.bytes);
            space.restore(slot, Some(value), written);
            (space.entries, space.bytes) = counted;
        }
        self.pin(slot, Pin::until(Epoch(0)));
        slot
    }

    fn pin(&mut self, slot: u32, pin: Pin) {
        let slot = slot as usize;
        if slot >= self.pins.len() {
            self.pins.resize(slot + 1, Pin::NONE);
        }
        self.pins[slot] = pin;
    }

    fn pin_of(&self, slot: u32) -> Option<Pin> {
        self.pins.get(slot as usize).copied().filter(|pin| *pin != Pin::NONE)
    }

    fn knows(&self, space: &Space, hasher: &hashbrown::DefaultHashBuilder, key: &[u8], subkey: &[u8]) -> bool {
        space.find(hash(hasher, key), key, subkey).is_some_and(|slot| self.pin_of(slot).is_some())
    }

    /// Goes around once at most, and gives up what was not used since it last came by.
    fn evict(&mut self, space: &mut Space, folded: Epoch, bytes: usize) {
        self.pins.resize(space.records.len(), Pin::NONE);
        let target = space.resident_bytes().saturating_sub(bytes);
        // The second time round nothing counts as used any more.
        for _ in 0..2 * self.pins.len() {
            if space.resident_bytes() <= target {
                return;
            }
            let slot = self.hand % self.pins.len();
            self.hand = slot + 1;
            let (pin, record) = (self.pins[slot], &space.records[slot]);
            if !record.used || record.changed || record.subkeys.is_some() || (pin != Pin::NONE && pin.epoch() > folded)
            {
                continue;
            }
            if pin != Pin::NONE && pin.is_touched() {
                self.pins[slot] = pin.untouched();
                continue;
            }
            space.evict(slot as u32);
            self.pins[slot] = Pin::NONE;
        }
    }
}

fn unreadable(error: StoreError) -> StateError {
    let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
    StateError::Unreadable { kind: error.kind(), reason: format!("{error}{cause}") }
}

impl StateBackend for DiskState {
    fn declare(&mut self, spaces: &[SpaceDescriptor]) {
        self.memory.declare(spaces);
        for place in self.parts.len()..self.memory.spaces.len() {
            // What the files hold is there already; deltas count from it.
            let (entries, bytes) = self.files.estimate(self.node.as_str(), self.number(place as u16));
            let shares = u64::from(self.shares.max(1));
            let space = &mut self.memory.spaces[place];
            space.entries = space.entries.wrapping_add(entries / shares);
            space.bytes = space.bytes.wrapping_add(bytes / shares);
            self.parts.push(Part::default());
        }
    }

    fn advance(&mut self, watermark: Timestamp, wall: Timestamp) {
        self.memory.advance(watermark, wall);
        for place in 0..self.parts.len() {
            // What cannot be read now is told by the call that needs it.
            if self.memory.spaces[place].ttl.is_some() && self.pass(place).is_err() {
                return;
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
        self.check(space, keys, given(subkeys))?;
        self.fetch(space, keys, given(subkeys))?;
        self.memory.get_many(space, keys, subkeys, values)
    }

    fn put_many(&mut self, space: u16, keys: &Column, subkeys: &Column, values: &Column) -> Result<(), StateError> {
        self.check(space, keys, given(subkeys))?;
        // What an entry was is needed to undo the write, and to count.
        self.fetch(space, keys, given(subkeys))?;
        self.memory.put_many(space, keys, subkeys, values)
    }

    fn delete_many(&mut self, space: u16, keys: &Column, subkeys: &Column) -> Result<(), StateError> {
        self.check(space, keys, given(subkeys))?;
        self.fetch(space, keys, given(subkeys))?;
        self.memory.delete_many(space, keys, subkeys)
    }

    fn scan(&mut self, space: u16, key: &[u8], start: &[u8], limit: u32) -> Result<(Column, Column), StateError> {
        self.check(space, &Column::default(), None)?;
        let (number, place) = (self.number(space), usize::from(space));
        let (held, part) = (&self.memory.spaces[place], &self.parts[place]);
        let head = held.find_head(hash(&self.memory.hasher, key), key);
        let tree = head.and_then(|head| held.records[head as usize].subkeys.as_deref());
        let rest = tree.map(|tree| tree.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)));
        let rest = rest.into_iter().flatten().map(|(subkey, &slot)| (subkey.as_slice(), slot));
        let first = head.filter(|_| start.is_empty()).map(|head| (&[] as &[u8], head));
        let known = first.into_iter().chain(rest).filter(|&(_, slot)| part.pin_of(slot).is_some());
        let mut known = known.peekable();
        let mut scanned = Scanned { limit: limit as usize, ..Scanned::default() };
        let version: Arc<Version> = self.files.version();
        let looked =
            self.files.scan(&version, self.node.as_str(), number, (key, start), |other, subkey, value, written| {
                if other != key || scanned.is_full() {
                    return ControlFlow::Break(());
                }
                while let Some((name, slot)) = known.next_if(|(name, _)| *name < subkey) {
                    if held.is_seen(slot) {
                        scanned.push(name, held.records[slot as usize].value.as_slice());
                    }
                }
                match known.next_if(|(name, _)| *name == subkey) {
                    Some((_, slot)) if held.is_seen(slot) => {
                        scanned.push(subkey, held.records[slot as usize].value.as_slice());
                    }
                    Some(_) => {}
                    None if held.deadline_of(written).is_none_or(|deadline| deadline > held.now) => {
                        scanned.push(subkey, value);
                    }
                    None => {}
                }
                if scanned.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        looked.map_err(unreadable)?;
        for (name, slot) in known {
            if held.is_seen(slot) {
                scanned.push(name, held.records[slot as usize].value.as_slice());
            }
        }
        scanned.finish()
    }

    /// First what is in memory, where every entry but expired ones is rewritten and so stays; then
    /// what the files have and memory has not.
    fn walk(&mut self, space: u16, walk: &mut Walk) -> Result<Entries, StateError> {
        self.check(space, &Column::default(), None)?;
        let (number, place) = (self.number(space), usize::from(space));
        let (held, part, hasher) = (&self.memory.spaces[place], &self.parts[place], &self.memory.hasher);
        let mut step = Step::default();
        match &mut walk.0 {
            WalkPlace::Memory(slot) => {
                if !held.walk(slot, &mut step) {
                    walk.0 = WalkPlace::Files(Vec::new(), Vec::new());
                }
            }
            WalkPlace::Files(key, subkey) => {
                let from = (std::mem::take(key), std::mem::take(subkey));
                walk.0 = WalkPlace::End;
                let (version, mut looks) = (self.files.version(), 0);
                let look = |key: &[u8], subkey: &[u8], value: &[u8], written| {
                    if step.is_full() || looks == LOOKS_PER_STEP {
                        walk.0 = WalkPlace::Files(key.to_vec(), subkey.to_vec());
                        return ControlFlow::Break(());
                    }
                    looks += 1;
                    let mine = share_of(key_group(key), self.shares) == self.share;
                    let lives = held.deadline_of(written).is_none_or(|deadline| deadline > held.now);
                    if mine && lives && !part.knows(held, hasher, key, subkey) {
                        step.push(key, subkey, value);
                    }
                    ControlFlow::Continue(())
                };
                let from = (from.0.as_slice(), from.1.as_slice());
                self.files.scan(&version, self.node.as_str(), number, from, look).map_err(unreadable)?;
            }
            WalkPlace::End => {}
        }
        Ok(step.finish())
    }

    fn rewrite(&mut self, space: u16, entries: &Entries, migrated: &Migrated) -> Result<(), StateError> {
        let subkeys = given(&entries.subkeys);
        self.check(space, &entries.keys, subkeys)?;
        self.fetch(space, &entries.keys, subkeys)?;
        self.memory.rewrite(space, entries, migrated)
    }

    fn mark(&mut self) {
        self.memory.mark();
        self.evict();
    }

    fn undo(&mut self) {
        self.memory.undo();
    }

    fn revert(&mut self) {
        self.memory.revert();
    }

    fn checkpoint(&mut self) -> ChangeSet {
        let epoch = self.epoch.next();
        for (space, part) in self.memory.spaces.iter().zip(&mut self.parts) {
            for &slot in &space.changed {
                part.pin(slot, Pin::until(epoch));
            }
        }
        self.memory.take_changes()
    }

    fn take_changes(&mut self) -> ChangeSet {
        let changes = self.checkpoint();
        self.epoch = self.epoch.next();
        changes
    }

    fn entries(&self) -> u64 {
        let count = self.memory.spaces.iter().fold(0_u64, |sum, space| sum.wrapping_add(space.entries));
        count.cast_signed().max(0).cast_unsigned()
    }

    fn bytes(&self) -> u64 {
        let count = self.memory.spaces.iter().fold(0_u64, |sum, space| sum.wrapping_add(space.bytes));
        count.cast_signed().max(0).cast_unsigned()
    }
}

/// What a scan has found, up to its limit.
#[derive(Debug, Default)]
struct Scanned {
    limit: usize,
    subkeys: ColumnBuilder,
    values: ColumnBuilder,
    failed: Option<StateError>,
}

impl Scanned {
    fn is_full(&self) -> bool {
        self.subkeys.len() >= self.limit || self.failed.is_some()
    }

    fn push(&mut self, subkey: &[u8], value: &[u8]) {
        if self.is_full() {
            return;
        }
        match check_read(self.subkeys.byte_len() + self.values.byte_len() + subkey.len() + value.len()) {
            Ok(()) => {
                self.subkeys.push(subkey);
                self.values.push(value);
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn finish(self) -> Result<(Column, Column), StateError> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok((self.subkeys.finish(), self.values.finish())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wasmill_env::{Disk, SimulatedDisk};
    use wasmill_model::Ttl;

    use super::*;
    use crate::{EpochRecord, JobStore, StageRecord, StoreOptions};

    /// Commits what leaves, and folds it at once or now and then.
    struct Committed {
        state: DiskState,
        store: JobStore,
        fold_every: u64,
        /// Changes of checkpoints since the last commit.
        early: ChangeSet,
    }

    fn node() -> NodeName {
        NodeName::new("count").expect("a name")
    }

    fn open(disk: &SimulatedDisk, cache: u64) -> JobStore {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let options = StoreOptions { compaction_bytes_max: 2_000, ..StoreOptions::on_disk(cache) };
        JobStore::open(disk, Path::new("/jobs/one"), options).expect("opens").0
    }

    fn state(store: &JobStore, share: (u16, u16), bytes_max: usize) -> DiskState {
        let files = Arc::clone(store.state().expect("state stays on disk"));
        DiskState::new(files, node(), share, store.epoch(), bytes_max)
    }

    impl Committed {
        fn new(bytes_max: usize, cache: u64, fold_every: u64) -> Self {
            let store = open(&SimulatedDisk::default(), cache);
            Self { state: state(&store, (0, 1), bytes_max), store, fold_every, early: ChangeSet::default() }
        }
    }

    fn commit(store: &mut JobStore, changes: &ChangeSet) {
        let stage = StageRecord {
            node: node(),
            share: 0,
            shares: 1,
            state: changes.clone(),
            timers: Vec::new(),
            windows: None,
        };
        let record = EpochRecord { stages: vec![stage], ..EpochRecord::default() };
        store.commit(store.epoch().next(), &record).expect("commits");
    }

    fn fold(store: &mut JobStore) {
        let compaction = store.begin_compaction().expect("begins");
        store.finish_compaction(compaction.run().expect("runs")).expect("finishes");
    }

    impl StateBackend for Committed {
        fn declare(&mut self, spaces: &[SpaceDescriptor]) {
            self.state.declare(spaces);
        }
        fn advance(&mut self, watermark: Timestamp, wall: Timestamp) {
            self.state.advance(watermark, wall);
        }
        fn get_many(&mut self, s: u16, k: &Column, b: &Column, v: &mut ColumnBuilder) -> Result<Bitmap, StateError> {
            self.state.get_many(s, k, b, v)
        }
        fn put_many(&mut self, s: u16, k: &Column, b: &Column, v: &Column) -> Result<(), StateError> {
            self.state.put_many(s, k, b, v)
        }
        fn delete_many(&mut self, s: u16, k: &Column, b: &Column) -> Result<(), StateError> {
            self.state.delete_many(s, k, b)
        }
        fn scan(&mut self, s: u16, key: &[u8], start: &[u8], limit: u32) -> Result<(Column, Column), StateError> {
            self.state.scan(s, key, start, limit)
        }
        fn walk(&mut self, s: u16, walk: &mut Walk) -> Result<Entries, StateError> {
            self.state.walk(s, walk)
        }
        fn rewrite(&mut self, s: u16, entries: &Entries, migrated: &Migrated) -> Result<(), StateError> {
            self.state.rewrite(s, entries, migrated)
        }
        fn mark(&mut self) {
            self.state.mark();
        }
        fn undo(&mut self) {
            self.state.undo();
        }
        fn revert(&mut self) {
            self.state.revert();
        }
        fn checkpoint(&mut self) -> ChangeSet {
            let changes = self.state.checkpoint();
            self.early = std::mem::take(&mut self.early).and_then(changes.clone());
            changes
        }
        fn take_changes(&mut self) -> ChangeSet {
            let changes = self.state.take_changes();
            commit(&mut self.store, &std::mem::take(&mut self.early).and_then(changes.clone()));
            if self.store.epoch().0.is_multiple_of(self.fold_every) {
                fold(&mut self.store);
            }
            changes
        }
        fn entries(&self) -> u64 {
            self.state.entries()
        }
        fn bytes(&self) -> u64 {
            self.state.bytes()
        }
    }

    mod nothing_fits_in_memory {
        crate::state_backend_suite!(super::Committed::new(0, 1, 1));
    }

    mod everything_fits_in_memory {
        crate::state_backend_suite!(super::Committed::new(1 << 20, 1 << 20, 3));
    }

    fn space(ttl: Option<Ttl>) -> SpaceDescriptor {
        SpaceDescriptor { name: "s".into(), schema_version: 1, ttl }
    }

    fn numbers(range: std::ops::Range<u32>) -> Column {
        range.map(u32::to_be_bytes).collect()
    }

    #[test]
    fn memory_stays_within_its_bytes_once_the_log_is_folded() {
        let mut all = Committed::new(100_000, 64 << 10, 1);
        all.declare(&[space(None)]);
        for round in 0..100 {
            all.mark();
            let keys = numbers(round * 500..(round + 1) * 500);
            all.put_many(0, &keys, &Column::default(), &keys).expect("puts");
            all.take_changes();
        }
        all.mark();
        let resident: usize = all.state.memory.spaces.iter().map(Space::resident_bytes).sum();
        assert!(resident <= 100_000, "{resident} bytes");
        assert_eq!(all.entries(), 50_000);
        let mut values = ColumnBuilder::default();
        let found = all.get_many(0, &numbers(0..50_000), &Column::default(), &mut values).expect("gets");
        assert_eq!((found.count(), values.finish()), (50_000, numbers(0..50_000)));
    }

    #[test]
    fn state_is_there_after_a_crash_and_with_another_number_of_shares() {
        let disk = SimulatedDisk::default();
        let mut store = open(&disk, 1);
        let mut one = state(&store, (0, 1), 0);
        one.declare(&[space(None)]);
        one.put_many(0, &numbers(0..5_000), &Column::default(), &numbers(1..5_001)).expect("puts");
        commit(&mut store, &one.take_changes());
        fold(&mut store);
        one.delete_many(0, &numbers(0..1_000), &Column::default()).expect("deletes");
        commit(&mut store, &one.take_changes());
        one.put_many(0, &numbers(0..10), &Column::default(), &numbers(0..10)).expect("puts, and is not committed");
        let store = open(&disk.killed(), 1);
        let mut found = 0;
        for share in 0..3 {
            let mut part = state(&store, (share, 3), 0);
            part.declare(&[space(None)]);
            let own = (0..5_000_u32).map(u32::to_be_bytes).filter(|key| share_of(key_group(key), 3) == share);
            let own: Column = own.collect();
            let got = part.get_many(0, &own, &Column::default(), &mut ColumnBuilder::default()).expect("gets");
            found += got.count();
        }
        assert_eq!(found, 4_000);
    }

    #[test]
    fn expired_entries_on_disk_leave_though_nobody_asks_for_them() {
        let disk = SimulatedDisk::default();
        let mut store = open(&disk, 1);
        let ttl = Some(Ttl { clock: wasmill_model::Clock::Event, micros: 800 });
        let mut one = state(&store, (0, 1), 0);
        one.declare(&[space(ttl)]);
        one.advance(Timestamp(0), Timestamp(0));
        one.put_many(0, &numbers(0..3_000), &Column::default(), &numbers(0..3_000)).expect("puts");
        one.advance(Timestamp(500), Timestamp(0));
        one.put_many(0, &numbers(3_000..4_000), &Column::default(), &numbers(0..1_000)).expect("puts");
        commit(&mut store, &one.take_changes());
        fold(&mut store);
        let mut fresh = state(&store, (0, 1), 0);
        fresh.declare(&[space(ttl)]);
        let mut gone = 0;
        for now in [700, 800, 810, 820, 830, 840, 1_299, 1_300, 1_400, 1_500, 1_600] {
            for _ in 0..10 {
                fresh.advance(Timestamp(now), Timestamp(0));
                fresh.mark();
            }
            let changes = fresh.take_changes();
            gone += changes.len();
            assert!(changes.iter().all(|change| change.value.is_none()));
            let most = if now < 800 {
                0
            } else if now < 1_300 {
                3_000
            } else {
                4_000
            };
            assert!(gone <= most, "{gone} gone at {now}");
            commit(&mut store, &changes);
            fold(&mut store);
        }
        assert_eq!((gone, fresh.entries()), (4_000, 0));
    }
}
