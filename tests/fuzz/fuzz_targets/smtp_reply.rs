//! What a server says, as it comes and mapped to the few bytes that replies are made of: no panic, the same replies
//! however it is cut, everything that is kept bounded and printable, nothing illegal said in answer.
#![no_main]

use checks::smtp::dialogue::{Dialogue, Step};
use checks::smtp::reply::{MAX_LINES, Reply, ReplyError, Splitter};
use checks::smtp::{MAX_TEXT, SmtpSpec};
use libfuzzer_sys::fuzz_target;

const ALPHABET: &[u8; 16] = b"2250450-- .\r\n\n\xffA";

fn split(bytes: &[u8], size: usize) -> (Vec<Reply>, Result<String, ReplyError>) {
    let (mut splitter, mut replies) = (Splitter::default(), Vec::new());
    for mut piece in bytes.chunks(size) {
        while !piece.is_empty() {
            match splitter.feed(piece) {
                Ok((used, reply)) => {
                    replies.extend(reply);
                    piece = &piece[used..];
                }
                Err(error) => return (replies, Err(error)),
            }
        }
    }
    (replies, Ok(splitter.rest()))
}

fn check(bytes: &[u8], size: usize) {
    let whole = split(bytes, usize::MAX);
    assert_eq!(whole, split(bytes, size));
    let spec = SmtpSpec { ehlo_name: "director.example.com".to_owned(), ..SmtpSpec::default() };
    let ((mut dialogue, _), mut said) = (Dialogue::new(&spec, None, 0), 0);
    for reply in &whole.0 {
        assert!((200..=599).contains(&reply.code) && (1..=MAX_LINES).contains(&reply.lines.len()));
        assert!(reply.lines.iter().all(|line| line.len() <= MAX_TEXT && !line.chars().any(char::is_control)));
        match dialogue.reply(reply).step {
            Step::Send(line) => assert!(
                ["QUIT", "EHLO director.example.com", "HELO director.example.com"].contains(&line.as_str())
            ),
            Step::Close => break,
            step => panic!("{step:?}"),
        }
        said += 1;
        assert!(said <= 3);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&size, bytes)) = data.split_first() else { return };
    let size = usize::from(size).max(1);
    check(bytes, size);
    let mapped: Vec<u8> = bytes.iter().map(|byte| ALPHABET[usize::from(byte & 15)]).collect();
    check(&mapped, size);
});
