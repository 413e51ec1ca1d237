//! The embedded dataplane: a TCP forwarder with the kernel's schedulers, for machines without IPVS.
//!
//! Owns the table, a listener for each virtual and the counters. Refuses to know health and drains: as in the
//! kernel, weight 0 keeps a server's sessions and gives it no new ones. How packets get to a server (`gate`,
//! `masq`, `ipip`) is remembered and means nothing: the director connects to every server itself.
//!
//! How it differs from the kernel: the sessions of a deleted server or virtual go on until they end; a server that
//! cannot be connected to costs no client, the next one is asked; a session that has ended counts no more.
//!
//! How it fails: what cannot be listened on or forwarded by TCP is refused with the table unchanged. Dropping the
//! [`Proxy`] closes all listeners; sessions end with the runtime, and then by RST.
//!
//! Each virtual is one task (`listener`), each client another (`session`, then `relay`). The ways between them: a
//! watch channel down with settings, a queue up with clients that nobody has taken yet, and counters.

mod counts;
mod listener;
mod relay;
mod schedule;
mod session;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::info;

use self::counts::{Counts, Traffic};
use self::listener::Roster;
use super::{Dataplane, Error};
use crate::config::ProxyOptions;
use crate::model::{Counters, Dump, Op, Protocol, RealId, Table, Virtual, VirtualId, VirtualSettings};

/// What a virtual without options of its own gets.
const DEFAULT_OPTIONS: ProxyOptions = ProxyOptions { protocol: None, idle: Duration::from_secs(15 * 60) };

/// More sessions than any mail farm has; with full buffers they take 2 GiB.
const MAX_SESSIONS: u32 = 65_536;
/// Descriptors that sessions leave to listeners, checks and everything else.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Sessions that are tried even where the limit of descriptors speaks against it.
const MIN_SESSIONS: u32 = 64;

/// A dataplane that forwards by itself.
#[derive(Debug)]
pub struct Proxy {
    table: Table,
    options: BTreeMap<VirtualId, ProxyOptions>,
    running: BTreeMap<VirtualId, Running>,
    /// Counters of real servers that were deleted, as long as sessions hold them. A server that comes back meanwhile
    /// has them still, as from the kernel's trash.
    deleted: BTreeMap<(VirtualId, RealId), Weak<Counts>>,
    /// Places for sessions, all virtuals together.
    sessions: Arc<Semaphore>,
    /// How many places there are when no session is.
    places: u32,
}

impl Default for Proxy {
    fn default() -> Self {
        Self::new()
    }
}

impl Proxy {
    /// A proxy without virtuals.
    ///
    /// A session takes two descriptors: there are at most as many sessions as the process's limit allows, and never
    /// more than 65536; clients above that wait in the kernel's backlog.
    #[must_use]
    pub fn new() -> Self {
        let places = max_sessions(getrlimit(Resource::Nofile).current);
        Self {
            table: Table::default(),
            options: BTreeMap::new(),
            running: BTreeMap::new(),
            deleted: BTreeMap::new(),
            // A semaphore has more room than a u32 on every machine that Linux runs on.
            sessions: Arc::new(Semaphore::new(usize::try_from(places).unwrap_or(Semaphore::MAX_PERMITS))),
            places,
        }
    }

    /// Tells the listener of a virtual what the table says now.
    fn publish(&self, id: &VirtualId) {
        if let (Some(running), Some(virtual_)) = (self.running.get(id), self.table.virtuals.get(id)) {
            running.roster.send_replace(self.roster(id, virtual_, &running.counts));
        }
    }

    fn roster(&self, id: &VirtualId, virtual_: &Virtual, counts: &BTreeMap<RealId, Arc<Counts>>) -> Roster {
        Roster {
            settings: virtual_.settings.clone(),
            options: self.options.get(id).copied().unwrap_or(DEFAULT_OPTIONS),
            reals: virtual_
                .reals
                .iter()
                .filter_map(|(real, settings)| Some((*real, *settings, Arc::clone(counts.get(real)?))))
                .collect(),
        }
    }

    /// Opens the listener of a virtual that is about to exist.
    fn start(&self, id: &VirtualId, settings: &VirtualSettings) -> Result<Running, Error> {
        let address = listen_address(id)?;
        let listener = listener::bind(address).map_err(|source| Error::Listen { address, source })?;
        let counts = BTreeMap::new();
        let traffic = Arc::new(Traffic::default());
        let roster = self.roster(id, &Virtual::new(settings.clone()), &counts);
        let (roster, changes) = watch::channel(roster);
        let task = listener::serve(listener, changes, Arc::clone(&traffic), Arc::clone(&self.sessions));
        Ok(Running { roster, traffic, counts, task: tokio::spawn(task) })
    }

    /// Remembers the counters of a deleted server, and forgets those that nobody holds any more.
    fn bury(&mut self, id: VirtualId, real: RealId, counts: &Arc<Counts>) {
        self.deleted.retain(|_, counts| counts.strong_count() > 0);
        self.deleted.insert((id, real), Arc::downgrade(counts));
    }

    /// The counters of a server that comes back while it still has sessions.
    fn exhume(&mut self, id: VirtualId, real: RealId) -> Option<Arc<Counts>> {
        let counts = self.deleted.remove(&(id, real))?.upgrade()?;
        (counts.sessions() != (0, 0)).then_some(counts)
    }
}

impl Dataplane for Proxy {
    fn name(&self) -> &'static str {
        "proxy"
    }

    async fn dump(&mut self) -> Result<Dump, Error> {
        let mut counters = Counters::default();
        for (id, running) in &self.running {
            counters.virtuals.insert(*id, running.traffic.stats());
            counters.reals.extend(running.counts.iter().map(|(real, c)| ((*id, *real), c.counters())));
        }
        Ok(Dump { table: self.table.clone(), counters })
    }

    async fn apply(&mut self, op: &Op) -> Result<(), Error> {
        let id = *op.virtual_id();
        // The table speaks first, on a copy: what follows may fail too, and then nothing has changed.
        let mut trial = Table::default();
        trial.virtuals.extend(self.table.virtuals.get(&id).map(|v| (id, v.clone())));
        trial.apply(op)?;
        match op {
            Op::AddVirtual(_, settings) => {
                supported(settings)?;
                let running = self.start(&id, settings)?;
                self.running.insert(id, running);
            }
            Op::SetVirtual(_, settings) => supported(settings)?,
            Op::DeleteVirtual(_) => {
                if let Some(mut running) = self.running.remove(&id) {
                    running.task.abort();
                    // When this returns, the socket is closed: the address is free for whoever comes next.
                    let _ = (&mut running.task).await;
                    for (real, counts) in std::mem::take(&mut running.counts) {
                        self.bury(id, real, &counts);
                    }
                }
            }
            Op::AddReal(_, real, _) => {
                if real.0.port() == 0 {
                    return Err(Error::Unsupported(format!(
                        "the proxy cannot connect to {real}: give the real server's port"
                    )));
                }
                let counts = self.exhume(id, *real).unwrap_or_default();
                if let Some(running) = self.running.get_mut(&id) {
                    running.counts.insert(*real, counts);
                }
            }
            Op::SetReal(..) => {}
            Op::DeleteReal(_, real) => {
                if let Some(counts) = self.running.get_mut(&id).and_then(|r| r.counts.remove(real)) {
                    self.bury(id, *real, &counts);
                }
            }
        }
        self.table.apply(op)?;
        self.publish(&id);
        Ok(())
    }

    /// New sessions follow the options, those that exist do not. A virtual that is not named has no header and
    /// 15 minutes.
    fn set_proxy_options(&mut self, options: BTreeMap<VirtualId, ProxyOptions>) {
        self.options = options;
        for id in self.running.keys() {
            self.publish(id);
        }
    }

    /// Listens no more; ends with the last session.
    async fn close(&mut self, limit: Duration) {
        self.running.clear();
        let busy = usize::try_from(self.places)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.sessions.available_permits());
        if busy > 0 {
            info!("waiting up to {} s for {busy} sessions to end", limit.as_secs());
        }
        // Who has all the places knows that no session is left.
        let _ = tokio::time::timeout(limit, self.sessions.acquire_many(self.places)).await;
    }
}

/// A virtual that listens.
#[derive(Debug)]
struct Running {
    roster: watch::Sender<Roster>,
    traffic: Arc<Traffic>,
    /// Of each real server in the table.
    counts: BTreeMap<RealId, Arc<Counts>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn listen_address(id: &VirtualId) -> Result<SocketAddr, Error> {
    let why = match id {
        VirtualId::Address { protocol: Protocol::Tcp, address } if address.port() > 0 => return Ok(*address),
        VirtualId::Address { protocol: Protocol::Tcp, .. } => "a virtual for all ports (port 0)",
        VirtualId::Address { protocol: Protocol::Udp, .. } => "UDP",
        VirtualId::Fwmark { .. } => "firewall marks",
    };
    Err(Error::Unsupported(format!(
        "the proxy cannot serve {id}: it has no {why}; name a TCP address and port, or set dataplane = \"ipvs\""
    )))
}

fn supported(settings: &VirtualSettings) -> Result<(), Error> {
    if settings.persistence.is_some() {
        return Err(Error::Unsupported(
            "the proxy has no persistence; use scheduler \"sh\", which sends a client to the same server \
             each time, or set dataplane = \"ipvs\""
                .into(),
        ));
    }
    if !schedule::supports(&settings.scheduler) {
        return Err(Error::Unsupported(format!(
            "the proxy has no scheduler \"{}\"; use rr, wrr, lc, wlc, sed, nq or sh, or set dataplane = \"ipvs\"",
            settings.scheduler
        )));
    }
    Ok(())
}

fn max_sessions(descriptors: Option<u64>) -> u32 {
    let fit = descriptors.map(|limit| limit.saturating_sub(RESERVED_DESCRIPTORS) / 2);
    let fit = fit.and_then(|fit| u32::try_from(fit).ok()).unwrap_or(MAX_SESSIONS);
    fit.clamp(MIN_SESSIONS, MAX_SESSIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_fit_into_the_descriptors() {
        for (descriptors, sessions) in
            [(Some(0), 64), (Some(1024), 384), (Some(20_000), 9872), (Some(1 << 20), 65_536), (None, 65_536)]
        {
            assert_eq!(max_sessions(descriptors), sessions, "{descriptors:?}");
        }
    }
}
