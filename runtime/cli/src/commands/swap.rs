//! `wasmill swap` and `wasmill diff`: another plugin in the place of one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use wasmill_contract::OperatorFactory;
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
use crate::terminal::{Table, Terminal, duration, short_digest};

#[derive(Debug, Args)]
#[command(after_help = "The new plugin is compiled and tried beside the old one, and takes over at an epoch, on the \
                        same state. Where it fails before an epoch of it is committed, the old one goes on.")]
pub(super) struct SwapArgs {
    /// The job: the state directory that it runs with; with --server its name
    #[arg(value_name = "JOB")]
    job: PathBuf,
    /// The stage
    stage: String,
    /// The plugin: a .wasm file, or std:NAME
    plugin: String,
}

pub(super) fn swap(args: &SwapArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let answer = if server.is_set() {
        service::swap(&args.job.to_string_lossy(), &args.stage, &args.plugin, server)?
    } else {
        swap_here(args)?
    };
    say_swapped(&answer, terminal)
}

/// Asks a job of this machine.
fn swap_here(args: &SwapArgs) -> Result<Value, Failure> {
    let stage = NodeName::new(&args.stage).map_err(|error| Failure::wrong(format!("{:?}: {error}", args.stage)))?;
    let plugin = match plugins::named(&args.plugin) {
        PluginRef::Path(path) => {
            let absolute =
                std::path::absolute(&path).map_err(|error| Failure::file("find", Path::new(&path), &error))?;
            absolute.to_string_lossy().into_owned()
        }
        PluginRef::Standard(_) | PluginRef::Digest(_) => args.plugin.clone(),
    };
    remote::ask(&args.job, &Request::Swap { stage, plugin })
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
