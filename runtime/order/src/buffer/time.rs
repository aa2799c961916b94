use std::cmp::Reverse;
use std::collections::BinaryHeap;

use wasmill_model::Timestamp;

use super::Slack;

/// Orders rows by event time; rows of equal time stay in the order in which they came.
///
/// # Invariants
/// - Rows leave in the order of their times, over all calls, but for those that came *late*: behind
///   a row that had left.
/// - What leaves, and what is late, does not depend on how rows are cut into batches.
#[derive(Debug)]
pub struct TimeBuffer<T> {
    slack: Slack,
    held: BinaryHeap<Reverse<(i64, u64, T)>>,
    /// Numbers rows as they come.
    next: u64,
    latest: Option<i64>,
    /// Rows below have gone on, or may not any more.
    frontier: i64,
}

impl<T: Copy + Ord> TimeBuffer<T> {
    /// An empty buffer.
    #[must_use]
    pub fn new(slack: Slack) -> Self {
        Self { slack, held: BinaryHeap::new(), next: 0, latest: None, frontier: i64::MIN }
    }

    /// A row comes: it is held, `Some` with its number, or it is late, `None`.
    #[inline]
    pub fn offer(&mut self, time: i64, place: T) -> Option<u64> {
        let latest = self.latest.map_or(time, |latest| latest.max(time));
        self.latest = Some(latest);
        let behind = if time < self.frontier { self.frontier.abs_diff(time) } else { 0 };
        self.slack.observe(latest.abs_diff(time), behind);
        let number = self.next;
        if behind == 0 {
            self.held.push(Reverse((time, number, place)));
            self.next += 1;
        }
        if !matches!(self.slack, Slack::Watermark) {
            self.frontier = self.frontier.max(latest.saturating_sub_unsigned(self.slack.k()));
        }
        (behind == 0).then_some(number)
    }

    /// The watermark of the input. It moves the frontier where the slack leaves that to it, and at
    /// the end of time everything goes.
    pub fn watermark(&mut self, watermark: Timestamp) {
        if matches!(self.slack, Slack::Watermark) || watermark == Timestamp::MAX {
            self.frontier = self.frontier.max(watermark.0.saturating_add(1));
        }
    }

    /// Takes the next row that may go: with its time and number.
    #[inline]
    pub fn pop(&mut self) -> Option<(i64, u64, T)> {
        let Reverse((time, ..)) = self.held.peek()?;
        if *time > self.frontier || (*time == self.frontier && self.waits_for_equals()) {
            return None;
        }
        self.held.pop().map(|Reverse(row)| row)
    }

    /// Takes the first row though it should wait: there is no room for it. What comes behind it is
    /// late.
    pub fn force(&mut self) -> Option<(i64, u64, T)> {
        let Reverse(row) = self.held.pop()?;
        self.frontier = self.frontier.max(row.0);
        Some(row)
    }

    /// A watermark says of each time it passed that it is over, so equals of it cannot come.
    fn waits_for_equals(&self) -> bool {
        matches!(self.slack, Slack::Watermark) && self.frontier != i64::MAX
    }

    /// No row before or at this time leaves any more, but for late ones.
    #[must_use]
    pub fn promised(&self) -> Timestamp {
        if self.frontier == i64::MAX && self.held.is_empty() {
            return Timestamp::MAX;
        }
        Timestamp(self.frontier.saturating_sub(1))
    }

    /// Rows that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The row that goes next: time, number, place.
    #[must_use]
    pub fn first(&self) -> Option<&(i64, u64, T)> {
        self.held.peek().map(|Reverse(row)| row)
    }

    /// The latest time that came.
    #[must_use]
    pub fn latest(&self) -> Option<i64> {
        self.latest
    }

    /// Rows below this time have gone on, or may not any more.
    #[must_use]
    pub fn frontier(&self) -> Timestamp {
        Timestamp(self.frontier)
    }

    /// `K` as it stands, microseconds.
    #[must_use]
    pub fn k(&self) -> u64 {
        self.slack.k()
    }

    /// The rows that are held, in no order: time, number, place.
    pub fn held(&self) -> impl Iterator<Item = &(i64, u64, T)> {
        self.held.iter().map(|Reverse(row)| row)
    }

    /// The number that the next row gets.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// What it has to know, beside its rows, to go on from here.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut saved = Vec::new();
        saved.extend(self.frontier.to_le_bytes());
        saved.extend(self.latest.unwrap_or(i64::MIN).to_le_bytes());
        saved.extend(self.next.to_le_bytes());
        saved.extend(self.slack.save());
        saved
    }

    /// Goes on from what was saved, before anything else. `false` where it is damaged.
    pub fn restore(&mut self, saved: &[u8]) -> bool {
        let Some((head, slack)) = saved.split_at_checked(24) else { return false };
        let eight = |at: usize| head[at..at + 8].try_into().unwrap_or_default();
        self.frontier = i64::from_le_bytes(eight(0));
        self.latest = Some(i64::from_le_bytes(eight(8))).filter(|latest| *latest > i64::MIN);
        self.next = u64::from_le_bytes(eight(16));
        // A job may have another slack now, which learns anew.
        let _other_slack = !self.slack.restore(slack);
        true
    }

    /// Begins no earlier than where another one is.
    pub fn begin_at(&mut self, other: &Self) {
        self.frontier = self.frontier.max(other.frontier);
        self.latest = self.latest.max(other.latest);
        self.next = self.next.max(other.next);
    }

    /// Takes those rows out whose place is wanted, the first to go first. They may be put back at other places.
    pub fn take_out(&mut self, is_wanted: impl Fn(T) -> bool) -> Vec<(i64, u64, T)> {
        let held = std::mem::take(&mut self.held).into_vec();
        let (mut wanted, others): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|Reverse((.., place))| is_wanted(*place));
        self.held = others.into();
        wanted.sort_unstable_by(|one, other| other.cmp(one));
        wanted.into_iter().map(|Reverse(row)| row).collect()
    }

    /// Puts a row back that was taken out, or held when it was saved.
    pub fn put_back(&mut self, time: i64, number: u64, place: T) {
        self.next = self.next.max(number.saturating_add(1));
        self.held.push(Reverse((time, number, place)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Quality;
    use super::*;

    fn slack() -> impl Strategy<Value = Slack> {
        prop_oneof![
            (0..40_u64).prop_map(|bound| Slack::Fixed { bound }),
            Just(Slack::largest(u64::MAX)),
            Just(Slack::largest(10)),
            (0.5..1.0_f64, 0..30_u64).prop_map(|(target, window)| Slack::adaptive(Quality { target, window }, 1_000)),
        ]
    }

    fn drain(buffer: &mut TimeBuffer<u32>, into: &mut Vec<(i64, u32)>) {
        into.extend(std::iter::from_fn(|| buffer.pop()).map(|(time, _, place)| (time, place)));
    }

    /// The definition, for one row at a time: what the slack says, and a sorted list.
    fn naive(mut slack: Slack, times: &[i64]) -> (Vec<(i64, u32)>, Vec<u32>) {
        let (mut held, mut out, mut late) = (Vec::new(), Vec::new(), Vec::new());
        let (mut frontier, mut latest) = (i64::MIN, i64::MIN);
        for (row, &time) in times.iter().enumerate() {
            latest = latest.max(time);
            slack.observe(latest.abs_diff(time), if time < frontier { frontier.abs_diff(time) } else { 0 });
            if time < frontier {
                late.push(row as u32);
            } else {
                held.push((time, row as u32));
            }
            frontier = frontier.max(latest.saturating_sub_unsigned(slack.k()));
            held.sort_unstable();
            let ready = held.partition_point(|(time, _)| *time <= frontier);
            out.extend(held.drain(..ready));
        }
        out.extend(held);
        (out, late)
    }

    proptest! {
        /// Any rows in any batches, with the buffer saved and restored in between.
        #[test]
        fn rows_leave_as_the_definition_has_it(
            slack in slack(), times in prop::collection::vec(-100..100_i64, 0..1_500), batch in 1..300_usize,
            restart in any::<bool>(),
        ) {
            let (expected, late) = naive(slack.clone(), &times);
            let mut buffer = TimeBuffer::new(slack.clone());
            let (mut out, mut came_late) = (Vec::new(), Vec::new());
            for (place, rows) in times.chunks(batch).enumerate() {
                for (row, &time) in rows.iter().enumerate() {
                    let row = (place * batch + row) as u32;
                    if buffer.offer(time, row).is_none() {
                        came_late.push(row);
                    }
                }
                drain(&mut buffer, &mut out);
                for (time, number, place) in buffer.take_out(|place| place % 3 == 0) {
                    buffer.put_back(time, number, place);
                }
                if restart {
                    let mut other = TimeBuffer::new(slack.clone());
                    prop_assert!(other.restore(&buffer.save()));
                    buffer.held().for_each(|&(time, number, place)| other.put_back(time, number, place));
                    buffer = other;
                }
            }
            buffer.watermark(Timestamp::MAX);
            drain(&mut buffer, &mut out);
            prop_assert_eq!(out.len() + came_late.len(), times.len());
            prop_assert_eq!(&out, &expected);
            prop_assert_eq!(came_late, late);
            prop_assert!(out.is_sorted());
            prop_assert_eq!(buffer.promised(), Timestamp::MAX);
        }

        #[test]
        fn a_watermark_lets_go_what_it_has_passed(
            times in prop::collection::vec(0..100_i64, 0..100), watermarks in prop::collection::vec(0..100_i64, 0..10),
        ) {
            let mut buffer = TimeBuffer::new(Slack::Watermark);
            let mut out = Vec::new();
            let (mut reached, mut late) = (i64::MIN, 0);
            for (row, &time) in times.iter().enumerate() {
                late += usize::from(buffer.offer(time, row as u32).is_none());
                if let Some(&watermark) = watermarks.get(row / 10) && row % 10 == 9 {
                    buffer.watermark(Timestamp(watermark));
                    drain(&mut buffer, &mut out);
                    reached = reached.max(watermark);
                    prop_assert!(out.iter().all(|(time, _)| *time <= reached));
                    prop_assert!(buffer.held().all(|(time, ..)| *time > reached));
                }
            }
            buffer.watermark(Timestamp::MAX);
            drain(&mut buffer, &mut out);
            prop_assert!(out.is_sorted());
            prop_assert_eq!(out.len() + late, times.len());
        }
    }

    #[test]
    fn the_edges_of_the_range_hold() {
        let mut buffer = TimeBuffer::new(Slack::largest(u64::MAX));
        for time in [i64::MAX, i64::MIN, 0, i64::MAX] {
            buffer.offer(time, 0_u32);
        }
        buffer.watermark(Timestamp::MAX);
        let mut out = Vec::new();
        drain(&mut buffer, &mut out);
        assert!(out.is_sorted());
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_row_that_is_forced_out_makes_those_behind_it_late() {
        let mut buffer = TimeBuffer::new(Slack::Fixed { bound: 100 });
        assert!(buffer.offer(50, 0_u32).is_some() && buffer.offer(40, 1).is_some());
        assert_eq!(buffer.force().map(|row| row.0), Some(40));
        assert!(buffer.offer(39, 2).is_none() && buffer.offer(40, 3).is_some());
        assert_eq!(buffer.promised(), Timestamp(39));
    }
}
