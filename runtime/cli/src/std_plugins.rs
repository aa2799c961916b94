//! The standard plugins in the binary: `plugin = "std:NAME"`.

use std::fmt;

/// Names and components, in the order of the names.
const PLUGINS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/std_plugins.rs"));

/// Why there is no such standard plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StdPluginError {
    /// The binary was built before the plugins.
    NotEmbedded,
    /// The name is wrong; these are right.
    Unknown(Vec<&'static str>),
}

impl fmt::Display for StdPluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEmbedded => f.write_str(
                "this binary was built without standard plugins: run `cargo xtask plugins` and build it again",
            ),
            Self::Unknown(known) => write!(f, "no such standard plugin; there are {}", known.join(", ")),
        }
    }
}

impl std::error::Error for StdPluginError {}

/// The component of `std:{name}`.
pub(crate) fn component(name: &str) -> Result<&'static [u8], StdPluginError> {
    find(PLUGINS, name)
}

/// Names of the embedded plugins.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().map(|(name, _)| *name)
}

fn find(plugins: &'static [(&'static str, &'static [u8])], name: &str) -> Result<&'static [u8], StdPluginError> {
    if plugins.is_empty() {
        return Err(StdPluginError::NotEmbedded);
    }
    let found = plugins.binary_search_by_key(&name, |(known, _)| known);
    match found.ok().and_then(|place| plugins.get(place)) {
        Some((_, component)) => Ok(component),
        None => Err(StdPluginError::Unknown(plugins.iter().map(|(known, _)| *known).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_is_found_by_name() {
        assert_eq!(find(&[("dedup", b"d"), ("filter", b"f")], "filter"), Ok(&b"f"[..]));
    }

    #[test]
    fn unknown_name_lists_what_there_is() {
        let error = find(&[("dedup", b"d"), ("filter", b"f")], "filtre").expect_err("misspelt");
        assert_eq!(error.to_string(), "no such standard plugin; there are dedup, filter");
    }

    #[test]
    fn binary_without_plugins_says_how_to_get_them() {
        let error = find(&[], "filter").expect_err("empty");
        assert!(error.to_string().contains("cargo xtask plugins"), "{error}");
    }

    #[test]
    fn embedded_plugins_are_components() {
        for name in names() {
            let component = component(name).expect("embedded");
            assert!(component.starts_with(b"\0asm\x0d\0\x01\0"), "{name} is not a component");
        }
    }
}
