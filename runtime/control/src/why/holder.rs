//! Who holds a watermark back.

use serde::Serialize;
use wasmill_engine::{HeadFacts, InputFacts, JobFacts, Reading, SourceFacts, TaskFacts};
use wasmill_model::{NodeName, Timestamp};
use wasmill_order::{PartitionProgress, Standing};
use wasmill_plan::{NodeKind, Plan, Watermarks};

use super::micros;
use super::text::{end_of_time, span};

/// Silence below this is the ordinary pace of a source, nanoseconds.
const SILENCE_NANOS: u64 = 1_000_000_000;

/// Who holds a watermark back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Holder {
    /// The node.
    pub node: NodeName,
    /// Which of its tasks.
    pub task: u16,
    /// Of a source: which partition.
    pub partition: Option<u32>,
    /// What people call it.
    pub partition_name: Option<String>,
    /// How far it is.
    pub watermark_micros: Option<i64>,
    /// The nodes on the way from there, the nearest first.
    pub through: Vec<NodeName>,
    /// In a sentence.
    pub reason: String,
    /// What to do about it, where something can be done.
    pub hint: Option<String>,
}

/// Follows the watermark of a task to where it stands. `None` where all input has ended.
pub(super) fn trace(plan: &Plan, facts: &JobFacts, task: &TaskFacts) -> Option<Holder> {
    let mut task = task;
    let mut through: Vec<NodeName> = Vec::new();
    // A path through the graph is no longer than that.
    for _ in 0..=plan.nodes.len() {
        if end_of_time(task.watermark) {
            return None;
        }
        let inputs = match &task.head {
            HeadFacts::Source(SourceFacts { from: Some(from), .. }) => {
                through.extend(task.nodes.first().cloned());
                match facts.tasks.iter().find(|other| other.nodes.first() == Some(from)) {
                    Some(next) if end_of_time(next.watermark) => return Some(ended(task, next, through)),
                    Some(next) => task = next,
                    None => return Some(silent_task(from, 0, task.watermark, through)),
                }
                continue;
            }
            HeadFacts::Source(source) => return of_source(plan, facts, task, source, through),
            HeadFacts::Inputs(inputs) => inputs,
        };
        let least = inputs.iter().filter(|input| input.progress.standing == Standing::Live);
        let least = least.min_by_key(|input| input.progress.watermark);
        let reached = least.map_or(Timestamp::MAX, |input| input.progress.watermark);
        if task.buffers.iter().any(|buffer| buffer.held > 0 && buffer.promised < reached) {
            return Some(of_buffer(task, through));
        }
        let Some(input) = least else { return Some(all_idle(task, through)) };
        through.extend(task.nodes.first().cloned());
        match facts.tasks.iter().filter(|other| feeds(other, input)).min_by_key(|other| other.watermark) {
            Some(next) => task = next,
            None => return Some(unheard(input, through)),
        }
    }
    None
}

fn feeds(task: &TaskFacts, input: &InputFacts) -> bool {
    task.nodes.contains(&input.from) && input.share.is_none_or(|share| share == task.share)
}

fn name_of(task: &TaskFacts) -> NodeName {
    task.nodes.first().cloned().expect("a task has a node")
}

fn of_source(
    plan: &Plan,
    facts: &JobFacts,
    task: &TaskFacts,
    source: &SourceFacts,
    through: Vec<NodeName>,
) -> Option<Holder> {
    let node = name_of(task);
    let settings = plan.nodes.iter().find(|planned| planned.name == node).and_then(|planned| match &planned.kind {
        NodeKind::Source { watermarks, .. } => Some(watermarks),
        NodeKind::Stage { .. } | NodeKind::Sink => None,
    })?;
    let live = source.partitions.iter().filter(|(progress, _)| progress.standing == Standing::Live);
    let Some((progress, name)) = live.min_by_key(|(progress, _)| (progress.watermark, progress.partition)) else {
        let reason = match source.partitions.iter().any(|(progress, _)| progress.standing == Standing::Idle) {
            true => "every partition is idle: the watermark stays until one of them is heard again",
            false => "no partition is read",
        };
        let (task, reason) = (task.share, reason.to_owned());
        let watermark_micros = micros(source.watermark);
        return Some(Holder {
            node,
            task,
            partition: None,
            partition_name: None,
            watermark_micros,
            through,
            reason,
            hint: None,
        });
    };
    let silent = facts.now_nanos.saturating_sub(progress.heard_nanos) > SILENCE_NANOS;
    let hint = match source.reading {
        Reading::Paused => Some("resume it: wasmill resume JOB".to_owned()),
        Reading::Reads if silent && settings.idle_micros.is_none() => Some(format!(
            "watermark = {{ idle = \"10s\" }} on source {node} leaves out a partition that is silent for so long"
        )),
        Reading::Reads | Reading::WaitsForEpoch | Reading::WaitsForOthers(_) | Reading::Ended => None,
    };
    Some(Holder {
        task: task.share,
        partition: Some(progress.partition.0),
        partition_name: Some(name.clone()).filter(|name| !name.is_empty()),
        watermark_micros: micros(progress.watermark),
        through,
        reason: lag(settings, source, progress, facts.now_nanos),
        hint,
        node,
    })
}

/// Why a partition is no further.
pub(super) fn lag(settings: &Watermarks, source: &SourceFacts, at: &PartitionProgress, now_nanos: u64) -> String {
    let silent_nanos = now_nanos.saturating_sub(at.heard_nanos);
    let silent = span(silent_nanos / 1_000_000 * 1_000);
    let mut text = match (at.latest, &settings.punctuated) {
        (Timestamp::MIN, Some(mark)) => format!("no row of it was marked at {mark} yet"),
        (Timestamp::MIN, None) => "no event has come from it yet".to_owned(),
        (latest, Some(_)) => format!("its latest mark is of {}", latest.saturating_sub(1)),
        (latest, None) if settings.bound_micros > 0 => format!(
            "its latest event is of {latest}, and others may come {} behind that",
            span(settings.bound_micros.unsigned_abs())
        ),
        (latest, None) => format!("its latest event is of {latest}"),
    };
    let more = match (at.standing, source.reading) {
        (Standing::Ended, _) => "; it has ended".to_owned(),
        (Standing::Idle, _) => format!("; it is idle, silent for {silent}, and holds nothing back"),
        (Standing::Live, Reading::Paused) => "; the job is paused".to_owned(),
        (Standing::Live, Reading::WaitsForEpoch) => "; the source waits for its epoch to be committed".to_owned(),
        (Standing::Live, Reading::WaitsForOthers(Timestamp::MIN)) => {
            "; it is not read: a source that it keeps pace with (`align`) has given no event yet".to_owned()
        }
        (Standing::Live, Reading::WaitsForOthers(slowest)) => {
            let ahead = span(source.watermark.0.abs_diff(slowest.0));
            format!("; it is not read: it is {ahead} ahead of the slowest source that it keeps pace with (`align`)")
        }
        (Standing::Live, Reading::Reads | Reading::Ended) if silent_nanos > SILENCE_NANOS => {
            let idle = settings.idle_micros.map_or("it is never idle".to_owned(), |idle| {
                format!("it is idle after {}", span(idle.unsigned_abs()))
            });
            format!("; nothing came for {silent}, and {idle}")
        }
        (Standing::Live, Reading::Reads | Reading::Ended) => String::new(),
    };
    text.push_str(&more);
    text
}

fn of_buffer(task: &TaskFacts, through: Vec<NodeName>) -> Holder {
    let slowest = task.buffers.iter().min_by_key(|buffer| buffer.promised);
    Holder {
        node: name_of(task),
        task: task.share,
        partition: None,
        partition_name: None,
        watermark_micros: slowest.and_then(|buffer| micros(buffer.promised)),
        through,
        reason: format!(
            "its ordering buffer holds {} rows, and the watermark waits with them",
            slowest.map_or(0, |buffer| buffer.held)
        ),
        hint: None,
    }
}

fn all_idle(task: &TaskFacts, through: Vec<NodeName>) -> Holder {
    Holder {
        node: name_of(task),
        task: task.share,
        partition: None,
        partition_name: None,
        watermark_micros: micros(task.watermark),
        through,
        reason: "every input that has not ended is idle: the watermark stays until one of them is heard again"
            .to_owned(),
        hint: None,
    }
}

/// The source of a source's watermarks has ended.
fn ended(task: &TaskFacts, other: &TaskFacts, through: Vec<NodeName>) -> Holder {
    Holder {
        node: name_of(other),
        task: other.share,
        partition: None,
        partition_name: None,
        watermark_micros: micros(task.watermark),
        through,
        reason: format!(
            "the watermarks of {} come from it, and it has ended: they stay until that ends",
            name_of(task)
        ),
        hint: None,
    }
}

fn unheard(input: &InputFacts, through: Vec<NodeName>) -> Holder {
    silent_task(&input.from, input.share.unwrap_or(0), input.progress.watermark, through)
}

fn silent_task(node: &NodeName, task: u16, watermark: Timestamp, through: Vec<NodeName>) -> Holder {
    Holder {
        node: node.clone(),
        task,
        partition: None,
        partition_name: None,
        watermark_micros: micros(watermark),
        through,
        reason: "it has not answered: it works on one batch, or waits for room in the queue of a slower node"
            .to_owned(),
        hint: None,
    }
}
