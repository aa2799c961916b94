//! Embeds the standard plugins that are there, and SDKs and templates for `wasmill new`.
//!
//! The plugins come from another compilation (`cargo xtask plugins` writes `target/plugins`), so a clean
//! `cargo build` has none, and the binary then says how to get them.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Names another folder of components.
const VARIABLE: &str = "WASMILL_STD_PLUGINS";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let folder = match env::var_os(VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => {
            let folder = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../target/plugins");
            // Cargo takes a missing folder for a changed one, and would build this crate every time.
            fs::create_dir_all(&folder)?;
            folder
        }
    };
    let folder = fs::canonicalize(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    println!("cargo::rerun-if-changed={}", folder.display());

    let mut plugins = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let name = path.file_stem().and_then(|stem| stem.to_str()).ok_or("a plugin's name is not UTF-8")?;
            plugins.push((name.to_owned(), path));
        }
    }
    plugins.sort();

    let mut table = "&[\n".to_owned();
    for (name, path) in plugins {
        writeln!(table, "    ({name:?}, include_bytes!({path:?})),")?;
    }
    table.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("std_plugins.rs"), table)?;
    embed_sdk()
}

/// Languages whose projects are not cargo's, with the parts of the SDK that a project takes a copy of.
const LANGUAGES: [(&str, &str, &[&str]); 6] = [
    ("c", "c", &["include", "src", "testing", "bindings"]),
    ("c++", "c", &["include", "src", "testing", "bindings"]),
    ("go", "go", &["wasmill", "bindings", "component"]),
    (
        "javascript",
        "javascript",
        &["package.json", "index.js", "index.d.ts", "lib", "component", "testing.js", "testing.d.ts"],
    ),
    ("python", "python", &["wasmill"]),
    (
        "typescript",
        "javascript",
        &["package.json", "index.js", "index.d.ts", "lib", "component", "testing.js", "testing.d.ts"],
    ),
];

/// Embeds what plugin projects are made of: templates, and what a project takes a copy of. For Rust
/// that is the SDK, the crate it stands on, and the versions of everything else that they are tested
/// with.
fn embed_sdk() -> Result<(), Box<dyn Error>> {
    let root = fs::canonicalize(Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../.."))?;
    let mut files = vec![("rust".to_owned(), "Cargo.lock".to_owned(), root.join("plugins/Cargo.lock"))];
    println!("cargo::rerun-if-changed={}", files[0].2.display());
    let mut embed = |language: &str, from: &str, to: &str, parts: &[&str]| -> Result<(), Box<dyn Error>> {
        for part in parts {
            let path = root.join(from).join(part);
            println!("cargo::rerun-if-changed={}", path.display());
            let mut found = Vec::new();
            list(&path, &Path::new(to).join(part), &mut found)?;
            files.extend(found.into_iter().map(|(name, path)| (language.to_owned(), name, path)));
        }
        Ok(())
    };
    embed("rust", "plugin-sdk/rust", "sdk/rust", &["Cargo.toml", "src", "wit", "worlds"])?;
    embed("rust", "runtime/scan", "sdk/scan", &["Cargo.toml", "src"])?;
    embed("rust", "", "sdk", &["LICENSE"])?;
    embed("rust", "runtime/cli/template/rust", "", &[""])?;
    embed("rust", "runtime/cli/template/common", "", &[""])?;
    for (language, sdk, parts) in LANGUAGES {
        embed(language, &format!("plugin-sdk/{sdk}"), &format!("sdk/{sdk}"), parts)?;
        embed(language, "", "sdk", &["LICENSE"])?;
        embed(language, &format!("runtime/cli/template/{language}"), "", &[""])?;
        embed(language, "runtime/cli/template/common", "", &[""])?;
    }
    files.retain(|(_, name, _)| !name.contains("__pycache__"));
    files.sort();

    let mut table = "&[\n".to_owned();
    for (language, name, path) in files {
        writeln!(table, "    ({language:?}, {name:?}, include_bytes!({path:?})),")?;
    }
    table.push(']');
    fs::write(Path::new(&env::var("OUT_DIR")?).join("project_files.rs"), table)?;
    Ok(())
}

/// A file, or the files under a folder, by their names in the copy.
fn list(path: &Path, name: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<(), Box<dyn Error>> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            list(&entry.path(), &name.join(entry.file_name()), files)?;
        }
    } else {
        let name = name.to_str().ok_or("a file of an SDK has a name that is not UTF-8")?;
        files.push((name.to_owned(), path.to_owned()));
    }
    Ok(())
}
