//! `examples/bridge-traffic`, counted once more from the raw lines and the rules of its README.
//! Nothing here is shared with the job.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use crate::{Ran, integer, root, run, text};

const JOB: &str = "examples/bridge-traffic/job.toml";
const MINUTE: i64 = 60_000;
const BOUND: i64 = 2_000;

/// The type of a vehicle, `None` for what no vehicle can be.
fn vehicle(reading: &Value) -> Option<&'static str> {
    let number = |name: &str| reading[name].as_f64();
    let (axles, length, weight) = (number("axles")?, number("length_m")?, number("weight_kg")?);
    let within = |value: f64, least: f64, most: f64| value >= least && value <= most;
    let possible = within(axles, 2.0, 9.0)
        && within(length, 1.0, 30.0)
        && within(number("speed_kmh")?, 0.0, 250.0)
        && within(weight, 80.0, 100_000.0);
    if !possible {
        None
    } else if axles >= 4.0 {
        Some("lorry")
    } else if length >= 10.0 && weight < 16_000.0 {
        Some("bus")
    } else if weight >= 5_000.0 {
        Some("truck")
    } else if length >= 5.0 {
        Some("van")
    } else if weight < 500.0 {
        Some("motorcycle")
    } else {
        Some("car")
    }
}

#[derive(Debug, Default)]
struct Expected {
    /// Vehicles by minute and type.
    all: BTreeMap<(i64, String), u64>,
    /// Those that are on time even if the watermark rises with every line.
    on_time: BTreeMap<(i64, String), u64>,
    lines: u64,
    rejected: u64,
}

fn expected() -> Expected {
    let lines = std::fs::read_to_string(root().join("examples/bridge-traffic/sensors.jsonl")).expect("the input");
    let (mut expected, mut seen, mut latest) = (Expected::default(), HashSet::new(), i64::MIN / 2);
    for line in lines.lines() {
        let Ok(reading) = serde_json::from_str::<Value>(line) else {
            expected.rejected += 1;
            continue;
        };
        expected.lines += 1;
        let at = integer(&reading, "at");
        let minute = at.div_euclid(MINUTE) * MINUTE;
        let late = minute + MINUTE <= latest - BOUND;
        latest = latest.max(at);
        if !seen.insert(text(&reading, "id").to_owned()) {
            continue;
        }
        match vehicle(&reading) {
            None => expected.rejected += 1,
            Some(vehicle) => {
                let pane = (minute, vehicle.to_owned());
                *expected.all.entry(pane.clone()).or_default() += 1;
                *expected.on_time.entry(pane).or_default() += u64::from(!late);
            }
        }
    }
    expected
}

fn counts(ran: &Ran) -> BTreeMap<(i64, String), u64> {
    let mut counts = BTreeMap::new();
    for row in ran.rows("counts") {
        let start = integer(&row, "start");
        assert_eq!(integer(&row, "end"), start + MINUTE);
        let pane = (start, text(&row, "key").to_owned());
        let before = counts.insert(pane, integer(&row, "count").unsigned_abs());
        assert_eq!(before, None, "{row} comes twice");
    }
    counts
}

#[test]
fn counts_are_those_of_the_raw_lines() {
    let expected = expected();
    // The oracle has something to say: most types in most minutes, and readings of every fault.
    assert_eq!((expected.all.len(), expected.lines, expected.rejected), (175, 2_356, 23));
    let ran = run(JOB, &["counts"], &["source.sensors.watermark.bound=5m".to_owned()]);
    assert_eq!(counts(&ran), expected.all);
    // Two lines are cut off: they come in, and are no readings.
    assert_eq!((ran.number("rows_in"), ran.number("late")), (expected.lines + 2, 0));
    let rejected = ran.rows("rejected");
    assert_eq!((rejected.len() as u64, ran.number("rejected")), (expected.rejected, expected.rejected));
    let reasons = |start: &str| rejected.iter().filter(|row| text(row, "reason").starts_with(start)).count();
    assert_eq!(reasons("no event time"), 2, "two lines are cut off");
}

/// Which readings are late depends on how many lines the source reads at once.
#[test]
fn late_readings_are_dropped_and_counted() {
    let expected = expected();
    let ran = run(JOB, &["counts"], &[]);
    let counts = counts(&ran);
    for (pane, most) in &expected.all {
        let (least, count) = (expected.on_time[pane], counts.get(pane).copied().unwrap_or(0));
        assert!((least..=*most).contains(&count), "{pane:?}: {count}, expected {least} to {most}");
    }
    let (counted, all): (u64, u64) = (counts.values().sum(), expected.all.values().sum());
    assert_eq!(counted + ran.number("late"), all);
}
