//! A topic as this process has it: the half that blocks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wasmill_env::{Clock, Disk};
use wasmill_model::TopicName;

use super::TopicError;
use super::config::{self, Described, TopicConfig};
use super::partition::{Append, Appended, Fetched, Locked, Partition, PartitionStats, ReadLimit};
use super::record::Producers;
use super::segment::{self, SegmentName};
use crate::durable::base::remove;

const LOCK: &str = "lock";
const LOCK_WAIT: Duration = Duration::from_millis(1);
const LOCK_WAITS_MAX: u64 = 30_000;
/// Most bytes of one append.
pub(super) const APPEND_BYTES_MAX: u64 = 64 << 20;

pub(super) struct Log {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    root: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) name: TopicName,
    pub(super) described: Described,
    pub(super) partitions: Vec<Partition>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).field("described", &self.described).finish_non_exhaustive()
    }
}

fn take_lock(disk: &dyn Disk, dir: &Path, name: &TopicName) -> Result<Locked, TopicError> {
    let path = dir.join(LOCK);
    for _ in 0..LOCK_WAITS_MAX {
        match disk.try_lock(&path).map_err(TopicError::io("lock", &path))? {
            Some(lock) => return Ok(Locked { _lock: lock }),
            // It is held for one synced write. Nothing tells of its end, and this thread may block.
            None => std::thread::sleep(LOCK_WAIT),
        }
    }
    let seconds = LOCK_WAITS_MAX * LOCK_WAIT.as_millis() as u64 / 1_000;
    Err(TopicError::Busy { name: name.clone(), seconds })
}

impl Log {
    /// Makes a topic.
    pub(super) fn create(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        root: &Path,
        name: TopicName,
        config: TopicConfig,
    ) -> Result<Self, TopicError> {
        config.check()?;
        let dir = root.join(name.as_str());
        disk.create_dir_all(&dir).map_err(TopicError::io("create", &dir))?;
        let path = config::path(root, &name);
        let locked = take_lock(&*disk, &dir, &name)?;
        if config::read(&*disk, &path)?.is_some() {
            return Err(TopicError::Exists { name });
        }
        // What a topic of this name has left that was deleted, or not made to the end.
        clear(&*disk, &dir)?;
        let now = clock.wall().0;
        for partition in 0..config.partitions {
            let path = SegmentName::plain(0).path(&dir, partition);
            segment::create(&*disk, &path, 0, &Producers::default(), now)?;
        }
        let described = Described { id: now.cast_unsigned(), config };
        config::write(&*disk, &path, &described)?;
        drop(locked);
        Ok(Self::new(disk, clock, root, name, described))
    }

    pub(super) fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        root: &Path,
        name: TopicName,
    ) -> Result<Self, TopicError> {
        match config::read(&*disk, &config::path(root, &name))? {
            Some(described) => Ok(Self::new(disk, clock, root, name, described)),
            None => Err(TopicError::Missing { name, dir: root.display().to_string() }),
        }
    }

    fn new(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, root: &Path, name: TopicName, described: Described) -> Self {
        let dir = root.join(name.as_str());
        let partition = |number| Partition::new(Arc::clone(&disk), dir.clone(), name.clone(), number, described.config);
        let partitions = (0..described.config.partitions).map(partition).collect();
        Self { disk, clock, root: root.to_owned(), dir, name, described, partitions }
    }

    /// Removes a topic: it is gone once its file is.
    pub(super) fn delete(disk: &dyn Disk, root: &Path, name: &TopicName) -> Result<(), TopicError> {
        let (dir, path) = (root.join(name.as_str()), config::path(root, name));
        let missing = || TopicError::Missing { name: name.clone(), dir: root.display().to_string() };
        if config::read(disk, &path)?.is_none() {
            return Err(missing());
        }
        let _locked = take_lock(disk, &dir, name)?;
        remove(disk, &path)?;
        disk.sync_dir(root).map_err(TopicError::io("sync", root))?;
        clear(disk, &dir)
    }

    pub(super) fn lock(&self) -> Result<Locked, TopicError> {
        take_lock(&*self.disk, &self.dir, &self.name)
    }

    /// The lock, of a topic that was not deleted meanwhile.
    pub(super) fn lock_existing(&self) -> Result<Locked, TopicError> {
        let locked = self.lock()?;
        if config::read(&*self.disk, &config::path(&self.root, &self.name))? != Some(self.described) {
            return Err(TopicError::Missing { name: self.name.clone(), dir: self.root.display().to_string() });
        }
        Ok(locked)
    }

    pub(super) fn partition(&self, partition: u32) -> Result<&Partition, TopicError> {
        let found = usize::try_from(partition).ok().and_then(|place| self.partitions.get(place));
        let last = self.described.config.partitions - 1;
        found.ok_or_else(|| TopicError::NoPartition { name: self.name.clone(), partition, last })
    }

    /// Makes records durable: one frame for each partition, each all or nothing.
    pub(super) fn append(&self, appends: &[&Append]) -> Result<Vec<Appended>, TopicError> {
        let bytes: u64 = appends.iter().map(|append| append.rows.byte_len() as u64).sum();
        if bytes > APPEND_BYTES_MAX {
            return Err(TopicError::TooLarge { name: self.name.clone(), bytes, max: APPEND_BYTES_MAX });
        }
        for append in appends {
            self.partition(append.partition)?;
        }
        let _locked = self.lock_existing()?;
        let now = self.clock.wall().0;
        let mut results = vec![Appended { first: 0, end: 0, duplicate: false }; appends.len()];
        for partition in &self.partitions {
            let (places, of_this): (Vec<usize>, Vec<&Append>) = (appends.iter().enumerate())
                .filter(|(_, append)| append.partition == partition.number)
                .map(|(place, append)| (place, *append))
                .unzip();
            if of_this.is_empty() {
                continue;
            }
            for (place, result) in places.into_iter().zip(partition.append(&of_this, now)?) {
                results[place] = result;
            }
        }
        Ok(results)
    }

    pub(super) fn read(&self, partition: u32, offset: u64, limit: ReadLimit) -> Result<Fetched, TopicError> {
        self.partition(partition)?.read(offset, limit, &|| self.lock_existing())
    }

    /// The first offset that can be read, and the end.
    pub(super) fn bounds(&self, partition: u32) -> Result<(u64, u64), TopicError> {
        self.partition(partition)?.bounds(&|| self.lock_existing())
    }

    pub(super) fn stats(&self) -> Result<Vec<PartitionStats>, TopicError> {
        let _locked = self.lock_existing()?;
        self.partitions.iter().map(Partition::stats).collect()
    }
}

/// Removes what a folder of a topic holds, but for its lock.
fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), TopicError> {
    for file in disk.list(dir).map_err(TopicError::io("list", dir))? {
        if file != LOCK {
            remove(disk, &dir.join(file))?;
        }
    }
    disk.sync_dir(dir).map_err(TopicError::io("sync", dir))
}
