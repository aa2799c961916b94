//! The ends of a convoy: where batches are dealt to lanes, where a lane hands on what it made of
//! them, and where a task merges what the lanes send. What is decided here stands in
//! `wasmill-order`.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc};
use wasmill_env::planted;
use wasmill_model::{Batch, KeyGroup, key_group};
use wasmill_order::{Affinity, ConvoyMerge, ConvoyRouter, FromLane, Merged, OrderError, weave};
use wasmill_plan::Convoy;
use wasmill_scan::Pointer;

use crate::chain;
use crate::metrics::NodeMetrics;
use crate::queue::{Arrival, Closed, QueueSender};
use crate::signal::{Barrier, Signal};

/// Between the values that make a class: no JSON text begins with it.
const SEPARATOR: u8 = 0;

/// Deals batches to lanes.
pub(crate) struct Splitter {
    lanes: Vec<QueueSender>,
    router: ConvoyRouter,
    /// What makes the class of a row; nothing: its key.
    split: Vec<Pointer>,
    /// Whether what lanes keep can move between them.
    moves: bool,
    ticket: u64,
    /// The class at hand.
    class: Vec<u8>,
    /// Of the convoy.
    metrics: Arc<NodeMetrics>,
}

impl Splitter {
    /// `moves`: whether what lanes keep by key can move between them.
    pub(crate) fn new(lanes: Vec<QueueSender>, convoy: &Convoy, moves: bool, metrics: Arc<NodeMetrics>) -> Self {
        let affinity = if convoy.by_key { Affinity::ByKey } else { Affinity::Loose };
        let router = ConvoyRouter::new(lanes.len() as u16, affinity);
        Self { lanes, router, split: convoy.ordered.split.clone(), moves, ticket: 0, class: Vec::new(), metrics }
    }

    pub(crate) fn lanes(&self) -> &[QueueSender] {
        &self.lanes
    }

    /// Sends every lane its part of a batch.
    pub(crate) async fn deal(&mut self, batch: &Batch) -> Result<(), Closed> {
        let mut parts: Vec<Vec<u32>> = vec![Vec::new(); self.lanes.len()];
        for row in 0..batch.len() {
            let group = self.group(batch, row);
            parts[usize::from(self.router.lane(group))].push(row as u32);
        }
        let ticket = self.ticket;
        self.ticket += 1;
        for (lane, rows) in self.lanes.iter().zip(parts) {
            let mut batches = Vec::new();
            if !rows.is_empty() {
                let part = if rows.len() == batch.len() { batch.clone() } else { batch.gather(&rows) };
                batches.push(part.with_places(Some(Arc::new(rows))));
            }
            lane.send(Signal::Part { ticket, batches }).await?;
        }
        if self.router.batch_done(&self.waiting()) {
            self.metrics.split();
        }
        Ok(())
    }

    /// A barrier has gone to every lane: keys of a hot one move to another, with what it keeps of them.
    pub(crate) async fn epoch_done(&mut self) -> Result<(), Closed> {
        if !self.moves {
            return Ok(());
        }
        let Some(moved) = self.router.epoch_done(&self.waiting()) else { return Ok(()) };
        let (give, take) = mpsc::channel(1);
        self.lanes[usize::from(moved.from)].send(Signal::Give(moved.group, give)).await?;
        self.lanes[usize::from(moved.to)].send(Signal::Take(Arc::new(Mutex::new(take)))).await?;
        self.metrics.split();
        Ok(())
    }

    fn waiting(&self) -> Vec<u64> {
        self.lanes.iter().map(QueueSender::waiting).collect()
    }

    fn group(&mut self, batch: &Batch, row: usize) -> KeyGroup {
        if self.split.is_empty() {
            return key_group(batch.keys().row(row));
        }
        self.class.clear();
        for pointer in &self.split {
            // A row without the field is of the class of those without it.
            if let Ok(Some(raw)) = pointer.find(batch.values().row(row)) {
                self.class.extend_from_slice(raw.bytes());
            }
            self.class.push(SEPARATOR);
        }
        key_group(&self.class)
    }
}

/// An output of a lane.
pub(crate) struct LaneOutput {
    tasks: Vec<QueueSender>,
    /// What belongs to the ticket at hand, by task.
    held: Vec<Vec<Batch>>,
}

impl LaneOutput {
    pub(crate) fn new(tasks: Vec<QueueSender>) -> Self {
        let held = vec![Vec::new(); tasks.len()];
        Self { tasks, held }
    }

    pub(crate) fn tasks(&self) -> &[QueueSender] {
        &self.tasks
    }

    /// Rows that came of the ticket at hand.
    pub(crate) fn hold(&mut self, batch: Batch) {
        for (task, part) in chain::shares(batch, self.tasks.len()) {
            self.held[task].push(part);
        }
    }

    /// Sends every task what came of the ticket.
    pub(crate) async fn end(&mut self, ticket: u64) -> Result<(), Closed> {
        for (task, held) in self.tasks.iter().zip(&mut self.held) {
            task.send(Signal::Part { ticket, batches: std::mem::take(held) }).await?;
        }
        Ok(())
    }
}

/// What every lane sends in the same way.
#[derive(Debug)]
struct Mark {
    signal: MarkSignal,
    permits: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug, PartialEq)]
enum MarkSignal {
    Watermark { time: wasmill_model::Timestamp, idle: bool },
    Barrier(Barrier),
}

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        self.signal == other.signal
    }
}

struct Rows {
    batches: Vec<Batch>,
    permits: Vec<OwnedSemaphorePermit>,
}

/// Makes one input of what the lanes of a convoy send.
pub(crate) struct LaneMerge(ConvoyMerge<Rows, Mark>);

impl LaneMerge {
    pub(crate) fn new(lanes: usize) -> Self {
        Self(ConvoyMerge::new(lanes))
    }

    pub(crate) fn push(&mut self, lane: usize, arrival: Arrival) {
        let Arrival { signal, permits, .. } = arrival;
        let sent = match signal {
            Signal::Rows(batch) => FromLane::Extra(Rows { batches: vec![batch], permits }),
            Signal::Part { ticket, batches } => FromLane::Part { ticket, rows: Rows { batches, permits } },
            Signal::Watermark { time, idle } => {
                FromLane::Mark(Mark { signal: MarkSignal::Watermark { time, idle }, permits })
            }
            Signal::Barrier(barrier) => FromLane::Mark(Mark { signal: MarkSignal::Barrier(barrier), permits }),
            // They go to lanes, and no further.
            Signal::Give(..) | Signal::Take(_) => return,
        };
        self.0.push(lane, sent);
    }

    /// What is next, and what it takes of the budgets of those who sent it.
    pub(crate) fn pop(&mut self) -> Result<Option<(Signal, Vec<OwnedSemaphorePermit>)>, OrderError> {
        while let Some(merged) = self.0.pop()? {
            return Ok(Some(match merged {
                Merged::Parts(parts) => {
                    let (batches, permits): (Vec<_>, Vec<_>) =
                        parts.into_iter().map(|part| (part.batches, part.permits)).unzip();
                    let Some(batch) = woven(batches.into_iter().flatten().collect()) else { continue };
                    (Signal::Rows(batch), permits.into_iter().flatten().collect())
                }
                Merged::Extra(Rows { batches, permits }) => {
                    let Some(batch) = woven(batches) else { continue };
                    (Signal::Rows(batch), permits)
                }
                Merged::Mark(Mark { signal, permits }) => match signal {
                    MarkSignal::Watermark { time, idle } => (Signal::Watermark { time, idle }, permits),
                    MarkSignal::Barrier(barrier) => (Signal::Barrier(barrier), permits),
                },
            }));
        }
        Ok(None)
    }
}

/// The rows of a ticket as one batch, in order.
fn woven(mut batches: Vec<Batch>) -> Option<Batch> {
    batches.retain(|batch| !batch.is_empty());
    if batches.len() < 2 {
        return batches.pop().map(|batch| batch.with_places(None));
    }
    let shapes: Vec<_> =
        batches.iter().map(|batch| (batch.places().map(|places| places.as_slice()), batch.len())).collect();
    let mut rows = weave(&shapes);
    if planted("lanes-as-they-stand") {
        rows.sort_unstable();
    }
    Some(Batch::weave(&batches, &rows))
}
