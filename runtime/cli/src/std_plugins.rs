//! The standard plugins in the binary: `plugin = "std:NAME"`.
//!
//! `build.rs` embeds what `cargo xtask plugins` built before. There are none in a binary that was
//! built without it.

/// Names and components, in the order of the names.
const PLUGINS: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/std_plugins.rs"));

/// The component of `std:{name}`.
pub(crate) fn get(name: &str) -> Option<&'static [u8]> {
    let place = PLUGINS.binary_search_by_key(&name, |(known, _)| known).ok()?;
    PLUGINS.get(place).map(|(_, component)| *component)
}

/// Names of the embedded plugins.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_a_component() {
        for name in names() {
            let component = get(name).expect("named");
            assert!(component.starts_with(b"\0asm\x0d\0\x01\0"), "{name} is not a component");
        }
        assert_eq!(get("no-such-plugin"), None);
    }
}
