//! Runs of a pattern over the events of one key, in the order of their times. Pure.
//!
//! Every event of the first kind begins a run. A run does, for each event behind its first, the first
//! of these that applies:
//!
//! 1. the event must not come before the next step: the run ends;
//! 2. the event is of the next step, and the step it is in has enough: it goes on to the next step;
//! 3. the event is of the step it is in, which may have more: it takes the event;
//! 4. the next step names the very next event, and the step it is in has enough: the run ends;
//! 5. nothing.
//!
//! So a run takes one way only, and there are no more runs than first events within its length.

use serde::{Deserialize, Serialize};

/// A pattern, its kinds numbered.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) steps: Vec<Stage>,
    /// Kinds that must not come behind the last step, as bits, and for how long.
    pub(crate) absent: Option<(u32, Option<i64>)>,
    pub(crate) length: i64,
    /// Whether a match leaves other runs alone.
    pub(crate) overlap: bool,
    pub(crate) runs_max: usize,
}

/// A step, its kinds as bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage {
    pub(crate) kind: u32,
    pub(crate) min: usize,
    pub(crate) max: usize,
    pub(crate) next: bool,
    pub(crate) within: Option<i64>,
    pub(crate) absent: u32,
}

/// A match on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The time of its first event, and of the last that it took.
    pub(crate) start: i64,
    pub(crate) last: i64,
    /// By step: the numbers of the events that it took.
    pub(crate) taken: Vec<Vec<u64>>,
}

/// A match: when it was complete, and the numbers of its events by step.
pub(crate) type Match = (i64, Vec<Vec<u64>>);

enum Fate {
    GoesOn,
    Ends,
    Matches,
}

impl Machine {
    /// Whether an event of no kind that is named can matter.
    pub(crate) fn heeds_all(&self) -> bool {
        self.steps.iter().any(|step| step.next)
    }

    /// The last time at which a run can go on.
    pub(crate) fn deadline(&self, run: &Run) -> i64 {
        let whole = run.start.saturating_add(self.length);
        let place = run.taken.len() - 1;
        let within = match self.steps.get(place + 1) {
            // A step that may take more puts the end off with each event.
            Some(next) if run.taken[place].len() >= self.steps[place].max => next.within,
            Some(_) => None,
            None if self.has_all(run) => self.absent.and_then(|(_, within)| within),
            None => None,
        };
        within.map_or(whole, |within| whole.min(run.last.saturating_add(within)))
    }

    /// Ends runs whose time is over: those up to this deadline. What they waited for not to come has
    /// not come, where they have all their steps.
    pub(crate) fn expire(&self, runs: &mut Vec<Run>, until: i64) -> Vec<Match> {
        let mut over: Vec<(i64, Run)> = Vec::new();
        runs.retain(|run| {
            let deadline = self.deadline(run);
            if deadline <= until {
                over.push((deadline, run.clone()));
            }
            deadline > until
        });
        over.sort_by_key(|(deadline, _)| *deadline);
        let mut matches = Vec::new();
        for (deadline, run) in over {
            // Without overlap the first match takes the place of runs that began before it was complete.
            let free = self.overlap || matches.last().is_none_or(|(end, _)| run.start > *end);
            if self.has_all(&run) && self.absent.is_some() && free {
                if !self.overlap {
                    runs.retain(|other| other.start > deadline);
                }
                matches.push((deadline, run.taken));
            }
        }
        matches
    }

    /// An event with the kinds it is of, as bits. `true` where a run was given up for want of room.
    pub(crate) fn event(
        &self,
        runs: &mut Vec<Run>,
        (number, time, kinds): (u64, i64, u32),
        matches: &mut Vec<Match>,
    ) -> bool {
        let mut place = 0;
        while place < runs.len() {
            match self.advance(&mut runs[place], number, time, kinds) {
                Fate::GoesOn => place += 1,
                Fate::Ends => drop(runs.remove(place)),
                Fate::Matches => {
                    matches.push((time, runs.remove(place).taken));
                    if !self.overlap {
                        runs.clear();
                        return false;
                    }
                }
            }
        }
        if kinds & self.steps[0].kind == 0 {
            return false;
        }
        let run = Run { start: time, last: time, taken: vec![vec![number]] };
        if self.is_match(&run) {
            matches.push((time, run.taken));
            return false;
        }
        let full = runs.len() >= self.runs_max;
        if full {
            runs.remove(0);
        }
        runs.push(run);
        full
    }

    /// Whether a run has enough of every step.
    fn has_all(&self, run: &Run) -> bool {
        let place = run.taken.len() - 1;
        place + 1 == self.steps.len() && run.taken[place].len() >= self.steps[place].min
    }

    fn is_match(&self, run: &Run) -> bool {
        self.absent.is_none() && self.has_all(run)
    }

    fn advance(&self, run: &mut Run, number: u64, time: i64, kinds: u32) -> Fate {
        let place = run.taken.len() - 1;
        let (step, count) = (&self.steps[place], run.taken[place].len());
        let enough = count >= step.min;
        let takes = kinds & step.kind != 0 && count < step.max;
        let (absent, on, strict) = match self.steps.get(place + 1) {
            Some(next) => {
                let in_time = next.within.is_none_or(|within| time <= run.last.saturating_add(within));
                (next.absent, kinds & next.kind != 0 && in_time, next.next)
            }
            None => (self.absent.map_or(0, |(absent, _)| absent), false, false),
        };
        if enough && kinds & absent != 0 {
            return Fate::Ends;
        }
        if enough && on {
            run.taken.push(vec![number]);
        } else if takes {
            run.taken[place].push(number);
        } else if enough && strict {
            return Fate::Ends;
        } else {
            return Fate::GoesOn;
        }
        run.last = time;
        if self.is_match(run) { Fate::Matches } else { Fate::GoesOn }
    }
}
