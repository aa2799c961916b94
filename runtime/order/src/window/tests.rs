use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use wasmill_model::{ErrorKind, Rejected, Timestamp};

use super::*;

const TUMBLING: WindowShape = WindowShape::Tumbling { size_micros: 10 };
const SLIDING: WindowShape = WindowShape::Sliding { size_micros: 10, slide_micros: 2 };

fn windows(shape: WindowShape) -> SlicedWindows {
    SlicedWindows::new(shape).expect("a valid window")
}

fn batch(rows: &[(i64, &str)]) -> Batch {
    let times = rows.iter().map(|row| row.0).collect();
    let keys: Column = rows.iter().map(|row| row.1).collect();
    Batch::new(Arc::new(times), Arc::new(keys), Arc::new(Column::empty_rows(rows.len())), 0)
}

/// A fold whose accumulators are the times of their rows, one byte each, and which rejects the
/// rows at these times.
fn fold(assignment: &Assignment, batch: &Batch, rejects: impl Fn(i64) -> bool) -> Folded {
    let mut accumulators: Vec<Vec<u8>> = assignment.accumulators.iter().map(<[u8]>::to_vec).collect();
    let mut rejected = Vec::new();
    let rows = assignment.rows.clone().unwrap_or_else(|| (0..batch.len() as u32).collect());
    for (at, row) in rows.into_iter().map(|row| row as usize).enumerate() {
        let time = batch.times()[row];
        if rejects(time) {
            rejected.push(Rejected { row: at as u32, reason: String::new() });
        } else {
            accumulators[assignment.groups[at] as usize].push(time as u8);
        }
    }
    Folded { accumulators: accumulators.iter().collect(), rejected }
}

fn add(windows: &mut SlicedWindows, rows: &[(i64, &str)]) {
    let batch = batch(rows);
    let assignment = windows.assign(&batch).expect("a small batch");
    windows.store(&assignment, &fold(&assignment, &batch, |_| false)).expect("the assignment is open");
}

/// Start, end, key, and accumulators merged one behind the other.
type Pane = (i64, i64, Vec<u8>, Vec<u8>);

fn fire(windows: &mut SlicedWindows, watermark: i64, limit: usize) -> Vec<Pane> {
    let mut all = Vec::new();
    while let Some(Fired { panes, accumulators, merge, .. }) = windows.fire(Timestamp(watermark), limit) {
        let count = panes.starts.len();
        assert!((1..=limit).contains(&count), "{count} panes");
        assert_eq!((panes.ends.len(), panes.keys.len()), (count, count));
        let merge = merge.unwrap_or_else(|| (0..count as u32).collect());
        assert_eq!(merge.len(), accumulators.len());
        let mut merged = vec![Vec::new(); count];
        for (accumulator, pane) in accumulators.iter().zip(merge) {
            merged[pane as usize].extend_from_slice(accumulator);
        }
        for (pane, merged) in merged.into_iter().enumerate() {
            all.push((panes.starts[pane], panes.ends[pane], panes.keys.row(pane).to_vec(), merged));
        }
    }
    all
}

fn pane(start: i64, end: i64, key: &str, times: &[u8]) -> Pane {
    (start, end, key.into(), times.to_vec())
}

#[test]
fn a_tumbling_window_fires_once_at_its_last_microsecond() {
    let mut windows = windows(TUMBLING);
    add(&mut windows, &[(0, "b"), (9, "a"), (9, "b"), (10, "a"), (3, "b")]);
    assert_eq!(fire(&mut windows, 8, 9), []);
    assert_eq!(fire(&mut windows, 9, 9), [pane(0, 10, "b", &[0, 9, 3]), pane(0, 10, "a", &[9])]);
    assert_eq!(fire(&mut windows, 9, 9), []);
    let late = windows.assign(&batch(&[(9, "a"), (10, "a"), (0, "c")])).expect("a small batch");
    assert_eq!(late.rows, Some(vec![1]));
    assert_eq!(late.groups, [0]);
    assert_eq!(fire(&mut windows, i64::MAX, 9), [pane(10, 20, "a", &[10])]);
    assert_eq!((windows.accumulators(), windows.bytes()), (0, 0));
}

#[test]
fn sliding_windows_begin_before_the_first_event_and_share_slices() {
    let mut windows = windows(SLIDING);
    add(&mut windows, &[(5, "a"), (6, "b"), (7, "a")]);
    assert_eq!(windows.accumulators(), 3);
    let fired = fire(&mut windows, i64::MAX, 1);
    let mut want = vec![pane(-4, 6, "a", &[5])];
    for start in [-2, 0, 2, 4] {
        want.extend([pane(start, start + 10, "a", &[5, 7]), pane(start, start + 10, "b", &[6])]);
    }
    want.extend([pane(6, 16, "b", &[6]), pane(6, 16, "a", &[7])]);
    assert_eq!(fired, want);
}

#[test]
fn an_event_behind_the_watermark_stays_in_its_open_windows() {
    let mut windows = windows(SLIDING);
    add(&mut windows, &[(9, "a")]);
    assert_eq!(fire(&mut windows, 11, 9), [pane(0, 10, "a", &[9]), pane(2, 12, "a", &[9])]);
    add(&mut windows, &[(1, "a"), (5, "b")]);
    assert_eq!(fire(&mut windows, 15, 9), [pane(4, 14, "b", &[5]), pane(4, 14, "a", &[9]), pane(6, 16, "a", &[9])]);
}

#[test]
fn a_jump_of_time_passes_over_empty_windows() {
    let mut windows = windows(WindowShape::Sliding { size_micros: 3, slide_micros: 1 });
    add(&mut windows, &[(i64::MIN, "a"), (0, "b"), (i64::MAX, "c")]);
    let fired = fire(&mut windows, i64::MAX, 9);
    assert_eq!(fired.len(), 9);
    assert_eq!((fired[0].0, fired[8].1), (i64::MIN, i64::MAX));
    add(&mut windows, &[(i64::MAX, "late at the end")]);
    assert_eq!(windows.accumulators(), 0);
}

#[test]
fn an_abandoned_assignment_counts_for_nothing() {
    let mut windows = windows(TUMBLING);
    add(&mut windows, &[(1, "a")]);
    let before = windows.bytes();
    windows.assign(&batch(&[(1, "b"), (2, "a"), (55, "a")])).expect("a small batch");
    windows.abandon();
    assert_eq!((windows.accumulators(), windows.bytes()), (1, before));
    let stale = windows.assign(&batch(&[(1, "b")])).expect("a small batch");
    let open = windows.assign(&batch(&[(1, "c"), (1, "d")])).expect("a small batch");
    let folded = |rows| Folded { accumulators: Column::empty_rows(rows), rejected: Vec::new() };
    assert_eq!(windows.store(&stale, &folded(1)).expect_err("it is stale").kind(), ErrorKind::Internal);
    assert_eq!(windows.store(&open, &folded(1)).expect_err("two went out").kind(), ErrorKind::Plugin);
    assert_eq!(fire(&mut windows, i64::MAX, 9), [pane(0, 10, "a", &[1])]);
}

#[test]
fn a_key_whose_rows_were_all_rejected_gets_no_pane() {
    let mut windows = windows(TUMBLING);
    add(&mut windows, &[(1, "a")]);
    let batch = batch(&[(2, "a"), (3, "b"), (4, "c"), (5, "b"), (25, "d")]);
    let assignment = windows.assign(&batch).expect("a small batch");
    let folded = fold(&assignment, &batch, |time| [2, 4, 5, 25].contains(&time));
    windows.store(&assignment, &folded).expect("the assignment is open");
    assert_eq!(windows.accumulators(), 2);
    add(&mut windows, &[(6, "c")]);
    let want = [pane(0, 10, "a", &[1]), pane(0, 10, "b", &[3]), pane(0, 10, "c", &[6])];
    assert_eq!(fire(&mut windows, i64::MAX, 2), want);
}

#[test]
fn stored_windows_that_do_not_fit_are_refused() {
    let entry =
        |slice, key: &str| PaneEntry { slice, key: key.as_bytes().into(), order: 0, accumulator: Box::default() };
    let progress = |next_window| WindowProgress { next_window, panes: 0 };
    for (next_window, entries) in
        [(0, vec![entry(5, "a")]), (1, vec![entry(0, "a")]), (0, vec![entry(0, "a"), entry(0, "a")])]
    {
        let error = windows(TUMBLING).load(progress(next_window), entries).expect_err("it does not fit");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn keys_stay_in_order_when_shares_are_dealt_anew() {
    let mut old = windows(TUMBLING);
    add(&mut old, &[(1, "d"), (2, "c"), (3, "b"), (4, "a")]);
    let WindowChanges { progress, mut entries, .. } = old.take_changes();
    entries.retain(|entry| *entry.key != *b"c" && *entry.key != *b"d");
    for _ in 0..2 {
        let mut new = windows(TUMBLING);
        new.load(progress, entries.clone()).expect("what was stored fits");
        add(&mut new, &[(5, "0")]);
        entries.extend(new.take_changes().entries.into_iter().filter(|entry| *entry.key == *b"0"));
        entries.dedup_by(|a, b| a.key == b.key);
        let keys: Vec<_> = fire(&mut new, 9, 9).into_iter().map(|pane| pane.2).collect();
        assert_eq!(keys, [b"b", b"a", b"0"]);
    }
}

#[test]
fn a_pane_of_large_accumulators_fires_in_bounded_chunks() {
    let mut windows = windows(TUMBLING);
    let keys: Vec<String> = (0..40).map(|key| key.to_string()).collect();
    let rows: Vec<(i64, &str)> = keys.iter().map(|key| (0, key.as_str())).collect();
    let assignment = windows.assign(&batch(&rows)).expect("a small batch");
    let accumulators = (0..40).map(|_| vec![0; 1 << 20]).collect();
    windows.store(&assignment, &Folded { accumulators, rejected: Vec::new() }).expect("the assignment is open");
    let mut panes = Vec::new();
    while let Some(fired) = windows.fire(Timestamp::MAX, 1_000) {
        panes.push(fired.panes.starts.len());
    }
    assert_eq!(panes, [15, 15, 10]);
}

#[derive(Debug, Clone)]
enum Step {
    Add(Vec<(i64, u8)>),
    Abandon(Vec<(i64, u8)>),
    Fire { by: i64, limit: usize },
    Cut { panes_before: usize, recover: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let rows = || prop::collection::vec((-30..30_i64, 0..5_u8), 0..8);
    prop_oneof![
        4 => rows().prop_map(Step::Add),
        1 => rows().prop_map(Step::Abandon),
        2 => (0..25_i64, 1..4_usize).prop_map(|(by, limit)| Step::Fire { by, limit }),
        2 => (0..3_usize, any::<bool>()).prop_map(|(panes_before, recover)| Step::Cut { panes_before, recover }),
    ]
}

/// The naive model: every event, and every window by its definition.
struct Model {
    size: i64,
    slide: i64,
    watermark: i64,
    /// Time, key and the watermark that judged it.
    events: Vec<(i64, u8, i64)>,
}

impl Model {
    fn starts(&self) -> impl Iterator<Item = i64> {
        let (from, slide) = ((-300_i64).div_euclid(self.slide), self.slide);
        (from..300 / slide).map(move |number| number * slide)
    }

    fn is_late(&self, time: i64) -> bool {
        let mut holding = self.starts().filter(|start| (*start..start + self.size).contains(&time));
        holding.all(|start| start + self.size - 1 <= self.watermark)
    }

    /// What fires between two watermarks.
    fn fire(&self, from: i64, to: i64) -> Vec<Pane> {
        let due = self.starts().filter(|start| (from + 1..=to).contains(&(start + self.size - 1)));
        due.flat_map(|start| {
            let end = start + self.size;
            let mut events = self.events.clone();
            events.retain(|&(time, _, judged)| (start..end).contains(&time) && judged < end - 1);
            // A slice reaches from one bound of any windows to the next.
            let bound = |time: i64| time.rem_euclid(self.slide) == 0 || (time - self.size).rem_euclid(self.slide) == 0;
            let slice = |time: i64| (0..).map(|back| time - back).find(|&time| bound(time));
            events.sort_by_key(|event| slice(event.0));
            let mut panes: Vec<Pane> = Vec::new();
            for (time, key, _) in events {
                match panes.iter_mut().find(|pane| pane.2 == [key]) {
                    Some(pane) => pane.3.push(time as u8),
                    None => panes.push((start, end, vec![key], vec![time as u8])),
                }
            }
            panes
        })
        .collect()
    }
}

/// What somebody has who applies every set of changes.
#[derive(Default)]
struct Replica {
    entries: BTreeMap<(i64, Box<[u8]>), PaneEntry>,
}

impl Replica {
    fn apply(&mut self, changes: WindowChanges) -> WindowProgress {
        for start in changes.dropped {
            let before = self.entries.len();
            self.entries.retain(|(slice, _), _| *slice != start);
            assert!(self.entries.len() < before, "a slice was dropped that no cut holds");
        }
        for entry in changes.entries {
            self.entries.insert((entry.slice, entry.key.clone()), entry);
        }
        changes.progress
    }
}

proptest! {
    /// Any history of events, watermarks, failed folds, cuts in the middle of a firing, and
    /// recoveries gives the panes of the definition, in order.
    #[test]
    fn any_history_gives_the_panes_of_the_definition(
        (size, slide) in prop_oneof![Just((10, 10)), Just((10, 2)), Just((10, 3)), (1..15_i64).prop_flat_map(|size| (Just(size), 1..=size))],
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let shape = match size == slide {
            true => WindowShape::Tumbling { size_micros: size },
            false => WindowShape::Sliding { size_micros: size, slide_micros: slide },
        };
        let mut windows = windows(shape);
        let mut model = Model { size, slide, watermark: -60, events: Vec::new() };
        let mut replica = Replica::default();
        prop_assert_eq!(fire(&mut windows, model.watermark, 9), []);
        for step in steps {
            match step {
                Step::Add(rows) | Step::Abandon(rows) if rows.is_empty() => {}
                Step::Add(ref rows) | Step::Abandon(ref rows) => {
                    let names: Vec<[u8; 1]> = rows.iter().map(|row| [row.1]).collect();
                    let times = rows.iter().map(|row| row.0).collect();
                    let empty = Column::empty_rows(rows.len());
                    let batch = Batch::new(Arc::new(times), Arc::new(names.iter().collect()), Arc::new(empty), 0);
                    let assignment = windows.assign(&batch).expect("a small batch");
                    let is_on_time = |row: usize| !assignment.late.contains(&(row as u32));
                    for (row, &(time, _)) in rows.iter().enumerate() {
                        prop_assert_eq!(is_on_time(row), !model.is_late(time), "row {} at {}", row, time);
                    }
                    prop_assert_eq!(assignment.groups.len(), rows.len() - assignment.late.len());
                    if matches!(step, Step::Abandon(_)) {
                        continue;
                    }
                    windows.store(&assignment, &fold(&assignment, &batch, |_| false)).expect("it is open");
                    let on_time = rows.iter().enumerate().filter(|(row, _)| is_on_time(*row));
                    model.events.extend(on_time.map(|(_, &(time, key))| (time, key, model.watermark)));
                }
                Step::Fire { by, limit } => {
                    let from = model.watermark;
                    model.watermark = (from + by).min(100);
                    let want = model.fire(from, model.watermark);
                    prop_assert_eq!(fire(&mut windows, model.watermark, limit), want);
                }
                Step::Cut { panes_before, recover } => {
                    // In the middle of a firing, where there is one.
                    let from = model.watermark;
                    model.watermark = (from + 7).min(100);
                    let mut got = Vec::new();
                    for _ in 0..panes_before {
                        let Some(fired) = windows.fire(Timestamp(model.watermark), 1) else { break };
                        let merged = fired.accumulators.data().to_vec();
                        got.push((fired.panes.starts[0], fired.panes.ends[0], fired.panes.keys.row(0).to_vec(), merged));
                    }
                    let progress = replica.apply(windows.take_changes());
                    if recover {
                        windows = SlicedWindows::new(shape).expect("a valid window");
                        let entries = replica.entries.values().cloned().collect();
                        windows.load(progress, entries).expect("what was stored fits");
                    }
                    got.extend(fire(&mut windows, model.watermark, 3));
                    prop_assert_eq!(got, model.fire(from, model.watermark));
                }
            }
        }
        let rest = model.fire(model.watermark, 250);
        prop_assert_eq!(fire(&mut windows, i64::MAX, 2), rest);
        replica.apply(windows.take_changes());
        prop_assert!(replica.entries.is_empty() && windows.accumulators() == 0 && windows.bytes() == 0);
    }
}
