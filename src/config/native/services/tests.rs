use std::net::SocketAddr;

use checks::credential::{Credential, Login};
use checks::smtp::{AuthOver, SmtpSpec};
use checks::tls::{TlsMode, Verify};

use super::super::lower;
use super::*;
use crate::config::{CheckPlan, Config, Diagnostic};
use crate::model::Weight;

/// A farm of two servers whose virtual begins with these lines.
fn farm(lines: &str) -> Result<Config, Vec<Diagnostic>> {
    let address = if lines.contains("fwmark") { "" } else { "address = \"192.0.2.25:80\"" };
    let real = "[[virtual.real]]\naddress = \"10.0.0.11-10.0.0.12\"\n";
    lower(&format!("[[virtual]]\n{address}\n{lines}\n{real}"), &[], "d.example.com")
}

fn plan(lines: &str) -> CheckPlan {
    let mut config = farm(lines).unwrap_or_else(|problems| panic!("{lines}\n{problems:#?}"));
    config.virtuals.remove(0).reals.remove(0).checks.remove(0)
}

fn kind(lines: &str) -> Kind {
    plan(lines).spec.kind
}

fn problems(lines: &str) -> Vec<String> {
    farm(lines).err().unwrap_or_default().into_iter().map(|problem| problem.message).collect()
}

fn http(target: &str) -> HttpSpec {
    HttpSpec { tls: None, method: Method::Get, target: target.to_owned(), host: None, receive: None }
}

fn implicit(name: Option<&str>) -> TlsSpec {
    TlsSpec { mode: TlsMode::Implicit, name: name.map(str::to_owned), ..TlsSpec::default() }
}

#[test]
fn pages_are_asked_for() {
    let receive = Some(Pattern::new("well").unwrap());
    for (lines, expected) in [
        ("check.type = \"http\"", http("/")),
        ("check = { type = \"http\", request = \"a?b\" }", http("/a?b")),
        (
            "check = { type = \"https\", host = \"www.example.com:444\", receive = \"well\" }",
            HttpSpec {
                tls: Some(implicit(Some("www.example.com"))),
                host: Some("www.example.com:444".to_owned()),
                receive,
                ..http("/")
            },
        ),
        (
            "check = { type = \"https\", host = \"10.0.0.1\", tls = { verify = \"none\" } }",
            HttpSpec {
                tls: Some(TlsSpec { verify: Verify::None, ..implicit(None) }),
                host: Some("10.0.0.1".to_owned()),
                ..http("/")
            },
        ),
        (
            "check = { type = \"https\", host = \"a.example\", method = \"HEAD\", tls.name = \"b.example\" }",
            HttpSpec {
                tls: Some(implicit(Some("b.example"))),
                method: Method::Head,
                host: Some("a.example".to_owned()),
                ..http("/")
            },
        ),
        (
            "check = { type = \"http_proxy\", host = \"www.example.com\", request = \"x\" }",
            http("http://www.example.com/x"),
        ),
        ("check = { type = \"http_proxy\", request = \"http://a.example/x\" }", http("http://a.example/x")),
    ] {
        assert_eq!(kind(lines), Kind::Http(Box::new(expected)), "{lines}");
    }
}

#[test]
fn servers_that_speak_in_lines_are_spoken_to() {
    let line = |protocol| LineSpec { protocol, tls: None, login: None, fetch: None };
    let login = |over| Some(LoginSpec { from: "/a".into(), over });
    let fetch = Some(FetchSpec { path: "f".to_owned(), receive: Some(Pattern::new("x").unwrap()) });
    for (lines, expected) in [
        ("check.type = \"pop\"", line(Protocol::Pop)),
        ("check.type = \"imap\"", line(Protocol::Imap)),
        ("check.type = \"nntp\"", line(Protocol::Nntp)),
        ("check.type = \"ftp\"", line(Protocol::Ftp)),
        (
            "check = { type = \"pops\", auth.file = \"/a\" }",
            LineSpec { tls: Some(implicit(None)), login: login(AuthOver::Tls), ..line(Protocol::Pop) },
        ),
        (
            "check = { type = \"imaps\", tls = { mode = \"implicit\", name = \"m.example\" } }",
            LineSpec { tls: Some(implicit(Some("m.example"))), ..line(Protocol::Imap) },
        ),
        (
            "check = { type = \"ftp\", request = \"f\", receive = \"x\", auth = { file = \"/a\", without_tls = true } }",
            LineSpec { login: login(AuthOver::Anything), fetch, ..line(Protocol::Ftp) },
        ),
    ] {
        assert_eq!(kind(lines), Kind::Line(Box::new(expected)), "{lines}");
    }
}

#[test]
fn all_other_services_are_asked() {
    let file = |name: &str| Some(name.into());
    let receive = Some(Pattern::new("x").unwrap());
    for (lines, expected) in [
        (
            "check = { type = \"ldaps\", auth.file = \"/a\", request = \"dc=x\", receive = \"x\" }",
            Kind::Ldap(Box::new(LdapSpec {
                tls: Some(implicit(None)),
                login: file("/a"),
                base: "dc=x".to_owned(),
                receive: receive.clone(),
            })),
        ),
        ("check.type = \"ldap\"", Kind::Ldap(Box::default())),
        (
            "protocol = \"udp\"\ncheck = { type = \"dns\", request = \"example.com MX\", receive = \"x\" }",
            Kind::Dns(Box::new(DnsSpec {
                name: "example.com".to_owned(),
                query: Query::Mx,
                transport: Transport::Udp,
                receive,
            })),
        ),
        (
            "check = { type = \"dns\", request = \"192.0.2.1\" }",
            Kind::Dns(Box::new(DnsSpec {
                name: "192.0.2.1".to_owned(),
                query: Query::Ptr,
                transport: Transport::Tcp,
                receive: None,
            })),
        ),
        (
            "check = { type = \"mysql\", auth.file = \"/a\", database = \"d\", request = \"SELECT 1\" }",
            Kind::Mysql(Box::new(SqlSpec {
                tls: None,
                login: file("/a"),
                database: Some("d".to_owned()),
                request: Some("SELECT 1".to_owned()),
            })),
        ),
        (
            "check = { type = \"pgsql\", tls.mode = \"required\" }",
            Kind::Pgsql(Box::new(SqlSpec {
                tls: Some(TlsSpec { mode: TlsMode::Required, ..TlsSpec::default() }),
                ..SqlSpec::default()
            })),
        ),
        (
            "protocol = \"udp\"\ncheck = { type = \"radius\", secret_file = \"/s\", auth.file = \"/a\" }",
            Kind::Radius(Box::new(RadiusSpec { login: file("/a"), secret: "/s".into() })),
        ),
        (
            "check = { type = \"sip\", request = \"tim\" }",
            Kind::Sip(Box::new(SipSpec { transport: Transport::Tcp, user: "tim".to_owned() })),
        ),
        (
            "check = { type = \"simpletcp\", request = 'a\\r\\n' }",
            Kind::SimpleTcp(Box::new(SimpleTcpSpec { request: b"a\r\n".to_vec(), receive: None })),
        ),
        ("protocol = \"udp\"\ncheck.type = \"ping\"", Kind::Ping),
        ("check.type = \"oracle\"", Kind::Connect),
        (
            "check = { type = \"external\", command = \"/c\" }",
            Kind::External(Box::new(ExternalSpec {
                arguments: Vec::new(),
                command: "/c".into(),
                service: "192.0.2.25".to_owned(),
                service_port: Some(80),
            })),
        ),
        (
            "fwmark = 7\ncheck = { type = \"external\", command = \"/c\" }",
            Kind::External(Box::new(ExternalSpec {
                arguments: Vec::new(),
                command: "/c".into(),
                service: "7".to_owned(),
                service_port: None,
            })),
        ),
        ("fwmark = 7\ncheck.type = \"ping\"", Kind::Ping),
    ] {
        assert_eq!(kind(lines), expected, "{lines}");
    }
}

#[test]
fn mail_has_the_names_that_ldirectord_gave_it() {
    let smtp = SmtpSpec { ehlo_name: "d.example.com".into(), ..SmtpSpec::default() };
    assert_eq!(kind("check.type = \"submission\""), Kind::Smtp(smtp.clone()));
    let smtps = SmtpSpec { tls: Some(Box::new(implicit(None))), ..smtp };
    assert_eq!(kind("check.type = \"smtps\""), Kind::Smtp(smtps));
}

#[test]
fn a_server_that_is_off_has_no_check_and_no_weight() {
    let config = farm("weight = 5\ncheck.type = \"off\"").unwrap();
    for real in &config.virtuals[0].reals {
        assert_eq!((&real.checks[..], real.settings.weight), (&[][..], Weight(0)));
    }
}

#[test]
fn connections_between_whole_checks_are_counted() {
    assert_eq!(plan("check = { type = \"pop\", connects_between = 5 }").connects_between, 5);
    assert_eq!(plan("check.connects_between = 5").connects_between, 5);
    assert_eq!(plan("").connects_between, 0);
}

#[test]
fn servers_without_a_tls_table_share_what_is_prepared_for_them() {
    let config = farm("check.type = \"https\"").unwrap();
    let prepared = |index: usize| match &config.virtuals[0].reals[index].checks[0].spec.kind {
        Kind::Http(spec) => spec.tls.clone().unwrap().prepared,
        other => panic!("{other:?}"),
    };
    assert!(prepared(0).is_same(&prepared(1)));
}

#[test]
fn a_layer_of_another_type_is_no_mistake() {
    let text = "check = { tls = { mode = \"required\" }, mail = { accept = \"a@b\" } }\n\
        [[virtual]]\naddress = \"192.0.2.25:443\"\ncheck.type = \"https\"\n\
        [[virtual.real]]\naddress = \"10.0.0.11\"\n";
    let config = lower(text, &[], "d").unwrap();
    let plan = config.virtuals[0].reals[0].checks[0].clone();
    assert_eq!(plan.spec.target, SocketAddr::from(([10, 0, 0, 11], 443)));
    let Kind::Http(spec) = plan.spec.kind else { panic!("{:?}", plan.spec.kind) };
    assert_eq!(spec.tls.unwrap().mode, TlsMode::Implicit);
}

#[test]
fn every_mistake_is_named() {
    for (lines, expected) in [
        (
            "check = { type = \"http\", request = \"http://x/\" }",
            "request: a path such as \"/index.html\"; the server is the one that is checked",
        ),
        (
            "check = { type = \"http\", request = \"a b\" }",
            "request: \"/a b\" is not a path such as \"/index.html\"",
        ),
        (
            "check = { type = \"http\", method = \"HEAD\", receive = \"x\" }",
            "receive: the answer to HEAD has no body; it needs method = \"GET\"",
        ),
        ("check = { type = \"http\", method = \"get\" }", "method: \"get\" is unknown; \"GET\" or \"HEAD\""),
        (
            "check = { type = \"http\", host = \"a b\" }",
            "host: \"a b\" is not a host such as \"www.example.com\" or \"www.example.com:8080\"",
        ),
        (
            "check = { type = \"http_proxy\" }",
            "check: host is missing; a proxy is asked for host = \"www.example.com\", or for a whole request = \
             \"http://www.example.com/\"",
        ),
        (
            "check = { type = \"http\", tls.verify = \"none\" }",
            "tls: is for checks of type \"smtp\", \"submission\", \"smtps\", \"lmtp\", \"https\", \"pops\", \"imaps\", \"ldaps\", \"mysql\" and \"pgsql\" only",
        ),
        (
            "check = { type = \"https\", tls.mode = \"required\" }",
            "mode: \"required\" is not for type \"https\": its TLS begins with the first byte",
        ),
        (
            "check = { type = \"https\", tls.interval = \"60s\" }",
            "interval: is for checks that speak SMTP only",
        ),
        (
            "check = { type = \"mysql\", tls.mode = \"implicit\" }",
            "mode: \"implicit\" is not for type \"mysql\": TLS begins when the server agreed to it",
        ),
        (
            "check = { type = \"ftp\", receive = \"x\" }",
            "receive: needs the file that it looks at: request = \"pub/state.txt\"",
        ),
        (
            "check = { type = \"ftp\", request = \"a\\r\\nDELE b\" }",
            "request: \"a\\r\\nDELE b\" is not a file such as \"pub/state.txt\"",
        ),
        (
            "check.type = \"dns\"",
            "check: request is missing; a name such as \"www.example.com\", with a type of record or not: \"example.com MX\"",
        ),
        (
            "check = { type = \"dns\", request = \"a.example SRV\" }",
            "request: \"a.example SRV\" is not a name such as \"www.example.com\", with a type of record or not: \"example.com MX\"",
        ),
        (
            "check = { type = \"mysql\", request = \"SELECT 1\" }",
            "request: is asked after a login; it needs auth = { file = \"…\" }",
        ),
        (
            "check.type = \"radius\"",
            "check: secret_file is missing; it holds the secret that we share with the server; or write secret",
        ),
        (
            "check = { type = \"sip\", request = \"a b\" }",
            "request: \"a b\" is not a user such as \"postmaster\"",
        ),
        (
            "check = { type = \"simpletcp\", request = '\\x' }",
            "request: \"\\\\x\" has an escape that is unknown; \\n, \\r, \\t and \\\\ are known",
        ),
        ("check.type = \"external\"", "check: command is missing; command = \"/etc/smtp-director/check\""),
        ("check.command = \"/c\"", "command: is for checks of type \"external\" only"),
        ("check = { type = \"ping\", port = 7 }", "port: has no use in checks of type \"ping\""),
        ("check = { type = \"off\", fall = 7 }", "fall: has no use here: type \"off\" is never checked"),
        (
            "check = { type = \"connect\", connects_between = 7 }",
            "connects_between: has no use in checks of type \"connect\"",
        ),
        (
            "check = { type = \"imaps\", auth = { file = \"/a\", mechanism = \"plain\" } }",
            "mechanism: is for checks that speak SMTP only",
        ),
    ] {
        assert_eq!(problems(lines), [expected], "{lines}");
    }
    // What is wrong is not missing too.
    for (lines, key) in [
        ("check = { type = \"external\", command = \"c\" }", "command: "),
        ("check = { type = \"radius\", secret_file = 5 }", "secret_file: "),
        ("check = { type = \"dns\", request = 5 }", "request: "),
        ("check = { type = \"http_proxy\", host = \"a b\" }", "host: "),
        ("check = { type = \"http_proxy\", request = 5 }", "request: "),
        ("check = { type = \"ftp\", request = 5, receive = \"x\" }", "request: "),
    ] {
        let said = problems(lines);
        assert!(said.len() == 1 && said[0].starts_with(key), "{lines}: {said:?}");
    }
    let overheard = "a password is not said without TLS; write type = \"pops\", or auth.without_tls = true";
    let said = problems("check = { type = \"pop\", auth.file = \"/a\" }");
    assert_eq!(said, [format!("type: {overheard}"), format!("auth: {overheard}")]);
}

#[test]
fn secrets_and_arguments_may_be_written_down() {
    let written = |user, password| Login::Written(Credential::new(user, password).unwrap());
    let pop = "check = { type = \"pop\", auth = { user = \"u\", password = \"\", without_tls = true } }";
    let login = Some(LoginSpec { from: written("u", ""), over: AuthOver::Anything });
    assert_eq!(
        kind(pop),
        Kind::Line(Box::new(LineSpec { protocol: Protocol::Pop, tls: None, login, fetch: None }))
    );
    let radius = "protocol = \"udp\"\ncheck = { type = \"radius\", secret = \"s\", auth = { user = \"u\", password = \"p\" } }";
    let spec = RadiusSpec { login: Some(written("u", "p")), secret: Secret::Written("s".to_owned()) };
    assert_eq!(kind(radius), Kind::Radius(Box::new(spec)));
    let Kind::External(spec) =
        kind("check = { type = \"external\", command = [\"/usr/bin/perl\", \"/a b\"] }")
    else {
        panic!("no command");
    };
    assert_eq!((spec.command.to_str(), spec.arguments), (Some("/usr/bin/perl"), vec!["/a b".to_owned()]));
    for (lines, expected) in [
        (
            "check = { type = \"pops\", auth = { file = \"/a\", user = \"u\" } }",
            "user: is in the file already",
        ),
        ("check = { type = \"pops\", auth = { user = \"u\" } }", "user: needs its password"),
        ("check = { type = \"pops\", auth = { password = \"u\" } }", "password: needs its user"),
        (
            "check = { type = \"pops\", auth = { user = \"u\\n\", password = \"p\" } }",
            "user: is no login; user and password are one line each, and short",
        ),
        (
            "check = { type = \"radius\", secret = \"a\\n\" }",
            "secret: this is not the secret that we share with the server, one line",
        ),
        (
            "check = { type = \"radius\", secret = \"a\", secret_file = \"/a\" }",
            "secret: is in the secret_file already",
        ),
        (
            "check = { type = \"external\", command = [\"perl\"] }",
            "command: this does not begin with an absolute path such as \"/etc/smtp-director/check\"",
        ),
    ] {
        assert_eq!(problems(lines), [expected], "{lines}");
    }
}

#[test]
fn a_check_may_go_to_another_address() {
    assert_eq!(plan("check.address = \"10.9.9.9\"").spec.target.to_string(), "10.9.9.9:80");
    let said = problems("check.address = \"10.9.9.9:25\"");
    assert_eq!(
        said,
        ["address: \"10.9.9.9:25\" is not an address such as \"10.0.0.11\" or \"2001:db8::11\""]
    );
}

#[test]
fn what_would_never_be_answered_is_refused() {
    for (lines, expected) in [
        (
            "check = { type = \"dns\", request = \"a..example MX\" }",
            "request: \"a..example MX\" is not a name such as \"www.example.com\", with a type of record or not: \"example.com MX\"",
        ),
        (
            "proxy_protocol = \"v2\"\ncheck.type = \"imap\"",
            "check: proxy_protocol makes the server wait for a header, which a check of type \"imap\" does not send; write \
             check.port, where it waits for none",
        ),
    ] {
        assert_eq!(problems(lines), [expected], "{lines}");
    }
    for lines in ["check.type = \"connect\"", "check = { type = \"imap\", port = 1143 }"] {
        assert_eq!(problems(&format!("proxy_protocol = \"v2\"\n{lines}")), [""; 0], "{lines}");
    }
}
