//! Another plugin in a stage of a running job: what is asked for, and where it stands.
//!
//! # Protocol
//! The coordinator offers the plugin to every task of the stage before it injects barrier *n*. A
//! task that has cut *n* opens the plugin on the state as of *n*, lets it work off once more what the
//! old one was last given, takes that back, says how it went, and waits. Once all have said so, the
//! coordinator decides for all of them: rows behind *n* are worked off by one version everywhere. The
//! other shares have the same barrier on its way, and none of them waits for rows behind it, so the
//! wait ends.
//!
//! A plugin that is to run beside the one of the stage ([`Beside`]), and the end of one that does, go the
//! same way; they are done with once all tasks have gone on.
//!
//! Until epoch *n+1* is durable the plugin is on trial: a call that fails ends the job with
//! [`JobError::TrialFailed`], and who runs it starts it anew from epoch *n*, which knows the old one.
//!
//! ```text
//! coordinator  ── Offer ──▶ tasks of the stage        ── barrier n ──▶ sources ──▶ … ──▶ tasks
//! tasks        ── cut n, then Prepared ──▶ coordinator ── Decide ──▶ tasks, which go on
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wasmill_contract::OperatorFactory;
use wasmill_model::{Epoch, KEY_GROUPS, KeyGroup, NodeName, key_group};

use crate::error::JobError;
use crate::shadow::ShadowReport;

/// A swap that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swapped {
    /// The last epoch of the old plugin.
    pub epoch: Epoch,
    /// How long the task that waited longest worked off nothing because of it.
    pub pause: Duration,
}

/// Why the old plugin still runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwapError {
    /// The job has no such stage.
    #[error("the job has no stage {stage:?}", stage = stage.as_str())]
    NoStage {
        /// What was asked for.
        stage: NodeName,
    },
    /// One at a time.
    #[error("another swap is under way")]
    Busy,
    /// The job ends.
    #[error("the job is ending")]
    Ending,
    /// It failed before it had processed anything.
    #[error("{reason}")]
    Refused {
        /// What failed.
        reason: String,
    },
    /// It failed on what it was given: the job goes on from the epoch before, with the old one.
    #[error("{reason}; the job went back to epoch {epoch}, and to the plugin before")]
    RolledBack {
        /// What failed.
        reason: String,
        /// The last epoch of the old plugin.
        epoch: Epoch,
    },
}

/// A share of the key groups, spread evenly over all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyShare(u16);

impl KeyShare {
    /// So many percent, and at least one group.
    #[must_use]
    pub fn percent(percent: u8) -> Self {
        Self((u16::from(percent.min(100)) * KEY_GROUPS / 100).clamp(1, KEY_GROUPS))
    }

    /// How many groups these are.
    #[must_use]
    pub fn groups(self) -> u16 {
        self.0
    }

    /// Whether a group is among them.
    #[must_use]
    pub fn has(self, group: KeyGroup) -> bool {
        // Tasks have runs of groups: an odd stride gives each its part.
        (u32::from(group.0) * 161 % u32::from(KEY_GROUPS)) < u32::from(self.0)
    }

    /// The places of the keys that are not among them, and of those that are; one of both where it has all.
    pub(crate) fn parts<'a>(self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u32>> {
        let mut parts = [Vec::new(), Vec::new()];
        for (row, key) in keys.enumerate() {
            parts[usize::from(self.has(key_group(key)))].push(row as u32);
        }
        let [others, mine] = parts;
        match (others.is_empty(), mine.is_empty()) {
            (false, false) => vec![others, mine],
            (true, _) => vec![mine],
            (_, true) => vec![others],
        }
    }
}

/// How a plugin runs beside the one of a stage.
#[derive(Debug, Clone)]
pub enum Beside {
    /// It is given the same calls, on a view of the state. What it does is compared, and dropped.
    Shadow(Arc<ShadowReport>),
    /// It has the rows, timers and state of a share of the key groups. A call of it that fails ends the
    /// job with [`JobError::TrialFailed`].
    Canary(KeyShare),
}

/// What is to become of a stage.
#[derive(Clone)]
pub(crate) enum Change {
    /// It goes on with another plugin. `trial`: whether the job can be started anew where that fails.
    Swap { factory: Arc<dyn OperatorFactory>, trial: bool },
    /// A plugin runs beside its own.
    Beside { factory: Arc<dyn OperatorFactory>, beside: Beside },
    /// Nothing runs beside its own any more.
    Alone,
}

/// A change of a stage.
pub(crate) struct Offer {
    pub(crate) stage: NodeName,
    pub(crate) change: Change,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plugin = match &self.change {
            Change::Swap { factory, .. } | Change::Beside { factory, .. } => Some(factory.digest()),
            Change::Alone => None,
        };
        f.debug_struct("Offer").field("stage", &self.stage).field("plugin", &plugin).finish()
    }
}

/// An offer, and who waits to hear what came of it.
#[derive(Debug)]
pub(crate) struct SwapWish {
    pub(crate) offer: Offer,
    pub(crate) done: oneshot::Sender<Result<Swapped, SwapError>>,
}

/// The swap that is under way.
pub(crate) struct Swapping {
    offer: Arc<Offer>,
    done: oneshot::Sender<Result<Swapped, SwapError>>,
    phase: Phase,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Until the next barrier.
    Wanted,
    /// Tasks that have not said yet whether they can.
    Preparing { epoch: Epoch, waiting: BTreeSet<usize>, refused: Option<String> },
    /// Tasks that have not gone on yet, and the longest pause so far.
    Deciding { epoch: Epoch, waiting: BTreeSet<usize>, pause: Duration },
    /// Until the next epoch is durable.
    Trial(Swapped),
    /// Nothing is left to wait for.
    Done(Swapped),
}

/// What to do after a task has said whether it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Wait for the others.
    Wait,
    /// All take the new one.
    Take,
    /// All keep the old one.
    Keep,
}

impl Swapping {
    pub(crate) fn new(wish: SwapWish) -> Self {
        Self { offer: Arc::new(wish.offer), done: wish.done, phase: Phase::Wanted }
    }

    pub(crate) fn stage(&self) -> &NodeName {
        &self.offer.stage
    }

    /// Barrier `epoch` is about to be injected: what to offer to its tasks.
    pub(crate) fn begin(&mut self, epoch: Epoch, tasks: BTreeSet<usize>) -> Option<Arc<Offer>> {
        if self.phase != Phase::Wanted {
            return None;
        }
        self.phase = Phase::Preparing { epoch, waiting: tasks, refused: None };
        Some(Arc::clone(&self.offer))
    }

    /// Whether tasks wait for a decision or go on just now: no barrier may come in between.
    pub(crate) fn holds_barriers(&self) -> bool {
        matches!(self.phase, Phase::Preparing { .. } | Phase::Deciding { .. })
    }

    /// A task can, or says why not.
    pub(crate) fn decide(&mut self, task: usize, result: Result<(), String>) -> Decision {
        let Phase::Preparing { epoch, waiting, refused } = &mut self.phase else { return Decision::Wait };
        waiting.remove(&task);
        if let Err(reason) = result {
            refused.get_or_insert(reason);
        }
        match (waiting.is_empty(), refused.is_some()) {
            (false, _) => Decision::Wait,
            (true, true) => Decision::Keep,
            (true, false) => {
                let epoch = *epoch;
                self.phase = Phase::Deciding { epoch, waiting: BTreeSet::new(), pause: Duration::ZERO };
                Decision::Take
            }
        }
    }

    /// These tasks are told to take it.
    pub(crate) fn told(&mut self, tasks: BTreeSet<usize>) {
        if let Phase::Deciding { waiting, .. } = &mut self.phase {
            *waiting = tasks;
        }
    }

    /// A task goes on with it.
    pub(crate) fn went_on(&mut self, task: usize, paused: Duration) {
        let Phase::Deciding { epoch, waiting, pause } = &mut self.phase else { return };
        waiting.remove(&task);
        *pause = paused.max(*pause);
        if waiting.is_empty() {
            let swapped = Swapped { epoch: *epoch, pause: *pause };
            let is_swap = matches!(self.offer.change, Change::Swap { .. });
            self.phase = if is_swap { Phase::Trial(swapped) } else { Phase::Done(swapped) };
        }
    }

    /// Whether nothing is left to wait for.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done(_))
    }

    /// Whether an epoch that is durable ends the trial.
    pub(crate) fn is_over(&self, durable: Epoch) -> bool {
        matches!(&self.phase, Phase::Trial(swapped) if durable > swapped.epoch)
    }

    /// Tells who waits. Nobody may.
    pub(crate) fn end(self, durable: Option<Epoch>, failed: Option<&JobError>) {
        let outcome = match (self.phase, failed) {
            (Phase::Done(swapped), _) => Ok(swapped),
            (Phase::Trial(swapped), _) if durable.is_some_and(|durable| durable > swapped.epoch) => Ok(swapped),
            (Phase::Preparing { refused: Some(reason), .. }, None) => Err(SwapError::Refused { reason }),
            (
                Phase::Trial(Swapped { epoch, .. }) | Phase::Deciding { epoch, .. },
                Some(JobError::TrialFailed { cause, .. }),
            ) => Err(SwapError::RolledBack { reason: cause.to_string(), epoch }),
            (_, Some(error)) => Err(SwapError::Refused { reason: format!("the job failed meanwhile: {error}") }),
            _ => Err(SwapError::Ending),
        };
        let _unheard = self.done.send(outcome);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use wasmill_contract::{Aggregate, BoxFuture, OpenError, Operator, OperatorContext};
    use wasmill_model::{Descriptor, PluginDigest};

    use super::*;

    /// A plugin that nobody opens.
    pub(crate) struct Unopened;

    impl OperatorFactory for Unopened {
        fn descriptor(&self) -> &Descriptor {
            unreachable!("nobody asks")
        }

        fn digest(&self) -> PluginDigest {
            PluginDigest([7; 32])
        }

        fn open(&self, _: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Operator>, Box<OpenError>>> {
            unreachable!("nobody opens it")
        }

        fn open_aggregate(&self, _: OperatorContext) -> BoxFuture<'_, Result<Box<dyn Aggregate>, Box<OpenError>>> {
            unreachable!("nobody opens it")
        }
    }

    fn swapping() -> (Swapping, oneshot::Receiver<Result<Swapped, SwapError>>) {
        let (done, heard) = oneshot::channel();
        let stage = NodeName::new("s").expect("a name");
        let change = Change::Swap { factory: Arc::new(Unopened), trial: true };
        (Swapping::new(SwapWish { offer: Offer { stage, change }, done }), heard)
    }

    #[test]
    fn a_share_of_the_keys_has_its_part_in_every_task() {
        for percent in 0..=100_u8 {
            let share = KeyShare::percent(percent);
            let has = |groups: std::ops::Range<u16>| groups.filter(|&group| share.has(KeyGroup(group))).count() as u16;
            assert_eq!(has(0..KEY_GROUPS), share.groups());
            for task in 0..4 {
                let part = has(task * 64..(task + 1) * 64);
                assert!(part.abs_diff(share.groups() / 4) <= 2, "{percent} % gives task {task} {part} groups");
            }
        }
        assert_eq!((KeyShare::percent(0).groups(), KeyShare::percent(100).groups()), (1, KEY_GROUPS));
    }

    #[test]
    fn a_plugin_beside_another_is_there_once_all_shares_have_gone_on() {
        let (mut swapping, mut heard) = swapping();
        swapping.offer = Arc::new(Offer { stage: swapping.stage().clone(), change: Change::Alone });
        swapping.begin(Epoch(4), [1].into());
        assert_eq!(swapping.decide(1, Ok(())), Decision::Take);
        swapping.told([1].into());
        assert!(!swapping.is_done());
        swapping.went_on(1, Duration::ZERO);
        assert!(swapping.is_done() && !swapping.is_over(Epoch(9)));
        swapping.end(None, None);
        assert_eq!(heard.try_recv(), Ok(Ok(Swapped { epoch: Epoch(4), pause: Duration::ZERO })));
    }

    #[test]
    fn all_shares_take_the_new_one_and_it_counts_once_an_epoch_is_durable() {
        let (mut swapping, mut heard) = swapping();
        assert!(!swapping.holds_barriers());
        assert!(swapping.begin(Epoch(4), [1, 2].into()).is_some());
        assert!(swapping.begin(Epoch(5), [1, 2].into()).is_none(), "offered once");
        assert!(swapping.holds_barriers());
        assert_eq!(swapping.decide(2, Ok(())), Decision::Wait);
        assert_eq!(swapping.decide(1, Ok(())), Decision::Take);
        swapping.told([1, 2].into());
        swapping.went_on(1, Duration::from_micros(5));
        assert!(swapping.holds_barriers());
        swapping.went_on(2, Duration::from_micros(3));
        assert!(!swapping.holds_barriers());
        assert!(!swapping.is_over(Epoch(4)) && swapping.is_over(Epoch(5)));
        swapping.end(Some(Epoch(5)), None);
        let swapped = Swapped { epoch: Epoch(4), pause: Duration::from_micros(5) };
        assert_eq!(heard.try_recv(), Ok(Ok(swapped)));
    }

    #[test]
    fn one_share_that_cannot_keeps_the_old_one_everywhere() {
        let (mut swapping, mut heard) = swapping();
        swapping.begin(Epoch(4), [1, 2].into());
        assert_eq!(swapping.decide(1, Err("no".into())), Decision::Wait);
        assert_eq!(swapping.decide(2, Ok(())), Decision::Keep);
        swapping.end(Some(Epoch(4)), None);
        assert_eq!(heard.try_recv(), Ok(Err(SwapError::Refused { reason: "no".into() })));
    }
}
