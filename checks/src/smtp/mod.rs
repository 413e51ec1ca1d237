//! The SMTP check: its settings, the pure dialogue, and the one file that drives it over a socket.

pub mod dialogue;
pub(crate) mod drive;
pub mod reply;

use std::time::Duration;

/// Longest text of a server that is kept for log, metrics and JSON, in bytes.
pub const MAX_TEXT: usize = 200;

/// How to talk to an SMTP server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SmtpSpec {
    /// The name that we give in EHLO (RFC 5321 section 4.1.1.1).
    pub ehlo_name: String,
    /// How long the whole banner may take; a postscreen that does not know us takes 6 s.
    pub banner_timeout: Duration,
    /// How long the answer to EHLO may take.
    pub ehlo_timeout: Duration,
    /// How long the answer to QUIT may take.
    pub quit_timeout: Duration,
}
