//! Queues between tasks.
//!
//! A task has one queue for all its inputs; every sender has a budget of its own in it, so that an
//! input that waits for a barrier can be set aside without holding the others up: what is set
//! aside still counts against its sender.
//!
//! # Cancellation
//! [`QueueSender::send`] and [`QueueReceiver::receive`] lose nothing when dropped before they
//! complete, but a dropped `send` has not sent.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use wasmill_model::Batch;

use crate::signal::Signal;

/// Rows that one sender may have on their way to one receiver.
pub(crate) const ROWS_MAX: u32 = 16 * 1_024;
/// Bytes that one sender may have on their way to one receiver.
pub(crate) const BYTES_MAX: u32 = 4 * 1_024 * 1_024;
/// Signals that one sender may have on their way to one receiver.
const SIGNALS_MAX: u32 = 256;

/// A signal with the input it came by. While it lives, its cost counts against its sender.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) input: usize,
    pub(crate) signal: Signal,
    pub(crate) permits: Vec<OwnedSemaphorePermit>,
}

/// The sending end of one input.
#[derive(Debug)]
pub(crate) struct QueueSender {
    input: usize,
    budget: Arc<Semaphore>,
    queue: mpsc::Sender<Arrival>,
}

/// The receiving end of all inputs of a task.
#[derive(Debug)]
pub(crate) struct QueueReceiver {
    queue: mpsc::Receiver<Arrival>,
}

/// The receiver went away: its task failed or was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// A queue for `inputs` senders.
pub(crate) fn queue(inputs: usize) -> (Vec<QueueSender>, QueueReceiver) {
    let (sender, receiver) = mpsc::channel(inputs.max(1) * SIGNALS_MAX as usize);
    let senders = (0..inputs)
        .map(|input| QueueSender { input, budget: Arc::new(Semaphore::new(BYTES_MAX as usize)), queue: sender.clone() })
        .collect();
    (senders, QueueReceiver { queue: receiver })
}

/// What a signal takes of the budget: the largest of its shares in bytes, rows and signals. A
/// signal larger than the whole budget takes all of it.
fn cost(signal: &Signal) -> u32 {
    let one_signal = BYTES_MAX / SIGNALS_MAX;
    match signal {
        Signal::Rows(batch) => cost_of_rows(std::slice::from_ref(batch)),
        Signal::Part { batches, .. } => cost_of_rows(batches),
        Signal::Watermark { .. } | Signal::Barrier(_) | Signal::Give(..) | Signal::Take(_) => one_signal,
    }
}

fn cost_of_rows(batches: &[Batch]) -> u32 {
    let rows = batches.iter().map(|batch| batch.len() as u64).sum::<u64>();
    let bytes = batches.iter().map(|batch| batch.byte_len() as u64).sum::<u64>();
    let share = rows.saturating_mul(u64::from(BYTES_MAX / ROWS_MAX)).max(bytes);
    share.clamp(u64::from(BYTES_MAX / SIGNALS_MAX), u64::from(BYTES_MAX)) as u32
}

impl QueueSender {
    /// How much of the budget is in use: what waits, or is being worked on.
    pub(crate) fn waiting(&self) -> u64 {
        (BYTES_MAX as usize).saturating_sub(self.budget.available_permits()) as u64
    }

    /// Waits for room, then sends.
    pub(crate) async fn send(&self, signal: Signal) -> Result<(), Closed> {
        let permit = Arc::clone(&self.budget).acquire_many_owned(cost(&signal)).await.map_err(|_| Closed)?;
        self.queue.send(Arrival { input: self.input, signal, permits: vec![permit] }).await.map_err(|_| Closed)
    }
}

impl QueueReceiver {
    /// The next signal of any input, `None` once every sender is gone.
    pub(crate) async fn receive(&mut self) -> Option<Arrival> {
        self.queue.recv().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use wasmill_model::{BatchBuilder, Timestamp};

    use super::*;

    fn rows(count: usize, bytes: usize) -> Signal {
        let mut builder = BatchBuilder::default();
        for _ in 0..count {
            builder.push(Timestamp(0), b"", &vec![0; bytes]);
        }
        Signal::Rows(builder.finish(0))
    }

    #[tokio::test]
    async fn a_full_queue_stops_its_sender_and_no_other() {
        let (senders, mut receiver) = queue(2);
        for _ in 0..16 {
            senders[0].send(rows(1_024, 1)).await.expect("open");
        }
        assert!(senders[0].send(rows(1, 1)).now_or_never().is_none(), "16,384 rows fill a budget");
        assert!(senders[1].send(rows(1, 1)).now_or_never().is_some(), "budgets are apart");
        drop(receiver.receive().await);
        assert!(senders[0].send(rows(1, 1)).now_or_never().is_some(), "a handled signal makes room");
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_budget_passes_alone() {
        let (senders, mut receiver) = queue(1);
        senders[0].send(rows(1, 2 * BYTES_MAX as usize)).await.expect("open");
        assert!(senders[0].send(rows(1, 1)).now_or_never().is_none());
        assert!(receiver.receive().await.is_some());
    }

    #[tokio::test]
    async fn signals_without_rows_are_bounded_too() {
        let (senders, _receiver) = queue(1);
        let mut sent = 0;
        loop {
            let signal = Signal::Watermark { time: Timestamp(0), idle: false };
            // Unconstrained: the runtime's own budget must not look like a full queue.
            if tokio::task::unconstrained(senders[0].send(signal)).now_or_never().is_none() {
                break;
            }
            sent += 1;
        }
        assert_eq!(sent, SIGNALS_MAX);
    }
}
