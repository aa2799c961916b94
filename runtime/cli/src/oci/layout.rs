//! OCI image layouts, as tools for registries read and write them.
//!
//! ```text
//! DIR/oci-layout              the version of the layout
//!     index.json              manifests, by digest and name
//!     blobs/sha256/HEX        see [`super`]
//! ```
//!
//! Nothing outside of `blobs/sha256` is looked at.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Value, json};
use wasmill_model::PluginDigest;

use super::{Blob, DOCUMENT_BYTES_MAX, INDEX, PLUGIN_BYTES_MAX};
use super::{described, digest, is_config_of, pack, parts};
use crate::failure::Failure;

const NAME: &str = "org.opencontainers.image.ref.name";

/// A plugin in a layout.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// What it is called there.
    pub(crate) name: Option<String>,
    /// Its manifest.
    pub(crate) manifest: PluginDigest,
    /// The plugin.
    pub(crate) bytes: Vec<u8>,
}

fn hex(digest: &PluginDigest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}

/// A file appears whole, by rename.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let whole = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&whole, bytes)?;
    fs::rename(&whole, path)
}

fn blob(dir: &Path, blob: &Blob<'_>) -> io::Result<()> {
    put(&dir.join("blobs/sha256").join(hex(&blob.digest)), &blob.bytes)
}

/// Puts a plugin into a layout, which is made where there is none. A name that stood for another one stands
/// for this one from now on. Returns the digest of its manifest.
pub(crate) fn write(
    dir: &Path,
    plugin: &[u8],
    name: Option<&str>,
    imports: &[String],
    exports: &[String],
) -> Result<PluginDigest, Failure> {
    let written = |error: io::Error| Failure::file("write the layout", dir, &error);
    let index_path = dir.join("index.json");
    let mut manifests = if index_path.exists() { manifests(dir)? } else { Vec::new() };
    fs::create_dir_all(dir.join("blobs/sha256")).map_err(written)?;
    put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(written)?;
    let packed = pack(plugin, imports, exports);
    for part in [&packed.layer, &packed.config, &packed.manifest] {
        blob(dir, part).map_err(written)?;
    }
    let mut entry = packed.manifest.descriptor();
    if let Some(name) = name {
        entry["annotations"] = json!({NAME: name});
    }
    manifests.retain(|other| match name {
        Some(name) => other["annotations"][NAME] != name,
        None => other["digest"] != entry["digest"],
    });
    manifests.push(entry);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    put(&index_path, index.to_string().as_bytes()).map_err(written)?;
    Ok(packed.manifest.digest)
}

fn wrong(dir: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::wrong(format!("{}: {why}", dir.display()))
}

/// Bytes of a file, of at most so many.
pub(super) fn bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

fn manifests(dir: &Path) -> Result<Vec<Value>, Failure> {
    let no_layout = || wrong(dir, "this is no OCI image layout").hint("it has `oci-layout`, `index.json` and `blobs`");
    let bytes = bounded(&dir.join("index.json"), DOCUMENT_BYTES_MAX).map_err(|_| no_layout())?;
    let index: Value = serde_json::from_slice(&bytes).map_err(|error| wrong(dir, format!("index.json: {error}")))?;
    index["manifests"].as_array().cloned().ok_or_else(no_layout)
}

/// The blob that a descriptor names, if it is what the descriptor says.
fn blob_of(dir: &Path, what: &str, descriptor: &Value, most: u64) -> Result<(PluginDigest, Vec<u8>), Failure> {
    let known = described(what, descriptor).map_err(|why| wrong(dir, why))?;
    let path = dir.join("blobs/sha256").join(hex(&known.digest));
    let read = bounded(&path, most);
    let bytes = read.map_err(|error| wrong(dir, format!("cannot read the {what} {}: {error}", known.digest)))?;
    let held = known.holds(what, digest(&bytes), bytes.len() as u64);
    held.map_err(|why| wrong(dir, why).hint("get the layout again"))?;
    Ok((known.digest, bytes))
}

/// Takes a plugin out of a layout: the one of this name, of this digest (its own or that of its manifest), or
/// the only one.
pub(crate) fn read(dir: &Path, wanted: Option<&str>) -> Result<Found, Failure> {
    let manifests = manifests(dir)?;
    let name = |entry: &Value| entry["annotations"][NAME].as_str().map(str::to_owned);
    let mut found = Vec::new();
    for entry in &manifests {
        // What is no plugin may lie beside.
        let document = blob_of(dir, "manifest", entry, DOCUMENT_BYTES_MAX)?;
        let manifest: Value = serde_json::from_slice(&document.1).unwrap_or_default();
        let Some((layer, config)) = parts(&manifest) else { continue };
        let is_wanted = wanted.is_none_or(|wanted| {
            name(entry).as_deref() == Some(wanted) || entry["digest"] == wanted || layer["digest"] == wanted
        });
        if is_wanted {
            found.push((entry, document.0, layer.clone(), config.clone()));
        }
    }
    let [(entry, manifest, layer, config)] = found.as_slice() else {
        let names: Vec<String> =
            manifests.iter().map(|entry| name(entry).unwrap_or(entry["digest"].to_string())).collect();
        let message = match (found.len(), wanted) {
            (0, Some(wanted)) => format!("there is no plugin {wanted} in it"),
            (0, None) => "there is no plugin in it".to_owned(),
            (many, _) => format!("there are {many} such plugins in it: name one"),
        };
        return Err(wrong(dir, message).hint(format!("it has {}", names.join(", "))));
    };
    let (plugin, bytes) = blob_of(dir, "plugin", layer, PLUGIN_BYTES_MAX)?;
    let (_, config) = blob_of(dir, "config", config, DOCUMENT_BYTES_MAX)?;
    is_config_of(&config, plugin).map_err(|why| wrong(dir, why))?;
    Ok(Found { name: name(entry), manifest: *manifest, bytes })
}

#[cfg(test)]
mod tests {
    use super::super::MANIFEST;
    use super::*;

    const PLUGIN: &[u8] = b"\0asm\x0d\0\x01\0 a component";

    fn layout() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), PLUGIN, Some("count:1.0"), &["a:b/c".into()], &["d:e/f".into()]).expect("written");
        dir
    }

    fn refused(dir: &Path, wanted: Option<&str>) -> String {
        match read(dir, wanted).expect_err("refused") {
            Failure::Said { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    fn json(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).expect("reads")).expect("JSON")
    }

    #[test]
    fn what_is_put_in_comes_out_by_each_of_its_names() {
        let dir = layout();
        let manifest =
            json(&dir.path().join("index.json"))["manifests"][0]["digest"].as_str().expect("text").to_owned();
        for wanted in [None, Some("count:1.0"), Some(&*manifest), Some(&*digest(PLUGIN).to_string())] {
            let found = read(dir.path(), wanted).expect("found");
            assert_eq!((found.bytes.as_slice(), found.name.as_deref()), (PLUGIN, Some("count:1.0")));
            assert_eq!(found.manifest.to_string(), manifest);
        }
        assert!(refused(dir.path(), Some("count:2.0")).contains("no plugin count:2.0"));
    }

    #[test]
    fn the_layout_is_the_one_of_the_specifications() {
        let dir = layout();
        let blob = |value: &Value| {
            let hex = value["digest"].as_str().expect("text").trim_start_matches("sha256:");
            json(&dir.path().join("blobs/sha256").join(hex))
        };
        assert_eq!(json(&dir.path().join("oci-layout")), json!({"imageLayoutVersion": "1.0.0"}));
        let index = json(&dir.path().join("index.json"));
        assert_eq!((&index["schemaVersion"], &index["manifests"][0]["mediaType"]), (&json!(2), &json!(MANIFEST)));
        let manifest = blob(&index["manifests"][0]);
        assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
        assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
        assert_eq!(manifest["layers"][0]["digest"], digest(PLUGIN).to_string());
        let config = blob(&manifest["config"]);
        assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip2")));
        assert_eq!(config["component"]["imports"], json!(["a:b/c"]));
        // The same again changes nothing, and another one takes the name over.
        let before = fs::read(dir.path().join("index.json")).expect("reads");
        write(dir.path(), PLUGIN, Some("count:1.0"), &["a:b/c".into()], &["d:e/f".into()]).expect("written");
        assert_eq!(fs::read(dir.path().join("index.json")).expect("reads"), before);
        write(dir.path(), b"\0asm\x01\0\0\0", Some("count:1.0"), &[], &[]).expect("written");
        assert_eq!(read(dir.path(), None).expect("the only one").bytes, b"\0asm\x01\0\0\0");
    }

    #[test]
    fn what_was_changed_is_refused() {
        let blobs = |dir: &Path| {
            let mut paths: Vec<_> = fs::read_dir(dir.join("blobs/sha256"))
                .expect("lists")
                .map(|entry| entry.expect("an entry").path())
                .collect();
            paths.sort();
            paths
        };
        for place in 0..3 {
            let dir = layout();
            let path = &blobs(dir.path())[place];
            let mut bytes = fs::read(path).expect("reads");
            bytes[9] ^= 1;
            fs::write(path, &bytes).expect("written");
            assert!(refused(dir.path(), None).contains("was changed"), "{}", path.display());
            fs::remove_file(path).expect("removed");
            assert!(refused(dir.path(), None).contains("cannot read"));
        }
        let dir = layout();
        let index = dir.path().join("index.json");
        let good = fs::read_to_string(&index).expect("reads");
        for (from, to, says) in [
            ("sha256:", "sha256:../../", "a digest is"),
            ("\"size\":", "\"size\":1", "its descriptor says"),
            ("\"manifests\"", "\"others\"", "no OCI image layout"),
            ("{", "[", "index.json: "),
        ] {
            fs::write(&index, good.replacen(from, to, 1)).expect("written");
            let said = refused(dir.path(), None);
            assert!(said.contains(says), "{says}: {said}");
        }
        fs::remove_file(&index).expect("removed");
        assert!(refused(dir.path(), None).contains("no OCI image layout"));
    }
}
