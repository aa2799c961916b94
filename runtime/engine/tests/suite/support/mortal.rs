//! Jobs that die and go on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use wasmill_contract::{BoxFuture, CommitError, Committer, Cut, epoch_record};
use wasmill_engine::{JobHandle, JobSettings};
use wasmill_env::{Disk, RealClock, SimulatedDisk};
use wasmill_model::{Epoch, ErrorKind};
use wasmill_spec::Delivery;
use wasmill_store::{JobStore, LetterId, LetterRecord, Recovered, StoreOptions};

use super::graph::Graph;

/// Where a run dies: at its n-th commit, before that is durable or right after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    pub(crate) commits: u64,
    pub(crate) durable: bool,
}

/// Commits to a store, and dies when told to.
pub(crate) struct Mortal {
    store: JobStore,
    death: Option<Death>,
    commits: u64,
}

impl Mortal {
    /// A committer over what a disk holds, and what that is.
    pub(crate) fn open(disk: &Arc<dyn Disk>, death: Option<Death>) -> (Self, Recovered) {
        let (store, recovered) = open(disk);
        (Self { store, death, commits: 0 }, recovered)
    }
}

impl Committer for Mortal {
    fn commit(&mut self, epoch: Epoch, cuts: Vec<Cut>) -> BoxFuture<'_, Result<(), CommitError>> {
        self.commits += 1;
        let dies = self.death.filter(|death| death.commits == self.commits);
        let died = CommitError { epoch, kind: ErrorKind::Unavailable, reason: "killed".into() };
        if dies.is_some_and(|death| !death.durable) {
            return Box::pin(async { Err(died) });
        }
        self.store.commit(epoch, &epoch_record(cuts, Clone::clone)).expect("a disk without faults");
        Box::pin(async move { if dies.is_some() { Err(died) } else { Ok(()) } })
    }
}

/// What is left of a job that has ended.
pub(crate) struct Left {
    pub(crate) recovered: Recovered,
    pub(crate) letters: Vec<LetterRecord>,
    /// Of the last run.
    pub(crate) job: JobHandle,
}

/// Runs a job again and again until it ends, dying as told.
pub(crate) fn survive(deaths: &[Death], graph: impl FnMut(usize) -> Graph) -> Left {
    survive_as(Delivery::ExactlyOnce, deaths, graph)
}

/// As [`survive`], with this delivery.
pub(crate) fn survive_as(delivery: Delivery, deaths: &[Death], mut graph: impl FnMut(usize) -> Graph) -> Left {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let disk: Arc<dyn Disk> = Arc::new(SimulatedDisk::default());
        for run in 0..=deaths.len() {
            let (committer, recovered) = Mortal::open(&disk, deaths.get(run).copied());
            let settings =
                JobSettings { epoch_interval: Duration::from_micros(200), delivery, ..JobSettings::default() };
            let clock = Arc::new(RealClock::default());
            let mut job = graph(run).resume(settings, recovered, Box::new(committer), clock).await;
            if job.wait().await.is_ok() {
                let (store, recovered) = open(&disk);
                let letters = store.letters(LetterId(0), usize::MAX).expect("a disk without faults");
                let letters = letters.into_iter().map(|(_, letter)| letter).collect();
                return Left { recovered, letters, job };
            }
        }
        panic!("the last run does not die");
    })
}

fn open(disk: &Arc<dyn Disk>) -> (JobStore, Recovered) {
    let opened = JobStore::open(Arc::clone(disk), Path::new("state"), StoreOptions::default());
    opened.expect("whoever had it open is gone")
}

pub(crate) fn deaths() -> impl Strategy<Value = Vec<Death>> {
    let death = (1u64..6, any::<bool>()).prop_map(|(commits, durable)| Death { commits, durable });
    prop::collection::vec(death, 0..5)
}
