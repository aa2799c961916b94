use wasmill_contract::{CommitError, ConnectorError, OperatorError};
use wasmill_model::{ErrorKind, NodeName};
use wasmill_order::OrderError;
use wasmill_store::StoreError;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A source failed.
    #[error("source {node:?}: {cause}", node = node.as_str())]
    Source {
        /// The source.
        node: NodeName,
        /// What it says.
        #[source]
        cause: ConnectorError,
    },
    /// A sink failed.
    #[error("sink {node:?}: {cause}", node = node.as_str())]
    Sink {
        /// The sink.
        node: NodeName,
        /// What it says.
        #[source]
        cause: ConnectorError,
    },
    /// An operator failed.
    #[error("stage {node:?}: {cause}", node = node.as_str())]
    Stage {
        /// The stage.
        node: NodeName,
        /// What went wrong.
        #[source]
        cause: OperatorError,
    },
    /// A plugin fails on whatever it is given.
    #[error(
        "stage {node:?}: {failed} rows or timers in a row failed and none succeeded, the last one so: {cause}",
        node = node.as_str()
    )]
    AlwaysFails {
        /// The stage.
        node: NodeName,
        /// How many failed.
        failed: u64,
        /// What was wrong with the last one.
        #[source]
        cause: OperatorError,
    },
    /// A fresh instance failed in calls that had succeeded before.
    #[error(
        "stage {node:?}: a fresh instance of the plugin does not get as far as the one before it, with the same \
         calls: {cause}",
        node = node.as_str()
    )]
    Replay {
        /// The stage.
        node: NodeName,
        /// How it failed.
        #[source]
        cause: OperatorError,
    },
    /// A plugin that has taken the place of another fails before an epoch of it was durable, or one that
    /// has a share of the keys: the job goes back to its last epoch, without it.
    #[error("stage {node:?}: the plugin that was swapped in failed: {cause}", node = node.as_str())]
    TrialFailed {
        /// The stage.
        node: NodeName,
        /// How it failed.
        #[source]
        cause: OperatorError,
    },
    /// Timers of an operator fire at once again and again.
    #[error(
        "stage {node:?}: on-timers set timers that were due at once {rounds} times in a row; \
         set them later than the current time",
        node = node.as_str()
    )]
    TimerStorm {
        /// The stage.
        node: NodeName,
        /// How many times.
        rounds: u32,
    },
    /// An epoch was not committed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The engine broke an order of its own, or a window cannot be what the plan says.
    #[error("node {node:?}: {cause}", node = node.as_str())]
    Order {
        /// The node.
        node: NodeName,
        /// What was broken.
        #[source]
        cause: OrderError,
    },
    /// Rows are to wait on disk, and there is no place for them.
    #[error(
        "stage {node:?} has an ordering buffer with `spill`, which takes a state directory: run it with --state DIR, or delete `spill`",
        node = node.as_str()
    )]
    NoSpill {
        /// The stage.
        node: NodeName,
    },
    /// Rows that wait on disk cannot be written or read.
    #[error("stage {node:?} cannot have rows of its ordering buffer wait on disk: {cause}", node = node.as_str())]
    Spill {
        /// The stage.
        node: NodeName,
        /// What is wrong.
        #[source]
        cause: StoreError,
    },
    /// What a stage held cannot be dealt to its tasks.
    #[error("stage {node:?} cannot go on: {cause}", node = node.as_str())]
    Deal {
        /// The stage.
        node: NodeName,
        /// Why not.
        #[source]
        cause: StoreError,
    },
    /// A sink had another number of writers: what those that are gone have begun would stay
    /// unfinished.
    #[error(
        "sink {node:?} cannot go on with {shares} writers: its last epoch was written by {stored}; \
         run the job with the parallelism it had, or start anew",
        node = node.as_str()
    )]
    SinkShares {
        /// The sink.
        node: NodeName,
        /// Writers it has now.
        shares: u16,
        /// Writers it had.
        stored: u16,
    },
    /// A task ended without saying why: a bug of ours.
    #[error("a task of {node:?} ended unexpectedly: {reason}", node = node.as_str())]
    TaskLost {
        /// The first node of the task.
        node: NodeName,
        /// What is known.
        reason: String,
    },
    /// The job was dropped while it ran.
    #[error("the job was cancelled")]
    Cancelled,
}

impl JobError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source { cause, .. } | Self::Sink { cause, .. } => cause.kind(),
            Self::Stage { cause, .. } => cause.kind(),
            Self::AlwaysFails { .. } | Self::Replay { .. } | Self::TrialFailed { .. } | Self::TimerStorm { .. } => {
                ErrorKind::Plugin
            }
            Self::Commit(error) => error.kind,
            Self::Order { cause, .. } => cause.kind(),
            Self::Deal { cause, .. } | Self::Spill { cause, .. } => cause.kind(),
            Self::SinkShares { .. } | Self::NoSpill { .. } => ErrorKind::Config,
            Self::TaskLost { .. } => ErrorKind::Internal,
            Self::Cancelled => ErrorKind::Unavailable,
        }
    }
}
