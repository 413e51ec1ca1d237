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
    /// What stands in `output` from here on is to be treated so; then this message is accepted.
    Ill(Act, usize, Option<Accepted>),
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
    /// The message that it accepts, where all of it comes in the end.
    late: Option<Accepted>,
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
            late: None,
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
                return Turn::Ill(act, from, self.late.take());
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
        let accepted = Accepted { size: content.size, content: content.kept, recipients };
        match &self.ill {
            None => Some(Turn::Accepted(accepted)),
            Some((Act::Delay(_) | Act::Dribble(_), _)) => {
                self.late = Some(accepted);
                None
            }
            // The client does not hear of it as it should, so it counts for nobody.
            Some(_) => None,
        }
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
mod tests;
