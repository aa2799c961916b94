//! `cargo xtask bindings`: what C and Go know of the operator interface, made from `wit/operator.wit`.
//!
//! The files are committed, so that a plugin builds without a generator. `--check`, a step of the
//! tests, fails where they are not what would be made today.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cargo_metadata::MetadataCommand;
use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};

use crate::root;
use crate::steps::say;

/// The worlds of the package.
const WORLDS: [&str; 3] = ["stateless", "stateful", "windowed"];
/// What the Go bindings stand on: part of their generator's crate.
const GO_RUNTIME: [&str; 8] = [
    "go.mod",
    "LICENSE",
    "wit/types/option.go",
    "wit/types/result.go",
    "wit/types/tuple.go",
    "wit/types/unit.go",
    "wit/runtime/runtime.go",
    "wit/runtime/empty.s",
];

/// Makes the bindings, or holds them against what is there.
pub(crate) fn bindings(check: bool) -> anyhow::Result<()> {
    let root = root()?;
    let made = make(&root)?;
    let folders = [root.join("plugin-sdk/c/bindings"), root.join("plugin-sdk/go/bindings")];
    let mut there = BTreeSet::new();
    for folder in &folders {
        list(folder, &mut there)?;
    }
    let stale = |(path, bytes): &(&PathBuf, &Vec<u8>)| fs::read(path).ok().as_ref() != Some(*bytes);
    let changed: Vec<_> = made.iter().filter(stale).collect();
    let gone: Vec<_> = there.iter().filter(|path| !made.contains_key(*path)).collect();
    if check {
        let names = changed.iter().map(|(path, _)| *path).chain(gone.iter().copied());
        let names: Vec<String> = names.map(|path| path.display().to_string()).collect();
        if !names.is_empty() {
            bail!("bindings are not current; run cargo xtask bindings:\n  {}", names.join("\n  "));
        }
        return Ok(());
    }
    for path in &gone {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for (path, bytes) in &changed {
        fs::create_dir_all(path.parent().unwrap_or(&root))?;
        fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    say(&format!("{} files of bindings, {} changed, {} removed", made.len(), changed.len(), gone.len()));
    Ok(())
}

fn make(root: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut made = BTreeMap::new();
    for world in WORLDS {
        let c = wit_bindgen_c::Opts {
            rename_world: Some("bindings".into()),
            no_object_file: true,
            ..wit_bindgen_c::Opts::default()
        };
        let folder = root.join("plugin-sdk/c/bindings").join(world);
        generate(root, world, c.build().as_mut(), &folder, &mut made)?;
        let go = wit_bindgen_go::Opts::default();
        let folder = root.join("plugin-sdk/go/bindings").join(world);
        generate(root, world, go.build().as_mut(), &folder, &mut made)?;
    }
    let metadata = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).exec()?;
    let package = metadata.packages.iter().find(|package| package.name.as_str() == "wit-bindgen-go");
    let package = package.context("wit-bindgen-go is a dependency of this crate")?;
    let source = package.manifest_path.parent().context("a package has a folder")?.join("src/pkg");
    for file in GO_RUNTIME {
        let bytes = fs::read(source.join(file)).with_context(|| format!("cannot read {file} of wit-bindgen-go"))?;
        made.insert(root.join("plugin-sdk/go/bindings/runtime").join(file), bytes);
    }
    Ok(made)
}

fn generate(
    root: &Path,
    world: &str,
    generator: &mut dyn WorldGenerator,
    folder: &Path,
    made: &mut BTreeMap<PathBuf, Vec<u8>>,
) -> anyhow::Result<()> {
    let mut resolve = Resolve::default();
    let package = resolve.push_file(root.join("wit/operator.wit"))?;
    let id = resolve.select_world(&[package], Some(world))?;
    let mut files = Files::default();
    generator.generate(&mut resolve, id, &mut files)?;
    for (name, bytes) in files.iter() {
        let bytes = if name.ends_with("wit_exports.go") { narrow(bytes)? } else { bytes.to_vec() };
        made.insert(folder.join(name), bytes);
    }
    Ok(())
}

/// Go lets an exported function have 128 bytes of arguments, and a `uintptr` takes eight of them:
/// `fold`, with its 16 arguments, does not fit. Addresses are 32 bits wide anyway.
fn narrow(exports: &[u8]) -> anyhow::Result<Vec<u8>> {
    let text = std::str::from_utf8(exports).context("the bindings are text")?;
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let mut line = match line.split_once(") ") {
            Some((head, rest)) if line.starts_with("func wasm_export_wasmill") => {
                format!("{}) {rest}", head.replace(" uintptr", " uint32"))
            }
            _ => line.to_owned(),
        };
        for argument in 0..16 {
            let pointer = format!("unsafe.Pointer(arg{argument})");
            line = line.replace(&pointer, &format!("unsafe.Pointer(uintptr(arg{argument}))"));
        }
        lines.push(line);
    }
    Ok(lines.join("\n").into_bytes())
}

fn list(folder: &Path, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}
