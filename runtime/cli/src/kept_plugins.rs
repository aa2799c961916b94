//! Plugins that a running job was given, by digest, in its state directory: an epoch names the one it
//! was made with, and a job that goes on from there needs it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use wasmill_control::service::blob;
use wasmill_env::kill_point;

const FOLDER: &str = "plugins";
/// Behind the name of a file that is not whole yet.
const PARTIAL: &str = ".part";

fn path(state: &Path, digest: &str) -> PathBuf {
    blob(&state.join(FOLDER), &digest)
}

/// Keeps a plugin. It is durable when this returns.
pub(crate) fn keep(state: &Path, digest: &str, bytes: &[u8]) -> io::Result<()> {
    let path = path(state, digest);
    let folder = state.join(FOLDER);
    fs::create_dir_all(&folder)?;
    if !path.exists() {
        let partial = path.with_extension(format!("wasm{PARTIAL}"));
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
    }
    // Also where the file is there: a crash may have come before this.
    File::open(&folder)?.sync_all()?;
    File::open(state)?.sync_all()?;
    kill_point("swap-kept");
    Ok(())
}

/// The bytes of a plugin that was kept. Its digest tells whether they are the ones.
pub(crate) fn read(state: &Path, digest: &str) -> io::Result<Vec<u8>> {
    fs::read(path(state, digest))
}

/// Removes those that no stage runs with. What cannot be removed stays.
pub(crate) fn retain<'a>(state: &Path, digests: impl IntoIterator<Item = &'a str>) {
    let wanted: BTreeSet<PathBuf> = digests.into_iter().map(|digest| path(state, digest)).collect();
    let Ok(folder) = fs::read_dir(state.join(FOLDER)) else { return };
    for entry in folder.flatten().filter(|entry| !wanted.contains(&entry.path())) {
        let _stays = fs::remove_file(entry.path());
    }
}
