//! Rows of an ordering buffer that wait on disk because there is no room for them in memory.
//!
//! Reads and writes block the task, as those of state on disk do.
//!
//! # Crash consistency
//! None: the rows are part of the cut as those in memory are. A new run removes what it finds.
//! So nothing is synced, and the checksum of each batch stays in memory: it also finds an old batch in the place of
//! another.
//!
//! # Files
//! `NODE.PORT.SHARE-NUMBER`, each a few MiB of batches ([`encode_batch`]). One that holds nothing any more is
//! removed; until then all of it counts against the bound.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmill_env::{Disk, DiskFile, kill_point, small_limits};
use wasmill_model::{Batch, Makers};
use wasmill_store::{StoreError, decode_batch, encode_batch};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes at which a file ends.
const FILE_BYTES: u64 = 4 << 20;
const SMALL_FILE_BYTES: u64 = 64 << 10;

/// The files of one buffer.
#[derive(Debug)]
pub(crate) struct Spill {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    name: String,
    bytes_max: u64,
    /// Bytes of all files.
    bytes: u64,
    files: HashMap<u64, File>,
    /// The number of the file that is written.
    last: u64,
    /// Batches by what the buffer calls them.
    batches: HashMap<u32, Place>,
    encoded: Vec<u8>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    bytes: u64,
    /// Batches in it that are needed.
    left: u64,
}

#[derive(Debug, Clone)]
struct Place {
    file: u64,
    offset: u64,
    length: usize,
    checksum: u64,
    arrived_nanos: u64,
    makers: Option<Makers>,
}

impl Spill {
    /// Files in a folder, which is made, whose names begin with `name`: nobody else has such.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, name: String, bytes_max: u64) -> Result<Self, StoreError> {
        disk.create_dir_all(dir).map_err(error("create", dir))?;
        let (files, batches, encoded) = (HashMap::new(), HashMap::new(), Vec::new());
        Ok(Self { disk, dir: dir.to_owned(), name, bytes_max, bytes: 0, files, last: 0, batches, encoded })
    }

    /// Whether so many bytes of batches may be written.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.bytes.saturating_add(bytes) <= self.bytes_max
    }

    /// Writes a batch.
    pub(crate) fn push(&mut self, slot: u32, batch: &Batch) -> Result<(), StoreError> {
        self.encoded.clear();
        encode_batch(batch, &mut self.encoded);
        let length = self.encoded.len();
        let file_bytes = if small_limits() { SMALL_FILE_BYTES } else { FILE_BYTES };
        if self.files.get(&self.last).is_none_or(|file| file.bytes >= file_bytes) {
            self.last += 1;
            let path = self.dir.join(format!("{}-{}", self.name, self.last));
            let file = self.disk.create(&path).map_err(error("create", &path))?;
            self.files.insert(self.last, File { path, file, bytes: 0, left: 0 });
        }
        let Some(file) = self.files.get_mut(&self.last) else { return Ok(()) };
        let offset = file.bytes;
        file.file.append(&self.encoded).map_err(error("write", &file.path))?;
        kill_point("spill-written");
        file.bytes += length as u64;
        file.left += 1;
        self.bytes += length as u64;
        let (file, checksum) = (self.last, xxh3_64(&self.encoded));
        let (arrived_nanos, makers) = (batch.arrived_nanos(), batch.makers().cloned());
        self.batches.insert(slot, Place { file, offset, length, checksum, arrived_nanos, makers });
        Ok(())
    }

    /// Reads a batch, which stays.
    pub(crate) fn read(&self, slot: u32) -> Result<Batch, StoreError> {
        let lost = || io::Error::new(io::ErrorKind::NotFound, "the batch is not there");
        let place = self.batches.get(&slot).ok_or_else(lost).map_err(error("read", &self.dir))?;
        let file = self.files.get(&place.file).ok_or_else(lost).map_err(error("read", &self.dir))?;
        let mut bytes = vec![0; place.length];
        let read = file.file.read_at(place.offset, &mut bytes).map_err(error("read", &file.path))?;
        let is_whole = read == bytes.len() && xxh3_64(&bytes) == place.checksum;
        let batch = if is_whole { decode_batch(&bytes, place.arrived_nanos) } else { None };
        let batch = batch.ok_or_else(|| StoreError::Corrupt {
            path: file.path.clone(),
            offset: place.offset,
            reason: "it does not hold the rows that were written there".to_owned(),
        })?;
        kill_point("spill-read");
        Ok(batch.with_makers(place.makers.clone()))
    }

    /// A batch is not needed any more.
    pub(crate) fn remove(&mut self, slot: u32) -> Result<(), StoreError> {
        let Some(place) = self.batches.remove(&slot) else { return Ok(()) };
        let Some(file) = self.files.get_mut(&place.file) else { return Ok(()) };
        file.left -= 1;
        if file.left == 0
            && let Some(file) = self.files.remove(&place.file)
        {
            self.bytes -= file.bytes;
            self.disk.remove(&file.path).map_err(error("remove", &file.path))?;
            kill_point("spill-removed");
        }
        Ok(())
    }
}

fn error(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { act, path, source }
}

#[cfg(test)]
mod tests {
    use wasmill_env::{Fault, SimulatedDisk};
    use wasmill_model::{BatchBuilder, ErrorKind, PluginDigest, Timestamp};

    use super::*;

    fn batch(time: i64, bytes: usize) -> Batch {
        let mut batch = BatchBuilder::default();
        batch.push(Timestamp(time), b"k", &vec![7; bytes]);
        batch.finish(9).with_maker(Some(PluginDigest([1; 32])))
    }

    fn open(disk: &SimulatedDisk, bytes_max: u64) -> Spill {
        Spill::open(Arc::new(disk.clone()), Path::new("/spill"), "n.0.0".to_owned(), bytes_max).expect("opens")
    }

    #[test]
    fn batches_come_back_in_any_order_and_their_files_go() {
        let disk = SimulatedDisk::default();
        let mut spill = open(&disk, 64 << 20);
        for slot in 0..10 {
            spill.push(slot, &batch(i64::from(slot), 1 << 20)).expect("written");
        }
        assert!(disk.files().len() > 1);
        for slot in [3, 9, 0, 1, 2, 8, 7, 6, 5, 4] {
            assert_eq!(spill.read(slot).expect("read"), batch(i64::from(slot), 1 << 20));
            spill.remove(slot).expect("removed");
            assert!(spill.read(slot).is_err());
        }
        assert!(disk.files().is_empty() && spill.bytes == 0);
    }

    #[test]
    fn files_count_whole_until_they_go() {
        let mut spill = open(&SimulatedDisk::default(), 5_000);
        spill.push(0, &batch(0, 1_000)).expect("written");
        spill.push(1, &batch(1, 3_000)).expect("written");
        assert!(spill.has_room(900) && !spill.has_room(1_000));
        spill.remove(1).expect("removed");
        assert!(!spill.has_room(1_000));
        spill.remove(0).expect("removed");
        assert!(spill.has_room(5_000) && !spill.has_room(5_001));
    }

    #[test]
    fn a_full_disk_and_damage_are_named() {
        let disk = SimulatedDisk::default();
        let mut spill = open(&disk, 1 << 20);
        spill.push(0, &batch(0, 100)).expect("written");
        disk.fail_at(1, Fault::Full, 1);
        let full = spill.push(1, &batch(1, 100)).expect_err("the disk is full");
        assert_eq!((full.kind(), full.to_string()), (ErrorKind::Full, "cannot write /spill/n.0.0-1".to_owned()));
    }

    #[test]
    fn no_bit_of_a_batch_changes_unseen() {
        let disk = SimulatedDisk::default();
        let path = Path::new("/spill/n.0.0-1");
        let mut spill = open(&disk, 1 << 20);
        spill.push(0, &batch(0, 10)).expect("written");
        let second = spill.bytes;
        spill.push(1, &batch(1, 10)).expect("written");
        for bit in second as usize * 8..spill.bytes as usize * 8 {
            disk.flip_bit(path, bit).expect("it is there");
            assert_eq!(spill.read(0).expect("the other one is whole"), batch(0, 10));
            let damage = spill.read(1).expect_err("it is damaged");
            assert_eq!(damage.kind(), ErrorKind::Corrupt);
            let text = damage.to_string();
            assert!(text.contains("/spill/n.0.0-1") && text.contains(&second.to_string()), "bit {bit}: {text}");
            disk.flip_bit(path, bit).expect("it is there");
        }
        assert_eq!(spill.read(1).expect("it is whole again"), batch(1, 10));
    }
}
