//! Who else answers for a VIP.
//!
//! Owns what is looked for ([`Targets`]) and what is found ([`Look`], by [`judge`]). Refuses to know sockets: `wire` has the
//! bytes of the kernel's neighbour table, `watch` asks. Cannot fail.
//!
//! A real server that lost `arp_ignore` answers ARP for the VIP on its `lo`: some clients then go to it past the director,
//! others to the director, and nobody's check notices. The kernel itself can be asked to ask who has an address, also one of
//! its own, with CAP_NET_ADMIN and no raw socket: who answers stands in the neighbour table, beside the real servers.

pub mod watch;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::config::Config;
use crate::model::{Forward, VirtualId};

/// The address of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One row of the neighbour table that has a link address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface.
    pub link: u32,
    /// Whose.
    pub address: IpAddr,
    /// What answers for it.
    pub mac: Mac,
}

/// What to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// How often; `None` never.
    pub every: Option<Duration>,
    /// The VIPs that real servers have too.
    pub vips: BTreeSet<IpAddr>,
    /// The real servers that have them.
    pub servers: BTreeSet<IpAddr>,
}

impl Targets {
    /// Of all virtuals in which the real servers have the VIP.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let mut targets = Self { every: config.arp_watch, ..Self::default() };
        for found in &config.virtuals {
            let VirtualId::Address { address, .. } = found.id else { continue };
            let has_vip = |forward| matches!(forward, Forward::Gate | Forward::Ipip(_));
            let reals = found.reals.iter().filter(|real| has_vip(real.settings.forward));
            let servers: Vec<IpAddr> = reals.map(|real| real.id.0.ip()).collect();
            if !servers.is_empty() {
                targets.vips.insert(address.ip());
                targets.servers.extend(servers);
            }
        }
        targets
    }
}

/// Somebody who answers for a VIP and should not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stranger {
    /// The address of its network card.
    pub mac: Mac,
    /// The real server that has this card, if one has.
    pub server: Option<IpAddr>,
}

/// The VIPs of this machine that were asked for, and who else answers for each.
pub type Look = BTreeMap<IpAddr, BTreeSet<Stranger>>;

/// Reads the neighbour table after the VIPs in `asked` were asked for. `own` are the cards of this machine: one with a second
/// card on the same network, or with a virtual one for the VIP, answers itself.
#[must_use]
pub fn judge(targets: &Targets, asked: &BTreeSet<IpAddr>, own: &BTreeSet<Mac>, table: &[Neighbour]) -> Look {
    let server = |mac: Mac| {
        let mut has = table.iter().filter(|row| row.mac == mac && targets.servers.contains(&row.address));
        has.next().map(|row| row.address)
    };
    let strangers = |vip: &IpAddr| {
        let answers = table.iter().filter(|row| row.address == *vip && !own.contains(&row.mac));
        answers.map(|row| Stranger { mac: row.mac, server: server(row.mac) }).collect()
    };
    asked.iter().map(|vip| (*vip, strangers(vip))).collect()
}

/// In words: `real server 192.0.2.12 (02:00:00:00:00:12)`.
impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.server {
            Some(server) => write!(f, "real server {server} ({})", self.mac),
            None => write!(f, "a host with the card {}", self.mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::native::lower;

    #[test]
    fn who_answers_is_named_by_its_card() {
        let text = "[[virtual]]\naddress = \"192.0.2.25:25\"\n[[virtual.real]]\naddress = \"192.0.2.11-192.0.2.12\"\n\
                    [[virtual]]\naddress = \"192.0.2.26:25\"\nforward = \"masq\"\n[[virtual.real]]\naddress = \"192.0.2.13\"\n";
        let targets = Targets::of(&lower(text, &[], "director.example").unwrap());
        let ip = |last| IpAddr::from([192, 0, 2, last]);
        assert_eq!(targets.vips, [ip(25)].into(), "behind NAT the VIP is the director's alone");
        let row = |last, card| Neighbour { link: 2, address: ip(last), mac: Mac([2, 0, 0, 0, 0, card]) };
        let (asked, own) = ([ip(25)].into(), [Mac([2, 0, 0, 0, 0, 1])].into());
        let look = |rows: &[Neighbour]| {
            let found = judge(&targets, &asked, &own, rows).remove(&ip(25)).unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let usual = [row(11, 0x11), row(12, 0x12), row(1, 0xfe)];
        assert_eq!(look(&usual), [""; 0]);
        assert_eq!(look(&[&usual[..], &[row(25, 1)]].concat()), [""; 0], "a card of our own");
        assert_eq!(
            look(&[&usual[..], &[row(25, 0x12)]].concat()),
            ["real server 192.0.2.12 (02:00:00:00:00:12)"]
        );
        assert_eq!(
            look(&[&usual[..], &[row(25, 0xaa)]].concat()),
            ["a host with the card 02:00:00:00:00:aa"]
        );
    }
}
