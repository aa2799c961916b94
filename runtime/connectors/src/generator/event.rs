use std::sync::Arc;

use wasmill_model::{Batch, ColumnBuilder, Lineage, PartitionId};

use super::config::Distribution;

/// What makes events, apart from when they are due.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) keys: u64,
    pub(super) distribution: Distribution,
    pub(super) disorder_micros: u64,
    pub(super) seed: u64,
    pub(super) value_bytes: usize,
    /// Events in a second of event time.
    pub(super) rate: u64,
}

/// A well-mixed number for each (seed, event, use).
///
/// Source: Sebastiano Vigna, `splitmix64.c`.
fn mixed(seed: u64, event: u64, stream: u64) -> u64 {
    let mut z = seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93);
    z = z.wrapping_add(event.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `number`, evenly spread over all of 64 bits, on `0..below`.
fn scaled(number: u64, below: u64) -> u64 {
    ((u128::from(number) * u128::from(below)) >> 64) as u64
}

impl Recipe {
    fn key(&self, event: u64) -> u64 {
        let number = mixed(self.seed, event, 0);
        match self.distribution {
            Distribution::Uniform => scaled(number, self.keys),
            Distribution::Zipf => {
                // The logarithm of the rank is even: rank n comes in proportion to ln((n+1)/n).
                let even = (number >> 11) as f64 / (1_u64 << 53) as f64;
                let rank = (even * (self.keys as f64 + 1.0).ln()).exp() as u64;
                rank.clamp(1, self.keys) - 1
            }
        }
    }

    /// Microseconds of event time from the first event to `event`, disorder taken off.
    fn at(&self, event: u64) -> i64 {
        let place = u128::from(event) * 1_000_000 / u128::from(self.rate);
        let back = scaled(mixed(self.seed, event, 1), self.disorder_micros + 1);
        i64::try_from(place).unwrap_or(i64::MAX / 2) - back.cast_signed()
    }

    /// Events from `first` on, as many as the limits allow, at least one.
    pub(super) fn batch(&self, first: u64, rows: u64, bytes: usize, start_micros: i64, arrived_nanos: u64) -> Batch {
        let rows_hint = usize::try_from(rows).unwrap_or(usize::MAX).min(1 << 16);
        let mut times = Vec::with_capacity(rows_hint);
        let mut offsets = Vec::with_capacity(rows_hint);
        let mut keys = ColumnBuilder::with_capacity(rows_hint, 8 * rows_hint);
        let mut values = ColumnBuilder::with_capacity(rows_hint, 0);
        let mut numbers = itoa::Buffer::new();
        let mut written = 0;
        for event in first..first.saturating_add(rows) {
            let at = start_micros.saturating_add(self.at(event));
            times.push(at);
            offsets.push(event);
            let key = self.key(event);
            keys.open_row().push(b'k');
            keys.open_row().extend_from_slice(numbers.format(key).as_bytes());
            keys.end_row();
            let value = values.open_row();
            let begin = value.len();
            value.extend_from_slice(b"{\"seq\":");
            value.extend_from_slice(numbers.format(event).as_bytes());
            value.extend_from_slice(b",\"key\":\"k");
            value.extend_from_slice(numbers.format(key).as_bytes());
            value.extend_from_slice(b"\",\"at\":");
            value.extend_from_slice(numbers.format(at).as_bytes());
            let short = self.value_bytes.saturating_sub(value.len() - begin + 1);
            if short > 0 {
                value.extend_from_slice(b",\"fill\":\"");
                let fill = short.saturating_sub(b",\"fill\":\"\"".len());
                value.resize(value.len() + fill, b'x');
                value.push(b'"');
            }
            value.push(b'}');
            written += value.len() - begin;
            values.end_row();
            if written >= bytes {
                break;
            }
        }
        let lineage = Lineage { partition: PartitionId(0), offsets: Arc::new(offsets) };
        Batch::new(Arc::new(times), Arc::new(keys.finish()), Arc::new(values.finish()), arrived_nanos)
            .with_lineage(Some(lineage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(distribution: Distribution) -> Recipe {
        Recipe { keys: 1_000, distribution, disorder_micros: 5_000, seed: 7, value_bytes: 100, rate: 1_000 }
    }

    #[test]
    fn events_are_frozen_by_their_seed() {
        let batch = recipe(Distribution::Uniform).batch(41, 2, usize::MAX, 0, 0);
        let texts: Vec<_> = batch.values().iter().map(String::from_utf8_lossy).collect();
        assert!(texts.iter().all(|text| text.len() == 100 && text.starts_with("{\"seq\":4")), "{texts:?}");
        let value: serde_json::Value = serde_json::from_str(&texts[0]).expect("JSON");
        assert_eq!(value["at"], batch.times()[0]);
        assert_eq!(value["key"].as_str().map(str::as_bytes), Some(batch.keys().row(0)));
        assert!((36_000..=41_000).contains(&batch.times()[0]), "{:?}", batch.times());
        let again = recipe(Distribution::Uniform).batch(42, 1, usize::MAX, 0, 0);
        assert_eq!(again.values().row(0), batch.values().row(1));
    }

    #[test]
    fn keys_are_spread_as_asked() {
        let share = |distribution| {
            let recipe = recipe(distribution);
            let mut counts = vec![0_u32; 1_000];
            for event in 0..100_000 {
                counts[usize::try_from(recipe.key(event)).expect("small")] += 1;
            }
            counts
        };
        let uniform = share(Distribution::Uniform);
        assert!(uniform.iter().all(|&count| (40..=170).contains(&count)));
        let zipf = share(Distribution::Zipf);
        // ln 2 / ln 1001 and ln(11/10) / ln 1001 of all.
        assert!((9_500..=10_600).contains(&zipf[0]), "{}", zipf[0]);
        assert!((1_200..=1_560).contains(&zipf[9]), "{}", zipf[9]);
        assert!(zipf.iter().all(|&count| count < 11_000));
    }
}
