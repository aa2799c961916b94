//! The receivers' end: room for rows, and receipts for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use wasmill_contract::{ConnectorError, SourceCounts};
use wasmill_env::Clock;
use wasmill_model::{Batch, Timestamp};

use super::{EventId, Rows};

/// Most bytes that may wait: what a semaphore counts.
const ROOM_MAX: u64 = Semaphore::MAX_PERMITS as u64;
/// A row takes this much room beside its bytes.
const ROW_BYTES: usize = 32;

/// What comes in at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Rows without lineage, and what they are known by.
    Rows(Batch, Option<Vec<EventId>>),
    /// A record that cannot be an event.
    Bad {
        /// Its bytes, as far as they are known.
        bytes: Vec<u8>,
        /// What is wrong with it.
        reason: String,
    },
}

impl Piece {
    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Rows(batch, _) => batch.len(),
            Self::Bad { .. } => 1,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Rows(batch, _) => batch.byte_len() + ROW_BYTES * batch.len(),
            Self::Bad { bytes, reason } => bytes.len() + reason.len() + ROW_BYTES,
        }
    }
}

/// What a sender gets for rows that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// Rows that were taken.
    pub(crate) accepted: usize,
    /// Rows that had been taken before.
    pub(crate) duplicates: usize,
    /// The offsets of the first and the last one, where they are durable.
    pub(crate) offsets: Option<(u64, u64)>,
}

/// Why rows are not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The job is too slow: come again.
    Full,
    /// The job ends.
    Closed,
    /// They cannot be made durable.
    Failed(String),
}

/// Rows on their way.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) piece: Piece,
    pub(super) room: OwnedSemaphorePermit,
    /// Who waits for a receipt.
    pub(super) done: Option<oneshot::Sender<Result<Receipt, Refusal>>>,
}

/// What receivers and the intake count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dropped: AtomicU64,
    pub(crate) held: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    /// Why a receiver ended before its input did.
    pub(super) failure: Mutex<Option<ConnectorError>>,
}

impl Counters {
    pub(super) fn snapshot(&self) -> SourceCounts {
        SourceCounts {
            dropped: self.dropped.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            spilled: 0,
        }
    }
}

/// Takes rows in. Every receiver has a copy; when all are gone, the input has ended.
#[derive(Clone)]
pub(crate) struct Intake {
    offers: mpsc::Sender<Offer>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    pub(crate) counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
}

impl Intake {
    pub(super) fn new(
        offers: mpsc::Sender<Offer>,
        bytes_max: u64,
        counters: Arc<Counters>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Fits: a semaphore counts fewer than half of what a usize does.
        let room_bytes = usize::try_from(bytes_max.min(ROOM_MAX)).unwrap_or(Semaphore::MAX_PERMITS);
        Self { offers, room: Arc::new(Semaphore::new(room_bytes)), room_bytes, counters, clock }
    }

    pub(super) fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    /// The wall clock, for rows that say no time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Rows as a piece.
    pub(crate) fn piece(&self, rows: Rows) -> Piece {
        let (batch, ids) = rows.finish(self.clock.monotonic_nanos());
        Piece::Rows(batch, ids)
    }

    /// A piece larger than all room takes all of it.
    fn cost(&self, piece: &Piece) -> u32 {
        u32::try_from(piece.bytes().min(self.room_bytes)).unwrap_or(u32::MAX)
    }

    fn try_room(&self, piece: &Piece) -> Option<OwnedSemaphorePermit> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(self.cost(piece)).ok();
        if room.is_none() {
            self.counters.held.fetch_add(1, Ordering::Relaxed);
        }
        room
    }

    /// Takes rows if there is room, and waits until the receipt is due.
    ///
    /// # Errors
    /// Where they are not taken. A dropped future leaves open whether they are.
    pub(crate) async fn offer(&self, piece: Piece) -> Result<Receipt, Refusal> {
        let room = self.try_room(&piece).ok_or(Refusal::Full)?;
        let (done, receipt) = oneshot::channel();
        let offer = Offer { piece, room, done: Some(done) };
        self.offers.send(offer).await.map_err(|_| Refusal::Closed)?;
        receipt.await.unwrap_or(Err(Refusal::Closed))
    }

    /// Waits for room, and takes rows without a receipt. Cancel safe: a dropped future has taken
    /// none.
    ///
    /// # Errors
    /// Where the job has ended.
    pub(crate) async fn put(&self, piece: Piece) -> Result<(), Refusal> {
        let room = match self.try_room(&piece) {
            Some(room) => room,
            None => {
                let room = Arc::clone(&self.room).acquire_many_owned(self.cost(&piece)).await;
                room.map_err(|_| Refusal::Closed)?
            }
        };
        let place = self.offers.reserve().await.map_err(|_| Refusal::Closed)?;
        place.send(Offer { piece, room, done: None });
        Ok(())
    }

    /// Takes rows if there is room, or drops and counts them.
    ///
    /// # Errors
    /// Where the job has ended.
    pub(crate) fn put_or_drop(&self, piece: Piece) -> Result<(), Refusal> {
        let rows = piece.rows() as u64;
        // Nobody is held up, so it does not count as that.
        let sent = match Arc::clone(&self.room).try_acquire_many_owned(self.cost(&piece)).ok() {
            Some(room) => self.offers.try_send(Offer { piece, room, done: None }),
            None if self.offers.is_closed() => return Err(Refusal::Closed),
            None => {
                self.counters.dropped.fetch_add(rows, Ordering::Relaxed);
                return Ok(());
            }
        };
        match sent {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refusal::Closed),
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.counters.dropped.fetch_add(rows, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    /// Ends the input with an error, once this intake is dropped and what it took is worked off.
    pub(crate) fn fail(&self, error: ConnectorError) {
        *self.counters.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}
