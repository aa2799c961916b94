//! What Prometheus reads. Labels are bounded: tenants, jobs and nodes by budgets, metrics of plugins by
//! the engine.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use wasmill_engine::{NodeSnapshot, Spread};
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

/// A histogram whose counters stand.
#[derive(Debug, Clone, Default)]
struct Buckets(Arc<Mutex<(Spread, f64)>>);

impl Buckets {
    /// `unit` is what one of a value is, in the unit of the metric.
    fn set(&self, spread: Spread, unit: f64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (spread, unit);
    }
}

impl TypedMetric for Buckets {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Buckets {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (spread, unit) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = spread.bounds().map(|bound| bound as f64 * unit).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds.zip(spread.counts).collect();
        encoder.encode_histogram::<NoLabelSet>(spread.sum as f64 * unit, spread.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

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
    calls: Family<Labels, Buckets>,
    batch_rows: Family<Labels, Buckets>,
    blocked: Family<Labels, Counter<f64, AtomicU64>>,
    node_memory: Family<Labels, Number>,
    faults: Family<Labels, Counter>,
    node_swaps: Family<Labels, Counter>,
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
    jobs: Family<Labels, Gauge>,
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
            calls: family!("node_call_seconds", "How long each batch took in the plugin or the sink"),
            batch_rows: family!("node_batch_rows", "How many rows batches have"),
            blocked: family!("node_blocked_seconds", "Time tasks waited for room at those behind them"),
            node_memory: family!("node_memory_bytes", "Memory of the plugin's instances, as of the last epoch"),
            faults: family!("node_faults", "Calls of the plugin that failed"),
            node_swaps: family!("node_swaps", "Plugins put into tasks of the stage while it ran"),
            guest: family!("plugin_metric", "Counters and gauges of plugins"),
            requests: family!("tenant_requests", "Requests of the tenant since it was made"),
            cpu: family!("tenant_cpu_seconds", "CPU time of tasks, plugins included, since the service was started"),
            cpu_waited: family!("tenant_cpu_waited_seconds", "Time that tasks waited for the CPU"),
            memory: family!("tenant_memory_bytes", "Linear memory of plugins"),
            state: family!("tenant_state_bytes", "Entries, open windows and held rows of stages"),
            timers: family!("tenant_timers", "Timers that are set"),
            series: family!("tenant_metric_series", "Metrics that plugins have named"),
            refused: family!("tenant_refused", "Memory, state, timers and metrics refused for the budget"),
            throttled: family!("tenant_throttled", "How often tasks were held back for the budget"),
            log_dropped: family!("tenant_log_lines_dropped", "Lines of plugins dropped for the budget"),
            jobs: family!("tenant_jobs", "Jobs of the tenant by what they do"),
            registry,
        }
    }

    fn tenant(&self, tenant: &Tenant, now: Timestamp) {
        let name = tenant.name.to_string();
        self.requests.get_or_create(&vec![("tenant", name.clone())]).inc_by(tenant.usage().requests);
        self.spent(&tenant.account.spent(), &vec![("tenant", name.clone())]);
        for (job, slot) in tenant.slots() {
            let board = &slot.board;
            let phase = board.phase();
            self.jobs.get_or_create(&vec![("tenant", name.clone()), ("phase", phase.name().to_owned())]).inc();
            if phase == Phase::Hibernating {
                // However many there are, they are one number.
                continue;
            }
            let of_job = vec![("tenant", name.clone()), ("job", job.to_string())];
            self.up.get_or_create(&of_job).set(i64::from(phase == Phase::Running));
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

    /// What belongs to no tenant.
    fn service(&mut self, service: &Service) {
        let woke = service.hibernation().latency();
        let wakes = Counter::<u64>::default();
        wakes.inc_by(woke.count);
        self.registry.register("hibernation_wakes", "Jobs that woke since the service was started", wakes);
        let seconds = Family::<Labels, Number>::default();
        self.registry.register("hibernation_wake_seconds", "From what wakes a job to its running", seconds.clone());
        for (quantile, nanos) in [("0.5", woke.p50), ("0.99", woke.p99), ("1", woke.max)] {
            seconds.get_or_create(&vec![("quantile", quantile.to_owned())]).set(nanos as f64 / 1e9);
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
        if node.calls.count() > 0 {
            self.calls.get_or_create(labels).set(node.calls, 1e-9);
        }
        self.batch_rows.get_or_create(labels).set(node.batch_rows, 1.0);
        self.blocked.get_or_create(labels).inc_by(node.blocked_nanos as f64 / 1e9);
        if node.memory_bytes > 0 {
            self.node_memory.get_or_create(labels).set(node.memory_bytes as f64);
        }
        for (kind, count) in [("trap", node.traps), ("timeout", node.timeouts), ("other", node.faults)] {
            if count > 0 {
                self.faults.get_or_create(&with(labels, "fault", kind.to_owned())).inc_by(count);
            }
        }
        if node.swaps > 0 {
            self.node_swaps.get_or_create(labels).inc_by(node.swaps);
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
    let mut scrape = Scrape::new();
    let now = service.clock().wall();
    match only {
        Some(tenant) => scrape.tenant(tenant, now),
        None => {
            scrape.service(service);
            service.tenants().iter().for_each(|tenant| scrape.tenant(tenant, now));
        }
    }
    let mut text = String::new();
    encode(&mut text, &scrape.registry).map_err(|error| Problem::internal(format!("cannot write metrics: {error}")))?;
    Ok(text)
}
