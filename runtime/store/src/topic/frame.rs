//! Files and frames of topics. See `docs/formats.md`.
//!
//! ```text
//! file    0  "WASMILL\n"     8  version u32     12  kind u32     16  number u64
//!        24  checksum u64 of bytes 0..24
//!        32  frame…
//! frame   0  "WmTf"          4  kind u8         5   zero
//!         8  first offset u64                  16   end offset u64
//!        24  appended i64   32  payload length u32               36  zero u32
//!        40  payload checksum u64
//!        48  header checksum u64 of bytes 0..48, seeded with the frame's place in the file
//!        56  payload
//! ```

use std::path::Path;

use wasmill_env::DiskFile;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::TopicError;
use crate::StoreError;

/// The version of everything topics write.
const VERSION: u32 = 1;
pub(super) const FILE_HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 56;

const FILE_MAGIC: &[u8; 8] = b"WASMILL\n";
const FRAME_MAGIC: &[u8; 4] = b"WmTf";
/// How much is read at once where frames are small.
const WINDOW_BYTES: usize = 256 << 10;
/// How much is looked through at once for a frame behind a damaged one.
const SEARCH_BYTES: usize = 1 << 20;

/// Apart from the kinds of a job's store, which begin at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum FileKind {
    Segment = 16,
    Topic = 17,
    Group = 18,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// Records, in a segment.
    Records = 1,
    /// What is known of producers, at the beginning of a segment.
    Producers = 2,
    /// The configuration of a topic.
    Topic = 3,
    /// The offsets of a group.
    Group = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: FrameKind,
    /// The offset of the first record.
    pub(super) first: u64,
    /// The offset behind the last record.
    pub(super) end: u64,
    /// When it was appended, in microseconds since the Unix epoch.
    pub(super) appended: i64,
    pub(super) payload_len: u32,
    payload_checksum: u64,
}

impl FrameHeader {
    pub(super) fn frame_len(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.payload_len)
    }
}

pub(super) fn file_header(kind: FileKind, number: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut bytes = [0; FILE_HEADER_BYTES];
    bytes[..8].copy_from_slice(FILE_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(kind as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&number.to_le_bytes());
    let checksum = xxh3_64(&bytes[..24]);
    bytes[24..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Room for the header of a frame, to put the payload behind.
pub(super) fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + FRAME_HEADER_BYTES, 0);
    start
}

/// Fills in the header of the frame that `bytes` is. `None` where its payload is too long.
pub(super) fn seal(bytes: &mut [u8], kind: FrameKind, first: u64, end: u64, appended: i64, place: u64) -> Option<()> {
    let (header, payload) = bytes.split_first_chunk_mut::<FRAME_HEADER_BYTES>()?;
    let len = u32::try_from(payload.len()).ok()?;
    header[..4].copy_from_slice(FRAME_MAGIC);
    header[4..8].copy_from_slice(&[kind as u8, 0, 0, 0]);
    header[8..16].copy_from_slice(&first.to_le_bytes());
    header[16..24].copy_from_slice(&end.to_le_bytes());
    header[24..32].copy_from_slice(&appended.to_le_bytes());
    header[32..36].copy_from_slice(&len.to_le_bytes());
    header[36..40].copy_from_slice(&[0; 4]);
    header[40..48].copy_from_slice(&xxh3_64(payload).to_le_bytes());
    let checksum = xxh3_64_with_seed(&header[..48], place);
    header[48..].copy_from_slice(&checksum.to_le_bytes());
    Some(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn frame_header(bytes: &[u8; FRAME_HEADER_BYTES], place: u64) -> Result<FrameHeader, &'static str> {
    if bytes[..4] != *FRAME_MAGIC {
        return Err("a frame was expected, which begins with \"WmTf\"");
    }
    if u64_at(bytes, 48) != xxh3_64_with_seed(&bytes[..48], place) {
        return Err("the checksum of the frame's header does not match");
    }
    let kind = match bytes[4] {
        1 => FrameKind::Records,
        2 => FrameKind::Producers,
        3 => FrameKind::Topic,
        4 => FrameKind::Group,
        _ => return Err("the frame is of no known kind"),
    };
    Ok(FrameHeader {
        kind,
        first: u64_at(bytes, 8),
        end: u64_at(bytes, 16),
        appended: u64_at(bytes, 24).cast_signed(),
        payload_len: u32_at(bytes, 32),
        payload_checksum: u64_at(bytes, 40),
    })
}

/// What stands at a place of a file.
#[derive(Debug)]
pub(super) enum Found {
    Frame(FrameHeader),
    /// The part that is read ends here.
    End,
    /// Something that is no frame, with what is wrong.
    Damaged(&'static str),
}

/// Looks at frames through a window, so that small ones do not cost a read each.
pub(super) struct Frames<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    /// What is behind this place is not looked at.
    pub(super) limit: u64,
    start: u64,
    window: Vec<u8>,
}

impl<'a> Frames<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, path: &'a Path, limit: u64) -> Self {
        Self { file, path, limit, start: 0, window: Vec::new() }
    }

    /// The bytes at a place; fewer where the file has no more.
    fn bytes(&mut self, place: u64, len: usize) -> Result<&[u8], TopicError> {
        let inside = place >= self.start && place + len as u64 <= self.start + self.window.len() as u64;
        if !inside {
            let left = usize::try_from(self.limit.saturating_sub(place)).unwrap_or(usize::MAX);
            self.window.resize(len.max(WINDOW_BYTES).min(left), 0);
            self.start = place;
            let read = self.file.read_at(place, &mut self.window).map_err(TopicError::io("read", self.path))?;
            self.window.truncate(read);
        }
        let from = usize::try_from(place - self.start).unwrap_or(usize::MAX);
        let rest = self.window.get(from..).unwrap_or(&[]);
        Ok(&rest[..len.min(rest.len())])
    }

    /// Checks the header of the file. Returns its number.
    pub(super) fn file_header(&mut self, kind: FileKind) -> Result<u64, TopicError> {
        let path = self.path;
        let damaged = |place, reason: &str| TopicError::corrupt(path, place, reason);
        let header = self.bytes(0, FILE_HEADER_BYTES)?;
        if header.len() < FILE_HEADER_BYTES || header[..8] != *FILE_MAGIC {
            return Err(damaged(0, "a header was expected, which begins with \"WASMILL\" and a line feed"));
        }
        if u64_at(header, 24) != xxh3_64(&header[..24]) {
            return Err(damaged(24, "the checksum of the file's header does not match"));
        }
        let found = u32_at(header, 8);
        if found != VERSION {
            return Err(StoreError::UnknownVersion { path: path.to_owned(), found, newest: VERSION }.into());
        }
        if u32_at(header, 12) != kind as u32 {
            return Err(damaged(12, &format!("a file of kind {} was expected", kind as u32)));
        }
        Ok(u64_at(header, 16))
    }

    /// The header of the frame at a place. Its payload is within the file, and not looked at.
    pub(super) fn header(&mut self, place: u64) -> Result<Found, TopicError> {
        if place >= self.limit {
            return Ok(Found::End);
        }
        let Some(bytes) = self.bytes(place, FRAME_HEADER_BYTES)?.first_chunk() else {
            return Ok(Found::Damaged("the file ends within the header of a frame"));
        };
        Ok(match frame_header(bytes, place) {
            Err(reason) => Found::Damaged(reason),
            Ok(header) if place + header.frame_len() > self.limit => Found::Damaged("the file ends within a frame"),
            Ok(header) => Found::Frame(header),
        })
    }

    /// The payload of the frame at a place; `None` where it is not what was written.
    pub(super) fn payload(&mut self, place: u64, header: &FrameHeader) -> Result<Option<&[u8]>, TopicError> {
        let len = header.payload_len as usize;
        let payload = self.bytes(place + FRAME_HEADER_BYTES as u64, len)?;
        Ok((payload.len() == len && xxh3_64(payload) == header.payload_checksum).then_some(payload))
    }

    /// Where behind a place a frame begins, if one does.
    pub(super) fn search(&mut self, place: u64) -> Result<Option<u64>, TopicError> {
        let mut from = place + 1;
        while from + FRAME_HEADER_BYTES as u64 <= self.limit {
            let bytes = self.bytes(from, SEARCH_BYTES)?;
            let mut at = 0;
            while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
                if frame_header(header, from + at as u64).is_ok() {
                    return Ok(Some(from + at as u64));
                }
                at += 1;
            }
            if at == 0 {
                break;
            }
            from += at as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        assert_eq!(seal(&mut bytes, FrameKind::Records, 7, 9, 1, 32), Some(()));
        assert!(frame_header(bytes.first_chunk().expect("a header"), 32).is_ok());
        assert!(frame_header(bytes.first_chunk().expect("a header"), 33).is_err(), "at another place it is no frame");
        for bit in 0..8 * FRAME_HEADER_BYTES {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(frame_header(flipped.first_chunk().expect("a header"), 32).is_err(), "bit {bit}");
        }
    }
}
