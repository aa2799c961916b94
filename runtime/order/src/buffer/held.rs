//! The rows that an ordering buffer holds.
//!
//! # Bounds
//! A batch stays as long as one of its rows is held, and counts whole.

use std::sync::Arc;

use wasmill_model::{Batch, Bitmap, Column, ColumnBuilder, Lineage, PartitionId};

/// Where a row is held: its batch, and its place there.
pub type Place = (u32, u32);

/// Batches of which some rows are held.
#[derive(Debug, Default)]
pub struct HeldRows {
    batches: Vec<Option<HeldBatch>>,
    free: Vec<u32>,
    rows: u64,
    bytes: u64,
    /// Rows that a cut holds and that are gone since.
    gone: Vec<GoneRow>,
}

#[derive(Debug)]
struct HeldBatch {
    batch: Batch,
    /// What the buffer calls each row.
    numbers: Vec<u64>,
    held: Bitmap,
    left: u32,
    /// No row that is held is earlier.
    earliest: i64,
    /// Whether a cut holds its rows.
    stored: bool,
}

/// A row that is held no more: its key and its number.
pub type GoneRow = (Box<[u8]>, u64);

/// A row for a cut, or from one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Its event key.
    pub key: Box<[u8]>,
    /// What the buffer calls it.
    pub number: u64,
    /// Its event time, microseconds since the Unix epoch.
    pub time: i64,
    /// Its value.
    pub value: Vec<u8>,
    /// Its headers, where it has any.
    pub headers: Option<Vec<u8>>,
    /// Partition and offset that it came from, where they are known.
    pub origin: Option<(PartitionId, u64)>,
}

impl HeldRows {
    /// Rows held.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// Bytes of batches that have a row which is held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Where the batch that comes next will be.
    #[must_use]
    pub fn next_slot(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.batches.len() as u32)
    }

    /// Holds those rows of a batch that have a number. `stored`: a cut has them.
    pub fn put(&mut self, batch: Batch, numbers: &[Option<u64>], stored: bool) {
        let left = numbers.iter().flatten().count() as u32;
        if left == 0 {
            return;
        }
        let slot = self.next_slot();
        self.rows += u64::from(left);
        self.bytes += batch.byte_len() as u64;
        let mut held = Bitmap::filled(batch.len(), true);
        if left as usize != batch.len() {
            for (row, _) in numbers.iter().enumerate().filter(|(_, number)| number.is_none()) {
                held.set(row, false);
            }
        }
        let of_held = |(time, number): (&i64, &Option<u64>)| number.map(|_| *time);
        let earliest = batch.times().iter().zip(numbers).filter_map(of_held).min().unwrap_or(i64::MAX);
        let numbers = numbers.iter().map(|number| number.unwrap_or_default()).collect();
        let batch = Some(HeldBatch { batch, numbers, held, left, earliest, stored });
        match self.free.pop() {
            Some(_) => self.batches[slot as usize] = batch,
            None => self.batches.push(batch),
        }
    }

    /// The rows of these places, in this order. They are held no more.
    ///
    /// # Panics
    /// Where a place holds no row: a bug of ours.
    pub fn take(&mut self, places: &[Place]) -> Option<Batch> {
        let first = places.first()?;
        let batch = self.gather(places, *first);
        for &(slot, row) in places {
            let Some(held) = &mut self.batches[slot as usize] else { continue };
            held.held.set(row as usize, false);
            held.left -= 1;
            self.rows -= 1;
            if held.stored {
                let key = held.batch.keys().row(row as usize).into();
                self.gone.push((key, held.numbers[row as usize]));
            }
            if held.left == 0 {
                self.bytes -= held.batch.byte_len() as u64;
                self.batches[slot as usize] = None;
                self.free.push(slot);
            }
        }
        Some(batch)
    }

    fn gather(&self, places: &[Place], (slot, _): Place) -> Batch {
        let of = |slot: u32| {
            let held = self.batches[slot as usize].as_ref();
            &held.expect("a buffer names only rows that it holds").batch
        };
        if places.iter().all(|place| place.0 == slot) {
            let rows: Vec<u32> = places.iter().map(|place| place.1).collect();
            return of(slot).gather(&rows);
        }
        let mut times = Vec::with_capacity(places.len());
        let (mut keys, mut values) = (ColumnBuilder::default(), ColumnBuilder::default());
        let mut arrived = u64::MAX;
        let (mut has_headers, mut partition) = (false, Some(None));
        let mut last = u32::MAX;
        let mut maker = of(slot).maker();
        for &(slot, row) in places {
            let batch = of(slot);
            let row = row as usize;
            times.push(batch.times()[row]);
            keys.push(batch.keys().row(row));
            values.push(batch.values().row(row));
            if slot != last {
                last = slot;
                arrived = arrived.min(batch.arrived_nanos());
                has_headers |= batch.headers().is_some();
                maker = maker.filter(|maker| batch.maker() == Some(*maker));
                let own = batch.lineage().map(|lineage| lineage.partition);
                partition = match partition {
                    Some(None) => own.map(Some),
                    Some(known) if known == own => Some(known),
                    _ => None,
                };
            }
        }
        let column = |column: ColumnBuilder| Arc::new(column.finish());
        let batch = Batch::new(Arc::new(times), column(keys), column(values), arrived);
        let headers = has_headers.then(|| {
            let header = |&(slot, row): &Place| of(slot).headers().map_or(&b""[..], |column| column.row(row as usize));
            Arc::new(places.iter().map(header).collect::<Column>())
        });
        let lineage = partition.flatten().map(|partition| {
            let offset = |&(slot, row): &Place| of(slot).lineage().map_or(0, |lineage| lineage.offsets[row as usize]);
            Lineage { partition, offsets: Arc::new(places.iter().map(offset).collect()) }
        });
        batch.with_headers(headers).with_lineage(lineage).with_maker(maker)
    }

    /// The key of a row that is held.
    #[must_use]
    pub fn key(&self, (slot, row): Place) -> Option<&[u8]> {
        let held = self.batches.get(slot as usize)?.as_ref()?;
        held.held.get(row as usize).then(|| held.batch.keys().row(row as usize))
    }

    /// A time that no row is earlier than.
    #[must_use]
    pub fn earliest(&self) -> Option<i64> {
        self.batches.iter().flatten().map(|held| held.earliest).min()
    }

    /// What came and went since the last cut: rows that no cut has, and those that are gone.
    pub fn changes(&mut self) -> (Vec<StoredRow>, Vec<GoneRow>) {
        let mut rows = Vec::new();
        for held in self.batches.iter_mut().flatten().filter(|held| !held.stored) {
            held.stored = true;
            let batch = &held.batch;
            for row in held.held.ones() {
                let row = row as usize;
                rows.push(StoredRow {
                    key: batch.keys().row(row).into(),
                    number: held.numbers[row],
                    time: batch.times()[row],
                    value: batch.values().row(row).to_vec(),
                    headers: batch.headers().map(|headers| headers.row(row).to_vec()),
                    origin: batch.lineage().map(|lineage| (lineage.partition, lineage.offsets[row])),
                });
            }
        }
        (rows, std::mem::take(&mut self.gone))
    }
}

impl StoredRow {
    /// Stored rows as one batch.
    #[must_use]
    pub fn batch(rows: &[Self], now_nanos: u64) -> Batch {
        let times = rows.iter().map(|row| row.time).collect();
        let column = |of: fn(&StoredRow) -> &[u8]| Arc::new(rows.iter().map(of).collect::<Column>());
        let batch = Batch::new(Arc::new(times), column(|row| &row.key), column(|row| &row.value), now_nanos);
        let headers = rows.iter().any(|row| row.headers.is_some());
        let headers = headers.then(|| column(|row| row.headers.as_deref().unwrap_or_default()));
        let partition = rows.first().and_then(|row| row.origin).map(|origin| origin.0);
        let lineage = partition.filter(|id| rows.iter().all(|row| row.origin.is_some_and(|origin| origin.0 == *id)));
        let offsets = || rows.iter().map(|row| row.origin.map_or(0, |origin| origin.1)).collect();
        let lineage = lineage.map(|partition| Lineage { partition, offsets: Arc::new(offsets()) });
        batch.with_headers(headers).with_lineage(lineage)
    }
}

impl StoredRow {
    /// What is stored behind key and number; see `docs/formats.md`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.value.len() + 32);
        bytes.extend(self.time.to_le_bytes());
        bytes.push(u8::from(self.headers.is_some()) | u8::from(self.origin.is_some()) << 1);
        if let Some((partition, offset)) = self.origin {
            bytes.extend(partition.0.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        if let Some(headers) = &self.headers {
            bytes.extend((headers.len() as u32).to_le_bytes());
            bytes.extend(headers);
        }
        bytes.extend(&self.value);
        bytes
    }

    /// `None` where it is not what was stored.
    #[must_use]
    pub fn decode(key: Box<[u8]>, number: u64, mut bytes: &[u8]) -> Option<Self> {
        fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (head, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(*head)
        }
        let time = i64::from_le_bytes(array(&mut bytes)?);
        let [flags] = array(&mut bytes)?;
        if flags > 3 {
            return None;
        }
        let mut origin = None;
        if flags & 2 != 0 {
            let partition = PartitionId(u32::from_le_bytes(array(&mut bytes)?));
            origin = Some((partition, u64::from_le_bytes(array(&mut bytes)?)));
        }
        let mut headers = None;
        if flags & 1 != 0 {
            let length = u32::from_le_bytes(array(&mut bytes)?) as usize;
            let (head, rest) = bytes.split_at_checked(length)?;
            (headers, bytes) = (Some(head.to_vec()), rest);
        }
        Some(Self { key, number, time, value: bytes.to_vec(), headers, origin })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, headers: Option<&[u8]>, origin: Option<(PartitionId, u64)>) -> StoredRow {
        let headers = headers.map(<[u8]>::to_vec);
        StoredRow { key: b"k".as_slice().into(), number, time: -5, value: b"value".to_vec(), headers, origin }
    }

    #[test]
    fn stored_rows_come_back_and_damage_does_not() {
        for row in [row(1, None, None), row(2, Some(b"h"), None), row(3, Some(b""), Some((PartitionId(7), 9)))] {
            let bytes = row.encode();
            assert_eq!(StoredRow::decode(row.key.clone(), row.number, &bytes), Some(row.clone()));
            assert_eq!(StoredRow::decode(row.key.clone(), row.number, &bytes[..8]), None);
        }
        assert_eq!(StoredRow::decode(Box::default(), 1, &[0xff; 9]), None);
    }

    #[test]
    fn rows_of_several_batches_leave_as_one_and_cuts_tell_the_difference() {
        let mut rows = HeldRows::default();
        let origin = |offset| Some((PartitionId(1), offset));
        rows.put(StoredRow::batch(&[row(0, None, origin(0)), row(1, None, origin(1))], 5), &[Some(0), Some(1)], false);
        rows.put(
            StoredRow::batch(&[row(2, Some(b"h"), origin(2)), row(9, None, origin(9))], 3),
            &[Some(2), None],
            false,
        );
        assert_eq!((rows.len(), rows.earliest()), (3, Some(-5)));
        let taken = rows.take(&[(1, 0), (0, 1)]).expect("rows");
        assert_eq!((taken.len(), taken.arrived_nanos()), (2, 3));
        assert_eq!(*taken.lineage().expect("one partition").offsets, [2, 1]);
        assert_eq!(**taken.headers().expect("one has some"), ["h", ""].iter().collect());
        let (stored, gone) = rows.changes();
        assert_eq!((stored, gone), (vec![row(0, None, origin(0))], vec![]));
        rows.take(&[(0, 0)]);
        assert_eq!(rows.changes(), (vec![], vec![(b"k".as_slice().into(), 0)]));
        assert_eq!((rows.len(), rows.bytes(), rows.next_slot()), (0, 0, 0));
    }
}
