//! HTTP to others.

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use crate::fence::Resolver;

/// Speaks HTTP, encrypted where a URL says so.
pub type HttpClient = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// A client. Where it is `fenced`, it connects to public addresses only, whatever a name stands for; a URL with an
/// address in place of a name is held against the [`Fence`](crate::Fence) before. It follows no redirects.
#[must_use]
pub fn outgoing(tls: ClientConfig, fenced: bool) -> HttpClient {
    let mut connector = HttpConnector::new_with_resolver(Resolver::new(fenced));
    connector.enforce_http(false);
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let connector = builder.enable_http1().wrap_connector(connector);
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}
