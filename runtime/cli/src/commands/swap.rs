//! `wasmill swap` and `wasmill diff`: another plugin in the place of one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use wasmill_contract::OperatorFactory;
use wasmill_control::beside::{BesideAsked, Mode, Span};
use wasmill_control::compatibility::{self, Verdict};
use wasmill_control::local::Request;
use wasmill_env::RealClock;
use wasmill_model::NodeName;
use wasmill_spec::PluginRef;
use wasmill_wasm::InstanceLimits;

use super::{remote, service};
use crate::failure::{FAILED, Failure};
use crate::plugins::{self, Plugins};
use crate::remote::ServerArgs;
use crate::terminal::{Table, Terminal, duration, grouped, short_digest};

/// From one look at a plugin beside another to the next.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "The new plugin is compiled and tried beside the old one, and takes over at an epoch, on the \
                        same state. Where it fails before an epoch of it is committed, the old one goes on.\n\n\
                        A SPAN is a time (30s) or a count (100epochs, 5000rows). With one the command waits until \
                        it is over: exit code 0 where nothing speaks against the plugin, 1 where something does.")]
pub(super) struct SwapArgs {
    /// The job: the state directory that it runs with; with --server its name
    #[arg(value_name = "JOB")]
    job: PathBuf,
    /// The stage
    stage: String,
    /// The plugin: a .wasm file, or std:NAME
    #[arg(required_unless_present_any = ["promote", "rollback", "report"])]
    plugin: Option<String>,
    /// Have it run beside the old one, on a view of its state, and compare what both do
    #[arg(long, value_name = "SPAN", num_args = 0..=1, require_equals = true, requires = "plugin")]
    shadow: Option<Option<Span>>,
    /// Have it work off a share of the keys, such as 10%
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "shadow", requires = "plugin")]
    canary: Option<u8>,
    /// How long the canary has its share
    #[arg(long = "for", value_name = "SPAN", requires = "canary")]
    span: Option<Span>,
    /// Behind the span, take over where nothing speaks against it; without a plugin: take over now
    #[arg(long)]
    promote: bool,
    /// End what runs beside the plugin; where nothing does, go back to the plugin before
    #[arg(long, conflicts_with_all = ["plugin", "promote", "report"])]
    rollback: bool,
    /// Show what runs beside the plugin, or did last, and the rows that differ
    #[arg(long, conflicts_with_all = ["plugin", "promote"])]
    report: bool,
}

fn share(text: &str) -> Result<u8, String> {
    let percent = text.strip_suffix('%').and_then(|percent| percent.parse().ok());
    percent.filter(|percent| (1..=99).contains(percent)).ok_or_else(|| "write a share as 1% to 99%".to_owned())
}

impl SwapArgs {
    fn beside(&self) -> Result<Option<BesideAsked>, Failure> {
        let (mode, span) = match (self.shadow, self.canary) {
            (Some(span), _) => (Mode::Shadow, span),
            (None, Some(percent)) => (Mode::Canary(percent), self.span),
            (None, None) if self.promote && self.plugin.is_some() => {
                let wrong = Failure::wrong("--promote goes with --shadow or --canary, or without a plugin");
                return Err(wrong.hint("a plain swap needs no promotion"));
            }
            (None, None) => return Ok(None),
        };
        let asked = BesideAsked { mode, span, promote: self.promote };
        asked.check().map_err(Failure::wrong)?;
        Ok(Some(asked))
    }
}

pub(super) fn swap(args: &SwapArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let stage = NodeName::new(&args.stage).map_err(|error| Failure::wrong(format!("{:?}: {error}", args.stage)))?;
    let ask = |request: Request| {
        if server.is_set() {
            service::change(&args.job.to_string_lossy(), &request, server)
        } else {
            remote::ask(&args.job, &request)
        }
    };
    let Some(plugin) = &args.plugin else {
        return match (args.report, args.rollback) {
            (true, _) => say_beside(&ask(Request::Beside { stage })?, terminal),
            (_, true) => {
                let answer = ask(Request::Rollback { stage })?;
                if answer["to"].is_string() { say_swapped(&answer, terminal) } else { say_beside(&answer, terminal) }
            }
            _ => say_swapped(&ask(Request::Promote { stage })?, terminal),
        };
    };
    let beside = args.beside()?;
    let plugin = match plugins::named(plugin) {
        PluginRef::Path(path) if !server.is_set() => {
            let absolute =
                std::path::absolute(&path).map_err(|error| Failure::file("find", Path::new(&path), &error))?;
            absolute.to_string_lossy().into_owned()
        }
        PluginRef::Path(_) | PluginRef::Standard(_) | PluginRef::Digest(_) => plugin.clone(),
    };
    let answer = ask(Request::Swap { stage: stage.clone(), plugin, beside })?;
    let Some(asked) = beside else { return say_swapped(&answer, terminal) };
    if asked.span.is_none() {
        return say_beside(&answer, terminal);
    }
    // The job sees to the end of the span, whether or not anybody waits.
    let report = loop {
        std::thread::sleep(LOOK);
        let report = ask(Request::Beside { stage: stage.clone() })?;
        if report["state"] != "running" {
            break report;
        }
    };
    say_beside(&report, terminal)?;
    let differs = report["differences"]["total"].as_u64().is_some_and(|total| total > 0);
    let done = report["state"] == "promoted" || (!asked.promote && !differs);
    if done { Ok(()) } else { Err(Failure::Reported { code: FAILED }) }
}

/// What a plugin beside another has come to.
fn say_beside(report: &Value, terminal: &Terminal) -> Result<(), Failure> {
    if terminal.json {
        return terminal.print_json(report);
    }
    let text = |key: &str| report[key].as_str().unwrap_or_default();
    let share = report["percent"].as_u64().map(|percent| format!(" of {percent} % of the keys")).unwrap_or_default();
    let mut said = format!(
        "{}: {} as {}{share}: {}",
        terminal.out.bold(text("stage")),
        short_digest(text("plugin")),
        text("mode"),
        text("state"),
    );
    if !text("reason").is_empty() {
        said.push_str(&format!(", {}", text("reason")));
    }
    let number = |value: &Value| grouped(value.as_u64().unwrap_or(0));
    said.push_str(&format!("\n  {} epochs, {} rows came", number(&report["epochs"]), number(&report["rows_in"])));
    if report["differences"].is_object() {
        let found = &report["differences"];
        said.push_str(&format!(
            "\n  {} rows compared, {} differences: {} changed, {} missing, {} extra, {} calls failed; begun anew {} times",
            number(&report["compared"]["rows"]),
            number(&found["total"]),
            number(&found["changed"]),
            number(&found["missing"]),
            number(&found["extra"]),
            number(&found["failed"]),
            number(&report["restarts"]),
        ));
    }
    said.push('\n');
    let rows = report["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !rows.is_empty() {
        let mut table = Table::new(&["what", "key", "old", "new"]);
        for row in rows {
            let cell = |key: &str| row[key]["value"].as_str().unwrap_or("-").to_owned();
            let new = row["reason"].as_str().map_or_else(|| cell("new"), str::to_owned);
            table.row([
                row["kind"].as_str().unwrap_or_default().to_owned(),
                row["key"].as_str().unwrap_or_default().to_owned(),
                cell("old"),
                new,
            ]);
        }
        said.push_str(&table.render("  ", terminal.out));
    }
    terminal.print(said.trim_end())
}

fn say_swapped(answer: &Value, terminal: &Terminal) -> Result<(), Failure> {
    if terminal.json {
        return terminal.print_json(answer);
    }
    let text = |key: &str| answer[key].as_str().unwrap_or_default();
    let pause = answer["pause_micros"].as_u64().unwrap_or(0).saturating_mul(1_000);
    terminal.print(&format!(
        "{}: {} goes on behind epoch {} in place of {}, after a pause of {}",
        text("stage"),
        short_digest(text("to")),
        answer["epoch"],
        short_digest(text("from")),
        duration(pause),
    ))
}

#[derive(Debug, Args)]
#[command(after_help = "Exit code 0: the new one can take over while a job runs; 1: it cannot.")]
pub(super) struct DiffArgs {
    /// The plugin that a job has run with: a .wasm file, or std:NAME
    old: String,
    /// The one that is to take its place
    new: String,
    /// The configuration that both describe themselves under, as JSON
    #[arg(long, value_name = "JSON")]
    config: Option<String>,
}

pub(super) fn diff(args: &DiffArgs, terminal: &Terminal) -> Result<(), Failure> {
    super::small_runtime()?.block_on(async {
        let plugins = Plugins::new(terminal, Arc::new(RealClock::default()))?;
        let (old, from) = described(&plugins, &args.old, args.config.as_deref()).await?;
        let (new, to) = described(&plugins, &args.new, args.config.as_deref()).await?;
        let old = old.descriptor();
        let asked = compatibility::ask(old, &*new).await;
        let unknown = asked.map_err(|error| Failure::wrong(format!("{}: {error}", args.new)))?;
        let differences = compatibility::compare(old, new.descriptor(), &unknown);
        let verdict = compatibility::verdict(&differences);
        if terminal.json {
            let value = json!({"old": from, "new": to, "verdict": verdict, "differences": differences});
            terminal.print_json(&value)?;
        } else {
            let said = match verdict {
                Verdict::Swap => terminal.out.good("can take over while the job runs"),
                Verdict::Migrate => terminal.out.good("can take over while the job runs, through migrate"),
                Verdict::Restart => terminal.out.warning("can take over when the job is started again"),
                Verdict::Refuse => terminal.out.bad("cannot go on from the state of the old one"),
            };
            let mut text = format!("{} {said}\n", args.new);
            let mut table = Table::new(&["what", "means", "difference"]);
            for found in &differences {
                let means = json!(found.verdict).as_str().unwrap_or_default().to_owned();
                table.row([found.what.to_owned(), means, found.reason.clone()]);
            }
            if !differences.is_empty() {
                text.push_str(&table.render("  ", terminal.out));
            }
            terminal.print(&text)?;
        }
        if verdict <= Verdict::Migrate { Ok(()) } else { Err(Failure::Reported { code: FAILED }) }
    })
}

/// What a plugin says about itself, and who it is.
async fn described(
    plugins: &Plugins,
    name: &str,
    config: Option<&str>,
) -> Result<(Arc<dyn OperatorFactory>, Value), Failure> {
    let loaded = plugins.load(&plugins::named(name), Path::new(name), None, InstanceLimits::default()).await?;
    let configured = loaded.configure(config.unwrap_or_default().as_bytes().to_vec()).await;
    let plugin = configured.map_err(|error| {
        let failure = Failure::wrong(format!("{name}: {error}"));
        if config.is_none() { failure.hint("where it needs a configuration, give it with --config") } else { failure }
    })?;
    let (name, version) = (&plugin.descriptor().name, &plugin.descriptor().version);
    let who = json!({"digest": loaded.info().digest.to_string(), "name": name, "version": version});
    Ok((plugin, who))
}
