//! Segments: names, which of them count, and how one is read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wasmill_env::{Disk, DiskFile};

use super::TopicError;
use super::frame::{
    FILE_HEADER_BYTES, FileKind, Found, FrameHeader, FrameKind, Frames, begin_frame, file_header, seal,
};
use super::record::Producers;
use crate::durable::base::{complete, create_partial, partial};

/// Bytes between two entries of an index.
const INDEX_BYTES: u64 = 64 << 10;

/// A segment by what its file is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentName {
    /// The offset that its first record has, or had before compaction.
    pub(super) base: u64,
    /// A compacted one takes the place of all that begin before this offset.
    pub(super) compacted_to: Option<u64>,
}

impl SegmentName {
    pub(super) fn plain(base: u64) -> Self {
        Self { base, compacted_to: None }
    }

    pub(super) fn path(self, dir: &Path, partition: u32) -> PathBuf {
        let base = self.base;
        dir.join(match self.compacted_to {
            None => format!("p{partition}-{base:016x}"),
            Some(end) => format!("p{partition}-{base:016x}-{end:016x}"),
        })
    }

    /// The partition and the segment that a file is.
    pub(super) fn parse(file: &str) -> Option<(u32, Self)> {
        let number = |digits: &str| (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
        let mut parts = file.strip_prefix('p')?.split('-');
        let partition = parts.next()?.parse().ok()?;
        let base = number(parts.next()?)?;
        let compacted_to = parts.next().map(|end| number(end).ok_or(())).transpose().ok()?;
        parts.next().is_none().then_some((partition, Self { base, compacted_to }))
    }

    /// Whether `other` has taken its place.
    fn is_replaced_by(self, other: Self) -> bool {
        let Some(end) = other.compacted_to else { return false };
        self != other
            && other.base <= self.base
            && self.base < end
            && self.compacted_to.is_none_or(|own| own < end || (own == end && other.base < self.base))
    }
}

/// Sorts out which segments count.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Oldest first.
    pub(super) live: Vec<SegmentName>,
    /// What compaction has replaced.
    pub(super) garbage: Vec<SegmentName>,
}

pub(super) fn decide_layout(mut names: Vec<SegmentName>) -> Layout {
    names.sort_unstable();
    let all = names.clone();
    let (garbage, live) = names.into_iter().partition(|name| all.iter().any(|other| name.is_replaced_by(*other)));
    Layout { live, garbage }
}

/// Begins a segment: it has its name only once it is durable.
pub(super) fn create(
    disk: &dyn Disk,
    path: &Path,
    base: u64,
    producers: &Producers,
    appended: i64,
) -> Result<(Box<dyn DiskFile>, u64), TopicError> {
    let mut file = create_partial(disk, path)?;
    let bytes = beginning(base, producers, appended);
    file.append(&bytes).map_err(TopicError::io("write", &partial(path)))?;
    complete(disk, path, &mut *file)?;
    Ok((file, bytes.len() as u64))
}

/// What a segment begins with.
pub(super) fn beginning(base: u64, producers: &Producers, appended: i64) -> Vec<u8> {
    let mut bytes = file_header(FileKind::Segment, base).to_vec();
    let frame = begin_frame(&mut bytes);
    producers.encode(&mut bytes);
    // A thousand producers with names of jobs and nodes stay far below 4 GiB.
    let sealed = seal(&mut bytes[frame..], FrameKind::Producers, base, base, appended, frame as u64);
    debug_assert!(sealed.is_some(), "producers fit a frame");
    bytes
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: SegmentName,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    index: Mutex<Index>,
}

/// Where some frames begin, as far as somebody has looked.
#[derive(Debug)]
struct Index {
    /// First offset and place, rising.
    entries: Vec<(u64, u64)>,
    /// The place behind the last frame that was looked at.
    seen: u64,
}

impl Segment {
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        partition: u32,
        name: SegmentName,
    ) -> Result<Arc<Self>, TopicError> {
        let path = name.path(dir, partition);
        let file = disk.open(&path).map_err(TopicError::io("open", &path))?;
        let len = file.len().map_err(TopicError::io("read", &path))?;
        let base = Frames::new(&*file, &path, len.min(FILE_HEADER_BYTES as u64)).file_header(FileKind::Segment)?;
        if base != name.base {
            let reason = format!("the segment begins at offset {base}, its name says {}", name.base);
            return Err(TopicError::corrupt(&path, 16, reason));
        }
        let index = Mutex::new(Index { entries: Vec::new(), seen: FILE_HEADER_BYTES as u64 });
        Ok(Arc::new(Self { name, path, file, index }))
    }

    pub(super) fn len(&self) -> Result<u64, TopicError> {
        self.file.len().map_err(TopicError::io("read", &self.path))
    }

    /// The frame at a place, which is known to be there: whatever is wrong is damage.
    pub(super) fn frame(&self, frames: &mut Frames<'_>, place: u64) -> Result<Option<FrameHeader>, TopicError> {
        match frames.header(place)? {
            Found::Frame(header) => Ok(Some(header)),
            Found::End => Ok(None),
            Found::Damaged(reason) => Err(TopicError::corrupt(&self.path, place, reason)),
        }
    }

    /// The payload of a frame that is known to be there.
    pub(super) fn payload<'a>(
        &self,
        frames: &'a mut Frames<'_>,
        place: u64,
        header: &FrameHeader,
    ) -> Result<&'a [u8], TopicError> {
        let damaged = || TopicError::corrupt(&self.path, place, "the checksum of the frame does not match");
        frames.payload(place, header)?.ok_or_else(damaged)
    }

    /// The place of the first frame that ends behind `offset`, or of the end.
    pub(super) fn locate(&self, frames: &mut Frames<'_>, offset: u64) -> Result<u64, TopicError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let before = index.entries.partition_point(|(first, _)| *first <= offset);
        let mut place = match before.checked_sub(1).and_then(|entry| index.entries.get(entry)) {
            Some((_, place)) => *place,
            None => FILE_HEADER_BYTES as u64,
        };
        while let Some(header) = self.frame(frames, place)? {
            if header.kind == FrameKind::Records {
                if place >= index.seen {
                    let apart = index.entries.last().is_none_or(|(_, last)| place - last >= INDEX_BYTES);
                    if apart {
                        index.entries.push((header.first, place));
                    }
                    index.seen = place + header.frame_len();
                }
                if header.end > offset {
                    break;
                }
            }
            place += header.frame_len();
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[&str]) -> Vec<SegmentName> {
        files.iter().map(|file| SegmentName::parse(file).expect("a name").1).collect()
    }

    #[test]
    fn names_are_read_back() {
        for name in [SegmentName::plain(7), SegmentName { base: 0, compacted_to: Some(0x1f) }] {
            let path = name.path(Path::new("/t"), 12);
            assert_eq!(SegmentName::parse(path.file_name().expect("a name").to_str().expect("text")), Some((12, name)));
        }
        for other in ["lock", "p0", "p0-1", "p0-0000000000000000.partial", "p0-0000000000000000-", "group-a"] {
            assert_eq!(SegmentName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn compacted_segments_take_the_place_of_what_they_cover() {
        let (plain, more) = (["p0-0000000000000000", "p0-0000000000000005"], "p0-0000000000000009");
        let once = "p0-0000000000000000-0000000000000009";
        let twice = "p0-0000000000000000-000000000000000c";
        let layout = decide_layout(names(&[plain[0], once, plain[1], more]));
        assert_eq!(layout, Layout { live: names(&[once, more]), garbage: names(&plain) });
        let layout = decide_layout(names(&[plain[1], once, twice, more]));
        assert_eq!(layout.live, names(&[twice]));
        assert_eq!(layout.garbage.len(), 3);
    }
}
