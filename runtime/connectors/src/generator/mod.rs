//! A source of made-up events, for trials and measurements.
//!
//! Event `k` is a function of the seed and `k`: `{"seq":k,"key":"k7","at":micros}`. With a `rate` it
//! is due at start + k / rate, and a batch says that it arrived when its oldest event was due, however
//! late the job asked for it: latencies that are measured from there leave nothing out.
//!
//! `at` is the event time in microseconds since the Unix epoch, also the time of the row, as the key
//! is its key. It starts at the wall time of the first start where there is a rate, and goes on in
//! steps of 1 / rate; without one it starts at 2024-01-01 and goes on in steps of 1 ms. `disorder`
//! moves each `at` back by up to that much.

mod config;
mod event;
mod pacer;
mod source;

use crate::{Connector, SourceEntry};

pub(crate) const CONNECTOR: Connector = Connector {
    name: "generator",
    source: Some(SourceEntry { build: source::build, schema: || schemars::schema_for!(config::GeneratorConfig) }),
    sink: None,
};
