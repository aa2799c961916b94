//! Sequential convoys: what may be one, and what of it runs together.

use wasmill_spec::{Diagnostic, JobSpec, NodeSpec};

use crate::planner::{Named, keeps_by_key};
use crate::{Convoy, Edge, Facts};

/// The convoy that a node is, if it is one.
pub(crate) fn of(node: NodeSpec<'_>, keeps_by_key: bool) -> Option<Convoy> {
    let NodeSpec::Stage(stage) = node else { return None };
    let ordered = stage.ordered.clone().filter(|_| stage.parallelism > 1)?;
    Some(Convoy { ordered, by_key: keeps_by_key })
}

/// Whether a node runs in the lanes of the convoy that its only input comes from: the same rows go to
/// the same lanes, and it is of no matter which.
pub(crate) fn joins(from: Option<&Convoy>, to: Option<&Convoy>, edge: &Edge) -> bool {
    let (Some(from), Some(to)) = (from, to) else { return false };
    from.ordered == to.ordered && !to.by_key && edge.key.is_none()
}

/// Refuses convoys whose rows have no order, or whose order nothing can keep.
pub(crate) fn check(
    job: &JobSpec,
    facts: &Facts,
    order: &[Named<'_>],
    edges: &[Edge],
    diagnostics: &mut Vec<Diagnostic>,
) {
    for (at, (name, node)) in order.iter().enumerate() {
        let keeps = facts.stages.get(*name).is_some_and(keeps_by_key);
        let (NodeSpec::Stage(stage), Some(convoy)) = (node, of(*node, keeps)) else { continue };
        let path = |key| ["stage", name.as_str(), key];
        let mut wrong = |key, message: String, hint: &str| {
            diagnostics.push(job.error(&path(key), message).hint(hint));
        };
        if stage.window.is_some() {
            let message = format!("the panes of stage `{name}` leave in the order of their windows in any case");
            wrong("ordered", message, "leave out `ordered`");
            continue;
        }
        if keeps && !convoy.ordered.split.is_empty() {
            let message = format!("stage `{name}` keeps state by key, and `split` would take the rows of a key apart");
            wrong("ordered", message, "write ordered = true, and the key at `input`");
        }
        let mut inputs = edges.iter().filter(|edge| edge.to == at);
        let (Some(edge), None) = (inputs.next(), inputs.next()) else {
            let message = format!("the rows of several inputs have no order that stage `{name}` could keep");
            wrong("input", message, "give an ordered stage one input; a stage of one task before it can join several");
            continue;
        };
        let (before, from) = order[edge.from];
        let from_keeps = facts.stages.get(before).is_some_and(keeps_by_key);
        if from.parallelism() > 1
            && !(from.parallelism() == stage.parallelism && joins(of(from, from_keeps).as_ref(), Some(&convoy), edge))
        {
            let message = format!("`{before}` has {} tasks, whose rows have no order together", from.parallelism());
            let hint = match of(from, from_keeps) {
                Some(_) => {
                    "ordered stages in a row need the same `parallelism` and `ordered`, and no state and no new key \
                     for the later ones; else put a stage of one task between them"
                }
                None => "give it parallelism = 1, or put a stage of one task between the two",
            };
            wrong("input", message, hint);
        }
    }
}
