//! `wasmill run`: a job in the foreground.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use wasmill_control::local::Listener;
use wasmill_env::{Clock, RealClock};
use wasmill_model::Epoch;
use wasmill_spec::JobSpec;

use crate::assemble::{self, Assembled, Place};
use crate::commands::JobArgs;
use crate::control::{Applied, Control, Replacement};
use crate::failure::{self, Failure};
use crate::plugins::Plugins;
use crate::progress::{Look, Moment, Progress};
use crate::summary::{Summary, roles};
use crate::supervise::{Ended, Event, Frame, ROOM_RETRY, Supervised, Watch, stop_asked};
use crate::terminal::{Terminal, count};

/// From one frame of live progress to the next.
const FRAME: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
#[command(after_help = "The summary goes to standard output, or to standard error where a sink of the job writes \
                        to standard output.\nCtrl-C stops the job at an epoch: what was read is worked off and \
                        committed. A second one cuts it off.\nWith --state, the same command goes on behind the last \
                        epoch, whatever ended the run before.")]
pub(super) struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Forget what the state directory holds, and start from the beginning
    #[arg(long, requires = "state")]
    fresh: bool,
    /// Forget the state of stages, spaces, sources and sinks that the job has no more
    #[arg(long, requires = "state")]
    allow_dropped: bool,
}

pub(super) fn run(args: RunArgs, terminal: &Terminal, clock: Arc<RealClock>) -> Result<(), Failure> {
    let data = super::data_runtime(|_| {})?;
    let control = super::small_runtime()?;
    let spec = assemble::read(&args.job.job, &args.job.set)?;
    let done = control.block_on(job(spec, &args, terminal, clock, data.handle()));
    // A guest in the middle of a call, or a read from a terminal, must not hold up the end.
    data.shutdown_background();
    control.shutdown_background();
    done
}

async fn job(
    spec: JobSpec,
    args: &RunArgs,
    terminal: &Terminal,
    clock: Arc<RealClock>,
    data: &tokio::runtime::Handle,
) -> Result<(), Failure> {
    let mut stops = stop_signals()?;
    // It lives as long as the job: calls are interrupted by its ticker.
    let plugins = Arc::new(Plugins::new(terminal, Arc::clone(&clock) as Arc<dyn Clock>)?);
    let topics = args.job.data.topics();
    let place =
        Place { base_dir: None, state_dir: args.job.state.as_deref(), topics: &topics, plugins: None, fence: None };
    let mut assembled = tokio::select! {
        assembled = assemble::assemble(spec, &plugins, &place) => Arc::new(assembled?),
        () = stop_asked(&mut stops) => return Err(Failure::failed("stopped before the job had started")),
    };
    if !terminal.json {
        let warnings = failure::render(assembled.warnings(), terminal.err.colour);
        if !warnings.is_empty() {
            terminal.say(warnings.trim_end());
        }
    }
    let (mut applied, mut before) = (Applied::default(), None);
    let (mut fresh, mut allow_dropped) = (args.fresh, args.allow_dropped);
    loop {
        let control = args.job.state.as_ref().map(|dir| {
            let (assembled, clock) = (Arc::clone(&assembled), Arc::clone(&clock));
            let control = Control::new(assembled, Arc::clone(&plugins), clock, dir.clone(), None);
            Arc::new(control.changeable(topics.clone(), applied.clone()))
        });
        let (listens, listening) = oneshot::channel();
        let mut watch = OnTerminal {
            terminal,
            clock: Arc::clone(&clock),
            live: is_live(&assembled, terminal),
            progress: Progress::new(assembled.spec.name.as_str(), roles(&assembled)),
            door: args.job.state.clone().map(|dir| (dir, listens)),
            began: false,
            stopping: false,
        };
        let supervised = Supervised {
            assembled: Arc::clone(&assembled),
            clock: Arc::clone(&clock),
            data: data.clone(),
            state: args.job.state.clone(),
            control: control.clone(),
            fresh,
            allow_dropped,
            account: None,
        };
        let serve = async {
            match &control {
                Some(control) => control.serve(listening).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = supervised.run(&mut stops, &mut watch) => ended,
            never = serve => match never {},
        };
        let replacement = control.as_ref().and_then(|control| control.take_replacement());
        // It may have gone on with another graph.
        assembled = control.as_ref().map_or(assembled, |control| control.assembled());
        match (ended, replacement, before.take()) {
            (Ok(_), Some(replacement), _) if !watch.stopping => {
                terminal.note("the job file was changed: going on with it");
                let Replacement { assembled: new, allow_dropped: dropped, revision } = replacement;
                before = Some(std::mem::replace(&mut assembled, new));
                (fresh, allow_dropped) = (false, dropped);
                applied = Applied { revision, refused: None };
            }
            (Err(failure), _, Some(old)) if !watch.began => {
                let why = failure.message();
                terminal.say(&format!("the job goes on as it was: {why}"));
                (assembled, allow_dropped, applied.refused) = (old, false, Some(why));
            }
            (ended, ..) => {
                return match ended? {
                    Ended::Ran(summary) => summarize(&assembled, &summary, terminal),
                    Ended::Already(epoch) => already_finished(&assembled, terminal, epoch),
                };
            }
        }
    }
}

/// Whether somebody watches, and nothing else draws on the same terminal.
fn is_live(assembled: &Assembled, terminal: &Terminal) -> bool {
    let rows_in_the_way = assembled.prints_rows() && std::io::stdout().is_terminal();
    std::io::stderr().is_terminal() && !terminal.json && !rows_in_the_way
}

fn summarize(assembled: &Assembled, summary: &Summary, terminal: &Terminal) -> Result<(), Failure> {
    let name = assembled.spec.name.as_str();
    match (terminal.json, assembled.prints_rows()) {
        (true, false) => terminal.print_json(&summary.to_json(name)),
        (false, false) => terminal.print(&summary.to_text(name, terminal.verbose, terminal.out)),
        (true, true) => {
            terminal.say(&summary.to_json(name).to_string());
            Ok(())
        }
        (false, true) => {
            terminal.say(summary.to_text(name, terminal.verbose, terminal.err).trim_end());
            Ok(())
        }
    }
}

/// A job that has done everything there was to do.
fn already_finished(assembled: &Assembled, terminal: &Terminal, epoch: Epoch) -> Result<(), Failure> {
    let name = assembled.spec.name.as_str();
    if terminal.json {
        let value = json!({"job": name, "outcome": "already-finished", "epoch": epoch});
        return if assembled.prints_rows() {
            terminal.say(&value.to_string());
            Ok(())
        } else {
            terminal.print_json(&value)
        };
    }
    terminal.say(&format!("{name} has finished, at epoch {epoch}; --fresh starts it from the beginning"));
    Ok(())
}

/// Asks for the end at every interrupt and every request to terminate.
pub(super) fn stop_signals() -> Result<mpsc::Receiver<()>, Failure> {
    let cannot_listen = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut interrupt: Signal = signal(SignalKind::interrupt()).map_err(cannot_listen)?;
    let mut terminate: Signal = signal(SignalKind::terminate()).map_err(cannot_listen)?;
    let (asks, asked) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asks.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(asked)
}

/// Shows people how a job does.
struct OnTerminal<'a> {
    terminal: &'a Terminal,
    clock: Arc<RealClock>,
    live: bool,
    progress: Progress,
    /// The state directory, and who is told when it is ours.
    door: Option<(PathBuf, oneshot::Sender<Listener>)>,
    /// Whether an attempt ran.
    began: bool,
    /// Whether somebody here has asked for the end.
    stopping: bool,
}

impl OnTerminal<'_> {
    /// Lets others in. A job that cannot be reached runs all the same.
    fn open(&mut self) {
        let Some((dir, listens)) = self.door.take() else { return };
        match Listener::bind(&dir) {
            // Who would answer lives as long as the job.
            Ok(listener) => drop(listens.send(listener)),
            Err(error) => self.cannot_listen(&dir, &error),
        }
    }

    fn cannot_listen(&self, dir: &Path, error: &std::io::Error) {
        let dir = dir.display();
        self.terminal.say(&format!("warning: the job takes no commands: cannot listen in {dir}: {error}"));
    }
}

impl Watch for OnTerminal<'_> {
    fn event(&mut self, event: Event<'_>) {
        let terminal = self.terminal;
        match event {
            Event::Resuming(epoch) => terminal.note(&format!("resuming at epoch {epoch}")),
            Event::Replaying(rows) => terminal.note(&format!("processing {} again", count(rows, "dead letter"))),
            Event::Opened => self.open(),
            Event::Began => self.began = true,
            // For people, and for whoever started the job and has to know the port.
            Event::Listening { source, location } => terminal.say(&match terminal.json {
                true => json!({"source": source, "location": location}).to_string(),
                false => format!("{source} listens on {location}"),
            }),
            Event::NoRoom(reason) => {
                let seconds = ROOM_RETRY.as_secs();
                terminal
                    .say(&format!("paused: {reason}; looking for room every {seconds} s, the job goes on by itself"));
            }
            Event::RoomAgain => terminal.say("there is room again: the job goes on behind its last epoch"),
            Event::SlowDisk(took) => {
                let seconds = took.as_secs();
                terminal.say(&format!("the disk is slow: a commit has been under way for {seconds} s, sources wait"));
            }
            Event::Stopping => {
                self.stopping = true;
                terminal.note("stopping at the next epoch; once more to cut off");
            }
            Event::RolledBack(reason) => terminal.say(&format!("rolled back: {reason}")),
        }
    }

    fn every(&self) -> Duration {
        FRAME
    }

    fn wants_frames(&self) -> bool {
        self.live
    }

    fn frame(&mut self, frame: Option<&Frame<'_>>) {
        if !self.live {
            return;
        }
        let Some(frame) = frame else {
            self.terminal.screen.live(&[]);
            return;
        };
        let moment =
            Moment { nanos: frame.nanos, wall: self.clock.wall(), nodes: frame.nodes, stopping: frame.stopping };
        let width = terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| width.0);
        let look = Look { style: self.terminal.err, width: width.into(), nodes: self.terminal.verbose };
        self.terminal.screen.live(&self.progress.frame(&moment, look));
    }
}
