//! Ends epochs and commits them.
//!
//! One epoch is collected at a time: a barrier goes into the sources, every task hands in its cut.
//! The commit of epoch *n* runs while *n+1* is being worked on; *n+1* is committed after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::Instrument as _;
use wasmill_contract::{BoxFuture, CommitError, Committer, Cut};
use wasmill_env::{Clock, kill_point, planted};
use wasmill_model::{Epoch, NodeName};

use crate::error::JobError;
use crate::exchange::{ExchangeWish, Exchanging, Made, Site};
use crate::facts::TaskFacts;
use crate::job::in_turn;
use crate::metrics::JobMetrics;
use crate::signal::Barrier;
use crate::swap::{Decision, SwapError, SwapWish, Swapping};
use crate::task::{Order, Parked, Report, Task};

/// What the coordinator needs to know of a task.
pub(crate) struct TaskLink {
    pub(crate) head: NodeName,
    pub(crate) nodes: Vec<NodeName>,
    /// Which of the tasks of these nodes it is.
    pub(crate) share: u16,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) is_source: bool,
}

/// What somebody wants of a running job.
#[derive(Debug)]
pub(crate) enum Wish {
    /// An epoch, now.
    EndEpoch,
    /// That sources read nothing more, or read on.
    Pause(bool),
    /// That sources end as though they had nothing left.
    Drain,
    /// Another plugin in a stage.
    Swap(SwapWish),
    /// Another graph.
    Exchange(Box<ExchangeWish>),
    /// That all tasks say how far they are.
    Tell(oneshot::Sender<Telling>),
}

/// Tasks were asked.
#[derive(Debug)]
pub(crate) struct Telling {
    /// All of them: the first node of each, and its share of that.
    pub(crate) tasks: Vec<(NodeName, u16)>,
    /// What they say.
    pub(crate) answers: mpsc::Receiver<TaskFacts>,
}

/// Room for orders that is left to epochs and swaps when tasks are asked how far they are: a task that
/// does not listen must not hold up the others.
const ORDERS_SPARE: usize = 4;

/// Drives the epochs of a job.
pub(crate) struct Coordinator {
    /// By the number of the task. No number is given twice.
    pub(crate) links: BTreeMap<usize, TaskLink>,
    pub(crate) tasks: JoinSet<()>,
    /// The runtime's name of each task.
    pub(crate) ids: BTreeMap<usize, tokio::task::Id>,
    pub(crate) reports: mpsc::Receiver<Report>,
    pub(crate) report: mpsc::WeakSender<Report>,
    pub(crate) stop: mpsc::Receiver<()>,
    pub(crate) wishes: mpsc::Receiver<Wish>,
    pub(crate) committer: Option<Box<dyn Committer>>,
    pub(crate) interval: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<JobMetrics>,
    pub(crate) last_committed: Epoch,
    /// What runs.
    pub(crate) site: Arc<Site>,
    /// Where tasks run.
    pub(crate) data: Handle,
    /// Sources are to read nothing.
    pub(crate) paused: bool,
}

/// An epoch whose cuts are being collected.
struct Collecting {
    barrier: Barrier,
    cuts: BTreeMap<usize, Cut>,
}

type Committing = BoxFuture<'static, (Box<dyn Committer>, Barrier, Result<(), CommitError>)>;

enum Happening {
    Report(Option<Report>),
    TaskEnded(Option<Result<(), tokio::task::JoinError>>),
    Committed((Box<dyn Committer>, Barrier, Result<(), CommitError>)),
    IntervalOver,
    StopWanted,
    Wished(Wish),
}

impl Coordinator {
    /// Runs until the last epoch is committed and every task has finished, or until something
    /// fails. Tasks that are left are cancelled when this returns.
    pub(crate) async fn run(mut self) -> Result<(), JobError> {
        let (mut swapping, mut exchanging) = (None, None);
        let ended = self.drive(&mut swapping, &mut exchanging).await;
        if let Some(exchanging) = exchanging {
            exchanging.end(self.last_committed, ended.as_ref().err());
        }
        if let Some(swapping) = swapping {
            swapping.end(Some(self.last_committed), ended.as_ref().err());
        }
        ended
    }

    async fn drive(
        &mut self,
        swapping: &mut Option<Swapping>,
        exchanging: &mut Option<Exchanging>,
    ) -> Result<(), JobError> {
        let mut exhausted = BTreeSet::new();
        let mut finished = 0;
        let mut last_wanted = false;
        let mut stop_open = true;
        let mut due_at = self.due_at();
        let mut epoch_wanted = false;
        let mut drain_wanted = false;
        let mut pause_wanted = false;
        let mut next_task = 0;
        let mut collecting: Option<Collecting> = None;
        let mut collected: Option<(Barrier, Vec<Cut>)> = None;
        let mut committing: Option<Committing> = None;
        let mut injected_last = false;
        // Epochs under way, each from its barrier to its commit.
        let mut spans: BTreeMap<Epoch, tracing::Span> = BTreeMap::new();
        let mut epoch = self.last_committed;

        while finished < self.links.len() {
            // A task that waits for the decision about a swap takes nothing else.
            let stands = exchanging.as_ref().is_some_and(Exchanging::holds_barriers);
            if drain_wanted && swapping.is_none() && !stands {
                drain_wanted = false;
                self.tell(Order::Drain, true).await;
            }
            if pause_wanted && !stands {
                pause_wanted = false;
                self.tell(Order::Pause(self.paused), true).await;
            }
            let held = stands || swapping.as_ref().is_some_and(Swapping::holds_barriers);
            let may_inject = collecting.is_none() && collected.is_none() && !injected_last && !held;
            if may_inject && (last_wanted || epoch_wanted || self.clock.monotonic_nanos() >= due_at) {
                epoch = epoch.next();
                let barrier = Barrier { epoch, last: last_wanted };
                spans.insert(epoch, tracing::info_span!("epoch", epoch = epoch.0));
                injected_last = last_wanted;
                epoch_wanted = false;
                due_at = self.due_at();
                if let Some(swapping) = swapping.as_mut().filter(|_| !barrier.last) {
                    let tasks = self.tasks_of(swapping.stage());
                    if let Some(offer) = swapping.begin(epoch, tasks.clone()) {
                        self.tell_tasks(&tasks, &Order::Offer(offer)).await;
                    }
                }
                if let Some(exchanging) = exchanging.as_mut().filter(|_| !barrier.last) {
                    let links = self.links.iter().map(|(task, link)| (*task, &link.head));
                    if let Some(tasks) = exchanging.begin(epoch, links) {
                        self.tell_tasks(&tasks, &Order::Park).await;
                    }
                }
                self.tell(Order::Inject(barrier), true).await;
                kill_point("epoch-injected");
                collecting = Some(Collecting { barrier, cuts: BTreeMap::new() });
            }
            if committing.is_none()
                && let Some((barrier, cuts)) = collected.take()
                && let Some(mut committer) = self.committer.take()
            {
                if planted("commit-before-durable") {
                    self.tell(Order::Commit(barrier), false).await;
                }
                self.metrics.commit_began(self.clock.monotonic_nanos());
                committing = Some(Box::pin(async move {
                    let result = committer.commit(barrier.epoch, cuts).await;
                    (committer, barrier, result)
                }));
            }
            let wait_for_interval = collecting.is_none() && collected.is_none() && !injected_last && !held;
            let happening = {
                let Self { reports, tasks, stop, wishes, clock, .. } = &mut *self;
                tokio::select! {
                    biased;
                    report = reports.recv() => Happening::Report(report),
                    done = async {
                        match &mut committing {
                            Some(commit) => commit.await,
                            None => std::future::pending().await,
                        }
                    } => Happening::Committed(done),
                    ended = tasks.join_next(), if !tasks.is_empty() => Happening::TaskEnded(ended),
                    wanted = stop.recv(), if stop_open => {
                        stop_open = wanted.is_some();
                        Happening::StopWanted
                    }
                    Some(wish) = wishes.recv() => Happening::Wished(wish),
                    () = clock.sleep_until(due_at), if wait_for_interval => Happening::IntervalOver,
                }
            };
            match happening {
                Happening::Report(Some(Report::Failed(error))) => {
                    // Whether the epoch is durable that a plugin on trial has made decides which one it is.
                    if matches!(error, JobError::TrialFailed { .. })
                        && let Some(commit) = committing.take()
                        && let (_, barrier, Ok(())) = commit.await
                    {
                        self.last_committed = barrier.epoch;
                    }
                    return Err(error);
                }
                Happening::Report(Some(Report::Prepared { task, result })) => {
                    let Some(swap) = swapping.as_mut() else { continue };
                    let decision = swap.decide(task, result);
                    let tasks = self.tasks_of(swap.stage());
                    match decision {
                        Decision::Wait => {}
                        Decision::Take => {
                            swap.told(tasks.clone());
                            self.tell_tasks(&tasks, &Order::Decide { take: true }).await;
                        }
                        Decision::Keep => {
                            self.tell_tasks(&tasks, &Order::Decide { take: false }).await;
                            if let Some(swap) = swapping.take() {
                                swap.end(None, None);
                            }
                        }
                    }
                }
                Happening::Report(Some(Report::WentOn { task, paused })) => {
                    if let Some(swap) = swapping.as_mut() {
                        swap.went_on(task, paused);
                        // The sooner an epoch of it is durable, the sooner the trial is over.
                        epoch_wanted = true;
                    }
                    if let Some(swap) = swapping.take_if(|swap| swap.is_done()) {
                        swap.end(None, None);
                    }
                }
                Happening::Report(Some(Report::Finished)) => finished += 1,
                Happening::Report(Some(Report::EpochWanted)) => epoch_wanted = true,
                Happening::Report(Some(Report::Exhausted { task })) => {
                    exhausted.insert(task);
                    last_wanted |= self.is_exhausted(&exhausted);
                }
                Happening::Report(Some(Report::Parked(Parked(task)))) => {
                    if let Some(exchanging) = exchanging.as_mut() {
                        exchanging.park(*task, self.clock.monotonic_nanos());
                    }
                }
                Happening::Report(Some(Report::Cut { task, barrier, cut })) => {
                    if let Some(mut open) = collecting.take_if(|open| open.barrier == barrier) {
                        open.cuts.insert(task, cut);
                        if open.cuts.len() == self.links.len() {
                            kill_point("cuts-complete");
                            collected = Some((open.barrier, open.cuts.into_values().collect()));
                        } else {
                            collecting = Some(open);
                        }
                    }
                }
                Happening::Report(None) => return Err(self.lost_task().await),
                Happening::Committed((committer, barrier, result)) => {
                    committing = None;
                    drop(spans.remove(&barrier.epoch));
                    self.committer = Some(committer);
                    result?;
                    kill_point("epoch-durable");
                    self.last_committed = barrier.epoch;
                    self.metrics.epoch_committed();
                    self.tell(Order::Commit(barrier), false).await;
                    if let Some(swap) = swapping.take_if(|swap| swap.is_over(barrier.epoch)) {
                        swap.end(Some(barrier.epoch), None);
                    }
                    if let Some(exchanging) = exchanging.take_if(|exchanging| exchanging.committed(barrier.epoch)) {
                        exchanging.end(barrier.epoch, None);
                    }
                }
                Happening::TaskEnded(Some(Err(error))) if error.is_panic() => return Err(self.panicked(&error)),
                Happening::TaskEnded(_) | Happening::IntervalOver => {}
                Happening::StopWanted => last_wanted |= stop_open,
                Happening::Wished(Wish::Swap(wish)) => {
                    let refused = match &swapping {
                        Some(_) => Some(SwapError::Busy),
                        None if exchanging.is_some() => Some(SwapError::Busy),
                        None if last_wanted => Some(SwapError::Ending),
                        None if self.tasks_of(&wish.offer.stage).is_empty() => {
                            Some(SwapError::NoStage { stage: wish.offer.stage.clone() })
                        }
                        None => None,
                    };
                    match refused {
                        Some(error) => drop(wish.done.send(Err(error))),
                        None => {
                            *swapping = Some(Swapping::new(wish));
                            epoch_wanted = true;
                        }
                    }
                }
                Happening::Wished(Wish::Exchange(wish)) => {
                    let wanted = Exchanging::new(wish);
                    if last_wanted {
                        wanted.end(self.last_committed, None);
                    } else if swapping.is_some() || exchanging.is_some() || !wanted.fits(&self.site) {
                        wanted.refuse(SwapError::Busy);
                    } else {
                        *exchanging = Some(wanted);
                        epoch_wanted = true;
                    }
                }
                Happening::Wished(Wish::Tell(done)) => {
                    // Who asked may be gone.
                    let _unheard = done.send(self.ask()).is_err();
                }
                Happening::Wished(Wish::EndEpoch) => epoch_wanted = true,
                Happening::Wished(Wish::Drain) => drain_wanted = true,
                Happening::Wished(Wish::Pause(paused)) => {
                    self.paused = paused;
                    pause_wanted = true;
                }
            }
            if let Some(exchanging) = exchanging.as_mut() {
                let next = self.links.last_key_value().map_or(0, |(last, _)| last + 1).max(next_task);
                let clock = Arc::clone(&self.clock);
                let made = exchanging.make(&self.site, &self.report, next, || clock.monotonic_nanos()).await?;
                if let Some(Made { gone, tasks, exhausted: without_input }) = made {
                    exhausted.retain(|task| !gone.contains(task));
                    exhausted.extend(without_input);
                    next_task = next + tasks.len();
                    self.exchange(&gone, tasks);
                    // New sources know nothing of it, and a source that is made again may not have heard.
                    pause_wanted = true;
                    // The sooner an epoch of the new graph is durable, the sooner it is sure.
                    epoch_wanted = true;
                    last_wanted |= self.is_exhausted(&exhausted);
                    kill_point("exchange-made");
                }
            }
        }
        kill_point("job-closing");
        let complete = self.is_exhausted(&exhausted);
        if let Some(committer) = &mut self.committer {
            committer.close(complete).await?;
        }
        kill_point("job-closed");
        Ok(())
    }

    /// Whether no source has anything left to read.
    fn is_exhausted(&self, exhausted: &BTreeSet<usize>) -> bool {
        self.links.values().filter(|link| link.is_source).count() == exhausted.len()
    }

    /// Tasks of another graph take the place of those that are gone.
    fn exchange(&mut self, gone: &BTreeSet<usize>, tasks: Vec<(Task, TaskLink)>) {
        self.links.retain(|task, _| !gone.contains(task));
        self.ids.retain(|task, _| !gone.contains(task));
        for (task, link) in tasks {
            let id = task.id;
            self.links.insert(id, link);
            let run = in_turn(self.site.account(), task.run().instrument(tracing::Span::current()));
            let running = self.tasks.spawn_on(run, &self.data);
            self.ids.insert(id, running.id());
        }
    }

    fn due_at(&self) -> u64 {
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        self.clock.monotonic_nanos().saturating_add(interval)
    }

    fn panicked(&self, error: &tokio::task::JoinError) -> JobError {
        let task = self.ids.iter().find(|(_, id)| **id == error.id()).and_then(|(task, _)| self.links.get(task));
        self.lost(task, error.to_string())
    }

    /// A task, or nobody knows which, ended unexpectedly.
    fn lost(&self, task: Option<&TaskLink>, reason: String) -> JobError {
        let link = task.or_else(|| self.links.values().next()).expect("a job has a task");
        JobError::TaskLost { node: link.head.clone(), reason }
    }

    /// Every task is gone and not all of them have finished.
    async fn lost_task(&mut self) -> JobError {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                return self.panicked(&error);
            }
        }
        self.lost(None, "it sent no report".to_owned())
    }

    async fn tell(&mut self, order: Order, sources_only: bool) {
        for link in self.links.values().filter(|link| link.is_source || !sources_only) {
            // A task that is gone has failed or finished: its report is on its way.
            let _gone = link.orders.send(order.clone()).await.is_err();
        }
    }

    /// Asks every task how far it is, but for those that have too much to do already.
    fn ask(&self) -> Telling {
        let (tell, answers) = mpsc::channel(self.links.len().max(1));
        for link in self.links.values().filter(|link| link.orders.capacity() > ORDERS_SPARE) {
            let _gone = link.orders.try_send(Order::Tell(tell.clone())).is_err();
        }
        Telling { tasks: self.links.values().map(|link| (link.head.clone(), link.share)).collect(), answers }
    }

    /// The tasks that a node is in.
    fn tasks_of(&self, node: &NodeName) -> BTreeSet<usize> {
        self.links.iter().filter(|(_, link)| link.nodes.contains(node)).map(|(task, _)| *task).collect()
    }

    async fn tell_tasks(&mut self, tasks: &BTreeSet<usize>, order: &Order) {
        for &task in tasks {
            let _gone = self.links[&task].orders.send(order.clone()).await.is_err();
        }
    }
}
