//! Plugins that fail on rows that say so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use wasmill_contract::{
    Aggregate, BoxFuture, LogLine, MetricUpdate, OpenError, Operator, OperatorContext, OperatorError, OperatorFactory,
    TimerChange,
};
use wasmill_model::{
    Batch, Clock, Column, Descriptor, Emission, Firings, Folded, LetterKind, LogLevel, Outcome, Output, PaneBatch,
    PluginDigest, Rejected, Results, Rows, SpaceDescriptor, Timestamp,
};

use super::{CountInstance, descriptor};

/// Timers are set this much later than their row, so that all fire at the end.
pub(crate) const TIMER_DELAY: i64 = 1 << 40;

/// How a row fails a call, if it does.
pub(crate) fn failure(text: &str, call: &'static str) -> Option<OperatorError> {
    let reason = || text.to_owned();
    Some(match text.split_once('-')?.0 {
        "trap" => OperatorError::Trap { call, reason: reason(), stack: vec!["inner".into(), "outer".into()] },
        "time" => OperatorError::Deadline { call, limit_ms: 7 },
        "limit" => OperatorError::Limit { call, limit: reason() },
        "breach" => OperatorError::Contract { call, reason: reason() },
        "fatal" => OperatorError::Fatal { call, reason: reason() },
        "retry" => OperatorError::Retry { call, reason: reason() },
        _ => return None,
    })
}

/// The kind of letter that such a row becomes.
pub(crate) fn letter_kind(text: &str) -> Option<LetterKind> {
    if text.starts_with("reject-") { Some(LetterKind::Rejected) } else { Some(failure(text, "")?.letter_kind()) }
}

/// Counts rows by key. The count is in the memory of the instance until it is flushed, or, where it
/// writes through, in state at once. An instance that has failed must not be called again.
#[derive(Clone)]
pub(crate) struct FaultyCounter {
    pub(crate) descriptor: Descriptor,
    pub(crate) write_through: bool,
    /// Calls that ask to be tried again succeed once this is used up.
    pub(crate) patience: Arc<AtomicU32>,
    pub(crate) opened: Arc<AtomicU32>,
    /// Instances behind this many do not open.
    pub(crate) open_max: u32,
    /// Instances say that they have grown too large.
    pub(crate) overgrown: bool,
}

impl FaultyCounter {
    pub(crate) fn new(write_through: bool) -> Self {
        let mut descriptor = descriptor(false);
        descriptor.spaces = vec![SpaceDescriptor { name: "count".into(), schema_version: 1, ttl: None }];
        let (patience, opened) = (Arc::new(AtomicU32::new(u32::MAX)), Arc::default());
        Self { descriptor, write_through, patience, opened, open_max: u32::MAX, overgrown: false }
    }
}

impl OperatorFactory for FaultyCounter {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn digest(&self) -> PluginDigest {
        PluginDigest([9; 32])
    }

    fn open(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>> {
        Box::pin(async move {
            if self.opened.fetch_add(1, Ordering::Relaxed) >= self.open_max {
                let cause = OperatorError::Fatal { call: "open", reason: "no more".into() };
                return Err(Box::new(OpenError { cause, context }));
            }
            let mut counter = Counter { context, factory: self.clone(), cache: BTreeMap::new(), dead: false };
            counter.says("opened");
            Ok(Box::new(counter) as Box<dyn Operator>)
        })
    }

    fn open_aggregate(&self, _: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>> {
        unreachable!("the tests put it where an operator belongs")
    }
}

struct Counter {
    context: OperatorContext,
    factory: FaultyCounter,
    cache: BTreeMap<Vec<u8>, u64>,
    dead: bool,
}

impl Counter {
    fn says(&mut self, message: &str) {
        self.context.log.push(LogLine { level: LogLevel::Info, message: message.into() });
        self.context.metrics.push(MetricUpdate::Add(message.into(), 1));
    }

    fn count(&mut self, key: &[u8]) -> u64 {
        let keys: Column = [key].iter().collect();
        let mut stored = Default::default();
        let found = self.context.state.get_many(0, &keys, &Column::default(), &mut stored).expect("declared");
        let stored = stored.finish();
        let before = match self.cache.get(key) {
            Some(&cached) => cached,
            None if found.get(0) => u64::from_le_bytes(stored.row(0).try_into().expect("8 bytes")),
            None => 0,
        };
        if self.factory.write_through {
            self.put(key, before + 1);
        } else {
            self.cache.insert(key.to_vec(), before + 1);
        }
        self.says("counted");
        before + 1
    }

    fn put(&mut self, key: &[u8], count: u64) {
        let (keys, values) = ([key].iter().collect(), [count.to_le_bytes()].iter().collect());
        self.context.state.put_many(0, &keys, &Column::default(), &values).expect("declared");
    }

    fn fails(&mut self, text: &[u8], call: &'static str) -> Result<(), OperatorError> {
        let text = std::str::from_utf8(text).expect("text");
        let Some(failure) = failure(text, call) else { return Ok(()) };
        if matches!(failure, OperatorError::Retry { .. })
            && self
                .factory
                .patience
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_err()
        {
            return Ok(());
        }
        self.dead = true;
        Err(failure)
    }

    fn rows(&mut self, input: &Batch) -> Result<Outcome, OperatorError> {
        let (mut rejected, mut values) = (Vec::new(), Vec::new());
        for (row, (key, value)) in input.keys().iter().zip(input.values().iter()).enumerate() {
            self.fails(value, "process")?;
            if value.starts_with(b"reject-") {
                rejected.push(Rejected { row: row as u32, reason: "refused".into() });
                values.push(String::new());
                continue;
            }
            if let Some(tag) = value.strip_prefix(b"timer:") {
                self.context.timers.push(TimerChange {
                    clock: Clock::Event,
                    keys: Arc::new([key].iter().collect()),
                    tags: Arc::new([tag].iter().collect()),
                    times: Some(vec![input.times()[row] + TIMER_DELAY]),
                });
            }
            values.push(self.count(key).to_string());
        }
        let output = Output::Values(values.iter().collect());
        Ok(Outcome { emissions: vec![Emission { port: 0, output }], rejected })
    }

    fn timers(&mut self, fired: &Firings) -> Result<Outcome, OperatorError> {
        let mut values = Vec::new();
        for (key, tag) in fired.keys.iter().zip(fired.tags.iter()) {
            self.fails(tag, "on-timers")?;
            values.push(format!("timer {}", self.count(key)));
        }
        let rows = Rows {
            times: vec![],
            keys: Column::default(),
            origins: (0..values.len() as u32).collect(),
            values: values.iter().collect(),
        };
        Ok(Outcome { emissions: vec![Emission { port: 0, output: Output::Rows(rows) }], rejected: vec![] })
    }

    fn flushes(&mut self) -> Result<(), OperatorError> {
        self.says("flushed");
        let cache = std::mem::take(&mut self.cache);
        for (key, count) in cache {
            self.put(&key, count);
            self.fails(&key, "flush")?;
        }
        Ok(())
    }

    fn alive(&mut self) -> &mut Self {
        assert!(!self.dead, "an instance that has failed is called again");
        self
    }
}

impl Operator for Counter {
    fn process<'a>(&'a mut self, _: u16, input: &'a Batch) -> BoxFuture<'a, Result<Outcome, OperatorError>> {
        Box::pin(async move { self.alive().rows(input) })
    }

    fn on_timers<'a>(&'a mut self, _: Clock, fired: &'a Firings) -> BoxFuture<'a, Result<Outcome, OperatorError>> {
        Box::pin(async move { self.alive().timers(fired) })
    }

    fn on_watermark(&mut self, _: Timestamp) -> BoxFuture<'_, Result<Outcome, OperatorError>> {
        Box::pin(async move { Ok(Outcome::default()) })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), OperatorError>> {
        Box::pin(async move { self.alive().flushes() })
    }

    fn is_overgrown(&self) -> bool {
        self.factory.overgrown
    }

    fn context(&mut self) -> &mut OperatorContext {
        &mut self.context
    }

    fn close(self: Box<Self>) -> OperatorContext {
        self.context
    }
}

/// Counts rows by window as `CountAggregate` does, and fails on rows and keys that say so, and on
/// merging an accumulator of `merge_fails_on`.
#[derive(Clone)]
pub(crate) struct FaultyAggregate {
    descriptor: Descriptor,
    merge_fails_on: u64,
}

impl FaultyAggregate {
    pub(crate) fn new(merge_fails_on: u64) -> Self {
        Self { descriptor: descriptor(true), merge_fails_on }
    }
}

impl OperatorFactory for FaultyAggregate {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn digest(&self) -> PluginDigest {
        PluginDigest([8; 32])
    }

    fn open(&self, _: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>> {
        unreachable!("the tests put it where an aggregate belongs")
    }

    fn open_aggregate(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>> {
        let merge_fails_on = self.merge_fails_on;
        Box::pin(async move {
            Ok(Box::new(Folder { count: CountInstance(context), merge_fails_on, dead: false }) as Box<dyn Aggregate>)
        })
    }
}

struct Folder {
    count: CountInstance,
    merge_fails_on: u64,
    dead: bool,
}

impl Folder {
    fn check<'a>(
        &mut self,
        rows: impl IntoIterator<Item = &'a [u8]>,
        call: &'static str,
    ) -> Result<&mut CountInstance, OperatorError> {
        assert!(!self.dead, "an instance that has failed is called again");
        let failed = rows.into_iter().find_map(|row| failure(std::str::from_utf8(row).expect("text"), call));
        self.dead = failed.is_some();
        failed.map_or(Ok(&mut self.count), Err)
    }
}

impl Aggregate for Folder {
    fn fold<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        input: &'a Batch,
    ) -> BoxFuture<'a, Result<Folded, OperatorError>> {
        Box::pin(async move { self.check(input.values().iter(), "fold")?.fold(accumulators, groups, input).await })
    }

    fn merge<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        count: u32,
    ) -> BoxFuture<'a, Result<Column, OperatorError>> {
        Box::pin(async move {
            let bad = self.merge_fails_on.to_string();
            let rows = accumulators.iter().map(|row| if row == bad.as_bytes() { b"trap-merge" } else { row });
            self.check(rows, "merge")?.merge(accumulators, groups, count).await
        })
    }

    fn finish<'a>(
        &'a mut self,
        panes: &'a PaneBatch,
        accumulators: &'a Column,
    ) -> BoxFuture<'a, Result<Results, OperatorError>> {
        Box::pin(async move { self.check(panes.keys.iter(), "finish")?.finish(panes, accumulators).await })
    }

    fn context(&mut self) -> &mut OperatorContext {
        self.count.context()
    }

    fn close(self: Box<Self>) -> OperatorContext {
        Box::new(self.count).close()
    }
}
