//! What is asked of the box beside the queue.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use postfix::report::QueueReport;
use postfix::report::json::Document;

use super::instance::{DISCARD, Instance};
use super::{LIMIT, look, program, wait_until};
use crate::farm::host::Host;

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_postfix_that_stopped_and_one_whose_qmgr_dies_are_seen() {
    let instance = Instance::start("dead", DISCARD, "");
    let alive = || {
        let found = look(&instance.config(), &[]);
        (found.master, found.qmgr)
    };
    assert_eq!(alive(), (Some(true), Some(true)));
    // It ends at its next start, and master holds it back for a minute.
    let main = instance.config().join("main.cf");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(&main, format!("{text}qmgr_message_active_limit = -1\n")).unwrap();
    assert!(instance.command("reload"));
    wait_until(LIMIT, "qmgr is gone", || alive() == (Some(true), Some(false)));
    assert!(instance.command("abort"));
    assert_eq!(alive(), (Some(false), Some(false)));
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn clients_that_have_an_smtpd_are_told_from_those_that_wait_for_one() {
    let instance = Instance::start("slots", DISCARD, "{smtpd} inet n - n - 2 smtpd\n");
    let slots = || {
        let found = look(&instance.config(), &[]);
        (found.smtpd, found.smtpd_limit, found.smtpd_waiting)
    };
    assert_eq!(slots(), (Some(0), Some(2), Some(0)));
    let mut clients: Vec<_> = (0..5).map(|_| TcpStream::connect(instance.smtp).unwrap()).collect();
    wait_until(LIMIT, "two have a slot", || slots() == (Some(2), Some(2), Some(3)));
    drop(clients.drain(2..));
    for client in &mut clients {
        client.read_exact(&mut [0; 3]).unwrap();
    }
    drop(clients);
    wait_until(LIMIT, "all slots are free", || slots() == (Some(0), Some(2), Some(0)));
}

/// A host with a network card and the VIP on `lo`, and somebody at the other end of the cable.
fn real_server() -> (Host, Host) {
    let (server, other) = (Host::new("real"), Host::new("other"));
    let (near, far) = (server.path(), other.path());
    server.ip(&format!("link add eth0 netns {near} type veth peer name eth0 netns {far}\n"));
    server.ip("link set lo up\nlink set eth0 up\naddr add 10.9.0.1/24 dev eth0\n");
    (server, other)
}

fn vip(host: &Host, vip: &str) -> (Option<bool>, Option<bool>, Option<bool>) {
    let program = program();
    let out = host.run(program.to_str().unwrap(), &["report", "--format", "json", "--vip", vip]);
    let found: QueueReport = Document::parse(out.as_bytes()).unwrap().sum;
    (found.vip_local, found.vip_hidden, found.vip_listens)
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_vip_is_seen_where_it_is_and_whether_it_is_hidden() {
    const VIP: &str = "10.9.0.100:25";
    let (server, _other) = real_server();
    assert_eq!(vip(&server, VIP), (Some(false), None, Some(false)));
    server.ip("addr add 10.9.0.100/32 dev lo\n");
    assert_eq!(vip(&server, VIP), (Some(true), Some(false), Some(false)));
    // On lo alone it does nothing.
    server.sysctl(&[("ipv4/conf/lo/arp_ignore", "1"), ("ipv4/conf/lo/arp_announce", "2")]);
    assert_eq!(vip(&server, VIP).1, Some(false));
    server.sysctl(&[("ipv4/conf/eth0/arp_ignore", "1")]);
    assert_eq!(vip(&server, VIP).1, Some(false), "it would still ask with it");
    server.sysctl(&[("ipv4/conf/all/arp_announce", "2")]);
    assert_eq!(vip(&server, VIP).1, Some(true));
    let address: SocketAddr = VIP.parse().unwrap();
    let listener = server.inside(|| std::net::TcpListener::bind(address).unwrap());
    assert_eq!(vip(&server, VIP), (Some(true), Some(true), Some(true)));
    drop(listener);
    let _wildcard = server.inside(|| std::net::TcpListener::bind("0.0.0.0:25").unwrap());
    assert_eq!(vip(&server, VIP).2, Some(true));
    // On the card itself it answers, whatever is set.
    server.ip("addr del 10.9.0.100/32 dev lo\naddr add 10.9.0.100/24 dev eth0\n");
    assert_eq!(vip(&server, VIP), (Some(true), Some(false), Some(true)));
}

/// What the figure claims, seen from the other end of the cable.
#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn whoever_is_not_hidden_answers_arp_and_whoever_is_does_not() {
    let (server, other) = real_server();
    other.ip("link set eth0 up\naddr add 10.9.0.2/24 dev eth0\n");
    server.ip("addr add 10.9.0.100/32 dev lo\n");
    let answers = || {
        other.inside(|| {
            let _ = Command::new("ip").args(["neigh", "flush", "dev", "eth0"]).output();
            let address: SocketAddr = "10.9.0.100:9".parse().unwrap();
            // Refused by the host that answered ARP; nobody answers where it is hidden.
            let error = TcpStream::connect_timeout(&address, std::time::Duration::from_secs(5)).unwrap_err();
            error.kind() == std::io::ErrorKind::ConnectionRefused
        })
    };
    assert!(answers());
    assert_eq!(vip(&server, "10.9.0.100:25").1, Some(false));
    server.sysctl(&[("ipv4/conf/all/arp_ignore", "1"), ("ipv4/conf/all/arp_announce", "2")]);
    assert_eq!(vip(&server, "10.9.0.100:25").1, Some(true));
    assert!(!answers());
}
