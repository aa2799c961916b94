use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use wasmill_env::Disk;
use wasmill_model::{Epoch, NodeName, SpaceDescriptor, SpaceMigration};

use crate::{DiskState, EntryChange, MemoryState, StateBackend, StateFiles};

/// Where the stages of a job have their state: in memory, or on disk.
#[derive(Debug, Clone, Default)]
pub struct StageStates {
    /// State that stays on disk, and the bytes of memory that each share of a stage has for the
    /// entries it uses.
    pub files: Option<(Arc<StateFiles>, usize)>,
    /// Where rows of ordering buffers may wait on disk, where they may.
    pub spill: Option<(Arc<dyn Disk>, PathBuf)>,
    /// The numbers under which the store has the spaces of a stage, by place. One that is missing has
    /// its place as number.
    pub numbers: BTreeMap<NodeName, Vec<u16>>,
    /// The spaces of a stage whose entries another schema version has written.
    pub migrations: BTreeMap<NodeName, Vec<SpaceMigration>>,
}

impl StageStates {
    /// The state of one share of a stage as of an epoch. `held` is what was recovered into memory:
    /// nothing where state stays on disk.
    #[must_use]
    pub fn open(
        &self,
        node: &NodeName,
        (share, shares): (u16, u16),
        epoch: Epoch,
        spaces: &[SpaceDescriptor],
        held: Vec<EntryChange>,
    ) -> Box<dyn StateBackend> {
        let numbers = self.numbers.get(node);
        if let Some((files, bytes_max)) = &self.files {
            let state = DiskState::new(Arc::clone(files), node.clone(), (share, shares), epoch, *bytes_max);
            let mut state = state.with_numbers(numbers.cloned().unwrap_or_default());
            state.declare(spaces);
            return Box::new(state);
        }
        let place = |number: u16| match numbers {
            Some(numbers) => numbers.iter().position(|known| *known == number).map(|place| place as u16),
            None => Some(number),
        };
        let mut state = MemoryState::default();
        state.declare(spaces);
        // A number without a place belongs to a space that was dropped.
        state.load(held.into_iter().filter_map(|entry| Some(EntryChange { space: place(entry.space)?, ..entry })));
        Box::new(state)
    }
}
