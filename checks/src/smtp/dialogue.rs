//! The conversation with an SMTP server: a reply in, the next step out.
//!
//! Owns what is said and when, what each code means for the server's health, and the last word: QUIT is said after a
//! refusal too, because a server that is left without it logs "lost connection". Refuses to know sockets and time.
//! Cannot fail: what a server says is data, and the [`Failure`] is part of the result.

mod auth;

use std::fmt;
use std::time::Duration;

use super::ehlo::{Requirement, capabilities, parameters};
use super::message::message;
use super::reply::Reply;
use super::{Dialect, SmtpSpec, is_mailbox};
use crate::credential::Credential;
use crate::tls::{Judged, TlsMode};
use crate::{Failure, Reason, Stage};

/// Longest name in EHLO (RFC 5321 section 4.5.3.1.2).
const MAX_DOMAIN: usize = 255;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say nothing; the server speaks first.
    Listen,
    /// Say this and CRLF; the next reply answers it.
    Send(String),
    /// Say `line` and CRLF, and show `shown` for it.
    SendUnshown {
        /// A secret, or a whole message.
        line: Unshown,
        /// What people see of it.
        shown: String,
    },
    /// Begin TLS, and then tell `Dialogue::secured`.
    Handshake,
    /// Close the connection: all is said.
    Close,
}

/// Text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Unshown(pub(crate) String);

impl fmt::Debug for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// What a reply leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The reply was one that lets mail flow.
    pub passed: bool,
    /// What to do next, either way.
    pub step: Step,
}

/// Which mail is being announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transaction {
    None,
    /// The one that ends with RSET.
    Asking,
    /// The one that ends with a message.
    Sending,
}

/// One conversation, from the moment that the connection stands. The server speaks first.
#[derive(Debug)]
pub struct Dialogue<'a> {
    spec: &'a SmtpSpec,
    credential: Option<Credential>,
    /// Seconds since 1970, for the date of a message.
    now: i64,
    /// What the next reply answers.
    stage: Stage,
    transaction: Transaction,
    /// The conversation is inside TLS.
    secure: bool,
    /// How many answers AUTH has had.
    challenges: u8,
    failure: Option<Failure>,
    capabilities: Vec<String>,
}

impl<'a> Dialogue<'a> {
    /// A conversation, and how it begins. The credential is the one that `spec.auth` names.
    #[must_use]
    pub fn new(spec: &'a SmtpSpec, credential: Option<Credential>, now: i64) -> (Self, Step) {
        let implicit = spec.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Implicit);
        let (stage, step) =
            if implicit { (Stage::Tls, Step::Handshake) } else { (Stage::Banner, Step::Listen) };
        let dialogue = Self {
            spec,
            credential,
            now,
            stage,
            transaction: Transaction::None,
            secure: false,
            challenges: 0,
            failure: None,
            capabilities: Vec::new(),
        };
        (dialogue, step)
    }

    /// What the next reply answers.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// How long the present stage may take.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let spec = self.spec;
        let tls = spec.tls.as_ref().map(|tls| tls.timeout);
        let auth = spec.auth.as_ref().map(|auth| auth.timeout);
        let mail = spec.mail.as_ref().map(|mail| mail.timeout);
        let data = spec.data.as_ref().map(|data| data.timeout);
        let step = match self.stage {
            Stage::Connect
            | Stage::Banner
            | Stage::Request
            | Stage::Echo
            | Stage::Command
            | Stage::Delivery
            | Stage::Agent => None,
            Stage::Tls | Stage::StartTls => tls,
            Stage::Ehlo | Stage::Helo => Some(spec.ehlo_timeout),
            Stage::Auth => auth,
            Stage::Mail | Stage::Rcpt if self.transaction == Transaction::Sending => data,
            Stage::Mail | Stage::Rcpt | Stage::Relay | Stage::Rset => mail,
            Stage::Data | Stage::EndOfData => data,
            Stage::Quit => Some(spec.quit_timeout),
        };
        step.unwrap_or(spec.banner_timeout)
    }

    /// Takes the reply of the present stage and goes to the next.
    pub fn reply(&mut self, reply: &Reply) -> Turn {
        let refusal = self.refusal(reply);
        let passed = refusal.is_none();
        let step = match (self.stage, refusal) {
            // Mail would have flowed: how the server says goodbye does not matter.
            (Stage::Quit, _) => Step::Close,
            // It failed before, and this was what the server had to say first.
            _ if self.failure.is_some() => self.quit(),
            (_, None) => self.advance(reply),
            // RFC 5321 section 3.2: a server may know only HELO. LMTP has none.
            (Stage::Ehlo, Some(failure))
                if failure.reason == Reason::Permfail && self.spec.dialect == Dialect::Smtp =>
            {
                self.hello(Stage::Helo)
            }
            (Stage::StartTls, Some(_)) if self.is_opportunistic() && reply.code != 421 => self.greeted(),
            (Stage::Auth, Some(failure)) if reply.code == 334 => {
                self.failure = Some(failure);
                // RFC 4954 section 4: only this ends an exchange that goes on.
                Step::Send("*".to_owned())
            }
            (_, Some(failure)) => {
                self.failure = Some(failure);
                self.quit()
            }
        };
        Turn { passed, step }
    }

    /// Notes that TLS stands, and what its certificate is worth.
    pub(crate) fn secured(&mut self, judged: &Judged) -> Turn {
        self.secure = true;
        self.capabilities.clear();
        let mut passed = true;
        if let Judged::Bad(reason, text) = judged
            && !self.is_opportunistic()
        {
            passed = false;
            self.failure =
                Some(Failure { stage: Stage::Tls, reason: *reason, code: None, text: text.clone() });
        }
        let implicit = self.spec.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Implicit);
        let step = match (implicit, passed) {
            // Even a server that fails has the first word.
            (true, _) => {
                self.stage = Stage::Banner;
                Step::Listen
            }
            (false, true) => self.hello(Stage::Ehlo),
            (false, false) => self.quit(),
        };
        Turn { passed, step }
    }

    /// Notes what the network did instead of a reply. The conversation is over: there is nobody to say QUIT to.
    pub fn lost(&mut self, mut failure: Failure) {
        if self.stage != Stage::Quit && self.failure.is_none() {
            failure.text = self.hushed(failure.text);
            self.failure = Some(failure);
        }
    }

    /// The lines of a reply as they may be kept: none that repeats a secret.
    #[must_use]
    pub fn shown(&self, lines: Vec<String>) -> Vec<String> {
        lines.into_iter().map(|line| self.hushed(line)).collect()
    }

    /// Whether the server is well, and what it offered in its last EHLO.
    pub fn finish(self) -> (Result<(), Failure>, Vec<String>) {
        (self.failure.map_or(Ok(()), Err), self.capabilities)
    }

    /// Goes on after a reply that lets mail flow.
    fn advance(&mut self, reply: &Reply) -> Step {
        match self.stage {
            Stage::Banner => match self.mismatch(reply) {
                Some(text) => self.fail(Stage::Banner, Reason::Mismatch, text),
                None => self.hello(Stage::Ehlo),
            },
            Stage::Ehlo => {
                self.capabilities = capabilities(reply);
                self.greeted()
            }
            Stage::Helo => {
                self.capabilities.clear();
                self.greeted()
            }
            Stage::StartTls => {
                self.stage = Stage::Tls;
                Step::Handshake
            }
            Stage::Auth => self.answer(reply),
            Stage::Mail => match (self.transaction, &self.spec.mail, &self.spec.data) {
                (Transaction::Sending, _, Some(data)) => self.recipient(Stage::Rcpt, &data.to),
                (_, Some(mail), _) => match &mail.accept {
                    Some(accept) => self.recipient(Stage::Rcpt, accept),
                    None => self.relay(),
                },
                _ => self.reset(),
            },
            Stage::Rcpt if self.transaction == Transaction::Sending => {
                self.stage = Stage::Data;
                Step::Send("DATA".to_owned())
            }
            Stage::Rcpt => self.relay(),
            Stage::Relay => self.reset(),
            Stage::Rset => self.send_message(),
            Stage::Data => match &self.spec.data {
                Some(data) => {
                    self.stage = Stage::EndOfData;
                    let line = message(data, &self.spec.ehlo_name, self.now);
                    Step::SendUnshown {
                        shown: format!("(a message of {} bytes)", line.len()),
                        line: Unshown(line),
                    }
                }
                None => self.quit(),
            },
            // The rest are not stages in which SMTP waits for a reply.
            Stage::EndOfData
            | Stage::Connect
            | Stage::Tls
            | Stage::Quit
            | Stage::Request
            | Stage::Echo
            | Stage::Command
            | Stage::Delivery
            | Stage::Agent => self.quit(),
        }
    }

    /// What is wrong with a banner whose code is right.
    fn mismatch(&self, reply: &Reply) -> Option<String> {
        let first = reply.lines.first().map(String::as_str).unwrap_or_default();
        if let Some(name) = &self.spec.banner_name {
            let said = first.get(4..).and_then(|text| text.split(' ').next()).unwrap_or_default();
            if !said.eq_ignore_ascii_case(name) {
                return Some(format!("the banner is not that of {name}: {first}"));
            }
        }
        let pattern = self.spec.banner.as_ref()?;
        let matches = reply.lines.iter().any(|line| pattern.matches(line));
        (!matches).then(|| format!("the banner does not match: {first}"))
    }

    /// Says EHLO, LHLO or HELO.
    fn hello(&mut self, stage: Stage) -> Step {
        self.stage = stage;
        let name = &self.spec.ehlo_name;
        // A line end in the name would be a second command.
        if name.is_empty() || name.len() > MAX_DOMAIN || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return self.fail(
                stage,
                Reason::Local,
                "our own EHLO name is not one that can be said".to_owned(),
            );
        }
        let verb = match (stage, self.spec.dialect) {
            (Stage::Helo, _) => "HELO",
            (_, Dialect::Smtp) => "EHLO",
            (_, Dialect::Lmtp) => "LHLO",
        };
        Step::Send(format!("{verb} {name}"))
    }

    /// Goes on after a greeting: TLS first, then what was offered, then the rest.
    fn greeted(&mut self) -> Step {
        if let Some(tls) = &self.spec.tls
            && !self.secure
            && self.stage != Stage::StartTls
        {
            let offered = parameters(&self.capabilities, "STARTTLS").is_some();
            if offered {
                self.stage = Stage::StartTls;
                return Step::Send("STARTTLS".to_owned());
            }
            if tls.mode == TlsMode::Required {
                let text = "STARTTLS is not offered".to_owned();
                return self.fail(Stage::Ehlo, Reason::MissingCapability, text);
            }
        }
        // Inside TLS it is not offered again (RFC 3207 section 4.2): it was taken.
        let taken = |one: &Requirement| self.secure && *one == Requirement::Keyword("STARTTLS".to_owned());
        let mut asked = self.spec.require.iter().filter(|one| !taken(one));
        let missing = asked.find_map(|one| one.missing(&self.capabilities));
        if let Some(text) = missing {
            return self.fail(Stage::Ehlo, Reason::MissingCapability, text);
        }
        self.authenticate()
    }

    /// Announces the mail that will not come.
    fn ask(&mut self) -> Step {
        match &self.spec.mail {
            Some(mail) => {
                self.transaction = Transaction::Asking;
                self.sender(&mail.from)
            }
            None => self.send_message(),
        }
    }

    /// Announces the message that will.
    fn send_message(&mut self) -> Step {
        match &self.spec.data {
            Some(data) => {
                self.transaction = Transaction::Sending;
                self.sender(&data.from)
            }
            None => self.quit(),
        }
    }

    fn sender(&mut self, from: &str) -> Step {
        if !from.is_empty() && !is_mailbox(from) {
            return self.fail(Stage::Mail, Reason::Local, "our own sender is not an address".to_owned());
        }
        self.stage = Stage::Mail;
        Step::Send(format!("MAIL FROM:<{from}>"))
    }

    fn recipient(&mut self, stage: Stage, to: &str) -> Step {
        if !is_mailbox(to) {
            return self.fail(stage, Reason::Local, "our own recipient is not an address".to_owned());
        }
        self.stage = stage;
        Step::Send(format!("RCPT TO:<{to}>"))
    }

    fn relay(&mut self) -> Step {
        match self.spec.mail.as_ref().and_then(|mail| mail.refuse.as_ref()) {
            Some(refuse) => self.recipient(Stage::Relay, refuse),
            None => self.reset(),
        }
    }

    fn reset(&mut self) -> Step {
        self.stage = Stage::Rset;
        Step::Send("RSET".to_owned())
    }

    fn quit(&mut self) -> Step {
        self.stage = Stage::Quit;
        Step::Send("QUIT".to_owned())
    }

    fn fail(&mut self, stage: Stage, reason: Reason, text: String) -> Step {
        self.failure = Some(Failure { stage, reason, code: None, text: short(text) });
        self.quit()
    }

    fn is_opportunistic(&self) -> bool {
        self.spec.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::Opportunistic)
    }

    /// The failure that `reply` is at the present stage, unless it is one that lets mail flow.
    fn refusal(&self, reply: &Reply) -> Option<Failure> {
        let code = reply.code;
        let passes = match self.stage {
            Stage::Connect | Stage::Tls | Stage::Banner | Stage::StartTls => code == 220,
            Stage::Ehlo | Stage::Helo | Stage::Mail | Stage::Rset | Stage::EndOfData => code == 250,
            // RFC 5321 section 4.3.2: 251 is forwarded, 252 is not verified; both take the mail.
            Stage::Rcpt => (250..=252).contains(&code),
            // Not now is also no. 421 closes the connection, whatever was asked.
            Stage::Relay => (400..=599).contains(&code) && code != 421,
            Stage::Auth => code == 235 || (code == 334 && self.wants_challenge()),
            Stage::Data => code == 354,
            Stage::Quit => code == 221,
            Stage::Request | Stage::Echo | Stage::Command | Stage::Delivery | Stage::Agent => false,
        };
        if passes {
            return None;
        }
        let reason = match code {
            200..=299 if self.stage == Stage::Relay => Reason::OpenRelay,
            400..=499 => Reason::Tempfail,
            500..=599 => Reason::Permfail,
            _ => Reason::Unexpected,
        };
        let text = self.hushed(reply.lines.first().cloned().unwrap_or_default());
        Some(Failure { stage: self.stage, reason, code: Some(code), text })
    }
}

/// At most [`super::MAX_TEXT`] bytes of a text that is printable already.
fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(super::MAX_TEXT));
    text
}

#[cfg(test)]
mod tests;
