//! A source at the head of a chain: reads, extracts, and moves the watermark.

use std::collections::VecDeque;
use std::sync::Arc;

use wasmill_contract::{ConnectorError, Source, SourceCounts, SourceCut, SourceEvent};
use wasmill_env::{Clock, kill_point};
use wasmill_model::{Batch, Epoch, NodeName, PartitionId, Position, Timestamp};
use wasmill_order::{BoundedDisorder, Disorder, NO_MARK, Standing};
use wasmill_plan::{Extraction, Watermarks};
use wasmill_scan::Pointer;

use crate::batching::AdaptiveBatch;
use crate::chain::{Chain, Stopped};
use crate::error::JobError;
use crate::extract;
use crate::facts::{Reading, SourceFacts};
use crate::marks::Marks;
use crate::metrics::NodeMetrics;
use crate::ordering::is_true;
use crate::pace::Pacer;
use crate::signal::Barrier;

/// What comes in.
pub(crate) enum Incoming {
    /// The source has something.
    Event(Result<SourceEvent, ConnectorError>),
    /// The source of its watermarks has said something, or is gone.
    Mark { is_there: bool },
    /// The slowest of the sources that it keeps pace with has moved.
    Others,
}

/// The source of a task.
pub(crate) struct SourceHead {
    name: NodeName,
    source: Box<dyn Source>,
    extraction: Extraction,
    watermarks: BoundedDisorder,
    /// The watermarks of another source that it has in place of its own.
    marks: Option<Marks>,
    /// What people call its partitions.
    names: Vec<(PartitionId, String)>,
    /// Where a row says that it marks the watermark: then others do not move it.
    punctuated: Option<Pointer>,
    sent: (Timestamp, bool),
    batch: AdaptiveBatch,
    reading: bool,
    /// Somebody wants it to read nothing for now.
    paused: bool,
    /// Sources that it keeps pace with, and whether it waits for them.
    pace: Option<Pacer>,
    held: bool,
    read: u64,
    counts: SourceCounts,
    /// Positions of cuts whose epochs are not committed yet.
    cuts: VecDeque<(Epoch, Vec<(PartitionId, Position)>)>,
    /// Bytes read since the last barrier, and how many of them end an epoch early.
    epoch_bytes: (u64, u64),
    clock: Arc<dyn Clock>,
    metrics: Arc<NodeMetrics>,
}

impl SourceHead {
    #[expect(clippy::too_many_arguments, reason = "called once, where every part is at hand")]
    pub(crate) fn new(
        name: NodeName,
        source: Box<dyn Source>,
        extraction: Extraction,
        watermarks: Watermarks,
        partitions: Vec<(PartitionId, String)>,
        batch: AdaptiveBatch,
        epoch_bytes_max: u64,
        clock: Arc<dyn Clock>,
        metrics: Arc<NodeMetrics>,
    ) -> Self {
        let mut disorder = BoundedDisorder::new(Disorder {
            bound_micros: watermarks.bound_micros.unsigned_abs(),
            idle_micros: watermarks.idle_micros.map(i64::unsigned_abs),
            skew_micros: watermarks.skew_micros.map(i64::unsigned_abs),
        });
        let now = clock.monotonic_nanos();
        for (partition, _) in &partitions {
            disorder.join(*partition, now);
        }
        Self {
            watermarks: disorder,
            marks: None,
            names: partitions,
            punctuated: watermarks.punctuated,
            sent: (Timestamp::MIN, false),
            reading: true,
            paused: false,
            pace: None,
            held: false,
            read: 0,
            counts: SourceCounts::default(),
            cuts: VecDeque::new(),
            epoch_bytes: (0, epoch_bytes_max),
            name,
            source,
            extraction,
            batch,
            clock,
            metrics,
        }
    }

    /// The same source, keeping pace with others.
    pub(crate) fn with_pace(mut self, pace: Option<Pacer>) -> Self {
        self.pace = pace;
        self
    }

    /// The same source, with the watermarks of another one.
    pub(crate) fn with_marks(mut self, marks: Option<Marks>) -> Self {
        self.marks = marks;
        self
    }

    /// What the source of its watermarks has said before a barrier belongs before it here too.
    pub(crate) async fn reach(&mut self, barrier: Barrier, chain: &mut Chain) -> Result<(), Stopped> {
        let Some(marks) = &mut self.marks else { return Ok(()) };
        if !marks.reach(barrier).await {
            return Err(Stopped::ReceiverGone);
        }
        self.send_watermark(chain).await
    }

    /// Whether it `rests` for a budget, or is too far ahead of sources that it keeps pace with. As with a
    /// pause, no partition is idle for that.
    pub(crate) fn is_held(&mut self, rests: bool) -> bool {
        if !self.reading {
            return false;
        }
        let held = self.pace.as_mut().is_some_and(|pace| pace.holds().is_some()) || rests;
        if self.held && !held {
            self.watermarks.stay_awake(self.clock.monotonic_nanos());
        }
        self.held = held;
        held
    }

    /// Whether there may be more to read, and the epoch has room for it: where epochs are not
    /// committed as fast as rows come, the source waits for its barrier.
    pub(crate) fn may_read(&self) -> bool {
        self.reading && !self.paused && !self.wants_epoch()
    }

    /// Reads nothing more, or reads on. No partition is idle for that: what it holds back stays held
    /// back, and its silence counts anew once it is read again.
    pub(crate) fn pause(&mut self, paused: bool) {
        if self.paused && !paused {
            self.watermarks.stay_awake(self.clock.monotonic_nanos());
        }
        self.paused = paused;
    }

    /// How far it is, and whether it reads.
    pub(crate) fn facts(&self) -> SourceFacts {
        let name = |id: PartitionId| self.names.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone());
        let named = self.watermarks.partitions().map(|progress| {
            let name = name(progress.partition).unwrap_or_default();
            (progress, name)
        });
        let reading = match () {
            () if !self.reading => Reading::Ended,
            () if self.paused => Reading::Paused,
            () if self.wants_epoch() => Reading::WaitsForEpoch,
            () => match self.pace.as_ref().and_then(Pacer::waits_for) {
                Some(slowest) => Reading::WaitsForOthers(slowest),
                None => Reading::Reads,
            },
        };
        let from = self.marks.as_ref().map(|marks| marks.from.clone());
        SourceFacts {
            reading,
            watermark: self.sent.0,
            from,
            partitions: named.collect(),
            positions: self.source.positions(),
            becomes_idle: self.next_idle_nanos().is_some(),
        }
    }

    /// What comes in next. Where it is held nothing is read. Cancel safe.
    pub(crate) async fn incoming(&mut self, held: bool) -> Incoming {
        let (may_read, limit) = (self.may_read() && !held, self.batch.limit());
        let Self { source, marks, pace, .. } = self;
        if may_read && marks.is_none() {
            return Incoming::Event(source.next(limit).await);
        }
        let mark = async {
            match marks {
                Some(marks) => marks.changed().await,
                None => std::future::pending().await,
            }
        };
        let others = async {
            match pace {
                Some(pace) if held => pace.moved().await,
                Some(_) | None => std::future::pending().await,
            }
        };
        // Asked only when it is its turn: what a branch names is made before any of them is looked at.
        let read = async { source.next(limit).await };
        tokio::select! {
            biased;
            is_there = mark => Incoming::Mark { is_there },
            () = others => Incoming::Others,
            event = read, if may_read => Incoming::Event(event),
        }
    }

    pub(crate) async fn next(&mut self) -> Result<SourceEvent, ConnectorError> {
        self.source.next(self.batch.limit()).await
    }

    /// Hands what was read to the chain. `true` where nothing is left to read.
    pub(crate) async fn handle(
        &mut self,
        event: Result<SourceEvent, ConnectorError>,
        chain: &mut Chain,
    ) -> Result<bool, Stopped> {
        let event = event.map_err(|cause| JobError::Source { node: self.name.clone(), cause })?;
        let now = self.clock.monotonic_nanos();
        match event {
            SourceEvent::Rows(batch) => {
                let partition = batch.lineage().map_or(PartitionId(0), |lineage| lineage.partition);
                let rows = batch.len();
                chain.has_read(rows);
                self.epoch_bytes.0 += batch.byte_len() as u64;
                let extracted = extract::extract(batch, &self.extraction);
                if let Some((rows, reasons)) = extracted.rejected {
                    self.metrics.came_in(rows.len());
                    chain.malformed(rows, reasons);
                }
                self.hand_on(partition, extracted.events, now, chain).await?;
                self.batch.observe(rows, self.clock.monotonic_nanos().saturating_sub(now));
            }
            SourceEvent::Malformed { partition: _, offset, bytes, reason } => {
                let row = extract::single_row(&bytes, now, self.clock.wall());
                self.metrics.came_in(1);
                chain.malformed(row, vec![format!("{reason} (at offset {offset})")]);
            }
            SourceEvent::PartitionEnd(partition) => {
                self.watermarks.end(partition);
                self.send_watermark(chain).await?;
            }
            SourceEvent::End => {
                self.reading = false;
                self.progress();
                self.sent = (Timestamp::MAX, false);
                self.keep_pace(Standing::Ended);
                chain.watermark(Timestamp::MAX, false).await?;
                return Ok(true);
            }
        }
        self.progress();
        Ok(false)
    }

    /// Rows and the watermark that they make. Rows that lie behind it go after it, in order, so that
    /// what is late does not depend on how rows were cut into batches.
    async fn hand_on(
        &mut self,
        partition: PartitionId,
        rows: Batch,
        now: u64,
        chain: &mut Chain,
    ) -> Result<(), Stopped> {
        if self.marks.is_some() {
            chain.rows(0, rows).await?;
            return self.send_watermark(chain).await;
        }
        let wall = self.clock.wall();
        let skewed = self.watermarks.skewed();
        let marks = self.punctuated.as_ref().map(|mark| marks(&rows, mark));
        let mut at = 0;
        while at < rows.len() {
            let times = &rows.times()[at..];
            let marks = marks.as_ref().map_or(times, |marks| &marks[at..]);
            let end = at + self.watermarks.observe(partition, times, marks, now, wall);
            chain.rows(0, rows.slice(at..end)).await?;
            self.send_watermark(chain).await?;
            at = end;
        }
        if rows.is_empty() {
            self.send_watermark(chain).await?;
        }
        self.metrics.skewed(self.watermarks.skewed() - skewed);
        Ok(())
    }

    fn progress(&mut self) {
        if let Some(read) = self.source.progress() {
            self.metrics.has_read(read.saturating_sub(self.read));
            self.read = read;
        }
        let now = self.source.counts();
        self.metrics.counted(self.counts, now);
        self.counts = now;
    }

    /// The job is asked to end: rows that the source has taken and cannot give again go into the
    /// last epoch.
    pub(crate) async fn drain(&mut self, chain: &mut Chain) -> Result<(), Stopped> {
        if !self.reading || !self.source.stop() {
            return Ok(());
        }
        loop {
            let event = self.next().await;
            if matches!(event, Ok(SourceEvent::End)) {
                self.reading = false;
                return Ok(());
            }
            self.handle(event, chain).await?;
        }
    }

    /// Ends the input, as though there were nothing left to read. `false` where it has ended before.
    pub(crate) async fn end(&mut self, chain: &mut Chain) -> Result<bool, Stopped> {
        if !self.reading {
            return Ok(false);
        }
        self.drain(chain).await?;
        self.handle(Ok(SourceEvent::End), chain).await
    }

    /// When a partition that is silent becomes idle.
    pub(crate) fn next_idle_nanos(&self) -> Option<u64> {
        if self.reading && !self.paused && !self.held { self.watermarks.next_idle_nanos() } else { None }
    }

    /// Time has passed: partitions may have become idle.
    pub(crate) async fn tick(&mut self, chain: &mut Chain) -> Result<(), Stopped> {
        if self.paused || self.held {
            return Ok(());
        }
        self.send_watermark(chain).await
    }

    async fn send_watermark(&mut self, chain: &mut Chain) -> Result<(), Stopped> {
        // The watermark alone tells whether it rose; what was sent also tells whether it went idle.
        let _ = self.watermarks.advance(self.clock.monotonic_nanos());
        let now = match &self.marks {
            Some(marks) => marks.now(),
            None => (self.watermarks.watermark(), self.watermarks.is_idle()),
        };
        if self.reading && now != self.sent {
            self.sent = now;
            self.keep_pace(if now.1 { Standing::Idle } else { Standing::Live });
            chain.watermark(now.0, now.1).await?;
        }
        Ok(())
    }

    /// Tells the sources that it keeps pace with how far it is.
    fn keep_pace(&self, standing: Standing) {
        if let Some(pace) = &self.pace {
            pace.tell(self.watermarks.watermark(), standing);
        }
    }

    /// Whether it holds nothing back just now.
    pub(crate) fn is_idle(&self) -> bool {
        self.sent.1
    }

    /// Whether nothing is left to read.
    pub(crate) fn has_ended(&self) -> bool {
        !self.reading
    }

    /// Whether so much was read since the last barrier that the epoch should end.
    pub(crate) fn wants_epoch(&self) -> bool {
        self.epoch_bytes.0 > self.epoch_bytes.1
    }

    /// Positions as of now, for the cut.
    pub(crate) fn cut(&mut self, epoch: Epoch) -> SourceCut {
        self.epoch_bytes.0 = 0;
        self.progress();
        let positions = self.source.positions();
        self.cuts.push_back((epoch, positions.clone()));
        SourceCut { node: self.name.clone(), positions }
    }

    pub(crate) async fn acknowledge(&mut self, epoch: Epoch) -> Result<(), JobError> {
        while self.cuts.front().is_some_and(|(first, _)| *first < epoch) {
            self.cuts.pop_front();
        }
        let Some((_, positions)) = self.cuts.pop_front() else { return Ok(()) };
        kill_point("source-acknowledge");
        let told = self.source.acknowledge(epoch, &positions).await;
        kill_point("source-acknowledged");
        told.map_err(|cause| JobError::Source { node: self.name.clone(), cause })
    }
}

/// For each row how far it moves the latest time, at bound 0: one that is marked ends its own time.
fn marks(rows: &Batch, mark: &Pointer) -> Vec<i64> {
    let rows = rows.times().iter().zip(rows.values().iter());
    rows.map(|(time, value)| if is_true(value, mark) { time.saturating_add(1) } else { NO_MARK }).collect()
}
