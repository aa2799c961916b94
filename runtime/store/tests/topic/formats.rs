//! Files of topics that an older Wasmill wrote must be read for good.
//!
//! A version is frozen with its release: changed bytes need a new version and a new folder, made by
//! `WASMILL_WRITE_FIXTURES=1 cargo test -p wasmill-store --test topic formats`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmill_env::SimulatedDisk;
use wasmill_model::Column;
use wasmill_store::{Append, TopicConfig};

use crate::common::{DIR, append, clock, group, name, producer, read_all, rows, topics};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/topic-v1")
}

/// A compacted segment, a plain one, producers, headers, and a group.
fn written() -> SimulatedDisk {
    let (disk, clock) = (SimulatedDisk::default(), clock());
    let config = TopicConfig {
        partitions: 2,
        retention_micros: Some(86_400_000_000),
        retention_bytes: Some(1 << 40),
        compact: true,
        segment_bytes: 150,
        ..TopicConfig::default()
    };
    let topic = topics(&disk, &clock).create(&name("orders"), config).expect("made");
    let headers: Column = [&b""[..], b"trace=7"].iter().collect();
    let with_headers = rows(&[("a", "1"), ("b", "1")]).with_headers(Some(Arc::new(headers)));
    let by = |partition, epoch, index| Append {
        partition,
        rows: with_headers.clone(),
        producer: producer("job/sink/0/5f", epoch, index),
    };
    topic.append_blocking(&[by(0, 1, 2), by(1, 300, 0)]).expect("appends");
    topic.append_blocking(&[append(0, &[("a", "2"), ("", "no key")])]).expect("appends");
    topic.append_blocking(&[append(0, &[("c", "")])]).expect("appends");
    topic.maintain().expect("compacts");
    topic.append_blocking(&[by(0, 2, 0)]).expect("appends");
    topic.commit(&group("billing"), &[(1, 2), (0, 300)]).expect("commits");
    disk
}

pub(crate) fn stored() -> SimulatedDisk {
    let disk = SimulatedDisk::default();
    for file in fs::read_dir(fixtures()).expect("the fixture") {
        let file = file.expect("lists");
        let name = file.file_name().into_string().expect("text");
        disk.put(&Path::new(DIR).join(name.replace("--", "/")), fs::read(file.path()).expect("reads"));
    }
    disk
}

/// Without locks, which hold nothing.
fn files(disk: &SimulatedDisk) -> Vec<(PathBuf, Vec<u8>)> {
    disk.files().into_iter().filter(|(path, _)| !path.ends_with("lock") && !path.ends_with("compaction-lock")).collect()
}

#[test]
fn files_of_version_1_are_what_is_written() {
    let disk = written();
    if std::env::var_os("WASMILL_WRITE_FIXTURES").is_some() {
        fs::create_dir_all(fixtures()).expect("a folder");
        for (path, bytes) in files(&disk) {
            let name = path.strip_prefix(DIR).expect("in the folder").to_str().expect("text").replace('/', "--");
            fs::write(fixtures().join(name), bytes).expect("writes");
        }
    }
    assert!(files(&disk) == files(&stored()), "bytes on disk have changed: that takes a new version");
}

#[test]
fn files_of_version_1_are_read() {
    let topics = topics(&stored(), &clock());
    assert_eq!(topics.list().expect("lists"), [name("orders")]);
    let topic = topics.open(&name("orders")).expect("opens");
    assert_eq!(topic.config().retention_bytes, Some(1 << 40));
    let record = |offset, key: &str, value: &str| (offset, key.to_owned(), value.to_owned());
    let expected = [
        record(1, "b", "1"),
        record(2, "a", "2"),
        record(3, "", "no key"),
        record(4, "c", ""),
        record(5, "a", "1"),
        record(6, "b", "1"),
    ];
    assert_eq!(read_all(&topic, 0).expect("reads"), expected);
    assert_eq!(read_all(&topic, 1).expect("reads"), [record(0, "a", "1"), record(1, "b", "1")]);
    let last = topic.read_blocking(0, 6, crate::common::ALL).expect("reads").rows;
    assert_eq!(last.headers().expect("headers").row(0), b"trace=7");
    assert_eq!(**last.times(), [500]);
    assert_eq!(topic.groups().expect("lists"), [group("billing")]);
    assert_eq!(topic.committed(&group("billing")).expect("reads"), [(0, 300), (1, 2)]);
    let again = |epoch, index| Append {
        partition: 1,
        rows: rows(&[("x", "x")]),
        producer: producer("job/sink/0/5f", epoch, index),
    };
    let appended = topic.append_blocking(&[again(300, 0), again(300, 1)]).expect("appends");
    assert!(appended[0].duplicate && !appended[1].duplicate);
}

#[test]
fn file_of_a_newer_version_is_refused_as_such() {
    let disk = stored();
    let path = Path::new(DIR).join("orders.topic");
    let mut bytes = disk.files()[&path].clone();
    bytes[8] = 2;
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[..24]);
    bytes[24..32].copy_from_slice(&checksum.to_le_bytes());
    disk.put(&path, bytes);
    let error = topics(&disk, &clock()).open(&name("orders")).expect_err("a newer version");
    let said = "/topics/orders.topic has format version 2, this program reads up to 1: use a newer one";
    assert_eq!(error.to_string(), said);
}
