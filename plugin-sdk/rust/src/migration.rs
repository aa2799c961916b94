//! Entries of an older schema version, turned into those of today.

use std::any::TypeId;

use crate::bindings::exports::wasmill::operator::migration::{Entries, Migrated};
use crate::bindings::wasmill::operator::types::{Column, Failure};
use crate::column::Rows;
use crate::state::SpaceInfo;
use crate::{Codec, CodecError};

/// Appends the new bytes of an entry to a buffer. Whether the entry stays.
type Turn = dyn Fn(&[u8], &mut Vec<u8>) -> Result<bool, CodecError>;

/// How entries that one older version of a space has written become those of today.
pub(crate) struct Migration {
    from_version: u32,
    turn: Box<Turn>,
    made: (TypeId, &'static str),
}

impl Migration {
    pub(crate) fn new<Old: Codec, New: Codec>(from_version: u32, turn: impl Fn(Old) -> Option<New> + 'static) -> Self {
        let turn = move |bytes: &[u8], out: &mut Vec<u8>| {
            let new = turn(Old::decode(bytes)?);
            new.iter().for_each(|new| new.encode(out));
            Ok(new.is_some())
        };
        let made = (TypeId::of::<New>(), std::any::type_name::<New>());
        Self { from_version, turn: Box::new(turn), made }
    }

    /// # Panics
    /// Where it makes something else than the space holds.
    pub(crate) fn assert_makes<T: Codec>(&self, info: &SpaceInfo) {
        let (name, made, holds) = (&info.name, self.made.1, std::any::type_name::<T>());
        assert!(self.made.0 == TypeId::of::<T>(), "state space `{name}` holds {holds}, its migration makes {made}");
    }
}

/// The new entries of a space; without entries, whether that version is known.
pub(crate) fn migrate(
    info: &SpaceInfo,
    migrations: &[Migration],
    from_version: u32,
    entries: &Entries,
) -> Result<Migrated, Failure> {
    let (name, version) = (&info.name, info.version);
    let Some(migration) = migrations.iter().find(|migration| migration.from_version == from_version) else {
        let reason =
            format!("state space `{name}` has version {version}, and no migration from version {from_version}");
        return Err(Failure::Fatal(reason));
    };
    let values = Rows::of(&entries.values);
    let mut migrated = Migrated { values: Column::with_capacity(values.len(), values.len() * 16), dropped: Vec::new() };
    for ((row, value), key) in (0..).zip(values.iter()).zip(Rows::of(&entries.keys).iter()) {
        let stays = (migration.turn)(value, &mut migrated.values.data).map_err(|error| {
            let key = String::from_utf8_lossy(key);
            Failure::Fatal(format!(
                "an entry of state space `{name}`, key {key:?}, is none of version {from_version}: {error}"
            ))
        })?;
        migrated.values.end();
        if !stays {
            migrated.dropped.push(row);
        }
    }
    Ok(migrated)
}
