use wasmill_model::Timestamp;

use crate::Standing;

/// Watermark alignment: readers whose watermarks stay together, so that what is read of a fast one and
/// waits for a slow one is bounded.
///
/// A reader that is more than its bound ahead of the slowest is not read. Those that are idle or have
/// ended are not waited for.
///
/// # Invariants
/// The slowest that is live is never held: as long as something is left to read somebody may read.
#[derive(Debug)]
pub struct Pace {
    readers: Vec<(Timestamp, Standing)>,
}

impl Pace {
    /// Readers that have read nothing.
    #[must_use]
    pub fn new(readers: usize) -> Self {
        Self { readers: vec![(Timestamp::MIN, Standing::Live); readers] }
    }

    /// A reader is so far. `true` where others may be held by that, or free, that were not before.
    ///
    /// # Panics
    /// Where there is no such reader: a bug of ours.
    pub fn update(&mut self, reader: usize, watermark: Timestamp, standing: Standing) -> bool {
        let before = self.slowest();
        self.readers[reader] = (watermark, standing);
        self.slowest() != before
    }

    /// How far the slowest is that is live; `None` where none is.
    #[must_use]
    pub fn slowest(&self) -> Option<Timestamp> {
        let live = self.readers.iter().filter(|(_, standing)| *standing == Standing::Live);
        live.map(|(watermark, _)| *watermark).min()
    }

    /// Whether a reader has to wait: for the slowest, which is so far. `bound` is in microseconds.
    ///
    /// # Panics
    /// As [`Self::update`].
    #[must_use]
    pub fn holds(&self, reader: usize, bound: u64) -> Option<Timestamp> {
        let (watermark, _) = self.readers[reader];
        self.slowest().filter(|slowest| watermark > *slowest && watermark.0.abs_diff(slowest.0) > bound)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fast_reader_waits_for_a_slow_one_unless_that_is_idle_or_has_ended() {
        let mut pace = Pace::new(2);
        assert!(!pace.update(0, Timestamp(100), Standing::Live));
        assert_eq!(pace.holds(0, 1_000), Some(Timestamp::MIN), "the other has read nothing yet");
        assert!(pace.update(1, Timestamp(50), Standing::Live));
        assert_eq!((pace.holds(0, 49), pace.holds(0, 50), pace.holds(1, 0)), (Some(Timestamp(50)), None, None));
        for standing in [Standing::Idle, Standing::Ended] {
            pace.update(1, Timestamp(50), standing);
            assert_eq!(pace.holds(0, 0), None);
        }
        pace.update(1, Timestamp(50), Standing::Live);
        pace.update(0, Timestamp(100), Standing::Idle);
        assert_eq!(pace.holds(0, 49), Some(Timestamp(50)), "what it has to say would only wait");
        pace.update(1, Timestamp(50), Standing::Ended);
        assert_eq!((pace.slowest(), pace.holds(0, 0)), (None, None));
    }

    #[test]
    fn the_edges_of_the_range_hold() {
        let mut pace = Pace::new(2);
        pace.update(0, Timestamp::MAX, Standing::Live);
        assert_eq!((pace.holds(0, u64::MAX), pace.holds(0, u64::MAX - 1)), (None, Some(Timestamp::MIN)));
    }

    proptest! {
        /// Readers of any steps, read in any order: none gets further ahead than its bound and one step,
        /// and everything is read in the end.
        #[test]
        fn nobody_gets_far_ahead_and_nobody_waits_for_ever(
            steps in prop::collection::vec(prop::collection::vec(0..50_i64, 0..60), 1..5), bound in 0..100_u64,
            picks in prop::collection::vec(any::<prop::sample::Index>(), 400),
        ) {
            let mut pace = Pace::new(steps.len());
            let (mut read, mut at) = (vec![0; steps.len()], vec![0_i64; steps.len()]);
            for (reader, steps) in steps.iter().enumerate() {
                let standing = if steps.is_empty() { Standing::Ended } else { Standing::Live };
                pace.update(reader, Timestamp(0), standing);
            }
            let mut picks = picks.into_iter().cycle();
            loop {
                let live: Vec<usize> = (0..steps.len()).filter(|&reader| read[reader] < steps[reader].len()).collect();
                if live.is_empty() {
                    break;
                }
                let free: Vec<usize> =
                    live.iter().copied().filter(|&reader| pace.holds(reader, bound).is_none()).collect();
                prop_assert!(!free.is_empty(), "somebody may read");
                let reader = free[picks.next().expect("a cycle").index(free.len())];
                let slowest = live.iter().map(|&reader| at[reader]).min().unwrap_or(0);
                prop_assert!(at[reader] - slowest <= bound as i64);
                at[reader] += steps[reader][read[reader]];
                read[reader] += 1;
                let ended = read[reader] == steps[reader].len();
                pace.update(reader, Timestamp(at[reader]), if ended { Standing::Ended } else { Standing::Live });
            }
        }
    }
}
