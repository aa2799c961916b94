//! The ordering buffer in front of a stage: rows come in any order and go on in one.
//!
//! What leaves and when is decided in `wasmill-order`; here rows are kept ([`HeldRows`]), numbers are
//! read, and what is held becomes part of the cut.
//!
//! # Ordering
//! The watermark that goes on with the rows is the buffer's: it never passes a row that is held.
//!
//! # Bounds
//! Where rows may wait on disk ([`Spill`]), those that came lately take at most half of the memory: past that,
//! three quarters of it, those that leave last, are put together in the order in which they will leave, and
//! written. So what is read back is read batch by batch, one for each time that something was written, and has the
//! other half. Where the disk's share is taken, they have all of the memory, and past that the first rows go.
//! So they do, a few at a time, while the tenant's jobs have more state than they may: then keys of sequences of
//! which nothing waits are forgotten, too.

use std::sync::Arc;

use wasmill_contract::Share;
use wasmill_model::{Batch, NodeName, PaneKind, Timestamp};
use wasmill_order::{
    HeldRows, Numbered, Place, Quality, SavedSequence, SequenceBuffer, SequenceSettings, Slack, StoredRow, TimeBuffer,
};
use wasmill_plan::{LatePolicy, OrderBy, OrderSpec, SequenceOrder, TimeBound};
use wasmill_scan::Pointer;
use wasmill_store::{HeldRecord, StoreError};
use wasmill_tenancy::{Account, Held};

use crate::facts::{BufferFacts, LateRows, NAMED_MAX, Waits, shown};
use crate::metrics::OrderingSnapshot;
use crate::spill::Spill;

/// What is known of a row that is held, beside the row, bytes.
const HELD_ROW_BYTES: u64 = 50;
/// Sequences take as much even where their tenant has no room for them, bytes.
const SEQUENCE_BYTES_MIN: usize = 1 << 20;
/// Rows that go at a time where there is no room.
const FORCED_ROWS: usize = 64;
/// Rows, and bytes but for the last row, that go on at a time.
const PIECE_ROWS: usize = 4_096;
const PIECE_BYTES: usize = 4 << 20;
/// Rows of a batch on disk, and what share of the memory it takes.
const SPILLED_ROWS: usize = 2_048;
const SPILLED_SHARE: u64 = 64;

/// First bytes of the names of what is stored.
const OF_SHARE: u8 = 0;
pub(crate) const ROW: u8 = 2;
const OF_KEY: u8 = 3;
/// Sequences that do not say when they were last used.
const OLD_OF_KEY: u8 = 1;

/// What a batch led to.
/// Rows that go on in order are asked for by [`OrderSlot::next`].
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    /// Rows that came too late, to go on as they are.
    pub(crate) forwarded: Option<Batch>,
    /// Rows that came too late, to leave the stage by its side.
    pub(crate) side: Option<Batch>,
    /// Rows without a number, and why.
    pub(crate) malformed: Option<(Batch, Vec<String>)>,
}

/// Why a buffer cannot go on from what cuts have stored.
pub(crate) enum NotRestored {
    /// What is wrong with it.
    Damaged(&'static str),
    /// Its rows are to wait on disk, and cannot.
    Spill(StoreError),
}

impl From<&'static str> for NotRestored {
    fn from(reason: &'static str) -> Self {
        Self::Damaged(reason)
    }
}

/// The ordering buffer of an input port of one task.
pub(crate) struct OrderSlot {
    node: NodeName,
    port: u16,
    kind: Kind,
    late: LatePolicy,
    /// Rows, and bytes in memory.
    limits: (u64, u64),
    rows: HeldRows,
    spill: Option<Spill>,
    /// The watermark of the input.
    watermark: Timestamp,
    counts: OrderingSnapshot,
    last_late: LateRows,
    /// Rows that go on, and how many of them have.
    out: Vec<Place>,
    gone: usize,
    numbers: Vec<Option<u64>>,
    /// What it takes of the state that its tenant may have.
    held: Option<Held>,
}

enum Kind {
    Time(Box<TimeBuffer<Place>>),
    Sequence(Box<SequenceBuffer<Place>>, SequenceOrder),
}

impl OrderSlot {
    pub(crate) fn new(
        node: NodeName,
        port: u16,
        spec: &OrderSpec,
        spill: Option<Spill>,
        account: Option<&Account>,
    ) -> Self {
        let kind = match &spec.by {
            OrderBy::Time(order) => {
                let most = order.most.micros().unsigned_abs();
                Kind::Time(Box::new(TimeBuffer::new(match order.bound {
                    TimeBound::Watermark => Slack::Watermark,
                    TimeBound::Fixed(bound) => Slack::Fixed { bound: bound.micros().unsigned_abs().min(most) },
                    TimeBound::KSlack => Slack::largest(most),
                    TimeBound::AqKSlack { quality_ppm, window } => {
                        let target = f64::from(quality_ppm) / 1e6;
                        Slack::adaptive(Quality { target, window: window.micros().unsigned_abs() }, most)
                    }
                })))
            }
            OrderBy::Sequence(order) => {
                let gap_micros = order.gap.map(|gap| gap.micros().unsigned_abs());
                let keys_max = usize::try_from(order.keys_max).unwrap_or(usize::MAX);
                let settings = SequenceSettings { first: order.first, gap_micros, keys_max };
                Kind::Sequence(Box::new(SequenceBuffer::new(settings)), order.clone())
            }
        };
        Self {
            node,
            port,
            kind,
            late: spec.late,
            limits: (spec.rows_max, spec.bytes_max.bytes()),
            rows: HeldRows::default(),
            spill,
            watermark: Timestamp::MIN,
            counts: OrderingSnapshot::default(),
            last_late: LateRows::default(),
            out: Vec::new(),
            gone: 0,
            numbers: Vec::new(),
            held: account.map(|account| account.state.held()),
        }
    }

    /// What it holds now.
    fn count_held(&mut self) {
        if let Some(held) = &mut self.held {
            let (placeholders, sequences) = match &self.kind {
                Kind::Time(_) => (0, 0),
                Kind::Sequence(buffer, _) => (buffer.placeholders() as u64, buffer.bytes() as u64),
            };
            held.set(self.rows.bytes() + (self.rows.len() + placeholders) * HELD_ROW_BYTES + sequences);
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Rows come.
    pub(crate) fn offer(&mut self, batch: &Batch, wall: Timestamp) -> Ordered {
        let (late, malformed) = self.take_in(batch, wall);
        let mut ordered = Ordered::default();
        if !late.is_empty() {
            self.counts.late += late.len() as u64;
            match &self.kind {
                Kind::Time(buffer) => self.last_late.note(batch, &late, buffer.frontier(), wall, |_| None),
                Kind::Sequence(_, order) => {
                    let number = |value: &[u8]| number_of(value, &order.field).ok();
                    self.last_late.note(batch, &late, self.watermark, wall, number);
                }
            }
            match self.late {
                LatePolicy::Drop => self.counts.dropped += late.len() as u64,
                LatePolicy::Forward => ordered.forwarded = Some(batch.gather(&late)),
                LatePolicy::Side => ordered.side = Some(batch.gather(&late)),
                LatePolicy::Correct => ordered.forwarded = Some(all(PaneKind::Correction, batch.gather(&late))),
            }
        }
        if !malformed.is_empty() {
            let (rows, reasons): (Vec<u32>, Vec<String>) = malformed.into_iter().unzip();
            ordered.malformed = Some((batch.gather(&rows), reasons));
        }
        ordered
    }

    /// Offers every row. Those that are late, and those without a number.
    fn take_in(&mut self, batch: &Batch, wall: Timestamp) -> (Vec<u32>, Vec<(u32, String)>) {
        let slot = self.rows.next_slot();
        let (mut late, mut malformed) = (Vec::new(), Vec::new());
        self.numbers.clear();
        match &mut self.kind {
            Kind::Time(buffer) => {
                for (row, &time) in batch.times().iter().enumerate() {
                    let number = buffer.offer(time, (slot, row as u32));
                    if number.is_none() {
                        late.push(row as u32);
                    }
                    self.numbers.push(number);
                }
            }
            Kind::Sequence(buffer, order) => {
                for (row, (key, value)) in batch.keys().iter().zip(batch.values().iter()).enumerate() {
                    let key = if order.per_key { key } else { b"" };
                    let row = row as u32;
                    let mut held = None;
                    match number_of(value, &order.field) {
                        Err(reason) => malformed.push((row, reason)),
                        Ok(number) => {
                            let says =
                                |pointer: &Option<Pointer>| pointer.as_ref().is_some_and(|at| is_true(value, at));
                            let what = match () {
                                () if says(&order.done) => Numbered::Done,
                                () if says(&order.placeholder) => Numbered::Missing,
                                () => Numbered::Row((slot, row)),
                            };
                            let taken = buffer.offer(key, number, what, wall.0.unsigned_abs(), &mut self.out);
                            match what {
                                Numbered::Row(_) if taken => held = Some(number),
                                Numbered::Row(_) => late.push(row),
                                Numbered::Missing | Numbered::Done => self.counts.marks += 1,
                            }
                        }
                    }
                    self.numbers.push(held);
                }
            }
        }
        self.rows.put(batch.clone(), &self.numbers, false);
        (late, malformed)
    }

    /// The rows that go on next, because they may or because there is no room for them. To be asked for until there
    /// are none, whenever something came or time has passed.
    pub(crate) fn next(&mut self, wall: Timestamp) -> Result<Option<Batch>, StoreError> {
        self.count_held();
        if self.gone == self.out.len() {
            self.out.clear();
            self.gone = 0;
            self.let_go(wall);
        }
        if self.out.is_empty() {
            self.make_room()?;
            self.force(wall);
        }
        let piece = self.fetch()?;
        let ready = self.rows.take(&self.out[self.gone..piece]);
        self.gone = piece;
        if let Some(spill) = &mut self.spill {
            self.rows.take_done().into_iter().try_for_each(|slot| spill.remove(slot))?;
            self.keep_to(self.limits.1);
        }
        let ready =
            ready.map(|batch| if self.late == LatePolicy::Correct { all(PaneKind::OnTime, batch) } else { batch });
        Ok(ready)
    }

    /// What may go.
    fn let_go(&mut self, wall: Timestamp) {
        match &mut self.kind {
            Kind::Time(buffer) => {
                let ready = std::iter::from_fn(|| buffer.pop()).map(|(_, _, place)| place);
                self.out.extend(ready.take(PIECE_ROWS));
            }
            Kind::Sequence(buffer, _) => buffer.expire(wall.0.unsigned_abs(), &mut self.out),
        }
    }

    /// What has to go because there is no room.
    fn force(&mut self, wall: Timestamp) {
        let (rows_max, bytes_max) = self.limits;
        let rows = &self.rows;
        let over_budget = self.held.as_ref().is_some_and(Held::is_over);
        let is_over = |placeholders: usize| {
            over_budget || rows.len() + placeholders as u64 > rows_max || rows.fresh_bytes() > bytes_max
        };
        match &mut self.kind {
            Kind::Time(buffer) => {
                let forced = std::iter::from_fn(|| buffer.force()).map(|(_, _, place)| place);
                self.out.extend(forced.take(if is_over(0) { FORCED_ROWS } else { 0 }));
            }
            Kind::Sequence(buffer, _) => {
                while self.out.is_empty()
                    && is_over(buffer.placeholders())
                    && buffer.force(wall.0.unsigned_abs(), &mut self.out)
                {}
                if self.out.is_empty() && over_budget && buffer.bytes() > SEQUENCE_BYTES_MIN {
                    buffer.forget_half();
                }
            }
        }
        self.counts.forced += self.out.len() as u64;
    }

    /// Moves rows to disk, where they may and take too much memory.
    fn make_room(&mut self) -> Result<(), StoreError> {
        let (bytes_max, fresh) = (self.limits.1, self.rows.fresh_bytes());
        if fresh <= bytes_max / 2 || self.spill.as_ref().is_none_or(|spill| !spill.has_room(fresh)) {
            return Ok(());
        }
        self.keep_to(bytes_max / 4 * 3);
        let (Some(spill), rows) = (&mut self.spill, &mut self.rows) else { return Ok(()) };
        // Where the rows that stay end: those behind them are written.
        let kept = |rows: &HeldRows, places: &[Place]| {
            let mut bytes = 0;
            let stays = |place: &&Place| {
                bytes += rows.row_bytes(**place) as u64;
                bytes <= bytes_max / 4
            };
            places.iter().take_while(stays).count()
        };
        let chunk = (SPILLED_ROWS, usize::try_from(bytes_max / SPILLED_SHARE).unwrap_or(usize::MAX));
        let mut write = |rows: &mut HeldRows, slot: u32| {
            let Some(batch) = rows.batch(slot) else { return Ok(()) };
            spill.push(slot, batch)?;
            rows.send_away(slot);
            Ok(())
        };
        match &mut self.kind {
            Kind::Time(buffer) => {
                let moved = buffer.take_out(|place| rows.is_fresh(place));
                let places: Vec<Place> = moved.iter().map(|&(_, _, place)| place).collect();
                let (stay, go) = places.split_at(kept(rows, &places));
                let mut new = rows.regroup(stay, chunk, |_, _| Ok::<_, StoreError>(()))?;
                new.extend(rows.regroup(go, chunk, &mut write)?);
                self.counts.spilled += go.len() as u64;
                for ((time, number, _), place) in moved.into_iter().zip(new) {
                    buffer.put_back(time, number, place);
                }
            }
            Kind::Sequence(buffer, _) => {
                let held: Vec<&mut Place> = buffer.held_mut().filter(|place| rows.is_fresh(**place)).collect();
                let places: Vec<Place> = held.iter().map(|place| **place).collect();
                let (stay, go) = places.split_at(kept(rows, &places));
                let mut new = rows.regroup(stay, chunk, |_, _| Ok::<_, StoreError>(()))?;
                new.extend(rows.regroup(go, chunk, &mut write)?);
                self.counts.spilled += go.len() as u64;
                held.into_iter().zip(new).for_each(|(place, new)| *place = new);
            }
        }
        Ok(())
    }

    /// Drops batches from memory that are on disk, too, until the rest has so many bytes.
    fn keep_to(&mut self, bytes_max: u64) {
        while self.rows.bytes() > bytes_max
            && let Some(slot) = self.rows.last_copy()
        {
            self.rows.send_away(slot);
        }
    }

    /// Reads back what goes on next, as far as there is room for it. Gives its end in `out`.
    fn fetch(&mut self) -> Result<usize, StoreError> {
        let (mut end, mut bytes) = (self.gone, 0);
        while end < self.out.len().min(self.gone + PIECE_ROWS) && bytes < PIECE_BYTES {
            let place = self.out[end];
            if let Some(spill) = &self.spill
                && let Some(more) = self.rows.is_away(place)
            {
                let is_over = self.rows.bytes() + more > self.limits.1;
                if is_over && end > self.gone {
                    break;
                }
                let batch = spill.read(place.0)?;
                if is_over {
                    self.keep_to(self.limits.1.saturating_sub(more));
                }
                self.rows.bring_back(place.0, batch);
            }
            bytes += self.rows.row_bytes(place);
            end += 1;
        }
        Ok(end)
    }

    /// The watermark of the input.
    pub(crate) fn watermark(&mut self, watermark: Timestamp) {
        self.watermark = watermark;
        match &mut self.kind {
            Kind::Time(buffer) => buffer.watermark(watermark),
            Kind::Sequence(buffer, _) if watermark == Timestamp::MAX => buffer.finish(&mut self.out),
            Kind::Sequence(..) => {}
        }
    }

    /// When missing numbers are given up next, by the wall clock.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        match &self.kind {
            Kind::Time(_) => None,
            Kind::Sequence(buffer, _) => {
                buffer.next_deadline().map(|at| Timestamp(i64::try_from(at).unwrap_or(i64::MAX)))
            }
        }
    }

    /// No row that leaves in order has this time or an earlier one.
    pub(crate) fn promised(&self) -> Timestamp {
        match &self.kind {
            Kind::Time(buffer) => buffer.promised(),
            Kind::Sequence(..) => {
                let earliest = self.rows.earliest().map_or(Timestamp::MAX, |time| Timestamp(time.saturating_sub(1)));
                self.watermark.min(earliest)
            }
        }
    }

    pub(crate) fn counts(&self) -> OrderingSnapshot {
        let (slack_micros, missing) = match &self.kind {
            Kind::Time(buffer) => (buffer.k(), 0),
            Kind::Sequence(buffer, _) => (0, buffer.missing()),
        };
        let slack_micros = if slack_micros == u64::MAX { 0 } else { slack_micros };
        let forgotten = match &self.kind {
            Kind::Time(_) => 0,
            Kind::Sequence(buffer, _) => buffer.forgotten(),
        };
        let (held, on_disk, bytes) = (self.rows.len(), self.rows.away(), self.rows.bytes());
        let promised = Some(self.promised());
        OrderingSnapshot { held, on_disk, bytes, missing, forgotten, slack_micros, promised, ..self.counts }
    }

    /// What it holds, and what for.
    pub(crate) fn facts(&self) -> BufferFacts {
        let waits = match &self.kind {
            Kind::Time(buffer) => Waits::Time {
                k: Some(buffer.k()).filter(|k| *k < u64::MAX),
                latest: buffer.latest().map(Timestamp),
                first: buffer.first().map(|&(time, _, place)| (Timestamp(time), self.key(place))),
            },
            Kind::Sequence(buffer, order) => Waits::Sequence { gaps: buffer.gaps(NAMED_MAX), per_key: order.per_key },
        };
        let (held, on_disk, late) = (self.rows.len(), self.rows.away(), self.last_late.told());
        BufferFacts { port: self.port, held, on_disk, bytes: self.rows.bytes(), promised: self.promised(), waits, late }
    }

    /// The key of a row, for people.
    fn key(&self, place: Place) -> Box<[u8]> {
        let on_disk = || self.spill.as_ref()?.read(place.0).ok();
        match self.rows.key(place) {
            Some(key) => shown(key),
            None => on_disk().map(|batch| shown(batch.keys().row(place.1 as usize))).unwrap_or_default(),
        }
    }

    /// What changed since the last cut.
    pub(crate) fn cut(&mut self, share: Share) -> Result<Vec<HeldRecord>, StoreError> {
        let (node, port) = (&self.node, self.port);
        let record = |key: Box<[u8]>, name: Vec<u8>, value: Option<Vec<u8>>| HeldRecord {
            node: node.clone(),
            port,
            key,
            name: name.into(),
            value,
        };
        let mut records = Vec::new();
        let spill = self.spill.as_ref();
        let lost = || StoreError::Poisoned { reason: "rows wait on disk without one".to_owned() };
        let (rows, gone) = self.rows.changes(|slot| spill.ok_or_else(lost)?.read(slot))?;
        records.extend(gone.into_iter().map(|(key, number)| record(key, row_name(number), None)));
        records.extend(rows.into_iter().map(|row| {
            let value = row.encode();
            record(row.key, row_name(row.number), Some(value))
        }));
        match &mut self.kind {
            Kind::Time(buffer) => {
                let name = [&[OF_SHARE][..], &share.index.to_be_bytes()].concat();
                let value = [&share.of.to_le_bytes()[..], &buffer.save()].concat();
                records.push(record(Box::default(), name, Some(value)));
            }
            Kind::Sequence(buffer, _) => {
                for (key, saved) in buffer.take_changed() {
                    let value = saved.map(|SavedSequence { next, used, placeholders }| {
                        [next, used].into_iter().chain(placeholders).flat_map(u64::to_le_bytes).collect()
                    });
                    records.push(record(key, vec![OF_KEY], value));
                }
            }
        }
        Ok(records)
    }

    /// Goes on from what cuts have stored. The error says what is wrong with it.
    pub(crate) fn restore(
        &mut self,
        records: Vec<HeldRecord>,
        share: Share,
        wall: Timestamp,
        now_nanos: u64,
    ) -> Result<(), NotRestored> {
        const DAMAGED: &str = "what its ordering buffer held cannot be read";
        const OLD: &str = "its sequences were stored by a build that did not know `keys_max`: drain the job with that \
                           build, or begin with another state directory";
        let mut rows = Vec::new();
        let (mut saved, mut sequences) = (Vec::new(), Vec::new());
        for HeldRecord { key, name, value, .. } in records {
            let value = value.unwrap_or_default();
            match name.split_first().ok_or(DAMAGED)? {
                (&OF_SHARE, index) => {
                    let index = index.try_into().map(u16::from_be_bytes).map_err(|_| DAMAGED)?;
                    let (of, learned) = value.split_first_chunk().ok_or(DAMAGED)?;
                    saved.push((index, u16::from_le_bytes(*of), learned.to_vec()));
                }
                (&OF_KEY, _) => {
                    let numbers: Vec<u64> = value
                        .chunks_exact(8)
                        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()))
                        .collect();
                    let [next, used, placeholders @ ..] = &*numbers else { return Err(DAMAGED.into()) };
                    sequences
                        .push((key, SavedSequence { next: *next, used: *used, placeholders: placeholders.to_vec() }));
                }
                (&ROW, number) => {
                    let number = number.try_into().map(u64::from_be_bytes).map_err(|_| DAMAGED)?;
                    rows.push(StoredRow::decode(key, number, &value).ok_or(DAMAGED)?);
                }
                (&OLD_OF_KEY, _) => return Err(OLD.into()),
                _ => return Err(DAMAGED.into()),
            }
        }
        rows.sort_by_key(|row| row.number);
        match &mut self.kind {
            Kind::Time(buffer) => {
                let own = saved.iter().find(|(index, of, _)| (*index, *of) == (share.index, share.of));
                if let Some((_, _, learned)) = own.filter(|_| saved.iter().all(|(_, of, _)| *of == share.of)) {
                    if !buffer.restore(learned) {
                        return Err(DAMAGED.into());
                    }
                } else {
                    // Shares are dealt anew: no row may leave before one that has left another task.
                    for (_, _, learned) in &saved {
                        let mut other = TimeBuffer::<Place>::new(Slack::Watermark);
                        if !other.restore(learned) {
                            return Err(DAMAGED.into());
                        }
                        buffer.begin_at(&other);
                    }
                }
            }
            Kind::Sequence(buffer, _) => sequences.iter().for_each(|(key, saved)| buffer.restore(key, saved)),
        }
        let mut rows = rows.into_iter();
        loop {
            let some: Vec<StoredRow> = rows.by_ref().take(SPILLED_ROWS).collect();
            if some.is_empty() {
                return Ok(());
            }
            let slot = self.rows.next_slot();
            for (place, row) in some.iter().enumerate() {
                let place = (slot, place as u32);
                match &mut self.kind {
                    Kind::Time(buffer) => buffer.put_back(row.time, row.number, place),
                    Kind::Sequence(buffer, order) => {
                        let key = if order.per_key { &*row.key } else { b"" };
                        if !buffer.put_back(key, row.number, place, wall.0.unsigned_abs()) {
                            return Err(DAMAGED.into());
                        }
                    }
                }
            }
            let numbers: Vec<Option<u64>> = some.iter().map(|row| Some(row.number)).collect();
            self.rows.put(StoredRow::batch(&some, now_nanos), &numbers, true);
            self.make_room().map_err(NotRestored::Spill)?;
        }
    }
}

/// The same rows, each of which says what it is.
fn all(kind: PaneKind, batch: Batch) -> Batch {
    let kinds = vec![kind; batch.len()];
    batch.with_kinds(Some(Arc::new(kinds)))
}

fn row_name(number: u64) -> Vec<u8> {
    [&[ROW][..], &number.to_be_bytes()].concat()
}

fn number_of(value: &[u8], field: &Pointer) -> Result<u64, String> {
    match field.find(value) {
        Ok(Some(raw)) => raw.as_i64().and_then(|number| u64::try_from(number).ok()).ok_or_else(|| {
            let found = String::from_utf8_lossy(&raw.bytes()[..raw.bytes().len().min(80)]).into_owned();
            format!("no sequence number: expected a whole number from 0 at {field}, found {found}")
        }),
        Ok(None) => Err(format!("no sequence number: the row has nothing at {field}")),
        Err(error) => Err(format!("no sequence number at {field}: {error}")),
    }
}

/// Whether a row says `true` at a place.
pub(crate) fn is_true(value: &[u8], at: &Pointer) -> bool {
    matches!(at.find(value), Ok(Some(raw)) if raw.bytes() == b"true")
}

#[cfg(test)]
mod tests;
