//! EDGE: takes a [`Dialogue`] through a TCP connection, in time.
//!
//! Owns the order of reads and writes: nothing is written before the whole reply to what went before is read, so a
//! server never sees us talk out of turn. Refuses to know what is said and what it means. Fails with nothing: what
//! goes wrong on the way is told to the dialogue.
//!
//! Memory of a conversation: the read buffer, one reply ([`super::reply::MAX_REPLY`]), the capabilities and the text
//! that is kept ([`KEPT`]), together below 64 KiB whatever a server does, and a few KiB with an honest one. A TLS
//! session has its own buffers, with the caps of rustls.
#![expect(clippy::disallowed_methods, reason = "EDGE: measures each stage and keeps its deadline")]

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::dialogue::{Dialogue, Step};
use super::reply::{Reply, ReplyError, Splitter};
use super::{ProxyHeader, SmtpSpec};
use crate::credential::Credential;
use crate::run::after;
use crate::tls::handshake::{broken, handshake, now};
use crate::tls::{Judged, TlsReport};
use crate::{Failure, Outcome, Reason, Stage, StageReport, proxy_header};

/// Bytes of one read: more than the EHLO reply of any server that we know.
const READ: usize = 1024;
/// Bytes of replies that are kept for people; after that, of each reply only the first line.
const KEPT: usize = 8 * 1024;

/// Reads what a conversation needs of this machine, before anybody is disturbed.
///
/// # Errors
/// A [`Failure`] that is our own.
pub(crate) fn prepare(spec: &SmtpSpec) -> Result<Option<Credential>, Failure> {
    let local = |stage| {
        move |text: String| {
            let text = super::reply::printable(text.as_bytes());
            Failure { stage, reason: Reason::Local, code: None, text }
        }
    };
    if let Some(tls) = &spec.tls {
        tls.prepare().map_err(local(Stage::Tls))?;
    }
    let Some(auth) = &spec.auth else { return Ok(None) };
    auth.from.read().map(Some).map_err(local(Stage::Auth))
}

/// Talks to the server until it is clear how it is, at the latest until `deadline`. Reports to `outcome`.
pub(crate) async fn converse(
    stream: TcpStream,
    spec: &SmtpSpec,
    credential: Option<Credential>,
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut stream = Stream::Plain(stream);
    let mut input =
        Input { splitter: Splitter::default(), buffer: vec![0; READ], begun: false, surplus: false };
    // Only a message has a date.
    let date = if spec.data.is_some() { now() } else { 0 };
    let (mut dialogue, mut step) = Dialogue::new(spec, credential, date);
    let mut room = KEPT;
    if let Err((reason, text)) = announce(&mut stream, spec.proxy, deadline).await {
        dialogue.lost(Failure { stage: dialogue.stage(), reason, code: None, text });
        step = Step::Close;
    }
    // The end of a stage is the beginning of the next: where the clock is a system call, it costs as much as a read.
    let mut start = Instant::now();
    while step != Step::Close {
        let stage = dialogue.stage();
        let limit = after(start, dialogue.patience()).min(deadline);
        let work = perform(&mut stream, &mut input, step, spec);
        let done = match timeout_at(limit, work).await {
            Ok(done) => done,
            Err(_) => Err((Reason::Timeout, input.splitter.rest())),
        };
        let took = start.elapsed();
        start += took;
        let (turn, report) = match done {
            Ok(Done::Said(sent, reply)) => {
                let (turn, code) = (dialogue.reply(&reply), Some(reply.code));
                let mut received = dialogue.shown(reply.lines);
                received.truncate(fitting(&received, &mut room));
                (turn, StageReport { stage, took, code, sent, received })
            }
            Ok(Done::Secured(judged, report)) => {
                let received = vec![report.to_string()];
                outcome.tls = Some(report);
                let turn = dialogue.secured(&judged);
                (turn, StageReport { stage, took, code: None, sent: String::new(), received })
            }
            Ok(Done::Closed) => break,
            Err((reason, text)) => {
                dialogue.lost(Failure { stage, reason, code: None, text });
                break;
            }
        };
        if turn.passed {
            outcome.stages.push(report);
        }
        step = turn.step;
    }
    // close_notify: without it a server takes the end for an attack, and logs it.
    if let Stream::Tls(mut tls) = stream {
        let limit = after(Instant::now(), spec.quit_timeout).min(deadline);
        let _ = timeout_at(limit, tls.shutdown()).await;
    }
    let verdict;
    (verdict, outcome.capabilities) = dialogue.finish();
    verdict
}

/// The connection.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A handshake took it, and failed.
    Gone,
}

/// What comes from the server.
struct Input {
    splitter: Splitter,
    buffer: Vec<u8>,
    /// Something came.
    begun: bool,
    /// Bytes came after the last reply: an answer to what was not asked yet.
    surplus: bool,
}

/// What a step came to.
enum Done {
    /// What was said, as it may be shown, and the answer.
    Said(String, Reply),
    Secured(Judged, TlsReport),
    Closed,
}

/// Why a step came to nothing.
type Trouble = (Reason, String);

/// Sends the header that comes before everything else.
async fn announce(
    stream: &mut Stream,
    header: Option<ProxyHeader>,
    deadline: Instant,
) -> Result<(), Trouble> {
    let (Some(header), Stream::Plain(stream)) = (header, stream) else { return Ok(()) };
    let bytes = match header {
        ProxyHeader::Local => proxy_header::local(),
        ProxyHeader::Proxy(version) => {
            let (ours, theirs) = (stream.local_addr(), stream.peer_addr());
            let (ours, theirs) = (ours.map_err(|e| broken(&e))?, theirs.map_err(|e| broken(&e))?);
            proxy_header::encode(version, ours, theirs)
        }
    };
    match timeout_at(deadline, stream.write_all(&bytes)).await {
        Ok(written) => written.map_err(|error| broken(&error)),
        Err(_) => Err((Reason::Timeout, String::new())),
    }
}

/// Does what `step` says, without end.
async fn perform(
    stream: &mut Stream,
    input: &mut Input,
    step: Step,
    spec: &SmtpSpec,
) -> Result<Done, Trouble> {
    let (line, sent) = match step {
        Step::Close => return Ok(Done::Closed),
        // Boxed: few checks have TLS, and its future is larger than all the rest.
        Step::Handshake => return Box::pin(secure(stream, input, spec)).await,
        Step::Listen => (String::new(), String::new()),
        Step::Send(line) => (line.clone(), line),
        Step::SendUnshown { line, shown } => (line.0, shown),
    };
    let reply = match stream {
        Stream::Plain(plain) => exchange(plain, input, line).await?,
        Stream::Tls(tls) => exchange(tls.as_mut(), input, line).await?,
        Stream::Gone => return Ok(Done::Closed),
    };
    Ok(Done::Said(sent, reply))
}

/// Makes the connection a TLS session.
async fn secure(stream: &mut Stream, input: &Input, spec: &SmtpSpec) -> Result<Done, Trouble> {
    let (Stream::Plain(plain), Some(tls)) = (std::mem::replace(stream, Stream::Gone), &spec.tls) else {
        return Ok(Done::Closed);
    };
    // A TLS server never speaks first: what waits here would be taken for an answer given inside TLS
    // (CVE-2011-0411).
    let waiting = socket2::SockRef::from(&plain).peek(&mut [std::mem::MaybeUninit::uninit()]);
    if input.begun && (input.surplus || waiting.is_ok_and(|length| length > 0)) {
        return Err((Reason::Injected, "plain text between the reply to STARTTLS and TLS".to_owned()));
    }
    let secured = handshake(plain, tls).await?;
    *stream = Stream::Tls(secured.stream);
    Ok(Done::Secured(secured.judged, secured.report))
}

/// Says `line`, unless it is empty, and reads the reply.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    input: &mut Input,
    mut line: String,
) -> Result<Reply, Trouble> {
    if input.surplus {
        return Err((Reason::Protocol, "bytes after the end of a reply".to_owned()));
    }
    if !line.is_empty() {
        line.push_str("\r\n");
        let written = async {
            stream.write_all(line.as_bytes()).await?;
            stream.flush().await
        };
        written.await.map_err(|error| broken(&error))?;
    }
    loop {
        let length = match stream.read(&mut input.buffer).await {
            Ok(length) => length,
            Err(error) => {
                let (reason, text) = broken(&error);
                // What the server said last may say why.
                let rest = input.splitter.rest();
                return Err((reason, if reason == Reason::Closed { rest } else { text }));
            }
        };
        let bytes = input.buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Err((Reason::Closed, input.splitter.rest()));
        }
        input.begun = true;
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

/// How many of these lines are kept: all while there is room, then one.
fn fitting(lines: &[String], room: &mut usize) -> usize {
    let length: usize = lines.iter().map(String::len).sum();
    match room.checked_sub(length) {
        Some(left) => {
            *room = left;
            lines.len()
        }
        None => 1,
    }
}
