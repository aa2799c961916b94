use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hdrhistogram::Histogram;
use wasmill_contract::{MetricUpdate, OperatorError, SourceCounts};
use wasmill_model::{Batch, NodeName, Timestamp};
use wasmill_tenancy::{Account, Held};

use crate::distribution::{Distribution, Spread};
use crate::tap::{Tap, Taps};

/// Longest latency that is told apart from longer ones: one hour.
const LATENCY_NANOS_MAX: u64 = 3_600_000_000_000;
/// Metrics of its own that one stage may have.
const GUEST_METRICS_MAX: usize = 200;

/// What a running job counts. Shared: the engine writes, whoever has it reads.
#[derive(Debug)]
pub struct JobMetrics {
    nodes: RwLock<Nodes>,
    epochs: AtomicU64,
    /// Monotonic nanoseconds since which a commit is under way; 0 where none is.
    committing_since: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    visible: Mutex<Histogram<u64>>,
}

/// What the nodes of a job count.
#[derive(Debug, Default)]
struct Nodes {
    /// In the order of the plan.
    shown: Vec<Arc<NodeMetrics>>,
    /// Of nodes that are opened for another graph, and run once it does.
    opened: Vec<Arc<NodeMetrics>>,
}

impl JobMetrics {
    pub(crate) fn new(names: impl IntoIterator<Item = NodeName>) -> Self {
        // Two digits, and as long as the longest so far: of most jobs, among thousands, a few KB.
        let mut latency = Histogram::new_with_bounds(1_000, 2_000, 2).expect("these bounds are valid");
        latency.auto(true);
        Self {
            nodes: RwLock::new(Nodes {
                shown: names.into_iter().map(|name| Arc::new(NodeMetrics::new(name))).collect(),
                opened: Vec::new(),
            }),
            epochs: AtomicU64::new(0),
            visible: Mutex::new(latency.clone()),
            committing_since: AtomicU64::new(0),
            latency: Mutex::new(latency),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Nodes> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Nodes> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node counts. One that the job has not is of a graph to come.
    pub(crate) fn node(&self, name: &NodeName) -> Arc<NodeMetrics> {
        let mut nodes = self.write();
        let known = nodes.shown.iter().chain(&nodes.opened).find(|node| node.name == *name).cloned();
        known.unwrap_or_else(|| {
            let opened = Arc::new(NodeMetrics::new(name.clone()));
            nodes.opened.push(Arc::clone(&opened));
            opened
        })
    }

    /// These are the nodes of the job, in the order of its plan. Nodes that it had keep what they have counted.
    pub(crate) fn arrange(&self, names: impl IntoIterator<Item = NodeName>) {
        let shown = names.into_iter().map(|name| self.node(&name)).collect();
        *self.write() = Nodes { shown, opened: Vec::new() };
    }

    /// Nothing comes of a graph whose nodes were opened.
    pub(crate) fn forget_opened(&self) {
        self.write().opened.clear();
    }

    pub(crate) fn commit_began(&self, now_nanos: u64) {
        self.committing_since.store(now_nanos.max(1), Ordering::Relaxed);
    }

    pub(crate) fn epoch_committed(&self) {
        self.committing_since.store(0, Ordering::Relaxed);
        self.epochs.fetch_add(1, Ordering::Relaxed);
    }

    /// Rows reached a sink `nanos` after the oldest of them had entered the host.
    pub(crate) fn reached_sink(&self, rows: usize, nanos: u64) {
        record(&self.latency, rows, nanos);
    }

    /// Rows became visible behind a sink `nanos` after the oldest of them had entered the host.
    pub(crate) fn became_visible(&self, rows: usize, nanos: u64) {
        record(&self.visible, rows, nanos);
    }

    /// The counters of every node, in the order of the plan.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeSnapshot> {
        self.read().shown.iter().map(|node| node.snapshot()).collect()
    }

    /// A live view of the rows that a node gives, or that a sink is given. `None` where there is no
    /// such node.
    #[must_use]
    pub fn tap(&self, node: &NodeName) -> Option<Tap> {
        self.read().shown.iter().find(|known| known.name == *node).map(|known| known.taps.add())
    }

    /// Rows that all nodes have been given: while it stays, nothing comes in.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.read().shown.iter().map(|node| node.rows_in.load(Ordering::Relaxed)).sum()
    }

    /// Whether somebody watches a node.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.read().shown.iter().any(|node| node.taps.any())
    }

    /// Epochs committed by this run.
    #[must_use]
    pub fn epochs(&self) -> u64 {
        self.epochs.load(Ordering::Relaxed)
    }

    /// Monotonic nanoseconds since which a commit is under way.
    #[must_use]
    pub fn committing_since(&self) -> Option<u64> {
        Some(self.committing_since.load(Ordering::Relaxed)).filter(|&since| since > 0)
    }

    /// How long rows took from entering the host to reaching a sink, weighted by rows; every row
    /// counts as old as the oldest of its batch.
    #[must_use]
    pub fn latency(&self) -> LatencySnapshot {
        snapshot(&self.latency)
    }

    /// How long rows took until they were visible behind a sink: later than
    /// [`JobMetrics::latency`] where a sink shows rows with their epoch.
    #[must_use]
    pub fn visible_latency(&self) -> LatencySnapshot {
        snapshot(&self.visible)
    }
}

fn record(histogram: &Mutex<Histogram<u64>>, rows: usize, nanos: u64) {
    let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    // It grows as far as that.
    let _refused = histogram.record_n(nanos.clamp(1, LATENCY_NANOS_MAX), rows as u64).is_err();
}

fn snapshot(histogram: &Mutex<Histogram<u64>>) -> LatencySnapshot {
    let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    LatencySnapshot {
        rows: histogram.len(),
        p50_nanos: histogram.value_at_quantile(0.5),
        p99_nanos: histogram.value_at_quantile(0.99),
        p999_nanos: histogram.value_at_quantile(0.999),
        max_nanos: histogram.max(),
    }
}

/// A distribution of latencies in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencySnapshot {
    /// Rows measured.
    pub rows: u64,
    /// Median.
    pub p50_nanos: u64,
    /// 99th percentile.
    pub p99_nanos: u64,
    /// 99.9th percentile.
    pub p999_nanos: u64,
    /// Largest.
    pub max_nanos: u64,
}

/// Counters of one node, summed over its tasks.
#[derive(Debug)]
pub struct NodeMetrics {
    name: NodeName,
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    bytes_in: AtomicU64,
    batches: AtomicU64,
    rejected: AtomicU64,
    late: AtomicU64,
    splits: AtomicU64,
    dropped: AtomicU64,
    spilled: AtomicU64,
    held: AtomicU64,
    duplicates: AtomicU64,
    busy_nanos: AtomicU64,
    guest_cpu_nanos: AtomicU64,
    read: AtomicU64,
    read_total: AtomicU64,
    watermark: AtomicI64,
    guest: Mutex<Guest>,
    /// Of each task that has ordering buffers.
    ordering: Mutex<BTreeMap<u16, OrderingSnapshot>>,
    skewed: AtomicU64,
    taps: Taps,
    /// Nanoseconds of calls, and rows of batches.
    calls: Distribution,
    batch_rows: Distribution,
    blocked_nanos: AtomicU64,
    traps: AtomicU64,
    timeouts: AtomicU64,
    faults: AtomicU64,
    swaps: AtomicU64,
    /// Bytes of memory of the instance of each task.
    memory: Mutex<BTreeMap<u16, u64>>,
    opened: AtomicU64,
}

/// An operator's own metrics.
#[derive(Debug, Default)]
struct Guest {
    values: BTreeMap<String, f64>,
    /// The same, as part of what the tenant may have.
    held: Option<Held>,
}

impl Guest {
    /// Whether there is a metric of this name now.
    fn has(&mut self, name: &str, account: Option<&Account>) -> bool {
        if self.values.contains_key(name) {
            return true;
        }
        let room = self.values.len() < GUEST_METRICS_MAX;
        room && account.is_none_or(|account| self.held.get_or_insert_with(|| account.metrics.held()).try_add(1).is_ok())
    }
}

/// The smallest bounds of distributions.
const CALL_NANOS: u64 = 4_000;
const BATCH_ROWS: u64 = 1;

/// What ordering buffers hold and have counted: of one task, or of all tasks of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrderingSnapshot {
    /// Rows held now.
    pub held: u64,
    /// Those of them that wait on disk.
    pub on_disk: u64,
    /// Rows that have waited there, those of now included.
    pub spilled: u64,
    /// Bytes in memory of the batches that they are in.
    pub bytes: u64,
    /// Rows that came too late, those that were dropped included.
    pub late: u64,
    /// Rows dropped because they came too late.
    pub dropped: u64,
    /// Numbers given up.
    pub missing: u64,
    /// Keys forgotten, whose sequences begin anew.
    pub forgotten: u64,
    /// Placeholders and marks, which go no further.
    pub marks: u64,
    /// Rows that went early because there was no room.
    pub forced: u64,
    /// How long rows wait by event time, microseconds; 0 where that is not known.
    pub slack_micros: u64,
    /// No row up to this time is waited for: how far those are that went on.
    pub promised: Option<Timestamp>,
}

impl OrderingSnapshot {
    fn and(self, other: Self) -> Self {
        Self {
            held: self.held + other.held,
            on_disk: self.on_disk + other.on_disk,
            spilled: self.spilled + other.spilled,
            bytes: self.bytes + other.bytes,
            late: self.late + other.late,
            dropped: self.dropped + other.dropped,
            missing: self.missing + other.missing,
            forgotten: self.forgotten + other.forgotten,
            marks: self.marks + other.marks,
            forced: self.forced + other.forced,
            slack_micros: self.slack_micros.max(other.slack_micros),
            promised: self.promised.into_iter().chain(other.promised).min(),
        }
    }
}

/// The counters of one node at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSnapshot {
    /// The node.
    pub name: NodeName,
    /// Rows that came in, or that a source read, those it dropped included.
    pub rows_in: u64,
    /// Rows that went out, each counted once however many nodes it goes to.
    pub rows_out: u64,
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Batches that came in.
    pub batches: u64,
    /// Rows that went to the dead-letter queue.
    pub rejected: u64,
    /// Rows dropped because their every window had fired.
    pub late: u64,
    /// How often a hot lane of a convoy gave a part of its rows to others.
    pub splits: u64,
    /// What a source counts beside the rows that it gives.
    pub counts: SourceCounts,
    /// Time spent in the operator or the sink.
    pub busy_nanos: u64,
    /// CPU time of the guest.
    pub guest_cpu_nanos: u64,
    /// How far a source has read, in its own unit.
    pub read: u64,
    /// How much there is to read, 0 where that is not known.
    pub read_total: u64,
    /// The watermark that the node has seen last.
    pub watermark: Timestamp,
    /// The operator's own metrics: counters and gauges as they stand.
    pub guest: BTreeMap<String, f64>,
    /// What its ordering buffers hold and have counted, where it has any.
    pub ordering: Option<OrderingSnapshot>,
    /// Rows of a source whose time lay too far ahead of the clock to move the watermark.
    pub skewed: u64,
    /// How long each batch took in the operator or the sink, nanoseconds.
    pub calls: Spread,
    /// How many rows batches have.
    pub batch_rows: Spread,
    /// How long its tasks have waited for room at those behind it, nanoseconds: backpressure.
    pub blocked_nanos: u64,
    /// Calls of the plugin that trapped.
    pub traps: u64,
    /// Calls of the plugin that took too long.
    pub timeouts: u64,
    /// Calls of the plugin that failed otherwise: at a limit, or against the contract.
    pub faults: u64,
    /// Plugins that were put into the stage while it ran: once for each of its tasks.
    pub swaps: u64,
    /// Memory that the plugin's instances take, bytes, as of the last epoch.
    pub memory_bytes: u64,
    /// How often what runs at the node was opened, in all of its tasks: a source, a sink, an instance of a plugin.
    pub opened: u64,
}

impl NodeMetrics {
    fn new(name: NodeName) -> Self {
        Self {
            name,
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            late: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            spilled: AtomicU64::new(0),
            splits: AtomicU64::new(0),
            held: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            busy_nanos: AtomicU64::new(0),
            guest_cpu_nanos: AtomicU64::new(0),
            read: AtomicU64::new(0),
            read_total: AtomicU64::new(0),
            watermark: AtomicI64::new(i64::MIN),
            guest: Mutex::default(),
            ordering: Mutex::default(),
            skewed: AtomicU64::new(0),
            taps: Taps::default(),
            calls: Distribution::new(CALL_NANOS),
            batch_rows: Distribution::new(BATCH_ROWS),
            blocked_nanos: AtomicU64::new(0),
            traps: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            swaps: AtomicU64::new(0),
            memory: Mutex::default(),
            opened: AtomicU64::new(0),
        }
    }

    /// What runs at the node was opened in a task.
    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn batch_in(&self, rows: usize, bytes: usize) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.batch_rows.record(rows as u64);
        self.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Rows that a source read and that go no further.
    pub(crate) fn came_in(&self, rows: usize) {
        self.rows_in.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// Shows a batch to who watches the node.
    pub(crate) fn show(&self, batch: &Batch) {
        self.taps.show(batch);
    }

    pub(crate) fn out(&self, rows: usize) {
        self.rows_out.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn rejected(&self, rows: usize) {
        self.rejected.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn late(&self, rows: usize) {
        self.late.fetch_add(rows as u64, Ordering::Relaxed);
    }

    /// A source has counted on.
    pub(crate) fn counted(&self, before: SourceCounts, now: SourceCounts) {
        let add = |counter: &AtomicU64, before: u64, now: u64| {
            let more = now.saturating_sub(before);
            if more > 0 {
                counter.fetch_add(more, Ordering::Relaxed);
            }
        };
        add(&self.rows_in, before.dropped, now.dropped);
        add(&self.dropped, before.dropped, now.dropped);
        add(&self.spilled, before.spilled, now.spilled);
        add(&self.held, before.held, now.held);
        add(&self.duplicates, before.duplicates, now.duplicates);
    }

    /// A hot lane of the convoy gave something to others.
    pub(crate) fn split(&self) {
        self.splits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn busy(&self, nanos: u64) {
        self.busy_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.calls.record(nanos);
    }

    /// A task has waited for room.
    pub(crate) fn blocked(&self, nanos: u64) {
        self.blocked_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// A call of the plugin failed.
    pub(crate) fn fault(&self, cause: &OperatorError) {
        let counter = match cause {
            OperatorError::Trap { .. } => &self.traps,
            OperatorError::Deadline { .. } => &self.timeouts,
            OperatorError::Retry { .. } => return,
            _ => &self.faults,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Another plugin is in a task of the stage.
    pub(crate) fn swapped(&self) {
        self.swaps.fetch_add(1, Ordering::Relaxed);
    }

    /// The plugin of a task has so much memory.
    pub(crate) fn memory(&self, task: u16, bytes: u64) {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).insert(task, bytes);
    }

    pub(crate) fn guest_cpu(&self, nanos: u64) {
        self.guest_cpu_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn has_read(&self, more: u64) {
        self.read.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn to_read(&self, more: u64) {
        self.read_total.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn watermark(&self, time: Timestamp) {
        self.watermark.store(time.0, Ordering::Relaxed);
    }

    /// The ordering buffers of a task, as they stand.
    pub(crate) fn ordering(&self, task: u16, buffers: impl Iterator<Item = OrderingSnapshot>) {
        if let Some(now) = buffers.reduce(OrderingSnapshot::and) {
            self.ordering.lock().unwrap_or_else(PoisonError::into_inner).insert(task, now);
        }
    }

    /// Rows of a source were too far ahead of the clock.
    pub(crate) fn skewed(&self, more: u64) {
        self.skewed.fetch_add(more, Ordering::Relaxed);
    }

    /// Counts on what an operator counts. Names that there is no room for are dropped.
    pub(crate) fn guest(&self, updates: impl IntoIterator<Item = MetricUpdate>, account: Option<&Account>) {
        let mut guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        for update in updates {
            let (name, add, value) = match update {
                MetricUpdate::Add(name, delta) => (name, true, delta as f64),
                MetricUpdate::Set(name, value) => (name, false, value),
                MetricUpdate::Observe(name, value) => {
                    for (name, more) in [(format!("{name}_sum"), value), (format!("{name}_count"), 1.0)] {
                        if guest.has(&name, account) {
                            *guest.values.entry(name).or_default() += more;
                        }
                    }
                    continue;
                }
            };
            if guest.has(&name, account) {
                let slot = guest.values.entry(name).or_default();
                *slot = if add { *slot + value } else { value };
            }
        }
    }

    fn snapshot(&self) -> NodeSnapshot {
        NodeSnapshot {
            name: self.name.clone(),
            opened: self.opened.load(Ordering::Relaxed),
            rows_in: self.rows_in.load(Ordering::Relaxed),
            rows_out: self.rows_out.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            splits: self.splits.load(Ordering::Relaxed),
            counts: SourceCounts {
                dropped: self.dropped.load(Ordering::Relaxed),
                spilled: self.spilled.load(Ordering::Relaxed),
                held: self.held.load(Ordering::Relaxed),
                duplicates: self.duplicates.load(Ordering::Relaxed),
            },
            busy_nanos: self.busy_nanos.load(Ordering::Relaxed),
            guest_cpu_nanos: self.guest_cpu_nanos.load(Ordering::Relaxed),
            read: self.read.load(Ordering::Relaxed),
            read_total: self.read_total.load(Ordering::Relaxed),
            watermark: Timestamp(self.watermark.load(Ordering::Relaxed)),
            guest: self.guest.lock().unwrap_or_else(PoisonError::into_inner).values.clone(),
            ordering: {
                let tasks = self.ordering.lock().unwrap_or_else(PoisonError::into_inner);
                tasks.values().copied().reduce(OrderingSnapshot::and)
            },
            skewed: self.skewed.load(Ordering::Relaxed),
            calls: self.calls.snapshot(),
            batch_rows: self.batch_rows.snapshot(),
            blocked_nanos: self.blocked_nanos.load(Ordering::Relaxed),
            traps: self.traps.load(Ordering::Relaxed),
            timeouts: self.timeouts.load(Ordering::Relaxed),
            faults: self.faults.load(Ordering::Relaxed),
            swaps: self.swaps.load(Ordering::Relaxed),
            memory_bytes: self.memory.lock().unwrap_or_else(PoisonError::into_inner).values().sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_an_operator_are_bounded() {
        let node = NodeMetrics::new(NodeName::new("n").expect("a name"));
        node.guest((0..10_000).map(|i| MetricUpdate::Add(format!("m{i}"), 1)), None);
        node.guest([MetricUpdate::Add("m0".into(), 2), MetricUpdate::Observe("o".into(), 1.0)], None);
        let guest = node.snapshot().guest;
        assert_eq!(guest.len(), GUEST_METRICS_MAX);
        assert_eq!(guest["m0"], 3.0);
    }
}
