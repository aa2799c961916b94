//! A sink in a task, and when rows go to it.
//!
//! *Exactly once*: the sink gets rows as they come and shows them with their epoch. *At least once*:
//! the same, to a writer that shows them at once, where the sink has one. *At most once*: rows that
//! would be shown at once wait here until their epoch is durable. A crash then loses rows that had
//! not left and shows none twice.
//!
//! Sinks whose rows are part of the epoch write, or carry an id that the target knows again, are the
//! same in every mode: nothing is gained by making them forget.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmill_contract::{ConnectorError, Share, Sink, SinkCut, SinkFactory, SinkHandle};
use wasmill_env::{Clock, kill_point, planted};
use wasmill_model::{Batch, Epoch, NodeName, Visibility};
use wasmill_spec::Delivery;

use crate::error::JobError;
use crate::metrics::JobMetrics;

/// Bytes of rows that wait for their epoch before it is asked for. What comes in until then waits
/// too: what one epoch of the sources holds.
const WAITING_BYTES_MAX: usize = 16 << 20;

/// A sink in a task.
pub(crate) struct SinkSlot {
    name: NodeName,
    sink: Box<dyn Sink>,
    waiting: Option<Waiting>,
    /// What was written and is not visible yet; `None` where rows are visible at once.
    hidden: Option<Hidden>,
}

/// Rows, and when the oldest of them entered the host.
type Written = (usize, u64);

/// Takes the time of rows.
#[derive(Clone, Copy)]
pub(crate) struct Meter<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) metrics: &'a JobMetrics,
}

impl Meter<'_> {
    fn reached(self, (rows, arrived_nanos): Written) {
        self.metrics.reached_sink(rows, self.clock.monotonic_nanos().saturating_sub(arrived_nanos));
    }

    fn visible(self, (rows, arrived_nanos): Written) {
        self.metrics.became_visible(rows, self.clock.monotonic_nanos().saturating_sub(arrived_nanos));
    }
}

/// Batches that become visible with their epoch.
#[derive(Default)]
struct Hidden {
    open: Vec<Written>,
    cut: VecDeque<(Epoch, Vec<Written>)>,
}

/// Rows that leave behind their epoch.
#[derive(Default)]
struct Waiting {
    /// Those of the open epoch.
    open: Vec<Batch>,
    open_bytes: usize,
    /// Those of epochs that are not durable yet.
    cut: VecDeque<(Epoch, Vec<Batch>)>,
}

impl SinkSlot {
    pub(crate) async fn open(
        name: NodeName,
        factory: &dyn SinkFactory,
        delivery: Delivery,
        share: Share,
        handle: Option<SinkHandle>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, JobError> {
        let direct = (delivery != Delivery::ExactlyOnce || planted("once-is-at-once")) && factory.has_direct();
        let clock = Arc::clone(clock);
        let opened =
            if direct { factory.open_direct(share, handle, clock) } else { factory.open(share, handle, clock) };
        let sink = opened.await.map_err(|cause| JobError::Sink { node: name.clone(), cause })?;
        let shows_at_once = direct || factory.capabilities().visibility == Visibility::AtOnce;
        let waits = delivery == Delivery::AtMostOnce && shows_at_once && !planted("most-once-leaves-early");
        Ok(Self { name, sink, waiting: waits.then(Waiting::default), hidden: (!shows_at_once).then(Hidden::default) })
    }

    /// A sink that gets rows as they come.
    pub(crate) fn new(name: NodeName, sink: Box<dyn Sink>) -> Self {
        Self { name, sink, waiting: None, hidden: None }
    }

    fn failed(&self) -> impl FnOnce(ConnectorError) -> JobError + use<> {
        let node = self.name.clone();
        move |cause| JobError::Sink { node, cause }
    }

    /// Where the results are, for people.
    pub(crate) fn location(&self) -> Option<String> {
        self.sink.location()
    }

    /// Takes rows.
    pub(crate) async fn write(&mut self, batch: &Batch, meter: Meter<'_>) -> Result<(), JobError> {
        if let Some(waiting) = &mut self.waiting {
            waiting.open_bytes += batch.byte_len();
            waiting.open.push(batch.clone());
            return Ok(());
        }
        let written = self.sink.write(batch).await;
        written.map_err(self.failed())?;
        let written = (batch.len(), batch.arrived_nanos());
        meter.reached(written);
        match &mut self.hidden {
            Some(hidden) => hidden.open.push(written),
            None => meter.visible(written),
        }
        Ok(())
    }

    /// Whether so many rows wait that their epoch should end.
    pub(crate) fn wants_epoch(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.open_bytes > WAITING_BYTES_MAX)
    }

    pub(crate) async fn cut(&mut self, share: Share, epoch: Epoch) -> Result<SinkCut, JobError> {
        kill_point("sink-prepare");
        if let Some(waiting) = &mut self.waiting {
            waiting.open_bytes = 0;
            waiting.cut.push_back((epoch, std::mem::take(&mut waiting.open)));
        }
        if let Some(hidden) = &mut self.hidden {
            hidden.cut.push_back((epoch, std::mem::take(&mut hidden.open)));
        }
        let prepared = self.sink.prepare(epoch).await;
        let handle = prepared.map_err(self.failed())?;
        kill_point("sink-prepared");
        Ok(SinkCut { node: self.name.clone(), share, handle })
    }

    /// The epoch is durable.
    pub(crate) async fn commit(&mut self, epoch: Epoch, last: bool, meter: Meter<'_>) -> Result<(), JobError> {
        kill_point("sink-commit");
        let mut shown = epoch;
        if let Some(waiting) = &mut self.waiting {
            while let Some((_, rows)) = waiting.cut.pop_front_if(|(cut, _)| *cut <= epoch) {
                for batch in rows {
                    let written = self.sink.write(&batch).await;
                    written.map_err(|cause| JobError::Sink { node: self.name.clone(), cause })?;
                    kill_point("sink-left");
                    let written = (batch.len(), batch.arrived_nanos());
                    meter.reached(written);
                    meter.visible(written);
                }
            }
            if last {
                // To the sink they belong to the epoch behind theirs, which never comes.
                shown = epoch.next();
                let prepared = self.sink.prepare(shown).await;
                prepared.map_err(|cause| JobError::Sink { node: self.name.clone(), cause })?;
            }
        }
        let done = self.sink.commit(shown, last).await;
        kill_point("sink-committed");
        done.map_err(self.failed())?;
        if let Some(hidden) = &mut self.hidden {
            while let Some((_, written)) = hidden.cut.pop_front_if(|(cut, _)| *cut <= epoch) {
                written.into_iter().for_each(|written| meter.visible(written));
            }
        }
        Ok(())
    }
}
