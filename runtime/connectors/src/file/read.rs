use std::collections::VecDeque;
use std::path::PathBuf;

use wasmill_contract::{BatchLimit, ConnectorError};
use wasmill_env::Clock;
use wasmill_model::{ErrorKind, PartitionId};

use super::config::Compression;
use super::input::Input;
use super::item::{FileMark, FilePosition, Item, More, Read, batch_of};
use super::listing::Listed;
use crate::error::io_error;
use crate::text::{Patience, RecordReader, RowBuffer, Stop, TextFormat};

/// Bytes that are read ahead of the job, about: one batch may pass it.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Files that are open at once; further ones wait until one has ended.
const OPEN_FILES_MAX: usize = 64;

/// How the files of a source are read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) text: TextFormat,
    pub(super) compression: Option<Compression>,
}

/// A file that is being read.
pub(super) struct OpenFile {
    pub(super) mark: FileMark,
    pub(super) path: PathBuf,
    pub(super) input: Input,
    pub(super) records: RecordReader,
    /// Bytes that were read may hold more records.
    pub(super) behind: bool,
    rows: RowBuffer,
    compressed: bool,
}

impl OpenFile {
    /// Opens `file` at the position that names it, or at its start.
    pub(super) fn open(
        partition: PartitionId,
        number: u64,
        file: &Listed,
        from: Option<&FilePosition>,
        reading: &Reading,
    ) -> Result<Self, ConnectorError> {
        let mut input = Input::open(&file.path, reading.compression)?;
        let mut records = RecordReader::new(&reading.text, 0);
        if let Some(from) = from.filter(|from| from.offset > 0) {
            let fail = |error| io_error("read", &file.path, error);
            if !input.begins_as(from.head()).map_err(fail)? {
                let message = format!(
                    "cannot go on reading {} at byte {}: its first {} bytes are not those that were read before; \
                     put the old file back or start the job anew",
                    file.path.display(),
                    from.offset,
                    from.head_bytes
                );
                return Err(ConnectorError::new(ErrorKind::Corrupt, message));
            }
            if reading.text.has_header() {
                // A limit of no rows stops right behind the header.
                let header = BatchLimit { rows: 0, bytes: 0 };
                records
                    .fill(&mut input, &mut RowBuffer::default(), header, Patience { last: true, eager: false })
                    .map_err(fail)?;
                input = Input::open(&file.path, reading.compression)?;
            }
            input.seek(from.offset, &file.path)?;
            records.seek(from.offset);
        }
        let mark =
            FileMark { partition, number, name: file.name.as_str().into(), head: input.head, inode: input.inode };
        let compressed = input.is_compressed();
        Ok(Self {
            mark,
            path: file.path.clone(),
            input,
            records,
            behind: false,
            rows: RowBuffer::default(),
            compressed,
        })
    }

    /// Adds a batch of rows, and a bad record that stopped it. Returns false where the file has no
    /// more. With `last`, bytes behind the last newline are a record.
    pub(super) fn read(
        &mut self,
        limit: BatchLimit,
        last: bool,
        clock: &dyn Clock,
        items: &mut VecDeque<Item>,
    ) -> Result<bool, ConnectorError> {
        let stop = self
            .records
            .fill(&mut self.input, &mut self.rows, limit, Patience { last, eager: false })
            .map_err(|error| io_error("read", &self.path, error))?;
        let position = self.records.position();
        let progress = if self.compressed { self.input.raw() } else { position };
        if !self.rows.is_empty() {
            let (values, offsets) = self.rows.take();
            let next = match &stop {
                Stop::Bad(bad) => bad.offset,
                _ => position,
            };
            let batch = batch_of(&self.mark, values, offsets, clock);
            items.push_back(Item::Rows { batch, file: self.mark.clone(), next, progress });
        }
        match stop {
            Stop::Full => Ok(true),
            Stop::Bad(bad) => {
                items.push_back(Item::Bad { bad, file: self.mark.clone(), next: position, progress });
                Ok(true)
            }
            Stop::Dry => Ok(false),
        }
    }
}

/// A partition that ends: files one after the other.
pub(super) struct Lane {
    partition: PartitionId,
    number: u64,
    files: VecDeque<Listed>,
    from: Option<FilePosition>,
    open: Option<OpenFile>,
}

impl Lane {
    /// A partition of `files`, of which those in front of the one that `from` names were read.
    pub(super) fn new(
        partition: PartitionId,
        mut files: VecDeque<Listed>,
        from: Option<FilePosition>,
    ) -> Result<Self, ConnectorError> {
        let mut number = 0;
        if let Some(from) = &from {
            number = from.number;
            files.retain(|file| file.name >= from.file);
            if files.front().is_none_or(|file| file.name != from.file) {
                let message = format!("cannot go on reading {}: there is no such file any more", from.file);
                return Err(ConnectorError::new(ErrorKind::Config, message));
            }
        }
        Ok(Self { partition, number, files, from, open: None })
    }

    /// Adds a batch. Returns false where the partition has no more.
    fn read(
        &mut self,
        limit: BatchLimit,
        reading: &Reading,
        clock: &dyn Clock,
        items: &mut VecDeque<Item>,
    ) -> Result<bool, ConnectorError> {
        if self.open.is_none() {
            let Some(file) = self.files.pop_front() else { return Ok(false) };
            self.open = Some(OpenFile::open(self.partition, self.number, &file, self.from.take().as_ref(), reading)?);
            self.number += 1;
        }
        let Some(open) = &mut self.open else { return Ok(false) };
        if open.read(limit, true, clock, items)? {
            return Ok(true);
        }
        let more = !self.files.is_empty();
        // The last file stays in the position: a restart finds that it was read.
        if let Some(read) = self.open.take().filter(|_| more) {
            items.push_back(Item::Left(read.mark));
        }
        Ok(more)
    }
}

/// Reads partitions that end, side by side: a batch of one, a batch of the next.
pub(super) struct SideBySide {
    reading: Reading,
    active: VecDeque<Lane>,
    waiting: VecDeque<Lane>,
}

impl SideBySide {
    pub(super) fn new(reading: Reading, mut lanes: VecDeque<Lane>) -> Self {
        let waiting = lanes.split_off(lanes.len().min(OPEN_FILES_MAX));
        Self { reading, active: lanes, waiting }
    }
}

impl Read for SideBySide {
    fn read(
        &mut self,
        limit: BatchLimit,
        clock: &dyn Clock,
        items: &mut VecDeque<Item>,
    ) -> Result<More, ConnectorError> {
        let mut bytes = 0;
        while bytes < READ_AHEAD_BYTES {
            let Some(mut lane) = self.active.pop_front() else { return Ok(More::Never) };
            let before = items.len();
            if lane.read(limit, &self.reading, clock, items)? {
                self.active.push_back(lane);
            } else {
                items.push_back(Item::PartitionEnd(lane.partition));
                self.active.extend(self.waiting.pop_front());
            }
            bytes += items.range(before..).map(Item::byte_len).sum::<usize>();
        }
        Ok(More::Now)
    }

    fn starts(&self) -> Vec<(PartitionId, Vec<FilePosition>)> {
        self.active
            .iter()
            .chain(&self.waiting)
            .map(|lane| (lane.partition, lane.from.iter().cloned().collect()))
            .collect()
    }
}
