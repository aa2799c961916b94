//! One tenant: what it has, what it may, what it uses.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmill_env::{Clock, Disk};
use wasmill_model::{JobName, TenantName};
use wasmill_store::Topics;

use super::budget::Rate;
use super::host::Host;
use super::logs::JobLogs;
use super::problem::Problem;
use super::record::{self, TenantRecord};
use super::registry::Registry;
use super::slot::{Board, Slot};
use super::usage::Usage;

/// How records of tenants begin.
pub(super) const KIND: &str = "wasmill-tenant";
/// Their name in the folder of the tenant.
pub(super) const FILE: &str = "tenant.json";

/// What a tenant needs of the service.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) host: Arc<dyn Host>,
    pub(super) logs: JobLogs,
}

/// A tenant.
pub(super) struct Tenant {
    pub(super) name: TenantName,
    pub(super) dir: PathBuf,
    pub(super) parts: Parts,
    pub(super) topics: Topics,
    registry: Registry<TenantRecord>,
    slots: Mutex<BTreeMap<JobName, Arc<Slot>>>,
    requests: Mutex<Rate>,
    changes: Mutex<Rate>,
    /// One plugin of the tenant is compiled at a time: others wait, and so no tenant fills the queue.
    pub(super) compiling: Semaphore,
    /// Taps that are open.
    pub(super) taps: Mutex<u32>,
    /// What was used and is not in the record yet.
    used: Mutex<Usage>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tenant {
    /// A tenant whose record is on disk.
    pub(super) fn new(dir: PathBuf, record: TenantRecord, parts: Parts) -> Self {
        let now = parts.clock.monotonic_nanos();
        let budget = record.budget;
        let (requests, changes) = rates(&budget, now);
        let name = record.name.clone();
        let topics = Topics::new(Arc::clone(&parts.disk), &dir.join("topics"), Arc::clone(&parts.clock));
        let slots = (record.jobs.keys())
            .map(|job| {
                let logs = parts.logs.of(name.as_str(), job.as_str());
                (job.clone(), Arc::new(Slot::new(Board::new(logs, Arc::clone(&parts.clock)))))
            })
            .collect();
        let registry = Registry::new(Arc::clone(&parts.disk), dir.join(FILE), KIND, record);
        Self {
            name,
            dir,
            parts,
            topics,
            registry,
            slots: Mutex::new(slots),
            requests: Mutex::new(requests),
            changes: Mutex::new(changes),
            compiling: Semaphore::new(1),
            taps: Mutex::new(0),
            used: Mutex::default(),
        }
    }

    /// Makes the folder and the record of a tenant.
    pub(super) fn make(dir: &Path, record: &TenantRecord, disk: &dyn Disk) -> io::Result<()> {
        for folder in ["files", "jobs", "plugins", "topics"] {
            disk.create_dir_all(&dir.join(folder))?;
        }
        record::write(disk, &dir.join(FILE), KIND, record)
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

    /// The budget was changed.
    pub(super) fn set_rates(&self) {
        let (requests, changes) = rates(&self.record().budget, self.parts.clock.monotonic_nanos());
        *locked(&self.requests) = requests;
        *locked(&self.changes) = changes;
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

    /// A job of the tenant.
    pub(super) fn slot(&self, job: &JobName) -> Result<Arc<Slot>, Problem> {
        locked(&self.slots).get(job).cloned().ok_or_else(|| no_job(job))
    }

    /// A job of the tenant, made where there is none.
    pub(super) fn slot_or_new(&self, job: &JobName) -> Arc<Slot> {
        let make = || {
            let logs = self.parts.logs.of(self.name.as_str(), job.as_str());
            Arc::new(Slot::new(Board::new(logs, Arc::clone(&self.parts.clock))))
        };
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

    /// Where plugins are.
    pub(super) fn plugin_dir(&self) -> PathBuf {
        self.dir.join("plugins")
    }
}

pub(super) fn no_job(job: &JobName) -> Problem {
    Problem::missing(format!("there is no job {job}"))
}

fn rates(budget: &super::Budget, now: u64) -> (Rate, Rate) {
    let requests = Rate::new(
        budget.requests_per_second,
        Duration::from_secs(1),
        budget.requests_per_second.saturating_mul(3),
        now,
    );
    let changes = Rate::new(budget.changes_per_minute, Duration::from_secs(60), budget.changes_per_minute / 2, now);
    (requests, changes)
}

/// Whole seconds, at least one.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Bytes of the files in a folder and all below.
pub(super) fn bytes_in(dir: &Path) -> u64 {
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
