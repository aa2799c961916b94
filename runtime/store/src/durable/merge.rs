//! Many changes to what they leave: the newest of each entry.
//!
//! Changes come in sorted sources. The newest source is merged first among equals; a base is the
//! oldest. A chunk of the log becomes a source by sorting references to its entries.

use std::cmp::Ordering;
use std::path::Path;

use wasmill_env::Disk;

use super::StoreError;
use super::base::BaseEnd;
use super::codec::{Change, Entry, Name, Owner, Reader, Table};
use super::frame::{FileKind, Found, FrameKind, FrameReader};
use super::index::prefix;

/// Bytes that the sorted reference to an entry takes, besides the entry.
pub(super) const REFERENCE_BYTES: u64 = size_of::<Reference>() as u64;

/// Payloads of frames, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    payloads: Vec<Vec<u8>>,
    streams: Vec<(Table, Box<str>)>,
    references: Vec<Reference>,
    bytes: u64,
}

/// Where an entry stands, with the front of its name.
#[derive(Debug, Clone, Copy)]
struct Reference {
    number: u64,
    prefix: u64,
    stream: u32,
    payload: u32,
    at: u32,
}

impl Chunk {
    /// Takes a payload in. `None` where it is no payload.
    pub(super) fn push(&mut self, payload: Vec<u8>) -> Option<()> {
        let place = u32::try_from(self.payloads.len()).ok()?;
        let mut reader = Reader(&payload);
        while !reader.0.is_empty() {
            let mut section = reader.section()?;
            let known =
                self.streams.iter().position(|(table, node)| (*table, &**node) == (section.table, section.node));
            let stream = known.unwrap_or_else(|| {
                self.streams.push((section.table, section.node.into()));
                self.streams.len() - 1
            });
            let end = payload.len() - reader.0.len();
            for _ in 0..section.count {
                let at = (end - section.entries.0.len()) as u32;
                let Entry { name, .. } = section.entries.entry()?;
                let (stream, prefix) = (stream as u32, prefix(name.first));
                self.references.push(Reference { number: name.number, prefix, stream, payload: place, at });
            }
            if !section.entries.0.is_empty() {
                return None;
            }
        }
        self.bytes += payload.len() as u64;
        self.payloads.push(payload);
        Some(())
    }

    /// Entries pushed.
    pub(super) fn entries(&self) -> u64 {
        self.references.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes + self.references.len() as u64 * REFERENCE_BYTES
    }

    /// The payload pushed last.
    pub(super) fn last(&self) -> Option<&[u8]> {
        self.payloads.last().map(Vec::as_slice)
    }

    fn entry(&self, reference: Reference) -> Option<Entry<'_>> {
        Reader(self.payloads.get(reference.payload as usize)?.get(reference.at as usize..)?).entry()
    }

    /// Sorts, and keeps the newest change of each entry.
    pub(super) fn into_source(mut self) -> Source {
        let mut ranks: Vec<u32> = (0..self.streams.len() as u32).collect();
        ranks.sort_by(|&a, &b| self.streams[a as usize].cmp(&self.streams[b as usize]));
        let streams = ranks.iter().map(|&stream| self.streams[stream as usize].clone()).collect();
        let mut place = vec![0; ranks.len()];
        for (rank, &stream) in (0..).zip(&ranks) {
            place[stream as usize] = rank;
        }
        self.streams = streams;
        let mut references = std::mem::take(&mut self.references);
        for reference in &mut references {
            reference.stream = place[reference.stream as usize];
        }
        references.sort_unstable_by(|a, b| {
            let quick = (a.stream, a.number, a.prefix).cmp(&(b.stream, b.number, b.prefix));
            // Entries were read once, so they are there.
            let name =
                |reference: &Reference| self.entry(*reference).map(|entry| (entry.name.first, entry.name.second));
            quick.then_with(|| name(a).cmp(&name(b))).then(b.payload.cmp(&a.payload)).then(b.at.cmp(&a.at))
        });
        let mut removals = vec![None; self.streams.len()];
        let stream = |reference: &Reference| &self.streams[reference.stream as usize];
        for removal in references.iter().take_while(|reference| stream(reference).0 == Table::Removed) {
            let of_node = removals.iter_mut().zip(&self.streams).filter(|(_, (_, node))| *node == stream(removal).1);
            of_node.for_each(|(last, _)| *last = Some(removal.payload).max(*last));
        }
        let mut kept = Vec::with_capacity(references.len());
        let mut drops: Vec<(u32, Owner)> = Vec::new();
        let mut last: Option<(u32, Name<'_>)> = None;
        let mut number = None;
        for reference in references {
            let Some(entry) = self.entry(reference) else { continue };
            if number != Some((reference.stream, reference.number)) {
                number = Some((reference.stream, reference.number));
                drops.clear();
            }
            if let Change::AllGone(owner) = entry.change {
                // The newest drop of a share comes first, and covers what older ones do.
                if !drops.iter().any(|(_, other)| *other == owner) {
                    drops.push((reference.payload, owner));
                    kept.push(reference);
                }
                continue;
            }
            if last == Some((reference.stream, entry.name)) {
                continue;
            }
            last = Some((reference.stream, entry.name));
            let hidden = |(payload, owner): &(u32, Owner)| *payload > reference.payload && owner.owns(entry.name.first);
            let removed = removals[reference.stream as usize].is_some_and(|removal| removal > reference.payload);
            if !removed && !drops.iter().any(hidden) {
                kept.push(reference);
            }
        }
        self.references = kept;
        Source::Memory { chunk: self, next: 0 }
    }
}

/// Entries in order.
#[derive(Debug)]
pub(super) enum Source {
    Memory { chunk: Chunk, next: usize },
    File(FileSource),
}

impl Source {
    fn head(&self) -> Option<(Table, &str, Entry<'_>)> {
        match self {
            Self::Memory { chunk, next } => {
                let reference = *chunk.references.get(*next)?;
                let (table, node) = &chunk.streams[reference.stream as usize];
                Some((*table, node, chunk.entry(reference)?))
            }
            Self::File(file) => file.head(),
        }
    }

    fn advance(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Memory { next, .. } => {
                *next += 1;
                Ok(())
            }
            Self::File(file) => file.advance(),
        }
    }

    /// Everything, sorted, with what is gone.
    pub(super) fn each(
        mut self,
        mut take: impl FnMut(Table, &str, &Entry<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        while let Some((table, node, entry)) = self.head() {
            take(table, node, &entry)?;
            self.advance()?;
        }
        Ok(())
    }
}

/// A sorted file, block by block.
#[derive(Debug)]
pub(super) struct FileSource {
    reader: FrameReader,
    payload: Vec<u8>,
    /// Where the sections that follow begin.
    sections_at: usize,
    table: Table,
    node: Box<str>,
    /// Entries of the section that follow, with where they begin.
    entries: u32,
    entry_at: usize,
    entry_len: usize,
    /// Entries so far, where all are read.
    seen: Option<u64>,
    /// Places between which nothing is read.
    skip: Option<(u64, u64)>,
    ended: bool,
}

impl FileSource {
    pub(super) fn open(disk: &dyn Disk, path: &Path, kind: FileKind, offset: Option<u64>) -> Result<Self, StoreError> {
        let mut reader = FrameReader::open(disk, path, kind)?;
        if let Some(offset) = offset.filter(|offset| *offset >= reader.offset && *offset <= reader.len) {
            reader.offset = offset;
        }
        let mut source = Self::new(reader);
        source.seen = offset.is_none().then_some(0);
        source.step()?;
        Ok(source)
    }

    /// Everything but the state of operators.
    pub(super) fn open_without_state(disk: &dyn Disk, path: &Path, kind: FileKind) -> Result<Self, StoreError> {
        let mut source = Self::new(FrameReader::open(disk, path, kind)?);
        let (_, end, _) = source.read_end()?;
        let start = |place: usize| end.tables.get(place).map(|(_, offset)| *offset);
        source.skip = end.tables.iter().position(|(table, _)| *table == Table::State).and_then(|place| {
            let behind = start(place + 1).unwrap_or(end.index);
            start(place).filter(|start| *start <= behind).map(|start| (start, behind))
        });
        source.step()?;
        Ok(source)
    }

    fn new(reader: FrameReader) -> Self {
        Self {
            reader,
            payload: Vec::new(),
            sections_at: 0,
            table: Table::Counters,
            node: "".into(),
            entries: 0,
            entry_at: 0,
            entry_len: 0,
            seen: None,
            skip: None,
            ended: false,
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.reader.sequence
    }

    /// Reads the last frame without what stands before it: the epoch, what the end says, and the
    /// bytes of the file.
    pub(super) fn read_end(&self) -> Result<(u64, BaseEnd, u64), StoreError> {
        let (header, payload) = self.reader.last()?;
        let malformed = || self.reader.corrupt("the last frame was expected to be that of a base");
        let end = BaseEnd::decode(&payload).filter(|_| header.kind == FrameKind::End).ok_or_else(malformed)?;
        Ok((header.epoch, end, self.reader.len))
    }

    pub(super) fn head(&self) -> Option<(Table, &str, Entry<'_>)> {
        if self.entry_len == 0 {
            return None;
        }
        let entry = Reader(self.payload.get(self.entry_at..)?).entry()?;
        Some((self.table, &self.node, entry))
    }

    pub(super) fn advance(&mut self) -> Result<(), StoreError> {
        self.entry_at += self.entry_len;
        self.step()
    }

    /// Finds the entry at or behind this place.
    fn step(&mut self) -> Result<(), StoreError> {
        self.entry_len = 0;
        if self.ended {
            return Ok(());
        }
        while self.entries == 0 {
            if self.sections_at < self.payload.len() {
                let malformed = "an entry was expected in the block before";
                let mut rest = Reader(&self.payload[self.sections_at..]);
                let Some(section) = rest.section() else { return Err(self.reader.corrupt(malformed)) };
                self.table = section.table;
                if *self.node != *section.node {
                    self.node = section.node.into();
                }
                self.entries = section.count;
                self.sections_at = self.payload.len() - rest.0.len();
                self.entry_at = self.sections_at - section.entries.0.len();
            } else if !self.next_block()? {
                return Ok(());
            }
        }
        let rest = self.payload.get(self.entry_at..self.sections_at).unwrap_or_default();
        let mut reader = Reader(rest);
        if reader.entry().is_none() {
            return Err(self.reader.corrupt("an entry was expected in the block before"));
        }
        self.entry_len = rest.len() - reader.0.len();
        self.entries -= 1;
        self.seen = self.seen.map(|seen| seen + 1);
        Ok(())
    }

    fn next_block(&mut self) -> Result<bool, StoreError> {
        self.sections_at = 0;
        if let Some((_, behind)) = self.skip.filter(|(start, _)| *start == self.reader.offset) {
            self.reader.offset = behind;
        }
        let mut found = self.reader.next(&mut self.payload)?;
        while let Found::Frame(header) = found
            && matches!(header.kind, FrameKind::Index | FrameKind::Filter)
        {
            found = self.reader.next(&mut self.payload)?;
        }
        match found {
            Found::Frame(header) if header.kind == FrameKind::Block => Ok(true),
            Found::Frame(header) if header.kind == FrameKind::End => {
                if self.reader.offset != self.reader.len {
                    return Err(self.reader.corrupt("the file was expected to end here"));
                }
                let end = BaseEnd::decode(&self.payload);
                if end.is_none_or(|end| self.seen.is_some_and(|seen| seen != end.entries)) {
                    return Err(self.reader.corrupt("the frame before counts other entries than there are"));
                }
                self.payload.clear();
                self.ended = true;
                Ok(false)
            }
            Found::Frame(_) => Err(self.reader.corrupt("a block was expected in the frame before")),
            Found::End => Err(self.reader.corrupt("the file ends where a frame was expected")),
            Found::Damaged(reason) => Err(self.reader.corrupt(reason)),
        }
    }
}

/// Puts sources together, the newest first, and hands over every entry that has a value.
///
/// # Errors
/// Where a source cannot be read, or `take` fails.
pub(super) fn merge(
    sources: &mut [Source],
    mut take: impl FnMut(Table, &str, &Name<'_>, &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    merge_changes(sources, |table, node, entry| match entry.change {
        Change::Put(value) => take(table, node, &entry.name, value),
        Change::Gone | Change::AllGone(_) => Ok(()),
    })
}

/// Puts sources together, the newest first, and hands over the newest change of every entry, with
/// what is gone: for what older files hold.
///
/// # Errors
/// As [`merge`].
pub(super) fn merge_changes(
    sources: &mut [Source],
    mut take: impl FnMut(Table, &str, &Entry<'_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut removed: Vec<(usize, Box<str>)> = Vec::new();
    let mut drops: Vec<(usize, Owner)> = Vec::new();
    let mut number: Option<(Table, Box<str>, u64)> = None;
    let mut same = Vec::with_capacity(sources.len());
    loop {
        same.clear();
        let mut least: Option<(Table, &str, Entry<'_>)> = None;
        for (rank, source) in sources.iter().enumerate() {
            let Some(head) = source.head() else { continue };
            let order = least.map_or(Ordering::Less, |(table, node, entry)| {
                (head.0, head.1, head.2.name).cmp(&(table, node, entry.name))
            });
            if order.is_lt() {
                same.clear();
                least = Some(head);
            }
            if order.is_le() {
                same.push(rank);
            }
        }
        let (Some((table, node, Entry { name, change })), Some(&newest)) = (least, same.first()) else {
            return Ok(());
        };
        if !drops.is_empty() && number.as_ref().is_some_and(|(t, n, at)| (*t, &**n, *at) != (table, node, name.number))
        {
            drops.clear();
        }
        if let Change::AllGone(owner) = change {
            // Several shares may have dropped the same number: one source at a time.
            same.truncate(1);
            if drops.is_empty() {
                number = Some((table, node.into(), name.number));
            }
            // The newest drop of a share comes first, and covers what older ones do.
            if !drops.iter().any(|(_, other)| *other == owner) {
                take(table, node, &Entry { name, change })?;
                drops.push((newest, owner));
            }
        } else {
            let hidden = |(rank, owner): &(usize, Owner)| *rank < newest && owner.owns(name.first);
            let removed_later = removed.iter().any(|(rank, other)| *rank < newest && **other == *node);
            let gone = removed_later && table != Table::Removed;
            if !gone && !drops.iter().any(hidden) {
                take(table, node, &Entry { name, change })?;
            }
            if table == Table::Removed {
                removed.push((newest, node.into()));
            }
        }
        for &rank in &same {
            sources[rank].advance()?;
        }
    }
}
