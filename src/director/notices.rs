//! What an operator must be told of the farm as a whole, once, when it begins and when it is over.
//!
//! Owns the memory of what was told. Refuses to decide anything: it reads the state and the table. Cannot fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use checks::{Reason, Stage};
use tracing::{debug, error, info, warn};

use crate::arp::{Look, Stranger};
use crate::config::{CheckPlan, VirtualConfig};
use crate::health::{self, Transition};
use crate::heard::{HELD, Heard, Word};
use crate::model::{RealId, Table, VirtualId};
use crate::poller::Hearing;
use crate::prober::Report;
use crate::state::{Condition, Finding, State};

/// Who takes the connections of a virtual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    Reals,
    Fallback,
    Nobody,
}

impl Serving {
    /// `None` where the virtual is not in the table.
    fn of(config: &VirtualConfig, table: &Table) -> Option<Self> {
        let have = table.virtuals.get(&config.id)?;
        let takes = |id: &RealId| have.reals.get(id).is_some_and(|s| s.weight.takes_connections());
        Some(if config.reals.iter().any(|real| takes(&real.id)) {
            Self::Reals
        } else if config.fallback.is_some_and(|(id, _)| takes(&id)) {
            Self::Fallback
        } else {
            Self::Nobody
        })
    }
}

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Notices {
    serving: BTreeMap<VirtualId, Serving>,
    held: BTreeMap<VirtualId, BTreeSet<RealId>>,
    cut_off: bool,
    doubted: BTreeSet<VirtualId>,
}

impl Notices {
    /// Says when a virtual has nobody left to serve it, or its fallback, and when that is over. Gives what changed.
    pub(super) fn tell_serving(&mut self, state: &State, table: &Table) -> Vec<(VirtualId, Serving)> {
        let mut changes = Vec::new();
        for config in &state.config().virtuals {
            let Some(now) = Serving::of(config, table) else { continue };
            let before = self.serving.insert(config.id, now);
            if before == Some(now) {
                continue;
            }
            match now {
                Serving::Reals if before.is_some() => {
                    info!("{} is served by its real servers again", config.name);
                }
                Serving::Reals => {}
                Serving::Fallback => warn!("{} is served by its fallback: no real server can", config.name),
                // At a start nobody has been asked yet.
                Serving::Nobody if !state.knows_all() => {
                    self.serving.remove(&config.id);
                    continue;
                }
                Serving::Nobody => {
                    error!("{} is served by NOBODY: no real server can take a connection", config.name);
                }
            }
            changes.push((config.id, now));
        }
        changes
    }

    /// Says when no server answers any more, and when one does again.
    pub(super) fn tell_cut_off(&mut self, state: &State) {
        let cut_off = state.cut_off_since().is_some();
        match (self.cut_off, cut_off) {
            (false, true) => error!(
                "no real server answers: this director is cut off, or all of them are; whoever was up until now keeps \
                 its weight. Look at its links, routes and firewall"
            ),
            (true, false) => info!("real servers answer again"),
            _ => {}
        }
        self.cut_off = cut_off;
    }

    /// Says when nobody answers through a VIP although all are well, and when that is over.
    pub(super) fn tell_doubted(&mut self, state: &State) {
        for config in &state.config().virtuals {
            if !state.is_doubted(config) {
                if self.doubted.remove(&config.id) {
                    info!(
                        "real servers of {} answer through the VIP again, or are not asked any more",
                        config.name
                    );
                }
            } else if self.doubted.insert(config.id) {
                error!(
                    "no real server of {} answers through the VIP, and all of them do without it: a setting, a firewall or \
                     a switch at this director is more likely than the same fault on all. Nobody is taken out for it",
                    config.name
                );
            }
        }
    }

    /// Says when servers that are down are held, and when that is over.
    pub(super) fn tell_held(&mut self, state: &State) {
        for config in &state.config().virtuals {
            let held = state.held(config);
            if self.held.get(&config.id).is_some_and(|before| *before == held) {
                continue;
            }
            if held.is_empty() {
                if self.held.remove(&config.id).is_some() {
                    info!("no real server of {} is held any more", config.name);
                }
                continue;
            }
            let servers = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            error!(
                "{} of {} real servers of {} are down and keep their weight, or too little would be left: {servers}; \
                 look for what they share",
                held.len(),
                config.reals.len(),
                config.name
            );
            self.held.insert(config.id, held);
        }
    }
}

/// Says what one outcome shows for the first time, whatever the state.
/// `of` names the virtuals of the server.
pub(super) fn tell_check(of: impl Fn() -> String, known: &Finding, report: &Report) {
    let Report { plan, outcome, finding, transition, .. } = report;
    let target = plan.spec.server();
    let failure = outcome.verdict.as_ref().err();
    let is_new = |failure| known.failure.as_ref() != Some(failure);
    match failure {
        None => debug!(%target, tier = plan.tier.name(), took = ?outcome.took, "check passed"),
        Some(failure) if failure.reason == Reason::Local && is_new(failure) => {
            warn!(
                "real server {target} of {} cannot be asked, its state stays {}: {failure}",
                of(),
                known.state
            );
        }
        Some(failure) if finding.state == health::State::Up && plan.calls_up(outcome) && is_new(failure) => {
            warn!("real server {target} of {} is up all the same: {failure}", of());
        }
        Some(failure) => {
            debug!(%target, tier = plan.tier.name(), took = ?outcome.took, "check failed: {failure}");
        }
    }
    let slow = |finding: &Finding| finding.greets_late;
    if slow(finding) && !slow(known) && transition.is_none_or(|t| t.to == health::State::Up) {
        let report = outcome.stages.iter().find(|report| report.stage == Stage::Banner);
        let seconds = report.map_or(0.0, |report| report.took.as_secs_f64());
        warn!(
            "real server {target} of {} holds back the end of its banner for {seconds:.1} s: a postscreen that does not \
             know this director. Allow-list it there with postscreen_access_list",
            of()
        );
    }
    if let Some(days) = finding.days_left
        && days < i64::from(plan.warn_days)
        && known.days_left != Some(days)
    {
        match days {
            ..0 => warn!("the certificate of real server {target} of {} has expired", of()),
            0 => warn!("the certificate of real server {target} of {} expires within a day", of()),
            _ => warn!("the certificate of real server {target} of {} expires in {days} days", of()),
        }
    }
}

/// Says what a change in one check changed for its server: nothing, where another check had said it before.
pub(super) fn tell_transition(
    plan: &CheckPlan,
    transition: Transition,
    before: &[(String, Condition)],
    after: &[(String, Condition)],
) {
    let target = plan.spec.server();
    let mut changes: Vec<(health::State, &Condition, Vec<&str>)> = Vec::new();
    for ((name, before), (_, after)) in before.iter().zip(after) {
        if before.state == after.state {
            debug!(
                "real server {target} of {name} is {} still: its {} check went from {} to {}",
                after.state,
                plan.tier.name(),
                transition.from,
                transition.to
            );
            continue;
        }
        match changes.iter_mut().find(|(from, to, _)| *from == before.state && to.state == after.state) {
            Some((_, _, names)) => names.push(name),
            None => changes.push((before.state, after, vec![name])),
        }
    }
    for (from, to, names) in changes {
        let of = names.join(", ");
        match &to.failure {
            Some(failure) if to.state > from && to.state != health::State::Up => {
                let checks = match transition.after {
                    1 => "1 check".to_owned(),
                    more => format!("{more} checks in a row"),
                };
                warn!("real server {target} of {of} is {}: {failure} ({checks})", to.state);
            }
            _ => info!("real server {target} of {of} is {}, was {from}", to.state),
        }
    }
}

/// Says when somebody else begins to answer for a VIP, and when that is over.
pub(super) fn tell_strangers(before: &Look, now: &Look) {
    let each = |look: &Look| -> BTreeSet<(IpAddr, Stranger)> {
        look.iter().flat_map(|(vip, found)| found.iter().map(|one| (*vip, one.clone()))).collect()
    };
    let (before, now) = (each(before), each(now));
    for (vip, stranger) in now.difference(&before) {
        let mend = match stranger.server {
            Some(_) => "it needs net.ipv4.conf.all.arp_ignore = 1 and arp_announce = 2",
            None => "two hosts have the address",
        };
        error!("{stranger} answers for the VIP {vip}: clients reach it past this director; {mend}");
    }
    for (vip, stranger) in before.difference(&now) {
        info!("{stranger} does not answer for the VIP {vip} any more, or nobody is asked");
    }
}

/// Says when an agent is no data any more, and when it is again; and what it changed for its server.
/// `of` names the virtuals of the server.
pub(super) fn tell_agent(
    of: &str,
    (known, hearing): (&Heard, &Hearing),
    before: &[(String, Condition)],
    after: &[(String, Condition)],
) {
    let (server, source) = (hearing.plan.server, &hearing.plan.source);
    let trouble = |heard: &Heard| heard.trouble_word();
    match (trouble(known), trouble(&hearing.heard)) {
        (was, Some(trouble)) if was != Some(trouble) => {
            let text = if hearing.text.is_empty() { String::new() } else { format!(": {}", hearing.text) };
            warn!(
                "no report of the queue of {server} ({of}) from {source}: {}{text}; the last one counts for {HELD} \
                 intervals, then none does",
                trouble.name()
            );
        }
        (Some(_), None) => info!("{source} reports the queue of {server} ({of}) again"),
        _ => {}
    }
    for ((name, before), (_, after)) in before.iter().zip(after) {
        match (before.agent, after.agent) {
            (Word::Down(_), Word::Down(_)) => {}
            (_, Word::Down(_)) => {
                warn!("real server {server} of {name} is out by its agent: {}", hearing.heard.complaint());
            }
            (was, Word::Drained(word)) if was != after.agent => {
                warn!("real server {server} of {name} is drained by its agent: {word}");
            }
            (Word::Down(_) | Word::Drained(_), Word::Serves) => {
                info!("the agent of real server {server} of {name} says that it serves again");
            }
            _ => {}
        }
    }
}

/// Names the virtuals of the table that are not in the configuration: they are left alone, and one of them may be
/// ours from before.
pub(super) fn tell_foreign(state: &State, table: &Table) {
    let owned = state.owned();
    for id in table.virtuals.keys().filter(|id| !owned.contains(id)) {
        warn!("{id} is in the table and not in the configuration; it is left alone, and nobody checks it");
    }
}
