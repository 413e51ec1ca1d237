//! What the proxy counts, shared between the sessions that count and the dump that reads.
//!
//! Owns the counters of a virtual and of a real server, and [`Session`], through which alone the numbers of
//! sessions change. A session counts where it began: a server that is deleted and added again cannot fall
//! below zero. Cannot fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::model::{RealCounters, Stats};

/// Connections and bytes since the start.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    connections: AtomicU64,
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
}

impl Traffic {
    /// One more connection was scheduled.
    pub(super) fn connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// So many bytes came from the client and from the real server.
    pub(super) fn bytes(&self, from_client: u64, from_real: u64) {
        if from_client > 0 {
            self.in_bytes.fetch_add(from_client, Relaxed);
        }
        if from_real > 0 {
            self.out_bytes.fetch_add(from_real, Relaxed);
        }
    }

    /// As the model has it. The proxy sees no packets and estimates no rates: these stay 0.
    pub(super) fn stats(&self) -> Stats {
        Stats {
            connections: self.connections.load(Relaxed),
            in_bytes: self.in_bytes.load(Relaxed),
            out_bytes: self.out_bytes.load(Relaxed),
            ..Stats::default()
        }
    }
}

/// The counters of one real server.
#[derive(Debug, Default)]
pub(super) struct Counts {
    active: AtomicU32,
    inactive: AtomicU32,
    /// What went through it; for the server each attempt to connect is a connection scheduled, as in the kernel.
    pub(super) traffic: Traffic,
}

impl Counts {
    /// Sessions that are open both ways or being connected, and half-closed ones.
    pub(super) fn sessions(&self) -> (u32, u32) {
        (self.active.load(Relaxed), self.inactive.load(Relaxed))
    }

    /// As the model has it.
    pub(super) fn counters(&self) -> RealCounters {
        let (active, inactive) = self.sessions();
        RealCounters { active, inactive, persistent: 0, stats: self.traffic.stats() }
    }
}

/// One session of a real server, counted for as long as this lives.
#[derive(Debug)]
pub(super) struct Session {
    counts: Arc<Counts>,
    half_closed: bool,
}

impl Session {
    /// A new, active session.
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        counts.active.fetch_add(1, Relaxed);
        counts.traffic.connection();
        Self { counts, half_closed: false }
    }

    /// One side has ended: from now on the session is inactive. Again and again is the same as once.
    pub(super) fn half_close(&mut self) {
        if !self.half_closed {
            self.half_closed = true;
            // In this order nobody sees a server with one session less than it has.
            self.counts.inactive.fetch_add(1, Relaxed);
            self.counts.active.fetch_sub(1, Relaxed);
        }
    }

    /// The traffic of its real server.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.counts.traffic
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let count = if self.half_closed { &self.counts.inactive } else { &self.counts.active };
        count.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_active_then_inactive_then_gone() {
        let counts = Arc::new(Counts::default());
        let mut one = Session::new(Arc::clone(&counts));
        let two = Session::new(Arc::clone(&counts));
        assert_eq!(counts.sessions(), (2, 0));
        one.half_close();
        one.half_close();
        assert_eq!(counts.sessions(), (1, 1));
        drop(two);
        assert_eq!(counts.sessions(), (0, 1));
        drop(one);
        assert_eq!(counts.sessions(), (0, 0));
        assert_eq!(counts.counters().stats.connections, 2);
    }
}
