//! EDGE: takes a conversation of messages through a connection, in time.
//!
//! Owns the order of reads and writes, the cap on what a server may say ([`MAX_SESSION`]) and the polite end.
//! Refuses to know what is said and what it means: that is a [`Talk`], which is pure. Fails with what the talk or
//! the connection says.
#![expect(clippy::disallowed_methods, reason = "EDGE: measures each stage and keeps its deadline")]

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::credential::Credential;
use crate::run::after;
use crate::smtp::reply::printable;
use crate::stream::{GOODBYE, Stream};
use crate::tls::handshake::{broken, handshake};
use crate::tls::{Judged, TlsMode, TlsReport, TlsSpec};
use crate::{Failure, Outcome, Reason, Stage, StageReport};

/// Most bytes that a server may say in a whole conversation: more is [`Reason::TooLong`].
pub const MAX_SESSION: usize = 64 * 1024;
/// Bytes of one read.
const READ: usize = 2048;

/// One side of a conversation: a message in, the next step out.
pub trait Talk {
    /// What is being waited for.
    fn stage(&self) -> Stage;

    /// What comes first.
    fn open(&mut self) -> Step;

    /// The length of the message that `bytes` begin with, more than 0; `None` while that cannot be said.
    ///
    /// # Errors
    /// These bytes begin no message.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Trouble>;

    /// What follows from one whole message.
    ///
    /// # Errors
    /// The server is not well.
    fn hear(&mut self, message: &[u8]) -> Result<Turn, Trouble>;

    /// What follows [`Step::Secure`].
    fn secured(&mut self) -> Step {
        Step::Leave
    }

    /// The last words, said whatever came before.
    fn goodbye(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// What [`Step::Secure`] is made of.
    fn tls(&self) -> Option<&TlsSpec> {
        None
    }

    /// What must not be shown, should a server repeat it.
    fn credential(&self) -> Option<&Credential> {
        None
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for a message.
    Listen,
    /// Say this, then wait for a message.
    Say(Vec<u8>),
    /// Say this, if anything, and begin TLS; then ask [`Talk::secured`].
    Secure(Vec<u8>),
    /// All is well: say goodbye.
    Leave,
}

/// What a message came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What to do next.
    pub step: Step,
    /// The stage that ended well with it.
    pub passed: Option<Passed>,
}

/// A stage that was gone through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which one.
    pub stage: Stage,
    /// The server's number for how it went, where it has one.
    pub code: Option<u16>,
    /// What we said, as it may be shown.
    pub sent: String,
    /// What came back, each line printable.
    pub received: Vec<String>,
}

/// Why a server is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind of trouble.
    pub reason: Reason,
    /// The server's number for it, where it has one.
    pub code: Option<u16>,
    /// One printable line.
    pub text: String,
}

impl Turn {
    /// Nothing ended yet.
    pub(crate) fn just(step: Step) -> Self {
        Self { step, passed: None }
    }
}

impl Trouble {
    /// With a text that may come from the server.
    pub(crate) fn new(reason: Reason, text: impl AsRef<[u8]>) -> Self {
        Self { reason, code: None, text: printable(text.as_ref()) }
    }

    /// Not the protocol that was expected.
    pub(crate) fn protocol(text: &str) -> Self {
        Self::new(Reason::Protocol, text)
    }

    /// With the server's number.
    pub(crate) fn coded(self, code: impl Into<Option<u16>>) -> Self {
        Self { code: code.into(), ..self }
    }

    pub(crate) fn at(self, stage: Stage) -> Failure {
        Failure { stage, reason: self.reason, code: self.code, text: self.text }
    }
}

impl From<(Reason, String)> for Trouble {
    fn from((reason, text): (Reason, String)) -> Self {
        Self { reason, code: None, text }
    }
}

/// A text as it may be shown beside a secret.
pub(crate) fn hushed(text: String, credential: Option<&Credential>) -> String {
    if credential.is_some_and(|credential| credential.is_in(&text)) {
        return "(the server repeats the credential)".to_owned();
    }
    text
}

/// Talks to the server until it is clear how it is, at the latest until `deadline`. Reports to `outcome`.
pub(crate) async fn converse(
    stream: Stream,
    talk: &mut impl Talk,
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut line = Line { stream: Some(stream), buffer: Vec::new(), heard: 0 };
    let mut start = Instant::now();
    let mut step = talk.open();
    let verdict = loop {
        let stage = if matches!(step, Step::Secure(_)) { Stage::Tls } else { talk.stage() };
        let done = match timeout_at(deadline, line.perform(step, talk)).await {
            Ok(done) => done,
            Err(_) => Err(Trouble::new(Reason::Timeout, "")),
        };
        let passed = match done {
            Ok(Done::Heard(turn)) => {
                step = turn.step;
                turn.passed
            }
            Ok(Done::Secured(judged, report)) => {
                let received = vec![report.to_string()];
                outcome.tls = Some(report);
                let must = talk.tls().is_some_and(|tls| tls.mode != TlsMode::Opportunistic);
                if let (Judged::Bad(reason, text), true) = (judged, must) {
                    break Err(Trouble { reason, code: None, text }.at(Stage::Tls));
                }
                step = talk.secured();
                Some(Passed { stage, code: None, sent: String::new(), received })
            }
            Err(trouble) => {
                let text = hushed(trouble.text, talk.credential());
                break Err(Trouble { text, ..trouble }.at(stage));
            }
        };
        if let Some(passed) = passed {
            outcome.stages.push(report(passed, talk.credential(), &mut start));
        }
        if step == Step::Leave {
            break Ok(());
        }
    };
    let limit = (Instant::now() + GOODBYE).min(deadline);
    let left = timeout_at(limit, line.leave(&talk.goodbye())).await;
    if verdict.is_ok() && matches!(left, Ok(Ok(()))) {
        let quit = Passed { stage: Stage::Quit, code: None, sent: String::new(), received: Vec::new() };
        outcome.stages.push(report(quit, None, &mut start));
    }
    verdict
}

/// What is told of a stage that began at `start` and ends now.
pub(crate) fn report(passed: Passed, credential: Option<&Credential>, start: &mut Instant) -> StageReport {
    let Passed { stage, code, sent, received } = passed;
    let received = received.into_iter().map(|line| hushed(line, credential)).collect();
    let took = start.elapsed();
    *start = Instant::now();
    StageReport { stage, took, code, sent, received }
}

struct Line {
    /// Gone when a handshake took it, and failed.
    stream: Option<Stream>,
    /// What came and was not heard yet.
    buffer: Vec<u8>,
    /// All bytes that ever came.
    heard: usize,
}

enum Done {
    Heard(Turn),
    Secured(Judged, TlsReport),
}

impl Line {
    async fn perform(&mut self, step: Step, talk: &mut impl Talk) -> Result<Done, Trouble> {
        match step {
            // Boxed: few conversations have TLS.
            Step::Secure(bytes) => {
                self.write(&bytes).await.map_err(|error| broken(&error))?;
                return Box::pin(self.secure(talk)).await;
            }
            Step::Say(bytes) => self.write(&bytes).await.map_err(|error| broken(&error))?,
            Step::Listen | Step::Leave => {}
        }
        let length = loop {
            match talk.length(&self.buffer)? {
                Some(length) if length > MAX_SESSION => return Err(self.too_long()),
                Some(length) if length <= self.buffer.len() => break length,
                Some(_) | None => {}
            }
            if self.heard >= MAX_SESSION {
                return Err(self.too_long());
            }
            let read = self.read().await.map_err(|error| broken(&error))?;
            if read == 0 {
                return Err(Trouble::new(Reason::Closed, &self.buffer));
            }
            self.heard += read;
        };
        let rest = self.buffer.split_off(length);
        let message = std::mem::replace(&mut self.buffer, rest);
        talk.hear(&message).map(Done::Heard)
    }

    async fn secure(&mut self, talk: &impl Talk) -> Result<Done, Trouble> {
        let (Some(Stream::Plain(plain)), Some(tls)) = (self.stream.take(), talk.tls()) else {
            return Err(Trouble::new(Reason::Local, "TLS without settings"));
        };
        // What waits here would be taken for an answer given inside TLS (CVE-2021-23222).
        let waiting = socket2::SockRef::from(&plain).peek(&mut [std::mem::MaybeUninit::uninit()]);
        if self.heard > 0 && (!self.buffer.is_empty() || waiting.is_ok_and(|length| length > 0)) {
            return Err(Trouble::new(Reason::Injected, "plain text before TLS"));
        }
        let limit = after(Instant::now(), tls.timeout);
        let secured = timeout_at(limit, handshake(plain, tls)).await;
        let secured = secured.map_err(|_| Trouble::new(Reason::Timeout, ""))??;
        self.stream = Some(Stream::Tls(secured.stream));
        Ok(Done::Secured(secured.judged, secured.report))
    }

    fn too_long(&self) -> Trouble {
        Trouble::new(Reason::TooLong, &self.buffer)
    }

    async fn read(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ);
        match &mut self.stream {
            Some(stream) => stream.read_buf(&mut self.buffer).await,
            None => Ok(0),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        stream.write_all(bytes).await?;
        stream.flush().await
    }

    /// Says the last words and waits for the server to close: a connection that is closed over unread bytes is
    /// reset, and the server logs that.
    async fn leave(&mut self, last: &[u8]) -> io::Result<()> {
        self.write(last).await?;
        let Some(stream) = &mut self.stream else { return Ok(()) };
        stream.shutdown().await?;
        let mut rest = stream.take(MAX_SESSION as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await.map(drop)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What a conversation came to without a connection.
    pub(crate) struct Told {
        pub(crate) said: Vec<Vec<u8>>,
        pub(crate) passed: Vec<Passed>,
        /// `None` where the server said too little.
        pub(crate) verdict: Option<Result<(), Trouble>>,
    }

    /// Takes `talk` through all that a server says, without regard for when it says it.
    pub(crate) fn tell(talk: &mut impl Talk, mut bytes: &[u8]) -> Told {
        let mut told = Told { said: Vec::new(), passed: Vec::new(), verdict: None };
        let mut step = talk.open();
        loop {
            match step {
                Step::Leave => {
                    told.verdict = Some(Ok(()));
                    return told;
                }
                Step::Say(bytes) => told.said.push(bytes),
                Step::Secure(bytes) => {
                    told.said.push(bytes);
                    step = talk.secured();
                    continue;
                }
                Step::Listen => {}
            }
            let heard = match talk.length(bytes) {
                Ok(Some(length)) if length <= bytes.len() => {
                    assert!(length > 0, "a message has bytes");
                    let (message, rest) = bytes.split_at(length);
                    bytes = rest;
                    talk.hear(message)
                }
                Ok(_) => return told,
                Err(trouble) => Err(trouble),
            };
            match heard {
                Ok(turn) => {
                    told.passed.extend(turn.passed);
                    step = turn.step;
                }
                Err(trouble) => {
                    assert!(trouble.text.len() <= crate::smtp::MAX_TEXT);
                    told.verdict = Some(Err(trouble));
                    return told;
                }
            }
        }
    }
}
