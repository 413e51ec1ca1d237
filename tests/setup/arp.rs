//! Who answers ARP for the VIP while real servers are set up and undone.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use super::{expected, on, state_folder};
use crate::farm::host::Host;
use crate::farm::{Farm, Wiring};

const VIP: &str = "10.99.0.100";

/// The hardware address of a host.
fn mac(host: &Host) -> String {
    let text = host.run("cat", &["/sys/class/net/eth0/address"]);
    // sysfs is that of the test's own namespace: `ip` asks the kernel of the host.
    let shown = host.run("ip", &["-brief", "link", "show", "eth0"]);
    let found = shown.split_whitespace().nth(2).unwrap_or(&text).to_owned();
    assert_eq!(found.len(), 17, "{shown}");
    found
}

/// Asks in a loop, 50 times a second, while `work` runs; returns who answered, and how often anybody did.
fn answers(client: &Host, work: impl FnOnce()) -> (BTreeSet<String>, usize) {
    let mut arping = client.inside(|| {
        Command::new("arping")
            .args(["-r", "-i", "eth0", "-W", "0.02", "-c", "3000", VIP])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
    work();
    std::thread::sleep(std::time::Duration::from_millis(300)); // the last questions have their answers
    arping.kill().unwrap();
    let said = arping.wait_with_output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said);
    (said.lines().map(str::to_owned).collect(), said.lines().count())
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn nobody_but_the_director_answers_for_the_vip() {
    let farm = Farm::bare(Wiring::Gate);
    let director = mac(&farm.director);
    let states = [(); 3].map(|()| state_folder());
    let reals = || farm.reals.iter().map(|real| &real.host).zip(&states);
    let (who, times) = answers(&farm.client, || {
        for _ in 0..5 {
            for (host, state) in reals() {
                let up = "up --forward gate --vip 10.99.0.100";
                expected(&on(host, &[], state, up), 0, up);
            }
            for (host, state) in reals() {
                expected(&on(host, &[], state, "down"), 0, "down");
            }
        }
    });
    println!("{times} answers");
    assert_eq!(who, BTreeSet::from([director.clone()]), "of {times} answers");
    assert!(times > 10, "{times}");

    // Real servers that ask their neighbours do not speak of it either.
    for (host, state) in reals() {
        let up = "up --forward gate --vip 10.99.0.100";
        expected(&on(host, &[], state, up), 0, up);
        host.run("ip", &["neigh", "flush", "dev", "eth0"]);
        // A packet with the VIP as its source, as every answer to a client is.
        let ping = Command::new("true").status();
        assert!(ping.is_ok());
        let _ = host.inside(|| {
            let socket = std::net::UdpSocket::bind((VIP, 0)).unwrap();
            socket.send_to(b"x", "10.99.0.50:9")
        });
    }
    let (who, _) = answers(&farm.client, || std::thread::sleep(std::time::Duration::from_secs(1)));
    assert_eq!(who, BTreeSet::from([director]));
    for (host, state) in reals() {
        expected(&on(host, &[], state, "down"), 0, "down");
    }
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn without_the_settings_real_servers_answer_for_the_vip() {
    let farm = Farm::bare(Wiring::Gate);
    let (who, times) = answers(&farm.client, || {
        for real in &farm.reals {
            real.host.ip("addr add 10.99.0.100/32 dev lo\n");
        }
        std::thread::sleep(std::time::Duration::from_secs(1));
        for real in &farm.reals {
            real.host.ip("addr del 10.99.0.100/32 dev lo\n");
        }
    });
    assert!(who.len() > 1, "{times} answers of {who:?}");
}
