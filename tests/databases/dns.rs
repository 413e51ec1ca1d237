//! Real NSD.

use std::fmt::Write as _;
use std::process::Command;

use checks::dns::{DnsSpec, Query};
use checks::{Kind, Reason, Stage, Transport};

use super::{Server, pattern, stages};

fn nsd(name: &str) -> Server {
    let mut server = Server::prepare(name);
    let mut zone = "$TTL 60\n\
        @ SOA ns.example.com. root.example.com. 7 3600 600 86400 60\n@ NS ns\n@ MX 10 mail\n@ TXT \"v=spf1 -all\"\n\
        ns A 192.0.2.53\nmail A 192.0.2.25\nmail AAAA 2001:db8::25\nalias CNAME mail\n"
        .to_owned();
    // More than a datagram without EDNS has room for.
    for number in 0..60 {
        writeln!(zone, "many A 192.0.2.{number}").unwrap();
    }
    server.write("example.com", &zone);
    server.write("reverse", "$TTL 60\n@ SOA ns.example.com. root.example.com. 1 1 1 1 1\n@ NS ns.example.com.\n25 PTR mail.example.com.\n");
    let (address, folder) = (server.address, server.folder.path().display());
    let configuration = format!(
        "server:\n ip-address: 127.0.0.90@{port}\n username: root\n chroot: \"\"\n zonesdir: {folder}\n \
         database: \"\"\n pidfile: {folder}/pid\n xfrdfile: {folder}/xfrd\n zonelistfile: {folder}/zones\n \
         xfrdir: {folder}\n cookie-secret-file: {folder}/cookie\n server-count: 1\n\
         remote-control:\n control-enable: no\n\
         zone:\n name: example.com\n zonefile: example.com\n\
         zone:\n name: 2.0.192.in-addr.arpa\n zonefile: reverse\n\
         zone:\n name: broken.example\n zonefile: is-not-there\n",
        port = address.port()
    );
    let configuration = server.write("nsd.conf", &configuration);
    server.start(Command::new("/usr/sbin/nsd").args(["-d", "-c", &configuration]));
    server
}

fn ask(name: &str, query: Query) -> DnsSpec {
    DnsSpec { name: name.to_owned(), query, ..DnsSpec::default() }
}

fn kind(spec: DnsSpec) -> Kind {
    Kind::Dns(Box::new(spec))
}

#[tokio::test]
#[ignore = "needs root and nsd: tests/run"]
async fn a_name_has_the_records_that_are_asked_for() {
    let server = nsd("dns-well");
    server.until_well(&kind(ask("mail.example.com", Query::A))).await;
    for (name, query, text) in [
        ("MAIL.example.com.", Query::A, "192.0.2.25"),
        ("alias.example.com", Query::A, "192.0.2.25"),
        ("mail.example.com", Query::Aaaa, "2001:db8::25"),
        ("example.com", Query::Mx, "10 mail.example.com"),
        ("example.com", Query::Txt, "v=spf1 -all"),
        ("example.com", Query::Soa, "ns.example.com root.example.com 7 3600 600 86400 60"),
        ("192.0.2.25", Query::Ptr, "mail.example.com"),
    ] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let spec = DnsSpec { transport, receive: pattern("^[^ ]"), ..ask(name, query) };
            let outcome = server.check(&kind(spec)).await;
            assert_eq!(outcome.verdict, Ok(()), "{name} {query:?} {transport:?}");
            let request = outcome.stages.iter().find(|report| report.stage == Stage::Request).unwrap();
            assert_eq!((request.code, request.received.as_slice()), (Some(0), &[text.to_owned()][..]));
        }
    }
    let outcome = server.check(&kind(ask("many.example.com", Query::A))).await;
    assert_eq!(outcome.verdict, Ok(()));
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Request, Stage::Quit], "truncated, so over TCP");
}

#[tokio::test]
#[ignore = "needs root and nsd: tests/run"]
async fn a_name_server_that_does_not_know_or_hangs_is_not_well() {
    let mut server = nsd("dns-ill");
    let well = kind(ask("mail.example.com", Query::A));
    server.until_well(&well).await;
    for (name, query, reason, code) in [
        ("gone.example.com", Query::A, Reason::Unexpected, 3),
        ("mail.example.com", Query::Mx, Reason::Unexpected, 0),
        ("mail.example.net", Query::A, Reason::Permfail, 5),
        ("www.broken.example", Query::A, Reason::Tempfail, 2),
    ] {
        for transport in [Transport::Udp, Transport::Tcp] {
            let spec = kind(DnsSpec { transport, ..ask(name, query) });
            assert_eq!(server.failure(&spec).await, (Stage::Request, reason, Some(code)), "{name}");
        }
    }
    let other = DnsSpec { receive: pattern("^192[.]0[.]2[.]26$"), ..ask("mail.example.com", Query::A) };
    assert_eq!(server.failure(&kind(other)).await, (Stage::Request, Reason::Mismatch, Some(0)));
    assert_eq!(server.silence(&well).await, (Stage::Request, Reason::Timeout));
    server.stop();
    assert_eq!(server.failure(&well).await, (Stage::Connect, Reason::Refused, None));
}
