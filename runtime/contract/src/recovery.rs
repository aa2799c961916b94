use std::collections::BTreeMap;

use wasmill_model::{Epoch, NodeName, PartitionId, Position, key_group, share_of};
use wasmill_order::{PaneEntry, TimerEntry, WindowProgress};
use wasmill_store::EntryChange;

use crate::{Share, SinkHandle};

/// A job as of its last committed epoch: what its tasks go on from. Empty for a new job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last committed epoch, 0 for a new job.
    pub epoch: Epoch,
    /// For each source where to go on reading each partition.
    pub sources: BTreeMap<NodeName, BTreeMap<PartitionId, Position>>,
    /// What each stage holds, over all of its shares.
    pub stages: BTreeMap<NodeName, StageImage>,
    /// The prepared handle of each share of each sink.
    pub sinks: BTreeMap<NodeName, BTreeMap<u16, SinkHandle>>,
}

/// What a stage holds. Entries know their keys, so an image fits any parallelism.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageImage {
    /// State of the operator; every entry has a value.
    pub state: Vec<EntryChange>,
    /// Timers that are set.
    pub timers: Vec<TimerEntry>,
    /// Accumulators of windows that have not fired.
    pub panes: Vec<PaneEntry>,
    /// How far windows have fired, over all shares.
    pub progress: Option<WindowProgress>,
}

impl StageImage {
    /// The part of the image that belongs to one share of the keys.
    #[must_use]
    pub fn share(&self, share: Share) -> Self {
        let mine = |key: &[u8]| share_of(key_group(key), share.of) == share.index;
        Self {
            state: self.state.iter().filter(|entry| mine(&entry.key)).cloned().collect(),
            timers: self.timers.iter().filter(|entry| mine(&entry.key)).cloned().collect(),
            panes: self.panes.iter().filter(|entry| mine(&entry.key)).cloned().collect(),
            progress: self.progress,
        }
    }
}
