//! Whether a project has to be built again: a hash of all that its component is made of, kept beside what
//! the build before has left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::adapter;
use crate::component::write_if_changed;
use crate::error::Error;
use crate::languages::CLANG_VARIABLE;
use crate::project::Project;

const FILE: &str = "stamp";
/// Folders that no component is made of: what builds and tests leave.
const PASSED_OVER: [&str; 4] = ["target", "node_modules", "cases", "__pycache__"];

pub(crate) struct Stamp {
    path: PathBuf,
    inputs: String,
}

impl Stamp {
    /// Of a project as it stands, for this build of the toolchain.
    pub(crate) fn of(project: &Project) -> Result<Self, Error> {
        let mut hash = Sha256::new();
        for folder in [&project.dir, &project.own_sdk()] {
            add(folder, &mut hash).map_err(|source| Error::File { act: "read", path: folder.clone(), source })?;
        }
        hash.update(adapter::WIT);
        hash.update(std::env::var_os(CLANG_VARIABLE).unwrap_or_default().as_encoded_bytes());
        let program = std::env::current_exe().and_then(fs::metadata);
        if let Some(since) = program.ok().and_then(|data| data.modified().ok()?.duration_since(UNIX_EPOCH).ok()) {
            hash.update(since.as_nanos().to_le_bytes());
        }
        Ok(Self { path: project.work().join(FILE), inputs: text(hash) })
    }

    /// The bytes of the component that was made of the same, where it is still what was made.
    pub(crate) fn unchanged(&self, component: &Path) -> Option<u64> {
        // What is not there, or not ours, means the same as a change: build.
        let kept = fs::read_to_string(&self.path).ok()?;
        let bytes = fs::read(component).ok()?;
        (kept == self.line(&bytes)).then_some(bytes.len() as u64)
    }

    /// Remembers what was made.
    pub(crate) fn keep(&self, component: &[u8]) -> Result<(), Error> {
        write_if_changed(&self.path, self.line(component).as_bytes()).map(drop)
    }

    fn line(&self, component: &[u8]) -> String {
        format!("{} {}\n", self.inputs, text(Sha256::new_with_prefix(component)))
    }
}

fn text(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Names and bytes of the files of a folder.
fn add(folder: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        let shown = name.to_string_lossy();
        if shown.starts_with('.') || PASSED_OVER.contains(&&*shown) {
            continue;
        }
        hash.update(name.as_encoded_bytes());
        hash.update([0]);
        if path.is_dir() {
            add(&path, hash)?;
            hash.update([1]);
        } else {
            let bytes = fs::read(&path)?;
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_source_sdk_or_component_is_one_and_a_case_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            fs::create_dir_all(at(name).parent().expect("a folder")).expect("made");
            fs::write(at(name), text).expect("written");
        };
        let manifest = "name = \"a\"\nversion = \"1\"\nlanguage = \"python\"\nworld = \"stateful\"";
        for (name, text) in [("plugin.toml", manifest), ("main.py", "1"), ("sdk/python/wasmill/a.py", "1")] {
            write(name, text);
        }
        let project = Project::read(folder.path()).expect("a project");
        fs::create_dir_all(project.work()).expect("made");
        // The component of this test lies where nothing of the project does.
        let out = tempfile::tempdir().expect("a folder");
        let component = out.path().join("a.wasm");
        fs::write(&component, "component").expect("written");
        let unchanged = || Stamp::of(&project).expect("reads").unchanged(&component);
        assert_eq!(unchanged(), None);
        Stamp::of(&project).expect("reads").keep(b"component").expect("kept");
        assert_eq!(unchanged(), Some(9));
        write("cases/one/input.jsonl", "{}");
        write("target/x", "1");
        assert_eq!(unchanged(), Some(9));
        for (name, before) in [("main.py", "1"), ("sdk/python/wasmill/a.py", "1")] {
            write(name, "2");
            assert_eq!(unchanged(), None, "{name}");
            write(name, before);
        }
        assert_eq!(unchanged(), Some(9));
        fs::write(&component, "another").expect("written");
        assert_eq!(unchanged(), None);
    }
}
