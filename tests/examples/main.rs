//! The examples, run as their reader runs them, against results that are computed once more from
//! the input without sharing code. They need their plugins: `cargo xtask plugins`.

mod bridge_traffic;
mod flights;
mod taxi_dispatch;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// What a job wrote, and what it said about itself.
struct Ran {
    /// The summary of `wasmill run --json`.
    summary: Value,
    folder: TempDir,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a job of the repository to its end, with some values changed. Sinks write to a folder that
/// goes with the result.
#[track_caller]
fn run(job: &str, sinks: &[&str], changes: &[String]) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(format!("{name}.jsonl")).display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmill"));
    command
        .current_dir(root())
        .env("WASMILL_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasmill-cache"))
        .args(["run", "--json", job, "--set", &format!("dead_letters={}", file("rejected"))]);
    for sink in sinks {
        command.args(["--set", &format!("sink.{sink}.path={}", file(sink))]);
    }
    for change in changes {
        command.args(["--set", change]);
    }
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    Ran { summary: serde_json::from_slice(&output.stdout).expect("a summary"), folder }
}

impl Ran {
    /// The rows that a sink wrote, or of `rejected`.
    #[track_caller]
    fn rows(&self, sink: &str) -> Vec<Value> {
        let path = self.folder.path().join(format!("{sink}.jsonl"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
    }

    /// A number of the summary.
    #[track_caller]
    fn number(&self, key: &str) -> u64 {
        self.summary[key].as_u64().unwrap_or_else(|| panic!("no number {key:?} in {}", self.summary))
    }
}

#[track_caller]
fn integer(row: &Value, field: &str) -> i64 {
    row[field].as_i64().unwrap_or_else(|| panic!("no integer {field:?} in {row}"))
}

#[track_caller]
fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_else(|| panic!("no text {field:?} in {row}"))
}
