//! A key as it is stored. Numbers are LEB128, signed ones zigzag; `bytes` is a length and so many bytes.
//!
//! ```text
//! key     version: 1 · rows · panes: count, pane… · cells: count, cell…
//! pane    id · start · end · first cell · last cell · rows since it fired · flags
//!         · due, if flag 4 · wall due, if flag 8 · given: count, (time · rows: count, bytes…)…
//! flags   1 the watermark has passed its end · 2 it has fired at its end · 4, 8 as above
//! cell    id · earliest time · latest time · accumulator: bytes
//! ```

use std::sync::Arc;

use wasmill_model::{Column, ColumnBuilder};

use super::state::{Cell, Given, KeyState, Pane};

const VERSION: u8 = 1;
const PASSED: u8 = 1;
const WAS_ON_TIME: u8 = 2;
const DUE: u8 = 4;
const WALL_DUE: u8 = 8;

pub(super) fn encode(state: &KeyState) -> Vec<u8> {
    let mut out = vec![VERSION];
    put(&mut out, state.rows);
    put(&mut out, state.panes.len() as u64);
    for pane in &state.panes {
        for number in [pane.id, pane.start, pane.end, pane.cells.0, pane.cells.1] {
            put_signed(&mut out, number);
        }
        put(&mut out, pane.rows.into());
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        out.push(
            flag(pane.passed, PASSED)
                | flag(pane.was_on_time, WAS_ON_TIME)
                | flag(pane.due.is_some(), DUE)
                | flag(pane.wall_due.is_some(), WALL_DUE),
        );
        for due in [pane.due, pane.wall_due].into_iter().flatten() {
            put_signed(&mut out, due);
        }
        put(&mut out, pane.given.len() as u64);
        for given in &pane.given {
            put_signed(&mut out, given.time);
            put(&mut out, given.rows.len() as u64);
            given.rows.iter().for_each(|row| put_bytes(&mut out, row));
        }
    }
    put(&mut out, state.cells.len() as u64);
    for cell in &state.cells {
        for number in [cell.id, cell.times.0, cell.times.1] {
            put_signed(&mut out, number);
        }
        put_bytes(&mut out, &cell.accumulator);
    }
    out
}

pub(super) fn decode(bytes: &[u8]) -> Option<KeyState> {
    let mut reader = Reader(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let mut state = KeyState { rows: reader.number()?, ..KeyState::default() };
    for _ in 0..reader.number()? {
        state.panes.push(reader.pane()?);
    }
    for _ in 0..reader.number()? {
        let (id, times) = (reader.signed()?, (reader.signed()?, reader.signed()?));
        state.cells.push(Cell { id, times, accumulator: Arc::from(reader.bytes()?), group: None });
    }
    let panes_rise = state.panes.is_sorted_by(|a, b| a.id < b.id);
    let cells_rise = state.cells.is_sorted_by(|a, b| a.id < b.id);
    (reader.0.is_empty() && panes_rise && cells_rise).then_some(state)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part.checked_shl(shift)? >> shift != part {
                return None;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn pane(&mut self) -> Option<Pane> {
        let (id, start, end) = (self.signed()?, self.signed()?, self.signed()?);
        let cells = (self.signed()?, self.signed()?);
        let rows = u32::try_from(self.number()?).ok()?;
        let flags = self.byte()?;
        let mut optional = |flag: u8| if flags & flag == 0 { Some(None) } else { self.signed().map(Some) };
        let (due, wall_due) = (optional(DUE)?, optional(WALL_DUE)?);
        let (passed, was_on_time) = (flags & PASSED != 0, flags & WAS_ON_TIME != 0);
        let mut given = Vec::new();
        for _ in 0..self.number()? {
            given.push(Given { time: self.signed()?, rows: self.rows()? });
        }
        Some(Pane { id, start, end, cells, rows, passed, was_on_time, due, wall_due, ready: false, given })
    }

    fn rows(&mut self) -> Option<Column> {
        let mut rows = ColumnBuilder::default();
        for _ in 0..self.number()? {
            rows.push(self.bytes()?);
        }
        Some(rows.finish())
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, (number.wrapping_shl(1) ^ (number >> 63)).cast_unsigned());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> KeyState {
        let pane = Pane {
            id: -3,
            start: i64::MIN,
            end: i64::MAX,
            cells: (-6, 4),
            rows: 300,
            passed: true,
            was_on_time: false,
            due: Some(-1),
            wall_due: Some(1_000_000),
            ready: false,
            given: vec![Given { time: 9, rows: ["one", "", "two"].iter().collect() }],
        };
        let other = Pane { id: 7, due: None, wall_due: None, passed: false, was_on_time: true, ..pane.clone() };
        let cell = |id| Cell { id, times: (-5, 1 << 40), accumulator: Arc::from(*b"sum"), group: None };
        KeyState { rows: 1 << 33, panes: vec![pane, other], cells: vec![cell(-6), cell(2)] }
    }

    /// The bytes of version 1 never change their meaning.
    #[test]
    fn the_first_version_stays_readable() {
        let fixture: &[u8] = b"\x01\x80\x80\x80\x80\x20\x02\
            \x05\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x0b\x08\xac\x02\x0d\
            \x01\x80\x89\x7a\x01\x12\x03\x03one\x00\x03two\
            \x0e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x0b\x08\xac\x02\x02\
            \x01\x12\x03\x03one\x00\x03two\
            \x02\x0b\x09\x80\x80\x80\x80\x80\x40\x03sum\x04\x09\x80\x80\x80\x80\x80\x40\x03sum";
        assert_eq!(encode(&state()), fixture);
        assert_eq!(decode(fixture), Some(state()));
    }

    #[test]
    fn no_part_of_a_key_is_taken_for_a_key() {
        let bytes = encode(&state());
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "the first {end} bytes");
        }
        let longer = [&bytes[..], b"\0"].concat();
        assert_eq!(decode(&longer), None);
        assert_eq!(decode(b"\x02\0\0\0"), None, "another version");
        assert_eq!(decode(b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), None, "a number of more than 64 bits");
    }
}
