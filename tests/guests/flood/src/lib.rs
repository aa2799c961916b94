//! Wants more of everything: for each event so many rows, entries of state, timers and log lines; one
//! event in so many, by its value, makes it loop for ever.
//!
//! Configuration: `{ rows = 100, entries = 100, timers = 100, lines = 100, loop_every = 64 }`, each 0
//! where it is left out.

use serde::Deserialize;
use wasmill_sdk::prelude::*;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    rows: u64,
    entries: u64,
    timers: u64,
    lines: u64,
    loop_every: u64,
}

struct Flood {
    config: Config,
    held: Map<u64, String>,
}

/// Bytes of a row and of an entry.
const BYTES: usize = 100;
/// A time that never comes.
const NEVER: i64 = i64::MAX - 1;

impl Operator for Flood {
    type Config = Config;

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self { config, held: setup.map("held") })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let number = event.value().iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        let Config { rows, entries, timers, lines, loop_every } = self.config;
        if number.checked_rem(loop_every) == Some(0) {
            loop {
                std::hint::spin_loop();
            }
        }
        let text = "x".repeat(BYTES);
        for row in 0..rows.max(1) {
            ctx.emit(if row == 0 { "1" } else { &text });
        }
        for entry in 0..entries {
            self.held.insert(&(number.wrapping_add(entry)), text.clone());
        }
        let mut tag = itoa::Buffer::new();
        for timer in 0..timers {
            ctx.set_timer(Clock::Event, NEVER, tag.format(number.wrapping_add(timer)));
        }
        for line in 0..lines {
            wasmill_sdk::info!("line {line} of event {number}");
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Flood, stateful);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Flood;

    #[test]
    fn one_event_makes_as_many_rows_as_are_wanted() {
        let mut test = Tester::<Flood>::new(r#"{"rows": 3, "entries": 2, "timers": 2, "lines": 1}"#);
        test.send_all([("a", "")]);
        assert_eq!(test.values().len(), 3);
    }
}
