//! Remembers the rung that held, so that a refused `rustup` is not asked at every build.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::component::write_if_changed;
use crate::error::Error;
use crate::ladder::{Choice, Rung};
use crate::probe::Probed;

const FILE: &str = "wasmill-toolchain.json";

/// The default compiler, told apart from any other it may become.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    rustc: PathBuf,
    modified_nanos: u64,
    verbose: String,
    forced: Option<Rung>,
}

impl Key {
    pub(crate) fn of(default: &Probed, forced: Option<Rung>) -> Option<Self> {
        let rustc = default.compiler.rustc.clone();
        let modified = fs::metadata(&rustc).and_then(|data| data.modified()).ok()?;
        let modified_nanos = u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()?;
        Some(Self { rustc, modified_nanos, verbose: default.verbose.clone(), forced })
    }
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: Key,
    choice: Choice,
}

/// The choice made for `key`, if all it names is still there.
pub(crate) fn load(target: &Path, key: &Key) -> Option<Choice> {
    // Unreadable and foreign content mean the same as none: look again.
    let entry: Entry = serde_json::from_slice(&fs::read(target.join(FILE)).ok()?).ok()?;
    let choice = entry.choice;
    let there = choice.rustc.is_file() && choice.build_std.as_ref().is_none_or(|linker| linker.is_file());
    (entry.key == *key && there).then_some(choice)
}

pub(crate) fn store(target: &Path, key: Key, choice: &Choice) -> Result<(), Error> {
    let path = target.join(FILE);
    let bytes = serde_json::to_vec_pretty(&Entry { key, choice: choice.clone() }).map_err(|source| Error::File {
        act: "write",
        path: path.clone(),
        source: source.into(),
    })?;
    write_if_changed(&path, &bytes).map(drop)
}
