//! Requests that mean harm: each is refused in words, and the service and its other tenants go on.

use std::io::{ErrorKind, Read, Write};

use serde_json::json;
use wasmill_env::{Clock, RealClock};

use super::{Server, copy, plain};

#[test]
fn slow_and_large_heads_are_cut_off() {
    let server = Server::start();
    let acme = server.tenant("acme");
    // Idle connections, and one that sends a byte and then nothing.
    let idle: Vec<_> = (0..500).map(|_| server.http.connect()).collect();
    let mut slow = server.http.connect();
    slow.write_all(b"G").expect("written");
    let clock = RealClock::default();
    acme.get("/v1/jobs").is(200);
    let large = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let status = server.http.raw(large.as_bytes()).status;
    assert!([400, 431].contains(&status), "{status}");
    let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(1_000));
    let status = server.http.raw(many.as_bytes()).status;
    assert!([400, 431].contains(&status), "{status}");
    let mut rest = Vec::new();
    let cut_off = slow.read_to_end(&mut rest);
    assert!(!cut_off.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "nobody ends it");
    let seconds = clock.monotonic_nanos() / 1_000_000_000;
    assert!(seconds < 30, "{seconds} s");
    drop(idle);
    acme.get("/v1/jobs").is(200);
}

#[test]
fn bodies_that_are_no_requests_are_refused() {
    let server = Server::start();
    let acme = server.tenant("acme");
    let operator = server.operator();
    let deep = format!("{{\"tenant\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let wide: String = (0..200_000).map(|n| format!("\"k{n}\":1,")).collect();
    for (body, status) in [
        (deep.as_str(), 400),
        (&format!("{{{wide}\"tenant\":\"a\"}}"), 413),
        ("{\"tenant\":\"a\",\"tenant\":\"b\"}", 400),
        ("{\"tenant\":\"a\",\"extra\":1}", 400),
        ("{\"tenant\":\"a\",\"budget\":{\"jobs\":1e308}}", 400),
        ("{\"tenant\":\"a\",\"budget\":{\"jobs\":NaN}}", 400),
        ("{\"tenant\":\"a\",\"budget\":{\"jobs\":-1}}", 400),
        ("{\"tenant\":\"a\",\"budget\":{\"memory_bytes\":18446744073709551616}}", 400),
        ("\u{0}", 400),
        ("", 400),
    ] {
        operator.send("POST", "/v1/tenants", body.as_bytes()).is(status);
    }
    acme.send("PUT", "/v1/jobs/x", &[0xff, 0xfe, 0x00]).is(422);
    acme.send("PUT", "/v1/jobs/x", &vec![b'#'; (1 << 20) + 1]).is(413);
    acme.send("PUT", "/v1/jobs/x", format!("a = {}", "[".repeat(50_000)).as_bytes()).is(422);
    acme.send("BREW", "/v1/jobs", b"").is(405);
    acme.get("/v1/nothing").is(404);
    acme.get("/v1/jobs/%00").is(400);
    acme.get("/v1/jobs/a%2f..%2f..%2fb").is(400);
    acme.get(&format!("/v1/jobs/{}", "a".repeat(10_000))).is(400);
}

#[test]
fn numbers_at_their_edges_are_refused() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    acme.produce("in", 0..3);
    for asked in [
        "offset=-1",
        "offset=9223372036854775808",
        "offset=18446744073709551616",
        "offset=4",
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=1000000000",
        "limit=1e3",
        "partition=1",
        "partition=4294967296",
        "partition=-1",
        "offset=0&offset=1",
        "unknown=1",
    ] {
        acme.get(&format!("/v1/topics/in/records?{asked}")).is(400);
    }
    assert_eq!(acme.get("/v1/topics/in/records?offset=3").is(200).body["next"], 3);
    for partitions in ["0", "65", "4294967295"] {
        let body = format!("{{\"topic\":\"x\",\"partitions\":{partitions}}}");
        acme.send("POST", "/v1/topics", body.as_bytes()).is(422);
    }
    acme.deploy("copy", &plain("copy")).is(201);
    for (path, body) in [
        ("rescale", json!({"node": "work", "parallelism": 0})),
        ("rescale", json!({"node": "work", "parallelism": 257})),
        ("rescale", json!({"node": "none", "parallelism": 1})),
    ] {
        acme.post(&format!("/v1/jobs/copy/{path}"), &body).is(422);
    }
    acme.post("/v1/jobs/copy/rescale", &json!({"node": "work", "parallelism": 65_536})).is(400);
}

#[test]
fn graphs_that_are_bombs_are_refused() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let chain: String = (0..2_000)
        .map(|n| format!("[stage.s{n}]\nplugin = \"std:filter\"\ninput = \"in\"\nconfig = {{ where = \"true\" }}\n"))
        .collect();
    let bomb = plain("bomb").replace("[sink.out]", &format!("{chain}[sink.out]"));
    let problem = acme.deploy("bomb", &bomb);
    assert!([413, 422].contains(&problem.status), "{}", problem.text);
    for more in ["parallelism = 1000000", "parallelism = 0", "window = { tumbling = \"1ns\" }"] {
        let bomb = plain("bomb").replace("[sink.out]", &format!("{more}\n[sink.out]"));
        acme.deploy("bomb", &bomb).is(422);
    }
    let circle = plain("bomb").replace("input = \"in\"", "input = \"work\"");
    acme.deploy("bomb", &circle).is(422);
    assert_eq!(acme.get("/v1/jobs").is(200).body, json!([]));
}

#[test]
fn a_job_reaches_nothing_but_what_its_tenant_has() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let source = |options: &str| {
        let from = "connector = \"topic\"\ntopic = \"in\"";
        plain("spy").replace(from, options)
    };
    for options in [
        "connector = \"file\"\npath = \"/etc/passwd\"",
        "connector = \"file\"\npath = \"../tenant.json\"",
        "connector = \"file\"\npath = \".*/tenant.json\"",
        "connector = \"stdin\"",
        "connector = \"http\"\nlisten = \"127.0.0.1:0\"",
        "connector = \"udp\"\nlisten = \"0.0.0.0:0\"",
        "connector = \"topic\"\ntopic = \"../../other/topics/in\"",
    ] {
        let problem = acme.deploy("spy", &source(options)).is(422);
        assert!(!problem.body["diagnostics"].as_array().expect("findings").is_empty(), "{options}: {}", problem.text);
    }
    let sink = |options: &str| plain("spy").replace("connector = \"topic\"\ntopic = \"out\"\npartitions = 1", options);
    let operator = server.operator();
    operator.send("PATCH", "/v1/tenants/acme", b"{\"egress\":{\"hosts\":[\"*\"],\"listen\":false}}").is(200);
    for options in [
        "connector = \"file\"\npath = \"/tmp/x\"",
        "connector = \"stdout\"",
        "connector = \"http\"\nurl = \"http://127.0.0.1:7070/v1/jobs\"",
        "connector = \"http\"\nurl = \"http://169.254.169.254/latest\"",
        "connector = \"http\"\nurl = \"http://[::ffff:127.0.0.1]/\"",
        "connector = \"http\"\nurl = \"http://user@example.org/\"",
        "connector = \"http\"\nurl = \"gopher://example.org/\"",
        "connector = \"http\"\nurl = \"https://example.org\"\nheaders = { a = { env = \"PATH\" } }",
        "connector = \"http\"\nurl = \"https://example.org\"\nheaders = { a = { file = \"/etc/passwd\" } }",
    ] {
        acme.deploy("spy", &sink(options)).is(422);
    }
    acme.deploy("spy", &format!("dead_letters = \"/tmp/x\"\n{}", plain("spy"))).is(422);
    // A name that stands for this machine is found out when it is connected to.
    acme.deploy("spy", &sink("connector = \"http\"\nurl = \"http://localhost:7070/\"\nbatch_rows_max = 1")).is(201);
    acme.produce("in", 0..1);
    server.until("the connection is refused", || {
        let view = acme.get("/v1/jobs/spy").is(200).body;
        view["phase"] != "running" && view["reason"].as_str().is_some_and(|why| why.contains("no public address"))
            || acme.get("/v1/jobs/spy/logs").is(200).text.contains("no public address")
    });
}

#[test]
fn storms_are_slowed_down_and_others_are_not() {
    let server = Server::start();
    let acme = server.tenant_with("acme", json!({"requests_per_second": 1, "changes_per_minute": 10}));
    let other = server.tenant("other");
    other.make_topic("in");
    let statuses: Vec<u16> = (0..200).map(|_| acme.get("/v1/jobs").status).collect();
    assert!(statuses.contains(&429) && statuses.contains(&200), "{statuses:?}");
    let refused = server.until_some(|| Some(acme.get("/v1/jobs")).filter(|answer| answer.status == 429));
    assert!(refused.head.to_ascii_lowercase().contains("retry-after:"), "{}", refused.head);
    other.deploy("copy", &plain("copy")).is(201);
    // Changes have a rate of their own.
    let changes = server.tenant_with("changes", json!({"changes_per_minute": 6}));
    changes.make_topic("in");
    let statuses: Vec<u16> = (0..10).map(|_| changes.deploy("copy", &plain("copy")).status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    // Who has no token is slowed down as well, and costs others nothing.
    let strangers: Vec<u16> = (0..1_000).map(|_| server.http.get("/v1/jobs", "wmt_a_b_c").status).collect();
    assert!(strangers.iter().all(|status| [401, 429].contains(status)));
    other.get("/v1/jobs").is(200);
}

#[test]
fn what_a_guest_or_a_caller_says_is_shown_inert() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let nasty = "<script>alert(1)</script>\\u001b[31m";
    let answer = acme.deploy("x", &copy("x", "std:filter", &format!("config = {{ \"{nasty}\" = 1 }}"))).is(422);
    assert!(!answer.text.contains('\u{1b}'), "{}", answer.text);
    let head = answer.head.to_ascii_lowercase();
    for header in ["x-content-type-options: nosniff", "frame-ancestors 'none'", "cache-control: no-store"] {
        assert!(head.contains(header), "{header} is not in {head}");
    }
    let long = acme.get(&format!("/v1/jobs/{}", "%1b".repeat(3_000))).is(400);
    assert!(long.text.len() < 10_000 && !long.text.contains('\u{1b}'));
}
