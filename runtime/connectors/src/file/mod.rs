//! Files: a source of records in text files, a sink of lines.
//!
//! # Source: partitions and positions
//! With `order = "together"` every file is a partition, and all are read side by side. With
//! `order = "by-name"` or `follow = true` all files are one partition. A position says for each file
//! that is being read its name, the offset of the next record and a hash of its first bytes, so that
//! another file under the same name is noticed. Offsets count bytes after decompression.
//!
//! The offset of a row (its lineage) is that of its first byte in its file, with the number of the
//! file within its partition in the upper 16 bits.
//!
//! # Sink: crash consistency
//! See [`sink`].

mod config;
mod input;
mod item;
mod listing;
mod naming;
mod read;
mod sink;
#[cfg(test)]
mod sink_tests;
mod source;
#[cfg(test)]
mod source_tests;
mod tail;
mod target;

use crate::Connector;

pub(crate) const CONNECTOR: Connector = Connector {
    name: "file",
    source: Some(crate::SourceEntry { build: source::build, schema: || schemars::schema_for!(config::SourceConfig) }),
    sink: Some(crate::SinkEntry { build: sink::build, schema: || schemars::schema_for!(config::SinkConfig) }),
};
