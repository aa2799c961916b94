//! Jobs of a tenant: what is asked of them becomes what is wanted, durably, and then what is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use tracing::{Instrument as _, Span};
use utoipa::ToSchema;
use wasmill_model::{JobName, NodeName};
use wasmill_spec::JobSpec;

use super::admission::{self, Admitted, Pins};
use super::blocking::blocking;
use super::host::JobOrder;
use super::plugins;
use super::problem::Problem;
use super::record::{Desired, Reserved};
use super::savepoints;
use super::slot::{Phase, Run, Slot};
use super::state::remove_all;
use super::tenant::{Tenant, no_job};
use crate::beside::BesideAsked;
use crate::local::{Refusal, Request};

/// A job as it is wanted and as it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct JobView {
    /// Its name.
    #[schema(value_type = String)]
    pub(super) job: JobName,
    /// What it is to do.
    pub(super) desired: Desired,
    /// What it is doing.
    pub(super) phase: Phase,
    /// Why it does not run, where something is wrong.
    pub(super) reason: Option<String>,
    /// Why it reads nothing although it runs: which budget of the tenant is used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over_budget: Option<String>,
    /// What to do about that.
    pub(super) hints: Vec<String>,
    /// How often it was started since the service was.
    pub(super) starts: u64,
    /// How often it was deployed.
    pub(super) revision: u64,
    /// When it was deployed last, microseconds since the Unix epoch.
    pub(super) deployed: i64,
    /// What is reserved for it.
    pub(super) reserved: Reserved,
    /// Digests that names of plugins stand for in it.
    pub(super) plugins: BTreeMap<String, String>,
    /// Its counters, epoch and latency, while it runs: what `wasmill status --json` prints.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(super) status: Option<Value>,
    /// What a deployment changed, and how: what `wasmill apply --json` prints.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(super) change: Option<Value>,
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::conflict(refusal.message).hints(refusal.hints)
    }
}

/// Does `act` to its end, whether or not anybody waits for it.
pub(super) async fn to_the_end<T: Send + 'static>(
    act: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::spawn(act).await {
        Ok(done) => done,
        Err(error) => Err(Problem::internal(format!("a task ended early: {error}"))),
    }
}

/// Does `act` in a span, which says what went wrong.
pub(super) async fn observed<T>(act: impl Future<Output = Result<T, Problem>>, span: Span) -> Result<T, Problem> {
    let done = act.instrument(span.clone()).await;
    if let Err(problem) = &done {
        span.record("error", problem.detail.as_str());
    }
    done
}

impl Tenant {
    /// Starts every job that is to run.
    pub(super) async fn start_all(self: &Arc<Self>) {
        for (job, slot) in self.slots() {
            let mut run = slot.run.lock().await;
            if slot.board.phase() != Phase::Hibernating {
                self.start(&job, &slot, &mut run);
            }
        }
    }

    /// Ends every job at an epoch, all at once.
    pub(super) async fn stop_all(&self) {
        let ending = self.slots().into_iter().map(|(_, slot)| async move {
            let mut run = slot.run.lock().await;
            slot.stop(&mut run, false).await;
        });
        futures_util::future::join_all(ending).await;
        // What was used since the record was written last.
        if let Err(problem) = self.change(|_| Ok(())).await {
            tracing::warn!("usage of tenant {} is lost: {}", self.name, problem.detail);
        }
    }

    /// Ends every job now.
    pub(super) async fn cut_off_all(&self) {
        for (job, slot) in self.slots() {
            let mut run = slot.run.lock().await;
            self.halt(&job, &slot, &mut run, true).await;
        }
    }

    /// Starts a job that is to run and does not.
    pub(super) fn start(self: &Arc<Self>, job: &JobName, slot: &Slot, run: &mut Option<Run>) {
        let record = self.record();
        let Some(wanted) = record.jobs.get(job).filter(|wanted| wanted.desired != Desired::Stopped) else { return };
        if run.is_some() {
            return;
        }
        if let Err(error) = savepoints::mend(&self.job_dir(job)) {
            return slot.board.cannot_start(Problem::internal(format!("cannot put back the state: {error}")));
        }
        // Signers and plugins may have changed since it was deployed.
        let order = admission::parse(wanted.text.as_bytes()).and_then(|spec| {
            let admitted = admission::admit(&spec, &record, &wanted.pins)?;
            let order = self.order(&admitted, &wanted.text, wanted.desired == Desired::Paused);
            Ok(JobOrder { allow_dropped: wanted.allow_dropped, ..order })
        });
        match order {
            Ok(order) => {
                let (host, clock) = (Arc::clone(&self.parts.host), Arc::clone(&self.parts.clock));
                let (tenant, used_by, job) = (Arc::clone(self), Arc::clone(self), job.clone());
                let used = move |usage| used_by.use_more(usage);
                let rests = move |rest| Box::pin(async move { tenant.rests(&job, rest).await }) as _;
                slot.start(run, host, order, clock, used, rests);
            }
            Err(problem) => slot.board.cannot_start(problem),
        }
    }

    fn order(&self, admitted: &Admitted, text: &str, paused: bool) -> JobOrder {
        let dir = self.job_dir(&admitted.job);
        let record = self.record();
        let swapped = record.jobs.get(&admitted.job).into_iter().flat_map(|wanted| wanted.swapped.values());
        let untrusted = swapped.filter(|digest| {
            let digest = digest.parse().ok();
            digest.is_none_or(|digest| plugins::verify(&record, &digest).is_err())
        });
        JobOrder {
            untrusted: untrusted.cloned().collect(),
            tenant: self.name.clone(),
            job: admitted.job.clone(),
            text: text.into(),
            pins: admitted.pins.clone(),
            files: self.dir.join("files"),
            state: dir.join("state"),
            dead_letters: dir.join("dead-letters.jsonl"),
            topics: self.topics.clone(),
            plugins: self.plugin_dir(),
            egress: self.record().egress.clone(),
            paused,
            account: Arc::clone(&self.account),
            hibernate_after: self.parts.hibernation.after,
            allow_dropped: false,
        }
    }

    /// Finds everything that is wrong with a job file.
    pub(super) async fn check(&self, text: &str) -> Result<Value, Problem> {
        let (_, order) = self.admitted(None, text)?;
        self.compile(self.parts.host.check(&order)).await
    }

    pub(super) fn admitted(&self, job: Option<&JobName>, text: &str) -> Result<(Admitted, JobOrder), Problem> {
        let spec: JobSpec = admission::parse(text.as_bytes())?;
        if let Some(job) = job.filter(|job| **job != spec.name) {
            let message = format!("the job file says `name = \"{}\"`, the request is for job {job}", spec.name);
            return Err(Problem::bad(message));
        }
        let admitted = admission::admit(&spec, &self.record(), &Pins::new())?;
        let order = self.order(&admitted, text, false);
        Ok((admitted, order))
    }

    /// Has a job do something else from now on.
    pub(super) async fn set_desired(
        self: &Arc<Self>,
        job: JobName,
        desired: Desired,
        drain: bool,
    ) -> Result<JobView, Problem> {
        let slot = self.slot(&job)?;
        let tenant = Arc::clone(self);
        to_the_end(async move {
            if drain {
                // One that rests has windows and timers that are to fire.
                tenant.awake(&job).await?;
            }
            let mut run = slot.run.lock().await;
            tenant
                .change({
                    let job = job.clone();
                    move |record| {
                        let wanted = record.jobs.get_mut(&job).ok_or_else(|| no_job(&job))?;
                        Arc::make_mut(wanted).desired = desired;
                        Ok(())
                    }
                })
                .await?;
            let runs = slot.board.phase() == Phase::Running;
            match desired {
                Desired::Stopped => {
                    if drain && runs {
                        slot.ask(Request::Drain).await?;
                    }
                    tenant.halt(&job, &slot, &mut run, false).await;
                }
                Desired::Running | Desired::Paused if runs => {
                    let request = if desired == Desired::Paused { Request::Pause } else { Request::Resume };
                    slot.ask(request).await?;
                }
                Desired::Running | Desired::Paused => {
                    // One that has failed or finished is tried again.
                    tenant.halt(&job, &slot, &mut run, false).await;
                    tenant.start(&job, &slot, &mut run);
                }
            }
            drop(run);
            tenant.job(&job).await
        })
        .await
    }

    /// Removes a job with its state.
    pub(super) async fn remove_job(self: &Arc<Self>, job: JobName) -> Result<(), Problem> {
        let slot = self.slot(&job)?;
        let tenant = Arc::clone(self);
        to_the_end(async move {
            let mut run = slot.run.lock().await;
            tenant
                .change({
                    let job = job.clone();
                    move |record| record.jobs.remove(&job).map(drop).ok_or_else(|| no_job(&job))
                })
                .await?;
            tenant.halt(&job, &slot, &mut run, true).await;
            tenant.forget_slot(&job);
            tenant.remove_job_dir(&job).await
        })
        .await
    }

    pub(super) async fn remove_job_dir(&self, job: &JobName) -> Result<(), Problem> {
        let dir = self.job_dir(job);
        let failed = |error| Problem::internal(format!("cannot remove the state of the job: {error}"));
        blocking(move || remove_all(&dir).map_err(failed)).await
    }

    /// Puts another plugin into a stage while the job runs, or beside that of the stage at first.
    pub(super) async fn swap(
        self: &Arc<Self>,
        job: JobName,
        stage: NodeName,
        named: &str,
        beside: Option<BesideAsked>,
    ) -> Result<Value, Problem> {
        let span = tracing::info_span!("swap", tenant = %self.name, %job, %stage, error = tracing::field::Empty);
        observed(self.swap_now(job, stage, named, beside), span).await
    }

    async fn swap_now(
        self: &Arc<Self>,
        job: JobName,
        stage: NodeName,
        named: &str,
        beside: Option<BesideAsked>,
    ) -> Result<Value, Problem> {
        self.admit_change()?;
        let slot = self.slot(&job)?;
        let record = self.record();
        let digest = plugins::resolve(&record, named)?;
        if let Some(digest) = &digest {
            plugins::verify(&record, digest)?;
        }
        let plugin = digest.map_or_else(|| named.to_owned(), |digest| digest.to_string());
        let tenant = Arc::clone(self);
        to_the_end(async move {
            if let Some(digest) = digest {
                // Before it is in any epoch: a plugin that a stage may run with is not removed.
                let (job, stage) = (job.clone(), stage.clone());
                tenant
                    .change(move |record| {
                        let wanted = record.jobs.get_mut(&job).ok_or_else(|| no_job(&job))?;
                        Arc::make_mut(wanted).swapped.insert(stage, digest.to_string());
                        Ok(())
                    })
                    .await?;
            }
            let is_swap = beside.is_none();
            tenant.awake(&job).await?;
            let answer = slot.ask(Request::Swap { stage, plugin, beside }).await?;
            if is_swap {
                slot.board.swapped();
            }
            Ok(answer)
        })
        .await
    }

    /// Asks a running job about the plugin beside that of a stage: that it takes over, or goes.
    pub(super) async fn ask_beside(self: &Arc<Self>, job: JobName, request: Request) -> Result<Value, Problem> {
        self.admit_change()?;
        let slot = self.slot(&job)?;
        to_the_end(async move { Ok(slot.ask(request).await?) }).await
    }

    /// A job as it is wanted and as it is.
    pub(super) async fn job(&self, job: &JobName) -> Result<JobView, Problem> {
        let slot = self.slot(job)?;
        let mut view = self.view(job, &slot)?;
        if view.phase == Phase::Running {
            // One that ends meanwhile has none.
            view.status = slot.ask(Request::Status).await.ok();
        }
        Ok(view)
    }

    fn view(&self, job: &JobName, slot: &Slot) -> Result<JobView, Problem> {
        let record = self.record();
        let wanted = record.jobs.get(job).ok_or_else(|| no_job(job))?;
        let (wrong, phase) = (slot.board.wrong(), slot.board.phase());
        Ok(JobView {
            job: job.clone(),
            desired: wanted.desired,
            phase,
            reason: wrong.as_ref().map(|wrong| wrong.message.clone()),
            hints: wrong.map(|wrong| wrong.hints).unwrap_or_default(),
            over_budget: self.account.over_budget().filter(|_| phase == Phase::Running),
            starts: slot.board.starts(),
            revision: wanted.revision,
            deployed: wanted.deployed,
            reserved: wanted.takes(),
            plugins: wanted.pins.clone(),
            status: None,
            change: None,
        })
    }

    /// All jobs, without their counters.
    pub(super) fn jobs(&self) -> Vec<JobView> {
        let slots = self.slots();
        slots.iter().filter_map(|(job, slot)| self.view(job, slot).ok()).collect()
    }

    /// Does something with the state of a job while it rests, and lets it go on. `at_once`: what it has
    /// done since its last epoch is not needed.
    pub(super) async fn at_rest<T: Send + 'static>(
        self: &Arc<Self>,
        job: JobName,
        at_once: bool,
        act: impl FnOnce(PathBuf) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let slot = self.slot(&job)?;
        let tenant = Arc::clone(self);
        to_the_end(async move {
            let mut run = slot.run.lock().await;
            tenant.halt(&job, &slot, &mut run, at_once).await;
            let dir = tenant.job_dir(&job);
            let done = blocking(move || act(dir)).await;
            tenant.start(&job, &slot, &mut run);
            done
        })
        .await
    }

    /// Refuses where the jobs of the tenant have as much state as they may.
    pub(super) async fn has_room(self: &Arc<Self>) -> Result<(), Problem> {
        let (most, tenant) = (self.record().budget.state_bytes, Arc::clone(self));
        let has = blocking(move || Ok(tenant.state_bytes())).await?;
        if has >= most {
            return Err(Problem::over_budget(format!(
                "state of the tenant's jobs takes {has} bytes, it may take {most}"
            )));
        }
        Ok(())
    }

    /// What the tenant has, for `GET /v1/usage`. Blocks.
    pub(super) fn holdings(&self) -> Value {
        let record = self.record();
        let reserved = |of: fn(&Reserved) -> u64| record.jobs.values().map(|job| of(&job.takes())).sum::<u64>();
        let now = self.account.spent();
        json!({
            "jobs": record.jobs.len(),
            "hibernating": self.slots().iter().filter(|(_, slot)| slot.board.phase() == Phase::Hibernating).count(),
            "tasks": reserved(|reserved| u64::from(reserved.tasks)),
            "memory_bytes": reserved(|reserved| reserved.memory_bytes),
            "plugins": record.plugins.len(),
            "plugin_bytes": record.plugins.values().map(|plugin| plugin.bytes).sum::<u64>(),
            "tokens": record.tokens.len(),
            "state_bytes": self.state_bytes(),
            "topic_bytes": self.topic_bytes(),
            "timers": now.timers,
            "metric_series": now.metric_series,
            "memory_bytes_now": now.memory_bytes,
            "state_bytes_now": now.state_bytes,
            "cpu_nanos": now.cpu_nanos,
            "cpu_waited_nanos": now.cpu_waited_nanos,
            "refused": now.refused,
            "throttled": now.throttled,
            "log_lines_dropped": now.log_lines_dropped,
        })
    }
}
