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
mod tests {
    use checks::{CheckSpec, Kind};

    use super::*;
    use crate::config::{DataplaneChoice, LogFormat, LogLevel, OnExit, ProxyOptions};
    use crate::model::{Forward, Protocol, Scheduler, SchedulerFlags, VirtualSettings};
    use crate::reconcile::diff;

    const SECOND: Duration = Duration::from_secs(1);
    const FALLBACK: u8 = 9;

    fn real_id(n: u8) -> RealId {
        RealId(([10, 0, 0, n], 25).into())
    }

    fn settings(weight: u32) -> RealSettings {
        RealSettings {
            forward: Forward::Gate,
            weight: Weight(weight),
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    fn plan(n: u8) -> CheckPlan {
        CheckPlan {
            spec: CheckSpec {
                target: real_id(n).0,
                kind: Kind::Connect,
                deadline: SECOND,
                connect_timeout: SECOND,
            },
            interval: SECOND,
            retry: SECOND,
            fall: 3,
            rise: 2,
        }
    }

    fn virtual_id() -> VirtualId {
        VirtualId::Address { protocol: Protocol::Tcp, address: ([10, 0, 0, 100], 25).into() }
    }

    fn farm(reals: &[u8]) -> Config {
        let reals = reals.iter().map(|n| RealConfig {
            id: real_id(*n),
            settings: settings(5),
            check: Some(plan(*n)),
        });
        Config {
            dataplane: DataplaneChoice::Auto,
            http: None,
            log: LogLevel::Info,
            log_format: LogFormat::Text,
            autoreload: false,
            on_exit: OnExit::Keep,
            resync: SECOND,
            virtuals: vec![VirtualConfig {
                name: "mail".to_owned(),
                id: virtual_id(),
                settings: VirtualSettings {
                    scheduler: Scheduler::Wlc,
                    flags: SchedulerFlags::NONE,
                    one_packet: false,
                    persistence: None,
                },
                quiescent: true,
                drain: 60 * SECOND,
                fallback: None,
                proxy: ProxyOptions { protocol: None, idle: SECOND },
                reals: reals.collect(),
            }],
        }
    }

    /// A state beside the table that it drives.
    struct Play {
        state: State,
        dump: Dump,
        now: Instant,
    }

    impl Play {
        fn new(config: Config) -> Self {
            #[expect(clippy::disallowed_methods, reason = "any instant will do as the start")]
            let now = Instant::now();
            Self { state: State::new(config), dump: Dump::default(), now }
        }

        fn sees(&mut self, n: u8, state: health::State) {
            self.state.absorb(&plan(n), Finding { state, ..Finding::default() });
        }

        fn active(&mut self, n: u8, connections: u32) {
            self.dump.counters.reals.entry((virtual_id(), real_id(n))).or_default().active = connections;
        }

        /// Brings the table up to date a second later; gives the ops, and the weights as `1=5 2=0`.
        fn step(&mut self) -> (usize, String) {
            self.now += SECOND;
            let desired = self.state.desired(self.now, &self.dump);
            let ops = diff(&self.dump.table, &desired, &self.state.owned());
            for op in &ops {
                self.dump.table.apply(op).unwrap();
            }
            (ops.len(), self.weights())
        }

        fn weights(&self) -> String {
            let Some(have) = self.dump.table.virtuals.get(&virtual_id()) else { return "gone".to_owned() };
            let weights = have.reals.iter().map(|(real, settings)| {
                let std::net::IpAddr::V4(ip) = real.0.ip() else { unreachable!() };
                format!("{}={}", ip.octets()[3], settings.weight)
            });
            weights.collect::<Vec<_>>().join(" ")
        }
    }

    use health::State::{Down, Unknown, Up};

    #[test]
    fn a_server_joins_when_it_is_known_to_be_up_and_loses_its_weight_when_it_is_down() {
        let mut play = Play::new(farm(&[1, 2]));
        assert_eq!(play.step().1, "");
        play.sees(1, Up);
        assert_eq!(play.step().1, "1=5");
        play.sees(2, Down);
        assert_eq!(play.step().1, "1=5 2=0");
        play.sees(1, Down);
        play.sees(2, Up);
        assert_eq!(play.step().1, "1=0 2=5");
        assert_eq!(play.step(), (0, "1=0 2=5".to_owned()), "nothing is written twice");
    }

    #[test]
    fn a_table_that_is_there_is_adopted_without_a_change() {
        let mut before = Play::new(farm(&[1, 2]));
        before.sees(1, Up);
        before.sees(2, Down);
        before.step();
        let mut after = Play::new(farm(&[1, 2]));
        after.dump = before.dump;
        assert_eq!(after.step(), (0, "1=5 2=0".to_owned()));
        after.sees(1, Up);
        after.sees(2, Down);
        assert_eq!(after.step(), (0, "1=5 2=0".to_owned()));
    }

    #[test]
    fn what_hands_changed_is_repaired() {
        let mut play = Play::new(farm(&[1, 2]));
        play.sees(1, Up);
        play.sees(2, Up);
        play.step();
        let reals = &mut play.dump.table.virtuals.get_mut(&virtual_id()).unwrap().reals;
        reals.remove(&real_id(1));
        reals.insert(real_id(2), settings(77));
        assert_eq!(play.step().1, "1=5 2=5");
        play.dump.table = Table::default();
        assert_eq!(play.step().1, "1=5 2=5");
    }

    #[test]
    fn what_all_servers_suffer_from_takes_none_out() {
        let mut play = Play::new(farm(&[1, 2, 3]));
        for n in 1..=3 {
            play.sees(n, Up);
        }
        play.step();
        let refuses = |play: &mut Play, n: u8| {
            let failure = Failure {
                stage: Stage::Banner,
                reason: Reason::Tempfail,
                code: Some(421),
                text: String::new(),
            };
            let finding =
                Finding { state: Down, since: Some(play.now), failure: Some(failure), ..Finding::default() };
            play.state.absorb(&plan(n), finding);
        };
        refuses(&mut play, 1);
        assert_eq!(play.step().1, "1=0 2=5 3=5");
        refuses(&mut play, 2);
        assert_eq!(play.step().1, "1=0 2=5 3=5");
        refuses(&mut play, 3);
        assert_eq!(play.step().1, "1=5 2=5 3=5");
        let held = play.state.held(play.now, &play.state.config().virtuals[0]);
        assert_eq!(held.len(), 3);
        play.sees(2, Down);
        assert_eq!(play.step().1, "1=5 2=0 3=5", "it cannot be connected to");
    }

    #[test]
    fn a_removed_server_loses_its_weight_first_and_goes_with_its_last_connection() {
        let mut play = Play::new(farm(&[1, 2]));
        play.sees(1, Up);
        play.sees(2, Up);
        play.step();
        play.state.reconfigure(farm(&[1]));
        play.active(2, 1);
        assert_eq!(play.step().1, "1=5 2=0", "its neighbour keeps what is known of it");
        assert!(play.state.is_draining());
        assert_eq!(play.step(), (0, "1=5 2=0".to_owned()));
        play.active(2, 0);
        assert_eq!(play.step().1, "1=5 2=0", "a handshake may be under way");
        assert_eq!(play.step().1, "1=5");
        play.step();
        assert!(!play.state.is_draining());
    }

    #[test]
    fn a_server_of_a_udp_virtual_drains_although_no_datagram_is_ever_active() {
        let mut config = farm(&[1, 2]);
        let id = VirtualId::Address { protocol: Protocol::Udp, address: ([10, 0, 0, 100], 25).into() };
        config.virtuals[0].id = id;
        let mut play = Play::new(config.clone());
        play.sees(1, Up);
        play.sees(2, Up);
        play.step();
        config.virtuals[0].reals.pop();
        play.state.reconfigure(config);
        play.dump.counters.reals.entry((id, real_id(2))).or_default().inactive = 1;
        for _ in 0..10 {
            play.step();
        }
        assert!(play.dump.table.virtuals[&id].reals.contains_key(&real_id(2)));
        play.dump.counters.reals.clear();
        play.step();
        assert!(!play.dump.table.virtuals[&id].reals.contains_key(&real_id(2)));
    }

    #[test]
    fn without_drain_time_weight_0_still_comes_before_the_deletion() {
        let mut config = farm(&[1, 2]);
        config.virtuals[0].drain = Duration::ZERO;
        let mut play = Play::new(config.clone());
        play.sees(1, Up);
        play.sees(2, Up);
        play.step();
        config.virtuals[0].reals.pop();
        play.state.reconfigure(config);
        play.active(2, 1);
        assert_eq!(play.step().1, "1=5 2=0");
        assert_eq!(play.step().1, "1=5");
    }

    #[test]
    fn the_fallback_does_not_wait_for_a_server_that_cannot_be_asked() {
        let mut config = farm(&[1, 2]);
        config.virtuals[0].fallback = Some((real_id(FALLBACK), settings(1)));
        let mut play = Play::new(config);
        play.sees(1, Down);
        assert_eq!(play.step().1, "1=0");
        let failure =
            Failure { stage: Stage::Connect, reason: Reason::Local, code: None, text: String::new() };
        play.state.absorb(&plan(2), Finding { failure: Some(failure), ..Finding::default() });
        assert_eq!(play.step().1, "1=0 9=1");
    }

    #[test]
    fn a_removed_server_whose_connections_never_end_goes_after_the_drain_time() {
        let mut play = Play::new(farm(&[1, 2]));
        play.sees(1, Up);
        play.sees(2, Up);
        play.step();
        play.state.reconfigure(farm(&[1]));
        play.active(2, 1);
        let steps = (0..100).take_while(|_| play.step().1 != "1=5").count();
        assert_eq!(steps, 60);
    }

    #[test]
    fn a_server_that_is_put_back_while_it_drains_gets_its_weight_back() {
        let mut play = Play::new(farm(&[1, 2]));
        play.sees(1, Up);
        play.sees(2, Up);
        play.step();
        play.state.reconfigure(farm(&[1]));
        play.active(2, 1);
        play.step();
        play.state.reconfigure(farm(&[1, 2]));
        assert_eq!(play.step(), (0, "1=5 2=0".to_owned()), "unknown keeps what the table has");
        play.sees(2, Up);
        assert_eq!(play.step().1, "1=5 2=5");
        assert!(!play.state.is_draining());
    }

    #[test]
    fn a_removed_virtual_drains_and_then_goes() {
        let mut play = Play::new(farm(&[1]));
        play.sees(1, Up);
        play.step();
        let mut empty = farm(&[]);
        empty.virtuals.clear();
        play.state.reconfigure(empty);
        play.active(1, 1);
        assert_eq!(play.step().1, "1=0");
        play.active(1, 0);
        play.step();
        assert_eq!(play.step().1, "1=0");
        assert_eq!(play.step().1, "gone");
        assert!(!play.state.owned().is_empty(), "one look is no proof");
        play.step();
        play.step();
        assert!(play.state.owned().is_empty());
    }

    #[test]
    fn without_quiescent_a_server_that_is_down_leaves_the_table() {
        let mut config = farm(&[1, 2]);
        config.virtuals[0].quiescent = false;
        let mut play = Play::new(config);
        play.sees(1, Up);
        play.sees(2, Up);
        play.step();
        play.sees(2, Down);
        play.active(2, 1);
        assert_eq!(play.step().1, "1=5 2=0");
        play.active(2, 0);
        play.step();
        play.step();
        assert_eq!(play.step().1, "1=5");
        play.sees(2, Up);
        assert_eq!(play.step().1, "1=5 2=5");
    }

    #[test]
    fn the_fallback_serves_while_nobody_can_and_leaves_when_the_first_returns() {
        let mut config = farm(&[1, 2]);
        config.virtuals[0].fallback = Some((real_id(FALLBACK), settings(1)));
        let mut play = Play::new(config);
        assert_eq!(play.step().1, "", "nobody is known to be down yet");
        play.sees(1, Down);
        assert_eq!(play.step().1, "1=0", "the other may be up");
        play.sees(2, Down);
        assert_eq!(play.step().1, "1=0 2=0 9=1");
        play.sees(2, Up);
        play.active(FALLBACK, 3);
        assert_eq!(play.step().1, "1=0 2=5 9=0");
        play.active(FALLBACK, 0);
        play.step();
        play.step();
        assert_eq!(play.step().1, "1=0 2=5");
        play.sees(1, Unknown);
        play.sees(2, Down);
        assert_eq!(play.step().1, "1=0 2=0");
    }

    #[test]
    fn a_fallback_in_an_adopted_table_stays_while_nobody_is_known() {
        let mut config = farm(&[1]);
        config.virtuals[0].fallback = Some((real_id(FALLBACK), settings(1)));
        let mut before = Play::new(config.clone());
        before.sees(1, Down);
        before.step();
        let mut after = Play::new(config);
        after.dump = before.dump;
        assert_eq!(after.step(), (0, "1=0 9=1".to_owned()));
    }
}
