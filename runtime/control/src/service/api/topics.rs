//! Topics of the tenant.

use axum::Json as Answer;
use axum::extract::Path;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use wasmill_model::{GroupName, TopicName};

use super::auth::{Deployer, Reader};
use super::body::{Asked, Bytes, Json, named, page};
use crate::service::problem::Problem;
use crate::service::topics::{NewTopic, PAGE_ROWS_MAX, Produced, RecordsView};
use crate::topics::{TopicSummary, TopicView};

/// Bytes of records that are appended at once.
const RECORDS_BYTES_MAX: u64 = 4 << 20;

/// Which records.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RecordsAsked {
    /// Of this partition; by default 0.
    partition: Option<u32>,
    /// From this offset on; by default from the first record there is.
    offset: Option<u64>,
    /// So many at most: 1 to 1000, by default 100.
    limit: Option<u64>,
}

/// Where records go.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AppendAsked {
    /// To this partition, whatever the keys; by default each by its key.
    partition: Option<u32>,
}

/// Topics of the tenant.
#[utoipa::path(get, path = "/v1/topics", tag = "topics", responses((status = 200, body = [TopicSummary])))]
pub(super) async fn list(Reader(tenant): Reader) -> Result<Answer<Vec<TopicSummary>>, Problem> {
    Ok(Answer(tenant.topic_list().await?))
}

/// Makes a topic.
#[utoipa::path(
    post, path = "/v1/topics", tag = "topics", request_body = NewTopic,
    responses((status = 201, body = TopicView), (status = 409, body = Problem))
)]
pub(super) async fn make(
    Deployer(tenant): Deployer,
    Json(new): Json<NewTopic>,
) -> Result<(StatusCode, Answer<TopicView>), Problem> {
    Ok((StatusCode::CREATED, Answer(tenant.make_topic(new).await?)))
}

/// A topic, its partitions, and how far groups are.
#[utoipa::path(
    get, path = "/v1/topics/{topic}", tag = "topics", params(("topic" = String, Path)),
    responses((status = 200, body = TopicView), (status = 404, body = Problem))
)]
pub(super) async fn show(Reader(tenant): Reader, Path(topic): Path<String>) -> Result<Answer<TopicView>, Problem> {
    Ok(Answer(tenant.topic(named(&topic, TopicName::new)?).await?))
}

/// Removes a topic with everything in it.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}", tag = "topics", params(("topic" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn remove(Deployer(tenant): Deployer, Path(topic): Path<String>) -> Result<StatusCode, Problem> {
    tenant.remove_topic(named(&topic, TopicName::new)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets how far a group of consumers is.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}/groups/{group}", tag = "topics",
    params(("topic" = String, Path), ("group" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn remove_group(
    Deployer(tenant): Deployer,
    Path((topic, group)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    tenant.remove_group(named(&topic, TopicName::new)?, named(&group, GroupName::new)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A page of records of a partition.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/records", tag = "topics", params(("topic" = String, Path), RecordsAsked),
    responses((status = 200, body = RecordsView), (status = 400, body = Problem), (status = 404, body = Problem))
)]
pub(super) async fn consume(
    Reader(tenant): Reader,
    Path(topic): Path<String>,
    Asked(asked): Asked<RecordsAsked>,
) -> Result<Answer<RecordsView>, Problem> {
    let limit = page(asked.limit, PAGE_ROWS_MAX)?;
    let topic = named(&topic, TopicName::new)?;
    Ok(Answer(tenant.consume(topic, asked.partition.unwrap_or(0), asked.offset, limit).await?))
}

/// Appends records: lines of JSON with `value`, and `key` and `time` where wanted. They are durable when
/// this answers.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/records", tag = "topics", params(("topic" = String, Path), AppendAsked),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 201, body = Produced), (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub(super) async fn produce(
    Deployer(tenant): Deployer,
    Path(topic): Path<String>,
    Asked(asked): Asked<AppendAsked>,
    Bytes(lines, _taken): Bytes<RECORDS_BYTES_MAX>,
) -> Result<(StatusCode, Answer<Produced>), Problem> {
    let topic = named(&topic, TopicName::new)?;
    Ok((StatusCode::CREATED, Answer(tenant.produce(topic, asked.partition, lines).await?)))
}
