//! What is so on the box: links with their addresses, settings of the kernel, default routes.
//!
//! Owns [`Observed`] and the reading of what `ip` prints. Refuses to run it. What is not understood is an error, never
//! an empty answer: an empty list of addresses would have all of them added again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

/// Most links, and addresses of one, that are believed.
const MOST: usize = 16384;

/// One look at the box.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) links: Vec<Link>,
    /// By their path below `/proc/sys`.
    pub(crate) settings: BTreeMap<String, String>,
    /// Of the main table, in the kernel's order.
    pub(crate) defaults: Vec<DefaultRoute>,
    /// The kernel has other networks, such as those of containers, with processes in them.
    pub(crate) shared: bool,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    /// `dummy`, `ipip`; empty for hardware.
    pub(crate) kind: String,
    pub(crate) up: bool,
    /// Takes part in ARP, and in neighbour discovery.
    pub(crate) arp: bool,
    pub(crate) mtu: u32,
    pub(crate) addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) prefix: u8,
    pub(crate) label: Option<String>,
}

/// A default route, as `ip route show` prints it and `ip route replace` reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DefaultRoute {
    pub(crate) v6: bool,
    pub(crate) line: String,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) device: Option<String>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) metric: u32,
    pub(crate) advmss: Option<u32>,
    /// Several next hops, or learned from a router: not a line that can be given back.
    pub(crate) fixed: bool,
}

impl Observed {
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interfaces that have an address, with its prefix.
    pub(crate) fn holders(&self, ip: IpAddr) -> impl Iterator<Item = (&Link, &Address)> {
        let of = move |link: &'_ Link| link.addresses.iter().position(|address| address.ip == ip);
        self.links.iter().filter_map(move |link| Some((link, link.addresses.get(of(link)?)?)))
    }

    /// A number among the settings.
    pub(crate) fn number(&self, key: &str) -> Option<u32> {
        self.settings.get(key)?.parse().ok()
    }

    /// What counts of a setting below `net/ipv4/conf`: the larger of the interface's own and that of `all`.
    pub(crate) fn effective(&self, link: &str, name: &str) -> Option<u32> {
        Some(self.number(&conf(link, name))?.max(self.number(&conf("all", name))?))
    }

    /// The default routes of the family of an address.
    pub(crate) fn defaults_of(&self, ip: IpAddr) -> impl Iterator<Item = &DefaultRoute> {
        self.defaults.iter().filter(move |route| route.v6 == ip.is_ipv6())
    }
}

/// The path of a setting of an interface, below `/proc/sys`.
pub(crate) fn conf(link: &str, name: &str) -> String {
    format!("net/ipv4/conf/{link}/{name}")
}

#[derive(Deserialize)]
struct IpLink {
    #[serde(default)]
    ifname: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    linkinfo: IpKind,
    #[serde(default)]
    addr_info: Vec<IpAddress>,
}

#[derive(Default, Deserialize)]
struct IpKind {
    #[serde(default)]
    info_kind: String,
}

#[derive(Deserialize)]
struct IpAddress {
    #[serde(default)]
    family: String,
    local: Option<IpAddr>,
    #[serde(default)]
    prefixlen: u8,
    label: Option<String>,
}

/// Reads `ip -json -details address show`.
pub(crate) fn parse_links(text: &str) -> Result<Vec<Link>, String> {
    let links: Vec<IpLink> = serde_json::from_str(text).map_err(|error| format!("ip address: {error}"))?;
    let links: Vec<_> = links.into_iter().filter(|link| !link.ifname.is_empty()).collect();
    if links.is_empty() || links.len() > MOST || links.iter().any(|link| link.addr_info.len() > MOST) {
        return Err("ip address: no interface, or too many".to_owned());
    }
    Ok(links.into_iter().map(link).collect())
}

fn link(said: IpLink) -> Link {
    let flag = |name: &str| said.flags.iter().any(|flag| flag == name);
    let (up, arp) = (flag("UP"), !flag("LOOPBACK") && !flag("NOARP"));
    let address = |said: IpAddress| {
        let known = matches!(said.family.as_str(), "inet" | "inet6");
        let ip = said.local.filter(|_| known)?;
        Some(Address { ip, prefix: said.prefixlen, label: said.label })
    };
    Link {
        addresses: said.addr_info.into_iter().filter_map(address).collect(),
        name: said.ifname,
        kind: said.linkinfo.info_kind,
        up,
        arp,
        mtu: said.mtu,
    }
}

/// Words that `ip route show` prints and `ip route replace` does not read.
const FLAGS: [&str; 7] = ["linkdown", "dead", "pervasive", "offload", "trap", "rt_offload", "rt_trap"];

/// Reads the default routes of `ip -4 route show default` (`-6` likewise).
pub(crate) fn parse_defaults(text: &str, v6: bool) -> Vec<DefaultRoute> {
    let mut routes: Vec<DefaultRoute> = Vec::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            if let Some(route) = routes.last_mut() {
                route.fixed = true;
            }
            continue;
        }
        let words: Vec<_> = line.split_whitespace().filter(|word| !FLAGS.contains(word)).collect();
        if words.first() != Some(&"default") || routes.len() >= MOST {
            continue;
        }
        let after = |key: &str| {
            let place = words.iter().position(|word| *word == key)?;
            words.get(place + 1).copied()
        };
        routes.push(DefaultRoute {
            v6,
            line: words.join(" "),
            // `via inet6 fe80::1` is a gateway of the other family: no number follows.
            gateway: after("via").and_then(|ip| ip.parse().ok()),
            device: after("dev").map(str::to_owned),
            source: after("src").and_then(|ip| ip.parse().ok()),
            metric: after("metric").and_then(|number| number.parse().ok()).unwrap_or(0),
            advmss: after("advmss").and_then(|number| number.parse().ok()),
            fixed: after("proto") == Some("ra") || words.contains(&"expires"),
        });
    }
    routes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_and_addresses_are_what_ip_says() {
        let text = r#"[{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,
            "addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8,"label":"lo"},
            {"family":"inet6","local":"2001:db8::25","prefixlen":128}]},
            {"ifname":"eth0.7","flags":["BROADCAST","UP"],"mtu":1500,"linkinfo":{"info_kind":"vlan"},"addr_info":[{},
            {"family":"mctp","local":"::9","prefixlen":1}]},{},
            {"ifname":"mail0","flags":["NOARP"],"linkinfo":{"info_kind":"dummy"}}]"#;
        let links = parse_links(text).unwrap();
        let short: Vec<_> = links.iter().map(|link| (link.name.as_str(), link.up, link.arp)).collect();
        assert_eq!(short, [("lo", true, false), ("eth0.7", true, true), ("mail0", false, false)]);
        assert_eq!(links[0].addresses[1].ip.to_string(), "2001:db8::25");
        assert_eq!(
            (links[1].kind.as_str(), links[1].addresses.len(), links[2].kind.as_str()),
            ("vlan", 0, "dummy")
        );
        for bad in ["", "[]", "[{}]", "{}", "null", "[1]", r#"[{"ifname":1}]"#] {
            assert!(parse_links(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_default_route_is_a_line_that_can_be_given_back() {
        let text = "default via 10.0.0.2 dev eth0 proto dhcp src 10.0.0.1 metric 100 advmss 1440 linkdown \n\
                    default proto static \n\tnexthop via 10.0.0.3 dev eth0 weight 1 \n10.0.0.0/24 dev eth0\n";
        let routes = parse_defaults(text, false);
        assert_eq!(routes.len(), 2);
        assert_eq!(
            routes[0].line,
            "default via 10.0.0.2 dev eth0 proto dhcp src 10.0.0.1 metric 100 advmss 1440"
        );
        assert_eq!((routes[0].advmss, routes[0].metric, routes[0].fixed), (Some(1440), 100, false));
        assert_eq!(routes[0].gateway.unwrap().to_string(), "10.0.0.2");
        assert!(routes[1].fixed);
        let six =
            "default via fe80::2 dev eth0 proto ra metric 1024 expires 1790sec hoplimit 64 pref medium\n";
        assert!(parse_defaults(six, true)[0].fixed);
        assert_eq!(parse_defaults("default via inet6 fe80::1 dev eth0", false)[0].gateway, None);
    }

    #[test]
    fn the_larger_value_counts() {
        let settings = [("all", "1"), ("eth0", "2"), ("eth1", "0"), ("odd", "x")];
        let settings = settings.map(|(link, value)| (conf(link, "arp_announce"), value.to_owned()));
        let observed = Observed { settings: settings.into(), ..Observed::default() };
        let effective = |link| observed.effective(link, "arp_announce");
        assert_eq!((effective("eth0"), effective("eth1")), (Some(2), Some(1)));
        assert_eq!((effective("odd"), effective("none")), (None, None));
    }

    proptest! {
        #[test]
        fn whatever_ip_prints_is_read_or_refused(text in ".{0,200}", line in "default( [a-z0-9.]{0,8}){0,9}") {
            let _ = (parse_links(&text), parse_defaults(&text, false), parse_defaults(&line, true));
        }
    }
}
