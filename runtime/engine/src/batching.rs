use wasmill_contract::BatchLimit;

/// Most rows of a batch. More would not make a row cheaper: the fixed cost of a call is far below
/// a nanosecond a row by then.
const ROWS_MAX: usize = 1_024;
/// Fewest rows that a slow chain is given at once.
const ROWS_MIN: usize = 16;
/// Most bytes of a batch: what a core's own cache holds while the batch goes through a chain.
const BYTES_MAX: usize = 256 * 1_024;

/// How many rows a source hands to its chain at once.
///
/// An idle source hands on what it has. A busy one fills batches as large as its chain can work
/// off within the latency goal: the rows halve when a batch took longer and double when it took
/// less than a quarter of it.
#[derive(Debug)]
pub(crate) struct AdaptiveBatch {
    goal_nanos: u64,
    rows: usize,
}

impl AdaptiveBatch {
    pub(crate) fn new(goal_nanos: u64) -> Self {
        Self { goal_nanos, rows: 256 }
    }

    pub(crate) fn limit(&self) -> BatchLimit {
        BatchLimit { rows: self.rows, bytes: BYTES_MAX }
    }

    /// A batch of `rows` rows took the chain `nanos`.
    pub(crate) fn observe(&mut self, rows: usize, nanos: u64) {
        if nanos > self.goal_nanos {
            self.rows = (self.rows / 2).max(ROWS_MIN);
        } else if rows >= self.rows && nanos < self.goal_nanos / 4 {
            self.rows = (self.rows * 2).min(ROWS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_while_the_chain_is_fast_and_shrink_when_it_is_slow() {
        let mut batch = AdaptiveBatch::new(1_000_000);
        for _ in 0..10 {
            batch.observe(batch.limit().rows, 10_000);
        }
        assert_eq!(batch.limit().rows, ROWS_MAX);
        batch.observe(ROWS_MAX, 2_000_000);
        assert_eq!(batch.limit().rows, ROWS_MAX / 2);
        for _ in 0..20 {
            batch.observe(batch.limit().rows, 2_000_000);
        }
        assert_eq!(batch.limit().rows, ROWS_MIN);
        batch.observe(1, 10_000);
        assert_eq!(batch.limit().rows, ROWS_MIN, "a batch that was not full says nothing about larger ones");
    }
}
