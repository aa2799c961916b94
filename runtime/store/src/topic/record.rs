//! What a frame of records holds.
//!
//! ```text
//! payload  section…
//! section  producer: bytes · [epoch: varint · index: varint] · rows: varint · row…
//! row      gap: varint · time: zigzag varint · key: bytes · value: bytes · headers: bytes
//! ```
//!
//! `gap` is how many offsets lie between the record before it and this one, which compaction makes
//! more than 0; `time` is the difference to the record before it in the frame.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmill_model::{Batch, Column, ColumnBuilder, Lineage, PartitionId};

use crate::durable::codec::{Reader, put_bytes, put_varint};
use crate::durable::encode::{unzigzag, zigzag};

/// Producers that a partition remembers. The ones that have been silent longest are forgotten.
pub(super) const PRODUCERS_MAX: usize = 1_000;

/// Who appends, and what: told so that the same records are not appended twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// What tells the producer from others.
    pub name: Arc<str>,
    /// The epoch of the records. Never falls.
    pub epoch: u64,
    /// The place of the records in their epoch. Rises within it.
    pub index: u64,
}

/// Puts records into a payload.
pub(super) struct PayloadWriter<'a> {
    out: &'a mut Vec<u8>,
    time: i64,
    /// The offset expected next.
    offset: u64,
}

impl<'a> PayloadWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, first: u64) -> Self {
        Self { out, time: 0, offset: first }
    }

    pub(super) fn section(&mut self, producer: Option<&Producer>, rows: usize) {
        match producer {
            Some(Producer { name, epoch, index }) => {
                put_bytes(self.out, name.as_bytes());
                put_varint(self.out, *epoch);
                put_varint(self.out, *index);
            }
            None => put_bytes(self.out, b""),
        }
        put_varint(self.out, rows as u64);
    }

    pub(super) fn row(&mut self, offset: u64, time: i64, key: &[u8], value: &[u8], headers: &[u8]) {
        put_varint(self.out, offset - self.offset);
        put_varint(self.out, zigzag(time.wrapping_sub(self.time)));
        put_bytes(self.out, key);
        put_bytes(self.out, value);
        put_bytes(self.out, headers);
        (self.time, self.offset) = (time, offset + 1);
    }

    /// Puts in a section of a batch, with offsets from the one expected on.
    pub(super) fn batch(&mut self, producer: Option<&Producer>, rows: &Batch) {
        self.section(producer, rows.len());
        let mut headers = rows.headers().map(|headers| headers.iter());
        let columns = rows.times().iter().zip(rows.keys().iter()).zip(rows.values().iter());
        for ((time, key), value) in columns {
            let headers = headers.as_mut().and_then(Iterator::next).unwrap_or(b"");
            self.row(self.offset, *time, key, value, headers);
        }
    }
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) offset: u64,
    pub(super) time: i64,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) headers: &'a [u8],
}

/// Hands over the records of a payload, in order, and what it says of producers. `None` where the
/// payload makes no sense. `row` returns whether to go on.
pub(super) fn read_payload<'a>(
    payload: &'a [u8],
    first: u64,
    end: u64,
    mut producer: impl FnMut(&'a str, u64, u64),
    mut row: impl FnMut(Row<'a>) -> bool,
) -> Option<()> {
    let mut reader = Reader(payload);
    let (mut offset, mut time) = (first, 0_i64);
    while !reader.0.is_empty() {
        let name = std::str::from_utf8(reader.bytes()?).ok()?;
        if !name.is_empty() {
            producer(name, reader.varint()?, reader.varint()?);
        }
        for _ in 0..reader.varint()? {
            offset = offset.checked_add(reader.varint()?).filter(|&offset| offset < end)?;
            time = time.wrapping_add(unzigzag(reader.varint()?));
            let (key, value, headers) = (reader.bytes()?, reader.bytes()?, reader.bytes()?);
            if !row(Row { offset, time, key, value, headers }) {
                return Some(());
            }
            offset += 1;
        }
    }
    (offset == end).then_some(())
}

/// The last append of each producer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Producers(BTreeMap<Arc<str>, Known>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    epoch: u64,
    index: u64,
    /// The end of the frame that it stands in.
    offset: u64,
}

impl Producers {
    /// Whether the records are there already.
    pub(super) fn has(&self, producer: &Producer) -> bool {
        let known = self.0.get(&producer.name);
        known.is_some_and(|known| (producer.epoch, producer.index) <= (known.epoch, known.index))
    }

    pub(super) fn learn(&mut self, name: &str, epoch: u64, index: u64, offset: u64) {
        let known = Known { epoch, index, offset };
        match self.0.get_mut(name) {
            Some(before) if (before.epoch, before.index) < (epoch, index) => *before = known,
            Some(_) => {}
            None => drop(self.0.insert(name.into(), known)),
        }
        if self.0.len() > PRODUCERS_MAX
            && let Some(silent) = self.0.iter().min_by_key(|(_, known)| known.offset).map(|(name, _)| Arc::clone(name))
        {
            self.0.remove(&silent);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// `(name: bytes · epoch: varint · index: varint · offset: varint)…`
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for (name, Known { epoch, index, offset }) in &self.0 {
            put_bytes(out, name.as_bytes());
            [epoch, index, offset].into_iter().for_each(|&number| put_varint(out, number));
        }
    }

    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let mut producers = Self::default();
        while !reader.0.is_empty() {
            let name = std::str::from_utf8(reader.bytes()?).ok()?;
            producers.learn(name, reader.varint()?, reader.varint()?, reader.varint()?);
        }
        Some(producers)
    }
}

/// Records in the making of a batch.
#[derive(Debug, Default)]
pub(super) struct Rows {
    times: Vec<i64>,
    offsets: Vec<u64>,
    keys: ColumnBuilder,
    values: ColumnBuilder,
    headers: ColumnBuilder,
    with_headers: bool,
    bytes: usize,
}

impl Rows {
    pub(super) fn push(&mut self, row: Row<'_>) {
        self.times.push(row.time);
        self.offsets.push(row.offset);
        self.keys.push(row.key);
        self.values.push(row.value);
        self.headers.push(row.headers);
        self.with_headers |= !row.headers.is_empty();
        self.bytes += row.key.len() + row.value.len() + row.headers.len();
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn finish(self, partition: u32) -> Batch {
        let headers: Option<Column> = self.with_headers.then(|| self.headers.finish());
        let lineage = Lineage { partition: PartitionId(partition), offsets: Arc::new(self.offsets) };
        Batch::new(Arc::new(self.times), Arc::new(self.keys.finish()), Arc::new(self.values.finish()), 0)
            .with_headers(headers.map(Arc::new))
            .with_lineage(Some(lineage))
    }
}
