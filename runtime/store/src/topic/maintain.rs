//! Retention and compaction.
//!
//! # Crash consistency
//! Retention removes whole segments, oldest first, each durably before the next. Compaction writes what
//! stays into a new segment whose name says which ones it takes the place of; from the moment that name
//! is durable the others do not count, whether they are removed or not.

use std::collections::HashMap;

use wasmill_env::{DiskFile, PacedFile, kill_point};

use super::TopicError;
use super::config::TopicConfig;
use super::frame::{FrameHeader, FrameKind, Frames, begin_frame, seal};
use super::log::Log;
use super::partition::{Partition, State};
use super::record::{PayloadWriter, Producers, Row, read_payload};
use super::segment::{Segment, SegmentName, beginning};
use crate::durable::base::{complete, create_partial, partial, remove};

/// Bytes of keys that a compaction keeps in memory. Segments whose keys pass it wait for the next one.
const KEY_BYTES_MAX: usize = 64 << 20;
/// What one more key costs beside its bytes, about.
const KEY_OVERHEAD_BYTES: usize = 48;
const COMPACTION_LOCK: &str = "compaction-lock";
/// Frames of a compacted segment end here.
const FRAME_BYTES: usize = 1 << 20;
/// And where records of another minute begin, so that a frame's time stays near its records'.
const FRAME_MICROS: i64 = 60_000_000;

/// What tidying up has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that retention removed.
    pub expired_segments: u64,
    /// Segments that compaction read.
    pub compacted_segments: u64,
    /// Records that compaction left out.
    pub records_removed: u64,
    /// Bytes on disk that are free now.
    pub bytes_freed: u64,
}

/// What retention decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SegmentFacts {
    bytes: u64,
    /// When its last record was appended.
    appended: i64,
}

/// How many of the closed segments, oldest first, may go. `tail_bytes` are those of the last one.
fn decide_expired(closed: &[SegmentFacts], tail_bytes: u64, config: &TopicConfig, now: i64) -> usize {
    let too_old = |facts: &SegmentFacts| {
        config
            .retention_micros
            .is_some_and(|age| now.saturating_sub(facts.appended).cast_unsigned() > age && facts.appended < now)
    };
    let by_age = closed.iter().take_while(|facts| too_old(facts)).count();
    let mut total = tail_bytes + closed.iter().map(|facts| facts.bytes).sum::<u64>();
    let by_size = closed.iter().take_while(|facts| {
        total -= facts.bytes;
        config.retention_bytes.is_some_and(|max| total >= max)
    });
    by_age.max(by_size.count())
}

impl Log {
    /// Whether there is something to tidy up, as far as that can be told without looking at files.
    pub(super) fn maintenance_due(&self) -> bool {
        let config = &self.described.config;
        let wanted = config.compact || config.retention_micros.is_some() || config.retention_bytes.is_some();
        wanted && self.partitions.iter().any(|partition| partition.state().maintenance_due(config.compact))
    }

    /// Tidies up. Unless it is `thorough`, compaction waits until as much is new as it would have to
    /// write again.
    pub(super) fn maintain(&self, thorough: bool) -> Result<Compacted, TopicError> {
        let mut done = Compacted::default();
        for partition in &self.partitions {
            {
                let _locked = self.lock_existing()?;
                partition.expire(self.clock.wall().0, &mut done)?;
            }
            if self.described.config.compact {
                self.compact(partition, thorough, &mut done)?;
            }
            partition.state().tidied();
        }
        Ok(done)
    }

    /// Removes segments of a partition that hold only records before an offset, appended at or before
    /// a time.
    pub(super) fn trim(&self, partition: u32, before: u64, appended_until: i64) -> Result<(), TopicError> {
        let partition = self.partition(partition)?;
        if !partition.state().may_trim(before) {
            return Ok(());
        }
        let _locked = self.lock_existing()?;
        partition.trim(before, appended_until)
    }

    fn compact(&self, partition: &Partition, thorough: bool, done: &mut Compacted) -> Result<(), TopicError> {
        let path = self.dir.join(COMPACTION_LOCK);
        // Another process does it already.
        let Some(_alone) = self.disk.try_lock(&path).map_err(TopicError::io("lock", &path))? else { return Ok(()) };
        let names = {
            let _locked = self.lock_existing()?;
            let mut state = partition.state();
            partition.load(&mut state)?;
            state.closed().to_vec()
        };
        let now = self.clock.wall().0;
        let (mut old, mut new) = (0, 0);
        for name in &names {
            *(if name.compacted_to.is_some() { &mut old } else { &mut new }) += partition.len(*name)?;
        }
        // What was compacted before has nothing to leave out but tombstones.
        let enough =
            if thorough { new > 0 || partition.has_tombstones_due(&names, now)? } else { new > 0 && new >= old };
        if !enough {
            return Ok(());
        }
        let Some(folded) = partition.fold(&names, now)? else { return Ok(()) };
        let _locked = self.lock_existing()?;
        partition.replace(&names[..folded.segments], folded, done)
    }
}

/// A compacted segment that has no name yet.
struct Folded {
    segments: usize,
    name: SegmentName,
    removed: u64,
    bytes: u64,
    file: PacedFile,
}

impl Partition {
    fn facts(&self, name: SegmentName) -> Result<SegmentFacts, TopicError> {
        let segment = Segment::open(&*self.disk, &self.dir, self.number, name)?;
        let bytes = segment.len()?;
        let mut facts = SegmentFacts { bytes, appended: i64::MIN };
        self.headers(&segment, |_, header| facts.appended = facts.appended.max(header.appended))?;
        Ok(facts)
    }

    fn headers(&self, segment: &Segment, mut each: impl FnMut(u64, &FrameHeader)) -> Result<(), TopicError> {
        let mut frames = Frames::new(&*segment.file, &segment.path, segment.len()?);
        let mut place = super::frame::FILE_HEADER_BYTES as u64;
        while let Some(header) = segment.frame(&mut frames, place)? {
            each(place, &header);
            place += header.frame_len();
        }
        Ok(())
    }

    fn trim(&self, before: u64, appended_until: i64) -> Result<(), TopicError> {
        let mut state = self.current_locked()?;
        self.load(&mut state)?;
        while state.may_trim(before) && self.facts(state.segments[0])?.appended <= appended_until {
            self.remove_segment(state.segments[0])?;
            state.segments.remove(0);
        }
        Ok(())
    }

    /// Removes what retention does not hold any more, under the topic's lock.
    fn expire(&self, now: i64, done: &mut Compacted) -> Result<(), TopicError> {
        let mut state = self.current_locked()?;
        self.load(&mut state)?;
        // First, so that nothing comes to life when what replaced it is gone.
        for name in std::mem::take(&mut state.garbage) {
            done.bytes_freed += self.remove_segment(name)?;
        }
        let outlived = |appended: i64| {
            self.config.retention_micros.is_some_and(|age| now.saturating_sub(appended) > age.cast_signed())
        };
        if state.appended.is_some_and(|(_, last)| outlived(last)) {
            self.roll(&mut state, now)?;
        }
        let mut facts = Vec::new();
        for name in state.closed() {
            facts.push(self.facts(*name)?);
        }
        let expired = decide_expired(&facts, state.place, &self.config, now);
        for _ in 0..expired {
            let Some(&oldest) = state.segments.first() else { break };
            done.bytes_freed += self.remove_segment(oldest)?;
            done.expired_segments += 1;
            state.segments.remove(0);
            kill_point("topic-expired");
        }
        Ok(())
    }

    /// Removes a segment, durably. Returns how many bytes it had.
    fn remove_segment(&self, name: SegmentName) -> Result<u64, TopicError> {
        let bytes = self.len(name)?;
        remove(&*self.disk, &self.path(name))?;
        self.disk.sync_dir(&self.dir).map_err(TopicError::io("sync", &self.dir))?;
        Ok(bytes)
    }

    /// Hands over every record of a segment, with the header of its frame.
    fn records(
        &self,
        name: SegmentName,
        mut each: impl FnMut(&FrameHeader, Row<'_>) -> Result<(), TopicError>,
    ) -> Result<(), TopicError> {
        let segment = Segment::open(&*self.disk, &self.dir, self.number, name)?;
        let mut frames = Frames::new(&*segment.file, &segment.path, segment.len()?);
        let mut place = super::frame::FILE_HEADER_BYTES as u64;
        while let Some(header) = segment.frame(&mut frames, place)? {
            if header.kind == FrameKind::Records {
                let payload = segment.payload(&mut frames, place, &header)?;
                let mut failed = None;
                let row = |row: Row<'_>| {
                    failed = each(&header, row).err();
                    failed.is_none()
                };
                let read = read_payload(payload, header.first, header.end, |_, _, _| {}, row);
                if let Some(error) = failed {
                    return Err(error);
                }
                read.ok_or_else(|| TopicError::corrupt(&segment.path, place, "the records are malformed"))?;
            }
            place += header.frame_len();
        }
        Ok(())
    }

    fn has_tombstones_due(&self, names: &[SegmentName], now: i64) -> Result<bool, TopicError> {
        let mut due = false;
        for name in names {
            self.records(*name, |header, row| {
                due |= row.value.is_empty() && !row.key.is_empty() && self.grace_is_over(header, now);
                Ok(())
            })?;
        }
        Ok(due)
    }

    fn grace_is_over(&self, header: &FrameHeader, now: i64) -> bool {
        now.saturating_sub(header.appended) > i64::try_from(self.config.tombstone_grace_micros).unwrap_or(i64::MAX)
    }

    /// Writes what stays of as many segments as there is memory for. `None` where there is none.
    fn fold(&self, names: &[SegmentName], now: i64) -> Result<Option<Folded>, TopicError> {
        // The last record of each key.
        let mut last: HashMap<Box<[u8]>, u64> = HashMap::new();
        let (mut bytes, mut segments) = (0, 0);
        for name in names {
            self.records(*name, |_, row| {
                if let Some(offset) = last.get_mut(row.key) {
                    *offset = row.offset;
                } else if !row.key.is_empty() {
                    bytes += row.key.len() + KEY_OVERHEAD_BYTES;
                    last.insert(row.key.into(), row.offset);
                }
                Ok(())
            })?;
            segments += 1;
            if bytes > KEY_BYTES_MAX {
                break;
            }
        }
        let Some((first, end)) = names.first().zip(self.end_of(names, segments)) else { return Ok(None) };
        let name = SegmentName { base: first.base, compacted_to: Some(end) };
        let path = self.path(name);
        let mut writer = FoldWriter {
            file: PacedFile::new(create_partial(&*self.disk, &path)?),
            path: partial(&path),
            place: 0,
            frame: Vec::new(),
            rows: Vec::new(),
            bytes: 0,
            appended: i64::MIN,
        };
        writer.put(&beginning(first.base, &Producers::default(), now))?;
        let mut removed = 0;
        for name in &names[..segments] {
            self.records(*name, |header, row| {
                let latest = row.key.is_empty() || last.get(row.key) == Some(&row.offset);
                let over = row.value.is_empty() && !row.key.is_empty() && self.grace_is_over(header, now);
                if latest && !over {
                    return writer.push(header, row);
                }
                removed += 1;
                Ok(())
            })?;
        }
        writer.end_frame()?;
        Ok(Some(Folded { segments, name, removed, bytes: writer.place, file: writer.file }))
    }

    /// The offset at which the segment in front of `place` ends.
    fn end_of(&self, names: &[SegmentName], place: usize) -> Option<u64> {
        match names.get(place) {
            Some(next) => Some(next.base),
            None => {
                self.state().segments.iter().find(|name| Some(**name) > names.last().copied()).map(|name| name.base)
            }
        }
    }

    /// Puts a compacted segment in the place of others, under the topic's lock.
    fn replace(&self, names: &[SegmentName], mut folded: Folded, done: &mut Compacted) -> Result<(), TopicError> {
        let mut state = self.state();
        self.load(&mut state)?;
        let path = self.path(folded.name);
        if !state.closed().starts_with(names) {
            // Retention was faster.
            return Ok(remove(&*self.disk, &partial(&path))?);
        }
        complete(&*self.disk, &path, &mut folded.file)?;
        kill_point("topic-compacted");
        let mut freed = 0;
        for name in names.iter().filter(|name| **name != folded.name) {
            freed += self.remove_segment(*name)?;
        }
        done.compacted_segments += names.len() as u64;
        done.records_removed += folded.removed;
        done.bytes_freed += freed.saturating_sub(folded.bytes);
        self.load(&mut state)
    }
}

/// Writes the records that stay.
struct FoldWriter {
    file: PacedFile,
    path: std::path::PathBuf,
    place: u64,
    frame: Vec<u8>,
    /// Records of the frame under way.
    rows: Vec<OwnedRow>,
    bytes: usize,
    appended: i64,
}

struct OwnedRow {
    offset: u64,
    time: i64,
    key: Box<[u8]>,
    value: Box<[u8]>,
    headers: Box<[u8]>,
}

impl FoldWriter {
    fn put(&mut self, bytes: &[u8]) -> Result<(), TopicError> {
        self.file.append(bytes).map_err(TopicError::io("write", &self.path))?;
        self.place += bytes.len() as u64;
        Ok(())
    }

    fn push(&mut self, header: &FrameHeader, row: Row<'_>) -> Result<(), TopicError> {
        let other_minute = self.appended.div_euclid(FRAME_MICROS) != header.appended.div_euclid(FRAME_MICROS);
        if self.bytes >= FRAME_BYTES || other_minute {
            self.end_frame()?;
        }
        self.appended = self.appended.max(header.appended);
        self.bytes += row.key.len() + row.value.len() + row.headers.len();
        let Row { offset, time, key, value, headers } = row;
        self.rows.push(OwnedRow { offset, time, key: key.into(), value: value.into(), headers: headers.into() });
        Ok(())
    }

    fn end_frame(&mut self) -> Result<(), TopicError> {
        if let (Some(first), Some(last)) = (self.rows.first().map(|row| row.offset), self.rows.last()) {
            let end = last.offset + 1;
            let mut frame = std::mem::take(&mut self.frame);
            frame.clear();
            begin_frame(&mut frame);
            let mut payload = PayloadWriter::new(&mut frame, first);
            payload.section(None, self.rows.len());
            for row in self.rows.drain(..) {
                payload.row(row.offset, row.time, &row.key, &row.value, &row.headers);
            }
            let sealed = seal(&mut frame, FrameKind::Records, first, end, self.appended, self.place);
            debug_assert!(sealed.is_some(), "a frame of a megabyte and one record fits");
            self.put(&frame)?;
            self.frame = frame;
        }
        (self.bytes, self.appended) = (0, i64::MIN);
        Ok(())
    }
}

impl State {
    /// Whether the first segment is not the last, and all of it is before an offset.
    fn may_trim(&self, before: u64) -> bool {
        self.segments.get(1).is_some_and(|second| second.base <= before)
    }

    fn maintenance_due(&self, compact: bool) -> bool {
        let closed = self.closed();
        let plain = closed.iter().filter(|name| name.compacted_to.is_none()).count();
        !self.is_tidy() && if compact { plain > 0 } else { !closed.is_empty() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_goes_by_age_and_by_size_and_never_takes_the_last_segment() {
        let closed = [10, 20, 30].map(|appended| SegmentFacts { bytes: 100, appended });
        let config =
            |age, bytes| TopicConfig { retention_micros: age, retention_bytes: bytes, ..TopicConfig::default() };
        let expired = |age, bytes, now| decide_expired(&closed, 50, &config(age, bytes), now);
        assert_eq!([15, 26, 31, 1_000].map(|now| expired(Some(5), None, now)), [0, 2, 2, 3]);
        assert_eq!([1_000, 350, 250, 249, 50, 1].map(|max| expired(None, Some(max), 0)), [0, 0, 1, 1, 3, 3]);
        assert_eq!(expired(None, None, 1_000), 0);
        assert_eq!(expired(Some(5), Some(1), 15), 3);
    }
}
