//! POP and IMAP, in the clear and in TLS: Dovecot.

use std::process::Command;

use super::*;

struct Dovecot {
    server: Server,
    pop: SocketAddr,
    pops: SocketAddr,
    imaps: SocketAddr,
    certificate: String,
}

/// Users are in the file `users`, and else in a directory that is a program; its own address is that of IMAP.
fn start(name: &str, year: i32) -> Dovecot {
    let mut server = Server::prepare(name);
    let (pop, pops, imaps) = (another_address(), another_address(), another_address());
    let (certificate, key) = certificate_until(&server, year);
    let folder = server.folder.path().display().to_string();
    server.write("users", "tim:{PLAIN}tan \"st\\aaf::::::\n");
    server.write("verdict", "1");
    let directory = server.write("directory", &format!("#!/bin/sh\nexit $(/bin/cat {folder}/verdict)\n"));
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let listener = |what: &str, address: SocketAddr, tls: &str| {
        format!(
            "inet_listener {what} {{\n address = {}\n port = {}\n ssl = {tls}\n }}\n",
            address.ip(),
            address.port()
        )
    };
    let config = server.write(
        "dovecot.conf",
        &format!(
            "base_dir = {folder}/run\nstate_dir = {folder}/state\nlog_path = {folder}/dovecot.log\nprotocols = imap pop3\n\
             listen = 127.0.0.90\nssl = yes\nssl_cert = <{certificate}\nssl_key = <{key}\ndisable_plaintext_auth = no\n\
             mail_location = maildir:{folder}/mail\nauth_failure_delay = 0\n\
             passdb {{\n driver = passwd-file\n args = {folder}/users\n}}\n\
             passdb {{\n driver = checkpassword\n args = {directory}\n}}\n\
             userdb {{\n driver = static\n args = uid=nobody gid=nogroup home={folder}/mail\n}}\n\
             service anvil {{\n unix_listener anvil-auth-penalty {{\n mode = 0\n }}\n}}\n\
             service imap-login {{\n {} {} }}\nservice pop3-login {{\n {} {} }}\n",
            listener("imap", server.address, "no"),
            listener("imaps", imaps, "yes"),
            listener("pop3", pop, "no"),
            listener("pop3s", pops, "yes"),
        ),
    );
    std::fs::create_dir(server.path("mail")).unwrap();
    std::os::unix::fs::chown(server.path("mail"), Some(65534), Some(65534)).unwrap();
    server.start(Command::new("/usr/sbin/dovecot").args(["-F", "-c", &config]));
    Dovecot { server, pop, pops, imaps, certificate }
}

impl Dovecot {
    /// The four doors.
    fn doors(&self) -> [(SocketAddr, LineSpec); 4] {
        let secure = |protocol| LineSpec { tls: Some(implicit(&self.certificate)), ..line(protocol) };
        [
            (self.server.address, line(Protocol::Imap)),
            (self.imaps, secure(Protocol::Imap)),
            (self.pop, line(Protocol::Pop)),
            (self.pops, secure(Protocol::Pop)),
        ]
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.server.path("dovecot.log")).unwrap_or_default()
    }
}

fn kind(spec: LineSpec) -> Kind {
    Kind::Line(Box::new(spec))
}

#[tokio::test]
#[ignore = "needs root and dovecot: tests/run"]
async fn a_healthy_dovecot_greets_takes_a_login_and_hears_goodbye() {
    let dovecot = start("dovecot", 2100);
    let server = &dovecot.server;
    server.until_well(&kind(line(Protocol::Imap))).await;
    let file = server.secret("credential", "tim:tan \"st\\aaf\n");
    for (target, spec) in dovecot.doors() {
        let mut wanted = vec![Stage::Connect];
        wanted.extend(spec.tls.as_ref().map(|_| Stage::Tls));
        let anonymous = CheckSpec { target, ..server.spec(kind(spec.clone())) };
        let outcome = checks::run(&anonymous).await;
        let expected = [&wanted[..], &[Stage::Banner, Stage::Quit]].concat();
        assert_eq!((&outcome.verdict, stages(&outcome)), (&Ok(()), expected), "{spec:?}\n{}", dovecot.log());
        assert_eq!(outcome.tls.is_some(), spec.tls.is_some());

        let auth: &[Stage] = if spec.protocol == Protocol::Pop { &[Stage::Auth; 2] } else { &[Stage::Auth] };
        let named = kind(LineSpec { login: login(file.clone()), ..spec.clone() });
        let outcome = checks::run(&CheckSpec { target, ..server.spec(named) }).await;
        let expected = [&wanted[..], &[Stage::Banner], auth, &[Stage::Quit]].concat();
        assert_eq!((&outcome.verdict, stages(&outcome)), (&Ok(()), expected), "{spec:?}\n{}", dovecot.log());
        assert!(!format!("{outcome:?}").contains("aaf"));
    }
    let log = dovecot.log();
    assert!(log.contains("Logged out") && !log.contains("Connection closed"), "{log}");
}

#[tokio::test]
#[ignore = "needs root and dovecot: tests/run"]
async fn a_login_that_dovecot_refuses_is_told_apart_from_one_that_it_cannot_judge() {
    let dovecot = start("dovecot-auth", 2100);
    let server = &dovecot.server;
    server.until_well(&kind(line(Protocol::Imap))).await;
    let wrong = server.secret("wrong", "tim:wrong\n");
    for (target, spec) in dovecot.doors() {
        let spec = kind(LineSpec { login: login(wrong.clone()), ..spec });
        assert_eq!(failure(target, spec).await, (Stage::Auth, Reason::Permfail, None));
    }
    // The directory of users cannot be asked: the exit status that says so to Dovecot.
    server.write("verdict", "111");
    for (target, spec) in dovecot.doors() {
        let spec = kind(LineSpec { login: login(wrong.clone()), ..spec });
        assert_eq!(failure(target, spec).await, (Stage::Auth, Reason::Tempfail, None), "{}", dovecot.log());
    }
    for (target, spec) in dovecot.doors() {
        let overheard =
            LineSpec { login: Some(LoginSpec { from: wrong.clone().into(), over: AuthOver::Tls }), ..spec };
        let reason = if overheard.tls.is_none() { Reason::Local } else { Reason::Tempfail };
        assert_eq!(failure(target, kind(overheard)).await, (Stage::Auth, reason, None));
    }
}

#[tokio::test]
#[ignore = "needs root and dovecot: tests/run"]
async fn a_dovecot_that_hangs_or_whose_certificate_has_expired_is_seen() {
    let mut dovecot = start("dovecot-ill", 2002);
    dovecot.server.until_well(&kind(line(Protocol::Imap))).await;
    for (target, spec) in dovecot.doors() {
        if spec.tls.is_some() {
            let expired = (Stage::Tls, Reason::CertificateExpired, None);
            assert_eq!(failure(target, kind(spec)).await, expired);
        }
    }
    let kind = kind(line(Protocol::Imap));
    assert_eq!(dovecot.server.silence(&kind).await, (Stage::Banner, Reason::Timeout));
    dovecot.server.stop();
    assert_eq!(dovecot.server.failure(&kind).await, (Stage::Connect, Reason::Refused, None));
}
