use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wasmill_contract::ConnectorError;
use wasmill_model::{ErrorKind, PartitionId};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::io_error;

/// A file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its name as people and positions have it: relative to the job file where it lies below.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Its bytes on disk.
    pub(super) size: u64,
}

/// Which files a `path` option names.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    base: PathBuf,
    path: String,
    pattern: bool,
}

impl Listing {
    /// # Errors
    /// Where the pattern is none.
    pub(super) fn new(base: &Path, path: &str) -> Result<Self, glob::PatternError> {
        let pattern = path.contains(['*', '?', '[']) && !base.join(path).exists();
        if pattern {
            glob::Pattern::new(path)?;
        }
        Ok(Self { base: base.to_owned(), path: path.to_owned(), pattern })
    }

    /// Whether more than one file may match.
    pub(super) fn is_pattern(&self) -> bool {
        self.pattern
    }

    /// The path of a file by the name it was listed under.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    /// The files that exist now, by name. Directories and other things that are no files are left
    /// out of a pattern.
    ///
    /// # Errors
    /// Where a file is missing or unreadable, or nothing matches and `required`.
    pub(super) fn files(&self, required: bool) -> Result<Vec<Listed>, ConnectorError> {
        if !self.pattern {
            let path = self.base.join(&self.path);
            return match path.metadata() {
                Ok(metadata) => Ok(vec![Listed { name: self.path.clone(), path, size: metadata.len() }]),
                Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(io_error("open", &path, error)),
            };
        }
        let whole = if Path::new(&self.path).is_absolute() {
            self.path.clone()
        } else {
            format!("{}/{}", glob::Pattern::escape(&self.base.to_string_lossy()), self.path)
        };
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        let found = glob::glob_with(&whole, options)
            .map_err(|error| ConnectorError::new(ErrorKind::Config, format!("pattern {whole:?}: {error}")))?;
        let mut files = Vec::new();
        for path in found {
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                io_error("list", &path, error.into())
            })?;
            // A file that went away since it was listed is no match any more.
            let Ok(metadata) = path.metadata() else { continue };
            if metadata.is_file() {
                let name = path.strip_prefix(&self.base).unwrap_or(&path).to_string_lossy().into_owned();
                files.push(Listed { name, path, size: metadata.len() });
            }
        }
        if files.is_empty() && required {
            return Err(ConnectorError::new(ErrorKind::Config, format!("no file matches {whole}")));
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }
}

/// Numbers files so that a number outlives restarts and new files: by a hash of the name. The one
/// file of a plain path has number 0.
pub(super) fn numbered(files: Vec<Listed>, pattern: bool) -> BTreeMap<PartitionId, Listed> {
    let mut numbered = BTreeMap::new();
    for file in files {
        let mut id = if pattern { (xxh3_64(file.name.as_bytes()) >> 32) as u32 } else { 0 };
        // Two names of one hash: the second by name takes the next number. A position names its
        // file, so a new third one in between is noticed.
        while numbered.contains_key(&PartitionId(id)) {
            id = id.wrapping_add(1);
        }
        numbered.insert(PartitionId(id), file);
    }
    numbered
}

impl std::fmt::Display for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)
    }
}
