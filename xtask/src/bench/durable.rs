//! What durability costs: the same jobs with `--state`, and what comes back after a kill.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::definitions::{NEXMARK_EVENTS, NEXMARK_RATE, build, number, output, wasmill};
use super::{Benchmark, Lab, Run, Target};
use crate::nexmark::{Kit, QUERIES};
use crate::steps::run;

/// The default interval of epochs, which the jobs here have.
const EPOCH_MS: f64 = 200.0;
/// Events of a counting run over more keys than its cache holds.
const MANY_EVENTS: u64 = 12_000_000;
/// Keys of such a run.
const MANY_KEYS: u64 = 10_000_000;
/// How long the job that is killed may run before: it commits every key in less.
const KILL_AFTER: Duration = Duration::from_secs(4);

pub(super) fn all() -> Vec<Benchmark> {
    let mut all: Vec<Benchmark> = QUERIES.into_iter().map(nexmark).collect();
    all.extend([latency(), count_on_disk(), restart(), commit()]);
    all
}

/// Where the job of a benchmark keeps its state.
fn state(lab: &Lab, name: &str) -> PathBuf {
    lab.scratch.join(format!("state-{name}"))
}

/// `--state DIR --fresh`.
fn fresh<'a>(job: &'a mut Command, dir: &Path) -> &'a mut Command {
    job.arg("--state").arg(dir).arg("--fresh")
}

/// A query with every epoch on disk, file to file, against the native floor, which keeps nothing.
fn nexmark(query: &'static str) -> Benchmark {
    Benchmark {
        name: format!("durable/{query}"),
        against: "native floor, serde",
        target: Target::AtLeast(0.7),
        prepare: Box::new(|lab| {
            build(lab)?;
            Kit::build()?.data(NEXMARK_EVENTS, NEXMARK_RATE).map(drop)
        }),
        run: Run::Pair {
            subject: Box::new(move |lab| {
                let kit = Kit::open()?;
                let input = kit.data(NEXMARK_EVENTS, NEXMARK_RATE)?;
                let mut job = kit.job(&wasmill(lab), query, &input, &lab.output("job.jsonl")?);
                lab.run(fresh(&mut job, &state(lab, "nexmark")), NEXMARK_EVENTS)
            }),
            baseline: Box::new(move |lab| {
                let kit = Kit::open()?;
                let input = kit.data(NEXMARK_EVENTS, NEXMARK_RATE)?;
                lab.run(&mut kit.floor(query, &input, &lab.output("floor.jsonl")?), NEXMARK_EVENTS)
            }),
        },
    }
}

/// From the moment an event is due until its result is visible in a file, exactly once.
fn latency() -> Benchmark {
    Benchmark {
        name: "durable/latency-p99".into(),
        against: "the epoch interval and 5 ms",
        target: Target::AtMost(1.0),
        prepare: Box::new(build),
        run: Run::Figure {
            unit: "ms",
            limit: EPOCH_MS + 5.0,
            take: Box::new(|lab| {
                let mut job = Command::new(wasmill(lab));
                job.current_dir(&lab.root).args(["run", "tests/bench/latency-durable.toml", "--json"]);
                let results = lab.scratch.join("latency.txt");
                job.arg("--set").arg(format!("sink.results.path={:?}", results.display().to_string()));
                Ok(number(fresh(&mut job, &state(lab, "latency")), &["visible_latency", "p99_nanos"])? / 1e6)
            }),
        },
    }
}

/// Keyed counting over many more keys than the cache of the disk backend holds.
fn count_on_disk() -> Benchmark {
    let data = |lab: &Lab| lab.scratch.join(format!("count-{MANY_EVENTS}-{MANY_KEYS}-even.jsonl"));
    Benchmark {
        name: "durable/count-on-disk".into(),
        against: "native hash map, serde, all in memory",
        target: Target::AtLeast(0.2),
        prepare: Box::new(move |lab| {
            build(lab)?;
            let kit = Kit::build()?;
            if data(lab).exists() {
                return Ok(());
            }
            let mut make = kit.program("count");
            make.args(["make", "--spread", "even", "--events", &MANY_EVENTS.to_string()]);
            run(make.args(["--keys", &MANY_KEYS.to_string(), "--out"]).arg(data(lab)))
        }),
        run: Run::Pair {
            subject: Box::new(move |lab| {
                let mut job = Command::new(wasmill(lab));
                job.args(["run", "tests/bench/count.toml", "--json"]);
                job.args(["--set", "state.backend=disk", "--set", "state.cache=256MiB"]);
                job.arg("--set").arg(format!("source.events.path={:?}", data(lab).display().to_string()));
                let results = lab.scratch.join("count-job.txt");
                job.arg("--set").arg(format!("sink.results.path={:?}", results.display().to_string()));
                lab.run(fresh(&mut job, &state(lab, "count")), MANY_EVENTS)
            }),
            baseline: Box::new(move |lab| {
                let mut native = Kit::open()?.program("count");
                native.args(["run", "--in"]).arg(data(lab)).arg("--out").arg(lab.scratch.join("count-native.txt"));
                lab.run(&mut native, MANY_EVENTS)
            }),
        },
    }
}

/// From the start of the process after a kill to the first row at the sink, with a million keys.
fn restart() -> Benchmark {
    Benchmark {
        name: "durable/restart".into(),
        against: "1 s to the first output with 1 million keys",
        target: Target::AtMost(1.0),
        prepare: Box::new(build),
        run: Run::Figure {
            unit: "ms",
            limit: 1_000.0,
            take: Box::new(|lab| {
                let dir = state(lab, "restart");
                let job = || {
                    let mut job = Command::new(wasmill(lab));
                    job.current_dir(&lab.root).args(["run", "tests/bench/recovery.toml", "--json"]);
                    job
                };
                killed(fresh(&mut job(), &dir))?;
                let mut again = job();
                let first = number(again.arg("--state").arg(&dir), &["first_output_ms"])?;
                fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
                Ok(first)
            }),
        },
    }
}

/// Starts a job and kills it once it has run for a while.
fn killed(job: &mut Command) -> anyhow::Result<()> {
    let mut child = job.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    sleep(KILL_AFTER);
    if let Some(status) = child.try_wait()? {
        bail!("the job ended with {status} before it could be killed");
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// What a key that has changed adds to a commit.
fn commit() -> Benchmark {
    Benchmark {
        name: "durable/commit".into(),
        against: "1 us a dirty key, 100,000 keys an epoch",
        target: Target::AtMost(1.0),
        prepare: Box::new(build),
        run: Run::Figure {
            unit: "ns",
            limit: 1_000.0,
            take: Box::new(|lab| {
                let mut example = Command::new(lab.root.join("target/release/examples/commit"));
                let printed = output(example.arg(&lab.scratch))?;
                let rows = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                let mut epochs = rows.filter(|it| it["name"] == "commit" && it["keys"] == 100_000);
                epochs.next().and_then(|it| it["nanos_per_key"].as_f64()).context("no figure for 100,000 keys")
            }),
        },
    }
}
