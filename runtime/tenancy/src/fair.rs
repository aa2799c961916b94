//! Who may run a guest now: the half that decides.
//!
//! Workers are the threads that guests run on. A tenant's *share* is its part of them by weight, among the
//! tenants that are active: those that wanted to run in this window of time or the last. It saves a
//! little *credit* while it runs less than its share, and spends it.
//!
//! - A tenant over its ceiling waits.
//! - One that is active alone runs.
//! - One with credit runs, on as many workers as its share comes to, and on one more where it has saved
//!   much: it did not get its share a moment ago.
//! - One without runs on a worker that no tenant with credit wants. What those want is the most that they
//!   ran and waited with at once in the window: so a tenant that comes and goes finds its worker free,
//!   and need not wait for the end of somebody else's slice.
//!
//! Nobody waits while no other tenant wants the CPU. A tenant that always wants gets about its
//! share: how close, the tests say.

use std::collections::{BTreeMap, VecDeque};

/// How long a tenant counts as active: this, and up to as much again.
pub(crate) const WINDOW_NANOS: u64 = 50_000_000;
/// Credit that a tenant saves, and debt that it makes, for each core of its share.
const CREDIT_NANOS: i64 = 10_000_000;

/// The credit that a tenant saves at most, with a share of so many thousandths of a core.
fn most(share_millis: u64) -> i64 {
    CREDIT_NANOS * share_millis.clamp(1_000, 1_000_000) as i64 / 1_000
}

/// What a tenant may take of the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its weight against other tenants.
    pub weight: u32,
    /// Thousandths of a core that it gets at most, whether others want it or not.
    pub ceiling_millicores: Option<u32>,
}

/// A tenant, among those of a [`Fair`].
pub(crate) type Id = u64;
/// A call that waits.
pub(crate) type Ticket = u64;

#[derive(Debug)]
struct Tenant {
    share: Share,
    /// Nanoseconds of CPU that it may run ahead of others.
    credit: i64,
    /// Nanoseconds of CPU below the ceiling.
    room: i64,
    refilled: u64,
    running: u32,
    waiting: u32,
    /// Calls between two slices: a scheduler of tasks has them, and they want to go on.
    between: u32,
    /// The most that ran and wanted to at once, in the window before and in this one.
    peaks: [u32; 2],
}

impl Tenant {
    fn calls(&self) -> u32 {
        self.running + self.waiting + self.between
    }

    fn wanted(&self) -> u32 {
        self.peaks[0].max(self.peaks[1]).saturating_sub(self.running)
    }

    fn is_active(&self) -> bool {
        self.peaks != [0, 0]
    }
}

/// Shares workers among tenants.
#[derive(Debug)]
pub(crate) struct Fair {
    workers: u32,
    tenants: BTreeMap<Id, Tenant>,
    ids: Id,
    /// Those that are active, and the sum of their weights.
    active: Vec<Id>,
    weights: u64,
    window_ends: u64,
    running: u32,
    /// Calls that wait, in the order they came.
    waiting: VecDeque<(Ticket, Id)>,
    /// How many tenants they are of.
    tenants_waiting: usize,
    tickets: Ticket,
}

/// Whether a call may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Go,
    Wait(Ticket),
}

impl Fair {
    pub(crate) fn new(workers: u32) -> Self {
        Self {
            workers: workers.max(1),
            tenants: BTreeMap::new(),
            ids: 0,
            active: Vec::new(),
            weights: 0,
            window_ends: 0,
            running: 0,
            waiting: VecDeque::new(),
            tenants_waiting: 0,
            tickets: 0,
        }
    }

    pub(crate) fn join(&mut self, share: Share, now: u64) -> Id {
        self.ids += 1;
        let tenant =
            Tenant { share, credit: 0, room: 0, refilled: now, running: 0, waiting: 0, between: 0, peaks: [0; 2] };
        self.tenants.insert(self.ids, tenant);
        self.ids
    }

    pub(crate) fn leave(&mut self, id: Id) {
        if let Some(tenant) = self.tenants.remove(&id) {
            self.running -= tenant.running;
            self.tenants_waiting -= usize::from(tenant.waiting > 0);
        }
        self.waiting.retain(|(_, waits)| *waits != id);
        self.count_active();
    }

    pub(crate) fn set(&mut self, id: Id, share: Share) {
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.share = share;
        }
        self.count_active();
    }

    /// Whether somebody has to be asked at all.
    pub(crate) fn is_needed(&self) -> bool {
        self.tenants.len() > 1 || self.tenants.values().any(|tenant| tenant.share.ceiling_millicores.is_some())
    }

    /// A call of a tenant wants to run: a new one, or one that has [paused](Fair::pause).
    pub(crate) fn ask(&mut self, id: Id, goes_on: bool, now: u64) -> Decision {
        self.turn_window(now);
        let Some(tenant) = self.tenants.get_mut(&id) else { return Decision::Go };
        let was_active = tenant.is_active();
        tenant.between -= u32::from(goes_on);
        tenant.peaks[1] = tenant.peaks[1].max(tenant.calls() + 1);
        let first = tenant.waiting == 0;
        if !was_active {
            self.weights += u64::from(tenant.share.weight.max(1));
            self.active.push(id);
        }
        if first && self.may_run(id, now) {
            self.run(id);
            return Decision::Go;
        }
        self.tickets += 1;
        self.waiting.push_back((self.tickets, id));
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.waiting += 1;
        }
        self.tenants_waiting += usize::from(first);
        Decision::Wait(self.tickets)
    }

    fn waits_less(&mut self, id: Id) {
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.waiting -= 1;
            self.tenants_waiting -= usize::from(tenant.waiting == 0);
        }
    }

    /// Whether a call is the first of its tenant's that wait.
    pub(crate) fn is_first(&self, ticket: Ticket, id: Id) -> bool {
        self.waiting.iter().find(|(_, waits)| *waits == id).is_some_and(|(first, _)| *first == ticket)
    }

    /// A call that ran has used so much, and runs no more.
    pub(crate) fn end(&mut self, id: Id, cpu_nanos: u64) {
        let Some(tenant) = self.tenants.get_mut(&id) else { return };
        let used = i64::try_from(cpu_nanos).unwrap_or(i64::MAX);
        tenant.running -= 1;
        self.running -= 1;
        tenant.room = tenant.room.saturating_sub(used);
        tenant.credit = tenant.credit.saturating_sub(used);
    }

    /// A call that ran has used so much, and will ask to go on, or [not](Fair::forget).
    pub(crate) fn pause(&mut self, id: Id, cpu_nanos: u64) {
        self.end(id, cpu_nanos);
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.between += 1;
        }
    }

    /// A call that has paused does not go on.
    pub(crate) fn forget(&mut self, id: Id) {
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.between -= 1;
        }
    }

    /// Which of those that wait go on now: they run from here on.
    pub(crate) fn admit(&mut self, now: u64) -> Vec<Ticket> {
        self.turn_window(now);
        let (mut admitted, mut refused, mut place) = (Vec::new(), Vec::new(), 0);
        while let Some(&(ticket, id)) = self.waiting.get(place)
            && refused.len() < self.tenants_waiting
        {
            if refused.contains(&id) || !self.may_run(id, now) {
                if !refused.contains(&id) {
                    refused.push(id);
                }
                place += 1;
                continue;
            }
            self.waiting.remove(place);
            self.waits_less(id);
            self.run(id);
            admitted.push(ticket);
        }
        admitted
    }

    /// Whether anybody waits.
    pub(crate) fn somebody_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A call waits no more. `false` where it was admitted: it runs, and has to end.
    pub(crate) fn give_up(&mut self, ticket: Ticket) -> bool {
        let Some(place) = self.waiting.iter().position(|(waits, _)| *waits == ticket) else { return false };
        if let Some((_, id)) = self.waiting.remove(place) {
            self.waits_less(id);
        }
        true
    }

    fn run(&mut self, id: Id) {
        if let Some(tenant) = self.tenants.get_mut(&id) {
            tenant.running += 1;
            self.running += 1;
        }
    }

    /// The rule of this module.
    fn may_run(&mut self, id: Id, now: u64) -> bool {
        let share_millis = self.refill(id, now);
        let Some(tenant) = self.tenants.get(&id) else { return true };
        if tenant.share.ceiling_millicores.is_some() && tenant.room <= 0 {
            return false;
        }
        if self.active.len() < 2 {
            return true;
        }
        let behind = tenant.credit > most(share_millis) / 2;
        if tenant.credit > 0 && u64::from(tenant.running) < share_millis.div_ceil(1_000) + u64::from(behind) {
            return true;
        }
        let mut taken = u64::from(self.running);
        for place in 0..self.active.len() {
            let other = self.active[place];
            if other == id {
                continue;
            }
            self.refill(other, now);
            let other = &self.tenants[&other];
            if other.credit > 0 {
                taken += u64::from(other.wanted());
            }
        }
        taken < u64::from(self.workers)
    }

    /// Gives a tenant the credit of the time since it was last looked at. Returns its share, in
    /// thousandths of a core.
    fn refill(&mut self, id: Id, now: u64) -> u64 {
        let (workers, weights) = (u64::from(self.workers), self.weights.max(1));
        let Some(tenant) = self.tenants.get_mut(&id) else { return 0 };
        let share = (workers * 1_000 * u64::from(tenant.share.weight.max(1)) / weights).max(1);
        // More than a window fills every bucket.
        let passed = now.saturating_sub(tenant.refilled).min(WINDOW_NANOS * 1_000) as i64;
        tenant.refilled = tenant.refilled.max(now);
        let most = most(share);
        tenant.credit = tenant.credit.max(-most).saturating_add(passed * share as i64 / 1_000).min(most);
        if let Some(ceiling) = tenant.share.ceiling_millicores {
            // A debt under the ceiling is paid in full.
            let (millis, most) = (i64::from(ceiling), CREDIT_NANOS * i64::from(ceiling.max(100)) / 1_000);
            tenant.room = tenant.room.saturating_add(passed * millis / 1_000).min(most);
        }
        share
    }

    fn turn_window(&mut self, now: u64) {
        if now < self.window_ends {
            return;
        }
        let quiet = now >= self.window_ends + WINDOW_NANOS;
        self.window_ends = now + WINDOW_NANOS;
        for id in &self.active {
            if let Some(tenant) = self.tenants.get_mut(id) {
                tenant.peaks = [if quiet { 0 } else { tenant.peaks[1] }, tenant.calls()];
            }
        }
        self.count_active();
    }

    fn count_active(&mut self) {
        let Self { tenants, active, .. } = self;
        active.retain(|id| tenants.get(id).is_some_and(Tenant::is_active));
        self.weights = active.iter().map(|id| u64::from(tenants[id].share.weight.max(1))).sum();
    }
}

#[cfg(test)]
mod tests;
