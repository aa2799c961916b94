//! Joins of two streams by time: of an interval, and of a window.
//!
//! A row waits until the watermark has passed the last time that a partner could have. Pairs leave as
//! soon as both rows are there; a row that leaves alone does when it has waited long enough.

use wasmill_sdk::prelude::*;

use crate::config::Outer;
use crate::pair::{Held, Pairs, Rows, sides, value};

/// Which times belong together. Microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Span {
    /// The right row is from this much to that much later than the left one.
    Interval { from: i64, to: i64 },
    /// Some window holds both: they have this length, and one begins every so often, counted from the Unix epoch.
    Window { size: i64, every: i64 },
}

impl Span {
    /// The first and the last time that a partner of a row can have.
    fn partners(self, side: usize, time: i64) -> (i64, i64) {
        match (self, side) {
            (Self::Interval { from, to }, 0) => (time.saturating_add(from), time.saturating_add(to)),
            (Self::Interval { from, to }, _) => (time.saturating_sub(to), time.saturating_sub(from)),
            (Self::Window { size, every }, _) => {
                // The last window that holds the time, and the first.
                let last = time.saturating_sub(time.rem_euclid(every));
                let first = last.saturating_sub((size - 1 - (time - last)) / every * every);
                (first, last.saturating_add(size - 1))
            }
        }
    }

    /// The latest time of rows that can find no partner any more.
    fn over(self, side: usize, watermark: i64) -> i64 {
        match (self, side) {
            _ if watermark == i64::MAX => i64::MAX,
            (Self::Interval { to, .. }, 0) => watermark.saturating_sub(to),
            (Self::Interval { from, .. }, _) => watermark.saturating_add(from),
            (Self::Window { size, every }, _) => {
                let begun = (watermark + 1).saturating_sub(size);
                begun.saturating_sub(begun.rem_euclid(every)).saturating_add(every - 1)
            }
        }
    }
}

pub(crate) struct Timed {
    pub(crate) span: Span,
    pub(crate) outer: Outer,
    /// Rows that wait, by time.
    pub(crate) waiting: [Map<i64, Rows>; 2],
    pub(crate) pairs: Pairs,
}

impl Timed {
    pub(crate) fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let own = value(&event)?;
        let (side, time) = (usize::from(event.port().min(1)), event.time());
        let (first, last) = self.span.partners(side, time);
        let others = &self.waiting[1 - side];
        let mut matched = false;
        for (at, mut rows) in others.range(&first, &last) {
            for row in &rows.0 {
                let pair = sides(side, Some(&own), Some(&row.value));
                ctx.row().time(time.max(at)).emit_with(|out| self.pairs.write(out, pair));
                matched = true;
            }
            if self.outer.keeps(1 - side) && rows.0.iter().any(|row| !row.matched) {
                rows.0.iter_mut().for_each(|row| row.matched = true);
                others.insert(&at, rows);
            }
        }
        if last > ctx.now(Clock::Event) {
            let waiting = &self.waiting[side];
            if waiting.first_key().is_none_or(|first| time < first) {
                ctx.set_timer(Clock::Event, last, [side as u8]);
            }
            waiting.update(&time, |rows| rows.0.push(Held { matched, value: own }));
        } else if !matched && self.outer.keeps(side) {
            // It came so late that nothing can come for it any more.
            ctx.emit_with(|out| self.pairs.write(out, sides(side, Some(&own), None)));
        }
        Ok(())
    }

    pub(crate) fn timer(&mut self, timer: Timer<'_>, ctx: &mut Context<'_>) {
        let side = usize::from(timer.tag() != [0]);
        let waiting = &self.waiting[side];
        let over = self.span.over(side, ctx.now(Clock::Event));
        for (time, rows) in waiting.range(&i64::MIN, &over) {
            waiting.remove(&time);
            let (_, last) = self.span.partners(side, time);
            for row in rows.0.iter().filter(|row| !row.matched && self.outer.keeps(side)) {
                let alone = sides(side, Some(&row.value), None);
                ctx.row().time(last.max(time)).emit_with(|out| self.pairs.write(out, alone));
            }
        }
        if let Some(first) = waiting.first_key() {
            ctx.set_timer(Clock::Event, self.span.partners(side, first).1, [side as u8]);
        }
    }
}
