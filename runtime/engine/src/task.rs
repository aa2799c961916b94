//! The loop of one task.
//!
//! # Ordering
//! Inputs are aligned: an input that has delivered its barrier waits, its later signals set aside,
//! until every other live input has delivered the same one.
//!
//! # Cancellation
//! A task is cancelled only when its job has failed: a guest call may be cut off in the middle.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use wasmill_contract::Cut;
use wasmill_env::{Clock, kill_point, planted};
use wasmill_model::{Epoch, NodeName};
use wasmill_order::{Alignment, Barrier as Aligned, InputWatermarks, OrderError};

use crate::chain::{Chain, Stopped};
use crate::convoy::LaneMerge;
use crate::error::JobError;
use crate::facts::{HeadFacts, InputFacts, TaskFacts};
use crate::queue::{Arrival, QueueReceiver};
use crate::replay::Replay;
use crate::signal::{Barrier, Signal};
use crate::source_head::{Incoming, SourceHead};
use crate::swap::Offer;

/// What the coordinator tells a task.
#[derive(Debug, Clone)]
pub(crate) enum Order {
    /// Sources only: end an epoch here.
    Inject(Barrier),
    /// Sources only: read nothing more, or read on.
    Pause(bool),
    /// Sources only: end, as though there were nothing left to read.
    Drain,
    /// The epoch is durable.
    Commit(Barrier),
    /// At the next barrier: prepare another plugin for a stage.
    Offer(Arc<Offer>),
    /// Behind the next barrier: stop, and be made a task of another graph.
    Park,
    /// Go on with the plugin that was prepared, or without it.
    Decide { take: bool },
    /// Say how far everything is.
    Tell(mpsc::Sender<TaskFacts>),
}

/// What a task tells the coordinator.
#[derive(Debug)]
pub(crate) enum Report {
    /// The task's part of an epoch.
    Cut { task: usize, barrier: Barrier, cut: Cut },
    /// A source has nothing left to read.
    Exhausted { task: usize },
    /// The task has stopped behind a barrier.
    Parked(Parked),
    /// The task holds so much that an epoch should come early.
    EpochWanted,
    /// The task has committed its last epoch.
    Finished,
    /// The task has prepared what was offered to it, or says why it cannot.
    Prepared { task: usize, result: Result<(), String> },
    /// The task goes on with what was offered, after it has worked off nothing for so long.
    WentOn { task: usize, paused: Duration },
    /// The task failed, and with it the job.
    Failed(JobError),
}

/// A task that stands behind a barrier.
pub(crate) struct Parked(pub(crate) Box<Task>);

impl std::fmt::Debug for Parked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parked").field(&self.0.id).finish()
    }
}

/// Where a task's rows come from.
pub(crate) enum Head {
    Source(Box<SourceHead>),
    Inputs(Inputs),
}

/// The inputs of a task, aligned.
pub(crate) struct Inputs {
    pub(crate) queue: QueueReceiver,
    /// The input that each sender feeds, and where that is a convoy, its lane.
    pub(crate) feeds: Vec<(usize, Option<usize>)>,
    /// By input, where it is a convoy.
    pub(crate) merges: Vec<Option<LaneMerge>>,
    /// The input port of the first node that each input leads to.
    pub(crate) ports: Vec<u16>,
    /// Who feeds each input: a node, and which of its tasks.
    pub(crate) from: Vec<(NodeName, Option<u16>)>,
    pub(crate) alignment: Alignment,
    pub(crate) watermarks: InputWatermarks,
    /// Signals of inputs that wait for a barrier, by input.
    pub(crate) aside: Vec<VecDeque<Arrival>>,
}

impl Inputs {
    fn facts(&self) -> Vec<InputFacts> {
        let each = self.from.iter().zip(self.watermarks.inputs()).enumerate();
        each.map(|(input, ((from, share), progress))| InputFacts {
            from: from.clone(),
            share: *share,
            progress: *progress,
            blocked: self.alignment.is_blocked(input),
        })
        .collect()
    }

    /// The next signal that waits here although its input may go on.
    fn next_aside(&mut self) -> Result<Option<Arrival>, OrderError> {
        for input in 0..self.aside.len() {
            if self.alignment.is_blocked(input) {
                continue;
            }
            if let Some(arrival) = self.aside[input].pop_front() {
                return Ok(Some(arrival));
            }
            if let Some(merge) = &mut self.merges[input]
                && let Some((signal, permits)) = merge.pop()?
            {
                return Ok(Some(Arrival { input, signal, permits }));
            }
        }
        Ok(None)
    }
}

/// One task of a job.
pub(crate) struct Task {
    pub(crate) id: usize,
    pub(crate) chain: Chain,
    pub(crate) head: Head,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) clock: Arc<dyn Clock>,
    /// An epoch was asked for, and has not come.
    pub(crate) epoch_wanted: bool,
    /// Dead letters that are to be processed again before anything else.
    pub(crate) replays: Vec<Replay>,
    /// What was offered for the next barrier.
    pub(crate) offer: Option<Arc<Offer>>,
    /// Behind the next barrier it stops, and tasks of another graph are made of it.
    pub(crate) parks: bool,
    /// It was made of one that stood behind a barrier.
    pub(crate) resumed: bool,
    /// The last barrier has passed: nothing comes in any more, and senders may go away.
    pub(crate) ended: bool,
}

/// What a task does next.
enum Next {
    Order(Order),
    Arrival(Option<Arrival>),
    Source(Incoming),
    Wake,
    /// Nothing comes in for now.
    Idle,
}

impl Task {
    /// Runs until the last epoch is committed, or reports why not.
    pub(crate) async fn run(mut self) {
        let outcome = self.work().await;
        let report = match outcome {
            Ok(()) => Report::Finished,
            Err(Stopped::Failed(error)) => Report::Failed(error),
            // The task that went away has reported, and the coordinator ends this one.
            Err(Stopped::ReceiverGone) => return,
            Err(Stopped::Parked) => {
                let reports = self.reports.clone();
                // Without a coordinator nothing comes of it.
                let _unheard = reports.send(Report::Parked(Parked(Box::new(self)))).await.is_err();
                return;
            }
        };
        self.report(report).await;
    }

    async fn work(&mut self) -> Result<(), Stopped> {
        for replay in std::mem::take(&mut self.replays) {
            self.chain.replay(replay).await?;
        }
        if self.resumed {
            self.go_on().await?;
        }
        loop {
            match self.next().await {
                Next::Order(Order::Inject(barrier)) => self.inject(barrier).await?,
                Next::Order(Order::Commit(barrier)) => {
                    self.commit(barrier).await?;
                    if barrier.last {
                        return Ok(());
                    }
                }
                Next::Order(Order::Pause(paused)) => self.pause(paused),
                Next::Order(Order::Drain) => self.end_input().await?,
                Next::Order(Order::Offer(offer)) => self.offer = Some(offer),
                Next::Order(Order::Park) => self.parks = true,
                Next::Order(Order::Tell(asked)) => self.tell(&asked),
                // Nothing is prepared: the task decides where it has prepared.
                Next::Order(Order::Decide { .. }) => {}
                Next::Source(Incoming::Others) => {}
                Next::Source(Incoming::Mark { is_there: false }) => return Err(Stopped::ReceiverGone),
                Next::Source(Incoming::Mark { is_there: true }) => {
                    if let Head::Source(source) = &mut self.head {
                        source.tick(&mut self.chain).await?;
                    }
                }
                Next::Source(Incoming::Event(event)) => {
                    let Head::Source(source) = &mut self.head else { continue };
                    let ended = source.handle(event, &mut self.chain).await?;
                    if ended {
                        self.report(Report::Exhausted { task: self.id }).await;
                    }
                    self.ask_for_epoch().await;
                }
                Next::Arrival(Some(arrival)) => {
                    self.arrive(arrival).await?;
                    self.ask_for_epoch().await;
                }
                Next::Arrival(None) => return Err(Stopped::ReceiverGone),
                Next::Wake => {
                    if let Head::Source(source) = &mut self.head {
                        source.tick(&mut self.chain).await?;
                    }
                    self.chain.wall().await?;
                }
                Next::Idle => self.chain.tidy().await?,
            }
        }
    }

    /// Goes on in another graph, with what has come in meanwhile.
    async fn go_on(&mut self) -> Result<(), Stopped> {
        let idle = match &self.head {
            Head::Source(source) => source.is_idle(),
            Head::Inputs(inputs) => inputs.watermarks.is_idle(),
        };
        self.chain.announce(idle).await?;
        self.replay_aside().await
    }

    /// Does what the coordinator has told it since it stopped behind barrier `epoch`, the last one of the nodes
    /// that are `gone`.
    pub(crate) async fn settle(&mut self, epoch: Epoch, gone: &BTreeSet<NodeName>) -> Result<(), JobError> {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Commit(barrier) => {
                    let is_last = |node: &NodeName| barrier.epoch == epoch && gone.contains(node);
                    self.chain.commit_but(barrier, is_last).await?;
                    if let Head::Source(source) = &mut self.head {
                        source.acknowledge(barrier.epoch).await?;
                    }
                }
                Order::Pause(paused) => self.pause(paused),
                // Whoever has asked how far it is hears of it as a task that does not listen.
                Order::Tell(_) | Order::Inject(_) | Order::Drain | Order::Offer(_) | Order::Park => {}
                Order::Decide { .. } => {}
            }
        }
        Ok(())
    }

    async fn commit(&mut self, barrier: Barrier) -> Result<(), JobError> {
        self.chain.commit(barrier).await?;
        match &mut self.head {
            Head::Source(source) => source.acknowledge(barrier.epoch).await,
            Head::Inputs(_) => Ok(()),
        }
    }

    fn tell(&self, asked: &mpsc::Sender<TaskFacts>) {
        let head = match &self.head {
            Head::Source(source) => HeadFacts::Source(source.facts()),
            Head::Inputs(inputs) => HeadFacts::Inputs(inputs.facts()),
        };
        // Whoever asked may be gone; there is room for an answer of every task.
        let _unheard = asked.try_send(self.chain.facts(head)).is_err();
    }

    /// Ends the source, as though there were nothing left to read.
    async fn end_input(&mut self) -> Result<(), Stopped> {
        if let Head::Source(source) = &mut self.head
            && source.end(&mut self.chain).await?
        {
            self.report(Report::Exhausted { task: self.id }).await;
        }
        Ok(())
    }

    fn pause(&mut self, paused: bool) {
        if let Head::Source(source) = &mut self.head {
            source.pause(paused);
        }
    }

    /// Behind a barrier: prepares the plugin that was offered, and waits for what is decided. Nothing
    /// but commits happens meanwhile: no barrier is injected before all tasks have gone on.
    async fn swap(&mut self, epoch: Epoch) -> Result<(), Stopped> {
        let Some(offer) = self.offer.take() else { return Ok(()) };
        let began = self.clock.monotonic_nanos();
        let prepared = self.chain.prepare_swap(&offer).await;
        kill_point("swap-prepared");
        let result = prepared.map_err(|error| error.to_string());
        self.report(Report::Prepared { task: self.id, result }).await;
        let take = loop {
            match self.orders.recv().await {
                Some(Order::Decide { take }) => break take,
                Some(Order::Commit(barrier)) => self.commit(barrier).await?,
                Some(Order::Pause(paused)) => self.pause(paused),
                Some(Order::Tell(asked)) => self.tell(&asked),
                Some(Order::Inject(_) | Order::Offer(_) | Order::Park | Order::Drain) => {}
                None => return Err(Stopped::ReceiverGone),
            }
        };
        self.chain.settle_swap(&offer, take, epoch);
        kill_point("swap-settled");
        if take {
            let paused = Duration::from_nanos(self.clock.monotonic_nanos().saturating_sub(began));
            self.report(Report::WentOn { task: self.id, paused }).await;
        }
        Ok(())
    }

    async fn next(&mut self) -> Next {
        let now = self.clock.monotonic_nanos();
        let rests = self.chain.rests_until();
        let held = match &mut self.head {
            Head::Source(source) => source.is_held(rests.is_some()),
            Head::Inputs(_) => false,
        };
        let wake = self.wake_nanos(now, rests);
        let ended = self.ended;
        let untidy = !ended && self.chain.is_untidy();
        let incoming = async {
            match &mut self.head {
                Head::Source(source) if !ended => Next::Source(source.incoming(held).await),
                Head::Inputs(inputs) if !ended => Next::Arrival(inputs.queue.receive().await),
                Head::Source(_) | Head::Inputs(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = self.orders.recv() => match order {
                Some(order) => Next::Order(order),
                None => Next::Arrival(None),
            },
            () = async {
                match wake {
                    Some(wake) => self.clock.sleep_until(wake).await,
                    None => std::future::pending().await,
                }
            } => Next::Wake,
            next = incoming => next,
            () = std::future::ready(()), if untidy => Next::Idle,
        }
    }

    /// When the task has something to do though nothing comes in.
    fn wake_nanos(&self, now: u64, rests: Option<u64>) -> Option<u64> {
        if self.ended {
            return None;
        }
        let timer = self.chain.next_deadline().map(|deadline| {
            let micros = deadline.0.saturating_sub(self.clock.wall().0).max(0).unsigned_abs();
            now.saturating_add(micros.saturating_mul(1_000)).max(rests.unwrap_or(0))
        });
        let other = match &self.head {
            // One that rests reads on without being told.
            Head::Source(source) => source.next_idle_nanos().into_iter().chain(rests).min(),
            Head::Inputs(_) => None,
        };
        timer.into_iter().chain(other).min()
    }

    async fn inject(&mut self, barrier: Barrier) -> Result<(), Stopped> {
        let Head::Source(source) = &mut self.head else { return Ok(()) };
        self.epoch_wanted = false;
        if barrier.last {
            source.drain(&mut self.chain).await?;
        }
        source.reach(barrier, &mut self.chain).await?;
        let positions = source.cut(barrier.epoch);
        let mut cut = self.chain.barrier(barrier).await?;
        self.ended = barrier.last;
        cut.sources.push(positions);
        self.report_cut(barrier, cut).await;
        self.swap(barrier.epoch).await?;
        self.park()
    }

    /// Behind a barrier: stops where it is to be made a task of another graph.
    fn park(&mut self) -> Result<(), Stopped> {
        if !self.parks {
            return Ok(());
        }
        kill_point("exchange-parked");
        Err(Stopped::Parked)
    }

    async fn arrive(&mut self, arrival: Arrival) -> Result<(), Stopped> {
        let Head::Inputs(inputs) = &mut self.head else { return Ok(()) };
        let (input, lane) = inputs.feeds[arrival.input];
        if let (Some(lane), Some(merge)) = (lane, &mut inputs.merges[input]) {
            merge.push(lane, arrival);
            return self.replay_aside().await;
        }
        let arrival = Arrival { input, ..arrival };
        let runs_ahead = matches!(arrival.signal, Signal::Rows(_)) && planted("barrier-not-aligned");
        if inputs.alignment.is_blocked(arrival.input) && !runs_ahead {
            inputs.aside[arrival.input].push_back(arrival);
            return Ok(());
        }
        if self.take(arrival).await? {
            self.replay_aside().await?;
        }
        Ok(())
    }

    /// Handles a signal. `true` where it completed a barrier.
    async fn take(&mut self, arrival: Arrival) -> Result<bool, Stopped> {
        let Head::Inputs(inputs) = &mut self.head else { return Ok(false) };
        let Arrival { input, signal, permits } = arrival;
        // The sender's budget is given back when the signal has been worked off, not before.
        let _permits = permits;
        match signal {
            Signal::Rows(batch) => {
                self.chain.rows(inputs.ports[input], batch).await?;
                Ok(false)
            }
            Signal::Part { ticket, batches } => {
                self.chain.part(inputs.ports[input], ticket, batches).await?;
                Ok(false)
            }
            Signal::Give(group, to) => {
                self.chain.give(group, to).await?;
                Ok(false)
            }
            Signal::Take(from) => {
                self.chain.take(&from).await?;
                Ok(false)
            }
            Signal::Watermark { time, idle } => {
                let was_idle = inputs.watermarks.is_idle();
                let risen = inputs.watermarks.update(input, time, idle, self.clock.monotonic_nanos());
                let now_idle = inputs.watermarks.is_idle();
                if risen.is_some() || was_idle != now_idle {
                    self.chain.watermark(inputs.watermarks.watermark(), now_idle).await?;
                } else if planted("watermark-of-the-fastest") {
                    self.chain.watermark(time, now_idle).await?;
                }
                Ok(false)
            }
            Signal::Barrier(barrier) => {
                let aligned = inputs.alignment.on_barrier(input, barrier.epoch);
                match aligned.map_err(|cause| JobError::Order { node: self.chain.head().clone(), cause })? {
                    Aligned::Block => return Ok(false),
                    Aligned::Aligned(_) => {}
                }
                kill_point("barrier-aligned");
                self.epoch_wanted = false;
                let cut = self.chain.barrier(barrier).await?;
                self.ended = barrier.last;
                self.report_cut(barrier, cut).await;
                self.swap(barrier.epoch).await?;
                self.park()?;
                Ok(true)
            }
        }
    }

    /// What was set aside, or waited for other lanes, comes in, up to the next barrier of each input.
    async fn replay_aside(&mut self) -> Result<(), Stopped> {
        loop {
            let Head::Inputs(inputs) = &mut self.head else { return Ok(()) };
            let next = inputs.next_aside();
            let next = next.map_err(|cause| JobError::Order { node: self.chain.head().clone(), cause })?;
            let Some(arrival) = next else { return Ok(()) };
            self.take(arrival).await?;
        }
    }

    async fn ask_for_epoch(&mut self) {
        if self.epoch_wanted {
            return;
        }
        let source_wants = match &self.head {
            Head::Source(source) => source.wants_epoch(),
            Head::Inputs(_) => false,
        };
        if source_wants || self.chain.wants_epoch() {
            self.epoch_wanted = true;
            self.report(Report::EpochWanted).await;
        }
    }

    async fn report_cut(&mut self, barrier: Barrier, cut: Cut) {
        self.report(Report::Cut { task: self.id, barrier, cut }).await;
        kill_point("cut-reported");
    }

    async fn report(&mut self, report: Report) {
        // Without a coordinator the task is about to be ended: nobody is left to hear it.
        let _unheard = self.reports.send(report).await.is_err();
    }
}
