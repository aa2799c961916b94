//! What a tenant may use. Reserving is one step with the change that needs it, under the lock of the
//! tenant's record; what jobs use while they run is counted in the tenant's [`Account`].
//!
//! [`Account`]: wasmill_tenancy::Account

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmill_tenancy::{Allowance, Share};

use super::problem::Problem;

/// A ceiling below this is a job that never gets anywhere.
const CEILING_MIN: u32 = 10;

/// What a tenant may have at a time, and how often it may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Jobs, whether they run or not.
    pub jobs: u32,
    /// Tasks of all its jobs together: the parallelism of every source, stage and sink.
    pub tasks: u32,
    /// Memory that plugins of all its jobs may take together, in bytes: for each task of a stage the
    /// limit of its instance.
    pub memory_bytes: u64,
    /// Bytes of state, dead letters and savepoints of all its jobs together.
    pub state_bytes: u64,
    /// Plugins.
    pub plugins: u32,
    /// Bytes of one plugin.
    pub plugin_bytes: u64,
    /// Topics.
    pub topics: u32,
    /// Bytes of all its topics together.
    pub topic_bytes: u64,
    /// Tokens.
    pub tokens: u32,
    /// Requests a second; for a moment three times as many.
    pub requests_per_second: u32,
    /// Deploys, swaps, savepoints and uploads a minute.
    pub changes_per_minute: u32,
    /// Taps at a time.
    pub taps: u32,
    /// Weight of its tasks against those of other tenants, where all want the CPU.
    pub cpu_share: u32,
    /// Thousandths of a core that its tasks get at most, whether others want the CPU or not; as much as
    /// there is where it is null.
    pub cpu_ceiling_millicores: Option<u32>,
    /// Timers that are set, of all its jobs together.
    pub timers: u64,
    /// Metrics that plugins of all its jobs name.
    pub metric_series: u64,
    /// Rows that sources of all its jobs read a second: beyond that they are held back.
    pub events_per_second: u32,
    /// Rows that stages of all its jobs put out a second: beyond that sources and timers are held back.
    pub rows_out_per_second: u32,
    /// Lines that plugins log a second: what is more is dropped and counted.
    pub log_lines_per_second: u32,
    /// Seconds an hour that its plugins are compiled for.
    pub compile_seconds_per_hour: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            jobs: 16,
            tasks: 128,
            memory_bytes: 8 << 30,
            state_bytes: 10 << 30,
            plugins: 100,
            plugin_bytes: 10 << 20,
            topics: 100,
            topic_bytes: 10 << 30,
            tokens: 100,
            requests_per_second: 100,
            changes_per_minute: 120,
            taps: 8,
            cpu_share: 100,
            cpu_ceiling_millicores: None,
            timers: 1_000_000,
            metric_series: 2_000,
            events_per_second: 10_000_000,
            rows_out_per_second: 20_000_000,
            log_lines_per_second: 1_000,
            compile_seconds_per_hour: 600,
        }
    }
}

impl Budget {
    /// Refuses what no job could run with.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.cpu_share == 0 {
            return Err(Problem::bad("`cpu_share` is a weight of at least 1"));
        }
        if self.cpu_ceiling_millicores.is_some_and(|ceiling| ceiling < CEILING_MIN) {
            return Err(Problem::bad(format!("`cpu_ceiling_millicores` is at least {CEILING_MIN}, or null")));
        }
        for (name, rate) in
            [("events_per_second", self.events_per_second), ("rows_out_per_second", self.rows_out_per_second)]
        {
            if rate == 0 {
                return Err(Problem::bad(format!("`{name}` is at least 1: to have a job rest, pause it")));
            }
        }
        Ok(())
    }

    /// What of it is asked while jobs run.
    pub(super) fn allowance(&self) -> Allowance {
        Allowance {
            cpu: Share { weight: self.cpu_share, ceiling_millicores: self.cpu_ceiling_millicores },
            memory_bytes: self.memory_bytes,
            state_bytes: self.state_bytes,
            timers: self.timers,
            metric_series: self.metric_series,
            events_per_second: self.events_per_second,
            rows_out_per_second: self.rows_out_per_second,
            log_lines_per_second: self.log_lines_per_second,
        }
    }
}
