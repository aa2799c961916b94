//! Job files that are deployed: a new job, or another file for one that there is.
//!
//! # Crash consistency
//! A job that runs goes on with another file without being started again, where it can. Two things have to agree
//! then: what is wanted of the job, and the graph that its epochs say. So the file is kept as the *next* one first;
//! the first epoch of another graph says the number of the deployment; and once that is durable the next file takes
//! the place of the one before. Whoever finds a next file reads the last epoch: where it has the number of that
//! file the job goes on with it, else with the one before.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use wasmill_env::{RealDisk, kill_point};
use wasmill_model::{JobName, NodeName, PluginDigest};
use wasmill_spec::{JobSpec, PluginRef};
use wasmill_store::{JobStore, StoreError, StoreOptions};

use super::admission::{self, Admitted, Deployed};
use super::blocking::blocking;
use super::host::{Change, JobOrder};
use super::jobs::{JobView, observed, to_the_end};
use super::problem::Problem;
use super::record::Desired;
use super::slot::{Phase, Run, Slot};
use super::tenant::{Tenant, no_job};
use crate::apply::{self, PluginChange};
use crate::identity;
use crate::local::Refusal;

/// Memory that a look at the last epoch takes: entries are not read into it.
const CACHE_BYTES: u64 = 64 << 20;
/// A write of a job that was cut off ends within this many looks.
const LOOKS_MAX: u32 = 300;
const LOOK: Duration = Duration::from_millis(100);

/// What a job file changes, and whether a job that runs went on with it.
struct Made {
    change: Option<Value>,
    in_place: bool,
}

impl Tenant {
    /// Deploys a job: a new one, or another file for one that there is, which goes on from its state.
    /// `allow_dropped`: what its state holds for nodes that it has no more may be forgotten.
    pub(super) async fn deploy(
        self: &Arc<Self>,
        job: JobName,
        text: String,
        allow_dropped: bool,
    ) -> Result<(JobView, bool), Problem> {
        let span = tracing::info_span!("deploy", tenant = %self.name, job = %job, error = tracing::field::Empty);
        observed(self.deploy_now(job, text, allow_dropped), span).await
    }

    async fn deploy_now(
        self: &Arc<Self>,
        job: JobName,
        text: String,
        allow_dropped: bool,
    ) -> Result<(JobView, bool), Problem> {
        self.admit_change()?;
        self.has_room().await?;
        let (admitted, order) = self.admitted(Some(&job), &text)?;
        let order = JobOrder { allow_dropped, ..order };
        self.compile(self.parts.host.check(&order)).await?;
        let tenant = Arc::clone(self);
        to_the_end(async move {
            let slot = tenant.slot_or_new(&job);
            let mut run = slot.run.lock().await;
            let now = tenant.parts.clock.wall().0;
            let is_new = !tenant.record().jobs.contains_key(&job);
            let made = tenant.in_place(&slot, &mut run, &admitted, order).await?;
            if is_new {
                // What is left of one whose removal was cut off.
                tenant.remove_job_dir(&job).await?;
            }
            if !made.in_place {
                let reserved = tenant.change(move |record| {
                    let deployed = Deployed { admitted: &admitted, text: &text, allow_dropped, now };
                    admission::reserve(record, &deployed)
                });
                if let Err(problem) = reserved.await {
                    if is_new {
                        tenant.forget_slot(&job);
                    }
                    return Err(problem);
                }
            }
            kill_point("serve-job-deployed");
            if !made.in_place {
                tenant.halt(&job, &slot, &mut run, false).await;
                tenant.start(&job, &slot, &mut run);
            }
            drop(run);
            let view = tenant.job(&job).await?;
            Ok((JobView { change: made.change, ..view }, is_new))
        })
        .await
    }

    /// Says what another file would change for a job, and how.
    pub(super) async fn plan(
        self: &Arc<Self>,
        job: JobName,
        text: String,
        allow_dropped: bool,
    ) -> Result<Value, Problem> {
        self.admit_change()?;
        let slot = self.slot(&job)?;
        let (admitted, order) = self.admitted(Some(&job), &text)?;
        let order = JobOrder { allow_dropped, ..order };
        self.compile(self.parts.host.check(&order)).await?;
        if slot.board.phase() == Phase::Running {
            return Ok(slot.change(Change { order, revision: 0, only_plan: true }).await?);
        }
        let record = self.record();
        let wanted = record.jobs.get(&job).ok_or_else(|| no_job(&job))?;
        let (before, after) = (admission::parse(wanted.text.as_bytes())?, admission::parse(text.as_bytes())?);
        let pinned = wanted.pins.iter().filter_map(|(name, digest)| Some((name.clone(), digest.parse().ok()?)));
        let (pinned, mut plugins) = (pinned.collect(), BTreeMap::new());
        for stage in after.stages.keys().filter(|stage| before.stages.contains_key(*stage)) {
            let other = plugin((&before, &pinned), stage) != plugin((&after, &admitted.pins), stage);
            plugins.insert(stage.clone(), PluginChange { other, differences: Vec::new(), stateful: true });
        }
        let plan = apply::decide(&before.difference(&after), &plugins, &[], allow_dropped).at_rest();
        serde_json::to_value(plan).map_err(|error| Problem::internal(format!("the plan cannot be said: {error}")))
    }

    /// Has a job that runs go on with another file, where it need not end for it. `run` is that of the slot.
    async fn in_place(
        self: &Arc<Self>,
        slot: &Slot,
        run: &mut Option<Run>,
        admitted: &Admitted,
        order: JobOrder,
    ) -> Result<Made, Problem> {
        let (job, allow_dropped) = (&admitted.job, order.allow_dropped);
        let record = self.record();
        let Some(wanted) = record.jobs.get(job).filter(|_| slot.board.phase() == Phase::Running) else {
            return Ok(Made { change: None, in_place: false });
        };
        let order = JobOrder { paused: wanted.desired == Desired::Paused, ..order };
        let plan = match slot.change(Change { order: order.clone(), revision: 0, only_plan: true }).await {
            Ok(plan) => plan,
            Err(refusal) if slot.board.phase() == Phase::Running => return Err(refusal.into()),
            // It has ended meanwhile.
            Err(_) => return Ok(Made { change: None, in_place: false }),
        };
        if let Some(refusal) = refused(&plan) {
            return Err(refusal.into());
        }
        if plan["how"] == "restart" {
            return Ok(Made { change: Some(plan), in_place: false });
        }
        let (of, text, now) = (admitted.clone(), Arc::clone(&order.text), self.parts.clock.wall().0);
        let next = self.change(move |record| {
            admission::reserve_next(record, &Deployed { admitted: &of, text: &text, allow_dropped, now })
        });
        let revision = next.await?;
        let before = slot.undecided();
        let answer = slot.change(Change { order: order.clone(), revision, only_plan: false }).await;
        let refusal = match answer {
            Ok(change) => {
                slot.changed(order);
                let taken = self.decided(job, true).await;
                for _ in change["swaps"].as_array().into_iter().flatten() {
                    slot.board.swapped();
                }
                // It failed while it was not known how it goes on.
                if run.as_ref().is_some_and(Run::is_over) && slot.board.phase() == Phase::Stopped {
                    self.halt(job, slot, run, false).await;
                    taken?;
                    self.start(job, slot, run);
                } else {
                    taken?;
                }
                return Ok(Made { change: Some(change), in_place: true });
            }
            Err(refusal) => refusal,
        };
        if refusal.undecided || run.as_ref().is_none_or(Run::is_over) {
            self.halt(job, slot, run, true).await;
            let taken = self.settle(job).await?;
            self.start(job, slot, run);
            if taken {
                return Ok(Made { change: Some(plan), in_place: true });
            }
        } else {
            if let Some(before) = before {
                slot.changed(before);
            }
            self.decided(job, false).await?;
        }
        Err(refusal.into())
    }

    /// It is known whether a job goes on with the next file.
    async fn decided(&self, job: &JobName, taken: bool) -> Result<(), Problem> {
        let job = job.clone();
        self.change(move |record| {
            let wanted = record.jobs.get_mut(&job).ok_or_else(|| no_job(&job))?;
            Arc::make_mut(wanted).decided(taken);
            Ok(())
        })
        .await
    }

    /// Finds out whether a job that does not run goes on with its next file: its last epoch tells.
    async fn settle(&self, job: &JobName) -> Result<bool, Problem> {
        let (dir, mut looks) = (self.job_dir(job).join("state"), 0);
        let number = loop {
            let dir = dir.clone();
            let looked = blocking(move || Ok(last_graph(&dir))).await?;
            looks += 1;
            match looked {
                // A write of the run before has not ended yet.
                Err(StoreError::InUse { .. }) if looks < LOOKS_MAX => self.parts.clock.sleep(LOOK).await,
                looked => break looked?,
            }
        };
        let record = self.record();
        let wanted = record.jobs.get(job).ok_or_else(|| no_job(job))?;
        let taken = wanted.next.is_some() && number == Some(wanted.revision + 1);
        self.decided(job, taken).await?;
        Ok(taken)
    }

    /// Settles every job that a kill left undecided. None runs.
    pub(super) async fn settle_all(&self) {
        let record = self.record();
        for (job, _) in record.jobs.iter().filter(|(_, wanted)| wanted.next.is_some()) {
            if let Err(problem) = self.settle(job).await {
                tracing::warn!("job {job} of tenant {}: its last epoch cannot be read: {}", self.name, problem.detail);
            }
        }
    }

    /// The same job with another parallelism of a node, from its state.
    pub(super) async fn rescale(
        self: &Arc<Self>,
        job: JobName,
        node: &NodeName,
        parallelism: u16,
    ) -> Result<JobView, Problem> {
        let record = self.record();
        let wanted = record.jobs.get(&job).ok_or_else(|| no_job(&job))?;
        let text = self.parts.host.rescaled(&wanted.text, node.as_str(), parallelism)?;
        Ok(self.deploy(job, text, false).await?.0)
    }
}

/// The number of the deployment that exchanged the graph last, as the last epoch of a state directory says. Blocks.
fn last_graph(state: &Path) -> Result<Option<u64>, StoreError> {
    if !state.join("lock").exists() {
        return Ok(None);
    }
    let options = StoreOptions::on_disk(CACHE_BYTES);
    let (_store, recovered) = JobStore::open(Arc::new(RealDisk), state, options)?;
    Ok(identity::graph_number(&recovered.meta))
}

/// Why a job cannot go on with another file, as its plan says.
fn refused(plan: &Value) -> Option<Refusal> {
    let why: Vec<&str> = plan["refused"].as_array()?.iter().filter_map(Value::as_str).collect();
    if why.is_empty() {
        return None;
    }
    let refusal = Refusal::new(format!("the job goes on as it is: {}", why.join("; ")));
    let gone = why.iter().any(|why| why.contains("is gone"));
    Some(if gone { refusal.hint(apply::ALLOW_DROPPED) } else { refusal })
}

/// A job file, and what names of plugins stand for in it.
type Pinned<'a> = (&'a JobSpec, &'a BTreeMap<String, PluginDigest>);

/// The plugin of a stage, whatever it is called.
fn plugin((spec, pins): Pinned<'_>, stage: &NodeName) -> Option<String> {
    Some(match &spec.stages.get(stage)?.plugin {
        PluginRef::Path(named) => pins.get(named)?.to_string(),
        PluginRef::Standard(name) => format!("std:{name}"),
        PluginRef::Digest(digest) => digest.to_string(),
    })
}
