//! The words of the farm: what a virtual and a real server are, and the table that the kernel balances by.
//!
//! Owns identities ([`VirtualId`], [`RealId`]), settings ([`VirtualSettings`], [`RealSettings`]), the
//! [`Table`] made of them and the six [`Op`]s that change one. Refuses to know sockets, clocks, health and
//! configuration files. Fails only in [`Table::apply`], exactly where the kernel would refuse.
//!
//! Three kinds of fact never mix here: identity is not settings (a weight is no part of a [`RealId`]), and
//! settings are not observation ([`Counters`] stand beside a [`Table`], so that desired == actual is `==`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

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

/// One virtual and its real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// How the virtual balances.
    pub settings: VirtualSettings,
    /// Who serves it.
    pub reals: BTreeMap<RealId, RealSettings>,
}

impl Virtual {
    /// A virtual without real servers.
    #[must_use]
    pub fn new(settings: VirtualSettings) -> Self {
        Self { settings, reals: BTreeMap::new() }
    }

    /// Whether any of its real servers has weight.
    #[must_use]
    pub fn takes_connections(&self) -> bool {
        self.reals.values().any(|settings| settings.weight.takes_connections())
    }
}

/// A balancing table: what is wanted, or what a dataplane has. Ordered, so that everything printed is stable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The virtuals by identity.
    pub virtuals: BTreeMap<VirtualId, Virtual>,
}

/// One change of a table. `Set` replaces all settings, as the kernel does: what is left out goes to its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A new virtual without real servers.
    AddVirtual(VirtualId, VirtualSettings),
    /// New settings for a virtual that exists; its connections go on.
    SetVirtual(VirtualId, VirtualSettings),
    /// Removes a virtual and all its real servers.
    DeleteVirtual(VirtualId),
    /// A new real server.
    AddReal(VirtualId, RealId, RealSettings),
    /// New settings for a real server that exists; its connections go on.
    SetReal(VirtualId, RealId, RealSettings),
    /// Removes a real server; its connections lose it.
    DeleteReal(VirtualId, RealId),
}

impl Op {
    /// The metric label of this kind of change.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AddVirtual(..) => "add_virtual",
            Self::SetVirtual(..) => "set_virtual",
            Self::DeleteVirtual(..) => "delete_virtual",
            Self::AddReal(..) => "add_real",
            Self::SetReal(..) => "set_real",
            Self::DeleteReal(..) => "delete_real",
        }
    }

    /// The virtual that this change belongs to.
    #[must_use]
    pub fn virtual_id(&self) -> &VirtualId {
        match self {
            Self::AddVirtual(id, _)
            | Self::SetVirtual(id, _)
            | Self::DeleteVirtual(id)
            | Self::AddReal(id, ..)
            | Self::SetReal(id, ..)
            | Self::DeleteReal(id, _) => id,
        }
    }
}

/// As a person would say it: `set 10.0.0.11:25 of TCP 192.0.2.25:25 to Route weight 0`.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVirtual(id, settings) => write!(f, "add virtual {id} {}", settings.scheduler),
            Self::SetVirtual(id, settings) => write!(f, "set virtual {id} to {}", settings.scheduler),
            Self::DeleteVirtual(id) => write!(f, "delete virtual {id}"),
            Self::AddReal(id, real, s) => {
                write!(f, "add {real} to {id}, {} weight {}", s.forward, s.weight)
            }
            Self::SetReal(id, real, s) => {
                write!(f, "set {real} of {id} to {} weight {}", s.forward, s.weight)
            }
            Self::DeleteReal(id, real) => write!(f, "delete {real} from {id}"),
        }
    }
}

/// Why a table refuses a change; the kernel's errno in the name of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// `EEXIST`: what should be added is there already.
    #[error("it exists already")]
    Exists,
    /// `ESRCH`: the virtual is not there.
    #[error("there is no such virtual")]
    NoVirtual,
    /// `ENOENT`: the virtual is there, the real server is not.
    #[error("the virtual has no such real server")]
    NoReal,
}

impl Table {
    /// Makes one change, as strict as the kernel.
    ///
    /// # Errors
    /// [`TableError`] with the table unchanged.
    pub fn apply(&mut self, op: &Op) -> Result<(), TableError> {
        match op {
            Op::AddVirtual(id, settings) => match self.virtuals.entry(*id) {
                std::collections::btree_map::Entry::Occupied(_) => return Err(TableError::Exists),
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(Virtual::new(settings.clone()));
                }
            },
            Op::SetVirtual(id, settings) => self.virtual_mut(id)?.settings = settings.clone(),
            Op::DeleteVirtual(id) => {
                self.virtuals.remove(id).ok_or(TableError::NoVirtual)?;
            }
            Op::AddReal(id, real, settings) => match self.virtual_mut(id)?.reals.entry(*real) {
                std::collections::btree_map::Entry::Occupied(_) => return Err(TableError::Exists),
                std::collections::btree_map::Entry::Vacant(slot) => {
                    slot.insert(*settings);
                }
            },
            Op::SetReal(id, real, settings) => {
                *self.virtual_mut(id)?.reals.get_mut(real).ok_or(TableError::NoReal)? = *settings;
            }
            Op::DeleteReal(id, real) => {
                self.virtual_mut(id)?.reals.remove(real).ok_or(TableError::NoReal)?;
            }
        }
        Ok(())
    }

    fn virtual_mut(&mut self, id: &VirtualId) -> Result<&mut Virtual, TableError> {
        self.virtuals.get_mut(id).ok_or(TableError::NoVirtual)
    }
}

/// What has passed since the service or destination was made, and the kernel's rate estimates.
/// In direct routing and tunnels the director never sees answers, so every `out_` stays 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
    /// Connections a second.
    pub connection_rate: u64,
    /// Packets a second from clients.
    pub in_packet_rate: u64,
    /// Packets a second to clients.
    pub out_packet_rate: u64,
    /// Bytes a second from clients.
    pub in_byte_rate: u64,
    /// Bytes a second to clients.
    pub out_byte_rate: u64,
}

/// What a dataplane counts for one real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RealCounters {
    /// Connections in the established state.
    pub active: u32,
    /// Connections in any other state, closed ones that the kernel still remembers among them.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Traffic.
    pub stats: Stats,
}

/// Observations that belong to a [`Table`] but are no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Traffic of each virtual.
    pub virtuals: BTreeMap<VirtualId, Stats>,
    /// Connections and traffic of each real server.
    pub reals: BTreeMap<(VirtualId, RealId), RealCounters>,
}

/// All that a dataplane has, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Settings.
    pub table: Table,
    /// Observations.
    pub counters: Counters,
}

impl Dump {
    /// Connections that would lose their server if it were deleted now. A UDP connection is never active; what a
    /// firewall mark stands for is not known.
    #[must_use]
    pub fn in_use(&self, id: &VirtualId, real: &RealId) -> u32 {
        let Some(counters) = self.counters.reals.get(&(*id, *real)) else { return 0 };
        match id {
            VirtualId::Address { protocol: Protocol::Tcp, .. } => counters.active,
            VirtualId::Address { protocol: Protocol::Udp, .. } | VirtualId::Fwmark { .. } => {
                counters.active.saturating_add(counters.inactive)
            }
        }
    }
}
