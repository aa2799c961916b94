//! Words for times and keys.

use wasmill_engine::LateRow;
use wasmill_model::Timestamp;

/// A length of time in words: `0.25 s`, `54.999 s`, `2 h 5 m`.
pub(super) fn span(micros: u64) -> String {
    let seconds = micros / 1_000_000;
    match seconds {
        0..120 => {
            let text = format!("{}.{:06}", seconds, micros % 1_000_000);
            format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        120..7_200 => format!("{} m {} s", seconds / 60, seconds % 60),
        7_200..172_800 => format!("{} h {} m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A key in words.
pub(super) fn key_text(key: &[u8]) -> String {
    if key.is_empty() { "no key".to_owned() } else { format!("key {:?}", String::from_utf8_lossy(key)) }
}

/// How far a row came behind the watermark.
pub(super) fn behind(row: &LateRow) -> String {
    format!("it came {} behind the watermark, {}", span(row.watermark.0.abs_diff(row.time.0)), row.watermark)
}

/// Whether a time is that of the end of all input.
pub(super) fn end_of_time(time: Timestamp) -> bool {
    time.0 >= i64::MAX - 1
}
