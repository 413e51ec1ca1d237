//! EDGE: what this machine calls hosts and services.
//!
//! Owns the questions to its resolver and to `/etc/services`. Refuses to know who asks. Fails with no answer: whoever asks says
//! what for.
//!
//! Each name is asked once. After a few that nobody knows no more are asked for: a resolver that does not answer takes its
//! time for each, and a reload waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs as _};

use super::ldirectord::Names;
use crate::model::{Family, Protocol};

/// Names without an address after which the resolver is left alone.
const MOST_UNKNOWN: usize = 8;
const SERVICES: &str = "/etc/services";

/// The names that this machine knows, and what it has been asked.
#[derive(Debug, Default)]
pub(super) struct Machine {
    hosts: RefCell<BTreeMap<String, Vec<IpAddr>>>,
    services: std::cell::OnceCell<String>,
}

impl Names for Machine {
    fn host(&self, name: &str, family: Family) -> Vec<IpAddr> {
        let mut hosts = self.hosts.borrow_mut();
        if !hosts.contains_key(name) {
            let unknown = hosts.values().filter(|found| found.is_empty()).count();
            let found = if unknown < MOST_UNKNOWN { (name, 0).to_socket_addrs().ok() } else { None };
            let found = found.into_iter().flatten().map(|address| address.ip()).collect();
            hosts.insert(name.to_owned(), found);
        }
        let of_family = |ip: &IpAddr| Family::of(*ip) == family;
        hosts.get(name).into_iter().flatten().copied().filter(of_family).collect()
    }

    fn port(&self, name: &str, protocol: Option<Protocol>) -> Option<u16> {
        let services = self.services.get_or_init(|| std::fs::read_to_string(SERVICES).unwrap_or_default());
        service(services, name, protocol)
    }
}

/// The port of a service by its name or an alias of it (services(5)).
fn service(services: &str, name: &str, protocol: Option<Protocol>) -> Option<u16> {
    let wanted = protocol.map(|protocol| match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    });
    services.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let (first, place) = (words.next()?, words.next()?);
        let (port, carrier) = place.split_once('/')?;
        let is_it = first == name || words.any(|alias| alias == name);
        (is_it && wanted.is_none_or(|wanted| wanted == carrier)).then(|| port.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_port_by_each_of_its_names() {
        let text = "# all\nsmtp 25/tcp mail # x\ndomain\t53/tcp\ndomain 53/udp\nbroken\nodd x/tcp\n";
        for (name, protocol, port) in [
            ("smtp", Some(Protocol::Tcp), Some(25)),
            ("mail", None, Some(25)),
            ("smtp", Some(Protocol::Udp), None),
            ("domain", Some(Protocol::Udp), Some(53)),
            ("x", None, None),
            ("broken", None, None),
            ("odd", None, None),
        ] {
            assert_eq!(service(text, name, protocol), port, "{name}");
        }
    }
}
