//! A right director, and each thing that can be wrong with it.

use super::*;
use crate::arp::{Mac, Stranger};
use crate::config::native::lower;

fn farm(options: &str) -> Config {
    let text = format!(
        "[[virtual]]\naddress = \"192.0.2.25:25\"\n{options}\n[[virtual.real]]\naddress = \"192.0.2.11-192.0.2.12\"\n"
    );
    lower(&text, &[], "director.example").unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn eth0() -> Interface {
    Interface { name: "eth0".to_owned(), mtu: Some(1_500) }
}

/// All as it should be, for every way of forwarding.
fn right() -> Observed {
    let timeouts = Timeouts { tcp: 900, tcp_fin: 120, udp: 300 };
    let way = Way { by: eth0(), on_link: true };
    let settings = [
        ("net.ipv4.ip_forward", 1),
        ("net.ipv4.conf.all.forwarding", 1),
        ("net.ipv4.conf.eth0.forwarding", 1),
        ("net.ipv4.conf.all.send_redirects", 0),
        ("net.ipv4.conf.eth0.send_redirects", 0),
        ("net.ipv4.conf.all.arp_ignore", 0),
        ("net.ipv4.conf.eth0.arp_ignore", 0),
        ("net.ipv4.vs.expire_nodest_conn", 1),
        ("net.ipv4.vs.expire_quiescent_template", 1),
        ("net.ipv4.vs.conn_reuse_mode", 1),
        ("net.ipv4.vs.pmtu_disc", 1),
        ("net.ipv4.vs.conntrack", 0),
    ];
    Observed {
        kernel: Kernel::Ipvs { buckets: 4_096, connections: 900, timeouts },
        schedulers: [("wlc".to_owned(), true)].into(),
        settings: settings.map(|(name, value)| (name.to_owned(), value)).into(),
        vips: [(ip(25), Some(eth0()))].into(),
        reals: [(ip(11), way.clone()), (ip(12), way)].into(),
        answered: [(ip(25), [].into())].into(),
        needs: vec![],
    }
}

type Spoil = fn(&mut Observed);

fn set(observed: &mut Observed, name: &str, value: u64) {
    observed.settings.insert(name.to_owned(), value);
}

#[test]
fn nothing_is_wrong_with_a_right_one() {
    for options in
        ["", "forward = \"masq\"", "forward = \"ipip\"", "persistence = \"5m\"", "vip_check = true"]
    {
        assert_eq!(examine(&farm(options), &right()), [], "{options}");
    }
    assert_eq!(examine(&farm(""), &Observed::default()), [], "what is not known is no finding");
    assert_eq!(exit_code(&[]), 0);
}

#[test]
fn each_fault_is_found_once_and_alone() {
    let (gate, masq, tunnel, sticks) =
        ("", "forward = \"masq\"", "forward = \"ipip\"", "persistence = \"5m\"");
    let cases: [(&str, Spoil, &str, Level); 20] = [
        (gate, |o| o.kernel = Kernel::Absent("no module".to_owned()), "ipvs", Level::Advice),
        (gate, |o| o.kernel = Kernel::Denied, "capability", Level::Advice),
        (gate, |o| o.schedulers = [("wlc".to_owned(), false)].into(), "scheduler", Level::Wrong),
        (
            gate,
            |o| {
                if let Kernel::Ipvs { timeouts, .. } = &mut o.kernel {
                    timeouts.tcp = 300;
                }
            },
            "timeout",
            Level::Wrong,
        ),
        (
            gate,
            |o| {
                if let Kernel::Ipvs { connections, .. } = &mut o.kernel {
                    *connections = 100_000;
                }
            },
            "connection_table",
            Level::Advice,
        ),
        (gate, |o| set(o, "net.ipv4.vs.expire_nodest_conn", 0), "expire_nodest_conn", Level::Advice),
        (gate, |o| set(o, "net.ipv4.vs.conn_reuse_mode", 0), "conn_reuse_mode", Level::Advice),
        (tunnel, |o| set(o, "net.ipv4.vs.pmtu_disc", 0), "pmtu_disc", Level::Wrong),
        (
            sticks,
            |o| set(o, "net.ipv4.vs.expire_quiescent_template", 0),
            "expire_quiescent_template",
            Level::Wrong,
        ),
        (gate, |o| set(o, "net.ipv4.vs.conntrack", 1), "conntrack", Level::Advice),
        (
            gate,
            |o| {
                set(o, "net.netfilter.nf_conntrack_count", 60_000);
                set(o, "net.netfilter.nf_conntrack_max", 65_536);
            },
            "conntrack_table",
            Level::Wrong,
        ),
        (masq, |o| set(o, "net.ipv4.conf.eth0.forwarding", 0), "forwarding", Level::Wrong),
        (masq, |o| set(o, "net.ipv4.conf.eth0.send_redirects", 1), "send_redirects", Level::Advice),
        (gate, |o| set(o, "net.ipv4.conf.all.send_redirects", 1), "send_redirects", Level::Advice),
        (gate, |o| drop(o.vips.insert(ip(25), None)), "vip", Level::Advice),
        (
            gate,
            |o| {
                o.vips.insert(ip(25), Some(Interface { name: "lo".to_owned(), mtu: Some(65_536) }));
                set(o, "net.ipv4.conf.all.arp_ignore", 1);
            },
            "arp_ignore",
            Level::Wrong,
        ),
        (
            gate,
            |o| {
                let stranger = Stranger { mac: Mac([2, 0, 0, 0, 0, 12]), server: Some(ip(12)) };
                o.answered.insert(ip(25), [stranger].into());
            },
            "arp",
            Level::Wrong,
        ),
        (gate, |o| o.reals.get_mut(&ip(11)).unwrap().on_link = false, "same_link", Level::Wrong),
        (tunnel, |o| o.reals.get_mut(&ip(11)).unwrap().by.mtu = Some(1_400), "mtu", Level::Advice),
        (
            "vip_check = true",
            |o| {
                let settings = [("net.ipv4.conf.eth0.accept_local".to_owned(), 1)];
                o.needs.extend(settings.map(|(name, value)| Need::new(name, value, "eth0")));
            },
            "vip_check",
            Level::Advice,
        ),
    ];
    for (options, spoil, about, level) in cases {
        let mut observed = right();
        spoil(&mut observed);
        let found = examine(&farm(options), &observed);
        let [finding] = &found[..] else { panic!("{about}: {found:#?}") };
        assert_eq!((finding.about, finding.level), (about, level), "{finding:?}");
        assert!(!finding.why.is_empty() && !finding.mend.command().is_empty());
        assert_eq!(exit_code(&found), if level == Level::Wrong { 2 } else { 1 });
        assert!(render(&found).lines().count() == 3);
        assert_eq!(to_json(&found)["findings"][0]["about"], about);
    }
}

#[test]
fn what_is_not_there_is_worse_where_the_file_insists_on_it() {
    let config = lower(
        "dataplane = \"ipvs\"\n[[virtual]]\naddress = \"192.0.2.25:25\"\n[[virtual.real]]\naddress = \"192.0.2.11\"\n",
        &[],
        "director.example",
    )
    .unwrap();
    let observed = Observed { kernel: Kernel::Denied, ..Observed::default() };
    assert_eq!(exit_code(&examine(&config, &observed)), 2);
}

#[test]
fn only_what_harms_nobody_else_is_done_without_a_person() {
    assert!(Mend::Setting("net.ipv4.vs.pmtu_disc".to_owned(), 1).is_safe());
    assert!(Mend::TcpTimeout(900).is_safe());
    assert!(!Mend::ByHand("sysctl -w net.ipv4.ip_forward=1".to_owned()).is_safe());
}
