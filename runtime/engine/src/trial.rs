use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wasmill_contract::{
    BoxFuture, ConnectorError, Cut, DeadLetter, OperatorContext, OperatorFactory, Share, Sink, SinkHandle,
};
use wasmill_env::{Clock, SimulatedClock};
use wasmill_model::{Batch, Entries, Epoch, NodeName, SpaceMigration, Timestamp, WindowSpec};
use wasmill_order::{Timers, Windows};
use wasmill_plan::FaultPolicy;
use wasmill_store::{MemoryState, StateBackend};

use crate::chain::{Chain, Output, Slot, SlotKind, Stopped, Target};
use crate::error::JobError;
use crate::faults::Plugin;
use crate::metrics::JobMetrics;
use crate::operator_slot::OperatorSlot;
use crate::signal::Barrier;
use crate::sink_slot::SinkSlot;
use crate::window_slot::WindowSlot;

/// One stage by itself, driven by hand in virtual time: for golden cases.
///
/// The stage runs as it does in a job, in a task of its own, without queues and without another
/// stage. Everything it does is done when a call returns. Where it fails, the call does: a case of
/// a test that traps does not hold.
pub struct StageTrial {
    chain: Chain,
    clock: Arc<SimulatedClock>,
    collected: Arc<Mutex<Vec<(u16, Batch)>>>,
    rejected: Vec<DeadLetter>,
    epoch: Epoch,
}

/// What a stage did since it was last asked.
#[derive(Debug, Default)]
pub struct TrialOutput {
    /// Rows by output port, in the order of delivery.
    pub rows: Vec<(u16, Batch)>,
    /// Rows for the dead-letter queue.
    pub rejected: Vec<DeadLetter>,
}

impl StageTrial {
    /// A fresh stage with empty state, and a wall clock that stands at the Unix epoch. `window`
    /// makes it a stage for an aggregate.
    ///
    /// # Errors
    /// Where the operator cannot be opened.
    pub async fn open(
        name: NodeName,
        factory: Arc<dyn OperatorFactory>,
        window: Option<WindowSpec>,
    ) -> Result<Self, JobError> {
        let outputs = factory.descriptor().outputs.len().max(1);
        let metrics = Arc::new(JobMetrics::new([name.clone()]));
        let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
        let collected = Arc::new(Mutex::new(Vec::new()));
        let context = context(&name, &*factory);
        let faults = FaultPolicy { in_a_row_max: 0, retries_max: 0, ..FaultPolicy::default() };
        let plugin =
            Plugin::new(name.clone(), factory, faults, Arc::clone(&clock) as Arc<dyn Clock>, metrics.node(&name));
        let kind = match window {
            None => {
                let operator = plugin.open(context).await?;
                SlotKind::Operator(OperatorSlot::new(plugin, operator, Timers::default()))
            }
            Some(spec) => {
                let aggregate = plugin.open_aggregate(context).await?;
                let windows = Windows::new(spec).map_err(|cause| JobError::Order { node: name.clone(), cause })?;
                SlotKind::Window(WindowSlot::new(plugin, aggregate, windows, u64::MAX))
            }
        };
        let sinks = (0..outputs).map(|port| {
            let collector = Collector { port: port as u16, collected: Arc::clone(&collected) };
            let kind = SlotKind::Sink(SinkSlot::new(name.clone(), Box::new(collector)));
            (Slot { name: name.clone(), kind, metrics: metrics.node(&name) }, Vec::new())
        });
        let to_sinks = (0..outputs).map(|port| Output {
            port: port as u16,
            key: None,
            target: Target::Local { slot: port + 1, port: 0 },
        });
        let first = Slot { name: name.clone(), kind, metrics: metrics.node(&name) };
        let nodes = std::iter::once((first, to_sinks.collect())).chain(sinks).collect();
        let chain = Chain::new(nodes, Share::WHOLE, Arc::clone(&clock) as Arc<dyn Clock>, metrics);
        Ok(Self { chain, clock, collected, rejected: Vec::new(), epoch: Epoch(0) })
    }

    /// Rows for an input port.
    ///
    /// # Errors
    /// Where the operator fails.
    pub async fn rows(&mut self, port: u16, rows: Batch) -> Result<(), JobError> {
        self.chain.rows(port, rows).await.map_err(failed)
    }

    /// Raises the watermark; one that is no higher changes nothing.
    ///
    /// # Errors
    /// Where the operator fails.
    pub async fn watermark(&mut self, time: Timestamp) -> Result<(), JobError> {
        self.chain.watermark(time, false).await.map_err(failed)
    }

    /// Moves the wall clock forward to `time`.
    ///
    /// # Errors
    /// Where the operator fails.
    pub async fn wall(&mut self, time: Timestamp) -> Result<(), JobError> {
        let micros = time.0.saturating_sub(self.clock.wall().0).max(0).unsigned_abs();
        self.clock.advance(Duration::from_micros(micros));
        self.chain.wall().await.map_err(failed)
    }

    /// Ends an epoch: the operator writes its cached state.
    ///
    /// # Errors
    /// Where the operator fails.
    pub async fn flush(&mut self) -> Result<(), JobError> {
        self.epoch = self.epoch.next();
        let barrier = Barrier { epoch: self.epoch, last: false };
        let Cut { dead_letters, .. } = self.chain.barrier(barrier).await.map_err(failed)?;
        self.rejected.extend(dead_letters);
        Ok(())
    }

    /// Ends an epoch, and goes on with a fresh instance on the same state.
    ///
    /// # Errors
    /// Where the operator fails.
    pub async fn restart(&mut self) -> Result<(), JobError> {
        self.flush().await?;
        self.chain.restart_first().await
    }

    /// Ends an epoch, and goes on with a fresh instance that has also taken over these entries, which
    /// another schema version has left.
    ///
    /// # Errors
    /// Where the operator fails, or does not know that version.
    pub async fn migrate(&mut self, of: SpaceMigration, entries: &Entries) -> Result<(), JobError> {
        self.restart().await?;
        self.chain.migrate_first(of, entries).await
    }

    /// What the stage did since this was last called.
    pub fn take(&mut self) -> TrialOutput {
        self.rejected.extend(self.chain.take_dead_letters());
        let rows = std::mem::take(&mut *self.collected.lock().unwrap_or_else(PoisonError::into_inner));
        TrialOutput { rows, rejected: std::mem::take(&mut self.rejected) }
    }
}

fn context(name: &NodeName, factory: &dyn OperatorFactory) -> OperatorContext {
    let mut state = MemoryState::default();
    state.declare(&factory.descriptor().spaces);
    OperatorContext::new(name.clone(), Share::WHOLE, Box::new(state))
}

fn failed(stopped: Stopped) -> JobError {
    match stopped {
        Stopped::Failed(error) => error,
        // A chain without queues has no receiver that could go, and no task to stop.
        Stopped::ReceiverGone | Stopped::Parked => JobError::Cancelled,
    }
}

/// Keeps what an output port sends.
struct Collector {
    port: u16,
    collected: Arc<Mutex<Vec<(u16, Batch)>>>,
}

impl Sink for Collector {
    fn write<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner).push((self.port, batch.clone()));
        Box::pin(async { Ok(()) })
    }

    fn prepare(&mut self, _: Epoch) -> BoxFuture<'_, Result<SinkHandle, ConnectorError>> {
        Box::pin(async { Ok(SinkHandle::default()) })
    }

    fn commit(&mut self, _: Epoch, _: bool) -> BoxFuture<'_, Result<(), ConnectorError>> {
        Box::pin(async { Ok(()) })
    }
}
