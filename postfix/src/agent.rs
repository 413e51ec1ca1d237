//! EDGE: says the report to directors: one line to each asker, closed.
//!
//! Owns the listeners, who may ask, and the one thread that looks. Askers share a look: it is at most a second old, or, where
//! looking takes longer than that, ten times as old as it took. When a new one is late they get the last one, whose age says so. Refuses to
//! read what askers say. An asker that is not allowed is closed before a byte; one that is slow, or does not close,
//! is cut. Fails by closing without a line: no data.
#![expect(clippy::disallowed_methods, reason = "EDGE: knows how old a look is")]

mod refusals;

use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use self::refusals::Refusals;
use crate::look::Looker;
use crate::report::agent::render;
use crate::report::json::Document;

/// Askers that are served at a time; others wait in the listen queue.
const ASKERS: usize = 64;
/// A look is good for so long.
const FRESH: Duration = Duration::from_secs(1);
/// One that took longer is good for so many times as long as it took, up to [`MOST_FRESH`].
const FRESH_TIMES: u32 = 10;
const MOST_FRESH: Duration = Duration::from_secs(60);
/// How long an asker waits for a new look where there is an old one, and where there is none.
const PATIENCE: Duration = Duration::from_millis(500);
const FIRST_PATIENCE: Duration = Duration::from_secs(15);
/// How long the TLS handshake may take, and taking the line.
const HANDSHAKE: Duration = Duration::from_secs(5);
const WRITE: Duration = Duration::from_secs(2);
/// How long an asker may leave the connection open after the line, and how much it may say.
const LINGER: Duration = Duration::from_secs(1);
const MOST_SAID: u64 = 4096;
/// Pause after a failed accept, so that a lack of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What askers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The line of [`crate::report::agent`], of all instances together.
    Line,
    /// The document of [`crate::report::json`].
    Document,
}

/// Who may ask, and how.
pub(crate) struct Rules {
    pub(crate) allow: Vec<IpNet>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) said: Said,
}

struct Agent {
    rules: Rules,
    looks: Looks,
    refusals: Mutex<Refusals>,
    askers: Arc<Semaphore>,
    lingering: Semaphore,
}

/// Serves until it is dropped.
pub(crate) async fn serve(listeners: Vec<TcpListener>, rules: Rules, looker: Looker) {
    let mut tasks = tokio::task::JoinSet::new();
    looker.count();
    let agent = Arc::new(Agent {
        rules,
        looks: Looks::start(looker),
        refusals: Mutex::default(),
        askers: Arc::new(Semaphore::new(ASKERS)),
        lingering: Semaphore::new(ASKERS),
    });
    for listener in listeners {
        tasks.spawn(listen(listener, Arc::clone(&agent)));
    }
    while tasks.join_next().await.is_some() {}
}

async fn listen(listener: TcpListener, agent: Arc<Agent>) {
    loop {
        // Before the accept: whoever finds no place waits in the kernel's queue, which is bounded.
        let Ok(place) = Arc::clone(&agent.askers).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                warn!("cannot accept: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !agent.rules.allow.iter().any(|network| network.contains(&peer)) {
            drop(stream);
            agent.refuse(peer);
            continue;
        }
        let agent = Arc::clone(&agent);
        tokio::spawn(async move {
            if let Err(error) = Box::pin(agent.answer(stream, place)).await {
                debug!("{peer}: {error}");
            }
        });
    }
}

impl Agent {
    fn refuse(&self, peer: IpAddr) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = refusals.note(Instant::now(), peer) {
            warn!("{line}");
        }
    }

    async fn answer(&self, stream: TcpStream, place: OwnedSemaphorePermit) -> io::Result<()> {
        match &self.rules.tls {
            None => self.say(stream, place).await,
            Some(tls) => {
                let stream = timeout(HANDSHAKE, tls.accept(stream)).await??;
                self.say(stream, place).await
            }
        }
    }

    async fn say(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
        place: OwnedSemaphorePermit,
    ) -> io::Result<()> {
        let look = self.looks.get().await.ok_or(io::ErrorKind::TimedOut)?;
        let age = u64::try_from(look.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let text = match self.rules.said {
            Said::Line => render(&look.document.sum.aged(age)),
            Said::Document => look.document.aged(age).render(),
        };
        let write = async {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        };
        timeout(WRITE, write).await??;
        // A socket that is closed with something unread in it is reset, and the line may be lost with it.
        let Ok(_lingering) = self.lingering.try_acquire() else { return Ok(()) };
        drop(place);
        let mut said = stream.take(MOST_SAID);
        timeout(LINGER, tokio::io::copy(&mut said, &mut tokio::io::sink())).await?.map(drop)
    }
}

/// One look and when it began.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    took: Duration,
    document: Arc<Document>,
}

impl Look {
    fn is_fresh(&self) -> bool {
        let limit = if self.took <= FRESH { FRESH } else { (self.took * FRESH_TIMES).min(MOST_FRESH) };
        self.at.elapsed() <= limit
    }
}

/// The way to the thread that looks. There is one thread, so a disk that hangs costs one.
struct Looks {
    wanted: SyncSender<()>,
    last: watch::Receiver<Option<Look>>,
}

impl Looks {
    fn start(mut looker: Looker) -> Self {
        let (wanted, wishes) = sync_channel(1);
        let (sender, last) = watch::channel::<Option<Look>>(None);
        std::thread::spawn(move || {
            loop {
                match wishes.recv_timeout(FRESH) {
                    Ok(()) if sender.borrow().as_ref().is_some_and(Look::is_fresh) => {}
                    Ok(()) => {
                        let at = Instant::now();
                        let document = Arc::new(looker.look());
                        sender.send_replace(Some(Look { at, took: at.elapsed(), document }));
                    }
                    Err(RecvTimeoutError::Timeout) => looker.observe(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { wanted, last }
    }

    /// A fresh look, or the last one if that takes too long; `None` if there is none.
    async fn get(&self) -> Option<Look> {
        let mut last = self.last.clone();
        let old = last.borrow_and_update().clone();
        if old.as_ref().is_some_and(Look::is_fresh) {
            return old;
        }
        // Full: somebody else's wish is not granted yet, and is ours, too.
        let _ = self.wanted.try_send(());
        let patience = if old.is_some() { PATIENCE } else { FIRST_PATIENCE };
        match timeout(patience, last.changed()).await {
            Ok(Ok(())) => last.borrow().clone(),
            _ => old,
        }
    }
}
