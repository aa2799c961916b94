//! The join of a stream with the versions of a table: each row finds the version that held at its
//! event time.
//!
//! A row waits until the watermark has reached its time: then every version up to that time is there.
//! Of the versions that the watermark has passed the newest one stays.

use wasmill_sdk::prelude::*;

use crate::config::Outer;
use crate::pair::{Held, Pairs, Rows, value};

/// The tag of the timer of rows, and of that of versions.
const TAGS: [[u8; 1]; 2] = [[0], [1]];

pub(crate) struct Version {
    pub(crate) outer: Outer,
    /// Rows that wait, by time.
    pub(crate) rows: Map<i64, Rows>,
    /// The last of each time; empty where the entry was deleted.
    pub(crate) versions: Map<i64, Vec<u8>>,
    pub(crate) pairs: Pairs,
}

impl Version {
    pub(crate) fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let (time, now) = (event.time(), ctx.now(Clock::Event));
        if event.port() == 1 {
            let gone = event.value().trim_ascii();
            let version = if gone.is_empty() || gone == b"null" { Vec::new() } else { value(&event)? };
            self.versions.insert(&time, version);
            self.forget(now);
            ctx.set_timer(Clock::Event, time.max(now), TAGS[1]);
            return Ok(());
        }
        let own = value(&event)?;
        if time <= now {
            self.emit(&own, time, ctx);
            return Ok(());
        }
        if self.rows.first_key().is_none_or(|first| time < first) {
            ctx.set_timer(Clock::Event, time, TAGS[0]);
        }
        self.rows.update(&time, |rows| rows.0.push(Held { matched: false, value: own }));
        Ok(())
    }

    fn emit(&self, own: &[u8], time: i64, ctx: &mut Context<'_>) {
        let version = self.versions.range(&i64::MIN, &time).pop().map(|(_, version)| version);
        let version = version.filter(|version| !version.is_empty());
        if version.is_some() || self.outer.keeps(0) {
            ctx.row().time(time).emit_with(|out| self.pairs.write(out, [Some(own), version.as_deref()]));
        }
    }

    pub(crate) fn timer(&mut self, timer: Timer<'_>, ctx: &mut Context<'_>) {
        let now = ctx.now(Clock::Event);
        if timer.tag() == TAGS[0] {
            for (time, rows) in self.rows.range(&i64::MIN, &now) {
                self.rows.remove(&time);
                rows.0.iter().for_each(|row| self.emit(&row.value, time, ctx));
            }
            if let Some(first) = self.rows.first_key() {
                ctx.set_timer(Clock::Event, first, TAGS[0]);
            }
        }
        self.forget(now);
    }

    /// Drops versions that no row will find any more. Rows that wait may have times up to now: they are
    /// gone only after their own timer, which may be next.
    fn forget(&self, now: i64) {
        let needed = self.rows.first_key().map_or(now, |first| first.min(now));
        let mut passed = self.versions.range(&i64::MIN, &needed);
        passed.pop();
        passed.into_iter().for_each(|(time, _)| drop(self.versions.remove(&time)));
    }
}
