//! The watermarks of a source that has those of another one: see [`Marks`].

use wasmill_model::{NodeName, Timestamp};

use crate::queue::QueueReceiver;
use crate::signal::{Barrier, Signal};

/// Watermarks of another source, on their way in.
///
/// # Ordering
/// The other source sends its barriers with them. What it sent before barrier *n* is taken in before this
/// source ends epoch *n*, and what it sent behind it after: so the positions of both belong to one
/// moment, and no watermark is lost or told twice by a restart.
pub(crate) struct Marks {
    /// The other source.
    pub(crate) from: NodeName,
    queue: QueueReceiver,
    /// The barrier that stands between what has come in and what has not.
    barrier: Option<Barrier>,
    /// The watermark, and whether its source is idle.
    now: (Timestamp, bool),
}

impl Marks {
    pub(crate) fn new(from: NodeName, queue: QueueReceiver) -> Self {
        Self { from, queue, barrier: None, now: (Timestamp::MIN, false) }
    }

    /// The watermark, and whether its source is idle.
    pub(crate) fn now(&self) -> (Timestamp, bool) {
        self.now
    }

    /// Waits until the watermark has changed, or for good where a barrier is next. `false` once the other
    /// source is gone. Cancel safe.
    pub(crate) async fn changed(&mut self) -> bool {
        if self.barrier.is_some() {
            return std::future::pending().await;
        }
        loop {
            match self.queue.receive().await.map(|arrival| arrival.signal) {
                Some(Signal::Watermark { time, idle }) if self.take(time, idle) => return true,
                Some(Signal::Barrier(barrier)) => {
                    self.barrier = Some(barrier);
                    return std::future::pending().await;
                }
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Everything up to a barrier comes in. `false` once the other source is gone.
    pub(crate) async fn reach(&mut self, barrier: Barrier) -> bool {
        while self.barrier != Some(barrier) {
            self.barrier = None;
            match self.queue.receive().await.map(|arrival| arrival.signal) {
                Some(Signal::Watermark { time, idle }) => drop(self.take(time, idle)),
                Some(Signal::Barrier(next)) => self.barrier = Some(next),
                Some(_) => {}
                None => return false,
            }
        }
        self.barrier = None;
        true
    }

    /// Whether something is new. The end of the other source is none of this one: its watermark stays.
    fn take(&mut self, time: Timestamp, idle: bool) -> bool {
        let before = self.now;
        if time < Timestamp::MAX {
            self.now = (time.max(before.0), idle);
        }
        self.now != before
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use wasmill_model::Epoch;

    use super::*;
    use crate::queue::queue;

    #[tokio::test]
    async fn what_was_sent_before_a_barrier_comes_in_before_it_and_no_more() {
        let (senders, queue) = queue(1);
        let mut marks = Marks::new(NodeName::new("marks").expect("a name"), queue);
        let send = |signal| {
            let sent = senders[0].send(signal).now_or_never();
            assert_eq!(sent, Some(Ok(())), "there is room");
        };
        let mark = |time| Signal::Watermark { time: Timestamp(time), idle: false };
        let barrier = |epoch| Barrier { epoch: Epoch(epoch), last: false };
        send(mark(1));
        send(mark(2));
        send(Signal::Barrier(barrier(1)));
        send(mark(3));
        // The barrier has come, and this source has not been told to end its epoch yet.
        assert!(marks.changed().await && marks.changed().await);
        assert_eq!(marks.changed().now_or_never(), None);
        assert_eq!(marks.now(), (Timestamp(2), false));
        assert!(marks.reach(barrier(1)).await);
        assert_eq!(marks.now(), (Timestamp(2), false));
        assert!(marks.changed().await);
        assert_eq!(marks.now(), (Timestamp(3), false));
        // Told first, it waits for the barrier.
        send(mark(4));
        assert_eq!(marks.reach(barrier(2)).now_or_never(), None);
        send(Signal::Barrier(barrier(2)));
        assert!(marks.reach(barrier(2)).await);
        assert_eq!(marks.now(), (Timestamp(4), false));
        // The other source has ended.
        send(Signal::Watermark { time: Timestamp::MAX, idle: false });
        drop(senders);
        assert!(!marks.changed().await);
        assert_eq!(marks.now(), (Timestamp(4), false));
    }
}
