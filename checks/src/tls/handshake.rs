//! EDGE: the TLS handshake of a check.
//!
//! Owns rustls: the provider (ring), what is trusted, the stream. Refuses to know what an answer means for the
//! check. Fails with a reason and a text; a bad certificate is no failure here.
#![expect(clippy::disallowed_methods, reason = "EDGE: a certificate is valid at some time")]

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, ProtocolVersion,
    RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificate::facts;
use super::{Judged, TlsReport, TlsSpec, TlsVersion, Verify, judge};
use crate::Reason;
use crate::run::system;
use crate::smtp::reply::printable;

/// Largest CA file, in bytes; Debian's is 220 KiB.
const MAX_CA_FILE: u64 = 8 * 1024 * 1024;

/// What a spec needs at every handshake.
pub(super) struct Ready {
    config: Arc<ClientConfig>,
    /// Only where a chain is asked for: the certificates that are trusted are most of the memory.
    trust: Option<Arc<WebPkiServerVerifier>>,
}

/// A session and what is known of it.
pub(crate) struct Secured {
    pub(crate) stream: Box<TlsStream<TcpStream>>,
    pub(crate) report: TlsReport,
    pub(crate) judged: Judged,
}

impl TlsSpec {
    /// Builds what handshakes need, once.
    ///
    /// # Errors
    /// What is wrong with the settings or the CA file, for people; it is tried again the next time.
    pub(crate) fn prepare(&self) -> Result<(), String> {
        if self.prepared.0.get().is_none() {
            // Another task may have done it meanwhile, with the same result.
            let _ = self.prepared.0.set(self.build()?);
        }
        self.server_name(IpAddr::from([0; 4])).map(drop)
    }

    fn build(&self) -> Result<Ready, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = match self.minimum {
            TlsVersion::V12 => &[&TLS13, &TLS12][..],
            TlsVersion::V13 => &[&TLS13],
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TakeAny(Arc::clone(&provider))))
            .with_no_client_auth();
        // A resumed session shows the certificate of an earlier one.
        config.resumption = Resumption::disabled();
        let trust = match self.verify {
            Verify::None | Verify::Pinned(_) => None,
            Verify::Chain | Verify::Name => {
                let roots = Arc::new(roots(&self.ca_file)?);
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                Some(verifier.map_err(|error| format!("{}: {error}", self.ca_file.display()))?)
            }
        };
        Ok(Ready { config: Arc::new(config), trust })
    }

    fn server_name(&self, address: IpAddr) -> Result<ServerName<'static>, String> {
        match &self.name {
            None => Ok(ServerName::IpAddress(address.into())),
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| format!("\"{name}\" is not a name that TLS can ask for")),
        }
    }

    fn answer(
        &self,
        ready: &Ready,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let Some((end, between)) = chain.split_first() else { return Err(Error::NoCertificatesPresented) };
        match (&self.verify, &ready.trust) {
            (Verify::Pinned(pins), _) => {
                let sha256 = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes);
                let key = facts(end).map(|facts| sha256(facts.public_key));
                let pinned = |digest: &ring::digest::Digest| pins.iter().any(|pin| pin == digest.as_ref());
                if pinned(&sha256(end)) || key.is_some_and(|key| pinned(&key)) {
                    return Ok(());
                }
                Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            (_, Some(trust)) => trust.verify_server_cert(end, between, name, &[], now).map(drop),
            (_, None) => Ok(()),
        }
    }
}

/// Makes `stream`, on which nothing waits to be read, a TLS session.
pub(crate) async fn handshake(stream: TcpStream, spec: &TlsSpec) -> Result<Secured, (Reason, String)> {
    let local = |text| (Reason::Local, text);
    spec.prepare().map_err(local)?;
    let Some(ready) = spec.prepared.0.get() else { return Err(local(String::new())) };
    let address = stream.peer_addr().map_err(|error| system(&error))?.ip();
    let name = spec.server_name(address).map_err(local)?;
    let connect = TlsConnector::from(Arc::clone(&ready.config)).connect(name.clone(), stream);
    let stream = Box::new(connect.await.map_err(|error| broken(&error))?);

    let (_, session) = stream.get_ref();
    let chain = session.peer_certificates().unwrap_or_default();
    let now = UnixTime::now();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let not_after = chain.first().and_then(|end| facts(end)).map(|facts| facts.not_after);
    let judged = judge(&spec.verify, not_after, seconds, spec.answer(ready, chain, &name, now));
    let report = TlsReport {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
            other => format!("{other:?}"),
        },
        cipher: session
            .negotiated_cipher_suite()
            .map(|suite| format!("{:?}", suite.suite()))
            .unwrap_or_default(),
        not_after,
        days_left: not_after.map(|end| end.saturating_sub(seconds).div_euclid(86_400)),
        verified: judged == Judged::Good,
        problem: match &judged {
            Judged::Bad(_, text) => Some(text.clone()),
            Judged::Unasked | Judged::Good => None,
        },
    };
    Ok(Secured { stream, report, judged })
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// What an error of a TLS stream means, in the handshake or later.
pub(crate) fn broken(error: &io::Error) -> (Reason, String) {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            // EOF without close_notify.
            io::ErrorKind::UnexpectedEof => (Reason::Closed, "the server closed the connection".to_owned()),
            _ => system(error),
        };
    };
    let reason = match tls {
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            Reason::TlsVersion
        }
        _ => Reason::TlsFailed,
    };
    let text = match tls {
        Error::InvalidMessage(_) => "what the server says is not TLS".to_owned(),
        _ => tls.to_string(),
    };
    (reason, printable(text.as_bytes()))
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let trouble = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|error| trouble(&error))?;
    file.take(MAX_CA_FILE).read_to_end(&mut pem).map_err(|error| trouble(&error))?;
    let mut roots = RootCertStore::empty();
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    // One that webpki cannot read is left out: it vouches for nobody.
    let (taken, _) = roots.add_parsable_certificates(certificates);
    if taken == 0 { Err(trouble(&"has no certificate in PEM")) } else { Ok(roots) }
}

/// Takes any certificate, and only from who has its key: what is thought of it is decided after the handshake.
#[derive(Debug)]
pub struct TakeAny(pub Arc<CryptoProvider>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
