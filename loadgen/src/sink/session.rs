//! One session of the server's side: bytes of a client in, answers out (RFC 5321, 1870, 2034, 2920, 6152).
//!
//! Owns the order of commands, the caps, and the moment when a message is accepted. Refuses to know sockets, time and
//! what becomes of a message. As strict as Postfix is with strangers: a fake that forgives hides bugs. Pipelined commands
//! may come in any pieces.

use smtp_proto::request::receiver::DataReceiver;
use smtp_proto::{Error, Request};

/// Most bytes of a command line, its end included; RFC 5321 section 4.5.3.1.4 and the extensions ask for less.
const MAX_LINE: usize = 2048;
/// Most bytes of a message, as SIZE says it; Postfix's default.
pub const MAX_MESSAGE: usize = 10_240_000;
/// Most recipients of a message; Postfix's default.
const MAX_RECIPIENTS: usize = 1000;
/// Commands refused in a session before it is ended; Postfix's default.
const MAX_ERRORS: usize = 20;

/// Why [`Session::feed`] came back. In each case what it wrote to `output` is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// All input is used up.
    More,
    /// The last answer says that this message, dots and all, is accepted. There may be more input.
    Accepted(Vec<u8>),
    /// The session is over.
    Close,
}

/// One session.
pub struct Session {
    hostname: String,
    /// The line that is not complete.
    line: Vec<u8>,
    greeted: bool,
    sender: bool,
    recipients: usize,
    errors: usize,
    data: Option<Data>,
}

struct Data {
    receiver: DataReceiver,
    content: Vec<u8>,
    too_big: bool,
}

impl Session {
    /// A session whose banner was sent.
    #[must_use]
    pub fn new(hostname: String) -> Self {
        Self {
            hostname,
            line: Vec::new(),
            greeted: false,
            sender: false,
            recipients: 0,
            errors: 0,
            data: None,
        }
    }

    /// Takes input until there is none, or something happens. `reject` is the answer to MAIL, if that is to be refused.
    pub fn feed(&mut self, input: &mut &[u8], reject: Option<&str>, output: &mut Vec<u8>) -> Turn {
        while !input.is_empty() {
            if let Some(data) = &mut self.data {
                if data.take(input)
                    && let Some(data) = self.data.take()
                {
                    self.reset();
                    if !data.too_big {
                        say(output, "250 2.0.0 Ok: queued");
                        return Turn::Accepted(data.content);
                    }
                    self.refuse(output, "552 5.3.4 Message too big");
                }
                continue;
            }
            let (piece, rest) = match input.iter().position(|&byte| byte == b'\n') {
                Some(end) => input.split_at(end + 1),
                None => (*input, &[][..]),
            };
            if self.line.len() + piece.len() > MAX_LINE {
                say(output, "500 5.5.2 Line too long");
                return Turn::Close;
            }
            *input = rest;
            self.line.extend_from_slice(piece);
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if self.command(&line, reject, output) || self.errors > MAX_ERRORS {
                    return Turn::Close;
                }
            }
        }
        Turn::More
    }

    /// Answers one command; says whether the session is over.
    fn command(&mut self, line: &[u8], reject: Option<&str>, output: &mut Vec<u8>) -> bool {
        let request = match Request::parse(&mut line.iter()) {
            Ok(request) => request,
            Err(error) => {
                self.refuse(output, syntax(&error));
                return false;
            }
        };
        match request {
            Request::Ehlo { .. } => {
                self.reset();
                self.greeted = true;
                let host = &self.hostname;
                say(output, &format!("250-{host}\r\n250-PIPELINING\r\n250-SIZE {MAX_MESSAGE}"));
                say(output, "250-ENHANCEDSTATUSCODES\r\n250 8BITMIME");
            }
            Request::Helo { .. } => {
                self.reset();
                self.greeted = true;
                say(output, &format!("250 {}", self.hostname));
            }
            Request::Mail { .. } if !self.greeted => self.refuse(output, "503 5.5.1 Send HELO or EHLO first"),
            Request::Mail { .. } if self.sender => self.refuse(output, "503 5.5.1 Nested MAIL command"),
            Request::Mail { from } if from.size > MAX_MESSAGE => {
                self.refuse(output, "552 5.3.4 Message size exceeds fixed limit");
            }
            Request::Mail { .. } => match reject {
                Some(text) => say(output, text),
                None => {
                    self.sender = true;
                    say(output, "250 2.1.0 Ok");
                }
            },
            Request::Rcpt { .. } if !self.sender => self.refuse(output, "503 5.5.1 Need MAIL command"),
            Request::Rcpt { .. } if self.recipients >= MAX_RECIPIENTS => {
                self.refuse(output, "452 4.5.3 Too many recipients");
            }
            Request::Rcpt { .. } => {
                self.recipients += 1;
                say(output, "250 2.1.5 Ok");
            }
            Request::Data if !self.sender => self.refuse(output, "503 5.5.1 Need MAIL command"),
            Request::Data if self.recipients == 0 => self.refuse(output, "554 5.5.1 No valid recipients"),
            Request::Data => {
                self.data = Some(Data::new());
                say(output, "354 End data with <CR><LF>.<CR><LF>");
            }
            Request::Rset => {
                self.reset();
                say(output, "250 2.0.0 Ok");
            }
            Request::Noop { .. } => say(output, "250 2.0.0 Ok"),
            Request::Vrfy { .. } => say(output, "252 2.0.0 Send some mail and see"),
            Request::Quit => {
                say(output, "221 2.0.0 Bye");
                return true;
            }
            _ => self.refuse(output, "502 5.5.1 Command not implemented"),
        }
        false
    }

    fn refuse(&mut self, output: &mut Vec<u8>, text: &str) {
        self.errors += 1;
        if self.errors > MAX_ERRORS {
            say(output, "421 4.7.0 Too many errors");
        } else {
            say(output, text);
        }
    }

    /// Forgets the envelope.
    fn reset(&mut self) {
        (self.sender, self.recipients) = (false, 0);
    }
}

impl Data {
    fn new() -> Self {
        let (mut receiver, mut content) = (DataReceiver::new(), Vec::new());
        // smtp-proto 0.2.5 sees a dot only after a CRLF that it saw; here that one ended the DATA command.
        receiver.ingest(&mut b"\r\n".iter(), &mut content);
        content.clear();
        Self { receiver, content, too_big: false }
    }

    /// Takes input up to the final dot, and says whether that was there.
    fn take(&mut self, input: &mut &[u8]) -> bool {
        let mut bytes = input.iter();
        let end = self.receiver.ingest(&mut bytes, &mut self.content);
        *input = bytes.as_slice();
        if self.content.len() > MAX_MESSAGE {
            self.too_big = true;
            self.content = Vec::new();
        }
        end
    }
}

fn say(output: &mut Vec<u8>, text: &str) {
    output.extend_from_slice(text.as_bytes());
    output.extend_from_slice(b"\r\n");
}

fn syntax(error: &Error) -> &'static str {
    match error {
        Error::UnknownCommand => "500 5.5.2 Command not recognized",
        Error::InvalidSenderAddress => "501 5.1.7 Bad sender address syntax",
        Error::InvalidRecipientAddress => "501 5.1.3 Bad recipient address syntax",
        Error::UnsupportedParameter { .. } => "555 5.5.4 Unsupported parameter",
        _ => "501 5.5.4 Syntax error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use proptest::prelude::*;

    /// What a session answers to `bytes` in pieces of `size`, what it accepts, and whether it is over.
    fn talk(bytes: &[u8], size: usize) -> (String, Vec<Vec<u8>>, bool) {
        let (mut session, mut output, mut accepted) = (Session::new("sink".into()), Vec::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            loop {
                match session.feed(&mut piece, None, &mut output) {
                    Turn::More => break,
                    Turn::Accepted(content) => accepted.push(content),
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
        let (mut session, mut output) = (Session::new("sink".into()), Vec::new());
        session.feed(&mut &b"HELO x\r\n"[..], None, &mut output);
        for (reject, answer) in [(Some("451 4.7.1 Later"), "451 4.7.1 Later\r\n"), (None, "250 2.1.0 Ok\r\n")]
        {
            output.clear();
            session.feed(&mut &b"MAIL FROM:<a@b.example>\r\n"[..], reject, &mut output);
            assert_eq!(output, answer.as_bytes());
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
}
