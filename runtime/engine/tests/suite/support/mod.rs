//! Native parts for jobs under test: sources from lists, operators from closures, sinks that keep.

pub(crate) mod faulty;
pub(crate) mod graph;
pub(crate) mod mortal;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmill_contract::{
    Aggregate, BatchLimit, Bounds, BoxFuture, ConnectorError, OpenError, Operator, OperatorContext, OperatorError,
    OperatorFactory, Share, Sink, SinkCapabilities, SinkFactory, SinkHandle, Source, SourceCapabilities, SourceEvent,
    SourceFactory, SourcePartition,
};
use wasmill_env::Clock as HostClock;
use wasmill_model::{
    Batch, BatchBuilder, Clock, Column, ColumnSet, Descriptor, Epoch, Firings, Folded, Lineage, NodeName, Outcome,
    PaneBatch, PartitionId, PluginDigest, Position, Results, SpaceDescriptor, Timestamp, Visibility,
};

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a valid name")
}

/// One event of a list: time in microseconds, key, value.
pub(crate) type Row = (i64, &'static str, String);

/// Partitions of rows. After its rows a partition ends, or goes silent where `bounded` is false.
pub(crate) struct ListSource {
    pub(crate) partitions: Vec<Vec<Row>>,
    pub(crate) bounded: bool,
    /// Rows of a batch at most.
    pub(crate) batch: usize,
}

impl SourceFactory for ListSource {
    fn capabilities(&self) -> SourceCapabilities {
        let bounds = if self.bounded { Bounds::Bounded } else { Bounds::Unbounded };
        SourceCapabilities { bounds, replayable: true }
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        let list = (0..self.partitions.len() as u32)
            .map(|id| SourcePartition { id: PartitionId(id), name: format!("list {id}"), size: None })
            .collect();
        Box::pin(async move { Ok(list) })
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        _clock: Arc<dyn HostClock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        let queues = assigned
            .into_iter()
            .map(|(id, position)| {
                let offset = position.map_or(0, |at| u64::from_le_bytes(at.0[..].try_into().expect("8 bytes")));
                let rows = self.partitions[id.0 as usize].iter().skip(offset as usize).cloned().collect();
                (id, offset, rows)
            })
            .collect();
        let reader: Box<dyn Source> =
            Box::new(ListReader { queues, next: 0, bounded: self.bounded, batch: self.batch });
        Box::pin(async move { Ok(reader) })
    }
}

struct ListReader {
    queues: VecDeque<(PartitionId, u64, VecDeque<Row>)>,
    next: usize,
    bounded: bool,
    batch: usize,
}

impl Source for ListReader {
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        if self.queues.iter().all(|(_, _, rows)| rows.is_empty()) {
            if !self.bounded {
                return Box::pin(std::future::pending());
            }
            return Box::pin(async { Ok(SourceEvent::End) });
        }
        // One partition after the other, a few rows each, so that they interleave.
        loop {
            self.next = (self.next + 1) % self.queues.len();
            let (id, offset, rows) = &mut self.queues[self.next];
            if rows.is_empty() {
                continue;
            }
            let mut builder = BatchBuilder::default();
            let mut offsets = Vec::new();
            while builder.len() < limit.rows.min(self.batch) {
                let Some((time, key, value)) = rows.pop_front() else { break };
                builder.push(Timestamp(time), key.as_bytes(), value.as_bytes());
                offsets.push(*offset);
                *offset += 1;
            }
            let lineage = Lineage { partition: *id, offsets: Arc::new(offsets) };
            let batch = builder.finish(0).with_lineage(Some(lineage));
            return Box::pin(async move { Ok(SourceEvent::Rows(batch)) });
        }
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        self.queues.iter().map(|(id, offset, _)| (*id, Position(offset.to_le_bytes().to_vec()))).collect()
    }
}

/// Shows rows at once, over runs of a job: keeps their times.
#[derive(Default, Clone)]
pub(crate) struct DirectSink {
    seen: Arc<Mutex<Vec<i64>>>,
    /// Counts the runs: one that came later shuts this one out.
    runs: Arc<AtomicU64>,
    run: u64,
}

impl DirectSink {
    pub(crate) fn seen(&self) -> Vec<i64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SinkFactory for DirectSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities::append(Visibility::AtOnce)
    }

    fn open(
        &self,
        _share: Share,
        _recovered: Option<SinkHandle>,
        _clock: Arc<dyn HostClock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        let sink: Box<dyn Sink> = Box::new(Self { run, ..self.clone() });
        Box::pin(async move { Ok(sink) })
    }
}

impl Sink for DirectSink {
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if self.runs.load(Ordering::Relaxed) == self.run {
            seen.extend(batch.times().iter());
        }
        drop(seen);
        Box::pin(async { Ok(()) })
    }

    fn prepare(&mut self, _epoch: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        Box::pin(async { Ok(SinkHandle::default()) })
    }

    fn commit(&mut self, _epoch: Epoch, _last: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        Box::pin(async { Ok(()) })
    }
}

/// A row as a sink got it: time, key, value.
pub(crate) type Got = (i64, String, String);

/// Keeps what is written, and what of it is committed, over runs of a job.
#[derive(Default, Clone)]
pub(crate) struct KeepSink {
    kept: Arc<Mutex<Kept>>,
    /// The run that opened this writer: a later one shuts it out, as if its process were dead.
    run: u64,
}

#[derive(Default)]
struct Kept {
    run: u64,
    open: Vec<Got>,
    prepared: Vec<(Epoch, Vec<Got>)>,
    committed: Vec<Got>,
    epochs: Vec<(Epoch, bool)>,
}

impl Kept {
    fn commit(&mut self, epoch: Epoch) {
        for (prepared, rows) in std::mem::take(&mut self.prepared) {
            if prepared <= epoch {
                self.committed.extend(rows);
            } else {
                self.prepared.push((prepared, rows));
            }
        }
    }
}

impl KeepSink {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn committed(&self) -> Vec<Got> {
        self.lock().committed.clone()
    }

    pub(crate) fn sorted(&self) -> Vec<Got> {
        let mut rows = self.committed();
        rows.sort();
        rows
    }

    pub(crate) fn epochs(&self) -> Vec<(Epoch, bool)> {
        self.lock().epochs.clone()
    }

    pub(crate) fn written(&self) -> usize {
        let kept = self.lock();
        kept.open.len() + kept.committed.len() + kept.prepared.iter().map(|(_, rows)| rows.len()).sum::<usize>()
    }
}

impl SinkFactory for KeepSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities::append(Visibility::WithEpoch)
    }

    fn open(
        &self,
        _share: Share,
        recovered: Option<SinkHandle>,
        _clock: Arc<dyn HostClock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        let mut kept = self.lock();
        kept.run += 1;
        let epoch = recovered.map_or(0, |at| u64::from_le_bytes(at.0[..].try_into().expect("8 bytes")));
        kept.commit(Epoch(epoch));
        kept.open.clear();
        kept.prepared.clear();
        let sink: Box<dyn Sink> = Box::new(Self { kept: Arc::clone(&self.kept), run: kept.run });
        Box::pin(async move { Ok(sink) })
    }
}

impl Sink for KeepSink {
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // What a row is stands behind its value.
        let kind = |row: usize| batch.kinds().map_or(String::new(), |kinds| format!(" {}", kinds[row].name()));
        let rows = (0..batch.len()).map(|row| {
            let (key, value) = (text(batch.keys().row(row)), text(batch.values().row(row)));
            (batch.times()[row], key, value + &kind(row))
        });
        let mut kept = self.lock();
        if kept.run == self.run {
            kept.open.extend(rows);
        }
        drop(kept);
        Box::pin(async { Ok(()) })
    }

    fn prepare(&mut self, epoch: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        let mut kept = self.lock();
        if kept.run == self.run {
            let rows = std::mem::take(&mut kept.open);
            kept.prepared.push((epoch, rows));
        }
        Box::pin(async move { Ok(SinkHandle(epoch.0.to_le_bytes().to_vec())) })
    }

    fn commit(&mut self, epoch: Epoch, last: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        let mut kept = self.lock();
        if kept.run == self.run {
            kept.epochs.push((epoch, last));
            kept.commit(epoch);
        }
        Box::pin(async { Ok(()) })
    }
}

/// Takes its first batch and never finishes it.
pub(crate) struct StuckSink;

impl SinkFactory for StuckSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities::append(Visibility::AtOnce)
    }

    fn open(
        &self,
        _share: Share,
        _recovered: Option<SinkHandle>,
        _clock: Arc<dyn HostClock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        let sink: Box<dyn Sink> = Box::new(Self);
        Box::pin(async move { Ok(sink) })
    }
}

impl Sink for StuckSink {
    fn write<'a>(&'a mut self, _batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(std::future::pending())
    }

    fn prepare(&mut self, _epoch: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        Box::pin(std::future::pending())
    }

    fn commit(&mut self, _epoch: Epoch, _last: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        Box::pin(std::future::pending())
    }
}

/// A call of a native operator.
pub(crate) enum Call<'a> {
    Process(u16, &'a Batch),
    Timers(Clock, &'a Firings),
    Watermark(Timestamp),
    Flush,
}

type Function = dyn Fn(&mut OperatorContext, Call<'_>) -> Result<Outcome, OperatorError> + Send + Sync;

/// An operator that is a closure.
#[derive(Clone)]
pub(crate) struct NativeOperator {
    descriptor: Descriptor,
    function: Arc<Function>,
}

impl NativeOperator {
    pub(crate) fn new(
        function: impl Fn(&mut OperatorContext, Call<'_>) -> Result<Outcome, OperatorError> + Send + Sync + 'static,
    ) -> Self {
        Self { descriptor: descriptor(false), function: Arc::new(function) }
    }

    pub(crate) fn with_spaces(mut self, spaces: &[&str]) -> Self {
        self.descriptor.spaces = spaces
            .iter()
            .map(|name| SpaceDescriptor { name: (*name).to_owned(), schema_version: 1, ttl: None })
            .collect();
        self
    }

    pub(crate) fn with_watermarks(mut self) -> Self {
        self.descriptor.watermarks = true;
        self
    }
}

fn descriptor(aggregate: bool) -> Descriptor {
    Descriptor {
        name: "native".into(),
        version: "0".into(),
        inputs: vec!["in".into(), "other".into()],
        outputs: vec!["out".into(), "side".into()],
        spaces: Vec::new(),
        columns: ColumnSet::ALL,
        watermarks: false,
        timed: true,
        aggregate,
        migrates: false,
    }
}

impl OperatorFactory for NativeOperator {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn digest(&self) -> PluginDigest {
        PluginDigest([7; 32])
    }

    fn open(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>> {
        let operator: Box<dyn Operator> = Box::new(NativeInstance { context, function: Arc::clone(&self.function) });
        Box::pin(async move { Ok(operator) })
    }

    fn open_aggregate(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>> {
        Box::pin(async {
            Err(Box::new(OpenError { cause: OperatorError::Instance("not an aggregate".into()), context }))
        })
    }
}

struct NativeInstance {
    context: OperatorContext,
    function: Arc<Function>,
}

impl NativeInstance {
    fn call(&mut self, call: Call<'_>) -> BoxFuture<'static, Result<Outcome, OperatorError>> {
        let result = (self.function)(&mut self.context, call);
        Box::pin(async move { result })
    }
}

impl Operator for NativeInstance {
    fn process<'a>(&'a mut self, port: u16, input: &'a Batch) -> BoxFuture<'a, Result<Outcome, OperatorError>> {
        self.call(Call::Process(port, input))
    }

    fn on_timers<'a>(&'a mut self, clock: Clock, fired: &'a Firings) -> BoxFuture<'a, Result<Outcome, OperatorError>> {
        self.call(Call::Timers(clock, fired))
    }

    fn on_watermark(&mut self, watermark: Timestamp) -> BoxFuture<'_, Result<Outcome, OperatorError>> {
        self.call(Call::Watermark(watermark))
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), OperatorError>> {
        let flushed = self.call(Call::Flush);
        Box::pin(async move { flushed.await.map(drop) })
    }

    fn context(&mut self) -> &mut OperatorContext {
        &mut self.context
    }

    fn close(self: Box<Self>) -> OperatorContext {
        self.context
    }
}

/// Counts rows: the accumulator is a decimal number, the result is `start..end=count`.
pub(crate) struct CountAggregate(Descriptor);

impl Default for CountAggregate {
    fn default() -> Self {
        Self(descriptor(true))
    }
}

impl OperatorFactory for CountAggregate {
    fn descriptor(&self) -> &Descriptor {
        &self.0
    }

    fn digest(&self) -> PluginDigest {
        PluginDigest([8; 32])
    }

    fn open(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>> {
        Box::pin(async {
            Err(Box::new(OpenError { cause: OperatorError::Instance("not an operator".into()), context }))
        })
    }

    fn open_aggregate(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>> {
        let aggregate: Box<dyn Aggregate> = Box::new(CountInstance(context));
        Box::pin(async move { Ok(aggregate) })
    }
}

struct CountInstance(OperatorContext);

fn number(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).expect("text").parse().unwrap_or(0)
}

fn numbers(counts: &[u64]) -> Column {
    counts.iter().map(u64::to_string).collect()
}

impl Aggregate for CountInstance {
    fn fold<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        input: &'a Batch,
    ) -> BoxFuture<'a, Result<Folded, OperatorError>> {
        assert_eq!(groups.len(), input.len());
        let mut counts: Vec<u64> = accumulators.iter().map(number).collect();
        for &group in groups {
            counts[group as usize] += 1;
        }
        Box::pin(async move { Ok(Folded { accumulators: numbers(&counts), rejected: vec![] }) })
    }

    fn merge<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        count: u32,
    ) -> BoxFuture<'a, Result<Column, OperatorError>> {
        let mut counts = vec![0; count as usize];
        for (accumulator, &group) in accumulators.iter().zip(groups) {
            counts[group as usize] += number(accumulator);
        }
        Box::pin(async move { Ok(numbers(&counts)) })
    }

    fn finish<'a>(
        &'a mut self,
        panes: &'a PaneBatch,
        accumulators: &'a Column,
    ) -> BoxFuture<'a, Result<Results, OperatorError>> {
        let values = (0..panes.starts.len())
            .map(|pane| format!("{}..{}={}", panes.starts[pane], panes.ends[pane], number(accumulators.row(pane))))
            .collect();
        Box::pin(async move { Ok(Results { values, panes: vec![] }) })
    }

    fn context(&mut self) -> &mut OperatorContext {
        &mut self.0
    }

    fn close(self: Box<Self>) -> OperatorContext {
        self.0
    }
}
