use std::collections::BTreeMap;

use wasmill_model::{PartitionId, Timestamp};

/// What an event says that does not move the watermark.
pub const NO_MARK: i64 = i64::MIN;

/// Settings of [`BoundedDisorder`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disorder {
    /// How far an event may lie behind the latest one of its partition and still be on time,
    /// microseconds.
    pub bound_micros: u64,
    /// A partition without events for this long holds the others back no more, microseconds.
    /// `None`: it waits for ever.
    pub idle_micros: Option<u64>,
    /// Event times further ahead of the wall clock than this do not move the watermark,
    /// microseconds. `None`: any time does.
    pub skew_micros: Option<u64>,
}

impl Disorder {
    /// The watermark of a partition whose latest event has this time.
    fn behind(self, latest: i64) -> i64 {
        latest.saturating_sub_unsigned(self.bound_micros).saturating_sub(1)
    }
}

/// Watermarks of the partitions of one source under bounded disorder, and their minimum.
///
/// The watermark of a partition is `latest - bound - 1`: an event is on time if its time is above
/// the watermark before it. Partitions that are idle or have ended are left out of the minimum.
/// While every partition is idle the watermark holds, so that nothing fires because a source fell
/// silent; once all have ended it is [`Timestamp::MAX`].
///
/// # Invariants
/// The watermark never falls, also where a partition joins late or wakes behind it.
#[derive(Debug)]
pub struct BoundedDisorder {
    settings: Disorder,
    partitions: BTreeMap<PartitionId, Partition>,
    watermark: Timestamp,
    skewed: u64,
}

#[derive(Debug)]
struct Partition {
    latest: Timestamp,
    heard_nanos: u64,
    standing: Standing,
}

/// Whether something holds the watermark of others back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Live,
    /// It is silent, and left out until it is heard again.
    Idle,
    /// Nothing comes from it any more.
    Ended,
}

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Its number.
    pub partition: PartitionId,
    /// Its latest event, [`Timestamp::MIN`] before the first.
    pub latest: Timestamp,
    /// Its watermark.
    pub watermark: Timestamp,
    /// Whether it holds the others back.
    pub standing: Standing,
    /// Monotonic nanoseconds at which it joined, or was heard last.
    pub heard_nanos: u64,
}

/// How far an input of a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputProgress {
    /// Its watermark.
    pub watermark: Timestamp,
    /// Whether it holds the others back.
    pub standing: Standing,
    /// Monotonic nanoseconds at which its watermark rose last; `None` before the first.
    pub risen_nanos: Option<u64>,
}

impl BoundedDisorder {
    /// A generator that starts at [`Timestamp::MIN`].
    #[must_use]
    pub fn new(settings: Disorder) -> Self {
        Self { settings, partitions: BTreeMap::new(), watermark: Timestamp::MIN, skewed: 0 }
    }

    /// Adds a partition that has no event yet: from now on it holds the watermark back, until it
    /// is idle. `now_nanos` is monotonic. A partition that is known already stays as it is.
    pub fn join(&mut self, partition: PartitionId, now_nanos: u64) {
        self.partitions.entry(partition).or_insert(Partition {
            latest: Timestamp::MIN,
            heard_nanos: now_nanos,
            standing: Standing::Live,
        });
    }

    /// Events of a partition, at monotonic time `now_nanos` and wall time `wall`. Joins a
    /// partition that is not known; one that has ended lives again.
    ///
    /// Takes the first of them and says how many: all, or those before the first that lies behind
    /// the watermark which the events before it have raised. Hand those on, call
    /// [`Self::advance`], tell the watermark, and come with the rest: so an event is judged by
    /// the watermark that every event before it made, however events are cut into batches.
    ///
    /// `marks` is how far each event moves the latest time: its own time, or [`NO_MARK`] where
    /// only some events move it.
    pub fn observe(
        &mut self,
        partition: PartitionId,
        times: &[i64],
        marks: &[i64],
        now_nanos: u64,
        wall: Timestamp,
    ) -> usize {
        let limit = self.settings.skew_micros.map_or(i64::MAX, |skew| wall.0.saturating_add_unsigned(skew));
        self.join(partition, now_nanos);
        let others = self.partitions.iter().filter(|(id, other)| **id != partition && other.standing == Standing::Live);
        let others = others.map(|(_, other)| self.settings.behind(other.latest.0)).min().unwrap_or(i64::MAX);
        let Some(own) = self.partitions.get_mut(&partition) else { return times.len() };
        own.heard_nanos = own.heard_nanos.max(now_nanos);
        own.standing = Standing::Live;
        let mut latest = own.latest.0;
        let mut taken = 0;
        for (&time, &mark) in times.iter().zip(marks) {
            let watermark = self.settings.behind(latest).min(others);
            if time <= watermark && watermark > self.watermark.0 && taken > 0 {
                break;
            }
            taken += 1;
            if mark <= limit {
                latest = latest.max(mark);
            } else {
                self.skewed += 1;
            }
        }
        own.latest = Timestamp(latest);
        taken
    }

    /// A partition has ended. Joins one that is not known.
    pub fn end(&mut self, partition: PartitionId) {
        self.join(partition, 0);
        if let Some(partition) = self.partitions.get_mut(&partition) {
            partition.standing = Standing::Ended;
        }
    }

    /// Nobody has listened for a while: silence of live partitions counts from `now_nanos` on.
    pub fn stay_awake(&mut self, now_nanos: u64) {
        for partition in self.partitions.values_mut() {
            partition.heard_nanos = partition.heard_nanos.max(now_nanos);
        }
    }

    /// Looks for idle partitions and gives the watermark if it has risen.
    pub fn advance(&mut self, now_nanos: u64) -> Option<Timestamp> {
        if let Some(idle_micros) = self.settings.idle_micros {
            for partition in self.partitions.values_mut().filter(|partition| partition.standing == Standing::Live) {
                if idle_from(partition.heard_nanos, idle_micros) <= now_nanos {
                    partition.standing = Standing::Idle;
                }
            }
        }
        let settings = self.settings;
        let each = (self.partitions.values())
            .map(|partition| (Timestamp(settings.behind(partition.latest.0)), partition.standing));
        raise(&mut self.watermark, combined(each))
    }

    /// The watermark as of the last [`Self::advance`].
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Whether no partition is live and some partition may yet wake: downstream need not wait.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        is_idle(self.partitions.values().map(|partition| partition.standing))
    }

    /// Monotonic nanoseconds at which the next partition falls idle unless it is heard before.
    #[must_use]
    pub fn next_idle_nanos(&self) -> Option<u64> {
        let idle_micros = self.settings.idle_micros?;
        let live = self.partitions.values().filter(|partition| partition.standing == Standing::Live);
        live.map(|partition| idle_from(partition.heard_nanos, idle_micros)).min()
    }

    /// How far each partition is, by number.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionProgress> {
        self.partitions.iter().map(|(&partition, &Partition { latest, heard_nanos, standing })| PartitionProgress {
            partition,
            latest,
            watermark: Timestamp(self.settings.behind(latest.0)),
            standing,
            heard_nanos,
        })
    }

    /// Events so far whose time lay too far ahead of the wall clock to count.
    #[must_use]
    pub fn skewed(&self) -> u64 {
        self.skewed
    }
}

fn idle_from(heard_nanos: u64, idle_micros: u64) -> u64 {
    heard_nanos.saturating_add(idle_micros.saturating_mul(1_000))
}

/// The watermark of a task: the minimum over its inputs.
///
/// Inputs that are idle or have ended are left out. While none is live and some are idle the
/// watermark holds; once all have ended it is [`Timestamp::MAX`].
///
/// # Invariants
/// The watermark never falls.
#[derive(Debug)]
pub struct InputWatermarks {
    inputs: Vec<InputProgress>,
    watermark: Timestamp,
}

impl InputWatermarks {
    /// Inputs that have said nothing yet.
    #[must_use]
    pub fn new(inputs: usize) -> Self {
        let silent = InputProgress { watermark: Timestamp::MIN, standing: Standing::Live, risen_nanos: None };
        Self { inputs: vec![silent; inputs], watermark: Timestamp::MIN }
    }

    /// An input says, at monotonic time `now_nanos`, how far it is and whether it is idle. Gives the
    /// watermark of the task if it has risen. An input that has ended stays so.
    ///
    /// # Panics
    /// Where there is no such input: a bug of ours.
    pub fn update(&mut self, input: usize, watermark: Timestamp, idle: bool, now_nanos: u64) -> Option<Timestamp> {
        let input = &mut self.inputs[input];
        if watermark > input.watermark {
            (input.watermark, input.risen_nanos) = (watermark, Some(now_nanos));
        }
        if input.standing != Standing::Ended {
            input.standing = if idle { Standing::Idle } else { Standing::Live };
        }
        self.combine()
    }

    /// How far each input is.
    #[must_use]
    pub fn inputs(&self) -> &[InputProgress] {
        &self.inputs
    }

    /// An input has ended. Gives the watermark of the task if it has risen.
    ///
    /// # Panics
    /// As [`Self::update`].
    pub fn end(&mut self, input: usize) -> Option<Timestamp> {
        self.inputs[input].standing = Standing::Ended;
        self.combine()
    }

    fn combine(&mut self) -> Option<Timestamp> {
        raise(&mut self.watermark, combined(self.inputs.iter().map(|input| (input.watermark, input.standing))))
    }

    /// The watermark of the task.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Whether no input is live and some input may yet wake.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        is_idle(self.inputs.iter().map(|input| input.standing))
    }

    /// Whether every input has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.inputs.iter().all(|input| input.standing == Standing::Ended)
    }
}

/// The minimum over what is live, `None` where nothing is known to have changed.
fn combined(each: impl Iterator<Item = (Timestamp, Standing)>) -> Option<Timestamp> {
    let (mut least, mut idle, mut ended) = (None, false, false);
    for (watermark, standing) in each {
        match standing {
            Standing::Live => least = Some(least.map_or(watermark, |least: Timestamp| least.min(watermark))),
            Standing::Idle => idle = true,
            Standing::Ended => ended = true,
        }
    }
    least.or((ended && !idle).then_some(Timestamp::MAX))
}

fn raise(watermark: &mut Timestamp, to: Option<Timestamp>) -> Option<Timestamp> {
    let risen = to.filter(|to| to > watermark)?;
    *watermark = risen;
    Some(risen)
}

fn is_idle(each: impl Iterator<Item = Standing>) -> bool {
    let (mut live, mut idle) = (false, false);
    each.for_each(|standing| match standing {
        Standing::Live => live = true,
        Standing::Idle => idle = true,
        Standing::Ended => {}
    });
    idle && !live
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: PartitionId = PartitionId(0);
    const B: PartitionId = PartitionId(1);
    const WALL: Timestamp = Timestamp(0);

    fn generator(bound_micros: u64, idle_micros: Option<u64>, skew_micros: Option<u64>) -> BoundedDisorder {
        let mut generator = BoundedDisorder::new(Disorder { bound_micros, idle_micros, skew_micros });
        generator.join(A, 0);
        generator.join(B, 0);
        generator
    }

    #[test]
    fn the_slowest_live_partition_decides() {
        let mut generator = generator(100, None, None);
        generator.observe(A, &[900, 1_000, 950], &[900, 1_000, 950], 0, WALL);
        assert_eq!(generator.advance(0), None);
        generator.observe(B, &[500], &[500], 0, WALL);
        assert_eq!(generator.advance(0), Some(Timestamp(399)));
        assert_eq!(generator.advance(0), None);
        generator.end(B);
        assert_eq!(generator.advance(0), Some(Timestamp(899)));
        generator.end(A);
        assert_eq!(generator.advance(0), Some(Timestamp::MAX));
    }

    #[test]
    fn idle_partitions_hold_nothing_back_and_all_idle_holds() {
        let mut generator = generator(0, Some(1), None);
        generator.observe(A, &[1_000], &[1_000], 500, WALL);
        assert_eq!(generator.next_idle_nanos(), Some(1_000));
        assert_eq!(generator.advance(999), None);
        assert_eq!(generator.advance(1_000), Some(Timestamp(999)));
        assert!(!generator.is_idle());
        assert_eq!((generator.advance(9_999), generator.is_idle()), (None, true));
        // B wakes far behind: nothing falls, and A is left out while it is idle.
        generator.observe(B, &[10], &[10], 10_000, WALL);
        assert_eq!((generator.advance(10_000), generator.watermark()), (None, Timestamp(999)));
        generator.observe(B, &[2_000], &[2_000], 10_000, WALL);
        assert_eq!(generator.advance(10_000), Some(Timestamp(1_999)));
        generator.end(B);
        assert_eq!((generator.advance(10_000), generator.is_idle()), (None, true));
    }

    #[test]
    fn times_far_ahead_of_the_wall_clock_are_counted_and_left_out() {
        let mut generator = generator(0, None, Some(100));
        generator.end(B);
        generator.observe(A, &[10, i64::MAX, 1_101, 1_100], &[10, i64::MAX, 1_101, 1_100], 0, Timestamp(1_000));
        assert_eq!((generator.advance(0), generator.skewed()), (Some(Timestamp(1_099)), 2));
        generator.observe(A, &[i64::MAX], &[i64::MAX], 0, Timestamp(1_000));
        assert_eq!((generator.advance(0), generator.skewed()), (None, 3));
    }

    #[test]
    fn the_edges_of_the_range_hold() {
        let mut generator = generator(u64::MAX, Some(u64::MAX), Some(u64::MAX));
        generator.observe(A, &[i64::MIN], &[i64::MIN], u64::MAX, Timestamp(i64::MAX));
        generator.observe(B, &[i64::MAX], &[i64::MAX], u64::MAX, Timestamp(i64::MAX));
        assert_eq!(generator.advance(u64::MAX - 1), None);
        assert_eq!(generator.watermark(), Timestamp::MIN);
    }

    #[test]
    fn a_task_is_as_far_as_its_slowest_live_input() {
        let mut inputs = InputWatermarks::new(2);
        assert_eq!(inputs.update(0, Timestamp(10), false, 0), None);
        assert_eq!(inputs.update(1, Timestamp(5), false, 0), Some(Timestamp(5)));
        assert_eq!(inputs.update(1, Timestamp(5), true, 0), Some(Timestamp(10)));
        assert_eq!(inputs.update(1, Timestamp(7), false, 0), None);
        assert_eq!(inputs.update(0, Timestamp(20), true, 0), None);
        assert_eq!(inputs.end(1), None);
        assert_eq!((inputs.is_idle(), inputs.has_ended(), inputs.watermark()), (true, false, Timestamp(10)));
        assert_eq!(inputs.end(0), Some(Timestamp::MAX));
        assert!(inputs.has_ended());
    }

    proptest! {
        /// What a row is judged by is the watermark that all rows before it made.
        #[test]
        fn rows_in_any_batches_meet_the_watermarks_of_rows_one_by_one(
            bound in 0..20_u64,
            batches in prop::collection::vec((0..2_u32, prop::collection::vec(-50..50_i64, 1..20)), 1..20),
        ) {
            let (mut whole, mut single) = (generator(bound, None, None), generator(bound, None, None));
            for (partition, times) in batches {
                let partition = PartitionId(partition);
                let mut at = 0;
                while at < times.len() {
                    let end = at + whole.observe(partition, &times[at..], &times[at..], 0, WALL);
                    for &time in &times[at..end] {
                        let late = |generator: &BoundedDisorder| time <= generator.watermark().0;
                        prop_assert_eq!(late(&whole), late(&single));
                        single.observe(partition, &[time], &[time], 0, WALL);
                        single.advance(0);
                    }
                    whole.advance(0);
                    prop_assert_eq!(whole.watermark(), single.watermark());
                    at = end;
                }
            }
        }

        /// Against the definition, computed from the whole history each time.
        #[test]
        fn any_history_follows_the_definition(
            bound in 0..50_u64,
            idle in prop::option::of(1..5_u64),
            steps in prop::collection::vec((0..3_u32, prop::option::of(-100..100_i64), 0..3_u64), 1..60),
        ) {
            let mut generator = BoundedDisorder::new(Disorder { bound_micros: bound, idle_micros: idle, skew_micros: None });
            let mut history: Vec<(u32, Option<i64>, u64)> = Vec::new();
            let (mut now, mut highest) = (0, Timestamp::MIN);
            for (partition, time, micros) in steps {
                now += micros * 1_000;
                match time {
                    Some(time) => assert_eq!(generator.observe(PartitionId(partition), &[time], &[time], now, WALL), 1),
                    None => generator.end(PartitionId(partition)),
                }
                history.push((partition, time, now));
                let each = (0..3).filter_map(|partition| {
                    let of: Vec<_> = history.iter().filter(|step| step.0 == partition).collect();
                    let last = of.last()?;
                    let latest = of.iter().filter_map(|step| step.1).max();
                    let heard = of.iter().rev().find(|step| step.1.is_some()).map_or(0, |step| step.2);
                    let is_idle = idle.is_some_and(|idle| heard + idle * 1_000 <= now);
                    Some((latest, last.1.is_none(), is_idle))
                });
                let each: Vec<_> = each.collect();
                let live = each.iter().filter(|each| !each.1 && !each.2);
                let least = live.filter_map(|each| each.0).map(|latest| latest - bound as i64 - 1).min();
                let all_ended = each.iter().all(|each| each.1);
                let want = if all_ended { Timestamp::MAX } else { least.map_or(Timestamp::MIN, Timestamp) };
                let before = highest;
                highest = highest.max(want);
                prop_assert_eq!(generator.advance(now), (highest > before).then_some(highest));
                prop_assert_eq!(generator.watermark(), highest);
            }
        }
    }
}
