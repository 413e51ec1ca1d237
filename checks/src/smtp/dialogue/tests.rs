//! What is said to servers of every kind.

use super::*;
use crate::smtp::ehlo::Requirement;
use crate::smtp::reply::Splitter;
use crate::smtp::{AuthOver, AuthSpec, DataSpec, MailSpec, Mechanism, Pattern};
use crate::tls::TlsSpec;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const EHLO: &str = "EHLO director.example.com";
const STARTTLS: &str = "250-m\r\n250 STARTTLS\r\n";
const OK: &str = "250 2.0.0 Ok\r\n";
const BYE: &str = "221 2.0.0 Bye\r\n";

fn spec() -> SmtpSpec {
    SmtpSpec { ehlo_name: "director.example.com".to_owned(), ..SmtpSpec::default() }
}

fn mail(accept: Option<&str>, refuse: Option<&str>) -> SmtpSpec {
    let mail = MailSpec {
        from: "check@example.com".to_owned(),
        accept: accept.map(str::to_owned),
        refuse: refuse.map(str::to_owned),
        timeout: SECOND,
    };
    SmtpSpec { mail: Some(Box::new(mail)), ..spec() }
}

fn tls(mode: TlsMode) -> SmtpSpec {
    SmtpSpec { tls: Some(Box::new(TlsSpec { mode, ..TlsSpec::default() })), ..spec() }
}

fn auth(mechanism: Option<Mechanism>, over: AuthOver) -> SmtpSpec {
    let auth = AuthSpec { from: "/nowhere".into(), mechanism, over, timeout: SECOND };
    SmtpSpec { auth: Some(Box::new(auth)), ..spec() }
}

fn credential() -> Credential {
    Credential::parse("tim:tanstaaf").unwrap()
}

fn reply(text: &str) -> Reply {
    Splitter::default().feed(text.as_bytes()).unwrap().1.unwrap()
}

/// What is said with its secrets, how it fails, what was offered.
type Talk = (Vec<String>, Option<(Stage, Reason, Option<u16>)>, Vec<String>);

/// Everything that is said to a server that says `replies` and whose certificate is `judged`, and the end of it.
fn talk_tls(spec: &SmtpSpec, judged: &Judged, replies: &[&str]) -> Talk {
    let credential = spec.auth.as_ref().map(|_| credential());
    let (mut dialogue, mut step) = Dialogue::new(spec, credential, 0);
    let (mut said, mut replies) = (Vec::new(), replies.iter());
    loop {
        match step {
            Step::Close => break,
            Step::Listen => {}
            Step::Send(line) => said.push(line),
            Step::SendUnshown { line, .. } => said.push(line.0),
            Step::Handshake => {
                said.push("(TLS)".to_owned());
                step = dialogue.secured(judged).step;
                continue;
            }
        }
        let Some(text) = replies.next() else { break };
        step = dialogue.reply(&reply(text)).step;
    }
    let (verdict, capabilities) = dialogue.finish();
    (said, verdict.err().map(|f| (f.stage, f.reason, f.code)), capabilities)
}

fn talk(spec: &SmtpSpec, replies: &[&str]) -> Talk {
    talk_tls(spec, &Judged::Good, replies)
}

#[test]
fn a_healthy_server_is_greeted_and_left() {
    let postfix = "250-mail.example.com\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250-ETRN\r\n250-STARTTLS\r\n\
        250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250-XCLIENT NAME ADDR\r\n250 CHUNKING\r\n";
    let (said, failure, capabilities) = talk(&spec(), &["220-wait\r\n220 mail\r\n", postfix, BYE]);
    assert_eq!((said, failure), (vec![EHLO.to_owned(), "QUIT".to_owned()], None));
    assert_eq!(
        capabilities.join(","),
        "PIPELINING,SIZE 10240000,ETRN,STARTTLS,ENHANCEDSTATUSCODES,8BITMIME,DSN,SMTPUTF8,XCLIENT NAME ADDR,CHUNKING"
    );
}

#[test]
fn a_refusal_is_answered_with_quit() {
    use Reason::{Permfail, Tempfail, Unexpected};
    for (code, reason) in [
        (421, Tempfail),
        (450, Tempfail),
        (554, Permfail),
        (354, Unexpected),
        (221, Unexpected),
        (599, Permfail),
    ] {
        let refusal = format!("{code} no\r\n");
        let (said, failure, _) = talk(&spec(), &[&refusal]);
        assert_eq!((said, failure), (vec!["QUIT".to_owned()], Some((Stage::Banner, reason, Some(code)))));
        let spec = SmtpSpec { dialect: Dialect::Lmtp, ..spec() };
        let (said, failure, _) = talk(&spec, &["220 x\r\n", &refusal, BYE]);
        assert_eq!(said, ["LHLO director.example.com", "QUIT"]);
        assert_eq!(failure, Some((Stage::Ehlo, reason, Some(code))));
    }
}

#[test]
fn a_server_without_ehlo_is_asked_with_helo() {
    let helo = "HELO director.example.com";
    for no in ["500 what\r\n", "502 5.5.1 no\r\n", "554 no\r\n"] {
        let (said, failure, _) = talk(&spec(), &["220 x\r\n", no, "250 x\r\n", BYE]);
        assert_eq!((said, failure), (vec![EHLO.into(), helo.into(), "QUIT".into()], None));
        let (said, failure, _) = talk(&spec(), &["220 x\r\n", no, "504 no\r\n", BYE]);
        assert_eq!(said, [EHLO, helo, "QUIT"]);
        assert_eq!(failure, Some((Stage::Helo, Reason::Permfail, Some(504))));
    }
    let (said, failure, _) = talk(&spec(), &["220 x\r\n", "451 later\r\n", BYE]);
    assert_eq!(said, [EHLO, "QUIT"]);
    assert_eq!(failure, Some((Stage::Ehlo, Reason::Tempfail, Some(451))));
    // What HELO cannot offer is missing.
    let (_, failure, _) = talk(&tls(TlsMode::Required), &["220 x\r\n", "500 what\r\n", "250 x\r\n", BYE]);
    assert_eq!(failure, Some((Stage::Ehlo, Reason::MissingCapability, None)));
}

#[test]
fn how_quit_is_answered_does_not_matter() {
    for end in [BYE, "250 what\r\n", "421 x\r\n", "500 x\r\n"] {
        assert_eq!(talk(&spec(), &["220 x\r\n", "250 x\r\n", end]).1, None);
    }
    let spec = spec();
    let (mut dialogue, _) = Dialogue::new(&spec, None, 0);
    dialogue.reply(&reply("220 x\r\n"));
    dialogue.reply(&reply("250 x\r\n"));
    dialogue.lost(Failure { stage: Stage::Quit, reason: Reason::Reset, code: None, text: String::new() });
    assert_eq!(dialogue.finish().0, Ok(()));
}

#[test]
fn a_failure_says_what_the_server_said() {
    let spec = spec();
    let (mut dialogue, _) = Dialogue::new(&spec, None, 0);
    dialogue.reply(&reply("421-4.3.2 too\x07 busy\r\n421 really\r\n"));
    let failure = dialogue.finish().0.unwrap_err();
    assert_eq!(failure.to_string(), "tempfail at banner: 421-4.3.2 too\\u{7} busy");
    assert_eq!(failure.enhanced(), Some([4, 3, 2]));
}

#[test]
fn the_banner_must_be_the_one_that_was_asked_for() {
    let with = |name: Option<&str>, pattern: Option<&str>| SmtpSpec {
        banner_name: name.map(str::to_owned),
        banner: pattern.map(|text| Pattern::new(text).unwrap()),
        ..spec()
    };
    let banner = "220-mail1.example.com ESMTP\r\n220 ready\r\n";
    let mismatch = Some((Stage::Banner, Reason::Mismatch, None));
    for (spec, expected) in [
        (with(Some("Mail1.Example.COM"), None), None),
        (with(Some("mail1.example"), None), mismatch),
        (with(None, Some(r"^220.mail\d\.example")), None),
        (with(None, Some("ready$")), None),
        (with(None, Some("Exim")), mismatch),
        (with(Some("mail1.example.com"), Some("Exim")), mismatch),
    ] {
        let (said, failure, _) = talk(&spec, &[banner, OK, BYE]);
        assert_eq!(failure, expected);
        assert_eq!(said.last().unwrap(), "QUIT");
        assert_eq!(said.len(), if expected.is_some() { 1 } else { 2 });
    }
}

#[test]
fn a_pattern_that_is_none_is_refused_in_one_line() {
    for text in ["(", "a{100000}{100}", "\\"] {
        let error = Pattern::new(text).unwrap_err();
        assert!(!error.is_empty() && !error.contains('\n'), "{error:?}");
    }
}

#[test]
fn what_is_required_must_be_offered() {
    let require = |text: &str| SmtpSpec { require: vec![Requirement::parse(text).unwrap()], ..spec() };
    let ehlo = "250-m\r\n250-SIZE 1000\r\n250 DSN\r\n";
    for (text, expected) in
        [("DSN", None), ("SIZE 1000", None), ("SIZE 1001", Some(Reason::MissingCapability))]
    {
        let (said, failure, _) = talk(&require(text), &["220 x\r\n", ehlo, BYE]);
        assert_eq!(failure.map(|(stage, reason, _)| (stage, reason)), expected.map(|r| (Stage::Ehlo, r)));
        assert_eq!(said, [EHLO, "QUIT"]);
    }
}

#[test]
fn a_mail_is_announced_and_taken_back() {
    let spec = mail(Some("postmaster"), Some("a@elsewhere.example"));
    let (said, failure, _) =
        talk(&spec, &["220 x\r\n", "250 x\r\n", OK, "251 forwarded\r\n", "554 5.7.1 no\r\n", OK, BYE]);
    assert_eq!(failure, None);
    assert_eq!(
        said,
        [
            EHLO,
            "MAIL FROM:<check@example.com>",
            "RCPT TO:<postmaster>",
            "RCPT TO:<a@elsewhere.example>",
            "RSET",
            "QUIT"
        ]
    );
    let (said, failure, _) = talk(&mail(Some("a@b"), None), &["220 x\r\n", "250 x\r\n", OK, OK, OK, BYE]);
    assert_eq!((said.len(), failure), (5, None));
    let (said, failure, _) =
        talk(&mail(None, Some("a@b")), &["220 x\r\n", "250 x\r\n", OK, "450 later\r\n", OK, BYE]);
    assert_eq!((said.len(), failure), (5, None));
    let (said, failure, _) = talk(&mail(None, None), &["220 x\r\n", "250 x\r\n", OK, OK, BYE]);
    assert_eq!((said.len(), failure), (4, None));
}

#[test]
fn a_mail_that_is_refused_is_a_failure_at_its_step() {
    use Reason::{OpenRelay, Permfail, Tempfail, Unexpected};
    let spec = mail(Some("a@example.com"), Some("a@elsewhere.example"));
    for (replies, stage, reason, code) in [
        (&["451 4.7.1 no\r\n"][..], Stage::Mail, Tempfail, 451),
        (&["552 no\r\n"], Stage::Mail, Permfail, 552),
        (&["354 no\r\n"], Stage::Mail, Unexpected, 354),
        (&[OK, "451 4.3.0 no\r\n"], Stage::Rcpt, Tempfail, 451),
        (&[OK, "550 no\r\n"], Stage::Rcpt, Permfail, 550),
        (&[OK, OK, OK], Stage::Relay, OpenRelay, 250),
        (&[OK, OK, "252 perhaps\r\n"], Stage::Relay, OpenRelay, 252),
        (&[OK, OK, "421 bye\r\n"], Stage::Relay, Tempfail, 421),
        (&[OK, OK, "354 what\r\n"], Stage::Relay, Unexpected, 354),
        (&[OK, OK, "554 no\r\n", "500 what\r\n"], Stage::Rset, Permfail, 500),
    ] {
        let (said, failure, _) = talk(&spec, &[&["220 x\r\n", "250 x\r\n"], replies, &[BYE]].concat());
        assert_eq!(failure, Some((stage, reason, Some(code))));
        assert_eq!(said.last().unwrap(), "QUIT");
        assert!(!said.iter().any(|line| line.starts_with("DATA")));
    }
}

#[test]
fn a_message_is_sent_after_the_mail_that_is_not() {
    let data =
        DataSpec { from: String::new(), to: "void@example.com".to_owned(), timeout: SECOND, text: None };
    let spec = SmtpSpec { data: Some(Box::new(data)), ..mail(Some("a@example.com"), None) };
    let start = ["220 x\r\n", "250 x\r\n", OK, OK, OK];
    let go = "354 go\r\n";
    let (said, failure, _) = talk(&spec, &[&start[..], &[OK, OK, go, OK, BYE]].concat());
    assert_eq!(failure, None);
    assert_eq!(said[3..7], ["RSET", "MAIL FROM:<>", "RCPT TO:<void@example.com>", "DATA"]);
    assert!(said[7].ends_with("\r\n.") && said[8] == "QUIT");
    for (replies, stage, code) in [
        (&["451 no\r\n"][..], Stage::Mail, 451),
        (&[OK, "550 no\r\n"], Stage::Rcpt, 550),
        (&[OK, OK, "451 no\r\n"], Stage::Data, 451),
        (&[OK, OK, go, "451 4.3.0 queue file write error\r\n"], Stage::EndOfData, 451),
        (&[OK, OK, go, "550 5.7.1 milter\r\n"], Stage::EndOfData, 550),
    ] {
        let (said, failure, _) = talk(&spec, &[&start[..], replies, &[BYE]].concat());
        assert_eq!(failure.map(|(stage, _, code)| (stage, code)), Some((stage, Some(code))));
        assert_eq!(said.last().unwrap(), "QUIT");
    }
}

#[test]
fn starttls_is_said_where_it_is_offered() {
    use TlsMode::{Opportunistic, Required};
    let missing = Some((Stage::Ehlo, Reason::MissingCapability, None));
    let refused = Some((Stage::StartTls, Reason::Tempfail, Some(454)));
    let whole: &[&str] = &[EHLO, "STARTTLS", "(TLS)", EHLO, "QUIT"];
    let no = "454 4.7.0 TLS not available\r\n";
    for (mode, replies, expected, failure) in [
        (Required, &[STARTTLS, "220 go\r\n", "250 m\r\n", BYE][..], whole, None),
        (Opportunistic, &[STARTTLS, "220 go\r\n", "250 m\r\n", BYE], whole, None),
        (Required, &["250 m\r\n", BYE], &[EHLO, "QUIT"], missing),
        (Opportunistic, &["250 m\r\n", BYE], &[EHLO, "QUIT"], None),
        (Required, &[STARTTLS, no, BYE], &[EHLO, "STARTTLS", "QUIT"], refused),
        (Opportunistic, &[STARTTLS, no, BYE], &[EHLO, "STARTTLS", "QUIT"], None),
    ] {
        let (said, have, _) = talk(&tls(mode), &[&["220 x\r\n"], replies].concat());
        assert_eq!((said, have), (expected.iter().map(|&line| line.to_owned()).collect(), failure));
    }
    // Inside TLS it is not offered again, and nobody misses it; all else that was offered before counts no more.
    for (keyword, failure) in [("STARTTLS", None), ("DSN", missing)] {
        let spec = SmtpSpec { require: vec![Requirement::Keyword(keyword.into())], ..tls(Required) };
        let offer = "250-m\r\n250-DSN\r\n250 STARTTLS\r\n";
        let (_, have, _) = talk(&spec, &["220 x\r\n", offer, "220 go\r\n", "250 m\r\n", BYE]);
        assert_eq!(have, failure, "{keyword}");
    }
}

#[test]
fn a_bad_certificate_fails_a_check_that_needs_it_and_is_left_politely() {
    let bad = Judged::Bad(Reason::CertificateName, "other name".to_owned());
    let starttls = &["220 x\r\n", STARTTLS, "220 go\r\n", "250 m\r\n", BYE];
    let failure = Some((Stage::Tls, Reason::CertificateName, None));
    let (said, have, _) = talk_tls(&tls(TlsMode::Required), &bad, starttls);
    assert_eq!((said.last().map(String::as_str), said.len(), have), (Some("QUIT"), 4, failure));
    assert_eq!(talk_tls(&tls(TlsMode::Opportunistic), &bad, starttls).1, None);
    // The server has the first word even so: QUIT before the banner would be talking out of turn.
    let (said, have, _) = talk_tls(&tls(TlsMode::Implicit), &bad, &["220 x\r\n", BYE]);
    assert_eq!((said, have), (vec!["(TLS)".to_owned(), "QUIT".to_owned()], failure));
    let (said, have, _) = talk(&tls(TlsMode::Implicit), &["220 x\r\n", "250 m\r\n", BYE]);
    assert_eq!((said, have), (vec!["(TLS)".to_owned(), EHLO.to_owned(), "QUIT".to_owned()], None));
}

#[test]
fn a_password_is_said_as_the_server_offers_it() {
    use Mechanism::{Login, Plain};
    let plain = "AUTH PLAIN AHRpbQB0YW5zdGFhZg==";
    let both = "250-m\r\n250 AUTH LOGIN PLAIN\r\n";
    let login = "250-m\r\n250 AUTH LOGIN\r\n";
    let asks = ["334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n"];
    let yes = "235 2.7.0 ok\r\n";
    let answers: &[&str] = &["AUTH LOGIN", "dGlt", "dGFuc3RhYWY="];
    for (mechanism, ehlo, replies, expected) in [
        (None, both, &[yes][..], &[plain][..]),
        (Some(Plain), both, &[yes], &[plain]),
        (Some(Login), both, &[asks[0], asks[1], yes], answers),
        (None, login, &[asks[0], asks[1], yes], answers),
    ] {
        let (said, failure, _) =
            talk(&auth(mechanism, AuthOver::Anything), &[&["220 x\r\n", ehlo], replies, &[BYE]].concat());
        assert_eq!(
            (&said[1..said.len() - 1], failure),
            (expected.iter().map(|&l| l.to_owned()).collect::<Vec<_>>().as_slice(), None)
        );
    }
}

#[test]
fn a_login_that_does_not_work_is_a_failure() {
    use Reason::{MissingCapability, Permfail, Tempfail, Unexpected};
    let offer = "250-m\r\n250 AUTH PLAIN\r\n";
    for (ehlo, replies, reason, code, last) in [
        ("250 m\r\n", &[][..], MissingCapability, None, "QUIT"),
        ("250-m\r\n250 AUTH CRAM-MD5\r\n", &[], MissingCapability, None, "QUIT"),
        (offer, &["535 5.7.8 no\r\n"], Permfail, Some(535), "QUIT"),
        (offer, &["454 4.7.0 no\r\n"], Tempfail, Some(454), "QUIT"),
        (offer, &["250 what\r\n"], Unexpected, Some(250), "QUIT"),
        // An exchange that goes on is ended first: QUIT would be taken for an answer.
        (offer, &["334 \r\n"], Unexpected, Some(334), "*"),
        (offer, &["334 \r\n", "501 ended\r\n"], Unexpected, Some(334), "QUIT"),
    ] {
        let (said, failure, _) =
            talk(&auth(None, AuthOver::Anything), &[&["220 x\r\n", ehlo], replies].concat());
        assert_eq!(failure, Some((Stage::Auth, reason, code)));
        assert_eq!(said.last().unwrap(), last);
    }
    let endless =
        ["220 x\r\n", "250-m\r\n250 AUTH LOGIN\r\n", "334 a\r\n", "334 b\r\n", "334 c\r\n", "501 x\r\n"];
    let (said, failure, _) = talk(&auth(None, AuthOver::Anything), &endless);
    assert_eq!((said.last().unwrap().as_str(), failure.unwrap().1), ("QUIT", Unexpected));
}

#[test]
fn no_password_is_said_where_it_can_be_overheard() {
    let spec = SmtpSpec { tls: tls(TlsMode::Opportunistic).tls, ..auth(None, AuthOver::Tls) };
    let offer = "250-m\r\n250 AUTH PLAIN\r\n";
    let (said, failure, _) = talk(&spec, &["220 x\r\n", offer, BYE]);
    assert_eq!(
        (said, failure),
        (vec![EHLO.into(), "QUIT".into()], Some((Stage::Auth, Reason::MissingCapability, None)))
    );
    let (said, failure, _) = talk(&spec, &["220 x\r\n", STARTTLS, "220 go\r\n", offer, "235 ok\r\n", BYE]);
    assert_eq!((said[4].starts_with("AUTH PLAIN "), failure), (true, None));
}

#[test]
fn a_secret_is_never_shown() {
    let spec = auth(None, AuthOver::Anything);
    let (mut dialogue, _) = Dialogue::new(&spec, Some(credential()), 0);
    dialogue.reply(&reply("220 x\r\n"));
    let turn = dialogue.reply(&reply("250-m\r\n250 AUTH PLAIN\r\n"));
    assert!(format!("{turn:?}").contains("AUTH PLAIN …") && !format!("{turn:?}").contains("AHRpbQ"));
    let echo = reply("535 bad AUTH PLAIN AHRpbQB0YW5zdGFhZg==\r\n");
    dialogue.reply(&echo);
    assert!(!format!("{dialogue:?}").contains("AHRpbQ") && !format!("{dialogue:?}").contains("tanstaaf"));
    assert_eq!(dialogue.shown(vec!["250 tanstaaf".to_owned()]), ["(the server repeats the password)"]);
    assert_eq!(dialogue.finish().0.unwrap_err().text, "(the server repeats the password)");
}

/// Specs with every step there or not.
fn specs() -> impl Strategy<Value = SmtpSpec> {
    let name = prop_oneof![3 => Just("a.example".to_owned()), 1 => "\\PC*", 1 => "[a-z\r\n ]{0,300}"];
    let mailbox =
        || prop_oneof![3 => Just("a@example.com".to_owned()), 1 => "\\PC{0,20}", 1 => "[a@\r\n<> ]{0,300}"];
    let mode = prop_oneof![
        Just(None),
        Just(Some(TlsMode::Implicit)),
        Just(Some(TlsMode::Required)),
        Just(Some(TlsMode::Opportunistic))
    ];
    let mechanism = prop_oneof![Just(None), Just(Some(Mechanism::Plain)), Just(Some(Mechanism::Login))];
    let over = prop_oneof![Just(AuthOver::Tls), Just(AuthOver::Anything)];
    (
        name,
        mode,
        prop::option::of((mechanism, over)),
        prop::option::of((mailbox(), prop::option::of(mailbox()), prop::option::of(mailbox()))),
        prop::option::of((mailbox(), mailbox())),
    )
        .prop_map(|(ehlo_name, mode, auth, mail, data)| SmtpSpec {
            ehlo_name,
            tls: mode.map(|mode| Box::new(TlsSpec { mode, ..TlsSpec::default() })),
            auth: auth.map(|(mechanism, over)| {
                Box::new(AuthSpec { from: "/nowhere".into(), mechanism, over, timeout: SECOND })
            }),
            mail: mail
                .map(|(from, accept, refuse)| Box::new(MailSpec { from, accept, refuse, timeout: SECOND })),
            data: data.map(|(from, to)| Box::new(DataSpec { from, to, timeout: SECOND, text: None })),
            ..SmtpSpec::default()
        })
}

/// Replies that get far more often than noise does.
fn answers() -> impl Strategy<Value = Vec<String>> {
    let good = prop::sample::select(vec![220u16, 221, 235, 250, 250, 250, 251, 334, 354, 550]);
    let code = prop_oneof![8 => good, 1 => 200u16..600];
    let offer = prop_oneof![
        3 => code.prop_map(|code| format!("{code} x\r\n")),
        1 => Just("250-m\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n".to_owned()),
    ];
    prop::collection::vec(offer, 1..30)
}

proptest! {
    #[test]
    fn nothing_illegal_is_ever_said(spec in specs(), answers in answers(), trusted: bool) {
        let judged = if trusted { Judged::Good } else { Judged::Bad(Reason::CertificateName, String::new()) };
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        let (said, failure, _) = talk_tls(&spec, &judged, &answers);
        let is_message = |line: &String| line.starts_with("Date: ");
        for line in said.iter().filter(|line| !is_message(line)) {
            prop_assert!(line.len() <= 510 && line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()), "{line}");
        }
        for line in said.iter().filter(|line| is_message(line)) {
            prop_assert!(line.ends_with("\r\n.") && !line.contains("\r\n.\r\n") && !line.replace("\r\n", "").contains(['\r', '\n']));
        }
        // Every conversation ends by itself, QUIT is the last word, TLS begins at most once.
        prop_assert!(said.len() <= 18);
        prop_assert!(said.iter().rev().skip(1).all(|line| line != "QUIT"));
        prop_assert!(said.iter().filter(|line| *line == "(TLS)").count() <= 1);
        // A message follows DATA only, and DATA only what was asked for.
        let data = said.iter().position(|line| line == "DATA");
        prop_assert!(data.is_none() || spec.data.is_some());
        prop_assert_eq!(said.iter().position(is_message).is_some_and(|at| Some(at - 1) != data), false);
        // A password is said only inside TLS, unless told.
        if spec.auth.as_ref().is_some_and(|auth| auth.over == AuthOver::Tls) {
            let tls = said.iter().position(|line| line == "(TLS)").unwrap_or(usize::MAX);
            let auth = said.iter().position(|line| line.starts_with("AUTH"));
            prop_assert!(auth.is_none_or(|at| at > tls));
        }
        // What ran out of replies is not a success yet.
        if said.last().is_some_and(|line| line != "QUIT") {
            prop_assert!(failure.is_none() || said.last().is_some_and(|line| line == "*"));
        }
    }
}
