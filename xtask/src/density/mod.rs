//! `cargo xtask density`: very many jobs in one real `wasmill serve`, some of them with traffic, most of
//! them hibernating. Measures what each takes, and holds the service to it:
//!
//! - an idle job wakes within 50 ms, 99 times of 100: from sending a row to the job having read it;
//! - the last idle jobs deploy as quickly as the first, beside the traffic of the live ones;
//! - a service that was killed is ready again soon, with every job;
//! - every row that was sent is in the results once;
//! - memory goes back to what it was, once the jobs are removed.

pub(crate) mod service;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::root;
use crate::steps::{now, say};
use service::{Api, Service, quantile, until, wait_until};

/// Jobs of a tenant.
const JOBS_PER_TENANT: usize = 1_000;
/// Threads that deploy, and that send rows.
const SENDERS: usize = 4;
/// Every live job gets a row this often.
const TRAFFIC_EVERY: Duration = Duration::from_secs(5);
/// A job without a row hibernates after this long.
const HIBERNATE_AFTER: &str = "15s";
/// Idle jobs that are woken, one after the other, and how far apart.
const WAKES_MAX: usize = 500;
const WAKE_EVERY: Duration = Duration::from_millis(50);
const WAKE_P99_MS_MAX: f64 = 50.0;
/// The last tenth of the idle jobs may take so many times what the first tenth took to deploy.
const SLOWER_MAX: f64 = 3.0;
/// A start of the service may take so long, and so much more for each job.
const START_MAX: Duration = Duration::from_secs(5);
const START_PER_JOB_MAX: Duration = Duration::from_millis(2);
/// Of what the jobs took in memory so much may be left, in parts of a hundred, and so much anyway: the
/// allocator keeps some.
const LEFT_PERCENT_MAX: u64 = 10;
const LEFT_MAX: u64 = 64 << 20;

/// Every row is in the results after so long.
const ROWS_PATIENCE: Duration = Duration::from_secs(300);

/// One job of one tenant.
struct Job {
    /// Among all.
    number: usize,
    tenant: usize,
}

impl Job {
    fn all(range: std::ops::Range<usize>) -> Vec<Self> {
        range.map(|number| Self { number, tenant: number / JOBS_PER_TENANT }).collect()
    }

    fn text(&self) -> String {
        let number = self.number;
        format!(
            "name = \"j{number}\"\nepoch = {{ interval = \"2s\" }}\n[source.in]\nconnector = \"topic\"\n\
             topic = \"t{number}\"\n[stage.work]\nplugin = \"std:filter\"\nconfig = {{ where = \"true\" }}\n\
             input = \"in\"\nlimits = {{ memory = \"16MiB\" }}\n[sink.out]\nconnector = \"topic\"\n\
             topic = \"out\"\npartitions = 1\ninput = \"work\"\n"
        )
    }

    fn path(&self) -> String {
        format!("/v1/jobs/j{}", self.number)
    }
}

/// The service and its tenants.
struct Crowd {
    service: Service,
    /// By tenant.
    tokens: Vec<String>,
    /// Rows sent so far: the value of the next one.
    sent: AtomicU64,
}

impl Crowd {
    fn api(&self, tenant: usize) -> Api {
        Api::new(&self.service.address, &self.tokens[tenant])
    }

    /// Connections of one thread to all tenants.
    fn apis(&self) -> Vec<Api> {
        (0..self.tokens.len()).map(|tenant| self.api(tenant)).collect()
    }

    /// Does something to every job, on several threads. Returns how long each took, in the order of jobs.
    fn each(
        &self,
        jobs: &[Job],
        act: impl Fn(&mut Api, &Job) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<Vec<Duration>> {
        let each = |sender: usize| {
            let mut apis = self.apis();
            let mut took = Vec::new();
            for (place, job) in jobs.iter().enumerate().skip(sender).step_by(SENDERS) {
                let began = now();
                act(&mut apis[job.tenant], job)?;
                took.push((place, began.elapsed()));
            }
            anyhow::Ok(took)
        };
        let mut took = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || each(sender))).collect();
            let mut all = Vec::new();
            for thread in threads {
                all.extend(thread.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??);
            }
            anyhow::Ok(all)
        })?;
        took.sort_unstable();
        Ok(took.into_iter().map(|(_, took)| took).collect())
    }

    fn deploy(&self, jobs: &[Job]) -> anyhow::Result<Vec<Duration>> {
        self.each(jobs, |api, job| {
            api.ask("POST", "/v1/topics", &json!({"topic": format!("t{}", job.number)}))?;
            api.put("PUT", &job.path(), job.text().as_bytes()).map(drop)
        })
    }

    /// Sends a row to a job.
    fn row(&self, api: &mut Api, job: &Job) -> anyhow::Result<()> {
        let row = self.sent.fetch_add(1, Ordering::Relaxed);
        let line = json!({"key": "k", "value": {"n": row}}).to_string();
        api.put("POST", &format!("/v1/topics/t{}/records", job.number), line.as_bytes()).map(drop)
    }

    fn usage(&self) -> anyhow::Result<(u64, u64)> {
        let (mut jobs, mut hibernating) = (0, 0);
        for mut api in self.apis() {
            let has = &api.get("/v1/usage")?["has"];
            jobs += has["jobs"].as_u64().context("no jobs")?;
            hibernating += has["hibernating"].as_u64().context("no hibernating")?;
        }
        Ok((jobs, hibernating))
    }

    /// Sends every live job its rows, until told to end.
    fn traffic(&self, live: &[Job], end: &AtomicBool) -> anyhow::Result<()> {
        while !end.load(Ordering::Relaxed) {
            let round = now() + TRAFFIC_EVERY;
            self.each(live, |api, job| if end.load(Ordering::Relaxed) { Ok(()) } else { self.row(api, job) })?;
            while now() < round && !end.load(Ordering::Relaxed) {
                wait_until((now() + Duration::from_millis(100)).min(round));
            }
        }
        Ok(())
    }

    /// Wakes a job: how long until it has read a row.
    fn wake(&self, api: &mut Api, job: &Job) -> anyhow::Result<Duration> {
        let began = now();
        self.row(api, job)?;
        loop {
            let view = api.get(&job.path())?;
            if view["status"]["nodes"][0]["rows_in"].as_u64() >= Some(1) {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < Duration::from_secs(60), "job {} did not wake: {view}", job.number);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Waits until every row that was sent is in the results, and finds those that are lost or doubled.
    fn wrong_rows(&self) -> anyhow::Result<(u64, u64)> {
        let sent = self.sent.load(Ordering::Relaxed);
        let (mut next, mut seen, mut doubled) = (vec![0_u64; self.tokens.len()], BTreeSet::new(), 0);
        let mut apis = self.apis();
        let began = now();
        while (seen.len() as u64) < sent && began.elapsed() < ROWS_PATIENCE {
            for (api, next) in apis.iter_mut().zip(&mut next) {
                loop {
                    let page = api.get(&format!("/v1/topics/out/records?limit=1000&offset={next}"))?;
                    let records = page["records"].as_array().context("no records")?;
                    for record in records {
                        doubled += u64::from(!seen.insert(record["value"]["n"].as_u64().context("no row")?));
                    }
                    *next = page["next"].as_u64().context("no next page")?;
                    if records.is_empty() {
                        break;
                    }
                }
            }
            wait_until(now() + Duration::from_millis(200));
        }
        Ok((sent - seen.len() as u64, doubled))
    }
}

/// Runs so many jobs, prints what they take, and fails where something is not as promised.
pub(crate) fn density(live: usize, idle: usize, wasmill: &Path, json: bool) -> anyhow::Result<()> {
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    ensure!(live > 0 && idle > 0, "at least one live and one idle job");
    let wasmill = wasmill.canonicalize().with_context(|| format!("cannot find {}", wasmill.display()))?;
    let folder = root()?.join("target/density");
    let service = Service::start(&wasmill, &folder, &["--hibernate-after", HIBERNATE_AFTER])?;
    let mut crowd = Crowd { service, tokens: Vec::new(), sent: AtomicU64::new(0) };
    for tenant in 0..(live + idle).div_ceil(JOBS_PER_TENANT) {
        crowd.tokens.push(crowd.service.tenant(&format!("tenant-{tenant}"))?);
    }
    let (live, idle) = (Job::all(0..live), Job::all(live..live + idle));
    let result = measure(&mut crowd, &live, &idle)?;
    drop(crowd);
    std::fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    report(&result, json);
    let findings = result["findings"].as_array().map_or(0, Vec::len);
    if findings > 0 {
        bail!("{findings} of what density promises is not met");
    }
    Ok(())
}

fn mean(durations: &[Duration]) -> f64 {
    durations.iter().sum::<Duration>().as_secs_f64() * 1e3 / durations.len().max(1) as f64
}

fn measure(crowd: &mut Crowd, live: &[Job], idle: &[Job]) -> anyhow::Result<Value> {
    let mut findings: Vec<String> = Vec::new();
    // The engine, the plugin and the topic of the results are there once and for all.
    let first = Job { number: usize::MAX, tenant: 0 };
    crowd.deploy(std::slice::from_ref(&first))?;
    let mut api = crowd.api(0);
    until("the first job hibernates", || Ok(crowd.usage()?.1 == 1))?;
    api.put("DELETE", &first.path(), b"")?;
    let baseline = crowd.service.memory()?;

    say(&format!("deploying {} live jobs", live.len()));
    let deploying = now();
    let live_deploys = crowd.deploy(live)?;
    let end = AtomicBool::new(false);
    let (with_live, deploys) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| crowd.traffic(live, &end));
        let work = (|| {
            // Every job has had rows, and has committed some epochs.
            wait_until(now() + 2 * TRAFFIC_EVERY);
            let with_live = crowd.service.memory()?;
            say(&format!("deploying {} jobs that will have nothing to do", idle.len()));
            let took = crowd.deploy(idle)?;
            let every = idle.len() as u64;
            until("idle jobs hibernate", || Ok(crowd.usage()?.1 >= every))?;
            anyhow::Ok((with_live, took))
        })();
        end.store(true, Ordering::Relaxed);
        traffic.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        work
    })?;
    let deployed_in = deploying.elapsed();
    // Beside the same traffic, so that what differs is how many jobs there are.
    let tenths: Vec<f64> = deploys.chunks(deploys.len().div_ceil(10)).map(mean).collect();
    let (early, late) = (tenths[0], tenths[tenths.len() - 1]);
    if late > early * SLOWER_MAX {
        findings.push(format!("the last deployments take {late:.1} ms each, the first took {early:.1} ms"));
    }
    let with_all = crowd.service.memory()?;
    let threads = crowd.service.threads()?;

    // One after the other, while the live jobs have their traffic.
    say("waking idle jobs");
    end.store(false, Ordering::Relaxed);
    let wakes = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| crowd.traffic(live, &end));
        let work = (|| {
            let mut apis = crowd.apis();
            let mut wakes = Vec::new();
            let step = idle.len().div_ceil(WAKES_MAX);
            for job in idle.iter().step_by(step) {
                let next = now() + WAKE_EVERY;
                wakes.push(crowd.wake(&mut apis[job.tenant], job)?);
                wait_until(next);
            }
            anyhow::Ok(wakes)
        })();
        end.store(true, Ordering::Relaxed);
        traffic.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        work
    })?;
    let wake_p99 = quantile(&wakes, 99);
    if wake_p99 > WAKE_P99_MS_MAX {
        findings.push(format!("a job wakes in {wake_p99:.1} ms at the 99th percentile, {WAKE_P99_MS_MAX} are allowed"));
    }

    say("starting the service again, after a kill");
    crowd.service.kill()?;
    let start = crowd.service.launch()?;
    let jobs = (live.len() + idle.len()) as u32;
    let start_max = START_MAX + START_PER_JOB_MAX * jobs;
    if start > start_max {
        findings.push(format!(
            "a start took {:.1} s, {:.1} s are allowed",
            start.as_secs_f64(),
            start_max.as_secs_f64()
        ));
    }
    let known = crowd.usage()?.0;
    if known != u64::from(jobs) {
        findings.push(format!("{known} of {jobs} jobs are there after a kill"));
    }
    // All of them, as quickly as it goes: so the new process has had every job in memory too.
    say("waking every idle job at once");
    let began = now();
    crowd.each(idle, |api, job| crowd.row(api, job))?;
    let (lost, doubled) = crowd.wrong_rows()?;
    let storm = began.elapsed();
    let every = idle.len() as u64;
    until("idle jobs hibernate again", || Ok(crowd.usage()?.1 >= every))?;
    let with_all = with_all.max(crowd.service.memory()?);
    if lost + doubled > 0 {
        findings.push(format!("{lost} rows are lost, {doubled} doubled"));
    }

    say("removing every job");
    let all: Vec<Job> = Job::all(0..live.len() + idle.len());
    crowd.each(&all, |api, job| {
        api.put("DELETE", &job.path(), b"")?;
        api.put("DELETE", &format!("/v1/topics/t{}", job.number), b"").map(drop)
    })?;
    let grown = with_all.saturating_sub(baseline);
    let bound = baseline + grown * LEFT_PERCENT_MAX / 100 + LEFT_MAX;
    let began = now();
    let mut after = crowd.service.memory()?;
    // The allocator gives memory back with some delay.
    while after > bound && began.elapsed() < Duration::from_secs(30) {
        wait_until(now() + Duration::from_secs(1));
        after = crowd.service.memory()?;
    }
    if after > bound {
        findings.push(format!("{after} bytes are in memory after all jobs were removed, {bound} are allowed"));
    }
    Ok(json!({
        "live": live.len(),
        "idle": idle.len(),
        "baseline_bytes": baseline,
        "bytes_per_live_job": with_live.saturating_sub(baseline) / live.len() as u64,
        "bytes_per_idle_job": with_all.saturating_sub(with_live) / idle.len() as u64,
        "with_all_bytes": with_all,
        "after_bytes": after,
        "after_bytes_max": bound,
        "threads": threads,
        "deploy_seconds": deployed_in.as_secs_f64(),
        "deploy_live_ms": mean(&live_deploys),
        "deploy_idle_ms": tenths,
        "wakes": wakes.len(),
        "wake_p50_ms": quantile(&wakes, 50),
        "wake_p99_ms": wake_p99,
        "wake_max_ms": quantile(&wakes, 100),
        "start_seconds": start.as_secs_f64(),
        "wake_all_seconds": storm.as_secs_f64(),
        "rows": crowd.sent.load(Ordering::Relaxed),
        "lost": lost,
        "doubled": doubled,
        "findings": findings,
    }))
}

#[expect(clippy::print_stdout, reason = "the result of a command")]
pub(crate) fn report(result: &Value, json: bool) {
    if json {
        println!("{result}");
        return;
    }
    for (name, value) in result.as_object().into_iter().flatten().filter(|(name, _)| *name != "findings") {
        match value.as_f64() {
            Some(number) if value.is_f64() => println!("{name:<22} {number:.1}"),
            _ => println!("{name:<22} {value}"),
        }
    }
    for finding in result["findings"].as_array().into_iter().flatten() {
        println!("not met: {}", finding.as_str().unwrap_or_default());
    }
}
