use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tracing::Instrument as _;
use wasmill_contract::{Committer, OperatorFactory, SinkFactory, SourceFactory};
use wasmill_env::Clock;
use wasmill_model::{Epoch, NodeName};
use wasmill_plan::Plan;
use wasmill_spec::Delivery;
use wasmill_store::{Recovered, StageStates};
use wasmill_tenancy::Account;

use crate::coordinator::{Coordinator, Telling, Wish};
use crate::error::JobError;
use crate::exchange::{self, ExchangeWish, Site};
use crate::facts::JobFacts;
use crate::metrics::JobMetrics;
use crate::swap::{Beside, Change, Offer, SwapError, SwapWish, Swapped};
use crate::task::Task;
use crate::wiring::{self, Graph};

/// What runs at a node of the plan.
#[derive(Clone)]
pub enum NodePart {
    /// A configured source.
    Source(Arc<dyn SourceFactory>),
    /// A configured plugin.
    Stage(Arc<dyn OperatorFactory>),
    /// A configured sink.
    Sink(Arc<dyn SinkFactory>),
}

/// How a job runs.
#[derive(Debug, Clone, Copy)]
pub struct JobSettings {
    /// From one epoch to the next.
    pub epoch_interval: Duration,
    /// A task of a source that has read this many bytes ends the epoch early.
    pub epoch_bytes: u64,
    /// How long a batch may keep a chain busy.
    pub latency_goal: Duration,
    /// When rows leave: with their epoch, before it, or behind it. Sinks whose rows are part of the
    /// epoch write know no other way than with it.
    pub delivery: Delivery,
    /// Accumulators of open windows that a task may hold.
    pub accumulators_max: u64,
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            epoch_interval: Duration::from_millis(200),
            epoch_bytes: 64 << 20,
            latency_goal: Duration::from_millis(5),
            delivery: Delivery::ExactlyOnce,
            accumulators_max: ACCUMULATORS_MAX,
        }
    }
}

/// Accumulators of open windows that a task may hold, unless the job says otherwise.
const ACCUMULATORS_MAX: u64 = 10_000_000;
/// Wishes that wait for the coordinator.
const WISHES_MAX: usize = 8;

/// What a job is made of.
pub struct JobParts {
    /// The graph.
    pub plan: Plan,
    /// One part for each node of the plan, of its kind.
    pub nodes: Vec<NodePart>,
    /// What the job goes on from.
    pub recovered: Recovered,
    /// Where its stages have their state.
    pub states: StageStates,
    /// Makes epochs durable.
    pub committer: Box<dyn Committer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// How it runs.
    pub settings: JobSettings,
    /// Whose budgets it counts against, in a process of several tenants.
    pub account: Option<Arc<Account>>,
}

/// A running job. Dropping it cancels the job.
pub struct JobHandle {
    remote: JobRemote,
    coordinator: Option<JoinHandle<Result<(), JobError>>>,
    locations: Vec<(wasmill_model::NodeName, String)>,
}

/// Starts a job: tasks on `data`, the coordinator on the current runtime.
///
/// # Errors
/// Where a source, an operator or a sink cannot be opened. Nothing runs then.
///
/// # Panics
/// Where `parts.nodes` does not fit the plan: a bug of the caller.
pub async fn start(parts: JobParts, data: &Handle) -> Result<JobHandle, JobError> {
    let JobParts { plan, nodes, recovered, states, committer, clock, settings, account } = parts;
    let metrics = Arc::new(JobMetrics::new(plan.nodes.iter().map(|node| node.name.clone())));
    let last_committed = recovered.epoch;
    let graph = Graph { plan: Arc::new(plan), nodes, states, clock: Arc::clone(&clock), settings, account };
    // Plugins are opened: that is work of the tenant as any other.
    let wired = in_turn(graph.account.clone(), wiring::wire(&graph, recovered, &metrics)).await?;
    let mut tasks = JoinSet::new();
    // Lines of sources and sinks belong to whoever starts the job.
    let span = tracing::Span::current();
    let run = |task: Task| in_turn(graph.account.clone(), task.run().instrument(span.clone()));
    let ids = wired.tasks.into_iter().map(|task| (task.id, tasks.spawn_on(run(task), data).id())).collect();
    let (stop, stop_wanted) = mpsc::channel(1);
    let (wishes, wished) = mpsc::channel(WISHES_MAX);
    let site = Arc::new(Site::new(graph, Arc::clone(&metrics)));
    let coordinator = Coordinator {
        links: wired.links.into_iter().enumerate().collect(),
        tasks,
        ids,
        reports: wired.reports,
        report: wired.report,
        stop: stop_wanted,
        wishes: wished,
        committer: Some(committer),
        interval: settings.epoch_interval,
        clock,
        metrics: Arc::clone(&metrics),
        last_committed,
        site: Arc::clone(&site),
        data: data.clone(),
        paused: false,
    };
    let coordinator = Some(tokio::spawn(coordinator.run().instrument(tracing::Span::current())));
    let remote = JobRemote { metrics, stop, wishes, site };
    Ok(JobHandle { remote, coordinator, locations: wired.locations })
}

/// Does work of a job while its tenant has the right to the CPU.
pub(crate) async fn in_turn<F: Future>(account: Option<Arc<Account>>, work: F) -> F::Output {
    match account {
        Some(account) => account.scheduled(work).await,
        None => work.await,
    }
}

impl JobHandle {
    /// What the job counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<JobMetrics> {
        &self.remote.metrics
    }

    /// What others may ask of the job.
    #[must_use]
    pub fn remote(&self) -> &JobRemote {
        &self.remote
    }

    /// Where sources can be reached and where sinks put their results, for people.
    #[must_use]
    pub fn locations(&self) -> &[(wasmill_model::NodeName, String)] {
        &self.locations
    }

    /// Asks the job to end at an epoch: what was read is worked off and committed, open windows
    /// stay open.
    pub fn stop(&self) {
        self.remote.stop();
    }

    /// Waits for the end of the job. Cancel safe: a dropped future leaves the job running.
    ///
    /// # Errors
    /// Where the job failed.
    pub async fn wait(&mut self) -> Result<(), JobError> {
        let Some(coordinator) = &mut self.coordinator else { return Err(JobError::Cancelled) };
        let ended = coordinator.await;
        self.coordinator = None;
        match ended {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(JobError::Cancelled),
        }
    }
}

/// Asks things of a running job. Cheap to clone; one whose job has ended asks for nothing.
#[derive(Debug, Clone)]
pub struct JobRemote {
    metrics: Arc<JobMetrics>,
    stop: mpsc::Sender<()>,
    wishes: mpsc::Sender<Wish>,
    site: Arc<Site>,
}

impl JobRemote {
    /// What the job counts.
    #[must_use]
    pub fn metrics(&self) -> &JobMetrics {
        &self.metrics
    }

    /// As [`JobHandle::stop`].
    pub fn stop(&self) {
        // A full channel holds the same wish; a closed one belongs to a job that has ended.
        let _known = self.stop.try_send(()).is_err();
    }

    /// Ends the epoch without waiting for its interval.
    pub async fn end_epoch(&self) {
        self.wish(Wish::EndEpoch).await;
    }

    /// Has sources read nothing more, or read on. Epochs go on meanwhile, and no source becomes idle.
    pub async fn pause(&self, paused: bool) {
        self.wish(Wish::Pause(paused)).await;
    }

    /// Goes on with another plugin in a stage, from an epoch on, and answers once an epoch of it is
    /// durable. `trial` says that the job can be started anew from its epochs where the plugin fails
    /// before that, and will be. A dropped future leaves the swap under way.
    ///
    /// # Errors
    /// Where the old plugin goes on.
    pub async fn swap(
        &self,
        stage: &NodeName,
        factory: Arc<dyn OperatorFactory>,
        trial: bool,
    ) -> Result<Swapped, SwapError> {
        self.change(stage, Change::Swap { factory, trial }).await
    }

    /// Has a plugin run beside the one of a stage, from an epoch on, until [`JobRemote::alone`] or a swap
    /// of the stage, or the end of this run of the job.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn beside(
        &self,
        stage: &NodeName,
        factory: Arc<dyn OperatorFactory>,
        beside: Beside,
    ) -> Result<Swapped, SwapError> {
        self.change(stage, Change::Beside { factory, beside }).await
    }

    /// Has nothing run beside the plugin of a stage any more, from an epoch on.
    ///
    /// # Errors
    /// Where that cannot be.
    pub async fn alone(&self, stage: &NodeName) -> Result<Swapped, SwapError> {
        self.change(stage, Change::Alone).await
    }

    /// Goes on with another graph, from an epoch on: tasks that the change does not touch go on meanwhile, and
    /// nodes that both graphs have keep what they have. Answers once an epoch of it is durable. `behind` is told
    /// the last epoch of the old graph, before any of the new one. A dropped future leaves the exchange under way.
    ///
    /// # Errors
    /// Where the old graph goes on: something cannot be opened, or the change is none for a job that runs.
    ///
    /// # Panics
    /// Where `nodes` does not fit the plan: a bug of the caller.
    pub async fn exchange(
        &self,
        plan: Plan,
        nodes: Vec<NodePart>,
        behind: Box<dyn FnOnce(Epoch) + Send>,
    ) -> Result<Swapped, SwapError> {
        let opened = exchange::open(&self.site, plan, nodes).await;
        let opened = opened.map_err(|reason| SwapError::Refused { reason })?;
        let (done, heard) = oneshot::channel();
        self.wish(Wish::Exchange(Box::new(ExchangeWish { opened, behind, done }))).await;
        heard.await.unwrap_or(Err(SwapError::Ending))
    }

    async fn change(&self, stage: &NodeName, change: Change) -> Result<Swapped, SwapError> {
        let (done, heard) = oneshot::channel();
        let offer = Offer { stage: stage.clone(), change };
        self.wish(Wish::Swap(SwapWish { offer, done })).await;
        heard.await.unwrap_or(Err(SwapError::Ending))
    }

    /// How far everything is, as far as tasks say within `patience`. `None` where the job has ended, or is
    /// too busy to be asked.
    pub async fn facts(&self, clock: &dyn Clock, patience: Duration) -> Option<JobFacts> {
        let mut until = clock.sleep(patience);
        let (done, heard) = oneshot::channel();
        let now_nanos = clock.monotonic_nanos();
        let Telling { tasks, mut answers } = tokio::select! {
            telling = async { self.wish(Wish::Tell(done)).await; heard.await } => telling.ok()?,
            () = &mut until => return None,
        };
        let mut told = Vec::with_capacity(tasks.len());
        // Tasks that end drop their orders, and with them the last sender.
        while told.len() < tasks.len() {
            tokio::select! {
                answer = answers.recv() => match answer {
                    Some(answer) => told.push(answer),
                    None => break,
                },
                () = &mut until => break,
            }
        }
        let answered = |(node, share): &(NodeName, u16)| {
            told.iter().any(|task| task.share == *share && task.nodes.first() == Some(node))
        };
        let silent = tasks.into_iter().filter(|task| !answered(task)).collect();
        Some(JobFacts { now_nanos, tasks: told, silent })
    }

    /// Has the job end as though its sources had nothing left to give: what they have taken is worked
    /// off, every window and timer fires, and the job has finished.
    pub async fn drain(&self) {
        self.wish(Wish::Drain).await;
    }

    async fn wish(&self, wish: Wish) {
        // A job that has ended has nothing left to do.
        let _ended = self.wishes.send(wish).await.is_err();
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if let Some(coordinator) = &self.coordinator {
            coordinator.abort();
        }
    }
}
