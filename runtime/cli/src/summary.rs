//! What a run counts, as people and programs read it.

use std::collections::HashMap;

use serde_json::{Value, json};
use wasmill_contract::SourceCounts;
use wasmill_engine::{LatencySnapshot, NodeSnapshot, OrderingSnapshot};
use wasmill_model::{Epoch, NodeName};
use wasmill_plan::NodeKind;

use crate::assemble::Assembled;
use crate::progress::{Moment, Role, Unit, node_table, per_second};
use crate::terminal::{Style, count, duration, grouped};

/// What each node of the plan is.
pub(crate) fn roles(assembled: &Assembled) -> Vec<Role> {
    let role = |node: &wasmill_plan::Node| match node.kind {
        NodeKind::Source { .. } => {
            // Only connectors of text count in bytes.
            let unit = match assembled.spec.sources.get(&node.name).map(|source| source.connector.as_str()) {
                Some("file" | "stdin") => Unit::Bytes,
                _ => Unit::Events,
            };
            Role::Source { bounded: assembled.is_bounded(&node.name), unit }
        }
        NodeKind::Stage { .. } => Role::Stage,
        NodeKind::Sink => Role::Sink,
    };
    assembled.planned.plan.nodes.iter().map(role).collect()
}

/// What came of a run.
pub(crate) struct Summary {
    pub(crate) resumed_at: Option<Epoch>,
    pub(crate) stopped: bool,
    pub(crate) nanos: u64,
    pub(crate) cpu_nanos: u64,
    /// Since the start of the process.
    pub(crate) first_output_nanos: Option<u64>,
    pub(crate) nodes: Vec<NodeSnapshot>,
    pub(crate) roles: Vec<Role>,
    pub(crate) epochs: u64,
    pub(crate) latency: LatencySnapshot,
    pub(crate) visible: LatencySnapshot,
    pub(crate) locations: HashMap<NodeName, String>,
    pub(crate) dead_letters: Option<String>,
}

impl Summary {
    fn with_role(&self, which: impl Fn(Role) -> bool) -> impl Iterator<Item = &NodeSnapshot> {
        self.roles.iter().zip(&self.nodes).filter(move |(role, _)| which(**role)).map(|(_, node)| node)
    }

    fn sources(&self) -> impl Iterator<Item = &NodeSnapshot> {
        self.with_role(|role| matches!(role, Role::Source { .. }))
    }

    fn sinks(&self) -> impl Iterator<Item = &NodeSnapshot> {
        self.with_role(|role| role == Role::Sink)
    }

    fn rows_in(&self) -> u64 {
        self.sources().map(|node| node.rows_in).sum()
    }

    fn rejected(&self) -> u64 {
        self.nodes.iter().map(|node| node.rejected).sum()
    }

    fn late(&self) -> u64 {
        self.nodes.iter().map(|node| node.late).sum()
    }

    fn count(&self, of: impl Fn(&SourceCounts) -> u64) -> u64 {
        self.nodes.iter().map(|node| of(&node.counts)).sum()
    }

    /// Keys that scripts may rely on.
    pub(crate) fn to_json(&self, job: &str) -> Value {
        let rows_in = self.rows_in();
        let sinks: Vec<Value> = (self.sinks())
            .map(|sink| json!({"name": sink.name, "rows": sink.rows_in, "location": self.locations.get(&sink.name)}))
            .collect();
        let nodes: Vec<Value> = self.roles.iter().zip(&self.nodes).map(|(role, node)| node_json(*role, node)).collect();
        json!({
            "job": job,
            "outcome": if self.stopped { "stopped" } else { "finished" },
            "resumed_at": self.resumed_at,
            "duration_seconds": seconds(self.nanos),
            "cpu_seconds": seconds(self.cpu_nanos),
            "rows_in": rows_in,
            "rows_out": self.sinks().map(|node| node.rows_in).sum::<u64>(),
            "events_per_second": per_second(rows_in, self.nanos),
            "events_per_cpu_second": per_second(rows_in, self.cpu_nanos),
            "rejected": self.rejected(),
            "late": self.late(),
            "dropped": self.count(|counts| counts.dropped),
            "spilled": self.count(|counts| counts.spilled),
            "held": self.count(|counts| counts.held),
            "duplicates": self.count(|counts| counts.duplicates),
            "epochs": self.epochs,
            "first_output_ms": self.first_output_nanos.map(|nanos| nanos as f64 / 1e6),
            "latency": latency_json(&self.latency),
            "visible_latency": latency_json(&self.visible),
            "dead_letters": self.dead_letters,
            "sinks": sinks,
            "nodes": nodes,
        })
    }

    pub(crate) fn to_text(&self, job: &str, verbose: bool, style: Style) -> String {
        let rows_in = self.rows_in();
        let verb = if self.stopped { "stopped" } else { "done" };
        let mut text = format!("{}: {} in {}\n", style.good(verb), style.bold(job), duration(self.nanos));
        let mut line = |what: &str, value: String| text.push_str(&format!("  {what:<9} {value}\n"));
        line(
            "rows in",
            format!(
                "{} ({} a second, {} a CPU-second)",
                grouped(rows_in),
                grouped(per_second(rows_in, self.nanos)),
                grouped(per_second(rows_in, self.cpu_nanos)),
            ),
        );
        for sink in self.sinks() {
            let place = self.locations.get(&sink.name).map_or(String::new(), |place| format!(" -> {place}"));
            line("rows out", format!("{} to {}{place}", grouped(sink.rows_in), sink.name));
        }
        if let Some(path) = &self.dead_letters {
            line("rejected", style.warning(&format!("{}, see {path}", count(self.rejected(), "row"))));
        }
        if self.late() > 0 {
            line("late", style.warning(&format!("{}, their windows had closed", count(self.late(), "row"))));
        }
        for (node, ordering) in self.nodes.iter().filter_map(|node| Some((node, node.ordering?))) {
            if let Some(text) = ordering_text(&ordering) {
                line("order", style.warning(&format!("{}: {text}", node.name)));
            }
        }
        for source in self.nodes.iter().filter(|node| node.skewed > 0) {
            let far = format!(
                "{}: {} too far ahead of the clock to move the watermark, see watermark.skew",
                source.name,
                count(source.skewed, "row"),
            );
            line("skewed", style.warning(&far));
        }
        let (dropped, spilled) = (self.count(|counts| counts.dropped), self.count(|counts| counts.spilled));
        if dropped > 0 {
            line("dropped", style.warning(&format!("{}, the job was too slow for them", count(dropped, "row"))));
        }
        if spilled > 0 {
            line("spilled", format!("{} waited on disk", count(spilled, "row")));
        }
        let (held, duplicates) = (self.count(|counts| counts.held), self.count(|counts| counts.duplicates));
        if held > 0 {
            line("held", format!("senders waited or were told to come again {}", count(held, "time")));
        }
        if duplicates > 0 {
            line(
                "known",
                format!(
                    "{} came again and {} left out",
                    count(duplicates, "row"),
                    if duplicates == 1 { "was" } else { "were" }
                ),
            );
        }
        if self.latency.rows > 0 {
            let Self { latency, .. } = self;
            line("latency", format!("p50 {}, p99 {}", duration(latency.p50_nanos), duration(latency.p99_nanos)));
        }
        if verbose && self.visible.rows > 0 {
            let Self { visible, .. } = self;
            line("visible", format!("p50 {}, p99 {}", duration(visible.p50_nanos), duration(visible.p99_nanos)));
        }
        line("CPU time", duration(self.cpu_nanos));
        if verbose {
            let moment =
                Moment { nanos: self.nanos, wall: wasmill_model::Timestamp(0), nodes: &self.nodes, stopping: false };
            text.push_str(&node_table(&self.roles, &moment).render("  ", style));
        }
        text
    }
}

/// A distribution of latencies.
pub(crate) fn latency_json(latency: &LatencySnapshot) -> serde_json::Value {
    json!({
        "rows": latency.rows,
        "p50_nanos": latency.p50_nanos,
        "p99_nanos": latency.p99_nanos,
        "p999_nanos": latency.p999_nanos,
        "max_nanos": latency.max_nanos,
    })
}

pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// What ordering buffers did that their author should know.
fn ordering_text(ordering: &OrderingSnapshot) -> Option<String> {
    let OrderingSnapshot { held, spilled, late, dropped, missing, forgotten, forced, .. } = *ordering;
    let said: Vec<String> = [
        (held, "held"),
        (spilled, "waited on disk"),
        (late, "too late"),
        (dropped, "of them dropped"),
        (missing, "missing"),
        (forgotten, "keys forgotten"),
        (forced, "let go early for want of room"),
    ]
    .iter()
    .filter(|(rows, _)| *rows > 0)
    .map(|(rows, what)| format!("{} {what}", grouped(*rows)))
    .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

pub(crate) fn ordering_json(ordering: &OrderingSnapshot) -> Value {
    json!({
        "held": ordering.held,
        "on_disk": ordering.on_disk,
        "spilled": ordering.spilled,
        "bytes": ordering.bytes,
        "late": ordering.late,
        "dropped": ordering.dropped,
        "missing": ordering.missing,
        "forgotten": ordering.forgotten,
        "marks": ordering.marks,
        "forced": ordering.forced,
        "slack_micros": ordering.slack_micros,
    })
}

/// What a node counts. Keys that scripts may rely on.
pub(crate) fn node_json(role: Role, node: &NodeSnapshot) -> Value {
    let time = |time: wasmill_model::Timestamp| match time {
        wasmill_model::Timestamp::MIN | wasmill_model::Timestamp::MAX => Value::Null,
        time => time.0.into(),
    };
    json!({
        "name": node.name,
        "kind": role.name(),
        "rows_in": node.rows_in,
        "rows_out": if role == Role::Sink { Value::Null } else { node.rows_out.into() },
        "bytes_in": node.bytes_in,
        "batches": node.batches,
        "rejected": node.rejected,
        "late": node.late,
        "splits": node.splits,
        "dropped": node.counts.dropped,
        "spilled": node.counts.spilled,
        "held": node.counts.held,
        "duplicates": node.counts.duplicates,
        "busy_nanos": node.busy_nanos,
        "guest_cpu_nanos": node.guest_cpu_nanos,
        "watermark_micros": time(node.watermark),
        "skewed": node.skewed,
        "calls": {
            "p50_nanos": node.calls.quantile(0.5),
            "p99_nanos": node.calls.quantile(0.99),
        },
        "batch_rows": {
            "p50": node.batch_rows.quantile(0.5),
            "p99": node.batch_rows.quantile(0.99),
        },
        "blocked_nanos": node.blocked_nanos,
        "memory_bytes": node.memory_bytes,
        "traps": node.traps,
        "timeouts": node.timeouts,
        "faults": node.faults,
        "swaps": node.swaps,
        "opened": node.opened,
        "ordering": node.ordering.as_ref().map(ordering_json),
        "metrics": node.guest,
    })
}
