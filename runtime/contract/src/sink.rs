use std::sync::Arc;

use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch};

use crate::{BoxFuture, ConnectorError, Share, SinkCapabilities};

/// A configured sink: opens one writer for each task that feeds it.
pub trait SinkFactory: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> SinkCapabilities;

    /// A writer. `recovered` is the handle that its last committed cut holds: the writer finishes
    /// that commit if it was not finished, and undoes everything written behind it. Without one the
    /// job starts anew.
    ///
    /// # Errors
    /// Where the target cannot be opened.
    fn open(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>>;

    /// Whether [`SinkFactory::open_direct`] opens another kind of writer.
    fn has_direct(&self) -> bool {
        false
    }

    /// A writer that shows rows as soon as it has them and takes nothing back, for jobs that ask
    /// for less than exactly once. With a handle it goes on behind whatever was written before,
    /// be it committed or not. [`Sink::prepare`] still makes everything written durable.
    ///
    /// # Errors
    /// As [`SinkFactory::open`].
    fn open_direct(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        self.open(share, recovered, clock)
    }
}

/// What a sink needs in order to finish or undo an epoch after a crash. The bytes belong to the
/// sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkHandle(pub Vec<u8>);

/// A writer of rows.
///
/// # Invariants
/// Rows written before `prepare(n)` belong to epoch *n*. They are visible to readers of committed
/// rows after `commit(n)` and never before; those of a direct writer at once.
pub trait Sink: Send {
    /// Takes rows.
    ///
    /// # Errors
    /// Where they cannot be taken. [`wasmill_model::ErrorKind::Unavailable`] may be tried again
    /// with the same batch: a failed write took no row.
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>>;

    /// Makes everything written so far ready to become visible, durably.
    ///
    /// # Errors
    /// Where that fails. The sink is not used again: a failed sync is never tried again.
    fn prepare(&mut self, epoch: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>>;

    /// Makes the rows of `epoch` and before visible. Idempotent. `last` says that no more will be
    /// written: finish files.
    ///
    /// # Errors
    /// Where that fails. May be tried again.
    fn commit(&mut self, epoch: Epoch, last: bool) -> BoxFuture<'_, Result<(), ConnectorError>>;

    /// Where the results are, for people, such as a path.
    fn location(&self) -> Option<String> {
        None
    }
}
