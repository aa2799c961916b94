//! Plugins that fail: rows beside the guilty ones go on once and in order, state is as if the guilty
//! ones had never come, and they are in the dead letters, once, whatever dies when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use wasmill_contract::{Cut, OperatorFactory};
use wasmill_engine::{JobError, JobHandle, JobSettings};
use wasmill_env::RealClock;
use wasmill_model::{Clock, LetterKind, LetterSubject, WindowShape, WindowSpec};
use wasmill_plan::{FaultPolicy, Routing};

use crate::support::faulty::{FaultyAggregate, FaultyCounter, TIMER_DELAY, letter_kind};
use crate::support::graph::{CutLog, Graph, tumbling_model};
use crate::support::mortal::{Death, deaths, survive};
use crate::support::{Got, KeepSink, ListSource, Row, name};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const FAULTS: FaultPolicy = FaultPolicy { in_a_row_max: 10_000, retries_max: 2, backoff: Duration::from_micros(1) };

/// A source, a stage of a plugin and a sink, in one task.
fn line(
    rows: &[Row],
    batch: usize,
    plugin: impl OperatorFactory + 'static,
    window: Option<WindowSpec>,
    faults: FaultPolicy,
    sink: &KeepSink,
) -> Graph {
    let mut graph = Graph::new();
    let source = graph.list(ListSource { partitions: vec![rows.to_vec()], bounded: true, batch }, 1);
    let stage = graph.plugin(plugin, window, faults);
    let out = graph.sink(sink);
    graph.edge((source, 0), (stage, 0), Routing::Local);
    graph.edge((stage, 0), (out, 0), Routing::Local);
    graph
}

/// Runs a job that must not die, with epochs that nothing but the job asks for.
async fn run(graph: Graph) -> (Result<(), JobError>, Vec<Cut>, JobHandle) {
    let (log, clock) = (CutLog::default(), Arc::new(RealClock::default()));
    let settings = JobSettings { epoch_interval: Duration::from_secs(3_600), ..JobSettings::default() };
    let mut job = graph.start_with(settings, Box::new(log.clone()), clock).await;
    let ended = job.wait().await;
    (ended, log.take().into_iter().flat_map(|(_, cuts)| cuts).collect(), job)
}

/// A letter as the model has it.
type Letter = (LetterKind, LetterSubject, i64, String, String, Option<u64>);

/// What should come of rows: what goes on, what does not, and how often each key was counted.
fn model(rows: &[Row]) -> (Vec<Got>, Vec<Letter>, BTreeMap<String, u64>) {
    let (mut got, mut letters, mut counts) = (Vec::new(), Vec::new(), BTreeMap::<String, u64>::new());
    let mut timers = Vec::new();
    let mut count = |key: &str| {
        let count = counts.entry(key.to_owned()).or_default();
        *count += 1;
        *count
    };
    for (offset, (time, key, value)) in rows.iter().enumerate() {
        if let Some(kind) = letter_kind(value) {
            let subject = LetterSubject::Row { port: 0 };
            letters.push((kind, subject, *time, (*key).to_owned(), value.clone(), Some(offset as u64)));
            continue;
        }
        if let Some(tag) = value.strip_prefix("timer:") {
            timers.push((time + TIMER_DELAY, *key, tag));
        }
        got.push((*time, (*key).to_owned(), count(key).to_string()));
    }
    for (time, key, tag) in timers {
        match letter_kind(tag) {
            Some(kind) => {
                let subject = LetterSubject::Timer(Clock::Event);
                letters.push((kind, subject, time, key.to_owned(), tag.to_owned(), None));
            }
            None => got.push((time, key.to_owned(), format!("timer {}", count(key)))),
        }
    }
    (got, letters, counts)
}

fn marked_rows() -> impl Strategy<Value = Vec<Row>> {
    let kinds = ["trap", "time", "limit", "breach", "fatal", "retry", "reject"];
    let mark = prop_oneof![
        12 => Just(String::new()),
        2 => prop::sample::select(kinds.to_vec()).prop_map(|kind| format!("{kind}-")),
        2 => Just("timer:".to_owned()),
        1 => prop::sample::select(kinds[..6].to_vec()).prop_map(|kind| format!("timer:{kind}-")),
    ];
    let row = (prop::sample::select(KEYS.to_vec()), mark);
    prop::collection::vec(row, 0..150).prop_map(|rows| {
        let numbered = rows.into_iter().enumerate();
        numbered.map(|(place, (key, mark))| (place as i64, key, format!("{mark}{place}"))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_fails_is_as_if_it_had_never_come(
        rows in marked_rows(),
        batch in prop_oneof![Just(1_usize), 2..10_usize, Just(1_000)],
        write_through in any::<bool>(),
        deaths in deaths(),
    ) {
        let (sink, counter) = (KeepSink::default(), FaultyCounter::new(write_through));
        let left = survive(&deaths, |_| line(&rows, batch, counter.clone(), None, FAULTS, &sink));
        let (got, letters, counts) = model(&rows);
        prop_assert_eq!(sink.committed(), got);
        let stored: Vec<Letter> = left.letters.iter().map(|letter| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let offset = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
            let origin = letter.origin.as_ref().map(|origin| offset(&origin.position.0));
            (letter.kind, letter.subject, letter.time, text(&letter.key), text(&letter.value), origin)
        }).collect();
        prop_assert_eq!(stored, letters.clone());
        for letter in &left.letters {
            let trapped = letter.kind == LetterKind::Trap;
            prop_assert_eq!(&letter.stack, if trapped { &["inner", "outer"][..] } else { &[] });
        }
        let state = left.recovered.stages.get(&name("n1")).map(|stage| &stage.state[..]).unwrap_or_default();
        let state: BTreeMap<String, u64> = state.iter().map(|entry| {
            let count = entry.value.as_deref().expect("what exists has a value");
            (String::from_utf8_lossy(&entry.key).into_owned(), u64::from_le_bytes(count.try_into().expect("8 bytes")))
        }).collect();
        prop_assert_eq!(&state, &counts);
        if deaths.is_empty() {
            let stage = &left.job.metrics().nodes()[1];
            let total = counts.values().sum::<u64>() as f64;
            prop_assert_eq!(stage.guest.get("counted").copied().unwrap_or_default(), total, "replays are not counted");
            prop_assert!(stage.guest.get("opened").is_none_or(|&opened| opened == 1.0), "nor is opening again");
            prop_assert_eq!(stage.rejected, letters.len() as u64);
            if letters.iter().all(|letter| letter.0 == LetterKind::Rejected) {
                prop_assert_eq!(counter.opened.load(Ordering::Relaxed), 1);
            }
        }
    }

    #[test]
    fn windows_go_on_without_what_fails(rows in marked_rows(), batch in 1..50_usize, size in 1i64..60, deaths in deaths()) {
        let sink = KeepSink::default();
        let shape = WindowShape::Tumbling { size_micros: size };
        let left = survive(&deaths, |_| line(&rows, batch, FaultyAggregate::new(u64::MAX), Some(shape.into()), FAULTS, &sink));
        let fails = |row: &Row| letter_kind(&row.2).is_some_and(|kind| kind != LetterKind::Rejected);
        let good: Vec<Row> = rows.iter().filter(|row| !fails(row)).cloned().collect();
        prop_assert_eq!(sink.sorted(), tumbling_model(&[good], size));
        let dead: Vec<i64> = left.letters.iter().map(|letter| letter.time).collect();
        prop_assert_eq!(dead, rows.iter().filter(|row| fails(row)).map(|row| row.0).collect::<Vec<_>>());
    }
}

fn letters(cuts: &[Cut]) -> Vec<(LetterKind, LetterSubject, Vec<i64>, String)> {
    let letters = cuts.iter().flat_map(|cut| &cut.dead_letters);
    letters
        .map(|letter| (letter.kind, letter.subject, letter.rows.times().to_vec(), letter.reasons[0].clone()))
        .collect()
}

fn texts(rows: &[(&'static str, &str)]) -> Vec<Row> {
    rows.iter().enumerate().map(|(time, (key, value))| (time as i64, *key, (*value).to_owned())).collect()
}

#[tokio::test]
async fn panes_that_cannot_be_finished_or_merged_are_dead_letters() {
    let rows = texts(&[("a", "1"), ("trap-key", "2"), ("b", "3"), ("a", "4"), ("b", "5"), ("b", "6"), ("c", "7")]);
    let shape = WindowShape::Sliding { size_micros: 8, slide_micros: 4 };
    let sink = KeepSink::default();
    let (ended, cuts, _) = run(line(&rows, 4, FaultyAggregate::new(1), Some(shape.into()), FAULTS, &sink)).await;
    ended.expect("it ends well");
    // Slices are 0..4 and 4..8. In the window 0..8 b has the slices 1 and 2, which do not merge.
    let got = sink.committed();
    let text = |time, key: &str, value: &str| (time, key.to_owned(), value.to_owned());
    assert_eq!(
        got,
        [
            text(3, "a", "-4..4=2"),
            text(3, "b", "-4..4=1"),
            text(7, "a", "0..8=2"),
            text(11, "b", "4..12=2"),
            text(11, "c", "4..12=1"),
        ]
    );
    let pane = |time: &[i64], reason: &str| (LetterKind::Trap, LetterSubject::Pane, time.to_vec(), reason.to_owned());
    assert_eq!(
        letters(&cuts),
        [
            pane(&[3], "finish trapped: trap-key"),
            pane(&[7], "merge trapped: trap-merge"),
            pane(&[7, 7], "merge trapped: trap-merge"),
            pane(&[7], "merge trapped: trap-merge"),
        ]
    );
}

#[tokio::test]
async fn a_row_that_fails_in_flush_leaves_no_state() {
    let rows = texts(&[("a", "1"), ("trap-b", "2"), ("a", "3"), ("c", "timer:x"), ("trap-b", "5")]);
    let sink = KeepSink::default();
    let (ended, cuts, _) = run(line(&rows, 100, FaultyCounter::new(false), None, FAULTS, &sink)).await;
    ended.expect("it ends well");
    let row = |time| {
        let subject = LetterSubject::Row { port: 0 };
        (LetterKind::Trap, subject, vec![time], "flush trapped: trap-b".to_owned())
    };
    assert_eq!(letters(&cuts), [row(1), row(4)]);
    let changes = cuts.iter().flat_map(|cut| &cut.stages).flat_map(|stage| stage.state.sorted());
    let two = 2_u64.to_le_bytes();
    let state: Vec<_> = changes.map(|change| (change.key, change.value)).collect();
    assert_eq!(state, [(&b"a"[..], Some(&two[..])), (b"c", Some(&two))]);
}

#[tokio::test]
async fn an_idle_stage_is_flushed_ahead_of_the_barrier_and_what_fails_then_is_a_dead_letter() {
    let mut rows: Vec<Row> = (0..200).map(|time| (time, KEYS[time as usize % 4], "x".into())).collect();
    (rows[50].1, rows[150].1) = ("trap-b", "trap-b");
    let (sink, counter) = (KeepSink::default(), FaultyCounter::new(false));
    let mut graph = Graph::new();
    let source = graph.list(ListSource { partitions: vec![rows], bounded: false, batch: 100 }, 1);
    let stage = graph.plugin(counter, None, FAULTS);
    let out = graph.sink(&sink);
    graph.edge((source, 0), (stage, 0), Routing::Local);
    graph.edge((stage, 0), (out, 0), Routing::Local);
    let settings = JobSettings { epoch_interval: Duration::from_secs(3_600), ..JobSettings::default() };
    let log = CutLog::default();
    let job = graph.start_with(settings, Box::new(log.clone()), Arc::new(RealClock::default())).await;
    let flushed = async {
        while job.metrics().nodes()[1].rejected < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), flushed).await.expect("it is flushed while nothing comes in");
    assert!(log.take().is_empty(), "no epoch has ended");
}

#[tokio::test]
async fn a_call_that_asks_for_it_is_made_again() {
    let rows = texts(&[("a", "1"), ("a", "retry-2"), ("a", "3")]);
    for (patience, dead) in [(2, 0), (3, 1)] {
        let (sink, counter) = (KeepSink::default(), FaultyCounter::new(false));
        counter.patience.store(patience, Ordering::Relaxed);
        // With no retries left the two halves that hold the row use up what patience is left.
        let (ended, cuts, _) = run(line(&rows, 100, counter, None, FAULTS, &sink)).await;
        ended.expect("it ends well");
        assert!(letters(&cuts).len() <= dead, "{:?}", letters(&cuts));
        assert_eq!(sink.committed().len(), 3 - letters(&cuts).len());
    }
    let sink = KeepSink::default();
    let (ended, cuts, _) = run(line(&rows, 100, FaultyCounter::new(true), None, FAULTS, &sink)).await;
    ended.expect("it ends well");
    let subject = LetterSubject::Row { port: 0 };
    let reason = "process asks to be tried again: retry-2".to_owned();
    assert_eq!(letters(&cuts), [(LetterKind::Error, subject, vec![1], reason)]);
}

#[tokio::test]
async fn a_plugin_that_always_fails_fails_the_job() {
    let rows: Vec<Row> = (0..1_000).map(|time| (time, "a", format!("trap-{time}"))).collect();
    for (in_a_row_max, message) in [
        (0, "stage \"n1\": process trapped: trap-0 in inner < outer"),
        (
            10,
            "stage \"n1\": 11 rows or timers in a row failed and none succeeded, the last one so: process trapped: \
             trap-10 in inner < outer",
        ),
    ] {
        let sink = KeepSink::default();
        let faults = FaultPolicy { in_a_row_max, ..FAULTS };
        let counter = FaultyCounter::new(false);
        let opened = Arc::clone(&counter.opened);
        let (ended, cuts, _) = run(line(&rows, 1_000, counter, None, faults, &sink)).await;
        assert_eq!(ended.expect_err("it fails").to_string(), message);
        assert!(sink.committed().is_empty() && cuts.is_empty(), "nothing of the epoch counts");
        assert!(opened.load(Ordering::Relaxed) < 50);
    }
}

#[tokio::test]
async fn an_overgrown_instance_is_replaced_at_a_cut_and_nothing_changes() {
    let rows = texts(&[("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")]);
    let mut left = Vec::new();
    for overgrown in [false, true] {
        let sink = KeepSink::default();
        let counter = FaultyCounter { overgrown, ..FaultyCounter::new(false) };
        let opened = Arc::clone(&counter.opened);
        let (ended, ..) = run(line(&rows, 1, counter, None, FAULTS, &sink)).await;
        ended.expect("the job ends");
        assert_eq!(opened.load(Ordering::Relaxed) > 1, overgrown);
        left.push(sink.sorted());
    }
    assert_eq!(left[0], left[1]);
}

#[tokio::test]
async fn a_plugin_that_does_not_open_again_fails_the_job() {
    let rows = texts(&[("a", "1"), ("a", "trap-2"), ("a", "3")]);
    let counter = FaultyCounter { open_max: 2, ..FaultyCounter::new(false) };
    let (ended, ..) = run(line(&rows, 100, counter, None, FAULTS, &KeepSink::default())).await;
    assert_eq!(ended.expect_err("it fails").to_string(), "stage \"n1\": open failed: no more");
}

#[tokio::test]
async fn what_is_kept_for_a_replay_is_bounded() {
    let large = "x".repeat(1 << 20);
    let mut rows: Vec<Row> = (0..80).map(|time| (time, "a", large.clone())).collect();
    rows.push((80, "a", "trap-".into()));
    let (sink, counter) = (KeepSink::default(), FaultyCounter::new(false));
    let graph = line(&rows, 1, counter, None, FAULTS, &sink);
    let settings =
        JobSettings { epoch_interval: Duration::from_secs(3_600), epoch_bytes: u64::MAX, ..JobSettings::default() };
    let log = CutLog::default();
    let mut job = graph.start_with(settings, Box::new(log.clone()), Arc::new(RealClock::default())).await;
    job.wait().await.expect("it ends well");
    let flushed = job.metrics().nodes()[1].guest["flushed"];
    assert!((4.0..20.0).contains(&flushed), "twice within 80 MiB, after the fault, and at the end: {flushed}");
    assert!(log.take().len() > 1, "an epoch was asked for");
    assert_eq!(sink.committed().last().map(|row| row.2.clone()), Some("80".to_owned()));
}

#[test]
fn a_verdict_dies_with_its_epoch_and_comes_again() {
    let rows = texts(&[("a", "1"), ("a", "trap-2"), ("a", "3")]);
    for durable in [false, true] {
        let sink = KeepSink::default();
        let death = Death { commits: 1, durable };
        let left = survive(&[death], |_| line(&rows, 100, FaultyCounter::new(false), None, FAULTS, &sink));
        assert_eq!(left.letters.len(), 1, "died after the write: {durable}");
        assert_eq!(sink.committed().iter().map(|row| row.2.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    }
}
