//! The vocabulary of what is measured and of what goes wrong.
//!
//! Owns [`Phase`] and [`Class`], whose names are JSON values, columns and metric labels: a word that is there stays.
//! They are the words of the checks where those have one. Refuses to know how anything is measured.

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The TCP handshake.
    Connect,
    /// The TLS handshake.
    Tls,
    /// From the connection (or TLS) to the greeting.
    Banner,
    /// EHLO, HELO or LHLO.
    Ehlo,
    /// STARTTLS and its 220.
    Starttls,
    /// AUTH, all its steps.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO, each.
    Rcpt,
    /// DATA and its 354.
    Data,
    /// The content, to the reply to the final dot or to BDAT LAST.
    Body,
    /// RSET.
    Rset,
    /// QUIT and its 221.
    Quit,
    /// HTTP: from the request to the first byte of the answer.
    FirstByte,
    /// MAIL to the final reply; for HTTP the request to the last byte.
    Transaction,
    /// The connection, from its start to its end.
    Session,
}

impl Phase {
    /// How many there are.
    pub const COUNT: usize = 15;
    /// All, in the order in which they come.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Connect,
        Self::Tls,
        Self::Banner,
        Self::Ehlo,
        Self::Starttls,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Body,
        Self::Rset,
        Self::Quit,
        Self::FirstByte,
        Self::Transaction,
        Self::Session,
    ];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Banner => "banner",
            Self::Ehlo => "ehlo",
            Self::Starttls => "starttls",
            Self::Auth => "auth",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
            Self::Body => "body",
            Self::Rset => "rset",
            Self::Quit => "quit",
            Self::FirstByte => "first_byte",
            Self::Transaction => "transaction",
            Self::Session => "session",
        }
    }
}

/// Why an arrival failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// ECONNREFUSED.
    Refused,
    /// No way to the host.
    Unreachable,
    /// Nothing came in time.
    Timeout,
    /// RST.
    Reset,
    /// The connection was closed in the middle.
    Closed,
    /// 4xx of SMTP.
    Tempfail,
    /// 5xx of SMTP.
    Permfail,
    /// A reply of the wrong kind; in HTTP a status of 400 or more.
    Unexpected,
    /// Not the protocol.
    Protocol,
    /// More bytes than any honest answer has.
    TooLong,
    /// The TLS handshake.
    TlsFailed,
    /// What must be offered is not: STARTTLS, AUTH, CHUNKING, PIPELINING, SMTPUTF8.
    MissingCapability,
    /// The body of an HTTP answer is not the one of before (checksum, length).
    Mismatch,
    /// This machine could not: memory, routes, permission.
    Local,
    /// This process has no descriptor left.
    NoDescriptors,
    /// No local port is left, or no source address is this machine's.
    NoPorts,
}

impl Class {
    /// How many there are.
    pub const COUNT: usize = 16;
    /// All of them.
    pub const ALL: [Self; Self::COUNT] = [
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
        Self::TlsFailed,
        Self::MissingCapability,
        Self::Mismatch,
        Self::Local,
        Self::NoDescriptors,
        Self::NoPorts,
    ];

    /// The word for it.
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
            Self::TlsFailed => "tls_failed",
            Self::MissingCapability => "missing_capability",
            Self::Mismatch => "mismatch",
            Self::Local => "local",
            Self::NoDescriptors => "no_descriptors",
            Self::NoPorts => "no_ports",
        }
    }

    /// What a reply of SMTP means that was not the one hoped for.
    #[must_use]
    pub fn of_code(code: u16) -> Self {
        match code {
            400..=499 => Self::Tempfail,
            500..=599 => Self::Permfail,
            _ => Self::Unexpected,
        }
    }
}

/// What went wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub phase: Phase,
    /// What.
    pub class: Class,
    /// The connection can be used for what comes next.
    pub alive: bool,
}

impl Trouble {
    /// That ended the connection.
    #[must_use]
    pub fn lost(phase: Phase, class: Class) -> Self {
        Self { phase, class, alive: false }
    }
}
