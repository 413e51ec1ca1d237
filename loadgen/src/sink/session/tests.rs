//! What a session says to clients of all kinds.

use super::*;
use crate::message::Message;
use proptest::prelude::*;

/// What a session answers to `bytes` in pieces of `size`, what it accepts, and whether it is over.
fn talk(bytes: &[u8], size: usize) -> (String, Vec<Vec<u8>>, bool) {
    talk_with(Abilities::default(), bytes, size)
}

fn talk_with(abilities: Abilities, bytes: &[u8], size: usize) -> (String, Vec<Vec<u8>>, bool) {
    let mut session = Session::new("sink".into(), abilities);
    let (mut output, mut accepted) = (Vec::new(), Vec::new());
    for mut piece in bytes.chunks(size) {
        loop {
            match session.feed(&mut piece, &mut |_| None, &mut output) {
                Turn::More => break,
                Turn::Accepted(message) => accepted.push(message.content),
                Turn::StartTls => session.secured(),
                Turn::Ill(..) => unreachable!(),
                Turn::Close => return (String::from_utf8(output).unwrap(), accepted, true),
            }
        }
        assert!(piece.is_empty());
    }
    (String::from_utf8(output).unwrap(), accepted, false)
}

/// The codes of the answers, without the continued lines.
fn codes(commands: &str) -> Vec<u16> {
    let (answers, ..) = talk(commands.replace('\n', "\r\n").as_bytes(), usize::MAX);
    answers.lines().filter(|l| l.as_bytes()[3] == b' ').map(|l| l[..3].parse().unwrap()).collect()
}

const MAIL: &str = "MAIL FROM:<a@example.com>\nRCPT TO:<b@example.com>\n";

#[test]
fn commands_are_taken_in_the_order_of_the_rfc_only() {
    for (commands, expected) in [
        ("EHLO x\nNOOP\nRSET\nVRFY x\nQUIT\n".to_owned(), &[250, 250, 250, 252, 221][..]),
        (format!("HELO x\n{MAIL}DATA\nx\n.\nQUIT\n"), &[250, 250, 250, 354, 250, 221]),
        (format!("EHLO x\n{MAIL}{MAIL}"), &[250, 250, 250, 503, 250]),
        (
            format!("EHLO x\n{MAIL}DATA\n.\nDATA\nRCPT TO:<a@b.example>\n"),
            &[250, 250, 250, 354, 250, 503, 503],
        ),
        (format!("EHLO x\n{MAIL}RSET\nDATA\nQUIT\nNOOP\n"), &[250, 250, 250, 250, 503, 221]),
        (format!("EHLO x\n{MAIL}EHLO x\nDATA\n"), &[250, 250, 250, 250, 503]),
        (MAIL.to_owned(), &[503, 503]),
        ("EHLO x\nMAIL FROM:<>\nDATA\n".to_owned(), &[250, 250, 554]),
        ("EHLO x\nMAIL FROM:<a@b.example> SIZE=20000000\n".to_owned(), &[250, 552]),
        ("EHLO\nFOO\nSTARTTLS\nGET / HTTP/1.1\n\n".to_owned(), &[501, 500, 502, 500, 500]),
    ] {
        assert_eq!(codes(&commands), expected, "{commands:?}");
    }
}

#[test]
fn a_stranger_who_errs_too_often_is_sent_away() {
    let (answers, _, over) = talk("FOO\r\n".repeat(30).as_bytes(), usize::MAX);
    assert!(over && answers.ends_with("421 4.7.0 Too many errors\r\n"));
    assert_eq!(answers.lines().count(), MAX_ERRORS + 1);
}

#[test]
fn lines_and_messages_have_a_limit() {
    let (answers, _, over) = talk(&vec![b'x'; 100_000], 1000);
    assert_eq!((answers.as_str(), over), ("500 5.5.2 Line too long\r\n", true));

    let start = format!("EHLO x\r\n{}DATA\r\n", MAIL.replace('\n', "\r\n"));
    let body = "0123456789abcd\r\n".repeat(MAX_MESSAGE / 16 + 1);
    let (answers, accepted, over) = talk(format!("{start}{body}.\r\nNOOP\r\n").as_bytes(), 16_384);
    assert!(answers.ends_with("552 5.3.4 Message too big\r\n250 2.0.0 Ok\r\n"));
    assert_eq!((accepted.len(), over), (0, false));
}

#[test]
fn mail_can_be_refused_while_the_session_goes_on() {
    let (mut session, mut output) = (Session::new("sink".into(), Abilities::default()), Vec::new());
    session.feed(&mut &b"HELO x\r\n"[..], &mut |_| None, &mut output);
    let later = || Act::Reject("451 4.7.1 Later".to_owned());
    for (reject, answer) in [(Some(later()), "451 4.7.1 Later\r\n"), (None, "250 2.1.0 Ok\r\n")] {
        output.clear();
        session.feed(&mut &b"MAIL FROM:<a@b.example>\r\n"[..], &mut |_| reject.clone(), &mut output);
        assert_eq!(output, answer.as_bytes());
    }
}

#[test]
fn what_is_offered_works() {
    let all = Abilities { starttls: true, auth: true, chunking: true, utf8: true, ..Abilities::default() };
    let all_lmtp = Abilities { lmtp: true, ..all };
    let lines = |text: &str| text.replace('|', "\r\n").into_bytes();
    let mail = "MAIL FROM:<a@example.com>|RCPT TO:<b@example.com>|RCPT TO:<c@example.com>|";
    for (abilities, said, expected) in [
        (all, "EHLO x|STARTTLS|MAIL FROM:<a@b.example>|EHLO x|STARTTLS|".to_owned(), "250 220 503 250 502"),
        (all, "EHLO x|AUTH PLAIN AHUAcA==|AUTH LOGIN|".to_owned(), "250 235 503"),
        (all, "EHLO x|AUTH LOGIN|dQ==|cA==|NOOP|".to_owned(), "250 334 334 235 250"),
        (all, "EHLO x|AUTH PLAIN|*|NOOP|".to_owned(), "250 334 501 250"),
        (all, format!("EHLO x|{mail}BDAT 5|ab|.BDAT 3 LAST|.|NOOP|"), "250 250 250 250 250 250 250"),
        (all, "EHLO x|BDAT 3 LAST|a|NOOP|".to_owned(), "250 503 250"),
        (all_lmtp, format!("LHLO x|{mail}DATA|x|.|EHLO x|"), "250 250 250 250 354 250 250 502"),
        (Abilities::default(), "EHLO x|STARTTLS|AUTH PLAIN AHUAcA==|".to_owned(), "250 502 502"),
    ] {
        let (answers, accepted, _) = talk_with(abilities, &lines(&said), 7);
        let codes: Vec<&str> = answers.lines().filter(|l| l.as_bytes()[3] == b' ').map(|l| &l[..3]).collect();
        assert_eq!(codes.join(" "), expected, "{said}");
        assert_eq!(
            accepted.len(),
            usize::from(said.contains("MAIL") && !said.contains("STARTTLS")),
            "{said}"
        );
    }
}

proptest! {
    #[test]
    fn a_message_arrives_byte_for_byte(
        lines in prop::collection::vec("[.a\r\n]{0,4}|\\PC{0,8}", 0..20),
        size in 1usize..30,
    ) {
        let body = lines.join("\r\n").into_bytes();
        let message = Message { id: "1".into(), from: "a@b.example".into(), to: "c@d.example".into(), body };
        let start = b"EHLO x\r\nMAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<c@d.example>\r\nDATA\r\n";
        let bytes = [&start[..], &message.wire().unwrap(), b"NOOP\r\nQUIT\r\n"].concat();
        let (answers, accepted, over) = talk(&bytes, size);
        prop_assert_eq!(accepted, [message.content()]);
        prop_assert!(over && answers.ends_with("250 2.0.0 Ok: queued\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"));
    }

    #[test]
    fn no_client_makes_it_panic_and_pieces_do_not_matter(
        words in prop::collection::vec(prop_oneof![
            Just(b"MAIL FROM:<a@b.example>\r\n".to_vec()), Just(b"RCPT TO:<a@b.example>\r\n".to_vec()),
            Just(b"EHLO x\r\n".to_vec()), Just(b"DATA\r\n".to_vec()), Just(b"\r\n.\r\n".to_vec()), Just(b"\n.\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..10),
        ], 0..40),
        size in 1usize..30,
    ) {
        let bytes = words.concat();
        prop_assert_eq!(talk(&bytes, size), talk(&bytes, usize::MAX));
    }
}
