//! The ordering buffer in front of a stage: rows come in any order and go on in one.
//!
//! What leaves and when is decided in `wasmill-order`; here rows are kept ([`HeldRows`]), numbers are
//! read, and what is held becomes part of the cut.
//!
//! # Ordering
//! The watermark that goes on with the rows is the buffer's: it never passes a row that is held.

use std::sync::Arc;

use wasmill_contract::Share;
use wasmill_model::{Batch, NodeName, PaneKind, Timestamp};
use wasmill_order::{
    HeldRows, Numbered, Place, Quality, SequenceBuffer, SequenceSettings, Slack, StoredRow, TimeBuffer,
};
use wasmill_plan::{LatePolicy, OrderBy, OrderSpec, SequenceOrder, TimeBound};
use wasmill_scan::Pointer;
use wasmill_store::HeldRecord;

use crate::facts::{BufferFacts, LateRows, NAMED_MAX, Waits, shown};
use crate::metrics::OrderingSnapshot;

/// Rows that go at a time where there is no room.
const FORCED_ROWS: usize = 64;

/// First bytes of the names of what is stored.
const OF_SHARE: u8 = 0;
const OF_KEY: u8 = 1;
pub(crate) const ROW: u8 = 2;

/// What a batch led to.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    /// Rows that go on, in order.
    pub(crate) ready: Vec<Batch>,
    /// Rows that came too late, to go on as they are.
    pub(crate) forwarded: Option<Batch>,
    /// Rows that came too late, to leave the stage by its side.
    pub(crate) side: Option<Batch>,
    /// Rows without a number, and why.
    pub(crate) malformed: Option<(Batch, Vec<String>)>,
}

/// The ordering buffer of an input port of one task.
pub(crate) struct OrderSlot {
    node: NodeName,
    port: u16,
    kind: Kind,
    late: LatePolicy,
    limits: (u64, u64),
    rows: HeldRows,
    /// The watermark of the input.
    watermark: Timestamp,
    counts: OrderingSnapshot,
    last_late: LateRows,
    out: Vec<Place>,
    numbers: Vec<Option<u64>>,
}

enum Kind {
    Time(Box<TimeBuffer<Place>>),
    Sequence(Box<SequenceBuffer<Place>>, SequenceOrder),
}

impl OrderSlot {
    pub(crate) fn new(node: NodeName, port: u16, spec: &OrderSpec) -> Self {
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
                let settings = SequenceSettings { first: order.first, gap_micros };
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
            watermark: Timestamp::MIN,
            counts: OrderingSnapshot::default(),
            last_late: LateRows::default(),
            out: Vec::new(),
            numbers: Vec::new(),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Rows come.
    pub(crate) fn offer(&mut self, batch: &Batch, wall: Timestamp) -> Ordered {
        let (late, malformed) = self.take_in(batch, wall, false);
        let mut ordered = Ordered { ready: self.let_go(wall), ..Ordered::default() };
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
    fn take_in(&mut self, batch: &Batch, wall: Timestamp, stored: bool) -> (Vec<u32>, Vec<(u32, String)>) {
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
        self.rows.put(batch.clone(), &self.numbers, stored);
        (late, malformed)
    }

    /// What may go, and what has to because there is no room.
    fn let_go(&mut self, wall: Timestamp) -> Vec<Batch> {
        match &mut self.kind {
            Kind::Time(buffer) => self.out.extend(std::iter::from_fn(|| buffer.pop()).map(|(_, _, place)| place)),
            Kind::Sequence(buffer, _) => buffer.expire(wall.0.unsigned_abs(), &mut self.out),
        }
        let mut ready: Vec<Batch> = self.rows.take(&self.out).into_iter().collect();
        self.out.clear();
        let (rows_max, bytes_max) = self.limits;
        while self.rows.len() > rows_max || self.rows.bytes() > bytes_max {
            match &mut self.kind {
                Kind::Time(buffer) => {
                    let forced = std::iter::from_fn(|| buffer.force()).map(|(_, _, place)| place);
                    self.out.extend(forced.take(FORCED_ROWS));
                    self.out.extend(std::iter::from_fn(|| buffer.pop()).map(|(_, _, place)| place));
                }
                Kind::Sequence(buffer, _) => drop(buffer.force(wall.0.unsigned_abs(), &mut self.out)),
            }
            self.counts.forced += self.out.len() as u64;
            ready.extend(self.rows.take(&self.out));
            self.out.clear();
        }
        if self.late == LatePolicy::Correct {
            ready = ready.into_iter().map(|batch| all(PaneKind::OnTime, batch)).collect();
        }
        ready
    }

    /// The watermark of the input.
    pub(crate) fn watermark(&mut self, watermark: Timestamp, wall: Timestamp) -> Vec<Batch> {
        self.watermark = watermark;
        match &mut self.kind {
            Kind::Time(buffer) => buffer.watermark(watermark),
            Kind::Sequence(buffer, _) if watermark == Timestamp::MAX => buffer.finish(&mut self.out),
            Kind::Sequence(..) => {}
        }
        self.let_go(wall)
    }

    /// Time has passed.
    pub(crate) fn wall(&mut self, wall: Timestamp) -> Vec<Batch> {
        self.let_go(wall)
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
        let (held, bytes, promised) = (self.rows.len(), self.rows.bytes(), Some(self.promised()));
        OrderingSnapshot { held, bytes, missing, slack_micros, promised, ..self.counts }
    }

    /// What it holds, and what for.
    pub(crate) fn facts(&self) -> BufferFacts {
        let waits = match &self.kind {
            Kind::Time(buffer) => Waits::Time {
                k: Some(buffer.k()).filter(|k| *k < u64::MAX),
                latest: buffer.latest().map(Timestamp),
                first: buffer
                    .first()
                    .map(|&(time, _, place)| (Timestamp(time), self.rows.key(place).map(shown).unwrap_or_default())),
            },
            Kind::Sequence(buffer, order) => Waits::Sequence { gaps: buffer.gaps(NAMED_MAX), per_key: order.per_key },
        };
        let (held, bytes, late) = (self.rows.len(), self.rows.bytes(), self.last_late.told());
        BufferFacts { port: self.port, held, bytes, promised: self.promised(), waits, late }
    }

    /// What changed since the last cut.
    pub(crate) fn cut(&mut self, share: Share) -> Vec<HeldRecord> {
        let (node, port) = (&self.node, self.port);
        let record = |key: Box<[u8]>, name: Vec<u8>, value: Option<Vec<u8>>| HeldRecord {
            node: node.clone(),
            port,
            key,
            name: name.into(),
            value,
        };
        let mut records = Vec::new();
        let (rows, gone) = self.rows.changes();
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
                for (key, next, placeholders) in buffer.take_changed() {
                    let numbers = std::iter::once(next).chain(placeholders);
                    let value = numbers.flat_map(u64::to_le_bytes).collect();
                    records.push(record(key.into(), vec![OF_KEY], Some(value)));
                }
            }
        }
        records
    }

    /// Goes on from what cuts have stored. The error says what is wrong with it.
    pub(crate) fn restore(
        &mut self,
        records: Vec<HeldRecord>,
        share: Share,
        wall: Timestamp,
        now_nanos: u64,
    ) -> Result<(), &'static str> {
        const DAMAGED: &str = "what its ordering buffer held cannot be read";
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
                    sequences.push((key, numbers));
                }
                (&ROW, number) => {
                    let number = number.try_into().map(u64::from_be_bytes).map_err(|_| DAMAGED)?;
                    rows.push(StoredRow::decode(key, number, &value).ok_or(DAMAGED)?);
                }
                _ => return Err(DAMAGED),
            }
        }
        rows.sort_by_key(|row| row.number);
        match &mut self.kind {
            Kind::Time(buffer) => {
                let own = saved.iter().find(|(index, of, _)| (*index, *of) == (share.index, share.of));
                if let Some((_, _, learned)) = own.filter(|_| saved.iter().all(|(_, of, _)| *of == share.of)) {
                    if !buffer.restore(learned) {
                        return Err(DAMAGED);
                    }
                } else {
                    // Shares are dealt anew: no row may leave before one that has left another task.
                    for (_, _, learned) in &saved {
                        let mut other = TimeBuffer::<Place>::new(Slack::Watermark);
                        if !other.restore(learned) {
                            return Err(DAMAGED);
                        }
                        buffer.begin_at(&other);
                    }
                }
                let batch = StoredRow::batch(&rows, now_nanos);
                let numbers: Vec<Option<u64>> = rows.iter().map(|row| Some(row.number)).collect();
                let slot = self.rows.next_slot();
                for (row, stored) in rows.iter().enumerate() {
                    buffer.put_back(stored.time, stored.number, (slot, row as u32));
                }
                self.rows.put(batch, &numbers, true);
            }
            Kind::Sequence(buffer, _) => {
                for (key, numbers) in sequences {
                    if let Some((next, placeholders)) = numbers.split_first() {
                        buffer.restore(&key, *next, placeholders.iter().copied());
                    }
                }
                if !rows.is_empty() {
                    self.take_in(&StoredRow::batch(&rows, now_nanos), wall, true);
                }
            }
        }
        Ok(())
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
