//! `wasmill apply`: another job file for a job that runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use wasmill_control::local::Request;

use super::{remote, service};
use crate::failure::{FAILED, Failure};
use crate::overrides::Override;
use crate::remote::ServerArgs;
use crate::terminal::{Table, Terminal};

/// From one look at a job that is started again to the next, and how many there are.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_MAX: u32 = 600;

#[derive(Debug, Args)]
#[command(
    after_help = "Where only plugins and configurations of stages differ, these stages are swapped while everything \
                  else runs. Where nodes come, go, get other inputs or another number of tasks, the tasks that this \
                  touches are exchanged at an epoch, and everything else runs on. Anything else ends the job at an epoch, and the same process goes on from there with \
                  the new file: nodes keep their state and their positions by name. Where it cannot, the job goes on \
                  as it was. Name the file in the next `wasmill run`, too."
)]
pub(super) struct ApplyArgs {
    /// The job file as it is to be
    job: PathBuf,
    /// The state directory that the job runs with
    #[arg(long, value_name = "DIR", required_unless_present = "server")]
    state: Option<PathBuf>,
    /// Use another value in place of one in the job file, as `run` does; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = set)]
    set: Vec<String>,
    /// Forget the state of stages, and the positions of sources, that the job has no more
    #[arg(long)]
    allow_dropped: bool,
    /// Show what would be changed, and change nothing. Exit code 1: it would be refused
    #[arg(long)]
    plan: bool,
}

fn set(text: &str) -> Result<String, String> {
    text.parse::<Override>().map(|_| text.to_owned())
}

pub(super) fn apply(args: &ApplyArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let (Some(dir), false) = (&args.state, server.is_set()) else { return at_service(args, server, terminal) };
    let file = std::path::absolute(&args.job).map_err(|error| Failure::file("find", Path::new(&args.job), &error))?;
    let (set, allow_dropped) = (args.set.clone(), args.allow_dropped);
    let plan = remote::ask(dir, &Request::Apply { file, set, allow_dropped, only_plan: args.plan })?;
    if args.plan {
        return planned(&plan, terminal);
    }
    if terminal.json {
        terminal.print_json(&plan)?;
    } else {
        terminal.print(said(&plan, false, terminal).trim_end())?;
    }
    if plan["how"] != "restart" {
        return Ok(());
    }
    let status = started(dir, &plan["revision"])?;
    match status["applied"]["refused"].as_str() {
        None if terminal.json => Ok(()),
        None => terminal.print(&format!("it goes on behind epoch {}", status["applied"]["resumed_at"])),
        Some(why) => Err(Failure::failed(format!("the job goes on as it was: {why}"))),
    }
}

/// The same for a job of a service.
fn at_service(args: &ApplyArgs, server: &ServerArgs, terminal: &Terminal) -> Result<(), Failure> {
    let set = args.set.iter().map(|set| set.parse()).collect::<Result<Vec<Override>, _>>().map_err(Failure::wrong)?;
    let ApplyArgs { job, allow_dropped, plan, .. } = args;
    let deployment = service::Deployment { job, set: &set, allow_dropped: *allow_dropped, only_plan: *plan };
    let answer = service::send(&deployment, server)?;
    if *plan {
        return planned(&answer, terminal);
    }
    if terminal.json {
        return terminal.print_json(&answer);
    }
    if answer["change"].is_object() {
        terminal.print(said(&answer["change"], false, terminal).trim_end())?;
    }
    service::print_deployed(&answer, terminal)
}

/// Shows what would be changed.
fn planned(plan: &Value, terminal: &Terminal) -> Result<(), Failure> {
    if terminal.json {
        terminal.print_json(plan)?;
    } else {
        terminal.print(said(plan, true, terminal).trim_end())?;
    }
    let refused = plan["refused"].as_array().is_some_and(|why| !why.is_empty());
    if refused { Err(Failure::Reported { code: FAILED }) } else { Ok(()) }
}

/// Waits until the job runs again. It has none to listen while it is started.
fn started(dir: &Path, revision: &Value) -> Result<Value, Failure> {
    for _ in 0..LOOKS_MAX {
        if let Ok(Some(status)) = remote::asked(dir, &Request::Status)
            && status["applied"]["revision"] == *revision
        {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
    Err(Failure::failed("the job has not come back within a minute; its own output says why"))
}

fn said(plan: &Value, only: bool, terminal: &Terminal) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>().join(", ");
    let mut table = Table::new(&["", "node", "is", "because of", "and"]);
    for node in plan["nodes"].as_array().into_iter().flatten() {
        let cells = ["section", "name", "act"].map(|key| text(&node[key]));
        let [section, name, act] = cells;
        table.row([section, name, act, words(&node["keys"]), text(&node["state"])]);
    }
    let mut said = table.render("  ", terminal.out);
    let job = words(&plan["job"]);
    if !job.is_empty() {
        said.push_str(&format!("  the job itself: {job}\n"));
    }
    for why in plan["because"].as_array().into_iter().flatten() {
        said.push_str(&format!("the job has to end for it: {}\n", text(why)));
    }
    for why in plan["refused"].as_array().into_iter().flatten() {
        said.push_str(&format!("{} {}\n", terminal.out.bad("refused:"), text(why)));
    }
    let would = if only { "would be " } else { "" };
    said.push_str(&match plan["how"].as_str() {
        Some("nothing") => "nothing differs".to_owned(),
        Some("exchange") if only => {
            "tasks that this touches would be exchanged at an epoch; the others go on".to_owned()
        }
        Some("exchange") => format!(
            "the tasks that this touches were exchanged behind epoch {}, after a pause of {:.1} ms; the others went on",
            plan["epoch"],
            plan["pause_micros"].as_f64().unwrap_or_default() / 1e3
        ),
        Some("start") => "the job does not run: it would be started with the new file, from its last epoch".to_owned(),
        Some("in-place") => format!("{would}changed while everything else runs"),
        _ => format!("{would}ended at an epoch, and started again from there"),
    });
    said
}
