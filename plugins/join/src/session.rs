//! The join of two streams by session: rows of a key that follow each other by less than a gap.
//!
//! Two sessions become one where a row closes the gap between them, so pairs leave when the session is over:
//! the watermark has passed every time at which it could still grow.

use wasmill_sdk::prelude::*;

use crate::config::Outer;
use crate::pair::{Held, Pairs, Rows, sides, value};

pub(crate) struct Session {
    /// Microseconds, at least one.
    pub(crate) gap: i64,
    pub(crate) outer: Outer,
    /// The last time of each session that is open, by its first. They are `gap` apart, at least.
    pub(crate) sessions: Map<i64, i64>,
    /// Their rows, by time.
    pub(crate) waiting: [Map<i64, Rows>; 2],
    pub(crate) pairs: Pairs,
}

impl Session {
    /// The last time at which a session still grows.
    fn end(&self, last: i64) -> i64 {
        last.saturating_add(self.gap - 1)
    }

    pub(crate) fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let own = value(&event)?;
        let (side, time) = (usize::from(event.port().min(1)), event.time());
        let mut joined = self.sessions.range(&i64::MIN, &self.end(time));
        joined.retain(|&(_, last)| self.end(last) >= time);
        if joined.is_empty() && self.end(time) <= ctx.now(Clock::Event) {
            // It came so late that nothing can come for it any more.
            if self.outer.keeps(side) {
                ctx.emit_with(|out| self.pairs.write(out, sides(side, Some(&own), None)));
            }
            return Ok(());
        }
        let first = joined.iter().map(|&(first, _)| first).fold(time, i64::min);
        let last = joined.iter().map(|&(_, last)| last).fold(time, i64::max);
        // The timer is that of the first session; when it fires, it moves to where that one ends by then.
        if self.sessions.first_key().is_none_or(|earliest| first < earliest) {
            ctx.set_timer(Clock::Event, self.end(last), []);
        }
        if joined != [(first, last)] {
            for (first, _) in &joined {
                self.sessions.remove(first);
            }
            self.sessions.insert(&first, last);
        }
        self.waiting[side].update(&time, |rows| rows.0.push(Held { matched: false, value: own }));
        Ok(())
    }

    pub(crate) fn timer(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now(Clock::Event);
        while let Some(first) = self.sessions.first_key() {
            let last = self.sessions.get(&first).unwrap_or(first);
            if self.end(last) > now {
                ctx.set_timer(Clock::Event, self.end(last), []);
                return;
            }
            self.sessions.remove(&first);
            self.close(first, last, ctx);
        }
    }

    /// Every pair of a session, or the rows of the only side that has any.
    fn close(&self, first: i64, last: i64, ctx: &mut Context<'_>) {
        let rows = self.waiting.each_ref().map(|waiting| {
            let rows = waiting.range(&first, &last);
            rows.iter().for_each(|(time, _)| drop(waiting.remove(time)));
            rows.into_iter().flat_map(|(_, rows)| rows.0).collect::<Vec<Held>>()
        });
        let time = self.end(last);
        let mut emit = |sides| ctx.row().time(time).emit_with(|out| self.pairs.write(out, sides));
        for left in &rows[0] {
            rows[1].iter().for_each(|right| emit([Some(&*left.value), Some(&*right.value)]));
        }
        for side in 0..2 {
            if rows[1 - side].is_empty() && self.outer.keeps(side) {
                rows[side].iter().for_each(|row| emit(sides(side, Some(&row.value), None)));
            }
        }
    }
}
