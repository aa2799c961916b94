//! How the service is: health, readiness, metrics, who one is.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Shared;
use super::auth::{Caller, Reader};
use crate::service::blocking::blocking;
use crate::service::problem::Problem;
use crate::service::tokens::Scope;

/// Who a token is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WhoAmI {
    /// The tenant; none of the operator.
    tenant: Option<String>,
    /// What the token allows.
    scopes: Vec<Scope>,
}

/// Whether the process answers.
#[utoipa::path(get, path = "/healthz", tag = "service", security(()), responses((status = 200, body = Object)))]
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether jobs were started, and the service does not end.
#[utoipa::path(
    get, path = "/readyz", tag = "service", security(()),
    responses((status = 200, body = Object), (status = 503, body = Problem))
)]
pub(super) async fn readyz(State(service): State<Shared>) -> Result<Json<Value>, Problem> {
    match service.is_ready() {
        true => Ok(Json(json!({"status": "ready"}))),
        false => Err(Problem::unavailable("the service starts or ends")),
    }
}

/// This document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "service", security(()), responses((status = 200, body = Object))
)]
pub(super) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(super::document())
}

/// Metrics for Prometheus: of the tenant, or of all where the operator asks.
#[utoipa::path(get, path = "/metrics", tag = "service", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(service): State<Shared>, caller: Caller) -> Result<Response, Problem> {
    if caller.tenant.is_some() && !caller.scopes.contains(&Scope::Read) {
        return Err(Problem::forbidden("the token lacks the scope `read`"));
    }
    let text = crate::service::metrics::text(&service, caller.tenant.as_ref())?;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// Whose the token is, and what it allows.
#[utoipa::path(get, path = "/v1/whoami", tag = "service", responses((status = 200, body = WhoAmI)))]
pub(super) async fn whoami(caller: Caller) -> Json<WhoAmI> {
    let tenant = caller.tenant.map(|tenant| tenant.name.to_string());
    Json(WhoAmI { tenant, scopes: caller.scopes.into_iter().collect() })
}

/// What the tenant has used since it was made, has now, and may have.
#[utoipa::path(get, path = "/v1/usage", tag = "service", responses((status = 200, body = Object)))]
pub(super) async fn usage(Reader(tenant): Reader) -> Result<Json<Value>, Problem> {
    let found = blocking(move || {
        let (used, budget) = (tenant.usage(), tenant.record().budget);
        Ok(json!({
            "tenant": tenant.name, "used": used, "has": tenant.holdings(), "budget": budget,
            "over_budget": tenant.account.over_budget(),
        }))
    });
    found.await.map(Json)
}
