//! What comes to the receiver of canaries: no panic, caps kept, nothing believed that was not signed.
#![no_main]

use std::sync::LazyLock;

use checks::smtp::Dialect;
use libfuzzer_sys::fuzz_target;
use smtp_director::canary::letter::{Key, Mark};
use smtp_director::canary::session::{Answer, MAX_MESSAGE, Session, Turn};

static KEY: LazyLock<Key> = LazyLock::new(|| Key::new(7, &[7; 32]));
/// The only one that was ever sent.
static LETTER: LazyLock<(Mark, String)> = LazyLock::new(|| {
    let mark = Mark { number: 1, server: "192.0.2.11:25".parse().unwrap(), sent: 1_700_000_000 };
    let letter = KEY.letter(&mark, ("", "canary@example.com"), "director.example");
    (mark, letter)
});

/// The first byte says how, the rest is input: raw, as words of the protocol, or as a message.
fuzz_target!(|data: &[u8]| {
    let Some((&how, rest)) = data.split_first() else { return };
    let (sent, letter) = &*LETTER;
    let input = match how & 3 {
        0 => rest.to_vec(),
        1 => words(rest, letter),
        // A true one with something in it changed, or before it.
        2 => {
            let mut bytes = letter.clone().into_bytes();
            for pair in rest.chunks_exact(2) {
                let at = usize::from(pair[0]) * 3 % bytes.len();
                bytes[at] = pair[1];
            }
            believed(&bytes, sent);
            return;
        }
        _ => {
            believed(&[rest, letter.as_bytes()].concat(), sent);
            return;
        }
    };
    let dialect = if how & 4 == 0 { Dialect::Smtp } else { Dialect::Lmtp };
    let (mut session, _) = Session::new("[127.0.0.1]".into(), dialect, "canary@example.com".into());
    let piece = usize::from(how >> 3) + 1;
    let mut output = Vec::new();
    let mut over = false;
    for mut bytes in input.chunks(piece) {
        while !over {
            match session.feed(&mut bytes, &mut output) {
                Turn::More => break,
                Turn::Message(message) => {
                    assert!(message.len() <= MAX_MESSAGE);
                    believed(&message, sent);
                    session.answer(if how & 64 == 0 { Answer::Taken } else { Answer::NotOurs }, &mut output);
                }
                Turn::Close => over = true,
            }
        }
        assert!(!over || bytes.len() <= piece);
    }
    let text = std::str::from_utf8(&output).unwrap();
    assert!(text.is_empty() || text.ends_with("\r\n"));
    assert!(text.lines().all(|line| line.as_bytes()[..3].iter().all(u8::is_ascii_digit)));
});

fn believed(message: &[u8], sent: &Mark) {
    if let Ok(arrival) = KEY.read(message, 1_700_000_100) {
        assert_eq!(arrival.mark, *sent);
        assert!(arrival.longest.is_none_or(|(by, seconds)| seconds > 0 && !by.contains(['\r', '\n'])));
    }
}

fn words(bytes: &[u8], letter: &str) -> Vec<u8> {
    let mut input = Vec::new();
    for byte in bytes {
        input.extend_from_slice(match byte % 20 {
            0 => b"EHLO a.example\r\n",
            1 => b"LHLO a.example\r\n",
            2 => b"HELO a\r\n",
            3 => b"MAIL FROM:<> SIZE=700\r\n",
            4 => b"MAIL FROM:<a@b> SIZE=999999999999\r\n",
            5 => b"RCPT TO:<canary@example.com>\r\n",
            6 => b"RCPT TO:<x@example.com>\r\n",
            7 => b"DATA\r\n",
            8 => b".\r\n",
            9 => b"..\r\n",
            10 => letter.as_bytes(),
            11 => b"RSET\r\n",
            12 => b"QUIT\r\n",
            13 => b"\n",
            14 => b"\r",
            15 => b"BDAT 9999999999999999999 LAST\r\n",
            16 => b"NOOP\r\n",
            17 => b"Received: from a by b; Tue, 14 Nov 2023 22:14:00 +0000\r\n",
            _ => std::slice::from_ref(byte),
        });
    }
    input
}
