//! NEXMark: jobs over the JSON of the kit in `tests/nexmark`, held to its native floor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::root;
use crate::steps::{cargo, run, say};

/// The queries that are measured.
pub(crate) const QUERIES: [&str; 7] = ["q0", "q1", "q2", "q5", "q7", "q8", "q12"];
/// The others that jobs exist for.
const OTHERS: [&str; 2] = ["q11", "q17"];
/// Those for which an event may be late.
const WITH_WINDOWS: [&str; 6] = ["q5", "q7", "q8", "q11", "q12", "q17"];

/// How far events may be out of order, and how far the watermark then waits, in milliseconds.
#[derive(Clone, Copy)]
struct Disorder {
    name: &'static str,
    disorder: u64,
    bound: u64,
    /// Whether events come too late for the windows of a few seconds.
    has_late: bool,
}

const DISORDERS: [Disorder; 3] = [
    Disorder { name: "in order", disorder: 0, bound: 0, has_late: false },
    Disorder { name: "disorder 500 ms, bound 500 ms", disorder: 500, bound: 500, has_late: false },
    Disorder { name: "disorder 500 ms, bound 20 ms", disorder: 500, bound: 20, has_late: true },
];

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
        self.disordered(events, rate, 0)
    }

    /// The same, with no event more than `disorder` milliseconds behind the latest.
    fn disordered(&self, events: u64, rate: u64, disorder: u64) -> anyhow::Result<PathBuf> {
        let folder = self.root.join("target/data");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let suffix = if disorder == 0 { String::new() } else { format!("-d{disorder}") };
        let path = folder.join(format!("nexmark-{events}-{rate}{suffix}.jsonl"));
        if !path.exists() {
            say(&format!("making {} events of NEXMark", events));
            let part = path.with_extension("part");
            let mut generate = self.program("nexgen");
            generate.args(["--events", &events.to_string(), "--rate", &rate.to_string()]);
            generate.args(["--disorder", &disorder.to_string(), "--out"]).arg(&part);
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

/// Runs every query, or one, as a job and natively, and compares the lines: in order, and out of order
/// with a bound that suffices and one that does not.
pub(crate) fn check(only: Option<&str>, events: u64, wasmill: &Path) -> anyhow::Result<()> {
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    let kit = Kit::build()?;
    let folder = kit.root.join("target/nexmark/check");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut wrong = Vec::new();
    for Disorder { name, disorder, bound, has_late } in DISORDERS {
        let input = kit.disordered(events, 1_000, disorder)?;
        let queries =
            QUERIES.into_iter().chain(STANDARD).chain(OTHERS).filter(|query| only.is_none_or(|only| only == *query));
        for query in queries.filter(|query| disorder == 0 || WITH_WINDOWS.contains(query)) {
            let file = |of: &str| folder.join(format!("{query}-{disorder}-{bound}.{of}.jsonl"));
            let (floor, job) = (file("floor"), file("job"));
            let said = quietly(kit.floor(query, &input, &floor).args(["--bound", &bound.to_string()]))?;
            let mut run = kit.job(wasmill, query, &input, &job);
            quietly(run.arg("--set").arg(format!("source.events.watermark={{ bound = \"{bound}ms\" }}")))?;
            let late = late(&said)?;
            // No event is too late for each of five windows, for a session with a gap of 10 s, or for a day.
            let may_be_late = ["q7", "q8", "q12"].contains(&query);
            ensure!((has_late && may_be_late) == (late > 0), "{query}, {name}: {late} events are late");
            let (want, got) = (sorted_lines(&floor)?, sorted_lines(&job)?);
            if want == got && !want.is_empty() {
                say(&format!("{query}, {name}: {} lines, equal; {late} events late", want.len()));
            } else {
                say(&format!("{query}, {name}: {} lines where the floor has {}", got.len(), want.len()));
                wrong.push(format!("{query}, {name}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "results differ from the floor: {}; see {}", wrong.join("; "), folder.display());
    Ok(())
}

/// How many events the floor found late.
fn late(said: &str) -> anyhow::Result<u64> {
    let said: serde_json::Value = serde_json::from_str(said).context("the floor says no JSON")?;
    said["late"].as_u64().context("the floor does not say how many events were late")
}

fn quietly(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn sorted_lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines)
}
