//! Servers that no honest program is: each kind of check keeps its deadline and its cap on bytes, whatever comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use checks::dns::DnsSpec;
use checks::ldap::LdapSpec;
use checks::radius::RadiusSpec;
use checks::sip::SipSpec;
use checks::sql::SqlSpec;
use checks::tls::{TlsMode, TlsSpec};
use checks::{CheckSpec, Kind, Reason, Stage, Transport};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{LIMIT, Server};

const SHORT: Duration = Duration::from_millis(700);

fn streams() -> [Kind; 5] {
    let name = "mail.example.com".to_owned();
    [
        Kind::Ldap(Box::default()),
        Kind::Mysql(Box::default()),
        Kind::Pgsql(Box::default()),
        Kind::Dns(Box::new(DnsSpec { transport: Transport::Tcp, name, ..DnsSpec::default() })),
        Kind::Sip(Box::new(SipSpec { transport: Transport::Tcp, ..SipSpec::default() })),
    ]
}

fn datagrams(server: &Server) -> [Kind; 3] {
    let name = "mail.example.com".to_owned();
    [
        Kind::Dns(Box::new(DnsSpec { name, ..DnsSpec::default() })),
        Kind::Sip(Box::default()),
        Kind::Radius(Box::new(RadiusSpec {
            login: None,
            secret: server.secret("secret", "shared\n").into(),
        })),
    ]
}

/// Runs a check that must keep its deadline, and says how it failed.
async fn failure(target: SocketAddr, kind: &Kind, deadline: Duration) -> (Stage, Reason) {
    let spec = CheckSpec { target, kind: kind.clone(), deadline, connect_timeout: deadline, via: None };
    let outcome = checks::run(&spec).await;
    // The machine may be busy with other tests.
    assert!(outcome.took < deadline + Duration::from_millis(500), "{kind:?} took {:?}", outcome.took);
    let failure = outcome.verdict.expect_err("not well");
    assert!(failure.text.len() <= checks::smtp::MAX_TEXT && !failure.text.contains(char::is_control));
    (failure.stage, failure.reason)
}

/// A server that does this to each connection.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// One that says `first`, and then `again` without end, and counts its bytes.
async fn endless(first: &'static [u8], again: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let address = server(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            stream.set_nodelay(true).unwrap();
            let _ = stream.write_all(first).await;
            while stream.write_all(again).await.is_ok() {
                count.fetch_add(again.len(), Ordering::Relaxed);
            }
        }
    })
    .await;
    (address, sent)
}

#[tokio::test]
async fn a_server_of_another_kind_or_of_none_is_told_apart_in_time() {
    let silent = server(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let mail = server(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let rude = server(|stream| async move {
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    let gone = server(|mut stream| async move {
        // What it was asked is read, so that this ends without RST.
        let _ = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 4096])).await;
    })
    .await;
    for kind in streams() {
        assert_eq!(failure(silent, &kind, SHORT).await.1, Reason::Timeout, "{kind:?}");
        // A name server's answer begins with its length, and "22" is 12,850 bytes.
        let reason = if matches!(kind, Kind::Dns(_)) { Reason::Timeout } else { Reason::Protocol };
        assert_eq!(failure(mail, &kind, SHORT).await.1, reason, "{kind:?}");
        assert_eq!(failure(gone, &kind, LIMIT).await.1, Reason::Closed, "{kind:?}");
        let reset = failure(rude, &kind, LIMIT).await.1;
        assert!(matches!(reset, Reason::Reset | Reason::Closed), "{kind:?} {reset:?}");
    }
}

#[tokio::test]
async fn a_server_without_an_end_is_cut_off() {
    let name = "mail.example.com".to_owned();
    let tcp = DnsSpec { transport: Transport::Tcp, name, ..DnsSpec::default() };
    let sip = SipSpec { transport: Transport::Tcp, ..SipSpec::default() };
    for (kind, first, again) in [
        // A message of 2 GB, notices of a few bytes, a header without an end, a packet of 16 MB.
        (Kind::Ldap(Box::default()), &b"\x30\x84\x7f\xff\xff\xff"[..], &b"x"[..]),
        (Kind::Pgsql(Box::default()), b"R\x7f\xff\xff\xff", b"x"),
        (Kind::Pgsql(Box::default()), b"", b"N\0\0\0\x10SNOTICE\0M.\0\0"),
        (Kind::Sip(Box::new(sip)), b"SIP/2.0 200 OK\r\n", b"a: b\r\n"),
        (Kind::Mysql(Box::default()), b"\xff\xff\xff\0", b"x"),
        (Kind::Dns(Box::new(tcp)), b"\xff\xff", b"x"),
    ] {
        let (address, sent) = endless(first, again).await;
        assert_eq!(failure(address, &kind, LIMIT).await.1, Reason::TooLong, "{kind:?}");
        // What was read, what was thrown away at the end, and the kernel's buffers.
        assert!(sent.load(Ordering::Relaxed) < 8 << 20, "{kind:?} {sent:?}");
    }
}

#[tokio::test]
async fn a_byte_now_and_then_does_not_stretch_the_deadline() {
    let drip = server(|mut stream| async move {
        // A message of 16 KB.
        for byte in b"\x30\x82\x3f\xff".iter().chain(std::iter::repeat(&b'x')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(failure(drip, &Kind::Ldap(Box::default()), SHORT).await.1, Reason::Timeout);
}

#[tokio::test]
async fn plain_text_before_tls_is_an_attack() {
    let tls =
        Some(TlsSpec { mode: TlsMode::Required, verify: checks::tls::Verify::None, ..TlsSpec::default() });
    let spec = SqlSpec { tls, ..SqlSpec::default() };
    let postgres = server(|mut stream| async move {
        let _ = stream.write_all(b"SR\0\0\0\x08\0\0\0\0").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let kind = Kind::Pgsql(Box::new(spec));
    assert_eq!(failure(postgres, &kind, LIMIT).await, (Stage::Tls, Reason::Injected));
}

#[tokio::test]
async fn a_datagram_that_is_no_answer_is_passed_over_until_there_are_too_many() {
    let folder = Server::prepare("hostile-datagrams");
    for kind in datagrams(&folder) {
        for (flood, expected) in [(0, Reason::Timeout), (1, Reason::Timeout), (100, Reason::Protocol)] {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let serve = tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let (_, client) = socket.recv_from(&mut buffer).await.unwrap();
                for number in 0..flood {
                    let _ = socket.send_to(&[number; 40], client).await;
                }
                // Asked again: a datagram may be lost.
                let again = socket.recv_from(&mut buffer).await;
                again.map(drop).unwrap();
                std::future::pending::<()>().await;
            });
            let failure = failure(address, &kind, SHORT).await;
            assert_eq!(failure, (Stage::Request, expected), "{kind:?} {flood}");
            assert!(!serve.is_finished());
            serve.abort();
        }
    }
}

#[tokio::test]
async fn a_question_is_asked_again_when_its_datagram_is_lost() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        let (first, _) = socket.recv_from(&mut buffer).await.unwrap();
        let lost = buffer[..first].to_vec();
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], lost);
        // NXDOMAIN, with the question.
        buffer[2..4].copy_from_slice(&[0x81, 0x83]);
        socket.send_to(&buffer[..length], client).await.unwrap();
    });
    let spec = DnsSpec { name: "mail.example.com".to_owned(), ..DnsSpec::default() };
    let failure = failure(address, &Kind::Dns(Box::new(spec)), LIMIT).await;
    assert_eq!(failure, (Stage::Request, Reason::Unexpected));
}

#[tokio::test]
async fn a_file_that_others_can_read_disturbs_no_server() {
    let folder = Server::prepare("hostile-files");
    let open = std::path::PathBuf::from(folder.write("open", "user:password\n"));
    std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let sql = SqlSpec { login: Some(open.clone().into()), ..SqlSpec::default() };
    for kind in [
        Kind::Mysql(Box::new(sql.clone())),
        Kind::Pgsql(Box::new(sql)),
        Kind::Ldap(Box::new(LdapSpec { login: Some(open.clone().into()), ..LdapSpec::default() })),
        Kind::Radius(Box::new(RadiusSpec { login: None, secret: open.into() })),
    ] {
        assert_eq!(failure(address, &kind, LIMIT).await, (Stage::Auth, Reason::Local), "{kind:?}");
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err());
}
