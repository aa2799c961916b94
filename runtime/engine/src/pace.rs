//! Sources that wait for each other: see [`Pace`], which decides.
//!
//! # Concurrency
//! The readers of a group share one small lock, taken for each watermark and never across a wait. One
//! that is held waits for a word that the slowest has moved.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use wasmill_model::Timestamp;
use wasmill_order::{Pace, Standing};
use wasmill_plan::{NodeKind, Plan};

/// Readers that wait for each other.
#[derive(Debug)]
struct Group {
    pace: Mutex<Pace>,
    /// Told that the slowest has moved.
    moved: watch::Sender<()>,
}

/// One reader of a group.
#[derive(Debug)]
pub(crate) struct Pacer {
    group: Arc<Group>,
    reader: usize,
    /// How far it may be ahead of the slowest, microseconds.
    bound: u64,
    moved: watch::Receiver<()>,
}

impl Pacer {
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.group.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reader is so far.
    pub(crate) fn tell(&self, watermark: Timestamp, standing: Standing) {
        if self.pace().update(self.reader, watermark, standing) {
            self.group.moved.send_replace(());
        }
    }

    /// How far the slowest is that it has to wait for. From here on [`Self::moved`] misses nothing.
    pub(crate) fn holds(&mut self) -> Option<Timestamp> {
        self.moved.mark_unchanged();
        self.pace().holds(self.reader, self.bound)
    }

    /// The same, for people.
    pub(crate) fn waits_for(&self) -> Option<Timestamp> {
        self.pace().holds(self.reader, self.bound)
    }

    /// The slowest has moved. Cancel safe.
    pub(crate) async fn moved(&mut self) {
        if self.moved.changed().await.is_err() {
            // It holds a sender itself, so this does not happen.
            std::future::pending().await
        }
    }
}

/// The readers of all groups of a job, by node, one a task.
pub(crate) fn pacers(plan: &Plan) -> BTreeMap<(usize, u16), Pacer> {
    let mut groups: BTreeMap<&str, Vec<(usize, u16, u64)>> = BTreeMap::new();
    for (place, node) in plan.nodes.iter().enumerate() {
        if let NodeKind::Source { watermarks, .. } = &node.kind
            && let Some(align) = &watermarks.align
        {
            let tasks = 0..plan.chains[node.chain].parallelism;
            let readers = tasks.map(|task| (place, task, align.within_micros));
            groups.entry(align.group.as_str()).or_default().extend(readers);
        }
    }
    let mut pacers = BTreeMap::new();
    for readers in groups.into_values() {
        let (moved, _) = watch::channel(());
        let group = Arc::new(Group { pace: Mutex::new(Pace::new(readers.len())), moved });
        for (reader, (place, task, bound)) in readers.into_iter().enumerate() {
            let (moved, group) = (group.moved.subscribe(), Arc::clone(&group));
            pacers.insert((place, task), Pacer { group, reader, bound, moved });
        }
    }
    pacers
}
