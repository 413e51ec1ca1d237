//! The probe through the VIP on real IPVS and real Postfix: what only a client would notice, one fault at a time.
//!
//! Judged by `ipvsadm`, by `/status` and by the log. Each fault leaves the server well at its own address.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::scenario::{LIMIT, Stage};
use crate::farm::director::{Config, Director, run_to_end};
use crate::farm::host::{Host, wait_until};
use crate::farm::ipvs::{ipvsadm, table};
use crate::farm::mail::Load;
use crate::farm::{Farm, Ip, REALS, Wiring};

fn text(config: &Config) -> String {
    let asks = "[check]\nconnect_timeout = \"1s\"\n";
    config.text().replace("[check]\n", asks).replace("quiescent", "vip_check = true\nquiescent")
}

/// A farm whose director can be answered through the VIP, and three servers that are.
fn stage(wiring: Wiring, ip: Ip) -> Stage {
    let farm = Farm::new(wiring);
    farm.director.sysctl(&[("ipv4/conf/eth0/accept_local", "1")]);
    let stage = begin(farm, Config { wiring, ip, reals: REALS.to_vec(), fallback: false });
    wait_until(LIMIT, "each was asked through the VIP", || metric(&stage, "reason=\"ok\"") == 3);
    stage
}

fn begin(farm: Farm, config: Config) -> Stage {
    let director = Director::start_below(&[], &farm, &text(&config));
    let stage = Stage { director, farm, config };
    stage.await_weights("all three are in", [1, 1, 1]);
    stage
}

/// How many series of checks through the VIP there are with this label.
fn metric(stage: &Stage, label: &str) -> usize {
    let body = stage.director.get("/metrics").map_or_else(String::new, |(_, body)| body);
    let asked = body.lines().filter(|line| line.starts_with("smtp_director_checks_total"));
    asked.filter(|line| line.contains("tier=\"vip\"") && line.contains(label)).count()
}

fn status(stage: &Stage) -> Value {
    let body = stage.director.get("/status").map_or_else(String::new, |(_, body)| body);
    serde_json::from_str(&body).unwrap_or_default()
}

/// The private services in the kernel's table.
fn private(director: &Host) -> BTreeSet<String> {
    table(director).into_keys().filter(|name| name.starts_with("FWM")).collect()
}

/// One server alone is out, for this reason and with these words, and is back when it is mended.
fn is_out_alone(
    stage: &mut Stage,
    index: usize,
    (reason, words): (&str, &str),
    mend: impl FnOnce(&mut Stage),
) {
    let mut wanted = [1, 1, 1];
    wanted[index] = 0;
    stage.await_weights(words, wanted);
    // A Postfix that is started again is down without the VIP too, for a moment.
    wait_until(LIMIT, &format!("it says why: {words}"), || {
        let real = status(stage)["virtuals"][0]["reals"][index].clone();
        let said = real["text"].as_str().unwrap_or_default();
        let is_named = said.contains("through the VIP") && said.contains(words);
        real["state"] == "down" && real["reason"] == reason && is_named
    });
    stage.await_weights(words, wanted);
    let load = Load::start(&stage.farm.client, stage.vip());
    stage.await_sessions(&load, 10);
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{tally:?}");
    assert!(!tally.sessions.contains_key(stage.farm.reals[index].name()), "{tally:?}");
    mend(stage);
    stage.await_weights("it is back", [1, 1, 1]);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn what_only_a_client_notices_takes_out_that_server_alone() {
    let mut stage = stage(Wiring::Gate, Ip::V4);
    let vip = stage.vip().ip();

    stage.farm.reals[1].host.ip(&format!("addr del {vip}/32 dev lo\n"));
    is_out_alone(&mut stage, 1, ("timeout", "missing on lo of 10.99.0.12"), |stage| {
        stage.farm.reals[1].host.ip(&format!("addr add {vip}/32 dev lo label lo:0\n"));
    });

    stage.farm.reals[2].restart_with("inet_interfaces = 127.0.0.1, 10.99.0.13\n");
    is_out_alone(&mut stage, 2, ("refused", "nothing listens on it on 10.99.0.13"), |stage| {
        stage.farm.reals[2].restart_with("");
    });

    let host = &stage.farm.reals[0].host;
    // The guest's nftables has no families; this drops a packet as early as a firewall does.
    let tc = |arguments: &str| host.run("tc", &arguments.split_whitespace().collect::<Vec<_>>());
    tc("qdisc add dev eth0 clsact");
    tc(&format!("filter add dev eth0 ingress protocol ip u32 match ip dst {vip}/32 action drop"));
    is_out_alone(&mut stage, 0, ("timeout", "or a firewall there drops it"), |stage| {
        stage.farm.reals[0].host.run("tc", &["qdisc", "del", "dev", "eth0", "clsact"]);
    });

    let shown = status(&stage);
    assert_eq!(shown["virtuals"].as_array().map(Vec::len), Some(1), "{shown}");
    let (_, metrics) = stage.director.get("/metrics").expect("it answers");
    assert_eq!(private(&stage.farm.director).len(), 3);
    assert!(!metrics.contains("FWM") && !shown.to_string().contains("FWM"), "{metrics}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_vip_that_is_missing_behind_a_tunnel_is_noticed() {
    let mut stage = stage(Wiring::Ipip, Ip::V4);
    stage.farm.reals[1].host.ip("addr del 10.99.0.100/32 dev lo\naddr del 10.99.0.100/32 dev tunl0\n");
    is_out_alone(&mut stage, 1, ("timeout", "missing on lo of 10.99.0.12"), |stage| {
        stage.farm.reals[1].host.ip("addr add 10.99.0.100/32 dev lo\naddr add 10.99.0.100/32 dev tunl0\n");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_vip_that_is_missing_is_noticed_over_ipv6_with_no_setting_at_all() {
    let farm = Farm::new(Wiring::Gate);
    let config = Config { wiring: Wiring::Gate, ip: Ip::V6, reals: REALS.to_vec(), fallback: false };
    let mut stage = begin(farm, config);
    wait_until(LIMIT, "each was asked through the VIP", || metric(&stage, "reason=\"ok\"") == 3);
    stage.farm.reals[1].host.ip("addr del fd00:99::64/128 dev lo\n");
    is_out_alone(&mut stage, 1, ("timeout", "missing on lo of fd00:99::c"), |stage| {
        stage.farm.reals[1].host.ip("addr add fd00:99::64/128 dev lo\n");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn private_services_come_back_and_go_with_the_director() {
    let mut stage = stage(Wiring::Gate, Ip::V4);
    let host = stage.farm.director.again();
    let (all, ours) = (table(&host), private(&host));
    assert_eq!(ours.len(), 3);
    let mark = |name: &String| name.trim_start_matches("FWM").trim().to_owned();
    for name in &ours {
        ipvsadm(&host, &format!("-D -f {}", mark(name)));
    }
    wait_until(LIMIT, "what was deleted by hand is back", || table(&host) == all);

    // A crash leaves them, and one of a server that the file of the next start has no more.
    let Stage { director, farm, mut config } = stage;
    director.kill();
    assert_eq!(private(&host), ours);
    config.reals.truncate(2);
    ipvsadm(&host, &format!("-d -t {} -r {}", config.ip.vip(), config.ip.smtp(REALS[2])));
    let director = Director::start_below(&[], &farm, &text(&config));
    wait_until(LIMIT, "what is wanted was adopted, the rest is gone", || private(&host).len() == 2);
    assert!(private(&host).is_subset(&ours));
    stage = Stage { director, farm, config };

    // Without the wish, none is left; with it, they are back.
    stage.director.write(&stage.config.text());
    stage.director.hang_up();
    wait_until(LIMIT, "nobody wants them", || private(&host).is_empty());
    stage.director.write(&text(&stage.config));
    stage.director.hang_up();
    wait_until(LIMIT, "they are wanted again", || private(&host).len() == 2);

    let Stage { director, farm, config } = stage;
    director.terminate();
    assert_eq!(table(&host).into_keys().collect::<Vec<_>>(), [format!("TCP {}", config.ip.vip())]);

    // Somebody else's service under a mark that is needed.
    for name in &ours {
        ipvsadm(&host, &format!("-A -f {} -s wlc", mark(name)));
    }
    let refused = run_to_end(&[], &farm, "run", &text(&config));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{said}");
    let named = ours.iter().filter(|name| said.contains(&mark(name))).count();
    assert!(named == 2 && said.contains("vip_marks"), "{said}");
    assert_eq!(private(&host), ours, "left alone");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_fault_of_the_director_takes_nobody_out() {
    // At the start a setting is missing: the servers come in by their other checks, and the log says what to do.
    let farm = Farm::new(Wiring::Gate);
    let config = Config { wiring: Wiring::Gate, ip: Ip::V4, reals: REALS.to_vec(), fallback: false };
    let stage = begin(farm, config);
    assert!(
        stage.director.log().contains("sysctl -w net.ipv4.conf.eth0.accept_local=1"),
        "{}",
        stage.director.log()
    );
    let hidden = |stage: &Stage, index: usize| {
        let real = &status(stage)["virtuals"][0]["reals"][index];
        real["state"] == "up" && real["reason"] == "local"
    };
    wait_until(LIMIT, "the probes say that it is the director", || (0..3).all(|index| hidden(&stage, index)));
    stage.await_weights("nobody is out", [1, 1, 1]);
    stage.farm.director.sysctl(&[("ipv4/conf/eth0/accept_local", "1")]);
    wait_until(LIMIT, "each was asked through the VIP", || metric(&stage, "reason=\"ok\"") == 3);

    // All fail at once, and no setting says why: nobody is out, and it is told.
    for real in &stage.farm.reals {
        real.host.ip("addr del 10.99.0.100/32 dev lo\n");
    }
    wait_until(LIMIT, "the director doubts itself", || status(&stage)["virtuals"][0]["vip_doubted"] == true);
    stage.await_weights("nobody is out", [1, 1, 1]);
    let told = || stage.director.log().matches("no real server of mail answers through the VIP").count();
    assert_eq!(told(), 1, "{}", stage.director.log());
    // One that answers shows that the director can.
    stage.farm.reals[0].host.ip("addr add 10.99.0.100/32 dev lo\n");
    stage.await_weights("the others are to blame", [1, 0, 0]);
    for real in &stage.farm.reals[1..] {
        real.host.ip("addr add 10.99.0.100/32 dev lo\n");
    }
    wait_until(Duration::from_secs(60), "all are back", || stage.weights().values().eq([&1, &1, &1]));
    assert_eq!(told(), 1);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_server_that_lost_arp_ignore_is_named() {
    let farm = Farm::new(Wiring::Gate);
    let config = Config { wiring: Wiring::Gate, ip: Ip::V4, reals: REALS.to_vec(), fallback: false };
    // What the unit gives, and no more: CAP_NET_RAW is not among it.
    let unit = ["setpriv", "--bounding-set=-all,+net_admin", "--inh-caps=-all,+net_admin"];
    let director = Director::start_below(&unit, &farm, &format!("arp_watch = \"2s\"\n{}", text(&config)));
    let stage = Stage { director, farm, config };
    let vips = |stage: &Stage| status(stage)["vips"].clone();
    let strangers = |stage: &Stage| vips(stage)[0]["strangers"].as_array().map(Vec::len);
    wait_until(LIMIT, "nobody else answers", || strangers(&stage) == Some(0));

    let host = &stage.farm.reals[1].host;
    host.sysctl(&[("ipv4/conf/all/arp_ignore", "0")]);
    wait_until(LIMIT, "somebody does", || strangers(&stage) == Some(1));
    assert_eq!(vips(&stage)[0]["strangers"][0]["real"], "10.99.0.12", "{}", vips(&stage));
    let log = stage.director.log();
    assert_eq!(log.matches("real server 10.99.0.12 (").count(), 1, "{log}");
    assert!(log.contains(") answers for the VIP 10.99.0.100: ") && log.contains("arp_ignore"), "{log}");
    let (_, metrics) = stage.director.get("/metrics").expect("it answers");
    assert!(metrics.contains("smtp_director_vip_strangers{vip=\"10.99.0.100\"} 1"), "{metrics}");
    // The look leaves nothing behind that another look, or mail, would trip over.
    stage.await_weights("mail goes on", [1, 1, 1]);

    host.sysctl(&[("ipv4/conf/all/arp_ignore", "1")]);
    wait_until(LIMIT, "nobody else answers any more", || strangers(&stage) == Some(0));
    assert!(stage.director.log().contains("does not answer for the VIP 10.99.0.100 any more"));
}
