//! Topics of the embedded log as source and sink.
//!
//! As a source, a topic has the partitions of the topic and positions that are offsets. As a sink it
//! stands behind the [outbox](crate::outbox): the topic remembers the last rows of each writer, so that
//! rows that are delivered again are there once.

mod config;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use wasmill_contract::ConnectorError;
use wasmill_model::TopicName;
use wasmill_store::TopicError;

use crate::options::ConfigError;
use crate::{Connector, SinkEntry, SourceEntry};

pub(crate) const CONNECTOR: Connector = Connector {
    name: "topic",
    source: Some(SourceEntry { build: source::build, schema: || schemars::schema_for!(config::SourceConfig) }),
    sink: Some(SinkEntry { build: sink::build, schema: || schemars::schema_for!(config::SinkConfig) }),
};

fn topic_name(text: &str) -> Result<TopicName, ConfigError> {
    TopicName::new(text).map_err(|error| ConfigError::of("topic", format!("topic {text:?}: {error}")))
}

/// What a topic says, with what to do about it.
fn error(error: TopicError) -> ConnectorError {
    let kind = error.kind();
    match &error {
        TopicError::Missing { name, .. } => {
            ConnectorError::new(kind, format!("{error}; `wasmill topic create {name}` makes it"))
        }
        TopicError::Gone { .. } => {
            ConnectorError::new(kind, format!("{error}; `gone = \"earliest\"` goes on from there"))
        }
        _ => ConnectorError::new(kind, error.to_string()).caused_by(error),
    }
}
