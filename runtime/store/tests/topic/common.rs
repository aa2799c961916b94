use std::path::Path;
use std::sync::Arc;

use wasmill_env::{SimulatedClock, SimulatedDisk};
use wasmill_model::{Batch, BatchBuilder, GroupName, Timestamp, TopicName};
use wasmill_store::{Append, Producer, ReadLimit, Topic, TopicError, Topics};

pub(crate) const DIR: &str = "/topics";
pub(crate) const ALL: ReadLimit = ReadLimit { rows: usize::MAX, bytes: usize::MAX };

/// Numbers from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

pub(crate) fn name(text: &str) -> TopicName {
    TopicName::new(text).expect("a name")
}

pub(crate) fn group(text: &str) -> GroupName {
    GroupName::new(text).expect("a name")
}

pub(crate) fn clock() -> Arc<SimulatedClock> {
    Arc::new(SimulatedClock::new(Timestamp(1_700_000_000_000_000)))
}

/// What a process of its own has.
pub(crate) fn topics(disk: &SimulatedDisk, clock: &Arc<SimulatedClock>) -> Topics {
    Topics::new(Arc::new(disk.clone()), Path::new(DIR), Arc::<SimulatedClock>::clone(clock))
}

pub(crate) fn rows(of: &[(&str, &str)]) -> Batch {
    let mut batch = BatchBuilder::default();
    for (place, (key, value)) in of.iter().enumerate() {
        batch.push(Timestamp(place as i64 * 1_000 - 500), key.as_bytes(), value.as_bytes());
    }
    batch.finish(0)
}

pub(crate) fn append(partition: u32, of: &[(&str, &str)]) -> Append {
    Append { partition, rows: rows(of), producer: None }
}

pub(crate) fn producer(name: &str, epoch: u64, index: u64) -> Option<Producer> {
    Some(Producer { name: name.into(), epoch, index })
}

/// Offset, key and value of every record from `from` on.
pub(crate) fn read_from(
    topic: &Topic,
    partition: u32,
    mut from: u64,
    limit: ReadLimit,
) -> Result<Vec<(u64, String, String)>, TopicError> {
    let mut found = Vec::new();
    loop {
        let fetched = topic.read_blocking(partition, from, limit)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let lineage = fetched.rows.lineage().expect("offsets");
        assert_eq!(lineage.partition.0, partition);
        for ((offset, key), value) in
            lineage.offsets.iter().zip(fetched.rows.keys().iter()).zip(fetched.rows.values().iter())
        {
            assert!((from..fetched.next).contains(offset));
            found.push((*offset, text(key), text(value)));
        }
        if fetched.next == from {
            return Ok(found);
        }
        from = fetched.next;
    }
}

/// Everything that can be read.
pub(crate) fn read_all(topic: &Topic, partition: u32) -> Result<Vec<(u64, String, String)>, TopicError> {
    let (start, _) = topic.bounds_blocking(partition)?;
    read_from(topic, partition, start, ALL)
}
