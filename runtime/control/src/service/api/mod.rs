//! The HTTP API: one file a subject. Routes and their description in the OpenAPI document are one.

mod auth;
mod body;
#[cfg(test)]
mod fuzz;
mod jobs;
mod letters;
mod plugins;
mod state;
mod tenants;
mod topics;

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Problem;
use super::state::Service;

/// What handlers share.
type Shared = Arc<Service>;

fn routes() -> OpenApiRouter<Shared> {
    let document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Wasmill")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(
                    "Jobs of many tenants in one process. The tenant of a request comes from its token alone. Errors \
                     are problem details (RFC 9457).",
                ))
                .build(),
        )
        .security(Some([SecurityRequirement::new("token", [] as [&str; 0])]))
        .build();
    OpenApiRouter::with_openapi(document)
        .routes(routes!(state::healthz))
        .routes(routes!(state::readyz))
        .routes(routes!(state::document))
        .routes(routes!(state::metrics))
        .routes(routes!(state::whoami))
        .routes(routes!(state::usage))
        .routes(routes!(tenants::list, tenants::make))
        .routes(routes!(tenants::show, tenants::change, tenants::remove))
        .routes(routes!(tenants::tokens, tenants::make_token))
        .routes(routes!(tenants::revoke_token))
        .routes(routes!(tenants::put_signer, tenants::remove_signer))
        .routes(routes!(plugins::list, plugins::push))
        .routes(routes!(plugins::pull))
        .routes(routes!(plugins::show, plugins::remove))
        .routes(routes!(plugins::content))
        .routes(routes!(plugins::sign))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::check))
        .routes(routes!(jobs::show, jobs::deploy, jobs::remove))
        .routes(routes!(jobs::plan))
        .routes(routes!(jobs::file))
        .routes(routes!(jobs::logs))
        .routes(routes!(jobs::why))
        .routes(routes!(jobs::pause))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::drain))
        .routes(routes!(jobs::stop))
        .routes(routes!(jobs::swap))
        .routes(routes!(jobs::promote))
        .routes(routes!(jobs::rollback))
        .routes(routes!(jobs::beside))
        .routes(routes!(jobs::rescale))
        .routes(routes!(jobs::savepoints, jobs::make_savepoint))
        .routes(routes!(jobs::remove_savepoint))
        .routes(routes!(jobs::restore))
        .routes(routes!(jobs::tap))
        .routes(routes!(letters::list))
        .routes(routes!(letters::replay))
        .routes(routes!(letters::discard))
        .routes(routes!(topics::list, topics::make))
        .routes(routes!(topics::show, topics::remove))
        .routes(routes!(topics::consume, topics::produce))
        .routes(routes!(topics::remove_group))
}

/// The OpenAPI document of the API.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = routes().into_openapi();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("wmt_… or wma_…").build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(scheme));
    document
}

/// The API of a service.
pub(super) fn router(service: Arc<Service>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(async || Problem::missing("there is nothing at this address").hint("GET /v1/openapi.json"))
        .layer(middleware::map_response(finish))
        .with_state(service)
}

/// What every answer has; and what the framework refused as a problem as well.
async fn finish(response: Response) -> Response {
    let is_problem =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json");
    let status = response.status();
    let mut response = if is_problem || !(status.is_client_error() || status.is_server_error()) {
        response
    } else {
        match status {
            StatusCode::METHOD_NOT_ALLOWED => Problem { status: 405, ..Problem::bad("not with this method") },
            StatusCode::NOT_FOUND => Problem::missing("there is nothing at this address"),
            status => Problem { status: status.as_u16(), ..Problem::bad("the request is not understood") },
        }
        .into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}
