//! Faults of TLS and of what is said inside it.

use std::os::unix::fs::PermissionsExt as _;

use checks::smtp::{AuthOver, AuthSpec};
use checks::tls::{TlsMode, TlsSpec, Verify};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::scratch::Folder;

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
async fn a_dead_milter_is_seen_at_starttls_where_tls_is_required() {
    let folder = Folder::new("postfix-tls-milter");
    let dead = "smtpd_milters = inet:127.0.0.1:1\nmilter_default_action = tempfail\n";
    let postfix = Postfix::start("tls-milter", &format!("{SERVER}{}{dead}", certificate(&folder, 2100)));
    let spec = with_tls(&folder, TlsMode::Required, Verify::Name, "mail.example.com");
    let failure = ask(&postfix, spec).await.verdict.unwrap_err();
    assert_eq!(found(&failure), (Stage::StartTls, Reason::Tempfail, Some(454), Some([4, 3, 0])));
    content(&postfix, 1).await;
}

#[tokio::test]
#[ignore = "needs root and Postfix: tests/run"]
async fn a_dead_sasl_backend_is_seen_at_auth() {
    let folder = Folder::new("postfix-sasl");
    let socket = folder.path().join("nobody");
    let sasl =
        format!("pwcheck_method: saslauthd\nmech_list: PLAIN LOGIN\nsaslauthd_path: {}\n", socket.display());
    let file = folder.file("tim:tanstaaf\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let tls = certificate(&folder, 2100);
    let main_cf = format!("{SERVER}{tls}smtpd_sasl_auth_enable = yes\nsmtpd_tls_auth_only = yes\n");
    let postfix = Setup { sasl: &sasl, ..Setup::new("sasl", &main_cf) }.start();
    let auth = AuthSpec { from: file.into(), mechanism: None, over: AuthOver::Tls, timeout: LIMIT };
    let spec = SmtpSpec {
        auth: Some(Box::new(auth)),
        ..with_tls(&folder, TlsMode::Required, Verify::None, "mail.example.com")
    };
    let outcome = ask(&postfix, spec).await;
    let failure = outcome.verdict.clone().unwrap_err();
    assert_eq!(found(&failure), (Stage::Auth, Reason::Tempfail, Some(454), Some([4, 7, 0])), "{failure}");
    assert!(postfix.log().contains("cannot connect to saslauthd server"), "{}", postfix.log());
    assert!(!format!("{outcome:?}").contains("tanstaaf"));
    content(&postfix, 1).await;
}
