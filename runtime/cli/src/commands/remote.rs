//! Commands for a job that runs in another process: `status`, `pause`, `resume`, `stop`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use wasmill_control::local::{self, AskError, Request};

use super::service;
use crate::failure::Failure;
use crate::remote::ServerArgs;
use crate::terminal::{Table, Terminal, duration, grouped, short_digest, text};

#[derive(Debug, Args)]
pub(super) struct RemoteArgs {
    /// The job: the state directory that it runs with; with --server its name
    #[arg(value_name = "JOB")]
    job: PathBuf,
}

/// What a running job says to a request.
pub(super) fn ask(dir: &Path, request: &Request) -> Result<Value, Failure> {
    asked(dir, request)?.ok_or_else(|| {
        let nobody = Failure::failed(AskError::NotRunning(dir.to_owned()).to_string());
        nobody.hint(format!("start it: wasmill run JOB --state {}", dir.display()))
    })
}

/// As [`ask`]; `None` where no job runs with the state.
pub(super) fn asked(dir: &Path, request: &Request) -> Result<Option<Value>, Failure> {
    match super::small_runtime()?.block_on(local::ask(dir, request)) {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(refusal)) => {
            let failure = Failure::failed(refusal.message);
            Err(refusal.hints.into_iter().fold(failure, Failure::hint))
        }
        Err(AskError::NotRunning(_)) => Ok(None),
        Err(error @ AskError::NoState(_)) => Err(Failure::wrong(error.to_string())),
        Err(error @ AskError::Silent { .. }) => Err(Failure::failed(crate::failure::chain(&error))),
    }
}

/// Asks for something that is answered by the state that the job is in then.
pub(super) fn tell(
    args: &RemoteArgs,
    request: Request,
    server: &ServerArgs,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if server.is_set() {
        let verb = match request {
            Request::Pause => "pause",
            Request::Resume => "resume",
            Request::Drain => "drain",
            _ => "stop",
        };
        return service::tell(&args.job.to_string_lossy(), verb, server, terminal);
    }
    let answer = ask(&args.job, &request)?;
    if terminal.json {
        return terminal.print_json(&answer);
    }
    terminal.print(&format!("{}: {}", text(&answer["job"]), text(&answer["state"])))
}

pub(super) fn status(args: &RemoteArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    if server.is_set() {
        return service::status(&args.job.to_string_lossy(), server, terminal);
    }
    let answer = ask(&args.job, &Request::Status)?;
    if terminal.json {
        return terminal.print_json(&answer);
    }
    print_status(&answer, terminal)
}

/// How a job does, for people.
pub(super) fn print_status(answer: &Value, terminal: &Terminal) -> Result<(), Failure> {
    let nanos = |value: &Value| duration(value.as_u64().unwrap_or(0));
    let uptime = (answer["uptime_seconds"].as_f64().unwrap_or(0.0) * 1e9) as u64;
    let mut said = format!(
        "{}: {} for {}, epoch {}\n",
        terminal.out.bold(text(&answer["job"])),
        text(&answer["state"]),
        duration(uptime),
        answer["epoch"],
    );
    let mut table = Table::new(&["node", "kind", "rows in", "rows out", "rejected", "late", "cpu", "plugin"]);
    for node in answer["nodes"].as_array().into_iter().flatten() {
        let number = |key: &str| node[key].as_u64().map_or_else(String::new, grouped);
        table.row([
            text(&node["name"]).to_owned(),
            text(&node["kind"]).to_owned(),
            number("rows_in"),
            number("rows_out"),
            number("rejected"),
            number("late"),
            node["guest_cpu_nanos"].as_u64().filter(|cpu| *cpu > 0).map_or_else(String::new, duration),
            short_digest(text(&node["plugin"])).to_owned(),
        ]);
    }
    said.push_str(&table.render("  ", terminal.out));
    if answer["latency"]["rows"].as_u64() > Some(0) {
        let latency = &answer["latency"];
        said.push_str(&format!(
            "  latency p50 {}, p99 {}\n",
            nanos(&latency["p50_nanos"]),
            nanos(&latency["p99_nanos"])
        ));
    }
    terminal.print(&said)
}
