use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmill_contract::ConnectorError;
use wasmill_model::ErrorKind;
use xxhash_rust::xxh3::xxh3_64;

use super::config::Compression;
use crate::error::io_error;

/// Bytes at the start of a file that tell it from others.
const HEAD_BYTES_MAX: u64 = 1 << 10;
/// Bytes of compressed input read at once.
const COMPRESSED_BLOCK_BYTES: usize = 64 << 10;

/// What tells a file from others, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// How many of its first bytes were hashed.
    pub(super) bytes: u64,
    /// XXH3-64 of them.
    pub(super) hash: u64,
}

impl Head {
    fn read(file: &File, bytes: u64) -> io::Result<Self> {
        let mut head = vec![0; bytes.min(HEAD_BYTES_MAX) as usize];
        let mut read = 0;
        while read < head.len() {
            match file.read_at(&mut head[read..], read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { bytes: read as u64, hash: xxh3_64(&head[..read]) })
    }

    /// Whether `file` begins with the same bytes.
    pub(super) fn matches(self, file: &File) -> io::Result<bool> {
        Ok(Self::read(file, self.bytes)? == self)
    }
}

/// An open file, decompressed as it is read.
pub(super) struct Input {
    reader: Box<dyn Read + Send>,
    file: Arc<File>,
    compressed: bool,
    /// Bytes of the file, as it lies on disk, that were read.
    raw: Arc<AtomicU64>,
    pub(super) head: Head,
    /// Device and inode.
    pub(super) inode: (u64, u64),
}

/// Counts what is read.
struct Counted {
    file: Arc<File>,
    raw: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = (&*self.file).read(into)?;
        self.raw.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Input {
    /// Opens `path` at its start.
    pub(super) fn open(path: &Path, compression: Option<Compression>) -> Result<Self, ConnectorError> {
        let fail = |error| io_error("open", path, error);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if !metadata.is_file() {
            let message =
                format!("cannot read {}: it is no regular file; for a pipe use connector \"stdin\"", path.display());
            return Err(ConnectorError::new(ErrorKind::Config, message));
        }
        let head = Head::read(&file, HEAD_BYTES_MAX).map_err(|error| io_error("read", path, error))?;
        let file = Arc::new(file);
        let raw = Arc::new(AtomicU64::new(0));
        let counted = Counted { file: file.clone(), raw: raw.clone() };
        let buffered = |counted| BufReader::with_capacity(COMPRESSED_BLOCK_BYTES, counted);
        let compression = compression_of(path, compression);
        let reader: Box<dyn Read + Send> = match compression {
            Compression::None => Box::new(counted),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(counted))),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(buffered(counted)).map_err(fail)?),
        };
        let compressed = compression != Compression::None;
        Ok(Self { reader, file, compressed, raw, head, inode: (metadata.dev(), metadata.ino()) })
    }

    /// Goes on at `offset`, from the start: compressed input is read and dropped up to there.
    pub(super) fn seek(&mut self, offset: u64, path: &Path) -> Result<(), ConnectorError> {
        let fail = |error| io_error("read", path, error);
        let length = if self.compressed {
            io::copy(&mut (&mut self.reader).take(offset), &mut io::sink()).map_err(fail)?
        } else {
            self.len().map_err(fail)?
        };
        if length < offset {
            let message = format!(
                "cannot go on reading {} at byte {offset}: it has {length} bytes; it was replaced or truncated",
                path.display()
            );
            return Err(ConnectorError::new(ErrorKind::Corrupt, message));
        }
        if !self.compressed {
            (&*self.file).seek(SeekFrom::Start(offset)).map_err(fail)?;
            self.raw.store(offset, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Bytes of the file as it lies on disk now.
    pub(super) fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    pub(super) fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Bytes read of the file as it lies on disk.
    pub(super) fn raw(&self) -> u64 {
        self.raw.load(Ordering::Relaxed)
    }

    /// Whether the file begins with the same bytes as one read before.
    pub(super) fn begins_as(&self, head: Head) -> io::Result<bool> {
        head.matches(&self.file)
    }

    /// Looks at the first bytes again: there may be more of them now.
    pub(super) fn refresh_head(&mut self) -> io::Result<()> {
        if self.head.bytes < HEAD_BYTES_MAX {
            self.head = Head::read(&self.file, HEAD_BYTES_MAX)?;
        }
        Ok(())
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reader.read(into)
    }
}

/// How `path` is compressed: as the job file says, else by its name.
pub(super) fn compression_of(path: &Path, option: Option<Compression>) -> Compression {
    option.unwrap_or_else(|| match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz" | "gzip") => Compression::Gzip,
        Some("zst" | "zstd") => Compression::Zstd,
        _ => Compression::None,
    })
}
