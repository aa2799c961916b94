use std::io::{BufRead, Read};
use std::sync::Arc;

use clap::Args;
use hyper::Method;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use wasmill_control::records;
use wasmill_env::{Clock, RealClock};
use wasmill_model::{Batch, BatchBuilder, Timestamp};
use wasmill_store::{Append, Topic};

use super::{NameArgs, failure};
use crate::commands::small_runtime;
use crate::failure::Failure;
use crate::remote::{Body, Client, ServerArgs};
use crate::terminal::{Terminal, count};

/// Records that are appended together.
const ROWS_MAX: usize = 10_000;
const BYTES_MAX: usize = 4 << 20;
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Bytes that a service is sent at once. It takes 4 MiB, and one record may be longer than this.
const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Args)]
#[command(after_help = "A line is a value without a key. Lines are appended as they come, together where many \
                        come at once; what was appended is durable.")]
pub(super) struct ProduceArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Every record has this key
    #[arg(long, value_name = "KEY", conflicts_with_all = ["key", "envelope"])]
    fixed_key: Option<String>,
    /// Values are JSON, and this JSON pointer finds the key in them, such as /bridge
    #[arg(long, value_name = "POINTER", conflicts_with = "envelope")]
    key: Option<String>,
    /// Lines are what `consume --json` prints: objects with `value`, and `key` and `time` where wanted
    #[arg(long)]
    envelope: bool,
    /// Append to this partition, whatever the keys
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
}

pub(super) fn produce(args: &ProduceArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    if let Some(pointer) = args.key.as_deref().filter(|pointer| !pointer.starts_with('/')) {
        return Err(Failure::wrong(format!("--key {pointer:?} is no JSON pointer"))
            .hint("write it as in a job file, such as /bridge; --fixed-key gives every record the same key"));
    }
    let log = Log::open(args, server)?;
    let clock = RealClock::default();
    let mut input = std::io::BufReader::new(std::io::stdin().lock());
    let (mut batch, mut line, mut number, mut records) = (BatchBuilder::default(), Vec::new(), 0_u64, 0_u64);
    loop {
        line.clear();
        let read = input
            .by_ref()
            .take(LINE_BYTES_MAX + 1)
            .read_until(b'\n', &mut line)
            .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
        number += 1;
        if line.len() as u64 > LINE_BYTES_MAX {
            log.append(args, &std::mem::take(&mut batch).finish(0), &mut records)?;
            return Err(Failure::failed(format!("line {number} has more than {LINE_BYTES_MAX} bytes")));
        }
        if read > 0 {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if let Err(reason) = push(args, text, clock.wall(), &mut batch) {
                log.append(args, &std::mem::take(&mut batch).finish(0), &mut records)?;
                return Err(Failure::failed(format!("line {number}: {reason}"))
                    .hint(format!("appended before it: {}", count(records, "record"))));
            }
        }
        // What is there goes out before anything is waited for.
        let full = batch.len() >= ROWS_MAX || batch.byte_len() >= BYTES_MAX;
        if !batch.is_empty() && (full || read == 0 || input.buffer().is_empty()) {
            log.append(args, &std::mem::take(&mut batch).finish(0), &mut records)?;
        }
        if read == 0 {
            break;
        }
    }
    if terminal.json {
        return terminal.print_json(&json!({"topic": args.name.topic, "records": records}));
    }
    terminal.say(&format!("appended {} to {}", count(records, "record"), args.name.topic));
    Ok(())
}

/// Where records go.
enum Log {
    /// A topic of this machine.
    Here(Arc<Topic>),
    /// A topic of a service.
    Service(Box<Remote>),
}

/// A topic of a service.
struct Remote {
    client: Client,
    runtime: Runtime,
    /// Where its records are.
    path: String,
}

impl Log {
    fn open(args: &ProduceArgs, server: &ServerArgs) -> Result<Self, Failure> {
        if !server.is_set() {
            return Ok(Self::Here(args.name.open()?));
        }
        let mut path = format!("/v1/topics/{}/records", args.name.topic);
        if let Some(partition) = args.partition {
            path.push_str(&format!("?partition={partition}"));
        }
        Ok(Self::Service(Box::new(Remote { client: server.client()?, runtime: small_runtime()?, path })))
    }

    /// Makes rows durable, and counts them.
    fn append(&self, args: &ProduceArgs, rows: &Batch, records: &mut u64) -> Result<(), Failure> {
        match self {
            Self::Here(topic) => {
                let dealt = match args.partition {
                    Some(partition) => vec![(partition, rows.clone())],
                    None => topic.deal(rows, *records),
                };
                let append = |(partition, rows)| Append { partition, rows, producer: None };
                let appends: Vec<Append> = dealt.into_iter().map(append).collect();
                topic.append_blocking(&appends).map_err(failure)?;
                *records += rows.len() as u64;
            }
            Self::Service(service) => {
                for (body, held) in bodies(records::lines(rows)) {
                    let body = Body::Bytes(body, "application/x-ndjson");
                    let sent = service.runtime.block_on(service.client.ask(Method::POST, &service.path, body));
                    sent.map_err(|failure| failure.hint(format!("appended before it: {}", count(*records, "record"))))?;
                    *records += held;
                }
            }
        }
        Ok(())
    }
}

/// Lines as a service is sent them, and how many each body holds.
fn bodies(lines: Vec<String>) -> Vec<(Vec<u8>, u64)> {
    let mut bodies: Vec<(Vec<u8>, u64)> = Vec::new();
    for line in lines {
        if bodies.last().is_none_or(|(body, _)| body.len() + line.len() >= BODY_BYTES_MAX) {
            bodies.push((Vec::new(), 0));
        }
        if let Some((body, held)) = bodies.last_mut() {
            body.extend_from_slice(line.as_bytes());
            body.push(b'\n');
            *held += 1;
        }
    }
    bodies
}

fn push(args: &ProduceArgs, line: &[u8], now: Timestamp, batch: &mut BatchBuilder) -> Result<(), String> {
    if args.envelope {
        let object: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| format!("an object was expected: {error}"))?;
        let (time, key, value) = records::read_envelope(&object, now)?;
        batch.push(time, &key, &value);
        return Ok(());
    }
    match (&args.fixed_key, &args.key) {
        (Some(key), _) => batch.push(now, key.as_bytes(), line),
        (None, None) => batch.push(now, b"", line),
        (None, Some(pointer)) => {
            let value: Value = serde_json::from_slice(line).map_err(|error| format!("JSON was expected: {error}"))?;
            let key = match value.pointer(pointer) {
                None | Some(Value::Null) => return Err(format!("there is no {pointer}")),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            batch.push(now, key.as_bytes(), line);
        }
    }
    Ok(())
}
