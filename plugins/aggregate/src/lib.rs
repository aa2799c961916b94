#![doc = include_str!("../README.md")]

mod config;
mod distinct;
mod number;
mod part;
mod quantile;
mod top;

use serde::{Deserialize, Serialize};
use wasmill_sdk::prelude::*;
use wasmill_sdk::{Codec, CodecError, serde_json};

use config::{Config, Field};
use part::Part;

struct Standard {
    fields: Vec<Field>,
}

/// What is known of a window's events: one part for each field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Known {
    count: u64,
    parts: Vec<Part>,
}

impl Codec for Known {
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        match postcard::to_extend(self, std::mem::take(out)) {
            Ok(bytes) => *out = bytes,
            // Everything here has a form in bytes; an empty accumulator would be a new one.
            Err(_) => out.truncate(start),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        postcard::from_bytes(bytes).map_err(|error| CodecError::new(error.to_string()))
    }
}

impl Aggregate for Standard {
    type Config = Config;
    type Accumulator = Known;
    const COLUMNS: Columns = Columns::VALUES;

    fn open(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { fields: config.fields()? })
    }

    fn fold(&self, known: &mut Known, event: Event<'_>) -> Result<(), Reject> {
        // All fields are read before any counts: a rejected event leaves nothing.
        let mut found = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            found.push(field.read(event)?);
        }
        known.parts.resize_with(self.fields.len(), || Part::None);
        known.count += 1;
        for ((field, part), value) in self.fields.iter().zip(&mut known.parts).zip(found) {
            if let Some(value) = value {
                part.add(field.kind, value);
            }
        }
        Ok(())
    }

    fn merge(&self, into: &mut Known, from: Known) {
        into.count += from.count;
        into.parts.resize_with(self.fields.len(), || Part::None);
        for (part, other) in into.parts.iter_mut().zip(from.parts) {
            part.merge(other);
        }
    }

    fn finish(&self, pane: Pane<'_>, known: Known, out: &mut Results) {
        let mut row = serde_json::Map::new();
        row.insert("key".into(), String::from_utf8_lossy(pane.key()).into());
        row.insert("start".into(), pane.start().div_euclid(1000).into());
        row.insert("end".into(), pane.end().div_euclid(1000).into());
        let mut parts = known.parts.into_iter();
        for field in &self.fields {
            let part = parts.next().unwrap_or(Part::None);
            row.insert(field.name.clone(), part.result(field, known.count));
        }
        out.emit(serde_json::Value::Object(row).to_string());
    }
}

wasmill_sdk::aggregate!(Standard);

#[cfg(test)]
mod tests;
