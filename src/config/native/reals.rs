//! `[[virtual.real]]` and `fallback`: servers, and the rules by which a connection can reach them.
//!
//! Owns their keys and what the kernel would refuse of them, or accept and never deliver. Refuses to know how a
//! virtual balances.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use config::ValueKind;

use super::Farm;
use super::canary::Wanted;
use super::check::{Asked, CheckLayer};
use super::fields::{Fields, Setting};
use super::law::QueueLayer;
use super::types::CheckType;
use super::values::{port, real_addresses, whole, word};
use super::vocabulary::{CHECK, FALLBACK, TUNNEL};
use crate::config::diagnostic::Place;
use crate::config::{CheckPlan, DataplaneChoice, RealConfig};
use crate::model::{
    Family, Forward, Protocol, RealId, RealSettings, Tunnel, TunnelChecksum, VirtualId, Weight,
};

/// Words of `forward`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForwardWord {
    Gate,
    Masq,
    Ipip,
}

const FORWARDS: [(&str, ForwardWord); 3] =
    [("gate", ForwardWord::Gate), ("masq", ForwardWord::Masq), ("ipip", ForwardWord::Ipip)];

/// How the real servers of a virtual are reached, unless they say otherwise.
#[derive(Clone, Debug)]
pub(super) struct Route {
    forward: Setting<ForwardWord>,
    tunnel: Setting<Tunnel>,
}

impl Route {
    /// Reads `forward` and `tunnel` of a table over those of the table above it.
    pub(super) fn read(fields: &Fields<'_>, base: Option<&Self>) -> Self {
        let (forward, tunnel) = (fields.read("forward", forward_word), read_tunnel(fields));
        let route = match base {
            None => Self { forward, tunnel: tunnel.clone() },
            Some(base) => Self { forward: forward.over(&base.forward), tunnel: tunnel.over(&base.tunnel) },
        };
        if !tunnel.is_absent() && route.word().is_some_and(|word| word != ForwardWord::Ipip) {
            fields.refuse(&["tunnel"], "is for forward = \"ipip\" only");
        }
        route
    }

    fn word(&self) -> Option<ForwardWord> {
        self.forward.known_or(ForwardWord::Gate)
    }

    fn forward(&self) -> Forward {
        match self.forward.or(ForwardWord::Gate) {
            ForwardWord::Gate => Forward::Gate,
            ForwardWord::Masq => Forward::Masq,
            ForwardWord::Ipip => Forward::Ipip(self.tunnel.or(Tunnel::Ipip)),
        }
    }
}

fn forward_word(raw: &super::fields::Raw<'_>) -> Result<ForwardWord, String> {
    word(raw, &FORWARDS)
}

fn read_tunnel(fields: &Fields<'_>) -> Setting<Tunnel> {
    if !fields.has("tunnel") {
        return Setting::Absent;
    }
    let Some(tunnel) = fields.table("tunnel", &TUNNEL) else { return Setting::Wrong };
    let kind = tunnel.read("type", |raw| word(raw, &[("ipip", "ipip"), ("gue", "gue"), ("gre", "gre")]));
    let port = tunnel.read("port", port);
    let checksums = [
        ("none", TunnelChecksum::None),
        ("csum", TunnelChecksum::Csum),
        ("remcsum", TunnelChecksum::Remcsum),
    ];
    let checksum = tunnel.read("checksum", |raw| word(raw, &checksums)).or(TunnelChecksum::None);
    let value = match (kind.given().map(|(kind, _)| *kind), port.given()) {
        (Some("gue"), Some((port, _))) => Tunnel::Gue { port: *port, checksum },
        (Some("gue"), None) => {
            if port.is_absent() {
                tunnel.rule(
                    "tunnel: port is missing; type \"gue\" needs the UDP port of the real server".into(),
                );
            }
            return Setting::Wrong;
        }
        (Some("gre"), _) => {
            tunnel.refuse(&["port"], "is for tunnels of type \"gue\" only");
            Tunnel::Gre { checksum }
        }
        (Some(_), _) => {
            tunnel.refuse(&["port"], "is for tunnels of type \"gue\" only");
            tunnel.refuse(&["checksum"], "is for tunnels of type \"gue\" and \"gre\" only");
            Tunnel::Ipip
        }
        (None, _) => {
            if kind.is_absent() {
                tunnel.rule("tunnel: type is missing; \"ipip\", \"gue\" or \"gre\"".into());
            }
            return Setting::Wrong;
        }
    };
    Setting::Given(value, tunnel.place)
}

/// What a server needs to know of its virtual. `id` is `None` where it is wrong, and rules keep silent.
pub(super) struct Service<'a> {
    pub(super) farm: &'a Farm<'a>,
    pub(super) place: Place,
    pub(super) id: Option<VirtualId>,
    pub(super) route: Route,
    pub(super) weight: u32,
    pub(super) check: CheckLayer,
    pub(super) queue: QueueLayer,
    pub(super) canary: Option<Wanted>,
    /// Every server so far, and where it stands.
    pub(super) servers: BTreeMap<RealId, Place>,
}

impl Service<'_> {
    /// The port of a server that names none; 0 below a firewall mark.
    fn default_port(&self) -> u16 {
        self.id.and_then(|id| id.port()).unwrap_or(0)
    }

    /// Reads one `[[virtual.real]]`: one server, or those of a range.
    pub(super) fn lower_real(&mut self, fields: &Fields<'_>) -> Vec<RealConfig> {
        let addresses = fields.read("address", real_addresses);
        let port = fields.read("port", port);
        let weight = fields.read("weight", |raw| whole(raw, 0..=Weight::MAX_CONFIGURED)).or(self.weight);
        let route = Route::read(fields, Some(&self.route));
        let (upper_threshold, lower_threshold) = read_thresholds(fields);
        let check = CheckLayer::read(fields.table("check", &CHECK).as_ref(), &self.check);
        let queue = self.queue.of_real(fields);
        if addresses.is_absent() {
            fields.rule("address is missing; write address = \"10.0.0.11\"".into());
        }
        let Some(((ips, written_port), place)) = addresses.given() else { return Vec::new() };
        if written_port.is_some() {
            fields.refuse(&["port"], "is in the address already");
        }
        let port = written_port.or(port.given().map(|(port, _)| *port)).unwrap_or(self.default_port());
        let is_off = matches!(check.kind.given(), Some((CheckType::Off, _)));
        let settings = RealSettings {
            forward: route.forward(),
            weight: Weight(if is_off { 0 } else { weight }),
            upper_threshold,
            lower_threshold,
        };
        let mut said = false;
        let mut reals = Vec::new();
        for ip in ips {
            let target = SocketAddr::new(*ip, port);
            // One sentence for a range: the rest of it has the same cause.
            if let Some(message) = self.refuse(&route, target).filter(|_| !said) {
                self.farm.report.rule(place, format!("address: {message}"));
                said = true;
            }
            if let Some(earlier) = self.servers.insert(RealId(target), place.clone()).filter(|_| !said) {
                let line = self.farm.report.name_of(&earlier);
                self.farm
                    .report
                    .rule(place, format!("address: {target} is in {line} already; each server once"));
                said = true;
            }
            if !self.farm.count_real(place) {
                break;
            }
            let checks = self.plans(&check, target, place);
            let agent = queue.plan(*ip);
            reals.push(RealConfig { id: RealId(target), settings, checks, agent, off: is_off });
        }
        reals
    }

    fn plans(&self, check: &CheckLayer, target: SocketAddr, place: &Place) -> Vec<CheckPlan> {
        let report = &self.farm.report;
        if matches!(self.id, Some(VirtualId::Address { protocol: Protocol::Udp, .. })) {
            match &check.kind {
                Setting::Absent => report.rule(
                    &self.place,
                    "check: a udp virtual needs a type of check: \"dns\", \"radius\", \"sip\", \"ping\", \"external\", \"connect\" \
                     (a TCP connection) or \"on\" (not checked)"
                        .into(),
                ),
                Setting::Given(kind, at) if kind.speaks_smtp() => {
                    let line = report.name_of(&self.place);
                    report.rule(
                        at,
                        format!("type: mail cannot be checked on the udp virtual of {line}; \"connect\" or \"on\""),
                    );
                }
                Setting::Given(..) | Setting::Wrong => {}
            }
        }
        let port = check.port.or(target.port());
        let asked = Asked {
            target: SocketAddr::new(check.address.or(target.ip()), port),
            service: self.id,
            host_name: self.farm.host_name,
        };
        let mut plans = check.plans(&asked).unwrap_or_else(|(at, message)| {
            report.rule(at.as_ref().or(check.kind.place()).unwrap_or(place), message);
            Vec::new()
        });
        let canary = self.canary.as_ref().filter(|_| !plans.is_empty());
        plans.extend(canary.and_then(|canary| check.canary_plan(&asked, canary)));
        let has_port = check.kind.known_or(CheckType::Smtp).is_some_and(CheckType::has_port);
        let is_marked = matches!(self.id, Some(VirtualId::Fwmark { .. }));
        if port == 0 && has_port && is_marked && check.port.is_absent() {
            report.rule(
                place,
                "check: below a fwmark the server has no port of its own; write check = { port = 25 }".into(),
            );
        }
        plans
    }

    /// Why `target` cannot be a server of this virtual.
    fn refuse(&self, route: &Route, target: SocketAddr) -> Option<String> {
        if let Some(kind) = unusable(target.ip()) {
            return Some(format!("{} is {kind}; the address of one server", target.ip()));
        }
        let id = self.id?;
        if let VirtualId::Address { address, .. } = id {
            let wildcard = address.ip().is_unspecified() && target.ip().is_loopback();
            if target == address || wildcard && target.port() == address.port() {
                return Some(format!(
                    "{target} is the virtual itself; its connections would go round in a circle"
                ));
            }
            if target.port() == 0 {
                return Some(format!("{target} has port 0; a port from 1 to 65535"));
            }
        }
        if self.farm.dataplane? == DataplaneChoice::Proxy {
            return None;
        }
        let word = route.word()?;
        if word != ForwardWord::Ipip && Family::of(target.ip()) != id.family() {
            return Some(format!(
                "{} is of another family than the virtual; use forward = \"ipip\" or dataplane = \"proxy\"",
                target.ip()
            ));
        }
        let service = id.port()?;
        let (port, name) = (target.port(), name_of(word));
        (word != ForwardWord::Masq && port != service).then(|| {
            format!(
                "port {port} is not the service port {service}, and forward = \"{name}\" cannot change it; use \
                 forward = \"masq\" or dataplane = \"proxy\""
            )
        })
    }

    /// Reads `fallback`: an address, or a table.
    pub(super) fn lower_fallback(&self, fields: &Fields<'_>) -> Option<(RealId, RealSettings)> {
        let table = match fields.raw("fallback")?.kind {
            ValueKind::Table(_) => fields.table("fallback", &FALLBACK),
            _ => None,
        };
        let (address, forward) = match &table {
            None => (fields.read("fallback", one_address), Setting::Absent),
            Some(table) => (table.read("address", one_address), table.read("forward", forward_word)),
        };
        if let Some(table) = table.as_ref().filter(|_| address.is_absent()) {
            table.rule("fallback: address is missing; write fallback = \"127.0.0.1:25\"".into());
        }
        let ((ip, port), place) = address.given()?;
        let target = SocketAddr::new(*ip, port.unwrap_or(self.default_port()));
        let route = Route { forward: forward.over(&self.route.forward), tunnel: self.route.tunnel.clone() };
        let message = self.refuse(&route, target).or_else(|| {
            let line = self.farm.report.name_of(self.servers.get(&RealId(target))?);
            Some(format!("{target} is a real server in {line} already; another server"))
        });
        if let Some(message) = message {
            self.farm.report.rule(place, format!("fallback: {message}"));
        }
        let settings = RealSettings::new(route.forward(), Weight(1));
        Some((RealId(target), settings))
    }
}

fn one_address(raw: &super::fields::Raw<'_>) -> Result<(IpAddr, Option<u16>), String> {
    match real_addresses(raw)? {
        (ips, port) if ips.len() == 1 => ips.first().map(|ip| (*ip, port)).ok_or_else(String::new),
        _ => Err(format!("{} is a range; one server", raw.shown())),
    }
}

fn name_of(word: ForwardWord) -> &'static str {
    FORWARDS.iter().find(|(_, known)| *known == word).map_or("", |(name, _)| name)
}

/// What keeps an address from being one server's; the kernel refuses all but the unspecified one with EINVAL.
fn unusable(ip: IpAddr) -> Option<&'static str> {
    match ip {
        _ if ip.is_multicast() => Some("a multicast address"),
        _ if ip.is_unspecified() => Some("no address at all"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Thresholds are an int to the kernel, and it refuses a lower one above the upper one (ERANGE).
fn read_thresholds(fields: &Fields<'_>) -> (u32, u32) {
    const MOST: u32 = i32::MAX.unsigned_abs();
    let upper = fields.read("upper_threshold", |raw| whole(raw, 0..=MOST));
    let lower = fields.read("lower_threshold", |raw| whole(raw, 0..=MOST));
    if let (Some(upper), Some((lower, _))) = (upper.known_or(0), lower.given())
        && *lower > upper
    {
        fields.refuse_value("lower_threshold", &format!("is above the upper_threshold, which is {upper}"));
    }
    (upper.or(0), lower.or(0))
}
