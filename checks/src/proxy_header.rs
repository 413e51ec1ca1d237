//! The PROXY protocol header, versions 1 and 2, as HAProxy's `proxy-protocol.txt` describes it.
//!
//! Owns its bytes. Refuses to know sockets. Cannot fail: addresses of two families become IPv6, because Postfix
//! answers 421 to the `UNKNOWN` that the text would otherwise ask for.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Versions of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Section 2.2: no line feed or NUL in it, so that no line-based server takes it for a command.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command LOCAL: the sender speaks for itself, as health checks do.
const VERSION_LOCAL: u8 = 0x20;
/// Version 2, command PROXY.
const VERSION_PROXY: u8 = 0x21;
/// `AF_INET`, `SOCK_STREAM`.
const TCP_V4: u8 = 0x11;
/// `AF_INET6`, `SOCK_STREAM`.
const TCP_V6: u8 = 0x21;

/// The header of a connection from `client` to `local`, the address that the client connected to. At most 107
/// bytes, so one segment on every path (section 2.1).
#[must_use]
pub fn encode(version: Version, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    match version {
        Version::V1 => text(client, local),
        Version::V2 => binary(client, local),
    }
}

/// The version 2 header of a connection that carries nobody else's: the server takes its own view of the addresses
/// (section 2.2, `LOCAL`).
#[must_use]
pub fn local() -> Vec<u8> {
    // Family and protocol unspecified, no addresses.
    [&SIGNATURE[..], &[VERSION_LOCAL, 0, 0, 0]].concat()
}

fn text(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (source, destination) = (client.port(), local.port());
    match (client.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            format!("PROXY TCP4 {from} {to} {source} {destination}\r\n")
        }
        (from, to) => format!("PROXY TCP6 {} {} {source} {destination}\r\n", v6(from), v6(to)),
    }
    .into_bytes()
}

fn binary(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut header = Vec::with_capacity(52);
    header.extend(SIGNATURE);
    header.push(VERSION_PROXY);
    match (client.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.push(TCP_V4);
            header.extend(12_u16.to_be_bytes());
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (from, to) => {
            header.push(TCP_V6);
            header.extend(36_u16.to_be_bytes());
            header.extend(v6(from).octets());
            header.extend(v6(to).octets());
        }
    }
    header.extend(client.port().to_be_bytes());
    header.extend(local.port().to_be_bytes());
    header
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_is_a_line_of_text() {
        for (client, local, expected) in [
            ("192.0.2.7:56324", "203.0.113.25:25", "PROXY TCP4 192.0.2.7 203.0.113.25 56324 25\r\n"),
            ("[2001:db8::7]:1", "[2001:db8::25]:65535", "PROXY TCP6 2001:db8::7 2001:db8::25 1 65535\r\n"),
            ("192.0.2.7:1", "[2001:db8::25]:25", "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::25 1 25\r\n"),
        ] {
            let header = encode(Version::V1, address(client), address(local));
            assert_eq!(String::from_utf8(header).unwrap(), expected);
        }
    }

    #[test]
    fn version_2_is_binary() {
        let v4 = encode(Version::V2, address("192.0.2.7:56324"), address("203.0.113.25:25"));
        let mut expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c".to_vec();
        expected.extend([192, 0, 2, 7, 203, 0, 113, 25, 0xdc, 0x04, 0, 25]);
        assert_eq!(v4, expected);

        let v6 = encode(Version::V2, address("[2001:db8::7]:1"), address("[2001:db8::25]:25"));
        assert_eq!(v6.get(12..16), Some(&[0x21, 0x21, 0, 36][..]));
        assert_eq!(v6.get(16..20), Some(&[0x20, 0x01, 0x0d, 0xb8][..]));
        assert_eq!(v6.get(47..), Some(&[0x25, 0, 1, 0, 25][..]));
    }

    #[test]
    fn a_local_header_has_no_addresses() {
        assert_eq!(local(), b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x20\x00\x00\x00");
    }

    proptest! {
        #[test]
        fn a_header_is_as_long_as_it_says(client: SocketAddr, local: SocketAddr) {
            let line = encode(Version::V1, client, local);
            prop_assert!(line.len() <= 107);
            prop_assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
            prop_assert!(line.ends_with(b"\r\n"));
            let binary = encode(Version::V2, client, local);
            let length = u16::from_be_bytes([binary[14], binary[15]]);
            prop_assert_eq!(binary.len(), 16 + usize::from(length));
        }
    }
}
