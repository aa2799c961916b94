use std::time::Duration;

/// A token bucket: so many a period, and a burst of so many at once. It may be in debt, for what is
/// counted only once it was done.
#[derive(Debug, Clone)]
pub struct Rate {
    /// Nanoseconds that one costs.
    cost: i64,
    /// Nanoseconds of credit at most.
    burst: i64,
    credit: i64,
    at_nanos: u64,
}

/// The longest that a debt is waited for, in nanoseconds.
const DEBT_MAX: i64 = 60_000_000_000;

fn nanos(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Rate {
    /// `each` a `period`, and `burst` at once. A rate of nothing lets nothing through.
    #[must_use]
    pub fn new(each: u32, period: Duration, burst: u32, now_nanos: u64) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let cost = nanos(period.checked_div(u64::from(each)).unwrap_or(u64::MAX).max(1));
        let burst = cost.saturating_mul(i64::from(burst.max(1)));
        let credit = if each == 0 { 0 } else { burst };
        Self { cost, burst, credit, at_nanos: now_nanos }
    }

    /// `each` a second, and what comes in one second at once.
    #[must_use]
    pub fn per_second(each: u32, now_nanos: u64) -> Self {
        Self::new(each, Duration::from_secs(1), each, now_nanos)
    }

    fn refill(&mut self, now_nanos: u64) {
        let passed = nanos(now_nanos.saturating_sub(self.at_nanos));
        self.at_nanos = self.at_nanos.max(now_nanos);
        if self.cost < i64::MAX {
            self.credit = self.credit.saturating_add(passed).min(self.burst);
        }
    }

    /// Takes one, or says for how long there is none.
    ///
    /// # Errors
    /// How long to wait.
    pub fn decide(&mut self, now_nanos: u64) -> Result<(), Duration> {
        self.refill(now_nanos);
        match self.credit - self.cost {
            left @ 0.. => {
                self.credit = left;
                Ok(())
            }
            short => Err(Duration::from_nanos(short.unsigned_abs())),
        }
    }

    /// Takes as many of `wanted` as there are, and says how many those were.
    pub fn take_some(&mut self, wanted: u64, now_nanos: u64) -> u64 {
        self.refill(now_nanos);
        let there = (self.credit / self.cost).max(0).unsigned_abs().min(wanted);
        self.credit -= nanos(there).saturating_mul(self.cost);
        there
    }

    /// Counts what was done, whether there was room for it or not. A debt of more than a minute is
    /// forgotten.
    pub fn charge(&mut self, done: u64, now_nanos: u64) {
        self.refill(now_nanos);
        let debt = self.credit.saturating_sub(nanos(done).saturating_mul(self.cost));
        self.credit = debt.max(-DEBT_MAX);
    }

    /// Until when nothing more may be done, in monotonic nanoseconds; `None` where something may.
    pub fn in_debt_until(&mut self, now_nanos: u64) -> Option<u64> {
        self.refill(now_nanos);
        (self.credit < 0).then(|| now_nanos.saturating_add(self.credit.unsigned_abs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut rate = Rate::new(10, Duration::from_secs(1), 30, 0);
        assert_eq!((0..100).filter(|_| rate.decide(0).is_ok()).count(), 30);
        assert_eq!(rate.decide(0), Err(Duration::from_millis(100)));
        // Over ten seconds, asked every millisecond, ten a second pass.
        let passed = (0..10_000).filter(|tick| rate.decide(tick * SECOND / 1_000).is_ok()).count();
        assert!((98..=100).contains(&passed), "{passed}");
        // However long it was quiet, the burst is the most at once.
        assert_eq!((0..100).filter(|_| rate.decide(1_000 * SECOND).is_ok()).count(), 30);
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_through() {
        let mut rate = Rate::new(0, Duration::from_secs(1), 3, 0);
        assert!(rate.decide(u64::MAX / 2).is_err());
        assert_eq!(rate.take_some(5, u64::MAX / 2), 0);
    }

    #[test]
    fn what_was_done_is_waited_for_behind_it() {
        let mut rate = Rate::per_second(100, 0);
        rate.charge(100, 0);
        assert_eq!(rate.in_debt_until(0), None, "the burst is used up, and no more than that");
        rate.charge(50, 0);
        assert_eq!(rate.in_debt_until(0), Some(SECOND / 2));
        assert_eq!(rate.in_debt_until(SECOND / 2), None);
        rate.charge(u64::MAX, SECOND);
        assert_eq!(rate.in_debt_until(SECOND), Some(61 * SECOND), "a debt has a bound");
    }

    #[test]
    fn some_of_many_pass() {
        let mut rate = Rate::per_second(100, 0);
        assert_eq!(rate.take_some(250, 0), 100);
        assert_eq!(rate.take_some(250, 0), 0);
        assert_eq!(rate.take_some(250, SECOND / 10), 10);
    }
}
