//! HTTP: a source that takes events in, a sink that posts rows.
//!
//! The source speaks CloudEvents in the three modes of its HTTP binding, JSON and JSON lines
//! ([`decode`]); what it takes goes through [`crate::ingest`]. The sink delivers through
//! [`crate::outbox`], under ids by which the target drops what it has.

mod config;
mod decode;
mod encode;
#[cfg(test)]
mod fuzz;
mod rate;
mod server;
mod sink;
mod source;

use crate::{Connector, SinkEntry, SourceEntry};

pub(crate) const CONNECTOR: Connector = Connector {
    name: "http",
    source: Some(SourceEntry { build: source::build, schema: || schemars::schema_for!(config::SourceConfig) }),
    sink: Some(SinkEntry { build: sink::build, schema: || schemars::schema_for!(sink::SinkConfig) }),
};
