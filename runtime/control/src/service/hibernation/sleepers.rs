//! Jobs that rest, and which of them are to wake. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wasmill_model::{JobName, TenantName, TopicName};

use super::idle::Rest;

/// A job of a tenant.
pub(super) type Key = (TenantName, JobName);

/// Jobs that rest. A job is in here at most once: it rests, or it has been woken and not been fetched.
#[derive(Debug, Default)]
pub(super) struct Sleepers {
    resting: BTreeMap<Key, Rest>,
    due: BTreeSet<(i64, Key)>,
    topics: HashMap<TenantName, HashMap<TopicName, BTreeSet<JobName>>>,
    /// And when they were, in monotonic nanoseconds.
    woken: BTreeMap<Key, u64>,
}

impl Sleepers {
    /// A job rests from now on.
    pub(super) fn rest(&mut self, key: Key, rest: Rest) {
        self.remove(&key);
        if let Some(due) = rest.due {
            self.due.insert((due, key.clone()));
        }
        for wait in &rest.topics {
            let topics = self.topics.entry(key.0.clone()).or_default();
            topics.entry(wait.topic.clone()).or_default().insert(key.1.clone());
        }
        self.resting.insert(key, rest);
    }

    /// A job rests no more, nor is it to wake.
    pub(super) fn remove(&mut self, key: &Key) {
        self.woken.remove(key);
        let Some(rest) = self.resting.remove(key) else { return };
        if let Some(due) = rest.due {
            self.due.remove(&(due, key.clone()));
        }
        let Some(topics) = self.topics.get_mut(&key.0) else { return };
        for wait in &rest.topics {
            if let Some(jobs) = topics.get_mut(&wait.topic) {
                jobs.remove(&key.1);
                if jobs.is_empty() {
                    topics.remove(&wait.topic);
                }
            }
        }
        if topics.is_empty() {
            self.topics.remove(&key.0);
        }
    }

    /// A job is to wake. Returns `false` where it does not rest.
    pub(super) fn wake(&mut self, key: &Key, now_nanos: u64) -> bool {
        let rests = self.resting.contains_key(key);
        if rests {
            self.remove(key);
            self.woken.insert(key.clone(), now_nanos);
        }
        rests
    }

    /// A topic has more records: jobs that wait for it are to wake. Returns whether there are any.
    pub(super) fn appended(&mut self, tenant: &TenantName, topic: &TopicName, now_nanos: u64) -> bool {
        let Some(jobs) = self.topics.get(tenant).and_then(|topics| topics.get(topic)) else { return false };
        let keys: Vec<Key> = jobs.iter().map(|job| (tenant.clone(), job.clone())).collect();
        for key in &keys {
            self.wake(key, now_nanos);
        }
        !keys.is_empty()
    }

    /// It is `wall` by the clock on the wall: jobs whose timers are due are to wake.
    pub(super) fn tick(&mut self, wall: i64, now_nanos: u64) {
        while let Some((due, key)) = self.due.first().cloned()
            && due <= wall
        {
            self.wake(&key, now_nanos);
        }
    }

    /// When the next timer is due.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Jobs that are to wake, and since when: whoever waits longest first. Each is told once.
    pub(super) fn take_woken(&mut self) -> Vec<(Key, u64)> {
        let mut woken: Vec<_> = std::mem::take(&mut self.woken).into_iter().collect();
        woken.sort_by_key(|(_, since)| *since);
        woken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::idle::TopicWait;
    use super::*;

    fn key(number: u8) -> Key {
        let tenant = TenantName::new(if number.is_multiple_of(2) { "a" } else { "b" }).expect("a name");
        (tenant, JobName::new(&format!("j{}", number / 2)).expect("a name"))
    }

    fn topic(number: u8) -> TopicName {
        TopicName::new(&format!("t{number}")).expect("a name")
    }

    #[derive(Debug, Clone)]
    enum Step {
        Rest(u8, Option<i64>, Vec<u8>),
        Remove(u8),
        Wake(u8),
        Append(u8, u8),
        Tick(i64),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..8, prop::option::of(0_i64..100), prop::collection::vec(0_u8..4, 0..3))
                .prop_map(|(job, due, topics)| Step::Rest(job, due, topics)),
            1 => (0_u8..8).prop_map(Step::Remove),
            1 => (0_u8..8).prop_map(Step::Wake),
            3 => (0_u8..2, 0_u8..4).prop_map(|(tenant, topic)| Step::Append(tenant, topic)),
            2 => (0_i64..100).prop_map(Step::Tick),
            2 => Just(Step::Take),
        ]
    }

    /// A list that is searched from end to end.
    #[derive(Default)]
    struct Naive {
        resting: Vec<(Key, Rest)>,
        woken: Vec<(u64, Key)>,
    }

    impl Naive {
        fn wake(&mut self, now: u64, hits: impl Fn(&Key, &Rest) -> bool) {
            for (key, _) in self.resting.extract_if(.., |(key, rest)| hits(key, rest)) {
                self.woken.push((now, key));
            }
        }

        fn remove(&mut self, key: &Key) {
            self.resting.retain(|(other, _)| other != key);
            self.woken.retain(|(_, other)| other != key);
        }
    }

    proptest! {
        #[test]
        fn those_wake_that_wait_for_what_happened(steps in prop::collection::vec(step(), 1..80)) {
            let (mut sleepers, mut naive) = (Sleepers::default(), Naive::default());
            for (now, step) in (0..).zip(steps) {
                match step {
                    Step::Rest(job, due, topics) => {
                        let topics =
                            topics.iter().map(|it| TopicWait { topic: topic(*it), next: BTreeMap::new() }).collect();
                        let rest = Rest { due, topics };
                        naive.remove(&key(job));
                        naive.resting.push((key(job), rest.clone()));
                        sleepers.rest(key(job), rest);
                    }
                    Step::Remove(job) => {
                        naive.remove(&key(job));
                        sleepers.remove(&key(job));
                    }
                    Step::Wake(job) => {
                        naive.wake(now, |other, _| *other == key(job));
                        sleepers.wake(&key(job), now);
                    }
                    Step::Append(tenant, number) => {
                        let (tenant, topic) = (key(tenant).0, topic(number));
                        let waits = |(t, _): &Key, rest: &Rest| {
                            *t == tenant && rest.topics.iter().any(|wait| wait.topic == topic)
                        };
                        let any = naive.resting.iter().any(|(key, rest)| waits(key, rest));
                        naive.wake(now, waits);
                        prop_assert_eq!(sleepers.appended(&tenant, &topic, now), any);
                    }
                    Step::Tick(wall) => {
                        naive.wake(now, |_, rest| rest.due.is_some_and(|due| due <= wall));
                        sleepers.tick(wall, now);
                    }
                    Step::Take => {
                        // Whoever waits longest comes first.
                        let mut woken = std::mem::take(&mut naive.woken);
                        woken.sort();
                        let taken: Vec<_> = sleepers.take_woken().into_iter().map(|(key, now)| (now, key)).collect();
                        prop_assert_eq!(taken, woken);
                    }
                }
                prop_assert_eq!(sleepers.resting.len(), naive.resting.len());
                let due = naive.resting.iter().filter_map(|(_, rest)| rest.due).min();
                prop_assert_eq!(sleepers.next_due(), due);
                // Nothing is left of those that do not rest.
                let topics: usize = sleepers.topics.values().flat_map(HashMap::values).map(BTreeSet::len).sum();
                let wanted: BTreeSet<(&Key, &TopicName)> = (naive.resting.iter())
                    .flat_map(|(key, rest)| rest.topics.iter().map(move |wait| (key, &wait.topic)))
                    .collect();
                prop_assert_eq!(topics, wanted.len());
            }
        }
    }
}
