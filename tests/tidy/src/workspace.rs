use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The workspaces of the repository: the host's, and the guests' one.
pub(crate) const WORKSPACES: [&str; 2] = ["Cargo.toml", "plugins/Cargo.toml"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository")
}

/// Members of a workspace, without what they depend on. `None`: there is no such workspace.
pub(crate) fn members(manifest: &str) -> Option<Vec<Package>> {
    let manifest = root().join(manifest);
    manifest.is_file().then(|| metadata(MetadataCommand::new().manifest_path(manifest).no_deps()).packages)
}

/// All packages that are compiled on the platform of the tests, members included.
pub(crate) fn packages(manifest: &str) -> Option<Vec<Package>> {
    let manifest = root().join(manifest);
    let platform = ["--filter-platform".to_owned(), "x86_64-unknown-linux-gnu".to_owned()];
    manifest
        .is_file()
        .then(|| metadata(MetadataCommand::new().manifest_path(manifest).other_options(platform)).packages)
}

fn metadata(command: &mut MetadataCommand) -> Metadata {
    command.exec().expect("cargo reads the workspace")
}

/// Fails with every offence.
pub(crate) fn hold(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}
