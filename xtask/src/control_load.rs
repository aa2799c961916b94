//! `cargo xtask control-load`: whether requests to a service are felt by the jobs that it runs.
//!
//! A job at a steady rate is measured alone, and with 100 deployments a minute and 1,000 idle
//! connections beside it, in pairs. The 99th percentile of its latency may be 1.2 times as long, in the
//! median of the pairs. Cores are [kept busy](Busy) in both halves.

use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::busy::Busy;
use crate::density::report;
use crate::density::service::{Api, Service, until, wait_until};
use crate::root;
use crate::steps::{now, say};

const DEPLOY_EVERY: Duration = Duration::from_millis(600);
const CONNECTIONS: usize = 1_000;
/// The service closes idle connections after 10 s: they are opened again before.
const CONNECTIONS_EVERY: Duration = Duration::from_secs(8);
const RATIO_MAX: f64 = 1.2;
/// Jobs that are deployed in turn: each at most so often.
const JOBS: u64 = 10;

/// A job whose latency is measured.
fn subject(rate: u64) -> String {
    format!(
        "name = \"subject\"\n[source.in]\nconnector = \"generator\"\nrate = {rate}\n[stage.work]\n\
         plugin = \"std:filter\"\nconfig = {{ where = \"true\" }}\ninput = \"in\"\n[sink.out]\n\
         connector = \"blackhole\"\ninput = \"work\"\n"
    )
}

/// A job that is deployed again and again, each time with another text.
fn other(job: u64, turn: u64) -> String {
    format!(
        "name = \"other-{job}\"\n# {turn}\n[source.in]\nconnector = \"topic\"\ntopic = \"in\"\n[stage.work]\n\
         plugin = \"std:filter\"\nconfig = {{ where = \"true\" }}\ninput = \"in\"\n[sink.out]\n\
         connector = \"blackhole\"\ninput = \"work\"\n"
    )
}

/// Runs the subject for so long. Returns the 99th percentile of its latency, in milliseconds.
fn p99(api: &mut Api, rate: u64, time: Duration) -> anyhow::Result<f64> {
    api.put("PUT", "/v1/jobs/subject", subject(rate).as_bytes())?;
    wait_until(now() + time);
    let view = api.get("/v1/jobs/subject")?;
    api.put("DELETE", "/v1/jobs/subject", b"")?;
    let rows = view["status"]["nodes"][0]["rows_in"].as_u64().unwrap_or(0);
    let wanted = rate * time.as_secs();
    ensure!(rows * 10 >= wanted * 8, "the job had {rows} of {wanted} rows: it does not keep up: {view}");
    let nanos = view["status"]["latency"]["p99_nanos"].as_f64().context("no latency")?;
    Ok(nanos / 1e6)
}

/// Deploys at a steady rate until told to end. Returns how often.
fn deploy(api: &mut Api, end: &AtomicBool) -> anyhow::Result<u64> {
    let (began, mut deploys) = (now(), 0);
    while !end.load(Ordering::Relaxed) {
        api.put("PUT", &format!("/v1/jobs/other-{}", deploys % JOBS), other(deploys % JOBS, deploys).as_bytes())?;
        deploys += 1;
        wait_until(began + DEPLOY_EVERY * u32::try_from(deploys)?);
    }
    Ok(deploys)
}

/// Holds connections open that ask for nothing, until told to end.
fn connect(address: &str, end: &AtomicBool, open: &AtomicU64) -> anyhow::Result<()> {
    while !end.load(Ordering::Relaxed) {
        let until = now() + CONNECTIONS_EVERY;
        let connections: Result<Vec<_>, _> = (0..CONNECTIONS).map(|_| TcpStream::connect(address)).collect();
        let connections = connections.context("cannot connect")?;
        open.fetch_max(connections.len() as u64, Ordering::Relaxed);
        while now() < until && !end.load(Ordering::Relaxed) {
            wait_until((now() + Duration::from_millis(100)).min(until));
        }
    }
    Ok(())
}

/// Measures in pairs, prints what came of it, and fails where the load is felt.
pub(crate) fn control_load(pairs: usize, seconds: u64, rate: u64, wasmill: &Path, json: bool) -> anyhow::Result<()> {
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    ensure!(pairs > 0 && seconds > 0, "at least one pair of one second");
    let wasmill = wasmill.canonicalize().with_context(|| format!("cannot find {}", wasmill.display()))?;
    let folder = root()?.join("target/control-load");
    let service = Service::start(&wasmill, &folder, &[])?;
    let (subject, others) = (service.tenant("subject")?, service.tenant("others")?);
    let mut api = Api::new(&service.address, &subject);
    let mut deploying = Api::new(&service.address, &others);
    deploying.ask("POST", "/v1/topics", &json!({"topic": "in"}))?;
    let time = Duration::from_secs(seconds);
    let _busy = Busy::start()?;
    // What is compiled is compiled.
    p99(&mut api, rate, Duration::from_secs(2))?;
    let mut results = Vec::new();
    let (mut deploys, open) = (0, AtomicU64::new(0));
    for pair in 1..=pairs {
        say(&format!("pair {pair} of {pairs}"));
        let alone = p99(&mut api, rate, time)?;
        let end = AtomicBool::new(false);
        let loaded = std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect(&service.address, &end, &open));
            let deploying = scope.spawn(|| deploy(&mut deploying, &end));
            let loaded = until("connections are open", || Ok(open.load(Ordering::Relaxed) > 0))
                .and_then(|()| p99(&mut api, rate, time));
            end.store(true, Ordering::Relaxed);
            connecting.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            deploys += deploying.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            loaded
        })?;
        results.push((alone, loaded));
    }
    drop(service);
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    let mut ratios: Vec<f64> = results.iter().map(|(alone, loaded)| loaded / alone).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    let mut findings = Vec::new();
    if ratio > RATIO_MAX {
        findings.push(format!("latency is {ratio:.2} times as long under load, {RATIO_MAX} is allowed"));
    }
    let wanted = (pairs as u64 * seconds * 100 / 60) * 9 / 10;
    if deploys < wanted {
        findings.push(format!("{deploys} deployments were made, at least {wanted} were to be"));
    }
    let each = |of: fn(&(f64, f64)) -> f64| results.iter().map(of).map(Value::from).collect::<Vec<_>>();
    let result = json!({
        "pairs": pairs,
        "seconds": seconds,
        "events_per_second": rate,
        "deploys": deploys,
        "connections": open.load(Ordering::Relaxed),
        "p99_ms_alone": each(|pair| pair.0),
        "p99_ms_loaded": each(|pair| pair.1),
        "ratio": ratio,
        "ratio_max": RATIO_MAX,
        "findings": findings,
    });
    report(&result, json);
    if findings.is_empty() { Ok(()) } else { bail!("the control plane is felt by the data plane") }
}
