//! `cargo xtask demo`: from a clean clone to results on the screen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::flights;
use crate::plugins::plugins;
use crate::steps::{Steps, cargo, say};
use crate::{root, target};

const JOB: &str = "examples/flights/job.toml";

pub(crate) fn demo() -> anyhow::Result<()> {
    let root = root()?;
    let job = root.join(JOB);
    let results = results(&job)?;
    let mut steps = Steps::new(&root, 4);
    steps.act("plugins", "cargo xtask plugins", || plugins(false))?;
    steps.run(
        "program (optimised, some minutes the first time)",
        &mut cargo(&root, &["build", "--release", "-p", "wasmill"]),
    )?;
    let binary = target(&root).join("release").join("wasmill");
    let input = steps.act("flights of 2013", "cargo xtask flights", || Ok(input()))?;
    let mut job = Command::new(&binary);
    steps.run("the job", job.current_dir(&root).args(["run", JOB]).args(&input))?;

    say("");
    for path in results {
        say(&format!("results: {}", path.strip_prefix(&root).unwrap_or(&path).display()));
    }
    let binary = binary.strip_prefix(&root).unwrap_or(&binary).display().to_string();
    say("next:");
    say(&format!("  {binary} explain {JOB}     what each path guarantees"));
    say(&format!("  {binary} graph {JOB}       a picture of the job"));
    say(&format!("  {binary} new my-plugin --lang rust            your own operator, with a test"));
    Ok(())
}

/// The whole year where it can be fetched, else the sample that the job file names.
fn input() -> Vec<String> {
    match flights::departures() {
        Ok(path) => vec!["--set".to_owned(), format!("source.departures.path={}", path.display())],
        Err(error) => {
            say(&format!("{error:#}"));
            say("going on with the sample of three days in the repository");
            Vec::new()
        }
    }
}

/// Where the sinks of the job write.
fn results(job: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = fs::read_to_string(job).with_context(|| format!("cannot read {}", job.display()))?;
    let document: toml::Table = text.parse().with_context(|| format!("cannot parse {}", job.display()))?;
    let folder = job.parent().unwrap_or(Path::new("."));
    let sinks = document.get("sink").and_then(toml::Value::as_table);
    let paths = sinks.into_iter().flatten().filter_map(|(_, sink)| sink.get("path")?.as_str());
    Ok(paths.map(|path| folder.join(path)).collect())
}
