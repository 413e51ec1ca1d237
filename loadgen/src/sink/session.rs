//! One session of the server's side: bytes of a client in, answers out (RFC 5321, 1870, 2033, 2034, 2920, 3030, 3207,
//! 4954, 6152, 6531).
//!
//! Owns the order of commands, the caps, and the moment when a message is accepted. Refuses to know sockets, time, odds,
//! and what becomes of a message. As strict as Postfix is with strangers: a fake that forgives hides bugs. Pipelined
//! commands may come in any pieces.

use smtp_proto::{AUTH_LOGIN, AUTH_PLAIN, Error, Request};

use super::content::Content;
use super::fault::{Act, Stage};

/// Most bytes of a command line, its end included; RFC 5321 section 4.5.3.1.4 and the extensions ask for less, a
/// response of AUTH for more (RFC 4954 section 4).
const MAX_LINE: usize = 12_288 + 2;
/// Most bytes of a message, as SIZE says it; Postfix's default.
pub const MAX_MESSAGE: usize = 10_240_000;
/// Most recipients of a message; Postfix's default.
const MAX_RECIPIENTS: usize = 1000;
/// Commands refused in a session before it is ended; Postfix's default.
const MAX_ERRORS: usize = 20;

/// What a sink can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "that is what capabilities are")]
pub struct Abilities {
    /// LHLO instead of EHLO, and an answer for each recipient.
    pub lmtp: bool,
    /// STARTTLS is offered.
    pub starttls: bool,
    /// AUTH PLAIN and LOGIN are offered; any user is let in.
    pub auth: bool,
    /// BDAT is offered.
    pub chunking: bool,
    /// PIPELINING is offered.
    pub pipelining: bool,
    /// SMTPUTF8 is offered.
    pub utf8: bool,
    /// Largest message, in bytes.
    pub max_message: usize,
    /// Bytes of each message that are kept.
    pub keep: usize,
}

impl Default for Abilities {
    fn default() -> Self {
        Self {
            lmtp: false,
            starttls: false,
            auth: false,
            chunking: false,
            pipelining: true,
            utf8: false,
            max_message: MAX_MESSAGE,
            keep: usize::MAX,
        }
    }
}

/// A message that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What was kept of it, its dots as they were meant.
    pub content: Vec<u8>,
    /// Bytes of the whole.
    pub size: usize,
    /// How many are to get it.
    pub recipients: usize,
}

/// Why [`Session::feed`] came back. In each case what it wrote to `output` is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// All input is used up.
    More,
    /// The last answer says that this message is accepted. There may be more input.
    Accepted(Accepted),
    /// TLS begins now. Input that is left came in the clear and must not be used.
    StartTls,
    /// What stands in `output` from here on is to be treated so.
    Ill(Act, usize),
    /// The session is over.
    Close,
}

/// One session.
pub struct Session {
    hostname: String,
    abilities: Abilities,
    secure: bool,
    /// The line that is not complete.
    line: Vec<u8>,
    greeted: bool,
    sender: bool,
    recipients: usize,
    errors: usize,
    /// What a login waits for.
    login: Login,
    authenticated: bool,
    body: Body,
    content: Content,
    /// An illness of the answer that was just written.
    ill: Option<(Act, usize)>,
    over: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    None,
    /// The only or last line.
    Last,
    /// The user, and then the password.
    User,
}

/// What input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// Commands.
    None,
    /// Content up to the final dot.
    Dotted,
    /// So many bytes of content.
    Chunk { left: usize, last: bool },
}

impl Session {
    /// A session whose banner was sent.
    #[must_use]
    pub fn new(hostname: String, abilities: Abilities) -> Self {
        Self {
            hostname,
            abilities,
            secure: false,
            line: Vec::new(),
            greeted: false,
            sender: false,
            recipients: 0,
            errors: 0,
            login: Login::None,
            authenticated: false,
            body: Body::None,
            content: Content::new(abilities.keep),
            ill: None,
            over: false,
        }
    }

    /// TLS has begun: the client must greet again (RFC 3207 section 4.2).
    pub fn secured(&mut self) {
        self.secure = true;
        self.greeted = false;
        self.reset();
    }

    /// Takes input until there is none, or something happens. `ill` says what befalls the answer of a stage.
    pub fn feed(
        &mut self,
        input: &mut &[u8],
        ill: &mut dyn FnMut(Stage) -> Option<Act>,
        output: &mut Vec<u8>,
    ) -> Turn {
        loop {
            let turn = match self.body {
                Body::Dotted => {
                    if !self.content.take_dotted(input) {
                        return Turn::More;
                    }
                    self.body = Body::None;
                    self.accept(ill, output)
                }
                Body::Chunk { left, last } => {
                    let taken = self.content.take(input, left);
                    if taken < left {
                        self.body = Body::Chunk { left: left - taken, last };
                        return Turn::More;
                    }
                    self.body = Body::None;
                    if last && self.sender && self.recipients > 0 {
                        self.accept(ill, output)
                    } else {
                        self.chunked(output);
                        None
                    }
                }
                Body::None => match self.command_line(input, ill, output) {
                    Some(turn) => turn,
                    None => return if self.over { Turn::Close } else { Turn::More },
                },
            };
            if let Some((act, from)) = self.ill.take() {
                return Turn::Ill(act, from);
            }
            match turn {
                Some(turn) => return turn,
                None if self.over || self.errors > MAX_ERRORS => return Turn::Close,
                None => {}
            }
        }
    }

    /// Takes one line and answers it; `None`: there is no whole line.
    #[expect(clippy::option_option, reason = "no line, or a line that makes no turn")]
    fn command_line(
        &mut self,
        input: &mut &[u8],
        ill: &mut dyn FnMut(Stage) -> Option<Act>,
        output: &mut Vec<u8>,
    ) -> Option<Option<Turn>> {
        if input.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', input);
        let (piece, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
        if self.line.len() + piece.len() > MAX_LINE {
            say(output, "500 5.5.2 Line too long");
            self.over = true;
            return None;
        }
        *input = rest;
        if end.is_none() {
            self.line.extend_from_slice(piece);
            return None;
        }
        if self.line.is_empty() {
            return Some(self.command(piece, ill, output));
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(piece);
        let turn = self.command(&line, ill, output);
        line.clear();
        self.line = line;
        Some(turn)
    }

    /// Whether an illness has taken the place of a stage's answer.
    fn is_ill(
        &mut self,
        stage: Stage,
        ill: &mut dyn FnMut(Stage) -> Option<Act>,
        output: &mut Vec<u8>,
    ) -> bool {
        match ill(stage) {
            None => false,
            Some(Act::Reject(text)) => {
                say(output, &text);
                self.over |= text.starts_with("421");
                true
            }
            Some(act) => {
                // The answer is written as if nothing were wrong; the act is done to it.
                self.ill = Some((act, output.len()));
                false
            }
        }
    }

    /// Answers one command.
    fn command(
        &mut self,
        line: &[u8],
        ill: &mut dyn FnMut(Stage) -> Option<Act>,
        output: &mut Vec<u8>,
    ) -> Option<Turn> {
        if self.login != Login::None {
            self.log_in(line, output);
            return None;
        }
        let request = match Request::parse(&mut line.iter()) {
            Ok(request) => request,
            Err(error) => {
                self.refuse(output, syntax(&error));
                return None;
            }
        };
        let stage = stage(&request);
        if let Some(stage) = stage
            && self.is_ill(stage, ill, output)
        {
            if let Request::Bdat { chunk_size, .. } = request {
                self.begin_chunk(chunk_size, false);
            }
            return None;
        }
        match request {
            Request::Ehlo { .. } if !self.abilities.lmtp => self.greet(output),
            Request::Lhlo { .. } if self.abilities.lmtp => self.greet(output),
            Request::Helo { .. } if !self.abilities.lmtp => {
                self.reset();
                self.greeted = true;
                say(output, &format!("250 {}", self.hostname));
            }
            Request::StartTls if self.abilities.starttls && !self.secure => {
                say(output, "220 2.0.0 Ready to start TLS");
                return Some(Turn::StartTls);
            }
            Request::Auth { mechanism, initial_response } if self.abilities.auth => {
                self.begin_login(mechanism, &initial_response, output);
            }
            Request::Mail { .. } | Request::Rcpt { .. } | Request::Data | Request::Bdat { .. } => {
                self.transact(&request, output);
            }
            Request::Rset => {
                self.reset();
                say(output, "250 2.0.0 Ok");
            }
            Request::Noop { .. } => say(output, "250 2.0.0 Ok"),
            Request::Vrfy { .. } => say(output, "252 2.0.0 Send some mail and see"),
            Request::Quit => {
                say(output, "221 2.0.0 Bye");
                self.over = true;
            }
            _ => self.refuse(output, "502 5.5.1 Command not implemented"),
        }
        None
    }

    fn greet(&mut self, output: &mut Vec<u8>) {
        self.reset();
        self.greeted = true;
        let Abilities { starttls, auth, chunking, pipelining, utf8, max_message, .. } = self.abilities;
        say(output, &format!("250-{}", self.hostname));
        if pipelining {
            say(output, "250-PIPELINING");
        }
        say(output, &format!("250-SIZE {max_message}"));
        for (offered, text) in [
            (starttls && !self.secure, "250-STARTTLS"),
            (auth, "250-AUTH PLAIN LOGIN"),
            (chunking, "250-CHUNKING"),
            (utf8, "250-SMTPUTF8"),
            (true, "250-ENHANCEDSTATUSCODES"),
            (true, "250 8BITMIME"),
        ] {
            if offered {
                say(output, text);
            }
        }
    }

    fn begin_login(&mut self, mechanism: u64, initial: &str, output: &mut Vec<u8>) {
        if !self.greeted || self.authenticated || self.sender {
            return self.refuse(output, "503 5.5.1 AUTH is not allowed now");
        }
        self.login = match (mechanism, initial.is_empty()) {
            (AUTH_PLAIN, true) => {
                say(output, "334 ");
                Login::Last
            }
            (AUTH_PLAIN, false) => {
                self.authenticated = true;
                say(output, "235 2.7.0 Authentication successful");
                Login::None
            }
            (AUTH_LOGIN, true) => {
                say(output, "334 VXNlcm5hbWU6");
                Login::User
            }
            (AUTH_LOGIN, false) => {
                say(output, "334 UGFzc3dvcmQ6");
                Login::Last
            }
            _ => return self.refuse(output, "504 5.5.4 Mechanism not supported"),
        };
    }

    fn log_in(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let before = std::mem::replace(&mut self.login, Login::None);
        if line.trim_ascii() == b"*" {
            return self.refuse(output, "501 5.7.0 Authentication aborted");
        }
        if before == Login::User {
            self.login = Login::Last;
            return say(output, "334 UGFzc3dvcmQ6");
        }
        self.authenticated = true;
        say(output, "235 2.7.0 Authentication successful");
    }

    fn transact(&mut self, request: &Request<std::borrow::Cow<'_, str>>, output: &mut Vec<u8>) {
        match request {
            Request::Mail { .. } if !self.greeted => self.refuse(output, "503 5.5.1 Send HELO or EHLO first"),
            Request::Mail { .. } if self.sender => self.refuse(output, "503 5.5.1 Nested MAIL command"),
            Request::Mail { from } if from.size > self.abilities.max_message => {
                self.refuse(output, "552 5.3.4 Message size exceeds fixed limit");
            }
            Request::Mail { .. } => {
                self.sender = true;
                say(output, "250 2.1.0 Ok");
            }
            Request::Bdat { chunk_size, is_last } => self.begin_chunk(*chunk_size, *is_last),
            _ if !self.sender => self.refuse(output, "503 5.5.1 Need MAIL command"),
            Request::Rcpt { .. } if self.recipients >= MAX_RECIPIENTS => {
                self.refuse(output, "452 4.5.3 Too many recipients");
            }
            Request::Rcpt { .. } => {
                self.recipients += 1;
                say(output, "250 2.1.5 Ok");
            }
            _ if self.recipients == 0 => self.refuse(output, "554 5.5.1 No valid recipients"),
            _ => {
                self.content = Content::new(self.abilities.keep);
                self.body = Body::Dotted;
                say(output, "354 End data with <CR><LF>.<CR><LF>");
            }
        }
    }

    /// The bytes of a chunk come whatever we think of it.
    fn begin_chunk(&mut self, left: usize, last: bool) {
        self.body = Body::Chunk { left, last };
    }

    /// Answers a chunk that is not the end of a message.
    fn chunked(&mut self, output: &mut Vec<u8>) {
        if self.ill.is_none() && output.ends_with(b"\r\n") && self.over {
            return;
        }
        if !self.sender {
            self.content = Content::new(self.abilities.keep);
            self.refuse(output, "503 5.5.1 Need MAIL command");
        } else if self.recipients == 0 {
            self.content = Content::new(self.abilities.keep);
            self.refuse(output, "554 5.5.1 No valid recipients");
        } else {
            say(output, "250 2.0.0 Ok: chunk");
        }
    }

    /// The content is complete.
    fn accept(&mut self, ill: &mut dyn FnMut(Stage) -> Option<Act>, output: &mut Vec<u8>) -> Option<Turn> {
        let recipients = self.recipients;
        let content = std::mem::replace(&mut self.content, Content::new(self.abilities.keep));
        self.reset();
        if self.is_ill(Stage::Body, ill, output) {
            return None;
        }
        if content.size > self.abilities.max_message {
            self.refuse(output, "552 5.3.4 Message too big");
            return None;
        }
        let answers = if self.abilities.lmtp { recipients } else { 1 };
        for _ in 0..answers {
            say(output, "250 2.0.0 Ok: queued");
        }
        if self.ill.is_some() {
            // The client does not hear of it as it should, so it counts for nobody.
            return None;
        }
        Some(Turn::Accepted(Accepted { size: content.size, content: content.kept, recipients }))
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
        if self.content.size > 0 {
            self.content = Content::new(self.abilities.keep);
        }
    }
}

fn stage(request: &Request<std::borrow::Cow<'_, str>>) -> Option<Stage> {
    Some(match request {
        Request::Ehlo { .. } | Request::Helo { .. } | Request::Lhlo { .. } => Stage::Ehlo,
        Request::StartTls => Stage::Starttls,
        Request::Auth { .. } => Stage::Auth,
        Request::Mail { .. } => Stage::Mail,
        Request::Rcpt { .. } => Stage::Rcpt,
        Request::Data => Stage::Data,
        Request::Rset => Stage::Rset,
        Request::Quit => Stage::Quit,
        _ => return None,
    })
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
        let all =
            Abilities { starttls: true, auth: true, chunking: true, utf8: true, ..Abilities::default() };
        let all_lmtp = Abilities { lmtp: true, ..all };
        let lines = |text: &str| text.replace('|', "\r\n").into_bytes();
        let mail = "MAIL FROM:<a@example.com>|RCPT TO:<b@example.com>|RCPT TO:<c@example.com>|";
        for (abilities, said, expected) in [
            (
                all,
                "EHLO x|STARTTLS|MAIL FROM:<a@b.example>|EHLO x|STARTTLS|".to_owned(),
                "250 220 503 250 502",
            ),
            (all, "EHLO x|AUTH PLAIN AHUAcA==|AUTH LOGIN|".to_owned(), "250 235 503"),
            (all, "EHLO x|AUTH LOGIN|dQ==|cA==|NOOP|".to_owned(), "250 334 334 235 250"),
            (all, "EHLO x|AUTH PLAIN|*|NOOP|".to_owned(), "250 334 501 250"),
            (all, format!("EHLO x|{mail}BDAT 5|ab|.BDAT 3 LAST|.|NOOP|"), "250 250 250 250 250 250 250"),
            (all, "EHLO x|BDAT 3 LAST|a|NOOP|".to_owned(), "250 503 250"),
            (all_lmtp, format!("LHLO x|{mail}DATA|x|.|EHLO x|"), "250 250 250 250 354 250 250 502"),
            (Abilities::default(), "EHLO x|STARTTLS|AUTH PLAIN AHUAcA==|".to_owned(), "250 502 502"),
        ] {
            let (answers, accepted, _) = talk_with(abilities, &lines(&said), 7);
            let codes: Vec<&str> =
                answers.lines().filter(|l| l.as_bytes()[3] == b' ').map(|l| &l[..3]).collect();
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
}
