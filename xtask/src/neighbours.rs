//! `cargo xtask neighbours`: what one tenant of a service feels of another one that wants everything.
//!
//! Two tenants in one `wasmill serve`. The quiet one has a job of 20,000 events a second; its figures are
//! taken alone, and then beside jobs of the other one, which loop for ever in `process` and flood rows,
//! state, timers and log lines (`tests/guests/flood`). Alone and beside are measured in pairs, each with a
//! job that is deployed anew, and every other pair the other way round. What counts is the median of the
//! ratios: a machine that is slower for a while is so for both halves of a pair.
//!
//! Cores are [kept busy](Busy) in both halves.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::busy::Busy;
use crate::root;
use crate::steps::{now, say};

/// Events a second of the quiet tenant.
const RATE: u64 = 20_000;
/// What latency may grow by.
const LATENCY_MAX: f64 = 1.5;
/// What is left of the throughput at least. The quiet tenant wants less than its share: it gets it all.
const THROUGHPUT_MIN: f64 = 0.95;
/// A service that does not answer within this has hung.
const PATIENCE: Duration = Duration::from_secs(60);

const QUIET: &str = r#"name = "quiet"
[source.events]
connector = "generator"
rate = RATE
[stage.work]
plugin = "std:filter"
input = "events"
config = { where = "true" }
[sink.out]
connector = "blackhole"
input = "work"
"#;

/// Two tasks that loop, one for each of two workers, in rows that come as fast as they go.
const LOOPS: &str = r#"name = "loops"
[source.events]
connector = "generator"
[stage.work]
plugin = "flood.wasm"
input = "events"
parallelism = 2
config = { loop_every = 64 }
faults = { in_a_row = 65535 }
[sink.out]
connector = "blackhole"
input = "work"
"#;

const FLOODS: &str = r#"name = "floods"
[source.events]
connector = "generator"
[stage.work]
plugin = "flood.wasm"
input = "events"
parallelism = 2
config = { rows = 100, entries = 100, timers = 100, lines = 100 }
faults = { in_a_row = 65535 }
[sink.out]
connector = "blackhole"
input = "work"
"#;

/// Of the tenant that wants everything: enough to be a nuisance, and bounds that are reached.
const BUDGET: &str =
    r#"{"state_bytes": 268435456, "timers": 200000, "rows_out_per_second": 1000000, "log_lines_per_second": 100}"#;

/// What was seen of the quiet tenant in one turn.
#[derive(Debug, Clone, Copy)]
struct Figures {
    p99_nanos: f64,
    rows_per_second: f64,
}

/// Measures, prints what came of it, and fails where something is not as promised.
pub(crate) fn neighbours(pairs: usize, seconds: u64, wasmill: &Path, as_json: bool) -> anyhow::Result<()> {
    ensure!(pairs > 0 && seconds > 0, "at least one pair of one second");
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    let wasmill = wasmill.canonicalize().with_context(|| format!("cannot find {}", wasmill.display()))?;
    let root = root()?;
    let folder = root.join("target/neighbours");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let plugin = root.join("target/guests/flood.wasm");
    fs::copy(&plugin, folder.join("flood.wasm"))
        .with_context(|| format!("cannot copy {}; build it with: cargo xtask plugins", plugin.display()))?;
    for (name, text) in [("quiet", QUIET), ("loops", LOOPS), ("floods", FLOODS)] {
        fs::write(folder.join(format!("{name}.toml")), text.replace("RATE", &RATE.to_string()))?;
    }
    let service = Service::start(&wasmill, &folder)?;
    service.tenant("quiet", "{}")?;
    service.tenant("loud", BUDGET)?;
    let _busy = Busy::start()?;
    // What is compiled is compiled.
    service.quiet(1)?;
    let mut measured = Vec::new();
    for pair in 1..=pairs {
        say(&format!("pair {pair} of {pairs}"));
        measured.push(match pair % 2 {
            1 => {
                let alone = service.quiet(seconds)?;
                Pair { alone, beside: service.beside(seconds)? }
            }
            _ => {
                let beside = service.beside(seconds)?;
                Pair { alone: service.quiet(seconds)?, beside }
            }
        });
    }
    let usage = service.ask("loud", &["usage"])?;
    report(&measured, &usage, as_json)
}

/// Figures that were taken one after the other.
#[derive(Debug, Clone, Copy)]
struct Pair {
    alone: Figures,
    beside: Figures,
}

/// A service, with its folder.
struct Service {
    wasmill: PathBuf,
    folder: PathBuf,
    url: String,
    child: Child,
}

impl Service {
    fn start(wasmill: &Path, folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(wasmill);
        command.current_dir(folder).args(["serve", "--data", "data", "--listen", "127.0.0.1:0", "--json"]);
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start the service")?;
        let mut said = BufReader::new(child.stderr.take().context("no standard error")?);
        let url = loop {
            let mut line = String::new();
            ensure!(said.read_line(&mut line)? > 0, "the service ended before it listened");
            let url =
                serde_json::from_str::<Value>(&line).ok().and_then(|line| line["url"].as_str().map(str::to_owned));
            if let Some(url) = url {
                break url;
            }
        };
        // What it says later must not block it.
        let mut log = fs::File::create(folder.join("serve.log")).context("cannot make the log")?;
        std::thread::spawn(move || std::io::copy(&mut said, &mut log));
        Ok(Self { wasmill: wasmill.to_owned(), folder: folder.to_owned(), url, child })
    }

    /// Asks the service, with the token of a tenant or of the operator.
    fn ask(&self, who: &str, arguments: &[&str]) -> anyhow::Result<Value> {
        let token = if who == "operator" { "data/admin.token".to_owned() } else { format!("{who}.token") };
        let mut command = Command::new(&self.wasmill);
        command.current_dir(&self.folder).args(arguments).args([
            "--server",
            &self.url,
            "--token-file",
            &token,
            "--json",
        ]);
        let done = command.output().with_context(|| format!("cannot run {arguments:?}"))?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{arguments:?} failed: {said}");
        Ok(serde_json::from_slice(&done.stdout).unwrap_or_default())
    }

    fn tenant(&self, name: &str, budget: &str) -> anyhow::Result<()> {
        self.ask("operator", &["tenant", "create", name, "--budget", budget])?;
        let out = format!("{name}.token");
        let scopes = ["--scope", "read", "--scope", "deploy"];
        let create = ["token", "create", "all", "--tenant", name, "--out", &out];
        self.ask("operator", &[&create[..], &scopes[..]].concat())?;
        Ok(())
    }

    /// The counters of a job that runs.
    fn status(&self, who: &str, job: &str) -> anyhow::Result<Value> {
        let began = now();
        loop {
            let view = self.ask(who, &["status", job])?;
            ensure!(view["phase"] != "failed", "{job} failed: {}", view["reason"]);
            if view["status"].is_object() {
                return Ok(view["status"].clone());
            }
            ensure!(began.elapsed() < PATIENCE, "{job} does not run: {view}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A job that loops has used a second of CPU: it has met its limit, and was replaced.
    fn wait_for_loops(&self) -> anyhow::Result<()> {
        let began = now();
        while stage(&self.status("loud", "loops")?)["guest_cpu_nanos"].as_u64() < Some(1_000_000_000) {
            ensure!(began.elapsed() < PATIENCE, "a guest that loops gets no CPU");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs the job of the quiet tenant for so long, beside those of the loud one.
    fn beside(&self, seconds: u64) -> anyhow::Result<Figures> {
        for job in ["loops", "floods"] {
            self.ask("loud", &["deploy", &format!("{job}.toml")])?;
        }
        self.wait_for_loops()?;
        let figures = self.quiet(seconds)?;
        for job in ["loops", "floods"] {
            self.ask("loud", &["rm", job])?;
        }
        Ok(figures)
    }

    /// Runs the job of the quiet tenant for so long.
    fn quiet(&self, seconds: u64) -> anyhow::Result<Figures> {
        self.ask("quiet", &["deploy", "quiet.toml"])?;
        let (first, began) = (self.status("quiet", "quiet")?, now());
        std::thread::sleep(Duration::from_secs(seconds));
        let (last, took) = (self.status("quiet", "quiet")?, began.elapsed());
        self.ask("quiet", &["rm", "quiet"])?;
        let rows = |status: &Value| stage(status)["rows_out"].as_f64().unwrap_or(0.0);
        let p99_nanos = last["latency"]["p99_nanos"].as_f64().context("no latency")?;
        Ok(Figures { p99_nanos, rows_per_second: (rows(&last) - rows(&first)) / took.as_secs_f64() })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Nothing of it is needed any more.
        let _gone = self.child.kill().is_err();
        let _gone = self.child.wait().is_err();
    }
}

/// The counters of the stage.
fn stage(status: &Value) -> Value {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["kind"] == "stage").unwrap_or_default()
}

fn median(pairs: &[Pair], of: impl Fn(&Pair) -> f64) -> f64 {
    let mut values: Vec<f64> = pairs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn report(pairs: &[Pair], usage: &Value, as_json: bool) -> anyhow::Result<()> {
    let latency = median(pairs, |pair| pair.beside.p99_nanos / pair.alone.p99_nanos);
    let throughput = median(pairs, |pair| pair.beside.rows_per_second / pair.alone.rows_per_second);
    let p99 = [median(pairs, |pair| pair.alone.p99_nanos), median(pairs, |pair| pair.beside.p99_nanos)];
    let rows = [median(pairs, |pair| pair.alone.rows_per_second), median(pairs, |pair| pair.beside.rows_per_second)];
    let met = latency <= LATENCY_MAX && throughput >= THROUGHPUT_MIN;
    let has = &usage["has"];
    if as_json {
        let each = |of: fn(&Pair) -> Figures| -> Vec<Value> {
            let figures = |it: Figures| json!({"p99_nanos": it.p99_nanos, "rows_per_second": it.rows_per_second});
            pairs.iter().map(|pair| figures(of(pair))).collect()
        };
        let line = json!({
            "events_per_second": RATE, "alone": each(|pair| pair.alone), "beside": each(|pair| pair.beside),
            "p99_ratio": latency, "p99_ratio_max": LATENCY_MAX,
            "throughput_ratio": throughput, "throughput_ratio_min": THROUGHPUT_MIN,
            "loud": {
                "guest_cpu_nanos": usage["used"]["guest_cpu_nanos"], "cpu_waited_nanos": has["cpu_waited_nanos"],
                "refused": has["refused"], "throttled": has["throttled"],
                "log_lines_dropped": has["log_lines_dropped"],
            },
            "met": met,
        });
        println!("{line}");
    }
    say(&format!(
        "{RATE} events a second: p99 {:.2} ms alone, {:.2} ms beside ({latency:.2} times, at most {LATENCY_MAX}); \
         {:.0} and {:.0} rows a second ({throughput:.2} times, at least {THROUGHPUT_MIN})",
        p99[0] / 1e6,
        p99[1] / 1e6,
        rows[0],
        rows[1],
    ));
    say(&format!(
        "the other tenant: {} ns of CPU, waited {} ns for more; refused {}, throttled {}, log lines dropped {}",
        usage["used"]["guest_cpu_nanos"],
        has["cpu_waited_nanos"],
        has["refused"],
        has["throttled"],
        has["log_lines_dropped"]
    ));
    ensure!(met, "neighbours feel each other more than is promised");
    Ok(())
}
