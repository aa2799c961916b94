use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes.
const NAME_LENGTH_MAX: usize = 63;

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The string is empty.
    #[error("a name cannot be empty")]
    Empty,
    /// The string is too long.
    #[error("a name has at most {NAME_LENGTH_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// The string holds a character that no name has.
    #[error("a name has only a-z, 0-9 and '-', not {0:?}")]
    Character(char),
}

fn validated(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(odd) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return Err(NameError::Character(odd));
    }
    if text.len() > NAME_LENGTH_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    Ok(text.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// A name of `[a-z0-9-]{1,63}`.
            ///
            /// # Errors
            /// Where `text` is not such a name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                validated(text).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name! {
    /// The name of a tenant of the service.
    TenantName
}
name! {
    /// The name of a job, unique within its tenant.
    JobName
}
name! {
    /// The name of a topic.
    TopicName
}
name! {
    /// The name of a group of consumers of a topic.
    GroupName
}
name! {
    /// The name of a node of a job: a source, a stage or a sink.
    NodeName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_their_alphabet_and_length() {
        assert_eq!(NodeName::new("per-minute").map(|n| n.to_string()), Ok("per-minute".into()));
        assert_eq!(NodeName::new(""), Err(NameError::Empty));
        assert_eq!(NodeName::new("../x"), Err(NameError::Character('.')));
        assert_eq!(NodeName::new("Upper"), Err(NameError::Character('U')));
        assert_eq!(NodeName::new(&"a".repeat(64)), Err(NameError::TooLong(64)));
        assert!(NodeName::new(&"a".repeat(63)).is_ok());
    }
}
