//! The words of the farm: what a virtual and a real server are, and the table that the kernel balances by.
//!
//! Owns identities ([`VirtualId`], [`RealId`]), settings ([`VirtualSettings`], [`RealSettings`]), the
//! [`Table`] made of them and the six [`Op`]s that change one. Refuses to know sockets, clocks, health and
//! configuration files. Fails only in [`Table::apply`], exactly where the kernel would refuse.
//!
//! Three kinds of fact never mix here: identity is not settings (a weight is no part of a [`RealId`]), and
//! settings are not observation ([`Counters`] stand beside a [`Table`], so that desired == actual is `==`).

mod counters;
mod settings;
mod table;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

pub use self::counters::{Counters, Dump, RealCounters, Stats};
pub use self::settings::{
    Forward, Granularity, Persistence, RealSettings, Scheduler, SchedulerFlags, Tunnel, TunnelChecksum,
    VirtualSettings,
};
pub use self::table::{Op, Table, TableError, Virtual};

/// Address family of a virtual or a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 (`AF_INET`).
    V4,
    /// IPv6 (`AF_INET6`).
    V6,
}

impl Family {
    /// The family that `address` belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Transport protocol of a virtual that is named by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// What names a virtual service: an address, port and protocol, or a firewall mark and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VirtualId {
    /// A service on one address and port.
    Address {
        /// TCP or UDP.
        protocol: Protocol,
        /// The virtual IP and port that clients connect to.
        address: SocketAddr,
    },
    /// A service made of every packet that the firewall marked.
    Fwmark {
        /// The mark, never 0.
        mark: u32,
        /// IPv4 and IPv6 marks are different services to the kernel.
        family: Family,
    },
}

impl VirtualId {
    /// The family of the packets that this virtual takes.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(address.ip()),
            Self::Fwmark { family, .. } => *family,
        }
    }

    /// The service port; `None` for a firewall mark, where each packet keeps its own.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Address { address, .. } => Some(address.port()),
            Self::Fwmark { .. } => None,
        }
    }
}

/// As `ipvsadm -Ln` writes it: `TCP 192.0.2.25:25`, `FWM 7`, `FWM 7 IPv6`.
impl fmt::Display for VirtualId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{protocol} {address}"),
            Self::Fwmark { mark, family: Family::V4 } => write!(f, "FWM {mark}"),
            Self::Fwmark { mark, family: Family::V6 } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// What names a real server within a virtual: its address and port, nothing else.
///
/// The port is 0 only below a firewall mark, where it means "the port the client asked for".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RealId(pub SocketAddr);

impl fmt::Display for RealId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Share of new connections that a real server gets, relative to its neighbours; 0 is none.
///
/// The kernel takes 0 to 2^31-1; configuration allows 0 to [`Weight::MAX_CONFIGURED`], as `ipvsadm` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(pub u32);

impl Weight {
    /// No new connections; those that exist go on.
    pub const ZERO: Self = Self(0);
    /// The largest weight that a configuration may ask for.
    pub const MAX_CONFIGURED: u32 = 65_535;

    /// Whether new connections are sent to a server of this weight.
    #[must_use]
    pub fn takes_connections(self) -> bool {
        self.0 > 0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
