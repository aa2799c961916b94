//! How the job is doing.

use serde_json::{Value, json};

use super::{Clock, Control, Current};
use crate::summary::{latency_json, node_json, roles, seconds};

pub(super) fn status(control: &Control, current: &Current) -> Value {
    let assembled = &*control.assembled();
    let metrics = current.remote.metrics();
    let nodes: Vec<Value> = (roles(assembled).into_iter().zip(metrics.nodes()))
        .map(|(role, node)| {
            let mut value = node_json(role, &node);
            if let Some(plugin) = control.factory(&node.name) {
                value["plugin"] = json!(plugin.digest().to_string());
            }
            if let Some(beside) = super::beside::summary(control, &node.name) {
                value["beside"] = beside;
            }
            value
        })
        .collect();
    let mut status = json!({
        "job": assembled.spec.name,
        "state": control.state(),
        "epoch": current.resumed_at.0 + metrics.epochs(),
        "uptime_seconds": seconds(control.clock.monotonic_nanos().saturating_sub(current.began)),
        "latency": latency_json(&metrics.latency()),
        "visible_latency": latency_json(&metrics.visible_latency()),
        "nodes": nodes,
    });
    let applied = &control.applied;
    if applied.revision > 0 {
        status["applied"] =
            json!({"revision": applied.revision, "refused": applied.refused, "resumed_at": current.resumed_at});
    }
    status
}
