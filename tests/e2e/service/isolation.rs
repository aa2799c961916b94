//! What belongs to one tenant is nothing to another: every endpoint of the OpenAPI document, walked.

use serde_json::{Value, json};

use super::{Server, plain};
use crate::swap::version;

/// Words that are in answers to tenant `acme` only.
const MARK: &str = "acmes-own";

/// Endpoints that need no token.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/v1/openapi.json"];

fn endpoints(document: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            if ["get", "put", "post", "delete", "patch"].contains(&method.as_str()) {
                found.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    found
}

/// The path with names of things that tenant `acme` has.
fn filled(path: &str, digest: &str, token_id: &str) -> String {
    let path = path.replace("{tenant}", MARK).replace("{plugin}", digest).replace("{token}", token_id);
    ["{job}", "{topic}", "{savepoint}", "{signer}", "{group}"]
        .iter()
        .fold(path, |path, name| path.replace(name, MARK))
        .replace("{node}", "work")
        .replace("{stage}", "work")
}

/// A body that an endpoint understands.
fn body(method: &str, path: &str) -> Vec<u8> {
    let value = match (method, path) {
        ("POST", "/v1/tenants") => json!({"tenant": "new"}),
        ("POST", "/v1/topics") => json!({"topic": "new"}),
        ("POST", "/v1/plugins") => return version("v3"),
        ("POST", "/v1/pulls") => json!({"reference": "oci://127.0.0.1:1/a:b"}),
        ("PUT", "/v1/jobs/{job}") => return plain("others").into_bytes(),
        ("POST", "/v1/jobs/{job}/plan") => return plain(MARK).into_bytes(),
        ("POST", "/v1/check") => return plain("others").into_bytes(),
        ("POST", "/v1/topics/{topic}/records") => return b"{\"value\":1}\n".to_vec(),
        (_, path) if path.ends_with("/tokens") => json!({"name": "stolen", "scopes": ["admin"]}),
        (_, path) if path.ends_with("{signer}") => json!({"key": "11".repeat(32)}),
        (_, path) if path.ends_with("/signatures") => json!({"signature": "11".repeat(64)}),
        (_, path) if path.ends_with("/swap") => json!({"stage": "work", "plugin": "std:filter"}),
        (_, path) if path.ends_with("/promote") || path.ends_with("/rollback") => json!({"stage": "work"}),
        (_, path) if path.ends_with("/rescale") => json!({"node": "work", "parallelism": 2}),
        (_, path) if path.ends_with("/savepoints") => json!({"name": "mine"}),
        (_, path) if path.ends_with("/restore") => json!({"savepoint": MARK}),
        (_, path) if path.contains("/letters/") => json!({"all": true}),
        _ => json!({}),
    };
    value.to_string().into_bytes()
}

#[test]
fn a_token_reaches_nothing_of_another_tenant_and_no_token_nothing_at_all() {
    let server = Server::start();
    let document = server.http.get("/v1/openapi.json", "").is(200).body;
    let endpoints = endpoints(&document);
    assert!(endpoints.len() > 40, "{}", endpoints.len());

    let acme = server.tenant(MARK);
    let other = server.tenant_with("other", json!({"requests_per_second": 10_000, "changes_per_minute": 100_000}));
    let digest = acme.send("POST", &format!("/v1/plugins?name={MARK}"), &version("v1")).is(201).body["digest"].clone();
    let digest = digest.as_str().expect("a digest");
    acme.make_topic("in");
    acme.make_topic(MARK);
    acme.produce(MARK, 0..3);
    acme.deploy(MARK, &plain(MARK)).is(201);
    acme.until_phase(MARK, "running");
    acme.post(&format!("/v1/jobs/{MARK}/savepoints"), &json!({"name": MARK})).is(201);
    let tokens = acme.get(&format!("/v1/tenants/{MARK}/tokens")).is(200).body;
    let token_id = tokens[0]["id"].as_str().expect("an id");
    let before = acme.get(&format!("/v1/jobs/{MARK}")).is(200).body;

    for (method, path) in &endpoints {
        let asked = filled(path, digest, token_id);
        let body = body(method, path);
        if OPEN.contains(&path.as_str()) {
            assert_eq!(server.http.send(method, &asked, "", &body).status, 200, "{method} {path}");
            continue;
        }
        server.http.send(method, &asked, "", &body).is(401);
        server.http.send(method, &asked, "wmt_acmes-own_0123456789abcdef_00", &body).is(401);
        let answer = other.send(method, &asked, &body);
        let shared = !path.contains('{');
        if shared {
            // It is about the other's own things: there are none of this tenant's among them.
            assert!([200, 201, 403, 422].contains(&answer.status), "{method} {path}: {}", answer.text);
            if method == "GET" {
                assert!(!answer.text.contains(MARK), "{method} {path}: {}", answer.text);
            }
        } else {
            // A job of this name would be its own: the file is another one's.
            let refused = if path == "/v1/jobs/{job}" && method == "PUT" { &[400] } else { &[403, 404][..] };
            assert!(refused.contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.text);
        }
        // The operator has no jobs, plugins and topics, and reads nobody's.
        let operator = server.operator();
        if !path.starts_with("/v1/tenants") && path != "/metrics" && path != "/v1/whoami" {
            operator.send(method, &asked, &body).is(403);
        }
    }
    let after = acme.get(&format!("/v1/jobs/{MARK}")).is(200).body;
    for key in ["revision", "phase", "desired", "plugins"] {
        assert_eq!(before[key], after[key], "{key}");
    }
    assert_eq!(acme.get(&format!("/v1/topics/{MARK}/records")).is(200).body["end"], 3);
    assert_eq!(acme.get(&format!("/v1/tenants/{MARK}/tokens")).is(200).body, tokens);
    assert_eq!(acme.get(&format!("/v1/plugins/{digest}")).is(200).body["signed_by"], Value::Null);
}

#[test]
fn a_scope_allows_what_it_says() {
    let server = Server::start();
    let acme = server.tenant("acme");
    let make = |scope: &str| {
        let body = json!({"name": scope, "scopes": [scope]});
        let made = acme.post("/v1/tenants/acme/tokens", &body).is(201).body;
        made["token"].as_str().expect("a token").to_owned()
    };
    let (read, deploy, admin) = (make("read"), make("deploy"), make("admin"));
    let (read, deploy, admin) = (server.with_token(&read), server.with_token(&deploy), server.with_token(&admin));
    read.get("/v1/jobs").is(200);
    read.post("/v1/topics", &json!({"topic": "in"})).is(403);
    read.get("/v1/tenants/acme/tokens").is(403);
    deploy.post("/v1/topics", &json!({"topic": "in"})).is(201);
    deploy.get("/v1/jobs").is(403);
    deploy.post("/v1/tenants/acme/tokens", &json!({"name": "x"})).is(403);
    admin.get("/v1/tenants/acme/tokens").is(200);
    admin.get("/v1/jobs").is(403);
    admin.post("/v1/tenants", &json!({"tenant": "x"})).is(403);
    // Budgets are the operator's.
    admin.send("PATCH", "/v1/tenants/acme", b"{\"budget\":{\"jobs\":1000000}}").is(403);
}

#[test]
fn metrics_are_those_of_the_caller() {
    let server = Server::start();
    let (acme, other) = (server.tenant("acme"), server.tenant("other"));
    for tenant in [&acme, &other] {
        tenant.make_topic("in");
        tenant.deploy("copy", &plain("copy")).is(201);
        tenant.produce("in", 0..5);
        server.until("rows are copied", || tenant.values("out").len() == 5);
    }
    let own = acme.get("/metrics").is(200).text;
    assert!(
        own.contains("wasmill_node_rows_in_total{tenant=\"acme\",job=\"copy\",node=\"in\",kind=\"source\"} 5"),
        "{own}"
    );
    assert!(own.contains("wasmill_job_latency_seconds{tenant=\"acme\",job=\"copy\",quantile=\"0.99\"}"), "{own}");
    for name in ["node_call_seconds_bucket", "node_batch_rows_count", "node_blocked_seconds_total"] {
        assert!(own.contains(&format!("wasmill_{name}{{")), "{name}: {own}");
    }
    assert!(!own.contains("other"), "{own}");
    let all = server.operator().get("/metrics").is(200).text;
    assert!(all.contains("tenant=\"acme\"") && all.contains("tenant=\"other\"") && all.ends_with("# EOF\n"), "{all}");
    let usage = acme.get("/v1/usage").is(200).body;
    assert_eq!((&usage["used"]["rows_in"], &usage["has"]["tasks"]), (&json!(5), &json!(3)), "{usage}");
}
