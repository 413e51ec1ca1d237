//! EDGE: takes the canaries that come back.
//!
//! Owns the sessions' sockets and their limits: few at a time, a deadline for each read and for the whole. Refuses to know
//! the protocol ([`super::session`]) and whose canary it is. Whatever goes wrong ends one session; what is no canary is
//! refused, counted, and told once a minute.
#![expect(clippy::disallowed_methods, reason = "EDGE: the moment when a canary is back")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::letter::{Arrival, Key, Stranger};
use super::session::{Answer, Session, Turn};
use crate::metrics as name;

/// Sessions at one time. More wait for their banner in the listen queue: a server that is told to come again does so after
/// minutes, and its canary is late.
const SESSIONS: usize = 128;
/// A client that says nothing, or takes no answer, for so long is left.
const PATIENCE: Duration = Duration::from_secs(15);
/// A session ends after this time, whatever it does.
const SESSION: Duration = Duration::from_secs(120);
/// Bytes of one read.
const READ: usize = 4096;
/// Pause after a failed accept, so that a lack of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Between two lines in the log about the same kind of nuisance.
const QUIET: Duration = Duration::from_secs(60);

/// What the sessions share.
#[derive(Debug)]
pub(crate) struct Desk {
    /// What we are called.
    pub(crate) name: String,
    /// What is spoken.
    pub(crate) dialect: checks::smtp::Dialect,
    /// Whom mail is taken for.
    pub(crate) recipient: String,
    /// What signed the canaries.
    pub(crate) key: Arc<Key>,
    /// Where they are reported, with the moment.
    pub(crate) arrivals: mpsc::Sender<(Instant, Arrival)>,
    /// When strangers were last told of.
    pub(crate) told: Mutex<Option<Instant>>,
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, desk: Arc<Desk>) {
    let places = Arc::new(Semaphore::new(SESSIONS));
    // Its sessions end with it.
    let mut sessions = tokio::task::JoinSet::new();
    loop {
        let (place, stream) = tokio::select! {
            Some(_) = sessions.join_next() => continue,
            came = accept(&listener, &places) => came,
        };
        let desk = Arc::clone(&desk);
        sessions.spawn(async move {
            let _ = timeout(SESSION, Box::pin(converse(stream, &desk))).await;
            drop(place);
        });
    }
}

/// The next client that there is a place for.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, TcpStream) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (place, stream),
            Err(error) => {
                debug!("cannot accept a canary: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(mut stream: TcpStream, desk: &Desk) -> std::io::Result<()> {
    let (mut session, banner) = Session::new(desk.name.clone(), desk.dialect, desk.recipient.clone());
    let mut output = banner.into_bytes();
    let mut buffer = vec![0; READ];
    loop {
        timeout(PATIENCE, stream.write_all(&output)).await??;
        output.clear();
        let length = timeout(PATIENCE, stream.read(&mut buffer)).await??;
        let mut input = buffer.get(..length).unwrap_or_default();
        if input.is_empty() {
            return Ok(());
        }
        loop {
            match session.feed(&mut input, &mut output) {
                Turn::More => break,
                Turn::Message(message) => {
                    let answer = judge(&message, desk).await;
                    session.answer(answer, &mut output);
                }
                Turn::Close => return timeout(PATIENCE, stream.write_all(&output)).await?,
            }
        }
    }
}

/// By the wall clock.
pub(super) fn since_epoch() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

async fn judge(message: &[u8], desk: &Desk) -> Answer {
    let now = Instant::now();
    let stranger = match desk.key.read(message, since_epoch()) {
        Ok(arrival) => {
            return match timeout(PATIENCE, desk.arrivals.send((now, arrival))).await {
                Ok(Ok(())) => Answer::Taken,
                Ok(Err(_)) | Err(_) => Answer::Busy,
            };
        }
        Err(stranger) => stranger,
    };
    let (label, what, answer) = match stranger {
        Stranger::NoCanary => ("no_canary", "a message that is no canary was refused", Answer::NotOurs),
        Stranger::Forged => {
            ("forged", "a canary with a signature that is not ours was refused", Answer::NotOurs)
        }
        Stranger::EarlierStart => (
            "earlier_start",
            "a canary of an earlier start, or of another director, was taken and thrown away",
            Answer::Taken,
        ),
    };
    name::count_canary_stranger(label);
    let mut told = desk.told.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|told| now.saturating_duration_since(told) >= QUIET) {
        *told = Some(now);
        warn!("for {}: {what}; more of these are only counted for a minute", desk.recipient);
    }
    answer
}
