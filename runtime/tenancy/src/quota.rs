use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the words of a refusal begin, wherever they are said.
pub const OVER_BUDGET: &str = "over-budget: ";

/// What all jobs of a tenant hold of something, and how much that may be.
#[derive(Debug)]
pub struct Quota {
    what: &'static str,
    used: AtomicU64,
    most: AtomicU64,
    refused: AtomicU64,
}

impl Quota {
    pub(crate) fn new(what: &'static str, most: u64) -> Arc<Self> {
        let (used, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { what, used, most: AtomicU64::new(most), refused })
    }

    pub(crate) fn set_most(&self, most: u64) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// What is held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How often something was refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether there is room for `more`. What is found so is held only once somebody says so: between
    /// tasks that ask at once it may be overdrawn by what each of them asked for.
    ///
    /// # Errors
    /// The words of the refusal.
    pub fn room_for(&self, more: u64) -> Result<(), String> {
        let (used, most) = (self.used(), self.most.load(Ordering::Relaxed));
        if used.saturating_add(more) <= most {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(format!("{OVER_BUDGET}{used} {} of the tenant's jobs, and {more} more; it may have {most}", self.what))
    }

    /// Holds nothing yet.
    #[must_use]
    pub fn held(self: &Arc<Self>) -> Held {
        Held { quota: Arc::clone(self), amount: 0 }
    }
}

/// What one holder has of a [`Quota`]. Given back when dropped.
#[derive(Debug)]
pub struct Held {
    quota: Arc<Quota>,
    amount: u64,
}

impl Held {
    /// It holds so much now.
    pub fn set(&mut self, amount: u64) {
        // Of two that wrap around, the sum does not.
        let more = amount.wrapping_sub(self.amount);
        if more != 0 {
            self.quota.used.fetch_add(more, Ordering::Relaxed);
            self.amount = amount;
        }
    }

    /// Whether more is held, by all together, than may be.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.quota.used() > self.quota.most.load(Ordering::Relaxed)
    }

    /// Holds `more`, where there is room.
    ///
    /// # Errors
    /// As [`Quota::room_for`].
    pub fn try_add(&mut self, more: u64) -> Result<(), String> {
        self.quota.room_for(more)?;
        self.set(self.amount.saturating_add(more));
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_in_sum_until_it_is_given_back() {
        let quota = Quota::new("timers", 10);
        let (mut a, mut b) = (quota.held(), quota.held());
        a.set(6);
        b.try_add(3).expect("room");
        assert_eq!(b.try_add(2), Err("over-budget: 9 timers of the tenant's jobs, and 2 more; it may have 10".into()));
        a.set(2);
        assert_eq!(quota.used(), 5);
        b.try_add(5).expect("room again");
        drop(a);
        assert_eq!((quota.used(), quota.refused()), (8, 1));
        assert!(!b.is_over());
        quota.set_most(1);
        assert!(b.is_over());
        b.try_add(1).expect_err("a budget that was lowered lets nothing in");
    }
}
