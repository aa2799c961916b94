//! What `wasmill run` does for others while the job runs: one file a verb.

mod savepoint;
mod status;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::path::Path;

use serde_json::json;
use tokio::sync::oneshot;
use wasmill_control::local::{Answer, Listener, Refusal, Request};
use wasmill_control::{Savepoint, Savepoints};
use wasmill_engine::JobRemote;
use wasmill_env::{Clock, RealClock};
use wasmill_model::Epoch;

use crate::assemble::Assembled;

/// Answers requests to a job, over every attempt at running it.
pub(crate) struct Control<'a> {
    assembled: &'a Assembled,
    clock: &'a RealClock,
    /// The state directory.
    dir: &'a Path,
    /// The attempt under way.
    current: RefCell<Option<Current>>,
    paused: Cell<bool>,
    stopping: Cell<bool>,
}

/// One attempt at running the job.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) remote: JobRemote,
    pub(crate) savepoints: Savepoints,
    /// The epoch that it went on from.
    pub(crate) resumed_at: Epoch,
    /// When it began, in monotonic nanoseconds.
    pub(crate) began: u64,
}

impl<'a> Control<'a> {
    pub(crate) fn new(assembled: &'a Assembled, clock: &'a RealClock, dir: &'a Path) -> Self {
        let (paused, stopping) = (Cell::new(false), Cell::new(false));
        Self { assembled, clock, dir, current: RefCell::new(None), paused, stopping }
    }

    /// Answers whoever asks, once somebody listens.
    pub(crate) async fn serve(&self, listener: oneshot::Receiver<Listener>) -> Infallible {
        match listener.await {
            Ok(listener) => listener.serve(self.clock, async |request| self.answer(request).await).await,
            // Nobody can ask.
            Err(_) => std::future::pending().await,
        }
    }

    /// An attempt begins.
    pub(crate) async fn begin(&self, current: Current) {
        if self.paused.get() {
            current.remote.pause(true).await;
        }
        *self.current.borrow_mut() = Some(current);
    }

    /// The attempt is over.
    pub(crate) fn end(&self) {
        *self.current.borrow_mut() = None;
    }

    /// Whether somebody has asked for the end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn current(&self) -> Result<Current, Refusal> {
        let current = self.current.borrow().clone();
        current
            .ok_or_else(|| Refusal::new("the job does not run just now: it starts, ends, or waits for room on a disk"))
    }

    async fn answer(&self, request: Request) -> Answer {
        let current = self.current()?;
        match request {
            Request::Status => Ok(status::status(self, &current)),
            Request::Savepoint { file } => savepoint::savepoint(self, &current, file).await,
            Request::Pause => self.pause(&current, true).await,
            Request::Resume => self.pause(&current, false).await,
            Request::Stop => {
                self.stopping.set(true);
                current.remote.stop();
                Ok(json!({"job": self.assembled.spec.name, "state": "stopping"}))
            }
        }
    }

    async fn pause(&self, current: &Current, paused: bool) -> Answer {
        self.paused.set(paused);
        current.remote.pause(paused).await;
        Ok(json!({"job": self.assembled.spec.name, "state": self.state()}))
    }

    fn state(&self) -> &'static str {
        match (self.stopping.get(), self.paused.get()) {
            (true, _) => "stopping",
            (false, true) => "paused",
            (false, false) => "running",
        }
    }
}
