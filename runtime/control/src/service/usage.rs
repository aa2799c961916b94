//! What a tenant has used: counted by jobs while they run, added up when they end.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmill_engine::JobMetrics;

/// What was used, since the tenant was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Usage {
    /// Requests answered.
    pub requests: u64,
    /// Rows that sources read.
    pub rows_in: u64,
    /// Bytes that sources read.
    pub bytes_in: u64,
    /// Rows that nodes put out.
    pub rows_out: u64,
    /// Rows that went to dead letters.
    pub rejected: u64,
    /// Time in stages and sinks, nanoseconds.
    pub busy_nanos: u64,
    /// CPU time of plugins, nanoseconds.
    pub guest_cpu_nanos: u64,
    /// Epochs committed.
    pub epochs: u64,
}

impl Usage {
    /// What a run has used so far. `kinds` says what each node is, in the order of the plan.
    pub(super) fn of(metrics: &JobMetrics, kinds: &[&str]) -> Self {
        let mut usage = Self { epochs: metrics.epochs(), ..Self::default() };
        for (node, kind) in metrics.nodes().iter().zip(kinds) {
            if *kind == "source" {
                usage.rows_in += node.rows_in;
                usage.bytes_in += node.bytes_in;
            }
            usage.rows_out += node.rows_out;
            usage.rejected += node.rejected;
            usage.busy_nanos += node.busy_nanos;
            usage.guest_cpu_nanos += node.guest_cpu_nanos;
        }
        usage
    }

    /// Both together.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            rows_in: self.rows_in.saturating_add(other.rows_in),
            bytes_in: self.bytes_in.saturating_add(other.bytes_in),
            rows_out: self.rows_out.saturating_add(other.rows_out),
            rejected: self.rejected.saturating_add(other.rejected),
            busy_nanos: self.busy_nanos.saturating_add(other.busy_nanos),
            guest_cpu_nanos: self.guest_cpu_nanos.saturating_add(other.guest_cpu_nanos),
            epochs: self.epochs.saturating_add(other.epochs),
        }
    }
}
