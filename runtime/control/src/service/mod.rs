//! `wasmill serve`: jobs of many tenants in one process.
//!
//! The service keeps what is wanted (tenants, tokens, plugins, jobs) durable, makes it so, and
//! answers HTTP. How a job runs it leaves to a [`Host`], which knows plugins and connectors.
//!
//! ```text
//! request ─▶ api: who is it, may they ─▶ Tenant: change what is wanted (durable) ─▶ Slot: make it so
//!                                                                                     └▶ Host::run
//! ```
//!
//! # Invariants
//! - The tenant of a request comes from its token alone. What belongs to a tenant is reached through
//!   its [`Tenant`] only, so another tenant's names lead nowhere.
//! - What was answered with success is on disk: a service that is killed goes on with it.
//! - A change of what a tenant has is one step under one lock, budgets included: of two that would
//!   take the last of a budget one is refused.
//! - Secrets are kept as hashes, and are in no log line, error or address.

mod admission;
pub mod api;
mod blocking;
mod budget;
mod deploy;
#[cfg(test)]
#[path = "../../../../tests/support/fuzz.rs"]
mod fuzz_driver;
mod hibernation;
mod host;
mod jobs;
mod letters;
mod logs;
mod metrics;
mod patient;
mod plugins;
mod problem;
mod record;
mod registry;
mod room;
mod savepoints;
mod server;
mod signatures;
mod slot;
mod state;
mod tap;
mod tenant;
mod tokens;
mod topics;
mod usage;
mod watch;

pub use budget::Budget;
pub use hibernation::{Idleness, Look, Rest, TopicWait, decide_rest};
pub use host::{Asked, Change, Command, Host, JobEnd, JobOrder, PullError, Pulled, Ties, Wrong};
pub use logs::{JobLogs, LogLine, LogRing};
pub use plugins::{Inspected, blob};
pub use problem::Problem;
pub use record::{Desired, Egress};
pub use server::{Listen, ServeError, Tls, serve};
pub use slot::{Board, Live, Phase};
pub use state::{Opened as OpenedService, Service, Settings as ServiceSettings};
pub use tokens::{Scope, Secret};
