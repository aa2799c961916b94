use wasmill_model::{ErrorKind, NodeName};
use wasmill_store::StoreError;

/// Why a job cannot use a state directory.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is another job's.
    #[error("the state is that of job {stored:?}, not of {name:?}: name another directory, or start anew")]
    OtherJob {
        /// Whose it is.
        stored: String,
        /// Who wanted it.
        name: String,
    },
    /// A node that the state knows is not in the job any more.
    #[error(
        "the state has {kind} {node:?}, which the job lacks: put it back under that name, or drop it with \
         --allow-dropped",
        node = node.as_str()
    )]
    NodeGone {
        /// `source`, `stage` or `sink`.
        kind: &'static str,
        /// Its name.
        node: NodeName,
    },
    /// A plugin keeps its state otherwise than the one that wrote it.
    #[error(
        "stage {stage:?} cannot go on: its state was kept in {stored}, and its plugin now declares {now}; \
         use the plugin {plugin} that wrote it, or drop spaces that are only missing with --allow-dropped",
        stage = stage.as_str()
    )]
    SpacesChanged {
        /// The stage.
        stage: NodeName,
        /// The spaces that were stored.
        stored: String,
        /// Those of the plugin.
        now: String,
        /// The digest of the plugin that wrote them.
        plugin: String,
    },
    /// A stage has other windows.
    #[error(
        "stage {stage:?} cannot go on: it had {stored} and now has {now}; give it the windows it had, or start anew",
        stage = stage.as_str()
    )]
    WindowChanged {
        /// The stage.
        stage: NodeName,
        /// What it had.
        stored: String,
        /// What it has.
        now: String,
    },
    /// What is stored about the job cannot be read.
    #[error("what the state says about {key:?} cannot be read: {reason}; restore the state, or start anew")]
    Malformed {
        /// Which fact.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ControlError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Malformed { .. } => ErrorKind::Corrupt,
            Self::OtherJob { .. } | Self::NodeGone { .. } | Self::SpacesChanged { .. } | Self::WindowChanged { .. } => {
                ErrorKind::Config
            }
        }
    }
}
