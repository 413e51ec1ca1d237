//! The kernel's neighbour table in bytes (`linux/rtnetlink.h`, `linux/neighbour.h`).
//!
//! Owns three requests and the reading of their answers. Refuses to know what they are for. Bytes that make no sense are
//! no row, or an error of the whole datagram; numbers are those of the host's order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Mac, Neighbour};

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// `NUD_REACHABLE`, `NUD_STALE`, `NUD_DELAY`, `NUD_PROBE`: somebody answered for it.
const ANSWERED: u16 = 0x02 | 0x04 | 0x08 | 0x10;
/// Asks the kernel to use the entry now, which makes it ask the network.
const NTF_USE: u8 = 1;

const HEADER: usize = 16;
const NDMSG: usize = 12;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The whole table.
    Dump,
    /// Ask the network on this link who has this address.
    Ask(u32, IpAddr),
    /// Forget what was answered.
    Forget(u32, IpAddr),
}

/// What a datagram says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Rows of the table for which somebody answered.
    pub rows: Vec<Neighbour>,
    /// Whether the answer is complete; with the errno of a refusal.
    pub end: Option<Result<(), i32>>,
}

impl Request {
    /// The message.
    #[must_use]
    pub fn encode(&self, sequence: u32) -> Vec<u8> {
        let (kind, flags) = match self {
            Self::Dump => (libc::RTM_GETNEIGH, libc::NLM_F_DUMP),
            Self::Ask(..) => (libc::RTM_NEWNEIGH, libc::NLM_F_ACK | libc::NLM_F_CREATE),
            Self::Forget(..) => (libc::RTM_DELNEIGH, libc::NLM_F_ACK),
        };
        let (link, address) = match self {
            Self::Dump => (0, None),
            Self::Ask(link, address) | Self::Forget(link, address) => (*link, Some(*address)),
        };
        let use_it = if matches!(self, Self::Ask(..)) { NTF_USE } else { 0 };
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        let (family, octets) = match address {
            None => (libc::AF_UNSPEC, Vec::new()),
            Some(IpAddr::V4(v4)) => (libc::AF_INET, v4.octets().to_vec()),
            Some(IpAddr::V6(v6)) => (libc::AF_INET6, v6.octets().to_vec()),
        };
        let mut body = vec![u8::try_from(family).unwrap_or(0), 0, 0, 0];
        body.extend(link.to_ne_bytes());
        body.extend([0, 0, use_it, 0]); // state, flags, type
        if let Ok(length) = u16::try_from(octets.len() + 4)
            && !octets.is_empty()
        {
            body.extend(length.to_ne_bytes());
            body.extend(NDA_DST.to_ne_bytes());
            body.extend(octets);
        }
        let length = u32::try_from(HEADER + body.len()).unwrap_or(0);
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        message
    }
}

/// Reads what a datagram says to request number `sequence`; what answers another one is passed over.
#[must_use]
pub fn decode(datagram: &[u8], sequence: u32) -> Answer {
    let mut answer = Answer::default();
    let mut rest = datagram;
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        let [l0, l1, l2, l3, t0, t1, _, _, s0, s1, s2, s3, ..] = *header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(0);
        let Some(body) = rest.get(HEADER..length) else { break };
        if u32::from_ne_bytes([s0, s1, s2, s3]) == sequence {
            let kind = u16::from_ne_bytes([t0, t1]);
            let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code).saturating_abs());
            match i32::from(kind) {
                libc::NLMSG_DONE => answer.end = Some(Ok(())),
                libc::NLMSG_ERROR => answer.end = Some(if code == 0 { Ok(()) } else { Err(code) }),
                _ if kind == libc::RTM_NEWNEIGH => answer.rows.extend(row(body)),
                _ => {}
            }
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    answer
}

/// Netlink starts every message and attribute on 4 bytes.
fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// A row; `None` where nobody answered for it, or for what is no address of a card.
fn row(body: &[u8]) -> Option<Neighbour> {
    let (ndmsg, mut attributes) = body.split_first_chunk::<NDMSG>()?;
    let [_, _, _, _, i0, i1, i2, i3, s0, s1, _, _] = *ndmsg;
    if u16::from_ne_bytes([s0, s1]) & ANSWERED == 0 {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    while let Some(([l0, l1, t0, t1], _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = attributes.get(4..length)?;
        match u16::from_ne_bytes([*t0, *t1]) {
            NDA_DST => {
                let v4 = <[u8; 4]>::try_from(value).map(|octets| IpAddr::from(Ipv4Addr::from(octets)));
                let v6 = <[u8; 16]>::try_from(value).map(|octets| IpAddr::from(Ipv6Addr::from(octets)));
                address = v4.or(v6).ok();
            }
            NDA_LLADDR => mac = value.try_into().ok().map(Mac),
            _ => {}
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    Some(Neighbour { link: u32::from_ne_bytes([i0, i1, i2, i3]), address: address?, mac: mac? })
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two rows of a Linux 6.1, REACHABLE and FAILED, and the end.
    fn datagram() -> Vec<u8> {
        let row = |last: u8, state: u8| {
            let mut bytes = vec![48, 0, 0, 0, 28, 0, 2, 0, 7, 0, 0, 0, 1, 2, 3, 4];
            bytes.extend([2, 0, 0, 0, 3, 0, 0, 0, state, 0, 0, 1]);
            bytes.extend([8, 0, 1, 0, 10, 99, 0, last]);
            bytes.extend([10, 0, 2, 0, 0xea, 0xbb, 0xe9, 0x08, 0x4e, 0xad, 0, 0]);
            bytes
        };
        let done = vec![20, 0, 0, 0, 3, 0, 2, 0, 7, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0];
        [row(11, 2), row(12, 0x20), done].concat()
    }

    #[test]
    fn only_a_row_that_was_answered_is_one() {
        let mac = Mac([0xea, 0xbb, 0xe9, 0x08, 0x4e, 0xad]);
        let row = Neighbour { link: 3, address: [10, 99, 0, 11].into(), mac };
        assert_eq!(decode(&datagram(), 7), Answer { rows: vec![row], end: Some(Ok(())) });
        assert_eq!(decode(&datagram(), 8), Answer::default(), "the answer to another request");
        let refused = [36, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0xff];
        let refused = [&refused[..], &[0; 16]].concat();
        assert_eq!(decode(&refused, 7).end, Some(Err(1)));
    }

    #[test]
    fn a_request_is_what_ip_neigh_would_send() {
        let ask = Request::Ask(3, [10, 99, 0, 100].into()).encode(7);
        assert_eq!(ask[..16], [36, 0, 0, 0, 28, 0, 5, 4, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ask[16..], [2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 1, 0, 8, 0, 1, 0, 10, 99, 0, 100]);
        assert_eq!(Request::Dump.encode(1).len(), 28);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, 7);
            bytes.splice(0..0, datagram().into_iter().take(76));
            let _ = decode(&bytes, 7);
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0usize..116, to in any::<u8>()) {
            let mut bytes = datagram();
            bytes[at] = to;
            prop_assert!(decode(&bytes, 7).rows.len() <= 2);
        }
    }
}
