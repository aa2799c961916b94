//! A plugin that runs beside the one of a stage, on a view of its state: what it would have done otherwise.
//!
//! Both are given the same calls. What the new one returns is compared with what the old one did, row by
//! row within each key, and dropped. Nothing that it does, fails in or writes reaches the job.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wasmill_model::{Batch, PaneKind, Timestamp};

use crate::operator_slot::Produced;

/// Differences that a report keeps each of.
pub const DIFFERENCES_MAX: usize = 100;
/// Bytes of a key or a value that are kept for people.
const SHOWN_BYTES_MAX: usize = 512;

/// Bytes of a view in one task.
pub(crate) const VIEW_BYTES_MAX: usize = 64 << 20;
/// Times in a row that a shadow may fail at once after it has begun anew.
pub(crate) const FAILURES_MAX: u32 = 8;

/// What kind of difference there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferenceKind {
    /// The new one gives another row.
    Changed,
    /// The new one does not give a row that the old one gives.
    Missing,
    /// The new one gives a row that the old one does not.
    Extra,
    /// A call of the new one fails.
    Failed,
}

impl DifferenceKind {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Failed => "failed",
        }
    }
}

/// Where a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Out by a port.
    Port(u16),
    /// To the dead letters.
    Rejected,
}

/// A row as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownRow {
    /// Its event time.
    pub time: Timestamp,
    /// Its value, or how that begins.
    pub value: String,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What kind.
    pub kind: DifferenceKind,
    /// Where the row goes, or would go; `None` where a call failed.
    pub way: Option<Way>,
    /// The key of the row; of the first row of a call that failed.
    pub key: String,
    /// The row of the old one.
    pub old: Option<ShownRow>,
    /// The row of the new one.
    pub new: Option<ShownRow>,
    /// How the call failed.
    pub reason: Option<String>,
}

/// What the tasks of a stage have found so far.
#[derive(Debug, Default)]
pub struct ShadowReport {
    calls: AtomicU64,
    rows: AtomicU64,
    counts: [AtomicU64; 4],
    restarts: AtomicU64,
    given_up: AtomicBool,
    kept: Mutex<Vec<Difference>>,
}

/// Counts of a report, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// Calls that both were given.
    pub calls: u64,
    /// Rows of the old one that were compared.
    pub rows: u64,
    /// Rows that the new one gives otherwise.
    pub changed: u64,
    /// Rows that it does not give.
    pub missing: u64,
    /// Rows that it gives in addition.
    pub extra: u64,
    /// Calls that failed.
    pub failed: u64,
    /// How often it began anew on the state of the old one: after a call that failed, or because its
    /// view had grown too large.
    pub restarts: u64,
    /// Whether it failed so often that a task has ended it.
    pub given_up: bool,
}

impl ShadowCounts {
    /// Differences of all kinds.
    #[must_use]
    pub fn differences(&self) -> u64 {
        self.changed + self.missing + self.extra + self.failed
    }
}

impl ShadowReport {
    /// How much there is so far.
    #[must_use]
    pub fn counts(&self) -> ShadowCounts {
        let count = |kind: DifferenceKind| self.counts[kind as usize].load(Ordering::Relaxed);
        ShadowCounts {
            calls: self.calls.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            changed: count(DifferenceKind::Changed),
            missing: count(DifferenceKind::Missing),
            extra: count(DifferenceKind::Extra),
            failed: count(DifferenceKind::Failed),
            restarts: self.restarts.load(Ordering::Relaxed),
            given_up: self.given_up.load(Ordering::Relaxed),
        }
    }

    /// The first [`DIFFERENCES_MAX`] differences.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        self.kept().clone()
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Difference>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn compared(&self, rows: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn add(&self, kind: DifferenceKind, difference: impl FnOnce() -> Difference) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept();
        if kept.len() < DIFFERENCES_MAX {
            kept.push(difference());
        }
    }

    pub(crate) fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn gave_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

/// What one call has given: batches by port, and rows for the dead letters.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) outputs: Vec<(Way, Batch)>,
}

impl Given {
    /// What the old one has given.
    pub(crate) fn of(produced: &Produced) -> Self {
        let outputs = produced.outputs.iter().map(|(port, batch)| (Way::Port(*port), batch.clone()));
        let letters = produced.letters.iter().map(|letter| (Way::Rejected, letter.rows.clone()));
        Self { outputs: outputs.chain(letters).collect() }
    }

    /// Adds what came behind.
    pub(crate) fn push(&mut self, batches: impl IntoIterator<Item = (Way, Batch)>) {
        self.outputs.extend(batches);
    }

    pub(crate) fn rows(&self) -> usize {
        self.outputs.iter().map(|(_, batch)| batch.len()).sum()
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.outputs.len() == other.outputs.len()
            && self
                .outputs
                .iter()
                .zip(&other.outputs)
                .all(|((way, old), (other, new))| way == other && is_same(old, new))
    }

    fn each(&self) -> Vec<Row<'_>> {
        let mut rows = Vec::with_capacity(self.rows());
        for (way, batch) in &self.outputs {
            let times = batch.times().iter().zip(batch.keys().iter().zip(batch.values().iter())).enumerate();
            let kind = |row: usize| batch.kinds().map(|kinds| kinds[row]);
            rows.extend(times.map(|(row, (&time, (key, value)))| Row { way: *way, time, key, value, kind: kind(row) }));
        }
        rows
    }
}

fn is_same(old: &Batch, new: &Batch) -> bool {
    old.times() == new.times() && old.keys() == new.keys() && old.values() == new.values() && old.kinds() == new.kinds()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row<'a> {
    way: Way,
    time: i64,
    key: &'a [u8],
    value: &'a [u8],
    /// What it says that it is, behind windows.
    kind: Option<PaneKind>,
}

impl Row<'_> {
    fn shown(&self) -> ShownRow {
        ShownRow { time: Timestamp(self.time), value: text(self.value) }
    }
}

/// Bytes for people.
pub(crate) fn text(bytes: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned();
    if bytes.len() > SHOWN_BYTES_MAX { format!("{shown}… ({} bytes)", bytes.len()) } else { shown }
}

/// Compares what one call has given, row by row within each key and way.
pub(crate) fn compare(old: &Given, new: &Given, report: &ShadowReport) {
    compare_within(old, new, report, |_| None);
}

/// The same for panes, row by row within each key and event time: that is what tells them apart.
pub(crate) fn compare_panes(old: &Given, new: &Given, report: &ShadowReport) {
    compare_within(old, new, report, |row| Some(row.time));
}

fn compare_within(old: &Given, new: &Given, report: &ShadowReport, within: impl Fn(&Row<'_>) -> Option<i64>) {
    report.compared(old.rows());
    if old.is_same(new) {
        return;
    }
    let (old, new) = (old.each(), new.each());
    for pair in pairs(&old, &new, within) {
        let (old, new) = (pair.0.map(|row| &old[row]), pair.1.map(|row| &new[row]));
        let Some(either) = old.or(new) else { continue };
        let kind = match (old, new) {
            (Some(_), Some(_)) => DifferenceKind::Changed,
            (Some(_), None) => DifferenceKind::Missing,
            (None, _) => DifferenceKind::Extra,
        };
        report.add(kind, || Difference {
            kind,
            way: Some(either.way),
            key: text(either.key),
            old: old.map(Row::shown),
            new: new.map(Row::shown),
            reason: None,
        });
    }
}

/// Rows that differ, by their places: those of one key and way are matched from both ends, and what is
/// left in the middle is paired in order. Rows of different keys may come in any order, and of those of a
/// key, such with another `within`.
fn pairs(
    old: &[Row<'_>],
    new: &[Row<'_>],
    within: impl Fn(&Row<'_>) -> Option<i64>,
) -> Vec<(Option<usize>, Option<usize>)> {
    type Sides = (Vec<usize>, Vec<usize>);
    let mut by_key: BTreeMap<(Way, &[u8], Option<i64>), Sides> = BTreeMap::new();
    for (place, row) in old.iter().enumerate() {
        by_key.entry((row.way, row.key, within(row))).or_default().0.push(place);
    }
    for (place, row) in new.iter().enumerate() {
        by_key.entry((row.way, row.key, within(row))).or_default().1.push(place);
    }
    let mut found = Vec::new();
    for (before, after) in by_key.into_values() {
        let same = |&(&a, &b): &(&usize, &usize)| old[a] == new[b];
        let head = before.iter().zip(&after).take_while(same).count();
        let (before, after) = (&before[head..], &after[head..]);
        let tail = before.iter().rev().zip(after.iter().rev()).take_while(same).count();
        let (before, after) = (&before[..before.len() - tail], &after[..after.len() - tail]);
        for place in 0..before.len().max(after.len()) {
            let pair = (before.get(place).copied(), after.get(place).copied());
            let differs = !matches!(pair, (Some(a), Some(b)) if old[a] == new[b]);
            if differs {
                found.push(pair);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use wasmill_model::BatchBuilder;

    use super::*;

    fn given(rows: &[(u8, u8)]) -> Given {
        let mut batch = BatchBuilder::default();
        rows.iter().for_each(|(key, value)| batch.push(Timestamp(0), &[*key], &[*value]));
        Given { outputs: vec![(Way::Port(0), batch.finish(0))] }
    }

    proptest! {
        #[test]
        fn what_does_not_differ_is_the_same_by_key(
            old in prop::collection::vec((0..3_u8, 0..3_u8), 0..20),
            new in prop::collection::vec((0..3_u8, 0..3_u8), 0..20),
        ) {
            let (old, new) = (given(&old), given(&new));
            let (old, new) = (old.each(), new.each());
            let found = pairs(&old, &new, |_| None);
            let gone: BTreeSet<usize> = found.iter().filter_map(|pair| pair.0).collect();
            let come: BTreeSet<usize> = found.iter().filter_map(|pair| pair.1).collect();
            let firsts = found.iter().filter(|pair| pair.0.is_some()).count();
            prop_assert_eq!(gone.len(), firsts, "a row differs once");
            for key in 0..3_u8 {
                let left = |rows: &[Row<'_>], but: &BTreeSet<usize>| -> Vec<Vec<u8>> {
                    let rows = rows.iter().enumerate().filter(|(place, row)| row.key == [key] && !but.contains(place));
                    rows.map(|(_, row)| row.value.to_vec()).collect()
                };
                prop_assert_eq!(left(&old, &gone), left(&new, &come));
                let all = |rows: &[Row<'_>]| left(rows, &BTreeSet::new());
                let differs = found.iter().any(|(a, b)| a.map(|a| old[a]).or(b.map(|b| new[b])).is_some_and(|row| row.key == [key]));
                prop_assert_eq!(differs, all(&old) != all(&new));
            }
        }
    }

    #[test]
    fn a_row_that_is_missing_does_not_make_those_behind_it_differ() {
        let report = ShadowReport::default();
        let old = given(&[(1, 1), (1, 2), (2, 9), (1, 3)]);
        compare(&old, &given(&[(1, 1), (2, 9), (1, 3)]), &report);
        compare(&old, &given(&[(2, 9), (1, 1), (1, 2), (1, 3)]), &report);
        compare(&old, &given(&[(1, 1), (1, 7), (2, 9), (1, 3), (3, 0)]), &report);
        let counts = report.counts();
        assert_eq!((counts.calls, counts.rows), (3, 12));
        assert_eq!((counts.missing, counts.changed, counts.extra, counts.differences()), (1, 1, 1, 3));
        let [missing, changed, _] = &report.differences()[..] else { panic!("three are kept") };
        assert_eq!((missing.kind, missing.new.clone()), (DifferenceKind::Missing, None));
        assert_eq!(changed.new.as_ref().map(|row| row.value.as_bytes()), Some(&[7][..]));
    }

    #[test]
    fn all_differences_are_counted_and_some_are_kept() {
        let report = ShadowReport::default();
        let many: Vec<(u8, u8)> = (0..250).map(|key| (key, 0)).collect();
        compare(&given(&many), &given(&[]), &report);
        assert_eq!((report.counts().missing, report.differences().len()), (250, DIFFERENCES_MAX));
        assert!(text(&[b'x'; 1_000]).len() < 600);
    }
}
