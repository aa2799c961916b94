//! The rows that an ordering buffer holds.
//!
//! # Bounds
//! A batch stays as long as one of its rows is held, and counts whole. A batch may wait elsewhere: then what is
//! known of its rows stays here, some 50 bytes a row with what the buffer knows, and they are held as before.

use std::collections::BTreeSet;
use std::sync::Arc;

use wasmill_model::{Batch, Bitmap, Column, Lineage, PartitionId};

/// Where a row is held: its batch, and its place there.
pub type Place = (u32, u32);

/// Batches of which some rows are held.
#[derive(Debug, Default)]
pub struct HeldRows {
    batches: Vec<Option<HeldBatch>>,
    free: Vec<u32>,
    /// Rows that are held, and those of them whose batch is not in memory.
    rows: u64,
    away: u64,
    /// Bytes of batches in memory, and of those of them that are nowhere else.
    bytes: u64,
    fresh: u64,
    /// Every batch by its earliest row, and those in memory that are elsewhere, too.
    earliest: BTreeSet<(i64, u32)>,
    copies: BTreeSet<(i64, u32)>,
    /// Rows that a cut holds and that are gone since.
    gone: Vec<GoneRow>,
    /// Batches elsewhere that hold nothing any more.
    done: Vec<u32>,
    /// By batch, its place among those that rows are taken of.
    parts: Vec<u32>,
}

#[derive(Debug)]
struct HeldBatch {
    /// `None` while it is away.
    batch: Option<Batch>,
    bytes: u64,
    /// Whether it is elsewhere.
    elsewhere: bool,
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

/// No batch of those that rows are taken of.
const NO_PART: u32 = u32::MAX;

impl HeldRows {
    /// Rows held.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.rows
    }

    /// Those of them whose batch is away.
    #[must_use]
    pub fn away(&self) -> u64 {
        self.away
    }

    /// Bytes of batches in memory that have a row which is held.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of those of them that are nowhere else.
    #[must_use]
    pub fn fresh_bytes(&self) -> u64 {
        self.fresh
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
        let bytes = batch.byte_len() as u64;
        self.rows += u64::from(left);
        self.bytes += bytes;
        self.fresh += bytes;
        let mut held = Bitmap::filled(batch.len(), true);
        if left as usize != batch.len() {
            for (row, _) in numbers.iter().enumerate().filter(|(_, number)| number.is_none()) {
                held.set(row, false);
            }
        }
        let of_held = |(time, number): (&i64, &Option<u64>)| number.map(|_| *time);
        let earliest = batch.times().iter().zip(numbers).filter_map(of_held).min().unwrap_or(i64::MAX);
        let numbers = numbers.iter().map(|number| number.unwrap_or_default()).collect();
        self.earliest.insert((earliest, slot));
        let batch = Some(batch);
        let batch = Some(HeldBatch { batch, bytes, elsewhere: false, numbers, held, left, earliest, stored });
        match self.free.pop() {
            Some(_) => self.batches[slot as usize] = batch,
            None => self.batches.push(batch),
        }
    }

    /// The rows of these places, in this order. They are held no more.
    ///
    /// # Panics
    /// Where a place holds no row, or its batch is away: a bug of ours.
    pub fn take(&mut self, places: &[Place]) -> Option<Batch> {
        let batch = self.gather(places)?;
        for &place in places {
            self.release(place, true);
        }
        Some(batch)
    }

    /// A row is held no more. `gone`: it has left, rather than moved.
    fn release(&mut self, (slot, row): Place, gone: bool) {
        let Some(held) = &mut self.batches[slot as usize] else { return };
        held.held.set(row as usize, false);
        held.left -= 1;
        self.rows -= 1;
        if let Some(batch) = held.batch.as_ref().filter(|_| gone && held.stored) {
            self.gone.push((batch.keys().row(row as usize).into(), held.numbers[row as usize]));
        }
        if held.left > 0 {
            return;
        }
        self.bytes -= held.bytes;
        self.earliest.remove(&(held.earliest, slot));
        if held.elsewhere {
            self.copies.remove(&(held.earliest, slot));
            self.done.push(slot);
        } else {
            self.fresh -= held.bytes;
        }
        self.batches[slot as usize] = None;
        self.free.push(slot);
    }

    fn gather(&mut self, places: &[Place]) -> Option<Batch> {
        if places.is_empty() {
            return None;
        }
        let of = |slot: u32| {
            let held = self.batches[slot as usize].as_ref().and_then(|held| held.batch.as_ref());
            held.expect("a buffer names only rows that it holds, and whoever takes them has brought them back")
        };
        self.parts.resize(self.batches.len(), NO_PART);
        let (mut parts, mut slots, mut rows) = (Vec::new(), Vec::new(), Vec::with_capacity(places.len()));
        for &(slot, row) in places {
            let part = &mut self.parts[slot as usize];
            if *part == NO_PART {
                *part = parts.len() as u32;
                parts.push(of(slot).clone());
                slots.push(slot);
            }
            rows.push((*part, row));
        }
        slots.into_iter().for_each(|slot| self.parts[slot as usize] = NO_PART);
        Some(Batch::weave(&parts, &rows))
    }

    /// Puts rows that are in memory into batches of their own, in this order, of at most so many rows and, but for
    /// the last of each, bytes. Those that a cut has and others do not mix. Gives the new place of each, and hands each
    /// batch to `made`.
    ///
    /// # Panics
    /// As [`Self::take`].
    ///
    /// # Errors
    /// What `made` says. Then what is held is of no more use.
    pub fn regroup<E>(
        &mut self,
        places: &[Place],
        (rows_max, bytes_max): (usize, usize),
        mut made: impl FnMut(&mut Self, u32) -> Result<(), E>,
    ) -> Result<Vec<Place>, E> {
        let mut moved = vec![(0, 0); places.len()];
        let mut chunk = Vec::new();
        for stored in [false, true] {
            let mut bytes = 0;
            let of_cut: Vec<usize> = (0..places.len()).filter(|&at| self.is_stored(places[at]) == stored).collect();
            for (nth, &at) in of_cut.iter().enumerate() {
                bytes += self.row_bytes(places[at]);
                chunk.push(at);
                if nth + 1 < of_cut.len() && chunk.len() < rows_max && bytes < bytes_max {
                    continue;
                }
                let from: Vec<Place> = chunk.iter().map(|&at| places[at]).collect();
                let Some(batch) = self.gather(&from) else { continue };
                let numbers: Vec<Option<u64>> = from.iter().map(|&place| self.number(place)).collect();
                from.iter().for_each(|&place| self.release(place, false));
                let slot = self.next_slot();
                self.put(batch, &numbers, stored);
                for (row, at) in chunk.drain(..).enumerate() {
                    moved[at] = (slot, row as u32);
                }
                bytes = 0;
                made(self, slot)?;
            }
        }
        Ok(moved)
    }

    fn held(&self, (slot, _): Place) -> Option<&HeldBatch> {
        self.batches.get(slot as usize)?.as_ref()
    }

    fn is_stored(&self, place: Place) -> bool {
        self.held(place).is_some_and(|held| held.stored)
    }

    fn number(&self, place: Place) -> Option<u64> {
        self.held(place).map(|held| held.numbers[place.1 as usize])
    }

    /// Bytes of key and value of a row in memory.
    #[must_use]
    pub fn row_bytes(&self, place: Place) -> usize {
        let row = place.1 as usize;
        let batch = self.held(place).and_then(|held| held.batch.as_ref());
        batch.map_or(0, |batch| batch.keys().row(row).len() + batch.values().row(row).len() + 24)
    }

    /// Whether the batch of a row is in memory and nowhere else.
    #[must_use]
    pub fn is_fresh(&self, place: Place) -> bool {
        self.held(place).is_some_and(|held| !held.elsewhere)
    }

    /// The bytes of the batch of a row, where that is away.
    #[must_use]
    pub fn is_away(&self, place: Place) -> Option<u64> {
        self.held(place).filter(|held| held.batch.is_none()).map(|held| held.bytes)
    }

    /// A batch in memory.
    #[must_use]
    pub fn batch(&self, slot: u32) -> Option<&Batch> {
        self.held((slot, 0))?.batch.as_ref()
    }

    /// A batch is elsewhere now, and leaves memory.
    pub fn send_away(&mut self, slot: u32) {
        let Some(held) = self.batches.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if held.batch.take().is_none() {
            return;
        }
        self.away += u64::from(held.left);
        self.bytes -= held.bytes;
        if held.elsewhere {
            self.copies.remove(&(held.earliest, slot));
        } else {
            self.fresh -= held.bytes;
            held.elsewhere = true;
        }
    }

    /// Of the batches in memory that are elsewhere, too, the one that is likely to be needed last.
    #[must_use]
    pub fn last_copy(&self) -> Option<u32> {
        self.copies.last().map(|&(_, slot)| slot)
    }

    /// A batch that is away is in memory, too.
    pub fn bring_back(&mut self, slot: u32, batch: Batch) {
        let Some(held) = self.batches.get_mut(slot as usize).and_then(Option::as_mut) else { return };
        if held.batch.replace(batch).is_none() {
            self.away -= u64::from(held.left);
            self.bytes += held.bytes;
            self.copies.insert((held.earliest, slot));
        }
    }

    /// Batches elsewhere of which no row is held any more. To be asked for before anything else is put.
    pub fn take_done(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.done)
    }

    /// The key of a row that is held and in memory.
    #[must_use]
    pub fn key(&self, place: Place) -> Option<&[u8]> {
        let held = self.held(place)?;
        let batch = held.batch.as_ref()?;
        held.held.get(place.1 as usize).then(|| batch.keys().row(place.1 as usize))
    }

    /// A time that no row is earlier than.
    #[must_use]
    pub fn earliest(&self) -> Option<i64> {
        self.earliest.first().map(|&(time, _)| time)
    }

    /// What came and went since the last cut: rows that no cut has, and those that are gone. `load` reads a batch
    /// that is away.
    ///
    /// # Errors
    /// What `load` says.
    pub fn changes<E>(
        &mut self,
        mut load: impl FnMut(u32) -> Result<Batch, E>,
    ) -> Result<(Vec<StoredRow>, Vec<GoneRow>), E> {
        let mut rows = Vec::new();
        for (slot, held) in self.batches.iter_mut().enumerate() {
            let Some(held) = held.as_mut().filter(|held| !held.stored) else { continue };
            held.stored = true;
            let away;
            let batch = match &held.batch {
                Some(batch) => batch,
                None => {
                    away = load(slot as u32)?;
                    &away
                }
            };
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
        Ok((rows, std::mem::take(&mut self.gone)))
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
        let none_away = |_: u32| -> Result<Batch, ()> { Err(()) };
        assert_eq!(rows.changes(none_away), Ok((vec![row(0, None, origin(0))], vec![])));
        rows.take(&[(0, 0)]);
        assert_eq!(rows.changes(none_away), Ok((vec![], vec![(b"k".as_slice().into(), 0)])));
        assert_eq!((rows.len(), rows.bytes(), rows.next_slot()), (0, 0, 0));
    }
    #[test]
    fn batches_that_are_away_are_held_as_before() {
        let mut rows = HeldRows::default();
        let batch = |number, time| StoredRow::batch(&[StoredRow { time, ..row(number, None, None) }], 0);
        for (number, time) in [(0, 5), (1, 9), (2, 7)] {
            rows.put(batch(number, time), &[Some(number)], false);
        }
        let bytes = rows.bytes();
        assert_eq!(rows.fresh_bytes(), bytes);
        rows.send_away(1);
        rows.send_away(2);
        assert_eq!((rows.len(), rows.away(), rows.earliest(), rows.last_copy()), (3, 2, Some(5), None));
        assert!(rows.bytes() < bytes && rows.is_away((1, 0)).is_some() && rows.is_fresh((0, 0)));
        let (stored, gone) = rows.changes(|slot| Ok::<_, ()>(batch(slot.into(), 9))).expect("read");
        assert_eq!((stored.len(), gone.len()), (3, 0), "a cut has all of them");
        rows.bring_back(1, batch(1, 9));
        rows.bring_back(2, batch(2, 7));
        assert_eq!((rows.bytes(), rows.away(), rows.last_copy()), (bytes, 0, Some(1)), "the latest goes first");
        rows.send_away(1);
        assert_eq!(rows.take(&[(0, 0), (2, 0)]).map(|batch| batch.times().to_vec()), Some(vec![5, 7]));
        assert_eq!((rows.take_done(), rows.take_done()), (vec![2], vec![]));
        rows.bring_back(1, batch(1, 9));
        assert_eq!(rows.take(&[(1, 0)]).map(|batch| batch.times().to_vec()), Some(vec![9]));
        assert_eq!((rows.len(), rows.bytes(), rows.fresh_bytes(), rows.take_done()), (0, 0, 0, vec![1]));
    }

    #[test]
    fn rows_are_put_together_anew_without_being_gone() {
        let mut rows = HeldRows::default();
        for (batch, stored) in [(0, true), (1, false), (2, true)] {
            let numbers = [batch * 2, batch * 2 + 1];
            let of = StoredRow::batch(&numbers.map(|number| row(number, None, None)), 0);
            rows.put(of, &numbers.map(Some), stored);
        }
        let places = [(2, 0), (1, 1), (0, 0), (0, 1), (1, 0)];
        let mut made = Vec::new();
        let moved = rows.regroup(&places, (2, 1_000), |rows, slot| -> Result<(), ()> {
            made.push(rows.batch(slot).expect("in memory").len());
            Ok(())
        });
        assert_eq!(made, [2, 2, 1]);
        let moved = moved.expect("nothing fails");
        assert_eq!(rows.len(), 6);
        let numbers: Vec<_> = moved.iter().map(|&place| rows.number(place)).collect();
        assert_eq!(numbers, [4, 3, 0, 1, 2].map(Some));
        let (stored, gone) = rows.changes(|_| Err(())).expect("none is away");
        assert_eq!((stored.iter().map(|row| row.number).collect::<Vec<_>>(), gone), (vec![3, 2], vec![]));
        assert_eq!(rows.take(&moved).map(|batch| batch.len()), Some(5));
        assert_eq!((rows.len(), rows.changes(|_| Err::<Batch, ()>(())).expect("none is away").1.len()), (1, 5));
    }
}
