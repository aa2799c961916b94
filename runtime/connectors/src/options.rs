use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use wasmill_spec::did_you_mean;

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
            hint_of(field, known)
        });
        let key = match (within, unknown) {
            (Some(within), Some(field)) => Some(format!("{within}.{field}")),
            (Some(within), None) => Some(within.to_owned()),
            (None, field) => field,
        };
        ConfigError { key, message: message.replace("field", "option"), hint }
    })
}

/// Advice where one of `known` was probably meant.
pub(crate) fn hint_of<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    did_you_mean(word, known).map(|name| format!("did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use wasmill_spec::{ByteSize, Period};

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, rename_all = "snake_case")]
    struct Outer {
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        wait: Option<Period>,
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
        assert_eq!(error("name = ''\ninner = { bytes = '1MB' }").key.as_deref(), Some("inner.bytes"));
        assert_eq!(error("name = ''\ninner = { bites = 1 }").key.as_deref(), Some("inner.bites"));
        let unknown = error("nam = ''");
        assert_eq!((unknown.key.as_deref(), unknown.hint.as_deref()), (Some("nam"), Some("did you mean `name`?")));
        assert_eq!(unknown.message, "unknown option `nam`, expected one of `inner`, `wait`, `name`");
        let missing = error("");
        assert_eq!((missing.key, missing.message.as_str()), (None, "missing option `name`"));
    }

    #[test]
    fn right_options_are_read() {
        let text = "name = 'a'\nwait = '5m'\ninner = { bytes = '64KiB' }";
        let outer: Outer = parse(text.parse().expect("valid TOML")).expect("valid options");
        assert_eq!((outer.name.as_str(), outer.wait), ("a", Some(Period::from_millis(300_000))));
        assert_eq!(outer.inner.map(|inner| inner.bytes), Some(ByteSize::from_bytes(65_536)));
    }
}
