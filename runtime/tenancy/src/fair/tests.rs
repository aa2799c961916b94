//! Random tenants on simulated workers, against what the rule promises.

use proptest::prelude::*;

use super::*;

const SLICE: u64 = 1_000_000;
const SLICES: u64 = 10_000;

/// What a tenant wants: so many calls at once, each for ever, or for `work` slices of every `period`.
#[derive(Debug, Clone, Copy)]
struct Wants {
    weight: u32,
    calls: u32,
    pauses: Option<(u64, u64)>,
    ceiling: Option<u32>,
}

struct Call {
    tenant: usize,
    left: u64,
    wakes: u64,
    admitted: bool,
    /// In the middle of a call.
    goes_on: bool,
}

/// What a simulation saw: slices that each tenant ran, and slices that its calls waited, woken ones.
struct Seen {
    ran: Vec<u64>,
    waited: Vec<u64>,
}

/// Workers that take calls in turn, as a scheduler of tasks does, a slice each.
fn simulate(workers: u32, wants: &[Wants]) -> Seen {
    let mut fair = Fair::new(workers);
    let join = |wants: &Wants| Share { weight: wants.weight, ceiling_millicores: wants.ceiling };
    let ids: Vec<Id> = wants.iter().map(|wants| fair.join(join(wants), 0)).collect();
    let mut calls: Vec<Call> = Vec::new();
    for (tenant, wants) in wants.iter().enumerate() {
        let call = || Call {
            tenant,
            left: wants.pauses.map_or(u64::MAX, |(work, _)| work),
            wakes: 0,
            admitted: false,
            goes_on: false,
        };
        calls.extend((0..wants.calls).map(|_| call()));
    }
    let mut ready: VecDeque<usize> = (0..calls.len()).collect();
    let mut parked: BTreeMap<Ticket, usize> = BTreeMap::new();
    let mut sleeping: Vec<usize> = Vec::new();
    let mut seen = Seen { ran: vec![0; wants.len()], waited: vec![0; wants.len()] };
    for slice in 0..SLICES {
        let now = slice * SLICE;
        let (woken, still): (Vec<_>, Vec<_>) = sleeping.into_iter().partition(|call| calls[*call].wakes <= slice);
        sleeping = still;
        ready.extend(woken);
        for ticket in fair.admit(now).into_iter().rev() {
            let call = parked.remove(&ticket).expect("it waited");
            calls[call].admitted = true;
            ready.push_front(call);
        }
        let mut on_workers = Vec::new();
        while on_workers.len() < workers as usize
            && let Some(call) = ready.pop_front()
        {
            let id = ids[calls[call].tenant];
            match std::mem::take(&mut calls[call].admitted) {
                true => on_workers.push(call),
                false => match fair.ask(id, std::mem::take(&mut calls[call].goes_on), now) {
                    Decision::Go => on_workers.push(call),
                    Decision::Wait(ticket) => drop(parked.insert(ticket, call)),
                },
            }
        }
        for call in ready.iter().chain(parked.values()) {
            seen.waited[calls[*call].tenant] += 1;
        }
        for call in on_workers {
            let tenant = calls[call].tenant;
            seen.ran[tenant] += 1;
            calls[call].left -= 1;
            match wants[tenant].pauses {
                Some((work, period)) if calls[call].left == 0 => {
                    fair.end(ids[tenant], SLICE);
                    calls[call].left = work;
                    calls[call].wakes = slice + 1 + period - work;
                    sleeping.push(call);
                }
                _ => {
                    fair.pause(ids[tenant], SLICE);
                    calls[call].goes_on = true;
                    ready.push_back(call);
                }
            }
        }
    }
    seen
}

fn hungry() -> impl Strategy<Value = Wants> {
    (1_u32..5, 1_u32..5).prop_map(|(weight, calls)| Wants { weight: weight * 50, calls, pauses: None, ceiling: None })
}

/// Cores that a tenant has a right to: its part by weight, as far as its calls can use it. One call alone
/// cannot use a core whole: it waits for slices that are under way, so bounds here are wide.
fn right(workers: u32, wants: &[Wants], tenant: usize) -> f64 {
    let weights: u32 = wants.iter().map(|wants| wants.weight).sum();
    let share = f64::from(workers) * f64::from(wants[tenant].weight) / f64::from(weights);
    share.min(f64::from(wants[tenant].calls) * 0.7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn who_always_wants_gets_its_share_at_least(
        workers in 1_u32..5,
        wants in prop::collection::vec(hungry(), 1..5),
    ) {
        let seen = simulate(workers, &wants);
        for (tenant, ran) in seen.ran.iter().enumerate() {
            let (ran, right) = (*ran as f64 / SLICES as f64, right(workers, &wants, tenant));
            prop_assert!(ran >= right * 0.6, "{tenant} of {wants:?} on {workers}: {ran} of {right}; {:?}", seen.ran);
        }
        // And no worker rests while somebody wants it.
        let most = wants.iter().map(|wants| wants.calls).sum::<u32>().min(workers);
        let all = seen.ran.iter().sum::<u64>() as f64 / SLICES as f64;
        prop_assert!(all >= f64::from(most) * 0.8, "{all} of {most}: {wants:?}");
    }

    #[test]
    fn who_wants_little_hardly_waits(
        workers in 2_u32..5,
        work in 1_u64..4,
        others in prop::collection::vec(hungry(), 1..4),
    ) {
        let little = Wants { weight: 200, calls: 1, pauses: Some((work, 20)), ceiling: None };
        let wants: Vec<Wants> = others.into_iter().chain([little]).collect();
        let seen = simulate(workers, &wants);
        let last = wants.len() - 1;
        let wanted = SLICES as f64 * work as f64 / 20.0;
        prop_assert!(seen.ran[last] as f64 >= wanted * 0.7, "{} of {wanted}: {wants:?}", seen.ran[last]);
        // With one other tenant a worker is free for it whenever it comes.
        let most = if wants.len() == 2 { SLICES / 100 } else { SLICES / 2 };
        prop_assert!(seen.waited[last] <= most, "waited {} slices: {wants:?}", seen.waited[last]);
    }

    #[test]
    fn a_ceiling_holds(workers in 1_u32..5, ceiling in 100_u32..2_000, others in 0_usize..2) {
        let capped = Wants { weight: 100, calls: 4, pauses: None, ceiling: Some(ceiling) };
        let other = Wants { weight: 100, calls: 1, pauses: None, ceiling: None };
        let wants: Vec<Wants> = std::iter::once(capped).chain(std::iter::repeat_n(other, others)).collect();
        let ran = simulate(workers, &wants).ran[0] as f64 / SLICES as f64;
        let most = f64::from(ceiling) / 1_000.0;
        prop_assert!(ran <= most * 1.05 + 0.01, "{ran} of {most}");
        if others == 0 {
            prop_assert!(ran >= most.min(f64::from(workers)) * 0.7, "{ran} of {most}");
        }
    }
}

fn share(weight: u32) -> Share {
    Share { weight, ceiling_millicores: None }
}

#[test]
fn nobody_waits_while_no_other_wants() {
    let mut fair = Fair::new(1);
    let (a, b) = (fair.join(share(1), 0), fair.join(share(1_000), 0));
    for slice in 0..1_000 {
        assert_eq!(fair.ask(a, false, slice * SLICE), Decision::Go);
        fair.end(a, SLICE);
    }
    // The other one comes: what was run before is no debt beyond the credit of a moment.
    assert_eq!(fair.ask(b, false, 1_000 * SLICE), Decision::Go);
    assert!(matches!(fair.ask(a, false, 1_000 * SLICE), Decision::Wait(_)));
    fair.end(b, SLICE);
    assert_eq!(fair.admit(1_001 * SLICE), [], "the other has been there a moment ago");
    assert_eq!(fair.admit(1_001 * SLICE + 3 * WINDOW_NANOS).len(), 1);
}

#[test]
fn who_gives_up_or_leaves_takes_no_place() {
    let mut fair = Fair::new(1);
    let (a, b) = (fair.join(share(1), 0), fair.join(share(1), 0));
    assert_eq!(fair.ask(a, false, 0), Decision::Go);
    let Decision::Wait(first) = fair.ask(b, false, 0) else { panic!("the worker is taken") };
    assert!(fair.give_up(first));
    assert!(!fair.give_up(first));
    let Decision::Wait(_) = fair.ask(b, false, 0) else { panic!("the worker is taken") };
    fair.leave(b);
    assert!(!fair.somebody_waits() && !fair.is_needed());
    fair.end(a, SLICE);
    assert_eq!(fair.ask(a, false, SLICE), Decision::Go);
}
