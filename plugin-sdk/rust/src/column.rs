//! Columns as the interface has them, and views of their rows.

use crate::bindings::wasmill::operator::types::Column;

/// Rows of bytes, side by side.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows<'a> {
    ends: &'a [u32],
    data: &'a [u8],
}

impl<'a> Rows<'a> {
    pub(crate) fn of(column: &'a Column) -> Self {
        Self { ends: &column.ends, data: &column.data }
    }

    /// How many rows there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of a row; empty where there is no such row.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, row: usize) -> &'a [u8] {
        let Some(end) = self.ends.get(row) else { return &[] };
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        self.data.get(start as usize..*end as usize).unwrap_or_default()
    }

    /// All rows.
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut cursor = self.cursor();
        (0..self.len()).map(move |row| cursor.next(row))
    }

    #[inline(always)]
    pub(crate) fn cursor(&self) -> Cursor<'a> {
        Cursor { rows: *self, start: 0 }
    }
}

/// Goes through the rows in order: the end of one is the start of the next.
pub(crate) struct Cursor<'a> {
    rows: Rows<'a>,
    start: u32,
}

impl<'a> Cursor<'a> {
    /// The row at a place, one further than the last time.
    #[inline(always)]
    pub(crate) fn next(&mut self, row: usize) -> &'a [u8] {
        let Some(end) = self.rows.ends.get(row) else { return &[] };
        let start = std::mem::replace(&mut self.start, *end);
        self.rows.data.get(start as usize..*end as usize).unwrap_or_default()
    }
}

impl Column {
    pub(crate) const EMPTY: Self = Self { ends: Vec::new(), data: Vec::new() };

    pub(crate) fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { ends: Vec::with_capacity(rows), data: Vec::with_capacity(bytes) }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        crate::append(&mut self.data, bytes);
        self.end();
    }

    /// Ends a row whose bytes are already there.
    #[inline(always)]
    pub(crate) fn end(&mut self) {
        self.ends.push(self.data.len() as u32);
    }

    /// Takes back bytes that belong to no row yet.
    pub(crate) fn undo_bytes(&mut self) {
        self.data.truncate(self.ends.last().map_or(0, |end| *end as usize));
    }
}

/// The rows of a bitmap, `rows` of them.
pub(crate) fn bits(words: &[u64], rows: usize) -> impl Iterator<Item = bool> + '_ {
    (0..rows).map(|row| words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1))
}
