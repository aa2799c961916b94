//! Groups of consumers: where each goes on, and which member reads what.
//!
//! A group has its offsets in a file that is replaced as a whole. Its members need no coordinator: a
//! member holds a lock on a file of its own for as long as its process lives, everybody sees who else
//! does, and [`assigned`] tells each its partitions. What makes sure that nobody reads what another
//! one still does is a lock on each partition.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmill_env::DiskLock;
use wasmill_model::GroupName;

use super::TopicError;
use super::config::{read_frame, write_frame};
use super::frame::{FILE_HEADER_BYTES, FileKind, FrameKind, begin_frame, file_header};
use super::log::Log;
use crate::durable::base::remove;
use crate::durable::codec::{Reader, put_varint};

fn path(dir: &Path, group: &GroupName) -> PathBuf {
    dir.join(format!("group-{group}"))
}

pub(super) fn list(log: &Log) -> Result<Vec<GroupName>, TopicError> {
    let files = log.disk.list(&log.dir).map_err(TopicError::io("list", &log.dir))?;
    Ok(files.iter().filter_map(|file| GroupName::new(file.strip_prefix("group-")?).ok()).collect())
}

pub(super) fn committed(log: &Log, group: &GroupName) -> Result<Vec<(u32, u64)>, TopicError> {
    let path = path(&log.dir, group);
    let Some((_, payload)) = read_frame(&*log.disk, &path, FileKind::Group, FrameKind::Group)? else {
        return Ok(Vec::new());
    };
    let malformed = || TopicError::corrupt(&path, FILE_HEADER_BYTES as u64, "the offsets are malformed");
    decode(&payload).ok_or_else(malformed)
}

fn decode(payload: &[u8]) -> Option<Vec<(u32, u64)>> {
    let mut reader = Reader(payload);
    let mut offsets = Vec::new();
    while !reader.0.is_empty() {
        offsets.push((reader.number()?, reader.varint()?));
    }
    Some(offsets)
}

pub(super) fn commit(log: &Log, group: &GroupName, offsets: &[(u32, u64)]) -> Result<(), TopicError> {
    for (partition, _) in offsets {
        log.partition(*partition)?;
    }
    let _locked = log.lock_existing()?;
    let mut all = committed(log, group)?;
    let before = all.clone();
    all.retain(|(partition, _)| offsets.iter().all(|(other, _)| other != partition));
    all.extend_from_slice(offsets);
    all.sort_unstable();
    if all == before {
        return Ok(());
    }
    let mut bytes = file_header(FileKind::Group, 0).to_vec();
    let frame = begin_frame(&mut bytes);
    for (partition, offset) in all {
        put_varint(&mut bytes, u64::from(partition));
        put_varint(&mut bytes, offset);
    }
    write_frame(&*log.disk, &path(&log.dir, group), bytes, frame, FrameKind::Group)
}

pub(super) fn forget(log: &Log, group: &GroupName) -> Result<(), TopicError> {
    let _locked = log.lock_existing()?;
    remove(&*log.disk, &path(&log.dir, group))?;
    log.disk.sync_dir(&log.dir).map_err(TopicError::io("sync", &log.dir))
}

/// The partitions of the member at `place` of `members`.
#[must_use]
pub fn assigned(place: usize, members: usize, partitions: u32) -> Vec<u32> {
    (0..partitions).filter(|partition| *partition as usize % members.max(1) == place).collect()
}

/// A member of a group. It leaves when it is dropped or its process ends, however that happens.
#[derive(Debug)]
pub struct GroupMember {
    log: Arc<Log>,
    group: GroupName,
    name: String,
    _alive: Box<dyn DiskLock>,
    held: Vec<(u32, Box<dyn DiskLock>)>,
}

impl GroupMember {
    pub(super) fn join(log: Arc<Log>, group: &GroupName) -> Result<Self, TopicError> {
        static JOINED: AtomicU64 = AtomicU64::new(0);
        let _locked = log.lock_existing()?;
        let number = JOINED.fetch_add(1, Ordering::Relaxed);
        let now = log.clock.wall().0;
        let name = format!("member-{group}.{now:016x}-{:x}-{number:x}", std::process::id());
        let path = log.dir.join(&name);
        let alive = log.disk.try_lock(&path).map_err(TopicError::io("lock", &path))?;
        let alive = alive.ok_or_else(|| TopicError::Busy { name: log.name.clone(), seconds: 0 })?;
        Ok(Self { group: group.clone(), name, _alive: alive, held: Vec::new(), log })
    }

    /// The partitions that are this member's now.
    pub fn partitions(&self) -> impl Iterator<Item = u32> {
        self.held.iter().map(|(partition, _)| *partition)
    }

    /// Looks at who is there, and takes partitions that are this member's from now on. Call it now and
    /// then. Partitions that are not any more are returned: commit their offsets, then
    /// [`GroupMember::release`] them. Blocks.
    ///
    /// # Errors
    /// Where the folder cannot be read or a file not be locked.
    pub fn rebalance(&mut self) -> Result<Vec<u32>, TopicError> {
        let _locked = self.log.lock_existing()?;
        let members = self.members()?;
        let place = members.iter().position(|member| *member == self.name).unwrap_or(0);
        let mine = assigned(place, members.len(), self.log.described.config.partitions);
        for &partition in &mine {
            if self.partitions().all(|held| held != partition) {
                let path = self.log.dir.join(format!("claim-{}.{partition}", self.group));
                // Whoever held it before lets go once its offsets are committed.
                if let Some(lock) = self.log.disk.try_lock(&path).map_err(TopicError::io("lock", &path))? {
                    self.held.push((partition, lock));
                }
            }
        }
        self.held.sort_unstable_by_key(|(partition, _)| *partition);
        Ok(self.partitions().filter(|partition| !mine.contains(partition)).collect())
    }

    /// Lets others have a partition.
    pub fn release(&mut self, partition: u32) {
        self.held.retain(|(held, _)| *held != partition);
    }

    /// Who is alive, in order. Removes what dead ones left.
    fn members(&self) -> Result<Vec<String>, TopicError> {
        let dir = &self.log.dir;
        let front = format!("member-{}.", self.group);
        let mut alive = Vec::new();
        for file in self.log.disk.list(dir).map_err(TopicError::io("list", dir))? {
            if !file.starts_with(&front) {
                continue;
            }
            let path = dir.join(&file);
            let dead =
                file != self.name && self.log.disk.try_lock(&path).map_err(TopicError::io("lock", &path))?.is_some();
            if dead {
                remove(&*self.log.disk, &path)?;
            } else {
                alive.push(file);
            }
        }
        Ok(alive)
    }
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        // Whoever looks next removes it otherwise.
        drop(self.log.disk.remove(&self.log.dir.join(&self.name)));
    }
}
