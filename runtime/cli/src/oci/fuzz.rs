//! What registries and layouts say, out of its mind: an error in words, never a panic.

use hyper::Uri;
use serde_json::{Value, json};

use super::challenge::challenge;
use super::{Reference, chosen, described, digest, is_config_of, layout, pack, parts, registry};
use crate::fuzz_driver::{Random, fuzz, mutated};

const WORDS: &[&str] = &[
    "sha256:",
    "oci://",
    "@",
    "null",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"",
    "\\\"",
    "=",
    " ",
    ":",
    "/",
    "..",
    "//",
    "http://",
    "\"size\":-1",
    "18446744073709551616",
    "1e999",
    "\"layers\":[]",
    "\"manifests\":[",
    "Bearer ",
    "realm=\"",
    "%00",
    "\u{0}",
    "\u{1b}[31m",
    "é",
    "[::1]",
    "user@",
];

/// Documents, names, challenges and places, each with a letter before it that says which.
fn corpus() -> Vec<Vec<u8>> {
    let packed = pack(b"\0asm\x0d\0\x01\0 a component", &["a:b/c".to_owned()], &["d:e/f".to_owned()]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let index = json!({"manifests": [packed.manifest.descriptor(), {"platform": {"architecture": "wasm"}}]});
    [
        format!("m{}", text(&packed.manifest.bytes)),
        format!("m{index}"),
        format!("c{}", text(&packed.config.bytes)),
        format!("roci://ghcr.io:443/acme/count:1.0@{}", packed.manifest.digest),
        "roci://[::1]:5000/a".to_owned(),
        "wBearer realm=\"https://auth.example.org/token\",service=\"x\",scope=\"repository:a/b:pull\"".to_owned(),
        "wBasic realm=x".to_owned(),
        "lhttps://example.org/v2/x?y=z".to_owned(),
        "l/v2/x/blobs/uploads/7".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn layout_of(bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    layout::write(dir.path(), b"\0asm\x0d\0\x01\0 a component", Some("count:1.0"), &[], &[]).expect("written");
    std::fs::write(dir.path().join("index.json"), bytes).expect("written");
    dir
}

/// Whether it was taken for good.
fn check(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    let text = String::from_utf8_lossy(bytes);
    match kind {
        b'm' => {
            let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return false };
            if let Ok(entry) = chosen(&value) {
                drop(described("manifest", entry));
            }
            let Some((layer, config)) = parts(&value) else { return false };
            described("plugin", layer).is_ok() && described("config", config).is_ok()
        }
        b'c' => is_config_of(bytes, digest(b"\0asm\x0d\0\x01\0 a component")).is_ok(),
        b'r' => match text.parse::<Reference>() {
            Ok(reference) => {
                // It leads where it says, and can be said again.
                let origin: Uri = reference.origin().parse().expect("a URL");
                let authority = origin.authority().expect("a host").as_str();
                assert_eq!(authority, reference.registry);
                assert!(!authority.contains('@'));
                assert_eq!(reference.to_string().parse(), Ok(reference));
                true
            }
            Err(why) => {
                assert!(!why.is_empty());
                false
            }
        },
        b'w' => challenge(&text).is_some(),
        b'l' => {
            let from: Uri = "https://example.org/v2/a".parse().expect("a URL");
            match registry::sent_to(&from, &text) {
                Ok(to) => {
                    assert_eq!(to.scheme_str(), Some("https"), "{to}");
                    assert!(!to.authority().expect("a host").as_str().contains('@'), "{to}");
                    true
                }
                Err(_) => false,
            }
        }
        _ => layout::read(layout_of(bytes).path(), None).is_ok(),
    }
}

#[test]
fn oci() {
    let corpus = corpus();
    fuzz("oci", 3_000, |random: &mut Random| mutated(random, &corpus, WORDS), check);
}
