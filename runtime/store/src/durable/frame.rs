//! Frames: checksummed pieces of a file. See `docs/formats.md`.
//!
//! ```text
//! file    0  "WASMILL\n"     8  version u32     12  kind u32     16  sequence u64
//!        24  checksum u64 of bytes 0..24
//!        32  frame…
//! frame   0  "WmFr"          4  kind u8         5   zero         8   sequence u64
//!        16  epoch u64      24  payload length u32               28  zero u32
//!        32  payload checksum u64
//!        40  header checksum u64 of bytes 0..40, seeded with the frame's place in the file
//!        48  payload
//! ```
//!
//! Checksums are XXH3-64. The seed makes a copy of a frame at another place, such as inside a
//! payload, no frame.

use std::path::{Path, PathBuf};

use wasmill_env::{Disk, DiskFile, planted};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::StoreError;

/// The version of everything this module writes. It reads every one from 1 on.
pub(super) const VERSION: u32 = 3;
pub(super) const FILE_HEADER_BYTES: usize = 32;
pub(super) const FRAME_HEADER_BYTES: usize = 48;
/// The longest payload.
pub(super) const PAYLOAD_BYTES_MAX: u64 = u32::MAX as u64;

const FILE_MAGIC: &[u8; 8] = b"WASMILL\n";
const FRAME_MAGIC: &[u8; 4] = b"WmFr";
/// How much is looked through at once for a frame behind a damaged one.
const SEARCH_BYTES: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum FileKind {
    Log = 1,
    Base = 2,
    Run = 3,
    Layer = 4,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum FrameKind {
    /// Changes of an epoch, in a log.
    Epoch = 1,
    /// Changes between epochs, in a log.
    Edit = 2,
    /// Sorted entries, in a base.
    Block = 3,
    /// The end of a base.
    End = 4,
    /// Where the blocks of a base's state begin.
    Index = 5,
    /// Which state a base may have.
    Filter = 6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: FrameKind,
    pub(super) sequence: u64,
    pub(super) epoch: u64,
    pub(super) payload_len: u32,
    pub(super) payload_checksum: u64,
}

pub(super) fn file_header(kind: FileKind, sequence: u64) -> [u8; FILE_HEADER_BYTES] {
    let mut bytes = [0; FILE_HEADER_BYTES];
    bytes[..8].copy_from_slice(FILE_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(kind as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_le_bytes());
    let checksum = xxh3_64(&bytes[..24]);
    bytes[24..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Fills in the header of the frame that `bytes` is, with its payload from
/// [`FRAME_HEADER_BYTES`] on. `None` where the payload is too long.
pub(super) fn seal(bytes: &mut [u8], kind: FrameKind, sequence: u64, epoch: u64, offset: u64) -> Option<()> {
    let (header, payload) = bytes.split_first_chunk_mut::<FRAME_HEADER_BYTES>()?;
    let len = u32::try_from(payload.len()).ok()?;
    header[..4].copy_from_slice(FRAME_MAGIC);
    header[4..8].copy_from_slice(&[kind as u8, 0, 0, 0]);
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..24].copy_from_slice(&epoch.to_le_bytes());
    header[24..28].copy_from_slice(&len.to_le_bytes());
    header[28..32].copy_from_slice(&[0; 4]);
    header[32..40].copy_from_slice(&xxh3_64(payload).to_le_bytes());
    let checksum = xxh3_64_with_seed(&header[..40], offset);
    header[40..].copy_from_slice(&checksum.to_le_bytes());
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

fn frame_header(bytes: &[u8; FRAME_HEADER_BYTES], offset: u64) -> Result<FrameHeader, &'static str> {
    if bytes[..4] != *FRAME_MAGIC {
        return Err("a frame was expected, which begins with \"WmFr\"");
    }
    if u64_at(bytes, 40) != xxh3_64_with_seed(&bytes[..40], offset) {
        return Err("the checksum of the frame's header does not match");
    }
    let kind = match bytes[4] {
        1 => FrameKind::Epoch,
        2 => FrameKind::Edit,
        3 => FrameKind::Block,
        4 => FrameKind::End,
        5 => FrameKind::Index,
        6 => FrameKind::Filter,
        _ => return Err("the frame is of no known kind"),
    };
    Ok(FrameHeader {
        kind,
        sequence: u64_at(bytes, 8),
        epoch: u64_at(bytes, 16),
        payload_len: u32_at(bytes, 24),
        payload_checksum: u64_at(bytes, 32),
    })
}

/// What stands where a frame was expected.
#[derive(Debug)]
pub(super) enum Found {
    Frame(FrameHeader),
    /// The file ends here.
    End,
    /// Something that is no frame, with what is wrong.
    Damaged(&'static str),
}

/// Reads a file frame by frame.
#[derive(Debug)]
pub(super) struct FrameReader {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    pub(super) sequence: u64,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl FrameReader {
    pub(super) fn open(disk: &dyn Disk, path: &Path, kind: FileKind) -> Result<Self, StoreError> {
        let file = disk.open(path).map_err(StoreError::io("open", path))?;
        let len = file.len().map_err(StoreError::io("read", path))?;
        let mut header = [0; FILE_HEADER_BYTES];
        let read = file.read_at(0, &mut header).map_err(StoreError::io("read", path))?;
        let damaged = |offset, reason: &str| StoreError::corrupt(path, offset, reason);
        if read < FILE_HEADER_BYTES || header[..8] != *FILE_MAGIC {
            return Err(damaged(0, "a header was expected, which begins with \"WASMILL\" and a line feed"));
        }
        if u64_at(&header, 24) != xxh3_64(&header[..24]) {
            return Err(damaged(24, "the checksum of the file's header does not match"));
        }
        let found = u32_at(&header, 8);
        if !(1..=VERSION).contains(&found) {
            return Err(StoreError::UnknownVersion { path: path.to_owned(), found, newest: VERSION });
        }
        if u32_at(&header, 12) != kind as u32 {
            return Err(damaged(12, &format!("a file of kind {} was expected", kind as u32)));
        }
        let sequence = u64_at(&header, 16);
        Ok(Self { path: path.to_owned(), file, sequence, offset: FILE_HEADER_BYTES as u64, len })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn corrupt(&self, reason: impl Into<String>) -> StoreError {
        StoreError::corrupt(&self.path, self.offset, reason)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, StoreError> {
        self.file.read_at(offset, into).map_err(StoreError::io("read", &self.path))
    }

    /// Reads the frame here into `payload` and goes behind it. Stays where there is none.
    pub(super) fn next(&mut self, payload: &mut Vec<u8>) -> Result<Found, StoreError> {
        let found = self.at(self.offset, payload)?;
        if matches!(found, Found::Frame(_)) {
            self.offset += (FRAME_HEADER_BYTES + payload.len()) as u64;
        }
        Ok(found)
    }

    /// Reads the frame at a place into `payload`. Goes nowhere.
    pub(super) fn at(&self, offset: u64, payload: &mut Vec<u8>) -> Result<Found, StoreError> {
        payload.clear();
        if offset >= self.len {
            return Ok(Found::End);
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if self.read_at(offset, &mut bytes)? < FRAME_HEADER_BYTES {
            return Ok(Found::Damaged("the file ends within the header of a frame"));
        }
        let header = match frame_header(&bytes, offset) {
            Ok(header) => header,
            Err(reason) => return Ok(Found::Damaged(reason)),
        };
        let start = offset + FRAME_HEADER_BYTES as u64;
        let len = header.payload_len as usize;
        if self.len - start < len as u64 {
            return Ok(Found::Damaged("the file ends within a frame"));
        }
        payload.resize(len, 0);
        if self.read_at(start, payload)? < len {
            return Ok(Found::Damaged("the file ends within a frame"));
        }
        if xxh3_64(payload) != header.payload_checksum && !planted("checksum-not-verified") {
            return Ok(Found::Damaged("the checksum of the frame does not match"));
        }
        Ok(Found::Frame(header))
    }

    /// Reads the last frame, of which the last eight bytes say where it begins. Goes nowhere.
    pub(super) fn last(&self) -> Result<(FrameHeader, Vec<u8>), StoreError> {
        let mut at = [0; 8];
        let from = self.len.saturating_sub(8);
        self.read_at(from, &mut at)?;
        let at = u64::from_le_bytes(at);
        let damaged = |reason: &str| StoreError::corrupt(&self.path, from, reason);
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if at < FILE_HEADER_BYTES as u64 || at >= self.len || self.read_at(at, &mut bytes)? < FRAME_HEADER_BYTES {
            return Err(damaged("the file was expected to end with the place of its last frame"));
        }
        let header = frame_header(&bytes, at).map_err(damaged)?;
        if at + FRAME_HEADER_BYTES as u64 + u64::from(header.payload_len) != self.len {
            return Err(damaged("the last frame was expected to end with the file"));
        }
        let mut payload = vec![0; header.payload_len as usize];
        self.read_at(at + FRAME_HEADER_BYTES as u64, &mut payload)?;
        if xxh3_64(&payload) != header.payload_checksum {
            return Err(damaged("the checksum of the last frame does not match"));
        }
        Ok((header, payload))
    }

    /// Where behind this place a frame begins, if one does.
    pub(super) fn search(&self) -> Result<Option<u64>, StoreError> {
        let mut window = vec![0; SEARCH_BYTES];
        let mut offset = self.offset + 1;
        while offset + (FRAME_HEADER_BYTES as u64) <= self.len {
            let read = self.read_at(offset, &mut window)?;
            let mut at = 0;
            while let Some(bytes) = window[..read].get(at..).and_then(|rest| rest.first_chunk()) {
                if frame_header(bytes, offset + at as u64).is_ok() {
                    return Ok(Some(offset + at as u64));
                }
                at += 1;
            }
            if at == 0 {
                break;
            }
            offset += at as u64;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_at_another_place_is_no_frame() {
        let mut bytes = vec![0; FRAME_HEADER_BYTES + 5];
        assert_eq!(seal(&mut bytes, FrameKind::Epoch, 7, 6, 32), Some(()));
        let header = bytes.first_chunk().expect("a header");
        assert_eq!(frame_header(header, 32).map(|header| (header.sequence, header.epoch)), Ok((7, 6)));
        assert!(frame_header(header, 33).is_err());
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        let mut bytes = vec![0; FRAME_HEADER_BYTES];
        assert_eq!(seal(&mut bytes, FrameKind::Epoch, 7, 6, 32), Some(()));
        for bit in 0..8 * FRAME_HEADER_BYTES {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(frame_header(flipped.first_chunk().expect("a header"), 32).is_err(), "bit {bit}");
        }
    }
}
