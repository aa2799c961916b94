use serde::{Deserialize, Serialize};

/// Key groups of every job. Fixed, so that state moves between tasks by group and a savepoint fits
/// any parallelism up to this.
pub const KEY_GROUPS: u16 = 256;

/// A share of the keys: the hash of a key modulo [`KEY_GROUPS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyGroup(pub u16);

/// The group of a key: XXH3-64 of its bytes modulo [`KEY_GROUPS`]. Part of the stored format.
#[must_use]
#[inline]
pub fn key_group(key: &[u8]) -> KeyGroup {
    KeyGroup((xxhash_rust::xxh3::xxh3_64(key) % u64::from(KEY_GROUPS)) as u16)
}

/// The task, of `parallelism` tasks, that owns a key group. Groups are dealt in contiguous runs.
#[must_use]
#[inline]
pub fn share_of(group: KeyGroup, parallelism: u16) -> u16 {
    (u32::from(group.0) * u32::from(parallelism) / u32::from(KEY_GROUPS)) as u16
}

/// A partition of a source: an independently ordered run of events with its own position.
/// Numbered within its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

/// Where to go on reading a partition. The bytes belong to the connector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub Vec<u8>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_dealt_in_contiguous_runs_that_cover_every_task() {
        for parallelism in 1..=KEY_GROUPS {
            let shares: Vec<u16> = (0..KEY_GROUPS).map(|g| share_of(KeyGroup(g), parallelism)).collect();
            assert!(shares.windows(2).all(|w| w[1] == w[0] || w[1] == w[0] + 1));
            assert_eq!((shares[0], shares[shares.len() - 1]), (0, parallelism - 1));
        }
    }

    #[test]
    fn the_group_of_a_key_is_frozen() {
        assert_eq!(key_group(b""), KeyGroup(0xc2));
        assert_eq!(key_group(b"bridge-7"), key_group(b"bridge-7"));
    }
}
