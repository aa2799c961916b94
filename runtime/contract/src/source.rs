use std::sync::Arc;

use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch, PartitionId, Position};

use crate::{BoxFuture, ConnectorError, SourceCapabilities};

/// A configured source: knows its partitions and opens readers of them.
pub trait SourceFactory: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> SourceCapabilities;

    /// The partitions that exist now. Their numbers are stable over restarts.
    ///
    /// # Errors
    /// Where they cannot be listed: a missing file, an unreachable server.
    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>>;

    /// A reader of some partitions, each from its position or from its start.
    ///
    /// # Errors
    /// Where one cannot be opened at its position.
    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>>;
}

/// A partition as the source lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePartition {
    /// Its number.
    pub id: PartitionId,
    /// What people call it, such as a file name.
    pub name: String,
    /// How much there is to read, in the unit of [`Source::progress`], where it is known.
    pub size: Option<u64>,
}

/// The bounds of one batch: the source returns at the first that is reached, and earlier where
/// waiting would delay rows it already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimit {
    /// Most rows.
    pub rows: usize,
    /// Most bytes, passed by at most one row.
    pub bytes: usize,
}

/// What a source has for the engine.
#[derive(Debug)]
pub enum SourceEvent {
    /// Rows of one partition, with a lineage. Times are those of the broker where it has any and
    /// the wall time of arrival otherwise; keys are those of the broker, else empty. The engine
    /// puts in what the job file says about `key` and `time`. Never empty.
    Rows(Batch),
    /// A record that could not be decoded: it goes to the dead-letter queue, reading goes on.
    Malformed {
        /// Its partition.
        partition: PartitionId,
        /// Its offset.
        offset: u64,
        /// Its bytes, as far as they are known.
        bytes: Vec<u8>,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// A partition ended: it holds no watermark back any more.
    PartitionEnd(PartitionId),
    /// Nothing is left to read, in any partition, ever. Not called again after this.
    End,
}

/// A reader of one or more partitions.
pub trait Source: Send {
    /// Waits for the next event. Cancel safe: a dropped future loses nothing.
    ///
    /// # Errors
    /// Where reading fails. After an error the reader is not used again.
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>>;

    /// For each assigned partition the position behind the last row that [`Source::next`]
    /// returned.
    fn positions(&self) -> Vec<(PartitionId, Position)>;

    /// The rows up to the positions of `epoch` are durable: tell upstream.
    ///
    /// # Errors
    /// Where upstream cannot be told.
    fn acknowledge(&mut self, epoch: Epoch) -> BoxFuture<'_, Result<(), ConnectorError>> {
        let _ = epoch;
        Box::pin(async { Ok(()) })
    }

    /// How much has been read over all assigned partitions, in the unit of
    /// [`SourcePartition::size`], where that is known.
    fn progress(&self) -> Option<u64> {
        None
    }
}
