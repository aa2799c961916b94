use std::sync::Arc;

use wasmill_contract::{Operator, OperatorError, OperatorFactory, Share, StageCut};
use wasmill_env::planted;
use wasmill_model::{Batch, Clock, Descriptor, LogLevel, NodeName, Outcome, Timestamp};
use wasmill_order::Timers;

use crate::error::JobError;
use crate::metrics::NodeMetrics;
use crate::outcome::{self, Origin};

/// Timers that one call of an operator is given.
const FIRINGS_MAX: usize = 1_024;
/// How many times in a row timers may set timers that are due at once.
const TIMER_ROUNDS_MAX: u32 = 10_000;

/// The times a call is made at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) watermark: Timestamp,
    pub(crate) wall: Timestamp,
    pub(crate) monotonic_nanos: u64,
}

/// What a call produced: batches by output port, and rows for the dead-letter queue.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) outputs: Vec<(u16, Batch)>,
    pub(crate) rejected: Option<(Batch, Vec<String>)>,
}

/// An operator in a task, with its timers.
pub(crate) struct OperatorSlot {
    name: NodeName,
    operator: Box<dyn Operator>,
    timers: Timers,
    watermarks: bool,
    metrics: Arc<NodeMetrics>,
}

impl OperatorSlot {
    pub(crate) fn new(
        name: NodeName,
        operator: Box<dyn Operator>,
        descriptor: &Descriptor,
        metrics: Arc<NodeMetrics>,
        timers: Timers,
    ) -> Self {
        Self { name, operator, timers, watermarks: descriptor.watermarks, metrics }
    }

    /// A fresh instance on the same state, with the same timers.
    pub(crate) async fn restarted(self, factory: &dyn OperatorFactory) -> Result<Self, JobError> {
        let opened = factory.open(self.operator.close()).await;
        let operator = opened.map_err(|cause| JobError::Stage { node: self.name.clone(), cause })?;
        Ok(Self { operator, ..self })
    }

    fn failed(&self, cause: OperatorError) -> JobError {
        JobError::Stage { node: self.name.clone(), cause }
    }

    /// After a call: its effects count if it succeeded, and are undone if it failed.
    fn settle<T>(&mut self, result: Result<T, OperatorError>) -> Result<T, JobError> {
        let context = self.operator.context();
        let lines = std::mem::take(&mut context.log);
        log_lines(&context.span, lines);
        match result {
            Ok(value) => {
                let metrics = std::mem::take(&mut context.metrics);
                if !metrics.is_empty() {
                    self.metrics.guest(metrics);
                }
                for change in context.timers.drain(..) {
                    for (row, (key, tag)) in change.keys.iter().zip(change.tags.iter()).enumerate() {
                        match &change.times {
                            Some(times) => self.timers.set(change.clock, key, tag, Timestamp(times[row])),
                            None => self.timers.delete(change.clock, key, tag),
                        }
                    }
                }
                Ok(value)
            }
            Err(cause) => {
                context.undo_call();
                Err(self.failed(cause))
            }
        }
    }

    pub(crate) async fn process(&mut self, port: u16, input: &Batch, at: Moment) -> Result<Produced, JobError> {
        self.operator.context().begin_call(at.watermark, at.wall);
        let result = self.operator.process(port, input).await;
        let outcome = self.settle(result)?;
        Ok(Produced {
            rejected: outcome::rejected_rows(input, &outcome.rejected),
            outputs: outcome::batches(outcome.emissions, &outcome.rejected, Origin::Batch(input), at.monotonic_nanos),
        })
    }

    /// Fires timers of one clock that are due, at most one call's worth. `None` once none is due.
    pub(crate) async fn fire(&mut self, clock: Clock, at: Moment) -> Result<Option<Produced>, JobError> {
        let now = match clock {
            Clock::Event => at.watermark,
            Clock::Processing => at.wall,
        };
        let fired = self.timers.due(clock, now, FIRINGS_MAX);
        if fired.times.is_empty() {
            return Ok(None);
        }
        self.operator.context().begin_call(at.watermark, at.wall);
        let result = self.operator.on_timers(clock, &fired).await;
        let Outcome { emissions, .. } = self.settle(result)?;
        let outputs = outcome::batches(emissions, &[], Origin::Firings(&fired), at.monotonic_nanos);
        Ok(Some(Produced { outputs, rejected: None }))
    }

    /// The error of timers that never cease, once `rounds` is too many.
    pub(crate) fn storm(&self, rounds: u32) -> Result<(), JobError> {
        if rounds < TIMER_ROUNDS_MAX {
            return Ok(());
        }
        Err(JobError::TimerStorm { node: self.name.clone(), rounds })
    }

    pub(crate) async fn on_watermark(&mut self, at: Moment) -> Result<Produced, JobError> {
        if !self.watermarks {
            return Ok(Produced::default());
        }
        self.operator.context().begin_call(at.watermark, at.wall);
        let result = self.operator.on_watermark(at.watermark).await;
        let Outcome { emissions, .. } = self.settle(result)?;
        let outputs = outcome::batches(emissions, &[], Origin::Watermark(at.watermark), at.monotonic_nanos);
        Ok(Produced { outputs, rejected: None })
    }

    /// Whether timers of the clock are due.
    pub(crate) fn is_due(&self, clock: Clock, at: Moment) -> bool {
        let now = match clock {
            Clock::Event => at.watermark,
            Clock::Processing => at.wall,
        };
        self.timers.next_due(clock).is_some_and(|deadline| deadline <= now)
    }

    /// When the next processing-time timer is due.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.next_due(Clock::Processing)
    }

    pub(crate) async fn cut(&mut self, share: Share, at: Moment) -> Result<StageCut, JobError> {
        self.operator.context().begin_call(at.watermark, at.wall);
        let result = self.operator.flush().await;
        self.settle(result)?;
        let mut state = self.operator.context().state.take_changes();
        let mut timers = self.timers.take_changes();
        if planted("state-not-in-cut") {
            state = Default::default();
        }
        if planted("timers-not-in-cut") {
            timers.clear();
        }
        Ok(StageCut { node: self.name.clone(), share, state, timers, windows: None })
    }
}

/// Log lines of a plugin, with the stage they come from.
pub(crate) fn log_lines(span: &tracing::Span, lines: Vec<wasmill_contract::LogLine>) {
    if lines.is_empty() {
        return;
    }
    span.in_scope(|| {
        for line in lines {
            match line.level {
                LogLevel::Debug => tracing::debug!(target: "plugin", "{}", line.message),
                LogLevel::Info => tracing::info!(target: "plugin", "{}", line.message),
                LogLevel::Warn => tracing::warn!(target: "plugin", "{}", line.message),
                LogLevel::Error => tracing::error!(target: "plugin", "{}", line.message),
            }
        }
    });
}
