use std::borrow::Cow;

use crate::cursor::{first_member, next_member, read_key, skip_space, value_end};
use crate::{Fields, ScanError, text};

/// What a JSON value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of JSON itself")]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// One JSON value as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a> {
    bytes: &'a [u8],
    kind: Kind,
}

impl<'a> Raw<'a> {
    #[inline(always)]
    pub(crate) fn cut(json: &'a [u8], start: usize, end: usize, kind: Kind) -> Self {
        Self { bytes: json.get(start..end).unwrap_or_default(), kind }
    }

    /// The value that a text holds, without looking into it.
    ///
    /// # Errors
    /// Where the first character starts no value.
    #[inline]
    pub fn document(json: &'a [u8]) -> Result<Self, ScanError> {
        let start = skip_space(json, 0);
        let kind = match json.get(start) {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => value_end(json, start)?.1,
        };
        let bytes = json.get(start..).unwrap_or_default();
        let spaces = bytes.iter().rev().take_while(|b| matches!(b, b' ' | b'\n' | b'\t' | b'\r')).count();
        Ok(Self { bytes: bytes.get(..bytes.len() - spaces).unwrap_or_default(), kind })
    }

    /// What it is.
    #[inline]
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text of the value, quotes and brackets included.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether it is `null`.
    #[inline]
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// The value of `true` or `false`.
    #[inline]
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        (self.kind == Kind::Bool).then_some(self.bytes == b"true")
    }

    /// The value of a number that is an integer, without fraction and exponent, of 64 bits.
    #[inline]
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        if self.kind == Kind::Number { digits(self.bytes) } else { None }
    }

    /// The value of a number that is an integer, without fraction and exponent, of 64 bits with sign.
    #[inline]
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if self.kind != Kind::Number {
            return None;
        }
        match self.bytes {
            [b'-', rest @ ..] => 0i64.checked_sub_unsigned(digits(rest)?),
            bytes => i64::try_from(digits(bytes)?).ok(),
        }
    }

    /// The nearest finite value to a number.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        if self.kind != Kind::Number {
            return None;
        }
        if let Some(integer) = digits(self.bytes).filter(|n| *n < 1 << 53) {
            return Some(integer as f64);
        }
        if !is_number(self.bytes) {
            return None;
        }
        let value: f64 = std::str::from_utf8(self.bytes).ok()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// The text of a string, with its escapes decoded. Borrowed where there are none.
    #[inline]
    #[must_use]
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        text::decode(self.inner()?)
    }

    /// What stands between the quotes of a string without escapes: cheaper than
    /// [`Raw::as_str`], as nothing checks that it is UTF-8.
    #[inline]
    #[must_use]
    pub fn as_plain(&self) -> Option<&'a [u8]> {
        self.inner().filter(|inner| text::first_not_plain(inner).is_none())
    }

    #[inline]
    fn inner(&self) -> Option<&'a [u8]> {
        match self.bytes {
            [b'"', inner @ .., b'"'] if self.kind == Kind::String => Some(inner),
            _ => None,
        }
    }

    /// The first member of this name, where this is an object.
    ///
    /// # Errors
    /// Where the text up to there is not JSON.
    #[inline]
    pub fn field(&self, name: &str) -> Result<Option<Raw<'a>>, ScanError> {
        if self.kind != Kind::Object {
            return Ok(None);
        }
        Fields::new([name]).find(self.bytes).map(|[found]| found)
    }

    /// The members of an array; none of anything else. Ends after the first error.
    #[must_use]
    pub fn items(&self) -> Items<'a> {
        let array = self.kind == Kind::Array;
        Items { text: self.bytes, next: if array { first_member(self.bytes, 0, b']') } else { None } }
    }

    /// The members of an object, keys as strings in quotes; none of anything else. Ends after the
    /// first error.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        let object = self.kind == Kind::Object;
        Entries { text: self.bytes, next: if object { first_member(self.bytes, 0, b'}') } else { None } }
    }
}

/// Members of an array.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    text: &'a [u8],
    next: Option<usize>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Raw<'a>, ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next.take()?;
        let item = value_end(self.text, start).and_then(|(end, kind)| {
            self.next = next_member(self.text, end, b']')?;
            Ok(Raw::cut(self.text, start, end, kind))
        });
        Some(item)
    }
}

/// Members of an object.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    text: &'a [u8],
    next: Option<usize>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(Raw<'a>, Raw<'a>), ScanError>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.next.take()?;
        let entry = read_key(self.text, start).and_then(|(key, at)| {
            let (end, kind) = value_end(self.text, at)?;
            self.next = next_member(self.text, end, b'}')?;
            let name = Raw::cut(self.text, start, start + key.bytes.len() + 2, Kind::String);
            Ok((name, Raw::cut(self.text, at, end, kind)))
        });
        Some(entry)
    }
}

/// An integer without sign. Leading zeros are not JSON.
#[inline]
fn digits(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 1 && bytes.first() == Some(&b'0') {
        return None;
    }
    let mut value = 0u64;
    if bytes.len() <= 19 {
        for byte in bytes {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            value = value * 10 + u64::from(digit);
        }
        return Some(value);
    }
    for byte in bytes {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// Whether a text is a number as JSON writes it: `str::parse` allows more.
fn is_number(bytes: &[u8]) -> bool {
    let run = |bytes: &[u8]| bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let whole = run(rest);
    if whole == 0 || whole > 1 && rest.first() == Some(&b'0') {
        return false;
    }
    rest = rest.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = run(fraction);
        if count == 0 {
            return false;
        }
        rest = fraction.get(count..).unwrap_or_default();
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            unsigned => unsigned,
        };
        let count = run(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}
