//! The keys of a job file, each table once: the reader refuses what is not here, the JSON Schema
//! is made from it.

use serde_json::{Value, json};

use crate::job::{Delivery, Policy, TimeUnit};
use crate::window::PANES;
use crate::{ByteSize, Period};

/// Most tasks of a node: one per key group.
pub(crate) const PARALLELISM_MAX: u16 = wasmill_model::KEY_GROUPS;

/// The keys of one kind of table.
pub(crate) struct Shape {
    /// What people call it.
    pub(crate) what: &'static str,
    /// What it may hold.
    pub(crate) keys: &'static [Key],
    /// Keys of later versions, with what they are for.
    pub(crate) planned: &'static [(&'static str, &'static str)],
    /// Whether other keys belong to a connector.
    pub(crate) open: bool,
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    doc: &'static str,
    schema: fn() -> Value,
}

const fn required(name: &'static str, doc: &'static str, schema: fn() -> Value) -> Key {
    Key { name, required: true, doc, schema }
}

const fn optional(name: &'static str, doc: &'static str, schema: fn() -> Value) -> Key {
    Key { name, required: false, doc, schema }
}

/// The keys of every source or sink, whatever its connector: of `section`, as the job file calls it.
pub fn connector_keys(section: &str) -> impl Iterator<Item = &'static str> {
    let shape = if section == "source" { &SOURCE } else { &SINK };
    shape.names()
}

pub(crate) const JOB: Shape = Shape {
    what: "a job",
    keys: &[
        required("name", "The name of the job: a-z, 0-9 and '-', at most 63.", name),
        optional("delivery", "What every path must give at least; else each gives what it can.", delivery),
        optional("epoch", "When an epoch commits.", || EPOCH.schema()),
        optional("state", "Where stages have their state.", || STATE.schema()),
        optional("latency_goal", "How long a row may wait for its batch to fill; default \"5ms\".", period),
        optional("accumulators_max", "Accumulators of open windows that a task may hold; default 10000000.", whole),
        optional("dead_letters", "A file for rejected rows, one JSON object a line.", text),
        required("source", "Where rows come from, by name.", || named(&SOURCE)),
        optional("stage", "What happens to them, by name.", || named(&STAGE)),
        required("sink", "Where rows go, by name.", || named(&SINK)),
    ],
    planned: &[("backpressure", "a policy for full queues")],
    open: false,
};

pub(crate) const EPOCH: Shape = Shape {
    what: "`epoch`",
    keys: &[
        optional("interval", "This long after the last one; default \"200ms\".", period),
        optional("bytes", "This many bytes after the last one; default \"64MiB\".", size),
    ],
    planned: &[],
    open: false,
};

pub(crate) const STATE: Shape = Shape {
    what: "`state`",
    keys: &[
        required("backend", "\"memory\", the default, or \"disk\".", backend),
        optional("cache", "Memory for state on disk; default \"256MiB\".", size),
    ],
    planned: &[],
    open: false,
};

/// The names of state backends.
pub(crate) const BACKENDS: [(&str, bool); 2] = [("memory", false), ("disk", true)];

pub(crate) const SOURCE: Shape = Shape {
    what: "a source",
    keys: &[
        required("connector", "What reads.", text),
        optional("key", "JSON pointer to the key of an event.", pointer),
        optional("time", "Where the event time is.", || TIME.schema()),
        optional("watermark", "How the watermark follows the events.", || WATERMARK.schema()),
        optional("parallelism", "How many tasks read; partitions are dealt over them.", parallelism),
        optional("backpressure", "What happens to rows that come faster than the job takes them.", backpressure),
        optional("sequence", "A sequence of the host that gives each row the next number.", sequence),
    ],
    planned: &[],
    open: true,
};

pub(crate) const SEQUENCE: Shape = Shape {
    what: "`sequence`",
    keys: &[
        required("name", "The name of the sequence.", name),
        optional("field", "The key of a row that its number becomes; default \"sequence\".", text),
    ],
    planned: &[],
    open: false,
};

pub(crate) const BACKPRESSURE: Shape = Shape {
    what: "`backpressure`",
    keys: &[
        required("policy", "What gives way when too much waits.", policy),
        optional("bytes", "How much may wait; default \"64MiB\".", size),
        optional("disk", "How much may wait on disk, with spill; default \"1GiB\".", size),
    ],
    planned: &[],
    open: false,
};

pub(crate) const TIME: Shape = Shape {
    what: "`time`",
    keys: &[
        required("field", "JSON pointer to the event time.", pointer),
        required("unit", "How the event time is written.", unit),
    ],
    planned: &[],
    open: false,
};

pub(crate) const WATERMARK: Shape = Shape {
    what: "`watermark`",
    keys: &[
        optional("bound", "How far behind the latest event another is still on time; default \"0s\".", period),
        optional("idle", "A partition silent for this long holds the watermark back no more.", period),
        optional("punctuated", "JSON pointer: rows with true there move the watermark, others do not.", pointer),
        optional("skew", "Times so far ahead of the clock do not move the watermark; default \"1d\", or false.", skew),
        optional("from", "Another source: its watermarks take the place of those of this one's events.", name),
        optional("align", "How far it may be ahead of other sources that say so before it waits for them.", align),
    ],
    planned: &[],
    open: false,
};

pub(crate) const ALIGN: Shape = Shape {
    what: "`align`",
    keys: &[
        required("within", "How far a task of the source may be ahead of the slowest one.", period),
        optional("group", "Sources with the same name wait for each other; default: all that name none.", text),
    ],
    planned: &[],
    open: false,
};

pub(crate) const STAGE: Shape = Shape {
    what: "a stage",
    keys: &[
        required("plugin", "A file, std:NAME or sha256:DIGEST.", text),
        required("input", "What comes in.", inputs),
        optional("parallelism", "How many tasks share the keys; default 1.", parallelism),
        optional("ordered", "Whether its tasks hand on their rows in the order in which these came in.", ordered),
        optional("window", "The windows of an aggregate.", || WINDOW.schema()),
        optional("config", "What the plugin gets to read.", || json!({"type": "object"})),
        optional("limits", "What an instance of the plugin may use.", || LIMITS.schema()),
        optional("faults", "How far failures of the plugin may go.", || FAULTS.schema()),
    ],
    planned: &[
        ("order", "an ordering buffer"),
        ("late", "a policy for late rows"),
        ("backpressure", "a policy for full queues"),
    ],
    open: false,
};

pub(crate) const ORDERED: Shape = Shape {
    what: "`ordered`",
    keys: &[required("split", "JSON pointers to what makes the class of a row: one class, one task.", pointers)],
    planned: &[],
    open: false,
};

pub(crate) const WINDOW: Shape = Shape {
    what: "`window`",
    keys: &[
        optional("tumbling", "Windows of this length, side by side.", period),
        optional("sliding", "Windows of this length that overlap; needs `every`.", period),
        optional("session", "By key: a silence of this length begins another window.", period),
        optional("count", "By key: windows of so many events.", rows),
        optional("global", "By key: one window for all events.", || json!({"const": true})),
        optional("every", "From the start of one sliding window to the next; of `count`: events.", period_or_rows),
        optional("early", "When a window fires before its end.", || TRIGGER.schema()),
        optional("lateness", "How long behind its end events still go into a window; default none.", period),
        optional("late", "When late events make a window fire again; by default each one does.", || TRIGGER.schema()),
        optional("panes", "What a window gives that fires more than once; default \"accumulate\".", panes),
    ],
    planned: &[],
    open: false,
};

pub(crate) const TRIGGER: Shape = Shape {
    what: "a trigger",
    keys: &[
        optional("rows", "So many events since the window last fired.", rows),
        optional("every", "The watermark passes a multiple of this.", period),
        optional("wall", "The wall clock passes a multiple of this.", period),
    ],
    planned: &[],
    open: false,
};

/// The `case.toml` of a plugin's test.
pub(crate) const CASE: Shape = Shape {
    what: "a case",
    keys: &[
        optional("config", "What the plugin gets to read.", || json!({"type": "object"})),
        optional("window", "The windows of an aggregate.", || WINDOW.schema()),
    ],
    planned: &[],
    open: false,
};

pub(crate) const LIMITS: Shape = Shape {
    what: "`limits`",
    keys: &[optional("memory", "Linear memory of an instance.", size), optional("call", "Time of one call.", period)],
    planned: &[],
    open: false,
};

pub(crate) const FAULTS: Shape = Shape {
    what: "`faults`",
    keys: &[
        optional("in_a_row", "So many rows may fail one after the other before the job does; default 100.", count),
        optional("retries", "How often a call that asks for it is made again; default 5.", count),
        optional("backoff", "The wait before the first retry, then twice as long; default \"100ms\".", period),
    ],
    planned: &[],
    open: false,
};

pub(crate) const SINK: Shape = Shape {
    what: "a sink",
    keys: &[
        required("connector", "What writes.", text),
        required("input", "What comes in.", || one_or_many(&input())),
        optional("parallelism", "How many tasks write; default 1.", parallelism),
    ],
    planned: &[("backpressure", "a policy for full queues")],
    open: true,
};

pub(crate) const INPUT: Shape = Shape {
    what: "an input",
    keys: &[
        required("from", "The node that rows come from, or NODE.PORT.", text),
        optional("port", "The output port of that node, by name or number.", port),
        optional("key", "JSON pointer to a new key, or false for no key: all rows together.", new_key),
        optional("order", "An ordering buffer, on an input of a stage.", || ORDER.schema()),
    ],
    planned: &[("late", "a policy for late rows")],
    open: false,
};

pub(crate) const ORDER: Shape = Shape {
    what: "`order`",
    keys: &[
        required("by", "\"time\" or \"sequence\".", order_by),
        optional("bound", "By time: how long rows wait; else until the watermark has passed them.", bound),
        optional("most", "By time: the bound never passes this.", period),
        optional("quality", "With aq-k-slack: the share of rows that are in time.", quality),
        optional("window", "With aq-k-slack: the length of the windows that rows go into.", period),
        optional("field", "By sequence: JSON pointer to the number.", pointer),
        optional("per", "By sequence: \"source\", the default, or \"key\".", scope),
        optional("first", "By sequence: the first number; default 0.", whole),
        optional("gap", "By sequence: how long a missing number is waited for; default for ever.", period),
        optional("keys_max", "By sequence: keys without rows that a task remembers; default 1000000.", whole),
        optional("placeholder", "By sequence: JSON pointer; a row with true there only fills its place.", pointer),
        optional("done", "By sequence: JSON pointer; with true there, all up to its number is done.", pointer),
        optional(
            "late",
            "What becomes of late rows: \"drop\", the default, \"forward\", \"side\" or \"correct\".",
            late,
        ),
        optional("rows_max", "Most rows that a task holds, in memory and on disk; default 1000000.", whole),
        optional("bytes_max", "Most bytes that a task holds in memory; default \"256MiB\".", size),
        optional("spill", "Most bytes that a task has wait on disk beyond that; takes a state directory.", size),
    ],
    planned: &[],
    open: false,
};

impl Shape {
    /// The names of all keys.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }

    /// The table in JSON Schema.
    pub(crate) fn schema(&self) -> Value {
        let properties: serde_json::Map<String, Value> = self
            .keys
            .iter()
            .map(|key| {
                let mut schema = (key.schema)();
                schema["description"] = key.doc.into();
                (key.name.to_owned(), schema)
            })
            .collect();
        let required: Vec<&str> = self.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        if !self.open {
            schema["additionalProperties"] = false.into();
        }
        schema
    }
}

fn named(shape: &Shape) -> Value {
    json!({
        "type": "object",
        "propertyNames": {"pattern": NAME_PATTERN},
        "minProperties": 1,
        "additionalProperties": shape.schema(),
    })
}

const NAME_PATTERN: &str = "^[a-z0-9-]{1,63}$";

fn text() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn name() -> Value {
    json!({"type": "string", "pattern": NAME_PATTERN})
}

fn order_by() -> Value {
    json!({"enum": crate::order::ORDERS.map(|(name, _)| name)})
}

fn scope() -> Value {
    json!({"enum": crate::order::SCOPES.map(|(name, _)| name)})
}

fn late() -> Value {
    json!({"enum": crate::LatePolicy::NAMES.map(|(name, _)| name)})
}

fn bound() -> Value {
    json!({"anyOf": [{"enum": ["k-slack", "aq-k-slack"]}, period()]})
}

fn quality() -> Value {
    json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})
}

fn whole() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn skew() -> Value {
    json!({"anyOf": [period(), {"const": false}]})
}

fn sequence() -> Value {
    json!({"anyOf": [name(), SEQUENCE.schema()]})
}

fn align() -> Value {
    json!({"anyOf": [period(), ALIGN.schema()]})
}

fn new_key() -> serde_json::Value {
    json!({"anyOf": [pointer(), {"const": false}]})
}

fn pointer() -> Value {
    json!({"type": "string", "format": "json-pointer", "pattern": "^(/|$)"})
}

fn pointers() -> Value {
    json!({"anyOf": [pointer(), {"type": "array", "items": pointer(), "minItems": 1}]})
}

fn ordered() -> Value {
    json!({"anyOf": [{"type": "boolean"}, ORDERED.schema()]})
}

fn period() -> Value {
    json!({"type": "string", "pattern": Period::PATTERN})
}

fn size() -> Value {
    json!({"type": "string", "pattern": ByteSize::PATTERN})
}

fn parallelism() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": PARALLELISM_MAX})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": u16::MAX})
}

fn rows() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": 100_000_000})
}

fn period_or_rows() -> Value {
    json!({"anyOf": [period(), rows()]})
}

fn panes() -> Value {
    json!({"enum": PANES.map(|(name, _)| name)})
}

fn policy() -> Value {
    json!({"enum": Policy::NAMES.map(|(name, _)| name)})
}

fn backpressure() -> Value {
    json!({"anyOf": [policy(), BACKPRESSURE.schema()]})
}

fn delivery() -> Value {
    json!({"enum": Delivery::NAMES.map(|(name, _)| name)})
}

fn backend() -> Value {
    json!({"enum": BACKENDS.map(|(name, _)| name)})
}

fn unit() -> Value {
    json!({"enum": TimeUnit::NAMES.map(|(name, _)| name)})
}

fn port() -> Value {
    json!({"anyOf": [text(), {"type": "integer", "minimum": 0, "maximum": u16::MAX}]})
}

fn input() -> Value {
    json!({"anyOf": [text(), INPUT.schema()]})
}

fn one_or_many(one: &Value) -> Value {
    json!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
}

fn inputs() -> Value {
    let one = one_or_many(&input());
    let by_port = json!({
        "type": "object",
        "minProperties": 1,
        "not": {"required": ["from"]},
        "additionalProperties": &one,
    });
    json!({"anyOf": [one, by_port]})
}
