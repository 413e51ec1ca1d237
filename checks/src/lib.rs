//! How to ask a server whether it is well.
//!
//! Owns [`CheckSpec`] (what to ask), [`Outcome`] (what came back) and [`run`], the only door. Refuses to know
//! virtuals, weights and IPVS, and how many failures make a server "down". A failed check is data: `run` never
//! returns an error and never panics; all that went wrong is a [`Failure`] with a fixed vocabulary.

mod run;
pub mod smtp;

pub use run::run;

use std::fmt;
use std::net::SocketAddr;
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
}

/// The kinds of check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A TCP connection is accepted.
    Connect,
    /// Banner, EHLO and QUIT of an SMTP server.
    Smtp(smtp::SmtpSpec),
}

impl Kind {
    /// The word for it in configuration and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Smtp(_) => "smtp",
        }
    }
}

/// How far a check got. The names are metric labels and JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The TCP handshake.
    Connect,
    /// The server's greeting (RFC 5321 section 4.2, code 220).
    Banner,
    /// EHLO and its capabilities.
    Ehlo,
    /// QUIT and 221.
    Quit,
}

/// Why a check failed. The names are metric labels and JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The host answers, nothing listens (ECONNREFUSED).
    Refused,
    /// No way to the host (EHOSTUNREACH, ENETUNREACH).
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
    /// Not SMTP at all.
    Protocol,
    /// More bytes than any honest reply has.
    TooLong,
    /// The director itself could not ask (no descriptors, no memory, no permission): says nothing of the server.
    Local,
}

impl Stage {
    /// The word in metrics and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::Quit => "quit",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Reason {
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
    /// The SMTP code, when there was one.
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
    /// The SMTP code, when there was one.
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
    /// The EHLO keywords that the server offered.
    pub capabilities: Vec<String>,
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
