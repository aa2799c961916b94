use wasmill_model::{KEY_GROUPS, KeyGroup, share_of};

/// Batches between two looks at the load of lanes whose rows may go anywhere.
const LOOK_EVERY: u64 = 8;
/// A lane is hot with this many percent of the mean load.
const HOT_PERCENT: u64 = 150;
/// Rows that a look needs to say anything.
const ROWS_MIN: u64 = 64;
/// Epochs after a move before another: it costs an instance, and has to show what it does.
const REST_EPOCHS: u32 = 5;

/// What rows of one class, or one key, have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// A lane keeps nothing: classes go to one lane while that serves, and to several when it is hot.
    Loose,
    /// A lane keeps state by key: a group of keys moves as a whole, with its state, between epochs.
    ByKey,
}

/// A group of keys on its way to another lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The group.
    pub group: KeyGroup,
    /// Its lane so far.
    pub from: u16,
    /// Its lane from now on.
    pub to: u16,
}

/// Deals the rows of a convoy to its lanes.
///
/// A class or key belongs to one of [`KEY_GROUPS`] groups, a group to a lane. A lane that is hot gives
/// groups to the one that has least to do; a group that is too hot for one lane goes to all in turn,
/// where [`Affinity::Loose`] allows it. The merge restores the order, whatever is decided here.
///
/// The load of a lane is its share of the rows, and its share of what waits in all lanes.
#[derive(Debug)]
pub struct ConvoyRouter {
    lanes: u16,
    affinity: Affinity,
    /// By group.
    lane_of: Vec<u16>,
    /// Groups whose rows go to all lanes in turn.
    spread: Vec<bool>,
    next: u16,
    /// Load of each group since the last look.
    load: Vec<u64>,
    batches: u64,
    splits: u64,
    /// Epochs until the next move may be.
    rest: u32,
}

impl ConvoyRouter {
    /// Deals to so many lanes; groups start as [`share_of`] has them.
    #[must_use]
    pub fn new(lanes: u16, affinity: Affinity) -> Self {
        let groups = usize::from(KEY_GROUPS);
        let lane_of = (0..KEY_GROUPS).map(|group| share_of(KeyGroup(group), lanes)).collect();
        let (spread, load) = (vec![false; groups], vec![0; groups]);
        Self { lanes, affinity, lane_of, spread, next: 0, load, batches: 0, splits: 0, rest: 0 }
    }

    /// The lane of a row of a group.
    #[inline]
    pub fn lane(&mut self, group: KeyGroup) -> u16 {
        let group = usize::from(group.0);
        self.load[group] += 1;
        if self.spread[group] {
            self.next = (self.next + 1) % self.lanes;
            return self.next;
        }
        self.lane_of[group]
    }

    /// The lane that has a group now.
    #[must_use]
    pub fn lane_of(&self, group: KeyGroup) -> u16 {
        self.lane_of[usize::from(group.0)]
    }

    /// How often a hot lane was split.
    #[must_use]
    pub fn splits(&self) -> u64 {
        self.splits
    }

    /// A batch has been dealt, and this is what waits in each lane. With [`Affinity::Loose`] a hot
    /// lane is split every few batches. `true` where one was.
    pub fn batch_done(&mut self, waiting: &[u64]) -> bool {
        self.batches += 1;
        if self.affinity == Affinity::ByKey || !self.batches.is_multiple_of(LOOK_EVERY) {
            return false;
        }
        let split = self.look(waiting).is_some();
        self.load.iter_mut().for_each(|load| *load /= 2);
        split
    }

    /// An epoch has ended. With [`Affinity::ByKey`] a group of a hot lane moves, where that helps:
    /// what the lane keeps of it has to move with it before its next row.
    pub fn epoch_done(&mut self, waiting: &[u64]) -> Option<Moved> {
        if self.affinity == Affinity::Loose {
            return None;
        }
        self.rest = self.rest.saturating_sub(1);
        let moved = if self.rest == 0 { self.look(waiting) } else { None };
        self.load.iter_mut().for_each(|load| *load /= 2);
        if moved.is_some() {
            self.rest = REST_EPOCHS;
        }
        moved
    }

    fn look(&mut self, waiting: &[u64]) -> Option<Moved> {
        if self.lanes < 2 || self.load.iter().sum::<u64>() < ROWS_MIN {
            return None;
        }
        // What a lane was given, and how much of it still waits, each as a share of the whole.
        let mut given = vec![0_u64; usize::from(self.lanes)];
        for (group, load) in self.load.iter().enumerate() {
            if self.spread[group] {
                given.iter_mut().for_each(|lane| *lane += load / u64::from(self.lanes));
            } else {
                given[usize::from(self.lane_of[group])] += load;
            }
        }
        let (all_given, all_waiting) = (given.iter().sum::<u64>().max(1), waiting.iter().sum::<u64>());
        let loads: Vec<u64> = (0..given.len())
            .map(|lane| {
                let waits = waiting.get(lane).copied().unwrap_or(0);
                // In parts of a thousand; what waits says as much as what was given.
                given[lane] * 1_000 / all_given + (waits * 1_000).checked_div(all_waiting).unwrap_or(0)
            })
            .collect();
        let mean = loads.iter().sum::<u64>() / u64::from(self.lanes);
        let hot = (0..loads.len()).max_by_key(|&lane| (loads[lane], std::cmp::Reverse(lane)))?;
        let cool = (0..loads.len()).min_by_key(|&lane| (loads[lane], lane))?;
        if hot == cool || loads[hot] * 100 < mean * HOT_PERCENT {
            return None;
        }
        // Less than what sets the two apart, or at most half of what a slow lane was given.
        let most = given[hot].saturating_sub(given[cool]).max(given[hot] / 2 + 1);
        self.split(hot as u16, cool as u16, most)
    }

    /// Moves the heaviest group below `most`, or spreads the one that is too heavy for any lane.
    fn split(&mut self, hot: u16, cool: u16, most: u64) -> Option<Moved> {
        let of_hot = |&group: &usize| self.lane_of[group] == hot && !self.spread[group] && self.load[group] > 0;
        let groups: Vec<usize> = (0..self.load.len()).filter(of_hot).collect();
        let fits = groups.iter().copied().filter(|&group| groups.len() > 1 && self.load[group] < most);
        if let Some(group) = fits.max_by_key(|&group| (self.load[group], std::cmp::Reverse(group))) {
            self.lane_of[group] = cool;
            self.splits += 1;
            return Some(Moved { group: KeyGroup(group as u16), from: hot, to: cool });
        }
        let heaviest = groups.into_iter().max_by_key(|&group| (self.load[group], std::cmp::Reverse(group)))?;
        if self.affinity == Affinity::ByKey {
            return None;
        }
        self.spread[heaviest] = true;
        self.splits += 1;
        Some(Moved { group: KeyGroup(heaviest as u16), from: hot, to: cool })
    }
}
