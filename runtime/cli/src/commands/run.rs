//! `wasmill run`: a job in the foreground.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use wasmill_contract::{Committer, MemoryCommitter, OperatorError};
use wasmill_control::local::Listener;
use wasmill_control::{ControlError, Dropped, Opened, Savepoints};
use wasmill_engine::{JobError, JobHandle, JobParts, NodePart};
use wasmill_env::{Clock, Disk, RealClock, RealDisk};
use wasmill_model::{Epoch, ErrorKind, NodeName};
use wasmill_spec::{JobSpec, StateSpec};
use wasmill_store::{JobStore, Recovered, StageStates, StoreError, StoreOptions};

use crate::assemble::{self, Assembled};
use crate::commands::JobArgs;
use crate::control::{Control, Current};
use crate::dead_letters::DeadLetters;
use crate::failure::{self, Failure};
use crate::first_output::FirstOutput;
use crate::plugins::Plugins;
use crate::progress::{Look, Moment, Progress};
use crate::summary::{Summary, roles};
use crate::terminal::{Terminal, count};

/// From one frame of live progress to the next.
const FRAME: Duration = Duration::from_millis(100);
/// From one look for room on a full disk to the next.
const ROOM_RETRY: Duration = Duration::from_secs(1);
/// A commit that takes longer is worth a word.
const SLOW_COMMIT: Duration = Duration::from_secs(5);

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
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cannot_start = |error| Failure::failed(format!("cannot start: {error}"));
    let data = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_name("wasmill-data")
        .enable_all()
        .build()
        .map_err(cannot_start)?;
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
    let cannot_listen = |error| Failure::failed(format!("cannot listen for signals: {error}"));
    let mut signals = Signals {
        interrupt: signal(SignalKind::interrupt()).map_err(cannot_listen)?,
        terminate: signal(SignalKind::terminate()).map_err(cannot_listen)?,
    };
    let plugins = Plugins::new(terminal, Arc::clone(&clock) as Arc<dyn Clock>)?;
    let topics = args.job.data.topics();
    let assembled = tokio::select! {
        assembled = assemble::assemble(spec, &plugins, args.job.state.as_deref(), &topics) => assembled?,
        () = signals.next() => return Err(Failure::failed("stopped before the job had started")),
    };
    if !terminal.json {
        let warnings = failure::render(assembled.warnings(), terminal.err.colour);
        if !warnings.is_empty() {
            terminal.say(warnings.trim_end());
        }
    }
    let Some(dir) = &args.job.state else {
        return attempts(&assembled, args, None, terminal, &clock, data, &mut signals).await;
    };
    let control = Control::new(&assembled, &plugins, &clock, dir);
    let (listens, listening) = oneshot::channel();
    let door = Door { control: &control, listens: Some(listens) };
    tokio::select! {
        done = attempts(&assembled, args, Some(door), terminal, &clock, data, &mut signals) => done,
        never = control.serve(listening) => match never {},
    }
}

/// How others reach the job.
struct Door<'a> {
    control: &'a Control<'a>,
    /// Takes the socket once the state directory is ours.
    listens: Option<oneshot::Sender<Listener>>,
}

impl Door<'_> {
    /// Lets others in. A job that cannot be reached runs all the same.
    fn open(&mut self, dir: &Path, terminal: &Terminal) {
        let Some(listens) = self.listens.take() else { return };
        match Listener::bind(dir) {
            // Who would answer lives as long as the job.
            Ok(listener) => drop(listens.send(listener)),
            Err(error) => {
                let dir = dir.display();
                terminal.say(&format!("warning: the job takes no commands: cannot listen in {dir}: {error}"));
            }
        }
    }
}

/// Runs the job, again and again where a disk is full.
async fn attempts(
    assembled: &Assembled,
    args: &RunArgs,
    mut door: Option<Door<'_>>,
    terminal: &Terminal,
    clock: &Arc<RealClock>,
    data: &tokio::runtime::Handle,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let mut pause = Pause::default();
    let mut fresh = args.fresh;
    let mut again = false;
    loop {
        let attempt =
            attempt(assembled, args, (fresh, again), &mut pause, door.as_mut(), terminal, clock, data, signals).await;
        if let Some(door) = &door {
            door.control.end();
        }
        let failure = match attempt {
            Ok(Ended::Done) => return Ok(()),
            Ok(Ended::RolledBack) => {
                // As after a crash, from the epoch before the swap.
                fresh = false;
                again = true;
                continue;
            }
            Err(failure) => failure,
        };
        let Some(reason) = failure.no_room().filter(|_| args.job.state.is_some() && assembled.can_be_read_again())
        else {
            return Err(failure);
        };
        // As after a crash: nothing is tried again, everything is read from what is durable.
        pause.begin(reason, terminal);
        fresh = false;
        again = true;
        tokio::select! {
            () = clock.sleep(ROOM_RETRY) => {}
            () = signals.next() => return Err(failure),
        }
    }
}

/// A job that waits for room on a disk.
#[derive(Debug, Default)]
struct Pause {
    /// What was said last, until an epoch is committed again.
    said: Option<String>,
}

impl Pause {
    fn begin(&mut self, reason: &str, terminal: &Terminal) {
        if self.said.as_deref() != Some(reason) {
            let seconds = ROOM_RETRY.as_secs();
            terminal.say(&format!("paused: {reason}; looking for room every {seconds} s, the job goes on by itself"));
            self.said = Some(reason.to_owned());
        }
    }

    fn end(&mut self, terminal: &Terminal) {
        if self.said.take().is_some() {
            terminal.say("there is room again: the job goes on behind its last epoch");
        }
    }
}

/// Runs the job from what is durable to its end, or to what keeps it from going on.
#[expect(clippy::too_many_arguments, reason = "called once, where everything is at hand")]
async fn attempt(
    assembled: &Assembled,
    args: &RunArgs,
    (fresh, again): (bool, bool),
    pause: &mut Pause,
    mut door: Option<&mut Door<'_>>,
    terminal: &Terminal,
    clock: &Arc<RealClock>,
    data: &tokio::runtime::Handle,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let first_output = FirstOutput::default();
    let mut nodes = assembled.parts(|sink| first_output.watch(sink));
    let Beginning { letters, recovered, states, committer, finished, savepoints } = match (&args.job.state, &door) {
        (Some(dir), Some(door)) => {
            begin_with_state(assembled, &mut nodes, dir, args, fresh, again, door.control).await?
        }
        _ if assembled.spec.state != StateSpec::Memory => {
            let wrong = assembled.spec.error(&["state", "backend"], "state on disk needs a directory");
            return Err(Failure::Job(vec![wrong.hint("run the job with --state DIR")]));
        }
        _ => Beginning {
            letters: DeadLetters::fresh(assembled.dead_letters(), sources(assembled))?,
            recovered: Recovered::default(),
            states: StageStates::default(),
            committer: Box::new(MemoryCommitter::default()),
            finished: false,
            savepoints: None,
        },
    };
    let resumed_at = (recovered.epoch > Epoch::default()).then_some(recovered.epoch);
    if finished {
        return already_finished(assembled, terminal, recovered.epoch).map(|()| Ended::Done);
    }
    if let Some(epoch) = resumed_at.filter(|_| !again) {
        terminal.note(&format!("resuming at epoch {epoch}"));
    }
    if !recovered.replays.is_empty() {
        terminal.note(&format!("processing {} again", count(recovered.replays.len() as u64, "dead letter")));
    }
    if let (Some(door), Some(dir)) = (&mut door, &args.job.state) {
        door.open(dir, terminal);
    }
    let parts = JobParts {
        plan: assembled.planned.plan.clone(),
        nodes,
        recovered,
        states,
        committer: letters.committer(committer),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        settings: assembled.settings(),
    };
    let began = clock.monotonic_nanos();
    let handle = tokio::select! {
        started = wasmill_engine::start(parts, data) => {
            started.map_err(|error| cannot_start_job(assembled, &error))?
        }
        () = signals.next() => return Err(Failure::failed("stopped before the job had started")),
    };
    tracing::info!(job = assembled.spec.name.as_str(), "started");
    let control = door.as_ref().map(|door| door.control);
    if let (Some(control), Some(savepoints)) = (control, savepoints) {
        let (remote, resumed_at) = (handle.remote().clone(), resumed_at.unwrap_or_default());
        control.begin(Current { remote, savepoints, resumed_at, began }).await;
    }
    for (source, location) in handle.locations().iter().filter(|(node, _)| assembled.spec.sources.contains_key(node)) {
        // For people, and for whoever started the job and has to know the port.
        terminal.say(&match terminal.json {
            true => json!({"source": source, "location": location}).to_string(),
            false => format!("{source} listens on {location}"),
        });
    }
    let mut running = Running {
        assembled,
        terminal,
        clock: clock.as_ref(),
        handle,
        signals,
        pause,
        control,
        began,
        stopping: false,
        slow_epoch: None,
    };
    if let Some(reason) = running.finish().await? {
        terminal.say(&format!("rolled back: {reason}"));
        return Ok(Ended::RolledBack);
    }
    running.pause.end(terminal);
    let summary = Summary {
        resumed_at,
        stopped: running.stops(),
        nanos: clock.monotonic_nanos().saturating_sub(began),
        cpu_nanos: cpu_nanos(),
        first_output_nanos: first_output.nanos(),
        nodes: running.handle.metrics().nodes(),
        epochs: running.handle.metrics().epochs(),
        latency: running.handle.metrics().latency(),
        visible: running.handle.metrics().visible_latency(),
        locations: (running.handle.locations().iter())
            .map(|(node, place)| (node.clone(), place.strip_prefix("./").unwrap_or(place).to_owned()))
            .collect(),
        dead_letters: letters.path().map(|path| path.display().to_string()),
        roles: roles(assembled),
    };
    let name = assembled.spec.name.as_str();
    let said = match (terminal.json, assembled.prints_rows()) {
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
    };
    said.map(|()| Ended::Done)
}

/// How an attempt at running a job ended, where it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It has said what came of it.
    Done,
    /// A plugin that was swapped in failed: the job goes on from its last epoch.
    RolledBack,
}

/// What a run begins with.
struct Beginning {
    letters: DeadLetters,
    recovered: Recovered,
    states: StageStates,
    committer: Box<dyn Committer>,
    /// Nothing is left to do.
    finished: bool,
    /// Has savepoints made while the job runs.
    savepoints: Option<Savepoints>,
}

/// Takes a state directory, and puts the file of rejected rows where the state is.
async fn begin_with_state(
    assembled: &Assembled,
    nodes: &mut [NodePart],
    dir: &Path,
    args: &RunArgs,
    fresh: bool,
    again: bool,
    control: &Control<'_>,
) -> Result<Beginning, Failure> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    if fresh {
        JobStore::erase(&*disk, dir).map_err(|error| Failure::of(error.kind(), &error))?;
        let taken = dir.join("ingest");
        match std::fs::remove_dir_all(&taken) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::file("remove", &taken, &error));
            }
            _ => {}
        }
    }
    let options = match assembled.spec.state {
        StateSpec::Memory => StoreOptions::default(),
        StateSpec::Disk { cache } => StoreOptions::on_disk(cache.bytes()),
    };
    let dropped = if args.allow_dropped { Dropped::Forget } else { Dropped::Refuse };
    let refused = |error| match error {
        // A write of the attempt before has not ended yet.
        ControlError::Store(error @ StoreError::InUse { .. }) if again => Failure::of(ErrorKind::Full, &error),
        ControlError::Store(error) => Failure::of(error.kind(), &error),
        error => Failure::of(error.kind(), &error).hint(format!(
            "the state is in {}; --fresh forgets it and starts the job from the beginning",
            dir.display()
        )),
    };
    let plan = &assembled.planned.plan;
    let taken = wasmill_control::take(disk, dir, options).map_err(refused)?;
    control.load_swapped(&taken.swapped(plan, nodes).map_err(refused)?).await?;
    let declared = control.swap_parts(nodes);
    let opened = taken.open(plan, nodes, &declared, dropped).map_err(refused)?;
    let Opened { recovered, states, finished, committer, savepoints } = opened;
    let page = |from, limit| committer.letters(from, limit);
    let letters = DeadLetters::stored(assembled.dead_letters(), sources(assembled), page)?;
    let (committer, savepoints) = (Box::new(committer), Some(savepoints));
    Ok(Beginning { letters, recovered, states, committer, finished, savepoints })
}

/// The source of each node that has one only.
fn sources(assembled: &Assembled) -> BTreeMap<NodeName, NodeName> {
    wasmill_control::identity::sources(&assembled.planned.plan)
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

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Waits for the user to ask for the end. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

struct Running<'a> {
    assembled: &'a Assembled,
    terminal: &'a Terminal,
    clock: &'a RealClock,
    handle: JobHandle,
    signals: &'a mut Signals,
    pause: &'a mut Pause,
    control: Option<&'a Control<'a>>,
    began: u64,
    stopping: bool,
    /// The epochs committed when a slow commit was last spoken of.
    slow_epoch: Option<u64>,
}

impl Running<'_> {
    /// Whether somebody has asked for the end, here or from elsewhere.
    fn stops(&self) -> bool {
        self.stopping || self.control.is_some_and(Control::is_stopping)
    }

    /// Runs to the end. Returns why, where a plugin on trial was the end.
    async fn finish(&mut self) -> Result<Option<String>, Failure> {
        let live = self.is_live();
        let mut progress = Progress::new(self.assembled.spec.name.as_str(), roles(self.assembled));
        loop {
            tokio::select! {
                ended = self.handle.wait() => {
                    if live {
                        self.terminal.screen.live(&[]);
                    }
                    return match ended {
                        Err(JobError::Sink { cause, .. }) if wasmill_connectors::is_broken_pipe(&cause) => {
                            Err(Failure::OutputClosed)
                        }
                        Err(error @ JobError::TrialFailed { .. }) => Ok(Some(error.to_string())),
                        ended => ended.map(|()| None).map_err(|error| failed(self.assembled, &error)),
                    };
                }
                () = self.signals.next() => {
                    if self.stopping {
                        return Err(Failure::failed("cut off: what was read since the last epoch is not committed"));
                    }
                    self.stopping = true;
                    self.handle.stop();
                    self.terminal.note("stopping at the next epoch; once more to cut off");
                }
                () = self.clock.sleep(FRAME) => {
                    self.watch_disk();
                    if !live {
                        continue;
                    }
                    let nodes = self.handle.metrics().nodes();
                    let moment = Moment {
                        nanos: self.clock.monotonic_nanos().saturating_sub(self.began),
                        wall: self.clock.wall(),
                        nodes: &nodes,
                        stopping: self.stops(),
                    };
                    let width = terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| width.0);
                    let look =
                        Look { style: self.terminal.err, width: width.into(), nodes: self.terminal.verbose };
                    self.terminal.screen.live(&progress.frame(&moment, look));
                }
            }
        }
    }

    /// Says when a disk that was full has room again, and when one is slow.
    fn watch_disk(&mut self) {
        let metrics = self.handle.metrics();
        let epochs = metrics.epochs();
        if epochs > 0 {
            self.pause.end(self.terminal);
        }
        let Some(since) = metrics.committing_since() else { return };
        let took = Duration::from_nanos(self.clock.monotonic_nanos().saturating_sub(since));
        if took > SLOW_COMMIT && self.slow_epoch != Some(epochs) {
            self.slow_epoch = Some(epochs);
            let seconds = took.as_secs();
            self.terminal.say(&format!("the disk is slow: a commit has been under way for {seconds} s, sources wait"));
        }
    }

    /// Whether somebody watches, and nothing else draws on the same terminal.
    fn is_live(&self) -> bool {
        let rows_in_the_way = self.assembled.prints_rows() && std::io::stdout().is_terminal();
        std::io::stderr().is_terminal() && !self.terminal.json && !rows_in_the_way
    }
}

/// CPU time of this process, all threads.
fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// A job that did not start. What is wrong in the job file is shown there.
fn cannot_start_job(assembled: &Assembled, error: &JobError) -> Failure {
    let at = |section, node: &NodeName| {
        Failure::Job(vec![assembled.spec.error(&[section, node.as_str(), "path"], error.to_string())])
    };
    match error {
        JobError::Source { node, cause } if cause.kind() == ErrorKind::Config => at("source", node),
        JobError::Sink { node, cause } if cause.kind() == ErrorKind::Config => at("sink", node),
        error => failed(assembled, error),
    }
}

/// A job that failed, with what its author can do.
fn failed(assembled: &Assembled, error: &JobError) -> Failure {
    let spec = &assembled.spec;
    match error {
        JobError::Stage { node, cause } | JobError::AlwaysFails { node, cause, .. } => {
            let failure = Failure::failed(error.to_string());
            let failure = match assembled.digest(node) {
                Some(digest) => failure.hint(format!("the plugin is {} ({digest})", spec.stages[node].plugin)),
                None => failure,
            };
            match stage_hint(node, cause) {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        JobError::Commit(commit) if commit.kind == ErrorKind::Config => Failure::wrong(error.to_string()),
        error if error.kind() == ErrorKind::Full => Failure::of(ErrorKind::Full, error),
        // What was right when the job started can only have gone wrong since.
        JobError::Source { .. } | JobError::Sink { .. } => Failure::failed(failure::chain(error)),
        error => Failure::of(error.kind(), error),
    }
}

fn stage_hint(stage: &NodeName, error: &OperatorError) -> Option<String> {
    match error {
        OperatorError::Trap { .. } => Some(
            "the plugin has a bug; -vv shows what it logged, and a case for `wasmill test` holds it for good".into(),
        ),
        OperatorError::Deadline { .. } => {
            Some(format!("if the call is only slow, give it more time: [stage.{stage}] limits = {{ call = \"5s\" }}"))
        }
        OperatorError::Limit { .. } => Some(format!(
            "if it is memory and the plugin needs it, give it more: [stage.{stage}] limits = {{ memory = \"512MiB\" }}"
        )),
        OperatorError::Contract { .. } => {
            Some("the plugin has a bug: was it built with an SDK of this version?".into())
        }
        OperatorError::Host { .. } => Some("the job goes on from its last epoch when it is started again".into()),
        OperatorError::Retry { .. } | OperatorError::Fatal { .. } | OperatorError::Instance(_) => None,
    }
}
