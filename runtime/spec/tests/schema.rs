//! The JSON Schema and the reader agree.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};

use boon::{Compiler, Schemas};
use serde_json::{Value, json};
use wasmill_spec::{ConnectorSchemas, job_schema, parse};

fn connectors() -> ConnectorSchemas {
    let file: Value = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "FileConfig",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "path": {"anyOf": [{"$ref": "#/$defs/Path"}, {"type": "array", "items": {"$ref": "#/$defs/Path"}}]},
            "format": {"type": "object"},
        },
        "required": ["path"],
        "$defs": {"Path": {"type": "string"}},
    });
    let plain = || json!({"type": "object", "properties": {}});
    ConnectorSchemas {
        sources: [("file".to_owned(), file.clone()), ("stdin".to_owned(), plain())].into(),
        sinks: [("file".to_owned(), file), ("stdout".to_owned(), plain()), ("blackhole".to_owned(), plain())].into(),
    }
}

fn accepts(schema: Value, text: &str) -> Result<(), String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    let mut job = serde_json::to_value(table).unwrap();
    dates_as_strings(&mut job);
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource("job.json", schema).unwrap();
    let place = compiler.compile("job.json", &mut schemas).unwrap();
    schemas.validate(&job, place).map_err(|error| error.to_string())
}

/// TOML dates go through serde as a table with one magic key.
fn dates_as_strings(value: &mut Value) {
    match value {
        Value::Object(object) => {
            if let Some(date) = object.get("$__toml_private_datetime") {
                *value = date.clone();
            } else {
                object.values_mut().for_each(dates_as_strings);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(dates_as_strings),
        _ => {}
    }
}

fn toml_files(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && depth > 0 {
            toml_files(&path, depth - 1, files);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
}

#[test]
fn every_valid_job_is_valid_by_the_schema() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/valid");
    let mut files = Vec::new();
    toml_files(&tests, 0, &mut files);
    assert!(files.len() >= 2);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        accepts(job_schema(&connectors()), &text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(parse("job.toml", text.as_bytes()).is_ok());
    }
}

#[test]
fn every_example_job_is_valid_by_the_schema() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut files = Vec::new();
    toml_files(&examples, 2, &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // Examples hold other TOML too: a job is what has sources.
        if !text.contains("[source.") {
            continue;
        }
        accepts(job_schema(&ConnectorSchemas::default()), &text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(parse("job.toml", text.as_bytes()).is_ok(), "{}", file.display());
    }
}

#[test]
fn the_schema_refuses_wrong_shapes() {
    let job = |source: &str, sink: &str| {
        format!(
            "name = \"job\"\n[source.s]\nconnector = \"file\"\npath = \"x\"\n{source}\n[sink.t]\ninput = \"s\"\n{sink}"
        )
    };
    let accepts = |text: &str| accepts(job_schema(&connectors()), text);
    assert_eq!(accepts(&job("", "connector = \"stdout\"")), Ok(()));
    for (source, sink) in [
        ("pathh = \"x\"", "connector = \"stdout\""),
        ("key = 7", "connector = \"stdout\""),
        ("time = { field = \"/at\", unit = \"millis\" }", "connector = \"stdout\""),
        ("watermark = { bound = \"-2s\" }", "connector = \"stdout\""),
        ("parallelism = 257", "connector = \"stdout\""),
        ("", "connector = \"kafka\""),
        ("", "connector = \"file\""),
        ("", "connector = \"stdout\"\nextra = 1"),
    ] {
        assert!(accepts(&job(source, sink)).is_err(), "{source} {sink}");
    }
}

/// A wrong job that is wrong in its shape is wrong by the schema as well. What is listed here is
/// wrong in a way that a schema does not see.
#[test]
fn the_schema_sees_what_a_schema_can_see() {
    let beyond = [
        "circle",
        "config-not-json",
        "epoch-out-of-range",
        "input-is-a-sink",
        "input-no-port-behind-dot",
        "input-port-of-a-source",
        "input-port-twice",
        "input-twice",
        "input-unknown-node",
        "key-bad-escape",
        "names-shared",
        "order-in-the-wrong-place",
        "plugin-bad-digest",
        "plugin-url",
        "plugin-std-empty",
        "reads-itself",
        "state-cache-in-memory",
        "watermark-from-not-valid",
        "window-count-early",
        "window-count-slides-too-far",
        "window-early-never",
        "window-empty",
        "window-every-not-a-number",
        "window-global-lateness",
        "window-late-without-lateness",
        "window-panes-of-one-firing",
        "window-session-accumulates",
        "window-slide-above-size",
        "window-too-many-overlap",
        "window-too-short",
        "window-tumbling-every",
        "window-two-kinds",
        "window-without-every",
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let mut files = Vec::new();
    toml_files(&folder, 0, &mut files);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let verdict = accepts(job_schema(&ConnectorSchemas::default()), &text);
        assert_eq!(verdict.is_ok(), beyond.contains(&name), "{name}: {verdict:?}");
    }
}
