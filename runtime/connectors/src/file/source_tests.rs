use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use wasmill_contract::{BatchLimit, Bounds, ConnectorError, Source, SourceEvent, SourceFactory};
use wasmill_env::{Clock, RealClock};
use wasmill_model::{ErrorKind, PartitionId};

use crate::conformance::{SourceCase, check_source};

const LIMIT: BatchLimit = BatchLimit { rows: 4_096, bytes: 1 << 20 };

fn factory(directory: &Path, options: &str) -> Arc<dyn SourceFactory> {
    crate::source("file", options.parse().expect("valid TOML"), &crate::Site::alone(directory)).expect("valid options")
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(RealClock::default())
}

async fn open(directory: &Path, options: &str) -> Box<dyn Source> {
    let factory = factory(directory, options);
    let partitions = factory.partitions().await.expect("lists");
    let assigned = partitions.into_iter().map(|partition| (partition.id, None)).collect();
    factory.open(assigned, clock()).await.expect("opens")
}

async fn texts(source: &mut dyn Source, rows: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < rows {
        match source.next(LIMIT).await.expect("reads") {
            SourceEvent::Rows(batch) => {
                texts.extend(batch.values().iter().map(|value| String::from_utf8_lossy(value).into_owned()));
            }
            SourceEvent::Malformed { reason, .. } => texts.push(format!("malformed: {reason}")),
            SourceEvent::PartitionEnd(_) => {}
            SourceEvent::End => break,
        }
    }
    texts
}

async fn error(directory: &Path, options: &str) -> ConnectorError {
    let factory = factory(directory, options);
    let partitions = match factory.partitions().await {
        Ok(partitions) => partitions,
        Err(error) => return error,
    };
    let assigned = partitions.into_iter().map(|partition| (partition.id, None)).collect();
    let mut source = match factory.open(assigned, clock()).await {
        Ok(source) => source,
        Err(error) => return error,
    };
    loop {
        match source.next(LIMIT).await {
            Err(error) => return error,
            Ok(SourceEvent::End) => panic!("the source ended without an error"),
            Ok(_) => {}
        }
    }
}

fn json_lines(rows: usize) -> String {
    (0..rows).map(|row| format!("{{\"row\":{row},\"text\":\"{}\"}}\n", "x".repeat(row % 50))).collect()
}

async fn conforms(files: &[(&str, &[u8])], options: &str) {
    let directory = TempDir::new().expect("a directory");
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).expect("written");
    }
    check_source(SourceCase { make: &|| factory(directory.path(), options), clock: clock(), rows: None }).await;
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("written to memory");
    encoder.finish().expect("written to memory")
}

#[tokio::test]
async fn the_file_source_conforms_on_plain_files() {
    let text = json_lines(500);
    conforms(&[("a.jsonl", text.as_bytes())], "path = 'a.jsonl'").await;
    let several: [(&str, &[u8]); 4] =
        [("a.jsonl", text.as_bytes()), ("b.jsonl", b"{}\r\n\r\n1"), ("c.jsonl", b""), ("d.txt", b"no")];
    conforms(&several, "path = '*.jsonl'").await;
    conforms(&several, "path = '*.jsonl'\norder = 'by-name'").await;
    conforms(&[("a", b"short\na line too long\n\nshort")], "path = 'a'\nrecord_bytes_max = '5B'").await;
}

#[tokio::test]
async fn the_file_source_conforms_on_compressed_files() {
    let text = json_lines(300);
    let members = [gzip(&text), gzip(&text)].concat();
    let frame = zstd::encode_all(text.as_bytes(), 1).expect("written to memory");
    conforms(&[("a.jsonl.gz", &members)], "path = 'a.jsonl.gz'").await;
    conforms(&[("a.zst", &frame)], "path = 'a.zst'\nformat = 'json-lines'").await;
    conforms(&[("a.dat", &frame)], "path = 'a.dat'\ncompression = 'zstd'").await;
}

#[tokio::test]
async fn the_file_source_conforms_on_csv() {
    let rows: String = (0..200).map(|row| format!("{row},\"a\n{row}\",NA\n")).collect();
    let text = format!("id,text,none\n{rows}1,2\n");
    conforms(&[("a.csv", text.as_bytes())], "path = 'a.csv'\nnull = ['NA']").await;
    let packed = gzip(&text.replace(',', "\t"));
    conforms(&[("a.tsv.gz", &packed)], "path = 'a.tsv.gz'\ntypes = 'text'").await;
}

#[tokio::test]
async fn the_format_and_the_compression_follow_from_the_name() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("a.tsv.gz"), gzip("id\tname\n1\ta,b\n")).expect("written");
    let mut source = open(directory.path(), "path = 'a.tsv.gz'").await;
    assert_eq!(texts(&mut *source, 9).await, [r#"{"id":1,"name":"a,b"}"#]);
}

#[tokio::test]
async fn partitions_keep_their_numbers_when_files_are_added() {
    let directory = TempDir::new().expect("a directory");
    for name in ["b.txt", "c.txt"] {
        std::fs::write(directory.path().join(name), "row\n").expect("written");
    }
    let factory = factory(directory.path(), "path = '*.txt'");
    assert_eq!(factory.capabilities().bounds, Bounds::Bounded);
    let before = factory.partitions().await.expect("lists");
    std::fs::write(directory.path().join("a.txt"), "row\n").expect("written");
    let after = factory.partitions().await.expect("lists");
    assert_eq!((before.len(), after.len()), (2, 3));
    assert!(before.iter().all(|partition| after.contains(partition)));
    assert_eq!(before[0].size, Some(4));
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_that_says_why() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path();
    std::fs::create_dir(path.join("sub")).expect("created");
    let mut packed = gzip(&json_lines(100));
    packed.truncate(packed.len() / 2);
    std::fs::write(path.join("a.gz"), packed).expect("written");
    std::fs::write(path.join("b.zst"), "no zstd").expect("written");
    std::fs::write(path.join("c.csv"), "a,a\n1,2\n").expect("written");
    for (options, kind, text) in [
        ("path = 'missing.txt'", ErrorKind::Config, "missing.txt: no such file or directory"),
        ("path = '*.none'", ErrorKind::Config, "no file matches"),
        ("path = 'sub'", ErrorKind::Config, "it is no regular file"),
        ("path = 'a.gz'", ErrorKind::Corrupt, "cannot read"),
        ("path = 'c.csv'", ErrorKind::Corrupt, "column \"a\" stands twice"),
    ] {
        let error = error(path, options).await;
        assert!(error.kind() == kind && error.to_string().contains(text), "{options}: {:?} {error}", error.kind());
    }
    assert!(error(path, "path = 'b.zst'").await.to_string().contains("cannot read"));
}

#[tokio::test]
async fn a_position_does_not_fit_another_file() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("a.txt");
    std::fs::write(&path, "one\ntwo\n").expect("written");
    let mut source = open(directory.path(), "path = 'a.txt'").await;
    source.next(BatchLimit { rows: 1, bytes: 1 }).await.expect("reads");
    let positions: Vec<_> = source.positions().into_iter().map(|(id, at)| (id, Some(at))).collect();
    std::fs::write(&path, "another\nfile\n").expect("written");
    let factory = factory(directory.path(), "path = 'a.txt'");
    let mut source = factory.open(positions, clock()).await.expect("opens");
    let error = source.next(LIMIT).await.expect_err("another file");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("put the old file back"), "{error}");
}

#[tokio::test]
async fn followed_files_go_on_through_growth_rotation_and_truncation() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("log.txt");
    let append = |path: &Path, text: &str| {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("opened");
        file.write_all(text.as_bytes()).expect("written");
    };
    let mut source = open(directory.path(), "path = 'log.txt'\nfollow = true").await;
    append(&path, "one\ntw");
    assert_eq!(texts(&mut *source, 1).await, ["one"]);
    append(&path, "o\n");
    assert_eq!(texts(&mut *source, 1).await, ["two"]);
    std::fs::rename(&path, directory.path().join("log.1")).expect("renamed");
    append(&directory.path().join("log.1"), "three");
    append(&path, "four\n");
    let mut rows = texts(&mut *source, 2).await;
    rows.sort();
    assert_eq!(rows, ["four", "three"]);
    std::fs::write(&path, "5\n").expect("truncated");
    assert_eq!(texts(&mut *source, 1).await, ["5"]);
}

#[tokio::test]
async fn followed_files_are_found_again_under_another_name() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("log.txt");
    std::fs::write(&path, "one\ntwo\n").expect("written");
    let options = "path = '*.txt'\nfollow = true";
    let mut source = open(directory.path(), options).await;
    assert_eq!(source.positions()[0].0, PartitionId(0));
    source.next(BatchLimit { rows: 1, bytes: 1 }).await.expect("reads");
    let positions: Vec<_> = source.positions().into_iter().map(|(id, at)| (id, Some(at))).collect();
    drop(source);
    std::fs::rename(&path, directory.path().join("log.old")).expect("renamed");
    std::fs::write(&path, "three\n").expect("written");
    let mut source = factory(directory.path(), options).open(positions, clock()).await.expect("opens");
    let mut rows = texts(&mut *source, 2).await;
    rows.sort();
    assert_eq!(rows, ["three", "two"]);
}

#[tokio::test]
async fn progress_counts_rows_returned_and_not_those_read_ahead() {
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("a.txt"), "0123456789\n".repeat(1 << 20)).expect("written");
    let factory = factory(directory.path(), "path = 'a.txt'");
    let mut source = factory.open(vec![(PartitionId(0), None)], clock()).await.expect("opens");
    let small = BatchLimit { rows: 100, bytes: 1 << 20 };
    source.next(small).await.expect("reads");
    assert_eq!(source.progress(), Some(1_100));
}
