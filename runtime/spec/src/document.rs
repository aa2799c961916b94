use std::sync::Arc;

use indexmap::IndexMap;
use toml::de::{DeTable, DeValue};

use crate::{Diagnostic, SourceFile, Span};

/// Largest job file, in bytes.
pub const JOB_BYTES_MAX: usize = 1 << 20;

/// A parsed TOML file that knows where everything stands.
#[derive(Debug, Clone)]
pub struct Document {
    source: Arc<SourceFile>,
    root: Item,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// Where the key stands; for an element of an array where the value stands.
    pub(crate) key: Span,
    /// Where the value stands; for a table its header.
    pub(crate) span: Span,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(toml::value::Datetime),
    Array(Vec<Item>),
    Table(Table),
}

pub(crate) type Table = IndexMap<String, Item>;

impl Value {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    pub(crate) fn to_toml(&self) -> toml::Value {
        match self {
            Self::String(text) => toml::Value::String(text.clone()),
            Self::Integer(number) => toml::Value::Integer(*number),
            Self::Float(number) => toml::Value::Float(*number),
            Self::Boolean(yes) => toml::Value::Boolean(*yes),
            Self::Datetime(date) => toml::Value::Datetime(*date),
            Self::Array(items) => toml::Value::Array(items.iter().map(|item| item.value.to_toml()).collect()),
            Self::Table(table) => {
                toml::Value::Table(table.iter().map(|(key, item)| (key.clone(), item.value.to_toml())).collect())
            }
        }
    }

    /// The same in JSON, dates as strings; `None` for a number that JSON does not have.
    pub(crate) fn to_json(&self) -> Option<serde_json::Value> {
        Some(match self {
            Self::String(text) => text.as_str().into(),
            Self::Integer(number) => (*number).into(),
            Self::Float(number) => serde_json::Number::from_f64(*number)?.into(),
            Self::Boolean(yes) => (*yes).into(),
            Self::Datetime(date) => date.to_string().into(),
            Self::Array(items) => items.iter().map(|item| item.value.to_json()).collect::<Option<_>>()?,
            Self::Table(table) => serde_json::Value::Object(
                table
                    .iter()
                    .map(|(key, item)| Some((key.clone(), item.value.to_json()?)))
                    .collect::<Option<serde_json::Map<_, _>>>()?,
            ),
        })
    }
}

impl Document {
    /// Its values, without their places.
    pub(crate) fn to_toml(&self) -> toml::Table {
        match self.root.value.to_toml() {
            toml::Value::Table(table) => table,
            _ => toml::Table::new(),
        }
    }

    /// Parses a TOML file.
    ///
    /// # Errors
    /// Where the file is too large, not UTF-8 or not TOML: everything that is wrong, at once.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let whole_file = |text: &str, message: String, hint: &str| {
            let source = Arc::new(SourceFile { name: name.to_owned(), text: text.to_owned() });
            vec![Diagnostic { span: None, ..Diagnostic::error(&source, 0..0, message) }.hint(hint)]
        };
        if bytes.len() > JOB_BYTES_MAX {
            let message = format!("a job file has at most {JOB_BYTES_MAX} bytes, this one has {}", bytes.len());
            return Err(whole_file("", message, "is this the data instead of the job?"));
        }
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
                let message = format!("byte {} on line {line} is not UTF-8", error.valid_up_to());
                return Err(whole_file("", message, "a job file is TOML text in UTF-8"));
            }
        };
        let source = Arc::new(SourceFile { name: name.to_owned(), text: text.to_owned() });
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(errors.iter().map(|error| syntax(&source, error)).collect());
        }
        let mut wrong = Vec::new();
        let root = owned_table(&source, table.get_ref(), &mut wrong);
        if wrong.is_empty() {
            let item = Item { key: 0..0, span: 0..0, value: Value::Table(root) };
            Ok(Self { source, root: item })
        } else {
            Err(wrong)
        }
    }

    /// The file.
    #[must_use]
    pub fn source(&self) -> &Arc<SourceFile> {
        &self.source
    }

    pub(crate) fn root(&self) -> &Item {
        &self.root
    }

    pub(crate) fn get(&self, path: &[&str]) -> Option<&Item> {
        path.iter().try_fold(&self.root, |item, key| item.child(key))
    }

    /// Where the value at a path of keys and list places stands, or else the nearest thing around
    /// it: the key of the table it is missing from.
    #[must_use]
    pub fn locate(&self, path: &[&str]) -> Span {
        let mut item = &self.root;
        for key in path {
            match item.child(key) {
                Some(child) => item = child,
                None => return item.key.clone(),
            }
        }
        match item.value {
            Value::Table(_) if item.span.is_empty() => item.key.clone(),
            _ => item.span.clone(),
        }
    }
}

impl Item {
    fn child(&self, key: &str) -> Option<&Item> {
        match &self.value {
            Value::Table(table) => table.get(key),
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }
}

fn syntax(source: &Arc<SourceFile>, error: &toml::de::Error) -> Diagnostic {
    let message = error.message();
    let span = error.span().unwrap_or(0..0);
    let hint = match message {
        "duplicate key" => "a key stands once in its table; delete or rename one",
        _ => "a job file is TOML: `key = value`, text in \"quotes\", tables under `[source.NAME]`",
    };
    Diagnostic::error(source, span, format!("not TOML: {message}")).hint(hint)
}

fn owned_table(source: &Arc<SourceFile>, table: &DeTable<'_>, wrong: &mut Vec<Diagnostic>) -> Table {
    let mut owned = Table::with_capacity(table.len());
    for (key, value) in table {
        let (name, key) = (key.get_ref().to_string(), key.span());
        let (span, value) = (value.span(), owned_value(source, value.span(), value.get_ref(), wrong));
        owned.insert(name, Item { key, span, value });
    }
    owned
}

fn owned_value(source: &Arc<SourceFile>, span: Span, value: &DeValue<'_>, wrong: &mut Vec<Diagnostic>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Integer(parsed.unwrap_or_else(|_| {
                let message = format!("{number} does not fit 64 bits");
                wrong.push(Diagnostic::error(source, span, message).hint("write a smaller number, or a string"));
                0
            }))
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(date) => Value::Datetime(*date),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| Item {
                    key: item.span(),
                    span: item.span(),
                    value: owned_value(source, item.span(), item.get_ref(), wrong),
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(owned_table(source, table, wrong)),
    }
}
