//! What ordering buffers cost, and how AQ-K-slack compares with K-slack.
//!
//! ```text
//! cargo run --release -p wasmill-order --example ordering -- cost
//! cargo run --release -p wasmill-order --example ordering -- quality [DEPARTURES.csv]
//! ```
//!
//! Prints one JSON object a line. `cost`: nanoseconds of CPU time an event, through buffer and held
//! rows. `quality`: for each trace and method the share of rows that were in time for their window,
//! the mean time that rows waited, and `K` over time. `DEPARTURES.csv` has columns `scheduled` and
//! `actual` in milliseconds, in the order of the second.

#![expect(clippy::print_stdout, reason = "a program that prints figures")]
#![expect(clippy::unwrap_used, reason = "a benchmark stops where anything fails")]

use std::collections::BTreeMap;

use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use wasmill_model::{Batch, BatchBuilder, Timestamp};
use wasmill_order::{HeldRows, Place, Quality, Slack, TimeBuffer};

const SECOND: i64 = 1_000_000;
const ROWS: i64 = 400_000;
/// Points of a curve of `K`.
const POINTS: usize = 200;
const TARGETS: [f64; 3] = [0.90, 0.95, 0.99];

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("cost") => cost(),
        Some("quality") => quality(arguments.next()),
        _ => println!("say `cost` or `quality [DEPARTURES.csv]`"),
    }
}

/// Numbers from a seed (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, up to 1.
    fn part(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }
}

fn cpu_nanos() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// One row a microsecond, up to 1,000 behind, with a bound that holds 10,000 of them.
fn cost() {
    let (rows, held_rows, batch_rows) = (2_000_000_i64, 10_000, 1_000);
    let mut chance = Chance(1);
    let batches: Vec<Batch> = (0..rows / batch_rows)
        .map(|batch| {
            let mut builder = BatchBuilder::default();
            for row in 0..batch_rows {
                let time = batch * batch_rows + row - (chance.next() % 1_000).cast_signed();
                builder.push(Timestamp(time), b"bridge-7", &[b'v'; 100]);
            }
            builder.finish(0)
        })
        .collect();
    let mut figures = Vec::new();
    for _ in 0..5 {
        let mut buffer = TimeBuffer::<Place>::new(Slack::Fixed { bound: held_rows });
        let (mut kept, mut numbers, mut out) = (HeldRows::default(), Vec::new(), Vec::new());
        let (mut gone, mut most) = (0, 0);
        let start = cpu_nanos();
        for batch in &batches {
            let slot = kept.next_slot();
            numbers.clear();
            numbers.extend(batch.times().iter().enumerate().map(|(row, &time)| buffer.offer(time, (slot, row as u32))));
            kept.put(batch.clone(), &numbers, false);
            out.extend(std::iter::from_fn(|| buffer.pop()).map(|(_, _, place)| place));
            gone += kept.take(&out).map_or(0, |batch| batch.len());
            out.clear();
            most = kept.len().max(most);
        }
        let nanos = cpu_nanos() - start;
        assert_eq!(gone as u64 + kept.len(), rows.unsigned_abs(), "nothing is lost");
        figures.push((nanos as f64 / rows as f64, most));
    }
    figures.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (nanos, held) = figures[figures.len() / 2];
    println!("{}", json!({"name": "ordering-buffer", "ns_per_event": nanos, "held": held}));
}

/// Event time and time of arrival, in the order of arrival.
struct Trace {
    name: &'static str,
    window: i64,
    rows: Vec<(i64, i64)>,
}

fn synthetic(name: &'static str, mut delay: impl FnMut(&mut Chance, i64) -> f64) -> Trace {
    let mut chance = Chance(7);
    let mut rows: Vec<(i64, i64)> = (0..ROWS)
        .map(|row| {
            let time = row * 1_000;
            (time, time + (delay(&mut chance, time) * SECOND as f64) as i64)
        })
        .collect();
    // The trace ends with its last event: what would come later never does.
    rows.retain(|row| row.1 <= ROWS * 1_000);
    rows.sort_by_key(|row| row.1);
    Trace { name, window: 10 * SECOND, rows }
}

fn departures(path: &str) -> Trace {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let place = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let (scheduled, actual) = (place("scheduled"), place("actual"));
    let rows = lines.filter_map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        Some((fields[scheduled].parse::<i64>().ok()? * 1_000, fields[actual].parse::<i64>().ok()? * 1_000))
    });
    let mut rows: Vec<(i64, i64)> = rows.collect();
    rows.sort_by_key(|row| row.1);
    Trace { name: "flights", window: 3_600 * SECOND, rows }
}

#[derive(Default)]
struct Outcome {
    in_time: u64,
    waited: f64,
    k: f64,
    curve: Vec<(f64, f64)>,
    windows: BTreeMap<i64, (u64, u64)>,
}

/// Plays a trace. Rows that are late for the buffer go on at once: their window may still be open.
fn play(trace: &Trace, slack: Slack) -> Outcome {
    let mut buffer: TimeBuffer<i64> = TimeBuffer::new(slack);
    let mut outcome = Outcome::default();
    let step = trace.rows.len() / POINTS;
    for (row, &(time, arrived)) in trace.rows.iter().enumerate() {
        let end = (time.div_euclid(trace.window) + 1) * trace.window;
        let in_time = buffer.promised().0 < end - 1;
        outcome.in_time += u64::from(in_time);
        let window = outcome.windows.entry(end).or_default();
        *window = (window.0 + u64::from(in_time), window.1 + 1);
        buffer.offer(time, arrived);
        while let Some((_, _, came)) = buffer.pop() {
            outcome.waited += (arrived - came) as f64;
        }
        outcome.k += buffer.k() as f64;
        if row % step == 0 {
            outcome.curve.push((arrived as f64 / 1e6, buffer.k() as f64 / 1e6));
        }
    }
    buffer.watermark(Timestamp::MAX);
    let last = trace.rows.last().map_or(0, |row| row.1);
    while let Some((_, _, came)) = buffer.pop() {
        outcome.waited += (last - came) as f64;
    }
    outcome
}

fn report(trace: &Trace, method: &str, target: Option<f64>, slack: Slack) -> f64 {
    let outcome = play(trace, slack);
    let rows = trace.rows.len() as f64;
    let quality = outcome.in_time as f64 / rows;
    let of_windows = outcome.windows.values().map(|(in_time, all)| *in_time as f64 / *all as f64);
    println!(
        "{}",
        json!({
            "trace": trace.name,
            "rows": trace.rows.len(),
            "window_seconds": trace.window as f64 / 1e6,
            "method": method,
            "target": target,
            "quality": quality,
            "quality_of_windows": of_windows.sum::<f64>() / outcome.windows.len() as f64,
            "mean_wait_seconds": outcome.waited / rows / 1e6,
            "mean_k_seconds": outcome.k / rows / 1e6,
            "curve": outcome.curve,
        })
    );
    quality
}

fn quality(flights: Option<String>) {
    let exponential = |chance: &mut Chance, mean: f64| -mean * chance.part().ln();
    let mut traces = vec![
        synthetic("uniform", |chance, _| 2.0 * chance.part()),
        synthetic("exponential", |chance, _| exponential(chance, 1.0)),
        synthetic("pareto", |chance, _| 0.3 / chance.part().powf(1.0 / 1.5)),
        synthetic("regimes", |chance, time| exponential(chance, if time / (50 * SECOND) % 2 == 0 { 0.2 } else { 2.0 })),
    ];
    traces.extend(flights.as_deref().map(departures));
    for trace in &traces {
        report(trace, "k-slack", None, Slack::largest(u64::MAX));
        for target in TARGETS {
            let quality = Quality { target, window: trace.window.unsigned_abs() };
            report(trace, "aq-k-slack", Some(target), Slack::adaptive(quality, u64::MAX));
            // What somebody who knew the whole trace would have set.
            let (mut low, mut high) = (0, 1_u64 << 40);
            while high - low > high / 100 + 1 {
                let bound = low.midpoint(high);
                let reached = play(trace, Slack::Fixed { bound }).in_time as f64 >= target * trace.rows.len() as f64;
                *if reached { &mut high } else { &mut low } = bound;
            }
            report(trace, "best fixed bound", Some(target), Slack::Fixed { bound: high });
        }
    }
}
