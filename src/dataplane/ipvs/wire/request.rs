//! Model to bytes: the requests that we make of the kernel.
//!
//! Owns their layout, which is that of `ipvsadm` 1.31 where one has to choose. Fails with a [`WireError`] on a
//! setting that the wire cannot carry or that the kernel would silently take for something else.

use std::net::{IpAddr, SocketAddr};

use super::attributes::Writer;
use super::names::{self, Attribute};
use super::{GENERIC_HEADER, NETLINK_HEADER, Timeouts, WireError};
use crate::model::{
    Family, Forward, Granularity, Op, Protocol, RealId, RealSettings, Tunnel, TunnelChecksum, VirtualId,
    VirtualSettings,
};

/// Something to ask of the kernel.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// `CTRL_CMD_GETFAMILY`: the message type that IPVS has in this boot; loads the module.
    Family,
    /// `IPVS_CMD_GET_INFO`.
    Info,
    /// `IPVS_CMD_GET_CONFIG`.
    Timeouts,
    /// `IPVS_CMD_SET_CONFIG`; 0 leaves a value as it is.
    SetTimeouts(Timeouts),
    /// `IPVS_CMD_GET_SERVICE` as a dump.
    Virtuals,
    /// `IPVS_CMD_GET_DEST`, a dump; empty, not an error, when there is no such virtual.
    Reals(&'a VirtualId),
    /// The `NEW`, `SET` and `DEL` of services and destinations.
    Apply(&'a Op),
}

impl Request<'_> {
    /// The whole datagram. `family` is the message type that [`Request::Family`] was answered with.
    ///
    /// # Errors
    /// [`WireError::Value`] for a name that no module can have, and for a netmask of the other family.
    pub fn encode(&self, family: u16, sequence: u32) -> Result<Vec<u8>, WireError> {
        let mut body = Writer::default();
        let command = self.write(&mut body)?;
        let (kind, version) = match self {
            Self::Family => (CONTROLLER, 1),
            _ => (family, names::IPVS_GENL_VERSION),
        };
        let length = NETLINK_HEADER + GENERIC_HEADER + body.bytes().len();
        let mut datagram = Vec::with_capacity(length);
        // struct nlmsghdr; port 0 is "the sender's", the kernel fills it in.
        datagram.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        datagram.extend_from_slice(&kind.to_ne_bytes());
        datagram.extend_from_slice(&self.flags().to_ne_bytes());
        datagram.extend_from_slice(&sequence.to_ne_bytes());
        datagram.extend_from_slice(&0_u32.to_ne_bytes());
        // struct genlmsghdr; two bytes reserved.
        datagram.extend_from_slice(&[command, version, 0, 0]);
        datagram.extend_from_slice(body.bytes());
        Ok(datagram)
    }

    /// A dump ends with `NLMSG_DONE`; all else is asked to end with an ACK, so that every request has an end.
    fn flags(&self) -> u16 {
        match self {
            Self::Virtuals | Self::Reals(_) => NLM_F_REQUEST | NLM_F_DUMP,
            _ => NLM_F_REQUEST | NLM_F_ACK,
        }
    }

    fn write(&self, body: &mut Writer) -> Result<u8, WireError> {
        Ok(match self {
            Self::Family => {
                body.put(
                    names::CTRL_ATTR_FAMILY_NAME,
                    &text(names::CTRL_ATTR_FAMILY_NAME, names::IPVS_GENL_NAME)?,
                );
                names::CTRL_CMD_GETFAMILY
            }
            Self::Info => names::IPVS_CMD_GET_INFO,
            Self::Timeouts => names::IPVS_CMD_GET_CONFIG,
            Self::SetTimeouts(timeouts) => {
                body.put(names::IPVS_CMD_ATTR_TIMEOUT_TCP, &timeouts.tcp.to_ne_bytes())
                    .put(names::IPVS_CMD_ATTR_TIMEOUT_TCP_FIN, &timeouts.tcp_fin.to_ne_bytes())
                    .put(names::IPVS_CMD_ATTR_TIMEOUT_UDP, &timeouts.udp.to_ne_bytes());
                names::IPVS_CMD_SET_CONFIG
            }
            Self::Virtuals => names::IPVS_CMD_GET_SERVICE,
            Self::Reals(id) => {
                body.nest(names::IPVS_CMD_ATTR_SERVICE, &service_key(id));
                names::IPVS_CMD_GET_DEST
            }
            Self::Apply(op) => write_op(body, op)?,
        })
    }
}

// libc has these as i32; the header's fields are u16.
const CONTROLLER: u16 = 0x10; // GENL_ID_CTRL
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;

fn write_op(body: &mut Writer, op: &Op) -> Result<u8, WireError> {
    Ok(match op {
        Op::AddVirtual(id, settings) => {
            body.nest(names::IPVS_CMD_ATTR_SERVICE, &service(id, settings)?);
            names::IPVS_CMD_NEW_SERVICE
        }
        Op::SetVirtual(id, settings) => {
            body.nest(names::IPVS_CMD_ATTR_SERVICE, &service(id, settings)?);
            names::IPVS_CMD_SET_SERVICE
        }
        Op::DeleteVirtual(id) => {
            body.nest(names::IPVS_CMD_ATTR_SERVICE, &service_key(id));
            names::IPVS_CMD_DEL_SERVICE
        }
        Op::AddReal(id, real, settings) => {
            body.nest(names::IPVS_CMD_ATTR_SERVICE, &service_key(id))
                .nest(names::IPVS_CMD_ATTR_DEST, &destination(*real, settings));
            names::IPVS_CMD_NEW_DEST
        }
        Op::SetReal(id, real, settings) => {
            body.nest(names::IPVS_CMD_ATTR_SERVICE, &service_key(id))
                .nest(names::IPVS_CMD_ATTR_DEST, &destination(*real, settings));
            names::IPVS_CMD_SET_DEST
        }
        Op::DeleteReal(id, real) => {
            body.nest(names::IPVS_CMD_ATTR_SERVICE, &service_key(id))
                .nest(names::IPVS_CMD_ATTR_DEST, &destination_key(*real));
            names::IPVS_CMD_DEL_DEST
        }
    })
}

fn service_key(id: &VirtualId) -> Writer {
    let mut key = Writer::default();
    key.put(names::IPVS_SVC_ATTR_AF, &address_family(id.family()).to_ne_bytes());
    match id {
        VirtualId::Address { protocol, address } => {
            key.put(names::IPVS_SVC_ATTR_PROTOCOL, &protocol_number(*protocol).to_ne_bytes())
                .put(names::IPVS_SVC_ATTR_ADDR, &padded(*address))
                .put(names::IPVS_SVC_ATTR_PORT, &address.port().to_be_bytes());
        }
        VirtualId::Fwmark { mark, .. } => {
            key.put(names::IPVS_SVC_ATTR_FWMARK, &mark.to_ne_bytes());
        }
    }
    key
}

/// All four of scheduler, flags, timeout and netmask must be there, or the kernel says `EINVAL`.
fn service(id: &VirtualId, settings: &VirtualSettings) -> Result<Writer, WireError> {
    let mut service = service_key(id);
    let scheduler = settings.scheduler.name();
    service.put(names::IPVS_SVC_ATTR_SCHED_NAME, &text(names::IPVS_SVC_ATTR_SCHED_NAME, scheduler)?);

    let mut flags = 0;
    for (bit, flag) in names::IP_VS_SVC_F_SCHED {
        if settings.flags.has(flag) {
            flags |= bit;
        }
    }
    if settings.one_packet {
        flags |= names::IP_VS_SVC_F_ONEPACKET;
    }
    let (mut timeout, mut granularity) = (0, Granularity::host(id.family()));
    if let Some(persistence) = &settings.persistence {
        flags |= names::IP_VS_SVC_F_PERSISTENT;
        (timeout, granularity) = (persistence.timeout, persistence.granularity);
        if let Some(engine) = &persistence.engine {
            service.put(names::IPVS_SVC_ATTR_PE_NAME, &text(names::IPVS_SVC_ATTR_PE_NAME, engine)?);
        }
    }
    // struct ip_vs_flags { flags, mask }: a full mask sets every flag to what we say.
    let [f0, f1, f2, f3] = flags.to_ne_bytes();
    service
        .put(names::IPVS_SVC_ATTR_FLAGS, &[f0, f1, f2, f3, 0xff, 0xff, 0xff, 0xff])
        .put(names::IPVS_SVC_ATTR_TIMEOUT, &timeout.to_ne_bytes())
        .put(names::IPVS_SVC_ATTR_NETMASK, &netmask(id.family(), granularity)?);
    Ok(service)
}

/// The kernel would read a prefix length of 64 on an IPv4 virtual as the mask 64.0.0.0 and not complain.
fn netmask(family: Family, granularity: Granularity) -> Result<[u8; 4], WireError> {
    match (family, granularity) {
        (Family::V4, Granularity::V4(mask)) => Ok(mask.octets()),
        (Family::V6, Granularity::V6(prefix)) => Ok(u32::from(prefix).to_ne_bytes()),
        (Family::V4, Granularity::V6(prefix)) => Err(WireError::Value {
            name: names::IPVS_SVC_ATTR_NETMASK.name,
            value: format!("/{prefix} on IPv4"),
        }),
        (Family::V6, Granularity::V4(mask)) => Err(WireError::Value {
            name: names::IPVS_SVC_ATTR_NETMASK.name,
            value: format!("{mask} on IPv6"),
        }),
    }
}

/// The family must be sent: without it the kernel takes that of the virtual, and an IPv6 address becomes an IPv4 one.
fn destination_key(real: RealId) -> Writer {
    let mut key = Writer::default();
    key.put(names::IPVS_DEST_ATTR_ADDR_FAMILY, &address_family(Family::of(real.0.ip())).to_ne_bytes())
        .put(names::IPVS_DEST_ATTR_ADDR, &padded(real.0))
        .put(names::IPVS_DEST_ATTR_PORT, &real.0.port().to_be_bytes());
    key
}

/// Always in full: what is left out of a `SET_DEST` goes back to 0.
fn destination(real: RealId, settings: &RealSettings) -> Writer {
    let ipip = (names::IP_VS_CONN_F_TUNNEL_TYPE_IPIP, 0, TunnelChecksum::None);
    let (method, (tunnel, port, checksum)) = match settings.forward {
        Forward::Masq => (names::IP_VS_CONN_F_MASQ, ipip),
        Forward::Local => (names::IP_VS_CONN_F_LOCALNODE, ipip),
        Forward::Gate => (names::IP_VS_CONN_F_DROUTE, ipip),
        Forward::Bypass => (names::IP_VS_CONN_F_BYPASS, ipip),
        Forward::Ipip(Tunnel::Ipip) => (names::IP_VS_CONN_F_TUNNEL, ipip),
        Forward::Ipip(Tunnel::Gue { port, checksum }) => {
            (names::IP_VS_CONN_F_TUNNEL, (names::IP_VS_CONN_F_TUNNEL_TYPE_GUE, port, checksum))
        }
        Forward::Ipip(Tunnel::Gre { checksum }) => {
            (names::IP_VS_CONN_F_TUNNEL, (names::IP_VS_CONN_F_TUNNEL_TYPE_GRE, 0, checksum))
        }
    };
    let checksum = match checksum {
        TunnelChecksum::None => names::IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM,
        TunnelChecksum::Csum => names::IP_VS_TUNNEL_ENCAP_FLAG_CSUM,
        TunnelChecksum::Remcsum => names::IP_VS_TUNNEL_ENCAP_FLAG_REMCSUM,
    };
    let mut destination = destination_key(real);
    destination
        .put(names::IPVS_DEST_ATTR_FWD_METHOD, &method.to_ne_bytes())
        .put(names::IPVS_DEST_ATTR_WEIGHT, &settings.weight.0.to_ne_bytes())
        .put(names::IPVS_DEST_ATTR_TUN_TYPE, &[tunnel])
        .put(names::IPVS_DEST_ATTR_TUN_PORT, &port.to_be_bytes())
        .put(names::IPVS_DEST_ATTR_TUN_FLAGS, &checksum.to_ne_bytes())
        .put(names::IPVS_DEST_ATTR_U_THRESH, &settings.upper_threshold.to_ne_bytes())
        .put(names::IPVS_DEST_ATTR_L_THRESH, &settings.lower_threshold.to_ne_bytes());
    destination
}

/// A name with the NUL that the kernel insists on.
fn text(attribute: Attribute, name: &str) -> Result<Vec<u8>, WireError> {
    if name.is_empty() || name.len() >= names::IP_VS_NAME_MAXLEN || name.contains('\0') {
        let value = format!("\"{}\"", name.escape_default());
        return Err(WireError::Value { name: attribute.name, value });
    }
    Ok([name.as_bytes(), &[0]].concat())
}

/// `union nf_inet_addr`: 16 bytes, of which IPv4 fills the first four.
fn padded(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `AF_INET` and `AF_INET6`, the same on every Linux.
pub(super) const fn address_family(family: Family) -> u16 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

pub(super) const fn protocol_number(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}
