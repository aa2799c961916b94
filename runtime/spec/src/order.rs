//! Ordering buffers of inputs, as the job file has them.

use wasmill_scan::Pointer;

use crate::document::{Item, Value};
use crate::keys;
use crate::read::{Problems, Reader};
use crate::{ByteSize, Period};

/// The ordering buffer of an input port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderSpec {
    /// What rows are ordered by.
    pub by: OrderBy,
    /// What becomes of rows that come too late for it.
    pub late: LatePolicy,
    /// Most rows that one task holds, and placeholders.
    pub rows_max: u64,
    /// Most bytes of batches that one task holds rows of in memory.
    pub bytes_max: ByteSize,
    /// Bytes that wait on disk beyond that.
    pub spill: Option<ByteSize>,
}

/// What an ordering buffer orders by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy {
    /// Event time.
    Time(TimeOrder),
    /// Numbers that rise by one.
    Sequence(SequenceOrder),
}

/// Order by event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOrder {
    /// How long rows wait.
    pub bound: TimeBound,
    /// The bound never passes this.
    pub most: Period,
}

/// How long rows wait for those that are late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeBound {
    /// Until the watermark has passed them.
    Watermark,
    /// Until a row came that is so much younger.
    Fixed(Period),
    /// The same, with the largest delay so far.
    KSlack,
    /// The same, with what a wanted quality takes.
    AqKSlack {
        /// The share of rows that are in time, in millionths.
        quality_ppm: u32,
        /// The length of the windows that the rows go into; 0 where each row counts by itself.
        window: Period,
    },
}

/// Order by numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceOrder {
    /// Where the number is.
    pub field: Pointer,
    /// Each key has a sequence of its own; else there is one.
    pub per_key: bool,
    /// The first number.
    pub first: u64,
    /// Keys that nothing waits of, and that one task remembers the next number of.
    pub keys_max: u64,
    /// Numbers that are missing for this long are given up.
    pub gap: Option<Period>,
    /// A row that has `true` here stands for its number and goes no further.
    pub placeholder: Option<Pointer>,
    /// A row that has `true` here says that everything up to its number has been there, and goes no
    /// further.
    pub done: Option<Pointer>,
}

/// What becomes of rows that come too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatePolicy {
    /// They are dropped and counted.
    Drop,
    /// They go on at once, out of order.
    Forward,
    /// They leave the stage by its port `late`, unprocessed.
    Side,
    /// They go on at once, and say that they are corrections; all others say that they are on time.
    Correct,
}

impl LatePolicy {
    /// Every value with its name in a job file.
    pub(crate) const NAMES: [(&str, Self); 4] =
        [("drop", Self::Drop), ("forward", Self::Forward), ("side", Self::Side), ("correct", Self::Correct)];
}

/// The name of the port of a stage by which late rows leave it.
pub const LATE_PORT: &str = "late";

pub(crate) const ORDERS: [(&str, bool); 2] = [("time", true), ("sequence", false)];
pub(crate) const SCOPES: [(&str, bool); 2] = [("source", false), ("key", true)];
const SLACKS: [&str; 2] = ["k-slack", "aq-k-slack"];

/// Keys that only one of the orders takes.
const OF_TIME: [&str; 4] = ["bound", "most", "quality", "window"];
const OF_SEQUENCE: [&str; 7] = ["field", "per", "first", "gap", "keys_max", "placeholder", "done"];

const MICROSECOND: Period = Period::from_micros(1);
const CENTURY: Period = Period::from_micros(u64::MAX);
const ROWS: u64 = 1_000_000;
const KEYS: u64 = 1_000_000;
const ROWS_MAX: i64 = 1_000_000_000;

/// Reads `order` of an input.
pub(crate) fn order(p: &mut Problems, input: &Reader<'_>) -> Option<OrderSpec> {
    let at = input.get("order")?;
    let table = input.table(p, "order", &keys::ORDER)?;
    let by_time = table.one_of(p, "by", &ORDERS)?;
    let (name, other) = if by_time { ("time", &OF_SEQUENCE[..]) } else { ("sequence", &OF_TIME[..]) };
    for item in other.iter().filter_map(|key| table.get(key).map(|item| (key, item))) {
        let message = format!("`{}` does not go with an order by {name}", item.0);
        p.error(&item.1.key, message, "delete it, or change `by`");
    }
    let by = if by_time { OrderBy::Time(time(p, &table)?) } else { OrderBy::Sequence(sequence(p, &table, at)?) };
    let sizes = ByteSize::from_bytes(64 << 10)..=ByteSize::from_bytes(1 << 40);
    Some(OrderSpec {
        spill: table.size(p, "spill", sizes.clone()),
        by,
        late: table.one_of(p, "late", &LatePolicy::NAMES).unwrap_or(LatePolicy::Drop),
        rows_max: table.whole(p, "rows_max", 1..=ROWS_MAX).unwrap_or(ROWS),
        bytes_max: table.size(p, "bytes_max", sizes).unwrap_or(ByteSize::from_bytes(256 << 20)),
    })
}

fn time(p: &mut Problems, table: &Reader<'_>) -> Option<TimeOrder> {
    let named = match table.get("bound").map(|item| &item.value) {
        Some(Value::String(text)) => SLACKS.iter().position(|slack| slack == text),
        _ => None,
    };
    let bound = match (named, table.get("bound")) {
        (_, None) => TimeBound::Watermark,
        (Some(0), _) => TimeBound::KSlack,
        (Some(_), Some(item)) => {
            let Some(quality_ppm) = quality(p, table) else {
                if table.get("quality").is_none() {
                    p.error(&item.span, "\"aq-k-slack\" needs `quality`", "write it like quality = 0.95");
                }
                return None;
            };
            let window = table.period(p, "window", MICROSECOND..=CENTURY).unwrap_or(Period::from_micros(0));
            TimeBound::AqKSlack { quality_ppm, window }
        }
        (None, Some(Item { value: Value::String(text), span, .. })) if text.starts_with(char::is_alphabetic) => {
            let message = format!("`bound` is a length of time, or a way to find one, and {text:?} is neither");
            p.error(span, message, "write it like \"5s\", or \"k-slack\" or \"aq-k-slack\"");
            return None;
        }
        (None, Some(_)) => TimeBound::Fixed(table.period(p, "bound", Period::from_micros(0)..=CENTURY)?),
    };
    if !matches!(bound, TimeBound::AqKSlack { .. }) {
        for key in ["quality", "window"] {
            if let Some(item) = table.get(key) {
                p.error(&item.key, format!("`{key}` goes with \"aq-k-slack\" only"), "write bound = \"aq-k-slack\"");
            }
        }
    }
    let most = table.period(p, "most", MICROSECOND..=CENTURY);
    Some(TimeOrder { bound, most: most.unwrap_or(CENTURY) })
}

fn quality(p: &mut Problems, table: &Reader<'_>) -> Option<u32> {
    let item = table.get("quality")?;
    let quality = match item.value {
        Value::Float(quality) => Some(quality),
        Value::Integer(quality) => Some(quality as f64),
        _ => None,
    };
    let quality = quality.filter(|quality| *quality > 0.0 && *quality < 1.0);
    if quality.is_none() {
        let message = "`quality` is the share of rows that are in time: a number between 0 and 1";
        p.error(&item.span, message, "write it like 0.95; for all of them write bound = \"k-slack\"");
    }
    quality.map(|quality| (quality * 1e6).round() as u32)
}

fn sequence(p: &mut Problems, table: &Reader<'_>, at: &Item) -> Option<SequenceOrder> {
    let field = table.pointer(p, "field");
    if table.get("field").is_none() {
        p.error(&at.key, "an order by sequence needs `field`", "write where the number is: field = \"/number\"");
    }
    Some(SequenceOrder {
        field: field?,
        per_key: table.one_of(p, "per", &SCOPES).unwrap_or(false),
        first: table.whole(p, "first", 0..=i64::MAX).unwrap_or(0),
        keys_max: table.whole(p, "keys_max", 1..=ROWS_MAX).unwrap_or(KEYS),
        gap: table.period(p, "gap", MICROSECOND..=CENTURY),
        placeholder: table.pointer(p, "placeholder"),
        done: table.pointer(p, "done"),
    })
}
