//! `cargo xtask fuzz`: the tests that fuzz, with as many cases as a campaign takes.
//!
//! A case is made of good input and of what is known to be odd, from the seed and its number. It goes through
//! the entry points of the real thing, in the process of the test: a panic, or a case that takes too long, is
//! a finding, and its input is written to a file.

use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::planted::executables;
use crate::root;
use crate::steps::say;

/// What is given odd input: its name, where its test is, and cases of a campaign.
const TARGETS: [(&str, (&str, &str), &str, u64); 4] = [
    ("jobs", ("wasmill-spec", "fuzz"), "job_files", 1_000_000),
    ("requests", ("wasmill-control", "wasmill_control"), "service::api::fuzz::requests", 1_000_000),
    ("values", ("wasmill-wasm", "suite"), "fuzz::results", 1_000_000),
    ("components", ("wasmill-wasm", "suite"), "fuzz::components", 20_000),
];

/// Runs campaigns, prints what came of them, and fails where one found something.
pub(crate) fn fuzz(target: Option<&str>, cases: Option<u64>, seed: u64, as_json: bool) -> anyhow::Result<()> {
    let root = root()?;
    let chosen: Vec<_> = TARGETS.iter().filter(|(name, ..)| target.is_none_or(|target| target == *name)).collect();
    ensure!(!chosen.is_empty(), "a target is one of jobs, requests, values, components");
    let tests = executables(&root, &chosen.iter().map(|(_, place, ..)| *place).collect())?;
    let mut wrong = Vec::new();
    for (name, place, test, usual) in chosen {
        let program = tests.get(place).with_context(|| format!("there are no tests {} of {}", place.1, place.0))?;
        let output = Command::new(program)
            .args([test, "--exact", "--nocapture"])
            .current_dir(&root)
            .env("WASMILL_FUZZ_CASES", cases.unwrap_or(*usual).to_string())
            .env("WASMILL_FUZZ_SEED", seed.to_string())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // The test's name stands before it on the line.
        let result = said.lines().find_map(|line| serde_json::from_str::<Value>(line.get(line.find('{')?..)?).ok());
        let result =
            result.with_context(|| format!("{name} came to no end: {}", String::from_utf8_lossy(&output.stderr)))?;
        if as_json {
            print(&result);
        }
        say(&format!(
            "{name}: {} cases, {} of them good, {} panics, the slowest {} us, {} s (seed {seed})",
            result["cases"], result["taken"], result["panics"], result["slowest_micros"], result["seconds"]
        ));
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            say(&why.lines().filter(|line| line.contains("wasmill-fuzz-")).collect::<Vec<_>>().join("\n"));
            wrong.push(*name);
        }
    }
    if !wrong.is_empty() {
        bail!("there are findings in {}", wrong.join(", "));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(line: &Value) {
    println!("{line}");
}
