//! JSON in events: fields without a parse of all of it, and serde where a parse is wanted.

use std::borrow::Cow;

use serde::Deserialize;
pub use wasmill_scan::{Fault, Fields, Kind, Pointer, PointerError, Raw, ScanError, fields};

use crate::Reject;

/// A text that should be JSON, not looked at yet.
#[derive(Debug, Clone, Copy)]
pub struct Doc<'a> {
    text: &'a [u8],
}

impl<'a> Doc<'a> {
    /// A view of a text.
    #[inline]
    #[must_use]
    pub fn new(text: &'a [u8]) -> Self {
        Self { text }
    }

    /// A field of the object, where it has it.
    ///
    /// # Errors
    /// Where the text is not a JSON object.
    #[inline]
    pub fn field(&self, name: &str) -> Result<Option<Raw<'a>>, Reject> {
        Ok(fields(self.text, [name])?[0])
    }

    /// Several fields in one pass; faster still with a [`Fields`] in a `const`.
    ///
    /// # Errors
    /// Where the text is not a JSON object.
    #[inline]
    pub fn fields<const N: usize>(&self, names: [&str; N]) -> Result<[Option<Raw<'a>>; N], Reject> {
        Ok(fields(self.text, names)?)
    }

    /// What a pointer points at, where it is there.
    ///
    /// # Errors
    /// Where the text is not JSON.
    #[inline]
    pub fn pointer(&self, pointer: &Pointer) -> Result<Option<Raw<'a>>, Reject> {
        Ok(pointer.find(self.text)?)
    }

    /// A field that has to be an unsigned integer.
    ///
    /// # Errors
    /// Where it is missing or something else.
    #[inline]
    pub fn u64(&self, name: &str) -> Result<u64, Reject> {
        self.need(name, "an unsigned integer", |raw| raw.as_u64())
    }

    /// A field that has to be an integer.
    ///
    /// # Errors
    /// Where it is missing or something else.
    #[inline]
    pub fn i64(&self, name: &str) -> Result<i64, Reject> {
        self.need(name, "an integer", |raw| raw.as_i64())
    }

    /// A field that has to be a number.
    ///
    /// # Errors
    /// Where it is missing or something else.
    #[inline]
    pub fn f64(&self, name: &str) -> Result<f64, Reject> {
        self.need(name, "a number", |raw| raw.as_f64())
    }

    /// A field that has to be `true` or `false`.
    ///
    /// # Errors
    /// Where it is missing or something else.
    #[inline]
    pub fn bool(&self, name: &str) -> Result<bool, Reject> {
        self.need(name, "true or false", |raw| raw.as_bool())
    }

    /// A field that has to be a string.
    ///
    /// # Errors
    /// Where it is missing or something else.
    #[inline]
    pub fn str(&self, name: &str) -> Result<Cow<'a, str>, Reject> {
        self.need(name, "a string", |raw| raw.as_str())
    }

    /// The whole text as a type that serde knows.
    ///
    /// # Errors
    /// Where the text is not JSON or not of this type.
    #[inline]
    pub fn parse<T: Deserialize<'a>>(&self) -> Result<T, Reject> {
        Ok(serde_json::from_slice(self.text)?)
    }

    #[inline(always)]
    fn need<T>(&self, name: &str, what: &str, get: impl FnOnce(Raw<'a>) -> Option<T>) -> Result<T, Reject> {
        let found = self.field(name)?;
        match found.and_then(get) {
            Some(value) => Ok(value),
            None => Err(unmet(name, what, found)),
        }
    }
}

#[cold]
fn unmet(name: &str, what: &str, found: Option<Raw<'_>>) -> Reject {
    match found {
        None => Reject::new(format!("field `{name}` is missing, expected {what}")),
        Some(raw) => {
            let text = String::from_utf8_lossy(raw.bytes());
            let shown: String = text.chars().take(40).collect();
            Reject::new(format!("field `{name}` is {shown}, expected {what}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_needed_say_what_is_there_instead() {
        let doc = Doc::new(br#"{"price": 12, "name": "a\nb", "on": true, "x": 1.5}"#);
        assert_eq!(doc.u64("price"), Ok(12));
        assert_eq!(doc.f64("x"), Ok(1.5));
        assert_eq!(doc.bool("on"), Ok(true));
        assert_eq!(doc.str("name").as_deref(), Ok("a\nb"));
        assert_eq!(doc.u64("x").expect_err("a float").reason(), "field `x` is 1.5, expected an unsigned integer");
        assert_eq!(doc.i64("y").expect_err("missing").reason(), "field `y` is missing, expected an integer");
        let broken = Doc::new(b"[1]").u64("x").expect_err("an array");
        assert_eq!(broken.reason(), "not JSON at byte 0: expected an object");
    }
}
