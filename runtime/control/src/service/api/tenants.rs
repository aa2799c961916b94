//! Tenants and their tokens.

use std::collections::BTreeSet;

use axum::Json as Answer;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wasmill_model::TenantName;

use super::Shared;
use super::auth::{Caller, Operator};
use super::body::{Json, named};
use crate::service::budget::Budget;
use crate::service::problem::Problem;
use crate::service::record::Egress;
use crate::service::signatures;
use crate::service::tenant::Tenant;
use crate::service::tokens::{self, Owner, Scope, TokenRecord};

/// Longest name that somebody gives a token or a signer.
const LABEL_CHARS_MAX: usize = 63;
/// Signers of a tenant.
const SIGNERS_MAX: usize = 32;
/// Longest life of a token.
const DAYS_MAX: u32 = 3_660;

/// A tenant that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTenant {
    /// Its name, `[a-z0-9-]{1,63}`.
    #[schema(value_type = String)]
    tenant: TenantName,
    /// What it may use; what is left out is as usual.
    #[serde(default)]
    budget: Budget,
    /// Where its jobs may connect to; nowhere, where it is left out.
    #[serde(default)]
    egress: Egress,
}

/// What is to change of a tenant; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantChange {
    /// What it may use, all of it.
    budget: Option<Budget>,
    /// Where its jobs may connect to from their next start on.
    egress: Option<Egress>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TenantView {
    /// Its name.
    tenant: String,
    /// Microseconds since the Unix epoch.
    created: i64,
    /// What it may use.
    budget: Budget,
    /// Where its jobs may connect to.
    egress: Egress,
    /// Who may sign plugins.
    signers: Vec<String>,
    /// How many jobs it has.
    jobs: usize,
    /// How many plugins it has.
    plugins: usize,
}

/// A token that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewToken {
    /// What it is for.
    name: String,
    /// What it allows. By default `read`.
    #[serde(default)]
    scopes: BTreeSet<Scope>,
    /// For how long it holds, in days. By default for good.
    days: Option<u32>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TokenView {
    /// What it is revoked by.
    id: String,
    /// What it is for.
    name: String,
    /// What it allows.
    scopes: Vec<Scope>,
    /// Microseconds since the Unix epoch.
    created: i64,
    /// Microseconds since the Unix epoch.
    expires: Option<i64>,
    /// The token, once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// Who may sign plugins.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSigner {
    /// The ed25519 public key, 64 hexadecimal digits.
    key: String,
}

fn view(tenant: &Tenant) -> TenantView {
    let record = tenant.record();
    TenantView {
        tenant: tenant.name.to_string(),
        created: record.created,
        budget: record.budget,
        egress: record.egress.clone(),
        signers: record.signers.keys().cloned().collect(),
        jobs: record.jobs.len(),
        plugins: record.plugins.len(),
    }
}

fn token_view(record: &TokenRecord, token: Option<String>) -> TokenView {
    let TokenRecord { id, name, scopes, created, expires, .. } = record;
    let scopes = scopes.iter().copied().collect();
    TokenView { id: id.clone(), name: name.clone(), scopes, created: *created, expires: *expires, token }
}

fn label(text: &str) -> Result<(), Problem> {
    let is_label = (1..=LABEL_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    if is_label { Ok(()) } else { Err(Problem::bad(format!("a name has 1 to {LABEL_CHARS_MAX} characters"))) }
}

fn check_egress(egress: &Egress) -> Result<(), Problem> {
    if egress.hosts.len() > 1_000 {
        return Err(Problem::bad("at most 1000 hosts"));
    }
    for host in &egress.hosts {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let is_name = !name.is_empty()
            && name.len() <= 253
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
        if host != "*" && !is_name {
            return Err(Problem::bad(format!("{host:?} is no host: write a name, *.NAME, or * for all")));
        }
    }
    Ok(())
}

/// All tenants.
#[utoipa::path(get, path = "/v1/tenants", tag = "tenants", responses((status = 200, body = [TenantView])))]
pub(super) async fn list(_: Operator, State(service): State<Shared>) -> Answer<Vec<TenantView>> {
    Answer(service.tenants().iter().map(|tenant| view(tenant)).collect())
}

/// Makes a tenant.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants", request_body = NewTenant,
    responses((status = 201, body = TenantView), (status = 409, body = Problem))
)]
pub(super) async fn make(
    _: Operator,
    State(service): State<Shared>,
    Json(new): Json<NewTenant>,
) -> Result<(StatusCode, Answer<TenantView>), Problem> {
    check_egress(&new.egress)?;
    new.budget.check()?;
    let made =
        crate::service::jobs::to_the_end(async move { service.make_tenant(new.tenant, new.budget, new.egress).await });
    Ok((StatusCode::CREATED, Answer(view(&*made.await?))))
}

/// A tenant, for its administrators and the operator.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path)),
    responses((status = 200, body = TenantView), (status = 404, body = Problem))
)]
pub(super) async fn show(
    caller: Caller,
    State(service): State<Shared>,
    Path(tenant): Path<String>,
) -> Result<Answer<TenantView>, Problem> {
    let tenant = caller.administers(&service, &named(&tenant, TenantName::new)?)?;
    Ok(Answer(view(&tenant)))
}

/// Changes what a tenant may.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path)),
    request_body = TenantChange, responses((status = 200, body = TenantView), (status = 404, body = Problem))
)]
pub(super) async fn change(
    _: Operator,
    State(service): State<Shared>,
    Path(tenant): Path<String>,
    Json(change): Json<TenantChange>,
) -> Result<Answer<TenantView>, Problem> {
    let name = named(&tenant, TenantName::new)?;
    let tenant = service.tenant(&name).ok_or_else(|| Problem::missing(format!("there is no tenant {name}")))?;
    change.egress.as_ref().map_or(Ok(()), check_egress)?;
    change.budget.as_ref().map_or(Ok(()), Budget::check)?;
    tenant
        .change(move |record| {
            record.budget = change.budget.unwrap_or(record.budget);
            if let Some(egress) = change.egress {
                record.egress = egress;
            }
            Ok(())
        })
        .await?;
    tenant.set_rates();
    Ok(Answer(view(&tenant)))
}

/// Removes a tenant with its jobs, their state, its plugins and topics.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn remove(
    _: Operator,
    State(service): State<Shared>,
    Path(tenant): Path<String>,
) -> Result<StatusCode, Problem> {
    let name = named(&tenant, TenantName::new)?;
    crate::service::jobs::to_the_end(async move { service.remove_tenant(&name).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tokens of a tenant, without their secrets.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/tokens", tag = "tenants", params(("tenant" = String, Path)),
    responses((status = 200, body = [TokenView]), (status = 404, body = Problem))
)]
pub(super) async fn tokens(
    caller: Caller,
    State(service): State<Shared>,
    Path(tenant): Path<String>,
) -> Result<Answer<Vec<TokenView>>, Problem> {
    let tenant = caller.administers(&service, &named(&tenant, TenantName::new)?)?;
    let record = tenant.record();
    Ok(Answer(record.tokens.values().map(|record| token_view(record, None)).collect()))
}

/// Makes a token. Its text is in the answer, and nowhere else.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/tokens", tag = "tenants", params(("tenant" = String, Path)),
    request_body = NewToken, responses((status = 201, body = TokenView), (status = 404, body = Problem))
)]
pub(super) async fn make_token(
    caller: Caller,
    State(service): State<Shared>,
    Path(tenant): Path<String>,
    Json(new): Json<NewToken>,
) -> Result<(StatusCode, Answer<TokenView>), Problem> {
    let tenant = caller.administers(&service, &named(&tenant, TenantName::new)?)?;
    label(&new.name)?;
    let scopes = if new.scopes.is_empty() { BTreeSet::from([Scope::Read]) } else { new.scopes };
    let days = new.days.map(|days| match days {
        1..=DAYS_MAX => Ok(i64::from(days) * 86_400_000_000),
        days => Err(Problem::bad(format!("`days` is 1 to {DAYS_MAX}, not {days}"))),
    });
    let now = service.clock().wall();
    let expires = days.transpose()?.map(|micros| now.0.saturating_add(micros));
    let owner = Owner::Tenant(tenant.name.clone());
    let made = tokens::make(&owner, new.name, scopes, now, expires);
    let (secret, token) = made.map_err(|error| Problem::internal(format!("no random bytes: {error}")))?;
    let kept = token.clone();
    tenant
        .change(move |record| {
            if record.tokens.len() >= record.budget.tokens as usize {
                let most = record.budget.tokens;
                return Err(Problem::over_budget(format!("the tenant has {most} tokens, and may have no more")));
            }
            record.tokens.insert(kept.id.clone(), kept);
            Ok(())
        })
        .await?;
    Ok((StatusCode::CREATED, Answer(token_view(&token, Some(secret.reveal().to_owned())))))
}

/// Revokes a token: it is nothing from now on.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/tokens/{token}", tag = "tenants",
    params(("tenant" = String, Path), ("token" = String, Path, description = "The id of the token, not its text")),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn revoke_token(
    caller: Caller,
    State(service): State<Shared>,
    Path((tenant, token)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let tenant = caller.administers(&service, &named(&tenant, TenantName::new)?)?;
    tenant
        .change(move |record| {
            // Somebody may have written the text of a token here: it is not said again.
            record.tokens.remove(&token).map(drop).ok_or_else(|| Problem::missing("there is no token of this id"))
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has plugins need a signature, of this signer or another one.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/signers/{signer}", tag = "tenants",
    params(("tenant" = String, Path), ("signer" = String, Path)), request_body = NewSigner,
    responses((status = 200, body = TenantView), (status = 404, body = Problem))
)]
pub(super) async fn put_signer(
    caller: Caller,
    State(service): State<Shared>,
    Path((tenant, signer)): Path<(String, String)>,
    Json(new): Json<NewSigner>,
) -> Result<Answer<TenantView>, Problem> {
    let tenant = caller.administers(&service, &named(&tenant, TenantName::new)?)?;
    label(&signer)?;
    signatures::key(&new.key)?;
    tenant
        .change(move |record| {
            if record.signers.len() >= SIGNERS_MAX && !record.signers.contains_key(&signer) {
                return Err(Problem::over_budget(format!("a tenant has at most {SIGNERS_MAX} signers")));
            }
            record.signers.insert(signer, new.key);
            Ok(())
        })
        .await?;
    Ok(Answer(view(&tenant)))
}

/// Removes a signer. Where none is left plugins need no signature.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/signers/{signer}", tag = "tenants",
    params(("tenant" = String, Path), ("signer" = String, Path)),
    responses((status = 204), (status = 404, body = Problem))
)]
pub(super) async fn remove_signer(
    caller: Caller,
    State(service): State<Shared>,
    Path((tenant, signer)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let tenant = caller.administers(&service, &named(&tenant, TenantName::new)?)?;
    let missing = Problem::missing(format!("there is no signer {signer:?}"));
    tenant.change(move |record| record.signers.remove(&signer).map(drop).ok_or(missing)).await?;
    Ok(StatusCode::NO_CONTENT)
}
