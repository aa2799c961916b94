use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use wasmill_contract::{
    BatchLimit, Bounds, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceEvent, SourceFactory,
    SourcePartition,
};
use wasmill_env::Clock;
use wasmill_model::{ErrorKind, PartitionId, Position};

use super::config::{Compression, Order, SourceConfig};
use super::input::compression_of;
use super::item::{FileMark, FilePosition, Item, More, Read, decode, encode, offset_in_file};
use super::listing::{Listed, Listing, numbered};
use super::read::{Lane, Reading, SideBySide};
use super::tail::Tail;
use crate::Site;
use crate::error::{joined, off_worker};
use crate::options::{ConfigError, parse};
use crate::text::{Format, TextFormat, rows_within};

/// How often followed files are looked at while nothing comes.
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
struct FileSourceFactory {
    listing: Listing,
    reading: Reading,
    follow: bool,
    by_name: bool,
}

pub(super) fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SourceFactory>, ConfigError> {
    let config: SourceConfig = parse(options)?;
    if config.path.is_empty() {
        return Err(
            ConfigError::of("path", "`path` is empty").hint("name a file or a pattern such as \"data/*.jsonl\"")
        );
    }
    let listing = Listing::new(&site.base_dir, &config.path)
        .map_err(|error| ConfigError::of("path", format!("pattern {:?}: {error}", config.path)))?;
    let named = Path::new(&config.path);
    let compression = compression_of(named, config.compression);
    if config.follow {
        if compression != Compression::None {
            return Err(ConfigError::of("follow", "a compressed file cannot be followed")
                .hint("remove `follow`, or follow the file before it is compressed"));
        }
        if config.order == Some(Order::ByName) {
            return Err(ConfigError::of("order", "followed files are read together: none of them ends")
                .hint("remove `order` or `follow`"));
        }
    }
    let plain_name = match compression {
        Compression::None => named,
        Compression::Gzip | Compression::Zstd => Path::new(named.file_stem().unwrap_or_default()),
    };
    let extension = plain_name.extension().and_then(|extension| extension.to_str());
    let format = config.format.unwrap_or(match extension {
        Some("csv" | "tsv") => Format::Csv,
        Some("json" | "jsonl" | "ndjson") => Format::JsonLines,
        _ => Format::Lines,
    });
    let tabs = format == Format::Csv && extension == Some("tsv");
    let delimiter = config.delimiter.or(tabs.then_some('\t'));
    let text = TextFormat::new(format, delimiter, config.types, config.null, config.record_bytes_max)?;
    Ok(Arc::new(FileSourceFactory {
        listing,
        reading: Reading { text, compression: config.compression },
        follow: config.follow,
        by_name: config.order == Some(Order::ByName),
    }))
}

impl FileSourceFactory {
    fn list(&self) -> Result<Vec<SourcePartition>, ConnectorError> {
        let files = self.listing.files(!self.follow)?;
        if self.follow || self.by_name {
            let size = (!self.follow).then(|| files.iter().map(|file| file.size).sum());
            return Ok(vec![SourcePartition { id: PartitionId(0), name: self.listing.to_string(), size }]);
        }
        let partition = |(id, file): (_, Listed)| SourcePartition { id, name: file.name, size: Some(file.size) };
        Ok(numbered(files, self.listing.is_pattern()).into_iter().map(partition).collect())
    }

    fn reader(&self, assigned: Vec<(PartitionId, Option<Position>)>) -> Result<Box<dyn Read>, ConnectorError> {
        let mut positions = Vec::with_capacity(assigned.len());
        for (partition, position) in assigned {
            positions.push((partition, position.as_ref().map(decode).transpose()?.unwrap_or_default()));
        }
        let unknown = |partition: PartitionId| {
            let message = format!("partition {} of {} is gone: its file was removed", partition.0, self.listing);
            ConnectorError::new(ErrorKind::Config, message)
        };
        if self.follow {
            let from = positions.pop().map(|(_, files)| files).unwrap_or_default();
            return Ok(Box::new(Tail::new(self.listing.clone(), self.reading.clone(), from)));
        }
        let files = self.listing.files(true)?;
        let mut lanes = VecDeque::with_capacity(positions.len());
        if self.by_name {
            for (partition, from) in positions {
                lanes.push_back(Lane::new(partition, files.clone().into(), from.into_values().next())?);
            }
        } else {
            let mut numbered = numbered(files, self.listing.is_pattern());
            for (partition, from) in positions {
                let file = numbered.remove(&partition).ok_or_else(|| unknown(partition))?;
                lanes.push_back(Lane::new(partition, [file].into(), from.into_values().next())?);
            }
        }
        Ok(Box::new(SideBySide::new(self.reading.clone(), lanes)))
    }
}

impl SourceFactory for FileSourceFactory {
    fn capabilities(&self) -> SourceCapabilities {
        let bounds = if self.follow { Bounds::Unbounded } else { Bounds::Bounded };
        SourceCapabilities { bounds, replayable: true }
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        let this = self.clone();
        Box::pin(off_worker(move || this.list()))
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        let this = self.clone();
        Box::pin(async move {
            let reader = off_worker(move || this.reader(assigned)).await?;
            Ok(Box::new(FileSource::new(reader, clock)) as Box<dyn Source>)
        })
    }
}

type Ahead = Result<(Box<dyn Read>, VecDeque<Item>, More), ConnectorError>;

/// A reader of files.
///
/// # Cancellation
/// Reading ahead runs on a blocking thread, one piece of work at a time, and its result waits in
/// `work`; what was read waits in `items`. A dropped [`Source::next`] leaves both where they are.
struct FileSource {
    clock: Arc<dyn Clock>,
    /// The reader, while no work is under way.
    reader: Option<Box<dyn Read>>,
    work: Option<JoinHandle<Ahead>>,
    items: VecDeque<Item>,
    /// Rows of the batch at the front of `items` that were returned.
    returned: usize,
    /// Look again not before this, in monotonic nanoseconds.
    wait_until: Option<u64>,
    more: More,
    positions: BTreeMap<PartitionId, BTreeMap<u64, FilePosition>>,
    progress: BTreeMap<PartitionId, BTreeMap<u64, u64>>,
}

impl FileSource {
    fn new(reader: Box<dyn Read>, clock: Arc<dyn Clock>) -> Self {
        let positions: BTreeMap<_, BTreeMap<_, _>> = reader
            .starts()
            .into_iter()
            .map(|(partition, files)| (partition, files.into_iter().map(|file| (file.number, file)).collect()))
            .collect();
        Self {
            clock,
            reader: Some(reader),
            work: None,
            items: VecDeque::new(),
            returned: 0,
            wait_until: None,
            more: More::Now,
            positions,
            progress: BTreeMap::new(),
        }
    }

    fn moved(&mut self, file: &FileMark, next: u64, progress: u64) {
        self.positions.entry(file.partition).or_default().insert(file.number, FilePosition::new(file, next));
        self.progress.entry(file.partition).or_default().insert(file.number, progress);
    }

    /// The next event of what was read.
    fn pop(&mut self, limit: BatchLimit) -> Option<SourceEvent> {
        loop {
            return Some(match self.items.pop_front()? {
                Item::Rows { batch, file, next, progress } => {
                    let end = rows_within(&batch, self.returned, limit);
                    if self.returned == 0 && end == batch.len() {
                        self.moved(&file, next, progress);
                        return Some(SourceEvent::Rows(batch));
                    }
                    // The limit has become smaller since the rows were read.
                    let part = batch.slice(self.returned..end);
                    if end == batch.len() {
                        self.returned = 0;
                        self.moved(&file, next, progress);
                    } else {
                        self.returned = end;
                        let offset = batch.lineage().map_or(next, |lineage| offset_in_file(lineage.offsets[end]));
                        self.moved(&file, offset, progress);
                        self.items.push_front(Item::Rows { batch, file, next, progress });
                    }
                    SourceEvent::Rows(part)
                }
                Item::Bad { bad, file, next, progress } => {
                    self.moved(&file, next, progress);
                    SourceEvent::Malformed {
                        partition: file.partition,
                        offset: bad.offset,
                        bytes: bad.bytes,
                        reason: bad.reason,
                    }
                }
                Item::Left(file) => {
                    if let Some(files) = self.positions.get_mut(&file.partition) {
                        files.remove(&file.number);
                    }
                    continue;
                }
                Item::PartitionEnd(partition) => SourceEvent::PartitionEnd(partition),
            });
        }
    }

    /// Starts to read ahead, where that is not under way and there may be more.
    fn start(&mut self, limit: BatchLimit) {
        if let Some(mut reader) = self.reader.take() {
            let clock = self.clock.clone();
            self.work = Some(tokio::task::spawn_blocking(move || {
                let mut items = VecDeque::new();
                let more = reader.read(limit, &*clock, &mut items)?;
                Ok((reader, items, more))
            }));
        }
    }
}

impl Source for FileSource {
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        let limit = BatchLimit { rows: limit.rows.max(1), bytes: limit.bytes.max(1) };
        Box::pin(async move {
            loop {
                if let Some(event) = self.pop(limit) {
                    if self.more == More::Now {
                        self.start(limit);
                    }
                    return Ok(event);
                }
                if self.work.is_none() {
                    match self.more {
                        More::Never => return Ok(SourceEvent::End),
                        More::Now => {}
                        More::Later => {
                            let poll = u64::try_from(POLL.as_nanos()).unwrap_or(u64::MAX);
                            let now = self.clock.monotonic_nanos();
                            let until = *self.wait_until.get_or_insert(now.saturating_add(poll));
                            self.clock.sleep_until(until).await;
                            self.wait_until = None;
                        }
                    }
                    if self.reader.is_none() {
                        return Err(ConnectorError::new(ErrorKind::Internal, "a failed file source was used again"));
                    }
                    self.start(limit);
                }
                if let Some(work) = &mut self.work {
                    let result = work.await;
                    self.work = None;
                    let (reader, items, more) = joined(result)?;
                    self.reader = Some(reader);
                    self.items = items;
                    self.more = more;
                }
            }
        })
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        self.positions.iter().map(|(&partition, files)| (partition, encode(files.values()))).collect()
    }

    fn progress(&self) -> Option<u64> {
        Some(self.progress.values().flat_map(BTreeMap::values).sum())
    }
}
