use std::sync::Arc;

use wasmill_contract::{Aggregate, OperatorContext, OperatorError, OperatorFactory, Share, StageCut};
use wasmill_env::planted;
use wasmill_model::{Batch, Column, NodeName, PaneBatch, Results};
use wasmill_order::{Fired, OrderError, Windows};
use wasmill_store::{ChangeSet, MemoryState};

use crate::error::JobError;
use crate::metrics::NodeMetrics;
use crate::operator_slot::{Moment, Produced, log_lines};
use crate::outcome;

/// Panes that one call of an aggregate is given.
const PANES_MAX: usize = 4_096;
/// The port that results leave by.
const RESULTS: u16 = 0;

/// An aggregate in a task, with its windows.
pub(crate) struct WindowSlot {
    name: NodeName,
    aggregate: Box<dyn Aggregate>,
    windows: Windows,
    metrics: Arc<NodeMetrics>,
}

impl WindowSlot {
    pub(crate) fn new(
        name: NodeName,
        aggregate: Box<dyn Aggregate>,
        windows: Windows,
        metrics: Arc<NodeMetrics>,
    ) -> Self {
        Self { name, aggregate, windows, metrics }
    }

    /// A fresh instance for the same windows. An aggregate keeps nothing, so its state is empty.
    pub(crate) async fn restarted(mut self, factory: &dyn OperatorFactory) -> Result<Self, JobError> {
        let context = self.aggregate.context();
        let (stage, share) = (context.stage.clone(), context.share);
        let fresh = OperatorContext::new(stage, share, Box::new(MemoryState::default()));
        let opened = factory.open_aggregate(fresh).await;
        let aggregate = opened.map_err(|cause| JobError::Stage { node: self.name.clone(), cause })?;
        Ok(Self { aggregate, ..self })
    }

    /// After a call: log lines and metrics leave, and errors name the stage.
    fn settle<T>(&mut self, result: Result<T, OperatorError>) -> Result<T, JobError> {
        let context = self.aggregate.context();
        let lines = std::mem::take(&mut context.log);
        log_lines(&context.span, lines);
        let metrics = std::mem::take(&mut context.metrics);
        let result = result.map_err(|cause| JobError::Stage { node: self.name.clone(), cause })?;
        if !metrics.is_empty() {
            self.metrics.guest(metrics);
        }
        Ok(result)
    }

    fn order(&self, cause: OrderError) -> JobError {
        JobError::Order { node: self.name.clone(), cause }
    }

    pub(crate) async fn process(&mut self, input: &Batch, at: Moment) -> Result<Produced, JobError> {
        let mut assignment = self.windows.assign(input).map_err(|cause| self.order(cause))?;
        let on_time = match assignment.on_time.take() {
            Some(on_time) => {
                self.metrics.late(input.len() - on_time.count());
                input.keep(&on_time)
            }
            None => input.clone(),
        };
        if on_time.is_empty() {
            return Ok(Produced::default());
        }
        self.aggregate.context().begin_call(at.watermark, at.wall);
        let result = self.aggregate.fold(&assignment.accumulators, &assignment.groups, &on_time).await;
        let folded = self.settle(result)?;
        self.windows.store(&assignment, &folded).map_err(|cause| self.order(cause))?;
        Ok(Produced { outputs: Vec::new(), rejected: outcome::rejected_rows(&on_time, &folded.rejected) })
    }

    /// Fires windows that the watermark has passed, at most one call's worth of panes. `None` once
    /// none is due.
    pub(crate) async fn fire(&mut self, at: Moment) -> Result<Option<Produced>, JobError> {
        let Some(Fired { panes, accumulators, merge }) = self.windows.fire(at.watermark, PANES_MAX) else {
            return Ok(None);
        };
        let accumulators = match merge {
            Some(groups) => self.merge(&accumulators, &groups, panes.keys.len(), at).await?,
            None => accumulators,
        };
        self.aggregate.context().begin_call(at.watermark, at.wall);
        let result = self.aggregate.finish(&panes, &accumulators).await;
        let results = self.settle(result)?;
        let batch = rows(panes, results, at.monotonic_nanos);
        let outputs = if batch.is_empty() { Vec::new() } else { vec![(RESULTS, batch)] };
        Ok(Some(Produced { outputs, rejected: None }))
    }

    async fn merge(
        &mut self,
        accumulators: &Column,
        groups: &[u32],
        panes: usize,
        at: Moment,
    ) -> Result<Column, JobError> {
        self.aggregate.context().begin_call(at.watermark, at.wall);
        let result = self.aggregate.merge(accumulators, groups, panes as u32).await;
        self.settle(result)
    }

    pub(crate) fn cut(&mut self, share: Share) -> StageCut {
        let mut windows = self.windows.take_changes();
        if planted("panes-not-in-cut") {
            windows.entries.clear();
        }
        let windows = Some(windows);
        StageCut { node: self.name.clone(), share, state: ChangeSet::default(), timers: Vec::new(), windows }
    }
}

/// Results as events: the key of their pane, at the last microsecond of its window.
fn rows(panes: PaneBatch, results: Results, now_nanos: u64) -> Batch {
    let last = |pane: usize| panes.ends[pane].saturating_sub(1);
    let (times, keys) = if results.panes.is_empty() {
        ((0..panes.ends.len()).map(last).collect(), panes.keys)
    } else {
        let times = results.panes.iter().map(|&pane| last(pane as usize)).collect();
        (times, panes.keys.gather(&results.panes))
    };
    Batch::new(Arc::new(times), Arc::new(keys), Arc::new(results.values), now_nanos)
}
