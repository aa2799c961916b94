//! A job from its begin to its end: attempts, rollback, waiting for room on a disk, the end that
//! somebody asks for. `wasmill run` supervises one job, the service many.
//!
//! Nothing here prints: what happens goes to a [`Watch`].

mod attempt;
mod begin;
mod failed;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use wasmill_engine::{JobHandle, NodeSnapshot};
use wasmill_env::{Clock, RealClock};
use wasmill_model::{Epoch, NodeName};
use wasmill_tenancy::Account;

use crate::assemble::Assembled;
use crate::control::Control;
use crate::failure::Failure;
use crate::summary::Summary;

/// From one look for room on a full disk to the next.
pub(crate) const ROOM_RETRY: Duration = Duration::from_secs(1);

/// A job that is to run.
pub(crate) struct Supervised {
    pub(crate) assembled: Arc<Assembled>,
    pub(crate) clock: Arc<RealClock>,
    /// Where its tasks run.
    pub(crate) data: tokio::runtime::Handle,
    /// Where it keeps its state, if it does.
    pub(crate) state: Option<PathBuf>,
    /// Answers requests, where the job keeps its state.
    pub(crate) control: Option<Arc<Control>>,
    /// Forget what the state directory holds.
    pub(crate) fresh: bool,
    /// Forget the state of what the job has no more.
    pub(crate) allow_dropped: bool,
    /// Whose budgets it counts against.
    pub(crate) account: Option<Arc<Account>>,
}

/// How a job ended, where it did not fail.
pub(crate) enum Ended {
    /// It ran, to its end or until somebody asked for it.
    Ran(Box<Summary>),
    /// It had finished before.
    Already(Epoch),
}

/// What happens to a job.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// It goes on behind an epoch.
    Resuming(Epoch),
    /// So many dead letters are processed again.
    Replaying(u64),
    /// The state directory is ours: others may be let in.
    Opened,
    /// An attempt runs, and can be asked.
    Began,
    /// A source can be reached there.
    Listening { source: &'a NodeName, location: &'a str },
    /// A disk is full; the job looks for room every [`ROOM_RETRY`].
    NoRoom(&'a str),
    /// There is room again.
    RoomAgain,
    /// A commit has been under way for so long.
    SlowDisk(Duration),
    /// Somebody has asked for the end.
    Stopping,
    /// A plugin on trial failed: the job goes on from its last epoch without it.
    RolledBack(&'a str),
}

/// A moment of a running job.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Nanoseconds since the attempt began.
    pub(crate) nanos: u64,
    /// In the order of the plan.
    pub(crate) nodes: &'a [NodeSnapshot],
    /// Whether somebody has asked for the end.
    pub(crate) stopping: bool,
}

/// Hears of a job.
pub(crate) trait Watch: Send {
    /// Something happened.
    fn event(&mut self, event: Event<'_>);

    /// From one frame to the next.
    fn every(&self) -> Duration;

    /// Whether frames are wanted.
    fn wants_frames(&self) -> bool {
        false
    }

    /// The job as it stands; once more without one when the attempt is over.
    fn frame(&mut self, _frame: Option<&Frame<'_>>) {}
}

/// Asks a job to end: first at an epoch, then at once.
pub(crate) type StopAsked = mpsc::Receiver<()>;

/// Waits for somebody to ask for the end. Cancel safe.
pub(crate) async fn stop_asked(asked: &mut StopAsked) {
    if asked.recv().await.is_none() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}

/// A job that waits for room on a disk.
#[derive(Debug, Default)]
struct Pause {
    /// What was said last, until an epoch is committed again.
    said: Option<String>,
}

impl Pause {
    fn begin(&mut self, reason: &str, watch: &mut dyn Watch) {
        if self.said.as_deref() != Some(reason) {
            watch.event(Event::NoRoom(reason));
            self.said = Some(reason.to_owned());
        }
    }

    fn end(&mut self, watch: &mut dyn Watch) {
        if self.said.take().is_some() {
            watch.event(Event::RoomAgain);
        }
    }
}

impl Supervised {
    /// What runs: stages may have been changed since the job was started.
    fn now(&self) -> Arc<Assembled> {
        self.control.as_ref().map_or_else(|| Arc::clone(&self.assembled), |control| control.assembled())
    }

    /// Runs the job, again and again where a disk is full or a plugin on trial failed.
    pub(crate) async fn run(&self, stops: &mut StopAsked, watch: &mut dyn Watch) -> Result<Ended, Failure> {
        let mut pause = Pause::default();
        let mut fresh = self.fresh;
        let mut again = false;
        loop {
            let attempt = self.attempt((fresh, again), &mut pause, stops, watch).await;
            if let Some(control) = &self.control {
                if let Ok(attempt::Attempted::RolledBack(reason)) = &attempt {
                    control.rolled_back(reason);
                }
                control.end();
            }
            let failure = match attempt {
                Ok(attempt::Attempted::Ended(ended)) => return Ok(ended),
                Ok(attempt::Attempted::RolledBack(reason)) => {
                    watch.event(Event::RolledBack(&reason));
                    // As after a crash, from the epoch before the swap.
                    fresh = false;
                    again = true;
                    continue;
                }
                Err(failure) => failure,
            };
            let Some(reason) = failure.no_room().filter(|_| self.state.is_some() && self.assembled.can_be_read_again())
            else {
                return Err(failure);
            };
            // As after a crash: nothing is tried again, everything is read from what is durable.
            pause.begin(reason, watch);
            fresh = false;
            again = true;
            tokio::select! {
                () = self.clock.sleep(ROOM_RETRY) => {}
                () = stop_asked(stops) => return Err(failure),
            }
        }
    }
}

/// Does `act` on a thread that may block.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Failure::failed(io::Error::other(error).to_string()),
    })
}

/// What a running attempt is asked by.
struct Running<'a> {
    job: &'a Supervised,
    handle: JobHandle,
    stops: &'a mut StopAsked,
    watch: &'a mut dyn Watch,
    pause: &'a mut Pause,
    began: u64,
    stopping: bool,
    /// The epochs committed when a slow commit was last spoken of.
    slow_epoch: Option<u64>,
}
