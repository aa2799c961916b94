//! Many at once: callers in one process, and several processes on a real disk.

use std::path::Path;
use std::sync::Arc;

use wasmill_env::{Clock, Disk, RealClock, RealDisk, SimulatedDisk};
use wasmill_store::{TopicConfig, Topics, assigned};

use crate::common::{append, clock, group, name, read_all, topics};

fn real(dir: &Path) -> Topics {
    Topics::new(Arc::new(RealDisk), dir, Arc::new(RealClock::default()) as Arc<dyn Clock>)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appends_share_writes_and_keep_their_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let topic = real(dir.path()).create(&name("t"), TopicConfig::default()).expect("made");
    let callers = (0..20).map(|caller| {
        let topic = Arc::clone(&topic);
        tokio::spawn(async move {
            for number in 0..20 {
                let key = format!("caller-{caller}");
                let appended = topic.append(vec![append(0, &[(&key, &number.to_string())])]).await.expect("appends");
                assert_eq!(appended[0].end, appended[0].first + 1);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("ends");
    }
    let records = read_all(&topic, 0).expect("reads");
    assert!((0..400).eq(records.iter().map(|record| record.0)));
    for caller in 0..20 {
        let of_caller = records.iter().filter(|record| record.1 == format!("caller-{caller}"));
        assert!((0..20).map(|number| number.to_string()).eq(of_caller.map(|record| record.2.clone())));
    }
}

#[test]
fn several_processes_append_to_one_topic() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = TopicConfig { segment_bytes: 2_000, ..TopicConfig::default() };
    real(dir.path()).create(&name("t"), config).expect("made");
    let read = std::thread::scope(|scope| {
        for process in 0..3 {
            let dir = dir.path();
            scope.spawn(move || {
                let topic = real(dir).open(&name("t")).expect("opens");
                for number in 0..50 {
                    let key = process.to_string();
                    topic.append_blocking(&[append(0, &[(&key, &number.to_string())])]).expect("appends");
                }
            });
        }
        // A reader beside sees whole records, in order, each once.
        let topic = real(dir.path()).open(&name("t")).expect("opens");
        let (mut next, mut read) = (0, Vec::new());
        while next < 150 {
            let fetched = topic.read_blocking(0, next, crate::common::ALL).expect("reads");
            read.extend(fetched.rows.lineage().expect("offsets").offsets.iter().copied());
            next = fetched.next;
        }
        read
    });
    assert!((0..150).eq(read));
    let records = read_all(&real(dir.path()).open(&name("t")).expect("opens"), 0).expect("reads");
    for process in 0..3 {
        let of_process = records.iter().filter(|record| record.1 == process.to_string());
        assert!((0..50).map(|number| number.to_string()).eq(of_process.map(|record| record.2.clone())));
    }
}

#[tokio::test]
async fn waiting_reader_wakes_with_the_append() {
    let (disk, clock) = (SimulatedDisk::default(), clock());
    let topics = topics(&disk, &clock);
    let topic = topics.create(&name("t"), TopicConfig { partitions: 2, ..TopicConfig::default() }).expect("made");
    // The same topic, for everybody in this process.
    let other = topics.open(&name("t")).expect("opens");
    assert!(Arc::ptr_eq(&topic, &other));
    // The reader waits first, and wakes although the clock stands still.
    let ends = [(0, 0), (1, 0)];
    let (woken, appended) = tokio::join!(biased; topic.wait(&ends), other.append(vec![append(1, &[("k", "v")])]));
    woken.expect("wakes");
    appended.expect("appends");
}

#[test]
fn members_share_the_partitions_and_hand_them_over() {
    for members in 1..6 {
        let mut all: Vec<u32> = (0..members).flat_map(|place| assigned(place, members, 8)).collect();
        all.sort_unstable();
        assert!((0..8).eq(all), "{members} members");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let topic = real(dir.path()).create(&name("t"), TopicConfig { partitions: 4, ..TopicConfig::default() });
    let topic = topic.expect("made");
    let mut first = topic.join(&group("g")).expect("joins");
    assert_eq!(first.rebalance().expect("looks"), []);
    assert_eq!(first.partitions().collect::<Vec<_>>(), [0, 1, 2, 3]);
    let mut second = real(dir.path()).open(&name("t")).expect("opens").join(&group("g")).expect("joins");
    second.rebalance().expect("looks");
    assert_eq!(second.partitions().count(), 0, "the first one has not let go");
    let over = first.rebalance().expect("looks");
    assert_eq!(over.len(), 2);
    over.into_iter().for_each(|partition| first.release(partition));
    second.rebalance().expect("looks");
    let mut all: Vec<u32> = first.partitions().chain(second.partitions()).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    // Another group has everything for itself.
    let mut fan_out = topic.join(&group("other")).expect("joins");
    fan_out.rebalance().expect("looks");
    assert_eq!(fan_out.partitions().count(), 4);
    drop(first);
    second.rebalance().expect("looks");
    assert_eq!(second.partitions().count(), 4);
}

#[test]
fn a_process_alone_keeps_topics_open_that_were_used_last() {
    let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::default());
    let topics = Topics::alone(disk, Path::new("/topics"), clock(), Arc::new(|_| {}));
    let make = |text: &str| Arc::downgrade(&topics.create(&name(text), TopicConfig::default()).expect("made"));
    let (first, deleted) = (make("first"), make("deleted"));
    assert!(first.upgrade().is_some() && deleted.upgrade().is_some(), "nobody uses them, and they are open");
    topics.delete(&name("deleted")).expect("deleted");
    assert!(deleted.upgrade().is_none());
    let others: Vec<_> = (0..64).map(|number| make(&format!("t{number}"))).collect();
    assert!(first.upgrade().is_none(), "others were used since");
    assert!(others.iter().all(|topic| topic.upgrade().is_some()));
}
