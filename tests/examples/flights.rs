//! `examples/flights`, computed once more from the CSV file. Nothing here is shared with the job.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::{Ran, integer, root, run, text};

const JOB: &str = "examples/flights/job.toml";
const SINKS: [&str; 3] = ["delays-by-hour", "cancelled-by-day", "worst-routes"];
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

struct Flight {
    scheduled: i64,
    /// Minutes; `None` where it did not leave.
    delay: Option<i64>,
    carrier: String,
    route: String,
}

/// Days since 1970 of a date after 2000, by counting.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let years: i64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    years + lengths.iter().take(month as usize - 1).sum::<i64>() + day - 1
}

/// Flights in the order in which they left. The file has no quotes.
fn flights(path: &Path) -> Vec<Flight> {
    let file = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = file.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let number = |text: &str| text.parse::<i64>().unwrap_or_else(|error| panic!("{text:?}: {error}"));
    let mut flights = Vec::new();
    for line in lines {
        let record: BTreeMap<&str, &str> = header.iter().copied().zip(line.split(',')).collect();
        let hour = record["time_hour"];
        let midnight = days(number(&hour[..4]), number(&hour[5..7]), number(&hour[8..10])) * DAY;
        let delay = record["dep_delay"];
        flights.push(Flight {
            scheduled: midnight + number(&hour[11..13]) * HOUR + number(record["minute"]) * MINUTE,
            delay: (delay != "NA").then(|| number(delay)),
            carrier: record["carrier"].to_owned(),
            route: format!("{}-{}", record["origin"], record["dest"]),
        });
    }
    flights.sort_by_key(|flight| flight.scheduled + flight.delay.unwrap_or(0) * MINUTE);
    flights
}

/// Whether the hour of each flight is over by the watermark when it comes, if the watermark rises
/// with every row. Where it rises less often, fewer are late.
fn late(flights: &[Flight], bound: i64) -> Vec<bool> {
    let mut latest = i64::MIN / 2;
    let late = flights.iter().map(|flight| {
        let late = (flight.scheduled.div_euclid(HOUR) + 1) * HOUR <= latest - bound;
        latest = latest.max(flight.scheduled);
        late
    });
    late.collect()
}

type Groups<'a> = BTreeMap<(i64, &'a str), Vec<i64>>;

fn group<'a>(
    flights: impl Iterator<Item = &'a Flight>,
    length: i64,
    key: impl Fn(&'a Flight) -> &'a str,
) -> Groups<'a> {
    let mut groups = Groups::new();
    for flight in flights {
        let start = flight.scheduled.div_euclid(length) * length;
        groups.entry((start, key(flight))).or_default().extend(flight.delay);
    }
    groups
}

fn departed(flight: &&Flight) -> bool {
    flight.delay.is_some()
}

fn mean(delays: &[i64]) -> f64 {
    delays.iter().sum::<i64>() as f64 / delays.len() as f64
}

/// The value that `tenths` tenths of all values do not exceed.
fn quantile(sorted: &[i64], tenths: usize) -> i64 {
    sorted[(sorted.len() * tenths).div_ceil(10).max(1) - 1]
}

fn delays_by_hour(flights: &[Flight]) -> Vec<Value> {
    let groups = group(flights.iter().filter(departed), HOUR, |flight| &flight.carrier);
    let rows = groups.into_iter().map(|((start, carrier), mut delays)| {
        delays.sort_unstable();
        json!({
            "key": carrier,
            "start": start,
            "end": start + HOUR,
            "count": delays.len(),
            "delay": mean(&delays),
            "longest": delays.last(),
            "share": {"0.5": quantile(&delays, 5) as f64, "0.9": quantile(&delays, 9) as f64},
        })
    });
    rows.collect()
}

fn cancelled_by_day(flights: &[Flight]) -> Vec<Value> {
    let mut counts: BTreeMap<(i64, &str), u64> = BTreeMap::new();
    for flight in flights.iter().filter(|flight| flight.delay.is_none()) {
        *counts.entry((flight.scheduled.div_euclid(DAY) * DAY, &flight.carrier)).or_default() += 1;
    }
    let row = |((start, key), count)| json!({"key": key, "start": start, "end": start + DAY, "count": count});
    counts.into_iter().map(row).collect()
}

fn worst_routes(flights: &[Flight]) -> Vec<Value> {
    let groups = group(flights.iter().filter(departed), DAY, |flight| &flight.route);
    let mut days: BTreeMap<i64, Vec<(&str, usize, f64)>> = BTreeMap::new();
    for ((start, route), delays) in &groups {
        let day = days.entry(*start).or_default();
        if delays.len() >= 5 {
            day.push((route, delays.len(), mean(delays)));
        }
    }
    let rows = days.into_iter().map(|(start, mut routes)| {
        routes.sort_by(|one, other| other.2.total_cmp(&one.2).then(one.0.cmp(other.0)));
        let worst = |(route, flights, delay)| json!({"route": route, "flights": flights, "delay": delay});
        let worst: Vec<Value> = routes.into_iter().take(5).map(worst).collect();
        json!({"start": start, "end": start + DAY, "worst": worst})
    });
    rows.collect()
}

/// The row with fractions cut, as reading JSON may change their last digit.
fn cut(row: &Value) -> Value {
    match row {
        Value::Number(number) if number.is_f64() => json!((number.as_f64().unwrap_or(f64::NAN) * 1e6).round() / 1e6),
        Value::Array(items) => items.iter().map(cut).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), cut(value))).collect(),
        other => other.clone(),
    }
}

/// Compares rows whatever their order.
fn same(what: &str, found: &[Value], expected: &[Value]) {
    let set = |rows: &[Value]| rows.iter().map(|row| cut(row).to_string()).collect::<BTreeSet<_>>();
    let (found_set, expected_set) = (set(found), set(expected));
    let missing: Vec<_> = expected_set.difference(&found_set).take(3).collect();
    let surplus: Vec<_> = found_set.difference(&expected_set).take(3).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "{what}: missing {missing:#?}, instead {surplus:#?}");
    assert_eq!(found.len(), expected.len(), "{what}: rows come twice");
}

fn job(input: Option<&Path>, bound: Option<&str>) -> Ran {
    let input = input.map(|path| format!("source.departures.path={}", path.display()));
    let bound = bound.map(|bound| format!("source.departures.watermark.bound={bound}"));
    run(JOB, &SINKS, &input.into_iter().chain(bound).collect::<Vec<_>>())
}

/// With a bound above every delay nothing is late: every row of every sink is as computed here.
fn holds_exactly(input: Option<&Path>, flights: &[Flight]) {
    let ran = job(input, Some("2d"));
    assert_eq!(ran.number("rows_in"), flights.len() as u64);
    assert_eq!((ran.number("late"), ran.number("rejected")), (0, 0));
    same("delays", &ran.rows("delays-by-hour"), &delays_by_hour(flights));
    same("cancelled", &ran.rows("cancelled-by-day"), &cancelled_by_day(flights));
    same("worst routes", &ran.rows("worst-routes"), &worst_routes(flights));
}

/// With the bound of the job file rows may be late. Which of them depends on how many rows the
/// source reads at once: never more than if the watermark rose with every row.
fn holds_with_late_rows(input: Option<&Path>, flights: &[Flight]) {
    let ran = job(input, None);
    let late = late(flights, 6 * HOUR);
    let on_time = flights.iter().zip(&late).filter(|(_, late)| !**late).map(|(flight, _)| flight);
    let least = group(on_time.filter(departed), HOUR, |flight| &flight.carrier);
    let most = group(flights.iter().filter(departed), HOUR, |flight| &flight.carrier);
    let mut counted = 0;
    for row in ran.rows("delays-by-hour") {
        let (start, key, count) = (integer(&row, "start"), text(&row, "key"), integer(&row, "count") as usize);
        let between = least.get(&(start, key)).map_or(1, Vec::len)..=most[&(start, key)].len();
        assert!(between.contains(&count), "{row}: expected {between:?}");
        counted += count;
    }
    let departed = flights.iter().filter(departed).count();
    let lost = departed - counted;
    let nodes = ran.summary["nodes"].as_array().expect("nodes");
    let stage = nodes.iter().find(|node| node["name"] == "delays").expect("a stage `delays`");
    assert_eq!(stage["late"].as_u64(), Some(lost as u64));
    assert!(lost <= late.iter().filter(|late| **late).count(), "{lost} late rows");
}

#[test]
fn sample_gives_what_the_csv_says() {
    let flights = flights(&root().join("examples/flights/sample.csv"));
    holds_exactly(None, &flights);
    holds_with_late_rows(None, &flights);
}

#[test]
#[ignore = "needs the data of `cargo xtask flights`"]
fn whole_year_gives_what_the_csv_says() {
    let data = root().canonicalize().expect("the repository").join("target/data/flights");
    let flights = flights(&data.join("flights.csv"));
    assert_eq!(flights.len(), 336_776);
    let input = data.join("departures.csv");
    holds_exactly(Some(&input), &flights);
    holds_with_late_rows(Some(&input), &flights);
}
