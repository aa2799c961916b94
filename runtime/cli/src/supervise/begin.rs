//! What an attempt begins with.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wasmill_contract::{Committer, MemoryCommitter};
use wasmill_control::{ControlError, Dropped, Graphs, Opened, Savepoints};
use wasmill_engine::NodePart;
use wasmill_env::{Disk, RealDisk};
use wasmill_model::{ErrorKind, NodeName};
use wasmill_spec::StateSpec;
use wasmill_store::{JobStore, Recovered, StageStates, StoreError, StoreOptions};

use super::{Supervised, blocking};
use crate::assemble::Assembled;
use crate::control::Control;
use crate::dead_letters::DeadLetters;
use crate::failure::Failure;

/// What an attempt begins with.
pub(super) struct Beginning {
    pub(super) letters: DeadLetters,
    pub(super) recovered: Recovered,
    pub(super) states: StageStates,
    pub(super) committer: Box<dyn Committer>,
    /// Nothing is left to do.
    pub(super) finished: bool,
    /// Has savepoints made while the job runs, and its committer hear of other graphs.
    pub(super) beside: Option<(Savepoints, Graphs)>,
}

impl Supervised {
    /// Takes the state directory, or does without.
    pub(super) async fn begin(&self, nodes: &mut [NodePart], fresh: bool, again: bool) -> Result<Beginning, Failure> {
        let assembled = &*self.now();
        if self.state.is_none()
            && let Some(stage) = spilling(assembled)
        {
            let at = ["stage", stage.as_str(), "input"];
            let wrong = assembled.spec.error(&at, "`spill` of an ordering buffer needs a directory");
            return Err(Failure::Job(vec![wrong.hint("run the job with --state DIR, or delete `spill`")]));
        }
        match (&self.state, &self.control) {
            (Some(dir), Some(control)) => self.begin_with_state(nodes, dir, (fresh, again), control).await,
            _ if assembled.spec.state != StateSpec::Memory => {
                let wrong = assembled.spec.error(&["state", "backend"], "state on disk needs a directory");
                Err(Failure::Job(vec![wrong.hint("run the job with --state DIR")]))
            }
            _ => Ok(Beginning {
                letters: DeadLetters::fresh(assembled.dead_letters(), sources(assembled))?,
                recovered: Recovered::default(),
                states: StageStates::default(),
                committer: Box::new(MemoryCommitter::default()),
                finished: false,
                beside: None,
            }),
        }
    }

    /// Takes a state directory, and puts the file of rejected rows where the state is.
    async fn begin_with_state(
        &self,
        nodes: &mut [NodePart],
        dir: &Path,
        (fresh, again): (bool, bool),
        control: &Control,
    ) -> Result<Beginning, Failure> {
        let assembled = &*self.now();
        if fresh {
            let dir = dir.to_owned();
            blocking(move || erase(&dir)).await??;
        }
        let options = match assembled.spec.state {
            StateSpec::Memory => StoreOptions::default(),
            StateSpec::Disk { cache } => StoreOptions::on_disk(cache.bytes()),
        };
        let dropped = if self.allow_dropped || control.allows_dropped() { Dropped::Forget } else { Dropped::Refuse };
        let refused = |error| match error {
            // A write of the attempt before has not ended yet.
            ControlError::Store(error @ StoreError::InUse { .. }) if again => Failure::of(ErrorKind::Full, &error),
            ControlError::Store(error) => Failure::of(error.kind(), &error),
            error => Failure::of(error.kind(), &error).hint(format!(
                "the state is in {}; --fresh forgets it and starts the job from the beginning",
                dir.display()
            )),
        };
        let plan = &assembled.planned.plan;
        let taken = {
            let dir = dir.to_owned();
            blocking(move || wasmill_control::take(Arc::new(RealDisk), &dir, options)).await?.map_err(refused)?
        };
        control.load_swapped(&taken.swapped(plan, nodes).map_err(refused)?).await?;
        let declared = control.swap_parts(nodes);
        let opened = taken.open(plan, nodes, &declared, dropped).map_err(refused)?;
        let Opened { recovered, states, finished, committer, savepoints, graphs } = opened;
        let (path, sources) = (assembled.dead_letters(), sources(assembled));
        let (letters, committer) = blocking(move || {
            let letters = DeadLetters::stored(path, sources, |from, limit| committer.letters(from, limit));
            (letters, committer)
        })
        .await?;
        let (letters, committer, beside) = (letters?, Box::new(committer), Some((savepoints, graphs)));
        Ok(Beginning { letters, recovered, states, committer, finished, beside })
    }
}

/// Forgets what a state directory holds.
fn erase(dir: &Path) -> Result<(), Failure> {
    let disk: &dyn Disk = &RealDisk;
    JobStore::erase(disk, dir).map_err(|error| Failure::of(error.kind(), &error))?;
    let taken = dir.join("ingest");
    match std::fs::remove_dir_all(&taken) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Failure::file("remove", &taken, &error)),
        _ => Ok(()),
    }
}

/// The source of each node that has one only.
fn sources(assembled: &Assembled) -> BTreeMap<NodeName, NodeName> {
    wasmill_control::identity::sources(&assembled.planned.plan)
}

/// A stage with an ordering buffer whose rows may wait on disk.
fn spilling(assembled: &Assembled) -> Option<&NodeName> {
    let plan = &assembled.planned.plan;
    let mut spilling = plan.orders.iter().filter(|(_, order)| order.spill.is_some());
    spilling.next().map(|(&(stage, _), _)| &plan.nodes[stage].name)
}
