//! From the document to the job: one function a table.

use indexmap::IndexMap;
use wasmill_model::{JobName, NodeName};

use crate::document::{Item, Table, Value};
use crate::job::{
    AlignSpec, Backpressure, Delivery, EpochSpec, FaultPolicy, InputSpec, JobSpec, LimitsSpec, NewKey, Ordered,
    PluginRef, Policy, PortRef, SequenceSpec, SinkSpec, SourceSpec, StageSpec, StateSpec, TimeSpec, TimeUnit,
    WatermarkSpec,
};
use crate::keys::{self, PARALLELISM_MAX};
use crate::order;
use crate::read::{Problems, Reader};
use crate::window::window;
use crate::{ByteSize, Diagnostic, Document, Period, Severity, Span, check};

const ZERO: Period = Period::from_micros(0);
const MILLISECOND: Period = Period::from_millis(1);
const DAY: Period = Period::from_millis(86_400_000);
const HOUR: Period = Period::from_millis(3_600_000);
const CENTURY: Period = Period::from_micros(u64::MAX);

/// Most times that a call is made again.
const RETRIES_MAX: u16 = 100;

/// Reads a job file. `name` is the path of the file as the user gave it, for messages and for
/// [`JobSpec::resolve`].
///
/// # Errors
/// Everything that is wrong with the file, in its order, with the warnings among it.
pub fn parse(name: &str, bytes: &[u8]) -> Result<JobSpec, Vec<Diagnostic>> {
    let document = Document::parse(name, bytes)?;
    let mut p = Problems::new(document.source());
    let job = job(&mut p, &document);
    let diagnostics = p.into_sorted();
    match job {
        Some(mut job) if diagnostics.iter().all(|d| d.severity == Severity::Warning) => {
            job.warnings = diagnostics;
            Ok(job)
        }
        _ => Err(diagnostics),
    }
}

fn job(p: &mut Problems, document: &Document) -> Option<JobSpec> {
    let reader = Reader::new(p, document.root(), "the job".to_owned(), &keys::JOB)?;
    let name = reader
        .text(p, "name", "\"bridge-traffic\"")
        .and_then(|(text, item)| JobName::new(text).map_err(|error| bad_name(p, &item.span, text, &error)).ok());
    let epoch = reader.table(p, "epoch", &keys::EPOCH);
    let (mut interval, mut bytes) = (None, None);
    if let Some(epoch) = epoch {
        interval = epoch.period(p, "interval", MILLISECOND..=HOUR);
        bytes = epoch.size(p, "bytes", ByteSize::from_bytes(4 << 10)..=ByteSize::from_bytes(16 << 30));
    }
    let state = reader.table(p, "state", &keys::STATE).map_or(StateSpec::Memory, |table| state(p, &table));
    let job = JobSpec {
        // A name that could not be read is an error: the job is not used.
        name: name.or_else(|| JobName::new("unnamed").ok())?,
        delivery: reader.one_of(p, "delivery", &Delivery::NAMES),
        epoch: EpochSpec {
            interval: interval.unwrap_or(Period::from_millis(200)),
            bytes: bytes.unwrap_or(ByteSize::from_bytes(64 << 20)),
        },
        state,
        latency_goal: reader
            .period(p, "latency_goal", ZERO..=Period::from_millis(60_000))
            .unwrap_or(Period::from_millis(5)),
        accumulators_max: reader.whole(p, "accumulators_max", 1..=1_000_000_000),
        dead_letters: reader.text(p, "dead_letters", "\"rejected.jsonl\"").map(|(text, _)| text.to_owned()),
        sources: section(p, &reader, "source", source),
        stages: section(p, &reader, "stage", stage),
        sinks: section(p, &reader, "sink", sink),
        warnings: Vec::new(),
        document: document.clone(),
    };
    check::check(p, &job, document);
    Some(job)
}

fn state(p: &mut Problems, table: &Reader<'_>) -> StateSpec {
    let on_disk = table.one_of(p, "backend", &keys::BACKENDS) == Some(true);
    let cache = table.size(p, "cache", ByteSize::from_bytes(1 << 20)..=ByteSize::from_bytes(1 << 40));
    if on_disk {
        return StateSpec::Disk { cache: cache.unwrap_or(ByteSize::from_bytes(256 << 20)) };
    }
    if let Some(item) = table.get("cache") {
        let message = "`cache` is for state on disk, and this job has its state in memory";
        p.error(&item.key, message.to_owned(), "write backend = \"disk\", or delete `cache`");
    }
    StateSpec::Memory
}

fn bad_name(p: &mut Problems, span: &Span, text: &str, error: &wasmill_model::NameError) {
    let fixed: String = text
        .to_lowercase()
        .chars()
        .map(|c| if matches!(c, 'a'..='z' | '0'..='9') { c } else { '-' })
        .take(63)
        .collect();
    let fixed = fixed.trim_matches('-');
    let hint = if fixed.is_empty() { "write it like \"per-minute\"".to_owned() } else { format!("write \"{fixed}\"") };
    p.error(span, error.to_string(), hint);
}

fn section<T>(
    p: &mut Problems,
    job: &Reader<'_>,
    key: &str,
    read: fn(&mut Problems, &str, &Item) -> Option<T>,
) -> IndexMap<NodeName, T> {
    let mut nodes = IndexMap::new();
    let empty = Table::new();
    for (name, item) in job.section(p, key).unwrap_or(&empty) {
        if !matches!(item.value, Value::Table(_)) {
            let message = format!("`{key}.{name}` is a table, not {}", item.value.kind());
            p.error(&item.key, message, format!("give the {key} a name: [{key}.NAME]"));
            continue;
        }
        let valid = NodeName::new(name).map_err(|error| bad_name(p, &item.key, name, &error)).ok();
        let node = read(p, name, item);
        if let (Some(name), Some(node)) = (valid, node) {
            nodes.insert(name, node);
        }
    }
    nodes
}

fn source(p: &mut Problems, name: &str, item: &Item) -> Option<SourceSpec> {
    let reader = Reader::new(p, item, format!("source `{name}`"), &keys::SOURCE)?;
    let time = reader.table(p, "time", &keys::TIME).and_then(|time| {
        let (field, unit) = (time.pointer(p, "field"), time.one_of(p, "unit", &TimeUnit::NAMES));
        Some(TimeSpec { field: field?, unit: unit? })
    });
    let mut watermark = WatermarkSpec { skew: Some(DAY), ..WatermarkSpec::default() };
    if let Some(table) = reader.table(p, "watermark", &keys::WATERMARK) {
        watermark.bound = table.period(p, "bound", ZERO..=CENTURY).unwrap_or_default();
        watermark.idle = table.period(p, "idle", MILLISECOND..=CENTURY);
        watermark.punctuated = table.pointer(p, "punctuated");
        if let (Some(_), Some(bound)) = (&watermark.punctuated, table.get("bound")) {
            let message = "a punctuated watermark has no `bound`: a marked row says how far it is";
            p.error(&bound.key, message, "delete one of the two");
        }
        watermark.align = align(p, &table);
        watermark.from = marks_from(p, &table);
        if !matches!(table.get("skew").map(|item| &item.value), Some(Value::Boolean(false))) {
            watermark.skew = table.period(p, "skew", ZERO..=CENTURY).or(watermark.skew);
        } else {
            watermark.skew = None;
        }
    }
    Some(SourceSpec {
        connector: reader.text(p, "connector", "\"file\"").map(|(text, _)| text.to_owned()).unwrap_or_default(),
        key: reader.pointer(p, "key"),
        time,
        watermark,
        parallelism: reader.integer(p, "parallelism", 1..=PARALLELISM_MAX).unwrap_or(1),
        backpressure: backpressure(p, &reader),
        sequence: sequence(p, &reader),
        options: reader.options(),
    })
}

fn sequence(p: &mut Problems, source: &Reader<'_>) -> Option<SequenceSpec> {
    const FIELD: &str = "sequence";
    let named = |p: &mut Problems, (text, item): (&str, &Item)| {
        NodeName::new(text).map_err(|error| bad_name(p, &item.span, text, &error)).ok()
    };
    if !matches!(source.get("sequence")?.value, Value::Table(_)) {
        let text = source.text(p, "sequence", "\"orders\"")?;
        return Some(SequenceSpec { name: named(p, text)?, field: FIELD.to_owned() });
    }
    let table = source.table(p, "sequence", &keys::SEQUENCE)?;
    let field = table.text(p, "field", "\"number\"").map_or(FIELD, |(text, _)| text).to_owned();
    let text = table.text(p, "name", "\"orders\"")?;
    Some(SequenceSpec { name: named(p, text)?, field })
}

/// Keys of `watermark` that a source without watermarks of its own has no use for.
const OF_OWN_WATERMARKS: [&str; 5] = ["bound", "idle", "punctuated", "skew", "align"];

fn marks_from(p: &mut Problems, watermark: &Reader<'_>) -> Option<NodeName> {
    let (text, item) = watermark.text(p, "from", "\"SOURCE\"")?;
    for item in OF_OWN_WATERMARKS.iter().filter_map(|key| Some((key, watermark.get(key)?))) {
        let message = format!("`{}` does not go with `from`: the watermarks are those of `{text}`", item.0);
        p.error(&item.1.key, message, format!("write it at source `{text}`, or delete one of the two"));
    }
    NodeName::new(text).map_err(|error| bad_name(p, &item.span, text, &error)).ok()
}

fn align(p: &mut Problems, watermark: &Reader<'_>) -> Option<AlignSpec> {
    if !matches!(watermark.get("align")?.value, Value::Table(_)) {
        return Some(AlignSpec { within: watermark.period(p, "align", ZERO..=CENTURY)?, group: None });
    }
    let table = watermark.table(p, "align", &keys::ALIGN)?;
    let group = table.text(p, "group", "\"orders\"").map(|(text, _)| text.to_owned());
    Some(AlignSpec { within: table.period(p, "within", ZERO..=CENTURY)?, group })
}

fn backpressure(p: &mut Problems, source: &Reader<'_>) -> Backpressure {
    let mut found = Backpressure::default();
    match source.get("backpressure").map(|item| &item.value) {
        None => {}
        Some(Value::Table(_)) => {
            if let Some(table) = source.table(p, "backpressure", &keys::BACKPRESSURE) {
                let sizes = ByteSize::from_bytes(64 << 10)..=ByteSize::from_bytes(1 << 40);
                found.policy = table.one_of(p, "policy", &Policy::NAMES).unwrap_or(found.policy);
                found.bytes = table.size(p, "bytes", sizes.clone()).unwrap_or(found.bytes);
                found.disk = table.size(p, "disk", sizes).unwrap_or(found.disk);
                if let Some(disk) = table.get("disk").filter(|_| found.policy != Policy::Spill) {
                    p.error(&disk.key, "`disk` goes with policy \"spill\" only", "delete it, or write \"spill\"");
                }
            }
        }
        Some(_) => found.policy = source.one_of(p, "backpressure", &Policy::NAMES).unwrap_or(found.policy),
    }
    found
}

fn stage(p: &mut Problems, name: &str, item: &Item) -> Option<StageSpec> {
    let reader = Reader::new(p, item, format!("stage `{name}`"), &keys::STAGE)?;
    let mut limits = LimitsSpec::default();
    if let Some(table) = reader.table(p, "limits", &keys::LIMITS) {
        limits.memory = table.size(p, "memory", ByteSize::from_bytes(64 << 10)..=ByteSize::from_bytes(4 << 30));
        limits.call = table.period(p, "call", MILLISECOND..=HOUR);
    }
    let mut faults = FaultPolicy::default();
    if let Some(table) = reader.table(p, "faults", &keys::FAULTS) {
        faults.in_a_row_max = table.integer(p, "in_a_row", 0..=u16::MAX).map_or(faults.in_a_row_max, Into::into);
        faults.retries_max = table.integer(p, "retries", 0..=RETRIES_MAX).map_or(faults.retries_max, Into::into);
        let backoff = table.period(p, "backoff", MILLISECOND..=Period::from_millis(30_000));
        faults.backoff = backoff.map_or(faults.backoff, Period::as_duration);
    }
    Some(StageSpec {
        // Without a plugin there is an error already.
        plugin: plugin(p, &reader).unwrap_or(PluginRef::Path(String::new())),
        inputs: inputs(p, &reader, true),
        parallelism: reader.integer(p, "parallelism", 1..=PARALLELISM_MAX).unwrap_or(1),
        ordered: ordered(p, &reader),
        window: window(p, &reader),
        config: config(p, &reader),
        limits,
        faults,
    })
}

fn ordered(p: &mut Problems, stage: &Reader<'_>) -> Option<Ordered> {
    match &stage.get("ordered")?.value {
        Value::Boolean(true) => Some(Ordered::default()),
        Value::Boolean(false) => None,
        Value::Table(_) => {
            let split = stage.table(p, "ordered", &keys::ORDERED)?.pointers(p, "split");
            Some(Ordered { split })
        }
        other => {
            let message = format!("`ordered` is true, false or a table, not {}", other.kind());
            p.error(&stage.get("ordered")?.span, message, "write true, or { split = [\"/region\", \"/kind\"] }");
            None
        }
    }
}

fn sink(p: &mut Problems, name: &str, item: &Item) -> Option<SinkSpec> {
    let reader = Reader::new(p, item, format!("sink `{name}`"), &keys::SINK)?;
    Some(SinkSpec {
        connector: reader.text(p, "connector", "\"file\"").map(|(text, _)| text.to_owned()).unwrap_or_default(),
        inputs: inputs(p, &reader, false),
        parallelism: reader.integer(p, "parallelism", 1..=PARALLELISM_MAX).unwrap_or(1),
        options: reader.options(),
    })
}

fn plugin(p: &mut Problems, stage: &Reader<'_>) -> Option<PluginRef> {
    let (text, item) = stage.text(p, "plugin", "\"./classify.wasm\", \"std:filter\" or \"sha256:...\"")?;
    if let Some(name) = text.strip_prefix("std:") {
        if name.is_empty() {
            p.error(&item.span, "`plugin` names no plugin behind \"std:\"", "write it like \"std:filter\"");
            return None;
        }
        return Some(PluginRef::Standard(name.to_owned()));
    }
    if text.starts_with("sha256:") {
        let digest = text.parse().ok();
        if digest.is_none() {
            let message = "`plugin` is a digest that is not 64 hexadecimal digits long";
            p.error(&item.span, message, "`wasmill inspect PLUGIN` prints the digest of a plugin");
        }
        return digest.map(PluginRef::Digest);
    }
    if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| *scheme != "oci") {
        let message = format!("plugins from \"{scheme}://\" are not supported yet");
        p.error(&item.span, message, "fetch the file and write its path");
        return None;
    }
    Some(PluginRef::Path(text.to_owned()))
}

fn config(p: &mut Problems, stage: &Reader<'_>) -> serde_json::Value {
    let Some(item) = stage.get("config") else { return serde_json::Value::Null };
    if !matches!(item.value, Value::Table(_)) {
        let message = format!("`config` is a table, not {}", item.value.kind());
        p.error(&item.span, message, "write it like { fields = [\"/price\"] }");
        return serde_json::Value::Null;
    }
    item.value.to_json().unwrap_or_else(|| {
        p.error(&item.key, "`config` holds a number that JSON does not have", "leave out `nan` and `inf`");
        serde_json::Value::Null
    })
}

fn inputs(p: &mut Problems, node: &Reader<'_>, by_port: bool) -> Vec<InputSpec> {
    let mut inputs = Vec::new();
    let Some(item) = node.get("input") else { return inputs };
    match &item.value {
        Value::Table(table) if by_port && !table.contains_key("from") => {
            if table.is_empty() {
                p.error(&item.span, "`input` is empty", "write it like { orders = \"NODE\", bids = \"NODE\" }");
            }
            for (port, item) in table {
                // `{ form = "x" }` is a typo far more often than a port of that name.
                let typo = table.len() <= keys::INPUT.keys.len()
                    && table.keys().any(|key| matches!(key.as_str(), "key" | "port"));
                if typo && !matches!(port.as_str(), "key" | "port") {
                    p.error(&item.key, format!("unknown key `{port}` in `input`"), "did you mean `from`?");
                    continue;
                }
                if !typo {
                    one_or_many(p, item, &port_ref(port), &mut inputs);
                }
            }
        }
        _ => one_or_many(p, item, &PortRef::DEFAULT, &mut inputs),
    }
    inputs
}

fn one_or_many(p: &mut Problems, item: &Item, port: &PortRef, inputs: &mut Vec<InputSpec>) {
    match &item.value {
        Value::Array(items) if items.is_empty() => {
            p.error(&item.span, "`input` is empty", "write it like [\"NODE\", \"NODE\"]");
        }
        Value::Array(items) => items.iter().for_each(|item| inputs.extend(input(p, item, port))),
        _ => inputs.extend(input(p, item, port)),
    }
}

fn input(p: &mut Problems, item: &Item, port: &PortRef) -> Option<InputSpec> {
    match &item.value {
        Value::String(text) => {
            let (from, output) = node_and_port(p, text, &item.span)?;
            let output = output.unwrap_or(PortRef::DEFAULT);
            Some(InputSpec { from, output, port: port.clone(), key: None, order: None, span: item.span.clone() })
        }
        Value::Table(_) => {
            let reader = Reader::new(p, item, "`input`".to_owned(), &keys::INPUT)?;
            let key = new_key(p, &reader);
            let port_key = output_port(p, &reader);
            let order = order::order(p, &reader);
            let (text, at) = reader.text(p, "from", "\"NODE\"")?;
            let (from, output) = node_and_port(p, text, &at.span)?;
            if output.is_some() && port_key.is_some() {
                p.error(&at.span, "the output port is named twice", "delete `port`, or write only the node in `from`");
            }
            let output = output.or(port_key).unwrap_or(PortRef::DEFAULT);
            Some(InputSpec { from, output, port: port.clone(), key, order, span: at.span.clone() })
        }
        other => {
            let message = format!("an input is the name of a node, not {}", other.kind());
            p.error(&item.span, message, "write it like \"NODE\", \"NODE.PORT\" or { from = \"NODE\", key = \"/id\" }");
            None
        }
    }
}

fn new_key(p: &mut Problems, input: &Reader<'_>) -> Option<NewKey> {
    match &input.get("key")?.value {
        Value::Boolean(false) => Some(NewKey::Empty),
        Value::Boolean(true) => {
            let at = &input.get("key")?.span;
            p.error(at, "`key` is a JSON pointer or false", "rows keep their key where `key` is left out");
            None
        }
        _ => input.pointer(p, "key").map(NewKey::At),
    }
}

fn output_port(p: &mut Problems, input: &Reader<'_>) -> Option<PortRef> {
    match &input.get("port")?.value {
        Value::Integer(_) => input.integer(p, "port", 0..=u16::MAX).map(PortRef::Number),
        _ => input.text(p, "port", "\"late\" or 1").map(|(text, _)| port_ref(text)),
    }
}

fn node_and_port(p: &mut Problems, text: &str, span: &Span) -> Option<(NodeName, Option<PortRef>)> {
    let (node, port) = match text.split_once('.') {
        Some((node, port)) => (node, Some(port)),
        None => (text, None),
    };
    if port == Some("") {
        p.error(span, format!("{text:?} names no port behind the dot"), "write NODE or NODE.PORT");
        return None;
    }
    let node = NodeName::new(node).map_err(|error| bad_name(p, span, node, &error)).ok()?;
    Some((node, port.map(port_ref)))
}

fn port_ref(text: &str) -> PortRef {
    text.parse().map_or_else(|_| PortRef::Name(text.to_owned()), PortRef::Number)
}
