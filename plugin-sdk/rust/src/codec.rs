//! How typed state and accumulators become bytes.
//!
//! The formats here are part of what a savepoint holds and do not change: integers and floats are
//! little-endian and of fixed width, text and bytes are as they are, [`Json`] is JSON. A type of
//! the author's own implements [`Codec`], or goes through [`Json`], to which fields may be added
//! (with `#[serde(default)]`) without raising the space's version.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are not what a type writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecError {
    message: String,
}

impl CodecError {
    /// An error that says what was expected and what was there.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CodecError {}

/// A value that state or an accumulator can hold.
pub trait Codec: Clone + 'static {
    /// Appends the bytes of the value.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads the bytes of a value, all of them.
    ///
    /// # Errors
    /// Where the bytes are not what [`Codec::encode`] writes.
    fn decode(bytes: &[u8]) -> Result<Self, CodecError>;

    /// About how many bytes of memory it takes, for the bound of the cache.
    #[inline]
    fn weight(&self) -> usize {
        size_of::<Self>()
    }
}

macro_rules! fixed {
    ($($type:ty),*) => {$(
        impl Codec for $type {
            #[inline]
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
                match bytes.try_into() {
                    Ok(bytes) => Ok(Self::from_le_bytes(bytes)),
                    Err(_) => Err(wrong_length(stringify!($type), size_of::<Self>(), bytes.len())),
                }
            }
        }
    )*};
}

fixed!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

#[cold]
fn wrong_length(name: &str, expected: usize, found: usize) -> CodecError {
    CodecError::new(format!("{name} is {expected} bytes, found {found}"))
}

impl Codec for bool {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(CodecError::new(format!("bool is one byte, 0 or 1, found {:?}", &bytes[..bytes.len().min(8)]))),
        }
    }
}

/// For sets: that an entry exists is all it says. One byte, as accumulators may not be empty.
impl Codec for () {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        if bytes == [0] { Ok(()) } else { Err(wrong_length("unit", 1, bytes.len())) }
    }
}

impl Codec for String {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::from_utf8(bytes.to_vec()).map_err(|error| CodecError::new(error.to_string()))
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.len()
    }
}

impl Codec for Vec<u8> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.len()
    }
}

/// Any type that serde knows, kept as JSON: readable, and open to new fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

impl<T> Deref for Json<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Json<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Serialize + DeserializeOwned + Clone + 'static> Codec for Json<T> {
    /// A value that JSON cannot hold (a map with keys that are not text) becomes `null`, which
    /// fails when it is read.
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        if serde_json::to_writer(&mut *out, &self.0).is_err() {
            out.truncate(start);
            out.extend_from_slice(b"null");
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        serde_json::from_slice(bytes).map(Json).map_err(|error| CodecError::new(error.to_string()))
    }
}

/// A key within [`Map`](crate::Map): bytes that sort as the values do.
pub trait MapKey: Sized {
    /// Appends the bytes of the key.
    fn encode_key(&self, out: &mut Vec<u8>);

    /// Reads the bytes of a key, all of them.
    ///
    /// # Errors
    /// Where the bytes are not what [`MapKey::encode_key`] writes.
    fn decode_key(bytes: &[u8]) -> Result<Self, CodecError>;
}

macro_rules! big_endian {
    ($($type:ty => $flip:expr),*) => {$(
        impl MapKey for $type {
            fn encode_key(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&(*self ^ $flip).to_be_bytes());
            }

            fn decode_key(bytes: &[u8]) -> Result<Self, CodecError> {
                match bytes.try_into() {
                    Ok(bytes) => Ok(Self::from_be_bytes(bytes) ^ $flip),
                    Err(_) => Err(wrong_length(stringify!($type), size_of::<Self>(), bytes.len())),
                }
            }
        }
    )*};
}

big_endian!(u8 => 0, u16 => 0, u32 => 0, u64 => 0, i8 => i8::MIN, i16 => i16::MIN, i32 => i32::MIN, i64 => i64::MIN);

impl MapKey for String {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn decode_key(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::decode(bytes)
    }
}

impl MapKey for Vec<u8> {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn decode_key(bytes: &[u8]) -> Result<Self, CodecError> {
        Ok(bytes.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back<T: Codec + PartialEq + fmt::Debug>(value: T, bytes: &[u8]) {
        let mut out = Vec::new();
        value.encode(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(T::decode(&out), Ok(value));
    }

    #[test]
    fn formats_are_frozen() {
        there_and_back(0x0102_0304_0506_0708u64, &[8, 7, 6, 5, 4, 3, 2, 1]);
        there_and_back(-2i32, &[0xfe, 0xff, 0xff, 0xff]);
        there_and_back(1.5f64, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
        there_and_back(true, &[1]);
        there_and_back((), &[0]);
        there_and_back("é".to_owned(), "é".as_bytes());
        there_and_back(vec![0u8, 255], &[0, 255]);
        there_and_back(Json(vec![1, 2]), b"[1,2]");
    }

    #[test]
    fn wrong_bytes_say_what_was_expected() {
        assert_eq!(u64::decode(&[1]).expect_err("too short").to_string(), "u64 is 8 bytes, found 1");
        assert!(bool::decode(&[2]).is_err());
        assert!(String::decode(&[0xff]).is_err());
        assert!(Json::<u8>::decode(b"\"x\"").is_err());
    }

    #[test]
    fn map_keys_sort_as_their_values() {
        let bytes = |key: i64| {
            let mut out = Vec::new();
            key.encode_key(&mut out);
            assert_eq!(i64::decode_key(&out), Ok(key));
            out
        };
        let keys = [i64::MIN, -5, -1, 0, 1, 300, i64::MAX];
        assert!(keys.windows(2).all(|pair| bytes(pair[0]) < bytes(pair[1])));
    }
}
