//! EDGE: what mutual TLS needs of this box.
//!
//! Owns the reading of certificates and key, and rustls' settings: ring, TLS 1.2 and 1.3, an asker must have a certificate
//! of the given CA. Refuses to know who that is: the allow-list is another thing. Fails with a text for people.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// Largest file, in bytes.
const MOST: u64 = 1 << 20;

/// The files, in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Our certificate and those between it and the CA.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Who vouches for askers.
    pub(crate) client_ca: PathBuf,
}

/// Reads the files.
pub(crate) fn acceptor(files: &Files) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.client_ca)? {
        roots.add(certificate).map_err(|error| trouble(&files.client_ca, &error))?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| trouble(&files.client_ca, &error))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?);
    let key = key.map_err(|_| trouble(&files.key, &"no private key in PEM"))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.certificate)?, key)
        .map_err(|error| trouble(&files.certificate, &error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| trouble(path, &"no certificates in PEM"))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    file.map(|_| bytes).map_err(|error| trouble(path, &error))
}

fn trouble(path: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{}: {what}", path.display())
}
