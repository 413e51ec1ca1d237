//! Bytes to model: the records that the kernel answers with.
//!
//! Owns their meaning. What the model has no word for (an SCTP service, a forwarding method that does not exist) is
//! `None`, because one such thing of somebody else's must not hide the whole table. Fails with a [`WireError`] on what
//! no kernel sends.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::attributes::Attributes;
use super::names::{self, Attribute};
use super::request::{address_family, protocol_number};
use super::{Record, WireError};
use crate::model::{
    Family, Forward, Granularity, Persistence, Protocol, RealCounters, RealId, RealSettings, Scheduler,
    SchedulerFlags, Stats, Tunnel, TunnelChecksum, VirtualId, VirtualSettings, Weight,
};

/// What `GET_INFO` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version of IPVS, such as 1.2.1; the same since 2005, so no sign of features.
    pub version: [u8; 3],
    /// Buckets of the connection table; before Linux 7.1 fixed by the module parameter `conn_tab_bits`.
    pub connection_table: u32,
}

/// As `ipvsadm` heads its list, in a sentence.
impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.version;
        write!(f, "IPVS {major}.{minor}.{patch}, connection table of {} buckets", self.connection_table)
    }
}

/// Seconds after its last packet for which the kernel remembers a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// An established TCP connection (900 by default).
    pub tcp: u32,
    /// A TCP connection after a FIN (120 by default).
    pub tcp_fin: u32,
    /// UDP (300 by default).
    pub udp: u32,
}

/// A service as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualRecord {
    /// Which one.
    pub id: VirtualId,
    /// Its settings.
    pub settings: VirtualSettings,
    /// Its traffic.
    pub stats: Stats,
}

/// A destination as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealRecord {
    /// Which one.
    pub id: RealId,
    /// Its settings.
    pub settings: RealSettings,
    /// Its connections and traffic.
    pub counters: RealCounters,
}

/// The answer to [`super::Request::Family`]: the message type of IPVS.
///
/// # Errors
/// [`WireError`] if it is anything else.
pub fn family_id(record: &Record<'_>) -> Result<u16, WireError> {
    top(record, names::CTRL_CMD_NEWFAMILY)?.u16(names::CTRL_ATTR_FAMILY_ID)
}

/// The answer to [`super::Request::Info`].
///
/// # Errors
/// [`WireError`] if it is anything else.
pub fn info(record: &Record<'_>) -> Result<Info, WireError> {
    let info = top(record, names::IPVS_CMD_SET_INFO)?;
    let [_, major, minor, patch] = info.u32(names::IPVS_INFO_ATTR_VERSION)?.to_be_bytes();
    Ok(Info {
        version: [major, minor, patch],
        connection_table: info.u32(names::IPVS_INFO_ATTR_CONN_TAB_SIZE)?,
    })
}

/// The answer to [`super::Request::Timeouts`].
///
/// # Errors
/// [`WireError`] if it is anything else.
pub fn timeouts(record: &Record<'_>) -> Result<Timeouts, WireError> {
    let config = top(record, names::IPVS_CMD_SET_CONFIG)?;
    Ok(Timeouts {
        tcp: config.u32(names::IPVS_CMD_ATTR_TIMEOUT_TCP)?,
        tcp_fin: config.u32(names::IPVS_CMD_ATTR_TIMEOUT_TCP_FIN)?,
        udp: config.u32(names::IPVS_CMD_ATTR_TIMEOUT_UDP)?,
    })
}

/// One record of the answer to [`super::Request::Virtuals`]; `None` for a protocol that we have no word for.
///
/// # Errors
/// [`WireError`] if it is anything else.
pub fn virtual_record(record: &Record<'_>) -> Result<Option<VirtualRecord>, WireError> {
    let service = inner(record, names::IPVS_CMD_NEW_SERVICE, names::IPVS_CMD_ATTR_SERVICE)?;
    let Some(id) = virtual_id(&service)? else { return Ok(None) };
    // struct ip_vs_flags { flags, mask }; the mask of an answer says nothing.
    let [f0, f1, f2, f3, ..] = service.array::<8>(names::IPVS_SVC_ATTR_FLAGS)?;
    let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
    let scheduler = service.text(names::IPVS_SVC_ATTR_SCHED_NAME)?;
    let persistence = match flags & names::IP_VS_SVC_F_PERSISTENT {
        0 => None,
        _ => Some(persistence(&service, id.family())?),
    };
    let settings = VirtualSettings {
        scheduler: Scheduler::from_name(
            scheduler.ok_or(WireError::Missing(names::IPVS_SVC_ATTR_SCHED_NAME.name))?,
        ),
        flags: scheduler_flags(flags),
        one_packet: flags & names::IP_VS_SVC_F_ONEPACKET != 0,
        persistence,
    };
    Ok(Some(VirtualRecord {
        id,
        settings,
        stats: stats(&service, names::IPVS_SVC_ATTR_STATS64, names::IPVS_SVC_ATTR_STATS)?,
    }))
}

/// One record of the answer to [`super::Request::Reals`]; `None` for a way of forwarding that we have no word for.
/// `family` is the virtual's: kernels before 3.18 do not say the family of a destination.
///
/// # Errors
/// [`WireError`] if it is anything else.
pub fn real_record(record: &Record<'_>, family: Family) -> Result<Option<RealRecord>, WireError> {
    let destination = inner(record, names::IPVS_CMD_NEW_DEST, names::IPVS_CMD_ATTR_DEST)?;
    let family = match destination.maybe_array(names::IPVS_DEST_ATTR_ADDR_FAMILY)? {
        None => family,
        Some(number) => match family_of(u16::from_ne_bytes(number)) {
            Some(family) => family,
            None => return Ok(None),
        },
    };
    let Some(forward) = forward(&destination)? else { return Ok(None) };
    let port = u16::from_be_bytes(destination.array(names::IPVS_DEST_ATTR_PORT)?);
    let address = address(family, destination.array(names::IPVS_DEST_ATTR_ADDR)?);
    let count = |attribute| Ok(destination.maybe_array(attribute)?.map_or(0, u32::from_ne_bytes));
    Ok(Some(RealRecord {
        id: RealId(SocketAddr::new(address, port)),
        settings: RealSettings {
            forward,
            weight: Weight(destination.u32(names::IPVS_DEST_ATTR_WEIGHT)?),
            upper_threshold: destination.u32(names::IPVS_DEST_ATTR_U_THRESH)?,
            lower_threshold: destination.u32(names::IPVS_DEST_ATTR_L_THRESH)?,
        },
        counters: RealCounters {
            active: count(names::IPVS_DEST_ATTR_ACTIVE_CONNS)?,
            inactive: count(names::IPVS_DEST_ATTR_INACT_CONNS)?,
            persistent: count(names::IPVS_DEST_ATTR_PERSIST_CONNS)?,
            stats: stats(&destination, names::IPVS_DEST_ATTR_STATS64, names::IPVS_DEST_ATTR_STATS)?,
        },
    }))
}

fn top<'a>(record: &Record<'a>, command: u8) -> Result<Attributes<'a>, WireError> {
    if record.command != command {
        return Err(WireError::Value { name: "genlmsghdr.cmd", value: record.command.to_string() });
    }
    Attributes::parse(record.attributes, "genlmsghdr")
}

fn inner<'a>(record: &Record<'a>, command: u8, attribute: Attribute) -> Result<Attributes<'a>, WireError> {
    top(record, command)?.nest(attribute)?.ok_or(WireError::Missing(attribute.name))
}

fn scheduler_flags(bits: u32) -> SchedulerFlags {
    let set = names::IP_VS_SVC_F_SCHED.into_iter().filter(|(bit, _)| bits & bit != 0);
    set.fold(SchedulerFlags::NONE, |flags, (_, flag)| flags.with(flag))
}

fn virtual_id(service: &Attributes<'_>) -> Result<Option<VirtualId>, WireError> {
    let Some(family) = family_of(service.u16(names::IPVS_SVC_ATTR_AF)?) else { return Ok(None) };
    if let Some(mark) = service.maybe_array(names::IPVS_SVC_ATTR_FWMARK)? {
        return Ok(Some(VirtualId::Fwmark { mark: u32::from_ne_bytes(mark), family }));
    }
    let number = service.u16(names::IPVS_SVC_ATTR_PROTOCOL)?;
    let protocols = [Protocol::Tcp, Protocol::Udp];
    let Some(protocol) = protocols.into_iter().find(|p| protocol_number(*p) == number) else {
        return Ok(None);
    };
    let port = u16::from_be_bytes(service.array(names::IPVS_SVC_ATTR_PORT)?);
    let address = address(family, service.array(names::IPVS_SVC_ATTR_ADDR)?);
    Ok(Some(VirtualId::Address { protocol, address: SocketAddr::new(address, port) }))
}

fn family_of(number: u16) -> Option<Family> {
    [Family::V4, Family::V6].into_iter().find(|family| address_family(*family) == number)
}

/// `union nf_inet_addr`: IPv4 is in the first four bytes.
fn address(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = bytes;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        }
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bytes)),
    }
}

fn persistence(service: &Attributes<'_>, family: Family) -> Result<Persistence, WireError> {
    let netmask = service.array::<4>(names::IPVS_SVC_ATTR_NETMASK)?;
    let granularity = match family {
        Family::V4 => Granularity::V4(Ipv4Addr::from(netmask)),
        Family::V6 => {
            let prefix = u32::from_ne_bytes(netmask);
            let invalid =
                || WireError::Value { name: names::IPVS_SVC_ATTR_NETMASK.name, value: prefix.to_string() };
            Granularity::V6(u8::try_from(prefix).map_err(|_| invalid())?)
        }
    };
    Ok(Persistence {
        timeout: service.u32(names::IPVS_SVC_ATTR_TIMEOUT)?,
        granularity,
        engine: service.text(names::IPVS_SVC_ATTR_PE_NAME)?.map(Into::into),
    })
}

/// The tunnel's attributes are missing before 5.3, and say nothing when packets are not tunnelled.
fn forward(destination: &Attributes<'_>) -> Result<Option<Forward>, WireError> {
    let method = destination.u32(names::IPVS_DEST_ATTR_FWD_METHOD)? & names::IP_VS_CONN_F_FWD_MASK;
    Ok(Some(match method {
        names::IP_VS_CONN_F_MASQ => Forward::Masq,
        names::IP_VS_CONN_F_LOCALNODE => Forward::Local,
        names::IP_VS_CONN_F_DROUTE => Forward::Gate,
        names::IP_VS_CONN_F_BYPASS => Forward::Bypass,
        names::IP_VS_CONN_F_TUNNEL => match tunnel(destination)? {
            Some(tunnel) => Forward::Ipip(tunnel),
            None => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

fn tunnel(destination: &Attributes<'_>) -> Result<Option<Tunnel>, WireError> {
    let Some([kind]) = destination.maybe_array(names::IPVS_DEST_ATTR_TUN_TYPE)? else {
        return Ok(Some(Tunnel::Ipip));
    };
    let flags = destination.u16(names::IPVS_DEST_ATTR_TUN_FLAGS)?;
    let checksum = if flags & names::IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM != 0 {
        TunnelChecksum::Remcsum
    } else if flags & names::IP_VS_TUNNEL_ENCAP_FLAG_CSUM != 0 {
        TunnelChecksum::Csum
    } else {
        TunnelChecksum::None
    };
    Ok(match kind {
        names::IP_VS_CONN_F_TUNNEL_TYPE_IPIP => Some(Tunnel::Ipip),
        names::IP_VS_CONN_F_TUNNEL_TYPE_GUE => {
            let port = u16::from_be_bytes(destination.array(names::IPVS_DEST_ATTR_TUN_PORT)?);
            Some(Tunnel::Gue { port, checksum })
        }
        names::IP_VS_CONN_F_TUNNEL_TYPE_GRE => Some(Tunnel::Gre { checksum }),
        _ => None,
    })
}

/// The wide form since 4.1; the narrow one wraps at 2^32 packets. No counters is not an error: the table matters more.
fn stats(record: &Attributes<'_>, wide: Attribute, narrow: Attribute) -> Result<Stats, WireError> {
    let nest = match record.nest(wide)? {
        Some(nest) => Some(nest),
        None => record.nest(narrow)?,
    };
    let Some(nest) = nest else { return Ok(Stats::default()) };
    Ok(Stats {
        connections: nest.counter(names::IPVS_STATS_ATTR_CONNS)?,
        in_packets: nest.counter(names::IPVS_STATS_ATTR_INPKTS)?,
        out_packets: nest.counter(names::IPVS_STATS_ATTR_OUTPKTS)?,
        in_bytes: nest.counter(names::IPVS_STATS_ATTR_INBYTES)?,
        out_bytes: nest.counter(names::IPVS_STATS_ATTR_OUTBYTES)?,
        connection_rate: nest.counter(names::IPVS_STATS_ATTR_CPS)?,
        in_packet_rate: nest.counter(names::IPVS_STATS_ATTR_INPPS)?,
        out_packet_rate: nest.counter(names::IPVS_STATS_ATTR_OUTPPS)?,
        in_byte_rate: nest.counter(names::IPVS_STATS_ATTR_INBPS)?,
        out_byte_rate: nest.counter(names::IPVS_STATS_ATTR_OUTBPS)?,
    })
}
