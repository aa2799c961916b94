//! Plugins beside the one of a stage: a shadow changes nothing, and a share of the keys is one of two
//! plugins' alone, on one state.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmill_contract::{OperatorContext, OperatorError};
use wasmill_engine::{Beside, DifferenceKind, JobError, JobHandle, KeyShare, ShadowReport, SwapError};
use wasmill_env::RealClock;
use wasmill_model::{Clock, Column, Emission, Outcome, Output, key_group};
use wasmill_plan::{FaultPolicy, Routing};

use crate::convoy::crowded;
use crate::support::faulty::FaultyCounter;
use crate::support::graph::{CutLog, Graph, delayed, rows};
use crate::support::{Call, Got, KeepSink, NativeOperator, Row, name};

const ROWS: usize = 60_000;
const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// The next count of a key in its state.
fn next(context: &mut OperatorContext, key: &[u8]) -> u64 {
    let (keys, none) = ([key].iter().collect::<Column>(), Column::default());
    let mut old = Default::default();
    let found = context.state.get_many(0, &keys, &none, &mut old).expect("declared");
    let before = if found.get(0) { u64::from_le_bytes(old.finish().row(0).try_into().expect("8 bytes")) } else { 0 };
    let now: Column = [(before + 1).to_le_bytes()].iter().collect();
    context.state.put_many(0, &keys, &none, &now).expect("declared");
    before + 1
}

/// Counts by key, and gives the count with a mark; `value` may make another row of it.
fn counts(value: impl Fn(u64, &[u8]) -> Result<String, OperatorError> + Send + Sync + 'static) -> NativeOperator {
    NativeOperator::new(move |context, call| {
        let Call::Process(_, batch) = call else { return Ok(Outcome::default()) };
        let mut values = Vec::new();
        for key in batch.keys().iter() {
            let count = next(context, key);
            values.push(value(count, key)?);
        }
        let output = Output::Values(values.iter().collect());
        Ok(Outcome { emissions: vec![Emission { port: 0, output }], rejected: vec![] })
    })
    .with_spaces(&["count"])
}

fn marked(mark: &'static str) -> NativeOperator {
    counts(move |count, _| Ok(format!("{count}{mark}")))
}

async fn job(operator: NativeOperator, rows: Vec<Row>, parallelism: u16, sink: &KeepSink) -> JobHandle {
    let mut graph = Graph::new();
    let source = graph.source(vec![rows], true, 1);
    let stage = graph.stage(operator, parallelism);
    let out = graph.sink(sink);
    graph.edge((source, 0), (stage, 0), Routing::Keyed);
    graph.edge((stage, 0), (out, 0), Routing::Keyed);
    graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await
}

async fn written(sink: &KeepSink, rows: usize) {
    while sink.written() < rows {
        tokio::task::yield_now().await;
    }
}

/// Runs a shadow beside a counter, from some rows on.
async fn shadowed(shadow: NativeOperator) -> (Arc<ShadowReport>, Vec<Got>) {
    let (sink, report) = (KeepSink::default(), Arc::new(ShadowReport::default()));
    let mut job = job(marked(""), rows(ROWS, &KEYS), 2, &sink).await;
    written(&sink, 500).await;
    let beside = Beside::Shadow(Arc::clone(&report));
    job.remote().beside(&name("n1"), Arc::new(shadow), beside).await.expect("it runs beside");
    job.wait().await.expect("it ends");
    (report, sink.committed())
}

/// Every key is counted from 1 on, whatever ran beside.
fn counted(got: &[Got], rows: usize) {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, key, value) in got {
        let count = counts.entry(key).or_default();
        *count += 1;
        let said: String = value.chars().take_while(char::is_ascii_digit).collect();
        assert_eq!(said, count.to_string(), "of {key}");
    }
    assert_eq!(counts.values().sum::<u64>(), rows as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_does_the_same_has_no_differences() {
    let (report, got) = shadowed(marked("")).await;
    let found = report.counts();
    assert!(found.rows > 1_000 && found.differences() == 0 && found.restarts == 0, "{found:?}");
    counted(&got, ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_differs_is_found_out_row_by_row_and_changes_nothing() {
    let wrong = |count: u64, key: &[u8]| {
        Ok(if key == b"c" && count.is_multiple_of(100) { "wrong".to_owned() } else { count.to_string() })
    };
    let (report, got) = shadowed(counts(wrong)).await;
    let (found, shown) = (report.counts(), report.differences());
    let expected = got.iter().filter(|row| row.1 == "c" && row.2.parse::<u64>().is_ok_and(|n| n.is_multiple_of(100)));
    let expected = expected.count() as u64;
    assert!(found.changed > 0 && found.changed <= expected && found.differences() == found.changed, "{found:?}");
    let first = &shown[0];
    assert_eq!((first.kind, first.key.as_str()), (DifferenceKind::Changed, "c"));
    assert_eq!(first.new.as_ref().map(|row| row.value.as_str()), Some("wrong"));
    counted(&got, ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_that_fails_begins_anew_and_at_last_ends() {
    let fails = |_, _: &[u8]| Err(OperatorError::Trap { call: "process", reason: "no".into(), stack: vec![] });
    let (report, got) = shadowed(counts(fails)).await;
    let found = report.counts();
    assert!(found.failed >= 8 && found.given_up && found.differences() == found.failed, "{found:?}");
    counted(&got, ROWS);

    // Its view is that of the state where it begins anew: nothing differs but what fails.
    let fails = |count: u64, _: &[u8]| match count {
        1_000 => Err(OperatorError::Deadline { call: "process", limit_ms: 1 }),
        count => Ok(count.to_string()),
    };
    let (report, got) = shadowed(counts(fails)).await;
    let found = report.counts();
    assert!((1..=8).contains(&found.failed) && found.restarts > 0 && !found.given_up, "{found:?}");
    assert_eq!(found.differences(), found.failed);
    counted(&got, ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_fires_timers_of_its_own() {
    let (sink, report) = (KeepSink::default(), Arc::new(ShadowReport::default()));
    let mut job = job(delayed(Clock::Event), rows(ROWS, &KEYS), 1, &sink).await;
    written(&sink, 500).await;
    let beside = Beside::Shadow(Arc::clone(&report));
    job.remote().beside(&name("n1"), Arc::new(delayed(Clock::Event)), beside).await.expect("it runs beside");
    job.wait().await.expect("it ends");
    let found = report.counts();
    assert!(found.rows > 1_000 && found.differences() == 0, "{found:?}");
    assert_eq!(sink.committed().len(), ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_has_its_share_of_the_keys_until_it_goes_or_takes_over() {
    let sink = KeepSink::default();
    let mut job = job(marked(" old"), rows(ROWS, &KEYS), 2, &sink).await;
    let (stage, share) = (name("n1"), KeyShare::percent(50));
    written(&sink, 500).await;
    let remote = job.remote().clone();
    let canary = || remote.beside(&stage, Arc::new(marked(" new")), Beside::Canary(share));
    canary().await.expect("it runs beside");
    assert!(matches!(canary().await, Err(SwapError::Refused { .. })), "one at a time");
    let so_far = sink.written();
    written(&sink, so_far + 2_000).await;
    remote.alone(&stage).await.expect("it goes");
    let so_far = sink.written();
    written(&sink, so_far + 2_000).await;
    canary().await.expect("it runs beside");
    let so_far = sink.written();
    written(&sink, so_far + 2_000).await;
    remote.swap(&stage, Arc::new(marked(" new")), false).await.expect("it takes over");
    job.wait().await.expect("it ends");
    let got = sink.committed();
    counted(&got, ROWS);
    // Keys of the share go new, old, new; the others are old until it takes over.
    for key in KEYS {
        let mut turns: Vec<&str> = Vec::new();
        for (_, of, value) in got.iter().filter(|row| row.1 == key) {
            let mark = &value[value.find(' ').unwrap_or_else(|| panic!("{of} has a mark"))..];
            if turns.last() != Some(&mark) {
                turns.push(mark);
            }
        }
        let expected: &[&str] =
            if share.has(key_group(key.as_bytes())) { &[" old", " new", " old", " new"] } else { &[" old", " new"] };
        assert_eq!(turns, expected, "of {key}");
    }
    let with = KEYS.iter().filter(|key| share.has(key_group(key.as_bytes()))).count();
    assert!(with > 0 && with < KEYS.len(), "both have keys: {with}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_takes_the_job_back_and_the_old_one_may_fail_beside_it() {
    let share = KeyShare::percent(50);
    let (mine, others): (Vec<&str>, Vec<&str>) = KEYS.iter().partition(|key| share.has(key_group(key.as_bytes())));
    let run = |bad: Option<&'static str>| async move {
        let sink = KeepSink::default();
        let mut rows = rows(ROWS, &KEYS);
        // Far enough behind the start of the canary.
        let at = |row: &Row| row.0 > 40_000 && row.0 % 997 == 0;
        let bad_rows = rows.iter_mut().filter(|row| at(row) && bad.is_none_or(|bad| row.1 == bad));
        bad_rows.filter(|row| bad.is_some() || !KeyShare::percent(50).has(key_group(row.1.as_bytes()))).for_each(
            |row| {
                row.2 = format!("trap-{}", row.0);
            },
        );
        let failing = rows.iter().filter(|row| row.2.starts_with("trap-")).count();
        let mut graph = Graph::new();
        let source = graph.source(vec![rows], true, 1);
        let stage = graph.plugin(FaultyCounter::new(false), None, FaultPolicy::default());
        let out = graph.sink(&sink);
        graph.edge((source, 0), (stage, 0), Routing::Keyed);
        graph.edge((stage, 0), (out, 0), Routing::Keyed);
        let mut job = graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await;
        written(&sink, 500).await;
        let beside = Beside::Canary(share);
        job.remote().beside(&name("n1"), Arc::new(FaultyCounter::new(false)), beside).await.expect("it runs beside");
        (job.wait().await, failing, sink.committed())
    };
    // Rows of the old one's keys fail: they go to the dead letters, and both are brought back to where they stood.
    let (ended, failing, given) = run(None).await;
    ended.expect("it ends");
    assert!(failing > 0 && !others.is_empty());
    counted(&given, ROWS - failing);
    // One of the canary's: that is no verdict on the row.
    let (ended, failing, _) = run(Some(mine[0])).await;
    assert!(failing > 0);
    assert!(matches!(ended, Err(JobError::TrialFailed { .. })), "{ended:?}");
}

/// A job of lanes that keep something by key, of which one is hot at first: keys move while it runs.
async fn lanes(operator: NativeOperator, keys: &[&'static str], sink: &KeepSink) -> JobHandle {
    let mut graph = Graph::new();
    let source = graph.source(vec![rows(ROWS, keys)], true, 1);
    let convoy = graph.convoy(operator, 4, true);
    let out = graph.sink(sink);
    graph.edge((source, 0), (convoy, 0), Routing::Split);
    graph.edge((convoy, 0), (out, 0), Routing::Merged);
    graph.start(Box::new(CutLog::default()), Arc::new(RealClock::default())).await
}

fn in_order(got: &[Got]) {
    assert!(got.iter().map(|row| row.0).eq(0..ROWS as i64), "rows leave in the order in which they came");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_in_lanes_follows_keys_that_move() {
    let (sink, report) = (KeepSink::default(), Arc::new(ShadowReport::default()));
    let mut job = lanes(marked(""), &crowded(), &sink).await;
    let beside = Beside::Shadow(Arc::clone(&report));
    job.remote().beside(&name("n1"), Arc::new(marked("")), beside).await.expect("it runs beside");
    let before = job.metrics().nodes()[1].splits;
    job.wait().await.expect("it ends");
    assert!(job.metrics().nodes()[1].splits > before, "keys move while it runs");
    let found = report.counts();
    assert!(found.rows > 1_000 && found.differences() == 0 && found.restarts == 0, "{found:?}");
    counted(&sink.committed(), ROWS);
    in_order(&sink.committed());
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_of_a_shadow_in_lanes_move_with_their_keys() {
    let (sink, report) = (KeepSink::default(), Arc::new(ShadowReport::default()));
    let mut job = lanes(delayed(Clock::Event), &crowded(), &sink).await;
    let beside = Beside::Shadow(Arc::clone(&report));
    job.remote().beside(&name("n1"), Arc::new(delayed(Clock::Event)), beside).await.expect("it runs beside");
    let before = job.metrics().nodes()[1].splits;
    job.wait().await.expect("it ends");
    assert!(job.metrics().nodes()[1].splits > before, "keys move while it runs");
    let found = report.counts();
    assert!(found.rows > 1_000 && found.differences() == 0 && found.restarts == 0, "{found:?}");
    assert_eq!(sink.committed().len(), ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_in_lanes_has_its_share_of_the_keys_and_keeps_the_order() {
    let (sink, keys, share) = (KeepSink::default(), crowded(), KeyShare::percent(50));
    let mut job = lanes(marked(" old"), &keys, &sink).await;
    let (stage, remote) = (name("n1"), job.remote().clone());
    let canary = Beside::Canary(share);
    remote.beside(&stage, Arc::new(marked(" new")), canary).await.expect("it runs beside");
    let so_far = sink.written();
    written(&sink, so_far + ROWS / 2).await;
    remote.alone(&stage).await.expect("it goes");
    job.wait().await.expect("it ends");
    assert!(job.metrics().nodes()[1].splits > 0, "keys move");
    let got = sink.committed();
    counted(&got, ROWS);
    in_order(&got);
    let mut by_new = 0;
    for key in &keys {
        let mut turns: Vec<bool> = got.iter().filter(|row| row.1 == *key).map(|row| row.2.ends_with(" new")).collect();
        by_new += usize::from(turns.contains(&true));
        turns.dedup();
        assert!(turns == [false, true, false] || turns == [true, false] || turns == [false], "of {key}: {turns:?}");
        assert_eq!(turns.contains(&true), share.has(key_group(key.as_bytes())), "of {key}");
    }
    assert!(by_new > 0 && by_new < keys.len(), "both have keys: {by_new}");
}
