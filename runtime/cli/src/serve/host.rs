//! Jobs of tenants.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument as _;
use wasmill_connectors::Fence;
use wasmill_contract::BoxFuture;
use wasmill_control::local::{Answer, Refusal};
use wasmill_control::service::{Asked, Board, Change, Command, Egress, Host, Inspected, JobEnd, JobOrder, Live};
use wasmill_control::service::{PullError, Pulled, Ties, Wrong};
use wasmill_env::{Clock, RealClock};
use wasmill_spec::{Diagnostic, JobSpec, PluginRef};
use wasmill_wasm::InstanceLimits;

use super::idle::Idle;
use super::logs::JOB_SPAN;
use crate::assemble::{self, Assembled, Place};
use crate::control::{Control, Wish};
use crate::failure::Failure;
use crate::oci::registry::{self, Reach};
use crate::oci::{PLUGIN_BYTES_MAX, Reference};
use crate::overrides::{self, Override};
use crate::plugins::Plugins;
use crate::supervise::{Ended, Event, ROOM_RETRY, Supervised, Watch, stop_asked};

/// How a job file of a tenant is called in diagnostics.
const FILE: &str = "job.toml";
/// From one look at a slow disk to the next.
const LOOK: Duration = Duration::from_secs(1);

/// Runs jobs of tenants, all on one engine.
#[derive(Clone)]
pub(crate) struct JobHost {
    plugins: Arc<Plugins>,
    clock: Arc<RealClock>,
    /// Where tasks run.
    data: tokio::runtime::Handle,
    /// Registries that every tenant may pull from.
    registries: Vec<String>,
}

impl JobHost {
    pub(crate) fn new(
        plugins: Arc<Plugins>,
        clock: Arc<RealClock>,
        data: tokio::runtime::Handle,
        registries: Vec<String>,
    ) -> Self {
        Self { plugins, clock, data, registries }
    }

    async fn assemble(&self, order: &JobOrder) -> Result<Assembled, Failure> {
        let spec = read(order)?;
        let place = Place {
            base_dir: Some(&order.files),
            state_dir: Some(&order.state),
            topics: &order.topics,
            plugins: Some(&order.plugins),
            fence: Some(Arc::new(fence(&order.egress))),
        };
        assemble::assemble(spec, &self.plugins, &place).await
    }

    async fn supervise(&self, order: &JobOrder, ties: &mut Ties) -> Result<JobEnd, Failure> {
        loop {
            // Something came while it went to rest: it goes on from its last epoch.
            if let Some(end) = self.life(order, ties).await? {
                return Ok(end);
            }
        }
    }

    /// Runs a job until it ends, or might have rested.
    async fn life(&self, order: &JobOrder, ties: &mut Ties) -> Result<Option<JobEnd>, Failure> {
        let Ties { commands, stops, board } = ties;
        let assembled = tokio::select! {
            assembled = self.assemble(order) => Arc::new(assembled?),
            () = stop_asked(stops) => return Ok(Some(JobEnd::Stopped)),
        };
        let control = Control::new(
            Arc::clone(&assembled),
            Arc::clone(&self.plugins),
            Arc::clone(&self.clock),
            order.state.clone(),
            Some(order.plugins.clone()),
        );
        let control = Arc::new(control.distrusting(order.untrusted.clone()));
        if order.paused {
            control.begin_paused();
        }
        let supervised = Supervised {
            assembled: Arc::clone(&assembled),
            clock: Arc::clone(&self.clock),
            data: self.data.clone(),
            state: Some(order.state.clone()),
            control: Some(Arc::clone(&control)),
            fresh: false,
            allow_dropped: order.allow_dropped,
            account: Some(Arc::clone(&order.account)),
        };
        let mut watch = OnBoard { board, control: &control, order };
        let idle = Idle::default();
        let ended = tokio::select! {
            ended = supervised.run(stops, &mut watch) => ended?,
            () = self.answer(commands, &control, board) => return Ok(Some(JobEnd::Stopped)),
            never = control.attend() => match never {},
            never = idle.watch(order.hibernate_after, &control, &*self.clock) => match never {},
        };
        Ok(match ended {
            Ended::Ran(summary) if summary.stopped && !control.is_drained() => Some(JobEnd::Stopped),
            Ended::Ran(summary) if idle.was_asked() && !control.is_drained() => {
                idle.rest(&summary.nodes, self.clock.wall()).map(JobEnd::Rests)
            }
            Ended::Ran(_) | Ended::Already(_) => Some(JobEnd::Finished),
        })
    }
    /// Answers requests to a job, several at once.
    async fn answer(&self, commands: &mut mpsc::Receiver<Command>, control: &Arc<Control>, board: &Arc<Board>) {
        let mut working = JoinSet::new();
        loop {
            tokio::select! {
                command = commands.recv() => {
                    let Some(Command { asked, reply }) = command else {
                        // Nobody can ask any more; the job goes on.
                        return std::future::pending().await;
                    };
                    let (host, control, board) = (self.clone(), Arc::clone(control), Arc::clone(board));
                    let answering = async move {
                        let answer = match asked {
                            Asked::Request(request) => control.answer(request).await,
                            Asked::Change(change) => host.change(*change, &control, &board).await,
                        };
                        // Who has asked may have gone.
                        drop(reply.send(answer));
                    };
                    working.spawn(answering.in_current_span());
                }
                Some(_done) = working.join_next() => {}
            }
        }
    }

    /// Has a job that runs go on with another file.
    async fn change(&self, change: Change, control: &Control, board: &Board) -> Answer {
        let Change { order, revision, only_plan } = change;
        let shown = |mut refusal: Refusal| {
            refusal.message = without_folders(&order, &refusal.message);
            refusal
        };
        let assembled = self.assemble(&order).await.map_err(|failure| {
            let Wrong { message, hints, .. } = failure.into();
            shown(hints.into_iter().fold(Refusal::new(message), Refusal::hint))
        })?;
        let wish = Wish { allow_dropped: order.allow_dropped, only_plan, number: Some(revision) };
        let answer = control.change(&Arc::new(assembled), &wish).await.map_err(shown);
        board.has(kinds(&control.assembled()));
        answer
    }
}

/// What each node is, in the order of the plan.
fn kinds(assembled: &Assembled) -> Vec<&'static str> {
    assembled.planned.plan.nodes.iter().map(|node| node.kind.name()).collect()
}

fn fence(egress: &Egress) -> Fence {
    Fence { hosts: egress.hosts.clone(), listen: egress.listen }
}

/// What is said of a job without the folders that its tenant has: where they lie is nobody's business outside.
fn without_folders(order: &JobOrder, said: &str) -> String {
    let said = said.replace(&format!("{}/", order.files.display()), "");
    let Some(tenant) = order.files.parent().map(|tenant| tenant.display()) else { return said };
    said.replace(&format!(" in {tenant}/topics"), "").replace(&format!("{tenant}/"), "")
}

/// The job file, with what stands for the names of plugins in it.
fn read(order: &JobOrder) -> Result<JobSpec, Failure> {
    let mut spec = wasmill_spec::parse(FILE, order.text.as_bytes()).map_err(Failure::Job)?;
    if spec.dead_letters.is_some() {
        let message = "`dead_letters` names a file; in the service they are with the job";
        let wrong = spec.error(&["dead_letters"], message).hint("leave it out, and read them with `wasmill dlq`");
        return Err(Failure::Job(vec![wrong]));
    }
    for (name, stage) in &mut spec.stages {
        if let PluginRef::Path(named) = &stage.plugin {
            match order.pins.get(named) {
                Some(digest) => stage.plugin = PluginRef::Digest(*digest),
                None => {
                    let message = format!("stage `{name}`: there is no plugin {named:?}");
                    return Err(Failure::wrong(message));
                }
            }
        }
    }
    spec.dead_letters = Some(order.dead_letters.display().to_string());
    Ok(spec)
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Job(diagnostics) => Self {
                message: match diagnostics.as_slice() {
                    [one] => one.message.clone(),
                    many => format!("the job file has {} findings", many.len()),
                },
                hints: Vec::new(),
                diagnostics: diagnostics.iter().map(Diagnostic::to_json).collect(),
            },
            Failure::Said { message, hints, .. } => Self { message, hints, diagnostics: Vec::new() },
            Failure::Reported { .. } | Failure::OutputClosed => {
                Self { message: "the job ended".to_owned(), hints: Vec::new(), diagnostics: Vec::new() }
            }
        }
    }
}

impl Host for JobHost {
    fn inspect(&self, bytes: Arc<[u8]>) -> BoxFuture<'_, Result<Inspected, Wrong>> {
        Box::pin(async move {
            let named = PluginRef::Path("the plugin".to_owned());
            let loaded = self.plugins.load_bytes(&named, bytes, InstanceLimits::default()).await;
            let loaded = loaded.map_err(|unusable| Wrong::from(Failure::from(unusable)))?;
            let info = loaded.info();
            // Many need a configuration to say who they are.
            let descriptor = loaded.describe().await.ok();
            Ok(Inspected {
                name: descriptor.as_ref().map(|it| it.name.clone()),
                version: descriptor.as_ref().map(|it| it.version.clone()),
                about: json!({
                    "imports": info.imports,
                    "exports": info.exports,
                    "languages": info.languages,
                    "tools": info.tools,
                    "native_bytes": info.native_bytes,
                    "aggregate": info.aggregate,
                    "timed": info.timed,
                }),
            })
        })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a str,
        egress: &'a Egress,
        bytes_max: u64,
    ) -> BoxFuture<'a, Result<Pulled, PullError>> {
        Box::pin(async move {
            let pulling = async {
                let reference: Reference = reference.parse().map_err(Failure::wrong)?;
                let reach = Reach { fence: Some(fence(egress)), registries: self.registries.clone() };
                let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
                let pulled = registry::pull(&reference, reach, bytes_max.min(PLUGIN_BYTES_MAX), &clock).await?;
                let named = Reference { tag: None, digest: Some(pulled.manifest), ..reference };
                Ok(Pulled { reference: named.to_string(), bytes: pulled.bytes })
            };
            let pulled: Result<_, Failure> = pulling.await;
            pulled.map_err(|failure| PullError { passing: failure.is_passing(), wrong: Wrong::from(failure) })
        })
    }

    fn check<'a>(&'a self, order: &'a JobOrder) -> BoxFuture<'a, Result<Value, Wrong>> {
        Box::pin(async move {
            let assembled = self.assemble(order).await.map_err(Wrong::from)?;
            Ok(json!({
                "ok": true,
                "job": assembled.spec.name,
                "delivery": assembled.planned.gives(),
                "warnings": assembled.warnings().iter().map(Diagnostic::to_json).collect::<Vec<_>>(),
            }))
        })
    }

    fn run<'a>(&'a self, order: &'a JobOrder, ties: &'a mut Ties) -> BoxFuture<'a, JobEnd> {
        let span = tracing::info_span!(JOB_SPAN, tenant = %order.tenant, job = %order.job);
        Box::pin(
            async move {
                match self.supervise(order, ties).await {
                    Ok(ended) => ended,
                    Err(failure) => {
                        let retry = failure.is_passing();
                        let mut wrong = Wrong::from(failure);
                        wrong.message = without_folders(order, &wrong.message);
                        wrong.hints.iter_mut().for_each(|hint| *hint = without_folders(order, hint));
                        JobEnd::Failed { wrong, retry }
                    }
                }
            }
            .instrument(span),
        )
    }

    fn rescaled(&self, text: &str, node: &str, parallelism: u16) -> Result<String, Wrong> {
        let spec = wasmill_spec::parse(FILE, text.as_bytes()).map_err(|found| Wrong::from(Failure::Job(found)))?;
        let node = spec.nodes().find(|(name, _)| name.as_str() == node);
        let Some((name, node)) = node else {
            return Err(Failure::wrong("the job has no such node").into());
        };
        let change: Result<Override, _> = format!("{}.{name}.parallelism={parallelism}", node.section()).parse();
        let change = change.map_err(|reason| Wrong::from(Failure::wrong(reason)))?;
        let changed = overrides::apply(FILE, text.as_bytes().to_vec(), &[change]).map_err(Wrong::from)?;
        String::from_utf8(changed).map_err(|_| Failure::wrong("the job file is no text").into())
    }
}

/// Tells the board of a job how it is.
struct OnBoard<'a> {
    board: &'a Board,
    control: &'a Control,
    order: &'a JobOrder,
}

impl Watch for OnBoard<'_> {
    fn event(&mut self, event: Event<'_>) {
        let board = self.board;
        match event {
            Event::Opened => {}
            Event::Began => {
                if let Ok(current) = self.control.current() {
                    board.runs(Live { remote: current.remote, kinds: kinds(&self.control.assembled()) });
                    board.say("info", "the job runs");
                }
            }
            Event::Resuming(epoch) => board.say("info", &format!("goes on behind epoch {epoch}")),
            Event::Replaying(rows) => board.say("info", &format!("processes {rows} dead letters again")),
            Event::Listening { source, location } => board.say("info", &format!("{source} listens on {location}")),
            Event::NoRoom(reason) => {
                let reason = without_folders(self.order, reason);
                board.waits(&format!("{reason}; looking for room every {} s", ROOM_RETRY.as_secs()));
            }
            Event::RoomAgain => board.say("info", "there is room again"),
            Event::SlowDisk(took) => {
                board.say("warn", &format!("the disk is slow: a commit has been under way for {} s", took.as_secs()));
            }
            Event::Stopping => board.say("info", "ends at the next epoch"),
            Event::RolledBack(reason) => {
                board.say("warn", &format!("rolled back: {}", without_folders(self.order, reason)));
            }
        }
    }

    fn every(&self) -> Duration {
        LOOK
    }
}
