//! What is measured, and what must hold.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::{Benchmark, Lab, Run, Take, Target, durable};
use crate::nexmark::{Kit, QUERIES};
use crate::plugins::plugins;
use crate::steps::{cargo, run, say};

/// Events of a NEXMark run.
pub(super) const NEXMARK_EVENTS: u64 = 2_000_000;
/// Events a second of NEXMark's event time.
pub(super) const NEXMARK_RATE: u64 = 10_000;
/// Events of a counting run.
const COUNT_EVENTS: u64 = 4_000_000;
/// Keys of a counting run.
const COUNT_KEYS: u64 = 10_000;

/// Every benchmark, in the order in which they run.
pub(super) fn all() -> Vec<Benchmark> {
    let mut all: Vec<Benchmark> = QUERIES.into_iter().map(nexmark).collect();
    all.extend([linear(), count(), boundary(), latency(), start()]);
    all.extend(durable::all());
    all.extend(super::http::all());
    all.extend(super::order::all());
    all.extend(super::languages::all());
    all
}

/// The binary under test.
pub(super) fn wasmill(lab: &Lab) -> PathBuf {
    lab.root.join("target/release/wasmill")
}

/// The release binary with its plugins, and the examples that are measured: together, as cargo
/// builds what they share twice otherwise.
pub(super) fn build(lab: &Lab) -> anyhow::Result<()> {
    plugins(false)?;
    say("building for release");
    let what = ["--package", "wasmill", "--bin", "wasmill", "--package", "wasmill-wasm", "--example", "boundary"];
    let store = ["--package", "wasmill-store", "--example", "commit"];
    run(cargo(&lab.root, &["build", "--release", "--quiet"]).args(what).args(store))
}

/// A query as a job, file to file, against the native floor.
fn nexmark(query: &'static str) -> Benchmark {
    Benchmark {
        name: format!("nexmark/{query}"),
        against: "native floor, serde",
        target: Target::AtLeast(0.7),
        prepare: Box::new(move |lab| {
            build(lab)?;
            Kit::build()?.data(NEXMARK_EVENTS, NEXMARK_RATE).map(drop)
        }),
        run: Run::Pair {
            subject: nexmark_job(query, NEXMARK_EVENTS),
            baseline: Box::new(move |lab| {
                let kit = Kit::open()?;
                let input = kit.data(NEXMARK_EVENTS, NEXMARK_RATE)?;
                lab.run(&mut kit.floor(query, &input, &lab.output("floor.jsonl")?), NEXMARK_EVENTS)
            }),
        },
    }
}

fn nexmark_job(query: &'static str, events: u64) -> Take<super::Sample> {
    Box::new(move |lab| {
        let kit = Kit::open()?;
        let input = kit.data(events, NEXMARK_RATE)?;
        lab.run(&mut kit.job(&wasmill(lab), query, &input, &lab.output("job.jsonl")?), events)
    })
}

/// Ten times the events cost ten times the CPU.
fn linear() -> Benchmark {
    let (many, few) = (10_000_000, 1_000_000);
    Benchmark {
        name: "nexmark/q5-linear".into(),
        against: "the same job over 1 million events",
        target: Target::AtLeast(0.9),
        prepare: Box::new(move |lab| {
            build(lab)?;
            let kit = Kit::build()?;
            kit.data(few, NEXMARK_RATE)?;
            kit.data(many, NEXMARK_RATE).map(drop)
        }),
        run: Run::Pair { subject: nexmark_job("q5", many), baseline: nexmark_job("q5", few) },
    }
}

/// Keyed state through the SDK against one hash map.
fn count() -> Benchmark {
    let data = |lab: &Lab| lab.scratch.join(format!("count-{COUNT_EVENTS}-{COUNT_KEYS}.jsonl"));
    Benchmark {
        name: "state/count".into(),
        against: "native hash map, serde",
        target: Target::AtLeast(0.5),
        prepare: Box::new(move |lab| {
            build(lab)?;
            let kit = Kit::build()?;
            if data(lab).exists() {
                return Ok(());
            }
            let mut make = kit.program("count");
            make.args(["make", "--events", &COUNT_EVENTS.to_string(), "--keys", &COUNT_KEYS.to_string(), "--out"]);
            run(make.arg(data(lab)))
        }),
        run: Run::Pair {
            subject: Box::new(move |lab| {
                let mut job = Command::new(wasmill(lab));
                job.args(["run", "tests/bench/count.toml", "--json"]);
                job.arg("--set").arg(format!("source.events.path={:?}", data(lab).display().to_string()));
                let results = lab.scratch.join("count-job.txt");
                job.arg("--set").arg(format!("sink.results.path={:?}", results.display().to_string()));
                lab.run(&mut job, COUNT_EVENTS)
            }),
            baseline: Box::new(move |lab| {
                let mut native = Kit::open()?.program("count");
                native.args(["run", "--in"]).arg(data(lab)).arg("--out").arg(lab.scratch.join("count-native.txt"));
                lab.run(&mut native, COUNT_EVENTS)
            }),
        },
    }
}

/// What the Wasm boundary costs a filter, against buffers shared through linear memory.
fn boundary() -> Benchmark {
    Benchmark {
        name: "wasm/filter".into(),
        against: "a core module with shared buffers",
        target: Target::AtMost(1.0),
        prepare: Box::new(build),
        run: Run::Figure {
            unit: "x",
            limit: 2.0,
            take: Box::new(|lab| {
                let printed = output(&mut Command::new(lab.root.join("target/release/examples/boundary")))?;
                let rows = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                let mut batch = rows.filter(|it| it["name"] == "boundary-filter" && it["rows"] == 1_000);
                batch.next().and_then(|it| it["ratio"].as_f64()).context("no ratio at 1,000 rows")
            }),
        },
    }
}

/// From the moment an event is due to the sink, through a keyed exchange.
/// The best of three runs counts: whatever else a machine does in those ten seconds makes a tail
/// longer, and never shorter.
fn latency() -> Benchmark {
    Benchmark {
        name: "latency/keyed-p99".into(),
        against: "1 ms at 50,000 events a second on one core, best of three",
        target: Target::AtMost(1.0),
        prepare: Box::new(build),
        run: Run::Figure {
            unit: "ms",
            limit: 1.0,
            take: Box::new(|lab| {
                let mut best = f64::INFINITY;
                for _ in 0..3 {
                    // Between the cores of a virtual machine wake-ups are most of the tail, and it is not ours.
                    let mut job = Command::new("taskset");
                    job.args(["--cpu-list", "0"]).arg(wasmill(lab)).current_dir(&lab.root);
                    job.args(["run", "tests/bench/latency.toml", "--json"]);
                    best = best.min(number(&mut job, &["latency", "p99_nanos"])? / 1e6);
                }
                Ok(best)
            }),
        },
    }
}

fn start() -> Benchmark {
    Benchmark {
        name: "start/first-output".into(),
        against: "100 ms",
        target: Target::AtMost(1.0),
        prepare: Box::new(|lab| {
            build(lab)?;
            Kit::build()?.data(100_000, 1_000).map(drop)
        }),
        run: Run::Figure {
            unit: "ms",
            limit: 100.0,
            take: Box::new(|lab| {
                let kit = Kit::open()?;
                let input = kit.data(100_000, 1_000)?;
                let mut job = kit.job(&wasmill(lab), "q0", &input, &lab.scratch.join("start.jsonl"));
                number(job.current_dir(&lab.root), &["first_output_ms"])
            }),
        },
    }
}

/// A number out of the JSON that a program prints.
pub(super) fn number(command: &mut Command, path: &[&str]) -> anyhow::Result<f64> {
    let printed: Value = serde_json::from_str(&output(command)?).context("the program printed no JSON")?;
    let found = path.iter().fold(&printed, |at, name| &at[*name]);
    found.as_f64().with_context(|| format!("the program printed no number at {}", path.join(".")))
}

/// What a program that succeeds prints.
pub(super) fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed no text"))
}
