use std::collections::BTreeMap;

use proptest::prelude::*;
use wasmill_model::{Column, PaneKind, Rejected, Results, WindowShape};

use super::*;

/// Time, key, result, kind. A result is the bounds of the window and the times of its events.
type Row = (i64, u8, String, PaneKind);

fn windows(spec: WindowSpec) -> KeyedWindows {
    KeyedWindows::new(spec).expect("a valid window")
}

fn batch(rows: &[(i64, u8)]) -> Batch {
    let times = rows.iter().map(|row| row.0).collect();
    let keys: Column = rows.iter().map(|row| [row.1]).collect();
    Batch::new(Arc::new(times), Arc::new(keys), Arc::new(Column::empty_rows(rows.len())), 0)
}

/// An event that the guest of these tests rejects.
fn is_rejected(time: i64) -> bool {
    time == 13
}

fn fire(windows: &mut KeyedWindows, watermark: i64, wall: i64, limit: usize) -> Vec<Row> {
    let mut all = Vec::new();
    while let Some(fired) = windows.fire(Timestamp(watermark), Timestamp(wall), limit) {
        let count = fired.panes.starts.len();
        assert!((1..=limit).contains(&count), "{count} panes");
        let groups = fired.merge.clone().unwrap_or_else(|| (0..count as u32).collect());
        assert!(groups.is_sorted() && groups.len() == fired.accumulators.len());
        let mut merged = vec![Vec::new(); count];
        fired.accumulators.iter().zip(groups).for_each(|(part, pane)| merged[pane as usize].extend(times_of(part)));
        let bounds = fired.panes.starts.iter().zip(&fired.panes.ends);
        let values = bounds.zip(merged).map(|((start, end), times)| result(*start, *end, times)).collect();
        let rows = windows.rows(&fired, &Results { values, panes: Vec::new() });
        for (row, &time) in rows.times.iter().enumerate() {
            let value = String::from_utf8(rows.values.row(row).to_vec()).expect("text");
            let kind = rows.kinds.as_ref().map_or(PaneKind::OnTime, |kinds| kinds[row]);
            all.push((time, rows.keys.row(row)[0], value, kind));
        }
    }
    all
}

fn times_of(accumulator: &[u8]) -> impl Iterator<Item = i64> {
    accumulator.chunks(8).map(|time| i64::from_le_bytes(time.try_into().expect("eight bytes")))
}

fn result(start: i64, end: i64, mut times: Vec<i64>) -> String {
    times.sort_unstable();
    format!("{start}..{end} {times:?}")
}

/// Adds rows as a task does. Returns what fires, and how many were late.
fn add(windows: &mut KeyedWindows, rows: &[(i64, u8)], (watermark, wall): (i64, i64)) -> (Vec<Row>, usize) {
    let (mut all, mut late) = (Vec::new(), 0);
    let mut open = VecDeque::from([rows.to_vec()]);
    while let Some(rows) = open.pop_front() {
        let batch = batch(&rows);
        let assignment = windows.assign(&batch, Timestamp(wall)).expect("a small batch");
        assert!(assignment.taken > 0, "nothing is left to fire");
        let mut accumulators: Vec<Vec<u8>> = assignment.accumulators.iter().map(<[u8]>::to_vec).collect();
        let mut rejected = Vec::new();
        let folded = assignment.rows.clone().unwrap_or_else(|| (0..rows.len() as u32).collect());
        assert_eq!(folded.len(), assignment.groups.len());
        for (at, (&row, &group)) in folded.iter().zip(&assignment.groups).enumerate() {
            match rows[row as usize].0 {
                time if is_rejected(time) => rejected.push(Rejected { row: at as u32, reason: String::new() }),
                time => accumulators[group as usize].extend(time.to_le_bytes()),
            }
        }
        let folded = Folded { accumulators: accumulators.iter().collect(), rejected };
        let mut rest = rows;
        if windows.store(&assignment, &folded).expect("the assignment is open") == Stored::FoldOthersAgain {
            rest.retain(|row| !is_rejected(row.0));
        } else {
            late += assignment.late.len();
            rest.drain(..assignment.taken);
        }
        if !rest.is_empty() {
            open.push_front(rest);
        }
        all.extend(fire(windows, watermark, wall, 3));
    }
    (all, late)
}

fn session(gap_micros: i64, firing: Firing) -> WindowSpec {
    WindowSpec { shape: WindowShape::Session { gap_micros }, firing }
}

fn row(time: i64, key: u8, value: &str, kind: PaneKind) -> Row {
    (time, key, value.to_owned(), kind)
}

const MIN: i64 = i64::MIN;

#[test]
fn an_event_between_two_sessions_makes_them_one() {
    let mut windows = windows(session(10, Firing::default()));
    assert_eq!(add(&mut windows, &[(0, 1), (12, 1), (5, 2), (22, 1)], (MIN, 0)), (vec![], 0));
    assert_eq!(windows.accumulators(), 4, "an event a gap behind another is of another session");
    assert_eq!(add(&mut windows, &[(8, 1)], (MIN, 0)), (vec![], 0));
    assert_eq!(fire(&mut windows, 14, 0, 9), [row(14, 2, "5..15 [5]", PaneKind::OnTime)]);
    let want = [row(21, 1, "0..22 [0, 8, 12]", PaneKind::OnTime), row(31, 1, "22..32 [22]", PaneKind::OnTime)];
    assert_eq!(fire(&mut windows, 31, 0, 1), want);
    assert_eq!(add(&mut windows, &[(21, 1)], (31, 0)), (vec![], 1), "its session has fired");
    assert_eq!((windows.accumulators(), windows.bytes()), (0, 0));
}

#[test]
fn a_corrected_session_takes_back_those_it_joins() {
    let firing = Firing { lateness_micros: 100, panes: PaneMode::Retract, ..Firing::default() };
    let mut windows = windows(session(10, firing));
    add(&mut windows, &[(0, 1), (15, 1)], (MIN, 0));
    let on_time = [row(9, 1, "0..10 [0]", PaneKind::OnTime), row(24, 1, "15..25 [15]", PaneKind::OnTime)];
    assert_eq!(fire(&mut windows, 50, 0, 9), on_time);
    let corrected = vec![
        row(9, 1, "0..10 [0]", PaneKind::Retraction),
        row(24, 1, "15..25 [15]", PaneKind::Retraction),
        row(24, 1, "0..25 [0, 7, 15]", PaneKind::Correction),
    ];
    assert_eq!(add(&mut windows, &[(7, 1)], (50, 0)), (corrected, 0));
}

#[test]
fn every_hundredth_event_fires_however_rows_are_cut() {
    let early = Some(Trigger { rows: Some(3), ..Trigger::default() });
    for panes in [PaneMode::Discard, PaneMode::Accumulate] {
        let spec = WindowSpec { shape: WindowShape::Global, firing: Firing { early, panes, ..Firing::default() } };
        let rows: Vec<(i64, u8)> = (0..10).map(|time| (time, 7)).collect();
        let mut whole = windows(spec);
        let at_once = add(&mut whole, &rows, (MIN, 0)).0;
        let mut single = windows(spec);
        let one_by_one: Vec<Row> = rows.iter().flat_map(|&row| add(&mut single, &[row], (MIN, 0)).0).collect();
        assert_eq!(at_once, one_by_one);
        let start = if panes == PaneMode::Discard { 3 } else { 0 };
        let times: Vec<i64> = (start..6).collect();
        assert_eq!(at_once[1], row(5, 7, &format!("{start}..6 {times:?}"), PaneKind::Early));
        assert_eq!(at_once.len(), 3);
    }
}

#[test]
fn counts_slide_and_what_is_not_full_fires_at_the_end() {
    let spec = WindowSpec::from(WindowShape::Count { rows: 4, every: 2 });
    let mut windows = windows(spec);
    let rows: Vec<(i64, u8)> = (0..5).map(|time| (time * 10, 1)).collect();
    let full =
        vec![row(10, 1, "0..11 [0, 10]", PaneKind::OnTime), row(30, 1, "0..31 [0, 10, 20, 30]", PaneKind::OnTime)];
    assert_eq!(add(&mut windows, &rows, (MIN, 0)).0, full);
    let rest = [row(40, 1, "20..41 [20, 30, 40]", PaneKind::OnTime), row(40, 1, "40..41 [40]", PaneKind::OnTime)];
    assert_eq!(fire(&mut windows, i64::MAX, 0, 9), rest);
}

#[test]
fn a_wall_clock_trigger_has_a_deadline() {
    let early = Some(Trigger { wall_micros: Some(10), ..Trigger::default() });
    let firing = Firing { early, ..Firing::default() };
    let mut windows = windows(WindowSpec { shape: WindowShape::Tumbling { size_micros: 1_000 }, firing });
    assert_eq!(windows.next_deadline(), None);
    add(&mut windows, &[(5, 1)], (MIN, 12));
    assert_eq!(windows.next_deadline(), Some(Timestamp(20)));
    assert_eq!(fire(&mut windows, MIN, 19, 9), []);
    assert_eq!(fire(&mut windows, MIN, 20, 9), [row(999, 1, "0..1000 [5]", PaneKind::Early)]);
    assert_eq!(windows.next_deadline(), None, "nothing has come since");
}

#[test]
fn the_ends_of_time_break_nothing() {
    let late = Firing { lateness_micros: i64::MAX, panes: PaneMode::Retract, ..Firing::default() };
    let shapes = [
        WindowShape::Sliding { size_micros: 10, slide_micros: 3 },
        WindowShape::Session { gap_micros: i64::MAX },
        WindowShape::Session { gap_micros: 1 },
        WindowShape::Global,
        WindowShape::Count { rows: 2, every: 1 },
    ];
    for shape in shapes {
        for firing in [Firing::default(), late] {
            let mut windows = windows(WindowSpec { shape, firing });
            // A watermark of the first microsecond is none.
            let rows = [(MIN + 1, 1), (i64::MAX, 1), (i64::MAX, 1), (0, 1), (i64::MAX - 1, 1), (MIN + 2, 1)];
            let (first, late) = add(&mut windows, &rows, (MIN, i64::MAX));
            let rest = fire(&mut windows, i64::MAX, i64::MAX, 2);
            assert!(first.len() + rest.len() > 0 && late == 0, "{shape:?}");
            assert_eq!(windows.accumulators(), 0, "{shape:?}");
        }
    }
}

/// The naive model: row by row, every pane with all of its events.
struct Model {
    spec: WindowSpec,
    watermark: i64,
    wall: i64,
    counts: BTreeMap<u8, i64>,
    panes: Vec<Naive>,
    out: Vec<Row>,
    late: usize,
}

#[derive(Clone, Debug)]
struct Naive {
    key: u8,
    id: i64,
    bounds: Option<(i64, i64)>,
    /// Events, and how many of them have been given.
    events: Vec<i64>,
    new: usize,
    passed: bool,
    was_on_time: bool,
    due: Option<i64>,
    wall_due: Option<i64>,
    full: bool,
    given: Vec<(i64, String)>,
}

impl Naive {
    fn new(key: u8, id: i64, bounds: Option<(i64, i64)>) -> Self {
        let (events, given) = (Vec::new(), Vec::new());
        let (new, passed, was_on_time, due, wall_due, full) = (0, false, false, None, None, false);
        Self { key, id, bounds, events, new, passed, was_on_time, due, wall_due, full, given }
    }

    fn last(&self) -> i64 {
        self.bounds.map_or(i64::MAX, |(_, end)| end - 1)
    }

    fn expires(&self, lateness: i64) -> i64 {
        self.last().saturating_add(lateness)
    }
}

impl Model {
    fn add(&mut self, time: i64, key: u8) {
        if is_rejected(time) {
            // Late or not, it leaves nothing.
            self.late += usize::from(self.place(time, key).is_empty());
            return;
        }
        let mut touched = self.place(time, key);
        if touched.is_empty() {
            self.late += 1;
            return;
        }
        if let WindowShape::Count { rows, .. } = self.spec.shape {
            let count = self.counts.entry(key).or_default();
            *count += 1;
            touched.iter_mut().for_each(|pane| pane.full = *count >= pane.id + i64::from(rows));
        }
        if matches!(self.spec.shape, WindowShape::Session { .. }) {
            let (start, end) = touched[0].bounds.expect("a session");
            let inside = |pane: &Naive| pane.key == key && pane.bounds.is_some_and(|(a, b)| start <= a && b <= end);
            self.panes.retain(|pane| !inside(pane));
        }
        for mut pane in touched {
            pane.events.push(time);
            pane.new += 1;
            pane.passed = pane.last() <= self.watermark;
            let each = Some(Trigger { rows: Some(1), ..Trigger::default() });
            let trigger = if pane.passed { self.spec.firing.late.or(each) } else { self.spec.firing.early };
            let trigger = trigger.unwrap_or_default();
            // The first multiple that the watermark can still reach, and behind the event if it is early.
            if let Some(every) = trigger.every_micros {
                let is_ahead = |multiple: &i64| {
                    multiple % every == 0 && multiple - 1 > self.watermark && (pane.passed || *multiple > time)
                };
                let due = (-1_000..1_000).find(is_ahead).expect("in the range of the test") - 1;
                if pane.passed || due < pane.last() {
                    pane.due = Some(pane.due.unwrap_or(due).min(due));
                }
            }
            if let Some(every) = trigger.wall_micros {
                let due = (self.wall / every + 1) * every;
                pane.wall_due = Some(pane.wall_due.unwrap_or(due).min(due));
            }
            let fires = pane.full || trigger.rows.is_some_and(|rows| pane.new >= rows as usize);
            self.panes.retain(|other| (other.key, other.id) != (key, pane.id));
            let id = pane.id;
            self.panes.push(pane);
            if fires {
                self.fire(key, id);
            }
        }
        self.forget_counts();
    }

    /// Windows that count begin anew once none is open.
    fn forget_counts(&mut self) {
        let panes = &self.panes;
        self.counts.retain(|key, _| panes.iter().any(|pane| pane.key == *key));
    }

    /// The panes of an event as they are, or as they would be without it; none: it is late.
    fn place(&self, time: i64, key: u8) -> Vec<Naive> {
        let find = |id: i64, bounds| {
            let found = self.panes.iter().find(|pane| pane.key == key && pane.id == id).cloned();
            found.unwrap_or_else(|| Naive::new(key, id, bounds))
        };
        let lateness = self.spec.firing.lateness_micros;
        let of_time = |size: i64, slide: i64| {
            let all = (-400..400).map(|number| (number, number * slide, number * slide + size));
            let holding = all.filter(|&(_, start, end)| start <= time && time < end);
            let all = holding.map(|(number, start, end)| find(number, Some((start, end))));
            all.filter(|pane| pane.expires(lateness) > self.watermark).collect()
        };
        match self.spec.shape {
            WindowShape::Tumbling { size_micros } => of_time(size_micros, size_micros),
            WindowShape::Sliding { size_micros, slide_micros } => of_time(size_micros, slide_micros),
            WindowShape::Global => vec![find(0, None)],
            WindowShape::Count { rows, every } => {
                let (at, rows, every) =
                    (self.counts.get(&key).copied().unwrap_or(0), i64::from(rows), i64::from(every));
                let starts = (-100..1_000).map(|number| number * every);
                starts.filter(|start| (*start..start + rows).contains(&at)).map(|start| find(start, None)).collect()
            }
            WindowShape::Session { gap_micros } => {
                let (mut start, mut end) = (time, time + gap_micros);
                let mut joined = Naive::new(key, time, None);
                let mut met: Vec<&Naive> = self.panes.iter().filter(|pane| pane.key == key).collect();
                met.retain(|pane| pane.bounds.is_some_and(|(a, b)| a < time + gap_micros && time < b));
                if met.is_empty() && end - 1 + lateness <= self.watermark {
                    return Vec::new();
                }
                met.sort_by_key(|pane| pane.id);
                for pane in met {
                    let (a, b) = pane.bounds.expect("a session");
                    (start, end) = (start.min(a), end.max(b));
                    joined.events.extend(&pane.events);
                    joined.new += pane.new;
                    joined.was_on_time |= pane.was_on_time;
                    joined.due = joined.due.into_iter().chain(pane.due).min();
                    joined.wall_due = joined.wall_due.into_iter().chain(pane.wall_due).min();
                    joined.given.extend(pane.given.iter().cloned());
                }
                (joined.id, joined.bounds) = (start, Some((start, end)));
                vec![joined]
            }
        }
    }

    fn fire(&mut self, key: u8, id: i64) {
        let at = self.panes.iter().position(|pane| (pane.key, pane.id) == (key, id)).expect("it is there");
        let mut pane = self.panes.remove(at);
        let mode = self.spec.firing.panes;
        let ends = !pane.passed && (pane.full || pane.last() <= self.watermark);
        let kind = match () {
            () if pane.passed || pane.was_on_time => PaneKind::Correction,
            () if ends => PaneKind::OnTime,
            () => PaneKind::Early,
        };
        if (pane.new > 0 || ends && mode == PaneMode::Accumulate) && !pane.events.is_empty() {
            let (first, last) = (pane.events.iter().min(), pane.events.iter().max());
            let (start, end) = pane.bounds.unwrap_or((*first.expect("events"), *last.expect("events") + 1));
            let given = (end - 1, result(start, end, pane.events.clone()));
            if mode == PaneMode::Retract && pane.given != [given.clone()] {
                let earlier = pane.given.drain(..);
                self.out.extend(earlier.map(|(time, value)| (time, key, value, PaneKind::Retraction)));
                pane.given = vec![given.clone()];
            }
            self.out.push((given.0, key, given.1, kind));
            if mode == PaneMode::Discard && !matches!(self.spec.shape, WindowShape::Count { .. }) {
                pane.events.clear();
            }
        }
        let is_done = pane.full || pane.expires(self.spec.firing.lateness_micros) <= self.watermark;
        pane.passed |= ends;
        pane.was_on_time |= ends;
        (pane.new, pane.due, pane.wall_due) = (0, None, None);
        if !(pane.passed && is_done) {
            self.panes.push(pane);
        }
    }

    /// Time goes on.
    fn pass(&mut self, watermark: i64, wall: i64) {
        (self.watermark, self.wall) = (watermark, wall);
        let lateness = self.spec.firing.lateness_micros;
        loop {
            let next = |pane: &Naive| {
                let end = if pane.passed { pane.expires(lateness) } else { pane.last() };
                (pane.due.unwrap_or(end).min(end), pane.key, pane.id)
            };
            let due = self.panes.iter().map(next).filter(|next| next.0 <= watermark).min();
            let of_wall = self.panes.iter().filter_map(|pane| Some((pane.wall_due?, pane.key, pane.id)));
            let Some((_, key, id)) = due.or_else(|| of_wall.filter(|due| due.0 <= wall).min()) else { return };
            self.fire(key, id);
            self.forget_counts();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add(Vec<(i64, u8)>),
    Abandon(Vec<(i64, u8)>),
    Time { by: i64, wall: i64, limit: usize },
    Cut { fired_before: usize, recover: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let rows = || prop::collection::vec((-30..40_i64, 0..3_u8), 1..10);
    prop_oneof![
        5 => rows().prop_map(Step::Add),
        1 => rows().prop_map(Step::Abandon),
        3 => (0..12_i64, 0..9_i64, 1..4_usize).prop_map(|(by, wall, limit)| Step::Time { by, wall, limit }),
        2 => (0..3_usize, any::<bool>()).prop_map(|(fired_before, recover)| Step::Cut { fired_before, recover }),
    ]
}

fn trigger() -> impl Strategy<Value = Option<Trigger>> {
    let (rows, every, wall) = (prop::option::of(1..5_u32), prop::option::of(2..9_i64), prop::option::of(3..9_i64));
    let some =
        (rows, every, wall).prop_map(|(rows, every_micros, wall_micros)| Trigger { rows, every_micros, wall_micros });
    prop::option::of(some)
}

fn spec() -> impl Strategy<Value = WindowSpec> {
    let of_time = prop_oneof![
        (1..15_i64).prop_map(|size_micros| WindowShape::Tumbling { size_micros }),
        (1..15_i64)
            .prop_flat_map(|size| (Just(size), 1..=size))
            .prop_map(|(size_micros, slide_micros)| WindowShape::Sliding { size_micros, slide_micros }),
        (1..12_i64).prop_map(|gap_micros| WindowShape::Session { gap_micros }),
    ];
    let modes = prop_oneof![Just(PaneMode::Discard), Just(PaneMode::Accumulate), Just(PaneMode::Retract)];
    let corrected = (of_time, trigger(), prop_oneof![Just(0), 1..20_i64], trigger(), modes.clone()).prop_map(
        |(shape, early, lateness_micros, late, panes)| WindowSpec {
            shape,
            firing: Firing { early, lateness_micros, late, panes },
        },
    );
    let global = (trigger(), modes).prop_map(|(early, panes)| WindowSpec {
        shape: WindowShape::Global,
        firing: Firing { early, panes, ..Firing::default() },
    });
    let counted = (1..7_u32)
        .prop_flat_map(|rows| (Just(rows), 1..=rows))
        .prop_map(|(rows, every)| WindowSpec::from(WindowShape::Count { rows, every }));
    prop_oneof![4 => corrected, 1 => global, 1 => counted]
}

/// What somebody has who applies every set of changes.
#[derive(Default)]
struct Replica(BTreeMap<Box<[u8]>, PaneEntry>);

impl Replica {
    fn apply(&mut self, changes: WindowChanges) -> WindowProgress {
        for key in changes.gone {
            assert!(self.0.remove(&key).is_some(), "a key is gone that no cut holds");
        }
        self.0.extend(changes.entries.into_iter().map(|entry| (entry.key.clone(), entry)));
        changes.progress
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// Any history of events, watermarks, wall clocks, failed folds, cuts in the middle of a firing,
    /// and recoveries gives the rows of the definition, in order.
    #[test]
    fn any_history_gives_the_rows_of_the_definition(
        spec in spec(), steps in prop::collection::vec(step(), 1..25), chunk in 1..12_usize,
    ) {
        let mut windows = windows(spec);
        let (out, late, counts) = (Vec::new(), 0, BTreeMap::new());
        let mut model = Model { spec, watermark: -40, wall: 0, counts, panes: Vec::new(), out, late };
        let mut replica = Replica::default();
        prop_assert_eq!(fire(&mut windows, model.watermark, 0, 9), []);
        for step in steps {
            let mut got = Vec::new();
            match step {
                Step::Add(rows) => {
                    let mut late = 0;
                    for rows in rows.chunks(chunk) {
                        let (fired, n) = add(&mut windows, rows, (model.watermark, model.wall));
                        got.extend(fired);
                        late += n;
                    }
                    let rejected = rows.iter().filter(|row| is_rejected(row.0)).count();
                    model.late = 0;
                    rows.iter().for_each(|&(time, key)| model.add(time, key));
                    // A rejected row is late or is not: a batch that is folded again never knows.
                    prop_assert!((late..=late + rejected).contains(&model.late), "{} late, {} wanted", late, model.late);
                }
                Step::Abandon(rows) => {
                    windows.assign(&batch(&rows), Timestamp(model.wall)).expect("a small batch");
                }
                Step::Time { by, wall, limit } => {
                    let (watermark, wall) = (model.watermark + by, model.wall + wall);
                    got = fire(&mut windows, watermark, wall, limit);
                    model.pass(watermark, wall);
                }
                Step::Cut { fired_before, recover } => {
                    let watermark = model.watermark + 6;
                    for _ in 0..fired_before {
                        let (now, wall) = (Timestamp(watermark), Timestamp(model.wall));
                        let mut one = windows_fire_one(&mut windows, now, wall);
                        got.append(&mut one);
                    }
                    let progress = replica.apply(windows.take_changes());
                    if recover {
                        windows = KeyedWindows::new(spec).expect("a valid window");
                        windows.load(progress, replica.0.values().cloned().collect()).expect("what was stored fits");
                    }
                    got.extend(fire(&mut windows, watermark, model.wall, 2));
                    model.pass(watermark, model.wall);
                }
            }
            prop_assert_eq!(got, std::mem::take(&mut model.out));
            let mut stored = windows.clone();
            stored.abandon();
            prop_assert_eq!(windows.bytes(), stored.keys.iter().map(Key::bytes).sum::<usize>());
        }
        model.pass(i64::MAX, model.wall);
        prop_assert_eq!(fire(&mut windows, i64::MAX, model.wall, 2), model.out);
        replica.apply(windows.take_changes());
        let counts = matches!(spec.shape, WindowShape::Count { .. });
        prop_assert!(windows.accumulators() == 0 && (counts || replica.0.is_empty() && windows.bytes() == 0));
    }
}

/// The rows of the next pane that fires.
fn windows_fire_one(windows: &mut KeyedWindows, watermark: Timestamp, wall: Timestamp) -> Vec<Row> {
    let Some(fired) = windows.fire(watermark, wall, 1) else { return Vec::new() };
    let times = fired.accumulators.iter().flat_map(times_of).collect();
    let value = result(fired.panes.starts[0], fired.panes.ends[0], times);
    let rows = windows.rows(&fired, &Results { values: [value].iter().collect(), panes: Vec::new() });
    let kind = |row: usize| rows.kinds.as_ref().map_or(PaneKind::OnTime, |kinds| kinds[row]);
    let text = |row: usize| String::from_utf8(rows.values.row(row).to_vec()).expect("text");
    (0..rows.times.len()).map(|row| (rows.times[row], rows.keys.row(row)[0], text(row), kind(row))).collect()
}
