//! Hosts and ports as `ldirectord.cf` writes them.
//!
//! Owns their syntax, and which address of a name is taken. Refuses to know who asks; names are asked of [`Names`].
//! Fails with what is wrong, for people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Names;
use crate::config::diagnostic::printable;
use crate::config::native::is_host_name;
use crate::model::{Family, Protocol};

/// An address, and how it was come by where it was a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) ip: IpAddr,
    /// What the text does not show.
    pub(super) note: Option<String>,
}

/// `192.0.2.25`, `[2001:db8::25]`, or a name that has an address of that family.
pub(super) fn host(text: &str, family: Family, names: &dyn Names) -> Result<Host, String> {
    let shown = printable(text);
    if let Some(inner) = text.strip_prefix('[') {
        let ip = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return match (ip, family) {
            (None, _) => Err(format!("\"{shown}\" is not an IPv6 address in brackets")),
            (Some(_), Family::V4) => {
                Err(format!("\"{shown}\" is IPv6; that is for virtual6, real6 and fallback6"))
            }
            (Some(ip), Family::V6) => Ok(Host { ip: IpAddr::V6(ip), note: None }),
        };
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return match family {
            Family::V4 => Ok(Host { ip: IpAddr::V4(ip), note: None }),
            Family::V6 => Err(format!("\"{shown}\" is IPv4; that is for virtual, real and fallback")),
        };
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!(
            "\"{shown}\" is not an IPv4 address of four numbers; a resolver would make some other of it"
        ));
    }
    if !is_host_name(text) {
        return Err(format!("\"{shown}\" is no address and no host name"));
    }
    let of_family = |ip: &IpAddr| Family::of(*ip) == family;
    let mut found: Vec<IpAddr> = names.host(text, family).into_iter().filter(of_family).collect();
    found.sort_unstable();
    found.dedup();
    let word = if family == Family::V4 { "IPv4" } else { "IPv6" };
    match found.as_slice() {
        [] => Err(format!("\"{shown}\" has no {word} address, or nobody can say which")),
        [ip] => Ok(Host { ip: *ip, note: Some(format!("{shown} is {ip}")) }),
        // Of many, one that does not depend on the order of an answer: a reload must not move a server.
        [ip, ..] => {
            let count = found.len();
            Ok(Host {
                ip: *ip,
                note: Some(format!("{shown} has {count} addresses; the lowest, {ip}, is taken")),
            })
        }
    }
}

/// A number from 0, or the name of a service.
pub(super) fn port(text: &str, protocol: Option<Protocol>, names: &dyn Names) -> Result<u16, String> {
    let shown = printable(text);
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| format!("\"{shown}\" is no port; a number up to 65535"));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match text.chars().all(good).then(|| names.port(text, protocol)).flatten() {
        Some(port) => Ok(port),
        None => Err(format!("\"{shown}\" is no port, and no service that /etc/services names")),
    }
}

/// A server and its port, apart: `host:port`, `[v6]:port`, or without a port.
pub(super) fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    let shown = printable(text);
    if text.starts_with('[') {
        let end = text.find(']').ok_or_else(|| format!("\"{shown}\": the bracket is not closed"))? + 1;
        let (host, rest) = text.split_at(end);
        return match rest.strip_prefix(':') {
            Some(port) if !port.is_empty() => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            _ => Err(format!("\"{shown}\": after the bracket a port, as in \"[2001:db8::1]:25\"")),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((host, port)) if !host.is_empty() && !port.is_empty() && !port.contains(':') => {
            Ok((host, Some(port)))
        }
        Some(_) => Err(format!(
            "\"{shown}\" has colons that separate no port; ldirectord programs something else of it. One colon between \
             address and port, and IPv6 in brackets"
        )),
    }
}

/// A server as the native file writes it.
pub(super) fn written(ip: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => std::net::SocketAddr::new(ip, port).to_string(),
        None => ip.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A resolver that knows a farm of twenty, a host of each family, and one service.
    struct Few;

    impl Names for Few {
        fn host(&self, name: &str, _: Family) -> Vec<IpAddr> {
            match name {
                "farm" => (1..=20).rev().map(|last| IpAddr::from([192, 0, 2, last])).collect(),
                "both" => vec![IpAddr::from([192, 0, 2, 9]), "2001:db8::9".parse().unwrap()],
                _ => Vec::new(),
            }
        }

        fn port(&self, name: &str, protocol: Option<Protocol>) -> Option<u16> {
            (name == "smtp" && protocol != Some(Protocol::Udp)).then_some(25)
        }
    }

    #[test]
    fn of_twenty_addresses_the_lowest_is_taken_and_that_is_said() {
        let found = host("farm", Family::V4, &Few).unwrap();
        assert_eq!(found.ip, IpAddr::from([192, 0, 2, 1]));
        assert_eq!(found.note.unwrap(), "farm has 20 addresses; the lowest, 192.0.2.1, is taken");
        assert_eq!(
            host("farm", Family::V6, &Few).unwrap_err(),
            "\"farm\" has no IPv6 address, or nobody can say which"
        );
        assert_eq!(host("both", Family::V6, &Few).unwrap().ip, "2001:db8::9".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn an_address_is_of_the_family_of_its_directive() {
        for (text, family, said) in [
            ("192.0.2.1", Family::V6, "is IPv4; that is for virtual"),
            ("[2001:db8::1]", Family::V4, "is IPv6; that is for virtual6"),
            ("[2001:db8::1", Family::V6, "is not an IPv6 address in brackets"),
            ("[192.0.2.1]", Family::V6, "is not an IPv6 address in brackets"),
            ("192.0.2", Family::V4, "is not an IPv4 address of four numbers"),
            ("300.1.1.1", Family::V4, "is not an IPv4 address of four numbers"),
            ("", Family::V4, "is not an IPv4 address of four numbers"),
            ("web_1", Family::V4, "is no address and no host name"),
            ("nobody", Family::V4, "has no IPv4 address"),
        ] {
            let why = host(text, family, &Few).unwrap_err();
            assert!(why.contains(said), "{text}: {why}");
        }
    }

    #[test]
    fn a_port_is_a_number_or_a_service() {
        for (text, found) in [("25", 25), ("0", 0), ("smtp", 25), ("0080", 80)] {
            assert_eq!(port(text, None, &Few), Ok(found), "{text}");
        }
        for text in ["", "65536", "25x", "-1", "no", "sm tp"] {
            assert!(port(text, None, &Few).is_err(), "{text}");
        }
        assert!(port("smtp", Some(Protocol::Udp), &Few).is_err());
    }

    #[test]
    fn one_colon_stands_between_host_and_port() {
        for (text, parts) in [
            ("192.0.2.1:25", ("192.0.2.1", Some("25"))),
            ("mx.example.com", ("mx.example.com", None)),
            ("[2001:db8::1]:smtp", ("[2001:db8::1]", Some("smtp"))),
            ("[2001:db8::1]", ("[2001:db8::1]", None)),
        ] {
            assert_eq!(split_port(text), Ok(parts));
        }
        for text in ["192.0.2.1::25", "2001:db8::1", ":25", "a:", "[::1", "[::1]25", "[::1]:"] {
            assert!(split_port(text).is_err(), "{text}");
        }
    }
}
