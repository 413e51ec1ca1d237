//! What the director shows of itself: one serialisable picture, from which status and metrics are rendered.
//!
//! Owns the JSON of `/status` (its field names are an interface) and the text table of the `status` command.
//! Refuses to know where the picture goes. Cannot fail.

mod queue;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::arp::{Look, Stranger};
use crate::config::VirtualConfig;
use crate::health;
use crate::heard::Word;
use crate::model::{Dump, Granularity, RealId, RealSettings, SchedulerFlags, VirtualId, VirtualSettings};
use crate::state::{Condition, Known, State};
use crate::weight::Share;

pub use self::queue::{Factors, QueueSnapshot};

/// The whole farm at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of the program.
    pub version: String,
    /// `ipvs` or `proxy`.
    pub dataplane: String,
    /// Whether the last comparison of the table with what is wanted found or made them equal.
    pub in_sync: bool,
    /// Why not, in words.
    pub trouble: Option<String>,
    /// When the table was last found or made as it should be, in seconds since 1970.
    pub last_sync: Option<u64>,
    /// Whether the last reload of the configuration was accepted.
    pub last_reload_ok: bool,
    /// Whether every check has had an answer.
    pub all_known: bool,
    /// Whether no server at all answers, so that nothing follows from it for any.
    pub cut_off: bool,
    /// The VIPs that are on this machine, and who else answers for them; empty where nobody looks.
    #[serde(default)]
    pub vips: Vec<VipSnapshot>,
    /// Whether no canary at all comes back, so that nothing follows from it for any server.
    pub canaries_silent: bool,
    /// Every virtual of the configuration, then those that still drain.
    pub virtuals: Vec<VirtualSnapshot>,
}

/// A VIP on this machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipSnapshot {
    /// The address.
    pub address: String,
    /// Who else answers for it.
    pub strangers: Vec<StrangerSnapshot>,
}

/// Somebody who answers for a VIP and should not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrangerSnapshot {
    /// The address of its network card.
    pub mac: String,
    /// The real server that has this card, if one has.
    pub real: Option<String>,
}

/// One virtual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtualSnapshot {
    /// Its name in the configuration; empty for one that was removed and still drains.
    pub name: String,
    /// `TCP 192.0.2.25:25`, `FWM 7`.
    pub id: String,
    /// Name of the scheduler.
    pub scheduler: String,
    /// All else that is set on it, as `ipvsadm -Ln` writes it: `(mh-fallback) persistent 300 mask 255.255.255.0`.
    pub flags: String,
    /// Connections scheduled since the virtual was made.
    pub connections: u64,
    /// Whether no real server answers through the VIP although all are well, so that nothing follows from it for any.
    #[serde(default)]
    pub vip_doubted: bool,
    /// Its destinations, configured ones first.
    pub reals: Vec<RealSnapshot>,
}

/// What a destination is in the table for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A configured real server.
    Real,
    /// Serves while no real server can.
    Fallback,
    /// Not wanted any more, waits for its connections to end.
    Leaving,
}

/// One destination of one virtual.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RealSnapshot {
    /// Address and port.
    pub address: String,
    /// What it is there for.
    pub role: Role,
    /// `Route`, `Masq`, `Tunnel`.
    pub forward: String,
    /// The weight in the table; `None` when it is not in the table.
    pub weight: Option<u32>,
    /// The weight of the configuration.
    pub configured_weight: u32,
    /// Established connections.
    pub active: u32,
    /// Other connections that the dataplane remembers.
    pub inactive: u32,
    /// Connections scheduled since it was added.
    pub connections: u64,
    /// `up`, `degraded`, `down` or `unknown`; `unchecked` for one without a check.
    pub state: String,
    /// The part of its weight that its checks leave it, 0 to 1; `None` while unknown.
    pub check_factor: Option<f64>,
    /// Whether it is down and keeps its weight all the same: by the floor of soft reasons, or because no server answers.
    pub held: bool,
    /// Seconds since the state changed.
    pub since_seconds: Option<u64>,
    /// Why the last check failed: a word of the fixed vocabulary.
    pub reason: Option<String>,
    /// How far that check got.
    pub stage: Option<String>,
    /// The SMTP code that it got.
    pub code: Option<u16>,
    /// What the server or the system said.
    pub text: Option<String>,
    /// Duration of the last check in milliseconds.
    pub check_ms: Option<f64>,
    /// How long a banner takes, smoothed, in milliseconds.
    pub banner_ms: Option<f64>,
    /// When the certificate ends, in seconds since 1970.
    pub certificate_not_after: Option<i64>,
    /// The part of its weight that its canaries leave it, 0 to 1; `None` while unknown, or where none are sent.
    pub canary_factor: Option<f64>,
    /// How long the last canary that came back took, in milliseconds.
    pub canary_ms: Option<f64>,
    /// For how long a canary has been under way that should be back.
    pub canary_overdue_seconds: Option<u64>,
    /// How the weight came about, in a line.
    #[serde(default)]
    pub why: String,
    /// What each cause leaves of the weight.
    #[serde(default)]
    pub factors: Factors,
    /// What its agent says of its queue; `None` where no agent is asked.
    #[serde(default)]
    pub queue: Option<QueueSnapshot>,
}

/// Pictures the farm: what is wanted and known, over what the table has.
#[must_use]
pub fn picture(now: Instant, state: &State, actual: &Dump) -> Vec<VirtualSnapshot> {
    let configured = state.config().virtuals.iter().map(|v| virtual_picture(now, state, v, actual));
    let retired = state.retired().filter(|id| actual.table.virtuals.contains_key(id));
    configured.chain(retired.map(|id| retired_picture(now, state, id, actual))).collect()
}

/// Pictures who else answers for the VIPs.
#[must_use]
pub fn vips(answered: &Look) -> Vec<VipSnapshot> {
    let shown = |stranger: &Stranger| StrangerSnapshot {
        mac: stranger.mac.to_string(),
        real: stranger.server.map(|server| server.to_string()),
    };
    let vip = |(vip, found): (&IpAddr, &BTreeSet<Stranger>)| VipSnapshot {
        address: vip.to_string(),
        strangers: found.iter().map(shown).collect(),
    };
    answered.iter().map(vip).collect()
}

fn virtual_picture(now: Instant, state: &State, config: &VirtualConfig, actual: &Dump) -> VirtualSnapshot {
    let mut reals: Vec<_> = config
        .reals
        .iter()
        .zip(state.known(&config.id))
        .map(|(real, known)| {
            let mut shown = real_picture(&config.id, real.id, Role::Real, &real.settings, actual);
            shown.held = matches!(known.share, Share::Held(_));
            if real.checks.is_empty() && known.condition.agent == Word::Serves {
                shown.state = "unchecked".to_owned();
            } else {
                describe(&mut shown, now, &known.condition);
            }
            let heard = real.agent.as_ref().and_then(|plan| state.heard(plan));
            queue::describe(&mut shown, now, (known, heard));
            shown
        })
        .collect();
    let configured: BTreeSet<RealId> = config.reals.iter().map(|real| real.id).collect();
    let table = actual.table.virtuals.get(&config.id);
    let others = table.iter().flat_map(|have| &have.reals);
    for (id, settings) in others.filter(|(id, _)| !configured.contains(id)) {
        let fallback = config.fallback.is_some_and(|(fallback, _)| fallback == *id)
            && state.leaving_since(&config.id, id).is_none();
        let role = if fallback { Role::Fallback } else { Role::Leaving };
        reals.push(leaving_picture(now, state, (&config.id, *id, role), settings, actual));
    }
    VirtualSnapshot {
        name: config.name.clone(),
        id: config.id.to_string(),
        scheduler: config.settings.scheduler.to_string(),
        flags: flags(&config.settings),
        connections: actual.counters.virtuals.get(&config.id).map_or(0, |stats| stats.connections),
        vip_doubted: state.is_doubted(config),
        reals,
    }
}

fn retired_picture(now: Instant, state: &State, id: &VirtualId, actual: &Dump) -> VirtualSnapshot {
    let have = actual.table.virtuals.get(id);
    let reals = have.iter().flat_map(|have| &have.reals);
    VirtualSnapshot {
        name: String::new(),
        id: id.to_string(),
        scheduler: have.map(|have| have.settings.scheduler.to_string()).unwrap_or_default(),
        flags: have.map(|have| flags(&have.settings)).unwrap_or_default(),
        connections: actual.counters.virtuals.get(id).map_or(0, |stats| stats.connections),
        vip_doubted: false,
        reals: reals
            .map(|(real, settings)| leaving_picture(now, state, (id, *real, Role::Leaving), settings, actual))
            .collect(),
    }
}

/// The Flags column of `ipvsadm -Ln`.
fn flags(settings: &VirtualSettings) -> String {
    let VirtualSettings { scheduler, flags, one_packet, persistence } = settings;
    let mut words = Vec::new();
    let names = [(SchedulerFlags::FALLBACK, "fallback"), (SchedulerFlags::PORT, "port")];
    let set =
        names.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| format!("{scheduler}-{name}"));
    let set = set.collect::<Vec<_>>().join(",");
    if !set.is_empty() {
        words.push(format!("({set})"));
    }
    if let Some(persistence) = persistence {
        words.push(format!("persistent {}", persistence.timeout));
        match persistence.granularity {
            Granularity::V4(Ipv4Addr::BROADCAST) | Granularity::V6(128) => {}
            Granularity::V4(mask) => words.push(format!("mask {mask}")),
            Granularity::V6(length) => words.push(format!("mask {length}")),
        }
    }
    if *one_packet {
        words.push("ops".to_owned());
    }
    words.join(" ")
}

fn leaving_picture(
    now: Instant,
    state: &State,
    (id, real, role): (&VirtualId, RealId, Role),
    settings: &RealSettings,
    actual: &Dump,
) -> RealSnapshot {
    let mut shown = real_picture(id, real, role, settings, actual);
    shown.state = "unchecked".to_owned();
    shown.since_seconds = state.leaving_since(id, &real).map(|since| now.duration_since(since).as_secs());
    shown
}

fn real_picture(
    id: &VirtualId,
    real: RealId,
    role: Role,
    settings: &RealSettings,
    actual: &Dump,
) -> RealSnapshot {
    let have = actual.table.virtuals.get(id).and_then(|have| have.reals.get(&real));
    let counters = actual.counters.reals.get(&(*id, real)).copied().unwrap_or_default();
    RealSnapshot {
        address: real.to_string(),
        role,
        forward: have.map_or(settings.forward, |have| have.forward).to_string(),
        weight: have.map(|have| have.weight.0),
        configured_weight: settings.weight.0,
        active: counters.active,
        inactive: counters.inactive,
        connections: counters.stats.connections,
        state: String::new(),
        check_factor: None,
        held: false,
        since_seconds: None,
        reason: None,
        stage: None,
        code: None,
        text: None,
        check_ms: None,
        banner_ms: None,
        certificate_not_after: None,
        canary_factor: None,
        canary_ms: None,
        canary_overdue_seconds: None,
        why: String::new(),
        factors: Factors::default(),
        queue: None,
    }
}

fn describe(shown: &mut RealSnapshot, now: Instant, condition: &Condition) {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    condition.state.name().clone_into(&mut shown.state);
    shown.check_factor = factor(condition.checked);
    if let Some(way) = condition.canary {
        shown.canary_factor = factor(way.state);
        shown.canary_ms = way.delay.map(milliseconds);
        let age = |since| now.saturating_duration_since(since).as_secs();
        shown.canary_overdue_seconds = way.overdue_since.map(age);
    }
    shown.since_seconds = condition.since.map(|since| now.duration_since(since).as_secs());
    shown.check_ms = Some(condition.took).filter(|took| !took.is_zero()).map(milliseconds);
    shown.banner_ms = condition.banner.map(milliseconds);
    shown.certificate_not_after = condition.not_after;
    if let Some(failure) = &condition.failure {
        shown.reason = Some(failure.reason.to_string());
        shown.stage = Some(failure.stage.to_string());
        shown.code = failure.code;
        shown.text = Some(failure.text.clone()).filter(|text| !text.is_empty());
    }
}

/// The part of a weight that a state leaves.
fn factor(state: health::State) -> Option<f64> {
    match state {
        health::State::Unknown => None,
        health::State::Up => Some(1.0),
        health::State::Degraded(factor) => Some(factor.ratio()),
        health::State::Down => Some(0.0),
    }
}

/// How much of the picture is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A line a server.
    State,
    /// A second one, that says how its weight came about.
    Why,
}

/// The farm as text, laid out like `ipvsadm -L -n`, with state and reason beside each real server.
#[must_use]
pub fn render(snapshot: &Snapshot, detail: Detail) -> String {
    let mut out = String::new();
    let sync = match (&snapshot.trouble, snapshot.in_sync) {
        (Some(trouble), _) => format!("NOT in sync: {trouble}"),
        (None, true) => "in sync".to_owned(),
        (None, false) => "not compared yet".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ =
        writeln!(out, "smtp-director {}, dataplane {}, table {sync}", snapshot.version, snapshot.dataplane);
    if !snapshot.last_reload_ok {
        let _ = writeln!(
            out,
            "the last reload was REFUSED, an earlier configuration is in force; the log says why"
        );
    }
    if snapshot.cut_off {
        let _ = writeln!(out, "NO real server answers: whoever was up until then keeps its weight");
    }
    for (vip, stranger) in
        snapshot.vips.iter().flat_map(|vip| vip.strangers.iter().map(move |one| (vip, one)))
    {
        let who = stranger.real.as_deref().unwrap_or("another host");
        let _ = writeln!(
            out,
            "{who} ({}) ANSWERS for the VIP {}: clients pass by this director",
            stranger.mac, vip.address
        );
    }
    if snapshot.canaries_silent {
        let _ = writeln!(
            out,
            "NO canary comes back: their way back is the suspect, nothing follows for a server"
        );
    }
    for shown in snapshot.virtuals.iter().filter(|shown| shown.vip_doubted) {
        let _ =
            writeln!(out, "NO real server of {} answers through the VIP: look at this director", shown.name);
    }
    let _ = writeln!(out, "Prot LocalAddress:Port Scheduler Flags  [Name]");
    let _ = writeln!(
        out,
        "  -> {:<28}{:<8}{:>6}{:>11}{:>11}  State",
        "RemoteAddress:Port", "Forward", "Weight", "ActiveConn", "InActConn"
    );
    for shown in &snapshot.virtuals {
        let name = if shown.name.is_empty() { "removed, draining" } else { &shown.name };
        let flags = if shown.flags.is_empty() { String::new() } else { format!(" {}", shown.flags) };
        let _ = writeln!(out, "{} {}{flags}  [{name}]", shown.id, shown.scheduler);
        for real in &shown.reals {
            let weight = real.weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string());
            let _ = writeln!(
                out,
                "  -> {:<28}{:<8}{weight:>6}{:>11}{:>11}  {}",
                real.address,
                real.forward,
                real.active,
                real.inactive,
                state_text(real)
            );
            if detail == Detail::Why && !real.why.is_empty() {
                let _ = writeln!(out, "     {}", real.why);
            }
        }
    }
    out
}

fn state_text(real: &RealSnapshot) -> String {
    let mut text = match real.role {
        Role::Real if real.held => format!("{}, held", real.state),
        Role::Real if real.factors.drained => format!("{}, drained", real.state),
        Role::Real => real.state.clone(),
        Role::Fallback => "fallback".to_owned(),
        Role::Leaving => "leaving".to_owned(),
    };
    if let Some(seconds) = real.since_seconds {
        let _ = write!(text, " {}", age(seconds));
    }
    if let (Some(reason), Some(stage)) = (&real.reason, &real.stage) {
        let _ = write!(text, ": {reason} at {stage}");
        if let Some(said) = &real.text {
            let _ = write!(text, ": {said}");
        }
    }
    text
}

/// A duration as short as `ps` would write it: `7s`, `3m`, `2h`, `5d`.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::native::lower;

    #[test]
    fn flags_are_those_of_ipvsadm() {
        for (options, expected) in [
            ("", ""),
            ("scheduler = \"mh\"", "(mh-fallback)"),
            ("scheduler = \"sh\"\nscheduler_flags = [\"fallback\", \"port\"]", "(sh-fallback,sh-port)"),
            ("persistence = \"5m\"", "persistent 300"),
            ("persistence = \"5m\"\nnetmask = \"255.255.255.0\"", "persistent 300 mask 255.255.255.0"),
            ("protocol = \"udp\"\none_packet = true\ncheck = { type = \"on\" }", "ops"),
        ] {
            let text = format!(
                "[[virtual]]\naddress = \"192.0.2.25:25\"\n{options}\n[[virtual.real]]\naddress = \"10.0.0.11\"\n"
            );
            let config = lower(&text, &[], "director.example").unwrap();
            assert_eq!(flags(&config.virtuals[0].settings), expected, "{options}");
        }
    }

    #[test]
    fn an_age_is_as_short_as_it_can_be() {
        for (seconds, expected) in [(0, "0s"), (59, "59s"), (60, "1m"), (7_199, "1h"), (200_000, "2d")] {
            assert_eq!(age(seconds), expected);
        }
    }
}
