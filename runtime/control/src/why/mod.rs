//! Why a window is open, a partition lags, a row was late: from the facts that tasks tell to what
//! people want to know. Pure.
//!
//! The watermark of a task is that of its slowest input, and so on upstream: [`explain`] follows it to
//! the partition, the ordering buffer or the task that holds it back.

mod holder;
mod text;

use serde::Serialize;
use wasmill_engine::{BufferFacts, HeadFacts, JobFacts, LateRow, TaskFacts, Waits, WindowFacts};
use wasmill_model::{NodeName, Timestamp, WindowShape, WindowSpec};
use wasmill_order::{OpenWindow, Standing};
use wasmill_plan::{NodeKind, Plan};

use crate::identity;

pub use holder::Holder;
use holder::{lag, trace};
use text::{behind, end_of_time, key_text, span};

/// Partitions of a source that are named.
const PARTITIONS_MAX: usize = 8;

/// What is known of a job, node by node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Why {
    /// The nodes, in the order of the plan.
    pub nodes: Vec<NodeWhy>,
    /// Tasks that did not answer.
    pub silent: Vec<SilentTask>,
}

/// A task that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SilentTask {
    /// Its first node.
    pub node: NodeName,
    /// Which of the tasks of that node.
    pub task: u16,
    /// In a sentence.
    pub reason: String,
}

/// What is known of a node: of its slowest task, where it has several.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeWhy {
    /// The node.
    pub name: NodeName,
    /// `source`, `stage` or `sink`.
    pub kind: &'static str,
    /// Its watermark; `None` before the first event and behind the last.
    pub watermark_micros: Option<i64>,
    /// Who holds the watermark back; `None` where all input has ended.
    pub held_back_by: Option<Holder>,
    /// Of a source: its slowest partitions, the slowest first.
    pub partitions: Vec<PartitionWhy>,
    /// Its ordering buffers, over all tasks.
    pub buffers: Vec<BufferWhy>,
    /// Its windows, over all tasks.
    pub windows: Option<WindowsWhy>,
    /// The last rows that were late for its buffers or its windows.
    pub late: Vec<LateWhy>,
}

/// A partition of a source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionWhy {
    /// Its number.
    pub partition: u32,
    /// What people call it.
    pub name: String,
    /// Its latest event.
    pub latest_micros: Option<i64>,
    /// Its watermark.
    pub watermark_micros: Option<i64>,
    /// How long nothing has come.
    pub silent_seconds: f64,
    /// `live`, `idle` or `ended`.
    pub standing: &'static str,
    /// In a sentence.
    pub reason: String,
}

/// An ordering buffer in one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BufferWhy {
    /// Which task.
    pub task: u16,
    /// The input port.
    pub port: u16,
    /// Rows held.
    pub held: u64,
    /// Those of them that wait on disk.
    pub on_disk: u64,
    /// Bytes in memory of the batches of the others.
    pub bytes: u64,
    /// How long rows wait by event time, where that is known.
    pub k_micros: Option<u64>,
    /// The sequences that wait.
    pub gaps: Vec<GapWhy>,
    /// What it waits for, in sentences.
    pub reason: String,
}

/// A sequence that waits for a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GapWhy {
    /// Its key, where keys have sequences of their own.
    pub key: Option<String>,
    /// The number that is missing.
    pub missing: u64,
    /// The first number that waits.
    pub held_from: u64,
    /// Rows that wait.
    pub held: u64,
    /// When the number is given up, by the wall clock.
    pub gives_up_micros: Option<u64>,
}

/// The windows of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowsWhy {
    /// Accumulators held.
    pub held: u64,
    /// Those that fire first.
    pub open: Vec<WindowWhy>,
}

/// An open window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowWhy {
    /// The key.
    pub key: String,
    /// Where it begins, where it has bounds in time.
    pub start_micros: Option<i64>,
    /// Where it ends.
    pub end_micros: Option<i64>,
    /// How far the watermark has to rise until it fires, or is closed for good.
    pub rise_micros: Option<u64>,
    /// Whether its end has passed.
    pub passed: bool,
    /// In a sentence.
    pub reason: String,
}

/// A row that was late.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LateWhy {
    /// Its event time.
    pub time_micros: i64,
    /// Its key.
    pub key: String,
    /// The watermark that it came behind.
    pub watermark_micros: Option<i64>,
    /// How far behind.
    pub behind_micros: u64,
    /// Its number, in an order by sequence.
    pub number: Option<u64>,
    /// Where it came from, where one source alone feeds the node.
    pub source: Option<NodeName>,
    /// Its partition there.
    pub partition: Option<u32>,
    /// Its offset there.
    pub offset: Option<u64>,
    /// When it came, by the wall clock.
    pub came_micros: i64,
    /// In a sentence.
    pub reason: String,
}

/// What is known of a job, or of one of its nodes. `wall` is now.
#[must_use]
pub fn explain(plan: &Plan, facts: &JobFacts, only: Option<&NodeName>, wall: Timestamp) -> Why {
    let wanted = plan.nodes.iter().enumerate().filter(|(_, node)| only.is_none_or(|only| node.name == *only));
    let sources = identity::sources(plan);
    let nodes = wanted.map(|(place, of)| node(plan, facts, place, sources.get(&of.name), wall)).collect();
    let silent = facts.silent.iter().map(|(node, task)| SilentTask {
        node: node.clone(),
        task: *task,
        reason: "it has not answered: it works on one batch, or waits for room in the queue of a slower node"
            .to_owned(),
    });
    Why { nodes, silent: silent.collect() }
}

/// `source`: of its rows, where there is one alone.
fn node(plan: &Plan, facts: &JobFacts, place: usize, source: Option<&NodeName>, wall: Timestamp) -> NodeWhy {
    let node = &plan.nodes[place];
    let tasks = || facts.tasks.iter().filter(|task| task.nodes.contains(&node.name));
    let slowest = tasks().min_by_key(|task| (task.watermark, task.share));
    let window = match node.kind {
        NodeKind::Stage { window, .. } => window,
        NodeKind::Source { .. } | NodeKind::Sink => None,
    };
    let mut late: Vec<(Timestamp, LateWhy)> = Vec::new();
    let mut buffers = Vec::new();
    for task in tasks().filter(|task| task.nodes.first() == Some(&node.name)) {
        for buffer in &task.buffers {
            buffers.push(buffer_why(task, buffer));
            late.extend(buffer.late.iter().map(|row| (row.came, late_for_buffer(row, buffer, source))));
        }
    }
    let of_windows: Vec<(&TaskFacts, &WindowFacts)> = tasks()
        .flat_map(|task| task.windows.iter().map(move |windows| (task, windows)))
        .filter(|(_, windows)| windows.node == node.name)
        .collect();
    for (_, windows) in &of_windows {
        late.extend(windows.late.iter().map(|row| (row.came, late_for_window(row, window, source))));
    }
    late.sort_by_key(|(came, _)| *came);
    NodeWhy {
        name: node.name.clone(),
        kind: node.kind.name(),
        watermark_micros: slowest.and_then(|task| micros(task.watermark)),
        held_back_by: slowest.and_then(|task| trace(plan, facts, task)),
        partitions: partitions(plan, facts, place),
        buffers,
        windows: (!of_windows.is_empty()).then(|| windows_why(&of_windows, wall)),
        late: late.into_iter().map(|(_, why)| why).collect(),
    }
}

fn partitions(plan: &Plan, facts: &JobFacts, place: usize) -> Vec<PartitionWhy> {
    let NodeKind::Source { watermarks, .. } = &plan.nodes[place].kind else { return Vec::new() };
    let name = &plan.nodes[place].name;
    let tasks = facts.tasks.iter().filter(|task| task.nodes.first() == Some(name));
    let mut all: Vec<_> = tasks
        .filter_map(|task| match &task.head {
            // Those of a source without watermarks of its own have none either.
            HeadFacts::Source(source) if source.from.is_none() => {
                Some(source.partitions.iter().map(move |named| (source, named)))
            }
            HeadFacts::Source(_) | HeadFacts::Inputs(_) => None,
        })
        .flatten()
        .collect();
    let rank = |standing| match standing {
        Standing::Live => 0,
        Standing::Idle => 1,
        Standing::Ended => 2,
    };
    all.sort_by_key(|(_, (progress, _))| (rank(progress.standing), progress.watermark, progress.partition));
    let each = all.into_iter().take(PARTITIONS_MAX).map(|(source, (progress, name))| PartitionWhy {
        partition: progress.partition.0,
        name: name.clone(),
        latest_micros: micros(progress.latest),
        watermark_micros: micros(progress.watermark),
        silent_seconds: facts.now_nanos.saturating_sub(progress.heard_nanos) as f64 / 1e9,
        standing: match progress.standing {
            Standing::Live => "live",
            Standing::Idle => "idle",
            Standing::Ended => "ended",
        },
        reason: lag(watermarks, source, progress, facts.now_nanos),
    });
    each.collect()
}

fn buffer_why(task: &TaskFacts, facts: &BufferFacts) -> BufferWhy {
    let BufferFacts { port, held, on_disk, bytes, .. } = *facts;
    let (mut k_micros, mut gaps) = (None, Vec::new());
    let reason = match &facts.waits {
        Waits::Time { first: None, k, .. } => {
            k_micros = *k;
            "it holds nothing".to_owned()
        }
        Waits::Time { k: None, first: Some((time, key)), .. } => {
            format!("its next row, of {time} and {}, goes on once the watermark has passed that", key_text(key))
        }
        Waits::Time { k: Some(k), latest, first: Some((time, key)) } => {
            k_micros = Some(*k);
            let (key, latest) = (key_text(key), latest.unwrap_or(Timestamp::MIN));
            let wanted = Timestamp(time.0.saturating_add_unsigned(*k));
            format!(
                "its next row, of {time} and {key}, goes on once one of {wanted} has come: rows wait for {}, and \
                 the latest so far is of {latest}",
                span(*k)
            )
        }
        Waits::Sequence { gaps: none, .. } if none.is_empty() => "it holds nothing".to_owned(),
        Waits::Sequence { gaps: waiting, per_key } => {
            let each = waiting.iter().map(|gap| {
                let of = if *per_key { format!("{}: ", key_text(&gap.key)) } else { String::new() };
                let until = match gap.gives_up {
                    Some(at) => format!("it is given up at {}", Timestamp(i64::try_from(at).unwrap_or(i64::MAX))),
                    None => "it is waited for until it comes".to_owned(),
                };
                let (missing, held_from, held) = (gap.missing, gap.held_from, gap.held);
                format!("{of}number {missing} is missing, and {held} rows from number {held_from} on wait; {until}")
            });
            let text = each.collect::<Vec<_>>().join("; ");
            gaps.extend(waiting.iter().map(|gap| GapWhy {
                key: per_key.then(|| String::from_utf8_lossy(&gap.key).into_owned()),
                missing: gap.missing,
                held_from: gap.held_from,
                held: gap.held,
                gives_up_micros: gap.gives_up,
            }));
            text
        }
    };
    BufferWhy { task: task.share, port, held, on_disk, bytes, k_micros, gaps, reason }
}

fn windows_why(tasks: &[(&TaskFacts, &WindowFacts)], wall: Timestamp) -> WindowsWhy {
    let mut open: Vec<(Timestamp, WindowWhy)> = Vec::new();
    for (task, windows) in tasks {
        open.extend(windows.open.iter().map(|window| (window.due, window_why(window, task.watermark, wall))));
    }
    open.sort_by_key(|(due, _)| *due);
    let held = tasks.iter().map(|(_, windows)| windows.held).sum();
    WindowsWhy { held, open: open.into_iter().map(|(_, why)| why).collect() }
}

fn window_why(window: &OpenWindow, watermark: Timestamp, wall: Timestamp) -> WindowWhy {
    let OpenWindow { start, end, due, wall_due, passed, .. } = *window;
    let has_bounds = start != i64::MIN || !end_of_time(Timestamp(end));
    let rise = (!end_of_time(due) && watermark > Timestamp::MIN).then(|| due.0.abs_diff(watermark.0.min(due.0)));
    let mut reason = match (passed, rise) {
        _ if end_of_time(due) => {
            "it has no end in time: it fires when it is full, or at the end of the input".to_owned()
        }
        (true, _) => format!("it has fired, and takes late events until the watermark is at {due}"),
        (false, Some(rise)) => format!("it fires once the watermark has risen by {}, to {due}", span(rise)),
        (false, None) => format!("it fires once the watermark is at {due}, and there is none yet"),
    };
    if let Some(at) = wall_due {
        let left = span(at.0.abs_diff(wall.0.min(at.0)));
        reason.push_str(&format!("; and by the wall clock in {left}"));
    }
    WindowWhy {
        key: String::from_utf8_lossy(&window.key).into_owned(),
        start_micros: has_bounds.then_some(start),
        end_micros: has_bounds.then_some(end),
        rise_micros: rise,
        passed,
        reason,
    }
}

fn late_for_window(row: &LateRow, window: Option<WindowSpec>, source: Option<&NodeName>) -> LateWhy {
    let lateness = window.map_or(0, |window| window.firing.lateness_micros);
    let end = window.and_then(|window| match window.shape {
        WindowShape::Tumbling { size_micros } => last_end(row.time.0, size_micros, size_micros),
        WindowShape::Sliding { size_micros, slide_micros } => last_end(row.time.0, size_micros, slide_micros),
        WindowShape::Session { gap_micros } => row.time.0.checked_add(gap_micros),
        WindowShape::Count { .. } | WindowShape::Global => None,
    });
    let mut reason = behind(row);
    if let Some(end) = end {
        let closed = Timestamp(end.saturating_add(lateness));
        // A window takes rows while the watermark is below its last microsecond and the lateness.
        let more = row.watermark.0.saturating_sub(closed.0).saturating_add(2).max(1).unsigned_abs();
        reason.push_str(&format!(
            "; its last window ended at {}{}. A `lateness`, or a `watermark.bound`, longer by {} would have taken it",
            Timestamp(end),
            if lateness > 0 { format!(", and took late events until {closed}") } else { String::new() },
            span(more),
        ));
    }
    late_why(row, source, reason)
}

fn late_for_buffer(row: &LateRow, buffer: &BufferFacts, source: Option<&NodeName>) -> LateWhy {
    let reason = match (&buffer.waits, row.number) {
        (Waits::Sequence { .. }, Some(number)) => {
            format!("its number {number} had gone by: it had come before, or was given up")
        }
        (Waits::Sequence { .. }, None) => "its number had gone by".to_owned(),
        (Waits::Time { k, .. }, _) => {
            let setting = if k.is_some() { "a longer `bound`" } else { "a longer `watermark.bound` of its source" };
            let more = span(row.watermark.0.abs_diff(row.time.0));
            format!("rows up to {} had gone on: {setting}, by {more}, would have waited for it", row.watermark)
        }
    };
    late_why(row, source, reason)
}

fn late_why(row: &LateRow, source: Option<&NodeName>, reason: String) -> LateWhy {
    LateWhy {
        time_micros: row.time.0,
        key: String::from_utf8_lossy(&row.key).into_owned(),
        watermark_micros: micros(row.watermark),
        behind_micros: if row.watermark > row.time { row.watermark.0.abs_diff(row.time.0) } else { 0 },
        number: row.number,
        source: row.origin.and(source).cloned(),
        partition: row.origin.map(|(partition, _)| partition.0),
        offset: row.origin.map(|(_, offset)| offset),
        came_micros: row.came.0,
        reason,
    }
}

/// Where the last window of a length ends that an event of this time belongs to.
fn last_end(time: i64, size: i64, slide: i64) -> Option<i64> {
    time.div_euclid(slide.max(1)).checked_mul(slide)?.checked_add(size)
}

fn micros(time: Timestamp) -> Option<i64> {
    (time != Timestamp::MIN && !end_of_time(time)).then_some(time.0)
}

#[cfg(test)]
mod tests;
