use proptest::prelude::*;
use wasmill_model::{KEY_GROUPS, KeyGroup, share_of};

use super::{Affinity, ConvoyMerge, ConvoyRouter, FromLane, Merged, weave};
use crate::OrderError;

/// What happens to the whole convoy.
#[derive(Debug, Clone)]
enum Step {
    /// A batch: the class of each row, and how many rows come of it.
    Batch(Vec<(u16, u8)>),
    /// A watermark.
    Mark,
    /// A barrier, after which the job is killed or not: then a new merge goes on.
    Barrier { kill: bool },
}

/// A row of the output: number of the input row, and which of its results.
type Out = (u64, u8);
type Lane = FromLane<Vec<(u32, Out)>, u64>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0..12_u16, prop_oneof![3 => Just(0_u8), 4 => Just(1), 1 => 2..4_u8]);
    let step = prop_oneof![
        6 => proptest::collection::vec(row, 0..20).prop_map(Step::Batch),
        2 => Just(Step::Mark),
        1 => any::<bool>().prop_map(|kill| Step::Barrier { kill }),
    ];
    proptest::collection::vec(step, 0..30)
}

/// What one copy does, row by row.
fn one_copy(steps: &[Step]) -> Vec<Result<Out, u64>> {
    let (mut number, mut marks, mut out) = (0, 0, Vec::new());
    for step in steps {
        match step {
            Step::Batch(rows) => {
                for (_, results) in rows {
                    out.extend((0..*results).map(|result| Ok((number, result))));
                    number += 1;
                }
            }
            Step::Mark | Step::Barrier { .. } => {
                out.push(Err(marks));
                marks += 1;
            }
        }
    }
    out
}

fn take(merge: &mut ConvoyMerge<Vec<(u32, Out)>, u64>, out: &mut Vec<Result<Out, u64>>) {
    while let Some(merged) = merge.pop().expect("lanes agree") {
        match merged {
            Merged::Parts(parts) => {
                let places: Vec<Vec<u32>> = parts.iter().map(|rows| rows.iter().map(|(at, _)| *at).collect()).collect();
                let shapes: Vec<_> = places.iter().map(|places| (Some(&**places), places.len())).collect();
                out.extend(weave(&shapes).into_iter().map(|(part, row)| Ok(parts[part as usize][row as usize].1)));
            }
            Merged::Extra(rows) => out.extend(rows.into_iter().map(|(_, row)| Ok(row))),
            Merged::Mark(mark) => out.push(Err(mark)),
        }
    }
}

proptest! {
    /// However fast the lanes are, whatever they filter, and wherever rows go.
    #[test]
    fn lanes_at_any_speed_give_the_order_of_one_copy(
        steps in steps(),
        lanes in 1..6_u16,
        affinity in prop_oneof![Just(Affinity::Loose), Just(Affinity::ByKey)],
        speeds in proptest::collection::vec(0..6_usize, 1..200),
    ) {
        let mut router = ConvoyRouter::new(lanes, affinity);
        let mut merge = ConvoyMerge::new(lanes.into());
        let mut queues: Vec<Vec<Lane>> = vec![Vec::new(); lanes.into()];
        let (mut number, mut marks, mut ticket, mut out) = (0, 0, 0, Vec::new());
        let mut speeds = speeds.into_iter().cycle();
        for step in &steps {
            let waiting: Vec<u64> = queues.iter().map(|queue| queue.len() as u64).collect();
            match step {
                Step::Batch(rows) => {
                    let mut parts = vec![Vec::new(); lanes.into()];
                    for (place, (class, results)) in rows.iter().enumerate() {
                        let lane = router.lane(KeyGroup(*class * 20));
                        parts[usize::from(lane)].extend((0..*results).map(|result| (place as u32, (number, result))));
                        number += 1;
                    }
                    for (queue, rows) in queues.iter_mut().zip(parts) {
                        queue.push(FromLane::Part { ticket, rows });
                    }
                    ticket += 1;
                    router.batch_done(&waiting);
                }
                Step::Mark | Step::Barrier { .. } => {
                    queues.iter_mut().for_each(|queue| queue.push(FromLane::Mark(marks)));
                    marks += 1;
                    router.epoch_done(&waiting);
                }
            }
            // Some lane works a while.
            let lane = speeds.next().unwrap_or(0) % usize::from(lanes);
            let done = speeds.next().unwrap_or(0).min(queues[lane].len());
            queues[lane].drain(..done).for_each(|sent| merge.push(lane, sent));
            take(&mut merge, &mut out);
            if let Step::Barrier { kill: true } = step {
                for (lane, queue) in queues.iter_mut().enumerate() {
                    queue.drain(..).for_each(|sent| merge.push(lane, sent));
                }
                take(&mut merge, &mut out);
                prop_assert!(merge.is_empty(), "nothing is under way when an epoch is cut");
                (router, merge) = (ConvoyRouter::new(lanes, affinity), ConvoyMerge::new(lanes.into()));
                ticket = 0;
            }
        }
        for (lane, queue) in queues.into_iter().enumerate() {
            queue.into_iter().for_each(|sent| merge.push(lane, sent));
        }
        take(&mut merge, &mut out);
        prop_assert_eq!(out, one_copy(&steps));
    }

    /// Of two rows with one key neither overtakes the other on the way to its lane.
    #[test]
    fn rows_of_a_group_share_a_lane_unless_they_may_go_anywhere(
        groups in proptest::collection::vec(0..KEY_GROUPS, 1..2_000),
        lanes in 2..9_u16,
    ) {
        let mut router = ConvoyRouter::new(lanes, Affinity::ByKey);
        let mut lane_of: Vec<u16> = (0..KEY_GROUPS).map(|group| share_of(KeyGroup(group), lanes)).collect();
        for (row, group) in groups.into_iter().enumerate() {
            prop_assert_eq!(router.lane(KeyGroup(group)), lane_of[usize::from(group)]);
            if row % 100 == 99 {
                if let Some(moved) = router.epoch_done(&[]) {
                    prop_assert_eq!(lane_of[usize::from(moved.group.0)], moved.from);
                    prop_assert_ne!(moved.from, moved.to);
                    lane_of[usize::from(moved.group.0)] = moved.to;
                }
                router.batch_done(&[]);
            }
        }
    }
}

fn worst(router: &mut ConvoyRouter, lanes: u16, rows: impl Iterator<Item = u16>) -> usize {
    let mut given = vec![0_usize; lanes.into()];
    rows.for_each(|group| given[usize::from(router.lane(KeyGroup(group)))] += 1);
    given.into_iter().max().unwrap_or(0)
}

#[test]
fn a_class_that_is_too_hot_for_one_lane_goes_to_all() {
    let mut router = ConvoyRouter::new(4, Affinity::Loose);
    for _ in 0..64 {
        worst(&mut router, 4, std::iter::repeat_n(7, 100));
        router.batch_done(&[100, 0, 0, 0]);
    }
    assert_eq!(worst(&mut router, 4, std::iter::repeat_n(7, 100)), 25);
    assert_eq!(router.splits(), 1, "what is spread is left alone");
}

#[test]
fn groups_of_a_hot_lane_go_to_others() {
    let hot = || (0..64_u16).chain(0..64);
    for affinity in [Affinity::Loose, Affinity::ByKey] {
        let mut router = ConvoyRouter::new(4, affinity);
        assert_eq!(worst(&mut router, 4, hot()), 128, "all of them are of lane 0");
        for _ in 0..4_000 {
            worst(&mut router, 4, hot());
            router.batch_done(&[]);
            router.epoch_done(&[]);
        }
        assert!(worst(&mut router, 4, hot()) <= 48, "{affinity:?}");
        let splits = router.splits();
        for _ in 0..100 {
            worst(&mut router, 4, hot());
            router.batch_done(&[]);
            router.epoch_done(&[]);
        }
        assert_eq!(router.splits(), splits, "{affinity:?}: lanes that are even stay as they are");
    }
}

#[test]
fn one_hot_key_with_state_stays_where_it_is() {
    let mut router = ConvoyRouter::new(4, Affinity::ByKey);
    for _ in 0..100 {
        worst(&mut router, 4, std::iter::repeat_n(7, 100));
        assert_eq!(router.epoch_done(&[100, 0, 0, 0]), None);
    }
    assert_eq!(router.lane_of(KeyGroup(7)), 0);
}

#[test]
fn rows_of_no_ticket_come_before_what_follows_them_lane_by_lane() {
    let mut merge: ConvoyMerge<&str, u8> = ConvoyMerge::new(2);
    merge.push(1, FromLane::Extra("b"));
    merge.push(1, FromLane::Mark(1));
    assert_eq!(merge.pop(), Ok(None), "lane 0 may have some, too");
    merge.push(0, FromLane::Extra("a"));
    assert_eq!(merge.pop(), Ok(Some(Merged::Extra("a"))), "before its mark, so that it has room for more");
    merge.push(0, FromLane::Mark(1));
    assert_eq!(merge.pop(), Ok(Some(Merged::Extra("b"))));
    assert_eq!(merge.pop(), Ok(Some(Merged::Mark(1))));
    assert_eq!(merge.pop(), Ok(None));
}

#[test]
fn rows_follow_those_before_them_in_their_lane() {
    let first: &[u32] = &[0, 3, 1];
    assert_eq!(weave(&[(Some(first), 3), (Some(&[2]), 1), (None, 1)]), [(0, 0), (1, 0), (0, 1), (0, 2), (2, 0)]);
}

#[test]
fn lanes_that_disagree_are_an_error() {
    let mut merge: ConvoyMerge<(), u8> = ConvoyMerge::new(2);
    merge.push(0, FromLane::Part { ticket: 4, rows: () });
    merge.push(1, FromLane::Part { ticket: 5, rows: () });
    assert!(matches!(merge.pop(), Err(OrderError::Lanes { lane: 1, .. })));
}
