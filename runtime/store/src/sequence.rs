//! Numbers that are given out once: for rows of sources that share no clock.
//!
//! # Crash consistency
//! A file says below which number everything may have been given out. It is raised, by a block, before
//! the first number of that block leaves; so no number is given twice, whatever dies when. Numbers of a
//! block that were not given are never given: gaps.
//!
//! # Concurrency
//! Several processes may use one folder. Each raises the file under a lock and gives out its own block.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use wasmill_env::{Clock, Disk};
use wasmill_model::NodeName;
use xxhash_rust::xxh3::xxh3_64;

use crate::StoreError;
use crate::durable::base::{complete, create_partial, partial};

/// Numbers that are taken out of the file at once.
const BLOCK: u64 = 65_536;
/// Most numbers of one taking.
pub const SEQUENCE_COUNT_MAX: u64 = 1 << 32;
const MAGIC: &[u8; 8] = b"WMSEQ\0\0\x01";
const FILE_BYTES: usize = 24;
const LOCK_WAIT: Duration = Duration::from_millis(1);
const LOCK_WAITS_MAX: u32 = 10_000;

/// The sequences in one folder. Clones are the same.
#[derive(Clone)]
pub struct Sequences {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    open: Arc<Mutex<HashMap<NodeName, Weak<Sequence>>>>,
}

/// Why numbers could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// The file could not be read or written, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Other processes hold the lock for too long.
    #[error("sequence {name} is busy: other processes held its lock for 10 s")]
    Busy {
        /// Its name.
        name: NodeName,
    },
    /// There are not so many numbers.
    #[error("{count} numbers of sequence {name} are not to be had: at most {SEQUENCE_COUNT_MAX} at once, below 2^63")]
    TooMany {
        /// Its name.
        name: NodeName,
        /// What was asked for.
        count: u64,
    },
}

impl Sequences {
    /// The sequences in `dir`, which need not exist.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { disk, clock, dir: dir.to_owned(), open: Arc::default() }
    }

    /// The sequence of a name: one for all who use it in this process. It begins at 0.
    #[must_use]
    pub fn get(&self, name: &NodeName) -> Arc<Sequence> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sequence) = open.get(name).and_then(Weak::upgrade) {
            return sequence;
        }
        let sequence = Arc::new(Sequence {
            disk: Arc::clone(&self.disk),
            clock: Arc::clone(&self.clock),
            dir: self.dir.clone(),
            name: name.clone(),
            block: tokio::sync::Mutex::default(),
        });
        open.retain(|_, sequence| sequence.strong_count() > 0);
        open.insert(name.clone(), Arc::downgrade(&sequence));
        sequence
    }
}

/// Gives out numbers, each once.
pub struct Sequence {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    name: NodeName,
    /// Numbers that are taken out of the file and not given.
    block: tokio::sync::Mutex<std::ops::Range<u64>>,
}

impl fmt::Debug for Sequences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequences").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sequence {
    /// The first of `count` numbers in a row. Cancel safe: a dropped future may leave a gap.
    ///
    /// # Errors
    /// Where the file cannot be raised, or there are not so many numbers.
    pub async fn take(self: &Arc<Self>, count: u64) -> Result<u64, SequenceError> {
        let mut block = self.block.lock().await;
        if block.end - block.start < count {
            if count > SEQUENCE_COUNT_MAX {
                return Err(SequenceError::TooMany { name: self.name.clone(), count });
            }
            let missing = (count - (block.end - block.start)).max(BLOCK);
            let mut waits = 0;
            let taken = loop {
                let (this, end) = (Arc::clone(self), block.end);
                let raised = tokio::task::spawn_blocking(move || this.raise(missing, count, end)).await;
                match raised.map_err(|error| self.io("raise")(io::Error::other(error)))?? {
                    Some(taken) => break taken,
                    None if waits == LOCK_WAITS_MAX => return Err(SequenceError::Busy { name: self.name.clone() }),
                    None => {
                        waits += 1;
                        self.clock.sleep(LOCK_WAIT).await;
                    }
                }
            };
            *block = if taken.start == block.end { block.start..taken.end } else { taken };
        }
        let first = block.start;
        block.start += count;
        Ok(first)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{}.sequence", self.name))
    }

    fn io(&self, act: &'static str) -> impl FnOnce(io::Error) -> SequenceError {
        let path = self.path();
        move |source| SequenceError::Store(StoreError::Io { act, path, source })
    }

    /// Takes numbers out of the file: so many behind `end` where that is where it is, else at least
    /// `count`. `None` where another process does so.
    fn raise(&self, missing: u64, count: u64, end: u64) -> Result<Option<std::ops::Range<u64>>, SequenceError> {
        let disk = &*self.disk;
        disk.create_dir_all(&self.dir).map_err(self.io("make"))?;
        let Some(_lock) = disk.try_lock(&self.dir.join("lock")).map_err(self.io("lock"))? else { return Ok(None) };
        let first = self.read()?;
        let missing = if first == end { missing } else { missing.max(count) };
        let next = first.checked_add(missing).filter(|next| *next <= i64::MAX as u64);
        let next = next.ok_or_else(|| SequenceError::TooMany { name: self.name.clone(), count })?;
        let path = self.path();
        let mut bytes = [&MAGIC[..], &next.to_le_bytes()].concat();
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        let mut file = create_partial(disk, &path)?;
        file.append(&bytes).map_err(StoreError::io("write", &partial(&path)))?;
        complete(disk, &path, &mut *file)?;
        Ok(Some(first..next))
    }

    /// Below which number everything may have been given out.
    fn read(&self) -> Result<u64, SequenceError> {
        let file = match self.disk.open(&self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            file => file.map_err(self.io("open"))?,
        };
        let mut bytes = [0; FILE_BYTES + 1];
        let read = file.read_at(0, &mut bytes).map_err(self.io("read"))?;
        let damaged = |reason: &str| StoreError::corrupt(&self.path(), 0, reason);
        let (magic, rest) = bytes.split_at(MAGIC.len());
        if read != FILE_BYTES || magic != MAGIC {
            return Err(damaged("24 bytes of a sequence were expected").into());
        }
        let number = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().unwrap_or_default());
        if number(8) != xxh3_64(&bytes[..16]) {
            return Err(damaged("its checksum does not match").into());
        }
        Ok(number(0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use wasmill_env::{Fault, RealClock, SimulatedDisk};

    use super::*;

    fn sequence(disk: &SimulatedDisk) -> Arc<Sequence> {
        let sequences = Sequences::new(Arc::new(disk.clone()), Path::new("/seq"), Arc::new(RealClock::default()));
        sequences.get(&NodeName::new("orders").expect("a name"))
    }

    #[tokio::test]
    async fn numbers_of_one_process_have_no_gaps_and_of_two_no_doubles() {
        let disk = SimulatedDisk::default();
        let one = sequence(&disk);
        assert_eq!(one.take(1).await.expect("numbers"), 0);
        assert_eq!(one.take(BLOCK).await.expect("numbers"), 1);
        assert_eq!(one.take(0).await.expect("numbers"), BLOCK + 1);
        assert_eq!(one.take(3 * BLOCK).await.expect("numbers"), BLOCK + 1);
        let other = sequence(&disk);
        let (mut seen, mut last) = (HashSet::new(), 0);
        for turn in 0..200_u64 {
            let first = if turn % 2 == 0 { &one } else { &other }.take(1_000 + turn).await.expect("numbers");
            assert!((first..first + 1_000 + turn).all(|number| seen.insert(number)));
            last = last.max(first);
        }
        assert!(last > 4 * BLOCK);
        assert!(matches!(one.take(u64::MAX).await, Err(SequenceError::TooMany { .. })));
        assert!(one.take(1).await.is_ok());
    }

    #[tokio::test]
    async fn the_file_is_what_is_documented_and_damage_is_seen() {
        let disk = SimulatedDisk::default();
        assert_eq!(sequence(&disk).take(7).await.expect("numbers"), 0);
        let path = Path::new("/seq/orders.sequence");
        let mut bytes = disk.files()[path].clone();
        assert_eq!((bytes.len(), &bytes[..16]), (24, &b"WMSEQ\0\0\x01\0\0\x01\0\0\0\0\0"[..]));
        assert_eq!(sequence(&disk).take(1).await.expect("numbers"), BLOCK, "what was not given is a gap");
        bytes[9] ^= 1;
        disk.put(path, bytes);
        let error = sequence(&disk).take(1).await.expect_err("damage");
        assert!(error.to_string().contains("checksum does not match"), "{error}");
    }

    proptest! {
        /// Whatever fails or dies at whichever operation, no number is given twice.
        #[test]
        fn no_number_is_given_twice(
            runs in prop::collection::vec((prop::collection::vec(1..100_000_u64, 0..5), 1..30_u64, any::<u64>(), 0..3_u8), 1..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut disk = SimulatedDisk::default();
                let mut given: Vec<(u64, u64)> = Vec::new();
                for (takes, operation, seed, fault) in runs {
                    let fault = [Fault::Io, Fault::Full, Fault::Stop][usize::from(fault)];
                    disk.fail_at(operation, fault, seed);
                    let sequence = sequence(&disk);
                    for count in takes {
                        if let Ok(first) = sequence.take(count).await {
                            given.push((first, first + count));
                        }
                    }
                    drop(sequence);
                    disk = disk.crashed(seed);
                }
                given.sort_unstable();
                prop_assert!(given.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{:?}", given);
                Ok(())
            })?;
        }
    }
}
