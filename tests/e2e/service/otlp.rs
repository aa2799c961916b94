//! Traces and metrics to a collector, which is a small one here, or none.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::{Server, numbers, plain};
use crate::support::Folder;

/// Bodies that were posted, by path.
type Posted = Arc<Mutex<Vec<(String, Value)>>>;

/// Takes what it is sent. Returns its address.
fn collector(posted: &Posted) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let posted = Arc::clone(posted);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let posted = Arc::clone(&posted);
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.expect("a connection"));
                loop {
                    let (mut path, mut length) = (String::new(), 0);
                    loop {
                        let mut line = String::new();
                        if stream.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        let line = line.trim_end().to_ascii_lowercase();
                        if let Some(rest) = line.strip_prefix("post ") {
                            path = rest.split(' ').next().unwrap_or_default().to_owned();
                        } else if let Some(rest) = line.strip_prefix("content-length:") {
                            length = rest.trim().parse().expect("a length");
                        } else if line.is_empty() {
                            break;
                        }
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).expect("a body");
                    let body = serde_json::from_slice(&body).expect("JSON");
                    posted.lock().unwrap_or_else(PoisonError::into_inner).push((path, body));
                    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answered");
                }
            });
        }
    });
    format!("http://{address}")
}

/// A span of this name whose attributes hold these.
fn has_span(posted: &Posted, name: &str, wanted: &[(&str, &str)]) -> bool {
    let posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
    let bodies = posted.iter().filter(|(path, _)| path == "/v1/traces");
    let mut spans =
        bodies.filter_map(|(_, body)| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array()).flatten();
    spans.any(|span| {
        let has = |(key, text): &(&str, &str)| {
            let mut attributes = span["attributes"].as_array().into_iter().flatten();
            attributes.any(|it| it["key"] == *key && it["value"]["stringValue"] == *text)
        };
        span["name"] == name && wanted.iter().all(has)
    })
}

#[test]
fn a_collector_gets_spans_and_metrics() {
    let posted = Posted::default();
    let url = collector(&posted);
    let server = Server::start_in(Folder::new(), &["--otlp", &url]);
    let acme = server.tenant("acme");
    acme.make_topic("in");
    acme.deploy("copy", &plain("copy")).is(201);
    acme.deploy("copy", "name = \"copy\"").is(422);
    acme.produce("in", 0..5);
    server.until("rows are copied", || acme.values("out") == numbers(0..5));
    let of_job = [("tenant", "acme"), ("job", "copy")];
    server.until("spans are there", || has_span(&posted, "epoch", &of_job) && has_span(&posted, "deploy", &of_job));
    server.until("metrics are there", || {
        let posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
        let bodies = posted.iter().filter(|(path, _)| path == "/v1/metrics");
        let metrics =
            bodies.filter_map(|(_, body)| body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array());
        let mut rows = metrics.flatten().filter(|metric| metric["name"] == "wasmill_node_rows_in");
        rows.any(|metric| {
            let mut points = metric["sum"]["dataPoints"].as_array().into_iter().flatten();
            points.any(|point| point["asDouble"] == 5.0)
        })
    });
}

#[test]
fn a_collector_that_is_not_there_disturbs_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let server = Server::start_in(Folder::new(), &["--otlp", &format!("http://{gone}")]);
    let acme = server.tenant("acme");
    acme.make_topic("in");
    acme.deploy("copy", &plain("copy")).is(201);
    acme.produce("in", 0..50);
    server.until("rows are copied", || acme.values("out") == numbers(0..50));
    let wrong = server.folder.run(&["serve", "--data", "other", "--listen", "127.0.0.1:0", "--otlp", "localhost"]);
    wrong.fails(2, &["is no URL of http or https", "4318"]);
}
