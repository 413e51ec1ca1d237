//! State as a play of what is seen and what the table has.

mod canary;
mod queues;

use std::net::IpAddr;
use std::sync::Arc;

use checks::{CheckSpec, Kind, StageReport};

use super::silence::TOGETHER;
use super::*;
use crate::config::{Alert, DataplaneChoice, LogFormat, LogLevel, LogTarget, OnExit, ProxyOptions, Tier};
use crate::model::{Forward, Protocol, Scheduler, VirtualSettings};
use crate::reconcile::diff;
use crate::verdict::Factor;

const SECOND: Duration = Duration::from_secs(1);
const FALLBACK: u8 = 9;

fn real_id(n: u8) -> RealId {
    RealId(([10, 0, 0, n], 25).into())
}

fn settings(weight: u32) -> RealSettings {
    RealSettings::new(Forward::Gate, Weight(weight))
}

fn plan(n: u8) -> CheckPlan {
    CheckPlan {
        spec: CheckSpec {
            target: real_id(n).0,
            kind: Kind::Connect,
            deadline: SECOND,
            connect_timeout: SECOND,
            via: None,
        },
        tier: Tier::Base,
        interval: SECOND,
        retry: SECOND,
        fall: 3,
        rise: 2,
        damping: true,
        verdicts: Arc::default(),
        warn_days: 0,
        connects_between: 0,
        canary: None,
    }
}

fn virtual_id() -> VirtualId {
    VirtualId::Address { protocol: Protocol::Tcp, address: ([10, 0, 0, 100], 25).into() }
}

fn farm(reals: &[u8]) -> Config {
    let reals = reals.iter().map(|n| RealConfig {
        id: real_id(*n),
        settings: settings(5),
        checks: vec![plan(*n)],
        agent: None,
        off: false,
    });
    Config {
        dataplane: DataplaneChoice::Auto,
        http: None,
        log: LogLevel::Info,
        log_format: LogFormat::Text,
        autoreload: false,
        log_to: LogTarget::Stderr,
        supervised: false,
        callback: None,
        execute: vec![],
        maintenance_dir: None,
        readd_quiescent: true,
        on_exit: OnExit::Keep,
        resync: SECOND,
        vip: crate::vip::Vip::default(),
        arp_watch: None,
        virtuals: vec![VirtualConfig {
            name: "mail".to_owned(),
            id: virtual_id(),
            settings: VirtualSettings::new(Scheduler::Wlc),
            quiescent: true,
            drain: 60 * SECOND,
            floor: Some(50),
            law: None,
            on_exit: OnExit::Keep,
            fallback: None,
            fallback_command: None,
            monitor_file: None,
            alert: Alert::default(),
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

    /// Servers 1 and 2 are up and in the table.
    fn both_up(config: Config) -> Self {
        let mut play = Self::new(config);
        play.sees(1, Up);
        play.sees(2, Up);
        play.step();
        play
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
            let IpAddr::V4(ip) = real.0.ip() else { unreachable!() };
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
    let mut play = Play::both_up(farm(&[1, 2]));
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
        let failure = failed(Stage::Banner, Reason::Tempfail);
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
    let held = play.state.held(&play.state.config().virtuals[0]);
    assert_eq!(held.len(), 3);
    play.sees(2, Down);
    assert_eq!(play.step().1, "1=5 2=0 3=5", "it cannot be connected to");
}

#[test]
fn a_removed_server_loses_its_weight_first_and_goes_with_its_last_connection() {
    let mut play = Play::both_up(farm(&[1, 2]));
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
    let mut play = Play::both_up(config.clone());
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
    let mut play = Play::both_up(config.clone());
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
    let failure = Failure { stage: Stage::Connect, reason: Reason::Local, code: None, text: String::new() };
    play.state.absorb(&plan(2), Finding { failure: Some(failure), ..Finding::default() });
    assert_eq!(play.step().1, "1=0 9=1");
}

#[test]
fn a_removed_server_whose_connections_never_end_goes_after_the_drain_time() {
    let mut play = Play::both_up(farm(&[1, 2]));
    play.state.reconfigure(farm(&[1]));
    play.active(2, 1);
    let steps = (0..100).take_while(|_| play.step().1 != "1=5").count();
    assert_eq!(steps, 60);
}

#[test]
fn a_server_that_is_put_back_while_it_drains_gets_its_weight_back() {
    let mut play = Play::both_up(farm(&[1, 2]));
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
    let mut play = Play::both_up(config);
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

/// Server `n` is asked by a second check too.
fn with_mail_tier(config: &mut Config, n: u8) -> CheckPlan {
    let mail = CheckPlan { tier: Tier::Mail, ..plan(n) };
    config.virtuals[0].reals[usize::from(n) - 1].checks.push(mail.clone());
    mail
}

#[test]
fn a_server_is_as_bad_as_the_worst_of_its_checks() {
    let mut config = farm(&[1, 2, 3]);
    let mail = with_mail_tier(&mut config, 1);
    let mut play = Play::new(config);
    for n in 1..=3 {
        play.sees(n, Up);
    }
    assert_eq!(play.step().1, "2=5 3=5", "it answers, and nobody knows yet whether it takes mail");
    let mail_is = |play: &mut Play, state| {
        let failure = failed(Stage::Mail, Reason::Tempfail);
        let finding = Finding { state, since: Some(play.now), failure: Some(failure), ..Finding::default() };
        play.state.absorb(&mail, finding);
    };
    play.state.absorb(&mail, Finding { state: Up, ..Finding::default() });
    assert_eq!(play.step().1, "1=5 2=5 3=5");
    mail_is(&mut play, Down);
    assert_eq!(play.step().1, "1=0 2=5 3=5");
    let condition = play.state.condition(
        play.now,
        &play.state.config().virtuals[0],
        &play.state.config().virtuals[0].reals[0],
    );
    assert_eq!((condition.state, condition.failure.unwrap().stage), (Down, Stage::Mail));
    mail_is(&mut play, health::State::Degraded(Factor::HALF));
    assert_eq!(play.step().1, "1=3 2=5 3=5");
    play.sees(1, Unknown);
    assert_eq!(play.step().1, "1=3 2=5 3=5", "half known is unknown, and keeps what it has");
    play.sees(1, Down);
    assert_eq!(play.step().1, "1=0 2=5 3=5");
}

fn failed(stage: Stage, reason: Reason) -> Failure {
    Failure { stage, reason, code: None, text: String::new() }
}

/// The farm as the network takes its answers away, one server a second.
struct Silence {
    play: Play,
    reason: Reason,
}

impl Silence {
    /// Server `n` has not answered since now; it is down, or not yet.
    fn falls_on(&mut self, n: u8, state: health::State) {
        let mut finding = self.play.state.finding(&plan(n)).unwrap().clone();
        let outcome = Outcome {
            verdict: Err(failed(Stage::Connect, self.reason)),
            took: SECOND,
            stages: vec![],
            capabilities: vec![],
            tls: None,
        };
        finding.learn(self.play.now, &outcome);
        finding.failure = outcome.verdict.err();
        finding.gone = state == Down;
        if finding.state != state {
            (finding.was, finding.state, finding.since) = (finding.state, state, Some(self.play.now));
        }
        self.play.state.absorb(&plan(n), finding);
    }

    /// A check was made, and all was well; that makes it up, or not yet.
    fn ends_for(&mut self, plan: &CheckPlan, state: health::State) {
        let mut finding = self.play.state.finding(plan).unwrap().clone();
        let outcome =
            Outcome { verdict: Ok(()), took: SECOND, stages: vec![], capabilities: vec![], tls: None };
        finding.learn(self.play.now, &outcome);
        if finding.state != state {
            (finding.was, finding.state, finding.since) = (finding.state, state, Some(self.play.now));
        }
        self.play.state.absorb(plan, finding);
    }
}

#[test]
fn where_no_server_answers_the_table_stays_as_it_was() {
    for reason in [Reason::Timeout, Reason::Unreachable] {
        let mut play = Play::both_up(farm(&[1, 2]));
        play.active(1, 1);
        let mut silence = Silence { play, reason };
        silence.falls_on(1, Down);
        assert_eq!(silence.play.step().1, "1=0 2=5", "one server alone is gone");
        silence.falls_on(2, Up);
        assert!(silence.play.state.cut_off_since().is_some());
        assert_eq!(silence.play.step().1, "1=5 2=5", "both are not: it is the director");
        silence.falls_on(2, Down);
        assert_eq!(silence.play.step().1, "1=5 2=5");
        let config = &silence.play.state.config().virtuals[0];
        let known = silence.play.state.known(&config.id);
        assert!(known.iter().all(|known| known.share == Share::Held(Weight(5))), "{known:?}");
        let held = silence.play.state.held(config);
        assert!(held.is_empty(), "they need not share a fault");
    }
}

#[test]
fn when_the_network_is_back_nobody_is_out_for_having_been_out_of_reach() {
    let mut config = farm(&[1, 2, 3]);
    let mail = with_mail_tier(&mut config, 1);
    let mut play = Play::both_up(config);
    play.state.absorb(&mail, Finding { state: Up, ..Finding::default() });
    play.sees(3, Up);
    play.step();
    let mut silence = Silence { play, reason: Reason::Timeout };
    for n in 1..=3 {
        silence.falls_on(n, Down);
    }
    silence.play.state.absorb(&mail, silence.play.state.finding(&plan(2)).unwrap().clone());
    assert_eq!(silence.play.step().1, "1=5 2=5 3=5");
    silence.play.now += 3 * TOGETHER;
    silence.ends_for(&plan(1), Down);
    assert_eq!(silence.play.state.cut_off_since(), None);
    assert_eq!(silence.play.step().1, "1=5 2=5 3=5", "one has answered once, the others were not asked yet");
    silence.play.now += SECOND;
    silence.ends_for(&plan(1), Up);
    silence.ends_for(&plan(2), Down);
    assert_eq!(silence.play.step().1, "1=5 2=5 3=5", "nor has the other check of the first been made");
    silence.falls_on(3, Down);
    silence.play.now += 2 * SECOND;
    silence.falls_on(3, Down);
    assert_eq!(silence.play.step().1, "1=5 2=5 3=0", "who is silent now, and alone, is gone");
    silence.falls_on(2, Down);
    assert_eq!(silence.play.step().1, "1=5 2=0 3=0");
}

#[test]
fn a_server_that_is_new_while_nobody_answers_does_not_end_it() {
    let mut silence = Silence { play: Play::both_up(farm(&[1, 2])), reason: Reason::Timeout };
    silence.falls_on(1, Down);
    silence.falls_on(2, Down);
    assert_eq!(silence.play.step().1, "1=5 2=5");
    silence.play.now += 2 * TOGETHER;
    silence.play.state.reconfigure(farm(&[1, 2, 3]));
    assert_eq!(silence.play.step().1, "1=5 2=5", "it was not asked yet");
    silence.falls_on(3, Down);
    assert_eq!(silence.play.step().1, "1=5 2=5", "and is as silent as the others");
}

#[test]
fn who_cannot_be_silent_does_not_speak_for_the_network() {
    let command = checks::external::ExternalSpec {
        arguments: Vec::new(),
        command: "/bin/false".into(),
        service: String::new(),
        service_port: None,
    };
    let mut external = plan(3);
    external.spec.kind = Kind::External(Box::new(command));
    let mut config = farm(&[1, 2, 3]);
    config.virtuals[0].reals[2].checks = vec![external.clone()];
    let mut silence = Silence { play: Play::both_up(config), reason: Reason::Timeout };
    silence.ends_for(&external, Up);
    silence.falls_on(1, Down);
    silence.falls_on(2, Down);
    assert_eq!(silence.play.step().1, "1=5 2=5 3=5");
}

#[test]
fn a_datagram_that_nobody_answers_is_silence() {
    let failure = |text: &str| Failure { text: text.to_owned(), ..failed(Stage::Request, Reason::Timeout) };
    let connected = StageReport {
        stage: Stage::Connect,
        took: SECOND,
        code: None,
        sent: String::new(),
        received: vec![],
    };
    let now = Play::new(farm(&[1])).now;
    for (text, stages, silent) in
        [("", vec![], true), ("an answer with another id", vec![], false), ("", vec![connected], false)]
    {
        let verdict = Err(failure(text));
        let outcome = Outcome { verdict, took: SECOND, stages, capabilities: vec![], tls: None };
        let mut finding = Finding::default();
        finding.learn(now, &outcome);
        assert_eq!(finding.unanswered_since.is_some(), silent, "{outcome:?}");
    }
}

#[test]
fn a_server_that_was_gone_before_the_silence_stays_out() {
    let mut silence = Silence { play: Play::both_up(farm(&[1, 2])), reason: Reason::Timeout };
    silence.falls_on(1, Down);
    silence.play.now += TOGETHER + 3 * SECOND;
    silence.falls_on(2, Down);
    assert_eq!(silence.play.step().1, "1=0 2=5");
}

#[test]
fn a_farm_of_one_host_that_does_not_answer_is_down() {
    let mut silence = Silence { play: Play::new(farm(&[1])), reason: Reason::Timeout };
    silence.play.sees(1, Up);
    silence.play.step();
    silence.falls_on(1, Down);
    assert_eq!(silence.play.step().1, "1=0");
}

#[test]
fn at_a_start_without_a_network_the_fallback_serves() {
    let mut config = farm(&[1, 2]);
    config.virtuals[0].fallback = Some((real_id(FALLBACK), settings(1)));
    let mut silence = Silence { play: Play::new(config), reason: Reason::Timeout };
    silence.falls_on(1, Down);
    silence.falls_on(2, Down);
    assert_eq!(silence.play.step().1, "9=1");
}

#[test]
fn the_last_word_of_a_server_counts_whichever_check_it_came_from() {
    let mut config = farm(&[1, 2]);
    let mail = with_mail_tier(&mut config, 1);
    let mut silence = Silence { play: Play::both_up(config), reason: Reason::Timeout };
    let asked = |play: &Play, silent: bool| {
        let now = Some(play.now);
        Finding { state: Up, asked: now, unanswered_since: now.filter(|_| silent), ..Finding::default() }
    };
    silence.falls_on(2, Up);
    let silent = asked(&silence.play, true);
    silence.play.state.absorb(&mail, silent);
    assert!(silence.play.state.cut_off_since().is_some());
    silence.play.now += SECOND;
    silence.play.state.absorb(&plan(1), asked(&silence.play, false));
    assert_eq!(silence.play.state.cut_off_since(), None, "it has answered since");
    silence.play.now += SECOND;
    silence.play.state.absorb(&mail, asked(&silence.play, true));
    assert!(silence.play.state.cut_off_since().is_some());
}

#[test]
fn a_host_that_is_seldom_asked_only_delays_the_law_of_silence() {
    let mut config = farm(&[1, 2]);
    let seldom = CheckPlan { interval: 300 * SECOND, ..plan(2) };
    config.virtuals[0].reals[1].checks = vec![seldom.clone()];
    let mut play = Play::new(config);
    play.sees(1, Up);
    play.state.absorb(&seldom, Finding { state: Up, asked: Some(play.now), ..Finding::default() });
    play.step();
    let mut silence = Silence { play, reason: Reason::Timeout };
    silence.falls_on(1, Down);
    assert_eq!(silence.play.step().1, "1=0 2=5");
    silence.play.now += 299 * SECOND;
    let (asked, unanswered_since) = (Some(silence.play.now), Some(silence.play.now));
    let finding = Finding { state: Up, asked, unanswered_since, ..Finding::default() };
    silence.play.state.absorb(&seldom, finding);
    assert_eq!(silence.play.step().1, "1=5 2=5");
}

/// A farm whose servers are asked through the VIP too.
fn probed(reals: &[u8]) -> Config {
    let mut config = farm(reals);
    for real in &mut config.virtuals[0].reals {
        let RealId(address) = real.id;
        let via = checks::Via { mark: u32::from(address.port()), server: address.ip() };
        let probe = through(&real.checks[0], via);
        real.checks.push(probe);
    }
    config
}

fn through(base: &CheckPlan, via: checks::Via) -> CheckPlan {
    let spec = CheckSpec { target: ([10, 0, 0, 100], 25).into(), via: Some(via), ..base.spec.clone() };
    CheckPlan { spec, tier: Tier::Vip, ..base.clone() }
}

impl Play {
    /// What was found of server `n` through the VIP.
    fn finds(&mut self, n: u8, state: health::State, failure: Option<Reason>) {
        let via = checks::Via { mark: 25, server: real_id(n).0.ip() };
        let failure = failure.map(|reason| failed(Stage::Connect, reason));
        let failed = failure.as_ref().is_some_and(|failure| failure.reason != Reason::Local);
        let gone = state == Down;
        let since = Some(self.now);
        let finding = Finding { state, since, failure, failed, gone, ..Finding::default() };
        self.state.absorb(&through(&plan(n), via), finding);
    }
}

#[test]
fn a_server_that_no_client_reaches_is_out_and_all_together_are_not() {
    let timeout = Some(Reason::Timeout);
    let mut play = Play::new(probed(&[1, 2, 3]));
    for n in 1..=3 {
        play.sees(n, Up);
    }
    assert_eq!(play.step().1, "", "half known is unknown");
    for n in 1..=3 {
        play.finds(n, Up, None);
    }
    assert_eq!(play.step().1, "1=5 2=5 3=5");
    play.finds(1, Down, timeout);
    assert_eq!(play.step().1, "1=0 2=5 3=5");
    play.finds(2, Up, timeout);
    play.finds(3, Up, timeout);
    assert_eq!(play.step().1, "1=5 2=5 3=5", "the last word of all is a failure");
    let doubted = |play: &Play| play.state.is_doubted(&play.state.config().virtuals[0]);
    assert!(!doubted(&play), "too early to tell");
    play.finds(2, Down, timeout);
    play.finds(3, Down, timeout);
    assert_eq!(play.step().1, "1=5 2=5 3=5");
    assert!(doubted(&play));
    play.sees(2, Down);
    assert_eq!(play.step().1, "1=5 2=0 3=5", "what is down without the VIP is down");
    assert!(doubted(&play));
    play.finds(3, Up, None);
    assert_eq!(play.step().1, "1=0 2=0 3=5", "one that answers ends the doubt");
    assert!(!doubted(&play));
}

#[test]
fn a_probe_that_was_never_possible_keeps_nobody_out() {
    let mut play = Play::new(probed(&[1, 2]));
    for n in 1..=2 {
        play.sees(n, Up);
        play.finds(n, Unknown, Some(Reason::Local));
    }
    assert_eq!(play.step().1, "1=5 2=5");
    assert!(play.state.knows_all());
    let config = &play.state.config().virtuals[0];
    let condition = play.state.condition(play.now, config, &config.reals[0]);
    assert_eq!((condition.state, condition.failure.unwrap().reason), (Up, Reason::Local));
}

#[test]
fn without_a_floor_what_all_suffer_from_takes_all_out_and_the_fallback_serves() {
    let mut config = farm(&[1, 2]);
    config.virtuals[0].floor = None;
    config.virtuals[0].fallback = Some((real_id(9), settings(1)));
    let mut play = Play::both_up(config);
    let failure = || Some(failed(Stage::Banner, Reason::Tempfail));
    for n in [1, 2] {
        let finding =
            Finding { state: Down, since: Some(play.now), failure: failure(), ..Finding::default() };
        play.state.absorb(&plan(n), finding);
    }
    assert_eq!(play.step().1, "1=0 2=0 9=1", "at once, and both");
}

#[test]
fn a_server_that_is_off_does_not_switch_on_the_fallback() {
    for (quiescent, expected) in [(true, "1=0"), (false, "")] {
        let mut config = farm(&[1]);
        let one = &mut config.virtuals[0];
        (one.quiescent, one.fallback) = (quiescent, Some((real_id(9), settings(1))));
        one.reals = vec![RealConfig {
            id: real_id(1),
            settings: settings(0),
            checks: vec![],
            agent: None,
            off: true,
        }];
        let mut play = Play::new(config.clone());
        assert_eq!(play.step().1, expected);
        // Beside one that is down it is no help either.
        let down = RealConfig {
            id: real_id(2),
            settings: settings(5),
            checks: vec![plan(2)],
            agent: None,
            off: false,
        };
        config.virtuals[0].reals.push(down);
        let mut play = Play::new(config);
        play.sees(2, Down);
        assert!(play.step().1.ends_with("9=1"), "{quiescent}");
    }
}

fn maintained(port: Option<u16>) -> BTreeSet<Maintained> {
    [Maintained { ip: real_id(1).0.ip(), port }].into()
}

#[test]
fn a_server_in_maintenance_is_out_at_once_and_back_when_that_is_over() {
    for (quiescent, out) in [(true, "1=0 2=5"), (false, "2=5")] {
        let mut config = farm(&[1, 2]);
        config.virtuals[0].quiescent = quiescent;
        let mut play = Play::both_up(config);
        play.state.maintain(maintained(Some(25)));
        for _ in 0..5 {
            play.step();
        }
        assert_eq!(play.weights(), out);
        play.state.maintain(maintained(Some(26)));
        assert_eq!(play.step().1, "1=5 2=5", "another port is another server");
        play.state.maintain(maintained(None));
        assert!(play.step().1.starts_with("1=0"));
    }
    let mut config = farm(&[1]);
    config.virtuals[0].fallback = Some((real_id(9), settings(1)));
    let mut play = Play::new(config);
    play.sees(1, Up);
    play.step();
    play.state.maintain(maintained(None));
    assert_eq!(play.step().1, "1=0 9=1", "the last one, too: somebody wants it so");
}

#[test]
fn a_server_that_is_down_and_deleted_by_hand_stays_so_without_readd_quiescent() {
    for (readd, left) in [(true, "1=0 2=5"), (false, "2=5")] {
        let mut config = farm(&[1, 2]);
        config.readd_quiescent = readd;
        let mut play = Play::both_up(config);
        play.sees(1, Down);
        assert_eq!(play.step().1, "1=0 2=5");
        play.step();
        play.dump.table.virtuals.get_mut(&virtual_id()).unwrap().reals.remove(&real_id(1));
        assert_eq!(play.step().1, left);
        assert_eq!(play.step().1, left);
        play.sees(1, Up);
        assert_eq!(play.step().1, "1=5 2=5", "and it comes back when it is well");
    }
}
