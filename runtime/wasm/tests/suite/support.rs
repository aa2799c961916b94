//! Guests, a host to run them in, and batches to feed them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use wasmill_contract::{Aggregate, Operator, OperatorContext, OperatorError, OperatorFactory, Share};
use wasmill_model::{Batch, BatchBuilder, NodeName, Outcome, SpaceDescriptor, Timestamp};
use wasmill_store::{MemoryState, StateBackend};
use wasmill_wasm::{Grants, HostSettings, InstanceLimits, LoadedPlugin, PluginError, WasmHost};

#[path = "../../../../tests/guests/guest.rs"]
mod guest;

pub(crate) use self::guest::{Guest, encode, guests_dir};

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
