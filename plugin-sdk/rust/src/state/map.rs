use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::Bound;
use std::rc::Rc;

use super::{Shared, Space, SpaceInfo, retain};
use crate::bindings::wasmill::operator::types::Column;
use crate::column::{Rows, bits};
use crate::{Codec, CodecError, MapKey};

/// A map per event key, from sub-keys to values. Made in [`Operator::open`](crate::Operator::open).
///
/// An entry that is not in memory costs one host call when it is first asked for;
/// [`Map::get_all`] fetches many with one.
pub struct Map<K, V> {
    shared: Rc<Shared>,
    space: Rc<MapSpace<V>>,
    keys: PhantomData<fn(&K)>,
}

struct MapSpace<V> {
    info: SpaceInfo,
    cells: RefCell<Cells<V>>,
}

struct Cells<V> {
    /// By slot.
    maps: Vec<Entries<V>>,
    dirty: Vec<(u32, Vec<u8>)>,
    /// Entries before the changes of a row, the newest last.
    undo: Vec<(u32, Vec<u8>, Entry<V>)>,
    undo_row: u64,
}

#[derive(Clone)]
struct Entries<V> {
    entries: BTreeMap<Vec<u8>, Entry<V>>,
    /// Whether what is not in `entries` does not exist.
    complete: bool,
    /// Once complete: nothing below exists. Who deletes from the front need not pass over it again.
    low: Vec<u8>,
}

impl<V> Entries<V> {
    const EMPTY: Self = Self { entries: BTreeMap::new(), complete: false, low: Vec::new() };

    /// A sub-key may exist again.
    fn raise(&mut self, key: &[u8]) {
        if key < self.low.as_slice() {
            self.low = key.to_vec();
        }
    }
}

/// An entry that was looked up: `None` says that it does not exist.
#[derive(Clone)]
struct Entry<V> {
    value: Option<V>,
    dirty: bool,
}

/// Entries that one `scan` brings in.
const PAGE: u32 = 1024;

impl<K: MapKey, V: Codec> Map<K, V> {
    pub(crate) fn new(shared: &Rc<Shared>, info: SpaceInfo) -> Self {
        let cells = Cells { maps: Vec::new(), dirty: Vec::new(), undo: Vec::new(), undo_row: 0 };
        let space = Rc::new(MapSpace { info, cells: RefCell::new(cells) });
        shared.add_space(space.clone());
        Self { shared: shared.clone(), space, keys: PhantomData }
    }

    /// The value of a sub-key under the current key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        self.entry(bytes(key), |value| value.clone())
    }

    /// The values of some sub-keys, fetched together.
    #[must_use]
    pub fn get_all(&self, keys: &[K]) -> Vec<Option<V>> {
        let slot = self.shared.slot();
        let keys: Vec<Vec<u8>> = keys.iter().map(bytes).collect();
        let cells = &mut *self.space.cells.borrow_mut();
        self.space.fetch(&self.shared, &mut cells.maps[slot], slot, &keys);
        keys.iter().map(|key| cells.maps[slot].entries.get(key).and_then(|entry| entry.value.clone())).collect()
    }

    /// Whether a sub-key has a value.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.entry(bytes(key), |value| value.is_some())
    }

    /// Sets the value of a sub-key and returns the old one.
    pub fn insert(&self, key: &K, value: V) -> Option<V> {
        self.change(bytes(key), |old| old.replace(value))
    }

    /// Deletes the value of a sub-key and returns it.
    pub fn remove(&self, key: &K) -> Option<V> {
        self.change(bytes(key), Option::take)
    }

    /// Changes the value of a sub-key in place, from the default where it has none.
    pub fn update<R>(&self, key: &K, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        self.change(bytes(key), |value| change(value.get_or_insert_with(V::default)))
    }

    /// All entries of the current key in the order of their sub-keys. They have to fit in memory.
    #[must_use]
    pub fn entries(&self) -> Vec<(K, V)> {
        self.collect(|key, value| match K::decode_key(key) {
            Ok(key) => Some((key, value.clone())),
            Err(error) => {
                self.shared.fail(&self.space.info, &error);
                None
            }
        })
    }

    /// The entries of the current key from one sub-key to another, both included, in their order. All
    /// entries of the key are brought into memory once.
    #[must_use]
    pub fn range(&self, from: &K, to: &K) -> Vec<(K, V)> {
        let slot = self.shared.slot();
        let cells = &mut *self.space.cells.borrow_mut();
        let map = &mut cells.maps[slot];
        self.space.fetch_all(&self.shared, map, slot);
        let (from, to) = (bytes(from).max(map.low.clone()), bytes(to));
        if from > to {
            return Vec::new();
        }
        let entries = map.entries.range(from..=to);
        let found = entries.filter_map(|(key, entry)| match K::decode_key(key) {
            Ok(key) => Some((key, entry.value.clone()?)),
            Err(error) => {
                self.shared.fail(&self.space.info, &error);
                None
            }
        });
        found.collect()
    }

    /// The first sub-key of the current key, as [`Map::range`] brings it in.
    #[must_use]
    pub fn first_key(&self) -> Option<K> {
        let slot = self.shared.slot();
        let cells = &mut *self.space.cells.borrow_mut();
        let map = &mut cells.maps[slot];
        self.space.fetch_all(&self.shared, map, slot);
        let mut rest = map.entries.range::<[u8], _>((Bound::Included(map.low.as_slice()), Bound::Unbounded));
        let key = rest.find(|(_, entry)| entry.value.is_some())?.0.clone();
        map.low.clone_from(&key);
        K::decode_key(&key).map_err(|error| self.shared.fail(&self.space.info, &error)).ok()
    }

    /// How many entries the current key has. All are brought into memory to know it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.collect(|_, _| Some(())).len()
    }

    /// Whether the current key has no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Deletes all entries of the current key.
    pub fn clear(&self) {
        for key in self.collect(|key, _| Some(key.to_vec())) {
            self.change(key, Option::take);
        }
    }

    pub(super) fn fail(&self, error: &CodecError) {
        self.shared.fail(&self.space.info, error);
    }

    fn collect<R>(&self, mut pick: impl FnMut(&[u8], &V) -> Option<R>) -> Vec<R> {
        let slot = self.shared.slot();
        let cells = &mut *self.space.cells.borrow_mut();
        self.space.fetch_all(&self.shared, &mut cells.maps[slot], slot);
        let entries = cells.maps[slot].entries.iter();
        entries.filter_map(|(key, entry)| pick(key, entry.value.as_ref()?)).collect()
    }

    fn entry<R>(&self, key: Vec<u8>, look: impl FnOnce(&Option<V>) -> R) -> R {
        let slot = self.shared.slot();
        let cells = &mut *self.space.cells.borrow_mut();
        let map = &mut cells.maps[slot];
        if let Some(entry) = map.entries.get(&key) {
            return look(&entry.value);
        }
        self.space.fetch(&self.shared, map, slot, std::slice::from_ref(&key));
        look(map.entries.get(&key).map_or(&None, |entry| &entry.value))
    }

    fn change<R>(&self, key: Vec<u8>, change: impl FnOnce(&mut Option<V>) -> R) -> R {
        let slot = self.shared.slot();
        let cells = &mut *self.space.cells.borrow_mut();
        let map = &mut cells.maps[slot];
        if !map.entries.contains_key(&key) {
            self.space.fetch(&self.shared, map, slot, std::slice::from_ref(&key));
        }
        let entry = map.entries.entry(key.clone()).or_insert(Entry { value: None, dirty: false });
        let row = self.shared.row.get();
        if cells.undo_row != row {
            cells.undo_row = row;
            cells.undo.clear();
        }
        cells.undo.push((slot as u32, key.clone(), entry.clone()));
        if !entry.dirty {
            entry.dirty = true;
            cells.dirty.push((slot as u32, key.clone()));
        }
        self.shared.touch();
        let result = change(&mut entry.value);
        if entry.value.is_some() {
            map.raise(&key);
        }
        result
    }
}

fn bytes(key: &impl MapKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode_key(&mut bytes);
    bytes
}

impl<V: Codec> MapSpace<V> {
    /// Looks up the sub-keys that are not in memory.
    fn fetch(&self, shared: &Shared, map: &mut Entries<V>, slot: usize, keys: &[Vec<u8>]) {
        let missing: Vec<&Vec<u8>> = keys.iter().filter(|key| !map.entries.contains_key(*key)).collect();
        if map.complete || missing.is_empty() {
            return;
        }
        let (mut outer, mut inner) = (Column::EMPTY, Column::EMPTY);
        for key in &missing {
            outer.push(shared.keys.borrow().get(slot as u32));
            inner.push(key);
        }
        let (found, values) = shared.host.get_many(self.info.number, &outer, &inner);
        let values = Rows::of(&values);
        for ((key, found), bytes) in missing.iter().zip(bits(&found, missing.len())).zip(values.iter()) {
            let value = if found { self.decode(shared, bytes) } else { None };
            map.entries.insert((*key).clone(), Entry { value, dirty: false });
        }
        shared.stirred.set(shared.stirred.get() + missing.len());
    }

    fn fetch_all(&self, shared: &Shared, map: &mut Entries<V>, slot: usize) {
        if map.complete {
            return;
        }
        let mut start = Vec::new();
        loop {
            let (keys, values) = {
                let outer = shared.keys.borrow();
                shared.host.scan(self.info.number, outer.get(slot as u32), &start, PAGE)
            };
            for (key, bytes) in Rows::of(&keys).iter().zip(Rows::of(&values).iter()) {
                // What is in memory is as new or newer.
                if !map.entries.contains_key(key) {
                    map.entries.insert(key.to_vec(), Entry { value: self.decode(shared, bytes), dirty: false });
                }
            }
            let count = keys.ends.len();
            shared.stirred.set(shared.stirred.get() + count);
            if count < PAGE as usize {
                break;
            }
            start = Rows::of(&keys).get(count - 1).to_vec();
            start.push(0);
        }
        map.complete = true;
    }

    fn decode(&self, shared: &Shared, bytes: &[u8]) -> Option<V> {
        V::decode(bytes).map_err(|error| shared.fail(&self.info, &error)).ok()
    }
}

impl<V: Codec> Space for MapSpace<V> {
    fn info(&self) -> &SpaceInfo {
        &self.info
    }

    fn load(&self, shared: &Shared, _: &[u32], _: &[u32]) -> Result<(), String> {
        self.cells.borrow_mut().maps.resize(shared.keys.borrow().len(), Entries::EMPTY);
        Ok(())
    }

    fn undo(&self, row: u64) {
        let cells = &mut *self.cells.borrow_mut();
        if cells.undo_row != row {
            return;
        }
        while let Some((slot, key, entry)) = cells.undo.pop() {
            let map = &mut cells.maps[slot as usize];
            if entry.value.is_some() {
                map.raise(&key);
            }
            map.entries.insert(key, entry);
        }
    }

    fn write(&self, shared: &Shared) {
        let cells = &mut *self.cells.borrow_mut();
        let outer = shared.keys.borrow();
        let (mut put, mut put_inner, mut values) = (Column::EMPTY, Column::EMPTY, Column::EMPTY);
        let (mut delete, mut delete_inner) = (Column::EMPTY, Column::EMPTY);
        for (slot, key) in cells.dirty.drain(..) {
            let Some(entry) = cells.maps[slot as usize].entries.get_mut(&key) else { continue };
            if !std::mem::take(&mut entry.dirty) {
                continue;
            }
            match &entry.value {
                Some(value) => {
                    put.push(outer.get(slot));
                    put_inner.push(&key);
                    value.encode(&mut values.data);
                    values.end();
                }
                None => {
                    delete.push(outer.get(slot));
                    delete_inner.push(&key);
                    // Of a complete map it is known without an entry.
                    let map = &mut cells.maps[slot as usize];
                    if map.complete {
                        map.entries.remove(&key);
                    }
                }
            }
        }
        if !put.ends.is_empty() {
            shared.host.put_many(self.info.number, &put, &put_inner, &values);
        }
        if !delete.ends.is_empty() {
            shared.host.delete_many(self.info.number, &delete, &delete_inner);
        }
    }

    fn forget(&self, slots: &[u32]) {
        let cells = &mut *self.cells.borrow_mut();
        for slot in slots {
            cells.maps[*slot as usize] = Entries::EMPTY;
        }
    }

    fn retain(&self, keep: &[bool]) {
        retain(&mut self.cells.borrow_mut().maps, keep);
    }

    fn weight(&self) -> usize {
        let cells = self.cells.borrow();
        let entry = |(key, entry): (&Vec<u8>, &Entry<V>)| {
            key.len() + 2 * size_of::<Entry<V>>() + size_of::<Vec<u8>>() + entry.value.as_ref().map_or(0, Codec::weight)
        };
        cells.maps.iter().map(|map| size_of::<Entries<V>>() + map.entries.iter().map(entry).sum::<usize>()).sum()
    }
}
