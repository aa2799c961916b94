//! What a running job can say about its time and order: facts as they stand, without a judgement.
//!
//! A task tells its facts between two batches, when it is asked; nothing is kept for that on the way of
//! rows but the last few that came late ([`LateRows`]).

use std::collections::VecDeque;

use wasmill_model::{Batch, NodeName, PartitionId, Position, Timestamp};
use wasmill_order::{Gap, InputProgress, OpenWindow, PartitionProgress};

/// Rows that came late of which a stage remembers each.
const LATE_MAX: usize = 8;
/// Bytes of a key that are kept for people.
const KEY_BYTES_MAX: usize = 128;
/// Windows, and sequences with a gap, that a task names.
pub(crate) const NAMED_MAX: usize = 4;

/// What the tasks of a job say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// Monotonic nanoseconds at which they were asked.
    pub now_nanos: u64,
    /// What each says.
    pub tasks: Vec<TaskFacts>,
    /// Tasks that have not answered: their first node, and which share of it they have. They work on one
    /// batch, or wait for room in a queue.
    pub silent: Vec<(NodeName, u16)>,
}

/// What one task says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskFacts {
    /// Its nodes, in order.
    pub nodes: Vec<NodeName>,
    /// Which of the tasks of these nodes it is.
    pub share: u16,
    /// How far its nodes are, behind the ordering buffers of the first.
    pub watermark: Timestamp,
    /// Where its rows come from.
    pub head: HeadFacts,
    /// The ordering buffers in front of its first node.
    pub buffers: Vec<BufferFacts>,
    /// Its stages with windows.
    pub windows: Vec<WindowFacts>,
    /// When the next timer or window is due by the wall clock. It is part of the epoch.
    pub due: Option<Timestamp>,
    /// Whether an ordering buffer gives up numbers before long. How long it waits for them begins anew
    /// with the task.
    pub gives_up: bool,
}

/// Where the rows of a task come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadFacts {
    /// From outside.
    Source(SourceFacts),
    /// From other tasks.
    Inputs(Vec<InputFacts>),
}

/// A source in one of its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// Whether it reads.
    pub reading: Reading,
    /// Its watermark.
    pub watermark: Timestamp,
    /// The source that its watermark is that of, where it is not its own.
    pub from: Option<NodeName>,
    /// Its partitions, with their names where they have any.
    pub partitions: Vec<(PartitionProgress, String)>,
    /// Behind the last row that it gave, for each partition.
    pub positions: Vec<(PartitionId, Position)>,
    /// Whether a partition counts as idle once it has been silent for longer: the watermark may rise.
    pub becomes_idle: bool,
}

/// Whether a source reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It does, or waits for something to come.
    Reads,
    /// Somebody has paused it.
    Paused,
    /// It has read as much as an epoch may hold, and waits for the epoch to be committed.
    WaitsForEpoch,
    /// It is too far ahead of others that it keeps pace with: the slowest of them is at this watermark.
    WaitsForOthers(Timestamp),
    /// There is nothing left to read.
    Ended,
}

/// An input of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFacts {
    /// The node that sends.
    pub from: NodeName,
    /// Which of its tasks; `None`: the lanes of a convoy, as one.
    pub share: Option<u16>,
    /// How far it is.
    pub progress: InputProgress,
    /// Whether it waits for the barrier of other inputs.
    pub blocked: bool,
}

/// An ordering buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferFacts {
    /// The input port it stands in front of.
    pub port: u16,
    /// Rows held.
    pub held: u64,
    /// Those of them that wait on disk.
    pub on_disk: u64,
    /// Bytes in memory of the batches of the others.
    pub bytes: u64,
    /// No row up to this time is waited for.
    pub promised: Timestamp,
    /// What for.
    pub waits: Waits,
    /// The last rows that came too late for it.
    pub late: Vec<LateRow>,
}

/// What an ordering buffer waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// A row so much younger than those it holds.
    Time {
        /// How much, microseconds; `None`: it waits for the watermark of its input.
        k: Option<u64>,
        /// The latest event time that came.
        latest: Option<Timestamp>,
        /// Time and key of the row that goes next.
        first: Option<(Timestamp, Box<[u8]>)>,
    },
    /// Numbers that are missing.
    Sequence {
        /// Some of the sequences that wait.
        gaps: Vec<Gap>,
        /// Whether each key has a sequence of its own.
        per_key: bool,
    },
}

/// A stage with windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowFacts {
    /// The stage.
    pub node: NodeName,
    /// Accumulators that its windows hold.
    pub held: u64,
    /// Some of those that are open.
    pub open: Vec<OpenWindow>,
    /// The last rows that came when all of their windows were closed.
    pub late: Vec<LateRow>,
}

/// A row that came late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateRow {
    /// Its event time.
    pub time: Timestamp,
    /// Its key, or how that begins.
    pub key: Box<[u8]>,
    /// The watermark that it came behind; in a buffer by time, how far that was.
    pub watermark: Timestamp,
    /// In a buffer by sequence, its number.
    pub number: Option<u64>,
    /// Partition and offset of it, where it comes from a source as it was read.
    pub origin: Option<(PartitionId, u64)>,
    /// When it came, by the wall clock.
    pub came: Timestamp,
}

/// The last rows that came late: a bounded ring.
#[derive(Debug, Default)]
pub(crate) struct LateRows(VecDeque<LateRow>);

impl LateRows {
    /// These rows of a batch came late.
    pub(crate) fn note(
        &mut self,
        batch: &Batch,
        late: &[u32],
        watermark: Timestamp,
        came: Timestamp,
        number: impl Fn(&[u8]) -> Option<u64>,
    ) {
        for &row in &late[late.len().saturating_sub(LATE_MAX)..] {
            let row = row as usize;
            if self.0.len() == LATE_MAX {
                self.0.pop_front();
            }
            self.0.push_back(LateRow {
                time: Timestamp(batch.times()[row]),
                key: shown(batch.keys().row(row)),
                watermark,
                number: number(batch.values().row(row)),
                origin: batch.lineage().map(|lineage| (lineage.partition, lineage.offsets[row])),
                came,
            });
        }
    }

    pub(crate) fn told(&self) -> Vec<LateRow> {
        self.0.iter().cloned().collect()
    }
}

/// As much of a key as people are shown.
pub(crate) fn shown(key: &[u8]) -> Box<[u8]> {
    key[..key.len().min(KEY_BYTES_MAX)].into()
}

#[cfg(test)]
mod tests {
    use wasmill_model::BatchBuilder;

    use super::*;

    #[test]
    fn only_the_last_late_rows_are_remembered() {
        let mut late = LateRows::default();
        let mut batch = BatchBuilder::default();
        (0..100).for_each(|time| batch.push(Timestamp(time), &[b'k'; 1_000], b"7"));
        let (batch, at) = (batch.finish(0), Timestamp(200));
        late.note(&batch, &[3, 4], at, at, |_| None);
        late.note(&batch, &(10..100).collect::<Vec<_>>(), at, at, |value| {
            std::str::from_utf8(value).ok()?.parse().ok()
        });
        late.note(&batch, &[5], Timestamp(300), at, |_| None);
        let told = late.told();
        let times: Vec<i64> = told.iter().map(|row| row.time.0).collect();
        assert_eq!(times, [93, 94, 95, 96, 97, 98, 99, 5]);
        assert_eq!((told[7].watermark, told[6].number, told[0].key.len()), (Timestamp(300), Some(7), KEY_BYTES_MAX));
    }
}
