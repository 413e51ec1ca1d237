//! The conversation with a server that speaks in lines: a reply in, the next step out.
//!
//! Owns what is said and when, what each reply means for the server's health, and the last word: QUIT or LOGOUT is said
//! after a refusal too. Refuses to know sockets and time. Cannot fail: what a server says is data, and the
//! [`Failure`] is part of the result.

use std::collections::VecDeque;

use super::reply::{Reply, ReplyKind};
use super::script::{Move, Want, goodbye, greeting, moves};
use super::{LineSpec, Protocol};
use crate::credential::Credential;
use crate::smtp::dialogue::Unshown;
use crate::{Failure, Reason, Stage};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say nothing; the server speaks.
    Listen,
    /// Say this and CRLF; the next reply answers it.
    Send {
        /// Perhaps a secret.
        line: Unshown,
        /// What people see of it.
        shown: String,
    },
    /// Open a data connection to this port of the server, and then say `Dialogue::opened`.
    Open(u16),
    /// Read the file from the data connection, and then say `Dialogue::fetched`.
    Fetch,
    /// Close the connection: all is said.
    Close,
}

/// What a reply leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The reply was a good one.
    pub passed: bool,
    /// What to do next, either way.
    pub step: Step,
}

/// One conversation, from the moment that the connection stands. The server speaks first.
pub struct Dialogue<'a> {
    spec: &'a LineSpec,
    credential: Option<Credential>,
    stage: Stage,
    want: Want,
    moves: VecDeque<Move>,
    /// How many commands were said.
    commands: u32,
    failure: Option<Failure>,
}

impl<'a> Dialogue<'a> {
    /// A conversation that begins with [`Step::Listen`]. The credential is the one that `spec.login` names.
    #[must_use]
    pub fn new(spec: &'a LineSpec, credential: Option<Credential>) -> Self {
        Self {
            spec,
            stage: Stage::Banner,
            want: greeting(spec.protocol),
            moves: moves(spec, credential.as_ref()),
            credential,
            commands: 0,
            failure: None,
        }
    }

    /// What the next reply answers.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes the reply of the present stage and goes to the next.
    pub fn reply(&mut self, reply: &Reply) -> Turn {
        if self.stage == Stage::Quit {
            // The server is well, or it is known why not: how it says goodbye does not matter.
            return Turn { passed: reply.kind == ReplyKind::Done, step: Step::Close };
        }
        if self.failure.is_some() {
            return Turn { passed: false, step: self.quit() };
        }
        let ours = self.spec.protocol != Protocol::Imap || reply.tag == self.tag(reply.kind);
        let step = match (self.want, reply.kind) {
            _ if !ours => self.fail(Reason::Protocol, reply),
            (Want::DoneAtLast, ReplyKind::Begun) => return Turn { passed: true, step: Step::Listen },
            (Want::Done | Want::DoneAtLast, ReplyKind::Done)
            | (Want::More | Want::MoreOrDone, ReplyKind::More) => self.next(),
            (Want::Codes(codes), ReplyKind::Done) if reply.code.is_some_and(|code| codes.contains(&code)) => {
                self.next()
            }
            (Want::MoreOrDone, ReplyKind::Done) => {
                self.moves.pop_front();
                self.next()
            }
            (Want::Port, ReplyKind::Done) => {
                self.moves.pop_front();
                self.open(extended_port(&reply.text), reply)
            }
            // RFC 2428 section 3: an older server has only PASV.
            (Want::Port, ReplyKind::Permanent) => self.next(),
            (Want::OldPort, ReplyKind::Done) => self.open(old_port(&reply.text), reply),
            (Want::File, ReplyKind::Begun) => {
                self.want = Want::Done;
                return Turn { passed: true, step: Step::Fetch };
            }
            (_, ReplyKind::Temporary) => self.fail(Reason::Tempfail, reply),
            (_, ReplyKind::Permanent) => self.fail(Reason::Permfail, reply),
            _ => self.fail(Reason::Unexpected, reply),
        };
        Turn { passed: self.failure.is_none(), step }
    }

    /// Notes that the data connection stands.
    pub fn opened(&mut self) -> Step {
        self.next()
    }

    /// Notes what the file holds; `None` where it is longer than anybody would read.
    pub fn fetched(&mut self, content: Option<&[u8]>) -> Step {
        let pattern = self.spec.fetch.as_ref().and_then(|fetch| fetch.receive.as_ref());
        let failed = match (content, pattern) {
            (None, _) => Some((Reason::TooLong, "the file is too long")),
            (Some(content), Some(pattern)) => (!pattern.matches(&String::from_utf8_lossy(content)))
                .then_some((Reason::Mismatch, "the file does not match")),
            (Some(_), None) => None,
        };
        self.failure = failed.map(|(reason, text)| Failure {
            stage: self.stage,
            reason,
            code: None,
            text: text.to_owned(),
        });
        Step::Listen
    }

    /// Notes what the network did instead of a reply. The conversation is over: there is nobody to say goodbye to.
    pub fn lost(&mut self, reason: Reason, text: String) {
        if self.stage != Stage::Quit && self.failure.is_none() {
            let text = self.hushed(text);
            self.failure = Some(Failure { stage: self.stage, reason, code: None, text });
        }
    }

    /// The lines of a reply as they may be kept: none that repeats a secret.
    #[must_use]
    pub fn shown(&self, lines: Vec<String>) -> Vec<String> {
        lines.into_iter().map(|line| self.hushed(line)).collect()
    }

    /// Whether the server is well.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn finish(self) -> Result<(), Failure> {
        self.failure.map_or(Ok(()), Err)
    }

    /// The tag that a reply of this kind must have.
    fn tag(&self, kind: ReplyKind) -> Option<u32> {
        (kind != ReplyKind::More && self.commands > 0).then_some(self.commands)
    }

    fn next(&mut self) -> Step {
        match self.moves.pop_front() {
            Some(next) => self.say(&next),
            None => self.quit(),
        }
    }

    fn quit(&mut self) -> Step {
        self.say(&goodbye(self.spec.protocol))
    }

    fn say(&mut self, next: &Move) -> Step {
        (self.stage, self.want) = (next.stage, next.want);
        if !next.continues {
            self.commands += 1;
        }
        let tag = match self.spec.protocol {
            Protocol::Imap if !next.continues => format!("a{} ", self.commands),
            _ => String::new(),
        };
        let shown = format!("{tag}{}", next.shown.unwrap_or(&next.line));
        Step::Send { line: Unshown(format!("{tag}{}", next.line)), shown }
    }

    fn open(&mut self, port: Option<u16>, reply: &Reply) -> Step {
        match port {
            Some(port) => Step::Open(port),
            None => self.fail(Reason::Protocol, reply),
        }
    }

    fn fail(&mut self, reason: Reason, reply: &Reply) -> Step {
        let text = self.hushed(reply.text.clone());
        self.failure = Some(Failure { stage: self.stage, reason, code: reply.code, text });
        self.quit()
    }

    /// A text that may be kept.
    fn hushed(&self, text: String) -> String {
        match &self.credential {
            Some(credential) if credential.is_in(&text) => "…".to_owned(),
            _ => text,
        }
    }
}

/// The port of `229 … (|||6446|)`; the delimiter may be any character.
fn extended_port(text: &str) -> Option<u16> {
    let (_, inside) = text.split_once('(')?;
    let (inside, _) = inside.rsplit_once(')')?;
    let delimiter = inside.chars().next()?;
    let mut fields = inside.split(delimiter);
    // Before the first delimiter; network; address.
    fields.by_ref().take(3).for_each(drop);
    fields.next()?.parse().ok().filter(|&port| port != 0)
}

/// The port of `227 … (h1,h2,h3,h4,p1,p2)`. The address is left aside: no server sends us to another one.
fn old_port(text: &str) -> Option<u16> {
    let start = text.get(4..)?.find(|char: char| char.is_ascii_digit())? + 4;
    let numbers = text.get(start..)?.split(|char: char| !char.is_ascii_digit() && char != ',').next()?;
    let numbers: Vec<u8> = numbers.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    match numbers[..] {
        [_, _, _, _, high, low] => Some(u16::from_be_bytes([high, low])).filter(|&port| port != 0),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
