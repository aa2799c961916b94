//! Compiled plugins on disk. An artifact is native code that runs unchecked, so none is used
//! unless this host's own key vouches for it.
//!
//! ```text
//! <cache_dir>/compiled/            mode 0700, owned by us
//!   mac.key                        32 random bytes, mode 0600
//!   <sha256>-<compatibility>.cwasm artifact ‖ BLAKE3-MAC(key, name ‖ artifact)
//! ```
//!
//! # Crash consistency
//! Files appear whole, by rename. Nothing is synced: a file torn by a crash of the machine fails
//! its check and is compiled anew.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use wasmill_model::PluginDigest;

use crate::PluginError;

const MAC_BYTES: usize = blake3::OUT_LEN;

#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
    key: [u8; 32],
    bytes_max: u64,
    compatibility: String,
}

/// What the cache has of a plugin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cached {
    /// A file that this host, or one with the same key, made.
    Artifact(PathBuf),
    Missing,
    /// A file that nobody with the key made, or that has changed since.
    Tampered(PathBuf),
}

impl Cache {
    pub(crate) fn open(cache_dir: &Path, bytes_max: u64, compatibility: String) -> Result<Self, PluginError> {
        let dir = cache_dir.join("compiled");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|error| unusable(&dir, format!("cannot make it: {error}")))?;
        let meta = std::fs::symlink_metadata(&dir).map_err(|error| unusable(&dir, error.to_string()))?;
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            let reason = "it must be a directory that only you may enter: remove it, or `chmod 700` it";
            return Err(unusable(&dir, reason.into()));
        }
        let key = key(&dir)?;
        Ok(Self { dir, key, bytes_max, compatibility })
    }

    fn name(&self, digest: PluginDigest) -> String {
        format!("{}-{}.cwasm", hex::encode(digest.0), self.compatibility)
    }

    fn hasher(&self, name: &str) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(name.as_bytes());
        hasher
    }

    pub(crate) fn find(&self, digest: PluginDigest) -> Result<Cached, PluginError> {
        let name = self.name(digest);
        let path = self.dir.join(&name);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Cached::Missing),
            Err(error) => return Err(unusable(&path, error.to_string())),
        };
        let vouched = (|| -> std::io::Result<bool> {
            let Some(length) = file.metadata()?.len().checked_sub(MAC_BYTES as u64) else { return Ok(false) };
            let mut hasher = self.hasher(&name);
            hasher.update_reader((&mut file).take(length))?;
            let mut mac = [0; MAC_BYTES];
            file.seek(SeekFrom::Start(length))?;
            file.read_exact(&mut mac)?;
            // `blake3::Hash` compares in constant time.
            Ok(hasher.finalize() == blake3::Hash::from_bytes(mac))
        })()
        .map_err(|error| unusable(&path, error.to_string()))?;
        Ok(if vouched { Cached::Artifact(path) } else { Cached::Tampered(path) })
    }

    /// Keeps an artifact, in the place of whatever was there.
    pub(crate) fn keep(&self, digest: PluginDigest, artifact: &[u8]) -> Result<PathBuf, PluginError> {
        let name = self.name(digest);
        let path = self.dir.join(&name);
        let mac = self.hasher(&name).update(artifact).finalize();
        self.make_room(artifact.len() as u64);
        self.place(&path, &[artifact, mac.as_bytes()]).map_err(|error| unusable(&path, error.to_string()))?;
        Ok(path)
    }

    fn place(&self, path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
        let whole = unfinished(&self.dir);
        let written = (|| {
            let mut file = private(&whole, true)?;
            parts.iter().try_for_each(|part| file.write_all(part))?;
            std::fs::rename(&whole, path)
        })();
        if written.is_err() {
            // The error that counts is the first one.
            drop(std::fs::remove_file(&whole));
        }
        written
    }

    /// Removes the oldest artifacts until `bytes` more fit. Best effort: a cache that is too large
    /// is no reason not to run a plugin.
    fn make_room(&self, bytes: u64) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return };
        let mut files: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cwasm"))
            .filter_map(|entry| entry.metadata().ok().map(|meta| (meta.mtime(), meta.len(), entry.path())))
            .collect();
        let mut total = files.iter().map(|(_, length, _)| length).sum::<u64>().saturating_add(bytes);
        files.sort();
        for (_, length, path) in files {
            if total <= self.bytes_max {
                return;
            }
            if std::fs::remove_file(&path).is_ok() {
                tracing::debug!(path = %path.display(), "removed a compiled plugin to make room");
                total -= length;
            }
        }
    }
}

/// The key, made by whoever comes first. A key of the wrong length or that others may read is
/// replaced: every artifact under it is then compiled anew.
fn key(dir: &Path) -> Result<[u8; 32], PluginError> {
    let path = dir.join("mac.key");
    for _ in 0..3 {
        match private(&path, false) {
            Ok(mut file) => {
                let mut key = Vec::new();
                let read = file.metadata().and_then(|meta| {
                    (&mut file).take(64).read_to_end(&mut key)?;
                    Ok(meta.mode() & 0o077 == 0)
                });
                let private = read.map_err(|error| unusable(&path, error.to_string()))?;
                if let (true, Ok(key)) = (private, <[u8; 32]>::try_from(key.as_slice())) {
                    return Ok(key);
                }
                tracing::warn!(path = %path.display(), "the key of compiled plugins is broken; making a new one");
                std::fs::remove_file(&path).map_err(|error| unusable(&path, error.to_string()))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_key(dir, &path).map_err(|error| unusable(&path, error.to_string()))?;
            }
            Err(error) => return Err(unusable(&path, error.to_string())),
        }
    }
    Err(unusable(&path, "it changes while it is read".into()))
}

/// Puts a new key at `path`, unless another process was faster.
fn make_key(dir: &Path, path: &Path) -> std::io::Result<()> {
    let mut key = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let whole = unfinished(dir);
    let mut file = private(&whole, true)?;
    file.write_all(&key)?;
    file.sync_all()?;
    // A link fails where the name exists, so two processes end with one key.
    let linked = std::fs::hard_link(&whole, path);
    std::fs::remove_file(&whole)?;
    match linked {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// A name that no other file in the making has, here or in another process.
fn unfinished(dir: &Path) -> PathBuf {
    static MADE: AtomicU64 = AtomicU64::new(0);
    dir.join(format!(".{}-{}.tmp", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)))
}

fn private(path: &Path, create: bool) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    if create {
        options.write(true).create(true).truncate(true)
    } else {
        options.read(true)
    };
    options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

fn unusable(path: &Path, reason: String) -> PluginError {
    PluginError::Cache { path: path.to_owned(), reason }
}
