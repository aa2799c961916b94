//! Live views of the rows that a node gives, or that a sink is given.
//!
//! A batch costs one look at a flag where nobody watches. Who watches gets batches without a copy of
//! their rows, and loses those that it is too slow for: a job never waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use wasmill_model::Batch;

/// Batches that wait for who watches.
const BATCHES_MAX: usize = 16;

/// A live view of one node.
#[derive(Debug)]
pub struct Tap {
    batches: mpsc::Receiver<Batch>,
    lost: Arc<AtomicU64>,
}

impl Tap {
    /// The next batch; `None` once the job has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }

    /// Rows lost since this was asked last.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

/// Who watches a node.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    any: AtomicBool,
    open: Mutex<Vec<(mpsc::Sender<Batch>, Arc<AtomicU64>)>>,
}

impl Taps {
    fn open(&self) -> MutexGuard<'_, Vec<(mpsc::Sender<Batch>, Arc<AtomicU64>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self) -> Tap {
        let (sender, batches) = mpsc::channel(BATCHES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        self.open().push((sender, Arc::clone(&lost)));
        self.any.store(true, Ordering::Relaxed);
        Tap { batches, lost }
    }

    /// Whether somebody watches.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed) && self.open().iter().any(|(sender, _)| !sender.is_closed())
    }

    /// The node gives a batch.
    pub(crate) fn show(&self, batch: &Batch) {
        if self.any.load(Ordering::Relaxed) {
            self.show_all(batch);
        }
    }

    #[cold]
    fn show_all(&self, batch: &Batch) {
        let mut open = self.open();
        open.retain(|(sender, lost)| match sender.try_send(batch.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(batch)) => {
                lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
        self.any.store(!open.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use wasmill_model::{BatchBuilder, Timestamp};

    use super::*;

    fn batch(rows: usize) -> Batch {
        let mut batch = BatchBuilder::default();
        (0..rows).for_each(|_| batch.push(Timestamp(0), b"k", b"v"));
        batch.finish(0)
    }

    #[tokio::test]
    async fn who_is_slow_loses_rows_and_is_told_how_many() {
        let taps = Taps::default();
        taps.show(&batch(1));
        let mut tap = taps.add();
        (0..BATCHES_MAX + 3).for_each(|_| taps.show(&batch(2)));
        for _ in 0..BATCHES_MAX {
            assert_eq!(tap.next().await.map(|batch| batch.len()), Some(2));
        }
        assert_eq!((tap.take_lost(), tap.take_lost()), (6, 0));
        drop(tap);
        taps.show(&batch(1));
        assert!(!taps.any.load(Ordering::Relaxed), "nobody watches any more");
    }
}
