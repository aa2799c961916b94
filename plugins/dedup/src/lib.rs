#![doc = include_str!("../README.md")]

use serde::Deserialize;
use wasmill_sdk::duration;
use wasmill_sdk::json::Pointer;
use wasmill_sdk::prelude::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    within: String,
    by: Option<String>,
    #[serde(default)]
    clock: Time,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Time {
    #[default]
    Event,
    Processing,
}

/// What has been seen, by event key.
enum Dedup {
    ByKey(Value<()>),
    ByField(Pointer, Map<Vec<u8>, ()>),
}

impl Operator for Dedup {
    type Config = Config;

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        let within = duration(&config.within).filter(|within| !within.is_zero()).ok_or_else(|| {
            let found = &config.within;
            ConfigError::at("within", format!("expected a time such as \"30s\", \"10m\" or \"7d\", found {found:?}"))
        })?;
        let clock = match config.clock {
            Time::Event => Clock::Event,
            Time::Processing => Clock::Processing,
        };
        let seen = setup.space("seen").ttl(clock, within);
        Ok(match config.by {
            None => Self::ByKey(seen.value()),
            Some(by) => {
                let pointer = by.parse();
                let pointer =
                    pointer.map_err(|e: wasmill_sdk::json::PointerError| ConfigError::at("by", e.to_string()))?;
                Self::ByField(pointer, seen.map())
            }
        })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let new = match self {
            // Only what is new is written: a repeat does not prolong.
            Self::ByKey(seen) => {
                let new = !seen.exists();
                if new {
                    seen.set(());
                }
                new
            }
            Self::ByField(by, seen) => {
                let Some(field) = event.json().pointer(by)? else { wasmill_sdk::reject!("field `{by}` is missing") };
                let field = field.bytes().to_vec();
                let new = !seen.contains(&field);
                if new {
                    seen.insert(&field, ());
                }
                new
            }
        };
        if new {
            ctx.forward();
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Dedup, stateful);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Dedup;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn a_key_goes_on_once_within_the_time() {
        let mut test = Tester::<Dedup>::new(r#"{"within": "10s"}"#);
        test.watermark(0);
        test.send_all([("a", "1"), ("a", "2"), ("b", "3")]);
        test.restart();
        test.watermark(9 * SECOND);
        test.send("a", "4");
        test.watermark(10 * SECOND);
        test.send("a", "5");
        test.watermark(19 * SECOND);
        test.send("a", "6");
        assert_eq!(test.values(), ["1", "3", "5"]);
    }

    #[test]
    fn events_of_a_key_are_told_apart_by_a_field() {
        let mut test = Tester::<Dedup>::new(r#"{"within": "1m", "by": "/id", "clock": "processing"}"#);
        test.clock(0);
        test.send_all([
            ("a", r#"{"id":1}"#),
            ("a", r#"{"id":2}"#),
            ("b", r#"{"id":1}"#),
            ("a", r#"{"id":1}"#),
            ("a", "{}"),
        ]);
        test.restart();
        test.clock(59 * SECOND);
        test.send("a", r#"{"id":2,"again":true}"#);
        assert_eq!((test.values().len(), test.rejected().len()), (3, 1));
        test.clock(60 * SECOND);
        test.send("a", r#"{"id":2}"#);
        assert_eq!(test.values().len(), 4);
    }

    #[test]
    fn wrong_times_are_refused() {
        for bad in ["", "10", "s", "10 s", "0s", "-1s", "99999999999999999999d"] {
            assert!(Tester::<Dedup>::open(&format!(r#"{{"within": "{bad}"}}"#)).is_err(), "{bad}");
        }
        let error = Tester::<Dedup>::open(r#"{"within": "1m", "by": "id"}"#).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.starts_with("config: `by`: \"id\" is not a JSON pointer")));
    }
}
