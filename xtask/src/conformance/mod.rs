//! `cargo xtask conformance`: one operator per language and world, made of the SDK as it stands here,
//! played the same cases. What each language passes, and what it costs, goes into
//! `docs/languages.md`.
//!
//! A component is cached under the hash of all that it is made of, so that a language that nobody
//! touched costs nothing.

mod live;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use wait4::Wait4;
use wasmill_toolchain::{Language, Project, Tools, build_project};

use crate::document;
use crate::plugins::{GUESTS, plugins};
use crate::root;
use crate::steps::{now, say};

/// Where the suite is.
const SUITE: &str = "plugin-sdk/conformance";
/// Components, tools and what figures are measured on.
const CACHE: &str = "target/conformance";
const TOOLS: &str = "target/tools";
/// Configurations that a language has to refuse, with the same words; where one is of another type,
/// Rust has the words of serde.
const REFUSED: [(&str, &str, &str); 4] = [
    ("config-error-value", r#"{"op":"count","limit":0}"#, "config: `limit`: expected at least 1"),
    ("config-error-type", r#"{"op":"count","limit":"x"}"#, "config: `limit`: expected an integer, found \"x\""),
    ("config-error-missing", r#"{"limit":2}"#, "config: missing field `op`"),
    (
        "config-error-unknown",
        r#"{"op":"count","limt":2}"#,
        "config: `limt`: unknown field `limt`, expected `op` or `limit`",
    ),
];
const RUST_WORDS: (&str, &str) = ("expected an integer, found \"x\"", "invalid type: string \"x\", expected i64");
/// Events that speed is measured on.
const EVENTS: usize = 200_000;
/// CPU time beyond that of `std:filter` that can be told from noise, in seconds.
const WORK_S_MIN: f64 = 0.05;

/// What to run, and what to say.
pub(crate) struct Options {
    pub(crate) language: Option<String>,
    pub(crate) json: bool,
    /// Measure, and write the table.
    pub(crate) table: bool,
    pub(crate) offline: bool,
    pub(crate) wasmill: PathBuf,
}

/// Whose SDK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sdk {
    /// Built by cargo, with the other guests.
    Rust,
    /// Built as `wasmill build` does.
    Of(Language),
}

impl Sdk {
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Of(language) => language.name(),
        }
    }
}

impl std::fmt::Display for Sdk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rust => f.write_str("Rust"),
            Self::Of(language) => language.fmt(f),
        }
    }
}

/// Verdicts by case; an empty text is a pass.
type Verdicts = BTreeMap<String, String>;

/// Runs the suite; fails where a language differs.
pub(crate) fn conformance(options: &Options) -> anyhow::Result<()> {
    let root = root()?;
    let languages = match options.language.as_deref() {
        None => std::iter::once(Sdk::Rust).chain(Language::ALL.map(Sdk::Of)).collect(),
        Some("rust") => vec![Sdk::Rust],
        Some(name) => vec![Sdk::Of(Language::named(name).with_context(|| format!("there is no SDK for {name:?}"))?)],
    };
    let wasmill = root.join(&options.wasmill);
    let mut all = BTreeMap::new();
    let mut failed = 0;
    for language in languages {
        let verdicts = verdicts(&root, language, &wasmill, options)?;
        for (case, difference) in &verdicts {
            if options.json {
                print(&json!({
                    "language": language.name(), "case": case, "ok": difference.is_empty(), "detail": difference,
                }));
            } else if !difference.is_empty() {
                say(&format!("{language} differs in {case}:\n{difference}"));
            }
        }
        let bad = verdicts.values().filter(|difference| !difference.is_empty()).count();
        failed += bad;
        say(&format!("{language}: {} of {} cases", verdicts.len() - bad, verdicts.len()));
        all.insert(language, verdicts);
    }
    if options.table {
        let figures: BTreeMap<_, _> = all
            .keys()
            .map(|language| Ok((*language, figures(&root, *language, &wasmill)?)))
            .collect::<anyhow::Result<_>>()?;
        document::replace(&root.join("docs/languages.md"), "conformance", &table(&all, &figures))?;
    }
    if failed > 0 {
        bail!("{failed} cases differ");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(line: &Value) {
    println!("{line}");
}

/// The component of a language: `operator` or `aggregate`.
fn component(root: &Path, sdk: Sdk, kind: &str, offline: bool) -> anyhow::Result<PathBuf> {
    let Sdk::Of(language) = sdk else {
        plugins(offline)?;
        return Ok(root.join(GUESTS).join(format!("conformance-{kind}.wasm")));
    };
    built(root, language, kind, offline)
}

/// The component of a language that is no other's: one of the folders in `operators/`.
pub(crate) fn built(root: &Path, language: Language, kind: &str, offline: bool) -> anyhow::Result<PathBuf> {
    let dir = root.join(SUITE).join("operators").join(language.name()).join(kind);
    let mut hash = Sha256::new();
    for part in [dir.clone(), root.join("plugin-sdk").join(language.sdk()), root.join("runtime/toolchain/src")] {
        digest(&part, &mut hash)?;
    }
    hash.update(fs::read(root.join("wit/operator.wit"))?);
    let hash: String = hash.finalize().iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let place = root.join(CACHE).join(format!("{}-{kind}-{hash}.wasm", language.name()));
    if place.is_file() {
        return Ok(place);
    }
    let tools = Tools { dir: root.join(TOOLS), offline };
    let project = Project::read(&dir)?;
    let out = root.join(CACHE).join("made").join(language.name()).join(kind);
    let built = build_project(&project, &tools, Some(&out), &mut say)?;
    fs::copy(&built.component, &place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

/// Adds names and bytes of the files of a folder to a hash.
fn digest(path: &Path, hash: &mut Sha256) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name == "target" || name == "node_modules" || name.starts_with("__") || name.starts_with('.') {
        return Ok(());
    }
    hash.update(&name);
    if path.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        entries.iter().try_for_each(|entry| digest(&entry.path(), hash))
    } else {
        hash.update(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
        Ok(())
    }
}

fn verdicts(root: &Path, language: Sdk, wasmill: &Path, options: &Options) -> anyhow::Result<Verdicts> {
    let mut verdicts = Verdicts::new();
    for kind in ["operator", "aggregate"] {
        let component = component(root, language, kind, options.offline)?;
        let cases = root.join(SUITE).join("cases").join(kind);
        let said = Command::new(wasmill).arg("--json").arg("test").arg(&component).arg("--cases").arg(&cases).output();
        let said = said.with_context(|| format!("cannot run {}", wasmill.display()))?;
        let report: Value = serde_json::from_slice(&said.stdout).with_context(|| {
            format!("wasmill test of {language} says no JSON: {}", String::from_utf8_lossy(&said.stderr))
        })?;
        let played = report["cases"].as_array().map(Vec::as_slice).unwrap_or_default();
        if played.len() != fs::read_dir(&cases)?.count() {
            bail!("{language} played {} cases of {}: {report}", played.len(), cases.display());
        }
        for case in played {
            let ok = case["ok"] == true;
            let name = format!("{kind}/{}", case["name"].as_str().unwrap_or_default());
            let detail = if ok { String::new() } else { format!("{case:#}") };
            verdicts.insert(name, detail);
        }
        if kind == "operator" {
            for (name, config, expected) in REFUSED {
                let said = inspect(wasmill, &component, config)?;
                let error = said["describe_error"].as_str().unwrap_or("it was accepted").to_owned();
                let expected = match language {
                    Sdk::Rust => expected.replace(RUST_WORDS.0, RUST_WORDS.1),
                    Sdk::Of(_) => expected.to_owned(),
                };
                let ok = error.ends_with(&expected);
                verdicts
                    .insert(name.into(), if ok { String::new() } else { format!("expected {expected}, got {error}") });
            }
            let said = inspect(wasmill, &component, r#"{"op":"count"}"#)?;
            let imports = said["imports"].to_string();
            let clean = !imports.contains("wasi") && said["descriptor"].is_object();
            verdicts.insert("no-wasi".into(), if clean { String::new() } else { imports });
            let lab = root.join(CACHE).join("live").join(language.name());
            if let Sdk::Of(_) = language {
                let rust = self::component(root, Sdk::Rust, kind, options.offline)?;
                verdicts.insert(
                    "swap-from-rust-and-back".into(),
                    live::swap(wasmill, &lab.join("swap"), &rust, &component)?,
                );
            }
            if language == Sdk::Of(Language::C) {
                verdicts.insert("raw-bindings".into(), live::raw(root, wasmill, &lab)?);
            }
        }
    }
    Ok(verdicts)
}

fn inspect(wasmill: &Path, component: &Path, config: &str) -> anyhow::Result<Value> {
    let said = Command::new(wasmill).arg("--json").arg("inspect").arg(component).args(["--config", config]).output()?;
    serde_json::from_slice(&said.stdout)
        .with_context(|| format!("wasmill inspect says no JSON: {}", String::from_utf8_lossy(&said.stderr)))
}

/// What a language costs.
struct Figures {
    component_kib: u64,
    native_kib: u64,
    start_ms: f64,
    memory_kib: u64,
    /// `None` where it costs too little beyond `std:filter` to be told.
    events_per_cpu_s: Option<f64>,
}

/// Measures a counting job: one event, then many.
fn figures(root: &Path, language: Sdk, wasmill: &Path) -> anyhow::Result<Figures> {
    let component = component(root, language, "operator", true)?;
    let lab = root.join(CACHE).join("lab");
    fs::create_dir_all(&lab)?;
    let inputs = [("one", 1), ("many", EVENTS)];
    for (name, events) in inputs {
        let mut text = String::new();
        for event in 0..events {
            writeln!(text, r#"{{"key":"key-{}","filler":"{}"}}"#, event * 7919 % 1000, "x".repeat(70))?;
        }
        fs::write(lab.join(format!("{name}.jsonl")), text)?;
    }
    let job = |plugin: &str, config: &str, input: &str| {
        format!(
            "name = \"figures\"\n[source.events]\nconnector = \"file\"\npath = \"{input}.jsonl\"\nkey = \"/key\"\n\
             [stage.work]\nplugin = \"{plugin}\"\ninput = \"events\"\n{config}\n\
             [sink.end]\nconnector = \"file\"\npath = \"out.txt\"\ninput = \"work\"\n"
        )
    };
    let plugin = component.display().to_string();
    let config = "config = { op = \"count\" }";
    let run = |plugin: &str, config: &str, input: &str| -> anyhow::Result<(f64, f64, u64)> {
        let path = lab.join("job.toml");
        fs::write(&path, job(plugin, config, input))?;
        // The first run compiles, the second is measured.
        let mut last = (0.0, 0.0, 0);
        for _ in 0..2 {
            let start = now();
            let mut command = Command::new(wasmill);
            command.args(["--json", "run"]).arg(&path).stdout(std::process::Stdio::null());
            let end = command.stderr(std::process::Stdio::null()).spawn()?.wait4()?;
            if !end.status.success() {
                bail!("the job of {language} ended with {}", end.status);
            }
            let cpu = (end.rusage.utime + end.rusage.stime).as_secs_f64();
            last = (cpu, start.elapsed().as_secs_f64(), end.rusage.maxrss / 1024);
        }
        Ok(last)
    };
    let (base_one, _, base_memory) = run("std:filter", "config = { where = \"true\" }", "one")?;
    let (base_many, ..) = run("std:filter", "config = { where = \"true\" }", "many")?;
    let (one, _, memory) = run(&plugin, config, "one")?;
    let (many, ..) = run(&plugin, config, "many")?;
    let work = (many - one) - (base_many - base_one);
    let said = inspect(wasmill, &component, r#"{"op":"count"}"#)?;
    Ok(Figures {
        component_kib: said["bytes"].as_u64().unwrap_or(0) / 1024,
        native_kib: said["native_bytes"].as_u64().unwrap_or(0) / 1024,
        start_ms: (one - base_one).max(0.0) * 1e3,
        memory_kib: memory.saturating_sub(base_memory),
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        events_per_cpu_s: (work >= WORK_S_MIN).then_some(EVENTS as f64 / work),
    })
}

fn table(all: &BTreeMap<Sdk, Verdicts>, figures: &BTreeMap<Sdk, Figures>) -> String {
    let mut text = String::from("| case |");
    let mut rule = String::from("| --- |");
    for language in all.keys() {
        text.push_str(&format!(" {language} |"));
        rule.push_str(" --- |");
    }
    text.push_str(&format!("\n{rule}\n"));
    let cases: std::collections::BTreeSet<&String> = all.values().flat_map(BTreeMap::keys).collect();
    for case in cases {
        text.push_str(&format!("| {case} |"));
        for verdicts in all.values() {
            text.push_str(match verdicts.get(case).map(String::is_empty) {
                Some(true) => " yes |",
                Some(false) => " **no** |",
                None => " |",
            });
        }
        text.push('\n');
    }
    text.push_str("\n| language | component KiB | native KiB | start, CPU ms | memory KiB | events/CPU-s |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for (language, figures) in figures {
        let Figures { component_kib, native_kib, start_ms, memory_kib, events_per_cpu_s } = figures;
        let speed = events_per_cpu_s.map_or_else(|| "as `std:filter`".to_owned(), |speed| format!("{speed:.0}"));
        text.push_str(&format!(
            "| {language} | {component_kib} | {native_kib} | {start_ms:.0} | {memory_kib} | {speed} |\n"
        ));
    }
    text
}
