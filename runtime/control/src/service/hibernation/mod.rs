//! Jobs that have nothing to do, out of memory: no instance, no task, no thread. Only what they wait for
//! stays: a row in a topic, or a time.
//!
//! ```text
//! runs ─ nothing comes ─▶ ends at an epoch ─▶ jobs/NAME/asleep.json ─▶ rests ─ a row, a timer, a person ─▶ runs
//! ```
//!
//! # Ordering
//! A job is among the sleepers before its topics are looked at: an append that came before is seen by
//! the look, one that comes behind it is heard.
//!
//! # Crash consistency
//! What a job waits for is durable once it rests, and removed before it runs again. A service that is
//! started looks whether there is more in the topics meanwhile, and whether timers are due: so one that
//! was killed at any moment misses nothing. Waking is a start like any other, from the last epoch.

mod idle;
mod sleepers;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::{Notify, Semaphore};
use wasmill_env::{Clock, kill_point};
use wasmill_model::{JobName, TenantName, TopicName};
use wasmill_store::AppendHook;

pub use idle::{Idleness, Look, Rest, TopicWait, decide_rest};
use sleepers::{Key, Sleepers};

use super::problem::Problem;
use super::record::{self, Desired};
use super::slot::{Phase, Run, Slot};
use super::state::Service;
use super::tenant::Tenant;

const KIND: &str = "wasmill-asleep";
const FILE: &str = "asleep.json";
/// Jobs that wake at a time: others wait, so that many do not all take long.
const WAKING_MAX: usize = 16;
/// The clock on the wall may be set: it is looked at again after this long.
const LOOK: Duration = Duration::from_secs(10);
/// How long waking takes is told up to one minute.
const WAKE_NANOS_MAX: u64 = 60_000_000_000;

/// All jobs of a service that rest.
pub(super) struct Hibernation {
    /// After so long without a row a job rests; `None`: never.
    pub(super) after: Option<Duration>,
    clock: Arc<dyn Clock>,
    sleepers: Mutex<Sleepers>,
    /// Some are to wake, or a timer may be due earlier.
    changed: Notify,
    /// From what wakes a job to its running.
    latency: Mutex<Histogram<u64>>,
}

/// How long jobs took to wake, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct WakeLatency {
    pub(super) count: u64,
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

impl Hibernation {
    pub(super) fn new(after: Option<Duration>, clock: Arc<dyn Clock>) -> Self {
        let latency = Histogram::new_with_bounds(1_000, WAKE_NANOS_MAX, 2).expect("these bounds are valid");
        let (sleepers, changed, latency) = (Mutex::default(), Notify::new(), Mutex::new(latency));
        Self { after, clock, sleepers, changed, latency }
    }

    fn sleepers(&self) -> MutexGuard<'_, Sleepers> {
        self.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears appends to the topics of a tenant.
    pub(super) fn hook(self: &Arc<Self>, tenant: TenantName) -> AppendHook {
        let this = Arc::clone(self);
        Arc::new(move |topic: &TopicName| {
            if this.sleepers().appended(&tenant, topic, this.clock.monotonic_nanos()) {
                this.changed.notify_one();
            }
        })
    }

    fn rest(&self, key: Key, rest: Rest) {
        self.sleepers().rest(key, rest);
        self.changed.notify_one();
    }

    fn wake(&self, key: &Key) {
        if self.sleepers().wake(key, self.clock.monotonic_nanos()) {
            self.changed.notify_one();
        }
    }

    /// Waits for jobs that are to wake.
    async fn woken(&self) -> Vec<(Key, u64)> {
        loop {
            let wait = {
                let mut sleepers = self.sleepers();
                let wall = self.clock.wall().0;
                sleepers.tick(wall, self.clock.monotonic_nanos());
                let woken = sleepers.take_woken();
                if !woken.is_empty() {
                    return woken;
                }
                let due = sleepers.next_due().map(|due| due.saturating_sub(wall).max(0).unsigned_abs());
                due.map_or(LOOK, |micros| Duration::from_micros(micros).min(LOOK))
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    fn woke(&self, nanos: u64) {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(nanos.max(1));
    }

    /// How long jobs took to wake since the service was started.
    pub(super) fn latency(&self) -> WakeLatency {
        let latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |quantile| latency.value_at_quantile(quantile);
        WakeLatency { count: latency.len(), p50: at(0.5), p99: at(0.99), max: latency.max() }
    }
}

/// Wakes jobs until the service is gone.
pub(super) async fn keep_waking(service: std::sync::Weak<Service>, hibernation: Arc<Hibernation>) {
    let places = Arc::new(Semaphore::new(WAKING_MAX));
    loop {
        for ((tenant, job), since) in hibernation.woken().await {
            // Never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Some(service) = service.upgrade() else { return };
            let Some(tenant) = service.tenant(&tenant) else { continue };
            let hibernation = Arc::clone(&hibernation);
            tokio::spawn(async move {
                let _place = place;
                if tenant.wake(&job).await {
                    hibernation.woke(hibernation.clock.monotonic_nanos().saturating_sub(since));
                }
            });
        }
    }
}

impl Tenant {
    fn asleep_file(&self, job: &JobName) -> PathBuf {
        self.job_dir(job).join(FILE)
    }

    fn key(&self, job: &JobName) -> Key {
        (self.name.clone(), job.clone())
    }

    /// A job has ended at an epoch, because it has nothing to do.
    pub(super) async fn rests(self: &Arc<Self>, job: &JobName, rest: Rest) {
        let Ok(slot) = self.slot(job) else { return };
        kill_point("serve-job-rests");
        let (disk, file, kept) = (Arc::clone(&self.parts.disk), self.asleep_file(job), rest.clone());
        let kept = tokio::task::spawn_blocking(move || record::write(&*disk, &file, KIND, &kept)).await;
        if let Err(error) = kept.map_err(std::io::Error::other).and_then(|kept| kept) {
            slot.board
                .say("warn", &format!("cannot keep what the job waits for: {error}; it is started anew after a crash"));
        }
        kill_point("serve-job-asleep");
        slot.board.rests();
        self.parts.hibernation.rest(self.key(job), rest.clone());
        self.look(vec![(job.clone(), rest)]).await;
        // The task that ran the job ends, and may be forgotten.
        let tenant = Arc::clone(self);
        let job = job.clone();
        tokio::spawn(async move {
            if let Ok(slot) = tenant.slot(&job) {
                let mut run = slot.run.lock().await;
                if slot.board.phase() == Phase::Hibernating {
                    slot.over(&mut run).await;
                }
            }
        });
    }

    /// Wakes those of the jobs whose topics have more already.
    async fn look(self: &Arc<Self>, jobs: Vec<(JobName, Rest)>) {
        let tenant = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            for (job, rest) in jobs {
                if rest.topics.iter().any(|wait| tenant.has_more(wait)) {
                    tenant.parts.hibernation.wake(&tenant.key(&job));
                }
            }
        });
        if let Err(error) = looked.await {
            tracing::warn!("looking whether jobs have something to do ended early: {error}");
        }
    }

    /// Whether a topic has more than a job has read. Where that cannot be told the job wakes, and says why.
    fn has_more(&self, wait: &TopicWait) -> bool {
        let Ok(topic) = self.topics.open(&wait.topic) else { return true };
        wait.next.iter().any(|(partition, next)| topic.bounds_blocking(*partition).map_or(true, |(_, end)| end > *next))
    }

    /// Jobs that rested when the service ended, or was killed, rest on.
    pub(super) async fn rest_on(self: &Arc<Self>) {
        let tenant = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let record = tenant.record();
            let mut resting = Vec::new();
            for (job, slot) in tenant.slots() {
                if record.jobs.get(&job).is_none_or(|wanted| wanted.desired != Desired::Running) {
                    continue;
                }
                // One that cannot be read is no loss: the job is started.
                if let Ok(Some(rest)) = record::read::<Rest>(&*tenant.parts.disk, &tenant.asleep_file(&job), KIND) {
                    slot.board.rests();
                    tenant.parts.hibernation.rest(tenant.key(&job), rest.clone());
                    resting.push((job, rest));
                }
            }
            resting
        });
        let resting = read.await.unwrap_or_default();
        if self.parts.hibernation.after.is_none() {
            resting.iter().for_each(|(job, _)| self.parts.hibernation.wake(&self.key(job)));
        } else if !resting.is_empty() {
            let tenant = Arc::clone(self);
            tokio::spawn(async move { tenant.look(resting).await });
        }
    }

    /// A job that does not run rests no more: it is about to be started, changed or removed. `durably`:
    /// what it waited for does not come back with a crash. Where that has happened it need not be: the
    /// job is woken again.
    async fn rouse(&self, job: &JobName, slot: &Slot, durably: bool) {
        self.parts.hibernation.sleepers().remove(&self.key(job));
        let (disk, file) = (Arc::clone(&self.parts.disk), self.asleep_file(job));
        let removed = tokio::task::spawn_blocking(move || {
            disk.remove(&file)?;
            if durably { disk.sync_dir(file.parent().unwrap_or(&file)) } else { Ok(()) }
        });
        match removed.await.map_err(std::io::Error::other).and_then(|removed| removed) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                slot.board.say("warn", &format!("cannot remove what the job waited for: {error}"));
            }
            _ => {}
        }
        slot.board.roused();
    }

    /// Ends a job, or its rest: see [`Slot::stop`].
    pub(super) async fn halt(&self, job: &JobName, slot: &Slot, run: &mut Option<Run>, at_once: bool) {
        slot.stop(run, at_once).await;
        self.rouse(job, slot, true).await;
    }

    /// Has a job run that rests, for who wants something of it.
    pub(super) async fn awake(self: &Arc<Self>, job: &JobName) -> Result<(), Problem> {
        let slot = self.slot(job)?;
        if slot.board.phase() == Phase::Hibernating {
            self.wake(job).await;
        }
        Ok(())
    }

    /// Starts a job that rests. Returns whether it runs.
    pub(super) async fn wake(self: &Arc<Self>, job: &JobName) -> bool {
        let Ok(slot) = self.slot(job) else { return false };
        {
            let mut run = slot.run.lock().await;
            if slot.board.phase() != Phase::Hibernating {
                return false;
            }
            // Where it has just gone to rest it is about to end.
            slot.over(&mut run).await;
            kill_point("serve-job-wakes");
            self.rouse(job, &slot, false).await;
            self.start(job, &slot, &mut run);
        }
        slot.board.settled().await == Phase::Running
    }
}
