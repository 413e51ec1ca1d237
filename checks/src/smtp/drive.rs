//! EDGE: takes a [`Dialogue`] through a TCP connection, in time.
//!
//! Owns the order of reads and writes: nothing is written before the whole reply to what went before is read, so a
//! server never sees us talk out of turn. Refuses to know what is said and what it means. Fails with nothing: what
//! goes wrong on the way is told to the dialogue.
//!
//! Memory of a conversation: the read buffer, one reply ([`super::reply::MAX_REPLY`]) and the text that is kept
//! of three, together below 64 KiB whatever a server does, and about 2 KiB with an honest one.
#![expect(clippy::disallowed_methods, reason = "EDGE: measures each stage and keeps its deadline")]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::SmtpSpec;
use super::dialogue::{Dialogue, Step};
use super::reply::{Reply, ReplyError, Splitter};
use crate::run::{after, system};
use crate::{Failure, Outcome, Reason, Stage, StageReport};

/// Bytes of one read: more than the EHLO reply of any server that we know.
const READ: usize = 1024;

/// Talks to the server until it is clear how it is, at the latest until `deadline`, and writes that to `outcome`.
pub(crate) async fn converse(
    mut stream: TcpStream,
    spec: &SmtpSpec,
    deadline: Instant,
    outcome: &mut Outcome,
) {
    let mut dialogue = Dialogue::new(spec);
    let mut input = Input { splitter: Splitter::default(), buffer: vec![0; READ], surplus: false };
    let mut sent = String::new();
    loop {
        let (stage, start) = (dialogue.stage(), Instant::now());
        let limit = match stage {
            Stage::Connect | Stage::Banner => spec.banner_timeout,
            Stage::Ehlo => spec.ehlo_timeout,
            Stage::Quit => spec.quit_timeout,
        };
        let exchange = exchange(&mut stream, &mut input, &sent);
        let reply = match timeout_at(after(start, limit).min(deadline), exchange).await {
            Ok(Ok(reply)) => reply,
            Ok(Err((reason, text))) => {
                dialogue.lost(Failure { stage, reason, code: None, text });
                break;
            }
            Err(_) => {
                let text = input.splitter.rest();
                dialogue.lost(Failure { stage, reason: Reason::Timeout, code: None, text });
                break;
            }
        };
        let turn = dialogue.reply(&reply);
        if turn.passed {
            let received = reply.lines;
            let (took, code) = (start.elapsed(), Some(reply.code));
            outcome.stages.push(StageReport { stage, took, code, sent, received });
        }
        match turn.step {
            Step::Send(line) => sent = line,
            Step::Close => break,
        }
    }
    (outcome.verdict, outcome.capabilities) = dialogue.finish();
}

/// What comes from the server.
struct Input {
    splitter: Splitter,
    buffer: Vec<u8>,
    /// Bytes came after the last reply: an answer to what was not asked yet.
    surplus: bool,
}

/// Says `line`, unless it is empty, and reads the reply.
async fn exchange(stream: &mut TcpStream, input: &mut Input, line: &str) -> Result<Reply, (Reason, String)> {
    if input.surplus {
        return Err((Reason::Protocol, "bytes after the end of a reply".to_owned()));
    }
    if !line.is_empty() {
        stream.write_all(format!("{line}\r\n").as_bytes()).await.map_err(|error| system(&error))?;
    }
    loop {
        let length = stream.read(&mut input.buffer).await.map_err(|error| system(&error))?;
        let bytes = input.buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Err((Reason::Closed, input.splitter.rest()));
        }
        match input.splitter.feed(bytes) {
            Ok((used, Some(reply))) => {
                input.surplus = used < length;
                return Ok(reply);
            }
            Ok((_, None)) => {}
            Err(error) => {
                let reason = match error {
                    ReplyError::Protocol => Reason::Protocol,
                    ReplyError::TooLong => Reason::TooLong,
                };
                return Err((reason, input.splitter.rest()));
            }
        }
    }
}
