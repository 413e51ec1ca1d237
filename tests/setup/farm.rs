//! From bare boxes to mail through the VIP by `smtp-realserver up` alone, and back, on real IPVS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{assert_same, expected, on, settle, snapshot, state_folder};
use crate::farm::host::wait_until;
use crate::farm::ipvs::ipvsadm;
use crate::farm::mail::Session;
use crate::farm::{Farm, Ip, REALS, Wiring};

const LIMIT: Duration = Duration::from_secs(30);

/// A farm whose director sends to three real servers, in turn, whether they are ready or not.
struct Trial {
    farm: Farm,
    vip: SocketAddr,
    states: [PathBuf; 3],
    before: Vec<BTreeMap<String, String>>,
}

impl Trial {
    fn new(wiring: Wiring, ip: Ip) -> Self {
        let farm = Farm::bare(wiring);
        let (vip, flag) = (
            ip.vip(),
            match wiring {
                Wiring::Ipip => "-i",
                Wiring::Masq => "-m",
                Wiring::Gate | Wiring::Proxy => "-g",
            },
        );
        ipvsadm(&farm.director, &format!("-A -t {vip} -s rr"));
        for last in REALS {
            ipvsadm(&farm.director, &format!("-a -t {vip} -r {} {flag}", ip.smtp(last)));
        }
        // Otherwise the first one would load it, and leave it for the others.
        farm.director.run("modprobe", &["ip6_tunnel"]);
        farm.reals.iter().for_each(|real| settle(&real.host));
        let before = farm.reals.iter().map(|real| snapshot(&real.host, &[])).collect();
        Self { farm, vip, states: [(); 3].map(|()| state_folder()), before }
    }

    /// Runs the program on all three.
    fn all(&self, code: i32, arguments: &str) -> Vec<String> {
        let run = |(real, state): (&crate::farm::postfix::Postfix, &PathBuf)| {
            expected(&on(&real.host, &[], state, arguments), code, arguments)
        };
        self.farm.reals.iter().zip(&self.states).map(run).collect()
    }

    /// Six sessions, each with a message: two on each server, and all arrive.
    fn carries_mail(&self) {
        let mut who = BTreeMap::new();
        let mut sent = BTreeSet::new();
        for _ in 0..6 {
            let mut session = Session::open(&self.farm.client, self.vip).unwrap();
            *who.entry(session.server.clone()).or_insert(0) += 1;
            sent.insert(session.mail().unwrap());
            session.quit().unwrap();
        }
        assert_eq!(who, ["real1", "real2", "real3"].map(|name| (name.to_owned(), 2)).into());
        wait_until(LIMIT, "all messages are delivered", || {
            let arrived: BTreeSet<_> = self.farm.deliveries().into_keys().collect();
            sent.is_subset(&arrived)
        });
    }

    /// Undoes it, and compares everything with what was there before.
    fn undo(&self) {
        self.all(0, "down");
        for ((real, before), state) in self.farm.reals.iter().zip(&self.before).zip(&self.states) {
            let mut after = snapshot(&real.host, &[]);
            // An interface that is up for the first time gets settings of IPv6, which the kernel keeps as long as it is there.
            let kept = |key: &str| {
                key.starts_with("/proc/sys/net/ipv6/")
                    && (key.contains("/tunl0/") || key.contains("/ip6tnl0/"))
            };
            after.retain(|key, _| before.contains_key(key) || !kept(key));
            assert_same(before, &after);
            assert!(!state.exists());
        }
    }

    /// The whole way, there and back.
    fn there_and_back(&self, arguments: &str) {
        self.all(1, &format!("status {arguments}"));
        self.all(0, &format!("up {arguments}"));
        self.all(0, &format!("status {arguments}"));
        self.carries_mail();
        self.undo();
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn bare_boxes_take_mail_by_direct_routing_and_forget_it() {
    Trial::new(Wiring::Gate, Ip::V4).there_and_back("--forward gate --vip 10.99.0.100");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn bare_boxes_take_mail_over_ipv6_and_forget_it() {
    Trial::new(Wiring::Gate, Ip::V6).there_and_back("--forward gate --vip fd00:99::64");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn the_vip_may_be_on_a_dummy_interface() {
    let trial = Trial::new(Wiring::Gate, Ip::V4);
    trial.there_and_back("--forward gate --vip 10.99.0.100 --vip fd00:99::64 --dummy mail0");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn bare_boxes_take_mail_out_of_a_tunnel_and_forget_it() {
    Trial::new(Wiring::Ipip, Ip::V4).there_and_back("--forward ipip --vip 10.99.0.100");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn bare_boxes_take_mail_out_of_a_tunnel_of_ipv6_and_forget_it() {
    Trial::new(Wiring::Ipip, Ip::V6).there_and_back("--forward ipip --vip fd00:99::64");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn bare_boxes_take_mail_by_masquerading_and_forget_it() {
    Trial::new(Wiring::Masq, Ip::V4).there_and_back("--forward masq --vip 10.99.0.100 --director 10.99.0.2");
}

/// In the guest's first network, as on a box without containers.
#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn a_module_that_was_loaded_for_a_tunnel_goes_with_it() {
    let guest = std::fs::read_to_string("/proc/cpuinfo").unwrap().contains("User Mode Linux");
    assert!(guest, "only in a kernel of its own");
    let run = |code, arguments: &str| {
        let state = std::env::temp_dir().join("setup-module");
        let words = arguments.split(' ').map(str::to_owned);
        let output = std::process::Command::new(crate::queue::program())
            .args(words)
            .arg("--state")
            .arg(state)
            .output()
            .unwrap();
        expected(&output, code, arguments)
    };
    let remove = || std::process::Command::new("modprobe").args(["-r", "ipip"]).status().unwrap();
    assert!(remove().success());
    let links = || std::fs::read_dir("/sys/class/net").unwrap().count();
    let before = links();
    let said = run(0, "up --forward ipip --vip 10.99.0.100 --no-postfix");
    assert!(said.starts_with("modprobe ipip\n"), "{said}");
    assert!(links() > before);
    assert_eq!(run(0, "status --no-postfix").matches("WRONG").count(), 0);
    run(0, "down");
    assert_eq!(links(), before);
    assert!(std::process::Command::new("modprobe").arg("ipip").status().unwrap().success());
}

/// Every packet of it is as long as the way allows, and a header longer in the tunnel.
#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn large_mail_comes_out_of_a_tunnel() {
    let trial = Trial::new(Wiring::Ipip, Ip::V4);
    let routes = || -> Vec<_> {
        trial.farm.reals.iter().map(|real| real.host.run("ip", &["-4", "route", "show", "default"])).collect()
    };
    trial.farm.reals.iter().for_each(|real| real.host.ip("route add default via 10.99.0.2\n"));
    let before = routes();
    trial.all(0, "up --forward ipip --vip 10.99.0.100");
    assert!(routes().iter().all(|route| route.contains("advmss 1440")), "{:?}", routes());
    let mail = [
        "-c",
        "-m",
        "3",
        "-l",
        "5000000",
        "-t",
        "inbox@lab.test",
        "-f",
        "a@client.lab.test",
        "10.99.0.100:25",
    ];
    trial.farm.client.run("smtp-source", &mail);
    wait_until(LIMIT, "each server delivers one", || trial.farm.delivered() == [1, 1, 1]);
    trial.all(0, "down");
    assert_eq!(routes(), before);
}
