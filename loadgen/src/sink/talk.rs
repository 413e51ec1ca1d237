//! EDGE: a conversation of the sink with one client, in the clear and in TLS.
//!
//! Owns reads and writes, their limits, and what is done to an answer that is ill. Refuses to know what is said
//! ([`super::session`]). Ends with the connection, whatever goes wrong.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::fault::{ALWAYS, Act, Stage};
use super::session::{Session, Turn};
use super::{Fault, IDLE, Proxied, Secret, Shared, proxied};
use crate::wire::Patience;

/// Bytes of one read.
const READ: usize = 16 * 1024;
/// Most clients of PROXY headers that are told apart.
const MAX_CLIENTS: usize = 65_536;

/// How a conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
    /// In the clear; it goes on in TLS.
    StartTls,
}

pub(super) async fn converse(stream: &mut TcpStream, shared: &Shared) -> io::Result<End> {
    stream.set_nodelay(true)?;
    shared.counts.sessions.fetch_add(1, Ordering::Relaxed);
    if shared.config.proxied == Proxied::Required && !introduced(stream, shared).await? {
        return Ok(End::Closed);
    }
    let mut fault = shared.fault.subscribe();
    let busy = match timeout(IDLE, fault.wait_for(|fault| *fault != Some(Fault::SilentBanner))).await {
        Ok(Ok(fault)) => *fault == Some(Fault::RejectBanner421),
        Ok(Err(_)) | Err(_) => return Ok(End::Closed),
    };
    let host = &shared.config.hostname;
    if busy {
        let answer = format!("421 4.3.2 {host} Service not available\r\n");
        write(stream, answer.as_bytes(), &mut Patience::new()).await?;
        return Ok(End::Closed);
    }
    let mut talk = Talk {
        shared,
        fault,
        session: Session::new(host.clone(), shared.config.abilities),
        patience: Patience::new(),
        random: fastrand::Rng::new(),
    };
    let banner = format!("220-{host} ESMTP\r\n220 {host} ready\r\n");
    let end = match talk.dice(Stage::Banner) {
        None => {
            write(stream, banner.as_bytes(), &mut talk.patience).await?;
            None
        }
        Some(Act::Reject(text)) => {
            write(stream, format!("{text}\r\n").as_bytes(), &mut talk.patience).await?;
            Some(End::Closed)
        }
        Some(act) => suffer(stream, act, banner.as_bytes()).await?,
    };
    if let Some(end) = end {
        return Ok(end);
    }
    let end = talk.talk(stream).await?;
    let (End::StartTls, Some(Secret(secret))) = (end, &shared.config.tls) else { return Ok(end) };
    let acceptor = TlsAcceptor::from(Arc::clone(secret));
    let mut secured = timeout(IDLE, acceptor.accept(&mut *stream)).await??;
    shared.counts.secured.fetch_add(1, Ordering::Relaxed);
    talk.session.secured();
    let end = talk.talk(&mut secured).await?;
    if end == End::Closed {
        let _ = timeout(IDLE, secured.shutdown()).await;
    }
    Ok(end)
}

/// Whether a PROXY header came, and nothing else.
async fn introduced(stream: &mut TcpStream, shared: &Shared) -> io::Result<bool> {
    let mut header = Vec::new();
    let client = loop {
        let wanted = match proxied::wanted(&header) {
            Ok(0) => break proxied::client(&header),
            Ok(wanted) => wanted,
            Err(error) => break Err(error),
        };
        let held = header.len();
        header.resize(held + wanted, 0);
        let read = timeout(IDLE, stream.read_exact(header.get_mut(held..).unwrap_or_default())).await;
        if !matches!(read, Ok(Ok(_))) {
            break Err(proxied::NoHeader);
        }
    };
    let Ok(client) = client else {
        shared.counts.unproxied.fetch_add(1, Ordering::Relaxed);
        return Ok(false);
    };
    shared.counts.proxied.fetch_add(1, Ordering::Relaxed);
    if let Some(client) = client {
        let mut taken = shared.taken();
        if taken.clients.len() < MAX_CLIENTS {
            taken.clients.insert(client.ip());
        }
    }
    Ok(true)
}

/// A session with its dice.
struct Talk<'s> {
    shared: &'s Shared,
    fault: watch::Receiver<Option<Fault>>,
    session: Session,
    patience: Patience,
    random: fastrand::Rng,
}

impl Talk<'_> {
    /// What befalls the answer of a stage now.
    fn dice(&mut self, stage: Stage) -> Option<Act> {
        roll(self.shared, &mut self.random, &self.fault, stage)
    }

    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<End> {
        let (mut buffer, mut output) = (vec![0; READ], Vec::new());
        loop {
            let read = self.patience.limit(IDLE, stream.read(&mut buffer)).await;
            let length = read.map_err(|_| io::ErrorKind::TimedOut)??;
            let mut input = buffer.get(..length).unwrap_or_default();
            if input.is_empty() {
                return Ok(End::Closed);
            }
            let mut accepted = Vec::new();
            loop {
                let Self { shared, fault, session, random, .. } = self;
                let turn =
                    session.feed(&mut input, &mut |stage| roll(shared, random, fault, stage), &mut output);
                match turn {
                    // What else came in the same packet is answered in the same one.
                    Turn::Accepted(message) => accepted.push(message),
                    Turn::More => {
                        write(stream, &output, &mut self.patience).await?;
                        output.clear();
                        break;
                    }
                    Turn::StartTls if !input.is_empty() => return Ok(End::Closed),
                    Turn::Close | Turn::StartTls => {
                        write(stream, &output, &mut self.patience).await?;
                        self.shared.take(&accepted);
                        return Ok(if turn == Turn::Close { End::Closed } else { End::StartTls });
                    }
                    Turn::Ill(act, from, late) => {
                        let (before, answer) = output.split_at(from.min(output.len()));
                        write(stream, before, &mut self.patience).await?;
                        self.shared.take(&accepted);
                        accepted.clear();
                        if let Some(end) = suffer(stream, act, answer).await? {
                            return Ok(end);
                        }
                        accepted.extend(late);
                        output.clear();
                    }
                }
            }
            self.shared.take(&accepted);
        }
    }
}

fn roll(
    shared: &Shared,
    random: &mut fastrand::Rng,
    fault: &watch::Receiver<Option<Fault>>,
    stage: Stage,
) -> Option<Act> {
    match (stage, &*fault.borrow()) {
        (Stage::Mail, Some(Fault::RejectMail(text))) => return Some(Act::Reject(text.clone())),
        (Stage::Body, Some(Fault::SlowBody(time))) => return Some(Act::Delay(*time)),
        _ => {}
    }
    let rules = shared.config.rules.iter().filter(|rule| rule.stage == stage);
    let act = rules.into_iter().find(|rule| rule.odds == ALWAYS || random.u32(..ALWAYS) < rule.odds)?;
    shared.counts.ill.fetch_add(1, Ordering::Relaxed);
    Some(act.act.clone())
}

/// Does to an answer what shall be done; says whether that is the end.
async fn suffer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    act: Act,
    answer: &[u8],
) -> io::Result<Option<End>> {
    let mut patience = Patience::new();
    match act {
        Act::Reject(_) => {}
        Act::Delay(time) => {
            sleep(time).await;
            write(stream, answer, &mut patience).await?;
        }
        Act::Drop => return Ok(Some(End::Closed)),
        Act::Reset => return Ok(Some(End::Reset)),
        Act::Half => {
            write(stream, answer.get(..answer.len() / 2).unwrap_or_default(), &mut patience).await?;
            return Ok(Some(End::Closed));
        }
        Act::Dribble(time) => {
            for byte in answer {
                write(stream, &[*byte], &mut patience).await?;
                sleep(time).await;
            }
        }
        Act::Silence => {
            // Nor does any answer behind it: the next one would be taken for it.
            let mut buffer = [0; 1024];
            while timeout(IDLE, stream.read(&mut buffer)).await?? > 0 {}
            return Ok(Some(End::Closed));
        }
        Act::Garbage => write(stream, b"\x16\x03garbage\0\r\n", &mut patience).await?,
    }
    Ok(None)
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
    patience: &mut Patience,
) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    patience.limit(IDLE, written).await.map_err(|_| io::ErrorKind::TimedOut)?
}
