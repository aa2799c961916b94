//! Who may run a guest now: the half that acts.
//!
//! # Cancellation
//! A [`Turn`] that is dropped ends, and a wait for one that is dropped gives its place up: a call that is
//! cut off takes nothing with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use wasmill_env::Clock;

use crate::fair::{Decision, Fair, Id, Share, Ticket};

/// Who waits looks again after this long: credit comes with time. The first of a tenant's calls looks for
/// the others, which may be many.
const LOOK: Duration = Duration::from_millis(1);
const LOOK_OF_OTHERS: Duration = Duration::from_millis(10);

/// The workers that guests of all tenants run on. One for each process.
pub struct Processor {
    inner: Mutex<Inner>,
    /// Whether there is anything to decide: there is more than one tenant, or a ceiling.
    needed: AtomicBool,
    clock: Arc<dyn Clock>,
}

struct Inner {
    fair: Fair,
    wakers: BTreeMap<Ticket, oneshot::Sender<()>>,
}

impl Inner {
    /// Lets those go on that may.
    fn admit(&mut self, now: u64) {
        if !self.fair.somebody_waits() {
            return;
        }
        for ticket in self.fair.admit(now) {
            if let Some(waker) = self.wakers.remove(&ticket) {
                // Who waits no more has dropped its place, and ends its turn there.
                let _gone = waker.send(()).is_err();
            }
        }
    }
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor").finish_non_exhaustive()
    }
}

impl Processor {
    /// Of so many threads.
    #[must_use]
    pub fn new(workers: u32, clock: Arc<dyn Clock>) -> Arc<Self> {
        let inner = Inner { fair: Fair::new(workers), wakers: BTreeMap::new() };
        Arc::new(Self { inner: Mutex::new(inner), needed: AtomicBool::new(false), clock })
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, act: impl FnOnce(&mut Fair) -> T) -> T {
        let mut inner = self.inner();
        let changed = act(&mut inner.fair);
        self.needed.store(inner.fair.is_needed(), Ordering::Relaxed);
        changed
    }
}

/// A tenant's seat at a [`Processor`].
#[derive(Debug)]
pub(crate) struct Seat {
    processor: Arc<Processor>,
    id: Id,
    cpu_nanos: AtomicU64,
    waited_nanos: AtomicU64,
}

impl Seat {
    pub(crate) fn new(processor: Arc<Processor>, share: Share) -> Self {
        let now = processor.clock.monotonic_nanos();
        let id = processor.change(|fair| fair.join(share, now));
        Self { processor, id, cpu_nanos: AtomicU64::new(0), waited_nanos: AtomicU64::new(0) }
    }

    pub(crate) fn set(&self, share: Share) {
        self.processor.change(|fair| fair.set(self.id, share));
    }

    /// CPU time that guests have used, and time that they waited for it, in nanoseconds.
    pub(crate) fn nanos(&self) -> (u64, u64) {
        (self.cpu_nanos.load(Ordering::Relaxed), self.waited_nanos.load(Ordering::Relaxed))
    }

    /// Waits until a guest may run, or go on.
    pub(crate) async fn turn(self: &Arc<Self>) -> Turn {
        self.turn_of(false).await
    }

    async fn turn_of(self: &Arc<Self>, goes_on: bool) -> Turn {
        let turn = |counted| Turn { seat: Arc::clone(self), counted, cpu_nanos: 0 };
        if !goes_on && !self.processor.needed.load(Ordering::Relaxed) {
            return turn(false);
        }
        let began = self.processor.clock.monotonic_nanos();
        let (ticket, mut told) = {
            let mut inner = self.processor.inner();
            match inner.fair.ask(self.id, goes_on, began) {
                Decision::Go => return turn(true),
                Decision::Wait(ticket) => {
                    let (waker, told) = oneshot::channel();
                    inner.wakers.insert(ticket, waker);
                    (ticket, told)
                }
            }
        };
        let mut place = Place { seat: self, ticket: Some(ticket) };
        loop {
            let first = self.processor.inner().fair.is_first(ticket, self.id);
            let look = if first { LOOK } else { LOOK_OF_OTHERS };
            tokio::select! {
                biased;
                _admitted = &mut told => break,
                () = self.processor.clock.sleep(look) => {
                    let now = self.processor.clock.monotonic_nanos();
                    self.processor.inner().admit(now);
                }
            }
        }
        place.ticket = None;
        let waited = self.processor.clock.monotonic_nanos().saturating_sub(began);
        self.waited_nanos.fetch_add(waited, Ordering::Relaxed);
        turn(true)
    }

    fn end(&self, cpu_nanos: u64) {
        self.leave_worker(|fair| fair.end(self.id, cpu_nanos));
    }

    /// A worker is free: somebody else may go on.
    fn leave_worker(&self, act: impl FnOnce(&mut Fair)) {
        let now = self.processor.clock.monotonic_nanos();
        let mut inner = self.processor.inner();
        act(&mut inner.fair);
        inner.admit(now);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.processor.change(|fair| fair.leave(self.id));
    }
}

/// A place among those that wait.
struct Place<'a> {
    seat: &'a Seat,
    ticket: Option<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let waited = {
            let mut inner = self.seat.processor.inner();
            inner.wakers.remove(&ticket);
            inner.fair.give_up(ticket)
        };
        if !waited {
            self.seat.end(0);
        }
    }
}

/// The right to run a guest, for a moment.
#[derive(Debug)]
pub struct Turn {
    seat: Arc<Seat>,
    /// Whether the processor knows of it.
    counted: bool,
    cpu_nanos: u64,
}

impl Turn {
    /// Ends it, after so much CPU time.
    pub fn end(mut self, cpu_nanos: u64) {
        self.cpu_nanos = cpu_nanos;
    }

    /// In the middle of a long call, after so much CPU time since it began or last went on: lets other
    /// tasks run, and waits until it may go on.
    pub async fn go_on(mut self, cpu_nanos: u64) -> Self {
        let seat = Arc::clone(&self.seat);
        if !std::mem::take(&mut self.counted) {
            self.end(cpu_nanos);
            tokio::task::yield_now().await;
            return seat.turn().await;
        }
        seat.leave_worker(|fair| fair.pause(seat.id, cpu_nanos));
        self.end(cpu_nanos);
        let between = Between(&seat);
        tokio::task::yield_now().await;
        std::mem::forget(between);
        seat.turn_of(true).await
    }
}

/// A call between two slices.
struct Between<'a>(&'a Seat);

impl Drop for Between<'_> {
    fn drop(&mut self) {
        self.0.processor.inner().fair.forget(self.0.id);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.seat.cpu_nanos.fetch_add(self.cpu_nanos, Ordering::Relaxed);
        if self.counted {
            self.seat.end(self.cpu_nanos);
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmill_env::SimulatedClock;
    use wasmill_model::Timestamp;

    use super::*;

    const SHARE: Share = Share { weight: 1, ceiling_millicores: None };

    #[tokio::test]
    async fn a_turn_that_ends_lets_the_next_one_go_on() {
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let processor = Processor::new(1, Arc::clone(&clock) as _);
        let a = Arc::new(Seat::new(Arc::clone(&processor), SHARE));
        let alone = a.turn().await;
        let b = Arc::new(Seat::new(Arc::clone(&processor), SHARE));
        alone.end(1_000);
        // Credit comes with time, and one worker is one call.
        clock.advance(Duration::from_millis(10));
        let first = a.turn().await;
        let second = {
            let b = Arc::clone(&b);
            tokio::spawn(async move { b.turn().await })
        };
        tokio::task::yield_now().await;
        first.end(2_000_000);
        second.await.expect("it goes on").end(5);
        assert_eq!((a.nanos().0, b.nanos().0), (2_001_000, 5));
    }

    #[tokio::test]
    async fn a_wait_that_is_dropped_holds_up_nobody() {
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let processor = Processor::new(1, Arc::clone(&clock) as _);
        let [a, b] = [(); 2].map(|()| Arc::new(Seat::new(Arc::clone(&processor), SHARE)));
        let first = a.turn().await;
        {
            let mut waits = Box::pin(b.turn());
            assert!(futures_poll(&mut waits).is_none(), "the worker is taken");
            // Admitted, and dropped before it has heard of it.
            clock.advance(Duration::from_millis(10));
            first.end(1_000_000);
        }
        assert!(!processor.inner().fair.somebody_waits() && processor.inner().wakers.is_empty());
        clock.advance(Duration::from_millis(10));
        let mut next = Box::pin(a.turn());
        let turn = futures_poll(&mut next).expect("nothing runs");
        // A call that is cut off between two slices wants nothing more.
        {
            let mut goes_on = Box::pin(turn.go_on(1));
            assert!(futures_poll(&mut goes_on).is_none(), "others have a turn");
        }
        clock.advance(Duration::from_secs(1));
        let mut next = Box::pin(b.turn());
        assert!(futures_poll(&mut next).is_some(), "nothing runs");
    }

    fn futures_poll<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        }
    }
}
