//! A change of the box that can be undone: what it is, the commands that make it, whether it is so.
//!
//! Owns [`Change`], which is also what the record keeps of it. Refuses to make one. The commands are those that a
//! person would type, and those that are run, but for settings, which are written to `/proc/sys` without `sysctl`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::mail::ConfFile;
use super::mail::edit::{again, postconf};
use super::observed::Observed;

/// One change, with what was there before where there was something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Change {
    /// A module of the kernel is loaded; `link` is the interface that comes with it.
    Module { name: String, link: String },
    /// An interface of type dummy is there.
    Dummy { name: String },
    /// A setting of the kernel, by its path below `/proc/sys`.
    Setting { key: String, before: String, after: String },
    /// An interface is up that was down.
    Up { link: String },
    /// A default route; `before` is empty where there was none.
    Route { v6: bool, before: String, after: String },
    /// An address that nobody else needs, with the whole of its length as its prefix.
    Address { ip: IpAddr, link: String, label: Option<String> },
    /// A file of Postfix, whole: what it was and what it is.
    Conf {
        directory: PathBuf,
        file: ConfFile,
        settings: Vec<String>,
        before: String,
        after: String,
        restart: bool,
    },
}

/// How undoing a change begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undo {
    /// It is undone already, or was never made.
    Nothing,
    /// It can be given back.
    GiveBack,
    /// Somebody has changed it since: it is left alone, and this is said.
    Foreign(String),
}

impl Change {
    /// Changes are made in this order and undone in the opposite one, whenever they were recorded: a setting that
    /// hides an address comes before it and stays longer.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Module { .. } => 0,
            Self::Dummy { .. } => 1,
            Self::Setting { .. } => 2,
            Self::Up { .. } => 3,
            Self::Route { .. } => 4,
            Self::Address { .. } => 5,
            Self::Conf { .. } => 6,
        }
    }

    /// What it changes, without the values: two changes of one thing have the same.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::Module { name, .. } => format!("module {name}"),
            Self::Dummy { name } => format!("dummy {name}"),
            Self::Setting { key, .. } => format!("setting {key}"),
            Self::Up { link } => format!("up {link}"),
            // A route is known by its metric; what follows `default` is what may change.
            Self::Route { v6, after, .. } => format!("route {v6} {}", metric(after)),
            Self::Address { ip, link, .. } => format!("address {ip} {link}"),
            Self::Conf { directory, file, .. } => format!("{} of {}", file.name(), directory.display()),
        }
    }

    /// The commands that make it.
    pub(crate) fn commands(&self) -> Vec<Vec<String>> {
        let one = |text: String| vec![text.split(' ').map(str::to_owned).collect()];
        match self {
            Self::Module { name, .. } => one(format!("modprobe {name}")),
            Self::Dummy { name } => one(format!("ip link add {name} type dummy")),
            Self::Setting { key, after, .. } => one(sysctl(key, after)),
            Self::Up { link } => one(format!("ip link set {link} up")),
            Self::Route { v6, after, .. } => one(format!("ip {} route replace {after}", family(*v6))),
            Self::Address { ip, link, label } => {
                let mut text = format!("ip address replace {} dev {link}", whole(*ip));
                if let Some(label) = label {
                    let _ = write!(text, " label {label}");
                }
                if ip.is_ipv6() {
                    // It answers at once: without this it waits for others that may have it, and all have it.
                    text += " nodad";
                }
                one(text)
            }
            Self::Conf { directory, file, settings, restart, .. } => {
                let mut all = vec![postconf(directory, *file, settings)];
                all.extend(again(directory, *restart));
                all
            }
        }
    }

    /// The commands that undo it.
    pub(crate) fn undo_commands(&self) -> Vec<Vec<String>> {
        let one = |text: String| vec![text.split(' ').map(str::to_owned).collect()];
        match self {
            Self::Module { name, .. } => one(format!("modprobe -r {name}")),
            Self::Dummy { name } => one(format!("ip link delete {name} type dummy")),
            Self::Setting { key, before, .. } => one(sysctl(key, before)),
            Self::Up { link } => one(format!("ip link set {link} down")),
            Self::Route { v6, before, after } if before.is_empty() => {
                one(format!("ip {} route delete {after}", family(*v6)))
            }
            Self::Route { v6, before, .. } => one(format!("ip {} route replace {before}", family(*v6))),
            Self::Address { ip, link, .. } => one(format!("ip address delete {} dev {link}", whole(*ip))),
            Self::Conf { directory, file, restart, .. } => {
                // No command gives a file back to the byte.
                let mut all =
                    one(format!("# {} is given back as it was", directory.join(file.name()).display()));
                all.extend(again(directory, *restart));
                all
            }
        }
    }

    /// Whether the box is as it is after the change.
    pub(crate) fn is_so(&self, observed: &Observed) -> bool {
        match self {
            Self::Module { link, .. } => observed.link(link).is_some(),
            Self::Dummy { name } => observed.link(name).is_some_and(|link| link.kind == "dummy"),
            Self::Setting { key, after, .. } => observed.settings.get(key) == Some(after),
            Self::Up { link } => observed.link(link).is_some_and(|link| link.up),
            Self::Route { v6, after, .. } => has_route(observed, *v6, after),
            Self::Address { ip, link, .. } => observed
                .holders(*ip)
                .any(|(holder, address)| holder.name == *link && address.prefix == length(*ip)),
            // A look at the network says nothing of files.
            Self::Conf { .. } => false,
        }
    }

    /// What undoing it has to do, the box being as it is.
    pub(crate) fn undo(&self, observed: &Observed) -> Undo {
        match self {
            Self::Setting { key, before, after } => match observed.settings.get(key) {
                Some(now) if now == before => Undo::Nothing,
                Some(now) if now == after => Undo::GiveBack,
                Some(now) => Undo::Foreign(format!(
                    "{} is {now}, which is neither ours ({after}) nor what it was ({before}): left as it is",
                    dotted(key)
                )),
                None => Undo::Nothing,
            },
            Self::Route { v6, before, after } => {
                if has_route(observed, *v6, after) {
                    Undo::GiveBack
                } else if before.is_empty() || has_route(observed, *v6, before) {
                    Undo::Nothing
                } else {
                    Undo::Foreign(format!(
                        "the default route is another one by now: left as it is ({before})"
                    ))
                }
            }
            Self::Module { name, link } => {
                // Unloading a module takes the interfaces of others with it.
                let others = |kind: &str| {
                    observed.links.iter().filter(|other| other.kind == kind && other.name != *link).count()
                };
                let own = observed.link(link);
                let used = own.is_some_and(|own| own.up || !own.addresses.is_empty());
                match own {
                    None => Undo::Nothing,
                    Some(_) if observed.shared => Undo::Foreign(format!(
                        "the module {name} stays: other networks of this kernel, such as containers, may use it"
                    )),
                    Some(own) if used || others(&own.kind) > 0 => {
                        Undo::Foreign(format!("the module {name} has got other users: it stays"))
                    }
                    Some(_) => Undo::GiveBack,
                }
            }
            Self::Dummy { name } => match observed.link(name) {
                Some(link)
                    if link.kind == "dummy" && link.addresses.iter().any(|address| !own(address.ip)) =>
                {
                    Undo::Foreign(format!("{name} has got other addresses: it stays"))
                }
                _ => self.undo_if_so(observed),
            },
            Self::Up { link } => match observed.link(link) {
                Some(found) if found.up && found.addresses.iter().any(|address| !own(address.ip)) => {
                    Undo::Foreign(format!("{link} has got other addresses: it stays up"))
                }
                _ => self.undo_if_so(observed),
            },
            Self::Address { .. } | Self::Conf { .. } => self.undo_if_so(observed),
        }
    }

    fn undo_if_so(&self, observed: &Observed) -> Undo {
        if self.is_so(observed) { Undo::GiveBack } else { Undo::Nothing }
    }
}

/// A command as a person would type it in a shell.
pub(crate) fn shown(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%#".contains(c);
    let comment = words.first().is_some_and(|word| word == "#");
    let quoted = words.iter().map(|word| {
        if comment || (!word.is_empty() && word.chars().all(plain)) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Addresses that the kernel gives an interface by itself.
fn own(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn has_route(observed: &Observed, v6: bool, line: &str) -> bool {
    observed.defaults.iter().any(|route| route.v6 == v6 && route.line == line)
}

fn metric(line: &str) -> &str {
    line.split_once(" metric ").map_or("0", |(_, tail)| tail.split(' ').next().unwrap_or("0"))
}

/// The length of an address: the prefix of one that has no network.
pub(crate) fn length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// `192.0.2.25/32`.
pub(crate) fn whole(ip: IpAddr) -> String {
    format!("{ip}/{}", length(ip))
}

fn family(v6: bool) -> &'static str {
    if v6 { "-6" } else { "-4" }
}

fn sysctl(key: &str, value: &str) -> String {
    format!("sysctl -w {}={value}", dotted(key))
}

/// A setting as `sysctl` names it. One with a dot in a part of it keeps its slashes, which `sysctl` reads too.
pub(crate) fn dotted(key: &str) -> String {
    if key.contains('.') { key.to_owned() } else { key.replace('/', ".") }
}

#[cfg(test)]
mod tests {
    use super::super::observed::{Address, Link};
    use super::*;

    fn setting() -> Change {
        Change::Setting {
            key: "net/ipv4/conf/all/arp_ignore".to_owned(),
            before: "0".to_owned(),
            after: "1".to_owned(),
        }
    }

    #[test]
    fn the_commands_are_what_a_person_would_type() {
        let address = |ip: &str, label: Option<&str>| Change::Address {
            ip: ip.parse().unwrap(),
            link: "lo".to_owned(),
            label: label.map(str::to_owned),
        };
        let shown =
            |change: &Change| [change.commands(), change.undo_commands()].map(|all| all.concat().join(" "));
        assert_eq!(
            shown(&setting()),
            ["sysctl -w net.ipv4.conf.all.arp_ignore=1", "sysctl -w net.ipv4.conf.all.arp_ignore=0"]
        );
        assert_eq!(
            shown(&address("192.0.2.25", Some("lo:0"))),
            ["ip address replace 192.0.2.25/32 dev lo label lo:0", "ip address delete 192.0.2.25/32 dev lo"]
        );
        assert_eq!(
            shown(&address("2001:db8::25", None))[0],
            "ip address replace 2001:db8::25/128 dev lo nodad"
        );
        let route = |before: &str| Change::Route {
            v6: false,
            before: before.to_owned(),
            after: "default via 10.0.0.2 dev eth0 metric 5 advmss 1440".to_owned(),
        };
        assert_eq!(
            shown(&route("default via 10.0.0.2 dev eth0 metric 5"))[1],
            "ip -4 route replace default via 10.0.0.2 dev eth0 metric 5"
        );
        assert_eq!(
            shown(&route(""))[1],
            "ip -4 route delete default via 10.0.0.2 dev eth0 metric 5 advmss 1440"
        );
        assert_eq!(route("").target(), "route false 5");
        assert_eq!(dotted("net/ipv4/conf/eth0.7/arp_ignore"), "net/ipv4/conf/eth0.7/arp_ignore");
    }

    #[test]
    fn what_somebody_else_changed_is_left_alone() {
        let with = |value: &str| Observed {
            settings: [("net/ipv4/conf/all/arp_ignore".to_owned(), value.to_owned())].into(),
            ..Observed::default()
        };
        assert_eq!(setting().undo(&with("1")), Undo::GiveBack);
        assert_eq!(setting().undo(&with("0")), Undo::Nothing);
        assert!(
            matches!(setting().undo(&with("2")), Undo::Foreign(text) if text.contains("arp_ignore is 2"))
        );
        let mut link =
            Link { name: "mail0".to_owned(), kind: "dummy".to_owned(), up: true, ..Link::default() };
        let dummy = Change::Dummy { name: "mail0".to_owned() };
        let observed = |link: &Link| Observed { links: vec![link.clone()], ..Observed::default() };
        assert_eq!(dummy.undo(&Observed::default()), Undo::Nothing);
        assert_eq!(dummy.undo(&observed(&link)), Undo::GiveBack);
        let address = |ip: &str| Address { ip: ip.parse().unwrap(), prefix: 64, label: None };
        link.addresses.push(address("fe80::1"));
        assert_eq!(dummy.undo(&observed(&link)), Undo::GiveBack);
        link.addresses.push(address("192.0.2.77"));
        assert!(matches!(dummy.undo(&observed(&link)), Undo::Foreign(_)));
    }

    #[test]
    fn what_hides_an_address_is_made_before_it() {
        let address = Change::Address { ip: [192, 0, 2, 25].into(), link: "lo".to_owned(), label: None };
        assert!(setting().rank() < address.rank());
    }
}
