use std::collections::BTreeMap;

use wasmill_engine::{InputFacts, Reading, SourceFacts};
use wasmill_model::{Firing, JobName, PartitionId};
use wasmill_order::{Gap, InputProgress, PartitionProgress};
use wasmill_plan::{Chain, Edge, Extraction, FaultPolicy, Node, Routing, Watermarks};

use super::*;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 100 * SECOND;

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a name")
}

/// Two sources, a stage with windows of 60 s behind both, a sink.
fn plan(idle_micros: Option<i64>) -> Plan {
    let watermarks = Watermarks { bound_micros: 2_000_000, idle_micros, ..Watermarks::default() };
    let source = || NodeKind::Source { extraction: Extraction::default(), watermarks: watermarks.clone() };
    let shape = WindowShape::Tumbling { size_micros: 60_000_000 };
    let window = Some(WindowSpec { shape, firing: Firing { lateness_micros: 5_000_000, ..Firing::default() } });
    let kinds = [
        ("fast", source()),
        ("slow", source()),
        ("per-minute", NodeKind::Stage { window, faults: FaultPolicy::default() }),
        ("out", NodeKind::Sink),
    ];
    let nodes = kinds.into_iter().enumerate().map(|(chain, (text, kind))| Node { name: name(text), kind, chain });
    let edge = |from, to| Edge { from, output: 0, to, input: 0, key: None, routing: Routing::Keyed };
    let chain = |node| Chain { nodes: vec![node], parallelism: 1, convoy: None };
    Plan {
        job: JobName::new("job").expect("a name"),
        nodes: nodes.collect(),
        edges: vec![edge(0, 2), edge(1, 2), edge(2, 3)],
        chains: (0..4).map(chain).collect(),
        orders: BTreeMap::new(),
    }
}

fn task(node: &str, watermark: i64, head: HeadFacts) -> TaskFacts {
    let (buffers, windows) = (Vec::new(), Vec::new());
    let watermark = Timestamp(watermark);
    TaskFacts { nodes: vec![name(node)], share: 0, watermark, head, buffers, windows, due: None, gives_up: false }
}

fn partition(number: u32, latest: i64, silent: u64, standing: Standing) -> (PartitionProgress, String) {
    let watermark = Timestamp(latest.saturating_sub(2_000_001));
    let (partition, latest, heard_nanos) = (PartitionId(number), Timestamp(latest), NOW - silent);
    (PartitionProgress { partition, latest, watermark, standing, heard_nanos }, format!("part-{number}.jsonl"))
}

fn source(node: &str, watermark: i64, partitions: Vec<(PartitionProgress, String)>) -> TaskFacts {
    let facts = SourceFacts {
        reading: Reading::Reads,
        watermark: Timestamp(watermark),
        from: None,
        partitions,
        positions: Vec::new(),
        becomes_idle: false,
    };
    task(node, watermark, HeadFacts::Source(facts))
}

fn input(from: &str, watermark: i64, standing: Standing) -> InputFacts {
    let progress = InputProgress { watermark: Timestamp(watermark), standing, risen_nanos: Some(NOW) };
    InputFacts { from: name(from), share: Some(0), progress, blocked: false }
}

/// `slow` is far behind: one of its partitions is silent.
fn facts() -> JobFacts {
    let fast = source("fast", 500_000_000, vec![partition(0, 502_000_001, 0, Standing::Live)]);
    let both =
        vec![partition(0, 400_000_000, 0, Standing::Live), partition(1, 92_000_001, 12_400_000_000, Standing::Live)];
    let slow = source("slow", 90_000_000, both);
    let inputs = vec![input("fast", 500_000_000, Standing::Live), input("slow", 90_000_000, Standing::Live)];
    let mut stage = task("per-minute", 90_000_000, HeadFacts::Inputs(inputs));
    let key = || Box::<[u8]>::from(&b"north"[..]);
    let (start, end) = (60_000_000, 120_000_000);
    let window = OpenWindow { key: key(), start, end, due: Timestamp(end - 1), wall_due: None, passed: false };
    let late = LateRow {
        time: Timestamp(10_000_000),
        key: key(),
        watermark: Timestamp(70_000_000),
        number: None,
        origin: Some((PartitionId(1), 33)),
        came: Timestamp(1),
    };
    stage.windows.push(WindowFacts { node: name("per-minute"), held: 7, open: vec![window], late: vec![late] });
    let out = task("out", 90_000_000, HeadFacts::Inputs(vec![input("per-minute", 90_000_000, Standing::Live)]));
    JobFacts { now_nanos: NOW, tasks: vec![fast, slow, stage, out], silent: Vec::new() }
}

fn of(plan: &Plan, facts: &JobFacts, node: &str) -> NodeWhy {
    let mut why = explain(plan, facts, Some(&name(node)), Timestamp(0));
    assert_eq!(why.nodes.len(), 1);
    why.nodes.remove(0)
}

#[test]
fn an_open_window_is_traced_to_the_partition_that_is_silent() {
    let why = of(&plan(None), &facts(), "per-minute");
    let windows = why.windows.expect("it has windows");
    assert_eq!((windows.held, windows.open[0].rise_micros, &*windows.open[0].key), (7, Some(29_999_999), "north"));
    assert_eq!(
        windows.open[0].reason,
        "it fires once the watermark has risen by 29.999999 s, to 1970-01-01T00:01:59.999Z"
    );
    let holder = why.held_back_by.expect("somebody");
    assert_eq!((&holder.node, holder.partition), (&name("slow"), Some(1)));
    assert_eq!(holder.partition_name.as_deref(), Some("part-1.jsonl"));
    assert_eq!(
        holder.reason,
        "its latest event is of 1970-01-01T00:01:32.000Z, and others may come 2 s behind that; nothing came for 12.4 s, \
         and it is never idle"
    );
    assert!(holder.hint.is_some_and(|hint| hint.contains("idle = \"10s\"")));
    // The sink is held back by the same, through the stage.
    let holder = of(&plan(None), &facts(), "out").held_back_by.expect("somebody");
    assert_eq!((holder.node, holder.through), (name("slow"), vec![name("out"), name("per-minute")]));
}

#[test]
fn partitions_are_told_slowest_first_and_say_what_they_wait_for() {
    let mut facts = facts();
    let HeadFacts::Source(source) = &mut facts.tasks[1].head else { panic!("a source") };
    source.partitions.push(partition(2, 1, 50 * SECOND, Standing::Idle));
    let why = of(&plan(Some(30_000_000)), &facts, "slow");
    let told: Vec<(u32, &str)> = why.partitions.iter().map(|at| (at.partition, at.standing)).collect();
    assert_eq!(told, [(1, "live"), (0, "live"), (2, "idle")]);
    assert!(why.partitions[0].reason.ends_with("nothing came for 12.4 s, and it is idle after 30 s"));
    assert!(why.partitions[2].reason.ends_with("it is idle, silent for 50 s, and holds nothing back"));
    assert_eq!(why.held_back_by.and_then(|holder| holder.hint), None, "it will be idle by itself");
    // One that has said nothing.
    let HeadFacts::Source(source) = &mut facts.tasks[1].head else { panic!("a source") };
    source.partitions = vec![partition(0, i64::MIN, 0, Standing::Live)];
    source.reading = Reading::Paused;
    facts.tasks[1].watermark = Timestamp::MIN;
    let why = of(&plan(None), &facts, "slow");
    assert_eq!(why.partitions[0].reason, "no event has come from it yet; the job is paused");
    assert_eq!(why.held_back_by.and_then(|holder| holder.hint).as_deref(), Some("resume it: wasmill resume JOB"));
}

#[test]
fn idle_and_ended_inputs_and_tasks_that_say_nothing_are_told_apart() {
    let mut facts = facts();
    let HeadFacts::Inputs(inputs) = &mut facts.tasks[2].head else { panic!("inputs") };
    inputs[1].progress.standing = Standing::Idle;
    let holder = of(&plan(None), &facts, "per-minute").held_back_by.expect("somebody");
    assert_eq!(holder.node, name("fast"), "the slow one is left out");
    let HeadFacts::Inputs(inputs) = &mut facts.tasks[2].head else { panic!("inputs") };
    inputs[0].progress.standing = Standing::Idle;
    let holder = of(&plan(None), &facts, "per-minute").held_back_by.expect("somebody");
    assert!(holder.reason.starts_with("every input that has not ended is idle"), "{}", holder.reason);
    facts.tasks[2].watermark = Timestamp::MAX;
    let why = of(&plan(None), &facts, "per-minute");
    assert_eq!((why.held_back_by, why.watermark_micros), (None, None), "everything has ended");

    let mut facts = self::facts();
    facts.tasks.remove(1);
    facts.silent.push((name("slow"), 0));
    let why = explain(&plan(None), &facts, None, Timestamp(0));
    assert_eq!((why.nodes.len(), &why.silent[0].node), (4, &name("slow")));
    let holder = why.nodes[2].held_back_by.as_ref().expect("somebody");
    assert!(holder.node == name("slow") && holder.reason.starts_with("it has not answered"), "{holder:?}");
}

#[test]
fn a_late_row_says_what_would_have_taken_it() {
    let plan = plan(None);
    let late = of(&plan, &facts(), "per-minute").late.remove(0);
    // Two sources feed the stage: which one it came from is not known.
    assert_eq!((late.behind_micros, late.source, late.offset), (60_000_000, None, Some(33)));
    assert_eq!(
        late.reason,
        "it came 60 s behind the watermark, 1970-01-01T00:01:10.000Z; its last window ended at \
         1970-01-01T00:01:00.000Z, and took late events until 1970-01-01T00:01:05.000Z. A `lateness`, or a \
         `watermark.bound`, longer by 5.000002 s would have taken it"
    );
    let mut alone = plan.clone();
    alone.edges.remove(0);
    assert_eq!(of(&alone, &facts(), "per-minute").late[0].source, Some(name("slow")));
    assert_eq!(last_end(-1, 10, 10), Some(0));
    assert_eq!(last_end(25, 20, 10), Some(40));
    assert_eq!(last_end(i64::MAX, 20, 10), None);
}

#[test]
fn buffers_say_what_they_hold_and_wait_for() {
    let mut facts = facts();
    let buffer = |waits| BufferFacts {
        port: 0,
        held: 3,
        on_disk: 1,
        bytes: 300,
        promised: Timestamp(40),
        waits,
        late: Vec::new(),
    };
    let first = Some((Timestamp(50), Box::from(&b"k"[..])));
    let waits = Waits::Time { k: Some(5_000_000), latest: Some(Timestamp(4_000_000)), first };
    facts.tasks[2].buffers = vec![buffer(waits)];
    let why = of(&plan(None), &facts, "per-minute");
    assert_eq!(
        why.buffers[0].reason,
        "its next row, of 1970-01-01T00:00:00.000Z and key \"k\", goes on once one of 1970-01-01T00:00:05.000Z has come: \
         rows wait for 5 s, and the latest so far is of 1970-01-01T00:00:04.000Z"
    );
    let holder = why.held_back_by.expect("the buffer");
    assert_eq!((holder.node, holder.watermark_micros), (name("per-minute"), Some(40)));

    let gap = |key: &[u8], gives_up| Gap { key: key.into(), missing: 7, held_from: 9, held: 2, gives_up };
    let gaps = vec![gap(b"a", Some(3_000_000)), gap(b"b", None)];
    let late = LateRow {
        time: Timestamp(1),
        key: Box::default(),
        watermark: Timestamp::MIN,
        number: Some(4),
        origin: None,
        came: Timestamp(0),
    };
    facts.tasks[2].buffers = vec![BufferFacts { late: vec![late], ..buffer(Waits::Sequence { gaps, per_key: true }) }];
    facts.tasks[2].windows.clear();
    let why = of(&plan(None), &facts, "per-minute");
    assert_eq!(
        why.buffers[0].reason,
        "key \"a\": number 7 is missing, and 2 rows from number 9 on wait; it is given up at 1970-01-01T00:00:03.000Z; \
         key \"b\": number 7 is missing, and 2 rows from number 9 on wait; it is waited for until it comes"
    );
    assert_eq!(why.buffers[0].gaps[1].key.as_deref(), Some("b"));
    assert_eq!((why.late[0].number, why.late[0].behind_micros), (Some(4), 0));
    assert!(why.late[0].reason.starts_with("its number 4 had gone by"));
}

#[test]
fn lengths_of_time_read_well() {
    let said = [0, 1, 250_000, 119_000_000, 185_000_000, 7_500_000_000, 200_000_000_000].map(text::span);
    assert_eq!(said, ["0 s", "0.000001 s", "0.25 s", "119 s", "3 m 5 s", "2 h 5 m", "2 d 7 h"]);
}
