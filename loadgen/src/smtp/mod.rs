//! SMTP and LMTP under load.
//!
//! Owns [`SmtpPlan`], which is what a session shall be. Below, [`opening`] and [`transaction`] decide purely what is
//! said next, [`reply`] reads answers, and [`drive`] performs it all on a connection.

pub mod drive;
pub mod opening;
pub mod reply;
pub mod transaction;

use crate::words::Phase;

/// How a client says who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hello {
    /// EHLO, and HELO where that is refused with 5xx (RFC 5321 section 3.2).
    #[default]
    Ehlo,
    /// HELO: no extensions.
    Helo,
    /// LHLO (RFC 2033).
    Lhlo,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// Never.
    #[default]
    Off,
    /// After STARTTLS where that is offered.
    Opportunistic,
    /// After STARTTLS, or not at all.
    Required,
    /// With the first byte (RFC 8314).
    Implicit,
}

/// Whether several commands go out together (RFC 2920).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pipeline {
    /// One command, one reply.
    Off,
    /// Where PIPELINING is offered.
    #[default]
    Auto,
    /// Offered or not. Still never before EHLO or past DATA.
    Force,
}

/// Whether content goes out by BDAT (RFC 3030).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunking {
    /// By DATA.
    #[default]
    Off,
    /// By BDAT where CHUNKING is offered.
    Auto,
    /// By BDAT; a server that does not offer it fails.
    Required,
}

/// When RSET is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rset {
    /// Only after a transaction that failed, before the next one on the connection.
    #[default]
    WhenNeeded,
    /// Before each message but a connection's first.
    Always,
}

/// What a session shall be.
#[derive(Clone, Debug, Default)]
pub struct SmtpPlan {
    /// How it says who it is.
    pub hello: Hello,
    /// The name in it.
    pub name: String,
    /// TLS.
    pub security: Security,
    /// Pipelining.
    pub pipeline: Pipeline,
    /// BDAT.
    pub chunking: Chunking,
    /// Bytes of one chunk; 0: all in one.
    pub chunk: usize,
    /// RSET.
    pub rset: Rset,
    /// Log in, with one of these in turn.
    pub logins: Vec<opening::Login>,
    /// A password may go out without TLS.
    pub auth_in_clear: bool,
    /// Say SIZE= where it is offered.
    pub announce_size: bool,
    /// Say BODY=8BITMIME where it is offered.
    pub eight_bit: bool,
    /// Say SMTPUTF8; a server that does not offer it fails.
    pub utf8: bool,
    /// The arrival ends with the answer of this phase.
    pub end: End,
}

/// Where an arrival ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// With the message accepted; the connection ends with QUIT.
    #[default]
    Message,
    /// After this phase, by closing the connection.
    Drop(Phase),
    /// After this phase, by QUIT.
    Quit(Phase),
}

impl End {
    /// The phase after which nothing more comes.
    #[must_use]
    pub fn phase(self) -> Option<Phase> {
        match self {
            Self::Message => None,
            Self::Drop(phase) | Self::Quit(phase) => Some(phase),
        }
    }
}
