use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What a process-wide host is made of.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// Where compiled plugins are kept. Made with mode 0700 where it does not exist.
    pub cache_dir: PathBuf,
    /// Bytes of compiled plugins kept on disk; the oldest go first.
    pub cache_bytes_max: u64,
    /// Where plugins are compiled.
    pub compile: CompileMode,
    /// What one compilation may take.
    pub compile_limits: CompileLimits,
    /// What a plugin's bytes may declare.
    pub scan_limits: ScanLimits,
    /// Instances that may live at once. Each reserves 4 GiB of address space, and no memory.
    pub instances_max: u32,
    /// How often long calls yield to the scheduler and have their time counted.
    pub tick: Duration,
}

impl HostSettings {
    /// Settings that suit one process of the runtime: plugins are compiled by running this very
    /// program with the argument `compile-worker`, which must call
    /// [`compile_worker_main`](crate::compile_worker_main).
    ///
    /// # Errors
    /// Where the path of this program is not known.
    pub fn new(cache_dir: impl Into<PathBuf>) -> std::io::Result<Self> {
        // The link leads to this program even after a newer one has taken its place on disk.
        let program =
            if cfg!(target_os = "linux") { PathBuf::from("/proc/self/exe") } else { std::env::current_exe()? };
        Ok(Self {
            compile: CompileMode::Worker { program, arguments: vec!["compile-worker".into()] },
            ..Self::in_process(cache_dir)
        })
    }

    /// The same settings, but plugins are compiled in this process, without limits on time and
    /// memory: for plugins that are trusted.
    #[must_use]
    pub fn in_process(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            cache_dir: cache_dir.into(),
            cache_bytes_max: 4 << 30,
            compile: CompileMode::InProcess,
            compile_limits: CompileLimits::default(),
            scan_limits: ScanLimits::default(),
            instances_max: 2_048,
            tick: Duration::from_millis(1),
        }
    }
}

/// Where plugins are compiled.
#[derive(Debug, Clone)]
pub enum CompileMode {
    /// In a process of its own, which may take no more than [`CompileLimits`].
    Worker {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<OsString>,
    },
    /// In this process, without limits.
    InProcess,
}

/// What one compilation may take, on top of a share for every MiB of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Seconds of CPU time.
    pub cpu_seconds: u64,
    /// Further seconds of CPU time for every MiB of the plugin.
    pub cpu_seconds_per_mib: u64,
    /// Bytes of address space.
    pub memory_bytes: u64,
    /// Further bytes for every byte of the plugin.
    pub memory_bytes_per_byte: u64,
    /// Bytes of the compiled artifact.
    pub artifact_bytes_max: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            cpu_seconds: 10,
            cpu_seconds_per_mib: 4,
            memory_bytes: 1 << 30,
            memory_bytes_per_byte: 128,
            artifact_bytes_max: 1 << 30,
        }
    }
}

/// What a plugin's bytes may declare, checked before anything is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimits {
    /// Bytes of the plugin.
    pub plugin_bytes: u64,
    /// Local variables of all functions together: what compiling a function costs grows with them.
    pub locals: u64,
    /// Functions of all core modules together.
    pub functions: u64,
    /// Core modules and nested components.
    pub modules: u64,
    /// Core instances that the plugin's own sections make.
    pub core_instances: u64,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { plugin_bytes: 64 << 20, locals: 4_000_000, functions: 200_000, modules: 64, core_instances: 64 }
    }
}

/// What one instance may use. Memory and tables count in sum; the rest counts for each call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InstanceLimits {
    /// Bytes of all linear memories together. A ceiling, not a reservation: pages count against
    /// the machine once they are touched.
    pub memory_bytes: u64,
    /// Elements of all tables together.
    pub table_elements: u64,
    /// Resource handles.
    pub handles: usize,
    /// Bytes that the guest may hand to the host at once: the result of a call, or the arguments of
    /// one host call. What the host hands to the guest is bounded by the guest's memory.
    pub call_bytes: usize,
    /// Rows that a call may emit, an unchanged batch counting all of its rows.
    pub rows_out: u64,
    /// Calls of host functions that a call may make.
    pub host_calls: u32,
    /// Running time of `describe`, instantiation included.
    pub describe: Duration,
    /// Running time of `open`, instantiation included.
    pub open: Duration,
    /// Running time of `process`, `on-timers`, `on-watermark`, `fold`, `merge` and `finish`.
    pub process: Duration,
    /// Running time of `flush`.
    pub flush: Duration,
}

impl Default for InstanceLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            table_elements: 100_000,
            handles: 1_000,
            call_bytes: 32 << 20,
            rows_out: 1 << 18,
            host_calls: 100_000,
            describe: Duration::from_secs(1),
            open: Duration::from_secs(3),
            process: Duration::from_secs(1),
            flush: Duration::from_secs(5),
        }
    }
}
