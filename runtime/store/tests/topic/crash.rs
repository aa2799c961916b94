//! Crashes and faults at every operation of random workloads.
//!
//! A workload runs until the operation at which the fault comes. What is there afterwards must be what
//! was acknowledged, or that and the one append that was on its way, each partition's part entirely.

use std::sync::Arc;
use std::time::Duration;

use wasmill_env::{Fault, SimulatedClock, SimulatedDisk};
use wasmill_model::ErrorKind;
use wasmill_store::{Append, Producer, Topic, TopicConfig, TopicError};

use crate::common::{Chance, append, clock, group, name, read_all, read_from, rows, topics};

const PARTITIONS: usize = 2;
const STEPS: u64 = 12;
const WORKLOADS: u64 = 10;
const CRASHES_PER_STOP: u64 = 4;
const STATES_MIN: u64 = 20_000;

type Record = (u64, String, String);

#[derive(Debug, Clone, Default)]
struct Progress {
    /// Records of each partition, compaction or not.
    records: [Vec<Record>; PARTITIONS],
    /// The last index of the one producer, per partition.
    produced: [u64; PARTITIONS],
    /// What is being appended: partition, records, index.
    on_its_way: Vec<(usize, Vec<Record>, u64)>,
    /// What the group may have: what it is committing, and twice what was acknowledged.
    committed: Vec<u64>,
    compact: bool,
}

fn config(compact: bool) -> TopicConfig {
    TopicConfig {
        partitions: PARTITIONS as u32,
        compact,
        retention_bytes: (!compact).then_some(1_500),
        segment_bytes: 300,
        ..TopicConfig::default()
    }
}

/// Runs until something fails.
fn run(
    disk: &SimulatedDisk,
    clock: &Arc<SimulatedClock>,
    seed: u64,
    progress: &mut Progress,
) -> Result<(), TopicError> {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    progress.compact = seed % 2 == 1;
    let name = name("orders");
    topics(disk, clock).create(&name, config(progress.compact))?;
    // Two processes take turns.
    let processes = [topics(disk, clock), topics(disk, clock)];
    let open = [processes[0].open(&name)?, processes[1].open(&name)?];
    for _ in 0..STEPS {
        let topic = &open[chance.below(2) as usize];
        clock.advance(Duration::from_secs(1));
        match chance.below(10) {
            0..6 => step_append(topic, &mut chance, progress)?,
            6 | 7 => drop(topic.maintain()?),
            8 => {
                let offset = chance.below(10);
                progress.committed.push(offset);
                topic.commit(&group("g"), &[(0, offset)])?;
                progress.committed = vec![offset; 2];
            }
            _ => {
                for partition in 0..PARTITIONS {
                    let (start, _) = topic.bounds_blocking(partition as u32)?;
                    let found = read_all(topic, partition as u32)?;
                    check_records(&found, &progress.records[partition], start, progress.compact, "while it runs");
                }
            }
        }
    }
    Ok(())
}

fn step_append(topic: &Topic, chance: &mut Chance, progress: &mut Progress) -> Result<(), TopicError> {
    let mut appends = Vec::new();
    progress.on_its_way.clear();
    for partition in 0..PARTITIONS {
        if chance.below(3) == 0 {
            continue;
        }
        let first = progress.records[partition].len() as u64;
        let count = 1 + chance.below(4);
        let records: Vec<Record> = (first..first + count)
            .map(|offset| {
                let value = "v".repeat(chance.below(if chance.clone().below(9) == 0 { 700 } else { 40 }) as usize + 1);
                (offset, format!("k{}", chance.below(4)), format!("{offset}{value}"))
            })
            .collect();
        let pairs: Vec<(&str, &str)> = records.iter().map(|record| (&*record.1, &*record.2)).collect();
        let index = progress.produced[partition] + 1;
        let producer = Some(Producer { name: "job/sink/0/1".into(), epoch: 1, index });
        appends.push(Append { partition: partition as u32, rows: rows(&pairs), producer });
        progress.on_its_way.push((partition, records, index));
    }
    let appended = topic.append_blocking(&appends)?;
    assert!(appended.iter().all(|appended| !appended.duplicate));
    for (partition, records, index) in progress.on_its_way.drain(..) {
        progress.records[partition].extend(records);
        progress.produced[partition] = index;
    }
    Ok(())
}

fn check_records(found: &[Record], expected: &[Record], start: u64, compact: bool, what: &str) {
    let there = expected.iter().filter(|record| record.0 >= start);
    if compact {
        let mut found = found.iter().peekable();
        for record in there {
            if found.next_if(|next| *next == record).is_none() {
                let later = expected.iter().any(|other| other.0 > record.0 && other.1 == record.1);
                assert!(later, "{what}: {record:?} is gone");
            }
        }
        assert_eq!(found.next(), None, "{what}: never appended");
    } else {
        assert!(found.iter().eq(there), "{what}: {found:?} is not {expected:?} from {start} on");
    }
}

/// Opens what a crash left, crashing again now and then, and goes on.
fn check(disk: &SimulatedDisk, clock: &Arc<SimulatedClock>, progress: &Progress, seed: u64, what: &str) {
    let name = name("orders");
    let mut chance = Chance(seed);
    let mut disk = disk.clone();
    if chance.below(3) == 0 {
        disk.fail_at(1 + chance.below(30), Fault::Stop, seed);
        let first = topics(&disk, clock).open(&name).and_then(|topic| read_all(&topic, 0));
        disk = disk.crashed(seed ^ 1);
        if let Ok(first) = first {
            let topic = topics(&disk, clock).open(&name).unwrap_or_else(|error| panic!("{what}: {error}"));
            let again = read_all(&topic, 0).unwrap_or_else(|error| panic!("{what}, opened twice: {error}"));
            // What was never acknowledged may still come to light.
            assert!(again.starts_with(&first), "{what}: what was read once is gone after a second crash");
        }
    }
    let topic = match topics(&disk, clock).open(&name) {
        // It was never made.
        Err(TopicError::Missing { .. }) if progress.records.iter().all(Vec::is_empty) => return,
        opened => opened.unwrap_or_else(|error| panic!("{what}: {error}")),
    };
    for partition in 0..PARTITIONS {
        let mut expected = progress.records[partition].clone();
        let (start, end) = topic.bounds_blocking(partition as u32).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = read_from(&topic, partition as u32, start, crate::common::ALL);
        let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
        let on_its_way = progress.on_its_way.iter().find(|(other, ..)| *other == partition);
        let there = end > expected.len() as u64;
        if let Some((_, records, _)) = on_its_way.filter(|_| there) {
            expected.extend(records.iter().cloned());
        }
        assert_eq!(end, expected.len() as u64, "{what}: partition {partition} ends elsewhere");
        check_records(&found, &expected, start, progress.compact, what);
        // The producer does not know, and tries again: it is there once.
        if let Some((_, records, index)) = on_its_way {
            let pairs: Vec<(&str, &str)> = records.iter().map(|record| (&*record.1, &*record.2)).collect();
            let producer = Some(Producer { name: "job/sink/0/1".into(), epoch: 1, index: *index });
            let again = Append { partition: partition as u32, rows: rows(&pairs), producer };
            let appended = topic.append_blocking(&[again]).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(appended[0].duplicate, there, "{what}");
        }
        let more = topic.append_blocking(&[append(partition as u32, &[("more", "more")])]);
        let more = more.unwrap_or_else(|error| panic!("{what}: {error}"))[0];
        let read = read_from(&topic, partition as u32, more.first, crate::common::ALL).expect("reads");
        assert_eq!(read, [(more.first, "more".into(), "more".into())], "{what}");
    }
    let committed = topic.committed(&group("g")).unwrap_or_else(|error| panic!("{what}: {error}"));
    match (committed.first(), &*progress.committed) {
        (None, [] | [_]) => {}
        (None, several) => panic!("{what}: the group's offset is gone, it was one of {several:?}"),
        (Some((_, offset)), some) => assert!(some.contains(offset), "{what}: {offset} is not one of {some:?}"),
    }
    topic.maintain().unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    let mut states = 0;
    for seed in 0..WORKLOADS {
        let whole = SimulatedDisk::default();
        run(&whole, &clock(), seed, &mut Progress::default()).expect("runs");
        for fault in [Fault::Stop, Fault::Io, Fault::Full] {
            for operation in 1..=whole.operations() {
                let (disk, clock) = (SimulatedDisk::default(), clock());
                disk.fail_at(operation, fault, seed << 20 | operation);
                let mut progress = Progress::default();
                // Where it stops is in the progress.
                let _stopped = run(&disk, &clock, seed, &mut progress);
                let crashes = if fault == Fault::Stop { CRASHES_PER_STOP } else { 1 };
                for crash in 0..crashes {
                    let what = format!("workload {seed}, operation {operation}, {fault:?}, crash {crash}");
                    let seed = seed << 40 | operation << 20 | crash;
                    check(&disk.crashed(seed), &clock, &progress, seed, &what);
                    states += 1;
                }
                if fault != Fault::Stop {
                    let what = format!("workload {seed}, operation {operation}, {fault:?}, killed");
                    check(&disk.killed(), &clock, &progress, operation, &what);
                    states += 1;
                }
            }
        }
    }
    assert!(states >= STATES_MIN, "only {states} states");
}

#[test]
fn every_flipped_bit_is_seen_or_costs_what_was_appended_last() {
    let (disk, clock, name) = (SimulatedDisk::default(), clock(), name("orders"));
    let config = TopicConfig { segment_bytes: 200, ..TopicConfig::default() };
    let topic = topics(&disk, &clock).create(&name, config).expect("made");
    for value in ["one", "two", "three", "four", "five"] {
        topic.append_blocking(&[append(0, &[("key", value), ("other", value)])]).expect("appends");
    }
    topic.commit(&group("g"), &[(0, 4)]).expect("commits");
    let whole = read_all(&topic, 0).expect("reads");
    let mut bits = 0;
    for (path, bytes) in disk.files() {
        for bit in 0..bytes.len() * 8 {
            let disk = disk.killed();
            disk.flip_bit(&path, bit).expect("a bit");
            let read = topics(&disk, &clock).open(&name).and_then(|topic| {
                topic.committed(&group("g"))?;
                read_all(&topic, 0)
            });
            match read {
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Config), "{error}"),
                Ok(found) => {
                    assert_eq!(found, whole[..8], "bit {bit} of {}", path.display());
                }
            }
            bits += 1;
        }
    }
    assert!(bits > 5_000, "{bits} bits");
}

#[test]
fn full_disk_fails_the_append_and_the_next_one_succeeds() {
    let (disk, clock, name) = (SimulatedDisk::default(), clock(), name("orders"));
    let topic = topics(&disk, &clock).create(&name, TopicConfig::default()).expect("made");
    topic.append_blocking(&[append(0, &[("k", "1")])]).expect("appends");
    let before = disk.operations();
    topic.append_blocking(&[append(0, &[("k", "2")])]).expect("appends");
    for operation in 1..=disk.operations() - before {
        disk.fail_at(operation, Fault::Full, operation);
        let error = topic.append_blocking(&[append(0, &[("k", "lost")])]).expect_err("the disk is full");
        assert_eq!(error.kind(), ErrorKind::Full);
    }
    topic.append_blocking(&[append(0, &[("k", "3")])]).expect("there is room again");
    let values: Vec<String> = read_all(&topic, 0).expect("reads").into_iter().map(|record| record.2).collect();
    assert_eq!(values, ["1", "2", "3"]);
}
