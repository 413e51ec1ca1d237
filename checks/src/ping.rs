//! EDGE: an ICMP echo request and its reply (RFC 792, RFC 4443 section 4).
//!
//! Owns the socket, which needs no set-user-id helper: an ICMP datagram socket where `net.ipv4.ping_group_range` permits
//! one, a raw socket where not (CAP_NET_RAW). Refuses to know ports. Fails at the stage `echo`; without either socket
//! that is a failure of the director. A lost datagram is no answer yet: the request is sent again each second.
#![expect(clippy::disallowed_methods, reason = "EDGE: measures the echo")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::run::{after, system};
use crate::{CheckSpec, Failure, Outcome, Reason, Stage, StageReport};

/// Between two requests.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes before the payload.
const HEADER: usize = 8;
/// Random bytes that only the answer to our own request has.
const PAYLOAD: usize = 16;
const DENIED: &str = "ICMP is not permitted: sysctl net.ipv4.ping_group_range must include a group of this process, or it \
    needs CAP_NET_RAW";

/// What is sent, but for the sequence number.
struct Echo {
    version: Version,
    identifier: [u8; 2],
    payload: [u8; PAYLOAD],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V4,
    V6,
}

/// Asks with bytes that nobody can guess until an answer comes, at the latest until `deadline` or for as long as a connection may take.
pub(crate) async fn ask(
    spec: &CheckSpec,
    (random, deadline): ([u8; PAYLOAD + 2], Instant),
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let start = Instant::now();
    let failed = |(reason, text)| Failure { stage: Stage::Echo, reason, code: None, text };
    let limit = after(start, spec.connect_timeout).min(deadline);
    let socket = open(spec.target.ip()).map_err(failed)?;
    let [a, b, payload @ ..] = random;
    let version = if spec.target.is_ipv4() { Version::V4 } else { Version::V6 };
    let echo = Echo { version, identifier: [a, b], payload };
    match timeout_at(limit, exchange(&socket, &echo)).await {
        Ok(answered) => answered.map_err(|error| failed(system(&error)))?,
        Err(_) => return Err(failed((Reason::Timeout, String::new()))),
    }
    outcome.stages.push(StageReport {
        stage: Stage::Echo,
        took: start.elapsed(),
        code: None,
        sent: String::new(),
        received: Vec::new(),
    });
    Ok(())
}

async fn exchange(socket: &UdpSocket, echo: &Echo) -> io::Result<()> {
    let mut sequence: u16 = 0;
    let mut buffer = [0; 512];
    loop {
        sequence = sequence.wrapping_add(1);
        socket.send(&echo.request(sequence)).await?;
        let next = Instant::now() + PAUSE;
        loop {
            let Ok(length) = timeout_at(next, socket.recv(&mut buffer)).await else { break };
            if echo.is_answer(buffer.get(..length?).unwrap_or_default()) {
                return Ok(());
            }
        }
    }
}

/// A socket on which only this address is heard.
fn open(address: IpAddr) -> Result<UdpSocket, (Reason, String)> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let opened = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Err(error) if denied(&error) => Socket::new(domain, Type::RAW, Some(protocol)),
        opened => opened,
    };
    let socket = opened
        .map_err(|error| if denied(&error) { (Reason::Local, DENIED.to_owned()) } else { system(&error) })?;
    let connected = socket
        .set_nonblocking(true)
        .and_then(|()| socket.connect(&SocketAddr::new(address, 0).into()))
        .and_then(|()| UdpSocket::from_std(socket.into()));
    connected.map_err(|error| system(&error))
}

impl Echo {
    fn request(&self, sequence: u16) -> Vec<u8> {
        let kind = match self.version {
            Version::V4 => 8,
            Version::V6 => 128,
        };
        let [id0, id1] = self.identifier;
        let [sequence0, sequence1] = sequence.to_be_bytes();
        let mut bytes = vec![kind, 0, 0, 0, id0, id1, sequence0, sequence1];
        bytes.extend_from_slice(&self.payload);
        // For IPv6 the kernel does it, which knows the addresses that it covers.
        if self.version == Version::V4 {
            let sum = checksum(&bytes).to_be_bytes();
            if let Some(place) = bytes.get_mut(2..4) {
                place.copy_from_slice(&sum);
            }
        }
        bytes
    }

    /// Whether these bytes answer one of our requests, a late one too. The random payload tells: a datagram socket has
    /// an identifier of the kernel's, and a raw socket hears the answers to everybody.
    fn is_answer(&self, bytes: &[u8]) -> bool {
        // A raw IPv4 socket gives the IP header, whose length is in its first byte.
        let message = match bytes.first() {
            Some(first) if self.version == Version::V4 && first >> 4 == 4 => {
                bytes.get(usize::from(first & 15) * 4..).unwrap_or_default()
            }
            _ => bytes,
        };
        let kind = match self.version {
            Version::V4 => 0,
            Version::V6 => 129,
        };
        message.first() == Some(&kind) && message.get(HEADER..) == Some(&self.payload)
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 =
        bytes.chunks(2).map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))).sum();
    // At most 12 words: one carry, and perhaps the carry of that.
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_our_own_request_is_one() {
        let echo = Echo { version: Version::V4, identifier: [1, 2], payload: [7; PAYLOAD] };
        let request = echo.request(258);
        assert_eq!((&request[..2], &request[4..8]), (&[8, 0][..], &[1, 2, 1, 2][..]));
        assert_eq!(checksum(&request), 0, "a checksum makes the sum of all zero");
        assert!(!echo.is_answer(&request));
        let mut reply = request.clone();
        reply[0] = 0;
        assert!(echo.is_answer(&reply));
        let with_header = [&[0x45][..], &[0; 19], &reply].concat();
        assert!(echo.is_answer(&with_header));
        for odd in [&reply[..20], &with_header[..30], &[0x4f], &[]] {
            assert!(!echo.is_answer(odd));
        }
        reply[20] ^= 1;
        assert!(!echo.is_answer(&reply));
        let v6 = Echo { version: Version::V6, ..echo };
        assert_eq!(v6.request(1)[..4], [128, 0, 0, 0]);
        assert!(v6.is_answer(&[&[129][..], &v6.request(1)[1..]].concat()));
    }
}
