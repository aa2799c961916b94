//! Plugins as OCI artifacts, in image layouts and in registries.
//!
//! ```text
//! manifest ─▶ config application/vnd.wasm.config.v0+json
//!          └▶ one layer application/wasm: the plugin
//! ```
//!
//! After the OCI image specification 1.1 and the artifact layout for WebAssembly of the CNCF. Every blob is held
//! against its digest and its length. Documents are read as they come from outside: bounded, and by hand.

mod challenge;
mod credentials;
pub(crate) mod layout;
mod reference;
pub(crate) mod registry;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wasmill_model::PluginDigest;

pub(crate) use reference::Reference;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
/// Bytes of an index, a manifest, or a config.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a plugin, as the host has it.
pub(crate) const PLUGIN_BYTES_MAX: u64 = 64 << 20;

fn digest(bytes: &[u8]) -> PluginDigest {
    PluginDigest(Sha256::digest(bytes).into())
}

/// Bytes of a kind, known by their digest.
#[derive(Debug)]
struct Blob<'a> {
    kind: &'static str,
    digest: PluginDigest,
    bytes: std::borrow::Cow<'a, [u8]>,
}

impl<'a> Blob<'a> {
    fn new(kind: &'static str, bytes: impl Into<std::borrow::Cow<'a, [u8]>>) -> Self {
        let bytes = bytes.into();
        Self { kind, digest: digest(&bytes), bytes }
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": self.digest.to_string(), "size": self.bytes.len()})
    }
}

/// A plugin with what describes it.
#[derive(Debug)]
struct Packed<'a> {
    layer: Blob<'a>,
    config: Blob<'a>,
    manifest: Blob<'a>,
}

/// The same plugin makes the same bytes: there is no time in them.
fn pack<'a>(plugin: &'a [u8], imports: &[String], exports: &[String]) -> Packed<'a> {
    let layer = Blob::new(LAYER, plugin);
    let is_component = plugin.get(4..8) == Some(&[0x0d, 0, 1, 0]);
    let mut config = json!({"architecture": "wasm", "os": "wasip1", "layerDigests": [layer.digest.to_string()]});
    if is_component {
        config["os"] = "wasip2".into();
        config["component"] = json!({"exports": exports, "imports": imports, "target": null});
    }
    let config = Blob::new(CONFIG, config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config.descriptor(), "layers": [layer.descriptor()],
    });
    Packed { layer, config, manifest: Blob::new(MANIFEST, manifest.to_string().into_bytes()) }
}

/// What a descriptor says of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Described {
    digest: PluginDigest,
    bytes: u64,
}

/// Reads a descriptor.
fn described(what: &str, descriptor: &Value) -> Result<Described, String> {
    let named = descriptor["digest"].as_str().unwrap_or_default();
    let digest = named.parse().map_err(|error| format!("the {what} {named:?}: {error}"))?;
    let bytes = descriptor["size"].as_u64().ok_or_else(|| format!("the {what} {digest} has no size"))?;
    Ok(Described { digest, bytes })
}

impl Described {
    /// Holds bytes against it.
    fn holds(&self, what: &str, found: PluginDigest, bytes: u64) -> Result<(), String> {
        let Self { digest, bytes: said } = self;
        if found != *digest {
            return Err(format!("the {what} {digest} was changed: it is {found}"));
        }
        if bytes != *said {
            return Err(format!("the {what} {digest} has {bytes} bytes, its descriptor says {said}"));
        }
        Ok(())
    }
}

/// The layer and the config of a manifest; `None` where it is not one of a plugin.
fn parts(manifest: &Value) -> Option<(&Value, &Value)> {
    let config = &manifest["config"];
    let [layer] = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default() else { return None };
    (config["mediaType"] == CONFIG && layer["mediaType"] == LAYER).then_some((layer, config))
}

/// Holds a config against the plugin that it came with.
fn is_config_of(config: &[u8], plugin: PluginDigest) -> Result<(), String> {
    let config: Value = serde_json::from_slice(config).map_err(|error| format!("the config: {error}"))?;
    if config["layerDigests"] != json!([plugin.to_string()]) {
        return Err(format!("the config is one of {}, not of {plugin}", config["layerDigests"]));
    }
    Ok(())
}

/// The manifest that an index means: the only one, or the only one for WebAssembly.
fn chosen(index: &Value) -> Result<&Value, String> {
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_wasm = |entry: &&Value| entry["platform"]["architecture"] == "wasm";
    match (manifests, manifests.iter().filter(is_wasm).collect::<Vec<_>>().as_slice()) {
        ([one], _) => Ok(one),
        (_, [one]) => Ok(*one),
        ([], _) => Err("the index names no manifest".to_owned()),
        (many, _) => Err(format!("the index names {} manifests: name one by its digest", many.len())),
    }
}

#[cfg(test)]
mod fuzz;
