//! `cargo xtask bench`: figures with a target, taken so that they can be compared.
//!
//! The subject and what it is measured against run in one go, in turns, as programs of their own;
//! what counts is the CPU time of their processes and the median of the ratios of the pairs, which
//! a busy machine disturbs least. A benchmark is a [`Benchmark`] in a list of [`definitions::all`].

mod definitions;
mod durable;
mod http;
mod lab;
mod languages;
mod order;
mod table;

use std::io::Write as _;

use anyhow::{Context, bail};
use serde_json::{Value, json};

pub(crate) use lab::{Lab, Sample};

use crate::root;
use crate::steps::say;

/// A figure to hold.
pub(crate) struct Benchmark {
    /// `[a-z0-9/-]`, unique.
    pub(crate) name: String,
    /// What the figure is compared with, for people.
    pub(crate) against: &'static str,
    /// What must hold.
    pub(crate) target: Target,
    /// Builds and fetches what the runs need. Not measured.
    pub(crate) prepare: Take<()>,
    /// What is measured.
    pub(crate) run: Run,
}

/// How a figure is taken.
pub(crate) enum Run {
    /// Two programs over the same events. The ratio is that of their events per CPU-second.
    Pair {
        /// Ours.
        subject: Take<Sample>,
        /// The other.
        baseline: Take<Sample>,
    },
    /// One figure, lower is better. The ratio is figure ÷ `limit`.
    Figure {
        /// "ms" and the like.
        unit: &'static str,
        /// What the target is counted in.
        limit: f64,
        /// Takes it once.
        take: Take<f64>,
    },
}

/// One part of a benchmark.
pub(crate) type Take<T> = Box<dyn Fn(&Lab) -> anyhow::Result<T>>;

/// A bound of the ratio.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Speed: higher is better.
    AtLeast(f64),
    /// Cost: lower is better.
    AtMost(f64),
}

impl Target {
    fn met(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bound) => ratio >= bound,
            Self::AtMost(bound) => ratio <= bound,
        }
    }

    const fn bound(self) -> f64 {
        match self {
            Self::AtLeast(bound) | Self::AtMost(bound) => bound,
        }
    }
}

/// What came of a benchmark.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) against: String,
    /// The subject's, median. `None` for a figure.
    pub(crate) events_per_cpu_s: Option<f64>,
    /// The figure and its unit, median.
    pub(crate) figure: Option<(f64, &'static str)>,
    /// Median of the ratios.
    pub(crate) ratio: f64,
    /// Lowest and highest ratio: what the median hides.
    pub(crate) spread: (f64, f64),
    pub(crate) target: f64,
    pub(crate) met: bool,
}

impl Outcome {
    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "events_per_cpu_s": self.events_per_cpu_s.map(f64::round),
            "figure": self.figure.map(|(figure, _)| figure),
            "unit": self.figure.map(|(_, unit)| unit),
            "against": self.against,
            "ratio": self.ratio,
            "ratio_min": self.spread.0,
            "ratio_max": self.spread.1,
            "target": self.target,
            "met": self.met,
        })
    }
}

/// Runs the benchmarks whose name contains `filter`, `pairs` times each after one run that does
/// not count. One JSON object a line goes to standard output if `json`; the table in
/// `docs/benchmarks.md` takes the new rows.
pub(crate) fn bench(filter: Option<&str>, pairs: usize, json: bool) -> anyhow::Result<()> {
    let root = root()?;
    let benchmarks: Vec<_> =
        definitions::all().into_iter().filter(|it| filter.is_none_or(|part| it.name.contains(part))).collect();
    if benchmarks.is_empty() {
        bail!("no benchmark has {:?} in its name", filter.unwrap_or_default());
    }
    let lab = Lab::new(&root);
    std::fs::create_dir_all(&lab.scratch).with_context(|| format!("cannot make {}", lab.scratch.display()))?;
    let mut outcomes = Vec::new();
    for benchmark in benchmarks {
        let outcome = measure(&lab, &benchmark, pairs).with_context(|| format!("benchmark {}", benchmark.name))?;
        if json {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", outcome.json())?;
        }
        say(&table::line(&outcome));
        outcomes.push(outcome);
    }
    table::write(&root.join("docs/benchmarks.md"), &outcomes)?;
    let missed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.met).map(|outcome| outcome.name.as_str()).collect();
    if !missed.is_empty() {
        bail!("not met: {}", missed.join(", "));
    }
    Ok(())
}

fn measure(lab: &Lab, benchmark: &Benchmark, pairs: usize) -> anyhow::Result<Outcome> {
    (benchmark.prepare)(lab).context("cannot prepare")?;
    let mut rates = Vec::new();
    let mut figures = Vec::new();
    let mut ratios = Vec::new();
    for turn in 0..=pairs {
        let ratio = match &benchmark.run {
            Run::Pair { subject, baseline } => {
                // Whoever runs second may find warmer caches or a hotter processor: take turns.
                let (ours, theirs) = if turn % 2 == 0 {
                    let ours = subject(lab)?;
                    (ours, baseline(lab)?)
                } else {
                    let theirs = baseline(lab)?;
                    (subject(lab)?, theirs)
                };
                let (ours, theirs) = (ours.events_per_cpu_s()?, theirs.events_per_cpu_s()?);
                if turn > 0 {
                    rates.push(ours);
                }
                ours / theirs
            }
            Run::Figure { limit, take, .. } => {
                let figure = take(lab)?;
                if turn > 0 {
                    figures.push(figure);
                }
                figure / limit
            }
        };
        if turn > 0 {
            ratios.push(ratio);
        }
    }
    let ratio = median(&mut ratios).context("no pair was run")?;
    let spread = (*ratios.first().context("no pair")?, *ratios.last().context("no pair")?);
    let figure = match &benchmark.run {
        Run::Figure { unit, .. } => median(&mut figures).map(|figure| (figure, *unit)),
        Run::Pair { .. } => None,
    };
    Ok(Outcome {
        name: benchmark.name.clone(),
        against: benchmark.against.to_owned(),
        events_per_cpu_s: median(&mut rates),
        figure,
        ratio,
        spread,
        target: benchmark.target.bound(),
        met: benchmark.target.met(ratio),
    })
}

/// Sorts; of an even number, the mean of the two in the middle.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values.get(middle.checked_sub(1)?).map(|lower| f64::midpoint(*lower, upper))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn lab() -> Lab {
        Lab::new(&root().expect("the repository"))
    }

    fn nothing() -> Take<()> {
        Box::new(|_| Ok(()))
    }

    fn loops(lab: &Lab, count: u32) -> anyhow::Result<Sample> {
        let script = format!("i=0; while [ $i -lt {count} ]; do i=$((i+1)); done");
        lab.run(Command::new("sh").args(["-c", &script]), 1_000)
    }

    #[test]
    fn median_is_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn program_that_works_more_has_the_lower_ratio() {
        let run =
            Run::Pair { subject: Box::new(|lab| loops(lab, 400_000)), baseline: Box::new(|lab| loops(lab, 40_000)) };
        let target = Target::AtLeast(0.5);
        let benchmark = Benchmark { name: "loops".into(), against: "fewer loops", target, prepare: nothing(), run };
        let outcome = measure(&lab(), &benchmark, 3).expect("runs");
        assert!(outcome.ratio < 0.5 && !outcome.met, "{outcome:?}");
        assert!(outcome.spread.0 <= outcome.ratio && outcome.ratio <= outcome.spread.1);
    }

    #[test]
    fn figure_is_held_against_its_limit() {
        let run = Run::Figure { unit: "ms", limit: 100.0, take: Box::new(|_| Ok(50.0)) };
        let target = Target::AtMost(1.0);
        let benchmark = Benchmark { name: "start".into(), against: "100 ms", target, prepare: nothing(), run };
        let outcome = measure(&lab(), &benchmark, 2).expect("runs");
        assert_eq!((outcome.ratio, outcome.met, outcome.figure), (0.5, true, Some((50.0, "ms"))));
        assert_eq!(outcome.json()["events_per_cpu_s"], Value::Null);
    }

    #[test]
    fn failed_program_is_no_sample() {
        assert!(lab().run(Command::new("sh").args(["-c", "exit 1"]), 1).is_err());
    }
}
