//! `cargo xtask figures`: the plots of `docs/ordering.md`, and what they promise.
//!
//! Runs `runtime/order/examples/ordering.rs` over synthetic traces and the departures of
//! `cargo xtask flights`, draws SVGs into `docs/img/`, and fails where AQ-K-slack misses its quality
//! or waits longer than the half of K-slack.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, anyhow, bail, ensure};
use plotters::prelude::*;
use serde_json::Value;

use crate::flights;
use crate::root;
use crate::steps::say;

/// The quality at which waiting is compared: results that are 5 % off at most, on the mean.
const TARGET: f64 = 0.95;
/// How much less than K-slack AQ-K-slack waits at least, as the paper has it.
const LESS: f64 = 0.51;

/// What one method gave on one trace.
struct Outcome {
    trace: String,
    method: String,
    target: Option<f64>,
    quality: f64,
    wait: f64,
    curve: Vec<(f64, f64)>,
}

pub(crate) fn figures() -> anyhow::Result<()> {
    let root = root()?;
    let departures = flights::departures()?;
    let example = ["run", "--release", "--quiet", "--package", "wasmill-order", "--example", "ordering", "--"];
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let output = command.current_dir(&root).args(example).arg("quality").arg(departures).output()?;
    ensure!(output.status.success(), "the example failed: {}", String::from_utf8_lossy(&output.stderr));
    let outcomes: Vec<Outcome> = String::from_utf8(output.stdout)?.lines().map(outcome).collect::<Result<_, _>>()?;
    let folder = root.join("docs/img");
    let mut wrong = Vec::new();
    let mut traces: Vec<&str> = outcomes.iter().map(|it| it.trace.as_str()).collect();
    traces.dedup();
    say("| trace | method | target | quality | mean wait | against K-slack |");
    say("| --- | --- | --- | --- | --- | --- |");
    for trace in traces {
        let of: Vec<&Outcome> = outcomes.iter().filter(|it| it.trace == trace).collect();
        let slack = of.iter().find(|it| it.method == "k-slack").context("no K-slack")?.wait;
        for it in &of {
            say(&row(it, slack));
            if it.method == "aq-k-slack" && it.target.is_some_and(|target| it.quality < target) {
                wrong.push(format!("{trace}: quality {:.4} of {:?}", it.quality, it.target));
            }
        }
        let steered = of.iter().find(|it| it.method == "aq-k-slack" && it.target == Some(TARGET));
        let steered = steered.context("no AQ-K-slack")?;
        if steered.wait > slack * (1.0 - LESS) {
            wrong.push(format!("{trace}: waits {:.3} s, K-slack {slack:.3} s", steered.wait));
        }
        plot(&folder.join(format!("order-{trace}.svg")), trace, &of)?;
    }
    if !wrong.is_empty() {
        bail!("not met: {}", wrong.join("; "));
    }
    Ok(())
}

fn outcome(line: &str) -> anyhow::Result<Outcome> {
    let value: Value = serde_json::from_str(line)?;
    let text = |key: &str| value[key].as_str().map(ToOwned::to_owned).with_context(|| format!("no {key}"));
    let number = |key: &str| value[key].as_f64().with_context(|| format!("no {key}"));
    let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_f64()?));
    Ok(Outcome {
        trace: text("trace")?,
        method: text("method")?,
        target: value["target"].as_f64(),
        quality: number("quality")?,
        wait: number("mean_wait_seconds")?,
        curve: value["curve"].as_array().into_iter().flatten().filter_map(point).collect(),
    })
}

fn row(it: &Outcome, slack: f64) -> String {
    let target = it.target.map_or("-".to_owned(), |target| format!("{target:.2}"));
    let less = 100.0 * (1.0 - it.wait / slack);
    let Outcome { trace, method, quality, wait, .. } = it;
    format!("| {trace} | {method} | {target} | {quality:.4} | {wait:.3} s | {less:.0} % less |")
}

/// How much longer the axis of time is than the trace: room for the names of the lines.
const LEGEND: f64 = 1.25;

/// `K` over the time of arrival, for K-slack and for AQ-K-slack at each target.
fn plot(path: &Path, trace: &str, outcomes: &[&Outcome]) -> anyhow::Result<()> {
    let drawn: Vec<&&Outcome> = outcomes.iter().filter(|it| it.method != "best fixed bound").collect();
    let points = || drawn.iter().flat_map(|it| &it.curve);
    let start = points().map(|point| point.0).fold(f64::MAX, f64::min);
    let end = points().map(|point| point.0).fold(f64::MIN, f64::max);
    let highest = points().map(|point| point.1).fold(1e-3, f64::max);
    let (x_unit, x_seconds) = unit(end - start);
    let (y_unit, y_seconds) = unit(highest);
    let wrong = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (720, 320)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| wrong(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .caption(format!("{trace}: how long rows wait (K)"), ("sans-serif", 16))
            .build_cartesian_2d(0.0..(end - start) / x_seconds * LEGEND, 0.0..highest / y_seconds * 1.05)
            .map_err(|error| wrong(&error))?;
        let mesh = &mut chart.configure_mesh();
        mesh.light_line_style(WHITE).x_desc(x_unit).y_desc(format!("K in {y_unit}"));
        mesh.x_label_formatter(&|x| format!("{x:.0}"));
        mesh.draw().map_err(|error| wrong(&error))?;
        let colours = [RGBColor(90, 90, 90), RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44)];
        for (it, colour) in drawn.iter().zip(colours) {
            let line =
                LineSeries::new(it.curve.iter().map(|(at, k)| ((at - start) / x_seconds, k / y_seconds)), colour);
            let label = it.target.map_or(it.method.clone(), |target| format!("{} {target:.2}", it.method));
            let series = chart.draw_series(line).map_err(|error| wrong(&error))?;
            series.label(label).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        let labels = &mut chart.configure_series_labels();
        labels
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE)
            .draw()
            .map_err(|error| wrong(&error))?;
        area.present().map_err(|error| wrong(&error))?;
    }
    fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
}

/// The unit in which so many seconds are told, and its length in seconds.
fn unit(seconds: f64) -> (&'static str, f64) {
    const HOUR: f64 = 3_600.0;
    match seconds {
        0.0..HOUR => ("seconds", 1.0),
        seconds if seconds < 48.0 * HOUR => ("hours", HOUR),
        _ => ("days", 24.0 * HOUR),
    }
}
