//! EDGE: the settings of TLS on both sides, with ring.
//!
//! Owns the client's trust, whether sessions are resumed, and the certificate that a sink makes for itself. Refuses to
//! know sockets. Fails with a text for people.

use std::path::Path;
use std::sync::Arc;

use checks::tls::TakeAny;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Whether a second session to a server may build on the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// Each is a full handshake, as from clients who never met.
    #[default]
    Never,
    /// As one client would.
    Always,
}

/// The client's settings. Without a CA file any certificate will do.
///
/// # Errors
/// What is wrong with the CA file.
pub fn client(ca_file: Option<&Path>, resume: Resume) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match ca_file {
        None => Arc::new(TakeAny(Arc::clone(&provider))),
        Some(path) => {
            let trouble = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
            let certificates = CertificateDer::pem_file_iter(path).map_err(|error| trouble(&error))?;
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates.filter_map(Result::ok));
            let built =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
            built.map_err(|error| trouble(&error))?
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    if resume == Resume::Never {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// The settings of a server with a certificate made for `name` now.
///
/// # Errors
/// What the making failed by.
pub fn made_server(name: &str) -> Result<Arc<ServerConfig>, String> {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned(), "localhost".to_owned()])
        .map_err(|error| format!("cannot make a certificate for \"{name}\": {error}"))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    server(vec![made.cert.der().clone()], key)
}

/// The settings of a server with the certificate and key of two PEM files.
///
/// # Errors
/// What is wrong with them.
pub fn server_of(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let trouble = |path: &Path, what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(certificate).map_err(|error| trouble(certificate, &error))?.collect();
    let chain = chain.map_err(|error| trouble(certificate, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| trouble(key, &error))?;
    server(chain, secret)
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    config.map(Arc::new).map_err(|error| error.to_string())
}

/// The common name in a certificate's subject: the last one, the issuer's being before it. A search for its
/// object identifier 2.5.4.3 in DER: for a table, not for trust.
#[must_use]
pub fn common_name(der: &[u8]) -> Option<String> {
    const OID: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let at = memchr::memmem::rfind(der, OID)? + OID.len();
    let &[_, length, ref rest @ ..] = der.get(at..)? else { return None };
    let name = rest.get(..usize::from(length))?;
    Some(checks::smtp::reply::printable(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_a_certificate_is_its_subjects() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["mx1.example.com".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "mx1.example.com");
        let certificate = params.self_signed(&key).unwrap();
        assert_eq!(common_name(certificate.der()).as_deref(), Some("mx1.example.com"));
        assert_eq!(common_name(b"\x06\x03\x55\x04\x03\x0c\xff"), None);
    }
}
