use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How a [`SequenceBuffer`] waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceSettings {
    /// The first number of every sequence.
    pub first: u64,
    /// Numbers that are missing for this long are given up, microseconds. `None`: it waits for ever.
    pub gap_micros: Option<u64>,
    /// Keys of which nothing waits that it remembers the next number of. Beyond, those are forgotten for which
    /// nothing came for longest, and begin anew.
    pub keys_max: usize,
}

/// What is forgotten at a time, as a share of what is remembered.
const FORGOTTEN: usize = 16;

/// What a sequence has to know, beside its rows, to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedSequence {
    /// The next number.
    pub next: u64,
    /// When something last came for it, in things that came to the buffer.
    pub used: u64,
    /// Placeholders that wait.
    pub placeholders: Vec<u64>,
}

/// What comes with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbered<T> {
    /// A row.
    Row(T),
    /// A placeholder: there is no row of this number.
    Missing,
    /// Everything up to this number has been there: what is missing is not waited for.
    Done,
}

/// What a sequence waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Its key.
    pub key: Box<[u8]>,
    /// The number that is missing: the first of those that are.
    pub missing: u64,
    /// The first number that is held.
    pub held_from: u64,
    /// Rows that wait.
    pub held: u64,
    /// When it gives up, microseconds of the wall clock.
    pub gives_up: Option<u64>,
}

/// Orders rows by numbers that rise by one: one sequence for each key.
///
/// # Invariants
/// - The rows of a key leave in the order of their numbers, each number at most once.
/// - A row is *late* if its number has gone by or is held already. Every other row leaves.
/// - What is forgotten depends on what came in which order, not on how it was cut into batches.
#[derive(Debug)]
pub struct SequenceBuffer<T> {
    settings: SequenceSettings,
    keys: HashMap<Box<[u8]>, u32>,
    lanes: Vec<Lane<T>>,
    /// Of all keys together.
    key_bytes: usize,
    /// Lanes that wait, by when they give up.
    deadlines: BTreeSet<(u64, u32)>,
    held: usize,
    placeholders: usize,
    missing: u64,
    /// Lanes of which nothing waits.
    quiet: usize,
    /// Places in `lanes` that no key has.
    free: Vec<u32>,
    /// Counts what comes.
    now: u64,
    forgotten: u64,
    /// Keys forgotten since [`SequenceBuffer::take_changed`].
    dropped: BTreeSet<Box<[u8]>>,
    /// Lanes of which something changed since [`SequenceBuffer::take_changed`].
    changed: BTreeSet<u32>,
}

#[derive(Debug)]
struct Lane<T> {
    key: Box<[u8]>,
    next: u64,
    used: u64,
    /// Whether something is held, as the buffer has counted it.
    waits: bool,
    /// `None` stands for a placeholder.
    held: BTreeMap<u64, Option<T>>,
    deadline: Option<u64>,
}

impl<T: Copy> SequenceBuffer<T> {
    /// An empty buffer.
    #[must_use]
    pub fn new(settings: SequenceSettings) -> Self {
        Self {
            settings,
            keys: HashMap::new(),
            lanes: Vec::new(),
            key_bytes: 0,
            deadlines: BTreeSet::new(),
            held: 0,
            placeholders: 0,
            missing: 0,
            quiet: 0,
            free: Vec::new(),
            now: 0,
            forgotten: 0,
            dropped: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Something comes with a number, at time `now` in microseconds. What may go on is appended to
    /// `out`. `false` where it was late: it is not held.
    pub fn offer(&mut self, key: &[u8], number: u64, what: Numbered<T>, now: u64, out: &mut Vec<T>) -> bool {
        let place = self.lane(key);
        self.now += 1;
        let lane = &mut self.lanes[place as usize];
        lane.used = self.now;
        let taken = match what {
            Numbered::Done if number >= lane.next => {
                self.skip_to(place, number.saturating_add(1), out);
                true
            }
            Numbered::Done => true,
            Numbered::Row(_) | Numbered::Missing if number < lane.next || lane.held.contains_key(&number) => {
                matches!(what, Numbered::Missing)
            }
            Numbered::Row(row) if number == lane.next => {
                out.push(row);
                lane.next = number.saturating_add(1);
                true
            }
            Numbered::Row(row) => {
                lane.held.insert(number, Some(row));
                self.held += 1;
                true
            }
            Numbered::Missing => {
                lane.held.insert(number, None);
                self.placeholders += 1;
                true
            }
        };
        self.changed.insert(place);
        self.release(place, now, out);
        let keys_max = self.settings.keys_max;
        if self.quiet > keys_max {
            self.forget(self.quiet - keys_max + keys_max / FORGOTTEN, Some(place));
        }
        taken
    }

    /// Gives up what was missing for too long.
    pub fn expire(&mut self, now: u64, out: &mut Vec<T>) {
        while let Some(&(deadline, place)) = self.deadlines.first()
            && deadline <= now
        {
            self.give_up(place, now, out);
        }
    }

    /// There is no room: the lane that has waited longest, or the first where none gives up, goes on
    /// without what is missing. `false` where nothing is held.
    pub fn force(&mut self, now: u64, out: &mut Vec<T>) -> bool {
        let waits = |(place, lane): (usize, &Lane<T>)| (!lane.held.is_empty()).then_some(place as u32);
        let first = self.deadlines.first().map(|&(_, place)| place);
        let Some(place) = first.or_else(|| self.lanes.iter().enumerate().find_map(waits)) else { return false };
        self.give_up(place, now, out);
        true
    }

    fn give_up(&mut self, place: u32, now: u64, out: &mut Vec<T>) {
        let lane = &mut self.lanes[place as usize];
        if let Some((&number, _)) = lane.held.first_key_value() {
            self.missing += number - lane.next;
            lane.next = number;
            self.changed.insert(place);
        }
        if let Some(deadline) = lane.deadline.take() {
            self.deadlines.remove(&(deadline, place));
        }
        self.release(place, now, out);
    }

    /// Lets everything below `next` go.
    fn skip_to(&mut self, place: u32, next: u64, out: &mut Vec<T>) {
        let lane = &mut self.lanes[place as usize];
        let mut gone = next - lane.next;
        while let Some(entry) = lane.held.first_entry()
            && *entry.key() < next
        {
            gone -= 1;
            match entry.remove() {
                Some(row) => {
                    self.held -= 1;
                    out.push(row);
                }
                None => self.placeholders -= 1,
            }
        }
        // What was said to be done and never came, apart from placeholders, is missing.
        self.missing += gone;
        lane.next = next;
    }

    /// Lets go what waits for nothing any more, and sets when to give up on the rest.
    fn release(&mut self, place: u32, now: u64, out: &mut Vec<T>) {
        let lane = &mut self.lanes[place as usize];
        let before = lane.next;
        while let Some(entry) = lane.held.first_entry()
            && *entry.key() == lane.next
        {
            match entry.remove() {
                Some(row) => {
                    self.held -= 1;
                    out.push(row);
                }
                None => self.placeholders -= 1,
            }
            lane.next = lane.next.saturating_add(1);
        }
        let waits = !lane.held.is_empty();
        // A gap that is still the first one keeps its time.
        if lane.deadline.is_some() && (!waits || lane.next != before) {
            let deadline = lane.deadline.take().unwrap_or_default();
            self.deadlines.remove(&(deadline, place));
        }
        if let (true, None, Some(gap)) = (waits, lane.deadline, self.settings.gap_micros) {
            let deadline = now.saturating_add(gap);
            lane.deadline = Some(deadline);
            self.deadlines.insert((deadline, place));
        }
        self.count(place);
    }

    /// Counts a lane with those of which something waits, or with the others.
    fn count(&mut self, place: u32) {
        let lane = &mut self.lanes[place as usize];
        match (lane.waits, !lane.held.is_empty()) {
            (false, true) => self.quiet -= 1,
            (true, false) => self.quiet += 1,
            (false, false) | (true, true) => {}
        }
        lane.waits = !lane.held.is_empty();
    }

    /// Forgets half of the keys of which nothing waits, those that were used longest ago.
    pub fn forget_half(&mut self) {
        self.forget(self.quiet.div_ceil(2), None);
    }

    /// Forgets some lanes of which nothing waits, but for one that is in use.
    fn forget(&mut self, some: usize, in_use: Option<u32>) {
        let is_quiet = |&place: &u32| {
            let lane = &self.lanes[place as usize];
            !lane.waits && Some(place) != in_use && self.keys.get(&lane.key) == Some(&place)
        };
        let mut quiet: Vec<u32> = (0..self.lanes.len() as u32).filter(is_quiet).collect();
        let age = |&place: &u32| {
            let lane = &self.lanes[place as usize];
            (lane.used, &lane.key)
        };
        quiet.sort_unstable_by(|one, other| age(one).cmp(&age(other)));
        quiet.truncate(some);
        self.quiet -= quiet.len();
        self.forgotten += quiet.len() as u64;
        for place in quiet {
            let key = std::mem::take(&mut self.lanes[place as usize].key);
            self.keys.remove(&key);
            self.key_bytes -= key.len();
            self.changed.remove(&place);
            self.dropped.insert(key);
            self.free.push(place);
        }
    }

    fn lane(&mut self, key: &[u8]) -> u32 {
        if let Some(&place) = self.keys.get(key) {
            return place;
        }
        let (next, used) = (self.settings.first, self.now);
        let lane = Lane { key: key.into(), next, used, waits: false, held: BTreeMap::new(), deadline: None };
        let place = match self.free.pop() {
            Some(place) => {
                self.lanes[place as usize] = lane;
                place
            }
            None => {
                self.lanes.push(lane);
                u32::try_from(self.lanes.len() - 1).expect("fewer than 4 billion keys fit into memory")
            }
        };
        self.keys.insert(key.into(), place);
        self.key_bytes += key.len();
        self.quiet += 1;
        place
    }

    /// Everything goes: nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<T>) {
        while self.force(0, out) {}
    }

    /// Up to `most` sequences that wait: those that give up first, then in the order in which their keys
    /// came.
    #[must_use]
    pub fn gaps(&self, most: usize) -> Vec<Gap> {
        let hasty = self.deadlines.iter().map(|&(_, place)| &self.lanes[place as usize]);
        let patient = self.lanes.iter().filter(|lane| lane.deadline.is_none());
        let gap = |lane: &Lane<T>| {
            let (&held_from, _) = lane.held.first_key_value()?;
            let held = lane.held.values().flatten().count() as u64;
            Some(Gap { key: lane.key.clone(), missing: lane.next, held_from, held, gives_up: lane.deadline })
        };
        hasty.chain(patient).filter_map(gap).take(most).collect()
    }

    /// When a lane gives up next, microseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Rows that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Numbers of which a placeholder waits.
    #[must_use]
    pub fn placeholders(&self) -> usize {
        self.placeholders
    }

    /// Bytes of memory that sequences take, without what waits in them; a key is there twice.
    #[must_use]
    pub fn bytes(&self) -> usize {
        2 * self.key_bytes + self.keys.len() * size_of::<Lane<T>>()
    }

    /// Keys forgotten so far.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The rows that are held, those of a key together and in the order of their numbers.
    pub fn held_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.lanes.iter_mut().flat_map(|lane| lane.held.values_mut()).flatten()
    }

    /// Numbers given up so far.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// The sequences that changed since this was last called, by key; `None` of those that are forgotten.
    pub fn take_changed(&mut self) -> Vec<(Box<[u8]>, Option<SavedSequence>)> {
        let changed = std::mem::take(&mut self.changed);
        let lane = |place: u32| {
            let lane = &self.lanes[place as usize];
            let placeholders = lane.held.iter().filter(|(_, row)| row.is_none()).map(|(number, _)| *number).collect();
            (lane.key.clone(), Some(SavedSequence { next: lane.next, used: lane.used, placeholders }))
        };
        let dropped = std::mem::take(&mut self.dropped).into_iter().filter(|key| !self.keys.contains_key(key));
        dropped.map(|key| (key, None)).chain(changed.into_iter().map(lane)).collect()
    }

    /// Goes on with a sequence as it was, before anything of its key comes.
    pub fn restore(&mut self, key: &[u8], saved: &SavedSequence) {
        let place = self.lane(key);
        let lane = &mut self.lanes[place as usize];
        (lane.next, lane.used) = (saved.next, saved.used);
        lane.held
            .extend(saved.placeholders.iter().filter(|number| **number > saved.next).map(|number| (*number, None)));
        self.placeholders += lane.held.len();
        self.now = self.now.max(saved.used);
        self.count(place);
    }

    /// Goes on with a row that was held, once its sequence is restored. `false` where it has no place there.
    pub fn put_back(&mut self, key: &[u8], number: u64, row: T, now: u64) -> bool {
        let place = self.lane(key);
        let lane = &mut self.lanes[place as usize];
        if number <= lane.next || lane.held.contains_key(&number) {
            return false;
        }
        lane.held.insert(number, Some(row));
        self.held += 1;
        self.release(place, now, &mut Vec::new());
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Buffer = SequenceBuffer<u64>;

    fn buffer(gap_micros: Option<u64>) -> Buffer {
        SequenceBuffer::new(SequenceSettings { first: 0, gap_micros, keys_max: 1_000 })
    }

    fn offer(buffer: &mut Buffer, number: u64, now: u64) -> (bool, Vec<u64>) {
        let mut out = Vec::new();
        let taken = buffer.offer(b"k", number, Numbered::Row(number), now, &mut out);
        (taken, out)
    }

    #[test]
    fn rows_wait_for_the_numbers_before_them() {
        let mut buffer = buffer(None);
        assert_eq!(offer(&mut buffer, 1, 0), (true, vec![]));
        assert_eq!(offer(&mut buffer, 1, 0), (false, vec![]), "a number comes once");
        assert_eq!(offer(&mut buffer, 0, 0), (true, vec![0, 1]));
        assert_eq!(offer(&mut buffer, 0, 0), (false, vec![]));
        assert_eq!((buffer.len(), buffer.next_deadline()), (0, None));
    }

    #[test]
    fn a_gap_is_given_up_after_its_time() {
        let mut buffer = buffer(Some(100));
        offer(&mut buffer, 3, 10);
        assert_eq!(buffer.next_deadline(), Some(110));
        offer(&mut buffer, 4, 50);
        // Another number of the gap does not buy the rest of it more time.
        offer(&mut buffer, 1, 60);
        assert_eq!(buffer.next_deadline(), Some(110));
        let gap = Gap { key: b"k".as_slice().into(), missing: 0, held_from: 1, held: 3, gives_up: Some(110) };
        assert_eq!((buffer.gaps(9), buffer.gaps(0)), (vec![gap], vec![]));
        let mut out = Vec::new();
        buffer.expire(109, &mut out);
        assert_eq!(out, []);
        buffer.expire(110, &mut out);
        assert_eq!((&*out, buffer.missing(), buffer.next_deadline()), (&[1][..], 1, Some(210)));
        buffer.expire(210, &mut out);
        assert_eq!((&*out, buffer.missing(), buffer.next_deadline()), (&[1, 3, 4][..], 2, None));
        assert_eq!(offer(&mut buffer, 0, 300), (false, vec![]), "what was given up is late");
    }

    #[test]
    fn placeholders_and_punctuation_fill_gaps_at_once() {
        let mut buffer = buffer(None);
        offer(&mut buffer, 2, 0);
        offer(&mut buffer, 9, 0);
        let mut out = Vec::new();
        assert!(buffer.offer(b"k", 1, Numbered::Missing, 0, &mut out));
        assert!(buffer.offer(b"k", 0, Numbered::Missing, 0, &mut out));
        assert_eq!((&*out, buffer.missing()), (&[2][..], 0));
        assert!(buffer.offer(b"k", 8, Numbered::Done, 0, &mut out));
        assert_eq!((&*out, buffer.missing()), (&[2, 9][..], 6));
        assert!(buffer.offer(b"k", 3, Numbered::Done, 0, &mut out), "what is done already is no news");
        assert!(buffer.offer(b"k", u64::MAX, Numbered::Done, 0, &mut out));
    }

    #[test]
    fn keys_for_which_nothing_came_for_longest_are_forgotten_unless_something_waits() {
        let mut buffer: Buffer = SequenceBuffer::new(SequenceSettings { first: 0, gap_micros: None, keys_max: 2 });
        let mut out = Vec::new();
        let mut offer =
            |buffer: &mut Buffer, key: &[u8], number| buffer.offer(key, number, Numbered::Row(number), 0, &mut out);
        assert!(offer(&mut buffer, b"waits", 5));
        for (key, number) in [(b"a", 0), (b"b", 0), (b"a", 1)] {
            assert!(offer(&mut buffer, key, number));
        }
        assert_eq!(buffer.forgotten(), 0);
        buffer.take_changed();
        assert!(offer(&mut buffer, b"c", 0));
        let changed = buffer.take_changed();
        assert_eq!((buffer.forgotten(), &changed[0]), (1, &(b"b".as_slice().into(), None)));
        assert!(!offer(&mut buffer, b"a", 1) && offer(&mut buffer, b"waits", 6), "they are remembered");
        assert!(offer(&mut buffer, b"b", 0), "and this one begins anew");
        assert_eq!((buffer.len(), buffer.forgotten()), (2, 2));
    }

    /// The definition, row by row: for each key what is next, what waits, and when it was last used.
    #[derive(Default)]
    struct Naive {
        lanes: BTreeMap<u8, (u64, BTreeMap<u64, bool>, usize)>,
        out: Vec<(u8, u64)>,
        late: usize,
        forgotten: usize,
    }

    impl Naive {
        fn offer(&mut self, at: usize, key: u8, number: u64, kind: Numbered<()>, keys_max: usize) {
            let (next, held, used) = self.lanes.entry(key).or_default();
            *used = at;
            let known = number < *next || held.contains_key(&number);
            match kind {
                Numbered::Row(()) if known => self.late += 1,
                Numbered::Row(()) => drop(held.insert(number, true)),
                Numbered::Missing if !known => drop(held.insert(number, false)),
                Numbered::Missing => {}
                Numbered::Done => {
                    self.out.extend(held.iter().filter(|(n, row)| **n <= number && **row).map(|(n, _)| (key, *n)));
                    held.retain(|n, _| *n > number);
                    *next = (*next).max(number + 1);
                }
            }
            while let Some(row) = held.remove(next) {
                self.out.extend(row.then_some((key, *next)));
                *next += 1;
            }
            let mut quiet: Vec<(usize, u8)> =
                self.lanes.iter().filter(|lane| lane.1.1.is_empty()).map(|(key, lane)| (lane.2, *key)).collect();
            if quiet.len() > keys_max {
                quiet.sort_unstable();
                let too_many = quiet.len() - keys_max + keys_max / FORGOTTEN;
                for (_, old) in quiet.iter().filter(|(_, old)| *old != key).take(too_many) {
                    self.lanes.remove(old);
                    self.forgotten += 1;
                }
            }
        }
    }

    fn restarted(buffer: &mut SequenceBuffer<(u8, u64)>) -> SequenceBuffer<(u8, u64)> {
        let mut other = SequenceBuffer::new(buffer.settings);
        let held = buffer.held_mut().map(|row| *row).collect::<Vec<_>>();
        buffer.changed.extend(buffer.keys.values());
        for (key, saved) in buffer.take_changed() {
            if let Some(saved) = saved {
                other.restore(&key, &saved);
            }
        }
        assert!(held.into_iter().all(|row| other.put_back(&[row.0], row.1, row, 0)));
        assert_eq!(
            (other.len(), other.placeholders(), other.quiet),
            (buffer.len(), buffer.placeholders(), buffer.quiet)
        );
        other.forgotten = buffer.forgotten;
        other
    }

    proptest! {
        /// Without gaps that are given up: exactly what the definition says, whatever is restarted when.
        #[test]
        fn rows_leave_and_keys_are_forgotten_as_the_definition_has_it(
            steps in prop::collection::vec((0..8_u8, 0..6_u64, 0..12_u8, prop::bool::weighted(0.1)), 1..200),
            keys_max in 1..40_usize,
        ) {
            let mut buffer = SequenceBuffer::new(SequenceSettings { first: 0, gap_micros: None, keys_max });
            let (mut naive, mut out, mut late) = (Naive::default(), Vec::new(), 0);
            for (at, (key, number, kind, restart)) in steps.into_iter().enumerate() {
                let kind = match kind {
                    0 | 1 => Numbered::Missing,
                    2 => Numbered::Done,
                    _ => Numbered::Row(()),
                };
                naive.offer(at, key, number, kind, keys_max);
                let row = match kind {
                    Numbered::Row(()) => Numbered::Row((key, number)),
                    Numbered::Missing => Numbered::Missing,
                    Numbered::Done => Numbered::Done,
                };
                late += usize::from(!buffer.offer(&[key], number, row, 0, &mut out));
                if restart {
                    buffer = restarted(&mut buffer);
                }
            }
            prop_assert_eq!((out, late, buffer.forgotten()), (naive.out, naive.late, naive.forgotten as u64));
        }

        /// Any interleaving of any keys with duplicates, gaps, placeholders and restarts.
        #[test]
        fn rows_of_a_key_leave_in_order_and_none_is_lost(
            steps in prop::collection::vec((0..3_u8, 0..30_u64, 0..12_u8, 0..40_u64), 1..200), gap in prop::option::of(1..200_u64),
        ) {
            let mut buffer: SequenceBuffer<(u8, u64)> = SequenceBuffer::new(SequenceSettings { first: 0, gap_micros: gap, keys_max: 1_000 });
            let (mut out, mut now, mut offered, mut late) = (Vec::new(), 0, 0, 0);
            for (key, number, kind, passed) in steps {
                now += passed;
                buffer.expire(now, &mut out);
                match kind {
                    0 => drop(buffer.offer(&[key], number, Numbered::Missing, now, &mut out)),
                    1 => drop(buffer.offer(&[key], number, Numbered::Done, now, &mut out)),
                    2 => {
                        buffer.force(now, &mut out);
                    }
                    3 => {
                        buffer = restarted(&mut buffer);
                    }
                    _ => {
                        offered += 1;
                        late += usize::from(!buffer.offer(&[key], number, Numbered::Row((key, number)), now, &mut out));
                    }
                }
                prop_assert_eq!(offered, out.len() + buffer.len() + late);
            }
            buffer.finish(&mut out);
            prop_assert_eq!(offered, out.len() + late);
            for key in 0..3 {
                let numbers: Vec<u64> = out.iter().filter(|row| row.0 == key).map(|row| row.1).collect();
                prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
            }
        }
    }
}
