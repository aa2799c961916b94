//! The nodes of one task.
//!
//! A chain is a tree: its first node has the task's inputs, every other node has one input, which
//! comes from a node of the chain. Nodes stand in topological order.
//!
//! # Ordering
//! Rows that a node sends on are worked off, down to the queues that leave the task, before the
//! node sees anything else: so a watermark or a barrier that is handed to the nodes in order
//! follows every row that came before it.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use wasmill_contract::{Cut, DeadLetter, OperatorError, Share};
use wasmill_env::{Clock as HostClock, kill_point, planted};
use wasmill_model::{
    Batch, Clock, Column, Entries, Epoch, KeyGroup, LetterKind, LetterSubject, NodeName, SpaceMigration, Timestamp,
    key_group, share_of,
};
use wasmill_plan::LATE;
use wasmill_spec::NewKey;
use wasmill_store::LetterId;
use wasmill_tenancy::Account;

use crate::convoy::{LaneOutput, Splitter};
use crate::error::JobError;
use crate::extract;
use crate::facts::{HeadFacts, TaskFacts};
use crate::metrics::{JobMetrics, NodeMetrics};
use crate::operator_slot::{Given, Moment, OperatorSlot, Produced};
use crate::ordering::{OrderSlot, Ordered};
use crate::queue::QueueSender;
use crate::replay::Replay;
use crate::signal::{Barrier, Signal};
use crate::sink_slot::{Meter, SinkSlot};
use crate::swap::Offer;
use crate::window_slot::WindowSlot;

/// Bytes of rejected rows that a task holds before it asks for an epoch.
const DEAD_LETTER_BYTES_MAX: usize = 16 * 1_024 * 1_024;

/// One node of the chain.
pub(crate) struct Slot {
    pub(crate) name: NodeName,
    pub(crate) kind: SlotKind,
    pub(crate) metrics: Arc<NodeMetrics>,
}

impl Slot {
    /// How much memory its plugin has.
    fn memory_bytes(&self) -> Option<u64> {
        match &self.kind {
            SlotKind::Operator(operator) => Some(operator.memory_bytes()),
            SlotKind::Window(window) => Some(window.memory_bytes()),
            SlotKind::Source | SlotKind::Sink(_) => None,
        }
    }

    /// Whether a plugin makes its rows.
    fn has_plugin(&self) -> bool {
        matches!(self.kind, SlotKind::Operator(_) | SlotKind::Window(_))
    }
}

/// What a slot does with rows.
pub(crate) enum SlotKind {
    /// Rows come from outside: the slot only sends them on.
    Source,
    /// An operator.
    Operator(OperatorSlot),
    /// An aggregate over windows.
    Window(WindowSlot),
    /// Rows leave the job.
    Sink(SinkSlot),
}

/// An edge that leaves a slot.
pub(crate) struct Output {
    /// Output port of the slot.
    pub(crate) port: u16,
    /// A new key for every row.
    pub(crate) key: Option<NewKey>,
    pub(crate) target: Target,
}

/// Where an edge leads.
pub(crate) enum Target {
    /// A slot of this chain and its input port.
    Local { slot: usize, port: u16 },
    /// Tasks of another chain: the owner of the key's group, of as many tasks as there are senders.
    Tasks(Vec<QueueSender>),
    /// Sources that have the watermarks of this one: they get no rows.
    Marks(Vec<QueueSender>),
    /// The lanes of a convoy.
    Lanes(Box<Splitter>),
    /// This chain is a lane: tasks that merge what it sends with what other lanes do.
    FromLane(LaneOutput),
}

/// Why a chain stopped.
pub(crate) enum Stopped {
    /// Something failed.
    Failed(JobError),
    /// A task that this one sends to went away: that task knows why.
    ReceiverGone,
    /// It stands behind a barrier, and a task of another graph is to be made of it.
    Parked,
}

impl From<JobError> for Stopped {
    fn from(error: JobError) -> Self {
        Self::Failed(error)
    }
}

/// What a chain is made of, between two epochs.
pub(crate) struct ChainParts {
    pub(crate) nodes: Vec<(Slot, Vec<Output>)>,
    pub(crate) orders: Orders,
    pub(crate) watermark: Timestamp,
}

/// The nodes of one task.
pub(crate) struct Chain {
    slots: Vec<Slot>,
    /// The edges that leave each slot. Apart from the slots, which no other thread may look at
    /// while the task waits for room in a queue.
    outputs: Vec<Vec<Output>>,
    share: Share,
    clock: Arc<dyn HostClock>,
    metrics: Arc<JobMetrics>,
    work: VecDeque<(usize, u16, Batch)>,
    watermark: Timestamp,
    dead_letters: Vec<DeadLetter>,
    dead_letter_bytes: usize,
    /// Dead letters of earlier epochs that were processed again.
    replayed: Vec<LetterId>,
    /// In a lane: rows belong to a ticket.
    in_ticket: bool,
    orders: Orders,
    /// Whose budgets its rows count against, and whether those hold it back.
    account: Option<Arc<Account>>,
    rests: bool,
}

/// The ordering buffers in front of a chain.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) slots: Vec<OrderSlot>,
    /// Whether some input port has none: then the watermark of the inputs counts too.
    pub(crate) partly: bool,
    /// The watermark of the inputs.
    pub(crate) input: Option<(Timestamp, bool)>,
}

impl Orders {
    /// How far rows behind the buffers are; `None` where nothing is known.
    fn watermark(&self) -> Option<Timestamp> {
        let input = self.input.filter(|_| self.partly).map(|(time, _)| time);
        if self.partly && input.is_none() {
            return None;
        }
        self.slots.iter().map(OrderSlot::promised).chain(input).min()
    }
}

impl Chain {
    pub(crate) fn new(
        nodes: Vec<(Slot, Vec<Output>)>,
        share: Share,
        clock: Arc<dyn HostClock>,
        metrics: Arc<JobMetrics>,
    ) -> Self {
        let (slots, outputs) = nodes.into_iter().unzip();
        Self {
            slots,
            outputs,
            share,
            clock,
            metrics,
            work: VecDeque::new(),
            watermark: Timestamp::MIN,
            dead_letters: Vec::new(),
            dead_letter_bytes: 0,
            replayed: Vec::new(),
            in_ticket: false,
            orders: Orders::default(),
            account: None,
            rests: false,
        }
    }

    /// Behind a barrier: opens the plugin that was offered beside the one of its stage.
    pub(crate) async fn prepare_swap(&mut self, offer: &Offer) -> Result<(), OperatorError> {
        let Some(place) = self.slots.iter().position(|slot| slot.name == offer.stage) else { return Ok(()) };
        match &mut self.slots[place].kind {
            SlotKind::Source | SlotKind::Sink(_) => Ok(()),
            SlotKind::Operator(operator) => operator.prepare_change(&offer.change).await,
            SlotKind::Window(window) => window.prepare_change(&offer.change).await,
        }
    }

    /// Goes on with what was prepared, or without it. `epoch` is the last of the old plugin.
    pub(crate) fn settle_swap(&mut self, offer: &Offer, take: bool, epoch: Epoch) {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.name == offer.stage) else { return };
        match &mut slot.kind {
            SlotKind::Operator(operator) => operator.settle_change(&offer.change, take, epoch),
            SlotKind::Window(window) => window.settle_change(&offer.change, take, epoch),
            SlotKind::Source | SlotKind::Sink(_) => {}
        }
    }

    /// The same chain with buffers in front.
    pub(crate) fn with_orders(mut self, orders: Orders) -> Self {
        self.orders = orders;
        self
    }

    /// The same chain, which is as far as this already.
    pub(crate) fn with_watermark(mut self, watermark: Timestamp) -> Self {
        self.watermark = watermark;
        self
    }

    /// Takes the chain apart, behind a barrier: nothing of it is under way.
    pub(crate) fn into_parts(self) -> ChainParts {
        let nodes = self.slots.into_iter().zip(self.outputs).collect();
        ChainParts { nodes, orders: self.orders, watermark: self.watermark }
    }

    /// Which share of its nodes it has.
    pub(crate) fn share(&self) -> Share {
        self.share
    }

    /// Says how far it is to those it sends to: to some of them nobody has yet.
    pub(crate) async fn announce(&mut self, idle: bool) -> Result<(), Stopped> {
        self.broadcast(&Signal::Watermark { time: self.watermark, idle }).await
    }

    /// The same chain, of a tenant.
    pub(crate) fn with_account(mut self, account: Option<Arc<Account>>) -> Self {
        self.account = account;
        self
    }

    /// Counts rows that its source has read.
    pub(crate) fn has_read(&self, rows: usize) {
        if let Some(account) = &self.account {
            account.events(rows);
        }
    }

    /// Until when its source is to read nothing and its timers are to rest: the tenant is over a budget.
    pub(crate) fn rests_until(&mut self) -> Option<u64> {
        let account = self.account.as_ref()?;
        let until = account.rests_until();
        if until.is_some() && !self.rests {
            account.throttled();
        }
        self.rests = until.is_some();
        until
    }

    /// The name of the first node.
    pub(crate) fn head(&self) -> &NodeName {
        &self.slots[0].name
    }

    /// What the task can say about time and order. `head` is where its rows come from.
    pub(crate) fn facts(&self, head: HeadFacts) -> TaskFacts {
        let windows = self.slots.iter().filter_map(|slot| match &slot.kind {
            SlotKind::Window(window) => Some(window.facts()),
            SlotKind::Source | SlotKind::Operator(_) | SlotKind::Sink(_) => None,
        });
        TaskFacts {
            nodes: self.slots.iter().map(|slot| slot.name.clone()).collect(),
            share: self.share.index,
            watermark: self.watermark,
            head,
            buffers: self.orders.slots.iter().map(OrderSlot::facts).collect(),
            windows: windows.collect(),
            due: self.next_timer(),
            gives_up: self.orders.slots.iter().any(|slot| slot.next_deadline().is_some()),
        }
    }

    fn moment(&self) -> Moment {
        Moment { watermark: self.watermark, wall: self.clock.wall(), monotonic_nanos: self.clock.monotonic_nanos() }
    }

    /// Rows for the first node.
    pub(crate) async fn rows(&mut self, port: u16, batch: Batch) -> Result<(), Stopped> {
        if self.orders.slots.iter().any(|order| order.port() == port) {
            return self.order(port, &batch).await;
        }
        self.work.push_back((0, port, batch));
        self.drain().await
    }

    /// The lane's part of a ticket: rows for the first node, and what comes of them as one.
    pub(crate) async fn part(&mut self, port: u16, ticket: u64, batches: Vec<Batch>) -> Result<(), Stopped> {
        self.in_ticket = true;
        for batch in batches {
            self.rows(port, batch).await?;
        }
        self.in_ticket = false;
        for output in self.outputs.iter_mut().flatten() {
            if let Target::FromLane(lane) = &mut output.target {
                lane.end(ticket).await.map_err(|_| Stopped::ReceiverGone)?;
            }
        }
        Ok(())
    }

    /// Hands what the lane keeps of a group of keys to another lane.
    pub(crate) async fn give(&mut self, group: KeyGroup, to: mpsc::Sender<Given>) -> Result<(), Stopped> {
        if let SlotKind::Operator(operator) = &mut self.slots[0].kind {
            let given = operator.give(group).await?;
            to.send(given).await.map_err(|_| Stopped::ReceiverGone)?;
        }
        Ok(())
    }

    /// Waits for what another lane hands over. That lane waits for nothing that this one has still to do:
    /// both have sent everything that came before.
    pub(crate) async fn take(&mut self, from: &Mutex<mpsc::Receiver<Given>>) -> Result<(), Stopped> {
        let given = from.lock().await.recv().await.ok_or(Stopped::ReceiverGone)?;
        if let SlotKind::Operator(operator) = &mut self.slots[0].kind {
            operator.take(given);
        }
        Ok(())
    }

    /// Rows for an input port that has an ordering buffer.
    async fn order(&mut self, port: u16, batch: &Batch) -> Result<(), Stopped> {
        let wall = self.clock.wall();
        let Some(place) = self.orders.slots.iter().position(|order| order.port() == port) else { return Ok(()) };
        let Ordered { forwarded, side, malformed } = self.orders.slots[place].offer(batch, wall);
        if let Some((rows, reasons)) = malformed {
            let (node, subject) = (self.head().clone(), LetterSubject::Row { port });
            let (digest, kind, stack) = (None, LetterKind::Malformed, Vec::new());
            self.keep(0, DeadLetter { node, digest, kind, subject, rows, reasons, stack });
        }
        self.work.extend(forwarded.map(|batch| (0, port, batch)));
        self.drain().await?;
        self.let_go(place, wall).await?;
        if let Some(side) = side {
            self.send(0, Produced { outputs: vec![(LATE, side)], letters: Vec::new() }).await?;
            self.drain().await?;
        }
        self.ordered().await
    }

    /// Works off what a buffer lets go, piece by piece: it may be more than fits into memory.
    async fn let_go(&mut self, place: usize, wall: Timestamp) -> Result<(), Stopped> {
        let port = self.orders.slots[place].port();
        loop {
            let piece = self.orders.slots[place].next(wall);
            let piece = piece.map_err(|cause| JobError::Spill { node: self.head().clone(), cause })?;
            let Some(batch) = piece else { return Ok(()) };
            self.work.push_back((0, port, batch));
            self.drain().await?;
        }
    }

    /// After something left a buffer: the watermark follows.
    async fn ordered(&mut self) -> Result<(), Stopped> {
        self.slots[0].metrics.ordering(self.share.index, self.orders.slots.iter().map(OrderSlot::counts));
        let Some(time) = self.orders.watermark() else { return Ok(()) };
        if time > self.watermark {
            let idle = self.orders.input.is_some_and(|(_, idle)| idle);
            self.raise(time, idle).await?;
        }
        Ok(())
    }

    /// Dead letters of an earlier epoch for one of the nodes. They are done with when this epoch is.
    pub(crate) async fn replay(&mut self, replay: Replay) -> Result<(), Stopped> {
        let Replay { ids, slot, port, rows, malformed } = replay;
        self.replayed.extend(ids);
        if let Some((rows, reasons)) = malformed {
            self.malformed(rows, reasons);
        }
        if !rows.is_empty() {
            self.work.push_back((slot, port, rows));
        }
        self.drain().await
    }

    /// Rows that the source of the chain could not make into events.
    pub(crate) fn malformed(&mut self, rows: Batch, reasons: Vec<String>) {
        self.keep(
            0,
            DeadLetter {
                node: self.head().clone(),
                digest: None,
                kind: LetterKind::Malformed,
                subject: LetterSubject::default(),
                rows,
                reasons,
                stack: Vec::new(),
            },
        );
    }

    /// Keeps a dead letter of a slot for the cut.
    fn keep(&mut self, slot: usize, letter: DeadLetter) {
        self.slots[slot].metrics.rejected(letter.rows.len());
        self.dead_letter_bytes += letter.byte_len();
        self.dead_letters.push(letter);
    }

    /// Whether it holds so much that an epoch should take it away.
    pub(crate) fn wants_epoch(&self) -> bool {
        let in_slot = |slot: &Slot| match &slot.kind {
            SlotKind::Operator(operator) => operator.wants_epoch(),
            SlotKind::Sink(sink) => sink.wants_epoch(),
            SlotKind::Source | SlotKind::Window(_) => false,
        };
        self.dead_letter_bytes > DEAD_LETTER_BYTES_MAX || self.slots.iter().any(in_slot)
    }

    async fn drain(&mut self) -> Result<(), Stopped> {
        while let Some((place, port, batch)) = self.work.pop_front() {
            let at = self.moment();
            let slot = &mut self.slots[place];
            slot.metrics.batch_in(batch.len(), batch.values().data().len());
            let produced = match &mut slot.kind {
                SlotKind::Source => Produced { outputs: vec![(0, batch)], letters: Vec::new() },
                SlotKind::Operator(operator) => operator.process(port, &batch, at).await?,
                SlotKind::Window(window) => window.process(&batch, at).await?,
                SlotKind::Sink(sink) => {
                    slot.metrics.show(&batch);
                    sink.write(&batch, Meter { clock: &*self.clock, metrics: &self.metrics }).await?;
                    Produced::default()
                }
            };
            if !matches!(slot.kind, SlotKind::Source) {
                slot.metrics.busy(self.clock.monotonic_nanos().saturating_sub(at.monotonic_nanos));
            }
            self.send(place, produced).await?;
            // Timers that the call set for a time that has passed fire at once.
            if let SlotKind::Operator(operator) = &self.slots[place].kind
                && [Clock::Event, Clock::Processing].iter().any(|&clock| operator.is_due(clock, at))
            {
                let at = Moment { monotonic_nanos: self.clock.monotonic_nanos(), ..at };
                self.fire_timers(place, at, false).await?;
            }
        }
        Ok(())
    }

    /// Sends on what slot `place` produced: into this chain's work, or to other tasks.
    async fn send(&mut self, place: usize, produced: Produced) -> Result<(), Stopped> {
        for letter in produced.letters {
            self.keep(place, letter);
        }
        let has_plugin = self.slots[place].has_plugin();
        for (port, batch) in produced.outputs {
            self.slots[place].metrics.out(batch.len());
            if let Some(account) = self.account.as_ref().filter(|_| has_plugin) {
                account.rows_out(batch.len());
            }
            self.slots[place].metrics.show(&batch);
            for output in self.outputs[place].iter_mut().filter(|output| output.port == port) {
                let batch = match &output.key {
                    Some(NewKey::At(pointer)) => extract::rekey(&batch, pointer),
                    Some(NewKey::Empty) => batch.clone().with_keys(Arc::new(Column::empty_rows(batch.len()))),
                    None => batch.clone(),
                };
                if let Target::Local { slot, port } = &output.target {
                    self.work.push_back((*slot, *port, batch));
                    continue;
                }
                let began = self.clock.monotonic_nanos();
                match &mut output.target {
                    Target::Local { .. } => {}
                    Target::Tasks(tasks) => exchange(tasks, batch).await?,
                    Target::Marks(_) => {}
                    Target::Lanes(splitter) => {
                        splitter.deal(&batch).await.map_err(|_| Stopped::ReceiverGone)?;
                    }
                    Target::FromLane(lane) if self.in_ticket => lane.hold(batch),
                    Target::FromLane(lane) => exchange(lane.tasks(), batch).await?,
                }
                let took = self.clock.monotonic_nanos().saturating_sub(began);
                self.slots[place].metrics.blocked(took);
            }
        }
        Ok(())
    }

    /// Fires what is due in one slot. `drain` works off what comes out before more fires.
    async fn fire_timers(&mut self, place: usize, at: Moment, drain: bool) -> Result<(), Stopped> {
        for clock in [Clock::Event, Clock::Processing] {
            let mut rounds = 0;
            loop {
                let SlotKind::Operator(operator) = &mut self.slots[place].kind else { return Ok(()) };
                if !operator.is_due(clock, at) {
                    break;
                }
                operator.storm(rounds)?;
                rounds += 1;
                let Some(produced) = operator.fire(clock, at).await? else { break };
                self.send(place, produced).await?;
                if drain {
                    Box::pin(self.drain()).await?;
                }
            }
        }
        Ok(())
    }

    /// The watermark of the task's inputs. Windows and timers fire, node by node.
    pub(crate) async fn watermark(&mut self, time: Timestamp, idle: bool) -> Result<(), Stopped> {
        if self.orders.slots.is_empty() {
            return self.raise(time, idle).await;
        }
        let went_idle = self.orders.input.is_some_and(|(_, was)| was) != idle;
        self.orders.input = Some((time, idle));
        let wall = self.clock.wall();
        for place in 0..self.orders.slots.len() {
            self.orders.slots[place].watermark(time);
            self.let_go(place, wall).await?;
        }
        if went_idle {
            self.raise(self.watermark, idle).await?;
        }
        self.ordered().await
    }

    /// The watermark of the chain, behind its buffers.
    async fn raise(&mut self, time: Timestamp, idle: bool) -> Result<(), Stopped> {
        // Inputs that are new may be behind those that were there.
        let time = time.max(self.watermark);
        if time > self.watermark {
            self.watermark = time;
            for place in 0..self.slots.len() {
                self.watermark_in(place).await?;
            }
        }
        self.broadcast(&Signal::Watermark { time, idle }).await
    }

    async fn fire_windows(&mut self, place: usize, at: Moment) -> Result<(), Stopped> {
        while let SlotKind::Window(window) = &mut self.slots[place].kind {
            let Some(produced) = window.fire(at).await? else { break };
            self.send(place, produced).await?;
            self.drain().await?;
        }
        Ok(())
    }

    async fn watermark_in(&mut self, place: usize) -> Result<(), Stopped> {
        let at = self.moment();
        self.slots[place].metrics.watermark(self.watermark);
        self.fire_windows(place, at).await?;
        self.fire_timers(place, at, true).await?;
        if let SlotKind::Operator(operator) = &mut self.slots[place].kind {
            let produced = operator.on_watermark(at).await?;
            self.send(place, produced).await?;
            self.drain().await?;
            self.fire_timers(place, at, true).await?;
        }
        Ok(())
    }

    /// Fires processing-time timers and windows that are due.
    pub(crate) async fn wall(&mut self) -> Result<(), Stopped> {
        let at = self.moment();
        if !self.orders.slots.is_empty() {
            for place in 0..self.orders.slots.len() {
                self.let_go(place, at.wall).await?;
            }
            self.ordered().await?;
        }
        for place in 0..self.slots.len() {
            self.fire_windows(place, at).await?;
            self.fire_timers(place, at, true).await?;
        }
        Ok(())
    }

    /// Whether there is something to do ahead of the barrier, see [`Chain::tidy`].
    pub(crate) fn is_untidy(&self) -> bool {
        self.slots.iter().any(|slot| matches!(&slot.kind, SlotKind::Operator(operator) if operator.is_untidy()))
    }

    /// Flushes operators ahead of the barrier, which then finds little to write: the pause of an epoch is spread over
    /// the times when nothing comes in.
    pub(crate) async fn tidy(&mut self) -> Result<(), JobError> {
        let at = self.moment();
        for place in 0..self.slots.len() {
            if let SlotKind::Operator(operator) = &mut self.slots[place].kind
                && operator.is_untidy()
            {
                let letters = operator.write_back(at).await?;
                letters.into_iter().for_each(|letter| self.keep(place, letter));
            }
        }
        Ok(())
    }

    /// When the next processing-time timer or window is due, or a row that waits.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.orders.slots.iter().filter_map(OrderSlot::next_deadline).chain(self.next_timer()).min()
    }

    /// When the next processing-time timer or window is due.
    fn next_timer(&self) -> Option<Timestamp> {
        let due = self.slots.iter().filter_map(|slot| match &slot.kind {
            SlotKind::Operator(operator) => operator.next_deadline(),
            SlotKind::Window(window) => window.next_deadline(),
            SlotKind::Source | SlotKind::Sink(_) => None,
        });
        due.min()
    }

    /// Ends an epoch: what the chain holds becomes its cut, and the barrier goes on.
    pub(crate) async fn barrier(&mut self, barrier: Barrier) -> Result<Cut, Stopped> {
        let mut cut = Cut::default();
        let at = self.moment();
        for place in 0..self.slots.len() {
            if let Some(bytes) = self.slots[place].memory_bytes() {
                self.slots[place].metrics.memory(self.share.index, bytes);
            }
            match &mut self.slots[place].kind {
                SlotKind::Source => {}
                SlotKind::Operator(operator) => {
                    let (stage, letters) = operator.cut(self.share, at).await?;
                    cut.stages.push(stage);
                    letters.into_iter().for_each(|letter| self.keep(place, letter));
                }
                SlotKind::Window(window) => cut.stages.push(window.cut(self.share).await),
                SlotKind::Sink(sink) => cut.sinks.push(sink.cut(self.share, barrier.epoch).await?),
            }
        }
        for order in &mut self.orders.slots {
            let held = order.cut(self.share);
            let node = || self.slots[0].name.clone();
            cut.held.extend(held.map_err(|cause| JobError::Spill { node: node(), cause })?);
        }
        if planted("held-not-in-cut") {
            cut.held.clear();
        }
        kill_point("stages-cut");
        cut.dead_letters = self.take_dead_letters();
        if planted("letters-not-in-cut") {
            cut.dead_letters.clear();
        }
        cut.replayed = std::mem::take(&mut self.replayed);
        self.broadcast(&Signal::Barrier(barrier)).await?;
        Ok(cut)
    }

    /// Dead letters that no cut has taken yet.
    pub(crate) fn take_dead_letters(&mut self) -> Vec<DeadLetter> {
        self.dead_letter_bytes = 0;
        std::mem::take(&mut self.dead_letters)
    }

    /// Puts a fresh instance in the place of the first node's, on the same state and timers.
    pub(crate) async fn restart_first(&mut self) -> Result<(), JobError> {
        match &mut self.slots[0].kind {
            SlotKind::Operator(operator) => operator.restart().await,
            SlotKind::Window(window) => window.restart().await,
            SlotKind::Source | SlotKind::Sink(_) => Ok(()),
        }
    }

    /// Gives the first node entries as another schema version has left them.
    pub(crate) async fn migrate_first(&mut self, of: SpaceMigration, entries: &Entries) -> Result<(), JobError> {
        match &mut self.slots[0].kind {
            SlotKind::Operator(operator) => operator.migrate_entries(of, entries).await,
            SlotKind::Window(_) | SlotKind::Source | SlotKind::Sink(_) => Ok(()),
        }
    }

    /// The epoch is durable: sinks make its rows visible.
    pub(crate) async fn commit(&mut self, barrier: Barrier) -> Result<(), JobError> {
        self.commit_but(barrier, |_| false).await
    }

    /// The same, where it is the last epoch of some nodes.
    pub(crate) async fn commit_but(
        &mut self,
        barrier: Barrier,
        is_last: impl Fn(&NodeName) -> bool,
    ) -> Result<(), JobError> {
        for slot in &mut self.slots {
            let last = barrier.last || is_last(&slot.name);
            match &mut slot.kind {
                SlotKind::Source => {}
                SlotKind::Operator(operator) => operator.committed(barrier.epoch),
                SlotKind::Window(window) => window.committed(barrier.epoch),
                SlotKind::Sink(sink) => {
                    let meter = Meter { clock: &*self.clock, metrics: &self.metrics };
                    sink.commit(barrier.epoch, last, meter).await?;
                }
            }
        }
        Ok(())
    }

    async fn broadcast(&mut self, signal: &Signal) -> Result<(), Stopped> {
        for output in self.outputs.iter_mut().flatten() {
            let tasks = match &output.target {
                Target::Local { .. } => &[],
                Target::Tasks(tasks) | Target::Marks(tasks) => &**tasks,
                Target::Lanes(splitter) => splitter.lanes(),
                Target::FromLane(lane) => lane.tasks(),
            };
            for task in tasks {
                task.send(signal.clone()).await.map_err(|_| Stopped::ReceiverGone)?;
            }
            if let (Target::Lanes(splitter), Signal::Barrier(Barrier { last: false, .. })) =
                (&mut output.target, signal)
            {
                splitter.epoch_done().await.map_err(|_| Stopped::ReceiverGone)?;
            }
        }
        Ok(())
    }
}

/// Sends every row to the task that owns its key group, in order.
async fn exchange(tasks: &[QueueSender], batch: Batch) -> Result<(), Stopped> {
    for (task, part) in shares(batch, tasks.len()) {
        tasks[task].send(Signal::Rows(part)).await.map_err(|_| Stopped::ReceiverGone)?;
    }
    Ok(())
}

/// The rows of a batch by the task that owns their key group; tasks without rows are left out.
pub(crate) fn shares(batch: Batch, tasks: usize) -> Vec<(usize, Batch)> {
    if tasks == 1 {
        return vec![(0, batch)];
    }
    let parallelism = tasks as u16;
    let mut shares: Vec<Vec<u32>> = vec![Vec::new(); tasks];
    for (row, key) in batch.keys().iter().enumerate() {
        shares[usize::from(share_of(key_group(key), parallelism))].push(row as u32);
    }
    let some = shares.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    let part = |rows: &[u32]| if rows.len() == batch.len() { batch.clone() } else { batch.gather(rows) };
    some.map(|(task, rows)| (task, part(&rows))).collect()
}
