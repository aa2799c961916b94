use std::collections::BTreeMap;
use std::sync::Arc;

use wasmill_contract::{
    BatchLimit, Bell, Bounds, BoxFuture, ConnectorError, Source, SourceCapabilities, SourceEvent, SourceFactory,
    SourcePartition,
};
use wasmill_env::Clock;
use wasmill_model::{Batch, Epoch, ErrorKind, GroupName, PartitionId, Position, TopicName};
use wasmill_store::{ReadLimit, Topic, TopicError, Topics};

use super::config::{From, Gone, SourceConfig};
use super::{error, topic_name};
use crate::Site;
use crate::error::off_worker;
use crate::options::{ConfigError, parse};

/// What is read at once; the job gets it in batches of its own size.
const READ: ReadLimit = ReadLimit { rows: 16_384, bytes: 1 << 20 };

struct TopicSourceFactory {
    topics: Topics,
    topic: TopicName,
    partitions: Option<Vec<u32>>,
    from: From,
    group: Option<GroupName>,
    ends: bool,
    gone: Gone,
}

pub(super) fn build(options: toml::Table, site: &Site) -> Result<Arc<dyn SourceFactory>, ConfigError> {
    let config: SourceConfig = parse(options)?;
    let group = |text: String| {
        GroupName::new(&text).map_err(|error| ConfigError::of("group", format!("group {text:?}: {error}")))
    };
    if let Some(partitions) = &config.partitions {
        let twice = partitions.iter().enumerate().find(|(place, number)| partitions[..*place].contains(number));
        if partitions.is_empty() {
            return Err(ConfigError::of("partitions", "`partitions` names none").hint("remove it to read all"));
        }
        if let Some((_, number)) = twice {
            return Err(ConfigError::of("partitions", format!("partition {number} is named twice")));
        }
    }
    Ok(Arc::new(TopicSourceFactory {
        topics: site.topics.clone(),
        topic: topic_name(&config.topic)?,
        partitions: config.partitions,
        from: config.from,
        group: config.group.map(group).transpose()?,
        ends: config.until.is_some(),
        gone: config.gone,
    }))
}

impl SourceFactory for TopicSourceFactory {
    fn capabilities(&self) -> SourceCapabilities {
        let bounds = if self.ends { Bounds::Bounded } else { Bounds::Unbounded };
        SourceCapabilities { bounds, replayable: true }
    }

    fn bell(&self, positions: &[(PartitionId, Position)]) -> Option<Bell> {
        if self.ends {
            return None;
        }
        let next = positions.iter().map(|(partition, position)| Some((*partition, decode(position).ok()?)));
        Some(Bell { topic: self.topic.clone(), next: next.collect::<Option<_>>()? })
    }

    fn partitions(&self) -> BoxFuture<'_, Result<Vec<SourcePartition>, ConnectorError>> {
        Box::pin(async move {
            let (topics, name, wanted, ends) =
                (self.topics.clone(), self.topic.clone(), self.partitions.clone(), self.ends);
            off_worker(move || {
                let topic = topics.open(&name).map_err(error)?;
                let numbers = wanted.unwrap_or_else(|| (0..topic.config().partitions).collect());
                let partition = |number| {
                    let (start, end) = topic.bounds_blocking(number).map_err(error)?;
                    let size = ends.then_some(end - start);
                    Ok(SourcePartition { id: PartitionId(number), name: format!("{name}/{number}"), size })
                };
                numbers.into_iter().map(partition).collect()
            })
            .await
        })
    }

    fn open(
        &self,
        assigned: Vec<(PartitionId, Option<Position>)>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Box<dyn Source>, ConnectorError>> {
        Box::pin(async move {
            let (topics, name, group) = (self.topics.clone(), self.topic.clone(), self.group.clone());
            let (from, ends, gone) = (self.from, self.ends, self.gone);
            let (topic, lanes) = off_worker(move || {
                let topic = topics.open(&name).map_err(error)?;
                let committed = match &group {
                    Some(group) => topic.committed(group).map_err(error)?,
                    None => Vec::new(),
                };
                let committed: BTreeMap<u32, u64> = committed.into_iter().collect();
                let mut lanes = Vec::new();
                for (PartitionId(number), position) in assigned {
                    let (start, end) = topic.bounds_blocking(number).map_err(error)?;
                    let first = match (position, committed.get(&number), from) {
                        (Some(position), ..) => decode(&position)?,
                        (None, Some(offset), _) => *offset,
                        (None, None, From::Earliest) => start,
                        (None, None, From::Latest) => end,
                    };
                    let until = ends.then_some(end.max(first));
                    lanes.push(Lane { number, next: first, first, until, ahead: None, ended: false });
                }
                Ok((topic, lanes))
            })
            .await?;
            Ok(Box::new(TopicSource { topic, lanes, turn: 0, gone, group: self.group.clone(), clock })
                as Box<dyn Source>)
        })
    }
}

/// Decimal digits, so that people can read what is stored.
fn encode(offset: u64) -> Position {
    Position(offset.to_string().into_bytes())
}

fn decode(position: &Position) -> Result<u64, ConnectorError> {
    let offset = std::str::from_utf8(&position.0).ok().and_then(|text| text.parse().ok());
    offset.ok_or_else(|| ConnectorError::new(ErrorKind::Corrupt, "the stored position of a topic is no offset"))
}

/// A partition that is being read.
struct Lane {
    number: u32,
    /// Behind the last row that the job has.
    next: u64,
    first: u64,
    until: Option<u64>,
    ahead: Option<Ahead>,
    ended: bool,
}

/// Rows that are read and that the job does not have all of.
struct Ahead {
    rows: Batch,
    given: usize,
    next: u64,
}

impl Lane {
    fn is_at_end(&self) -> bool {
        self.until.is_some_and(|until| self.next >= until)
    }

    /// Rows that were read ahead, as many as the job wants.
    fn take(&mut self, limit: BatchLimit, arrived_nanos: u64) -> Option<Batch> {
        let Ahead { rows, given, next } = self.ahead.as_mut()?;
        let from = *given;
        let mut bytes = 0;
        let mut until = from;
        while until < rows.len() && until - from < limit.rows.max(1) && bytes < limit.bytes.max(1) {
            bytes += rows.values().row(until).len();
            until += 1;
        }
        let batch = rows.slice(from..until);
        *given = until;
        self.next = match rows.lineage().and_then(|lineage| lineage.offsets.get(until)) {
            Some(offset) => *offset,
            None => *next,
        };
        if until == rows.len() {
            self.ahead = None;
        }
        let (headers, lineage) = (batch.headers().cloned(), batch.lineage().cloned());
        let (times, keys, values) = (batch.times().clone(), batch.keys().clone(), batch.values().clone());
        Some(Batch::new(times, keys, values, arrived_nanos).with_headers(headers).with_lineage(lineage))
    }
}

struct TopicSource {
    topic: Arc<Topic>,
    lanes: Vec<Lane>,
    /// The lane that is looked at first.
    turn: usize,
    gone: Gone,
    group: Option<GroupName>,
    clock: Arc<dyn Clock>,
}

impl TopicSource {
    /// Reads ahead in one lane. Returns whether there was anything.
    async fn read(&mut self, place: usize) -> Result<bool, ConnectorError> {
        let (number, next) = (self.lanes[place].number, self.lanes[place].next);
        let until = self.lanes[place].until.unwrap_or(u64::MAX);
        let rows = usize::try_from(until - next).unwrap_or(usize::MAX).min(READ.rows);
        let fetched = match self.topic.read(number, next, ReadLimit { rows, ..READ }).await {
            Err(TopicError::Gone { start, .. }) if self.gone == Gone::Earliest => {
                tracing::warn!(topic = %self.topic.name(), partition = number, from = next, to = start, "records are gone");
                self.lanes[place].next = start;
                return Ok(true);
            }
            fetched => fetched.map_err(error)?,
        };
        let lane = &mut self.lanes[place];
        if fetched.rows.is_empty() {
            lane.next = fetched.next;
            return Ok(fetched.next > next);
        }
        // Compaction leaves offsets out, so fewer rows may reach further than the end.
        let inside = fetched.rows.lineage().map_or(0, |lineage| lineage.offsets.partition_point(|&at| at < until));
        if inside == 0 {
            lane.next = until;
        } else {
            let rows = fetched.rows.slice(0..inside);
            lane.ahead = Some(Ahead { rows, given: 0, next: fetched.next.min(until) });
        }
        Ok(true)
    }
}

impl Source for TopicSource {
    fn next(&mut self, limit: BatchLimit) -> BoxFuture<'_, Result<SourceEvent, ConnectorError>> {
        Box::pin(async move {
            loop {
                let mut moved = false;
                for step in 0..self.lanes.len() {
                    let place = (self.turn + step) % self.lanes.len();
                    if self.lanes[place].ended {
                        continue;
                    }
                    if self.lanes[place].ahead.is_none() && !self.lanes[place].is_at_end() {
                        moved |= self.read(place).await?;
                    }
                    let arrived = self.clock.monotonic_nanos();
                    let lane = &mut self.lanes[place];
                    if let Some(rows) = lane.take(limit, arrived) {
                        self.turn = if lane.ahead.is_none() { place + 1 } else { place };
                        return Ok(SourceEvent::Rows(rows));
                    }
                    if lane.is_at_end() {
                        lane.ended = true;
                        return Ok(SourceEvent::PartitionEnd(PartitionId(lane.number)));
                    }
                }
                let waiting: Vec<_> =
                    self.lanes.iter().filter(|lane| !lane.ended).map(|lane| (lane.number, lane.next)).collect();
                if waiting.is_empty() {
                    return Ok(SourceEvent::End);
                }
                if !moved {
                    self.topic.wait(&waiting).await.map_err(error)?;
                }
            }
        })
    }

    fn positions(&self) -> Vec<(PartitionId, Position)> {
        self.lanes.iter().map(|lane| (PartitionId(lane.number), encode(lane.next))).collect()
    }

    fn acknowledge<'a>(
        &'a mut self,
        _: Epoch,
        positions: &'a [(PartitionId, Position)],
    ) -> BoxFuture<'a, Result<(), ConnectorError>> {
        Box::pin(async move {
            let Some(group) = self.group.clone() else { return Ok(()) };
            let offset = |(partition, position): &(PartitionId, Position)| Ok((partition.0, decode(position)?));
            let offsets = positions.iter().map(offset).collect::<Result<Vec<_>, ConnectorError>>()?;
            let topic = Arc::clone(&self.topic);
            off_worker(move || topic.commit(&group, &offsets).map_err(error)).await
        })
    }

    fn progress(&self) -> Option<u64> {
        let read = self.lanes.iter().map(|lane| lane.next.saturating_sub(lane.first)).sum();
        Some(read)
    }
}
