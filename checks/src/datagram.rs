//! EDGE: a question in one datagram, said again until the answer comes or time is up.
//!
//! Owns the socket, the pace of repetition, and the cap on what may come meanwhile. Refuses to know what is asked:
//! that is an [`Ask`], which is pure. Fails with what the ask or the socket says. The socket is connected, so the
//! kernel drops what others send, and a closed port answers at once (`refused`).
#![expect(clippy::disallowed_methods, reason = "EDGE: repeats in time, and is measured")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::credential::Credential;
use crate::run::system;
use crate::talk::{Passed, Trouble, hushed, report};
use crate::{Failure, Outcome, Reason, Stage};

/// Most bytes of an answer; what is longer is cut off by the kernel.
const MAX_DATAGRAM: usize = 8 * 1024;
/// Most datagrams that do not answer.
const MAX_FOREIGN: usize = 64;
/// When to say it again first, and the longest pause (T1 and T2 of RFC 3261 section 17.1.2.2).
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// A question that is always said alike.
pub trait Ask {
    /// What to send.
    fn packet(&self) -> &[u8];

    /// What a datagram of the server means.
    fn hear(&self, datagram: &[u8]) -> Heard;

    /// What must not be shown, should a server repeat it.
    fn credential(&self) -> Option<&Credential> {
        None
    }
}

/// What a datagram means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// No answer to this question, and why not.
    Foreign(&'static str),
    /// An answer that is not the last.
    Wait,
    /// The answer is too long for a datagram.
    Truncated,
    /// The answer.
    Answer(Result<Passed, Trouble>),
}

/// How a question ended that did not fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    Truncated,
}

/// A socket from and to which only `target` speaks.
pub(crate) async fn open(target: SocketAddr) -> Result<UdpSocket, Failure> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let opened = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(target).await?;
        Ok(socket)
    };
    opened.await.map_err(|error| Trouble::from(system(&error)).at(Stage::Connect))
}

/// Asks until an answer comes, at the latest until `deadline`. Reports to `outcome`.
pub(crate) async fn ask(
    socket: &UdpSocket,
    ask: &impl Ask,
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<Ended, Failure> {
    let mut start = Instant::now();
    let mut buffer = vec![0; MAX_DATAGRAM];
    let (mut pause, mut again) = (PAUSES.0, start);
    let (mut foreign, mut why) = (0, "");
    loop {
        let now = Instant::now();
        if now >= deadline {
            return Err(Trouble::new(Reason::Timeout, why).at(Stage::Request));
        }
        if now >= again {
            socket.send(ask.packet()).await.map_err(|error| lost(&error))?;
            again = now + pause;
            pause = (pause * 2).min(PAUSES.1);
        }
        let Ok(length) = timeout_at(again.min(deadline), socket.recv(&mut buffer)).await else { continue };
        let length = length.map_err(|error| lost(&error))?;
        match ask.hear(buffer.get(..length).unwrap_or_default()) {
            Heard::Wait => {}
            Heard::Truncated => return Ok(Ended::Truncated),
            Heard::Answer(Ok(passed)) => {
                outcome.stages.push(report(passed, ask.credential(), &mut start));
                return Ok(Ended::Well);
            }
            Heard::Answer(Err(trouble)) => {
                let text = hushed(trouble.text, ask.credential());
                return Err(Trouble { text, ..trouble }.at(Stage::Request));
            }
            Heard::Foreign(what) if foreign < MAX_FOREIGN => (foreign, why) = (foreign + 1, what),
            Heard::Foreign(what) => return Err(Trouble::protocol(what).at(Stage::Request)),
        }
    }
}

/// An error of a socket that has no handshake: what speaks of the way to the server is said of connecting.
fn lost(error: &std::io::Error) -> Failure {
    let (reason, text) = system(error);
    let stage = match reason {
        Reason::Refused | Reason::Unreachable => Stage::Connect,
        _ => Stage::Request,
    };
    Trouble::from((reason, text)).at(stage)
}
