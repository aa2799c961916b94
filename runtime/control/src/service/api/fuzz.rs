//! Requests out of their minds, through the same routes as those of the network: an answer in words, never a
//! panic nor an error of the service's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use wasmill_contract::BoxFuture;
use wasmill_env::{RealClock, RealDisk};

use crate::local::Refusal;
use crate::service::fuzz_driver::{Random, fuzz, mutated};
use crate::service::state::Opened;
use crate::service::{Egress, Host, Inspected, JobEnd, JobLogs, JobOrder, PullError, Pulled, Service, Ties, Wrong};

/// Takes every plugin, and runs jobs that do nothing.
struct Idle;

impl Host for Idle {
    fn inspect(&self, _: Arc<[u8]>) -> BoxFuture<'_, Result<Inspected, Wrong>> {
        Box::pin(async { Ok(Inspected { name: None, version: None, about: Value::Null }) })
    }

    fn pull<'a>(&'a self, reference: &'a str, _: &'a Egress, _: u64) -> BoxFuture<'a, Result<Pulled, PullError>> {
        Box::pin(async move { Ok(Pulled { reference: reference.to_owned(), bytes: reference.as_bytes().to_vec() }) })
    }

    fn check<'a>(&'a self, _: &'a JobOrder) -> BoxFuture<'a, Result<Value, Wrong>> {
        Box::pin(async { Ok(json!({"ok": true})) })
    }

    fn run<'a>(&'a self, _: &'a JobOrder, ties: &'a mut Ties) -> BoxFuture<'a, JobEnd> {
        Box::pin(async {
            loop {
                tokio::select! {
                    _ = ties.stops.recv() => return JobEnd::Stopped,
                    Some(command) = ties.commands.recv() => {
                        drop(command.reply.send(Err(Refusal::new("it does nothing"))));
                    }
                }
            }
        })
    }

    fn rescaled(&self, text: &str, _: &str, _: u16) -> Result<String, Wrong> {
        Ok(text.to_owned())
    }
}

const JOB: &str = "name = \"job\"\n[source.in]\nconnector = \"topic\"\ntopic = \"in\"\n[stage.work]\nplugin = \"std:filter\"\n\
    input = \"in\"\n[sink.out]\nconnector = \"blackhole\"\ninput = \"work\"\n";

/// Bodies that some endpoint understands.
fn bodies() -> Vec<Vec<u8>> {
    let values = [
        json!({"tenant": "new", "budget": {"jobs": 1, "memory_bytes": 5}, "egress": {"hosts": ["*.a"], "listen": true}}),
        json!({"budget": {"requests_per_second": 1_000_000, "changes_per_minute": 100_000_000}}),
        json!({"name": "all", "scopes": ["read", "deploy", "admin"], "days": 3}),
        json!({"topic": "new", "partitions": 3, "retention_bytes": 5, "retention_micros": 7, "compact": true}),
        json!({"stage": "work", "plugin": "std:filter"}),
        json!({"node": "work", "parallelism": 2}),
        json!({"name": "before-friday"}),
        json!({"reference": "oci://example.org/acme/count:1.0", "name": "count:1"}),
        json!({"savepoint": "before-friday"}),
        json!({"key": "11".repeat(32)}),
        json!({"signature": "11".repeat(64)}),
        json!({"ids": [1, 2], "all": false}),
        json!({"all": true}),
        json!({}),
    ];
    let texts = [JOB, "{\"key\":\"k\",\"value\":{\"n\":1},\"time\":5}\n{\"text\":\"x\",\"key_base64\":\"AA==\"}\n", ""];
    values
        .iter()
        .map(|value| value.to_string().into_bytes())
        .chain(texts.map(|text| text.as_bytes().to_vec()))
        .collect()
}

const WORDS: &[&str] = &[
    "\"tenant\":",
    "\"a\":1,",
    "null",
    "true",
    "[[[[",
    "{\"a\":",
    "1e308",
    "-0",
    "\\u0000",
    "\\ud800",
    "\u{1b}[31m",
    "../../x",
    "\n",
    "\"",
    "18446744073709551616",
    "NaN",
    "é",
    "\u{0}",
    "sha256:",
    "/",
    "%",
    "--",
    "#",
    "\t",
];

/// Names as they stand in an address.
const NAMES: &[&str] = &[
    "job",
    "in",
    "acme",
    "work",
    "before-friday",
    "std:filter",
    "x:1",
    "%00",
    "%2e%2e%2f",
    "..",
    "a%20b",
    "%ff",
    "%C3%A9",
    "-",
    "A",
    "sha256:0000000000000000000000000000000000000000000000000000000000000000",
    "0123456789abcdef",
    "%",
    "",
];

const ASKED: &[&str] = &[
    "limit=1",
    "limit=0",
    "limit=-1",
    "offset=0",
    "offset=99",
    "offset=18446744073709551615",
    "from=1",
    "partition=0",
    "partition=4294967295",
    "name=x",
    "name=..",
    "name=%00",
    "unknown=1",
    "limit=1&limit=2",
    "%zz",
    "limit",
    "=",
];

/// A request: who asks, the method, the address, a line each, and the body.
fn request(random: &mut Random, endpoints: &[(String, String)], corpus: &[Vec<u8>]) -> Vec<u8> {
    let (method, path) = random.pick(endpoints).clone();
    let mut filled = String::new();
    for (place, part) in path.split('/').enumerate() {
        if place > 0 {
            filled.push('/');
        }
        let name: &&str = random.pick(NAMES);
        filled.push_str(if part.starts_with('{') { name } else { part });
    }
    if random.below(3) == 0 {
        filled.push('?');
        let asked: &&str = random.pick(ASKED);
        filled.push_str(asked);
    }
    let who = ["tenant", "operator", "nobody", "noise"][random.below(8).saturating_sub(4)];
    let who = if random.below(3) == 0 { "operator" } else { who };
    let body = if random.below(3) == 0 { random.pick(corpus).clone() } else { mutated(random, corpus, WORDS) };
    [format!("{who}\n{method}\n{filled}\n").as_bytes(), &body].concat()
}

struct Api {
    router: TowerToHyperService<Router>,
    tokens: BTreeMap<&'static str, String>,
}

impl Api {
    async fn ask(&self, who: &str, method: &str, path: &str, body: &[u8]) -> Option<(u16, Value, String)> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = self.tokens.get(who) {
            request = request.header("authorization", format!("Bearer {token}"));
        } else if who == "noise" {
            request = request.header("authorization", "Bearer wmt_acme_0123456789abcdef_\t");
        }
        // An address that HTTP cannot say does not reach the service.
        let request = request.body(Body::from(body.to_vec())).ok()?;
        let answer = self.router.call(request).await.expect("infallible");
        let (status, kind) = (answer.status().as_u16(), answer.headers().get("content-type").cloned());
        if kind.is_some_and(|kind| kind == "text/event-stream") {
            return Some((status, Value::Null, String::new()));
        }
        let bytes = to_bytes(answer.into_body(), 64 << 20).await.expect("a body");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Some((status, serde_json::from_str(&text).unwrap_or_default(), text))
    }
}

#[test]
fn requests() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(RealClock::default());
    let settings = crate::service::ServiceSettings { workers: 2, hibernate_after: None };
    let opened = Service::open(dir.path(), Arc::new(RealDisk), clock, Arc::new(Idle), JobLogs::default(), settings);
    let Opened { service, token_file } = opened.expect("a service");
    let operator = std::fs::read_to_string(token_file.expect("a first token")).expect("reads").trim().to_owned();
    let mut api = Api {
        router: TowerToHyperService::new(super::router(Arc::clone(&service))),
        tokens: BTreeMap::from([("operator", operator)]),
    };
    let plenty = json!({
        "tenant": "acme",
        "budget": {"requests_per_second": 100_000_000, "changes_per_minute": 100_000_000, "topics": 20, "tokens": 20},
    });
    runtime.block_on(async {
        service.start().await;
        let made = api.ask("operator", "POST", "/v1/tenants", plenty.to_string().as_bytes()).await;
        assert_eq!(made.expect("asked").0, 201);
        let token = json!({"name": "all", "scopes": ["read", "deploy", "admin"]}).to_string();
        let made = api.ask("operator", "POST", "/v1/tenants/acme/tokens", token.as_bytes()).await.expect("asked");
        api.tokens.insert("tenant", made.1["token"].as_str().expect("a token").to_owned());
    });
    let document = serde_json::to_value(super::document()).expect("the document");
    let mut endpoints = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            // The tenant stays, and its token.
            if ["get", "put", "post", "delete", "patch"].contains(&method.as_str())
                && !(["delete", "patch"].contains(&method.as_str()) && path.starts_with("/v1/tenants"))
            {
                endpoints.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    let corpus = bodies();
    fuzz(
        "requests",
        3_000,
        |random| request(random, &endpoints, &corpus),
        |input| {
            let mut parts = input.splitn(4, |byte| *byte == b'\n');
            let mut line = || std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default().to_owned();
            let (who, method, path) = (line(), line(), line());
            let body = parts.next().unwrap_or_default();
            let Some((status, value, text)) = runtime.block_on(api.ask(&who, &method, &path, body)) else {
                return false;
            };
            assert!(status != 500, "{text}");
            if status >= 400 {
                assert_eq!(value["status"], status, "{text}");
                assert!(value["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{text}");
                assert!(!text.contains('\u{1b}'), "{text:?}");
            }
            status < 400
        },
    );
    runtime.block_on(service.stop());
}
