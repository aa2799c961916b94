//! Topics, dead letters and logs of a service, by the command line.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Server, copy, numbers, plain};

#[test]
fn topics_of_a_service_are_made_filled_read_and_removed() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.run(&["topic", "ls"]).ok();
    let made = acme.run(&["topic", "create", "orders", "--partitions", "2", "--retention", "7d", "--compact"]).ok();
    assert_eq!(made.out, "made topic orders with 2 partitions\n");
    assert!(!server.folder.has(".wasmill/topics"), "nothing is made on this machine");
    acme.run(&["topic", "create", "orders"]).fails(1, &["orders"]);
    acme.run(&["topic", "create", "huge", "--partitions", "65"]).fails(2, &["1 to 64 partitions"]);
    acme.run(&["topic", "create", "odd", "--segment-bytes", "1MiB"]).fails(2, &["--segment-bytes", "WASMILL_SERVER"]);

    // More than the service takes at once.
    let lines: String =
        (0..40_000).map(|n| format!("{{\"customer\":\"c{}\",\"n\":{n},\"pad\":\"{:30}\"}}\n", n % 7, "")).collect();
    let said = acme.run_with(&["topic", "produce", "orders", "--key", "/customer", "--json"], &lines).ok();
    assert_eq!(said.json(), json!({"topic": "orders", "records": 40_000}));
    let one =
        acme.run_with(&["topic", "produce", "orders", "--partition", "1", "--fixed-key", "c"], "not JSON\n\u{1F980}\n");
    one.ok();
    let bad = acme.run_with(&["topic", "produce", "orders", "--key", "/customer"], "{\"customer\":1}\n[]\n");
    bad.fails(1, &["line 2: there is no /customer", "appended before it: 1 record"]);
    acme.run_with(&["topic", "produce", "nothing"], "x\n").fails(2, &["there is no topic nothing"]);

    let seen = acme.run(&["topic", "consume", "orders"]).ok().out;
    let mut seen: Vec<&str> = seen.lines().collect();
    let mut wanted: Vec<&str> = lines.lines().chain(["not JSON", "\u{1F980}", "{\"customer\":1}"]).collect();
    seen.sort_unstable();
    wanted.sort_unstable();
    assert!(seen == wanted, "{} records of {}", seen.len(), wanted.len());
    let last = acme.run(&["topic", "consume", "orders", "--partition", "1", "--json"]).ok().out;
    let crab = last.lines().find(|line| line.contains('\u{1F980}')).expect("it is there");
    let crab: Value = serde_json::from_str(crab).expect("JSON");
    assert_eq!((&crab["key"], &crab["text"], &crab["partition"]), (&json!("c"), &json!("\u{1F980}"), &json!(1)));
    let offset = crab["offset"].to_string();
    let from = ["topic", "consume", "orders", "--partition", "1", "--from", &offset, "--limit", "1"];
    assert_eq!(acme.run(&from).ok().out, "\u{1F980}\n");
    assert_eq!(acme.run(&["topic", "consume", "orders", "--from", "latest"]).ok().out, "");
    acme.run(&["topic", "consume", "orders", "--partition", "9"]).fails(2, &["no partition 9"]);
    acme.run(&["topic", "consume", "orders", "--group", "g"]).fails(2, &["--group", "this machine"]);
    acme.run(&["topic", "compact", "orders"]).fails(2, &["compact is for topics of this machine"]);

    let shown = acme.run(&["topic", "describe", "orders", "--json"]).ok().json();
    assert_eq!((&shown["compact"], shown["partitions"].as_array().map(Vec::len)), (&json!(true), Some(2)), "{shown}");
    let text = acme.run(&["topic", "describe", "orders"]).ok().out;
    assert!(text.starts_with("orders: keeps records for 7d; keeps the last record of each key"), "{text}");
    let listed = acme.run(&["topic", "ls", "--json"]).ok().json();
    assert_eq!((&listed[0]["topic"], &listed[0]["records"]), (&json!("orders"), &json!(40_003)));
    acme.run(&["topic", "delete", "orders", "--group", "g"]).fails(2, &["no group g"]);
    acme.run(&["topic", "delete", "orders"]).ok();
    acme.run(&["topic", "describe", "orders"]).fails(2, &["there is no topic orders"]);
}

#[test]
fn dead_letters_of_a_service_are_listed_shown_replayed_and_dropped() {
    let server = Server::start();
    let acme = server.tenant("acme");
    acme.make_topic("in");
    let expression = "config = { expression = 'if .n % 2 == 0 then error(\"even\") else . end' }";
    acme.deploy("bad", &copy("bad", "std:map", expression)).is(201);
    acme.produce("in", 0..6);
    server.until("rows are rejected", || acme.get("/v1/jobs/bad").body["status"]["nodes"][1]["rejected"] == 3);
    let dlq = |more: &[&str]| acme.run(&[&["dlq"], more, &["--job", "bad"]].concat());

    let text = dlq(&["ls"]).ok().out;
    assert!(text.starts_with("3 dead letters in bad\n") && text.contains("even"), "{text}");
    let listed = dlq(&["ls", "--limit", "2", "--json"]).ok().json();
    assert_eq!((&listed["total"], &listed["groups"][0]["count"], &listed["next"]), (&json!(3), &json!(3), &json!(2)));
    assert_eq!(dlq(&["ls", "--node", "out", "--json"]).ok().json()["total"], 0);
    let shown = dlq(&["show", "1"]).ok().out;
    assert!(shown.contains("row of input 0") && shown.contains("{\"n\":2}"), "{shown}");
    dlq(&["show", "9"]).fails(2, &["there is no dead letter 9"]);
    assert_eq!(dlq(&["drop", "1-2"]).ok().out, "2 dead letters dropped\n");
    dlq(&["drop", "1-2"]).fails(2, &["there is no dead letter from 1 to 2"]);
    dlq(&["drop"]).fails(2, &["--all"]);

    // Mended, it is processed after all. Before that it would be rejected again: the job runs on at once.
    acme.deploy("bad", &copy("bad", "std:map", "config = { expression = '.' }")).is(200);
    assert_eq!(dlq(&["replay", "--node", "work"]).ok().out, "1 row to be processed again when the job runs next\n");
    server.until("the row is there", || acme.values("out").len() >= 4);
    let mut out = acme.values("out");
    out.sort_by_key(|row| row["n"].as_u64());
    assert_eq!(out, [numbers(0..2), numbers(3..4), numbers(5..6)].concat());
    acme.run(&["dlq", "ls"]).fails(2, &["--state"]);
}

#[test]
fn a_log_is_followed_while_the_job_goes_on() {
    let server = Server::start();
    let acme = server.tenant("acme");
    // It says, each time, that the topic is not there.
    acme.deploy("copy", &plain("copy")).is(201);
    acme.until_phase("copy", "failed");
    let mut child = acme.command(&["logs", "copy", "--follow"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("read");
    assert!(next().contains("there is no topic in"));
    acme.send("POST", "/v1/jobs/copy/resume", b"").is(200);
    assert!(next().contains("there is no topic in"));
    child.kill().expect("killed");
    child.wait().expect("it ends");
}
