//! A plugin beside the one of a stage of a running job: a shadow that is compared, a canary that has a
//! share of the keys, and what promotes and ends them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::control::append;
use crate::support::Folder;
use crate::swap::{Running, folder, version};

/// A folder with more versions: one that does the same, one with a bug, one that cannot take some rows.
fn more() -> Folder {
    let names = ["same", "bug", "boom", "loop", "migrate"];
    names.into_iter().fold(folder(), |folder, name| folder.with(&format!("{name}.wasm"), version(name)))
}

fn report(folder: &Folder) -> Value {
    folder.run(&["swap", "state", "count", "--report", "--json"]).ok().json()
}

fn swap(folder: &Folder, more: &[&str]) -> crate::support::Done {
    folder.run(&[&["swap", "state", "count"], more].concat())
}

/// Asks again and again.
fn until(is: impl Fn() -> bool) {
    assert!((0..1_000).any(|_| is()), "it never is");
}

/// Asks for the epoch to end: the job makes none by itself.
fn end_epoch(folder: &Folder) {
    folder.run(&["savepoint", "create", "--state", "state"]).ok();
}

#[test]
fn a_shadow_finds_a_bug_and_is_refused_with_the_rows_that_differ() {
    let folder = more();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    swap(&folder, &["--report"]).fails(1, &["nothing runs beside the plugin of stage `count`", "--shadow"]);
    swap(&folder, &["bug.wasm", "--promote"]).fails(2, &["--promote goes with --shadow or --canary"]);
    swap(&folder, &["bug.wasm", "--shadow", "--promote"]).fails(2, &["it needs a span"]);
    swap(&folder, &["bug.wasm", "--shadow=5parsecs"]).fails(2, &["write a time as 30s"]);
    let begun = swap(&folder, &["bug.wasm", "--shadow", "--json"]).ok().json();
    assert_eq!((&begun["mode"], &begun["state"]), (&"shadow".into(), &"running".into()), "{begun}");
    swap(&folder, &["--promote"]).fails(1, &["nothing was compared"]);
    swap(&folder, &["same.wasm", "--shadow"]).fails(1, &["another plugin runs beside", "the plugin before goes on"]);
    // Its state is that of the old one, from where it began.
    assert_eq!(running.event(&folder, "a"), "2|v1");
    let seen = report(&folder);
    assert_eq!((&seen["compared"]["rows"], &seen["differences"]["total"]), (&1.into(), &0.into()), "{seen}");
    assert_eq!(running.event(&folder, "a"), "3|v1");
    assert_eq!(running.event(&folder, "b"), "1|v1");
    let seen = report(&folder);
    assert_eq!((&seen["compared"]["rows"], &seen["differences"]["changed"]), (&3.into(), &1.into()), "{seen}");
    let row = &seen["rows"][0];
    assert_eq!((&row["kind"], &row["key"]), (&"changed".into(), &"a".into()));
    assert_eq!(
        (&row["old"]["value"], &row["new"]["value"]),
        (&"{\"k\":\"a\"}|3|v1".into(), &"{\"k\":\"a\"}|4|v1".into())
    );
    let status = folder.run(&["status", "state", "--json"]).ok().json();
    assert_eq!(status["nodes"][1]["beside"]["differences"]["total"], 1, "{status}");
    swap(&folder, &["--promote"]).fails(1, &["it does not do what the old one does", "|3|v1", "|4|v1"]);
    // Its bug is not in the state: nothing that it did is.
    let ended = swap(&folder, &["--rollback", "--json"]).ok().json();
    assert_eq!(ended["state"], "rolled-back", "{ended}");
    assert_eq!(running.event(&folder, "a"), "4|v1");
    assert_eq!(report(&folder)["compared"]["rows"], 3, "it is over");
    swap(&folder, &["--promote"]).fails(1, &["is rolled-back"]);
    running.kill();
    // A crash ends what runs beside.
    let mut running = Running::start(&folder);
    running.row("a");
    swap(&folder, &["--report"]).fails(1, &["nothing runs beside"]);
    running.kill();
}

#[test]
fn a_shadow_that_does_the_same_takes_over_at_the_end_of_its_span() {
    let folder = more();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    let waits = folder.spawn(&["swap", "state", "count", "same.wasm", "--shadow=3rows", "--promote", "--json"]);
    let is = |state: &str| {
        let done = folder.run(&["swap", "state", "count", "--report", "--json"]);
        done.code == Some(0) && done.json()["state"] == state
    };
    until(|| is("running"));
    for count in 2..=4 {
        assert_eq!(running.event(&folder, "a"), format!("{count}|v1"));
    }
    let done = waits.wait_with_output().expect("it ends");
    let said: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert!(done.status.success() && said["state"] == "promoted" && said["compared"]["rows"] == 3, "{said}");
    let status = folder.run(&["status", "state", "--json"]).ok().json();
    assert_eq!(status["nodes"][1]["plugin"], said["plugin"], "{status}");
    assert_eq!(running.event(&folder, "a"), "5|v1", "on the state of the old one");
    // And back by hand: it was a swap as any other.
    let back = swap(&folder, &["--rollback", "--json"]).ok().json();
    assert_eq!(back["from"], said["plugin"], "{back}");
    assert_eq!(running.event(&folder, "a"), "6|v1");
    swap(&folder, &["--rollback"]).fails(1, &["has had no other plugin"]);

    // One with a bug stays where it is when the span is over.
    let waits = folder.spawn(&["swap", "state", "count", "bug.wasm", "--shadow=3rows", "--promote"]);
    until(|| is("running"));
    (7..=9).for_each(|count| assert_eq!(running.event(&folder, "a"), format!("{count}|v1")));
    let done = waits.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.code() == Some(1) && said.contains("1 changed") && said.contains("|10|v1"), "{said}");
    assert_eq!(running.event(&folder, "a"), "10|v1");
    running.kill();
}

#[test]
fn a_shadow_that_fails_counts_and_disturbs_nothing() {
    let folder = more();
    let mut running = Running::start(&folder);
    assert_eq!(running.event(&folder, "a"), "1|v1");
    swap(&folder, &["open.wasm", "--shadow"]).fails(1, &["cannot be opened"]);
    swap(&folder, &["schema.wasm", "--shadow"]).fails(1, &["cannot take over stage `count`"]);
    swap(&folder, &["boom.wasm", "--shadow"]).ok();
    append(&folder, "{\"k\":\"a\",\"boom\":1}");
    assert!(running.row("a").trim_end().ends_with("|2|v1"));
    assert_eq!(running.event(&folder, "a"), "3|v1");
    let seen = report(&folder);
    assert_eq!((&seen["differences"]["failed"], &seen["differences"]["total"]), (&1.into(), &1.into()), "{seen}");
    assert!(seen["rows"][0]["reason"].as_str().is_some_and(|why| why.contains("cannot take such a row")), "{seen}");
    // It begins anew at the next epoch, on the state as it then is.
    end_epoch(&folder);
    assert_eq!(running.event(&folder, "a"), "4|v1");
    let seen = report(&folder);
    assert!(seen["restarts"] == 1 && seen["differences"]["failed"] == 1, "{seen}");
    assert!(seen["differences"]["total"].as_u64() > Some(1), "its rows name another version: {seen}");
    swap(&folder, &["--rollback"]).ok();
    // State of another schema is migrated in the view alone.
    swap(&folder, &["migrate.wasm", "--shadow"]).ok();
    assert_eq!(running.event(&folder, "a"), "5|v1");
    let seen = report(&folder);
    assert!(seen["rows"][0]["new"]["value"].as_str().is_some_and(|new| new.ends_with("|105|migrate")), "{seen}");
    swap(&folder, &["--rollback"]).ok();
    assert_eq!(running.event(&folder, "a"), "6|v1");
    running.kill();
}

/// An event of each key, and what comes of it.
fn events<'a>(running: &mut Running, folder: &Folder, keys: &[&'a str]) -> BTreeMap<&'a str, String> {
    keys.iter().for_each(|key| append(folder, &format!("{{\"k\":\"{key}\"}}")));
    let rows: Vec<String> = keys.iter().map(|_| running.row("none").trim_end().to_owned()).collect();
    let of = |key: &&'a str| {
        let row = rows.iter().find_map(|row| row.strip_prefix(&format!("{{\"k\":\"{key}\"}}|")));
        (*key, row.unwrap_or_else(|| panic!("{key} in {rows:?}")).to_owned())
    };
    keys.iter().map(of).collect()
}

/// An event of each key, of which the same comes.
fn all(running: &mut Running, folder: &Folder, expected: &str) {
    let rows = events(running, folder, &KEYS);
    assert!(rows.values().all(|row| row == expected), "{expected}: {rows:?}");
}

/// The keys of the canary, and the others: found by their rows.
fn split(running: &mut Running, folder: &Folder, new: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let rows = events(running, folder, &KEYS);
    KEYS.iter().partition(|key| rows[*key].ends_with(new))
}

const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

#[test]
fn a_canary_has_its_share_of_the_keys_and_their_state() {
    let folder = more();
    let mut running = Running::start(&folder);
    all(&mut running, &folder, "1|v1");
    swap(&folder, &["v2.wasm", "--canary", "100%"]).fails(2, &["1% to 99%"]);
    swap(&folder, &["v2.wasm", "--canary", "50%", "--shadow"]).fails(2, &["cannot be used with"]);
    swap(&folder, &["migrate.wasm", "--canary", "50%"]).fails(1, &["both cannot work on the same state"]);
    let begun = swap(&folder, &["v2.wasm", "--canary", "50%", "--json"]).ok().json();
    assert_eq!((&begun["mode"], &begun["key_groups"]), (&"canary".into(), &128.into()), "{begun}");
    let (new, old) = split(&mut running, &folder, "2|v2");
    assert!(!new.is_empty() && !old.is_empty(), "{new:?} {old:?}");
    for (key, row) in events(&mut running, &folder, &KEYS) {
        let version = if new.contains(&key) { "v2" } else { "v1" };
        assert_eq!(row, format!("3|{version}"), "{key} keeps its version and its count");
    }
    // By hand: the old one goes on, on what the canary has left.
    swap(&folder, &["--rollback"]).ok();
    all(&mut running, &folder, "4|v1");
    swap(&folder, &["v2.wasm", "--canary", "50%"]).ok();
    assert!(events(&mut running, &folder, &KEYS).values().all(|row| row.starts_with("5|")));
    let taken = swap(&folder, &["--promote", "--json"]).ok().json();
    assert!(taken["to"].is_string() && taken["beside"]["state"] == "promoted", "{taken}");
    all(&mut running, &folder, "6|v2");
    // Behind its span it goes by itself.
    let done = swap(&folder, &["v3.wasm", "--canary", "50%", "--for", "200ms", "--json"]).ok().json();
    assert_eq!((&done["state"], &done["reason"]), (&"rolled-back".into(), &"its span is over".into()), "{done}");
    all(&mut running, &folder, "7|v2");
    let done = swap(&folder, &["v3.wasm", "--canary", "50%", "--for", "200ms", "--promote", "--json"]).ok().json();
    assert_eq!(done["state"], "promoted", "{done}");
    all(&mut running, &folder, "8|v3");
    running.kill();
}

#[test]
fn a_canary_that_fails_takes_the_job_back_to_what_was_committed() {
    for (name, bad) in [("boom", "boom"), ("loop", "any")] {
        let folder = more().with(
            "job.toml",
            crate::swap::JOB.replace("parallelism = 2", "parallelism = 2\nlimits = { call = \"200ms\" }"),
        );
        let mut running = Running::start(&folder);
        all(&mut running, &folder, "1|v1");
        swap(&folder, &[&format!("{name}.wasm"), "--canary", "50%"]).ok();
        let mut keys: Vec<&str> = KEYS.to_vec();
        if name == "boom" {
            let (new, _) = split(&mut running, &folder, "2|boom");
            end_epoch(&folder);
            keys = new;
        }
        // What comes behind the last epoch is worked off again, by the old one, from the committed state.
        let next = if name == "boom" { 3 } else { 2 };
        let mut expected = Vec::new();
        for key in &keys {
            append(&folder, &format!("{{\"k\":\"{key}\",\"{bad}\":1}}"));
            expected.push(format!("{{\"k\":\"{key}\",\"{bad}\":1}}|{next}|v1"));
        }
        let mut seen: Vec<String> = Vec::new();
        while !expected.iter().all(|row| seen.contains(row)) {
            seen.push(running.row("none").trim_end().to_owned());
            assert!(seen.len() < 100, "{seen:?}");
        }
        let ended = report(&folder);
        assert_eq!(ended["state"], "rolled-back", "{ended}");
        assert!(ended["reason"].as_str().is_some_and(|why| why.contains("failed")), "{ended}");
        let status = folder.run(&["status", "state", "--json"]).ok().json();
        assert_ne!(status["nodes"][1]["plugin"], ended["plugin"], "{status}");
        running.kill();
    }
}

/// A row of each key, in the order in which their events came; what it says behind its count.
fn in_order(running: &mut Running, folder: &Folder, count: u32) -> Vec<String> {
    KEYS.iter().for_each(|key| append(folder, &format!("{{\"k\":\"{key}\"}}")));
    let mut version = |key: &&str| {
        let row = running.row(key);
        row.trim_end().strip_prefix(&format!("{count}|")).unwrap_or_else(|| panic!("{key} has {row}")).to_owned()
    };
    KEYS.iter().map(&mut version).collect()
}

#[test]
fn lanes_have_a_plugin_beside_and_keep_their_order() {
    let lanes = crate::swap::JOB.replace("parallelism = 2", "parallelism = 4\nordered = true");
    let folder = more().with("job.toml", lanes);
    let mut running = Running::start(&folder);
    let old = |versions: Vec<String>| assert!(versions.iter().all(|version| version == "v1"), "{versions:?}");
    old(in_order(&mut running, &folder, 1));
    swap(&folder, &["bug.wasm", "--shadow"]).ok();
    old(in_order(&mut running, &folder, 2));
    old(in_order(&mut running, &folder, 3));
    let seen = report(&folder);
    assert_eq!((&seen["compared"]["rows"], &seen["differences"]["changed"]), (&24.into(), &12.into()), "{seen}");
    swap(&folder, &["--promote"]).fails(1, &["it does not do what the old one does", "|3|v1", "|4|v1"]);
    swap(&folder, &["--rollback"]).ok();

    swap(&folder, &["v2.wasm", "--canary", "50%"]).ok();
    let first = in_order(&mut running, &folder, 4);
    assert!(first.iter().any(|version| version == "v1") && first.iter().any(|version| version == "v2"), "{first:?}");
    assert_eq!(in_order(&mut running, &folder, 5), first, "keys keep their version");
    swap(&folder, &["--rollback"]).ok();
    old(in_order(&mut running, &folder, 6));
    // One that fails takes the job back: what comes behind the last epoch is worked off by the old one.
    swap(&folder, &["boom.wasm", "--canary", "50%"]).ok();
    end_epoch(&folder);
    KEYS.iter().for_each(|key| append(&folder, &format!("{{\"k\":\"{key}\",\"boom\":1}}")));
    KEYS.iter().for_each(|key| assert!(running.until(&format!("{{\"k\":\"{key}\",\"boom\":1}}|7|v1"))));
    assert_eq!(report(&folder)["state"], "rolled-back");
    // Killed while one runs: the recorded version goes on, with what both have written in the last epoch.
    swap(&folder, &["v2.wasm", "--canary", "50%"]).ok();
    assert_eq!(in_order(&mut running, &folder, 8), first);
    end_epoch(&folder);
    running.kill();
    let mut running = Running::start(&folder);
    old(in_order(&mut running, &folder, 9));
    running.kill();
}
