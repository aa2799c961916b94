//! Sorted files as something to look entries of state up in: block by block, through a cache.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use wasmill_env::Disk;

use super::StoreError;
use super::base::{BaseEnd, Span};
use super::codec::{Change, Entry, Name, Reader, Table};
use super::filter::Filter;
use super::frame::{FileKind, Found, FrameKind, FrameReader};
use super::index::{Index, SpaceIndex};
use super::merge::FileSource;

/// Blocks of state in memory, of all files.
pub(super) type BlockCache = Cache<(u64, u64), Arc<Block>, BlockBytes>;

#[derive(Debug, Clone)]
pub(super) struct BlockBytes;

impl Weighter<(u64, u64), Arc<Block>> for BlockBytes {
    fn weight(&self, _place: &(u64, u64), block: &Arc<Block>) -> u64 {
        (block.payload.len() + block.entries.len() * 4 + 128) as u64
    }
}

/// A block of state, checked: every entry in it can be read.
#[derive(Debug)]
pub(super) struct Block {
    payload: Vec<u8>,
    /// Where entries begin.
    entries: Vec<u32>,
}

impl Block {
    /// `None` where the payload is something else than state of this space.
    fn new(payload: Vec<u8>, node: &str, number: u64) -> Option<Self> {
        let mut reader = Reader(&payload);
        let mut section = reader.section()?;
        if section.table != Table::State || section.node != node || section.count == 0 || !reader.0.is_empty() {
            return None;
        }
        let mut entries = Vec::with_capacity(section.count as usize);
        for _ in 0..section.count {
            entries.push((payload.len() - section.entries.0.len()) as u32);
            let entry = section.entries.entry()?;
            if entry.name.number != number {
                return None;
            }
        }
        section.entries.0.is_empty().then_some(())?;
        Some(Self { payload, entries })
    }

    #[inline]
    fn entry(&self, place: usize) -> Option<Entry<'_>> {
        Reader(self.payload.get(*self.entries.get(place)? as usize..)?).entry()
    }

    /// The place of the first entry at or behind a name.
    #[inline]
    fn place(&self, first: &[u8], second: &[u8]) -> usize {
        self.entries.partition_point(|&at| {
            let name = Reader(&self.payload[at as usize..]).entry().map(|entry| entry.name);
            name.is_some_and(|name| (name.first, name.second) < (first, second))
        })
    }

    /// The change of an entry, if the block has it.
    #[inline]
    pub(super) fn find(&self, first: &[u8], second: &[u8]) -> Option<Change<'_>> {
        let entry = self.entry(self.place(first, second))?;
        (entry.name.first == first && entry.name.second == second).then_some(entry.change)
    }
}

/// Tells files apart in the cache of blocks.
static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

/// A base or a layer whose state can be looked up.
#[derive(Debug)]
pub(super) struct SortedFile {
    id: u64,
    path: PathBuf,
    reader: FrameReader,
    index: Index,
    filter: Filter,
    /// Nodes of which older files hold nothing that counts.
    removed: Vec<Box<str>>,
    pub(super) span: Span,
}

impl SortedFile {
    pub(super) fn open(disk: &dyn Disk, path: &Path, kind: FileKind) -> Result<Self, StoreError> {
        let reader = FrameReader::open(disk, path, kind)?;
        let (header, end) = reader.last()?;
        let damaged = |offset, reason: &str| StoreError::corrupt(path, offset, reason);
        let end = BaseEnd::decode(&end).filter(|_| header.kind == FrameKind::End);
        let end = end.ok_or_else(|| damaged(reader.len, "the last frame was expected to be that of a sorted file"))?;
        let frame = |offset: u64, kind: FrameKind| {
            let mut payload = Vec::new();
            match reader.at(offset, &mut payload)? {
                Found::Frame(header) if header.kind == kind => Ok(payload),
                Found::Frame(_) => Err(damaged(offset, "another kind of frame was expected here")),
                Found::End => Err(damaged(offset, "the file ends where a frame was expected")),
                Found::Damaged(reason) => Err(damaged(offset, reason)),
            }
        };
        let index = Index::decode(&frame(end.index, FrameKind::Index)?);
        let index = index.ok_or_else(|| damaged(end.index, "an index was expected in this frame"))?;
        let filter = Filter::new(frame(end.filter, FrameKind::Filter)?);
        let filter = filter.ok_or_else(|| damaged(end.filter, "a filter was expected in this frame"))?;
        let mut removed = Vec::new();
        if end.tables.first().is_some_and(|(table, _)| *table == Table::Removed) {
            let mut head = FileSource::open(disk, path, kind, None)?;
            while let Some((Table::Removed, node, _)) = head.head() {
                removed.push(node.into());
                head.advance()?;
            }
        }
        let span = Span { from: end.from, to: reader.sequence, epoch: header.epoch };
        let id = NEXT_FILE.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, path: path.to_owned(), reader, index, filter, removed, span })
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.index.heap_bytes() + self.filter.bytes()
    }

    pub(super) fn space(&self, node: &str, number: u64) -> Option<&SpaceIndex> {
        self.index.space(node, number)
    }

    pub(super) fn removes(&self, node: &str) -> bool {
        self.removed.iter().any(|removed| **removed == *node)
    }

    #[inline]
    pub(super) fn may_have(&self, hash: u64) -> bool {
        self.filter.may_have(hash)
    }

    /// A block of a space, from the cache or from disk.
    pub(super) fn block(
        &self,
        cache: &BlockCache,
        space: &SpaceIndex,
        node: &str,
        number: u64,
        block: usize,
    ) -> Result<Option<Arc<Block>>, StoreError> {
        let Some(offset) = space.offset(block) else { return Ok(None) };
        let place = (self.id, offset);
        if let Some(block) = cache.get(&place) {
            return Ok(Some(block));
        }
        let mut payload = Vec::new();
        let damaged = |reason: &str| StoreError::corrupt(&self.path, offset, reason);
        match self.reader.at(offset, &mut payload)? {
            Found::Frame(header) if header.kind == FrameKind::Block => {}
            Found::Frame(_) => return Err(damaged("a block was expected here")),
            Found::End => return Err(damaged("the file ends where a block was expected")),
            Found::Damaged(reason) => return Err(damaged(reason)),
        }
        let block = Block::new(payload, node, number);
        let block = Arc::new(block.ok_or_else(|| damaged("state of another space was expected in this block"))?);
        cache.insert(place, Arc::clone(&block));
        Ok(Some(block))
    }
}

/// Goes through one space of one file, in order.
pub(super) struct Cursor<'a> {
    file: &'a SortedFile,
    space: &'a SpaceIndex,
    node: &'a str,
    number: u64,
    next_block: usize,
    block: Option<Arc<Block>>,
    place: usize,
}

impl<'a> Cursor<'a> {
    /// At the first entry at or behind a name.
    pub(super) fn open(
        file: &'a SortedFile,
        cache: &BlockCache,
        node: &'a str,
        number: u64,
        (first, second): (&[u8], &[u8]),
    ) -> Result<Option<Self>, StoreError> {
        let Some(space) = file.space(node, number) else { return Ok(None) };
        let at = space.block_of(first, second);
        let block = file.block(cache, space, node, number, at)?;
        let place = block.as_ref().map_or(0, |block| block.place(first, second));
        let mut cursor = Self { file, space, node, number, next_block: at + 1, block, place };
        cursor.settle(cache)?;
        Ok(Some(cursor))
    }

    fn head(&self) -> Option<Entry<'_>> {
        self.block.as_ref()?.entry(self.place)
    }

    fn advance(&mut self, cache: &BlockCache) -> Result<(), StoreError> {
        self.place += 1;
        self.settle(cache)
    }

    fn settle(&mut self, cache: &BlockCache) -> Result<(), StoreError> {
        if self.block.as_ref().is_some_and(|block| self.place >= block.entries.len()) {
            self.block = self.file.block(cache, self.space, self.node, self.number, self.next_block)?;
            self.next_block += 1;
            self.place = 0;
        }
        Ok(())
    }
}

/// Hands over the newest change of every entry, in order, until `take` has enough. `cursors` stand
/// newest first.
pub(super) fn merge_cursors(
    cursors: &mut [Cursor<'_>],
    cache: &BlockCache,
    mut take: impl FnMut(Name<'_>, Change<'_>) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let mut same = Vec::with_capacity(cursors.len());
    loop {
        same.clear();
        let mut least: Option<Entry<'_>> = None;
        for (rank, cursor) in cursors.iter().enumerate() {
            let Some(head) = cursor.head() else { continue };
            let order = least.map_or(std::cmp::Ordering::Less, |least| head.name.cmp(&least.name));
            if order.is_lt() {
                same.clear();
                least = Some(head);
            }
            if order.is_le() {
                same.push(rank);
            }
        }
        let Some(entry) = least else { return Ok(()) };
        if take(entry.name, entry.change).is_break() {
            return Ok(());
        }
        for &rank in &same {
            cursors[rank].advance(cache)?;
        }
    }
}
