//! Topics of a tenant, in bounded pages.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use wasmill_model::{BatchBuilder, GroupName, TopicName};
use wasmill_store::{Append, ReadLimit, TopicConfig};

use super::blocking::blocking;
use super::problem::Problem;
use super::tenant::Tenant;
use crate::records;
use crate::topics::{self, TopicSummary, TopicView};

/// Records of a page, and bytes of their keys and values.
pub(super) const PAGE_ROWS_MAX: usize = 1_000;
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Partitions of a topic that a tenant makes.
const PARTITIONS_MAX: u32 = 64;

/// A topic that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTopic {
    /// Its name.
    #[schema(value_type = String)]
    pub(super) topic: TopicName,
    /// How many partitions, for good. By default 1.
    pub(super) partitions: Option<u32>,
    /// Remove records that were appended longer ago, in microseconds.
    pub(super) retention_micros: Option<u64>,
    /// Remove the oldest records of a partition that holds more bytes.
    pub(super) retention_bytes: Option<u64>,
    /// Keep only the last record of each key.
    #[serde(default)]
    pub(super) compact: bool,
    /// How long compaction keeps an empty value, in microseconds. By default a day.
    pub(super) tombstone_grace_micros: Option<u64>,
}

/// Records of a partition.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RecordsView {
    /// They, as `wasmill topic consume --json` prints them.
    #[schema(value_type = Vec<Object>)]
    pub(super) records: Vec<Value>,
    /// Where the next page begins.
    pub(super) next: u64,
    /// The offset that the next record of the partition gets.
    pub(super) end: u64,
}

/// Records that were appended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Produced {
    /// How many.
    pub(super) records: u64,
}

impl Tenant {
    pub(super) async fn topic_list(&self) -> Result<Vec<TopicSummary>, Problem> {
        let topics = self.topics.clone();
        blocking(move || Ok(topics::list(&topics)?)).await
    }

    pub(super) async fn topic(&self, name: TopicName) -> Result<TopicView, Problem> {
        let topics = self.topics.clone();
        blocking(move || Ok(TopicView::of(&*topics.open(&name)?)?)).await
    }

    pub(super) async fn make_topic(&self, new: NewTopic) -> Result<TopicView, Problem> {
        let (topics, most) = (self.topics.clone(), self.record().budget.topics as usize);
        let partitions = new.partitions.unwrap_or(1);
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(Problem::wrong(format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {partitions}")));
        }
        // Alone, so that two do not both take the last place.
        self.alone(move || {
            if topics.list()?.len() >= most {
                return Err(Problem::over_budget(format!("the tenant has {most} topics, and may have no more")));
            }
            let default = TopicConfig::default();
            let config = TopicConfig {
                partitions,
                retention_micros: new.retention_micros,
                retention_bytes: new.retention_bytes,
                compact: new.compact,
                tombstone_grace_micros: new.tombstone_grace_micros.unwrap_or(default.tombstone_grace_micros),
                ..default
            };
            topics.create(&new.topic, config)?;
            Ok(TopicView::of(&*topics.open(&new.topic)?)?)
        })
        .await
    }

    pub(super) async fn remove_topic(&self, name: TopicName) -> Result<(), Problem> {
        let topics = self.topics.clone();
        blocking(move || Ok(topics.delete(&name)?)).await
    }

    /// Forgets how far a group is.
    pub(super) async fn remove_group(&self, name: TopicName, group: GroupName) -> Result<(), Problem> {
        let topics = self.topics.clone();
        blocking(move || {
            let topic = topics.open(&name)?;
            if !topic.groups()?.contains(&group) {
                return Err(Problem::missing(format!("topic {name} has no group {group}")));
            }
            Ok(topic.forget(&group)?)
        })
        .await
    }

    /// Appends records: lines of JSON, as `wasmill topic produce --envelope` reads them. They go by their keys,
    /// or all to one partition.
    pub(super) async fn produce(
        self: &Arc<Self>,
        name: TopicName,
        partition: Option<u32>,
        lines: Vec<u8>,
    ) -> Result<Produced, Problem> {
        let (topics, now) = (self.topics.clone(), self.parts.clock.wall());
        let (most, tenant) = (self.record().budget.topic_bytes, Arc::clone(self));
        blocking(move || {
            let has = tenant.topic_bytes_lately();
            if has >= most {
                let message = format!("topics of the tenant take {has} bytes, they may take {most}");
                return Err(Problem::over_budget(message));
            }
            let topic = topics.open(&name)?;
            let mut batch = BatchBuilder::default();
            let lines = lines.split(|byte| *byte == b'\n').zip(1..).filter(|(line, _)| !line.trim_ascii().is_empty());
            for (line, number) in lines {
                let wrong = |reason: String| Problem::wrong(format!("line {number}: {reason}"));
                let object: Map<String, Value> =
                    serde_json::from_slice(line).map_err(|error| wrong(format!("an object was expected: {error}")))?;
                let (time, key, value) = records::read_envelope(&object, now).map_err(wrong)?;
                batch.push(time, &key, &value);
            }
            let rows = batch.finish(0);
            let records = rows.len() as u64;
            if records > 0 {
                let dealt = match partition {
                    Some(partition) => vec![(partition, rows)],
                    None => topic.deal(&rows, now.0.unsigned_abs()),
                };
                let append = |(partition, rows)| Append { partition, rows, producer: None };
                topic.append_blocking(&dealt.into_iter().map(append).collect::<Vec<_>>())?;
            }
            Ok(Produced { records })
        })
        .await
    }

    /// A page of records, from an offset on, or from the first.
    pub(super) async fn consume(
        &self,
        name: TopicName,
        partition: u32,
        offset: Option<u64>,
        limit: usize,
    ) -> Result<RecordsView, Problem> {
        let topics = self.topics.clone();
        blocking(move || {
            let topic = topics.open(&name)?;
            let (start, end) = topic.bounds_blocking(partition)?;
            let from = offset.unwrap_or(start);
            let fetched = topic.read_blocking(partition, from, ReadLimit { rows: limit, bytes: PAGE_BYTES_MAX })?;
            let records = records::envelopes(partition, &fetched.rows);
            Ok(RecordsView { records, next: fetched.next, end })
        })
        .await
    }
}
