use std::num::NonZeroU64;

use schemars::JsonSchema;
use serde::Deserialize;
use wasmill_spec::{ByteSize, Period};

/// Options of the source `generator`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GeneratorConfig {
    /// Events a second. By default as many as the job takes.
    pub(crate) rate: Option<NonZeroU64>,
    /// How many events there are. By default the input never ends.
    pub(crate) count: Option<u64>,
    /// How many different keys there are. By default 1000.
    pub(crate) keys: Option<NonZeroU64>,
    /// How often each key comes. By default `uniform`.
    #[serde(default)]
    pub(crate) distribution: Distribution,
    /// How far at most an event time lies behind its place. By default not at all.
    pub(crate) disorder: Option<Period>,
    /// Another seed makes other events. By default 0.
    #[serde(default)]
    pub(crate) seed: u64,
    /// Bytes of each value, at least: shorter ones are filled up. By default not at all.
    pub(crate) value_bytes: Option<ByteSize>,
}

/// How often each key comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Distribution {
    /// All alike.
    #[default]
    Uniform,
    /// Key number n about in proportion to 1 / n.
    Zipf,
}
