//! What `wasmill run` does for others while the job runs: one file a verb.

mod savepoint;
mod status;
mod swap;
mod why;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::oneshot;
use wasmill_contract::OperatorFactory;
use wasmill_control::local::{Answer, Listener, Refusal, Request};
use wasmill_control::{Savepoint, Savepoints};
use wasmill_engine::{JobRemote, NodePart};
use wasmill_env::{Clock, RealClock};
use wasmill_model::{Epoch, NodeName};
use wasmill_spec::PluginRef;

use crate::assemble::{self, Assembled};
use crate::failure::Failure;
use crate::kept_plugins;
use crate::plugins::{self, Plugins};

/// Answers requests to a job, over every attempt at running it.
pub(crate) struct Control<'a> {
    assembled: &'a Assembled,
    plugins: &'a Plugins<'a>,
    clock: &'a RealClock,
    /// The state directory.
    dir: &'a Path,
    /// Plugins of stages that run with another one than the job file names.
    swapped: RefCell<BTreeMap<NodeName, Arc<dyn OperatorFactory>>>,
    /// The attempt under way.
    current: RefCell<Option<Current>>,
    paused: Cell<bool>,
    stopping: Cell<bool>,
}

/// One attempt at running the job.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) remote: JobRemote,
    pub(crate) savepoints: Savepoints,
    /// The epoch that it went on from.
    pub(crate) resumed_at: Epoch,
    /// When it began, in monotonic nanoseconds.
    pub(crate) began: u64,
}

impl<'a> Control<'a> {
    pub(crate) fn new(assembled: &'a Assembled, plugins: &'a Plugins<'a>, clock: &'a RealClock, dir: &'a Path) -> Self {
        let (paused, stopping) = (Cell::new(false), Cell::new(false));
        let (swapped, current) = (RefCell::default(), RefCell::new(None));
        Self { assembled, plugins, clock, dir, swapped, current, paused, stopping }
    }

    /// The plugin that a stage runs with.
    fn factory(&self, stage: &NodeName) -> Option<Arc<dyn OperatorFactory>> {
        let swapped = self.swapped.borrow().get(stage).cloned();
        swapped.or_else(|| self.assembled.factory(stage).cloned())
    }

    fn set_factory(&self, stage: &NodeName, factory: Arc<dyn OperatorFactory>) {
        self.swapped.borrow_mut().insert(stage.clone(), factory);
    }

    /// Loads the plugins that the last epoch was made with, by digest, in place of those that the job
    /// file names.
    pub(crate) async fn load_swapped(&self, digests: &BTreeMap<NodeName, String>) -> Result<(), Failure> {
        kept_plugins::retain(self.dir, digests.values().map(String::as_str));
        let mut swapped = BTreeMap::new();
        for (stage, digest) in digests {
            let Some(spec) = self.assembled.spec.stages.get(stage) else { continue };
            let lost = |why: &dyn std::fmt::Display| {
                let what = format!(
                    "stage {stage:?} goes on with the plugin {digest}, to which it was swapped",
                    stage = stage.as_str()
                );
                Failure::failed(format!(
                    "{what}, and it cannot be had from {}: {why}",
                    self.dir.join("plugins").display()
                ))
                .hint("name the file of that plugin in the job file")
            };
            let bytes = kept_plugins::read(self.dir, digest).map_err(|error| lost(&error))?;
            let named = PluginRef::Path(digest.clone());
            let loaded = self.plugins.load_bytes(&named, bytes.into(), plugins::limits(&spec.limits)).await?;
            if loaded.info().digest.to_string() != *digest {
                return Err(lost(&format!("the file is another one, {}", loaded.info().digest)));
            }
            let factory = loaded.configure(assemble::config(spec)).await.map_err(|error| lost(&error))?;
            swapped.insert(stage.clone(), factory);
        }
        *self.swapped.borrow_mut() = swapped;
        Ok(())
    }

    /// The parts of the job, with the plugins that were swapped in, and the digests of those that the
    /// job file names instead.
    pub(crate) fn swap_parts(&self, nodes: &mut [NodePart]) -> BTreeMap<NodeName, String> {
        let mut declared = BTreeMap::new();
        for (node, part) in self.assembled.planned.plan.nodes.iter().zip(nodes) {
            if let (NodePart::Stage(named), Some(factory)) = (&*part, self.swapped.borrow().get(&node.name)) {
                declared.insert(node.name.clone(), named.digest().to_string());
                *part = NodePart::Stage(Arc::clone(factory));
            }
        }
        declared
    }

    /// Answers whoever asks, once somebody listens.
    pub(crate) async fn serve(&self, listener: oneshot::Receiver<Listener>) -> Infallible {
        match listener.await {
            Ok(listener) => listener.serve(self.clock, async |request| self.answer(request).await).await,
            // Nobody can ask.
            Err(_) => std::future::pending().await,
        }
    }

    /// An attempt begins.
    pub(crate) async fn begin(&self, current: Current) {
        if self.paused.get() {
            current.remote.pause(true).await;
        }
        *self.current.borrow_mut() = Some(current);
    }

    /// The attempt is over.
    pub(crate) fn end(&self) {
        *self.current.borrow_mut() = None;
    }

    /// Whether somebody has asked for the end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    fn current(&self) -> Result<Current, Refusal> {
        let current = self.current.borrow().clone();
        current
            .ok_or_else(|| Refusal::new("the job does not run just now: it starts, ends, or waits for room on a disk"))
    }

    async fn answer(&self, request: Request) -> Answer {
        let current = self.current()?;
        match request {
            Request::Status => Ok(status::status(self, &current)),
            Request::Why { node } => why::why(self, &current, node.as_ref()).await,
            Request::Savepoint { file } => savepoint::savepoint(self, &current, file).await,
            Request::Pause => self.pause(&current, true).await,
            Request::Resume => self.pause(&current, false).await,
            Request::Swap { stage, plugin } => swap::swap(self, &current, stage, plugin).await,
            Request::Stop => {
                self.stopping.set(true);
                current.remote.stop();
                Ok(json!({"job": self.assembled.spec.name, "state": "stopping"}))
            }
        }
    }

    async fn pause(&self, current: &Current, paused: bool) -> Answer {
        self.paused.set(paused);
        current.remote.pause(paused).await;
        Ok(json!({"job": self.assembled.spec.name, "state": self.state()}))
    }

    fn state(&self) -> &'static str {
        match (self.stopping.get(), self.paused.get()) {
            (true, _) => "stopping",
            (false, true) => "paused",
            (false, false) => "running",
        }
    }
}
