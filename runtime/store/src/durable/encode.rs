//! Records to entries and back.

use std::collections::{BTreeMap, BTreeSet};

use wasmill_model::{Clock, Epoch, LetterKind, LetterSubject, NodeName, PartitionId, PluginDigest, Position};

use super::codec::{Change, Name, Owner, PayloadWriter, Reader, Table, put_bytes, put_varint};
use super::record::{
    EpochRecord, HeldRecord, LetterRecord, PaneRecord, PositionRecord, ProgressRecord, Recovered, SinkRecord,
    StageRecord, TimerRecord,
};
use crate::EntryChange;

/// The counter of rejected rows.
const NEXT_LETTER: u64 = 0;
/// Second part of an accumulator's name, which keeps the place of the empty name for drops.
const PANE: &[u8] = &[1];

/// What an encoder has to know about what was committed before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) next_letter: u64,
    /// Rejected rows that are to be processed again.
    pub(super) replays: BTreeSet<u64>,
    /// For sinks and windows, how many shares have entries.
    shares: BTreeMap<(Table, NodeName), u16>,
}

impl Known {
    fn note(&mut self, table: Table, node: &NodeName, shares: u16) {
        let known = self.shares.entry((table, node.clone())).or_default();
        *known = shares.max(*known);
    }

    /// The shares beyond `shares` that have entries, which then have none.
    fn shrink(&mut self, table: Table, node: &NodeName, shares: u16) -> std::ops::Range<u16> {
        match self.shares.get_mut(&(table, node.clone())) {
            Some(known) => shares..std::mem::replace(known, shares).max(shares),
            None => {
                self.shares.insert((table, node.clone()), shares);
                shares..shares
            }
        }
    }
}

/// Small signed numbers as small unsigned ones.
pub(crate) fn zigzag(value: i64) -> u64 {
    (value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned()
}

pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// Appends the payload of an epoch.
pub(super) fn encode(epoch: Epoch, record: &EpochRecord, known: &mut Known, into: &mut Vec<u8>) {
    let mut writer = PayloadWriter::new(into);
    let mut value = Vec::new();
    for node in &record.removed {
        writer.section(Table::Removed, node.as_str());
        writer.entry(0, &[], &[], Change::Gone);
    }
    if !record.meta.is_empty() {
        writer.section(Table::Meta, "");
        for (name, fact) in &record.meta {
            writer.entry(0, name.as_bytes(), &[], fact.as_ref().map_or(Change::Gone, |fact| Change::Put(fact)));
        }
    }
    for run in record.positions.chunk_by(|a, b| a.node == b.node) {
        writer.section(Table::Positions, run[0].node.as_str());
        for PositionRecord { partition, position, .. } in run {
            writer.entry(partition.0.into(), &[], &[], Change::Put(&position.0));
        }
    }
    for SinkRecord { node, share, shares, handle } in &record.sinks {
        writer.section(Table::Sinks, node.as_str());
        value.clear();
        put_varint(&mut value, (*shares).into());
        value.extend_from_slice(handle);
        writer.entry((*share).into(), &[], &[], Change::Put(&value));
        for gone in known.shrink(Table::Sinks, node, *shares) {
            writer.entry(gone.into(), &[], &[], Change::Gone);
        }
    }
    for stage in &record.stages {
        encode_stage(stage, known, &mut writer, &mut value);
    }
    for run in record.held.chunk_by(|a, b| a.node == b.node) {
        writer.section(Table::Held, run[0].node.as_str());
        for HeldRecord { port, key, name, value, .. } in run {
            writer.entry((*port).into(), key, name, value.as_ref().map_or(Change::Gone, |value| Change::Put(value)));
        }
    }
    if !record.dead_letters.is_empty() || !record.dropped_letters.is_empty() {
        writer.section(Table::Letters, "");
        // An id that was not given yet must not hide the row that gets it.
        for id in record.dropped_letters.iter().filter(|id| id.0 < known.next_letter) {
            writer.entry(id.0, &[], &[], Change::Gone);
        }
        for letter in &record.dead_letters {
            value.clear();
            encode_letter(epoch, letter, &mut value);
            writer.entry(known.next_letter, &[], &[], Change::Put(&value));
            known.next_letter += 1;
        }
        writer.section(Table::Counters, "");
        value.clear();
        put_varint(&mut value, known.next_letter);
        writer.entry(NEXT_LETTER, &[], &[], Change::Put(&value));
    }
    encode_replays(record, known, &mut writer);
    writer.end_section();
}

fn encode_replays(record: &EpochRecord, known: &mut Known, writer: &mut PayloadWriter<'_>) {
    let done: Vec<u64> = record.dropped_letters.iter().map(|id| id.0).filter(|id| known.replays.remove(id)).collect();
    let wanted = record.replays.iter().map(|id| id.0).filter(|id| *id < known.next_letter);
    let wanted: Vec<u64> = wanted.filter(|&id| known.replays.insert(id)).collect();
    if done.is_empty() && wanted.is_empty() {
        return;
    }
    writer.section(Table::Replays, "");
    for id in done {
        writer.entry(id, &[], &[], Change::Gone);
    }
    for id in wanted {
        writer.entry(id, &[], &[], Change::Put(&[]));
    }
}

fn encode_stage(stage: &StageRecord, known: &mut Known, writer: &mut PayloadWriter<'_>, value: &mut Vec<u8>) {
    let node = stage.node.as_str();
    if let Some(windows) = &stage.windows {
        writer.section(Table::Progress, node);
        value.clear();
        put_varint(value, stage.shares.into());
        value.extend_from_slice(&windows.progress.next_window.to_le_bytes());
        put_varint(value, windows.progress.panes);
        writer.entry(stage.share.into(), &[], &[], Change::Put(value));
        for gone in known.shrink(Table::Progress, &stage.node, stage.shares) {
            writer.entry(gone.into(), &[], &[], Change::Gone);
        }
        if !windows.dropped.is_empty() || !windows.gone.is_empty() || !windows.entries.is_empty() {
            writer.section(Table::Panes, node);
        }
        let owner = Owner { share: stage.share, shares: stage.shares };
        for slice in &windows.dropped {
            writer.entry(zigzag(*slice), &[], &[], Change::AllGone(owner));
        }
        for key in &windows.gone {
            writer.entry(zigzag(0), key, PANE, Change::Gone);
        }
        for PaneRecord { slice, key, order, accumulator } in &windows.entries {
            value.clear();
            put_varint(value, (*order).into());
            value.extend_from_slice(accumulator);
            writer.entry(zigzag(*slice), key, PANE, Change::Put(value));
        }
    }
    if !stage.timers.is_empty() {
        writer.section(Table::Timers, node);
        for TimerRecord { clock, key, tag, set } in &stage.timers {
            let number = match clock {
                Clock::Event => 0,
                Clock::Processing => 1,
            };
            value.clear();
            let change = set.map_or(Change::Gone, |(time, order)| {
                put_varint(value, zigzag(time));
                put_varint(value, order);
                Change::Put(value)
            });
            writer.entry(number, key, tag, change);
        }
    }
    if !stage.state.is_empty() {
        writer.section(Table::State, node);
        for crate::Change { space, key, subkey, value: entry, written } in stage.state.sorted() {
            let change = entry.map_or(Change::Gone, |entry| {
                encode_state(entry, written, value);
                Change::Put(value)
            });
            writer.entry(space.into(), key, subkey, change);
        }
    }
}

/// What an entry of state holds: when it was written, and its value.
fn encode_state(value: &[u8], written: i64, into: &mut Vec<u8>) {
    into.clear();
    // The zigzag form of the least number, which says that no time is known, is the largest.
    put_varint(into, zigzag(written).wrapping_add(1));
    into.extend_from_slice(value);
}

/// The value of an entry of state, and when it was written.
#[inline]
pub(super) fn decode_state(stored: &[u8]) -> Option<(&[u8], i64)> {
    let mut reader = Reader(stored);
    let written = unzigzag(reader.varint()?.wrapping_sub(1));
    Some((reader.0, written))
}

fn encode_letter(epoch: Epoch, letter: &LetterRecord, into: &mut Vec<u8>) {
    put_varint(into, epoch.0);
    put_bytes(into, letter.node.as_str().as_bytes());
    into.push(letter.digest.is_some().into());
    into.extend(letter.digest.iter().flat_map(|digest| digest.0));
    put_bytes(into, letter.reason.as_bytes());
    put_varint(into, zigzag(letter.time));
    put_bytes(into, &letter.key);
    put_bytes(into, &letter.value);
    into.push(letter.origin.is_some().into());
    if let Some(PositionRecord { node, partition, position }) = &letter.origin {
        put_bytes(into, node.as_str().as_bytes());
        put_varint(into, partition.0.into());
        put_bytes(into, &position.0);
    }
    into.push(LetterKind::ALL.iter().position(|kind| *kind == letter.kind).unwrap_or(0) as u8);
    let (subject, number) = match letter.subject {
        LetterSubject::Row { port } => (0, port.into()),
        LetterSubject::Timer(Clock::Event) => (1, 0),
        LetterSubject::Timer(Clock::Processing) => (1, 1),
        LetterSubject::Watermark => (2, 0),
        LetterSubject::Pane => (3, 0),
    };
    into.push(subject);
    put_varint(into, number);
    put_varint(into, letter.stack.len() as u64);
    for frame in &letter.stack {
        put_bytes(into, frame.as_bytes());
    }
}

fn node_name(bytes: &[u8]) -> Option<NodeName> {
    NodeName::new(std::str::from_utf8(bytes).ok()?).ok()
}

pub(super) fn decode_letter(bytes: &[u8]) -> Option<LetterRecord> {
    let mut reader = Reader(bytes);
    let flag = |reader: &mut Reader<'_>| reader.byte().and_then(|byte| (byte < 2).then_some(byte == 1));
    let epoch = Epoch(reader.varint()?);
    let node = node_name(reader.bytes()?)?;
    let digest = if flag(&mut reader)? { Some(PluginDigest(reader.array()?)) } else { None };
    let reason = String::from_utf8(reader.bytes()?.to_vec()).ok()?;
    let time = unzigzag(reader.varint()?);
    let (key, value) = (reader.bytes()?.to_vec(), reader.bytes()?.to_vec());
    let origin = if flag(&mut reader)? {
        let node = node_name(reader.bytes()?)?;
        let partition = PartitionId(reader.number()?);
        Some(PositionRecord { node, partition, position: Position(reader.bytes()?.to_vec()) })
    } else {
        None
    };
    // Version 1 ends here: it knew rejected rows alone.
    let (mut kind, mut subject, mut stack) = Default::default();
    if !reader.0.is_empty() {
        kind = *LetterKind::ALL.get(usize::from(reader.byte()?))?;
        subject = letter_subject(reader.byte()?, reader.varint()?)?;
        let frames = reader.varint()?;
        stack = Vec::new();
        for _ in 0..frames {
            stack.push(String::from_utf8(reader.bytes()?.to_vec()).ok()?);
        }
    }
    let letter = LetterRecord { epoch, node, digest, kind, subject, reason, stack, time, key, value, origin };
    reader.0.is_empty().then_some(letter)
}

fn letter_subject(byte: u8, number: u64) -> Option<LetterSubject> {
    Some(match (byte, number) {
        (0, port) => LetterSubject::Row { port: port.try_into().ok()? },
        (1, 0) => LetterSubject::Timer(Clock::Event),
        (1, 1) => LetterSubject::Timer(Clock::Processing),
        (2, 0) => LetterSubject::Watermark,
        (3, 0) => LetterSubject::Pane,
        _ => return None,
    })
}

/// Takes merged entries in.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) recovered: Recovered,
    pub(super) known: Known,
    /// Whether state is left where it is.
    pub(super) state_stays: bool,
    node: Option<NodeName>,
}

impl Builder {
    /// `None` where the entry is not what its table holds.
    pub(super) fn take(&mut self, table: Table, node: &str, name: &Name<'_>, value: &[u8]) -> Option<()> {
        match table {
            Table::Counters if name.number == NEXT_LETTER => self.known.next_letter = Reader(value).varint()?,
            Table::Counters => {}
            Table::Meta => {
                let name = std::str::from_utf8(name.first).ok()?;
                self.recovered.meta.insert(name.to_owned(), value.to_vec());
            }
            Table::Letters => self.recovered.dead_letters += 1,
            Table::Replays => drop(self.known.replays.insert(name.number)),
            Table::Removed => return None,
            Table::State if self.state_stays => {}
            Table::Positions
            | Table::Sinks
            | Table::Progress
            | Table::Panes
            | Table::Timers
            | Table::State
            | Table::Held => {
                let node = match self.node.take() {
                    Some(known) if known.as_str() == node => known,
                    _ => NodeName::new(node).ok()?,
                };
                let taken = self.take_of_node(table, &node, name, value);
                self.node = Some(node);
                taken?;
            }
        }
        Some(())
    }

    fn take_of_node(&mut self, table: Table, node: &NodeName, name: &Name<'_>, value: &[u8]) -> Option<()> {
        let mut reader = Reader(value);
        if table == Table::Positions {
            let (partition, position) = (PartitionId(name.number.try_into().ok()?), Position(value.to_vec()));
            self.recovered.positions.push(PositionRecord { node: node.clone(), partition, position });
            return Some(());
        }
        if table == Table::Sinks {
            let (share, shares) = (name.number.try_into().ok()?, reader.number()?);
            self.known.note(table, node, shares);
            self.recovered.sinks.push(SinkRecord { node: node.clone(), share, shares, handle: reader.0.to_vec() });
            return Some(());
        }
        if !self.recovered.stages.contains_key(node) {
            self.recovered.stages.insert(node.clone(), Default::default());
        }
        let stage = self.recovered.stages.get_mut(node)?;
        match table {
            Table::Progress => {
                let (share, shares) = (name.number.try_into().ok()?, reader.number()?);
                let next_window = i128::from_le_bytes(reader.array()?);
                let progress = ProgressRecord { next_window, panes: reader.varint()? };
                stage.progress.push((share, shares, progress));
                self.known.note(table, node, shares);
            }
            Table::Panes => {
                let order = reader.number()?;
                let (slice, key) = (unzigzag(name.number), name.first.into());
                stage.panes.push(PaneRecord { slice, key, order, accumulator: reader.0.into() });
            }
            Table::Timers => {
                let clock = match name.number {
                    0 => Clock::Event,
                    1 => Clock::Processing,
                    _ => return None,
                };
                let set = Some((unzigzag(reader.varint()?), reader.varint()?));
                stage.timers.push(TimerRecord { clock, key: name.first.into(), tag: name.second.into(), set });
            }
            Table::Held => stage.held.push(HeldRecord {
                node: node.clone(),
                port: name.number.try_into().ok()?,
                key: name.first.into(),
                name: name.second.into(),
                value: Some(value.to_vec()),
            }),
            Table::State => {
                let space = name.number.try_into().ok()?;
                let (key, subkey) = (name.first.into(), name.second.into());
                let (value, written) = decode_state(value)?;
                stage.state.push(EntryChange { space, key, subkey, value: Some(value.into()), written });
            }
            Table::Removed
            | Table::Counters
            | Table::Meta
            | Table::Positions
            | Table::Sinks
            | Table::Letters
            | Table::Replays => {
                return None;
            }
        }
        Some(())
    }
}
