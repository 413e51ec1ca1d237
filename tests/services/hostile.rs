//! Servers that no honest program is, for the protocols that are spoken in lines, for HTTP and for simple TCP.

use std::future::Future;

use checks::http::{HttpSpec, Method};
use checks::line::FetchSpec;
use checks::simple_tcp::SimpleTcpSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::scratch::Folder;

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);

/// A server that takes one connection.
async fn serve<F: Future<Output = ()> + Send + 'static>(
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    });
    address
}

/// How the check ended, which must keep its deadline.
async fn ended(target: SocketAddr, kind: &Kind, deadline: Duration) -> Option<(Stage, Reason)> {
    let spec = CheckSpec { target, kind: kind.clone(), deadline, connect_timeout: LONG, via: None };
    let outcome = checks::run(&spec).await;
    // A machine with more to do than to test is late by itself.
    assert!(outcome.took < deadline + Duration::from_secs(1), "{:?}", outcome.took);
    let kept: usize = outcome.stages.iter().flat_map(|stage| &stage.received).map(String::len).sum();
    assert!(kept < 32 * 1024, "{kept}");
    let failure = outcome.verdict.err()?;
    assert!(failure.text.len() <= checks::smtp::MAX_TEXT && !failure.text.contains(char::is_control));
    Some((failure.stage, failure.reason))
}

/// A line of the client, or nothing when it has left.
async fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        match stream.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(_) => break,
        }
    }
    line
}

/// What a server says, and at which stage; nothing where the client speaks first.
type Replies = Vec<(Stage, &'static [u8])>;

/// Everything that a server of each protocol says when it is well, one reply for each line that it hears.
fn healthy(folder: &Folder) -> Vec<(Kind, Replies)> {
    let file = folder.path().join("credential");
    std::fs::write(&file, "tim:tan\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let named = |protocol| Kind::Line(Box::new(LineSpec { login: login(file.clone()), ..line(protocol) }));
    let page = HttpSpec {
        tls: None,
        method: Method::Get,
        target: "/".to_owned(),
        host: None,
        receive: pattern("well"),
    };
    let simple = SimpleTcpSpec { request: b"how are you?\n".to_vec(), receive: pattern("well") };
    vec![
        (
            named(Protocol::Pop),
            vec![
                (Stage::Banner, b"+OK x\r\n"),
                (Stage::Auth, b"+OK\r\n"),
                (Stage::Auth, b"+OK\r\n"),
                (Stage::Quit, b"+OK\r\n"),
            ],
        ),
        (
            named(Protocol::Imap),
            vec![
                (Stage::Banner, b"* OK x\r\n"),
                (Stage::Auth, b"* X\r\na1 OK x\r\n"),
                (Stage::Quit, b"* BYE\r\na2 OK\r\n"),
            ],
        ),
        (
            Kind::Line(Box::new(line(Protocol::Nntp))),
            vec![(Stage::Banner, b"200 x\r\n"), (Stage::Quit, b"205 x\r\n")],
        ),
        (
            named(Protocol::Ftp),
            vec![
                (Stage::Banner, b"220-a\r\n220 b\r\n"),
                (Stage::Auth, b"331 x\r\n"),
                (Stage::Auth, b"230 x\r\n"),
                (Stage::Quit, b"221 x\r\n"),
            ],
        ),
        (
            Kind::SimpleTcp(Box::new(simple)),
            vec![(Stage::Request, b""), (Stage::Request, b"ill\nall is well\n")],
        ),
        (
            Kind::Http(Box::new(page)),
            vec![
                (Stage::Request, b""),
                (Stage::Request, b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nall is well\n"),
            ],
        ),
    ]
}

/// A server that is healthy until this reply, and then does `odd`.
async fn until<F: Future<Output = ()> + Send + 'static>(
    replies: &[(Stage, &'static [u8])],
    index: usize,
    odd: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let replies: Vec<_> = replies.iter().map(|(_, text)| *text).collect();
    serve(move |mut stream| async move {
        for (n, text) in replies.iter().enumerate() {
            if n > 0 {
                hear(&mut stream).await;
            }
            if n == index {
                break;
            }
            stream.write_all(text).await.unwrap();
        }
        odd(stream).await;
    })
    .await
}

/// Says nothing and keeps the connection, whatever the client does.
async fn hold(stream: TcpStream) {
    let _stream = stream;
    std::future::pending::<()>().await;
}

/// Reads until the client has left.
async fn drain(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_healthy_server_of_each_protocol_is_well() {
    let folder = Folder::new("services-well");
    for (kind, replies) in healthy(&folder) {
        let address = until(&replies, replies.len(), |stream| async move { drop(stream) }).await;
        assert_eq!(ended(address, &kind, LONG).await, None, "{kind:?}");
    }
}

#[tokio::test]
async fn the_deadline_holds_at_every_stage() {
    let folder = Folder::new("services-slow");
    for (kind, replies) in healthy(&folder) {
        for (index, (stage, text)) in replies.iter().enumerate().filter(|(_, (_, text))| !text.is_empty()) {
            // Silence.
            let address = until(&replies, index, hold).await;
            let expected = (*stage != Stage::Quit).then_some((*stage, Reason::Timeout));
            assert_eq!(ended(address, &kind, SHORT).await, expected, "{kind:?}");
            // A byte now and then of something that never ends; it may be noticed to be nothing.
            let first = text[0];
            let address = until(&replies, index, move |mut stream| async move {
                let mut tick = tokio::time::interval(Duration::from_millis(20));
                while stream.write_u8(first).await.is_ok() {
                    tick.tick().await;
                }
            })
            .await;
            let end = ended(address, &kind, SHORT).await;
            let noticed = (*stage != Stage::Quit).then_some((*stage, Reason::Protocol));
            assert!(end == expected || end == noticed, "{kind:?} {end:?}");
        }
    }
}

#[tokio::test]
async fn an_end_at_every_stage_is_told_apart() {
    let folder = Folder::new("services-end");
    for (kind, replies) in healthy(&folder) {
        for (index, (stage, text)) in replies.iter().enumerate().filter(|(_, (_, text))| !text.is_empty()) {
            let expected = (*stage != Stage::Quit).then_some((*stage, Reason::Closed));
            let address = until(&replies, index, |mut stream| async move {
                let _ = stream.shutdown().await;
                drain(stream).await;
            })
            .await;
            assert_eq!(ended(address, &kind, LONG).await, expected, "{kind:?}");
            let half = &text[..1];
            let address = until(&replies, index, move |mut stream| async move {
                stream.write_all(half).await.unwrap();
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            })
            .await;
            let end = ended(address, &kind, LONG).await;
            let reset = (*stage != Stage::Quit).then_some((*stage, Reason::Reset));
            assert!(end == expected || end == reset, "{kind:?} {end:?}");
        }
    }
}

#[tokio::test]
async fn what_is_endless_or_no_reply_is_left_soon() {
    let folder = Folder::new("services-endless");
    for (kind, replies) in healthy(&folder) {
        for (index, (stage, text)) in replies.iter().enumerate().filter(|(_, (_, text))| !text.is_empty()) {
            if *stage == Stage::Quit {
                continue;
            }
            for (first, piece, reasons) in [
                // A line without an end.
                (&text[..3], &b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"[..], [Reason::TooLong, Reason::Protocol]),
                // Lines without an end.
                (b"220-x\r\n", b"220-x\r\n", [Reason::TooLong, Reason::Protocol]),
                (b"* x\r\n", b"* x\r\n", [Reason::TooLong, Reason::Protocol]),
                (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", [Reason::TooLong, Reason::Protocol]),
                (b"HTTP/1.1 200 OK\r\n\r\n", b"ill\n", [Reason::TooLong, Reason::Protocol]),
                (b"\0\xff\xfe\n", b"\0\xff\n", [Reason::TooLong, Reason::Protocol]),
            ] {
                let (first, piece) = (first.to_vec(), piece.repeat(100));
                let address = until(&replies, index, move |mut stream| async move {
                    let _ = stream.write_all(&first).await;
                    while stream.write_all(&piece).await.is_ok() {}
                })
                .await;
                let end = ended(address, &kind, LONG).await.unwrap();
                assert!(end.0 == *stage && reasons.contains(&end.1), "{kind:?} {end:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_before_the_question_is_a_protocol_error() {
    let file = Folder::new("services-early");
    for (kind, replies) in
        healthy(&file).into_iter().filter(|(kind, _)| kind.name() == "pop" || kind.name() == "ftp")
    {
        let both = [replies[0].1, replies[1].1].concat();
        let address = serve(move |mut stream| async move {
            stream.write_all(&both).await.unwrap();
            drain(stream).await;
        })
        .await;
        assert_eq!(ended(address, &kind, LONG).await, Some((Stage::Auth, Reason::Protocol)), "{kind:?}");
    }
}

#[tokio::test]
async fn a_data_connection_goes_to_the_server_itself_and_keeps_the_deadline() {
    let fetch = Some(FetchSpec { path: "f".to_owned(), receive: pattern("well") });
    let kind = Kind::Line(Box::new(LineSpec { fetch, ..line(Protocol::Ftp) }));
    // What comes through the data connection; `None` keeps it open.
    for (content, expected) in [
        (Some(&b"all is well"[..]), None),
        (Some(b"all is lost"), Some((Stage::Request, Reason::Mismatch))),
        (Some(&[b'x'; 2 << 20]), Some((Stage::Request, Reason::TooLong))),
        (None, Some((Stage::Request, Reason::Timeout))),
    ] {
        let address = serve(move |mut stream| async move {
            let data = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = data.local_addr().unwrap().port();
            // Another address than our own: a client that went there would find nobody.
            let passive = format!("227 x (192,0,2,1,{},{})\r\n", port >> 8, port & 255);
            let passive: &'static str = passive.leak();
            for text in ["220 x\r\n", "230 x\r\n", "200 x\r\n", "502 EPSV?\r\n", passive] {
                stream.write_all(text.as_bytes()).await.unwrap();
                hear(&mut stream).await;
            }
            let (mut file, _) = data.accept().await.unwrap();
            stream.write_all(b"150 x\r\n").await.unwrap();
            if let Some(content) = content {
                let _ = file.write_all(content).await;
                drop(file);
                let _ = stream.write_all(b"226 x\r\n").await;
            }
            drain(stream).await;
        })
        .await;
        assert_eq!(ended(address, &kind, if content.is_some() { LONG } else { SHORT }).await, expected);
    }
}

#[tokio::test]
async fn of_a_long_page_only_the_beginning_is_read() {
    let body = [vec![b'x'; 2 << 20], b"well".to_vec()].concat();
    for (receive, expected) in
        [(pattern("^xxx"), None), (None, None), (pattern("well"), Some((Stage::Request, Reason::TooLong)))]
    {
        let body = body.clone();
        let address = serve(move |mut stream| async move {
            hear(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            let _ = stream.write_all(&body).await;
            let _ = stream.shutdown().await;
            drain(stream).await;
        })
        .await;
        let target = "/".to_owned();
        let spec = HttpSpec { tls: None, method: Method::Get, target, host: None, receive };
        assert_eq!(ended(address, &Kind::Http(Box::new(spec)), LONG).await, expected);
    }
}

#[tokio::test]
async fn a_simple_server_hears_the_end_of_the_request() {
    let address = serve(|mut stream| async move {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.unwrap();
        stream
            .write_all(if request == b"how are\tyou?" { b"ill\r\nwell" } else { b"what?\n" })
            .await
            .unwrap();
    })
    .await;
    let request = checks::simple_tcp::unescape("how are\\tyou?").unwrap();
    let kind = Kind::SimpleTcp(Box::new(SimpleTcpSpec { request, receive: pattern("^well$") }));
    assert_eq!(ended(address, &kind, LONG).await, None);
}
