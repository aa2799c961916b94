//! Topics as the command line and the API show them.

use serde::Serialize;
use utoipa::ToSchema;
use wasmill_model::TopicName;
use wasmill_store::{Topic, TopicError, Topics};

/// A topic in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopicSummary {
    /// Its name.
    #[schema(value_type = String)]
    pub topic: TopicName,
    /// How many partitions it has.
    pub partitions: u64,
    /// Offsets of all partitions, from the first record to the end.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Why it cannot be read, where it cannot; then it has none of the numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A topic.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopicView {
    /// Its name.
    #[schema(value_type = String)]
    pub topic: TopicName,
    /// Records go that were appended longer ago, in microseconds.
    pub retention_micros: Option<u64>,
    /// The oldest records go of a partition that holds more bytes.
    pub retention_bytes: Option<u64>,
    /// Only the last record of each key stays.
    pub compact: bool,
    /// How long compaction keeps an empty value, in microseconds.
    pub tombstone_grace_micros: u64,
    /// Bytes at which a file of records ends.
    pub segment_bytes: u64,
    /// Its partitions.
    pub partitions: Vec<PartitionView>,
    /// How far groups of consumers are.
    pub groups: Vec<GroupView>,
}

/// A partition of a topic.
#[derive(Debug, Serialize, ToSchema)]
pub struct PartitionView {
    /// Its number.
    pub partition: u32,
    /// The offset of its first record.
    pub first: u64,
    /// The offset that its next record gets.
    pub end: u64,
    /// Files of records.
    pub files: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Producers that are known, so that what they send again is left out.
    pub producers: u64,
}

/// How far a group of consumers is in a partition.
#[derive(Debug, Serialize, ToSchema)]
pub struct GroupView {
    /// The group.
    pub group: String,
    /// The partition.
    pub partition: u32,
    /// The offset of the next record that it reads.
    pub offset: u64,
    /// How many offsets the end is ahead of it.
    pub behind: u64,
}

/// Every topic, in the order of names. One that is damaged is listed all the same, and one that goes
/// meanwhile is not. Blocks.
///
/// # Errors
/// Where the folder of topics cannot be read.
pub fn list(topics: &Topics) -> Result<Vec<TopicSummary>, TopicError> {
    let mut found = Vec::new();
    for topic in topics.list()? {
        let stats = match topics.open(&topic).and_then(|topic| topic.stats()) {
            Err(TopicError::Missing { .. }) => continue,
            Err(error) => {
                let error = Some(error.to_string());
                found.push(TopicSummary { topic, partitions: 0, records: 0, bytes: 0, error });
                continue;
            }
            Ok(stats) => stats,
        };
        found.push(TopicSummary {
            topic,
            partitions: stats.len() as u64,
            records: stats.iter().map(|partition| partition.end - partition.start).sum(),
            bytes: stats.iter().map(|partition| partition.bytes).sum(),
            error: None,
        });
    }
    Ok(found)
}

impl TopicView {
    /// How a topic is now. Blocks.
    ///
    /// # Errors
    /// Where its files cannot be read or are damaged.
    pub fn of(topic: &Topic) -> Result<Self, TopicError> {
        let stats = topic.stats()?;
        let mut groups = Vec::new();
        for group in topic.groups()? {
            for (partition, offset) in topic.committed(&group)? {
                let end = stats.get(partition as usize).map_or(0, |partition| partition.end);
                let behind = end.saturating_sub(offset);
                groups.push(GroupView { group: group.to_string(), partition, offset, behind });
            }
        }
        let partitions = stats.into_iter().zip(0..).map(|(stats, partition)| PartitionView {
            partition,
            first: stats.start,
            end: stats.end,
            files: stats.segments as u64,
            bytes: stats.bytes,
            producers: stats.producers as u64,
        });
        let config = topic.config();
        Ok(Self {
            topic: topic.name().clone(),
            retention_micros: config.retention_micros,
            retention_bytes: config.retention_bytes,
            compact: config.compact,
            tombstone_grace_micros: config.tombstone_grace_micros,
            segment_bytes: config.segment_bytes,
            partitions: partitions.collect(),
            groups,
        })
    }
}
