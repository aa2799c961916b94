//! What Prometheus reads. Labels are bounded: tenants, jobs and nodes by budgets, metrics of plugins by
//! the engine.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use wasmill_engine::NodeSnapshot;
use wasmill_model::Timestamp;
use wasmill_tenancy::Spent;

use super::problem::Problem;
use super::slot::Phase;
use super::state::Service;
use super::tenant::Tenant;

/// Characters of the name of a plugin's metric.
const NAME_CHARS_MAX: usize = 64;

type Labels = Vec<(&'static str, String)>;
type Number = Gauge<f64, AtomicU64>;

/// One scrape.
struct Scrape {
    registry: Registry,
    up: Family<Labels, Gauge>,
    starts: Family<Labels, Counter>,
    swaps: Family<Labels, Counter>,
    epochs: Family<Labels, Counter>,
    latency: Family<Labels, Number>,
    visible: Family<Labels, Number>,
    rows_in: Family<Labels, Counter>,
    rows_out: Family<Labels, Counter>,
    bytes_in: Family<Labels, Counter>,
    batches: Family<Labels, Counter>,
    rejected: Family<Labels, Counter>,
    late: Family<Labels, Counter>,
    dropped: Family<Labels, Counter>,
    held: Family<Labels, Counter>,
    busy: Family<Labels, Counter<f64, AtomicU64>>,
    guest_cpu: Family<Labels, Counter<f64, AtomicU64>>,
    lag: Family<Labels, Number>,
    guest: Family<Labels, Number>,
    requests: Family<Labels, Counter>,
    cpu: Family<Labels, Counter<f64, AtomicU64>>,
    cpu_waited: Family<Labels, Counter<f64, AtomicU64>>,
    memory: Family<Labels, Gauge>,
    state: Family<Labels, Gauge>,
    timers: Family<Labels, Gauge>,
    series: Family<Labels, Gauge>,
    refused: Family<Labels, Counter>,
    throttled: Family<Labels, Counter>,
    log_dropped: Family<Labels, Counter>,
}

impl Scrape {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("wasmill");
        macro_rules! family {
            ($name:literal, $help:literal) => {{
                let family = Family::default();
                registry.register($name, $help, family.clone());
                family
            }};
        }
        Self {
            up: family!("job_up", "Whether the job runs"),
            starts: family!("job_starts", "How often the job was started since the service was"),
            swaps: family!("job_swaps", "Plugins put into running stages since the service was started"),
            epochs: family!("job_epochs", "Epochs committed since the job was started"),
            latency: family!("job_latency_seconds", "From entering the host to reaching a sink, since the start"),
            visible: family!("job_visible_latency_seconds", "From entering the host to being visible, since the start"),
            rows_in: family!("node_rows_in", "Rows that came in"),
            rows_out: family!("node_rows_out", "Rows that went out"),
            bytes_in: family!("node_bytes_in", "Bytes that came in"),
            batches: family!("node_batches", "Batches that came in: rows by batches is their size"),
            rejected: family!("node_rejected", "Rows that went to dead letters"),
            late: family!("node_late", "Rows dropped because their windows had fired"),
            dropped: family!("node_dropped", "Rows that a source dropped because the job was too slow"),
            held: family!("node_held", "How often senders had to wait for the job"),
            busy: family!("node_busy_seconds", "Time in the plugin or the sink"),
            guest_cpu: family!("node_guest_cpu_seconds", "CPU time of the plugin"),
            lag: family!("node_watermark_lag_seconds", "How far the watermark is behind the clock"),
            guest: family!("plugin_metric", "Counters and gauges of plugins"),
            requests: family!("tenant_requests", "Requests of the tenant since it was made"),
            cpu: family!("tenant_cpu_seconds", "CPU time of plugins since the service was started"),
            cpu_waited: family!("tenant_cpu_waited_seconds", "Time that plugins waited for the CPU"),
            memory: family!("tenant_memory_bytes", "Linear memory of plugins"),
            state: family!("tenant_state_bytes", "Keys and values of stages"),
            timers: family!("tenant_timers", "Timers that are set"),
            series: family!("tenant_metric_series", "Metrics that plugins have named"),
            refused: family!("tenant_refused", "Memory, state, timers and metrics refused for the budget"),
            throttled: family!("tenant_throttled", "How often tasks were held back for the budget"),
            log_dropped: family!("tenant_log_lines_dropped", "Lines of plugins dropped for the budget"),
            registry,
        }
    }

    fn tenant(&self, tenant: &Tenant, now: Timestamp) {
        let name = tenant.name.to_string();
        self.requests.get_or_create(&vec![("tenant", name.clone())]).inc_by(tenant.usage().requests);
        self.spent(&tenant.account.spent(), &vec![("tenant", name.clone())]);
        for (job, slot) in tenant.slots() {
            let of_job = vec![("tenant", name.clone()), ("job", job.to_string())];
            let board = &slot.board;
            self.up.get_or_create(&of_job).set(i64::from(board.phase() == Phase::Running));
            self.starts.get_or_create(&of_job).inc_by(board.starts());
            self.swaps.get_or_create(&of_job).inc_by(board.swaps());
            let Some(live) = board.live() else { continue };
            let metrics = live.remote.metrics();
            self.epochs.get_or_create(&of_job).inc_by(metrics.epochs());
            for (family, latency) in [(&self.latency, metrics.latency()), (&self.visible, metrics.visible_latency())] {
                let quantiles =
                    [("0.5", latency.p50_nanos), ("0.99", latency.p99_nanos), ("0.999", latency.p999_nanos)];
                for (quantile, nanos) in quantiles.into_iter().filter(|_| latency.rows > 0) {
                    let labels = with(&of_job, "quantile", quantile.to_owned());
                    family.get_or_create(&labels).set(nanos as f64 / 1e9);
                }
            }
            for (node, kind) in metrics.nodes().iter().zip(&live.kinds) {
                let labels = with(&with(&of_job, "node", node.name.to_string()), "kind", (*kind).to_owned());
                self.node(node, &labels, now);
            }
        }
    }

    fn spent(&self, spent: &Spent, labels: &Labels) {
        self.cpu.get_or_create(labels).inc_by(spent.cpu_nanos as f64 / 1e9);
        self.cpu_waited.get_or_create(labels).inc_by(spent.cpu_waited_nanos as f64 / 1e9);
        for (family, value) in [
            (&self.memory, spent.memory_bytes),
            (&self.state, spent.state_bytes),
            (&self.timers, spent.timers),
            (&self.series, spent.metric_series),
        ] {
            family.get_or_create(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        for (family, value) in [
            (&self.refused, spent.refused),
            (&self.throttled, spent.throttled),
            (&self.log_dropped, spent.log_lines_dropped),
        ] {
            family.get_or_create(labels).inc_by(value);
        }
    }

    fn node(&self, node: &NodeSnapshot, labels: &Labels, now: Timestamp) {
        for (family, value) in [
            (&self.rows_in, node.rows_in),
            (&self.rows_out, node.rows_out),
            (&self.bytes_in, node.bytes_in),
            (&self.batches, node.batches),
            (&self.rejected, node.rejected),
            (&self.late, node.late),
            (&self.dropped, node.counts.dropped),
            (&self.held, node.counts.held),
        ] {
            family.get_or_create(labels).inc_by(value);
        }
        self.busy.get_or_create(labels).inc_by(node.busy_nanos as f64 / 1e9);
        self.guest_cpu.get_or_create(labels).inc_by(node.guest_cpu_nanos as f64 / 1e9);
        if !matches!(node.watermark, Timestamp::MIN | Timestamp::MAX) {
            let behind = now.0.saturating_sub(node.watermark.0);
            self.lag.get_or_create(labels).set(behind as f64 / 1e6);
        }
        for (name, value) in &node.guest {
            let name = name.chars().take(NAME_CHARS_MAX).collect();
            self.guest.get_or_create(&with(labels, "metric", name)).set(*value);
        }
    }
}

fn with(labels: &Labels, name: &'static str, value: String) -> Labels {
    labels.iter().cloned().chain([(name, value)]).collect()
}

/// The text that Prometheus reads, of one tenant or of all.
pub(super) fn text(service: &Service, only: Option<&Arc<Tenant>>) -> Result<String, Problem> {
    let scrape = Scrape::new();
    let now = service.clock().wall();
    match only {
        Some(tenant) => scrape.tenant(tenant, now),
        None => service.tenants().iter().for_each(|tenant| scrape.tenant(tenant, now)),
    }
    let mut text = String::new();
    encode(&mut text, &scrape.registry).map_err(|error| Problem::internal(format!("cannot write metrics: {error}")))?;
    Ok(text)
}
