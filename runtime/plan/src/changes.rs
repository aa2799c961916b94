//! Which streams change rows that they have given, and who can take that.

use wasmill_model::{ChangeMode, Descriptor, NodeName, PaneMode, WindowSpec};
use wasmill_spec::{Diagnostic, InputSpec, JobSpec, LatePolicy, NodeSpec};

use crate::planner::{Named, keeps_by_key};
use crate::{Edge, Facts};

/// What a stream does to rows that it has given, and the stage that does it.
#[derive(Debug, Clone, Copy)]
struct Changes<'a> {
    mode: ChangeMode,
    from: &'a NodeName,
    by: By,
}

/// What of a stage gives rows that change others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    /// Its ordering buffer, whose late rows are corrections: each stands for itself, whatever a plugin
    /// makes of it.
    Buffer,
    /// Its windows.
    Windows,
}

/// What the rows of windows do to those before them.
fn of_windows(window: WindowSpec) -> ChangeMode {
    match window.firing.panes {
        _ if !window.corrects() => ChangeMode::Append,
        // Each pane holds what no other does.
        PaneMode::Discard => ChangeMode::Append,
        PaneMode::Accumulate => ChangeMode::Upsert,
        PaneMode::Retract => ChangeMode::Retract,
    }
}

/// Refuses rows that change others where nobody can tell, or nobody can take it.
pub(crate) fn check(
    job: &JobSpec,
    facts: &Facts,
    order: &[Named<'_>],
    edges: &[Edge],
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut streams: Vec<Option<Changes<'_>>> = vec![None; order.len()];
    for (at, (name, node)) in order.iter().enumerate() {
        let inputs = edges.iter().filter(|edge| edge.to == at);
        let changed = inputs.filter_map(|edge| Some((edge, streams[edge.from]?)));
        let Some((edge, changes)) = changed.max_by_key(|(_, changes)| (changes.mode, changes.by)) else {
            streams[at] = own(node, name);
            if let Some(changes) = streams[at].filter(|changes| changes.by == By::Buffer)
                && let Some((message, hint)) =
                    facts.stages.get(*name).and_then(|plugin| stage_cannot(name, plugin, changes))
            {
                diagnostics.push(job.error(&[node.section(), name.as_str(), "input"], message).hint(hint));
                streams[at] = None;
            }
            continue;
        };
        let refused = match node {
            NodeSpec::Source(_) => None,
            NodeSpec::Stage(stage) => {
                let is_ordered = stage.inputs.iter().any(|input| input.order.is_some());
                let wrong = match facts.stages.get(*name) {
                    Some(_) if is_ordered => Some(buffer_cannot(name, changes)),
                    Some(plugin) => stage_cannot(name, plugin, changes),
                    None => None,
                };
                if wrong.is_none() {
                    streams[at] = Some(changes);
                }
                wrong
            }
            NodeSpec::Sink(_) => sink_cannot(facts, name, edge, changes),
        };
        if let Some((message, hint)) = refused {
            diagnostics.push(job.error(&[node.section(), name.as_str(), "input"], message).hint(hint));
            streams[at] = own(node, name);
        }
    }
}

fn own<'a>(node: &NodeSpec<'_>, name: &'a NodeName) -> Option<Changes<'a>> {
    let NodeSpec::Stage(stage) = node else { return None };
    let corrects = |input: &InputSpec| input.order.as_ref().is_some_and(|order| order.late == LatePolicy::Correct);
    if stage.inputs.iter().any(corrects) {
        return Some(Changes { mode: ChangeMode::Upsert, from: name, by: By::Buffer });
    }
    let mode = of_windows(stage.window?);
    (mode != ChangeMode::Append).then_some(Changes { mode, from: name, by: By::Windows })
}

fn said(changes: Changes<'_>) -> String {
    if changes.by == By::Buffer {
        return format!("rows that come late for the ordering buffer of stage `{}` are corrections", changes.from);
    }
    match changes.mode {
        ChangeMode::Retract => format!("stage `{}` takes back rows that it has given", changes.from),
        ChangeMode::Append | ChangeMode::Upsert => {
            format!("stage `{}` gives rows that replace earlier ones", changes.from)
        }
    }
}

/// How a window is made to give rows that stand.
const STAND: &str = "panes = \"discard\" gives what came since the last result, and without `early` and `lateness` \
                     each window gives one";

fn stage_cannot(name: &NodeName, plugin: &Descriptor, changes: Changes<'_>) -> Option<(String, String)> {
    if changes.by == By::Buffer {
        return keeps_by_key(plugin).then(|| {
            let message =
                format!("{}, and stage `{name}` keeps something by key that they come too late for", said(changes));
            (message, buffer_hint(changes))
        });
    }
    if keeps_by_key(plugin) {
        let message = format!("{}, and stage `{name}` would count both: it keeps something by key", said(changes));
        return Some((message, format!("in the window of `{}`, {STAND}", changes.from)));
    }
    if changes.mode == ChangeMode::Upsert {
        let message = format!("{}, and behind stage `{name}` nobody knows which", said(changes));
        let hint =
            format!("write panes = \"retract\" in the window of `{}`: retractions pass through a plugin", changes.from);
        return Some((message, hint));
    }
    None
}

/// What to do about corrections of a buffer.
fn buffer_hint(changes: Changes<'_>) -> String {
    format!("write late = \"forward\", \"side\" or \"drop\" in the `order` of stage `{}`", changes.from)
}

fn buffer_cannot(name: &NodeName, changes: Changes<'_>) -> (String, String) {
    let message = format!("{}, and the ordering buffer of stage `{name}` does not keep which", said(changes));
    if changes.by == By::Buffer {
        return (message, buffer_hint(changes));
    }
    (message, format!("delete `order`, or in the window of `{}`, {STAND}", changes.from))
}

fn sink_cannot(facts: &Facts, name: &NodeName, edge: &Edge, changes: Changes<'_>) -> Option<(String, String)> {
    let sink = facts.sinks.get(name)?;
    if sink.changes < changes.mode {
        let message = format!(
            "{}, and sink `{name}` can only {} rows",
            said(changes),
            if sink.changes == ChangeMode::Append { "append" } else { "replace" }
        );
        let from = changes.from;
        let hint = match sink.more_changes {
            Some(how) if changes.by == By::Buffer => format!("{how}; or {}", buffer_hint(changes)),
            None if changes.by == By::Buffer => {
                let others = "use a sink that takes them, such as `file` with envelope = true";
                format!("{others}; or {}", buffer_hint(changes))
            }
            Some(how) => format!("{how}; or in the window of `{from}`, {STAND}"),
            None => format!(
                "use a sink that takes them, such as `file` with envelope = true; or in the window of `{from}`, {STAND}"
            ),
        };
        return Some((message, hint));
    }
    (changes.mode == ChangeMode::Upsert && changes.by == By::Windows && edge.key.is_some()).then(|| {
        let message = format!("{} of the same key, and sink `{name}` gets them under another", said(changes));
        (message, format!("delete `key`, or write panes = \"retract\" in the window of `{}`", changes.from))
    })
}
