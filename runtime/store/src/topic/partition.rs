//! One partition: what of it is durable, how records are added, how they are read.
//!
//! # Crash consistency
//! Records are appended to the last segment in frames, each synced before the next one is written.
//! Whoever finds a frame that another process wrote syncs the file before acting on it: that process
//! may have been killed before its own sync. What cannot be read at the end of the last segment was
//! never acknowledged, and is cut off by the next append; anywhere else it is damage.
//!
//! # Concurrency
//! Appends, and whatever changes which segments there are, hold the topic's lock. Reading takes none,
//! but to look again at which files there are where one has gone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmill_env::{Disk, DiskLock, kill_point};
use wasmill_model::{Batch, TopicName};

use super::TopicError;
use super::config::TopicConfig;
use super::frame::{FILE_HEADER_BYTES, Found, FrameHeader, FrameKind, Frames, begin_frame, seal};
use super::record::{PayloadWriter, Producer, Producers, Rows, read_payload};
use super::segment::{self, Segment, SegmentName, decide_layout};

/// Segments that readers keep open.
const OPEN_SEGMENTS_MAX: usize = 4;
/// How often reading begins anew where files go away under it.
const RETRIES_MAX: usize = 8;

/// The lock of a topic, held.
#[derive(Debug)]
pub(super) struct Locked {
    pub(super) _lock: Box<dyn DiskLock>,
}

/// Takes the lock of a topic.
pub(super) type TakeLock<'a> = &'a dyn Fn() -> Result<Locked, TopicError>;

/// How a look ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Done,
    /// What is there can be told under the topic's lock only. It is taken before the partition's own.
    NeedsLock,
}

/// Records for one partition, written all or none.
#[derive(Debug, Clone)]
pub struct Append {
    /// The partition.
    pub partition: u32,
    /// The records. A lineage is not kept.
    pub rows: Batch,
    /// Who appends, where the same records must not be appended twice.
    pub producer: Option<Producer>,
}

/// What became of an [`Append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub first: u64,
    /// The offset behind its last record: `first` where it was a duplicate.
    pub end: u64,
    /// The records were there already.
    pub duplicate: bool,
}

/// How much to read at once: up to the first bound that is reached, and one record at least.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// Most records.
    pub rows: usize,
    /// Most bytes of keys, values and headers, passed by at most one record.
    pub bytes: usize,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The records; offsets are in the lineage.
    pub rows: Batch,
    /// Where to go on. Behind the last record, and behind what compaction has removed.
    pub next: u64,
}

/// A partition in figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStats {
    /// The first offset that can be read.
    pub start: u64,
    /// The offset that the next record gets.
    pub end: u64,
    /// Segments.
    pub segments: usize,
    /// Bytes on disk.
    pub bytes: u64,
    /// Producers whose last append is remembered.
    pub producers: usize,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) topic: TopicName,
    pub(super) number: u32,
    pub(super) config: TopicConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Segments that count, oldest first. None before the first look.
    pub(super) segments: Vec<SegmentName>,
    pub(super) garbage: Vec<SegmentName>,
    pub(super) tail: Option<Arc<Segment>>,
    /// Bytes of the last segment that are known to be durable.
    pub(super) place: u64,
    /// The offset behind the last durable record.
    pub(super) end: u64,
    producers: Producers,
    /// When the first and the last record of the last segment were appended.
    pub(super) appended: Option<(i64, i64)>,
    open: Vec<Arc<Segment>>,
    /// Segments when somebody last tidied up.
    tidied: usize,
}

impl State {
    fn start(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.base)
    }

    /// Whether no segment has come since somebody tidied up.
    pub(super) fn is_tidy(&self) -> bool {
        self.tidied == self.segments.len()
    }

    pub(super) fn tidied(&mut self) {
        self.tidied = self.segments.len();
    }

    pub(super) fn closed(&self) -> &[SegmentName] {
        self.segments.split_last().map_or(&[], |(_, closed)| closed)
    }
}

impl Partition {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, topic: TopicName, number: u32, config: TopicConfig) -> Self {
        Self { disk, dir, topic, number, config, state: Mutex::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, name: SegmentName) -> PathBuf {
        name.path(&self.dir, self.number)
    }

    /// Finds out anew which segments there are. Only under the lock: while files are replaced, a list
    /// may have neither the old nor the new ones.
    pub(super) fn load(&self, state: &mut State) -> Result<(), TopicError> {
        let files = self.disk.list(&self.dir).map_err(TopicError::io("list", &self.dir))?;
        let of_this = |file: &String| SegmentName::parse(file).filter(|(number, _)| *number == self.number);
        let layout = decide_layout(files.iter().filter_map(of_this).map(|(_, name)| name).collect());
        let missing = || TopicError::corrupt(&self.dir, 0, format!("partition {} has no segment", self.number));
        let last = *layout.live.last().ok_or_else(missing)?;
        let same_tail = state.tail.as_ref().is_some_and(|tail| tail.name == last);
        (state.segments, state.garbage) = (layout.live, layout.garbage);
        state.open.clear();
        if !same_tail {
            self.adopt(state, last)?;
        }
        Ok(())
    }

    /// Goes over to another last segment.
    fn adopt(&self, state: &mut State, name: SegmentName) -> Result<(), TopicError> {
        let tail = Segment::open(&*self.disk, &self.dir, self.number, name)?;
        // Whoever made it may have been killed before its name was durable.
        self.disk.sync_dir(&self.dir).map_err(TopicError::io("sync", &self.dir))?;
        state.tail = Some(tail);
        (state.place, state.end, state.appended) = (FILE_HEADER_BYTES as u64, name.base, None);
        Ok(())
    }

    /// Takes in what was appended since the last look, by whomever, without the topic's lock where it
    /// can be done.
    fn current(&self, take: TakeLock<'_>) -> Result<MutexGuard<'_, State>, TopicError> {
        let mut state = self.state();
        if self.look(&mut state, false)? == Look::Done {
            return Ok(state);
        }
        drop(state);
        self.reloaded(take)
    }

    /// Finds out everything anew, under the topic's lock.
    fn reloaded(&self, take: TakeLock<'_>) -> Result<MutexGuard<'_, State>, TopicError> {
        let _locked = take()?;
        let mut state = self.state();
        self.load(&mut state)?;
        self.look(&mut state, true)?;
        Ok(state)
    }

    /// [`Partition::current`] for whoever holds the topic's lock.
    pub(super) fn current_locked(&self) -> Result<MutexGuard<'_, State>, TopicError> {
        let mut state = self.state();
        self.look(&mut state, true)?;
        Ok(state)
    }

    fn look(&self, state: &mut State, locked: bool) -> Result<Look, TopicError> {
        if state.tail.is_none() {
            if !locked {
                return Ok(Look::NeedsLock);
            }
            self.load(state)?;
        }
        for _ in 0..RETRIES_MAX {
            let Some(tail) = state.tail.clone() else { break };
            if let Err(error) = self.disk.open(&tail.path) {
                if error.kind() != std::io::ErrorKind::NotFound {
                    return Err(TopicError::io("open", &tail.path)(error));
                }
                // Retention has gone past it, or compaction has replaced it.
                if !locked {
                    return Ok(Look::NeedsLock);
                }
                self.load(state)?;
                continue;
            }
            if self.scan(state, &tail, locked)? == Look::NeedsLock {
                return Ok(Look::NeedsLock);
            }
            if state.end == tail.name.base {
                break;
            }
            // A segment that begins where this one ends says that nothing more comes here.
            let next = SegmentName::plain(state.end);
            match self.adopt(state, next) {
                Err(error) if error.is_not_found() => break,
                adopted => adopted?,
            }
            state.segments.push(next);
        }
        Ok(Look::Done)
    }

    /// Takes in frames of the last segment that nobody here has seen.
    fn scan(&self, state: &mut State, tail: &Segment, locked: bool) -> Result<Look, TopicError> {
        let len = tail.len()?;
        if len == state.place {
            return Ok(Look::Done);
        }
        if len < state.place {
            return Err(TopicError::corrupt(&tail.path, len, format!("{} bytes were there before", state.place)));
        }
        let mut frames = Frames::new(&*tail.file, &tail.path, len);
        let (mut place, mut end, mut appended) = (state.place, state.end, state.appended);
        let mut producers = Vec::new();
        let (mut known, mut damage) = (None, None);
        loop {
            let header = match frames.header(place)? {
                Found::Frame(header) => header,
                Found::End => break,
                Found::Damaged(reason) => {
                    damage = Some(reason);
                    break;
                }
            };
            let Some(payload) = frames.payload(place, &header)? else {
                damage = Some("the checksum of the frame does not match");
                break;
            };
            let malformed = |reason: &str| TopicError::corrupt(&tail.path, place, reason);
            match header.kind {
                FrameKind::Producers if place == FILE_HEADER_BYTES as u64 => {
                    let decoded = Producers::decode(payload);
                    known = Some(decoded.ok_or_else(|| malformed("what is known of producers is malformed"))?);
                }
                FrameKind::Records if header.first == end => {
                    let take = |name: &str, epoch, index| producers.push((name.to_owned(), epoch, index, header.end));
                    read_payload(payload, header.first, header.end, take, |_| true)
                        .ok_or_else(|| malformed("the records are malformed"))?;
                    end = header.end;
                    appended = Some((appended.map_or(header.appended, |(first, _)| first), header.appended));
                }
                _ => return Err(malformed(&format!("records from offset {end} on were expected"))),
            }
            place += header.frame_len();
        }
        // What cannot be read is being written, or was never acknowledged, unless something follows.
        if let Some(reason) = damage
            && let Some(follows) = frames.search(place)?
        {
            // While somebody writes, what was read may be of two times.
            if !locked {
                return Ok(Look::NeedsLock);
            }
            return Err(TopicError::corrupt(&tail.path, place, format!("{reason}, and another follows at {follows}")));
        }
        if end > state.end {
            // Whoever wrote this may have been killed before its sync, or be in it.
            let mut file = self.disk.open(&tail.path).map_err(TopicError::io("open", &tail.path))?;
            file.sync_data().map_err(TopicError::io("sync", &tail.path))?;
        }
        if let Some(known) = known {
            state.producers = known;
        }
        for (name, epoch, index, offset) in producers {
            state.producers.learn(&name, epoch, index, offset);
        }
        (state.place, state.end, state.appended) = (place, end, appended);
        Ok(Look::Done)
    }

    /// Makes records durable, under the lock. Those of producers that are there already are left out.
    pub(super) fn append(&self, appends: &[&Append], now: i64) -> Result<Vec<Appended>, TopicError> {
        let mut state = self.current_locked()?;
        let fresh = |state: &State, earlier: &[&Append], producer: &Producer| {
            let before = earlier.iter().filter_map(|append| append.producer.as_ref());
            !state.producers.has(producer)
                && !before
                    .filter(|other| other.name == producer.name)
                    .any(|other| (producer.epoch, producer.index) <= (other.epoch, other.index))
        };
        let first = state.end;
        let mut end = first;
        let mut results = Vec::with_capacity(appends.len());
        for (place, append) in appends.iter().enumerate() {
            let duplicate =
                append.producer.as_ref().is_some_and(|producer| !fresh(&state, &appends[..place], producer));
            let rows = if duplicate { 0 } else { append.rows.len() as u64 };
            results.push(Appended { first: end, end: end + rows, duplicate });
            end += rows;
        }
        if end == first {
            return Ok(results);
        }
        let now = state.appended.map_or(now, |(_, last)| last.max(now));
        if self.is_full(&state, now) {
            self.roll(&mut state, now)?;
        }
        let mut frame = Vec::new();
        begin_frame(&mut frame);
        let mut payload = PayloadWriter::new(&mut frame, first);
        let written = || appends.iter().zip(&results).filter(|(_, result)| result.end > result.first);
        for (append, _) in written() {
            payload.batch(append.producer.as_ref(), &append.rows);
        }
        let place = state.place;
        let len = frame.len() as u64;
        if seal(&mut frame, FrameKind::Records, first, end, now, place).is_none() {
            return Err(TopicError::TooLarge { name: self.topic.clone(), bytes: len, max: u64::from(u32::MAX) });
        }
        let Some(tail) = state.tail.clone() else { return Ok(results) };
        // Readers need not wait for the disk.
        drop(state);
        let written_to_disk = self.write(&tail, place, &frame);
        let mut state = self.state();
        if let Err(error) = written_to_disk {
            // A reader that has seen the frame has synced it.
            if state.place <= place {
                self.cut(&tail.path, place);
            }
            return Err(error);
        }
        if state.place <= place {
            (state.place, state.end) = (place + len, end);
            state.appended = Some((state.appended.map_or(now, |(first, _)| first), now));
        }
        for (append, _) in written() {
            if let Some(Producer { name, epoch, index }) = &append.producer {
                state.producers.learn(name, *epoch, *index, end);
            }
        }
        Ok(results)
    }

    fn write(&self, tail: &Segment, place: u64, frame: &[u8]) -> Result<(), TopicError> {
        let path = &tail.path;
        let mut file = self.disk.open(path).map_err(TopicError::io("open", path))?;
        if file.len().map_err(TopicError::io("read", path))? > place {
            file.truncate(place).map_err(TopicError::io("truncate", path))?;
        }
        kill_point("topic-append");
        file.append(frame).map_err(TopicError::io("write", path))?;
        kill_point("topic-appended");
        file.sync_data().map_err(TopicError::io("sync", path))?;
        kill_point("topic-synced");
        Ok(())
    }

    /// Takes back a write or a sync that failed, as far as that is possible: the next append does it
    /// too, in front of its records.
    fn cut(&self, path: &Path, place: u64) {
        let cut = self.disk.open(path).and_then(|mut file| file.truncate(place));
        if let Err(error) = cut {
            tracing::warn!(path = %path.display(), %error, "cannot take back a write that failed");
        }
    }

    fn is_full(&self, state: &State, now: i64) -> bool {
        // So that retention by age is off by a quarter at most.
        let age_max = self.config.retention_micros.map_or(i64::MAX, |age| (age / 4).cast_signed());
        state
            .appended
            .is_some_and(|(first, _)| state.place >= self.config.segment_bytes || now.saturating_sub(first) >= age_max)
    }

    /// Begins a segment, under the lock.
    pub(super) fn roll(&self, state: &mut State, now: i64) -> Result<(), TopicError> {
        let name = SegmentName::plain(state.end);
        segment::create(&*self.disk, &self.path(name), state.end, &state.producers, now)?;
        kill_point("topic-rolled");
        let producers = std::mem::take(&mut state.producers);
        self.adopt(state, name)?;
        state.segments.push(name);
        if let Some(tail) = state.tail.clone() {
            self.scan(state, &tail, true)?;
        }
        state.producers = producers;
        Ok(())
    }

    /// Records from an offset on, which may be the end.
    pub(super) fn read(&self, mut offset: u64, limit: ReadLimit, take: TakeLock<'_>) -> Result<Fetched, TopicError> {
        let mut rows = Rows::default();
        let asked = offset;
        for retry in 0..RETRIES_MAX {
            let found = self.find(asked, offset, take)?;
            let Some((segment, end_of_segment, place_max)) = found else { break };
            let mut frames = match place_max {
                Some(place) => Frames::new(&*segment.file, &segment.path, place),
                None => Frames::new(&*segment.file, &segment.path, segment.len()?),
            };
            offset = self.read_segment(&segment, &mut frames, offset, end_of_segment, limit, &mut rows)?;
            if rows.len() > 0 || retry + 1 == RETRIES_MAX {
                break;
            }
        }
        Ok(Fetched { rows: rows.finish(self.number), next: offset })
    }

    /// The segment that has an offset, the offset at which it ends, and the place where it ends if it
    /// is the last. `None` at the end of the partition.
    #[expect(clippy::type_complexity, reason = "one caller takes it apart at once")]
    fn find(
        &self,
        asked: u64,
        offset: u64,
        take: TakeLock<'_>,
    ) -> Result<Option<(Arc<Segment>, u64, Option<u64>)>, TopicError> {
        let mut state = self.state();
        if state.tail.is_none() || offset >= state.end {
            drop(state);
            state = self.current(take)?;
        }
        if offset == state.end {
            return Ok(None);
        }
        if offset > state.end {
            let (name, partition, end) = (self.topic.clone(), self.number, state.end);
            return Err(TopicError::Beyond { name, partition, offset: asked, end });
        }
        for _ in 0..RETRIES_MAX {
            let start = state.start();
            if offset < start {
                let (name, partition) = (self.topic.clone(), self.number);
                return Err(TopicError::Gone { name, partition, offset, start });
            }
            let place = state.segments.partition_point(|segment| segment.base <= offset) - 1;
            let name = state.segments[place];
            match state.segments.get(place + 1) {
                None => {
                    let limit = (state.end, Some(state.place));
                    return Ok(state.tail.clone().map(|tail| (tail, limit.0, limit.1)));
                }
                Some(next) => {
                    let end = next.base;
                    match self.open_segment(&mut state, name) {
                        Err(error) if error.is_not_found() => {}
                        opened => return Ok(Some((opened?, end, None))),
                    }
                }
            }
            drop(state);
            state = self.reloaded(take)?;
        }
        Err(TopicError::corrupt(&self.dir, 0, "files go away faster than they can be opened"))
    }

    fn open_segment(&self, state: &mut State, name: SegmentName) -> Result<Arc<Segment>, TopicError> {
        if let Some(open) = state.open.iter().find(|open| open.name == name) {
            return Ok(Arc::clone(open));
        }
        let opened = Segment::open(&*self.disk, &self.dir, self.number, name)?;
        if state.open.len() >= OPEN_SEGMENTS_MAX {
            state.open.remove(0);
        }
        state.open.push(Arc::clone(&opened));
        Ok(opened)
    }

    /// Reads what a segment has from an offset on. Returns where to go on.
    fn read_segment(
        &self,
        segment: &Segment,
        frames: &mut Frames<'_>,
        mut offset: u64,
        end: u64,
        limit: ReadLimit,
        rows: &mut Rows,
    ) -> Result<u64, TopicError> {
        let mut place = segment.locate(frames, offset)?;
        let (rows_max, bytes_max) = (limit.rows.max(1), limit.bytes.max(1));
        let mut expected = None;
        while let Some(header) = segment.frame(frames, place)? {
            if header.kind == FrameKind::Records {
                self.check_follows(segment, place, &header, offset, &mut expected)?;
                let payload = segment.payload(frames, place, &header)?;
                let mut full = false;
                let each = |row: super::record::Row<'_>| {
                    full = rows.len() >= rows_max || rows.bytes() >= bytes_max;
                    if !full && row.offset >= offset {
                        offset = row.offset + 1;
                        rows.push(row);
                    }
                    !full
                };
                read_payload(payload, header.first, header.end, |_, _, _| {}, each)
                    .ok_or_else(|| TopicError::corrupt(&segment.path, place, "the records are malformed"))?;
                if full {
                    return Ok(offset);
                }
                offset = offset.max(header.end);
                if rows.len() >= rows_max || rows.bytes() >= bytes_max {
                    return Ok(offset);
                }
            }
            place += header.frame_len();
        }
        if offset < end {
            if segment.name.compacted_to.is_none() {
                let reason = format!("offset {offset} was expected, the segment ends; the next one begins at {end}");
                return Err(TopicError::corrupt(&segment.path, place, reason));
            }
            offset = end;
        }
        Ok(offset)
    }

    /// In a segment that was not compacted, no offset is left out.
    fn check_follows(
        &self,
        segment: &Segment,
        place: u64,
        header: &FrameHeader,
        offset: u64,
        expected: &mut Option<u64>,
    ) -> Result<(), TopicError> {
        let follows = match *expected {
            Some(expected) => header.first == expected,
            None => header.first <= offset,
        };
        *expected = Some(header.end);
        if segment.name.compacted_to.is_none() && !follows {
            let reason = format!("offset {offset} was expected, not {}", header.first);
            return Err(TopicError::corrupt(&segment.path, place, reason));
        }
        Ok(())
    }

    /// The first offset that can be read, and the end.
    pub(super) fn bounds(&self, take: TakeLock<'_>) -> Result<(u64, u64), TopicError> {
        let mut state = self.current(take)?;
        if let Some(first) = state.closed().first()
            && let Err(error) = self.len(*first)
        {
            if !error.is_not_found() {
                return Err(error);
            }
            drop(state);
            state = self.reloaded(take)?;
        }
        Ok((state.start(), state.end))
    }

    pub(super) fn stats(&self) -> Result<PartitionStats, TopicError> {
        let mut state = self.state();
        self.load(&mut state)?;
        self.look(&mut state, true)?;
        let mut bytes = state.place;
        for name in state.closed() {
            bytes += self.len(*name)?;
        }
        let (start, end, segments) = (state.start(), state.end, state.segments.len());
        Ok(PartitionStats { start, end, segments, bytes, producers: state.producers.len() })
    }

    /// Bytes of a segment.
    pub(super) fn len(&self, name: SegmentName) -> Result<u64, TopicError> {
        let path = self.path(name);
        let file = self.disk.open(&path).map_err(TopicError::io("open", &path))?;
        file.len().map_err(TopicError::io("read", &path))
    }
}
