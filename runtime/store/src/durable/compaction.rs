//! Folding a log into a base.
//!
//! # Crash consistency
//! The new base has its name only once it is whole and durable; only then does
//! [`JobStore::finish_compaction`](super::JobStore::finish_compaction) remove what it replaces. A
//! crash before that leaves a partial file, which the next open removes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmill_env::{Disk, DiskLock};
use wasmill_model::Epoch;

use super::StoreError;
use super::base::{BaseWriter, partial, remove};
use super::codec::{Change, Entry};
use super::frame::FileKind;
use super::layout::{LOCK, Layout, base_path, run_path};
use super::log;
use super::merge::{Chunk, FileSource, Source, merge};
use super::store::{open_base, open_base_at};

/// A compaction that has begun.
#[derive(Debug)]
#[must_use = "a compaction does nothing until it is run"]
pub struct Compaction {
    pub(super) lock: Arc<dyn DiskLock>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) base: Option<u64>,
    pub(super) segments: Vec<u64>,
    /// Where the segment behind them begins.
    pub(super) follow: u64,
    pub(super) sequence: u64,
    pub(super) epoch: Epoch,
    pub(super) bytes_max: u64,
}

/// A compaction that is done.
#[derive(Debug)]
#[must_use = "what it replaces stays until the store is told"]
pub struct Compacted {
    pub(super) sequence: u64,
    /// Bytes of the new base.
    pub(super) bytes: u64,
    /// Until the store is told, no other compaction begins.
    pub(super) lock: Arc<dyn DiskLock>,
}

impl Compaction {
    /// Reads the log and the base before, and writes the new base. Blocks; takes memory as the
    /// store's options say.
    ///
    /// # Errors
    /// Where a file cannot be read or written, or is damaged. The store goes on without.
    pub fn run(self) -> Result<Compacted, StoreError> {
        let bytes = self.write(&base_path(&self.dir, self.sequence))?;
        Ok(Compacted { sequence: self.sequence, bytes, lock: self.lock })
    }

    /// Writes everything committed to a file of its own instead: a savepoint. The store stays as it
    /// is. The file has its name once it is whole and durable, in place of one that had it.
    ///
    /// # Errors
    /// As [`Compaction::run`].
    pub fn export(self, path: &Path) -> Result<(), StoreError> {
        self.write(path).map(|_bytes| ())
    }

    /// Writes the new base to `path`. Returns its bytes.
    fn write(&self, path: &Path) -> Result<u64, StoreError> {
        let mut runs = Vec::new();
        let written = self.write_over(path, &mut runs);
        let mut removed = Ok(());
        for run in runs {
            removed = removed.and(remove(&*self.disk, &run));
        }
        if written.is_err() {
            // It may not have been made; the error that counts is the one before.
            let _left = self.disk.remove(&partial(path));
        }
        let written = written?;
        removed.map(|()| written)
    }

    fn write_over(&self, path: &Path, runs: &mut Vec<PathBuf>) -> Result<u64, StoreError> {
        let disk = &*self.disk;
        let base = self.base.map(|sequence| open_base(disk, &self.dir, sequence)).transpose()?;
        let from = (self.base.unwrap_or(0), base.as_ref().map_or(0, |base| base.epoch));
        let mut chunk = Chunk::default();
        log::read(disk, &self.dir, &self.segments, Some(self.follow), from, |payload| {
            if chunk.push(payload).is_none() {
                return Ok(false);
            }
            if chunk.bytes() > self.bytes_max {
                let path = run_path(&self.dir, runs.len());
                self.spill(std::mem::take(&mut chunk), &path, runs)?;
            }
            Ok(true)
        })?;
        let mut sources = vec![chunk.into_source()];
        for run in runs.iter().rev() {
            let file = FileSource::open(disk, run, FileKind::Run, None)?;
            sources.push(Source::File(file));
        }
        sources.extend(base.map(|base| Source::File(base.source)));
        let mut writer = BaseWriter::create(disk, path, FileKind::Base, self.sequence, self.epoch.0)?;
        merge(&mut sources, |table, node, name, value| {
            writer.push(table, node, &Entry { name: *name, change: Change::Put(value) })
        })?;
        writer.finish()
    }

    /// Writes a chunk out, sorted, to be merged later.
    fn spill(&self, chunk: Chunk, path: &Path, runs: &mut Vec<PathBuf>) -> Result<(), StoreError> {
        runs.push(path.to_owned());
        let mut writer = BaseWriter::create(&*self.disk, path, FileKind::Run, self.sequence, self.epoch.0)?;
        chunk.into_source().each(|table, node, entry| writer.push(table, node, entry))?;
        writer.finish().map(|_bytes| ())
    }
}

/// Makes a store that holds what an exported file holds.
pub(super) fn import(disk: &dyn Disk, file: &Path, dir: &Path) -> Result<(), StoreError> {
    disk.create_dir_all(dir).map_err(StoreError::io("create", dir))?;
    let lock = dir.join(LOCK);
    let lock = disk.try_lock(&lock).map_err(StoreError::io("lock", &lock))?;
    let _lock = lock.ok_or_else(|| StoreError::InUse { path: dir.to_owned() })?;
    if !matches!(Layout::read(disk, dir)?, Layout { base: None, segments, .. } if segments.is_empty()) {
        return Err(StoreError::NotEmpty { path: dir.to_owned() });
    }
    let base = open_base_at(disk, file.to_owned())?;
    let sequence = base.source.sequence();
    let mut writer = BaseWriter::create(disk, &base_path(dir, sequence), FileKind::Base, sequence, base.epoch)?;
    Source::File(base.source).each(|table, node, entry| writer.push(table, node, entry))?;
    writer.finish().map(|_bytes| ())
}
