//! `wasmill check`: everything that is wrong with a job file, at once.

use std::sync::Arc;

use clap::Args;
use serde_json::json;
use wasmill_env::RealClock;
use wasmill_spec::Diagnostic;

use crate::assemble::{self, Assembled, Place};
use crate::commands::JobArgs;
use crate::failure::{self, Failure};
use crate::plugins::Plugins;
use crate::terminal::{Terminal, count};

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    job: JobArgs,
}

pub(super) fn check(args: &CheckArgs, terminal: &Terminal) -> Result<(), Failure> {
    let assembled = assembled(&args.job, terminal)?;
    if terminal.json {
        return terminal.print_json(&json!({
            "ok": true,
            "job": assembled.spec.name,
            "delivery": assembled.planned.gives(),
            "warnings": assembled.warnings().iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
        }));
    }
    let spec = &assembled.spec;
    terminal.print(&format!(
        "{}: {}: {}, {}, {}; {}",
        terminal.out.good("ok"),
        terminal.out.bold(spec.name.as_str()),
        count(spec.sources.len() as u64, "source"),
        count(spec.stages.len() as u64, "stage"),
        count(spec.sinks.len() as u64, "sink"),
        assembled.planned.gives(),
    ))
}

/// A job with its plugins and connectors, its warnings said.
pub(super) fn assembled(job: &JobArgs, terminal: &Terminal) -> Result<Assembled, Failure> {
    let spec = assemble::read(&job.job, &job.set)?;
    let assembled = super::small_runtime()?.block_on(async {
        let plugins = Plugins::new(terminal, Arc::new(RealClock::default()))?;
        let topics = job.data.topics();
        let place =
            Place { base_dir: None, state_dir: job.state.as_deref(), topics: &topics, plugins: None, fence: None };
        assemble::assemble(spec, &plugins, &place).await
    })?;
    if !terminal.json && !assembled.warnings().is_empty() {
        terminal.say(failure::render(assembled.warnings(), terminal.err.colour).trim_end());
    }
    Ok(assembled)
}
