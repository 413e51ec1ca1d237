//! What is wrong with a director for this configuration: what, why it matters for mail, how to mend it.
//!
//! Owns the rules ([`examine`]) and how their findings are shown. Refuses to know how anything was observed (`look`), and
//! never guesses: what is not known is no finding. Cannot fail. A rule is `wrong` where mail is lost, hangs or goes past the
//! director, `advice` where it may.

pub mod look;
mod network;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use crate::arp::Look;
use crate::config::{Config, DataplaneChoice};
use crate::dataplane::ipvs::wire::Timeouts;
use crate::vip::settings::Need;

/// The time that a client may wait for the reply to its final dot (RFC 5321 section 4.5.3.2.6).
const FINAL_DOT: u32 = 600;
/// What the kernel has unless told otherwise, and what is proposed.
const TCP: u32 = 900;
/// Connections for each bucket of the table, above which finding one takes time.
const LOAD: u64 = 8;

/// How bad it is, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It may cost mail.
    Advice,
    /// It costs mail.
    Wrong,
}

/// What mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mend {
    /// A setting of the kernel, by its `sysctl` name, that can do no harm elsewhere.
    Setting(String, u32),
    /// The timeout of idle connections, in seconds.
    TcpTimeout(u32),
    /// What only a person should do, as a command or in words.
    ByHand(String),
}

impl Mend {
    /// As a person would type it.
    #[must_use]
    pub fn command(&self) -> String {
        match self {
            Self::Setting(name, value) => format!("sysctl -w {name}={value}"),
            Self::TcpTimeout(seconds) => format!("ipvsadm --set {seconds} 0 0"),
            Self::ByHand(text) => text.clone(),
        }
    }

    /// Whether `--fix` may do it.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        !matches!(self, Self::ByHand(_))
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// A short name that stays: `expire_nodest_conn`.
    pub about: &'static str,
    /// What is.
    pub what: String,
    /// Why that matters for mail.
    pub why: &'static str,
    /// What to do.
    pub mend: Mend,
}

/// Whether there is IPVS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kernel {
    /// Nobody looked.
    #[default]
    NotAsked,
    /// It answers.
    Ipvs {
        /// Buckets of the connection table.
        buckets: u32,
        /// Connections in it, of our virtuals.
        connections: u64,
        /// Timeouts of idle connections.
        timeouts: Timeouts,
    },
    /// No CAP_NET_ADMIN.
    Denied,
    /// There is none, or it does not answer.
    Absent(String),
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The largest packet, where that is known.
    pub mtu: Option<u32>,
}

/// How a real server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// By which interface.
    pub by: Interface,
    /// Whether it is in a network of that interface.
    pub on_link: bool,
}

/// All that was observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// IPVS.
    pub kernel: Kernel,
    /// Whether a scheduler can be had, where that is known.
    pub schedulers: BTreeMap<String, bool>,
    /// Settings by their `sysctl` name.
    pub settings: BTreeMap<String, u64>,
    /// Where each VIP of the file is; `None` where it is not on this machine.
    pub vips: BTreeMap<IpAddr, Option<Interface>>,
    /// How each real server is reached; one that cannot be is not here.
    pub reals: BTreeMap<IpAddr, Way>,
    /// Who else answers for the VIPs.
    pub answered: Look,
    /// What the probes through the VIP lack.
    pub needs: Vec<Need>,
}

impl Observed {
    fn is(&self, name: &str, value: u64) -> bool {
        self.settings.get(name) == Some(&value)
    }

    fn of_interface(&self, (family, interface, name): (&str, &str, &str)) -> Option<u64> {
        self.settings.get(&format!("net.{family}.conf.{interface}.{name}")).copied()
    }
}

/// All that is wrong, the worst first.
#[must_use]
pub fn examine(config: &Config, observed: &Observed) -> Vec<Finding> {
    let mut found = Vec::new();
    if config.dataplane == DataplaneChoice::Proxy {
        return found;
    }
    kernel(config, observed, &mut found);
    if matches!(observed.kernel, Kernel::Ipvs { .. }) {
        settings(config, observed, &mut found);
        network::examine(config, observed, &mut found);
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    found
}

fn kernel(config: &Config, observed: &Observed, found: &mut Vec<Finding>) {
    let level = if config.dataplane == DataplaneChoice::Ipvs { Level::Wrong } else { Level::Advice };
    match &observed.kernel {
        Kernel::NotAsked => {}
        Kernel::Absent(why) => found.push(Finding {
            level,
            about: "ipvs",
            what: format!("there is no IPVS: {why}"),
            why: "the kernel balances nothing; with dataplane = \"auto\" the proxy takes its place, and real servers see the \
                  director's address instead of the client's",
            mend: Mend::ByHand("modprobe ip_vs".to_owned()),
        }),
        Kernel::Denied => found.push(Finding {
            level,
            about: "capability",
            what: "this process may not ask IPVS: it has no CAP_NET_ADMIN".to_owned(),
            why: "without it the director cannot read or write the kernel's table, and nothing else here was looked at",
            mend: Mend::ByHand("run as root, or AmbientCapabilities=CAP_NET_ADMIN in the unit".to_owned()),
        }),
        Kernel::Ipvs { buckets, connections, timeouts } => {
            if timeouts.tcp < FINAL_DOT {
                found.push(Finding {
                    level: Level::Wrong,
                    about: "timeout",
                    what: format!("an idle connection is forgotten after {} s", timeouts.tcp),
                    why: "a client may wait ten minutes for the reply to its final dot (RFC 5321): the reply finds no \
                          connection, and the message is sent twice",
                    mend: Mend::TcpTimeout(TCP),
                });
            }
            if *connections > u64::from(*buckets) * LOAD {
                found.push(Finding {
                    level: Level::Advice,
                    about: "connection_table",
                    what: format!("{connections} connections are in a table of {buckets} buckets"),
                    why: "each packet searches a long list, which costs the director its speed when mail is heaviest",
                    mend: Mend::ByHand(
                        "options ip_vs conn_tab_bits=16 in /etc/modprobe.d, and load the module again".to_owned(),
                    ),
                });
            }
        }
    }
    let mut missing: Vec<&str> =
        config.virtuals.iter().map(|found| found.settings.scheduler.name()).collect();
    missing.sort_unstable();
    missing.dedup();
    for scheduler in missing.into_iter().filter(|name| observed.schedulers.get(*name) == Some(&false)) {
        found.push(Finding {
            level: Level::Wrong,
            about: "scheduler",
            what: format!("the kernel has no scheduler \"{scheduler}\""),
            why: "a virtual with it cannot be made, and its mail is refused",
            mend: Mend::ByHand(format!("modprobe ip_vs_{scheduler}, or another scheduler in the file")),
        });
    }
}

/// One row: a setting of IPVS, the value that is wrong, the one that is right.
type Row = (Level, &'static str, [u32; 2], &'static str);

const ROWS: [Row; 3] = [
    (
        Level::Advice,
        "expire_nodest_conn",
        [0, 1],
        "connections of a server that is deleted hang until they time out, instead of being reset",
    ),
    (
        Level::Advice,
        "conn_reuse_mode",
        [0, 1],
        "a client that uses its port again goes to the server that it had, also when that is out",
    ),
    (
        Level::Wrong,
        "pmtu_disc",
        [0, 1],
        "a packet that is too large for a tunnel or a link is dropped without a word: small mail works, large mail hangs",
    ),
];

const TEMPLATE: Row = (
    Level::Wrong,
    "expire_quiescent_template",
    [0, 1],
    "a virtual is persistent: clients that had a server which is down still go there",
);

fn settings(config: &Config, observed: &Observed, found: &mut Vec<Finding>) {
    let persistent = config.virtuals.iter().any(|found| found.settings.persistence.is_some());
    let rows = ROWS.iter().chain(Some(&TEMPLATE).filter(|_| persistent));
    for (level, about, [wrong, right], why) in rows {
        let name = format!("net.ipv4.vs.{about}");
        if observed.is(&name, u64::from(*wrong)) {
            let (what, mend) = (format!("{name} is {wrong}"), Mend::Setting(name, *right));
            found.push(Finding { level: *level, about, what, why, mend });
        }
    }
    for need in &observed.needs {
        let mend = match need.name.ends_with("accept_local") {
            true => Mend::Setting(need.name.clone(), need.value),
            // It also decides which forged packets come in from everywhere else.
            false => Mend::ByHand(format!("sysctl -w {}={}", need.name, need.value)),
        };
        found.push(Finding {
            level: Level::Advice,
            about: "vip_check",
            what: format!("{} is not {}", need.name, need.value),
            why: "answers through the VIP are dropped here, so vip_check sees nothing: a VIP that is missing on a server \
                  goes unnoticed",
            mend,
        });
    }
}

/// The exit code: 0 nothing, 1 advice, 2 wrong.
#[must_use]
pub fn exit_code(found: &[Finding]) -> u8 {
    match found.iter().map(|finding| finding.level).max() {
        None => 0,
        Some(Level::Advice) => 1,
        Some(Level::Wrong) => 2,
    }
}

/// For people.
#[must_use]
pub fn render(found: &[Finding]) -> String {
    let mut out = String::new();
    for finding in found {
        let level = if finding.level == Level::Wrong { "WRONG" } else { "advice" };
        let by_itself = if finding.mend.is_safe() { "  (--fix does it)" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{level}: {}", finding.what);
        let _ = writeln!(out, "  why:  {}", finding.why);
        let _ = writeln!(out, "  mend: {}{by_itself}", finding.mend.command());
    }
    out
}

/// For machines.
#[must_use]
pub fn to_json(found: &[Finding]) -> serde_json::Value {
    let one = |finding: &Finding| {
        serde_json::json!({
            "level": finding.level, "about": finding.about, "what": finding.what, "why": finding.why,
            "mend": finding.mend.command(), "safe": finding.mend.is_safe(),
        })
    };
    serde_json::json!({ "findings": found.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests;
