//! A plugin beside the one of a stage with windows: its panes are compared, or its keys are folded by it.

use serde_json::Value;

use crate::control::append;
use crate::support::{Done, Folder};
use crate::swap::{Running, marked};

/// Counts what is appended to a file, by key and ten seconds.
const JOB: &str = "name = \"beside\"\ndelivery = \"at-least-once\"\nepoch = { interval = \"1h\" }\n\
    [source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nfollow = true\ntime = { field = \"/t\", unit = \"s\" }\n\
    [stage.count]\nplugin = \"v1.wasm\"\ninput = { from = \"in\", key = \"/k\" }\nparallelism = 2\n\
    window = { tumbling = \"10s\" }\n\
    [sink.seen]\nconnector = \"stdout\"\ninput = \"count\"\n";

const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

fn folder() -> Folder {
    let folder = Folder::new().with("job.toml", JOB).with("in.jsonl", "");
    ["v1", "v2", "same", "bug", "boom"]
        .into_iter()
        .fold(folder, |folder, name| folder.with(&format!("{name}.wasm"), marked("versions-window", name)))
}

/// Starts the job, and waits until it listens.
fn start(folder: &Folder) -> Running {
    let running = Running::start(folder);
    assert!((0..1_000).any(|_| folder.run(&["status", "state"]).code == Some(0)), "it does not start");
    running
}

fn swap(folder: &Folder, more: &[&str]) -> Done {
    folder.run(&[&["swap", "state", "count"], more].concat())
}

fn report(folder: &Folder) -> Value {
    swap(folder, &["--report", "--json"]).ok().json()
}

fn event(folder: &Folder, key: &str, second: u32) {
    append(folder, &format!("{{\"k\":\"{key}\",\"t\":{second}}}"));
}

/// Rows of one firing, in the order of their keys.
fn panes(running: &mut Running, count: usize) -> Vec<String> {
    let mut rows: Vec<String> = (0..count).map(|_| running.row("none").trim_end().to_owned()).collect();
    rows.sort();
    rows
}

/// Every key with the same count; by version.
fn all_with(rows: &[String], count: u32) -> Vec<&str> {
    assert_eq!(rows.len(), KEYS.len());
    let version = |(row, key): (&'_ String, &&str)| -> usize {
        let of = format!("{key}|{count}|");
        assert!(row.starts_with(&of), "{of}: {rows:?}");
        of.len()
    };
    let at: Vec<usize> = rows.iter().zip(&KEYS).map(version).collect();
    rows.iter().zip(at).map(|(row, at)| &row[at..]).collect()
}

/// Asks for the epoch to end: the job makes none by itself.
fn end_epoch(folder: &Folder) {
    folder.run(&["savepoint", "create", "--state", "state"]).ok();
}

#[test]
fn a_shadow_of_a_window_finds_a_bug_and_is_refused_with_the_panes_that_differ() {
    let folder = folder();
    let mut running = start(&folder);
    // What was folded before it began is in its windows too.
    event(&folder, "a", 1);
    event(&folder, "b", 2);
    event(&folder, "a", 11);
    assert_eq!(panes(&mut running, 2), ["a|1|v1", "b|1|v1"]);
    event(&folder, "b", 12);
    let begun = swap(&folder, &["bug.wasm", "--shadow", "--json"]).ok().json();
    assert_eq!((&begun["mode"], &begun["state"]), (&"shadow".into(), &"running".into()), "{begun}");
    append(&folder, "{\"k\":\"a\",\"t\":13,\"odd\":1}");
    swap(&folder, &["--promote"]).fails(1, &["nothing was compared", "no window has fired"]);
    event(&folder, "b", 21);
    assert_eq!(panes(&mut running, 2), ["a|2|v1", "b|1|v1"]);
    let seen = || report(&folder);
    assert!((0..1_000).any(|_| seen()["compared"]["rows"] == 2), "{}", seen());
    let seen = seen();
    assert_eq!((&seen["differences"]["changed"], &seen["differences"]["total"]), (&1.into(), &1.into()), "{seen}");
    let row = &seen["rows"][0];
    assert_eq!((&row["kind"], &row["key"], &row["old"]["time"]), (&"changed".into(), &"a".into(), &19_999_999.into()));
    assert_eq!((&row["old"]["value"], &row["new"]["value"]), (&"a|2|v1".into(), &"a|3|v1".into()), "{seen}");
    let why = ["it does not do what the old one does", "old a|2|v1, new a|3|v1"];
    swap(&folder, &["--promote"]).fails(1, &why);
    assert_eq!(swap(&folder, &["--rollback", "--json"]).ok().json()["state"], "rolled-back");

    // One that does the same takes over, with the accumulators as they are.
    swap(&folder, &["same.wasm", "--shadow"]).ok();
    event(&folder, "b", 22);
    event(&folder, "a", 31);
    assert_eq!(panes(&mut running, 1), ["b|2|v1"]);
    event(&folder, "a", 32);
    assert!((0..1_000).any(|_| report(&folder)["compared"]["rows"] == 1));
    let taken = swap(&folder, &["--promote", "--json"]).ok().json();
    assert!(taken["to"].is_string() && taken["beside"]["differences"]["total"] == 0, "{taken}");
    event(&folder, "a", 41);
    assert_eq!(panes(&mut running, 1), ["a|2|v1"]);
    let status = folder.run(&["status", "state", "--json"]).ok().json();
    assert_eq!(status["nodes"][1]["plugin"], taken["to"], "{status}");
    running.kill();
}

#[test]
fn a_canary_of_a_window_folds_its_keys_and_a_crash_leaves_what_was_committed() {
    let folder = folder();
    let mut running = start(&folder);
    let events = |second| KEYS.iter().for_each(|key| event(&folder, key, second));
    events(1);
    let begun = swap(&folder, &["v2.wasm", "--canary", "50%", "--json"]).ok().json();
    assert_eq!((&begun["mode"], &begun["key_groups"]), (&"canary".into(), &128.into()), "{begun}");
    events(2);
    event(&folder, "a", 11);
    let rows = panes(&mut running, KEYS.len());
    let versions = all_with(&rows, 2);
    assert!(versions.contains(&"v1") && versions.contains(&"v2"), "{rows:?}");
    // By hand: the old one goes on, with what the other has folded.
    events(12);
    swap(&folder, &["--rollback"]).ok();
    append(&folder, "{\"k\":\"b\",\"t\":21}");
    let rows = panes(&mut running, KEYS.len());
    assert_eq!(rows[0], "a|2|v1");
    assert!(rows[1..].iter().all(|row| row.ends_with("|1|v1")), "{rows:?}");

    // Killed while it runs: the recorded version goes on, with what both had folded in the last epoch.
    swap(&folder, &["v2.wasm", "--canary", "50%"]).ok();
    events(22);
    end_epoch(&folder);
    running.kill();
    let mut running = start(&folder);
    event(&folder, "c", 31);
    let rows = panes(&mut running, KEYS.len());
    assert_eq!(rows[1], "b|2|v1");
    assert!(rows.iter().enumerate().all(|(at, row)| at == 1 || row.ends_with("|1|v1")), "{rows:?}");
    swap(&folder, &["--report"]).fails(1, &["nothing runs beside"]);
    running.kill();
}

#[test]
fn a_canary_of_a_window_that_fails_takes_the_job_back_to_what_was_committed() {
    let folder = folder();
    let mut running = start(&folder);
    swap(&folder, &["boom.wasm", "--canary", "50%"]).ok();
    KEYS.iter().for_each(|key| event(&folder, key, 1));
    end_epoch(&folder);
    // What comes behind the last epoch is folded again, by the old one, into the accumulators as committed.
    KEYS.iter().for_each(|key| append(&folder, &format!("{{\"k\":\"{key}\",\"t\":2,\"boom\":1}}")));
    event(&folder, "a", 11);
    let rows = panes(&mut running, KEYS.len());
    assert!(all_with(&rows, 2).iter().all(|version| *version == "v1"), "{rows:?}");
    let ended = report(&folder);
    assert_eq!(ended["state"], "rolled-back", "{ended}");
    assert!(ended["reason"].as_str().is_some_and(|why| why.contains("failed")), "{ended}");
    running.kill();
}
