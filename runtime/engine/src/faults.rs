//! What a stage does about its plugin when a call fails.
//!
//! The slots find out which rows, timers or panes a call fails on; what is here counts them, waits
//! before a call is made again, opens instances, and writes the verdicts.

use std::sync::Arc;
use std::time::Duration;

use wasmill_contract::{
    Aggregate, DeadLetter, LogLine, OpenError, Operator, OperatorContext, OperatorError, OperatorFactory,
};
use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch, LetterSubject, LogLevel, NodeName};
use wasmill_plan::FaultPolicy;

use crate::error::JobError;
use crate::metrics::NodeMetrics;

/// The longest wait before a call is made again.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A call that failed. Its effects are undone; its log lines wait until it is known whether the
/// failure is the last word: part of the call may be made again, and say the same again.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) cause: OperatorError,
    pub(crate) log: Vec<LogLine>,
    /// Whether it is a plugin that runs beside the one of the stage that failed.
    pub(crate) beside: bool,
}

/// The plugin of a stage, and how far its failures may go.
pub(crate) struct Plugin {
    name: NodeName,
    factory: Arc<dyn OperatorFactory>,
    policy: FaultPolicy,
    clock: Arc<dyn Clock>,
    metrics: Arc<NodeMetrics>,
    /// Rows, timers and panes that have failed since one succeeded.
    in_a_row: u64,
    /// The last epoch of the plugin before, until one of this plugin is durable: a fault is no
    /// verdict on what came in, but on the plugin.
    trial: Option<Epoch>,
}

/// How often a call was made again.
#[derive(Debug, Default)]
pub(crate) struct Attempts(u32);

impl Plugin {
    pub(crate) fn new(
        name: NodeName,
        factory: Arc<dyn OperatorFactory>,
        policy: FaultPolicy,
        clock: Arc<dyn Clock>,
        metrics: Arc<NodeMetrics>,
    ) -> Self {
        Self { name, factory, policy, clock, metrics, in_a_row: 0, trial: None }
    }

    pub(crate) fn name(&self) -> &NodeName {
        &self.name
    }

    pub(crate) fn factory(&self) -> &dyn OperatorFactory {
        &*self.factory
    }

    /// Another plugin takes its place.
    pub(crate) fn replace(&mut self, factory: Arc<dyn OperatorFactory>, trial: Option<Epoch>) {
        self.factory = factory;
        self.metrics.swapped();
        self.in_a_row = 0;
        self.trial = trial;
    }

    /// An epoch is durable.
    pub(crate) fn committed(&mut self, epoch: Epoch) {
        self.trial.take_if(|last| epoch > *last);
    }

    pub(crate) fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }

    pub(crate) fn failed(&self, cause: OperatorError) -> JobError {
        JobError::Stage { node: self.name.clone(), cause }
    }

    /// An instance of an operator. An `open` that asks to be tried again is.
    pub(crate) async fn open(&self, mut context: OperatorContext) -> Result<Box<dyn Operator>, JobError> {
        let mut attempts = Attempts::default();
        loop {
            match self.factory.open(context).await {
                Ok(operator) => {
                    self.metrics.opened();
                    return Ok(operator);
                }
                Err(failed) => context = self.open_again(*failed, &mut attempts).await?,
            }
        }
    }

    /// As [`Plugin::open`], an aggregate.
    pub(crate) async fn open_aggregate(&self, mut context: OperatorContext) -> Result<Box<dyn Aggregate>, JobError> {
        let mut attempts = Attempts::default();
        loop {
            match self.factory.open_aggregate(context).await {
                Ok(aggregate) => {
                    self.metrics.opened();
                    return Ok(aggregate);
                }
                Err(failed) => context = self.open_again(*failed, &mut attempts).await?,
            }
        }
    }

    async fn open_again(&self, failed: OpenError, attempts: &mut Attempts) -> Result<OperatorContext, JobError> {
        let OpenError { cause, mut context } = failed;
        if self.waits_for_another_attempt(&cause, attempts).await {
            context.log.clear();
            return Ok(context);
        }
        let log = std::mem::take(&mut context.log);
        log_lines(&context, log);
        Err(self.failed(cause))
    }

    /// The error of a fault that nothing is to blame for that came in: the host's own, or that of a
    /// plugin on trial.
    pub(crate) fn blame(&self, fault: &Fault) -> Result<(), JobError> {
        self.metrics.fault(&fault.cause);
        match &fault.cause {
            cause @ (OperatorError::Host { .. } | OperatorError::Instance(_)) => Err(self.failed(cause.clone())),
            OperatorError::Retry { .. } => Ok(()),
            cause if self.trial.is_some() => Err(self.trial_failed(cause)),
            _ => self.condemn(fault),
        }
    }

    /// The error of a fault of a plugin that runs beside that of the stage: it is no verdict on what came
    /// in either, however often the call was made.
    pub(crate) fn condemn(&self, fault: &Fault) -> Result<(), JobError> {
        if fault.beside { Err(self.trial_failed(&fault.cause)) } else { Ok(()) }
    }

    pub(crate) fn trial_failed(&self, cause: &OperatorError) -> JobError {
        JobError::TrialFailed { node: self.name.clone(), cause: cause.clone() }
    }

    /// Whether the call may be made again, after a while that doubles each time.
    pub(crate) async fn waits_for_another_attempt(&self, cause: &OperatorError, attempts: &mut Attempts) -> bool {
        if !matches!(cause, OperatorError::Retry { .. }) || attempts.0 >= self.policy.retries_max {
            return false;
        }
        let wait = self.policy.backoff.saturating_mul(1 << attempts.0.min(20)).min(BACKOFF_MAX);
        attempts.0 += 1;
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.clock.sleep_until(self.clock.monotonic_nanos().saturating_add(nanos)).await;
        true
    }

    /// Something that came in succeeded.
    pub(crate) fn succeeded(&mut self) {
        self.in_a_row = 0;
    }

    /// What a call of one row, timer or pane fails on goes to the dead letters.
    ///
    /// # Errors
    /// Where too many have failed in a row: then it is not they that are wrong.
    pub(crate) fn verdict(
        &mut self,
        fault: Fault,
        context: &OperatorContext,
        subject: LetterSubject,
        rows: Batch,
    ) -> Result<DeadLetter, JobError> {
        let Fault { cause, log, .. } = fault;
        log_lines(context, log);
        if self.in_a_row >= self.policy.in_a_row_max {
            let node = self.name.clone();
            return Err(match self.in_a_row {
                0 => JobError::Stage { node, cause },
                failed => JobError::AlwaysFails { node, failed: failed + 1, cause },
            });
        }
        self.in_a_row += 1;
        let kind = cause.letter_kind();
        let reasons = vec![reason(&cause); rows.len()];
        let stack = if let OperatorError::Trap { stack, .. } = cause { stack } else { Vec::new() };
        let (node, digest) = (self.name.clone(), Some(self.factory.digest()));
        Ok(DeadLetter { node, digest, kind, subject, rows, reasons, stack })
    }
}

/// An error without the stack, which a letter holds by itself.
fn reason(cause: &OperatorError) -> String {
    match cause {
        OperatorError::Trap { call, reason, .. } => format!("{call} trapped: {reason}"),
        cause => cause.to_string(),
    }
}

/// After a call: its effects stay where they are if it succeeded, and are undone if it failed.
/// `quiet` calls repeat what was said before: their log lines and metrics are dropped.
pub(crate) fn settle<T>(
    context: &mut OperatorContext,
    metrics: &NodeMetrics,
    result: Result<T, OperatorError>,
    quiet: bool,
) -> Result<T, Fault> {
    let log = std::mem::take(&mut context.log);
    metrics.guest_cpu(std::mem::take(&mut context.cpu_nanos));
    match result {
        Ok(value) => {
            let updates = std::mem::take(&mut context.metrics);
            if !quiet {
                log_lines(context, log);
                if !updates.is_empty() {
                    metrics.guest(updates, context.account.as_deref());
                }
            }
            Ok(value)
        }
        Err(cause) => {
            context.undo_call();
            Err(Fault { cause, log, beside: false })
        }
    }
}

/// Log lines of a plugin, with the stage they come from, as many as its tenant may say.
pub(crate) fn log_lines(context: &OperatorContext, mut lines: Vec<LogLine>) {
    if lines.is_empty() {
        return;
    }
    if let Some(account) = &context.account {
        lines.truncate(account.log_lines(lines.len()));
    }
    context.span.in_scope(|| {
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
