//! `smtp-director doctor` on a real director: a right one first, then each thing spoilt on purpose, alone, and mended.

use serde_json::Value;

use crate::farm::director::{Config, run_to_end};
use crate::farm::ipvs::ipvsadm;
use crate::farm::{Farm, Ip, REALS, Wiring};

/// A farm, its file, and how often the doctor was asked.
struct Surgery {
    farm: Farm,
    text: String,
}

impl Surgery {
    /// A director with nothing wrong.
    fn new(wiring: Wiring, options: &str) -> Self {
        let farm = Farm::new(wiring);
        let config = Config { wiring, ip: Ip::V4, reals: REALS.to_vec(), fallback: false };
        let text = config.text().replace("quiescent", &format!("{options}quiescent"));
        ipvsadm(&farm.director, "-Ln"); // the settings of IPVS are there with its module
        farm.director.sysctl(&[
            ("ipv4/vs/expire_nodest_conn", "1"),
            ("ipv4/vs/expire_quiescent_template", "1"),
            ("ipv4/conf/eth0/accept_local", "1"),
        ]);
        Self { farm, text }
    }

    /// Exit code and findings: level and name of each.
    fn asks(&self, text: &str, options: &[&str]) -> (Option<i32>, Vec<(String, String)>) {
        let command = [&["doctor"], options].concat();
        let output = run_to_end(&[], &self.farm, &command.join(" "), text);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let findings = said["findings"].as_array().expect("a list").iter().map(|finding| {
            let word = |key: &str| finding[key].as_str().expect(key).to_owned();
            assert!(!word("what").is_empty() && !word("why").is_empty() && !word("mend").is_empty());
            (word("level"), word("about"))
        });
        (output.status.code(), findings.collect())
    }

    /// Exactly this is found.
    fn finds(&self, text: &str, level: &str, about: &str) {
        let code = if level == "wrong" { 2 } else { 1 };
        assert_eq!(self.asks(text, &["--json"]), (Some(code), vec![(level.to_owned(), about.to_owned())]));
    }

    fn is_well(&self) {
        assert_eq!(self.asks(&self.text, &["--json"]), (Some(0), vec![]));
    }

    /// Spoils a setting of the director, sees it found, and puts it right.
    fn spoils(&self, setting: &str, [wrong, right]: [&str; 2], (level, about): (&str, &str)) {
        self.farm.director.sysctl(&[(setting, wrong)]);
        self.finds(&self.text, level, about);
        self.farm.director.sysctl(&[(setting, right)]);
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn the_doctor_finds_what_was_spoilt_and_nothing_else() {
    let surgery = Surgery::new(Wiring::Gate, "vip_check = true\npersistence = \"5m\"\n");
    let director = &surgery.farm.director;
    surgery.is_well();

    let advice = |about| ("advice", about);
    surgery.spoils("ipv4/vs/expire_nodest_conn", ["0", "1"], advice("expire_nodest_conn"));
    surgery.spoils("ipv4/vs/conn_reuse_mode", ["0", "1"], advice("conn_reuse_mode"));
    surgery.spoils("ipv4/vs/expire_quiescent_template", ["0", "1"], ("wrong", "expire_quiescent_template"));
    surgery.spoils("ipv4/vs/pmtu_disc", ["0", "1"], ("wrong", "pmtu_disc"));
    surgery.spoils("ipv4/conf/eth0/accept_local", ["0", "1"], advice("vip_check"));

    ipvsadm(director, "--set 60 0 0");
    surgery.finds(&surgery.text, "wrong", "timeout");
    ipvsadm(director, "--set 900 0 0");

    let other = surgery.text.replace("\"wlc\"", "\"twos\"");
    surgery.finds(&other, "wrong", "scheduler");

    director.ip("addr del 10.99.0.100/32 dev eth0\n");
    surgery.finds(&surgery.text, "advice", "vip");
    director.ip("addr add 10.99.0.100/32 dev lo\n");
    director.sysctl(&[("ipv4/conf/all/arp_ignore", "1")]);
    surgery.finds(&surgery.text, "wrong", "arp_ignore");
    director.sysctl(&[("ipv4/conf/all/arp_ignore", "0"), ("ipv4/conf/eth0/rp_filter", "1")]);
    surgery.finds(&surgery.text, "advice", "vip_check");
    director.sysctl(&[("ipv4/conf/eth0/rp_filter", "0")]);
    director.ip("addr del 10.99.0.100/32 dev lo\naddr add 10.99.0.100/32 dev eth0\n");

    // The doctor asks by the neighbour table, in which a server is named that somebody has talked to.
    surgery.farm.reals[1].host.sysctl(&[("ipv4/conf/all/arp_ignore", "0")]);
    surgery.finds(&surgery.text, "wrong", "arp");
    surgery.farm.reals[1].host.sysctl(&[("ipv4/conf/all/arp_ignore", "1")]);

    director.ip("route add 10.97.0.0/24 via 10.99.0.11\n");
    surgery.finds(&surgery.text.replace("10.99.0.13", "10.97.0.13"), "wrong", "same_link");

    director.sysctl(&[("ipv4/ip_forward", "1")]);
    surgery.spoils("ipv4/conf/eth0/send_redirects", ["1", "0"], advice("send_redirects"));
    director.sysctl(&[("ipv4/ip_forward", "0")]);
    surgery.is_well();

    // All that it may mend at once, and a second look.
    director.sysctl(&[
        ("ipv4/vs/expire_nodest_conn", "0"),
        ("ipv4/vs/expire_quiescent_template", "0"),
        ("ipv4/conf/eth0/accept_local", "0"),
    ]);
    ipvsadm(director, "--set 60 0 0");
    assert_eq!(surgery.asks(&surgery.text, &["--json"]).1.len(), 4);
    assert_eq!(surgery.asks(&surgery.text, &["--json", "--fix"]), (Some(0), vec![]));
    surgery.is_well();
    assert!(ipvsadm(director, "-l --timeout").contains(": 900 "));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
fn the_doctor_knows_what_nat_needs() {
    let surgery = Surgery::new(Wiring::Masq, "");
    surgery.is_well();
    let director = &surgery.farm.director;
    // As the article on such farms has it: for interfaces that come later.
    director.sysctl(&[("ipv4/ip_forward", "0"), ("ipv4/conf/default/forwarding", "1")]);
    surgery.finds(&surgery.text, "wrong", "forwarding");
    assert_eq!(surgery.asks(&surgery.text, &["--json", "--fix"]).0, Some(2), "a router is made by a person");
    director.sysctl(&[("ipv4/ip_forward", "1")]);
    surgery.spoils("ipv4/conf/all/send_redirects", ["1", "0"], ("advice", "send_redirects"));

    let bare = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let denied = run_to_end(&bare, &surgery.farm, "doctor", &surgery.text);
    assert_eq!(denied.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&denied.stdout).contains("CAP_NET_ADMIN"), "{denied:?}");
}
