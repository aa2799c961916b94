//! Dead letters that are processed again.
//!
//! # Crash consistency
//! A job begins with them, each in the task that has its key now. The epoch that holds what comes of
//! them drops them: after a crash before that they come again.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmill_model::{
    Batch, BatchBuilder, LetterSubject, Lineage, NodeName, PartitionId, Timestamp, key_group, share_of,
};
use wasmill_plan::Extraction;
use wasmill_store::{LetterId, LetterRecord};

use crate::extract::{self, Extracted};

/// Rows of one batch at most.
const ROWS_MAX: usize = 1_024;

/// Dead letters of one node that came in by one port.
pub(crate) struct Replay {
    pub(crate) ids: Vec<LetterId>,
    /// The node's place in its chain.
    pub(crate) slot: usize,
    pub(crate) port: u16,
    pub(crate) rows: Batch,
    /// Rows that still are no events, with why.
    pub(crate) malformed: Option<(Batch, Vec<String>)>,
}

impl Replay {
    /// Makes events of rows that a source had rejected.
    pub(crate) fn extract(&mut self, extraction: &Extraction) {
        let Extracted { events, rejected } = extract::extract(self.rows.clone(), extraction);
        (self.rows, self.malformed) = (events, rejected);
    }
}

/// Dead letters by node and share of the keys. What is no row stays where it is, and so does what
/// belongs to a node that is gone.
#[derive(Default)]
pub(crate) struct Replays {
    by_share: BTreeMap<(NodeName, u16), Vec<(LetterId, LetterRecord)>>,
}

impl Replays {
    /// Deals letters to the tasks of their nodes, by key.
    pub(crate) fn new(letters: Vec<(LetterId, LetterRecord)>, parallelism: impl Fn(&NodeName) -> Option<u16>) -> Self {
        let mut replays = Self::default();
        for (id, letter) in letters {
            let Some(shares) = parallelism(&letter.node) else { continue };
            let share = share_of(key_group(&letter.key), shares);
            replays.by_share.entry((letter.node.clone(), share)).or_default().push((id, letter));
        }
        replays
    }

    /// The letters of one share of a node, in the order of their ids, as batches.
    pub(crate) fn take(&mut self, node: &NodeName, share: u16, slot: usize) -> Vec<Replay> {
        let letters = self.by_share.remove(&(node.clone(), share)).unwrap_or_default();
        let rows: Vec<_> = letters
            .iter()
            .filter_map(|(id, letter)| match letter.subject {
                LetterSubject::Row { port } => Some((port, origin(letter), *id, letter)),
                LetterSubject::Timer(_) | LetterSubject::Watermark | LetterSubject::Pane => None,
            })
            .collect();
        let same = |a: &(u16, Origin, LetterId, &LetterRecord), b: &(u16, Origin, LetterId, &LetterRecord)| {
            a.0 == b.0 && a.1.map(|at| at.0) == b.1.map(|at| at.0)
        };
        let runs = rows.chunk_by(same).flat_map(|run| run.chunks(ROWS_MAX));
        runs.map(|run| {
            let (mut batch, mut offsets) = (BatchBuilder::default(), Vec::new());
            for (_, origin, _, letter) in run {
                batch.push(Timestamp(letter.time), &letter.key, &letter.value);
                offsets.extend(origin.map(|(_, offset)| offset));
            }
            let (port, origin, ..) = run[0];
            let lineage = origin.map(|(partition, _)| Lineage { partition, offsets: Arc::new(offsets) });
            let ids = run.iter().map(|(_, _, id, _)| *id).collect();
            Replay { ids, slot, port, rows: batch.finish(0).with_lineage(lineage), malformed: None }
        })
        .collect()
    }
}

type Origin = Option<(PartitionId, u64)>;

/// Where a row came from.
fn origin(letter: &LetterRecord) -> Origin {
    let origin = letter.origin.as_ref()?;
    let offset = origin.position.0[..].try_into().ok().map(u64::from_le_bytes)?;
    Some((origin.partition, offset))
}
