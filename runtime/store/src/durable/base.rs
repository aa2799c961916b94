//! Bases: everything up to one sequence number, sorted, in one file.

use std::path::{Path, PathBuf};

use wasmill_env::{Disk, DiskFile, kill_point};
use wasmill_model::Epoch;

use super::StoreError;
use super::codec::{Entry, OpenSection, Reader, Table, put_varint};
use super::frame::{FRAME_HEADER_BYTES, FileKind, FrameKind, PAYLOAD_BYTES_MAX, file_header, seal};

/// Payload bytes at which a block ends.
const BLOCK_BYTES: usize = 64 << 10;

/// Writes a file of sorted entries. It has its name only once it is whole and durable.
#[derive(Debug)]
pub(super) struct BaseWriter<'a> {
    disk: &'a dyn Disk,
    path: PathBuf,
    partial: PathBuf,
    file: Box<dyn DiskFile>,
    offset: u64,
    /// The open block: room for its header, then its payload.
    block: Vec<u8>,
    section: Option<(Table, Box<str>, OpenSection)>,
    tables: Vec<(Table, u64)>,
    entries: u64,
    sequence: u64,
    epoch: u64,
}

/// The last frame of a base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseEnd {
    pub(super) entries: u64,
    /// Where the first block of each table begins.
    pub(super) tables: Vec<(Table, u64)>,
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
    file.sync_data().map_err(StoreError::io("sync", &partial))?;
    kill_point("file-synced");
    disk.rename(&partial, path).map_err(StoreError::io("rename", &partial))?;
    kill_point("file-renamed");
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(folder).map_err(StoreError::io("sync", folder))?;
    kill_point("file-named");
    Ok(())
}

impl<'a> BaseWriter<'a> {
    pub(super) fn create(
        disk: &'a dyn Disk,
        path: &Path,
        kind: FileKind,
        sequence: u64,
        epoch: u64,
    ) -> Result<Self, StoreError> {
        let mut file = create_partial(disk, path)?;
        let partial = partial(path);
        let header = file_header(kind, sequence);
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
            sequence,
            epoch,
        })
    }

    pub(super) fn push(&mut self, table: Table, node: &str, entry: &Entry<'_>) -> Result<(), StoreError> {
        if self.block.len() >= BLOCK_BYTES {
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
        let epoch = Epoch(self.epoch);
        seal(&mut self.block, kind, self.sequence, self.epoch, self.offset).ok_or(StoreError::TooLarge {
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
        put_varint(&mut self.block, self.entries);
        put_varint(&mut self.block, self.tables.len() as u64);
        for (table, offset) in &self.tables {
            self.block.push(*table as u8);
            put_varint(&mut self.block, *offset);
        }
        self.block.extend_from_slice(&self.offset.to_le_bytes());
        self.write(FrameKind::End)?;
        complete(self.disk, &self.path, &mut *self.file)?;
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
        let _place: [u8; 8] = reader.array()?;
        reader.0.is_empty().then_some(Self { entries, tables })
    }
}
