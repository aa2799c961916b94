//! What an epoch changes, and what a store gives back: plain data.
//!
//! Timers and windows mirror the types of `order`, which this crate does not know.

use std::collections::BTreeMap;

use wasmill_env::planted;
use wasmill_model::{
    Clock, Epoch, LetterKind, LetterSubject, NodeName, PartitionId, PluginDigest, Position, key_group, share_of,
};

use super::StoreError;
use crate::{ChangeSet, EntryChange};

/// Everything one epoch changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochRecord {
    /// Nodes of which nothing is left from before this epoch: those that a job no longer has, or
    /// whose state this epoch holds anew. Their rejected rows stay.
    pub removed: Vec<NodeName>,
    /// Facts about the job that are not rows, such as the digests of its plugins. `None` removes.
    pub meta: BTreeMap<String, Option<Vec<u8>>>,
    /// Positions of sources: those that changed at least.
    pub positions: Vec<PositionRecord>,
    /// Changes of the shares of stages.
    pub stages: Vec<StageRecord>,
    /// Changes of the ordering buffers in front of stages.
    pub held: Vec<HeldRecord>,
    /// Prepared handles of sinks.
    pub sinks: Vec<SinkRecord>,
    /// Rejected rows, and whatever else could not be processed.
    pub dead_letters: Vec<LetterRecord>,
    /// Rejected rows that are done with.
    pub dropped_letters: Vec<LetterId>,
    /// Rejected rows that are to be processed again when the job runs next.
    pub replays: Vec<LetterId>,
}

/// Where a source goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRecord {
    /// The source.
    pub node: NodeName,
    /// Its partition.
    pub partition: PartitionId,
    /// The position.
    pub position: Position,
}

/// Changes of one share of a stage.
///
/// # Invariants
/// State, timers and accumulators belong to their key, and the key to the share that
/// [`wasmill_model::share_of`] gives it among `shares`. So nothing has to be moved when a stage
/// goes on with another number of shares; the first epoch then has to hold the windows of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageRecord {
    /// The stage.
    pub node: NodeName,
    /// Which share.
    pub share: u16,
    /// Of how many.
    pub shares: u16,
    /// Changes of the operator's state.
    pub state: ChangeSet,
    /// Changes of its timers.
    pub timers: Vec<TimerRecord>,
    /// Changes of its windows, where it has any.
    pub windows: Option<WindowRecord>,
}

/// A row in the ordering buffer of an input port, or something that the buffer knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRecord {
    /// The stage.
    pub node: NodeName,
    /// Its input port.
    pub port: u16,
    /// The event key, which the entry goes with; empty for what belongs to a share of the stage.
    pub key: Box<[u8]>,
    /// Which entry of the key. A first byte of 0 says that it belongs to no key: every share gets it.
    pub name: Box<[u8]>,
    /// What the engine wrote. `None`: it is gone.
    pub value: Option<Vec<u8>>,
}

/// A timer, or that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerRecord {
    /// The clock it counts in.
    pub clock: Clock,
    /// The event key.
    pub key: Box<[u8]>,
    /// The tag.
    pub tag: Box<[u8]>,
    /// When it is due, in microseconds since the Unix epoch, and its place among timers of equal
    /// time.
    pub set: Option<(i64, u64)>,
}

/// How far the windows of one share have fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressRecord {
    /// The first window that has not fired completely.
    pub next_window: i128,
    /// Panes of that window that have fired.
    pub panes: u64,
}

/// Changes of the windows of one share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowRecord {
    /// How far windows have fired.
    pub progress: ProgressRecord,
    /// Starts of slices that are gone, with all entries they had before this epoch.
    pub dropped: Vec<i64>,
    /// Keys of which the accumulators of slice 0 are gone.
    pub gone: Vec<Box<[u8]>>,
    /// New and changed accumulators.
    pub entries: Vec<PaneRecord>,
}

/// An accumulator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaneRecord {
    /// Where its slice begins, microseconds since the Unix epoch.
    pub slice: i64,
    /// The event key.
    pub key: Box<[u8]>,
    /// The place of the key among those of the slice.
    pub order: u32,
    /// The accumulator.
    pub accumulator: Box<[u8]>,
}

/// The prepared handle of one share of a sink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkRecord {
    /// The sink.
    pub node: NodeName,
    /// Which share.
    pub share: u16,
    /// Of how many.
    pub shares: u16,
    /// What the sink needs after a crash.
    pub handle: Vec<u8>,
}

/// Names a rejected row within its job. Rises, and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId(pub u64);

/// A rejected row, or whatever else could not be processed, with why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterRecord {
    /// The epoch in which it was rejected. Set by the store.
    pub epoch: Epoch,
    /// The node that rejected it.
    pub node: NodeName,
    /// The plugin that did, where it was one.
    pub digest: Option<PluginDigest>,
    /// Why.
    pub kind: LetterKind,
    /// What it is.
    pub subject: LetterSubject,
    /// Why in words.
    pub reason: String,
    /// Where the plugin was when it trapped, its innermost function first.
    pub stack: Vec<String>,
    /// Event time of the row, microseconds since the Unix epoch.
    pub time: i64,
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
    /// Where it came from, where that is known.
    pub origin: Option<PositionRecord>,
}

/// Everything a job has committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last committed epoch, 0 for a new job.
    pub epoch: Epoch,
    /// Facts about the job.
    pub meta: BTreeMap<String, Vec<u8>>,
    /// Where sources go on, by node and partition.
    pub positions: Vec<PositionRecord>,
    /// What stages hold.
    pub stages: BTreeMap<NodeName, RecoveredStage>,
    /// The latest handles of sinks, by node and share.
    pub sinks: Vec<SinkRecord>,
    /// How many rejected rows are kept.
    pub dead_letters: u64,
    /// Those of them that are to be processed again, in rising order.
    pub replays: Vec<(LetterId, LetterRecord)>,
}

/// What a stage holds, or one share of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveredStage {
    /// State, sorted, each entry with its value.
    pub state: Vec<EntryChange>,
    /// Timers that are set, sorted by clock, key and tag.
    pub timers: Vec<TimerRecord>,
    /// How far the windows of each share had fired: share, number of shares, progress.
    pub progress: Vec<(u16, u16, ProgressRecord)>,
    /// Accumulators, sorted by slice and key.
    pub panes: Vec<PaneRecord>,
    /// What ordering buffers in front of it hold, sorted by port, key and name.
    pub held: Vec<HeldRecord>,
}

impl Recovered {
    /// Takes nodes out.
    pub fn forget(&mut self, removed: &[NodeName]) {
        self.positions.retain(|position| !removed.contains(&position.node));
        self.sinks.retain(|sink| !removed.contains(&sink.node));
        self.stages.retain(|node, _| !removed.contains(node));
    }
}

impl RecoveredStage {
    /// Deals what the stage holds to so many shares, by key. The progress of each is the one
    /// entry of [`Self::progress`] it gets.
    ///
    /// # Errors
    /// Where the stage had another number of shares and these had not fired equally far.
    ///
    /// # Panics
    /// Where `shares` is 0.
    pub fn split(self, node: &NodeName, shares: u16) -> Result<Vec<Self>, StoreError> {
        assert!(shares > 0, "a stage has at least one share");
        let mut split = vec![Self::default(); shares.into()];
        if let Some(&(_, stored, progress)) = self.progress.first() {
            let same = stored == shares && self.progress.len() == usize::from(shares);
            if !same && self.progress.iter().any(|(.., other)| *other != progress) {
                return Err(StoreError::UnevenWindows { node: node.to_string(), shares, stored });
            }
            for (share, part) in (0..shares).zip(&mut split) {
                let own = if same { self.progress[usize::from(share)].2 } else { progress };
                part.progress.push((share, shares, own));
            }
        }
        let moved = u16::from(planted("rescaled-to-others"));
        let owner = |key: &[u8]| usize::from((share_of(key_group(key), shares) + moved) % shares);
        for entry in self.state {
            split[owner(&entry.key)].state.push(entry);
        }
        for timer in self.timers {
            split[owner(&timer.key)].timers.push(timer);
        }
        for pane in self.panes {
            split[owner(&pane.key)].panes.push(pane);
        }
        for held in self.held {
            if held.name.first() == Some(&0) {
                split.iter_mut().for_each(|part| part.held.push(held.clone()));
            } else {
                split[owner(&held.key)].held.push(held);
            }
        }
        Ok(split)
    }
}
