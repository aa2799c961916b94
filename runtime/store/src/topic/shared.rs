//! Topics as connectors and commands use them: one [`Topic`] for all who use it in a process, appends
//! of many callers in one write, and readers that wait without asking.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use wasmill_env::{Clock, Disk};
use wasmill_model::{Batch, GroupName, TopicName};
use xxhash_rust::xxh3::xxh3_64;

use super::TopicError;
use super::config::{self, TopicConfig};
use super::group::{self, GroupMember};
use super::log::{APPEND_BYTES_MAX, Log};
use super::maintain::Compacted;
use super::partition::{Append, Appended, Fetched, PartitionStats, ReadLimit};

/// Bytes that wait to be appended, over all callers, in KiB. Callers beyond it wait.
const QUEUE_KIB_MAX: u32 = 64 << 10;
/// Bytes of different callers that go into one write.
const WRITE_BYTES: u64 = 8 << 20;
/// Topics that stay open although nobody uses them just now, where one process has the folder to itself:
/// opening one anew syncs what is in it.
const RECENT_MAX: usize = 64;
/// How often other processes' appends are looked for.
const POLL: Duration = Duration::from_millis(50);
/// The same where one process has the folder to itself, but for people who look after it.
const POLL_ALONE: Duration = Duration::from_secs(5);

/// Hears of every append of this process, on the thread that has made it: it must not block.
pub type AppendHook = Arc<dyn Fn(&TopicName) + Send + Sync>;

/// The topics in one folder. Clones are the same.
#[derive(Debug, Clone)]
pub struct Topics {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    open: Mutex<HashMap<TopicName, Weak<Topic>>>,
    /// Used last, the latest at the end.
    recent: Mutex<VecDeque<Arc<Topic>>>,
    recent_max: usize,
    poll: Duration,
    appended: Option<AppendHook>,
}

impl Inner {
    /// Keeps a topic open that somebody wants.
    fn keep(&self, topic: &Arc<Topic>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|other| other.name() != topic.name());
        recent.push_back(Arc::clone(topic));
        while recent.len() > self.recent_max {
            recent.pop_front();
        }
    }

    fn forget(&self, name: &TopicName) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).retain(|topic| topic.name() != name);
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Topics {
    /// The topics in `dir`, which need not exist.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self::opened(disk, dir, clock, (POLL, 0), None)
    }

    /// The same in a folder that this process has to itself: what others append there all the same is
    /// seen within 5 s. `appended` hears of each append.
    #[must_use]
    pub fn alone(disk: Arc<dyn Disk>, dir: &Path, clock: Arc<dyn Clock>, appended: AppendHook) -> Self {
        Self::opened(disk, dir, clock, (POLL_ALONE, RECENT_MAX), Some(appended))
    }

    fn opened(
        disk: Arc<dyn Disk>,
        dir: &Path,
        clock: Arc<dyn Clock>,
        (poll, recent_max): (Duration, usize),
        appended: Option<AppendHook>,
    ) -> Self {
        let (dir, open, recent) = (dir.to_owned(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { disk, clock, dir, open, recent, recent_max, poll, appended }) }
    }

    /// Where they are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Their names, in order.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn list(&self) -> Result<Vec<TopicName>, TopicError> {
        config::list(&*self.inner.disk, &self.inner.dir)
    }

    /// Makes a topic. Blocks.
    ///
    /// # Errors
    /// Where it exists already, the configuration is one that no topic can have, or a file cannot be
    /// written.
    pub fn create(&self, name: &TopicName, config: TopicConfig) -> Result<Arc<Topic>, TopicError> {
        let Inner { disk, clock, dir, .. } = &*self.inner;
        let log = Log::create(Arc::clone(disk), Arc::clone(clock), dir, name.clone(), config)?;
        Ok(self.share(log))
    }

    /// The topic of this name. Blocks.
    ///
    /// # Errors
    /// Where there is none, or its file cannot be read.
    pub fn open(&self, name: &TopicName) -> Result<Arc<Topic>, TopicError> {
        let Inner { disk, clock, dir, .. } = &*self.inner;
        Ok(self.share(Log::open(Arc::clone(disk), Arc::clone(clock), dir, name.clone())?))
    }

    /// The topic of this name, made as `config` says where there is none. Blocks.
    ///
    /// # Errors
    /// As [`Topics::open`] and [`Topics::create`].
    pub fn open_or_create(&self, name: &TopicName, config: TopicConfig) -> Result<Arc<Topic>, TopicError> {
        loop {
            match self.open(name) {
                Err(TopicError::Missing { .. }) => {}
                opened => return opened,
            }
            match self.create(name, config) {
                Err(TopicError::Exists { .. }) => {}
                created => return created,
            }
        }
    }

    /// Removes a topic and everything in it. Blocks.
    ///
    /// # Errors
    /// Where there is none, or a file cannot be removed.
    pub fn delete(&self, name: &TopicName) -> Result<(), TopicError> {
        let deleted = Log::delete(&*self.inner.disk, &self.inner.dir, name);
        self.inner.forget(name);
        deleted
    }

    /// The one that others in this process use already, if it is the same topic.
    fn share(&self, log: Log) -> Arc<Topic> {
        let topic = self.shared(log);
        if self.inner.recent_max > 0 {
            self.inner.keep(&topic);
        }
        topic
    }

    fn shared(&self, log: Log) -> Arc<Topic> {
        let mut open = self.inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = open.get(&log.name).and_then(Weak::upgrade)
            && topic.log.described == log.described
        {
            return topic;
        }
        open.retain(|_, topic| topic.strong_count() > 0);
        let topic = Arc::new(Topic {
            queue: Mutex::default(),
            room: Semaphore::new(QUEUE_KIB_MAX as usize),
            changed: watch::Sender::new(()),
            poll: self.inner.poll,
            appended: self.inner.appended.clone(),
            log: Arc::new(log),
        });
        open.insert(topic.log.name.clone(), Arc::downgrade(&topic));
        topic
    }
}

/// A topic. See [the module](super) for what it promises.
pub struct Topic {
    log: Arc<Log>,
    queue: Mutex<Queue>,
    room: Semaphore,
    /// Told after every append of this process.
    changed: watch::Sender<()>,
    poll: Duration,
    appended: Option<AppendHook>,
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic").field("log", &self.log).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Request>,
    /// A thread is at work on what waits.
    leader: bool,
}

#[derive(Debug)]
struct Request {
    appends: Vec<Append>,
    bytes: u64,
    done: oneshot::Sender<Result<Vec<Appended>, TopicError>>,
}

impl Topic {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &TopicName {
        &self.log.name
    }

    /// How it was made.
    #[must_use]
    pub fn config(&self) -> &TopicConfig {
        &self.log.described.config
    }

    /// Deals rows to partitions: by the hash of the key, and rows without a key by their index, of
    /// which `first` is that of the first row.
    #[must_use]
    pub fn deal(&self, rows: &Batch, first: u64) -> Vec<(u32, Batch)> {
        let partitions = self.config().partitions;
        if partitions == 1 {
            return vec![(0, rows.clone())];
        }
        let mut dealt = vec![Vec::new(); partitions as usize];
        for (row, key) in (0..).zip(rows.keys().iter()) {
            let number = if key.is_empty() { first + u64::from(row) } else { xxh3_64(key) };
            dealt[(number % u64::from(partitions)) as usize].push(row);
        }
        let some = (0..).zip(dealt).filter(|(_, of_partition)| !of_partition.is_empty());
        some.map(|(partition, of_partition)| (partition, rows.gather(&of_partition))).collect()
    }

    /// Appends records, durably: they are there for good when this returns, and other readers see
    /// them. Calls that come together share a write. Each partition's part is all or nothing; the
    /// results are in the order of `appends`.
    ///
    /// # Cancellation
    /// The records may be appended although the future was dropped.
    ///
    /// # Errors
    /// Where a write or sync fails, or the records are too large. None of a partition's records are
    /// there then, as far as the disk lets itself be told; a producer may append the same again.
    pub async fn append(self: &Arc<Self>, appends: Vec<Append>) -> Result<Vec<Appended>, TopicError> {
        let bytes: u64 = appends.iter().map(|append| append.rows.byte_len() as u64).sum();
        if bytes > APPEND_BYTES_MAX {
            return Err(TopicError::TooLarge { name: self.name().clone(), bytes, max: APPEND_BYTES_MAX });
        }
        let cut_off = || TopicError::CutOff { name: self.name().clone() };
        let kib = u32::try_from(bytes >> 10).unwrap_or(QUEUE_KIB_MAX).clamp(1, QUEUE_KIB_MAX);
        let _room = self.room.acquire_many(kib).await.map_err(|_| cut_off())?;
        let (done, result) = oneshot::channel();
        let leads = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(Request { appends, bytes, done });
            !std::mem::replace(&mut queue.leader, true)
        };
        if leads {
            let topic = Arc::clone(self);
            tokio::task::spawn_blocking(move || topic.lead());
        }
        result.await.unwrap_or_else(|_| Err(cut_off()))
    }

    /// [`Topic::append`] for threads that may block. Shares its write with nobody.
    ///
    /// # Errors
    /// As [`Topic::append`].
    pub fn append_blocking(&self, appends: &[Append]) -> Result<Vec<Appended>, TopicError> {
        let appended = self.log.append(&appends.iter().collect::<Vec<_>>())?;
        self.tell();
        Ok(appended)
    }

    /// Records are there: readers of this process go on.
    fn tell(&self) {
        self.changed.send_replace(());
        if let Some(appended) = &self.appended {
            appended(self.name());
        }
    }

    /// Appends what waits until nothing does.
    fn lead(self: Arc<Self>) {
        loop {
            let requests: Vec<Request> = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                let mut bytes = 0;
                let together = queue.waiting.iter().take_while(|request| {
                    bytes += request.bytes;
                    bytes <= WRITE_BYTES
                });
                let count = together.count().max(1).min(queue.waiting.len());
                if count == 0 {
                    queue.leader = false;
                    break;
                }
                queue.waiting.drain(..count).collect()
            };
            let appends: Vec<&Append> = requests.iter().flat_map(|request| &request.appends).collect();
            match self.log.append(&appends) {
                Ok(results) => {
                    self.tell();
                    let mut results = results.into_iter();
                    for Request { appends, done, .. } in requests {
                        // Whoever does not wait any more does not want to know.
                        let _gone = done.send(Ok(results.by_ref().take(appends.len()).collect()));
                    }
                }
                Err(error) => {
                    let error = Arc::new(error);
                    for Request { done, .. } in requests {
                        let _gone = done.send(Err(TopicError::Shared(Arc::clone(&error))));
                    }
                }
            }
        }
        if self.log.maintenance_due()
            && let Err(error) = self.log.maintain(false)
        {
            tracing::warn!(topic = %self.name(), error = &error as &dyn std::error::Error, "cannot tidy up a topic");
        }
    }

    /// Records of a partition from an offset on; none at its end. Blocks.
    ///
    /// # Errors
    /// Where the offset was removed by retention or does not exist, or a file cannot be read or is
    /// damaged.
    pub fn read_blocking(&self, partition: u32, offset: u64, limit: ReadLimit) -> Result<Fetched, TopicError> {
        self.log.read(partition, offset, limit)
    }

    /// [`Topic::read_blocking`] on a thread that may block. Cancel safe.
    ///
    /// # Errors
    /// As [`Topic::read_blocking`].
    pub async fn read(&self, partition: u32, offset: u64, limit: ReadLimit) -> Result<Fetched, TopicError> {
        let log = Arc::clone(&self.log);
        self.off_worker(move || log.read(partition, offset, limit)).await
    }

    /// The first offset of a partition that can be read, and its end. Blocks.
    ///
    /// # Errors
    /// Where a file cannot be read or is damaged.
    pub fn bounds_blocking(&self, partition: u32) -> Result<(u64, u64), TopicError> {
        self.log.bounds(partition)
    }

    /// [`Topic::bounds_blocking`] on a thread that may block.
    ///
    /// # Errors
    /// As [`Topic::bounds_blocking`].
    pub async fn bounds(&self, partition: u32) -> Result<(u64, u64), TopicError> {
        let log = Arc::clone(&self.log);
        self.off_worker(move || log.bounds(partition)).await
    }

    async fn off_worker<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, TopicError> + Send + 'static,
    ) -> Result<T, TopicError> {
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|_| Err(TopicError::CutOff { name: self.name().clone() }))
    }

    /// Waits until one of these partitions goes on behind its offset. Appends of this process wake it
    /// at once, those of others within 50 ms, or 5 s where they are not expected ([`Topics::alone`]).
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Topic::bounds_blocking`].
    pub async fn wait(&self, partitions: &[(u32, u64)]) -> Result<(), TopicError> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            for &(partition, offset) in partitions {
                if self.bounds(partition).await?.1 > offset {
                    return Ok(());
                }
            }
            tokio::select! {
                // The sender lives as long as the topic.
                _changed = changed.changed() => {}
                () = self.log.clock.sleep(self.poll) => {}
            }
        }
    }

    /// The partitions in figures. Blocks.
    ///
    /// # Errors
    /// Where a file cannot be read or is damaged.
    pub fn stats(&self) -> Result<Vec<PartitionStats>, TopicError> {
        self.log.stats()
    }

    /// Removes what retention allows to be removed, and folds what compaction can fold. Blocks. It is
    /// done now and then by itself, after appends.
    ///
    /// # Errors
    /// Where a file cannot be read, written or removed, or is damaged.
    pub fn maintain(&self) -> Result<Compacted, TopicError> {
        self.log.maintain(true)
    }

    /// Removes segments of a partition that hold only records before an offset, appended at or before
    /// a time (microseconds since the Unix epoch): for a topic with one reader, which knows what it
    /// needs no more. Never the last segment. Blocks.
    ///
    /// # Errors
    /// Where a file cannot be read or removed, or is damaged.
    pub fn trim_blocking(&self, partition: u32, before: u64, appended_until: i64) -> Result<(), TopicError> {
        self.log.trim(partition, before, appended_until)
    }

    /// The groups that have committed offsets. Blocks.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn groups(&self) -> Result<Vec<GroupName>, TopicError> {
        group::list(&self.log)
    }

    /// Where a group goes on, for each partition it has committed. Blocks.
    ///
    /// # Errors
    /// Where a file cannot be read or is damaged.
    pub fn committed(&self, group: &GroupName) -> Result<Vec<(u32, u64)>, TopicError> {
        group::committed(&self.log, group)
    }

    /// Makes durable where a group goes on. Other partitions stay as they are. Blocks.
    ///
    /// # Errors
    /// Where a partition does not exist, or a file cannot be read or written.
    pub fn commit(&self, group: &GroupName, offsets: &[(u32, u64)]) -> Result<(), TopicError> {
        group::commit(&self.log, group, offsets)
    }

    /// Forgets a group. One that does not exist is no error. Blocks.
    ///
    /// # Errors
    /// Where a file cannot be removed.
    pub fn forget(&self, group: &GroupName) -> Result<(), TopicError> {
        group::forget(&self.log, group)
    }

    /// Joins a group whose members share the partitions. Blocks.
    ///
    /// # Errors
    /// Where a file cannot be made or locked.
    pub fn join(&self, group: &GroupName) -> Result<GroupMember, TopicError> {
        GroupMember::join(Arc::clone(&self.log), group)
    }
}
