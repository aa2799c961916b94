//! Guests, a host to run them in, and batches to feed them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use wasmill_contract::{Operator, OperatorContext, OperatorError, OperatorFactory, Share};
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

/// The first line that begins with `;; world:` names the world of a guest.
fn world_of(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix(";; world: ")).unwrap_or("stateless")
}

/// The core module of the guest in `tests/guests/wat/<name>.wat`: its text, what every guest has,
/// and a default for each export of its world that it does not have itself.
pub(crate) fn core_module(name: &str) -> Vec<u8> {
    let text = read(&format!("wat/{name}.wat"));
    let world = world_of(&text);
    let wanted = |export: &str| match world {
        "stateless" => !export.contains("/timed@") && !export.contains("/aggregate@"),
        "stateful" => !export.contains("/aggregate@"),
        "windowed" => !export.contains("/timed@") && !export.contains("/operator@"),
        other => panic!("{name}: no world {other}"),
    };
    let defaults = read("defaults.wat");
    let defaults = defaults.split("(func (export \"").skip(1).filter_map(|function| {
        let export = function.split('"').next()?;
        let given = text.contains(&format!("(export \"{export}\")"));
        (wanted(export) && !given).then(|| format!("(func (export \"{function}"))
    });
    let (imports, functions) = text.split_once(";; functions\n").unwrap_or(("", &text));
    let defaults: String = defaults.collect();
    let module = format!("(module {imports}\n{}\n{defaults}\n{functions})", read("prelude.wat"));
    wat::parse_str(&module).unwrap_or_else(|error| panic!("{name}: {error}\n{module}"))
}

/// The same, with the world in a `component-type` section.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let mut module = core_module(name);
    let mut resolve = Resolve::default();
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let (package, _) = resolve.push_dir(&wit).expect("the WIT package parses");
    let world = world_of(&read(&format!("wat/{name}.wat"))).to_owned();
    let world = resolve.select_world(&[package], Some(&world)).expect("the world exists");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("the world embeds");
    module
}

/// A guest as a component.
pub(crate) fn component(name: &str) -> Vec<u8> {
    encode(&guest(name))
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
        let cache = tempfile::tempdir().expect("a directory");
        let settings = HostSettings { instances_max: 64, ..HostSettings::in_process(cache.path()) };
        Self { host: WasmHost::new(settings).expect("a host"), cache }
    }

    /// The host that most tests share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Host> = OnceLock::new();
        SHARED.get_or_init(Self::new)
    }

    pub(crate) async fn load(&self, bytes: Vec<u8>) -> Result<LoadedPlugin, PluginError> {
        self.host.load(bytes, limits(), Grants::ALL).await
    }

    pub(crate) async fn factory(&self, name: &str) -> Result<Arc<dyn OperatorFactory>, OperatorError> {
        self.load(guest(name)).await.expect("the guest loads").configure(Vec::new()).await
    }

    pub(crate) async fn open(&self, name: &str) -> Result<Box<dyn Operator>, OperatorError> {
        let factory = self.factory(name).await.expect("the guest describes itself");
        let context = context(&factory.descriptor().spaces);
        factory.open(context).await
    }

    /// One batch through a fresh instance of a guest.
    pub(crate) async fn process(&self, name: &str, input: &Batch) -> Result<Outcome, OperatorError> {
        let mut operator = self.open(name).await.expect("the guest opens");
        let outcome = call(&mut *operator, input).await;
        if let Err(OperatorError::Retry { .. } | OperatorError::Fatal { .. }) | Ok(_) = outcome {
            return outcome;
        }
        let after = call(&mut *operator, input).await;
        assert!(matches!(after, Err(OperatorError::Instance(_))), "a dead instance runs nothing: {after:?}");
        outcome
    }

    /// Asserts that the host still runs a batch.
    pub(crate) async fn works(&self) {
        let outcome = self.process("keeps_marked", &batch(&["kept", "dropped"])).await.expect("a good guest runs");
        assert_eq!(outcome, super::calls::kept(&[0], 2));
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
