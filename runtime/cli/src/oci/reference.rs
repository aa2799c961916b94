//! Names of plugins in registries: `oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use wasmill_model::PluginDigest;

/// What every reference begins with.
const SCHEME: &str = "oci://";
const HINT: &str = "write it like oci://ghcr.io/acme/count:1.0, or with @sha256:HEX behind it";

/// A plugin in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host and port, as in a URL.
    pub(crate) registry: String,
    /// The name of the repository there.
    pub(crate) repository: String,
    /// A name of the manifest, which may come to stand for another one.
    pub(crate) tag: Option<String>,
    /// The digest of the manifest.
    pub(crate) digest: Option<PluginDigest>,
}

impl Reference {
    /// Whether a text is meant as one.
    pub(crate) fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// What the registry is asked for: the digest, else the tag, else `latest`.
    pub(crate) fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// Where it answers. A registry of this machine is spoken to without encryption, as other tools do.
    pub(crate) fn origin(&self) -> String {
        let host = match self.registry.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.registry,
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let is_here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        format!("{}://{}", if is_here { "http" } else { "https" }, self.registry)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Host and port: letters, digits, points and dashes, or an address of IPv6 in brackets.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let all = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
            all && !host.is_empty() && !host.starts_with(['.', '-']) && !host.contains("..")
        }
    };
    is_host && host.len() <= 253 && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Parts of lower-case letters and digits, with single `.`, `_`, `-` between them (or `__`, or more of `-`).
fn is_repository(text: &str) -> bool {
    let is_part = |part: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let all = part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte));
        let bytes = part.as_bytes();
        all && edge(bytes.first()) && edge(bytes.last()) && !part.contains("..") && !part.contains("___")
    };
    text.len() <= 255 && text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let all = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    all && (1..=128).contains(&text.len()) && !text.starts_with(['.', '-'])
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{text:?} names no plugin of a registry: {why}; {HINT}");
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| wrong("it does not begin with oci://"))?;
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (rest, None),
        };
        let digest = digest.map(str::parse::<PluginDigest>).transpose();
        let digest = digest.map_err(|error| wrong(&error.to_string()))?;
        let (registry, path) = rest.split_once('/').ok_or_else(|| wrong("there is no repository in it"))?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if !is_registry(registry) {
            return Err(wrong("its host is no HOST or HOST:PORT"));
        }
        if !is_repository(repository) {
            return Err(wrong("a repository is lower-case letters, digits, and . _ - / between them"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("a tag is letters, digits, and . _ - behind the first, 128 at most"));
        }
        // The one registry that answers elsewhere than it is called.
        let registry = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let owned = str::to_owned;
        Ok(Self { registry: owned(registry), repository: owned(repository), tag: tag.map(owned), digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_reference_has_a_host_a_repository_and_what_is_meant_there() {
        for (text, origin, repository, wanted) in [
            ("oci://ghcr.io/acme/count", "https://ghcr.io", "acme/count", "latest"),
            ("oci://ghcr.io/acme/count:1.0", "https://ghcr.io", "acme/count", "1.0"),
            ("oci://localhost:5000/a", "http://localhost:5000", "a", "latest"),
            ("oci://127.0.0.1:5000/a:b", "http://127.0.0.1:5000", "a", "b"),
            ("oci://[::1]:5000/a/b-c/d__e", "http://[::1]:5000", "a/b-c/d__e", "latest"),
            ("oci://[2606:4700::1]/a", "https://[2606:4700::1]", "a", "latest"),
            ("oci://docker.io/acme/count", "https://registry-1.docker.io", "acme/count", "latest"),
        ] {
            let reference: Reference = text.parse().expect(text);
            assert_eq!(
                (&*reference.origin(), &*reference.repository, &*reference.wanted()),
                (origin, repository, wanted)
            );
        }
        let both = format!("oci://ghcr.io/acme/count:1.0@{DIGEST}");
        let reference: Reference = both.parse().expect("a reference");
        assert_eq!((reference.wanted(), reference.to_string()), (DIGEST.to_owned(), both));
    }

    #[test]
    fn what_leads_elsewhere_is_none() {
        for text in [
            "",
            "ghcr.io/acme/count",
            "https://ghcr.io/acme/count",
            "oci://",
            "oci:///a",
            "oci://ghcr.io",
            "oci://ghcr.io/",
            "oci://ghcr.io/a:",
            "oci://user@ghcr.io/a",
            "oci://user:word@ghcr.io/a",
            "oci://ghcr.io:0/a",
            "oci://ghcr.io:99999/a",
            "oci://gh cr.io/a",
            "oci://ghcr.io/../a",
            "oci://ghcr.io/a//b",
            "oci://ghcr.io/A",
            "oci://ghcr.io/a?x=1",
            "oci://ghcr.io/a#b",
            "oci://ghcr.io/a%2fb",
            "oci://ghcr.io/a:..",
            "oci://ghcr.io/a:b/c",
            "oci://ghcr.io/a@sha256:00",
            "oci://ghcr.io/a@md5:00",
            "oci://[::1/a",
            "oci://[x]/a",
            "oci://\u{e9}.org/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        assert!(format!("oci://ghcr.io/{}", "a".repeat(256)).parse::<Reference>().is_err());
    }
}
