use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer};

/// An option of a connector that is wrong, so that the checker of the job file can point at it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The option at fault, with dots where it is nested (`roll.bytes`). `None` where it is the
    /// table as a whole.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ConfigError {
    /// An error of the option `key`.
    #[must_use]
    pub fn of(key: &str, message: impl Into<String>) -> Self {
        Self { key: Some(key.to_owned()), message: message.into(), hint: None }
    }

    /// The same error with advice.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Reads the options of a connector into its typed configuration.
pub(crate) fn parse<C: DeserializeOwned + JsonSchema>(options: toml::Table) -> Result<C, ConfigError> {
    options.try_into::<C>().map_err(|error| {
        // The table's own error names the keys in its printed form only.
        let message = error.message().to_owned();
        let printed = error.to_string();
        let within = printed.lines().rev().find_map(|line| line.strip_prefix("in `")?.strip_suffix('`'));
        let quoted = |text: &str| text.split('`').nth(1).map(str::to_owned);
        let unknown = message.strip_prefix("unknown field ").and_then(quoted);
        let hint = unknown.as_deref().and_then(|field| {
            let known: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            did_you_mean(field, known.iter().copied())
        });
        let key = match (within, unknown) {
            (Some(within), Some(field)) => Some(format!("{within}.{field}")),
            (Some(within), None) => Some(within.to_owned()),
            (None, field) => field,
        };
        ConfigError { key, message: message.replace("field", "option"), hint }
    })
}

/// `did you mean ...?` where one of `known` is close to `word`.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .min()
        .filter(|&(distance, candidate)| distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// A length of time as a job file writes it: `250ms`, `2s`, `5m`, `1h`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(pub(crate) Duration);

/// A number of bytes as a job file writes it: a number, or `64 KiB`, `10 MiB`, `1 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim_start()))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom(format!("{text:?} is not a length of time such as \"250ms\", \"2s\", \"1h\""));
        let (number, unit) = number_and_unit(&text).ok_or_else(wrong)?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(millis).map(|millis| Self(Duration::from_millis(millis))).ok_or_else(wrong)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$", "examples": ["250ms", "2s", "1h"] })
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = ByteSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes such as 4096 or \"10 MiB\"")
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<ByteSize, E> {
                u64::try_from(number).map(ByteSize).map_err(|_| E::custom("a number of bytes is not negative"))
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(number))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ByteSize, E> {
                let wrong = || E::custom(format!("{text:?} is not a number of bytes such as 4096 or \"10 MiB\""));
                let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
                let scale = match unit {
                    "" | "B" => 1,
                    "KiB" => 1 << 10,
                    "MiB" => 1 << 20,
                    "GiB" => 1 << 30,
                    _ => return Err(wrong()),
                };
                number.checked_mul(scale).map(ByteSize).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)?$" }
        ], "examples": [4096, "10 MiB"] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "snake_case")]
    struct Outer {
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        wait: Option<Span>,
        name: String,
    }

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        bytes: ByteSize,
    }

    fn error(text: &str) -> ConfigError {
        parse::<Outer>(text.parse().expect("valid TOML")).expect_err("a wrong option")
    }

    #[test]
    fn an_error_names_the_option_at_fault() {
        assert_eq!(error("name = 1").key.as_deref(), Some("name"));
        assert_eq!(error("wait = 'soon'\nname = ''").key.as_deref(), Some("wait"));
        assert_eq!(error("name = ''\ninner = { bytes = '1 MB' }").key.as_deref(), Some("inner.bytes"));
        assert_eq!(error("name = ''\ninner = { bites = 1 }").key.as_deref(), Some("inner.bites"));
        let unknown = error("nam = ''");
        assert_eq!((unknown.key.as_deref(), unknown.hint.as_deref()), (Some("nam"), Some("did you mean `name`?")));
        assert_eq!(unknown.message, "unknown option `nam`, expected one of `inner`, `wait`, `name`");
        let missing = error("");
        assert_eq!((missing.key, missing.message.as_str()), (None, "missing option `name`"));
    }

    #[test]
    fn times_and_sizes_read_as_people_write_them() {
        let outer: Outer = parse("name = ''\nwait = '5m'\ninner = { bytes = '64 KiB' }".parse().expect("TOML"))
            .expect("valid options");
        assert_eq!(outer.wait, Some(Span(Duration::from_secs(300))));
        assert_eq!(outer.inner.map(|inner| inner.bytes), Some(ByteSize(65_536)));
        assert_eq!(outer.name, "");
        assert!(error("name = ''\nwait = '99999999999999999999d'").message.contains("length of time"));
    }
}
