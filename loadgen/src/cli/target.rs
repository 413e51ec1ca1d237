//! EDGE: from a URL to addresses.
//!
//! Owns the syntax of targets, the look-up of names, and the question whether a target may be pressed on. Refuses to know
//! what is said there. Fails with a text that names the URL.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr as _;

use rustls::pki_types::ServerName;

use crate::http::{Request, Version};
use crate::job::{Secure, Speech, Target, is_harmless_address};

/// What a list of URLs is read with.
pub(super) struct Reading<'a> {
    /// The scheme of what has none.
    pub(super) scheme: &'a str,
    pub(super) agent: &'a str,
    pub(super) headers: &'a [String],
    pub(super) version: Version,
    /// Hosts that may be pressed on wherever they are.
    pub(super) owned: &'a [String],
    /// The name for TLS, where it is not the host's.
    pub(super) tls_name: Option<&'a str>,
}

struct Parts {
    scheme: String,
    host: String,
    port: u16,
    path: String,
    authority: String,
}

fn split(text: &str, default: &str) -> Result<Parts, String> {
    let wrong = |why: &str| format!("\"{}\" is no target: {why}", text.escape_debug());
    let (scheme, rest) = text.split_once("://").unwrap_or((default, text));
    let scheme = scheme.to_ascii_lowercase();
    let port = match scheme.as_str() {
        "smtp" => 25,
        "smtps" => 465,
        "lmtp" => 24,
        "http" => 80,
        "https" => 443,
        _ => return Err(wrong("the scheme is none of smtp, smtps, lmtp, http, https")),
    };
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let path = path.split('#').next().unwrap_or_default();
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if authority.contains('@') {
        return Err(wrong("a user does not belong there"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| wrong("there is no ]"))?;
            (host, rest.strip_prefix(':').map_or(Ok(port), str::parse))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, port.parse()),
            _ => (authority, Ok(port)),
        },
    };
    let port = port.map_err(|_| wrong("the port is none"))?;
    if host.is_empty() {
        return Err(wrong("there is no host"));
    }
    Ok(Parts { scheme, host: host.to_owned(), port, path, authority: authority.to_owned() })
}

impl Reading<'_> {
    /// Reads one target. The origin is set later.
    pub(super) fn read(&self, text: &str) -> Result<Target, String> {
        let Parts { scheme, host, port, path, authority } = split(text, self.scheme)?;
        let addresses: Vec<SocketAddr> = match IpAddr::from_str(&host) {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => (host.as_str(), port)
                .to_socket_addrs()
                .map_err(|error| format!("\"{host}\" has no address: {error}"))?
                .collect(),
        };
        if addresses.is_empty() {
            return Err(format!("\"{host}\" has no address"));
        }
        if let Some(address) = addresses.iter().find(|address| !is_harmless_address(address.ip()))
            && !self.owned.contains(&host)
        {
            return Err(format!(
                "{text} is at {}, which is neither loopback nor private; if it is yours to press on, say --i-own {host}",
                address.ip()
            ));
        }
        let name = self.tls_name.unwrap_or(&host).to_owned();
        let name =
            ServerName::try_from(name.clone()).map_err(|_| format!("\"{name}\" is no name for TLS"))?;
        let speech = if scheme.starts_with("http") {
            let request = Request::get((&authority, &path), self.agent, self.headers, self.version)?;
            Speech::Http(request)
        } else {
            Speech::Smtp
        };
        let security = if matches!(scheme.as_str(), "smtps" | "https") { Secure::Yes } else { Secure::No };
        Ok(Target {
            label: format!("{scheme}://{authority}{}", if path == "/" { "" } else { &path }),
            addresses,
            name,
            security,
            speech,
            origin: 0,
        })
    }
}

/// Gives targets that may share connections the same number, and each its own place.
pub(super) fn number(targets: &mut [Target]) {
    let mut known: Vec<(Vec<SocketAddr>, Secure, ServerName<'static>, bool)> = Vec::new();
    for (index, target) in targets.iter_mut().enumerate() {
        let smtp = target.speech == Speech::Smtp;
        let key = (target.addresses.clone(), target.security, target.name.clone(), smtp);
        target.origin = known.iter().position(|k| *k == key).unwrap_or_else(|| {
            known.push(key);
            known.len() - 1
        });
        if let Speech::Http(request) = &mut target.speech {
            request.index = index;
        }
    }
}

/// Addresses from `10.0.0.1,10.0.0.5-10.0.0.9,10.1.0.0/24`, at most 65536.
pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    const MOST: u128 = 65_536;
    let mut all = Vec::new();
    for part in text.split([',', ' ', '\n']).map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = || format!("\"{part}\" is no address, range A-B or network A/N");
        let parse = |text: &str| IpAddr::from_str(text.trim()).map_err(|_| wrong());
        let (first, last) = if let Some((first, last)) = part.split_once('-') {
            (parse(first)?, parse(last)?)
        } else if let Some((base, bits)) = part.split_once('/') {
            let base = parse(base)?;
            let width: u32 = if base.is_ipv4() { 32 } else { 128 };
            let bits: u32 = bits.parse().ok().filter(|bits| *bits <= width).ok_or_else(wrong)?;
            let host = 1_u128.checked_shl(width - bits).unwrap_or(0).wrapping_sub(1);
            let start = value(base) & !host;
            (from_value(start, base), from_value(start | host, base))
        } else {
            (parse(part)?, parse(part)?)
        };
        let (from, to) = (value(first), value(last));
        if first.is_ipv4() != last.is_ipv4() || from > to {
            return Err(wrong());
        }
        if to - from >= MOST {
            return Err(format!("\"{part}\" has more than {MOST} addresses"));
        }
        all.extend((from..=to).map(|value| from_value(value, first)));
    }
    Ok(all)
}

fn value(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u32::from(v4).into(),
        IpAddr::V6(v6) => v6.into(),
    }
}

fn from_value(value: u128, like: IpAddr) -> IpAddr {
    match (like, u32::try_from(value)) {
        (IpAddr::V4(_), Ok(value)) => IpAddr::V4(value.into()),
        _ => IpAddr::V6(value.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, owned: &[String]) -> Result<Target, String> {
        let reading = Reading {
            scheme: "smtp",
            agent: "x",
            headers: &[],
            version: Version::Keep,
            owned,
            tls_name: None,
        };
        reading.read(text)
    }

    #[test]
    fn targets_are_read_and_strangers_refused() {
        for (text, address) in [
            ("smtp://127.0.0.1:2525", "127.0.0.1:2525"),
            ("127.0.0.1", "127.0.0.1:25"),
            ("smtps://[::1]", "[::1]:465"),
            ("lmtp://10.0.0.1:24", "10.0.0.1:24"),
            ("http://127.0.0.1:8088/a?b#c", "127.0.0.1:8088"),
            ("https://[fd00::1]:8443", "[fd00::1]:8443"),
        ] {
            assert_eq!(read(text, &[]).unwrap().addresses, [address.parse().unwrap()], "{text}");
        }
        let Speech::Http(request) = read("http://127.0.0.1:8088/a?b#c", &[]).unwrap().speech else {
            panic!()
        };
        assert!(request.bytes.starts_with(b"GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:8088\r\n"));
        for text in [
            "ftp://127.0.0.1",
            "smtp://",
            "smtp://127.0.0.1:x",
            "smtp://a@127.0.0.1",
            "smtp://[::1",
            "8.8.8.8",
        ] {
            assert!(read(text, &[]).is_err(), "{text}");
        }
        assert!(read("8.8.8.8", &["8.8.8.8".to_owned()]).is_ok());
    }

    #[test]
    fn addresses_come_one_by_one_by_range_or_by_network() {
        let all = addresses("10.0.0.1, 10.0.0.254-10.0.1.1,10.2.0.0/30,::1").unwrap();
        let all: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            all,
            [
                "10.0.0.1",
                "10.0.0.254",
                "10.0.0.255",
                "10.0.1.0",
                "10.0.1.1",
                "10.2.0.0",
                "10.2.0.1",
                "10.2.0.2",
                "10.2.0.3",
                "::1"
            ]
        );
        for text in ["x", "10.0.0.2-10.0.0.1", "10.0.0.1-::1", "10.0.0.0/33", "10.0.0.0/8", "::/0"] {
            assert!(addresses(text).is_err(), "{text}");
        }
    }
}
