//! The tenant beside: rows go through its job at a steady rate, and how long each takes is measured from
//! outside.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::lab::{Tenant, plain, until};
use crate::steps::now;

/// From one row to the next.
const EVERY: Duration = Duration::from_millis(5);
/// From one look for rows to the next.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// A job that works, and who feeds and reads it.
pub(crate) struct Neighbour {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    /// When each row was sent, by its number.
    sent: Mutex<Vec<Instant>>,
    /// How long each row took, by its number, microseconds.
    took: Mutex<Vec<u64>>,
    out_of_order: AtomicU64,
    end: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Neighbour {
    pub(crate) fn start(tenant: &Tenant) -> anyhow::Result<Self> {
        tenant.topic("in")?;
        tenant.deploy("evil", &plain())?.is(201)?;
        let shared = Arc::new(Shared::default());
        let (feeder, reader) = (Arc::clone(&shared), Arc::clone(&shared));
        let (feeding, reading) = (tenant.clone(), tenant.clone());
        let threads = vec![
            std::thread::spawn(move || feed(&feeding, &feeder)),
            std::thread::spawn(move || read(&reading, &reader)),
        ];
        let neighbour = Self { shared, threads };
        until("the neighbour works", || Ok((neighbour.seen() > 10).then_some(())))?;
        Ok(neighbour)
    }

    fn seen(&self) -> usize {
        locked(&self.shared.took).len()
    }

    /// Where the measured rows are now.
    pub(crate) fn mark(&self) -> usize {
        locked(&self.shared.sent).len()
    }

    /// Every row that was sent until now has come out, once, in order.
    pub(crate) fn is_complete(&self) -> anyhow::Result<()> {
        let sent = self.mark();
        until("rows of the neighbour come out", || {
            ensure!(!self.threads.iter().any(JoinHandle::is_finished), "the neighbour was refused");
            Ok((self.seen() >= sent).then_some(()))
        })?;
        let wrong = self.shared.out_of_order.load(Ordering::Relaxed);
        ensure!(wrong == 0, "{wrong} rows of the neighbour are lost, doubled, or out of order");
        Ok(())
    }

    /// The 99th percentile of the rows that were sent since a mark, in microseconds, and their number.
    pub(crate) fn p99(&self, since: usize) -> (u64, usize) {
        let took = locked(&self.shared.took);
        let mut took = took.get(since..).unwrap_or_default().to_vec();
        took.sort_unstable();
        let place = (took.len() * 99).div_ceil(100).saturating_sub(1);
        (took.get(place).copied().unwrap_or(0), took.len())
    }

    /// Ends, and says why where it could not go on.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        self.shared.end.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("the neighbour panicked"))??;
        }
        Ok(())
    }
}

fn feed(tenant: &Tenant, shared: &Shared) -> anyhow::Result<()> {
    let mut connection = tenant.connect()?;
    let mut next = now();
    while !shared.end.load(Ordering::Relaxed) {
        let number = {
            let mut sent = locked(&shared.sent);
            sent.push(now());
            sent.len() - 1
        };
        let line = format!("{{\"key\":\"k\",\"value\":{number}}}\n");
        let answer = connection.ask("POST", "/v1/topics/in/records", &tenant.token, line.as_bytes())?;
        answer.is(201).context("a row of the neighbour was refused")?;
        next += EVERY;
        std::thread::sleep(next.saturating_duration_since(now()));
    }
    Ok(())
}

fn read(tenant: &Tenant, shared: &Shared) -> anyhow::Result<()> {
    let mut connection = tenant.connect()?;
    let mut offset = 0;
    while !shared.end.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_EVERY);
        let path = format!("/v1/topics/out/records?limit=1000&offset={offset}");
        let page = connection.ask("GET", &path, &tenant.token, b"")?;
        if page.status == 404 && offset == 0 {
            // The sink makes the topic.
            continue;
        }
        let page = page.is(200).context("rows of the neighbour cannot be read")?.body;
        let came = now();
        for record in page["records"].as_array().into_iter().flatten() {
            let sent = locked(&shared.sent);
            let mut took = locked(&shared.took);
            if record["value"].as_u64() != Some(took.len() as u64) {
                shared.out_of_order.fetch_add(1, Ordering::Relaxed);
            }
            let since = sent.get(took.len()).map_or(Duration::ZERO, |sent| came.duration_since(*sent));
            took.push(since.as_micros() as u64);
        }
        offset = page["next"].as_u64().unwrap_or(offset);
    }
    Ok(())
}
