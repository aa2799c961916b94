use schemars::JsonSchema;
use serde::Deserialize;

use crate::outbox::OutboxConfig;

/// Options of the source `topic`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SourceConfig {
    /// The topic.
    pub(super) topic: String,
    /// Which partitions to read. By default all.
    pub(super) partitions: Option<Vec<u32>>,
    /// Where to start a partition of which nothing else says where to go on. By default `earliest`.
    #[serde(default)]
    pub(super) from: From,
    /// Starts where this group of consumers has got to, and tells it how far the job is.
    pub(super) group: Option<String>,
    /// Where to end. By default never.
    pub(super) until: Option<Until>,
    /// What to do where retention has removed what is to be read next. By default `fail`.
    #[serde(default)]
    pub(super) gone: Gone,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum From {
    /// At the first record there is.
    #[default]
    Earliest,
    /// Behind the last record there is.
    Latest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Until {
    /// Behind the last record there is when the job starts.
    End,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Gone {
    /// The job fails: records are lost.
    #[default]
    Fail,
    /// Go on at the first record there is.
    Earliest,
}

/// Options of the sink `topic`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SinkConfig {
    /// The topic. Records with a key go to a partition by its hash, others to all in turn.
    pub(super) topic: String,
    /// Makes the topic with so many partitions where there is none. By default there must be one.
    pub(super) partitions: Option<u32>,
    /// How rows are delivered after their epoch.
    #[serde(default)]
    pub(super) outbox: OutboxConfig,
}
