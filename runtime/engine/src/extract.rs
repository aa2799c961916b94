//! Keys and event times out of the JSON of rows.

use std::sync::Arc;

use wasmill_model::{Batch, Bitmap, Column, ColumnBuilder, Timestamp};
use wasmill_plan::{Extraction, TimeExtraction, TimeUnit};
use wasmill_scan::{Kind, Pointer, Raw};

/// Bytes of a bad value that a reason quotes.
const QUOTE_BYTES_MAX: usize = 80;

/// What came of a source's batch: events, and rows without an event time.
pub(crate) struct Extracted {
    pub(crate) events: Batch,
    pub(crate) rejected: Option<(Batch, Vec<String>)>,
}

/// Puts key and event time into every row as the job file says.
pub(crate) fn extract(batch: Batch, extraction: &Extraction) -> Extracted {
    let mut rejected = None;
    let mut events = batch;
    if let Some(time) = &extraction.time {
        let (times, failures) = times(&events, time);
        events = events.with_times(Arc::new(times));
        if !failures.is_empty() {
            let mut good = Bitmap::filled(events.len(), true);
            for (row, _) in &failures {
                good.set(*row as usize, false);
            }
            let (rows, reasons): (Vec<u32>, Vec<String>) = failures.into_iter().unzip();
            rejected = Some((events.gather(&rows), reasons));
            events = events.keep(&good);
        }
    }
    if let Some(pointer) = &extraction.key {
        events = rekey(&events, pointer);
    }
    Extracted { events, rejected }
}

/// The same rows with the key at a place of their JSON value: the text of a string, the JSON of
/// anything else. A row that has nothing there, or is no JSON up to there, has the empty key.
pub(crate) fn rekey(batch: &Batch, pointer: &Pointer) -> Batch {
    let mut keys = ColumnBuilder::with_capacity(batch.len(), batch.len() * 16);
    for value in batch.values().iter() {
        match pointer.find(value) {
            Ok(Some(raw)) => push_key(&mut keys, raw),
            Ok(None) | Err(_) => keys.push(b""),
        }
    }
    batch.clone().with_keys(Arc::new(keys.finish()))
}

fn push_key(keys: &mut ColumnBuilder, raw: Raw<'_>) {
    if let Some(plain) = raw.as_plain() {
        keys.push(plain);
    } else if let Some(text) = raw.as_str() {
        keys.push(text.as_bytes());
    } else if raw.is_null() {
        keys.push(b"");
    } else {
        keys.push(raw.bytes());
    }
}

fn times(batch: &Batch, extraction: &TimeExtraction) -> (Vec<i64>, Vec<(u32, String)>) {
    let mut times = Vec::with_capacity(batch.len());
    let mut failures = Vec::new();
    for (row, value) in batch.values().iter().enumerate() {
        match time_of(value, extraction) {
            Ok(time) => times.push(time.0),
            Err(reason) => {
                times.push(0);
                failures.push((row as u32, reason));
            }
        }
    }
    (times, failures)
}

fn time_of(value: &[u8], extraction: &TimeExtraction) -> Result<Timestamp, String> {
    let field = &extraction.field;
    let raw = match extraction.field.find(value) {
        Ok(Some(raw)) => raw,
        Ok(None) => return Err(format!("no event time: the row has nothing at {field}")),
        Err(error) => return Err(format!("no event time at {field}: {error}")),
    };
    let expected = match extraction.unit {
        TimeUnit::Rfc3339 => "a time such as \"2026-01-31T12:00:00Z\"",
        _ => "a number",
    };
    read_time(raw, extraction.unit).ok_or_else(|| {
        let quoted = String::from_utf8_lossy(&raw.bytes()[..raw.bytes().len().min(QUOTE_BYTES_MAX)]).into_owned();
        format!("no event time: expected {expected} at {field}, found {quoted}")
    })
}

fn read_time(raw: Raw<'_>, unit: TimeUnit) -> Option<Timestamp> {
    let micros_per_unit: i64 = match unit {
        TimeUnit::Rfc3339 => {
            let time: jiff::Timestamp = raw.as_str()?.parse().ok()?;
            return Some(Timestamp(time.as_microsecond()));
        }
        TimeUnit::Nanos => return raw.as_i64().map(|nanos| Timestamp(nanos.div_euclid(1_000))),
        TimeUnit::Micros => 1,
        TimeUnit::Millis => 1_000,
        TimeUnit::Seconds => 1_000_000,
    };
    if let Some(whole) = raw.as_i64() {
        return whole.checked_mul(micros_per_unit).map(Timestamp);
    }
    if raw.kind() != Kind::Number {
        return None;
    }
    let micros = raw.as_f64()? * micros_per_unit as f64;
    // Beyond 2^62 microseconds (146,000 years) a float says nothing about an event.
    (micros.abs() < 4.6e18).then_some(Timestamp(micros.floor() as i64))
}

/// A batch of one row, for a record that never became an event.
pub(crate) fn single_row(value: &[u8], arrived_nanos: u64, wall: Timestamp) -> Batch {
    let values: Column = [value].iter().collect();
    Batch::new(Arc::new(vec![wall.0]), Arc::new(Column::empty_rows(1)), Arc::new(values), arrived_nanos)
}

#[cfg(test)]
mod tests {
    use wasmill_model::BatchBuilder;

    use super::*;

    fn batch(values: &[&str]) -> Batch {
        let mut builder = BatchBuilder::default();
        for value in values {
            builder.push(Timestamp(0), b"", value.as_bytes());
        }
        builder.finish(0)
    }

    fn extraction(unit: TimeUnit) -> Extraction {
        Extraction {
            key: Some("/id".parse().expect("a pointer")),
            time: Some(TimeExtraction { field: "/at".parse().expect("a pointer"), unit }),
        }
    }

    #[test]
    fn times_are_read_in_every_unit() {
        for (unit, text, micros) in [
            (TimeUnit::Seconds, "1700000000", 1_700_000_000_000_000),
            (TimeUnit::Seconds, "1.5", 1_500_000),
            (TimeUnit::Millis, "-1", -1_000),
            (TimeUnit::Micros, "7", 7),
            (TimeUnit::Nanos, "-1", -1),
            (TimeUnit::Rfc3339, "\"1970-01-01T01:00:00.25+01:00\"", 250_000),
        ] {
            let extracted = extract(batch(&[&format!("{{\"at\":{text}}}")]), &extraction(unit));
            assert_eq!((**extracted.events.times()).as_slice(), [micros], "{unit:?} {text}");
        }
    }

    #[test]
    fn a_row_without_an_event_time_is_rejected_with_what_was_found() {
        let rows = [r#"{"id":"a","at":1}"#, r#"{"id":"b"}"#, r#"{"id":"c","at":"soon"}"#, "{", r#"{"id":7,"at":2}"#];
        let extracted = extract(batch(&rows), &extraction(TimeUnit::Millis));
        assert_eq!((**extracted.events.times()).as_slice(), [1_000, 2_000]);
        assert_eq!(**extracted.events.keys(), ["a", "7"].iter().collect());
        let (rejected, reasons) = extracted.rejected.expect("three rows");
        assert_eq!(rejected.len(), 3);
        assert_eq!(reasons[0], "no event time: the row has nothing at /at");
        assert_eq!(reasons[1], "no event time: expected a number at /at, found \"soon\"");
        assert!(reasons[2].starts_with("no event time at /at: "), "{}", reasons[2]);
    }

    #[test]
    fn a_time_out_of_range_is_rejected() {
        for text in ["9223372036854775807", "1e300", "-1e300"] {
            let extracted = extract(batch(&[&format!("{{\"at\":{text}}}")]), &extraction(TimeUnit::Seconds));
            assert!(extracted.rejected.is_some(), "{text}");
        }
    }
}
