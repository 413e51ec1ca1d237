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
