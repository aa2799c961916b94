//! The log: segments of frames, each the changes of one epoch.
//!
//! # Crash consistency
//! A frame is appended only once the one before it is durable. So at most the last frame of the
//! last segment can be torn or missing, and whatever has a valid frame or another segment behind
//! it was durable once: if it cannot be read now, it is damaged.
//!
//! A segment gets its name only once its header is durable. The segment that follows says with its
//! first sequence number how far the one before counts; what stands there behind that is ignored.

use std::path::{Path, PathBuf};

use wasmill_env::{Disk, DiskFile, kill_point, planted};

use super::StoreError;
use super::base::{complete, create_partial, partial};
use super::frame::{FRAME_HEADER_BYTES, FileKind, Found, FrameHeader, FrameKind, FrameReader, file_header, seal};
use super::layout::segment_path;

/// A segment that is appended to.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    pub(super) start: u64,
    pub(super) bytes: u64,
    /// Its name is durable. Before that nothing in it is.
    named: bool,
}

impl Segment {
    /// Goes on with a segment that an earlier process, or life of the job, has left without a frame: its
    /// header is durable, as it has a name. `None` where it is not there, or holds anything else.
    pub(super) fn adopt(
        disk: &dyn Disk,
        dir: &Path,
        start: u64,
        found: &[(u64, u64)],
    ) -> Result<Option<Self>, StoreError> {
        let bytes = file_header(FileKind::Log, start).len() as u64;
        if found.last() != Some(&(start, bytes)) {
            return Ok(None);
        }
        let path = segment_path(dir, start);
        let file = disk.open(&path).map_err(StoreError::io("open", &path))?;
        Ok(Some(Self { path, file, start, bytes, named: false }))
    }

    /// Begins a segment at `start`, in place of one that begins there too. `frame`, with room for
    /// its header, is copied into it as its first one.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        start: u64,
        frame: Option<(&mut [u8], FrameHeader)>,
    ) -> Result<Self, StoreError> {
        let path = segment_path(dir, start);
        let mut file = create_partial(disk, &path)?;
        let partial = partial(&path);
        let mut bytes = file_header(FileKind::Log, start).to_vec();
        if let Some((frame, FrameHeader { kind, sequence, epoch, .. })) = frame
            && seal(frame, kind, sequence, epoch, bytes.len() as u64).is_some()
        {
            bytes.extend_from_slice(frame);
        }
        file.append(&bytes).map_err(StoreError::io("write", &partial))?;
        complete(disk, &path, &mut *file)?;
        Ok(Self { path, file, start, bytes: bytes.len() as u64, named: true })
    }

    /// Appends a frame that was sealed for [`Self::bytes`], durably.
    pub(super) fn append(&mut self, disk: &dyn Disk, frame: &[u8]) -> Result<(), StoreError> {
        kill_point("frame-append");
        self.file.append(frame).map_err(StoreError::io("write", &self.path))?;
        kill_point("frame-appended");
        if !planted("acknowledge-before-sync") {
            self.file.sync_data().map_err(StoreError::io("sync", &self.path))?;
        }
        if !self.named {
            let dir = self.path.parent().unwrap_or(Path::new(""));
            disk.sync_dir(dir).map_err(StoreError::io("sync", dir))?;
            self.named = true;
        }
        kill_point("frame-synced");
        self.bytes += frame.len() as u64;
        Ok(())
    }
}

/// How reading a log ended.
#[derive(Debug)]
pub(super) struct Read {
    /// The last frame, or the base where there is none.
    pub(super) sequence: u64,
    pub(super) epoch: u64,
    /// The last frame where it stands in the last segment: nothing says yet that it is durable.
    pub(super) last: Option<FrameHeader>,
    /// Segments, with the bytes of each.
    pub(super) segments: Vec<(u64, u64)>,
}

/// Hands over the payloads of all frames behind `sequence` and `epoch`, in order. The last of
/// `segments` may end torn, unless something is known to `follow` it.
pub(super) fn read(
    disk: &dyn Disk,
    dir: &Path,
    segments: &[u64],
    follow: Option<u64>,
    (mut sequence, mut epoch): (u64, u64),
    mut take: impl FnMut(Vec<u8>) -> Result<bool, StoreError>,
) -> Result<Read, StoreError> {
    let (mut read, mut last) = (Vec::with_capacity(segments.len()), None);
    for (place, &start) in segments.iter().enumerate() {
        let mut reader = FrameReader::open(disk, &segment_path(dir, start), FileKind::Log)?;
        read.push((start, reader.len));
        if reader.sequence != start {
            let (said, name) = (reader.sequence, format!("{start:x}"));
            return Err(reader.corrupt(format!("the segment begins at {said:x}, its name says {name}")));
        }
        if place == 0 && start > sequence + 1 {
            return Err(reader.corrupt(format!("the log was expected to begin at {:x}, before this", sequence + 1)));
        }
        let until = segments.get(place + 1).copied().or(follow);
        let mut next = start;
        while until.is_none_or(|until| next < until) {
            let offset = reader.offset;
            let mut payload = Vec::new();
            let header = match reader.next(&mut payload)? {
                Found::Frame(header) => header,
                Found::End if until.is_none() => break,
                Found::End => return Err(reader.corrupt(format!("frame {next:x} was expected, the file ends"))),
                Found::Damaged(reason) if until.is_some() => return Err(reader.corrupt(reason)),
                Found::Damaged(reason) => match reader.search()? {
                    Some(other) => return Err(reader.corrupt(format!("{reason}, and another follows at {other}"))),
                    None => break,
                },
            };
            let damaged = |reason: String| Err(StoreError::corrupt(reader.path(), offset, reason));
            if header.sequence != next {
                return damaged(format!("frame {next:x} was expected, not {:x}", header.sequence));
            }
            if header.sequence > sequence {
                let expected = match header.kind {
                    FrameKind::Epoch => epoch + 1,
                    FrameKind::Edit => epoch,
                    FrameKind::Block | FrameKind::End | FrameKind::Index | FrameKind::Filter => {
                        return damaged("a log holds no such frame".into());
                    }
                };
                if header.epoch != expected {
                    return damaged(format!("epoch {expected} was expected, not {}", header.epoch));
                }
                (sequence, epoch) = (header.sequence, header.epoch);
                last = until.is_none().then_some(header);
                if !take(payload)? {
                    return damaged("the frame holds something else than entries".into());
                }
            }
            next += 1;
        }
    }
    Ok(Read { sequence, epoch, last, segments: read })
}

/// A frame with room for its header.
pub(super) fn with_header(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    frame.extend_from_slice(payload);
    frame
}
