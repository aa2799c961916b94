use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmill_env::Background;
use wasmill_model::PluginDigest;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::cache::{Cache, Cached};
use crate::engine::{self, Ticker};
use crate::guest::Guest;
use crate::instance::Mold;
use crate::scan::{Form, Scan, scan};
use crate::world::{World, check_exports, check_imports};
use crate::{Grants, HostSettings, InstanceLimits, LoadedPlugin, PluginError, PluginInfo, capability, compile, text};

/// Compilations at a time.
const COMPILING_MAX: usize = 2;
/// Plugins that are kept at hand although nobody may use them just now.
const LOADED_MAX: usize = 256;
/// Configurations of a plugin of which is kept what it said about itself.
const DESCRIBED_MAX: usize = 64;

/// Loads plugins and owns what their instances share. One for each process.
pub struct WasmHost {
    engine: Engine,
    linker: Linker<Guest>,
    cache: Arc<Cache>,
    settings: HostSettings,
    /// Plugins that were loaded before under the same limits: all jobs that use one share it.
    loaded: quick_cache::sync::Cache<(PluginDigest, Arc<InstanceLimits>, Grants), LoadedPlugin>,
    /// A few compilations at a time, so that one that takes long holds up no other. Who waits looks into the
    /// cache again before it compiles.
    compiling: Semaphore,
    /// Hashes and scans plugins.
    background: Background,
    _ticker: Ticker,
}

impl WasmHost {
    /// A host with an empty pool.
    ///
    /// # Errors
    /// Where the pool's address space cannot be reserved or the cache directory cannot be used.
    pub fn new(settings: HostSettings) -> Result<Self, PluginError> {
        let engine = engine::pooling(&settings)?;
        let cache = Cache::open(&settings.cache_dir, settings.cache_bytes_max, engine::compatibility(&engine))?;
        let linker = capability::linker(&engine)
            .map_err(|error| PluginError::Engine { reason: format!("cannot define the host functions: {error:#}") })?;
        let ticker = Ticker::start(engine.weak(), settings.tick)?;
        let background = Background::start()
            .map_err(|error| PluginError::Engine { reason: format!("no thread to look at plugins: {error}") })?;
        let loaded = quick_cache::sync::Cache::new(LOADED_MAX);
        let (cache, compiling) = (Arc::new(cache), Semaphore::new(COMPILING_MAX));
        Ok(Self { engine, linker, cache, settings, loaded, compiling, background, _ticker: ticker })
    }

    /// Checks and compiles a plugin: a component, or a core module that names its world in a
    /// `component-type` section. What was compiled before comes from the cache.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the bytes are no plugin, ask for more than `limits` or `grants` allow, or cannot be
    /// compiled within [`HostSettings::compile_limits`].
    pub async fn load(
        &self,
        bytes: impl Into<Arc<[u8]>>,
        limits: InstanceLimits,
        grants: Grants,
    ) -> Result<LoadedPlugin, PluginError> {
        let bytes: Arc<[u8]> = bytes.into();
        let limits = Arc::new(limits);
        let digest = {
            let bytes = Arc::clone(&bytes);
            self.beside(move || Ok(PluginDigest(Sha256::digest(&bytes).into()))).await?
        };
        // Limits and grants are part of what was checked.
        let key = (digest, Arc::clone(&limits), grants);
        if let Some(loaded) = self.loaded.get(&key) {
            return Ok(loaded);
        }
        let loaded = self.load_anew(bytes, digest, limits, grants).await?;
        self.loaded.insert(key, loaded.clone());
        Ok(loaded)
    }

    /// What [`WasmHost::load`] gave for bytes of this digest, where it is at hand still.
    #[must_use]
    pub fn at_hand(&self, digest: PluginDigest, limits: &InstanceLimits, grants: Grants) -> Option<LoadedPlugin> {
        self.loaded.get(&(digest, Arc::new(limits.clone()), grants))
    }

    async fn load_anew(
        &self,
        bytes: Arc<[u8]>,
        digest: PluginDigest,
        limits: Arc<InstanceLimits>,
        grants: Grants,
    ) -> Result<LoadedPlugin, PluginError> {
        let scan_limits = self.settings.scan_limits;
        let (given, ceiling, cache) = (Arc::clone(&bytes), Arc::clone(&limits), Arc::clone(&self.cache));
        let looking = self.beside(move || {
            let scan = scan(&given, &scan_limits, &ceiling)?;
            if scan.form == Form::Component {
                check_imports(scan.imports.iter().map(String::as_str), grants)?;
                check_exports(&scan.exports)?;
            }
            Ok((scan, cache.find(digest)?))
        });
        let (scan, cached) = looking.await?;
        let component = match cached {
            Cached::Artifact(path) => self.native(digest, &path),
            Cached::Missing | Cached::Tampered(_) => None,
        };
        let component = match component {
            Some(component) => component,
            None => self.compile(digest, &scan, Arc::clone(&bytes), Arc::clone(&limits), grants).await?,
        };
        self.link(component, &scan, digest, bytes.len() as u64, limits, grants)
    }

    /// Runs `work` where it takes no processor from rows: what reads all of a plugin.
    async fn beside<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<R, PluginError> + Send + 'static,
    ) -> Result<R, PluginError> {
        self.background.run(work).await.unwrap_or_else(|failed| Err(ended_early(&failed)))
    }

    /// Compiles a plugin and keeps the result.
    async fn compile(
        &self,
        digest: PluginDigest,
        scan: &Scan,
        bytes: Arc<[u8]>,
        ceiling: Arc<InstanceLimits>,
        grants: Grants,
    ) -> Result<Component, PluginError> {
        let _place = self.compiling.acquire().await.map_err(|_| PluginError::Engine { reason: "it ends".into() })?;
        match self.cache.find(digest)? {
            Cached::Artifact(path) => {
                if let Some(component) = self.native(digest, &path) {
                    return Ok(component);
                }
            }
            Cached::Missing => {}
            Cached::Tampered(path) => {
                tracing::warn!(path = %path.display(), "a compiled plugin was changed on disk; compiling it anew");
            }
        }
        let component = match scan.form {
            Form::Component => bytes,
            Form::CoreModule => {
                let (mode, within) = (&self.settings.compile, &self.settings.compile_limits);
                let component = compile::componentize(mode, within, bytes).await?;
                let limits = self.settings.scan_limits;
                let checked = self.beside(move || {
                    // Whether the world of a core module is one of ours shows only now.
                    let made = crate::scan::scan(&component, &limits, &ceiling)?;
                    check_imports(made.imports.iter().map(String::as_str), grants)?;
                    check_exports(&made.exports)?;
                    Ok(component)
                });
                checked.await?
            }
        };
        let artifact =
            compile::compile(&self.engine, &self.settings.compile, &self.settings.compile_limits, component).await?;
        let cache = Arc::clone(&self.cache);
        let path = blocking(move || cache.keep(digest, &artifact)).await?;
        self.native(digest, &path).ok_or_else(|| PluginError::Compile {
            reason: "the compile worker made an artifact that this host cannot load: is it another version?".into(),
        })
    }

    /// The native code at `path`, which the cache vouches for; `None` where it does not load.
    #[expect(unsafe_code, reason = "runs native code from a file: the one place, after its MAC was checked")]
    fn native(&self, digest: PluginDigest, path: &Path) -> Option<Component> {
        // SAFETY: the cache has just checked that the file carries the MAC of this host's key over
        // its name and bytes, so it was written by a host after a compilation of its own; the
        // directory and key are readable by our user alone, and files there change by rename only.
        match unsafe { Component::deserialize_file(&self.engine, path) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(%digest, path = %path.display(), "a compiled plugin does not load: {error:#}");
                None
            }
        }
    }

    fn link(
        &self,
        component: Component,
        scan: &Scan,
        digest: PluginDigest,
        bytes: u64,
        limits: Arc<InstanceLimits>,
        grants: Grants,
    ) -> Result<LoadedPlugin, PluginError> {
        let kind = component.component_type();
        let imports: Vec<String> = kind.imports(&self.engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = kind.exports(&self.engine).map(|(name, _)| name.to_owned()).collect();
        check_imports(imports.iter().map(String::as_str), grants)?;
        check_exports(&exports)?;
        let image = component.image_range();
        let native_bytes = (image.end as usize - image.start as usize) as u64;
        let pre = self.linker.instantiate_pre(&component).map_err(|error| PluginError::World {
            export: "its imports".into(),
            reason: text::clean(format!("{error:#}"), 1 << 10),
        })?;
        let world = World::find(&pre)?;
        let info = PluginInfo {
            digest,
            bytes,
            native_bytes,
            imports,
            exports,
            languages: scan.languages.clone(),
            tools: scan.tools.clone(),
            componentized: scan.form == Form::CoreModule,
            aggregate: world.is_aggregate(),
            timed: world.is_timed(),
        };
        let mold = Mold { engine: self.engine.clone(), pre, world, limits };
        let described = Arc::new(quick_cache::sync::Cache::new(DESCRIBED_MAX));
        Ok(LoadedPlugin { mold: Arc::new(mold), info: Arc::new(info), described })
    }
}

impl fmt::Debug for WasmHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmHost").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Runs `work` where it holds up no task: what waits for a disk, or compiles.
pub(crate) async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, PluginError> + Send + 'static,
) -> Result<R, PluginError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|failed| Err(ended_early(&failed)))
}

fn ended_early(why: &dyn fmt::Display) -> PluginError {
    PluginError::Engine { reason: format!("loading a plugin ended early: {why}") }
}
