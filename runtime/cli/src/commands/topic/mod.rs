//! `wasmill topic`: topics of the embedded log, for people and scripts.

mod consume;
mod produce;

use std::sync::Arc;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use wasmill_control::topics::{self, TopicView};
use wasmill_model::{GroupName, TopicName};
use wasmill_spec::{ByteSize, Period};
use wasmill_store::{Topic, TopicConfig, TopicError};

use crate::commands::{DataArgs, service};
use crate::failure::Failure;
use crate::remote::{Body, ServerArgs};
use crate::terminal::{Table, Terminal, bytes, count, grouped, items, text};

#[derive(Debug, Args)]
pub(super) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, Subcommand)]
enum TopicCommand {
    /// List topics
    Ls {
        #[command(flatten)]
        data: DataArgs,
    },
    /// Make a topic
    Create(CreateArgs),
    /// Show partitions, groups and settings of a topic
    Describe(NameArgs),
    /// Append records, one a line of standard input
    Produce(produce::ProduceArgs),
    /// Print records
    Consume(consume::ConsumeArgs),
    /// Remove what retention and compaction allow, now
    Compact(NameArgs),
    /// Remove a topic with everything in it, or make it forget a group
    Delete {
        #[command(flatten)]
        name: NameArgs,
        /// Forget how far this group is, and keep the topic
        #[arg(long, value_name = "GROUP", value_parser = group_name)]
        group: Option<GroupName>,
    },
}

#[derive(Debug, Args)]
struct NameArgs {
    /// The topic
    #[arg(value_parser = topic_name)]
    topic: TopicName,
    #[command(flatten)]
    data: DataArgs,
}

impl NameArgs {
    fn open(&self) -> Result<Arc<Topic>, Failure> {
        self.data.topics().open(&self.topic).map_err(failure)
    }
}

#[derive(Debug, Args)]
struct CreateArgs {
    #[command(flatten)]
    name: NameArgs,
    /// How many partitions, for good
    #[arg(long, default_value_t = 1, value_name = "N")]
    partitions: u32,
    /// Remove records that were appended longer ago, such as 7d
    #[arg(long, value_name = "TIME")]
    retention: Option<Period>,
    /// Remove the oldest records of a partition that holds more, such as 10GiB
    #[arg(long, value_name = "BYTES")]
    retention_bytes: Option<ByteSize>,
    /// Keep only the last record of each key; an empty value removes the key
    #[arg(long)]
    compact: bool,
    /// How long compaction keeps an empty value, for readers that are behind
    #[arg(long, value_name = "TIME", requires = "compact")]
    tombstone_grace: Option<Period>,
    /// Bytes at which a file of records ends, the unit of removal
    #[arg(long, value_name = "BYTES")]
    segment_bytes: Option<ByteSize>,
}

pub(super) fn topic(args: TopicArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    match args.command {
        TopicCommand::Ls { data } => list(&data, server, terminal),
        TopicCommand::Create(args) => create(&args, server, terminal),
        TopicCommand::Describe(args) => describe(&args, server, terminal),
        TopicCommand::Produce(args) => produce::produce(&args, server, terminal),
        TopicCommand::Consume(args) => consume::consume(&args, server, terminal),
        TopicCommand::Compact(args) => compact(&args, server, terminal),
        TopicCommand::Delete { name, group } => delete(&name, group, server, terminal),
    }
}

/// What can be done to the topics of this machine alone.
fn only_here(what: &str) -> Failure {
    Failure::wrong(format!("{what} is for topics of this machine, and --server or WASMILL_SERVER names a service"))
}

fn topic_name(text: &str) -> Result<TopicName, String> {
    TopicName::new(text).map_err(|error| error.to_string())
}

fn group_name(text: &str) -> Result<GroupName, String> {
    GroupName::new(text).map_err(|error| error.to_string())
}

/// What a topic says, with what to do about it.
fn failure(error: TopicError) -> Failure {
    let failure = Failure::of(error.kind(), &error);
    match &error {
        TopicError::Missing { name, .. } => {
            failure.hint(format!("`wasmill topic create {name}` makes it; --data names another place"))
        }
        TopicError::Gone { .. } => failure.hint("--from earliest begins at the first record there is"),
        _ => failure,
    }
}

fn list(data: &DataArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let topics = data.topics();
    let found = if server.is_set() {
        service::ask(server, Method::GET, "/v1/topics", Body::Nothing)?
    } else {
        json!(topics::list(&topics).map_err(failure)?)
    };
    let mut table = Table::new(&["topic", "partitions", "records", "size"]);
    let mut damaged = None;
    let all = items(&found);
    for topic in all {
        let name = text(&topic["topic"]).to_owned();
        let number = |key: &str| topic[key].as_u64().unwrap_or(0);
        if let Some(error) = topic["error"].as_str() {
            // The others are listed all the same.
            table.row([name, "?".into(), "?".into(), "?".into()]);
            damaged.get_or_insert(error);
        } else {
            table.row([name, number("partitions").to_string(), grouped(number("records")), bytes(number("bytes"))]);
        }
    }
    if terminal.json {
        terminal.print_json(&found)?;
    } else if all.is_empty() {
        let place = server.server.clone().unwrap_or_else(|| topics.dir().display().to_string());
        terminal.say(&format!("there is no topic in {place}; `wasmill topic create NAME` makes one"));
    } else {
        terminal.print(&table.render("", terminal.out))?;
    }
    damaged.map_or(Ok(()), |error| Err(Failure::failed(error)))
}

fn create(args: &CreateArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let name = &args.name.topic;
    let micros = |period: Period| period.micros().unsigned_abs();
    if server.is_set() {
        if args.segment_bytes.is_some() {
            return Err(only_here("--segment-bytes"));
        }
        let wanted = json!({
            "topic": name,
            "partitions": args.partitions,
            "retention_micros": args.retention.map(micros),
            "retention_bytes": args.retention_bytes.map(ByteSize::bytes),
            "compact": args.compact,
            "tombstone_grace_micros": args.tombstone_grace.map(micros),
        });
        service::ask(server, Method::POST, "/v1/topics", Body::Json(wanted))?;
    } else {
        let default = TopicConfig::default();
        let config = TopicConfig {
            partitions: args.partitions,
            retention_micros: args.retention.map(micros),
            retention_bytes: args.retention_bytes.map(ByteSize::bytes),
            compact: args.compact,
            tombstone_grace_micros: args.tombstone_grace.map_or(default.tombstone_grace_micros, micros),
            segment_bytes: args.segment_bytes.map_or(default.segment_bytes, ByteSize::bytes),
        };
        args.name.data.topics().create(name, config).map_err(failure)?;
    }
    if terminal.json {
        return terminal.print_json(&json!({"topic": name, "partitions": args.partitions}));
    }
    terminal.print(&format!("made topic {name} with {}", count(u64::from(args.partitions), "partition")))
}

/// Settings in the words of `create`.
fn settings(topic: &Value) -> String {
    let mut say = Vec::new();
    if let Some(age) = topic["retention_micros"].as_u64() {
        say.push(format!("keeps records for {}", Period::from_micros(age)));
    }
    if let Some(size) = topic["retention_bytes"].as_u64() {
        say.push(format!("keeps {} a partition", ByteSize::from_bytes(size)));
    }
    if topic["compact"] == true {
        let grace = Period::from_micros(topic["tombstone_grace_micros"].as_u64().unwrap_or(0));
        say.push(format!("keeps the last record of each key, empty ones for {grace}"));
    }
    if say.is_empty() { "keeps everything".to_owned() } else { say.join("; ") }
}

/// A topic of a service, as it says.
fn view(topic: &TopicName, server: &ServerArgs) -> Result<Value, Failure> {
    service::ask(server, Method::GET, &format!("/v1/topics/{topic}"), Body::Nothing)
}

fn describe(args: &NameArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let topic = if server.is_set() {
        view(&args.topic, server)?
    } else {
        json!(TopicView::of(&*args.open()?).map_err(failure)?)
    };
    if terminal.json {
        return terminal.print_json(&topic);
    }
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let mut table = Table::new(&["partition", "first", "end", "files", "size", "producers"]);
    for partition in topic["partitions"].as_array().into_iter().flatten() {
        let cell = |key: &str| partition[key].to_string();
        let size = bytes(number(&partition["bytes"]));
        table.row([cell("partition"), cell("first"), cell("end"), cell("files"), size, cell("producers")]);
    }
    let mut said = format!("{}: {}\n", terminal.out.bold(args.topic.as_str()), settings(&topic));
    said.push_str(&table.render("  ", terminal.out));
    let groups = items(&topic["groups"]);
    let mut behind = Table::new(&["group", "partition", "offset", "behind"]);
    for group in groups {
        let lag = grouped(number(&group["behind"]));
        behind.row([
            text(&group["group"]).to_owned(),
            group["partition"].to_string(),
            group["offset"].to_string(),
            lag,
        ]);
    }
    if !groups.is_empty() {
        said.push_str(&behind.render("  ", terminal.out));
    }
    terminal.print(&said)
}

fn compact(args: &NameArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    if server.is_set() {
        return Err(only_here("compact").hint("a service compacts its topics by itself, after appends"));
    }
    let done = args.open()?.maintain().map_err(failure)?;
    if terminal.json {
        return terminal.print_json(&json!({
            "topic": args.topic,
            "expired_files": done.expired_segments,
            "compacted_files": done.compacted_segments,
            "records_removed": done.records_removed,
            "bytes_freed": done.bytes_freed,
        }));
    }
    terminal.print(&format!(
        "{}: {} expired; {} compacted, {} removed; {} freed",
        args.topic,
        count(done.expired_segments, "file"),
        count(done.compacted_segments, "file"),
        count(done.records_removed, "record"),
        bytes(done.bytes_freed)
    ))
}

fn delete(args: &NameArgs, group: Option<GroupName>, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let path = format!("/v1/topics/{}", args.topic);
    let (said, what) = match group {
        Some(group) => {
            if server.is_set() {
                service::ask(server, Method::DELETE, &format!("{path}/groups/{group}"), Body::Nothing)?;
            } else {
                let topic = args.open()?;
                if !topic.groups().map_err(failure)?.contains(&group) {
                    return Err(Failure::wrong(format!("topic {} has no group {group}", args.topic)));
                }
                topic.forget(&group).map_err(failure)?;
            }
            (format!("forgot group {group} of topic {}", args.topic), json!({"topic": args.topic, "group": group}))
        }
        None => {
            if server.is_set() {
                service::ask(server, Method::DELETE, &path, Body::Nothing)?;
            } else {
                args.data.topics().delete(&args.topic).map_err(failure)?;
            }
            (format!("deleted topic {}", args.topic), json!({"topic": args.topic}))
        }
    };
    if terminal.json { terminal.print_json(&what) } else { terminal.print(&said) }
}
