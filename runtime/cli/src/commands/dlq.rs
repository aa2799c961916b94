//! `wasmill dlq`: what a job could not process.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand, value_parser};
use hyper::Method;
use serde_json::{Value, json};
use wasmill_control::letters::{LetterAct, LetterError, LetterIds, LetterPick, Letters};
use wasmill_store::StoreError;

use super::service;
use crate::failure::Failure;
use crate::remote::{Body, ServerArgs};
use crate::terminal::{Table, Terminal, count, grouped, items, text};

/// Letters that are listed at once, as a service lists them.
const LIMIT_MAX: u64 = 1_000;
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

/// Whose dead letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct OfArgs {
    /// The state directory of the job, which must not be running
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The job of a service; one that runs rests for a moment
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    of: OfArgs,
    /// Only those of this node
    #[arg(long)]
    node: Option<String>,
    /// Begin the list at this id
    #[arg(long, value_name = "ID", default_value_t = 0)]
    from: u64,
    /// List so many at most, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u64).range(1..=LIMIT_MAX))]
    limit: u64,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Its id, as `dlq ls` lists it
    id: u64,
    #[command(flatten)]
    of: OfArgs,
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
    of: OfArgs,
}

/// An id, or ids in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdRange(LetterIds);

impl FromStr for IdRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no id: write 3 or 7-12"));
        let Some((first, last)) = text.split_once('-') else { return Ok(Self(LetterIds::One(number(text)?))) };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            Err(format!("{text:?} ends before it begins"))
        } else {
            Ok(Self(LetterIds::Range(first, last)))
        }
    }
}

pub(super) fn dlq(command: &DlqCommand, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    match command {
        DlqCommand::Ls(args) => ls(args, server, terminal),
        DlqCommand::Show(args) => show(args, server, terminal),
        DlqCommand::Replay(args) => replay(args, server, terminal),
        DlqCommand::Drop(args) => drop_some(args, server, terminal),
    }
}

impl OfArgs {
    /// As people named it.
    fn name(&self) -> String {
        match (&self.state, &self.job) {
            (Some(state), _) => state.display().to_string(),
            (None, job) => job.clone().unwrap_or_default(),
        }
    }

    /// What a state directory holds, or a service says of a job. A list of all where no letter is named.
    fn look(&self, ask: &Listing<'_>, server: &ServerArgs) -> Result<Value, Failure> {
        let Some(job) = &self.job else {
            let letters = self.open()?;
            let view = letters.list(ask.node, ask.from, ask.limit).map_err(|error| failed(&error))?;
            letters.close().map_err(|error| failed(&error))?;
            return Ok(json!(view));
        };
        let mut path = format!("/v1/jobs/{}/letters?from={}&limit={}", service::part(job), ask.from, ask.limit);
        if let Some(node) = ask.node {
            path.push_str(&format!("&node={}", service::part(node)));
        }
        service::ask(server, Method::GET, &path, Body::Nothing)
    }

    fn act(&self, pick: &LetterPick, act: LetterAct, server: &ServerArgs) -> Result<Value, Failure> {
        let Some(job) = &self.job else {
            let mut letters = self.open()?;
            let picked = letters.act(pick, act).map_err(refused)?;
            letters.close().map_err(|error| failed(&error))?;
            return Ok(json!(picked));
        };
        let verb = if act == LetterAct::Replay { "replay" } else { "drop" };
        let path = format!("/v1/jobs/{}/letters/{verb}", service::part(job));
        service::ask(server, Method::POST, &path, Body::Json(json!(pick)))
    }

    /// The letters of a job that does not run.
    fn open(&self) -> Result<Letters, Failure> {
        let dir = self.state.as_deref().unwrap_or(std::path::Path::new(""));
        Letters::open(dir).map_err(|error| failed(&error))?.ok_or_else(|| {
            let failure = Failure::wrong(format!("{} is no state directory of a job", dir.display()));
            failure.hint("name the directory that the job was run with: run JOB --state DIR")
        })
    }
}

/// Which dead letters are looked at.
struct Listing<'a> {
    node: Option<&'a str>,
    from: u64,
    limit: usize,
}

fn failed(error: &StoreError) -> Failure {
    Failure::of(error.kind(), error)
}

fn refused(error: LetterError) -> Failure {
    match error {
        LetterError::Store(error) => failed(&error),
        error => Failure::wrong(error.to_string()).hint("`wasmill dlq ls` lists them"),
    }
}

fn ls(args: &LsArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let listing = Listing { node: args.node.as_deref(), from: args.from, limit: args.limit as usize };
    let view = args.of.look(&listing, server)?;
    if terminal.json {
        return terminal.print_json(&view);
    }
    let total = view["total"].as_u64().unwrap_or(0);
    if total == 0 {
        return terminal.print("nothing: every row was processed\n");
    }
    let mut table = Table::new(&["node", "kind", "reason", "count", "ids"]);
    for group in items(&view["groups"]) {
        let (first, last) = (&group["first"], &group["last"]);
        table.row([
            text(&group["node"]).to_owned(),
            text(&group["kind"]).to_owned(),
            short(text(&group["reason"])),
            grouped(group["count"].as_u64().unwrap_or(0)),
            if first == last { first.to_string() } else { format!("{first}-{last}") },
        ]);
    }
    let mut said = format!("{} in {}\n\n", count(total, "dead letter"), args.of.name());
    said.push_str(&table.render("  ", terminal.out));
    let mut table = Table::new(&["id", "epoch", "node", "kind", "time", "key", "value", ""]);
    for letter in items(&view["letters"]) {
        table.row([
            letter["id"].to_string(),
            letter["epoch"].to_string(),
            text(&letter["node"]).to_owned(),
            text(&letter["kind"]).to_owned(),
            text(&letter["time"]).to_owned(),
            short(&readable(letter, "key")),
            short(&readable(letter, "value")),
            if letter["to_be_replayed"] == true { "to be replayed".to_owned() } else { String::new() },
        ]);
    }
    if !items(&view["letters"]).is_empty() {
        said.push('\n');
        said.push_str(&table.render("  ", terminal.out));
    }
    if let Some(next) = view["next"].as_u64() {
        said.push_str(&format!("\nmore with --from {next}\n"));
    }
    terminal.print(&said)
}

fn show(args: &ShowArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let listing = Listing { node: None, from: args.id, limit: 1 };
    let view = args.of.look(&listing, server)?;
    let Some(letter) = items(&view["letters"]).first().filter(|letter| letter["id"] == args.id) else {
        return Err(refused(LetterError::Missing(LetterIds::One(args.id))));
    };
    if terminal.json {
        return terminal.print_json(letter);
    }
    let mut said = String::new();
    let mut line = |what: &str, value: &str| said.push_str(&format!("{what:<9} {value}\n"));
    line("id", &letter["id"].to_string());
    line("node", text(&letter["node"]));
    line("what", &subject(letter));
    line("kind", text(&letter["kind"]));
    line("reason", text(&letter["reason"]));
    for (place, frame) in items(&letter["stack"]).iter().enumerate() {
        line(if place == 0 { "stack" } else { "" }, text(frame));
    }
    if let Some(digest) = letter["plugin"].as_str() {
        line("plugin", digest);
    }
    if let Some(source) = letter["source"].as_str() {
        let offset = letter["offset"].as_u64().map_or(String::new(), |offset| format!(", offset {offset}"));
        line("from", &format!("source {source}, partition {}{offset}", letter["partition"]));
    }
    line("epoch", &letter["epoch"].to_string());
    line("time", text(&letter["time"]));
    line("key", &readable(letter, "key"));
    line("value", &readable(letter, "value"));
    if letter["to_be_replayed"] == true {
        line("replay", "when the job runs next");
    }
    terminal.print(&said)
}

impl PickArgs {
    fn pick(&self) -> LetterPick {
        LetterPick { ids: self.ids.iter().map(|range| range.0).collect(), node: self.node.clone(), all: self.all }
    }
}

fn replay(args: &PickArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let picked = args.of.act(&args.pick(), LetterAct::Replay, server)?;
    let (marked, left) = (picked["letters"].as_u64().unwrap_or(0), picked["left"].as_u64().unwrap_or(0));
    if terminal.json {
        return terminal.print_json(&json!({"to_be_replayed": marked, "not_rows": left}));
    }
    if left > 0 {
        terminal
            .note(&format!("{} left where they are: only rows can be processed again", count(left, "timer or pane")));
    }
    let when = match &args.of.state {
        Some(dir) => format!("by the next `wasmill run JOB --state {}`", dir.display()),
        None => "when the job runs next".to_owned(),
    };
    terminal.print(&format!("{} to be processed again {when}\n", count(marked, "row")))
}

fn drop_some(args: &PickArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let picked = args.of.act(&args.pick(), LetterAct::Drop, server)?;
    let dropped = picked["letters"].as_u64().unwrap_or(0);
    if terminal.json {
        return terminal.print_json(&json!({"dropped": dropped}));
    }
    terminal.print(&format!("{} dropped\n", count(dropped, "dead letter")))
}

fn subject(letter: &Value) -> String {
    match text(&letter["subject"]) {
        "row" => format!("row of input {}", letter["port"]),
        "timer" => format!("{}-time timer; the value is its tag", text(&letter["clock"])),
        "watermark" => "news of the watermark".to_owned(),
        "pane" => "pane of a window; the value is its accumulator".to_owned(),
        other => other.to_owned(),
    }
}

/// The key or the value of a letter: text as it stands, without control characters; anything else as base64.
fn readable(letter: &Value, name: &str) -> String {
    match letter[name].as_str() {
        Some(text) => text.chars().flat_map(visible).collect(),
        None => format!("base64 {}", text(&letter[format!("{name}_base64")])),
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
        assert_eq!("7".parse(), Ok(IdRange(LetterIds::One(7))));
        assert_eq!("7-12".parse(), Ok(IdRange(LetterIds::Range(7, 12))));
        for bad in ["", "x", "3-", "-3", "9-8", "99999999999999999999"] {
            assert!(bad.parse::<IdRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_is_as_long_as_a_page_at_most() {
        let limit = |text: &str| {
            let command = LsArgs::augment_args(clap::Command::new("ls"));
            let matches = command.try_get_matches_from(["ls", "--job", "j", "--limit", text]);
            matches.map(|matches| matches.get_one::<u64>("limit").copied()).map_err(|error| error.to_string())
        };
        assert_eq!((limit("1"), limit("1000")), (Ok(Some(1)), Ok(Some(1_000))));
        for wrong in ["0", "1001"] {
            let said = limit(wrong).expect_err("no limit");
            assert!(said.contains("--limit") && said.contains("1..=1000"), "{said}");
        }
    }

    #[test]
    fn what_a_row_holds_does_nothing_to_a_terminal() {
        assert_eq!(readable(&json!({"key": "a\x1b[31m\n"}), "key"), "a\\u{1b}[31m\\n");
        assert_eq!(readable(&json!({"key_base64": "/w=="}), "key"), "base64 /w==");
        assert_eq!(short(&"x".repeat(100)).chars().count(), CELL_CHARS);
    }
}
