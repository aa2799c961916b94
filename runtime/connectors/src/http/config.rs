use schemars::JsonSchema;
use serde::Deserialize;
use wasmill_spec::{ByteSize, Period};

/// Options of the source `http`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceConfig {
    /// Address and port to listen on, such as `127.0.0.1:8080`. Port 0 takes a free one; the job says
    /// which.
    pub(crate) listen: String,
    /// The path that events are posted to. By default `/`.
    pub(crate) path: Option<String>,
    /// Rows are whole CloudEvents, attributes and all, rather than their data alone.
    #[serde(default)]
    pub(crate) envelope: bool,
    /// Longest body of a request. By default 4 MiB.
    pub(crate) body_bytes_max: Option<ByteSize>,
    /// Most events of a request. By default 10000.
    pub(crate) events_max: Option<u32>,
    /// Most connections at a time; more wait to be accepted. By default 256.
    pub(crate) connections_max: Option<u32>,
    /// Most requests a second, over all senders. By default there is no limit.
    pub(crate) requests_per_second: Option<u32>,
    /// How long a sender may take for the headers, and for the body, of a request. By default 10s.
    pub(crate) timeout: Option<Period>,
    /// For how long an event that comes again is known by its id, and left out. By default 10m.
    pub(crate) dedup: Option<Period>,
    /// Names of sequences that are given out at `POST /sequence/NAME?count=N`.
    #[serde(default)]
    pub(crate) sequences: Vec<String>,
    /// How many ids are known at most. By default 1000000, which take about 64 MiB.
    pub(crate) dedup_ids: Option<u32>,
}
