//! EDGE. Accepts the clients of one virtual and gives each a real server.
//!
//! Owns the listening socket and, alone, the scheduler's state of its virtual: no lock. Refuses to know other
//! virtuals and the table; it sees a [`Roster`], and looks for a new one before each choice, so that nobody is
//! sent to a server by a weight from before.
//!
//! How it fails: no descriptors or no memory make it pause and say so once; nobody to send a client to makes
//! it reset the client.

#![expect(clippy::disallowed_methods, reason = "EDGE: a client's patience is measured by the clock")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::counts::{Counts, Session, Traffic};
use super::schedule::{Candidate, Request, Schedule};
use super::session::{self, Client, Target};
use crate::config::ProxyOptions;
use crate::model::{RealId, RealSettings, VirtualSettings};

/// Clients that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 1024;
/// After an accept that failed: an error such as EMFILE would come back at once.
const PAUSE: Duration = Duration::from_millis(100);
/// Trouble that lasts is reported this often.
const SILENCE: Duration = Duration::from_secs(60);
/// A client that nobody took for so long is reset.
const PATIENCE: Duration = Duration::from_secs(10);

/// All that the listener needs to know of its virtual.
#[derive(Clone, Debug)]
pub(super) struct Roster {
    pub(super) settings: VirtualSettings,
    pub(super) options: ProxyOptions,
    /// Sorted by id.
    pub(super) reals: Vec<(RealId, RealSettings, Arc<Counts>)>,
}

/// A socket that listens on `address`.
///
/// # Errors
/// The system's, with what a person can do about the three usual ones.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit both: no client can be closed by mistake with FIN, and no system call more.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another program listens there; `ss -ltnp` shows which (Postfix on the same machine: set \
                 inet_interfaces to its own address)"
            }
            io::ErrorKind::AddrNotAvailable => {
                "no interface of this machine has the address; add it, or set net.ipv4.ip_nonlocal_bind \
                 (net.ipv6.ip_nonlocal_bind) to 1"
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE; run as root, or set \
                 AmbientCapabilities=CAP_NET_BIND_SERVICE in the unit"
            }
            _ => return error,
        };
        io::Error::new(error.kind(), format!("{error}: {advice}"))
    })
}

/// Accepts and schedules until it is aborted or its virtual is gone.
pub(super) async fn serve(
    listener: TcpListener,
    mut roster: watch::Receiver<Roster>,
    traffic: Arc<Traffic>,
    sessions: Arc<Semaphore>,
) {
    let (again, mut refused) = mpsc::unbounded_channel();
    let mut door = Door { listener, sessions, complained: None };
    let mut choice = Choice::new(roster.borrow_and_update().clone());
    loop {
        let client = tokio::select! {
            Some(client) = refused.recv() => client,
            client = door.next() => match client {
                Ok(client) => client,
                Err(_) => return,
            },
        };
        match roster.has_changed() {
            Ok(false) => {}
            Ok(true) => choice.update(roster.borrow_and_update().clone()),
            Err(_) => return,
        }
        match choice.make(&client) {
            Some((real, session)) => {
                if client.tried.is_empty() {
                    traffic.connection();
                }
                let target =
                    Target { real, session, options: choice.roster.options, traffic: Arc::clone(&traffic) };
                tokio::spawn(session::serve(client, target, again.clone()));
            }
            None => debug!(tried = client.tried.len(), "no server for a client"),
        }
    }
}

/// Where clients come in.
struct Door {
    listener: TcpListener,
    sessions: Arc<Semaphore>,
    /// When trouble was reported last.
    complained: Option<Instant>,
}

impl Door {
    /// The next client. Nothing is lost when this is dropped half-way.
    ///
    /// # Errors
    /// When there will be no more sessions.
    async fn next(&mut self) -> Result<Client, AcquireError> {
        loop {
            let permit = self.permit().await?;
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let deadline = Instant::now() + PATIENCE;
                    return Ok(Client { stream, peer, deadline, tried: Vec::new(), permit });
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if self.may_complain() {
                        warn!(%error, "cannot accept connections; trying again until it works");
                    }
                    drop(permit);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// A place for one more session. While there is none, clients wait in the backlog.
    async fn permit(&mut self) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(permit) = Arc::clone(&self.sessions).try_acquire_owned() {
            return Ok(permit);
        }
        if self.may_complain() {
            warn!(
                "no room for more sessions, new clients wait until others end; LimitNOFILE sets how many there can be"
            );
        }
        Arc::clone(&self.sessions).acquire_owned().await
    }

    fn may_complain(&mut self) -> bool {
        let now = Instant::now();
        let may = self.complained.is_none_or(|last| now.duration_since(last) >= SILENCE);
        if may {
            self.complained = Some(now);
        }
        may
    }
}

/// The scheduler of the virtual with all that it has to know.
struct Choice {
    schedule: Schedule,
    roster: Roster,
    /// One for each of `roster.reals`, in the same order.
    candidates: Vec<Candidate>,
}

impl Choice {
    fn new(roster: Roster) -> Self {
        Self { schedule: Schedule::default(), candidates: candidates(&roster, &[]), roster }
    }

    fn update(&mut self, roster: Roster) {
        self.candidates = candidates(&roster, &self.candidates);
        self.roster = roster;
    }

    /// A server for this client, counted as taken.
    fn make(&mut self, client: &Client) -> Option<(RealId, Session)> {
        if client.deadline <= Instant::now() {
            return None;
        }
        for (candidate, (.., counts)) in self.candidates.iter_mut().zip(&self.roster.reals) {
            observe(candidate, counts);
        }
        let request = Request { client: client.peer, tried: &client.tried };
        let scheduler = (&self.roster.settings.scheduler, self.roster.settings.flags);
        let position = self.schedule.pick(scheduler, &self.candidates, request)?;
        let (id, _, counts) = self.roster.reals.get(position)?;
        let session = Session::new(Arc::clone(counts));
        observe(self.candidates.get_mut(position)?, counts);
        Some((*id, session))
    }
}

fn candidates(roster: &Roster, before: &[Candidate]) -> Vec<Candidate> {
    let known = |id| before.get(before.binary_search_by_key(id, |c| c.id).ok()?);
    roster.reals.iter().map(|(id, settings, _)| Candidate::new(*id, *settings, known(id))).collect()
}

fn observe(candidate: &mut Candidate, counts: &Counts) {
    let (active, inactive) = counts.sessions();
    candidate.observe(active, inactive);
}
