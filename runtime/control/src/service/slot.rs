//! One job of a tenant: what it is doing, and whoever keeps it doing that.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use utoipa::ToSchema;
use wasmill_contract::BoxFuture;
use wasmill_engine::JobRemote;
use wasmill_env::Clock;

use super::hibernation::Rest;
use super::host::{Asked, Change, Command, Host, JobEnd, JobOrder, Ties, Wrong};
use super::logs::LogRing;
use super::problem::Problem;
use super::usage::Usage;
use crate::local::{Answer, Refusal, Request};

/// Requests that wait for a job.
const COMMANDS_MAX: usize = 16;
/// A job that failed and may go well another time is tried again after this long, then after twice as
/// long, and so on.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A job that is to end at an epoch, and has not after this long, is cut off: one that cannot reach its
/// sink, say. It goes on from its last epoch.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is being opened.
    Starting,
    /// Rows go through.
    Running,
    /// It has nothing to do, and is out of memory until it has.
    Hibernating,
    /// It has failed for want of something that may come back, and is tried again.
    Waiting,
    /// It ends at the next epoch.
    Stopping,
    /// It rests.
    Stopped,
    /// It has nothing left to do.
    Finished,
    /// It cannot go on.
    Failed,
}

impl Phase {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Hibernating => "hibernating",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// A job while it runs.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its counters, and what it can be asked.
    pub remote: JobRemote,
    /// `source`, `stage` or `sink`, of each node in the order of the plan.
    pub kinds: Vec<&'static str>,
}

/// Where a job says how it is.
pub struct Board {
    state: Mutex<State>,
    logs: Arc<LogRing>,
    clock: Arc<dyn Clock>,
    /// The phase is another one.
    changed: Notify,
}

struct State {
    phase: Phase,
    wrong: Option<Wrong>,
    live: Option<Live>,
    /// How often it was started since the service was.
    starts: u64,
    /// Plugins that were put into a stage while it ran, since the service was started.
    swaps: u64,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Board {
    pub(super) fn new(logs: Arc<LogRing>, clock: Arc<dyn Clock>) -> Self {
        let state = State { phase: Phase::Stopped, wrong: None, live: None, starts: 0, swaps: 0 };
        Self { state: Mutex::new(state), logs, clock, changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the job is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Why it does not run, where something is wrong.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        self.state().wrong.clone()
    }

    /// The job, while it runs.
    pub(super) fn live(&self) -> Option<Live> {
        self.state().live.clone()
    }

    pub(super) fn starts(&self) -> u64 {
        self.state().starts
    }

    pub(super) fn swaps(&self) -> u64 {
        self.state().swaps
    }

    pub(super) fn swapped(&self) {
        self.state().swaps += 1;
    }

    /// The lines that it has said.
    pub(super) fn logs(&self) -> &LogRing {
        &self.logs
    }

    /// An attempt runs.
    pub fn runs(&self, live: Live) {
        let mut state = self.state();
        (state.phase, state.wrong, state.live) = (Phase::Running, None, Some(live));
        state.starts += 1;
        drop(state);
        self.changed.notify_waiters();
    }

    /// What runs has other nodes.
    pub fn has(&self, kinds: Vec<&'static str>) {
        if let Some(live) = &mut self.state().live {
            live.kinds = kinds;
        }
    }

    /// It has nothing to do.
    pub(super) fn rests(&self) {
        self.set(Phase::Hibernating, None);
        self.logs.shrink();
    }

    /// It rests no more, and does not run yet.
    pub(super) fn roused(&self) {
        if matches!(self.phase(), Phase::Hibernating | Phase::Stopping) {
            self.set(Phase::Stopped, None);
        }
    }

    /// Waits until the job has been started, or cannot be.
    pub(super) async fn settled(&self) -> Phase {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on a notification counts.
            changed.as_mut().enable();
            match self.phase() {
                Phase::Starting => changed.await,
                phase => return phase,
            }
        }
    }

    /// Something worth a line happened.
    pub fn say(&self, level: &str, message: &str) {
        self.logs.add(self.clock.wall(), level, None, message);
    }

    /// The job waits for something, and goes on by itself.
    pub fn waits(&self, message: &str) {
        self.say("warn", message);
        let mut state = self.state();
        state.phase = Phase::Waiting;
        state.wrong = Some(Wrong { message: message.to_owned(), hints: Vec::new(), diagnostics: Vec::new() });
        drop(state);
        self.changed.notify_waiters();
    }

    /// The job cannot even be tried.
    pub(super) fn cannot_start(&self, problem: Problem) {
        let Problem { detail: message, hints, diagnostics, .. } = problem;
        self.set(Phase::Failed, Some(Wrong { message, hints, diagnostics }));
    }

    fn set(&self, phase: Phase, wrong: Option<Wrong>) {
        if let Some(wrong) = &wrong {
            self.say("error", &wrong.message);
        }
        let mut state = self.state();
        (state.phase, state.wrong) = (phase, wrong);
        drop(state);
        self.changed.notify_waiters();
    }

    /// The run is over; what it has counted is used.
    fn over(&self) -> Usage {
        let live = self.state().live.take();
        live.map_or_else(Usage::default, |live| Usage::of(live.remote.metrics(), &live.kinds))
    }
}

/// A job of a tenant.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) board: Arc<Board>,
    /// Whoever keeps it running. Held while it is started or stopped: one at a time.
    pub(super) run: tokio::sync::Mutex<Option<Run>>,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    /// What runs, and is tried again where it fails.
    order: Arc<Mutex<Option<JobOrder>>>,
}

/// Keeps a job running.
#[derive(Debug)]
pub(super) struct Run {
    stops: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl Run {
    /// Whether the job has ended.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Slot {
    pub(super) fn new(board: Board) -> Self {
        Self {
            board: Arc::new(board),
            run: tokio::sync::Mutex::new(None),
            commands: Mutex::new(None),
            order: Arc::default(),
        }
    }

    fn commands(&self) -> MutexGuard<'_, Option<mpsc::Sender<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the job. `run` is this slot's own, and nobody runs it.
    /// `used` hears what a run has used, `rests` that the job has nothing to do.
    pub(super) fn start(
        &self,
        run: &mut Option<Run>,
        host: Arc<dyn Host>,
        order: JobOrder,
        clock: Arc<dyn Clock>,
        used: impl Fn(Usage) + Send + 'static,
        rests: impl FnOnce(Rest) -> BoxFuture<'static, ()> + Send + 'static,
    ) {
        let (stops, stop_asked) = mpsc::channel(2);
        let (commands, asked) = mpsc::channel(COMMANDS_MAX);
        *self.commands() = Some(commands);
        self.board.set(Phase::Starting, None);
        let ties = Ties { commands: asked, stops: stop_asked, board: Arc::clone(&self.board) };
        self.changed(order);
        let task = tokio::spawn(keep_running(host, Arc::clone(&self.order), ties, clock, used, rests));
        *run = Some(Run { stops, task });
    }

    /// The job runs as this has it: it is tried again with that.
    pub(super) fn changed(&self, order: JobOrder) {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order);
    }

    /// It is not known yet how the job goes on: one that fails meanwhile is not tried again. Returns how it runs.
    pub(super) fn undecided(&self) -> Option<JobOrder> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends the job: at an epoch, or at once where it may be lost what was done since.
    pub(super) async fn stop(&self, run: &mut Option<Run>, at_once: bool) {
        let Some(Run { stops, task }) = run.as_mut() else { return };
        if !task.is_finished() {
            self.board.set(Phase::Stopping, None);
            // One that has ended hears nothing.
            let _ended = stops.send(()).await.is_err();
            if at_once {
                let _ended = stops.send(()).await.is_err();
            }
        }
        // A panic was caught within.
        let mut cut_off = at_once;
        tokio::select! {
            _over = &mut *task => {}
            () = self.board.clock.sleep(STOP_PATIENCE) => {
                let seconds = STOP_PATIENCE.as_secs();
                self.board.say("warn", &format!("cut off: it had not ended after {seconds} s; it goes on from its last epoch"));
                cut_off = true;
                let _ended = stops.send(()).await.is_err();
                let _over = task.await.is_err();
            }
        }
        if cut_off {
            self.board.set(Phase::Stopped, None);
        }
        self.forget_run(run);
    }

    /// Waits for the end of a run that comes by itself.
    pub(super) async fn over(&self, run: &mut Option<Run>) {
        if let Some(Run { task, .. }) = run {
            // A panic was caught within.
            let _over = task.await.is_err();
        }
        self.forget_run(run);
    }

    /// Nothing is kept of a run that is over.
    fn forget_run(&self, run: &mut Option<Run>) {
        *run = None;
        *self.commands() = None;
        *self.order.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Asks the job for something while it runs.
    pub(super) async fn ask(&self, request: Request) -> Answer {
        self.send(Asked::Request(request)).await
    }

    /// Has the job go on with another file while it runs.
    pub(super) async fn change(&self, change: Change) -> Answer {
        self.send(Asked::Change(Box::new(change))).await
    }

    async fn send(&self, asked: Asked) -> Answer {
        let resting = || Refusal::new(format!("the job does not run: it is {}", self.board.phase().name()));
        let commands = self.commands().clone().ok_or_else(resting)?;
        let (reply, answer) = oneshot::channel();
        commands.send(Command { asked, reply }).await.map_err(|_ended| resting())?;
        let unheard = Refusal::new("the job ended before it had answered");
        answer.await.map_err(|_ended| Refusal { undecided: true, ..unheard })?
    }
}

/// Runs a job until it has ended for good.
async fn keep_running(
    host: Arc<dyn Host>,
    order: Arc<Mutex<Option<JobOrder>>>,
    mut ties: Ties,
    clock: Arc<dyn Clock>,
    used: impl Fn(Usage) + Send + 'static,
    rests: impl FnOnce(Rest) -> BoxFuture<'static, ()> + Send + 'static,
) {
    let board = Arc::clone(&ties.board);
    let mut retry = RETRY_MIN;
    loop {
        let began = clock.monotonic_nanos();
        let order = order.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(order) = order else { return board.set(Phase::Stopped, None) };
        let ended = AssertUnwindSafe(host.run(&order, &mut ties)).catch_unwind().await;
        used(board.over());
        let (wrong, again) = match ended {
            Ok(JobEnd::Finished) => return board.set(Phase::Finished, None),
            Ok(JobEnd::Stopped) => return board.set(Phase::Stopped, None),
            Ok(JobEnd::Rests(rest)) => return rests(rest).await,
            Ok(JobEnd::Failed { wrong, retry }) => (wrong, retry),
            // Said by the panic itself.
            Err(_) => {
                let message = "the host has a bug: it panicked; the log of the service says where".to_owned();
                (Wrong { message, hints: Vec::new(), diagnostics: Vec::new() }, false)
            }
        };
        if !again {
            return board.set(Phase::Failed, Some(wrong));
        }
        let ran = Duration::from_nanos(clock.monotonic_nanos().saturating_sub(began));
        retry = if ran > RETRY_MAX { RETRY_MIN } else { retry };
        board.waits(&format!("{}; tried again in {} s", wrong.message, retry.as_secs()));
        tokio::select! {
            () = clock.sleep(retry) => {}
            _ = ties.stops.recv() => return board.set(Phase::Stopped, None),
        }
        retry = (retry * 2).min(RETRY_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::Value;
    use wasmill_env::{SimulatedClock, SimulatedDisk};
    use wasmill_model::{JobName, TenantName, Timestamp};
    use wasmill_store::Topics;
    use wasmill_tenancy::{Account, Processor};

    use super::super::Budget;
    use super::super::plugins::Inspected;
    use super::super::record::Egress;
    use super::*;

    /// Runs a job that ends the `after`-th time that it is asked to.
    struct Stubborn {
        after: u32,
        asked: AtomicU32,
    }

    impl Host for Stubborn {
        fn inspect(&self, _: Arc<[u8]>) -> BoxFuture<'_, Result<Inspected, Wrong>> {
            unreachable!("no plugin is pushed")
        }

        fn pull<'a>(
            &'a self,
            _: &'a str,
            _: &'a Egress,
            _: u64,
        ) -> BoxFuture<'a, Result<super::super::Pulled, super::super::PullError>> {
            unreachable!("no plugin is pulled")
        }

        fn check<'a>(&'a self, _: &'a JobOrder) -> BoxFuture<'a, Result<Value, Wrong>> {
            unreachable!("no job is deployed")
        }

        fn run<'a>(&'a self, _: &'a JobOrder, ties: &'a mut Ties) -> BoxFuture<'a, JobEnd> {
            Box::pin(async move {
                while self.asked.load(Ordering::Relaxed) < self.after && ties.stops.recv().await.is_some() {
                    self.asked.fetch_add(1, Ordering::Relaxed);
                }
                JobEnd::Stopped
            })
        }

        fn rescaled(&self, _: &str, _: &str, _: u16) -> Result<String, Wrong> {
            unreachable!("nothing is rescaled")
        }
    }

    /// Stops a job. Returns how often it was asked to end, its phase, and what its log says.
    async fn stopped(after: u32, at_once: bool) -> (u32, Phase, String) {
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let logs = Arc::new(LogRing::default());
        let slot = Arc::new(Slot::new(Board::new(Arc::clone(&logs), Arc::clone(&clock) as _)));
        let host = Arc::new(Stubborn { after, asked: AtomicU32::new(0) });
        let account = Account::new(&Processor::new(1, Arc::clone(&clock) as _), &Budget::default().allowance());
        let order = JobOrder {
            tenant: TenantName::new("acme").expect("a name"),
            job: JobName::new("job").expect("a name"),
            text: "".into(),
            pins: BTreeMap::new(),
            files: Default::default(),
            state: Default::default(),
            dead_letters: Default::default(),
            topics: Topics::new(Arc::new(SimulatedDisk::default()), Path::new("/topics"), Arc::clone(&clock) as _),
            plugins: Default::default(),
            egress: Egress::default(),
            paused: false,
            account,
            untrusted: Default::default(),
            hibernate_after: None,
            allow_dropped: false,
        };
        let stopping = tokio::spawn({
            let (slot, host, clock) = (Arc::clone(&slot), Arc::clone(&host), Arc::clone(&clock));
            async move {
                let mut run = slot.run.lock().await;
                slot.start(&mut run, host, order, clock as _, |_| {}, |_| Box::pin(async {}));
                slot.stop(&mut run, at_once).await;
            }
        });
        // Until it has ended by itself, or waits for the end of patience.
        while !stopping.is_finished() && host.asked.load(Ordering::Relaxed) < after {
            tokio::task::yield_now().await;
            if clock.sleepers() > 0 && host.asked.load(Ordering::Relaxed) > 0 {
                clock.advance(STOP_PATIENCE);
            }
        }
        stopping.await.expect("it ends");
        let said = logs.page(None, 10).into_iter().map(|line| line.message).collect::<Vec<_>>().join("; ");
        (host.asked.load(Ordering::Relaxed), slot.board.phase(), said)
    }

    #[tokio::test]
    async fn a_job_that_does_not_end_at_an_epoch_is_cut_off_after_twenty_seconds() {
        let (asked, phase, said) = stopped(2, false).await;
        assert_eq!((asked, phase), (2, Phase::Stopped));
        assert!(said.contains("cut off: it had not ended after 20 s"), "{said}");
    }

    #[tokio::test]
    async fn a_job_that_ends_by_itself_is_not_cut_off() {
        for (after, at_once) in [(1, false), (2, true)] {
            let (asked, phase, said) = stopped(after, at_once).await;
            assert_eq!((asked, phase), (after, Phase::Stopped));
            assert!(!said.contains("cut off"), "{said}");
        }
    }
}
