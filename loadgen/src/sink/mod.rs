//! EDGE: an SMTP server in the process, which counts what it took and can be made ill.
//!
//! Owns the listener, the sessions' sockets, TLS, and the ledger of accepted messages. Refuses to know the
//! protocol ([`session`]), the kinds of illness ([`fault`]) and what the messages are for: it keeps their ids only. Fails to start as
//! `bind` does; later whatever goes wrong ends one session.
//!
//! A message counts as accepted when the 250 to its final dot was written, so a client that saw the answer and
//! waits for the one to QUIT finds it counted. The ledger grows with the number of different ids.

pub mod content;
pub mod fault;
pub mod proxied;
pub mod serve;
pub mod session;
mod talk;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ahash::{AHashMap, AHashSet};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use self::fault::Rule;
use self::session::{Abilities, Accepted};
use self::talk::{End, converse};
use crate::message;

/// A client that says nothing, or takes no answer, for this long is left.
const IDLE: Duration = Duration::from_secs(60);
/// How long not to accept after the system could not (no descriptors): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that the kernel keeps for us to accept.
const BACKLOG: u32 = 1024;

/// How often each message was accepted, by its id.
pub type Ledger = AHashMap<String, u64>;

/// The id of a message, and when it was accepted.
pub type Arrival = (String, SystemTime);

/// What can be set on a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// The name in the banner, by which a client knows who took its message.
    pub hostname: String,
    /// Sessions at one time. More clients are connected but get no banner, as with Postfix when all its processes
    /// are busy.
    pub max_sessions: usize,
    /// What it offers.
    pub abilities: Abilities,
    /// What befalls its answers; of several for a stage the first whose odds come up.
    pub rules: Vec<Rule>,
    /// How it speaks TLS, where [`Abilities::starttls`] offers it.
    pub tls: Option<Secret>,
    /// What it remembers of messages.
    pub remember: Remember,
    /// Whether a PROXY header comes first.
    pub proxied: Proxied,
}

/// Whether a PROXY header comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proxied {
    /// None is looked for.
    #[default]
    No,
    /// A session without one is ended before its banner.
    Required,
}

/// A certificate and its key. All are equal: who compares sinks does not mean their keys.
#[derive(Clone)]
pub struct Secret(pub Arc<ServerConfig>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Secret {}

/// What a sink remembers of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Remember {
    /// Their ids, each with its count.
    #[default]
    Ids,
    /// Of ids that a load run made, a bit each, and their delay.
    Runs,
    /// Their ids, and when each was accepted.
    Arrivals,
}

impl SinkConfig {
    /// A sink of that name with room for 1000 sessions.
    #[must_use]
    pub fn new(hostname: impl Into<String>) -> Self {
        Self {
            hostname: hostname.into(),
            max_sessions: 1000,
            abilities: Abilities::default(),
            rules: Vec::new(),
            tls: None,
            remember: Remember::Ids,
            proxied: Proxied::No,
        }
    }
}

/// An illness. It befalls sessions that come to the point in question while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The banner is a 421 and the session is over.
    RejectBanner421,
    /// The banner does not come before the fault is gone.
    SilentBanner,
    /// MAIL is answered with this line, code and all: `451 4.7.1 Service unavailable`.
    RejectMail(String),
    /// The answer to each message comes so much later.
    SlowBody(Duration),
}

/// A running server. Dropping it is a crash.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    running: Option<Running>,
}

struct Running {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

struct Shared {
    config: SinkConfig,
    fault: watch::Sender<Option<Fault>>,
    taken: Mutex<Taken>,
    counts: Counts,
}

/// What a sink counts.
#[derive(Debug, Default)]
struct Counts {
    sessions: AtomicU64,
    secured: AtomicU64,
    messages: AtomicU64,
    recipients: AtomicU64,
    bytes: AtomicU64,
    ill: AtomicU64,
    proxied: AtomicU64,
    unproxied: AtomicU64,
}

impl Shared {
    fn new(config: SinkConfig) -> Self {
        Self { config, fault: watch::Sender::new(None), taken: Mutex::default(), counts: Counts::default() }
    }
}

#[derive(Default)]
struct Taken {
    messages: u64,
    ids: Ledger,
    runs: serve::Runs,
    arrivals: Vec<Arrival>,
    /// Clients that PROXY headers named, as far as there is room.
    clients: AHashSet<IpAddr>,
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Listens on `listen` (port 0: any) and serves in the background. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// Those of `bind` and `listen`.
    pub fn start(listen: SocketAddr, config: SinkConfig) -> io::Result<Self> {
        let listener = bind(listen)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(config));
        let mut sink = Self { address, shared, running: None };
        sink.serve(listener);
        Ok(sink)
    }

    /// Where it listens; the same after a restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Messages accepted, with or without an id.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.taken().messages
    }

    /// How often each id was accepted.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shared.taken().ids.clone()
    }

    /// Makes it ill, or well again.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.shared.fault.send_replace(fault);
    }

    /// A crash: from here on connections are refused, and when it returns every session has been reset.
    pub async fn stop(&mut self) {
        if let Some(Running { stop, task }) = self.running.take() {
            drop(stop);
            // It ends with the last session; a panic in there is not ours to pass on.
            let _ = task.await;
        }
    }

    /// Listens again on the same port, after [`Sink::stop`]. What was counted stays, as on a disk.
    ///
    /// # Errors
    /// Those of `bind` and `listen`: another process may have taken the port.
    pub fn restart(&mut self) -> io::Result<()> {
        if self.running.is_none() {
            self.serve(bind(self.address)?);
        }
        Ok(())
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(accept(listener, Arc::clone(&self.shared), stopped));
        self.running = Some(Running { stop, task });
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Sessions in TIME_WAIT would keep a restart from its port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `stopped` has lost its sender, then waits for the sessions, which watch the same.
async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<()>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = sessions.join_next() => {}
            connection = listener.accept(), if sessions.len() < shared.config.max_sessions => match connection {
                Ok((stream, _)) => {
                    sessions.spawn(attend(stream, Arc::clone(&shared), stopped.clone()));
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

/// One session, until it ends or the sink crashes.
async fn attend(mut stream: TcpStream, shared: Arc<Shared>, mut stopped: watch::Receiver<()>) {
    let reset = tokio::select! {
        _ = stopped.changed() => true,
        ended = converse(&mut stream, &shared) => matches!(ended, Ok(End::Reset)),
    };
    if reset {
        // Closing is a RST then, as when a machine has lost its state.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "EDGE: an arrival is dated by the clock that dated the message"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

impl Shared {
    /// Counts messages whose answer was written.
    fn take(&self, accepted: &[Accepted]) {
        for message in accepted {
            self.counts.messages.fetch_add(1, Ordering::Relaxed);
            self.counts
                .recipients
                .fetch_add(u64::try_from(message.recipients).unwrap_or_default(), Ordering::Relaxed);
            self.counts.bytes.fetch_add(u64::try_from(message.size).unwrap_or_default(), Ordering::Relaxed);
            let id = message::id(&message.content);
            let mut taken = self.taken();
            taken.messages += 1;
            match (self.config.remember, id) {
                (Remember::Ids, Some(id)) => *taken.ids.entry(id.to_owned()).or_default() += 1,
                (Remember::Runs, Some(id)) => taken.runs.take(id),
                (Remember::Arrivals, Some(id)) => taken.arrivals.push((id.to_owned(), now())),
                (_, None) => {}
            }
        }
    }
}
