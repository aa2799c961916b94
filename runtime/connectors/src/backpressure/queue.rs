//! The half that decides: what a bounded queue does with a piece that comes while it is full.

use std::collections::VecDeque;

use wasmill_spec::{Backpressure, Policy};

/// What became of a piece that was offered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered<T> {
    /// It waits in memory, perhaps in place of older ones.
    Kept,
    /// It has a place in the queue, and its content belongs at the end of the spill.
    Spill(T),
    /// It is gone, and counted.
    Dropped,
    /// There is no room: offer it again after a piece was taken.
    Full(T),
}

/// The piece at the front.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    /// It was in memory.
    Memory(T),
    /// It is the first of the spill.
    Spilled,
}

/// A queue of pieces with what has to be remembered once each has left (its mark).
///
/// # Invariants
/// - Pieces leave in the order in which they came, whether from memory or from the spill.
/// - Pieces in memory have at most `bytes` together, or are one; those in the spill at most `disk`.
/// - Pieces without rows are never dropped and never spilled: they wait for room.
/// - Rows offered and not refused = rows taken + rows in the queue + rows dropped.
#[derive(Debug)]
pub(super) struct Queue<T, M> {
    bounds: Backpressure,
    pieces: VecDeque<Piece<T, M>>,
    memory: u64,
    disk: u64,
    dropped: u64,
    spilled: u64,
    held: u64,
}

#[derive(Debug)]
struct Piece<T, M> {
    /// `None` where it is in the spill.
    content: Option<T>,
    rows: u64,
    bytes: u64,
    mark: M,
}

impl<T, M> Queue<T, M> {
    pub(super) fn new(bounds: Backpressure) -> Self {
        Self { bounds, pieces: VecDeque::new(), memory: 0, disk: 0, dropped: 0, spilled: 0, held: 0 }
    }

    /// Decides about a piece.
    pub(super) fn offer(&mut self, content: T, rows: u64, bytes: u64, mark: M) -> Offered<T> {
        if rows > 0 && self.bounds.policy == Policy::DropOldest {
            self.drop_oldest(bytes);
        }
        if self.fits(bytes) {
            self.memory += bytes;
            self.pieces.push_back(Piece { content: Some(content), rows, bytes, mark });
            return Offered::Kept;
        }
        match self.bounds.policy {
            _ if rows == 0 => Offered::Full(content),
            Policy::DropNewest => {
                self.dropped += rows;
                // Whoever has taken everything before it is behind it, too.
                if let Some(last) = self.pieces.back_mut() {
                    last.mark = mark;
                }
                Offered::Dropped
            }
            Policy::Spill if self.disk + bytes <= self.bounds.disk.bytes() => {
                self.disk += bytes;
                self.spilled += rows;
                self.pieces.push_back(Piece { content: None, rows, bytes, mark });
                Offered::Spill(content)
            }
            Policy::Block | Policy::DropOldest | Policy::Spill => {
                self.held += 1;
                Offered::Full(content)
            }
        }
    }

    fn fits(&self, bytes: u64) -> bool {
        bytes == 0 || self.memory == 0 || self.memory + bytes <= self.bounds.bytes.bytes()
    }

    fn drop_oldest(&mut self, bytes: u64) {
        let mut at = 0;
        while !self.fits(bytes) && at < self.pieces.len() {
            if self.pieces[at].rows == 0 {
                at += 1;
                continue;
            }
            if let Some(piece) = self.pieces.remove(at) {
                self.memory -= piece.bytes;
                self.dropped += piece.rows;
            }
        }
    }

    /// The piece at the front, with its mark.
    pub(super) fn take(&mut self) -> Option<(Taken<T>, M)> {
        let Piece { content, bytes, mark, .. } = self.pieces.pop_front()?;
        Some(match content {
            Some(content) => {
                self.memory -= bytes;
                (Taken::Memory(content), mark)
            }
            None => {
                self.disk -= bytes;
                (Taken::Spilled, mark)
            }
        })
    }

    /// Rows that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Rows that went through the spill.
    pub(super) fn spilled(&self) -> u64 {
        self.spilled
    }

    /// How often there was no room.
    pub(super) fn held(&self) -> u64 {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmill_spec::ByteSize;

    use super::*;

    /// The policies in the plainest way: a list of rows, each with its bytes and where it is.
    struct Model {
        policy: Policy,
        memory_max: u64,
        disk_max: u64,
        /// Number, rows, bytes, on disk.
        list: Vec<(u64, u64, u64, bool)>,
        dropped: Vec<u64>,
    }

    impl Model {
        fn sum(&self, on_disk: bool) -> u64 {
            self.list.iter().filter(|piece| piece.3 == on_disk).map(|piece| piece.2).sum()
        }

        fn has_room(&self, bytes: u64) -> bool {
            bytes == 0 || self.sum(false) == 0 || self.sum(false) + bytes <= self.memory_max
        }

        fn offer(&mut self, number: u64, rows: u64, bytes: u64) -> Offered<u64> {
            match self.policy {
                _ if rows == 0 && !self.has_room(bytes) => return Offered::Full(number),
                _ if self.has_room(bytes) => {}
                Policy::Block => return Offered::Full(number),
                Policy::DropNewest => {
                    self.dropped.push(number);
                    return Offered::Dropped;
                }
                Policy::DropOldest => {
                    while !self.has_room(bytes) {
                        let Some(oldest) = self.list.iter().position(|piece| piece.1 > 0) else {
                            return Offered::Full(number);
                        };
                        self.dropped.push(self.list.remove(oldest).0);
                    }
                }
                Policy::Spill if self.sum(true) + bytes <= self.disk_max => {
                    self.list.push((number, rows, bytes, true));
                    return Offered::Spill(number);
                }
                Policy::Spill => return Offered::Full(number),
            }
            self.list.push((number, rows, bytes, false));
            Offered::Kept
        }
    }

    fn policies() -> impl Strategy<Value = Policy> {
        prop::sample::select(vec![Policy::Block, Policy::DropOldest, Policy::DropNewest, Policy::Spill])
    }

    proptest! {
        #[test]
        fn every_policy_does_what_the_model_does(
            policy in policies(),
            memory_max in 1_u64..60,
            disk_max in 0_u64..60,
            // A piece of so many rows and bytes, or `None`: one is taken.
            steps in prop::collection::vec(prop::option::weighted(0.6, (0_u64..5, 0_u64..30)), 0..200),
        ) {
            let bounds = Backpressure {
                policy,
                bytes: ByteSize::from_bytes(memory_max),
                disk: ByteSize::from_bytes(disk_max),
            };
            let mut queue: Queue<u64, u64> = Queue::new(bounds);
            let mut model = Model { policy, memory_max, disk_max, list: Vec::new(), dropped: Vec::new() };
            let mut rows_of = Vec::new();
            let (mut offered, mut taken, mut refused, mut last_mark) = (0, 0, 0, None);
            for (number, step) in steps.into_iter().enumerate() {
                let number = number as u64;
                rows_of.push(step.map_or(0, |(rows, _)| rows));
                match step {
                    Some((rows, bytes)) => {
                        let expected = model.offer(number, rows, bytes);
                        let got = queue.offer(number, rows, bytes, number);
                        prop_assert_eq!(&got, &expected);
                        offered += rows;
                        if matches!(got, Offered::Full(_)) {
                            refused += rows;
                        }
                    }
                    None => {
                        let got = queue.take();
                        let expected = (!model.list.is_empty()).then(|| model.list.remove(0));
                        prop_assert_eq!(got.is_some(), expected.is_some());
                        if let (Some((content, mark)), Some((number, rows, _, on_disk))) = (got, expected) {
                            let content_expected = if on_disk { Taken::Spilled } else { Taken::Memory(number) };
                            prop_assert_eq!(content, content_expected);
                            // A mark covers its own piece and what was dropped right behind it.
                            prop_assert!(mark >= number && Some(mark) > last_mark);
                            last_mark = Some(mark);
                            taken += rows;
                        }
                    }
                }
                let waiting: u64 = model.list.iter().map(|piece| piece.1).sum();
                let dropped: u64 = model.dropped.iter().map(|&number| rows_of[number as usize]).sum();
                prop_assert_eq!(queue.dropped(), dropped);
                prop_assert_eq!(offered - refused, taken + waiting + dropped);
                prop_assert!(queue.memory <= memory_max || model.list.iter().filter(|p| !p.3 && p.2 > 0).count() == 1);
                prop_assert!(queue.disk <= disk_max);
            }
        }
    }
}
