//! Where compiled plugins and topics are kept.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;

/// The variable that names the directory.
pub(crate) const CACHE_VARIABLE: &str = "WASMILL_CACHE_DIR";

/// The variable that names the directory of topics.
pub(crate) const DATA_VARIABLE: &str = "WASMILL_DATA_DIR";
/// Where topics are if nobody says.
pub(crate) const DATA_DEFAULT: &str = ".wasmill";

/// `$WASMILL_CACHE_DIR`, else `wasmill` in the user's cache directory as XDG has it.
pub(crate) fn cache_dir() -> Result<PathBuf, Failure> {
    decide_cache_dir(|name| std::env::var_os(name))
}

/// The variable that names the directory of compilers for other languages.
pub(crate) const TOOLS_VARIABLE: &str = "WASMILL_TOOLS_DIR";

/// Where `wasmill build` installs compilers: `$WASMILL_TOOLS_DIR`, else `tools` in the cache directory.
pub(crate) fn tools_dir() -> Result<PathBuf, Failure> {
    match std::env::var_os(TOOLS_VARIABLE).filter(|value| !value.is_empty()) {
        Some(named) => Ok(named.into()),
        None => Ok(cache_dir()?.join("tools")),
    }
}

fn decide_cache_dir(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = set(CACHE_VARIABLE) {
        return Ok(named);
    }
    // XDG says to ignore relative paths.
    if let Some(cache) = set("XDG_CACHE_HOME").filter(|path| path.is_absolute()) {
        return Ok(cache.join("wasmill"));
    }
    set("HOME").map(|home| home.join(".cache/wasmill")).ok_or_else(|| {
        Failure::wrong("there is no place for compiled plugins: neither HOME nor XDG_CACHE_HOME is set")
            .hint(format!("set {CACHE_VARIABLE} to a directory"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(set: &[(&str, &str)]) -> Option<PathBuf> {
        decide_cache_dir(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())).ok()
    }

    #[test]
    fn the_nearest_variable_decides() {
        let all = [("WASMILL_CACHE_DIR", "here"), ("XDG_CACHE_HOME", "/xdg"), ("HOME", "/home/me")];
        assert_eq!(decide(&all), Some("here".into()));
        assert_eq!(decide(&all[1..]), Some("/xdg/wasmill".into()));
        assert_eq!(decide(&all[2..]), Some("/home/me/.cache/wasmill".into()));
        assert_eq!(decide(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/h")]), Some("/h/.cache/wasmill".into()));
        assert_eq!(decide(&[("WASMILL_CACHE_DIR", "")]), None);
    }
}
