//! What is wanted, as it is kept: one file of the service, one of each tenant and of each job.
//!
//! ```text
//! wasmill-tenant 2 <BLAKE3 of all bytes behind this line, 64 hexadecimal digits>\n
//! {"name":"acme",…}
//! ```
//!
//! # Crash consistency
//! A file is written beside the old one, synced, renamed over it, and its folder is synced. So there is
//! always one that is whole; a file that was changed otherwise is refused. A change of a job writes the
//! file of that job and no other, however many there are.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmill_env::{Disk, DiskFile, PacedFile, kill_point};
use wasmill_model::{JobName, NodeName, TenantName};

use super::budget::Budget;
use super::tokens::TokenRecord;
use super::usage::Usage;

/// No file is larger.
const BYTES_MAX: u64 = 64 << 20;
const VERSION: &str = "2";
/// The folder with a file for each job of a tenant.
const JOBS: &str = "wanted";
const ENDING: &str = ".json";

/// What the service has that is no tenant's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceRecord {
    /// Of the operator.
    pub(super) tokens: BTreeMap<String, TokenRecord>,
}

/// What a tenant has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantRecord {
    pub(super) name: TenantName,
    /// Microseconds since the Unix epoch.
    pub(super) created: i64,
    pub(super) budget: Budget,
    pub(super) egress: Egress,
    /// Who may sign plugins; where there is nobody, plugins need no signature.
    pub(super) signers: BTreeMap<String, String>,
    /// By id.
    pub(super) tokens: BTreeMap<String, TokenRecord>,
    /// By digest.
    pub(super) plugins: BTreeMap<String, PluginRecord>,
    /// The digest that a `name:tag` stands for now.
    pub(super) tags: BTreeMap<String, String>,
    /// Each in a file of its own.
    #[serde(skip)]
    pub(super) jobs: BTreeMap<JobName, Arc<JobRecord>>,
    /// What it used until this was written.
    pub(super) usage: Usage,
}

/// Where jobs of a tenant may connect to, and whether they may listen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Names of hosts, `*.example.org` for all below one, `*` for all. Addresses that are private,
    /// of this machine, or not for single hosts are refused whatever is written here.
    pub hosts: Vec<String>,
    /// Whether sources may listen on ports of this machine.
    pub listen: bool,
}

/// A plugin of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginRecord {
    pub(super) bytes: u64,
    /// Microseconds since the Unix epoch.
    pub(super) pushed: i64,
    /// What it says about itself without a configuration, where it does.
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    /// Signatures over the digest, in hexadecimal digits.
    pub(super) signatures: Vec<String>,
}

/// A job as it is wanted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobRecord {
    /// The job file.
    pub(super) text: String,
    pub(super) desired: Desired,
    /// Digests that names of plugins in the job file stood for when it was deployed.
    pub(super) pins: BTreeMap<String, String>,
    /// What is reserved for it.
    pub(super) reserved: Reserved,
    /// Microseconds since the Unix epoch.
    pub(super) deployed: i64,
    /// How often it was deployed.
    pub(super) revision: u64,
    /// Plugins that stages were swapped to since it was deployed: they are kept.
    pub(super) swapped: BTreeMap<NodeName, String>,
    /// Whether it may forget what its state holds for nodes that it has no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) allow_dropped: bool,
    /// What is about to take its place while it runs. The last epoch tells whether it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<Box<NextRecord>>,
}

/// A job file that is about to take the place of the one that a job runs with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NextRecord {
    pub(super) text: String,
    pub(super) pins: BTreeMap<String, String>,
    pub(super) reserved: Reserved,
    pub(super) deployed: i64,
    pub(super) allow_dropped: bool,
}

impl JobRecord {
    /// What it takes while it is not known which of two files it goes on with: what the larger one takes.
    pub(super) fn takes(&self) -> Reserved {
        let next = self.next.as_ref().map(|next| next.reserved).unwrap_or_default();
        Reserved {
            tasks: self.reserved.tasks.max(next.tasks),
            memory_bytes: self.reserved.memory_bytes.max(next.memory_bytes),
        }
    }

    /// It is known: the job goes on with the next file, or as it was.
    pub(super) fn decided(&mut self, taken: bool) {
        let Some(next) = self.next.take().filter(|_| taken) else { return };
        let NextRecord { text, pins, reserved, deployed, allow_dropped } = *next;
        (self.text, self.pins, self.reserved) = (text, pins, reserved);
        (self.deployed, self.allow_dropped) = (deployed, allow_dropped);
        self.revision += 1;
    }

    /// Digests of its plugins.
    pub(super) fn plugins(&self) -> impl Iterator<Item = &String> {
        let next = self.next.iter().flat_map(|next| next.pins.values());
        self.pins.values().chain(self.swapped.values()).chain(next)
    }
}

/// What a job is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Desired {
    /// Run.
    Running,
    /// Run, and read nothing.
    Paused,
    /// Rest.
    Stopped,
}

/// What a job takes of its tenant's budget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reserved {
    /// Tasks.
    pub tasks: u32,
    /// Bytes.
    pub memory_bytes: u64,
}

/// A record that knows how it is kept.
pub(super) trait Kept {
    /// Makes it durable in a folder that holds `before`.
    fn keep(&self, before: Option<&Self>, disk: &dyn Disk, dir: &Path) -> io::Result<()>;
}

impl ServiceRecord {
    const KIND: &str = "wasmill-service";

    fn path(dir: &Path) -> PathBuf {
        dir.join("service.json")
    }

    /// The record of a folder, if it has one.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Self>> {
        read(disk, &Self::path(dir), Self::KIND)
    }
}

impl Kept for ServiceRecord {
    fn keep(&self, _: Option<&Self>, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        write(disk, &Self::path(dir), Self::KIND, self)
    }
}

impl JobRecord {
    const KIND: &str = "wasmill-job";

    fn path(dir: &Path, job: &JobName) -> PathBuf {
        dir.join(JOBS).join(format!("{job}{ENDING}"))
    }
}

impl TenantRecord {
    const KIND: &str = "wasmill-tenant";

    /// The file without which a folder is no tenant's.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("tenant.json")
    }

    /// The record of a folder, if it has one.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Self>> {
        let Some(mut record) = read::<Self>(disk, &Self::path(dir), Self::KIND)? else { return Ok(None) };
        for file in disk.list(&dir.join(JOBS))? {
            // What is left of one that was not written to its end is none.
            let Some(name) = file.strip_suffix(ENDING) else { continue };
            let path = dir.join(JOBS).join(&file);
            let job = JobName::new(name).map_err(|error| invalid(&path, &error.to_string()))?;
            if let Some(wanted) = read(disk, &path, JobRecord::KIND)? {
                record.jobs.insert(job, Arc::new(wanted));
            }
        }
        Ok(Some(record))
    }

    /// It without its jobs and its usage.
    fn rest(&self) -> Self {
        Self { usage: Usage::default(), ..self.without_jobs() }
    }

    /// It without its jobs.
    pub(super) fn without_jobs(&self) -> Self {
        Self {
            name: self.name.clone(),
            created: self.created,
            budget: self.budget,
            egress: self.egress.clone(),
            signers: self.signers.clone(),
            tokens: self.tokens.clone(),
            plugins: self.plugins.clone(),
            tags: self.tags.clone(),
            jobs: BTreeMap::new(),
            usage: self.usage,
        }
    }
}

impl Kept for TenantRecord {
    /// Jobs that are others than before are written, each alone. Usage is written with what else changes
    /// in the tenant's own file, and where nothing else does: it is not worth a write for each job.
    fn keep(&self, before: Option<&Self>, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let none = BTreeMap::new();
        let jobs_before = before.map_or(&none, |before| &before.jobs);
        let mut jobs_changed = false;
        for (job, wanted) in &self.jobs {
            if jobs_before.get(job).is_none_or(|before| !Arc::ptr_eq(before, wanted)) {
                jobs_changed = true;
                write(disk, &JobRecord::path(dir, job), JobRecord::KIND, &**wanted)?;
            }
        }
        let mut removed = false;
        for job in jobs_before.keys().filter(|job| !self.jobs.contains_key(*job)) {
            removed = true;
            disk.remove(&JobRecord::path(dir, job))?;
        }
        if removed {
            disk.sync_dir(&dir.join(JOBS))?;
        }
        let same = before.is_some_and(|before| before.rest() == self.rest());
        if same && (jobs_changed || removed) {
            return Ok(());
        }
        if before.is_none() {
            disk.create_dir_all(&dir.join(JOBS))?;
        }
        write(disk, &Self::path(dir), Self::KIND, self)
    }
}

fn invalid(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

/// Reads a record. `None` where there is no such file.
pub(super) fn read<T: DeserializeOwned>(disk: &dyn Disk, path: &Path, kind: &str) -> io::Result<Option<T>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let bytes = whole(path, &*file)?;
    let line = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| invalid(path, "it has no header"))?;
    let (head, body) = bytes.split_at(line + 1);
    let mut words = std::str::from_utf8(head).unwrap_or_default().split_ascii_whitespace();
    if words.next() != Some(kind) {
        return Err(invalid(path, &format!("it is no {kind}")));
    }
    match words.next() {
        Some(VERSION) => {}
        version => {
            return Err(invalid(path, &format!("it has version {version:?}, this program reads version {VERSION}")));
        }
    }
    if words.next() != Some(blake3::hash(body).to_hex().as_str()) {
        return Err(invalid(path, "its checksum is wrong: it was damaged, or changed by hand; restore it"));
    }
    serde_json::from_slice(body).map(Some).map_err(|error| invalid(path, &error.to_string()))
}

fn whole(path: &Path, file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let length = file.len()?;
    if length > BYTES_MAX {
        return Err(invalid(path, &format!("it has {length} bytes, at most {BYTES_MAX} are read")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes a record in place of the one that is there. It is durable when this returns.
pub(super) fn write<T: Serialize>(disk: &dyn Disk, path: &Path, kind: &str, record: &T) -> io::Result<()> {
    let body = serde_json::to_vec(record)?;
    let mut bytes = format!("{kind} {VERSION} {}\n", blake3::hash(&body).to_hex()).into_bytes();
    bytes.extend_from_slice(&body);
    if bytes.len() as u64 > BYTES_MAX {
        return Err(invalid(path, "it would be too large: remove jobs or plugins"));
    }
    keep(disk, path, &bytes)
}

/// Writes a file in place of the one that is there, all or nothing.
pub(super) fn keep(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let partial = path.with_added_extension("part");
    match disk.remove(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = PacedFile::new(disk.create(&partial)?);
    file.append(bytes)?;
    file.sync_data()?;
    kill_point("serve-record-synced");
    disk.rename(&partial, path)?;
    disk.sync_dir(folder)?;
    kill_point("serve-record-kept");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wasmill_env::SimulatedDisk;

    use super::*;

    fn record(tokens: usize) -> ServiceRecord {
        let token = |place: usize| TokenRecord {
            id: format!("{place}"),
            name: "t".into(),
            hash: "00".into(),
            scopes: Default::default(),
            created: 0,
            expires: None,
        };
        ServiceRecord { tokens: (0..tokens).map(|place| (format!("{place}"), token(place))).collect() }
    }

    #[test]
    fn a_record_is_the_old_one_or_the_new_one_whatever_fails() {
        let path = Path::new("/d/service.json");
        let disk = Arc::new(SimulatedDisk::default());
        disk.create_dir_all(Path::new("/d")).expect("made");
        assert_eq!(read::<ServiceRecord>(&*disk, path, "wasmill-service").expect("readable"), None);
        write(&*disk, path, "wasmill-service", &record(1)).expect("written");
        write(&*disk, path, "wasmill-service", &record(2)).expect("written");
        assert_eq!(read(&*disk, path, "wasmill-service").expect("readable"), Some(record(2)));
        let other = read::<ServiceRecord>(&*disk, path, "wasmill-tenant").expect_err("another kind");
        assert!(other.to_string().contains("it is no wasmill-tenant"), "{other}");
    }

    #[test]
    fn a_record_that_was_changed_is_refused() {
        let path = Path::new("/d/service.json");
        let disk = SimulatedDisk::default();
        disk.create_dir_all(Path::new("/d")).expect("made");
        for (text, why) in [
            ("", "no header"),
            ("wasmill-service 1 x\n{}", "this program reads version 2"),
            ("wasmill-service 2 00\n{\"tokens\":{}}", "checksum is wrong"),
        ] {
            keep(&disk, path, text.as_bytes()).expect("written");
            let error = read::<ServiceRecord>(&disk, path, "wasmill-service").expect_err(text);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}

#[cfg(test)]
#[path = "record_fuzz.rs"]
mod fuzz;
