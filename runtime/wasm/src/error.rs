use std::path::PathBuf;

use wasmill_model::ErrorKind;

/// Why bytes are not a plugin that this host runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The bytes are something else.
    #[error("not a WebAssembly plugin but {found}; build it with `wasmill build`")]
    NotWasm {
        /// What the bytes look like.
        found: &'static str,
    },
    /// The bytes begin as WebAssembly does, but do not go on so.
    #[error("broken WebAssembly at byte {offset}: {reason}")]
    Malformed {
        /// Where reading stopped.
        offset: u64,
        /// What was wrong there.
        reason: String,
    },
    /// The plugin declares more than it may.
    #[error("the plugin has {found} {what}, {limit} are allowed")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much the plugin has.
        found: u64,
        /// How much it may have.
        limit: u64,
    },
    /// The plugin uses a part of WebAssembly that is off.
    #[error("the plugin uses {what}, which is off: an operator is a deterministic function of its input")]
    Feature {
        /// The part.
        what: &'static str,
    },
    /// A core module that does not say which world it implements.
    #[error(
        "a core module without a `component-type` section: it does not say which world of `wasmill:operator` \
         it implements; build it with an SDK, or embed the world with `wasm-tools component embed`"
    )]
    CoreModule,
    /// A core module that does not fit the world it claims.
    #[error("the core module is no component: {reason}")]
    Componentize {
        /// What does not fit.
        reason: String,
    },
    /// The plugin imports what no one grants.
    #[error("the plugin imports `{import}`, which is not granted; it may import {granted}")]
    Import {
        /// The interface.
        import: String,
        /// What it may import.
        granted: String,
    },
    /// The plugin lacks an export.
    #[error("the plugin does not export `{missing}`; it exports {exports}")]
    Export {
        /// The interface that is missing.
        missing: &'static str,
        /// What there is.
        exports: String,
    },
    /// The plugin is of another version of the interface.
    #[error("the plugin speaks `{interface}`, this host speaks version 0.1.0; build it with the SDK of that version")]
    Version {
        /// An interface that this host does not know.
        interface: String,
    },
    /// The plugin exports what does not fit together, or has another type than the contract says.
    #[error("the plugin exports `{export}`: {reason}")]
    World {
        /// The interface or function.
        export: String,
        /// Why it cannot be.
        reason: String,
    },
    /// The compiler refused the plugin.
    #[error("cannot compile the plugin: {reason}")]
    Compile {
        /// What the compiler says.
        reason: String,
    },
    /// Compiling took more than it may.
    #[error("compiling the plugin went over {limit}; split large functions, or build it with optimisation")]
    CompileLimit {
        /// Which limit, and what it is set to.
        limit: String,
    },
    /// The worker that compiles could not be run.
    #[error("cannot run the compile worker {program}")]
    Worker {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The directory of compiled plugins cannot be used.
    #[error("cannot use the cache of compiled plugins at {path}: {reason}")]
    Cache {
        /// The directory or file.
        path: PathBuf,
        /// What failed.
        reason: String,
    },
    /// The host itself cannot be set up.
    #[error("cannot set up the WebAssembly engine: {reason}")]
    Engine {
        /// What failed.
        reason: String,
    },
}

impl PluginError {
    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotWasm { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Feature { .. }
            | Self::CoreModule
            | Self::Componentize { .. }
            | Self::Export { .. }
            | Self::Version { .. }
            | Self::World { .. }
            | Self::Compile { .. }
            | Self::CompileLimit { .. } => ErrorKind::Plugin,
            Self::Import { .. } | Self::Cache { .. } => ErrorKind::Config,
            Self::Worker { .. } => ErrorKind::Unavailable,
            Self::Engine { .. } => ErrorKind::Internal,
        }
    }
}
