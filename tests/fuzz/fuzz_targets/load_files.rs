//! What the load generator takes from files and before a session: messages of a corpus, PROXY headers, reports. The first
//! byte says which. No panic; what comes out of a corpus is what a server takes; a header is read to its end and no further.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use loadgen::corpus::{Kind, from_bytes};
use loadgen::report::Report;
use loadgen::report::compare::{Change, render, rows};
use loadgen::sink::content::Content;
use loadgen::sink::proxied::{client, wanted};

/// Lines with CRLF, none too long, no byte that servers refuse.
fn is_sendable(bytes: &[u8]) -> bool {
    let lines = || bytes.split_inclusive(|&byte| byte == b'\n');
    lines().all(|line| line.len() <= 1000 && line.strip_suffix(b"\r\n").is_some_and(|line| !line.contains(&b'\r')))
        && !bytes.contains(&0)
}

fn corpus(kind: Kind, bytes: &[u8]) {
    let Ok(messages) = from_bytes(kind, bytes, Path::new("fuzz")) else { return };
    let mut size = 0;
    for message in &messages {
        assert!(is_sendable(&message.header) && is_sendable(&message.body));
        size += message.header.len() + message.body.len();
        let (header, body) = message.stuffed.as_ref().map_or((&message.header, &message.body), |both| (&both.0, &both.1));
        let sent = [header, b"\r\n".as_slice(), body, b".\r\n"].concat();
        let (mut input, mut content) = (sent.as_slice(), Content::new(usize::MAX));
        assert!(content.take_dotted(&mut input) && input.is_empty(), "it ends where it ends");
        assert_eq!(content.kept, [message.header.as_slice(), b"\r\n", &message.body].concat());
    }
    // A byte grows to a line of its own at most, and each message ends its last line.
    assert!(size <= 2 * bytes.len() + 4 * messages.len() + bytes.len() / 400);
}

fn header(bytes: &[u8]) {
    let mut held = 0;
    loop {
        match wanted(&bytes[..held]) {
            Err(_) => return,
            Ok(0) => break,
            Ok(more) if held + more > bytes.len() => return,
            Ok(more) => held += more,
        }
        assert!(held <= 16 + 1024);
    }
    if client(&bytes[..held]).is_ok() {
        for cut in 0..held {
            let more = wanted(&bytes[..cut]).expect("a beginning is no error");
            assert!((1..=held - cut).contains(&more), "{cut}: {more}");
        }
    }
}

fn report(bytes: &[u8]) {
    let Ok(report) = serde_json::from_slice::<Report>(bytes) else { return };
    let rows = rows(&report, &report);
    assert!(rows.iter().all(|row| row.change() == 0.0));
    let table = render(&rows);
    assert_eq!(table.lines().count(), rows.len() + 1);
    assert!(table.chars().all(|char| char == '\n' || !char.is_control()), "nothing for the terminal but text");
    assert!(Change::parse("p99>+10%").expect("as in the README").judge(&rows).2 || report.headline().is_none());
    for row in report.phases.iter().map(|phase| &phase.latency).chain(report.headline().map(|(_, row)| row)) {
        let _ = row.decode();
    }
}

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((b'e', bytes)) => corpus(Kind::Message, bytes),
        Some((b'm', bytes)) => corpus(Kind::Mbox, bytes),
        Some((b'p', bytes)) => header(bytes),
        Some((b'j', bytes)) => report(bytes),
        _ => {}
    }
});
