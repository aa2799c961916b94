//! Reads values out of a table and collects everything that is wrong on the way.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use wasmill_scan::Pointer;

use crate::document::{Item, Table, Value};
use crate::keys::Shape;
use crate::{ByteSize, Diagnostic, Period, QuantityError, SourceFile, Span, did_you_mean, listed};

/// Most diagnostics of one file: behind that they help nobody.
const DIAGNOSTICS_MAX: usize = 100;

/// What is wrong so far.
pub(crate) struct Problems {
    pub(crate) source: Arc<SourceFile>,
    list: Vec<Diagnostic>,
}

impl Problems {
    pub(crate) fn new(source: &Arc<SourceFile>) -> Self {
        Self { source: Arc::clone(source), list: Vec::new() }
    }

    /// Whether one more would not be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= DIAGNOSTICS_MAX
    }

    /// Whether nothing is wrong so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if !self.is_full() {
            self.list.push(diagnostic);
        }
    }

    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Diagnostic::error(&self.source, span.clone(), message).hint(hint));
    }

    pub(crate) fn warning(&mut self, span: &Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Diagnostic::warning(&self.source, span.clone(), message).hint(hint));
    }

    /// Everything in the order of the file.
    pub(crate) fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|diagnostic| diagnostic.span.as_ref().map(|span| span.start));
        self.list
    }

    /// A value that is not what its key wants.
    fn mismatch(&mut self, what: &str, wanted: &str, item: &Item, example: &str) {
        let message = format!("{what} is {wanted}, not {}", item.value.kind());
        self.error(&item.span, message, format!("write it like {example}"));
    }
}

/// A table with the keys it may have.
pub(crate) struct Reader<'d> {
    table: &'d Table,
    /// Where the table starts, for what is missing.
    at: Span,
    /// What people call this one, such as "source `sensors`".
    what: String,
    shape: &'static Shape,
}

impl<'d> Reader<'d> {
    /// Checks that `item` is a table with all the keys it needs and none that it cannot have.
    pub(crate) fn new(p: &mut Problems, item: &'d Item, what: String, shape: &'static Shape) -> Option<Self> {
        let Value::Table(table) = &item.value else {
            let message = format!("{what} is a table, not {}", item.value.kind());
            p.error(&item.span, message, format!("write a table with {}", listed(shape.names())));
            return None;
        };
        let reader = Self { table, at: item.key.clone(), what, shape };
        for (key, item) in table {
            reader.check_key(p, key, item);
        }
        for key in shape.keys.iter().filter(|key| key.required && !table.contains_key(key.name)) {
            let renamed = table.keys().any(|k| !shape.names().any(|n| n == k) && did_you_mean(k, [key.name]).is_some());
            if !renamed {
                let hint = format!(
                    "{} needs {}",
                    shape.what,
                    listed(shape.keys.iter().filter(|k| k.required).map(|k| k.name))
                );
                p.error(&reader.at, format!("{} has no `{}`", reader.what, key.name), hint);
            }
        }
        Some(reader)
    }

    fn check_key(&self, p: &mut Problems, key: &str, item: &Item) {
        if p.is_full() || self.shape.names().any(|name| name == key) {
            return;
        }
        if let Some((_, purpose)) = self.shape.planned.iter().find(|(name, _)| *name == key) {
            let message = format!("`{key}` ({purpose}) is not supported yet");
            return p.error(
                &item.key,
                message,
                format!("{} takes {} for now", self.shape.what, listed(self.shape.names())),
            );
        }
        // A connector checks its own options, which may look like ours; only a typo of what has to be there is
        // caught here.
        let meant = did_you_mean(key, self.shape.names());
        let is_needed = |name: &str| self.shape.keys.iter().any(|key| key.required && key.name == name);
        let is_typo =
            |meant: &str| !self.table.contains_key(meant) && is_needed(meant) && strsim::osa_distance(key, meant) <= 2;
        if self.shape.open && !meant.is_some_and(is_typo) {
            return;
        }
        let hint = match meant {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("{} takes {}", self.shape.what, listed(self.shape.names())),
        };
        p.error(&item.key, format!("unknown key `{key}` in {}", self.what), hint);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'d Item> {
        debug_assert!(self.shape.names().any(|name| name == key), "{key} is not declared in keys.rs");
        self.table.get(key)
    }

    /// What is left for the connector.
    pub(crate) fn options(&self) -> toml::Table {
        let rest = self.table.iter().filter(|(key, _)| !self.shape.names().any(|name| name == *key));
        rest.map(|(key, item)| (key.clone(), item.value.to_toml())).collect()
    }

    pub(crate) fn text(&self, p: &mut Problems, key: &str, example: &str) -> Option<(&'d str, &'d Item)> {
        let item = self.get(key)?;
        match &item.value {
            Value::String(text) if !text.is_empty() => Some((text, item)),
            Value::String(_) => {
                p.error(&item.span, format!("`{key}` is empty"), format!("write it like {example}"));
                None
            }
            _ => {
                p.mismatch(&format!("`{key}`"), "a string", item, example);
                None
            }
        }
    }

    pub(crate) fn pointer(&self, p: &mut Problems, key: &str) -> Option<Pointer> {
        Self::pointer_of(p, key, self.get(key)?)
    }

    /// One pointer, or a list of at least one.
    pub(crate) fn pointers(&self, p: &mut Problems, key: &str) -> Vec<Pointer> {
        let Some(item) = self.get(key) else { return Vec::new() };
        match &item.value {
            Value::Array(items) if items.is_empty() => {
                p.error(&item.span, format!("`{key}` is empty"), "write it like [\"/region\", \"/kind\"]");
                Vec::new()
            }
            Value::Array(items) => items.iter().filter_map(|item| Self::pointer_of(p, key, item)).collect(),
            _ => Self::pointer_of(p, key, item).into_iter().collect(),
        }
    }

    fn pointer_of(p: &mut Problems, key: &str, item: &Item) -> Option<Pointer> {
        let Value::String(text) = &item.value else {
            p.mismatch(&format!("`{key}`"), "a JSON pointer", item, "\"/user/id\"");
            return None;
        };
        match text.parse::<Pointer>() {
            Ok(pointer) => Some(pointer),
            Err(_) if !text.starts_with('/') => {
                let message = format!("`{key}` is a JSON pointer, and {text:?} has no slash in front");
                p.error(&item.span, message, format!("write \"/{}\"", text.replace('.', "/")));
                None
            }
            Err(error) => {
                p.error(&item.span, format!("`{key}`: {error}"), "write it like \"/user/id\"");
                None
            }
        }
    }

    pub(crate) fn period(&self, p: &mut Problems, key: &str, range: RangeInclusive<Period>) -> Option<Period> {
        self.quantity(p, key, "a length of time", "\"200ms\" or \"1h30m\"; units are d, h, m, s, ms, us", range)
    }

    pub(crate) fn whole(&self, p: &mut Problems, key: &str, range: RangeInclusive<i64>) -> Option<u64> {
        let item = self.get(key)?;
        match item.value {
            Value::Integer(number) if range.contains(&number) => Some(number.unsigned_abs()),
            _ => {
                let message = format!("`{key}` is a whole number from {} to {}", range.start(), range.end());
                p.error(&item.span, message, "write it like 1000");
                None
            }
        }
    }

    pub(crate) fn size(&self, p: &mut Problems, key: &str, range: RangeInclusive<ByteSize>) -> Option<ByteSize> {
        self.quantity(p, key, "a size", "\"64KiB\" or \"64MiB\"; units are B, KiB, MiB, GiB, TiB", range)
    }

    fn quantity<Q>(
        &self,
        p: &mut Problems,
        key: &str,
        wanted: &str,
        example: &str,
        range: RangeInclusive<Q>,
    ) -> Option<Q>
    where
        Q: FromStr<Err = QuantityError> + PartialOrd + Display,
    {
        let item = self.get(key)?;
        let Value::String(text) = &item.value else {
            p.mismatch(&format!("`{key}`"), wanted, item, example);
            return None;
        };
        match text.parse::<Q>() {
            Ok(value) if range.contains(&value) => Some(value),
            Ok(value) => {
                let message = format!("`{key}` is {value}, out of its range");
                p.error(&item.span, message, format!("it may be {} to {}", range.start(), range.end()));
                None
            }
            Err(error) => {
                let message = format!("`{key}` is {wanted}, and {text:?} is none: {error}");
                p.error(&item.span, message, format!("write it like {example}"));
                None
            }
        }
    }

    pub(crate) fn integer<T>(&self, p: &mut Problems, key: &str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display,
    {
        let item = self.get(key)?;
        let hint = format!("it may be {} to {}", range.start(), range.end());
        let Value::Integer(number) = item.value else {
            let message = format!("`{key}` is an integer, not {}", item.value.kind());
            p.error(&item.span, message, hint);
            return None;
        };
        let value = T::try_from(number).ok().filter(|value| range.contains(value));
        if value.is_none() {
            p.error(&item.span, format!("`{key}` is {number}, out of its range"), hint);
        }
        value
    }

    pub(crate) fn one_of<T: Copy>(&self, p: &mut Problems, key: &str, names: &[(&'static str, T)]) -> Option<T> {
        let all = || listed(names.iter().map(|(name, _)| *name));
        let (text, item) = self.text(p, key, &format!("\"{}\"", names[0].0))?;
        let found = names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let hint = match did_you_mean(text, names.iter().map(|(name, _)| *name)) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("it is one of {}", all()),
            };
            p.error(&item.span, format!("`{key}` cannot be {text:?}"), hint);
        }
        found
    }

    pub(crate) fn table(&self, p: &mut Problems, key: &str, shape: &'static Shape) -> Option<Reader<'d>> {
        let item = self.get(key)?;
        Reader::new(p, item, format!("`{key}` of {}", self.what), shape)
    }

    /// The tables of a section by their names.
    pub(crate) fn section(&self, p: &mut Problems, key: &str) -> Option<&'d Table> {
        let item = self.get(key)?;
        match &item.value {
            Value::Table(table) => Some(table),
            _ => {
                p.mismatch(&format!("`{key}`"), "a table of tables", item, &format!("[{key}.NAME]"));
                None
            }
        }
    }
}
