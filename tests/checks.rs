//! `checks::run` against servers that are well, ill or hostile, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "also in the functions that the tests share")]

mod steps;
mod tls;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use checks::smtp::SmtpSpec;
use checks::{CheckSpec, Kind, Outcome, Reason, Stage};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const EHLO: &str = "EHLO director.example.com\r\n";

/// A check that gives up after `deadline`, whatever it waits for.
fn smtp(target: SocketAddr, deadline: Duration) -> CheckSpec {
    let long = Duration::from_secs(60);
    CheckSpec {
        target,
        kind: Kind::Smtp(SmtpSpec {
            ehlo_name: "director.example.com".to_owned(),
            banner_timeout: long,
            ehlo_timeout: long,
            quit_timeout: long,
            ..SmtpSpec::default()
        }),
        deadline,
        connect_timeout: long,
        via: None,
    }
}

/// A server that takes one connection.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        serve(stream).await;
    });
    address
}

/// How a scripted server ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Eof,
    Rst,
    Silence,
}

/// One line of the client; empty at the end of the connection.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        match stream.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(line).unwrap()
}

/// Says each of `says` after a line of the client (the first at once), reads one more line unless `says` is empty,
/// and ends. What the client said goes into the returned task.
async fn script(says: &[&[u8]], end: End) -> (SocketAddr, tokio::sync::oneshot::Receiver<Vec<String>>) {
    let (heard, result) = tokio::sync::oneshot::channel();
    let says: Vec<Vec<u8>> = says.iter().map(|text| text.to_vec()).collect();
    let address = server(move |mut stream| async move {
        let mut lines = Vec::new();
        for (index, text) in says.iter().enumerate() {
            if index > 0 {
                lines.push(line(&mut stream).await);
            }
            if stream.write_all(text).await.is_err() {
                break;
            }
        }
        match end {
            End::Eof => {}
            End::Rst => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
            // The client leaves first.
            End::Silence => {
                let mut rest = String::new();
                let _ = stream.read_to_string(&mut rest).await;
                lines.extend(rest.split_inclusive('\n').map(str::to_owned));
            }
        }
        drop(stream);
        let _ = heard.send(lines);
    })
    .await;
    (address, result)
}

/// Runs a check, which must keep its deadline, and says in short how it ended.
async fn verdict(spec: &CheckSpec) -> (Outcome, Option<(Stage, Reason, Option<u16>)>) {
    let limit = spec.deadline + Duration::from_secs(3);
    let outcome = tokio::time::timeout(limit, checks::run(spec)).await.expect("the deadline holds");
    let short = outcome.verdict.as_ref().err().map(|f| (f.stage, f.reason, f.code));
    if let Err(failure) = &outcome.verdict {
        assert!(failure.text.len() <= checks::smtp::MAX_TEXT && !failure.text.contains(char::is_control));
    }
    (outcome, short)
}

fn stages(outcome: &Outcome) -> Vec<Stage> {
    outcome.stages.iter().map(|report| report.stage).collect()
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_healthy_server_hears_ehlo_and_quit_and_nothing_else() {
    let (address, heard) = script(
        &[
            b"220 mail.example.com ESMTP Postfix\r\n",
            b"250-mail.example.com\r\n250-PIPELINING\r\n250 DSN\r\n",
            b"221 2.0.0 Bye\r\n",
        ],
        End::Silence,
    )
    .await;
    let (outcome, failure) = verdict(&smtp(address, LONG)).await;
    assert_eq!(failure, None);
    assert_eq!(heard.await.unwrap(), [EHLO, "QUIT\r\n"]);
    assert_eq!(stages(&outcome), [Stage::Connect, Stage::Banner, Stage::Ehlo, Stage::Quit]);
    assert_eq!(outcome.capabilities, ["PIPELINING", "DSN"]);
    let ehlo = &outcome.stages[2];
    assert_eq!((ehlo.code, ehlo.sent.as_str()), (Some(250), "EHLO director.example.com"));
    assert_eq!(ehlo.received, ["250-mail.example.com", "250-PIPELINING", "250 DSN"]);
    assert!(outcome.took >= outcome.stages.iter().map(|s| s.took).sum::<Duration>());
}

#[tokio::test]
async fn nothing_is_said_before_the_last_line_of_the_banner() {
    let address = server(|mut stream| async move {
        for piece in ["22", "0-wait\r", "\n220-wa", "it\r\n22", "0 go\r\n"] {
            // A client that talks out of turn has done so by now: it was given the time of a whole round.
            let early = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
            assert!(early.is_err(), "the client said {early:?} before {piece:?}");
            stream.write_all(piece.as_bytes()).await.unwrap();
        }
        assert_eq!(line(&mut stream).await, EHLO);
        stream.write_all(b"250 mail.example.com\r\n").await.unwrap();
        assert_eq!(line(&mut stream).await, "QUIT\r\n");
        stream.write_all(b"221 Bye\r\n").await.unwrap();
    })
    .await;
    let (outcome, failure) = verdict(&smtp(address, LONG)).await;
    assert_eq!(failure, None);
    assert_eq!(stages(&outcome).len(), 4);
    assert_eq!(outcome.stages[1].received, ["220-wait", "220-wait", "220 go"]);
}

#[tokio::test]
async fn a_refusal_is_told_apart_and_answered_with_quit() {
    use Reason::{Permfail, Tempfail, Unexpected};
    for (banner, code, reason) in [
        (&b"421 4.3.2 busy\r\n"[..], 421, Tempfail),
        (b"554-no\r\n554 SMTP service\r\n", 554, Permfail),
        (b"354 go on\r\n", 354, Unexpected),
    ] {
        let (address, heard) = script(&[banner, b"221 Bye\r\n"], End::Silence).await;
        let (_, failure) = verdict(&smtp(address, LONG)).await;
        assert_eq!(failure, Some((Stage::Banner, reason, Some(code))));
        assert_eq!(heard.await.unwrap(), ["QUIT\r\n"]);

        // After 5xx the server may still know HELO.
        let helo: &[&str] = if code == 554 { &["HELO director.example.com\r\n"] } else { &[] };
        let (mut says, mut said) = (vec![&b"220 x\r\n"[..], banner], vec![EHLO]);
        says.extend(helo.iter().map(|_| banner));
        says.push(b"221 Bye\r\n");
        said.extend(helo);
        said.push("QUIT\r\n");
        let stage = if helo.is_empty() { Stage::Ehlo } else { Stage::Helo };
        let (address, heard) = script(&says, End::Silence).await;
        let (outcome, failure) = verdict(&smtp(address, LONG)).await;
        assert_eq!(failure, Some((stage, reason, Some(code))));
        assert_eq!(heard.await.unwrap(), said);
        assert_eq!(stages(&outcome), [Stage::Connect, Stage::Banner, Stage::Quit]);
    }
}

#[tokio::test]
async fn what_is_not_smtp_is_a_protocol_error() {
    for banner in [
        &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0",
        b"\xff\xfd\x18",
        b"\r\n220 x\r\n",
        b"220-a\r\n421 b\r\n",
        b"999 x\r\n",
        b"199 x\r\n",
        b"000 x\r\n",
        b"2200 x\r\n",
        b"22\r\n",
    ] {
        let (address, heard) = script(&[banner], End::Silence).await;
        let (_, failure) = verdict(&smtp(address, LONG)).await;
        assert_eq!(failure, Some((Stage::Banner, Reason::Protocol, None)), "{}", banner.escape_ascii());
        assert!(heard.await.unwrap().is_empty(), "what is not SMTP is not spoken to");
    }
}

#[tokio::test]
async fn odd_text_in_a_good_reply_is_kept_harmless() {
    let (address, _) =
        script(&[b"220 \0\x1b[2J\xff\r\n", b"250 \0\xff\r\n", b"221 \0\r\n"], End::Silence).await;
    let (outcome, failure) = verdict(&smtp(address, LONG)).await;
    assert_eq!(failure, None);
    assert_eq!(outcome.stages[1].received, ["220 \\0\\u{1b}[2J\\xff"]);
}

#[tokio::test]
async fn an_answer_before_the_question_is_a_protocol_error() {
    let (address, _) = script(&[b"220 x\r\n250 x\r\n221 Bye\r\n"], End::Silence).await;
    assert_eq!(verdict(&smtp(address, LONG)).await.1, Some((Stage::Ehlo, Reason::Protocol, None)));
}

#[tokio::test]
async fn an_endless_reply_is_left_soon() {
    for (piece, limit) in [("220-x\r\n", 16 * 1024), ("220-\n", 16 * 1024), ("220", 0), ("220 x", 2048)] {
        let (taken, result) = tokio::sync::oneshot::channel();
        let address = server(move |mut stream| async move {
            // A small buffer, so that what was written is about what the client took.
            SockRef::from(&stream).set_send_buffer_size(4096).unwrap();
            let (mut sent, mut text) = (0, piece.to_owned());
            while stream.write_all(text.as_bytes()).await.is_ok() {
                sent += text.len();
                if !piece.ends_with('\n') {
                    text = "x".repeat(100);
                }
            }
            let _ = taken.send(sent);
        })
        .await;
        let (_, failure) = verdict(&smtp(address, LONG)).await;
        let reason = if limit == 0 { Reason::Protocol } else { Reason::TooLong };
        assert_eq!(failure, Some((Stage::Banner, reason, None)), "{piece:?}");
        // Mostly what the kernel's two buffers hold.
        assert!(result.await.unwrap() < 8 << 20);
    }
}

#[tokio::test]
async fn the_deadline_holds_against_every_kind_of_slowness() {
    let silence: &[&[u8]] = &[];
    for (says, stage) in [
        (silence, Stage::Banner),
        (&[b"22"], Stage::Banner),
        (&[b"220-please wait\r\n"], Stage::Banner),
        (&[b"220 x\r\n", b""], Stage::Ehlo),
        (&[b"220 x\r\n", b"250-x\r\n250-SIZE\r\n25"], Stage::Ehlo),
    ] {
        let (address, _) = script(says, End::Silence).await;
        let (outcome, failure) = verdict(&smtp(address, SHORT)).await;
        assert_eq!(failure, Some((stage, Reason::Timeout, None)));
        assert!(outcome.took >= SHORT, "{:?}", outcome.took);
    }
}

#[tokio::test]
async fn a_byte_at_a_time_does_not_stretch_the_deadline() {
    let address = server(|mut stream| async move {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        for byte in b"220-".iter().chain(std::iter::repeat(&b'x')) {
            tick.tick().await;
            if stream.write_u8(*byte).await.is_err() {
                break;
            }
        }
    })
    .await;
    let (outcome, failure) = verdict(&smtp(address, SHORT)).await;
    assert_eq!(failure, Some((Stage::Banner, Reason::Timeout, None)));
    assert!(outcome.took >= SHORT, "{:?}", outcome.took);
}

#[tokio::test]
async fn each_step_has_its_own_time() {
    for (says, stage) in [(&[&b"220-x\r\n"[..]][..], Stage::Banner), (&[b"220 x\r\n", b""], Stage::Ehlo)] {
        let (address, _) = script(says, End::Silence).await;
        let mut spec = smtp(address, LONG);
        if let Kind::Smtp(smtp) = &mut spec.kind {
            (smtp.banner_timeout, smtp.ehlo_timeout) = (SHORT, SHORT);
        }
        assert_eq!(verdict(&spec).await.1, Some((stage, Reason::Timeout, None)));
    }
}

#[tokio::test]
async fn how_a_connection_ends_early_is_told_apart() {
    for (end, reason) in [(End::Eof, Reason::Closed), (End::Rst, Reason::Reset)] {
        let (address, _) = script(&[], end).await;
        let (_, failure) = verdict(&smtp(address, LONG)).await;
        // A reset may come so early that connect() itself reports it.
        let early = end == End::Rst && failure == Some((Stage::Connect, reason, None));
        assert!(early || failure == Some((Stage::Banner, reason, None)), "{failure:?}");

        let (address, _) = script(&[b"220 x\r\n", b""], end).await;
        assert_eq!(verdict(&smtp(address, LONG)).await.1, Some((Stage::Ehlo, reason, None)));
    }
    // Half a reply is shown: it may say why.
    let (address, _) = script(&[b"421 4.3.2 going do"], End::Eof).await;
    let (outcome, failure) = verdict(&smtp(address, LONG)).await;
    assert_eq!(failure, Some((Stage::Banner, Reason::Closed, None)));
    assert_eq!(outcome.verdict.unwrap_err().text, "421 4.3.2 going do");
}

#[tokio::test]
async fn a_server_that_does_not_answer_quit_is_well() {
    let says: &[&[u8]] = &[b"220 x\r\n", b"250 x\r\n", b""];
    for end in [End::Eof, End::Rst, End::Silence] {
        let (address, _) = script(says, end).await;
        let mut spec = smtp(address, LONG);
        if let Kind::Smtp(smtp) = &mut spec.kind {
            smtp.quit_timeout = SHORT;
        }
        let (outcome, failure) = verdict(&spec).await;
        assert_eq!(failure, None, "{end:?}");
        assert_eq!(stages(&outcome), [Stage::Connect, Stage::Banner, Stage::Ehlo]);
    }
    let (address, _) = script(&[b"220 x\r\n", b"250 x\r\n", b"500 what\r\n"], End::Silence).await;
    let (outcome, failure) = verdict(&smtp(address, LONG)).await;
    assert_eq!((failure, stages(&outcome).len()), (None, 3));
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut spec = smtp(address, LONG);
    assert_eq!(verdict(&spec).await.1, Some((Stage::Connect, Reason::Refused, None)));
    spec.kind = Kind::Connect;
    assert_eq!(verdict(&spec).await.1, Some((Stage::Connect, Reason::Refused, None)));
}

#[tokio::test]
async fn a_connect_check_connects_and_closes_and_says_nothing() {
    let (heard, result) = tokio::sync::oneshot::channel();
    let address = server(move |mut stream| async move {
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest).await;
        let _ = heard.send((end.map_err(|error| error.kind()), rest));
    })
    .await;
    let spec = CheckSpec { kind: Kind::Connect, ..smtp(address, LONG) };
    let (outcome, failure) = verdict(&spec).await;
    assert_eq!((failure, stages(&outcome)), (None, vec![Stage::Connect]));
    assert_eq!(result.await.unwrap(), (Ok(0), Vec::new()), "a FIN, not a RST");
}
