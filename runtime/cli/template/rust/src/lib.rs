//! Lets an event through when its number is a new record for its key.

use wasmill_sdk::prelude::*;
use wasmill_sdk::serde::{self, Deserialize};

/// What the stage's `config` holds.
#[derive(Debug, Deserialize)]
#[serde(crate = "serde", deny_unknown_fields)]
pub struct Config {
    /// The field with the number.
    field: String,
}

/// The operator. Its state belongs to the key of the event at hand.
pub struct Records {
    field: String,
    highest: Value<f64>,
}

impl Operator for Records {
    type Config = Config;

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        if config.field.is_empty() {
            return Err(ConfigError::at("field", "expected the name of a field"));
        }
        Ok(Self { field: config.field, highest: setup.value("highest") })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        // An event without the field is rejected: it goes to the dead letters, the rest goes on.
        let number = event.json().f64(&self.field)?;
        if self.highest.get().is_none_or(|highest| number > highest) {
            self.highest.set(number);
            ctx.forward();
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Records, stateful);

#[cfg(test)]
mod tests {
    use super::*;
    use wasmill_sdk::testing::Tester;

    #[test]
    fn only_records_go_on() {
        let mut test = Tester::<Records>::new(r#"{"field": "n"}"#);
        test.send_all([("a", r#"{"n": 2}"#), ("a", r#"{"n": 1}"#), ("b", r#"{"n": 1}"#), ("a", r#"{"n": 3}"#)]);
        assert_eq!(test.values(), [r#"{"n": 2}"#, r#"{"n": 1}"#, r#"{"n": 3}"#]);
    }

    #[test]
    fn records_outlive_an_instance() {
        let mut test = Tester::<Records>::new(r#"{"field": "n"}"#);
        test.send("a", r#"{"n": 2}"#);
        test.restart();
        test.send("a", r#"{"n": 1}"#);
        assert_eq!(test.values().len(), 1);
    }

    #[test]
    fn an_event_without_the_number_is_rejected() {
        let mut test = Tester::<Records>::new(r#"{"field": "n"}"#);
        test.send("a", "{}");
        assert_eq!(test.rejected().len(), 1);
    }
}
