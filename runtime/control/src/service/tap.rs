//! Live rows of a node, as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use serde_json::{Map, Value, json};
use wasmill_engine::Tap;
use wasmill_model::{Batch, JobName, NodeName};
use wasmill_tenancy::Rate;

use super::problem::Problem;
use super::tenant::Tenant;
use crate::records::put_row;

/// What a row is shown with, beside its key and value.
const ROW_BYTES: usize = 64;
/// A value that is longer is left out, and counted as lost.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// What one tap shows in a second: more than anybody reads, and less than its neighbours feel. What comes faster is
/// counted as lost.
const BYTES_PER_SECOND: u32 = 1 << 20;
/// And at once.
const BURST_BYTES: u32 = 128 << 10;
/// From one sign of life to the next.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// A place among the taps of a tenant.
struct Place(Arc<Tenant>);

impl Drop for Place {
    fn drop(&mut self) {
        let mut taps = self.0.taps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *taps = taps.saturating_sub(1);
    }
}

fn take_place(tenant: &Arc<Tenant>) -> Result<Place, Problem> {
    let most = tenant.record().budget.taps;
    let mut taps = tenant.taps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *taps >= most {
        return Err(Problem::over_budget(format!("the tenant has {most} taps open, and may have no more")));
    }
    *taps += 1;
    Ok(Place(Arc::clone(tenant)))
}

struct Open {
    tap: Tap,
    /// Rows of the batch at hand, and the next of them.
    batch: Option<(Batch, usize)>,
    left: Option<u64>,
    lost: u64,
    pace: Rate,
    place: Place,
}

/// Opens a tap. It ends with the job, or after `limit` rows.
pub(super) fn open(
    tenant: &Arc<Tenant>,
    job: &JobName,
    node: &NodeName,
    limit: Option<u64>,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>> + use<>>, Problem> {
    let slot = tenant.slot(job)?;
    let rests = || Problem::conflict(format!("job {job} does not run: it is {}", slot.board.phase().name()));
    let live = slot.board.live().ok_or_else(rests)?;
    let place = take_place(tenant)?;
    let tap = live.remote.metrics().tap(node);
    let tap = tap.ok_or_else(|| Problem::missing(format!("job {job} has no node {node}")))?;
    let now = tenant.parts.clock.monotonic_nanos();
    let pace = Rate::new(BYTES_PER_SECOND, Duration::from_secs(1), BURST_BYTES, now);
    let open = Open { tap, batch: None, left: limit, lost: 0, pace, place };
    let rows = futures_util::stream::unfold(open, |mut open| async move { Some((open.next().await?, open)) });
    Ok(Sse::new(rows).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)))
}

impl Open {
    async fn next(&mut self) -> Option<Result<Event, axum::Error>> {
        loop {
            self.lost += self.tap.take_lost();
            if self.lost > 0 {
                let lost = std::mem::take(&mut self.lost);
                return Some(Event::default().event("lost").json_data(json!({"rows": lost})));
            }
            if self.left == Some(0) {
                return None;
            }
            let clock = &self.place.0.parts.clock;
            if let Some(until) = self.pace.in_debt_until(clock.monotonic_nanos()) {
                // The tap loses rows meanwhile.
                clock.sleep_until(until).await;
            }
            let Some((batch, at)) = &mut self.batch else {
                self.batch = Some((self.tap.next().await?, 0));
                continue;
            };
            let row = *at;
            *at += 1;
            let Some(time) = batch.times().get(row).copied() else {
                self.batch = None;
                continue;
            };
            let (key, value) = (batch.keys().row(row), batch.values().row(row));
            if value.len() > VALUE_BYTES_MAX || key.len() > VALUE_BYTES_MAX {
                self.lost += 1;
                continue;
            }
            self.pace.charge((key.len() + value.len() + ROW_BYTES) as u64, clock.monotonic_nanos());
            let mut object = Map::new();
            put_row(&mut object, time, key, value);
            self.left = self.left.map(|left| left - 1);
            return Some(Event::default().event("row").json_data(Value::Object(object)));
        }
    }
}
