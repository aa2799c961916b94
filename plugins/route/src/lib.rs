#![doc = include_str!("../README.md")]

use expression::Expression;
use serde::Deserialize;
use wasmill_sdk::prelude::*;
use wasmill_sdk::serde_json;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// In the order in which they are written.
    routes: serde_json::Map<String, serde_json::Value>,
    otherwise: Option<String>,
    #[serde(default)]
    all: bool,
}

struct Route {
    /// By output port.
    routes: Vec<Expression>,
    otherwise: bool,
    all: bool,
}

impl Operator for Route {
    type Config = Config;

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        if config.routes.is_empty() {
            return Err(ConfigError::at("routes", "expected at least one, such as dear = '.price > 1000'"));
        }
        let mut routes = Vec::new();
        for (port, expression) in &config.routes {
            let at = |message: &str| ConfigError::at(format!("routes.{port}"), message);
            let text = expression.as_str().ok_or_else(|| at("expected an expression in quotes"))?;
            routes.push(Expression::new(text).map_err(|error| at(&error.to_string()))?);
        }
        setup.outputs(config.routes.keys().chain(&config.otherwise));
        Ok(Self { routes, otherwise: config.otherwise.is_some(), all: config.all })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let mut found = false;
        for (port, expression) in self.routes.iter().enumerate() {
            if expression.holds(&event)? {
                ctx.port(port).forward();
                found = true;
                if !self.all {
                    break;
                }
            }
        }
        if !found && self.otherwise {
            ctx.port(self.routes.len()).forward();
        }
        Ok(())
    }
}

wasmill_sdk::operator!(Route);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Route;

    const EVENTS: [(&str, &str); 4] = [("a", r#"{"n":5}"#), ("a", r#"{"n":50}"#), ("a", r#"{"n":500}"#), ("a", "{}")];

    #[test]
    fn an_event_goes_to_the_first_port_that_holds() {
        let config = r#"{"routes": {"big": ".n > 100", "middle": ".n > 10"}, "otherwise": "rest"}"#;
        let mut test = Tester::<Route>::new(config);
        test.send_all(EVENTS);
        assert_eq!(test.port(0), [r#"{"n":500}"#]);
        assert_eq!(test.port(1), [r#"{"n":50}"#]);
        assert_eq!(test.port(2), [r#"{"n":5}"#, "{}"]);
    }

    #[test]
    fn an_event_goes_to_every_port_that_holds_where_all_is_set() {
        let mut test = Tester::<Route>::new(r#"{"routes": {"big": ".n > 100", "middle": ".n > 10"}, "all": true}"#);
        test.send_all(EVENTS);
        assert_eq!((test.port(0).len(), test.port(1).len(), test.rows().len()), (1, 2, 3));
    }

    #[test]
    fn wrong_routes_are_named() {
        let error =
            |config: &str| Tester::<Route>::open(config).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error(r#"{"routes": {"a": ".n >"}}"#), "config: `routes.a`: at the end: expected term");
        assert_eq!(error(r#"{"routes": {"a": 7}}"#), "config: `routes.a`: expected an expression in quotes");
        assert_eq!(
            error(r#"{"routes": {}}"#),
            "config: `routes`: expected at least one, such as dear = '.price > 1000'"
        );
        assert_eq!(error(r#"{"routes": {"a": "."}, "otherwise": "a"}"#), "config: output port `a` is declared twice");
    }
}
