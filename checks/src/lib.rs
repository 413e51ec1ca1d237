//! How to ask a server whether it is well.
//!
//! Owns [`CheckSpec`] (what to ask), [`Outcome`] (what came back) and [`run`], the only door. Refuses to know
//! virtuals, weights and IPVS, and how many failures make a server "down". A failed check is data: `run` never
//! returns an error and never panics; all that went wrong is a [`Failure`] with a fixed vocabulary.

pub mod calendar;
pub mod credential;
pub mod datagram;
pub mod dns;
pub mod external;
pub mod http;
pub mod ldap;
pub mod line;
pub mod mysql;
pub mod pgsql;
mod ping;
pub mod proxy_header;
pub mod radius;
mod run;
pub mod simple_tcp;
pub mod sip;
pub mod smtp;
pub mod sql;
mod stream;
pub mod talk;
pub mod tls;
mod via;
mod visit;

pub use run::run;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What to ask, of whom, and for how long. Equal specs are one check, whoever wants it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckSpec {
    /// Where to connect to.
    pub target: SocketAddr,
    /// What to ask there.
    pub kind: Kind,
    /// Everything together ends within this time.
    pub deadline: Duration,
    /// The TCP handshake ends within this time.
    pub connect_timeout: Duration,
    /// How its connection gets there, where that is not the ordinary way.
    pub via: Option<Via>,
}

/// A connection that leaves with a firewall mark, by which this machine sends it to one server, whatever its target is. Only
/// kinds of check that connect know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Via {
    /// `SO_MARK`, which needs CAP_NET_ADMIN.
    pub mark: u32,
    /// The server. The connection comes from the address that this machine has towards it: from the target's own, where
    /// that is one of this machine's, no answer would come back.
    pub server: IpAddr,
}

impl CheckSpec {
    /// The server that is asked, and the port that is asked for.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.via.map_or(self.target.ip(), |via| via.server), self.target.port())
    }
}

/// The kinds of check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A TCP connection is accepted.
    Connect,
    /// A conversation with an SMTP server: banner, EHLO and QUIT, and what else the spec asks for.
    Smtp(smtp::SmtpSpec),
    /// An HTTP server or proxy is asked for a page.
    Http(Box<http::HttpSpec>),
    /// A conversation with a POP, IMAP, NNTP or FTP server.
    Line(Box<line::LineSpec>),
    /// Something is said to a TCP server.
    SimpleTcp(Box<simple_tcp::SimpleTcpSpec>),
    /// The host answers an ICMP echo request; the port does not matter.
    Ping,
    /// A command is asked.
    External(Box<external::ExternalSpec>),
    /// A name is looked up.
    Dns(Box<dns::DnsSpec>),
    /// An entry is read.
    Ldap(Box<ldap::LdapSpec>),
    /// A login to MySQL or MariaDB, and a statement.
    Mysql(Box<sql::SqlSpec>),
    /// A login to PostgreSQL, and a statement.
    Pgsql(Box<sql::SqlSpec>),
    /// A user is authenticated, or the server asked for its status.
    Radius(Box<radius::RadiusSpec>),
    /// A SIP server is asked what it can do.
    Sip(Box<sip::SipSpec>),
}

/// What carries a protocol that runs over either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams, said again while nothing answers.
    #[default]
    Udp,
    /// A connection.
    Tcp,
}

impl Kind {
    /// The word for it in configuration and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Smtp(spec) => spec.dialect.name(),
            Self::Http(spec) => spec.name(),
            Self::Line(spec) => spec.name(),
            Self::SimpleTcp(_) => "simpletcp",
            Self::Ping => "ping",
            Self::External(_) => "external",
            Self::Dns(_) => "dns",
            Self::Ldap(_) => "ldap",
            Self::Mysql(_) => "mysql",
            Self::Pgsql(_) => "pgsql",
            Self::Radius(_) => "radius",
            Self::Sip(_) => "sip",
        }
    }
}

/// How far a check got. The names are metric labels and JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The TCP handshake.
    Connect,
    /// The TLS handshake and the certificate, from the first byte or after STARTTLS.
    Tls,
    /// The server's greeting (RFC 5321 section 4.2, code 220).
    Banner,
    /// EHLO, or LHLO (RFC 2033), and its capabilities; once more after STARTTLS.
    Ehlo,
    /// HELO, where EHLO was refused with 5xx.
    Helo,
    /// STARTTLS (RFC 3207) and 220.
    StartTls,
    /// AUTH (RFC 4954) and 235.
    Auth,
    /// MAIL FROM and 250.
    Mail,
    /// RCPT TO with a recipient that the server must take.
    Rcpt,
    /// RCPT TO with a recipient that the server must refuse.
    Relay,
    /// RSET and 250: the mail that was announced will not come.
    Rset,
    /// DATA and 354.
    Data,
    /// The final dot of a message and 250.
    EndOfData,
    /// QUIT and 221.
    Quit,
    /// A request and its answer, in a protocol that is not SMTP.
    Request,
    /// An ICMP echo request and its reply (RFC 792, RFC 4443).
    Echo,
    /// An external command and its exit status.
    Command,
    /// The way of a message from the server that took it to whoever waits for it.
    Delivery,
    /// What the agent on the mail box says of it.
    Agent,
}

/// Why a check failed. The names are metric labels and JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The host answers, nothing listens (ECONNREFUSED).
    Refused,
    /// The host does not answer (EHOSTUNREACH, EHOSTDOWN).
    Unreachable,
    /// Nothing came in time.
    Timeout,
    /// The connection was reset (RST).
    Reset,
    /// The connection was closed in the middle (EOF).
    Closed,
    /// The server said 4xx: not now.
    Tempfail,
    /// The server said 5xx: never.
    Permfail,
    /// A well-formed reply of the wrong kind, such as 354 for a banner.
    Unexpected,
    /// Not the protocol at all.
    Protocol,
    /// More bytes than any honest reply has.
    TooLong,
    /// The banner or the answer is not the one that was asked for.
    Mismatch,
    /// A capability that was asked for is not offered.
    MissingCapability,
    /// A recipient that must be refused was accepted: the server relays for anybody.
    OpenRelay,
    /// Plain text came between the reply to STARTTLS and the handshake: somebody is in the middle.
    Injected,
    /// The TLS handshake failed, or what came is not TLS.
    TlsFailed,
    /// No version of TLS that both sides have.
    TlsVersion,
    /// The certificate is past its notAfter.
    CertificateExpired,
    /// The certificate is for another name.
    CertificateName,
    /// The certificate does not lead to one of the CA file, or is wrong in itself.
    CertificateUntrusted,
    /// The certificate is none of those that are pinned.
    CertificatePin,
    /// The command or the agent that was asked said no.
    Failed,
    /// A message that the server took comes later than it may.
    Late,
    /// A message that the server took has not come for so long that it is not waited for.
    Lost,
    /// The director itself could not ask (no descriptors, no memory, no permission, no route (ENETUNREACH), no file): says nothing of the server.
    Local,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 19] = [
        Self::Connect,
        Self::Tls,
        Self::Banner,
        Self::Ehlo,
        Self::Helo,
        Self::StartTls,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Relay,
        Self::Rset,
        Self::Data,
        Self::EndOfData,
        Self::Quit,
        Self::Request,
        Self::Echo,
        Self::Command,
        Self::Delivery,
        Self::Agent,
    ];

    /// The word in metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::Helo => "helo",
            Self::StartTls => "starttls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Relay => "relay",
            Self::Rset => "rset",
            Self::Data => "data",
            Self::EndOfData => "end_of_data",
            Self::Quit => "quit",
            Self::Request => "request",
            Self::Echo => "echo",
            Self::Command => "command",
            Self::Delivery => "delivery",
            Self::Agent => "agent",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Reason {
    /// Every reason, in order.
    pub const ALL: [Self; 24] = [
        Self::Refused,
        Self::Unreachable,
        Self::Timeout,
        Self::Reset,
        Self::Closed,
        Self::Tempfail,
        Self::Permfail,
        Self::Unexpected,
        Self::Protocol,
        Self::TooLong,
        Self::Mismatch,
        Self::MissingCapability,
        Self::OpenRelay,
        Self::Injected,
        Self::TlsFailed,
        Self::TlsVersion,
        Self::CertificateExpired,
        Self::CertificateName,
        Self::CertificateUntrusted,
        Self::CertificatePin,
        Self::Failed,
        Self::Late,
        Self::Lost,
        Self::Local,
    ];

    /// The word in metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Tempfail => "tempfail",
            Self::Permfail => "permfail",
            Self::Unexpected => "unexpected",
            Self::Protocol => "protocol",
            Self::TooLong => "too_long",
            Self::Mismatch => "mismatch",
            Self::MissingCapability => "missing_capability",
            Self::OpenRelay => "open_relay",
            Self::Injected => "injected",
            Self::TlsFailed => "tls_failed",
            Self::TlsVersion => "tls_version",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateName => "certificate_name",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::CertificatePin => "certificate_pin",
            Self::Failed => "failed",
            Self::Late => "late",
            Self::Lost => "lost",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What went wrong, where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How far it got.
    pub stage: Stage,
    /// What kind of trouble.
    pub reason: Reason,
    /// The server's number for it, or the exit status of a command, when there was one.
    pub code: Option<u16>,
    /// What the server or the system said: one line, printable, at most [`smtp::MAX_TEXT`] bytes.
    pub text: String,
}

/// One stage that was gone through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageReport {
    /// Which one.
    pub stage: Stage,
    /// How long it took.
    pub took: Duration,
    /// The server's number for how it went, when there was one.
    pub code: Option<u16>,
    /// What we said, without the line end; empty where the server speaks first.
    pub sent: String,
    /// What came back, each line printable.
    pub received: Vec<String>,
}

/// The answer to a [`CheckSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the server is well.
    pub verdict: Result<(), Failure>,
    /// How long the whole check took.
    pub took: Duration,
    /// The stages in order; a failed one is not among them.
    pub stages: Vec<StageReport>,
    /// What the server offered in its last EHLO, keyword in upper case and parameters: `SIZE 10240000`.
    pub capabilities: Vec<String>,
    /// What is known of the TLS session, where there was one.
    pub tls: Option<tls::TlsReport>,
}

impl Outcome {
    /// How long the server took to greet; the whole wait where it did not. `None` where it was not got to.
    #[must_use]
    pub fn banner_took(&self) -> Option<Duration> {
        let passed: Duration = self.stages.iter().map(|report| report.took).sum();
        let greeted =
            self.stages.iter().find(|report| report.stage == Stage::Banner).map(|report| report.took);
        let waited = self.verdict.as_ref().err().filter(|failure| failure.stage == Stage::Banner);
        greeted.or(waited.map(|_| self.took.saturating_sub(passed)))
    }
}

impl Failure {
    /// The enhanced status code (RFC 3463) that the server gave, where it agrees with the code.
    #[must_use]
    pub fn enhanced(&self) -> Option<[u16; 3]> {
        self.code.and_then(|_| smtp::reply::enhanced(self.text.as_bytes()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.reason, self.stage)?;
        if !self.text.is_empty() {
            write!(f, ": {}", self.text)?;
        }
        Ok(())
    }
}
