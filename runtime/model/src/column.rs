/// Rows of bytes: row `i` is `data[ends[i-1]..ends[i]]`.
///
/// # Invariants
/// `ends` never falls, and its last item, if any, is the length of `data`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    ends: Vec<u32>,
    data: Vec<u8>,
}

/// Why two lists are not a column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnError {
    /// An end lies before the one in front of it.
    #[error("column ends fall at row {row}")]
    Falls {
        /// The row whose end is too small.
        row: usize,
    },
    /// The last end is not the length of the data.
    #[error("column ends at byte {end} but holds {length} bytes")]
    Length {
        /// The last end, 0 for no rows.
        end: u32,
        /// Bytes of data.
        length: usize,
    },
}

impl Column {
    /// A column from its parts.
    ///
    /// # Errors
    /// Where the parts break the invariants.
    pub fn from_parts(ends: Vec<u32>, data: Vec<u8>) -> Result<Self, ColumnError> {
        let mut before = 0;
        for (row, &end) in ends.iter().enumerate() {
            if end < before {
                return Err(ColumnError::Falls { row });
            }
            before = end;
        }
        if before as usize != data.len() {
            return Err(ColumnError::Length { end: before, length: data.len() });
        }
        Ok(Self { ends, data })
    }

    /// `rows` empty rows.
    #[must_use]
    pub fn empty_rows(rows: usize) -> Self {
        Self { ends: vec![0; rows], data: Vec::new() }
    }

    /// How many rows.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no row.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The ends of the rows.
    #[must_use]
    #[inline]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The bytes of all rows, one after the other.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Row `row`.
    ///
    /// # Panics
    /// Where there is no such row.
    #[must_use]
    #[inline]
    pub fn row(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.data[start..self.ends[row] as usize]
    }

    /// The rows in order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let row = &self.data[start as usize..end as usize];
            start = end;
            row
        })
    }

    /// The rows named by `rows`, in that order.
    ///
    /// # Panics
    /// Where a row does not exist.
    #[must_use]
    pub fn gather(&self, rows: &[u32]) -> Self {
        if self.data.is_empty() {
            assert!(rows.iter().all(|&row| (row as usize) < self.len()), "a row of {}", self.len());
            return Self::empty_rows(rows.len());
        }
        let mut out = ColumnBuilder::with_capacity(rows.len(), self.data.len() * rows.len() / self.len().max(1));
        for &row in rows {
            out.push(self.row(row as usize));
        }
        out.finish()
    }

    /// Bytes this column takes, the ends included.
    #[must_use]
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.data.len() + 4 * self.ends.len()
    }

    /// The parts: ends and data.
    #[must_use]
    pub fn into_parts(self) -> (Vec<u32>, Vec<u8>) {
        (self.ends, self.data)
    }
}

impl<R: AsRef<[u8]>> FromIterator<R> for Column {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        let mut out = ColumnBuilder::default();
        for row in rows {
            out.push(row.as_ref());
        }
        out.finish()
    }
}

/// A column in the making.
#[derive(Debug, Clone, Default)]
pub struct ColumnBuilder {
    column: Column,
}

impl ColumnBuilder {
    /// Bytes that one column may hold: its ends are 32 bits wide.
    pub const BYTES_MAX: usize = u32::MAX as usize;

    /// Room for `rows` rows of `bytes` bytes in all.
    #[must_use]
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { column: Column { ends: Vec::with_capacity(rows), data: Vec::with_capacity(bytes) } }
    }

    /// Adds one row.
    ///
    /// # Panics
    /// Where the column would pass [`Self::BYTES_MAX`]; batches are bounded far below it.
    #[inline]
    pub fn push(&mut self, row: &[u8]) {
        self.column.data.extend_from_slice(row);
        self.end_row();
    }

    /// Bytes of the row in the making: write into it, then call [`Self::end_row`].
    #[inline]
    pub fn open_row(&mut self) -> &mut Vec<u8> {
        &mut self.column.data
    }

    /// Ends the row in the making.
    ///
    /// # Panics
    /// As [`Self::push`].
    #[inline]
    pub fn end_row(&mut self) {
        let end = u32::try_from(self.column.data.len()).expect("a column stays below 4 GiB");
        self.column.ends.push(end);
    }

    /// Drops what was written to the row in the making.
    #[inline]
    pub fn abandon_row(&mut self) {
        let end = self.column.ends.last().copied().unwrap_or(0) as usize;
        self.column.data.truncate(end);
    }

    /// Rows so far.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.column.len()
    }

    /// Whether there is no row yet.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.column.is_empty()
    }

    /// Bytes so far.
    #[must_use]
    #[inline]
    pub fn byte_len(&self) -> usize {
        self.column.byte_len()
    }

    /// The column. Bytes of a row that was not ended are dropped.
    #[must_use]
    pub fn finish(mut self) -> Column {
        self.abandon_row();
        self.column
    }
}

/// One bit for every row: bit `i % 64` of word `i / 64`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

impl Bitmap {
    /// `len` bits, all `value`.
    #[must_use]
    pub fn filled(len: usize, value: bool) -> Self {
        let mut bitmap = Self { words: vec![if value { u64::MAX } else { 0 }; len.div_ceil(64)], len };
        bitmap.clear_padding();
        bitmap
    }

    /// A bitmap of `len` bits from its words. Bits behind `len` are ignored.
    /// `None` where the number of words does not fit `len`.
    #[must_use]
    pub fn from_words(words: Vec<u64>, len: usize) -> Option<Self> {
        if words.len() != len.div_ceil(64) {
            return None;
        }
        let mut bitmap = Self { words, len };
        bitmap.clear_padding();
        Some(bitmap)
    }

    fn clear_padding(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }

    /// How many bits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no bit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bit `index`.
    ///
    /// # Panics
    /// Where there is no such bit.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> bool {
        assert!(index < self.len, "bit {index} of {}", self.len);
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    /// Sets bit `index` to `value`.
    ///
    /// # Panics
    /// Where there is no such bit.
    #[inline]
    pub fn set(&mut self, index: usize, value: bool) {
        assert!(index < self.len, "bit {index} of {}", self.len);
        let mask = 1 << (index % 64);
        if value {
            self.words[index / 64] |= mask;
        } else {
            self.words[index / 64] &= !mask;
        }
    }

    /// How many bits are set.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The indices of the set bits, rising.
    #[must_use]
    pub fn ones(&self) -> Vec<u32> {
        let mut ones = Vec::with_capacity(self.count());
        for (place, &word) in self.words.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                ones.push(place as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        ones
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words, owned.
    #[must_use]
    pub fn into_words(self) -> Vec<u64> {
        self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_holds_its_rows() {
        let column: Column = ["a", "", "ccc"].iter().collect();
        assert_eq!(column.ends(), [1, 1, 4]);
        assert_eq!(column.iter().collect::<Vec<_>>(), [b"a" as &[u8], b"", b"ccc"]);
        assert_eq!(column.row(2), b"ccc");
        assert_eq!(column.gather(&[2, 0, 2]), ["ccc", "a", "ccc"].iter().collect());
    }

    #[test]
    fn parts_that_break_the_invariants_are_refused() {
        assert_eq!(Column::from_parts(vec![2, 1], vec![0; 1]), Err(ColumnError::Falls { row: 1 }));
        assert_eq!(Column::from_parts(vec![2], vec![0; 3]), Err(ColumnError::Length { end: 2, length: 3 }));
        assert_eq!(Column::from_parts(vec![], vec![0; 3]), Err(ColumnError::Length { end: 0, length: 3 }));
        assert!(Column::from_parts(vec![], vec![]).is_ok());
    }

    #[test]
    fn an_abandoned_row_leaves_no_bytes() {
        let mut builder = ColumnBuilder::default();
        builder.push(b"kept");
        builder.open_row().extend_from_slice(b"dropped");
        builder.abandon_row();
        builder.open_row().extend_from_slice(b"also kept");
        builder.end_row();
        builder.open_row().extend_from_slice(b"never ended");
        assert_eq!(builder.finish(), ["kept", "also kept"].iter().collect());
    }

    #[test]
    fn bits_behind_the_end_of_a_bitmap_do_not_count() {
        let bitmap = Bitmap::from_words(vec![u64::MAX, u64::MAX], 65).expect("two words hold 65 bits");
        assert_eq!(bitmap.count(), 65);
        assert_eq!(bitmap.ones().last(), Some(&64));
        assert_eq!(Bitmap::from_words(vec![0], 65), None);
        assert_eq!(Bitmap::filled(3, true).ones(), [0, 1, 2]);
    }
}
