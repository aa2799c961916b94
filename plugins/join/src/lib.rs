#![doc = include_str!("../README.md")]

mod config;
mod pair;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod timed;
mod version;

use std::time::Duration;

use wasmill_sdk::prelude::*;

use config::{Config, micros, offset, pointer};
use pair::Pairs;
use session::Session;
use table::Table;
use timed::{Span, Timed};
use version::Version;

enum Join {
    Timed(Timed),
    Session(Session),
    Table(Table),
    Version(Version),
}

impl Operator for Join {
    type Config = Config;
    const INPUTS: &'static [&'static str] = &["left", "right"];

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        let mut timed = |span, outer, names| {
            let waiting = [setup.map("left"), setup.map("right")];
            Ok(Self::Timed(Timed { span, outer, waiting, pairs: Pairs::new(names)? }))
        };
        match config {
            Config::Interval { from, to, outer, names } => {
                let (from, to) = (offset("from", &from)?, offset("to", &to)?);
                if from > to {
                    return Err(ConfigError::at("to", "is before `from`: no row would have a partner"));
                }
                timed(Span::Interval { from, to }, outer, names)
            }
            Config::Window { size, every, outer, names } => {
                let size = micros("size", &size)?;
                if size == 0 {
                    return Err(ConfigError::at("size", "a window has a length"));
                }
                let every = every.map_or(Ok(size), |every| micros("every", &every))?;
                if !(1..=size).contains(&every) {
                    return Err(ConfigError::at("every", "is longer than nothing, and at most `size`"));
                }
                timed(Span::Window { size, every }, outer, names)
            }
            Config::Session { gap, outer, names } => {
                let gap = micros("gap", &gap)?;
                if gap == 0 {
                    return Err(ConfigError::at("gap", "a silence has a length"));
                }
                let (sessions, waiting) = (setup.map("sessions"), [setup.map("left"), setup.map("right")]);
                Ok(Self::Session(Session { gap, outer, sessions, waiting, pairs: Pairs::new(names)? }))
            }
            Config::Table { left, right, keep, changes, names } => {
                let ids = [pointer("left", left)?, pointer("right", right)?];
                let keep = keep.map(|keep| micros("keep", &keep)).transpose()?;
                let mut space = |name| match keep {
                    Some(keep) => {
                        let after = Duration::from_micros(keep.unsigned_abs());
                        setup.space(name).ttl(Clock::Event, after).map()
                    }
                    None => setup.map(name),
                };
                let entries = [space("left"), space("right")];
                Ok(Self::Table(Table { ids, entries, changes, pairs: Pairs::new(names)? }))
            }
            Config::Version { outer, names } => {
                if outer.keeps(1) {
                    return Err(ConfigError::at("outer", "versions do not leave alone: \"left\" or nothing"));
                }
                let (rows, versions) = (setup.map("rows"), setup.map("versions"));
                Ok(Self::Version(Version { outer, rows, versions, pairs: Pairs::new(names)? }))
            }
        }
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        match self {
            Self::Timed(join) => join.event(event, ctx),
            Self::Session(join) => join.event(event, ctx),
            Self::Table(join) => join.event(event, ctx),
            Self::Version(join) => join.event(event, ctx),
        }
    }

    fn timer(&mut self, timer: Timer<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        match self {
            Self::Timed(join) => join.timer(timer, ctx),
            Self::Session(join) => join.timer(ctx),
            Self::Version(join) => join.timer(timer, ctx),
            // It sets none.
            Self::Table(_) => {}
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Join, stateful);
