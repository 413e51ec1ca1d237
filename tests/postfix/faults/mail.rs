//! Faults that refuse every message and show neither in the banner nor in EHLO.

use std::os::unix::fs::PermissionsExt as _;

use checks::smtp::DataSpec;

use super::*;
use crate::scratch::Folder;

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
    let failure = ask(&postfix, impatient()).await.verdict.unwrap_err();
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
async fn a_message_that_is_refused_at_its_end_is_seen_by_sending_one() {
    let spec = || {
        let (from, to) = ("check@example.com".to_owned(), "void@example.com".to_owned());
        SmtpSpec { data: Some(Box::new(DataSpec { from, to, timeout: LIMIT, text: None })), ..mail_tier() }
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
async fn a_milter_that_hangs_holds_back_the_banner() {
    // The kernel takes its connections; nobody reads them.
    let milter = TcpListener::bind("127.0.0.1:0").unwrap();
    let main_cf = format!(
        "{SERVER}smtpd_milters = inet:{}\nmilter_default_action = tempfail\n",
        milter.local_addr().unwrap()
    );
    // Until milter_command_timeout, which is 30 s; milter_connect_timeout has no part in it.
    let postfix = Postfix::start("milter-hangs", &format!("{main_cf}milter_connect_timeout = 1s\n"));
    let failure = ask(&postfix, patient_for(3 * SECOND)).await.verdict.unwrap_err();
    assert_eq!(found(&failure), (Stage::Banner, Reason::Timeout, None, None));
    drop(postfix);

    let postfix = Postfix::start("milter-given-up", &format!("{main_cf}milter_command_timeout = 1s\n"));
    let outcome = ask(&postfix, mail_tier()).await;
    let failure = outcome.verdict.unwrap_err();
    assert_eq!(found(&failure), (Stage::Mail, Reason::Tempfail, Some(451), Some([4, 7, 1])));
    assert!(outcome.stages[1].took >= SECOND, "the banner");
    content(&postfix, 1).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_spool_that_became_read_only_is_seen_at_rcpt() {
    let postfix = Postfix::start("read-only", SERVER);
    assert_eq!(ask(&postfix, mail_tier()).await.verdict, Ok(()));
    // Only what new files are made in: processes that run are in the queue's folder and see no mount on that.
    let incoming = postfix.folder.join("queue/incoming");
    for options in ["bind", "remount,bind,ro"] {
        let mounts = format!("--mount=/proc/{}/ns/mnt", postfix.master().as_raw_nonzero());
        let mut mount = Command::new("nsenter");
        mount.args([&mounts, "mount", "-o", options]).arg(&incoming).arg(&incoming);
        assert!(mount.status().unwrap().success());
    }
    assert_eq!(ask(&postfix, SmtpSpec { mail: None, ..mail_tier() }).await.verdict, Ok(()), "the cheap tier");
    // cleanup tries again every ten seconds and tells nobody.
    let failure = ask(&postfix, impatient()).await.verdict.unwrap_err();
    assert_eq!(found(&failure), (Stage::Rcpt, Reason::Timeout, None, None));
    assert!(postfix.log().contains("Read-only file system"), "{}", postfix.log());
}
