//! What a dataplane counts.
//!
//! Owns counters, which stand beside a [`Table`] and are no part of it. Refuses to know what follows from them. Cannot fail.

use std::collections::BTreeMap;

use super::{Protocol, RealId, Table, VirtualId};

/// What has passed since the service or destination was made, and the kernel's rate estimates.
/// In direct routing and tunnels the director never sees answers, so every `out_` stays 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
    /// Connections a second.
    pub connection_rate: u64,
    /// Packets a second from clients.
    pub in_packet_rate: u64,
    /// Packets a second to clients.
    pub out_packet_rate: u64,
    /// Bytes a second from clients.
    pub in_byte_rate: u64,
    /// Bytes a second to clients.
    pub out_byte_rate: u64,
}

/// What a dataplane counts for one real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RealCounters {
    /// Connections in the established state.
    pub active: u32,
    /// Connections in any other state, closed ones that the kernel still remembers among them.
    pub inactive: u32,
    /// Persistence templates.
    pub persistent: u32,
    /// Traffic.
    pub stats: Stats,
}

/// Observations that belong to a [`Table`] but are no part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Traffic of each virtual.
    pub virtuals: BTreeMap<VirtualId, Stats>,
    /// Connections and traffic of each real server.
    pub reals: BTreeMap<(VirtualId, RealId), RealCounters>,
}

/// All that a dataplane has, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Settings.
    pub table: Table,
    /// Observations.
    pub counters: Counters,
}

impl Dump {
    /// Connections that would lose their server if it were deleted now. A UDP connection is never active; what a
    /// firewall mark stands for is not known.
    #[must_use]
    pub fn in_use(&self, id: &VirtualId, real: &RealId) -> u32 {
        let Some(counters) = self.counters.reals.get(&(*id, *real)) else { return 0 };
        match id {
            VirtualId::Address { protocol: Protocol::Tcp, .. } => counters.active,
            VirtualId::Address { protocol: Protocol::Udp, .. } | VirtualId::Fwmark { .. } => {
                counters.active.saturating_add(counters.inactive)
            }
        }
    }
}
