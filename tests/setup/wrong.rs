//! Faults made on purpose, each found by `status`, and gone by the command that it names.

use super::Box;

/// Commands for the host, what `status` says then.
const FAULTS: [(&str, &[&str], &str); 16] = [
    ("gate", &["sysctl -qw net.ipv4.conf.all.arp_ignore=0"], "arp_ignore of all is 0, so eth0 answers"),
    ("gate", &["sysctl -qw net.ipv4.conf.all.arp_ignore=3"], "arp_ignore of all is 3"),
    ("gate", &["sysctl -qw net.ipv4.conf.eth0.arp_ignore=4"], "arp_ignore of eth0 is 4"),
    (
        "gate",
        &["sysctl -qw net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.lo.arp_ignore=1"],
        "that it is set on lo changes nothing",
    ),
    ("gate", &["sysctl -qw net.ipv4.conf.all.arp_announce=0"], "arp_announce of all is 0, so eth0 asks"),
    ("gate", &["sysctl -qw net.ipv4.conf.all.arp_announce=1"], "arp_announce of all is 1"),
    ("gate", &["ip addr del 10.99.0.100/32 dev lo"], "10.99.0.100/32 is not on lo"),
    (
        "gate",
        &["ip addr del 10.99.0.100/32 dev lo", "ip addr add 10.99.0.100/24 dev lo"],
        "with the prefix /24",
    ),
    ("gate", &["ip addr add 10.99.0.100/32 dev eth0"], "10.99.0.100 is on eth0"),
    ("gate", &["ip addr add 10.99.0.100/24 dev eth0"], "this box's own address, on eth0"),
    ("gate", &["ip -6 addr del fd00:99::64/128 dev lo"], "fd00:99::64/128 is not on lo"),
    ("gate", &["ip -6 addr add fd00:99::64/128 dev eth0 nodad"], "fd00:99::64 is on eth0"),
    ("gate", &["sysctl -qw net.ipv6.conf.lo.disable_ipv6=1"], "IPv6 is off on lo"),
    ("gate", &["ip link set lo down"], "lo is down"),
    (
        "gate",
        &["ip route replace default via 10.99.0.1 src 10.99.0.100"],
        "leaves with the VIP as its source",
    ),
    ("masq", &["ip addr add 10.99.0.100/32 dev lo"], "with masq the VIP is the director's alone"),
];

#[test]
#[ignore = "needs root: tests/run"]
fn each_fault_of_the_network_is_found_and_its_command_mends_it() {
    for (forward, commands, words) in FAULTS {
        let real = Box::new();
        let wish = match forward {
            "gate" => "--forward gate --vip 10.99.0.100 --vip fd00:99::64",
            _ => "--forward masq --vip 10.99.0.100 --director 10.99.0.1",
        };
        real.expect(0, &format!("up {wish}"));
        assert_eq!(real.expect(0, &format!("status {wish}")), "right\n");
        for command in commands {
            real.host.run("sh", &["-c", command]);
        }
        let said = real.expect(1, &format!("status {wish}"));
        assert!(said.contains(words), "{commands:?}: {said}");
        // Where there is a command: some need a decision.
        let mends: Vec<_> = said.lines().filter_map(|line| line.trim().strip_prefix("$ ")).collect();
        if mends.iter().all(|mend| mend.starts_with("sysctl") || mend.starts_with("ip ")) {
            for mend in &mends {
                real.host.run("sh", &["-c", mend]);
            }
            // Taking away what was wrong may show what is missing; the second look says the rest.
            let again = real.run(&format!("status {wish}"));
            let again = String::from_utf8_lossy(&again.stdout).into_owned();
            for mend in again.lines().filter_map(|line| line.trim().strip_prefix("$ ")) {
                real.host.run("sh", &["-c", mend]);
            }
            assert_eq!(real.expect(0, &format!("status {wish}")), "right\n", "{commands:?}");
        }
    }
}

#[test]
#[ignore = "needs root: tests/run"]
fn a_default_route_past_the_director_is_found() {
    let real = Box::new();
    let said = real.expect(1, "status --forward masq --vip 10.99.0.100 --director 10.99.0.2");
    assert!(said.contains("does not go through the director"), "{said}");
    real.host.ip("route del default\n");
    let said = real.expect(1, "status --forward masq --vip 10.99.0.100 --director 10.99.0.2");
    assert!(
        said.contains("there is no default route")
            && said.contains("ip -4 route replace default via 10.99.0.2"),
        "{said}"
    );
}
