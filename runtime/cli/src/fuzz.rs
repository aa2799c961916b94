//! Configurations of the standard plugins, out of their minds: taken, or refused in words. A plugin that traps on one
//! is contained, and is a finding here all the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use wasmill_contract::OperatorError;
use wasmill_wasm::{CompileMode, Grants, HostSettings, InstanceLimits, WasmHost};

use crate::fuzz_driver::{Random, fuzz, mutated};
use crate::std_plugins;

const WORDS: &[&str] = &[
    "(",
    ")",
    "((((",
    "[",
    "]",
    "{",
    "}",
    " and ",
    " or ",
    " | not",
    " | length",
    " == ",
    " < ",
    " then ",
    " not ",
    " as ",
    " within ",
    " in ",
    "{3,}",
    "{999999999}",
    "{2,1}",
    ".a",
    ".a.b[0]",
    ".[",
    "..",
    "1e400",
    "-1",
    "9223372036854775808",
    "\\\"",
    "\\u0000",
    "\\ud83d",
    "é",
    "1ns",
    "1d",
    "null",
    "true",
    "\"",
    ",",
    ":",
    "/",
    "/a/b~1",
    "\u{1b}",
];

/// Configurations of the plugins' own cases: the name of the plugin, a line break, and JSON.
fn corpus() -> Vec<Vec<u8>> {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let mut corpus = Vec::new();
    for name in std_plugins::names() {
        let folder = plugins.join(name).join("cases");
        let mut cases: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|case| case.path()).collect();
        // The order of the disk must not decide.
        cases.sort();
        for case in cases {
            let config: Option<Value> = match fs::read_to_string(case.join("case.toml")) {
                Ok(text) => text
                    .parse::<toml::Table>()
                    .ok()
                    .and_then(|mut case| serde_json::to_value(case.remove("config")?).ok()),
                Err(_) => fs::read(case.join("config.json")).ok().and_then(|text| serde_json::from_slice(&text).ok()),
            };
            corpus.extend(config.map(|config| format!("{name}\n{config}").into_bytes()));
        }
    }
    corpus
}

fn config(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut text = mutated(random, corpus, WORDS);
    // Much of one thing inside a text.
    if random.below(50) == 0
        && let Some(place) = text.iter().position(|byte| *byte == b':')
    {
        let much = random.pick(&["(", "not ", "-", ".a", "[", "a then "]).repeat(random.below(5_000));
        text.splice(place + 1..place + 1, [b"\"", much.as_bytes()].concat());
    }
    text
}

#[test]
fn configs() {
    let corpus = corpus();
    if corpus.is_empty() {
        // A binary without standard plugins.
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cache = tempfile::tempdir().expect("a directory");
    let mut settings = HostSettings::new(cache.path()).expect("settings");
    settings.compile = CompileMode::InProcess;
    let host = WasmHost::new(settings).expect("a host");
    let plugins: BTreeMap<&str, _> = std_plugins::names()
        .map(|name| {
            let bytes: std::sync::Arc<[u8]> = std_plugins::get(name).expect("embedded").into();
            let loaded = runtime.block_on(host.load(bytes, InstanceLimits::default(), Grants::ALL));
            (name, loaded.expect("loads"))
        })
        .collect();
    fuzz(
        "configs",
        600,
        |random| config(random, &corpus),
        |input| {
            let mut parts = input.splitn(2, |byte| *byte == b'\n');
            let name = std::str::from_utf8(parts.next().unwrap_or_default()).unwrap_or_default();
            let (Some(plugin), Some(config)) = (plugins.get(name), parts.next()) else { return false };
            match runtime.block_on(plugin.configure(config.to_vec())) {
                Ok(_) => true,
                Err(error @ OperatorError::Trap { .. }) => panic!("{error}"),
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    false
                }
            }
        },
    );
}
