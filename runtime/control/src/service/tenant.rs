//! One tenant: what it has, what it may, what it uses.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmill_env::{Background, Clock, Disk};
use wasmill_model::{JobName, TenantName};
use wasmill_store::Topics;
use wasmill_tenancy::{Account, Processor, Rate};

use super::hibernation::Hibernation;
use super::host::{Host, Wrong};
use super::logs::JobLogs;
use super::problem::Problem;
use super::record::{Kept as _, TenantRecord};
use super::registry::Registry;
use super::room::{Hall, Room};
use super::slot::{Board, Slot};
use super::usage::Usage;

/// What a tenant needs of the service.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) host: Arc<dyn Host>,
    pub(super) logs: JobLogs,
    /// What plugins of all tenants run on.
    pub(super) processor: Arc<Processor>,
    pub(super) hibernation: Arc<Hibernation>,
    pub(super) hall: Hall,
    /// Hashes plugins.
    pub(super) background: Background,
}

impl Parts {
    fn slot(&self, tenant: &TenantName, job: &JobName) -> Arc<Slot> {
        let logs = self.logs.of(tenant.as_str(), job.as_str());
        Arc::new(Slot::new(Board::new(logs, Arc::clone(&self.clock))))
    }
}

/// A tenant.
pub(super) struct Tenant {
    pub(super) name: TenantName,
    pub(super) dir: PathBuf,
    pub(super) parts: Parts,
    pub(super) topics: Topics,
    registry: Registry<TenantRecord>,
    slots: Mutex<BTreeMap<JobName, Arc<Slot>>>,
    /// What its jobs use while they run.
    pub(super) account: Arc<Account>,
    requests: Mutex<Rate>,
    changes: Mutex<Rate>,
    /// Milliseconds of compiling.
    compiled: Mutex<Rate>,
    /// One plugin of the tenant is compiled at a time: others wait, and so no tenant fills the queue.
    compiling: Semaphore,
    /// Taps that are open.
    pub(super) taps: Mutex<u32>,
    /// For what its requests hold.
    pub(super) room: Room,
    /// What was used and is not in the record yet.
    used: Mutex<Usage>,
    state_bytes: Mutex<Measured>,
    topic_bytes: Mutex<Measured>,
}

/// Bytes in a folder, looked at now and then: the more files there are, the more seldom.
#[derive(Debug, Default)]
struct Measured {
    bytes: u64,
    /// Until when they are good for, in monotonic nanoseconds.
    until: u64,
}

/// Looking takes at most one part of so many of the time.
const LOOK_SHARE: u64 = 50;

/// Who looks may take as long: meanwhile others are told what was found before.
const LOOKING_NANOS_MAX: u64 = 60_000_000_000;

impl Measured {
    /// Whether it was looked, and it is time to look again.
    fn is_due(&self, now: u64) -> bool {
        self.until > 0 && now >= self.until
    }

    fn look(&mut self, dir: &Path, clock: &dyn Clock) {
        let began = clock.monotonic_nanos();
        let bytes = bytes_in(dir);
        self.found(bytes, began, clock.monotonic_nanos());
    }

    fn found(&mut self, bytes: u64, began: u64, done: u64) {
        self.bytes = bytes;
        self.until = done.saturating_add(done.saturating_sub(began).saturating_mul(LOOK_SHARE)).max(1);
    }

    /// Bytes in a folder. Blocks while they are looked at: the first time all who ask, then one of them.
    fn bytes(this: &Mutex<Self>, dir: &Path, clock: &dyn Clock) -> u64 {
        let began = clock.monotonic_nanos();
        {
            let mut measured = locked(this);
            if measured.until == 0 {
                measured.look(dir, clock);
            }
            if !measured.is_due(began) {
                return measured.bytes;
            }
            measured.until = began.saturating_add(LOOKING_NANOS_MAX);
        }
        let bytes = bytes_in(dir);
        locked(this).found(bytes, began, clock.monotonic_nanos());
        bytes
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tenant {
    /// A tenant whose record is on disk.
    pub(super) fn new(dir: PathBuf, record: TenantRecord, parts: Parts) -> Self {
        let now = parts.clock.monotonic_nanos();
        let budget = record.budget;
        let [requests, changes, compiled] = rates(&budget, now).map(Mutex::new);
        let account = Account::new(&parts.processor, &budget.allowance());
        let name = record.name.clone();
        let heard = parts.hibernation.hook(name.clone());
        let topics = Topics::alone(Arc::clone(&parts.disk), &dir.join("topics"), Arc::clone(&parts.clock), heard);
        let slots = record.jobs.keys().map(|job| (job.clone(), parts.slot(&name, job))).collect();
        let registry = Registry::new(Arc::clone(&parts.disk), dir.clone(), record);
        let room = parts.hall.room();
        Self {
            name,
            dir,
            parts,
            topics,
            registry,
            slots: Mutex::new(slots),
            account,
            requests,
            changes,
            compiled,
            compiling: Semaphore::new(1),
            taps: Mutex::new(0),
            room,
            used: Mutex::default(),
            state_bytes: Mutex::default(),
            topic_bytes: Mutex::default(),
        }
    }

    /// Makes the folder and the record of a tenant.
    pub(super) fn make(dir: &Path, record: &TenantRecord, disk: &dyn Disk) -> io::Result<()> {
        for folder in ["files", "jobs", "plugins", "topics"] {
            disk.create_dir_all(&dir.join(folder))?;
        }
        record.keep(None, disk, dir)
    }

    /// What the tenant has.
    pub(super) fn record(&self) -> Arc<TenantRecord> {
        self.registry.get()
    }

    /// Changes what the tenant has. Durable when this returns.
    pub(super) async fn change<R: Send + 'static>(
        &self,
        act: impl FnOnce(&mut TenantRecord) -> Result<R, Problem>,
    ) -> Result<R, Problem> {
        let used = std::mem::take(&mut *locked(&self.used));
        let changed = self.registry.change(|record| {
            let result = act(record)?;
            record.usage = record.usage.and(used);
            Ok(result)
        });
        let changed = changed.await;
        if changed.is_err() {
            self.use_more(used);
        }
        changed
    }

    /// Does something while nobody changes what the tenant has. `act` may block.
    pub(super) async fn alone<R: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        self.registry.alone(act).await
    }

    /// The budget was changed.
    pub(super) fn set_rates(&self) {
        let budget = self.record().budget;
        let [requests, changes, compiled] = rates(&budget, self.parts.clock.monotonic_nanos());
        *locked(&self.requests) = requests;
        *locked(&self.changes) = changes;
        *locked(&self.compiled) = compiled;
        self.account.allow(&budget.allowance());
    }

    /// Compiles a plugin, one at a time, and counts how long that takes.
    pub(super) async fn compile<T>(&self, work: impl Future<Output = Result<T, Wrong>>) -> Result<T, Problem> {
        let _one_at_a_time = self.compiling.acquire().await.map_err(|_| Problem::unavailable("it ends"))?;
        let clock = &self.parts.clock;
        let began = clock.monotonic_nanos();
        if let Some(until) = locked(&self.compiled).in_debt_until(began) {
            let wait = Duration::from_nanos(until.saturating_sub(began));
            let message = "plugins of the tenant were compiled for as long as its budget allows in an hour";
            return Err(Problem::too_many(message, seconds(wait)));
        }
        let done = work.await;
        let ended = clock.monotonic_nanos();
        locked(&self.compiled).charge(ended.saturating_sub(began) / 1_000_000, ended);
        Ok(done?)
    }

    /// Counts a request.
    pub(super) fn admit_request(&self) -> Result<(), Problem> {
        locked(&self.used).requests += 1;
        let decided = locked(&self.requests).decide(self.parts.clock.monotonic_nanos());
        decided.map_err(|wait| Problem::too_many("the tenant asks more often than its budget allows", seconds(wait)))
    }

    /// Counts a change that costs much: a deploy, a swap, a savepoint, an upload.
    pub(super) fn admit_change(&self) -> Result<(), Problem> {
        let decided = locked(&self.changes).decide(self.parts.clock.monotonic_nanos());
        decided.map_err(|wait| {
            Problem::too_many("the tenant changes things more often than its budget allows", seconds(wait))
        })
    }

    pub(super) fn use_more(&self, used: Usage) {
        let mut sum = locked(&self.used);
        *sum = sum.and(used);
    }

    /// What the tenant has used so far.
    pub(super) fn usage(&self) -> Usage {
        let running = locked(&self.slots).values().filter_map(|slot| slot.board.live()).collect::<Vec<_>>();
        let running = running.iter().map(|live| Usage::of(live.remote.metrics(), &live.kinds));
        let ended = self.record().usage.and(*locked(&self.used));
        running.fold(ended, Usage::and)
    }

    /// Bytes of state, dead letters and savepoints of its jobs.
    pub(super) fn state_bytes(&self) -> u64 {
        Measured::bytes(&self.state_bytes, &self.dir.join("jobs"), &*self.parts.clock)
    }

    /// Bytes of its topics.
    pub(super) fn topic_bytes(&self) -> u64 {
        Measured::bytes(&self.topic_bytes, &self.topics_dir(), &*self.parts.clock)
    }

    /// The same as of the last look, for who must not wait: one that is due is begun. Within a runtime.
    pub(super) fn topic_bytes_lately(self: &Arc<Self>) -> u64 {
        let (due, bytes) = {
            let measured = locked(&self.topic_bytes);
            (measured.is_due(self.parts.clock.monotonic_nanos()), measured.bytes)
        };
        if !due {
            return self.topic_bytes();
        }
        let tenant = Arc::clone(self);
        tokio::task::spawn_blocking(move || tenant.topic_bytes());
        bytes
    }

    /// A job of the tenant.
    pub(super) fn slot(&self, job: &JobName) -> Result<Arc<Slot>, Problem> {
        locked(&self.slots).get(job).cloned().ok_or_else(|| no_job(job))
    }

    /// A job of the tenant, made where there is none.
    pub(super) fn slot_or_new(&self, job: &JobName) -> Arc<Slot> {
        let make = || self.parts.slot(&self.name, job);
        Arc::clone(locked(&self.slots).entry(job.clone()).or_insert_with(make))
    }

    pub(super) fn forget_slot(&self, job: &JobName) {
        locked(&self.slots).remove(job);
        self.parts.logs.forget(self.name.as_str(), job.as_str());
    }

    /// All jobs of the tenant.
    pub(super) fn slots(&self) -> Vec<(JobName, Arc<Slot>)> {
        locked(&self.slots).iter().map(|(job, slot)| (job.clone(), Arc::clone(slot))).collect()
    }

    /// The folder of a job.
    pub(super) fn job_dir(&self, job: &JobName) -> PathBuf {
        self.dir.join("jobs").join(job.as_str())
    }

    /// Where topics are.
    pub(super) fn topics_dir(&self) -> PathBuf {
        self.dir.join("topics")
    }

    /// Where plugins are.
    pub(super) fn plugin_dir(&self) -> PathBuf {
        self.dir.join("plugins")
    }
}

pub(super) fn no_job(job: &JobName) -> Problem {
    Problem::missing(format!("there is no job {job}"))
}

/// Of requests, of changes, and of milliseconds of compiling.
fn rates(budget: &super::Budget, now: u64) -> [Rate; 3] {
    let requests = Rate::new(
        budget.requests_per_second,
        Duration::from_secs(1),
        budget.requests_per_second.saturating_mul(3),
        now,
    );
    let changes = Rate::new(budget.changes_per_minute, Duration::from_secs(60), budget.changes_per_minute / 2, now);
    let compiled = budget.compile_seconds_per_hour.saturating_mul(1_000);
    let compiled = Rate::new(compiled, Duration::from_secs(3_600), compiled, now);
    [requests, changes, compiled]
}

/// Whole seconds, at least one.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Bytes of the files in a folder and all below.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => bytes_in(&entry.path()),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |file| file.len()),
            _ => 0,
        })
        .sum()
}
