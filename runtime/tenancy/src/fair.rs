//! Who may run now: the half that decides.
//!
//! Workers are the threads that tasks run on. Tenants have *virtual time*: the CPU that they used, by
//! their weight. Of those that wait, the one with the least goes first, so tenants that always want to run
//! get the CPU by weight (start-time fair queueing, as in schedulers of operating systems).
//!
//! - A tenant that comes back is put behind the others by what it used before, but no more than a little
//!   ahead of them: rest is not saved up. One that uses less than its share comes first whenever it comes.
//! - What runs counts as a slice until its end is known, so a tenant does not take all workers at once
//!   while others wait.
//! - A tenant that was here a moment ago, and would go first if it came now, finds a worker free: others
//!   leave as many as it ran and waited with at once, up to its share of the workers, and always have one
//!   themselves. So it need not wait for the end of somebody else's slice.
//! - A tenant over its ceiling waits.

use std::collections::{BTreeMap, VecDeque};

/// How long a tenant counts as active: this, and up to as much again.
pub(crate) const WINDOW_NANOS: u64 = 50_000_000;
/// What a call is taken to use until it has ended.
const SLICE_NANOS: u64 = 1_000_000;
/// CPU that a tenant which comes back is ahead of others at most.
const AHEAD_NANOS: u64 = 10_000_000;
/// CPU that one which has too few tasks to use its share falls behind the others, at the least weight.
const BEHIND_NANOS: u64 = 200_000_000;
/// CPU below a ceiling that is saved, for each core of it.
const ROOM_NANOS: i64 = 10_000_000;

/// CPU by weight: nanoseconds in units of this.
const SCALE: u128 = 1 << 20;

/// What a tenant may take of the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its weight against other tenants.
    pub weight: u32,
    /// Thousandths of a core that it gets at most, whether others want it or not.
    pub ceiling_millicores: Option<u32>,
}

impl Share {
    fn weight(self) -> u32 {
        self.weight.max(1)
    }

    /// The virtual time of so much CPU.
    fn virtual_time(self, cpu_nanos: u64) -> u128 {
        u128::from(cpu_nanos) * SCALE / u128::from(self.weight())
    }
}

/// A tenant, among those of a [`Fair`].
pub(crate) type Id = u64;
/// A slice that waits.
pub(crate) type Ticket = u64;

#[derive(Debug)]
struct Tenant {
    share: Share,
    virtual_time: u128,
    /// Nanoseconds of CPU below the ceiling.
    room: i64,
    refilled: u64,
    running: u32,
    /// Those that wait, in the order they came.
    waiting: VecDeque<Ticket>,
    /// The most that ran and waited at once, in the window before and in this one.
    peaks: [u32; 2],
}

impl Tenant {
    fn calls(&self) -> u32 {
        self.running + u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    /// Virtual time with what runs.
    fn rank(&self) -> u128 {
        self.virtual_time + self.share.virtual_time(SLICE_NANOS * u64::from(self.running))
    }

    /// Gives it the room of the time since it was last looked at. Returns whether it may run.
    fn is_below_ceiling(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.refilled).min(WINDOW_NANOS * 1_000) as i64;
        self.refilled = self.refilled.max(now);
        let Some(ceiling) = self.share.ceiling_millicores else { return true };
        // A debt under the ceiling is paid in full.
        let most = ROOM_NANOS * i64::from(ceiling.max(100)) / 1_000;
        self.room = self.room.saturating_add(passed * i64::from(ceiling) / 1_000).min(most);
        self.room > 0
    }
}

/// Shares workers among tenants.
#[derive(Debug)]
pub(crate) struct Fair {
    workers: u32,
    tenants: BTreeMap<Id, Tenant>,
    ids: Id,
    /// Those that wanted to run in this window or the last, and the sum of their weights.
    active: Vec<Id>,
    weights: u64,
    window_ends: u64,
    /// The least virtual time of those that run and wait. Never goes back.
    virtual_now: u128,
    running: u32,
    waiting: usize,
    tickets: Ticket,
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
            virtual_now: 0,
            running: 0,
            waiting: 0,
            tickets: 0,
        }
    }

    pub(crate) fn join(&mut self, share: Share, now: u64) -> Id {
        self.ids += 1;
        let tenant = Tenant {
            share,
            virtual_time: self.virtual_now,
            room: 0,
            refilled: now,
            running: 0,
            waiting: VecDeque::new(),
            peaks: [0; 2],
        };
        self.tenants.insert(self.ids, tenant);
        self.ids
    }

    pub(crate) fn leave(&mut self, id: Id) {
        if let Some(tenant) = self.tenants.remove(&id) {
            self.running -= tenant.running;
            self.waiting -= tenant.waiting.len();
        }
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

    /// A slice of a tenant wants to run: [`Fair::admit`] says when.
    pub(crate) fn ask(&mut self, id: Id, now: u64) -> Ticket {
        self.turn_window(now);
        self.tickets += 1;
        let Some(tenant) = self.tenants.get_mut(&id) else { return self.tickets };
        if tenant.calls() == 0 {
            let ahead = tenant.share.virtual_time(AHEAD_NANOS);
            tenant.virtual_time = tenant.virtual_time.max(self.virtual_now.saturating_sub(ahead));
        }
        tenant.waiting.push_back(self.tickets);
        self.waiting += 1;
        let is_new = tenant.peaks == [0, 0];
        tenant.peaks[1] = tenant.peaks[1].max(tenant.calls());
        if is_new {
            self.weights += u64::from(tenant.share.weight());
            self.active.push(id);
        }
        self.tickets
    }

    /// Whether a slice is the first of its tenant's that wait.
    pub(crate) fn is_first(&self, ticket: Ticket, id: Id) -> bool {
        self.tenants.get(&id).is_some_and(|tenant| tenant.waiting.front() == Some(&ticket))
    }

    /// A slice that ran has used so much, and runs no more.
    pub(crate) fn end(&mut self, id: Id, cpu_nanos: u64) {
        let Some(tenant) = self.tenants.get_mut(&id) else { return };
        tenant.running -= 1;
        self.running -= 1;
        tenant.virtual_time += tenant.share.virtual_time(cpu_nanos);
        tenant.room = tenant.room.saturating_sub(i64::try_from(cpu_nanos).unwrap_or(i64::MAX));
    }

    /// A slice waits no more. `false` where it was admitted: it runs, and has to end.
    pub(crate) fn give_up(&mut self, ticket: Ticket, id: Id) -> bool {
        let Some(tenant) = self.tenants.get_mut(&id) else { return true };
        let Some(place) = tenant.waiting.iter().position(|waits| *waits == ticket) else { return false };
        tenant.waiting.remove(place);
        self.waiting -= 1;
        true
    }

    /// The next of those that wait to go on, if any may: it runs from here on. To be asked until there is
    /// none.
    pub(crate) fn admit(&mut self, now: u64) -> Option<Ticket> {
        if self.waiting == 0 || self.running >= self.workers {
            return None;
        }
        self.turn_window(now);
        self.catch_up();
        let (rank, id) = self.first(now)?;
        if self.running + self.kept_free(rank, id) >= self.workers {
            return None;
        }
        let tenant = self.tenants.get_mut(&id)?;
        let ticket = tenant.waiting.pop_front()?;
        tenant.running += 1;
        self.running += 1;
        self.waiting -= 1;
        Some(ticket)
    }

    /// Whether anybody waits.
    #[cfg(test)]
    pub(crate) fn somebody_waits(&self) -> bool {
        self.waiting > 0
    }

    /// Of the tenants that wait below their ceilings, the one with the least virtual time.
    fn first(&mut self, now: u64) -> Option<(u128, Id)> {
        let mut first = None;
        for id in &self.active {
            if let Some(tenant) = self.tenants.get_mut(id)
                && !tenant.waiting.is_empty()
                && tenant.is_below_ceiling(now)
            {
                let this = (tenant.rank(), *id);
                first = Some(first.map_or(this, |other: (u128, Id)| other.min(this)));
            }
        }
        first
    }

    /// Workers that stay free for those that are not here, and would go first if they came.
    fn kept_free(&self, rank: u128, id: Id) -> u32 {
        if self.active.len() < 2 {
            return 0;
        }
        let mut kept = 0;
        for other in self.active.iter().filter(|other| **other != id) {
            let Some(tenant) = self.tenants.get(other) else { continue };
            let comes_first =
                tenant.rank().max(self.virtual_now.saturating_sub(tenant.share.virtual_time(AHEAD_NANOS)));
            if comes_first < rank {
                let weight = u64::from(tenant.share.weight());
                let share = (u64::from(self.workers) * weight).div_ceil(self.weights.max(1)) as u32;
                kept += tenant.peaks[0].max(tenant.peaks[1]).min(share).saturating_sub(tenant.calls());
            }
        }
        kept.min(self.workers - 1)
    }

    /// Moves the virtual time on. A tenant that has too few tasks to use its share falls behind without
    /// end: it is taken along, or who comes anew would be put beside it, and ahead of all others for long.
    fn catch_up(&mut self) {
        let busy = || self.active.iter().filter_map(|id| self.tenants.get(id)).filter(|tenant| tenant.calls() > 0);
        let Some(last) = busy().map(|tenant| tenant.virtual_time).max() else { return };
        let least = busy().map(|tenant| tenant.share.weight()).min().unwrap_or(1);
        let behind = Share { weight: least, ceiling_millicores: None }.virtual_time(BEHIND_NANOS);
        let bound = last.saturating_sub(behind);
        let mut now = last;
        for id in &self.active {
            if let Some(tenant) = self.tenants.get_mut(id)
                && tenant.calls() > 0
            {
                tenant.virtual_time = tenant.virtual_time.max(bound);
                now = now.min(tenant.virtual_time);
            }
        }
        self.virtual_now = self.virtual_now.max(now);
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
        active.retain(|id| tenants.get(id).is_some_and(|tenant| tenant.peaks != [0, 0]));
        self.weights = active.iter().map(|id| u64::from(tenants[id].share.weight())).sum();
    }
}

#[cfg(test)]
mod tests;
