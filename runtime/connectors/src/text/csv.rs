use csv_core::ReadRecordResult;
use memchr::memchr;
use wasmill_contract::BatchLimit;

use super::{CsvTypes, RowBuffer, Step, TextFormat, too_long};

/// Most columns of a CSV file.
const COLUMNS_MAX: usize = 10_000;

/// Makes a JSON object of each CSV record (RFC 4180: quotes, doubled quotes, newlines in quotes).
#[derive(Debug)]
pub(super) struct CsvDecoder {
    reader: csv_core::Reader,
    types: CsvTypes,
    null: Vec<String>,
    bytes_max: usize,
    /// For each column what stands in front of its value: `{"a":` or `,"b":`. Empty until the
    /// header row was read.
    prefixes: Vec<Vec<u8>>,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

impl CsvDecoder {
    pub(super) fn new(text: &TextFormat) -> Self {
        Self {
            reader: csv_core::ReaderBuilder::new().delimiter(text.delimiter).build(),
            types: text.types,
            null: text.null.clone(),
            bytes_max: text.record_bytes_max,
            prefixes: Vec::new(),
            fields: vec![0; 1 << 10],
            ends: vec![0; 32],
        }
    }

    pub(super) fn decode(
        &mut self,
        bytes: &[u8],
        offset: u64,
        last: bool,
        limit: BatchLimit,
        rows: &mut RowBuffer,
    ) -> Result<(usize, Step), String> {
        let mut start = 0;
        loop {
            let blank = bytes[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            start += blank;
            if !self.prefixes.is_empty() && rows.is_full(limit) {
                return Ok((start, Step::Full));
            }
            if start == bytes.len() {
                return Ok((start, Step::More));
            }
            let Some((length, columns)) = self.read_record(&bytes[start..], last) else {
                return Ok((start, Step::More));
            };
            if self.prefixes.is_empty() {
                self.read_header(columns)?;
            } else if length > self.bytes_max + 2 {
                // The quote that opened it may be a mistake: only its first line is lost.
                let line = memchr(b'\n', &bytes[start..start + length]).map_or(length, |newline| newline + 1);
                return Ok((start + line, Step::Bad { bytes: line, reason: too_long(self.bytes_max) }));
            } else if let Err(reason) = self.push(offset + start as u64, columns, rows) {
                return Ok((start + length, Step::Bad { bytes: length, reason }));
            }
            start += length;
        }
    }

    /// Splits the record at the start of `input` into `fields` and `ends`. Returns its bytes and
    /// its columns, `None` where it is not whole.
    fn read_record(&mut self, input: &[u8], last: bool) -> Option<(usize, usize)> {
        self.reader.reset();
        let (mut read, mut written, mut columns) = (0, 0, 0);
        loop {
            let (result, bytes_in, bytes_out, ends) =
                self.reader.read_record(&input[read..], &mut self.fields[written..], &mut self.ends[columns..]);
            read += bytes_in;
            written += bytes_out;
            columns += ends;
            match result {
                ReadRecordResult::Record => return Some((read, columns)),
                // Both are bounded by the input, which is bounded by the longest record and a block.
                ReadRecordResult::OutputFull => self.fields.resize(2 * self.fields.len(), 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(2 * self.ends.len(), 0),
                // Asked again with no input, the reader takes it for the end.
                ReadRecordResult::InputEmpty if last => {}
                ReadRecordResult::InputEmpty | ReadRecordResult::End => return None,
            }
        }
    }

    fn field(&self, column: usize) -> &[u8] {
        let start = if column == 0 { 0 } else { self.ends[column - 1] };
        &self.fields[start..self.ends[column]]
    }

    fn read_header(&mut self, columns: usize) -> Result<(), String> {
        if columns > COLUMNS_MAX {
            return Err(format!("the header row has {columns} columns, at most {COLUMNS_MAX} are allowed"));
        }
        let mut names: Vec<&str> = Vec::with_capacity(columns);
        for column in 0..columns {
            let name = std::str::from_utf8(self.field(column))
                .map_err(|_| format!("the name of column {} in the header row is not UTF-8", column + 1))?;
            names.push(name);
        }
        let mut sorted = names.clone();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("column {:?} stands twice in the header row", twice[0]));
        }
        let mut prefixes = Vec::with_capacity(columns);
        for (column, name) in names.into_iter().enumerate() {
            let mut prefix = vec![if column == 0 { b'{' } else { b',' }];
            write_string(&mut prefix, name);
            prefix.push(b':');
            prefixes.push(prefix);
        }
        self.prefixes = prefixes;
        Ok(())
    }

    fn push(&self, offset: u64, columns: usize, rows: &mut RowBuffer) -> Result<(), String> {
        if columns != self.prefixes.len() {
            return Err(format!("record has {columns} fields, the header row has {}", self.prefixes.len()));
        }
        let fields = std::str::from_utf8(&self.fields[..self.ends[columns - 1]])
            .map_err(|_| "record is not UTF-8".to_owned())?;
        if let Some(column) = (0..columns).find(|&column| !fields.is_char_boundary(self.ends[column])) {
            return Err(format!("field {} is not UTF-8", column + 1));
        }
        rows.push_with(offset, |json| {
            let mut start = 0;
            for (prefix, &end) in self.prefixes.iter().zip(&self.ends) {
                json.extend_from_slice(prefix);
                let field = &fields[start..end];
                start = end;
                if self.null.iter().any(|null| null == field) {
                    json.extend_from_slice(b"null");
                } else if self.types == CsvTypes::Infer && is_json_number(field.as_bytes()) {
                    json.extend_from_slice(field.as_bytes());
                } else {
                    write_string(json, field);
                }
            }
            json.push(b'}');
        });
        Ok(())
    }
}

fn write_string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a string is written to memory without fail");
}

/// Whether `text` is a number in JSON's own grammar, to be copied as it stands.
fn is_json_number(text: &[u8]) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then(|| &text[count..])
    }
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let rest = match text.strip_prefix(b"0") {
        Some(rest) => Some(rest),
        None => digits(text),
    };
    let rest = match rest.map(|rest| (rest.strip_prefix(b"."), rest)) {
        Some((Some(fraction), _)) => digits(fraction),
        Some((None, rest)) => Some(rest),
        None => None,
    };
    match rest {
        Some([b'e' | b'E', exponent @ ..]) => {
            let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
            digits(exponent).is_some_and(<[u8]>::is_empty)
        }
        Some(rest) => rest.is_empty(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Format, Patience, RecordReader, Stop};
    use super::*;

    const LIMIT: BatchLimit = BatchLimit { rows: 3, bytes: 1 << 20 };

    fn read(text: &[u8], format: &TextFormat) -> std::io::Result<Vec<Result<(u64, String), String>>> {
        let mut reader = RecordReader::new(format, 0);
        let mut input = text;
        let mut rows = RowBuffer::default();
        let mut out = Vec::new();
        loop {
            let stop = reader.fill(&mut input, &mut rows, LIMIT, Patience { last: true, eager: false })?;
            let (values, offsets) = rows.take();
            let texts = values.iter().map(|value| String::from_utf8_lossy(value).into_owned());
            out.extend(offsets.into_iter().zip(texts).map(Ok));
            match stop {
                Stop::Full => {}
                Stop::Bad(bad) => out.push(Err(format!("{}: {}", bad.offset, bad.reason))),
                Stop::Dry => return Ok(out),
            }
        }
    }

    fn format() -> TextFormat {
        let null = Some(vec![String::new(), "NA".to_owned()]);
        TextFormat::new(Format::Csv, None, None, null, None).expect("valid")
    }

    #[test]
    fn records_become_json_objects() {
        let text = b"\xEF\xBB\xBFid,name\r\n1,\"a \"\"b\"\"\nc\"\r\n\r\n007,NA\r\n-1.5e3,\n";
        let rows = read(text, &format()).expect("valid CSV");
        assert_eq!(
            rows,
            [
                Ok((12, r#"{"id":1,"name":"a \"b\"\nc"}"#.to_owned())),
                Ok((29, r#"{"id":"007","name":null}"#.to_owned())),
                Ok((37, r#"{"id":-1.5e3,"name":null}"#.to_owned())),
            ]
        );
    }

    #[test]
    fn a_record_that_does_not_fit_the_header_is_malformed_and_the_rest_goes_on() {
        let rows = read(b"a,b\n1,2\n3\n\xFF,4\n5,6", &format()).expect("valid CSV");
        assert_eq!(
            rows,
            [
                Ok((4, r#"{"a":1,"b":2}"#.to_owned())),
                Err("8: record has 1 fields, the header row has 2".to_owned()),
                Err("10: record is not UTF-8".to_owned()),
                Ok((14, r#"{"a":5,"b":6}"#.to_owned())),
            ]
        );
    }

    #[test]
    fn a_quote_that_never_closes_costs_one_line() {
        let mut format = format();
        format.record_bytes_max = 10;
        let rows = read(b"a\n\"open\n1\n2\n33333333333333\n3\n", &format).expect("valid CSV");
        let kinds: Vec<bool> = rows.iter().map(Result::is_ok).collect();
        assert_eq!(kinds, [false, true, true, false, true], "{rows:?}");
    }

    #[test]
    fn a_header_with_a_name_twice_is_refused() {
        let error = read(b"a,b,a\n1,2,3\n", &format()).expect_err("a header with a name twice");
        assert_eq!(error.to_string(), "column \"a\" stands twice in the header row");
    }

    #[test]
    fn numbers_are_those_of_json() {
        for number in ["0", "-0", "10", "1.5", "-1.25e-3", "1E5", "123456789012345678901234567890"] {
            assert!(is_json_number(number.as_bytes()), "{number}");
        }
        for text in ["", "-", "007", "+1", ".5", "1.", "1e", "0x1", "1 ", "NaN", "1_000", "--1"] {
            assert!(!is_json_number(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_one_exactly_where_serde_json_says_so(text in "[-+.eE0-9]{0,8}") {
            // A value to be ignored is held against the grammar alone, not against the range of f64.
            let json = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert_eq!(is_json_number(text.as_bytes()), json.is_ok());
        }
    }
}
