//! The lines of `input.jsonl` and `output.jsonl`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use wasmill_model::{Descriptor, SpaceMigration, Timestamp};

/// Times up to here are written as numbers: nobody means the year 1970 by them.
const SMALL_MICROS: i64 = 1_000_000_000_000;

/// A row as a case has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) time: Timestamp,
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InputLine {
    Row {
        port: u16,
        row: Row,
    },
    /// An entry of the state as another schema version has left it.
    Entry {
        of: SpaceMigration,
        subkey: Vec<u8>,
        row: Row,
    },
    Watermark(Timestamp),
    Wall(Timestamp),
    Flush,
    Restart,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OutputLine {
    pub(super) leaves: Leaves,
    pub(super) row: Row,
    /// What the line said by itself; everything, where it was not read from a file.
    said: Shown,
}

/// Where a row goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaves {
    Port(u16),
    Rejected(String),
}

/// Which columns are shown and compared: those that any line of the expectation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    time: bool,
    key: bool,
}

impl Shown {
    pub(super) const ALL: Self = Self { time: true, key: true };

    /// What the lines of an expectation speak of.
    pub(super) fn by(lines: &[OutputLine]) -> Self {
        Self { time: lines.iter().any(|line| line.said.time), key: lines.iter().any(|line| line.said.key) }
    }
}

/// A line of either file. Which keys may stand together is checked by who reads it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    port: Option<Port>,
    rejected: Option<String>,
    time: Option<Time>,
    #[serde(default, deserialize_with = "present")]
    key: Option<Value>,
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
    text: Option<String>,
    base64: Option<String>,
    state: Option<String>,
    version: Option<u32>,
    subkey: Option<String>,
    subkey_base64: Option<String>,
    watermark: Option<Time>,
    wall: Option<Time>,
    #[serde(default)]
    flush: bool,
    #[serde(default)]
    restart: bool,
    #[serde(default)]
    end: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a port is a number or a name")]
enum Port {
    Number(u16),
    Name(String),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a time is a number of microseconds or a text such as \"2026-01-31T12:00:00Z\"")]
enum Time {
    Micros(i64),
    Text(String),
}

/// `null` is a value.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

impl Time {
    fn read(&self) -> Result<Timestamp, String> {
        match self {
            Self::Micros(micros) => Ok(Timestamp(*micros)),
            Self::Text(text) => text
                .parse::<jiff::Timestamp>()
                .map(|time| Timestamp(time.as_microsecond()))
                .map_err(|_| format!("{text:?} is no time such as \"2026-01-31T12:00:00Z\"")),
        }
    }
}

impl Port {
    fn number(&self, names: &[String]) -> Result<u16, String> {
        let found = match self {
            Self::Number(number) => (usize::from(*number) < names.len().max(1)).then_some(*number),
            Self::Name(name) => names.iter().position(|known| known == name).and_then(|at| u16::try_from(at).ok()),
        };
        found.ok_or_else(|| {
            let port = match self {
                Self::Number(number) => number.to_string(),
                Self::Name(name) => name.clone(),
            };
            format!("there is no port {port}; there is {}", names.join(", "))
        })
    }
}

impl Fields {
    fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            // Every line is line 1 to the parser.
            message.split(" at line 1").next().unwrap_or_default().to_owned()
        })
    }

    fn row(&self) -> Result<Row, String> {
        let time = self.time.as_ref().map_or(Ok(Timestamp(0)), Time::read)?;
        let key = match (&self.key, &self.key_base64) {
            (None, None) => Vec::new(),
            (Some(Value::String(text)), None) => text.clone().into_bytes(),
            (Some(other), None) => other.to_string().into_bytes(),
            (None, Some(coded)) => decoded(coded)?,
            (Some(_), Some(_)) => return Err("`key` and `key_base64` say the same: delete one".into()),
        };
        let value = match (&self.value, &self.text, &self.base64) {
            (Some(json), None, None) => json.to_string().into_bytes(),
            (None, Some(text), None) => text.clone().into_bytes(),
            (None, None, Some(coded)) => decoded(coded)?,
            (None, None, None) => return Err("a row has a `value` (JSON), a `text` or a `base64`".into()),
            _ => return Err("`value`, `text` and `base64` say the same: keep one".into()),
        };
        Ok(Row { time, key, value })
    }

    /// The entry of a space.
    fn entry(&self, space: &str, plugin: &Descriptor) -> Result<InputLine, String> {
        let Some(place) = plugin.spaces.iter().position(|known| known.name == space) else {
            let known: Vec<&str> = plugin.spaces.iter().map(|space| space.name.as_str()).collect();
            return Err(format!("there is no state space {space:?}; there is {}", known.join(", ")));
        };
        let from_version = self.version.ok_or("an entry has the `version` of the schema that has left it")?;
        if self.port.is_some() || self.time.is_some() {
            return Err("an entry of the state has no `port` and no `time`".into());
        }
        let subkey = match (&self.subkey, &self.subkey_base64) {
            (None, None) => Vec::new(),
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(coded)) => decoded(coded)?,
            (Some(_), Some(_)) => return Err("`subkey` and `subkey_base64` say the same: delete one".into()),
        };
        let of = SpaceMigration { space: u16::try_from(place).unwrap_or(u16::MAX), from_version };
        Ok(InputLine::Entry { of, subkey, row: self.row()? })
    }
}

fn decoded(coded: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(coded).map_err(|error| format!("{coded:?} is not base64: {error}"))
}

impl InputLine {
    /// Reads a line of `input.jsonl`.
    pub(super) fn read(text: &str, plugin: &Descriptor) -> Result<Self, String> {
        let fields = Fields::read(text)?;
        if fields.rejected.is_some() {
            return Err("`rejected` belongs to output.jsonl".into());
        }
        let marks = [
            fields.watermark.as_ref().map(|time| time.read().map(Self::Watermark)),
            fields.wall.as_ref().map(|time| time.read().map(Self::Wall)),
            fields.flush.then_some(Ok(Self::Flush)),
            fields.restart.then_some(Ok(Self::Restart)),
            fields.end.then_some(Ok(Self::Watermark(Timestamp::MAX))),
        ];
        let mut marks = marks.into_iter().flatten();
        match (marks.next(), marks.next()) {
            (Some(_), Some(_)) => Err("one thing happens on a line: write two lines".into()),
            (Some(_), None) if fields.state.is_some() || fields.row().is_ok() => {
                Err("a row or a mark, not both: write two lines".into())
            }
            (Some(mark), None) => mark,
            (None, _) if fields.state.is_some() => fields.entry(fields.state.as_deref().unwrap_or_default(), plugin),
            (None, _) if fields.version.is_some() || fields.subkey.is_some() || fields.subkey_base64.is_some() => {
                Err("`version` and `subkey` belong to an entry of the state, which names its space: `state`".into())
            }
            (None, _) => {
                let port = fields.port.as_ref().map_or(Ok(0), |port| port.number(&plugin.inputs))?;
                Ok(Self::Row { port, row: fields.row()? })
            }
        }
    }
}

impl OutputLine {
    pub(super) fn new(leaves: Leaves, row: Row) -> Self {
        Self { leaves, row, said: Shown::ALL }
    }

    /// Reads a line of `output.jsonl`.
    pub(super) fn read(text: &str, plugin: &Descriptor) -> Result<Self, String> {
        let fields = Fields::read(text)?;
        let marked =
            fields.watermark.is_some() || fields.wall.is_some() || fields.flush || fields.restart || fields.end;
        if marked || fields.state.is_some() {
            return Err("marks and entries of the state belong to input.jsonl".into());
        }
        let leaves = match &fields.rejected {
            Some(reason) => Leaves::Rejected(reason.clone()),
            None => Leaves::Port(fields.port.as_ref().map_or(Ok(0), |port| port.number(&plugin.outputs))?),
        };
        let said = Shown { time: fields.time.is_some(), key: fields.key.is_some() || fields.key_base64.is_some() };
        Ok(Self { leaves, row: fields.row()?, said })
    }

    /// Where it stands among lines that are sorted by port; rejected rows come last.
    pub(super) fn place(&self) -> u32 {
        match &self.leaves {
            Leaves::Port(port) => u32::from(*port),
            Leaves::Rejected(_) => u32::MAX,
        }
    }

    /// The line as JSON.
    pub(super) fn render(&self, plugin: &Descriptor, shown: Shown) -> String {
        let mut line = Map::new();
        match &self.leaves {
            Leaves::Port(0) => {}
            Leaves::Port(port) => {
                let name = plugin.outputs.get(usize::from(*port)).map_or((*port).into(), |name| name.as_str().into());
                line.insert("port".into(), name);
            }
            Leaves::Rejected(reason) => {
                line.insert("rejected".into(), reason.as_str().into());
            }
        }
        if shown.time {
            line.insert("time".into(), time(self.row.time));
        }
        if shown.key {
            match str::from_utf8(&self.row.key) {
                Ok("") => {}
                Ok(key) => drop(line.insert("key".into(), key.into())),
                Err(_) => drop(line.insert("key_base64".into(), BASE64.encode(&self.row.key).into())),
            }
        }
        let (name, value) = match (serde_json::from_slice(&self.row.value), str::from_utf8(&self.row.value)) {
            (Ok(json), _) => ("value", json),
            (Err(_), Ok(text)) => ("text", text.into()),
            (Err(_), Err(_)) => ("base64", BASE64.encode(&self.row.value).into()),
        };
        line.insert(name.into(), value);
        Value::Object(line).to_string()
    }
}

fn time(time: Timestamp) -> Value {
    match jiff::Timestamp::from_microsecond(time.0) {
        Ok(text) if time.0.unsigned_abs() >= SMALL_MICROS.unsigned_abs() => text.to_string().into(),
        _ => time.0.into(),
    }
}

/// Lines as a file has them, in the order in which rows came out.
pub(super) fn file(lines: &[OutputLine], plugin: &Descriptor, shown: Shown) -> String {
    lines.iter().map(|line| line.render(plugin, shown) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use wasmill_model::SpaceDescriptor;

    use super::*;

    fn plugin() -> Descriptor {
        Descriptor {
            name: "p".into(),
            version: "1".into(),
            inputs: vec!["left".into(), "right".into()],
            outputs: vec!["out".into(), "odd".into()],
            spaces: vec![SpaceDescriptor { name: "seen".into(), schema_version: 2, ttl: None }],
            columns: wasmill_model::ColumnSet::ALL,
            watermarks: false,
            timed: false,
            aggregate: false,
            migrates: false,
        }
    }

    fn input(text: &str) -> Result<InputLine, String> {
        InputLine::read(text, &plugin())
    }

    #[test]
    fn rows_say_port_time_key_and_value() {
        let Ok(InputLine::Row { port, row }) =
            input(r#"{"port": "right", "time": "1970-01-01T00:00:02Z", "key": 7, "value": {"b": 1, "a": [null]}}"#)
        else {
            panic!("a row")
        };
        assert_eq!((port, row.time, row.key.as_slice()), (1, Timestamp(2_000_000), b"7".as_slice()));
        assert_eq!(row.value, br#"{"b":1,"a":[null]}"#);
        let rows = [r#"{"value": null}"#, r#"{"text": "null"}"#, r#"{"base64": "bnVsbA=="}"#];
        for text in rows {
            assert!(matches!(input(text), Ok(InputLine::Row { row, .. }) if row.value == b"null"), "{text}");
        }
    }

    #[test]
    fn entries_of_older_state_name_space_and_version() {
        let entry = input(r#"{"state": "seen", "version": 1, "key": "a", "subkey": "b", "base64": "AQI="}"#);
        let of = SpaceMigration { space: 0, from_version: 1 };
        let row = Row { time: Timestamp(0), key: b"a".to_vec(), value: vec![1, 2] };
        assert_eq!(entry, Ok(InputLine::Entry { of, subkey: b"b".to_vec(), row }));
    }

    #[test]
    fn marks_move_time_and_instances() {
        assert_eq!(input(r#"{"watermark": 5}"#), Ok(InputLine::Watermark(Timestamp(5))));
        assert_eq!(input(r#"{"wall": 5}"#), Ok(InputLine::Wall(Timestamp(5))));
        assert_eq!(input(r#"{"flush": true}"#), Ok(InputLine::Flush));
        assert_eq!(input(r#"{"restart": true}"#), Ok(InputLine::Restart));
        assert_eq!(input(r#"{"end": true}"#), Ok(InputLine::Watermark(Timestamp::MAX)));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (text, expected) in [
            ("{", "EOF"),
            ("{}", "a row has a `value`"),
            (r#"{"valeu": 1}"#, "unknown field `valeu`"),
            (r#"{"value": 1, "text": "1"}"#, "keep one"),
            (r#"{"value": 1, "watermark": 1}"#, "write two lines"),
            (r#"{"flush": true, "watermark": 1}"#, "write two lines"),
            (r#"{"state": "sene", "version": 1, "value": 1}"#, "no state space \"sene\"; there is seen"),
            (r#"{"state": "seen", "value": 1}"#, "the `version` of the schema"),
            (r#"{"state": "seen", "version": 1, "value": 1, "time": 1}"#, "no `time`"),
            (r#"{"version": 1, "value": 1}"#, "names its space: `state`"),
            (r#"{"value": 1, "port": "up"}"#, "no port up; there is left, right"),
            (r#"{"value": 1, "port": 2}"#, "no port 2"),
            (r#"{"value": 1, "time": "noon"}"#, "\"noon\" is no time"),
            (r#"{"value": 1, "time": 1.5}"#, "a time is a number of microseconds"),
            (r#"{"base64": "?"}"#, "not base64"),
            (r#"{"value": 1, "rejected": "x"}"#, "belongs to output.jsonl"),
        ] {
            let error = input(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(OutputLine::read(r#"{"flush": true}"#, &plugin()).is_err());
    }

    #[test]
    fn columns_that_no_expectation_mentions_are_not_shown() {
        let read = |text| OutputLine::read(text, &plugin()).expect("a line");
        let bare = [read(r#"{"value": 1}"#), read(r#"{"port": 1, "text": "x y"}"#)];
        let got = OutputLine::new(
            Leaves::Port(1),
            Row { time: Timestamp(1_700_000_000_000_000), key: b"k".to_vec(), value: b"x y".to_vec() },
        );
        assert_eq!(got.render(&plugin(), Shown::by(&bare)), r#"{"port":"odd","text":"x y"}"#);
        assert_eq!(
            got.render(&plugin(), Shown::ALL),
            r#"{"port":"odd","time":"2023-11-14T22:13:20Z","key":"k","text":"x y"}"#
        );
        let again = read(&got.render(&plugin(), Shown::ALL));
        assert_eq!((again.row, again.said), (got.row, Shown::ALL));
    }
}
