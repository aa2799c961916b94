//! The job, its lives, and what is asked of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use wasmill_env::{KILL_VARIABLE, PLANTED_VARIABLE};

use super::write;
use crate::steps::now;

/// Events a second.
pub(super) const RATE: u64 = 20_000;
/// Versions that fail: in opening, in writing state, in the first call, in a later one, in taking state
/// over; and one whose state is another.
pub(super) const BAD: [&str; 6] = ["open", "flush", "process", "later", "schema", "mig-trap"];

/// A job that does not answer within this has hung.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const MARK: &str = "wasmill-version=v1      ";

const JOB: &str = r#"name = "swaps"
epoch = { interval = "50ms" }

[source.events]
connector = "generator"
rate = RATE
keys = 1000
key = "/key"

[stage.count]
plugin = "v1.wasm"
input = "events"
parallelism = 2

[sink.out]
connector = "file"
path = "out.jsonl"
envelope = true
plugin = true
input = "count"
parallelism = 1
"#;

/// What another graph has beside, with three tasks in place of two.
const SIDE: &str = r#"
[sink.side]
connector = "blackhole"
input = "events"
"#;

/// The plugin in each of its versions.
pub(super) struct Versions(BTreeMap<&'static str, Vec<u8>>);

impl Versions {
    pub(super) fn read(plugin: &Path) -> anyhow::Result<Self> {
        let bytes = fs::read(plugin)
            .with_context(|| format!("cannot read {}; build it with: cargo xtask plugins", plugin.display()))?;
        let places: Vec<usize> =
            (0..bytes.len()).filter(|&place| bytes[place..].starts_with(MARK.as_bytes())).collect();
        let [place] = places[..] else { bail!("{} has the mark {} times", plugin.display(), places.len()) };
        let named = |name: &'static str| {
            let mut bytes = bytes.clone();
            let mark = format!("{:<width$}", format!("wasmill-version={name}"), width = MARK.len());
            bytes[place..place + MARK.len()].copy_from_slice(mark.as_bytes());
            (name, bytes)
        };
        Ok(Self(["v1", "v2"].into_iter().chain(BAD).map(named).collect()))
    }
}

/// A job in a folder.
pub(super) struct Job {
    /// The job file with two tasks in its stage, and with three and another sink.
    files: [String; 2],
    wasmill: PathBuf,
    folder: PathBuf,
    /// The versions by digest.
    digests: BTreeMap<String, &'static str>,
}

impl Job {
    pub(super) fn new(wasmill: &Path, folder: &Path, versions: &Versions) -> anyhow::Result<Self> {
        use sha2::{Digest, Sha256};
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let narrow = JOB.replace("RATE", &RATE.to_string());
        let wide = format!("{}{SIDE}", narrow.replace("parallelism = 2", "parallelism = 3"));
        write(&folder.join("job.toml"), &narrow)?;
        let mut digests = BTreeMap::new();
        for (name, bytes) in &versions.0 {
            write(&folder.join(format!("{name}.wasm")), bytes)?;
            let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            digests.insert(format!("sha256:{digest}"), *name);
        }
        Ok(Self { files: [narrow, wide], wasmill: wasmill.to_owned(), folder: folder.to_owned(), digests })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.wasmill);
        command.current_dir(&self.folder).args(arguments).env_remove(KILL_VARIABLE).env_remove(PLANTED_VARIABLE);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The version that a digest is of.
    pub(super) fn version(&self, digest: &str) -> Option<&'static str> {
        self.digests.get(digest).copied()
    }

    /// The job file has the other graph from here on.
    pub(super) fn regraph(&self) -> anyhow::Result<()> {
        let file = self.folder.join("job.toml");
        let now = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let [narrow, wide] = &self.files;
        write(&file, if now == *narrow { wide } else { narrow })
    }

    /// Starts a life, which may end at a named step.
    pub(super) fn start(&self, point: Option<(&str, u64)>) -> anyhow::Result<Life<'_>> {
        let mut command = self.command(&["run", "job.toml", "--state", "state", "--allow-dropped", "--json"]);
        if let Some((point, passing)) = point {
            command.env(KILL_VARIABLE, format!("{point}:{passing}"));
        }
        let log = self.folder.join("run.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&log).context("cannot open the log")?;
        command.stdout(log.try_clone().context("cannot open the log")?).stderr(log);
        Ok(Life { job: self, child: command.spawn().context("cannot start the job")? })
    }
}

/// What came of a swap that was asked for.
pub(super) enum Outcome {
    /// It was made, after a pause of so many microseconds.
    Taken(u64),
    /// It was not, for a reason.
    Refused(String),
    /// The process is dead.
    Died,
}

/// One life of the job.
pub(super) struct Life<'a> {
    job: &'a Job,
    child: Child,
}

impl Life<'_> {
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill the job")?;
        self.child.wait().context("cannot wait for the job").map(drop)
    }

    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        let stopped = self.job.command(&["stop", "state"]).output().context("cannot stop the job")?;
        ensure!(stopped.status.success(), "stop failed: {}", String::from_utf8_lossy(&stopped.stderr));
        let ended = self.child.wait().context("cannot wait for the job")?;
        ensure!(ended.success(), "the job ended with {ended}; see {}", self.job.folder.display());
        Ok(())
    }

    /// What it says about itself, once it does; nothing where it was killed.
    fn status(&mut self) -> anyhow::Result<Option<Value>> {
        let began = now();
        loop {
            let output = self.job.command(&["status", "state", "--json"]).output().context("cannot ask the job")?;
            if output.status.success() {
                return serde_json::from_slice(&output.stdout).map(Some).context("the status is no JSON");
            }
            if let Ok(Some(ended)) = self.child.try_wait() {
                if ended.code().is_none() {
                    return Ok(None);
                }
                bail!("the job ended with {ended}; see {}", self.job.folder.display());
            }
            ensure!(began.elapsed() < PATIENCE, "the job does not answer; see {}", self.job.folder.display());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The version that runs; none where the job was killed.
    pub(super) fn version(&mut self) -> anyhow::Result<Option<&'static str>> {
        let Some(status) = self.status()? else { return Ok(None) };
        let plugin = count(&status)["plugin"].as_str().unwrap_or_default();
        let known = self.job.version(plugin);
        known.map(Some).with_context(|| format!("{plugin:?} is none of the versions"))
    }

    /// Waits until so many rows more have left the stage, or the job was killed.
    pub(super) fn wait_for_rows(&mut self, rows: u64) -> anyhow::Result<()> {
        let out = |status: &Value| count(status)["rows_out"].as_u64().unwrap_or(0);
        let began = now();
        let Some(before) = self.status()?.as_ref().map(out) else { return Ok(()) };
        loop {
            // The job counts anew where it went back to an epoch.
            let Some(rows_out) = self.status()?.as_ref().map(out) else { return Ok(()) };
            if rows_out >= before + rows || rows_out < before {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "the job stands still; see {}", self.job.folder.display());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Asks for a swap, and may kill the process a while after.
    pub(super) fn swap(&mut self, version: &str, kill_after: Option<Duration>) -> anyhow::Result<Outcome> {
        let plugin = format!("{version}.wasm");
        self.ask(&["swap", "state", "count", &plugin, "--json"], kill_after)
    }

    /// Has the job go on with its file, and may kill the process a while after.
    pub(super) fn apply(&mut self, kill_after: Option<Duration>) -> anyhow::Result<Outcome> {
        self.ask(&["apply", "job.toml", "--state", "state", "--allow-dropped", "--json"], kill_after)
    }

    fn ask(&mut self, arguments: &[&str], kill_after: Option<Duration>) -> anyhow::Result<Outcome> {
        let asking = self.job.command(arguments).spawn().context("cannot ask the job")?;
        if let Some(wait) = kill_after {
            std::thread::sleep(wait);
            self.kill()?;
        }
        let asked = asking.wait_with_output().context("cannot ask the job")?;
        let said = String::from_utf8_lossy(&asked.stdout);
        let answer: Value = serde_json::from_str(&said).with_context(|| format!("{said:?} is no JSON"))?;
        if !asked.status.success() {
            // A process that died at a step of it may take a moment to be gone.
            let silent = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
            let gone = silent.contains("before it had answered")
                || silent.contains("no job runs")
                || silent.contains("does not answer");
            if gone {
                self.child.wait().context("cannot wait for the job")?;
            }
            return Ok(if self.lives() { Outcome::Refused(silent) } else { Outcome::Died });
        }
        let micros = answer["pause_micros"].as_u64().with_context(|| format!("{answer} says no pause"))?;
        // What was told before the kill counts: the epoch was durable.
        Ok(Outcome::Taken(micros))
    }
}

/// The stage, as the job says it is.
fn count(status: &Value) -> &Value {
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    nodes.iter().find(|node| node["name"] == "count").unwrap_or(&Value::Null)
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}
