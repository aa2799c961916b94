//! The listener: bounded connections, bounded headers, bounded time, TLS.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use wasmill_env::Clock;

use super::api;
use super::patient::Patient;
use super::state::Service;

/// Connections at a time, and of one address.
const CONNECTIONS_MAX: usize = 4_096;
const CONNECTIONS_OF_ONE_MAX: usize = 2_048;
/// Headers of a request, and the TLS handshake, have come after this long; a connection that is idle for
/// longer is closed.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 << 10;
/// A peer that takes nothing of an answer for so long is cut off.
const READER_PATIENCE: Duration = Duration::from_secs(30);
/// Requests under way when the service ends get so long.
const ENDING_PATIENCE: Duration = Duration::from_secs(5);

/// Where to listen.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Address and port; port 0 takes a free one.
    pub address: String,
    /// The certificate to show, where the connection is to be TLS.
    pub tls: Option<Tls>,
}

/// A certificate and its key, in PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate, and those that lead to a known authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why the service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The certificate or the key cannot be used.
    #[error("cannot use {path}: {reason}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ServeError> {
    let wrong = |path: &PathBuf| {
        let path = path.clone();
        move |error: &dyn std::fmt::Display| ServeError::Tls { path, reason: error.to_string() }
    };
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&tls.certificate).map_err(|error| wrong(&tls.certificate)(&error))?.collect();
    let chain = chain.map_err(|error| wrong(&tls.certificate)(&error))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong(&tls.key)(&error))?;
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    Ok(TlsAcceptor::from(Arc::new(config.map_err(|error| wrong(&tls.certificate)(&error))?)))
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection's place among all, and among those of its address.
struct Place {
    addresses: Addresses,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Addresses {
    fn take(&self, address: IpAddr, permit: OwnedSemaphorePermit) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= CONNECTIONS_OF_ONE_MAX {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), address, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Serves until `end` completes. `listening` hears the address.
///
/// # Errors
/// Where it cannot listen.
pub async fn serve(
    service: Arc<Service>,
    listen: &Listen,
    clock: Arc<dyn Clock>,
    listening: impl FnOnce(SocketAddr),
    end: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let cannot = |source| ServeError::Bind { address: listen.address.clone(), source };
    let tls = listen.tls.as_ref().map(acceptor).transpose()?;
    let socket = TcpListener::bind(&listen.address).await.map_err(cannot)?;
    listening(socket.local_addr().map_err(cannot)?);
    let router = api::router(service);
    let (permits, addresses) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Addresses::default());
    let (ending, _) = watch::channel(false);
    let mut end = pin!(end);
    loop {
        // More wait to be accepted.
        let permit = tokio::select! {
            () = &mut end => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = &mut end => break,
            accepted = socket.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many files are open, say.
                tracing::warn!("cannot accept a connection: {error}");
                clock.sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = addresses.take(peer.ip(), permit) else { continue };
        let (router, tls, ended) = (router.clone(), tls.clone(), ending.subscribe());
        let clock = Arc::clone(&clock);
        tokio::spawn(async move {
            let _place = place;
            connection(stream, tls, router, ended, clock).await;
        });
    }
    drop(socket);
    let _nobody = ending.send(true).is_err();
    tokio::select! {
        () = ending.closed() => {}
        () = clock.sleep(ENDING_PATIENCE) => {}
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    ended: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
) {
    // Answers are small, and are waited for.
    let _slower = stream.set_nodelay(true).is_err();
    let stream = Patient::new(stream, Arc::clone(&clock), READER_PATIENCE);
    let Some(tls) = tls else { return converse(stream, router, ended).await };
    let accepted = tokio::select! {
        accepted = tls.accept(stream) => accepted,
        () = clock.sleep(HEADER_PATIENCE) => return,
    };
    match accepted {
        Ok(stream) => converse(stream, router, ended).await,
        Err(error) => tracing::debug!("a TLS handshake failed: {error}"),
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut ended: watch::Receiver<bool>,
) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = async { drop(ended.wait_for(|ended| *ended).await) } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!("a connection ended: {error}");
    }
}
