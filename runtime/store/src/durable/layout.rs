//! The files of a store, and what their names say.

use std::path::{Path, PathBuf};

use wasmill_env::Disk;

use super::StoreError;

pub(super) const LOCK: &str = "lock";

/// The files of a store, without those that newer ones replace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The sequence number up to which the base holds everything.
    pub(super) base: Option<u64>,
    /// The sequence numbers at which segments of the log begin, rising. The first begins at or
    /// before what follows the base.
    pub(super) segments: Vec<u64>,
    /// Files that nothing needs.
    pub(super) garbage: Vec<PathBuf>,
}

pub(super) fn base_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("base-{sequence:016x}"))
}

pub(super) fn segment_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("log-{sequence:016x}"))
}

pub(super) fn run_path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("run-{number}"))
}

/// The number in a name that this module gave.
fn number(name: &str, front: &str) -> Option<u64> {
    let digits = name.strip_prefix(front)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

impl Layout {
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, StoreError> {
        let mut layout = Self::default();
        let mut bases = Vec::new();
        for name in disk.list(dir).map_err(StoreError::io("list", dir))? {
            if let Some(sequence) = number(&name, "log-") {
                layout.segments.push(sequence);
            } else if let Some(sequence) = number(&name, "base-") {
                bases.push(sequence);
            } else if name.ends_with(".partial") || name.starts_with("run-") {
                layout.garbage.push(dir.join(name));
            }
        }
        layout.segments.sort_unstable();
        bases.sort_unstable();
        layout.base = bases.pop();
        layout.garbage.extend(bases.into_iter().map(|sequence| base_path(dir, sequence)));
        let next = layout.base.unwrap_or(0) + 1;
        // Numbers rise, so the last segment that begins early enough holds what comes next.
        let first = layout.segments.iter().rposition(|&start| start <= next).unwrap_or(0);
        layout.garbage.extend(layout.segments.drain(..first).map(|sequence| segment_path(dir, sequence)));
        Ok(layout)
    }
}
