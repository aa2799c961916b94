//! Rules over files.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::Target;

use crate::workspace::{hold, members, root};

/// Longer than this is more than one idea.
const LINES_MAX: usize = 900;
/// A sentence: what the crate is for and where it sits.
const CRATE_DOC_BYTES_MIN: usize = 80;

/// Files under `folder` that are kept in the repository.
pub(crate) fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("lists").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[test]
fn every_crate_says_what_it_is_for() {
    let mut offences = Vec::new();
    for package in members("Cargo.toml").expect("the host's workspace") {
        let roots = |target: &&Target| ["src/lib.rs", "src/main.rs"].iter().any(|root| target.src_path.ends_with(root));
        for target in package.targets.iter().filter(roots) {
            let text = fs::read_to_string(&target.src_path).expect("reads");
            let docs: usize = text.lines().take_while(|line| line.starts_with("//!")).map(str::len).sum();
            if docs < CRATE_DOC_BYTES_MIN {
                offences.push(format!("{}: {docs} bytes of //!", shown(target.src_path.as_std_path())));
            }
        }
    }
    hold("the root of a crate starts with a //! that says what it is for and where it sits", &offences);
}

#[test]
fn files_can_be_read_in_a_sitting() {
    let mut sources = Vec::new();
    files(&root().join("runtime"), &mut sources);
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut offences = Vec::new();
    for path in sources {
        let lines = fs::read_to_string(&path).expect("reads").lines().count();
        if lines > LINES_MAX {
            offences.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    hold(&format!("no file of runtime/ has more than {LINES_MAX} lines"), &offences);
}

#[test]
fn every_copy_of_the_interface_is_the_same() {
    let wit = fs::read(root().join("wit/operator.wit")).expect("the interface");
    let mut copies = Vec::new();
    for folder in ["plugin-sdk", "plugins", "runtime", "examples", "tests"] {
        files(&root().join(folder), &mut copies);
    }
    copies.retain(|path| path.file_name().is_some_and(|name| name == "operator.wit"));
    let different = copies.iter().filter(|copy| fs::read(copy).expect("reads") != wit);
    let offences: Vec<_> = different.map(|copy| shown(copy)).collect();
    hold("copies differ from wit/operator.wit", &offences);
}
