//! What a savepoint holds, without holding it.

use std::collections::BTreeMap;
use std::path::Path;

use wasmill_env::Disk;
use wasmill_model::{Epoch, NodeName};

use super::StoreError;
use super::codec::Table;
use super::encode::{Builder, decode_state};
use super::merge::{Source, merge};
use super::record::{PositionRecord, SinkRecord};
use super::store::{OpenBase, open_base_at};

/// What a savepoint holds: everything but the entries, which are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The epoch it was made at.
    pub epoch: Epoch,
    /// Bytes of the file.
    pub bytes: u64,
    /// Facts about the job.
    pub meta: BTreeMap<String, Vec<u8>>,
    /// Where sources go on.
    pub positions: Vec<PositionRecord>,
    /// Handles of sinks.
    pub sinks: Vec<SinkRecord>,
    /// What stages hold.
    pub stages: BTreeMap<NodeName, StageSummary>,
    /// Rejected rows.
    pub dead_letters: u64,
}

/// What a stage holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageSummary {
    /// State by the number of its space.
    pub spaces: BTreeMap<u16, Held>,
    /// Timers that are set.
    pub timers: Held,
    /// Accumulators of open windows.
    pub panes: Held,
}

/// Entries, and the bytes of their names and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads all of a savepoint, so that every checksum is looked at, in bounded memory.
pub(super) fn summarize(disk: &dyn Disk, file: &Path) -> Result<Summary, StoreError> {
    let OpenBase { source, epoch, bytes, .. } = open_base_at(disk, file.to_owned())?;
    let mut builder = Builder::default();
    let mut stages: BTreeMap<NodeName, StageSummary> = BTreeMap::new();
    merge(&mut [Source::File(source)], |table, node, name, value| {
        let malformed = || StoreError::corrupt(file, 0, format!("an entry of {node:?} in {table:?} is malformed"));
        if !matches!(table, Table::State | Table::Timers | Table::Panes) {
            return builder.take(table, node, name, value).ok_or_else(malformed);
        }
        if !stages.keys().any(|known| known.as_str() == node) {
            stages.insert(NodeName::new(node).map_err(|_| malformed())?, StageSummary::default());
        }
        let Some((_, stage)) = stages.iter_mut().find(|(known, _)| known.as_str() == node) else { return Ok(()) };
        let (held, value) = match table {
            Table::State => {
                let space = u16::try_from(name.number).map_err(|_| malformed())?;
                let (value, _written) = decode_state(value).ok_or_else(malformed)?;
                (stage.spaces.entry(space).or_default(), value)
            }
            Table::Timers => (&mut stage.timers, value),
            _ => (&mut stage.panes, value),
        };
        held.entries += 1;
        held.bytes += (name.first.len() + name.second.len() + value.len()) as u64;
        Ok(())
    })?;
    let recovered = builder.recovered;
    let (meta, positions, sinks) = (recovered.meta, recovered.positions, recovered.sinks);
    let dead_letters = recovered.dead_letters;
    Ok(Summary { epoch: Epoch(epoch), bytes, meta, positions, sinks, stages, dead_letters })
}
