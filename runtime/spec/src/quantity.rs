use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Microseconds of each unit, largest first.
const PERIOD_UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// Bytes of each unit, largest first.
const SIZE_UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Longest period: 100 years, so that sums of times stay far from the ends of their range.
const PERIOD_MICROS_MAX: u64 = 36_525 * 86_400_000_000;

/// A length of time as a job file has it: `"200ms"`, `"1h30m"`. Whole microseconds, at most 100
/// years, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub struct Period(u64);

/// A number of bytes as a job file has it: `"64MiB"`, `"512B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub struct ByteSize(u64);

/// Why a text is not a length of time or a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// A minus sign.
    #[error("it is negative")]
    Negative,
    /// A point or a comma.
    #[error("it has a fraction")]
    Fraction,
    /// Digits with nothing behind them.
    #[error("it has no unit")]
    NoUnit,
    /// A unit without digits in front of it, or something else.
    #[error("{0:?} is not a number with a unit")]
    NoNumber(String),
    /// An unknown unit.
    #[error("{0:?} is not a unit")]
    Unit(String),
    /// The same unit twice, or a larger one behind a smaller one.
    #[error("units must go from large to small, each once")]
    Order,
    /// Too large.
    #[error("it is more than {0}")]
    TooLarge(String),
}

impl Period {
    /// A period of `micros` microseconds, held at 100 years.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(if micros > PERIOD_MICROS_MAX { PERIOD_MICROS_MAX } else { micros })
    }

    /// A period of `millis` milliseconds, held at 100 years.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// Microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0 as i64
    }

    /// The same as the standard library has it.
    #[must_use]
    pub const fn as_duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0)
    }

    /// A pattern that every period matches.
    pub(crate) const PATTERN: &str = "^([0-9]+(d|h|m|s|ms|us))+$";
}

impl ByteSize {
    /// A size of `bytes` bytes.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// A pattern that every size matches.
    pub(crate) const PATTERN: &str = "^([0-9]+(B|KiB|MiB|GiB|TiB))+$";
}

impl FromStr for Period {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        sum(text, &PERIOD_UNITS, PERIOD_MICROS_MAX, "100 years").map(Self)
    }
}

impl FromStr for ByteSize {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        sum(text, &SIZE_UNITS, i64::MAX as u64, "8 EiB").map(Self)
    }
}

fn sum(text: &str, units: &[(&str, u64)], max: u64, max_text: &str) -> Result<u64, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Empty);
    }
    if text.starts_with('-') {
        return Err(QuantityError::Negative);
    }
    let too_large = || QuantityError::TooLarge(max_text.to_owned());
    let (mut rest, mut total, mut allowed) = (text, 0_u64, units);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at(digits);
        if number.is_empty() {
            return Err(QuantityError::NoNumber(rest.to_owned()));
        }
        if behind.starts_with(['.', ',']) {
            return Err(QuantityError::Fraction);
        }
        let letters = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        if unit.is_empty() {
            return Err(QuantityError::NoUnit);
        }
        let Some(place) = allowed.iter().position(|(name, _)| *name == unit) else {
            let known = units.iter().any(|(name, _)| *name == unit);
            return Err(if known { QuantityError::Order } else { QuantityError::Unit(unit.to_owned()) });
        };
        let number: u64 = number.parse().map_err(|_| too_large())?;
        let part = number.checked_mul(allowed[place].1).ok_or_else(too_large)?;
        total = total.checked_add(part).filter(|&total| total <= max).ok_or_else(too_large)?;
        allowed = &allowed[place + 1..];
        rest = behind;
    }
    Ok(total)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, micros) in PERIOD_UNITS {
            if rest >= micros {
                write!(f, "{}{unit}", rest / micros)?;
                rest %= micros;
            }
        }
        Ok(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) =
            SIZE_UNITS.into_iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes)).unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

macro_rules! text_form {
    ($name:ident, $schema:literal, $description:literal) => {
        impl TryFrom<Cow<'_, str>> for $name {
            type Error = QuantityError;
            fn try_from(text: Cow<'_, str>) -> Result<Self, QuantityError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(quantity: $name) -> String {
                quantity.to_string()
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $schema.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": Self::PATTERN, "description": $description})
            }
        }
    };
}

text_form!(Period, "Period", "A length of time, such as \"200ms\" or \"1h30m\".");
text_form!(ByteSize, "ByteSize", "A number of bytes, such as \"64KiB\" or \"64MiB\".");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_read_and_print() {
        for (text, micros) in [
            ("200ms", 200_000),
            ("1h30m", 5_400_000_000),
            ("1m", 60_000_000),
            ("7us", 7),
            ("0s", 0),
            ("2d", 172_800_000_000),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.micros(), micros);
            assert_eq!(period.to_string(), text);
        }
        assert_eq!("90s".parse::<Period>().unwrap().to_string(), "1m30s");
    }

    #[test]
    fn wrong_periods_say_why() {
        let error = |text: &str| text.parse::<Period>().unwrap_err();
        assert_eq!(error(""), QuantityError::Empty);
        assert_eq!(error("-2s"), QuantityError::Negative);
        assert_eq!(error("1.5s"), QuantityError::Fraction);
        assert_eq!(error("12"), QuantityError::NoUnit);
        assert_eq!(error("s"), QuantityError::NoNumber("s".into()));
        assert_eq!(error("5 s"), QuantityError::Unit(" s".into()));
        assert_eq!(error("5sec"), QuantityError::Unit("sec".into()));
        assert_eq!(error("1s1m"), QuantityError::Order);
        assert_eq!(error("1s1s"), QuantityError::Order);
        assert!(matches!(error("99999999999999999999s"), QuantityError::TooLarge(_)));
        assert!(matches!(error("18446744073709551615d"), QuantityError::TooLarge(_)));
        assert!(matches!(error("36526d"), QuantityError::TooLarge(_)));
    }

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes) in [("64KiB", 65_536), ("64MiB", 67_108_864), ("0B", 0), ("1000B", 1_000), ("3TiB", 3 << 40)]
        {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes);
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("64MB".parse::<ByteSize>().unwrap_err(), QuantityError::Unit("MB".into()));
    }

    #[test]
    fn quantities_travel_through_serde_as_text() {
        let period: Period = serde_json::from_str("\"2s\"").unwrap();
        assert_eq!(serde_json::to_string(&period).unwrap(), "\"2s\"");
        assert!(serde_json::from_str::<ByteSize>("\"2\"").unwrap_err().to_string().contains("no unit"));
    }
}
