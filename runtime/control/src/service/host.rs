//! The seam to whoever knows plugins and connectors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use wasmill_contract::BoxFuture;
use wasmill_model::{JobName, PluginDigest, TenantName};
use wasmill_store::Topics;
use wasmill_tenancy::Account;

use super::hibernation::Rest;
use super::plugins::Inspected;
use super::record::Egress;
use super::slot::Board;
use crate::local::{Answer, Request};

/// A job that is to run, with everything that it may reach.
#[derive(Debug, Clone)]
pub struct JobOrder {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its name.
    pub job: JobName,
    /// The job file.
    pub text: Arc<str>,
    /// Digests of plugins that the job file names otherwise.
    pub pins: BTreeMap<String, PluginDigest>,
    /// Where paths of the job file start from. Nothing above is reached.
    pub files: PathBuf,
    /// Where it keeps its state.
    pub state: PathBuf,
    /// Where its rejected rows are written for people.
    pub dead_letters: PathBuf,
    /// Topics of the tenant.
    pub topics: Topics,
    /// Where plugins of the tenant are, see [`super::blob`].
    pub plugins: PathBuf,
    /// Where it may connect to.
    pub egress: Egress,
    /// Whether sources read nothing at first.
    pub paused: bool,
    /// What it uses while it runs counts against this.
    pub account: Arc<Account>,
    /// Plugins that stages were swapped to, and that nobody vouches for any more: the job does not go on
    /// with them.
    pub untrusted: BTreeSet<String>,
    /// After so long without a row it rests, where nothing speaks against that; `None`: never.
    pub hibernate_after: Option<Duration>,
    /// Whether it may forget what its state holds for nodes that it has no more.
    pub allow_dropped: bool,
}

/// Another job file for a job that runs.
#[derive(Debug)]
pub struct Change {
    /// The job as it is to be.
    pub order: JobOrder,
    /// Which deployment that is: the first epoch of another graph says it.
    pub revision: u64,
    /// Only say what it changes, and how.
    pub only_plan: bool,
}

/// What a job is asked for.
#[derive(Debug)]
pub enum Asked {
    /// What any job can be asked for.
    Request(Request),
    /// To go on with another job file, where it need not end for it. The answer is an
    /// [`ApplyPlan`](crate::apply::ApplyPlan); nothing was done where its `how` is `restart`.
    Change(Box<Change>),
}

/// A request to a job, and who waits for the answer.
#[derive(Debug)]
pub struct Command {
    /// What is asked.
    pub asked: Asked,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// How a running job is reached.
#[derive(Debug)]
pub struct Ties {
    /// Requests to it.
    pub commands: mpsc::Receiver<Command>,
    /// Asks it to end: first at an epoch, then at once.
    pub stops: mpsc::Receiver<()>,
    /// Where it says how it is.
    pub board: Arc<Board>,
}

/// What is wrong with a job or a plugin.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// In words.
    pub message: String,
    /// What to do, one line each.
    pub hints: Vec<String>,
    /// What is wrong with the job file, each with line, column and hint.
    pub diagnostics: Vec<Value>,
}

/// A plugin that came from a registry.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The reference that names it for good, without a tag: `oci://HOST/REPOSITORY@sha256:HEX`.
    pub reference: String,
    /// The plugin.
    pub bytes: Vec<u8>,
}

/// Why a plugin did not come from a registry.
#[derive(Debug, Clone)]
pub struct PullError {
    /// What is wrong.
    pub wrong: Wrong,
    /// Whether it may go well another time.
    pub passing: bool,
}

/// How a run of a job ended.
#[derive(Debug, Clone)]
pub enum JobEnd {
    /// It has nothing left to do.
    Finished,
    /// Somebody asked for it.
    Stopped,
    /// It has nothing to do until one of these happens.
    Rests(Rest),
    /// It failed.
    Failed {
        /// Why.
        wrong: Wrong,
        /// Whether it may go well another time.
        retry: bool,
    },
}

/// Runs jobs, and looks at plugins.
pub trait Host: Send + Sync + 'static {
    /// Checks and compiles a plugin within limits, and says what it is.
    fn inspect(&self, bytes: Arc<[u8]>) -> BoxFuture<'_, Result<Inspected, Wrong>>;

    /// Fetches a plugin of at most so many bytes from a registry.
    fn pull<'a>(
        &'a self,
        reference: &'a str,
        egress: &'a Egress,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<Pulled, PullError>>;

    /// Finds everything that is wrong with a job, and returns warnings and what it guarantees.
    fn check<'a>(&'a self, order: &'a JobOrder) -> BoxFuture<'a, Result<Value, Wrong>>;

    /// Runs a job to its end, from what its state directory holds.
    fn run<'a>(&'a self, order: &'a JobOrder, ties: &'a mut Ties) -> BoxFuture<'a, JobEnd>;

    /// The job file with another parallelism of a node.
    ///
    /// # Errors
    /// Where there is no such node.
    fn rescaled(&self, text: &str, node: &str, parallelism: u16) -> Result<String, Wrong>;
}
