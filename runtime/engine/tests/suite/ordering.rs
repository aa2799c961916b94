//! Jobs with ordering buffers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use wasmill_engine::{JobSettings, OrderingSnapshot};
use wasmill_env::{Fault, RealClock, SimulatedClock};
use wasmill_model::{Epoch, ErrorKind, Timestamp};
use wasmill_plan::{LATE, LatePolicy, OrderBy, OrderSpec, Routing, SequenceOrder, TimeBound, TimeOrder};
use wasmill_spec::{ByteSize, Period};
use wasmill_store::{HeldRecord, Recovered, RecoveredStage};

use crate::support::graph::{CutLog, Graph, identity};
use crate::support::mortal::{deaths, survive};
use crate::support::{KeepSink, ListSource, Row, name};

const SOURCE: usize = 0;
const STAGE: usize = 1;

fn spec(by: OrderBy, late: LatePolicy) -> OrderSpec {
    OrderSpec { by, late, rows_max: 1_000_000, spill: None, bytes_max: ByteSize::from_bytes(1 << 30) }
}

/// The same with so little memory that most rows wait on disk.
fn on_disk(order: OrderSpec) -> OrderSpec {
    OrderSpec { bytes_max: ByteSize::from_bytes(800), spill: Some(ByteSize::from_bytes(1 << 20)), ..order }
}

fn by_time(bound: TimeBound) -> OrderBy {
    OrderBy::Time(TimeOrder { bound, most: Period::from_micros(i64::MAX as u64) })
}

fn by_sequence(per_key: bool, gap: Option<Period>) -> OrderBy {
    let at = |text: &str| text.parse().expect("a pointer");
    let (placeholder, done) = (Some(at("/missing")), Some(at("/done")));
    OrderBy::Sequence(SequenceOrder { field: at("/n"), per_key, first: 0, keys_max: 1_000, gap, placeholder, done })
}

/// A source, a stage that hands rows on behind a buffer, a sink, and a sink for what is late.
fn ordered(rows: &[Row], tasks: u16, order: OrderSpec, sinks: [&KeepSink; 2]) -> Graph {
    let mut graph = Graph::new();
    let list = ListSource { partitions: vec![rows.to_vec()], bounded: true, batch: 7 };
    assert_eq!(graph.list(list, 1), SOURCE);
    assert_eq!(graph.stage(identity(), tasks), STAGE);
    let [out, late] = sinks.map(|sink| graph.sink(sink));
    graph.edge((SOURCE, 0), (STAGE, 0), Routing::Keyed);
    graph.edge((STAGE, 0), (out, 0), Routing::Keyed);
    graph.edge((STAGE, LATE), (late, 0), Routing::Keyed);
    graph.orders.insert((STAGE, 0), order);
    graph
}

/// Times that rise, with some behind by up to 90.
fn disordered(rows: usize) -> Vec<Row> {
    (0..rows as i64)
        .map(|i| (i * 10 - (i * 7_919 % 10) * (i % 3) * 5, ["a", "b", "c"][i as usize % 3], format!("{i}")))
        .collect()
}

fn numbered(numbers: impl IntoIterator<Item = (&'static str, u64)>) -> Vec<Row> {
    numbers.into_iter().enumerate().map(|(at, (key, n))| (at as i64, key, format!("{{\"n\":{n}}}"))).collect()
}

fn counts(job: &wasmill_engine::JobHandle) -> OrderingSnapshot {
    job.metrics().nodes()[STAGE].ordering.expect("the stage has a buffer")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_leave_by_time_and_what_is_late_goes_as_the_job_says() {
    let rows = disordered(3_000);
    for late in [LatePolicy::Drop, LatePolicy::Forward, LatePolicy::Side] {
        for bound in [TimeBound::Fixed(Period::from_micros(40)), TimeBound::KSlack] {
            let (sink, side) = (KeepSink::default(), KeepSink::default());
            let (job, _) = ordered(&rows, 1, spec(by_time(bound), late), [&sink, &side]).run().await;
            let counted = counts(&job);
            assert!(counted.late > 0 && counted.held == 0, "{counted:?}");
            let times: Vec<i64> = sink.committed().iter().map(|row| row.0).collect();
            let behind = times.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
            let all = times.len() as u64 + side.committed().len() as u64 + counted.dropped;
            assert_eq!(all, rows.len() as u64, "rows in = rows out + declared drops");
            match late {
                LatePolicy::Drop => assert_eq!((behind, counted.dropped), (0, counted.late)),
                LatePolicy::Side => assert_eq!((behind, side.committed().len() as u64), (0, counted.late)),
                LatePolicy::Forward | LatePolicy::Correct => assert!(behind > 0 && behind <= counted.late),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_go_on_as_corrections() {
    let (sink, side) = (KeepSink::default(), KeepSink::default());
    let bound = by_time(TimeBound::Fixed(Period::from_micros(40)));
    let (job, _) = ordered(&disordered(3_000), 1, spec(bound, LatePolicy::Correct), [&sink, &side]).run().await;
    let (late, on_time): (Vec<_>, Vec<_>) =
        sink.committed().into_iter().partition(|(_, _, value)| value.ends_with(" correction"));
    assert!(late.len() as u64 == counts(&job).late && !late.is_empty());
    assert_eq!(late.len() + on_time.len(), 3_000);
    assert!(on_time.iter().all(|row| row.2.ends_with(" on-time")));
    assert!(on_time.is_sorted_by_key(|row| row.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffer_that_is_full_lets_its_first_rows_go() {
    let (sink, side) = (KeepSink::default(), KeepSink::default());
    let bound = TimeBound::Fixed(Period::from_micros(1_000_000));
    let order = OrderSpec { rows_max: 100, ..spec(by_time(bound), LatePolicy::Forward) };
    let (job, _) = ordered(&disordered(2_000), 1, order, [&sink, &side]).run().await;
    assert_eq!(sink.committed().len(), 2_000);
    assert!(counts(&job).forced > 1_500, "{:?}", counts(&job));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_key_leave_in_order_and_placeholders_and_marks_go_no_further() {
    let mut rows = numbered((0..600).map(|i| (["a", "b"][i as usize % 2], (i / 2) ^ 3)));
    rows.retain(|row| row.2 != "{\"n\":40}");
    rows.insert(100, (0, "a", "{\"n\":40,\"missing\":true}".into()));
    rows.insert(101, (0, "b", "{\"n\":41,\"done\":true}".into()));
    rows.push((0, "a", "{\"m\":1}".into()));
    let (sink, side) = (KeepSink::default(), KeepSink::default());
    let (job, _) = ordered(&rows, 2, spec(by_sequence(true, None), LatePolicy::Side), [&sink, &side]).run().await;
    for key in ["a", "b"] {
        let got: Vec<String> = sink.committed().into_iter().filter(|row| row.1 == key).map(|row| row.2).collect();
        let want: Vec<String> = (0..300).filter(|n| *n != 40).map(|n| format!("{{\"n\":{n}}}")).collect();
        assert_eq!(got, want, "{key}");
    }
    assert_eq!((counts(&job).marks, counts(&job).missing), (2, 1));
    assert_eq!(job.metrics().nodes()[STAGE].rejected, 1, "a row without a number");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_ends_with_its_time() {
    let (sink, side) = (KeepSink::default(), KeepSink::default());
    let order = spec(by_sequence(false, Some(Period::from_micros(500))), LatePolicy::Drop);
    let mut graph = ordered(&numbered([("a", 0), ("a", 2), ("a", 3)]), 1, order, [&sink, &side]);
    let unbounded = ListSource { partitions: vec![numbered([("a", 0), ("a", 2), ("a", 3)])], bounded: false, batch: 1 };
    graph.replace_list(SOURCE, unbounded);
    let clock = Arc::new(SimulatedClock::new(Timestamp(1_000)));
    let mut job = graph.start(Box::new(CutLog::default()), Arc::<SimulatedClock>::clone(&clock)).await;
    while job.metrics().nodes()[STAGE].ordering.is_none_or(|now| now.held < 2) || clock.sleepers() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(counts(&job).promised, Some(Timestamp(0)), "the watermark waits for rows that are held");
    clock.advance(Duration::from_micros(500));
    // Counts follow the rows.
    while sink.written() < 3 || counts(&job).missing < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(counts(&job).missing, 1);
    job.stop();
    job.wait().await.expect("it stops");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_on_disk_leave_in_order_and_leave_no_file() {
    let (sink, side) = (KeepSink::default(), KeepSink::default());
    let bound = by_time(TimeBound::Fixed(Period::from_micros(1_000_000)));
    let graph = ordered(&disordered(3_000), 1, on_disk(spec(bound, LatePolicy::Drop)), [&sink, &side]);
    let disk = graph.disk.clone();
    let (job, _) = graph.run().await;
    assert!(sink.committed().len() == 3_000 && sink.committed().is_sorted_by_key(|row| row.0));
    let counted = counts(&job);
    assert!(counted.spilled > 2_900 && counted.forced == 0 && counted.on_disk == 0, "{counted:?}");
    assert!(disk.files().is_empty(), "{:?}", disk.files().keys());
}

#[tokio::test]
async fn a_disk_that_is_full_fails_the_job_and_is_named() {
    let (sink, side) = (KeepSink::default(), KeepSink::default());
    let bound = by_time(TimeBound::Fixed(Period::from_micros(1_000_000)));
    let graph = ordered(&disordered(3_000), 1, on_disk(spec(bound, LatePolicy::Drop)), [&sink, &side]);
    graph.disk.fail_at(9, Fault::Full, 1);
    let mut job = graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
    let error = job.wait().await.expect_err("the disk is full");
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("cannot have rows of its ordering buffer wait on disk: cannot"), "{error}");
}

#[tokio::test]
async fn rows_of_a_buffer_that_is_gone_are_not_lost_in_silence() {
    let (sink, side) = (KeepSink::default(), KeepSink::default());
    let mut graph = ordered(&disordered(1), 1, spec(by_time(TimeBound::KSlack), LatePolicy::Drop), [&sink, &side]);
    graph.orders.clear();
    let held = HeldRecord {
        node: name("n1"),
        port: 0,
        key: Box::default(),
        name: [2, 0, 0, 0, 0, 0, 0, 0, 0].into(),
        value: Some(vec![0; 9]),
    };
    let stages = BTreeMap::from([(name("n1"), RecoveredStage { held: vec![held], ..RecoveredStage::default() })]);
    let recovered = Recovered { epoch: Epoch(1), stages, ..Recovered::default() };
    let (log, clock) = (Box::new(CutLog::default()), Arc::new(RealClock::default()));
    let parts = graph.parts(JobSettings::default(), recovered, log, clock);
    let error = wasmill_engine::start(parts, &tokio::runtime::Handle::current()).await.err().expect("it is refused");
    assert!(error.to_string().contains("has no such buffer any more"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Held rows, and what adaptive slack has learned, are part of the epoch.
    #[test]
    fn order_by_time_survives_deaths(deaths in deaths(), adaptive in any::<bool>(), little_memory in any::<bool>()) {
        let bound = if adaptive {
            TimeBound::AqKSlack { quality_ppm: 900_000, window: Period::from_micros(0) }
        } else {
            TimeBound::Fixed(Period::from_micros(70))
        };
        let rows = disordered(2_000);
        let run = |deaths: &[_]| {
            let (sink, side) = (KeepSink::default(), KeepSink::default());
            let order = spec(by_time(bound), LatePolicy::Side);
            let order = if little_memory && !deaths.is_empty() { on_disk(order) } else { order };
            survive(deaths, |_| ordered(&rows, 1, order.clone(), [&sink, &side]));
            (sink.committed(), side.committed())
        };
        prop_assert_eq!(run(&deaths), run(&[]));
    }

    #[test]
    fn order_by_sequence_survives_deaths_and_another_parallelism(
        deaths in deaths(), tasks in prop::collection::vec(1u16..4, 5), little_memory in any::<bool>(),
    ) {
        let keys = ["a", "b", "c", "d"];
        let rows = numbered((0..2_048).map(|i| (keys[i as usize % 4], (i / 4) ^ 15)));
        let (sink, side) = (KeepSink::default(), KeepSink::default());
        let order = spec(by_sequence(true, None), LatePolicy::Side);
        let order = if little_memory { on_disk(order) } else { order };
        survive(&deaths, |run| ordered(&rows, tasks[run], order.clone(), [&sink, &side]));
        for key in keys {
            let got: Vec<String> = sink.committed().into_iter().filter(|row| row.1 == key).map(|row| row.2).collect();
            prop_assert_eq!(got, (0..512).map(|n| format!("{{\"n\":{n}}}")).collect::<Vec<_>>());
        }
        prop_assert_eq!(side.committed(), []);
    }
}
