//! EDGE: an SMTP server in the process, which counts what it took and can be made ill.
//!
//! Owns the listener, the sessions' sockets, the [`Fault`]s, and the ledger of accepted messages. Refuses to know the
//! protocol ([`session`]) and what the messages are for: it keeps their ids only. Fails to start as `bind` does; later
//! whatever goes wrong ends one session.
//!
//! A message counts as accepted when the 250 to its final dot was written, so a client that saw the answer and
//! waits for the one to QUIT finds it counted. The ledger grows with the number of different ids.

pub mod serve;
pub mod session;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::AHashMap;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use self::session::{Session, Turn};
use crate::message;

/// A client that says nothing, or takes no answer, for this long is left.
const IDLE: Duration = Duration::from_secs(60);
/// How long not to accept after the system could not (no descriptors): without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bytes of one read.
const READ: usize = 16 * 1024;
/// Connections that the kernel keeps for us to accept.
const BACKLOG: u32 = 1024;

/// How often each message was accepted, by its id.
pub type Ledger = AHashMap<String, u64>;

/// What can be set on a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// The name in the banner, by which a client knows who took its message.
    pub hostname: String,
    /// Sessions at one time. More clients are connected but get no banner, as with Postfix when all its processes
    /// are busy.
    pub max_sessions: usize,
}

impl SinkConfig {
    /// A sink of that name with room for 1000 sessions.
    #[must_use]
    pub fn new(hostname: impl Into<String>) -> Self {
        Self { hostname: hostname.into(), max_sessions: 1000 }
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
}

#[derive(Default)]
struct Taken {
    messages: u64,
    ids: Ledger,
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
        let shared = Arc::new(Shared { config, fault: watch::Sender::new(None), taken: Mutex::default() });
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
    let crashed = tokio::select! {
        _ = stopped.changed() => true,
        _ = converse(&mut stream, &shared) => false,
    };
    if crashed {
        // Closing is a RST then, as when a machine has lost its state.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

async fn converse(stream: &mut TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut fault = shared.fault.subscribe();
    let busy = match timeout(IDLE, fault.wait_for(|fault| *fault != Some(Fault::SilentBanner))).await {
        Ok(Ok(fault)) => *fault == Some(Fault::RejectBanner421),
        Ok(Err(_)) | Err(_) => return Ok(()),
    };
    let host = &shared.config.hostname;
    if busy {
        return write(stream, format!("421 4.3.2 {host} Service not available\r\n").as_bytes()).await;
    }
    write(stream, format!("220-{host} ESMTP\r\n220 {host} ready\r\n").as_bytes()).await?;

    let mut session = Session::new(host.clone());
    let (mut buffer, mut output) = (vec![0; READ], Vec::new());
    loop {
        let length = timeout(IDLE, stream.read(&mut buffer)).await??;
        let mut input = buffer.get(..length).unwrap_or_default();
        if input.is_empty() {
            return Ok(());
        }
        loop {
            let reject = match &*fault.borrow() {
                Some(Fault::RejectMail(text)) => Some(text.clone()),
                Some(Fault::RejectBanner421 | Fault::SilentBanner) | None => None,
            };
            let turn = session.feed(&mut input, reject.as_deref(), &mut output);
            write(stream, &output).await?;
            output.clear();
            match turn {
                Turn::More => break,
                Turn::Accepted(content) => {
                    let mut taken = shared.taken();
                    taken.messages += 1;
                    if let Some(id) = message::id(&content) {
                        *taken.ids.entry(id.to_owned()).or_default() += 1;
                    }
                }
                Turn::Close => return Ok(()),
            }
        }
    }
}

async fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    timeout(IDLE, stream.write_all(bytes)).await?
}
