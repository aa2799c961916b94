//! Which events have come before: the latest ids, bounded in number and age.

use std::collections::{HashSet, VecDeque};

use super::EventId;

/// Ids of the latest events, in the order in which they came first.
///
/// # Invariants
/// `known` and `order` hold the same ids, at most `count_max`.
#[derive(Debug)]
pub(crate) struct Window {
    known: HashSet<EventId>,
    order: VecDeque<(i64, EventId)>,
    count_max: usize,
    age_micros: i64,
}

impl Window {
    /// Of at most `count_max` ids, each for `age_micros` at least while there is room.
    pub(crate) fn new(count_max: usize, age_micros: i64) -> Self {
        Self { known: HashSet::new(), order: VecDeque::new(), count_max, age_micros }
    }

    /// Notes an id that came at `now`. `false` where it is known.
    pub(crate) fn insert(&mut self, id: EventId, now: i64) -> bool {
        self.forget(now);
        if self.count_max == 0 {
            return true;
        }
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back((now, id));
        if self.order.len() > self.count_max {
            self.drop_first();
        }
        true
    }

    fn forget(&mut self, now: i64) {
        while self.order.front().is_some_and(|(at, _)| now.saturating_sub(*at) > self.age_micros) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, id)) = self.order.pop_front() {
            self.known.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_window_knows_what_a_list_knows(
            count_max in 0_usize..6,
            age in 0_i64..20,
            steps in prop::collection::vec((0_u8..8, 0_i64..6), 0..100),
        ) {
            let mut window = Window::new(count_max, age);
            let mut list: Vec<(i64, u8)> = Vec::new();
            let mut now = 0;
            for (name, later) in steps {
                now += later;
                list.retain(|(at, _)| now - at <= age);
                let is_new = list.iter().all(|(_, known)| *known != name);
                prop_assert_eq!(window.insert(EventId([name; 16]), now), is_new);
                if is_new {
                    list.push((now, name));
                    let over = list.len().saturating_sub(count_max);
                    list.drain(..over);
                }
                prop_assert_eq!(window.known.len(), window.order.len());
                prop_assert!(window.order.len() <= count_max);
            }
        }
    }

    #[test]
    fn names_in_other_places_make_other_ids() {
        assert_ne!(EventId::of(&[b"a", b"bc"]), EventId::of(&[b"ab", b"c"]));
        assert_eq!(EventId::of(&[b"a", b"bc"]), EventId::of(&[b"a", b"bc"]));
    }
}
