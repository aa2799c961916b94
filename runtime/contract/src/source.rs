use std::sync::Arc;

use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch, PartitionId, Position, TopicName};

use crate::{BoxFuture, ConnectorError, SourceCapabilities};

/// A configured source: knows its partitions and opens readers of them.
pub trait SourceFactory: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> SourceCapabilities;

    /// Whether rows that the job has not read yet wait on disk, bounded by its backpressure.
    fn waits_on_disk(&self) -> bool {
        false
    }

    /// What is to be heard before there is anything to read behind `positions`, where nobody reads:
    /// then a job that has nothing to do need not be in memory. `None` where only a reader can tell.
    fn bell(&self, positions: &[(PartitionId, Position)]) -> Option<Bell> {
        let _ = positions;
        None
    }

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

/// What a source waits for that has read everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bell {
    /// Records of this topic,
    pub topic: TopicName,
    /// in a partition at this offset or behind it.
    pub next: Vec<(PartitionId, u64)>,
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
/// waiting would delay rows it already has. A source that reads ahead may return what it has read
/// under the limit of an earlier call.
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

/// What a source counts beside the rows that it gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceCounts {
    /// Rows that came and were dropped because the job was too slow, as its file allows.
    pub dropped: u64,
    /// Rows that waited on disk because the job was too slow.
    pub spilled: u64,
    /// How often a sender had to wait or was told to come again, because the job was too slow.
    pub held: u64,
    /// Rows that came again under an id that was known, and were left out.
    pub duplicates: u64,
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

    /// Rows before `positions`, those of the cut of `epoch`, are committed: tell upstream, and let
    /// go of what was kept for reading again. Epochs rise.
    ///
    /// # Errors
    /// Where upstream cannot be told.
    fn acknowledge<'a>(
        &'a mut self,
        epoch: Epoch,
        positions: &'a [(PartitionId, Position)],
    ) -> BoxFuture<'a, Result<(), ConnectorError>> {
        let _ = (epoch, positions);
        Box::pin(async { Ok(()) })
    }

    /// The job is asked to end: take nothing more from outside. `true` where rows were taken that
    /// cannot be read again: [`Source::next`] gives them, and then [`SourceEvent::End`].
    fn stop(&mut self) -> bool {
        false
    }

    /// What it has counted since it was opened.
    fn counts(&self) -> SourceCounts {
        SourceCounts::default()
    }

    /// Where it can be reached, for people and for programs that started the job, such as
    /// `http://127.0.0.1:8080/`.
    fn location(&self) -> Option<String> {
        None
    }

    /// How much has been read over all assigned partitions, in the unit of
    /// [`SourcePartition::size`], where that is known.
    fn progress(&self) -> Option<u64> {
        None
    }
}
