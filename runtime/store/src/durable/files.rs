//! The sorted files of a store as one map of state, for stages whose state stays on disk.
//!
//! # Concurrency
//! The store puts a new [`Version`] in place when a compaction has ended; readers go on with the
//! one they have, whose files stay readable though their names are gone.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use wasmill_model::Epoch;

use super::StoreError;
use super::codec::{Change, Name};
use super::encode::decode_state;
use super::filter::{node_seed, state_hash_seeded};
use super::sorted::{Block, BlockBytes, BlockCache, Cursor, SortedFile, merge_cursors};

/// Typical bytes of a block in the cache.
const BLOCK_BYTES_TYPICAL: u64 = 5 << 10;

/// The state that the files of a store hold, with a cache of their blocks.
#[derive(Debug)]
pub struct StateFiles {
    cache: BlockCache,
    /// Bytes for blocks, indexes and filters.
    bytes_max: u64,
    current: RwLock<Arc<Version>>,
}

/// The files as of one compaction.
#[derive(Debug, Default)]
pub(crate) struct Version {
    /// The newest first.
    pub(super) files: Vec<Arc<SortedFile>>,
    /// Every epoch up to this one is in them.
    pub(crate) epoch: Epoch,
}

/// One entry to look up, and where what was found goes.
pub(crate) struct Wanted<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) subkey: &'a [u8],
}

impl StateFiles {
    /// With so many bytes for blocks, indexes and filters.
    pub(super) fn new(bytes_max: u64, version: Version) -> Self {
        let blocks = usize::try_from(bytes_max / BLOCK_BYTES_TYPICAL).unwrap_or(usize::MAX).max(16);
        let cache = BlockCache::with_weighter(blocks, bytes_max, BlockBytes);
        let files = Self { cache, bytes_max, current: RwLock::default() };
        files.replace(version);
        files
    }

    pub(super) fn replace(&self, version: Version) {
        let blocks = self.bytes_max.saturating_sub(version.heap_bytes()).max(self.bytes_max / 8);
        self.cache.set_capacity(blocks);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(version);
    }

    pub(crate) fn version(&self) -> Arc<Version> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks up entries of one space, which are sorted, and hands over what the files hold of each:
    /// its value and when it was written.
    pub(crate) fn get_sorted<'a>(
        &self,
        version: &Version,
        node: &str,
        number: u64,
        wanted: impl Iterator<Item = Wanted<'a>>,
        mut take: impl FnMut(usize, Option<(&[u8], i64)>),
    ) -> Result<(), StoreError> {
        let seed = node_seed(node);
        let files = version.of_node(node).filter_map(|file| Some((file, file.space(node, number)?)));
        // Names that follow each other stand in the same block often.
        let mut files: Vec<_> = files.map(|(file, space)| (file, space, None::<(usize, Arc<Block>)>)).collect();
        for (place, Wanted { key, subkey }) in wanted.enumerate() {
            let hash = state_hash_seeded(seed, Name { number, first: key, second: subkey });
            let mut found = None;
            for (file, space, last) in &mut files {
                if !file.may_have(hash) {
                    continue;
                }
                let at = space.block_of(key, subkey);
                if last.as_ref().is_none_or(|(other, _)| *other != at) {
                    *last = file.block(&self.cache, space, node, number, at)?.map(|block| (at, block));
                }
                let change = last.as_ref().and_then(|(_, block)| block.find(key, subkey));
                if let Some(change) = change {
                    if let Change::Put(value) = change {
                        found = Some(decode_state(value).ok_or_else(malformed)?);
                    }
                    break;
                }
            }
            take(place, found);
        }
        Ok(())
    }

    /// Hands over the entries of one space from a name on, in order, until `take` has enough.
    pub(crate) fn scan(
        &self,
        version: &Version,
        node: &str,
        number: u64,
        from: (&[u8], &[u8]),
        mut take: impl FnMut(&[u8], &[u8], &[u8], i64) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut cursors = Vec::new();
        for file in version.of_node(node) {
            cursors.extend(Cursor::open(file, &self.cache, node, number, from)?);
        }
        let mut wrong = Ok(());
        merge_cursors(&mut cursors, &self.cache, |name, change| {
            let Change::Put(value) = change else { return ControlFlow::Continue(()) };
            match decode_state(value) {
                Some((value, written)) => take(name.first, name.second, value, written),
                None => {
                    wrong = Err(malformed());
                    ControlFlow::Break(())
                }
            }
        })?;
        wrong
    }

    /// Entries of a space and their bytes: what newer files hold again counts twice.
    pub(crate) fn estimate(&self, node: &str, number: u64) -> (u64, u64) {
        let version = self.version();
        let spaces = version.of_node(node).filter_map(|file| file.space(node, number));
        spaces.fold((0, 0), |(entries, bytes), space| (entries + space.entries, bytes + space.bytes))
    }
}

impl Version {
    /// The files that count for a node, the newest first.
    fn of_node<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Arc<SortedFile>> {
        let last = self.files.iter().position(|file| file.removes(node));
        self.files.iter().take(last.map_or(usize::MAX, |last| last + 1))
    }

    /// Bytes of memory that indexes and filters take.
    pub(super) fn heap_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.heap_bytes() as u64).sum()
    }
}

fn malformed() -> StoreError {
    StoreError::corrupt(std::path::Path::new("state"), 0, "an entry of state is malformed")
}
