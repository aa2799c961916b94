use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;
use wasmill_model::Timestamp;

/// Wall time for what people see, monotonic time for what is measured, and waiting.
pub trait Clock: Send + Sync {
    /// The wall clock.
    fn wall(&self) -> Timestamp;
    /// Nanoseconds since the clock was made. Never falls.
    fn monotonic_nanos(&self) -> u64;
    /// Completes once [`Clock::monotonic_nanos`] is at least `deadline_nanos`. Cancel safe.
    fn sleep_until(&self, deadline_nanos: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Completes after `duration`. Cancel safe.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sleep_until(self.monotonic_nanos().saturating_add(nanos))
    }
}

/// The clock of the machine.
#[derive(Debug)]
pub struct RealClock {
    start: Instant,
}

impl Default for RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn wall(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Timestamp(micros)
    }

    fn monotonic_nanos(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that sleeps on the machine's clock")]
    fn sleep_until(&self, deadline_nanos: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let wait = Duration::from_nanos(deadline_nanos.saturating_sub(self.monotonic_nanos()));
        Box::pin(tokio::time::sleep(wait))
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct SimulatedClock {
    inner: Mutex<Simulated>,
}

#[derive(Debug)]
struct Simulated {
    wall_start: Timestamp,
    nanos: u64,
    sleepers: BTreeMap<(u64, u64), oneshot::Sender<()>>,
    sleepers_made: u64,
}

impl SimulatedClock {
    /// A clock that starts at `wall`.
    #[must_use]
    pub fn new(wall: Timestamp) -> Self {
        let inner = Simulated { wall_start: wall, nanos: 0, sleepers: BTreeMap::new(), sleepers_made: 0 };
        Self { inner: Mutex::new(inner) }
    }

    fn with<R>(&self, read: impl FnOnce(&mut Simulated) -> R) -> R {
        read(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Moves the clock and wakes whoever waited for a time up to the new one, earliest first.
    pub fn advance(&self, by: Duration) {
        let due = self.with(|clock| {
            clock.nanos = clock.nanos.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX));
            let later = clock.sleepers.split_off(&(clock.nanos + 1, 0));
            std::mem::replace(&mut clock.sleepers, later)
        });
        for (_, sleeper) in due {
            // A sleeper that was cancelled has nobody to wake.
            let _cancelled = sleeper.send(());
        }
    }

    /// How many wait for a time that has not come. Cancelled sleepers count until their time.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.with(|clock| clock.sleepers.len())
    }
}

impl Clock for SimulatedClock {
    fn wall(&self) -> Timestamp {
        self.with(|clock| clock.wall_start.saturating_add((clock.nanos / 1_000).cast_signed()))
    }

    fn monotonic_nanos(&self) -> u64 {
        self.with(|clock| clock.nanos)
    }

    fn sleep_until(&self, deadline_nanos: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let woken = self.with(|clock| {
            (deadline_nanos > clock.nanos).then(|| {
                let (sender, receiver) = oneshot::channel();
                clock.sleepers_made += 1;
                clock.sleepers.insert((deadline_nanos, clock.sleepers_made), sender);
                receiver
            })
        });
        Box::pin(async move {
            if let Some(woken) = woken {
                // The sender is dropped only with the clock itself.
                let _gone = woken.await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn simulated_sleepers_wake_when_the_clock_passes_them() {
        let clock = SimulatedClock::new(Timestamp(0));
        let sleep = clock.sleep(Duration::from_millis(5));
        assert_eq!(clock.sleepers(), 1);
        clock.advance(Duration::from_millis(4));
        assert_eq!(clock.sleepers(), 1);
        clock.advance(Duration::from_millis(1));
        sleep.await;
        assert_eq!((clock.wall(), clock.sleepers()), (Timestamp(5_000), 0));
    }
}
