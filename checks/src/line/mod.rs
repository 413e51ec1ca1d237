//! Checks of services that speak in lines: POP3, IMAP, NNTP and FTP.
//!
//! Owns their settings. What they say is a short list of moves (`script`) that a pure `dialogue` goes through, reply
//! by reply (`reply`); `drive` takes it over a socket. There is no STARTTLS: TLS begins with the first byte.

pub mod dialogue;
pub(crate) mod drive;
pub mod reply;
mod script;

use crate::credential::Login;
use crate::smtp::{AuthOver, Pattern};
use crate::tls::TlsSpec;

/// How to talk to a server of one of these protocols.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LineSpec {
    /// What is spoken.
    pub protocol: Protocol,
    /// TLS with the first byte, whatever its mode says.
    pub tls: Option<TlsSpec>,
    /// Whether to log in; NNTP does not, and FTP says `anonymous` without it.
    pub login: Option<LoginSpec>,
    /// A file to fetch; FTP only.
    pub fetch: Option<FetchSpec>,
}

/// The protocols of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// POP3 (RFC 1939).
    Pop,
    /// IMAP4rev1 (RFC 3501).
    Imap,
    /// NNTP (RFC 3977).
    Nntp,
    /// FTP (RFC 959, RFC 2428).
    Ftp,
}

/// Who to log in as.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoginSpec {
    /// Who that is.
    pub from: Login,
    /// Where the password may be said.
    pub over: AuthOver,
}

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FetchSpec {
    /// Its path, as the server knows it: no line end in it.
    pub path: String,
    /// Matches its content.
    pub receive: Option<Pattern>,
}

impl LineSpec {
    /// The word for it in configuration and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (self.protocol, &self.tls) {
            (Protocol::Pop, None) => "pop",
            (Protocol::Pop, Some(_)) => "pops",
            (Protocol::Imap, None) => "imap",
            (Protocol::Imap, Some(_)) => "imaps",
            (Protocol::Nntp, _) => "nntp",
            (Protocol::Ftp, _) => "ftp",
        }
    }
}
