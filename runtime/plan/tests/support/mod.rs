//! Facts about made-up plugins and connectors.

use wasmill_model::{ChangeMode, Clock, ColumnSet, Descriptor, NodeName, SpaceDescriptor, Ttl, Visibility};
use wasmill_plan::{Facts, Recovery, SinkFacts, SourceFacts};
use wasmill_spec::{JobSpec, parse};

pub(crate) fn job(text: &str) -> JobSpec {
    parse("job.toml", text.as_bytes()).unwrap_or_else(|wrong| {
        let text: String = wrong.iter().map(|diagnostic| diagnostic.render(false)).collect();
        panic!("{text}")
    })
}

#[allow(dead_code, reason = "not every test names nodes")]
pub(crate) fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

pub(crate) fn facts(job: &JobSpec) -> Facts {
    let sources = job.sources.iter().map(|(name, source)| {
        let (bounded, replayable) = match source.connector.as_str() {
            "stdin" => (true, false),
            "generator" => (false, true),
            _ => (true, true),
        };
        (name.clone(), SourceFacts { bounded, replayable })
    });
    let sinks = job.sinks.iter().map(|(name, sink)| {
        let visibility = if sink.connector == "file" { Visibility::WithEpoch } else { Visibility::AtOnce };
        let (changes, more_changes) = match sink.connector.as_str() {
            "file" if sink.options.contains_key("envelope") => (ChangeMode::Retract, None),
            "file" => (ChangeMode::Append, Some("write envelope = true in this sink")),
            "table" => (ChangeMode::Upsert, None),
            _ => (ChangeMode::Append, None),
        };
        (name.clone(), SinkFacts { visibility, direct: sink.connector == "file", changes, more_changes })
    });
    Facts {
        sources: sources.collect(),
        stages: job.stages.iter().map(|(name, stage)| (name.clone(), plugin(&stage.plugin.to_string()))).collect(),
        sinks: sinks.collect(),
        recovery: Recovery::Nothing,
    }
}

fn plugin(reference: &str) -> Descriptor {
    let plugin = reference.rsplit(['/', ':']).next().unwrap_or(reference).trim_end_matches(".wasm");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut descriptor = Descriptor {
        name: plugin.to_owned(),
        version: "0.1.0".to_owned(),
        inputs: names(&["in"]),
        outputs: names(&["out"]),
        spaces: Vec::new(),
        columns: ColumnSet::ALL,
        watermarks: false,
        timed: false,
        aggregate: plugin == "aggregate",
        migrates: false,
    };
    let space = |name: &str, ttl| SpaceDescriptor { name: name.to_owned(), schema_version: 1, ttl };
    match plugin {
        "join" => {
            descriptor.inputs = names(&["left", "right"]);
            descriptor.outputs = names(&["matched", "unmatched"]);
            descriptor.spaces = vec![space("left", None), space("right", None)];
            descriptor.timed = true;
        }
        "dedup" => descriptor.spaces = vec![space("seen", Some(Ttl { clock: Clock::Event, micros: 600_000_000 }))],
        "route" => descriptor.outputs = names(&["even", "odd"]),
        _ => {}
    }
    descriptor
}
