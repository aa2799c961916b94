//! What is done with rows and panes around the calls of an aggregate. Synchronous.

use wasmill_model::{Batch, Column, Folded, PaneBatch, Rejected, Timestamp};
use wasmill_order::{Assignment, Fired, OrderError, Stored, Windows};

use crate::outcome;

/// Rows on their way into their windows: the first ones of a batch, at least one.
pub(super) struct Folding<'a> {
    input: &'a Batch,
    assignment: Assignment,
    rows: Batch,
}

/// What became of rows that were folded.
pub(super) struct Added {
    /// Those that the aggregate has rejected, and why.
    pub(super) rejected: Option<(Batch, Vec<String>)>,
    /// Places in the batch of those that came too late.
    pub(super) late: Vec<u32>,
    /// Rows that are to be folded next.
    pub(super) rest: Option<Batch>,
}

impl<'a> Folding<'a> {
    /// Finds the accumulators of rows.
    pub(super) fn assign(windows: &mut Windows, input: &'a Batch, wall: Timestamp) -> Result<Self, OrderError> {
        let assignment = windows.assign(input, wall)?;
        let rows = match &assignment.rows {
            Some(rows) => input.gather(rows),
            None => input.clone(),
        };
        Ok(Self { input, assignment, rows })
    }

    /// What is to be folded: accumulators, the group of each row, and rows. `None` where all came too late.
    pub(super) fn call(&self) -> Option<(&Column, &[u32], &Batch)> {
        let Assignment { accumulators, groups, .. } = &self.assignment;
        (!self.rows.is_empty()).then_some((accumulators, groups, &self.rows))
    }

    fn rest(&self) -> Option<Batch> {
        let taken = self.assignment.taken;
        (taken < self.input.len()).then(|| self.input.slice(taken..self.input.len()))
    }

    /// The fold has failed: the rows that it had, and those behind them.
    pub(super) fn abandon(self, windows: &mut Windows) -> (Batch, Option<Batch>) {
        windows.abandon();
        (self.input.slice(0..self.assignment.taken), self.rest())
    }

    /// Puts what was folded into the windows; `None` where there was nothing to fold.
    pub(super) fn store(self, windows: &mut Windows, folded: Option<&Folded>) -> Result<Added, OrderError> {
        let mut rejected = None;
        if let Some(folded) = folded {
            let stored = windows.store(&self.assignment, folded)?;
            let once = rejected_once(&self.assignment, &folded.rejected);
            rejected = outcome::rejected_rows(self.input, &once);
            if stored == Stored::FoldOthersAgain {
                let is_rejected = |row: &u32| once.binary_search_by_key(row, |rejected| rejected.row).is_ok();
                let others: Vec<u32> = (0..self.input.len() as u32).filter(|row| !is_rejected(row)).collect();
                let rest = (!others.is_empty()).then(|| self.input.gather(&others));
                return Ok(Added { rejected, late: Vec::new(), rest });
            }
        }
        let rest = self.rest();
        Ok(Added { rejected, late: self.assignment.late, rest })
    }
}

/// Rejected rows by their places in the input: a row of several windows may be rejected in each.
fn rejected_once(assignment: &Assignment, rejected: &[Rejected]) -> Vec<Rejected> {
    let place = |row: u32| assignment.rows.as_ref().map_or(row, |rows| rows[row as usize]);
    let mut rejected: Vec<Rejected> =
        rejected.iter().map(|Rejected { row, reason }| Rejected { row: place(*row), reason: reason.clone() }).collect();
    rejected.dedup_by_key(|rejected| rejected.row);
    rejected
}

/// The rows of both halves, where there are two.
pub(super) fn halves(rows: usize) -> Option<[Vec<u32>; 2]> {
    let (rows, half) = (rows as u32, rows as u32 / 2);
    (half > 0).then(|| [(0..half).collect(), (half..rows).collect()])
}

/// Some of the panes, in order, with their accumulators.
pub(super) fn part(fired: &Fired, some: &[u32]) -> Fired {
    let Fired { panes, accumulators, merge, facts } = fired;
    let facts = match facts.is_empty() {
        true => Vec::new(),
        false => some.iter().map(|&pane| facts[pane as usize].clone()).collect(),
    };
    let pick = |bounds: &[i64]| some.iter().map(|&pane| bounds[pane as usize]).collect();
    let (starts, ends) = (pick(&panes.starts), pick(&panes.ends));
    let panes = PaneBatch { starts, ends, keys: panes.keys.gather(some) };
    let Some(groups) = merge else {
        return Fired { panes, accumulators: accumulators.gather(some), merge: None, facts };
    };
    let mut places = vec![None; fired.panes.starts.len()];
    (0..).zip(some).for_each(|(place, &pane)| places[pane as usize] = Some(place));
    let members = (0..).zip(groups).filter_map(|(member, &pane)| Some((member, places[pane as usize]?)));
    let (members, groups): (Vec<u32>, Vec<u32>) = members.unzip();
    Fired { panes, accumulators: accumulators.gather(&members), merge: Some(groups), facts }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panes keep their accumulators, whichever of them are taken together.
    #[test]
    fn panes_that_are_taken_apart_keep_their_accumulators() {
        let column = |texts: &[&str]| texts.iter().collect::<Column>();
        let panes = PaneBatch { starts: vec![0, 10, 20], ends: vec![10, 20, 30], keys: column(&["a", "b", "c"]) };
        let accumulators = column(&["a1", "b1", "b2", "c1", "c2"]);
        let fired = Fired { panes, accumulators, merge: Some(vec![0, 1, 1, 2, 2]), facts: Vec::new() };
        let taken = part(&fired, &[0, 2]);
        assert_eq!((taken.panes.starts, taken.panes.keys), (vec![0, 20], column(&["a", "c"])));
        assert_eq!((taken.accumulators, taken.merge), (column(&["a1", "c1", "c2"]), Some(vec![0, 1, 1])));
        let taken = part(&fired, &[1]);
        assert_eq!((taken.accumulators, taken.merge), (column(&["b1", "b2"]), Some(vec![0, 0])));
    }
}
