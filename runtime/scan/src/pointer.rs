use std::fmt;
use std::str::FromStr;

use crate::cursor::{first_member, next_member, read_key, skip_space, value_end};
use crate::fields::Name;
use crate::{PointerError, Raw, ScanError};

/// A JSON pointer (RFC 6901), parsed once: `/user/id`, `/items/0`, or the empty one for the whole
/// value.
///
/// ```
/// # use wasmill_scan::Pointer;
/// let at: Pointer = "/meta/at".parse()?;
/// let found = at.find(br#"{"id": 1, "meta": {"at": 1700000000000}}"#)?;
/// assert_eq!(found.and_then(|raw| raw.as_i64()), Some(1_700_000_000_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pointer {
    text: String,
    tokens: Box<[Token]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Token {
    name: Box<str>,
    index: Option<usize>,
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let fail = |reason| PointerError { pointer: text.to_owned(), reason };
        let tokens = match text.strip_prefix('/') {
            None if text.is_empty() => Box::default(),
            None => return Err(fail("it starts with a slash, such as \"/user/id\"")),
            Some(rest) => rest.split('/').map(|token| Token::parse(token).map_err(fail)).collect::<Result<_, _>>()?,
        };
        Ok(Self { text: text.to_owned(), tokens })
    }
}

impl Token {
    fn parse(token: &str) -> Result<Self, &'static str> {
        let mut tildes = token.split('~').skip(1);
        if !tildes.all(|rest| rest.starts_with(['0', '1'])) {
            return Err("a tilde is written ~0 and a slash within a name ~1");
        }
        let digits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit());
        let index = if digits && (token == "0" || !token.starts_with('0')) { token.parse().ok() } else { None };
        Ok(Self { name: token.replace("~1", "/").replace("~0", "~").into(), index })
    }
}

impl Pointer {
    /// The value at this place, where there is one. Stops as soon as it is found.
    ///
    /// # Errors
    /// Where the text up to there is not JSON.
    #[inline]
    pub fn find<'a>(&self, json: &'a [u8]) -> Result<Option<Raw<'a>>, ScanError> {
        let mut at = skip_space(json, 0);
        for token in &self.tokens {
            let inner = match json.get(at) {
                Some(b'{') => member(json, at, &token.name)?,
                Some(b'[') => match token.index {
                    Some(index) => item(json, at, index)?,
                    None => None,
                },
                // Anything else has no members, but has to be a value.
                _ => value_end(json, at).map(|_| None)?,
            };
            match inner {
                Some(inner) => at = inner,
                None => return Ok(None),
            }
        }
        let (end, kind) = value_end(json, at)?;
        Ok(Some(Raw::cut(json, at, end, kind)))
    }

    /// The pointer as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The place of the value of the first member of this name.
#[inline]
fn member(json: &[u8], open: usize, name: &str) -> Result<Option<usize>, ScanError> {
    let name = Name::new(name);
    let mut next = first_member(json, open, b'}');
    while let Some(at) = next {
        let (key, start) = read_key(json, at)?;
        if name.is(&key) {
            return Ok(Some(start));
        }
        next = next_member(json, value_end(json, start)?.0, b'}')?;
    }
    Ok(None)
}

fn item(json: &[u8], open: usize, index: usize) -> Result<Option<usize>, ScanError> {
    let mut next = first_member(json, open, b']');
    for _ in 0..index {
        let Some(at) = next else { return Ok(None) };
        next = next_member(json, value_end(json, at)?.0, b']')?;
    }
    Ok(next)
}
