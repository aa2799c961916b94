use crate::Reject;
use crate::bindings::wasmill::operator::types::{Batch, Clock};
use crate::column::Rows;
use crate::json::Doc;

/// One event of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub(crate) row: u32,
    pub(crate) port: u16,
    pub(crate) time: i64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Event<'a> {
    /// The value.
    #[inline(always)]
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// The key; empty where the stage has none.
    #[inline(always)]
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The event time in microseconds since the Unix epoch.
    #[inline(always)]
    #[must_use]
    pub fn time(&self) -> i64 {
        self.time
    }

    /// The input port it came in by, from 0.
    #[inline(always)]
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its place in the batch.
    #[inline(always)]
    #[must_use]
    pub fn row(&self) -> u32 {
        self.row
    }

    /// The value as text.
    ///
    /// # Errors
    /// Where it is not UTF-8.
    #[inline]
    pub fn text(&self) -> Result<&'a str, Reject> {
        Ok(std::str::from_utf8(self.value)?)
    }

    /// The value as JSON, looked into field by field.
    #[inline(always)]
    #[must_use]
    pub fn json(&self) -> Doc<'a> {
        Doc::new(self.value)
    }
}

/// A timer that is due.
#[derive(Debug, Clone, Copy)]
pub struct Timer<'a> {
    pub(crate) clock: Clock,
    pub(crate) time: i64,
    pub(crate) key: &'a [u8],
    pub(crate) tag: &'a [u8],
}

impl<'a> Timer<'a> {
    /// Which time it waited for.
    #[inline]
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// When it was due, in microseconds since the Unix epoch.
    #[inline]
    #[must_use]
    pub fn time(&self) -> i64 {
        self.time
    }

    /// The event key it was set for.
    #[inline]
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        self.key
    }

    /// The tag it was set with.
    #[inline]
    #[must_use]
    pub fn tag(&self) -> &'a [u8] {
        self.tag
    }
}

/// The events of one call.
#[derive(Debug, Clone, Copy, Default)]
pub struct Events<'a> {
    port: u16,
    len: u32,
    times: &'a [i64],
    keys: Rows<'a>,
    values: Rows<'a>,
}

impl<'a> Events<'a> {
    pub(crate) fn of(port: u16, batch: &'a Batch) -> Self {
        let (keys, values) = (Rows::of(&batch.keys), Rows::of(&batch.values));
        let len = batch.times.len().max(keys.len()).max(values.len()) as u32;
        Self { port, len, times: &batch.times, keys, values }
    }

    pub(crate) fn fired(times: &'a [i64], keys: Rows<'a>) -> Self {
        Self { port: 0, len: times.len() as u32, times, keys, values: Rows::default() }
    }

    /// How many there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The input port they came in by, from 0.
    #[inline]
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Event times; empty where the operator does not ask for them.
    #[inline]
    #[must_use]
    pub fn times(&self) -> &'a [i64] {
        self.times
    }

    /// Keys; empty where the operator does not ask for them.
    #[inline]
    #[must_use]
    pub fn keys(&self) -> Rows<'a> {
        self.keys
    }

    /// Values; empty where the operator does not ask for them.
    #[inline]
    #[must_use]
    pub fn values(&self) -> Rows<'a> {
        self.values
    }

    /// The event of a row. Columns that were not asked for read as nothing.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, row: u32) -> Event<'a> {
        let at = row as usize;
        Event {
            row,
            port: self.port,
            time: self.times.get(at).copied().unwrap_or(0),
            key: self.keys.get(at),
            value: self.values.get(at),
        }
    }

    /// All events.
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = Event<'a>> + use<'a> {
        let (port, times) = (self.port, self.times);
        let (mut keys, mut values) = (self.keys.cursor(), self.values.cursor());
        (0..self.len).map(move |row| Event {
            row,
            port,
            time: times.get(row as usize).copied().unwrap_or(0),
            key: keys.next(row as usize),
            value: values.next(row as usize),
        })
    }
}
