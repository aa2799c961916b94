//! The task that delivers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wasmill_contract::ConnectorError;
use wasmill_env::{Clock, kill_point};
use wasmill_model::ErrorKind;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ledger::{Ledger, Parcel};
use super::{OutboxOptions, RowId, Target, Writer};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Attempts that fail before somebody hears of it.
const ATTEMPTS_QUIET: u32 = 3;

/// What the sink and the delivery share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to deliver.
    pub(super) wake: Notify,
    /// Something was delivered, or the delivery has failed.
    pub(super) moved: Notify,
}

pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) failed: Option<Failed>,
}

/// Why nothing is delivered any more.
pub(super) enum Failed {
    /// Nobody has heard of it yet.
    Now(ConnectorError),
    Before(ErrorKind),
}

impl Shared {
    pub(super) fn new(ledger: Ledger) -> Self {
        let state = Mutex::new(State { ledger, failed: None });
        Self { state, wake: Notify::new(), moved: Notify::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The error of the delivery, if it has failed.
    pub(super) fn check(&mut self) -> Result<(), ConnectorError> {
        let Some(failed) = self.failed.take() else { return Ok(()) };
        let error = match failed {
            Failed::Now(error) => error,
            Failed::Before(kind) => ConnectorError::new(kind, "the delivery of rows has failed before"),
        };
        self.failed = Some(Failed::Before(error.kind()));
        Err(error)
    }
}

/// Delivers until it is dropped or fails.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut target: Box<dyn Target>,
    writer: Writer,
    options: OutboxOptions,
    clock: Arc<dyn Clock>,
) {
    loop {
        let parcel = shared.state().ledger.next().cloned();
        let Some(parcel) = parcel else {
            shared.wake.notified().await;
            continue;
        };
        kill_point("outbox-deliver");
        let delivered = deliver(&mut *target, &writer, &parcel, options, &*clock).await;
        kill_point("outbox-delivered");
        let failed = delivered.is_err();
        {
            let mut state = shared.state();
            match delivered {
                Ok(()) => state.ledger.delivered(),
                Err(error) => state.failed = Some(Failed::Now(error)),
            }
        }
        shared.moved.notify_waiters();
        if failed {
            return;
        }
    }
}

/// Tries until the target has the rows or there is no point in it.
pub(super) async fn deliver(
    target: &mut dyn Target,
    writer: &Writer,
    parcel: &Parcel,
    options: OutboxOptions,
    clock: &dyn Clock,
) -> Result<(), ConnectorError> {
    let first = RowId { writer, epoch: parcel.epoch, index: parcel.index };
    let began = clock.monotonic_nanos();
    for attempt in 1_u32.. {
        let tried = tokio::select! {
            biased;
            tried = target.deliver(first, &parcel.rows) => tried,
            () = clock.sleep(options.attempt) => {
                let message = format!("the target took longer than {:?} to take {} rows", options.attempt, parcel.rows.len());
                Err(ConnectorError::new(ErrorKind::Unavailable, message))
            }
        };
        let error = match tried {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
            Err(error) => error,
        };
        let spent = Duration::from_nanos(clock.monotonic_nanos().saturating_sub(began));
        if options.give_up.is_some_and(|give_up| spent >= give_up) {
            let message =
                format!("{} rows of epoch {} could not be delivered for {spent:.0?}", parcel.rows.len(), parcel.epoch);
            // Not to be tried again: the options said so.
            return Err(ConnectorError::new(ErrorKind::Config, message).caused_by(error));
        }
        let wait = backoff(attempt, writer, parcel);
        if attempt >= ATTEMPTS_QUIET {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%first, attempt, ?wait, error, "cannot deliver, trying again");
        }
        clock.sleep(wait).await;
    }
    Ok(())
}

/// Doubles up to its maximum; up to half of it is left out, so that writers do not come all at once.
fn backoff(attempt: u32, writer: &Writer, parcel: &Parcel) -> Duration {
    let full = BACKOFF_MIN.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    let chance = xxh3_64_with_seed(writer.as_str().as_bytes(), parcel.epoch.0 ^ u64::from(attempt) << 48);
    full - full.mul_f64((chance % 1_024) as f64 / 2_048.0)
}
