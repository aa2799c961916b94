#![doc = include_str!("../README.md")]

use expression::Expression;
use serde::Deserialize;
use wasmill_sdk::prelude::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    r#where: String,
}

struct Filter {
    expression: Expression,
}

impl Operator for Filter {
    type Config = Config;

    fn open(config: Config, _: &mut Setup) -> Result<Self, ConfigError> {
        let expression = Expression::new(&config.r#where).map_err(|e| ConfigError::at("where", e.to_string()))?;
        Ok(Self { expression })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        if self.expression.holds(&event)? {
            ctx.forward();
        }
        Ok(())
    }

    fn batch(&mut self, ctx: &mut Context<'_>) -> Result<(), Failure> {
        ctx.filter(|event| self.expression.holds(&event));
        Ok(())
    }
}

wasmill_sdk::operator!(Filter);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Filter;

    #[test]
    fn events_go_on_where_it_holds() {
        let mut test = Tester::<Filter>::new(r#"{"where": ".price > 10 or $key == \"vip\""}"#);
        test.send_all([("a", r#"{"price":5}"#), ("a", r#"{"price":50}"#), ("vip", r#"{"price":5}"#), ("a", "x")]);
        assert_eq!(test.values(), [r#"{"price":50}"#, r#"{"price":5}"#]);
        assert_eq!((test.forms(), test.rejected().len()), (&["keep"][..], 1));
    }

    #[test]
    fn a_wrong_expression_is_shown_with_its_place() {
        let error = Tester::<Filter>::open(r#"{"where": ".price >"}"#).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("config: `where`: at the end: expected term"));
    }
}
