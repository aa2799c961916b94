//! Valid job files read as they are meant.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use wasmill_model::{NodeName, WindowShape};
use wasmill_spec::{
    ByteSize, Delivery, JobSpec, LatePolicy, OrderBy, Period, PluginRef, PortRef, TimeBound, TimeUnit, parse,
};

const BRIDGE: &str = include_str!("valid/bridge-traffic.toml");
const EVERYTHING: &str = include_str!("valid/everything.toml");

fn valid(name: &str, text: &str) -> JobSpec {
    parse(name, text.as_bytes()).unwrap_or_else(|wrong| {
        let text: String = wrong.iter().map(|diagnostic| diagnostic.render(false)).collect();
        panic!("{text}")
    })
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

#[test]
fn the_job_of_the_design_is_valid() {
    let job = valid("examples/bridge/job.toml", BRIDGE);
    assert!(job.warnings.is_empty());
    assert_eq!(job.delivery, Some(Delivery::ExactlyOnce));
    assert_eq!((job.epoch.interval, job.epoch.bytes), (Period::from_millis(200), ByteSize::from_bytes(64 << 20)));
    assert_eq!(job.latency_goal, Period::from_millis(5));
    let sensors = &job.sources[&name("sensors")];
    assert_eq!(sensors.options, toml::toml! { path = "sensors.jsonl" });
    assert_eq!(sensors.time.as_ref().map(|time| (time.field.as_str(), time.unit)), Some(("/at", TimeUnit::Millis)));
    assert_eq!(sensors.watermark.bound, Period::from_millis(2_000));
    assert_eq!(sensors.watermark.idle, Some(Period::from_millis(10_000)));
    let stage = &job.stages[&name("per-minute")];
    assert_eq!(stage.window, Some(WindowShape::Tumbling { size_micros: 60_000_000 }.into()));
    assert_eq!(stage.inputs[0].key.as_ref().map(ToString::to_string).as_deref(), Some("/vehicle"));
    assert_eq!(stage.config, serde_json::json!({"count": true}));
    assert_eq!(job.stages[&name("classify")].plugin, PluginRef::Path("./classify.wasm".into()));
    assert_eq!(job.resolve("sensors.jsonl"), std::path::Path::new("examples/bridge/sensors.jsonl"));
}

#[test]
fn every_form_of_input_reads() {
    let job = valid("job.toml", EVERYTHING);
    let inputs = |node: &str| -> Vec<String> {
        let (_, node) = job.nodes().find(|(n, _)| n.as_str() == node).unwrap();
        node.inputs().iter().map(|i| format!("{}.{} > {}", i.from, i.output, i.port)).collect()
    };
    assert_eq!(
        inputs("join"),
        ["orders.0 > left", "lines.0 > right", "split.other > right", "marked.0 > right", "split.1 > 2"]
    );
    assert_eq!(inputs("hot"), ["join.matched > 0"]);
    assert_eq!(inputs("all"), ["join.unmatched > 0", "hot.0 > 0"]);
    assert_eq!(job.sinks[&name("rest")].parallelism, 2);
    assert_eq!(job.stages[&name("join")].inputs[4].port, PortRef::Number(2));
    assert_eq!(job.stages[&name("join")].config["since"], "2026-01-01");
}

#[test]
fn errors_of_others_find_their_line() {
    let job = valid("job.toml", EVERYTHING);
    let shown = |path: &[&str]| &EVERYTHING[job.locate(path)];
    assert_eq!(shown(&["source", "orders", "path"]), "[\"a.jsonl\", \"b.jsonl\"]");
    assert_eq!(shown(&["source", "orders", "path", "1"]), "\"b.jsonl\"");
    assert_eq!(shown(&["source", "orders", "format", "header"]), "true");
    assert_eq!(shown(&["source", "orders", "missing"]), "orders");
    let error = job.config_error(&name("split"), "/deep/list/2/x", "x must be a number");
    assert_eq!(&EVERYTHING[error.span.unwrap()], "true");
}

#[test]
fn a_loose_end_is_a_warning() {
    let spare = "[source.spare]\nconnector = \"stdin\"\n[stage.last]\nplugin = \"std:map\"\ninput = \"sensors\"\n";
    let job = valid("job.toml", &format!("{BRIDGE}\n{spare}"));
    let messages: Vec<&str> = job.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(messages, ["nobody reads source `spare`", "nobody reads stage `last`"]);
}

#[test]
fn orders_of_inputs_read_with_their_defaults() {
    let job = valid("job.toml", EVERYTHING);
    let order = |stage: &str, input: usize| job.stages[&name(stage)].inputs[input].order.clone().expect("an order");
    let by_time = order("hot", 0);
    let OrderBy::Time(time) = by_time.by else { panic!("by time") };
    let window = Period::from_millis(60_000);
    assert_eq!(time.bound, TimeBound::AqKSlack { quality_ppm: 950_000, window });
    assert_eq!(
        (time.most, by_time.late, by_time.rows_max),
        (Period::from_millis(3_600_000), LatePolicy::Drop, 1_000_000)
    );
    let in_turn = order("in-turn", 0);
    let OrderBy::Sequence(sequence) = in_turn.by else { panic!("by sequence") };
    assert_eq!((sequence.field.as_str(), sequence.per_key, sequence.first), ("/n", true, 1));
    assert_eq!(sequence.gap, Some(Period::from_millis(5_000)));
    assert_eq!((in_turn.late, in_turn.rows_max), (LatePolicy::Side, 1_000));
    assert_eq!(job.sources[&name("orders")].watermark.skew, None);
    assert_eq!(job.sources[&name("lines")].watermark.skew, Some(Period::from_millis(86_400_000)));
}
