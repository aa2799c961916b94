//! `cargo xtask crash`: kills the real process again and again, and holds what it shows to an
//! oracle that knows the input and nothing of the runtime.
//!
//! The job's HTTP sink posts to a server of this program, which drops ids that it has and misbehaves.
//!
//! A round makes an input, runs a job over it with `--state`, kills the process with signal 9 until
//! there were enough kills, lets it finish, and compares. Half of the kills come at random times,
//! half at named points; one life in ten behind a kill is killed early, during recovery; half of the
//! lives share the machine with threads that only spin. A round runs at one parallelism and is
//! restored at another.

mod life;
mod oracle;
mod target;
mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use wasmill_env::KILL_POINTS;

use life::{Contention, End, Ended, Points, Program};
use oracle::{Findings, Snapshot, check, delivered, write};
use target::Target;
use workload::{READ, RESULTS, input, job};

pub(crate) use oracle::Mode;

use crate::root;
use crate::steps::{now, say};

/// Kills in one round: so many rounds see each parallelism.
const KILLS_PER_ROUND: u64 = 34;
/// The parallelism of a round and the one it is restored at, round by round.
const PARALLELISM: [(u16, u16); 3] = [(1, 2), (2, 4), (4, 1)];
/// Points that only the end of a job passes: a round ends with one of them.
const END_POINTS: [&str; 4] = ["file-sink-finish", "file-sink-renamed", "job-closing", "job-closed"];

/// What is asked for.
pub(crate) struct Options {
    pub(crate) kills: u64,
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    /// The binary that runs the jobs.
    pub(crate) wasmill: PathBuf,
    /// A bug to let in.
    pub(crate) planted: Option<String>,
}

/// What a campaign did and found.
#[derive(Default)]
pub(crate) struct Verdict {
    kills: u64,
    rounds: u64,
    lives: u64,
    epochs: u64,
    in_recovery: u64,
    under_contention: u64,
    /// Kills at named points.
    points: BTreeMap<&'static str, u64>,
    findings: Findings,
}

impl Verdict {
    /// Whether everything is as the mode promises.
    pub(crate) fn is_clean(&self) -> bool {
        self.findings.mismatches == 0
    }
}

/// SplitMix64: the same figures from the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = to.saturating_sub(from).as_micros() as u64;
        from + Duration::from_micros(self.below(span))
    }
}

/// Runs a campaign in each of the modes, prints what came of it, and fails where anything did.
pub(crate) fn crash(kills: u64, seed: u64, modes: &[Mode], wasmill: &Path, json: bool) -> anyhow::Result<()> {
    let all = if modes.is_empty() { &Mode::ALL } else { modes };
    let mut clean = true;
    for &mode in all {
        let began = now();
        let options = Options { kills, seed, mode, wasmill: wasmill.to_owned(), planted: None };
        let verdict = campaign(&options)?;
        report(&verdict, &options, began.elapsed(), json);
        clean &= verdict.is_clean();
    }
    if !clean {
        bail!("what was shown is not what the input has to become");
    }
    Ok(())
}

/// Kills jobs as often as asked for, or until something is found.
pub(crate) fn campaign(options: &Options) -> anyhow::Result<Verdict> {
    let Options { kills, seed, mode, wasmill, planted } = options;
    let (kills, mode) = (*kills, *mode);
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    let root = root()?;
    let guests = root.join("target/guests");
    for guest in ["count.wasm", "beats.wasm"] {
        let guest = guests.join(guest);
        ensure!(guest.is_file(), "there is no {}; build it with: cargo xtask plugins", guest.display());
    }
    let wasmill = wasmill.canonicalize().with_context(|| format!("cannot find {}", wasmill.display()))?;
    let program = Program { wasmill, planted: planted.clone() };
    let mut random = Random(*seed);
    let mut points = Points::new(mode);
    let mut verdict = Verdict::default();
    let name = planted.as_deref().unwrap_or(mode.name());
    let folder = |what: &str| fresh(&root.join(format!("target/crash/{name}-{seed}-{what}")));

    let trial = folder("trial")?;
    let target = Target::new(*seed)?;
    write(&trial.join("job.toml"), &job(&guests, mode.name(), 1, &target.url()))?;
    write(&trial.join("in-0.jsonl"), "{\"k\":\"a\",\"t\":2,\"v\":1}\n")?;
    let start_up = program.start_up(&trial)?;
    remove(&trial)?;

    while verdict.kills < kills && verdict.findings.mismatches == 0 {
        let parallelism = PARALLELISM[(verdict.rounds % PARALLELISM.len() as u64) as usize];
        verdict.rounds += 1;
        let folder = folder(&verdict.rounds.to_string())?;
        let target = Target::new(random.next())?;
        write(&folder.join("job.toml"), &job(&guests, mode.name(), parallelism.0, &target.url()))?;
        write(&folder.join("read.toml"), READ)?;
        let expected = input(&folder, &mut random)?;
        let round = Round { program: &program, folder: &folder, mode, parallelism, start_up };
        let kills = (kills - verdict.kills).min(KILLS_PER_ROUND);
        let deaths = round.run(kills, &mut points, &mut random, &mut verdict)?;
        check(&folder.join("out"), mode, &expected, &deaths, &mut verdict.findings)?;
        program.read(&folder)?;
        delivered(&folder, &expected, target.take(), &mut verdict.findings)?;
        if verdict.findings.mismatches == 0 {
            remove(&folder)?;
        } else if planted.is_none() {
            say(&format!("round {}: results differ; see {}", verdict.rounds, folder.display()));
        }
    }
    Ok(verdict)
}

fn fresh(folder: &Path) -> anyhow::Result<PathBuf> {
    if folder.exists() {
        remove(folder)?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.to_owned())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

/// One job, from its start to its end.
struct Round<'a> {
    program: &'a Program,
    folder: &'a Path,
    mode: Mode,
    parallelism: (u16, u16),
    /// What a life takes that has nothing to read.
    start_up: Duration,
}

impl Round<'_> {
    /// Runs the job until it finishes, killing it on the way.
    fn run(
        &self,
        kills: u64,
        points: &mut Points,
        random: &mut Random,
        verdict: &mut Verdict,
    ) -> anyhow::Result<Vec<Snapshot>> {
        let out = self.folder.join("out");
        let mut deaths = Vec::new();
        let mut visible: BTreeMap<&str, u64> = BTreeMap::new();
        let mut last_point = false;
        loop {
            verdict.lives += 1;
            let contended = random.below(2) == 0;
            let busy = contended.then(Contention::new);
            // With others on the machine everything takes longer, up to its end.
            let start_up = if contended { self.start_up * 2 } else { self.start_up };
            let recovering = !deaths.is_empty() && random.below(10) == 0;
            let end = if deaths.len() as u64 >= kills {
                if last_point {
                    End::Natural
                } else {
                    last_point = true;
                    End::At(END_POINTS[(verdict.rounds % END_POINTS.len() as u64) as usize], 1, None)
                }
            } else if recovering {
                End::After(random.between(Duration::ZERO, start_up))
            } else if random.below(3) == 0 {
                End::After(random.between(start_up / 2, start_up * 3))
            } else {
                // Points that this life does not pass are for the ones that a signal ends after all.
                let limit = random.between(start_up * 2, start_up * 4);
                End::At(points.next(random), 1 + random.below(6) / 4, Some(limit))
            };
            let parallelism = if random.below(2) == 0 { self.parallelism.0 } else { self.parallelism.1 };
            let ended = self.program.live(self.folder, parallelism, end)?;
            drop(busy);
            match ended {
                Ended::Finished(summary) => {
                    let summary: Value =
                        serde_json::from_str(&summary).with_context(|| format!("{summary:?} is no JSON"))?;
                    let number = |key: &str| summary[key].as_u64().unwrap_or(0);
                    verdict.epochs += number("resumed_at") + number("epochs") + number("epoch");
                    break;
                }
                Ended::AtPoint => {
                    if let End::At(point, ..) = end {
                        *verdict.points.entry(point).or_default() += 1;
                    }
                }
                Ended::Killed => {}
            }
            verdict.kills += 1;
            verdict.in_recovery += u64::from(recovering);
            verdict.under_contention += u64::from(contended);
            deaths.push(Snapshot::take(&out));
            if self.mode == Mode::ExactlyOnce {
                unchanged(&out, &mut visible, &mut verdict.findings);
            }
        }
        if self.mode == Mode::ExactlyOnce {
            unchanged(&out, &mut visible, &mut verdict.findings);
        }
        Ok(deaths)
    }
}

/// Looks at results that are visible: they are whole from the first moment on.
fn unchanged(out: &Path, seen: &mut BTreeMap<&'static str, u64>, findings: &mut Findings) {
    for name in RESULTS {
        let Ok(metadata) = fs::metadata(out.join(name)) else { continue };
        let before = *seen.entry(name).or_insert(metadata.len());
        if before != metadata.len() {
            findings.mismatch(|| format!("{name} went from {before} to {} bytes", metadata.len()));
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn report(verdict: &Verdict, options: &Options, took: Duration, as_json: bool) {
    let Verdict { kills, rounds, lives, epochs, in_recovery, under_contention, points, findings } = verdict;
    let Findings { lost, doubled, mismatches, shown } = findings;
    let missed: Vec<&str> = KILL_POINTS
        .iter()
        .filter(|point| {
            !points.contains_key(*point)
                && !["swap-", "exchange-", "serve-"].iter().any(|other| point.starts_with(other))
        })
        .copied()
        .collect();
    let mode = options.mode.name();
    if as_json {
        let line = json!({
            "kills": kills, "mode": mode, "mismatches": mismatches, "lost": lost, "doubled": doubled,
            "seed": options.seed, "rounds": rounds, "lives": lives, "epochs": epochs,
            "at_points": points.values().sum::<u64>(), "in_recovery": in_recovery,
            "under_contention": under_contention, "points": points, "points_not_hit": missed,
            "seconds": took.as_secs_f64(),
        });
        println!("{line}");
    }
    say(&format!(
        "{mode}: {kills} kills, {} of them at {} of {} named points, over {rounds} jobs and {epochs} epochs in {:.0} \
         s: {lost} rows lost, {doubled} doubled, {mismatches} mismatches (seed {})",
        points.values().sum::<u64>(),
        points.len(),
        KILL_POINTS.len(),
        took.as_secs_f64(),
        options.seed,
    ));
    for difference in shown {
        say(&format!("  {difference}"));
    }
}
