use std::io;
use std::path::{Path, PathBuf};

use wasmill_env::is_full;
use wasmill_model::{Epoch, ErrorKind};

/// Why a store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// What was to be done.
        act: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("{} is damaged at byte {offset}: {reason}; restore the file, or start from a savepoint", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was expected, and what is there.
        reason: String,
    },
    /// A newer Wasmill wrote this.
    #[error("{} has format version {found}, this program reads up to {newest}: use a newer one", path.display())]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version this program knows.
        newest: u32,
    },
    /// Another process has the store open.
    #[error("{} is in use by {}: stop the job that runs there", path.display(), process(*holder))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process, where it is known.
        holder: Option<u32>,
    },
    /// A compaction or an export has begun and is not finished.
    #[error("{} is being compacted: wait until that is done", path.display())]
    Compacting {
        /// The folder.
        path: PathBuf,
    },
    /// A folder that was to be new holds a job.
    #[error("{} already holds a job: choose an empty folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Epochs were committed out of order.
    #[error("cannot commit epoch {epoch}: epoch {expected} is the next one")]
    OutOfOrder {
        /// The epoch asked for.
        epoch: Epoch,
        /// The one after the last committed.
        expected: Epoch,
    },
    /// One epoch holds more than one frame takes.
    #[error(
        "cannot commit epoch {epoch}: it has {bytes} bytes of changes, at most {max} are possible; commit more often"
    )]
    TooLarge {
        /// The epoch.
        epoch: Epoch,
        /// Bytes it would take.
        bytes: u64,
        /// The most that is possible.
        max: u64,
    },
    /// An earlier write or sync failed, so nobody knows what is on disk.
    #[error("the store stopped at an earlier error ({reason}): open it anew to recover")]
    Poisoned {
        /// The earlier error.
        reason: String,
    },
    /// Windows of several shares cannot be put together.
    #[error(
        "cannot deal the windows of {node} to {shares} shares: its {stored} shares had not fired equally far; restore with {stored} shares"
    )]
    UnevenWindows {
        /// The stage.
        node: String,
        /// Shares asked for.
        shares: u16,
        /// Shares that were stored.
        stored: u16,
    },
}

fn process(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |holder| format!("process {holder}"))
}

impl StoreError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } if is_full(source) => ErrorKind::Full,
            Self::Io { .. } | Self::Poisoned { .. } | Self::Compacting { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::UnknownVersion { .. }
            | Self::InUse { .. }
            | Self::NotEmpty { .. }
            | Self::TooLarge { .. }
            | Self::UnevenWindows { .. } => ErrorKind::Config,
            Self::OutOfOrder { .. } => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { act, path: path.to_owned(), source }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, reason: reason.into() }
    }
}
