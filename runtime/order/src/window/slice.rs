use hashbrown::HashTable;

use super::slicing::SliceBounds;

/// Garbage below this is left alone, bytes.
const GARBAGE_MIN: usize = 4_096;

/// The accumulators of one slice, by key.
///
/// Keys and accumulators lie in two buffers; a slot says where. An accumulator is overwritten in
/// place while it fits; one that grows moves to the end, with room to grow on, and the buffer is
/// rewritten when more than half of it is garbage.
///
/// # Invariants
/// Slots are in the order in which their keys came. Those from `kept` on belong to an assignment
/// that is still open, and are the last.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) bounds: SliceBounds,
    table: HashTable<u32>,
    slots: Vec<Slot>,
    kept: usize,
    keys: Vec<u8>,
    accumulators: Vec<u8>,
    garbage: usize,
    changed: Vec<u32>,
    next_order: u32,
    /// Whether a cut holds something of this slice.
    pub(crate) taken: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) hash: u64,
    key_at: usize,
    accumulator_at: usize,
    key_len: u32,
    len: u32,
    room: u32,
    /// The place of the key among those of this slice, also after a recovery.
    pub(crate) order: u32,
    /// The assignment that last touched it, and its group there.
    pub(crate) assignment: u64,
    pub(crate) group: u32,
    changed: bool,
}

impl Slice {
    pub(crate) fn new(bounds: SliceBounds) -> Self {
        Self {
            bounds,
            table: HashTable::new(),
            slots: Vec::new(),
            kept: 0,
            keys: Vec::new(),
            accumulators: Vec::new(),
            garbage: 0,
            changed: Vec::new(),
            next_order: 0,
            taken: false,
        }
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let same = |&slot: &u32| self.slots[slot as usize].hash == hash && self.key(slot) == key;
        self.table.find(hash, same).copied()
    }

    /// Adds a key that is not here, with an empty accumulator.
    pub(crate) fn insert(&mut self, hash: u64, key: &[u8]) -> u32 {
        let slot = u32::try_from(self.slots.len()).expect("fewer than 4 billion keys of a slice fit into memory");
        self.slots.push(Slot {
            hash,
            key_at: self.keys.len(),
            accumulator_at: self.accumulators.len(),
            key_len: key.len() as u32,
            len: 0,
            room: 0,
            order: self.next_order,
            assignment: 0,
            group: 0,
            changed: false,
        });
        self.next_order += 1;
        self.keys.extend_from_slice(key);
        let slots = &self.slots;
        self.table.insert_unique(hash, slot, |&slot| slots[slot as usize].hash);
        slot
    }

    /// As [`Self::insert`], at its place of before.
    pub(crate) fn insert_stored(&mut self, hash: u64, key: &[u8], order: u32) -> u32 {
        self.next_order = self.next_order.max(order);
        self.insert(hash, key)
    }

    #[inline]
    pub(crate) fn slot(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(crate) fn key(&self, slot: u32) -> &[u8] {
        let slot = &self.slots[slot as usize];
        &self.keys[slot.key_at..slot.key_at + slot.key_len as usize]
    }

    #[inline]
    pub(crate) fn accumulator(&self, slot: u32) -> &[u8] {
        let slot = &self.slots[slot as usize];
        &self.accumulators[slot.accumulator_at..slot.accumulator_at + slot.len as usize]
    }

    #[inline]
    pub(crate) fn write(&mut self, place: u32, accumulator: &[u8]) {
        let slot = &mut self.slots[place as usize];
        if !slot.changed {
            slot.changed = true;
            self.changed.push(place);
        }
        if accumulator.len() > slot.room as usize {
            self.garbage += slot.room as usize;
            let spare = if slot.room == 0 { 0 } else { accumulator.len() / 4 };
            let room = accumulator.len().saturating_add(spare).min(u32::MAX as usize);
            slot.accumulator_at = self.accumulators.len();
            slot.room = room as u32;
            self.accumulators.resize(slot.accumulator_at + room, 0);
        }
        slot.len = accumulator.len() as u32;
        self.accumulators[slot.accumulator_at..slot.accumulator_at + accumulator.len()].copy_from_slice(accumulator);
        if self.garbage > GARBAGE_MIN && self.garbage > self.accumulators.len() / 2 {
            self.compact();
        }
    }

    #[cold]
    fn compact(&mut self) {
        let mut rewritten = Vec::with_capacity(self.accumulators.len() - self.garbage);
        for slot in &mut self.slots {
            let at = rewritten.len();
            let room = slot.accumulator_at..slot.accumulator_at + slot.room as usize;
            rewritten.extend_from_slice(&self.accumulators[room]);
            slot.accumulator_at = at;
        }
        self.accumulators = rewritten;
        self.garbage = 0;
    }

    /// Whether the slot belongs to the open assignment alone.
    pub(crate) fn is_new(&self, slot: u32) -> bool {
        slot as usize >= self.kept
    }

    /// Everything in it stays.
    pub(crate) fn keep(&mut self) {
        self.kept = self.slots.len();
    }

    /// Drops the slots of the open assignment. They have no accumulators yet.
    pub(crate) fn drop_new(&mut self) {
        let Some(first) = self.slots.get(self.kept) else { return };
        self.keys.truncate(first.key_at);
        self.next_order = first.order;
        for place in self.kept..self.slots.len() {
            if let Ok(found) = self.table.find_entry(self.slots[place].hash, |&other| other as usize == place) {
                found.remove();
            }
        }
        self.slots.truncate(self.kept);
    }

    /// The slots written since this was last called, in order.
    pub(crate) fn take_changed(&mut self) -> Vec<u32> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        for &slot in &changed {
            self.slots[slot as usize].changed = false;
        }
        changed
    }

    /// Bytes of memory, without the table.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.len() + self.accumulators.len() + self.slots.len() * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice() -> Slice {
        Slice::new(SliceBounds { start: 0, end: 1, first: 0, last: 0 })
    }

    #[test]
    fn accumulators_that_grow_do_not_fill_memory_with_garbage() {
        let mut slice = slice();
        let places: Vec<u32> = (0..10_u64).map(|key| slice.insert(key, &key.to_le_bytes())).collect();
        for len in 1..5_000 {
            for &place in &places {
                slice.write(place, &vec![place as u8; len]);
            }
        }
        for &place in &places {
            assert_eq!(slice.accumulator(place), vec![place as u8; 4_999]);
            slice.write(place, b"short");
            assert_eq!(slice.accumulator(place), b"short");
        }
        assert!(slice.bytes() < 3 * 10 * 5_000, "{} bytes", slice.bytes());
    }

    #[test]
    fn what_an_open_assignment_added_can_be_dropped() {
        let mut slice = slice();
        slice.insert(7, b"a");
        slice.write(0, b"1");
        slice.keep();
        slice.insert(7, b"b");
        slice.insert(8, b"c");
        assert!(slice.is_new(1) && !slice.is_new(0));
        slice.drop_new();
        assert_eq!((slice.find(7, b"a"), slice.find(7, b"b"), slice.find(8, b"c")), (Some(0), None, None));
        assert_eq!((slice.len(), slice.insert(8, b"c"), slice.slots()[1].order), (1, 1, 1));
        assert_eq!((slice.take_changed(), slice.take_changed()), (vec![0], vec![]));
    }
}
