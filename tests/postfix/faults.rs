//! Faults of a mail server that its banner and EHLO do not show, made on real Postfix.
//!
//! Each test makes one fault, and asserts where the check sees it and that Postfix has no complaint of us: no "lost
//! connection", no "improper command pipelining", nothing in the queue.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use checks::proxy_header::Version;
use checks::smtp::ehlo::Requirement;
use checks::smtp::{AuthOver, AuthSpec, DataSpec, MailSpec, ProxyHeader};
use checks::tls::{TlsMode, TlsSpec, Verify};
use checks::{Failure, Outcome};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::scratch::Folder;

/// A server of example.com that relays for nobody; nobody listens on port 1. It writes no mail to its postmaster
/// about its own faults, which would stand in the queue for a moment.
const SERVER: &str = "mynetworks =\n\
    notify_classes =\n\
    mydestination =\n\
    virtual_mailbox_domains = example.com\n\
    virtual_mailbox_maps = static:somebody\n\
    smtpd_relay_restrictions = reject_unauth_destination\n\
    virtual_transport = discard:\n\
    default_transport = discard:\n";

/// The mail tier: one recipient that is taken, one that is not.
fn mail_tier() -> SmtpSpec {
    SmtpSpec {
        ehlo_name: "director.example.com".to_owned(),
        mail: Some(Box::new(MailSpec {
            from: "check@example.com".to_owned(),
            accept: Some("somebody@example.com".to_owned()),
            refuse: Some("x@elsewhere.example".to_owned()),
            timeout: LIMIT,
        })),
        ..SmtpSpec::default()
    }
}

async fn ask(postfix: &Postfix, spec: SmtpSpec) -> Outcome {
    checks::run(&check(postfix.address, Kind::Smtp(spec))).await
}

/// Postfix noticed nothing odd in so many sessions, and has and had no mail.
async fn content(postfix: &Postfix, sessions: usize) -> Vec<String> {
    content_with(postfix, sessions, 0).await
}

/// Likewise, but so many messages were taken.
async fn content_with(postfix: &Postfix, sessions: usize, messages: usize) -> Vec<String> {
    let log = postfix.smtpd_log_of(sessions).await;
    for complaint in ["lost connection", "improper command pipelining", "SSL_accept error", "timeout after"] {
        assert!(!log.iter().any(|line| line.contains(complaint)), "{complaint}: {log:#?}");
    }
    assert_eq!(log.iter().filter(|line| line.starts_with("disconnect ")).count(), sessions, "{log:#?}");
    // cleanup has a file from the first recipient on, and unlinks it a moment after RSET.
    let queues = ["incoming", "active", "deferred", "hold", "maildrop", "corrupt"];
    let empty = async {
        while queues.iter().any(|queue| files(&postfix.folder.join("queue").join(queue)) > 0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, empty).await.expect("the queue is empty");
    // A message that went through the queue is in the log of its manager.
    assert_eq!(postfix.log().matches("(queue active)").count(), messages, "{}", postfix.log());
    log
}

fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// With this in main.cf the mail tier fails like that, and the cheap tier sees nothing.
async fn fault(name: &str, main_cf: &str) -> Failure {
    let postfix = Postfix::start(name, &format!("{SERVER}{main_cf}"));
    assert_eq!(ask(&postfix, SmtpSpec { mail: None, ..mail_tier() }).await.verdict, Ok(()), "the cheap tier");
    let outcome = ask(&postfix, mail_tier()).await;
    let log = content(&postfix, 2).await;
    outcome.verdict.expect_err(&format!("{log:#?}"))
}

fn found(failure: &Failure) -> (Stage, Reason, Option<u16>, Option<[u16; 3]>) {
    (failure.stage, failure.reason, failure.code, failure.enhanced())
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_healthy_postfix_takes_the_mail_and_queues_nothing() {
    let postfix = Postfix::start("mail", SERVER);
    let outcome = ask(&postfix, mail_tier()).await;
    assert_eq!(outcome.verdict, Ok(()));
    let codes: Vec<_> = outcome.stages.iter().map(|report| report.code.unwrap_or(0)).collect();
    assert_eq!(codes, [0, 220, 250, 250, 250, 554, 250, 221]);
    let log = content(&postfix, 1).await;
    let line = "disconnect from unknown[127.0.0.1] ehlo=1 mail=1 rcpt=1/2 rset=1 quit=1 commands=5/6";
    assert_eq!(log.last().unwrap(), line);
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_dead_milter_is_seen_at_mail() {
    let dead = "smtpd_milters = inet:127.0.0.1:1\nmilter_default_action = tempfail\n";
    assert_eq!(
        found(&fault("milter", dead).await),
        (Stage::Mail, Reason::Tempfail, Some(451), Some([4, 7, 1]))
    );
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_dead_policy_service_is_seen_at_rcpt() {
    let dead = "smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:1\n";
    assert_eq!(
        found(&fault("policy", dead).await),
        (Stage::Rcpt, Reason::Tempfail, Some(451), Some([4, 3, 5]))
    );
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_dead_recipient_map_is_seen_at_rcpt() {
    let dead = "virtual_mailbox_maps = socketmap:inet:127.0.0.1:1:users\n";
    assert_eq!(found(&fault("map", dead).await), (Stage::Rcpt, Reason::Tempfail, Some(451), Some([4, 3, 0])));
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_full_spool_is_seen_at_mail() {
    let full = "queue_minfree = 1000000000000000\n";
    assert_eq!(
        found(&fault("spool", full).await),
        (Stage::Mail, Reason::Tempfail, Some(452), Some([4, 3, 1]))
    );
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_dead_cleanup_is_seen_at_rcpt() {
    // smtpd waits for it for minutes, so nobody is told anything.
    let postfix = Postfix::start("cleanup", &format!("{SERVER}cleanup_service_name = nobody\n"));
    assert_eq!(ask(&postfix, SmtpSpec { mail: None, ..mail_tier() }).await.verdict, Ok(()), "the cheap tier");
    let mut spec = mail_tier();
    if let Some(mail) = &mut spec.mail {
        mail.timeout = Duration::from_secs(1);
    }
    let failure = ask(&postfix, spec).await.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason), (Stage::Rcpt, Reason::Timeout));
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_relay_that_is_open_by_mistake_has_a_name_of_its_own() {
    // The classic one: everybody is a neighbour. `permit` alone is refused by Postfix itself.
    let open = "mynetworks = 0.0.0.0/0\n\
        smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n";
    assert_eq!(
        found(&fault("relay", open).await),
        (Stage::Relay, Reason::OpenRelay, Some(250), Some([2, 1, 5]))
    );
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_capability_that_was_lost_is_named() {
    let postfix = Postfix::start("lost", &format!("{SERVER}smtpd_discard_ehlo_keywords = chunking\n"));
    for (text, missing) in [
        ("PIPELINING", None),
        ("SIZE 10240000", None),
        ("SIZE 10240001", Some("SIZE 10240000 is below 10240001")),
        ("CHUNKING", Some("CHUNKING is not offered")),
    ] {
        let require = vec![Requirement::parse(text).unwrap()];
        let verdict = ask(&postfix, SmtpSpec { require, mail: None, ..mail_tier() }).await.verdict;
        assert_eq!(verdict.err().map(|failure| failure.text).as_deref(), missing);
    }
    content(&postfix, 4).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_message_that_is_refused_at_its_end_is_seen_by_sending_one() {
    let spec = || {
        let (from, to) = ("check@example.com".to_owned(), "void@example.com".to_owned());
        SmtpSpec { data: Some(Box::new(DataSpec { from, to, timeout: LIMIT })), ..mail_tier() }
    };
    let postfix = Postfix::start("data", SERVER);
    assert_eq!(ask(&postfix, spec()).await.verdict, Ok(()));
    let discarded = async {
        while !postfix.log().contains("relay=none") || !postfix.log().contains(": removed") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, discarded).await.expect("the message is discarded");
    assert!(postfix.log().contains(".check@director.example.com>"), "{}", postfix.log());
    content_with(&postfix, 1, 1).await;
    drop(postfix);

    let checks = Folder::new("header-checks");
    let file = checks.file("/^X-SMTP-Director:/ REJECT not today\n");
    // cleanup is not root.
    fs::set_permissions(checks.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let refuse = format!("{SERVER}header_checks = regexp:{}\n", file.display());
    let postfix = Postfix::start("end-of-data", &refuse);
    assert_eq!(ask(&postfix, mail_tier()).await.verdict, Ok(()), "without a message nothing is seen");
    let failure = ask(&postfix, spec()).await.verdict.unwrap_err();
    assert_eq!(found(&failure), (Stage::EndOfData, Reason::Permfail, Some(550), Some([5, 7, 1])));
    content(&postfix, 2).await;
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

/// A certificate for mail.example.com until the start of a year, its key, and lines of main.cf with both.
fn certificate(folder: &Folder, until: i32) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["mail.example.com".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let (cert, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n",
        cert.display(),
        key_file.display()
    )
}

fn with_tls(folder: &Folder, mode: TlsMode, verify: Verify, name: &str) -> SmtpSpec {
    let ca_file = folder.path().join("cert.pem");
    let name = Some(name.to_owned());
    SmtpSpec {
        tls: Some(Box::new(TlsSpec { mode, verify, name, ca_file, ..TlsSpec::default() })),
        ..mail_tier()
    }
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_postfix_with_tls_is_checked_inside_tls() {
    let folder = Folder::new("postfix-tls");
    let postfix = Postfix::start("tls", &format!("{SERVER}{}", certificate(&folder, 2100)));
    for (name, expected) in [("mail.example.com", None), ("mx.example.com", Some(Reason::CertificateName))] {
        let outcome = ask(&postfix, with_tls(&folder, TlsMode::Required, Verify::Name, name)).await;
        assert_eq!(outcome.verdict.clone().err().map(|failure| failure.reason), expected);
        let report = outcome.tls.unwrap();
        assert_eq!((report.version.as_str(), report.verified), ("TLSv1.3", expected.is_none()));
        assert!(report.days_left.unwrap() > 20_000);
    }
    let log = content(&postfix, 2).await;
    let line =
        "disconnect from unknown[127.0.0.1] ehlo=2 starttls=1 mail=1 rcpt=1/2 rset=1 quit=1 commands=7/8";
    assert!(log.iter().any(|have| have == line), "{log:#?}");
    let left = "disconnect from unknown[127.0.0.1] ehlo=1 starttls=1 quit=1 commands=3";
    assert!(log.iter().any(|have| have == left), "{log:#?}");
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn an_implicit_tls_port_is_left_as_politely() {
    let folder = Folder::new("postfix-smtps");
    let wrapped = format!("{SERVER}{}smtpd_tls_wrappermode = yes\n", certificate(&folder, 2100));
    let postfix = Postfix::start("smtps", &wrapped);
    for name in ["mail.example.com", "mx.example.com"] {
        let outcome = ask(&postfix, with_tls(&folder, TlsMode::Implicit, Verify::Name, name)).await;
        assert_eq!(outcome.verdict.is_ok(), name == "mail.example.com", "{outcome:?}");
    }
    content(&postfix, 2).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn an_expired_certificate_is_told_apart_and_only_reported_where_tls_is_a_chance() {
    let folder = Folder::new("postfix-expired");
    let postfix = Postfix::start("expired", &format!("{SERVER}{}", certificate(&folder, 2002)));
    let outcome =
        ask(&postfix, with_tls(&folder, TlsMode::Required, Verify::Chain, "mail.example.com")).await;
    let failure = outcome.verdict.unwrap_err();
    assert_eq!((failure.stage, failure.reason), (Stage::Tls, Reason::CertificateExpired));
    let outcome =
        ask(&postfix, with_tls(&folder, TlsMode::Opportunistic, Verify::Chain, "mail.example.com")).await;
    assert_eq!(outcome.verdict, Ok(()));
    let report = outcome.tls.unwrap();
    assert!(!report.verified && report.days_left.unwrap() < 0, "{report:?}");
    content(&postfix, 2).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_key_that_does_not_fit_its_certificate_breaks_starttls() {
    let folder = Folder::new("postfix-bad-key");
    let main_cf = certificate(&folder, 2100);
    fs::write(folder.path().join("key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let postfix = Postfix::start("bad-key", &format!("{SERVER}{main_cf}"));
    assert_eq!(ask(&postfix, SmtpSpec { tls: None, ..mail_tier() }).await.verdict, Ok(()));
    let spec = with_tls(&folder, TlsMode::Required, Verify::None, "mail.example.com");
    let failure = ask(&postfix, spec).await.verdict.unwrap_err();
    assert_eq!(found(&failure), (Stage::StartTls, Reason::Tempfail, Some(454), Some([4, 7, 0])));
    content(&postfix, 2).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_dead_sasl_backend_is_seen_at_auth() {
    let folder = Folder::new("postfix-sasl");
    let socket = folder.path().join("nobody");
    let conf =
        format!("pwcheck_method: saslauthd\nmech_list: PLAIN LOGIN\nsaslauthd_path: {}\n", socket.display());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("smtpd.conf"), conf).unwrap();
    let sasl = format!(
        "smtpd_sasl_auth_enable = yes\nsmtpd_tls_auth_only = yes\ncyrus_sasl_config_path = {}\n",
        folder.path().display()
    );
    let file = folder.file("tim:tanstaaf\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let tls = certificate(&folder, 2100);
    let postfix = Postfix::start("sasl", &format!("{SERVER}{tls}{sasl}"));
    let auth = AuthSpec { file, mechanism: None, over: AuthOver::Tls, timeout: LIMIT };
    let spec = SmtpSpec {
        auth: Some(Box::new(auth)),
        ..with_tls(&folder, TlsMode::Required, Verify::None, "mail.example.com")
    };
    let outcome = ask(&postfix, spec).await;
    let failure = outcome.verdict.clone().unwrap_err();
    // Cyrus SASL says the same of a wrong password.
    assert_eq!(found(&failure), (Stage::Auth, Reason::Permfail, Some(535), Some([5, 7, 8])), "{failure}");
    assert!(!format!("{outcome:?}").contains("tanstaaf"));
    content(&postfix, 1).await;
}
