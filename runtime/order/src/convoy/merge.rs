use std::collections::VecDeque;
use std::fmt::Debug;

use crate::OrderError;

/// What a lane sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromLane<R, M> {
    /// What it made of its part of a ticket: the end-of-sequence mark of the ticket, too.
    Part {
        /// Which ticket, counted from 0.
        ticket: u64,
        /// The rows.
        rows: R,
    },
    /// Rows that come from no ticket, such as those of timers. They belong before what the lane sends
    /// next.
    Extra(R),
    /// What every lane gets and hands on: a watermark, a barrier.
    Mark(M),
}

/// What comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged<R, M> {
    /// The parts of one ticket, by lane. [`weave`] says how their rows stand.
    Parts(Vec<R>),
    /// Rows that come from no ticket.
    Extra(R),
    /// Once for all lanes.
    Mark(M),
}

/// Puts together what the lanes of a convoy send.
///
/// # Ordering
/// Tickets and marks leave in the order in which every lane sends them, rows of no ticket by lane
/// before the ticket or the mark that follows them.
///
/// # Bounds
/// It takes what it is given. Whoever sends has a budget, and gets it back as things leave. That
/// stops no lane for ever: of the first ticket that is not complete, lane 0 can send everything,
/// then lane 1, and so on.
#[derive(Debug)]
pub struct ConvoyMerge<R, M> {
    lanes: Vec<VecDeque<FromLane<R, M>>>,
    /// The lane whose extra rows are next.
    turn: usize,
}

impl<R, M: PartialEq + Debug> ConvoyMerge<R, M> {
    /// A merge of so many lanes.
    #[must_use]
    pub fn new(lanes: usize) -> Self {
        Self { lanes: (0..lanes).map(|_| VecDeque::new()).collect(), turn: 0 }
    }

    /// What a lane sent.
    ///
    /// # Panics
    /// Where there is no such lane.
    pub fn push(&mut self, lane: usize, sent: FromLane<R, M>) {
        self.lanes[lane].push_back(sent);
    }

    /// What is next, as far as the lanes have come.
    ///
    /// # Errors
    /// Where the lanes do not agree on what comes next: a broken invariant of ours.
    pub fn pop(&mut self) -> Result<Option<Merged<R, M>>, OrderError> {
        while let Some(lane) = self.lanes.get_mut(self.turn) {
            match lane.front() {
                None => return Ok(None),
                Some(FromLane::Extra(_)) => {
                    let Some(FromLane::Extra(rows)) = lane.pop_front() else { return Ok(None) };
                    return Ok(Some(Merged::Extra(rows)));
                }
                Some(FromLane::Part { .. } | FromLane::Mark(_)) => self.turn += 1,
            }
        }
        self.turn = 0;
        let mut parts = Vec::with_capacity(self.lanes.len());
        let mut first: Option<Front<M>> = None;
        for (lane, sent) in self.lanes.iter_mut().enumerate() {
            let front = match sent.pop_front() {
                Some(FromLane::Part { ticket, rows }) => {
                    parts.push(rows);
                    Front::Ticket(ticket)
                }
                Some(FromLane::Mark(mark)) => Front::Mark(mark),
                Some(FromLane::Extra(_)) | None => continue,
            };
            match &first {
                None => first = Some(front),
                Some(first) if *first == front => {}
                Some(first) => {
                    let (got, want) = (format!("{front:?}"), format!("{first:?}"));
                    return Err(OrderError::Lanes { lane, got, want });
                }
            }
        }
        Ok(first.map(|front| match front {
            Front::Ticket(_) => Merged::Parts(parts),
            Front::Mark(mark) => Merged::Mark(mark),
        }))
    }

    /// Whether nothing waits for other lanes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }
}

#[derive(Debug, PartialEq)]
enum Front<M> {
    Ticket(u64),
    Mark(M),
}

/// The order of the rows of several parts, given where the rows of each come from: by place, then
/// as the parts stand. Each is named by part and row. A row stands behind the rows before it in its
/// own part, wherever it comes from; one that comes from no place, in a part without places, stands
/// last.
#[must_use]
pub fn weave(parts: &[(Option<&[u32]>, usize)]) -> Vec<(u32, u32)> {
    let mut rows = Vec::with_capacity(parts.iter().map(|(_, rows)| rows).sum());
    for (part, (places, count)) in parts.iter().enumerate() {
        let mut highest = 0;
        for row in 0..*count {
            highest = places.map_or(u32::MAX, |places| places[row].max(highest));
            rows.push((highest, part as u32, row as u32));
        }
    }
    // Stable, and quick on runs that are sorted already.
    rows.sort_by_key(|(place, ..)| *place);
    rows.into_iter().map(|(_, part, row)| (part, row)).collect()
}
