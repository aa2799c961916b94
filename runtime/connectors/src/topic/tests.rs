use std::path::Path;
use std::sync::Arc;

use wasmill_contract::{BatchLimit, ConnectorError, SinkFactory, Source, SourceEvent, SourceFactory};
use wasmill_env::{Clock, RealClock};
use wasmill_model::{BatchBuilder, Epoch, GroupName, Timestamp, TopicName};
use wasmill_store::{Append, ReadLimit, Topic, TopicConfig};

use crate::Site;
use crate::conformance::{SinkCase, SourceCase, check_sink, check_source};

const LIMIT: BatchLimit = BatchLimit { rows: 100, bytes: 1 << 20 };

fn site(dir: &Path) -> Site {
    Site::alone(dir)
}

fn name() -> TopicName {
    TopicName::new("orders").expect("a name")
}

fn source(dir: &Path, options: &str) -> Arc<dyn SourceFactory> {
    crate::source("topic", options.parse().expect("valid TOML"), &site(dir)).expect("valid options")
}

fn sink(dir: &Path, options: &str) -> Arc<dyn SinkFactory> {
    crate::sink("topic", options.parse().expect("valid TOML"), &site(dir)).expect("valid options")
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(RealClock::default())
}

fn fill(topic: &Topic, rows: usize) {
    for first in (0..rows).step_by(10) {
        let mut batch = BatchBuilder::default();
        for row in first..rows.min(first + 10) {
            batch.push(Timestamp(row as i64), format!("k{}", row % 5).as_bytes(), format!("row {row}").as_bytes());
        }
        let dealt = topic.deal(&batch.finish(0), 0).into_iter();
        let appends: Vec<_> = dealt.map(|(partition, rows)| Append { partition, rows, producer: None }).collect();
        topic.append_blocking(&appends).expect("appends");
    }
}

fn made(dir: &Path, config: TopicConfig) -> Arc<Topic> {
    site(dir).topics.create(&name(), config).expect("made")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_keeps_its_contract() {
    for compact in [false, true] {
        let dir = tempfile::tempdir().expect("a folder");
        let topic =
            made(dir.path(), TopicConfig { partitions: 3, compact, segment_bytes: 400, ..TopicConfig::default() });
        fill(&topic, 100);
        if compact {
            topic.maintain().expect("compacts");
        }
        check_source(SourceCase {
            make: &|| source(dir.path(), "topic = 'orders'\nuntil = 'end'"),
            clock: clock(),
            rows: None,
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sink_keeps_its_contract() {
    let dir = tempfile::tempdir().expect("a folder");
    let topics = site(dir.path()).topics;
    check_sink(SinkCase {
        make: &|| sink(dir.path(), "topic = 'orders'\npartitions = 1"),
        visible: &|| {
            let Ok(topic) = topics.open(&name()) else { return Vec::new() };
            let all = ReadLimit { rows: usize::MAX, bytes: usize::MAX };
            topic.read_blocking(0, 0, all).expect("reads").rows.values().iter().map(<[u8]>::to_vec).collect()
        },
        reset: &|| drop(topics.delete(&name())),
        clock: clock(),
        rows: 23,
    })
    .await;
}

async fn open(dir: &Path, options: &str) -> Result<Box<dyn Source>, ConnectorError> {
    let factory = source(dir, options);
    let partitions = factory.partitions().await?;
    factory.open(partitions.into_iter().map(|partition| (partition.id, None)).collect(), clock()).await
}

async fn values(source: &mut dyn Source, count: usize) -> Vec<String> {
    let mut found = Vec::new();
    while found.len() < count {
        if let SourceEvent::Rows(rows) = source.next(LIMIT).await.expect("reads") {
            found.extend(rows.values().iter().map(|value| String::from_utf8(value.to_vec()).expect("text")));
        }
    }
    found
}

#[tokio::test]
async fn following_source_gets_what_is_appended_later() {
    let dir = tempfile::tempdir().expect("a folder");
    let topic = made(dir.path(), TopicConfig::default());
    fill(&topic, 3);
    let mut latest = open(dir.path(), "topic = 'orders'\nfrom = 'latest'").await.expect("opens");
    let mut earliest = open(dir.path(), "topic = 'orders'").await.expect("opens");
    assert_eq!(values(&mut *earliest, 3).await, ["row 0", "row 1", "row 2"]);
    fill(&topic, 2);
    assert_eq!(values(&mut *latest, 2).await, ["row 0", "row 1"]);
    assert_eq!(values(&mut *earliest, 2).await, ["row 0", "row 1"]);
}

#[tokio::test]
async fn group_goes_on_behind_the_last_acknowledged_epoch() {
    let dir = tempfile::tempdir().expect("a folder");
    let topic = made(dir.path(), TopicConfig::default());
    fill(&topic, 4);
    let options = "topic = 'orders'\ngroup = 'billing'";
    let mut first = open(dir.path(), options).await.expect("opens");
    assert_eq!(values(&mut *first, 4).await.len(), 4);
    let of_epoch = first.positions();
    fill(&topic, 1);
    values(&mut *first, 1).await;
    first.acknowledge(Epoch(1), &of_epoch).await.expect("acknowledges");
    drop(first);
    let group = GroupName::new("billing").expect("a name");
    assert_eq!(topic.committed(&group).expect("reads"), [(0, 4)]);
    let mut second = open(dir.path(), options).await.expect("opens");
    assert_eq!(values(&mut *second, 1).await, ["row 0"]);
}

#[tokio::test]
async fn what_retention_removed_fails_the_job_unless_it_says_otherwise() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = TopicConfig { retention_bytes: Some(1), segment_bytes: 1, ..TopicConfig::default() };
    let topic = made(dir.path(), config);
    topic.commit(&GroupName::new("g").expect("a name"), &[(0, 0)]).expect("commits");
    fill(&topic, 30);
    topic.maintain().expect("tidies up");
    let mut strict = open(dir.path(), "topic = 'orders'\ngroup = 'g'").await.expect("opens");
    let error = strict.next(LIMIT).await.expect_err("records are gone").to_string();
    assert_eq!(
        error,
        "offset 0 of partition 0 of topic orders is gone: retention has removed what came before offset 20; \
         `gone = \"earliest\"` goes on from there"
    );
    let mut lenient = open(dir.path(), "topic = 'orders'\ngroup = 'g'\ngone = 'earliest'").await.expect("opens");
    assert_eq!(values(&mut *lenient, 1).await[0], "row 20");
}

#[tokio::test]
async fn missing_topic_says_how_to_make_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let error = open(dir.path(), "topic = 'orders'").await.err().expect("refused").to_string();
    assert!(error.ends_with("/topics; `wasmill topic create orders` makes it"), "{error}");
}

#[test]
fn wrong_options_are_named() {
    let error = |options: &str| {
        let options = options.parse().expect("valid TOML");
        crate::source("topic", options, &site(Path::new("/"))).err().expect("refused")
    };
    for (options, key) in [
        ("topic = 'Orders'", "topic"),
        ("topic = 'a'\npartitions = []", "partitions"),
        ("topic = 'a'\npartitions = [1, 1]", "partitions"),
        ("topic = 'a'\ngroup = ''", "group"),
        ("topic = 'a'\nuntil = 'never'", "until"),
    ] {
        assert_eq!(error(options).key.as_deref(), Some(key), "{options}");
    }
}
