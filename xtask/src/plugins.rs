//! `cargo xtask plugins`: components of the guest workspace, each where it is looked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cargo_metadata::{CrateType, MetadataCommand, Package};
use wasmill_toolchain::{BuildOptions, Search, build_rust, write_if_changed};

use crate::root;
use crate::steps::say;

/// Embedded in the binary as `std:NAME`.
const STANDARD: &str = "target/plugins";
/// Operators of tests and benchmarks.
pub(crate) const GUESTS: &str = "target/guests";
/// Where components are made, before they go to their places.
const STAGING: &str = "target/components";

/// Builds what has changed.
pub(crate) fn plugins(offline: bool) -> anyhow::Result<()> {
    let root = root()?;
    let workspace = root.join("plugins");
    let operators = operators(&root, &workspace)?;
    let packages = operators.iter().map(|(name, _)| name.clone()).collect();
    let search = Search::from_env(&workspace, offline)?;
    let options = BuildOptions { packages, out: Some(root.join(STAGING)), quiet: false };
    let built = build_rust(&search, &options, &mut say)?;

    let mut kept = BTreeSet::new();
    let mut changed = 0;
    for artifact in &built.artifacts {
        let Some((_, place)) = operators.iter().find(|(name, _)| *name == artifact.name) else { continue };
        let bytes =
            fs::read(&artifact.component).with_context(|| format!("cannot read {}", artifact.component.display()))?;
        if write_if_changed(&root.join(place), &bytes)? {
            changed += 1;
            say(&format!("  {}, {} KiB", place.display(), artifact.bytes.div_ceil(1024)));
        }
        kept.insert(root.join(place));
    }
    for folder in [STANDARD, GUESTS] {
        remove_others(&root.join(folder), &kept)?;
    }
    say(&format!("{} components, {changed} changed", kept.len()));
    Ok(())
}

/// Packages that make a component, and where it belongs.
fn operators(root: &Path, workspace: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace.join("Cargo.toml"))
        .no_deps()
        .exec()
        .with_context(|| format!("cannot read the workspace {}", workspace.display()))?;
    let operators = metadata
        .packages
        .iter()
        .filter(|package| package.targets.iter().any(|target| target.crate_types.contains(&CrateType::CDyLib)));
    Ok(operators.map(|package| (package.name.to_string(), place(root, package))).collect())
}

fn place(root: &Path, package: &Package) -> PathBuf {
    let file = format!("{}.wasm", package.name);
    let manifest = package.manifest_path.as_std_path();
    let path = manifest.strip_prefix(root).unwrap_or(manifest);
    let mut parts = path.components().map(|part| part.as_os_str());
    match parts.next().and_then(|first| first.to_str()) {
        // An operator of an example lies beside its job.
        Some("examples") => Path::new("examples").join(parts.next().unwrap_or_default()).join(file),
        Some("plugins") => Path::new(STANDARD).join(file),
        _ => Path::new(GUESTS).join(file),
    }
}

/// A plugin that is gone must not stay embedded.
fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") && !kept.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            say(&format!("removed {}: no package makes it", path.display()));
        }
    }
    Ok(())
}
