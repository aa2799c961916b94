use wasmill_contract::OperatorContext;
use wasmill_model::{self as model, ColumnBuilder};
use wasmill_store::StateError;
use wasmtime::component::Linker;

use super::{KEY_BYTES_MAX, define, define_action};
use crate::abi::{Column, interface};
use crate::guest::{Guest, Violation};

/// Of an entry.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Entries that one `scan` may ask for.
const SCAN_LIMIT_MAX: u32 = 16_384;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut state = linker.instance(interface!("state"))?;
    define(&mut state, "get-many", |guest, (space, keys, subkeys): (u16, Column, Column)| {
        guest.get_many(space, keys, subkeys)
    })?;
    define_action(&mut state, "put-many", |guest, (space, keys, subkeys, values): (u16, Column, Column, Column)| {
        let (keys, subkeys) = keyed("state.put-many", keys, subkeys)?;
        let values = column("state.put-many", "values", values)?;
        rows_within("state.put-many", "a value", &values, VALUE_BYTES_MAX)?;
        guest.put_many(space, [&keys, &subkeys, &values])
    })?;
    define_action(&mut state, "delete-many", |guest, (space, keys, subkeys): (u16, Column, Column)| {
        let (keys, subkeys) = keyed("state.delete-many", keys, subkeys)?;
        let state = &mut guest.context("state.delete-many")?.state;
        state.delete_many(space, &keys, &subkeys).map_err(violation)
    })?;
    define(&mut state, "scan", |guest, (space, key, start, limit): (u16, Vec<u8>, Vec<u8>, u32)| {
        guest.scan(space, &key, &start, limit)
    })
}

impl Guest {
    /// Puts entries, where the tenant has room for what is new in them.
    fn put_many(&mut self, space: u16, [keys, subkeys, values]: [&model::Column; 3]) -> Result<(), Violation> {
        let context = self.context("state.put-many")?;
        let before = context.state.bytes();
        context.state.put_many(space, keys, subkeys, values).map_err(violation)?;
        let grown = context.state.bytes().saturating_sub(before);
        self.call.state_bytes += grown;
        // What is held is counted behind each call, so what this one has added comes on top.
        match self.context.as_ref().and_then(OperatorContext::bounded_by) {
            Some(account) if grown > 0 => account.state.room_for(self.call.state_bytes).map_err(Violation::Limit),
            _ => Ok(()),
        }
    }

    fn get_many(&mut self, space: u16, keys: Column, subkeys: Column) -> Result<(Vec<u64>, Column), Violation> {
        let (keys, subkeys) = keyed("state.get-many", keys, subkeys)?;
        let state = &mut self.context("state.get-many")?.state;
        let mut values = ColumnBuilder::default();
        let found = state.get_many(space, &keys, &subkeys, &mut values).map_err(violation)?;
        Ok((found.into_words(), values.finish().into()))
    }

    fn scan(&mut self, space: u16, key: &[u8], start: &[u8], limit: u32) -> Result<(Column, Column), Violation> {
        if limit > SCAN_LIMIT_MAX {
            return Err(Violation::Limit(format!("{SCAN_LIMIT_MAX} entries out of one state.scan, not {limit}")));
        }
        if let Some(long) = [key, start].into_iter().find(|given| given.len() > KEY_BYTES_MAX) {
            return Err(Violation::Limit(format!("{KEY_BYTES_MAX} bytes in a key of state.scan, not {}", long.len())));
        }
        let state = &mut self.context("state.scan")?.state;
        let (subkeys, values) = state.scan(space, key, start, limit).map_err(violation)?;
        Ok((subkeys.into(), values.into()))
    }
}

fn keyed(call: &str, keys: Column, subkeys: Column) -> Result<(model::Column, model::Column), Violation> {
    let (keys, subkeys) = (column(call, "keys", keys)?, column(call, "subkeys", subkeys)?);
    rows_within(call, "a key", &keys, KEY_BYTES_MAX)?;
    rows_within(call, "a sub-key", &subkeys, KEY_BYTES_MAX)?;
    Ok((keys, subkeys))
}

/// A column that a guest passed.
pub(super) fn column(call: &str, what: &str, column: Column) -> Result<model::Column, Violation> {
    column.into_model().map_err(|error| Violation::Contract(format!("{what} of {call}: {error}")))
}

/// Refuses a column with a row of more than `bytes_max` bytes.
pub(super) fn rows_within(call: &str, what: &str, column: &model::Column, bytes_max: usize) -> Result<(), Violation> {
    if column.data().len() <= bytes_max {
        return Ok(());
    }
    match column.iter().find(|row| row.len() > bytes_max) {
        None => Ok(()),
        Some(row) => Err(Violation::Limit(format!("{bytes_max} bytes in {what} of {call}, not {}", row.len()))),
    }
}

fn violation(error: StateError) -> Violation {
    match error {
        StateError::UnknownSpace { .. } | StateError::RowCount { .. } => Violation::Contract(error.to_string()),
        StateError::Unreadable { .. } => Violation::Host(error.to_string()),
        StateError::ReadTooLarge { .. } => Violation::Limit(error.to_string()),
    }
}
