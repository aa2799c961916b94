//! How many requests a second: a bucket of tokens that fills evenly.

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A bucket that holds the requests of one second, full at first.
#[derive(Debug)]
pub(super) struct Rate {
    nanos_each: u64,
    /// When the bucket would be full again, in monotonic nanoseconds.
    full_at: u64,
}

impl Rate {
    pub(super) fn new(per_second: u32) -> Self {
        Self { nanos_each: NANOS_PER_SECOND / u64::from(per_second.max(1)), full_at: 0 }
    }

    /// Takes a token, or says after how many nanoseconds there is one.
    pub(super) fn take(&mut self, now: u64) -> Result<(), u64> {
        let full_at = self.full_at.max(now) + self.nanos_each;
        match full_at - now {
            used if used <= NANOS_PER_SECOND => {
                self.full_at = full_at;
                Ok(())
            }
            used => Err(used - NANOS_PER_SECOND),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_passes_and_then_the_rate() {
        let mut rate = Rate::new(10);
        let now = 5 * NANOS_PER_SECOND;
        assert!((0..10).all(|_| rate.take(now).is_ok()));
        assert_eq!(rate.take(now), Err(NANOS_PER_SECOND / 10));
        assert!(rate.take(now + NANOS_PER_SECOND / 10).is_ok());
        assert!(rate.take(now + NANOS_PER_SECOND / 10).is_err());
        assert!((0..10).all(|_| rate.take(now + 3 * NANOS_PER_SECOND).is_ok()));
    }
}
