//! What a stage says about its join.

use serde::Deserialize;
use wasmill_sdk::json::{Pointer, PointerError};
use wasmill_sdk::{ConfigError, duration};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", deny_unknown_fields)]
pub(crate) enum Config {
    Interval {
        from: String,
        to: String,
        #[serde(default)]
        outer: Outer,
        #[serde(default, rename = "as")]
        names: Names,
    },
    Window {
        size: String,
        every: Option<String>,
        #[serde(default)]
        outer: Outer,
        #[serde(default, rename = "as")]
        names: Names,
    },
    Session {
        gap: String,
        #[serde(default)]
        outer: Outer,
        #[serde(default, rename = "as")]
        names: Names,
    },
    Table {
        left: Option<String>,
        right: Option<String>,
        keep: Option<String>,
        #[serde(default)]
        changes: bool,
        #[serde(default, rename = "as")]
        names: Names,
    },
    Version {
        #[serde(default)]
        outer: Outer,
        #[serde(default, rename = "as")]
        names: Names,
    },
}

/// Whose rows leave alone where they found no partner.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outer {
    #[default]
    None,
    Left,
    Right,
    Both,
}

impl Outer {
    /// Whether rows of this side do.
    pub(crate) fn keeps(self, side: usize) -> bool {
        matches!((self, side), (Self::Both, _) | (Self::Left, 0) | (Self::Right, 1))
    }
}

/// The fields that both sides stand in.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Names(pub(crate) [String; 2]);

impl Default for Names {
    fn default() -> Self {
        Self(["left".to_owned(), "right".to_owned()])
    }
}

/// A length of time in microseconds, from 0.
pub(crate) fn micros(key: &str, text: &str) -> Result<i64, ConfigError> {
    let micros = duration(text).and_then(|length| i64::try_from(length.as_micros()).ok());
    micros.ok_or_else(|| {
        ConfigError::at(key, format!("expected a time such as \"30s\", \"10m\" or \"7d\", found {text:?}"))
    })
}

/// The same with a sign.
pub(crate) fn offset(key: &str, text: &str) -> Result<i64, ConfigError> {
    match text.strip_prefix('-') {
        Some(rest) => micros(key, rest).map(|micros| -micros),
        None => micros(key, text.strip_prefix('+').unwrap_or(text)),
    }
    .map_err(|_| ConfigError::at(key, format!("expected a time such as \"-5s\", \"0s\" or \"10m\", found {text:?}")))
}

pub(crate) fn pointer(key: &str, text: Option<String>) -> Result<Option<Pointer>, ConfigError> {
    let parsed = text.map(|text| text.parse()).transpose();
    parsed.map_err(|error: PointerError| ConfigError::at(key, error.to_string()))
}
