//! TLS: servers that have it, that break it, and those in the middle.

use std::path::PathBuf;
use std::sync::Arc;

use checks::smtp::MailSpec;
use checks::tls::{TlsMode, TlsSpec, TlsVersion, Verify};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::scratch::Folder;

const NAME: &str = "mail.example.com";
const STARTTLS: &[u8] = b"250-mail.example.com\r\n250 STARTTLS\r\n";
/// A server that is ready for TLS.
const GRANTED: [&[u8]; 3] = [b"220 x\r\n", STARTTLS, b"220 go\r\n"];
const BYE: &[u8] = b"221 2.0.0 Bye\r\n";

/// A self-signed certificate for [`NAME`] until the start of a year.
struct Identity {
    config: Arc<ServerConfig>,
    pem: String,
    der: Vec<u8>,
}

fn identity(until: i32) -> Identity {
    identity_with(until, rustls::DEFAULT_VERSIONS)
}

fn identity_with(until: i32, versions: &[&'static rustls::SupportedProtocolVersion]) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Identity { config: Arc::new(config), pem: certificate.pem(), der: certificate.der().to_vec() }
}

fn with_tls(target: SocketAddr, deadline: Duration, tls: TlsSpec) -> CheckSpec {
    let mut spec = smtp(target, deadline);
    if let Kind::Smtp(smtp) = &mut spec.kind {
        smtp.tls = Some(Box::new(tls));
    }
    spec
}

fn tls(mode: TlsMode, verify: Verify) -> TlsSpec {
    TlsSpec { mode, verify, timeout: Duration::from_secs(60), ..TlsSpec::default() }
}

/// A server that speaks `plain` in the clear, then `inside` in TLS. What it heard inside TLS, and whether the client
/// ended with close_notify.
async fn tls_server(
    config: &Arc<ServerConfig>,
    plain: &[&[u8]],
    inside: &[&[u8]],
) -> (SocketAddr, tokio::sync::oneshot::Receiver<(Vec<String>, bool)>) {
    let (heard, result) = tokio::sync::oneshot::channel();
    let own = |says: &[&[u8]]| says.iter().map(|text| text.to_vec()).collect::<Vec<_>>();
    let (plain, inside, acceptor) = (own(plain), own(inside), TlsAcceptor::from(Arc::clone(config)));
    let address = server(move |mut stream| async move {
        for (index, text) in plain.iter().enumerate() {
            if index > 0 {
                line(&mut stream).await;
            }
            stream.write_all(text).await.unwrap();
        }
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut lines = Vec::new();
        for (index, text) in inside.iter().enumerate() {
            if index > 0 || !plain.is_empty() {
                lines.push(line(&mut stream).await);
            }
            stream.write_all(text).await.unwrap();
            stream.flush().await.unwrap();
        }
        // An end without close_notify is an error of the stream.
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest).await;
        let _ = heard.send((lines, end.is_ok() && rest.is_empty()));
    })
    .await;
    (address, result)
}

fn ca_file(folder: &Folder, identity: &Identity) -> PathBuf {
    folder.file(&identity.pem)
}

#[tokio::test]
async fn everything_after_starttls_is_inside_tls_and_ends_with_close_notify() {
    let server = identity(2100);
    for mode in [TlsMode::Required, TlsMode::Opportunistic] {
        let inside: &[&[u8]] =
            &[b"250-m\r\n250 SIZE 9\r\n", b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", BYE];
        let (address, heard) = tls_server(&server.config, &GRANTED, inside).await;
        let mut spec = with_tls(address, LONG, tls(mode, Verify::None));
        if let Kind::Smtp(smtp) = &mut spec.kind {
            let (from, accept) = (String::new(), Some("postmaster".to_owned()));
            smtp.mail = Some(Box::new(MailSpec { from, accept, refuse: None, timeout: LONG }));
        }
        let (outcome, failure) = verdict(&spec).await;
        assert_eq!(failure, None);
        let (lines, closed) = heard.await.unwrap();
        assert_eq!(lines, [EHLO, "MAIL FROM:<>\r\n", "RCPT TO:<postmaster>\r\n", "RSET\r\n", "QUIT\r\n"]);
        assert!(closed, "close_notify");
        let wanted = ["connect", "banner", "ehlo", "starttls", "tls", "ehlo", "mail", "rcpt", "rset", "quit"];
        assert_eq!(stages(&outcome).iter().map(|stage| stage.name()).collect::<Vec<_>>(), wanted);
        assert_eq!(outcome.capabilities, ["SIZE 9"], "those of the second EHLO");
        let report = outcome.tls.unwrap();
        assert_eq!((report.version.as_str(), report.verified, report.problem), ("TLSv1.3", false, None));
        assert!(report.cipher.starts_with("TLS13_"), "{}", report.cipher);
        assert_eq!(report.not_after, Some(4_102_444_800));
        assert!(report.days_left.unwrap() > 20_000);
    }
}

#[tokio::test]
async fn implicit_tls_begins_with_the_first_byte() {
    let server = identity(2100);
    let (address, heard) = tls_server(&server.config, &[], &[b"220 x\r\n", b"250 m\r\n", BYE]).await;
    let (outcome, failure) = verdict(&with_tls(address, LONG, tls(TlsMode::Implicit, Verify::None))).await;
    assert_eq!(failure, None);
    assert_eq!(heard.await.unwrap(), (vec![EHLO.to_owned(), "QUIT\r\n".to_owned()], true));
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Tls, Stage::Banner, Stage::Ehlo, Stage::Quit]);
}

#[tokio::test]
async fn a_certificate_is_worth_what_was_asked_of_it() {
    let folder = Folder::new("trust");
    let (good, other, expired) = (identity(2100), identity(2100), identity(2002));
    let pin = |identity: &Identity| Verify::Pinned(vec![[0; 32], sha256(&identity.der)]);
    let key = checks::tls::certificate::facts(&good.der).unwrap().public_key;
    let name = |name: &str| Some(name.to_owned());
    use Reason::{CertificateExpired, CertificateName, CertificatePin, CertificateUntrusted};
    for (server, trusted, verify, asked, expected) in [
        (&good, &good, Verify::Chain, None, None),
        (&good, &good, Verify::Chain, name("elsewhere.example"), None),
        (&good, &good, Verify::Name, name(NAME), None),
        (&good, &good, Verify::Name, name("elsewhere.example"), Some(CertificateName)),
        (&good, &good, Verify::Name, None, Some(CertificateName)),
        (&good, &other, Verify::Chain, None, Some(CertificateUntrusted)),
        (&good, &other, Verify::Name, name(NAME), Some(CertificateUntrusted)),
        (&expired, &expired, Verify::Chain, None, Some(CertificateExpired)),
        (&expired, &good, Verify::Name, name(NAME), Some(CertificateExpired)),
        (&expired, &expired, Verify::None, None, None),
        (&expired, &good, pin(&expired), None, None),
        (&good, &good, pin(&other), None, Some(CertificatePin)),
        (&good, &other, Verify::Pinned(vec![sha256(key)]), None, None),
    ] {
        let ca_file = ca_file(&folder, trusted);
        for mode in [TlsMode::Required, TlsMode::Opportunistic, TlsMode::Implicit] {
            let what = format!("{verify:?} {asked:?} {mode:?}");
            let bad = expected.is_some() && mode != TlsMode::Opportunistic;
            let (plain, inside): (&[&[u8]], &[&[u8]]) = match (mode, bad) {
                (TlsMode::Implicit, true) => (&[], &[b"220 x\r\n", BYE]),
                (TlsMode::Implicit, false) => (&[], &[b"220 x\r\n", b"250 m\r\n", BYE]),
                (_, true) => (&GRANTED, &[BYE]),
                (_, false) => (&GRANTED, &[b"250 m\r\n", BYE]),
            };
            let (address, heard) = tls_server(&server.config, plain, inside).await;
            let tls = TlsSpec { name: asked.clone(), ca_file: ca_file.clone(), ..tls(mode, verify.clone()) };
            let (outcome, failure) = verdict(&with_tls(address, LONG, tls)).await;
            let wanted = if bad { expected.map(|reason| (Stage::Tls, reason, None)) } else { None };
            assert_eq!(failure, wanted, "{what}");
            let (lines, closed) = heard.await.unwrap();
            assert_eq!((lines.last().map(String::as_str), closed), (Some("QUIT\r\n"), true), "{what}");
            let report = outcome.tls.unwrap();
            assert_eq!(report.verified, expected.is_none() && verify != Verify::None, "{what}");
            assert_eq!(report.problem.is_some(), expected.is_some(), "{what}");
            assert_eq!(report.days_left.unwrap() < 0, std::ptr::eq(server, &expired), "{what}");
        }
    }
}

/// SHA-256, from the provider that the tests have anyway.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suites = rustls::crypto::ring::default_provider().cipher_suites;
    let hash = suites
        .iter()
        .filter_map(rustls::SupportedCipherSuite::tls13)
        .map(|suite| suite.common.hash_provider)
        .find(|hash| hash.output_len() == 32)
        .unwrap();
    hash.hash(bytes).as_ref().try_into().unwrap()
}

#[tokio::test]
async fn a_version_that_is_too_old_is_told_apart() {
    let old = identity_with(2100, &[&rustls::version::TLS12]);
    let (address, heard) = tls_server(&old.config, &[], &[b"220 x\r\n", b"250 m\r\n", BYE]).await;
    let (outcome, failure) = verdict(&with_tls(address, LONG, tls(TlsMode::Implicit, Verify::None))).await;
    assert_eq!((failure, outcome.tls.unwrap().version), (None, "TLSv1.2".to_owned()));
    assert!(heard.await.unwrap().1);
    let (address, _) = tls_server(&old.config, &[], &[]).await;
    let modern = TlsSpec { minimum: TlsVersion::V13, ..tls(TlsMode::Implicit, Verify::None) };
    let failure = verdict(&with_tls(address, LONG, modern)).await.1;
    assert_eq!(failure, Some((Stage::Tls, Reason::TlsVersion, None)));
}

#[tokio::test]
async fn plain_text_before_the_handshake_is_an_attack() {
    for injected in [&b"220 go\r\n250 injected\r\n"[..], b"220 go\r\nx", b"220 go\r\n\x16\x03\x03\0\x05"] {
        let (address, heard) = script(&[b"220 x\r\n", STARTTLS, injected], End::Silence).await;
        let failure = verdict(&with_tls(address, LONG, tls(TlsMode::Required, Verify::None))).await.1;
        assert_eq!(failure, Some((Stage::Tls, Reason::Injected, None)));
        assert_eq!(heard.await.unwrap(), [EHLO, "STARTTLS\r\n"], "nothing is said to it");
    }
}

#[tokio::test]
async fn what_is_not_tls_fails_the_handshake() {
    for says in [&b"250 plain\r\n"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0xff; 20_000]] {
        // It speaks when the handshake has begun.
        let address = server(move |mut stream| async move {
            for (index, text) in GRANTED.iter().enumerate() {
                if index > 0 {
                    line(&mut stream).await;
                }
                stream.write_all(text).await.unwrap();
            }
            stream.read_u8().await.unwrap();
            let _ = stream.write_all(says).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await;
        let failure = verdict(&with_tls(address, LONG, tls(TlsMode::Required, Verify::None))).await.1;
        assert_eq!(failure, Some((Stage::Tls, Reason::TlsFailed, None)));
    }
    // A server that speaks plain text on the port of implicit TLS.
    let (address, _) = script(&[b"220 x\r\n"], End::Silence).await;
    let (outcome, failure) = verdict(&with_tls(address, LONG, tls(TlsMode::Implicit, Verify::None))).await;
    assert_eq!(failure, Some((Stage::Tls, Reason::TlsFailed, None)));
    assert_eq!(outcome.verdict.unwrap_err().text, "what the server says is not TLS");
    // A server that waits for TLS where plain text is spoken: each waits for the other.
    let server = identity(2100);
    let (address, _) = tls_server(&server.config, &[], &[b"220 x\r\n"]).await;
    assert_eq!(verdict(&smtp(address, SHORT)).await.1, Some((Stage::Banner, Reason::Timeout, None)));
    for (end, reason) in [(End::Eof, Reason::Closed), (End::Rst, Reason::Reset)] {
        let (address, _) = script(&GRANTED, end).await;
        let failure = verdict(&with_tls(address, LONG, tls(TlsMode::Required, Verify::None))).await.1;
        assert_eq!(failure, Some((Stage::Tls, reason, None)));
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_keeps_the_deadline() {
    let (address, _) = script(&GRANTED, End::Silence).await;
    let (outcome, failure) = verdict(&with_tls(address, SHORT, tls(TlsMode::Required, Verify::None))).await;
    assert_eq!(failure, Some((Stage::Tls, Reason::Timeout, None)));
    assert!(outcome.took >= SHORT);
    let (address, _) = script(&GRANTED, End::Silence).await;
    let own = TlsSpec { timeout: SHORT, ..tls(TlsMode::Required, Verify::None) };
    assert_eq!(verdict(&with_tls(address, LONG, own)).await.1, Some((Stage::Tls, Reason::Timeout, None)));
    // A byte of a ServerHello now and then.
    let address = server(|mut stream| async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for byte in [0x16, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xf0].into_iter().chain(std::iter::repeat(3)) {
            tick.tick().await;
            if stream.write_u8(byte).await.is_err() {
                break;
            }
        }
    })
    .await;
    let failure = verdict(&with_tls(address, SHORT, tls(TlsMode::Implicit, Verify::None))).await.1;
    assert_eq!(failure, Some((Stage::Tls, Reason::Timeout, None)));
}

#[tokio::test]
async fn hostile_replies_inside_tls_are_as_bounded_as_outside() {
    let server = identity(2100);
    let endless = b"250-x\r\n".repeat(50_000);
    for (inside, reason) in [(&endless[..], Reason::TooLong), (b"HTTP/1.1 200\r\n", Reason::Protocol)] {
        let acceptor = TlsAcceptor::from(Arc::clone(&server.config));
        let inside = inside.to_vec();
        let address = self::server(move |stream| async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.write_all(b"220 x\r\n").await.unwrap();
            line(&mut stream).await;
            let _ = stream.write_all(&inside).await;
            let _ = stream.flush().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await;
        let failure = verdict(&with_tls(address, LONG, tls(TlsMode::Implicit, Verify::None))).await.1;
        assert_eq!(failure, Some((Stage::Ehlo, reason, None)));
    }
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_disturbs_no_server() {
    let folder = Folder::new("no-ca");
    // Nobody listens: a check that connects would say so.
    let address = "127.0.0.1:1".parse().unwrap();
    for ca_file in ["/nonexistent/ca.pem".into(), folder.file("no certificate"), folder.path().to_owned()] {
        let tls = TlsSpec { ca_file, ..tls(TlsMode::Required, Verify::Chain) };
        let (outcome, failure) = verdict(&with_tls(address, LONG, tls)).await;
        assert_eq!(failure, Some((Stage::Tls, Reason::Local, None)));
        assert!(!outcome.verdict.unwrap_err().text.is_empty());
    }
}
