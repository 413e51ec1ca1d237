//! What the operator wants, validated and with every default filled in: all that the rest of the program sees.
//!
//! Owns [`Config`]; why a file is none is said by `diagnostic`. Refuses to know TOML, files and environment
//! variables (`native`, `load`) and everything that happens at run time.

pub mod diagnostic;
pub mod ldirectord;
pub mod load;
mod names;
pub mod native;
mod outside;

pub use diagnostic::{Diagnostic, Place};
pub(crate) use native::is_host_name;
pub use outside::{Alert, CommandLine, Facility, LogTarget, Phase, Phases, Relay};

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Versions of HAProxy's PROXY protocol.
pub use checks::proxy_header::Version as ProxyProtocol;
use checks::smtp::Dialect;
use checks::{CheckSpec, Outcome};

use crate::model::{RealId, RealSettings, VirtualId, VirtualSettings};
use crate::verdict::{Verdict, Verdicts};
use crate::vip::Vip;
use crate::weight::law::LawConfig;

/// Where metrics and status are served unless the configuration says otherwise.
pub const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9625);

/// A complete, valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which dataplane to use.
    pub dataplane: DataplaneChoice,
    /// Where to serve metrics and status; `None` serves nothing.
    pub http: Option<SocketAddr>,
    /// How much to log.
    pub log: LogLevel,
    /// How to write the log.
    pub log_format: LogFormat,
    /// Where to write the log.
    pub log_to: LogTarget,
    /// Whether `ldirectord start` stays in the foreground, without a pid file.
    pub supervised: bool,
    /// Whether a change of the file on disk is a reload.
    pub autoreload: bool,
    /// A program that is run with the path of the configuration file whenever that has changed on disk.
    pub callback: Option<PathBuf>,
    /// Configurations of other daemons, which start, reload and end with this one.
    pub execute: Vec<PathBuf>,
    /// A directory: a real server whose address or name is that of a file in it gets no new connections.
    pub maintenance_dir: Option<PathBuf>,
    /// Whether a server that is down and that somebody has deleted from the table comes back to it with weight 0.
    pub readd_quiescent: bool,
    /// What happens to a virtual in the table when the daemon ends, unless the virtual says otherwise.
    pub on_exit: OnExit,
    /// How often the table is compared with what is wanted.
    pub resync: Duration,
    /// What the probes through the VIP need.
    pub vip: Vip,
    /// How often to look who else answers for a VIP; `None` never.
    pub arp_watch: Option<Duration>,
    /// The farm, in the order of the file.
    pub virtuals: Vec<VirtualConfig>,
}

impl Config {
    /// How large the farm is: `1 virtual, 3 real servers`.
    #[must_use]
    pub fn extent(&self) -> String {
        let of = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let reals = self.virtuals.iter().map(|v| v.reals.len()).sum();
        format!("{}, {}", of(self.virtuals.len(), "virtual"), of(reals, "real server"))
    }
}

/// `dataplane = "auto"`, `"ipvs"` or `"proxy"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataplaneChoice {
    /// IPVS where the kernel has it and the capability is there, otherwise the proxy.
    #[default]
    Auto,
    /// IPVS or nothing.
    Ipvs,
    /// The TCP forwarder in this process.
    Proxy,
}

/// `log = "error"` to `"trace"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// Each change of state and of the table.
    #[default]
    Info,
    /// Each check.
    Debug,
    /// Everything.
    Trace,
}

/// `log_format = "text"`, `"json"` or `"ldirectord"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line an event, for people and the journal.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
    /// The lines of ldirectord, in its words: `[Tue Nov 24 16:33:54 2026|ldirectord|4711] Added virtual server: …`.
    Ldirectord,
}

/// `on_exit = "keep"` or `"remove"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExit {
    /// The table stays and goes on balancing by the last weights.
    #[default]
    Keep,
    /// Our virtuals are deleted, nobody else's.
    Remove,
}

/// One virtual service and its real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualConfig {
    /// What people call it; unique.
    pub name: String,
    /// What the kernel calls it; unique.
    pub id: VirtualId,
    /// How it balances.
    pub settings: VirtualSettings,
    /// Whether a server that is down stays in the table with weight 0 (true) or is drained and deleted.
    pub quiescent: bool,
    /// How long the connections of a removed server may go on before it is deleted.
    pub drain: Duration,
    /// Percent of the base weight that soft reasons leave in service at least, 0 to 100; at 0 the last server stays.
    /// `None`: a soft reason takes a server out as a hard one does, the last one too.
    pub floor: Option<u8>,
    /// How load decides weights; `None` where it does not.
    pub law: Option<LawConfig>,
    /// What happens to it in the table when the daemon ends.
    pub on_exit: OnExit,
    /// Who serves while no real server can; never checked.
    pub fallback: Option<(RealId, RealSettings)>,
    /// What is run when no real server can serve any more, and when one can again.
    pub fallback_command: Option<CommandLine>,
    /// A file that gets a line for each check.
    pub monitor_file: Option<MonitorFile>,
    /// Who gets mails about it.
    pub alert: Alert,
    /// What only the proxy dataplane can do.
    pub proxy: ProxyOptions,
    /// Who serves; ids are unique.
    pub reals: Vec<RealConfig>,
}

impl VirtualConfig {
    /// Whether all are switched off: then it is somebody's wish that nobody serves, and no fallback stands in.
    #[must_use]
    pub fn all_off(&self) -> bool {
        !self.reals.is_empty() && self.reals.iter().all(|real| real.off)
    }
}

/// A file that gets a line for each check of a virtual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorFile {
    /// Where it is.
    pub path: PathBuf,
    /// What its lines call a server, where that is not what we would.
    pub names: BTreeMap<RealId, String>,
}

/// One real server of one virtual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealConfig {
    /// Address and port.
    pub id: RealId,
    /// Settings with the base weight, which it gets when it is well.
    pub settings: RealSettings,
    /// How to find out whether it is well, one plan a tier; without any it is taken for well always.
    pub checks: Vec<CheckPlan>,
    /// Never in service and never checked (type "off"); its base weight is 0, and a fallback does not stand in for it.
    pub off: bool,
    /// Who says how its queue is.
    pub agent: Option<AgentPlan>,
}

/// An agent and its pace. Equal plans are one task with one memory, across virtuals and reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentPlan {
    /// Whom to ask.
    pub source: AgentSource,
    /// Whose agent it is: its address without the port.
    pub server: IpAddr,
    /// Time from start to start.
    pub interval: Duration,
    /// An answer that takes longer is none.
    pub deadline: Duration,
}

/// Where a line about a queue comes from: in each case the line of `smtp-realserver`, or of any agent of HAProxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AgentSource {
    /// Whoever listens there says it to each that connects.
    Tcp {
        /// Where.
        address: SocketAddr,
        /// How both sides prove who they are; `None` is in the clear.
        tls: Option<AgentTls>,
    },
    /// A command on this machine prints it.
    Command {
        /// An absolute path.
        program: PathBuf,
        /// What it is given.
        arguments: Vec<String>,
    },
}

impl fmt::Display for AgentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => address.fmt(f),
            Self::Command { program, .. } => program.display().fmt(f),
        }
    }
}

/// Mutual TLS with an agent. The files are read at each question.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentTls {
    /// Who vouches for the agent.
    pub ca_file: PathBuf,
    /// Our certificate and those between it and the agent's CA.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The name that the agent's certificate must be for; `None` is its address.
    pub name: Option<String>,
}

/// Checks of one server differ in what they cost, and each has its own pace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// Whether it answers at all: the greeting, for SMTP.
    Base,
    /// Whether it would take mail.
    Mail,
    /// What its TLS is worth.
    Tls,
    /// Whether it takes a message.
    Data,
    /// Whether a message that it takes arrives.
    Canary,
    /// Whether a client reaches it through the VIP.
    Vip,
}

impl Tier {
    /// The word in log, JSON and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Mail => "mail",
            Self::Tls => "tls",
            Self::Data => "data",
            Self::Canary => "canary",
            Self::Vip => "vip",
        }
    }
}

/// A check and its pace. Equal plans are one task with one health, across virtuals and reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckPlan {
    /// What to ask.
    pub spec: CheckSpec,
    /// Which of the checks of its server it is.
    pub tier: Tier,
    /// Time from start to start while the answer does not change.
    pub interval: Duration,
    /// Time from start to start while a change is being confirmed.
    pub retry: Duration,
    /// Failures in a row that make a server worse, where the table of verdicts has no other number.
    pub fall: u32,
    /// Successes in a row that make it up again.
    pub rise: u32,
    /// Whether a server that flaps needs more of them.
    pub damping: bool,
    /// What each failure says of the server.
    pub verdicts: Arc<Verdicts>,
    /// A certificate with fewer days left is worth a warning.
    pub warn_days: u32,
    /// While it is up: how many times only a connection is asked for between two whole checks.
    pub connects_between: u32,
    /// What becomes of the message, where that is waited for.
    pub canary: Option<Arc<Canary>>,
}

/// Where the canaries of a server come back to, and how long they may take.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Canary {
    /// Where they are received.
    pub listen: SocketAddr,
    /// What is spoken there.
    pub dialect: Dialect,
    /// From so long on a canary is late.
    pub slow: Duration,
    /// From so long on it is lost; longer than `slow`.
    pub lost: Duration,
}

impl CheckPlan {
    /// Whether a failure is one that the table of verdicts lets pass.
    #[must_use]
    pub fn calls_up(&self, outcome: &Outcome) -> bool {
        self.verdicts.of(outcome).is_some_and(|cell| cell.verdict == Verdict::Up)
    }
}

/// Options of the proxy dataplane that no kernel table has a place for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// Header that tells the real server who the client is.
    pub protocol: Option<ProxyProtocol>,
    /// A session in which nothing moves for this long is closed.
    pub idle: Duration,
}
