//! From `wasmill new` to a job that runs a tested plugin.

use std::process::Command;

use crate::support::{Done, Folder};

/// Compiles a project from scratch, for the host and for WebAssembly.
#[test]
fn slow_a_new_project_tests_builds_and_runs() {
    let folder = Folder::new();
    let done = folder.run(&["new", "my-plugin", "--lang", "rust"]).ok();
    assert!(done.out.contains("cargo test") && done.out.contains("wasmill build"), "{}", done.out);
    let inside = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        folder.at_home(&mut command);
        // What cargo sets for this test is not for the project's own.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME") {
                command.env_remove(name);
            }
        }
        command.current_dir(folder.path().join("my-plugin")).args(arguments);
        Done::of(command.output().expect("it runs")).ok()
    };
    let wasmill = env!("CARGO_BIN_EXE_wasmill");
    inside(env!("CARGO"), &["test"]);
    let done = inside(wasmill, &["build"]);
    assert!(done.out.starts_with("my-plugin: target/plugins/my-plugin.wasm, "), "{}", done.out);
    assert!(done.err.contains("plugin toolchain ("), "{}", done.err);
    let done = inside(wasmill, &["test"]);
    assert!(done.out.contains("ok: 1 case"), "{}", done.out);
    inside(wasmill, &["run", "job.toml"]);
    let records = folder.read("my-plugin/records.jsonl");
    assert_eq!(records.lines().count(), 4, "{records}");
    let summary = inside(wasmill, &["run", "job.toml", "--json"]).json();
    assert_eq!((&summary["rows_out"], &summary["rejected"]), (&4.into(), &1.into()));
    let plugin =
        inside(wasmill, &["inspect", "target/plugins/my-plugin.wasm", "--json", "--config", "{\"field\":\"x\"}"]);
    assert_eq!(plugin.json()["descriptor"]["spaces"][0]["name"], "highest");
}

#[test]
fn a_project_is_never_written_over_another() {
    let folder = Folder::new().with("taken/file", "");
    folder.run(&["new", "taken", "--lang", "rust"]).fails(2, &["taken exists and is not empty"]);
    folder.run(&["new", "taken/file", "--lang", "rust"]).fails(2, &["exists and is a file"]);
    folder.run(&["new", "Bad Name", "--lang", "rust"]).fails(2, &["cannot name a plugin"]);
    folder.run(&["new", "fine", "--lang", "cobol"]).fails(2, &["the languages are: rust"]);
    folder.run(&["build", "."]).fails(2, &["it has neither Cargo.toml nor plugin.toml"]);
}
