//! A source that is read ahead of its job, through a bounded queue.
//!
//! # Ordering
//! One task reads the source, offers what it gives to the queue, and tells the source what the job
//! acknowledges; the job takes from the queue. Positions travel with the rows: those of
//! [`Source::positions`] are behind the last row that the job took, and behind what was dropped
//! right after it.
//!
//! # Cancellation
//! A batch on its way from the spill is in `reading`. Dropping the reader ends the task.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use wasmill_contract::{
    BatchLimit, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceCounts, SourceEvent, SourceFactory,
    SourcePartition,
};
use wasmill_env::{Clock, Disk};
use wasmill_model::{Batch, Epoch, ErrorKind, PartitionId, Position};
use wasmill_spec::{Backpressure, Policy};

use super::queue::{Offered, Queue, Taken};
use super::spill::Spill;
use crate::error::{joined, off_worker};

/// Orders that wait for the task.
const ORDERS_MAX: usize = 8;

/// Reads another source ahead, as its backpressure says.
pub(crate) struct Buffered {
    inner: Arc<dyn SourceFactory>,
    bounds: Backpressure,
    disk: Arc<dyn Disk>,
    /// Where rows wait on disk.
    dir: PathBuf,
}

impl Buffered {
    pub(crate) fn new(inner: Arc<dyn SourceFactory>, bounds: Backpressure, disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { inner, bounds, disk, dir }
    }
}

impl SourceFactory for Buffered {
    fn capabilities(&self) -> SourceCapabilities {
        self.inner.capabilities()
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        self.inner.partitions()
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        Box::pin(async move {
            let spill = if self.bounds.policy == Policy::Spill {
                // Several readers of one source have a folder each.
                let share = assigned.first().map_or(0, |(partition, _)| partition.0);
                let (disk, dir) = (Arc::clone(&self.disk), self.dir.join(share.to_string()));
                let bytes_max = self.bounds.disk.bytes();
                Some(Arc::new(AsyncMutex::new(off_worker(move || Spill::open(disk, &dir, bytes_max)).await?)))
            } else {
                None
            };
            let inner = self.inner.open(assigned, clock).await?;
            let reader = Reader {
                positions: inner.positions(),
                location: inner.location(),
                replayable: self.inner.capabilities().replayable,
                shared: Arc::new(Shared {
                    queue: Mutex::new(Queue::new(self.bounds)),
                    inner: Mutex::default(),
                    came: Notify::new(),
                    went: Notify::new(),
                }),
                spill,
                idle: Some(inner),
                orders: None,
                reading: None,
                progress: None,
            };
            Ok(Box::new(reader) as Box<dyn Source>)
        })
    }
}

type Event = Result<SourceEvent, ConnectorError>;

/// What has to be remembered once a piece was taken.
#[derive(Debug)]
struct Mark {
    positions: Vec<(PartitionId, Position)>,
    progress: Option<u64>,
}

struct Shared {
    queue: Mutex<Queue<Event, Mark>>,
    /// What the source itself counts.
    inner: Mutex<SourceCounts>,
    /// A piece came.
    came: Notify,
    /// A piece went.
    went: Notify,
}

enum Order {
    Acknowledge(Epoch, Vec<(PartitionId, Position)>),
    Stop,
}

/// Locked from the decision to spill until the rows are written, so that nobody reads before.
type SharedSpill = Arc<AsyncMutex<Spill>>;

/// The job's end.
struct Reader {
    shared: Arc<Shared>,
    spill: Option<SharedSpill>,
    /// The source, until the first call says how large batches are.
    idle: Option<Box<dyn Source>>,
    orders: Option<(mpsc::Sender<Order>, oneshot::Sender<()>)>,
    reading: Option<(JoinHandle<Result<Batch, ConnectorError>>, Mark)>,
    positions: Vec<(PartitionId, Position)>,
    progress: Option<u64>,
    location: Option<String>,
    replayable: bool,
}

impl Reader {
    fn begin(&mut self, limit: BatchLimit) {
        let Some(source) = self.idle.take() else { return };
        let (orders, receive) = mpsc::channel(ORDERS_MAX);
        let (alive, gone) = oneshot::channel();
        let (shared, spill) = (Arc::clone(&self.shared), self.spill.clone());
        let ahead = Ahead { source, shared, spill, orders: receive, stopped: false };
        tokio::spawn(async move {
            tokio::select! {
                () = ahead.run(limit) => {}
                _ = gone => {}
            }
        });
        self.orders = Some((orders, alive));
    }

    fn passed(&mut self, mark: Mark) {
        self.positions = mark.positions;
        self.progress = mark.progress.or(self.progress);
    }
}

impl Source for Reader {
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        Box::pin(async move {
            self.begin(limit);
            loop {
                if let Some((reading, _)) = &mut self.reading {
                    let batch = joined(reading.await)?;
                    if let Some((_, mark)) = self.reading.take() {
                        self.passed(mark);
                    }
                    return Ok(SourceEvent::Rows(batch));
                }
                let taken = self.shared.lock().take();
                match taken {
                    Some((Taken::Memory(event), mark)) => {
                        self.shared.went.notify_one();
                        self.passed(mark);
                        return event;
                    }
                    Some((Taken::Spilled, mark)) => {
                        self.shared.went.notify_one();
                        let spill = self.spill.clone();
                        let read = async move {
                            let Some(spill) = spill else {
                                return Err(ConnectorError::new(
                                    ErrorKind::Internal,
                                    "rows are in a spill without files",
                                ));
                            };
                            let mut spill = spill.lock_owned().await;
                            off_worker(move || spill.pop()).await
                        };
                        self.reading = Some((tokio::spawn(read), mark));
                    }
                    None => self.shared.came.notified().await,
                }
            }
        })
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        self.positions.clone()
    }

    fn acknowledge<'a>(
        &'a mut self,
        epoch: Epoch,
        positions: &'a [(PartitionId, Position)],
    ) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            match (&mut self.idle, &self.orders) {
                (Some(source), _) => source.acknowledge(epoch, positions).await,
                (None, Some((orders, _))) => {
                    // A task that has failed says so in the queue.
                    drop(orders.send(Order::Acknowledge(epoch, positions.to_vec())).await);
                    Ok(())
                }
                (None, None) => Ok(()),
            }
        })
    }

    fn stop(&mut self) -> bool {
        match (&mut self.idle, &self.orders) {
            (Some(source), _) => source.stop(),
            // What can be read again is read again.
            (None, Some((orders, _))) => !self.replayable && orders.try_send(Order::Stop).is_ok(),
            (None, None) => false,
        }
    }

    fn counts(&self) -> SourceCounts {
        let inner = *self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = self.shared.lock();
        SourceCounts {
            dropped: inner.dropped + queue.dropped(),
            spilled: inner.spilled + queue.spilled(),
            held: inner.held + queue.held(),
            ..inner
        }
    }

    fn location(&self) -> Option<String> {
        self.location.clone()
    }

    fn progress(&self) -> Option<u64> {
        self.progress
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<Event, Mark>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that reads the source.
struct Ahead {
    source: Box<dyn Source>,
    shared: Arc<Shared>,
    spill: Option<SharedSpill>,
    orders: mpsc::Receiver<Order>,
    /// The source was told to stop and has nothing left to give.
    stopped: bool,
}

impl Ahead {
    async fn run(mut self, limit: BatchLimit) {
        let ended = self.read(limit).await;
        if let Err(error) = ended {
            let mark = self.mark();
            // Without rows and bytes it has a place.
            drop(self.shared.lock().offer(Err(error), 0, 0, mark));
            self.shared.came.notify_one();
            return;
        }
        // The job has its own end; what it commits until then is still passed on.
        while let Some(order) = self.orders.recv().await {
            if self.obey(order).await.is_err() {
                return;
            }
        }
    }

    /// Reads until nothing is left.
    async fn read(&mut self, limit: BatchLimit) -> Result<(), ConnectorError> {
        loop {
            let event = if self.stopped {
                SourceEvent::End
            } else {
                tokio::select! {
                    biased;
                    Some(order) = self.orders.recv() => {
                        self.obey(order).await?;
                        continue;
                    }
                    event = self.source.next(limit) => event?,
                }
            };
            *self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner) = self.source.counts();
            let ends = matches!(event, SourceEvent::End);
            self.offer(event).await?;
            if ends {
                return Ok(());
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), ConnectorError> {
        match order {
            Order::Acknowledge(epoch, positions) => self.source.acknowledge(epoch, &positions).await,
            Order::Stop => {
                self.stopped = !self.source.stop();
                Ok(())
            }
        }
    }

    fn mark(&self) -> Mark {
        Mark { positions: self.source.positions(), progress: self.source.progress() }
    }

    /// Finds a place for an event, however long that takes.
    async fn offer(&mut self, event: SourceEvent) -> Result<(), ConnectorError> {
        let (rows, bytes) = match &event {
            SourceEvent::Rows(batch) => (batch.len() as u64, batch.byte_len() as u64),
            // It becomes a dead letter, and is none of those that may be dropped.
            SourceEvent::Malformed { bytes, reason, .. } => (0, (bytes.len() + reason.len()) as u64),
            SourceEvent::PartitionEnd(_) | SourceEvent::End => (0, 0),
        };
        let mut event = Ok(event);
        loop {
            let spill = match &self.spill {
                Some(spill) => Some(Arc::clone(spill).lock_owned().await),
                None => None,
            };
            let mark = self.mark();
            let offered = self.shared.lock().offer(event, rows, bytes, mark);
            match offered {
                Offered::Full(back) => event = back,
                Offered::Kept | Offered::Dropped => break,
                Offered::Spill(content) => {
                    if let (Ok(SourceEvent::Rows(batch)), Some(mut spill)) = (content, spill) {
                        off_worker(move || spill.push(&batch)).await?;
                    }
                    break;
                }
            }
            drop(spill);
            // Told while it waits: a job that acknowledges makes room upstream.
            loop {
                tokio::select! {
                    biased;
                    () = self.shared.went.notified() => break,
                    Some(order) = self.orders.recv() => self.obey(order).await?,
                }
            }
        }
        self.shared.came.notify_one();
        Ok(())
    }
}
