//! State of an older schema version, taken over by `migrate`.

use crate::control::append;
use crate::support::Folder;
use crate::swap::{JOB, Running, folder, version};

const DISK: &str = "state = { backend = \"disk\", cache = \"1MiB\" }\n";

/// Versions whose state has schema 2. From schema 1, `migrate` adds a hundred to every count; the others
/// fail: in the middle, in time, or because they take the entries for something else.
fn versions(folder: Folder) -> Folder {
    ["migrate", "mig-trap", "mig-loop", "mig-fail"]
        .into_iter()
        .fold(folder, |folder, name| folder.with(&format!("{name}.wasm"), version(name)))
}

fn on(backend: &str) -> Folder {
    versions(folder()).with("job.toml", JOB.replace("[source.in]", &format!("{backend}[source.in]")))
}

#[test]
fn a_swap_takes_the_state_over_and_a_crash_leaves_the_old_or_the_new() {
    for backend in ["", DISK] {
        let folder = on(backend);
        let mut running = Running::start(&folder);
        assert_eq!(running.event(&folder, "a"), "1|v1");
        assert_eq!(running.event(&folder, "a"), "2|v1");
        assert_eq!(running.event(&folder, "b"), "1|v1");
        // Commits, so that the disk has something to give.
        folder.run(&["savepoint", "create", "--state", "state"]).ok();
        running.kill();
        const POINTS: [&str; 4] = ["state-migrated:1", "swap-prepared:2", "swap-settled:1", "swap-settled:2"];
        let counts_on = |life: usize, environment: &[(&str, &str)]| {
            append(&folder, "{\"k\":\"p\"}");
            let mut running = Running::start_with(&folder, environment);
            // Events of a life that ended before their epoch are read again.
            let mut rows = (0..=life).map(|_| running.row("p"));
            assert!(rows.any(|row| row == format!("{}|v1", life + 1)), "life {life} goes on with the old version");
            drop(rows);
            running
        };
        for (life, point) in POINTS.into_iter().enumerate() {
            let running = counts_on(life, &[("WASMILL_KILL", point)]);
            folder.run(&["swap", "state", "count", "migrate.wasm"]).fails(1, &[]);
            running.ended();
        }

        let mut running = counts_on(POINTS.len(), &[]);
        assert_eq!(running.event(&folder, "b"), "2|v1", "nothing of the new one is left");
        let swapped = folder.run(&["swap", "state", "count", "migrate.wasm", "--json"]).ok().json();
        let found = swapped["differences"].as_array().expect("differences");
        assert!(found.iter().any(|found| found["verdict"] == "migrate"), "{swapped}");
        assert_eq!(running.event(&folder, "a"), "103|migrate");
        assert_eq!(running.event(&folder, "b"), "103|migrate");
        assert_eq!(running.event(&folder, "c"), "1|migrate");
        folder
            .run(&["swap", "state", "count", "v2.wasm"])
            .fails(1, &["\"seen\" has schema 1, its state schema 2", "no migration from version 2"]);
        folder.run(&["savepoint", "create", "--state", "state"]).ok();
        running.kill();
        let mut running = Running::start(&folder);
        assert_eq!(running.event(&folder, "a"), "104|migrate", "and is not migrated again");
        running.kill();
    }
}

#[test]
fn a_migration_that_fails_leaves_the_old_version_on_untouched_state() {
    let folder = on("");
    let mut running = Running::start(&folder);
    for key in ["a", "b", "c", "d", "e", "f", "a"] {
        running.event(&folder, key);
    }
    for (plugin, words) in [
        ("mig-trap.wasm", "this version migrates small counts only"),
        ("mig-loop.wasm", "migrate did not return within"),
        ("mig-fail.wasm", "is none of version 1"),
    ] {
        folder.run(&["swap", "state", "count", plugin]).fails(1, &[words, "the plugin before goes on"]);
    }
    for (key, count) in [("a", 3), ("b", 2), ("c", 2), ("d", 2), ("e", 2), ("f", 2)] {
        assert_eq!(running.event(&folder, key), format!("{count}|v1"));
    }
    running.kill();
}

#[test]
fn a_job_goes_on_from_older_state_and_from_an_older_savepoint() {
    for backend in ["", DISK] {
        let folder = on(backend);
        let mut running = Running::start(&folder);
        assert_eq!(running.event(&folder, "a"), "1|v1");
        assert_eq!(running.event(&folder, "b"), "1|v1");
        assert_eq!(running.event(&folder, "b"), "2|v1");
        folder.run(&["savepoint", "create", "--state", "state", "old.savepoint"]).ok();
        folder.run(&["stop", "state"]).ok();
        running.ended();

        let (job, input) = (folder.read("job.toml"), folder.read("in.jsonl"));
        let names = |plugin: &str| {
            std::fs::write(folder.path().join("job.toml"), job.replace("v1.wasm", plugin)).expect("written");
        };
        names("mig-trap.wasm");
        let run = ["run", "job.toml", "--state", "state"];
        folder.run(&run).fails(1, &["migrate trapped", "this version migrates small counts only"]);
        names("schema.wasm");
        folder.run(&run).fails(1, &["no migration from version 1"]);
        // Neither has left a trace.
        names("migrate.wasm");
        for state in ["state", "restored"] {
            if state == "restored" {
                folder.run(&["savepoint", "restore", "old.savepoint", "--state", state]).ok();
                std::fs::write(folder.path().join("in.jsonl"), &input).expect("written");
            }
            let mut running = Running::start_on(&folder, state);
            assert_eq!(running.event(&folder, "a"), "102|migrate");
            folder.run(&["savepoint", "create", "--state", state]).ok();
            running.kill();
            let mut running = Running::start_on(&folder, state);
            assert_eq!(running.event(&folder, "a"), "103|migrate");
            running.kill();
        }
    }
}

#[test]
fn a_diff_says_that_state_goes_through_migrate() {
    let folder = versions(folder());
    let done = folder.run(&["diff", "v1.wasm", "migrate.wasm"]).ok();
    assert!(done.out.contains("can take over while the job runs, through migrate"), "{}", done.out);
    assert_eq!(folder.run(&["diff", "v1.wasm", "migrate.wasm", "--json"]).ok().json()["verdict"], "migrate");
    let done = folder.run(&["diff", "migrate.wasm", "v1.wasm"]);
    assert!(done.code == Some(1) && done.out.contains("no migration from version 2"), "{done:?}");
}
