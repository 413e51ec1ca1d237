//! `queue`, `latency` and `slow_start`: what says how loaded a server is, and what that does to its weight.
//!
//! Owns their keys, and the rules by which weights would swing. Refuses to know the law itself (`weight/law.rs`). What would
//! swing is refused with the reason.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use config::ValueKind;

use super::fields::{Fields, Raw, Setting};
use super::steps::{file, host_name};
use super::values::{duration, socket_address, text};
use super::vocabulary::{LATENCY, QUEUE, QUEUE_TLS};
use crate::config::{AgentPlan, AgentSource, AgentTls, RealConfig};
use crate::model::{Scheduler, Weight};
use crate::weight::curve::Band;
use crate::weight::law::{LawConfig, QueueLaw, Steps};
use crate::weight::resolution::scale;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// Where `smtp-realserver serve` listens unless told otherwise.
const AGENT_PORT: u16 = 9626;
const INTERVAL: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(5);
const QUEUE_BAND: Band = Band { full_at: Duration::from_secs(10), floor_at: Duration::from_secs(60) };
const LATENCY_BAND: Band = Band { full_at: Duration::from_millis(500), floor_at: Duration::from_secs(5) };
/// Of a server that comes back, where its queue is known.
const SLOW_START: Duration = Duration::from_secs(120);
/// A weight that falls over fewer intervals than this swings (`tests/simulation`).
const LEAST_INTERVALS: u32 = 3;
/// Slots of the kernel's `sh`.
const SH_SLOTS: u64 = 256;

/// Whom to ask for the queue of a server, without the server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Agent {
    Port(u16),
    Address(SocketAddr),
    Command(Vec<String>),
}

/// What the `queue` of a virtual, and of one of its servers, says of the agents.
#[derive(Clone, Debug, Default)]
pub(super) struct QueueLayer {
    /// `None` where nobody is asked.
    agent: Option<Agent>,
    tls: Option<AgentTls>,
    interval: Duration,
    deadline: Duration,
    /// Whether the virtual has a queue at all.
    there: bool,
}

/// Reads what a virtual says of load. The law is `None` where load decides nothing.
pub(super) fn read(fields: &Fields<'_>, scheduler: &Scheduler, floor: u8) -> (QueueLayer, Option<LawConfig>) {
    let table = fields.table("queue", &QUEUE);
    let (layer, queue) = table.as_ref().map(read_queue).unzip();
    let latency = fields.table("latency", &LATENCY);
    let latency =
        latency.as_ref().and_then(|table| read_band(table, &LATENCY_BAND, Duration::from_millis(10)));
    let usual = if queue.is_some() { SLOW_START } else { Duration::ZERO };
    let slow_start = fields.read("slow_start", |raw| duration(raw, Duration::ZERO..=HOUR)).or(usual);
    let queue = queue.flatten();
    let law = LawConfig {
        queue,
        latency,
        slow_start,
        steps: if hashes(scheduler) { Steps::Coarse } else { Steps::Fine },
        floor,
    };
    let decides = law.queue.is_some() || law.latency.is_some() || !slow_start.is_zero();
    (layer.unwrap_or_default(), decides.then_some(law))
}

/// Each change of a weight moves clients to other servers.
fn hashes(scheduler: &Scheduler) -> bool {
    matches!(scheduler, Scheduler::Sh | Scheduler::Mh)
}

fn read_queue(fields: &Fields<'_>) -> (QueueLayer, Option<QueueLaw>) {
    let agent = read_agent(fields).unwrap_or(Agent::Port(AGENT_PORT));
    let tls = fields.table("tls", &QUEUE_TLS);
    if matches!(agent, Agent::Command(_)) {
        fields.refuse(&["tls"], "is for agents that are connected to, not for a command");
    }
    if let Agent::Address(_) = agent {
        fields.refuse(
            &["agent"],
            "each server has an agent of its own; a port here, and addresses in [[virtual.real]]",
        );
    }
    let interval = fields.read("interval", |raw| duration(raw, SECOND..=HOUR));
    let deadline = fields.read("deadline", |raw| duration(raw, Duration::from_millis(10)..=HOUR));
    let layer = QueueLayer {
        agent: Some(agent),
        tls: tls.as_ref().and_then(read_tls),
        interval: interval.or(INTERVAL),
        deadline: deadline.or(DEADLINE.min(interval.or(INTERVAL))),
        there: true,
    };
    let band = read_band(fields, &QUEUE_BAND, SECOND);
    if let (Some(band), Some(interval)) = (band, interval.known_or(INTERVAL)) {
        let width = band.floor_at.saturating_sub(band.full_at);
        let least = interval * LEAST_INTERVALS;
        if width < least {
            fields.rule(format!(
                "queue: from full_at ({}) to floor_at ({}) are less than {LEAST_INTERVALS} intervals of {}: a weight would fall \
                 and rise before its effect is seen, and swing; write floor_at = \"{}\" or more, or a shorter interval",
                show(band.full_at),
                show(band.floor_at),
                show(interval),
                show(band.full_at + least),
            ));
        }
    }
    let interval = layer.interval;
    (layer, band.map(|band| QueueLaw { band, interval }))
}

fn read_band(fields: &Fields<'_>, usual: &Band, shortest: Duration) -> Option<Band> {
    let full_at = fields.read("full_at", |raw| duration(raw, shortest..=DAY));
    let floor_at = fields.read("floor_at", |raw| duration(raw, shortest..=DAY));
    let band =
        Band { full_at: full_at.known_or(usual.full_at)?, floor_at: floor_at.known_or(usual.floor_at)? };
    if band.floor_at <= band.full_at {
        let key = if floor_at.is_absent() { "full_at" } else { "floor_at" };
        let (full_at, floor_at) = (show(band.full_at), show(band.floor_at));
        let message = format!(
            "leaves nothing between full_at ({full_at}) and floor_at ({floor_at}); floor_at is the later"
        );
        fields.refuse_value(key, &message);
        return None;
    }
    Some(band)
}

fn show(time: Duration) -> String {
    humantime::format_duration(time).to_string().replace(' ', "")
}

/// `None` where neither key is there, or one is wrong, which was reported.
fn read_agent(fields: &Fields<'_>) -> Option<Agent> {
    let agent = fields.read("agent", agent);
    let command = fields
        .list("command", |raw| text(raw, "a word of a command such as \"report\"").map(ToOwned::to_owned));
    if let Some((command, _)) = command.given() {
        fields.refuse(&["agent"], "there is a command already; one of both");
        match command.first() {
            Some(program) if program.starts_with('/') => {}
            Some(_) => {
                fields.refuse(&["command"], "its first word is an absolute path such as \"/usr/bin/ssh\"");
            }
            None => fields.refuse(&["command"], "is empty; a path and its arguments"),
        }
        return Some(Agent::Command(command.clone()));
    }
    agent.given().map(|(agent, _)| agent.clone())
}

fn agent(raw: &Raw<'_>) -> Result<Agent, String> {
    match raw.kind {
        ValueKind::String(_) => socket_address(raw, AGENT_PORT).map(Agent::Address),
        _ => super::values::port(raw).map(Agent::Port),
    }
}

fn read_tls(fields: &Fields<'_>) -> Option<AgentTls> {
    let one = |key: &'static str| -> Option<PathBuf> {
        let path: Setting<PathBuf> = fields.read(key, file);
        if path.is_absent() {
            fields.rule(format!(
                "queue.tls: {key} is missing; an agent's TLS is mutual, write ca_file, certificate and key"
            ));
        }
        path.given().map(|(path, _)| path.clone())
    };
    let (ca_file, certificate, key) = (one("ca_file"), one("certificate"), one("key"));
    let name = fields.read("name", host_name);
    let name = name.given().map(|(name, _)| name.clone());
    Some(AgentTls { ca_file: ca_file?, certificate: certificate?, key: key?, name })
}

impl QueueLayer {
    /// Lays the `queue` of one `[[virtual.real]]` over this one.
    pub(super) fn of_real(&self, fields: &Fields<'_>) -> Self {
        let Some(raw) = fields.raw("queue") else { return self.clone() };
        if matches!(raw.kind, ValueKind::String(text) if text == "off") {
            return Self { agent: None, ..self.clone() };
        }
        let Some(table) = fields.table("queue", &QUEUE) else { return self.clone() };
        if !self.there {
            fields.refuse(&["queue"], "its virtual has no queue; write queue = {} there");
            return self.clone();
        }
        table.refuse(
            &["full_at", "floor_at", "interval", "deadline", "tls"],
            "is of the virtual: its servers are compared with each other",
        );
        Self { agent: read_agent(&table).or(self.agent.clone()), ..self.clone() }
    }

    /// Who is asked for the queue of the server with this address.
    pub(super) fn plan(&self, server: IpAddr) -> Option<AgentPlan> {
        let tcp = |address| AgentSource::Tcp { address, tls: self.tls.clone() };
        let source = match self.agent.as_ref()? {
            Agent::Port(port) => tcp(SocketAddr::new(server, *port)),
            Agent::Address(address) => tcp(*address),
            Agent::Command(words) => {
                let mut words = words.iter().map(|word| word.replace("{address}", &server.to_string()));
                AgentSource::Command { program: words.next()?.into(), arguments: words.collect() }
            }
        };
        Some(AgentPlan { source, server, interval: self.interval, deadline: self.deadline })
    }
}

/// The kernel's `sh` gives each server as many of its slots as it has weight: coarse steps need ten for each.
pub(super) fn refuse_slots(
    fields: &Fields<'_>,
    scheduler: &Scheduler,
    (law, reals): (Option<&LawConfig>, &[RealConfig]),
) {
    let bases: Vec<Weight> = reals.iter().map(|real| real.settings.weight).collect();
    let sum: u64 = bases.iter().map(|base| u64::from(base.0)).sum::<u64>() * u64::from(scale(law, &bases));
    if law.is_some() && *scheduler == Scheduler::Sh && sum > SH_SLOTS {
        fields.rule(format!(
            "scheduler: \"sh\" has {SH_SLOTS} slots for the weights of all servers together, and weights that follow load need {sum} \
             here; use \"mh\", or fewer servers"
        ));
    }
}

#[cfg(test)]
mod tests;
