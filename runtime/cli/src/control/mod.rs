//! What a supervised job does for others while it runs: one file a verb.

mod savepoint;
mod status;
mod swap;
mod why;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
pub(crate) struct Control {
    assembled: Arc<Assembled>,
    plugins: Arc<Plugins>,
    clock: Arc<RealClock>,
    /// The state directory.
    dir: PathBuf,
    /// Where plugins are that are known by their digest.
    store: Option<PathBuf>,
    /// Plugins of stages that run with another one than the job file names.
    swapped: Mutex<BTreeMap<NodeName, Arc<dyn OperatorFactory>>>,
    /// The attempt under way.
    current: Mutex<Option<Current>>,
    paused: AtomicBool,
    stopping: AtomicBool,
    drained: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Control {
    pub(crate) fn new(
        assembled: Arc<Assembled>,
        plugins: Arc<Plugins>,
        clock: Arc<RealClock>,
        dir: PathBuf,
        store: Option<PathBuf>,
    ) -> Self {
        let (paused, stopping) = (AtomicBool::new(false), AtomicBool::new(false));
        let (swapped, current, drained) = (Mutex::default(), Mutex::new(None), AtomicBool::new(false));
        Self { assembled, plugins, clock, dir, store, swapped, current, paused, stopping, drained }
    }

    /// As after a request to pause.
    pub(crate) fn begin_paused(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// The plugin that a stage runs with.
    fn factory(&self, stage: &NodeName) -> Option<Arc<dyn OperatorFactory>> {
        let swapped = locked(&self.swapped).get(stage).cloned();
        swapped.or_else(|| self.assembled.factory(stage).cloned())
    }

    fn set_factory(&self, stage: &NodeName, factory: Arc<dyn OperatorFactory>) {
        locked(&self.swapped).insert(stage.clone(), factory);
    }

    /// Loads the plugins that the last epoch was made with, by digest, in place of those that the job
    /// file names.
    pub(crate) async fn load_swapped(&self, digests: &BTreeMap<NodeName, String>) -> Result<(), Failure> {
        kept_plugins::retain(&self.dir, digests.values().map(String::as_str));
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
            let bytes = kept_plugins::read(&self.dir, digest).map_err(|error| lost(&error))?;
            let named = PluginRef::Path(digest.clone());
            let loaded = self.plugins.load_bytes(&named, bytes.into(), plugins::limits(&spec.limits)).await?;
            if loaded.info().digest.to_string() != *digest {
                return Err(lost(&format!("the file is another one, {}", loaded.info().digest)));
            }
            let factory = loaded.configure(assemble::config(spec)).await.map_err(|error| lost(&error))?;
            swapped.insert(stage.clone(), factory);
        }
        *locked(&self.swapped) = swapped;
        Ok(())
    }

    /// The parts of the job, with the plugins that were swapped in, and the digests of those that the
    /// job file names instead.
    pub(crate) fn swap_parts(&self, nodes: &mut [NodePart]) -> BTreeMap<NodeName, String> {
        let mut declared = BTreeMap::new();
        for (node, part) in self.assembled.planned.plan.nodes.iter().zip(nodes) {
            if let (NodePart::Stage(named), Some(factory)) = (&*part, locked(&self.swapped).get(&node.name)) {
                declared.insert(node.name.clone(), named.digest().to_string());
                *part = NodePart::Stage(Arc::clone(factory));
            }
        }
        declared
    }

    /// Answers whoever asks, once somebody listens.
    pub(crate) async fn serve(&self, listener: oneshot::Receiver<Listener>) -> Infallible {
        match listener.await {
            Ok(listener) => listener.serve(&*self.clock, async |request| self.answer(request).await).await,
            // Nobody can ask.
            Err(_) => std::future::pending().await,
        }
    }

    /// An attempt begins.
    pub(crate) async fn begin(&self, current: Current) {
        if self.paused.load(Ordering::Relaxed) {
            current.remote.pause(true).await;
        }
        *locked(&self.current) = Some(current);
    }

    /// The attempt is over.
    pub(crate) fn end(&self) {
        *locked(&self.current) = None;
    }

    /// Whether somebody has asked for the end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether somebody has asked for the end of the input.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    /// The attempt under way.
    pub(crate) fn current(&self) -> Result<Current, Refusal> {
        let current = locked(&self.current).clone();
        current
            .ok_or_else(|| Refusal::new("the job does not run just now: it starts, ends, or waits for room on a disk"))
    }

    /// Does what is asked of the job.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        let current = self.current()?;
        match request {
            Request::Status => Ok(status::status(self, &current)),
            Request::Why { node } => why::why(self, &current, node.as_ref()).await,
            Request::Savepoint { file } => savepoint::savepoint(self, &current, file).await,
            Request::Pause => self.pause(&current, true).await,
            Request::Resume => self.pause(&current, false).await,
            Request::Swap { stage, plugin } => swap::swap(self, &current, stage, plugin).await,
            Request::Drain => {
                self.drained.store(true, Ordering::Relaxed);
                current.remote.drain().await;
                Ok(json!({"job": self.assembled.spec.name, "state": "draining"}))
            }
            Request::Stop => {
                self.stopping.store(true, Ordering::Relaxed);
                current.remote.stop();
                Ok(json!({"job": self.assembled.spec.name, "state": "stopping"}))
            }
        }
    }

    async fn pause(&self, current: &Current, paused: bool) -> Answer {
        self.paused.store(paused, Ordering::Relaxed);
        current.remote.pause(paused).await;
        Ok(json!({"job": self.assembled.spec.name, "state": self.state()}))
    }

    fn state(&self) -> &'static str {
        match (self.is_stopping(), self.paused.load(Ordering::Relaxed)) {
            _ if self.is_drained() => "draining",
            (true, _) => "stopping",
            (false, true) => "paused",
            (false, false) => "running",
        }
    }
}
