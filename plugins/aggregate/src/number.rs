use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use wasmill_sdk::json::Raw;
use wasmill_sdk::serde_json::Value as Json;

/// A number: an integer as long as it can be one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    pub(crate) fn read(raw: Raw<'_>) -> Option<Self> {
        if let Some(integer) = raw.as_i64() {
            return Some(Self::Integer(integer.into()));
        }
        if let Some(integer) = raw.as_u64() {
            return Some(Self::Integer(integer.into()));
        }
        raw.as_f64().map(Self::Float)
    }

    pub(crate) fn float(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Float(float) => float,
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        if let (Self::Integer(a), Self::Integer(b)) = (self, other) {
            if let Some(sum) = a.checked_add(b) {
                return Self::Integer(sum);
            }
        }
        Self::Float(self.float() + other.float())
    }

    pub(crate) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            (a, b) => a.float().total_cmp(&b.float()),
        }
    }

    pub(crate) fn json(self) -> Json {
        match self {
            Self::Integer(integer) => match (i64::try_from(integer), u64::try_from(integer)) {
                (Ok(integer), _) => integer.into(),
                (_, Ok(integer)) => integer.into(),
                _ => (integer as f64).into(),
            },
            // A sum may be infinite: JSON has no such number.
            Self::Float(float) => float.into(),
        }
    }
}
