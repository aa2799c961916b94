//! Watches a running job for when it has nothing to do, and has it rest.

use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmill_control::service::{Idleness, Look, Rest, decide_rest};
use wasmill_engine::NodeSnapshot;
use wasmill_env::Clock;
use wasmill_model::Timestamp;

use crate::control::{Control, Current};

/// From one look for the next attempt to the next.
const LOOK: Duration = Duration::from_millis(200);
/// Tasks of an idle job answer at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether the attempt under way was asked to end because it may rest.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Option<Asked>>);

#[derive(Debug)]
struct Asked {
    rest: Rest,
    /// Rows that its nodes had been given when it was decided.
    moved: u64,
}

impl Idle {
    fn asked(&self) -> MutexGuard<'_, Option<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the job end at an epoch once it may rest, attempt by attempt.
    pub(super) async fn watch(&self, after: Option<Duration>, control: &Control, clock: &dyn Clock) -> Infallible {
        let Some(after) = after else { return std::future::pending().await };
        loop {
            let current = loop {
                match control.current() {
                    Ok(current) => break current,
                    Err(_) => clock.sleep(LOOK).await,
                }
            };
            // An attempt that failed on its way to rest did not get there.
            *self.asked() = None;
            let asked = idle(&current, after, control, clock).await;
            *self.asked() = asked;
            if self.was_asked() {
                current.remote.stop();
            }
            while control.current().is_ok() {
                clock.sleep(LOOK).await;
            }
        }
    }

    pub(super) fn was_asked(&self) -> bool {
        self.asked().is_some()
    }

    /// What wakes a job that has ended because it was asked to. `None` where something came meanwhile.
    pub(super) fn rest(&self, nodes: &[NodeSnapshot], now: Timestamp) -> Option<Rest> {
        let Asked { rest, moved } = self.asked().take()?;
        let came = nodes.iter().map(|node| node.rows_in).sum::<u64>() != moved;
        (!came && rest.due.is_none_or(|due| due > now.0)).then_some(rest)
    }
}

/// Waits until the job may rest; `None` once the attempt is over.
async fn idle(current: &Current, after: Duration, control: &Control, clock: &dyn Clock) -> Option<Asked> {
    let metrics = current.remote.metrics();
    let mut idleness = Idleness::new(after, metrics.moved(), clock.monotonic_nanos());
    loop {
        let moved = metrics.moved();
        match idleness.decide_look(moved, clock.monotonic_nanos()) {
            Look::At(at) => clock.sleep_until(at).await,
            Look::Ask => {
                // Who swaps a plugin or watches a node wants it to run.
                if !control.is_busy() && !metrics.is_watched() {
                    let facts = current.remote.facts(clock, PATIENCE).await;
                    // It may have gone on with another graph.
                    let assembled = control.assembled();
                    let rest = facts.and_then(|facts| {
                        decide_rest(&facts, |node, positions| assembled.bell(node, positions), clock.wall(), after)
                    });
                    if let Some(rest) = rest.filter(|_| metrics.moved() == moved && !control.is_busy()) {
                        return Some(Asked { rest, moved });
                    }
                }
                idleness.stays(clock.monotonic_nanos());
            }
        }
        if control.current().is_err() {
            return None;
        }
    }
}
