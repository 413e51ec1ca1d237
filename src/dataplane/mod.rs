//! What carries the connections: one small contract, three ways to keep it.
//!
//! Owns the [`Dataplane`] contract and its [`Error`]. Refuses to know health, weights' reasons and
//! configuration. Every implementation passes the same contract suite (`tests/contract.rs`).

pub mod choose;
pub mod ipvs;
pub mod memory;
pub mod proxy;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::ProxyOptions;
use crate::model::{Dump, Op, TableError, VirtualId};

/// Something that holds a balancing table and sends connections by it.
///
/// Contract: `dump` after a successful `apply` shows the change; a failed `apply` changed nothing; ops are
/// refused exactly as [`crate::model::Table::apply`] refuses them; neither call waits longer than
/// a few seconds. Connections that exist survive every op but the deletion of their real server.
pub trait Dataplane: Send {
    /// Its name in configuration, log and metrics.
    fn name(&self) -> &'static str;

    /// Reads the whole table, virtuals of others included.
    fn dump(&mut self) -> impl Future<Output = Result<Dump, Error>> + Send;

    /// Makes one change.
    fn apply(&mut self, op: &Op) -> impl Future<Output = Result<(), Error>> + Send;

    /// Takes options that no table has a place for; without use for them it does nothing.
    fn set_proxy_options(&mut self, options: BTreeMap<VirtualId, ProxyOptions>) {
        let _ = options;
    }

    /// Called before the process ends by request: connections that need the process may end by themselves,
    /// for at most `limit`. A table in the kernel needs nothing.
    fn close(&mut self, limit: Duration) -> impl Future<Output = ()> + Send {
        let _ = limit;
        std::future::ready(())
    }
}

/// Why a dataplane could not do what it was asked; each message says what a person can do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table refuses the change (`EEXIST`, `ESRCH`, `ENOENT`).
    #[error(transparent)]
    Table(#[from] TableError),
    /// The kernel has no IPVS.
    #[error("this kernel has no IPVS; load it with `modprobe ip_vs`, or set dataplane = \"proxy\"")]
    NotAvailable,
    /// No `CAP_NET_ADMIN` in the initial user namespace.
    #[error(
        "IPVS needs the capability CAP_NET_ADMIN; run as root, or give it with \
         `setcap cap_net_admin+ep` or AmbientCapabilities=CAP_NET_ADMIN in the unit"
    )]
    Permission,
    /// The scheduler or persistence engine is not in this kernel.
    #[error("the kernel has no {kind} \"{name}\"; load it with `modprobe ip_vs_{name}`, or choose another")]
    NoModule {
        /// `scheduler` or `persistence engine`.
        kind: &'static str,
        /// Its name as the module has it after `ip_vs_`: `twos`, `pe_sip`.
        name: String,
    },
    /// This dataplane cannot do that at all.
    #[error("{0}")]
    Unsupported(String),
    /// The kernel calls a value invalid (`EINVAL`, `ERANGE`, `EAFNOSUPPORT`).
    #[error("the kernel refuses {0}")]
    Invalid(String),
    /// The proxy cannot listen on a virtual's address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The virtual's address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The kernel did not answer in time.
    #[error("no answer from the kernel within {} s", .0.as_secs())]
    Timeout(Duration),
    /// Bytes from the kernel that make no sense.
    #[error("cannot understand the kernel: {0}")]
    Protocol(String),
    /// Anything else that the system said.
    #[error("netlink: {0}")]
    Io(#[from] io::Error),
}
