//! What the API says when it does not do what it was asked for: problem details of RFC 9457.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use wasmill_model::ErrorKind;
use wasmill_store::{StoreError, TopicError};

/// Longest text of a problem, in characters.
const TEXT_CHARS_MAX: usize = 2_000;

/// Why a request was refused, as `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Which kind of problem, a URN such as `urn:wasmill:problem:over-budget`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: &'static str,
    /// The same in words, equal for all problems of the kind.
    #[schema(value_type = String)]
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong with this request.
    pub detail: String,
    /// What to do, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// What is wrong with a job file, each with its line, column and hint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub diagnostics: Vec<Value>,
    /// Seconds after which it may go well.
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let detail: String = inert(&detail.into());
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail,
            hints: Vec::new(),
            diagnostics: Vec::new(),
            retry_after: None,
        }
    }

    /// 400: the request itself is wrong.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "urn:wasmill:problem:bad-request", "The request is not understood", detail)
    }

    /// 401: nobody, or somebody unknown.
    pub fn unknown_caller(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "urn:wasmill:problem:no-valid-token", "A valid token is needed", detail)
            .hint("send `Authorization: Bearer TOKEN`")
    }

    /// 403: somebody who may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:wasmill:problem:forbidden", "The token does not allow this", detail)
    }

    /// 403: not granted to the tenant.
    pub fn not_granted(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "urn:wasmill:problem:not-granted", "This is not granted to the tenant", detail)
    }

    /// 404.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "urn:wasmill:problem:not-found", "There is no such thing", detail)
    }

    /// 409: not in this state of affairs.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "urn:wasmill:problem:conflict", "Not as things stand", detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "urn:wasmill:problem:too-large", "The body is too large", detail)
    }

    /// 422: understood, and wrong.
    pub fn wrong(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "urn:wasmill:problem:wrong-content", "The content is wrong", detail)
    }

    /// 422 of a job file, with every finding.
    pub fn wrong_job(detail: impl Into<String>, diagnostics: Vec<Value>) -> Self {
        let problem = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "urn:wasmill:problem:wrong-job",
            "The job file cannot run as it is",
            detail,
        );
        Self { diagnostics, ..problem }
    }

    /// 403: the tenant has used what it may.
    pub fn over_budget(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "urn:wasmill:problem:over-budget",
            "The budget of the tenant is used up",
            detail,
        )
        .hint("remove something, or ask the operator of the service for more")
    }

    /// 429: too often.
    pub fn too_many(detail: impl Into<String>, retry_after: u64) -> Self {
        let problem = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "urn:wasmill:problem:too-many-requests",
            "Too many requests",
            detail,
        );
        Self { retry_after: Some(u32::try_from(retry_after).unwrap_or(u32::MAX)), ..problem }
    }

    /// 503: try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "urn:wasmill:problem:unavailable", "Not just now", detail)
    }

    /// 500: our bug, or the disk.
    pub fn internal(detail: impl Into<String>) -> Self {
        let detail: String = detail.into();
        tracing::error!("the service failed: {detail}");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "urn:wasmill:problem:internal", "The service failed", detail)
    }

    /// The same with something to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(inert(&hint.into()));
        self
    }

    /// The same with several things to do.
    #[must_use]
    pub fn hints(self, hints: impl IntoIterator<Item = String>) -> Self {
        hints.into_iter().fold(self, Self::hint)
    }

    /// An error of a layer below, by who has to act.
    pub fn of(kind: ErrorKind, detail: impl Into<String>) -> Self {
        match kind {
            ErrorKind::Config | ErrorKind::Plugin => Self::wrong(detail),
            ErrorKind::Unavailable | ErrorKind::Full => Self::unavailable(detail),
            ErrorKind::Corrupt | ErrorKind::Fenced | ErrorKind::Internal => Self::internal(detail),
        }
    }
}

/// Text without control characters, and not longer than anyone reads.
fn inert(text: &str) -> String {
    let shown = text.chars().take(TEXT_CHARS_MAX);
    shown.flat_map(|c| if c.is_control() && c != '\n' { c.escape_default().collect() } else { vec![c] }).collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<TopicError> for Problem {
    fn from(error: TopicError) -> Self {
        // Names of folders are nobody's business outside.
        match &error {
            TopicError::Missing { name, .. } => Self::missing(format!("there is no topic {name}"))
                .hint(format!("`wasmill topic create {name} --server URL` makes it")),
            TopicError::Exists { .. } => Self::conflict(error.to_string()),
            TopicError::Gone { .. } | TopicError::Beyond { .. } | TopicError::NoPartition { .. } => {
                Self::bad(error.to_string())
            }
            TopicError::TooLarge { .. } => Self::too_large(error.to_string()),
            TopicError::Store(error) => Self::of(error.kind(), error.to_string()),
            TopicError::Config { .. } => Self::wrong(error.to_string()),
            error => Self::of(error.kind(), error.to_string()),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::of(error.kind(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_does_nothing_to_whoever_reads_it() {
        let problem = Problem::bad(format!("\u{1b}[31m{}", "x".repeat(100_000))).hint("a\u{7}b");
        assert!(problem.detail.starts_with("\\u{1b}[31mx") && problem.detail.len() < 2_100, "{problem:?}");
        assert_eq!(problem.hints, ["a\\u{7}b"]);
    }
}
