//! Rows that wait for partners, and pairs of rows.

use wasmill_sdk::{Codec, CodecError, ConfigError, Event, Reject};

use crate::config::Names;

/// A row that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// Whether it has found a partner.
    pub(crate) matched: bool,
    /// Its value.
    pub(crate) value: Vec<u8>,
}

/// Rows of one time, in the order in which they came.
///
/// Each is stored as a byte that says whether it has found a partner, the length of its value in four
/// bytes, the lowest first, and its value.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Rows(pub(crate) Vec<Held>);

impl Codec for Rows {
    fn encode(&self, out: &mut Vec<u8>) {
        for Held { matched, value } in &self.0 {
            out.push(u8::from(*matched));
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value);
        }
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
        let mut rows = Vec::new();
        while let [matched, a, b, c, d, rest @ ..] = bytes {
            let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            let Some((value, rest)) = rest.split_at_checked(length) else { break };
            rows.push(Held { matched: *matched != 0, value: value.to_vec() });
            bytes = rest;
        }
        match bytes {
            [] => Ok(Self(rows)),
            rest => Err(CodecError::new(format!("rows end in the middle, {} bytes before their end", rest.len()))),
        }
    }

    fn weight(&self) -> usize {
        self.0.iter().map(|row| size_of::<Held>() + row.value.len()).sum()
    }
}

/// The value of an event, which becomes part of a pair: it has to be JSON as a whole.
pub(crate) fn value(event: &Event<'_>) -> Result<Vec<u8>, Reject> {
    let value = event.value().trim_ascii();
    match wasmill_sdk::serde_json::from_slice::<serde::de::IgnoredAny>(value) {
        Ok(_) => Ok(value.to_vec()),
        Err(error) => Err(Reject::new(format!("not JSON: {error}"))),
    }
}

/// Writes pairs.
pub(crate) struct Pairs {
    /// What stands before each side's value.
    before: [Vec<u8>; 2],
}

impl Pairs {
    pub(crate) fn new(names: Names) -> Result<Self, ConfigError> {
        let Names([left, right]) = names;
        if left == right {
            return Err(ConfigError::at("as", format!("both sides are called {left:?}")));
        }
        let quoted = |name: String| wasmill_sdk::serde_json::Value::from(name).to_string();
        let before = [format!("{}:", quoted(left)).into_bytes(), format!(",{}:", quoted(right)).into_bytes()];
        Ok(Self { before })
    }

    /// `{"left":…,"right":…}`, with `null` for a side that is missing.
    pub(crate) fn write(&self, out: &mut Vec<u8>, sides: [Option<&[u8]>; 2]) {
        self.write_change(out, "", sides);
    }

    /// The same behind the beginning of the object.
    pub(crate) fn write_change(&self, out: &mut Vec<u8>, first: &str, sides: [Option<&[u8]>; 2]) {
        out.push(b'{');
        out.extend_from_slice(first.as_bytes());
        for (before, value) in self.before.iter().zip(sides) {
            out.extend_from_slice(before);
            out.extend_from_slice(value.unwrap_or(b"null"));
        }
        out.push(b'}');
    }
}

/// A row of one side and one of the other, in their order.
pub(crate) fn sides<'a>(side: usize, own: Option<&'a [u8]>, other: Option<&'a [u8]>) -> [Option<&'a [u8]>; 2] {
    if side == 0 { [own, other] } else { [other, own] }
}
