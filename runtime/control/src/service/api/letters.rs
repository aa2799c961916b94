//! Dead letters of jobs of the tenant.

use axum::Json as Answer;
use axum::extract::Path;
use serde::Deserialize;
use utoipa::IntoParams;
use wasmill_model::JobName;

use super::auth::{Deployer, Reader};
use super::body::{Asked, Json, named, page};
use crate::letters::{LetterAct, LetterPick, LettersPicked, LettersView};
use crate::service::letters::PAGE_MAX;
use crate::service::problem::Problem;

/// Which dead letters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LettersAsked {
    /// Only those of this node.
    node: Option<String>,
    /// Begin with this id.
    from: Option<u64>,
    /// So many at most: 1 to 1000, by default 100.
    limit: Option<u64>,
}

/// What the job could not process. A job that runs rests for a moment.
#[utoipa::path(
    get, path = "/v1/jobs/{job}/letters", tag = "dead letters", params(("job" = String, Path), LettersAsked),
    responses((status = 200, body = LettersView), (status = 404, body = Problem))
)]
pub(super) async fn list(
    Reader(tenant): Reader,
    Path(job): Path<String>,
    Asked(asked): Asked<LettersAsked>,
) -> Result<Answer<LettersView>, Problem> {
    let limit = page(asked.limit, PAGE_MAX)?;
    let job = named(&job, JobName::new)?;
    Ok(Answer(tenant.letters(job, asked.node, asked.from.unwrap_or(0), limit).await?))
}

/// Has rows processed again, through the same node.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/letters/replay", tag = "dead letters", params(("job" = String, Path)),
    request_body = LetterPick, responses((status = 200, body = LettersPicked), (status = 404, body = Problem))
)]
pub(super) async fn replay(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Json(pick): Json<LetterPick>,
) -> Result<Answer<LettersPicked>, Problem> {
    Ok(Answer(tenant.pick_letters(named(&job, JobName::new)?, pick, LetterAct::Replay).await?))
}

/// Forgets some of them.
#[utoipa::path(
    post, path = "/v1/jobs/{job}/letters/drop", tag = "dead letters", params(("job" = String, Path)),
    request_body = LetterPick, responses((status = 200, body = LettersPicked), (status = 404, body = Problem))
)]
pub(super) async fn discard(
    Deployer(tenant): Deployer,
    Path(job): Path<String>,
    Json(pick): Json<LetterPick>,
) -> Result<Answer<LettersPicked>, Problem> {
    Ok(Answer(tenant.pick_letters(named(&job, JobName::new)?, pick, LetterAct::Drop).await?))
}
