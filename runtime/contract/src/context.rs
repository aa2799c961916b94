use std::sync::Arc;

use tracing::Span;
use wasmill_model::{Clock, Column, LogLevel, NodeName, Timestamp};
use wasmill_store::{MemoryState, StateBackend};
use wasmill_tenancy::Account;

use crate::Share;

/// What the host keeps for one instance of an operator, and what its calls have asked for.
///
/// The instance owns it while it lives; [`crate::Operator::close`] gives it back, so that another
/// instance can go on with the same state.
///
/// # One call
/// The engine calls [`OperatorContext::begin_call`], then the operator, then either
/// [`OperatorContext::accept_call`] or [`OperatorContext::undo_call`]. Timers, log lines and
/// metrics wait in the buffers until then.
pub struct OperatorContext {
    /// The stage.
    pub stage: NodeName,
    /// Which of its tasks.
    pub share: Share,
    /// State of this share of the keys.
    pub state: Box<dyn StateBackend>,
    /// The watermark of the stage.
    pub watermark: Timestamp,
    /// The wall clock at the start of the call.
    pub wall: Timestamp,
    /// Timers set and deleted since the start of the call, in order.
    pub timers: Vec<TimerChange>,
    /// Log lines since the start of the call. Bounded by the host of the operator.
    pub log: Vec<LogLine>,
    /// Metrics since the start of the call. Bounded by the host of the operator.
    pub metrics: Vec<MetricUpdate>,
    /// Where log lines go.
    pub span: Span,
    /// Whose budgets it counts against, in a process of several tenants.
    pub account: Option<Arc<Account>>,
    /// Whether a call repeats one that was accepted: budgets do not refuse what it wants.
    pub repeats: bool,
    /// CPU time that calls have used and nobody has taken note of, nanoseconds.
    pub cpu_nanos: u64,
}

impl OperatorContext {
    /// An empty context for one share of a stage.
    #[must_use]
    pub fn new(stage: NodeName, share: Share, state: Box<dyn StateBackend>) -> Self {
        let span = tracing::info_span!("stage", name = %stage, share = share.index);
        Self {
            stage,
            share,
            state,
            watermark: Timestamp::MIN,
            wall: Timestamp::MIN,
            timers: Vec::new(),
            log: Vec::new(),
            metrics: Vec::new(),
            span,
            account: None,
            repeats: false,
            cpu_nanos: 0,
        }
    }

    /// The account whose budgets a call has to keep to.
    #[must_use]
    pub fn bounded_by(&self) -> Option<&Account> {
        self.account.as_deref().filter(|_| !self.repeats)
    }

    /// Takes the context out, with the state; one without any state stays.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let mut nothing = Self::new(self.stage.clone(), self.share, Box::new(MemoryState::default()));
        nothing.account.clone_from(&self.account);
        std::mem::replace(self, nothing)
    }

    /// Starts a call at these times.
    pub fn begin_call(&mut self, watermark: Timestamp, wall: Timestamp) {
        self.watermark = watermark;
        self.wall = wall;
        self.state.advance(watermark, wall);
        self.state.mark();
    }

    /// Drops what a call has asked for and said. State stays as it is.
    pub fn forget_call(&mut self) {
        self.timers.clear();
        self.metrics.clear();
        self.log.clear();
    }

    /// Takes back every effect of the call, but for its log lines: they may say what went wrong.
    pub fn undo_call(&mut self) {
        self.state.undo();
        self.timers.clear();
        self.metrics.clear();
    }
}

impl std::fmt::Debug for OperatorContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperatorContext")
            .field("stage", &self.stage)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}

/// A timer that a call set or deleted. One timer exists per (clock, key, tag).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimerChange {
    /// Which clock it counts in.
    pub clock: Clock,
    /// The event keys, one row a timer.
    pub keys: Arc<Column>,
    /// The tags, one row a timer.
    pub tags: Arc<Column>,
    /// When they are due in microseconds since the Unix epoch, `None` where they are deleted.
    pub times: Option<Vec<i64>>,
}

/// A line that an operator logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// What it says, bounded and without control characters.
    pub message: String,
}

/// A metric that an operator moved.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricUpdate {
    /// Adds to a counter.
    Add(String, u64),
    /// Sets a gauge.
    Set(String, f64),
    /// Records an observation.
    Observe(String, f64),
}
