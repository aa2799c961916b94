use std::fmt;
use std::sync::Arc;

use wasmill_contract::{Aggregate, BoxFuture, OpenError, Operator, OperatorContext, OperatorError, OperatorFactory};
use wasmill_model::{Descriptor, PluginDigest};

use crate::instance::{self, Mold, WasmAggregate, WasmOperator};

/// Longer configurations are asked about each time: what is kept of a plugin stays small.
const CONFIG_BYTES_KEPT: usize = 4 << 10;

/// What is known of a plugin without running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginInfo {
    /// SHA-256 of the bytes that were given.
    pub digest: PluginDigest,
    /// Bytes that were given.
    pub bytes: u64,
    /// Bytes of native code and data it was compiled to.
    pub native_bytes: u64,
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
    /// Languages it says it was written in, with versions.
    pub languages: Vec<String>,
    /// Tools it says it was built with, with versions.
    pub tools: Vec<String>,
    /// Whether it came as a core module that the host made a component of.
    pub componentized: bool,
    /// Whether it is an aggregate for windows instead of an operator.
    pub aggregate: bool,
    /// Whether it has timers or hears of watermarks.
    pub timed: bool,
}

/// A plugin that was checked and compiled. Cheap to clone.
#[derive(Clone)]
pub struct LoadedPlugin {
    pub(crate) mold: Arc<Mold>,
    pub(crate) info: Arc<PluginInfo>,
    /// What it said about itself, by configuration: it says the same each time.
    pub(crate) described: Arc<quick_cache::sync::Cache<Vec<u8>, Arc<Descriptor>>>,
}

impl LoadedPlugin {
    /// What is known of it without running it.
    #[must_use]
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// What it says about itself without a configuration.
    ///
    /// # Errors
    /// Where `describe` fails, or what it returns breaks the contract.
    pub async fn describe(&self) -> Result<Descriptor, OperatorError> {
        instance::describe(&self.mold, &[]).await
    }

    /// The plugin with the configuration of one stage, as JSON, empty where there is none.
    ///
    /// # Errors
    /// As [`LoadedPlugin::describe`]: this is where a plugin refuses its configuration.
    pub async fn configure(&self, config_json: Vec<u8>) -> Result<Arc<dyn OperatorFactory>, OperatorError> {
        let descriptor = match self.described.get(&config_json) {
            Some(descriptor) => descriptor,
            None => {
                let descriptor = Arc::new(instance::describe(&self.mold, &config_json).await?);
                if config_json.len() <= CONFIG_BYTES_KEPT {
                    self.described.insert(config_json.clone(), Arc::clone(&descriptor));
                }
                descriptor
            }
        };
        let (mold, digest) = (Arc::clone(&self.mold), self.info.digest);
        Ok(Arc::new(Configured { mold, digest, config: config_json, descriptor }))
    }
}

impl fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedPlugin").field("info", &self.info).finish_non_exhaustive()
    }
}

struct Configured {
    mold: Arc<Mold>,
    digest: PluginDigest,
    config: Vec<u8>,
    descriptor: Arc<Descriptor>,
}

impl OperatorFactory for Configured {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn digest(&self) -> PluginDigest {
        self.digest
    }

    fn open(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>> {
        Box::pin(async move {
            let opened = WasmOperator::open(&self.mold, &self.config, Arc::clone(&self.descriptor), context).await?;
            Ok(Box::new(opened) as Box<dyn Operator>)
        })
    }

    fn open_aggregate(&self, context: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>> {
        Box::pin(async move {
            let opened = WasmAggregate::open(&self.mold, &self.config, Arc::clone(&self.descriptor), context).await?;
            Ok(Box::new(opened) as Box<dyn Aggregate>)
        })
    }
}
