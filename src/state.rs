//! What the director knows, and the table that follows from it.
//!
//! Owns [`State`]: the configuration, the health of every check, and what is on its way out. Refuses to know
//! sockets, tasks and who carries the table; time is an argument. Cannot fail.
//!
//! One law covers a removed server, a removed virtual, a server that is down without `quiescent`, and a
//! fallback that is no longer needed: a destination that is in the table but not wanted gets weight 0 first
//! and is deleted when its active connections are gone, or when the drain time has passed.

mod doubt;
mod maintained;
mod silence;
mod weighing;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use checks::{Failure, Outcome, Reason, Stage};

use self::doubt::Doubt;
pub use self::maintained::Maintained;
use self::silence::CutOff;
pub use self::weighing::Known;
use self::weighing::Scales;
use crate::config::{AgentPlan, CheckPlan, Config, OnExit, RealConfig, Tier, VirtualConfig};
use crate::health;
use crate::heard::{Heard, Word};
use crate::model::{Dump, RealId, RealSettings, Table, Virtual, VirtualId, Weight};
use crate::verdict::Verdicts;
use crate::weight::{Share, Standing};

/// What the last outcomes of a check came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// What is known.
    pub state: health::State,
    /// When it became so; `None` before the first outcome that meant anything.
    pub since: Option<Instant>,
    /// What was known before that.
    pub was: health::State,
    /// Whether it is down because it cannot be connected to. Every other reason is soft.
    pub gone: bool,
    /// Why it failed last.
    pub failure: Option<Failure>,
    /// When the last outcome came.
    pub asked: Option<Instant>,
    /// Whether it was a failure of the server.
    pub failed: bool,
    /// How long the last check took.
    pub took: Duration,
    /// Since when no outcome comes from the other side of the network: no answer to a connection, or no way to ask.
    pub unanswered_since: Option<Instant>,
    /// How long a banner takes, smoothed.
    pub banner: Option<Duration>,
    /// Whether the server greets as a postscreen does that does not know us: a first line, and seconds later the last.
    pub greets_late: bool,
    /// When the certificate ends, in seconds since 1970.
    pub not_after: Option<i64>,
    /// Whole days until then, when it was last seen.
    pub days_left: Option<i64>,
    /// How long the last canary that came back took.
    pub delay: Option<Duration>,
    /// When the oldest canary was sent that should be back and is not.
    pub overdue_since: Option<Instant>,
}

impl Finding {
    /// What a single check finds, of a server of which nothing was known.
    #[must_use]
    pub fn of_one(now: Instant, verdicts: &Verdicts, outcome: Outcome) -> Self {
        let mut finding = Self::default();
        finding.learn(now, &outcome);
        finding.state = verdicts.of(&outcome).map_or(health::State::Unknown, |cell| cell.verdict.into());
        finding.since = Some(now);
        finding.gone = outcome.verdict.as_ref().err().is_some_and(health::is_unreached);
        finding.failure = outcome.verdict.err();
        finding
    }

    /// Whether an outcome shows nothing but that no answer came from the network.
    fn is_unanswered(outcome: &Outcome) -> bool {
        let Err(Failure { stage, reason, text, .. }) = &outcome.verdict else { return false };
        match stage {
            Stage::Connect | Stage::Echo => {
                matches!(reason, Reason::Unreachable | Reason::Timeout | Reason::Local)
            }
            // A question in a datagram has no connection before it; a text tells of answers that were none.
            Stage::Request => *reason == Reason::Timeout && outcome.stages.is_empty() && text.is_empty(),
            _ => false,
        }
    }

    /// Takes over from an outcome all that does not depend on what came before it, and what is smoothed.
    pub fn learn(&mut self, now: Instant, outcome: &Outcome) {
        self.asked = Some(now);
        self.took = outcome.took;
        self.failed = outcome.verdict.as_ref().err().is_some_and(|failure| failure.reason != Reason::Local);
        let unanswered = Self::is_unanswered(outcome);
        self.unanswered_since = self.unanswered_since.filter(|_| unanswered).or(unanswered.then_some(now));
        if let Some(took) = outcome.banner_took() {
            // As TCP smooths its round trips (RFC 6298): an eighth of the news.
            self.banner = Some(self.banner.map_or(took, |known| (known * 7 + took) / 8));
        }
        if let Some(greeting) = outcome.stages.iter().find(|report| report.stage == Stage::Banner) {
            self.greets_late = greeting.took >= POSTSCREEN && greeting.received.len() > 1;
        }
        if let Some(tls) = &outcome.tls {
            (self.not_after, self.days_left) = (tls.not_after, tls.days_left);
        }
    }
}

/// All that is known of one real server, from all its checks.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The worst that is known.
    pub state: health::State,
    /// The worst that its checks know.
    pub checked: health::State,
    /// What its agent says.
    pub agent: Word,
    /// Since when.
    pub since: Option<Instant>,
    /// Why, or what is wrong although it is up.
    pub failure: Option<Failure>,
    /// How long the last check of the first tier took.
    pub took: Duration,
    /// How long a banner takes, smoothed.
    pub banner: Option<Duration>,
    /// When the certificate ends, in seconds since 1970.
    pub not_after: Option<i64>,
    /// What its canaries show, where there are any.
    pub canary: Option<Way>,
    /// What that means for a weight.
    pub standing: Standing,
}

/// What the canaries of a server show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Way {
    /// What is known by them.
    pub state: health::State,
    /// How long the last that came back took.
    pub delay: Option<Duration>,
    /// When the oldest was sent that should be back and is not.
    pub overdue_since: Option<Instant>,
}

/// All that decides the table.
#[derive(Debug)]
pub struct State {
    config: Config,
    findings: BTreeMap<CheckPlan, Finding>,
    heard: BTreeMap<AgentPlan, Heard>,
    /// How the servers of each virtual were weighed last.
    scales: BTreeMap<VirtualId, Scales>,
    /// Destinations in the table that are not wanted, and since when.
    leaving: BTreeMap<(VirtualId, RealId), Instant>,
    /// Virtuals that an earlier configuration had and that still drain.
    retired: BTreeMap<VirtualId, Retired>,
    /// Checks that fell silent together with all others. What they found says nothing, until one that began after the
    /// silence has failed.
    excused: BTreeSet<CheckPlan>,
    /// Who is out whatever the checks say.
    maintained: BTreeSet<Maintained>,
    /// Real servers that have been in the table by this configuration.
    placed: BTreeSet<(VirtualId, RealId)>,
    /// Since when somebody answers; `None` while nobody does.
    answered: Option<Instant>,
    /// Private services in the table that are wanted no more.
    stale: BTreeSet<VirtualId>,
}

#[derive(Debug)]
struct Retired {
    drain: Duration,
    /// Looks in a row that did not find it. A dump can skip an entry while others change the table, so one is no proof.
    missed: u8,
}

/// A destination stays at weight 0 at least so long: a handshake that began before is no active connection yet.
const SETTLE: Duration = Duration::from_secs(3);

/// `postscreen_greet_wait` is 6 s, or 2 s under stress.
const POSTSCREEN: Duration = Duration::from_millis(1_900);

/// How far what the checks of a virtual find is believed.
type Trust = (Option<CutOff>, Doubt);

impl State {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut state = Self {
            config,
            findings: BTreeMap::new(),
            heard: BTreeMap::new(),
            scales: BTreeMap::new(),
            leaving: BTreeMap::new(),
            retired: BTreeMap::new(),
            excused: BTreeSet::new(),
            maintained: BTreeSet::new(),
            placed: BTreeSet::new(),
            answered: None,
            stale: BTreeSet::new(),
        };
        state.findings = state.fresh_findings();
        state.heard = state.fresh_heard();
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
        let farm = self.config.virtuals.iter().map(|v| v.id).chain(self.retired.keys().copied());
        farm.chain(self.private()).collect()
    }

    /// Those of them that serve nobody: they are no part of the farm.
    pub fn private(&self) -> impl Iterator<Item = VirtualId> + '_ {
        self.config.vip.services.keys().chain(&self.stale).copied()
    }

    /// The virtuals that end with the daemon.
    #[must_use]
    pub fn to_remove(&self) -> BTreeSet<VirtualId> {
        let own = self.config.virtuals.iter().map(|v| (v.id, v.on_exit));
        let retired = self.retired.keys().map(|id| (*id, self.config.on_exit));
        own.chain(retired).filter(|(_, on_exit)| *on_exit == OnExit::Remove).map(|(id, _)| id).collect()
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

    /// Every agent that is wanted, each once.
    pub fn agents(&self) -> impl Iterator<Item = &AgentPlan> {
        self.heard.keys()
    }

    /// What is known by an agent that is wanted.
    #[must_use]
    pub fn heard(&self, plan: &AgentPlan) -> Option<&Heard> {
        self.heard.get(plan)
    }

    /// Takes over what is known by an agent; of one that is not wanted any more it is dropped.
    pub fn hear(&mut self, plan: &AgentPlan, heard: Heard) {
        if let Some(known) = self.heard.get_mut(plan) {
            *known = heard;
        }
    }

    /// All that is known of a real server.
    #[must_use]
    pub fn condition(&self, now: Instant, config: &VirtualConfig, real: &RealConfig) -> Condition {
        self.condition_in(now, real, (self.cut_off(), self.doubt(config)))
    }

    fn condition_in(&self, now: Instant, real: &RealConfig, trust: Trust) -> Condition {
        let condition = self.checked(real, trust);
        let heard = real.agent.as_ref().and_then(|plan| Some((self.heard.get(plan)?, plan.interval)));
        let Some((heard, interval)) = heard else { return condition };
        let agent = heard.word(now, interval);
        match (agent, condition.standing) {
            (Word::Down(since), Standing::Up | Standing::Degraded(_)) => {
                let text = heard.complaint().to_owned();
                let failure = Failure { stage: Stage::Agent, reason: Reason::Failed, code: None, text };
                Condition {
                    state: health::State::Down,
                    agent,
                    since: Some(since),
                    failure: Some(failure),
                    standing: Standing::Sick(since),
                    ..condition
                }
            }
            (Word::Drained(_), Standing::Up | Standing::Degraded(_) | Standing::Sick(_)) => {
                Condition { agent, standing: Standing::Drained, ..condition }
            }
            _ => Condition { agent, ..condition },
        }
    }

    /// What is known by the checks of a server.
    fn checked(&self, real: &RealConfig, (cut_off, doubt): Trust) -> Condition {
        let known: Vec<(&CheckPlan, &Finding)> =
            real.checks.iter().filter_map(|plan| self.findings.get_key_value(plan)).collect();
        let doubted: Vec<_> = known.iter().filter(|(plan, finding)| doubt.covers(plan, finding)).collect();
        let doubted = doubted.iter().find_map(|(_, finding)| finding.failure.clone());
        let known: Vec<_> =
            known.into_iter().filter(|(plan, finding)| !doubt.covers(plan, finding)).collect();
        let findings = || known.iter().map(|(_, finding)| *finding);
        let down = || known.iter().filter(|(_, finding)| finding.state == health::State::Down);
        let unknown =
            known.iter().find(|(plan, finding)| is_open(plan, finding)).map(|(_, finding)| *finding);
        // Hard before soft, and the oldest: what came after may follow from it.
        let worst_down = down().filter(|(plan, f)| !self.is_cut(plan, f, cut_off)).map(|(_, f)| *f);
        let worst_down = worst_down.min_by_key(|finding| (!finding.gone, finding.since));
        let (leading, standing) = if let Some(finding) = worst_down {
            let standing = match finding.since {
                Some(since) if !finding.gone => Standing::Sick(since),
                _ => Standing::Gone,
            };
            (Some(finding), standing)
        } else if let Some((_, finding)) = down().next() {
            let was_well = down().all(|(_, finding)| finding.was != health::State::Unknown);
            (Some(*finding), if was_well { Standing::Cut } else { Standing::Unknown })
        } else if unknown.is_some() {
            (unknown, Standing::Unknown)
        } else {
            let judged = findings().filter(|finding| finding.state != health::State::Unknown);
            let worst = judged.max_by_key(|finding| finding.state);
            let standing = match worst.map(|finding| finding.state) {
                Some(health::State::Degraded(factor)) => Standing::Degraded(factor),
                _ => Standing::Up,
            };
            (worst, standing)
        };
        let complaint = || findings().find_map(|finding| finding.failure.clone());
        let state = leading.map_or(health::State::Up, |finding| finding.state);
        Condition {
            state,
            checked: state,
            agent: Word::Serves,
            since: leading.and_then(|finding| finding.since),
            failure: leading.and_then(|finding| finding.failure.clone()).or_else(complaint).or(doubted),
            took: findings().next().map_or(Duration::ZERO, |finding| finding.took),
            banner: findings().find_map(|finding| finding.banner),
            not_after: findings().filter_map(|finding| finding.not_after).min(),
            canary: known.iter().find(|(plan, _)| plan.tier == Tier::Canary).map(|(_, finding)| Way {
                state: finding.state,
                delay: finding.delay,
                overdue_since: finding.overdue_since,
            }),
            standing,
        }
    }

    /// Since when a destination waits for its connections to end.
    #[must_use]
    pub fn leaving_since(&self, id: &VirtualId, real: &RealId) -> Option<Instant> {
        self.leaving.get(&(*id, *real)).copied()
    }

    /// Whether every check had an outcome that meant something.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        !self.findings.iter().any(|(plan, finding)| is_open(plan, finding))
    }

    /// Whether no canary of any server comes back, so that nothing follows from it for any.
    #[must_use]
    pub fn canaries_silent(&self) -> bool {
        let is_silent = |(plan, finding): (&CheckPlan, &Finding)| {
            let failure = finding.failure.as_ref();
            plan.tier == Tier::Canary && failure.is_some_and(|failure| failure.reason == Reason::Local)
        };
        self.findings.iter().any(is_silent)
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
        self.placed.clear();
        let mut fresh = self.fresh_findings();
        for (plan, finding) in std::mem::take(&mut self.findings) {
            if let Some(slot) = fresh.get_mut(&plan) {
                *slot = finding;
            }
        }
        self.findings = fresh;
        let mut fresh = self.fresh_heard();
        for (plan, heard) in std::mem::take(&mut self.heard) {
            if let Some(slot) = fresh.get_mut(&plan) {
                *slot = heard;
            }
        }
        self.heard = fresh;
        self.retired.extend(old.virtuals.iter().map(|v| (v.id, Retired { drain: v.drain, missed: 0 })));
        for kept in &self.config.virtuals {
            self.retired.remove(&kept.id);
        }
    }

    fn fresh_findings(&self) -> BTreeMap<CheckPlan, Finding> {
        let reals = self.config.virtuals.iter().flat_map(|v| &v.reals);
        reals.flat_map(|real| &real.checks).map(|plan| (plan.clone(), Finding::default())).collect()
    }

    fn fresh_heard(&self) -> BTreeMap<AgentPlan, Heard> {
        let reals = self.config.virtuals.iter().flat_map(|v| &v.reals);
        reals.filter_map(|real| real.agent.clone()).map(|plan| (plan, Heard::default())).collect()
    }

    /// The table that should be, given the one that is. Remembers what has begun to leave.
    pub fn desired(&mut self, now: Instant, actual: &Dump) -> Table {
        self.weigh(now, actual);
        self.retired.retain(|id, retired| {
            retired.missed = if actual.table.virtuals.contains_key(id) { 0 } else { retired.missed + 1 };
            retired.missed < 2
        });
        let left_out = self.left_out(actual);
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
            let known = self.scales.get(&config.id).map_or(&[][..], Scales::known);
            let have = actual.table.virtuals.get(&config.id);
            let mut want = wanted(config, known, have);
            want.reals.retain(|real, settings| {
                settings.weight.takes_connections() || !left_out.contains(&(config.id, *real))
            });
            leave(&config.id, config.drain, &mut want);
            table.virtuals.insert(config.id, want);
        }
        let private = &self.config.vip.services;
        self.stale = self.config.vip.ours(&actual.table).filter(|id| !private.contains_key(id)).collect();
        table.virtuals.extend(private.iter().map(|(id, service)| (*id, service.clone())));
        table
    }
}

/// Whether nothing follows from a check yet. Canaries that cannot come back, to nobody's fault, hold up no server.
fn is_open(plan: &CheckPlan, finding: &Finding) -> bool {
    let local = finding.failure.as_ref().is_some_and(|failure| failure.reason == Reason::Local);
    let nobodys = plan.tier == Tier::Canary && local || doubt::is_mute(plan, finding);
    finding.state == health::State::Unknown && !nobodys
}

/// One virtual as it should be, without what is leaving. `known` has what is known of each real server.
fn wanted(config: &VirtualConfig, known: &[Known], have: Option<&Virtual>) -> Virtual {
    let table = |real: &RealId| have.and_then(|have| have.reals.get(real));
    let mut want = Virtual::new(config.settings.clone());
    let mut all_asked = true;
    for (real, Known { share, condition, .. }) in config.reals.iter().zip(known) {
        // Where the director itself cannot ask, no answer will come while that lasts.
        let local = |failure: &Failure| failure.reason == Reason::Local;
        let cannot_ask = condition.failure.as_ref().is_some_and(local);
        all_asked &= condition.state != health::State::Unknown || cannot_ask;
        let weight = match *share {
            Share::Weight(Weight::ZERO)
                if !config.quiescent && (real.off || condition.state == health::State::Down) =>
            {
                None
            }
            Share::Weight(weight) | Share::Held(weight) => Some(weight),
            Share::Keep => table(&real.id).map(|settings| settings.weight),
        };
        if let Some(weight) = weight {
            want.reals.insert(real.id, RealSettings { weight, ..real.settings });
        }
    }
    if let Some((fallback, settings)) = config.fallback.filter(|_| !config.all_off()) {
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
