//! `--state`: a job that died goes on behind its last epoch.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use rustix::process::Signal;

use crate::stop::tell;
use crate::support::{Done, Folder, guest, job, three_events};

const RUN: [&str; 5] = ["run", "job.toml", "--state", "state", "--json"];

/// Copies standard input, and ends an epoch every millisecond. A copy on standard output shows how
/// far it is.
const FOLLOW: &str = "name = \"copy\"\nepoch = { interval = \"1ms\" }\n[source.in]\nconnector = \"file\"\n\
                      path = \"in.jsonl\"\nfollow = true\n[sink.out]\nconnector = \"file\"\n\
                      path = \"out.jsonl\"\ninput = \"in\"\n[sink.seen]\nconnector = \"stdout\"\ninput = \"in\"\n";

#[test]
fn killed_it_goes_on_behind_its_last_epoch() {
    let folder = Folder::new().with("job.toml", FOLLOW).with("in.jsonl", "");
    let mut input = std::fs::File::options().append(true).open(folder.path().join("in.jsonl")).expect("there");
    let mut wanted = String::new();
    // The first and the last life are stopped, so that something is committed for sure.
    for (life, killed) in [false, true, true, false].into_iter().enumerate() {
        let mut child = folder.command().args(&RUN[..4]).stdin(Stdio::null()).spawn().expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let line = format!("{{\"life\":{life}}}\n");
        input.write_all(line.as_bytes()).expect("written");
        wanted.push_str(&line);
        let mut seen = String::new();
        while !seen.ends_with(&line) {
            assert_ne!(output.read_line(&mut seen).expect("rows"), 0, "it ended");
        }
        if killed {
            child.kill().expect("killed");
        } else {
            tell(&child, Signal::INT);
        }
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("it speaks");
        assert_eq!(child.wait().expect("it ends").success(), !killed, "{said}");
        assert_eq!(said.starts_with("resuming at epoch "), life > 0, "{said}");
        assert_eq!(folder.read("out.jsonl"), "{\"life\":0}\n", "committed rows stay as they are");
        assert_eq!(folder.has("out-1.jsonl"), life == 3, "a file that is not finished is not shown");
    }
    assert_eq!(folder.read("out.jsonl") + &folder.read("out-1.jsonl"), wanted);
}

#[test]
fn a_finished_job_says_so_and_does_nothing() {
    let folder = three_events(None);
    let summary = folder.run(&RUN).ok().json();
    assert_eq!((&summary["outcome"], &summary["resumed_at"]), (&"finished".into(), &serde_json::Value::Null));
    let rows = folder.read("out.jsonl");
    std::fs::write(folder.path().join("in.jsonl"), "{\"k\":\"d\"}\n").expect("written");
    assert_eq!(folder.run(&RUN).ok().json()["outcome"], "already-finished");
    let done = folder.run(&RUN[..4]).ok();
    assert!(done.err.contains("test has finished"), "{}", done.err);
    assert_eq!(folder.read("out.jsonl"), rows);
    let fresh = ["run", "job.toml", "--state", "state", "--json", "--fresh"];
    assert_eq!(folder.run(&fresh).ok().json()["outcome"], "finished");
    assert_eq!(folder.read("out.jsonl"), "{\"k\":\"d\"}\n");
}

#[test]
fn two_runs_cannot_share_a_state_directory() {
    let folder = Folder::new().with("job.toml", FOLLOW).with("in.jsonl", "{}\n");
    let mut child = folder.command().args(&RUN[..4]).stdin(Stdio::null()).spawn().expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    output.read_line(&mut String::new()).expect("a row");
    folder.run(&RUN[..4]).fails(2, &[&format!("state is in use by process {}", child.id()), "stop the job"]);
    child.kill().expect("killed");
    child.wait().expect("it ends");
}

#[test]
fn rejected_rows_are_those_of_the_store() {
    let folder = Folder::new()
        .with("job.toml", job(None).replace("key = \"/k\"", "key = \"/k\"\ntime = { field = \"/t\", unit = \"ms\" }"))
        .with("in.jsonl", "{\"k\":\"a\",\"t\":1}\nnonsense\n{\"k\":\"b\",\"t\":2}\n");
    let summary = folder.run(&RUN).ok().json();
    assert_eq!(summary["rejected"], 1);
    let path = ".wasmill/test/dead-letters.jsonl";
    let rejected = folder.read(path);
    assert!(rejected.lines().count() == 1 && rejected.contains("nonsense"), "{rejected}");
    let mut half = rejected.clone();
    write!(half, "{{\"node\":\"half a li").expect("text");
    std::fs::write(folder.path().join(path), half).expect("written");
    folder.run(&RUN).ok();
    assert_eq!(folder.read(path), rejected);
}

#[test]
fn a_job_that_failed_goes_on_once_its_plugin_is_mended() {
    let trap = guest("process", "unreachable");
    let folder = three_events(Some("faults = { in_a_row = 0 }")).with("plugin.wasm", trap);
    folder.run(&RUN[..4]).fails(1, &["trapped"]);
    assert!(!folder.has("out.jsonl"));
    let folder = folder.with("plugin.wasm", guest("no-such-function", ""));
    folder.run(&RUN).ok();
    assert_eq!(folder.read("out.jsonl").lines().count(), 3);
}

#[test]
fn what_is_promised_depends_on_the_state() {
    let folder =
        Folder::new().with("job.toml", FOLLOW.replace("[sink.seen]\nconnector = \"stdout\"\ninput = \"in\"\n", ""));
    let folder = folder.with("in.jsonl", "");
    let gives = |arguments: &[&str]| folder.run(arguments).ok().json()["delivery"].clone();
    assert_eq!(gives(&["check", "job.toml", "--json"]), "at-least-once");
    assert_eq!(gives(&["check", "job.toml", "--json", "--state", "state"]), "exactly-once");
    assert!(!folder.has("state"), "looking makes nothing");
    let asks = format!("delivery = \"exactly-once\"\n{}", folder.read("job.toml"));
    let folder = folder.with("job.toml", asks);
    folder.run(&["run", "job.toml"]).fails(2, &["the weakest link is recovery", "--state DIR"]);
    let done: Done = folder.run(&["run", "job.toml", "--fresh"]);
    assert_eq!(done.code, Some(2), "{}", done.err);
}
