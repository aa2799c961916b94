//! When a job that runs may rest. Pure: facts in, decisions out.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmill_contract::Bell;
use wasmill_engine::{HeadFacts, JobFacts, Reading};
use wasmill_model::{NodeName, PartitionId, Position, Timestamp, TopicName};

/// What a job that rests waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// When its next timer is due: microseconds since the Unix epoch.
    pub due: Option<i64>,
    /// Topics that its sources read.
    pub topics: Vec<TopicWait>,
}

/// A topic that a job waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicWait {
    /// Which.
    pub topic: TopicName,
    /// By partition the offset of the next record that the job wants.
    pub next: BTreeMap<u32, u64>,
}

impl From<Bell> for TopicWait {
    fn from(bell: Bell) -> Self {
        let next = bell.next.into_iter().map(|(PartitionId(partition), offset)| (partition, offset));
        Self { topic: bell.topic, next: next.collect() }
    }
}

/// When to look at a job again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Then, in monotonic nanoseconds.
    At(u64),
    /// Nothing has come for long enough: ask its tasks whether it may rest.
    Ask,
}

/// For how long nothing has come to a job, as far as was looked.
#[derive(Debug)]
pub struct Idleness {
    after_nanos: u64,
    moved: u64,
    since_nanos: u64,
}

impl Idleness {
    /// Of a job whose nodes have been given `moved` rows.
    #[must_use]
    pub fn new(after: Duration, moved: u64, now_nanos: u64) -> Self {
        let after_nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        Self { after_nanos, moved, since_nanos: now_nanos }
    }

    /// The job's nodes have been given `moved` rows by now.
    pub fn decide_look(&mut self, moved: u64, now_nanos: u64) -> Look {
        if moved != self.moved {
            (self.moved, self.since_nanos) = (moved, now_nanos);
        }
        let due = self.since_nanos.saturating_add(self.after_nanos);
        if now_nanos >= due { Look::Ask } else { Look::At(due) }
    }

    /// The job stays for now: it is idle anew.
    pub fn stays(&mut self, now_nanos: u64) {
        self.since_nanos = now_nanos;
    }
}

/// Whether a job may rest, and what wakes it. It stays where a task has not answered, where a source
/// does not simply wait for more, where rows wait for missing numbers, where only a reader can tell that there is more (`bell` is `None`), and
/// where a timer is due so soon that resting is not worth it.
pub fn decide_rest(
    facts: &JobFacts,
    bell: impl Fn(&NodeName, &[(PartitionId, Position)]) -> Option<Bell>,
    now: Timestamp,
    after: Duration,
) -> Option<Rest> {
    if !facts.silent.is_empty() {
        return None;
    }
    let after = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
    let mut rest = Rest { due: None, topics: Vec::new() };
    for task in &facts.tasks {
        if task.gives_up {
            return None;
        }
        if let Some(due) = task.due {
            if due.0 <= now.0.saturating_add(after) {
                return None;
            }
            rest.due = Some(rest.due.map_or(due.0, |other| other.min(due.0)));
        }
        let HeadFacts::Source(source) = &task.head else { continue };
        match source.reading {
            Reading::Ended => continue,
            Reading::Reads if !source.becomes_idle => {}
            Reading::Reads | Reading::Paused | Reading::WaitsForEpoch | Reading::WaitsForOthers(_) => return None,
        }
        rest.topics.push(bell(task.nodes.first()?, &source.positions)?.into());
    }
    // One whose sources have all ended is about to finish.
    (!rest.topics.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmill_engine::{SourceFacts, TaskFacts};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn task(node: &str, due: Option<i64>, reading: Reading, becomes_idle: bool) -> TaskFacts {
        let source = SourceFacts {
            reading,
            watermark: Timestamp(0),
            from: None,
            partitions: Vec::new(),
            positions: vec![(PartitionId(1), Position(b"7".to_vec()))],
            becomes_idle,
        };
        TaskFacts {
            nodes: vec![NodeName::new(node).expect("a name")],
            share: 0,
            watermark: Timestamp(0),
            head: HeadFacts::Source(source),
            buffers: Vec::new(),
            windows: Vec::new(),
            due: due.map(Timestamp),
            gives_up: false,
        }
    }

    fn bell(node: &NodeName, positions: &[(PartitionId, Position)]) -> Option<Bell> {
        let next = positions.iter().map(|(partition, _)| (*partition, 7)).collect();
        (node.as_str() != "deaf").then(|| Bell { topic: TopicName::new("t").expect("a name"), next })
    }

    fn decide(tasks: Vec<TaskFacts>, silent: bool) -> Option<Rest> {
        let silent = silent.then(|| (NodeName::new("s").expect("a name"), 0)).into_iter().collect();
        let facts = JobFacts { now_nanos: 0, tasks, silent };
        decide_rest(&facts, bell, Timestamp(1_000_000), Duration::from_secs(1))
    }

    #[test]
    fn a_job_rests_where_all_that_it_waits_for_is_known() {
        let quiet = || task("in", None, Reading::Reads, false);
        let rest = decide(vec![quiet(), task("on", Some(2_000_001), Reading::Ended, true)], false).expect("rests");
        let topics = vec![TopicWait { topic: TopicName::new("t").expect("a name"), next: BTreeMap::from([(1, 7)]) }];
        assert_eq!(rest, Rest { due: Some(2_000_001), topics });
        assert_eq!(decide(vec![quiet()], true), None, "a task has not answered");
        assert_eq!(decide(vec![task("in", None, Reading::Ended, false)], false), None, "it is about to finish");
        for stays in [
            TaskFacts { gives_up: true, ..quiet() },
            task("deaf", None, Reading::Reads, false),
            task("in", Some(2_000_000), Reading::Reads, false),
            task("in", None, Reading::Reads, true),
            task("in", None, Reading::Paused, false),
            task("in", None, Reading::WaitsForEpoch, false),
            task("in", None, Reading::WaitsForOthers(Timestamp(0)), false),
        ] {
            assert_eq!(decide(vec![quiet(), stays.clone()], false), None, "{stays:?}");
        }
    }

    proptest! {
        /// Against the naive rule: it is asked only where no row came between two looks that lie at least
        /// `after` apart, and it is asked at the first look of that kind.
        #[test]
        fn it_is_asked_once_nothing_came_for_so_long(steps in prop::collection::vec((0_u64..4, any::<bool>()), 1..60)) {
            let mut idle = Idleness::new(Duration::from_secs(3), 0, 0);
            let (mut now, mut moved, mut quiet_since) = (0, 0, 0);
            for (passed, row) in steps {
                now += passed * SECOND;
                if row {
                    moved += 1;
                    quiet_since = now;
                }
                let wanted = if now - quiet_since >= 3 * SECOND { Look::Ask } else { Look::At(quiet_since + 3 * SECOND) };
                prop_assert_eq!(idle.decide_look(moved, now), wanted);
                if wanted == Look::Ask {
                    idle.stays(now);
                    quiet_since = now;
                }
            }
        }
    }
}
