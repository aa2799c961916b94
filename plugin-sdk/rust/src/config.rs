//! The configuration of a stage: JSON to a type of the author's, with errors that name the place.

use std::any::TypeId;
use std::fmt;

use serde::de::DeserializeOwned;

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    message: String,
}

impl ConfigError {
    /// An error at a path such as `sum.price`, saying what was expected.
    #[must_use]
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }

    /// An error of the configuration as a whole.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self::at("", message)
    }

    /// Where, empty for the whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "config: {}", self.message)
        } else {
            write!(f, "config: `{}`: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for ConfigError {}

/// Reads a configuration. No text is an empty object; where that is not allowed, it is `null`.
pub(crate) fn parse<C: DeserializeOwned + 'static>(text: &[u8]) -> Result<C, ConfigError> {
    let given = text.trim_ascii();
    if given.is_empty() || given == b"{}" || given == b"null" {
        return read(b"{}").or_else(|error| read(b"null").map_err(|_| error));
    }
    if TypeId::of::<C>() == TypeId::of::<()>() {
        return Err(ConfigError::new("this operator takes none; remove it"));
    }
    read(given)
}

fn read<C: DeserializeOwned>(text: &[u8]) -> Result<C, ConfigError> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        ConfigError::at(if path == "." { String::new() } else { path }, without_place(&error.into_inner().to_string()))
    })?;
    json.end().map_err(|error| ConfigError::new(error.to_string()))?;
    Ok(value)
}

/// The configuration reaches the operator as one line that nobody wrote: its columns help nobody.
fn without_place(message: &str) -> &str {
    message.split_once(" at line ").map_or(message, |(words, _)| words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sum {
        price: String,
        #[serde(default)]
        limit: u32,
    }

    #[derive(Debug, Deserialize, PartialEq, Default)]
    #[serde(deny_unknown_fields, default)]
    struct All {
        sum: Option<Sum>,
    }

    fn fault<C: DeserializeOwned + fmt::Debug + 'static>(text: &str) -> String {
        parse::<C>(text.as_bytes()).expect_err("a wrong configuration").to_string()
    }

    #[test]
    fn errors_name_path_and_expectation() {
        assert_eq!(
            fault::<All>(r#"{"sum": {"price": 7}}"#),
            "config: `sum.price`: invalid type: integer `7`, expected a string"
        );
        assert_eq!(
            fault::<All>(r#"{"sum": {"price": "p", "limt": 1}}"#),
            "config: `sum.limt`: unknown field `limt`, expected `price` or `limit`"
        );
        assert_eq!(fault::<Sum>(""), "config: missing field `price`");
    }

    #[test]
    fn no_text_is_the_default_or_nothing() {
        assert_eq!(parse::<All>(b""), Ok(All::default()));
        assert_eq!(parse::<All>(b"null"), Ok(All::default()));
        assert_eq!(parse::<()>(b"{}"), Ok(()));
        assert_eq!(parse::<Option<Sum>>(b""), Ok(None));
        assert_eq!(fault::<()>(r#"{"a":1}"#), "config: this operator takes none; remove it");
    }
}
