//! What runs: a job, its input, and what the input has to become. Shares no code with the runtime.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::Random;
use super::oracle::write;

pub(super) const PARTITIONS: u64 = 2;
const ROWS_PER_PARTITION: u64 = 120_000;
const KEYS: u64 = 300;
const WINDOW_MS: u64 = 5_000;
/// That of `tests/guests/beats`.
const BEAT_MS: u64 = 2_000;
/// Rows with this value are rejected by the stage `check`.
const REJECTED: u64 = 13;
/// Rows with this value are rejected by the stage `beats`.
const OFF_BEAT: u64 = 14;
/// One line in so many is no JSON.
const BROKEN: u64 = 997;

const JOB: &str = r#"name = "crash"
delivery = "MODE"
dead_letters = "out/rejected.jsonl"
epoch = { interval = "20ms" }

[source.events]
connector = "file"
path = "in-*.jsonl"
key = "/k"
time = { field = "/t", unit = "ms" }
parallelism = 1

[stage.check]
plugin = "std:filter"
input = "events"
parallelism = 1
config = { where = "if .v == 13 then error(\"thirteen\") else true end" }

[stage.count]
plugin = "GUESTS/count.wasm"
input = "check"
parallelism = 1

[stage.beats]
plugin = "GUESTS/beats.wasm"
input = "check"
parallelism = 1

[stage.windows]
plugin = "std:aggregate"
input = "check"
parallelism = WINDOWS
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

[sink.beats-out]
connector = "file"
path = "out/beats.jsonl"
input = "beats"

[sink.sums]
connector = "file"
path = "out/sums.jsonl"
input = "windows"

[stage.sorted]
plugin = "std:filter"
input = { from = "beats", order = { by = "time", bound = "2m", bytes_max = "64KiB", spill = "64MiB" } }
parallelism = 1
config = { where = "true" }

[sink.sorted-out]
connector = "file"
path = "out/sorted.jsonl"
input = "sorted"

[sink.log]
connector = "topic"
topic = "beats"
partitions = 2
input = "beats"

[sink.posted]
connector = "http"
url = "URL"
format = "cloudevents"
input = "windows"
"#;

/// Reads the topic once the job is done.
pub(super) const READ: &str = r#"name = "read"

[source.log]
connector = "topic"
topic = "beats"
until = "end"

[sink.out]
connector = "file"
path = "topic.jsonl"
input = "log"
"#;

/// Files that the job shows once it is done.
pub(super) const RESULTS: [&str; 6] =
    ["kept.jsonl", "counts-0.jsonl", "counts-1.jsonl", "beats.jsonl", "sums.jsonl", "sorted.jsonl"];

/// Nodes that a life may run with another parallelism than the one before.
pub(super) const RESCALED: [&str; 4] = ["source.events", "stage.check", "stage.count", "stage.beats"];

/// The job file.
pub(super) fn job(guests: &Path, mode: &str, windows: u16, url: &str) -> String {
    let text = JOB.replace("GUESTS", &guests.display().to_string());
    text.replace("MODE", mode).replace("URL", url).replace("WINDOWS", &windows.to_string())
}

/// What the input has to become: how often each thing has to be there.
#[derive(Default)]
pub(super) struct Expected {
    pub(super) kept: BTreeMap<String, u64>,
    /// `key time`, once for each row that is counted.
    pub(super) counted: BTreeMap<String, u64>,
    pub(super) beats: BTreeMap<String, u64>,
    pub(super) sums: BTreeMap<String, u64>,
    pub(super) rejected: BTreeMap<String, u64>,
}

/// Makes the input of a round. Times rise in each partition and are unique over all of them.
pub(super) fn input(folder: &Path, random: &mut Random) -> anyhow::Result<Expected> {
    let mut expected = Expected::default();
    let mut sums: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    let mut beats: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let mut text = String::new();
        for row in 0..ROWS_PER_PARTITION {
            let time = row * PARTITIONS + partition;
            if random.below(BROKEN) == 0 {
                let line = format!("broken at {time}");
                writeln!(text, "{line}")?;
                *expected.rejected.entry(format!("events {line}")).or_default() += 1;
                continue;
            }
            let (key, value) = (random.below(KEYS), random.below(100));
            let line = format!("{{\"k\":\"k{key}\",\"t\":{time},\"v\":{value}}}");
            writeln!(text, "{line}")?;
            if value == REJECTED {
                *expected.rejected.entry(format!("check {line}")).or_default() += 1;
                continue;
            }
            *expected.counted.entry(format!("k{key} {time}")).or_default() += 1;
            let (count, sum) = sums.entry((time / WINDOW_MS, key)).or_default();
            *count += 1;
            *sum += value;
            if value == OFF_BEAT {
                *expected.rejected.entry(format!("beats {line}")).or_default() += 1;
            } else {
                *beats.entry((time / BEAT_MS, key)).or_default() += 1;
            }
            *expected.kept.entry(line).or_default() += 1;
        }
        write(&folder.join(format!("in-{partition}.jsonl")), &text)?;
    }
    for ((window, key), (count, sum)) in sums {
        expected.sums.insert(format!("k{key} at {} ms: {count} rows, {sum} in all", window * WINDOW_MS), 1);
    }
    for ((beat, key), count) in beats {
        expected.beats.insert(format!("{{\"k\":\"k{key}\",\"beat\":{beat},\"count\":{count}}}"), 1);
    }
    Ok(expected)
}
