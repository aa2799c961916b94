//! HTTP ingestion with durable acknowledgement: what an event costs, against the same one in a file.
//!
//! The senders are threads of this process, so that only the job's own CPU time counts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;
use wait4::Wait4;

use super::definitions::{build, wasmill};
use super::{Benchmark, Lab, Run, Sample, Target};

/// Connections that post at the same time.
const SENDERS: u64 = 16;

/// Batches of a thousand events, and single ones: less than a tenth of what a file gives, because
/// every request is parsed, answered and made durable.
pub(super) fn all() -> [Benchmark; 2] {
    [benchmark("http/batched", 800_000, 1_000, 0.1), benchmark("http/single", 32_000, 1, 0.002)]
}

fn benchmark(name: &'static str, events: u64, batch: u64, target: f64) -> Benchmark {
    let input = move |lab: &Lab| lab.scratch.join(format!("http-{events}.jsonl"));
    Benchmark {
        name: name.into(),
        against: "the same events out of a file, both with --state",
        target: Target::AtLeast(target),
        prepare: Box::new(move |lab| {
            build(lab)?;
            Ok(std::fs::write(input(lab), lines(0..events))?)
        }),
        run: Run::Pair {
            subject: Box::new(move |lab| post(lab, events, batch)),
            baseline: Box::new(move |lab| {
                let mut job = job(lab, "copy", "http-copy-state")?;
                job.arg("--set").arg(format!("source.events.path={:?}", input(lab).display().to_string()));
                lab.run(&mut job, events)
            }),
        },
    }
}

fn lines(numbers: std::ops::Range<u64>) -> String {
    numbers.map(|number| format!("{{\"id\":{number},\"station\":\"north-{}\",\"celsius\":{}.5,\"text\":\"a reading of ordinary length\"}}\n", number % 97, number % 30)).collect()
}

/// A job of `tests/bench` with a new state.
fn job(lab: &Lab, name: &str, state: &str) -> anyhow::Result<Command> {
    let state = lab.scratch.join(state);
    if state.exists() {
        std::fs::remove_dir_all(&state).with_context(|| format!("cannot remove {}", state.display()))?;
    }
    let mut job = Command::new(wasmill(lab));
    job.args(["run", &format!("tests/bench/{name}.toml"), "--json", "--state"]).arg(state);
    let results: PathBuf = lab.scratch.join(format!("{name}-results.jsonl"));
    job.arg("--set").arg(format!("sink.results.path={:?}", results.display().to_string()));
    Ok(job)
}

fn post(lab: &Lab, events: u64, batch: u64) -> anyhow::Result<Sample> {
    let mut command = job(lab, "http", "http-state")?;
    command.current_dir(&lab.root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run the job")?;
    let sent = send(&mut child, events, batch);
    let ended = interrupt(&child);
    let mut summary = String::new();
    child.stdout.take().context("no output")?.read_to_string(&mut summary)?;
    let end = child.wait4().context("cannot wait for the job")?;
    sent?;
    ended?;
    if !end.status.success() {
        bail!("the job ended with {}", end.status);
    }
    let summary: Value = serde_json::from_str(&summary).context("the job printed no JSON")?;
    if summary["rows_in"].as_u64() > Some(events) {
        bail!("{events} events were sent: {summary}");
    }
    Ok(Sample { events, cpu: end.rusage.utime + end.rusage.stime })
}

fn interrupt(child: &Child) -> anyhow::Result<()> {
    let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    if !told.context("cannot run kill")?.success() {
        bail!("the job was gone");
    }
    Ok(())
}

fn send(child: &mut Child, events: u64, batch: u64) -> anyhow::Result<()> {
    let mut errors = BufReader::new(child.stderr.take().context("no errors")?);
    let mut line = String::new();
    errors.read_line(&mut line)?;
    let said: Value = serde_json::from_str(&line).with_context(|| format!("the job said {line:?}"))?;
    let location = said["location"].as_str().context("no location")?;
    let address = location.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let share = events / SENDERS;
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let address = address.clone();
            std::thread::spawn(move || sender_of(&address, sender * share..(sender + 1) * share, batch))
        })
        .collect();
    for sender in senders {
        sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
    }
    Ok(())
}

/// Posts over one connection, each request once the one before is acknowledged.
fn sender_of(address: &str, numbers: std::ops::Range<u64>, batch: u64) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut next = numbers.start;
    while next < numbers.end {
        let end = numbers.end.min(next + batch);
        let body = lines(next..end);
        let head = format!(
            "POST / HTTP/1.1\r\nhost: bench\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes())?;
        if answer(&mut answers)? == 202 {
            next = end;
        }
        // Else it was told to come again: the job is behind.
    }
    Ok(())
}

/// Reads an answer: its status.
fn answer(stream: &mut BufReader<TcpStream>) -> anyhow::Result<u16> {
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            bail!("the connection was closed");
        }
        let line = line.trim_end();
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.split(' ').next().and_then(|code| code.parse().ok());
        } else if let Some(rest) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = rest.trim().parse()?;
        } else if line.is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length])?;
    match status.context("no status")? {
        status @ (202 | 429) => Ok(status),
        status => bail!("an answer of {status}"),
    }
}
