//! NEXMark: jobs over the JSON of the kit in `tests/nexmark`, held to its native floor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::root;
use crate::steps::{cargo, run, say};

/// The queries that jobs exist for.
pub(crate) const QUERIES: [&str; 7] = ["q0", "q1", "q2", "q5", "q7", "q8", "q12"];

/// Queries that jobs exist for, made of standard plugins alone: held to the floor's results, not to its
/// speed.
const STANDARD: [&str; 1] = ["q3"];

/// The kit, built.
pub(crate) struct Kit {
    root: PathBuf,
    bin: PathBuf,
}

impl Kit {
    /// Builds the generator and the floor.
    pub(crate) fn build() -> anyhow::Result<Self> {
        let kit = Self::open()?;
        let mut build = cargo(&kit.root.join("tests/nexmark"), &["build", "--release", "--quiet", "--target-dir"]);
        run(build.arg(kit.root.join("target/nexmark")))?;
        Ok(kit)
    }

    /// The kit as it was built last.
    pub(crate) fn open() -> anyhow::Result<Self> {
        let root = root()?;
        Ok(Self { bin: root.join("target/nexmark/release"), root })
    }

    /// One of its programs.
    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    /// A file of `events` events at `rate` events a second of event time, made once.
    pub(crate) fn data(&self, events: u64, rate: u64) -> anyhow::Result<PathBuf> {
        let folder = self.root.join("target/data");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("nexmark-{events}-{rate}.jsonl"));
        if !path.exists() {
            say(&format!("making {} events of NEXMark", events));
            let part = path.with_extension("part");
            let mut generate = self.program("nexgen");
            generate.args(["--events", &events.to_string(), "--rate", &rate.to_string(), "--out"]).arg(&part);
            run(&mut generate)?;
            fs::rename(&part, &path).with_context(|| format!("cannot rename {}", part.display()))?;
        }
        Ok(path)
    }

    /// The floor for one query, parsing with serde as most programs do.
    pub(crate) fn floor(&self, query: &str, input: &Path, output: &Path) -> Command {
        let mut floor = self.program("floor");
        floor.args(["--mode", "file", "--parser", "serde", "--query", query, "--in"]).arg(input);
        floor.arg("--out").arg(output);
        floor
    }

    /// The same query as a job.
    pub(crate) fn job(&self, wasmill: &Path, query: &str, input: &Path, output: &Path) -> Command {
        let mut job = Command::new(wasmill);
        job.arg("run").arg(self.root.join(format!("tests/nexmark/jobs/{query}.toml"))).arg("--json");
        job.arg("--set").arg(format!("source.events.path={}", quoted(input)));
        job.arg("--set").arg(format!("sink.results.path={}", quoted(output)));
        job
    }
}

/// A path as TOML has it.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// Runs every query, or one, as a job and natively, and compares the lines.
pub(crate) fn check(only: Option<&str>, events: u64, wasmill: &Path) -> anyhow::Result<()> {
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    let kit = Kit::build()?;
    let input = kit.data(events, 1_000)?;
    let folder = kit.root.join("target/nexmark/check");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut wrong = Vec::new();
    for query in QUERIES.into_iter().chain(STANDARD).filter(|query| only.is_none_or(|only| only == *query)) {
        let (floor, job) = (folder.join(format!("{query}.floor.jsonl")), folder.join(format!("{query}.job.jsonl")));
        quietly(&mut kit.floor(query, &input, &floor))?;
        quietly(&mut kit.job(wasmill, query, &input, &job))?;
        let (want, got) = (sorted_lines(&floor)?, sorted_lines(&job)?);
        if want == got && !want.is_empty() {
            say(&format!("{query}: {} lines, equal", want.len()));
        } else {
            say(&format!("{query}: {} lines where the floor has {}", got.len(), want.len()));
            wrong.push(query);
        }
    }
    ensure!(wrong.is_empty(), "results differ from the floor: {}; see {}", wrong.join(", "), folder.display());
    Ok(())
}

fn quietly(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn sorted_lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines)
}
