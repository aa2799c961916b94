//! Talking to a job that runs in another process of this machine.
//!
//! A job with a state directory listens on a Unix socket there, `control.sock`. Whoever may open the
//! directory and has the user of the process (or is root) may ask. A connection carries one request
//! and one answer, each one line of JSON:
//!
//! ```text
//! {"verb":"status"}                     {"ok":{"job":"orders","epoch":41,…}}
//! {"verb":"savepoint","file":"/a/b"}    {"error":{"message":"…","hints":["…"]}}
//! ```
//!
//! What a request means is told by [`Request`] alone, so that another front (an HTTP API, say) can
//! hand the same requests to the same handler.

mod socket;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmill_model::NodeName;

use crate::beside::BesideAsked;

pub use socket::{AskError, Listener, ask};

/// What a running job can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is doing.
    Status,
    /// Write what it has committed to one file, whose folder exists.
    Savepoint {
        /// The file; without one, `savepoints/epoch-N.savepoint` in the state directory.
        file: Option<PathBuf>,
    },
    /// Why its windows are open, its partitions lag, its rows were late.
    Why {
        /// This node alone.
        node: Option<NodeName>,
    },
    /// Read nothing more, but go on with what was read, until it is resumed.
    Pause,
    /// Read on.
    Resume,
    /// End at an epoch.
    Stop,
    /// End as though sources had nothing left to give: every window and timer fires.
    Drain,
    /// Go on with another plugin in a stage.
    Swap {
        /// The stage.
        stage: NodeName,
        /// The plugin: `std:NAME`, or the path of a file.
        plugin: String,
        /// Beside that of the stage, at first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beside: Option<BesideAsked>,
    },
    /// Have the plugin that runs beside that of a stage take over.
    Promote {
        /// The stage.
        stage: NodeName,
    },
    /// End what runs beside the plugin of a stage; where nothing does, go back to the plugin before.
    Rollback {
        /// The stage.
        stage: NodeName,
    },
    /// Go on with another job file.
    Apply {
        /// The file.
        file: PathBuf,
        /// Values in place of some of it, `KEY=VALUE`.
        set: Vec<String>,
        /// Forget what nodes hold that are gone.
        allow_dropped: bool,
        /// Only say what it changes.
        only_plan: bool,
    },
    /// What the plugin beside that of a stage does, with every difference that is kept.
    Beside {
        /// The stage.
        stage: NodeName,
    },
}

/// Why a job did not do what it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What went wrong.
    pub message: String,
    /// What to do, one line each.
    #[serde(default)]
    pub hints: Vec<String>,
    /// Whether it can be had by starting the job again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_restart: bool,
    /// Whether it may have been done nevertheless: the last epoch that is durable tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undecided: bool,
}

impl Refusal {
    /// A refusal without hints.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new(), by_restart: false, undecided: false }
    }

    /// The same with something to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// What a job says to a request. Keys of the value are those that the command prints with `--json`.
pub type Answer = Result<Value, Refusal>;

/// An answer on its way.
#[derive(Debug, Serialize, Deserialize)]
enum Wire {
    #[serde(rename = "ok")]
    Done(Value),
    #[serde(rename = "error")]
    Refused(Refusal),
}
