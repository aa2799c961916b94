//! What the output has to be: every event once, counted by key in order, by one version at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::job::Job;

/// Findings that are kept of one kind.
const SHOWN_MAX: usize = 5;

/// Holds the output of a job to `made`, the versions that ran, in order. Returns how many events there are.
pub(super) fn check(
    folder: &Path,
    job: &Job,
    made: &[&'static str],
    findings: &mut Vec<String>,
) -> anyhow::Result<u64> {
    let mut rows: BTreeMap<u64, (String, u64, String)> = BTreeMap::new();
    let mut wrong = |kind: &mut usize, finding: String| {
        *kind += 1;
        if *kind <= SHOWN_MAX {
            findings.push(finding);
        }
    };
    let (mut doubled, mut missing, mut miscounted, mut mislabelled) = (0, 0, 0, 0);
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry.context("cannot list")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !(name.starts_with("out") && name.ends_with(".jsonl")) {
            continue;
        }
        for line in fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?.lines() {
            let row: Value = serde_json::from_str(line).with_context(|| format!("{line:?}"))?;
            let mut parts = row["value"].as_str().unwrap_or_default().rsplitn(3, '|');
            let (version, count, event) = (parts.next(), parts.next(), parts.next());
            let event: Value = serde_json::from_str(event.unwrap_or_default()).with_context(|| format!("{line:?}"))?;
            let (seq, key) = (event["seq"].as_u64(), event["key"].as_str());
            let (Some(seq), Some(key), Some(version)) = (seq, key, version) else {
                wrong(&mut miscounted, format!("{line:?} is no row of this job"));
                continue;
            };
            if job.version(row["plugin"].as_str().unwrap_or_default()) != Some(version) {
                wrong(&mut mislabelled, format!("event {seq} was made by {version} and says {}", row["plugin"]));
            }
            let count = count.and_then(|count| count.parse().ok()).unwrap_or(0);
            if rows.insert(seq, (key.to_owned(), count, version.to_owned())).is_some() {
                wrong(&mut doubled, format!("event {seq} was shown twice"));
            }
        }
    }
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ran: Vec<&str> = Vec::new();
    for (expected, (seq, (key, count, version))) in (0..).zip(&rows) {
        if *seq != expected && missing < SHOWN_MAX {
            wrong(&mut missing, format!("event {expected} is missing before {seq}"));
        }
        let known = counts.entry(key).or_default();
        *known += 1;
        if *known != *count {
            wrong(&mut miscounted, format!("event {seq} is number {known} of {key} and was counted as {count}"));
        }
        if ran.last() != Some(&version.as_str()) {
            ran.push(version);
        }
    }
    if ran != made {
        findings.push(format!("events were worked off by {ran:?}, and these versions ran: {made:?}"));
    }
    Ok(rows.len() as u64)
}
