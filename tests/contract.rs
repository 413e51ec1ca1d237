//! The contract of a dataplane, run on the table in memory and on IPVS, and what `ipvsadm` sees of the latter.
//!
//! Tests that need a kernel with IPVS are `contract::the_kernel_…` and ignored; `tests/run` boots such a kernel. Each
//! runs in a network namespace of its own, so it neither sees nor touches anybody else's table. They need root, `unshare`,
//! `setpriv` and `ipvsadm`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "functions that only tests call"
)]

mod suite;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use smtp_director::dataplane::ipvs::Ipvs;
use smtp_director::dataplane::ipvs::wire::Timeouts;
use smtp_director::dataplane::memory::Memory;
use smtp_director::dataplane::{Dataplane, Error};
use smtp_director::model::{
    Family, Forward, Granularity, Op, Persistence, Protocol, RealId, RealSettings, Scheduler, SchedulerFlags,
    TableError, Tunnel, TunnelChecksum, VirtualId, VirtualSettings, Weight,
};

pub(crate) use suite::{Abilities, suite};

#[tokio::test]
async fn memory_keeps_the_contract() {
    suite(Memory::default(), Abilities::all()).await;
}

/// Set in the process that runs below a wrapper.
const WRAPPED: &str = "SMTP_DIRECTOR_TEST_WRAPPED";

/// Runs `test` again below `wrapper`, unless this is that run: then, and only then, the answer is true.
fn wrapped(wrapper: &[&str], test: &str) -> bool {
    if std::env::var_os(WRAPPED).is_some() {
        return true;
    }
    let name = format!("contract::{test}");
    let output = Command::new(wrapper[0])
        .args(&wrapper[1..])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", &name, "--nocapture"])
        .env(WRAPPED, "1")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success() && text[0].contains("1 passed"), "{name}: {}{}", text[0], text[1]);
    false
}

/// In a namespace of its own. While `lo` is down there the kernel takes no address for that of one host.
fn alone(test: &str) -> bool {
    wrapped(&["unshare", "--net", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""], test)
}

/// What `ipvsadm` prints; any run of spaces is one.
fn ipvsadm(arguments: &[&str]) -> Vec<String> {
    let output = Command::new("ipvsadm").args(arguments).output().unwrap();
    assert!(output.status.success(), "ipvsadm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn tcp(address: &str) -> VirtualId {
    VirtualId::Address { protocol: Protocol::Tcp, address: address.parse().unwrap() }
}

fn udp(address: &str) -> VirtualId {
    VirtualId::Address { protocol: Protocol::Udp, address: address.parse().unwrap() }
}

fn real(address: &str) -> RealId {
    RealId(address.parse().unwrap())
}

fn weighing(weight: u32, forward: Forward) -> RealSettings {
    RealSettings::new(forward, Weight(weight))
}

fn servers(count: u32) -> BTreeMap<RealId, RealSettings> {
    let first = u32::from(Ipv4Addr::new(10, 0, 0, 1));
    let address = |n| SocketAddr::new(Ipv4Addr::from(first + n).into(), 25);
    (0..count).map(|n| (RealId(address(n)), weighing(n, Forward::Gate))).collect()
}

fn persistent(timeout: u32, granularity: Granularity) -> Option<Persistence> {
    Some(Persistence { timeout, granularity, engine: None })
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_keeps_the_contract() {
    if !alone("the_kernel_keeps_the_contract") {
        return;
    }
    let ipvs = Ipvs::open().await.unwrap();
    assert_eq!(ipvs.info().version, [1, 2, 1]);
    assert!(ipvs.info().connection_table >= 256);
    // `twos` came with 5.12 and is not built everywhere; the next test looks at that.
    let schedulers = Scheduler::KNOWN.into_iter().filter(|s| *s != Scheduler::Twos).collect();
    suite(ipvs, Abilities { schedulers, ..Abilities::all() }).await;
    assert_eq!(ipvsadm(&["-Sn"]), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_says_which_module_it_does_not_have() {
    if !alone("the_kernel_says_which_module_it_does_not_have") {
        return;
    }
    let mut ipvs = Ipvs::open().await.unwrap();
    let id = tcp("192.0.2.25:25");
    let built = Command::new("modprobe").arg("ip_vs_twos").output().unwrap().status.success();
    match ipvs.apply(&Op::AddVirtual(id, VirtualSettings::new(Scheduler::Twos))).await {
        Ok(()) => assert!(built),
        Err(Error::NoModule { kind: "scheduler", name }) => assert!(!built && name == "twos"),
        other => panic!("{other:?}"),
    }
    let missing = VirtualSettings::new(Scheduler::Other("nosuch".into()));
    for op in [Op::AddVirtual(id, missing.clone()), Op::SetVirtual(udp("192.0.2.25:25"), missing)] {
        ipvs.apply(&Op::AddVirtual(udp("192.0.2.25:25"), VirtualSettings::new(Scheduler::Rr))).await.ok();
        let error = ipvs.apply(&op).await.unwrap_err();
        assert!(
            matches!(&error, Error::NoModule { kind: "scheduler", name } if name == "nosuch"),
            "{error:?}"
        );
    }
    let engine = |name: &str| VirtualSettings {
        persistence: Some(Persistence {
            timeout: 60,
            granularity: Granularity::V4(Ipv4Addr::BROADCAST),
            engine: Some(name.into()),
        }),
        ..VirtualSettings::new(Scheduler::Rr)
    };
    let phone = udp("192.0.2.25:5060");
    let error = ipvs.apply(&Op::AddVirtual(phone, engine("nosuch"))).await.unwrap_err();
    assert!(error.to_string().contains("modprobe ip_vs_pe_nosuch"), "{error}");
    ipvs.apply(&Op::AddVirtual(phone, engine("sip"))).await.unwrap();
    assert_eq!(ipvs.dump().await.unwrap().table.virtuals[&phone].settings, engine("sip"));
    assert!(ipvsadm(&["-Sn"]).contains(&"-A -u 192.0.2.25:5060 -s rr -p 60 --pe sip".to_owned()));
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_shows_ipvsadm_what_was_asked_for() {
    if !alone("the_kernel_shows_ipvsadm_what_was_asked_for") {
        return;
    }
    let mut ipvs = Ipvs::open().await.unwrap();
    let mail = tcp("192.0.2.25:25");
    let mail6 = tcp("[2001:db8::25]:25");
    let mark = VirtualId::Fwmark { mark: 7, family: Family::V4 };
    let mark6 = VirtualId::Fwmark { mark: 7, family: Family::V6 };
    let sticky = VirtualSettings {
        flags: SchedulerFlags::FALLBACK.with(SchedulerFlags::PORT),
        persistence: persistent(600, Granularity::V4(Ipv4Addr::new(255, 255, 255, 0))),
        ..VirtualSettings::new(Scheduler::Mh)
    };
    let sticky6 = VirtualSettings {
        persistence: persistent(300, Granularity::V6(64)),
        ..VirtualSettings::new(Scheduler::Wlc)
    };
    let limited = RealSettings { upper_threshold: 300, lower_threshold: 200, ..weighing(100, Forward::Gate) };
    let gue = Forward::Ipip(Tunnel::Gue { port: 6080, checksum: TunnelChecksum::Csum });
    let gre = Forward::Ipip(Tunnel::Gre { checksum: TunnelChecksum::None });
    let ops = [
        Op::AddVirtual(mail, sticky),
        Op::AddReal(mail, real("10.0.0.11:25"), limited),
        Op::AddReal(mail, real("10.0.0.12:2525"), weighing(7, Forward::Masq)),
        Op::AddReal(mail, real("10.0.0.13:25"), weighing(0, gue)),
        Op::AddReal(mail, real("10.0.0.14:25"), weighing(1, gre)),
        Op::AddReal(mail, real("[2001:db8::15]:25"), weighing(2, Forward::Ipip(Tunnel::Ipip))),
        Op::AddVirtual(mail6, sticky6),
        Op::AddReal(mail6, real("[2001:db8::11]:25"), weighing(3, Forward::Gate)),
        Op::AddVirtual(mark, VirtualSettings::new(Scheduler::Wrr)),
        Op::AddReal(mark, real("10.0.0.11:0"), weighing(5, Forward::Gate)),
        Op::AddVirtual(mark6, VirtualSettings::new(Scheduler::Rr)),
        Op::AddVirtual(
            udp("192.0.2.53:53"),
            VirtualSettings { one_packet: true, ..VirtualSettings::new(Scheduler::Sed) },
        ),
    ];
    for op in &ops {
        ipvs.apply(op).await.unwrap();
    }

    let mut saved = ipvsadm(&["-Sn"]);
    saved.sort();
    let expected = [
        "-A -f 7 -6 -s rr",
        "-A -f 7 -s wrr",
        "-A -t 192.0.2.25:25 -s mh -p 600 -M 255.255.255.0 -b mh-fallback,mh-port",
        "-A -t [2001:db8::25]:25 -s wlc -p 300 -M 64",
        "-A -u 192.0.2.53:53 -s sed -o",
        "-a -f 7 -r 10.0.0.11:0 -g -w 5",
        "-a -t 192.0.2.25:25 -r 10.0.0.11:25 -g -w 100",
        "-a -t 192.0.2.25:25 -r 10.0.0.12:2525 -m -w 7",
        "-a -t 192.0.2.25:25 -r 10.0.0.13:25 -i -w 0 --tun-type gue --tun-port 6080 --tun-csum",
        "-a -t 192.0.2.25:25 -r 10.0.0.14:25 -i -w 1 --tun-type gre --tun-nocsum",
        "-a -t 192.0.2.25:25 -r [2001:db8::15]:25 -i -w 2 --tun-type ipip",
        "-a -t [2001:db8::25]:25 -r [2001:db8::11]:25 -g -w 3",
    ];
    assert_eq!(saved, expected);
    let listed = ipvsadm(&["-Ln"]);
    for row in
        ["TCP 192.0.2.25:25 mh (mh-fallback,mh-port) persistent 600 mask 255.255.255.0", "FWM 7 IPv6 rr"]
    {
        assert!(listed.contains(&row.to_owned()), "{row}: {listed:#?}");
    }
    // What `-S` keeps to itself.
    let limits = ipvsadm(&["-Ln", "--thresholds"]);
    assert!(limits.contains(&"-> 10.0.0.11:25 300 200 0 0".to_owned()), "{limits:#?}");

    // Setting a weight alone leaves the rest, because the rest is sent again.
    ipvs.apply(&Op::SetReal(mail, real("10.0.0.13:25"), weighing(9, gue))).await.unwrap();
    ipvs.apply(&Op::SetVirtual(mail, VirtualSettings::new(Scheduler::Sh))).await.unwrap();
    let saved = ipvsadm(&["-Sn"]);
    let row = "-a -t 192.0.2.25:25 -r 10.0.0.13:25 -i -w 9 --tun-type gue --tun-port 6080 --tun-csum";
    assert!(saved.contains(&row.to_owned()), "{saved:#?}");
    assert!(saved.contains(&"-A -t 192.0.2.25:25 -s sh".to_owned()), "{saved:#?}");
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_says_what_is_invalid() {
    if !alone("the_kernel_says_what_is_invalid") {
        return;
    }
    let mut ipvs = Ipvs::open().await.unwrap();
    let (id, id6, server) = (tcp("192.0.2.25:25"), tcp("[2001:db8::25]:25"), real("10.0.0.11:25"));
    ipvs.apply(&Op::AddVirtual(id, VirtualSettings::new(Scheduler::Wlc))).await.unwrap();
    let before = ipvs.dump().await.unwrap();
    let gate = weighing(1, Forward::Gate);
    let no_port = Forward::Ipip(Tunnel::Gue { port: 0, checksum: TunnelChecksum::None });
    let prefix = |prefix| VirtualSettings {
        persistence: persistent(60, Granularity::V6(prefix)),
        ..VirtualSettings::new(Scheduler::Rr)
    };
    let cases = [
        (
            Op::AddReal(id, server, RealSettings { upper_threshold: 1, lower_threshold: 2, ..gate }),
            "threshold 2",
        ),
        (Op::AddReal(id, server, RealSettings { lower_threshold: 2, ..gate }), "threshold 2"),
        (Op::AddReal(id, server, weighing(1 << 31, Forward::Gate)), "weight is above 2147483647"),
        (Op::AddReal(id, server, weighing(1, no_port)), "needs a port"),
        (Op::AddReal(id, real("[2001:db8::11]:25"), gate), "needs a tunnel"),
        (Op::AddReal(id, real("224.0.0.1:25"), gate), "224.0.0.1 is not the address of one host"),
        (Op::AddVirtual(id6, prefix(0)), "persistence of 60 s"),
        (Op::AddVirtual(id6, prefix(129)), "persistence of 60 s"),
        (Op::AddVirtual(tcp("192.0.2.26:25"), prefix(64)), "/64 on IPv4"),
        (
            Op::SetVirtual(id, VirtualSettings::new(Scheduler::Other("sixteen-letters-".into()))),
            "sixteen-letters-",
        ),
    ];
    for (op, reason) in cases {
        match ipvs.apply(&op).await {
            Err(error @ Error::Invalid(_)) => assert!(error.to_string().contains(reason), "{op}: {error}"),
            other => panic!("{op}: {other:?}"),
        }
        assert_eq!(ipvs.dump().await.unwrap().table, before.table, "{op}");
    }
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_dumps_a_thousand_reals() {
    if !alone("the_kernel_dumps_a_thousand_reals") {
        return;
    }
    let mut ipvs = Ipvs::open().await.unwrap();
    let id = tcp("192.0.2.25:25");
    ipvs.apply(&Op::AddVirtual(id, VirtualSettings::new(Scheduler::Wlc))).await.unwrap();
    let expected = servers(1000);
    for (server, settings) in &expected {
        ipvs.apply(&Op::AddReal(id, *server, *settings)).await.unwrap();
    }
    let dump = ipvs.dump().await.unwrap();
    assert_eq!(dump.table.virtuals[&id].reals, expected);
    assert_eq!(dump.counters.reals.len(), 1000);
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_keeps_virtuals_of_others_out_of_the_way() {
    if !alone("the_kernel_keeps_virtuals_of_others_out_of_the_way") {
        return;
    }
    let mut ipvs = Ipvs::open().await.unwrap();
    let id = tcp("192.0.2.25:25");
    ipvsadm(&["-A", "--sctp-service", "192.0.2.25:25", "-s", "rr"]);
    ipvsadm(&["-A", "-t", "192.0.2.25:25", "-s", "sh", "-b", "sh-fallback"]);
    ipvsadm(&[
        "-a",
        "-t",
        "192.0.2.25:25",
        "-r",
        "10.0.0.11",
        "-i",
        "--tun-type",
        "gue",
        "--tun-port",
        "6080",
    ]);
    let dump = ipvs.dump().await.unwrap();
    assert_eq!(dump.table.virtuals.keys().collect::<Vec<_>>(), [&id]);
    let found = &dump.table.virtuals[&id];
    assert_eq!(
        found.settings,
        VirtualSettings { flags: SchedulerFlags::FALLBACK, ..VirtualSettings::new(Scheduler::Sh) }
    );
    let gue = Forward::Ipip(Tunnel::Gue { port: 6080, checksum: TunnelChecksum::None });
    assert_eq!(found.reals, BTreeMap::from([(real("10.0.0.11:25"), weighing(1, gue))]));
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_takes_timeouts_and_leaves_those_of_zero() {
    if !alone("the_kernel_takes_timeouts_and_leaves_those_of_zero") {
        return;
    }
    let mut ipvs = Ipvs::open().await.unwrap();
    ipvs.set_timeouts(Timeouts { tcp: 1000, tcp_fin: 130, udp: 310 }).await.unwrap();
    ipvs.set_timeouts(Timeouts { tcp: 0, tcp_fin: 131, udp: 0 }).await.unwrap();
    assert_eq!(ipvs.timeouts().await.unwrap(), Timeouts { tcp: 1000, tcp_fin: 131, udp: 310 });
    assert_eq!(ipvsadm(&["-L", "--timeout"]), ["Timeout (tcp tcpfin udp): 1000 131 310"]);
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_answers_after_a_call_was_given_up() {
    if !alone("the_kernel_answers_after_a_call_was_given_up") {
        return;
    }
    let mut ipvs = Ipvs::open().await.unwrap();
    for mark in 1..=100 {
        let id = VirtualId::Fwmark { mark, family: Family::V4 };
        ipvs.apply(&Op::AddVirtual(id, VirtualSettings::new(Scheduler::Rr))).await.unwrap();
    }
    let whole = ipvs.dump().await.unwrap();
    let id = VirtualId::Fwmark { mark: 1, family: Family::V4 };
    for _ in 0..3 {
        // The kernel answers at once, so only a dump of more steps than tokio lets a task take in one go is interrupted.
        tokio::select! {
            biased;
            _ = ipvs.dump() => panic!("there was nothing to give up"),
            () = std::future::ready(()) => {}
        }
        let refused = ipvs.apply(&Op::AddVirtual(id, VirtualSettings::new(Scheduler::Rr))).await;
        assert!(matches!(refused, Err(Error::Table(TableError::Exists))), "{refused:?}");
        assert_eq!(ipvs.dump().await.unwrap(), whole);
    }
}

#[tokio::test]
#[ignore = "needs a kernel with IPVS: tests/run boots one"]
async fn the_kernel_wants_the_capability() {
    let bare = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"];
    if wrapped(&bare, "the_kernel_wants_the_capability") {
        assert!(matches!(Ipvs::open().await, Err(Error::Permission)));
    } else {
        Ipvs::open().await.unwrap();
    }
}
