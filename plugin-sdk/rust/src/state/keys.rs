//! The keys whose state is in memory, each with a dense number: its *slot*.
//!
//! Each row's key is hashed once; every space then finds its cell by slot.

/// Hash tags and slots in an open table, keys in one arena.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Upper half of the hash, then slot + 1; 0 is free. At most half full.
    table: Vec<u64>,
    keys: Vec<Key>,
    arena: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    hash: u64,
    start: u32,
    len: u32,
    /// Used since the last eviction.
    used: bool,
}

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Words of eight bytes, multiplied and turned, and mixed at the end, as digits at the end of a key
/// reach the upper bits alone. Not for adversaries: a stage that is flooded with chosen keys slows
/// itself down, nobody else.
#[inline(always)]
fn hash(key: &[u8]) -> u64 {
    let mut hash = (key.len() as u64).wrapping_mul(MULTIPLIER);
    let mut chunks = key.chunks_exact(8);
    for chunk in &mut chunks {
        hash = (hash.rotate_left(23) ^ word(chunk)).wrapping_mul(MULTIPLIER);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash = (hash.rotate_left(23) ^ tail(rest)).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

#[inline(always)]
fn tail(rest: &[u8]) -> u64 {
    match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last)),
        _ => rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[inline(always)]
fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (mut x, mut y) = (a.chunks_exact(8), b.chunks_exact(8));
    (&mut x).zip(&mut y).all(|(x, y)| word(x) == word(y))
        && x.remainder().iter().zip(y.remainder()).all(|(x, y)| x == y)
}

#[inline(always)]
fn word(chunk: &[u8]) -> u64 {
    u64::from_le_bytes(chunk.try_into().unwrap_or_default())
}

impl Keys {
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.arena.len() + self.keys.len() * size_of::<Key>() + self.table.len() * 8
    }

    /// The slot of a key, a new one where it has none.
    #[inline]
    pub(crate) fn slot(&mut self, key: &[u8]) -> u32 {
        if self.keys.len() * 2 >= self.table.len() {
            self.grow();
        }
        let hash = hash(key);
        let mask = self.table.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let entry = self.table[at];
            if entry == 0 {
                return self.insert(at, hash, key);
            }
            if (entry ^ hash) >> 32 == 0 {
                let slot = entry as u32 - 1;
                if equal(self.get(slot), key) {
                    self.keys[slot as usize].used = true;
                    return slot;
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn insert(&mut self, at: usize, hash: u64, key: &[u8]) -> u32 {
        let slot = self.keys.len() as u32;
        self.keys.push(Key { hash, start: self.arena.len() as u32, len: key.len() as u32, used: true });
        crate::append(&mut self.arena, key);
        self.table[at] = hash >> 32 << 32 | u64::from(slot + 1);
        slot
    }

    #[cold]
    fn grow(&mut self) {
        let size = (self.table.len() * 2).max(64);
        self.rebuild(size);
    }

    fn rebuild(&mut self, size: usize) {
        self.table.clear();
        self.table.resize(size, 0);
        for (slot, key) in (1..).zip(&self.keys) {
            let mut at = key.hash as usize & (size - 1);
            while self.table[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            self.table[at] = key.hash >> 32 << 32 | slot;
        }
    }

    /// The key of a slot.
    #[inline(always)]
    pub(crate) fn get(&self, slot: u32) -> &[u8] {
        let key = self.keys[slot as usize];
        &self.arena[key.start as usize..(key.start + key.len) as usize]
    }

    /// Forgets the keys that were not used since the last time, or all where that is less than a
    /// quarter. Says for each slot whether it stays; those that stay move up.
    pub(crate) fn evict(&mut self) -> Vec<bool> {
        let unused = self.keys.iter().filter(|key| !key.used).count();
        let all = unused < self.keys.len() / 4;
        let keep: Vec<bool> = self.keys.iter().map(|key| key.used && !all).collect();
        let old = std::mem::take(self);
        for (key, keep) in old.keys.iter().zip(&keep) {
            if *keep {
                let start = self.arena.len() as u32;
                self.arena.extend_from_slice(&old.arena[key.start as usize..(key.start + key.len) as usize]);
                self.keys.push(Key { start, used: false, ..*key });
            }
        }
        self.rebuild((self.keys.len() * 2 + 1).next_power_of_two().max(64));
        keep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_slot_whatever_its_length() {
        let mut keys = Keys::default();
        let all: Vec<Vec<u8>> = (0..40u8).flat_map(|len| (0..50u8).map(move |i| vec![i; usize::from(len)])).collect();
        let slots: Vec<u32> = all.iter().map(|key| keys.slot(key)).collect();
        for (key, slot) in all.iter().zip(&slots) {
            assert_eq!(keys.slot(key), *slot);
            assert_eq!(keys.get(*slot), &key[..]);
        }
        assert_eq!(keys.len(), 39 * 50 + 1);
    }

    #[test]
    fn keys_that_differ_in_their_last_digits_spread() {
        for width in [4, 8, 12, 16, 20] {
            let mut taken = std::collections::HashSet::new();
            for i in 0..8192 {
                taken.insert(hash(format!("k{i:0width$}").as_bytes()) % 16_384);
            }
            // Throwing 8,192 balls into 16,384 bins fills about 6,450.
            assert!(taken.len() > 6200, "{width}: {}", taken.len());
        }
    }

    #[test]
    fn keys_that_are_not_used_are_forgotten_first() {
        let mut keys = Keys::default();
        (0..100u64).for_each(|i| assert_eq!(keys.slot(&i.to_le_bytes()), i as u32));
        assert!(keys.evict().iter().all(|keep| !keep), "all were used: all go");
        (0..100u64).for_each(|i| {
            keys.slot(&i.to_le_bytes());
        });
        keys.keys.iter_mut().for_each(|key| key.used = false);
        (0..40u64).for_each(|i| {
            keys.slot(&(i * 2).to_le_bytes());
        });
        let keep = keys.evict();
        assert_eq!(keep.iter().filter(|keep| **keep).count(), 40);
        (0..40u64).for_each(|i| assert_eq!(keys.slot(&(i * 2).to_le_bytes()), i as u32));
        assert_eq!(keys.len(), 40);
    }
}
