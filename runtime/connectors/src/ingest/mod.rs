//! Where rows of senders that cannot send again what they have sent are taken in: HTTP, TCP, UDP,
//! standard input.
//!
//! ```text
//! receivers ─ offer ─▶ Intake ══ bounded in bytes ══▶ appender ─▶ ingest topic ─▶ Source ─▶ job   with state
//!                                                 ══▶ Source ─▶ job                              without
//! ```
//!
//! With a state directory, rows are appended to a topic of the source's own there, many senders with
//! one sync, and a sender gets its receipt once they are durable; the job reads the topic from the
//! position of its last epoch, and what a committed epoch has consumed is let go. Without one, a
//! sender gets its receipt when the job has taken the rows, and a crash loses what was under way.
//!
//! Rows with an id count once: [`window`] knows the latest ids, and is made anew from the topic.

use wasmill_contract::{BatchLimit, BoxFuture, ConnectorError, Source, SourceEvent};
use wasmill_model::{PartitionId, Position};

use crate::options::ConfigError;

mod appender;
mod header;
mod intake;
mod rows;
mod source;
mod text;
mod window;

pub(crate) use intake::{Counters, Intake, Piece, Receipt, Refusal};
pub(crate) use rows::{EventId, Rows};
pub(crate) use source::{Dedup, PARTITION, Receivers, Settings, open};
pub(crate) use text::TextIntake;

/// The reader of no partition.
pub(crate) fn nothing() -> Box<dyn Source> {
    Box::new(Nothing)
}

struct Nothing;

impl Source for Nothing {
    fn next(&mut self, _: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        Box::pin(async { Ok(SourceEvent::End) })
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        Vec::new()
    }
}

/// Whether an option says address and port.
pub(crate) fn check_address(key: &str, address: &str) -> Result<(), ConfigError> {
    let valid = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    if address.rsplit_once(':').is_some_and(valid) {
        return Ok(());
    }
    Err(ConfigError::of(key, format!("{address:?} is no address with a port"))
        .hint("write it like \"127.0.0.1:8080\"; port 0 takes a free one"))
}

#[cfg(test)]
mod tests;
