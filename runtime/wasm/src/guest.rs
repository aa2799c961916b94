//! What the host keeps beside a guest: its context, what it has used, what the running call did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmill_contract::OperatorContext;
use wasmill_tenancy::{Held, thread_cpu_nanos};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use crate::InstanceLimits;
use crate::capability::metrics::MetricNames;
use crate::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};

/// The call in which a guest is a function of what it is given, and nothing else.
pub(crate) const MIGRATE: &str = "migrate";

/// Why the host ended a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("out of time")]
    Deadline,
    #[error("{0}")]
    Limit(String),
    #[error("{0}")]
    Contract(String),
    #[error("{0}")]
    Host(String),
    #[error("host function {0} panicked")]
    Panicked(&'static str),
}

/// The running call.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) host_calls: u32,
    pub(crate) log_lines: u32,
    pub(crate) log_dropped: u64,
    pub(crate) observations: u32,
    pub(crate) timers: usize,
    /// Bytes by which it has made the state grow.
    pub(crate) state_bytes: u64,
    /// The memory or table limit that a growth ran into.
    pub(crate) growth_refused: Option<String>,
    /// The errors that the guest logged: what a panic says before it traps.
    pub(crate) complaint: Option<String>,
    deadline: Duration,
    ran: Duration,
}

/// Data of a store.
#[derive(Debug)]
pub(crate) struct Guest {
    /// `None` while a plugin describes itself.
    pub(crate) context: Option<OperatorContext>,
    pub(crate) limits: Arc<InstanceLimits>,
    pub(crate) call: Call,
    pub(crate) metric_names: MetricNames,
    memory_bytes: u64,
    /// The same, as part of what its tenant holds.
    memory_held: Option<Held>,
    table_elements: u64,
    /// CPU time of the thread when the guest last began or went on, in nanoseconds.
    resumed: Arc<AtomicU64>,
}

impl Guest {
    /// A store for one instance, limits in place.
    pub(crate) fn store(
        engine: &wasmtime::Engine,
        limits: Arc<InstanceLimits>,
        context: Option<OperatorContext>,
    ) -> Store<Self> {
        let (call_bytes, handles) = (limits.call_bytes, limits.handles);
        let account = context.as_ref().and_then(|context| context.account.as_ref());
        let memory_held = account.map(|account| account.memory.held());
        let mut store = Store::new(
            engine,
            Self {
                context,
                limits,
                call: Call::default(),
                metric_names: MetricNames::default(),
                memory_bytes: 0,
                memory_held,
                table_elements: 0,
                resumed: Arc::default(),
            },
        );
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(call_bytes);
        store.set_max_component_handles(handles);
        store.epoch_deadline_callback(|mut store| store.data_mut().tick());
        store
    }

    /// Starts a call. Its time counts from here; the store's epoch deadline must be one tick.
    pub(crate) fn begin(&mut self, name: &'static str, deadline: Duration) {
        self.metric_names.begin_call();
        self.call = Call { name, deadline, ..Call::default() };
        self.resumed.store(thread_cpu_nanos(), Ordering::Relaxed);
    }

    /// Counts the CPU time since the guest began or went on.
    pub(crate) fn count_time(&mut self) {
        let nanos = thread_cpu_nanos().saturating_sub(self.resumed.load(Ordering::Relaxed));
        self.call.ran += Duration::from_nanos(nanos);
        if let Some(context) = &mut self.context {
            context.cpu_nanos += nanos;
        }
    }

    /// Counts a call of a host function.
    pub(crate) fn enter(&mut self) -> Result<(), Violation> {
        self.call.host_calls += 1;
        if self.call.host_calls > self.limits.host_calls {
            return Err(Violation::Limit(format!("{} host calls in one call", self.limits.host_calls)));
        }
        Ok(())
    }

    /// Bytes of all linear memories.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The context, for a capability that makes no sense while a plugin describes itself or turns
    /// entries into others.
    pub(crate) fn context(&mut self, capability: &str) -> Result<&mut OperatorContext, Violation> {
        let call = self.call.name;
        let context = self.context.as_mut().filter(|_| call != MIGRATE);
        context.ok_or_else(|| Violation::Contract(format!("{capability} is not there during {call}")))
    }

    /// A tick of the engine while the guest runs: its time is counted, then others have a turn.
    ///
    /// Time is that of the thread's CPU from where the guest last went on, so neither waiting for
    /// other tasks nor a loaded machine counts against it.
    fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.count_time();
        self.resumed.store(thread_cpu_nanos(), Ordering::Relaxed);
        if self.call.ran >= self.call.deadline {
            return Err(Violation::Deadline.into());
        }
        let resumed = Arc::clone(&self.resumed);
        let of_tenant = self.context.as_ref().is_some_and(|context| context.account.is_some());
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(async move {
                match of_tenant {
                    true => wasmill_tenancy::pause().await,
                    false => tokio::task::yield_now().await,
                }
                resumed.store(thread_cpu_nanos(), Ordering::Relaxed);
            }),
        ))
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.memory_bytes.saturating_add((desired - current) as u64);
        if sum > self.limits.memory_bytes {
            self.call.growth_refused = Some(format!("{} bytes of memory", self.limits.memory_bytes));
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        if let Some(held) = &mut self.memory_held
            && let Err(refused) = held.try_add((desired - current) as u64)
        {
            self.call.growth_refused = Some(refused);
            return Ok(false);
        }
        self.memory_bytes = sum;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.table_elements.saturating_add((desired - current) as u64);
        if sum > self.limits.table_elements {
            self.call.growth_refused = Some(format!("{} table elements", self.limits.table_elements));
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.table_elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}
