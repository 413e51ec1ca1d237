//! Faults of a mail server, made on real Postfix.
//!
//! Each test makes one fault, and asserts where the check sees it and that Postfix has no complaint of us: no "lost
//! connection", no "improper command pipelining", nothing in the queue. Where it never answers it logs a lost
//! connection after all, once it looks.

mod greeting;
mod host;
mod mail;
mod tls;

use std::path::Path;

use checks::smtp::MailSpec;
use checks::{Failure, Outcome};

use super::*;

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

const SECOND: Duration = Duration::from_secs(1);

/// The same, with so much time for the banner.
fn patient_for(banner_timeout: Duration) -> SmtpSpec {
    SmtpSpec { banner_timeout, ..mail_tier() }
}

/// The same, with a second for each answer to MAIL and RCPT.
fn impatient() -> SmtpSpec {
    let mut spec = mail_tier();
    if let Some(mail) = &mut spec.mail {
        mail.timeout = SECOND;
    }
    spec
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
