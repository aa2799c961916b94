//! What a topic is: its file, and what that says.

use std::path::{Path, PathBuf};

use wasmill_env::Disk;
use wasmill_model::TopicName;

use super::TopicError;
use super::frame::{FILE_HEADER_BYTES, FileKind, Found, FrameKind, Frames, begin_frame, file_header, seal};
use crate::durable::base::{complete, create_partial, partial};
use crate::durable::codec::{Reader, put_varint};

/// Most partitions of a topic.
pub(super) const PARTITIONS_MAX: u32 = 256;
const SEGMENT_BYTES: u64 = 64 << 20;
const SEGMENT_BYTES_MAX: u64 = 4 << 30;
const TOMBSTONE_GRACE_MICROS: u64 = 24 * 3_600 * 1_000_000;
const SUFFIX: &str = ".topic";

/// How a topic is made. Fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicConfig {
    /// Partitions, from 1 to 256.
    pub partitions: u32,
    /// Records older than this may be removed, in microseconds since they were appended.
    pub retention_micros: Option<u64>,
    /// What a partition holds beyond this many bytes may be removed, oldest first.
    pub retention_bytes: Option<u64>,
    /// Whether only the last record of each key is kept. One with an empty value, a tombstone, says
    /// that there is none.
    pub compact: bool,
    /// How long a tombstone stays, so that readers that are behind see it, in microseconds.
    pub tombstone_grace_micros: u64,
    /// Bytes at which a segment, the unit of removal, ends.
    pub segment_bytes: u64,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            partitions: 1,
            retention_micros: None,
            retention_bytes: None,
            compact: false,
            tombstone_grace_micros: TOMBSTONE_GRACE_MICROS,
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

impl TopicConfig {
    pub(super) fn check(&self) -> Result<(), TopicError> {
        let wrong = |reason: String| Err(TopicError::Config { reason });
        if !(1..=PARTITIONS_MAX).contains(&self.partitions) {
            return wrong(format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {}", self.partitions));
        }
        if !(1..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return wrong(format!("a segment has 1 to {SEGMENT_BYTES_MAX} bytes, not {}", self.segment_bytes));
        }
        if self.retention_micros == Some(0) || self.retention_bytes == Some(0) {
            return wrong("retention is more than 0".to_owned());
        }
        Ok(())
    }
}

/// A topic as its file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Described {
    /// When it was made: another topic of the same name has another one.
    pub(super) id: u64,
    pub(super) config: TopicConfig,
}

pub(super) fn path(dir: &Path, name: &TopicName) -> PathBuf {
    dir.join(format!("{name}{SUFFIX}"))
}

/// The topics in a folder.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<TopicName>, TopicError> {
    match disk.list(dir) {
        Ok(files) => Ok(files.iter().filter_map(|file| TopicName::new(file.strip_suffix(SUFFIX)?).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(TopicError::io("list", dir)(error)),
    }
}

/// Makes the topic exist.
pub(super) fn write(disk: &dyn Disk, path: &Path, described: &Described) -> Result<(), TopicError> {
    let Described { id, config } = described;
    let mut bytes = file_header(FileKind::Topic, *id).to_vec();
    let frame = begin_frame(&mut bytes);
    put_varint(&mut bytes, u64::from(config.partitions));
    put_varint(&mut bytes, config.retention_micros.unwrap_or(0));
    put_varint(&mut bytes, config.retention_bytes.unwrap_or(0));
    bytes.push(u8::from(config.compact));
    put_varint(&mut bytes, config.tombstone_grace_micros);
    put_varint(&mut bytes, config.segment_bytes);
    write_frame(disk, path, bytes, frame, FrameKind::Topic)
}

/// Writes a file of one frame, all or nothing.
pub(super) fn write_frame(
    disk: &dyn Disk,
    path: &Path,
    mut bytes: Vec<u8>,
    frame: usize,
    kind: FrameKind,
) -> Result<(), TopicError> {
    let len = bytes.len() as u64;
    if seal(&mut bytes[frame..], kind, 0, 0, 0, frame as u64).is_none() {
        return Err(TopicError::Config { reason: format!("{len} bytes are too much for {}", path.display()) });
    }
    let mut file = create_partial(disk, path)?;
    file.append(&bytes).map_err(TopicError::io("write", &partial(path)))?;
    Ok(complete(disk, path, &mut *file)?)
}

/// Reads a file of one frame: its number and the payload. `None` where there is no such file.
pub(super) fn read_frame(
    disk: &dyn Disk,
    path: &Path,
    kind: FileKind,
    frame: FrameKind,
) -> Result<Option<(u64, Vec<u8>)>, TopicError> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(TopicError::io("open", path))?,
    };
    let len = file.len().map_err(TopicError::io("read", path))?;
    let mut frames = Frames::new(&*file, path, len);
    let number = frames.file_header(kind)?;
    let place = FILE_HEADER_BYTES as u64;
    let damaged = |reason: &str| TopicError::corrupt(path, place, reason);
    let header = match frames.header(place)? {
        Found::Frame(header) if header.kind == frame && place + header.frame_len() == len => header,
        Found::Frame(_) => return Err(damaged("another frame was expected, and nothing behind it")),
        Found::End => return Err(damaged("a frame was expected, the file ends")),
        Found::Damaged(reason) => return Err(damaged(reason)),
    };
    let payload = frames.payload(place, &header)?.ok_or_else(|| damaged("the checksum of the frame does not match"))?;
    Ok(Some((number, payload.to_vec())))
}

/// Reads what a topic is; `None` where there is none.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Described>, TopicError> {
    let Some((id, payload)) = read_frame(disk, path, FileKind::Topic, FrameKind::Topic)? else { return Ok(None) };
    let malformed = || TopicError::corrupt(path, FILE_HEADER_BYTES as u64, "the configuration is malformed");
    let config = decode(&payload).ok_or_else(malformed)?;
    Ok(Some(Described { id, config }))
}

fn decode(payload: &[u8]) -> Option<TopicConfig> {
    let mut reader = Reader(payload);
    let config = TopicConfig {
        partitions: reader.number()?,
        retention_micros: Some(reader.varint()?).filter(|&micros| micros > 0),
        retention_bytes: Some(reader.varint()?).filter(|&bytes| bytes > 0),
        compact: match reader.byte()? {
            0 => false,
            1 => true,
            _ => return None,
        },
        tombstone_grace_micros: reader.varint()?,
        segment_bytes: reader.varint()?,
    };
    (reader.0.is_empty() && config.check().is_ok()).then_some(config)
}
