//! EDGE: whether this box can take what a director sends to the VIP, and keeps quiet about having it.
//!
//! Owns the look at interfaces and their ARP settings. Refuses to change any. Fails by not knowing.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::proc::{Interface, hidden, listens};
use crate::report::QueueReport;
use crate::vitals::Sockets;

/// Writes what is known of the VIPs: of each figure, whether it holds for all of them.
pub(crate) fn look(vips: &[SocketAddr], sockets: Option<&Sockets>, report: &mut QueueReport) {
    let facts = vips.iter().map(|vip| {
        let interfaces = interfaces(vip.ip());
        let local = interfaces.as_ref().map(|all| all.iter().any(|interface| interface.has_vip));
        QueueReport {
            vip_local: local,
            vip_hidden: interfaces.filter(|_| local == Some(true)).and_then(|all| hidden(&all, vip.ip())),
            vip_listens: sockets.map(|sockets| sockets.rows().iter().any(|row| listens(row, *vip))),
            ..QueueReport::default()
        }
    });
    let facts = QueueReport::sum(&facts.collect::<Vec<_>>());
    (report.vip_local, report.vip_hidden, report.vip_listens) =
        (facts.vip_local, facts.vip_hidden, facts.vip_listens);
}

fn interfaces(vip: IpAddr) -> Option<Vec<Interface>> {
    let mut found: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in getifaddrs().ok()? {
        let silent = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP;
        let arp = entry.flags.contains(InterfaceFlags::IFF_UP) && !entry.flags.intersects(silent);
        let interface = found.entry(entry.interface_name.clone()).or_insert_with(|| Interface {
            arp,
            has_vip: false,
            ignore: setting(&entry.interface_name, "arp_ignore"),
            announce: setting(&entry.interface_name, "arp_announce"),
        });
        let address = entry.address.as_ref().and_then(|address| {
            let four = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
        });
        interface.has_vip |= address == Some(vip);
    }
    Some(found.into_values().collect())
}

/// What counts is the larger of an interface's own setting and that of all.
fn setting(interface: &str, name: &str) -> Option<u8> {
    // `eth0:1` is a label of an address, not an interface.
    let interface = interface.split(':').next()?;
    let one = |of: &str| {
        fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{of}/{name}")).ok()?.trim().parse::<u8>().ok()
    };
    Some(one(interface)?.max(one("all")?))
}
