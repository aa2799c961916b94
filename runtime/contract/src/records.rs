//! Cuts as the store keeps them, and back: the one place that knows the shapes of both.

use wasmill_model::{NodeName, Position, Timestamp};
use wasmill_order::{PaneEntry, TimerEntry, WindowChanges, WindowProgress};
use wasmill_store::{
    EpochRecord, LetterRecord, PaneRecord, PositionRecord, ProgressRecord, SinkRecord, StageRecord, TimerRecord,
    WindowRecord,
};

use crate::{Cut, DeadLetter, SourceCut, StageCut};

/// The cuts of all tasks as one record. `source_of` names the source whose rows a node gets; the
/// offsets of rejected rows are stored as eight bytes, the lowest first.
pub fn epoch_record(cuts: Vec<Cut>, source_of: impl Fn(&NodeName) -> NodeName) -> EpochRecord {
    let mut record = EpochRecord::default();
    for cut in cuts {
        for SourceCut { node, positions } in cut.sources {
            let at = |(partition, position)| PositionRecord { node: node.clone(), partition, position };
            record.positions.extend(positions.into_iter().map(at));
        }
        record.stages.extend(cut.stages.into_iter().map(stage_record));
        record.held.extend(cut.held);
        for sink in cut.sinks {
            let (share, shares) = (sink.share.index, sink.share.of);
            record.sinks.push(SinkRecord { node: sink.node, share, shares, handle: sink.handle.0 });
        }
        for letter in &cut.dead_letters {
            let source = source_of(&letter.node);
            record.dead_letters.extend(letter_records(letter, &source));
        }
        record.dropped_letters.extend(cut.replayed);
    }
    record
}

fn stage_record(cut: StageCut) -> StageRecord {
    StageRecord {
        node: cut.node,
        share: cut.share.index,
        shares: cut.share.of,
        state: cut.state,
        timers: cut.timers.into_iter().map(timer_record).collect(),
        windows: cut.windows.map(window_record),
    }
}

/// What a dead letter holds, one by one, without its epoch. `source` is where its rows come from.
pub fn letter_records<'a>(letter: &'a DeadLetter, source: &'a NodeName) -> impl Iterator<Item = LetterRecord> + 'a {
    let rows = &letter.rows;
    letter.reasons.iter().enumerate().take(rows.len()).map(move |(row, reason)| LetterRecord {
        epoch: wasmill_model::Epoch::default(),
        node: letter.node.clone(),
        digest: letter.digest,
        kind: letter.kind,
        subject: letter.subject,
        reason: reason.clone(),
        stack: letter.stack.clone(),
        time: rows.times()[row],
        key: rows.keys().row(row).to_vec(),
        value: rows.values().row(row).to_vec(),
        origin: rows.lineage().map(|lineage| PositionRecord {
            node: source.clone(),
            partition: lineage.partition,
            position: Position(lineage.offsets[row].to_le_bytes().to_vec()),
        }),
    })
}

fn timer_record(TimerEntry { clock, key, tag, set }: TimerEntry) -> TimerRecord {
    TimerRecord { clock, key, tag, set: set.map(|(time, order)| (time.0, order)) }
}

fn window_record(changes: WindowChanges) -> WindowRecord {
    let WindowChanges { progress: WindowProgress { next_window, panes }, dropped, gone, entries } = changes;
    let entries = entries.into_iter().map(|PaneEntry { slice, key, order, accumulator }| PaneRecord {
        slice,
        key,
        order,
        accumulator,
    });
    WindowRecord { progress: ProgressRecord { next_window, panes }, dropped, gone, entries: entries.collect() }
}

/// A stored timer.
#[must_use]
pub fn timer_entry(TimerRecord { clock, key, tag, set }: TimerRecord) -> TimerEntry {
    TimerEntry { clock, key, tag, set: set.map(|(time, order)| (Timestamp(time), order)) }
}

/// A stored accumulator.
#[must_use]
pub fn pane_entry(PaneRecord { slice, key, order, accumulator }: PaneRecord) -> PaneEntry {
    PaneEntry { slice, key, order, accumulator }
}

/// How far stored windows had fired.
#[must_use]
pub fn window_progress(ProgressRecord { next_window, panes }: ProgressRecord) -> WindowProgress {
    WindowProgress { next_window, panes }
}
