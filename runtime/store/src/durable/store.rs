use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmill_env::{Disk, DiskLock, kill_point, planted, small_limits};
use wasmill_model::Epoch;

use super::StoreError;
use super::base::{BaseEnd, remove};
use super::codec::{Change, Entry, Name, Reader, Table};
use super::compaction::{Compacted, Compaction, Sized, decide_from, import};
use super::encode::{Builder, Known, decode_letter, encode};
use super::files::{StateFiles, Version};
use super::frame::{FRAME_HEADER_BYTES, FileKind, FrameKind, PAYLOAD_BYTES_MAX, seal};
use super::layout::{Layout, base_path, layer_path, restored_at, segment_path, take_lock};
use super::log::{self, Segment};
use super::merge::{Chunk, FileSource, Source, merge};
use super::record::{EpochRecord, LetterId, LetterRecord, Recovered};
use super::sorted::SortedFile;
use super::summary::{Summary, summarize};

/// The folder of rows that wait on disk.
const SPILL: &str = "spill";
/// Room for a frame that is kept from one commit to the next.
const FRAME_BYTES_KEPT: usize = 16 << 20;

/// Settings of a [`JobStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// The log is folded into a base once it has this many bytes and more than the base has. Bounds
    /// the space a job takes to four times what it holds, plus this, and so the time of a recovery.
    pub log_bytes_max: u64,
    /// Bytes of memory that a compaction takes.
    pub compaction_bytes_max: u64,
    /// State stays on disk, and its blocks take so many bytes of memory; `None` says that it is
    /// recovered into memory.
    pub state_cache_bytes: Option<u64>,
}

impl StoreOptions {
    /// For state that stays on disk, with so many bytes of memory for all that belongs to it: a
    /// quarter for entries in use, half for blocks, the rest for indexes, filters and compactions.
    #[must_use]
    pub fn on_disk(cache_bytes: u64) -> Self {
        Self {
            // Entries of the log are in memory until it is folded.
            log_bytes_max: (cache_bytes / 32).clamp(64 << 10, 64 << 20),
            compaction_bytes_max: cache_bytes / 8,
            state_cache_bytes: Some(cache_bytes / 2),
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        let log_bytes_max = if small_limits() { 128 << 10 } else { 16 << 20 };
        Self { log_bytes_max, compaction_bytes_max: 64 << 20, state_cache_bytes: None }
    }
}

/// The durable half of a job: one atomic write an epoch.
///
/// # Invariants
/// - Epochs are committed in order, each entirely or not at all.
/// - One process has a store open at a time.
///
/// # Crash consistency
/// What [`JobStore::commit`] has returned for is there after a crash. An epoch whose commit did not
/// return may be there, too, entirely. After any failed write or sync the store is poisoned:
/// nothing but opening it anew tells what is on disk, and a failed sync is never tried again.
#[derive(Debug)]
pub struct JobStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: StoreOptions,
    /// Held by a compaction, too, so that nobody opens the store while one runs.
    lock: Arc<dyn DiskLock>,
    /// The base, if there is one, and the layers above it, oldest first.
    files: Vec<Sized>,
    /// They, to look state up in, where it stays on disk.
    state: Option<Arc<StateFiles>>,
    /// Segments before the last, with the bytes of each.
    segments: Vec<(u64, u64)>,
    segment: Segment,
    sequence: u64,
    epoch: Epoch,
    known: Known,
    frame: Vec<u8>,
    poison: Option<String>,
}

impl JobStore {
    /// Opens the store in a folder, which is made if need be, and reads what was committed.
    ///
    /// # Errors
    /// Where another process has it open, a file cannot be read or written, is damaged, or is of a
    /// newer version.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: StoreOptions) -> Result<(Self, Recovered), StoreError> {
        disk.create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        let lock = take_lock(&*disk, dir)?;
        kill_point("store-locked");
        // First of all: a full disk has room again.
        clear_spill(&*disk, dir)?;
        let layout = Layout::read(&*disk, dir)?;
        let (mut files, mut bases, mut epoch) = (Vec::new(), Vec::new(), 0);
        let base = layout.base.map(|sequence| (FileKind::Base, (1, sequence)));
        for (kind, span) in base.into_iter().chain(layout.layers.iter().map(|layer| (FileKind::Layer, *layer))) {
            let file = open_sorted(&*disk, dir, kind, span, options.state_cache_bytes.is_some())?;
            epoch = file.epoch;
            files.push(Sized { from: span.0, to: span.1, bytes: file.bytes });
            bases.push(file.source);
        }

        let mut chunk = Chunk::default();
        let from = (layout.folded(), epoch);
        let read = log::read(&*disk, dir, &layout.segments, None, from, |payload| Ok(chunk.push(payload).is_some()))?;
        // A process that was killed may have left its last frame unsynced, or its sync may have
        // failed: reading it does not tell. So it is written again before anybody acts on it.
        let mut last = read.last.and_then(|header| Some((log::with_header(chunk.last()?), header)));

        let mut sources = vec![chunk.into_source()];
        sources.extend(bases.into_iter().rev().map(Source::File));
        let Builder { mut recovered, known, .. } = build(&mut sources, dir, options.state_cache_bytes.is_some())?;
        drop(sources);
        recovered.epoch = Epoch(read.epoch);

        kill_point("store-read");
        let start = if last.is_some() { read.sequence } else { read.sequence + 1 };
        let frame = last.as_mut().filter(|_| !planted("last-frame-forgotten"));
        let frame = frame.map(|(frame, header)| (&mut frame[..], *header));
        // A store that was closed ends with an empty segment: opening it again writes nothing.
        let segment = match frame {
            Some(frame) => Segment::create(&*disk, dir, start, Some(frame))?,
            None => match Segment::adopt(&*disk, dir, start, &read.segments)? {
                Some(segment) => segment,
                None => Segment::create(&*disk, dir, start, None)?,
            },
        };
        kill_point("store-rewritten");
        for path in &layout.garbage {
            remove(&*disk, path)?;
        }
        kill_point("store-opened");
        let state = match options.state_cache_bytes {
            Some(bytes) => Some(Arc::new(StateFiles::new(bytes, version(&*disk, dir, &files, Epoch(epoch))?))),
            None => None,
        };
        let mut store = Self {
            lock: lock.into(),
            files,
            state,
            segments: read.segments.into_iter().filter(|(other, _)| *other != start).collect(),
            segment,
            sequence: read.sequence,
            epoch: recovered.epoch,
            known,
            frame: Vec::new(),
            poison: None,
            dir: dir.to_owned(),
            options,
            disk,
        };
        if !store.known.replays.is_empty() {
            let marked = store.known.replays.iter().map(|&id| LetterId(id)).collect();
            recovered.replays = store.letters_by_id(&marked)?;
        }
        if store.state.is_some() && store.folded() < store.sequence {
            // Lookups see sorted files only.
            let compacted = store.begin_compaction()?.run()?;
            store.finish_compaction(compacted)?;
        }
        Ok((store, recovered))
    }

    /// Removes everything a store holds, so that the job starts anew. The log goes first, its end
    /// before its beginning: a crash leaves an earlier epoch, or nothing.
    ///
    /// # Errors
    /// Where another process has it open, or a file cannot be removed.
    pub fn erase(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
        disk.create_dir_all(dir).map_err(StoreError::io("create", dir))?;
        let _lock = take_lock(disk, dir)?;
        let Layout { base, layers, segments, garbage } = Layout::read(disk, dir)?;
        let segments = segments.into_iter().rev().map(|start| segment_path(dir, start));
        let layers = layers.into_iter().rev().map(|layer| layer_path(dir, layer));
        let base = base.map(|sequence| base_path(dir, sequence));
        // Old files and segments must not come to life when what replaced them is gone.
        for path in garbage.into_iter().chain(segments).chain(layers).chain(base) {
            remove(disk, &path)?;
            disk.sync_dir(dir).map_err(StoreError::io("sync", dir))?;
        }
        Ok(())
    }

    /// The last committed epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Makes an epoch durable, or nothing of it. Blocks until it is synced.
    ///
    /// # Errors
    /// Where `epoch` is not the next one or is too large, which changes nothing; or where a write
    /// or sync fails, after which the store has to be opened anew.
    pub fn commit(&mut self, epoch: Epoch, record: &EpochRecord) -> Result<(), StoreError> {
        if epoch != self.epoch.next() && !planted("epochs-in-any-order") {
            return Err(StoreError::OutOfOrder { epoch, expected: self.epoch.next() });
        }
        self.write(FrameKind::Epoch, epoch, record)
    }

    /// Drops rejected rows between epochs: what is done to a job that does not run.
    ///
    /// # Errors
    /// As [`JobStore::commit`].
    pub fn drop_letters(&mut self, ids: &[LetterId]) -> Result<(), StoreError> {
        let record = EpochRecord { dropped_letters: ids.to_vec(), ..EpochRecord::default() };
        self.write(FrameKind::Edit, self.epoch, &record)
    }

    /// Marks rejected rows: they are to be processed again when the job runs next, and are dropped by
    /// the epoch that does. Those that are not there are passed over by whoever reads them.
    ///
    /// # Errors
    /// As [`JobStore::commit`].
    pub fn mark_for_replay(&mut self, ids: &[LetterId]) -> Result<(), StoreError> {
        let record = EpochRecord { replays: ids.to_vec(), ..EpochRecord::default() };
        self.write(FrameKind::Edit, self.epoch, &record)
    }

    fn write(&mut self, kind: FrameKind, epoch: Epoch, record: &EpochRecord) -> Result<(), StoreError> {
        self.check()?;
        self.frame.clear();
        self.frame.resize(FRAME_HEADER_BYTES, 0);
        let before = self.known.clone();
        encode(epoch, record, &mut self.known, &mut self.frame);
        if seal(&mut self.frame, kind, self.sequence + 1, epoch.0, self.segment.bytes).is_none() {
            let bytes = self.frame.len() as u64;
            self.frame = Vec::new();
            self.known = before;
            return Err(StoreError::TooLarge { epoch, bytes, max: PAYLOAD_BYTES_MAX });
        }
        let appended = self.segment.append(&*self.disk, &self.frame);
        self.poison_with(appended)?;
        (self.sequence, self.epoch) = (self.sequence + 1, epoch);
        if self.frame.capacity() > FRAME_BYTES_KEPT {
            self.frame = Vec::new();
        }
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.poison.clone().map_or(Ok(()), |reason| Err(StoreError::Poisoned { reason }))
    }

    fn poison_with<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result.inspect_err(|error| self.poison = (!planted("failed-sync-forgotten")).then(|| error.to_string()))
    }

    /// The state that stays on disk, where the options say that it does.
    #[must_use]
    pub fn state(&self) -> Option<&Arc<StateFiles>> {
        self.state.as_ref()
    }

    /// A folder for rows that wait on disk. What is there when the store is opened is removed: what holds is
    /// in the epochs.
    #[must_use]
    pub fn spill(&self) -> (Arc<dyn Disk>, PathBuf) {
        (Arc::clone(&self.disk), self.dir.join(SPILL))
    }

    /// The last sequence number that sorted files hold.
    fn folded(&self) -> u64 {
        self.files.last().map_or(0, |file| file.to)
    }

    fn base(&self) -> Option<u64> {
        self.files.first().filter(|file| file.from == 1).map(|file| file.to)
    }

    fn layers(&self) -> Vec<(u64, u64)> {
        self.files.iter().filter(|file| file.from > 1).map(|file| (file.from, file.to)).collect()
    }

    /// Bytes of the log that a recovery reads besides the base.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes).sum::<u64>() + self.segment.bytes
    }

    /// Whether it is time for [`JobStore::begin_compaction`].
    #[must_use]
    pub fn compaction_due(&self) -> bool {
        let base = if self.state.is_some() { 0 } else { self.files.iter().map(|file| file.bytes).sum() };
        self.log_bytes() > self.options.log_bytes_max.max(base)
    }

    /// Whether the log has grown so far that the next commit has to wait for a compaction: entries of
    /// the log are in memory where state stays on disk.
    #[must_use]
    pub fn compaction_overdue(&self) -> bool {
        self.state.is_some() && self.log_bytes() > 2 * self.options.log_bytes_max
    }

    /// Begins to fold the log so far into a sorted file. [`Compaction::run`] does it, on any thread,
    /// while commits go on; [`JobStore::finish_compaction`] ends it. It holds the store's lock.
    ///
    /// # Errors
    /// Where one is under way, which changes nothing; or where a write or sync fails, after which
    /// the store has to be opened anew.
    pub fn begin_compaction(&mut self) -> Result<Compaction, StoreError> {
        self.check()?;
        if Arc::strong_count(&self.lock) > 1 {
            return Err(StoreError::Compacting { path: self.dir.clone() });
        }
        let log_bytes = self.log_bytes();
        self.roll()?;
        kill_point("compaction-begun");
        let from = match &self.state {
            Some(_) if self.folded() < self.sequence => decide_from(&self.files, log_bytes, self.folded() + 1),
            _ => 1,
        };
        Ok(Compaction {
            lock: self.lock.clone(),
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            base: self.base(),
            layers: self.layers(),
            from,
            segments: self.segments.iter().map(|(start, _)| *start).collect(),
            follow: self.segment.start,
            sequence: self.sequence,
            epoch: self.epoch,
            bytes_max: self.options.compaction_bytes_max,
            filter_bytes_max: self.options.state_cache_bytes.map(|bytes| bytes / 5),
        })
    }

    /// Begins a segment, unless the last is empty.
    fn roll(&mut self) -> Result<(), StoreError> {
        if self.segment.start > self.sequence {
            return Ok(());
        }
        let next = Segment::create(&*self.disk, &self.dir, self.sequence + 1, None);
        let next = self.poison_with(next)?;
        self.segments.push((self.segment.start, self.segment.bytes));
        self.segment = next;
        Ok(())
    }

    /// Removes what a compaction has replaced. One that failed is simply not finished: the next
    /// one begins anew.
    ///
    /// # Errors
    /// Where a file cannot be removed, which leaves it until the store is opened again.
    pub fn finish_compaction(&mut self, compacted: Compacted) -> Result<(), StoreError> {
        kill_point("compaction-finish");
        let Compacted { made, file, lock } = compacted;
        drop(lock);
        let replaced: Vec<_> = self.files.extract_if(.., |file| file.from >= made.from).collect();
        self.files.push(made);
        if let (Some(state), Some(file)) = (&self.state, file) {
            let before = state.version();
            let epoch = Epoch(file.span.epoch);
            let older = before.files.iter().filter(|older| older.span.to < made.from).cloned();
            state.replace(Version { files: [Arc::new(file)].into_iter().chain(older).collect(), epoch });
        }
        let folded: Vec<_> = self.segments.extract_if(.., |(start, _)| *start <= made.to).collect();
        let files = replaced.iter().filter(|file| (file.from, file.to) != (made.from, made.to));
        let files = files.map(|file| sorted_path(&self.dir, (file.from, file.to)));
        for path in folded.iter().map(|(start, _)| segment_path(&self.dir, *start)).chain(files) {
            remove(&*self.disk, &path)?;
            kill_point("compaction-removed");
        }
        Ok(())
    }

    /// Up to `limit` rejected rows from an id on, in order.
    ///
    /// # Errors
    /// Where a file cannot be read or is damaged.
    pub fn letters(&self, from: LetterId, limit: usize) -> Result<Vec<(LetterId, LetterRecord)>, StoreError> {
        self.letters_that(|id| id >= from, limit)
    }

    /// The rejected rows of some ids, in order; those that are gone are left out.
    ///
    /// # Errors
    /// Where a file cannot be read or is damaged.
    pub fn letters_by_id(&self, ids: &BTreeSet<LetterId>) -> Result<Vec<(LetterId, LetterRecord)>, StoreError> {
        self.letters_that(|id| ids.contains(&id), ids.len())
    }

    fn letters_that(
        &self,
        wanted: impl Fn(LetterId) -> bool,
        limit: usize,
    ) -> Result<Vec<(LetterId, LetterRecord)>, StoreError> {
        self.check()?;
        let mut gone = BTreeSet::new();
        self.each_letter_change(|name, change| {
            if change == Change::Gone {
                gone.insert(name.number);
            }
            Some(())
        })?;
        let mut letters = Vec::new();
        let wanted = |id: u64, have: usize| have < limit && wanted(LetterId(id)) && !gone.contains(&id);
        // Ids rise, so those in the base come before those in the log.
        if let Some(sequence) = self.base()
            && let OpenBase { path, end, .. } = open_base(&*self.disk, &self.dir, sequence)?
            && let Some((_, offset)) = end.tables.iter().find(|(table, _)| *table == Table::Letters)
        {
            let mut source = FileSource::open(&*self.disk, &path, FileKind::Base, Some(*offset))?;
            while letters.len() < limit
                && let Some((Table::Letters, _, Entry { name, change })) = source.head()
            {
                if let Change::Put(value) = change
                    && wanted(name.number, letters.len())
                {
                    let malformed = || StoreError::corrupt(&path, *offset, "a rejected row is malformed");
                    letters.push((LetterId(name.number), decode_letter(value).ok_or_else(malformed)?));
                }
                source.advance()?;
            }
        }
        self.each_letter_change(|name, change| {
            if let Change::Put(value) = change
                && wanted(name.number, letters.len())
            {
                letters.push((LetterId(name.number), decode_letter(value)?));
            }
            Some(())
        })?;
        Ok(letters)
    }

    /// Hands over what layers and log say of rejected rows, in order. `None` says that it is malformed.
    fn each_letter_change(&self, mut take: impl FnMut(Name<'_>, Change<'_>) -> Option<()>) -> Result<(), StoreError> {
        let mut from = (0, 0);
        if let Some(sequence) = self.base() {
            from = (sequence, open_base(&*self.disk, &self.dir, sequence)?.epoch);
        }
        for layer in self.layers() {
            let OpenBase { path, end, epoch, .. } = open_layer(&*self.disk, &self.dir, layer)?;
            from = (layer.1, epoch);
            let Some((_, offset)) = end.tables.iter().find(|(table, _)| *table == Table::Letters) else { continue };
            let mut source = FileSource::open(&*self.disk, &path, FileKind::Layer, Some(*offset))?;
            while let Some((Table::Letters, _, Entry { name, change })) = source.head() {
                let malformed = || StoreError::corrupt(&path, *offset, "a rejected row is malformed");
                take(name, change).ok_or_else(malformed)?;
                source.advance()?;
            }
        }
        let segments: Vec<u64> = self.segments.iter().map(|(start, _)| *start).chain([self.segment.start]).collect();
        let mut in_payload = |payload: &[u8]| {
            let mut reader = Reader(payload);
            while !reader.0.is_empty() {
                let mut section = reader.section()?;
                for _ in 0..if section.table == Table::Letters { section.count } else { 0 } {
                    let Entry { name, change } = section.entries.entry()?;
                    take(name, change)?;
                }
            }
            Some(())
        };
        let follow = Some(self.sequence + 1);
        log::read(&*self.disk, &self.dir, &segments, follow, from, |payload| Ok(in_payload(&payload).is_some()))?;
        Ok(())
    }

    /// Closes the store so that damage to any byte of it is seen when it is opened again. One that
    /// is not closed is opened as after a crash, where a last frame that cannot be read counts as
    /// never committed.
    ///
    /// # Errors
    /// Where a write or sync fails.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.check()?;
        self.roll()
    }

    /// Reads all of a file that [`Compaction::export`] wrote, and says what it holds. Takes memory as
    /// one block does, and what is said.
    ///
    /// # Errors
    /// Where it cannot be read or is damaged.
    pub fn inspect(disk: &dyn Disk, file: &Path) -> Result<Summary, StoreError> {
        summarize(disk, file)
    }

    /// The epoch at which such a file was made, and its bytes. Looks at its ends only.
    ///
    /// # Errors
    /// As [`JobStore::inspect`].
    pub fn savepoint_epoch(disk: &dyn Disk, file: &Path) -> Result<(Epoch, u64), StoreError> {
        let OpenBase { epoch, bytes, .. } = open_base_at(disk, file.to_owned())?;
        Ok((Epoch(epoch), bytes))
    }

    /// Makes a store of a file that [`Compaction::export`] wrote. Open it to read what it holds. The wall clock
    /// of the moment, in microseconds since the Unix epoch, stays with it: see [`Self::restored_at`].
    ///
    /// # Errors
    /// Where the folder holds a job, or a file cannot be read or written, or is damaged.
    pub fn import(disk: &dyn Disk, file: &Path, dir: &Path, now_micros: u64) -> Result<(), StoreError> {
        import(disk, file, dir, now_micros)
    }

    /// When the store in a folder was made of a savepoint, in microseconds since the Unix epoch; `None` where it
    /// was not. Its epochs from there on are other ones than those of the job that the savepoint is of, under the
    /// same numbers.
    ///
    /// # Errors
    /// Where the file that says so cannot be read.
    pub fn restored_at(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>, StoreError> {
        restored_at(disk, dir)
    }
}

/// Removes rows that an earlier run has had wait on disk.
fn clear_spill(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    let dir = dir.join(SPILL);
    let left = match disk.list(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        left => left.map_err(StoreError::io("list", &dir))?,
    };
    left.iter().try_for_each(|name| remove(disk, &dir.join(name)))
}

/// Puts together what sources hold.
fn build(sources: &mut [Source], path: &Path, state_stays: bool) -> Result<Builder, StoreError> {
    let mut builder = Builder::default();
    builder.state_stays = state_stays;
    merge(sources, |table, node, name, value| {
        let malformed = || StoreError::corrupt(path, 0, format!("an entry of {node:?} in {table:?} is malformed"));
        builder.take(table, node, name, value).ok_or_else(malformed)
    })?;
    Ok(builder)
}

/// A base that is to be read, with what its end says.
pub(super) struct OpenBase {
    pub(super) source: FileSource,
    pub(super) end: BaseEnd,
    pub(super) epoch: u64,
    pub(super) bytes: u64,
    pub(super) path: PathBuf,
}

pub(super) fn open_base(disk: &dyn Disk, dir: &Path, sequence: u64) -> Result<OpenBase, StoreError> {
    open_sorted(disk, dir, FileKind::Base, (1, sequence), false)
}

pub(super) fn open_layer(disk: &dyn Disk, dir: &Path, span: (u64, u64)) -> Result<OpenBase, StoreError> {
    open_sorted(disk, dir, FileKind::Layer, span, false)
}

/// Where a base or a layer is.
fn sorted_path(dir: &Path, span: (u64, u64)) -> PathBuf {
    if span.0 == 1 { base_path(dir, span.1) } else { layer_path(dir, span) }
}

fn open_sorted(
    disk: &dyn Disk,
    dir: &Path,
    kind: FileKind,
    (from, to): (u64, u64),
    without_state: bool,
) -> Result<OpenBase, StoreError> {
    let path = sorted_path(dir, (from, to));
    let source = if without_state {
        FileSource::open_without_state(disk, &path, kind)?
    } else {
        FileSource::open(disk, &path, kind, None)?
    };
    let (epoch, end, bytes) = source.read_end()?;
    if (end.from, source.sequence()) != (from, to) {
        return Err(StoreError::corrupt(&path, 16, format!("frames {from:x} to {to:x} were expected")));
    }
    Ok(OpenBase { source, end, epoch, bytes, path })
}

pub(super) fn open_base_at(disk: &dyn Disk, path: PathBuf) -> Result<OpenBase, StoreError> {
    let source = FileSource::open(disk, &path, FileKind::Base, None)?;
    let (epoch, end, bytes) = source.read_end()?;
    Ok(OpenBase { source, end, epoch, bytes, path })
}

/// The files, to look state up in.
fn version(disk: &dyn Disk, dir: &Path, files: &[Sized], epoch: Epoch) -> Result<Version, StoreError> {
    let open = |file: &Sized| {
        let kind = if file.from == 1 { FileKind::Base } else { FileKind::Layer };
        SortedFile::open(disk, &sorted_path(dir, (file.from, file.to)), kind).map(Arc::new)
    };
    Ok(Version { files: files.iter().rev().map(open).collect::<Result<_, _>>()?, epoch })
}
