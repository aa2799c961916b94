//! What leaves by one port in one call, in the smallest form that can say it.

use crate::bindings::wasmill::operator::types::{Batch, Column, Output, Rows};
use crate::event::{Event, Events};

/// Rows on their way out by one port.
///
/// ```text
/// Nothing ──forward──▶ Keep ───────emit, forward twice───────▶ Rows
///    └────emit at row 0──▶ Values ──anything but the next row──▶ Rows
/// ```
#[derive(Debug, Default)]
pub(crate) struct PortOutput {
    form: Form,
    /// `Keep`: bitmap, how many are set, and the row behind the last one.
    bits: Vec<u64>,
    kept: u32,
    next: u32,
    /// `Values` and `Rows`.
    values: Column,
    /// `Rows`. Times and keys are filled from the first row on that has its own.
    origins: Vec<u32>,
    times: Vec<i64>,
    keys: Column,
    own_times: bool,
    own_keys: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Form {
    #[default]
    Nothing,
    Keep,
    Values,
    Rows,
}

/// What the rows of a call come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Input rows: all forms.
    Input,
    /// Timers: rows, as there is nothing to keep or to map.
    Timers,
    /// A watermark: rows that come from nowhere.
    Watermark,
}

impl PortOutput {
    /// Lets an input row out as it is.
    #[inline(always)]
    pub(crate) fn forward(&mut self, event: &Event<'_>, input: &Events<'_>) {
        let fits = match self.form {
            Form::Keep => event.row >= self.next,
            Form::Nothing => {
                self.form = Form::Keep;
                self.bits.resize(input.len().div_ceil(64), 0);
                true
            }
            Form::Values | Form::Rows => false,
        };
        if fits {
            if let Some(word) = self.bits.get_mut(event.row as usize / 64) {
                *word |= 1 << (event.row % 64);
            }
            self.kept += 1;
            self.next = event.row + 1;
        } else {
            self.turn_to_rows(input);
            assert!(
                input.values().len() == input.len(),
                "a row is forwarded beside new ones, which needs Columns::VALUES in Operator::COLUMNS"
            );
            self.values.push(event.value);
            self.row(event, None, None, input);
        }
    }

    /// Lets the input rows out whose bits are set. Nothing else has been emitted.
    pub(crate) fn keep(&mut self, bits: Vec<u64>, rows: u32) {
        self.form = Form::Keep;
        self.kept = bits.iter().map(|word| word.count_ones()).sum();
        self.next = rows;
        self.bits = bits;
    }

    /// Makes room for one more value: its bytes go into the buffer, then comes
    /// [`PortOutput::end_value`].
    #[inline(always)]
    pub(crate) fn start_value(&mut self, event: &Event<'_>, input: &Events<'_>, origin: Origin, own: bool) {
        match self.form {
            Form::Nothing if origin == Origin::Input && event.row == 0 && !own => {
                self.form = Form::Values;
                self.values.ends.reserve(input.len());
            }
            Form::Nothing => self.form = Form::Rows,
            Form::Values if !own && event.row as usize == self.values.ends.len() => {}
            Form::Rows => {}
            _ => self.turn_to_rows(input),
        }
    }

    #[inline(always)]
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.values.data
    }

    pub(crate) fn undo_value(&mut self) {
        self.values.undo_bytes();
    }

    #[inline(always)]
    pub(crate) fn end_value(&mut self, event: &Event<'_>, key: Option<&[u8]>, time: Option<i64>, input: &Events<'_>) {
        self.values.end();
        if self.form == Form::Rows {
            self.row(event, key, time, input);
        }
    }

    /// The rest of a row whose value is there.
    #[inline]
    fn row(&mut self, event: &Event<'_>, key: Option<&[u8]>, time: Option<i64>, input: &Events<'_>) {
        if key.is_some() && !self.own_keys {
            self.own_keys = true;
            assert!(
                self.origins.is_empty() || input.keys().len() == input.len(),
                "some rows have keys of their own and some do not, which needs Columns::KEYS in Operator::COLUMNS"
            );
            for origin in &self.origins {
                self.keys.push(input.keys().get(*origin as usize));
            }
        }
        if time.is_some() && !self.own_times {
            self.own_times = true;
            assert!(
                self.origins.is_empty() || input.times().len() == input.len(),
                "some rows have times of their own and some do not, which needs Columns::TIMES in Operator::COLUMNS"
            );
            self.times.extend(self.origins.iter().map(|origin| input.get(*origin).time));
        }
        if self.own_keys {
            self.keys.push(key.unwrap_or(event.key));
        }
        if self.own_times {
            self.times.push(time.unwrap_or(event.time));
        }
        self.origins.push(event.row);
    }

    /// Goes over to the general form with what is there.
    #[cold]
    fn turn_to_rows(&mut self, input: &Events<'_>) {
        match self.form {
            Form::Keep => {
                assert!(
                    input.values().len() == input.len(),
                    "rows are forwarded beside new ones, which needs Columns::VALUES in Operator::COLUMNS"
                );
                for (row, keep) in (0..).zip(crate::column::bits(&self.bits, input.len())) {
                    if keep {
                        self.values.push(input.values().get(row));
                        self.origins.push(row as u32);
                    }
                }
            }
            Form::Values => self.origins.extend(0..self.values.ends.len() as u32),
            Form::Nothing | Form::Rows => {}
        }
        self.form = Form::Rows;
    }

    /// The current row is rejected. The host drops what came from it; the form has to stay dense.
    pub(crate) fn reject(&mut self, row: u32) {
        if self.form == Form::Values && self.values.ends.len() == row as usize {
            self.values.end();
        }
    }

    /// The output of a call over `rows` rows, where there is any.
    pub(crate) fn finish(&mut self, rows: usize, origin: Origin) -> Option<Output> {
        let mut done = std::mem::take(self);
        match done.form {
            Form::Nothing => None,
            Form::Keep if done.kept == 0 => None,
            Form::Keep if done.kept as usize == rows => Some(Output::Unchanged),
            Form::Keep => Some(Output::Keep(done.bits)),
            Form::Values if done.values.ends.len() == rows => Some(Output::Values(done.values)),
            Form::Values | Form::Rows => {
                if done.form == Form::Values {
                    done.origins.extend(0..done.values.ends.len() as u32);
                }
                if done.values.ends.is_empty() {
                    return None;
                }
                let batch = Batch { times: done.times, keys: done.keys, values: done.values };
                let origins = if origin == Origin::Watermark { Vec::new() } else { done.origins };
                Some(Output::Rows(Rows { batch, origins }))
            }
        }
    }
}

impl Default for Column {
    fn default() -> Self {
        Self::EMPTY
    }
}
