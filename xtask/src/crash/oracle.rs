//! Holds what a job has shown to what its input has to become, as its mode of delivery promises.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::Value;

use super::workload::{Expected, PARTITIONS, RESULTS};

/// Differences that are shown.
const SHOWN: usize = 8;

/// What a job promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(clippy::enum_variant_names, reason = "the terms of the field")]
pub(crate) enum Mode {
    /// What is shown is what has to be.
    ExactlyOnce,
    /// Nothing is missing; doubled is only what no epoch had when the process died.
    AtLeastOnce,
    /// Nothing is doubled.
    AtMostOnce,
}

impl Mode {
    pub(super) const ALL: [Self; 3] = [Self::ExactlyOnce, Self::AtLeastOnce, Self::AtMostOnce];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly-once",
            Self::AtLeastOnce => "at-least-once",
            Self::AtMostOnce => "at-most-once",
        }
    }
}

/// What was found, in all rounds.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) mismatches: u64,
    pub(super) shown: Vec<String>,
}

impl Findings {
    pub(super) fn mismatch(&mut self, what: impl FnOnce() -> String) {
        self.mismatches += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(what());
        }
    }

    /// Compares how often things were to be there with how often they are.
    pub(super) fn compare(
        &mut self,
        mode: Mode,
        what: &str,
        want: &BTreeMap<String, u64>,
        got: &BTreeMap<String, u64>,
    ) {
        for (thing, &count) in want {
            let found = got.get(thing).copied().unwrap_or(0);
            self.lost += count.saturating_sub(found);
            self.doubled += found.saturating_sub(count);
            if found < count && mode != Mode::AtMostOnce || found > count && mode != Mode::AtLeastOnce {
                self.mismatch(|| format!("{what}: {thing} is there {found} times instead of {count}"));
            }
        }
        for (thing, &found) in got.iter().filter(|(thing, _)| !want.contains_key(*thing)) {
            self.doubled += found;
            self.mismatch(|| format!("{what}: {thing} is there {found} times and never was to be"));
        }
    }
}

/// What a killed job had shown, and what of its input was committed for sure.
pub(super) struct Snapshot {
    /// Bytes of whole lines, by file.
    shown: HashMap<&'static str, u64>,
    /// For each partition the highest time of a row that a committed epoch had rejected.
    committed: [Option<u64>; PARTITIONS as usize],
}

impl Snapshot {
    pub(super) fn take(out: &Path) -> Self {
        let whole = |name| {
            let bytes = fs::read(out.join(name)).unwrap_or_default();
            bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last as u64 + 1)
        };
        let mut committed = [None; PARTITIONS as usize];
        // The file is written behind its epoch, so whatever is in it is committed.
        for line in fs::read_to_string(out.join("rejected.jsonl")).unwrap_or_default().lines() {
            let Ok(row) = serde_json::from_str::<Value>(line) else { continue };
            // What `beats` rejects comes by another way than what `check` does.
            let time = match (row["node"].as_str(), row["value"].as_str()) {
                (Some("events"), Some(value)) => value.strip_prefix("broken at ").and_then(|time| time.parse().ok()),
                (Some("check"), Some(value)) => {
                    serde_json::from_str::<Value>(value).ok().and_then(|row| row["t"].as_u64())
                }
                _ => None,
            };
            if let Some(time) = time {
                let known: &mut Option<u64> = &mut committed[(time % PARTITIONS) as usize];
                *known = (*known).max(Some(time));
            }
        }
        Self { shown: RESULTS.into_iter().map(|name| (name, whole(name))).collect(), committed }
    }
}

/// Lines of a file, each with where it begins.
fn lines(path: &Path) -> anyhow::Result<Vec<(u64, String)>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut at = 0;
    let line = |line: &str| {
        let begins = at;
        at += line.len() as u64 + 1;
        (begins, line.to_owned())
    };
    Ok(text.lines().map(line).collect())
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn tally(things: impl IntoIterator<Item = String>) -> BTreeMap<String, u64> {
    let mut tally = BTreeMap::new();
    for thing in things {
        *tally.entry(thing).or_default() += 1;
    }
    tally
}

fn json(line: &str) -> anyhow::Result<Value> {
    serde_json::from_str(line).with_context(|| format!("{line:?} is no JSON"))
}

/// Holds everything that is shown to what was to be expected. `deaths` are those of the round.
pub(super) fn check(
    out: &Path,
    mode: Mode,
    expected: &Expected,
    deaths: &[Snapshot],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    for entry in fs::read_dir(out).with_context(|| format!("cannot list {}", out.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "rejected.jsonl" && !RESULTS.contains(&name.as_str()) {
            findings.mismatch(|| format!("out/{name} is left"));
        }
    }
    kept(out, mode, expected, deaths, findings)?;
    counts(out, mode, expected, deaths, findings)?;

    let beats = lines(&out.join("beats.jsonl"))?;
    findings.compare(mode, "beats", &expected.beats, &tally(beats.into_iter().map(|(_, line)| line)));

    sorted(out, mode, expected, findings)?;

    let mut sums = Vec::new();
    for (_, line) in lines(&out.join("sums.jsonl"))? {
        sums.push(sum(&line)?);
    }
    findings.compare(mode, "sums", &expected.sums, &tally(sums));

    // Rejected rows belong to their epoch in every mode.
    let mut rejected = Vec::new();
    for (_, line) in lines(&out.join("rejected.jsonl"))? {
        let row = json(&line)?;
        rejected.push(format!("{} {}", row["node"].as_str().unwrap_or("?"), row["value"].as_str().unwrap_or("?")));
    }
    findings.compare(Mode::ExactlyOnce, "rejected", &expected.rejected, &tally(rejected));
    Ok(())
}

/// What came by the topic and over HTTP: once in every mode, for both know again what they have.
pub(super) fn delivered(
    folder: &Path,
    expected: &Expected,
    (posted, changed): (Vec<String>, Vec<String>),
    findings: &mut Findings,
) -> anyhow::Result<()> {
    for what in changed {
        findings.mismatch(|| format!("posted: {what}"));
    }
    let logged: Vec<String> = lines(&folder.join("topic.jsonl"))?.into_iter().map(|(_, line)| line).collect();
    in_order("topic", &logged, "beat", findings)?;
    in_order("posted", &posted, "start", findings)?;
    findings.compare(Mode::ExactlyOnce, "topic", &expected.beats, &tally(logged));
    let mut sums = Vec::new();
    for line in &posted {
        sums.push(sum(line)?);
    }
    findings.compare(Mode::ExactlyOnce, "posted", &expected.sums, &tally(sums));
    Ok(())
}

/// Rows of a key come in the order of their times.
fn in_order(what: &str, rows: &[String], time: &str, findings: &mut Findings) -> anyhow::Result<()> {
    let mut last: HashMap<String, u64> = HashMap::new();
    for line in rows {
        let row = json(line)?;
        let key = row["k"].as_str().or(row["key"].as_str()).unwrap_or("?").to_owned();
        let now = row[time].as_u64().unwrap_or(0);
        let before = last.insert(key.clone(), now);
        if before.is_some_and(|before| before >= now) {
            findings.mismatch(|| format!("{what}: {key} at {now} comes behind {before:?}"));
        }
    }
    Ok(())
}

/// A row of a window in words.
fn sum(line: &str) -> anyhow::Result<String> {
    let row = json(line)?;
    let key = row["key"].as_str().unwrap_or("?");
    Ok(format!("{key} at {} ms: {} rows, {} in all", row["start"], row["count"], row["total"]))
}

/// Rows that take no turn: each partition's stand in the order in which they were read.
fn kept(
    out: &Path,
    mode: Mode,
    expected: &Expected,
    deaths: &[Snapshot],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let kept = lines(&out.join("kept.jsonl"))?;
    let mut before = [None; PARTITIONS as usize];
    for (begins, line) in &kept {
        let time = json(line)?["t"].as_u64().unwrap_or(u64::MAX);
        let last = before[(time % PARTITIONS) as usize].replace(time);
        if mode != Mode::AtLeastOnce && last >= Some(time) {
            findings.mismatch(|| format!("kept: {time} comes behind {last:?}"));
        }
        not_again(mode, "kept.jsonl", *begins, time, deaths, findings);
    }
    findings.compare(mode, "kept", &expected.kept, &tally(kept.into_iter().map(|(_, line)| line)));
    Ok(())
}

/// Beats behind an ordering buffer, most of which have waited on disk: in order over all keys.
fn sorted(out: &Path, mode: Mode, expected: &Expected, findings: &mut Findings) -> anyhow::Result<()> {
    let mut last = 0;
    let mut sorted = Vec::new();
    for (_, line) in lines(&out.join("sorted.jsonl"))? {
        let beat = json(&line)?["beat"].as_u64().unwrap_or(0);
        if mode != Mode::AtLeastOnce && beat < last {
            findings.mismatch(|| format!("sorted: beat {beat} comes behind {last}"));
        }
        last = beat;
        sorted.push(line);
    }
    findings.compare(mode, "sorted", &expected.beats, &tally(sorted));
    Ok(())
}

/// Counts by key, over an exchange.
fn counts(
    out: &Path,
    mode: Mode,
    expected: &Expected,
    deaths: &[Snapshot],
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let mut counted = Vec::new();
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut times: HashMap<(String, u64), u64> = HashMap::new();
    for name in ["counts-0.jsonl", "counts-1.jsonl"] {
        for (begins, line) in lines(&out.join(name))? {
            let row = json(&line)?;
            let key = row["key"].as_str().unwrap_or("?").to_owned();
            let (time, count) = (row["time"].as_u64().unwrap_or(u64::MAX) / 1_000, row["value"].as_u64().unwrap_or(0));
            let last = counts.insert(key.clone(), count).unwrap_or(0);
            let fits = match mode {
                Mode::ExactlyOnce => count == last + 1,
                Mode::AtLeastOnce => count <= last + 1,
                Mode::AtMostOnce => count > last,
            };
            if !fits {
                findings.mismatch(|| format!("counts: {key} goes from {last} to {count}"));
            }
            // Order holds for each key of a partition.
            let before = times.insert((key.clone(), time % PARTITIONS), time);
            if mode != Mode::AtLeastOnce && before.is_some_and(|before| before >= time) {
                findings.mismatch(|| format!("counts: {key} at {time} comes behind {before:?}"));
            }
            not_again(mode, name, begins, time, deaths, findings);
            counted.push(format!("{key} {time}"));
        }
    }
    findings.compare(mode, "counts", &expected.counted, &tally(counted));
    Ok(())
}

/// At least once: what a life shows was not committed when the one before it died.
fn not_again(mode: Mode, file: &str, begins: u64, time: u64, deaths: &[Snapshot], findings: &mut Findings) {
    if mode != Mode::AtLeastOnce {
        return;
    }
    let partition = (time % PARTITIONS) as usize;
    // What is committed only grows, and so does what is shown: the last death that was before tells.
    let earlier = deaths.partition_point(|death| death.shown.get(file).is_some_and(|&shown| shown <= begins));
    let committed = earlier.checked_sub(1).and_then(|last| deaths[last].committed[partition]);
    if committed >= Some(time) {
        findings.mismatch(|| format!("{file}: {time} comes again, though {committed:?} was committed before"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mode: Mode, got: &[&str]) -> (u64, u64, u64) {
        let mut findings = Findings::default();
        let tallied = |things: &[&str]| tally(things.iter().map(|&thing| thing.to_owned()));
        findings.compare(mode, "rows", &tallied(&["a", "b", "b"]), &tallied(got));
        (findings.lost, findings.doubled, findings.mismatches)
    }

    #[test]
    fn what_is_lost_and_what_is_doubled_is_counted() {
        let [exactly, at_least, at_most] = Mode::ALL;
        assert_eq!(found(exactly, &["b", "a", "b"]), (0, 0, 0));
        assert_eq!(found(exactly, &["b", "b"]), (1, 0, 1));
        assert_eq!(found(exactly, &["b", "a", "b", "a", "b"]), (0, 2, 2));
        assert_eq!(found(at_least, &["b", "a", "b", "a", "b"]), (0, 2, 0));
        assert_eq!(found(at_least, &["b", "b"]), (1, 0, 1));
        assert_eq!(found(at_most, &["b", "b"]), (1, 0, 0));
        assert_eq!(found(at_most, &["a", "a"]), (2, 1, 1));
        assert_eq!(found(at_most, &["a", "c"]), (2, 1, 1), "what never was to be is nobody's");
    }

    #[test]
    fn rows_that_were_committed_do_not_come_again() {
        let death = |shown, committed| Snapshot {
            shown: HashMap::from([("kept.jsonl", shown)]),
            committed: [Some(committed), None],
        };
        let deaths = [death(100, 4), death(200, 8)];
        let again = |begins, time| {
            let mut findings = Findings::default();
            not_again(Mode::AtLeastOnce, "kept.jsonl", begins, time, &deaths, &mut findings);
            findings.mismatches == 1
        };
        assert!(!again(0, 2) && !again(99, 6), "nobody had died");
        assert!(again(100, 4) && !again(100, 6) && !again(150, 6), "after the first death");
        assert!(again(200, 6) && again(300, 8) && !again(300, 10), "after the second");
        assert!(!again(300, 1), "another partition");
    }
}
