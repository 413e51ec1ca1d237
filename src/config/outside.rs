//! What a configuration says of the world beside the table: the log, mails, commands and files.
//!
//! Owns the settings of these. Refuses to know how any of them is done. Cannot fail.

use std::path::PathBuf;
use std::time::Duration;

/// Where the log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard error, which a service manager keeps.
    #[default]
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, opened again for each line, so that it can be rotated at any time.
    File(PathBuf),
    /// The machine's syslog.
    Syslog(Facility),
}

/// A facility of syslog (RFC 5424 section 6.2.1), by its name in `syslog.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility {
    /// The word.
    pub name: &'static str,
    /// The number.
    pub code: u8,
}

impl Facility {
    /// Every facility that has a name.
    pub const KNOWN: [(&str, u8); 20] = [
        ("kern", 0),
        ("user", 1),
        ("mail", 2),
        ("daemon", 3),
        ("auth", 4),
        ("syslog", 5),
        ("lpr", 6),
        ("news", 7),
        ("uucp", 8),
        ("cron", 9),
        ("authpriv", 10),
        ("ftp", 11),
        ("local0", 16),
        ("local1", 17),
        ("local2", 18),
        ("local3", 19),
        ("local4", 20),
        ("local5", 21),
        ("local6", 22),
        ("local7", 23),
    ];

    /// The facility of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::KNOWN.iter().find(|(known, _)| *known == name).map(|&(name, code)| Self { name, code })
    }
}

/// A program and its first arguments; what it is told in a particular case follows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// An absolute path.
    pub program: PathBuf,
    /// Arguments that are always the same.
    pub arguments: Vec<String>,
}

/// Who gets a mail about a virtual, and about what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alert {
    /// The recipients; without any no mail is sent.
    pub to: Vec<String>,
    /// The `From` of a mail; root at this host where nothing is said.
    pub from: Option<String>,
    /// How often a mail about a server that stays down is repeated; `None` is never.
    pub every: Option<Duration>,
    /// In which phases of the daemon mails are sent.
    pub when: Phases,
    /// The server that takes the mails; without one the local `sendmail` does.
    pub relay: Option<Relay>,
    /// What people call the service: it stands in the subject and in the text.
    pub service: Option<String>,
    /// A remark for those who read the mail.
    pub comment: Option<String>,
}

/// A mail server, found anew for each mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// A host name or an address.
    pub host: String,
    /// Its port, 25 unless told.
    pub port: u16,
}

/// What the daemon is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has been started, and not every server has been asked yet.
    Starting,
    /// The time between.
    Running,
    /// It has a new configuration, and not every server has been asked yet.
    Reloading,
    /// It is ending.
    Stopping,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Running, Self::Reloading, Self::Stopping];

    /// The word in configuration and mail.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Reloading => "reloading",
            Self::Stopping => "stopping",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::Starting => 1,
            Self::Running => 2,
            Self::Reloading => 4,
            Self::Stopping => 8,
        }
    }
}

/// A set of phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phases(u8);

impl Phases {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// This set and `phase`.
    #[must_use]
    pub fn with(self, phase: Phase) -> Self {
        Self(self.0 | phase.bit())
    }

    /// Whether `phase` is in it.
    #[must_use]
    pub fn has(self, phase: Phase) -> bool {
        self.0 & phase.bit() != 0
    }
}

/// All of them.
impl Default for Phases {
    fn default() -> Self {
        Phase::ALL.into_iter().fold(Self::NONE, Self::with)
    }
}
