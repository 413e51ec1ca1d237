//! EDGE: takes a [`Dialogue`] through a connection, in time.
//!
//! Owns the order of reads and writes: nothing is said before the whole reply to what went before is read. Owns the data
//! connection of FTP too, which goes to the address of the server whatever it says. Refuses to know what is said.
//! Fails with nothing: what goes wrong on the way is told to the dialogue.
#![expect(clippy::disallowed_methods, reason = "EDGE: measures each stage and keeps its deadline")]

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::dialogue::{Dialogue, Step};
use super::reply::{Collector, Reply};
use super::{LineSpec, Protocol};
use crate::credential::Credential;
use crate::run::{after, system};
use crate::smtp::AuthOver;
use crate::smtp::reply::{ReplyError, printable};
use crate::stream::{GOODBYE, Stream};
use crate::tls::handshake::broken;
use crate::{Failure, Outcome, Reason, Stage, StageReport};

/// Bytes of one read.
const READ: usize = 1024;
/// Most bytes of a file that are read.
const MAX_FILE: usize = 1024 * 1024;

/// A server that listens to us.
pub(crate) struct Server {
    pub(crate) stream: Stream,
    pub(crate) address: IpAddr,
}

/// Reads the credential, before anybody is disturbed.
///
/// # Errors
/// A [`Failure`] that is our own: the file cannot be used, or others would overhear what is in it.
pub(crate) fn prepare(spec: &LineSpec) -> Result<Option<Credential>, Failure> {
    let Some(login) = &spec.login else { return Ok(None) };
    let credential = if spec.tls.is_none() && login.over == AuthOver::Tls {
        Err("a password is not said without TLS".to_owned())
    } else {
        login.from.read()
    };
    credential.map(Some).map_err(|text| {
        let text = printable(text.as_bytes());
        Failure { stage: Stage::Auth, reason: Reason::Local, code: None, text }
    })
}

/// Talks to the server until it is clear how it is, at the latest until `deadline`. Reports to `outcome`.
pub(crate) async fn converse(
    server: Server,
    (spec, credential): (&LineSpec, Option<Credential>),
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let Server { mut stream, address } = server;
    let mut input = Input {
        // The tags of IMAP tell an answer from what a server says by itself; the others only ever answer.
        answers_only: spec.protocol != Protocol::Imap,
        collector: Collector::new(spec.protocol),
        bytes: Vec::new(),
    };
    let mut dialogue = Dialogue::new(spec, credential);
    let (mut step, mut data) = (Step::Listen, None);
    loop {
        let (stage, start) = (dialogue.stage(), Instant::now());
        let limit = if stage == Stage::Quit { after(start, GOODBYE).min(deadline) } else { deadline };
        let (line, sent) = match step {
            Step::Close => break,
            Step::Listen => (String::new(), String::new()),
            Step::Send { line, shown } => (line.0, printable(shown.as_bytes())),
            Step::Open(port) => {
                match in_time(limit, connect(SocketAddr::new(address, port))).await {
                    Ok(stream) => data = Some(stream),
                    Err((reason, text)) => {
                        dialogue.lost(reason, text);
                        break;
                    }
                }
                step = dialogue.opened();
                continue;
            }
            Step::Fetch => {
                match in_time(limit, fetch(data.take())).await {
                    Ok(content) => step = dialogue.fetched(content.as_deref()),
                    Err((reason, text)) => {
                        dialogue.lost(reason, text);
                        break;
                    }
                }
                continue;
            }
        };
        match timeout_at(limit, input.exchange(&mut stream, line)).await {
            Ok(Ok(reply)) => {
                let turn = dialogue.reply(&reply);
                if turn.passed {
                    let received = dialogue.shown(reply.lines);
                    let took = start.elapsed();
                    outcome.stages.push(StageReport { stage, took, code: reply.code, sent, received });
                }
                step = turn.step;
            }
            Ok(Err((reason, text))) => {
                dialogue.lost(reason, text);
                break;
            }
            Err(_) => {
                dialogue.lost(Reason::Timeout, input.collector.rest());
                break;
            }
        }
    }
    stream.close(deadline).await;
    dialogue.finish()
}

/// Why a step came to nothing.
type Trouble = (Reason, String);

async fn in_time<T>(limit: Instant, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
    match timeout_at(limit, work).await {
        Ok(done) => done.map_err(|(reason, text)| (reason, format!("data connection: {text}"))),
        Err(_) => Err((Reason::Timeout, "data connection".to_owned())),
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream, Trouble> {
    TcpStream::connect(to).await.map_err(|error| system(&error))
}

/// The whole file; `None` where it is longer than [`MAX_FILE`].
async fn fetch(data: Option<TcpStream>) -> Result<Option<Vec<u8>>, Trouble> {
    let Some(mut data) = data else { return Ok(None) };
    let (mut content, mut buffer) = (Vec::new(), vec![0; 16 * READ]);
    loop {
        let length = data.read(&mut buffer).await.map_err(|error| system(&error))?;
        content.extend_from_slice(buffer.get(..length).unwrap_or_default());
        match (length, content.len() > MAX_FILE) {
            (_, true) => return Ok(None),
            (0, _) => return Ok(Some(content)),
            _ => {}
        }
    }
}

/// What comes from the server.
struct Input {
    /// Nothing may come before it was asked for.
    answers_only: bool,
    collector: Collector,
    /// Bytes after the last reply.
    bytes: Vec<u8>,
}

impl Input {
    /// Says `line`, unless it is empty, and reads the reply.
    async fn exchange(&mut self, stream: &mut Stream, mut line: String) -> Result<Reply, Trouble> {
        if !line.is_empty() {
            if self.answers_only && !self.bytes.is_empty() {
                return Err((Reason::Protocol, "bytes after the end of a reply".to_owned()));
            }
            line.push_str("\r\n");
            let written = async {
                stream.write_all(line.as_bytes()).await?;
                stream.flush().await
            };
            written.await.map_err(|error| broken(&error))?;
        }
        loop {
            if self.bytes.is_empty() {
                self.read(stream).await?;
            }
            match self.collector.feed(&self.bytes) {
                Ok((used, reply)) => {
                    self.bytes.drain(..used);
                    if let Some(reply) = reply {
                        return Ok(reply);
                    }
                }
                Err(ReplyError::Protocol) => return Err((Reason::Protocol, self.collector.rest())),
                Err(ReplyError::TooLong) => return Err((Reason::TooLong, self.collector.rest())),
            }
        }
    }

    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Trouble> {
        self.bytes.resize(READ, 0);
        let read = stream.read(&mut self.bytes).await;
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        match read {
            // What the server said last may say why.
            Ok(0) => Err((Reason::Closed, self.collector.rest())),
            Ok(_) => Ok(()),
            Err(error) => {
                let (reason, text) = broken(&error);
                Err((reason, if reason == Reason::Closed { self.collector.rest() } else { text }))
            }
        }
    }
}
