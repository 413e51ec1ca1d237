//! The rules of addresses, links and forwarding.
//!
//! Owns what each way of forwarding needs of the director. Refuses to know IPVS itself. Cannot fail.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Finding, Level, Mend, Observed};
use crate::config::{Config, VirtualConfig};
use crate::model::{Forward, VirtualId};

/// Percent of the connection tracker's table above which it is nearly full.
const FULL: u64 = 80;

pub(super) fn examine(config: &Config, observed: &Observed, found: &mut Vec<Finding>) {
    for one in &config.virtuals {
        if let VirtualId::Address { address, .. } = one.id {
            vip(address.ip(), one, observed, found);
        }
        reals(one, observed, found);
    }
    let ways = |wanted: fn(&Forward) -> bool| {
        let reals = config.virtuals.iter().flat_map(|v| &v.reals);
        reals.filter(move |real| wanted(&real.settings.forward)).map(|real| real.id.0.ip())
    };
    let masq: BTreeSet<IpAddr> = ways(|forward| matches!(forward, Forward::Masq)).collect();
    let direct: BTreeSet<IpAddr> =
        ways(|forward| matches!(forward, Forward::Gate | Forward::Ipip(_))).collect();
    forwarding(&masq, observed, found);
    redirects((&masq, &direct), observed, found);
    tracking(!direct.is_empty(), observed, found);
    found.dedup();
    let mut said = BTreeSet::new();
    found.retain(|finding| said.insert((finding.about, finding.what.clone())));
}

fn vip(vip: IpAddr, config: &VirtualConfig, observed: &Observed, found: &mut Vec<Finding>) {
    match observed.vips.get(&vip) {
        Some(None) => found.push(Finding {
            level: Level::Advice,
            about: "vip",
            what: format!("the VIP {vip} is on no interface of this machine"),
            why: "right for a standby director; on the one that is on duty no client's packet arrives",
            mend: Mend::ByHand(format!(
                "ip addr add {vip}/{} dev INTERFACE",
                if vip.is_ipv4() { 32 } else { 128 }
            )),
        }),
        Some(Some(interface)) if vip.is_ipv4() => {
            let towards = config.reals.iter().find_map(|real| observed.reals.get(&real.id.0.ip()));
            let elsewhere = towards.filter(|way| way.by.name != interface.name);
            let arp = elsewhere.map(|way| {
                let of = |name| observed.of_interface(("ipv4", name, "arp_ignore"));
                of("all").max(of(&way.by.name))
            });
            if arp.flatten().is_some_and(|value| value > 0) {
                found.push(Finding {
                    level: Level::Wrong,
                    about: "arp_ignore",
                    what: format!("arp_ignore is set here, and the VIP {vip} is on {}", interface.name),
                    why: "nobody answers ARP for the VIP, as on a real server: no client on this network finds it",
                    mend: Mend::ByHand("sysctl -w net.ipv4.conf.all.arp_ignore=0".to_owned()),
                });
            }
        }
        _ => {}
    }
    for stranger in observed.answered.get(&vip).into_iter().flatten() {
        found.push(Finding {
            level: Level::Wrong,
            about: "arp",
            what: format!("{stranger} answers ARP for the VIP {vip}"),
            why: "clients reach it past this director: its share is not balanced, and hangs when it is out",
            mend: Mend::ByHand(
                "there: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2".to_owned(),
            ),
        });
    }
}

fn reals(config: &VirtualConfig, observed: &Observed, found: &mut Vec<Finding>) {
    let vip = match config.id {
        VirtualId::Address { address, .. } => observed.vips.get(&address.ip()).and_then(Option::as_ref),
        VirtualId::Fwmark { .. } => None,
    };
    for real in &config.reals {
        let ip = real.id.0.ip();
        let Some(way) = observed.reals.get(&ip) else { continue };
        if real.settings.forward == Forward::Gate && !way.on_link {
            found.push(Finding {
                level: Level::Wrong,
                about: "same_link",
                what: format!("{ip} is in no network of this machine, and forward is \"gate\""),
                why: "direct routing changes the address of the frame only: a router between them sends the packet back \
                      to the VIP",
                mend: Mend::ByHand("forward = \"ipip\" for this server, or a network that both are in".to_owned()),
            });
        }
        if let (Some(vip), Some(mtu)) = (vip.and_then(|vip| vip.mtu), way.by.mtu)
            && !matches!(real.settings.forward, Forward::Masq)
            && way.by.name != "lo"
            && mtu < vip.min(1_500)
        {
            found.push(Finding {
                level: Level::Advice,
                about: "mtu",
                what: format!("the MTU of {} towards {ip} is {mtu}, below that of the VIP's interface", way.by.name),
                why: "each large packet of a client has to be sent again in a smaller one, and hangs where ICMP is \
                      filtered: small mail works, large mail does not",
                mend: Mend::ByHand(format!(
                    "ip link set {} mtu {}, or advmss on the return route of the server",
                    way.by.name,
                    vip.min(1_500)
                )),
            });
        }
    }
}

/// NAT is routing: what comes back from a server is for somebody else.
fn forwarding(masq: &BTreeSet<IpAddr>, observed: &Observed, found: &mut Vec<Finding>) {
    let vips = observed.vips.iter().filter_map(|(vip, on)| Some((*vip, on.as_ref()?)));
    let ways = masq.iter().filter_map(|ip| Some((*ip, &observed.reals.get(ip)?.by)));
    if masq.is_empty() {
        return;
    }
    for (ip, interface) in vips.chain(ways).filter(|(_, interface)| interface.name != "lo") {
        let (family, setting) = match ip {
            IpAddr::V4(_) => ("ipv4", "net.ipv4.ip_forward"),
            IpAddr::V6(_) => ("ipv6", "net.ipv6.conf.all.forwarding"),
        };
        if observed.of_interface((family, &interface.name, "forwarding")) != Some(0) {
            continue;
        }
        let default = observed.of_interface((family, "default", "forwarding")) == Some(1);
        let only = if default { "; conf.default is for interfaces that come later" } else { "" };
        found.push(Finding {
            level: Level::Wrong,
            about: "forwarding",
            what: format!("net.{family}.conf.{}.forwarding is 0{only}", interface.name),
            why: "answers of servers behind NAT (forward = \"masq\") are dropped here: every connection hangs",
            // A machine that forwards is a router, which a firewall should know first.
            mend: Mend::ByHand(format!("sysctl -w {setting}=1")),
        });
    }
}

/// A machine that forwards tells hosts of a shorter way, past itself.
fn redirects(
    (masq, direct): (&BTreeSet<IpAddr>, &BTreeSet<IpAddr>),
    observed: &Observed,
    found: &mut Vec<Finding>,
) {
    let forwards = observed.is("net.ipv4.ip_forward", 1);
    let concerned = masq.iter().chain(direct.iter().filter(|_| forwards)).filter(|ip| ip.is_ipv4());
    for way in concerned.filter_map(|ip| observed.reals.get(ip)).filter(|way| way.by.name != "lo") {
        for interface in ["all", way.by.name.as_str()] {
            if observed.of_interface(("ipv4", interface, "send_redirects")) == Some(1) {
                let name = format!("net.ipv4.conf.{interface}.send_redirects");
                found.push(Finding {
                    level: Level::Advice,
                    about: "send_redirects",
                    what: format!("{name} is 1"),
                    why: "hosts of the same network are told to go past the director: their answers or connections get \
                          lost",
                    mend: Mend::Setting(name, 0),
                });
            }
        }
    }
}

fn tracking(direct: bool, observed: &Observed, found: &mut Vec<Finding>) {
    if direct && observed.is("net.ipv4.vs.conntrack", 1) {
        found.push(Finding {
            level: Level::Advice,
            about: "conntrack",
            what: "net.ipv4.vs.conntrack is 1".to_owned(),
            why: "in direct routing and tunnels the director sees half of each connection: the tracker calls it invalid, \
                  and a firewall drops it",
            mend: Mend::ByHand("sysctl -w net.ipv4.vs.conntrack=0, unless a firewall counts on it".to_owned()),
        });
    }
    let tracker = |name: &str| observed.settings.get(&format!("net.netfilter.nf_conntrack_{name}")).copied();
    if let (Some(count), Some(max)) = (tracker("count"), tracker("max"))
        && max > 0
        && count.saturating_mul(100) >= max.saturating_mul(FULL)
    {
        found.push(Finding {
            level: Level::Wrong,
            about: "conntrack_table",
            what: format!("the connection tracker has {count} of {max} entries"),
            why: "when it is full, new connections are dropped before IPVS sees them",
            mend: Mend::ByHand(format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(4))),
        });
    }
}
