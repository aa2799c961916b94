//! What the batch interfaces of Python and JavaScript cost: batches of events of 100 bytes, half of which
//! have an "x": UTF-8 check, filter, upper case, count by key.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use wasmill_toolchain::Language;

use super::definitions::{build, wasmill};
use super::{Benchmark, Lab, Run, Target};
use crate::conformance::built;

/// Events of a run.
const EVENTS: u64 = 300_000;
/// Keys of the events.
const KEYS: u64 = 100;

/// Events that one CPU-second of a guest has to do.
pub(super) fn all() -> Vec<Benchmark> {
    [
        (Language::Javascript, "languages/javascript-batch", "68,000 events a CPU-second in the guest", 68e3),
        (Language::Python, "languages/python-batch", "430,000 events a CPU-second in the guest", 430e3),
    ]
    .into_iter()
    .map(|(language, name, against, events_per_s)| Benchmark {
        name: name.into(),
        against,
        target: Target::AtMost(1.0),
        prepare: Box::new(move |lab| {
            build(lab)?;
            built(&lab.root, language, "speed", false)?;
            [1, EVENTS].into_iter().try_for_each(|events| {
                std::fs::write(input(lab, events), text(events)?).context("cannot write the events")
            })
        }),
        run: Run::Figure {
            unit: "us an event",
            limit: 1e6 / events_per_s,
            take: Box::new(move |lab| {
                let plugin = built(&lab.root, language, "speed", true)?;
                let work = |plugin: &str| Ok::<_, anyhow::Error>(cpu_s(lab, plugin, EVENTS)? - cpu_s(lab, plugin, 1)?);
                // Without what the same job costs with a guest that does next to nothing.
                let guest = work(&plugin.display().to_string())? - work("std:filter")?;
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                let figure = guest * 1e6 / EVENTS as f64;
                Ok(figure)
            }),
        },
    })
    .collect()
}

fn input(lab: &Lab, events: u64) -> PathBuf {
    lab.scratch.join(format!("languages-{events}.jsonl"))
}

/// Lines of 100 bytes.
fn text(events: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    for event in 0..events {
        let letter = if event % 2 == 0 { 'x' } else { 'y' };
        let start = text.len();
        write!(text, "{{\"k\":\"key-{}\",\"{letter}\":\"", event * 7919 % KEYS)?;
        while text.len() - start < 98 {
            text.push('a');
        }
        text.push_str("\"}\n");
    }
    Ok(text)
}

/// CPU time of the job.
fn cpu_s(lab: &Lab, plugin: &str, events: u64) -> anyhow::Result<f64> {
    let mut job = Command::new(wasmill(lab));
    job.args(["run", "tests/bench/languages.toml", "--json"]);
    job.arg("--set").arg(format!("source.events.path={:?}", input(lab, events).display().to_string()));
    job.arg("--set").arg(format!("stage.work.plugin={plugin:?}"));
    if plugin.starts_with("std:") {
        job.args(["--set", "stage.work.config.where=\"true\""]);
    }
    Ok(lab.run(&mut job, events)?.cpu.as_secs_f64())
}
