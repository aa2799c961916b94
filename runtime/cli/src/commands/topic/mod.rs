//! `wasmill topic`: topics of the embedded log, for people and scripts.

mod consume;
mod produce;

use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wasmill_model::{GroupName, TopicName};
use wasmill_spec::{ByteSize, Period};
use wasmill_store::{Topic, TopicConfig, TopicError};

use crate::commands::DataArgs;
use crate::failure::Failure;
use crate::terminal::{Table, Terminal, bytes, count, grouped};

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

pub(super) fn topic(args: TopicArgs, terminal: &Terminal) -> Result<(), Failure> {
    match args.command {
        TopicCommand::Ls { data } => list(&data, terminal),
        TopicCommand::Create(args) => create(&args, terminal),
        TopicCommand::Describe(args) => describe(&args, terminal),
        TopicCommand::Produce(args) => produce::produce(&args, terminal),
        TopicCommand::Consume(args) => consume::consume(&args, terminal),
        TopicCommand::Compact(args) => compact(&args, terminal),
        TopicCommand::Delete { name, group } => delete(&name, group, terminal),
    }
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

fn list(data: &DataArgs, terminal: &Terminal) -> Result<(), Failure> {
    let topics = data.topics();
    let mut table = Table::new(&["topic", "partitions", "records", "size"]);
    let mut values = Vec::new();
    let mut damaged = None;
    for name in topics.list().map_err(failure)? {
        let stats = match topics.open(&name).and_then(|topic| topic.stats()) {
            // Deleted meanwhile.
            Err(TopicError::Missing { .. }) => continue,
            // The others are listed all the same.
            Err(error) => {
                values.push(json!({"topic": name, "error": error.to_string()}));
                table.row([name.to_string(), "?".into(), "?".into(), "?".into()]);
                damaged.get_or_insert(error);
                continue;
            }
            Ok(stats) => stats,
        };
        let records: u64 = stats.iter().map(|partition| partition.end - partition.start).sum();
        let size: u64 = stats.iter().map(|partition| partition.bytes).sum();
        values.push(json!({"topic": name, "partitions": stats.len(), "records": records, "bytes": size}));
        table.row([name.to_string(), stats.len().to_string(), grouped(records), bytes(size)]);
    }
    if terminal.json {
        terminal.print_json(&Value::Array(values))?;
    } else if values.is_empty() {
        terminal
            .say(&format!("there is no topic in {}; `wasmill topic create NAME` makes one", topics.dir().display()));
    } else {
        terminal.print(&table.render("", terminal.out))?;
    }
    damaged.map_or(Ok(()), |error| Err(failure(error)))
}

fn create(args: &CreateArgs, terminal: &Terminal) -> Result<(), Failure> {
    let default = TopicConfig::default();
    let micros = |period: Period| period.micros().unsigned_abs();
    let config = TopicConfig {
        partitions: args.partitions,
        retention_micros: args.retention.map(micros),
        retention_bytes: args.retention_bytes.map(ByteSize::bytes),
        compact: args.compact,
        tombstone_grace_micros: args.tombstone_grace.map_or(default.tombstone_grace_micros, micros),
        segment_bytes: args.segment_bytes.map_or(default.segment_bytes, ByteSize::bytes),
    };
    let name = &args.name.topic;
    args.name.data.topics().create(name, config).map_err(failure)?;
    if terminal.json {
        return terminal.print_json(&json!({"topic": name, "partitions": config.partitions}));
    }
    terminal.print(&format!("made topic {name} with {}", count(u64::from(config.partitions), "partition")))
}

/// Settings in the words of `create`.
fn settings(config: &TopicConfig) -> String {
    let mut say = Vec::new();
    if let Some(age) = config.retention_micros {
        say.push(format!("keeps records for {}", Period::from_micros(age)));
    }
    if let Some(size) = config.retention_bytes {
        say.push(format!("keeps {} a partition", ByteSize::from_bytes(size)));
    }
    if config.compact {
        let grace = Period::from_micros(config.tombstone_grace_micros);
        say.push(format!("keeps the last record of each key, empty ones for {grace}"));
    }
    if say.is_empty() { "keeps everything".to_owned() } else { say.join("; ") }
}

fn describe(args: &NameArgs, terminal: &Terminal) -> Result<(), Failure> {
    let topic = args.open()?;
    let config = topic.config();
    let stats = topic.stats().map_err(failure)?;
    let mut table = Table::new(&["partition", "first", "end", "files", "size", "producers"]);
    let mut partitions = Vec::new();
    for (number, partition) in stats.iter().enumerate() {
        table.row([
            number.to_string(),
            partition.start.to_string(),
            partition.end.to_string(),
            partition.segments.to_string(),
            bytes(partition.bytes),
            partition.producers.to_string(),
        ]);
        partitions.push(json!({
            "partition": number,
            "first": partition.start,
            "end": partition.end,
            "files": partition.segments,
            "bytes": partition.bytes,
            "producers": partition.producers,
        }));
    }
    let mut behind = Table::new(&["group", "partition", "offset", "behind"]);
    let mut groups = Vec::new();
    for group in topic.groups().map_err(failure)? {
        for (partition, offset) in topic.committed(&group).map_err(failure)? {
            let end = stats.get(partition as usize).map_or(0, |partition| partition.end);
            let lag = end.saturating_sub(offset);
            behind.row([group.to_string(), partition.to_string(), offset.to_string(), grouped(lag)]);
            groups.push(json!({"group": group, "partition": partition, "offset": offset, "behind": lag}));
        }
    }
    if terminal.json {
        return terminal.print_json(&json!({
            "topic": args.topic,
            "retention_micros": config.retention_micros,
            "retention_bytes": config.retention_bytes,
            "compact": config.compact,
            "tombstone_grace_micros": config.tombstone_grace_micros,
            "segment_bytes": config.segment_bytes,
            "partitions": partitions,
            "groups": groups,
        }));
    }
    let mut text = format!("{}: {}\n", terminal.out.bold(args.topic.as_str()), settings(config));
    text.push_str(&table.render("  ", terminal.out));
    if !groups.is_empty() {
        text.push_str(&behind.render("  ", terminal.out));
    }
    terminal.print(&text)
}

fn compact(args: &NameArgs, terminal: &Terminal) -> Result<(), Failure> {
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

fn delete(args: &NameArgs, group: Option<GroupName>, terminal: &Terminal) -> Result<(), Failure> {
    let (said, what) = match group {
        Some(group) => {
            let topic = args.open()?;
            if !topic.groups().map_err(failure)?.contains(&group) {
                return Err(Failure::wrong(format!("topic {} has no group {group}", args.topic)));
            }
            topic.forget(&group).map_err(failure)?;
            (format!("forgot group {group} of topic {}", args.topic), json!({"topic": args.topic, "group": group}))
        }
        None => {
            args.data.topics().delete(&args.topic).map_err(failure)?;
            (format!("deleted topic {}", args.topic), json!({"topic": args.topic}))
        }
    };
    if terminal.json { terminal.print_json(&what) } else { terminal.print(&said) }
}
