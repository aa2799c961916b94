use std::io::{self, Read};

use memchr::memchr;
use wasmill_contract::BatchLimit;

use super::{Bad, Decoder, RowBuffer, Step, TextFormat, too_long};

/// Bytes asked for in one read. Fits the second-level cache, so that the copy into a column reads
/// what the kernel has just written.
const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of a record too long that are kept for people to look at.
const BAD_BYTES_MAX: usize = 4 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Why [`RecordReader::fill`] returned.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The rows reached the limit; more may be at hand.
    Full,
    /// A record behind the rows that cannot be an event. Reading goes on behind it.
    Bad(Bad),
    /// The input has no more bytes: the end, or for now.
    Dry,
}

/// What [`RecordReader::fill`] does where the input gives no more.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Patience {
    /// Dry means the end: bytes behind the last newline are a record.
    pub(crate) last: bool,
    /// Reading may wait: return rows rather than wait with them.
    pub(crate) eager: bool,
}

/// Reads records from bytes in large blocks.
///
/// # Invariants
/// `buffer[start..end]` are the bytes read and not consumed, and `offset` is that of the first of
/// them. At most one record and one block are held.
#[derive(Debug)]
pub(crate) struct RecordReader {
    decoder: Decoder,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    offset: u64,
    record_bytes_max: usize,
    /// A record that is too long, until its end is found.
    skipping: Option<Skipped>,
}

#[derive(Debug)]
struct Skipped {
    offset: u64,
    prefix: Vec<u8>,
}

impl RecordReader {
    /// A reader of input that starts at `offset`.
    pub(crate) fn new(text: &TextFormat, offset: u64) -> Self {
        Self {
            decoder: Decoder::new(text),
            buffer: Vec::new(),
            start: 0,
            end: 0,
            offset,
            record_bytes_max: text.record_bytes_max,
            skipping: None,
        }
    }

    /// The offset of the first record that was not returned.
    pub(crate) fn position(&self) -> u64 {
        self.skipping.as_ref().map_or(self.offset, |skipped| skipped.offset)
    }

    /// The offset of the next byte to read from the input.
    pub(crate) fn read_offset(&self) -> u64 {
        self.offset + (self.end - self.start) as u64
    }

    /// Goes to `offset`, as the input did. What a header said stays.
    pub(crate) fn seek(&mut self, offset: u64) {
        (self.start, self.end, self.offset, self.skipping) = (0, 0, offset, None);
    }

    /// Adds records to `rows` until `limit` is reached, a record is bad or the input runs dry.
    /// With [`Patience::eager`] also where there are rows and more would have to be read.
    ///
    /// # Errors
    /// Where the input fails, or is no text of this format at all ([`io::ErrorKind::InvalidData`]).
    pub(crate) fn fill(
        &mut self,
        input: &mut dyn Read,
        rows: &mut RowBuffer,
        limit: BatchLimit,
        Patience { last, eager }: Patience,
    ) -> io::Result<Stop> {
        let mut ended = false;
        loop {
            if self.skipping.is_some() {
                if let Some(bad) = self.skip(ended && last) {
                    return Ok(Stop::Bad(bad));
                }
            } else if let Some(stop) = self.decode(rows, limit, ended && last)? {
                return Ok(stop);
            }
            if ended {
                return Ok(Stop::Dry);
            }
            if eager && !rows.is_empty() {
                return Ok(Stop::Full);
            }
            ended = self.read(input)? == 0;
        }
    }

    /// Gives back the memory of the buffer, but for bytes of a record in the making.
    pub(crate) fn rest(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.buffer.truncate(self.end);
        self.buffer.shrink_to_fit();
    }

    fn decode(&mut self, rows: &mut RowBuffer, limit: BatchLimit, last: bool) -> io::Result<Option<Stop>> {
        loop {
            let bytes = &self.buffer[self.start..self.end];
            if self.offset == 0 && bytes.starts_with(BYTE_ORDER_MARK) && self.decoder.drops_byte_order_mark() {
                self.consume(BYTE_ORDER_MARK.len());
                continue;
            }
            let (consumed, step) = self
                .decoder
                .decode(bytes, self.offset, last, limit, rows)
                .map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))?;
            match step {
                Step::Full => {
                    self.consume(consumed);
                    return Ok(Some(Stop::Full));
                }
                Step::Bad { bytes: length, reason } => {
                    let record = &bytes[consumed - length..consumed];
                    let bad = Bad {
                        offset: self.offset + (consumed - length) as u64,
                        bytes: trimmed(&record[..length.min(BAD_BYTES_MAX)]),
                        reason,
                    };
                    self.consume(consumed);
                    return Ok(Some(Stop::Bad(bad)));
                }
                Step::More => {
                    self.consume(consumed);
                    let left = self.end - self.start;
                    // Two more bytes may be the end of the line.
                    if left > self.record_bytes_max + 2 {
                        let prefix = self.buffer[self.start..][..left.min(BAD_BYTES_MAX)].to_vec();
                        self.skipping = Some(Skipped { offset: self.offset, prefix });
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Goes behind the next newline, where the record that is too long ends.
    fn skip(&mut self, last: bool) -> Option<Bad> {
        let bytes = &self.buffer[self.start..self.end];
        let newline = memchr(b'\n', bytes);
        self.consume(newline.map_or(bytes.len(), |newline| newline + 1));
        if newline.is_none() && !last {
            return None;
        }
        let skipped = self.skipping.take()?;
        let line = memchr(b'\n', &skipped.prefix).unwrap_or(skipped.prefix.len());
        Some(Bad {
            offset: skipped.offset,
            bytes: trimmed(&skipped.prefix[..line]),
            reason: too_long(self.record_bytes_max),
        })
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    fn read(&mut self, input: &mut dyn Read) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() - self.end < BLOCK_BYTES / 2 {
            // Bounded: a record longer than `record_bytes_max` is skipped, not kept.
            self.buffer.resize(self.end + BLOCK_BYTES, 0);
        }
        loop {
            match input.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    let read = read?;
                    self.end += read;
                    return Ok(read);
                }
            }
        }
    }
}

fn trimmed(record: &[u8]) -> Vec<u8> {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record).to_vec()
}
