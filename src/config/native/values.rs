//! Readers of single values: strict, and each refusal names the value and what would be right.
//!
//! Owns the syntax of numbers, words, times, names and addresses. Refuses to know keys and rules between them.
//! Nothing is coerced: `"5"` is no number, `true` is no 1. Only the environment, which has nothing but strings, may
//! say `"true"`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use config::ValueKind;

use super::fields::Raw;
use super::vocabulary::nearest;
use crate::config::diagnostic::Place;

/// A whole number within `range`.
pub(super) fn whole(raw: &Raw<'_>, range: RangeInclusive<u32>) -> Result<u32, String> {
    let want = format!("a whole number from {} to {}", range.start(), range.end());
    let ValueKind::I128(number) = raw.kind else { return Err(raw.is_not(&want)) };
    match u32::try_from(*number) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("{} is out of range; {want}", raw.shown())),
    }
}

/// A port, not 0.
pub(super) fn port(raw: &Raw<'_>) -> Result<u16, String> {
    whole(raw, 1..=65_535).and_then(|port| u16::try_from(port).map_err(|error| error.to_string()))
}

/// `true` or `false`.
pub(super) fn boolean(raw: &Raw<'_>) -> Result<bool, String> {
    match raw.kind {
        ValueKind::Boolean(value) => Ok(*value),
        ValueKind::String(text) if matches!(raw.place, Place::Environment(_)) => {
            text.parse().map_err(|_| format!("{} is unknown; true or false", raw.shown()))
        }
        ValueKind::String(_) => Err(raw.is_not("true or false, without quotes")),
        _ => Err(raw.is_not("true or false")),
    }
}

/// One of a few words.
pub(super) fn word<T: Clone>(raw: &Raw<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let want = choice(&names);
    let ValueKind::String(text) = raw.kind else { return Err(raw.is_not(&want)) };
    if let Some((_, value)) = words.iter().find(|(name, _)| name == text) {
        return Ok(value.clone());
    }
    let meant = nearest(text, &names).map(|meant| format!("; did you mean \"{meant}\"?"));
    Err(format!("{} is unknown; {want}{}", raw.shown(), meant.unwrap_or_default()))
}

/// `"a", "b" or "c"`.
pub(super) fn choice(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// A time with its unit, such as `10s` or `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    // `humantime` panics where a sum comes to exactly 2^64 s. Nine digits and the largest unit stay far below.
    const MOST_DIGITS: usize = 9;
    let digits = text.chars().filter(char::is_ascii_digit).count();
    (digits <= MOST_DIGITS).then(|| humantime::parse_duration(text).ok()).flatten()
}

/// A name that EHLO can carry: a host name, or an address literal (RFC 5321 section 4.1.3).
pub(crate) fn is_ehlo_name(text: &str) -> bool {
    is_host_name(text) || is_address_literal(text)
}

/// A time with its unit.
pub(super) fn duration(raw: &Raw<'_>, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    let limits = format!("from {} to {}", show(*range.start()), show(*range.end()));
    let text = match raw.kind {
        ValueKind::String(text) => text,
        ValueKind::I128(_) => {
            return Err(format!("{0} has no unit; write \"{0}s\" for seconds, {limits}", raw.shown()));
        }
        _ => return Err(raw.is_not(&format!("a time such as \"10s\" or \"500ms\", {limits}"))),
    };
    let digits = text.chars().filter(char::is_ascii_digit).count();
    if digits == text.len() && digits > 0 {
        return Err(format!("{} has no unit; write \"{text}s\" for seconds, {limits}", raw.shown()));
    }
    match parse_duration(text) {
        Some(time) if range.contains(&time) => Ok(time),
        Some(_) => Err(format!("{} is out of range; a time {limits}", raw.shown())),
        None => Err(format!(
            "{} is not a time; write it like \"10s\", \"500ms\" or \"1h30m\", {limits}",
            raw.shown()
        )),
    }
}

/// Like [`duration`], in whole seconds, as the kernel counts them.
pub(super) fn seconds(raw: &Raw<'_>, range: RangeInclusive<Duration>) -> Result<u32, String> {
    let time = duration(raw, range)?;
    if time.subsec_nanos() != 0 {
        return Err(format!("{} is not in whole seconds, in which the kernel counts", raw.shown()));
    }
    u32::try_from(time.as_secs()).map_err(|error| error.to_string())
}

/// A time in its largest unit.
fn show(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 if time.is_zero() => "0s".into(),
        0 => format!("{}ms", time.as_millis()),
        s if s.is_multiple_of(86_400) => format!("{}d", s / 86_400),
        s if s.is_multiple_of(3_600) => format!("{}h", s / 3_600),
        s if s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// Text; `want` says what should be in it.
pub(super) fn text<'a>(raw: &Raw<'a>, want: &str) -> Result<&'a str, String> {
    match raw.kind {
        ValueKind::String(text) => Ok(text),
        _ => Err(raw.is_not(want)),
    }
}

/// What people call a virtual: it stands in logs, metrics and commands, unquoted.
pub(super) fn name(raw: &Raw<'_>) -> Result<String, String> {
    let want = "1 to 64 letters, digits and . - _ : [ ]";
    let text = text(raw, want)?;
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(good) {
        Ok(text.to_string())
    } else {
        Err(format!("{} is no good name; {want}", raw.shown()))
    }
}

/// An argument of EHLO: a host name or an address literal (RFC 5321 section 4.1.1.1).
pub(super) fn ehlo_name(raw: &Raw<'_>) -> Result<String, String> {
    let want = "a host name such as \"director.example.com\", or an address such as \"[192.0.2.1]\"";
    let text = text(raw, want)?;
    if is_ehlo_name(text) {
        Ok(text.to_string())
    } else {
        Err(format!("{} is not a host name; {want}", raw.shown()))
    }
}

/// Letters, digits and hyphens in labels of 1 to 63, 253 in all (RFC 1123 section 2.1). One label is enough.
pub(crate) fn is_host_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_address_literal(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) else { return false };
    match inner.strip_prefix("IPv6:") {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => inner.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

/// The address of one host, without a port.
pub(super) fn address(raw: &Raw<'_>) -> Result<IpAddr, String> {
    let want = "an address such as \"10.0.0.11\" or \"2001:db8::11\"";
    let ip: IpAddr = text(raw, want)?.parse().map_err(|_| format!("{} is not {want}", raw.shown()))?;
    plain(ip, SocketAddr::new(ip, 0)).map_err(|reason| format!("{} {reason}", raw.shown()))?;
    Ok(ip)
}

/// An address with its port, not 0.
pub(super) fn socket_address(raw: &Raw<'_>, usual_port: u16) -> Result<SocketAddr, String> {
    let want = &format!(
        "an address and port such as \"192.0.2.25:{usual_port}\" or \"[2001:db8::25]:{usual_port}\""
    );
    let text = text(raw, want)?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Err(format!("{} has no port; write \"{}\"", raw.shown(), SocketAddr::new(ip, usual_port)));
    }
    let address: SocketAddr =
        text.parse().map_err(|_| format!("{} is not {want}; host names are not resolved", raw.shown()))?;
    if address.port() == 0 {
        return Err(format!("{} has port 0; a port from 1 to 65535", raw.shown()));
    }
    plain(address.ip(), address).map_err(|reason| format!("{} {reason}", raw.shown()))?;
    Ok(address)
}

/// Refuses what is written as IPv6 and means something else to the kernel than to its author.
fn plain(ip: IpAddr, address: SocketAddr) -> Result<(), String> {
    match (ip, address) {
        (IpAddr::V6(v6), _) if v6.to_ipv4_mapped().is_some() => {
            Err("is IPv4 written as IPv6; write the IPv4 address".into())
        }
        (_, SocketAddr::V6(v6)) if v6.scope_id() != 0 => {
            Err("has a zone; none is needed for a global address".into())
        }
        _ => Ok(()),
    }
}

/// Most servers that one range can name.
const MOST_IN_RANGE: u128 = 256;

/// The addresses of one or more real servers, and their port where it is written:
/// `10.0.0.11`, `10.0.0.11:25`, `[2001:db8::11]:25`, `10.0.0.11-10.0.0.14`, `10.0.0.11-10.0.0.14:25`.
pub(super) fn real_addresses(raw: &Raw<'_>) -> Result<(Vec<IpAddr>, Option<u16>), String> {
    let want = "an address such as \"10.0.0.11\", \"10.0.0.11:25\", \"[2001:db8::11]:25\" or \"10.0.0.11-10.0.0.14\"";
    let text = text(raw, want)?;
    let bad = || format!("{} is not {want}; host names are not resolved", raw.shown());
    let Some((first, last)) = text.split_once('-') else {
        let (ip, port) = endpoint(text).ok_or_else(bad)??;
        return Ok((vec![ip], port));
    };
    let (Some(first), Some(last)) = (endpoint(first), endpoint(last)) else { return Err(bad()) };
    let ((first, None), (last, port)) = (first?, last?) else {
        return Err(format!("{} has a port in the middle; write it once, at the end", raw.shown()));
    };
    let (from, to) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(u32::from(a)), u128::from(u32::from(b))),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a), u128::from(b)),
        _ => return Err(format!("{} mixes IPv4 and IPv6; both ends of one family", raw.shown())),
    };
    match to.checked_sub(from) {
        None => Err(format!("{} runs backwards; the lower address first", raw.shown())),
        Some(more) if more >= MOST_IN_RANGE => {
            Err(format!("{} is too long; at most {MOST_IN_RANGE} servers in one range", raw.shown()))
        }
        Some(_) => Ok(((from..=to).map(|number| numbered(number, first)).collect(), port)),
    }
}

/// The address of that number, of the family of `like`.
fn numbered(number: u128, like: IpAddr) -> IpAddr {
    match like {
        // Between two IPv4 addresses: it fits.
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

/// An address with or without port. `None`: it is none. `Err`: it is one, but not a good one.
fn endpoint(text: &str) -> Option<Result<(IpAddr, Option<u16>), String>> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let (ip, address, port) = if let Ok(ip) = bare.parse::<IpAddr>() {
        (ip, SocketAddr::new(ip, 0), None)
    } else {
        let address: SocketAddr = text.parse().ok()?;
        (address.ip(), address, Some(address.port()))
    };
    if text.starts_with('[') && ip.is_ipv4() {
        return None;
    }
    Some(plain(ip, address).map_err(|reason| format!("\"{text}\" {reason}")).map(|()| (ip, port)))
}
