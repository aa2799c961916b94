//! How values are spread, in a few counters: what Prometheus calls a histogram. It takes a hundred bytes,
//! so that every node of very many jobs has its own.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds of a distribution: each is four times the one before.
pub(crate) const BOUNDS: usize = 11;

/// Counts values by size.
#[derive(Debug)]
pub(crate) struct Distribution {
    first: u64,
    /// By bound, and those that are larger than all.
    counts: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

/// A distribution at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// The smallest bound.
    pub first: u64,
    /// How many values are at most as large as a bound, and larger than the one before; and those that are
    /// larger than all bounds.
    pub counts: [u64; BOUNDS + 1],
    /// All values together.
    pub sum: u64,
}

impl Distribution {
    pub(crate) fn new(first: u64) -> Self {
        Self { first, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    pub(crate) fn record(&self, value: u64) {
        let mut place = 0;
        let mut bound = self.first;
        while place < BOUNDS && value > bound {
            place += 1;
            bound = bound.saturating_mul(4);
        }
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Spread {
        let counts = std::array::from_fn(|place| self.counts[place].load(Ordering::Relaxed));
        Spread { first: self.first, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

impl Spread {
    /// The bounds, in order.
    pub fn bounds(&self) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(self.first), |bound| Some(bound.saturating_mul(4))).take(BOUNDS)
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A bound that so large a share of the values does not pass: up to four times too much. 0 where there
    /// are none, the largest bound where they are larger.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        if wanted == 0 {
            return 0;
        }
        let mut seen = 0;
        let mut last = self.first;
        for (count, bound) in self.counts.iter().zip(self.bounds()) {
            seen += count;
            last = bound;
            if seen >= wanted {
                break;
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn quantiles_are_bounds_of_what_was_recorded(
            mut values in prop::collection::vec(0_u64..100_000_000, 1..100),
            share in 0.01_f64..1.0,
        ) {
            let distribution = Distribution::new(100);
            values.iter().for_each(|value| distribution.record(*value));
            let spread = distribution.snapshot();
            values.sort_unstable();
            let place = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len()) - 1;
            let (exact, told) = (values[place], spread.quantile(share));
            prop_assert!(told >= exact && (told <= exact * 4 || told == 100), "{} is told as {}", exact, told);
            prop_assert_eq!((spread.count(), spread.sum), (values.len() as u64, values.iter().sum()));
        }
    }

    #[test]
    fn nothing_and_what_is_too_large_have_a_place() {
        let distribution = Distribution::new(1);
        assert_eq!(distribution.snapshot().quantile(0.99), 0);
        distribution.record(u64::MAX);
        assert_eq!(distribution.snapshot().quantile(0.5), 4_u64.pow(10));
    }
}
