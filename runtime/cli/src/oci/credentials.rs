//! Names and passwords for registries, as docker keeps them: `auths` of `config.json`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use serde_json::Value;

use crate::failure::Failure;

/// Bytes of a file of them.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where docker keeps them.
fn file() -> Option<PathBuf> {
    let folder = match std::env::var_os("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(folder.join("config.json"))
}

/// What is sent to a registry of this name; `None` where nothing is known.
pub(super) fn of(registry: &str) -> Result<Option<HeaderValue>, Failure> {
    let Some(path) = file().filter(|path| path.is_file()) else { return Ok(None) };
    let bytes = super::layout::bounded(&path, FILE_BYTES_MAX).map_err(|error| Failure::file("read", &path, &error))?;
    find(&path, &bytes, registry)
}

fn find(path: &Path, bytes: &[u8], registry: &str) -> Result<Option<HeaderValue>, Failure> {
    // Of what is wrong in it, only the place is said.
    let wrong = |why: String| Failure::wrong(format!("{}: {why}", path.display()));
    let config: Value = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    let Some(encoded) = config["auths"][registry]["auth"].as_str() else { return Ok(None) };
    let is_pair = STANDARD.decode(encoded).is_ok_and(|pair| pair.contains(&b':'));
    let value = HeaderValue::from_str(&format!("Basic {encoded}")).ok().filter(|_| is_pair);
    let mut value = value.ok_or_else(|| wrong(format!("`auth` of {registry} is no NAME:PASSWORD in base64")))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_gets_its_own_credentials_only() {
        let path = Path::new("config.json");
        let file = br#"{"auths": {"a.org": {"auth": "bmFtZTp3b3Jk"}, "b.org": {"auth": "x"}, "c.org": {}}}"#;
        let found = find(path, file, "a.org").expect("reads").expect("known");
        assert!(found.is_sensitive() && found == "Basic bmFtZTp3b3Jk");
        assert!(find(path, file, "c.org").expect("reads").is_none());
        assert!(find(path, file, "evil.org").expect("reads").is_none());
        assert!(find(path, file, "b.org").is_err());
        assert!(find(path, b"[", "a.org").is_err());
    }
}
