//! The WebAssembly host: makes the contract's operators and aggregates out of components of
//! `wasmill:operator`, and holds them within limits.
//!
//! It sits beside `engine` and `connectors` in the fourth layer and knows neither; only this crate
//! and the command line know wasmtime. The engine calls [`wasmill_contract::Operator`] and never
//! sees where it comes from. Where plugins come from (files, registries, the standard set) and
//! what to do about a failed call are left to others.
//!
//! # Path of a plugin
//! bytes ─▶ scan ─▶ (componentize) ─▶ compile in a worker ─▶ cache ─▶ link ─▶ [`LoadedPlugin`]
//! ─▶ [`LoadedPlugin::configure`] ─▶ [`wasmill_contract::OperatorFactory`] ─▶ instances
//!
//! # Invariants
//! - One store for each instance: a trap ends that instance and nothing else.
//! - Every call has a deadline in running time, bounds on memory, host calls and bytes, and gives
//!   the scheduler a turn at every tick.
//! - What a guest returns is held against the contract before anyone sees it.
//! - Native code is run only from files that carry a MAC of this host's own key.
//! - A host function never blocks and never calls the guest.

mod abi;
mod cache;
mod capability;
mod compile;
mod engine;
mod error;
mod grants;
mod guest;
mod host;
mod instance;
mod outcome;
mod plugin;
mod scan;
mod settings;
mod text;
mod world;

pub use compile::compile_worker_main;
pub use error::PluginError;
pub use grants::{Capability, Grants};
pub use host::WasmHost;
pub use plugin::{LoadedPlugin, PluginInfo};
pub use settings::{CompileLimits, CompileMode, HostSettings, InstanceLimits, ScanLimits};
