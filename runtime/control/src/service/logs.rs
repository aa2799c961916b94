//! What jobs and their plugins say: the last lines of each job.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;
use wasmill_model::Timestamp;

/// Lines that are kept of a job.
const LINES_MAX: usize = 1_000;
/// Lines that are kept of a job that rests.
const LINES_RESTING: usize = 20;
/// Bytes that are kept of a line.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Bytes that are kept of a job.
const BYTES_MAX: usize = 1 << 20;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LogLine {
    /// Counts the lines of the job since the service started.
    pub number: u64,
    /// Microseconds since the Unix epoch.
    pub time: i64,
    /// `error`, `warn`, `info` or `debug`.
    pub level: String,
    /// The stage whose plugin says it; none where it is the service.
    pub stage: Option<String>,
    /// What it says, without control characters.
    pub message: String,
}

/// The last lines of one job. The oldest make room.
#[derive(Debug, Default)]
pub struct LogRing(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    next: u64,
}

impl LogRing {
    /// Adds a line.
    pub fn add(&self, time: Timestamp, level: &str, stage: Option<String>, message: &str) {
        let cut = &message[..message.floor_char_boundary(LINE_BYTES_MAX)];
        let message: String =
            cut.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect();
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = ring.next;
        ring.next += 1;
        ring.bytes += message.len();
        ring.lines.push_back(LogLine { number, time: time.0, level: level.to_owned(), stage, message });
        while ring.lines.len() > LINES_MAX || ring.bytes > BYTES_MAX {
            let Some(oldest) = ring.lines.pop_front() else { break };
            ring.bytes -= oldest.message.len();
        }
    }

    /// Keeps the last few lines only: of a job that rests.
    pub(super) fn shrink(&self) {
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let surplus = ring.lines.len().saturating_sub(LINES_RESTING);
        let bytes: usize = ring.lines.drain(..surplus).map(|line| line.message.len()).sum();
        ring.bytes -= bytes;
        ring.lines.shrink_to_fit();
    }

    /// Up to `limit` lines from a number on, the oldest first; the last ones where no number is given.
    pub(super) fn page(&self, from: Option<u64>, limit: usize) -> Vec<LogLine> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match from {
            Some(from) => ring.lines.iter().filter(|line| line.number >= from).take(limit).cloned().collect(),
            None => ring.lines.iter().skip(ring.lines.len().saturating_sub(limit)).cloned().collect(),
        }
    }
}

/// The rings of all jobs, by tenant and job: whoever hears of a line finds its ring here.
#[derive(Debug, Clone, Default)]
pub struct JobLogs(Arc<Mutex<Rings>>);

type Rings = HashMap<(String, String), Arc<LogRing>>;

impl JobLogs {
    /// The ring of a job.
    #[must_use]
    pub fn find(&self, tenant: &str, job: &str) -> Option<Arc<LogRing>> {
        let rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rings.get(&(tenant.to_owned(), job.to_owned())).cloned()
    }

    /// The ring of a job, made where there is none.
    pub(super) fn of(&self, tenant: &str, job: &str) -> Arc<LogRing> {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(rings.entry((tenant.to_owned(), job.to_owned())).or_default())
    }

    /// Forgets a job.
    pub(super) fn forget(&self, tenant: &str, job: &str) {
        let mut rings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rings.remove(&(tenant.to_owned(), job.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_holds_the_last_lines_and_no_more_bytes_than_it_may() {
        let ring = LogRing::default();
        for number in 0..2_000 {
            ring.add(Timestamp(number), "info", None, &format!("line {number}\u{1b}[31m"));
        }
        let lines = ring.page(None, usize::MAX);
        assert_eq!((lines.len(), lines[0].number), (LINES_MAX, 1_000));
        assert_eq!(lines[0].message, "line 1000\\u{1b}[31m");
        assert_eq!(ring.page(Some(1_990), 3).iter().map(|line| line.number).collect::<Vec<_>>(), [1_990, 1_991, 1_992]);
        for _ in 0..500 {
            ring.add(Timestamp(0), "info", None, &"ä".repeat(100_000));
        }
        let bytes: usize = ring.page(None, usize::MAX).iter().map(|line| line.message.len()).sum();
        assert!(bytes <= BYTES_MAX && bytes > BYTES_MAX / 2, "{bytes}");
    }
}
