//! EDGE: which settings of the director a probe through the VIP needs, and whether they are there.
//!
//! Owns that knowledge; it was measured on Linux 6.1, case by case. What a server answers has the VIP for its source, which
//! is an address of the director's own where the director is on duty: IPv4 takes such a packet only with `accept_local`,
//! and with strict `rp_filter` only where the VIP is on the interface by which it comes. IPv6 and a director that is not
//! on duty need nothing. What cannot be read is taken for right. Sets nothing.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use checks::Via;
use nix::ifaddrs::getifaddrs;

use crate::config::{CheckPlan, Config};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Observed {
    /// The interface that has the VIP.
    vip_on: Option<String>,
    /// The interface towards the server.
    towards: String,
    /// Of `all` and of that interface; either will do.
    accept_local: [Option<u8>; 2],
    /// Of `all` and of that interface; the greater one holds.
    rp_filter: [Option<u8>; 2],
}

/// A setting that has to be another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Its `sysctl` name.
    pub name: String,
    /// What it has to be.
    pub value: u32,
    /// The interface of the VIP.
    vip_on: String,
}

impl Need {
    /// A setting of the interface towards the servers, for a VIP that is on `vip_on`.
    #[must_use]
    pub fn new(name: String, value: u32, vip_on: &str) -> Self {
        Self { name, value, vip_on: vip_on.to_owned() }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, vip_on } = self;
        write!(
            f,
            "answers through the VIP, which is on {vip_on}, are dropped here: `sysctl -w {name}={value}` mends it"
        )
    }
}

/// What keeps the answer to this probe from arriving, with the command that mends it.
#[must_use]
pub fn missing(plan: &CheckPlan) -> Option<Need> {
    let Via { server, .. } = plan.spec.via?;
    judge(&observe(plan.spec.target.ip(), server)?)
}

/// The same for all probes of a configuration, each once.
#[must_use]
pub fn needs(config: &Config) -> Vec<Need> {
    let reals = config.virtuals.iter().flat_map(|v| &v.reals);
    let mut needs: Vec<Need> = reals.flat_map(|real| &real.checks).filter_map(missing).collect();
    needs.sort_unstable();
    needs.dedup();
    needs
}

fn observe(vip: IpAddr, server: IpAddr) -> Option<Observed> {
    if vip.is_ipv6() {
        return None;
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Nothing is sent: the system only says from which address it would be.
    socket.connect((server, 9)).ok()?;
    let own = socket.local_addr().ok()?.ip();
    let towards = interface_of(own)?;
    let read = |name| ["all", towards.as_str()].map(|interface| ipv4_setting(interface, name));
    Some(Observed {
        vip_on: interface_of(vip),
        accept_local: read("accept_local"),
        rp_filter: read("rp_filter"),
        towards,
    })
}

/// The interface that has this address.
pub(crate) fn interface_of(address: IpAddr) -> Option<String> {
    let has = |storage: &nix::sys::socket::SockaddrStorage| match address {
        IpAddr::V4(v4) => storage.as_sockaddr_in().is_some_and(|found| found.ip() == v4),
        IpAddr::V6(v6) => storage.as_sockaddr_in6().is_some_and(|found| found.ip() == v6),
    };
    let mut found = getifaddrs().ok()?.filter(|one| one.address.as_ref().is_some_and(has));
    found.next().map(|one| one.interface_name)
}

fn ipv4_setting(interface: &str, name: &str) -> Option<u8> {
    fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{interface}/{name}")).ok()?.trim().parse().ok()
}

fn judge(observed: &Observed) -> Option<Need> {
    let Observed { vip_on, towards, accept_local, rp_filter } = observed;
    let vip_on = vip_on.as_ref()?;
    if accept_local.iter().all(|value| *value == Some(0)) {
        let name = format!("net.ipv4.conf.{towards}.accept_local");
        return Some(Need::new(name, 1, vip_on));
    }
    let [all, own] = rp_filter;
    if all.max(own) == &Some(1) && vip_on != towards {
        // The greater one holds, and loose is greater than strict.
        let name = format!("net.ipv4.conf.{towards}.rp_filter");
        return Some(Need::new(name, 2, vip_on));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_what_is_said() {
        // The VIP is on, accept_local of all and eth0, rp_filter of all and eth0, what has to be mended.
        for (vip_on, accept_local, rp_filter, expected) in [
            ("eth0", [0, 0], [0, 0], "eth0.accept_local=1"),
            ("eth0", [0, 1], [1, 1], ""),
            ("eth0", [1, 0], [2, 2], ""),
            ("lo", [0, 0], [1, 1], "eth0.accept_local=1"),
            ("lo", [0, 1], [1, 0], "eth0.rp_filter=2"),
            ("lo", [0, 1], [0, 1], "eth0.rp_filter=2"),
            ("lo", [0, 1], [1, 2], ""),
            ("lo", [0, 1], [0, 0], ""),
            ("", [0, 0], [1, 1], ""),
        ] {
            let observed = Observed {
                vip_on: Some(vip_on.to_owned()).filter(|name| !name.is_empty()),
                towards: "eth0".to_owned(),
                accept_local: accept_local.map(Some),
                rp_filter: rp_filter.map(Some),
            };
            let said = judge(&observed).map(|need| need.to_string()).unwrap_or_default();
            assert_eq!(said.is_empty(), expected.is_empty(), "{observed:?}: {said}");
            assert!(said.contains(expected) && said.len() <= 200, "{said}");
        }
        let unreadable = Observed { accept_local: [None; 2], ..Observed::default() };
        assert_eq!(judge(&unreadable), None);
    }
}
