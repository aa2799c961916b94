use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;
use wasmill_control::records;
use wasmill_env::{Clock as _, RealClock};
use wasmill_model::{Batch, GroupName};
use wasmill_store::{GroupMember, ReadLimit, Topic, TopicError};

use super::{NameArgs, failure};
use crate::commands::{service, small_runtime};
use crate::failure::Failure;
use crate::remote::{Body, ServerArgs};
use crate::terminal::{Terminal, items};

/// Records that are printed, and whose offsets are committed, together.
const ROWS_MAX: usize = 1_000;
const BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Args)]
#[command(after_help = "With --group, members of the group share the partitions, each begins where the group has got \
                        to, and a record counts as consumed once it is printed.")]
pub(super) struct ConsumeArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Where to begin: earliest, latest or an offset
    #[arg(long, default_value_t, value_name = "WHERE")]
    from: From,
    /// Consume as a member of this group
    #[arg(long, value_name = "GROUP", value_parser = super::group_name)]
    group: Option<GroupName>,
    /// Only this partition
    #[arg(long, value_name = "N", conflicts_with = "group")]
    partition: Option<u32>,
    /// End after so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Go on at the end, and print what comes
    #[arg(long)]
    follow: bool,
}

#[derive(Debug, Clone, Copy, Default)]
enum From {
    #[default]
    Earliest,
    Latest,
    Offset(u64),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            offset => offset.parse().map(Self::Offset).map_err(|_| "write earliest, latest or an offset".to_owned()),
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Earliest => f.write_str("earliest"),
            Self::Latest => f.write_str("latest"),
            Self::Offset(offset) => write!(f, "{offset}"),
        }
    }
}

pub(super) fn consume(args: &ConsumeArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    if server.is_set() {
        return of_service(args, server, terminal);
    }
    let topic = args.name.open()?;
    let runtime = small_runtime()?;
    let mut consumer = Consumer { args, terminal, topic: &topic, next: BTreeMap::new(), left: args.limit };
    let mut member = args.group.as_ref().map(|group| topic.join(group)).transpose().map_err(failure)?;
    if member.is_none() {
        let partitions = match args.partition {
            Some(partition) => vec![partition],
            None => (0..topic.config().partitions).collect(),
        };
        consumer.take(partitions.into_iter(), &[])?;
    }
    loop {
        if let Some(member) = &mut member {
            consumer.rebalance(member)?;
        }
        let printed = consumer.turn()?;
        if consumer.left == Some(0) {
            return Ok(());
        }
        if printed {
            continue;
        }
        if !args.follow {
            return Ok(());
        }
        let waiting: Vec<(u32, u64)> = consumer.next.iter().map(|(partition, next)| (*partition, *next)).collect();
        // A member looks every now and then at who else is there.
        let patience = if member.is_some() { Duration::from_millis(500) } else { Duration::MAX };
        let waited = runtime.block_on(async { tokio::time::timeout(patience, topic.wait(&waiting)).await });
        if let Ok(woken) = waited {
            woken.map_err(failure)?;
        }
    }
}

/// Prints what a service has, a page of a partition at a time.
fn of_service(args: &ConsumeArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    if args.group.is_some() {
        let failure = super::only_here("--group");
        return Err(
            failure.hint("a job consumes a topic of a service as a group: connector = \"topic\", group = \"NAME\"")
        );
    }
    let topic = super::view(&args.name.topic, server)?;
    let (client, runtime, clock) = (server.client()?, small_runtime()?, RealClock::default());
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for partition in topic["partitions"].as_array().into_iter().flatten() {
        let number = |key: &str| partition[key].as_u64().unwrap_or(0);
        let from = match args.from {
            From::Earliest => number("first"),
            From::Latest => number("end"),
            From::Offset(offset) => offset,
        };
        if args.partition.is_none_or(|only| u64::from(only) == number("partition")) {
            next.insert(number("partition"), from);
        }
    }
    if let Some(partition) = args.partition.filter(|_| next.is_empty()) {
        return Err(Failure::wrong(format!("topic {} has no partition {partition}", args.name.topic)));
    }
    let mut left = args.limit;
    runtime.block_on(async {
        loop {
            let mut printed = false;
            for (partition, offset) in &mut next {
                let rows = left.unwrap_or(u64::MAX).min(ROWS_MAX as u64);
                if rows == 0 {
                    return Ok(());
                }
                let topic = &args.name.topic;
                let path = format!("/v1/topics/{topic}/records?partition={partition}&offset={offset}&limit={rows}");
                let page = client.ask(Method::GET, &path, Body::Nothing).await?;
                let records = items(&page["records"]);
                print_page(records, terminal)?;
                left = left.map(|left| left.saturating_sub(records.len() as u64));
                let after = page["next"].as_u64().unwrap_or(*offset);
                printed |= after > *offset;
                *offset = after;
            }
            match (printed, args.follow) {
                (true, _) => {}
                (false, true) => clock.sleep(service::LOOK_AGAIN).await,
                (false, false) => return Ok(()),
            }
        }
    })
}

fn print_page(records: &[Value], terminal: &Terminal) -> Result<(), Failure> {
    if records.is_empty() {
        return Ok(());
    }
    let mut said = String::new();
    for record in records {
        if terminal.json {
            said.push_str(&record.to_string());
        } else {
            let value = records::value(record);
            said.push_str(&String::from_utf8_lossy(&value));
        }
        said.push('\n');
    }
    terminal.print(&said)
}

struct Consumer<'a> {
    args: &'a ConsumeArgs,
    terminal: &'a Terminal,
    topic: &'a Topic,
    /// Where each partition goes on.
    next: BTreeMap<u32, u64>,
    /// Records still to print.
    left: Option<u64>,
}

impl Consumer<'_> {
    /// Begins with partitions: where the group is, or where the command line says.
    fn take(&mut self, partitions: impl Iterator<Item = u32>, committed: &[(u32, u64)]) -> Result<(), Failure> {
        for partition in partitions {
            if self.next.contains_key(&partition) {
                continue;
            }
            let (start, end) = self.topic.bounds_blocking(partition).map_err(failure)?;
            let known = committed.iter().find(|(other, _)| *other == partition).map(|(_, offset)| *offset);
            let first = match (known, self.args.from) {
                (Some(offset), _) | (None, From::Offset(offset)) => offset,
                (None, From::Earliest) => start,
                (None, From::Latest) => end,
            };
            self.next.insert(partition, first);
        }
        Ok(())
    }

    fn rebalance(&mut self, member: &mut GroupMember) -> Result<(), Failure> {
        // What was printed is committed, so others may go on at once.
        for partition in member.rebalance().map_err(failure)? {
            self.next.remove(&partition);
            member.release(partition);
        }
        let Some(group) = &self.args.group else { return Ok(()) };
        let held: Vec<u32> = member.partitions().collect();
        if held.iter().any(|partition| !self.next.contains_key(partition)) {
            let committed = self.topic.committed(group).map_err(failure)?;
            self.take(held.into_iter(), &committed)?;
        }
        Ok(())
    }

    /// Prints some of each partition. Returns whether there was anything.
    fn turn(&mut self) -> Result<bool, Failure> {
        let mut printed = false;
        for partition in self.next.keys().copied().collect::<Vec<_>>() {
            let rows = self.left.map_or(ROWS_MAX, |left| usize::try_from(left).unwrap_or(usize::MAX).min(ROWS_MAX));
            if rows == 0 {
                break;
            }
            let next = self.next[&partition];
            let limit = ReadLimit { rows, bytes: BYTES_MAX };
            let fetched = match self.topic.read_blocking(partition, next, limit) {
                // A group that was away for longer than records are kept.
                Err(TopicError::Gone { start, .. }) if self.args.group.is_some() => {
                    let lost = start - next;
                    self.terminal.say(&format!("partition {partition}: retention removed {lost} records unread"));
                    self.next.insert(partition, start);
                    printed = true;
                    continue;
                }
                fetched => fetched.map_err(failure)?,
            };
            if fetched.next == next {
                continue;
            }
            self.print(partition, &fetched.rows)?;
            if let Some(group) = &self.args.group {
                self.topic.commit(group, &[(partition, fetched.next)]).map_err(failure)?;
            }
            self.next.insert(partition, fetched.next);
            self.left = self.left.map(|left| left.saturating_sub(fetched.rows.len() as u64));
            printed = true;
        }
        Ok(printed)
    }

    fn print(&self, partition: u32, rows: &Batch) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        if self.terminal.json {
            for record in records::envelopes(partition, rows) {
                text.push_str(&record.to_string());
                text.push('\n');
            }
        } else {
            for value in rows.values().iter() {
                text.push_str(&String::from_utf8_lossy(value));
                text.push('\n');
            }
        }
        self.terminal.print(&text)
    }
}
