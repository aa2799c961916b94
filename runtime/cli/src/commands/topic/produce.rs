use std::io::{BufRead, Read};

use clap::Args;
use serde_json::{Map, Value, json};
use wasmill_control::records;
use wasmill_env::{Clock, RealClock};
use wasmill_model::{Batch, BatchBuilder, Timestamp};
use wasmill_store::{Append, Topic};

use super::{NameArgs, failure};
use crate::failure::Failure;
use crate::terminal::{Terminal, count};

/// Records that are appended together.
const ROWS_MAX: usize = 10_000;
const BYTES_MAX: usize = 4 << 20;
const LINE_BYTES_MAX: u64 = 16 << 20;

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

pub(super) fn produce(args: &ProduceArgs, terminal: &Terminal) -> Result<(), Failure> {
    if let Some(pointer) = args.key.as_deref().filter(|pointer| !pointer.starts_with('/')) {
        return Err(Failure::wrong(format!("--key {pointer:?} is no JSON pointer"))
            .hint("write it as in a job file, such as /bridge; --fixed-key gives every record the same key"));
    }
    let topic = args.name.open()?;
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
            append(&topic, args, std::mem::take(&mut batch).finish(0), &mut records)?;
            return Err(Failure::failed(format!("line {number} has more than {LINE_BYTES_MAX} bytes")));
        }
        if read > 0 {
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let text = text.strip_suffix(b"\r").unwrap_or(text);
            if let Err(reason) = push(args, text, clock.wall(), &mut batch) {
                append(&topic, args, std::mem::take(&mut batch).finish(0), &mut records)?;
                return Err(Failure::failed(format!("line {number}: {reason}"))
                    .hint(format!("appended before it: {}", count(records, "record"))));
            }
        }
        // What is there goes out before anything is waited for.
        let full = batch.len() >= ROWS_MAX || batch.byte_len() >= BYTES_MAX;
        if !batch.is_empty() && (full || read == 0 || input.buffer().is_empty()) {
            append(&topic, args, std::mem::take(&mut batch).finish(0), &mut records)?;
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

fn append(topic: &Topic, args: &ProduceArgs, rows: Batch, records: &mut u64) -> Result<(), Failure> {
    let count = rows.len() as u64;
    let dealt = match args.partition {
        Some(partition) => vec![(partition, rows)],
        None => topic.deal(&rows, *records),
    };
    let appends: Vec<Append> =
        dealt.into_iter().map(|(partition, rows)| Append { partition, rows, producer: None }).collect();
    topic.append_blocking(&appends).map_err(failure)?;
    *records += count;
    Ok(())
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
