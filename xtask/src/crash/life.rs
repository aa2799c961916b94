//! One life of the job: how long it may live, what ends it, and what else the machine is busy with.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail};
use wasmill_env::{KILL_POINTS, KILL_VARIABLE, PLANTED_VARIABLE, SMALL_VARIABLE};

use super::oracle::Mode;
use super::workload::RESCALED;
use super::{END_POINTS, Random};
use crate::steps::now;

/// A job that does not end within this has hung.
const PATIENCE: Duration = Duration::from_secs(1_200);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const KILL: i32 = 9;

/// How the process is started.
pub(super) struct Program {
    pub(super) wasmill: PathBuf,
    pub(super) planted: Option<String>,
}

/// What ends a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The end of the input.
    Natural,
    /// A signal after so long.
    After(Duration),
    /// A named point at its n-th passing; a signal after so long, where there is any.
    At(&'static str, u64, Option<Duration>),
}

/// What came of a life.
pub(super) enum Ended {
    /// It was killed from outside.
    Killed,
    /// It died at its point.
    AtPoint,
    /// It came to its end, and printed this.
    Finished(String),
}

/// Deals named points, each as often as any other.
pub(super) struct Points {
    all: Vec<&'static str>,
    waiting: Vec<&'static str>,
}

impl Points {
    /// All that a job in this mode passes more than once: what only its end passes comes there.
    pub(super) fn new(mode: Mode) -> Self {
        let passes = |point: &&'static str| {
            !END_POINTS.contains(point)
                && !point.starts_with("swap-")
                && !point.starts_with("exchange-")
                && !point.starts_with("serve-")
                && (*point != "sink-left" || mode == Mode::AtMostOnce)
        };
        Self { all: KILL_POINTS.iter().copied().filter(|point| passes(point)).collect(), waiting: Vec::new() }
    }

    pub(super) fn next(&mut self, random: &mut Random) -> &'static str {
        if self.waiting.is_empty() {
            self.waiting.clone_from(&self.all);
        }
        let place = random.below(self.waiting.len() as u64) as usize;
        self.waiting.swap_remove(place)
    }
}

impl Program {
    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.wasmill);
        command.current_dir(folder).args(["run", "job.toml", "--state", "state", "--json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env(SMALL_VARIABLE, "1").env_remove(KILL_VARIABLE).env_remove(PLANTED_VARIABLE);
        if let Some(bug) = &self.planted {
            command.env(PLANTED_VARIABLE, bug);
        }
        command
    }

    /// One life over what the lives before have left.
    pub(super) fn live(&self, folder: &Path, parallelism: u16, end: End) -> anyhow::Result<Ended> {
        let mut command = self.command(folder);
        for node in RESCALED {
            command.arg("--set").arg(format!("{node}.parallelism={parallelism}"));
        }
        let limit = match end {
            End::Natural => None,
            End::After(limit) => Some(limit),
            End::At(point, passing, limit) => {
                command.env(KILL_VARIABLE, format!("{point}:{passing}"));
                limit
            }
        };
        let mut child = command.spawn().context("cannot start the job")?;
        let by_itself = ends_within(&mut child, limit.unwrap_or(PATIENCE))?;
        if !by_itself {
            child.kill().context("cannot kill the job")?;
            if limit.is_none() {
                bail!("the job did not end within {} s; see {}", PATIENCE.as_secs(), folder.display());
            }
        }
        let output = child.wait_with_output().context("cannot wait for the job")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if killed(output.status) {
            return Ok(if by_itself { Ended::AtPoint } else { Ended::Killed });
        }
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("the job ended with {}: {text}{said}; see {}", output.status, folder.display());
        }
        Ok(Ended::Finished(text))
    }

    /// Writes the topic of a job that is done into a file.
    pub(super) fn read(&self, folder: &Path) -> anyhow::Result<()> {
        let mut command = Command::new(&self.wasmill);
        command.current_dir(folder).args(["run", "read.toml", "--json"]).stdin(Stdio::null());
        let output = command.output().context("cannot read the topic")?;
        if !output.status.success() {
            bail!("cannot read the topic: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    }

    /// How long the job takes from its start to its end where it has nothing to read: compiled
    /// plugins are in the cache from then on.
    pub(super) fn start_up(&self, folder: &Path) -> anyhow::Result<Duration> {
        let mut took = Duration::ZERO;
        for _run in 0..2 {
            let began = now();
            let output = self.command(folder).arg("--fresh").env_remove(PLANTED_VARIABLE).output();
            let output = output.context("cannot run the job")?;
            if !output.status.success() {
                bail!("the job fails: {}", String::from_utf8_lossy(&output.stdout));
            }
            took = began.elapsed();
        }
        Ok(took)
    }
}

#[cfg(unix)]
fn killed(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    status.signal() == Some(KILL)
}

fn ends_within(child: &mut Child, time: Duration) -> anyhow::Result<bool> {
    let began = now();
    loop {
        if child.try_wait().context("cannot look at the job")?.is_some() {
            return Ok(true);
        }
        let left = time.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(left.min(LOOK_EVERY));
    }
}

/// Threads that want the cores as much as the job does, until they are dropped.
pub(super) struct Contention {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Contention {
    pub(super) fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let burn = |over: Arc<AtomicBool>| {
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        Self { threads: (0..cores).map(|_| burn(Arc::clone(&over))).collect(), over }
    }
}

impl Drop for Contention {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that only spins does not panic.
            let _ended = thread.join();
        }
    }
}
