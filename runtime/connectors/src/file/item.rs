use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wasmill_contract::{BatchLimit, ConnectorError};
use wasmill_env::Clock;
use wasmill_model::{Batch, Column, ErrorKind, Lineage, PartitionId, Position};

use super::input::Head;
use crate::text::Bad;

/// Bits of a row's offset that count bytes; the number of the file stands above them.
const OFFSET_BITS: u32 = 48;

/// Which file rows come from, and what a position says about it.
#[derive(Debug, Clone)]
pub(super) struct FileMark {
    pub(super) partition: PartitionId,
    /// Its number within the partition.
    pub(super) number: u64,
    pub(super) name: Arc<str>,
    pub(super) head: Head,
    pub(super) inode: (u64, u64),
}

/// What reading found.
#[derive(Debug)]
pub(super) enum Item {
    /// Rows of one file; behind them it goes on at `next`.
    Rows { batch: Batch, file: FileMark, next: u64, progress: u64 },
    /// A bad record.
    Bad { bad: Bad, file: FileMark, next: u64, progress: u64 },
    /// A file is read to its end and not needed in positions any more.
    Left(FileMark),
    /// A partition ended.
    PartitionEnd(PartitionId),
}

impl Item {
    /// Bytes it takes, about; never 0, so that reading ahead is bounded.
    pub(super) fn byte_len(&self) -> usize {
        match self {
            Self::Rows { batch, .. } => batch.byte_len(),
            Self::Bad { bad, .. } => 1 << 10 | bad.bytes.len(),
            Self::Left(_) | Self::PartitionEnd(_) => 1 << 10,
        }
    }
}

/// Whether there is more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// At once.
    Now,
    /// Perhaps later.
    Later,
    /// Never.
    Never,
}

/// Reads files on a blocking thread.
pub(super) trait Read: Send {
    /// Reads ahead: adds items, none of which passes `limit`, until there are some.
    fn read(
        &mut self,
        limit: BatchLimit,
        clock: &dyn Clock,
        items: &mut VecDeque<Item>,
    ) -> Result<More, ConnectorError>;

    /// Where each partition starts, before anything is read.
    fn starts(&self) -> Vec<(PartitionId, Vec<FilePosition>)>;
}

/// A batch of rows that arrived now.
pub(super) fn batch_of(file: &FileMark, values: Column, mut offsets: Vec<u64>, clock: &dyn Clock) -> Batch {
    let rows = values.len();
    if file.number > 0 {
        let number = (file.number & 0xffff) << OFFSET_BITS;
        for offset in &mut offsets {
            *offset |= number;
        }
    }
    Batch::new(
        Arc::new(vec![clock.wall().0; rows]),
        Arc::new(Column::empty_rows(rows)),
        Arc::new(values),
        clock.monotonic_nanos(),
    )
    .with_lineage(Some(Lineage { partition: file.partition, offsets: Arc::new(offsets) }))
}

/// The offset of a row within its file.
pub(super) fn offset_in_file(offset: u64) -> u64 {
    offset & ((1 << OFFSET_BITS) - 1)
}

/// Where to go on in one file. JSON, so that people can read what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FilePosition {
    /// Its number within the partition.
    pub(super) number: u64,
    pub(super) file: String,
    pub(super) offset: u64,
    pub(super) head_bytes: u64,
    pub(super) head_hash: u64,
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl FilePosition {
    pub(super) fn new(mark: &FileMark, offset: u64) -> Self {
        Self {
            number: mark.number,
            file: mark.name.to_string(),
            offset,
            head_bytes: mark.head.bytes,
            head_hash: mark.head.hash,
            device: mark.inode.0,
            inode: mark.inode.1,
        }
    }

    pub(super) fn head(&self) -> Head {
        Head { bytes: self.head_bytes, hash: self.head_hash }
    }
}

/// The bytes of a position.
pub(super) fn encode<'a>(files: impl Iterator<Item = &'a FilePosition>) -> Position {
    let files: Vec<&FilePosition> = files.collect();
    Position(serde_json::to_vec(&files).expect("plain data is written to memory without fail"))
}

/// The files of a position.
pub(super) fn decode(position: &Position) -> Result<BTreeMap<u64, FilePosition>, ConnectorError> {
    let files: Vec<FilePosition> = serde_json::from_slice(&position.0).map_err(|error| {
        ConnectorError::new(ErrorKind::Corrupt, "cannot read the stored position of a file source").caused_by(error)
    })?;
    Ok(files.into_iter().map(|file| (file.number, file)).collect())
}
