//! Of all routes of a window, those with the longest mean delay.
//!
//! An aggregate over the results of another one: an event is what `std:aggregate` knows of one
//! route.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use wasmill_sdk::prelude::*;
use wasmill_sdk::serde;
use wasmill_sdk::serde_json::json;

/// How many routes to name, and which count.
#[derive(Debug, Deserialize)]
#[serde(crate = "serde", deny_unknown_fields)]
pub struct Config {
    /// Most routes of a result.
    limit: usize,
    /// Flights that a route needs.
    flights_min: u64,
}

/// A route during the window.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(crate = "serde")]
pub struct Route {
    #[serde(alias = "key")]
    route: String,
    #[serde(alias = "count")]
    flights: u64,
    delay: f64,
}

/// The aggregate.
#[derive(Debug)]
pub struct WorstRoutes {
    config: Config,
}

impl WorstRoutes {
    fn add(&self, worst: &mut Vec<Route>, route: Route) {
        let at = worst.partition_point(|other| by_delay(other, &route) == Ordering::Less);
        if at < self.config.limit {
            worst.insert(at, route);
            worst.truncate(self.config.limit);
        }
    }
}

/// The longest mean delay first; by name where they are equal, so that the order of events does not
/// matter.
fn by_delay(one: &Route, other: &Route) -> Ordering {
    other.delay.total_cmp(&one.delay).then_with(|| one.route.cmp(&other.route))
}

impl Aggregate for WorstRoutes {
    type Config = Config;
    type Accumulator = Json<Vec<Route>>;

    const COLUMNS: Columns = Columns::VALUES;

    fn open(config: Config) -> Result<Self, ConfigError> {
        if config.limit == 0 {
            return Err(ConfigError::at("limit", "expected at least 1"));
        }
        Ok(Self { config })
    }

    fn fold(&self, worst: &mut Self::Accumulator, event: Event<'_>) -> Result<(), Reject> {
        let route: Route = event.json().parse()?;
        if route.flights >= self.config.flights_min {
            self.add(worst, route);
        }
        Ok(())
    }

    fn merge(&self, into: &mut Self::Accumulator, from: Self::Accumulator) {
        from.0.into_iter().for_each(|route| self.add(into, route));
    }

    fn finish(&self, pane: Pane<'_>, worst: Self::Accumulator, out: &mut Results) {
        let millis = |micros: i64| micros.div_euclid(1_000);
        let (start, end) = (millis(pane.start()), millis(pane.end()));
        out.emit(json!({"start": start, "end": end, "worst": worst.0}).to_string());
    }
}

wasmill_sdk::aggregate!(WorstRoutes);

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::WindowTester;

    use super::*;

    const CONFIG: &str = r#"{"limit": 2, "flights_min": 5}"#;

    fn route(name: &str, count: u64, delay: f64) -> String {
        json!({"key": name, "start": 0, "end": 10, "count": count, "delay": delay}).to_string()
    }

    #[test]
    fn longest_delays_come_first_and_routes_with_few_flights_do_not_count() {
        let mut test = WindowTester::<WorstRoutes>::tumbling(CONFIG, 10_000);
        let routes = [("a", 5, 10.0), ("b", 9, 30.0), ("c", 4, 99.0), ("d", 7, 10.0), ("e", 6, -3.0)];
        test.send_all(routes.iter().rev().map(|&(name, count, delay)| (1, "", route(name, count, delay))));
        test.watermark(9_999);
        let expected = r#"{"start":0,"end":10,"worst":[{"route":"b","flights":9,"delay":30.0},{"route":"a","flights":5,"delay":10.0}]}"#;
        assert_eq!(test.values(), [expected]);
    }

    #[test]
    fn what_is_no_route_is_rejected() {
        let mut test = WindowTester::<WorstRoutes>::tumbling(CONFIG, 10_000);
        test.send(1, "", r#"{"key":"a","count":5}"#);
        test.watermark(9_999);
        assert_eq!(test.rejected()[0].reason, "missing field `delay` at line 1 column 21");
        assert!(WindowTester::<WorstRoutes>::open(r#"{"limit": 0, "flights_min": 1}"#, 10, 10).is_err());
    }
}
