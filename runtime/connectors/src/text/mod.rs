//! Records in a stream of bytes: lines, JSON lines and CSV, cut straight into columns.
//!
//! [`RecordReader`] owns the one buffer between the input and the columns: bytes are read into it
//! in large blocks and copied once, from there into the values of a batch.

mod csv;
mod envelope;
mod lines;
mod reader;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wasmill_contract::BatchLimit;
use wasmill_model::{Batch, Column, ColumnBuilder};
use wasmill_spec::ByteSize;

use crate::options::ConfigError;
use csv::CsvDecoder;
pub(crate) use envelope::{Envelope, enveloped, write_envelopes};
pub(crate) use reader::{Patience, RecordReader, Stop};

/// How records follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// One JSON value a line. Blank lines do not count. The JSON itself is not checked here.
    JsonLines,
    /// A header row, then records. Each becomes a JSON object.
    Csv,
    /// One event a line, whatever its bytes, blank ones too.
    Lines,
}

/// What the fields of a CSV record become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CsvTypes {
    /// A JSON number where the text is one as it stands (`7`, `-1.5`, not `007` or `+1`), else a
    /// string.
    #[default]
    Infer,
    /// Always a string.
    Text,
}

/// Longest record, in bytes, where the job file does not say.
const RECORD_BYTES_MAX_DEFAULT: u64 = 1 << 20;
/// Longest record that a job file may allow, in bytes: it has to fit a batch.
const RECORD_BYTES_MAX_LIMIT: u64 = 64 << 20;

/// Everything that says how bytes become records.
#[derive(Debug, Clone)]
pub(crate) struct TextFormat {
    pub(crate) format: Format,
    /// One ASCII byte.
    pub(crate) delimiter: u8,
    pub(crate) types: CsvTypes,
    /// Texts of CSV fields that mean `null`.
    pub(crate) null: Vec<String>,
    /// Longest record in bytes.
    pub(crate) record_bytes_max: usize,
}

impl TextFormat {
    /// Checks the options of a job file.
    pub(crate) fn new(
        format: Format,
        delimiter: Option<char>,
        types: Option<CsvTypes>,
        null: Option<Vec<String>>,
        record_bytes_max: Option<ByteSize>,
    ) -> Result<Self, ConfigError> {
        if format != Format::Csv {
            let given = [("delimiter", delimiter.is_some()), ("types", types.is_some()), ("null", null.is_some())];
            if let Some((key, _)) = given.into_iter().find(|&(_, given)| given) {
                return Err(ConfigError::of(key, format!("option `{key}` goes with format \"csv\" only")));
            }
        }
        let delimiter = delimiter.unwrap_or(',');
        let Some(delimiter) = u8::try_from(delimiter).ok().filter(|d| d.is_ascii() && !b"\r\n\"".contains(d)) else {
            return Err(ConfigError::of("delimiter", format!("{delimiter:?} cannot separate fields"))
                .hint("use one ASCII character such as \",\", \";\" or \"\\t\""));
        };
        let bytes = record_bytes_max.map_or(RECORD_BYTES_MAX_DEFAULT, ByteSize::bytes);
        if bytes == 0 || bytes > RECORD_BYTES_MAX_LIMIT {
            let message = format!("a record has at least 1 and at most {RECORD_BYTES_MAX_LIMIT} bytes, not {bytes}");
            return Err(ConfigError::of("record_bytes_max", message));
        }
        Ok(Self {
            format,
            delimiter,
            types: types.unwrap_or_default(),
            null: null.unwrap_or_else(|| vec![String::new()]),
            record_bytes_max: bytes as usize,
        })
    }

    /// Whether the first record says how to read the others.
    pub(crate) fn has_header(&self) -> bool {
        self.format == Format::Csv
    }
}

/// Values and offsets of a batch in the making.
#[derive(Debug, Default)]
pub(crate) struct RowBuffer {
    values: ColumnBuilder,
    value_bytes: usize,
    offsets: Vec<u64>,
}

impl RowBuffer {
    /// Room for as many rows and bytes as the last batch had.
    fn sized_like(rows: usize, bytes: usize) -> Self {
        let values = ColumnBuilder::with_capacity(rows + rows / 8, bytes + bytes / 8);
        Self { values, value_bytes: 0, offsets: Vec::with_capacity(rows + rows / 8) }
    }

    #[inline]
    fn push(&mut self, offset: u64, value: &[u8]) {
        self.values.push(value);
        self.value_bytes += value.len();
        self.offsets.push(offset);
    }

    fn push_with(&mut self, offset: u64, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.values.open_row());
        self.values.end_row();
        self.value_bytes = self.values.byte_len() - 4 * self.values.len();
        self.offsets.push(offset);
    }

    #[inline]
    fn is_full(&self, limit: BatchLimit) -> bool {
        self.offsets.len() >= limit.rows || self.value_bytes >= limit.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The rows so far; the next ones find room for as many.
    pub(crate) fn take(&mut self) -> (Column, Vec<u64>) {
        let next = Self::sized_like(self.offsets.len(), self.value_bytes);
        let full = std::mem::replace(self, next);
        (full.values.finish(), full.offsets)
    }
}

/// A record that cannot be an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    /// Where it starts.
    pub(crate) offset: u64,
    /// Its first bytes.
    pub(crate) bytes: Vec<u8>,
    /// What is wrong.
    pub(crate) reason: String,
}

/// Why a decoder stopped.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// The bytes that are left are no whole record.
    More,
    /// The rows reached the limit.
    Full,
    /// The last `bytes` consumed bytes are a record that cannot be an event.
    Bad { bytes: usize, reason: String },
}

fn too_long(bytes_max: usize) -> String {
    format!("record is longer than {bytes_max} bytes (option record_bytes_max)")
}

/// Cuts records out of bytes.
#[derive(Debug)]
enum Decoder {
    Lines { blank: bool, bytes_max: usize },
    Csv(Box<CsvDecoder>),
}

impl Decoder {
    fn new(text: &TextFormat) -> Self {
        match text.format {
            Format::Lines => Self::Lines { blank: true, bytes_max: text.record_bytes_max },
            Format::JsonLines => Self::Lines { blank: false, bytes_max: text.record_bytes_max },
            Format::Csv => Self::Csv(Box::new(CsvDecoder::new(text))),
        }
    }

    /// Moves whole records from `bytes`, which start at `offset`, to `rows`. Returns how many bytes
    /// were consumed. `last` says that no byte will follow: what is left is a record.
    fn decode(
        &mut self,
        bytes: &[u8],
        offset: u64,
        last: bool,
        limit: BatchLimit,
        rows: &mut RowBuffer,
    ) -> Result<(usize, Step), String> {
        match self {
            Self::Lines { blank, bytes_max } => Ok(lines::decode(bytes, offset, last, *blank, *bytes_max, limit, rows)),
            Self::Csv(csv) => csv.decode(bytes, offset, last, limit, rows),
        }
    }

    /// Whether a byte order mark at the start of the input is no part of the first record.
    fn drops_byte_order_mark(&self) -> bool {
        !matches!(self, Self::Lines { blank: true, .. })
    }
}

/// Appends each value and a newline.
pub(crate) fn write_lines(out: &mut Vec<u8>, batch: &Batch) {
    let values = batch.values();
    out.reserve(values.data().len() + values.len());
    for value in values.iter() {
        out.extend_from_slice(value);
        out.push(b'\n');
    }
}

/// Where the part of a batch ends that starts at row `from` and keeps `limit`: for rows that were
/// read under a larger limit.
pub(crate) fn rows_within(batch: &Batch, from: usize, limit: BatchLimit) -> usize {
    let ends = batch.values().ends();
    let start = if from == 0 { 0 } else { ends[from - 1] as usize };
    // The row that reaches the limit is the last one.
    let by_bytes = ends[from..].partition_point(|&end| (end as usize - start) < limit.bytes) + 1;
    (from + by_bytes.min(limit.rows)).min(batch.len())
}
