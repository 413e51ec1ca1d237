//! The files by which a real server is one again after a boot: which manager of the network gets which.
//!
//! Owns the texts, the choice of the manager and the mark by which a file of ours is known. Refuses to write a file:
//! `disk` does. Each text is whole: it holds all VIPs, and replaces one of ours that was there.

pub(crate) mod disk;

use std::fmt::Write as _;
use std::net::IpAddr;

use super::change::whole;
use super::wish::{Forward, Wish};

/// Who configures the network at the start of the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Manager {
    /// /etc/network/interfaces, with addresses of the interface itself.
    Ifupdown,
    /// /etc/network/interfaces, with lo:0 and so on as interfaces of their own.
    IfupdownAlias,
    /// systemd-networkd.
    Networkd,
    /// netplan.
    Netplan,
    /// NetworkManager, by a keyfile.
    #[value(name = "networkmanager")]
    Nm,
}

/// What the box has of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traces {
    /// A file in /etc/netplan.
    pub(crate) netplan: bool,
    /// NetworkManager runs.
    pub(crate) network_manager: bool,
    /// systemd-networkd runs.
    pub(crate) networkd: bool,
    /// /etc/network/interfaces is there.
    pub(crate) interfaces: bool,
    /// It reads /etc/network/interfaces.d.
    pub(crate) interfaces_d: bool,
}

/// The manager that a box uses, and how that is known.
pub(crate) fn detect(traces: Traces) -> Result<(Manager, &'static str), String> {
    match traces {
        Traces { netplan: true, .. } => Ok((Manager::Netplan, "/etc/netplan has a file")),
        Traces { network_manager: true, .. } => Ok((Manager::Nm, "NetworkManager runs")),
        Traces { networkd: true, .. } => Ok((Manager::Networkd, "systemd-networkd runs")),
        Traces { interfaces: true, .. } => Ok((Manager::Ifupdown, "there is /etc/network/interfaces")),
        _ => Err("who configures the network of this box is not known: no file in /etc/netplan, neither NetworkManager \
                  nor systemd-networkd runs, and there is no /etc/network/interfaces. Say it by --with"
            .to_owned()),
    }
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Absolute.
    pub(crate) path: String,
    pub(crate) text: String,
    /// For its owner only, as netplan and NetworkManager demand.
    pub(crate) private: bool,
}

const SYSCTL: &str = "/etc/sysctl.d/60-smtp-realserver.conf";
const MODULES: &str = "/etc/modules-load.d/smtp-realserver.conf";
const INTERFACES: &str = "/etc/network/interfaces.d/smtp-realserver";
const NETWORK: &str = "/etc/systemd/network/10-smtp-realserver.network";
const NETDEV: &str = "/etc/systemd/network/10-smtp-realserver.netdev";
const TUNNEL: &str = "/etc/systemd/network/10-smtp-realserver-tunnel.network";
const TUNNEL6: &str = "/etc/systemd/network/10-smtp-realserver-tunnel6.network";
const NETPLAN: &str = "/etc/netplan/60-smtp-realserver.yaml";
const KEYFILE: &str = "/etc/NetworkManager/system-connections/smtp-realserver.nmconnection";

/// Every file that may be ours.
pub(crate) const ALL: [&str; 9] =
    [SYSCTL, MODULES, INTERFACES, NETWORK, NETDEV, TUNNEL, TUNNEL6, NETPLAN, KEYFILE];

/// The files of a wish.
pub(crate) fn texts(wish: &Wish, manager: Manager) -> Result<Vec<Text>, String> {
    if wish.forward == Forward::Masq {
        return Err(
            "with masq there is nothing to write: the default route belongs to the files of your network"
                .to_owned(),
        );
    }
    let text = |path: &str, text: String| Text { path: path.to_owned(), text: marked(&text), private: false };
    let of = |v6| wish.vips.iter().copied().filter(move |vip| vip.is_ipv6() == v6).collect::<Vec<_>>();
    let (four, six) = (of(false), of(true));
    let ipip = wish.forward == Forward::Ipip;
    let mut all = Vec::new();
    if !four.is_empty() {
        let mut settings =
            "net.ipv4.conf.all.arp_ignore = 1\nnet.ipv4.conf.all.arp_announce = 2\n".to_owned();
        if ipip {
            // With a minus it is no fault where the interface is not there yet.
            settings += "-net.ipv4.conf.tunl0.rp_filter = 2\n";
        }
        all.push(text(SYSCTL, settings));
    }
    if ipip {
        let names = [("ipip\n", &four), ("ip6_tunnel\n", &six)];
        let needed = names.iter().filter(|(_, vips)| !vips.is_empty()).map(|(name, _)| *name);
        all.push(text(MODULES, needed.collect()));
    }
    match manager {
        Manager::Ifupdown => all.push(text(INTERFACES, ifupdown(wish, &four, &six))),
        Manager::IfupdownAlias if wish.dummy.is_some() || ipip => {
            return Err("aliases are of lo: without --dummy, and with --forward gate".to_owned());
        }
        Manager::IfupdownAlias => all.push(text(INTERFACES, aliases(&four, &six))),
        Manager::Networkd => {
            if let Some(name) = &wish.dummy {
                all.push(text(NETDEV, format!("[NetDev]\nName={name}\nKind=dummy\n")));
            }
            all.push(text(NETWORK, network(wish.place(), &wish.vips)));
            for (vips, path, link) in [(&four, TUNNEL, "tunl0"), (&six, TUNNEL6, "ip6tnl0")] {
                if ipip && !vips.is_empty() {
                    all.push(text(path, network(link, vips)));
                }
            }
        }
        Manager::Netplan if wish.dummy.is_some() || ipip => {
            return Err("netplan has no words for it: --with networkd, which netplan leaves alone".to_owned());
        }
        Manager::Netplan => {
            let list: String =
                wish.vips.iter().map(|vip| format!("        - \"{}\"\n", whole(*vip))).collect();
            let yaml = format!(
                "network:\n  version: 2\n  ethernets:\n    lo:\n      match:\n        name: lo\n      addresses:\n{list}"
            );
            all.push(Text { private: true, ..text(NETPLAN, yaml) });
        }
        Manager::Nm if ipip => {
            return Err("NetworkManager leaves tunl0 alone: --with networkd or ifupdown".to_owned());
        }
        Manager::Nm => {
            all.push(Text { private: true, ..text(KEYFILE, keyfile(wish, &four, &six)) });
        }
    }
    Ok(all)
}

/// Stanzas for interfaces(5). The settings come first: before the address, as `up` does it.
fn ifupdown(wish: &Wish, four: &[IpAddr], six: &[IpAddr]) -> String {
    let mut text = String::new();
    let place = wish.place();
    let mut links = vec![(place, four, six)];
    if wish.forward == Forward::Ipip {
        links.extend([("tunl0", four, &[][..]), ("ip6tnl0", &[][..], six)]);
    }
    for (link, four, six) in links {
        if four.is_empty() && six.is_empty() {
            continue;
        }
        let _ = writeln!(text, "auto {link}");
        for (family, vips) in [("inet", four), ("inet6", six)] {
            for (number, vip) in vips.iter().enumerate() {
                let _ = writeln!(text, "iface {link} {family} static\n    address {}", whole(*vip));
                if number == 0 && family == "inet" {
                    let _ = writeln!(text, "    pre-up sysctl -q -p {SYSCTL}");
                }
                if number == 0 && wish.dummy.is_some() && link == place {
                    let _ = writeln!(
                        text,
                        "    pre-up ip link show dev {link} >/dev/null 2>&1 || ip link add {link} type dummy"
                    );
                }
            }
        }
    }
    text
}

/// The form of 2008, one interface an address; ifupdown takes no alias of IPv6.
fn aliases(four: &[IpAddr], six: &[IpAddr]) -> String {
    let mut text = String::new();
    for (number, vip) in four.iter().enumerate() {
        let _ = writeln!(
            text,
            "auto lo:{number}\niface lo:{number} inet static\n    address {vip}\n    netmask 255.255.255.255\n    \
             pre-up sysctl -p {SYSCTL} > /dev/null"
        );
    }
    if !six.is_empty() {
        text += "auto lo\n";
    }
    for vip in six {
        let _ = writeln!(text, "iface lo inet6 static\n    address {}", whole(*vip));
    }
    text
}

fn network(link: &str, vips: &[IpAddr]) -> String {
    let mut text = format!("[Match]\nName={link}\n\n[Network]\n");
    if link != "lo" {
        text += "LinkLocalAddressing=no\nIPv6AcceptRA=no\n";
    }
    for vip in vips {
        let _ = writeln!(text, "Address={}", whole(*vip));
    }
    text
}

fn keyfile(wish: &Wish, four: &[IpAddr], six: &[IpAddr]) -> String {
    let (kind, link) = if wish.dummy.is_some() { ("dummy", wish.place()) } else { ("loopback", "lo") };
    let mut text =
        format!("[connection]\nid=smtp-realserver\ntype={kind}\ninterface-name={link}\nautoconnect=true\n");
    for (family, vips) in [("ipv4", four), ("ipv6", six)] {
        let none = if kind == "loopback" { "auto" } else { "disabled" };
        let method = if vips.is_empty() { none } else { "manual" };
        let _ = write!(text, "\n[{family}]\nmethod={method}\n");
        for (number, vip) in vips.iter().enumerate() {
            let _ = writeln!(text, "address{}={}", number + 1, whole(*vip));
        }
    }
    text
}

const MARK: &str =
    "# Written by smtp-realserver persist, which also removes it; left alone when changed by hand. Mark ";

/// A text below the mark of its content.
pub(crate) fn marked(text: &str) -> String {
    format!("{MARK}{:016x}\n{text}", digest(text))
}

/// What a file is that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Written by us, and unchanged.
    Ours,
    /// Written by us, and changed since.
    Changed,
    /// Of somebody else.
    Other,
}

/// Whose a text is.
pub(crate) fn owner(text: &str) -> Owner {
    let Some((head, rest)) = text.split_once('\n') else { return Owner::Other };
    match head.strip_prefix(MARK) {
        None => Owner::Other,
        Some(mark) if *mark == format!("{:016x}", digest(rest)) => Owner::Ours,
        Some(_) => Owner::Changed,
    }
}

/// FNV-1a: it guards against forgetting, not against forging.
fn digest(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_mark_until_it_is_changed() {
        let text = marked("a = 1\n");
        assert_eq!(owner(&text), Owner::Ours);
        assert_eq!(owner(&text.replace("a = 1", "a = 2")), Owner::Changed);
        assert_eq!(owner("a = 1\n"), Owner::Other);
        assert_eq!(owner(""), Owner::Other);
    }

    #[test]
    fn the_manager_is_the_one_that_the_box_uses() {
        let none = Traces::default();
        assert!(detect(none).unwrap_err().contains("--with"));
        for (traces, expected) in [
            (Traces { interfaces: true, ..none }, Manager::Ifupdown),
            (Traces { interfaces: true, networkd: true, ..none }, Manager::Networkd),
            (Traces { interfaces: true, network_manager: true, ..none }, Manager::Nm),
            (Traces { netplan: true, networkd: true, ..none }, Manager::Netplan),
        ] {
            assert_eq!(detect(traces).unwrap().0, expected);
        }
    }

    #[test]
    fn the_alias_is_the_stanza_that_people_know() {
        let wish = Wish {
            forward: Forward::Gate,
            vips: vec!["192.168.0.100".parse().unwrap()],
            dummy: None,
            directors: Vec::new(),
        };
        let all = texts(&wish, Manager::IfupdownAlias).unwrap();
        let body = all[1].text.split_once('\n').unwrap().1;
        assert_eq!(
            body,
            "auto lo:0\niface lo:0 inet static\n    address 192.168.0.100\n    netmask 255.255.255.255\n    \
             pre-up sysctl -p /etc/sysctl.d/60-smtp-realserver.conf > /dev/null\n"
        );
    }
}
