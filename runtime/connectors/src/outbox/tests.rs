use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wasmill_contract::{BoxFuture, ConnectorError, Share, Sink, SinkCapabilities, SinkFactory, SinkHandle};
use wasmill_env::{Clock, RealClock, SimulatedClock};
use wasmill_model::{Batch, BatchBuilder, Epoch, ErrorKind, Timestamp, Visibility};

use super::{OutboxConfig, OutboxOptions, RowId, Target};
use crate::Site;
use crate::conformance::{SinkCase, check_sink};

/// A target that drops ids it has, and misbehaves as told.
#[derive(Debug, Default)]
struct Store {
    inner: Mutex<Inner>,
    tried: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    ids: BTreeMap<String, usize>,
    rows: Vec<Vec<u8>>,
    attempts: u64,
    /// Every so many attempts one fails in the middle.
    fails_every: Option<u64>,
    fails_with: Option<ErrorKind>,
    hangs: bool,
}

impl Store {
    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn rows(&self) -> Vec<Vec<u8>> {
        self.with(|store| store.rows.clone())
    }
}

struct ToStore(Arc<Store>);

impl Target for ToStore {
    fn deliver<'a>(&'a mut self, first: RowId<'a>, rows: &'a Batch) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            let fails = self.0.with(|store| {
                store.attempts += 1;
                let interrupted = store.fails_every.is_some_and(|every| store.attempts.is_multiple_of(every));
                let taken = if store.hangs || store.fails_with.is_some() {
                    0
                } else if interrupted {
                    rows.len() / 2
                } else {
                    rows.len()
                };
                for (row, index) in rows.values().iter().zip(first.index..).take(taken) {
                    let place = store.rows.len();
                    let id = RowId { index, ..first }.to_string();
                    if *store.ids.entry(id).or_insert(place) == place {
                        store.rows.push(row.to_vec());
                    }
                }
                store.fails_with.or(interrupted.then_some(ErrorKind::Unavailable))
            });
            self.0.tried.notify_one();
            if self.0.with(|store| store.hangs) {
                std::future::pending::<()>().await;
            }
            fails.map_or(Ok(()), |kind| Err(ConnectorError::new(kind, "the store fails")))
        })
    }
}

struct Factory {
    store: Arc<Store>,
    options: OutboxOptions,
    restored_at: Option<u64>,
}

impl SinkFactory for Factory {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities::append(Visibility::Deduplicated)
    }

    fn open(
        &self,
        share: Share,
        recovered: Option<SinkHandle>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Sink>, ConnectorError>> {
        let site = Site { restored_at: self.restored_at, ..Site::alone(Path::new("/")) };
        let target = ToStore(Arc::clone(&self.store));
        Box::pin(async move {
            super::open(&site, share, recovered, clock, self.options, "a store".to_owned(), target).await
        })
    }
}

fn options(text: &str) -> OutboxOptions {
    let config: OutboxConfig = toml::from_str(text).expect("options");
    config.options("outbox").expect("right options")
}

fn batch(rows: usize) -> Batch {
    let mut builder = BatchBuilder::default();
    for row in 0..rows {
        builder.push(Timestamp(0), b"k", row.to_string().as_bytes());
    }
    builder.finish(0)
}

async fn open(store: &Arc<Store>, text: &str, handle: Option<SinkHandle>, clock: Arc<dyn Clock>) -> Box<dyn Sink> {
    let factory = Factory { store: Arc::clone(store), options: options(text), restored_at: None };
    factory.open(Share::WHOLE, handle, clock).await.expect("opens")
}

#[tokio::test]
async fn outbox_passes_the_conformance_kit() {
    for fails_every in [None, Some(2), Some(3)] {
        let store = Arc::new(Store::default());
        store.with(|store| store.fails_every = fails_every);
        check_sink(SinkCase {
            make: &|| {
                Arc::new(Factory { store: Arc::clone(&store), options: options("rows_max = 10"), restored_at: None })
            },
            visible: &|| store.rows(),
            reset: &|| store.with(|store| *store = Inner { fails_every, ..Inner::default() }),
            clock: Arc::new(RealClock::default()),
            rows: 23,
        })
        .await;
    }
}

/// Everything an epoch commit holds: kill it between any two steps of delivery and go on from the
/// last durable handle, with a target that fails in the middle of batches.
#[tokio::test]
async fn rows_arrive_once_however_often_the_job_dies() {
    let store = Arc::new(Store::default());
    store.with(|store| store.fails_every = Some(2));
    let clock: Arc<dyn Clock> = Arc::new(RealClock::default());
    let mut handle = None;
    let mut expected = Vec::new();
    for epoch in 1..=60 {
        let mut sink = open(&store, "", handle.clone(), Arc::clone(&clock)).await;
        let rows = batch(epoch as usize % 7);
        sink.write(&rows).await.expect("taken");
        let prepared = sink.prepare(Epoch(epoch)).await.expect("prepares");
        if epoch % 5 == 0 {
            // It dies before the epoch is durable: the same epoch comes again.
            drop(sink);
            sink = open(&store, "", handle.clone(), Arc::clone(&clock)).await;
            sink.write(&rows).await.expect("taken");
            sink.prepare(Epoch(epoch)).await.expect("prepares");
        }
        handle = Some(prepared);
        expected.extend(rows.values().iter().map(<[u8]>::to_vec));
        if epoch % 3 != 0 {
            sink.commit(Epoch(epoch), false).await.expect("commits");
        }
        if epoch % 4 == 0 {
            // It gets as far as one attempt.
            store.tried.notified().await;
        }
    }
    let mut sink = open(&store, "", handle, clock).await;
    sink.commit(Epoch(60), true).await.expect("delivers");
    assert_eq!(store.rows(), expected);
}

#[tokio::test]
async fn a_job_without_state_writes_under_other_ids() {
    let store = Arc::new(Store::default());
    let clock = Arc::new(SimulatedClock::new(Timestamp(1)));
    for life in 1..=2 {
        let mut sink = open(&store, "", None, Arc::<SimulatedClock>::clone(&clock)).await;
        sink.write(&batch(3)).await.expect("taken");
        sink.prepare(Epoch(1)).await.expect("prepares");
        sink.commit(Epoch(1), true).await.expect("delivers");
        assert_eq!(store.rows().len(), 3 * life);
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(store.with(|store| store.ids.keys().next().cloned()).as_deref(), Some("job/node/0/1/1/0"));
}

#[tokio::test]
async fn full_outbox_holds_up_the_writer_until_the_target_takes_rows() {
    let store = Arc::new(Store::default());
    store.with(|store| store.fails_with = Some(ErrorKind::Unavailable));
    let clock = Arc::new(SimulatedClock::new(Timestamp(1)));
    let mut sink = open(&store, "rows_max = 10", None, Arc::<SimulatedClock>::clone(&clock)).await;
    // Rows of an epoch that is not durable hold up nobody.
    for _ in 0..3 {
        sink.write(&batch(10)).await.expect("taken");
    }
    sink.prepare(Epoch(1)).await.expect("prepares");
    sink.commit(Epoch(1), false).await.expect("commits");
    store.tried.notified().await;
    let rows = batch(1);
    let blocked = tokio::select! {
        biased;
        _ = sink.write(&rows) => false,
        () = store.tried.notified() => true,
        () = async {
            loop {
                clock.advance(Duration::from_secs(10));
                tokio::task::yield_now().await;
            }
        } => false,
    };
    assert!(blocked, "it was tried again while the writer waited");
    store.with(|store| store.fails_with = None);
    tokio::select! {
        biased;
        taken = sink.write(&rows) => taken.expect("taken"),
        () = async {
            loop {
                clock.advance(Duration::from_secs(10));
                tokio::task::yield_now().await;
            }
        } => {}
    }
    assert_eq!(store.rows().len(), 30);
}

/// Runs a job whose target never takes its rows, and returns what the job hears.
async fn failure(text: &str, misbehave: impl FnOnce(&mut Inner)) -> ConnectorError {
    let store = Arc::new(Store::default());
    store.with(misbehave);
    let clock = Arc::new(SimulatedClock::new(Timestamp(1)));
    let mut sink = open(&store, text, None, Arc::<SimulatedClock>::clone(&clock)).await;
    sink.write(&batch(2)).await.expect("taken");
    sink.prepare(Epoch(1)).await.expect("prepares");
    let error = tokio::select! {
        committed = sink.commit(Epoch(1), true) => committed.expect_err("nothing was delivered"),
        () = async {
            loop {
                clock.advance(Duration::from_secs(1));
                tokio::task::yield_now().await;
            }
        } => unreachable!("the clock goes on for ever"),
    };
    assert!(sink.prepare(Epoch(2)).await.is_err(), "a failed sink stays failed");
    error
}

#[tokio::test]
async fn what_cannot_be_mended_by_waiting_fails_the_job() {
    let error = failure("", |store| store.fails_with = Some(ErrorKind::Config)).await;
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Config, "the store fails"));
}

#[tokio::test]
async fn a_job_that_may_give_up_does() {
    let error = failure("give_up = '1m'", |store| store.fails_with = Some(ErrorKind::Unavailable)).await;
    assert!(error.to_string().starts_with("2 rows of epoch 1 could not be delivered for 6"), "{error}");
}

#[tokio::test]
async fn an_attempt_that_hangs_is_cut_off_and_tried_again() {
    let error = failure("attempt = '5s'\ngive_up = '1m'", |store| store.hangs = true).await;
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert_eq!(cause, "the target took longer than 5s to take 2 rows");
}

#[test]
fn options_of_nothing_are_refused() {
    let config: OutboxConfig = toml::from_str("attempt = '0s'").expect("options");
    assert_eq!(config.options("outbox").expect_err("refused").key.as_deref(), Some("outbox.attempt"));
}

#[tokio::test]
async fn a_restored_job_delivers_what_it_had_under_its_ids_and_all_else_under_others() {
    let store = Arc::new(Store::default());
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::new(Timestamp(1)));
    let mut sink = open(&store, "", None, Arc::clone(&clock)).await;
    sink.write(&batch(3)).await.expect("taken");
    let savepoint = sink.prepare(Epoch(1)).await.expect("prepares");
    // The job goes on: what the savepoint holds and more of it is delivered.
    sink.commit(Epoch(1), false).await.expect("commits");
    sink.write(&batch(2)).await.expect("taken");
    sink.prepare(Epoch(2)).await.expect("prepares");
    sink.commit(Epoch(2), true).await.expect("delivers");
    assert_eq!(store.rows().len(), 5);
    let mut handle = savepoint;
    // Restored, its second epoch is another one. A second start changes nothing.
    for (epoch, rows) in [(2, 9), (3, 13)] {
        let factory = Factory { store: Arc::clone(&store), options: options(""), restored_at: Some(7) };
        let mut sink = factory.open(Share::WHOLE, Some(handle), Arc::clone(&clock)).await.expect("opens");
        sink.write(&batch(4)).await.expect("taken");
        handle = sink.prepare(Epoch(epoch)).await.expect("prepares");
        sink.commit(Epoch(epoch), true).await.expect("delivers");
        assert_eq!(store.rows().len(), rows, "rows of the savepoint come once, those behind it are new");
    }
    let writers: Vec<_> =
        store.with(|store| store.ids.keys().map(|id| id.split('/').nth(3).map(str::to_owned)).collect());
    assert_eq!(writers.iter().flatten().filter(|life| *life == "1").count(), 5);
    assert_eq!(writers.iter().flatten().filter(|life| *life == "7").count(), 8);
}
