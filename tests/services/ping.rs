//! ICMP echo on a network of its own.

use super::*;

const RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";

fn ping(address: &str) -> CheckSpec {
    let limit = Duration::from_millis(500);
    CheckSpec {
        target: address.parse().unwrap(),
        kind: Kind::Ping,
        deadline: limit,
        connect_timeout: limit,
        via: None,
    }
}

#[tokio::test]
#[ignore = "needs root and a network namespace: tests/run"]
async fn a_host_is_pinged_with_and_without_the_right_to_raw_sockets() {
    // A new network permits nobody; root has CAP_NET_RAW.
    assert_eq!(std::fs::read_to_string(RANGE).unwrap(), "1\t0\n");
    for permitted in ["1 0", "0 0"] {
        std::fs::write(RANGE, permitted).unwrap();
        for address in ["127.0.0.1:0", "127.0.0.77:25", "[::1]:25"] {
            let outcome = checks::run(&ping(address)).await;
            assert_eq!(
                (&outcome.verdict, stages(&outcome)),
                (&Ok(()), vec![Stage::Echo]),
                "{permitted} {address}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "needs root and a network namespace: tests/run"]
async fn a_host_that_does_not_answer_is_seen_and_one_that_nobody_can_reach_is_ours() {
    let ignore = "/proc/sys/net/ipv4/icmp_echo_ignore_all";
    std::fs::write(ignore, "1").unwrap();
    let failure = checks::run(&ping("127.0.0.1:25")).await.verdict.unwrap_err();
    std::fs::write(ignore, "0").unwrap();
    assert_eq!((failure.stage, failure.reason), (Stage::Echo, Reason::Timeout));
    // No route at all.
    let failure = checks::run(&ping("192.0.2.1:25")).await.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason), (Stage::Echo, Reason::Local));
}

#[test]
#[ignore = "needs root and a network namespace: tests/run"]
fn without_any_right_the_sysctl_is_named() {
    use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

    std::fs::write(RANGE, "1 0").unwrap();
    // The rights of this one thread, on which the check runs.
    let all = capabilities(None).unwrap();
    let effective = all.effective - CapabilitySet::NET_RAW;
    set_capabilities(None, CapabilitySets { effective, ..all }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failure = runtime.block_on(checks::run(&ping("127.0.0.1:25"))).verdict.unwrap_err();
    set_capabilities(None, all).unwrap();
    assert_eq!((failure.stage, failure.reason), (Stage::Echo, Reason::Local));
    assert!(failure.text.contains("net.ipv4.ping_group_range"), "{failure}");
}
