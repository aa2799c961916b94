//! `wasmill savepoint`: a job's committed state as one file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wasmill_control::identity;
use wasmill_control::local::Request;
use wasmill_env::{Clock, Disk, RealClock, RealDisk};
use wasmill_store::{Held, JobStore, StoreError, StoreOptions, Summary};

use super::{remote, service};
use crate::failure::Failure;
use crate::remote::ServerArgs;
use crate::terminal::{Table, Terminal, bytes, count, grouped};

/// How names of savepoints end.
const ENDING: &str = ".savepoint";
/// Memory that making one takes: entries are not read into it.
const CACHE_BYTES: u64 = 64 << 20;

#[derive(Debug, Args)]
pub(super) struct SavepointArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write what a job has committed to one file, while it runs or once it has stopped
    Create(CreateArgs),
    /// List the savepoints that lie with a job's state
    Ls(LsArgs),
    /// Show what a savepoint holds, and check every byte of it
    Inspect(InspectArgs),
    /// Make a state directory of a savepoint
    Restore(RestoreArgs),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The state directory of the job
    #[arg(long, value_name = "DIR", required_unless_present = "job")]
    state: Option<PathBuf>,
    /// The job of a service; FILE is the name of the savepoint then
    #[arg(long, value_name = "JOB", conflicts_with = "state")]
    job: Option<String>,
    /// The file to write, in place of one that is there [default: DIR/savepoints/epoch-N.savepoint]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct LsArgs {
    /// The state directory of the job
    #[arg(long, value_name = "DIR", required_unless_present = "job")]
    state: Option<PathBuf>,
    /// The job of a service
    #[arg(long, value_name = "JOB", conflicts_with = "state")]
    job: Option<String>,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// The savepoint
    file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Then run the job with `wasmill run JOB --state DIR`: at any parallelism, with its state in \
                        memory or on disk. Stages are matched by name, and their state spaces by name and version; \
                        --allow-dropped forgets what the job has no more.")]
struct RestoreArgs {
    /// The savepoint
    file: PathBuf,
    /// The state directory to make: empty, or not there yet
    #[arg(long, value_name = "DIR", required_unless_present = "job")]
    state: Option<PathBuf>,
    /// The job of a service, which goes back to its savepoint FILE
    #[arg(long, value_name = "JOB", conflicts_with = "state")]
    job: Option<String>,
}

pub(super) fn savepoint(args: &SavepointArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let at_service = |job: &str, verb: &str, name: Option<&Path>| {
        let name = name.map(|name| name.to_string_lossy());
        service::savepoint(job, verb, name.as_deref(), server, terminal)
    };
    match &args.command {
        Command::Create(CreateArgs { job: Some(job), file, .. }) => at_service(job, "create", file.as_deref()),
        Command::Ls(LsArgs { job: Some(job), .. }) => at_service(job, "ls", None),
        Command::Restore(RestoreArgs { job: Some(job), file, .. }) => at_service(job, "restore", Some(file)),
        Command::Create(CreateArgs { state, file, .. }) => create(&here(state)?, file.as_deref(), terminal),
        Command::Ls(LsArgs { state, .. }) => ls(&here(state)?, terminal),
        Command::Inspect(args) => inspect(args, terminal),
        Command::Restore(RestoreArgs { state, file, .. }) => restore(file, &here(state)?, terminal),
    }
}

/// The state directory.
fn here(state: &Option<PathBuf>) -> Result<PathBuf, Failure> {
    state
        .clone()
        .ok_or_else(|| Failure::wrong("name the state directory with --state, or a job of a service with --job"))
}

fn failed(error: &StoreError) -> Failure {
    Failure::of(error.kind(), error)
}

fn folder(state: &Path) -> PathBuf {
    state.join("savepoints")
}

fn create(state: &Path, named: Option<&Path>, terminal: &Terminal) -> Result<(), Failure> {
    if !state.is_dir() {
        return Err(Failure::wrong(format!("there is no state directory {}", state.display())));
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let file = named.map(std::path::absolute).transpose();
    let file = file.map_err(|error| Failure::failed(format!("cannot find the working directory: {error}")))?;
    if let Some(above) = file.as_deref().and_then(Path::parent) {
        disk.create_dir_all(above).map_err(|error| Failure::file("make", above, &error))?;
    }
    if let Some(made) = remote::asked(state, &Request::Savepoint { file })? {
        return created(&made, terminal);
    }
    let options = StoreOptions::on_disk(CACHE_BYTES);
    let (mut store, _) = JobStore::open(Arc::clone(&disk), state, options).map_err(|error| failed(&error))?;
    let epoch = store.epoch();
    if epoch.0 == 0 {
        return Err(Failure::wrong(format!("{} holds no committed epoch", state.display())));
    }
    let file = match named {
        Some(file) => file.to_owned(),
        None => folder(state).join(format!("epoch-{epoch}{ENDING}")),
    };
    let above = file.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        disk.create_dir_all(above).map_err(|error| Failure::file("make", above, &error))?;
    }
    let compaction = store.begin_compaction().map_err(|error| failed(&error))?;
    compaction.export(&file).map_err(|error| failed(&error))?;
    store.close().map_err(|error| failed(&error))?;
    let length = std::fs::metadata(&file).map_err(|error| Failure::file("read", &file, &error))?.len();
    created(&json!({"file": file, "epoch": epoch, "bytes": length}), terminal)
}

/// Says what was made.
fn created(made: &Value, terminal: &Terminal) -> Result<(), Failure> {
    if terminal.json {
        return terminal.print_json(made);
    }
    let (file, length) = (made["file"].as_str().unwrap_or_default(), made["bytes"].as_u64().unwrap_or(0));
    terminal.print(&format!("{file}: epoch {}, {}", made["epoch"], bytes(length)))
}

fn ls(state: &Path, terminal: &Terminal) -> Result<(), Failure> {
    let folder = folder(state);
    let names = match RealDisk.list(&folder) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::file("list", &folder, &error)),
    };
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| name.ends_with(ENDING)) {
        let file = folder.join(name);
        let (epoch, length) = JobStore::savepoint_epoch(&RealDisk, &file).map_err(|error| failed(&error))?;
        found.push((epoch, length, file));
    }
    found.sort();
    if terminal.json {
        let one = |(epoch, length, file): &(_, _, PathBuf)| json!({"file": file, "epoch": epoch, "bytes": length});
        return terminal.print_json(&json!({"savepoints": found.iter().map(one).collect::<Vec<_>>()}));
    }
    if found.is_empty() {
        return terminal.print(&format!("no savepoints in {}", folder.display()));
    }
    let mut table = Table::new(&["epoch", "size", "file"]);
    for (epoch, length, file) in found {
        table.row([epoch.to_string(), bytes(length), file.display().to_string()]);
    }
    terminal.print(table.render("", terminal.out).trim_end())
}

fn inspect(args: &InspectArgs, terminal: &Terminal) -> Result<(), Failure> {
    let summary = JobStore::inspect(&RealDisk, &args.file).map_err(|error| failed(&error))?;
    let facts = identity::remembered(&summary.meta).map_err(|error| Failure::of(error.kind(), &error))?;
    if terminal.json {
        return terminal.print_json(&to_json(&summary, &facts));
    }
    terminal.print(to_text(&summary, &facts, terminal).trim_end())
}

fn held(held: Held) -> Value {
    json!({"entries": held.entries, "bytes": held.bytes})
}

/// The name of a space, or its number where the job says nothing about it.
fn space_name(facts: &identity::Remembered, stage: &wasmill_model::NodeName, number: u16) -> String {
    let known = facts.stages.get(stage).and_then(|stage| stage.spaces.get(usize::from(number))?.clone());
    known.map_or_else(|| number.to_string(), |(name, _)| name)
}

fn to_json(summary: &Summary, facts: &identity::Remembered) -> Value {
    let mut stages = serde_json::Map::new();
    for name in facts.stages.keys().chain(summary.stages.keys()) {
        let counted = summary.stages.get(name).cloned().unwrap_or_default();
        let of_name = |(number, held_): (&u16, &Held)| (space_name(facts, name, *number), held(*held_));
        let spaces: serde_json::Map<String, Value> = counted.spaces.iter().map(of_name).collect();
        let plugin = facts.stages.get(name).map(|stage| stage.plugin.clone());
        let (timers, panes) = (held(counted.timers), held(counted.panes));
        stages.insert(
            name.to_string(),
            json!({"plugin": plugin, "spaces": spaces, "timers": timers, "accumulators": panes}),
        );
    }
    let position = |position: &wasmill_store::PositionRecord| {
        json!({
            "source": position.node,
            "partition": position.partition,
            "position": String::from_utf8_lossy(&position.position.0),
        })
    };
    let sink = |sink: &wasmill_store::SinkRecord| {
        let handle = String::from_utf8_lossy(&sink.handle);
        json!({"sink": sink.node, "share": sink.share, "shares": sink.shares, "handle": handle})
    };
    json!({
        "job": facts.job,
        "epoch": summary.epoch,
        "bytes": summary.bytes,
        "finished": facts.finished,
        "stages": stages,
        "positions": summary.positions.iter().map(position).collect::<Vec<_>>(),
        "sinks": summary.sinks.iter().map(sink).collect::<Vec<_>>(),
        "dead_letters": summary.dead_letters,
    })
}

fn to_text(summary: &Summary, facts: &identity::Remembered, terminal: &Terminal) -> String {
    let job = facts.job.as_deref().unwrap_or("a job");
    let finished = if facts.finished { ", finished" } else { "" };
    let mut text = format!(
        "{} at epoch {}{finished}: {}, {}\n",
        terminal.out.bold(job),
        summary.epoch,
        bytes(summary.bytes),
        count(summary.dead_letters, "dead letter"),
    );
    let mut table = Table::new(&["stage", "what", "entries", "size"]);
    for (name, stage) in &summary.stages {
        let spaces = stage.spaces.iter().map(|(number, held)| (space_name(facts, name, *number), *held));
        let others = [("timers", stage.timers), ("accumulators", stage.panes)];
        let others = others.into_iter().filter(|(_, held)| held.entries > 0);
        for (what, held) in spaces.chain(others.map(|(what, held)| (what.to_owned(), held))) {
            table.row([name.to_string(), what, grouped(held.entries), bytes(held.bytes)]);
        }
    }
    if !summary.stages.is_empty() {
        text.push_str(&table.render("  ", terminal.out));
    }
    let mut table = Table::new(&["node", "part", "where it goes on"]);
    for position in &summary.positions {
        table.row([
            position.node.to_string(),
            format!("partition {}", position.partition.0),
            readable(&position.position.0),
        ]);
    }
    for sink in &summary.sinks {
        let writer = format!("writer {} of {}", sink.share + 1, sink.shares);
        table.row([sink.node.to_string(), writer, readable(&sink.handle)]);
    }
    text.push_str(&table.render("  ", terminal.out));
    for (stage, fact) in &facts.stages {
        text.push_str(&format!("  plugin of {stage}: {}\n", fact.plugin));
    }
    text
}

/// Bytes of a connector, which are text with most.
fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|letter| if letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }).collect()
}

fn restore(file: &Path, state: &Path, terminal: &Terminal) -> Result<(), Failure> {
    let (epoch, _) = JobStore::savepoint_epoch(&RealDisk, file).map_err(|error| failed(&error))?;
    let now = RealClock::default().wall().0.cast_unsigned();
    JobStore::import(&RealDisk, file, state, now).map_err(|error| failed(&error))?;
    if terminal.json {
        return terminal.print_json(&json!({"state": state, "epoch": epoch}));
    }
    let state = state.display();
    terminal.print(&format!("{state}: epoch {epoch}; `wasmill run JOB --state {state}` goes on from there"))
}
