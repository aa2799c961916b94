//! Random epochs, and a naive model of what they leave.

use std::collections::{BTreeMap, BTreeSet};

use wasmill_model::{
    Clock, Epoch, LetterKind, LetterSubject, NodeName, PartitionId, PluginDigest, Position, key_group, share_of,
};
use wasmill_store::{
    Change, ChangeSet, EntryChange, EpochRecord, HeldRecord, LetterId, LetterRecord, PaneRecord, PositionRecord,
    ProgressRecord, Recovered, SinkRecord, StageRecord, TimerRecord, WindowRecord,
};

/// Numbers from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn name(&mut self) -> Box<[u8]> {
        let names: [&[u8]; 7] = [b"", b"a", b"\0", b"bridge-7", b"bridge-70", b"bridge-71-of-the-north", b"\xff\xff"];
        names[self.below(7) as usize].into()
    }

    fn value(&mut self) -> Vec<u8> {
        let len = if self.below(20) == 0 { self.below(3_000) } else { self.below(12) };
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("a name")
}

type Bytes = Box<[u8]>;

/// What epochs leave, kept in the simplest way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) epoch: Epoch,
    pub(crate) next_letter: u64,
    pub(crate) letters: BTreeMap<LetterId, LetterRecord>,
    pub(crate) replays: BTreeSet<LetterId>,
    meta: BTreeMap<String, Vec<u8>>,
    positions: BTreeMap<(NodeName, PartitionId), Position>,
    sinks: BTreeMap<(NodeName, u16), (u16, Vec<u8>)>,
    state: BTreeMap<(NodeName, u16, Bytes, Bytes), (Bytes, i64)>,
    timers: BTreeMap<(NodeName, Clock, Bytes, Bytes), (i64, u64)>,
    progress: BTreeMap<(NodeName, u16), (u16, ProgressRecord)>,
    panes: BTreeMap<(NodeName, i64, Bytes), (u32, Bytes)>,
    held: BTreeMap<(NodeName, u16, Bytes, Bytes), Vec<u8>>,
}

fn owner(key: &[u8], shares: u16) -> u16 {
    share_of(key_group(key), shares)
}

impl Model {
    pub(crate) fn apply(&mut self, epoch: Epoch, record: &EpochRecord) {
        self.epoch = epoch;
        for removed in &record.removed {
            self.positions.retain(|(node, _), _| node != removed);
            self.sinks.retain(|(node, _), _| node != removed);
            self.state.retain(|(node, ..), _| node != removed);
            self.timers.retain(|(node, ..), _| node != removed);
            self.progress.retain(|(node, _), _| node != removed);
            self.panes.retain(|(node, ..), _| node != removed);
            self.held.retain(|(node, ..), _| node != removed);
        }
        for (name, fact) in &record.meta {
            match fact {
                Some(fact) => self.meta.insert(name.clone(), fact.clone()),
                None => self.meta.remove(name),
            };
        }
        for PositionRecord { node, partition, position } in &record.positions {
            self.positions.insert((node.clone(), *partition), position.clone());
        }
        for SinkRecord { node, share, shares, handle } in &record.sinks {
            self.sinks.insert((node.clone(), *share), (*shares, handle.clone()));
            self.sinks.retain(|(other, share), _| other != node || share < shares);
        }
        for HeldRecord { node, port, key, name, value } in &record.held {
            let place = (node.clone(), *port, key.clone(), name.clone());
            match value {
                Some(value) => self.held.insert(place, value.clone()),
                None => self.held.remove(&place),
            };
        }
        for stage in &record.stages {
            for Change { space, key, subkey, value, written } in stage.state.iter() {
                let place = (stage.node.clone(), space, key.into(), subkey.into());
                match value {
                    Some(value) => self.state.insert(place, (value.into(), written)),
                    None => self.state.remove(&place),
                };
            }
            for TimerRecord { clock, key, tag, set } in &stage.timers {
                let place = (stage.node.clone(), *clock, key.clone(), tag.clone());
                match set {
                    Some(set) => self.timers.insert(place, *set),
                    None => self.timers.remove(&place),
                };
            }
            if let Some(windows) = &stage.windows {
                self.progress.insert((stage.node.clone(), stage.share), (stage.shares, windows.progress));
                self.progress.retain(|(other, share), _| *other != stage.node || *share < stage.shares);
                for dropped in &windows.dropped {
                    self.panes.retain(|(other, slice, key), _| {
                        *other != stage.node || slice != dropped || owner(key, stage.shares) != stage.share
                    });
                }
                for key in &windows.gone {
                    self.panes.remove(&(stage.node.clone(), 0, key.clone()));
                }
                for PaneRecord { slice, key, order, accumulator } in &windows.entries {
                    self.panes.insert((stage.node.clone(), *slice, key.clone()), (*order, accumulator.clone()));
                }
            }
        }
        for letter in &record.dead_letters {
            self.letters.insert(LetterId(self.next_letter), LetterRecord { epoch, ..letter.clone() });
            self.next_letter += 1;
        }
        for id in &record.dropped_letters {
            self.letters.remove(id);
            self.replays.remove(id);
        }
        self.replays.extend(record.replays.iter().filter(|id| id.0 < self.next_letter));
    }

    /// What a store gives back that holds the same.
    pub(crate) fn recovered(&self) -> Recovered {
        let mut recovered = Recovered {
            epoch: self.epoch,
            meta: self.meta.clone(),
            dead_letters: self.letters.len() as u64,
            replays: self.replays.iter().filter_map(|id| Some((*id, self.letters.get(id)?.clone()))).collect(),
            ..Recovered::default()
        };
        for ((node, partition), position) in self.positions.clone() {
            recovered.positions.push(PositionRecord { node, partition, position });
        }
        for ((node, share), (shares, handle)) in self.sinks.clone() {
            recovered.sinks.push(SinkRecord { node, share, shares, handle });
        }
        for ((node, space, key, subkey), (value, written)) in self.state.clone() {
            let entry = EntryChange { space, key, subkey, value: Some(value), written };
            recovered.stages.entry(node).or_default().state.push(entry);
        }
        for ((node, clock, key, tag), set) in self.timers.clone() {
            recovered.stages.entry(node).or_default().timers.push(TimerRecord { clock, key, tag, set: Some(set) });
        }
        for ((node, share), (shares, progress)) in self.progress.clone() {
            recovered.stages.entry(node).or_default().progress.push((share, shares, progress));
        }
        for ((node, slice, key), (order, accumulator)) in self.panes.clone() {
            recovered.stages.entry(node).or_default().panes.push(PaneRecord { slice, key, order, accumulator });
        }
        for ((node, port, key, name), value) in self.held.clone() {
            let held = HeldRecord { node: node.clone(), port, key, name, value: Some(value) };
            recovered.stages.entry(node).or_default().held.push(held);
        }
        recovered
    }
}

/// A recovered job with what has no stated order put in one.
pub(crate) fn sorted(mut recovered: Recovered) -> Recovered {
    for stage in recovered.stages.values_mut() {
        stage.panes.sort_by(|a, b| (a.slice, &a.key).cmp(&(b.slice, &b.key)));
    }
    recovered
}

/// An epoch that touches everything now and then.
pub(crate) fn record(chance: &mut Chance, model: &Model) -> EpochRecord {
    let mut record = EpochRecord::default();
    if chance.below(8) == 0 {
        let nodes = ["in", "count", "out", "unknown"].map(node);
        record.removed = nodes.into_iter().filter(|_| chance.below(2) == 0).collect();
    }
    if chance.below(4) == 0 {
        let fact = (chance.below(3) > 0).then(|| chance.value());
        record.meta.insert(format!("plugin/{}", chance.below(3)), fact);
    }
    for partition in 0..chance.below(3) {
        let position = Position(model.epoch.0.to_le_bytes().into());
        record.positions.push(PositionRecord { node: node("in"), partition: PartitionId(partition as u32), position });
    }
    let shares = 1 + chance.below(3) as u16;
    for share in 0..shares {
        record.sinks.push(SinkRecord { node: node("out"), share, shares, handle: chance.value() });
        record.stages.push(stage(chance, share, shares));
    }
    let mut held = BTreeMap::new();
    for _ in 0..chance.below(6) {
        let value = (chance.below(3) > 0).then(|| chance.value());
        held.insert(
            (chance.below(2) as u16, chance.name(), [&[chance.below(3) as u8], &*chance.name()].concat()),
            value,
        );
    }
    record.held = (held.into_iter())
        .map(|((port, key, name), value)| HeldRecord { node: node("count"), port, key, name: name.into(), value })
        .collect();
    if chance.below(3) == 0 {
        record.dead_letters = (0..chance.below(4)).map(|_| letter(chance)).collect();
    }
    if chance.below(4) == 0 {
        record.dropped_letters = model.letters.keys().copied().filter(|_| chance.below(2) == 0).collect();
    }
    if chance.below(4) == 0 {
        let kept = model.letters.keys().copied().filter(|id| !record.dropped_letters.contains(id));
        record.replays = kept.filter(|_| chance.below(2) == 0).collect();
    }
    record
}

fn stage(chance: &mut Chance, share: u16, shares: u16) -> StageRecord {
    let names = |chance: &mut Chance, count: u64| -> Vec<Box<[u8]>> {
        let names: Vec<_> = (0..chance.below(count)).map(|_| chance.name()).collect();
        names.into_iter().filter(|name| owner(name, shares) == share).collect()
    };
    let mut state = BTreeMap::new();
    for key in names(chance, 12) {
        let times = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX];
        let value = (chance.below(4) > 0).then(|| (chance.value().into(), times[chance.below(5) as usize]));
        state.insert((chance.below(2) as u16, key, chance.name()), value);
    }
    let entries = state.into_iter().map(|((space, key, subkey), entry)| {
        let (value, written) = entry.map_or((None, i64::MIN), |(value, written)| (Some(value), written));
        EntryChange { space, key, subkey, value, written }
    });
    let mut timers = BTreeMap::new();
    for key in names(chance, 6) {
        let clock = if chance.below(2) == 0 { Clock::Event } else { Clock::Processing };
        let time = chance.below(1_000).cast_signed() - 500;
        timers.insert((clock, key, chance.name()), (chance.below(3) > 0).then(|| (time, chance.below(9))));
    }
    let timers = timers.into_iter().map(|((clock, key, tag), set)| TimerRecord { clock, key, tag, set });
    let slice = |chance: &mut Chance| (chance.below(4).cast_signed() - 1) * 60_000_000;
    let mut panes = BTreeMap::new();
    for key in names(chance, 8) {
        panes.insert((slice(chance), key), (chance.below(5) as u32, chance.value().into()));
    }
    let accumulators = panes.clone().into_iter().map(|((slice, key), (order, accumulator))| PaneRecord {
        slice,
        key,
        order,
        accumulator,
    });
    let mut gone = names(chance, 4);
    gone.retain(|key| !panes.contains_key(&(0, key.clone())));
    let windows = WindowRecord {
        progress: ProgressRecord { next_window: i128::from(chance.below(9)) - 4, panes: chance.below(3) },
        dropped: (0..chance.below(3)).map(|_| slice(chance)).collect(),
        gone,
        entries: accumulators.collect(),
    };
    let (state, timers) = (ChangeSet::from_iter(entries), timers.collect());
    StageRecord { node: node("count"), share, shares, state, timers, windows: Some(windows) }
}

fn letter(chance: &mut Chance) -> LetterRecord {
    let origin = PositionRecord { node: node("in"), partition: PartitionId(0), position: Position(chance.value()) };
    LetterRecord {
        epoch: Epoch(0),
        node: node("count"),
        digest: (chance.below(2) == 0).then_some(PluginDigest([7; 32])),
        kind: LetterKind::ALL[chance.below(6) as usize],
        subject: match chance.below(4) {
            0 => LetterSubject::Row { port: chance.below(300) as u16 },
            1 => LetterSubject::Timer(if chance.below(2) == 0 { Clock::Event } else { Clock::Processing }),
            2 => LetterSubject::Watermark,
            _ => LetterSubject::Pane,
        },
        reason: "divided by zero".into(),
        stack: (0..chance.below(3)).map(|frame| format!("frame {frame}")).collect(),
        time: chance.below(1 << 40).cast_signed() - 1_000,
        key: chance.name().into(),
        value: chance.value(),
        origin: (chance.below(2) == 0).then_some(origin),
    }
}
