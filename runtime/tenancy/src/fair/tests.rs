//! Random tenants on simulated workers, against what the rule promises.

use proptest::prelude::*;

use super::*;

/// A tenth of a slice that runs to its tick.
const STEP: u64 = 100_000;
const STEPS: u64 = 50_000;
/// Steps of a slice that runs to its tick.
const WHOLE: u64 = 10;

/// What a tenant wants: so many calls at once, each for ever, or for `work` steps of every `period`.
#[derive(Debug, Clone, Copy)]
struct Wants {
    weight: u32,
    calls: usize,
    pauses: Option<(u64, u64)>,
    ceiling: Option<u32>,
    /// Steps of its slices: what a tick cuts, or what its host does without a pause.
    slice: u64,
}

impl Wants {
    fn hungry(weight: u32, calls: usize) -> Self {
        Self { weight, calls, pauses: None, ceiling: None, slice: WHOLE }
    }
}

#[derive(Debug)]
struct Call {
    tenant: usize,
    left: u64,
}

/// What a simulation saw: steps that each tenant ran, and steps between its wish and its turn.
struct Seen {
    ran: Vec<u64>,
    waited: Vec<Vec<u64>>,
}

/// Workers that run what was admitted, a slice each. Who is cut off by a tick asks again at once, as a
/// task does.
fn simulate(workers: u32, wants: &[Wants]) -> Seen {
    let mut fair = Fair::new(workers);
    let join = |wants: &Wants| Share { weight: wants.weight, ceiling_millicores: wants.ceiling };
    let ids: Vec<Id> = wants.iter().map(|wants| fair.join(join(wants), 0)).collect();
    let mut calls: Vec<Call> = Vec::new();
    for (tenant, wants) in wants.iter().enumerate() {
        let left = wants.pauses.map_or(u64::MAX, |(work, _)| work);
        calls.extend((0..wants.calls).map(|_| Call { tenant, left }));
    }
    let mut parked: BTreeMap<Ticket, (usize, u64)> = BTreeMap::new();
    let mut sleeping: Vec<(u64, usize)> = (0..calls.len()).map(|call| (0, call)).collect();
    // When each slice that runs ends, what it runs, and how long.
    let mut on_workers: Vec<(u64, usize, u64)> = Vec::new();
    let mut seen = Seen { ran: vec![0; wants.len()], waited: vec![Vec::new(); wants.len()] };
    for step in 0..STEPS {
        let (ended, still): (Vec<_>, Vec<_>) = on_workers.into_iter().partition(|slice| slice.0 <= step);
        on_workers = still;
        for (_, call, ran) in ended {
            let tenant = calls[call].tenant;
            fair.end(ids[tenant], ran * STEP);
            seen.ran[tenant] += ran;
            calls[call].left -= ran;
            match wants[tenant].pauses {
                Some((work, period)) if calls[call].left == 0 => {
                    calls[call].left = work;
                    sleeping.push((step + period - work, call));
                }
                _ => sleeping.push((step, call)),
            }
        }
        let (woken, still): (Vec<_>, Vec<_>) = sleeping.into_iter().partition(|(wakes, _)| *wakes <= step);
        sleeping = still;
        for (_, call) in woken {
            parked.insert(fair.ask(ids[calls[call].tenant], step * STEP), (call, step));
        }
        while let Some(ticket) = fair.admit(step * STEP) {
            let (call, since) = parked.remove(&ticket).expect("it waits");
            let tenant = calls[call].tenant;
            seen.waited[tenant].push(step - since);
            let runs = calls[call].left.min(wants[tenant].slice);
            on_workers.push((step + runs, call, runs));
        }
        assert!(on_workers.len() <= workers as usize, "more run than there are workers");
        assert_eq!(fair.somebody_waits(), !parked.is_empty());
    }
    seen
}

fn hungry() -> impl Strategy<Value = Wants> {
    (1_u32..5, 1_usize..5, 1_u64..=2 * WHOLE)
        .prop_map(|(weight, calls, slice)| Wants { slice, ..Wants::hungry(weight * 50, calls) })
}

/// Cores that each tenant has a right to, by the naive model: workers are dealt by weight, and what a
/// tenant has too few calls for is dealt among the others.
fn rights(workers: u32, wants: &[Wants]) -> Vec<f64> {
    let mut rights = vec![None; wants.len()];
    let mut cores = f64::from(workers);
    loop {
        let open = |rights: &[Option<f64>]| (0..wants.len()).filter(|it| rights[*it].is_none()).collect::<Vec<_>>();
        let others = open(&rights);
        let weights: f64 = others.iter().map(|it| f64::from(wants[*it].weight)).sum();
        let part = |it: usize| cores * f64::from(wants[it].weight) / weights;
        let Some(full) = others.iter().copied().find(|it| part(*it) >= wants[*it].calls as f64) else {
            return (0..wants.len()).map(|it| rights[it].unwrap_or_else(|| part(it))).collect();
        };
        rights[full] = Some(wants[full].calls as f64);
        cores -= wants[full].calls as f64;
        if others.len() == 1 {
            return rights.into_iter().map(|right| right.unwrap_or(0.0)).collect();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn who_always_wants_gets_its_share(
        workers in 1_u32..5,
        wants in prop::collection::vec(hungry(), 1..5),
    ) {
        let seen = simulate(workers, &wants);
        for (tenant, right) in rights(workers, &wants).into_iter().enumerate() {
            let ran = seen.ran[tenant] as f64 / STEPS as f64;
            prop_assert!((ran - right).abs() <= right * 0.05, "{tenant} of {wants:?} on {workers}: {ran} of {right}");
        }
    }

    #[test]
    fn who_wants_little_goes_first(
        workers in 1_u32..5,
        work in 1_u64..WHOLE,
        others in prop::collection::vec((1_usize..5).prop_map(|calls| Wants::hungry(100, calls)), 1..4),
    ) {
        // A tenth of a worker at most, of a quarter of all that it has a right to.
        let little = Wants { pauses: Some((work, 10 * WHOLE)), ..Wants::hungry(100, 1) };
        let wants: Vec<Wants> = others.into_iter().chain([little]).collect();
        let seen = simulate(workers, &wants);
        let (last, begun) = (wants.len() - 1, 10);
        let ran = seen.ran[last] as f64 / STEPS as f64;
        let wanted = work as f64 / (10 * WHOLE) as f64;
        prop_assert!(ran >= wanted * 0.9, "{ran} of {wanted}: {wants:?}");
        // It waits for the end of a slice at most, and for none where a worker can be kept free.
        let most = if workers > 1 { 0 } else { WHOLE };
        let waited = &seen.waited[last][begun..];
        prop_assert!(waited.iter().all(|waited| *waited <= most), "{waited:?} of {most}: {wants:?} on {workers}");
    }

    #[test]
    fn a_ceiling_holds(workers in 1_u32..5, ceiling in 100_u32..2_000, others in 0_usize..2) {
        let capped = Wants { ceiling: Some(ceiling), ..Wants::hungry(100, 4) };
        let wants: Vec<Wants> = [vec![capped], vec![Wants::hungry(100, 1); others]].concat();
        let ran = simulate(workers, &wants).ran[0] as f64 / STEPS as f64;
        let most = f64::from(ceiling) / 1_000.0;
        prop_assert!(ran <= most * 1.01 + 0.01, "{ran} of {most}");
        let right = if others == 0 { f64::from(workers) } else { f64::from(workers) / 2.0 };
        prop_assert!(ran >= most.min(right) * 0.95, "{ran} of {most}");
    }
}

fn share(weight: u32) -> Share {
    Share { weight, ceiling_millicores: None }
}

const SLICE: u64 = SLICE_NANOS;

#[test]
fn nobody_waits_while_no_other_wants_and_rest_is_not_saved_up() {
    let mut fair = Fair::new(1);
    let (a, b) = (fair.join(share(1), 0), fair.join(share(1), 0));
    for slice in 0..1_000 {
        let ticket = fair.ask(a, slice * SLICE);
        assert_eq!(fair.admit(slice * SLICE), Some(ticket));
        fair.end(a, SLICE);
    }
    // The other one comes, and wants as much: it is ahead for a moment.
    let now = 1_000 * SLICE;
    let mut order = Vec::new();
    let mut waits = [fair.ask(a, now), fair.ask(b, now)];
    for _ in 0..40 {
        let ticket = fair.admit(now).expect("the worker is free");
        let place = waits.iter().position(|waits| *waits == ticket).expect("it waits");
        order.push(place);
        fair.end([a, b][place], SLICE);
        waits[place] = fair.ask([a, b][place], now);
    }
    let of_b = order.iter().filter(|place| **place == 1).count();
    assert!((24..=26).contains(&of_b), "10 ahead, and half of the others: {of_b} of 40");
}

#[test]
fn a_worker_is_kept_free_for_a_moment_only() {
    let mut fair = Fair::new(2);
    let (hungry, little) = (fair.join(share(1), 0), fair.join(share(1), 0));
    let ticket = fair.ask(little, 0);
    assert_eq!(fair.admit(0), Some(ticket));
    fair.end(little, SLICE / 10);
    let tickets = [fair.ask(hungry, SLICE), fair.ask(hungry, SLICE)];
    assert_eq!(fair.admit(SLICE), Some(tickets[0]));
    assert_eq!(fair.admit(SLICE), None, "the other one was here a moment ago");
    assert_eq!(fair.admit(3 * WINDOW_NANOS), Some(tickets[1]));
}

#[test]
fn who_gives_up_or_leaves_takes_no_place() {
    let mut fair = Fair::new(1);
    let (a, b) = (fair.join(share(1), 0), fair.join(share(1), 0));
    let runs = fair.ask(a, 0);
    assert_eq!(fair.admit(0), Some(runs));
    let waits = fair.ask(b, 0);
    assert_eq!(fair.admit(0), None, "the worker is taken");
    assert!(fair.give_up(waits, b) && !fair.give_up(runs, a));
    let waits = fair.ask(b, 0);
    fair.leave(b);
    assert!(!fair.somebody_waits() && !fair.is_needed());
    assert!(fair.give_up(waits, b));
    fair.end(a, SLICE);
    let next = fair.ask(a, SLICE);
    assert_eq!(fair.admit(SLICE), Some(next));
}
