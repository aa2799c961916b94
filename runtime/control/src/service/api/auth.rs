//! Who asks, and whether they may.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::{header, request::Parts};
use wasmill_model::TenantName;

use super::Shared;
use crate::service::problem::Problem;
use crate::service::tenant::Tenant;
use crate::service::tokens::Scope;

/// Somebody with a valid token.
pub(super) struct Caller {
    /// Whose token it is; `None` of the operator.
    pub(super) tenant: Option<Arc<Tenant>>,
    pub(super) scopes: BTreeSet<Scope>,
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Shared) -> Result<Self, Problem> {
        let given = parts.headers.get(header::AUTHORIZATION);
        let given = given.ok_or_else(|| Problem::unknown_caller("the request has no token"))?;
        let text = given.to_str().unwrap_or_default();
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(Problem::unknown_caller("the `Authorization` of the request is no bearer token")),
        };
        let (tenant, scopes) = service.authenticate(token)?;
        if let Some(tenant) = &tenant {
            tenant.admit_request()?;
            parts.extensions.insert(tenant.room.clone());
        }
        Ok(Self { tenant, scopes })
    }
}

impl Caller {
    /// The tenant of a token that allows something.
    fn of_tenant(self, scope: Scope) -> Result<Arc<Tenant>, Problem> {
        let Some(tenant) = self.tenant else {
            return Err(Problem::forbidden("this is a token of the operator, who has no jobs, plugins and topics")
                .hint("make a token of a tenant: wasmill token create --tenant NAME"));
        };
        if !self.scopes.contains(&scope) {
            return Err(Problem::forbidden(format!("the token lacks the scope `{}`", scope.name())));
        }
        Ok(tenant)
    }

    /// The tenant of this name, for its own administrators and the operator.
    pub(super) fn administers(&self, service: &Shared, name: &TenantName) -> Result<Arc<Tenant>, Problem> {
        match &self.tenant {
            None => service.tenant(name),
            Some(own) if own.name == *name && self.scopes.contains(&Scope::Admin) => Some(Arc::clone(own)),
            Some(own) if own.name == *name => {
                return Err(Problem::forbidden("the token lacks the scope `admin`"));
            }
            // Whether there is such a tenant is nobody's business.
            Some(_) => None,
        }
        .ok_or_else(|| Problem::missing(format!("there is no tenant {name}")))
    }
}

/// The tenant of a token that may look.
pub(super) struct Reader(pub(super) Arc<Tenant>);

/// The tenant of a token that may change jobs, plugins and topics.
pub(super) struct Deployer(pub(super) Arc<Tenant>);

/// The operator of the service.
pub(super) struct Operator;

impl FromRequestParts<Shared> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Shared) -> Result<Self, Problem> {
        Caller::from_request_parts(parts, service).await?.of_tenant(Scope::Read).map(Self)
    }
}

impl FromRequestParts<Shared> for Deployer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Shared) -> Result<Self, Problem> {
        Caller::from_request_parts(parts, service).await?.of_tenant(Scope::Deploy).map(Self)
    }
}

impl FromRequestParts<Shared> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Shared) -> Result<Self, Problem> {
        match Caller::from_request_parts(parts, service).await?.tenant {
            None => Ok(Self),
            Some(_) => Err(Problem::forbidden("only the operator of the service may do this")),
        }
    }
}
