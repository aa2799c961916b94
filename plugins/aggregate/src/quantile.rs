//! Quantiles: all values as long as they are few, a DDSketch from then on (Masson and others,
//! 2019): counts of values in buckets that grow by 2 %, so that a bucket's middle is within 1 %.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values that are kept one by one.
const EXACT_MAX: usize = 256;
/// Buckets of either sign; above that the smallest are merged.
const BUCKETS_MAX: usize = 4096;
const ERROR: f64 = 0.01;
const GROWTH: f64 = (1.0 + ERROR) / (1.0 - ERROR);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Quantiles {
    Exact(Vec<f64>),
    Sketch(Sketch),
}

/// Counts of values by bucket: of negative ones by their size, of zeros, of positive ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sketch {
    below: BTreeMap<i32, u64>,
    zero: u64,
    above: BTreeMap<i32, u64>,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Sketch {
    fn add(&mut self, value: f64) {
        let bucket = || (value.abs().ln() / GROWTH.ln()).ceil() as i32;
        if value == 0.0 {
            self.zero += 1;
        } else {
            let buckets = if value < 0.0 { &mut self.below } else { &mut self.above };
            *buckets.entry(bucket()).or_default() += 1;
            bound(buckets);
        }
    }

    fn merge(&mut self, other: Self) {
        self.zero += other.zero;
        for (into, from) in [(&mut self.below, other.below), (&mut self.above, other.above)] {
            from.into_iter().for_each(|(bucket, count)| *into.entry(bucket).or_default() += count);
            bound(into);
        }
    }

    fn at(&self, share: f64) -> Option<f64> {
        let middle = |bucket: i32| 2.0 * GROWTH.powi(bucket) / (GROWTH + 1.0);
        let below = self.below.iter().rev().map(|(bucket, count)| (-middle(*bucket), *count));
        let above = self.above.iter().map(|(bucket, count)| (middle(*bucket), *count));
        let all: Vec<(f64, u64)> = below.chain([(0.0, self.zero)]).chain(above).collect();
        let count: u64 = all.iter().map(|(_, count)| count).sum();
        let rank = rank(share, count)?;
        let mut seen = 0;
        all.into_iter()
            .find(|(_, count)| {
                seen += count;
                seen > rank
            })
            .map(|(value, _)| value)
    }
}

fn bound(buckets: &mut BTreeMap<i32, u64>) {
    while buckets.len() > BUCKETS_MAX {
        if let Some((_, count)) = buckets.pop_first() {
            if let Some(mut next) = buckets.first_entry() {
                *next.get_mut() += count;
            }
        }
    }
}

/// The place, from 0, of the value below which a share of `count` values lies.
fn rank(share: f64, count: u64) -> Option<u64> {
    let last = count.checked_sub(1)?;
    Some(((share * count as f64).ceil() as u64).saturating_sub(1).min(last))
}

impl Quantiles {
    pub(crate) fn add(&mut self, value: f64) {
        match self {
            Self::Exact(values) => {
                values.push(value);
                if values.len() > EXACT_MAX {
                    self.sketch();
                }
            }
            Self::Sketch(sketch) => sketch.add(value),
        }
    }

    fn sketch(&mut self) -> &mut Sketch {
        if let Self::Exact(values) = self {
            let mut sketch = Sketch::default();
            values.iter().for_each(|value| sketch.add(*value));
            *self = Self::Sketch(sketch);
        }
        match self {
            Self::Sketch(sketch) => sketch,
            Self::Exact(_) => unreachable!("turned into a sketch above"),
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        match other {
            Self::Exact(values) => values.into_iter().for_each(|value| self.add(value)),
            Self::Sketch(other) => self.sketch().merge(other),
        }
    }

    /// The values below which these shares of all lie.
    pub(crate) fn at(self, shares: &[f64]) -> Vec<Option<f64>> {
        match self {
            Self::Exact(mut values) => {
                values.sort_by(f64::total_cmp);
                let at = |share: &f64| values.get(rank(*share, values.len() as u64)? as usize).copied();
                shares.iter().map(at).collect()
            }
            Self::Sketch(sketch) => shares.iter().map(|share| sketch.at(*share)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_exact_and_many_within_one_percent() {
        for count in [1u32, 2, 256, 257, 10_000] {
            let mut quantiles = Quantiles::default();
            // In no order, of both signs.
            (0..count).for_each(|i| quantiles.add(f64::from(i * 7919 % count) - f64::from(count / 4)));
            let shares = [0.0, 0.1, 0.25, 0.5, 0.9, 0.99, 1.0];
            for (share, found) in shares.iter().zip(quantiles.at(&shares)) {
                let place = (share * f64::from(count)).ceil().max(1.0) - 1.0;
                let expected = place - f64::from(count / 4);
                let found = found.expect("there are values");
                let error = if count <= 256 { 0.0 } else { expected.abs() * 0.0101 };
                assert!((found - expected).abs() <= error, "{count} {share}: {found}, expected {expected}");
            }
        }
        assert_eq!(Quantiles::default().at(&[0.5]), [None]);
    }

    #[test]
    fn merging_is_the_same_as_adding_all() {
        let (mut all, mut left, mut right) = (Quantiles::default(), Quantiles::default(), Quantiles::default());
        for i in 0..1000 {
            let value = f64::from(i).sqrt();
            all.add(value);
            if i % 3 == 0 { left.add(value) } else { right.add(value) }
        }
        left.merge(right);
        assert_eq!(left, all);
    }
}
