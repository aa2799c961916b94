//! Why windows are open, partitions lag, rows were late.

use std::time::Duration;

use serde_json::json;
use wasmill_control::local::{Answer, Refusal};
use wasmill_control::why;
use wasmill_model::NodeName;

use super::{Clock, Control, Current};

/// Tasks that have not answered within this are named.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn why(control: &Control, current: &Current, node: Option<&NodeName>) -> Answer {
    let assembled = control.assembled();
    let plan = &assembled.planned.plan;
    if let Some(node) = node.filter(|node| plan.nodes.iter().all(|known| known.name != **node)) {
        let names: Vec<&str> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(Refusal::new(format!("the job has no node {node}")).hint(format!("it has: {}", names.join(", "))));
    }
    let facts = current.remote.facts(&*control.clock, PATIENCE).await;
    let facts = facts.ok_or_else(|| Refusal::new("the job ends, or has no time to say how far it is"))?;
    let why = why::explain(plan, &facts, node, control.clock.wall());
    Ok(json!({
        "job": assembled.spec.name,
        "state": control.state(),
        "nodes": why.nodes,
        "silent": why.silent,
    }))
}
