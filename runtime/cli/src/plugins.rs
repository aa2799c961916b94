//! Plugins by name: from a job file or the command line to compiled code.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmill_env::Clock;
use wasmill_model::PluginDigest;
use wasmill_spec::{PluginRef, did_you_mean, listed};
use wasmill_wasm::{Grants, HostSettings, InstanceLimits, LoadedPlugin, WasmHost};

use crate::failure::Failure;
use crate::oci::Reference;
use crate::std_plugins;
use crate::terminal::Terminal;
use crate::{data_dir, failure};

/// Largest plugin file that is read at all; the host has a smaller limit and says so better.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Nobody needs to be told of a compilation that is over by now.
const PATIENCE: Duration = Duration::from_millis(300);

/// Why a plugin cannot be had.
#[derive(Debug)]
pub(crate) struct Unusable {
    /// What is wrong.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        let failure = Self::wrong(unusable.message);
        match unusable.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// Loads plugins. One for each run of the program.
pub(crate) struct Plugins {
    host: WasmHost,
    /// Of standard plugins that were loaded before.
    standard: Mutex<BTreeMap<String, PluginDigest>>,
    terminal: Terminal,
    clock: Arc<dyn Clock>,
}

impl Plugins {
    pub(crate) fn new(terminal: &Terminal, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        Self::with_settings(terminal, clock, |settings| settings)
    }

    /// For a process in which at most `instances_max` instances live at once.
    pub(crate) fn with_instances(
        terminal: &Terminal,
        clock: Arc<dyn Clock>,
        instances_max: u32,
    ) -> Result<Self, Failure> {
        Self::with_settings(terminal, clock, |settings| HostSettings { instances_max, ..settings })
    }

    fn with_settings(
        terminal: &Terminal,
        clock: Arc<dyn Clock>,
        change: impl FnOnce(HostSettings) -> HostSettings,
    ) -> Result<Self, Failure> {
        let directory = data_dir::cache_dir()?;
        let settings = HostSettings::new(&directory)
            .map_err(|error| Failure::failed(format!("cannot find the path of this program: {error}")))?;
        let host = WasmHost::new(change(settings)).map_err(|error| {
            let failure = Failure::of(error.kind(), &error);
            match error {
                wasmill_wasm::PluginError::Cache { .. } => {
                    failure.hint(format!("set {} to a directory that you may write", data_dir::CACHE_VARIABLE))
                }
                _ => failure,
            }
        })?;
        Ok(Self { host, standard: Mutex::default(), terminal: terminal.clone(), clock })
    }

    /// A plugin by its name in a job file; `path` is where a file stands, `store` where plugins are that
    /// are known by their digest.
    pub(crate) async fn load(
        &self,
        plugin: &PluginRef,
        path: &Path,
        store: Option<&Path>,
        limits: InstanceLimits,
    ) -> Result<LoadedPlugin, Unusable> {
        // Files may have been changed since; what is in the binary is what it was.
        let known = match plugin {
            PluginRef::Standard(name) => self.standard().get(name).copied(),
            PluginRef::Digest(_) | PluginRef::Path(_) => None,
        };
        if let Some(loaded) = known.and_then(|digest| self.host.at_hand(digest, &limits, Grants::ALL)) {
            return Ok(loaded);
        }
        let loaded = self.load_bytes(plugin, bytes_of(plugin, path, store)?, limits).await?;
        if let PluginRef::Standard(name) = plugin {
            self.standard().insert(name.clone(), loaded.info().digest);
        }
        Ok(loaded)
    }

    fn standard(&self) -> MutexGuard<'_, BTreeMap<String, PluginDigest>> {
        self.standard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plugin by its bytes; `plugin` is what it is called.
    pub(crate) async fn load_bytes(
        &self,
        plugin: &PluginRef,
        bytes: Arc<[u8]>,
        limits: InstanceLimits,
    ) -> Result<LoadedPlugin, Unusable> {
        let mut loading = std::pin::pin!(self.host.load(bytes, limits, Grants::ALL));
        let loaded = tokio::select! {
            loaded = &mut loading => loaded,
            () = self.clock.sleep(PATIENCE) => {
                if std::io::stderr().is_terminal() && !self.terminal.json {
                    self.terminal.say(&self.terminal.err.dim(&format!("compiling {plugin}, once")));
                }
                loading.await
            }
        };
        let loaded = loaded
            .map_err(|error| Unusable { message: format!("{plugin}: {}", failure::chain(&error)), hint: None })?;
        match plugin {
            PluginRef::Digest(digest) if *digest != loaded.info().digest => Err(Unusable {
                message: format!("{digest}: the file that is kept under this digest is {}", loaded.info().digest),
                hint: Some("it was changed on disk: push the plugin again".into()),
            }),
            _ => Ok(loaded),
        }
    }
}

/// The bytes of a plugin.
pub(crate) fn bytes_of(plugin: &PluginRef, path: &Path, store: Option<&Path>) -> Result<Arc<[u8]>, Unusable> {
    match plugin {
        PluginRef::Path(text) if Reference::is_meant(text) => Err(Unusable {
            message: format!("{text} is in a registry; a job of this machine has its plugins in files"),
            hint: Some(format!(
                "get it with `wasmill plugin pull {text} FILE`, and write FILE; or deploy to a service"
            )),
        }),
        PluginRef::Path(_) => file(path),
        PluginRef::Standard(name) => std_plugins::get(name).map(Arc::from).ok_or_else(|| {
            let known: Vec<&str> = std_plugins::names().collect();
            Unusable {
                message: format!("there is no standard plugin `{name}`"),
                hint: Some(match did_you_mean(name, known.iter().copied()) {
                    Some(meant) => format!("did you mean `std:{meant}`?"),
                    None if known.is_empty() => {
                        "this binary was built without standard plugins: run `cargo xtask plugins` and build it again"
                            .to_owned()
                    }
                    None => format!("the standard plugins are {}", listed(known)),
                }),
            }
        }),
        PluginRef::Digest(digest) => match store {
            Some(store) => {
                std::fs::read(wasmill_control::service::blob(store, digest)).map(Arc::from).map_err(|error| {
                    let message = match error.kind() {
                        std::io::ErrorKind::NotFound => format!("there is no plugin {digest}"),
                        _ => format!("cannot read plugin {digest}: {error}"),
                    };
                    Unusable { message, hint: Some("push it: wasmill plugin push FILE".into()) }
                })
            }
            None => Err(Unusable {
                message: format!(
                    "{digest}: plugins by digest need a store of plugins, which `wasmill run` does not have"
                ),
                hint: Some("name the file: plugin = \"./PLUGIN.wasm\"".into()),
            }),
        },
    }
}

fn file(path: &Path) -> Result<Arc<[u8]>, Unusable> {
    let wrong = |message: String, hint: &str| Unusable { message, hint: Some(hint.to_owned()) };
    let shown = path.display();
    let build = "build it with `wasmill build`, or correct the path: it is relative to the job file";
    let found = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(format!("there is no file {shown}"), build),
        _ => wrong(format!("cannot read {shown}: {error}"), "check its permissions"),
    })?;
    if found.is_dir() {
        return Err(wrong(format!("{shown} is a directory, not a plugin"), "name the .wasm file"));
    }
    if found.len() > FILE_BYTES_MAX {
        let message = format!("{shown} has {} bytes, a plugin at most {FILE_BYTES_MAX}", found.len());
        return Err(wrong(message, "is this the data instead of the plugin?"));
    }
    let bytes =
        std::fs::read(path).map_err(|error| wrong(format!("cannot read {shown}: {error}"), "check its permissions"))?;
    Ok(bytes.into())
}

/// The limits of an instance where the job file says nothing else.
pub(crate) fn limits(spec: &wasmill_spec::LimitsSpec) -> InstanceLimits {
    let mut limits = InstanceLimits::default();
    if let Some(memory) = spec.memory {
        limits.memory_bytes = memory.bytes();
    }
    if let Some(call) = spec.call {
        limits.process = Duration::from_micros(call.micros().max(0).unsigned_abs());
    }
    limits
}

/// A plugin as the command line names it: `std:NAME`, `sha256:HEX` or a file.
pub(crate) fn named(text: &str) -> PluginRef {
    if let Some(name) = text.strip_prefix("std:") {
        return PluginRef::Standard(name.to_owned());
    }
    match text.parse() {
        Ok(digest) => PluginRef::Digest(digest),
        Err(_) => PluginRef::Path(text.to_owned()),
    }
}
