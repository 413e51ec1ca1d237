//! The agent and those who ask it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postfix::report::QueueReport;
use postfix::report::agent::parse;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Socket, Type};

use super::instance::{DISCARD, Instance, LATER};
use super::spool::{Spool, long_id};
use super::{LIMIT, Running, free_port, program, wait_until};

/// A running `serve`, whose log is a file.
pub(crate) struct Agent {
    pub(crate) address: SocketAddr,
    log: std::path::PathBuf,
    process: Running,
}

impl Agent {
    pub(crate) fn start(folder: &Path, config: &Path, arguments: &[&str]) -> Self {
        let (address, log) = (free_port(2), folder.join("agent.log"));
        let process = Running::start(
            Command::new(program())
                .args(["serve", "--listen", &address.to_string(), "-c"])
                .arg(config)
                .args(arguments)
                .stderr(File::create(&log).unwrap()),
        );
        let agent = Self { address, log, process };
        wait_until(LIMIT, "the agent listens", || agent.log().contains("listens on"));
        agent
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Connects from an address of loopback.
    fn connect(&self, from: [u8; 4]) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(IpAddr::from(from), 0).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// The line, read to the end of the connection.
    pub(super) fn line(&self) -> String {
        hear(self.connect([127, 0, 0, 1]))
    }

    pub(super) fn ask(&self) -> QueueReport {
        let line = self.line();
        parse(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line:?}")).report.unwrap()
    }
}

/// All that comes until the end, be it a reset.
fn hear(mut stream: TcpStream) -> String {
    let mut heard = Vec::new();
    if let Err(error) = stream.read_to_end(&mut heard) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the agent keeps an asker waiting");
    }
    String::from_utf8(heard).unwrap()
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn every_message_that_leaves_is_counted_however_fast_it_goes() {
    let instance = Instance::start("done", DISCARD, "");
    let agent = Agent::start(instance.folder(), &instance.config(), &[]);
    wait_until(LIMIT, "counting began", || agent.ask().done == Some(0));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(instance.send(200));
    instance.await_queue("active", 0);
    instance.await_queue("incoming", 0);
    wait_until(LIMIT, "all are counted", || agent.ask().done >= Some(200));
    let found = agent.ask();
    assert_eq!(found.done, Some(200), "and none twice");
    assert!(found.rate.unwrap().0 > 0 && found.counted.unwrap() > 0, "{found:?}");
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn a_message_that_must_be_tried_again_is_not_done() {
    let instance = Instance::start("not-done", LATER, "");
    let agent = Agent::start(instance.folder(), &instance.config(), &[]);
    wait_until(LIMIT, "counting began", || agent.ask().done == Some(0));
    tokio::runtime::Runtime::new().unwrap().block_on(instance.send(3));
    instance.await_queue("deferred", 3);
    instance.run("postqueue", &["-f"]);
    wait_until(LIMIT, "they were tried again", || instance.log().matches("status=deferred").count() >= 6);
    instance.await_queue("deferred", 3);
    wait_until(LIMIT, "a fresh look", || agent.ask().deferred == Some(3));
    assert_eq!(agent.ask().done, Some(0));
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn counting_begins_again_where_a_message_may_have_been_missed() {
    let spool = Spool::new("recount");
    let agent = Agent::start(spool.folder(), &spool.config(), &[]);
    let leaves = || {
        let message = spool.queue("active").join(long_id(0, 7));
        fs::write(&message, "").unwrap();
        fs::remove_file(message).unwrap();
    };
    wait_until(LIMIT, "counting began", || agent.ask().done == Some(0));
    leaves();
    wait_until(LIMIT, "one is counted", || agent.ask().done == Some(1));
    fs::remove_dir(spool.queue("active")).unwrap();
    fs::create_dir(spool.queue("active")).unwrap();
    wait_until(LIMIT, "it begins again", || agent.ask().done == Some(0));
    leaves();
    wait_until(LIMIT, "and counts", || agent.ask().done == Some(1));
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
#[expect(clippy::disallowed_methods, reason = "measures how often it looks")]
fn askers_at_the_same_time_share_a_look_that_is_a_second_old_at_most() {
    let spool = Spool::new("share");
    let agent = Agent::start(spool.folder(), &spool.config(), &[]);
    wait_until(LIMIT, "counting began", || agent.ask().counted.is_some());
    // When a look was made is what it says of the counting.
    let made = |looks: &[QueueReport]| looks.iter().map(|look| look.counted).collect::<BTreeSet<_>>().len();
    let looks: Vec<_> = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..50).map(|_| scope.spawn(|| agent.ask())).collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    assert!(made(&looks) <= 3, "50 askers, {} looks", made(&looks));
    let start = Instant::now();
    let after: Vec<_> = (0..50).map(|_| agent.ask()).collect();
    let seconds = usize::try_from(start.elapsed().as_secs()).unwrap();
    assert!(made(&after) <= seconds + 3, "50 questions, {} looks in {seconds} s", made(&after));
    assert!(looks.iter().all(|look| look.age.unwrap() <= 1500), "{looks:?}");
    spool.add("incoming", 1, 0);
    wait_until(Duration::from_secs(5), "it is seen", || agent.ask().incoming == Some(1));
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn an_asker_that_is_not_allowed_gets_nothing_and_one_line_in_the_log() {
    let spool = Spool::new("refuse");
    let allow = ["--allow", "127.0.0.1", "--allow", "127.8.0.0/16"];
    let agent = Agent::start(spool.folder(), &spool.config(), &allow);
    for _ in 0..100 {
        assert_eq!(hear(agent.connect([127, 0, 0, 9])), "");
    }
    for from in [[127, 0, 0, 1], [127, 8, 1, 2]] {
        assert!(hear(agent.connect(from)).starts_with("up "));
    }
    let log = agent.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("refused")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("the last from 127.0.0.9"), "{log}");
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn whatever_an_asker_says_it_gets_the_line_and_is_cut() {
    let spool = Spool::new("chatter");
    let agent = Agent::start(spool.folder(), &spool.config(), &[]);
    for said in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "EHLO x\r\n", "\u{16}\u{3}\u{1}\0\u{5}hello", "\0"] {
        let mut stream = agent.connect([127, 0, 0, 1]);
        stream.write_all(said.as_bytes()).unwrap();
        let line = hear(stream);
        assert!(parse(line.as_bytes()).unwrap().report.is_some(), "{said:?}: {line:?}");
    }
    // One that never stops is cut.
    let mut stream = agent.connect([127, 0, 0, 1]);
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    let error = loop {
        if let Err(error) = stream.write_all(&[b'x'; 65536]) {
            break error;
        }
    };
    assert!(
        matches!(error.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe),
        "{error}"
    );
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn hundreds_of_silent_askers_hold_up_nobody() {
    let spool = Spool::new("crowd");
    let agent = Agent::start(spool.folder(), &spool.config(), &[]);
    let open = || fs::read_dir(format!("/proc/{}/fd", agent.process.0.id())).unwrap().count();
    let (before, mut most) = (open(), 0);
    let connect = |_| {
        most = most.max(open());
        agent.connect([127, 0, 0, 1])
    };
    let crowd: Vec<_> = (0..700).map(connect).collect();
    assert!(most <= 2 * 64 + 32, "{most} descriptors");
    assert!(agent.line().starts_with("up "));
    // All of them were answered, though none of them did anything, and none can hold on to its connection.
    for stream in &crowd {
        assert!(hear(stream.try_clone().unwrap()).starts_with("up "));
    }
    wait_until(LIMIT, "all are cut", || open() <= before);
}

/// A CA, and a certificate of it for loopback: both as PEM, and the key.
pub(crate) fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), certificate)
}

/// A certificate for the agent's address, or for who asks it, and its key: both as PEM.
pub(crate) fn certificate(
    issuer: &Issuer<'static, KeyPair>,
    purpose: ExtendedKeyUsagePurpose,
) -> (String, String) {
    let mut params = CertificateParams::new(vec!["127.0.9.2".to_owned()]).unwrap();
    params.extended_key_usages = vec![purpose];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

/// What an asker hears that speaks TLS and shows this certificate.
fn ask_with(agent: &Agent, ca: &str, shown: Option<&(String, String)>) -> Result<String, std::io::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let name = IpAddr::from([127, 0, 9, 2]).into();
    let mut session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = agent.connect([127, 0, 0, 1]);
    let mut heard = String::new();
    rustls::Stream::new(&mut session, &mut socket).read_to_string(&mut heard).map(|_| heard)
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn with_tls_only_who_shows_a_certificate_of_the_ca_gets_a_line() {
    let spool = Spool::new("tls");
    let ((ca, ca_pem), (stranger, _)) = (authority("ours"), authority("theirs"));
    let (server, key) = certificate(&ca, ExtendedKeyUsagePurpose::ServerAuth);
    let file = |name: &str, text: &str| {
        let path = spool.folder().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (server, key, client_ca) =
        (file("server.pem", &server), file("key.pem", &key), file("ca.pem", &ca_pem));
    let arguments = ["--tls-certificate", &server, "--tls-key", &key, "--tls-client-ca", &client_ca];
    let agent = Agent::start(spool.folder(), &spool.config(), &arguments);
    let director = certificate(&ca, ExtendedKeyUsagePurpose::ClientAuth);
    let line = ask_with(&agent, &ca_pem, Some(&director)).unwrap();
    assert!(parse(line.as_bytes()).unwrap().report.is_some(), "{line}");
    let foreign = certificate(&stranger, ExtendedKeyUsagePurpose::ClientAuth);
    for shown in [None, Some(&foreign)] {
        assert!(ask_with(&agent, &ca_pem, shown).is_err());
    }
    let mut plain = agent.connect([127, 0, 0, 1]);
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(!hear_bytes(plain).windows(3).any(|bytes| bytes == b"up "));
    // A silent one is cut at the deadline of the handshake.
    assert_eq!(hear_bytes(agent.connect([127, 0, 0, 1])), b"");
    // Two of three files are a mistake.
    let output = Command::new(program()).args(["serve", "--tls-certificate", &server]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let wrong = ["serve", "--tls-certificate", &key, "--tls-key", &key, "--tls-client-ca", &client_ca];
    let output = Command::new(program()).args(wrong).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

fn hear_bytes(mut stream: TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    heard
}
