//! Guests, a host to run them in, and batches to feed them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use wasmill_contract::{Aggregate, Operator, OperatorContext, OperatorError, OperatorFactory, Share};
use wasmill_model::{Batch, BatchBuilder, NodeName, Outcome, SpaceDescriptor, Timestamp};
use wasmill_store::{MemoryState, StateBackend};
use wasmill_wasm::{Grants, HostSettings, InstanceLimits, LoadedPlugin, PluginError, WasmHost};
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where the guests are.
pub(crate) fn guests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(guests_dir().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Host functions under the names that guests call them by; a guest imports those it names.
const IMPORTS: &[(&str, &str, &str)] = &[
    ("$log", r#""wasmill:operator/log@0.1.0" "write""#, "(param i32 i32 i32)"),
    ("$add", r#""wasmill:operator/metrics@0.1.0" "add""#, "(param i32 i32 i64)"),
    ("$get_many", r#""wasmill:operator/state@0.1.0" "get-many""#, "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)"),
    (
        "$put_many",
        r#""wasmill:operator/state@0.1.0" "put-many""#,
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
    ),
    ("$scan", r#""wasmill:operator/state@0.1.0" "scan""#, "(param i32 i32 i32 i32 i32 i32 i32)"),
    ("$now", r#""wasmill:operator/timers@0.1.0" "now""#, "(param i32) (result i64)"),
    (
        "$set_timers",
        r#""wasmill:operator/timers@0.1.0" "set-many""#,
        "(param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)",
    ),
];

/// A guest: the text of its functions, in a world.
pub(crate) struct Guest {
    name: String,
    world: String,
    functions: String,
}

impl Guest {
    /// The guest in `tests/guests/wat/<name>.wat`.
    pub(crate) fn named(name: &str) -> Self {
        let functions = read(&format!("wat/{name}.wat"));
        let world = functions.lines().find_map(|line| line.strip_prefix(";; world: ")).unwrap_or("stateless");
        Self { name: name.into(), world: world.into(), functions }
    }

    /// A guest whose `export` does `body`; parameters are named by place.
    pub(crate) fn doing(world: &str, export: &str, body: &str) -> Self {
        let default = default_of(export);
        let signature = default.rsplit_once("\n  (").expect("signature and body").0;
        let signature = signature.replacen("(func (", "(func $does (", 1);
        Self { name: format!("{export} of {world}"), world: world.into(), functions: format!("{signature}\n  {body})") }
    }

    /// The same with more functions, data or a start.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.functions.push_str(more);
        self
    }

    /// Its text: what every guest has, and a default for each export of its world that it does not
    /// have itself.
    fn text(&self) -> String {
        let wanted = |export: &str| match self.world.as_str() {
            "stateful" => !export.contains("/aggregate@"),
            _ if ["/timed@", "/migration@"].iter().any(|of_state| export.contains(of_state)) => false,
            "stateless" => !export.contains("/aggregate@"),
            "windowed" => !export.contains("/operator@"),
            "both" => true,
            "half" => !export.contains("/operator@") && !export.contains("/aggregate@"),
            other => panic!("{}: no world {other}", self.name),
        };
        let defaults = read("defaults.wat");
        let defaults: String = defaults
            .split("(func (export \"")
            .skip(1)
            .filter(|function| {
                let export = function.split('"').next().unwrap_or_default();
                wanted(export) && !self.functions.contains(&format!("(export \"{export}\")"))
            })
            .map(|function| format!("(func (export \"{function}"))
            .collect();
        let imports: String = IMPORTS
            .iter()
            .filter(|(name, ..)| self.functions.contains(&format!("(call {name} ")))
            .map(|(name, from, kind)| format!("(import {from} (func {name} {kind}))\n"))
            .collect();
        format!("(module {imports}\n{}\n{defaults}\n{})", read("prelude.wat"), self.functions)
    }

    /// A core module that names its world.
    pub(crate) fn module(&self) -> Vec<u8> {
        self.module_with(|text| text, |wit| wit)
    }

    /// The same, with its text and the interface changed first.
    pub(crate) fn module_with(
        &self,
        text: impl FnOnce(String) -> String,
        wit: impl FnOnce(String) -> String,
    ) -> Vec<u8> {
        let text = text(self.text());
        let mut module = wat::parse_str(&text).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let mut resolve = Resolve::default();
        let odd = "world both { include stateless; export aggregate; }\nworld half { export plugin; }\n";
        let wit = wit(read("../../wit/operator.wit") + odd);
        let package = resolve.push_str("operator.wit", &wit).expect("the WIT package parses");
        let world = resolve.select_world(&[package], Some(&self.world)).expect("the world exists");
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the world embeds");
        module
    }

    /// A component.
    pub(crate) fn component(&self) -> Vec<u8> {
        encode(&self.module())
    }
}

fn default_of(export: &str) -> String {
    let defaults = read("defaults.wat");
    let mut functions = defaults.split("(func (export \"").skip(1);
    let found = functions.find(|function| {
        let name = function.split('"').next().unwrap_or_default();
        name == export || name.ends_with(&format!("#{export}"))
    });
    format!("(func (export \"{}", found.unwrap_or_else(|| panic!("no default for {export}")).trim_end())
}

/// A component out of a core module that names its world.
pub(crate) fn encode(module: &[u8]) -> Vec<u8> {
    let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(module).expect("a core module");
    encoder.encode().expect("the module fits its world")
}

/// A host with a cache of its own.
pub(crate) struct Host {
    pub(crate) host: WasmHost,
    pub(crate) cache: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut HostSettings)) -> Self {
        let cache = tempfile::tempdir().expect("a directory");
        let mut settings = HostSettings { instances_max: 64, ..HostSettings::in_process(cache.path()) };
        change(&mut settings);
        Self { host: WasmHost::new(settings).expect("a host"), cache }
    }

    /// The one artifact in the cache.
    pub(crate) fn artifact(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.cache.path().join("compiled")).expect("the cache");
        let mut artifacts: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        artifacts.retain(|path| path.extension().is_some_and(|extension| extension == "cwasm"));
        assert_eq!(artifacts.len(), 1, "{artifacts:?}");
        artifacts.remove(0)
    }

    /// The host that most tests share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Host> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    pub(crate) async fn load(&self, bytes: Vec<u8>) -> Result<LoadedPlugin, PluginError> {
        self.host.load(bytes, limits(), Grants::ALL).await
    }

    pub(crate) async fn factory(&self, guest: &Guest) -> Result<Arc<dyn OperatorFactory>, OperatorError> {
        self.load(guest.module()).await.expect("the guest loads").configure(Vec::new()).await
    }

    pub(crate) async fn open(&self, guest: &Guest) -> Result<Box<dyn Operator>, OperatorError> {
        let factory = self.factory(guest).await.expect("the guest describes itself");
        factory.open(context(&factory.descriptor().spaces)).await.map_err(|failed| failed.cause)
    }

    pub(crate) async fn open_aggregate(&self, guest: &Guest) -> Box<dyn Aggregate> {
        let factory = self.factory(guest).await.expect("the guest describes itself");
        factory.open_aggregate(context(&[])).await.expect("the guest opens")
    }

    /// Three rows through a fresh instance of a guest. Asserts that an instance that failed runs
    /// nothing any more, and that the host still does.
    pub(crate) async fn process(&self, guest: &Guest) -> Result<Outcome, OperatorError> {
        let mut operator = self.open(guest).await.expect("the guest opens");
        let input = batch(&["one", "two", "three"]);
        let outcome = call(&mut *operator, &input).await;
        if !matches!(outcome, Ok(_) | Err(OperatorError::Retry { .. } | OperatorError::Fatal { .. })) {
            let after = call(&mut *operator, &input).await;
            assert!(matches!(after, Err(OperatorError::Instance(_))), "a dead instance ran: {after:?}");
            self.works().await;
        }
        outcome
    }

    /// Asserts that the host still runs a batch.
    pub(crate) async fn works(&self) {
        let mut operator = self.open(&Guest::named("keeps_marked")).await.expect("a good guest opens");
        let outcome = call(&mut *operator, &batch(&["kept", "dropped"])).await;
        assert_eq!(outcome, Ok(super::calls::kept(&[0], 2)));
    }
}

/// Limits small enough for tests to reach.
pub(crate) fn limits() -> InstanceLimits {
    let short = std::time::Duration::from_millis(100);
    InstanceLimits {
        memory_bytes: 16 << 20,
        table_elements: 10_000,
        handles: 100,
        call_bytes: 4 << 20,
        rows_out: 10_000,
        host_calls: 1_000,
        describe: short,
        open: short,
        process: short,
        flush: short,
    }
}

/// A context with empty state.
pub(crate) fn context(spaces: &[SpaceDescriptor]) -> OperatorContext {
    let mut state = MemoryState::default();
    state.declare(spaces);
    let stage = NodeName::new("stage").expect("a name");
    OperatorContext::new(stage, Share { index: 0, of: 1 }, Box::new(state))
}

/// A call as the engine makes it.
pub(crate) async fn call(operator: &mut dyn Operator, input: &Batch) -> Result<Outcome, OperatorError> {
    operator.context().begin_call(Timestamp(1_000), Timestamp(2_000));
    let outcome = operator.process(0, input).await;
    if outcome.is_err() {
        operator.context().undo_call();
    }
    outcome
}

/// A batch of values under one key.
pub(crate) fn batch(values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::default();
    for (row, value) in values.iter().enumerate() {
        builder.push(Timestamp(row as i64), b"key", value.as_bytes());
    }
    builder.finish(0)
}
