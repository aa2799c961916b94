use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use wasmill_contract::{BatchLimit, BoxFuture, Source, SourceEvent, SourceFactory};
use wasmill_env::{Clock, RealClock, SimulatedClock};
use wasmill_model::{Epoch, PartitionId, Timestamp};
use wasmill_spec::{Backpressure, ByteSize};

use crate::Site;
use crate::conformance::{IntakeCase, Sent, check_intake};

fn factory(connector: &str, options: &str, dir: &Path, durable: bool) -> Arc<dyn SourceFactory> {
    let backpressure = Backpressure { bytes: ByteSize::from_bytes(64 << 10), ..Backpressure::default() };
    let state_dir = durable.then(|| dir.join("state"));
    let site = Site { backpressure, state_dir, ..Site::alone(dir) };
    let options = format!("listen = '127.0.0.1:0'\n{options}");
    crate::source(connector, options.parse().expect("valid TOML"), &site).expect("valid options")
}

fn lines(rows: &[Vec<u8>]) -> Vec<u8> {
    rows.iter().flat_map(|row| [row.as_slice(), b"\n"].concat()).collect()
}

fn address(location: &str) -> String {
    let (_, rest) = location.split_once("://").expect("a URL");
    rest.split('/').next().expect("an address").to_owned()
}

/// Posts a body: status and answer.
async fn post(location: String, head: String, body: Vec<u8>) -> (u16, String) {
    let mut stream = TcpStream::connect(address(&location)).await.expect("connects");
    let head =
        format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n{head}\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"));
    (status, answer)
}

const NDJSON: &str = "content-type: application/x-ndjson\r\n";

fn send_http(location: String, rows: Vec<Vec<u8>>) -> BoxFuture<'static, Sent> {
    Box::pin(async move {
        match post(location, NDJSON.to_owned(), lines(&rows)).await {
            (202, _) => Sent::Taken,
            (429, answer) => {
                assert!(answer.to_ascii_lowercase().contains("retry-after: 1\r\n"), "{answer}");
                Sent::Refused
            }
            other => panic!("{other:?}"),
        }
    })
}

fn send_tcp(location: String, rows: Vec<Vec<u8>>) -> BoxFuture<'static, Sent> {
    Box::pin(async move {
        let mut stream = TcpStream::connect(address(&location)).await.expect("connects");
        // The last line has no newline.
        let text = lines(&rows);
        stream.write_all(&text[..text.len() - 1]).await.expect("sent");
        stream.shutdown().await.expect("closed");
        Sent::Taken
    })
}

fn send_udp(location: String, rows: Vec<Vec<u8>>) -> BoxFuture<'static, Sent> {
    Box::pin(async move {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
        socket.send_to(&lines(&rows), address(&location)).await.expect("sent");
        Sent::Taken
    })
}

#[tokio::test]
async fn sources_that_take_rows_in_keep_their_contract() {
    type Send = fn(String, Vec<Vec<u8>>) -> BoxFuture<'static, Sent>;
    let all: [(&str, Send, bool); 3] = [("http", send_http, true), ("tcp", send_tcp, false), ("udp", send_udp, false)];
    for (connector, send, answers) in all {
        for durable in [false, true] {
            let dir = tempfile::tempdir().expect("a folder");
            let case = IntakeCase {
                make: &|| factory(connector, "", dir.path(), durable),
                send: &send,
                answers,
                clock: Arc::new(RealClock::default()),
            };
            check_intake(case).await;
        }
    }
}

async fn open(factory: &dyn SourceFactory) -> Box<dyn Source> {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
    factory.open(vec![(PartitionId(0), None)], clock).await.expect("opens")
}

async fn next(source: &mut dyn Source) -> SourceEvent {
    source.next(BatchLimit { rows: 4_096, bytes: 1 << 20 }).await.expect("reads")
}

#[tokio::test]
async fn an_event_that_comes_again_is_left_out_after_a_restart_too() {
    let dir = tempfile::tempdir().expect("a folder");
    let event = |id: &str| {
        let head = format!(
            "content-type: application/json\r\nce-specversion: 1.0\r\nce-id: {id}\r\nce-source: s\r\nce-type: t\r\n"
        );
        (head, format!("\"{id}\"").into_bytes())
    };
    let send = async |source: &dyn Source, id: &str| {
        let (head, body) = event(id);
        post(source.location().expect("a location"), head, body).await
    };
    let factory = factory("http", "", dir.path(), true);
    let source = open(&*factory).await;
    let (status, answer) = send(&*source, "a").await;
    assert!(status == 202 && answer.contains(r#"{"accepted":1,"duplicates":0,"offsets":[0,0]}"#), "{answer}");
    assert!(send(&*source, "a").await.1.contains(r#"{"accepted":0,"duplicates":1}"#));
    drop(source);
    let mut source = open(&*factory).await;
    assert!(send(&*source, "a").await.1.contains(r#""duplicates":1"#));
    assert!(send(&*source, "b").await.1.contains(r#""offsets":[1,1]"#));
    let mut rows = Vec::new();
    while rows.len() < 2 {
        let SourceEvent::Rows(batch) = next(&mut *source).await else { panic!("rows were expected") };
        rows.extend(batch.values().iter().map(<[u8]>::to_vec));
    }
    assert_eq!(rows, [b"\"a\"", b"\"b\""]);
    assert_eq!(source.counts().duplicates, 1);
}

#[tokio::test]
async fn requests_that_are_wrong_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = "body_bytes_max = '64B'\nrequests_per_second = 6";
    // A clock that stands: no request is allowed again while these are made.
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::new(Timestamp(0)));
    let factory = factory("http", options, dir.path(), true);
    let source = factory.open(vec![(PartitionId(0), None)], clock).await.expect("opens");
    let location = source.location().expect("a location");
    let send = |head: &str, body: &str| post(location.clone(), head.to_owned(), body.as_bytes().to_vec());
    assert_eq!(send("content-type: application/json\r\n", &"1".repeat(65)).await.0, 413);
    let (status, answer) = send(NDJSON, "1\n{\n").await;
    assert!(status == 400 && answer.contains("line 2: EOF while parsing an object at column 1"), "{answer}");
    assert_eq!(send("", "1").await.0, 415);
    assert_eq!(send("content-type: application/json\r\ncontent-encoding: gzip\r\n", "1").await.0, 415);
    let (_, answer) = send("content-type: text/plain\r\n", "1").await;
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("send application/json"), "{answer}");
    assert_eq!(send(NDJSON, "").await.0, 202);
    assert_eq!(send(NDJSON, "1").await.0, 429, "six requests a second");
    let counts = source.counts();
    assert_eq!((counts.dropped, counts.held), (0, 0), "a refused request is no row");
}

#[tokio::test]
async fn a_sender_that_dawdles_is_cut_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = open(&*factory("http", "timeout = '50ms'", dir.path(), true)).await;
    let address = address(&source.location().expect("a location"));
    for (text, status) in [
        ("POST / HT", ""),
        ("POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n1", "HTTP/1.1 408 "),
    ] {
        let mut stream = TcpStream::connect(&address).await.expect("connects");
        stream.write_all(text.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the server ends it");
        assert!(answer.starts_with(status), "{text}: {answer}");
    }
}

#[tokio::test]
async fn who_waits_when_the_job_ends_is_turned_away() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut source = open(&*factory("http", "", dir.path(), false)).await;
    let mut sender = TcpStream::connect(address(&source.location().expect("a location"))).await.expect("connects");
    let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{NDJSON}content-length: 2\r\n\r\n1\n");
    sender.write_all(request.as_bytes()).await.expect("sent");
    // It may wait for the job to take its row, which stops instead.
    tokio::task::yield_now().await;
    assert!(source.stop());
    assert!(matches!(next(&mut *source).await, SourceEvent::End));
    let mut answer = Vec::new();
    // One that was not accepted yet is cut off.
    let _cut_off = sender.read_to_end(&mut answer).await.is_err();
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn records_that_are_too_long_are_dead_letters_and_survive_too() {
    for durable in [false, true] {
        for (connector, send) in [("tcp", send_tcp as fn(_, _) -> _), ("udp", send_udp)] {
            let dir = tempfile::tempdir().expect("a folder");
            let mut source = open(&*factory(connector, "record_bytes_max = '4B'", dir.path(), durable)).await;
            let rows = [b"1".to_vec(), b"22222".to_vec(), b"3".to_vec()];
            send(source.location().expect("a location"), rows.to_vec()).await;
            let (mut good, mut bad) = (0, 0);
            while good + bad < 3 {
                match next(&mut *source).await {
                    SourceEvent::Rows(batch) => good += batch.len(),
                    SourceEvent::Malformed { bytes, reason, .. } => {
                        assert_eq!(bytes, b"22222");
                        assert_eq!(reason, "record is longer than 4 bytes (option record_bytes_max)");
                        bad += 1;
                    }
                    event => panic!("{event:?}"),
                }
            }
            assert_eq!((good, bad), (2, 1));
        }
    }
}

#[tokio::test]
async fn what_is_committed_and_forgotten_leaves_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = "dedup_ids = 0\nevents_max = 100000";
    let site = Site { state_dir: Some(dir.path().join("state")), ..Site::alone(dir.path()) };
    let options = format!("listen = '127.0.0.1:0'\n{options}").parse().expect("valid TOML");
    let factory = crate::source("http", options, &site).expect("valid options");
    let mut source = open(&*factory).await;
    let row = format!("\"{}\"\n", "x".repeat(999));
    let on_disk = || {
        let mut folders = vec![dir.path().to_owned()];
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().expect("readable") {
                let entry = entry.expect("readable");
                match entry.metadata().expect("readable") {
                    meta if meta.is_dir() => folders.push(entry.path()),
                    meta => bytes += meta.len(),
                }
            }
        }
        bytes
    };
    // Three times what a segment holds.
    for epoch in 0..17 {
        let body = row.repeat(3_000).into_bytes();
        assert_eq!(post(source.location().expect("a location"), NDJSON.to_owned(), body).await.0, 202);
        let mut rows = 0;
        while rows < 3_000 {
            let SourceEvent::Rows(batch) = next(&mut *source).await else { panic!("rows were expected") };
            rows += batch.len();
        }
        let now = source.positions();
        source.acknowledge(Epoch(epoch + 1), &now).await.expect("acknowledged");
    }
    assert!(on_disk() < 40_000_000, "{} bytes are left", on_disk());
}
