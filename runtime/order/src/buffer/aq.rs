//! AQ-K-slack: Ji, Zhou, Jerzak, Nica, Hackenbroich and Fetzer, "Quality-Driven Processing of Sliding
//! Window Aggregates over Out-of-Order Data Streams", DEBS 2015.
//!
//! From the paper: the buffer is sized for a wanted quality of windowed results rather than for no
//! disorder at all; the quality is the coverage of windows; a model of the delays predicts the
//! coverage that a `K` gives; and a feedback loop corrects the model by what is measured. Decided
//! here: the model is a decaying histogram of delays, and the loop pays back what coverage is owed.

/// What results are worth: the share of rows that are in time, on the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// From 0 to 1.
    pub target: f64,
    /// The length of the windows that the rows go into, microseconds: a row that comes behind is
    /// missing only in those that have fired. 0: a row that comes behind is missing.
    pub window: u64,
}

/// Buckets of delays: eight for every doubling.
const BUCKETS: usize = 61 * STEPS;
const STEPS: usize = 8;
/// Rows from one decision to the next.
const INTERVAL: u32 = 256;
/// What a row in the histogram still counts at the next decision: it remembers about 4,000 rows.
const KEPT: f64 = 0.94;
/// Rows over which what is owed is paid back.
const PAYBACK_ROWS: f64 = 4_096.0;
/// Rows for which the target may be saved up.
const SAVINGS_ROWS: f64 = 1_024.0;

/// Steers `K` by a wanted [`Quality`].
#[derive(Debug, Clone, PartialEq)]
pub struct AqKSlack {
    quality: Quality,
    most: u64,
    k: u64,
    /// How many rows had a delay of this bucket, older ones counting less.
    buckets: Vec<f64>,
    /// Rows until the next decision.
    left: u32,
    /// What was lost of rows since the last decision.
    lost: f64,
    /// What may still be lost if the target is to hold on the mean; negative where it does not.
    account: f64,
}

impl AqKSlack {
    /// One that has seen nothing. `K` never passes `most`.
    #[must_use]
    pub fn new(quality: Quality, most: u64) -> Self {
        Self { quality, most, k: 0, buckets: vec![0.0; BUCKETS], left: INTERVAL, lost: 0.0, account: 0.0 }
    }

    pub(crate) fn k(&self) -> u64 {
        self.k
    }

    #[inline]
    pub(crate) fn observe(&mut self, delay: u64, behind: u64) {
        self.buckets[bucket(delay)] += 1.0;
        if behind > 0 {
            self.lost += self.loss(behind as f64);
        }
        self.left -= 1;
        if self.left == 0 {
            self.decide();
        }
    }

    /// The share of its windows that miss a row which lies `behind` what has gone on: those that
    /// ended in between, where ends lie anywhere.
    fn loss(&self, behind: f64) -> f64 {
        if behind <= 0.0 {
            0.0
        } else if self.quality.window == 0 {
            1.0
        } else {
            (behind / self.quality.window as f64).min(1.0)
        }
    }

    fn decide(&mut self) {
        let allowed = 1.0 - self.quality.target;
        let rows = f64::from(INTERVAL);
        self.account = (self.account + allowed * rows - self.lost).min(allowed * SAVINGS_ROWS);
        let aim = (allowed + self.account.min(0.0) / PAYBACK_ROWS).max(0.0);
        self.k = self.smallest(aim).min(self.most);
        self.buckets.iter_mut().for_each(|count| *count *= KEPT);
        (self.left, self.lost) = (INTERVAL, 0.0);
    }

    /// The smallest `K` of which the histogram expects that at most `aim` of a row is lost.
    fn smallest(&self, aim: f64) -> u64 {
        let total: f64 = self.buckets.iter().sum();
        let expected = |k: u64| {
            let lost = |(place, count): (usize, &f64)| count * self.loss(upper(place) as f64 - k as f64);
            self.buckets.iter().enumerate().skip(bucket(k)).map(lost).sum::<f64>() / total
        };
        let places: Vec<usize> = (0..BUCKETS).collect();
        let place = places.partition_point(|&place| expected(upper(place)) > aim);
        if expected(0) <= aim { 0 } else { upper(place.min(BUCKETS - 1)) }
    }

    pub(crate) fn save(&self) -> Vec<u8> {
        let mut saved = Vec::new();
        saved.extend(self.k.to_le_bytes());
        saved.extend(self.left.to_le_bytes());
        saved.extend(self.lost.to_le_bytes());
        saved.extend(self.account.to_le_bytes());
        for (place, count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0.0) {
            saved.extend((place as u16).to_le_bytes());
            saved.extend(count.to_le_bytes());
        }
        saved
    }

    pub(crate) fn restore(&mut self, saved: &[u8]) -> bool {
        let Some((head, counts)) = saved.split_at_checked(28) else { return false };
        if counts.len() % 10 != 0 {
            return false;
        }
        let eight = |at: usize| head[at..at + 8].try_into().unwrap_or_default();
        let left = u32::from_le_bytes(head[8..12].try_into().unwrap_or_default());
        let mut buckets = vec![0.0; BUCKETS];
        for entry in counts.chunks_exact(10) {
            let place = usize::from(u16::from_le_bytes([entry[0], entry[1]]));
            let Some(bucket) = buckets.get_mut(place) else { return false };
            *bucket = f64::from_le_bytes(entry[2..].try_into().unwrap_or_default());
        }
        self.k = u64::from_le_bytes(eight(0)).min(self.most);
        self.left = left.clamp(1, INTERVAL);
        (self.lost, self.account) = (f64::from_le_bytes(eight(12)), f64::from_le_bytes(eight(20)));
        self.buckets = buckets;
        true
    }
}

/// The bucket of a delay.
#[inline]
fn bucket(delay: u64) -> usize {
    if delay < STEPS as u64 {
        return delay as usize;
    }
    let octave = 63 - delay.leading_zeros() as usize;
    let step = (delay >> (octave - 3)) as usize & (STEPS - 1);
    ((octave - 2) * STEPS + step).min(BUCKETS - 1)
}

/// The largest delay of a bucket.
fn upper(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (octave, step) = (bucket / STEPS + 2, (bucket % STEPS) as u64);
    let next = (STEPS as u64 + step + 1).checked_shl(octave as u32 - 3).unwrap_or(u64::MAX);
    if octave >= 63 && step == STEPS as u64 - 1 { u64::MAX } else { next - 1 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_is_in_the_first_bucket_that_reaches_it(delay in prop_oneof![any::<u64>(), 0..5_000_u64]) {
            let place = bucket(delay);
            prop_assert!(delay <= upper(place) || place == BUCKETS - 1);
            prop_assert!(place == 0 || upper(place - 1) < delay);
        }

        #[test]
        fn what_is_saved_is_restored(delays in prop::collection::vec((0..1_000_000_u64, 0..1_000_u64), 0..2_000)) {
            let quality = Quality { target: 0.9, window: 5_000 };
            let (mut one, mut other) = (AqKSlack::new(quality, u64::MAX), AqKSlack::new(quality, u64::MAX));
            for (delay, behind) in delays {
                one.observe(delay, behind);
            }
            prop_assert!(other.restore(&one.save()));
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn damage_is_not_taken_in() {
        let quality = Quality { target: 0.9, window: 0 };
        let mut slack = AqKSlack::new(quality, 10);
        assert!(!slack.restore(b"short"));
        assert!(!slack.restore(&[0xff; 38]));
        assert_eq!(slack, AqKSlack::new(quality, 10));
    }

    #[test]
    fn rows_in_order_need_no_slack_and_rows_behind_need_what_covers_them() {
        let mut slack = AqKSlack::new(Quality { target: 0.9, window: 0 }, u64::MAX);
        (0..INTERVAL).for_each(|_| slack.observe(0, 0));
        assert_eq!(slack.k(), 0);
        // One row in two is 1,000 behind: nine in ten are covered by that delay only.
        (0..20 * INTERVAL).for_each(|row| slack.observe(u64::from(row % 2) * 1_000, 0));
        assert!((1_000..1_200).contains(&slack.k()), "{}", slack.k());
    }
}
