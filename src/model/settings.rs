//! What can be set on a virtual and on a real server.
//!
//! Owns the kernel's vocabulary: schedulers and their flags, persistence, ways to forward, tunnels, thresholds. Refuses to know
//! whose settings they are. Cannot fail.

use std::fmt;
use std::net::Ipv4Addr;

use super::{Family, Weight};

/// How the kernel chooses a real server for a new connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheduler {
    /// Round robin, weights other than 0 ignored.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
    /// Locality-based least connections.
    Lblc,
    /// Locality-based least connections with replication.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted fail-over: the highest weight takes all.
    Fo,
    /// Weighted overflow: the next server once active connections exceed the weight.
    Ovf,
    /// Maglev hashing.
    Mh,
    /// Weighted random twos choice (power of two choices).
    Twos,
    /// One that this program does not know, found in the kernel on a virtual of somebody else's.
    Other(Box<str>),
}

impl Scheduler {
    /// Every scheduler that a configuration can name.
    pub const KNOWN: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Mh,
        Self::Twos,
    ];

    /// The kernel's name: the module is `ip_vs_` and this.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
            Self::Twos => "twos",
            Self::Other(name) => name,
        }
    }

    /// The scheduler of that kernel name; total, because a kernel may have ones that we do not know.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::KNOWN.into_iter().find(|s| s.name() == name).unwrap_or_else(|| Self::Other(name.into()))
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The three bits that a scheduler may interpret (`IP_VS_SVC_F_SCHED1..3` in `linux/ip_vs.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchedulerFlags(u8);

impl SchedulerFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// `sh` and `mh`: choose another server when the hashed one has weight 0. Without it, its clients are refused.
    pub const FALLBACK: Self = Self(1);
    /// `sh` and `mh`: hash the client's port too.
    pub const PORT: Self = Self(2);
    /// The third bit; no scheduler of the kernel uses it yet.
    pub const THIRD: Self = Self(4);

    /// The flags of both.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is set here.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// How much of a client's address makes it the same client to a persistent virtual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Granularity {
    /// IPv4 netmask; 255.255.255.255 is one client an address.
    V4(Ipv4Addr),
    /// IPv6 prefix length, 1 to 128.
    V6(u8),
}

impl Granularity {
    /// One client is one address.
    #[must_use]
    pub fn host(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4(Ipv4Addr::BROADCAST),
            Family::V6 => Self::V6(128),
        }
    }
}

/// A client comes back to the real server that it had.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Persistence {
    /// Seconds after the last connection for which the kernel remembers.
    pub timeout: u32,
    /// Which clients count as one.
    pub granularity: Granularity,
    /// Persistence engine (`sip`), by its kernel name.
    pub engine: Option<Box<str>>,
}

/// All that can be set on a virtual service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualSettings {
    /// How a real server is chosen.
    pub scheduler: Scheduler,
    /// Options of the scheduler.
    pub flags: SchedulerFlags,
    /// Each UDP datagram is scheduled by itself (`ipvsadm -o`).
    pub one_packet: bool,
    /// Whether and how clients stick to a server.
    pub persistence: Option<Persistence>,
}

impl VirtualSettings {
    /// A scheduler and nothing else.
    #[must_use]
    pub fn new(scheduler: Scheduler) -> Self {
        Self { scheduler, flags: SchedulerFlags::NONE, one_packet: false, persistence: None }
    }
}

/// How a tunnel treats the checksum of its outer UDP or GRE header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelChecksum {
    /// None (`nocsum`).
    #[default]
    None,
    /// Computed (`csum`).
    Csum,
    /// Remote checksum offload (`remcsum`).
    Remcsum,
}

/// What wraps a packet on its way to a real server outside the local network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tunnel {
    /// IP in IP.
    Ipip,
    /// Generic UDP encapsulation.
    Gue {
        /// UDP port of the real server, never 0.
        port: u16,
        /// Checksum of the outer header.
        checksum: TunnelChecksum,
    },
    /// Generic routing encapsulation.
    Gre {
        /// Checksum of the outer header.
        checksum: TunnelChecksum,
    },
}

/// How packets get to the real server, in ldirectord's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forward {
    /// Direct routing: the frame is sent on as it is, the answer goes straight to the client. Cannot change the port.
    Gate,
    /// Masquerading (NAT): answers come back through the director.
    Masq,
    /// Through a tunnel. Cannot change the port.
    Ipip(Tunnel),
    /// The director itself; only ever seen in a kernel table.
    Local,
    /// Transparent proxy bypass; only ever seen in a kernel table.
    Bypass,
}

/// As `ipvsadm -Ln` writes it.
impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gate => "Route",
            Self::Masq => "Masq",
            Self::Ipip(_) => "Tunnel",
            Self::Local => "Local",
            Self::Bypass => "Bypass",
        })
    }
}

/// All that can be set on a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealSettings {
    /// How packets get there.
    pub forward: Forward,
    /// Share of new connections.
    pub weight: Weight,
    /// Connections (active and inactive) above which the kernel sends no more; 0 is no limit.
    pub upper_threshold: u32,
    /// Connections below which it sends again; 0 lets the kernel choose three quarters of the upper one.
    pub lower_threshold: u32,
}

impl RealSettings {
    /// A way and a weight, and no thresholds.
    #[must_use]
    pub fn new(forward: Forward, weight: Weight) -> Self {
        Self { forward, weight, upper_threshold: 0, lower_threshold: 0 }
    }
}
