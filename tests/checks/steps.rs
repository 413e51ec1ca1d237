//! The steps that a check may have beyond banner, EHLO and QUIT, against scripted servers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use checks::proxy_header::Version;
use checks::smtp::{AuthOver, AuthSpec, DataSpec, MailSpec, ProxyHeader};

use super::*;
use crate::scratch::Folder;

const OK: &[u8] = b"250 2.0.0 Ok\r\n";
const NO: &[u8] = b"554 5.7.1 Relay access denied\r\n";

/// A check with every step but TLS; its credential is in `file`.
fn whole(target: SocketAddr, deadline: Duration, file: &Path) -> CheckSpec {
    let mut spec = smtp(target, deadline);
    let timeout = Duration::from_secs(60);
    let from = "check@example.com".to_owned();
    let to = "void@example.com".to_owned();
    if let Kind::Smtp(smtp) = &mut spec.kind {
        let file = file.to_owned();
        smtp.auth = Some(Box::new(AuthSpec {
            from: file.into(),
            mechanism: None,
            over: AuthOver::Anything,
            timeout,
        }));
        smtp.mail = Some(Box::new(MailSpec {
            from: from.clone(),
            accept: Some("postmaster@example.com".to_owned()),
            refuse: Some("x@elsewhere.example".to_owned()),
            timeout,
        }));
        smtp.data = Some(Box::new(DataSpec { from, to, timeout, text: None }));
    }
    spec
}

/// What a healthy server says to [`whole`], and the stage of each.
const HEALTHY: [(Stage, &[u8]); 12] = [
    (Stage::Banner, b"220 mail.example.com ESMTP\r\n"),
    (Stage::Ehlo, b"250-mail.example.com\r\n250 AUTH PLAIN\r\n"),
    (Stage::Auth, b"235 2.7.0 Authentication successful\r\n"),
    (Stage::Mail, OK),
    (Stage::Rcpt, OK),
    (Stage::Relay, NO),
    (Stage::Rset, OK),
    (Stage::Mail, OK),
    (Stage::Rcpt, OK),
    (Stage::Data, b"354 End data with <CR><LF>.<CR><LF>\r\n"),
    (Stage::EndOfData, OK),
    (Stage::Quit, b"221 2.0.0 Bye\r\n"),
];

fn credential(folder: &Folder) -> std::path::PathBuf {
    let file = folder.file("tim:tanstaaf\n");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

/// A server that is healthy until the reply with this index, and then does `odd`. Returns all that it heard.
async fn until_reply<F: Future<Output = ()> + Send + 'static>(
    index: usize,
    odd: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, tokio::sync::oneshot::Receiver<String>) {
    let (heard, result) = tokio::sync::oneshot::channel();
    let address = server(move |mut stream| async move {
        let mut all = String::new();
        for (n, (stage, text)) in HEALTHY.iter().enumerate() {
            if n > 0 {
                all.push_str(&hear(&mut stream, *stage).await);
            }
            if n == index {
                break;
            }
            stream.write_all(text).await.unwrap();
        }
        let _ = heard.send(all);
        odd(stream).await;
    })
    .await;
    (address, result)
}

/// What the client says at a stage: a line, or a message up to its dot.
async fn hear(stream: &mut TcpStream, stage: Stage) -> String {
    let mut all = String::new();
    loop {
        let said = line(stream).await;
        all.push_str(&said);
        if stage != Stage::EndOfData || said == ".\r\n" || said.is_empty() {
            return all;
        }
    }
}

/// Reads until the client has left.
async fn drain(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn every_step_is_taken_in_its_order() {
    let folder = Folder::new("steps");
    let (address, heard) = until_reply(HEALTHY.len(), drain).await;
    let (outcome, failure) = verdict(&whole(address, LONG, &credential(&folder))).await;
    assert_eq!(failure, None);
    let mut wanted: Vec<Stage> = HEALTHY.iter().map(|(stage, _)| *stage).collect();
    wanted.insert(0, Stage::Connect);
    assert_eq!(stages(&outcome), wanted);
    let heard = heard.await.unwrap();
    let (before, after) = heard.split_once("DATA\r\n").unwrap();
    assert_eq!(
        before,
        "EHLO director.example.com\r\nAUTH PLAIN AHRpbQB0YW5zdGFhZg==\r\nMAIL FROM:<check@example.com>\r\n\
         RCPT TO:<postmaster@example.com>\r\nRCPT TO:<x@elsewhere.example>\r\nRSET\r\n\
         MAIL FROM:<check@example.com>\r\nRCPT TO:<void@example.com>\r\n"
    );
    assert!(
        after.contains("\r\nX-SMTP-Director: check\r\n") && after.ends_with("\r\n.\r\nQUIT\r\n"),
        "{after}"
    );
    let shown = format!("{outcome:?}");
    assert!(shown.contains("AUTH PLAIN …") && !shown.contains("AHRpbQ") && !shown.contains("tanstaaf"));
}

#[tokio::test]
async fn each_step_can_be_the_one_that_fails() {
    let folder = Folder::new("failing-steps");
    let file = credential(&folder);
    for (index, (stage, _)) in HEALTHY.iter().enumerate().take(11) {
        let (refusal, reason) = if *stage == Stage::Relay {
            (OK, Reason::OpenRelay)
        } else {
            (&b"451 4.3.0 no\r\n"[..], Reason::Tempfail)
        };
        let (address, _) = until_reply(index, move |mut stream| async move {
            stream.write_all(refusal).await.unwrap();
            assert_eq!(line(&mut stream).await, "QUIT\r\n");
            stream.write_all(b"221 Bye\r\n").await.unwrap();
        })
        .await;
        let (outcome, failure) = verdict(&whole(address, LONG, &file)).await;
        assert_eq!(failure.map(|(stage, reason, _)| (stage, reason)), Some((*stage, reason)));
        assert_eq!(outcome.stages.len(), index + 2, "connect, what passed, and QUIT");
    }
}

#[tokio::test]
async fn no_step_can_be_made_endless() {
    let folder = Folder::new("endless-steps");
    let file = credential(&folder);
    for (index, (stage, _)) in HEALTHY.iter().enumerate().take(11) {
        let (address, _) =
            until_reply(
                index,
                |mut stream| async move { while stream.write_all(b"250-x\r\n").await.is_ok() {} },
            )
            .await;
        let (outcome, failure) = verdict(&whole(address, LONG, &file)).await;
        assert_eq!(failure, Some((*stage, Reason::TooLong, None)));
        assert_eq!(outcome.stages.len(), index + 1);

        let (address, _) = until_reply(index, |mut stream| async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while stream.write_all(b"2").await.is_ok() {
                tick.tick().await;
            }
        })
        .await;
        let failure = verdict(&whole(address, SHORT, &file)).await.1.unwrap();
        assert!(
            failure.0 == *stage && [Reason::Timeout, Reason::Protocol].contains(&failure.1),
            "{failure:?}"
        );

        let (address, _) = until_reply(index, |stream| async move { drop(stream) }).await;
        assert_eq!(verdict(&whole(address, LONG, &file)).await.1, Some((*stage, Reason::Closed, None)));

        let (address, _) = until_reply(index, drain).await;
        assert_eq!(verdict(&whole(address, SHORT, &file)).await.1, Some((*stage, Reason::Timeout, None)));
    }
}

#[tokio::test]
async fn what_is_kept_of_many_long_replies_is_bounded() {
    let folder = Folder::new("long-replies");
    let file = credential(&folder);
    let address = server(|mut stream| async move {
        for (n, (stage, text)) in HEALTHY.iter().enumerate() {
            if n > 0 {
                hear(&mut stream, *stage).await;
            }
            let code = std::str::from_utf8(&text[..3]).unwrap();
            let filler = format!("{code}-{}\r\n", "\u{1}".repeat(200));
            let _ = stream.write_all(filler.repeat(22).as_bytes()).await;
            let _ = stream.write_all(text).await;
        }
        drain(stream).await;
    })
    .await;
    let (outcome, failure) = verdict(&whole(address, LONG, &file)).await;
    assert_eq!(failure, None);
    let kept: usize = outcome.stages.iter().flat_map(|stage| &stage.received).map(String::len).sum();
    assert!(kept < 16 * 1024, "{kept}");
    assert!(outcome.stages.iter().skip(1).all(|stage| !stage.received.is_empty()));
}

#[tokio::test]
async fn a_credential_that_others_can_read_is_not_used() {
    let folder = Folder::new("rights");
    let file = credential(&folder);
    // Nobody listens: a check that connects would say so.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for mode in [0o604, 0o602, 0o601, 0o644, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let (outcome, failure) = verdict(&whole(address, LONG, &file)).await;
        assert_eq!(failure, Some((Stage::Auth, Reason::Local, None)));
        assert!(outcome.verdict.unwrap_err().text.contains("others have rights"));
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Some((Stage::Connect, Reason::Refused, None));
    assert_eq!(verdict(&whole(address, LONG, &file)).await.1, refused);
    for (text, complaint) in [("tim\n", "user:password"), ("tim:a\nx:y\n", "user:password")] {
        fs::write(&file, text).unwrap();
        let (outcome, failure) = verdict(&whole(address, LONG, &file)).await;
        assert_eq!(failure, Some((Stage::Auth, Reason::Local, None)));
        assert!(outcome.verdict.unwrap_err().text.contains(complaint));
    }
    let folder_itself = verdict(&whole(address, LONG, folder.path())).await.0.verdict.unwrap_err();
    assert!(folder_itself.text.contains("not a regular file"), "{folder_itself}");
    let none = verdict(&whole(address, LONG, Path::new("/nonexistent/credential"))).await.1;
    assert_eq!(none, Some((Stage::Auth, Reason::Local, None)));
}

#[tokio::test]
async fn a_proxy_header_comes_before_the_banner() {
    for (header, start, length) in [
        (ProxyHeader::Proxy(Version::V1), &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..], 0),
        (ProxyHeader::Proxy(Version::V2), b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01", 28),
        (ProxyHeader::Local, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 16),
    ] {
        let (heard, result) = tokio::sync::oneshot::channel();
        let address = server(move |mut stream| async move {
            let mut bytes = vec![0; length];
            if length == 0 {
                bytes = line(&mut stream).await.into_bytes();
            } else {
                stream.read_exact(&mut bytes).await.unwrap();
            }
            let _ = heard.send(bytes);
            for (expected, reply) in [("", &b"220 x\r\n"[..]), (EHLO, OK), ("QUIT\r\n", b"221 x\r\n")] {
                if !expected.is_empty() {
                    assert_eq!(line(&mut stream).await, expected);
                }
                stream.write_all(reply).await.unwrap();
            }
        })
        .await;
        let mut spec = smtp(address, LONG);
        if let Kind::Smtp(smtp) = &mut spec.kind {
            smtp.proxy = Some(header);
        }
        let (outcome, failure) = verdict(&spec).await;
        assert_eq!((failure, stages(&outcome).len()), (None, 4));
        let heard = result.await.unwrap();
        assert!(heard.starts_with(start), "{}", heard.escape_ascii());
    }
}
