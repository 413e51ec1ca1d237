//! The laboratory itself, before any director: a table set by hand carries mail.

use std::net::SocketAddr;
use std::time::Duration;

use crate::farm::host::wait_until;
use crate::farm::ipvs::{Tap, Write, ipvsadm, table, weights};
use crate::farm::mail::{Load, Session};
use crate::farm::{Farm, Ip, REALS, Wiring};

fn set_by_hand(farm: &Farm, ip: Ip, option: &str) -> SocketAddr {
    let vip = ip.vip();
    ipvsadm(&farm.director, &format!("-A -t {vip} -s wlc"));
    for last in REALS {
        ipvsadm(&farm.director, &format!("-a -t {vip} -r {} {option} -w 3", ip.smtp(last)));
    }
    assert_eq!(weights(&farm.director, vip), REALS.map(|last| (ip.smtp(last), 3)).into());
    vip
}

/// Mail through the VIP is accepted by every server and delivered there, all of it.
fn mail_flows(farm: &Farm, vip: SocketAddr) {
    let before = farm.delivered();
    let load = Load::start(&farm.client, vip);
    wait_until(Duration::from_secs(30), "every server takes sessions", || {
        let tally = load.tally();
        tally.sessions.len() == 3 || !tally.failures.is_empty()
    });
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{tally:?}");
    wait_until(Duration::from_secs(30), "every accepted message is delivered", || {
        let found = farm.deliveries();
        tally.accepted.iter().all(|id| found.get(id) == Some(&1))
    });
    assert!(farm.delivered().iter().zip(before).all(|(after, before)| *after > before));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn carries_mail_by_direct_routing_over_both_families() {
    let farm = Farm::new(Wiring::Gate);
    let vip = set_by_hand(&farm, Ip::V4, "-g");
    mail_flows(&farm, vip);
    let vip = set_by_hand(&farm, Ip::V6, "-g");
    mail_flows(&farm, vip);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn carries_mail_by_masquerading() {
    let farm = Farm::new(Wiring::Masq);
    let vip = set_by_hand(&farm, Ip::V4, "-m");
    mail_flows(&farm, vip);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn carries_mail_through_a_tunnel() {
    let farm = Farm::new(Wiring::Ipip);
    let vip = set_by_hand(&farm, Ip::V4, "-i");
    mail_flows(&farm, vip);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn sees_each_write_and_each_broken_session() {
    let mut farm = Farm::new(Wiring::Gate);
    let vip = set_by_hand(&farm, Ip::V4, "-g");
    let tap = Tap::start(&farm);
    ipvsadm(&farm.director, &format!("-e -t {vip} -r {} -g -w 0", Ip::V4.smtp(REALS[0])));
    assert_eq!(weights(&farm.director, vip)[&Ip::V4.smtp(REALS[0])], 0);
    ipvsadm(&farm.director, "-A -t 10.99.0.200:80 -s rr");
    wait_until(Duration::from_secs(10), "the tap sees both", || {
        tap.writes() == [Write::SetDest, Write::NewService]
    });
    assert_eq!(table(&farm.director).len(), 2);

    let mut session = Session::open(&farm.client, vip).expect("two servers take sessions");
    let chosen = session.server.clone();
    assert_ne!(chosen, "real1", "weight 0 takes no session");
    farm.reals.iter_mut().find(|real| real.name() == chosen).expect("a server of ours").kill();
    session.mail().expect_err("its server is dead");
}
