//! What the administrator asks for: which VIPs, how packets come to them, and where they are put.
//!
//! Owns [`Wish`] and the rules for addresses that no VIP can be. Refuses to look at the box: what only the box can
//! tell of a VIP is a problem of the plan. Fails with a text for people.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Most VIPs of a box.
const MOST_VIPS: usize = 256;
/// `IFNAMSIZ` of `linux/if.h`, with its end.
const MOST_NAME: usize = 15;

/// How packets get from the director to this box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Forward {
    /// Direct routing: as they are, by the MAC address.
    Gate,
    /// In another IP packet.
    Ipip,
    /// Rewritten to this box's own address.
    Masq,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gate => "gate",
            Self::Ipip => "ipip",
            Self::Masq => "masq",
        })
    }
}

/// All that is asked for, of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) forward: Forward,
    /// At least one, each once.
    pub(crate) vips: Vec<IpAddr>,
    /// The dummy interface that has the VIPs; `lo` without it.
    pub(crate) dummy: Option<String>,
    /// Addresses of the directors, as this box sees them.
    pub(crate) directors: Vec<IpAddr>,
}

impl Wish {
    /// The interface that has the VIPs.
    pub(crate) fn place(&self) -> &str {
        self.dummy.as_deref().unwrap_or("lo")
    }

    /// Checks what can be checked without a look at the box.
    pub(crate) fn check(mut self) -> Result<Self, String> {
        self.vips.sort_unstable();
        self.vips.dedup();
        if self.vips.is_empty() {
            return Err("no VIP is given: --vip ADDRESS".to_owned());
        }
        if self.vips.len() > MOST_VIPS {
            return Err(format!("more than {MOST_VIPS} VIPs"));
        }
        for vip in &self.vips {
            vip_can_be(*vip)?;
        }
        if let Some(both) = self.directors.iter().find(|director| self.vips.contains(director)) {
            return Err(format!("{both} cannot be the VIP and an address of a director"));
        }
        if let Some(name) = &self.dummy {
            if self.forward == Forward::Masq {
                return Err("with masq no interface has the VIP: --dummy has no meaning".to_owned());
            }
            interface_name(name)?;
        }
        Ok(self)
    }
}

/// Reads a VIP as people write it.
pub(crate) fn parse_vip(text: &str) -> Result<IpAddr, String> {
    if let Ok(ip) = text.parse() {
        vip_can_be(ip)?;
        return Ok(ip);
    }
    if text.split_once('/').is_some_and(|(ip, _)| ip.parse::<IpAddr>().is_ok()) {
        return Err("a VIP is one address, not a network: leave out what follows the slash".to_owned());
    }
    if text.parse::<std::net::SocketAddr>().is_ok() {
        return Err("a VIP is an address without a port".to_owned());
    }
    Err("not an address; host names are not looked up".to_owned())
}

fn vip_can_be(vip: IpAddr) -> Result<(), String> {
    let kind = match vip {
        IpAddr::V4(ip) => v4_kind(ip),
        IpAddr::V6(ip) => v6_kind(ip),
    };
    kind.map_or(Ok(()), |kind| Err(format!("{vip} cannot be a VIP: {kind}")))
}

fn v4_kind(ip: Ipv4Addr) -> Option<&'static str> {
    match ip.octets() {
        [0, ..] => Some("it is no address of a host"),
        [127, ..] => Some("it is a loopback address"),
        [169, 254, ..] => Some("it is a link-local address"),
        [224..=239, ..] => Some("it is a multicast address"),
        [240..=255, ..] => Some("it is a broadcast or reserved address"),
        _ => None,
    }
}

fn v6_kind(ip: Ipv6Addr) -> Option<&'static str> {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("it is no address of a host"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("it is the loopback address"),
        [0, 0, 0, 0, 0, 0xffff, ..] => Some("it is an IPv4 address: write it as one"),
        [0xfe80..=0xfebf, ..] => Some("it is a link-local address"),
        [0xff00..=0xffff, ..] => Some("it is a multicast address"),
        _ => None,
    }
}

/// Names that are safe in paths, commands and files of others.
pub(crate) fn interface_name(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let reserved = ["lo", "all", "default", "tunl0", "ip6tnl0"];
    if name.is_empty() || name.len() > MOST_NAME || !name.chars().all(good) || name.starts_with('-') {
        return Err(format!("an interface has 1 to {MOST_NAME} letters, digits and - _ in its name"));
    }
    if reserved.contains(&name) { Err(format!("{name} cannot be a dummy interface")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_a_host_can_be_a_vip() {
        for good in ["192.0.2.25", "10.0.0.1", "2001:db8::25", "fd00::1"] {
            assert_eq!(parse_vip(good).map(|ip| ip.to_string()).as_deref(), Ok(good));
        }
        for (bad, why) in [
            ("0.0.0.0", "no address of a host"),
            ("127.0.0.1", "loopback"),
            ("169.254.1.1", "link-local"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "broadcast"),
            ("::", "no address of a host"),
            ("::1", "loopback"),
            ("::ffff:192.0.2.1", "IPv4"),
            ("fe80::1", "link-local"),
            ("ff02::1", "multicast"),
            ("192.0.2.0/24", "network"),
            ("192.0.2.25/32", "network"),
            ("192.0.2.25:25", "port"),
            ("[2001:db8::25]:25", "port"),
            ("mail.example.net", "host names"),
            ("", "not an address"),
        ] {
            let error = parse_vip(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_wish_that_contradicts_itself_is_refused() {
        let vip: IpAddr = "192.0.2.25".parse().unwrap();
        let wish = |forward, vips, dummy: Option<&str>, directors| {
            Wish { forward, vips, dummy: dummy.map(str::to_owned), directors }.check()
        };
        assert_eq!(wish(Forward::Gate, vec![vip, vip], None, vec![]).unwrap().vips, [vip]);
        for bad in [
            wish(Forward::Gate, vec![], None, vec![]),
            wish(Forward::Gate, vec![vip], None, vec![vip]),
            wish(Forward::Masq, vec![vip], Some("mail0"), vec![]),
            wish(Forward::Gate, vec![vip], Some("lo"), vec![]),
            wish(Forward::Gate, vec![vip], Some("../x"), vec![]),
            wish(Forward::Gate, vec![vip], Some("a b"), vec![]),
            wish(Forward::Gate, vec![vip], Some("a-name-too-long-"), vec![]),
        ] {
            assert!(bad.is_err(), "{bad:?}");
        }
    }
}
