//! Sorted files: a base holds everything up to one sequence number, a layer what frames from one
//! sequence number to another have changed.

use std::path::{Path, PathBuf};

use wasmill_env::{Disk, DiskFile, PacedFile, kill_point, planted};
use wasmill_model::Epoch;

use super::StoreError;
use super::codec::{Entry, OpenSection, Reader, Table, put_varint};
use super::filter::{FilterBuilder, state_hash};
use super::frame::{FRAME_HEADER_BYTES, FileKind, FrameKind, PAYLOAD_BYTES_MAX, file_header, seal};
use super::index::IndexBuilder;

/// Payload bytes at which a block ends. One that is not in memory costs what reading, checking and
/// parsing all of it costs, for a single entry mostly.
const BLOCK_BYTES: usize = 4 << 10;

/// Writes a file of sorted entries. It has its name only once it is whole and durable.
#[derive(Debug)]
pub(super) struct BaseWriter<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    partial: PathBuf,
    file: PacedFile,
    offset: u64,
    /// The open block: room for its header, then its payload.
    block: Vec<u8>,
    section: Option<(Table, Box<str>, OpenSection)>,
    tables: Vec<(Table, u64)>,
    entries: u64,
    span: Span,
    index: IndexBuilder,
    filter: FilterBuilder,
}

/// The frames that a sorted file folds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The first sequence number: 1 for a base.
    pub(super) from: u64,
    /// The last.
    pub(super) to: u64,
    /// The last epoch.
    pub(super) epoch: u64,
}

/// The last frame of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseEnd {
    pub(super) entries: u64,
    /// Where the first block of each table begins.
    pub(super) tables: Vec<(Table, u64)>,
    /// The first sequence number that the file folds.
    pub(super) from: u64,
    /// Where the frames of index and filter begin.
    pub(super) index: u64,
    pub(super) filter: u64,
}

pub(crate) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Removes a file, which may be gone already.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    match disk.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Begins a file under a name that says it is not whole, in place of one left there before.
pub(crate) fn create_partial(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskFile>, StoreError> {
    let partial = partial(path);
    remove(disk, &partial)?;
    disk.create(&partial).map_err(StoreError::io("create", &partial))
}

/// Makes a partial file durable and gives it its name, durably.
pub(crate) fn complete(disk: &dyn Disk, path: &Path, file: &mut dyn DiskFile) -> Result<(), StoreError> {
    let partial = partial(path);
    kill_point("file-written");
    if !planted("rename-before-sync") {
        file.sync_data().map_err(StoreError::io("sync", &partial))?;
    }
    kill_point("file-synced");
    disk.rename(&partial, path).map_err(StoreError::io("rename", &partial))?;
    kill_point("file-renamed");
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !planted("name-not-synced") {
        disk.sync_dir(folder).map_err(StoreError::io("sync", folder))?;
    }
    kill_point("file-named");
    Ok(())
}

impl<'a> BaseWriter<'a> {
    /// `filter` knows how many entries of state come at most, 0 for no filter.
    pub(super) fn create(
        disk: &'a dyn Disk,
        path: &Path,
        kind: FileKind,
        span: Span,
        filter: FilterBuilder,
    ) -> Result<Self, StoreError> {
        let mut file = PacedFile::new(create_partial(disk, path)?);
        let partial = partial(path);
        let header = file_header(kind, span.to);
        file.append(&header).map_err(StoreError::io("write", &partial))?;
        Ok(Self {
            disk,
            path: path.to_owned(),
            partial,
            file,
            offset: header.len() as u64,
            block: vec![0; FRAME_HEADER_BYTES],
            section: None,
            tables: Vec::new(),
            entries: 0,
            span,
            index: IndexBuilder::default(),
            filter,
        })
    }

    pub(super) fn push(&mut self, table: Table, node: &str, entry: &Entry<'_>) -> Result<(), StoreError> {
        let space_ends = table == Table::State && !self.index.is_in(node, entry.name.number);
        if self.block.len() >= BLOCK_BYTES || space_ends {
            self.end_block()?;
        }
        let open = self.section.as_ref().map(|(table, node, _)| (*table, &**node));
        if open != Some((table, node)) {
            if open.is_some_and(|(open, _)| open != table) {
                self.end_block()?;
            }
            self.end_section();
            if self.tables.last().is_none_or(|(last, _)| *last != table) {
                self.tables.push((table, self.offset));
            }
            self.section = Some((table, node.into(), OpenSection::begin(&mut self.block, table, node)));
        }
        if let Some((.., section)) = &mut self.section {
            section.push(&mut self.block, entry);
        }
        self.entries += 1;
        if table == Table::State {
            self.index.push(node, entry, self.offset);
            self.filter.insert(state_hash(node, entry.name));
        }
        Ok(())
    }

    fn end_section(&mut self) {
        if let Some((.., section)) = self.section.take() {
            section.end(&mut self.block);
        }
    }

    fn end_block(&mut self) -> Result<(), StoreError> {
        self.end_section();
        if self.block.len() > FRAME_HEADER_BYTES {
            self.write(FrameKind::Block)?;
        }
        Ok(())
    }

    fn write(&mut self, kind: FrameKind) -> Result<(), StoreError> {
        let (bytes, max) = (self.block.len() as u64, PAYLOAD_BYTES_MAX);
        let epoch = Epoch(self.span.epoch);
        seal(&mut self.block, kind, self.span.to, self.span.epoch, self.offset).ok_or(StoreError::TooLarge {
            epoch,
            bytes,
            max,
        })?;
        self.file.append(&self.block).map_err(StoreError::io("write", &self.partial))?;
        kill_point("compaction-block");
        self.offset += bytes;
        self.block.truncate(FRAME_HEADER_BYTES);
        Ok(())
    }

    /// Makes the file whole and durable under its name. Returns its length.
    pub(super) fn finish(mut self) -> Result<u64, StoreError> {
        self.end_block()?;
        let index = self.offset;
        self.index.encode(&mut self.block);
        self.write(FrameKind::Index)?;
        let filter = self.offset;
        self.filter.encode(&mut self.block);
        self.write(FrameKind::Filter)?;
        put_varint(&mut self.block, self.entries);
        put_varint(&mut self.block, self.tables.len() as u64);
        for (table, offset) in &self.tables {
            self.block.push(*table as u8);
            put_varint(&mut self.block, *offset);
        }
        for number in [self.span.from, index, filter] {
            put_varint(&mut self.block, number);
        }
        self.block.extend_from_slice(&self.offset.to_le_bytes());
        self.write(FrameKind::End)?;
        complete(self.disk, &self.path, &mut self.file)?;
        Ok(self.offset)
    }
}

impl BaseEnd {
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let entries = reader.varint()?;
        let count = reader.varint()?;
        let mut tables = Vec::new();
        for _ in 0..count {
            tables.push((Table::from_byte(reader.byte()?)?, reader.varint()?));
        }
        let (from, index, filter) = (reader.varint()?, reader.varint()?, reader.varint()?);
        let _place: [u8; 8] = reader.array()?;
        reader.0.is_empty().then_some(Self { entries, tables, from, index, filter })
    }
}
