//! `wasmill dlq`: what a job could not process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;
use wasmill_control::records::{letter_json, offset};
use wasmill_env::RealDisk;
use wasmill_model::{Clock, LetterSubject, Timestamp};
use wasmill_store::{JobStore, LetterId, LetterRecord, StoreOptions};

use crate::failure::Failure;
use crate::terminal::{Table, Terminal, count, grouped};

/// Letters that are in memory at once.
const PAGE: usize = 10_000;
/// Groups that are told apart; what is in no group is counted with the last one.
const GROUPS_MAX: usize = 1_000;
/// Characters of a reason, a key or a value in a table.
const CELL_CHARS: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum DlqCommand {
    /// List what a job could not process, by node and reason
    Ls(LsArgs),
    /// Show one of them whole
    Show(ShowArgs),
    /// Process rows again, through the same node, when the job runs next
    Replay(PickArgs),
    /// Forget some of them
    Drop(PickArgs),
}

#[derive(Debug, Args)]
struct StateArgs {
    /// The state directory of the job, which must not be running
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Only those of this node
    #[arg(long)]
    node: Option<String>,
    /// Begin the list at this id
    #[arg(long, value_name = "ID", default_value_t = 0)]
    from: u64,
    /// List so many at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Its id, as `dlq ls` lists it
    id: u64,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["ids", "all", "node"]).multiple(true))]
pub(super) struct PickArgs {
    /// Ids and ranges of ids, such as 3 or 7-12
    #[arg(conflicts_with_all = ["all", "node"])]
    ids: Vec<IdRange>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// All of this node
    #[arg(long, conflicts_with = "all")]
    node: Option<String>,
    #[command(flatten)]
    state: StateArgs,
}

/// Ids in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdRange {
    first: u64,
    last: u64,
}

impl FromStr for IdRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no id: write 3 or 7-12"));
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: number(first)?, last: number(last)? };
        if range.first > range.last { Err(format!("{text:?} ends before it begins")) } else { Ok(range) }
    }
}

pub(super) fn dlq(command: &DlqCommand, terminal: &Terminal) -> Result<(), Failure> {
    match command {
        DlqCommand::Ls(args) => ls(args, terminal),
        DlqCommand::Show(args) => show(args, terminal),
        DlqCommand::Replay(args) => replay(args, terminal),
        DlqCommand::Drop(args) => drop_some(args, terminal),
    }
}

/// The letters of a job that does not run.
struct Letters {
    store: JobStore,
    /// Those that are to be processed again.
    marked: BTreeSet<LetterId>,
}

impl Letters {
    fn open(dir: &Path) -> Result<Self, Failure> {
        // Opening a store makes one where there is none.
        if !dir.join("lock").exists() {
            let failure = Failure::wrong(format!("{} is no state directory of a job", dir.display()));
            return Err(failure.hint("name the directory that the job was run with: run JOB --state DIR"));
        }
        let opened = JobStore::open(Arc::new(RealDisk), dir, StoreOptions::default());
        let (store, recovered) = opened.map_err(|error| Failure::of(error.kind(), &error))?;
        Ok(Self { store, marked: recovered.replays.into_iter().map(|(id, _)| id).collect() })
    }

    /// Hands over every letter, in the order of ids, until told to stop.
    fn each(&self, from: u64, mut take: impl FnMut(LetterId, LetterRecord) -> bool) -> Result<(), Failure> {
        let mut from = LetterId(from);
        loop {
            let page = self.store.letters(from, PAGE).map_err(|error| Failure::of(error.kind(), &error))?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = LetterId(last.0.saturating_add(1));
            for (id, letter) in page {
                if !take(id, letter) {
                    return Ok(());
                }
            }
        }
    }

    fn close(self) -> Result<(), Failure> {
        self.store.close().map_err(|error| Failure::of(error.kind(), &error))
    }
}

/// Letters of one node, for one reason.
struct Group {
    count: u64,
    first: LetterId,
    last: LetterId,
}

fn ls(args: &LsArgs, terminal: &Terminal) -> Result<(), Failure> {
    let letters = Letters::open(&args.state.state)?;
    let mut groups: BTreeMap<(String, &'static str, String), Group> = BTreeMap::new();
    let (mut listed, mut next, mut total) = (Vec::new(), None, 0_u64);
    letters.each(0, |id, letter| {
        if args.node.as_deref().is_some_and(|node| node != letter.node.as_str()) {
            return true;
        }
        total += 1;
        let name = (letter.node.to_string(), letter.kind.name(), short(&letter.reason));
        let known = groups.len() < GROUPS_MAX || groups.contains_key(&name);
        let name = if known { name } else { (String::new(), "", "other reasons".to_owned()) };
        let group = groups.entry(name).or_insert(Group { count: 0, first: id, last: id });
        group.count += 1;
        group.last = id;
        if id.0 >= args.from {
            if listed.len() < args.limit {
                listed.push((id, letter));
            } else {
                next.get_or_insert(id);
            }
        }
        true
    })?;
    let shown = if terminal.json {
        terminal.print_json(&json!({
            "total": total,
            "groups": groups.iter().map(|((node, kind, reason), group)| json!({
                "node": node, "kind": kind, "reason": reason,
                "count": group.count, "first": group.first.0, "last": group.last.0,
            })).collect::<Vec<_>>(),
            "letters": listed.iter().map(|(id, letter)| letter_json(*id, letter, letters.marked.contains(id))).collect::<Vec<_>>(),
            "next": next.map(|id| id.0),
        }))
    } else if total == 0 {
        terminal.print("nothing: every row was processed\n")
    } else {
        terminal.print(&list(args, &letters, total, &groups, &listed, next, terminal))
    };
    letters.close()?;
    shown
}

fn list(
    args: &LsArgs,
    letters: &Letters,
    total: u64,
    groups: &BTreeMap<(String, &'static str, String), Group>,
    listed: &[(LetterId, LetterRecord)],
    next: Option<LetterId>,
    terminal: &Terminal,
) -> String {
    let mut table = Table::new(&["node", "kind", "reason", "count", "ids"]);
    for ((node, kind, reason), group) in groups {
        let ids = format!("{}-{}", group.first.0, group.last.0);
        let ids = if group.count == 1 { group.first.0.to_string() } else { ids };
        table.row([node.clone(), (*kind).to_owned(), reason.clone(), grouped(group.count), ids]);
    }
    let mut text = format!("{} in {}\n\n", count(total, "dead letter"), args.state.state.display());
    text.push_str(&table.render("  ", terminal.out));
    if !listed.is_empty() {
        let mut table = Table::new(&["id", "epoch", "node", "kind", "time", "key", "value", ""]);
        for (id, letter) in listed {
            table.row([
                id.0.to_string(),
                letter.epoch.to_string(),
                letter.node.to_string(),
                letter.kind.to_string(),
                Timestamp(letter.time).to_string(),
                short(&readable(&letter.key)),
                short(&readable(&letter.value)),
                if letters.marked.contains(id) { "to be replayed".to_owned() } else { String::new() },
            ]);
        }
        text.push('\n');
        text.push_str(&table.render("  ", terminal.out));
    }
    if let Some(next) = next {
        text.push_str(&format!("\nmore with --from {}\n", next.0));
    }
    text
}

fn show(args: &ShowArgs, terminal: &Terminal) -> Result<(), Failure> {
    let letters = Letters::open(&args.state.state)?;
    let id = LetterId(args.id);
    let found = letters.store.letters_by_id(&BTreeSet::from([id]));
    let found = found.map_err(|error| Failure::of(error.kind(), &error))?.pop();
    let marked = letters.marked.clone();
    letters.close()?;
    let Some((_, letter)) = found else {
        return Err(Failure::wrong(format!("there is no dead letter {}", args.id)).hint("`wasmill dlq ls` lists them"));
    };
    if terminal.json {
        return terminal.print_json(&letter_json(id, &letter, marked.contains(&id)));
    }
    let mut text = String::new();
    let mut line = |what: &str, value: String| text.push_str(&format!("{what:<9} {value}\n"));
    line("id", id.0.to_string());
    line("node", letter.node.to_string());
    line("what", subject(letter.subject));
    line("kind", letter.kind.to_string());
    line("reason", letter.reason.clone());
    for (place, frame) in letter.stack.iter().enumerate() {
        line(if place == 0 { "stack" } else { "" }, frame.clone());
    }
    if let Some(digest) = letter.digest {
        line("plugin", digest.to_string());
    }
    if let Some(origin) = &letter.origin {
        let offset = offset(origin).map_or(String::new(), |offset| format!(", offset {offset}"));
        line("from", format!("source {}, partition {}{offset}", origin.node, origin.partition.0));
    }
    line("epoch", letter.epoch.to_string());
    line("time", Timestamp(letter.time).to_string());
    line("key", readable(&letter.key));
    line("value", readable(&letter.value));
    if marked.contains(&id) {
        line("replay", "when the job runs next".to_owned());
    }
    terminal.print(&text)
}

/// The letters that are meant.
fn pick(args: &PickArgs, letters: &Letters) -> Result<Vec<(LetterId, bool)>, Failure> {
    let mut picked = Vec::new();
    letters.each(0, |id, letter| {
        let named = args.ids.iter().any(|range| (range.first..=range.last).contains(&id.0));
        if args.all || named || args.node.as_deref() == Some(letter.node.as_str()) {
            picked.push((id, matches!(letter.subject, LetterSubject::Row { .. })));
        }
        true
    })?;
    for range in &args.ids {
        if !picked.iter().any(|(id, _)| (range.first..=range.last).contains(&id.0)) {
            let failure = Failure::wrong(match range.first == range.last {
                true => format!("there is no dead letter {}", range.first),
                false => format!("there is no dead letter from {} to {}", range.first, range.last),
            });
            return Err(failure.hint("`wasmill dlq ls` lists them"));
        }
    }
    Ok(picked)
}

fn replay(args: &PickArgs, terminal: &Terminal) -> Result<(), Failure> {
    let mut letters = Letters::open(&args.state.state)?;
    let (rows, others): (Vec<_>, Vec<_>) = pick(args, &letters)?.into_iter().partition(|(_, is_row)| *is_row);
    let rows: Vec<LetterId> = rows.into_iter().map(|(id, _)| id).collect();
    letters.store.mark_for_replay(&rows).map_err(|error| Failure::of(error.kind(), &error))?;
    letters.close()?;
    let (marked, left) = (rows.len() as u64, others.len() as u64);
    if terminal.json {
        return terminal.print_json(&json!({"to_be_replayed": marked, "not_rows": left}));
    }
    if left > 0 {
        terminal
            .note(&format!("{} left where they are: only rows can be processed again", count(left, "timer or pane")));
    }
    let dir = args.state.state.display();
    terminal
        .print(&format!("{} to be processed again by the next `wasmill run JOB --state {dir}`\n", count(marked, "row")))
}

fn drop_some(args: &PickArgs, terminal: &Terminal) -> Result<(), Failure> {
    let mut letters = Letters::open(&args.state.state)?;
    let picked: Vec<LetterId> = pick(args, &letters)?.into_iter().map(|(id, _)| id).collect();
    letters.store.drop_letters(&picked).map_err(|error| Failure::of(error.kind(), &error))?;
    letters.close()?;
    let dropped = picked.len() as u64;
    if terminal.json {
        return terminal.print_json(&json!({"dropped": dropped}));
    }
    terminal.print(&format!("{} dropped\n", count(dropped, "dead letter")))
}

fn subject(subject: LetterSubject) -> String {
    match subject {
        LetterSubject::Row { port } => format!("row of input {port}"),
        LetterSubject::Timer(Clock::Event) => "event-time timer; the value is its tag".to_owned(),
        LetterSubject::Timer(Clock::Processing) => "processing-time timer; the value is its tag".to_owned(),
        LetterSubject::Watermark => "news of the watermark".to_owned(),
        LetterSubject::Pane => "pane of a window; the value is its accumulator".to_owned(),
    }
}

/// Text as it stands, without control characters; anything else as base64.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().flat_map(visible).collect(),
        Err(_) => format!("base64 {}", BASE64.encode(bytes)),
    }
}

/// A character that does nothing to a terminal.
fn visible(c: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if c.is_control() { (None, Some(c.escape_default())) } else { (Some(c), None) };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

fn short(text: &str) -> String {
    let mut shown = text.chars().flat_map(visible);
    let short: String = shown.by_ref().take(CELL_CHARS).collect();
    if shown.next().is_none() {
        return short;
    }
    short.chars().take(CELL_CHARS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_and_ranges() {
        assert_eq!("7".parse(), Ok(IdRange { first: 7, last: 7 }));
        assert_eq!("7-12".parse(), Ok(IdRange { first: 7, last: 12 }));
        for bad in ["", "x", "3-", "-3", "9-8", "99999999999999999999"] {
            assert!(bad.parse::<IdRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_row_holds_does_nothing_to_a_terminal() {
        assert_eq!(readable(b"a\x1b[31m\n"), "a\\u{1b}[31m\\n");
        assert_eq!(readable(b"\xff"), "base64 /w==");
        assert_eq!(short(&"x".repeat(100)).chars().count(), CELL_CHARS);
    }
}
