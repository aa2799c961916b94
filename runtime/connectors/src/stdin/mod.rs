//! A source of records from standard input: it ends when that does, and cannot be read again.

mod durable;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;
use wasmill_contract::{
    BatchLimit, Bounds, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceEvent, SourceFactory,
    SourcePartition,
};
use wasmill_env::Clock;
use wasmill_model::{Batch, Column, ErrorKind, Lineage, PartitionId, Position};
use wasmill_spec::ByteSize;

use crate::ingest;
use crate::options::{ConfigError, parse};
use crate::text::{Bad, CsvTypes, Format, Patience, RecordReader, RowBuffer, Stop, TextFormat, rows_within};
use crate::{Connector, Site, SourceEntry};

pub(crate) const CONNECTOR: Connector = Connector {
    name: "stdin",
    source: Some(SourceEntry { build, schema: || schemars::schema_for!(StdinConfig) }),
    sink: None,
};

/// Batches that wait between the thread and the job.
const QUEUED_BATCHES_MAX: usize = 2;
const PARTITION: PartitionId = PartitionId(0);

/// Options of the source `stdin`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StdinConfig {
    /// How records follow each other. By default JSON lines.
    format: Option<Format>,
    /// CSV: the character between fields. By default a comma.
    delimiter: Option<char>,
    /// CSV: what fields become. By default `infer`.
    types: Option<CsvTypes>,
    /// CSV: texts that become `null`. By default the empty text only.
    null: Option<Vec<String>>,
    /// Longest record; longer ones go to the dead-letter queue. By default 1 MiB.
    record_bytes_max: Option<ByteSize>,
    /// Keep what was read in the state directory until it is committed, so that a crash loses nothing
    /// of it. For a pipe: a file is read again from its start.
    #[serde(default)]
    durable: bool,
}

fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SourceFactory>, ConfigError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let config: StdinConfig = parse(options)?;
    let format = config.format.unwrap_or(Format::JsonLines);
    let text = TextFormat::new(format, config.delimiter, config.types, config.null, config.record_bytes_max)?;
    let stream = StreamFactory { text, open: || Box::new(std::io::stdin()), taken: &TAKEN };
    let settings = ingest::Settings::new(site, ingest::Dedup::default());
    if config.durable && settings.is_durable() {
        return Ok(Arc::new(durable::DurableFactory::new(stream, settings)));
    }
    Ok(Arc::new(stream))
}

/// Reads the one stream that `open` gives.
struct StreamFactory {
    text: TextFormat,
    open: fn() -> Box<dyn Read + Send>,
    /// A thread is reading the stream.
    taken: &'static AtomicBool,
}

impl SourceFactory for StreamFactory {
    fn capabilities(&self) -> SourceCapabilities {
        SourceCapabilities { bounds: Bounds::Bounded, replayable: false }
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        let partition = SourcePartition { id: PARTITION, name: "standard input".to_owned(), size: None };
        Box::pin(async move { Ok(vec![partition]) })
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        Box::pin(async move {
            let (sender, found) = mpsc::channel(QUEUED_BATCHES_MAX);
            let limit = Arc::new(SharedLimit::default());
            if !assigned.is_empty() {
                if self.taken.swap(true, Ordering::AcqRel) {
                    let message = "cannot read standard input: another source reads it";
                    return Err(ConnectorError::new(ErrorKind::Config, message));
                }
                let (text, open, taken, limit) = (self.text.clone(), self.open, self.taken, limit.clone());
                // Not of the runtime's pool: a read of a silent terminal would hold up its end.
                std::thread::Builder::new()
                    .name("stdin".to_owned())
                    .spawn(move || {
                        read(&text, &mut *open(), &limit, &*clock, &sender);
                        taken.store(false, Ordering::Release);
                    })
                    .map_err(|error| {
                        self.taken.store(false, Ordering::Release);
                        ConnectorError::new(ErrorKind::Unavailable, "cannot start a thread").caused_by(error)
                    })?;
            }
            let open = !assigned.is_empty();
            Ok(Box::new(Stream { found, limit, batch: None, open, bytes: 0 }) as Box<dyn Source>)
        })
    }
}

/// The limit of the latest call, for the batches to come.
#[derive(Debug)]
struct SharedLimit {
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

impl Default for SharedLimit {
    fn default() -> Self {
        Self { rows: AtomicUsize::new(1_024), bytes: AtomicUsize::new(1 << 20) }
    }
}

type Found = Result<(FoundEvent, u64), ConnectorError>;

/// What the thread found, with the bytes read up to there.
enum FoundEvent {
    Rows(Batch),
    Bad(Bad),
}

/// The thread: reads until the stream ends or nobody asks any more.
fn read(text: &TextFormat, input: &mut dyn Read, limit: &SharedLimit, clock: &dyn Clock, sender: &mpsc::Sender<Found>) {
    let mut records = RecordReader::new(text, 0);
    let mut rows = RowBuffer::default();
    loop {
        let limit = BatchLimit { rows: limit.rows.load(Ordering::Relaxed), bytes: limit.bytes.load(Ordering::Relaxed) };
        let stop = match records.fill(input, &mut rows, limit, Patience { last: true, eager: true }) {
            Ok(stop) => stop,
            Err(error) => {
                let kind = match error.kind() {
                    std::io::ErrorKind::InvalidData => ErrorKind::Config,
                    _ => ErrorKind::Unavailable,
                };
                let message = format!("cannot read standard input: {error}");
                // Nobody may be there to hear it.
                drop(sender.blocking_send(Err(ConnectorError::new(kind, message).caused_by(error))));
                return;
            }
        };
        let position = records.position();
        if !rows.is_empty() {
            let (values, offsets) = rows.take();
            let batch = Batch::new(
                Arc::new(vec![clock.wall().0; values.len()]),
                Arc::new(Column::empty_rows(values.len())),
                Arc::new(values),
                clock.monotonic_nanos(),
            )
            .with_lineage(Some(Lineage { partition: PARTITION, offsets: Arc::new(offsets) }));
            if sender.blocking_send(Ok((FoundEvent::Rows(batch), position))).is_err() {
                return;
            }
        }
        match stop {
            Stop::Full => {}
            Stop::Bad(bad) => {
                if sender.blocking_send(Ok((FoundEvent::Bad(bad), position))).is_err() {
                    return;
                }
            }
            Stop::Dry => return,
        }
    }
}

/// # Cancellation
/// What the thread found waits in the channel, and a batch that is returned in parts in `batch`.
struct Stream {
    found: mpsc::Receiver<Found>,
    limit: Arc<SharedLimit>,
    /// A batch that was read under a larger limit, and how many of its rows were returned.
    batch: Option<(Batch, usize)>,
    /// The partition has not ended.
    open: bool,
    bytes: u64,
}

impl Stream {
    fn part(&mut self, batch: Batch, from: usize, limit: BatchLimit) -> Batch {
        let end = rows_within(&batch, from, limit);
        let part = batch.slice(from..end);
        self.batch = (end < batch.len()).then_some((batch, end));
        part
    }
}

impl Source for Stream {
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        let limit = BatchLimit { rows: limit.rows.max(1), bytes: limit.bytes.max(1) };
        self.limit.rows.store(limit.rows, Ordering::Relaxed);
        self.limit.bytes.store(limit.bytes, Ordering::Relaxed);
        Box::pin(async move {
            if let Some((batch, from)) = self.batch.take() {
                return Ok(SourceEvent::Rows(self.part(batch, from, limit)));
            }
            match self.found.recv().await {
                Some(found) => {
                    let (event, position) = found?;
                    self.bytes = position;
                    Ok(match event {
                        FoundEvent::Rows(batch) => SourceEvent::Rows(self.part(batch, 0, limit)),
                        FoundEvent::Bad(bad) => SourceEvent::Malformed {
                            partition: PARTITION,
                            offset: bad.offset,
                            bytes: bad.bytes,
                            reason: bad.reason,
                        },
                    })
                }
                None if std::mem::take(&mut self.open) => Ok(SourceEvent::PartitionEnd(PARTITION)),
                None => Ok(SourceEvent::End),
            }
        })
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        // There is no going back, so there is nothing to say.
        Vec::new()
    }

    fn progress(&self) -> Option<u64> {
        Some(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use wasmill_env::RealClock;

    use super::*;
    use crate::conformance::{SourceCase, check_source};

    const TEXT: &[u8] = b"{\"a\":1}\nsomething else\n\n{\"a\":2}\r\n{\"a\":3}\nno newline";

    fn factory(open: fn() -> Box<dyn Read + Send>, taken: &'static AtomicBool) -> Arc<StreamFactory> {
        let text = TextFormat::new(Format::JsonLines, None, None, None, None).expect("valid");
        Arc::new(StreamFactory { text, open, taken })
    }

    #[tokio::test]
    async fn a_stream_conforms() {
        // A flag of its own for each run: the thread of the run before may still be ending.
        let make = || {
            let taken: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
            factory(|| Box::new(TEXT), taken) as Arc<dyn SourceFactory>
        };
        check_source(SourceCase { make: &make, clock: Arc::new(RealClock::default()), rows: None }).await;
    }

    #[tokio::test]
    async fn one_stream_has_one_reader() {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        /// Blocks its reader for good, as a silent terminal does.
        struct Silent(std::sync::mpsc::Receiver<()>);
        impl Read for Silent {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                self.0.recv().map_or(Ok(0), |()| Ok(0))
            }
        }
        let factory = factory(
            || {
                let (sender, receiver) = std::sync::mpsc::sync_channel(1);
                std::mem::forget(sender);
                Box::new(Silent(receiver))
            },
            &TAKEN,
        );
        let open = || factory.open(vec![(PARTITION, None)], Arc::new(RealClock::default()));
        let _first = open().await.expect("opens");
        let error = open().await.err().expect("refused");
        assert_eq!(error.to_string(), "cannot read standard input: another source reads it");
    }
}
