//! A source whose rows get the next numbers of a sequence, in the order in which the job takes them.
//!
//! # Crash consistency
//! Rows that no epoch has committed are read again, and get other numbers: those that they had are gaps.
//!
//! # Cancellation
//! Rows that wait for their numbers are in `waiting`, and positions stay in front of them.

use std::sync::Arc;

use wasmill_contract::{
    BatchLimit, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceCounts, SourceEvent, SourceFactory,
    SourcePartition,
};
use wasmill_env::Clock;
use wasmill_model::{Batch, Column, ColumnBuilder, Epoch, ErrorKind, PartitionId, Position};
use wasmill_scan::Pointer;
use wasmill_store::{Sequence, SequenceError};

/// Numbers the rows of another source.
pub(crate) struct Sequenced {
    inner: Arc<dyn SourceFactory>,
    sequence: Arc<Sequence>,
    field: String,
}

impl Sequenced {
    /// `field` is a key of the JSON objects that rows are.
    pub(crate) fn new(inner: Arc<dyn SourceFactory>, sequence: Arc<Sequence>, field: String) -> Self {
        Self { inner, sequence, field }
    }
}

impl SourceFactory for Sequenced {
    fn capabilities(&self) -> SourceCapabilities {
        self.inner.capabilities()
    }

    fn waits_on_disk(&self) -> bool {
        self.inner.waits_on_disk()
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        self.inner.partitions()
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        Box::pin(async move {
            let inner = self.inner.open(assigned, clock).await?;
            let (sequence, numbering) = (Arc::clone(&self.sequence), Numbering::new(&self.field));
            let positions = inner.positions();
            Ok(Box::new(Reader { inner, sequence, numbering, waiting: None, positions }) as Box<dyn Source>)
        })
    }
}

struct Reader {
    inner: Box<dyn Source>,
    sequence: Arc<Sequence>,
    numbering: Numbering,
    waiting: Option<Batch>,
    /// Behind the last row that was given.
    positions: Vec<(PartitionId, Position)>,
}

impl Source for Reader {
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        Box::pin(async move {
            if self.waiting.is_none() {
                match self.inner.next(limit).await? {
                    SourceEvent::Rows(batch) => self.waiting = Some(batch),
                    other => {
                        self.positions = self.inner.positions();
                        return Ok(other);
                    }
                }
            }
            let rows = self.waiting.as_ref().map_or(0, Batch::len) as u64;
            let first = self.sequence.take(rows).await.map_err(error)?;
            let Some(batch) = self.waiting.take() else {
                return Err(ConnectorError::new(ErrorKind::Internal, "rows that waited for numbers are gone"));
            };
            self.positions = self.inner.positions();
            let values = self.numbering.number(batch.values(), first);
            Ok(SourceEvent::Rows(batch.with_values(Arc::new(values))))
        })
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        self.positions.clone()
    }

    fn acknowledge<'a>(
        &'a mut self,
        epoch: Epoch,
        positions: &'a [(PartitionId, Position)],
    ) -> BoxFuture<'a, Result<(), ConnectorError>> {
        self.inner.acknowledge(epoch, positions)
    }

    fn stop(&mut self) -> bool {
        self.inner.stop()
    }

    fn counts(&self) -> SourceCounts {
        self.inner.counts()
    }

    fn location(&self) -> Option<String> {
        self.inner.location()
    }

    fn progress(&self) -> Option<u64> {
        self.inner.progress()
    }
}

/// Why numbers could not be had, as a source says it.
pub(crate) fn error(cause: SequenceError) -> ConnectorError {
    let kind = match &cause {
        SequenceError::Store(error) => error.kind(),
        SequenceError::Busy { .. } => ErrorKind::Unavailable,
        SequenceError::TooMany { .. } => ErrorKind::Config,
    };
    ConnectorError::new(kind, cause.to_string()).caused_by(cause)
}

/// Where a number goes in a row.
struct Numbering {
    /// `"field":`
    key: Vec<u8>,
    pointer: Option<Pointer>,
}

impl Numbering {
    fn new(field: &str) -> Self {
        let key = format!("{}:", serde_json::Value::from(field)).into_bytes();
        let pointer = format!("/{}", field.replace('~', "~0").replace('/', "~1")).parse().ok();
        Self { key, pointer }
    }

    /// Rows with their numbers. One that is no JSON object stays as it is.
    fn number(&self, values: &Column, first: u64) -> Column {
        let mut numbered = ColumnBuilder::with_capacity(values.len(), values.data().len() + 24 * values.len());
        let mut digits = String::new();
        for (value, number) in values.iter().zip(first..) {
            digits.clear();
            // Writing to a string does not fail.
            let _never = std::fmt::Write::write_fmt(&mut digits, format_args!("{number}"));
            let row = numbered.open_row();
            let begin = value.iter().position(|byte| !byte.is_ascii_whitespace());
            match begin.filter(|&begin| value[begin] == b'{') {
                None => row.extend_from_slice(value),
                Some(begin) => match self.found(value) {
                    // What a sender has put there counts for nothing.
                    Some(own) => {
                        row.extend_from_slice(&value[..own.start]);
                        row.extend_from_slice(digits.as_bytes());
                        row.extend_from_slice(&value[own.end..]);
                    }
                    None => {
                        let rest = &value[begin + 1..];
                        row.push(b'{');
                        row.extend_from_slice(&self.key);
                        row.extend_from_slice(digits.as_bytes());
                        if !rest.trim_ascii_start().starts_with(b"}") {
                            row.push(b',');
                        }
                        row.extend_from_slice(rest);
                    }
                },
            }
            numbered.end_row();
        }
        numbered.finish()
    }

    /// Where the row has the field already.
    fn found(&self, value: &[u8]) -> Option<std::ops::Range<usize>> {
        let raw = self.pointer.as_ref()?.find(value).ok()??.bytes();
        let start = (raw.as_ptr() as usize).checked_sub(value.as_ptr() as usize)?;
        Some(start..start + raw.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_get_their_number_and_nothing_else_changes() {
        let values: Column =
            ["{\"a\":1}", " { }", "[1]", "{\"n\":\"x\",\"b\":2}", "nonsense", "{\"deep\":{\"n\":1}}"].iter().collect();
        let numbered = Numbering::new("n").number(&values, 7);
        let text: Vec<String> = numbered.iter().map(|row| String::from_utf8_lossy(row).into_owned()).collect();
        assert_eq!(
            text,
            [
                "{\"n\":7,\"a\":1}",
                "{\"n\":8 }",
                "[1]",
                "{\"n\":10,\"b\":2}",
                "nonsense",
                "{\"n\":12,\"deep\":{\"n\":1}}"
            ]
        );
        let odd = Numbering::new("a/\"b~").number(&["{\"x\":0}"].iter().collect(), 1);
        assert_eq!(odd.row(0), b"{\"a/\\\"b~\":1,\"x\":0}");
    }
}
