//! With a topic: the task that appends, and the job's end.
//!
//! # Ordering
//! One task owns the window of ids and appends: all that waits goes into one append, one sync, and
//! then every sender of it gets a receipt. Duplicates get theirs then, too: what they repeat is
//! durable by then.
//!
//! # Cancellation
//! A read under way is in `reading`; a batch of which rows are left is in `current`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use wasmill_contract::{BatchLimit, ConnectorError, SourceEvent};
use wasmill_env::{Clock, RealDisk};
use wasmill_model::{Batch, BatchBuilder, Column, ColumnBuilder, ErrorKind, Lineage, Position, Timestamp, TopicName};
use wasmill_store::{Append, ReadLimit, Topic, TopicConfig, TopicError, Topics};

use super::header;
use super::intake::Offer;
use super::source::{Inner, OFFERS_MAX, PARTITION, Taken, new_rows, part};
use super::window::Window;
use super::{Counters, Intake, Piece, Receipt, Refusal, Settings};
use crate::error::{joined, off_worker};

/// The name of the topic.
const INGEST: &str = "ingest";
/// Bytes of appended rows that are kept in memory for the job, so that it need not read them back.
const TAIL_BYTES_MAX: usize = 8 << 20;
/// Bytes at which a frame ends.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Bytes that are read back at once.
const READ: ReadLimit = ReadLimit { rows: 4_096, bytes: 1 << 20 };
/// Bytes at which a segment of the topic, what is let go at once, ends.
const SEGMENT_BYTES: u64 = 16 << 20;

struct Shared {
    topic: Arc<Topic>,
    state: Mutex<State>,
    /// Rows were appended, or none will be.
    moved: Notify,
}

#[derive(Default)]
struct State {
    /// What was appended last, by the offset of its first row.
    tail: VecDeque<(u64, Batch)>,
    tail_bytes: usize,
    /// Room of rows that no committed epoch has consumed, by the offset behind them.
    room: VecDeque<(u64, OwnedSemaphorePermit)>,
    end: u64,
    ended: bool,
    failed: Option<String>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows from an offset on. Blocks.
    fn read(&self, offset: u64) -> Result<Batch, ConnectorError> {
        let fetched = self.topic.read_blocking(0, offset, READ).map_err(topic_error("read"))?;
        if fetched.rows.is_empty() {
            let message = format!("cannot read the ingest topic: it ends before offset {offset}");
            return Err(ConnectorError::new(ErrorKind::Corrupt, message));
        }
        Ok(fetched.rows)
    }
}

/// What a topic holds when it is opened.
struct Opened {
    topic: Arc<Topic>,
    window: Window,
    from: u64,
    end: u64,
    /// Bytes of rows that no committed epoch has consumed.
    waiting: u64,
}

/// Opens the topic, and notes the ids of all its rows. Blocks.
fn open_topic(
    settings: &Settings,
    dir: &Path,
    from: Option<u64>,
    clock: Arc<dyn Clock>,
) -> Result<Opened, ConnectorError> {
    let mut window = Window::new(settings.ids_max, settings.ids_age_micros);
    let config = TopicConfig { segment_bytes: SEGMENT_BYTES, ..TopicConfig::default() };
    let name = TopicName::new(INGEST).map_err(|error| ConnectorError::new(ErrorKind::Internal, error.to_string()))?;
    let topics = Topics::new(Arc::new(RealDisk), dir, clock);
    let topic = topics.open_or_create(&name, config).map_err(topic_error("open"))?;
    let (start, end) = topic.bounds_blocking(0).map_err(topic_error("read"))?;
    let from = from.unwrap_or(start);
    if from < start || from > end {
        let message = format!(
            "the job goes on at offset {from}, and the ingest topic in {} has {start} to {end}: restore it with the \
             state, or start anew",
            dir.display()
        );
        return Err(ConnectorError::new(ErrorKind::Corrupt, message));
    }
    let (mut at, mut waiting) = (start, 0);
    while at < end {
        let fetched = topic.read_blocking(0, at, READ).map_err(topic_error("read"))?;
        for (id, time) in
            fetched.rows.headers().into_iter().flat_map(|headers| headers.iter()).filter_map(header::id_of)
        {
            // One that is there twice was forgotten in between.
            let _known = window.insert(id, time);
        }
        if fetched.next > from {
            waiting += fetched.rows.byte_len() as u64;
        }
        at = fetched.next.max(at + 1);
    }
    Ok(Opened { topic, window, from, end, waiting })
}

pub(super) async fn open(
    dir: PathBuf,
    settings: Settings,
    from: Option<Position>,
    offers: mpsc::Receiver<Offer>,
    intake: Intake,
    clock: Arc<dyn Clock>,
) -> Result<(Intake, Taken), ConnectorError> {
    let Settings { ids_max, ids_age_micros, .. } = settings;
    let from = from.as_ref().map(offset).transpose()?;
    let for_topic = Arc::clone(&clock);
    let opened = off_worker(move || open_topic(&settings, &dir, from, for_topic)).await?;
    let Opened { topic, window, from, end, waiting } = opened;
    let mut state = State { end, ..State::default() };
    // What waits from the last run takes room, too.
    let waiting = usize::try_from(waiting).unwrap_or(usize::MAX).min(intake.room().available_permits());
    let permits = u32::try_from(waiting).unwrap_or(u32::MAX);
    if let Ok(room) = Arc::clone(intake.room()).try_acquire_many_owned(permits) {
        state.room.push_back((end, room));
    }
    let shared = Arc::new(Shared { topic, state: Mutex::new(state), moved: Notify::new() });
    let counters = Arc::clone(&intake.counters);
    let appender =
        Appender { offers, window, shared: Arc::clone(&shared), counters: Arc::clone(&counters), clock: clock.clone() };
    tokio::spawn(appender.run());
    let ids_max = ids_max as u64;
    let logged =
        Logged { shared, next: from, current: None, reading: None, ids_max, ids_age_micros, clock: Arc::clone(&clock) };
    Ok((intake, Taken::new(Inner::Logged(logged), counters, clock)))
}

struct Appender {
    offers: mpsc::Receiver<Offer>,
    window: Window,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    clock: Arc<dyn Clock>,
}

type Answers = Vec<(oneshot::Sender<Result<Receipt, Refusal>>, Receipt)>;

impl Appender {
    /// Appends until every receiver is gone.
    async fn run(mut self) {
        let mut waiting = Vec::new();
        while self.offers.recv_many(&mut waiting, OFFERS_MAX).await > 0 {
            let mut group = waiting.drain(..).peekable();
            while group.peek().is_some() {
                let mut bytes = 0;
                let mut offers = Vec::new();
                while bytes < FRAME_BYTES_MAX
                    && let Some(offer) = group.next()
                {
                    bytes += offer.piece.bytes();
                    offers.push(offer);
                }
                if self.append(offers).await.is_err() {
                    // Whoever waits is told by the end of the queue.
                    self.end();
                    return;
                }
            }
        }
        self.end();
    }

    fn end(&self) {
        self.shared.state().ended = true;
        self.shared.moved.notify_one();
    }

    async fn append(&mut self, offers: Vec<Offer>) -> Result<(), ()> {
        let now = self.clock.wall().0;
        let mut pieces = Merged::default();
        let mut answers: Answers = Vec::new();
        let mut rooms = Vec::with_capacity(offers.len());
        let mut next = self.shared.state().end;
        for Offer { piece, room, done } in offers {
            let rows = piece.rows();
            let piece = match piece {
                Piece::Rows(batch, Some(ids)) => {
                    let (batch, ids) = new_rows(&mut self.window, batch, ids, now);
                    Piece::Rows(batch, Some(ids))
                }
                piece => piece,
            };
            let accepted = piece.rows();
            let duplicates = rows - accepted;
            self.counters.duplicates.fetch_add(duplicates as u64, Ordering::Relaxed);
            let offsets = (accepted > 0).then(|| (next, next + accepted as u64 - 1));
            next += accepted as u64;
            answers.extend(done.map(|done| (done, Receipt { accepted, duplicates, offsets })));
            // Room of rows that are not new is free again at once.
            if accepted > 0 {
                rooms.push((next, room));
                pieces.push(piece, now);
            }
        }
        if let Some(rows) = pieces.finish() {
            let append = Append { partition: 0, rows: rows.clone(), producer: None };
            let appended = self.shared.topic.append(vec![append]).await;
            if let Err(error) = appended {
                let reason = error.to_string();
                for (done, _) in answers {
                    // A sender that has gone away does not hear it.
                    drop(done.send(Err(Refusal::Failed(reason.clone()))));
                }
                self.shared.state().failed = Some(reason);
                return Err(());
            }
            let mut state = self.shared.state();
            let first = state.end;
            state.end += rows.len() as u64;
            state.tail_bytes += rows.byte_len();
            state.tail.push_back((first, rows));
            while state.tail_bytes > TAIL_BYTES_MAX
                && let Some((_, rows)) = state.tail.pop_front()
            {
                state.tail_bytes -= rows.byte_len();
            }
            state.room.extend(rooms);
            drop(state);
            self.shared.moved.notify_one();
        }
        for (done, receipt) in answers {
            // A sender that has gone away does not hear it.
            drop(done.send(Ok(receipt)));
        }
        Ok(())
    }
}

/// What came in together as one batch: what came in by single requests is worked off as if it had
/// come together.
#[derive(Default)]
struct Merged {
    rows: Vec<(Batch, Option<Column>)>,
}

impl Merged {
    fn push(&mut self, piece: Piece, now: i64) {
        self.rows.push(match piece {
            Piece::Rows(batch, ids) => {
                let headers = ids.map(|ids| {
                    let mut column = ColumnBuilder::with_capacity(ids.len(), header::EVENT_BYTES * ids.len());
                    for id in ids {
                        header::event(id, now, column.open_row());
                        column.end_row();
                    }
                    column.finish()
                });
                (batch, headers)
            }
            Piece::Bad { bytes, reason } => {
                let mut rows = BatchBuilder::default();
                rows.push(Timestamp(now), b"", &bytes);
                let header = header::bad(&reason);
                (rows.finish(0), Some([header.as_slice()].iter().collect()))
            }
        });
    }

    fn finish(mut self) -> Option<Batch> {
        if self.rows.len() <= 1 {
            let (batch, headers) = self.rows.pop()?;
            return Some(batch.with_headers(headers.map(Arc::new)));
        }
        let rows = self.rows.iter().map(|(batch, _)| batch.len()).sum();
        let arrived = self.rows.iter().map(|(batch, _)| batch.arrived_nanos()).filter(|nanos| *nanos > 0).min();
        let join = |column: fn(&Batch) -> &Arc<Column>| {
            let bytes = self.rows.iter().map(|(batch, _)| column(batch).data().len()).sum();
            let mut all = ColumnBuilder::with_capacity(rows, bytes);
            self.rows.iter().for_each(|(batch, _)| column(batch).iter().for_each(|row| all.push(row)));
            Arc::new(all.finish())
        };
        let headers = self.rows.iter().any(|(_, headers)| headers.is_some()).then(|| {
            let mut all = ColumnBuilder::with_capacity(rows, header::EVENT_BYTES * rows);
            for (batch, headers) in &self.rows {
                match headers {
                    Some(headers) => headers.iter().for_each(|header| all.push(header)),
                    None => (0..batch.len()).for_each(|_| all.push(b"")),
                }
            }
            Arc::new(all.finish())
        });
        let times = self.rows.iter().flat_map(|(batch, _)| batch.times().iter().copied()).collect();
        let batch = Batch::new(Arc::new(times), join(Batch::keys), join(Batch::values), arrived.unwrap_or(0));
        Some(batch.with_headers(headers))
    }
}

/// The offset that a position is.
pub(super) fn offset(position: &Position) -> Result<u64, ConnectorError> {
    let bytes: [u8; 8] = position.0.as_slice().try_into().map_err(|_| {
        ConnectorError::new(ErrorKind::Corrupt, "the stored position is not one of a source that takes rows in")
    })?;
    Ok(u64::from_le_bytes(bytes))
}

fn topic_error(act: &str) -> impl FnOnce(TopicError) -> ConnectorError {
    let message = format!("cannot {act} the ingest topic");
    move |error| {
        let kind = error.kind();
        ConnectorError::new(kind, format!("{message}: {error}")).caused_by(error)
    }
}

/// The job's end.
pub(super) struct Logged {
    shared: Arc<Shared>,
    /// The offset of the next row.
    next: u64,
    /// The batch that `next` is in, and how many of its rows were given.
    current: Option<(Batch, usize)>,
    /// Rows that are read back.
    reading: Option<JoinHandle<Result<Batch, ConnectorError>>>,
    ids_max: u64,
    ids_age_micros: i64,
    clock: Arc<dyn Clock>,
}

/// What the reader finds.
enum Found {
    Rows(u64, Batch),
    /// They are in the topic only.
    Behind,
    /// Nothing yet.
    Nothing,
    End,
}

impl Logged {
    pub(super) fn position(&self) -> u64 {
        self.next
    }

    /// The next event, `None` where no more will come. Cancel safe.
    pub(super) async fn next(&mut self, limit: BatchLimit) -> Result<Option<SourceEvent>, ConnectorError> {
        loop {
            if let Some((batch, from)) = self.current.take() {
                return Ok(Some(self.part(batch, from, limit)));
            }
            if let Some(reading) = &mut self.reading {
                let read = joined(reading.await);
                self.reading = None;
                self.current = Some((read?, 0));
                continue;
            }
            match self.find()? {
                Found::Rows(first, batch) => {
                    self.current = Some((batch, usize::try_from(self.next - first).unwrap_or(usize::MAX)));
                }
                Found::Behind => {
                    let (shared, offset) = (Arc::clone(&self.shared), self.next);
                    self.reading = Some(tokio::task::spawn_blocking(move || shared.read(offset)));
                }
                Found::Nothing => self.shared.moved.notified().await,
                Found::End => return Ok(None),
            }
        }
    }

    fn find(&self) -> Result<Found, ConnectorError> {
        let mut state = self.shared.state();
        while state.tail.front().is_some_and(|(first, batch)| first + batch.len() as u64 <= self.next)
            && let Some((_, batch)) = state.tail.pop_front()
        {
            state.tail_bytes -= batch.byte_len();
        }
        if let Some((first, batch)) = state.tail.front().filter(|(first, _)| *first <= self.next) {
            return Ok(Found::Rows(*first, batch.clone()));
        }
        if self.next < state.end {
            return Ok(Found::Behind);
        }
        if let Some(reason) = &state.failed {
            let message = format!("cannot take rows in: {reason}");
            return Err(ConnectorError::new(ErrorKind::Unavailable, message));
        }
        Ok(if state.ended { Found::End } else { Found::Nothing })
    }

    fn part(&mut self, batch: Batch, from: usize, limit: BatchLimit) -> SourceEvent {
        let reason = |row: usize| batch.headers().and_then(|headers| header::reason_of(headers.row(row)));
        if let Some(reason) = reason(from) {
            let offset = self.next;
            self.next += 1;
            let bytes = batch.values().row(from).to_vec();
            if from + 1 < batch.len() {
                self.current = Some((batch, from + 1));
            }
            return SourceEvent::Malformed { partition: PARTITION, offset, bytes, reason };
        }
        let mut limit = limit;
        if batch.headers().is_some() {
            let good = (from..batch.len()).take(limit.rows).take_while(|row| reason(*row).is_none()).count();
            limit.rows = good;
        }
        let (part, end) = part(&batch, from, limit);
        let offsets = (self.next..).take(part.len()).collect();
        self.next += part.len() as u64;
        if end < batch.len() {
            self.current = Some((batch, end));
        }
        let lineage = Lineage { partition: PARTITION, offsets: Arc::new(offsets) };
        SourceEvent::Rows(part.with_headers(None).with_lineage(Some(lineage)))
    }

    /// Rows before `consumed` are committed: what is not needed to know ids is let go.
    pub(super) async fn acknowledge(&mut self, consumed: u64) -> Result<(), ConnectorError> {
        let end = {
            let mut state = self.shared.state();
            while state.room.front().is_some_and(|(end, _)| *end <= consumed) {
                state.room.pop_front();
            }
            state.end
        };
        let (shared, now) = (Arc::clone(&self.shared), self.clock.wall().0);
        let (ids_from, old) = (end.saturating_sub(self.ids_max), now.saturating_sub(self.ids_age_micros));
        off_worker(move || {
            let trimmed = shared.topic.trim_blocking(0, consumed.min(ids_from), i64::MAX);
            trimmed.and_then(|()| shared.topic.trim_blocking(0, consumed, old)).map_err(topic_error("trim"))
        })
        .await
    }
}
