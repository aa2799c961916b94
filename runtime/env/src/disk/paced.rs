use std::io;

use super::DiskFile;

/// So much is made durable at a time: whoever else makes a little durable on the same disk waits for no more.
const SYNCED_BYTES: usize = 512 << 10;

/// A file that is written at length and made durable as it grows, so that nobody waits long for the disk at its end.
#[derive(Debug)]
pub struct PacedFile {
    file: Box<dyn DiskFile>,
    unsynced: usize,
}

impl PacedFile {
    /// A file of which nothing waits to be made durable.
    #[must_use]
    pub fn new(file: Box<dyn DiskFile>) -> Self {
        Self { file, unsynced: 0 }
    }
}

impl DiskFile for PacedFile {
    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some((piece, rest)) = bytes.split_at_checked(SYNCED_BYTES - self.unsynced) {
            self.file.append(piece)?;
            self.sync_data()?;
            bytes = rest;
        }
        self.unsynced += bytes.len();
        self.file.append(bytes)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Disk, SimulatedDisk};

    #[test]
    fn never_more_than_a_piece_waits_to_be_made_durable() {
        let disk = SimulatedDisk::default();
        disk.create_dir_all(Path::new("/d")).expect("made");
        let path = Path::new("/d/a");
        let mut file = PacedFile::new(disk.create(path).expect("made"));
        disk.sync_dir(Path::new("/d")).expect("synced");
        let mut written = Vec::new();
        for (place, length) in
            [1, SYNCED_BYTES - 1, 7, 3 * SYNCED_BYTES, 0, 2 * SYNCED_BYTES - 8, 1].into_iter().enumerate()
        {
            let bytes = vec![place as u8 + 1; length];
            file.append(&bytes).expect("written");
            written.extend(bytes);
            let durable = written.len() / SYNCED_BYTES * SYNCED_BYTES;
            for seed in 0..20 {
                let found = disk.crashed(seed).files().remove(path).expect("its name is durable");
                assert!(found.starts_with(&written[..durable]), "after {} bytes, seed {seed}", written.len());
            }
        }
        file.sync_data().expect("synced");
        assert!(disk.crashed(0).files()[path] == written);
    }
}
