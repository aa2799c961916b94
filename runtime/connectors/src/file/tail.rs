use std::collections::{BTreeMap, VecDeque};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use wasmill_contract::{BatchLimit, ConnectorError};
use wasmill_env::Clock;
use wasmill_model::{ErrorKind, PartitionId};

use super::item::{FilePosition, Item, More, Read};
use super::listing::{Listed, Listing};
use super::read::{OpenFile, Reading};
use crate::error::io_error;

/// Files that are followed at once.
const FOLLOWED_FILES_MAX: usize = 512;
/// Bytes that are read ahead of the job, about: one batch may pass it.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// How often the names of files are looked at.
const SCAN: Duration = Duration::from_millis(500);

/// Reads what is appended to files, and files that appear.
///
/// # Invariants
/// A file is its inode, whatever its name. A file whose name is gone, or names another file, was
/// rotated: it is read to its end, and left once two scans in a row found nothing new in it; its
/// last line then needs no newline. A file that is shorter than what was read of it was truncated,
/// and is read again from its start.
///
/// Not noticed: a file that is truncated and grows past the old length between two looks.
pub(super) struct Tail {
    listing: Listing,
    reading: Reading,
    /// Files of the position that are not found yet.
    from: BTreeMap<u64, FilePosition>,
    starts: Vec<FilePosition>,
    files: VecDeque<Followed>,
    number_next: u64,
    scan_at_nanos: u64,
    warned: bool,
}

struct Followed {
    file: OpenFile,
    /// The last scan did not find it, and it had nothing new.
    lost: bool,
}

const PARTITION: PartitionId = PartitionId(0);

impl Tail {
    pub(super) fn new(listing: Listing, reading: Reading, from: BTreeMap<u64, FilePosition>) -> Self {
        Self {
            listing,
            reading,
            number_next: from.keys().last().map_or(0, |number| number + 1),
            starts: from.values().cloned().collect(),
            from,
            files: VecDeque::new(),
            scan_at_nanos: 0,
            warned: false,
        }
    }

    /// Looks which files there are.
    fn scan(&mut self, limit: BatchLimit, clock: &dyn Clock, items: &mut VecDeque<Item>) -> Result<(), ConnectorError> {
        let listed = self.listing.files(false)?;
        if listed.is_empty() && self.files.is_empty() && !self.warned {
            tracing::warn!(path = %self.listing, "no such file yet, waiting for it");
            self.warned = true;
        }
        let mut found: Vec<(Listed, Metadata)> = Vec::with_capacity(listed.len());
        for file in listed {
            // A rotated file that somebody compressed was read before.
            let compressed = super::input::compression_of(&file.path, self.reading.compression);
            if compressed != super::config::Compression::None {
                continue;
            }
            match file.path.metadata() {
                Ok(metadata) => found.push((file, metadata)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("read", &file.path, error)),
            }
        }
        self.resume(&found)?;
        for index in (0..self.files.len()).rev() {
            self.look_at(index, &found, limit, clock, items)?;
        }
        for (file, metadata) in found {
            let inode = (metadata.dev(), metadata.ino());
            if self.files.iter().all(|followed| followed.file.mark.inode != inode) {
                self.follow(&file)?;
            }
        }
        Ok(())
    }

    /// Finds the files of the position: by inode, under whatever name, else by name.
    fn resume(&mut self, found: &[(Listed, Metadata)]) -> Result<(), ConnectorError> {
        for (_, from) in std::mem::take(&mut self.from) {
            let inode = (from.device, from.inode);
            let same = |metadata: &Metadata| (metadata.dev(), metadata.ino()) == inode && metadata.len() >= from.offset;
            let by_inode = found.iter().find(|(_, metadata)| same(metadata)).map(|(file, _)| file.clone());
            let by_name = || found.iter().find(|(file, _)| file.name == from.file).map(|(file, _)| file.clone());
            let candidates = [by_inode, renamed(&self.listing.path_of(&from.file), &same), by_name()];
            let mut resumed = false;
            for file in candidates.into_iter().flatten() {
                match OpenFile::open(PARTITION, from.number, &file, Some(&from), &self.reading) {
                    Ok(open) => {
                        self.files.push_back(Followed { file: open, lost: false });
                        resumed = true;
                        break;
                    }
                    // Another file by now, or a shorter one.
                    Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Config) => {}
                    Err(error) => return Err(error),
                }
            }
            if !resumed {
                tracing::warn!(
                    file = from.file,
                    offset = from.offset,
                    "a followed file is gone; what it got since is lost"
                );
            }
        }
        Ok(())
    }

    /// Truncated, renamed, gone?
    fn look_at(
        &mut self,
        index: usize,
        found: &[(Listed, Metadata)],
        limit: BatchLimit,
        clock: &dyn Clock,
        items: &mut VecDeque<Item>,
    ) -> Result<(), ConnectorError> {
        let followed = &mut self.files[index];
        let file = &mut followed.file;
        let length = file.input.len().map_err(|error| io_error("read", &file.path, error))?;
        let name = found.iter().find(|(_, metadata)| (metadata.dev(), metadata.ino()) == file.mark.inode);
        if length < file.records.read_offset() {
            tracing::info!(file = %file.mark.name, "truncated, reading it again from its start");
            items.push_back(Item::Left(file.mark.clone()));
            self.files.remove(index);
            // It is opened again as a new file.
            return Ok(());
        }
        if let Some((listed, _)) = name {
            followed.lost = false;
            file.path.clone_from(&listed.path);
            if *file.mark.name != *listed.name {
                file.mark.name = listed.name.as_str().into();
            }
        } else if length == file.records.read_offset() {
            if !followed.lost {
                followed.lost = true;
                return Ok(());
            }
            while file.read(limit, true, clock, items)? {}
            items.push_back(Item::Left(file.mark.clone()));
            self.files.remove(index);
        }
        Ok(())
    }

    fn follow(&mut self, file: &Listed) -> Result<(), ConnectorError> {
        if self.files.len() == FOLLOWED_FILES_MAX {
            let message = format!("{} matches more than {FOLLOWED_FILES_MAX} files, too many to follow", self.listing);
            return Err(ConnectorError::new(ErrorKind::Config, message));
        }
        match OpenFile::open(PARTITION, self.number_next, file, None, &self.reading) {
            Ok(open) => {
                self.number_next += 1;
                self.files.push_back(Followed { file: open, lost: false });
                Ok(())
            }
            // Removed since it was listed.
            Err(_) if !file.path.exists() => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The file of `path` where it was renamed within its directory.
fn renamed(path: &Path, same: &dyn Fn(&Metadata) -> bool) -> Option<Listed> {
    for entry in path.parent()?.read_dir().ok()?.flatten() {
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
            && same(&metadata)
        {
            let path = entry.path();
            return Some(Listed { name: path.to_string_lossy().into_owned(), path, size: metadata.len() });
        }
    }
    None
}

impl Read for Tail {
    fn read(
        &mut self,
        limit: BatchLimit,
        clock: &dyn Clock,
        items: &mut VecDeque<Item>,
    ) -> Result<More, ConnectorError> {
        let now = clock.monotonic_nanos();
        if now >= self.scan_at_nanos {
            self.scan(limit, clock, items)?;
            self.scan_at_nanos = now.saturating_add(SCAN.as_nanos() as u64);
        }
        let mut bytes = 0;
        let mut dry = 0;
        while dry < self.files.len() && bytes < READ_AHEAD_BYTES {
            self.files.rotate_left(1);
            let Some(Followed { file, .. }) = self.files.back_mut() else { break };
            let fail = |error| io_error("read", &file.path, error);
            if file.input.len().map_err(fail)? <= file.records.read_offset() && !file.behind {
                file.records.rest();
                dry += 1;
                continue;
            }
            file.input.refresh_head().map_err(fail)?;
            file.mark.head = file.input.head;
            let before = items.len();
            file.behind = file.read(limit, false, clock, items)?;
            dry = if file.behind { 0 } else { dry + 1 };
            bytes += items.range(before..).map(Item::byte_len).sum::<usize>();
        }
        Ok(if bytes == 0 && items.is_empty() { More::Later } else { More::Now })
    }

    fn starts(&self) -> Vec<(PartitionId, Vec<FilePosition>)> {
        vec![(PARTITION, self.starts.clone())]
    }
}
