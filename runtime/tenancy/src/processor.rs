//! Who may run now: the half that acts.
//!
//! A [`Scheduled`] task asks before it is polled, and says behind it what CPU time the poll took. One that
//! waits holds no thread.
//!
//! # Cancellation
//! A task that is dropped ends its slice, or gives its place up.

use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use wasmill_env::Clock;

use crate::fair::{Fair, Id, Share, Ticket};

/// Who waits looks again after this long: room below a ceiling comes with time, and workers are kept free
/// only for so long. The first of a tenant's looks for the others, which may be many.
const LOOK: Duration = Duration::from_millis(1);
const LOOK_OF_OTHERS: Duration = Duration::from_millis(10);

/// The workers that tasks of all tenants run on. One for each process.
pub struct Processor {
    inner: Mutex<Inner>,
    /// Whether there is anything to decide: there is more than one tenant, or a ceiling.
    needed: AtomicBool,
    clock: Arc<dyn Clock>,
}

struct Inner {
    fair: Fair,
    /// Of those that wait.
    wakers: BTreeMap<Ticket, Waker>,
}

impl Inner {
    /// Lets those go on that may.
    fn admit(&mut self, now: u64) {
        while let Some(ticket) = self.fair.admit(now) {
            if let Some(waker) = self.wakers.remove(&ticket) {
                waker.wake();
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
        let now = self.clock.monotonic_nanos();
        let mut inner = self.inner();
        let changed = act(&mut inner.fair);
        self.needed.store(inner.fair.is_needed(), Ordering::Relaxed);
        inner.admit(now);
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

    /// CPU time that tasks have used, and time that they waited for it, in nanoseconds.
    pub(crate) fn nanos(&self) -> (u64, u64) {
        (self.cpu_nanos.load(Ordering::Relaxed), self.waited_nanos.load(Ordering::Relaxed))
    }

    /// Ends a slice, if one `ran`, and asks for another one, if the task `wants` it. Returns the place
    /// where it has to wait.
    fn next(&self, ran: Option<u64>, wants: Option<&Waker>) -> Option<Place> {
        let now = self.processor.clock.monotonic_nanos();
        let mut inner = self.processor.inner();
        if let Some(nanos) = ran {
            inner.fair.end(self.id, nanos);
        }
        let asked = wants.map(|waker| {
            let ticket = inner.fair.ask(self.id, now);
            inner.wakers.insert(ticket, waker.clone());
            ticket
        });
        // Its own waker is woken with those of others: a poll more, where it goes on at once.
        while let Some(admitted) = inner.fair.admit(now) {
            match inner.wakers.remove(&admitted) {
                Some(waker) if Some(admitted) != asked => waker.wake(),
                _ => {}
            }
        }
        let ticket = asked.filter(|ticket| inner.wakers.contains_key(ticket))?;
        let first = inner.fair.is_first(ticket, self.id);
        Some(Place { ticket, began: now, look: self.look(first) })
    }

    fn look(&self, first: bool) -> Look {
        let clock = Arc::clone(&self.processor.clock);
        Box::pin(async move { clock.sleep(if first { LOOK } else { LOOK_OF_OTHERS }).await })
    }

    /// Whether a task that waits may go on.
    fn poll_place(&self, place: &mut Place, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let looks = place.look.as_mut().poll(context).is_ready();
            let now = self.processor.clock.monotonic_nanos();
            let mut inner = self.processor.inner();
            if looks {
                inner.admit(now);
            }
            let Some(waker) = inner.wakers.get_mut(&place.ticket) else {
                self.waited_nanos.fetch_add(now.saturating_sub(place.began), Ordering::Relaxed);
                return Poll::Ready(());
            };
            waker.clone_from(context.waker());
            if !looks {
                return Poll::Pending;
            }
            place.look = self.look(inner.fair.is_first(place.ticket, self.id));
        }
    }

    fn give_up(&self, place: &Place) {
        let waited = {
            let mut inner = self.processor.inner();
            inner.wakers.remove(&place.ticket);
            inner.fair.give_up(place.ticket, self.id)
        };
        if !waited {
            self.next(Some(0), None);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.processor.change(|fair| fair.leave(self.id));
    }
}

type Look = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A place among those that wait.
struct Place {
    ticket: Ticket,
    began: u64,
    look: Look,
}

/// What a task has of the processor between two polls.
enum Has {
    Nothing,
    Waits(Place),
    /// The right to the next poll.
    Turn,
}

/// A task that is polled only while its tenant has the right to: see [`Account::scheduled`](crate::Account::scheduled).
pub struct Scheduled<F> {
    task: Pin<Box<F>>,
    seat: Arc<Seat>,
    has: Has,
    woken: Arc<Woken>,
    waker: Waker,
}

impl<F> std::fmt::Debug for Scheduled<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduled").field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl<F: Future> Scheduled<F> {
    pub(crate) fn new(seat: Arc<Seat>, task: F) -> Self {
        let woken = Arc::new(Woken { state: AtomicU8::new(Woken::RESTS), outer: Mutex::new(Waker::noop().clone()) });
        let waker = Waker::from(Arc::clone(&woken));
        Self { task: Box::pin(task), seat, has: Has::Nothing, woken, waker }
    }
}

impl<F: Future> Future for Scheduled<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let counted = match &mut this.has {
            Has::Turn => true,
            Has::Waits(place) => {
                std::task::ready!(this.seat.poll_place(place, context));
                true
            }
            Has::Nothing if this.seat.processor.needed.load(Ordering::Relaxed) => {
                if !this.take(None, context) {
                    return Poll::Pending;
                }
                true
            }
            Has::Nothing => false,
        };
        this.run(counted, context)
    }
}

impl<F: Future> Scheduled<F> {
    /// Asks for a slice, behind one that `ran`. Returns whether it has it now.
    fn take(&mut self, ran: Option<u64>, context: &mut Context<'_>) -> bool {
        self.has = Has::Turn;
        if let Some(mut place) = self.seat.next(ran, Some(context.waker())) {
            // Its look is heard of only once it was polled.
            if self.seat.poll_place(&mut place, context).is_pending() {
                self.has = Has::Waits(place);
            }
        }
        matches!(self.has, Has::Turn)
    }

    fn run(&mut self, counted: bool, context: &mut Context<'_>) -> Poll<F::Output> {
        self.has = Has::Nothing;
        self.woken.poll_begins(context.waker());
        let mut slice = Slice { seat: &self.seat, counted, began: thread_cpu_nanos() };
        let polled = self.task.as_mut().poll(&mut Context::from_waker(&self.waker));
        let wants_more = self.woken.poll_ends() && polled.is_pending();
        let ran = slice.take();
        drop(slice);
        let goes_on = match (counted, wants_more) {
            (true, true) => self.take(Some(ran), context),
            (true, false) => {
                self.seat.next(Some(ran), None);
                false
            }
            (false, wants_more) => wants_more,
        };
        if goes_on {
            wake_later(context);
        }
        polled
    }
}

impl<F> Drop for Scheduled<F> {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.has, Has::Nothing) {
            Has::Nothing => {}
            Has::Waits(place) => self.seat.give_up(&place),
            Has::Turn => drop(self.seat.next(Some(0), None)),
        }
    }
}

/// Has the task polled again behind others that are ready, and behind what the runtime itself has to do:
/// a task that wakes itself comes before its timers.
fn wake_later(context: &mut Context<'_>) {
    let yields = pin!(tokio::task::yield_now());
    let _pending = yields.poll(context).is_pending();
}

/// A poll. One that panics ends as well.
struct Slice<'a> {
    seat: &'a Seat,
    counted: bool,
    began: u64,
}

impl Slice<'_> {
    /// Its CPU time, which is counted. Who takes it ends it.
    fn take(&mut self) -> u64 {
        let nanos = thread_cpu_nanos().saturating_sub(self.began);
        self.seat.cpu_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.counted = false;
        nanos
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        if self.counted {
            let nanos = self.take();
            self.seat.next(Some(nanos), None);
        }
    }
}

/// The waker of a task: notes what wakes it while it is polled, for it waits for its turn then.
struct Woken {
    state: AtomicU8,
    outer: Mutex<Waker>,
}

impl Woken {
    const RESTS: u8 = 0;
    const POLLED: u8 = 1;
    const WOKEN: u8 = 2;

    fn outer(&self) -> MutexGuard<'_, Waker> {
        self.outer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll_begins(&self, outer: &Waker) {
        self.outer().clone_from(outer);
        self.state.store(Self::POLLED, Ordering::Release);
    }

    fn poll_ends(&self) -> bool {
        self.state.swap(Self::RESTS, Ordering::AcqRel) == Self::WOKEN
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted = self.state.compare_exchange(Self::POLLED, Self::WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if noted == Err(Self::RESTS) {
            let outer = self.outer().clone();
            outer.wake();
        }
    }
}

/// In the middle of long work of a [`Scheduled`] task: others have a turn, if they have a better right to
/// it.
pub async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// CPU time that this thread has used, in nanoseconds.
#[must_use]
pub fn thread_cpu_nanos() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use wasmill_env::SimulatedClock;
    use wasmill_model::Timestamp;

    use super::*;

    const SHARE: Share = Share { weight: 1, ceiling_millicores: None };

    fn two() -> (Arc<Processor>, [Arc<Seat>; 2]) {
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let processor = Processor::new(1, clock as _);
        let seats = [(); 2].map(|()| Arc::new(Seat::new(Arc::clone(&processor), SHARE)));
        (processor, seats)
    }

    fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    async fn work(times: usize) -> usize {
        slices(times, 10_000).await
    }

    /// Uses so much CPU, so many times, with a pause between.
    async fn slices(times: usize, nanos: u64) -> usize {
        for _ in 0..times {
            let began = thread_cpu_nanos();
            while thread_cpu_nanos() < began + nanos {}
            pause().await;
        }
        times
    }

    #[test]
    fn who_used_less_goes_first_and_who_pauses_waits() {
        let (processor, [a, b]) = two();
        // Much more than what an interrupt may add to the other one.
        let mut long = pin!(Scheduled::new(Arc::clone(&a), slices(3, 5_000_000)));
        let mut short = pin!(Scheduled::new(Arc::clone(&b), work(1)));
        // Nobody else is there: it has the next turn.
        assert!(poll(long.as_mut()).is_pending() && matches!(long.has, Has::Turn));
        assert!(poll(short.as_mut()).is_pending() && matches!(short.has, Has::Waits(_)));
        assert_eq!(b.nanos().0, 0);
        // The other one has used nothing: it is next.
        assert!(poll(long.as_mut()).is_pending() && matches!(long.has, Has::Waits(_)));
        assert!(a.nanos().0 >= 10_000_000);
        assert!(poll(long.as_mut()).is_pending(), "not its turn");
        assert!(poll(short.as_mut()).is_pending() && matches!(short.has, Has::Turn));
        assert_eq!(poll(short), Poll::Ready(1));
        assert!(poll(long.as_mut()).is_pending());
        assert_eq!(poll(long), Poll::Ready(3));
        assert!(!processor.inner().fair.somebody_waits() && processor.inner().wakers.is_empty());
    }

    #[test]
    fn a_task_that_is_dropped_or_panics_holds_up_nobody() {
        let (processor, [a, b]) = two();
        {
            let mut has_turn = pin!(Scheduled::new(Arc::clone(&a), work(3)));
            assert!(poll(has_turn.as_mut()).is_pending());
            let mut waits = pin!(Scheduled::new(Arc::clone(&b), work(3)));
            assert!(poll(waits.as_mut()).is_pending() && matches!(waits.has, Has::Waits(_)));
        }
        let mut panics = Box::pin(Scheduled::new(Arc::clone(&a), async { panic!("on purpose") }));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(panics.as_mut())));
        assert!(panicked.is_err());
        drop(panics);
        assert_eq!(poll(pin!(Scheduled::new(Arc::clone(&b), work(0)))), Poll::Ready(0));
        assert!(!processor.inner().fair.somebody_waits() && processor.inner().wakers.is_empty());
    }

    #[tokio::test]
    async fn a_task_that_waits_for_another_is_woken() {
        let (_processor, [a, b]) = two();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let other = tokio::spawn(Scheduled::new(Arc::clone(&b), async move {
            work(20).await;
            sender.send(7)
        }));
        let own = tokio::spawn(Scheduled::new(Arc::clone(&a), async move {
            work(20).await;
            receiver.await
        }));
        assert_eq!(own.await.expect("no panic"), Ok(7));
        assert_eq!(other.await.expect("no panic"), Ok(()));
        assert!(a.nanos().0 >= 200_000 && b.nanos().0 >= 200_000);
    }
}
