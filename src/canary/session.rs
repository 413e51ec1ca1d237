//! One session of the receiver's side: bytes of a mail server in, answers out (RFC 5321, 2033, 1870, 2920).
//!
//! Owns the order of commands and all caps. Refuses to know sockets, time, and what a canary is: who owns the socket says
//! what becomes of a message. Takes mail for one recipient only. Whoever does not keep to the protocol is told so, and
//! after [`MAX_ERRORS`] times left.

use checks::smtp::Dialect;
use loadgen::sink::content::Content;
use smtp_proto::{Error, Request};

/// Most bytes of a message: a canary and all that filters may add to its header.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most bytes that are read away of one that is too large, so that the answer is one that ends it.
const MAX_READ: usize = 1024 * 1024;
/// Most bytes of a command line; more than RFC 5321 section 4.5.3.1.4 and the extensions ask for.
const MAX_LINE: usize = 2048;
/// Commands that may be refused in one session.
const MAX_ERRORS: u8 = 8;
/// Commands of one session: a mail server sends some canaries in one.
const MAX_COMMANDS: u16 = 500;

/// Why [`Session::feed`] came back. In each case what it wrote to `output` is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// All input is used up.
    More,
    /// A message is complete; [`Session::answer`] comes before there is more to feed.
    Message(Vec<u8>),
    /// The session is over.
    Close,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is taken.
    Taken,
    /// It is none that is expected here.
    NotOurs,
    /// Not now.
    Busy,
}

/// One session, from the banner on.
#[derive(Debug)]
pub struct Session {
    name: String,
    dialect: Dialect,
    recipient: String,
    line: Vec<u8>,
    greeted: bool,
    mail: Mail,
    content: Content,
    errors: u8,
    commands: u16,
    over: bool,
}

/// How far a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mail {
    None,
    Sender,
    Recipient,
    Content,
}

impl Session {
    /// A session, and its banner. `name` is what we are called, `recipient` who mail is taken for.
    #[must_use]
    pub fn new(name: String, dialect: Dialect, recipient: String) -> (Self, String) {
        let protocol = if dialect == Dialect::Lmtp { "LMTP" } else { "ESMTP" };
        let banner = format!("220 {name} {protocol} smtp-director canary\r\n");
        let session = Self {
            name,
            dialect,
            recipient,
            line: Vec::new(),
            greeted: false,
            mail: Mail::None,
            content: Content::new(0),
            errors: 0,
            commands: 0,
            over: false,
        };
        (session, banner)
    }

    /// Takes input until there is none, or something happens.
    pub fn feed(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Turn {
        while !self.over {
            if self.mail == Mail::Content {
                if !self.content.take_dotted(input) {
                    self.over = self.content.size > MAX_READ;
                    return if self.over { Turn::Close } else { Turn::More };
                }
                self.mail = Mail::None;
                if self.content.size <= MAX_MESSAGE {
                    return Turn::Message(std::mem::take(&mut self.content.kept));
                }
                self.refuse("552 5.3.4 Message too big", output);
                continue;
            }
            let Some((&byte, rest)) = input.split_first() else { return Turn::More };
            *input = rest;
            self.line.push(byte);
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.command(&line, output);
            } else if self.line.len() > MAX_LINE {
                say("500 5.5.2 Line too long", output);
                self.over = true;
            }
        }
        Turn::Close
    }

    /// Answers the message that [`Turn::Message`] brought.
    pub fn answer(&mut self, answer: Answer, output: &mut Vec<u8>) {
        match answer {
            Answer::Taken => say("250 2.0.0 Canary is back", output),
            Answer::NotOurs => self.refuse("550 5.7.1 Not a canary of this director", output),
            Answer::Busy => self.refuse("451 4.3.2 Not now", output),
        }
    }

    fn command(&mut self, line: &[u8], output: &mut Vec<u8>) {
        self.commands += 1;
        if self.commands > MAX_COMMANDS {
            say("421 4.7.0 Too many commands", output);
            self.over = true;
            return;
        }
        // A bare LF ends no line: what one server takes for one line, another takes for two.
        if !line.ends_with(b"\r\n") {
            return self.refuse("500 5.5.2 Line without CR", output);
        }
        let lmtp = self.dialect == Dialect::Lmtp;
        match Request::parse(&mut line.iter()) {
            Ok(Request::Lhlo { .. }) if lmtp => self.greet(output),
            Ok(Request::Ehlo { .. }) if !lmtp => self.greet(output),
            Ok(Request::Helo { .. }) if !lmtp => {
                self.mail = Mail::None;
                self.greeted = true;
                let text = format!("250 {}", self.name);
                say(&text, output);
            }
            Ok(Request::Mail { from }) => match self.mail {
                _ if !self.greeted => self.refuse("503 5.5.1 Say hello first", output),
                Mail::None if from.size > MAX_MESSAGE => self.refuse("552 5.3.4 Message too big", output),
                Mail::None => {
                    self.mail = Mail::Sender;
                    say("250 2.1.0 Ok", output);
                }
                _ => self.refuse("503 5.5.1 Nested MAIL command", output),
            },
            Ok(Request::Rcpt { to }) => match self.mail {
                Mail::None | Mail::Content => self.refuse("503 5.5.1 Need MAIL command", output),
                _ if !to.address.eq_ignore_ascii_case(&self.recipient) => {
                    self.refuse("550 5.1.1 Takes canaries of this director only", output);
                }
                Mail::Recipient => self.refuse("452 4.5.3 Too many recipients", output),
                Mail::Sender => {
                    self.mail = Mail::Recipient;
                    say("250 2.1.5 Ok", output);
                }
            },
            Ok(Request::Data) => match self.mail {
                Mail::Recipient => {
                    self.mail = Mail::Content;
                    self.content = Content::new(MAX_MESSAGE);
                    say("354 End data with <CR><LF>.<CR><LF>", output);
                }
                Mail::Sender => self.refuse("554 5.5.1 No valid recipients", output),
                Mail::None | Mail::Content => self.refuse("503 5.5.1 Need MAIL command", output),
            },
            Ok(Request::Rset) => {
                self.mail = Mail::None;
                say("250 2.0.0 Ok", output);
            }
            Ok(Request::Noop { .. }) => say("250 2.0.0 Ok", output),
            Ok(Request::Quit) => {
                say("221 2.0.0 Bye", output);
                self.over = true;
            }
            Ok(_) => self.refuse("502 5.5.1 Command not implemented", output),
            Err(Error::UnknownCommand) => self.refuse("500 5.5.2 Unknown command", output),
            Err(_) => self.refuse("501 5.5.4 Syntax error", output),
        }
    }

    fn greet(&mut self, output: &mut Vec<u8>) {
        self.mail = Mail::None;
        self.greeted = true;
        let text = format!("250-{}", self.name);
        say(&text, output);
        let size = format!("250-SIZE {MAX_MESSAGE}");
        for text in ["250-PIPELINING", &size, "250-8BITMIME", "250 ENHANCEDSTATUSCODES"] {
            say(text, output);
        }
    }

    fn refuse(&mut self, text: &str, output: &mut Vec<u8>) {
        self.errors += 1;
        if self.errors > MAX_ERRORS {
            say("421 4.7.0 Too many errors", output);
            self.over = true;
        } else {
            say(text, output);
        }
    }
}

fn say(text: &str, output: &mut Vec<u8>) {
    output.extend_from_slice(text.as_bytes());
    output.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a session answers, each message taken, and the messages.
    fn talk(dialect: Dialect, input: &str, piece: usize) -> (Vec<String>, Vec<String>, bool) {
        let (mut session, banner) = Session::new("[127.0.0.1]".into(), dialect, "canary@example.com".into());
        assert!(banner.starts_with("220 [127.0.0.1] "));
        let (mut output, mut messages, mut over) = (Vec::new(), Vec::new(), false);
        'all: for mut bytes in input.as_bytes().chunks(piece) {
            loop {
                match session.feed(&mut bytes, &mut output) {
                    Turn::More => break,
                    Turn::Message(content) => {
                        messages.push(String::from_utf8(content).unwrap());
                        session.answer(Answer::Taken, &mut output);
                    }
                    Turn::Close => {
                        over = true;
                        break 'all;
                    }
                }
            }
        }
        let text = String::from_utf8(output).unwrap();
        let codes = text.split_terminator("\r\n").filter(|line| line.as_bytes()[3] == b' ');
        (codes.map(|line| line[..3].to_owned()).collect(), messages, over)
    }

    const ENVELOPE: &str =
        "EHLO a.example\r\nMAIL FROM:<> SIZE=700 BODY=8BITMIME\r\nRCPT TO:<Canary@Example.com>\r\n";

    #[test]
    fn a_canary_is_taken_in_any_pieces() {
        let input = format!("{ENVELOPE}DATA\r\na: b\r\n\r\n..x\r\n.\r\r\n.y\nz\n.\n\r\n.\r\nQUIT\r\n");
        for piece in [1, 2, 3, 7, 1000] {
            let (codes, messages, over) = talk(Dialect::Smtp, &input, piece);
            assert_eq!(codes, ["250", "250", "250", "354", "250", "221"], "{piece}");
            assert_eq!(messages, ["a: b\r\n\r\n.x\r\n\r\r\ny\nz\n.\n\r\n"], "{piece}");
            assert!(over);
        }
    }

    #[test]
    fn the_first_line_can_be_the_last() {
        let (codes, messages, _) = talk(Dialect::Smtp, &format!("{ENVELOPE}DATA\r\n.\r\nNOOP\r\n"), 1000);
        assert_eq!((codes[4..].join(" "), messages), ("250 250".to_owned(), vec![String::new()]));
    }

    #[test]
    fn each_command_has_its_time() {
        for (dialect, input, expected) in [
            (Dialect::Smtp, "LHLO a\r\nHELO a\r\nEHLO a\r\n", "502 250 250"),
            (Dialect::Lmtp, "EHLO a\r\nHELO a\r\nLHLO a\r\nMAIL FROM:<>\r\n", "502 502 250 250"),
            (Dialect::Smtp, "MAIL FROM:<>\r\n", "503"),
            (Dialect::Smtp, "HELO a\r\nRCPT TO:<canary@example.com>\r\nDATA\r\n", "250 503 503"),
            (Dialect::Smtp, "HELO a\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\n", "250 250 503 554"),
            (
                Dialect::Smtp,
                "HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<else@example.com>\r\nDATA\r\n",
                "250 250 550 554",
            ),
            (Dialect::Smtp, "HELO a\r\nMAIL FROM:<> SIZE=999999\r\n", "250 552"),
            (Dialect::Smtp, &format!("{ENVELOPE}RCPT TO:<canary@example.com>\r\n"), "250 250 250 452"),
            (Dialect::Smtp, &format!("{ENVELOPE}RSET\r\nDATA\r\n"), "250 250 250 250 503"),
            (Dialect::Smtp, "NOOP\nSTARTTLS\r\nVRFY a\r\nBDAT 5 LAST\r\nhello\r\n", "500 502 502 502 500"),
            (Dialect::Smtp, "GET / HTTP/1.0\r\n\r\n", "500 500"),
        ] {
            assert_eq!(talk(dialect, input, 1000).0.join(" "), expected, "{input}");
        }
    }

    #[test]
    fn whoever_asks_too_much_is_left() {
        let (codes, _, over) = talk(Dialect::Smtp, &"what\r\n".repeat(50), 1000);
        assert_eq!((codes.len(), codes.last().unwrap().as_str(), over), (9, "421", true));
        let (codes, _, over) = talk(Dialect::Smtp, &"NOOP\r\n".repeat(1000), 1000);
        assert_eq!((codes.len(), codes.last().unwrap().as_str(), over), (501, "421", true));
        let (codes, _, over) = talk(Dialect::Smtp, &"x".repeat(5000), 1000);
        assert_eq!((codes.join(" ").as_str(), over), ("500", true));
    }

    #[test]
    fn a_huge_message_is_refused_and_an_endless_one_is_left() {
        let line = format!("{}\r\n", "x".repeat(98));
        let huge = format!("{ENVELOPE}DATA\r\n{}.\r\nNOOP\r\n", line.repeat(1000));
        let (codes, messages, over) = talk(Dialect::Smtp, &huge, 4096);
        assert_eq!((codes[4..].join(" ").as_str(), messages.len(), over), ("552 250", 0, false));
        let endless = format!("{ENVELOPE}DATA\r\n{}", line.repeat(20_000));
        let (codes, messages, over) = talk(Dialect::Smtp, &endless, 4096);
        assert_eq!((codes.len(), messages.len(), over), (4, 0, true));
    }
}
