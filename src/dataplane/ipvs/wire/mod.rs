//! The generic netlink of IPVS: bytes to model and model to bytes (`linux/ip_vs.h`, `linux/netlink.h`).
//!
//! Owns the frame of a message ([`messages`]), the requests ([`Request`]) and the records of the answers. Refuses
//! to know sockets, clocks and what an errno means. Fails with a [`WireError`] that names the attribute; no
//! input makes it panic.
//!
//! Byte order, the classic mistake here: only ports, IPv4 addresses and an IPv4 netmask are in network order,
//! all else (the flags pair and an IPv6 prefix length among it) is in the order of the host.

mod attributes;
// The recorded bytes are those of a little-endian machine.
#[cfg(test)]
#[cfg(target_endian = "little")]
pub(super) mod golden;
#[cfg(test)]
#[cfg(target_endian = "little")]
mod laws;
mod names;
mod record;
mod request;

pub use record::{Info, RealRecord, Timeouts, VirtualRecord};
pub use record::{family_id, info, real_record, timeouts, virtual_record};
pub use request::Request;

/// Why bytes or a setting cannot be translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside of it.
    #[error("{0} is cut off")]
    Truncated(&'static str),
    /// An attribute that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An attribute of an impossible size.
    #[error("{name} has {size} bytes")]
    Size {
        /// Its kernel name.
        name: &'static str,
        /// The size that it has.
        size: usize,
    },
    /// A value that means nothing.
    #[error("{name} cannot be {value}")]
    Value {
        /// The attribute's kernel name.
        name: &'static str,
        /// The value as a person would write it.
        value: String,
    },
}

/// A positive error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_seq`: the request that it answers.
    pub sequence: u32,
    /// What it says.
    pub body: Body<'a>,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// `NLMSG_ERROR` with 0: the request was carried out.
    Ack,
    /// `NLMSG_ERROR`, or a dump that ends with an error: the request was refused.
    Refused(Errno),
    /// `NLMSG_DONE`: the dump is complete.
    Done,
    /// A generic netlink record; what is in it depends on the request.
    Record(Record<'a>),
    /// A control message without a meaning for us (`NLMSG_NOOP`, `NLMSG_OVERRUN`).
    Noise,
}

/// A generic netlink record whose attributes are not yet read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// `genlmsghdr.cmd`.
    pub command: u8,
    /// All after the header.
    pub attributes: &'a [u8],
}

/// Size of `struct nlmsghdr` and of `struct genlmsghdr`.
const NETLINK_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;

/// Rounds up to the 4 bytes on which netlink starts every message and attribute.
fn aligned(size: usize) -> usize {
    size.saturating_add(3) & !3
}

/// The messages of a datagram in order; ends after the first error.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, WireError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (message, after) = match message(rest) {
            Ok((message, after)) => (Ok(message), after),
            Err(error) => (Err(error), &[][..]),
        };
        rest = after;
        Some(message)
    })
}

fn message(bytes: &[u8]) -> Result<(Message<'_>, &[u8]), WireError> {
    let cut = WireError::Truncated("nlmsghdr");
    // struct nlmsghdr: u32 len, u16 type, u16 flags, u32 seq, u32 pid; all of the host's order.
    let (header, _) = bytes.split_first_chunk::<NETLINK_HEADER>().ok_or_else(|| cut.clone())?;
    let [l0, l1, l2, l3, t0, t1, _, _, s0, s1, s2, s3, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).map_err(|_| cut.clone())?;
    let payload = bytes.get(NETLINK_HEADER..length).ok_or(cut)?;
    let after = bytes.get(aligned(length)..).unwrap_or_default();
    let sequence = u32::from_ne_bytes([s0, s1, s2, s3]);
    Ok((Message { sequence, body: body(u16::from_ne_bytes([t0, t1]), payload)? }, after))
}

fn body(kind: u16, payload: &[u8]) -> Result<Body<'_>, WireError> {
    let code = payload.first_chunk().map(|code| i32::from_ne_bytes(*code));
    match i32::from(kind) {
        libc::NLMSG_ERROR => match code.ok_or(WireError::Truncated("nlmsgerr"))? {
            0 => Ok(Body::Ack),
            code => Ok(Body::Refused(errno(code))),
        },
        libc::NLMSG_DONE => match code {
            None | Some(0) => Ok(Body::Done),
            Some(code) => Ok(Body::Refused(errno(code))),
        },
        // Below the first dynamic type only the controller of generic netlink sends records.
        ..libc::GENL_ID_CTRL => Ok(Body::Noise),
        _ => {
            let (header, attributes) =
                payload.split_first_chunk::<GENERIC_HEADER>().ok_or(WireError::Truncated("genlmsghdr"))?;
            let [command, ..] = *header;
            Ok(Body::Record(Record { command, attributes }))
        }
    }
}

/// The kernel sends them negative.
fn errno(code: i32) -> Errno {
    Errno(code.checked_abs().unwrap_or(i32::MAX))
}
