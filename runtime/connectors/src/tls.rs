//! Whom a client trusts that connects with TLS.

use hyper_rustls::ConfigBuilderExt as _;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Why no one can be trusted, in words.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authorities that were named are none.
    #[error("{0}")]
    Authorities(String),
    /// The system names none.
    #[error("cannot find the certificates that this system trusts")]
    System(#[source] std::io::Error),
}

/// Trusts the authorities of a PEM file, or else those of the system where the connection is
/// `encrypted`.
///
/// # Errors
/// Where there are none.
pub fn client_tls(authorities: Option<&[u8]>, encrypted: bool) -> Result<ClientConfig, TlsError> {
    let tls = ClientConfig::builder();
    let tls = match authorities {
        Some(pem) => tls.with_root_certificates(roots(pem).map_err(TlsError::Authorities)?),
        None if encrypted => tls.with_native_roots().map_err(TlsError::System)?,
        None => tls.with_root_certificates(RootCertStore::empty()),
    };
    Ok(tls.with_no_client_auth())
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("it is no PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("a certificate cannot be used: {error}"))?;
    }
    if roots.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(roots) }
}
