//! What a supervised job does for others while it runs: one file a verb.

mod apply;
mod beside;
mod savepoint;
mod status;
mod swap;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::sync::oneshot;
use wasmill_contract::OperatorFactory;
use wasmill_control::local::{Answer, Listener, Refusal, Request};
use wasmill_control::{Graphs, Savepoint, Savepoints};
use wasmill_engine::{JobRemote, NodePart};
use wasmill_env::{Clock, RealClock};
use wasmill_model::{Epoch, NodeName};
use wasmill_spec::PluginRef;
use wasmill_store::Topics;

pub(crate) use self::apply::{Applied, Replacement, Wish};
use crate::assemble::{self, Assembled};
use crate::failure::Failure;
use crate::kept_plugins;
use crate::plugins::{self, Plugins};

/// Answers requests to a job, over every attempt at running it.
pub(crate) struct Control {
    assembled: Arc<Mutex<Arc<Assembled>>>,
    plugins: Arc<Plugins>,
    clock: Arc<RealClock>,
    /// The state directory.
    dir: PathBuf,
    /// Where plugins are that are known by their digest.
    store: Option<PathBuf>,
    /// The topics there are, where the job may be given another file.
    topics: Option<Topics>,
    /// The last job file that was applied.
    applied: Applied,
    /// The job that is to take the place of this one.
    replacement: Mutex<Option<Replacement>>,
    /// The file that was applied last may forget what the job has no more.
    allows_dropped: AtomicBool,
    /// Plugins that no stage may go on with.
    untrusted: BTreeSet<String>,
    /// Plugins of stages that run with another one than the job file names.
    swapped: Mutex<BTreeMap<NodeName, Arc<dyn OperatorFactory>>>,
    /// Plugins that stages ran with before, since the process was started.
    before: Mutex<BTreeMap<NodeName, Arc<dyn OperatorFactory>>>,
    /// Plugins that run beside those of stages, or did.
    trials: Mutex<beside::Trials>,
    /// The attempt under way.
    current: Mutex<Option<Current>>,
    paused: AtomicBool,
    stopping: AtomicBool,
    drained: AtomicBool,
    /// Requests under way.
    asked: AtomicUsize,
}

/// A request under way.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(asked: &'a AtomicUsize) -> Self {
        asked.fetch_add(1, Ordering::Relaxed);
        Self(asked)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One attempt at running the job.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) remote: JobRemote,
    pub(crate) savepoints: Savepoints,
    pub(crate) graphs: Graphs,
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
        let (swapped, before, trials) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (current, drained) = (Mutex::new(None), AtomicBool::new(false));
        Self {
            assembled: Arc::new(Mutex::new(assembled)),
            allows_dropped: AtomicBool::new(false),
            plugins,
            clock,
            dir,
            store,
            topics: None,
            applied: Applied::default(),
            replacement: Mutex::new(None),
            untrusted: BTreeSet::new(),
            swapped,
            before,
            trials,
            current,
            paused,
            stopping,
            drained,
            asked: AtomicUsize::new(0),
        }
    }

    /// The same; the job may be given another file, and this is what became of the last one.
    pub(crate) fn changeable(mut self, topics: Topics, applied: Applied) -> Self {
        (self.topics, self.applied) = (Some(topics), applied);
        self
    }

    /// What runs.
    pub(crate) fn assembled(&self) -> Arc<Assembled> {
        Arc::clone(&*locked(&self.assembled))
    }

    /// The stages run as this has them.
    fn set_assembled(&self, assembled: Arc<Assembled>) {
        let named = |stage: &NodeName| assembled.factory(stage).map(|factory| factory.digest());
        locked(&self.swapped).retain(|stage, factory| named(stage) != Some(factory.digest()));
        *locked(&self.assembled) = assembled;
    }

    /// The job that is to take the place of this one, which has ended.
    pub(crate) fn take_replacement(&self) -> Option<Replacement> {
        locked(&self.replacement).take()
    }

    /// The same; no stage goes on with one of these plugins, by digest.
    pub(crate) fn distrusting(mut self, untrusted: BTreeSet<String>) -> Self {
        self.untrusted = untrusted;
        self
    }

    /// As after a request to pause.
    pub(crate) fn begin_paused(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Whether the state of what the job has no more may be forgotten, by a file that was applied.
    pub(crate) fn allows_dropped(&self) -> bool {
        self.allows_dropped.load(Ordering::Relaxed)
    }

    /// The plugin that a stage runs with.
    fn factory(&self, stage: &NodeName) -> Option<Arc<dyn OperatorFactory>> {
        let swapped = locked(&self.swapped).get(stage).cloned();
        swapped.or_else(|| self.assembled().factory(stage).cloned())
    }

    /// The stage goes on with another plugin than the one before.
    fn set_factory(&self, stage: &NodeName, factory: Arc<dyn OperatorFactory>, before: Arc<dyn OperatorFactory>) {
        locked(&self.swapped).insert(stage.clone(), factory);
        locked(&self.before).insert(stage.clone(), before);
    }

    /// The plugin that a stage ran with before; after a start that of the job file, where it was swapped.
    fn factory_before(&self, stage: &NodeName) -> Option<Arc<dyn OperatorFactory>> {
        let before = locked(&self.before).get(stage).cloned();
        let runs = self.factory(stage)?.digest();
        before.or_else(|| self.assembled().factory(stage).filter(|named| named.digest() != runs).cloned())
    }

    fn forget_before(&self, stage: &NodeName) {
        locked(&self.before).remove(stage);
    }

    /// Loads the plugins that the last epoch was made with, by digest, in place of those that the job
    /// file names.
    pub(crate) async fn load_swapped(&self, digests: &BTreeMap<NodeName, String>) -> Result<(), Failure> {
        kept_plugins::retain(&self.dir, digests.values().map(String::as_str));
        let mut swapped = BTreeMap::new();
        let assembled = self.assembled();
        for (stage, digest) in digests {
            let Some(spec) = assembled.spec.stages.get(stage) else { continue };
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
            if self.untrusted.contains(digest) {
                let what = format!("stage {:?} was swapped to the plugin {digest}", stage.as_str());
                let failure = Failure::failed(format!("{what}, which no signer of the tenant has signed"));
                return Err(failure.hint("add a signature, or deploy the job with another plugin"));
            }
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
        for (node, part) in self.assembled().planned.plan.nodes.iter().zip(nodes) {
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
            Ok(listener) => tokio::select! {
                never = listener.serve(&*self.clock, async |request| self.answer(request).await) => never,
                never = self.attend() => never,
            },
            // Nobody can ask.
            Err(_) => std::future::pending().await,
        }
    }

    /// Sees to plugins that run beside others for a span.
    pub(crate) async fn attend(&self) -> Infallible {
        beside::attend(self).await
    }

    /// The attempt is about to be made again, for this reason.
    pub(crate) fn rolled_back(&self, reason: &str) {
        beside::gone(self, reason);
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
        beside::gone(self, "the job ended, or went back to its last epoch");
        *locked(&self.current) = None;
    }

    /// Whether somebody has asked for the end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether somebody waits for an answer, or for what a plugin does beside the one of a stage.
    pub(crate) fn is_busy(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0 || locked(&self.trials).any()
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

    /// Goes on with another job, where this one need not end for it. The answer is a plan; nothing was done where
    /// that is a restart.
    pub(crate) async fn change(&self, new: &Arc<Assembled>, wish: &Wish) -> Answer {
        let current = self.current()?;
        let _busy = Busy::new(&self.asked);
        Ok(apply::change(self, &current, new, wish).await?.1)
    }

    /// Does what is asked of the job.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        let current = self.current()?;
        let _busy = Busy::new(&self.asked);
        match request {
            Request::Status => Ok(status::status(self, &current)),
            Request::Why { node } => why::why(self, &current, node.as_ref()).await,
            Request::Savepoint { file } => savepoint::savepoint(self, &current, file).await,
            Request::Pause => self.pause(&current, true).await,
            Request::Resume => self.pause(&current, false).await,
            Request::Swap { stage, plugin, beside: None } => swap::swap(self, &current, stage, plugin).await,
            Request::Swap { stage, plugin, beside: Some(asked) } => {
                beside::begin(self, &current, stage, plugin, asked).await
            }
            Request::Apply { file, set, allow_dropped, only_plan } => {
                apply::apply(self, &current, apply::Asked { file, set, allow_dropped, only_plan }).await
            }
            Request::Promote { stage } => beside::promote(self, &current, stage).await,
            Request::Rollback { stage } => beside::rollback(self, &current, stage).await,
            Request::Beside { stage } => beside::report(self, &stage),
            Request::Drain => {
                self.drained.store(true, Ordering::Relaxed);
                current.remote.drain().await;
                Ok(json!({"job": self.assembled().spec.name, "state": "draining"}))
            }
            Request::Stop => {
                self.stopping.store(true, Ordering::Relaxed);
                current.remote.stop();
                Ok(json!({"job": self.assembled().spec.name, "state": "stopping"}))
            }
        }
    }

    async fn pause(&self, current: &Current, paused: bool) -> Answer {
        self.paused.store(paused, Ordering::Relaxed);
        current.remote.pause(paused).await;
        Ok(json!({"job": self.assembled().spec.name, "state": self.state()}))
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
