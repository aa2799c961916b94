#![doc = include_str!("../README.md")]

use std::collections::HashMap;

use serde::Deserialize;
use wasmill_sdk::json::{Kind, Pointer, Raw};
use wasmill_sdk::prelude::*;
use wasmill_sdk::serde_json;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    into: String,
    table: Option<serde_json::Map<String, serde_json::Value>>,
    by: Option<String>,
    #[serde(default)]
    missing: Missing,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Missing {
    #[default]
    Keep,
    Drop,
    Null,
    Reject,
}

struct Enrich {
    /// The name of the new field as JSON, with its colon.
    into: Vec<u8>,
    missing: Missing,
    table: Table,
}

enum Table {
    /// Entries as JSON, by key.
    Given { entries: HashMap<String, Vec<u8>>, by: Option<Pointer> },
    /// The entry of the event key.
    Streamed(Value<Vec<u8>>),
}

impl Operator for Enrich {
    type Config = Config;
    const INPUTS: &'static [&'static str] = &["in", "table"];

    fn open(config: Config, setup: &mut Setup) -> Result<Self, ConfigError> {
        let by = config.by.map(|by| by.parse());
        let by = by
            .transpose()
            .map_err(|error: wasmill_sdk::json::PointerError| ConfigError::at("by", error.to_string()))?;
        let table = match config.table {
            Some(table) => {
                let entries = table.into_iter().map(|(key, entry)| (key, entry.to_string().into_bytes())).collect();
                Table::Given { entries, by }
            }
            None if by.is_some() => {
                let message = "goes with `table`; entries that come by the port `table` belong to the event's key";
                return Err(ConfigError::at("by", message));
            }
            None => Table::Streamed(setup.value("table")),
        };
        let into = [serde_json::Value::from(config.into).to_string().as_bytes(), b":"].concat();
        Ok(Self { into, missing: config.missing, table })
    }

    fn event(&mut self, event: Event<'_>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        if event.port() == 1 {
            return self.learn(event);
        }
        let body = body(event.value())?;
        match &self.table {
            Table::Given { entries, by } => {
                let key = match by {
                    None => std::str::from_utf8(event.key()).ok().map(Into::into),
                    Some(by) => event.json().pointer(by)?.and_then(text),
                };
                let entry = key.and_then(|key| entries.get(&*key));
                self.emit(body, entry.map(Vec::as_slice), ctx)
            }
            Table::Streamed(table) => table.with(|entry| self.emit(body, entry.map(Vec::as_slice), ctx)),
        }
    }
}

wasmill_sdk::operator!(Enrich, stateful);

/// A string as its text, anything else as it is written.
fn text(raw: Raw<'_>) -> Option<std::borrow::Cow<'_, str>> {
    raw.as_str().or_else(|| std::str::from_utf8(raw.bytes()).ok().map(Into::into))
}

/// An object up to its closing brace.
fn body(json: &[u8]) -> Result<&[u8], Reject> {
    let object = Raw::document(json)?;
    match object.bytes() {
        [body @ .., b'}'] if object.kind() == Kind::Object => Ok(body),
        _ => Err(Reject::new("not a JSON object")),
    }
}

impl Enrich {
    fn learn(&self, event: Event<'_>) -> Result<(), Reject> {
        let Table::Streamed(table) = &self.table else {
            wasmill_sdk::reject!("the table stands in the configuration; nothing may come by the port `table`")
        };
        let entry = event.value().trim_ascii();
        if entry.is_empty() || entry == b"null" {
            table.take();
        } else {
            // An entry becomes part of events: it has to be a whole JSON value.
            serde_json::from_slice::<serde::de::IgnoredAny>(entry)?;
            table.set(entry.to_vec());
        }
        Ok(())
    }

    fn emit(&self, body: &[u8], entry: Option<&[u8]>, ctx: &mut Context<'_>) -> Result<(), Reject> {
        let entry = match (entry, self.missing) {
            (Some(entry), _) => entry,
            (None, Missing::Null) => b"null",
            (None, Missing::Keep) => {
                ctx.forward();
                return Ok(());
            }
            (None, Missing::Drop) => return Ok(()),
            (None, Missing::Reject) => wasmill_sdk::reject!("the table has no entry for it"),
        };
        let empty = body.get(1..).unwrap_or_default().trim_ascii().is_empty();
        ctx.emit_with(|out| {
            out.extend_from_slice(body);
            if !empty {
                out.push(b',');
            }
            out.extend_from_slice(&self.into);
            out.extend_from_slice(entry);
            out.push(b'}');
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wasmill_sdk::testing::Tester;

    use super::Enrich;

    #[test]
    fn entries_of_a_given_table_are_added() {
        let config = r#"{"by": "/c", "into": "air\"line", "table": {"AA": "American", "7": {"n": 1}}}"#;
        let mut test = Tester::<Enrich>::new(config);
        test.send_all([("", r#"{"c":"AA"}"#), ("", r#"{"c":7} "#), ("", r#"{"c":"ZZ"}"#), ("", "{}"), ("", "[]")]);
        assert_eq!(
            test.values(),
            [r#"{"c":"AA","air\"line":"American"}"#, r#"{"c":7,"air\"line":{"n":1}}"#, r#"{"c":"ZZ"}"#, "{}"]
        );
        assert_eq!(test.rejected()[0].reason, "not a JSON object");
    }

    #[test]
    fn the_newest_entry_of_a_key_is_added() {
        let mut test = Tester::<Enrich>::new(r#"{"into": "t", "missing": "null"}"#);
        test.send("a", "{}");
        test.send_at(1, [(0, "a", r#"{"x":1}"#), (0, "b", "[2]"), (0, "a", r#"{"x":2}"#), (0, "c", "{broken")]);
        test.restart();
        test.send_all([("a", r#"{"e":1}"#), ("b", "{ }"), ("c", "{}")]);
        test.send_at(1, [(0, "a", "null")]);
        test.send("a", "{}");
        let expected = [r#"{"t":null}"#, r#"{"e":1,"t":{"x":2}}"#, r#"{ "t":[2]}"#, r#"{"t":null}"#, r#"{"t":null}"#];
        assert_eq!((test.values(), test.rejected().len()), (expected.map(str::to_owned).to_vec(), 1));
    }

    #[test]
    fn events_without_an_entry_go_as_configured() {
        let run = |missing: &str| {
            let mut test = Tester::<Enrich>::new(&format!(r#"{{"into": "t", "table": {{}}, "missing": "{missing}"}}"#));
            test.send("k", "{}");
            (test.values(), test.rejected().len())
        };
        assert_eq!(run("keep"), (vec!["{}".to_owned()], 0));
        assert_eq!(run("drop"), (vec![], 0));
        assert_eq!(run("null"), (vec![r#"{"t":null}"#.to_owned()], 0));
        assert_eq!(run("reject"), (vec![], 1));
        let error = Tester::<Enrich>::open(r#"{"into": "t", "by": "/x"}"#).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.starts_with("config: `by`: goes with `table`")));
    }
}
