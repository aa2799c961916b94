//! The outbox: makes a sink that is exactly-once out of a target that only drops what it has.
//!
//! Rows of an epoch wait in memory and, as the sink's handle, in the epoch's commit. Once that is
//! durable a task beside the job delivers them, in order, under ids that stay the same however often
//! the delivery is tried: [`RowId`]. A target that drops ids it has seen holds every row once.
//!
//! ```text
//! write ─▶ rows of the epoch ─▶ prepare: handle = every row not delivered yet ─▶ the epoch's commit
//!                                                                                      │ durable
//!                     target ◀── deliver, in order, until it succeeds ◀── commit ◀─────┘
//! ```
//!
//! # Crash consistency
//! A handle holds the rows of its epoch and those of earlier epochs that were not delivered when it
//! was made. What was delivered since then is delivered again after a crash, with the same ids and in
//! the same batches.
//!
//! # Bounds
//! Where more than [`OutboxOptions`] allow waits to be delivered, `write` waits. Rows of epochs that
//! are not durable do not make it wait, since nothing would ever take them away.
//!
//! # Cancellation
//! Dropping the sink ends the delivery, at an await of the target.

mod codec;
mod config;
mod deliver;
mod ledger;
mod sink;

use std::fmt;
use std::sync::Arc;

use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkHandle};
use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch};

pub(crate) use config::{OutboxConfig, OutboxOptions};

use crate::Site;

/// Where rows are delivered to.
pub(crate) trait Target: Send + 'static {
    /// Delivers rows, of which the first has the id `first` and each next one the next index.
    /// Returns once the target has all of them for good. Called again with the same rows where it
    /// failed or took too long, also after a crash; rows that the target has already are dropped.
    ///
    /// # Errors
    /// [`wasmill_model::ErrorKind::Unavailable`] is tried again; everything else fails the job.
    fn deliver<'a>(&'a mut self, first: RowId<'a>, rows: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>>;
}

/// The header by which a row says what it is: `pane=correction`.
pub(crate) const PANE_HEADER: &str = "pane=";

/// Rows of windows that fire more than once, with a header that says what each is. Such rows are new:
/// they have no other headers.
fn with_pane_headers(batch: &Batch) -> Batch {
    let Some(kinds) = batch.kinds() else { return batch.clone() };
    let headers = kinds.iter().map(|kind| format!("{PANE_HEADER}{}", kind.name())).collect();
    batch.clone().with_headers(Some(Arc::new(headers)))
}

/// Who writes: one writer of one sink in one life of its job's state.
///
/// A job that starts without state writes other rows under the same epochs, and so does one that goes on from a
/// savepoint: each is another writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Writer {
    /// `job/sink/share/life`, where `life` is when the state began, or was made of a savepoint.
    name: Arc<str>,
    life: u64,
}

impl Writer {
    fn new(site: &Site, share: Share, life: u64) -> Self {
        Self { name: format!("{}/{}/{}/{life:x}", site.job, site.node, share.index).into(), life }
    }

    /// What tells it from every other writer.
    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }
}

/// What names a row for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowId<'a> {
    /// Who writes.
    pub(crate) writer: &'a Writer,
    /// The epoch the row belongs to.
    pub(crate) epoch: Epoch,
    /// Its place in the epoch, from 0.
    pub(crate) index: u64,
}

impl fmt::Display for RowId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.writer.as_str(), self.epoch, self.index)
    }
}

/// Opens an outbox in front of `target`, which people call `location`, and begins to deliver what `recovered` holds.
///
/// # Errors
/// Where `recovered` is not what an outbox made; where it is of a savepoint and cannot be delivered.
pub(crate) async fn open(
    site: &Site,
    share: Share,
    recovered: Option<SinkHandle>,
    clock: Arc<dyn Clock>,
    options: OutboxOptions,
    location: String,
    target: impl Target,
) -> Result<Box<dyn Sink>, ConnectorError> {
    sink::open(site, share, recovered, clock, options, location, Box::new(target)).await
}

#[cfg(test)]
mod tests;
