//! `cargo xtask plugins`: components of the guest workspace, and what embeds them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cargo_metadata::{CrateType, MetadataCommand};
use wasmill_toolchain::{Artifact, BuildOptions, Search, build_rust};

use crate::root;
use crate::steps::say;

/// The workspaces that hold operators, and where their components go. What lies in `plugins/` is
/// embedded in the binary as `std:NAME`; guests of tests must not be.
const PLACES: [(&str, &str, &str); 4] = [
    ("plugins", "plugins", "target/plugins"),
    ("plugins", "examples/bridge-traffic", "examples/bridge-traffic"),
    ("plugins", "tests/guests", "target/guests"),
    ("tests/guests", "tests/guests", "target/guests"),
];

/// Builds what has changed.
pub(crate) fn plugins(offline: bool) -> anyhow::Result<()> {
    let root = root()?;
    let mut lines = BTreeSet::new();
    for (workspace, members, out) in PLACES {
        let workspace = root.join(workspace);
        if !workspace.join("Cargo.toml").is_file() {
            continue;
        }
        let packages = operators(&workspace, &root.join(members))?;
        if packages.is_empty() {
            continue;
        }
        let search = Search::from_env(&workspace, offline)?;
        let options = BuildOptions { packages, out: Some(root.join(out)), quiet: false };
        let built = build_rust(&search, &options, &mut |line| {
            // Both kinds stand on the same rung: once is enough.
            if lines.insert(line.to_owned()) {
                say(line);
            }
        })?;
        remove_others(&root.join(out), &built.artifacts)?;
        summary(out, &built.artifacts);
    }
    Ok(())
}

/// Packages of `workspace` under `members` that make a component.
fn operators(workspace: &Path, members: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .manifest_path(workspace.join("Cargo.toml"))
        .no_deps()
        .exec()
        .with_context(|| format!("cannot read the workspace {}", workspace.display()))?;
    let packages = metadata.packages.iter().filter(|package| {
        package.manifest_path.as_std_path().starts_with(members)
            && package.targets.iter().any(|target| target.crate_types.contains(&CrateType::CDyLib))
    });
    Ok(packages.map(|package| package.name.to_string()).collect())
}

/// A plugin that is gone must not stay embedded.
fn remove_others(out: &Path, artifacts: &[Artifact]) -> anyhow::Result<()> {
    let kept: BTreeSet<&PathBuf> = artifacts.iter().map(|artifact| &artifact.component).collect();
    for entry in fs::read_dir(out).with_context(|| format!("cannot list {}", out.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") && !kept.contains(&path) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            say(&format!("removed {}: no package makes it", path.display()));
        }
    }
    Ok(())
}

fn summary(out: &str, artifacts: &[Artifact]) {
    let changed = artifacts.iter().filter(|artifact| artifact.changed).count();
    for Artifact { name, bytes, .. } in artifacts.iter().filter(|artifact| artifact.changed) {
        say(&format!("  {name}.wasm, {} KiB", bytes.div_ceil(1024)));
    }
    say(&format!("{} components in {out}, {changed} changed", artifacts.len()));
}
