//! The scenarios on real IPVS, judged by `ipvsadm` and by a tap on the netlink traffic.

use std::time::Duration;

use super::scenario::{self, LIMIT, Stage};
use crate::farm::director::{Config, Director, run_to_end};
use crate::farm::host::wait_until;
use crate::farm::ipvs::{Tap, Write, ipvsadm, table};
use crate::farm::mail::{Load, Session};
use crate::farm::{Farm, Ip, REALS, Wiring};

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn three_servers_are_in_and_all_mail_arrives() {
    scenario::starts_and_carries_mail(Wiring::Gate, Ip::V4);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn mail_arrives_over_ipv6() {
    scenario::starts_and_carries_mail(Wiring::Gate, Ip::V6);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn mail_arrives_by_masquerading() {
    scenario::starts_and_carries_mail(Wiring::Masq, Ip::V4);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn mail_arrives_through_a_tunnel() {
    scenario::starts_and_carries_mail(Wiring::Ipip, Ip::V4);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_dead_server_is_out_and_back_and_the_others_go_on() {
    scenario::takes_a_dead_server_out_and_back(Wiring::Gate);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_broken_file_is_refused_with_its_place() {
    scenario::refuses_a_broken_file_and_goes_on(Wiring::Gate);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_server_that_refuses_all_mail_is_out_and_all_together_are_not() {
    scenario::takes_out_a_server_that_refuses_all_mail(Wiring::Gate);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_host_that_is_off_is_out_and_a_director_that_is_cut_off_changes_nothing() {
    scenario::tells_a_host_that_is_off_from_a_director_that_is_cut_off(Wiring::Gate);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_removed_server_drains() {
    scenario::drains_a_removed_server(Wiring::Gate);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn the_fallback_serves_while_all_are_dead() {
    scenario::falls_back_when_all_are_dead(Wiring::Gate);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn the_fallback_serves_by_masquerading_too() {
    scenario::falls_back_when_all_are_dead(Wiring::Masq);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_killed_director_is_missed_by_nobody_and_adopts_the_table() {
    let mut stage = Stage::new(Wiring::Gate, Ip::V4);
    let load = Load::start(&stage.farm.client, stage.vip());
    let mut sessions = stage.session_on_each();
    let before = table(&stage.farm.director);
    let tap = Tap::start(&stage.farm);

    stage.director.kill();
    sessions.iter_mut().for_each(|session| drop(session.mail().expect("the session goes on")));
    assert_eq!(table(&stage.farm.director), before, "the table stays");
    stage.director = Director::start(&stage.farm, &stage.config);
    sessions.iter_mut().for_each(|session| drop(session.mail().expect("the session goes on")));
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{tally:?}");
    stage.await_deliveries(&tally.accepted); // a dead server would keep what is in its queue

    // The new director's first write is the one that it must make: no weight changed on the way.
    stage.farm.reals[0].kill();
    stage.await_weights("the new director is in charge", [0, 1, 1]);
    assert_eq!(stage.all_writes(&tap), [Write::SetDest]);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_table_changed_by_hand_is_repaired_and_a_foreign_virtual_left_alone() {
    let stage = Stage::new(Wiring::Gate, Ip::V4);
    let director = &stage.farm.director;
    let (ours, vip, real) = (table(director), stage.vip(), stage.real(1));
    let repaired = |what: &str| wait_until(Duration::from_secs(10), what, || table(director) == ours);

    ipvsadm(director, "-C");
    repaired("a cleared table comes back");
    ipvsadm(director, &format!("-d -t {vip} -r {real}"));
    repaired("a deleted server comes back");

    ipvsadm(director, "-A -t 10.99.0.200:80 -s rr");
    ipvsadm(director, "-a -t 10.99.0.200:80 -r 10.99.0.77:80 -g -w 5");
    let mut all = table(director);
    all.retain(|name, _| !ours.contains_key(name));
    assert_eq!(all.len(), 1);
    all.extend(ours.clone());
    ipvsadm(director, &format!("-e -t {vip} -r {real} -g -w 7"));
    wait_until(LIMIT, "a changed weight is put right, the foreign virtual stays", || table(director) == all);

    let tap = Tap::start(&stage.farm);
    stage.director.hang_up();
    ipvsadm(director, &format!("-E -t {vip} -s rr"));
    wait_until(LIMIT, "a changed scheduler is put right", || table(director) == all);
    // SET_SERVICE (2) twice, by hand and by the director: nothing else was touched.
    assert_eq!(stage.all_writes(&tap), [Write::Other(2), Write::Other(2)]);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn plan_says_what_is_missing_and_changes_nothing() {
    let Stage { director, farm, config } = Stage::new(Wiring::Gate, Ip::V4);
    director.kill();
    let plan = || {
        let output = run_to_end(&[], &farm, "plan", &config.text());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let tap = Tap::start(&farm);
    assert_eq!(plan().lines().filter(|line| !line.starts_with('#')).count(), 0);

    ipvsadm(&farm.director, "-C");
    let said = plan();
    let vip = config.ip.vip();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            format!("+ TCP {vip} wlc"),
            format!("+ TCP {vip} -> 10.99.0.11:25 Route weight 1"),
            format!("+ TCP {vip} -> 10.99.0.12:25 Route weight 1"),
            format!("+ TCP {vip} -> 10.99.0.13:25 Route weight 1"),
        ]
    );
    // FLUSH (17) is that of our `-C`.
    assert_eq!(tap.all_writes(&farm.director), [Write::Other(17)]);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn without_the_capability_ipvs_is_refused_and_auto_takes_the_proxy() {
    const BARE: [&str; 3] = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let farm = Farm::new(Wiring::Proxy);
    let config = Config { wiring: Wiring::Proxy, ip: Ip::V4, reals: REALS.to_vec(), fallback: false };
    let choosing = |dataplane: &str| config.text().replace("\"proxy\"", &format!("\"{dataplane}\""));

    let refused = run_to_end(&BARE, &farm, "run", &choosing("ipvs"));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(77), "{said}");
    for words in ["CAP_NET_ADMIN", "setcap cap_net_admin", "AmbientCapabilities=CAP_NET_ADMIN"] {
        assert!(said.contains(words), "{words}: {said}");
    }

    let director = Director::start_below(&BARE, &farm, &choosing("auto"));
    let log = director.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("proxy")).collect();
    assert!(matches!(lines[..], [line] if line.contains("CAP_NET_ADMIN")), "{log}");
    Session::open(&farm.client, config.ip.vip()).expect("a session through the proxy").mail().expect("mail");
}
