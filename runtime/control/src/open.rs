use std::path::Path;
use std::sync::Arc;

use wasmill_engine::NodePart;
use wasmill_env::Disk;
use wasmill_plan::{NodeKind, Plan};
use wasmill_store::{JobStore, Recovered, StageStates, StoreOptions};

use crate::identity::{self, Dropped, Resumption};
use crate::{ControlError, Savepoints, StoreCommitter};

/// A state directory, taken for a job.
#[derive(Debug)]
pub struct Opened {
    /// What the job goes on from: epoch 0 for one that starts anew.
    pub recovered: Recovered,
    /// Where its stages have their state.
    pub states: StageStates,
    /// Whether the job has nothing left to do: it has finished, and nothing is to be replayed.
    pub finished: bool,
    /// Makes its epochs durable.
    pub committer: StoreCommitter,
    /// Has savepoints made while it runs.
    pub savepoints: Savepoints,
}

/// Takes a state directory for a job, and reads what it holds. Blocks. `dropped` says what becomes of
/// what the job has no place for any more.
///
/// # Errors
/// Where another process has it, it cannot be read, or the job may not go on from what it holds.
pub fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: StoreOptions,
    plan: &Plan,
    parts: &[NodePart],
    dropped: Dropped,
) -> Result<Opened, ControlError> {
    let (store, mut recovered) = JobStore::open(disk, dir, options)?;
    let finished = identity::is_finished(&recovered) && recovered.replays.is_empty();
    let Resumption { facts, numbers, removed } = identity::decide_resume(plan, parts, &recovered, dropped)?;
    recovered.forget(&removed);
    let shares = stateful_shares(plan, parts).max(1);
    let rows = |bytes: u64| usize::try_from(bytes / 2 / shares).unwrap_or(usize::MAX);
    let files = store.state().cloned().zip(options.state_cache_bytes.map(rows));
    let states = StageStates { files, numbers: numbers.clone() };
    let (savepoints, wanted) = Savepoints::new();
    let committer = StoreCommitter::new(store, facts, identity::sources(plan), numbers, removed, wanted);
    Ok(Opened { finished, recovered, states, committer, savepoints })
}

/// How many shares of stages have state.
fn stateful_shares(plan: &Plan, parts: &[NodePart]) -> u64 {
    let shares = plan.nodes.iter().zip(parts).filter_map(|(node, part)| match (&node.kind, part) {
        (NodeKind::Stage { .. }, NodePart::Stage(factory)) if !factory.descriptor().spaces.is_empty() => {
            Some(u64::from(plan.chains[node.chain].parallelism))
        }
        _ => None,
    });
    shares.sum()
}
