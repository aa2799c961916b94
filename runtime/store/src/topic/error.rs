use std::io;
use std::path::Path;

use wasmill_model::{ErrorKind, TopicName};

use crate::StoreError;

/// Why a topic could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// A file could not be read or written, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such topic, or it was deleted since it was opened.
    #[error("there is no topic {name} in {dir}")]
    Missing {
        /// Its name.
        name: TopicName,
        /// Where it was looked for.
        dir: String,
    },
    /// A topic of this name exists.
    #[error("topic {name} exists already")]
    Exists {
        /// Its name.
        name: TopicName,
    },
    /// A configuration that no topic can have.
    #[error("{reason}")]
    Config {
        /// What is wrong and what was expected.
        reason: String,
    },
    /// The topic has fewer partitions.
    #[error("topic {name} has partitions 0 to {last}, not {partition}")]
    NoPartition {
        /// Its name.
        name: TopicName,
        /// The partition asked for.
        partition: u32,
        /// The last one.
        last: u32,
    },
    /// Retention has removed what was asked for.
    #[error(
        "offset {offset} of partition {partition} of topic {name} is gone: retention has removed what came before offset {start}"
    )]
    Gone {
        /// The topic.
        name: TopicName,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// The first offset that is there.
        start: u64,
    },
    /// The partition does not go so far.
    #[error("offset {offset} of partition {partition} of topic {name} does not exist: the partition ends at {end}")]
    Beyond {
        /// The topic.
        name: TopicName,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// The offset that the next record gets.
        end: u64,
    },
    /// Records that are too large for one append.
    #[error("cannot append {bytes} bytes to topic {name} at once, at most {max} are possible")]
    TooLarge {
        /// The topic.
        name: TopicName,
        /// Bytes they take.
        bytes: u64,
        /// The most that is possible.
        max: u64,
    },
    /// Other processes hold the lock of the topic for too long.
    #[error("topic {name} is busy: other processes held its lock for {seconds} s")]
    Busy {
        /// The topic.
        name: TopicName,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The write failed for all who took part in it.
    #[error(transparent)]
    Shared(std::sync::Arc<TopicError>),
    /// The thread that appended is gone.
    #[error("appending to topic {name} was cut off; whether the records are there is not known")]
    CutOff {
        /// The topic.
        name: TopicName,
    },
}

impl TopicError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Shared(error) => error.kind(),
            Self::Missing { .. }
            | Self::Exists { .. }
            | Self::Config { .. }
            | Self::NoPartition { .. }
            | Self::Gone { .. }
            | Self::Beyond { .. }
            | Self::TooLarge { .. } => ErrorKind::Config,
            Self::Busy { .. } | Self::CutOff { .. } => ErrorKind::Unavailable,
        }
    }

    pub(super) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let to_store = StoreError::io(act, path);
        move |error| Self::Store(to_store(error))
    }

    pub(super) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Store(StoreError::corrupt(path, offset, reason))
    }

    /// Whether a file was not there.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound)
    }
}
