//! A plugin project of its own: a template and a copy of the SDK, both from this binary, so that
//! `wasmill new` needs no repository and no registry of ours.

use std::io;
use std::path::Path;

use toml_edit::DocumentMut;

/// Files of projects: language, path, bytes. In those whose path ends with `.in`, `{{name}}` stands
/// for the name of the project.
const FILES: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/project_files.rs"));

/// Names that cargo or the compiler keep for themselves, or that the SDK has.
const TAKEN: &str = "abstract alloc as async await become box break const continue core crate do dyn else enum extern \
                     false final fn for gen if impl in let loop macro match mod move mut override priv proc-macro pub \
                     ref return self static std struct super test trait true try type typeof unsafe unsized use \
                     virtual wasmill-scan wasmill-sdk where while yield build deps examples incremental";

/// Whether a project can have this name: it names a package, a job and a file.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    wasmill_model::JobName::new(name).map_err(|error| error.to_string())?;
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.ends_with('-') {
        return Err("a name begins with a letter and does not end with '-'".into());
    }
    if TAKEN.split_whitespace().any(|taken| taken == name) {
        return Err("this name means something to cargo: take another".into());
    }
    Ok(())
}

/// Writes a project in a language into `dir`, which is empty.
pub(crate) fn write(dir: &Path, name: &str, language: &str) -> io::Result<()> {
    for (_, path, bytes) in FILES.iter().filter(|(of, ..)| *of == language) {
        if let Some(path) = path.strip_suffix(".in") {
            let text = str::from_utf8(bytes).map_err(io::Error::other)?;
            put(&dir.join(path), text.replace("{{name}}", name).as_bytes())?;
        } else if path.starts_with("sdk/") && path.ends_with("Cargo.toml") {
            put(&dir.join(path), &standing_alone(bytes)?)?;
        } else {
            // The repository has ignore files of its own.
            put(&dir.join(if *path == "gitignore" { ".gitignore" } else { path }), bytes)?;
        }
    }
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, bytes)
}

/// A manifest of the repository, changed so that the crate builds outside of it: without its
/// workspace and without what only its own tests need.
fn standing_alone(manifest: &[u8]) -> io::Result<Vec<u8>> {
    let text = str::from_utf8(manifest).map_err(io::Error::other)?;
    let mut manifest: DocumentMut = text.parse().map_err(io::Error::other)?;
    manifest.remove("dev-dependencies");
    if let Some(package) = manifest.get_mut("package").and_then(|package| package.as_table_mut()) {
        package.remove("workspace");
        package.decor_mut().set_prefix("");
    }
    let dependencies = manifest.get_mut("dependencies").and_then(|all| all.as_table_like_mut());
    if let Some(scan) = dependencies.and_then(|all| all.get_mut("wasmill-scan")) {
        scan["path"] = toml_edit::value("../scan");
    }
    Ok(manifest.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use wasmill_toolchain::Language;

    use super::*;

    #[test]
    fn the_sdk_in_a_project_needs_nothing_of_the_repository() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "my-plugin", "rust").expect("written");
        let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).expect(path);
        let sdk: toml::Table = read("sdk/rust/Cargo.toml").parse().expect("TOML");
        assert!(sdk["package"].get("workspace").is_none() && sdk.get("dev-dependencies").is_none());
        assert_eq!(sdk["dependencies"]["wasmill-scan"]["path"].as_str(), Some("../scan"));
        let scan: toml::Table = read("sdk/scan/Cargo.toml").parse().expect("TOML");
        assert!(scan.get("dev-dependencies").is_none() && scan["dependencies"].get("wasmill-scan").is_none());
        assert!(read("sdk/rust/src/lib.rs").contains("operator"));
        assert!(read("sdk/rust/wit/operator.wit").contains("package wasmill:operator@"));
        assert!(read("Cargo.lock").contains("wit-bindgen"));
        assert!(read("job.toml").contains("./target/plugins/my-plugin.wasm"));
        for path in ["Cargo.toml", "job.toml", "README.md"] {
            assert!(!read(path).contains("{{"), "{path}");
        }
    }

    #[test]
    fn projects_are_complete_in_every_language() {
        for language in Language::ALL {
            let dir = tempfile::tempdir().expect("a directory");
            write(dir.path(), "my-plugin", language.name()).expect("written");
            let project = wasmill_toolchain::Project::read(dir.path()).expect("a project");
            assert_eq!((project.language, project.name.as_str()), (language, "my-plugin"));
            for path in ["README.md", ".gitignore", "job.toml", "cases/records/output.jsonl", "sdk/LICENSE"] {
                let text = std::fs::read_to_string(dir.path().join(path)).expect(path);
                assert!(!text.contains("{{name}}"), "{path}");
            }
        }
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in ["", "Upper", "7up", "-x", "x-", "match", "test", "a b", "../x", "wasmill-sdk"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert_eq!(check_name("my-plugin2"), Ok(()));
    }
}
