//! TLS of a check: what is asked of a session, and what is known of one.
//!
//! Owns [`TlsSpec`] and the judgement of a certificate. Refuses to know sockets and the protocol that runs inside.
//! The handshake takes any certificate, so that an untrusted one can be reported and left politely; whether that
//! fails the check is decided afterwards.

pub mod certificate;
pub(crate) mod handshake;

pub use handshake::TakeAny;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::CertificateError;

use self::handshake::Ready;
use crate::Reason;
use crate::calendar::rfc3339;
use crate::smtp::reply::printable;

/// Where the certificates of Debian's `ca-certificates` are.
pub const DEFAULT_CA_FILE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whether and how to speak TLS.
///
/// The CA file is read once for a spec and its clones: a new one is seen after the spec changed, or a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TlsSpec {
    /// When TLS begins.
    pub mode: TlsMode,
    /// The oldest version that will do.
    pub minimum: TlsVersion,
    /// What is asked of the certificate. With [`TlsMode::Opportunistic`] the answer is reported and never fails.
    pub verify: Verify,
    /// The name to ask for (SNI) and to verify; without it the server's address is verified, and no name sent.
    pub name: Option<String>,
    /// Whom to trust, in PEM.
    pub ca_file: PathBuf,
    /// How long the handshake may take, and how long the answer to STARTTLS.
    pub timeout: Duration,
    /// Built when it is first needed.
    pub prepared: Prepared,
}

impl Default for TlsSpec {
    fn default() -> Self {
        Self {
            mode: TlsMode::Opportunistic,
            minimum: TlsVersion::V12,
            verify: Verify::Chain,
            name: None,
            ca_file: DEFAULT_CA_FILE.into(),
            timeout: Duration::from_secs(5),
            prepared: Prepared::default(),
        }
    }
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsMode {
    /// After STARTTLS (RFC 3207), where it is offered and granted. A handshake that fails then is a failure: senders
    /// that try TLS do not get through.
    Opportunistic,
    /// After STARTTLS; a server that does not offer it is not well.
    Required,
    /// With the first byte (RFC 8314).
    Implicit,
}

/// The versions that rustls has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

/// What is asked of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verify {
    /// Nothing.
    None,
    /// It is valid now and leads to one of the CA file.
    Chain,
    /// Also that it is for the name, or for the server's address.
    Name,
    /// The SHA-256 of the certificate or of its SubjectPublicKeyInfo is one of these; nothing else counts, not even
    /// its end.
    Pinned(Vec<[u8; 32]>),
}

/// What is known of a TLS session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsReport {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// The suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// The end of the certificate, in seconds since 1970; `None` where it cannot be read.
    pub not_after: Option<i64>,
    /// Whole days until then; negative when it has passed.
    pub days_left: Option<i64>,
    /// What was asked of the certificate holds; false where nothing was asked.
    pub verified: bool,
    /// Why it does not hold: one printable line.
    pub problem: Option<String>,
}

/// One printable line.
impl fmt::Display for TlsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.not_after.map_or("an unknown day".to_owned(), rfc3339);
        let verified = match (&self.problem, self.verified) {
            (Some(problem), _) => format!("not verified: {problem}"),
            (None, true) => "verified".to_owned(),
            (None, false) => "not verified".to_owned(),
        };
        let text = format!("{}, {}, certificate until {end}, {verified}", self.version, self.cipher);
        f.write_str(&printable(text.as_bytes()))
    }
}

/// What webpki said of a certificate, or the pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    Unasked,
    Good,
    Bad(Reason, String),
}

/// What follows from the answer of webpki, which looks at the chain first and then at the name.
fn judge(verify: &Verify, end: Option<i64>, now: i64, answer: Result<(), rustls::Error>) -> Judged {
    if *verify == Verify::None {
        return Judged::Unasked;
    }
    if !matches!(verify, Verify::Pinned(_)) && end.is_some_and(|end| end < now) {
        return Judged::Bad(Reason::CertificateExpired, "the certificate has expired".to_owned());
    }
    let Err(error) = answer else { return Judged::Good };
    let reason = match &error {
        rustls::Error::InvalidCertificate(error) => match error {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                if *verify == Verify::Chain {
                    return Judged::Good;
                }
                Reason::CertificateName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Reason::CertificateExpired,
            CertificateError::ApplicationVerificationFailure => {
                let text = "the certificate is not one of those that are pinned".to_owned();
                return Judged::Bad(Reason::CertificatePin, text);
            }
            _ => Reason::CertificateUntrusted,
        },
        _ => Reason::CertificateUntrusted,
    };
    Judged::Bad(reason, printable(error.to_string().as_bytes()))
}

/// What is built from a spec once and shared by its clones. All are equal, so that the settings alone decide whether
/// two specs are.
#[derive(Clone, Default)]
pub struct Prepared(Arc<OnceLock<Ready>>);

impl Prepared {
    /// Whether both are one: what is built for the one is there for the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Prepared" } else { "not prepared" })
    }
}

impl PartialEq for Prepared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Prepared {}

impl Hash for Prepared {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl PartialOrd for Prepared {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Prepared {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_decides_what_an_answer_means() {
        let invalid = |error| Err(rustls::Error::InvalidCertificate(error));
        let name = || invalid(CertificateError::NotValidForName);
        let issuer = || invalid(CertificateError::UnknownIssuer);
        let pin = || invalid(CertificateError::ApplicationVerificationFailure);
        for (verify, end, answer, expected) in [
            (Verify::None, 5, issuer(), None),
            (Verify::Chain, 10, Ok(()), Some(Ok(()))),
            (Verify::Chain, 20, name(), Some(Ok(()))),
            (Verify::Name, 20, name(), Some(Err(Reason::CertificateName))),
            (Verify::Chain, 20, issuer(), Some(Err(Reason::CertificateUntrusted))),
            (
                Verify::Name,
                20,
                invalid(CertificateError::NotValidYet),
                Some(Err(Reason::CertificateUntrusted)),
            ),
            // Whatever else is wrong, the end comes first: it is what a person must mend.
            (Verify::Name, 9, issuer(), Some(Err(Reason::CertificateExpired))),
            (Verify::Chain, 9, Ok(()), Some(Err(Reason::CertificateExpired))),
            (Verify::Pinned(vec![]), 9, Ok(()), Some(Ok(()))),
            (Verify::Pinned(vec![]), 9, pin(), Some(Err(Reason::CertificatePin))),
        ] {
            let judged = match judge(&verify, Some(end), 10, answer) {
                Judged::Unasked => None,
                Judged::Good => Some(Ok(())),
                Judged::Bad(reason, text) => {
                    assert!(!text.is_empty());
                    Some(Err(reason))
                }
            };
            assert_eq!(judged, expected, "{verify:?} {end}");
        }
    }
}
