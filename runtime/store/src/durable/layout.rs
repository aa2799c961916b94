//! The files of a store, and what their names say.

use std::path::{Path, PathBuf};

use wasmill_env::{Disk, DiskLock};

use super::{StoreError, base};

const LOCK: &str = "lock";
const RESTORED: &str = "restored";

/// Takes a store for this process.
pub(super) fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DiskLock>, StoreError> {
    let path = dir.join(LOCK);
    let lock = disk.try_lock(&path).map_err(StoreError::io("lock", &path))?;
    lock.ok_or_else(|| StoreError::InUse { path: dir.to_owned(), holder: holder(disk, &path) })
}

/// The process that has the lock, where it says so.
fn holder(disk: &dyn Disk, path: &Path) -> Option<u32> {
    let mut digits = [0; 16];
    let read = disk.open(path).ok()?.read_at(0, &mut digits).ok()?;
    std::str::from_utf8(digits.get(..read)?).ok()?.trim().parse().ok()
}

/// When the store was made of a savepoint, in microseconds since the Unix epoch. `None` where it was not.
pub(super) fn restored_at(disk: &dyn Disk, dir: &Path) -> Result<Option<u64>, StoreError> {
    let path = dir.join(RESTORED);
    let mut digits = [0; 24];
    let read = match disk.open(&path).and_then(|file| file.read_at(0, &mut digits)) {
        Ok(read) => read,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    };
    let text = digits.get(..read).and_then(|digits| std::str::from_utf8(digits).ok());
    let micros = text.and_then(|text| text.trim().parse().ok());
    micros.map(Some).ok_or_else(|| StoreError::corrupt(&path, 0, "a number of microseconds was expected".to_owned()))
}

/// Says that the store is made of a savepoint, before it is one: durable when this returns.
pub(super) fn mark_restored(disk: &dyn Disk, dir: &Path, micros: u64) -> Result<(), StoreError> {
    let path = dir.join(RESTORED);
    let mut file = base::create_partial(disk, &path)?;
    file.append(format!("{micros}\n").as_bytes()).map_err(StoreError::io("write", &path))?;
    base::complete(disk, &path, &mut *file)
}

/// The files of a store, without those that newer ones replace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The sequence number up to which the base holds everything.
    pub(super) base: Option<u64>,
    /// The first and last sequence number of each layer, rising without a gap from behind the base.
    pub(super) layers: Vec<(u64, u64)>,
    /// The sequence numbers at which segments of the log begin, rising. The first begins at or
    /// before what follows base and layers.
    pub(super) segments: Vec<u64>,
    /// Files that nothing needs.
    pub(super) garbage: Vec<PathBuf>,
}

pub(super) fn base_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("base-{sequence:016x}"))
}

pub(super) fn layer_path(dir: &Path, (from, to): (u64, u64)) -> PathBuf {
    dir.join(format!("layer-{from:016x}-{to:016x}"))
}

pub(super) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("log-{sequence:016x}"))
}

pub(super) fn run_path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("run-{number}"))
}

/// The number in a name that this module gave.
fn number(name: &str, front: &str) -> Option<u64> {
    hexadecimal(name.strip_prefix(front)?)
}

fn hexadecimal(digits: &str) -> Option<u64> {
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

impl Layout {
    /// The last sequence number that sorted files hold.
    pub(super) fn folded(&self) -> u64 {
        self.layers.last().map(|(_, to)| *to).or(self.base).unwrap_or(0)
    }

    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let mut layout = Self::default();
        let (mut bases, mut layers) = (Vec::new(), Vec::new());
        for name in disk.list(dir).map_err(StoreError::io("list", dir))? {
            if let Some(sequence) = number(&name, "log-") {
                layout.segments.push(sequence);
            } else if let Some(sequence) = number(&name, "base-") {
                bases.push(sequence);
            } else if let Some((from, to)) = name.strip_prefix("layer-").and_then(|name| name.split_once('-'))
                && let (Some(from), Some(to)) = (hexadecimal(from), hexadecimal(to))
            {
                layers.push((from, to));
            } else if name.ends_with(".partial") || name.starts_with("run-") {
                layout.garbage.push(dir.join(name));
            }
        }
        layout.segments.sort_unstable();
        bases.sort_unstable();
        layout.base = bases.pop();
        layout.garbage.extend(bases.into_iter().map(|sequence| base_path(dir, sequence)));
        let mut next = layout.base.unwrap_or(0) + 1;
        // Of layers that begin at the same place the longest has replaced the others.
        layers.sort_unstable_by_key(|&(from, to)| (from, std::cmp::Reverse(to)));
        for layer in layers {
            if layer.0 == next && layer.1 >= next {
                layout.layers.push(layer);
                next = layer.1 + 1;
            } else {
                layout.garbage.push(layer_path(dir, layer));
            }
        }
        // Numbers rise, so the last segment that begins early enough holds what comes next.
        let first = layout.segments.iter().rposition(|&start| start <= next).unwrap_or(0);
        layout.garbage.extend(layout.segments.drain(..first).map(|sequence| segment_path(dir, sequence)));
        Ok(layout)
    }
}
