use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use wasmill_spec::{ByteSize, Period};

use crate::options::ConfigError;

const ROWS_MAX: u64 = 100_000;
const BYTES_MAX: u64 = 16 << 20;
const ATTEMPT: Duration = Duration::from_secs(30);

/// How rows are delivered after their epoch.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutboxConfig {
    /// Most rows that wait to be delivered before the job waits. By default 100000.
    rows_max: Option<u64>,
    /// Most bytes that wait to be delivered before the job waits. Every epoch stores them. By default
    /// 16 MiB.
    bytes_max: Option<ByteSize>,
    /// How long one attempt may take. By default 30s.
    attempt: Option<Period>,
    /// How long to try before the job fails. By default for ever.
    give_up: Option<Period>,
}

/// [`OutboxConfig`] with defaults filled in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboxOptions {
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) attempt: Duration,
    pub(crate) give_up: Option<Duration>,
}

impl OutboxConfig {
    /// The options, with `key` as what the job file calls their table.
    pub(crate) fn options(self, key: &str) -> Result<OutboxOptions, ConfigError> {
        let zero = |option: &str| {
            let key = format!("{key}.{option}");
            ConfigError::of(&key, format!("`{key}` is more than 0"))
        };
        let period = |option: &str, period: Option<Period>| match period {
            Some(period) if period.micros() <= 0 => Err(zero(option)),
            period => Ok(period.map(Period::as_duration)),
        };
        let count = |option: &str, count: u64| match usize::try_from(count) {
            Ok(0) => Err(zero(option)),
            count => Ok(count.unwrap_or(usize::MAX)),
        };
        Ok(OutboxOptions {
            rows_max: count("rows_max", self.rows_max.unwrap_or(ROWS_MAX))?,
            bytes_max: count("bytes_max", self.bytes_max.map_or(BYTES_MAX, ByteSize::bytes))?,
            attempt: period("attempt", self.attempt)?.unwrap_or(ATTEMPT),
            give_up: period("give_up", self.give_up)?,
        })
    }
}
