//! What a registry answers to those it does not know: `WWW-Authenticate`, after RFC 9110.

use std::collections::BTreeMap;

/// How to say who asks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token that is to be had at an address.
    Bearer {
        /// The address.
        realm: String,
        /// For whom the token is.
        service: Option<String>,
        /// What it allows.
        scope: Option<String>,
    },
}

/// Reads a challenge; `None` of one that is not understood.
pub(super) fn challenge(text: &str) -> Option<Challenge> {
    let text = text.trim();
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut named = parameters(rest);
    let realm = named.remove("realm")?;
    Some(Challenge::Bearer { realm, service: named.remove("service"), scope: named.remove("scope") })
}

/// `name=value` or `name="value"`, with commas between them.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| *letter == ',' || letter.is_whitespace()).is_some() {}
        let mut name = String::new();
        while let Some(letter) = letters.next_if(|letter| !"=,".contains(*letter)) {
            name.push(letter.to_ascii_lowercase());
        }
        if letters.next() != Some('=') {
            return found;
        }
        let mut value = String::new();
        if letters.next_if_eq(&'"').is_some() {
            while let Some(letter) = letters.next() {
                match letter {
                    '"' => break,
                    '\\' => value.extend(letters.next()),
                    letter => value.push(letter),
                }
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                value.push(letter);
            }
            value.truncate(value.trim_end().len());
        }
        found.insert(name.trim().to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_registries_are_understood() {
        let text = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",\
                    scope=\"repository:a/b:pull,push\"";
        assert_eq!(
            challenge(text),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".to_owned(),
                service: Some("registry.docker.io".to_owned()),
                scope: Some("repository:a/b:pull,push".to_owned()),
            })
        );
        let bare = Challenge::Bearer { realm: "x".to_owned(), service: None, scope: None };
        assert_eq!(challenge("bearer  Realm=x , other=\"a\\\"b\""), Some(bare));
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        for text in ["", "Digest realm=x", "Bearer", "Bearer service=x", "Bearer =", "Bearer realm"] {
            assert_eq!(challenge(text), None, "{text}");
        }
    }
}
