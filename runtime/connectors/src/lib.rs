//! Sources and sinks: where events come from and where results go.
//!
//! Meets the engine in `wasmill-contract` only. The checker of job files asks [`source`] and
//! [`sink`] for a connector by name, with the options that are left once those that mean the same
//! everywhere (`connector`, `key`, `time`, `watermark`, `input`) are taken out.
//!
//! A connector is a folder and a line in `CONNECTORS`. What the job file says becomes a typed
//! configuration; a wrong option becomes a [`ConfigError`] that names it. Work that blocks runs off
//! the async workers. Every connector passes the `conformance` kit.

mod backpressure;
mod blackhole;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod fence;
mod file;
#[cfg(test)]
#[path = "../../../tests/support/fuzz.rs"]
mod fuzz_driver;
mod generator;
mod http;
mod ingest;
mod net;
mod options;
mod outbox;
mod outgoing;
mod sequenced;
mod stdin;
mod stdout;
mod text;
mod tls;
mod topic;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::Schema;
use wasmill_contract::{SinkFactory, SourceFactory};
use wasmill_env::{RealClock, RealDisk};
use wasmill_model::{JobName, NodeName};
use wasmill_spec::{Backpressure, Policy, SequenceSpec};
use wasmill_store::{Sequences, Topics};

pub use error::is_broken_pipe;
pub use fence::Fence;
pub use options::ConfigError;
pub use outgoing::{HttpClient, outgoing};
pub use tls::{TlsError, client_tls};

/// Every connector there is.
const CONNECTORS: &[Connector] = &[
    file::CONNECTOR,
    http::CONNECTOR,
    net::TCP,
    net::UDP,
    generator::CONNECTOR,
    stdin::CONNECTOR,
    stdout::CONNECTOR,
    topic::CONNECTOR,
    blackhole::CONNECTOR,
];

/// A connector: what it is called and what it can make.
struct Connector {
    name: &'static str,
    source: Option<SourceEntry>,
    sink: Option<SinkEntry>,
}

/// Where a connector is used: what it may need to know beside its options.
#[derive(Debug, Clone)]
pub struct Site {
    /// The job.
    pub job: JobName,
    /// The source or sink.
    pub node: NodeName,
    /// The directory of the job file, which paths in options are relative to.
    pub base_dir: PathBuf,
    /// The topics there are.
    pub topics: Topics,
    /// Whether the job goes on after a crash: what a commit holds must be on disk then.
    pub durable: bool,
    /// Where the job keeps its state, if it does.
    pub state_dir: Option<PathBuf>,
    /// When that was made of a savepoint, if it was: microseconds since the Unix epoch.
    pub restored_at: Option<u64>,
    /// What happens to rows that come faster than the job takes them. Of sources.
    pub backpressure: Backpressure,
    /// The sequences that there are.
    pub sequences: Sequences,
    /// The one that rows get their numbers from. Of sources.
    pub sequence: Option<SequenceSpec>,
    /// What the job may reach, where that is not everything.
    pub fence: Option<Arc<Fence>>,
}

impl Site {
    /// A site for tests and measurements, with everything in `dir`.
    #[doc(hidden)]
    #[must_use]
    pub fn alone(dir: &std::path::Path) -> Self {
        Self {
            job: JobName::new("job").expect("a fixed name is one"),
            node: NodeName::new("node").expect("a fixed name is one"),
            base_dir: dir.to_owned(),
            topics: Topics::new(Arc::new(RealDisk), &dir.join("topics"), Arc::new(RealClock::default())),
            durable: true,
            state_dir: None,
            restored_at: None,
            backpressure: Backpressure::default(),
            sequences: Sequences::new(Arc::new(RealDisk), &dir.join("sequences"), Arc::new(RealClock::default())),
            sequence: None,
            fence: None,
        }
    }

    /// Where the source keeps what was taken from senders and is not committed, if the job keeps
    /// anything.
    fn ingest_dir(&self) -> Option<PathBuf> {
        Some(self.state_dir.as_ref()?.join("ingest").join(self.node.as_str()))
    }
}

type Build<F> = fn(toml::Table, &Site) -> Result<Arc<F>, ConfigError>;

struct SourceEntry {
    build: Build<dyn SourceFactory>,
    schema: fn() -> Schema,
}

struct SinkEntry {
    build: Build<dyn SinkFactory>,
    schema: fn() -> Schema,
}

/// A source of the connector `name`.
///
/// # Errors
/// Where there is no such source or an option is wrong. No file is opened yet.
pub fn source(name: &str, options: toml::Table, site: &Site) -> Result<Arc<dyn SourceFactory>, ConfigError> {
    site.fence.as_ref().map_or(Ok(()), |fence| fence.source(name, &options))?;
    match CONNECTORS.iter().find(|connector| connector.name == name).and_then(|connector| connector.source.as_ref()) {
        Some(entry) => (entry.build)(options, site).map(|source| with_sequence(with_backpressure(source, site), site)),
        None => Err(unknown(name, "source", |connector| connector.source.is_some())),
    }
}

/// A sink of the connector `name`.
///
/// # Errors
/// Where there is no such sink or an option is wrong. No file is opened yet.
pub fn sink(name: &str, options: toml::Table, site: &Site) -> Result<Arc<dyn SinkFactory>, ConfigError> {
    site.fence.as_ref().map_or(Ok(()), |fence| fence.sink(name, &options))?;
    match CONNECTORS.iter().find(|connector| connector.name == name).and_then(|connector| connector.sink.as_ref()) {
        Some(entry) => (entry.build)(options, site),
        None => Err(unknown(name, "sink", |connector| connector.sink.is_some())),
    }
}

/// A source that does what its job file says when the job is too slow.
fn with_backpressure(source: Arc<dyn SourceFactory>, site: &Site) -> Arc<dyn SourceFactory> {
    match site.backpressure.policy {
        Policy::Block => source,
        // Rows of an ingest topic wait on disk as it is.
        Policy::Spill if source.waits_on_disk() => source,
        Policy::DropOldest | Policy::DropNewest | Policy::Spill => {
            let dir = site.base_dir.join(format!(".wasmill/{}/spill/{}", site.job, site.node));
            Arc::new(backpressure::Buffered::new(source, site.backpressure, Arc::new(RealDisk), dir))
        }
    }
}

/// A source whose rows get numbers, where its job file says so.
fn with_sequence(source: Arc<dyn SourceFactory>, site: &Site) -> Arc<dyn SourceFactory> {
    match &site.sequence {
        None => source,
        Some(SequenceSpec { name, field }) => {
            Arc::new(sequenced::Sequenced::new(source, site.sequences.get(name), field.clone()))
        }
    }
}

fn unknown(name: &str, what: &str, fits: fn(&Connector) -> bool) -> ConfigError {
    let known: Vec<&str> = CONNECTORS.iter().filter(|c| fits(c)).map(|c| c.name).collect();
    let message = if CONNECTORS.iter().any(|connector| connector.name == name) {
        format!("connector {name:?} is no {what}; {what}s are {}", known.join(", "))
    } else {
        format!("there is no connector {name:?}; {what}s are {}", known.join(", "))
    };
    ConfigError { key: Some("connector".to_owned()), message, hint: options::hint_of(name, known) }
}

/// The JSON Schemas of the options of every connector, by its name.
#[derive(Debug, Clone)]
pub struct Schemas {
    /// Of sources.
    pub sources: BTreeMap<&'static str, Schema>,
    /// Of sinks.
    pub sinks: BTreeMap<&'static str, Schema>,
}

/// The JSON Schemas of the options of every connector, for the schema of the job file.
#[must_use]
pub fn schemas() -> Schemas {
    let sources = CONNECTORS.iter().filter_map(|c| Some((c.name, (c.source.as_ref()?.schema)())));
    let sinks = CONNECTORS.iter().filter_map(|c| Some((c.name, (c.sink.as_ref()?.schema)())));
    Schemas { sources: sources.collect(), sinks: sinks.collect() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn error(name: &str, options: &str) -> ConfigError {
        let options = options.parse().expect("valid TOML");
        source(name, options, &Site::alone(Path::new("/"))).err().expect("refused")
    }

    #[test]
    fn an_unknown_connector_lists_the_known_ones() {
        let unknown = error("fiel", "");
        assert_eq!(unknown.key.as_deref(), Some("connector"));
        assert!(unknown.message.starts_with("there is no connector \"fiel\"; sources are file"), "{unknown}");
        assert_eq!(unknown.hint.as_deref(), Some("did you mean `file`?"));
        assert!(error("stdout", "").message.starts_with("connector \"stdout\" is no source; sources are "));
    }

    #[test]
    fn every_schema_describes_an_object_that_refuses_unknown_options() {
        let Schemas { sources, sinks } = schemas();
        for (name, schema) in sources.iter().chain(&sinks) {
            assert_eq!(schema.get("type").and_then(|value| value.as_str()), Some("object"), "{name}");
            assert_eq!(schema.get("additionalProperties").and_then(|value| value.as_bool()), Some(false), "{name}");
        }
    }

    #[test]
    fn wrong_options_are_named() {
        for (options, key) in [
            ("path = ''", "path"),
            ("path = '['", "path"),
            ("path = 'a.gz'\nfollow = true", "follow"),
            ("path = 'a'\nfollow = true\norder = 'by-name'", "order"),
            ("path = 'a.jsonl'\nnull = ['NA']", "null"),
            ("path = 'a.csv'\ndelimiter = 'ä'", "delimiter"),
            ("path = 'a.csv'\nformat = 'xml'", "format"),
            ("path = 'a'\nrecord_bytes_max = '0B'", "record_bytes_max"),
        ] {
            assert_eq!(error("file", options).key.as_deref(), Some(key), "{options}");
        }
    }
}
