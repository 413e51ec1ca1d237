//! EDGE: asks who answers for the VIPs, at its pace.
//!
//! Owns one task and one netlink socket at a time. Refuses to know what follows from an answer. A look that fails is told
//! once and tried again at the next turn; nothing is in doubt until somebody answered. Only a VIP that is on this machine is
//! asked for: on another's the answer is right.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::wire::{self, Request};
use super::{Look, Mac, Neighbour, Targets, judge};
use crate::director::Event;

/// The kernel asks three times, a second apart; this leaves time for two.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// For one answer of the kernel.
const DEADLINE: Duration = Duration::from_secs(5);
const DATAGRAM: usize = 64 * 1024;

/// The running watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch(watch::Sender<Targets>);

impl Watch {
    /// Starts it, with nothing to look for. What is found goes to `events`.
    #[must_use]
    pub fn start(events: mpsc::Sender<Event>) -> Self {
        let (sender, targets) = watch::channel(Targets::default());
        tokio::spawn(run(targets, events));
        Self(sender)
    }

    /// Looks for this from now on.
    pub fn sync(&self, targets: Targets) {
        self.0.send_if_modified(|now| {
            let differs = *now != targets;
            *now = targets;
            differs
        });
    }
}

async fn run(mut targets: watch::Receiver<Targets>, events: mpsc::Sender<Event>) {
    let mut told = false;
    loop {
        let now = targets.borrow_and_update().clone();
        let pause = match now.every.filter(|_| !now.vips.is_empty()) {
            None => Duration::MAX,
            Some(every) => {
                let looked = tokio::time::timeout(DEADLINE + PATIENCE, look(&now)).await;
                match looked.map_err(io::Error::from).and_then(|looked| looked) {
                    Ok(found) => {
                        told = false;
                        if events.send(Event::Answered(found)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) if !told => {
                        warn!("cannot look who answers for the VIPs: {error}");
                        told = true;
                    }
                    Err(_) => {}
                }
                every
            }
        };
        tokio::select! {
            changed = targets.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(pause.min(Duration::from_secs(86_400))) => {}
        }
    }
}

/// What this machine has.
#[derive(Default)]
struct Own {
    vips: BTreeSet<IpAddr>,
    macs: BTreeSet<Mac>,
    /// Links on which an address can be asked for.
    links: BTreeSet<u32>,
    /// Those of them that have a VIP.
    with_vip: BTreeSet<u32>,
}

impl Own {
    fn look(targets: &Targets) -> io::Result<Self> {
        let mut own = Self::default();
        for one in getifaddrs()? {
            let Some(address) = one.address else { continue };
            let v4 = address.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
            let ip = v4.or(address.as_sockaddr_in6().map(|found| IpAddr::V6(found.ip())));
            let vip = ip.filter(|ip| targets.vips.contains(ip));
            own.vips.extend(vip);
            own.macs.extend(address.as_link_addr().and_then(nix::sys::socket::LinkAddr::addr).map(Mac));
            let mute = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_NOARP;
            if one.flags.contains(InterfaceFlags::IFF_UP)
                && !one.flags.intersects(mute)
                && let Ok(link) = if_nametoindex(one.interface_name.as_str())
            {
                own.links.insert(link);
                own.with_vip.extend(vip.map(|_| link));
            }
        }
        Ok(own)
    }
}

/// Looks once.
///
/// # Errors
/// Whatever the system refuses; without CAP_NET_ADMIN that is EPERM.
pub async fn look(targets: &Targets) -> io::Result<Look> {
    let own = Own::look(targets)?;
    if own.vips.is_empty() {
        return Ok(Look::new());
    }
    let mut socket = Socket::open()?;
    let servers = socket.ask(Request::Dump).await?;
    let towards = servers.iter().filter(|row| targets.servers.contains(&row.address)).map(|row| row.link);
    let links: BTreeSet<u32> = towards.filter(|link| own.links.contains(link)).chain(own.with_vip).collect();
    let places: Vec<(u32, IpAddr)> =
        links.iter().flat_map(|link| own.vips.iter().map(|vip| (*link, *vip))).collect();
    for &(link, vip) in &places {
        socket.ask(Request::Ask(link, vip)).await?;
    }
    tokio::time::sleep(PATIENCE).await;
    let table = socket.ask(Request::Dump).await;
    for &(link, vip) in &places {
        // It may be gone by itself.
        let _ = socket.ask(Request::Forget(link, vip)).await;
    }
    let rows = [servers, table?].concat();
    Ok(judge(targets, &own.vips, &own.macs, &rows))
}

struct Socket {
    socket: TokioSocket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Socket {
    fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_ref().connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// One request and all of its answer.
    async fn ask(&mut self, request: Request) -> io::Result<Vec<Neighbour>> {
        self.sequence += 1;
        self.socket.send(&request.encode(self.sequence)).await?;
        let mut rows = Vec::new();
        loop {
            self.datagram.clear();
            let sender = self.socket.recv_from(&mut self.datagram).await?;
            if sender.port_number() != 0 {
                continue; // not the kernel's
            }
            let answer = wire::decode(&self.datagram, self.sequence);
            rows.extend(answer.rows);
            match answer.end {
                None => {}
                Some(Ok(())) => return Ok(rows),
                Some(Err(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}
