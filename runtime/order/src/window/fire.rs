use hashbrown::HashTable;
use wasmill_model::{Column, ColumnBuilder, PaneBatch, PaneKind, Results, Timestamp};

use super::keyed::Given;
use super::slice::Slice;
use super::{SlicedWindows, WindowProgress};

/// Bytes of keys and accumulators of one [`Fired`], passed only by a single pane that is larger.
pub(super) const FIRED_BYTES_MAX: usize = 16 << 20;

/// Panes of one window that fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fired {
    /// The panes.
    pub panes: PaneBatch,
    /// Their accumulators: one for every pane, unless `merge` says otherwise.
    pub accumulators: Column,
    /// The pane of each accumulator, where some panes have several: they are to be merged first.
    pub merge: Option<Vec<u32>>,
    /// What else is known of each pane, where windows are kept by key; else empty.
    pub facts: Vec<PaneFact>,
}

/// What a pane is, and what it has given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaneFact {
    pub(super) kind: PaneKind,
    /// Names the window among those of the key.
    pub(super) id: i64,
    /// Results that its new ones replace.
    pub(super) given: Vec<Given>,
}

/// Rows that panes give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaneRows {
    /// The last microsecond of each window.
    pub times: Vec<i64>,
    /// The key of each pane.
    pub keys: Column,
    /// The results.
    pub values: Column,
    /// What each row is, where windows fire more than once.
    pub kinds: Option<Vec<PaneKind>>,
}

/// Results as rows: the key of their pane, at the last microsecond of its window.
pub(super) fn plain_rows(fired: &Fired, results: Results) -> PaneRows {
    let panes = &fired.panes;
    let last = |pane: usize| panes.ends[pane].saturating_sub(1);
    let (times, keys) = match results.panes.is_empty() {
        true => ((0..panes.ends.len()).map(last).collect(), panes.keys.clone()),
        false => (results.panes.iter().map(|&pane| last(pane as usize)).collect(), panes.keys.gather(&results.panes)),
    };
    PaneRows { times, keys, values: results.values, kinds: None }
}

/// The panes of the window that is firing.
#[derive(Debug, Clone, Default)]
pub(super) struct Merging {
    source: Source,
    /// By pane, the slices and slots to merge, in the order of slices.
    members: Vec<(u32, u32)>,
    /// For every pane, where its members end.
    ends: Vec<u32>,
    /// Panes by key while they are gathered; kept for its memory.
    index: HashTable<u32>,
}

#[derive(Debug, Clone, Default)]
enum Source {
    /// No window is firing.
    #[default]
    None,
    /// Its panes are the slots of one slice.
    Slice(u32),
    /// Its panes are those in `members`.
    Members,
}

impl SlicedWindows {
    /// Up to `limit` panes, at least one, of the first window that fires at `watermark` and has
    /// not fired completely. Call again until there is none. The panes given are gone: who fails
    /// to deliver them keeps them and tries again. A watermark that falls fires nothing.
    ///
    /// At [`Timestamp::MAX`] everything fires. Windows that hold nothing are passed over at no
    /// cost, however many there are.
    pub fn fire(&mut self, watermark: Timestamp, limit: usize) -> Option<Fired> {
        self.abandon();
        let open_at_watermark = self.slicing.first_open(watermark);
        if let Some((_, &place)) = self.by_start.first_key_value() {
            // A slice stands only while one of its windows is open, so the first one leads to the
            // first window that holds anything.
            let window = self.slices[place as usize].bounds.first.max(self.progress.next_window);
            if window < open_at_watermark {
                if window != self.progress.next_window {
                    self.progress = WindowProgress { next_window: window, panes: 0 };
                    self.merging.source = Source::None;
                }
                return Some(self.fire_window(window, limit.max(1)));
            }
        }
        if open_at_watermark > self.progress.next_window {
            self.progress = WindowProgress { next_window: open_at_watermark, panes: 0 };
        }
        None
    }

    fn fire_window(&mut self, window: i128, limit: usize) -> Fired {
        if matches!(self.merging.source, Source::None) {
            let places = self.by_start.values().copied();
            let places: Vec<u32> =
                places.take_while(|&place| self.slices[place as usize].bounds.first <= window).collect();
            self.merging.gather(&self.slices, &places);
        }
        let (start, end) = self.slicing.window(window);
        let (fired, is_last) = self.merging.take(&self.slices, self.progress.panes, limit, (start, end));
        if is_last {
            self.merging.source = Source::None;
            self.progress = WindowProgress { next_window: window + 1, panes: 0 };
            while let Some((&start, &place)) = self.by_start.first_key_value()
                && self.slices[place as usize].bounds.last <= window
            {
                self.drop_slice(start);
            }
        } else {
            self.progress.panes += fired.panes.starts.len() as u64;
        }
        fired
    }
}

impl Merging {
    /// Finds the panes of the window that consists of these slices.
    fn gather(&mut self, slices: &[Slice], places: &[u32]) {
        if let [only] = places {
            self.source = Source::Slice(*only);
            return;
        }
        self.source = Source::Members;
        self.index.clear();
        self.ends.clear();
        // The pane of every member in the order of slices, and for every pane its first member.
        let most = places.iter().map(|&place| slices[place as usize].len()).sum();
        let (mut panes, mut firsts) = (Vec::with_capacity(most), Vec::<(u32, u32)>::new());
        for &place in places {
            let slice = &slices[place as usize];
            for (at, slot) in slice.slots().iter().enumerate() {
                let key = slice.key(at as u32);
                let first = |pane: u32| {
                    let (place, at) = firsts[pane as usize];
                    (&slices[place as usize], at)
                };
                let same = |&pane: &u32| {
                    let (slice, at) = first(pane);
                    slice.slots()[at as usize].hash == slot.hash && slice.key(at) == key
                };
                let pane = match self.index.find(slot.hash, same) {
                    Some(&pane) => pane,
                    None => {
                        let pane = firsts.len() as u32;
                        let hash_of = |&pane: &u32| {
                            let (slice, at) = first(pane);
                            slice.slots()[at as usize].hash
                        };
                        self.index.insert_unique(slot.hash, pane, hash_of);
                        firsts.push((place, at as u32));
                        self.ends.push(0);
                        pane
                    }
                };
                panes.push(pane);
                self.ends[pane as usize] += 1;
            }
        }
        // Counting sort by pane: each pane's members lie side by side.
        let mut sum = 0;
        for end in &mut self.ends {
            let count = *end;
            *end = sum;
            sum += count;
        }
        self.members.clear();
        self.members.resize(panes.len(), (0, 0));
        let of_slices =
            places.iter().flat_map(|&place| (0..slices[place as usize].len() as u32).map(move |at| (place, at)));
        for (member, pane) in of_slices.zip(panes) {
            let next = &mut self.ends[pane as usize];
            self.members[*next as usize] = member;
            *next += 1;
        }
    }

    /// Panes from `from` on, and whether they are the last.
    fn take(&self, slices: &[Slice], from: u64, limit: usize, window: (i64, i64)) -> (Fired, bool) {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let (mut keys, mut accumulators) = (ColumnBuilder::default(), ColumnBuilder::default());
        let mut merge = Vec::new();
        let count = match self.source {
            Source::None => 0,
            Source::Slice(place) => slices[place as usize].len(),
            Source::Members => self.ends.len(),
        };
        for pane in from..count.min(from.saturating_add(limit)) {
            let single;
            let members = match self.source {
                Source::Slice(place) => {
                    single = [(place, pane as u32)];
                    &single[..]
                }
                Source::None | Source::Members => {
                    let start = if pane == 0 { 0 } else { self.ends[pane - 1] };
                    &self.members[start as usize..self.ends[pane] as usize]
                }
            };
            let of =
                |&(place, at): &(u32, u32)| (slices[place as usize].key(at), slices[place as usize].accumulator(at));
            let bytes: usize = members.iter().map(|member| of(member).0.len() + of(member).1.len()).sum();
            if !keys.is_empty() && keys.byte_len() + accumulators.byte_len() + bytes > FIRED_BYTES_MAX {
                break;
            }
            for member in members {
                merge.push(keys.len() as u32);
                accumulators.push(of(member).1);
            }
            keys.push(members.first().map_or(&[], |member| of(member).0));
        }
        let fired = keys.len();
        let has_several = merge.len() > fired;
        let panes = PaneBatch { starts: vec![window.0; fired], ends: vec![window.1; fired], keys: keys.finish() };
        let merge = has_several.then_some(merge);
        (
            Fired { panes, accumulators: accumulators.finish(), merge, facts: Vec::new() },
            from.saturating_add(fired) >= count,
        )
    }
}
