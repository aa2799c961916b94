use serde::Deserialize;
use wasmill_sdk::json::{Kind as JsonKind, Pointer};
use wasmill_sdk::prelude::*;
use wasmill_sdk::serde_json::{Map, Value as Json};

use crate::number::Number;
use crate::part::{Kind, Scalar};

/// Names by kind of result. Maps keep the order in which they are written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    count: Option<bool>,
    sum: Map<String, Json>,
    mean: Map<String, Json>,
    min: Map<String, Json>,
    max: Map<String, Json>,
    distinct: Map<String, Json>,
    top: Map<String, Json>,
    quantile: Map<String, Json>,
}

/// One result: its name, what it is, and of which field.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pointer: Option<Pointer>,
    /// Of `top`: how many. Of `quantile`: which.
    pub(crate) limit: usize,
    pub(crate) at: Vec<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    field: String,
    #[serde(default = "ten")]
    limit: usize,
}

fn ten() -> usize {
    10
}

/// Results that a `top` may have.
const TOP_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Quantile {
    field: String,
    at: Vec<f64>,
}

/// Names that every result has.
const TAKEN: [&str; 3] = ["key", "start", "end"];

impl Config {
    pub(crate) fn fields(self) -> Result<Vec<Field>, ConfigError> {
        let plain = [
            ("sum", Kind::Sum, self.sum),
            ("mean", Kind::Mean, self.mean),
            ("min", Kind::Min, self.min),
            ("max", Kind::Max, self.max),
            ("distinct", Kind::Distinct, self.distinct),
        ];
        let mut fields = Vec::new();
        for (under, kind, names) in plain {
            for (name, json) in names {
                let at = format!("{under}.{name}");
                let Json::String(text) = json else {
                    return Err(ConfigError::at(
                        at,
                        format!("expected a JSON pointer such as \"/price\", found {json}"),
                    ));
                };
                fields.push(Field { name, kind, pointer: Some(pointer(&at, &text)?), limit: 0, at: Vec::new() });
            }
        }
        for (name, json) in self.top {
            let at = format!("top.{name}");
            let top: Top = if json.is_string() {
                Ok(Top { field: json.as_str().unwrap_or_default().into(), limit: ten() })
            } else {
                read(&at, json)
            }?;
            if !(1..=TOP_MAX).contains(&top.limit) {
                return Err(ConfigError::at(
                    format!("{at}.limit"),
                    format!("expected 1 to {TOP_MAX}, found {}", top.limit),
                ));
            }
            let pointer = Some(pointer(&format!("{at}.field"), &top.field)?);
            fields.push(Field { name, kind: Kind::Top, pointer, limit: top.limit, at: Vec::new() });
        }
        for (name, json) in self.quantile {
            let at = format!("quantile.{name}");
            let quantile: Quantile = read(&at, json)?;
            if quantile.at.is_empty() || quantile.at.iter().any(|q| !(0.0..=1.0).contains(q)) {
                return Err(ConfigError::at(format!("{at}.at"), "expected numbers from 0 to 1, such as [0.5, 0.99]"));
            }
            let pointer = Some(pointer(&format!("{at}.field"), &quantile.field)?);
            fields.push(Field { name, kind: Kind::Quantile, pointer, limit: 0, at: quantile.at });
        }
        if self.count.unwrap_or(fields.is_empty()) {
            fields
                .insert(0, Field { name: "count".into(), kind: Kind::Count, pointer: None, limit: 0, at: Vec::new() });
        }
        if fields.is_empty() {
            return Err(ConfigError::new("nothing to compute; try count = true"));
        }
        for (at, field) in fields.iter().enumerate() {
            if TAKEN.contains(&field.name.as_str()) || fields[..at].iter().any(|other| other.name == field.name) {
                return Err(ConfigError::new(format!("two results are called `{}`", field.name)));
            }
        }
        Ok(fields)
    }
}

fn read<T: serde::de::DeserializeOwned>(at: &str, json: Json) -> Result<T, ConfigError> {
    T::deserialize(json).map_err(|error| ConfigError::at(at, error.to_string()))
}

fn pointer(at: &str, text: &str) -> Result<Pointer, ConfigError> {
    text.parse().map_err(|error: wasmill_sdk::json::PointerError| ConfigError::at(at, error.to_string()))
}

impl Field {
    /// The field of an event, `None` where it has none.
    pub(crate) fn read(&self, event: Event<'_>) -> Result<Option<Scalar>, Reject> {
        let Some(pointer) = &self.pointer else { return Ok(None) };
        let Some(raw) = event.json().pointer(pointer)?.filter(|raw| !raw.is_null()) else { return Ok(None) };
        let number = || Number::read(raw).map(Scalar::Number);
        let text = || raw.as_str().map(|text| Scalar::Text(text.into_owned()));
        let scalar = match (self.kind, raw.kind()) {
            (_, JsonKind::Number) => number(),
            (Kind::Min | Kind::Max | Kind::Distinct | Kind::Top, JsonKind::String) => text(),
            (Kind::Distinct | Kind::Top, _) => Some(Scalar::Text(String::from_utf8_lossy(raw.bytes()).into_owned())),
            _ => None,
        };
        match scalar {
            Some(scalar) => Ok(Some(scalar)),
            None => {
                let shown: String = String::from_utf8_lossy(raw.bytes()).chars().take(40).collect();
                let wanted =
                    if matches!(self.kind, Kind::Min | Kind::Max) { "a number or a string" } else { "a number" };
                Err(Reject::new(format!("`{pointer}` is {shown}, expected {wanted} for `{}`", self.name)))
            }
        }
    }
}
