//! What must be true of a farm whichever dataplane carries its connections.
//!
//! Each function is one scenario on a farm of its own. The weights come from whoever is believed for the dataplane:
//! `ipvsadm` for the kernel, `/status` for the proxy; that mail arrived is judged by the Maildirs.
#![expect(clippy::disallowed_methods, reason = "EDGE: a failure after the weight was 0 is a failure")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::farm::director::{Config, Director};
use crate::farm::host::wait_until;
use crate::farm::ipvs::{self, Tap, Write};
use crate::farm::mail::{Load, Session, Tally};
use crate::farm::postfix::Postfix;
use crate::farm::{Cable, Farm, Ip, REALS, Wiring};

/// Far more than any of it takes, and less than the default timeouts that a fault would run into.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// A farm and a director that has all three servers in.
pub(super) struct Stage {
    /// Before the farm, whose folder has its log.
    pub(super) director: Director,
    pub(super) farm: Farm,
    pub(super) config: Config,
}

impl Stage {
    /// The first act of every scenario: three servers are in, each with its weight.
    pub(super) fn new(wiring: Wiring, ip: Ip) -> Self {
        let farm = Farm::new(wiring);
        let config = Config { wiring, ip, reals: REALS.to_vec(), fallback: false };
        let director = Director::start(&farm, &config);
        let stage = Self { farm, director, config };
        stage.await_weights("all three are in", [1, 1, 1]);
        stage
    }

    pub(super) fn vip(&self) -> SocketAddr {
        self.config.ip.vip()
    }

    /// The address of real server 0, 1 or 2.
    pub(super) fn real(&self, index: usize) -> SocketAddr {
        self.config.ip.smtp(REALS[index])
    }

    pub(super) fn weights(&self) -> BTreeMap<SocketAddr, u32> {
        match self.config.wiring {
            Wiring::Proxy => self.director.weights(),
            Wiring::Gate | Wiring::Masq | Wiring::Ipip => ipvs::weights(&self.farm.director, self.vip()),
        }
    }

    /// Waits until the table has exactly the three real servers with these weights.
    pub(super) fn await_weights(&self, what: &str, wanted: [u32; 3]) {
        self.await_table(what, &[0, 1, 2].map(|index| (self.real(index), wanted[index])));
    }

    /// Waits until the table has exactly these real servers with these weights.
    pub(super) fn await_table(&self, what: &str, wanted: &[(SocketAddr, u32)]) {
        let wanted: BTreeMap<_, _> = wanted.iter().copied().collect();
        let mut last = BTreeMap::new();
        wait_until(LIMIT, &format!("{what}: {wanted:?}"), || {
            let now = self.weights();
            if now != last {
                println!("weights: {now:?}");
                last.clone_from(&now);
            }
            now == wanted
        });
    }

    /// An open session on each of the three servers, in their order.
    pub(super) fn session_on_each(&self) -> [Session; 3] {
        [0, 1, 2].map(|index| self.session_on(index))
    }

    /// An open session on real server `index`; those on others are closed again.
    pub(super) fn session_on(&self, index: usize) -> Session {
        let mut others = Vec::new();
        for _ in 0..30 {
            let session = Session::open(&self.farm.client, self.vip()).expect("a session through the VIP");
            if session.server == self.farm.reals[index].name() {
                return session;
            }
            others.push(session); // kept open, so that the least-connection scheduler moves on
        }
        panic!("30 sessions and none on {}", self.farm.reals[index].name());
    }

    /// All writes since the tap began, those of a repair that the director is in the midst of included.
    pub(super) fn all_writes(&self, tap: &Tap) -> Vec<Write> {
        let answer = self.director.get("/ready"); // one loop writes and answers
        assert!(answer.as_ref().is_some_and(|(code, _)| *code == 200), "{answer:?}");
        tap.all_writes(&self.farm.director)
    }

    /// Waits until this load has completed `more` sessions from now on.
    pub(super) fn await_sessions(&self, load: &Load, more: usize) {
        let count = |tally: &Tally| tally.sessions.values().sum::<usize>();
        let before = count(&load.tally());
        wait_until(LIMIT, "the load goes on", || count(&load.tally()) >= before + more);
    }

    /// Waits until everything that a server took responsibility for was delivered.
    pub(super) fn await_deliveries(&self, accepted: &[String]) {
        wait_until(LIMIT, "every accepted message is delivered", || {
            let found = self.farm.deliveries();
            accepted.iter().all(|id| found.contains_key(id))
        });
    }
}

/// Three servers are in; a burst from a sender that is not ours is queued and delivered, and all three serve.
pub(super) fn starts_and_carries_mail(wiring: Wiring, ip: Ip) {
    let stage = Stage::new(wiring, ip);
    let target = match ip {
        Ip::V4 => format!("inet:{}:25", stage.vip().ip()),
        Ip::V6 => format!("inet:[{}]:25", stage.vip().ip()),
    };
    // No -d: a new connection for each message. It stops at the first thing that is not as it should be.
    let arguments =
        ["-s", "3", "-m", "30", "-l", "300", "-f", "a@client.lab.test", "-t", "inbox@lab.test", &target];
    stage.farm.client.run("smtp-source", &arguments);
    wait_until(LIMIT, "all 30 messages are delivered", || stage.farm.delivered().iter().sum::<usize>() == 30);
    let delivered = stage.farm.delivered();
    assert!(delivered.iter().all(|count| *count > 0), "not all three served: {delivered:?}");
}

/// A server is killed under load: it alone is taken out and comes back, and nobody else's session notices.
pub(super) fn takes_a_dead_server_out_and_back(wiring: Wiring) {
    let mut stage = Stage::new(wiring, Ip::V4);
    let tap = (wiring != Wiring::Proxy).then(|| Tap::start(&stage.farm));
    let load = Load::start(&stage.farm.client, stage.vip());
    let mut sessions = stage.session_on_each();

    let killed = Instant::now();
    stage.farm.reals[1].kill();
    stage.await_weights("the dead server is out", [1, 0, 1]);
    let out = Instant::now();
    // An interval of 1 s and two retries of 300 ms make 1.6 s; no timeout has a part in it.
    assert!(out - killed < Duration::from_secs(5), "out after {:?}", out - killed);
    stage.await_sessions(&load, 20);
    sessions[0].mail().expect("a session on another server goes on");
    sessions[2].mail().expect("a session on another server goes on");
    sessions[1].mail().expect_err("its server is dead");

    stage.farm.reals[1].start();
    stage.await_weights("the server is back with its weight", [1, 1, 1]);
    stage.session_on(1).mail().expect("the server serves again");
    let tally = load.stop();
    for failure in &tally.failures {
        let dead = failure.server.as_deref().is_none_or(|name| name == "real2");
        assert!(
            dead && failure.began < out,
            "only the dead server's, and only until it was out: {failure:?}"
        );
    }
    stage.await_deliveries(&tally.accepted);
    if let Some(tap) = tap {
        let writes = stage.all_writes(&tap);
        assert_eq!(writes, [Write::SetDest, Write::SetDest], "weight 0, the weight back, and nothing else");
    }
}

/// A broken file is refused with its place, and the old configuration goes on doing its work.
pub(super) fn refuses_a_broken_file_and_goes_on(wiring: Wiring) {
    let mut stage = Stage::new(wiring, Ip::V4);
    let session = &mut stage.session_on(0);
    let text = stage.config.text();
    let line = text.lines().count() + 1;
    stage.director.write(&format!("{text}scheduler =\n"));
    stage.director.hang_up();
    let place = format!("director.toml:{line}");
    wait_until(LIMIT, &format!("the log names {place}"), || stage.director.log().contains(&place));
    assert_eq!(stage.weights().into_values().collect::<Vec<_>>(), [1, 1, 1]);

    stage.farm.reals[2].kill();
    stage.await_weights("the dead server is out", [1, 1, 0]);
    session.mail().expect("a session on another server goes on");
    stage.director.write(&text);
    stage.director.hang_up();
    stage.farm.reals[2].start();
    stage.await_weights("the server is back", [1, 1, 1]);
}

/// A server that is taken out of the file keeps its session, gets no new one, and goes when the session ends.
pub(super) fn drains_a_removed_server(wiring: Wiring) {
    let mut stage = Stage::new(wiring, Ip::V4);
    let mut session = stage.session_on(1);
    stage.config.reals.retain(|last| *last != REALS[1]);
    stage.director.write(&stage.config.text());
    stage.director.hang_up();
    stage.await_weights("the removed server drains", [1, 0, 1]);

    let load = Load::start(&stage.farm.client, stage.vip());
    stage.await_sessions(&load, 20);
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{tally:?}");
    assert!(!tally.sessions.contains_key("real2"), "no new session: {tally:?}");
    assert_eq!(stage.weights().get(&stage.real(1)), Some(&0), "still there while its session is open");
    let id = session.mail().expect("the session goes on");
    session.quit().expect("221");
    stage.await_table("the drained server is gone", &[(stage.real(0), 1), (stage.real(2), 1)]);
    stage.await_deliveries(&[id]);
}

/// The fallback serves while no real server can, and leaves with the first that can.
pub(super) fn falls_back_when_all_are_dead(wiring: Wiring) {
    let mut stage = Stage::new(wiring, Ip::V4);
    stage.farm.fallback.start();
    stage.config.fallback = true;
    stage.director.write(&stage.config.text());
    stage.director.hang_up();
    for real in &mut stage.farm.reals {
        real.kill();
    }
    let fallback = stage.config.ip.smtp(crate::farm::FALLBACK);
    wait_until(LIMIT, "the fallback is in", || {
        stage.weights().get(&fallback).is_some_and(|weight| *weight > 0)
    });
    let mut session = Session::open(&stage.farm.client, stage.vip()).expect("the fallback takes sessions");
    assert_eq!(session.server, "fallback");
    let id = session.mail().expect("the fallback takes mail");
    session.quit().expect("221");
    stage.await_deliveries(&[id]);

    stage.farm.reals[0].start();
    stage.await_weights("the first that is back serves alone", [1, 0, 0]);
    let session = Session::open(&stage.farm.client, stage.vip()).expect("a session through the VIP");
    assert_eq!(session.server, "real1");
}

/// A host is off: it is out. The director itself is cut off: nobody is, and what was out before stays out.
pub(super) fn tells_a_host_that_is_off_from_a_director_that_is_cut_off(wiring: Wiring) {
    let stage = Stage::new(wiring, Ip::V4);
    stage.farm.cable("real2", Cable::Out);
    stage.await_weights("the host that is off is out", [1, 0, 1]);
    let status = |stage: &Stage| -> serde_json::Value {
        let body = stage.director.get("/status").map_or_else(String::new, |(_, body)| body);
        serde_json::from_str(&body).unwrap_or_default()
    };
    let real = status(&stage)["virtuals"][0]["reals"][1].clone();
    assert_eq!(real["stage"], "connect", "{real}");
    assert!(real["reason"] == "timeout" || real["reason"] == "unreachable", "{real}");
    stage.farm.cable("real2", Cable::In);
    stage.await_weights("it is back", [1, 1, 1]);

    stage.farm.cable("director", Cable::Out);
    wait_until(LIMIT, "the director knows that it is cut off", || status(&stage)["cut_off"] == true);
    wait_until(LIMIT, "to it, all are down", || {
        let reals = status(&stage)["virtuals"][0]["reals"].as_array().cloned().unwrap_or_default();
        reals.len() == 3 && reals.iter().all(|real| real["state"] == "down" && real["held"] == true)
    });
    stage.await_weights("and all keep their weight", [1, 1, 1]);
    assert!(stage.director.log().contains("no real server answers"), "{}", stage.director.log());
    stage.farm.cable("director", Cable::In);
    wait_until(LIMIT, "all is well again", || {
        let status = status(&stage);
        let reals = status["virtuals"][0]["reals"].as_array().cloned().unwrap_or_default();
        status["cut_off"] == false && reals.iter().all(|real| real["state"] == "up")
    });
    stage.await_weights("with the weights that they had", [1, 1, 1]);
}

/// A milter is dead: the server greets as ever and refuses every message. It is taken out, its neighbours stay; and
/// when all suffer from the same, none is out.
pub(super) fn takes_out_a_server_that_refuses_all_mail(wiring: Wiring) {
    let mut stage = Stage::new(wiring, Ip::V4);
    let asks =
        "[check]\nmail = { from = \"a@client.lab.test\", accept = \"inbox@lab.test\", interval = \"1s\" }\n";
    stage.director.write(&stage.config.text().replace("[check]\n", asks));
    stage.director.hang_up();
    let asked = |stage: &Stage, index: usize| {
        wait_until(LIMIT, "it is seen at MAIL", || {
            let status = stage.director.get("/status").map_or_else(String::new, |(_, body)| body);
            let status: serde_json::Value = serde_json::from_str(&status).unwrap_or_default();
            let real = &status["virtuals"][0]["reals"][index];
            real["state"] == "down" && real["stage"] == "mail" && real["code"] == 451
        });
    };
    let dead_milter = "smtpd_milters = inet:127.0.0.1:1\nmilter_default_action = tempfail\n";
    stage.farm.reals[1].restart_with(dead_milter);
    asked(&stage, 1);
    stage.await_weights("who refuses all mail is out", [1, 0, 1]);
    let load = Load::start(&stage.farm.client, stage.vip());
    stage.await_sessions(&load, 20);
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{tally:?}");
    assert!(!tally.sessions.contains_key("real2"), "no new session: {tally:?}");
    stage.await_deliveries(&tally.accepted);

    stage.farm.reals[0].restart_with(dead_milter);
    stage.farm.reals[2].restart_with(dead_milter);
    asked(&stage, 0);
    asked(&stage, 2);
    stage.await_weights("what all suffer from takes none out", [1, 1, 1]);
    assert!(stage.director.log().contains("3 of 3 real servers of mail are down and keep their weight"));
}

/// One server falls ill: its weight goes to 0, and that of its neighbours is what it was at every look.
pub(super) fn takes_out_only_who_is_sick(wiring: Wiring, fall_ill: impl FnOnce(&mut Postfix)) {
    let mut stage = Stage::new(wiring, Ip::V4);
    let asks = "[check]\nbanner_timeout = \"1s\"\n\
                mail = { from = \"a@client.lab.test\", accept = \"inbox@lab.test\", interval = \"1s\" }\n";
    stage.director.write(&stage.config.text().replace("[check]\n", asks));
    stage.director.hang_up();
    fall_ill(&mut stage.farm.reals[1]);
    let (sick, neighbours) = (stage.real(1), [stage.real(0), stage.real(2)]);
    let weight_of_the_sick = |stage: &Stage| {
        let weights = stage.weights();
        assert!(neighbours.iter().all(|real| weights.get(real) == Some(&1)), "{weights:?}");
        weights.get(&sick).copied()
    };
    wait_until(LIMIT, "the sick one is out", || weight_of_the_sick(&stage) == Some(0));
    let load = Load::start(&stage.farm.client, stage.vip());
    let sessions = |load: &Load| load.tally().sessions.values().sum::<usize>();
    wait_until(LIMIT, "mail flows", || {
        assert_eq!(weight_of_the_sick(&stage), Some(0));
        sessions(&load) >= 40
    });
    let tally = load.stop();
    assert!(tally.failures.is_empty(), "{tally:?}");
    assert!(!tally.sessions.contains_key("real2"), "no new session: {tally:?}");
    stage.await_deliveries(&tally.accepted);
}
