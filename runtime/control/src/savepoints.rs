//! Savepoints of a job that runs: asked for here, made by its committer behind an epoch.

use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};
use wasmill_model::Epoch;

/// Savepoints that wait to be made.
const WAITING_MAX: usize = 4;

/// What is in a savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Savepoint {
    /// Everything up to this epoch.
    pub epoch: Epoch,
}

/// A savepoint that somebody waits for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) file: PathBuf,
    pub(crate) done: oneshot::Sender<Result<Savepoint, String>>,
}

/// Asks a running job for savepoints. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Savepoints(mpsc::Sender<Wanted>);

impl Savepoints {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Wanted>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    /// Has everything that is committed written to a file, in place of one that is there, once the
    /// next epoch is committed. Its folder exists. A dropped future leaves the savepoint to be made.
    ///
    /// # Errors
    /// In words, where it cannot be written, or the job ends before.
    pub async fn make(&self, file: &Path) -> Result<Savepoint, String> {
        let ended = || "the job ended before the savepoint was made".to_owned();
        let (done, made) = oneshot::channel();
        let wanted = Wanted { file: file.to_owned(), done };
        self.0.send(wanted).await.map_err(|_ended| ended())?;
        made.await.map_err(|_ended| ended())?
    }
}
