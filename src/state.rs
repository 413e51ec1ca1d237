//! What the director knows, and the table that follows from it.
//!
//! Owns [`State`]: the configuration, the health of every check, and what is on its way out. Refuses to know
//! sockets, tasks and who carries the table; time is an argument. Cannot fail.
//!
//! One law covers a removed server, a removed virtual, a server that is down without `quiescent`, and a
//! fallback that is no longer needed: a destination that is in the table but not wanted gets weight 0 first
//! and is deleted when its active connections are gone, or when the drain time has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use checks::{Failure, Reason, Stage};

use crate::config::{CheckPlan, Config, RealConfig, VirtualConfig};
use crate::health;
use crate::model::{Dump, RealId, RealSettings, Table, Virtual, VirtualId, Weight};
use crate::weight::{Member, Share, weigh};

/// What the last outcomes of a check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Up, down or unknown.
    pub state: health::State,
    /// When it became so; `None` before the first outcome that meant anything.
    pub since: Option<Instant>,
    /// Why it failed last.
    pub failure: Option<Failure>,
    /// How long the last check took.
    pub took: Duration,
}

/// All that decides the table.
#[derive(Debug)]
pub struct State {
    config: Config,
    findings: BTreeMap<CheckPlan, Finding>,
    /// Destinations in the table that are not wanted, and since when.
    leaving: BTreeMap<(VirtualId, RealId), Instant>,
    /// Virtuals that an earlier configuration had and that still drain.
    retired: BTreeMap<VirtualId, Retired>,
}

#[derive(Debug)]
struct Retired {
    drain: Duration,
    /// Looks in a row that did not find it. A dump can skip an entry while others change the table, so one is no proof.
    missed: u8,
}

/// A destination stays at weight 0 at least so long: a handshake that began before is no active connection yet.
const SETTLE: Duration = Duration::from_secs(3);

impl State {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut state =
            Self { config, findings: BTreeMap::new(), leaving: BTreeMap::new(), retired: BTreeMap::new() };
        state.findings = state.fresh_findings();
        state
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every check that is wanted, each once.
    pub fn checks(&self) -> impl Iterator<Item = &CheckPlan> {
        self.findings.keys()
    }

    /// What is known by a check that is wanted.
    #[must_use]
    pub fn finding(&self, plan: &CheckPlan) -> Option<&Finding> {
        self.findings.get(plan)
    }

    /// The virtuals that are ours to change.
    #[must_use]
    pub fn owned(&self) -> BTreeSet<VirtualId> {
        self.config.virtuals.iter().map(|v| v.id).chain(self.retired.keys().copied()).collect()
    }

    /// Whether something waits for its connections to end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        !self.leaving.is_empty() || !self.retired.is_empty()
    }

    /// The virtuals that an earlier configuration had and that still drain.
    pub fn retired(&self) -> impl Iterator<Item = &VirtualId> {
        self.retired.keys()
    }

    /// The real servers of a virtual that are down and keep their weight all the same, by the floor of soft reasons.
    #[must_use]
    pub fn held(&self, now: Instant, config: &VirtualConfig) -> BTreeSet<RealId> {
        let shares = shares(now, config, &self.findings);
        let held = config.reals.iter().zip(shares).filter(|(_, share)| matches!(share, Share::Held(_)));
        held.map(|(real, _)| real.id).collect()
    }

    /// Since when a destination waits for its connections to end.
    #[must_use]
    pub fn leaving_since(&self, id: &VirtualId, real: &RealId) -> Option<Instant> {
        self.leaving.get(&(*id, *real)).copied()
    }

    /// Whether every check had an outcome that meant something.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.findings.values().all(|finding| finding.state != health::State::Unknown)
    }

    /// Takes a finding over; one of a check that is not wanted any more is dropped.
    pub fn absorb(&mut self, plan: &CheckPlan, finding: Finding) {
        if let Some(known) = self.findings.get_mut(plan) {
            *known = finding;
        }
    }

    /// Takes a new configuration over, whole. Equal checks keep what is known; virtuals that are gone retire.
    pub fn reconfigure(&mut self, config: Config) {
        let old = std::mem::replace(&mut self.config, config);
        let mut fresh = self.fresh_findings();
        for (plan, finding) in std::mem::take(&mut self.findings) {
            if let Some(slot) = fresh.get_mut(&plan) {
                *slot = finding;
            }
        }
        self.findings = fresh;
        self.retired.extend(old.virtuals.iter().map(|v| (v.id, Retired { drain: v.drain, missed: 0 })));
        for kept in &self.config.virtuals {
            self.retired.remove(&kept.id);
        }
    }

    fn fresh_findings(&self) -> BTreeMap<CheckPlan, Finding> {
        let reals = self.config.virtuals.iter().flat_map(|v| &v.reals);
        reals.filter_map(|real| real.check.clone()).map(|plan| (plan, Finding::default())).collect()
    }

    /// The table that should be, given the one that is. Remembers what has begun to leave.
    pub fn desired(&mut self, now: Instant, actual: &Dump) -> Table {
        self.retired.retain(|id, retired| {
            retired.missed = if actual.table.virtuals.contains_key(id) { 0 } else { retired.missed + 1 };
            retired.missed < 2
        });
        let mut was_leaving = std::mem::take(&mut self.leaving);
        let mut leave = |id: &VirtualId, drain: Duration, want: &mut Virtual| {
            let Some(have) = actual.table.virtuals.get(id) else { return };
            for (real, settings) in &have.reals {
                if want.reals.contains_key(real) {
                    continue;
                }
                let since = was_leaving.remove(&(*id, *real)).unwrap_or(now);
                self.leaving.insert((*id, *real), since);
                let waited = now.duration_since(since);
                let idle = waited >= SETTLE && actual.in_use(id, real) == 0;
                // Weight 0 comes first, whatever the drain time: a connection could begin before the deletion.
                if settings.weight.takes_connections() || !(idle || waited >= drain) {
                    want.reals.insert(*real, RealSettings { weight: Weight::ZERO, ..*settings });
                }
            }
        };

        let mut table = Table::default();
        for (id, retired) in &self.retired {
            if let Some(have) = actual.table.virtuals.get(id) {
                let mut want = Virtual::new(have.settings.clone());
                leave(id, retired.drain, &mut want);
                if !want.reals.is_empty() {
                    table.virtuals.insert(*id, want);
                }
            }
        }
        for config in &self.config.virtuals {
            let mut want = wanted(now, config, &self.findings, actual.table.virtuals.get(&config.id));
            leave(&config.id, config.drain, &mut want);
            table.virtuals.insert(config.id, want);
        }
        table
    }
}

fn state_of(real: &RealConfig, findings: &BTreeMap<CheckPlan, Finding>) -> health::State {
    match &real.check {
        None => health::State::Up,
        Some(plan) => findings.get(plan).map_or(health::State::Unknown, |finding| finding.state),
    }
}

/// What each real server of a virtual should have, in their order.
fn shares(now: Instant, config: &VirtualConfig, findings: &BTreeMap<CheckPlan, Finding>) -> Vec<Share> {
    let member = |real: &RealConfig| {
        let finding = real.check.as_ref().and_then(|plan| findings.get(plan));
        let state = state_of(real, findings);
        let soft_since = finding
            .filter(|finding| state == health::State::Down && !finding.failure.as_ref().is_some_and(is_hard))
            .and_then(|finding| finding.since);
        Member { base: real.settings.weight, state, soft_since }
    };
    weigh(now, &config.reals.iter().map(member).collect::<Vec<_>>())
}

/// A server that cannot be connected to. All else that can be wrong with one is a soft reason.
fn is_hard(failure: &Failure) -> bool {
    match failure.reason {
        Reason::Refused | Reason::Unreachable => true,
        _ => failure.stage == Stage::Connect,
    }
}

/// Whether the director itself cannot ask: an answer will not come while that lasts.
fn cannot_ask(real: &RealConfig, findings: &BTreeMap<CheckPlan, Finding>) -> bool {
    let finding = real.check.as_ref().and_then(|plan| findings.get(plan));
    finding.and_then(|finding| finding.failure.as_ref()).is_some_and(|f| f.reason == Reason::Local)
}

/// One virtual as it should be, without what is leaving.
fn wanted(
    now: Instant,
    config: &VirtualConfig,
    findings: &BTreeMap<CheckPlan, Finding>,
    have: Option<&Virtual>,
) -> Virtual {
    let table = |real: &RealId| have.and_then(|have| have.reals.get(real));
    let mut want = Virtual::new(config.settings.clone());
    let mut all_asked = true;
    for (real, share) in config.reals.iter().zip(shares(now, config, findings)) {
        let state = state_of(real, findings);
        all_asked &= state != health::State::Unknown || cannot_ask(real, findings);
        let weight = match share {
            Share::Weight(Weight::ZERO) if state == health::State::Down && !config.quiescent => None,
            Share::Weight(weight) | Share::Held(weight) => Some(weight),
            Share::Keep => table(&real.id).map(|settings| settings.weight),
        };
        if let Some(weight) = weight {
            want.reals.insert(real.id, RealSettings { weight, ..real.settings });
        }
    }
    if let Some((fallback, settings)) = config.fallback {
        let served = want.takes_connections();
        let keep = table(&fallback).is_some_and(|settings| settings.weight.takes_connections());
        if !served && (all_asked || keep) {
            want.reals.insert(fallback, settings);
        }
    }
    want
}

#[cfg(test)]
mod tests;
