//! Random work on a topic by two processes, against a naive model.

use std::time::Duration;

use proptest::prelude::*;
use wasmill_env::{Clock as _, SimulatedDisk};
use wasmill_store::{Append, Producer, ReadLimit, TopicConfig, TopicError};

use crate::common::{append, clock, group, name, producer, read_all, read_from, rows, topics};

#[derive(Debug, Clone)]
enum Step {
    /// By which process, to which partition, how many rows, by which producer how far on.
    Append(usize, u32, usize, Option<(u8, u64)>),
    Advance(u64),
    Maintain(usize),
    Read(usize, u32, u64, usize),
    Commit(usize, u32, u64),
    Reopen(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let producer = proptest::option::of((0..3_u8, 0..3_u64));
    prop_oneof![
        6 => (0..2_usize, 0..2_u32, 1..6_usize, producer).prop_map(|(p, at, rows, by)| Step::Append(p, at, rows, by)),
        2 => (1..40_u64).prop_map(Step::Advance),
        2 => (0..2_usize).prop_map(Step::Maintain),
        3 => (0..2_usize, 0..2_u32, 0..40_u64, 1..5_usize).prop_map(|(p, at, from, n)| Step::Read(p, at, from, n)),
        1 => (0..2_usize, 0..2_u32, 0..40_u64).prop_map(|(p, at, offset)| Step::Commit(p, at, offset)),
        1 => (0..2_usize).prop_map(Step::Reopen),
    ]
}

fn config(compact: bool) -> TopicConfig {
    TopicConfig {
        partitions: 2,
        retention_micros: (!compact).then_some(100_000_000),
        retention_bytes: (!compact).then_some(2_000),
        compact,
        tombstone_grace_micros: 50_000_000,
        segment_bytes: 300,
    }
}

type Record = (u64, String, String);

/// Every record there ever was.
#[derive(Debug, Default)]
struct Model {
    records: Vec<Record>,
    producers: std::collections::HashMap<String, (u64, u64)>,
}

impl Model {
    /// What a reader may find from `start` on: all of it, or with compaction at least the last record of
    /// each key, in order, and nothing else. A tombstone may be gone.
    fn allows(&self, found: &[Record], start: u64, compact: bool) -> Result<(), String> {
        let there: Vec<&Record> = self.records.iter().filter(|record| record.0 >= start).collect();
        if !compact {
            return if found.iter().eq(there.iter().copied()) {
                Ok(())
            } else {
                Err(format!("{found:?}, not {there:?}"))
            };
        }
        let mut found = found.iter().peekable();
        for record in there {
            if found.next_if(|next| *next == record).is_some() {
                continue;
            }
            let later = self.records.iter().any(|other| other.0 > record.0 && other.1 == record.1);
            if !later && !record.2.is_empty() {
                return Err(format!("{record:?} is the last of its key and is not there"));
            }
        }
        found.next().map_or(Ok(()), |other| Err(format!("{other:?} was never there")))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn topic_holds_what_the_model_says(steps in proptest::collection::vec(step(), 1..60), compact in any::<bool>()) {
        let (disk, clock, name) = (SimulatedDisk::default(), clock(), name("orders"));
        let mut processes = [topics(&disk, &clock), topics(&disk, &clock)];
        processes[0].create(&name, config(compact)).expect("made");
        let mut open = [processes[0].open(&name).expect("opens"), processes[1].open(&name).expect("opens")];
        let mut models = [Model::default(), Model::default()];
        let mut committed = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Append(process, partition, count, by) => {
                    let model = &mut models[partition as usize];
                    let first = model.records.len() as u64;
                    let mut of = Vec::new();
                    for offset in first..first + count as u64 {
                        // Keys repeat, and some values are tombstones.
                        let key = if offset % 7 == 6 { String::new() } else { format!("k{}", offset % 4) };
                        of.push((key, if offset % 5 == 4 { String::new() } else { format!("v{offset}") }));
                    }
                    let pairs: Vec<(&str, &str)> = of.iter().map(|(key, value)| (&**key, &**value)).collect();
                    let mut known = false;
                    let producer = by.and_then(|(who, on)| {
                        let who = format!("producer-{who}");
                        let last = model.producers.entry(who.clone()).or_insert((1, 0));
                        known = on == 0 && *last > (1, 0);
                        *last = if on == 2 { (last.0 + 1, 0) } else { (last.0, last.1 + u64::from(!known)) };
                        producer(&who, last.0, last.1)
                    });
                    let appends = [Append { partition, rows: rows(&pairs), producer }];
                    let appended = open[process].append_blocking(&appends).expect("appends")[0];
                    prop_assert_eq!(appended.duplicate, known);
                    prop_assert_eq!(appended.first, first);
                    if !known {
                        prop_assert_eq!(appended.end, first + count as u64);
                        model.records.extend((first..).zip(of).map(|(offset, (key, value))| (offset, key, value)));
                    }
                }
                Step::Advance(seconds) => clock.advance(Duration::from_secs(seconds)),
                Step::Maintain(process) => drop(open[process].maintain().expect("tidies up")),
                Step::Read(process, partition, from, count) => {
                    let (topic, model) = (&open[process], &models[partition as usize]);
                    let (start, end) = topic.bounds_blocking(partition).expect("bounds");
                    prop_assert_eq!(end, model.records.len() as u64);
                    match read_from(topic, partition, from, ReadLimit { rows: count, bytes: 20 }) {
                        Ok(found) => {
                            prop_assert!(start <= from && from <= end);
                            prop_assert_eq!(model.allows(&found, from, compact), Ok(()));
                        }
                        Err(TopicError::Gone { start: said, .. }) => prop_assert!(from < start && said == start),
                        Err(TopicError::Beyond { end: said, .. }) => prop_assert!(from > end && said == end),
                        Err(error) => prop_assert!(false, "{}", error),
                    }
                }
                Step::Commit(process, partition, offset) => {
                    open[process].commit(&group("readers"), &[(partition, offset)]).expect("commits");
                    committed.insert(partition, offset);
                }
                Step::Reopen(process) => {
                    processes[process] = topics(&disk, &clock);
                    open[process] = processes[process].open(&name).expect("opens");
                }
            }
        }
        for topic in &open {
            for partition in 0..2 {
                let (start, _) = topic.bounds_blocking(partition).expect("bounds");
                let found = read_all(topic, partition).expect("reads");
                prop_assert_eq!(models[partition as usize].allows(&found, start, compact), Ok(()));
            }
            let groups = topic.committed(&group("readers")).expect("reads");
            prop_assert_eq!(groups, committed.clone().into_iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn retention_by_size_and_by_age_bounds_a_partition() {
    let (disk, clock, name) = (SimulatedDisk::default(), clock(), name("t"));
    let topic = topics(&disk, &clock).create(&name, TopicConfig { partitions: 1, ..config(false) }).expect("made");
    for _ in 0..100 {
        topic.append_blocking(&[append(0, &[("key", "0123456789")])]).expect("appends");
        topic.maintain().expect("tidies up");
        let stats = topic.stats().expect("figures")[0];
        assert!(stats.bytes < 2_000 + 2 * 300 + 200, "{stats:?}");
    }
    let stats = topic.stats().expect("figures")[0];
    assert!(stats.start > 50 && stats.end == 100, "{stats:?}");
    clock.advance(Duration::from_secs(1_000));
    topic.maintain().expect("tidies up");
    assert_eq!(topic.bounds_blocking(0).expect("bounds"), (100, 100), "everything is too old");
    assert!(topic.stats().expect("figures")[0].bytes < 200);
    topic.append_blocking(&[append(0, &[("key", "new")])]).expect("appends");
    assert_eq!(read_all(&topic, 0).expect("reads"), [(100, "key".into(), "new".into())]);
}

#[test]
fn what_one_reader_needs_no_more_is_trimmed_by_whole_segments() {
    let (disk, clock, name) = (SimulatedDisk::default(), clock(), name("t"));
    // A segment a record.
    let config = TopicConfig { partitions: 1, segment_bytes: 1, ..TopicConfig::default() };
    let topic = topics(&disk, &clock).create(&name, config).expect("made");
    let mut appended = Vec::new();
    for number in 0..6 {
        appended.push(clock.wall().0);
        topic.append_blocking(&[append(0, &[("key", &number.to_string())])]).expect("appends");
        clock.advance(Duration::from_secs(1));
    }
    let start = |before, until| {
        topic.trim_blocking(0, before, until).expect("trims");
        topic.bounds_blocking(0).expect("bounds").0
    };
    assert_eq!(start(2, i64::MAX), 2, "not behind the offset");
    assert_eq!(start(6, appended[2]), 3, "not what is younger");
    assert_eq!(start(100, i64::MAX), 5, "never the last segment");
    let again = topics(&disk, &clock).open(&name).expect("opens");
    assert_eq!(again.bounds_blocking(0).expect("bounds"), (5, 6));
    assert!(again.read_blocking(0, 4, ReadLimit { rows: 1, bytes: 1 }).is_err());
}

#[test]
fn compaction_keeps_the_last_record_of_each_key_and_tombstones_for_their_grace() {
    let (disk, clock, name) = (SimulatedDisk::default(), clock(), name("t"));
    let config = TopicConfig { segment_bytes: 1, partitions: 1, ..config(true) };
    let topic = topics(&disk, &clock).create(&name, config).expect("made");
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("", "no key"), ("b", ""), ("c", "1"), ("end", "")] {
        topic.append_blocking(&[append(0, &[(key, value)])]).expect("appends");
    }
    let offsets = || read_all(&topic, 0).expect("reads").iter().map(|record| record.0).collect::<Vec<_>>();
    // A reader in the middle of what goes away does not notice.
    let slow = topics(&disk, &clock).open(&name).expect("opens");
    assert_eq!(slow.read_blocking(0, 0, ReadLimit { rows: 1, bytes: 1 }).expect("reads").next, 1);
    let done = topic.maintain().expect("tidies up");
    assert_eq!((done.compacted_segments, done.records_removed), (6, 2));
    assert_eq!(offsets(), [2, 3, 4, 5, 6]);
    let rest = read_from(&slow, 0, 1, ReadLimit { rows: 1, bytes: 1 }).expect("reads");
    assert_eq!(rest.first().map(|record| record.0), Some(2));
    assert_eq!(topic.maintain().expect("tidies up").compacted_segments, 0, "there is nothing to do");
    clock.advance(Duration::from_secs(51));
    topic.maintain().expect("tidies up");
    assert_eq!(offsets(), [2, 3, 5, 6], "the tombstone of b is gone; the last segment stays");
}

#[test]
fn what_a_topic_cannot_be_or_do_is_said() {
    let (disk, clock, name) = (SimulatedDisk::default(), clock(), name("t"));
    let topics = topics(&disk, &clock);
    let said = |error: TopicError| error.to_string();
    assert_eq!(said(topics.open(&name).expect_err("nothing")), "there is no topic t in /topics");
    let wrong = |config| said(topics.create(&name, config).expect_err("refused"));
    assert_eq!(
        wrong(TopicConfig { partitions: 0, ..TopicConfig::default() }),
        "a topic has 1 to 256 partitions, not 0"
    );
    let topic = topics.create(&name, TopicConfig::default()).expect("made");
    assert_eq!(wrong(TopicConfig::default()), "topic t exists already");
    let appended = topic.append_blocking(&[append(1, &[("k", "v")])]);
    assert_eq!(said(appended.expect_err("refused")), "topic t has partitions 0 to 0, not 1");
    let beyond = topic.read_blocking(0, 7, crate::common::ALL).expect_err("refused");
    assert_eq!(said(beyond), "offset 7 of partition 0 of topic t does not exist: the partition ends at 0");
    assert_eq!(topics.list().expect("lists"), std::slice::from_ref(&name));
    topics.delete(&name).expect("deletes");
    assert!(topics.list().expect("lists").is_empty());
    let again = topics.create(&name, TopicConfig::default());
    assert_eq!(again.expect("made").bounds_blocking(0).expect("bounds"), (0, 0));
}

#[test]
fn producers_that_are_silent_longest_are_forgotten() {
    let (disk, clock, name) = (SimulatedDisk::default(), clock(), name("t"));
    let topic = topics(&disk, &clock).create(&name, TopicConfig::default()).expect("made");
    let by = |number: u64| {
        let producer = Some(Producer { name: format!("p{number}").into(), epoch: 1, index: 0 });
        Append { partition: 0, rows: rows(&[("k", "v")]), producer }
    };
    for number in 0..1_001 {
        topic.append_blocking(&[by(number)]).expect("appends");
    }
    assert_eq!(topic.stats().expect("figures")[0].producers, 1_000);
    let appended = topic.append_blocking(&[by(0), by(2), by(1_000)]).expect("appends");
    assert_eq!(appended.map_duplicates(), [false, true, true]);
}

trait Duplicates {
    fn map_duplicates(&self) -> Vec<bool>;
}

impl Duplicates for Vec<wasmill_store::Appended> {
    fn map_duplicates(&self) -> Vec<bool> {
        self.iter().map(|appended| appended.duplicate).collect()
    }
}
