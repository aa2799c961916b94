use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wasmill_engine::NodePart;
use wasmill_env::Disk;
use wasmill_model::NodeName;
use wasmill_plan::{NodeKind, Plan};
use wasmill_store::{JobStore, Recovered, StageStates, StoreOptions};

use crate::identity::{self, Dropped, Resumption};
use crate::{ControlError, Graphs, Savepoints, StoreCommitter};

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
    /// Tells the committer of another graph.
    pub graphs: Graphs,
}

/// A state directory that was read, and is ours.
#[derive(Debug)]
pub struct Taken {
    store: JobStore,
    recovered: Recovered,
    options: StoreOptions,
}

/// Takes a state directory, and reads what it holds. Blocks.
///
/// # Errors
/// Where another process has it, or it cannot be read.
pub fn take(disk: Arc<dyn Disk>, dir: &Path, options: StoreOptions) -> Result<Taken, ControlError> {
    let (store, recovered) = JobStore::open(disk, dir, options)?;
    Ok(Taken { store, recovered, options })
}

impl Taken {
    /// The stages whose plugin was swapped while the job ran, and the digest of the one that its last
    /// epoch was made with. A stage for which the job names another plugin since is not among them: the
    /// job has the last word.
    ///
    /// # Errors
    /// Where what is stored cannot be read.
    pub fn swapped(&self, plan: &Plan, parts: &[NodePart]) -> Result<BTreeMap<NodeName, String>, ControlError> {
        identity::swapped(plan, parts, &self.recovered)
    }

    /// Decides how a job goes on. `parts` have the plugins that were swapped in, and `declared` the
    /// digests of those that the job names for these stages. `dropped` says what becomes of what the
    /// job has no place for any more.
    ///
    /// # Errors
    /// Where the job may not go on from what is stored.
    pub fn open(
        self,
        plan: &Plan,
        parts: &[NodePart],
        declared: &BTreeMap<NodeName, String>,
        dropped: Dropped,
    ) -> Result<Opened, ControlError> {
        let Self { store, recovered, options } = self;
        open(store, recovered, options, plan, parts, declared, dropped)
    }
}

fn open(
    store: JobStore,
    mut recovered: Recovered,
    options: StoreOptions,
    plan: &Plan,
    parts: &[NodePart],
    declared: &BTreeMap<NodeName, String>,
    dropped: Dropped,
) -> Result<Opened, ControlError> {
    let finished = identity::is_finished(&recovered) && recovered.replays.is_empty();
    let resumption = identity::decide_resume(plan, parts, declared, &recovered, dropped)?;
    let Resumption { facts, stages, numbers, migrations, removed } = resumption;
    recovered.forget(&removed);
    let shares = stateful_shares(plan, parts).max(1);
    let rows = |bytes: u64| usize::try_from(bytes / 2 / shares).unwrap_or(usize::MAX);
    let files = store.state().cloned().zip(options.state_cache_bytes.map(rows));
    let states = StageStates { files, spill: Some(store.spill()), numbers: numbers.clone(), migrations };
    let (savepoints, wanted) = Savepoints::new();
    let committer = StoreCommitter::new(store, facts, stages, identity::sources(plan), numbers, removed, wanted);
    let graphs = Graphs::default();
    let committer = committer.with_graphs(graphs.clone());
    Ok(Opened { finished, recovered, states, committer, savepoints, graphs })
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
