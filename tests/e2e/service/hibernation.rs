//! Jobs that have nothing to do are out of memory, and come back with everything.

use rustix::process::Signal;
use serde_json::{Value, json};
use wasmill_env::{Clock as _, RealClock};

use super::{As, Server, copy, numbers, path, plain};
use crate::support::Folder;

const SOON: [&str; 2] = ["--hibernate-after", "1s"];

/// How often the job was started since the service was.
fn starts(acme: &As<'_>, job: &str) -> usize {
    let lines = acme.get(&format!("/v1/jobs/{job}/logs?limit=1000")).is(200).body;
    lines.as_array().expect("lines").iter().filter(|line| line["message"] == "the job runs").count()
}

#[test]
fn a_job_without_rows_rests_and_wakes_on_the_next() {
    let server = Server::start_in(Folder::new(), &SOON);
    let acme = server.tenant("acme");
    acme.make_topic("in");
    acme.deploy("copy", &plain("copy")).is(201);
    for round in 0..3 {
        acme.until_phase("copy", "hibernating");
        let usage = acme.get("/v1/usage").is(200).body;
        assert_eq!((&usage["has"]["jobs"], &usage["has"]["hibernating"]), (&json!(1), &json!(1)), "{usage}");
        assert!(acme.get("/v1/jobs/copy").body["status"].is_null(), "there is nobody to ask");
        acme.produce("in", round * 10..(round + 1) * 10);
        server.until("it has woken", || acme.values("out") == numbers(0..(round + 1) * 10));
    }
    // A machine that is busy may let it rest once more before its rows are there.
    server.until("each wake is counted", || {
        let metrics = server.operator().get("/metrics").is(200).text;
        let woke = metrics.lines().find(|line| line.starts_with("wasmill_hibernation_wakes_total")).expect("counted");
        let woke: usize = woke.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        // The first start is none.
        woke >= 3 && woke + 1 == starts(&acme, "copy")
    });

    // Who wants something of it wakes it.
    acme.until_phase("copy", "hibernating");
    let same = acme.post("/v1/jobs/copy/swap", &json!({"stage": "work", "plugin": "std:filter"})).is(409);
    assert!(same.text.contains("runs with that plugin already"), "{}", same.text);
    acme.until_phase("copy", "hibernating");
    assert_eq!(acme.send("POST", "/v1/jobs/copy/pause", b"").is(200).body["desired"], "paused");
    acme.produce("in", 30..40);
    acme.send("POST", "/v1/jobs/copy/resume", b"").is(200);
    server.until("rows are copied", || acme.values("out") == numbers(0..40));
    acme.until_phase("copy", "hibernating");
    assert_eq!(acme.send("POST", "/v1/jobs/copy/stop", b"").is(200).body["phase"], "stopped");
    acme.produce("in", 40..50);
    acme.send("POST", "/v1/jobs/copy/resume", b"").is(200);
    server.until("rows are copied", || acme.values("out") == numbers(0..50));
    acme.until_phase("copy", "hibernating");
    assert!(server.folder.has("data/tenants/acme/jobs/copy/asleep.json"));
    acme.send("POST", "/v1/jobs/copy/drain", b"").is(200);
    acme.until_phase("copy", "finished");
    acme.send("DELETE", "/v1/jobs/copy", b"").is(204);
    acme.produce("in", 50..60);
    assert_eq!(acme.values("out"), numbers(0..50));
}

#[test]
fn a_job_that_rests_wakes_when_a_timer_is_due() {
    let mut server = Server::start_in(Folder::new(), &SOON);
    let (token, rows, fired) = {
        let acme = server.tenant("acme");
        acme.make_topic("in");
        let more = "config = { count = true }\nwindow = { tumbling = \"30d\", early = { wall = \"12s\" } }";
        acme.deploy("early", &copy("early", "std:aggregate", more)).is(201);
        // It fires at multiples of the time: maybe before it rests.
        let mut rows = 0;
        server.until_some(|| {
            acme.produce("in", rows..rows + 1);
            rows += 1;
            acme.until_phase("early", "hibernating");
            // It may be about to wake.
            let asleep = path(&server.folder, "data/tenants/acme/jobs/early/asleep.json");
            let asleep = std::fs::read_to_string(asleep).ok()?;
            let asleep: Value = serde_json::from_str(asleep.lines().nth(1).expect("a record")).expect("JSON");
            asleep["due"].as_i64().filter(|due| *due > RealClock::default().wall().0 + 6_000_000)
        });
        (acme.token.clone(), rows, acme.values("out").len())
    };
    // The timer is due though nobody has run since.
    server.signal(Signal::KILL);
    assert_eq!(server.wait(), None);
    server.launch(&SOON);
    let acme = server.with_token(&token);
    server.until("the window fires by the clock", || acme.values("out").len() == fired + 1);
    assert_eq!(acme.values("out")[fired]["count"], rows);
    acme.until_phase("early", "hibernating");
    assert_eq!(starts(&acme, "early"), 1, "it has woken once");
}

/// Killed at each step of going to rest and of waking, and while it rests, the job loses and doubles nothing.
#[test]
fn a_service_that_is_killed_while_a_job_rests_or_wakes_misses_nothing() {
    let mut server = Server::start_in(Folder::new(), &SOON);
    let token = {
        let acme = server.tenant("acme");
        acme.make_topic("in");
        acme.deploy("copy", &plain("copy")).is(201);
        acme.until_phase("copy", "hibernating");
        acme.token
    };
    let mut rows = 0;
    // Before it is known that it rests, behind that, and between what wakes it and the start.
    for point in ["serve-job-rests:1", "serve-job-asleep:1", "serve-job-wakes:1", ""] {
        server.signal(Signal::KILL);
        assert_eq!(server.wait(), None);
        let variables: &[(&str, &str)] = if point.is_empty() { &[] } else { &[("WASMILL_KILL", point)] };
        server.launch_with(&SOON, variables);
        let acme = server.with_token(&token);
        // The service may be gone before it has answered: what it has taken is taken.
        let lines: String = (rows..rows + 10).map(|n| format!("{{\"key\":\"k\",\"value\":{{\"n\":{n}}}}}\n")).collect();
        let taken = acme.send("POST", "/v1/topics/in/records", lines.as_bytes()).status;
        assert!(taken == 201 || !point.is_empty(), "{taken}");
        if point.is_empty() {
            acme.until_phase("copy", "hibernating");
        } else {
            assert_eq!(server.wait(), None, "killed at {point}");
            server.launch(&SOON);
        }
        let acme = server.with_token(&token);
        let expected = numbers(0..rows + 10);
        server.until("rows are copied", || acme.values("out").len() >= expected.len());
        assert_eq!(acme.values("out"), expected, "{point}");
        acme.until_phase("copy", "hibernating");
        rows += 10;
    }
    // One that rested is not started with the service, where there is nothing new.
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    server.launch(&SOON);
    let acme = server.with_token(&token);
    assert_eq!((acme.phase("copy").as_str(), starts(&acme, "copy")), ("hibernating", 0));
    acme.produce("in", rows..rows + 1);
    server.until("it wakes", || acme.values("out") == numbers(0..rows + 1));
}

/// Jobs that find no instance free wait for one, and make up for it.
#[test]
fn more_jobs_than_instances_wait_for_their_turn() {
    let server = Server::start_in(Folder::new(), &["--instances", "2"]);
    let acme = server.tenant("acme");
    acme.make_topic("in");
    acme.produce("in", 0..10);
    for job in ["one", "two", "three"] {
        acme.deploy(job, &plain(job).replace("topic = \"out\"", &format!("topic = \"of-{job}\""))).is(201);
        if job != "three" {
            server.until("rows are copied", || acme.values(&format!("of-{job}")) == numbers(0..10));
        }
    }
    acme.until_phase("three", "waiting");
    let view = acme.get("/v1/jobs/three").body.to_string();
    assert!(view.contains("no instance is free"), "{view}");
    assert_eq!(acme.values("of-three"), numbers(0..0));

    acme.send("POST", "/v1/jobs/one/stop", b"").is(200);
    server.until("rows are copied", || acme.values("of-three") == numbers(0..10));
}
