//! A disk in memory that does to its users what disks do.
//!
//! # Model
//! A file has bytes that are durable and writes that are not yet; a folder has names that are
//! durable and changes that are not yet. A crash keeps any subset of both, and of a write any
//! prefix or any of its sectors, with zeros where a later byte is there and an earlier one is not.
//! Folders themselves are durable once made. Locks end with the crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Disk, DiskFile, DiskLock};

/// What a crash keeps or loses of a write as one.
const SECTOR_BYTES: usize = 512;

/// What happens to one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails as a broken disk does. A write may have left some of its bytes; a sync has lost
    /// some of what it was to make durable.
    Io,
    /// It fails as a full disk does. A write may have left some of its bytes.
    Full,
    /// The machine stops in the middle: this and every later operation fail.
    Stop,
}

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    folders: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, usize>,
    names_durable: BTreeMap<PathBuf, usize>,
    /// Changes of names that are not durable, oldest first.
    renames: Vec<NameChange>,
    nodes: Vec<Node>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    stopped: bool,
    chance: Chance,
}

/// One operation on the names of a folder: what each of them means from then on.
#[derive(Debug, Clone)]
struct NameChange {
    folder: PathBuf,
    names: Vec<(PathBuf, Option<usize>)>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Changes that are not durable, oldest first.
    writes: Vec<Write>,
}

#[derive(Debug, Clone)]
enum Write {
    At(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Clone, Copy, Default)]
struct Chance(u64);

impl Chance {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

impl Node {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::At(offset, bytes) => put(&mut self.durable, *offset, bytes),
            Write::Truncate(len) => self.durable.truncate(*len),
        }
    }

    /// Makes durable what a crash or a failed sync happens to leave of the writes.
    fn apply_some(&mut self, chance: &mut Chance) {
        let style = chance.below(4);
        let writes = std::mem::take(&mut self.writes);
        for (place, write) in writes.iter().enumerate() {
            let last = place + 1 == writes.len();
            match style {
                0 => {}
                1 if !last => self.apply(write),
                _ => self.apply_torn(write, chance),
            }
        }
    }

    fn apply_torn(&mut self, write: &Write, chance: &mut Chance) {
        let Write::At(offset, bytes) = write else {
            if chance.below(2) == 0 {
                self.apply(write);
            }
            return;
        };
        match chance.below(5) {
            0 => {}
            1 => put(&mut self.durable, *offset, bytes),
            2 => put(&mut self.durable, *offset, &bytes[..chance.below(bytes.len() + 1)]),
            3 => put(&mut self.durable, *offset + bytes.len(), &[]),
            _ => {
                let mut start = 0;
                while start < bytes.len() {
                    let end = bytes.len().min((*offset + start) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES - *offset);
                    if chance.below(2) == 0 {
                        put(&mut self.durable, *offset + start, &bytes[start..end]);
                    }
                    start = end;
                }
            }
        }
    }
}

/// Writes over what is there, with zeros up to `offset` where there is less.
fn put(bytes: &mut Vec<u8>, offset: usize, from: &[u8]) {
    if bytes.len() < offset + from.len() {
        bytes.resize(offset + from.len(), 0);
    }
    bytes[offset..offset + from.len()].copy_from_slice(from);
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    for (name, node) in &change.names {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

fn failed(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::other("simulated input/output error"),
        Fault::Full => io::ErrorKind::StorageFull.into(),
        Fault::Stop => io::Error::other("the simulated machine has stopped"),
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl Inner {
    /// Counts an operation, and says what is to happen to it.
    fn fault(&mut self) -> Result<Option<Fault>, io::Error> {
        if self.stopped {
            return Err(failed(Fault::Stop));
        }
        self.operations += 1;
        let due = self.fault.take_if(|(at, _)| *at == self.operations).map(|(_, fault)| fault);
        self.stopped = due == Some(Fault::Stop);
        Ok(due)
    }

    /// An operation that a fault keeps from happening at all.
    fn count(&mut self) -> io::Result<()> {
        self.fault()?.map_or(Ok(()), |fault| Err(failed(fault)))
    }

    fn change_names(&mut self, path: &Path, names: Vec<(PathBuf, Option<usize>)>) -> io::Result<()> {
        let fault = self.fault()?;
        if matches!(fault, None | Some(Fault::Stop)) {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            if !self.folders.contains(&folder) {
                return Err(missing(&folder));
            }
            let change = NameChange { folder, names };
            apply(&mut self.names, &change);
            self.renames.push(change);
        }
        fault.map_or(Ok(()), |fault| Err(failed(fault)))
    }

    fn node(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| missing(path))
    }
}

impl SimulatedDisk {
    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.with(|disk| disk.operations)
    }

    /// Lets one operation fail: the `nth` from now, counted from 1. What chance decides comes from
    /// `seed`.
    pub fn fail_at(&self, nth: u64, fault: Fault, seed: u64) {
        self.with(|disk| {
            disk.fault = Some((disk.operations + nth, fault));
            disk.chance = Chance(seed);
        });
    }

    /// The disk as it is found after a crash now. This one goes on as if nothing had happened, so
    /// that one moment can be crashed in many ways.
    #[must_use]
    pub fn crashed(&self, seed: u64) -> Self {
        self.with(|disk| {
            let mut chance = Chance(seed);
            let mut names = disk.names_durable.clone();
            let style = chance.below(3);
            for change in &disk.renames {
                if style == 1 || (style == 2 && chance.below(2) == 0) {
                    apply(&mut names, change);
                }
            }
            let mut nodes = disk.nodes.clone();
            for node in &mut nodes {
                node.apply_some(&mut chance);
                node.bytes.clone_from(&node.durable);
            }
            let folders = disk.folders.clone();
            let inner = Inner { folders, names_durable: names.clone(), names, nodes, chance, ..Inner::default() };
            Self { inner: Arc::new(Mutex::new(inner)) }
        })
    }

    /// The disk as the next process finds it after this one was killed and the machine went on:
    /// everything written is there, and nothing more is durable than was.
    #[must_use]
    pub fn killed(&self) -> Self {
        self.with(|disk| {
            let inner = Inner {
                folders: disk.folders.clone(),
                names: disk.names.clone(),
                names_durable: disk.names_durable.clone(),
                renames: disk.renames.clone(),
                nodes: disk.nodes.clone(),
                ..Inner::default()
            };
            Self { inner: Arc::new(Mutex::new(inner)) }
        })
    }

    /// Every file with its bytes, by path.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        self.with(|disk| {
            disk.names.iter().map(|(name, &node)| (name.clone(), disk.nodes[node].bytes.clone())).collect()
        })
    }

    /// Puts a file there, durably, in place of what had that name.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.with(|disk| {
            let node = Node { durable: bytes.clone(), bytes, writes: Vec::new() };
            disk.nodes.push(node);
            disk.names.insert(path.to_owned(), disk.nodes.len() - 1);
            disk.names_durable.insert(path.to_owned(), disk.nodes.len() - 1);
            disk.folders.extend(path.ancestors().skip(1).map(Path::to_owned));
        });
    }

    /// Turns one bit of a file over. Bits count from the first byte, the lowest of each byte first.
    ///
    /// # Errors
    /// Where there is no such file or no such bit.
    pub fn flip_bit(&self, path: &Path, bit: usize) -> io::Result<()> {
        self.with(|disk| {
            let node = disk.node(path)?;
            let node = &mut disk.nodes[node];
            let end = || io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter");
            *node.bytes.get_mut(bit / 8).ok_or_else(end)? ^= 1 << (bit % 8);
            if let Some(byte) = node.durable.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            Ok(())
        })
    }
}

impl Disk for SimulatedDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.with(|disk| {
            disk.count()?;
            disk.folders.extend(dir.ancestors().map(Path::to_owned));
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.with(|disk| {
            if disk.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let node = disk.nodes.len();
            disk.nodes.push(Node::default());
            disk.change_names(path, vec![(path.to_owned(), Some(node))])?;
            Ok(Box::new(SimulatedFile { disk: self.clone(), node }) as Box<dyn DiskFile>)
        })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.with(|disk| {
            disk.count()?;
            let node = disk.node(path)?;
            Ok(Box::new(SimulatedFile { disk: self.clone(), node }) as Box<dyn DiskFile>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|disk| {
            if from.parent() != to.parent() {
                return Err(io::Error::new(io::ErrorKind::CrossesDevices, "renames stay in one folder"));
            }
            let node = disk.node(from)?;
            disk.change_names(to, vec![(from.to_owned(), None), (to.to_owned(), Some(node))])
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|disk| {
            disk.node(path)?;
            disk.change_names(path, vec![(path.to_owned(), None)])
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with(|disk| {
            disk.count()?;
            if !disk.folders.contains(dir) {
                return Err(missing(dir));
            }
            let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
            Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(|disk| {
            disk.count()?;
            for change in disk.renames.extract_if(.., |change| change.folder == dir) {
                apply(&mut disk.names_durable, &change);
            }
            Ok(())
        })
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>> {
        self.with(|disk| {
            disk.count()?;
            if !disk.locks.insert(path.to_owned()) {
                return Ok(None);
            }
            Ok(Some(Box::new(SimulatedLock { disk: self.clone(), path: path.to_owned() }) as Box<dyn DiskLock>))
        })
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    node: usize,
}

impl DiskFile for SimulatedFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.with(|disk| {
            let fault = disk.fault()?;
            let written = match fault {
                Some(Fault::Io | Fault::Full) => disk.chance.below(bytes.len() + 1),
                Some(Fault::Stop) | None => bytes.len(),
            };
            let node = &mut disk.nodes[self.node];
            node.writes.push(Write::At(node.bytes.len(), bytes[..written].to_vec()));
            node.bytes.extend_from_slice(&bytes[..written]);
            fault.map_or(Ok(()), |fault| Err(failed(fault)))
        })
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.disk.with(|disk| {
            let fault = disk.fault()?;
            let node = &mut disk.nodes[self.node];
            match fault {
                None => {
                    for write in std::mem::take(&mut node.writes) {
                        node.apply(&write);
                    }
                }
                // What is lost stays readable until the next crash, as in a page cache.
                Some(Fault::Io | Fault::Full) => node.apply_some(&mut disk.chance),
                Some(Fault::Stop) => {}
            }
            fault.map_or(Ok(()), |fault| Err(failed(fault)))
        })
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.disk.with(|disk| {
            disk.count()?;
            let node = &mut disk.nodes[self.node];
            let len = usize::try_from(len).map_err(io::Error::other)?;
            node.bytes.resize(len, 0);
            node.writes.push(Write::Truncate(len));
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.with(|disk| {
            disk.count()?;
            Ok(disk.nodes[self.node].bytes.len() as u64)
        })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.disk.with(|disk| {
            disk.count()?;
            let bytes = &disk.nodes[self.node].bytes;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let read = into.len().min(bytes.len() - from);
            into[..read].copy_from_slice(&bytes[from..from + read]);
            Ok(read)
        })
    }
}

#[derive(Debug)]
struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl DiskLock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.with(|disk| disk.locks.remove(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with(path: &Path) -> (SimulatedDisk, Box<dyn DiskFile>) {
        let disk = SimulatedDisk::default();
        disk.create_dir_all(Path::new("/d")).expect("a folder");
        let file = disk.create(path).expect("a file");
        (disk, file)
    }

    #[test]
    fn synced_bytes_under_a_synced_name_survive_every_crash() {
        let path = Path::new("/d/a");
        let (disk, mut file) = disk_with(path);
        file.append(b"one").expect("writes");
        file.sync_data().expect("syncs");
        disk.sync_dir(Path::new("/d")).expect("syncs");
        file.append(b"two").expect("writes");
        for seed in 0..1_000 {
            let bytes = disk.crashed(seed).files()[path].clone();
            assert!(bytes.starts_with(b"one") && bytes.len() <= 6, "seed {seed}: {bytes:?}");
        }
    }

    #[test]
    fn unsynced_bytes_and_names_survive_in_every_combination() {
        let path = Path::new("/d/a");
        let (disk, mut file) = disk_with(path);
        file.append(&[7; 1_500]).expect("writes");
        let states: BTreeSet<_> = (0..2_000).map(|seed| disk.crashed(seed).files().get(path).cloned()).collect();
        assert!(states.contains(&None) && states.contains(&Some(vec![7; 1_500])) && states.contains(&Some(Vec::new())));
        assert!(states.iter().flatten().any(|bytes| bytes.len() == 1_500 && bytes[0] == 0 && bytes[600] == 7));
        assert!(states.len() > 100, "{} states", states.len());
    }

    #[test]
    fn failed_sync_loses_what_a_second_sync_does_not_bring_back() {
        let path = Path::new("/d/a");
        let lost = (0..100).filter(|&seed| {
            let (disk, mut file) = disk_with(path);
            disk.sync_dir(Path::new("/d")).expect("syncs");
            file.append(b"bytes").expect("writes");
            disk.fail_at(1, Fault::Io, seed);
            assert!(file.sync_data().is_err());
            assert!(file.sync_data().is_ok());
            disk.crashed(seed).files()[path] != b"bytes"
        });
        assert!(lost.count() > 20);
    }

    #[test]
    fn rename_is_seen_entirely_or_not_at_all() {
        let (disk, _file) = disk_with(Path::new("/d/a"));
        disk.sync_dir(Path::new("/d")).expect("syncs");
        disk.rename(Path::new("/d/a"), Path::new("/d/b")).expect("renames");
        for seed in 0..100 {
            assert_eq!(disk.crashed(seed).files().len(), 1);
        }
    }

    #[test]
    fn stopped_machine_answers_nothing_more() {
        let (disk, mut file) = disk_with(Path::new("/d/a"));
        disk.fail_at(2, Fault::Stop, 0);
        assert!(file.append(b"x").is_ok() && file.sync_data().is_err() && disk.list(Path::new("/d")).is_err());
        assert_eq!(disk.crashed(1).list(Path::new("/d")).map(|names| names.len() <= 1).ok(), Some(true));
    }

    #[test]
    fn lock_is_held_once_and_ends_with_its_owner() {
        let disk = SimulatedDisk::default();
        let held = disk.try_lock(Path::new("/l")).expect("locks");
        assert!(held.is_some() && disk.try_lock(Path::new("/l")).expect("asks").is_none());
        drop(held);
        assert!(disk.try_lock(Path::new("/l")).expect("locks").is_some());
    }
}
