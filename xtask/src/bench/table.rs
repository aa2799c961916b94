//! `docs/benchmarks.md`: the newest row of every benchmark.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::Outcome;

const HEAD: &str = "# Benchmarks

Written by `cargo xtask bench`; a row is replaced when its benchmark runs again. Subject and baseline run in turns as
programs of their own; the ratio is the median of the ratios of the pairs, in events per CPU-second unless a figure
has a unit.

| benchmark | result | against | ratio (lowest to highest) | target | met | date | machine |
| --- | --- | --- | --- | --- | --- | --- | --- |
";

/// One line for people.
pub(super) fn line(outcome: &Outcome) -> String {
    let met = if outcome.met { "met" } else { "NOT MET" };
    format!(
        "{}: {}, {:.2} of {} (target {}): {met}",
        outcome.name,
        result(outcome),
        outcome.ratio,
        outcome.against,
        outcome.target
    )
}

/// Replaces the rows of these outcomes and keeps all others.
pub(super) fn write(path: &Path, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let old = fs::read_to_string(path).unwrap_or_default();
    let stamp = format!("{} | {}", jiff::Timestamp::now().strftime("%Y-%m-%d"), machine());
    fs::write(path, merged(&old, outcomes, &stamp)).with_context(|| format!("cannot write {}", path.display()))
}

fn merged(old: &str, outcomes: &[Outcome], stamp: &str) -> String {
    let mut text = HEAD.to_owned();
    let is_new = |row: &str| outcomes.iter().any(|outcome| row.starts_with(&start(outcome)));
    for row in old.lines().filter(|row| row.starts_with("| `") && !is_new(row)) {
        text.push_str(row);
        text.push('\n');
    }
    for outcome in outcomes {
        let (low, high) = outcome.spread;
        let met = if outcome.met { "yes" } else { "no" };
        // Writing to a string cannot fail.
        let written = writeln!(
            text,
            "{} {} | {} | {:.2} ({low:.2} to {high:.2}) | {} | {met} | {stamp} |",
            start(outcome),
            result(outcome),
            outcome.against,
            outcome.ratio,
            outcome.target
        );
        debug_assert!(written.is_ok());
    }
    text
}

fn start(outcome: &Outcome) -> String {
    format!("| `{}` |", outcome.name)
}

fn result(outcome: &Outcome) -> String {
    match (outcome.events_per_cpu_s, outcome.figure) {
        (Some(rate), _) if rate >= 1e6 => format!("{:.2} M events/CPU-s", rate / 1e6),
        (Some(rate), _) => format!("{rate:.0} events/CPU-s"),
        (None, Some((figure, unit))) => format!("{figure:.2} {unit}"),
        (None, None) => String::new(),
    }
}

/// Processor, cores, memory, as far as the system tells.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok());
    let memory = memory.map_or_else(String::new, |kib| format!(", {} GiB", kib.div_ceil(1 << 20)));
    format!("{model}, {cores} cores{memory}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, ratio: f64) -> Outcome {
        Outcome {
            name: name.to_owned(),
            against: "floor".to_owned(),
            events_per_cpu_s: Some(2_500_000.0),
            figure: None,
            ratio,
            spread: (ratio, ratio),
            target: 0.7,
            met: ratio >= 0.7,
        }
    }

    #[test]
    fn new_row_replaces_the_old_one_and_no_other() {
        let first = merged("", &[outcome("q1", 0.9), outcome("q12", 0.8)], "d | m");
        let second = merged(&first, &[outcome("q1", 0.5)], "d | m");
        let rows: Vec<_> = second.lines().filter(|row| row.starts_with("| `")).collect();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].starts_with("| `q12` | 2.50 M events/CPU-s | floor | 0.80"), "{rows:?}");
        assert!(rows[1].contains("| 0.50 (0.50 to 0.50) | 0.7 | no | d | m |"), "{rows:?}");
    }
}
