//! Savepoints of jobs: one file each, in the folder of the job.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use wasmill_env::RealDisk;
use wasmill_model::JobName;
use wasmill_store::{JobStore, StoreOptions};

use super::blocking::blocking;
use super::problem::Problem;
use super::slot::Phase;
use super::state::remove_all;
use super::tenant::Tenant;
use crate::local::Request;

/// Savepoints of a job.
const SAVEPOINTS_MAX: usize = 100;
const ENDING: &str = ".savepoint";
/// Memory that making one takes: entries are not read into it.
const CACHE_BYTES: u64 = 64 << 20;

/// A savepoint of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct SavepointView {
    /// What it is called.
    pub(super) name: String,
    /// Everything up to this epoch is in it.
    pub(super) epoch: u64,
    /// How large it is.
    pub(super) bytes: u64,
}

/// The file of a savepoint of a job, by a name of `[a-z0-9-]{1,63}`.
fn file(job_dir: &Path, name: &str) -> Result<PathBuf, Problem> {
    // Names of savepoints are as those of jobs.
    let name = JobName::new(name).map_err(|error| Problem::bad(format!("{name:?}: {error}")))?;
    Ok(job_dir.join("savepoints").join(format!("{name}{ENDING}")))
}

fn list(job_dir: &Path) -> Result<Vec<SavepointView>, Problem> {
    let folder = job_dir.join("savepoints");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix(ENDING)) else { continue };
        let (epoch, bytes) = JobStore::savepoint_epoch(&RealDisk, &entry.path())?;
        found.push(SavepointView { name: name.to_owned(), epoch: epoch.0, bytes });
    }
    found.sort_by(|a, b| (a.epoch, &a.name).cmp(&(b.epoch, &b.name)));
    Ok(found)
}

/// Writes what a job that rests has committed to a file.
fn export(state: &Path, file: &Path) -> Result<(), Problem> {
    if !state.join("lock").exists() {
        return Err(Problem::conflict("the job has committed nothing yet"));
    }
    let options = StoreOptions::on_disk(CACHE_BYTES);
    let (mut store, _) = JobStore::open(Arc::new(RealDisk), state, options)?;
    if store.epoch().0 == 0 {
        return Err(Problem::conflict("the job has committed nothing yet"));
    }
    store.begin_compaction()?.export(file)?;
    Ok(store.close()?)
}

impl Tenant {
    pub(super) async fn savepoints(&self, job: &JobName) -> Result<Vec<SavepointView>, Problem> {
        self.slot(job)?;
        let dir = self.job_dir(job);
        blocking(move || list(&dir)).await
    }

    /// Makes a savepoint, of a job that runs behind its next epoch.
    pub(super) async fn make_savepoint(
        self: &Arc<Self>,
        job: JobName,
        name: Option<String>,
    ) -> Result<SavepointView, Problem> {
        self.admit_change()?;
        self.has_room().await?;
        let slot = self.slot(&job)?;
        let name = name.unwrap_or_else(|| format!("at-{}", self.parts.clock.wall().0 / 1_000));
        let dir = self.job_dir(&job);
        let file = file(&dir, &name)?;
        if self.savepoints(&job).await?.len() >= SAVEPOINTS_MAX {
            return Err(Problem::over_budget(format!("the job has {SAVEPOINTS_MAX} savepoints: remove some")));
        }
        if file.exists() {
            return Err(Problem::conflict(format!("there is a savepoint {name} already")));
        }
        std::fs::create_dir_all(dir.join("savepoints"))
            .map_err(|error| Problem::internal(format!("cannot make the folder of savepoints: {error}")))?;
        if slot.board.phase() == Phase::Running {
            let _made: Value = slot.ask(Request::Savepoint { file: Some(file) }).await?;
        } else {
            self.at_rest(job.clone(), false, move |dir| export(&dir.join("state"), &file)).await?;
        }
        let made = self.savepoints(&job).await?.into_iter().find(|found| found.name == name);
        made.ok_or_else(|| Problem::internal("the savepoint is not there"))
    }

    /// Removes a savepoint.
    pub(super) async fn remove_savepoint(&self, job: &JobName, name: &str) -> Result<(), Problem> {
        self.slot(job)?;
        let file = file(&self.job_dir(job), name)?;
        let missing = Problem::missing(format!("there is no savepoint {name}"));
        blocking(move || match std::fs::remove_file(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing),
            Err(error) => Err(Problem::internal(format!("cannot remove the savepoint: {error}"))),
            Ok(()) => Ok(()),
        })
        .await
    }

    /// Takes a job back to a savepoint: what it has done since is forgotten.
    pub(super) async fn restore(self: &Arc<Self>, job: JobName, name: String) -> Result<(), Problem> {
        self.admit_change()?;
        self.slot(&job)?;
        let file = file(&self.job_dir(&job), &name)?;
        if !file.exists() {
            return Err(Problem::missing(format!("there is no savepoint {name} of job {job}")));
        }
        let now = self.parts.clock.wall().0.cast_unsigned();
        self.at_rest(job, true, move |dir| {
            let failed = |what: &'static str| move |error| Problem::internal(format!("cannot {what}: {error}"));
            let (state, new, old) = (dir.join("state"), dir.join("state.new"), dir.join("state.old"));
            remove_all(&new).map_err(failed("remove what is left of a restore"))?;
            JobStore::import(&RealDisk, &file, &new, now)?;
            // Plugins that the savepoint's epoch was made with may be among those that are kept.
            if state.join("plugins").is_dir() {
                std::fs::rename(state.join("plugins"), new.join("plugins")).map_err(failed("keep plugins"))?;
            }
            remove_all(&old).map_err(failed("remove what is left of a restore"))?;
            if state.exists() {
                std::fs::rename(&state, &old).map_err(failed("put the state aside"))?;
            }
            std::fs::rename(&new, &state).map_err(failed("put the state in place"))?;
            remove_all(&old).map_err(failed("remove the state of before"))
        })
        .await
    }
}

/// Puts back the state that a restore has put aside, where it was cut off in between.
pub(super) fn mend(job_dir: &Path) -> std::io::Result<()> {
    let (state, old) = (job_dir.join("state"), job_dir.join("state.old"));
    if !state.exists() && old.exists() { std::fs::rename(old, state) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_savepoints_lead_nowhere_else() {
        for bad in ["", "..", "../x", "/a", "a/b", "a.b", "A", "a\0"] {
            assert_eq!(file(Path::new("/d"), bad).expect_err(bad).status, 400);
        }
        assert_eq!(file(Path::new("/d"), "a-1").expect("a name"), Path::new("/d/savepoints/a-1.savepoint"));
    }

    #[test]
    fn a_restore_that_was_cut_off_leaves_the_state_of_before() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("state.old")).expect("made");
        mend(dir.path()).expect("mended");
        assert!(dir.path().join("state").is_dir() && !dir.path().join("state.old").exists());
        std::fs::create_dir(dir.path().join("state.old")).expect("made");
        mend(dir.path()).expect("nothing to do");
        assert!(dir.path().join("state.old").exists(), "the new state is in place: the old one is only rubbish");
    }
}
