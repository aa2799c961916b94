//! What a key keeps.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wasmill_sdk::{Codec, CodecError};

use crate::machine::Run;

/// Rows of one time, with the kinds they are of as bits, in the order in which they came. Each is stored
/// as its kinds and the length of its value, four bytes each, the lowest first, and its value.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Waiting(pub(crate) Vec<(u32, String)>);

impl Waiting {
    pub(crate) fn push(&mut self, kinds: u32, value: String) {
        self.0.push((kinds, value));
    }
}

impl Codec for Waiting {
    fn encode(&self, out: &mut Vec<u8>) {
        for (kinds, value) in &self.0 {
            out.extend_from_slice(&kinds.to_le_bytes());
            out.extend_from_slice(&(value.len() as u32).to_le_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, CodecError> {
        let mut rows = Vec::new();
        while let Some((kinds, rest)) = bytes.split_first_chunk() {
            let Some((length, rest)) = rest.split_first_chunk() else { break };
            let Some((value, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
            rows.push((u32::from_le_bytes(*kinds), String::decode(value)?));
            bytes = rest;
        }
        match bytes {
            [] => Ok(Self(rows)),
            rest => Err(CodecError::new(format!("rows end in the middle, {} bytes before their end", rest.len()))),
        }
    }

    fn weight(&self) -> usize {
        self.0.iter().map(|(_, value)| 32 + value.len()).sum()
    }
}

/// Runs on their way, and the events that they took.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The oldest first.
    pub(crate) runs: Vec<Run>,
    next: u64,
    events: BTreeMap<u64, String>,
}

impl Progress {
    /// Gives an event its number.
    pub(crate) fn add(&mut self, value: String) -> u64 {
        let number = self.next;
        self.next += 1;
        self.events.insert(number, value);
        number
    }

    pub(crate) fn value(&self, number: u64) -> &str {
        self.events.get(&number).map_or("null", String::as_str)
    }

    /// Drops events that no run has taken.
    pub(crate) fn forget(&mut self) {
        let taken: BTreeSet<u64> = self.runs.iter().flat_map(|run| &run.taken).flatten().copied().collect();
        self.events.retain(|number, _| taken.contains(number));
    }
}
