//! Compilation, and before it what makes a component of a core module: in a worker process with limits of
//! its own and a low priority, since a few KiB of WebAssembly can keep either busy for minutes.
//!
//! ```text
//! parent ── CPU seconds, address space bytes, task (u64 LE each), plugin ──▶ stdin
//! parent ◀── stdout ── artifact, or component      exit code 0
//! parent ◀── stderr ── why not                     exit code 1
//! ```

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wasmtime::Engine;

use crate::{CompileLimits, CompileMode, PluginError, engine, text};

const COMPLAINT_BYTES_MAX: u64 = 8 << 10;
/// Wall time of a worker, this many times its CPU time: only a worker that hangs meets it, not one
/// that shares a busy machine.
const WALL_PER_CPU: u32 = 10;
/// And never less than this, as it waits behind everything else that wants the machine.
const WALL_MIN: Duration = Duration::from_secs(60);

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// An artifact of a component.
    Compile,
    /// A component of a core module that names its world.
    Componentize,
}

/// Compiles a component to an artifact for `engine`.
pub(crate) async fn compile(
    engine: &Engine,
    mode: &CompileMode,
    limits: &CompileLimits,
    component: Arc<[u8]>,
) -> Result<Vec<u8>, PluginError> {
    match mode {
        CompileMode::Worker { program, arguments } => {
            let worker = Worker::for_plugin(limits, component.len() as u64);
            worker.run(program, arguments, Task::Compile, &component).await
        }
        CompileMode::InProcess => {
            let engine = engine.clone();
            crate::host::blocking(move || precompile(&engine, &component)).await
        }
    }
}

/// Makes a component of a core module that names its world. No adapter: a module that wants WASI is refused.
pub(crate) async fn componentize(
    mode: &CompileMode,
    limits: &CompileLimits,
    module: Arc<[u8]>,
) -> Result<Arc<[u8]>, PluginError> {
    match mode {
        CompileMode::Worker { program, arguments } => {
            let worker = Worker::for_plugin(limits, module.len() as u64);
            let made = worker.run(program, arguments, Task::Componentize, &module).await?;
            if !made.starts_with(b"\0asm") {
                return Err(PluginError::Componentize { reason: "the worker made no component".into() });
            }
            Ok(made.into())
        }
        CompileMode::InProcess => {
            let made = crate::host::blocking(move || {
                encode(&module).map_err(|reason| PluginError::Componentize { reason: text::clean(reason, 1 << 10) })
            });
            Ok(made.await?.into())
        }
    }
}

fn encode(module: &[u8]) -> Result<Vec<u8>, String> {
    let encode = || {
        let mut encoder = wit_component::ComponentEncoder::default().validate(true).module(module)?;
        encoder.encode()
    };
    // The encoder is written for the author's own tools: a hostile module may make it panic.
    match catch_unwind(AssertUnwindSafe(encode)) {
        Ok(encoded) => encoded.map_err(|error| format!("{error:#}")),
        Err(_) => Err("the encoder panicked".into()),
    }
}

fn precompile(engine: &Engine, component: &[u8]) -> Result<Vec<u8>, PluginError> {
    engine
        .precompile_component(component)
        .map_err(|error| PluginError::Compile { reason: text::clean(format!("{error:#}"), 2 << 10) })
}

struct Worker {
    cpu_seconds: u64,
    memory_bytes: u64,
    artifact_bytes_max: u64,
}

impl Worker {
    fn for_plugin(limits: &CompileLimits, bytes: u64) -> Self {
        let more = limits.cpu_seconds_per_mib.saturating_mul(bytes) >> 20;
        Self {
            cpu_seconds: limits.cpu_seconds.saturating_add(more),
            memory_bytes: limits.memory_bytes.saturating_add(limits.memory_bytes_per_byte.saturating_mul(bytes)),
            artifact_bytes_max: limits.artifact_bytes_max,
        }
    }

    async fn run(
        &self,
        program: &Path,
        arguments: &[std::ffi::OsString],
        task: Task,
        plugin: &[u8],
    ) -> Result<Vec<u8>, PluginError> {
        let failed = |source| PluginError::Worker { program: program.to_owned(), source };
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed(std::io::Error::other("no pipes")));
        };
        let (mut artifact, mut complaint) = (Vec::new(), Vec::new());
        let send = async {
            let header = [self.cpu_seconds, self.memory_bytes, task as u64].map(u64::to_le_bytes);
            // A worker that dies early says why by its status, not by a broken pipe.
            let sent = async {
                stdin.write_all(header.as_flattened()).await?;
                stdin.write_all(plugin).await?;
                stdin.shutdown().await
            };
            drop(sent.await);
            drop(stdin);
        };
        let mut stdout = stdout.take(self.artifact_bytes_max + 1);
        let mut stderr = stderr.take(COMPLAINT_BYTES_MAX);
        let (receive, listen) = (stdout.read_to_end(&mut artifact), stderr.read_to_end(&mut complaint));
        let work = async {
            let ((), received, listened) = tokio::join!(send, receive, listen);
            received.and(listened)?;
            child.wait().await
        };
        let wall = Duration::from_secs(self.cpu_seconds).saturating_mul(WALL_PER_CPU).max(WALL_MIN);
        let Ok(status) = tokio::time::timeout(wall, work).await else {
            child.kill().await.map_err(failed)?;
            return Err(PluginError::CompileLimit { limit: format!("{} s of wall time", wall.as_secs()) });
        };
        let status = status.map_err(failed)?;
        if artifact.len() as u64 > self.artifact_bytes_max {
            return Err(PluginError::CompileLimit { limit: format!("{} bytes of artifact", self.artifact_bytes_max) });
        }
        if status.success() { Ok(artifact) } else { Err(self.explain(status, task, &complaint)) }
    }

    fn explain(&self, status: ExitStatus, task: Task, complaint: &[u8]) -> PluginError {
        let said = String::from_utf8_lossy(complaint);
        let signal = status.signal().and_then(rustix::process::Signal::from_named_raw);
        if signal == Some(rustix::process::Signal::XCPU) || signal == Some(rustix::process::Signal::KILL) {
            return PluginError::CompileLimit { limit: format!("{} s of CPU time", self.cpu_seconds) };
        }
        if said.contains("memory allocation of") || said.contains("out of memory") {
            return PluginError::CompileLimit { limit: format!("{} bytes of memory", self.memory_bytes) };
        }
        let said = text::clean(said.trim().to_owned(), 2 << 10);
        let reason = if said.is_empty() { format!("the worker ended with {status}") } else { said };
        match task {
            Task::Compile => PluginError::Compile { reason },
            Task::Componentize => PluginError::Componentize { reason },
        }
    }
}

/// The body of a compile worker: reads its limits, its task and a plugin from standard input, writes the
/// artifact or component to standard output.
///
/// The program named by [`CompileMode::Worker`] calls this before anything else.
#[must_use]
pub fn compile_worker_main() -> ExitCode {
    match work() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Standard error is all a worker has; where it is closed, nobody listens.
            drop(writeln!(std::io::stderr(), "{reason}"));
            ExitCode::FAILURE
        }
    }
}

/// Address space that this process has taken so far, 0 where the system does not say.
fn mapped_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1 << 10)
}

fn work() -> Result<(), String> {
    let mut stdin = std::io::stdin().lock();
    let mut word = [0; 8];
    let mut limit = |what: &str| {
        stdin.read_exact(&mut word).map_err(|error| format!("no {what} on standard input: {error}"))?;
        Ok::<u64, String>(u64::from_le_bytes(word))
    };
    let (cpu_seconds, memory_bytes, task) = (limit("CPU limit")?, limit("memory limit")?, limit("task")?);
    // The allocator of the program may have reserved address space before it had anything to do.
    let memory_bytes = memory_bytes.saturating_add(mapped_bytes());
    let ceiling = |most| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, most) in [(Resource::Cpu, cpu_seconds), (Resource::As, memory_bytes), (Resource::Core, 0)] {
        setrlimit(resource, ceiling(most)).map_err(|error| format!("cannot limit {resource:?} to {most}: {error}"))?;
    }
    // Jobs come first. Where that cannot be had, it is done at their side.
    let _beside = rustix::process::nice(10).is_err();
    let mut plugin = Vec::new();
    stdin.read_to_end(&mut plugin).map_err(|error| format!("no plugin on standard input: {error}"))?;
    let made = if task == Task::Componentize as u64 {
        encode(&plugin)?
    } else {
        let engine = engine::compiling().map_err(|error| error.to_string())?;
        engine.precompile_component(&plugin).map_err(|error| format!("{error:#}"))?
    };
    std::io::stdout().lock().write_all(&made).map_err(|error| format!("cannot hand over what was made: {error}"))
}
