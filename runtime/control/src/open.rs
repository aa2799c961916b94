use std::path::Path;
use std::sync::Arc;

use wasmill_engine::NodePart;
use wasmill_env::Disk;
use wasmill_plan::Plan;
use wasmill_store::{JobStore, Recovered, StoreOptions};

use crate::{ControlError, StoreCommitter, identity};

/// A state directory, taken for a job.
#[derive(Debug)]
pub struct Opened {
    /// What the job goes on from: epoch 0 for one that starts anew.
    pub recovered: Recovered,
    /// Whether the job has nothing left to do.
    pub finished: bool,
    /// Makes its epochs durable.
    pub committer: StoreCommitter,
}

/// Takes a state directory for a job, and reads what it holds. Blocks.
///
/// # Errors
/// Where another process has it, it cannot be read, or the job may not go on from what it holds.
pub fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: StoreOptions,
    plan: &Plan,
    parts: &[NodePart],
) -> Result<Opened, ControlError> {
    let (store, recovered) = JobStore::open(disk, dir, options)?;
    let facts = identity::decide_resume(plan, parts, &recovered)?;
    let committer = StoreCommitter::new(store, facts, identity::sources(plan));
    Ok(Opened { finished: identity::is_finished(&recovered), recovered, committer })
}
