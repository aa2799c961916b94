//! A tenant as the data path sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fair::Share;
use crate::processor::{Processor, Scheduled, Seat};
use crate::quota::Quota;
use crate::rate::Rate;

/// Who is held back because something has to be removed first looks again after this long.
const HELD_LOOK_NANOS: u64 = 200_000_000;

/// What a tenant may use while its jobs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// CPU of its tasks, guests included.
    pub cpu: Share,
    /// Linear memory of all its instances, bytes.
    pub memory_bytes: u64,
    /// Entries, open windows and rows in ordering buffers of all its stages, bytes.
    pub state_bytes: u64,
    /// Timers that are set.
    pub timers: u64,
    /// Metrics that its plugins have named.
    pub metric_series: u64,
    /// Rows that sources may read a second.
    pub events_per_second: u32,
    /// Rows that stages may put out a second.
    pub rows_out_per_second: u32,
    /// Lines that plugins may log a second.
    pub log_lines_per_second: u32,
}

impl Allowance {
    /// As much of everything as there is.
    pub const UNLIMITED: Self = Self {
        cpu: Share { weight: 1, ceiling_millicores: None },
        memory_bytes: u64::MAX,
        state_bytes: u64::MAX,
        timers: u64::MAX,
        metric_series: u64::MAX,
        events_per_second: u32::MAX,
        rows_out_per_second: u32::MAX,
        log_lines_per_second: u32::MAX,
    };
}

/// What a tenant has used and has been refused, since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// CPU time of its tasks, guests included, nanoseconds.
    pub cpu_nanos: u64,
    /// Time that tasks waited for a worker because others had the better right to it, nanoseconds.
    pub cpu_waited_nanos: u64,
    /// Linear memory that instances have now, bytes.
    pub memory_bytes: u64,
    /// Entries, open windows and rows in ordering buffers that stages have now, bytes.
    pub state_bytes: u64,
    /// Timers that are set now.
    pub timers: u64,
    /// Metrics that plugins have named.
    pub metric_series: u64,
    /// How often memory, state, a timer or a metric was refused.
    pub refused: u64,
    /// How often a source was held back by a rate, or because something was used up.
    pub throttled: u64,
    /// Log lines dropped.
    pub log_lines_dropped: u64,
}

/// A tenant as the data path sees it. Shared by all of its jobs.
#[derive(Debug)]
pub struct Account {
    seat: Arc<Seat>,
    /// Linear memory of its instances.
    pub memory: Arc<Quota>,
    /// Entries, open windows and rows in ordering buffers of its stages.
    pub state: Arc<Quota>,
    /// Timers that are set.
    pub timers: Arc<Quota>,
    /// Metrics that plugins have named.
    pub metrics: Arc<Quota>,
    rates: Mutex<Rates>,
    throttled: AtomicU64,
    log_dropped: AtomicU64,
    processor: Arc<Processor>,
}

#[derive(Debug)]
struct Rates {
    events: Rate,
    rows_out: Rate,
    log: Rate,
    /// Why its sources read nothing at all.
    held: Option<String>,
}

impl Account {
    /// An account that has used nothing.
    #[must_use]
    pub fn new(processor: &Arc<Processor>, allowance: &Allowance) -> Arc<Self> {
        let now = processor.clock().monotonic_nanos();
        Arc::new(Self {
            seat: Arc::new(Seat::new(Arc::clone(processor), allowance.cpu)),
            memory: Quota::new("bytes of memory", allowance.memory_bytes),
            state: Quota::new("bytes of state", allowance.state_bytes),
            timers: Quota::new("timers", allowance.timers),
            metrics: Quota::new("metrics", allowance.metric_series),
            rates: Mutex::new(Rates::new(allowance, now)),
            throttled: AtomicU64::new(0),
            log_dropped: AtomicU64::new(0),
            processor: Arc::clone(processor),
        })
    }

    /// Another allowance from now on. What is held already stays.
    pub fn allow(&self, allowance: &Allowance) {
        self.seat.set(allowance.cpu);
        self.memory.set_most(allowance.memory_bytes);
        self.state.set_most(allowance.state_bytes);
        self.timers.set_most(allowance.timers);
        self.metrics.set_most(allowance.metric_series);
        let mut rates = self.rates();
        let held = rates.held.take();
        *rates = Rates { held, ..Rates::new(allowance, self.now()) };
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.processor.clock().monotonic_nanos()
    }

    /// A task that runs only while the tenant has the right to: whenever no other one wants the CPU.
    pub fn scheduled<F: Future>(&self, task: F) -> Scheduled<F> {
        Scheduled::new(Arc::clone(&self.seat), task)
    }

    /// Counts rows that a source has read.
    pub fn events(&self, rows: usize) {
        self.rates().events.charge(rows as u64, self.now());
    }

    /// Counts rows that a stage has put out.
    pub fn rows_out(&self, rows: usize) {
        self.rates().rows_out.charge(rows as u64, self.now());
    }

    /// Until when its sources are to read nothing and its timers are to rest, monotonic nanoseconds.
    #[must_use]
    pub fn rests_until(&self) -> Option<u64> {
        let now = self.now();
        let mut rates = self.rates();
        let Rates { events, rows_out, held, .. } = &mut *rates;
        let held = held.as_ref().map(|_| now.saturating_add(HELD_LOOK_NANOS));
        [events.in_debt_until(now), rows_out.in_debt_until(now), held].into_iter().flatten().max()
    }

    /// A source was held back.
    pub fn throttled(&self) {
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }

    /// Has its sources read nothing until something else is said. Returns whether that is news.
    pub fn hold(&self, why: Option<String>) -> bool {
        let mut rates = self.rates();
        let news = rates.held.is_some() != why.is_some();
        rates.held = why;
        news
    }

    /// Which budget its sources wait for, in words.
    #[must_use]
    pub fn over_budget(&self) -> Option<String> {
        let now = self.now();
        let mut rates = self.rates();
        let Rates { events, rows_out, held, .. } = &mut *rates;
        let over = |name: &str| Some(format!("over-budget: {name}: sources and timers are held back to it"));
        match (held, rows_out.in_debt_until(now), events.in_debt_until(now)) {
            (Some(held), ..) => Some(held.clone()),
            (None, Some(_), _) => over("rows_out_per_second"),
            (None, None, Some(_)) => over("events_per_second"),
            (None, None, None) => None,
        }
    }

    /// How many of so many log lines may be said. The others are counted, and dropped.
    #[must_use]
    pub fn log_lines(&self, lines: usize) -> usize {
        let now = self.now();
        let said = self.rates().log.take_some(lines as u64, now) as usize;
        self.log_dropped.fetch_add((lines - said) as u64, Ordering::Relaxed);
        said
    }

    /// What was used and refused so far.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let (cpu_nanos, cpu_waited_nanos) = self.seat.nanos();
        let quotas = [&self.memory, &self.state, &self.timers, &self.metrics];
        Spent {
            cpu_nanos,
            cpu_waited_nanos,
            memory_bytes: self.memory.used(),
            state_bytes: self.state.used(),
            timers: self.timers.used(),
            metric_series: self.metrics.used(),
            refused: quotas.iter().map(|quota| quota.refused()).sum(),
            throttled: self.throttled.load(Ordering::Relaxed),
            log_lines_dropped: self.log_dropped.load(Ordering::Relaxed),
        }
    }
}

impl Rates {
    fn new(allowance: &Allowance, now: u64) -> Self {
        // A tenth of a second at once: more would be a stall of what follows.
        let rate = |each: u32| Rate::new(each, Duration::from_secs(1), each / 10, now);
        Self {
            events: rate(allowance.events_per_second),
            rows_out: rate(allowance.rows_out_per_second),
            log: Rate::per_second(allowance.log_lines_per_second, now),
            held: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmill_env::SimulatedClock;
    use wasmill_model::Timestamp;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rates_hold_sources_back_and_a_new_allowance_lets_them_go() {
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let processor = Processor::new(1, Arc::clone(&clock) as _);
        let mut allowance = Allowance {
            events_per_second: 1_000,
            rows_out_per_second: 1_000,
            log_lines_per_second: 10,
            ..Allowance::UNLIMITED
        };
        let account = Account::new(&processor, &allowance);
        account.events(100);
        assert_eq!(account.rests_until(), None);
        account.rows_out(1_100);
        assert_eq!(account.rests_until(), Some(SECOND), "the later of both");
        let over = account.over_budget();
        assert!(over.as_deref().is_some_and(|why| why.contains("rows_out_per_second")), "{over:?}");
        account.hold(Some("full".into()));
        assert_eq!(account.over_budget().as_deref(), Some("full"));
        clock.advance(Duration::from_secs(2));
        assert_eq!(account.rests_until(), Some(2 * SECOND + HELD_LOOK_NANOS));
        assert!(account.hold(None) && !account.hold(None));
        assert_eq!(account.rests_until(), None);
        assert_eq!((account.log_lines(25), account.log_lines(25)), (10, 0));
        assert_eq!(account.spent().log_lines_dropped, 40);
        account.rows_out(100_000);
        allowance.rows_out_per_second = u32::MAX;
        account.allow(&allowance);
        assert_eq!(account.rests_until(), None);
    }
}
