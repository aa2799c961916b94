//! Plugins of the tenant.

use std::io::{self, Read};

use axum::Json as Answer;
use axum::body::Body;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::auth::{Deployer, Reader};
use super::body::{self, Asked, Json};
use crate::service::jobs::to_the_end;
use crate::service::plugins::PluginView;
use crate::service::problem::Problem;
use crate::service::room::{Room, Taken};

/// Bytes of a plugin that are read at a time, to be sent.
const PIECE_BYTES: u64 = 32 << 10;

/// What a plugin is to be called.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PushAsked {
    /// A `name` or `name:tag` that stands for it from now on.
    name: Option<String>,
}

/// A plugin of a registry.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPull {
    /// `oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:HEX]`: the digest is that of the manifest.
    reference: String,
    /// A `name` or `name:tag` that stands for it from now on.
    name: Option<String>,
}

/// A signature of a plugin.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSignature {
    /// ed25519 over the text of the digest, 128 hexadecimal digits.
    signature: String,
}

/// All plugins of the tenant.
#[utoipa::path(get, path = "/v1/plugins", tag = "plugins", responses((status = 200, body = [PluginView])))]
pub(super) async fn list(Reader(tenant): Reader) -> Answer<Vec<PluginView>> {
    Answer(tenant.plugins())
}

/// A body that is read once it is known whose it is, and how large it may be.
pub(super) struct Unread(Body, Option<Room>);

impl FromRequest<Shared> for Unread {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Shared) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        body::is_plain(&parts)?;
        Ok(Self(body, parts.extensions.get().cloned()))
    }
}

/// Takes in a plugin: the bytes of a component are the body. It is checked, compiled, and known by its
/// digest from then on.
#[utoipa::path(
    post, path = "/v1/plugins", tag = "plugins", params(PushAsked),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 201, body = PluginView), (status = 200, body = PluginView, description = "It was there"),
        (status = 413, body = Problem), (status = 422, body = Problem)
    )
)]
pub(super) async fn push(
    Deployer(tenant): Deployer,
    State(service): State<Shared>,
    Asked(asked): Asked<PushAsked>,
    Unread(body, room): Unread,
) -> Result<(StatusCode, Answer<PluginView>), Problem> {
    tenant.admit_change()?;
    let most = tenant.record().budget.plugin_bytes;
    let (bytes, taken) = body::read(body, most, service.clock(), room.as_ref()).await?;
    let pushing = async move {
        // It takes room until it is compiled, which it may have to wait for.
        let _taken = taken;
        tenant.push(bytes, asked.name).await
    };
    Ok(taken_in(to_the_end(pushing).await?))
}

fn taken_in((view, is_new): (PluginView, bool)) -> (StatusCode, Answer<PluginView>) {
    (if is_new { StatusCode::CREATED } else { StatusCode::OK }, Answer(view))
}

/// Takes in a plugin out of a registry, which is one that the tenant may connect to, or one that the operator
/// vouches for. It is known by its digest from then on, and by the reference with the digest of its manifest.
#[utoipa::path(
    post, path = "/v1/pulls", tag = "plugins", request_body = NewPull,
    responses(
        (status = 201, body = PluginView), (status = 200, body = PluginView, description = "It was there"),
        (status = 422, body = Problem), (status = 503, body = Problem, description = "The registry does not answer")
    )
)]
pub(super) async fn pull(
    Deployer(tenant): Deployer,
    Json(new): Json<NewPull>,
) -> Result<(StatusCode, Answer<PluginView>), Problem> {
    tenant.admit_change()?;
    let pulling = async move { tenant.pull(&new.reference, new.name).await };
    Ok(taken_in(to_the_end(pulling).await?))
}

/// A plugin, by its digest or a `name:tag`.
#[utoipa::path(
    get, path = "/v1/plugins/{plugin}", tag = "plugins", params(("plugin" = String, Path)),
    responses((status = 200, body = PluginView), (status = 404, body = Problem))
)]
pub(super) async fn show(Reader(tenant): Reader, Path(plugin): Path<String>) -> Result<Answer<PluginView>, Problem> {
    let (digest, mut view) = tenant.plugin(&plugin)?;
    let mut taken = Taken::default();
    tenant.room.take(&mut taken, view.bytes)?;
    let bytes = tenant.plugin_bytes(digest, view.bytes).await?;
    view.about = tenant.parts.host.inspect(bytes).await.ok().map(|inspected| inspected.about);
    Ok(Answer(view))
}

/// Removes a plugin that no job needs.
#[utoipa::path(
    delete, path = "/v1/plugins/{plugin}", tag = "plugins", params(("plugin" = String, Path)),
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem))
)]
pub(super) async fn remove(Deployer(tenant): Deployer, Path(plugin): Path<String>) -> Result<StatusCode, Problem> {
    tenant.remove_plugin(&plugin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The bytes of a plugin.
#[utoipa::path(
    get, path = "/v1/plugins/{plugin}/content", tag = "plugins", params(("plugin" = String, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/wasm"), (status = 404, body = Problem))
)]
pub(super) async fn content(Reader(tenant): Reader, Path(plugin): Path<String>) -> Result<Response, Problem> {
    let (digest, _) = tenant.plugin(&plugin)?;
    let (length, file) = tenant.plugin_file(digest).await?;
    // Piece by piece: who reads slowly holds one of them. Each is allocated here, and so freed where it came from: what
    // threads that wait for disks allocate stays with them.
    let pieces = futures_util::stream::try_unfold(file, |mut file| async move {
        let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
        let read = tokio::task::spawn_blocking(move || {
            (&mut file).take(PIECE_BYTES).read_to_end(&mut piece)?;
            Ok::<_, io::Error>((piece, file))
        });
        let (piece, file) = read.await.map_err(io::Error::other)??;
        Ok::<_, io::Error>((!piece.is_empty()).then_some((piece, file)))
    });
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/wasm")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((head, Body::from_stream(pieces)).into_response())
}

/// Adds a signature of one of the tenant's signers.
#[utoipa::path(
    post, path = "/v1/plugins/{plugin}/signatures", tag = "plugins", params(("plugin" = String, Path)),
    request_body = NewSignature,
    responses((status = 200, body = PluginView), (status = 404, body = Problem), (status = 422, body = Problem))
)]
pub(super) async fn sign(
    Deployer(tenant): Deployer,
    Path(plugin): Path<String>,
    Json(new): Json<NewSignature>,
) -> Result<Answer<PluginView>, Problem> {
    Ok(Answer(tenant.sign(&plugin, new.signature).await?))
}
