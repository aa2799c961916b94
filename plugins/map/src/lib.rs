#![doc = include_str!("../README.md")]

use expression::{Expression, write};
use serde::Deserialize;
use wasmill_sdk::prelude::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    expression: String,
}

struct Map {
    expression: Expression,
}

impl Operator for Map {
    type Config = Config;

    fn open(config: Config, _: &mut Setup) -> Result<Self, ConfigError> {
        let expression =
            Expression::new(&config.expression).map_err(|e| ConfigError::at("expression", e.to_string()))?;
        Ok(Self { expression })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let mut result = None;
        self.expression.run(&event, &mut |value| match result.replace(value) {
            None => Ok(()),
            Some(_) => Err(Reject::new("the expression yields several results; use std:flat-map for that")),
        })?;
        match result {
            Some(value) => ctx.emit_with(|out| write(&value, out)),
            None => wasmill_sdk::reject!("the expression yields no result; use std:flat-map for that"),
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Map);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Map;

    #[test]
    fn every_event_has_one_new_value() {
        let mut test = Tester::<Map>::new(r#"{"expression": "{price: (.price * 2), k: $key}"}"#);
        test.send_all([("a", r#"{"price":5}"#), ("b", r#"{"price":1.5}"#)]);
        assert_eq!(test.values(), [r#"{"price":10,"k":"a"}"#, r#"{"price":3.0,"k":"b"}"#]);
        assert_eq!(test.forms(), ["values"]);
    }

    #[test]
    fn no_or_several_results_are_rejected() {
        let mut test = Tester::<Map>::new(r#"{"expression": ".[]"}"#);
        test.send_all([("a", "[]"), ("a", "[1]"), ("a", "[1,2]")]);
        assert_eq!((test.values(), test.rejected().len()), (vec!["1".to_owned()], 2));
    }
}
