//! Epochs into the store.
//!
//! # Crash consistency
//! An epoch is durable once its commit has returned. After a failed one the store is let go: nothing
//! but opening it anew tells what is on disk.
//!
//! # Cancellation
//! A commit that is dropped goes on to its end on its thread, and so does a compaction: both leave
//! what a crash may leave.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use wasmill_contract::{BoxFuture, CommitError, Committer, Cut, epoch_record};
use wasmill_env::planted;
use wasmill_model::{Epoch, ErrorKind, NodeName};
use wasmill_store::{Compacted, Compaction, EpochRecord, JobStore, LetterId, LetterRecord, StageRecord, StoreError};

use crate::Graphs;
use crate::identity::{self, Facts, Regraphed, StageFact};
use crate::savepoints::{Savepoint, Wanted};

/// Makes the epochs of a job durable in its store, and keeps the store small meanwhile.
#[derive(Debug)]
pub struct StoreCommitter {
    /// `None` once something failed, or the job has ended.
    store: Option<JobStore>,
    /// What the next epoch says about the job.
    facts: Facts,
    /// What the store then knows of its stages.
    stages: BTreeMap<NodeName, StageFact>,
    /// The source of each node that has one only.
    sources: BTreeMap<NodeName, NodeName>,
    /// The numbers under which the store has the spaces of each stage, by place.
    numbers: BTreeMap<NodeName, Vec<u16>>,
    /// Nodes that the next epoch removes.
    removed: Vec<NodeName>,
    compaction: Option<JoinHandle<Result<Compacted, StoreError>>>,
    /// Savepoints that are to be made.
    wanted: mpsc::Receiver<Wanted>,
    /// Says when the job goes on with another graph.
    graphs: Graphs,
    /// The savepoint that is being made. It holds the store's lock, as a compaction does.
    export: Option<JoinHandle<()>>,
}

/// What goes on beside the commits from here on.
enum Begun {
    Nothing,
    Compaction(Compaction),
    Export(Compaction, Wanted),
}

impl StoreCommitter {
    pub(crate) fn new(
        store: JobStore,
        facts: Facts,
        stages: BTreeMap<NodeName, StageFact>,
        sources: BTreeMap<NodeName, NodeName>,
        numbers: BTreeMap<NodeName, Vec<u16>>,
        removed: Vec<NodeName>,
        wanted: mpsc::Receiver<Wanted>,
    ) -> Self {
        Self {
            store: Some(store),
            facts,
            stages,
            sources,
            numbers,
            removed,
            compaction: None,
            wanted,
            graphs: Graphs::default(),
            export: None,
        }
    }

    /// The same; it hears there of other graphs.
    pub(crate) fn with_graphs(mut self, graphs: Graphs) -> Self {
        self.graphs = graphs;
        self
    }

    /// Where the epoch is the first of another graph: it says so.
    fn regraph(&mut self, epoch: Epoch) {
        let Some(Regraphed { facts, added, removed, sources }) = self.graphs.take(epoch) else { return };
        self.facts.extend(facts);
        for stage in &removed {
            self.stages.remove(stage);
            self.numbers.remove(stage);
        }
        self.stages.extend(added);
        self.removed.extend(removed);
        self.sources = sources;
    }

    /// Gives the spaces of a stage the numbers that the store has them under.
    fn number_spaces(&self, stage: &mut StageRecord) {
        let Some(numbers) = self.numbers.get(&stage.node) else { return };
        stage.state.renumber(|space| numbers.get(usize::from(space)).copied().unwrap_or(space));
    }

    /// Up to `limit` rejected rows from an id on, in order. Blocks.
    ///
    /// # Errors
    /// Where a file cannot be read or is damaged.
    pub fn letters(&self, from: LetterId, limit: usize) -> Result<Vec<(LetterId, LetterRecord)>, StoreError> {
        self.store.as_ref().map_or(Ok(Vec::new()), |store| store.letters(from, limit))
    }

    /// Does `act` with the store on a thread that may block. A failure lets the store go.
    async fn with_store<T: Send + 'static>(
        &mut self,
        epoch: Epoch,
        act: impl FnOnce(JobStore) -> Result<(Option<JobStore>, T), StoreError> + Send + 'static,
    ) -> Result<T, CommitError> {
        let store = self.store.take().ok_or_else(|| {
            let reason = "an earlier epoch failed: start the job again to recover".to_owned();
            CommitError { epoch, kind: ErrorKind::Unavailable, reason }
        })?;
        let acted = spawn_blocking(move || act(store)).await;
        let (store, result) = acted.map_err(lost(epoch))?.map_err(failed(epoch))?;
        self.store = store;
        Ok(result)
    }

    /// The compaction, if it has ended, or, with `wait`, once it has.
    async fn compacted(&mut self, epoch: Epoch, wait: bool) -> Result<Option<Compacted>, CommitError> {
        let Some(running) = self.compaction.as_mut().filter(|running| wait || running.is_finished()) else {
            return Ok(None);
        };
        let ended = running.await;
        self.compaction = None;
        ended.map_err(lost(epoch))?.map_err(failed(epoch)).map(Some)
    }

    /// Forgets the savepoint that is being made, if it is done, or, with `wait`, once it is.
    async fn exported(&mut self, epoch: Epoch, wait: bool) -> Result<(), CommitError> {
        let Some(running) = self.export.as_mut().filter(|running| wait || running.is_finished()) else {
            return Ok(());
        };
        let ended = running.await;
        self.export = None;
        ended.map_err(lost(epoch))
    }
}

impl Committer for StoreCommitter {
    fn commit(&mut self, epoch: Epoch, cuts: Vec<Cut>) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move {
            self.regraph(epoch);
            let sources = &self.sources;
            let source_of = |node: &NodeName| sources.get(node).unwrap_or(node).clone();
            let swaps = cuts.iter().flat_map(|cut| &cut.stages);
            let swaps = swaps.filter_map(|stage| Some((&stage.node, stage.plugin.as_ref()?)));
            for (node, plugin) in swaps {
                if let Some(fact) =
                    self.stages.get_mut(node).filter(|fact| !fact.is(plugin) && !planted("swap-not-recorded"))
                {
                    self.facts.extend([fact.swap(node, plugin)]);
                }
            }
            let mut record = epoch_record(cuts, source_of);
            record.stages.iter_mut().for_each(|stage| self.number_spaces(stage));
            record.meta = std::mem::take(&mut self.facts);
            record.removed = std::mem::take(&mut self.removed);
            let overdue = self.store.as_ref().is_some_and(JobStore::compaction_overdue);
            let compacted = self.compacted(epoch, overdue).await?;
            self.exported(epoch, overdue).await?;
            let idle = self.compaction.is_none() && self.export.is_none();
            let wanted = if idle { self.wanted.try_recv().ok() } else { None };
            let begun = self.with_store(epoch, move |mut store| {
                store.commit(epoch, &record)?;
                if let Some(compacted) = compacted {
                    store.finish_compaction(compacted)?;
                }
                let begun = match wanted {
                    Some(wanted) => Begun::Export(store.begin_compaction()?, wanted),
                    None if idle && store.compaction_due() => Begun::Compaction(store.begin_compaction()?),
                    None => Begun::Nothing,
                };
                Ok((Some(store), begun))
            });
            match begun.await? {
                Begun::Nothing => {}
                Begun::Compaction(begun) => self.compaction = Some(spawn_blocking(move || begun.run())),
                Begun::Export(begun, wanted) => {
                    self.export = Some(spawn_blocking(move || export(begun, epoch, wanted)));
                }
            }
            Ok(())
        })
    }

    fn close(&mut self, complete: bool) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move {
            let epoch = self.store.as_ref().map_or(Epoch::default(), |store| store.epoch().next());
            let compacted = self.compacted(epoch, true).await?;
            self.exported(epoch, true).await?;
            let closed = self.with_store(epoch, move |mut store| {
                if let Some(compacted) = compacted {
                    store.finish_compaction(compacted)?;
                }
                if complete {
                    store.commit(epoch, &EpochRecord { meta: identity::finished(), ..EpochRecord::default() })?;
                }
                store.close()?;
                Ok((None, ()))
            });
            closed.await
        })
    }
}

/// Writes a savepoint, and tells who waits for it. The job goes on, whatever comes of it.
fn export(begun: Compaction, epoch: Epoch, wanted: Wanted) {
    let exported = begun.export(&wanted.file).map(|()| Savepoint { epoch });
    // Who has asked may have gone.
    let _unheard = wanted.done.send(exported.map_err(|error| reason(&error)));
}

fn reason(error: &StoreError) -> String {
    let cause = std::error::Error::source(error).map_or(String::new(), |cause| format!(": {cause}"));
    format!("{error}{cause}")
}

fn failed(epoch: Epoch) -> impl FnOnce(StoreError) -> CommitError {
    move |error| CommitError { epoch, kind: error.kind(), reason: reason(&error) }
}

fn lost(epoch: Epoch) -> impl FnOnce(JoinError) -> CommitError {
    move |error| CommitError { epoch, kind: ErrorKind::Internal, reason: error.to_string() }
}
