use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::runtime::Builder;
use wasmill_contract::{BoxFuture, Operator, OperatorContext};
use wasmill_env::{Clock, SimulatedClock};
use wasmill_model::{
    BatchBuilder, Column, ColumnSet, Descriptor, Firing, Folded, NodeName, PaneBatch, PaneKind, PaneMode, PluginDigest,
    Rejected, Trigger, WindowShape, WindowSpec, key_group,
};
use wasmill_plan::FaultPolicy;
use wasmill_store::MemoryState;
use wasmill_tenancy::{Account, Allowance, Processor};

use super::*;
use crate::metrics::JobMetrics;
use crate::shadow::{ShadowCounts, ShadowReport};
use crate::swap::{Beside as Kind, Change, KeyShare};

/// Counts rows; some versions of it do something else with some rows.
#[derive(Clone)]
struct Counter {
    descriptor: Descriptor,
    digest: u8,
    /// What becomes of a row with this value.
    odd: Option<(u8, Odd)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Odd {
    CountsTwice,
    IsRejected,
    Traps,
}

fn counter(digest: u8, odd: Option<(u8, Odd)>) -> Counter {
    let descriptor = Descriptor {
        name: "count".into(),
        version: "0".into(),
        inputs: vec!["in".into()],
        outputs: vec!["out".into()],
        spaces: Vec::new(),
        columns: ColumnSet::ALL,
        watermarks: false,
        timed: false,
        aggregate: true,
        migrates: false,
    };
    Counter { descriptor, digest, odd }
}

struct Instance(OperatorContext, Option<(u8, Odd)>);

impl OperatorFactory for Counter {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn digest(&self) -> PluginDigest {
        PluginDigest([self.digest; 32])
    }

    fn open(&self, _: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>> {
        unreachable!("it is an aggregate")
    }

    fn open_aggregate(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>> {
        Box::pin(async { Ok(Box::new(Instance(context, self.odd)) as Box<dyn Aggregate>) })
    }
}

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn numbers(counts: &[u64]) -> Column {
    counts.iter().map(u64::to_string).collect()
}

impl Aggregate for Instance {
    fn fold<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        input: &'a Batch,
    ) -> BoxFuture<'a, Result<Folded, OperatorError>> {
        let mut counts: Vec<u64> = accumulators.iter().map(number).collect();
        let (mut rejected, mut traps) = (Vec::new(), false);
        for (row, (value, &group)) in input.values().iter().zip(groups).enumerate() {
            match self.1.filter(|(odd, _)| value == [*odd]).map(|(_, what)| what) {
                None => counts[group as usize] += 1,
                Some(Odd::CountsTwice) => counts[group as usize] += 2,
                Some(Odd::IsRejected) => rejected.push(Rejected { row: row as u32, reason: "odd".into() }),
                Some(Odd::Traps) => traps = true,
            }
        }
        let trap = OperatorError::Trap { call: "fold", reason: "odd".into(), stack: Vec::new() };
        let folded = if traps { Err(trap) } else { Ok(Folded { accumulators: numbers(&counts), rejected }) };
        Box::pin(async { folded })
    }

    fn merge<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        count: u32,
    ) -> BoxFuture<'a, Result<Column, OperatorError>> {
        let mut counts = vec![0; count as usize];
        accumulators.iter().zip(groups).for_each(|(one, &group)| counts[group as usize] += number(one));
        Box::pin(async move { Ok(numbers(&counts)) })
    }

    fn finish<'a>(
        &'a mut self,
        panes: &'a PaneBatch,
        accumulators: &'a Column,
    ) -> BoxFuture<'a, Result<Results, OperatorError>> {
        assert_eq!((panes.starts.len(), panes.keys.len()), (accumulators.len(), accumulators.len()));
        let values = accumulators.clone();
        Box::pin(async { Ok(Results { values, panes: Vec::new() }) })
    }

    fn context(&mut self) -> &mut OperatorContext {
        &mut self.0
    }

    fn close(self: Box<Self>) -> OperatorContext {
        self.0
    }
}

/// What a slot is told.
#[derive(Debug, Clone)]
enum Step {
    /// Time, key, value of each row.
    Rows(Vec<(i64, u8, u8)>),
    /// The watermark rises by so much.
    Watermark(i64),
    /// An epoch ends.
    Cut,
}

/// How a plugin runs beside another: from the first of these cuts on to the second.
#[derive(Debug, Clone, Copy)]
struct Run {
    from: usize,
    to: usize,
    canary: Option<u8>,
    odd: Option<(u8, Odd)>,
}

/// Time, value, kind, and maker of a row.
type Given = (i64, String, Option<PaneKind>, PluginDigest);

/// What came of it: rows by key in order, rows for the dead letters, and what a shadow has found.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    rows: BTreeMap<u8, Vec<Given>>,
    letters: usize,
    found: ShadowCounts,
    /// Of each row, whether the other one ran when it was given.
    beside: BTreeMap<u8, Vec<bool>>,
}

const OLD: u8 = 1;
const NEW: u8 = 2;

fn run(spec: WindowSpec, steps: &[Step], beside: Option<Run>) -> Result<Outcome, JobError> {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let name = NodeName::new("n").expect("a name");
        let metrics = JobMetrics::new([name.clone()]);
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::new(Timestamp(0)));
        let policy = FaultPolicy { retries_max: 0, ..FaultPolicy::default() };
        let plugin = Plugin::new(name.clone(), Arc::new(counter(OLD, None)), policy, clock, metrics.node(&name));
        let context = OperatorContext::new(name, Share::WHOLE, Box::new(MemoryState::default()));
        let aggregate = plugin.open_aggregate(context).await?;
        let mut slot = WindowSlot::new(plugin, aggregate, Windows::new(spec).expect("windows"), u64::MAX);
        let report = Arc::new(ShadowReport::default());
        let (mut outcome, mut cuts, mut runs) = (Outcome::default(), 0, false);
        let mut at = Moment { watermark: Timestamp(0), wall: Timestamp(0), monotonic_nanos: 0 };
        let end = [Step::Watermark(i64::MAX)];
        for (step, wall) in steps.iter().chain(&end).zip(0..) {
            at.wall = Timestamp(wall * 3);
            let mut produced = Vec::new();
            match step {
                Step::Rows(rows) => {
                    let mut batch = BatchBuilder::default();
                    rows.iter().for_each(|(time, key, value)| batch.push(Timestamp(*time), &[*key], &[*value]));
                    produced.push(slot.process(&batch.finish(0), at).await?);
                }
                Step::Watermark(by) => {
                    at.watermark = Timestamp(at.watermark.0.saturating_add(*by));
                    while let Some(fired) = slot.fire(at).await? {
                        produced.push(fired);
                    }
                }
                Step::Cut => {
                    let _cut = slot.cut(Share::WHOLE).await;
                    let change = beside.and_then(|run| {
                        let kind = match run.canary {
                            Some(percent) => Kind::Canary(KeyShare::percent(percent)),
                            None => Kind::Shadow(Arc::clone(&report)),
                        };
                        let begin = Change::Beside { factory: Arc::new(counter(NEW, run.odd)), beside: kind };
                        if cuts == run.from { Some(begin) } else { (cuts == run.to).then_some(Change::Alone) }
                    });
                    if let Some(change) = change {
                        slot.prepare_change(&change).await.expect("it opens");
                        slot.settle_change(&change, true, Epoch(cuts as u64));
                        runs = matches!(change, Change::Beside { .. });
                    }
                    cuts += 1;
                }
            }
            for Produced { outputs, letters } in produced {
                outcome.letters += letters.iter().map(|letter| letter.rows.len()).sum::<usize>();
                for (_, batch) in outputs {
                    for (row, key) in batch.keys().iter().enumerate() {
                        let maker = batch.maker(row).expect("a plugin made it");
                        let (kind, value) = (batch.kinds().map(|kinds| kinds[row]), batch.values().row(row));
                        let given = (batch.times()[row], String::from_utf8_lossy(value).into_owned(), kind, maker);
                        outcome.rows.entry(key[0]).or_default().push(given);
                        outcome.beside.entry(key[0]).or_default().push(runs);
                    }
                }
            }
        }
        outcome.found = report.counts();
        Ok(outcome)
    })
}

#[test]
fn rows_of_keys_that_a_tenant_has_no_room_for_are_dead_letters() {
    let processor = Processor::new(1, Arc::new(SimulatedClock::new(Timestamp(0))));
    let allowance = Allowance { state_bytes: 20_000, ..Allowance::UNLIMITED };
    for spec in [TUMBLING.into(), WindowSpec::from(WindowShape::Session { gap_micros: 6 })] {
        let account = Account::new(&processor, &allowance);
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let name = NodeName::new("n").expect("a name");
            let metrics = JobMetrics::new([name.clone()]);
            let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::new(Timestamp(0)));
            let policy = FaultPolicy { in_a_row_max: u64::MAX, ..FaultPolicy::default() };
            let plugin = Plugin::new(name.clone(), Arc::new(counter(OLD, None)), policy, clock, metrics.node(&name));
            let mut context = OperatorContext::new(name, Share::WHOLE, Box::new(MemoryState::default()));
            context.account = Some(Arc::clone(&account));
            let aggregate = plugin.open_aggregate(context).await.expect("it opens");
            let mut slot = WindowSlot::new(plugin, aggregate, Windows::new(spec).expect("windows"), u64::MAX);
            let mut at = Moment { watermark: Timestamp(0), wall: Timestamp(0), monotonic_nanos: 0 };
            let rows = |from: u64| {
                let mut batch = BatchBuilder::default();
                (from..from + 1_000).for_each(|key| batch.push(Timestamp(3), &key.to_le_bytes(), b"v"));
                batch.finish(0)
            };
            let letters = slot.process(&rows(0), at).await.expect("the job goes on").letters;
            let held = slot.windows.held();
            assert!((50..900).contains(&held) && held + letters.len() == 1_000, "{held} keys");
            assert!(letters.iter().all(|letter| letter.reasons[0].contains("over-budget: ")), "{:?}", letters[0]);
            // What is there goes on being folded, and its tenant knows what it has.
            let folded = slot.process(&rows(0), at).await.expect("the job goes on").letters;
            assert_eq!(folded.len(), letters.len());
            assert_eq!(account.state.used(), slot.windows.bytes() as u64);
            at.watermark = Timestamp(100);
            while slot.fire(at).await.expect("it fires").is_some() {}
            assert_eq!(account.state.used(), 0);
        });
    }
}

fn specs() -> impl Strategy<Value = WindowSpec> {
    let shape = prop_oneof![
        Just(WindowShape::Tumbling { size_micros: 10 }),
        Just(WindowShape::Sliding { size_micros: 20, slide_micros: 5 }),
        Just(WindowShape::Session { gap_micros: 6 }),
        Just(WindowShape::Count { rows: 3, every: 2 }),
        Just(WindowShape::Global),
    ];
    let early = prop_oneof![
        Just(None),
        Just(Some(Trigger { rows: Some(2), ..Trigger::default() })),
        Just(Some(Trigger { wall_micros: Some(5), ..Trigger::default() })),
    ];
    let panes = prop_oneof![Just(PaneMode::Discard), Just(PaneMode::Accumulate), Just(PaneMode::Retract)];
    (shape, early, panes, prop_oneof![Just(0), Just(8)]).prop_map(|(shape, early, panes, lateness_micros)| {
        let is_counted = matches!(shape, WindowShape::Count { .. } | WindowShape::Global);
        let lateness_micros = if is_counted { 0 } else { lateness_micros };
        WindowSpec { shape, firing: Firing { early, panes, lateness_micros, ..Firing::default() } }
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0..60_i64, 0..6_u8, 0..6_u8);
    let step = prop_oneof![
        3 => prop::collection::vec(row, 1..12).prop_map(Step::Rows),
        2 => (0..9_i64).prop_map(Step::Watermark),
        1 => Just(Step::Cut),
    ];
    prop::collection::vec(step, 1..30)
}

const TUMBLING: WindowShape = WindowShape::Tumbling { size_micros: 10 };

/// By key, the last microsecond of each window and its count.
type Counts = BTreeMap<u8, Vec<(i64, u64)>>;

/// Tumbling windows, written down another way: rows of each key with their counts, how many odd rows were folded
/// from the `from`th cut on, and in how many panes those are.
fn model(steps: &[Step], from: usize, odd: u8) -> (Counts, usize, usize) {
    let (mut open, mut rows) = (BTreeMap::<(i64, u8), (u64, u64)>::new(), Counts::new());
    let (mut watermark, mut cuts, mut odd_rows, mut odd_panes) = (0_i64, 0, 0, 0);
    let end = [Step::Watermark(i64::MAX)];
    for step in steps.iter().chain(&end) {
        match step {
            Step::Rows(some) => {
                for &(time, key, value) in some {
                    let last = time / 10 * 10 + 9;
                    if last > watermark {
                        let is_odd = cuts > from && value == odd;
                        odd_rows += usize::from(is_odd);
                        let pane = open.entry((last, key)).or_default();
                        *pane = (pane.0 + 1, pane.1 + u64::from(is_odd));
                    }
                }
            }
            Step::Watermark(by) => {
                watermark = watermark.saturating_add(*by);
                while let Some(first) = open.first_entry().filter(|pane| pane.key().0 <= watermark) {
                    let ((last, key), (count, odd)) = first.remove_entry();
                    odd_panes += usize::from(odd > 0);
                    rows.entry(key).or_default().push((last, count));
                }
            }
            Step::Cut => cuts += 1,
        }
    }
    (rows, odd_rows, odd_panes)
}

proptest! {
    #[test]
    fn a_shadow_that_does_the_same_compares_every_row_and_changes_nothing(
        spec in specs(), steps in steps(), from in 0..3_usize, more in 1..3_usize,
    ) {
        let shadow = Run { from, to: from + more, canary: None, odd: None };
        let (alone, beside) = (run(spec, &steps, None).unwrap(), run(spec, &steps, Some(shadow)).unwrap());
        prop_assert_eq!((&alone.rows, alone.letters), (&beside.rows, beside.letters));
        let given = beside.beside.values().flatten().filter(|runs| **runs).count() as u64;
        prop_assert_eq!((beside.found.differences(), beside.found.rows), (0, given));
    }

    #[test]
    fn a_shadow_that_folds_otherwise_differs_in_the_panes_that_have_such_rows(
        steps in steps(), from in 0..2_usize, odd in 0..6_u8,
    ) {
        let (rows, odd_rows, odd_panes) = model(&steps, from, odd);
        let shadow = |what| Run { from, to: usize::MAX, canary: None, odd: Some((odd, what)) };
        let twice = run(TUMBLING.into(), &steps, Some(shadow(Odd::CountsTwice))).unwrap();
        let counts = |rows: &[Given]| rows.iter().map(|row| (row.0, row.1.parse().unwrap())).collect::<Vec<(i64, u64)>>();
        let given: BTreeMap<u8, _> = twice.rows.iter().map(|(key, rows)| (*key, counts(rows))).collect();
        prop_assert_eq!(&given, &rows);
        prop_assert_eq!((twice.found.changed, twice.found.differences()), (odd_panes as u64, odd_panes as u64));
        // Each row that it rejects is one for its dead letters more, and one fewer in its pane.
        let rejects = run(TUMBLING.into(), &steps, Some(shadow(Odd::IsRejected))).unwrap();
        prop_assert_eq!((&rejects.rows, rejects.letters), (&twice.rows, 0));
        prop_assert_eq!(rejects.found.extra, odd_rows as u64);
        prop_assert_eq!(rejects.found.changed + rejects.found.missing, odd_panes as u64);
        // It rests until the next cut where it fails.
        let traps = run(TUMBLING.into(), &steps, Some(shadow(Odd::Traps))).unwrap();
        prop_assert_eq!((&traps.rows, traps.letters), (&twice.rows, 0));
        prop_assert_eq!(traps.found.failed > 0, odd_rows > 0);
        prop_assert_eq!(traps.found.differences(), traps.found.failed);
    }

    #[test]
    fn a_canary_makes_the_rows_of_its_keys_and_no_other_ones(
        spec in specs(), steps in steps(), from in 0..3_usize, more in 1..3_usize, percent in 1..100_u8,
    ) {
        let canary = Run { from, to: from + more, canary: Some(percent), odd: None };
        let (alone, beside) = (run(spec, &steps, None).unwrap(), run(spec, &steps, Some(canary)).unwrap());
        let unmade = |outcome: &Outcome| -> BTreeMap<u8, Vec<_>> {
            let rows = |rows: &[Given]| rows.iter().map(|row| (row.0, row.1.clone(), row.2)).collect::<Vec<_>>();
            outcome.rows.iter().map(|(key, of)| (*key, rows(of))).collect()
        };
        prop_assert_eq!(unmade(&alone), unmade(&beside));
        let share = KeyShare::percent(percent);
        for (key, rows) in &beside.rows {
            for (row, runs) in rows.iter().zip(&beside.beside[key]) {
                let maker = if *runs && share.has(key_group(&[*key])) { NEW } else { OLD };
                prop_assert_eq!(row.3, PluginDigest([maker; 32]));
            }
        }
    }
}

#[test]
fn a_canary_that_fails_is_no_verdict_on_the_row() {
    let rows = |value| Step::Rows((0..40).map(|key| (1, key, value)).collect());
    let steps = [rows(0), Step::Cut, rows(0), rows(7)];
    let canary = Run { from: 0, to: 9, canary: Some(50), odd: Some((7, Odd::Traps)) };
    let ended = run(TUMBLING.into(), &steps, Some(canary));
    assert!(matches!(&ended, Err(JobError::TrialFailed { .. })), "{ended:?}");
    let fine = run(TUMBLING.into(), &steps[..3], Some(canary)).expect("nothing fails");
    let makers = |digest| fine.rows.values().flatten().filter(|row| row.3 == PluginDigest([digest; 32])).count();
    assert!(makers(OLD) > 5 && makers(NEW) > 5 && fine.rows.values().all(|rows| rows[0].1 == "2"), "{fine:?}");
}

/// More panes than one call has, of which both have others: they are dealt to other calls.
#[test]
fn a_pane_that_is_missing_does_not_make_those_behind_it_differ() {
    let mut rows: Vec<(i64, u8, u8)> = (0..250_u8).map(|key| (1, key, u8::from(key == 3))).collect();
    let many = 3 * PANES_MAX / 250;
    rows.extend((1..many as i64).flat_map(|window| (0..250_u8).map(move |key| (window * 10 + 1, key, 0))));
    let spec = WindowSpec {
        shape: TUMBLING,
        firing: Firing { panes: PaneMode::Retract, lateness_micros: 1_000_000, ..Firing::default() },
    };
    let shadow = Run { from: 0, to: 9, canary: None, odd: Some((1, Odd::IsRejected)) };
    let found = run(spec, &[Step::Cut, Step::Rows(rows.clone())], Some(shadow)).expect("it ends").found;
    assert_eq!((found.extra, found.missing, found.changed), (1, 1, 0), "{found:?}");
    assert_eq!(found.rows, rows.len() as u64);
}
