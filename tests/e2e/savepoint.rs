//! Savepoints: one file that goes on at another parallelism, on the other backend, in a changed job.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::Signal;

use crate::stop::tell;
use crate::support::Folder;

/// Shows each key once, and goes on with what is appended.
fn job(parallelism: u16, state: &str, more: &str) -> String {
    format!(
        "name = \"first\"\nepoch = {{ interval = \"5ms\" }}\nstate = {state}\n\
         [source.in]\nconnector = \"file\"\npath = \"in.jsonl\"\nfollow = true\n\
         [stage.once]\nplugin = \"std:dedup\"\ninput = {{ from = \"in\", key = \"/k\" }}\n\
         config = {{ within = \"7d\", clock = \"processing\" }}\nparallelism = {parallelism}\n{more}\
         [sink.seen]\nconnector = \"stdout\"\ninput = \"once\"\n"
    )
}

const MEMORY: &str = "{ backend = \"memory\" }";
const DISK: &str = "{ backend = \"disk\", cache = \"1MiB\" }";

/// Runs until so many rows have come out, and stops at an epoch. Returns the rows, sorted.
fn rows(folder: &Folder, state: &str, rows: usize) -> Vec<String> {
    let run = ["run", "job.toml", "--state", state, "--allow-dropped"];
    let mut child = folder.command().args(run).stdin(Stdio::null()).spawn().expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut seen = Vec::new();
    for _ in 0..rows {
        let mut line = String::new();
        assert_ne!(output.read_line(&mut line).expect("rows"), 0, "it ended after {seen:?}");
        seen.push(line.trim_end().to_owned());
    }
    tell(&child, Signal::INT);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).expect("it ends");
    assert_eq!(rest, "", "after {seen:?}");
    assert!(child.wait().expect("it ends").success());
    seen.sort();
    seen
}

#[test]
fn a_savepoint_goes_on_at_any_parallelism_on_any_backend_and_in_a_changed_job() {
    for (backend, parallelism) in [(MEMORY, 1), (DISK, 2)] {
        let keys: String = (0..200).map(|key| format!("{{\"k\":\"{key}\"}}\n")).collect();
        let folder = Folder::new().with("job.toml", job(parallelism, backend, "")).with("in.jsonl", &keys);
        assert_eq!(rows(&folder, "state", 200).len(), 200);
        let made = folder.run(&["savepoint", "create", "--state", "state", "here.savepoint", "--json"]).ok().json();
        let told = folder.run(&["savepoint", "inspect", "here.savepoint", "--json"]).ok().json();
        assert_eq!((&told["job"], &told["epoch"]), (&"first".into(), &made["epoch"]));
        let spaces = told["stages"]["once"]["spaces"].as_object().expect("spaces");
        let entries: u64 = spaces.values().filter_map(|held| held["entries"].as_u64()).sum();
        assert_eq!(entries, 200, "{told}");
        // Every old key again, and one more.
        let folder = folder.with("in.jsonl", format!("{keys}{keys}{{\"k\":\"new\"}}\n"));
        let another = "[stage.other]\nplugin = \"std:dedup\"\ninput = { from = \"in\", key = \"/k\" }\n\
                       config = { within = \"7d\" }\n[sink.nowhere]\nconnector = \"blackhole\"\ninput = \"other\"\n";
        for (place, (parallelism, state, more)) in
            [(1, MEMORY, ""), (2, DISK, ""), (4, MEMORY, another), (4, DISK, another), (1, DISK, "")].iter().enumerate()
        {
            let dir = format!("state-{place}");
            folder.run(&["savepoint", "restore", "here.savepoint", "--state", &dir]).ok();
            let job = job(*parallelism, state, more);
            std::fs::write(folder.path().join("job.toml"), job).expect("written");
            assert_eq!(rows(&folder, &dir, 1), ["{\"k\":\"new\"}"], "parallelism {parallelism}, state {state}");
        }
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = Folder::new().with("job.toml", job(1, MEMORY, "")).with("in.jsonl", "{\"k\":\"a\"}\n");
    folder.run(&["savepoint", "create", "--state", "state"]).fails(2, &["there is no state directory state"]);
    rows(&folder, "state", 1);
    folder.run(&["savepoint", "create", "--state", "state"]).ok();
    let listed = folder.run(&["savepoint", "ls", "--state", "state", "--json"]).ok().json();
    let file = listed["savepoints"][0]["file"].as_str().expect("one").to_owned();
    folder.run(&["savepoint", "restore", &file, "--state", "state"]).fails(2, &["already holds a job"]);
    let path = folder.path().join(&file);
    let mut bytes = std::fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    folder.run(&["savepoint", "inspect", &file]).fails(1, &["is damaged at byte"]);
    folder.run(&["savepoint", "restore", &file, "--state", "other"]).fails(1, &["is damaged at byte"]);
}
