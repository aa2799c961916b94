//! The engine: one set of compile settings for host and worker, and the ticker.

use std::hash::{Hash, Hasher};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::{
    Config, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmFeatures,
};

use crate::{HostSettings, PluginError};

/// Native stack of a guest's call; deeper recursion traps.
const WASM_STACK_BYTES: usize = 1 << 20;
/// The stack under it, host functions included. Address space only until it is touched.
const FIBER_STACK_BYTES: usize = 3 << 20;
/// Core instances, memories and tables of one component.
pub(crate) const CORE_INSTANCES_MAX: u32 = 64;
pub(crate) const MEMORIES_MAX: u32 = 4;
pub(crate) const TABLES_MAX: u32 = 16;

/// Parts of WebAssembly that make a guest less than a deterministic function of its input, that
/// cost address space, or that no operator needs. Several memories stay on: what connects components
/// within a component, as JavaScript's toolchain nests them, copies from one memory to another.
const FEATURES_OFF: WasmFeatures = WasmFeatures::MEMORY64
    .union(WasmFeatures::THREADS)
    .union(WasmFeatures::SHARED_EVERYTHING_THREADS)
    .union(WasmFeatures::RELAXED_SIMD)
    .union(WasmFeatures::GC)
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::EXCEPTIONS)
    .union(WasmFeatures::STACK_SWITCHING)
    .union(WasmFeatures::CM_ASYNC);

/// What decides how code is compiled: the same in the worker and in the host.
fn compile_config() -> Config {
    let mut config = Config::new();
    config
        .wasm_features(FEATURES_OFF, false)
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .memory_reservation(4 << 30);
    config
}

/// An engine that compiles and never instantiates.
pub(crate) fn compiling() -> Result<Engine, PluginError> {
    Engine::new(&compile_config()).map_err(|error| PluginError::Engine { reason: format!("{error:#}") })
}

/// An engine that instantiates from a pool.
pub(crate) fn pooling(settings: &HostSettings) -> Result<Engine, PluginError> {
    let instances = settings.instances_max;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(4))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .max_component_instance_size(1 << 20)
        .max_core_instance_size(1 << 20)
        .table_elements(100_000);
    let mut config = compile_config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    // Stacks of instances that are gone take no memory: those of thousands of jobs would.
    config.async_stack_zeroing(true);
    Engine::new(&config).map_err(|error| PluginError::Engine {
        reason: format!(
            "a pool of {instances} instances, {} GiB of address space: {error:#}",
            4 * u64::from(instances)
        ),
    })
}

/// Names everything that an artifact depends on but the plugin: wasmtime's version, the processor,
/// the settings.
pub(crate) fn compatibility(engine: &Engine) -> String {
    struct Fingerprint(blake3::Hasher);
    impl Hasher for Fingerprint {
        fn finish(&self) -> u64 {
            0
        }
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut fingerprint = Fingerprint(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut fingerprint);
    fingerprint.0.finalize().to_hex()[..16].to_owned()
}

/// Moves wasmtime's own epochs forward from a thread of its own, so that a busy scheduler cannot
/// stop it. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Ticker {
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(engine: EngineWeak, tick: Duration) -> Result<Self, PluginError> {
        let (stop, stopped) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new()
            .name("wasmill-ticker".into())
            .spawn(move || {
                while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                }
            })
            .map_err(|error| PluginError::Engine { reason: format!("no thread for the ticker: {error}") })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ticker panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_worker_agree_on_what_fits() {
        let settings = HostSettings { instances_max: 4, ..HostSettings::in_process("unused") };
        let host = pooling(&settings).expect("a small pool fits");
        let worker = compiling().expect("an engine without a pool fits");
        assert_eq!(compatibility(&host), compatibility(&worker));
    }
}
