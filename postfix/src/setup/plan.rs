//! From what is asked for and what is so to the steps that are missing, or to what forbids them.
//!
//! Owns [`plan`], a pure function, and the reason of each step. Refuses to know how a step is made or undone, and
//! what Postfix says. Each step says what goes wrong without it, which is also what `status` says where it is missing.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::change::{Change, length, whole};
use super::observed::{DefaultRoute, Link, Observed, conf};
use super::wish::{Forward, Wish};

/// IPv4 in IPv4 takes a header of 20 bytes from each packet, IPv6 in IPv6 one of 40; a segment has no room for them
/// nor for its own headers, 40 and 60 without options (RFC 2003, RFC 2473, RFC 9293).
const ROOM_V4: u32 = 20 + 40;
const ROOM_V6: u32 = 40 + 60;
/// Below this no MTU is believed (RFC 791, RFC 8200).
const LEAST_MTU: u32 = 576;
/// `arp_ignore`: answer only for addresses of the interface that was asked (1, and 2 for askers of its network), or never (8).
const HIDING: [u32; 3] = [1, 2, 8];

/// What there is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In the order in which they are made.
    pub(crate) steps: Vec<Step>,
    /// Where there is one, nothing is done.
    pub(crate) problems: Vec<Problem>,
    /// What the box cannot know or do.
    pub(crate) notes: Vec<String>,
}

/// Something that has to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) change: Change,
    /// The VIPs that need it.
    pub(crate) needs: BTreeSet<IpAddr>,
    pub(crate) so: bool,
    /// What is wrong while it is not so.
    pub(crate) wrong: String,
    /// What comes of that.
    pub(crate) effect: String,
}

/// What stands in the way, and belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) wrong: String,
    pub(crate) effect: String,
    pub(crate) mend: String,
}

/// The steps and problems of a wish on a box.
pub(crate) fn plan(wish: &Wish, observed: &Observed) -> Plan {
    let mut planner = Planner { wish, observed, plan: Plan::default() };
    for vip in &wish.vips {
        planner.network(*vip);
    }
    if wish.forward == Forward::Masq {
        planner.masq();
    } else {
        planner.place();
        planner.hide();
        if wish.forward == Forward::Ipip {
            planner.tunnel();
        }
        planner.addresses();
    }
    let mut plan = planner.plan;
    plan.steps.sort_by_key(|step| step.change.rank());
    plan
}

struct Planner<'a> {
    wish: &'a Wish,
    observed: &'a Observed,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn vips(&self, v6: bool) -> BTreeSet<IpAddr> {
        self.wish.vips.iter().filter(|vip| vip.is_ipv6() == v6).copied().collect()
    }

    fn step(&mut self, change: Change, needs: BTreeSet<IpAddr>, wrong: String, effect: &str) {
        let so = change.is_so(self.observed);
        self.plan.steps.push(Step { change, needs, so, wrong, effect: effect.to_owned() });
    }

    fn problem(&mut self, wrong: String, effect: &str, mend: String) {
        self.plan.problems.push(Problem { wrong, effect: effect.to_owned(), mend });
    }

    /// The interfaces that may have the VIP.
    fn homes(&self, vip: IpAddr) -> Vec<&'a str> {
        match self.wish.forward {
            Forward::Masq => Vec::new(),
            Forward::Gate => vec![self.wish.place()],
            Forward::Ipip => vec![self.wish.place(), tunnel(vip.is_ipv6())],
        }
    }

    /// Whether the VIP is somewhere where it must not be.
    fn network(&mut self, vip: IpAddr) {
        for link in &self.observed.links {
            for address in &link.addresses {
                let edge = edge_of(address.ip, address.prefix, vip);
                if let Some(edge) = edge.filter(|_| address.ip != vip) {
                    self.problem(
                        format!("{vip} is the {edge} of the network of {}", link.name),
                        "it is no address of a host",
                        "choose another VIP".to_owned(),
                    );
                }
            }
        }
        for (link, address) in self.observed.holders(vip) {
            let remove = format!("ip address delete {vip}/{} dev {}", address.prefix, link.name);
            if self.homes(vip).contains(&link.name.as_str()) {
                if address.prefix != length(vip) {
                    self.problem(
                        format!("{vip} is on {} with the prefix /{}", link.name, address.prefix),
                        "this box takes all addresses of that network for its own, and reaches none of them",
                        remove,
                    );
                }
            } else if link.arp && address.prefix != length(vip) {
                self.problem(
                    format!("{vip} is this box's own address, on {}", link.name),
                    "a VIP belongs to the farm: while this box answers for it, the director gets no packet",
                    "choose another VIP, or give this box another address".to_owned(),
                );
            } else if link.arp {
                self.problem(
                    format!("{vip} is on {}", link.name),
                    "this box answers for the VIP, in the place of the director",
                    remove,
                );
            } else if self.wish.forward == Forward::Masq {
                self.problem(
                    format!("{vip} is on {}", link.name),
                    "with masq the VIP is the director's alone: this box reaches itself there, and may answer ARP for it",
                    remove,
                );
            } else {
                self.problem(
                    format!("{vip} is on {}, and is to be on {}", link.name, self.wish.place()),
                    "on two interfaces it stays when one of them is undone",
                    remove,
                );
            }
        }
    }

    /// The interface that has the VIPs.
    fn place(&mut self) {
        let place = self.wish.place().to_owned();
        match (&self.wish.dummy, self.observed.link(&place)) {
            (Some(_), Some(link)) if link.kind != "dummy" => self.problem(
                format!("{place} is no dummy interface"),
                "the VIP would be answered for, or lost with that interface",
                "choose another name for --dummy".to_owned(),
            ),
            (Some(name), _) => {
                let all: BTreeSet<_> = self.wish.vips.iter().copied().collect();
                let effect = "the VIP is nowhere: what the director sends is dropped";
                let (dummy, up) = (Change::Dummy { name: name.clone() }, Change::Up { link: name.clone() });
                self.step(dummy, all.clone(), format!("there is no interface {name}"), effect);
                self.step(up, all, format!("{name} is down"), effect);
            }
            (None, Some(link)) if link.up => {}
            (None, _) => self.problem(
                "lo is down".to_owned(),
                "no address on it works, 127.0.0.1 included",
                "ip link set lo up".to_owned(),
            ),
        }
        if !self.vips(true).is_empty() {
            let of = if self.observed.link(&place).is_some() { &place } else { "default" };
            match self.observed.number(&format!("net/ipv6/conf/{of}/disable_ipv6")) {
                Some(0) => {}
                Some(_) => self.problem(
                    format!("IPv6 is off on {place}"),
                    "the VIP cannot be there",
                    format!("sysctl -w net.ipv6.conf.{of}.disable_ipv6=0"),
                ),
                None => self.problem(
                    "this kernel has no IPv6".to_owned(),
                    "an IPv6 VIP cannot be here",
                    "leave that VIP out, or boot without ipv6.disable=1".to_owned(),
                ),
            }
        }
    }

    /// Settings that keep this box from answering ARP for the VIP, and from asking with it. IPv6 needs none: no
    /// neighbour is answered for an address of another interface.
    fn hide(&mut self) {
        let needs = self.vips(false);
        if needs.is_empty() {
            return;
        }
        let names: Vec<_> =
            self.observed.links.iter().filter(|link| link.arp).map(|link| &link.name).collect();
        let speaking = |name: &str, wrong: &dyn Fn(u32) -> bool| {
            let wrong = |link: &&&String| self.observed.effective(link, name).is_some_and(wrong);
            let found: Vec<_> = names.iter().filter(wrong).map(|link| link.as_str()).collect();
            if found.is_empty() { "an interface to come".to_owned() } else { found.join(", ") }
        };
        let ignore = |value: u32| !HIDING.contains(&value);
        let (asked, asking) = (speaking("arp_ignore", &ignore), speaking("arp_announce", &|value| value < 2));
        let mut settings = Vec::new();
        let effects = [
            "this box answers ARP for the VIP: clients come to it past the director, all of them or some",
            "this box asks ARP with the VIP as its own: neighbours then send to it what is for the director",
        ];
        for (name, value, who, verb, effect) in [
            ("arp_ignore", "1", &asked, "answers", effects[0]),
            ("arp_announce", "2", &asking, "asks", effects[1]),
        ] {
            let good = |value: u32| if name == "arp_ignore" { !ignore(value) } else { value >= 2 };
            let key = conf("all", name);
            let Some(now) = self.observed.number(&key) else {
                self.problem(
                    format!("/proc/sys/{key} cannot be read"),
                    "whether this box answers ARP for the VIP is not known",
                    "mount /proc, or look at the rights of this container".to_owned(),
                );
                continue;
            };
            let only = self.observed.number(&conf("lo", name)).is_some_and(good) && !good(now);
            let hint = if only { "; that it is set on lo changes nothing" } else { "" };
            settings.push((
                key,
                now,
                if good(now) { now.to_string() } else { value.to_owned() },
                { format!("{name} of all is {now}, so {who} {verb}{hint}") },
                effect,
            ));
            // The larger of the two counts, so that a larger one of an interface undoes that of all.
            for link in &names {
                let key = conf(link, name);
                if let Some(own) = self.observed.number(&key).filter(|own| *own > now.max(2) && !good(*own)) {
                    let wrong = format!("{name} of {link} is {own}, which counts more than that of all");
                    settings.push((key, own, value.to_owned(), wrong, effect));
                }
            }
        }
        for (key, before, after, wrong, effect) in settings {
            let change = Change::Setting { key, before: before.to_string(), after };
            self.step(change, needs.clone(), wrong, effect);
        }
    }

    /// What takes packets out of their tunnel, and lets large mail through.
    fn tunnel(&mut self) {
        for v6 in [false, true] {
            let needs = self.vips(v6);
            if needs.is_empty() {
                continue;
            }
            let (link, module) = (tunnel(v6).to_owned(), if v6 { "ip6_tunnel" } else { "ipip" });
            let effect = "what the director sends in a tunnel is refused, and every connection hangs";
            let change = Change::Module { name: module.to_owned(), link: link.clone() };
            self.step(change, needs.clone(), format!("there is no {link}"), effect);
            let change = Change::Up { link: link.clone() };
            self.step(change, needs.clone(), format!("{link} is down"), effect);
            if !v6 {
                self.reverse_path(&link, &needs);
            }
            self.large_mail(v6, &needs);
        }
    }

    /// Strict checking of the sender's address drops whatever comes out of a tunnel: its way back is another
    /// interface. Loose checking (2) lets it through where the interface has an address, which the VIP is.
    fn reverse_path(&mut self, link: &str, needs: &BTreeSet<IpAddr>) {
        let all = self.observed.number(&conf("all", "rp_filter"));
        // A new interface begins with the default.
        let own = self.observed.number(&conf(link, "rp_filter"));
        let own = own.or_else(|| self.observed.number(&conf("default", "rp_filter")));
        let (Some(all), Some(own)) = (all, own) else { return };
        let strict = all.max(own) == 1;
        let change = Change::Setting {
            key: conf(link, "rp_filter"),
            before: own.to_string(),
            after: if strict { "2".to_owned() } else { own.to_string() },
        };
        let wrong = format!("rp_filter of {link} is strict");
        self.step(change, needs.clone(), wrong, "every packet out of the tunnel is dropped without a word");
        if !strict && let Some(last) = self.plan.steps.last_mut() {
            last.so = true;
        }
    }

    /// Clients learn by the answer to their SYN how long their segments may be.
    fn large_mail(&mut self, v6: bool, needs: &BTreeSet<IpAddr>) {
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        for route in self.observed.defaults_of(any) {
            let mtu =
                route.device.as_deref().and_then(|device| self.observed.link(device)).map(|link| link.mtu);
            let Some(mtu) = mtu.filter(|mtu| *mtu >= LEAST_MTU) else { continue };
            let most = mtu - if v6 { ROOM_V6 } else { ROOM_V4 };
            if route.fixed {
                self.plan.notes.push(format!(
                    "give the default route ({}) advmss {most} where it is configured: without it large mail hangs \
                     for clients that get no ICMP",
                    route.line
                ));
                continue;
            }
            let after = match route.advmss {
                Some(mss) if mss <= most => route.line.clone(),
                Some(mss) => route.line.replace(&format!("advmss {mss}"), &format!("advmss {most}")),
                None => with_advmss(route, most),
            };
            let change = Change::Route { v6, before: route.line.clone(), after };
            self.step(
                change,
                needs.clone(),
                format!("the default route has no advmss of {most} or less"),
                "small mail works and large mail hangs, for clients that get no ICMP",
            );
        }
    }

    fn addresses(&mut self) {
        let addresses = self.observed.links.iter().flat_map(|link| &link.addresses);
        let used: BTreeSet<_> = addresses.filter_map(|address| address.label.clone()).collect();
        let mut labels = (0_u32..).map(|number| format!("lo:{number}")).filter(|label| !used.contains(label));
        for vip in &self.wish.vips {
            for link in self.homes(*vip) {
                let there = self.observed.holders(*vip).any(|(holder, _)| holder.name == link);
                let label = (link == "lo" && vip.is_ipv4() && !there).then(|| labels.next()).flatten();
                let change = Change::Address { ip: *vip, link: link.to_owned(), label };
                let effect = if link == self.wish.place() {
                    "what the director sends for it is dropped: this server's share of the clients hangs"
                } else {
                    "packets out of the tunnel are dropped where rp_filter is loose, which is many systems' default"
                };
                let wrong = format!("{} is not on {link}", whole(*vip));
                let needs = [*vip].into();
                let so = change.is_so(self.observed);
                self.plan.steps.push(Step { change, needs, so, wrong, effect: effect.to_owned() });
            }
        }
    }

    /// The answers have to go back through the director, which gives them the VIP again.
    fn masq(&mut self) {
        for v6 in [false, true] {
            let needs = self.vips(v6);
            let Some(vip) = needs.first().copied() else { continue };
            let directors: Vec<_> =
                self.wish.directors.iter().filter(|ip| ip.is_ipv6() == v6).copied().collect();
            let family = if v6 { "-6" } else { "-4" };
            let forwarding = if v6 { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" };
            self.plan.notes.push(format!(
                "the director needs {forwarding}=1; clients must not be in a network of this box: the answer would \
                 go to them past the director"
            ));
            let routes: Vec<_> = self.observed.defaults_of(vip).collect();
            let Some(director) = directors.first() else {
                self.plan.notes.push(
                    "whether the default route goes through the director is not known: --director ADDRESS"
                        .to_owned(),
                );
                continue;
            };
            let effect = "answers go to the clients past the director, and every connection hangs";
            // The first is the one that the kernel takes: the smallest metric.
            match routes.iter().min_by_key(|route| route.metric) {
                None => match self.network_of(*director).map(|link| link.name.clone()) {
                    Some(link) => {
                        let tail = if v6 { " metric 1024 pref medium" } else { "" };
                        let after = format!("default via {director} dev {link}{tail}");
                        let change = Change::Route { v6, before: String::new(), after };
                        self.step(change, needs, "there is no default route".to_owned(), effect);
                    }
                    None => self.problem(
                        format!("the director {director} is in no network of this box"),
                        "it cannot be the gateway, and masq needs that",
                        "give the director an address in a network of this box, or use ipip".to_owned(),
                    ),
                },
                Some(route) if route.gateway.is_some_and(|gateway| directors.contains(&gateway)) => {}
                Some(route) => self.problem(
                    format!("the default route does not go through the director: {}", route.line),
                    effect,
                    format!("ip {family} route replace default via {director}"),
                ),
            }
        }
    }

    fn network_of(&self, ip: IpAddr) -> Option<&Link> {
        let within = |link: &&Link| {
            link.arp && link.addresses.iter().any(|address| same_network(address.ip, address.prefix, ip))
        };
        self.observed.links.iter().find(within)
    }
}

/// The interface that packets come out of.
pub(crate) fn tunnel(v6: bool) -> &'static str {
    if v6 { "ip6tnl0" } else { "tunl0" }
}

/// `ip` prints metrics such as this one behind the rest, but before what IPv6 adds.
fn with_advmss(route: &DefaultRoute, most: u32) -> String {
    match route.line.split_once(" pref ") {
        Some((head, tail)) => format!("{head} advmss {most} pref {tail}"),
        None => format!("{} advmss {most}", route.line),
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn mask(prefix: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

pub(crate) fn same_network(ip: IpAddr, prefix: u8, other: IpAddr) -> bool {
    ip.is_ipv4() == other.is_ipv4() && bits(ip) & mask(prefix) == bits(other) & mask(prefix)
}

/// Whether an address is the first or the last of a network, which are no hosts (RFC 919, RFC 4291 section 2.6.1).
fn edge_of(ip: IpAddr, prefix: u8, other: IpAddr) -> Option<&'static str> {
    let whole = length(ip);
    if !same_network(ip, prefix, other) || whole.saturating_sub(prefix) < 2 {
        return None;
    }
    let host = !mask(prefix) & mask(whole);
    match bits(other) & host {
        0 => Some("address"),
        last if last == host && ip.is_ipv4() => Some("broadcast address"),
        _ => None,
    }
}
