use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use wasmill_contract::ConnectorError;
use wasmill_model::ErrorKind;

/// Tells the thread to end.
const END: u64 = u64::MAX;

/// Waits with the precision of the kernel's timers. Timers of the async runtime are rounded up to the
/// next millisecond, which is longer than the latency that is measured with paced events.
///
/// A thread of its own sleeps (`clock_nanosleep`, timer slack off) and wakes whoever waits. While
/// nobody waits it is parked.
pub(super) struct Pacer {
    shared: Arc<Shared>,
    thread: std::thread::Thread,
}

struct Shared {
    /// How long to sleep in nanoseconds; 0 for no wish, [`END`] for the end.
    wish_nanos: AtomicU64,
    woken: Notify,
}

impl Pacer {
    pub(super) fn start() -> Result<Self, ConnectorError> {
        let shared = Arc::new(Shared { wish_nanos: AtomicU64::new(0), woken: Notify::new() });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn(move || pace(&of_thread))
            .map_err(|error| ConnectorError::new(ErrorKind::Unavailable, "cannot start a thread").caused_by(error))?;
        Ok(Self { shared, thread: thread.thread().clone() })
    }

    /// Completes after about `nanos`, at times sooner: look at the clock. Cancel safe.
    pub(super) async fn wait(&self, nanos: u64) {
        self.shared.wish_nanos.store(nanos.clamp(1, END - 1), Ordering::Release);
        self.thread.unpark();
        self.shared.woken.notified().await;
    }
}

fn pace(shared: &Shared) {
    // Without the right to do so sleeps are up to 50 us longer.
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        tracing::debug!(%error, "cannot set the timer slack");
    }
    loop {
        match shared.wish_nanos.swap(0, Ordering::Acquire) {
            0 => std::thread::park(),
            END => return,
            nanos => {
                std::thread::sleep(Duration::from_nanos(nanos));
                shared.woken.notify_one();
            }
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.shared.wish_nanos.store(END, Ordering::Release);
        self.thread.unpark();
    }
}
