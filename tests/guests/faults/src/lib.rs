//! Counts events by key, and fails on those whose field `do` says so: `trap`, `loop`, `fail`,
//! `hoard` (until memory is gone), `reject`; `timer` sets a timer that counts, `timer-trap` one that
//! traps. Counts are kept in memory until they are flushed, so a trap takes them along.
//!
//! Configuration: `{ mended = true }` for a plugin that fails on nothing.

use serde::Deserialize;
use wasmill_sdk::prelude::*;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    mended: bool,
}

struct Faults {
    seen: Value<u64>,
    mended: bool,
}

/// What an event asks for.
fn does(event: &Event<'_>) -> String {
    event.json().str("do").map(|does| does.to_string()).unwrap_or_default()
}

impl Faults {
    fn count(&mut self, ctx: &mut Context<'_>) {
        let count = self.seen.update(|count| {
            *count += 1;
            *count
        });
        ctx.emit(itoa::Buffer::new().format(count));
    }
}

impl Operator for Faults {
    type Config = Config;

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        Ok(Self { seen: setup.value("seen"), mended: config.mended })
    }

    fn batch(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        let mut failed = false;
        ctx.each(|event, ctx| {
            failed |= !self.mended && does(&event) == "fail";
            self.event(event, ctx)
        });
        if failed { Err(Failure::Fatal("told to fail".into())) } else { Ok(()) }
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let does = does(&event);
        match does.as_str() {
            _ if self.mended => {}
            "trap" => panic!("told to trap"),
            "loop" => loop {
                std::hint::spin_loop();
            },
            "hoard" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&hoard);
                }
            }
            "reject" => return Err(Reject::new("told to reject")),
            "timer" | "timer-trap" => ctx.set_timer(Clock::Event, i64::MAX - 1, &does),
            _ => {}
        }
        self.count(ctx);
        Ok(())
    }

    fn timer(&mut self, timer: Timer<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        assert!(timer.tag() != b"timer-trap", "told to trap in a timer");
        self.count(ctx);
        Ok(())
    }
}

wasmill_sdk::operator!(Faults, stateful);
