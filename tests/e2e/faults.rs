//! Plugins that fail on some rows: the others go on, and `dlq` has the rest.

use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Folder, built_guest, job};

const RUN: [&str; 5] = ["run", "job.toml", "--state", "state", "--json"];
/// What the third of each key is told to do.
const TOLD: [&str; 5] = ["trap", "loop", "fail", "hoard", "reject"];
const LETTERS: &str = ".wasmill/test/dead-letters.jsonl";
const STAGE: &str = "limits = { call = \"250ms\", memory = \"16MiB\" }";

/// Five keys with five events each, of which the third is told to do something.
fn input() -> String {
    let line = |row: usize| match row {
        10..15 => format!("{{\"k\":\"{}\",\"do\":\"{}\"}}\n", row % 5, TOLD[row % 5]),
        _ => format!("{{\"k\":\"{}\"}}\n", row % 5),
    };
    (0..25).map(line).collect()
}

fn counting() -> Folder {
    Folder::new()
        .with("job.toml", job(Some(STAGE)))
        .with("in.jsonl", input())
        .with("plugin.wasm", built_guest("faults"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn rows_beside_those_that_fail_go_on_once_in_order() {
    let folder = counting();
    let summary = folder.run(&RUN).ok().json();
    assert_eq!(summary["rejected"], 5);
    let counts: String = (1..5).flat_map(|count| [count; 5]).map(|count| format!("{count}\n")).collect();
    assert_eq!(folder.read("out.jsonl"), counts);
    let letters = lines(&folder.read(LETTERS));
    let kinds: Vec<_> = letters.iter().map(|letter| letter["kind"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["trap", "timeout", "error", "limit", "rejected"]);
    for (place, letter) in letters.iter().enumerate() {
        assert_eq!(letter["value"], format!("{{\"k\":\"{place}\",\"do\":\"{}\"}}", TOLD[place]));
        assert_eq!(
            (&letter["node"], &letter["source"], &letter["key"]),
            (&"work".into(), &"in".into(), &place.to_string().into())
        );
        assert!(
            letter["offset"].is_u64() && letter["plugin"].as_str().is_some_and(|digest| digest.starts_with("sha256:"))
        );
    }
    assert!(letters[0]["reason"].as_str().is_some_and(|reason| reason.contains("told to trap")), "{}", letters[0]);
    assert!(letters[0]["stack"].as_array().is_some_and(|stack| !stack.is_empty()), "{}", letters[0]);
    assert!(letters[4].get("stack").is_none(), "{}", letters[4]);
}

#[test]
fn a_timer_that_traps_is_a_dead_letter() {
    let input = "{\"k\":\"a\",\"do\":\"timer\"}\n{\"k\":\"b\",\"do\":\"timer-trap\"}\n{\"k\":\"c\",\"do\":\"timer\"}\n";
    let folder = counting().with("in.jsonl", input);
    folder.run(&RUN).ok();
    assert_eq!(folder.read("out.jsonl"), "1\n1\n1\n2\n2\n");
    let letters = lines(&folder.read(LETTERS));
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(
        (&letter["subject"], &letter["key"], &letter["value"]),
        (&"timer".into(), &"b".into(), &"timer-trap".into())
    );
}

#[test]
fn rows_and_panes_of_a_window_that_fail_are_dead_letters() {
    let stage = "window = { tumbling = \"1m\" }";
    let input = "{\"k\":\"a\"}\n{\"k\":\"a\",\"do\":\"trap\"}\n{\"k\":\"cursed\"}\n{\"k\":\"a\"}\n{\"k\":\"b\"}\n";
    let folder = Folder::new()
        .with("job.toml", job(Some(stage)))
        .with("in.jsonl", input)
        .with("plugin.wasm", built_guest("faults-window"));
    folder.run(&RUN).ok();
    let mut counts: Vec<_> = folder.read("out.jsonl").lines().map(str::to_owned).collect();
    counts.sort();
    assert_eq!(counts, ["1", "2"]);
    let letters = lines(&folder.read(LETTERS));
    let what: Vec<_> = letters.iter().map(|letter| (letter["subject"].as_str(), letter["key"].as_str())).collect();
    assert_eq!(what, [(None, Some("a")), (Some("pane"), Some("cursed"))]);
}

#[test]
fn dead_letters_are_listed_shown_replayed_and_dropped() {
    let folder = counting();
    folder.run(&["dlq", "ls", "--state", "state"]).fails(2, &["state is no state directory of a job"]);
    folder.run(&RUN).ok();
    let list = || folder.run(&["dlq", "ls", "--state", "state", "--json"]).ok().json();
    let listed = list();
    assert_eq!((&listed["total"], &listed["next"]), (&5.into(), &Value::Null));
    assert_eq!(listed["groups"].as_array().map(Vec::len), Some(5));
    let page = folder.run(&["dlq", "ls", "--state", "state", "--json", "--from", "1", "--limit", "2"]).ok().json();
    assert_eq!((&page["letters"][0]["id"], &page["next"]), (&1.into(), &3.into()));
    let text = folder.run(&["dlq", "ls", "--state", "state"]).ok().out;
    assert!(text.starts_with("5 dead letters in state") && text.contains("timeout"), "{text}");
    let shown = folder.run(&["dlq", "show", "0", "--state", "state"]).ok().out;
    assert!(shown.contains("told to trap") && shown.contains("source in, partition 0, offset "), "{shown}");
    folder.run(&["dlq", "show", "9", "--state", "state"]).fails(2, &["there is no dead letter 9"]);

    folder.run(&["dlq", "drop", "1-2", "4", "--state", "state"]).ok();
    folder.run(&["dlq", "drop", "1", "--state", "state"]).fails(2, &["there is no dead letter 1"]);
    folder.run(&["dlq", "drop", "--state", "state"]).fails(2, &["--all"]);
    let said = folder.run(&["dlq", "replay", "--all", "--state", "state"]).ok().out;
    assert!(said.starts_with("2 rows to be processed again"), "{said}");
    assert_eq!(list()["letters"][0]["to_be_replayed"], true);

    // The plugin is as it was: they fail again, under new ids, once.
    let before = folder.read("out.jsonl");
    folder.run(&RUN).ok();
    let ids = |listed: &Value| {
        let letters = listed["letters"].as_array().expect("a list").clone();
        letters.into_iter().map(|letter| letter["id"].as_u64().expect("an id")).collect::<Vec<_>>()
    };
    assert_eq!(ids(&list()), [5, 6]);
    let offset =
        |id: &str| folder.run(&["dlq", "show", id, "--state", "state", "--json"]).ok().json()["offset"].clone();
    assert_eq!(offset("5"), listed["letters"][0]["offset"], "where it came from is known still");

    folder.run(&["dlq", "replay", "5-6", "--state", "state"]).ok();
    let folder = folder.with("job.toml", job(Some(&format!("{STAGE}\nconfig = {{ mended = true }}"))));
    let summary = folder.run(&RUN).ok().json();
    assert_eq!(summary["rejected"], 0);
    assert_eq!(folder.run(&["dlq", "ls", "--state", "state"]).ok().out, "nothing: every row was processed\n");
    assert_eq!(folder.run(&RUN).ok().json()["outcome"], "already-finished");
    let all: String = folder.results();
    assert_eq!(all.strip_prefix(&before), Some("5\n5\n"), "each counts on where its key stood");
}

#[test]
fn dead_letters_of_a_running_job_are_refused() {
    let folder = Folder::new()
        .with("job.toml", job(None).replace("path = \"in.jsonl\"", "path = \"in.jsonl\"\nfollow = true"))
        .with("in.jsonl", "{}\n");
    let mut child = folder.command().args(&RUN[..4]).stdin(Stdio::null()).spawn().expect("it starts");
    // It answers: it has its state.
    while folder.run(&["status", "state"]).code != Some(0) {
        assert!(child.try_wait().expect("it is there").is_none(), "it ended");
    }
    for command in [&["dlq", "ls"][..], &["dlq", "show", "0"], &["dlq", "drop", "--all"], &["dlq", "replay", "--all"]] {
        let arguments: Vec<&str> = command.iter().copied().chain(["--state", "state"]).collect();
        folder.run(&arguments).fails(2, &["state is in use by process", "stop the job"]);
    }
    child.kill().expect("killed");
    child.wait().expect("it ends");
}

#[test]
fn a_verdict_counts_with_its_epoch_alone() {
    // Killed once the rows are judged and before the epoch is durable, and right after.
    for point in ["stages-cut:1", "cuts-complete:1", "frame-appended:1", "epoch-durable:1"] {
        let folder = counting();
        let mut command = folder.command();
        let died = command.args(&RUN[..4]).env("WASMILL_KILL", point).status().expect("it runs");
        assert_eq!(died.signal(), Some(Signal::KILL.as_raw()), "{point}");
        folder.run(&RUN).ok();
        let listed = folder.run(&["dlq", "ls", "--state", "state", "--json"]).ok().json();
        assert_eq!(listed["total"], 5, "{point}");
        let counts: String = (1..5).flat_map(|count| [count; 5]).map(|count| format!("{count}\n")).collect();
        assert_eq!(folder.results(), counts, "{point}");
        assert_eq!(folder.read(LETTERS).lines().count(), 5, "{point}");
    }
}
