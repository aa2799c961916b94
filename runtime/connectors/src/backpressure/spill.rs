//! Batches that wait on disk: written at the end, read at the front, once, in order.
//!
//! # Crash consistency
//! None: what waits here was read from a source and is not committed. A new run removes what it
//! finds.
//!
//! # Files
//! `spill-NUMBER`, each at most an eighth of the bound plus one batch; one that is read through is
//! removed. Each batch is its length (u32), the time at which it arrived (u64), and its bytes ([`encode_batch`]).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmill_contract::ConnectorError;
use wasmill_env::{Disk, DiskFile};
use wasmill_model::{Batch, ErrorKind};
use wasmill_store::{decode_batch, encode_batch};

use crate::error::io_error;

/// The files of one reader.
#[derive(Debug)]
pub(super) struct Spill {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes_max: u64,
    segments: VecDeque<Segment>,
    next: u64,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    written: u64,
    read: u64,
}

impl Spill {
    /// Takes a folder, and removes what an earlier run has left there. Blocks.
    pub(super) fn open(disk: Arc<dyn Disk>, dir: &Path, bytes_max: u64) -> Result<Self, ConnectorError> {
        disk.create_dir_all(dir).map_err(|error| io_error("create", dir, error))?;
        for name in disk.list(dir).map_err(|error| io_error("list", dir, error))? {
            if name.starts_with("spill-") {
                let path = dir.join(name);
                disk.remove(&path).map_err(|error| io_error("remove", &path, error))?;
            }
        }
        let segments = VecDeque::new();
        Ok(Self { disk, dir: dir.to_owned(), segment_bytes_max: (bytes_max / 8).max(1), segments, next: 0 })
    }

    /// Writes a batch at the end. Blocks.
    pub(super) fn push(&mut self, batch: &Batch) -> Result<(), ConnectorError> {
        let mut bytes = vec![0; 4];
        bytes.extend(batch.arrived_nanos().to_le_bytes());
        encode_batch(batch, &mut bytes);
        // A batch is bounded far below 4 GiB.
        let length = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        let full = |segment: &Segment| segment.written >= self.segment_bytes_max;
        if self.segments.back().is_none_or(full) {
            let path = self.dir.join(format!("spill-{}", self.next));
            self.next += 1;
            let file = self.disk.create(&path).map_err(|error| io_error("create", &path, error))?;
            self.segments.push_back(Segment { path, file, written: 0, read: 0 });
        }
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        segment.file.append(&bytes).map_err(|error| io_error("write", &segment.path, error))?;
        segment.written += bytes.len() as u64;
        Ok(())
    }

    /// Reads the batch at the front. Blocks.
    pub(super) fn pop(&mut self) -> Result<Batch, ConnectorError> {
        let Some(segment) = self.segments.front_mut() else {
            return Err(ConnectorError::new(ErrorKind::Internal, "cannot read from the spill: it is empty"));
        };
        let damaged = |path: &Path| {
            let message = format!("cannot read {}: it does not hold what was written", path.display());
            ConnectorError::new(ErrorKind::Corrupt, message)
        };
        let mut length = [0; 4];
        segment.fill(&mut length)?;
        let mut record = vec![0; u32::from_le_bytes(length) as usize];
        segment.fill(&mut record)?;
        let batch =
            record.split_first_chunk().and_then(|(arrived, batch)| decode_batch(batch, u64::from_le_bytes(*arrived)));
        let batch = batch.ok_or_else(|| damaged(&segment.path))?;
        let done = segment.read == segment.written;
        if done && let Some(segment) = self.segments.pop_front() {
            self.disk.remove(&segment.path).map_err(|error| io_error("remove", &segment.path, error))?;
        }
        Ok(batch)
    }
}

impl Segment {
    fn fill(&mut self, into: &mut [u8]) -> Result<(), ConnectorError> {
        let short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let read = match self.read + into.len() as u64 {
            end if end <= self.written => self.file.read_at(self.read, into),
            _ => Err(short()),
        };
        match read {
            Ok(read) if read == into.len() => {
                self.read += read as u64;
                Ok(())
            }
            Ok(_) => Err(io_error("read", &self.path, short())),
            Err(error) => Err(io_error("read", &self.path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmill_env::RealDisk;
    use wasmill_model::{BatchBuilder, Column, Lineage, PartitionId, Timestamp};

    use super::*;

    fn batch(rows: &[(i64, Vec<u8>, Vec<u8>, u64)], with_headers: bool) -> Batch {
        let mut builder = BatchBuilder::default();
        for (time, key, value, _) in rows {
            builder.push(Timestamp(*time), key, value);
        }
        let headers = with_headers.then(|| Arc::new(rows.iter().map(|row| row.2.as_slice()).collect::<Column>()));
        let offsets = Arc::new(rows.iter().map(|row| row.3).collect());
        builder.finish(7).with_headers(headers).with_lineage(Some(Lineage { partition: PartitionId(3), offsets }))
    }

    fn row() -> impl Strategy<Value = (i64, Vec<u8>, Vec<u8>, u64)> {
        (
            any::<i64>(),
            prop::collection::vec(any::<u8>(), 0..9),
            prop::collection::vec(any::<u8>(), 0..20),
            any::<u64>(),
        )
    }

    proptest! {
        #[test]
        fn batches_come_back_as_they_were_in_order(
            batches in prop::collection::vec((prop::collection::vec(row(), 1..8), any::<bool>()), 1..20),
            turns in prop::collection::vec(any::<bool>(), 40),
        ) {
            let dir = tempfile::tempdir().expect("a folder");
            let mut spill = Spill::open(Arc::new(RealDisk), dir.path(), 800).expect("opens");
            let mut waiting = VecDeque::new();
            let mut batches = batches.into_iter();
            for push in turns {
                if push && let Some((rows, headers)) = batches.next() {
                    let batch = batch(&rows, headers);
                    spill.push(&batch).expect("written");
                    waiting.push_back(batch);
                } else if let Some(expected) = waiting.pop_front() {
                    prop_assert_eq!(spill.pop().expect("read"), expected);
                }
            }
            for expected in waiting {
                prop_assert_eq!(spill.pop().expect("read"), expected);
            }
            prop_assert!(spill.pop().is_err());
            prop_assert_eq!(RealDisk.list(dir.path()).expect("listed").len(), 0, "files read through are gone");
        }
    }

    #[test]
    fn a_new_run_removes_what_the_last_one_left() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spill = Spill::open(Arc::new(RealDisk), dir.path(), 800).expect("opens");
        spill.push(&batch(&[(1, vec![1], vec![2], 3)], false)).expect("written");
        drop(spill);
        let mut spill = Spill::open(Arc::new(RealDisk), dir.path(), 800).expect("opens");
        assert!(spill.pop().is_err());
        assert!(RealDisk.list(dir.path()).expect("listed").is_empty());
    }
}
