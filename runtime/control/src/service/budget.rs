//! What a tenant may use. Reserving is one step with the change that needs it, under the lock of the
//! tenant's record; rates are counted here.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a tenant may have at a time, and how often it may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Jobs, whether they run or not.
    pub jobs: u32,
    /// Tasks of all its jobs together: the parallelism of every source, stage and sink.
    pub tasks: u32,
    /// Memory that plugins of all its jobs may take together, in bytes: for each task of a stage the
    /// limit of its instance.
    pub memory_bytes: u64,
    /// Bytes of state, dead letters and savepoints of all its jobs together.
    pub state_bytes: u64,
    /// Plugins.
    pub plugins: u32,
    /// Bytes of one plugin.
    pub plugin_bytes: u64,
    /// Topics.
    pub topics: u32,
    /// Bytes of all its topics together.
    pub topic_bytes: u64,
    /// Tokens.
    pub tokens: u32,
    /// Requests a second; for a moment three times as many.
    pub requests_per_second: u32,
    /// Deploys, swaps, savepoints and uploads a minute.
    pub changes_per_minute: u32,
    /// Taps at a time.
    pub taps: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            jobs: 16,
            tasks: 128,
            memory_bytes: 8 << 30,
            state_bytes: 10 << 30,
            plugins: 100,
            plugin_bytes: 10 << 20,
            topics: 100,
            topic_bytes: 10 << 30,
            tokens: 100,
            requests_per_second: 100,
            changes_per_minute: 120,
            taps: 8,
        }
    }
}

/// A token bucket: so many a period, and a burst of so many at once.
#[derive(Debug)]
pub struct Rate {
    /// Nanoseconds that one costs.
    cost: u64,
    /// Nanoseconds of credit at most.
    burst: u64,
    credit: u64,
    at_nanos: u64,
}

impl Rate {
    /// `each` a `period`, and `burst` at once. A rate of nothing lets nothing through.
    #[must_use]
    pub fn new(each: u32, period: Duration, burst: u32, now_nanos: u64) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let cost = period.checked_div(u64::from(each)).unwrap_or(u64::MAX).max(1);
        let burst = cost.saturating_mul(u64::from(burst.max(1)));
        let credit = if each == 0 { 0 } else { burst };
        Self { cost, burst, credit, at_nanos: now_nanos }
    }

    /// Takes one, or says for how long there is none.
    ///
    /// # Errors
    /// How long to wait.
    pub fn decide(&mut self, now_nanos: u64) -> Result<(), Duration> {
        let passed = now_nanos.saturating_sub(self.at_nanos);
        self.at_nanos = self.at_nanos.max(now_nanos);
        if self.cost < u64::MAX {
            self.credit = self.credit.saturating_add(passed).min(self.burst);
        }
        match self.credit.checked_sub(self.cost) {
            Some(left) => {
                self.credit = left;
                Ok(())
            }
            None => Err(Duration::from_nanos(self.cost - self.credit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let second = 1_000_000_000;
        let mut rate = Rate::new(10, Duration::from_secs(1), 30, 0);
        assert_eq!((0..100).filter(|_| rate.decide(0).is_ok()).count(), 30);
        assert_eq!(rate.decide(0), Err(Duration::from_millis(100)));
        // Over ten seconds, asked every millisecond, ten a second pass.
        let passed = (0..10_000).filter(|tick| rate.decide(tick * second / 1_000).is_ok()).count();
        assert!((98..=100).contains(&passed), "{passed}");
        // However long it was quiet, the burst is the most at once.
        assert_eq!((0..100).filter(|_| rate.decide(1_000 * second).is_ok()).count(), 30);
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_through() {
        let mut rate = Rate::new(0, Duration::from_secs(1), 3, 0);
        assert!(rate.decide(u64::MAX / 2).is_err());
    }
}
