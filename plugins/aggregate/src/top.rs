//! The most frequent values: all counts as long as there are few values, those of the frequent
//! ones from then on (Misra and Gries), too low by at most 1/1,024 of all events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Values whose counts are kept; twice as many between two clearings.
const VALUES_MAX: usize = 1024;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Top {
    counts: BTreeMap<String, u64>,
}

impl Top {
    pub(crate) fn add(&mut self, value: String) {
        *self.counts.entry(value).or_default() += 1;
        if self.counts.len() > 2 * VALUES_MAX {
            self.clear_rare();
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (value, count) in other.counts {
            *self.counts.entry(value).or_default() += count;
        }
        if self.counts.len() > 2 * VALUES_MAX {
            self.clear_rare();
        }
    }

    /// Takes the count of the most frequent value that has to go from all.
    fn clear_rare(&mut self) {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let Some(least) = counts.get(VALUES_MAX).copied() else { return };
        self.counts.retain(|_, count| {
            *count = count.saturating_sub(least);
            *count > 0
        });
    }

    /// The most frequent values, most frequent first, equal ones in their order as text.
    pub(crate) fn first(self, limit: usize) -> Vec<(String, u64)> {
        let mut all: Vec<_> = self.counts.into_iter().collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(limit);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_values_are_found_among_very_many() {
        let mut top = Top::default();
        for i in 0..50_000u64 {
            top.add(format!("rare {i}"));
            if i % 10 == 0 {
                top.add("often".into());
            }
            if i % 20 == 0 {
                top.add("less often".into());
            }
        }
        let found = top.first(2);
        assert_eq!((found[0].0.as_str(), found[1].0.as_str()), ("often", "less often"));
        assert!(found[0].1 <= 5000 && found[0].1 >= 5000 - 57_500 / 1024, "{found:?}");
    }

    #[test]
    fn few_values_are_exact_and_ties_in_order() {
        let mut top = Top::default();
        ["b", "a", "c", "a", "b"].into_iter().for_each(|value| top.add(value.into()));
        let mut other = Top::default();
        other.add("c".into());
        top.merge(other);
        assert_eq!(top.first(5), [("a".to_owned(), 2), ("b".to_owned(), 2), ("c".to_owned(), 2)]);
    }
}
