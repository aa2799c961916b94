//! The job's end without a topic: rows are handed on, and receipts given, when the job takes them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use wasmill_contract::{BatchLimit, BoxFuture, ConnectorError, Source, SourceCounts, SourceEvent};
use wasmill_env::Clock;
use wasmill_model::{Batch, Lineage, PartitionId, Position};
use wasmill_spec::{Backpressure, Period, Policy};

use super::intake::Offer;
use super::window::Window;
use super::{Counters, EventId, Intake, Piece, Receipt, Refusal};
use crate::Site;
use crate::text::rows_within;

/// The one partition of a source that takes in.
pub(crate) const PARTITION: PartitionId = PartitionId(0);
/// Offers on their way; their bytes are bounded by the room.
pub(super) const OFFERS_MAX: usize = 1_024;

/// How rows are taken in.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where the ingest topic is; without one nothing is kept.
    pub(crate) dir: Option<PathBuf>,
    /// Bytes that may wait before senders have to.
    pub(crate) waiting_bytes_max: u64,
    /// Ids that are known, at most.
    pub(crate) ids_max: usize,
    /// For how long ids are known.
    pub(crate) ids_age_micros: i64,
}

const IDS_MAX: usize = 1_000_000;
const IDS_AGE_MICROS: i64 = 600_000_000;
/// How long receivers may take for their last answers.
const FAREWELL: Duration = Duration::from_secs(5);

/// How events that come again are known; defaults where nothing is said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Dedup {
    pub(crate) age: Option<Period>,
    pub(crate) ids: Option<u32>,
}

impl Settings {
    /// What the job file says. With a policy that drops, what is read ahead of the job has its own
    /// bound, and the topic needs room until the next commit.
    pub(crate) fn new(site: &Site, dedup: Dedup) -> Self {
        let Backpressure { policy, bytes, disk } = site.backpressure;
        let dir = site.ingest_dir();
        let waiting_bytes_max = match policy {
            Policy::Spill if dir.is_some() => disk.bytes(),
            Policy::Block | Policy::Spill => bytes.bytes(),
            Policy::DropOldest | Policy::DropNewest => bytes.bytes().saturating_mul(4),
        };
        Self {
            dir,
            waiting_bytes_max,
            ids_max: dedup.ids.map_or(IDS_MAX, |ids| ids as usize),
            ids_age_micros: dedup.age.map_or(IDS_AGE_MICROS, Period::micros),
        }
    }

    /// Whether what was taken survives a crash.
    pub(crate) fn is_durable(&self) -> bool {
        self.dir.is_some()
    }
}

/// Opens both ends.
///
/// # Errors
/// Where the topic cannot be opened, or `from` is no position in it.
pub(crate) async fn open(
    settings: Settings,
    from: Option<Position>,
    clock: Arc<dyn Clock>,
) -> Result<(Intake, Taken), ConnectorError> {
    let counters = Arc::new(Counters::default());
    let (offers, receive) = mpsc::channel(OFFERS_MAX);
    let intake = Intake::new(offers, settings.waiting_bytes_max, Arc::clone(&counters), Arc::clone(&clock));
    if let Some(dir) = settings.dir.clone() {
        return super::appender::open(dir, settings, from, receive, intake, clock).await;
    }
    let direct = Direct {
        offers: receive,
        window: Window::new(settings.ids_max, settings.ids_age_micros),
        parts: VecDeque::new(),
        current: None,
        next: 0,
        stopping: false,
        clock: Arc::clone(&clock),
    };
    Ok((intake, Taken::new(Inner::Direct(direct), counters, clock)))
}

/// What the job reads.
pub(crate) struct Taken {
    inner: Inner,
    counters: Arc<Counters>,
    receivers: Option<Receivers>,
    clock: Arc<dyn Clock>,
    stopping: bool,
    /// The partition has ended.
    ended: bool,
}

pub(super) enum Inner {
    Direct(Direct),
    Logged(super::appender::Logged),
}

/// What offers rows.
pub(crate) struct Receivers {
    /// Dropped, it ends them.
    pub(crate) stop: oneshot::Sender<()>,
    /// They have answered everybody.
    pub(crate) done: JoinHandle<()>,
    /// Where they are reached.
    pub(crate) location: Option<String>,
}

impl Taken {
    pub(super) fn new(inner: Inner, counters: Arc<Counters>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, counters, receivers: None, clock, stopping: false, ended: false }
    }

    pub(crate) fn with_receivers(mut self, receivers: Receivers) -> Self {
        self.receivers = Some(receivers);
        self
    }

    /// Lets receivers answer those who wait.
    async fn farewell(&mut self) {
        let Some(Receivers { stop, done, .. }) = self.receivers.take() else { return };
        drop(stop);
        tokio::select! {
            // One that panicked has nothing left to say.
            _ = done => {}
            () = self.clock.sleep(FAREWELL) => {}
        }
    }
}

impl Source for Taken {
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        let limit = BatchLimit { rows: limit.rows.max(1), bytes: limit.bytes.max(1) };
        Box::pin(async move {
            let event = match &mut self.inner {
                _ if self.ended => None,
                Inner::Direct(direct) => direct.next(limit, &self.counters).await,
                // What was appended is read by the next run.
                Inner::Logged(_) if self.stopping => None,
                Inner::Logged(logged) => logged.next(limit).await?,
            };
            if event.is_none()
                && let Some(error) = self.counters.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                return Err(error);
            }
            match event {
                Some(event) => return Ok(event),
                None if self.stopping => self.farewell().await,
                None if !std::mem::replace(&mut self.ended, true) => return Ok(SourceEvent::PartitionEnd(PARTITION)),
                None => {}
            }
            Ok(SourceEvent::End)
        })
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        let next = match &self.inner {
            Inner::Direct(direct) => direct.next,
            Inner::Logged(logged) => logged.position(),
        };
        vec![(PARTITION, Position(next.to_le_bytes().to_vec()))]
    }

    fn acknowledge<'a>(
        &'a mut self,
        _: wasmill_model::Epoch,
        positions: &'a [(PartitionId, Position)],
    ) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            match (&mut self.inner, positions) {
                (Inner::Logged(logged), [(_, position)]) => {
                    logged.acknowledge(super::appender::offset(position)?).await
                }
                (Inner::Logged(_) | Inner::Direct(_), _) => Ok(()),
            }
        })
    }

    fn stop(&mut self) -> bool {
        self.stopping = true;
        if let Some(receivers) = &mut self.receivers {
            // The other half tells them to end.
            let (silent, _) = oneshot::channel();
            drop(std::mem::replace(&mut receivers.stop, silent));
        }
        if let Inner::Direct(direct) = &mut self.inner {
            direct.offers.close();
            direct.stopping = true;
        }
        true
    }

    fn counts(&self) -> SourceCounts {
        self.counters.snapshot()
    }

    fn location(&self) -> Option<String> {
        self.receivers.as_ref()?.location.clone()
    }
}

/// # Cancellation
/// An offer that was received is in `current` and `parts` before anything is awaited.
pub(super) struct Direct {
    offers: mpsc::Receiver<Offer>,
    window: Window,
    /// What is left of the offer.
    parts: VecDeque<(Batch, usize)>,
    current: Option<Current>,
    /// The offset of the next row.
    next: u64,
    /// Senders that wait for a receipt are turned away.
    stopping: bool,
    clock: Arc<dyn Clock>,
}

/// An offer whose rows are being taken.
struct Current {
    receipt: Receipt,
    done: Option<oneshot::Sender<Result<Receipt, Refusal>>>,
    _room: tokio::sync::OwnedSemaphorePermit,
}

impl Direct {
    async fn next(&mut self, limit: BatchLimit, counters: &Counters) -> Option<SourceEvent> {
        loop {
            if let Some((batch, from)) = self.parts.pop_front() {
                return Some(SourceEvent::Rows(self.part(batch, from, limit)));
            }
            let Offer { piece, room, done } = self.offers.recv().await?;
            if self.stopping
                && let Some(done) = done
            {
                // A sender that has gone away does not hear it.
                drop(done.send(Err(Refusal::Closed)));
                continue;
            }
            match piece {
                Piece::Rows(batch, ids) => {
                    let rows = batch.len();
                    let batch = match ids {
                        Some(ids) => new_rows(&mut self.window, batch, ids, self.clock.wall().0).0,
                        None => batch,
                    };
                    let duplicates = rows - batch.len();
                    counters.duplicates.fetch_add(duplicates as u64, std::sync::atomic::Ordering::Relaxed);
                    let receipt = Receipt { accepted: batch.len(), duplicates, offsets: None };
                    self.current = Some(Current { receipt, done, _room: room });
                    if batch.is_empty() {
                        self.taken();
                    } else {
                        self.parts.push_back((batch, 0));
                    }
                }
                Piece::Bad { bytes, reason } => {
                    let offset = self.next;
                    self.next += 1;
                    let receipt = Receipt { accepted: 1, duplicates: 0, offsets: None };
                    self.current = Some(Current { receipt, done, _room: room });
                    self.taken();
                    return Some(SourceEvent::Malformed { partition: PARTITION, offset, bytes, reason });
                }
            }
        }
    }

    fn part(&mut self, batch: Batch, from: usize, limit: BatchLimit) -> Batch {
        let (part, end) = part(&batch, from, limit);
        let offsets = (self.next..).take(part.len()).collect();
        self.next += part.len() as u64;
        if end < batch.len() {
            self.parts.push_front((batch, end));
        } else {
            self.taken();
        }
        part.with_lineage(Some(Lineage { partition: PARTITION, offsets: Arc::new(offsets) }))
    }

    fn taken(&mut self) {
        if let Some(Current { receipt, done: Some(done), .. }) = self.current.take() {
            // A sender that has gone away does not hear it.
            drop(done.send(Ok(receipt)));
        }
    }
}

/// The rows of a batch from `from` on that keep a limit, and where they end.
pub(super) fn part(batch: &Batch, from: usize, limit: BatchLimit) -> (Batch, usize) {
    let end = rows_within(batch, from, limit);
    (batch.slice(from..end), end)
}

/// The rows whose ids are not known yet, with these.
pub(super) fn new_rows(window: &mut Window, batch: Batch, ids: Vec<EventId>, now: i64) -> (Batch, Vec<EventId>) {
    let new: Vec<u32> = (0..batch.len() as u32).filter(|&row| window.insert(ids[row as usize], now)).collect();
    if new.len() == batch.len() {
        return (batch, ids);
    }
    let kept = new.iter().map(|&row| ids[row as usize]).collect();
    (batch.gather(&new), kept)
}
