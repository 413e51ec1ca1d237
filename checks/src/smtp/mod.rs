//! The SMTP check: its settings, the pure dialogue, and the one file that drives it over a socket.

pub mod dialogue;
pub(crate) mod drive;
pub mod ehlo;
mod message;
pub mod reply;

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use regex::{Regex, RegexBuilder};

use self::ehlo::Requirement;
use crate::credential::Login;
use crate::proxy_header::Version;
use crate::tls::TlsSpec;

/// Longest text of a server that is kept for log, metrics and JSON, in bytes.
pub const MAX_TEXT: usize = 200;

/// How to talk to an SMTP server. The default says banner, EHLO and QUIT; each further step is there or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SmtpSpec {
    /// SMTP or LMTP.
    pub dialect: Dialect,
    /// The name that we give in EHLO (RFC 5321 section 4.1.1.1).
    pub ehlo_name: String,
    /// The header before everything else.
    pub proxy: Option<ProxyHeader>,
    /// A line of the banner matches this, its code included.
    pub banner: Option<Pattern>,
    /// The host name that the banner begins with; case does not matter.
    pub banner_name: Option<String>,
    /// What the last EHLO must offer, inside TLS where there is TLS.
    pub require: Vec<Requirement>,
    /// Whether and how to speak TLS.
    pub tls: Option<Box<TlsSpec>>,
    /// Whether to log in.
    pub auth: Option<Box<AuthSpec>>,
    /// Whether to ask "would you take this mail".
    pub mail: Option<Box<MailSpec>>,
    /// Whether to send a message.
    pub data: Option<Box<DataSpec>>,
    /// How long the whole banner may take; a postscreen that does not know us takes 6 s.
    pub banner_timeout: Duration,
    /// How long the answer to EHLO may take.
    pub ehlo_timeout: Duration,
    /// How long the answer to QUIT may take.
    pub quit_timeout: Duration,
}

impl Default for SmtpSpec {
    fn default() -> Self {
        Self {
            dialect: Dialect::Smtp,
            ehlo_name: "localhost".to_owned(),
            proxy: None,
            banner: None,
            banner_name: None,
            require: Vec::new(),
            tls: None,
            auth: None,
            mail: None,
            data: None,
            banner_timeout: Duration::from_secs(8),
            ehlo_timeout: Duration::from_secs(5),
            quit_timeout: Duration::from_secs(2),
        }
    }
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// RFC 5321: EHLO, and HELO where that is refused.
    Smtp,
    /// RFC 2033: LHLO.
    Lmtp,
}

impl Dialect {
    /// The word for it in configuration and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
        }
    }
}

/// What the server learns of the connection before its banner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyHeader {
    /// The addresses of our own connection.
    Proxy(Version),
    /// Version 2 without addresses.
    Local,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthSpec {
    /// Who to log in as.
    pub from: Login,
    /// How; `None` takes PLAIN where it is offered and LOGIN where not.
    pub mechanism: Option<Mechanism>,
    /// Where it may be said.
    pub over: AuthOver,
    /// How long each answer may take.
    pub timeout: Duration,
}

/// The mechanisms that we can do; both say the password itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// Two questions and two answers; no RFC, and everywhere.
    Login,
}

/// Who may overhear a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AuthOver {
    /// Nobody.
    Tls,
    /// Whoever sees the network.
    Anything,
}

/// A mail that is announced and never sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailSpec {
    /// The sender; empty is the null sender `<>`.
    pub from: String,
    /// A recipient that must be accepted.
    pub accept: Option<String>,
    /// A recipient elsewhere that must be refused.
    pub refuse: Option<String>,
    /// How long each answer may take.
    pub timeout: Duration,
}

/// A small marked message that is really sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataSpec {
    /// The sender; empty is the null sender `<>`.
    pub from: String,
    /// A recipient whose mail the farm discards.
    pub to: String,
    /// How long each answer may take.
    pub timeout: Duration,
    /// The message: header, empty line and body, each line with its CRLF and its first dot doubled. `None` is one that says
    /// what it is.
    pub text: Option<Arc<str>>,
}

/// A regular expression that takes time linear in the text. Patterns are equal when their text is.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    /// Compiles `text`.
    ///
    /// # Errors
    /// What is wrong with it, on one line.
    pub fn new(text: &str) -> Result<Self, String> {
        /// Bytes of the compiled form: far more than a banner needs, and nothing for 16,000 servers to share.
        const MAX_SIZE: usize = 64 * 1024;
        RegexBuilder::new(text).size_limit(MAX_SIZE).dfa_size_limit(MAX_SIZE).build().map(Self).map_err(
            |error| match error {
                regex::Error::CompiledTooBig(_) => "is too large when compiled".to_owned(),
                // The last line is the reason; those before draw the place.
                error => error.to_string().lines().last().unwrap_or_default().replace("error: ", ""),
            },
        )
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

/// Whether `text` can stand between the angle brackets of MAIL and RCPT: printable ASCII without `<`, `>` and
/// spaces, `local@domain` or `postmaster`, at most 254 bytes (RFC 5321 section 4.5.3.1.3).
#[must_use]
pub fn is_mailbox(text: &str) -> bool {
    let graphic =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>');
    text.len() <= 254
        && match text.rsplit_once('@') {
            Some((local, domain)) => graphic(local) && graphic(domain),
            None => text.eq_ignore_ascii_case("postmaster"),
        }
}
