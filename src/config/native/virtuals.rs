//! `[[virtual]]`: what it is called, how it balances, and which of that each dataplane can do.
//!
//! Owns the keys of a virtual and the rules between them. Refuses to know how servers are reached (`reals`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use config::ValueKind;

use super::canary::{self, Wanted};
use super::check::CheckLayer;
use super::fields::{Fields, Raw, Setting};
use super::law;
use super::outside::{AlertLayer, command_line, monitor_as};
use super::reals::{Route, Service};
use super::steps::file;
use super::values::{boolean, duration, name, seconds, socket_address, text, whole, word};
use super::vocabulary::{ALERT, CANARY, CHECK, REAL};
use super::{Farm, ON_EXITS};
use crate::config::diagnostic::Place;
use crate::config::{
    DataplaneChoice, MonitorFile, ProxyOptions, ProxyProtocol, RealConfig, Tier, VirtualConfig,
};
use crate::model::{
    Family, Granularity, Persistence, Protocol, Scheduler, SchedulerFlags, VirtualId, VirtualSettings, Weight,
};

const DAY: Duration = Duration::from_secs(86_400);
const SECOND: Duration = Duration::from_secs(1);
/// Of a server that has none of its own: a part of it is a number too, and a percentage.
const WEIGHT: u32 = 100;
/// Percent of the base weight that stays in service whatever soft reasons there are.
const FLOOR: u8 = 50;

/// A virtual, and where its identity and its name stand.
pub(super) struct Lowered {
    pub(super) config: VirtualConfig,
    pub(super) id_place: Place,
    pub(super) name_place: Place,
    /// What its `canary` says.
    pub(super) canary: Option<Wanted>,
    /// Where it says that it wants a probe through the VIP.
    pub(super) vip_check: Option<Place>,
}

/// Reads one `[[virtual]]` with its servers. `None` where it has no usable identity, which was reported.
pub(super) fn lower<'a>(fields: &Fields<'_>, farm: &'a Farm<'a>) -> Option<Lowered> {
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let protocol = fields.read("protocol", |raw| word(raw, &protocols));
    let identity = read_identity(fields, &protocol, farm.dataplane);
    let id = identity.as_ref().map(|(id, _)| *id);
    let settings = read_settings(fields, id);
    // The kernel's sh has 256 slots and gives each server as many of them as it has weight, one after the other: the third
    // with 100 would have what is left, the fourth nothing.
    let usual_weight = if settings.scheduler == Scheduler::Sh { 1 } else { WEIGHT };
    let proxy = read_proxy(fields);
    refuse_of_dataplane(fields, &protocol, &settings.scheduler, farm.dataplane);
    let called = fields.read("name", name);
    let quiescent = fields.read("quiescent", boolean).or(true);
    let floor = fields.read("floor", floor).or(Some(FLOOR));
    let (queue, law) = law::read(fields, &settings.scheduler, floor.unwrap_or(0));
    let on_exit = fields.read("on_exit", |raw| word(raw, &ON_EXITS)).or(farm.on_exit);
    let command = fields.read("fallback_command", command_line);
    let monitor_file = fields.read("monitor_file", file);
    let drain = fields.read("drain", |raw| duration(raw, Duration::ZERO..=DAY)).or(Duration::from_secs(600));

    let alert = AlertLayer::read(fields.table("alert", &ALERT).as_ref(), &farm.alert).alert();

    let mut service = Service {
        farm,
        place: fields.place.clone(),
        id,
        route: Route::read(fields, None),
        weight: fields.read("weight", |raw| whole(raw, 0..=Weight::MAX_CONFIGURED)).or(usual_weight),
        check: CheckLayer::read(fields.table("check", &CHECK).as_ref(), &farm.check)
            .expecting(proxy.protocol),
        queue,
        canary: canary::read(fields.table("canary", &CANARY).as_ref()),
        servers: BTreeMap::new(),
    };
    if !fields.has("real") {
        fields.rule(
            "this virtual has no real server; write [[virtual.real]] and address = \"10.0.0.11\"".into(),
        );
    }
    let mut reals = Vec::new();
    let mut names = BTreeMap::new();
    for real in fields.tables("real", &REAL) {
        let name = real.read("monitor_as", monitor_as);
        let lowered = service.lower_real(&real);
        if let Some((name, _)) = name.given() {
            names.extend(lowered.iter().map(|real| (real.id, name.of(real.id.0.ip()))));
        }
        reals.extend(lowered);
    }
    let fallback = service.lower_fallback(fields);
    if farm.dataplane != Some(DataplaneChoice::Proxy) {
        law::refuse_slots(fields, &settings.scheduler, (law.as_ref(), &reals));
    }
    let canary = service.canary;
    let is_asked = |real: &RealConfig| real.checks.iter().any(|plan| plan.tier == Tier::Canary);
    if let Some(canary) = canary.as_ref().filter(|_| !reals.is_empty() && !reals.iter().any(is_asked)) {
        farm.report.rule(&canary.place, "canary: no server here is asked by SMTP or LMTP".into());
    }
    let vip_check = read_vip_check(fields, id, farm.dataplane);
    let (id, id_place) = identity?;
    Some(Lowered {
        name_place: called.place().unwrap_or(&id_place).clone(),
        config: VirtualConfig {
            name: called.or(default_name(&id)),
            id,
            settings,
            quiescent,
            drain,
            floor,
            law,
            on_exit,
            fallback,
            fallback_command: command.given().map(|(command, _)| command.clone()),
            monitor_file: monitor_file.given().map(|(path, _)| MonitorFile { path: path.clone(), names }),
            alert,
            proxy,
            reals,
        },
        id_place,
        canary,
        vip_check,
    })
}

/// The text of the id; TCP, which all mail is, goes without saying.
fn default_name(id: &VirtualId) -> String {
    match id {
        VirtualId::Address { protocol: Protocol::Tcp, address } => address.to_string(),
        VirtualId::Address { protocol: Protocol::Udp, address } => format!("{address}-udp"),
        VirtualId::Fwmark { mark, family: Family::V4 } => format!("fwmark-{mark}"),
        VirtualId::Fwmark { mark, family: Family::V6 } => format!("fwmark-{mark}-ipv6"),
    }
}

fn read_identity(
    fields: &Fields<'_>,
    protocol: &Setting<Protocol>,
    dataplane: Option<DataplaneChoice>,
) -> Option<(VirtualId, Place)> {
    let address = fields.read("address", |raw| virtual_address(raw, dataplane));
    let fwmark = fields.read("fwmark", |raw| whole(raw, 1..=u32::MAX));
    let families = [("ipv4", Family::V4), ("ipv6", Family::V6)];
    let family = fields.read("family", |raw| word(raw, &families));
    match (address.is_absent(), fwmark.is_absent()) {
        (true, true) => {
            fields.rule("address is missing; write address = \"192.0.2.25:25\", or fwmark = 1".into());
            return None;
        }
        (false, false) => {
            fields.refuse(&["fwmark"], "a virtual has an address or a fwmark, not both");
            return None;
        }
        (false, true) => fields.refuse(&["family"], "is for a fwmark only; an address has its own"),
        (true, false) => {
            fields.refuse(&["protocol"], "is for an address only; a fwmark takes what is marked");
        }
    }
    if let Some((address, place)) = address.given() {
        let protocol = protocol.known_or(Protocol::Tcp)?;
        return Some((VirtualId::Address { protocol, address: *address }, place.clone()));
    }
    let (mark, place) = fwmark.given()?;
    Some((VirtualId::Fwmark { mark: *mark, family: family.known_or(Family::V4)? }, place.clone()))
}

fn virtual_address(raw: &Raw<'_>, dataplane: Option<DataplaneChoice>) -> Result<SocketAddr, String> {
    let address = socket_address(raw, 25)?;
    let ip = address.ip();
    let link_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) || link_local {
        return Err(format!(
            "{} is multicast, broadcast or link-local; the address that clients connect to",
            raw.shown()
        ));
    }
    if ip.is_unspecified() && dataplane.is_some_and(|choice| choice != DataplaneChoice::Proxy) {
        return Err(format!(
            "{} matches no packet in IPVS; one address, or dataplane = \"proxy\"",
            raw.shown()
        ));
    }
    Ok(address)
}

fn read_settings(fields: &Fields<'_>, id: Option<VirtualId>) -> VirtualSettings {
    let schedulers = Scheduler::KNOWN.map(|scheduler| (scheduler.name().to_string(), scheduler));
    let words: Vec<(&str, Scheduler)> =
        schedulers.iter().map(|(name, scheduler)| (name.as_str(), scheduler.clone())).collect();
    let scheduler = fields.read("scheduler", |raw| word(raw, &words));
    let one_packet = fields.read("one_packet", boolean).or(false);
    let is_udp = |id| matches!(id, VirtualId::Address { protocol: Protocol::Udp, .. });
    if one_packet && id.is_some_and(|id| !is_udp(id)) {
        fields.refuse(&["one_packet"], "is for protocol = \"udp\" only");
    }
    VirtualSettings {
        flags: read_flags(fields, &scheduler),
        scheduler: scheduler.or(Scheduler::Wlc),
        one_packet,
        persistence: read_persistence(fields, id.map(|id| id.family())),
    }
}

/// Without `fallback` the clients that hash to a server of weight 0 are refused, so it is the default.
fn read_flags(fields: &Fields<'_>, scheduler: &Setting<Scheduler>) -> SchedulerFlags {
    let words = [("fallback", SchedulerFlags::FALLBACK), ("port", SchedulerFlags::PORT)];
    let flags = fields.list("scheduler_flags", |raw| word(raw, &words));
    let hashes = scheduler.known_or(Scheduler::Wlc).map(|s| matches!(s, Scheduler::Sh | Scheduler::Mh));
    match flags.given() {
        Some((flags, _)) => {
            if hashes == Some(false) {
                fields.refuse(&["scheduler_flags"], "is for the schedulers \"sh\" and \"mh\" only");
            }
            flags.iter().fold(SchedulerFlags::NONE, |all, flag| all.with(*flag))
        }
        None if hashes == Some(true) => SchedulerFlags::FALLBACK,
        None => SchedulerFlags::NONE,
    }
}

fn read_persistence(fields: &Fields<'_>, family: Option<Family>) -> Option<Persistence> {
    let timeout = fields.read("persistence", |raw| seconds(raw, SECOND..=31 * DAY));
    // What the mask may be depends on the family; where that is unknown, nothing can be said of it.
    let netmask = match family {
        Some(family) => fields.read("netmask", |raw| granularity(raw, family)),
        None => Setting::Absent,
    };
    if timeout.is_absent() {
        fields.refuse(&["netmask"], "is for a virtual with persistence only");
    }
    let (timeout, _) = timeout.given()?;
    let granularity = netmask.or(Granularity::host(family.unwrap_or(Family::V4)));
    Some(Persistence { timeout: *timeout, granularity, engine: None })
}

/// The kernel takes any IPv4 mask but 0, with or without gaps, and for IPv6 a prefix length.
fn granularity(raw: &Raw<'_>, family: Family) -> Result<Granularity, String> {
    if family == Family::V6 {
        let prefix = whole(raw, 1..=128)?;
        return u8::try_from(prefix).map(Granularity::V6).map_err(|error| error.to_string());
    }
    let want = "a mask such as \"255.255.255.0\"";
    match text(raw, want)?.parse::<Ipv4Addr>() {
        Ok(mask) if !mask.is_unspecified() => Ok(Granularity::V4(mask)),
        Ok(_) => Err(format!("{} makes all clients one; {want}", raw.shown())),
        Err(_) => Err(format!("{} is not {want}", raw.shown())),
    }
}

/// Where a probe through the VIP is wanted.
fn read_vip_check(
    fields: &Fields<'_>,
    id: Option<VirtualId>,
    dataplane: Option<DataplaneChoice>,
) -> Option<Place> {
    let wanted = fields.read("vip_check", boolean);
    let (wanted, place) = wanted.given()?;
    if dataplane == Some(DataplaneChoice::Proxy) {
        fields.refuse(
            &["vip_check"],
            "no VIP is on the real servers of a proxy; it needs dataplane = \"ipvs\"",
        );
    } else if matches!(id, Some(VirtualId::Fwmark { .. })) {
        fields.refuse(&["vip_check"], "a fwmark does not say which address a client connects to");
    } else if matches!(id, Some(VirtualId::Address { protocol: Protocol::Udp, .. })) {
        fields.refuse(&["vip_check"], "is a TCP connection, which is not for protocol = \"udp\"");
    } else if *wanted {
        return Some(place.clone());
    }
    None
}

/// Percent, or `"off"`.
fn floor(raw: &Raw<'_>) -> Result<Option<u8>, String> {
    match raw.kind {
        ValueKind::String(text) if text == "off" => Ok(None),
        _ => whole(raw, 0..=100)
            .map(|percent| u8::try_from(percent).ok())
            .map_err(|message| format!("{message}; or \"off\"")),
    }
}

fn read_proxy(fields: &Fields<'_>) -> ProxyOptions {
    let versions = [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)];
    let protocol = fields.read("proxy_protocol", |raw| word(raw, &versions));
    let idle = fields.read("idle", |raw| duration(raw, SECOND..=DAY));
    ProxyOptions { protocol: protocol.given().map(|(v, _)| *v), idle: idle.or(Duration::from_secs(900)) }
}

/// Refuses what the dataplane that was asked for cannot do. `auto` may become either and refuses nothing.
fn refuse_of_dataplane(
    fields: &Fields<'_>,
    protocol: &Setting<Protocol>,
    scheduler: &Scheduler,
    dataplane: Option<DataplaneChoice>,
) {
    match dataplane {
        Some(DataplaneChoice::Ipvs) => {
            fields.refuse(
                &["proxy_protocol", "idle"],
                "the kernel cannot; it needs dataplane = \"proxy\" or \"auto\"",
            );
        }
        Some(DataplaneChoice::Proxy) => {
            const REASON: &str = "the proxy cannot; it needs dataplane = \"ipvs\"";
            fields.refuse(&["fwmark", "persistence"], REASON);
            if protocol.given().is_some_and(|(protocol, _)| *protocol == Protocol::Udp) {
                fields.refuse_value(
                    "protocol",
                    "is nothing that the proxy can carry; it needs dataplane = \"ipvs\"",
                );
            }
            if !PROXY_SCHEDULERS.contains(scheduler) {
                let known = PROXY_SCHEDULERS.map(|s| s.name().to_string()).join(", ");
                fields.refuse_value("scheduler", &format!("is not in the proxy; it has {known}"));
            }
        }
        Some(DataplaneChoice::Auto) | None => {}
    }
}

/// What the proxy dataplane can schedule by.
const PROXY_SCHEDULERS: [Scheduler; 7] = [
    Scheduler::Rr,
    Scheduler::Wrr,
    Scheduler::Lc,
    Scheduler::Wlc,
    Scheduler::Sed,
    Scheduler::Nq,
    Scheduler::Sh,
];
