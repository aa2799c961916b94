#![doc = include_str!("../README.md")]

use expression::{Expression, write};
use serde::Deserialize;
use wasmill_sdk::prelude::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    expression: String,
}

struct FlatMap {
    expression: Expression,
}

impl Operator for FlatMap {
    type Config = Config;

    fn open(config: Config, _: &mut Setup) -> Result<Self, ConfigError> {
        let expression =
            Expression::new(&config.expression).map_err(|e| ConfigError::at("expression", e.to_string()))?;
        Ok(Self { expression })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        self.expression.run(&event, &mut |value| {
            ctx.emit_with(|out| write(&value, out));
            Ok(())
        })
    }
}

wasmill_sdk::operator!(FlatMap);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::FlatMap;

    #[test]
    fn every_result_is_a_row() {
        let config = r#"{"expression": ".id as $order | .items[] | {order: $order, sku}"}"#;
        let mut test = Tester::<FlatMap>::new(config);
        test.send_all([("a", r#"{"id":1,"items":[{"sku":"x"},{"sku":"y"}]}"#), ("b", r#"{"id":2,"items":[]}"#)]);
        assert_eq!(test.values(), [r#"{"order":1,"sku":"x"}"#, r#"{"order":1,"sku":"y"}"#]);
    }

    #[test]
    fn an_event_that_fails_half_way_leaves_nothing() {
        let mut test = Tester::<FlatMap>::new(r#"{"expression": ".[] | 1 / ."}"#);
        test.send_all([("a", "[1,2]"), ("a", r#"[1,"x"]"#)]);
        assert_eq!((test.values().len(), test.rejected().len()), (2, 1));
    }
}
