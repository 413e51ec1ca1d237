//! Canaries through servers on loopback, which pass on what they take, or keep it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed; also in the functions that the tests share"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use checks::{Reason, Stage};
use loadgen::sink::session::{Abilities, Session, Turn};
use smtp_director::config::native::lower;
use smtp_director::config::{CheckPlan, Config};
use smtp_director::health::State;
use smtp_director::prober::{Prober, Report};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(60);

/// A mail server that passes on what it takes while it is let.
struct Server {
    address: SocketAddr,
    passes: Arc<AtomicBool>,
    /// All that it took.
    taken: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Server {
    async fn start(next: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passes = Arc::new(AtomicBool::new(true));
        let (tell, taken) = mpsc::unbounded_channel();
        let on = Arc::clone(&passes);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, next, (Arc::clone(&on), tell.clone())));
            }
        });
        Self { address, passes, taken }
    }
}

async fn serve(
    mut stream: TcpStream,
    next: SocketAddr,
    (passes, tell): (Arc<AtomicBool>, mpsc::UnboundedSender<Vec<u8>>),
) {
    let mut session = Session::new("mail.example".into(), Abilities::default());
    stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
    let mut buffer = vec![0; 4096];
    loop {
        let Ok(length @ 1..) = stream.read(&mut buffer).await else { return };
        let mut input = &buffer[..length];
        loop {
            let mut output = Vec::new();
            let turn = session.feed(&mut input, &mut |_| None, &mut output);
            stream.write_all(&output).await.unwrap();
            match turn {
                Turn::Accepted(accepted) => {
                    let _ = tell.send(accepted.content.clone());
                    if passes.load(Ordering::Relaxed) {
                        let stamp =
                            "Received: from director by mail.example; Tue, 14 Nov 2023 22:13:20 +0000\r\n";
                        let message = [stamp.as_bytes(), &accepted.content].concat();
                        // Nobody may be there yet.
                        tokio::spawn(async move { deliver(next, &message).await });
                    }
                }
                Turn::More => break,
                _ => return,
            }
        }
    }
}

/// Speaks to the receiver; its answers. `None` where it is not there.
async fn say(to: SocketAddr, lines: &[&[u8]]) -> Option<Vec<String>> {
    let mut stream = BufReader::new(TcpStream::connect(to).await.ok()?);
    let mut answers = Vec::new();
    for line in [&b""[..]].iter().chain(lines) {
        stream.get_mut().write_all(line).await.ok()?;
        loop {
            let mut answer = String::new();
            if timeout(LIMIT, stream.read_line(&mut answer)).await.unwrap().ok()? == 0 {
                return Some(answers);
            }
            if answer.as_bytes().get(3) == Some(&b' ') {
                answers.push(answer.trim_end().to_owned());
                break;
            }
        }
    }
    Some(answers)
}

const ENVELOPE: [&[u8]; 4] =
    [b"EHLO mail.example\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<canary@example.com>\r\n", b"DATA\r\n"];

/// The last answer to a message.
async fn deliver(to: SocketAddr, message: &[u8]) -> Option<String> {
    let body = [message, b".\r\n"].concat();
    say(to, &[&ENVELOPE[..], &[&body]].concat()).await?.pop()
}

/// An address to receive at. The port is free again: the director is to take it.
async fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.77:0").await.unwrap().local_addr().unwrap()
}

fn config(listen: SocketAddr, servers: &[&Server], limits: &str) -> Config {
    let mut text = format!(
        "dataplane = \"proxy\"\n[[virtual]]\naddress = \"192.0.2.25:25\"\n\
         canary = {{ to = \"canary@example.com\", listen = \"{listen}\", interval = \"300ms\", {limits} }}\n\
         check = {{ retry = \"100ms\", deadline = \"20s\", connect_timeout = \"20s\" }}\n"
    );
    for server in servers {
        text += &format!("[[virtual.real]]\naddress = \"{}\"\n", server.address);
    }
    lower(&text, &[], "director.example").unwrap()
}

/// The running canaries of a farm, and the last report of each server.
struct Canaries {
    prober: Prober,
    reports: mpsc::Receiver<Report>,
    last: BTreeMap<SocketAddr, Report>,
}

impl Canaries {
    fn start(config: &Config) -> Self {
        let (report, reports) = mpsc::channel(64);
        let mut canaries = Self { prober: Prober::new(report), reports, last: BTreeMap::new() };
        canaries.prober.sync(plans(config));
        canaries
    }

    async fn until(&mut self, what: &str, mut holds: impl FnMut(&BTreeMap<SocketAddr, Report>) -> bool) {
        let wait = async {
            while !holds(&self.last) {
                let report = self.reports.recv().await.unwrap();
                self.last.insert(report.plan.spec.target, report);
            }
        };
        if timeout(LIMIT, wait).await.is_err() {
            panic!("{what}: {:?}", self.last.values().map(|report| &report.finding).collect::<Vec<_>>());
        }
    }

    fn state(&self, server: &Server) -> State {
        self.last.get(&server.address).map(|report| report.finding.state).unwrap_or_default()
    }

    async fn all_are(&mut self, state: State, servers: &[&Server]) {
        self.until(&format!("all are {state}"), |last| {
            let is =
                |server: &&Server| last.get(&server.address).is_some_and(|one| one.finding.state == state);
            servers.iter().all(is)
        })
        .await;
    }
}

fn plans(config: &Config) -> Vec<CheckPlan> {
    let plans = config.virtuals.iter().flat_map(|v| &v.reals).flat_map(|real| real.checks.clone());
    let mut plans: Vec<_> = plans.filter(|plan| plan.canary.is_some()).collect();
    plans.sort();
    plans
}

#[tokio::test]
async fn a_server_that_keeps_its_mail_is_degraded_and_then_down_and_comes_back() {
    let listen = free().await;
    let (well, sick) = (Server::start(listen).await, Server::start(listen).await);
    let config = config(listen, &[&well, &sick], "slow = \"2s\", lost = \"5s\"");
    let mut canaries = Canaries::start(&config);
    canaries.all_are(State::Up, &[&well, &sick]).await;
    sick.passes.store(false, Ordering::Relaxed);
    canaries.until("late", |last| matches!(last[&sick.address].finding.state, State::Degraded(_))).await;
    let failure = canaries.last[&sick.address].finding.failure.clone().unwrap();
    assert_eq!((failure.stage, failure.reason), (Stage::Delivery, Reason::Late), "{failure}");
    assert!(failure.text.contains("ago and not back"), "{failure}");
    canaries.all_are(State::Down, &[&sick]).await;
    let finding = canaries.last[&sick.address].finding.clone();
    assert_eq!(finding.failure.map(|failure| failure.reason), Some(Reason::Lost));
    assert!(!finding.gone && finding.overdue_since.is_some(), "it is a soft reason");
    assert_eq!(canaries.state(&well), State::Up);
    sick.passes.store(true, Ordering::Relaxed);
    canaries.all_are(State::Up, &[&sick]).await;
    assert_eq!(canaries.last[&sick.address].finding.overdue_since, None);
}

#[tokio::test]
async fn nobody_is_blamed_where_no_canary_comes_back() {
    let listen = free().await;
    let servers = [Server::start(listen).await, Server::start(listen).await];
    let mut both = servers.iter().collect::<Vec<_>>();
    for server in &both {
        server.passes.store(false, Ordering::Relaxed);
    }
    let config = config(listen, &both, "slow = \"1s\", lost = \"2s\"");
    let mut canaries = Canaries::start(&config);
    canaries
        .until("suspect", |last| {
            let text = |report: &Report| report.finding.failure.as_ref().map(|failure| failure.text.clone());
            last.len() == 2
                && last.values().all(|one| text(one).is_some_and(|text| text.contains("no canary of any")))
        })
        .await;
    // Far beyond the limit.
    let mut seen = 0;
    canaries
        .until("more of them", |last| {
            seen += 1;
            assert!(last.values().all(|report| report.finding.state == State::Unknown));
            seen > 20
        })
        .await;
    for server in &mut both {
        server.passes.store(true, Ordering::Relaxed);
    }
    canaries.all_are(State::Up, &both).await;
}

#[tokio::test]
async fn only_a_canary_that_is_waited_for_is_believed() {
    let listen = free().await;
    let mut servers = [Server::start(listen).await, Server::start(listen).await];
    servers[1].passes.store(false, Ordering::Relaxed);
    let config = config(listen, &[&servers[0], &servers[1]], "slow = \"1s\", lost = \"2s\"");
    let mut canaries = Canaries::start(&config);
    canaries.all_are(State::Up, &[&servers[0]]).await;
    let first = String::from_utf8(servers[0].taken.recv().await.unwrap()).unwrap();
    // Again, and taken for nothing: who refuses it gets a bounce made.
    assert_eq!(deliver(listen, first.as_bytes()).await.unwrap(), "250 2.0.0 Canary is back");
    let other = &servers[1].address.to_string();
    let forged = first.replacen(&servers[0].address.to_string(), other, 1);
    let stranger = "550 5.7.1 Not a canary of this director";
    assert_eq!(deliver(listen, forged.as_bytes()).await.unwrap(), stranger);
    assert_eq!(deliver(listen, b"Subject: hello\r\n\r\nhello\r\n").await.unwrap(), stranger);
    let (start, rest) = first.split_once("start=").unwrap();
    let earlier = format!("{start}start=00000000{}", &rest[8..]);
    assert_eq!(deliver(listen, earlier.as_bytes()).await.unwrap(), "250 2.0.0 Canary is back");
    let huge = "x".repeat(70_000) + "\r\n";
    assert_eq!(deliver(listen, huge.as_bytes()).await.unwrap(), "552 5.3.4 Message too big");
    let foreign = [ENVELOPE[0], ENVELOPE[1], b"RCPT TO:<info@example.com>\r\n"];
    assert_eq!(say(listen, &foreign).await.unwrap()[3], "550 5.1.1 Takes canaries of this director only");
    canaries.all_are(State::Down, &[&servers[1]]).await;
    assert_eq!(canaries.state(&servers[0]), State::Up);
}

#[tokio::test]
async fn a_crowd_at_the_receiver_has_to_wait_and_its_places_are_free_when_it_is_gone() {
    let listen = free().await;
    let server = Server::start(listen).await;
    let config = config(listen, &[&server], "slow = \"40s\", lost = \"50s\"");
    let mut canaries = Canaries::start(&config);
    canaries.all_are(State::Up, &[&server]).await;
    let mut crowd = Vec::new();
    loop {
        assert!(crowd.len() < 1000, "all have a place");
        let mut stream = BufReader::new(TcpStream::connect(listen).await.unwrap());
        let mut line = String::new();
        let banner = timeout(Duration::from_secs(2), stream.read_line(&mut line)).await;
        crowd.push(stream);
        match banner {
            Ok(read) => assert!(read.is_ok() && line.starts_with("220 "), "{line}"),
            Err(_) => break,
        }
    }
    assert!(crowd.len() > 32, "only {}", crowd.len());
    drop(crowd);
    canaries.last.clear();
    canaries.all_are(State::Up, &[&server]).await;
    assert_eq!(canaries.last[&server.address].finding.failure, None);
}

#[tokio::test]
async fn a_receiver_that_cannot_listen_speaks_against_nobody_and_tries_again() {
    let taken = TcpListener::bind("127.0.0.77:0").await.unwrap();
    let listen = taken.local_addr().unwrap();
    let mut server = Server::start(listen).await;
    let config = config(listen, &[&server], "slow = \"1s\", lost = \"2s\"");
    let mut canaries = Canaries::start(&config);
    canaries.until("a report", |last| !last.is_empty()).await;
    let failure = canaries.last[&server.address].finding.failure.clone().unwrap();
    assert_eq!(failure.reason, Reason::Local);
    assert!(failure.text.starts_with(&format!("cannot receive canaries at {listen}: ")), "{failure}");
    assert_eq!(canaries.state(&server), State::Unknown);
    assert!(server.taken.try_recv().is_err(), "none is sent");
    drop(taken);
    canaries.all_are(State::Up, &[&server]).await;
    // Nobody is left to receive when no canary is wanted any more.
    canaries.prober.sync(Vec::new());
    let gone = async { while TcpStream::connect(listen).await.is_ok() {} };
    timeout(LIMIT, gone).await.unwrap();
}
