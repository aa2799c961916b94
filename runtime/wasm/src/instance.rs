//! One instance of a plugin: a store of its own, and the calls into it.

use std::sync::Arc;
use std::time::Duration;

use wasmill_contract::{Aggregate, BoxFuture, OpenError, Operator, OperatorContext, OperatorError};
use wasmill_model::{
    Batch, Clock, Column, Descriptor, Entries, Firings, Folded, Migrated, Outcome, PaneBatch, Results, Timestamp,
};
use wasmtime::component::{ComponentNamedList, InstancePre, Lift, Lower};
use wasmtime::{Engine, PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use crate::abi::{self, BatchRef, ColumnRef, EntriesRef, FiringsRef, PanesRef};
use crate::guest::{Guest, MIGRATE, Violation};
use crate::outcome::{Given, REASON_BYTES_MAX};
use crate::world::{AggregateExports, Bind, Export, Exports, OperatorExports, World};
use crate::{InstanceLimits, text};

/// Functions of a guest's stack that an error keeps.
const FRAMES_MAX: usize = 32;
const FRAME_BYTES_MAX: usize = 160;

/// What an instance is made from.
#[derive(Clone)]
pub(crate) struct Mold {
    pub(crate) engine: Engine,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) world: World,
    pub(crate) limits: Arc<InstanceLimits>,
}

/// A store with a live instance in it.
pub(crate) struct Live {
    store: Store<Guest>,
    /// Set while a call runs, and left so by one that trapped or was dropped: wasmtime runs
    /// nothing in such a store any more.
    dead: bool,
}

impl Live {
    /// A store that nothing runs in yet.
    fn new(mold: &Mold, context: Option<OperatorContext>) -> Self {
        let store = Guest::store(&mold.engine, Arc::clone(&mold.limits), context);
        Self { store, dead: false }
    }

    /// Makes the instance, and returns what `bind` finds in it. Counts as part of `call`, within
    /// `deadline`.
    async fn instantiate<E>(
        &mut self,
        mold: &Mold,
        call: &'static str,
        deadline: Duration,
        bind: impl FnOnce(&World, &mut Bind<'_>) -> wasmtime::Result<E>,
    ) -> Result<E, OperatorError> {
        self.begin(call, deadline);
        let store = &mut self.store;
        let made = match mold.pre.instantiate_async(&mut *store).await {
            Ok(instance) => bind(&mold.world, &mut Bind { store, instance }),
            Err(error) => Err(error),
        };
        self.store.data_mut().count_time();
        made.map_err(|error| {
            if error.is::<PoolConcurrencyLimitError>() {
                // All instances of the process are in use, and some will not be for long.
                return OperatorError::Host { call, reason: format!("no instance is free: {error}") };
            }
            match explain(self.store.data(), call, deadline, &error) {
                // Nothing of the guest ran and no limit of it was met.
                OperatorError::Contract { reason, .. } => OperatorError::Instance(reason),
                error => error,
            }
        })
    }

    /// Starts a call.
    fn begin(&mut self, name: &'static str, deadline: Duration) {
        self.store.data_mut().begin(name, deadline);
        self.store.set_epoch_deadline(1);
    }

    async fn call<P, R>(
        &mut self,
        name: &'static str,
        deadline: Duration,
        function: Export<P, R>,
        params: P,
    ) -> Result<R, OperatorError>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: Lift + Send + Sync + 'static,
    {
        if std::mem::replace(&mut self.dead, true) {
            return Err(OperatorError::Instance(format!("{name} of an instance that a call before has ended")));
        }
        self.begin(name, deadline);
        let returned = function.call_async(&mut self.store, params).await;
        let guest = self.store.data_mut();
        guest.count_time();
        guest.close_log();
        match returned {
            Ok((result,)) => {
                self.dead = false;
                result.map_err(|failure| match failure {
                    abi::Failure::Retry(reason) => {
                        OperatorError::Retry { call: name, reason: text::clean(reason, REASON_BYTES_MAX) }
                    }
                    abi::Failure::Fatal(reason) => {
                        OperatorError::Fatal { call: name, reason: text::clean(reason, REASON_BYTES_MAX) }
                    }
                })
            }
            Err(error) => Err(explain(guest, name, deadline, &error)),
        }
    }

    /// Ends the instance where what it returned breaks the contract.
    fn checked<R>(&mut self, result: Result<R, OperatorError>) -> Result<R, OperatorError> {
        self.dead |= result.is_err();
        result
    }

    fn context(&mut self) -> &mut OperatorContext {
        self.store.data_mut().context.as_mut().expect("an opened instance has a context from its making to its end")
    }

    fn close(self) -> OperatorContext {
        self.store.into_data().context.expect("an opened instance has a context from its making to its end")
    }
}

/// Calls `describe` in an instance that lives no longer.
pub(crate) async fn describe(mold: &Mold, config: &[u8]) -> Result<Descriptor, OperatorError> {
    let deadline = mold.limits.describe;
    let mut live = Live::new(mold, None);
    let describe = live.instantiate(mold, "describe", deadline, World::describe).await?;
    let said = live.call("describe", deadline, describe, (config,)).await?;
    crate::outcome::descriptor(said, &mold.world)
}

/// An opened instance with the functions of its world.
pub(crate) struct Opened<E> {
    live: Live,
    exports: E,
    descriptor: Arc<Descriptor>,
    limits: Arc<InstanceLimits>,
    /// Memory beyond which the instance had better be replaced.
    memory_mark: u64,
}

/// An instance of an operator.
pub(crate) type WasmOperator = Opened<OperatorExports>;
/// An instance of an aggregate.
pub(crate) type WasmAggregate = Opened<AggregateExports>;

impl<E: Exports> Opened<E> {
    pub(crate) async fn open(
        mold: &Mold,
        config: &[u8],
        descriptor: Arc<Descriptor>,
        context: OperatorContext,
    ) -> Result<Self, Box<OpenError>> {
        let mut live = Live::new(mold, Some(context));
        let deadline = mold.limits.open;
        let bind = |world: &World, at: &mut Bind<'_>| Ok((world.open(at)?, E::of(world, at)?));
        let opened = async {
            let (open, exports) = live.instantiate(mold, "open", deadline, bind).await?;
            live.call("open", deadline, open, (config,)).await?;
            exports.ok_or_else(|| OperatorError::Instance(E::MISSING.into()))
        };
        match opened.await {
            Ok(exports) => {
                // An instance that is large to begin with is not so for a leak.
                let memory_mark = (mold.limits.memory_bytes / 2).max(live.store.data().memory_bytes() * 2);
                Ok(Self { live, exports, descriptor, limits: Arc::clone(&mold.limits), memory_mark })
            }
            Err(cause) => Err(Box::new(OpenError { cause, context: live.close() })),
        }
    }

    fn given(&self, call: &'static str, rows: Option<usize>) -> Given<'_> {
        Given { call, rows, ports: self.descriptor.outputs.len(), limits: &self.limits }
    }
}

impl Operator for WasmOperator {
    fn process<'a>(&'a mut self, port: u16, input: &'a Batch) -> BoxFuture<'a, Result<Outcome, OperatorError>> {
        Box::pin(async move {
            let params = (port, BatchRef::of(input, self.descriptor.columns));
            let outcome = self.live.call("process", self.limits.process, self.exports.process, params).await?;
            let outcome = self.given("process", Some(input.len())).outcome(outcome);
            self.live.checked(outcome)
        })
    }

    fn on_timers<'a>(&'a mut self, clock: Clock, fired: &'a Firings) -> BoxFuture<'a, Result<Outcome, OperatorError>> {
        Box::pin(async move {
            let timed = self.exports.timed.ok_or_else(|| untimed("on-timers"))?;
            let firings =
                FiringsRef { times: &fired.times, keys: ColumnRef::of(&fired.keys), tags: ColumnRef::of(&fired.tags) };
            let params = (clock.into(), firings);
            let outcome = self.live.call("on-timers", self.limits.process, timed.on_timers, params).await?;
            let outcome = self.given("on-timers", Some(fired.times.len())).outcome(outcome);
            self.live.checked(outcome)
        })
    }

    fn on_watermark(&mut self, watermark: Timestamp) -> BoxFuture<'_, Result<Outcome, OperatorError>> {
        Box::pin(async move {
            let timed = self.exports.timed.ok_or_else(|| untimed("on-watermark"))?;
            let params = (watermark.0,);
            let outcome = self.live.call("on-watermark", self.limits.process, timed.on_watermark, params).await?;
            let outcome = self.given("on-watermark", None).outcome(outcome);
            self.live.checked(outcome)
        })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), OperatorError>> {
        Box::pin(self.live.call("flush", self.limits.flush, self.exports.flush, ()))
    }

    fn migrate<'a>(
        &'a mut self,
        space: u16,
        from_version: u32,
        entries: &'a Entries,
    ) -> BoxFuture<'a, Result<Migrated, OperatorError>> {
        Box::pin(async move {
            let Some(migrate) = self.exports.migrate else {
                let reason = "the plugin does not export `migration`".into();
                return Err(OperatorError::Contract { call: MIGRATE, reason });
            };
            let [keys, subkeys, values] = [&entries.keys, &entries.subkeys, &entries.values].map(ColumnRef::of);
            let params = (space, from_version, EntriesRef { keys, subkeys, values });
            let migrated = self.live.call(MIGRATE, self.limits.process, migrate, params).await?;
            let migrated = self.given(MIGRATE, Some(entries.keys.len())).migrated(migrated);
            self.live.checked(migrated)
        })
    }

    fn memory_bytes(&self) -> u64 {
        self.live.store.data().memory_bytes()
    }

    fn is_overgrown(&self) -> bool {
        self.live.store.data().memory_bytes() > self.memory_mark
    }

    fn context(&mut self) -> &mut OperatorContext {
        self.live.context()
    }

    fn close(self: Box<Self>) -> OperatorContext {
        self.live.close()
    }
}

fn untimed(call: &'static str) -> OperatorError {
    OperatorError::Contract { call, reason: "the plugin does not export `timed`".into() }
}

impl Aggregate for WasmAggregate {
    fn fold<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        input: &'a Batch,
    ) -> BoxFuture<'a, Result<Folded, OperatorError>> {
        Box::pin(async move {
            let params = (ColumnRef::of(accumulators), groups, BatchRef::of(input, self.descriptor.columns));
            let folded = self.live.call("fold", self.limits.process, self.exports.fold, params).await?;
            let folded = self.given("fold", Some(input.len())).folded(folded, accumulators.len());
            self.live.checked(folded)
        })
    }

    fn merge<'a>(
        &'a mut self,
        accumulators: &'a Column,
        groups: &'a [u32],
        count: u32,
    ) -> BoxFuture<'a, Result<Column, OperatorError>> {
        Box::pin(async move {
            let params = (ColumnRef::of(accumulators), groups, count);
            let merged = self.live.call("merge", self.limits.process, self.exports.merge, params).await?;
            let merged = self.given("merge", Some(0)).accumulators(merged, count as usize);
            self.live.checked(merged)
        })
    }

    fn finish<'a>(
        &'a mut self,
        panes: &'a PaneBatch,
        accumulators: &'a Column,
    ) -> BoxFuture<'a, Result<Results, OperatorError>> {
        Box::pin(async move {
            let bounds = PanesRef { starts: &panes.starts, ends: &panes.ends, keys: ColumnRef::of(&panes.keys) };
            let params = (bounds, ColumnRef::of(accumulators));
            let results = self.live.call("finish", self.limits.process, self.exports.finish, params).await?;
            let results = self.given("finish", Some(0)).results(results, panes.starts.len());
            self.live.checked(results)
        })
    }

    fn memory_bytes(&self) -> u64 {
        self.live.store.data().memory_bytes()
    }

    fn context(&mut self) -> &mut OperatorContext {
        self.live.context()
    }

    fn close(self: Box<Self>) -> OperatorContext {
        self.live.close()
    }
}

/// Why a call came back with an error of wasmtime's.
fn explain(guest: &Guest, call: &'static str, deadline: Duration, error: &wasmtime::Error) -> OperatorError {
    match error.downcast_ref::<Violation>() {
        Some(Violation::Deadline) => {
            let limit_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            return OperatorError::Deadline { call, limit_ms };
        }
        Some(Violation::Limit(limit)) => return OperatorError::Limit { call, limit: limit.clone() },
        Some(Violation::Contract(reason)) => return OperatorError::Contract { call, reason: reason.clone() },
        Some(Violation::Host(reason)) => return OperatorError::Host { call, reason: reason.clone() },
        Some(panicked @ Violation::Panicked(_)) => {
            return OperatorError::Trap { call, reason: panicked.to_string(), stack: Vec::new() };
        }
        None => {}
    }
    // An allocator that was refused memory ends in a trap of the guest's own making.
    if let Some(limit) = &guest.call.growth_refused {
        return OperatorError::Limit { call, limit: limit.clone() };
    }
    let root = error.root_cause().to_string();
    if root.contains("fuel allocated for hostcalls") {
        let limit = format!("{} bytes between guest and host in one call", guest.limits.call_bytes);
        return OperatorError::Limit { call, limit };
    }
    let Some(trap) = error.downcast_ref::<Trap>() else {
        return OperatorError::Contract { call, reason: text::clean(root, REASON_BYTES_MAX) };
    };
    let mut reason = trap.to_string().trim_start_matches("wasm trap: ").to_owned();
    if let Some(complaint) = &guest.call.complaint {
        reason.push_str("; it logged: ");
        reason.push_str(&text::clean(complaint.trim_end().to_owned(), REASON_BYTES_MAX));
    }
    let stack = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    OperatorError::Trap { call, reason, stack }
}

/// The guest's innermost functions.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => text::clean(format!("{:#}", rustc_demangle::demangle(name)), FRAME_BYTES_MAX),
        None => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().take(FRAMES_MAX).map(name).collect()
}
