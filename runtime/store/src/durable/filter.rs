//! Which state a sorted file may have: a Bloom filter in lines of 64 bytes, one line a name.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::codec::Name;

const LINE_BYTES: usize = 64;
/// Bits for a name: about one in a hundred absent names passes.
const BITS_PER_NAME: u64 = 10;
/// Bits of a line that a name sets.
const PROBES: u32 = 6;

/// The hash of an entry of state, part of the stored format.
#[inline]
pub(super) fn state_hash(node: &str, name: Name<'_>) -> u64 {
    state_hash_seeded(node_seed(node), name)
}

/// The part of [`state_hash`] that is the same for all names of a node.
#[inline]
pub(super) fn node_seed(node: &str) -> u64 {
    xxh3_64(node.as_bytes())
}

#[inline]
pub(super) fn state_hash_seeded(seed: u64, name: Name<'_>) -> u64 {
    let first = xxh3_64_with_seed(name.first, seed.wrapping_add(name.number));
    xxh3_64_with_seed(name.second, first)
}

/// Begins empty, for at most so many names.
#[derive(Debug, Default)]
pub(super) struct FilterBuilder {
    lines: Vec<u8>,
}

impl FilterBuilder {
    /// No filter where it would take more than `bytes_max`.
    pub(super) fn new(names_max: u64, bytes_max: u64) -> Self {
        let bytes = names_max.saturating_mul(BITS_PER_NAME).div_ceil(8);
        if names_max == 0 || bytes > bytes_max {
            return Self::default();
        }
        let lines = usize::try_from(bytes).unwrap_or(0).div_ceil(LINE_BYTES);
        Self { lines: vec![0; lines * LINE_BYTES] }
    }

    #[inline]
    pub(super) fn insert(&mut self, hash: u64) {
        let Some(line) = line(self.lines.len(), hash) else { return };
        for bit in bits(hash) {
            self.lines[line + bit / 8] |= 1 << (bit % 8);
        }
    }

    pub(super) fn encode(self: &mut FilterBuilder, into: &mut Vec<u8>) {
        into.append(&mut self.lines);
    }
}

/// A filter as it is stored.
#[derive(Debug)]
pub(super) struct Filter(Vec<u8>);

impl Filter {
    /// `None` where it makes no sense.
    pub(super) fn new(mut bytes: Vec<u8>) -> Option<Self> {
        bytes.shrink_to_fit();
        bytes.len().is_multiple_of(LINE_BYTES).then_some(Self(bytes))
    }

    /// Whether the file may have a name; `true` for all where there is no filter.
    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let Some(line) = line(self.0.len(), hash) else { return true };
        bits(hash).all(|bit| self.0[line + bit / 8] & (1 << (bit % 8)) != 0)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Where the line of a hash begins.
#[inline]
fn line(bytes: usize, hash: u64) -> Option<usize> {
    let lines = (bytes / LINE_BYTES) as u128;
    (lines > 0).then(|| ((u128::from(hash) * lines) >> 64) as usize * LINE_BYTES)
}

/// The bits of a hash within its line, from the low half: the high bits chose the line.
#[inline]
fn bits(hash: u64) -> impl Iterator<Item = usize> {
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..PROBES).map(move |probe| (mixed >> (probe * 9 + 8)) as usize % (LINE_BYTES * 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        state_hash("count", Name { number: 0, first: &number.to_le_bytes(), second: &[] })
    }

    #[test]
    fn what_was_inserted_passes_and_little_else_does() {
        let mut builder = FilterBuilder::new(10_000, u64::MAX);
        (0..10_000).for_each(|number| builder.insert(hash(number)));
        let mut bytes = Vec::new();
        builder.encode(&mut bytes);
        let filter = Filter::new(bytes).expect("whole lines");
        assert!((0..10_000).all(|number| filter.may_have(hash(number))));
        let passed = (10_000..110_000).filter(|&number| filter.may_have(hash(number))).count();
        assert!(passed < 2_500, "{passed} of 100,000 absent names pass");
    }

    #[test]
    fn no_filter_lets_everything_pass() {
        let mut builder = FilterBuilder::new(1_000, 100);
        builder.insert(hash(1));
        let mut bytes = Vec::new();
        builder.encode(&mut bytes);
        assert!(bytes.is_empty());
        assert!(Filter::new(bytes).expect("an empty filter").may_have(hash(2)));
    }
}
