//! One attempt: from what is durable to the end of the job, or to what keeps it from going on.

use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmill_engine::{JobError, JobParts};
use wasmill_env::Clock;
use wasmill_model::Epoch;

use super::begin::Beginning;
use super::failed::{cannot_start_job, failed};
use super::{Ended, Event, Frame, Pause, Running, StopAsked, Supervised, Watch, stop_asked};
use crate::control::{Control, Current};
use crate::failure::Failure;
use crate::first_output::FirstOutput;
use crate::summary::{Summary, roles};

/// A commit that takes longer is worth a word.
const SLOW_COMMIT: Duration = Duration::from_secs(5);

/// How an attempt ended, where it did not fail.
pub(super) enum Attempted {
    /// The job has ended.
    Ended(Ended),
    /// A plugin that was swapped in failed: the job goes on from its last epoch.
    RolledBack(String),
}

impl Supervised {
    pub(super) async fn attempt(
        &self,
        (fresh, again): (bool, bool),
        pause: &mut Pause,
        stops: &mut StopAsked,
        watch: &mut dyn Watch,
    ) -> Result<Attempted, Failure> {
        let assembled = &*self.now();
        let first_output = FirstOutput::default();
        let mut nodes = assembled.parts(|sink| first_output.watch(sink));
        let Beginning { letters, recovered, states, committer, finished, beside } =
            self.begin(&mut nodes, fresh, again).await?;
        let resumed_at = (recovered.epoch > Epoch::default()).then_some(recovered.epoch);
        if finished {
            return Ok(Attempted::Ended(Ended::Already(recovered.epoch)));
        }
        if let Some(epoch) = resumed_at.filter(|_| !again) {
            watch.event(Event::Resuming(epoch));
        }
        if !recovered.replays.is_empty() {
            watch.event(Event::Replaying(recovered.replays.len() as u64));
        }
        if self.state.is_some() {
            watch.event(Event::Opened);
        }
        let parts = JobParts {
            plan: assembled.planned.plan.clone(),
            nodes,
            recovered,
            states,
            committer: letters.committer(committer),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            settings: assembled.settings(),
            account: self.account.clone(),
        };
        let began = self.clock.monotonic_nanos();
        let handle = tokio::select! {
            started = wasmill_engine::start(parts, &self.data) => {
                started.map_err(|error| cannot_start_job(assembled, &error))?
            }
            () = stop_asked(stops) => return Err(Failure::failed("stopped before the job had started")),
        };
        tracing::info!(job = assembled.spec.name.as_str(), "started");
        if let (Some(control), Some((savepoints, graphs))) = (&self.control, beside) {
            let (remote, resumed_at) = (handle.remote().clone(), resumed_at.unwrap_or_default());
            control.begin(Current { remote, savepoints, graphs, resumed_at, began }).await;
        }
        watch.event(Event::Began);
        for (source, location) in handle.locations() {
            if assembled.spec.sources.contains_key(source) {
                watch.event(Event::Listening { source, location });
            }
        }
        let mut running = Running { job: self, handle, stops, watch, pause, began, stopping: false, slow_epoch: None };
        if let Some(reason) = running.finish().await? {
            return Ok(Attempted::RolledBack(reason));
        }
        running.pause.end(running.watch);
        let metrics = running.handle.metrics();
        Ok(Attempted::Ended(Ended::Ran(Box::new(Summary {
            resumed_at,
            stopped: running.stops(),
            nanos: self.clock.monotonic_nanos().saturating_sub(began),
            cpu_nanos: cpu_nanos(),
            first_output_nanos: first_output.nanos(),
            nodes: metrics.nodes(),
            epochs: metrics.epochs(),
            latency: metrics.latency(),
            visible: metrics.visible_latency(),
            locations: (running.handle.locations().iter())
                .map(|(node, place)| (node.clone(), place.strip_prefix("./").unwrap_or(place).to_owned()))
                .collect(),
            dead_letters: letters.path().map(|path| path.display().to_string()),
            roles: roles(&self.now()),
        }))))
    }
}

impl Running<'_> {
    /// Whether somebody has asked for the end, here or from elsewhere.
    fn stops(&self) -> bool {
        self.stopping || self.job.control.as_deref().is_some_and(Control::is_stopping)
    }

    /// Runs to the end. Returns why, where a plugin on trial was the end.
    async fn finish(&mut self) -> Result<Option<String>, Failure> {
        let clock = &self.job.clock;
        loop {
            tokio::select! {
                ended = self.handle.wait() => {
                    self.watch.frame(None);
                    return match ended {
                        Err(JobError::Sink { cause, .. }) if wasmill_connectors::is_broken_pipe(&cause) => {
                            Err(Failure::OutputClosed)
                        }
                        Err(error @ JobError::TrialFailed { .. }) => Ok(Some(error.to_string())),
                        ended => ended.map(|()| None).map_err(|error| failed(&self.job.now(), &error)),
                    };
                }
                () = stop_asked(self.stops) => {
                    if self.stopping {
                        return Err(Failure::failed("cut off: what was read since the last epoch is not committed"));
                    }
                    self.stopping = true;
                    self.handle.stop();
                    self.watch.event(Event::Stopping);
                }
                () = clock.sleep(self.watch.every()) => {
                    self.watch_disk();
                    if self.watch.wants_frames() {
                        let nodes = self.handle.metrics().nodes();
                        let nanos = clock.monotonic_nanos().saturating_sub(self.began);
                        let stopping = self.stops();
                        self.watch.frame(Some(&Frame { nanos, nodes: &nodes, stopping }));
                    }
                }
            }
        }
    }

    /// Says when a disk that was full has room again, and when one is slow.
    fn watch_disk(&mut self) {
        let metrics = self.handle.metrics();
        let epochs = metrics.epochs();
        if epochs > 0 {
            self.pause.end(self.watch);
        }
        let Some(since) = metrics.committing_since() else { return };
        let took = Duration::from_nanos(self.job.clock.monotonic_nanos().saturating_sub(since));
        if took > SLOW_COMMIT && self.slow_epoch != Some(epochs) {
            self.slow_epoch = Some(epochs);
            self.watch.event(Event::SlowDisk(took));
        }
    }
}

/// CPU time of this process, all threads.
fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
