//! `cargo xtask swaps`: another plugin in a stage of a real job, again and again, while 20,000 events a
//! second go through it.
//!
//! The plugin is `tests/guests/versions`, in versions that differ in a few bytes. Good ones take turns;
//! one in ten fails, each at its own step. One life of the job in about five swaps ends with signal 9,
//! at a named step of the swap or at a random time after it was asked for. Between swaps, while the version runs that
//! the job file names, the graph is exchanged now and then: the stage gets another number of tasks, and a sink comes
//! or goes; one exchange in three is hit by a kill at a random time. What the job shows in the end
//! is held to an oracle that knows the input, and which swaps were made.

mod job;
mod oracle;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::crash::Random;
use crate::root;
use crate::steps::{now, say};
use job::{Job, Outcome, Versions};

/// Swaps on one state directory.
const SWAPS_PER_ROUND: u64 = 50;
/// Swaps in one life that ends with a kill: half of this on average.
const SWAPS_PER_LIFE: u64 = 9;
/// One swap in so many is one to a version that fails.
const BAD: u64 = 10;
/// What the pause of a swap may take, 99 times of 100.
const PAUSE_MAX: Duration = Duration::from_millis(10);
/// Fewer are not judged.
const PAUSES_MIN: usize = 100;
/// Steps of a swap at which the process may die, and how often one swap passes each.
const POINTS: [(&str, u64); 3] = [("swap-kept", 1), ("swap-prepared", 2), ("swap-settled", 2)];
/// One swap in so many comes behind an exchange of the graph, and the first that can.
const EXCHANGE: u64 = 4;
/// One exchange in so many is hit by a kill.
const EXCHANGE_KILLED: u64 = 3;
/// Until when after it was asked for a swap may be hit by a kill from outside.
const KILL_WITHIN: Duration = Duration::from_millis(300);

/// What a campaign did and found.
#[derive(Default)]
struct Verdict {
    swaps: u64,
    taken: u64,
    /// Swaps to a version that fails, by the version.
    failed: BTreeMap<&'static str, u64>,
    kills: u64,
    at_points: u64,
    /// Exchanges of the graph that were made, and those that a kill hit.
    exchanges: u64,
    exchanges_killed: u64,
    events: u64,
    pauses: Vec<u64>,
    findings: Vec<String>,
}

impl Verdict {
    fn pause(&self, percent: usize) -> u64 {
        let mut pauses = self.pauses.clone();
        pauses.sort_unstable();
        let place = (pauses.len() * percent).div_ceil(100).saturating_sub(1);
        pauses.get(place).copied().unwrap_or(0)
    }

    fn is_met(&self) -> bool {
        // A quantile of a few says nothing.
        let paused = self.pauses.len() < PAUSES_MIN || self.pause(99) <= PAUSE_MAX.as_micros() as u64;
        self.findings.is_empty() && paused
    }
}

/// Swaps so often, prints what came of it, and fails where something is not as promised.
pub(crate) fn swaps(swaps: u64, seed: u64, wasmill: &Path, json: bool) -> anyhow::Result<()> {
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    let wasmill = wasmill.canonicalize().with_context(|| format!("cannot find {}", wasmill.display()))?;
    let root = root()?;
    let versions = Versions::read(&root.join("target/guests/versions.wasm"))?;
    let began = now();
    let mut random = Random::new(seed);
    let mut verdict = Verdict::default();
    let mut round = 0;
    while verdict.swaps < swaps && verdict.findings.is_empty() {
        round += 1;
        let folder = root.join(format!("target/swaps/{seed}-{round}"));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let job = Job::new(&wasmill, &folder, &versions)?;
        let wanted = (swaps - verdict.swaps).min(SWAPS_PER_ROUND);
        let made = run(&job, wanted, &mut random, &mut verdict)?;
        verdict.events += oracle::check(&folder, &job, &made, &mut verdict.findings)?;
        if verdict.findings.is_empty() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        } else {
            say(&format!("round {round}: see {}", folder.display()));
        }
    }
    report(&verdict, seed, round, began.elapsed(), json);
    if !verdict.is_met() {
        bail!("swaps are not what they promise");
    }
    Ok(())
}

/// Runs a job through so many swaps. Returns the versions that ran, in order.
fn run(job: &Job, wanted: u64, random: &mut Random, verdict: &mut Verdict) -> anyhow::Result<Vec<&'static str>> {
    let mut made = vec!["v1"];
    let mut left = wanted;
    while left > 0 {
        let length = 1 + random.below(SWAPS_PER_LIFE);
        // The last life of a round ends by itself.
        let kill = (length <= left).then(|| Kill::new(length, random));
        let mut life = job.start(kill.as_ref().and_then(Kill::point))?;
        if let Some(runs) = life.version()? {
            settle(&mut made, runs, verdict);
        }
        for swap in 1..=length.min(left) {
            // The state must have grown, or the swap comes before the first row.
            life.wait_for_rows(2_000)?;
            let before = *made.last().unwrap_or(&"v1");
            let exchanges = before == "v1" && (verdict.exchanges == 0 || random.below(EXCHANGE) == 0);
            if exchanges && !exchange(&mut life, job, random, verdict)? {
                break;
            }
            let other = if before == "v1" { "v2" } else { "v1" };
            left -= 1;
            verdict.swaps += 1;
            let version =
                if random.below(BAD) == 0 { job::BAD[random.below(job::BAD.len() as u64) as usize] } else { other };
            let after = kill.as_ref().and_then(|kill| kill.after(swap));
            match life.swap(version, after)? {
                Outcome::Died => {
                    verdict.kills += 1;
                    verdict.at_points += u64::from(after.is_none());
                    break;
                }
                Outcome::Taken(micros) if version == other => {
                    verdict.taken += 1;
                    verdict.pauses.push(micros);
                    made.push(other);
                }
                Outcome::Taken(_) => verdict.findings.push(format!("a version that fails in {version} was taken")),
                Outcome::Refused(why) if version == other => {
                    verdict.findings.push(format!("{version} was refused: {why}"))
                }
                Outcome::Refused(_) => *verdict.failed.entry(version).or_default() += 1,
            }
            // It may die after it has answered: a share of the stage that comes last to a step.
            let Some(runs) = life.version()? else {
                verdict.kills += 1;
                verdict.at_points += 1;
                break;
            };
            if made.last() != Some(&runs) {
                verdict.findings.push(format!("{runs} runs after {made:?}, {version} was asked for"));
                return Ok(made);
            }
        }
        if life.lives() {
            if kill.is_some() {
                verdict.kills += 1;
                life.kill()?;
            } else {
                life.wait_for_rows(2_000)?;
                life.stop()?;
                return Ok(made);
            }
        }
    }
    let mut life = job.start(None)?;
    let runs = life.version()?.context("nothing kills the last life")?;
    settle(&mut made, runs, verdict);
    life.wait_for_rows(2_000)?;
    life.stop()?;
    Ok(made)
}

/// Has the job go on with another graph. `false` where the process died.
fn exchange(life: &mut job::Life<'_>, job: &Job, random: &mut Random, verdict: &mut Verdict) -> anyhow::Result<bool> {
    job.regraph()?;
    let kill = (random.below(EXCHANGE_KILLED) == 0).then(|| random.between(Duration::ZERO, KILL_WITHIN));
    match life.apply(kill)? {
        Outcome::Taken(_) => verdict.exchanges += 1,
        Outcome::Refused(why) => verdict.findings.push(format!("another graph was refused: {why}")),
        Outcome::Died => {}
    }
    let died = kill.is_some() || !life.lives();
    verdict.exchanges_killed += u64::from(died);
    Ok(!died)
}

/// After a crash the job says which version its last epoch was made with. A swap that nobody has heard
/// of may have been made, and one that was told of must have been.
fn settle(made: &mut Vec<&'static str>, runs: &'static str, verdict: &mut Verdict) {
    if made.last() != Some(&runs) {
        if !["v1", "v2"].contains(&runs) {
            verdict.findings.push(format!("{runs} runs after a crash"));
        }
        made.push(runs);
    }
}

/// How a life ends.
enum Kill {
    /// At a named step.
    Point(&'static str, u64),
    /// After the n-th swap was asked for.
    After(u64, Duration),
}

impl Kill {
    fn new(length: u64, random: &mut Random) -> Self {
        if random.below(2) == 0 {
            let (point, passings) = POINTS[random.below(POINTS.len() as u64) as usize];
            return Self::Point(point, 1 + (length - 1) * passings + random.below(passings));
        }
        Self::After(length, random.between(Duration::ZERO, KILL_WITHIN))
    }

    fn point(&self) -> Option<(&'static str, u64)> {
        match self {
            Self::Point(point, passing) => Some((point, *passing)),
            Self::After(..) => None,
        }
    }

    fn after(&self, swap: u64) -> Option<Duration> {
        match self {
            Self::After(last, wait) if *last == swap => Some(*wait),
            _ => None,
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn report(verdict: &Verdict, seed: u64, rounds: u64, took: Duration, as_json: bool) {
    let failed: u64 = verdict.failed.values().sum();
    let (p50, p99, most) = (verdict.pause(50), verdict.pause(99), verdict.pause(100));
    if as_json {
        let line = json!({
            "swaps": verdict.swaps, "seed": seed, "taken": verdict.taken, "failed": failed,
            "failed_by_version": verdict.failed, "exchanges": verdict.exchanges, "exchanges_killed": verdict.exchanges_killed,
            "kills": verdict.kills, "kills_at_points": verdict.at_points,
            "rounds": rounds, "events": verdict.events, "events_per_second": job::RATE,
            "pause_p50_micros": p50, "pause_p99_micros": p99, "pause_max_micros": most,
            "mismatches": verdict.findings.len(), "met": verdict.is_met(), "seconds": took.as_secs_f64(),
        });
        println!("{line}");
    }
    say(&format!(
        "{} swaps ({} taken, {failed} of a plugin that fails, {} kills, {} of them at a named step) and {} exchanges \
         of the graph ({} killed) over {} events in {:.0} s: pause p50 {p50} us, p99 {p99} us, max {most} us, {} mismatches (seed {seed})",
        verdict.swaps,
        verdict.taken,
        verdict.kills,
        verdict.at_points,
        verdict.exchanges,
        verdict.exchanges_killed,
        verdict.events,
        took.as_secs_f64(),
        verdict.findings.len(),
    ));
    for finding in verdict.findings.iter().take(20) {
        say(&format!("  {finding}"));
    }
}

fn write(path: &PathBuf, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
