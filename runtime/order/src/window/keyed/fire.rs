use wasmill_model::{ColumnBuilder, PaneBatch, PaneKind, PaneMode, Results, Timestamp};

use super::frame::Frame;
use super::state::{Given, KeyState, Pane};
use super::{KeyedWindows, hash};
use crate::window::fire::{FIRED_BYTES_MAX, Fired, PaneFact, PaneRows};

/// Why a pane is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It is full, or its trigger has counted enough events.
    Ready,
    /// The watermark.
    Watermark,
    /// The wall clock.
    Wall,
}

/// Panes that fire together.
#[derive(Default)]
struct Firings {
    starts: Vec<i64>,
    ends: Vec<i64>,
    keys: ColumnBuilder,
    accumulators: ColumnBuilder,
    groups: Vec<u32>,
    facts: Vec<PaneFact>,
}

impl KeyedWindows {
    /// Up to `limit` panes, at least one, of those that are full, or due at `watermark` or at `wall`.
    /// Call again until there is none. At [`Timestamp::MAX`] everything fires.
    pub fn fire(&mut self, watermark: Timestamp, wall: Timestamp, limit: usize) -> Option<Fired> {
        self.abandon();
        let watermark = watermark.0.max(self.watermark);
        let mut firings = Firings::default();
        while firings.facts.len() < limit.max(1)
            && firings.keys.byte_len() + firings.accumulators.byte_len() < FIRED_BYTES_MAX
        {
            let Some((place, id, cause)) = self.next_due(watermark, wall.0) else {
                self.watermark = watermark;
                break;
            };
            self.fire_pane(place, id, cause, watermark, &mut firings);
        }
        (!firings.facts.is_empty()).then(|| firings.finish())
    }

    fn next_due(&mut self, watermark: i64, wall: i64) -> Option<(u32, i64, Cause)> {
        if let Some((place, id)) = self.ready.pop_front() {
            return Some((place, id, Cause::Ready));
        }
        let due = self.due.first().filter(|due| due.0 <= watermark).map(|due| (due, Cause::Watermark));
        let due = due.or_else(|| self.wall_due.first().filter(|due| due.0 <= wall).map(|due| (due, Cause::Wall)));
        let ((_, key, id), cause) = due?;
        let place = self.find(key).expect("a pane that is due belongs to a key");
        Some((place, *id, cause))
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = hash(&self.hasher, key);
        self.index.find(hash, |&place| *self.keys[place as usize].key == *key).copied()
    }

    fn fire_pane(&mut self, place: u32, id: i64, cause: Cause, watermark: i64, firings: &mut Firings) {
        let Self { frame, firing, keys, bytes, .. } = &mut *self;
        let entry = &mut keys[place as usize];
        let Some(at) = entry.state.pane(id) else { return };
        *bytes -= entry.bytes();
        let before = entry.state.panes[at].clone();
        let is_full = cause == Cause::Ready && frame.is_full(&before, entry.state.rows);
        let ends = !before.passed && (is_full || cause == Cause::Watermark && before.last() <= watermark);
        let kind = match (ends, before.passed || before.was_on_time) {
            (true, false) => PaneKind::OnTime,
            (_, true) => PaneKind::Correction,
            (false, false) => PaneKind::Early,
        };
        let passed = before.passed || ends;
        // A reader of replaced results hears that the last early one was the one at the end.
        let is_new = before.rows > 0 || ends && firing.panes == PaneMode::Accumulate;
        let members = entry.state.cells_of(&before);
        let fires = is_new && !members.is_empty();
        if fires {
            firings.push(&entry.key, &entry.state, &before, kind, firing.panes == PaneMode::Retract);
        }
        let pane = &mut entry.state.panes[at];
        (pane.passed, pane.was_on_time, pane.ready) = (passed, pane.was_on_time || ends, false);
        (pane.rows, pane.due, pane.wall_due) = (0, None, None);
        if fires && firing.panes == PaneMode::Discard && !matches!(frame, Frame::Count { .. }) {
            entry.state.cells.drain(members);
        }
        if passed && (is_full || entry.state.panes[at].expires(firing) <= watermark) {
            entry.state.remove_pane(at);
        }
        *bytes += entry.bytes();
        self.unschedule_pane(place, &before);
        self.note_changed(place);
        let entry = &self.keys[place as usize];
        if entry.state.is_fresh(self.frame.slide()) {
            self.remove(place);
        } else if let Some(at) = entry.state.pane(id) {
            let pane = entry.state.panes[at].clone();
            self.schedule_pane(place, &pane);
        }
    }

    /// The rows that results of fired panes make, with the retractions of those that they replace.
    /// Results that are what was given before make none.
    pub fn rows(&mut self, fired: &Fired, results: &Results) -> PaneRows {
        let mut rows = RowBuilder::default();
        let mut next = 0;
        for (pane, fact) in fired.facts.iter().enumerate() {
            let from = next;
            while next < results.values.len() && results.panes.get(next).map_or(next, |&pane| pane as usize) == pane {
                next += 1;
            }
            let (time, key) = (fired.panes.ends[pane].saturating_sub(1), fired.panes.keys.row(pane));
            let values = (from..next).map(|row| results.values.row(row));
            if !self.retracts() {
                values.for_each(|value| rows.push(time, key, value, fact.kind));
                continue;
            }
            if let [stands] = &fact.given[..]
                && stands.rows.iter().eq(values.clone())
            {
                continue;
            }
            let given: Vec<Given> = match from == next {
                true => Vec::new(),
                false => vec![Given { time, rows: values.clone().collect() }],
            };
            for Given { time, rows: earlier } in &fact.given {
                earlier.iter().for_each(|value| rows.push(*time, key, value, PaneKind::Retraction));
            }
            values.for_each(|value| rows.push(time, key, value, fact.kind));
            if let Some(place) = self.find(key)
                && let Some(at) = self.keys[place as usize].state.pane(fact.id)
            {
                let pane = &mut self.keys[place as usize].state.panes[at];
                let bytes = |given: &[Given]| given.iter().map(Given::bytes).sum::<usize>();
                self.bytes = self.bytes - bytes(&pane.given) + bytes(&given);
                pane.given = given;
                self.note_changed(place);
            }
        }
        rows.finish(self.corrects)
    }
}

impl Firings {
    fn push(&mut self, key: &[u8], state: &KeyState, pane: &Pane, kind: PaneKind, retracts: bool) {
        let group = self.facts.len() as u32;
        let cells = &state.cells[state.cells_of(pane)];
        let (mut first, mut last) = (i64::MAX, i64::MIN);
        for cell in cells {
            (first, last) = (first.min(cell.times.0), last.max(cell.times.1));
            self.accumulators.push(&cell.accumulator);
            self.groups.push(group);
        }
        // A window without bounds in time is as long as its events say.
        let unbounded = (pane.start, pane.end) == (i64::MIN, i64::MAX);
        self.starts.push(if unbounded { first } else { pane.start });
        self.ends.push(if unbounded { last.saturating_add(1) } else { pane.end });
        self.keys.push(key);
        let given = if retracts { pane.given.clone() } else { Vec::new() };
        self.facts.push(PaneFact { kind, id: pane.id, given });
    }

    fn finish(self) -> Fired {
        let has_several = self.groups.len() > self.facts.len();
        Fired {
            panes: PaneBatch { starts: self.starts, ends: self.ends, keys: self.keys.finish() },
            accumulators: self.accumulators.finish(),
            merge: has_several.then_some(self.groups),
            facts: self.facts,
        }
    }
}

#[derive(Default)]
struct RowBuilder {
    times: Vec<i64>,
    keys: ColumnBuilder,
    values: ColumnBuilder,
    kinds: Vec<PaneKind>,
}

impl RowBuilder {
    fn push(&mut self, time: i64, key: &[u8], value: &[u8], kind: PaneKind) {
        self.times.push(time);
        self.keys.push(key);
        self.values.push(value);
        self.kinds.push(kind);
    }

    fn finish(self, corrects: bool) -> PaneRows {
        let kinds = corrects.then_some(self.kinds);
        PaneRows { times: self.times, keys: self.keys.finish(), values: self.values.finish(), kinds }
    }
}
