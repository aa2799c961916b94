//! `cargo xtask crash`: kills the real process again and again, and holds what it has committed to
//! an oracle that knows the input and nothing of the runtime.
//!
//! A round makes an input, runs a job over it with `--state`, kills the process with signal 9 at
//! random times until the job finishes all the same, and compares. Rounds go on until there were
//! enough kills. One kill in ten comes early in the next life: during recovery.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::root;
use crate::steps::{now, say};

const PARTITIONS: u64 = 2;
const ROWS_PER_PARTITION: u64 = 120_000;
const KEYS: u64 = 300;
const WINDOW_MS: u64 = 5_000;
/// Rows with this value are rejected by the stage `check`.
const REJECTED: u64 = 13;
/// One line in so many is no JSON.
const BROKEN: u64 = 997;
/// The job is as it is for this long at most before it is taken to hang.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Differences that are shown.
const SHOWN: usize = 5;

const JOB: &str = r#"name = "crash"
delivery = "exactly-once"
dead_letters = "out/rejected.jsonl"
epoch = { interval = "20ms" }

[source.events]
connector = "file"
path = "in-*.jsonl"
key = "/k"
time = { field = "/t", unit = "ms" }

[stage.check]
plugin = "std:filter"
input = "events"
config = { where = "if .v == 13 then error(\"thirteen\") else true end" }

[stage.count]
plugin = "COUNT"
input = "check"
parallelism = 2

[stage.windows]
plugin = "std:aggregate"
input = "check"
window = { tumbling = "5s" }
config = { count = true, sum = { total = "/v" } }

[sink.kept]
connector = "file"
path = "out/kept.jsonl"
input = "check"

[sink.counts]
connector = "file"
path = "out/counts.jsonl"
input = "count"
envelope = true
parallelism = 2

[sink.sums]
connector = "file"
path = "out/sums.jsonl"
input = "windows"
"#;

/// Files that the job shows once it is done.
const RESULTS: [&str; 4] = ["kept.jsonl", "counts-0.jsonl", "counts-1.jsonl", "sums.jsonl"];

/// What went wrong, in all rounds.
#[derive(Default)]
struct Verdict {
    kills: u64,
    rounds: u64,
    lives: u64,
    epochs: u64,
    lost: u64,
    doubled: u64,
    mismatches: u64,
    shown: Vec<String>,
}

impl Verdict {
    fn mismatch(&mut self, what: impl FnOnce() -> String) {
        self.mismatches += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(what());
        }
    }

    /// Compares how often things were to be there with how often they are.
    fn compare(&mut self, what: &str, want: &BTreeMap<String, u64>, got: &BTreeMap<String, u64>) {
        for (thing, &count) in want {
            let found = got.get(thing).copied().unwrap_or(0);
            if found < count {
                self.lost += count - found;
                self.mismatch(|| format!("{what}: {thing} is there {found} times instead of {count}"));
            }
        }
        for (thing, &found) in got {
            let count = want.get(thing).copied().unwrap_or(0);
            if found > count {
                self.doubled += found - count;
                self.mismatch(|| format!("{what}: {thing} is there {found} times instead of {count}"));
            }
        }
    }
}

/// SplitMix64: the same figures from the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = to.saturating_sub(from).as_micros() as u64;
        from + Duration::from_micros(self.below(span))
    }
}

/// What the input has to become.
#[derive(Default)]
struct Expected {
    kept: BTreeMap<String, u64>,
    /// `key time`, once for each row that is counted.
    counted: BTreeMap<String, u64>,
    sums: BTreeMap<String, u64>,
    rejected: BTreeMap<String, u64>,
}

/// Kills jobs `kills` times.
pub(crate) fn crash(kills: u64, seed: u64, wasmill: &Path, json: bool) -> anyhow::Result<()> {
    ensure!(wasmill.is_file(), "there is no {}; build it with: cargo build --package wasmill", wasmill.display());
    let root = root()?;
    let guest = root.join("target/guests/count.wasm");
    ensure!(guest.is_file(), "there is no {}; build it with: cargo xtask plugins", guest.display());
    let wasmill = wasmill.canonicalize().with_context(|| format!("cannot find {}", wasmill.display()))?;
    let mut random = Random(seed);
    let mut verdict = Verdict::default();
    while verdict.kills < kills {
        verdict.rounds += 1;
        let folder = root.join(format!("target/crash/{seed}-{}", verdict.rounds));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write(&folder.join("job.toml"), &JOB.replace("COUNT", &guest.display().to_string()))?;
        let expected = input(&folder, &mut random)?;
        let before = verdict.mismatches;
        round(&folder, &wasmill, kills, &mut random, &mut verdict)?;
        check(&folder, &expected, &mut verdict)?;
        if verdict.mismatches == before {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot empty {}", folder.display()))?;
        } else {
            say(&format!("round {}: results differ; see {}", verdict.rounds, folder.display()));
        }
    }
    report(&verdict, seed, json)
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn report(verdict: &Verdict, seed: u64, json: bool) -> anyhow::Result<()> {
    let Verdict { kills, rounds, lives, epochs, lost, doubled, mismatches, shown } = verdict;
    if json {
        let line = json!({
            "kills": kills, "mode": "exactly-once", "mismatches": mismatches, "lost": lost, "doubled": doubled,
            "seed": seed, "rounds": rounds, "lives": lives, "epochs": epochs,
        });
        println!("{line}");
    }
    say(&format!(
        "{kills} kills over {rounds} jobs and {epochs} epochs: {lost} rows lost, {doubled} doubled, {mismatches} \
         mismatches (seed {seed})"
    ));
    for difference in shown {
        say(&format!("  {difference}"));
    }
    if *mismatches > 0 {
        bail!("committed output differs from what the input has to become");
    }
    Ok(())
}

/// Makes the input of a round. Times rise in each partition and are unique over all of them.
fn input(folder: &Path, random: &mut Random) -> anyhow::Result<Expected> {
    let mut expected = Expected::default();
    let mut sums: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let mut text = String::new();
        for row in 0..ROWS_PER_PARTITION {
            if random.below(BROKEN) == 0 {
                let line = format!("broken {partition} {row}");
                text.push_str(&line);
                text.push('\n');
                *expected.rejected.entry(format!("events {line}")).or_default() += 1;
                continue;
            }
            let (key, value, time) = (random.below(KEYS), random.below(100), row * PARTITIONS + partition);
            let line = format!("{{\"k\":\"k{key}\",\"t\":{time},\"v\":{value}}}");
            text.push_str(&line);
            text.push('\n');
            if value == REJECTED {
                *expected.rejected.entry(format!("check {line}")).or_default() += 1;
                continue;
            }
            *expected.kept.entry(line).or_default() += 1;
            *expected.counted.entry(format!("k{key} {time}")).or_default() += 1;
            let (count, sum) = sums.entry((time / WINDOW_MS, key)).or_default();
            *count += 1;
            *sum += value;
        }
        write(&folder.join(format!("in-{partition}.jsonl")), &text)?;
    }
    for ((window, key), (count, sum)) in sums {
        expected.sums.insert(format!("k{key} at {} ms: {count} rows, {sum} in all", window * WINDOW_MS), 1);
    }
    Ok(expected)
}

/// Runs a job until it finishes, killing it on the way.
fn round(folder: &Path, wasmill: &Path, kills: u64, random: &mut Random, verdict: &mut Verdict) -> anyhow::Result<()> {
    // What a life takes from its start to its first epoch, as far as is known.
    let start_up = start_up(folder, wasmill)?;
    let mut recovering = false;
    let mut seen: HashMap<&str, u64> = HashMap::new();
    loop {
        verdict.lives += 1;
        let mut child = start(folder, wasmill)?;
        let early = recovering && random.below(10) == 0;
        let (from, to) = if early { (Duration::ZERO, start_up) } else { (start_up / 2, start_up * 3) };
        let life = random.between(from, to);
        let killed = verdict.kills < kills && !ends_within(&mut child, life)?;
        if killed {
            child.kill().context("cannot kill the job")?;
            // It may have ended by itself in the last moment; that is no kill, and no failure.
            let status = child.wait().context("cannot wait for the job")?;
            verdict.kills += u64::from(!status.success());
            recovering = true;
            visible(folder, &mut seen, verdict)?;
            continue;
        }
        if !ends_within(&mut child, PATIENCE)? {
            child.kill().context("cannot kill the job")?;
            bail!("the job did not finish within {} s; see {}", PATIENCE.as_secs(), folder.display());
        }
        let output = child.wait_with_output().context("cannot wait for the job")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "the job ended with {}: {text}{}; see {}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            folder.display()
        );
        let summary: Value = serde_json::from_str(&text).with_context(|| format!("{text:?} is no JSON"))?;
        verdict.epochs += summary["resumed_at"].as_u64().unwrap_or(0) + summary["epochs"].as_u64().unwrap_or(0);
        break;
    }
    for (name, length) in seen {
        let path = folder.join("out").join(name);
        let now = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        if now != length {
            verdict.mismatch(|| format!("{name} had {length} bytes when it became visible and has {now}"));
        }
    }
    Ok(())
}

/// Looks at results that are visible though the job has not finished: they must be whole.
fn visible(folder: &Path, seen: &mut HashMap<&'static str, u64>, verdict: &mut Verdict) -> anyhow::Result<()> {
    for name in RESULTS {
        let Ok(metadata) = fs::metadata(folder.join("out").join(name)) else { continue };
        let before = *seen.entry(name).or_insert(metadata.len());
        if before != metadata.len() {
            verdict.mismatch(|| format!("{name} went from {before} to {} bytes", metadata.len()));
        }
    }
    Ok(())
}

/// How long the job takes until it has output, without state: compiled plugins are in the cache
/// from then on.
fn start_up(folder: &Path, wasmill: &Path) -> anyhow::Result<Duration> {
    let trial = folder.join("trial");
    fs::create_dir_all(&trial).with_context(|| format!("cannot make {}", trial.display()))?;
    let copy =
        |name: &str| fs::copy(folder.join(name), trial.join(name)).with_context(|| format!("cannot copy {name}"));
    copy("job.toml")?;
    write(&trial.join("in-0.jsonl"), "{\"k\":\"a\",\"t\":1,\"v\":1}\n")?;
    write(&trial.join("in-1.jsonl"), "{\"k\":\"b\",\"t\":2,\"v\":1}\n")?;
    let mut took = Duration::ZERO;
    for _run in 0..2 {
        let began = now();
        let output = command(&trial, wasmill).arg("--fresh").output().context("cannot run the job")?;
        ensure!(output.status.success(), "the job fails: {}", String::from_utf8_lossy(&output.stdout));
        took = began.elapsed();
    }
    fs::remove_dir_all(&trial).with_context(|| format!("cannot remove {}", trial.display()))?;
    Ok(took)
}

fn command(folder: &Path, wasmill: &Path) -> Command {
    let mut command = Command::new(wasmill);
    command.current_dir(folder).args(["run", "job.toml", "--state", "state", "--json"]).stdin(Stdio::null());
    command
}

fn start(folder: &Path, wasmill: &Path) -> anyhow::Result<Child> {
    let mut command = command(folder, wasmill);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start the job")
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

/// Holds everything that is committed to what was to be expected.
fn check(folder: &Path, expected: &Expected, verdict: &mut Verdict) -> anyhow::Result<()> {
    let out = folder.join("out");
    for entry in fs::read_dir(&out).with_context(|| format!("cannot list {}", out.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "rejected.jsonl" && !RESULTS.contains(&name.as_str()) {
            verdict.mismatch(|| format!("out/{name} is left"));
        }
    }
    let kept = lines(&out.join("kept.jsonl"))?;
    verdict.compare("kept", &expected.kept, &tally(kept));

    let mut counted = Vec::new();
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut times: HashMap<(String, u64), u64> = HashMap::new();
    for line in lines(&out.join("counts-0.jsonl"))?.into_iter().chain(lines(&out.join("counts-1.jsonl"))?) {
        let row: Value = serde_json::from_str(&line).with_context(|| format!("{line:?} is no JSON"))?;
        let key = row["key"].as_str().unwrap_or("?").to_owned();
        let (time, count) = (row["time"].as_u64().unwrap_or(u64::MAX) / 1_000, row["value"].as_u64().unwrap_or(0));
        let last = counts.entry(key.clone()).or_default();
        *last += 1;
        if count != *last {
            let last = *last;
            verdict.mismatch(|| format!("counts: row {last} of {key} has the count {count}"));
        }
        // Order holds for each key of a partition.
        let before = times.insert((key.clone(), time % PARTITIONS), time);
        if before.is_some_and(|before| before >= time) {
            verdict.mismatch(|| format!("counts: {key} at {time} comes behind {before:?}"));
        }
        counted.push(format!("{key} {time}"));
    }
    verdict.compare("counts", &expected.counted, &tally(counted));

    let mut sums = Vec::new();
    for line in lines(&out.join("sums.jsonl"))? {
        let row: Value = serde_json::from_str(&line).with_context(|| format!("{line:?} is no JSON"))?;
        let key = row["key"].as_str().unwrap_or("?");
        sums.push(format!("{key} at {} ms: {} rows, {} in all", row["start"], row["count"], row["total"]));
    }
    verdict.compare("sums", &expected.sums, &tally(sums));

    let mut rejected = Vec::new();
    for line in lines(&out.join("rejected.jsonl"))? {
        let row: Value = serde_json::from_str(&line).with_context(|| format!("{line:?} is no JSON"))?;
        rejected.push(format!("{} {}", row["node"].as_str().unwrap_or("?"), row["value"].as_str().unwrap_or("?")));
    }
    verdict.compare("rejected", &expected.rejected, &tally(rejected));
    Ok(())
}

fn tally(things: Vec<String>) -> BTreeMap<String, u64> {
    let mut tally = BTreeMap::new();
    for thing in things {
        *tally.entry(thing).or_default() += 1;
    }
    tally
}

fn lines(path: &PathBuf) -> anyhow::Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(got: &[&str]) -> (u64, u64, u64) {
        let mut verdict = Verdict::default();
        let tallied = |things: &[&str]| tally(things.iter().map(|&thing| thing.to_owned()).collect());
        verdict.compare("rows", &tallied(&["a", "b", "b"]), &tallied(got));
        (verdict.lost, verdict.doubled, verdict.mismatches)
    }

    #[test]
    fn what_is_lost_and_what_is_doubled_is_counted() {
        assert_eq!(found(&["b", "a", "b"]), (0, 0, 0));
        assert_eq!(found(&["b", "b"]), (1, 0, 1));
        assert_eq!(found(&["b", "a", "b", "a", "b", "c"]), (0, 3, 3));
        assert_eq!(found(&["c", "a"]), (2, 1, 2));
    }
}
