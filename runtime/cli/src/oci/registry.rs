//! Registries: plugins are pulled and pushed by the OCI distribution specification 1.1.
//!
//! A registry is nobody to trust: what it sends is counted and hashed as it comes, where it sends one to is held
//! against the fence like where one began, and it has to be done within a minute. Credentials and tokens go to the
//! registry that they are for, and to the address that it has them fetched from if that is encrypted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode, Uri};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use wasmill_connectors::{Fence, HttpClient, client_tls, outgoing};
use wasmill_env::Clock;
use wasmill_model::PluginDigest;

use super::challenge::{Challenge, challenge};
use super::{Blob, DOCUMENT_BYTES_MAX, Described, INDEX, LAYER, MANIFEST, Reference};
use super::{chosen, credentials, described, digest, is_config_of, pack, parts};
use crate::failure::{Failure, chain};

/// Everything has come, or gone, after this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// So often a registry may send one on.
const REDIRECTS_MAX: usize = 4;
/// Bytes of an answer that says why, and of one with a token.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Characters of what a registry says that are shown.
const SHOWN_CHARS_MAX: usize = 300;

/// What may be reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    /// What holds everything but the registries below; nothing does on the command line.
    pub(crate) fence: Option<Fence>,
    /// Registries that the operator vouches for, wherever they are, such as `registry.internal:5000`.
    pub(crate) registries: Vec<String>,
}

impl Reach {
    /// Whether the client for this URL is a fenced one.
    fn decide(&self, url: &Uri) -> Result<bool, Failure> {
        let Some(fence) = &self.fence else { return Ok(false) };
        let authority = url.authority().map_or("", Authority::as_str);
        if self.registries.iter().any(|registry| registry.eq_ignore_ascii_case(authority)) {
            return Ok(false);
        }
        match fence.permits(url) {
            Ok(()) => Ok(true),
            Err(error) => {
                let hint = error.hint.unwrap_or_default();
                Err(Failure::wrong(error.message)
                    .hint(hint)
                    .hint("or pull it here: wasmill plugin import --oci oci://…"))
            }
        }
    }
}

/// A plugin that was pulled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pulled {
    /// Its manifest, which names it for good.
    pub(crate) manifest: PluginDigest,
    /// The plugin.
    pub(crate) bytes: Vec<u8>,
}

/// Pulls the plugin that a reference names, of at most so many bytes.
pub(crate) async fn pull(
    reference: &Reference,
    reach: Reach,
    bytes_max: u64,
    clock: &Arc<dyn Clock>,
) -> Result<Pulled, Failure> {
    let mut session = Session::new(reference, reach, "pull")?;
    patiently(clock, reference, session.pull(bytes_max)).await
}

/// Pushes a plugin under a tag; returns the digest of its manifest.
pub(crate) async fn push(
    reference: &Reference,
    plugin: &[u8],
    imports: &[String],
    exports: &[String],
    clock: &Arc<dyn Clock>,
) -> Result<PluginDigest, Failure> {
    if reference.digest.is_some() {
        return Err(Failure::wrong(format!("{reference}: a plugin is pushed under a tag"))
            .hint("leave out @sha256:…: it follows from the plugin"));
    }
    let mut session = Session::new(reference, Reach::default(), "pull,push")?;
    patiently(clock, reference, session.push(plugin, imports, exports)).await
}

async fn patiently<T>(
    clock: &Arc<dyn Clock>,
    reference: &Reference,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = clock.sleep(PATIENCE) => {
            let seconds = PATIENCE.as_secs();
            Err(Failure::failed(format!("{reference}: {} was not done after {seconds} s", reference.registry)).passing())
        }
    }
}

/// A registry while something is pulled or pushed.
struct Session<'a> {
    reference: &'a Reference,
    reach: Reach,
    /// What is done, in the words of scopes.
    actions: &'static str,
    /// Sent to the registry itself, and to nobody else.
    authorization: Option<HeaderValue>,
    /// The last client, whether it is fenced, and whether it can encrypt.
    client: Option<((bool, bool), HttpClient)>,
    origin: Uri,
}

impl<'a> Session<'a> {
    fn new(reference: &'a Reference, reach: Reach, actions: &'static str) -> Result<Self, Failure> {
        let origin = reference.origin();
        let origin: Uri = origin.parse().map_err(|error| Failure::wrong(format!("{reference}: {error}")))?;
        Ok(Self { reference, reach, actions, authorization: None, client: None, origin })
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Failure {
        Failure::wrong(format!("{}: {why}", self.reference))
    }

    fn at(&self, kind: &str, what: &str) -> Result<Uri, Failure> {
        let Reference { repository, .. } = self.reference;
        let url = format!("{}/v2/{repository}/{kind}/{what}", self.reference.origin());
        url.parse().map_err(|error| self.wrong(format!("{url:?} is no URL: {error}")))
    }

    fn is_registry(&self, url: &Uri) -> bool {
        url.authority() == self.origin.authority() && url.scheme() == self.origin.scheme()
    }

    /// The client for a URL.
    fn client(&mut self, url: &Uri) -> Result<&HttpClient, Failure> {
        let key = (self.reach.decide(url)?, url.scheme_str() == Some("https"));
        if self.client.as_ref().is_none_or(|(last, _)| *last != key) {
            let tls = client_tls(None, key.1).map_err(|error| {
                Failure::wrong(chain(&error)).hint("install them, or name a file of them in SSL_CERT_FILE")
            })?;
            self.client = Some((key, outgoing(tls, key.0)));
        }
        let client = self.client.as_ref().map(|(_, client)| client);
        client.ok_or_else(|| Failure::failed("there is no client"))
    }

    /// Sends one request as it stands.
    async fn send(
        &mut self,
        method: &Method,
        url: &Uri,
        header: Option<(HeaderName, &str)>,
        authorization: Option<&HeaderValue>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| self.wrong(format!("{url}: {error}")))?;
        let answer = self.client(url)?.request(request).await;
        let host = url.authority().map_or("", Authority::as_str);
        answer.map_err(|error| Failure::failed(format!("cannot reach {host}: {}", chain(&error))).passing())
    }

    /// Asks, says who asks where that is wanted, and goes where it is sent on to.
    async fn ask(
        &mut self,
        method: Method,
        url: Uri,
        header: Option<(HeaderName, &str)>,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let mut url = url;
        let (mut redirects, mut introduced) = (0, false);
        loop {
            let own = self.is_registry(&url);
            let authorization = self.authorization.clone().filter(|_| own);
            let answer = self.send(&method, &url, header.clone(), authorization.as_ref(), body.clone()).await?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && own && !introduced {
                introduced = true;
                self.introduce(answer).await?;
            } else if status.is_redirection() && [Method::GET, Method::HEAD].contains(&method) {
                redirects += 1;
                if redirects > REDIRECTS_MAX {
                    return Err(self.wrong(format!("one is sent on more than {REDIRECTS_MAX} times")));
                }
                url = self.sent_to(&url, &answer)?;
            } else {
                return Ok(answer);
            }
        }
    }

    /// Where an answer sends one to.
    fn sent_to(&self, from: &Uri, answer: &Response<Incoming>) -> Result<Uri, Failure> {
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| self.wrong("it sends one on, and does not say where to"))?;
        sent_to(from, location).map_err(|why| self.wrong(why))
    }

    /// Learns what to send so that the registry knows who asks.
    async fn introduce(&mut self, answer: Response<Incoming>) -> Result<(), Failure> {
        // Tenants of a service are nobody: its operator's credentials are not theirs.
        let known = match self.reach.fence {
            Some(_) => None,
            None => credentials::of(&self.reference.registry)?,
        };
        let asked = answer.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let refused = || {
            let why = format!("{} does not know who asks", self.reference.registry);
            self.wrong(why).hint("log in with `docker login`; what is public needs none")
        };
        match asked.filter_map(challenge).next().ok_or_else(refused)? {
            Challenge::Basic => self.authorization = Some(known.ok_or_else(refused)?),
            Challenge::Bearer { realm, service, scope } => {
                let url = self.token_url(&realm, service.as_deref(), scope.as_deref())?;
                let answer = self.send(&Method::GET, &url, None, known.as_ref(), Bytes::new()).await?;
                let status = answer.status();
                let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
                let body = body.map_err(|error| self.wrong(format!("the token broke off: {error}")))?.to_bytes();
                if !status.is_success() {
                    return Err(self.wrong(format!("there is no token for it: {}", said(status, &body))));
                }
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let token = body["token"].as_str().or_else(|| body["access_token"].as_str());
                let token = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
                let mut token = token.ok_or_else(|| self.wrong("what is to be a token is none"))?;
                token.set_sensitive(true);
                self.authorization = Some(token);
            }
        }
        Ok(())
    }

    fn token_url(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<Uri, Failure> {
        let wrong = |why: &str| self.wrong(format!("tokens are to be had at {realm:?}, which {why}"));
        let usual = format!("repository:{}:{}", self.reference.repository, self.actions);
        let mut asked = format!("scope={}", encoded(scope.unwrap_or(&usual)));
        if let Some(service) = service {
            asked.push_str(&format!("&service={}", encoded(service)));
        }
        let url = format!("{realm}{}{asked}", if realm.contains('?') { '&' } else { '?' });
        let url: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        if url.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(wrong("is no URL of a host"));
        }
        if url.scheme_str() != Some("https") && !self.is_registry(&url) {
            return Err(wrong("is not encrypted"));
        }
        Ok(url)
    }

    /// An answer that is a success, or why it is none.
    async fn success(&self, what: &str, answer: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        // What breaks off, or has no end, says nothing more.
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let why = format!("{what}: the registry answered {}", said(status, &body));
        Err(match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            true => Failure::failed(format!("{}: {why}", self.reference)).passing(),
            false => self.wrong(why),
        })
    }

    /// A document of at most [`DOCUMENT_BYTES_MAX`], with its digest.
    async fn document(&mut self, what: &str, url: Uri) -> Result<(PluginDigest, Bytes), Failure> {
        let accepted = format!("{MANIFEST}, {INDEX}");
        let answer = self.ask(Method::GET, url, Some((ACCEPT, &accepted)), Bytes::new()).await?;
        let answer = self.success(what, answer).await?;
        let body = Limited::new(answer.into_body(), DOCUMENT_BYTES_MAX as usize).collect().await;
        let bytes = body.map_err(|error| self.wrong(format!("{what} broke off: {error}")))?.to_bytes();
        Ok((digest(&bytes), bytes))
    }

    async fn manifest(&mut self, wanted: &str, known: Option<PluginDigest>) -> Result<(PluginDigest, Value), Failure> {
        let url = self.at("manifests", wanted)?;
        let (found, bytes) = self.document("the manifest", url).await?;
        if known.is_some_and(|known| known != found) {
            return Err(self.wrong(format!("the manifest {wanted} was changed: it is {found}")));
        }
        let manifest = serde_json::from_slice(&bytes).map_err(|error| self.wrong(format!("the manifest: {error}")))?;
        Ok((found, manifest))
    }

    async fn pull(&mut self, bytes_max: u64) -> Result<Pulled, Failure> {
        let reference = self.reference;
        let (mut found, mut manifest) = self.manifest(&reference.wanted(), reference.digest).await?;
        if manifest["manifests"].is_array() {
            let entry = chosen(&manifest).and_then(|entry| described("manifest", entry));
            let entry = entry.map_err(|why| self.wrong(why))?;
            (found, manifest) = self.manifest(&entry.digest.to_string(), Some(entry.digest)).await?;
        }
        let (layer, config) = parts(&manifest).ok_or_else(|| {
            let hint = format!("a plugin is one layer of {LAYER} with a config for WebAssembly");
            self.wrong("its manifest is not one of a plugin").hint(hint)
        })?;
        let layer = described("plugin", layer).map_err(|why| self.wrong(why))?;
        let config = described("config", config).map_err(|why| self.wrong(why))?;
        if layer.bytes > bytes_max {
            return Err(self.wrong(format!("the plugin has {} bytes, and may have {bytes_max}", layer.bytes)));
        }
        let url = self.at("blobs", &config.digest.to_string())?;
        let (is, bytes) = self.document("the config", url).await?;
        let held = config.holds("config", is, bytes.len() as u64).and_then(|()| is_config_of(&bytes, layer.digest));
        held.map_err(|why| self.wrong(why))?;
        let bytes = self.blob(layer).await?;
        Ok(Pulled { manifest: found, bytes })
    }

    /// The plugin, which is held against its descriptor as it comes.
    async fn blob(&mut self, layer: Described) -> Result<Vec<u8>, Failure> {
        let url = self.at("blobs", &layer.digest.to_string())?;
        let answer = self.ask(Method::GET, url, None, Bytes::new()).await?;
        let mut body = self.success("the plugin", answer).await?.into_body();
        let mut hasher = Sha256::new();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.wrong(format!("the plugin broke off: {error}")))?;
            let Ok(part) = frame.into_data() else { continue };
            if (bytes.len() + part.len()) as u64 > layer.bytes {
                return Err(self.wrong(format!("more than the {} bytes of the plugin come", layer.bytes)));
            }
            hasher.update(&part);
            bytes.extend_from_slice(&part);
        }
        let found = PluginDigest(hasher.finalize().into());
        layer.holds("plugin", found, bytes.len() as u64).map_err(|why| self.wrong(why))?;
        Ok(bytes)
    }

    async fn push(&mut self, plugin: &[u8], imports: &[String], exports: &[String]) -> Result<PluginDigest, Failure> {
        let packed = pack(plugin, imports, exports);
        for blob in [&packed.layer, &packed.config] {
            self.upload(blob).await?;
        }
        let url = self.at("manifests", &self.reference.wanted())?;
        let body = Bytes::copy_from_slice(&packed.manifest.bytes);
        let answer = self.ask(Method::PUT, url, Some((CONTENT_TYPE, MANIFEST)), body).await?;
        self.success("the manifest", answer).await?;
        Ok(packed.manifest.digest)
    }

    /// Sends a blob that the registry does not have.
    async fn upload(&mut self, blob: &Blob<'_>) -> Result<(), Failure> {
        let url = self.at("blobs", &blob.digest.to_string())?;
        let there = self.ask(Method::HEAD, url, None, Bytes::new()).await?;
        if there.status().is_success() {
            return Ok(());
        }
        let url = self.at("blobs", "uploads/")?;
        let begun = self.ask(Method::POST, url.clone(), None, Bytes::new()).await?;
        let begun = self.success("an upload", begun).await?;
        let place = self.sent_to(&url, &begun)?.to_string();
        let place = format!("{place}{}digest={}", if place.contains('?') { '&' } else { '?' }, blob.digest);
        let place: Uri = place.parse().map_err(|error| self.wrong(format!("{place:?} is no URL: {error}")))?;
        let body = Bytes::copy_from_slice(&blob.bytes);
        let answer = self.ask(Method::PUT, place, Some((CONTENT_TYPE, "application/octet-stream")), body).await?;
        self.success("the upload", answer).await.map(drop)
    }
}

/// Where a `Location` leads to from a URL. What is encrypted stays so.
pub(super) fn sent_to(from: &Uri, location: &str) -> Result<Uri, String> {
    let wrong = |why: &str| format!("it sends one on to {location:?}, which {why}");
    let to: Uri = location.parse().map_err(|_| wrong("is no URL"))?;
    let to = match (to.scheme_str(), to.path_and_query()) {
        (None, Some(path)) if location.starts_with('/') && !location.starts_with("//") => {
            let whole = Uri::builder()
                .scheme(from.scheme_str().unwrap_or("https"))
                .authority(from.authority().map_or("", Authority::as_str))
                .path_and_query(path.as_str());
            whole.build().map_err(|_| wrong("is no URL"))?
        }
        (Some("http" | "https"), _) => to,
        _ => return Err(wrong("is no URL of http or https")),
    };
    if to.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err(wrong("is no URL of a host"));
    }
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        return Err(wrong("is not encrypted"));
    }
    Ok(to)
}

/// Part of a query, with everything escaped that might mean something.
fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// What a registry says, inert.
fn said(status: StatusCode, body: &[u8]) -> String {
    let errors: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = errors["errors"][0]["message"].as_str().or_else(|| errors["errors"][0]["code"].as_str());
    let text = String::from_utf8_lossy(body);
    let shown: String = message.unwrap_or(&text).trim().chars().take(SHOWN_CHARS_MAX).collect();
    if shown.is_empty() { status.to_string() } else { format!("{status}: {}", shown.escape_debug()) }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
