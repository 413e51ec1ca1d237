//! Weights that follow the queues, in the same play.

use postfix::report::agent::parse;

use super::*;
use crate::config::AgentSource;
use crate::heard::NoData;
use crate::weight::curve::Band;
use crate::weight::law::{LawConfig, QueueLaw, Steps};

/// A farm whose weights follow their queues, every ten seconds.
fn farm_with_queues(reals: &[u8]) -> Config {
    let mut config = farm(reals);
    let virtual_config = &mut config.virtuals[0];
    virtual_config.law = Some(LawConfig {
        queue: Some(QueueLaw {
            band: Band { full_at: 10 * SECOND, floor_at: 60 * SECOND },
            interval: 10 * SECOND,
        }),
        latency: None,
        slow_start: 120 * SECOND,
        steps: Steps::Fine,
        floor: 50,
    });
    for (real, n) in virtual_config.reals.iter_mut().zip(reals) {
        real.settings = settings(100);
        real.agent = Some(agent(*n));
    }
    config
}

fn agent(n: u8) -> AgentPlan {
    let source = AgentSource::Tcp { address: ([10, 0, 0, n], 9626).into(), tls: None };
    AgentPlan { source, server: [10, 0, 0, n].into(), interval: 10 * SECOND, deadline: SECOND }
}

/// Agents say their lines for so many intervals. Gives the weights.
fn say(play: &mut Play, intervals: u64, lines: &[(u8, &str)]) -> String {
    let mut weights = String::new();
    for _ in 0..intervals {
        play.now += 9 * SECOND;
        for (n, line) in lines {
            let mut heard = play.state.heard(&agent(*n)).unwrap().clone();
            let answer = parse(format!("{line}\n").as_bytes()).map_err(NoData::from);
            heard.take(play.now, 10 * SECOND, answer);
            play.state.hear(&agent(*n), heard);
        }
        weights = play.step().1;
    }
    weights
}

fn servers_up(config: Config, count: u8) -> Play {
    let mut play = Play::new(config);
    (1..=count).for_each(|n| play.sees(n, Up));
    play.step();
    play
}

const WELL: &str = "up # v1 master=1 qmgr=1 incoming=0 active=3 rate=9.00";
const LATE: &str = "up # v1 master=1 qmgr=1 incoming=800 active=100 rate=9.00";

#[test]
fn a_deep_queue_takes_weight_and_others_keep_theirs() {
    let mut play = servers_up(farm_with_queues(&[1, 2, 3]), 3);
    assert_eq!(say(&mut play, 2, &[(1, WELL), (2, WELL), (3, WELL)]), "1=100 2=100 3=100");
    let weights = say(&mut play, 6, &[(1, LATE), (2, WELL), (3, WELL)]);
    assert_eq!(weights, "1=1 2=100 3=100");
    assert!(!play.state.weigh(play.now, &play.dump), "what did not change is written once");
    let why = play.state.known(&virtual_id())[0].parts.why((Weight(100), Weight(1)), "");
    assert!(why.starts_with("1 of 100: queue 1% (900 messages, "), "{why}");
}

#[test]
fn what_a_law_remembers_survives_a_reload_and_a_restart() {
    let mut play = servers_up(farm_with_queues(&[1, 2, 3]), 3);
    say(&mut play, 6, &[(1, LATE), (2, WELL), (3, WELL)]);
    let mut config = farm_with_queues(&[1, 2, 3]);
    config.virtuals[0].drain = SECOND;
    play.state.reconfigure(config.clone());
    assert_eq!(play.step(), (0, "1=1 2=100 3=100".to_owned()));
    // Another process finds the table.
    play.state = State::new(config);
    assert_eq!(play.step(), (0, "1=1 2=100 3=100".to_owned()), "nobody was asked yet");
    (1..=3).for_each(|n| play.sees(n, Up));
    assert_eq!(play.step(), (0, "1=1 2=100 3=100".to_owned()), "it goes on where the other ended");
    assert_eq!(say(&mut play, 3, &[(1, LATE), (2, WELL), (3, WELL)]), "1=1 2=100 3=100");
}

#[test]
fn checks_decide_first_and_load_of_what_they_leave() {
    let mut play = servers_up(farm_with_queues(&[1, 2, 3]), 3);
    play.sees(1, health::State::Degraded(Factor::HALF));
    assert_eq!(say(&mut play, 6, &[(1, WELL), (2, WELL), (3, WELL)]), "1=50 2=100 3=100");
    play.sees(1, Down);
    assert_eq!(say(&mut play, 1, &[(1, WELL), (2, WELL), (3, WELL)]), "1=0 2=100 3=100");
    play.sees(1, Up);
    assert_eq!(play.step().1, "1=10 2=100 3=100", "it comes back slowly");
    assert_eq!(say(&mut play, 13, &[(1, WELL), (2, WELL), (3, WELL)]), "1=100 2=100 3=100");
}

#[test]
fn a_server_without_qmgr_is_out_although_it_takes_mail() {
    let dead = "down # v1 master=1 qmgr=0 incoming=9 active=0";
    let mut play = servers_up(farm_with_queues(&[1, 2, 3]), 3);
    assert_eq!(say(&mut play, 1, &[(1, dead), (2, WELL), (3, WELL)]), "1=100 2=100 3=100", "it may restart");
    assert_eq!(say(&mut play, 1, &[(1, dead), (2, WELL), (3, WELL)]), "1=0 2=100 3=100");
    let condition = &play.state.known(&virtual_id())[0].condition;
    let failure = condition.failure.clone().unwrap().to_string();
    assert_eq!(failure, "failed at agent: qmgr does not run: mail is taken and not delivered");
    assert_eq!(condition.checked, Up);
    // The floor holds for agents, too.
    let weights = say(&mut play, 9, &[(1, dead), (2, dead), (3, dead)]);
    assert!(weights.ends_with("2=100 3=100") && !weights.contains("1=0"), "nobody's fault: {weights}");
}

#[test]
fn a_silent_agent_is_no_news_and_then_none_at_all() {
    let mut play = servers_up(farm_with_queues(&[1, 2, 3]), 3);
    say(&mut play, 6, &[(1, LATE), (2, WELL), (3, WELL)]);
    for garbage in
        ["SSH-2.0-OpenSSH_9.2p1", "up # v1 incoming=-4", "up # v1 incoming=1 active=99999999999999"]
    {
        assert_eq!(say(&mut play, 1, &[(1, garbage), (2, WELL), (3, WELL)]), "1=1 2=100 3=100", "{garbage}");
    }
    let weights = say(&mut play, 40, &[(1, "HTTP/1.0 400"), (2, WELL), (3, WELL)]);
    assert_eq!(weights, "1=100 2=100 3=100", "neutral, and no other server is slow beside an empty queue");
}

#[test]
fn an_agent_that_drains_its_server_is_obeyed() {
    let mut play = servers_up(farm_with_queues(&[1, 2, 3]), 3);
    assert_eq!(say(&mut play, 1, &[(1, "drain"), (2, "up 40%"), (3, "maint")]), "1=0 2=100 3=0", "the floor");
    assert_eq!(say(&mut play, 1, &[(1, "ready"), (2, "up 40%"), (3, "drain")]), "1=70 2=80 3=0");
    let weights = say(&mut play, 1, &[(1, "drain"), (2, "drain"), (3, "drain")]);
    assert!(!weights.contains("=0"), "never nobody: {weights}");
}

#[test]
fn weights_without_resolution_are_scaled_all_together() {
    let mut config = farm_with_queues(&[1, 2]);
    for real in &mut config.virtuals[0].reals {
        real.settings = settings(1);
    }
    let mut play = servers_up(config, 2);
    assert_eq!(say(&mut play, 1, &[(1, WELL), (2, WELL)]), "1=100 2=100");
}
