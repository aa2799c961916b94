//! Jobs of the tenant.

use axum::Json as Answer;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use wasmill_model::{JobName, NodeName};

use super::auth::{Deployer, Reader};
use super::body::{Asked, Bytes, Json, named, page};
use crate::beside::{BesideAsked, Mode, NoSpan};
use crate::local::Request;
use crate::service::jobs::JobView;
use crate::service::logs::LogLine;
use crate::service::problem::Problem;
use crate::service::record::Desired;
use crate::service::savepoints::SavepointView;
use crate::service::tap;
use crate::service::tenant::no_job;

/// Bytes of a job file.
const JOB_BYTES_MAX: u64 = 1 << 20;
const LINES_MAX: usize = 1_000;

/// Which node.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WhyAsked {
    /// A source, stage or sink; by default all of them.
    node: Option<String>,
}

/// Another plugin in a stage.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SwapAsked {
    /// The stage.
    stage: String,
    /// `std:NAME`, the digest of a plugin, or a `name:tag`.
    plugin: String,
    /// Run it beside the one of the stage, on a view of its state, and compare what both do.
    #[serde(default)]
    shadow: bool,
    /// Have it work off so many percent of the keys, 1 to 99.
    canary_percent: Option<u8>,
    /// How long: `30s`, `100epochs`, `5000rows`; without one until it is promoted or rolled back.
    span: Option<String>,
    /// Whether it takes over at the end of the span, where nothing speaks against it.
    #[serde(default)]
    promote: bool,
}

impl SwapAsked {
    fn beside(&self) -> Result<Option<BesideAsked>, Problem> {
        let mode = match (self.shadow, self.canary_percent) {
            (true, Some(_)) => return Err(Problem::bad("a plugin is a shadow or has a share of the keys, not both")),
            (true, None) => Mode::Shadow,
            (false, Some(percent)) => Mode::Canary(percent),
            (false, None) if self.span.is_some() || self.promote => {
                return Err(Problem::bad("`span` and `promote` go with `shadow` or `canary_percent`"));
            }
            (false, None) => return Ok(None),
        };
        let span = self.span.as_deref().map(str::parse).transpose();
        let span = span.map_err(|error: NoSpan| Problem::bad(error.to_string()))?;
        let asked = BesideAsked { mode, span, promote: self.promote };
        asked.check().map_err(Problem::bad)?;
        Ok(Some(asked))
    }
}

/// A stage.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StageAsked {
    /// Its name.
    stage: String,
}

/// Another parallelism of a node.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RescaleAsked {
    /// The source, stage or sink.
    node: String,
    /// How many tasks it has from now on, 1 to 256.
    parallelism: u16,
}

/// A savepoint by its name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SavepointAsked {
    /// `[a-z0-9-]{1,63}`; by default `at-` and the time.
    name: Option<String>,
}

/// Which savepoint to go back to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreAsked {
    /// Its name.
    savepoint: String,
}

/// Which lines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsAsked {
    /// Begin with the line of this number; by default the last lines are given.
    from: Option<u64>,
    /// So many at most: 1 to 1000, by default 100.
    limit: Option<u64>,
}

/// Which rows.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TapAsked {
    /// End after so many rows; by default with the job.
    limit: Option<u64>,
}

/// All jobs of the tenant.
#[utoipa::path(get, path = "/v1/jobs", tag = "jobs", responses((status = 200, body = [JobView])))]
pub(super) async fn list(Reader(tenant): Reader) -> Answer<Vec<JobView>> {
    Answer(tenant.jobs())
}

/// Finds everything that is wrong with a job file, and changes nothing.
#[utoipa::path(
    post, path = "/v1/check", tag = "jobs", request_body(content = String, content_type = "application/toml"),
    responses((status = 200, body = Object), (status = 422, body = Problem))
)]
pub(super) async fn check(
    Reader(tenant): Reader,
    Bytes(text, _taken): Bytes<JOB_BYTES_MAX>,
) -> Result<Answer<Value>, Problem> {
    tenant.admit_change()?;
    Ok(Answer(tenant.check(&utf8(text)?).await?))
}

/// A job: what it is to do, what it is doing, its counters.
#[utoipa::path(
    get, path = "/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = JobView), (status = 404, body = Problem))
)]
pub(super) async fn show(Reader(tenant): Reader, Path(job): Path<String>) -> Result<Answer<JobView>, Problem> {
    Ok(Answer(tenant.job(&named(&job, JobName::new)?).await?))
}

/// How a job file is deployed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeployAsked {
    /// What the job holds for nodes that are gone may be forgotten; by default a file without them is refused.
    #[serde(default)]
    allow_dropped: bool,
}

/// Deploys a job file: makes the job, or has it go on with another file from its state. A job that runs is not
/// ended for it where that can be: `change` of the answer says how it was done.
#[utoipa::path(
    put, path = "/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path), DeployAsked),
    request_body(content = String, content_type = "application/toml"),
    responses(
        (status = 201, body = JobView), (status = 200, body = JobView, description = "It was there"),
        (status = 403, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem, description = "With every finding")
    )
)]
pub(super) async fn deploy(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Asked(asked): Asked<DeployAsked>,
    Bytes(text, _taken): Bytes<JOB_BYTES_MAX>,
) -> Result<(StatusCode, Answer<JobView>), Problem> {
    let job = named(&job, JobName::new)?;
    let (view, is_new) = tenant.deploy(job, utf8(text)?, asked.allow_dropped).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Answer(view)))
}

/// What a job file would change for a job, node by node, and whether the job would have to end for it. Changes
/// nothing.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/plan", tag = "jobs", params(("job" = String, Path), DeployAsked),
    request_body(content = String, content_type = "application/toml"),
    responses(
        (status = 200, body = Object), (status = 404, body = Problem),
        (status = 422, body = Problem, description = "With every finding")
    )
)]
pub(super) async fn plan(
    Reader(tenant): Reader,
    Path(job): Path<String>,
    Asked(asked): Asked<DeployAsked>,
    Bytes(text, _taken): Bytes<JOB_BYTES_MAX>,
) -> Result<Answer<Value>, Problem> {
    let job = named(&job, JobName::new)?;
    Ok(Answer(tenant.plan(job, utf8(text)?, asked.allow_dropped).await?))
}

fn utf8(bytes: Vec<u8>) -> Result<String, Problem> {
    String::from_utf8(bytes).map_err(|_| Problem::wrong("a job file is UTF-8 text, this is none"))
}

/// Removes a job with its state, its dead letters and its savepoints.
#[utoipa::path(
    delete, path = "/v1/jobs/{job}", tag = "jobs", params(("job" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn remove(Deployer(tenant): Deployer, Path(job): Path<String>) -> Result<StatusCode, Problem> {
    tenant.remove_job(named(&job, JobName::new)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The job file, as it was deployed.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/file", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = String, content_type = "application/toml"), (status = 404, body = Problem))
)]
pub(super) async fn file(Reader(tenant): Reader, Path(job): Path<String>) -> Result<String, Problem> {
    let job = named(&job, JobName::new)?;
    let record = tenant.record();
    record.jobs.get(&job).map(|wanted| wanted.text.clone()).ok_or_else(|| no_job(&job))
}

/// What the job and its plugins said, the oldest line first.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/logs", tag = "jobs", params(("job" = String, Path), LogsAsked),
    responses((status = 200, body = [LogLine]), (status = 404, body = Problem))
)]
pub(super) async fn logs(
    Reader(tenant): Reader,
    Path(job): Path<String>,
    Asked(asked): Asked<LogsAsked>,
) -> Result<Answer<Vec<LogLine>>, Problem> {
    let limit = page(asked.limit, LINES_MAX)?;
    let slot = tenant.slot(&named(&job, JobName::new)?)?;
    Ok(Answer(slot.board.logs().page(asked.from, limit)))
}

/// Why windows are open, partitions lag, rows wait and were late: of a job that runs.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/why", tag = "jobs", params(("job" = String, Path), WhyAsked),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn why(
    Reader(tenant): Reader,
    Path(job): Path<String>,
    Asked(asked): Asked<WhyAsked>,
) -> Result<Answer<Value>, Problem> {
    let job = named(&job, JobName::new)?;
    let node = asked.node.map(|node| named(&node, NodeName::new)).transpose()?;
    let mut told = tenant.slot(&job)?.ask(Request::Why { node }).await?;
    if let (Some(why), Some(told)) = (tenant.account.over_budget(), told.as_object_mut()) {
        told.insert("over_budget".to_owned(), why.into());
    }
    Ok(Answer(told))
}

/// Has the job read nothing more until it is resumed.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/pause", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = JobView), (status = 404, body = Problem))
)]
pub(super) async fn pause(Deployer(tenant): Deployer, Path(job): Path<String>) -> Result<Answer<JobView>, Problem> {
    Ok(Answer(tenant.set_desired(named(&job, JobName::new)?, Desired::Paused, false).await?))
}

/// Has the job run, whatever it did: paused, stopped or failed.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/resume", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = JobView), (status = 404, body = Problem))
)]
pub(super) async fn resume(Deployer(tenant): Deployer, Path(job): Path<String>) -> Result<Answer<JobView>, Problem> {
    Ok(Answer(tenant.set_desired(named(&job, JobName::new)?, Desired::Running, false).await?))
}

/// Has the job end as though its input had ended: every window and timer fires. It has finished then.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/drain", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = JobView), (status = 404, body = Problem))
)]
pub(super) async fn drain(Deployer(tenant): Deployer, Path(job): Path<String>) -> Result<Answer<JobView>, Problem> {
    Ok(Answer(tenant.set_desired(named(&job, JobName::new)?, Desired::Stopped, true).await?))
}

/// Has the job end at an epoch, and rest until it is resumed.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/stop", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = JobView), (status = 404, body = Problem))
)]
pub(super) async fn stop(Deployer(tenant): Deployer, Path(job): Path<String>) -> Result<Answer<JobView>, Problem> {
    Ok(Answer(tenant.set_desired(named(&job, JobName::new)?, Desired::Stopped, false).await?))
}

/// Puts another plugin into a stage, on the same state, without stopping the job; or beside the one of the
/// stage at first, as a shadow or with a share of the keys.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/swap", tag = "jobs", params(("job" = String, Path)), request_body = SwapAsked,
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn swap(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Json(asked): Json<SwapAsked>,
) -> Result<Answer<Value>, Problem> {
    let (job, stage) = (named(&job, JobName::new)?, named(&asked.stage, NodeName::new)?);
    let beside = asked.beside()?;
    Ok(Answer(tenant.swap(job, stage, &asked.plugin, beside).await?))
}

/// Has the plugin that runs beside that of a stage take over. Refused where it is known to differ.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/promote", tag = "jobs", params(("job" = String, Path)), request_body = StageAsked,
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn promote(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Json(asked): Json<StageAsked>,
) -> Result<Answer<Value>, Problem> {
    let (job, stage) = (named(&job, JobName::new)?, named(&asked.stage, NodeName::new)?);
    Ok(Answer(tenant.ask_beside(job, Request::Promote { stage }).await?))
}

/// Ends what runs beside the plugin of a stage; where nothing does, goes back to the plugin before.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/rollback", tag = "jobs", params(("job" = String, Path)), request_body = StageAsked,
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn rollback(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Json(asked): Json<StageAsked>,
) -> Result<Answer<Value>, Problem> {
    let (job, stage) = (named(&job, JobName::new)?, named(&asked.stage, NodeName::new)?);
    Ok(Answer(tenant.ask_beside(job, Request::Rollback { stage }).await?))
}

/// What the plugin beside that of a stage does, or did last, with the rows that differ.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/beside/{stage}", tag = "jobs",
    params(("job" = String, Path), ("stage" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn beside(
    Reader(tenant): Reader,
    Path((job, stage)): Path<(String, String)>,
) -> Result<Answer<Value>, Problem> {
    let (job, stage) = (named(&job, JobName::new)?, named(&stage, NodeName::new)?);
    let slot = tenant.slot(&job)?;
    Ok(Answer(slot.ask(Request::Beside { stage }).await?))
}

/// Has a node run with another parallelism: the job ends at an epoch and goes on from its state.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/rescale", tag = "jobs", params(("job" = String, Path)),
    request_body = RescaleAsked, responses((status = 200, body = JobView), (status = 404, body = Problem))
)]
pub(super) async fn rescale(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Json(asked): Json<RescaleAsked>,
) -> Result<Answer<JobView>, Problem> {
    let (job, node) = (named(&job, JobName::new)?, named(&asked.node, NodeName::new)?);
    Ok(Answer(tenant.rescale(job, &node, asked.parallelism).await?))
}

/// Savepoints of the job, by epoch.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/savepoints", tag = "jobs", params(("job" = String, Path)),
    responses((status = 200, body = [SavepointView]), (status = 404, body = Problem))
)]
pub(super) async fn savepoints(
    Reader(tenant): Reader,
    Path(job): Path<String>,
) -> Result<Answer<Vec<SavepointView>>, Problem> {
    Ok(Answer(tenant.savepoints(&named(&job, JobName::new)?).await?))
}

/// Makes a savepoint: everything that the job has committed, in one file.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/savepoints", tag = "jobs", params(("job" = String, Path)),
    request_body = SavepointAsked, responses((status = 201, body = SavepointView), (status = 404, body = Problem))
)]
pub(super) async fn make_savepoint(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Json(asked): Json<SavepointAsked>,
) -> Result<(StatusCode, Answer<SavepointView>), Problem> {
    let job = named(&job, JobName::new)?;
    let making = async move { tenant.make_savepoint(job, asked.name).await };
    Ok((StatusCode::CREATED, Answer(crate::service::jobs::to_the_end(making).await?)))
}

/// Removes a savepoint.
#[utoipa::path(
    delete, path = "/v1/jobs/{job}/savepoints/{savepoint}", tag = "jobs",
    params(("job" = String, Path), ("savepoint" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn remove_savepoint(
    Deployer(tenant): Deployer,
    Path((job, savepoint)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    tenant.remove_savepoint(&named(&job, JobName::new)?, &savepoint).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes the job back to a savepoint.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/restore", tag = "jobs", params(("job" = String, Path)),
    request_body = RestoreAsked, responses((status = 200, body = JobView), (status = 404, body = Problem))
)]
pub(super) async fn restore(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Json(asked): Json<RestoreAsked>,
) -> Result<Answer<JobView>, Problem> {
    let job = named(&job, JobName::new)?;
    tenant.restore(job.clone(), asked.savepoint).await?;
    Ok(Answer(tenant.job(&job).await?))
}

/// Rows that a node gives, or that a sink is given, as they come: server-sent events `row`, and `lost`
/// with a number of rows where the reader is too slow.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/tap/{node}", tag = "jobs",
    params(("job" = String, Path), ("node" = String, Path), TapAsked),
    responses((status = 200, body = String, content_type = "text/event-stream"), (status = 404, body = Problem))
)]
pub(super) async fn tap(
    Reader(tenant): Reader,
    Path((job, node)): Path<(String, String)>,
    Asked(asked): Asked<TapAsked>,
) -> Result<impl IntoResponse, Problem> {
    tap::open(&tenant, &named(&job, JobName::new)?, &named(&node, NodeName::new)?, asked.limit)
}
