//! The PROXY protocol header that a director says before a client's first byte, versions 1 and 2 (HAProxy's
//! `proxy-protocol.txt`).
//!
//! Owns how long it is and which client it names. Refuses to know sockets. Fails at whatever is no such header: a server
//! that waits for one takes nothing else (section 2: never guess).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Section 2.2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Section 2.1: the longest line, with its end.
const MAX_LINE: usize = 107;
/// Bytes behind the first 16 of version 2: addresses, and more than any director adds.
const MAX_REST: usize = 1024;

/// It is no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header")]
pub struct NoHeader;

/// How many bytes are to be read behind these at least; 0: the header is complete. Never asks for a byte behind it.
///
/// # Errors
/// [`NoHeader`].
pub fn wanted(header: &[u8]) -> Result<usize, NoHeader> {
    if let Some(rest) = header.strip_prefix(SIGNATURE) {
        let [_, _, high, low, addresses @ ..] = rest else { return Ok(4 - rest.len()) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length > MAX_REST {
            return Err(NoHeader);
        }
        return length.checked_sub(addresses.len()).ok_or(NoHeader);
    }
    let begun = |whole: &[u8]| whole.iter().zip(header).all(|(wanted, byte)| wanted == byte);
    match header {
        _ if header.len() < 12 && (begun(SIGNATURE) || begun(b"PROXY ")) => Ok(12 - header.len()),
        [b'P', b'R', b'O', b'X', b'Y', b' ', .., b'\r', b'\n'] => Ok(0),
        [b'P', b'R', b'O', b'X', b'Y', b' ', rest @ ..] => {
            let over = rest.contains(&b'\n') || header.len() >= MAX_LINE;
            if over { Err(NoHeader) } else { Ok(1) }
        }
        _ => Err(NoHeader),
    }
}

/// The client that a complete header names; `None`: the director speaks for itself, or does not say.
///
/// # Errors
/// [`NoHeader`].
pub fn client(header: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    match header.strip_prefix(SIGNATURE) {
        Some(rest) => binary(rest),
        None => text(header),
    }
}

fn binary(rest: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    let (&[version, family, _, _], addresses) = rest.split_first_chunk().ok_or(NoHeader)?;
    match version {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(NoHeader),
    }
    let port = |at: usize| {
        let bytes = addresses.get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    match family {
        0x11 => {
            let (from, _) = addresses.split_first_chunk::<4>().ok_or(NoHeader)?;
            Ok(Some(SocketAddr::new(Ipv4Addr::from(*from).into(), port(8).ok_or(NoHeader)?)))
        }
        0x21 => {
            let (from, _) = addresses.split_first_chunk::<16>().ok_or(NoHeader)?;
            Ok(Some(SocketAddr::new(Ipv6Addr::from(*from).into(), port(32).ok_or(NoHeader)?)))
        }
        _ => Ok(None),
    }
}

fn text(header: &[u8]) -> Result<Option<SocketAddr>, NoHeader> {
    let line =
        header.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or(NoHeader)?;
    let words: Vec<&str> = line.split(' ').collect();
    let (v4, from, to, ports) = match *words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", "TCP4", from, to, source, target] => (true, from, to, [source, target]),
        ["PROXY", "TCP6", from, to, source, target] => (false, from, to, [source, target]),
        _ => return Err(NoHeader),
    };
    let address = |text: &str| text.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == v4).ok_or(NoHeader);
    let [source, target] = ports.map(|port| port.parse::<u16>().map_err(|_| NoHeader));
    address(to)?;
    target?;
    Ok(Some(SocketAddr::new(address(from)?, source?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use checks::proxy_header::{Version, encode, local};
    use proptest::prelude::*;

    /// Reads as a socket would: what is asked for and no more.
    fn read(bytes: &[u8]) -> Result<(Option<SocketAddr>, usize), NoHeader> {
        let mut held = 0;
        loop {
            match wanted(&bytes[..held])? {
                0 => return client(&bytes[..held]).map(|client| (client, held)),
                more if held + more > bytes.len() => return Err(NoHeader),
                more => held += more,
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for bytes in [
            &b"EHLO a\r\n\0\0\0\0\0"[..],
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 ::1 ::1 1 1\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            b"PROXY TCP4 1.2.3.4\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04abcd",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            &[b"PROXY UNKNOWN ", &b"x".repeat(200)[..], b"\r\n"].concat(),
        ] {
            assert_eq!(read(bytes), Err(NoHeader), "{}", bytes.escape_ascii());
        }
        assert_eq!(read(b"PROXY UNKNOWN\r\nEHLO"), Ok((None, 15)));
        assert_eq!(read(&local()), Ok((None, 16)));
    }

    proptest! {
        #[test]
        fn what_the_director_says_is_understood_to_the_byte(from: SocketAddr, to: SocketAddr, next: [u8; 4]) {
            prop_assume!(from.is_ipv4() == to.is_ipv4());
            for version in [Version::V1, Version::V2] {
                let header = encode(version, from, to);
                let (client, used) = read(&[&header[..], &next].concat()).unwrap();
                prop_assert_eq!(client, Some(SocketAddr::new(from.ip(), from.port())));
                prop_assert_eq!(used, header.len());
            }
        }
    }
}
