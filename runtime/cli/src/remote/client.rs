//! Requests to a service, and what it answers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use wasmill_connectors::client_tls;
use wasmill_env::{Clock, RealClock};

use crate::failure::{Failure, chain};

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// A service has answered after this long. Compiling a plugin and ending an epoch take a while.
const PATIENCE: Duration = Duration::from_secs(120);

/// Speaks HTTP, encrypted where the address says so.
pub(crate) type HttpsClient = HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client for an address, which trusts these authorities or those of the system.
pub(crate) fn https(uri: &Uri, authorities: Option<&Path>) -> Result<HttpsClient, Failure> {
    let pem = authorities.map(|path| std::fs::read(path).map_err(|error| Failure::file("read", path, &error)));
    let pem = pem.transpose()?;
    let tls = client_tls(pem.as_deref(), uri.scheme_str() == Some("https")).map_err(|error| match authorities {
        Some(path) => Failure::wrong(format!("cannot use {}: {error}", path.display())),
        None => Failure::wrong(chain(&error)).hint("name the authority of the service with --authorities FILE"),
    })?;
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Ok(HttpClient::builder(TokioExecutor::new()).build(connector.build()))
}

/// A service, and who asks it.
pub(crate) struct Client {
    http: HttpsClient,
    server: String,
    token: HeaderValue,
    clock: Arc<dyn Clock>,
}

/// What is sent with a request.
pub(crate) enum Body {
    Nothing,
    Json(Value),
    /// Bytes of a kind.
    Bytes(Vec<u8>, &'static str),
}

impl Client {
    pub(super) fn new(server: &str, token: String, authorities: Option<&Path>) -> Result<Self, Failure> {
        let server = server.trim_end_matches('/').to_owned();
        let uri: Uri = server.parse().map_err(|error| Failure::wrong(format!("{server:?} is no URL: {error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(Failure::wrong(format!("{server:?} is no URL of http or https")));
        }
        let http = https(&uri, authorities)?;
        let mut token = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| Failure::wrong("the token holds what no token holds"))?;
        token.set_sensitive(true);
        Ok(Self { http, server, token, clock: Arc::new(RealClock::default()) })
    }

    /// Asks, and waits for the head of the answer.
    pub(crate) async fn open(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>, Failure> {
        let (bytes, kind) = match body {
            Body::Nothing => (Vec::new(), None),
            Body::Json(value) => (value.to_string().into_bytes(), Some("application/json")),
            Body::Bytes(bytes, kind) => (bytes, Some(kind)),
        };
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.server)).header(AUTHORIZATION, &self.token);
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        let request = request
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| Failure::wrong(format!("{path:?} cannot be asked for: {error}")))?;
        tokio::select! {
            answer = self.http.request(request) => {
                let unreachable = |error| Failure::failed(format!("cannot reach {}: {}", self.server, chain(&error)));
                let answer = answer.map_err(unreachable)?;
                if answer.status().is_success() { Ok(answer) } else { Err(self.refusal(answer).await) }
            }
            () = self.clock.sleep(PATIENCE) => {
                let seconds = PATIENCE.as_secs();
                Err(Failure::failed(format!("{} had not answered after {seconds} s", self.server)))
            }
        }
    }

    /// What a service says when it does not do what it was asked for.
    async fn refusal(&self, answer: Response<Incoming>) -> Failure {
        let status = answer.status();
        let problem = match read(answer).await {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).unwrap_or_default(),
            Err(failure) => return failure,
        };
        let detail = problem["detail"].as_str().map_or_else(|| format!("it answered {status}"), str::to_owned);
        let failure = match status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => {
                Failure::wrong(with_diagnostics(detail, &problem))
            }
            _ => Failure::failed(with_diagnostics(detail, &problem)),
        };
        let hints = problem["hints"].as_array().into_iter().flatten().filter_map(Value::as_str);
        hints.fold(failure, Failure::hint)
    }

    /// Asks, and reads the answer.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: Body) -> Result<Value, Failure> {
        let bytes = read(self.open(method, path, body).await?).await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes)
            .map_err(|error| Failure::failed(format!("{} answered what is no JSON: {error}", self.server)))
    }

    /// Asks, and reads an answer that is not JSON.
    pub(crate) async fn fetch(&self, path: &str) -> Result<Bytes, Failure> {
        read(self.open(Method::GET, path, Body::Nothing).await?).await
    }
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, Failure> {
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| Failure::failed(format!("the answer broke off: {error}")))
}

/// Every finding about a job file, a line each, with its line and hint.
fn with_diagnostics(detail: String, problem: &Value) -> String {
    let mut text = detail;
    for found in problem["diagnostics"].as_array().into_iter().flatten() {
        let place = found["place"]["line"].as_u64().map_or(String::new(), |line| format!("line {line}: "));
        let severity = found["severity"].as_str().unwrap_or("error");
        text.push_str(&format!("\n  {severity}: {place}{}", found["message"].as_str().unwrap_or_default()));
        if let Some(hint) = found["hint"].as_str() {
            text.push_str(&format!("\n    hint: {hint}"));
        }
    }
    text
}
