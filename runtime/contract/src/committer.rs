use std::sync::Arc;

use wasmill_model::{
    Batch, Epoch, ErrorKind, LetterKind, LetterSubject, NodeName, PartitionId, PluginDigest, Position,
};
use wasmill_order::{TimerEntry, WindowChanges};
use wasmill_store::{ChangeSet, HeldRecord, LetterId};

use crate::{BoxFuture, OperatorFactory, Share, SinkHandle};

/// Makes epochs durable. One atomic write an epoch, in the order of epochs.
pub trait Committer: Send + Sync {
    /// Makes all cuts of `epoch` durable, or none.
    ///
    /// # Errors
    /// Where the write or its sync fails. The committer is not used again.
    fn commit(&mut self, epoch: Epoch, cuts: Vec<Cut>) -> BoxFuture<'_, Result<(), CommitError>>;

    /// No more epochs come: all sinks have committed the last one. `complete` says that every source
    /// has ended, so that nothing is left to do, ever; else somebody stopped the job.
    ///
    /// # Errors
    /// Where that cannot be noted.
    fn close(&mut self, complete: bool) -> BoxFuture<'_, Result<(), CommitError>> {
        let _nothing_to_note = complete;
        Box::pin(async { Ok(()) })
    }
}

/// What one task hands over at a barrier.
#[derive(Debug, Default)]
pub struct Cut {
    /// Positions of its sources.
    pub sources: Vec<SourceCut>,
    /// Changes of its stages.
    pub stages: Vec<StageCut>,
    /// Changes of the ordering buffers in front of its first node.
    pub held: Vec<HeldRecord>,
    /// Prepared handles of its sinks.
    pub sinks: Vec<SinkCut>,
    /// What could not be processed.
    pub dead_letters: Vec<DeadLetter>,
    /// Dead letters of earlier epochs that were processed again in this one.
    pub replayed: Vec<LetterId>,
}

/// Positions of a source as of a barrier.
#[derive(Debug)]
pub struct SourceCut {
    /// The source.
    pub node: NodeName,
    /// For each partition where to go on.
    pub positions: Vec<(PartitionId, Position)>,
}

/// Changes of one share of a stage during an epoch.
#[derive(Debug)]
pub struct StageCut {
    /// The stage.
    pub node: NodeName,
    /// Which share.
    pub share: Share,
    /// Changes of the operator's state.
    pub state: ChangeSet,
    /// Timers set, moved and gone.
    pub timers: Vec<TimerEntry>,
    /// Changes of windows, where the stage has any.
    pub windows: Option<WindowChanges>,
    /// The plugin that it went on with behind the cut before, where that is another one.
    pub plugin: Option<Arc<StagePlugin>>,
}

/// What is remembered of the plugin of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagePlugin {
    /// Its identity.
    pub digest: PluginDigest,
    /// Its state spaces by place, each with the version of its schema.
    pub spaces: Vec<(String, u32)>,
}

impl StagePlugin {
    /// Of a configured plugin.
    pub fn of(factory: &dyn OperatorFactory) -> Self {
        let spaces = factory.descriptor().spaces.iter().map(|space| (space.name.clone(), space.schema_version));
        Self { digest: factory.digest(), spaces: spaces.collect() }
    }
}

/// The prepared handle of one share of a sink.
#[derive(Debug)]
pub struct SinkCut {
    /// The sink.
    pub node: NodeName,
    /// Which share.
    pub share: Share,
    /// What the sink needs after a crash.
    pub handle: SinkHandle,
}

/// What cannot be processed, with why: rows of one kind and one subject.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The node that could not.
    pub node: NodeName,
    /// Its plugin, where it has one.
    pub digest: Option<PluginDigest>,
    /// Why.
    pub kind: LetterKind,
    /// What they are: only of a row is all of it here.
    pub subject: LetterSubject,
    /// The rows.
    pub rows: Batch,
    /// Why in words, one reason a row.
    pub reasons: Vec<String>,
    /// Where the plugin was, its innermost function first; empty where it did not trap.
    pub stack: Vec<String>,
}

impl DeadLetter {
    /// Bytes that it takes, roughly.
    #[must_use]
    pub fn byte_len(&self) -> usize {
        self.rows.byte_len() + self.reasons.iter().chain(&self.stack).map(String::len).sum::<usize>()
    }
}

/// Why an epoch was not committed.
#[derive(Debug, thiserror::Error)]
#[error("cannot commit epoch {epoch}: {reason}")]
pub struct CommitError {
    /// The epoch.
    pub epoch: Epoch,
    /// Who has to act.
    pub kind: ErrorKind,
    /// What went wrong.
    pub reason: String,
}

/// Counts epochs and keeps nothing: for jobs that promise nothing over a crash.
#[derive(Debug, Default)]
pub struct MemoryCommitter {
    last: Epoch,
}

impl Committer for MemoryCommitter {
    fn commit(&mut self, epoch: Epoch, cuts: Vec<Cut>) -> BoxFuture<'_, Result<(), CommitError>> {
        drop(cuts);
        Box::pin(async move {
            if epoch != self.last.next() {
                let reason = format!("epoch {} is the next one", self.last.next());
                return Err(CommitError { epoch, kind: ErrorKind::Internal, reason });
            }
            self.last = epoch;
            Ok(())
        })
    }
}
