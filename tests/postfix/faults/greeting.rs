//! Faults and oddities of the first two replies: banner and EHLO.

use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;

use checks::proxy_header::Version;
use checks::smtp::ProxyHeader;
use checks::smtp::ehlo::Requirement;

use super::host::Held;
use super::*;
use crate::scratch::Folder;

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_capability_that_was_lost_is_named() {
    let lost = "smtpd_discard_ehlo_keywords = chunking\nmessage_size_limit = 1000000\n";
    let postfix = Postfix::start("lost", &format!("{SERVER}{lost}"));
    for (text, missing) in [
        ("PIPELINING", None),
        ("SIZE 1000000", None),
        ("SIZE 10240000", Some("SIZE 1000000 is below 10240000")),
        ("CHUNKING", Some("CHUNKING is not offered")),
    ] {
        let require = vec![Requirement::parse(text).unwrap()];
        let failure = ask(&postfix, SmtpSpec { require, mail: None, ..mail_tier() }).await.verdict.err();
        assert_eq!(failure.as_ref().map(|failure| failure.text.as_str()), missing);
        let named = (Stage::Ehlo, Reason::MissingCapability);
        assert!(failure.is_none_or(|failure| (failure.stage, failure.reason) == named));
    }
    content(&postfix, 4).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_proxy_header_is_what_postfix_expects() {
    let postfix = Postfix::start("proxy", &format!("{SERVER}smtpd_upstream_proxy_protocol = haproxy\n"));
    for header in [ProxyHeader::Proxy(Version::V1), ProxyHeader::Proxy(Version::V2), ProxyHeader::Local] {
        let outcome = ask(&postfix, SmtpSpec { proxy: Some(header), ..mail_tier() }).await;
        assert_eq!(outcome.verdict, Ok(()), "{header:?}");
    }
    content(&postfix, 3).await;
}

/// How long a healthy server's banner took.
fn banner_took(outcome: &Outcome) -> Duration {
    assert_eq!(outcome.verdict, Ok(()));
    outcome.stages.iter().find(|report| report.stage == Stage::Banner).expect("a banner").took
}

fn is_timeout_at_banner(outcome: &Outcome) -> bool {
    outcome.verdict.as_ref().is_err_and(|failure| {
        (failure.stage, failure.reason, failure.code) == (Stage::Banner, Reason::Timeout, None)
    })
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_banner_that_refuses_is_told_apart_by_its_code() {
    for (name, restriction, reason, code, enhanced) in [
        ("421", "check_client_access static:{421 4.3.2 later}", Reason::Tempfail, 421, [4, 3, 2]),
        ("450", "defer", Reason::Tempfail, 450, [4, 3, 2]),
        ("554", "reject", Reason::Permfail, 554, [5, 7, 1]),
    ] {
        let main_cf = format!("{SERVER}smtpd_delay_reject = no\nsmtpd_client_restrictions = {restriction}\n");
        let postfix = Postfix::start(name, &main_cf);
        let failure = ask(&postfix, mail_tier()).await.verdict.unwrap_err();
        assert_eq!(found(&failure), (Stage::Banner, reason, Some(code), Some(enhanced)), "{failure}");
        // After 421 Postfix itself hangs up.
        let left = if code == 421 { "commands=0/0" } else { "quit=1 commands=1" };
        let log = content(&postfix, 1).await;
        assert_eq!(*log.last().unwrap(), format!("disconnect from unknown[127.0.0.1] {left}"));
    }
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn too_many_connections_from_the_director_are_a_421_banner() {
    // With `mynetworks` empty nobody is excepted, the director no more than anybody.
    let limit = format!("{SERVER}smtpd_client_connection_count_limit = 1\n");
    let postfix = Postfix::start("limit", &limit);
    let client = Held::open(&postfix);
    let failure = ask(&postfix, mail_tier()).await.verdict.unwrap_err();
    assert_eq!(found(&failure), (Stage::Banner, Reason::Tempfail, Some(421), Some([4, 7, 0])), "{failure}");
    client.quit();
    content(&postfix, 2).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_server_by_another_name_is_a_mismatch() {
    let postfix = Postfix::start("name", &format!("{SERVER}myhostname = elsewhere.example.com\n"));
    for (name, expected) in [
        ("Elsewhere.Example.com", None),
        ("mail.example.com", Some((Stage::Banner, Reason::Mismatch, None, None))),
    ] {
        let spec = SmtpSpec { banner_name: Some(name.to_owned()), ..mail_tier() };
        assert_eq!(ask(&postfix, spec).await.verdict.err().as_ref().map(found), expected);
    }
    content(&postfix, 2).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_dns_that_does_not_answer_delays_the_banner_by_ten_seconds() {
    let silent = UdpSocket::bind("127.0.0.89:53").unwrap();
    let folder = Folder::new("dns");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    // The machine's own file of hosts has a name for 127.0.0.1.
    let instead = [
        (file("resolv.conf", "nameserver 127.0.0.89\n"), "/etc/resolv.conf"),
        (file("hosts", ""), "/etc/hosts"),
    ];
    let main_cf = format!("{SERVER}smtpd_peername_lookup = yes\n");
    let postfix = Setup { instead: &instead, ..Setup::new("dns", &main_cf) }.start();
    // The resolver asks twice and waits 5 s each time; then the client has no name, and all is well.
    let (impatient, patient) =
        tokio::join!(ask(&postfix, patient_for(8 * SECOND)), ask(&postfix, patient_for(20 * SECOND)));
    assert!(is_timeout_at_banner(&impatient), "{impatient:?}");
    assert!(banner_took(&patient) >= 10 * SECOND, "{patient:?}");
    assert!(silent.recv(&mut [0; 512]).is_ok(), "it was asked");
}

/// What stands at the port where a postscreen does.
const POSTSCREEN: &str = "1 postscreen\n\
    smtpd pass - - n - - smtpd\n\
    dnsblog unix - - n - 0 dnsblog\n\
    tlsproxy unix - - n - 0 tlsproxy";

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_postscreen_is_waited_for_once_and_its_teaser_is_read() {
    let main_cf = format!("{SERVER}postscreen_greet_action = enforce\n");
    let setup = Setup { port: POSTSCREEN, ..Setup::new("postscreen", &main_cf) };
    let postfix = setup.start();
    // Who leaves early is a stranger the next time too.
    let early = ask(&postfix, patient_for(2 * SECOND)).await;
    assert!(is_timeout_at_banner(&early), "{early:?}");
    let first = ask(&postfix, mail_tier()).await;
    assert!(banner_took(&first) >= 5 * SECOND, "{first:?}");
    assert_eq!(
        first.stages[1].received,
        ["220-mail.example.com ESMTP Postfix", "220 mail.example.com ESMTP Postfix"]
    );
    assert!(banner_took(&ask(&postfix, mail_tier()).await) < 3 * SECOND, "now it is known");
    content(&postfix, 2).await;
    let log = postfix.log();
    for (line, times) in [("HANGUP after 2", 1), ("PASS NEW", 1), ("PASS OLD", 1), ("PREGREET", 0)] {
        assert_eq!(log.matches(line).count(), times, "{line}: {log}");
    }
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_postscreen_that_was_told_of_the_director_greets_at_once() {
    let folder = Folder::new("postscreen-list");
    let list = folder.path().join("director.cidr");
    fs::write(&list, "127.0.0.1 permit\n").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let main_cf = format!(
        "{SERVER}postscreen_greet_action = enforce\n\
         postscreen_access_list = permit_mynetworks, cidr:{}\n",
        list.display()
    );
    let setup = Setup { port: POSTSCREEN, ..Setup::new("told", &main_cf) };
    let postfix = setup.start();
    assert!(banner_took(&ask(&postfix, mail_tier()).await) < 3 * SECOND);
    content(&postfix, 1).await;
    assert!(postfix.log().contains("ALLOWLISTED [127.0.0.1]"), "{}", postfix.log());
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_tarpit_is_waited_for_and_named_by_the_step_where_it_is_too_slow() {
    let slow_banner = "smtpd_delay_reject = no\nsmtpd_client_restrictions = sleep 3\n";
    let postfix = Postfix::start("slow-banner", &format!("{SERVER}{slow_banner}"));
    assert!(banner_took(&ask(&postfix, mail_tier()).await) >= 3 * SECOND);
    content(&postfix, 1).await;
    let outcome = ask(&postfix, patient_for(SECOND)).await;
    assert!(is_timeout_at_banner(&outcome), "{outcome:?}");
    drop(postfix);

    let postfix = Postfix::start("slow-rcpt", &format!("{SERVER}smtpd_recipient_restrictions = sleep 3\n"));
    assert_eq!(ask(&postfix, mail_tier()).await.verdict, Ok(()));
    content(&postfix, 1).await;
    let failure = ask(&postfix, impatient()).await.verdict.unwrap_err();
    assert_eq!(found(&failure), (Stage::Rcpt, Reason::Timeout, None, None));
}
