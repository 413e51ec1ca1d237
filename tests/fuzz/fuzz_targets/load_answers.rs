//! What the load generator reads from the network and from files: replies of SMTP, answers of HTTP, logs, and the sink's
//! side of a session. No panic; pieces change nothing; what is read is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loadgen::http::Compare;
use loadgen::http::response::Response;
use loadgen::report::hlog::Merged;
use loadgen::sink::session::{Abilities, Session, Turn};
use loadgen::smtp::reply;

fn http(bytes: &[u8], size: usize) -> Option<(u16, u64, u16)> {
    let mut response = Response::new(Compare::Checksum);
    let mut held = Vec::new();
    for piece in bytes.chunks(size) {
        held.extend_from_slice(piece);
        let (used, done) = response.feed(&held, Some("x-served-by")).ok()?;
        held.drain(..used);
        if done {
            break;
        }
    }
    Some((response.status, response.bytes, response.sum))
}

fn sink(bytes: &[u8], size: usize) -> (Vec<u8>, usize) {
    let all = Abilities { starttls: true, auth: true, chunking: true, utf8: true, keep: 64, ..Abilities::default() };
    let (mut session, mut output, mut accepted) = (Session::new("sink".into(), all), Vec::new(), 0);
    for mut piece in bytes.chunks(size) {
        loop {
            match session.feed(&mut piece, &mut |_| None, &mut output) {
                Turn::More => break,
                Turn::Accepted(message) => {
                    assert!(message.content.len() <= 64);
                    accepted += 1;
                }
                Turn::StartTls => session.secured(),
                Turn::Ill(..) | Turn::Close => return (output, accepted),
            }
        }
    }
    (output, accepted)
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, data)) = data.split_first() else { return };
    let size = usize::from(size).max(1);
    if let Ok(Some(reply)) = reply::first(data) {
        assert!((200..600).contains(&reply.code) && reply.bytes.len() <= reply::MAX_REPLY);
        let _ = (reply.enhanced(), reply.lines().count());
    }
    if let (Some(whole), Some(pieces)) = (http(data, usize::MAX), http(data, size)) {
        assert_eq!(whole, pieces);
    }
    assert_eq!(sink(data, usize::MAX), sink(data, size));
    let _ = Merged::default().add(data);
});
