use std::collections::BTreeSet;
use std::sync::Mutex;

use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use wasmill_env::RealClock;
use wasmill_model::{BatchBuilder, Timestamp};

use super::*;
use crate::conformance::{SinkCase, check_sink};

/// What the server does with a request.
#[derive(Debug, Clone, Copy)]
enum Does {
    /// Takes it, and says so.
    Takes,
    /// Takes it, and cuts the connection.
    TakesAndResets,
    /// Answers so, and takes nothing.
    Answers(&'static str),
    /// Says nothing for as long as somebody waits.
    Hangs,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

#[derive(Debug, Default)]
struct Seen {
    keys: BTreeSet<String>,
    heads: Vec<String>,
    /// Lines of bodies under keys that were new.
    rows: Vec<Vec<u8>>,
}

/// A server that drops keys it has seen, and behaves as told, request by request; well after that.
async fn server(script: Vec<Does>) -> (String, Arc<Mutex<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/rows", listener.local_addr().expect("an address"));
    (url, serve(listener, script, None))
}

/// The same over TLS, and the certificate of its authority, which is its own.
async fn secure_server() -> (String, Arc<Mutex<Seen>>, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certified.cert.der().clone()], key).expect("they match");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("https://localhost:{}/rows", listener.local_addr().expect("an address").port());
    let seen = serve(listener, Vec::new(), Some(TlsAcceptor::from(Arc::new(config))));
    (url, seen, certified.cert.pem())
}

fn serve(listener: TcpListener, script: Vec<Does>, tls: Option<TlsAcceptor>) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let (script, for_server) = (Arc::new(Mutex::new(script.into_iter())), Arc::clone(&seen));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (script, seen, tls) = (Arc::clone(&script), Arc::clone(&for_server), tls.clone());
            tokio::spawn(async move {
                let stream: Box<dyn Stream> = match tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => Box::new(stream),
                        Err(_) => return,
                    },
                    None => Box::new(stream),
                };
                let mut stream = BufReader::new(stream);
                while let Some((head, body)) = request(&mut stream).await {
                    let does = script.lock().expect("unpoisoned").next().unwrap_or(Does::Takes);
                    if matches!(does, Does::Takes | Does::TakesAndResets) {
                        let mut seen = seen.lock().expect("unpoisoned");
                        let key = head.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
                        if seen.keys.insert(key.expect("a key").to_owned()) {
                            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                            seen.rows.extend(lines.map(<[u8]>::to_vec));
                        }
                        seen.heads.push(head);
                    }
                    let answer = match does {
                        Does::Takes => "HTTP/1.1 204 No Content\r\n\r\n",
                        Does::TakesAndResets => return,
                        Does::Answers(answer) => answer,
                        Does::Hangs => std::future::pending().await,
                    };
                    stream.write_all(answer.as_bytes()).await.expect("answered");
                }
            });
        }
    });
    seen
}

async fn request(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head.replace("\r\n", "\n"), body))
}

fn factory(url: &str, options: &str, dir: &std::path::Path) -> Arc<dyn SinkFactory> {
    let timeout = if options.contains("timeout") { "" } else { "timeout = '60s'\n" };
    let options = format!("url = '{url}'\n{timeout}{options}").parse().expect("valid TOML");
    crate::sink("http", options, &Site::alone(dir)).expect("valid options")
}

fn batch(rows: &[&[u8]]) -> Batch {
    let mut batch = BatchBuilder::default();
    rows.iter().for_each(|row| batch.push(Timestamp(1_500_000), b"k", row));
    batch.finish(0)
}

/// One epoch, delivered to the end.
async fn deliver(factory: &dyn SinkFactory, rows: &[&[u8]]) -> Result<(), ConnectorError> {
    let mut sink = factory.open(Share::WHOLE, None, Arc::new(RealClock::default())).await?;
    sink.write(&batch(rows)).await?;
    sink.prepare(Epoch(1)).await?;
    sink.commit(Epoch(1), true).await
}

#[tokio::test]
async fn a_server_that_misbehaves_gets_every_row_once() {
    let script = vec![
        Does::Answers("HTTP/1.1 500 Oh\r\ncontent-length: 4\r\n\r\nno!\n"),
        Does::Takes,
        Does::TakesAndResets,
        Does::Hangs,
        Does::Answers("HTTP/1.1 503 Oh\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"),
        Does::Answers("HTTP/1.1 429 Oh\r\ncontent-length: 0\r\n\r\n"),
        Does::Answers("not HTTP at all\r\n\r\n"),
    ];
    let (url, seen) = server(script).await;
    let dir = tempfile::tempdir().expect("a folder");
    let rows: Vec<Vec<u8>> = (0..10).map(|row| row.to_string().into_bytes()).collect();
    let slices: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
    let options = "timeout = '200ms'\nbatch_rows_max = 3";
    deliver(&*factory(&url, options, dir.path()), &slices).await.expect("delivered in the end");
    assert_eq!(seen.lock().expect("unpoisoned").rows, rows);
}

#[tokio::test]
async fn rows_go_over_tls_to_servers_of_trusted_authorities_only() {
    let (url, seen, authority) = secure_server().await;
    let (_, _, another) = secure_server().await;
    let dir = tempfile::tempdir().expect("a folder");
    for (name, text) in [("ca.pem", &*authority), ("another.pem", &*another), ("none.pem", "no certificate\n")] {
        std::fs::write(dir.path().join(name), text).expect("written");
    }
    deliver(&*factory(&url, "authorities = 'ca.pem'", dir.path()), &[b"1", b"2"]).await.expect("delivered");
    assert_eq!(seen.lock().expect("unpoisoned").rows, [b"1", b"2"]);
    for (authorities, expected) in [
        ("another.pem", "invalid peer certificate"),
        ("none.pem", "none.pem: it holds no certificate"),
        ("missing.pem", "missing.pem: cannot read it: No such file"),
    ] {
        let options = format!("authorities = '{authorities}'\noutbox = {{ give_up = '10ms' }}");
        let error = deliver(&*factory(&url, &options, dir.path()), &[b"3"]).await.expect_err("not delivered");
        assert!(chain(&error).contains(expected), "{}", chain(&error));
    }
    assert_eq!(seen.lock().expect("unpoisoned").rows.len(), 2);
}

#[tokio::test]
async fn an_answer_that_rows_are_wrong_fails_the_job_and_is_shown() {
    let answer = "HTTP/1.1 422 Unprocessable Entity\r\ncontent-length: 11\r\n\r\nbad \"row\" 7";
    let (url, _) = server(vec![Does::Answers(answer)]).await;
    let dir = tempfile::tempdir().expect("a folder");
    let error = deliver(&*factory(&url, "", dir.path()), &[b"1"]).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    let expected = format!("cannot post 1 rows to {url}: 422 Unprocessable Entity: bad \\\"row\\\" 7");
    assert!(error.to_string().contains(&expected), "{error}");
}

#[tokio::test]
async fn rows_are_posted_as_asked_with_secrets_from_elsewhere() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(dir.path().join("token"), "s3cret\n").expect("written");
    let (url, seen) = server(Vec::new()).await;
    let options =
        "format = 'cloudevents'\nbatch_rows_max = 1\nheaders = { x-token = { file = 'token' }, x-plain = 'a' }";
    deliver(&*factory(&url, options, dir.path()), &[b"{\"a\":\n1}", b"plain", b"\xff"]).await.expect("delivered");
    let seen = seen.lock().expect("unpoisoned");
    assert!(
        seen.heads[0].contains("\nx-token: s3cret\n") && seen.heads[0].contains("\nx-plain: a\n"),
        "{}",
        seen.heads[0]
    );
    assert!(seen.heads[0].contains("\ncontent-type: application/cloudevents+json\n"));
    let events: Vec<serde_json::Value> =
        seen.rows.iter().map(|row| serde_json::from_slice(row).expect("JSON")).collect();
    assert_eq!(events[0]["data"]["a"], 1);
    assert_eq!((&events[1]["data"], &events[1]["datacontenttype"]), (&"plain".into(), &"text/plain".into()));
    assert_eq!(events[2]["data_base64"], "/w==");
    assert_eq!((&events[0]["source"], &events[0]["partitionkey"]), (&"/job/node".into(), &"k".into()));
    assert_eq!(events[0]["time"], "1970-01-01T00:00:01.5Z");
    let ids: BTreeSet<&str> = events.iter().map(|event| event["id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), 3);
    assert!(seen.keys.iter().all(|key| key.ends_with("+1")), "{:?}", seen.keys);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract_of_sinks() {
    let dir = tempfile::tempdir().expect("a folder");
    let (url, seen) = server(Vec::new()).await;
    // What is delivered comes a little later than `commit`: the kit looks at what may be there.
    let case = SinkCase {
        make: &|| factory(&url, "batch_rows_max = 4", dir.path()),
        visible: &|| {
            let rows = seen.lock().expect("unpoisoned").rows.clone();
            rows.iter().map(|row| serde_json::from_slice::<String>(row).expect("a string").into_bytes()).collect()
        },
        reset: &|| *seen.lock().expect("unpoisoned") = Seen::default(),
        clock: Arc::new(RealClock::default()),
        rows: 10,
    };
    check_sink(case).await;
}

#[test]
fn wrong_options_are_named() {
    for (options, key) in [
        ("url = 'nowhere'", "url"),
        ("url = 'ftp://x/'", "url"),
        ("url = 'http://user:pass@x/'", "url"),
        ("url = 'http://x/'\nbatch_rows_max = 0", "batch_rows_max"),
        ("url = 'http://x/'\nevent_type = 'a'", "event_type"),
        ("url = 'http://x/'\nheaders = { content-type = 'a' }", "headers.content-type"),
        ("url = 'http://x/'\nheaders = { 'a b' = 'a' }", "headers.a b"),
    ] {
        let site = Site::alone(std::path::Path::new("/"));
        let error = crate::sink("http", options.parse().expect("valid TOML"), &site).err().expect("refused");
        assert_eq!(error.key.as_deref(), Some(key), "{options}: {error}");
    }
}

#[test]
fn a_date_in_retry_after_is_a_wait() {
    let headers = |text: &str| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).expect("a value"))]);
    assert_eq!(retry_after(&headers("7"), 0), Some(Duration::from_secs(7)));
    assert_eq!(retry_after(&headers("Thu, 01 Jan 1970 00:00:09 GMT"), 4_000_000), Some(Duration::from_secs(5)));
    assert_eq!(retry_after(&headers("Thu, 01 Jan 1970 00:00:09 GMT"), 40_000_000), Some(Duration::ZERO));
    assert_eq!(retry_after(&headers("soon"), 0), None);
}
