//! Folding a log into a base, or into a layer above it.
//!
//! A store whose state is in memory has no layers: every compaction makes a new base. One whose state
//! stays on disk writes what is new into a layer, and takes in those layers before it that are no
//! larger than what is folded anyway, the base last: so an entry is written again as often as the
//! whole doubles, and a lookup has few files to look into.
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
use super::base::{BaseWriter, Span, partial, remove};
use super::codec::{Change, Entry};
use super::filter::FilterBuilder;
use super::frame::FileKind;
use super::layout::{Layout, base_path, layer_path, mark_restored, run_path, take_lock};
use super::log;
use super::merge::{Chunk, FileSource, Source, merge, merge_changes};
use super::sorted::SortedFile;
use super::store::{OpenBase, open_base, open_base_at, open_layer};

/// A compaction that has begun.
#[derive(Debug)]
#[must_use = "a compaction does nothing until it is run"]
pub struct Compaction {
    pub(super) lock: Arc<dyn DiskLock>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) base: Option<u64>,
    /// Oldest first.
    pub(super) layers: Vec<(u64, u64)>,
    /// The first sequence number that the new file holds: 1 makes a base.
    pub(super) from: u64,
    pub(super) segments: Vec<u64>,
    /// Where the segment behind them begins.
    pub(super) follow: u64,
    pub(super) sequence: u64,
    pub(super) epoch: Epoch,
    pub(super) bytes_max: u64,
    /// Bytes that the filter of the new file takes at most, `None` where nobody looks things up.
    pub(super) filter_bytes_max: Option<u64>,
}

/// A sorted file of a store, with its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sized {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) bytes: u64,
}

/// The first sequence number that the next file is to hold: it takes in every layer, and the base,
/// that is no larger than what is folded without it. `files` stand oldest first.
pub(super) fn decide_from(files: &[Sized], log_bytes: u64, next: u64) -> u64 {
    let (mut from, mut folded) = (next, log_bytes);
    for file in files.iter().rev() {
        if file.bytes > folded {
            break;
        }
        (from, folded) = (file.from, folded + file.bytes);
    }
    from
}

/// A compaction that is done.
#[derive(Debug)]
#[must_use = "what it replaces stays until the store is told"]
pub struct Compacted {
    /// The new file, with its bytes.
    pub(super) made: Sized,
    /// It, to look state up in.
    pub(super) file: Option<SortedFile>,
    /// Until the store is told, no other compaction begins.
    pub(super) lock: Arc<dyn DiskLock>,
}

impl Compaction {
    /// Reads the log and the files before, and writes the new one. Blocks; takes memory as the store's
    /// options say.
    ///
    /// # Errors
    /// Where a file cannot be read or written, or is damaged. The store goes on without.
    pub fn run(self) -> Result<Compacted, StoreError> {
        let (kind, path) = match self.from {
            1 => (FileKind::Base, base_path(&self.dir, self.sequence)),
            from => (FileKind::Layer, layer_path(&self.dir, (from, self.sequence))),
        };
        let bytes = self.write(&path, kind, self.from)?;
        let made = Sized { from: self.from, to: self.sequence, bytes };
        let file = self.filter_bytes_max.map(|_| SortedFile::open(&*self.disk, &path, kind)).transpose()?;
        Ok(Compacted { made, file, lock: self.lock })
    }

    /// Writes everything committed to a file of its own instead: a savepoint. The store stays as it
    /// is. The file has its name once it is whole and durable, in place of one that had it.
    ///
    /// # Errors
    /// As [`Compaction::run`].
    pub fn export(self, path: &Path) -> Result<(), StoreError> {
        self.write(path, FileKind::Base, 1).map(|_bytes| ())
    }

    /// Writes what is committed from a sequence number on to `path`. Returns its bytes.
    fn write(&self, path: &Path, kind: FileKind, from: u64) -> Result<u64, StoreError> {
        let mut runs = Vec::new();
        let written = self.write_over(path, kind, from, &mut runs);
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

    fn write_over(&self, path: &Path, kind: FileKind, from: u64, runs: &mut Vec<PathBuf>) -> Result<u64, StoreError> {
        let disk = &*self.disk;
        let base = self.base.map(|sequence| open_base(disk, &self.dir, sequence)).transpose()?;
        let mut folded = (self.base.unwrap_or(0), base.as_ref().map_or(0, |base| base.epoch));
        let mut files: Vec<_> = base.into_iter().filter(|_| from == 1).collect();
        for layer in &self.layers {
            let layer = open_layer(disk, &self.dir, *layer)?;
            folded = (layer.source.sequence(), layer.epoch);
            files.extend((layer.end.from >= from).then_some(layer));
        }
        let mut entries: u64 = files.iter().map(|file| file.end.entries).sum();
        let mut chunk = Chunk::default();
        log::read(disk, &self.dir, &self.segments, Some(self.follow), folded, |payload| {
            let before = chunk.entries();
            if chunk.push(payload).is_none() {
                return Ok(false);
            }
            entries += chunk.entries() - before;
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
        sources.extend(files.into_iter().rev().map(|OpenBase { source, .. }| Source::File(source)));
        let filter = self.filter_bytes_max.map_or(FilterBuilder::default(), |max| FilterBuilder::new(entries, max));
        let mut writer = BaseWriter::create(disk, path, kind, self.span(from), filter)?;
        if from == 1 {
            merge(&mut sources, |table, node, name, value| {
                writer.push(table, node, &Entry { name: *name, change: Change::Put(value) })
            })?;
        } else {
            merge_changes(&mut sources, |table, node, entry| writer.push(table, node, entry))?;
        }
        writer.finish()
    }

    fn span(&self, from: u64) -> Span {
        Span { from, to: self.sequence, epoch: self.epoch.0 }
    }

    /// Writes a chunk out, sorted, to be merged later.
    fn spill(&self, chunk: Chunk, path: &Path, runs: &mut Vec<PathBuf>) -> Result<(), StoreError> {
        runs.push(path.to_owned());
        let mut writer = BaseWriter::create(&*self.disk, path, FileKind::Run, self.span(1), FilterBuilder::default())?;
        chunk.into_source().each(|table, node, entry| writer.push(table, node, entry))?;
        writer.finish().map(|_bytes| ())
    }
}

/// Makes a store that holds what an exported file holds.
pub(super) fn import(disk: &dyn Disk, file: &Path, dir: &Path, now_micros: u64) -> Result<(), StoreError> {
    disk.create_dir_all(dir).map_err(StoreError::io("create", dir))?;
    let _lock = take_lock(disk, dir)?;
    let layout = Layout::read(disk, dir)?;
    if layout.base.is_some() || !layout.layers.is_empty() || !layout.segments.is_empty() {
        return Err(StoreError::NotEmpty { path: dir.to_owned() });
    }
    let base = open_base_at(disk, file.to_owned())?;
    mark_restored(disk, dir, now_micros)?;
    let sequence = base.source.sequence();
    let span = Span { from: 1, to: sequence, epoch: base.epoch };
    let path = base_path(dir, sequence);
    let mut writer = BaseWriter::create(disk, &path, FileKind::Base, span, FilterBuilder::default())?;
    Source::File(base.source).each(|table, node, entry| writer.push(table, node, entry))?;
    writer.finish().map(|_bytes| ())
}
