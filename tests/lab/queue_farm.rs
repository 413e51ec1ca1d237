//! Weights that follow the queues of real Postfix, on the proxy dataplane and two on IPVS: what was broken is seen by the right signal, and said.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::farm::director::{Config, Director};
use crate::farm::host::wait_until;
use crate::farm::mail::Load;
use crate::farm::postfix::{MASTER_CF, Postfix};
use crate::farm::{Farm, Ip, REALS, Wiring};

const LIMIT: Duration = Duration::from_secs(90);
const QUEUE: &str =
    "weight = 100\nslow_start = \"0s\"\nqueue = { full_at = \"2s\", floor_at = \"8s\", interval = \"1s\" }";

/// An `smtp-realserver` that ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three Postfix servers, each with its agent, and a director that asks them.
struct Stage {
    director: Director,
    agents: Vec<Agent>,
    farm: Farm,
}

impl Stage {
    fn new() -> Self {
        Self::on(Wiring::Proxy)
    }

    fn on(wiring: Wiring) -> Self {
        Self::with(wiring, "[check]\n", |_| ())
    }

    /// The same with this table of checks, and servers that were first made ready like this.
    fn with(wiring: Wiring, check: &str, ready: impl Fn(&Postfix)) -> Self {
        let farm = Farm::new(wiring);
        farm.reals.iter().for_each(ready);
        let config = Config { wiring, ip: Ip::V4, reals: REALS.to_vec(), fallback: false };
        let agents = farm.reals.iter().zip(REALS).map(|(real, last)| {
            let etc = farm.folder.join(real.name()).join("etc");
            real.host.inside(|| {
                let mut serve = Command::new(program());
                serve.args([
                    "serve",
                    "--listen",
                    &format!("10.99.0.{last}:9626"),
                    "--allow",
                    "10.99.0.2",
                    "-c",
                ]);
                Agent(
                    serve
                        .arg(etc)
                        .stdin(Stdio::null())
                        .stderr(Stdio::null())
                        .spawn()
                        .expect("smtp-realserver"),
                )
            })
        });
        let agents = agents.collect();
        let text = config.text().replace("weight = 1\n", &format!("{QUEUE}\n")).replace("[check]\n", check);
        let director = Director::start_below(&[], &farm, &text);
        let stage = Self { director, agents, farm };
        stage.until("all agents are heard", |reals| {
            reals.iter().all(|real| real["queue"]["active"].is_u64() && real["weight"] == 100)
        });
        stage
    }

    fn reals(&self) -> Vec<Value> {
        let (_, body) = self.director.get("/status").expect("/status");
        let status: Value = serde_json::from_str(&body).expect("JSON");
        status["virtuals"][0]["reals"].as_array().expect("reals").clone()
    }

    fn until(&self, what: &str, holds: impl Fn(&[Value]) -> bool) {
        let mut last = String::new();
        wait_until(LIMIT, what, || {
            let reals = self.reals();
            let why: Vec<_> =
                reals.iter().map(|real| real["why"].as_str().unwrap_or("?").to_owned()).collect();
            if why.join("\n") != last {
                last = why.join("\n");
                println!("{last}\n");
            }
            holds(&reals)
        });
    }

    /// Waits until the first server has at most this weight and its line says this, and the others have all of theirs.
    fn until_first_has(&self, most: u64, said: &str) {
        self.until(said, |reals| {
            let why = reals[0]["why"].as_str().unwrap_or_default();
            let others = reals[1..].iter().all(|real| real["weight"] == 100);
            reals[0]["weight"].as_u64().is_some_and(|weight| weight <= most) && why.contains(said) && others
        });
    }

    fn vip(&self) -> SocketAddr {
        Ip::V4.vip()
    }
}

/// What `cargo build` puts beside the folder of the tests' own.
fn program() -> PathBuf {
    let here = std::env::current_exe().expect("the test");
    let program = here.ancestors().nth(2).expect("target").join("smtp-realserver");
    assert!(program.exists(), "{} is missing: cargo build -p postfix", program.display());
    program
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_whose_qmgr_is_dead_is_out_although_it_takes_mail() {
    qmgr_is_dead(Wiring::Proxy);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_server_whose_qmgr_is_dead_is_out_although_it_takes_mail_on_ipvs() {
    qmgr_is_dead(Wiring::Gate);
}

fn qmgr_is_dead(wiring: Wiring) {
    let stage = Stage::on(wiring);
    // It ends at its next start, and master holds it back for a minute.
    stage.farm.reals[0].configure("qmgr_message_active_limit = -1\n", MASTER_CF);
    stage.farm.reals[0].reload();
    stage.until_first_has(0, "failed at agent: qmgr does not run: mail is taken and not delivered");
    let first = &stage.reals()[0];
    assert_eq!((&first["check_factor"], &first["factors"]["agent"]), (&Value::from(1.0), &Value::from(0.0)));
    let before = stage.farm.delivered();
    let load = Load::start(&stage.farm.client, stage.vip());
    wait_until(LIMIT, "mail goes where it is delivered", || {
        let now = stage.farm.delivered();
        now[1] > before[1] + 5 && now[2] > before[2] + 5
    });
    load.stop();
    assert_eq!(stage.farm.delivered()[0], before[0]);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_that_delivers_slowly_has_less_by_its_queue_and_comes_back() {
    delivers_slowly(Wiring::Proxy);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_server_that_delivers_slowly_has_less_by_its_queue_and_comes_back_on_ipvs() {
    delivers_slowly(Wiring::Gate);
}

fn delivers_slowly(wiring: Wiring) {
    let stage = Stage::on(wiring);
    let slow = format!("{MASTER_CF}slow unix - n n - 1 pipe\n  user=nobody argv=/bin/sleep 1\n");
    stage.farm.reals[0].configure("virtual_transport = slow\nslow_destination_recipient_limit = 1\n", &slow);
    stage.farm.reals[0].reload();
    let load = Load::start(&stage.farm.client, stage.vip());
    stage.until_first_has(50, "queue ");
    stage.farm.reals[0].configure("", MASTER_CF);
    stage.farm.reals[0].reload();
    load.stop();
    stage.until("it is back", |reals| reals.iter().all(|real| real["weight"] == 100));
}

/// Each message takes one of so many processes 0.3 s.
fn delivers_by(processes: u8) -> impl Fn(&Postfix) {
    move |postfix| {
        let master =
            format!("{MASTER_CF}slow unix - n n - {processes} pipe\n  user=nobody argv=/bin/sleep 0.3\n");
        postfix.configure("virtual_transport = slow\n", &master);
        postfix.reload();
    }
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_four_times_slower_gets_what_it_delivers_and_the_others_the_rest() {
    let stage = Stage::with(Wiring::Proxy, "[check]\n", delivers_by(8));
    let load = Load::start(&stage.farm.client, stage.vip());
    delivers_by(2)(&stage.farm.reals[0]);
    stage.until_first_has(80, "queue ");
    let count = || {
        let sessions = load.tally().sessions;
        ["real1", "real2", "real3"].map(|name| sessions.get(name).copied().unwrap_or_default())
    };
    let before = count();
    wait_until(LIMIT, "more of the mail", || {
        count().iter().sum::<usize>() > before.iter().sum::<usize>() + 200
    });
    let shares = [0, 1, 2].map(|server| count()[server] - before[server]);
    println!("sessions since its weight fell: {shares:?}");
    assert!(shares[1..].iter().all(|share| shares[0] * 10 < share * 9), "{shares:?}");
    assert!(stage.reals()[1..].iter().all(|real| real["weight"] == 100));
    delivers_by(8)(&stage.farm.reals[0]);
    stage.until("it is back while mail flows", |reals| reals.iter().all(|real| real["weight"] == 100));
    assert!(load.stop().failures.is_empty());
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_whose_spool_fills_is_out_by_what_it_says_of_mail() {
    let asks =
        "[check]\nmail = { from = \"a@client.lab.test\", accept = \"inbox@lab.test\", interval = \"1s\" }\n";
    let stage = Stage::with(Wiring::Proxy, asks, |_| ());
    stage.farm.reals[0].configure("queue_minfree = 1000000000000000\n", MASTER_CF);
    stage.farm.reals[0].reload();
    stage.until_first_has(0, "452 4.3.1");
    let first = &stage.reals()[0];
    assert_eq!((&first["stage"], &first["code"]), (&Value::from("mail"), &Value::from(452)));
    // Its agent is heard, and has nothing to say against it.
    assert_eq!((&first["queue"]["qmgr"], &first["queue"]["no_data"]), (&Value::from(true), &Value::Null));
    let load = Load::start(&stage.farm.client, stage.vip());
    wait_until(LIMIT, "mail flows", || load.tally().accepted.len() > 40);
    let tally = load.stop();
    assert!(tally.failures.is_empty() && !tally.sessions.contains_key("real1"), "{tally:?}");
    stage.farm.reals[0].configure("", MASTER_CF);
    stage.farm.reals[0].reload();
    stage.until("there is room again", |reals| reals.iter().all(|real| real["weight"] == 100));
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_whose_next_hop_is_dead_has_less_by_what_it_defers() {
    let stage = Stage::new();
    let relay = format!("{MASTER_CF}smtp unix - - n - - smtp\n");
    // Nobody listens there.
    let dead = "virtual_transport = smtp:[127.0.0.1]:9\nminimal_backoff_time = 1000s\n";
    stage.farm.reals[0].configure(dead, &relay);
    stage.farm.reals[0].reload();
    let load = Load::start(&stage.farm.client, stage.vip());
    stage.until_first_has(20, "of its mail, others do not");
    load.stop();
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn an_agent_that_is_killed_costs_its_server_nothing_and_is_said() {
    let mut stage = Stage::new();
    stage.agents.remove(0);
    stage.until("it is said", |reals| {
        let why = reals[0]["why"].as_str().unwrap_or_default();
        why.contains("no data from its agent for 5 s: refused")
            && reals.iter().all(|real| real["weight"] == 100)
    });
    let (_, metrics) = stage.director.get("/metrics").expect("/metrics");
    let known = "smtp_director_real_queue_known{virtual=\"mail\",real=\"10.99.0.11:25\"} 0";
    assert!(metrics.contains(known), "{metrics}");
    assert!(
        stage
            .director
            .log()
            .contains("no report of the queue of 10.99.0.11 (mail) from 10.99.0.11:9626: refused")
    );
}
