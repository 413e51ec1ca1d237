//! The load generator's client and sink against each other, against `checks::run`, and against Postfix's client.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "also in the functions that the tests share")]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use checks::smtp::SmtpSpec;
use checks::{CheckSpec, Kind, Outcome, Reason, Stage};
use loadgen::message::Message;
use loadgen::session::{SendError, send};
use loadgen::sink::fault::{ALWAYS, Act, Rule, Stage as Ill};
use loadgen::sink::{Fault, Sink, SinkConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

fn sink(hostname: &str) -> Sink {
    Sink::start("127.0.0.1:0".parse().unwrap(), SinkConfig::new(hostname)).unwrap()
}

fn message(id: &str) -> Message {
    let (from, to) = ("a@client.example".to_owned(), "b@farm.example".to_owned());
    Message { id: id.to_owned(), from, to, body: b"first\r\n.\r\n..x\r\nlast".to_vec() }
}

async fn check(target: SocketAddr, deadline: Duration) -> Outcome {
    let spec = SmtpSpec {
        ehlo_name: "director.example.com".to_owned(),
        banner_timeout: LIMIT,
        ehlo_timeout: LIMIT,
        quit_timeout: LIMIT,
        ..SmtpSpec::default()
    };
    checks::run(&CheckSpec { target, kind: Kind::Smtp(spec), deadline, connect_timeout: LIMIT, via: None })
        .await
}

fn failure(outcome: &Outcome) -> Option<(Stage, Reason)> {
    outcome.verdict.as_ref().err().map(|f| (f.stage, f.reason))
}

/// Waits until `done`, with a limit.
async fn until<F: Future<Output = bool>>(mut done: impl FnMut() -> F) {
    let wait = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, wait).await.expect("it comes true");
}

/// Reads until the server has said `text`.
async fn hear(stream: &mut TcpStream, text: &str) -> String {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).ends_with(text) {
        heard.push(timeout(LIMIT, stream.read_u8()).await.expect("an answer").expect("a connection"));
    }
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn every_message_is_in_the_ledger_as_often_as_it_was_accepted() {
    let sink = sink("mx1.example.com");
    for id in ["one", "two", "one"] {
        let accepted = send(sink.address(), &message(id), LIMIT).await.unwrap();
        assert_eq!(accepted.by, "mx1.example.com");
    }
    assert_eq!(sink.accepted(), 3);
    let ledger = sink.ledger();
    assert_eq!((ledger.len(), ledger["one"], ledger["two"]), (2, 2, 1));
}

#[tokio::test]
async fn a_check_finds_a_sink_well_and_leaves_no_message() {
    let sink = sink("mx1.example.com");
    let outcome = check(sink.address(), LIMIT).await;
    assert_eq!(failure(&outcome), None);
    assert_eq!(outcome.stages.len(), 4);
    assert_eq!(outcome.stages[1].received, ["220-mx1.example.com ESMTP", "220 mx1.example.com ready"]);
    assert_eq!(outcome.capabilities, ["PIPELINING", "SIZE 10240000", "ENHANCEDSTATUSCODES", "8BITMIME"]);
    assert_eq!(sink.accepted(), 0);
}

#[tokio::test]
async fn faults_come_and_go_while_it_runs() {
    let sink = sink("mx1");
    sink.set_fault(Some(Fault::RejectBanner421));
    let outcome = check(sink.address(), LIMIT).await;
    assert_eq!(failure(&outcome), Some((Stage::Banner, Reason::Tempfail)));
    assert!(matches!(send(sink.address(), &message("1"), LIMIT).await, Err(SendError::NotAccepted(_))));

    sink.set_fault(Some(Fault::SilentBanner));
    assert_eq!(failure(&check(sink.address(), SHORT).await), Some((Stage::Banner, Reason::Timeout)));
    let mut waiting = TcpStream::connect(sink.address()).await.unwrap();
    assert!(timeout(SHORT, waiting.read_u8()).await.is_err());

    // Banner and EHLO are well, mail is refused: what a dead milter looks like.
    sink.set_fault(Some(Fault::RejectMail("451 4.7.1 Service unavailable".to_owned())));
    hear(&mut waiting, "ready\r\n").await;
    assert_eq!(failure(&check(sink.address(), LIMIT).await), None);
    let refused = SendError::NotAccepted("451 4.7.1 Service unavailable".to_owned());
    assert_eq!(send(sink.address(), &message("1"), LIMIT).await, Err(refused));

    sink.set_fault(None);
    send(sink.address(), &message("1"), LIMIT).await.unwrap();
    assert_eq!(sink.accepted(), 1);
}

#[tokio::test]
async fn pipelined_commands_are_all_answered_in_order() {
    let sink = sink("mx1");
    let mut stream = TcpStream::connect(sink.address()).await.unwrap();
    hear(&mut stream, "ready\r\n").await;
    stream.write_all(b"EHLO client.example\r\n").await.unwrap();
    hear(&mut stream, "8BITMIME\r\n").await;
    let group = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n";
    stream.write_all(group.as_bytes()).await.unwrap();
    let answers = hear(&mut stream, "<CR><LF>\r\n").await;
    let codes: Vec<&str> = answers.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "250", "250", "354"]);
    stream.write_all(b"X-Loadgen-Id: 9\r\n\r\n..\r\n.\r\nRSET\r\nQUIT\r\n").await.unwrap();
    let mut rest = String::new();
    timeout(LIMIT, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "250 2.0.0 Ok: queued\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n");
    assert_eq!(sink.ledger()["9"], 1);
}

#[tokio::test]
async fn a_crash_resets_every_session_and_a_restart_remembers() {
    // An address of its own: nobody else can take its port while it is down.
    let listen = "127.0.0.77:0".parse().unwrap();
    let mut sink = Sink::start(listen, SinkConfig::new("mx1")).unwrap();
    send(sink.address(), &message("1"), LIMIT).await.unwrap();
    let mut stream = TcpStream::connect(sink.address()).await.unwrap();
    hear(&mut stream, "ready\r\n").await;

    sink.stop().await;
    let error = timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(failure(&check(sink.address(), LIMIT).await), Some((Stage::Connect, Reason::Refused)));
    assert!(matches!(send(sink.address(), &message("2"), LIMIT).await, Err(SendError::NotAccepted(_))));

    let address = sink.address();
    sink.restart().unwrap();
    assert_eq!(sink.address(), address);
    send(address, &message("2"), LIMIT).await.unwrap();
    assert_eq!((sink.accepted(), sink.ledger().len()), (2, 2));

    drop(sink);
    until(|| async { failure(&check(address, LIMIT).await) == Some((Stage::Connect, Reason::Refused)) })
        .await;
}

#[tokio::test]
async fn clients_beyond_the_sessions_wait_for_their_banner() {
    let config = SinkConfig { max_sessions: 1, ..SinkConfig::new("mx1") };
    let sink = Sink::start("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let mut first = TcpStream::connect(sink.address()).await.unwrap();
    hear(&mut first, "ready\r\n").await;
    assert_eq!(failure(&check(sink.address(), SHORT).await), Some((Stage::Banner, Reason::Timeout)));
    drop(first);
    send(sink.address(), &message("1"), LIMIT).await.unwrap();
}

/// A server that says each of `codes` in turn, after a command or a message; at 0 it closes instead.
async fn answering(codes: &'static [u16]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // The banner answers nothing.
        let mut end: &[u8] = b"";
        for &code in codes {
            let mut heard = Vec::new();
            while !heard.ends_with(end) {
                heard.push(stream.read_u8().await.unwrap());
            }
            if code == 0 {
                break;
            }
            stream.write_all(format!("{code} x\r\n").as_bytes()).await.unwrap();
            end = if code == 354 { b"\r\n.\r\n" } else { b"\r\n" };
        }
    });
    address
}

#[tokio::test]
async fn a_sender_knows_whether_it_may_send_again() {
    for (codes, may) in [
        (&[554, 221][..], Some(true)),
        (&[220, 250, 452, 221], Some(true)),
        (&[220, 250, 250, 550, 221], Some(true)),
        (&[220, 250, 250, 250, 0], Some(true)),
        (&[220, 250, 250, 250, 354, 451, 221], Some(true)),
        (&[220, 250, 250, 250, 354, 0], Some(false)),
        (&[220, 250, 250, 250, 354, 350, 221], Some(false)),
        (&[220, 250, 250, 250, 354, 999], Some(false)),
        (&[220, 250, 250, 250, 354, 250, 0], None),
        (&[220, 250, 250, 250, 354, 250, 500], None),
    ] {
        let result = send(answering(codes).await, &message("1"), LIMIT).await;
        let heard = match result {
            Err(SendError::NotAccepted(_)) => Some(true),
            Err(SendError::Unknown(_)) => Some(false),
            Ok(_) => None,
        };
        assert_eq!(heard, may, "{codes:?}");
    }
}

#[tokio::test]
async fn a_sender_gives_up_in_time() {
    let sink = sink("mx1");
    sink.set_fault(Some(Fault::SilentBanner));
    let result = timeout(LIMIT, send(sink.address(), &message("1"), SHORT)).await.unwrap();
    assert!(matches!(result, Err(SendError::NotAccepted(_))), "{result:?}");
}

#[tokio::test]
#[ignore = "needs Postfix: tests/run"]
async fn postfix_finds_the_sink_a_good_server() {
    let sink = sink("mx1.example.com");
    for reuse in [&["-d"][..], &[]] {
        let before = sink.accepted();
        let target = sink.address().to_string();
        let status = tokio::task::spawn_blocking(move || {
            std::process::Command::new("/usr/sbin/smtp-source")
                .args(reuse)
                .args(["-s", "5", "-m", "100", "-l", "5000", "-M", "client.example"])
                .args(["-f", "a@client.example", "-t", "b@farm.example", &target])
                .status()
        });
        let status =
            timeout(LIMIT, status).await.expect("it ends").unwrap().expect("smtp-source is installed");
        assert!(status.success(), "{status}");
        until(|| async { sink.accepted() == before + 100 }).await;
    }
}

#[tokio::test]
async fn a_message_whose_answer_comes_late_is_counted_and_one_whose_answer_is_lost_is_not() {
    for (act, counted) in [
        (Act::Delay(Duration::from_millis(20)), 1),
        (Act::Dribble(Duration::from_millis(1)), 1),
        (Act::Half, 0),
        (Act::Drop, 0),
    ] {
        let mut config = SinkConfig::new("late.example");
        config.rules = vec![Rule { stage: Ill::Body, act: act.clone(), odds: ALWAYS }];
        let sink = Sink::start("127.0.0.1:0".parse().unwrap(), config).unwrap();
        let sent = send(sink.address(), &message("late"), LIMIT).await;
        assert_eq!((sent.is_ok(), sink.accepted()), (counted == 1, counted), "{act:?}");
    }
}
