//! `wasmill why`: why a window is open, a partition lags, a row was late.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use wasmill_control::local::Request;
use wasmill_model::{NodeName, Timestamp};

use super::{remote, service};
use crate::failure::Failure;
use crate::remote::ServerArgs;
use crate::terminal::{Style, Terminal, bytes, count, text};

#[derive(Debug, Args)]
#[command(after_help = "Without a node: what is worth saying of each. docs/ordering.md says how to read it.")]
pub(super) struct WhyArgs {
    /// The job: the state directory that it runs with; with --server its name
    #[arg(value_name = "JOB")]
    job: PathBuf,
    /// A source, stage or sink
    node: Option<String>,
}

pub(super) fn why(args: &WhyArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let named = |name: &String| NodeName::new(name).map_err(|error| Failure::wrong(format!("{name:?}: {error}")));
    let node = args.node.as_ref().map(named).transpose()?;
    let answer = match server.is_set() {
        true => service::why(&args.job.to_string_lossy(), node.as_ref(), server)?,
        false => remote::ask(&args.job, &Request::Why { node })?,
    };
    if terminal.json {
        return terminal.print_json(&answer);
    }
    terminal.print(&told(&answer, terminal.out))
}

fn told(answer: &Value, style: Style) -> String {
    let mut said = format!("{}: {}\n", style.bold(text(&answer["job"])), text(&answer["state"]));
    if let Some(why) = answer["over_budget"].as_str() {
        said.push_str(&format!("  {why}\n"));
    }
    for node in list(&answer["nodes"]) {
        let watermark = match node["watermark_micros"].as_i64() {
            Some(micros) => format!("watermark {}", Timestamp(micros)),
            None if node["held_back_by"].is_null() => "all of its input has ended".to_owned(),
            None => "no watermark yet".to_owned(),
        };
        said.push_str(&format!("  {} ({}): {watermark}\n", style.bold(text(&node["name"])), text(&node["kind"])));
        let mut line = |what: &str, value: String| said.push_str(&format!("    {what:<10} {value}\n"));
        let holder = &node["held_back_by"];
        if !holder.is_null() && holder["node"] != node["name"] {
            let partition = partition(&holder["partition"], &holder["partition_name"]);
            line("held by", format!("{}{partition}: {}", text(&holder["node"]), text(&holder["reason"])));
        }
        for at in list(&node["partitions"]) {
            let who = partition(&at["partition"], &at["name"]);
            line("partition", format!("{}: {}", who.trim_start_matches(", partition "), text(&at["reason"])));
        }
        if let Some(hint) = holder["hint"].as_str() {
            line("", format!("{} {hint}", style.dim("->")));
        }
        for buffer in list(&node["buffers"]) {
            let held = buffer["held"].as_u64().unwrap_or(0);
            let mut size = bytes(buffer["bytes"].as_u64().unwrap_or(0));
            if let Some(on_disk) = buffer["on_disk"].as_u64().filter(|rows| *rows > 0) {
                size.push_str(&format!(", and {} on disk", count(on_disk, "row")));
            }
            let task = &buffer["task"];
            line(
                "buffer",
                format!("of task {task}: {} held ({size}); {}", count(held, "row"), text(&buffer["reason"])),
            );
        }
        for window in list(&node["windows"]["open"]) {
            let bounds = match (window["start_micros"].as_i64(), window["end_micros"].as_i64()) {
                (Some(start), Some(end)) => format!("{} to {} of ", Timestamp(start), Timestamp(end)),
                _ => "of ".to_owned(),
            };
            line("window", format!("{bounds}{}: {}", key(window), text(&window["reason"])));
        }
        if let Some(held) = node["windows"]["held"].as_u64() {
            line("", format!("{} held in all open windows", count(held, "accumulator")));
        }
        for late in list(&node["late"]) {
            let from = match (late["source"].as_str(), late["offset"].as_u64()) {
                (Some(source), Some(offset)) => format!(", {source} {}:{offset}", late["partition"]),
                _ => String::new(),
            };
            let time = Timestamp(late["time_micros"].as_i64().unwrap_or(0));
            line("late", format!("{time} of {}{from}: {}", key(late), text(&late["reason"])));
        }
    }
    for task in list(&answer["silent"]) {
        said.push_str(&format!("  {} task {}: {}\n", text(&task["node"]), task["task"], text(&task["reason"])));
    }
    said
}

fn partition(number: &Value, name: &Value) -> String {
    match (number.as_u64(), name.as_str()) {
        (Some(number), Some(name)) if !name.is_empty() => format!(", partition {number} ({name})"),
        (Some(number), _) => format!(", partition {number}"),
        (None, _) => String::new(),
    }
}

fn key(of: &Value) -> String {
    match text(&of["key"]) {
        "" => "no key".to_owned(),
        key => format!("key {key:?}"),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
