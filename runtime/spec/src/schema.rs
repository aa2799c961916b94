use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::keys;

/// The options of each connector in JSON Schema, by the connector's name: objects with
/// `properties` and `required`.
#[derive(Debug, Clone, Default)]
pub struct ConnectorSchemas {
    /// Of sources.
    pub sources: BTreeMap<String, Value>,
    /// Of sinks.
    pub sinks: BTreeMap<String, Value>,
}

/// The job file in JSON Schema 2020-12, with the options of the given connectors.
#[must_use]
pub fn job_schema(connectors: &ConnectorSchemas) -> Value {
    let mut schema = keys::JOB.schema();
    let mut definitions = serde_json::Map::new();
    for (section, options) in [("source", &connectors.sources), ("sink", &connectors.sinks)] {
        let node = &mut schema["properties"][section]["additionalProperties"];
        if options.is_empty() {
            continue;
        }
        node["properties"]["connector"]["enum"] = options.keys().cloned().collect();
        node["unevaluatedProperties"] = false.into();
        node["allOf"] = options
            .iter()
            .map(|(connector, options)| {
                let (options, inner) = split_definitions(options);
                definitions.extend(inner);
                json!({
                    "if": {"properties": {"connector": {"const": connector}}},
                    "then": options,
                })
            })
            .collect();
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Wasmill job".into();
    if !definitions.is_empty() {
        schema["$defs"] = definitions.into();
    }
    schema
}

/// References inside a schema lead to its root, so its definitions move to the root of the whole.
/// What closes the object goes: the keys of every node belong to it too.
fn split_definitions(options: &Value) -> (Value, serde_json::Map<String, Value>) {
    let mut options = options.clone();
    let mut definitions = serde_json::Map::new();
    if let Value::Object(object) = &mut options {
        object.shift_remove("$schema");
        object.shift_remove("title");
        object.shift_remove("additionalProperties");
        if let Some(Value::Object(inner)) = object.shift_remove("$defs") {
            definitions = inner;
        }
    }
    (options, definitions)
}
