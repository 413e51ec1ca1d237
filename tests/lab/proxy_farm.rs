//! The scenarios on the proxy dataplane: real Postfix, no IPVS, judged by `/status` and by the mail that arrived.

use super::scenario;
use crate::farm::postfix::{MASTER_CF, Postfix};
use crate::farm::{Ip, Wiring};

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn three_servers_are_in_and_all_mail_arrives() {
    scenario::starts_and_carries_mail(Wiring::Proxy, Ip::V4);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_dead_server_is_out_and_back_and_the_others_go_on() {
    scenario::takes_a_dead_server_out_and_back(Wiring::Proxy);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_broken_file_is_refused_with_its_place() {
    scenario::refuses_a_broken_file_and_goes_on(Wiring::Proxy);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_that_refuses_all_mail_is_out_and_all_together_are_not() {
    scenario::takes_out_a_server_that_refuses_all_mail(Wiring::Proxy);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_host_that_is_off_is_out_and_a_director_that_is_cut_off_changes_nothing() {
    scenario::tells_a_host_that_is_off_from_a_director_that_is_cut_off(Wiring::Proxy);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_removed_server_drains() {
    scenario::drains_a_removed_server(Wiring::Proxy);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn the_fallback_serves_while_all_are_dead() {
    scenario::falls_back_when_all_are_dead(Wiring::Proxy);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_that_is_dead_is_out_alone() {
    scenario::takes_out_only_who_is_sick(Wiring::Proxy, Postfix::kill);
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_that_is_stopped_is_out_alone() {
    scenario::takes_out_only_who_is_sick(Wiring::Proxy, |postfix| postfix.freeze());
}

/// Reads these lines of main.cf while it runs: no connection is refused.
fn learns(lines: &str) -> impl FnOnce(&mut Postfix) {
    move |postfix| {
        postfix.configure(lines, MASTER_CF);
        postfix.reload();
    }
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_that_hangs_before_its_banner_is_out_alone() {
    let hangs = "smtpd_delay_reject = no\nsmtpd_client_restrictions = sleep 60\n";
    scenario::takes_out_only_who_is_sick(Wiring::Proxy, learns(hangs));
}

#[test]
#[ignore = "needs root, namespaces and Postfix: tests/run"]
fn a_server_with_a_full_spool_is_out_alone() {
    scenario::takes_out_only_who_is_sick(Wiring::Proxy, learns("queue_minfree = 1000000000000000\n"));
}
