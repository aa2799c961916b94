//! The service as a whole: its folder, its tenants, who may ask.
//!
//! ```text
//! DIR/lock                 locked by the process that serves
//!     service.json         tokens of the operator
//!     admin.token          the first of them, readable by its owner only
//!     tenants/NAME/        one folder each: tenant.json, plugins/, topics/, files/, jobs/NAME/
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use wasmill_env::{Background, Clock, Disk, DiskLock};
use wasmill_model::TenantName;
use wasmill_tenancy::{Processor, Rate};

use super::blocking::blocking;
use super::budget::Budget;
use super::hibernation::{self, Hibernation};
use super::host::Host;
use super::logs::JobLogs;
use super::metrics;
use super::problem::Problem;
use super::record::{Egress, Kept as _, ServiceRecord, TenantRecord};
use super::registry::Registry;
use super::room::Hall;
use super::tenant::{Parts, Tenant};
use super::tokens::{self, Owner, Scope, Secret};
use super::usage::Usage;

const TOKEN_FILE: &str = "admin.token";
/// Tenants of a service.
const TENANTS_MAX: usize = 10_000;
/// Requests without a valid token, a second, over all callers: guessing is no use, and costs others
/// nothing.
const STRANGERS_PER_SECOND: u32 = 200;

/// The service.
pub struct Service {
    dir: PathBuf,
    parts: Parts,
    registry: Registry<ServiceRecord>,
    tenants: RwLock<BTreeMap<TenantName, Arc<Tenant>>>,
    /// Held while a tenant is made or removed.
    tenants_changing: tokio::sync::Mutex<()>,
    strangers: Mutex<Rate>,
    ready: AtomicBool,
    _lock: Box<dyn DiskLock>,
}

/// How a service runs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Plugins of all tenants share so many threads.
    pub workers: u32,
    /// A job rests that had nothing to do for so long; `None`: never.
    pub hibernate_after: Option<Duration>,
}

/// A service that was opened.
pub struct Opened {
    /// It.
    pub service: Arc<Service>,
    /// The file with the operator's first token, where it was made just now.
    pub token_file: Option<PathBuf>,
}

impl Service {
    /// Opens the folder of a service, which is made where there is none. Nothing runs yet. Blocks.
    ///
    /// # Errors
    /// Where the folder cannot be used, or another process has it.
    pub fn open(
        dir: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        host: Arc<dyn Host>,
        logs: JobLogs,
        settings: Settings,
    ) -> io::Result<Opened> {
        // Nobody else looks into it.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        disk.create_dir_all(&dir.join("tenants"))?;
        let Some(lock) = disk.try_lock(&dir.join("lock"))? else {
            let message = format!("another process serves {}", dir.display());
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
        };
        let (record, token_file) = match ServiceRecord::read(&*disk, dir)? {
            Some(record) => (record, None),
            None => {
                let (record, file) = first_token(dir, &*clock)?;
                record.keep(None, &*disk, dir)?;
                (record, Some(file))
            }
        };
        let now = clock.monotonic_nanos();
        let registry = Registry::new(Arc::clone(&disk), dir.to_owned(), record);
        let processor = Processor::new(settings.workers, Arc::clone(&clock));
        let hibernation = Arc::new(Hibernation::new(settings.hibernate_after, Arc::clone(&clock)));
        let hall = Hall::default();
        let background = Background::start()?;
        let parts = Parts { disk, clock, host, logs, processor, hibernation, hall, background };
        let tenants = tenants(dir, &parts)?;
        let service = Self {
            dir: dir.to_owned(),
            parts,
            registry,
            tenants: RwLock::new(tenants),
            tenants_changing: tokio::sync::Mutex::default(),
            strangers: Mutex::new(Rate::new(STRANGERS_PER_SECOND, Duration::from_secs(1), STRANGERS_PER_SECOND, now)),
            ready: AtomicBool::new(false),
            _lock: lock,
        };
        Ok(Opened { service: Arc::new(service), token_file })
    }

    /// Starts every job that is to run. Must be called within a runtime.
    pub async fn start(self: &Arc<Self>) {
        for tenant in self.tenants() {
            tenant.settle_all().await;
            tenant.rest_on().await;
            tenant.start_all().await;
        }
        let hibernation = Arc::clone(&self.parts.hibernation);
        tokio::spawn(hibernation::keep_waking(Arc::downgrade(self), hibernation));
        self.ready.store(true, Ordering::Release);
    }

    /// Ends every job at an epoch; they are to run again when the service is started again.
    pub async fn stop(&self) {
        self.ready.store(false, Ordering::Release);
        let stopping = self.tenants().into_iter().map(|tenant| async move { tenant.stop_all().await });
        futures_util::future::join_all(stopping).await;
    }

    /// What Prometheus reads, of all tenants.
    ///
    /// # Errors
    /// Where it cannot be written: a bug.
    pub fn metrics(&self) -> Result<String, Problem> {
        metrics::text(self, None)
    }

    /// Whether jobs were started, and the service does not end.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn hibernation(&self) -> &Hibernation {
        &self.parts.hibernation
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.parts.clock
    }

    /// All tenants.
    pub(super) fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// A tenant.
    pub(super) fn tenant(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Whose a token is, and what it allows. The operator's allows everything that is no tenant's.
    pub(super) fn authenticate(&self, text: &str) -> Result<(Option<Arc<Tenant>>, BTreeSet<Scope>), Problem> {
        let now = self.parts.clock.wall();
        let presented = tokens::parse(text);
        let tenant = match presented.as_ref().map(|presented| &presented.owner) {
            Some(Owner::Tenant(name)) => self.tenant(name),
            _ => None,
        };
        let record = presented.as_ref().and_then(|presented| match (&presented.owner, &tenant) {
            (Owner::Operator, _) => self.registry.get().tokens.get(presented.id).cloned(),
            (Owner::Tenant(_), tenant) => tenant.as_ref()?.record().tokens.get(presented.id).cloned(),
        });
        match (presented, record) {
            (Some(presented), record) if tokens::is_valid(&presented, record.as_ref(), now) => {
                Ok((tenant, record.map(|record| record.scopes).unwrap_or_default()))
            }
            _ => {
                let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
                match strangers.decide(self.parts.clock.monotonic_nanos()) {
                    Ok(()) => Err(Problem::unknown_caller("the token is none, has expired, or was revoked")),
                    Err(_) => Err(Problem::too_many("too many requests without a valid token", 1)),
                }
            }
        }
    }

    /// Makes a tenant.
    pub(super) async fn make_tenant(
        &self,
        name: TenantName,
        budget: Budget,
        egress: Egress,
    ) -> Result<Arc<Tenant>, Problem> {
        let _alone = self.tenants_changing.lock().await;
        if self.tenant(&name).is_some() {
            return Err(Problem::conflict(format!("there is a tenant {name} already")));
        }
        if self.tenants().len() >= TENANTS_MAX {
            return Err(Problem::conflict(format!("a service has at most {TENANTS_MAX} tenants")));
        }
        let record = TenantRecord {
            name: name.clone(),
            created: self.parts.clock.wall().0,
            budget,
            egress,
            signers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            plugins: BTreeMap::new(),
            tags: BTreeMap::new(),
            jobs: BTreeMap::new(),
            usage: Usage::default(),
        };
        let (dir, disk) = (self.tenant_dir(&name), Arc::clone(&self.parts.disk));
        let tenant = Arc::new(Tenant::new(dir.clone(), record.clone(), self.parts.clone()));
        blocking(move || {
            // What is left of one whose removal was cut off.
            let made = remove_all(&dir).and_then(|()| Tenant::make(&dir, &record, &*disk));
            made.map_err(|error| Problem::internal(format!("cannot make the folder of the tenant: {error}")))
        })
        .await?;
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::clone(&tenant));
        Ok(tenant)
    }

    /// Removes a tenant with everything it has.
    pub(super) async fn remove_tenant(&self, name: &TenantName) -> Result<(), Problem> {
        let _alone = self.tenants_changing.lock().await;
        let missing = || Problem::missing(format!("there is no tenant {name}"));
        let removed = self.tenants.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let tenant = removed.ok_or_else(missing)?;
        tenant.cut_off_all().await;
        let (dir, disk) = (self.tenant_dir(name), Arc::clone(&self.parts.disk));
        blocking(move || {
            // Without its record it is no tenant; the rest may take a while.
            let removed = disk.remove(&TenantRecord::path(&dir)).and_then(|()| disk.sync_dir(&dir));
            let removed = removed.and_then(|()| remove_all(&dir));
            removed.map_err(|error| Problem::internal(format!("cannot remove the folder of the tenant: {error}")))
        })
        .await
    }

    fn tenant_dir(&self, name: &TenantName) -> PathBuf {
        self.dir.join("tenants").join(name.as_str())
    }
}

/// Makes the operator's first token, in a file that its owner alone can read.
fn first_token(dir: &Path, clock: &dyn Clock) -> io::Result<(ServiceRecord, PathBuf)> {
    let scopes = BTreeSet::from([Scope::Read, Scope::Deploy, Scope::Admin]);
    let made = tokens::make(&Owner::Operator, "first".to_owned(), scopes, clock.wall(), None);
    let (secret, record): (Secret, _) = made.map_err(io::Error::other)?;
    let path = dir.join(TOKEN_FILE);
    // One whose record was never written.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(secret.reveal().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    Ok((ServiceRecord { tokens: BTreeMap::from([(record.id.clone(), record)]) }, path))
}

/// The tenants of a folder.
fn tenants(dir: &Path, parts: &Parts) -> io::Result<BTreeMap<TenantName, Arc<Tenant>>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir.join("tenants"))? {
        let dir = entry?.path();
        let name = dir.file_name().and_then(|name| name.to_str()).and_then(|name| TenantName::new(name).ok());
        let record = TenantRecord::read(&*parts.disk, &dir)?;
        match (name, record) {
            (Some(name), Some(record)) if name == record.name => {
                found.insert(name, Arc::new(Tenant::new(dir, record, parts.clone())));
            }
            (_, Some(record)) => {
                let message = format!("{} holds the record of tenant {}", dir.display(), record.name);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            (_, None) => tracing::warn!("{} holds no tenant: its removal was cut off", dir.display()),
        }
    }
    Ok(found)
}

/// Removes a folder with everything in it, if it is there.
pub(super) fn remove_all(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
