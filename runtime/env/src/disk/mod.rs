//! The disk as a part: what durable formats need of a file system, and no more.
//!
//! # Crash consistency
//! What a caller may count on after a crash, on every implementation:
//! - bytes of a file once [`DiskFile::sync_data`] has returned;
//! - the name of a file (made, renamed, removed) once [`Disk::sync_dir`] of its folder has
//!   returned; a rename is seen entirely or not at all.
//!
//! Everything else may be there or not, in any combination, and bytes not synced may be torn.
//! After a failed sync nobody knows what is there, and syncing again does not tell: the operating
//! system may have dropped the pages. Whoever gets an error here reopens and recovers.

mod paced;
mod real;
mod simulated;

use std::fmt;
use std::io;
use std::path::Path;

pub use paced::PacedFile;
pub use real::RealDisk;
pub use simulated::{Fault, SimulatedDisk};

/// Whether an error says that there is no room: on the disk, for this user, or in a file.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Files and folders.
///
/// # Errors
/// Every method returns what the operating system says.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Makes a folder and those above it, durably. One that exists is no error.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes a file that does not exist yet, to append to and to read.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that exists, to append to and to read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in the same folder, in place of what had that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files in a folder, in byte order. Names that are not Unicode are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes a lock that ends when it is dropped or the process ends; `None` where somebody else
    /// holds it. The file stays, and may hold the number of the process in decimal digits.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskLock>>>;
}

/// One open file.
///
/// # Errors
/// Every method returns what the operating system says.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Writes all of `bytes` at the end. After an error some of them may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes every byte written so far durable.
    fn sync_data(&mut self) -> io::Result<()>;

    /// Cuts the file.
    fn truncate(&mut self, len: u64) -> io::Result<()>;

    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads from `offset`; less than asked for only at the end of the file.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

/// Holds a lock for as long as it lives.
pub trait DiskLock: fmt::Debug + Send + Sync {}
