//! `std:aggregate`: what a window knows of its events, as one JSON object.
//!
//! ```toml
//! [stage.per-minute]
//! plugin = "std:aggregate"
//! input = { from = "trips", key = "/carrier" }
//! window = { tumbling = "1m" }
//!
//! [stage.per-minute.config]
//! count = true
//! sum.miles = "/distance"
//! mean.delay = "/delay"
//! min.first = "/departure"
//! max.last = "/arrival"
//! distinct.planes = "/tail"
//! top.routes = { field = "/route", limit = 3 }
//! quantile.delays = { field = "/delay", at = [0.5, 0.99] }
//! ```
//!
//! gives for each key and window
//!
//! ```json
//! {"key":"AA","start":1357016400000,"end":1357016460000,"count":41,"miles":33120,"delay":7.25,
//!  "first":500,"last":1322,"planes":38,"routes":[{"value":"JFK-LAX","count":4}],"delays":{"0.5":2.0,"0.99":88.0}}
//! ```
//!
//! | key | result | of the fields |
//! | --- | --- | --- |
//! | `count` | number of events | none; what an empty configuration means |
//! | `sum` | sum, exact for integers, `0` for none | numbers |
//! | `mean` | mean, `null` for none | numbers |
//! | `min`, `max` | smallest and largest, `null` for none | numbers and strings; numbers are smaller |
//! | `distinct` | number of different values: exact up to 1,024, then with a standard error of 1.6 % | any |
//! | `top` | the most frequent values and how often, at most `limit` (10): exact up to 1,024 different values, then counts may be too low by 1/1,024 of all events | any |
//! | `quantile` | values below which a share of all lies: exact up to 256, then within 1 % | numbers |
//!
//! Under each but `count` stand names of results and for each the JSON pointer of a field. In the
//! result they stand in the order of this table, and within a kind as they are written. `start` and `end` are the bounds
//! of the window in milliseconds since the Unix epoch. Events that lack a field, or where it is
//! `null`, do not count for it; an event where it is of another kind is rejected. Results do not
//! depend on how the events were shared out and merged, but for the last digits of sums and means
//! of fractions.

mod config;
mod distinct;
mod number;
mod part;
mod quantile;
mod top;

use serde::{Deserialize, Serialize};
use wasmill_sdk::prelude::*;
use wasmill_sdk::{Codec, CodecError, serde_json};

use config::{Config, Field};
use part::Part;

struct Standard {
    fields: Vec<Field>,
}

/// What is known of a window's events: one part for each field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    count: u64,
    parts: Vec<Part>,
}

impl Codec for Known {
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match postcard::to_extend(self, std::mem::take(out)) {
            Ok(bytes) => *out = bytes,
            // Everything here has a form in bytes; an empty accumulator would be a new one.
            Err(_) => out.truncate(start),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        postcard::from_bytes(bytes).map_err(|error| CodecError::new(error.to_string()))
    }
}

impl Aggregate for Standard {
    type Config = Config;
    type Accumulator = Known;
    const COLUMNS: Columns = Columns::VALUES;

    fn open(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { fields: config.fields()? })
    }

    fn fold(&self, known: &mut Known, event: Event<'_>) -> Result<(), Reject> {
        // All fields are read before any counts: a rejected event leaves nothing.
        let mut found = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            found.push(field.read(event)?);
        }
        known.parts.resize_with(self.fields.len(), || Part::None);
        known.count += 1;
        for ((field, part), value) in self.fields.iter().zip(&mut known.parts).zip(found) {
            if let Some(value) = value {
                part.add(field.kind, value);
            }
        }
        Ok(())
    }

    fn merge(&self, into: &mut Known, from: Known) {
        into.count += from.count;
        into.parts.resize_with(self.fields.len(), || Part::None);
        for (part, other) in into.parts.iter_mut().zip(from.parts) {
            part.merge(other);
        }
    }

    fn finish(&self, pane: Pane<'_>, known: Known, out: &mut Results) {
        let mut row = serde_json::Map::new();
        row.insert("key".into(), String::from_utf8_lossy(pane.key()).into());
        row.insert("start".into(), pane.start().div_euclid(1000).into());
        row.insert("end".into(), pane.end().div_euclid(1000).into());
        let mut parts = known.parts.into_iter();
        for field in &self.fields {
            let part = parts.next().unwrap_or(Part::None);
            row.insert(field.name.clone(), part.result(field, known.count));
        }
        out.emit(serde_json::Value::Object(row).to_string());
    }
}

wasmill_sdk::aggregate!(Standard);

#[cfg(test)]
mod tests;
